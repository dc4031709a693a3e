/* tests/test_daemon_hydrate.c - a real daemon's answers about text that it has compressed. Would
 * catch: a prompt that brings nothing back, from memory, after a restart from the disk, or computed
 * again where neither has it; an answer that does not say so, or counts twice what it stands on;
 * hydrated segments that the next turn, a fork or a rewind finds in another state than it should; a
 * session's budget that hydration eats up; what was read behind hydrated segments and is found by
 * another session as if it had not been; a disk that is asked only when the whole question is
 * there, and known to be one.
 */
#include "tests/support/answered.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define SEGMENT 64u
#define BYTE_0  3u /* the model's id of byte 0 */
#define N_IDS   (9 * SEGMENT + 10)
#define N_ASKED 20u

static const char *const with_store[] = {
    "--store-restore", "always", "--store-idle-ms", "20", "--prefix-cache", "no", NULL
};
static const char *const with_tree[] = { "--store", "none", NULL };
static const char *const with_nothing[] = { "--store", "none",           "--host-bytes",
                                            "none",    "--prefix-cache", "no",
                                            NULL };

static uint32_t ids[N_IDS];

static void fill(unsigned seed)
{
    for (uint32_t i = 0; i < N_IDS; i++)
        ids[i] = BYTE_0 + 32 + (uint32_t)rand_r(&seed) % 90;
}

static gist_session *open_session(gist_conn *c, uint32_t hydrate, unsigned flags)
{
    const struct gist_memory m = {
        .size = sizeof(m), .compressor = GIST_SELECT, .ratio = 8, .hydrate = hydrate
    };
    const struct gist_policy p = {
        .size = sizeof(p), .segment = SEGMENT, .memory = &m, .flags = flags
    };
    gist_session *s;

    if (gist_open(c, &p, &s) < 0)
        fail_msg("%s", gist_error(c));
    return s;
}

static void check_ratios(const struct gist_usage *u)
{
    uint32_t n = 0;

    for (unsigned i = 0; i < GIST_RATIOS; i++)
        n += u->at_ratio[i];
    assert_int_equal(n, u->gist_tokens);
}

static struct gist_usage append(gist_conn *c, gist_session *s, const uint32_t *from, uint32_t n)
{
    struct gist_usage u;

    if (gist_append_tokens(s, from, n, &u) < 0)
        fail_msg("%s", gist_error(c));
    assert_int_equal(u.raw_tokens + u.gist_tokens, u.prompt_tokens);
    check_ratios(&u);
    assert_true(u.hydrated_disk_tokens <= u.hydrated_tokens && u.hydrated_tokens <= u.raw_tokens);
    return u;
}

static struct gist_usage answer(gist_session *s, struct answered *ret)
{
    struct gist_result r;

    assert_int_equal(answered_greedy_with(s, 12, ret, &r), 0);
    check_ratios(&r.usage);
    return r.usage;
}

/* --- a conversation --------------------------------------------------------------------------- */

