/* tests/test_owners.c - sessions of several users in one daemon whose memory is short. Would catch:
 * text that reaches another user's answers or is shared with them, an answer that depends on who
 * else was there, on what was shared or given up; text of one realm that is found in another; a
 * pool that grows past its bytes, a refusal that does not say what was wanted and what there was, a
 * refused request that changes its session.
 *
 * All compressors take part; adapters are untrained ones of each kind.
 */
#include "tests/support/answered.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/memories.h"
#include "tests/support/tiny_adapters.h"

#include <ctype.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define SEGMENT 64u
#define BYTE_0  3u /* the model's id of byte 0 */

/* Of the socket: who may come. Where nobody else may, no pages are kept for them. */
static const char *mode = "0666";

/* store: for --store; "": one of its own, from which all is read back that is not in memory. */
static void start(struct daemon_fixture *d, const char *kv_bytes, const char *cache,
                  const char *store)
{
    const char *args[] = { "--kv-bytes",
                           kv_bytes,
                           "--socket-mode",
                           mode,
                           "--adapter",
                           tiny_adapters(),
                           "--batch-tokens",
                           "48",
                           "--max-sessions",
                           "64",
                           "--prefix-cache",
                           cache,
                           "--store-restore",
                           "always",
                           store[0] ? "--store" : NULL,
                           store,
                           NULL };

    daemon_fixture_start(d, DAEMON_FIXTURE_TINY, args);
    daemon_fixture_let_in(d);
}

static gist_session *open_session(gist_conn *c, size_t memory, unsigned flags)
{
    struct gist_policy p = {
        .size = sizeof(p), .segment = SEGMENT, .memory = &memories[memory], .flags = flags
    };
    gist_session *s;

    if (gist_open(c, &p, &s) < 0)
        fail_msg("%s", gist_error(c));
    return s;
}

/* Texts of one group begin alike; each has a secret of its own in several places. */
static void fill(uint32_t *ids, size_t n, unsigned group, unsigned secret)
{
    unsigned seed = group;

    for (size_t i = 0; i < n; i++)
        ids[i] = BYTE_0 + 32 + (uint32_t)rand_r(&seed) % 90;
    for (size_t at = 100; secret && at + 8 < n; at += 61)
        for (unsigned k = 0; k < 8; k++)
            ids[at + k] = BYTE_0 + 48 + (secret * 7919u >> (3 * k)) % 10;
}

static const struct gist_sampling greedy = { .size = sizeof(greedy),
                                             .max_tokens = 40,
                                             .ignore_eog = 1 };

/* --- what is shared --------------------------------------------------------------------------- */

/* Tokens that came from earlier sessions, by memory or by the disk. */
static uint32_t shared_by(gist_conn *c, size_t memory, unsigned flags, const uint32_t *ids,
                          bool stored)
{
    gist_session *s = open_session(c, memory, flags);
    struct gist_usage usage;

    assert_int_equal(gist_append_tokens(s, ids, 300, &usage), 0);
    assert_int_equal(usage.shared_tokens + usage.restored_tokens + usage.computed_tokens, 300);
    gist_close(s);
    if (stored)
        daemon_fixture_stored(c);
    return usage.shared_tokens + usage.restored_tokens;
}

/* Who reads the same text again is given it if it was the same user's and not private, or if both
 * said that it is public. */
