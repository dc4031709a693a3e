/* tests/test_daemon_away.c - users of a daemon whose memory is short, and idle sessions that give
 * way. Would catch: a second user who finds no pages beside the idle sessions of a first one; an
 * answer that is another one because its session was away, was read back, from the disk or by the
 * model, was forked or taken back then; text that is lost on the way; sessions that go for who has
 * more than their user, or in vain; an answer that is cut short though others give back what it
 * wants, or that waits for ever.
 *
 * All compressors take part; adapters are untrained ones of each kind.
 */
#include "tests/support/answered.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/memories.h"
#include "tests/support/tiny_adapters.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define SEGMENT 64u
#define OTHER   4242u /* a uid */
#define N_SAID  20u

#define COMPRESSED 2 /* of memories: to a quarter */

/* store: for --store; "": its own, and host memory behind a device's; "none": neither. */
static void start(struct daemon_fixture *d, const char *kv_bytes, const char *store)
{
    const char *args[] = { "--kv-bytes",
                           kv_bytes,
                           "--socket-mode",
                           "0666",
                           "--adapter",
                           tiny_adapters(),
                           "--batch-tokens",
                           "48",
                           "--store-restore",
                           "always",
                           "--store-idle-ms",
                           "1",
                           store[0] ? "--host-bytes" : NULL,
                           "none",
                           "--store",
                           store,
                           NULL };

    daemon_fixture_start(d, DAEMON_FIXTURE_TINY, args);
    daemon_fixture_let_in(d);
}

static gist_session *open_session(gist_conn *c, size_t memory, unsigned flags, bool background)
{
    struct gist_policy p = { .size = sizeof(p),
                             .segment = SEGMENT,
                             .memory = &memories[memory],
                             .priority = background ? GIST_BACKGROUND : GIST_INTERACTIVE,
                             .flags = flags };
    gist_session *s;

    if (gist_open(c, &p, &s) < 0)
        fail_msg("%s", gist_error(c));
    return s;
}

static void fill(uint32_t *ids, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = 40 + (uint32_t)rand_r(&seed) % 80;
}

static struct gist_stats_session of(gist_conn *c, const gist_session *s)
{
    struct gist_stats st;

    assert_int_equal(gist_stats(c, &st), 0);
    for (uint32_t i = 0; i < st.n_sessions; i++)
        if (st.sessions[i].id == gist_session_id(s))
            return st.sessions[i];
    fail_msg("session %llu is not there", (unsigned long long)gist_session_id(s));
    return (struct gist_stats_session){ .id = 0 };
}

static bool is_away(gist_conn *c, const gist_session *s)
{
    struct gist_stats_session x = of(c, s);

    return x.pages == 0 && x.n_tokens > 1;
}

static const struct gist_sampling greedy = { .size = sizeof(greedy),
                                             .max_tokens = N_SAID,
                                             .ignore_eog = 1 };

static int needs_root(void **state)
{
    (void)state;
    if (getuid() == 0)
        return 0;
    printf("two users: only root can be somebody else\n");
    exit(77);
}

/* --- as if it had never been away ------------------------------------------------------------- */

#define N_SLOTS 18
#define N_STEPS 700

/* One session of two daemons: one has memory for all, in the other they give way to each other. */
struct twin {
    gist_conn *c[2];
    gist_session *s[2]; /* NULL: none */
    uint32_t n_tokens;
    size_t memory;
};

static struct {
    uint32_t refused, cut, came_back, forked;
} count;

static void close_twin(struct twin *t)
{
    struct gist_stats st;

    for (int k = 0; k < 2 && t->s[k]; k++) {
        gist_close(t->s[k]);
        t->s[k] = NULL;
        assert_int_equal(gist_stats(t->c[k], &st), 0); /* it is closed when this is answered */
    }
    t->n_tokens = 0;
}

/* What the small one refuses has changed no text; but what it read of it may have had older
 * segments compressed, which they stay. */
static bool refused(struct twin *t, int e)
{
    if (e == 0)
        return false;
    if (e != -ENOSPC && e != -E2BIG)
        fail_msg("error %d: %s", e, gist_error(t->c[1]));
    assert_int_equal(of(t->c[1], t->s[1]).n_tokens, t->n_tokens);
    count.refused++;
    if (t->memory > 0)
        close_twin(t);
    return true;
}

