/* tests/test_daemon_several.c - sessions of the real daemon that begin with several documents.
 * Would catch: a document that is computed again since it stands behind another one, an answer that
 * depends on whether a document was known, being read or unknown when the session was opened, or on
 * what was opened before; one document that is not seen; approximate tokens that nobody is told of;
 * a refusal, a cancel or a death in the middle that leaves a session or pages behind; a session
 * with holes in its ids that is saved, or taken back into one; documents that are more together
 * than the window holds, and can't be asked about, or are read again for each session.
 */
#include "tests/support/daemon_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define SEGMENT 64u
#define N_DOCS  3u
#define ANSWER  12u

static const size_t lens[N_DOCS] = { 100, 150, 64 };
static const char *const names[N_DOCS] = { "a", "b", "c" };

static struct daemon_fixture d;
static gist_conn *conn;

/* store NULL: one of the test's own; again: that of the daemon before. */
static void start_as(enum daemon_fixture_model m, const char *store, const char *cache, bool again)
{
    const char *args[] = { "--prefix-cache",
                           cache,
                           "--segment",
                           "64",
                           "--batch-tokens",
                           "32",
                           "--max-sessions",
                           "3",
                           "--store-restore",
                           "always",
                           store ? "--store" : NULL,
                           store,
                           NULL };

    (again ? daemon_fixture_restart : daemon_fixture_start)(&d, m, args);
    conn = daemon_fixture_connect(&d);
}

static void start(enum daemon_fixture_model m, const char *store, const char *cache)
{
    start_as(m, store, cache, false);
}

static void stop(void)
{
    gist_disconnect(conn);
    conn = NULL;
    daemon_fixture_stop(&d);
}

/* --- documents -------------------------------------------------------------------------------- */

static void write_text(char *text, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++)
        text[i] = (char)('0' + rand_r(&seed) % 10); /* a token each */
}

static int add_as(const char *name, size_t n, unsigned seed, const struct gist_memory *memory)
{
    const struct gist_document doc = { .size = sizeof(doc), .flags = GIST_PLAIN, .memory = memory };
    char *text = malloc(n);
    int r;

    assert_non_null(text);
    write_text(text, n, seed);
    r = gist_document_add(conn, name, text, n, &doc, NULL);
    free(text);
    return r;
}

static void add_all(void)
{
    for (unsigned i = 0; i < N_DOCS; i++)
        assert_int_equal(add_as(names[i], lens[i], i + 1, NULL), 0);
}

static int open_with(gist_conn *c, const char *const *docs, size_t n, gist_session **ret)
{
    struct gist_policy p = { .size = sizeof(p), .documents = docs, .n_documents = n };

    return gist_open(c, &p, ret);
}

/* By letters: "ba" begins with b, then a. */
static gist_session *open_order(const char *order, struct gist_usage *usage)
{
    const char *docs[8];
    gist_session *s;
    size_t n = 0;

    for (; order[n]; n++)
        docs[n] = names[order[n] - 'a'];
    if (open_with(conn, docs, n, &s) < 0)
        fail_msg("%s", gist_error(conn));
    if (usage)
        gist_session_usage(s, usage);
    return s;
}

/* --- answers ---------------------------------------------------------------------------------- */

struct answer {
    uint32_t ids[ANSWER];
    size_t n;
};

static int on_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    struct answer *a = arg;

    (void)text;
    (void)len;
    for (size_t i = 0; i < n_ids && a->n < ANSWER; i++)
        a->ids[a->n++] = ids[i];
    return 0;
}

static struct answer answer_of(gist_session *s)
{
    const struct gist_sampling greedy = { .size = sizeof(greedy),
                                          .max_tokens = ANSWER,
                                          .ignore_eog = 1 };
    struct answer a = { .n = 0 };