static void only_what_is_public_by(const char *cache, const char *store)
{
    static const struct {
        uid_t first, second;
        unsigned first_flags, second_flags;
        bool shares;
    } cases[] = {
        { 0, 0, 0, 0, true },
        { 0, 65534, 0, 0, false },
        { 0, 65534, GIST_PUBLIC, 0, false },
        { 0, 65534, 0, GIST_PUBLIC, false },
        { 0, 0, GIST_PUBLIC, 0, false }, /* the public ones are a world of their own */
        { 0, 0, 0, GIST_PUBLIC, false },
        { 0, 65534, GIST_PUBLIC, GIST_PUBLIC, true },
        { 65534, 65533, GIST_PUBLIC, GIST_PUBLIC, true },
        { 65534, 65533, 0, 0, false },
        { 0, 0, GIST_PRIVATE, 0, false }, /* nothing stays of it, */
        { 0, 0, GIST_PRIVATE, GIST_PRIVATE, false },
        { 0, 0, 0, GIST_PRIVATE, true }, /* and it may use what did of others */
        { 0, 65534, 0, GIST_PRIVATE, false },
    };
    struct daemon_fixture d;
    unsigned text = 100;

    start(&d, "4M", cache, store);
    for (size_t m = 0; m < N_MEMORIES; m++)
        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
            gist_conn *a = daemon_fixture_connect_as(&d, cases[i].first),
                      *b = daemon_fixture_connect_as(&d, cases[i].second);
            bool among = memories[m].adapter && strcmp(memories[m].adapter, "among") == 0;
            uint32_t ids[300], n;

            fill(ids, 300, text++, 0);
            assert_int_equal(shared_by(a, m, cases[i].first_flags, ids, !store[0]), 0);
            n = shared_by(b, m, cases[i].second_flags, ids, !store[0]);
            if ((n >= SEGMENT) != (cases[i].shares && !among) || (n && n < SEGMENT))
                fail_msg("memory %zu, case %zu: %u tokens were shared", m, i, n);
            gist_disconnect(a);
            gist_disconnect(b);
        }
    daemon_fixture_stop(&d);
}

static void only_what_is_public_from_disk(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        printf("skipped: only root can be several users\n");
        skip();
    }
    only_what_is_public_by("no", "");
}

static void only_what_is_public(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        printf("skipped: only root can be several users\n");
        skip();
    }
    only_what_is_public_by("yes", "none");
}

/* --- realms ----------------------------------------------------------------------------------- */

/* Tokens that a session of the realm takes over. */
static uint32_t shared_in(gist_conn *c, size_t memory, const char *realm, const uint32_t *ids,
                          bool stored)
{
    struct gist_policy p = {
        .size = sizeof(p), .segment = SEGMENT, .memory = &memories[memory], .realm = realm
    };
    struct gist_usage usage;
    gist_session *s;

    if (gist_open(c, &p, &s) < 0)
        fail_msg("%s", gist_error(c));
    assert_int_equal(gist_append_tokens(s, ids, 300, &usage), 0);
    gist_close(s);
    if (stored)
        daemon_fixture_stored(c);
    return usage.shared_tokens + usage.restored_tokens;
}

/* Of one user, and of each memory: who reads what was read in another realm finds nothing of it, in
 * memory as on disk. */
static void realms_by(const char *cache, const char *store)
{
    static const struct {
        const char *first, *second;
        bool shares;
    } cases[] = {
        { "anna", "anna", true }, { "anna", "bert", false }, { "anna", "ann", false },
        { "anna", "", false },    { NULL, "anna", false },   { NULL, "", true },
    };
    struct daemon_fixture d;
    unsigned text = 300;
    gist_conn *c;

    start(&d, "4M", cache, store);
    c = daemon_fixture_connect(&d);
    for (size_t m = 0; m < N_MEMORIES; m++)
        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
            bool among = memories[m].adapter && strcmp(memories[m].adapter, "among") == 0;
            uint32_t ids[300], n;

            fill(ids, 300, text++, 0);
            assert_int_equal(shared_in(c, m, cases[i].first, ids, !store[0]), 0);
            n = shared_in(c, m, cases[i].second, ids, !store[0]);
            if ((n >= SEGMENT) != (cases[i].shares && !among) || (n && n < SEGMENT))
                fail_msg("memory %zu, case %zu: %u tokens were shared", m, i, n);
        }
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

static void realms_share_nothing(void **state)
{
    (void)state;
    realms_by("yes", "none");
}

static void realms_share_nothing_on_disk(void **state)
{
    (void)state;
    realms_by("no", "");
}

static void realms_that_cannot_be(void **state)
{
    static const char *const one[] = { "book" };
    char longest[129];
    struct gist_policy cases[] = {
        { .size = sizeof(cases[0]), .realm = longest },
        { .size = sizeof(cases[0]), .realm = "anna", .flags = GIST_PUBLIC },
        { .size = sizeof(cases[0]), .realm = "anna", .documents = one, .n_documents = 1 },
    };
    struct daemon_fixture d;
    gist_session *s;
    gist_conn *c;

    (void)state;
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    start(&d, "4M", "yes", "none");
    c = daemon_fixture_connect(&d);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        assert_int_equal(gist_open(c, &cases[i], &s), -EINVAL);
        assert_non_null(strstr(gist_error(c), "realm"));
    }
    longest[127] = '\0';
    assert_int_equal(gist_open(c, &cases[0], &s), 0);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* --- nothing bleeds --------------------------------------------------------------------------- */