static void append_to(struct twin *t, unsigned *seed)
{
    uint32_t ids[200], n = 1 + (uint32_t)rand_r(seed) % 200;

    fill(ids, n, (unsigned)rand_r(seed) % 8); /* some begin alike */
    if (refused(t, gist_append_tokens(t->s[1], ids, n, NULL)))
        return;
    assert_int_equal(gist_append_tokens(t->s[0], ids, n, NULL), 0);
    t->n_tokens += n;
}

/* One that is cut for want of pages is no less right as far as it goes. */
static void answer_by(struct twin *t)
{
    struct answered said[2] = { { .n = 0 }, { .n = 0 } };
    struct gist_result result = { .reason = GIST_LENGTH };
    int e = gist_generate(t->s[1], &greedy, answered_take, &said[1], &result);

    if (said[1].n == 0 && refused(t, e))
        return;
    assert_int_equal(gist_generate(t->s[0], &greedy, answered_take, &said[0], NULL), 0);
    assert_true(said[1].n <= said[0].n);
    if (memcmp(said[0].ids, said[1].ids, said[1].n * sizeof(said[0].ids[0])) != 0)
        fail_msg("a session of memory %zu says something else than one that never gave way",
                 t->memory);
    if (e == 0 && result.reason == GIST_LENGTH) {
        assert_int_equal(said[1].n, N_SAID);
        t->n_tokens += N_SAID;
        return;
    }
    count.cut++;
    close_twin(t);
}

/* What has stayed keeps segments compressed that a fresh session would have raw. */
static void rewind_to(struct twin *t, unsigned *seed, bool away)
{
    uint32_t n = (uint32_t)rand_r(seed) % (t->n_tokens + 1);

    assert_int_equal(gist_rewind(t->s[1], n), 0); /* pages or not */
    assert_int_equal(gist_rewind(t->s[0], n), 0);
    t->n_tokens = n;
    if (away && t->memory > 0)
        close_twin(t);
}

static void fork_to(struct twin *t, struct twin *to)
{
    close_twin(to);
    if (refused(t, gist_fork(t->s[1], NULL, &to->s[1]))) {
        to->s[1] = NULL;
        return;
    }
    assert_int_equal(gist_fork(t->s[0], NULL, &to->s[0]), 0);
    to->n_tokens = t->n_tokens;
    to->memory = t->memory;
    count.forked++;
}

static void step(struct twin *t, struct twin *other, unsigned *seed)
{
    unsigned what = (unsigned)rand_r(seed) % 16;
    size_t memory = (size_t)rand_r(seed) % N_MEMORIES;
    bool away, had = t->s[1];

    if (!had) {
        for (int k = 0; k < 2; k++)
            t->s[k] =
                open_session(t->c[k], memory, what % 4 == 0 ? GIST_PRIVATE : 0, what % 3 == 0);
        t->memory = memory;
        return;
    }
    away = is_away(t->c[1], t->s[1]);
    if (what < 6)
        append_to(t, seed);
    else if (what < 12 && t->n_tokens > 0)
        answer_by(t);
    else if (what < 14)
        rewind_to(t, seed, away);
    else if (what < 15)
        fork_to(t, other);
    else
        close_twin(t);
    count.came_back += away && t->s[1] && !is_away(t->c[1], t->s[1]);
}

/* Whatever comes, in any order: what the small daemon says is what the large one does. */
static void random_steps(const char *store, unsigned seed)
{
    struct daemon_fixture d[2];
    struct twin twins[N_SLOTS] = { { .n_tokens = 0 } };
    gist_conn *c[2][3];

    if (!daemon_fixture_exact()) {
        printf("skipped: a device reads again in other steps, by which it may say something else; "
               "\"fenced\" has its tiers with the CPU's bits\n");
        skip();
    }
    memset(&count, 0, sizeof(count));
    start(&d[0], "16M", "none");
    start(&d[1], "384K", store);
    for (int i = 0; i < 6; i++)
        c[i % 2][i / 2] = daemon_fixture_connect_as(&d[i % 2], i / 2 ? OTHER + (uid_t)(i / 2) : 0);
    for (int i = 0; i < N_SLOTS; i++)
        for (int k = 0; k < 2; k++)
            twins[i].c[k] = c[k][i % 3];
    for (int i = 0; i < N_STEPS; i++) {
        uint32_t who = (uint32_t)rand_r(&seed) % N_SLOTS;
        uint32_t other = (who + 3 * (1 + (uint32_t)rand_r(&seed) % (N_SLOTS / 3 - 1))) % N_SLOTS;

        step(&twins[who], &twins[other], &seed);
    }
    printf("%u refused, %u cut, %u came back, %u forked\n", count.refused, count.cut,
           count.came_back, count.forked);
    assert_true(count.came_back > 10 && count.forked > 5);
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < 3; i++)
            gist_disconnect(c[k][i]);
        daemon_fixture_stop(&d[k]);
    }
}