static void turns(void **state)
{
    struct answered first, again, forked, second, plain;
    struct daemon_fixture d;
    struct gist_usage u;
    gist_session *s, *t;
    gist_conn *c;

    (void)state;
    fill(1);
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, with_tree);
    c = daemon_fixture_connect(&d);
    s = open_session(c, 2, 0);
    u = append(c, s, ids, N_IDS); /* a text: nothing comes back for it */
    assert_true(u.hydrated_tokens == 0 && u.missed_tokens == 0);
    u = append(c, s, ids + 3 * SEGMENT + 20, N_ASKED);
    assert_true(u.hydrated_tokens >= SEGMENT && u.hydrated_tokens <= 2 * SEGMENT);
    assert_int_equal(u.hydrated_disk_tokens + u.missed_tokens, 0);
    assert_int_equal(gist_fork(s, NULL, &t), 0);
    assert_int_equal(answer(s, &first).hydrated_tokens, u.hydrated_tokens);
    assert_int_equal(answer(t, &forked).hydrated_tokens, u.hydrated_tokens);
    (void)answered_same(&forked, &first);
    gist_close(t);
    u = append(c, s, ids + 6 * SEGMENT + 20, N_ASKED); /* the next turn asks for another one */
    assert_true(u.hydrated_tokens >= SEGMENT && u.hydrated_tokens <= 2 * SEGMENT);
    (void)answer(s, &second);

    assert_int_equal(gist_rewind(s, N_IDS), 0);
    u = append(c, s, ids + 3 * SEGMENT + 20, N_ASKED);
    assert_true(u.hydrated_tokens >= SEGMENT);
    (void)answer(s, &again);
    (void)answered_same(&again, &first);

    /* Another session of the same policy but for this goes on from the text, and from no more. */
    t = open_session(c, 2, 0);
    u = append(c, t, ids, N_IDS);
    assert_true(u.shared_tokens > N_IDS - 32);
    (void)append(c, t, ids + 3 * SEGMENT + 20, N_ASKED);
    (void)answer(t, &again);
    (void)answered_same(&again, &first);
    gist_close(t);
    t = open_session(c, 0, 0);
    (void)append(c, t, ids, N_IDS);
    u = append(c, t, ids + 3 * SEGMENT + 20, N_ASKED);
    assert_int_equal(u.hydrated_tokens + u.missed_tokens, 0);
    (void)answer(t, &plain);
    gist_close(t);
    gist_close(s);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* A long conversation: what was read behind hydrated segments is asked about in its turn, and comes
 * back as it was. Another session of the same user and words has none of it. */
static void later_turns(void **state)
{
    static const unsigned flags[] = { 0, GIST_PRIVATE };
    struct answered first, again;
    struct daemon_fixture d;
    struct gist_usage u;
    gist_session *s, *t;
    gist_conn *c;

    (void)state;
    fill(3);
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, with_tree);
    c = daemon_fixture_connect(&d);
    for (int i = 0; i < 2; i++) {
        s = open_session(c, 2, flags[i]);
        (void)append(c, s, ids, 6 * SEGMENT + 10);
        u = append(c, s, ids + 3 * SEGMENT + 20, N_ASKED);
        assert_true(u.hydrated_tokens > 0);
        (void)append(c, s, ids + 6 * SEGMENT + 10, 3 * SEGMENT);
        assert_int_equal(gist_fork(s, NULL, &t), 0);
        for (int k = 0; k < 2; k++) {
            u = append(c, k ? t : s, ids + 7 * SEGMENT + 20, N_ASKED);
            assert_true(u.hydrated_tokens > 0);
            assert_int_equal(u.recomputed_tokens + u.missed_tokens, 0);
            (void)answer(k ? t : s, k ? &again : &first);
            gist_close(k ? t : s);
        }
        (void)answered_same(&again, &first);
    }
    t = open_session(c, 2, 0);
    u = append(c, t, ids, 6 * SEGMENT + 10 + N_ASKED);
    assert_in_range(u.shared_tokens, 5 * SEGMENT, 6 * SEGMENT + 10);
    gist_close(t);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* What came back has taken all but the room for the beginning of an answer. A longer one goes on
 * without it. */
static void long_answers(void **state)
{
    const struct gist_sampling many = { .size = sizeof(many), .max_tokens = 1200, .ignore_eog = 1 };
    const struct gist_memory m = { .size = sizeof(m),
                                   .compressor = GIST_SELECT,
                                   .ratio = 8,
                                   .budget = 700,
                                   .hydrate = GIST_HYDRATE_AUTO };
    const struct gist_policy p = { .size = sizeof(p), .segment = SEGMENT, .memory = &m };
    uint32_t asked[SEGMENT - 1];
    struct daemon_fixture d;
    struct gist_result r;
    struct gist_usage u;
    gist_session *s;
    gist_conn *c;

    (void)state;
    fill(4);
    for (uint32_t i = 0; i < SEGMENT - 1; i++)
        asked[i] = ids[i / 7 * SEGMENT + 30 + i % 7];
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, with_tree);
    c = daemon_fixture_connect(&d);
    assert_int_equal(gist_open(c, &p, &s), 0);
    (void)append(c, s, ids, N_IDS);
    u = append(c, s, asked, SEGMENT - 1);
    assert_in_range(u.hydrated_tokens, 6 * SEGMENT, 8 * SEGMENT);
    assert_int_equal(gist_generate(s, &many, NULL, NULL, &r), 0);
    assert_int_equal(r.reason, GIST_LENGTH);
    gist_close(s);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* What an answer of this model says is none of the text's, but its letters are: some of them stand
 * elsewhere in it more than where the question points to. */