    assert_int_equal(gist_append_text(s, " and then", 9, 0, NULL), 0);
    assert_int_equal(gist_generate(s, &greedy, on_text, &a, NULL), 0);
    assert_int_equal(a.n, ANSWER);
    return a;
}

static struct answer answer_behind(const char *order)
{
    gist_session *s = open_order(order, NULL);
    struct answer a = answer_of(s);

    gist_close(s);
    return a;
}

static bool same(const struct answer *a, const struct answer *b)
{
    return memcmp(a->ids, b->ids, sizeof(a->ids)) == 0;
}

static uint32_t sessions_open(void)
{
    struct gist_stats s;

    assert_int_equal(gist_stats(conn, &s), 0);
    return s.n_sessions;
}

/* --- what is read, and what is said of it ----------------------------------------------------- */

static void nothing_is_computed(void **state)
{
    static const char *const orders[] = { "ab", "ba", "abc", "cba", "bacab" };
    struct gist_usage u;

    (void)state;
    start(DAEMON_FIXTURE_TINY, "none", "yes");
    add_all();
    for (unsigned i = 0; i < sizeof(orders) / sizeof(*orders); i++) {
        size_t n = 0, k;
        gist_session *s = open_order(orders[i], &u);

        for (k = 0; orders[i][k]; k++)
            n += lens[orders[i][k] - 'a'];
        assert_int_equal(u.prompt_tokens, n);
        assert_int_equal(u.raw_tokens, n);
        /* The last token of all is read with what comes next, behind all of them. */
        assert_int_equal(u.approximate_tokens, n - lens[orders[i][0] - 'a'] - 1);
        assert_in_range(u.computed_tokens, k, 16 * k); /* what is no whole page of a document */
        assert_int_equal(u.computed_tokens + u.shared_tokens, n);
        assert_int_equal(gist_append_text(s, "1", 1, 0, &u), 0);
        assert_int_equal(u.computed_tokens, 2);
        assert_int_equal(u.prompt_tokens, n + 1);
        assert_int_equal(u.approximate_tokens, n - lens[orders[i][0] - 'a'] - 1);
        gist_close(s);
    }
    stop();
}

/* Found in memory, read anew where nothing is shared, or being read for somebody else. */
static void answers_are_the_same(void **state)
{
    struct answer ab, ba, abc, a, b, other;

    (void)state;
    start(DAEMON_FIXTURE_TINY, "none", "yes");
    add_all();
    a = answer_behind("a");
    b = answer_behind("b");
    ab = answer_behind("ab");
    ba = answer_behind("ba");
    abc = answer_behind("abc");
    other = answer_behind("ab");
    assert_true(same(&ab, &other));
    other = answer_behind("a"); /* nobody has learned from those */
    assert_true(same(&a, &other));
    assert_false(same(&ab, &ba) && same(&ab, &a) && same(&ab, &abc));
    assert_false(same(&ab, &b) && same(&ba, &a));
    stop();

    start(DAEMON_FIXTURE_TINY, "none", "no");
    add_all();
    other = answer_behind("ba");
    assert_true(same(&ba, &other));
    other = answer_behind("abc");
    assert_true(same(&abc, &other));
    stop();
}

/* Each comes back from the disk as it was read alone. */
static void after_a_restart(void **state)
{
    struct answer ab, again;
    struct gist_usage u;
    gist_session *s;

    (void)state;
    start(DAEMON_FIXTURE_TINY, NULL, "yes");
    add_all();
    ab = answer_behind("ab");
    stop();
    start_as(DAEMON_FIXTURE_TINY, NULL, "yes", true);
    s = open_order("ab", &u);
    assert_int_equal(u.shared_tokens, 0);
    assert_int_equal(u.restored_tokens + u.computed_tokens, 250);
    assert_in_range(u.computed_tokens, 2, 2 * 16);
    assert_int_equal(u.approximate_tokens, 149);
    again = answer_of(s);
    assert_true(same(&ab, &again));
    gist_close(s);
    stop();
}