static void as_if_never_away(void **state)
{
    (void)state;
    random_steps("", 3);
}

/* Nothing is kept anywhere: the model reads what was away again. */
static void as_if_never_away_without_a_store(void **state)
{
    (void)state;
    random_steps("none", 4);
}

/* --- who gives way ---------------------------------------------------------------------------- */

static uint32_t ids[2048];

/* 0, or the error. Each text is another one. */
static int append(gist_session *s, uint32_t n)
{
    static unsigned seed = 50;

    fill(ids, n, seed++);
    return gist_append_tokens(s, ids, n, NULL);
}

/* What of a user's is on disk, as this connection is told. */
static uint64_t on_disk(gist_conn *c, uint32_t uid)
{
    struct gist_stats st;

    assert_int_equal(gist_stats(c, &st), 0);
    for (uint32_t i = 0; i < st.n_owners; i++)
        if (st.owners[i].uid == uid)
            return st.owners[i].store_bytes;
    fail_msg("user %u is not there", uid);
    return 0;
}

/* Root hears of all, others of their own. */
static void tells_what_is_on_disk(gist_conn *root, gist_conn *other)
{
    struct gist_stats st;
    uint64_t all;

    assert_int_equal(gist_stats(root, &st), 0);
    all = st.store->bytes;
    assert_true(on_disk(root, 0) > on_disk(root, OTHER) && on_disk(root, OTHER) > 0);
    assert_true(on_disk(root, 0) + on_disk(root, OTHER) <= all);
    assert_int_equal(on_disk(other, OTHER), on_disk(root, OTHER));
    assert_int_equal(on_disk(other, 0), 0);
}

static void stored(gist_conn *c, const char *store)
{
    if (!store[0])
        daemon_fixture_stored(c);
}

/* Beside what is kept for others. */
static bool has_pages_for(gist_conn *c, uint32_t n)
{
    struct gist_stats st;

    assert_int_equal(gist_stats(c, &st), 0);
    return st.pages_free + st.pages_cached >= st.pages / 16 + (n + 15) / 16;
}

/* Idle sessions of one user have all that he may have. Another one comes, and gets an even part and
 * no more; then the first one uses all of his again. */