static void more_for_the_answer(void **state)
{
    const struct gist_sampling many = { .size = sizeof(many), .max_tokens = 300, .ignore_eog = 1 };
    uint32_t n_more = 0;
    struct daemon_fixture d;
    gist_conn *c;

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, with_tree);
    c = daemon_fixture_connect(&d);
    for (unsigned seed = 11; seed < 16; seed++) {
        gist_session *s = open_session(c, 4, 0);
        struct gist_result r;
        struct gist_usage u;

        fill(seed);
        (void)append(c, s, ids, N_IDS);
        u = append(c, s, ids + 3 * SEGMENT + 20, N_ASKED);
        assert_int_equal(gist_generate(s, &many, NULL, NULL, &r), 0);
        assert_int_equal(r.usage.prompt_tokens, u.prompt_tokens);
        assert_int_equal(r.usage.raw_tokens + r.usage.gist_tokens, u.prompt_tokens);
        assert_true(r.usage.hydrated_tokens <= 4 * SEGMENT);
        n_more += r.usage.hydrated_tokens > u.hydrated_tokens;
        gist_close(s);
    }
    assert_true(n_more > 0);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* A text and the question about it in one append: before it is answered the question is read again,
 * behind what it points to, with the same answer as one that came alone. Reading alone brings
 * nothing back. */
static void in_one(void **state)
{
    uint32_t all[8 * SEGMENT + 10], n_text = 8 * SEGMENT - 24, n;
    struct answered alone, in_one_append;
    struct daemon_fixture d;
    struct gist_usage u;
    gist_session *s;
    gist_conn *c;

    (void)state;
    fill(5);
    for (uint32_t i = 0; i < N_IDS; i += 4)
        ids[i] = BYTE_0 + ' ';
    memcpy(all, ids, n_text * sizeof(*ids));
    all[n_text++] = BYTE_0 + '\n';
    all[n_text++] = BYTE_0 + '\n';
    memcpy(all + n_text, ids + 3 * SEGMENT + 21, N_ASKED * sizeof(*ids));
    n = n_text + N_ASKED;

    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, with_tree);
    c = daemon_fixture_connect(&d);
    s = open_session(c, 2, 0);
    (void)append(c, s, all, n_text);
    u = append(c, s, all + n_text, N_ASKED);
    assert_true(u.hydrated_tokens >= SEGMENT);
    (void)answer(s, &alone);
    gist_close(s);
    for (unsigned flags = 0; flags <= GIST_PRIVATE; flags += GIST_PRIVATE) {
        s = open_session(c, 2, flags);
        u = append(c, s, all, n);
        assert_int_equal(u.hydrated_tokens, 0);
        u = answer(s, &in_one_append);
        assert_true(u.hydrated_tokens >= SEGMENT);
        assert_int_equal(u.prompt_tokens, n);
        (void)answered_same(&in_one_append, &alone);
        gist_close(s);
    }
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* As a gateway sends it: all messages of a chat at once. */
static void whole_chat(void **state)
{
    static char text[6 * SEGMENT], question[64];
    const struct gist_message msgs[] = { { "user", text },
                                         { "assistant", "Yes." },
                                         { "user", question } };
    struct daemon_fixture d;
    struct gist_usage u;
    struct answered said;
    gist_session *s;
    gist_conn *c;

    (void)state;
    fill(6);
    for (uint32_t i = 0; i + 1 < sizeof(text); i++)
        text[i] = (char)(ids[i] - BYTE_0);
    memcpy(question, text + 2 * SEGMENT + 10, 24);
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, with_tree);
    c = daemon_fixture_connect(&d);
    s = open_session(c, 2, 0);
    assert_int_equal(gist_append_chat(s, msgs, 3, GIST_OPEN_ANSWER, &u), 0);
    assert_true(u.hydrated_tokens > 0);
    assert_int_equal(answer(s, &said).hydrated_tokens, u.hydrated_tokens);
    gist_close(s);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* --- from where ------------------------------------------------------------------------------- */