/* What is compressed stands there as it is, also after a restart. */
static void with_compressors(void **state)
{
    static const struct gist_memory memories[] = {
        { .size = sizeof(memories[0]), .compressor = GIST_FINE_KV, .ratio = 4 },
        { .size = sizeof(memories[0]), .compressor = GIST_SELECT, .ratio = 8, .keep_tail = 30 },
    };
    const char *docs[] = { "one", "two" };
    struct answer known[2], again;
    struct gist_usage u;
    gist_session *s;
    char name[8];

    (void)state;
    start(DAEMON_FIXTURE_TINY, NULL, "yes");
    for (unsigned run = 0; run < 2; run++) {
        for (unsigned i = 0; i < 2; i++) {
            (void)snprintf(name, sizeof(name), "one%u", i);
            if (run == 0)
                assert_int_equal(add_as(name, 200, 5, &memories[i]), 0);
            docs[0] = name;
            docs[1] = name;
            assert_int_equal(open_with(conn, docs, 2, &s), 0);
            gist_session_usage(s, &u);
            assert_int_equal(u.prompt_tokens, 400);
            assert_in_range(u.approximate_tokens, 150, 200);
            assert_true(u.gists > 0 && u.gist_tokens > 200);
            assert_int_equal(u.raw_tokens + u.gist_tokens, 400);
            again = answer_of(s);
            gist_close(s);
            if (run == 0)
                known[i] = again;
            assert_true(same(&known[i], &again));
        }
        stop();
        if (run == 0)
            start_as(DAEMON_FIXTURE_TINY, NULL, "yes", true);
    }
}

/* --- as one text ------------------------------------------------------------------------------ */

#define LONG_A 700u
#define LONG_B 900u

/* A question in words that stand in the first document. */
static struct answer ask_of_a(gist_session *s, struct gist_usage *ret)
{
    const struct gist_sampling greedy = { .size = sizeof(greedy),
                                          .max_tokens = ANSWER,
                                          .ignore_eog = 1 };
    struct answer a = { .n = 0 };
    char text[LONG_A];

    write_text(text, LONG_A, 7);
    assert_int_equal(gist_append_text(s, text + 200, 30, 0, ret), 0);
    assert_int_equal(gist_generate(s, &greedy, on_text, &a, NULL), 0);
    assert_int_equal(a.n, ANSWER);
    return a;
}

static gist_session *begin_as(const char *const *docs, size_t n, const struct gist_memory *memory,
                              struct gist_usage *ret)
{
    const struct gist_policy p = {
        .size = sizeof(p), .documents = docs, .n_documents = n, .memory = memory
    };
    gist_session *s;

    if (gist_open(conn, &p, &s) < 0)
        fail_msg("%s", gist_error(conn));
    gist_session_usage(s, ret);
    return s;
}

/* What an automatic memory holds of both, read as one text that nobody gave a name. */
static struct answer of_one_text(const struct gist_memory *memory)
{
    const struct gist_policy p = { .size = sizeof(p), .memory = memory, .flags = GIST_PRIVATE };
    static char text[LONG_A + LONG_B];
    struct gist_usage u;
    struct answer a;
    gist_session *s;

    write_text(text, LONG_A, 7);
    write_text(text + LONG_A, LONG_B, 8);
    assert_int_equal(gist_open(conn, &p, &s), 0);
    assert_int_equal(gist_append_text(s, text, sizeof(text), 0, NULL), 0);
    a = ask_of_a(s, &u);
    assert_true(u.hydrated_tokens > 0 && u.missed_tokens == 0);
    gist_close(s);
    return a;
}

/* More text than the window, with automatic memory: of the documents, of the session, of neither,
 * since it would not go otherwise, or of the second document. All of it can be asked about. */