static void second_user(const char *store)
{
    gist_session *mine[32], *theirs, *fork;
    uint32_t n = 0, half, n_away = 0;
    struct gist_stats st;
    struct daemon_fixture d;
    gist_conn *c, *other;

    start(&d, "384K", store);
    c = daemon_fixture_connect_as(&d, 0);
    other = daemon_fixture_connect_as(&d, OTHER);
    for (; has_pages_for(c, 150); n++) {
        assert_true(n < 32);
        mine[n] = open_session(c, 0, 0, false);
        assert_int_equal(append(mine[n], 150), 0);
    }
    gist_close(mine[--n]);
    assert_int_equal(gist_fork(mine[n - 1], NULL, &fork), 0);
    stored(c, store);
    assert_int_equal(gist_stats(c, &st), 0);
    half = st.pages / 2 * 16;
    theirs = open_session(other, 0, 0, false);
    /* In vain nobody goes: not for more than a part, nor for more than the user may have. */
    assert_int_equal(append(theirs, half + 16), -ENOSPC);
    assert_true(append(mine[0], 2 * half - 16) < 0);
    for (uint32_t i = 0; i < n; i++)
        assert_false(is_away(c, mine[i]));
    assert_int_equal(append(theirs, half), 0);
    assert_false(is_away(c, fork)); /* it is not old because nobody has used it */
    gist_close(fork);
    for (uint32_t i = 0; i < n; i++)
        n_away += is_away(c, mine[i]);
    assert_true(n_away > 0 && n_away < n);
    assert_true(is_away(c, mine[1])); /* the longest unused: the first one has just been asked */
    for (uint32_t i = 0; i < n; i++) {
        struct answered a = { .n = 0 };
        struct gist_result result;

        stored(c, store);
        if (gist_generate(mine[i], &greedy, answered_take, &a, &result) < 0)
            fail_msg("session %u: %s", i, gist_error(c));
        assert_int_equal(result.reason, GIST_LENGTH);
        assert_int_equal(a.n, N_SAID);
    }
    assert_false(is_away(other, theirs));
    stored(c, store);
    if (!store[0])
        tells_what_is_on_disk(c, other);
    gist_disconnect(other);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

static void a_second_user_gets_his_part(void **state)
{
    (void)state;
    second_user("");
}

/* The first one's sessions come back one instead of the other all the same. */
static void a_second_user_gets_his_part_without_a_store(void **state)
{
    (void)state;
    second_user("none");
}

/* While it is read again a session may have more pages than it had when it went: those, too, are of
 * who has more than his part. */
static void what_comes_back_finds_room_on_the_way(void **state)
{
    gist_session *s, *all, *half;
    struct gist_stats st;
    struct daemon_fixture d;
    gist_conn *c, *other;
    uint32_t reserve;

    (void)state;
    start(&d, "384K", "none");
    c = daemon_fixture_connect_as(&d, 0);
    other = daemon_fixture_connect_as(&d, OTHER);
    assert_int_equal(gist_stats(c, &st), 0);
    reserve = st.pages / 16;
    s = open_session(c, COMPRESSED, 0, false);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(append(s, (reserve + 8) / 2 * SEGMENT), 0);
    assert_int_equal(append(s, 1), 0); /* behind the last check all segments are gists */
    assert_true(of(c, s).pages > reserve);
    all = open_session(c, 0, 0, false);
    for (uint32_t n = st.pages_free * 2 - SEGMENT; has_pages_for(c, n) && append(all, n) == 0;)
        ;
    half = open_session(other, 0, 0, false);
    assert_int_equal(append(half, st.pages / 4 * 16), 0);
    assert_int_equal(append(half, st.pages / 4 * 16), 0);
    assert_true(is_away(c, s));
    gist_close(all);
    gist_close(half);
    for (uint32_t i = 0; i < 18; i++) /* these go first, and one by one */
        assert_int_equal(append(open_session(other, 0, 0, false), 16), 0);
    while (has_pages_for(other, 9 * 16))
        assert_int_equal(append(open_session(other, 0, 0, false), 9 * 16), 0);
    if (append(s, 1) < 0)
        fail_msg("%s", gist_error(c));
    gist_disconnect(other);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* Of one user: background sessions go for interactive ones, and not the other way round. */
static void background_gives_way(void **state)
{
    struct daemon_fixture d;
    gist_session *back, *front, *more, *fork;
    struct gist_stats st;
    uint32_t most;
    gist_conn *c;

    (void)state;
    start(&d, "256K", "");
    c = daemon_fixture_connect_as(&d, 0);
    assert_int_equal(gist_stats(c, &st), 0);
    most = (st.pages - st.pages / 16) * 16;
    back = open_session(c, 0, 0, true);
    assert_int_equal(append(back, most / 2), 0);
    daemon_fixture_stored(c);
    front = open_session(c, 0, 0, false);
    assert_int_equal(append(front, most / 2 - 16), 0);
    daemon_fixture_stored(c);
    more = open_session(c, 0, 0, true);
    assert_true(append(more, most / 2 + 64) < 0);
    assert_false(is_away(c, back));
    assert_false(is_away(c, front));
    gist_close(more);
    more = open_session(c, 0, 0, false);
    assert_int_equal(append(more, 200), 0);
    assert_true(is_away(c, back));
    assert_false(is_away(c, front));
    daemon_fixture_stored(c);
    /* Of one that was taken back meanwhile only what is left wants room. */
    assert_int_equal(gist_fork(back, NULL, &fork), 0);
    assert_int_equal(gist_rewind(fork, 20), 0);
    assert_int_equal(append(fork, 1), 0);
    assert_false(is_away(c, front));
    gist_close(fork);
    /* To come back it has one of its user's go that is an interactive one. */
    assert_int_equal(append(back, 1), 0);
    assert_true(is_away(c, front));
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* A kept session has its own limit: what others of its connection have is of no use to it. And what
 * is kept nowhere goes last. */
static void nobody_goes_in_vain(void **state)
{
    static const char *const args[] = { "--kv-bytes",
                                        "256K",
                                        "--client-kv-bytes",
                                        "96K",
                                        "--owner-kv-bytes",
                                        "256K",
                                        "--store-idle-ms",
                                        "1",
                                        NULL };
    struct gist_kept kept = { .size = sizeof(kept) };
    gist_session *back, *front, *private;
    struct daemon_fixture d;
    struct gist_stats st;
    uint32_t most;
    gist_conn *c;

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    assert_int_equal(gist_stats(c, &st), 0);
    most = st.pages * 96 / 256;
    back = open_session(c, 0, 0, true);
    assert_int_equal(append(back, most / 4 * 16), 0);
    front = open_session(c, 0, 0, false);
    assert_int_equal(gist_keep(front, 0, &kept), 0);
    assert_int_equal(append(front, (most - 2) * 16), 0);
    daemon_fixture_stored(c);
    assert_true(append(front, 4 * 16) < 0);
    assert_false(is_away(c, back));
    gist_close(front);
    private = open_session(c, 0, GIST_PRIVATE, true);
    assert_int_equal(append(private, most / 2 * 16), 0);
    front = open_session(c, 0, 0, false);
    assert_true(append(front, (most + 1) * 16) < 0);
    assert_false(is_away(c, back));
    assert_int_equal(append(front, (most / 2 - 4) * 16), 0);
    assert_true(is_away(c, back));
    assert_false(is_away(c, private));
    assert_int_equal(append(front, most / 2 * 16), 0);
    assert_true(is_away(c, private));
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* --- answers ---------------------------------------------------------------------------------- */

struct written {
    struct answered said;
    enum gist_reason reason;
    bool done, scored;
};

static int take(void *arg, const char *text, size_t len, const uint32_t *said, size_t n)
{
    struct written *w = arg;

    return answered_take(&w->said, text, len, said, n);
}

static void on_done(void *arg, int err, const struct gist_result *result)
{
    struct written *w = arg;

    assert_int_equal(err, 0);
    w->reason = result->reason;
    w->done = true;
}

static void on_score(void *arg, int err, const struct gist_score *score)
{
    struct written *w = arg;

    (void)score;
    assert_int_equal(err, 0);
    w->scored = true;
}

/* A background answer finds no page while a text is scored that has all others: it waits for them,
 * and is not cut. Alone it would wait for ever, and ends. */
static void a_full_pool_cuts_nobody_short(void **state)
{
    static const char *const args[] = { "--kv-bytes", "256K", "--batch-tokens", "32",
                                        "--store",    "none", "--prefix-cache", "no",
                                        NULL };
    struct gist_sampling p = { .size = sizeof(p), .max_tokens = 60, .ignore_eog = 1 };
    struct written w = { .done = false };
    struct daemon_fixture d;
    gist_session *s, *idle;
    struct gist_result result;
    struct gist_stats st;
    gist_conn *c;

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    assert_int_equal(gist_stats(c, &st), 0);
    s = open_session(c, 0, 0, true);
    assert_int_equal(append(s, 33), 0);
    fill(ids, (st.pages - 3) * 16, 7);
    assert_int_equal(gist_score_tokens_start(c, ids, (st.pages - 3) * 16, NULL, on_score, &w, NULL),
                     0);
    assert_int_equal(gist_generate_start(s, &p, take, on_done, &w, NULL), 0);
    while (!w.done || !w.scored)
        assert_true(gist_dispatch(c) >= 0);
    assert_int_equal(w.reason, GIST_LENGTH);
    assert_int_equal(w.said.n, 60);
    assert_int_equal(gist_stats(c, &st), 0);
    idle = open_session(c, 0, 0, false);
    assert_int_equal(append(idle, st.pages_free * 16), 0);
    w.said.n = 0;
    assert_int_equal(gist_generate(s, &p, take, &w, &result), 0);
    assert_int_equal(result.reason, GIST_POOL_FULL);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_pool_cuts_nobody_short),
        cmocka_unit_test(nobody_goes_in_vain),
        cmocka_unit_test_setup(a_second_user_gets_his_part, needs_root),
        cmocka_unit_test_setup(a_second_user_gets_his_part_without_a_store, needs_root),
        cmocka_unit_test_setup(what_comes_back_finds_room_on_the_way, needs_root),
        cmocka_unit_test_setup(background_gives_way, needs_root),
        cmocka_unit_test_setup(as_if_never_away, needs_root),
        cmocka_unit_test_setup(as_if_never_away_without_a_store, needs_root),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