static struct gist_usage ask(gist_conn *c, uint32_t hydrate, unsigned flags, struct answered *ret)
{
    gist_session *s = open_session(c, hydrate, flags);
    struct gist_usage u;

    (void)append(c, s, ids, N_IDS);
    u = append(c, s, ids + 3 * SEGMENT + 20, N_ASKED);
    assert_int_equal(answer(s, ret).missed_tokens, u.missed_tokens);
    gist_close(s);
    return u;
}

static void from_the_disk(void **state)
{
    struct answered tree, disk;
    struct daemon_fixture d;
    struct gist_usage u;
    gist_conn *c;

    (void)state;
    fill(2);
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, with_tree);
    c = daemon_fixture_connect(&d);
    u = ask(c, GIST_HYDRATE_AUTO, 0, &tree);
    assert_true(u.hydrated_tokens > 0 && u.hydrated_disk_tokens + u.recomputed_tokens == 0);
    gist_disconnect(c);
    daemon_fixture_stop(&d);

    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, with_store);
    c = daemon_fixture_connect(&d);
    u = ask(c, GIST_HYDRATE_AUTO, GIST_PRIVATE, &disk); /* what it read is nowhere */
    assert_true(u.recomputed_tokens > 0 && u.recomputed_tokens == u.hydrated_tokens);
    (void)answered_same(&disk, &tree); /* and is as it was */
    (void)ask(c, GIST_HYDRATE_AUTO, 0, &disk);
    daemon_fixture_stored(c);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
    daemon_fixture_restart(&d, DAEMON_FIXTURE_TINY, with_store);
    c = daemon_fixture_connect(&d);
    u = ask(c, GIST_HYDRATE_AUTO, 0, &disk);
    assert_int_equal(u.missed_tokens + u.recomputed_tokens, 0);
    assert_int_equal(u.hydrated_disk_tokens, u.hydrated_tokens);
    (void)answered_same(&disk, &tree);
    gist_disconnect(c);
    daemon_fixture_stop(&d);

    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, with_nothing);
    c = daemon_fixture_connect(&d);
    u = ask(c, GIST_HYDRATE_AUTO, 0, &disk);
    assert_true(u.recomputed_tokens > 0 && u.recomputed_tokens == u.hydrated_tokens);
    (void)answered_same(&disk, &tree);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* --- before it is asked ----------------------------------------------------------------------- */

static uint64_t n_gets(gist_conn *c)
{
    struct gist_stats st;

    assert_int_equal(gist_stats(c, &st), 0);
    assert_non_null(st.store);
    return st.store->gets;
}

/* Nothing else may be read in the meantime. */
static void wait_for_gets(gist_conn *c, uint64_t n)
{
    double end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;

    while (n_gets(c) < n) {
        if (daemon_fixture_ms() > end)
            fail_msg("%u records were read, not %u", (unsigned)n_gets(c), (unsigned)n);
        (void)usleep(1000);
    }
}