static void longer_than_the_window(void **state)
{
    const struct gist_memory automatic = { .size = sizeof(automatic), .flags = GIST_AUTO };
    const char *docs[] = { "long a", "long b" };
    struct answer known, again;
    struct gist_usage u;
    gist_session *s;

    (void)state;
    for (int i = 0; i < 4; i++) {
        const struct gist_memory *of_documents = i == 0 ? &automatic : NULL;
        const struct gist_memory *of_second = i == 0 || i == 3 ? &automatic : NULL;
        const struct gist_memory *of_session = i == 1 ? &automatic : NULL;

        start(DAEMON_FIXTURE_TINY, NULL, "yes");
        assert_int_equal(add_as(docs[0], LONG_A, 7, of_documents), 0);
        assert_int_equal(add_as(docs[1], LONG_B, 8, of_second), 0);
        s = begin_as(docs, 2, of_session, &u);
        assert_int_equal(u.prompt_tokens, LONG_A + LONG_B);
        assert_int_equal(u.approximate_tokens, 0);
        assert_true(u.gists > 0 && u.gist_tokens > 0);
        if (i == 0) /* it begins as the first one does */
            assert_true(u.shared_tokens + u.restored_tokens > 0);
        again = ask_of_a(s, &u);
        assert_true(u.hydrated_tokens > 0 && u.missed_tokens == 0);
        gist_close(s);
        if (i == 0)
            known = of_one_text(&automatic);
        assert_true(same(&known, &again));
        daemon_fixture_stored(conn);
        s = begin_as(docs, 2, of_session, &u); /* what was read once is known */
        assert_true(u.computed_tokens <= 128);
        again = ask_of_a(s, &u);
        assert_true(same(&known, &again));
        gist_close(s);
        stop();
    }
}

/* A document whose segments are packed late, or thinned, alone. */
static void what_can_not_be_joined(void **state)
{
    const struct gist_memory late = { .size = sizeof(late),
                                      .compressor = GIST_FINE_KV,
                                      .flags = GIST_LATE };
    const struct gist_memory tight = {
        .size = sizeof(tight), .compressor = GIST_FINE_KV, .ratio = 2, .budget = 260
    };
    const char *lates[] = { "late", "late" }, *tights[] = { "tight", "tight" };
    struct gist_usage u;

    (void)state;
    start(DAEMON_FIXTURE_TINY, "none", "yes");
    assert_int_equal(add_as("late", 200, 9, &late), 0);
    assert_int_equal(add_as("tight", 200, 9, &tight), 0);
    gist_close(begin_as(lates, 2, NULL, &u));
    assert_int_equal(u.prompt_tokens, 400);
    assert_int_equal(u.raw_tokens, 400);
    assert_int_equal(u.approximate_tokens, 0);
    gist_close(begin_as(tights, 2, NULL, &u));
    assert_int_equal(u.prompt_tokens, 400);
    assert_int_equal(u.approximate_tokens, 0);
    assert_true(u.gists > 0 && u.raw_tokens + u.gists <= 260);
    assert_true(daemon_fixture_all_free(conn, DAEMON_FIXTURE_PATIENCE_MS));
    assert_int_equal(sessions_open(), 0);
    stop();
}

/* --- its life --------------------------------------------------------------------------------- */