#define N_SESSIONS  (3 * N_MEMORIES)
#define N_TEXT      330u
#define BLEED_BYTES "2M"

/* Session i is of memory i / 3, and every third session's text begins like its neighbours'. */
static void text_of(size_t i, uint32_t ids[N_TEXT])
{
    fill(ids, N_TEXT, 7 + (unsigned)(i / 6), 1000 + (unsigned)i);
}

/* What every session says when it is alone in a daemon that shares nothing. */
static void say_alone(struct answered *ret)
{
    struct daemon_fixture d;
    gist_conn *c;

    start(&d, "4M", "no", "none");
    c = daemon_fixture_connect(&d);
    for (size_t i = 0; i < N_SESSIONS; i++) {
        gist_session *s = open_session(c, i / 3, 0);
        uint32_t ids[N_TEXT];

        text_of(i, ids);
        assert_int_equal(gist_append_tokens(s, ids, N_TEXT, NULL), 0);
        assert_int_equal(gist_generate(s, &greedy, answered_take, &ret[i], NULL), 0);
        gist_close(s);
    }
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

static void on_done(void *arg, int err, const struct gist_result *result)
{
    struct answered *a = arg;

    assert_int_equal(err, 0);
    if (result->reason != GIST_LENGTH)
        fail_msg("an answer of %zu tokens ended for reason %d", a->n, (int)result->reason);
    a->done = true;
}

/* Session i speaks on connection i % 3, all of them at once. */
static void speak(gist_conn *const c[3], gist_session *const s[N_SESSIONS], struct answered *ret)
{
    for (size_t i = 0; i < N_SESSIONS; i++)
        assert_int_equal(gist_generate_start(s[i], &greedy, answered_take, on_done, &ret[i], NULL),
                         0);
    for (size_t i = 0; i < N_SESSIONS; i++)
        while (!ret[i].done)
            assert_true(gist_dispatch(c[i % 3]) >= 0);
}

/* Appends come in pieces and in any order. */
static void read_all(gist_conn *const c[3], gist_session *const s[N_SESSIONS], unsigned *seed)
{
    uint32_t done[N_SESSIONS] = { 0 }, left = N_SESSIONS;

    while (left > 0) {
        size_t i = (size_t)rand_r(seed) % N_SESSIONS;
        uint32_t ids[N_TEXT], n = 1 + (uint32_t)rand_r(seed) % 150;

        if (done[i] == N_TEXT)
            continue;
        text_of(i, ids);
        n = n < N_TEXT - done[i] ? n : N_TEXT - done[i];
        if (gist_append_tokens(s[i], ids + done[i], n, NULL) < 0)
            fail_msg("session %zu: %s", i, gist_error(c[i % 3]));
        done[i] += n;
        left -= done[i] == N_TEXT;
    }
}

/* Sessions of three users, some of them public, all at once in a pool that they fill, so that what
 * others have read before is given up: each says what it says alone. */
static void nothing_bleeds(void **state)
{
    static struct answered want[N_SESSIONS], got[N_SESSIONS];
    struct daemon_fixture d;
    unsigned seed = 11;
    uint32_t least_free = UINT32_MAX;
    bool root = geteuid() == 0;
    struct gist_stats st;
    gist_conn *c[3];

    (void)state;
    say_alone(want);
    start(&d, BLEED_BYTES, "yes", "");
    for (int k = 0; k < 3; k++)
        c[k] = daemon_fixture_connect_as(&d, root && k ? 65532 + (uid_t)k : 0);
    for (int round = 0; round < 3; round++) {
        gist_session *s[N_SESSIONS];

        for (size_t i = 0; i < N_SESSIONS; i++) {
            s[i] = open_session(c[i % 3], i / 3, i % 2 ? GIST_PUBLIC : 0);
            got[i] = (struct answered){ .n = 0 };
        }
        read_all(c, s, &seed);
        speak(c, s, got);
        assert_int_equal(gist_stats(c[0], &st), 0);
        least_free = st.pages_free < least_free ? st.pages_free : least_free;
        assert_int_equal(st.n_owners, root ? 3 : 1);
        for (size_t i = 0; i < N_SESSIONS; i++) {
            assert_int_equal(got[i].n, want[i].n);
            if (memcmp(got[i].ids, want[i].ids, want[i].n * sizeof(*got[i].ids)) != 0)
                fail_msg("session %zu says something else among others", i);
            gist_close(s[i]);
        }
    }
    /* It was short: with all that was read kept there would be no such pool. */
    assert_true(least_free < st.pages / 8);
    for (int k = 0; k < 3; k++)
        gist_disconnect(c[k]);
    daemon_fixture_stop(&d);
}

/* --- bounds ----------------------------------------------------------------------------------- */

#define N_OPEN     12
#define POOL_SIZE  "384K"
#define POOL_BYTES (384u << 10)

struct player {
    gist_conn *conn;
    gist_session *session; /* NULL: none */
    uint32_t n_tokens;
};

/* The sums are right, and nothing is more than it may be. */
static void check_sums(gist_conn *c, struct gist_stats *st)
{
    uint64_t sessions = 0, clients = 0, owners = 0, gists = 0, owners_gists = 0;

    assert_int_equal(gist_stats(c, st), 0);
    for (uint32_t i = 0; i < st->n_sessions; i++) {
        sessions += st->sessions[i].pages;
        gists += st->sessions[i].gist_pages;
        assert_true(st->sessions[i].gist_pages <= st->sessions[i].pages);
    }
    for (uint32_t i = 0; i < st->n_clients; i++)
        clients += st->clients[i].pages;
    for (uint32_t i = 0; i < st->n_owners; i++) {
        owners += st->owners[i].pages;
        owners_gists += st->owners[i].gist_pages;
    }
    assert_int_equal(clients, owners);
    assert_int_equal(clients, sessions); /* nothing is under way */
    assert_int_equal(gists, owners_gists);
    assert_true((uint64_t)st->pages * st->page_bytes <= POOL_BYTES && st->kv_bytes <= POOL_BYTES);
    assert_true(st->pages_free + st->pages_cached <= st->pages);
    /* A page that sessions share is charged to each. */
    assert_true(clients >= st->pages - st->pages_free - st->pages_cached);
}

/* A refusal says at least two numbers: what was wanted, and what there was or may be. */
static void check_refusal(gist_conn *c, int err)
{
    const char *text = gist_error(c);
    int numbers = 0;

    if (err != -ENOSPC && err != -E2BIG && err != -EDQUOT && err != -EINVAL)
        fail_msg("error %d: %s", err, text);
    for (const char *p = text; *p; p++)
        numbers += isdigit((unsigned char)*p) && (p == text || !isdigit((unsigned char)p[-1]));
    if (numbers < 2)
        fail_msg("this says no numbers: %s", text);
}

static uint32_t tokens_of(gist_conn *c, const gist_session *s)
{
    struct gist_stats st;

    assert_int_equal(gist_stats(c, &st), 0);
    for (uint32_t i = 0; i < st.n_sessions; i++)
        if (st.sessions[i].id == gist_session_id(s))
            return st.sessions[i].n_tokens;
    fail_msg("session %llu is not there", (unsigned long long)gist_session_id(s));
    return 0;
}

/* gist_close does not wait, and another connection's next request may come before it: then the
 * pages are not free yet. What comes behind it on its own connection does not overtake it. */
static void close_session(struct player *p)
{
    struct gist_stats st;

    if (!p->session)
        return;
    gist_close(p->session);
    p->session = NULL;
    assert_int_equal(gist_stats(p->conn, &st), 0);
}

/* One request, with whatever comes of it. True: it was refused. */
static bool play(struct player *p, struct player *other, unsigned *seed)
{
    unsigned what = (unsigned)rand_r(seed) % 12;
    struct answered a = { .n = 0 };
    uint32_t ids[600], n = 1 + (uint32_t)rand_r(seed) % 600;
    int e = 0;

    if (!p->session) {
        p->session = open_session(p->conn, (size_t)rand_r(seed) % N_MEMORIES, what % 2);
        p->n_tokens = 0;
        return false;
    }
    if (what < 6) {
        fill(ids, n, (unsigned)rand_r(seed) % 4, 0);
        e = gist_append_tokens(p->session, ids, n, NULL);
        p->n_tokens += e == 0 ? n : 0;
    } else if (what < 8 && p->n_tokens > 0) {
        e = gist_generate(p->session, &greedy, answered_take, &a, NULL);
        p->n_tokens += (uint32_t)a.n;
    } else if (what < 10) {
        n = (uint32_t)rand_r(seed) % (p->n_tokens + 1);
        e = gist_rewind(p->session, n);
        p->n_tokens = n;
    } else if (what < 11 && !other->session && other->conn == p->conn) {
        e = gist_fork(p->session, NULL, &other->session);
        other->n_tokens = p->n_tokens;
        if (e < 0)
            other->session = NULL;
    } else {
        close_session(p);
        return false;
    }
    if (e < 0)
        check_refusal(p->conn, e);
    assert_int_equal(tokens_of(p->conn, p->session), p->n_tokens);
    return e < 0;
}

static void the_pool_is_a_bound(void **state)
{
    struct player players[N_OPEN] = { { .conn = NULL } };
    unsigned seed = 5, n_refused = 0;
    struct daemon_fixture d;
    struct gist_stats st;
    gist_conn *c[3];

    (void)state;
    start(&d, POOL_SIZE, "yes", "none");
    for (int k = 0; k < 3; k++)
        c[k] = daemon_fixture_connect_as(&d, geteuid() == 0 && k ? 65532 + (uid_t)k : 0);
    for (int i = 0; i < N_OPEN; i++)
        players[i].conn = c[i % 3];
    for (int i = 0; i < 3000; i++) {
        n_refused +=
            play(&players[rand_r(&seed) % N_OPEN], &players[rand_r(&seed) % N_OPEN], &seed);
        check_sums(c[0], &st);
    }
    if (n_refused < 40)
        fail_msg("only %u requests were refused", n_refused);
    for (int k = 0; k < 3; k++)
        gist_disconnect(c[k]);
    daemon_fixture_stop(&d);
}

/* Both close it, where one has served what the other has not. */
static void close_both(struct player *a, struct player *b)
{
    close_session(a);
    close_session(b);
}

/* The same script in two daemons, one of which writes all that it reads to a disk: what the other
 * serves, that one serves, too. (It may serve more: what comes back compressed takes no pages on
 * the way.) */
static void the_disk_takes_no_pages(void **state)
{
    struct player players[2][N_OPEN] = { { { .conn = NULL } } };
    unsigned seed = 9, n_refused = 0;
    struct daemon_fixture d[2];

    (void)state;
    for (int k = 0; k < 2; k++) {
        start(&d[k], POOL_SIZE, "yes", k ? "" : "none");
        for (int i = 0; i < N_OPEN; i++)
            players[k][i].conn = i < 3 ? daemon_fixture_connect(&d[k]) : players[k][i % 3].conn;
    }
    for (int i = 0; i < 1500; i++) {
        int who = rand_r(&seed) % N_OPEN, other = rand_r(&seed) % N_OPEN;
        struct player *a = &players[0][who], *b = &players[1][who];
        unsigned seeds[2] = { seed, seed };
        bool refused, refused_by_store;

        refused = play(a, &players[0][other], &seeds[0]);
        refused_by_store = play(b, &players[1][other], &seeds[1]);
        if (refused_by_store && !refused)
            fail_msg("step %d: refused with a store: %s", i, gist_error(b->conn));
        n_refused += refused;
        seed = seeds[0];
        if (!a->session)
            continue;
        assert_true(b->n_tokens >= a->n_tokens);
        if (b->n_tokens > a->n_tokens)
            close_both(a, b);
    }
    if (n_refused < 10)
        fail_msg("only %u requests were refused", n_refused);
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < 3; i++)
            gist_disconnect(players[k][i].conn);
        daemon_fixture_stop(&d[k]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_is_public),   cmocka_unit_test(only_what_is_public_from_disk),
        cmocka_unit_test(realms_share_nothing),  cmocka_unit_test(realms_share_nothing_on_disk),
        cmocka_unit_test(realms_that_cannot_be), cmocka_unit_test(nothing_bleeds),
        cmocka_unit_test(the_pool_is_a_bound),   cmocka_unit_test(the_disk_takes_no_pages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