/* A daemon of which all that was read, N_IDS of it, is on the disk only, but for gists. */
static gist_conn *start_from_the_disk(struct daemon_fixture *d)
{
    static const char *const args[] = { "--store-restore", "always", "--store-idle-ms", "20",
                                        NULL };
    struct answered said;
    gist_conn *c;

    daemon_fixture_start(d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(d);
    (void)ask(c, GIST_HYDRATE_AUTO, 0, &said);
    daemon_fixture_stored(c);
    gist_disconnect(c);
    daemon_fixture_stop(d);
    daemon_fixture_restart(d, DAEMON_FIXTURE_TINY, args);
    return daemon_fixture_connect(d);
}

/* Long plain text may end with a question, which is known when it is to be answered: by then the
 * disk has what it points to ready. */
static void before_the_generate(void **state)
{
    uint32_t text[SEGMENT + 40];
    struct daemon_fixture d;
    struct gist_usage u;
    struct answered said;
    gist_session *s;
    gist_conn *c;
    uint64_t gets;

    (void)state;
    fill(2);
    for (uint32_t i = 0; i < N_IDS; i += 4)
        ids[i] = BYTE_0 + ' ';
    c = start_from_the_disk(&d);
    s = open_session(c, GIST_HYDRATE_AUTO, 0);
    u = append(c, s, ids, N_IDS);
    assert_true(u.restored_tokens > 0);
    gets = n_gets(c);
    for (uint32_t i = 0; i < SEGMENT; i++)
        text[i] = BYTE_0 + (i + 2 < SEGMENT ? ' ' : '\n');
    memcpy(text + SEGMENT, ids + 3 * SEGMENT + 10, 40 * sizeof(*ids));
    u = append(c, s, text, SEGMENT + 40);
    assert_int_equal(u.hydrated_tokens, 0);
    wait_for_gets(c, gets + 1);
    u = answer(s, &said);
    assert_true(u.hydrated_disk_tokens >= SEGMENT && u.missed_tokens + u.recomputed_tokens == 0);
    gist_close(s);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

static const struct wire_rep *asked_raw(struct raw_client *c, const struct wire_req *req,
                                        const void *bulk, uint32_t len)
{
    const struct wire_rep *rep = raw_client_ask(c, *req, bulk, len, NULL);

    if (rep->kind == WIRE_ERROR)
        fail_msg("%s", rep->u.error.text);
    return rep;
}

/* A question that comes in two parts. */
static void while_it_arrives(void **state)
{
    struct wire_req open = { .kind = WIRE_OPEN_SESSION,
                             .u.open_session = { .has_segment = true,
                                                 .segment = SEGMENT,
                                                 .memory = { .compressor = WIRE_SELECT,
                                                             .has_ratio = true,
                                                             .ratio = 8,
                                                             .has_hydrate = true,
                                                             .hydrate = UINT32_MAX } } };
    struct wire_req append = { .kind = WIRE_APPEND, .u.append.kind = WIRE_APPEND_TOKENS };
    const struct wire_rep *rep;
    struct daemon_fixture d;
    struct raw_client raw;
    char question[40];
    gist_conn *c;
    uint64_t gets, first;

    (void)state;
    fill(2);
    for (uint32_t i = 0; i < sizeof(question); i++)
        question[i] = (char)(ids[3 * SEGMENT + 10 + i] - BYTE_0);
    c = start_from_the_disk(&d);
    raw_client_open(&raw, d.socket);
    append.u.append.session = asked_raw(&raw, &open, NULL, 0)->u.session_opened.session;
    rep = asked_raw(&raw, &append, ids, N_IDS * sizeof(*ids));
    assert_true(rep->u.appended.usage.restored_tokens > 0);
    gets = n_gets(c);
    append.u.append.kind = WIRE_APPEND_TEXT;
    append.u.append.more = true;
    first = raw_client_send(&raw, append, question, 20); /* nobody waits for its answer */
    (void)asked_raw(&raw, &append, question + 20, 10);
    assert_true(first > 0);
    wait_for_gets(c, gets + 1);
    append.u.append.more = false;
    rep = asked_raw(&raw, &append, question + 30, 10);
    assert_true(rep->u.appended.usage.hydrated_disk_tokens >= SEGMENT);
    assert_int_equal(rep->u.appended.usage.missed_tokens, 0);
    raw_client_close(&raw);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(turns),           cmocka_unit_test(later_turns),
        cmocka_unit_test(long_answers),    cmocka_unit_test(more_for_the_answer),
        cmocka_unit_test(in_one),          cmocka_unit_test(whole_chat),
        cmocka_unit_test(from_the_disk),   cmocka_unit_test(before_the_generate),
        cmocka_unit_test(while_it_arrives)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