static void forks_and_rewinds(void **state)
{
    struct answer whole, fork, again, first;
    struct gist_usage u;
    gist_session *s, *t;
    char text[100];

    (void)state;
    start(DAEMON_FIXTURE_TINY, "none", "yes");
    add_all();
    s = open_order("ab", NULL);
    assert_int_equal(gist_fork(s, NULL, &t), 0);
    whole = answer_of(s);
    fork = answer_of(t);
    assert_true(same(&whole, &fork));
    gist_close(t);

    /* Clients count tokens, though b begins at a segment. */
    assert_int_equal(gist_rewind(s, 250), 0);
    again = answer_of(s);
    assert_true(same(&whole, &again));
    assert_int_equal(gist_rewind(s, 250 + 1000), -EINVAL);
    assert_int_equal(gist_rewind(s, 170), 0); /* into b */
    assert_int_equal(gist_append_text(s, "1", 1, 0, &u), 0);
    assert_int_equal(u.prompt_tokens, 171);
    assert_int_equal(u.approximate_tokens, 69);
    assert_int_equal(gist_rewind(s, 101), 0);
    assert_int_equal(gist_append_text(s, "1", 1, 0, &u), 0);
    assert_int_equal(u.prompt_tokens, 102);
    assert_int_equal(u.approximate_tokens, 0); /* b's first token was read again, behind a */
    assert_int_equal(gist_rewind(s, 100), 0);
    again = answer_of(s);
    gist_close(s);
    assert_int_equal(gist_open(conn, NULL, &s), 0);
    write_text(text, 100, 1);
    assert_int_equal(gist_append_text(s, text, 100, 0, NULL), 0);
    first = answer_of(s);
    assert_true(same(&first, &again));
    gist_close(s);
    stop();
}

static void is_not_saved(void **state)
{
    gist_session *s;

    (void)state;
    start(DAEMON_FIXTURE_TINY, NULL, "yes");
    add_all();
    s = open_order("ab", NULL);
    assert_int_equal(gist_save(s, "both", 0), -EINVAL);
    assert_non_null(strstr(gist_error(conn), "begins with several documents"));
    assert_int_equal(gist_rewind(s, 90), 0); /* in the first: it is its ids again */
    assert_int_equal(gist_save(s, "first", 0), 0);
    gist_close(s);
    stop();
}

/* --- refusals --------------------------------------------------------------------------------- */

static void expect_refused(const char *const *docs, size_t n, enum gist_code code, const char *text)
{
    gist_session *s;

    assert_true(open_with(conn, docs, n, &s) < 0);
    if (!strstr(gist_error(conn), text))
        fail_msg("%s", gist_error(conn));
    assert_int_equal(gist_error_code(conn), code);
    assert_int_equal(sessions_open(), 0);
    assert_true(daemon_fixture_all_free(conn, 0));
}

static void refusals(void **state)
{
    const struct gist_memory fine = { .size = sizeof(fine), .compressor = GIST_FINE_KV };
    const struct gist_memory late = { .size = sizeof(late),
                                      .compressor = GIST_FINE_KV,
                                      .flags = GIST_LATE };
    const struct gist_memory tight = { .size = sizeof(tight),
                                       .compressor = GIST_FINE_KV,
                                       .ratio = 2,
                                       .budget = 200,
                                       .flags = GIST_FIXED };
    const char *unknown[] = { "a", "nobody" }, *gists[] = { "a", "gists" },
               *lates[] = { "late", "a" }, *tights[] = { "tight", "tight", "tight", "tight" },
               *longs[] = { "a", "long" };
    struct gist_policy said = {
        .size = sizeof(said), .documents = longs, .n_documents = 2, .segment = SEGMENT
    };
    gist_session *s[3];

    (void)state;
    start(DAEMON_FIXTURE_TINY, "none", "yes");
    add_all();
    assert_int_equal(add_as("gists", 200, 9, &fine), 0);
    assert_int_equal(add_as("long", 1000, 9, NULL), 0);
    expect_refused(unknown, 2, GIST_E_NOT_FOUND, "nobody");
    assert_int_equal(add_as("late", 200, 9, &late), 0);
    assert_int_equal(add_as("tight", 150, 9, &tight), 0);
    expect_refused(gists, 2, GIST_E_BAD_REQUEST,
                   "the documents \"a\" and \"gists\" were added with different memory options");
    expect_refused(lates, 2, GIST_E_BAD_REQUEST,
                   "the documents \"late\" and \"a\" were added with different memory options");
    expect_refused(tights, 4, GIST_E_CONTEXT_LENGTH_EXCEEDED, "the session's budget is 200");
    /* Who says how all of it is to be kept means it. */
    assert_true(gist_open(conn, &said, &s[0]) < 0);
    assert_int_equal(gist_error_code(conn), GIST_E_CONTEXT_LENGTH_EXCEEDED);
    assert_non_null(strstr(gist_error(conn),
                           "the document \"long\" has 1000 tokens, which do not fit behind the 100 "
                           "before it (in whole segments of 64); the limit is 1024"));
    assert_int_equal(sessions_open(), 0);
    /* While it is opened it takes two of the sessions that the client may have. */
    s[0] = open_order("ab", NULL);
    s[1] = open_order("a", NULL);
    assert_true(open_with(conn, names, 2, &s[2]) < 0);
    assert_int_equal(gist_error_code(conn), GIST_E_LIMIT);
    assert_int_equal(sessions_open(), 2);
    gist_close(s[0]);
    gist_close(s[1]);
    assert_true(daemon_fixture_all_free(conn, DAEMON_FIXTURE_PATIENCE_MS));
    stop();
}

/* --- who ends in the middle ------------------------------------------------------------------- */

/* Nothing is shared: both documents are read again when a session begins with them. Returns what
 * was read until now. */
static uint64_t start_slow(void)
{
    const struct gist_document doc = { .size = sizeof(doc), .flags = GIST_PLAIN };
    static char text[1500];
    struct gist_stats st;

    start(DAEMON_FIXTURE_SLOW, "none", "no");
    write_text(text, sizeof(text), 5);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(
            gist_document_add(conn, names[i], text, i ? sizeof(text) : 100, &doc, NULL), 0);
    assert_int_equal(gist_stats(conn, &st), 0);
    return st.prompt_tokens_total;
}

/* The first document is read, and some of the second. */
static void wait_for_second(gist_conn *c, uint64_t before)
{
    double end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;
    struct gist_stats st;

    do
        assert_int_equal(gist_stats(c, &st), 0);
    while (st.prompt_tokens_total < before + 200 && daemon_fixture_ms() < end);
    assert_true(st.prompt_tokens_total >= before + 200);
    assert_int_equal(st.n_sessions, 2);
}

static void nothing_is_left(void)
{
    assert_true(daemon_fixture_all_free(conn, DAEMON_FIXTURE_PATIENCE_MS));
    assert_int_equal(sessions_open(), 0);
    stop();
}

static void a_client_dies(void **state)
{
    uint64_t before = start_slow();
    pid_t pid = fork();

    (void)state;
    assert_true(pid >= 0);
    if (pid == 0) {
        gist_session *s;

        (void)open_with(daemon_fixture_connect(&d), names, 2, &s);
        _exit(0);
    }
    wait_for_second(conn, before);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    nothing_is_left();
}

static void *cancel_it(void *arg)
{
    gist_conn *watch = daemon_fixture_connect(&d);

    wait_for_second(watch, *(uint64_t *)arg);
    gist_cancel_async(conn);
    gist_disconnect(watch);
    return NULL;
}

static void a_client_cancels(void **state)
{
    uint64_t before = start_slow();
    gist_session *s;
    pthread_t t;

    (void)state;
    assert_int_equal(pthread_create(&t, NULL, cancel_it, &before), 0);
    assert_int_equal(open_with(conn, names, 2, &s), -ECANCELED);
    assert_int_equal(pthread_join(t, NULL), 0);
    nothing_is_left();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_computed),
        cmocka_unit_test(answers_are_the_same),
        cmocka_unit_test(after_a_restart),
        cmocka_unit_test(with_compressors),
        cmocka_unit_test(longer_than_the_window),
        cmocka_unit_test(what_can_not_be_joined),
        cmocka_unit_test(forks_and_rewinds),
        cmocka_unit_test(is_not_saved),
        cmocka_unit_test(refusals),
        cmocka_unit_test(a_client_dies),
        cmocka_unit_test(a_client_cancels),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
