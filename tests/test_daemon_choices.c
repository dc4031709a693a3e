/* tests/test_daemon_choices.c - several continuations of a session, scored. Would catch: a score
 * that is not the one that the same tokens have in one text; a session that is not what it was
 * before; a text that is read again, or one continuation after the other; pages or sessions past
 * their limits, or kept behind a cancel; hostile counts, lengths and ids that are believed. */
#include "tests/support/answered.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"
#include "tests/support/tolerance.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The same sums in another batch: the tiny model's logits are a few units. A device rounds them
 * otherwise there (tests/support/tolerance.h). */
static double near(void)
{
    return daemon_fixture_exact() ? 1e-4 : tolerance_of_device(tolerance_tiny, KV_F16);
}

static struct daemon_fixture d;
static gist_conn *c;

/* At once, and not one by one. Where a token takes milliseconds steps are as short as
 * daemon/pace.h has them, and so there are more. */
static void in_steps(uint64_t before, uint64_t most)
{
    if (!daemon_fixture_slow())
        assert_true(daemon_fixture_steps(c) - before <= most);
}

static gist_session *s;

#define SPAN(text)                                                                                 \
    {                                                                                              \
        (text), sizeof(text) - 1                                                                   \
    }
static const char prompt[] = "Is the sky blue on Mars, or red? It is";
static const struct gist_span texts[] = { SPAN(" blue"), SPAN(" red and cold"), SPAN("."),
                                          SPAN(" nothing of the kind, as far as is known") };
#define N_TEXTS (sizeof(texts) / sizeof(*texts))

static void start(const char *const *args)
{
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
}

static int start_plain(void **state)
{
    static const char *const args[] = { "--store", "none", NULL };

    (void)state;
    start(args);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    assert_true(daemon_fixture_all_free(c, DAEMON_FIXTURE_PATIENCE_MS));
    gist_disconnect(c);
    daemon_fixture_stop(&d);
    return 0;
}

static gist_session *open_with(const struct gist_policy *policy, const char *text)
{
    gist_session *x;

    assert_int_equal(gist_open(c, policy, &x), 0);
    assert_int_equal(gist_append_text(x, text, strlen(text), 0, NULL), 0);
    return x;
}

static struct gist_choices *scored(gist_session *x, const struct gist_span *spans, size_t n,
                                   unsigned flags)
{
    struct gist_choices *all = NULL;

    if (gist_score_choices(x, spans, n, flags, &all) < 0)
        fail_msg("%s", gist_error(c));
    assert_int_equal(all->n, n);
    return all;
}

/* --- the reference: a text of its own for each, read from nothing ------------------------------
 */

static void is_as_one_text(const uint32_t *before, size_t n_before, const struct gist_choice *x)
{
    uint32_t ids[2048];
    struct gist_score one;
    double sum = 0;

    assert_true(n_before + x->n <= 2048);
    memcpy(ids, before, n_before * sizeof(*ids));
    memcpy(ids + n_before, x->ids, x->n * sizeof(*ids));
    assert_int_equal(gist_score_tokens(c, ids, n_before + x->n, NULL, &one), 0);
    for (size_t i = 0; i < x->n; i++) {
        double want = (double)one.logprobs[n_before + i];

        if (!(fabs((double)x->logprobs[i] - want) <= near()))
            fail_msg("token %zu: %f, as one text %f", i, (double)x->logprobs[i], want);
        sum += (double)x->logprobs[i];
    }
    assert_true(fabs(sum - x->sum) < 1e-9);
    free(one.ids);
    free(one.logprobs);
}

static void is_largest(const struct gist_choices *all)
{
    for (size_t i = 0; i < all->n; i++) {
        const struct gist_choice *x = &all->choices[i], *b = &all->choices[all->best],
                                 *m = &all->choices[all->best_mean];

        assert_true(x->sum <= b->sum);
        assert_true(x->sum / (double)x->n <= m->sum / (double)m->n);
    }
}

static uint32_t *ids_of(const char *text, size_t *ret_n)
{
    uint32_t *ids;

    assert_int_equal(gist_tokenize(c, text, strlen(text), 0, &ids, ret_n), 0);
    return ids;
}

static void test_as_one_text(void **state)
{
    size_t n, n_one, n_scored = 0;
    uint32_t *before = ids_of(prompt, &n), *one;
    struct gist_choices *all;

    (void)state;
    s = open_with(NULL, prompt);
    all = scored(s, texts, N_TEXTS, 0);
    assert_int_equal(all->size, sizeof(*all));
    for (size_t i = 0; i < N_TEXTS; i++) {
        one = ids_of(texts[i].at, &n_one);
        assert_int_equal(all->choices[i].n, n_one);
        assert_memory_equal(all->choices[i].ids, one, n_one * sizeof(*one));
        is_as_one_text(before, n, &all->choices[i]);
        n_scored += n_one;
        free(one);
    }
    is_largest(all);
    /* Nothing of the session was read again, and no continuation's last token. */
    assert_int_equal(all->usage.prompt_tokens, n);
    assert_int_equal(all->usage.computed_tokens, n_scored - N_TEXTS);
    gist_choices_free(all);
    free(before);
    gist_close(s);
}

static void say(gist_session *x, struct answered *to)
{
    assert_int_equal(answered_greedy(x, 20, to), 0);
}

/* Behind an answer, whose last token the model has not read; and the session goes on as a fork of
 * it does that nobody asked anything. */
static void test_behind_an_answer(void **state)
{
    uint32_t before[256], *p;
    struct gist_choices *all;
    struct answered had, a, b;
    gist_session *fork;
    size_t n;

    (void)state;
    s = open_with(NULL, prompt);
    say(s, &had);
    p = ids_of(prompt, &n);
    memcpy(before, p, n * sizeof(*p));
    memcpy(before + n, had.ids, had.n * sizeof(*p));
    free(p);
    n += had.n;
    assert_int_equal(gist_fork(s, NULL, &fork), 0);
    for (int twice = 0; twice < 2; twice++) {
        all = scored(s, texts, N_TEXTS, 0);
        for (size_t i = 0; i < N_TEXTS; i++)
            is_as_one_text(before, n, &all->choices[i]);
        assert_int_equal(all->usage.prompt_tokens, n);
        gist_choices_free(all);
    }
    say(s, &a);
    say(fork, &b);
    (void)answered_same(&b, &a);
    gist_close(fork);
    gist_close(s);
}

/* One token each, a whole vocabulary's worth of them: no run at all, and they add up to one. */
static void test_single_tokens(void **state)
{
    struct gist_span spans[1000];
    uint32_t ids[1000];
    struct gist_choices *all;
    struct gist_info info;
    double sum = 0;
    size_t n;

    (void)state;
    gist_info(c, &info);
    n = info.n_vocab;
    assert_true(n <= 1000);
    for (uint32_t i = 0; i < n; i++) {
        ids[i] = i;
        spans[i] = (struct gist_span){ &ids[i], 1 };
    }
    s = open_with(NULL, prompt);
    all = scored(s, spans, n, GIST_TOKENS);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(all->choices[i].ids[0], i);
        sum += exp(all->choices[i].sum);
    }
    assert_true(fabs(sum - 1) < 1e-4);
    assert_int_equal(all->usage.computed_tokens, 0);
    assert_int_equal(all->best, all->best_mean);
    is_largest(all);
    gist_choices_free(all);
    gist_close(s);
}

static void random_ids(uint32_t *ids, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1103515245u + 12345;
        ids[i] = 3 + (seed >> 16) % 200;
    }
}

#define MANY 200u
static uint32_t many_ids[MANY][8];
static struct gist_span many[MANY];

static void make_many(void)
{
    for (uint32_t i = 0; i < MANY; i++) {
        random_ids(many_ids[i], 8, i + 1);
        many[i] = (struct gist_span){ many_ids[i], 2 + i % 7 };
    }
}

static void check_many(const struct gist_choices *all)
{
    size_t n;
    uint32_t *before = ids_of(prompt, &n);

    for (uint32_t i = 0; i < MANY; i += 13)
        is_as_one_text(before, n, &all->choices[i]);
    is_largest(all);
    free(before);
}

/* 200 of them, 4 tokens to read on the average: one after the other that would be 200 steps. */
static void test_at_once(void **state)
{
    struct gist_choices *all;
    uint64_t before;

    (void)state;
    make_many();
    s = open_with(NULL, prompt);
    before = daemon_fixture_steps(c);
    all = scored(s, many, MANY, GIST_TOKENS);
    in_steps(before, 40);
    check_many(all);
    gist_choices_free(all);
    gist_close(s);
}

/* --- with a memory ---------------------------------------------------------------------------- */

/* The second half of a continuation has the same scores behind a fork that has the first half
 * appended: it meets the same segments, compressed at the same places. */
static void halves(const struct gist_policy *policy, size_t n_before, size_t n)
{
    uint32_t ids[1000], half = (uint32_t)n / 2;
    const struct gist_span whole = { ids + n_before, n };
    const struct gist_span second = { ids + n_before + half, n - half };
    struct gist_choices *a, *b;
    gist_session *fork;

    random_ids(ids, 1000, 7);
    assert_int_equal(gist_open(c, policy, &s), 0);
    assert_int_equal(gist_append_tokens(s, ids, n_before, NULL), 0);
    a = scored(s, &whole, 1, GIST_TOKENS);
    assert_int_equal(gist_fork(s, NULL, &fork), 0);
    assert_int_equal(gist_append_tokens(fork, ids + n_before, half, NULL), 0);
    b = scored(fork, &second, 1, GIST_TOKENS);
    for (size_t i = 0; i < n - half; i++)
        if (!(fabsf(a->choices[0].logprobs[half + i] - b->choices[0].logprobs[i]) <= near()))
            fail_msg("token %zu: %f and %f", i, (double)a->choices[0].logprobs[half + i],
                     (double)b->choices[0].logprobs[i]);
    gist_choices_free(a);
    gist_choices_free(b);
    gist_close(fork);
    gist_close(s);
}

static void test_memory(void **state)
{
    struct gist_memory m = { .size = sizeof(m), .compressor = GIST_FINE_KV, .ratio = 8 };
    struct gist_policy p = { .size = sizeof(p), .segment = 64, .memory = &m };

    (void)state;
    halves(&p, 100, 300);
    m.budget = 192;
    halves(&p, 500, 300);
    m.compressor = GIST_SELECT;
    halves(&p, 127, 200);
    m = (struct gist_memory){ .size = sizeof(m), .flags = GIST_AUTO, .budget = 256 };
    halves(&p, 300, 200);
    p.memory = NULL;
    halves(&p, 64, 300);
}

/* A session that was taken back into a compressed segment reads that again, once and not for each
 * of 200. */
static void test_rewound(void **state)
{
    struct gist_memory m = { .size = sizeof(m), .compressor = GIST_FINE_KV, .ratio = 8 };
    const struct gist_policy p = { .size = sizeof(p), .segment = 64, .memory = &m };
    uint32_t ids[300];
    struct gist_choices *all, *again;
    uint64_t before;

    (void)state;
    make_many();
    random_ids(ids, 300, 3);
    assert_int_equal(gist_open(c, &p, &s), 0);
    assert_int_equal(gist_append_tokens(s, ids, 300, NULL), 0);
    assert_int_equal(gist_rewind(s, 120), 0);
    before = daemon_fixture_steps(c);
    all = scored(s, many, MANY, GIST_TOKENS);
    in_steps(before, 45);
    again = scored(s, many, MANY, GIST_TOKENS);
    for (uint32_t i = 0; i < MANY; i++)
        assert_true(fabs(all->choices[i].sum - again->choices[i].sum) <= 8 * near());
    gist_choices_free(all);
    gist_choices_free(again);
    gist_close(s);
}

/* --- what is refused -------------------------------------------------------------------------- */

static void refused(gist_session *x, const struct gist_span *spans, size_t n, unsigned flags,
                    enum gist_code code, const char *says)
{
    struct gist_choices *all = NULL;

    assert_true(gist_score_choices(x, spans, n, flags, &all) < 0);
    assert_null(all);
    if (gist_error_code(c) != code || !strstr(gist_error(c), says))
        fail_msg("%d: %s", gist_error_code(c), gist_error(c));
}

static void test_refused(void **state)
{
    static const struct gist_span empty[] = { SPAN(" a"), { "", 0 }, SPAN(" b") };
    static struct gist_span too_many[WIRE_CHOICES_MAX + 1];
    static uint32_t ids[1100];
    struct gist_span one = { ids, 3 };
    struct gist_choices *all;
    gist_session *x;

    (void)state;
    s = open_with(NULL, prompt);
    refused(s, NULL, 0, 0, GIST_E_BAD_REQUEST, "the request has no continuation");
    refused(s, empty, 3, 0, GIST_E_BAD_REQUEST, "continuation 2 of 3 is empty");
    for (size_t i = 0; i <= WIRE_CHOICES_MAX; i++)
        too_many[i] = one;
    refused(s, too_many, WIRE_CHOICES_MAX + 1, GIST_TOKENS, GIST_E_BAD_REQUEST,
            "1025 continuations in one request; 1024 are allowed");
    refused(s, &one, 1, 64u, GIST_E_BAD_REQUEST, "");
    ids[1] = UINT32_MAX;
    refused(s, &one, 1, GIST_TOKENS, GIST_E_BAD_REQUEST, "token id 4294967295 does not exist");
    ids[1] = 0;
    one.n = 1100;
    refused(s, &one, 1, GIST_TOKENS, GIST_E_CONTEXT_LENGTH_EXCEEDED,
            "the longest continuation 1100 more; the limit is 1024");
    assert_int_equal(gist_open(c, NULL, &x), 0);
    refused(x, texts, 2, 0, GIST_E_BAD_REQUEST, "the session is empty");
    gist_close(x);
    all = scored(s, texts, N_TEXTS, 0); /* none of it has spoilt the session */
    gist_choices_free(all);
    gist_close(s);
}

/* What libgist would not send. */
static void test_hostile(void **state)
{
    const uint64_t huge[] = { UINT64_MAX, 2, UINT64_MAX - 7 }, odd[] = { 3 }, most[] = { 4, 4 };
    struct wire_req m = { .kind = WIRE_SCORE_CHOICES };
    struct raw_client r;
    uint64_t session;

    (void)state;
    raw_client_open(&r, d.socket);
    m.u.score_choices.lens = most;
    m.u.score_choices.n = 2;
    raw_client_refused(raw_client_ask(&r, m, "abcdefgh", 8, NULL), WIRE_E_NOT_FOUND,
                       "no session 0");
    session = raw_client_ask(&r, (struct wire_req){ .kind = WIRE_OPEN_SESSION }, NULL, 0, NULL)
                  ->u.session_opened.session;
    m.u.score_choices.session = session;
    assert_int_equal(
        raw_client_ask(&r, (struct wire_req){ .kind = WIRE_APPEND, .u.append.session = session },
                       "abc", 3, NULL)
            ->kind,
        WIRE_APPENDED);
    raw_client_refused(raw_client_ask(&r, m, "abcdefg", 7, NULL), WIRE_E_BAD_REQUEST,
                       "do not add up to the 7 bytes");
    raw_client_refused(raw_client_ask(&r, m, "abcdefghi", 9, NULL), WIRE_E_BAD_REQUEST,
                       "do not add up to the 9 bytes");
    m.u.score_choices.lens = huge;
    m.u.score_choices.n = 3;
    raw_client_refused(raw_client_ask(&r, m, "abcdefgh", 8, NULL), WIRE_E_BAD_REQUEST,
                       "do not add up to the 8 bytes");
    m.u.score_choices.lens = odd;
    m.u.score_choices.n = 1;
    m.u.score_choices.kind = WIRE_SCORE_TOKENS;
    raw_client_refused(raw_client_ask(&r, m, "abc", 3, NULL), WIRE_E_BAD_REQUEST,
                       "not a multiple of 4");
    /* Parts: cut in the middle of the first one. */
    m.u.score_choices.kind = WIRE_SCORE_TEXT;
    m.u.score_choices.lens = most;
    m.u.score_choices.n = 2;
    m.u.score_choices.more = true;
    assert_int_equal(raw_client_ask(&r, m, "ab", 2, NULL)->u.chosen.n, 0);
    m.u.score_choices.more = false;
    assert_int_equal(raw_client_ask(&r, m, "cdefgh", 6, NULL)->u.chosen.n, 2);
    raw_client_close(&r);
}

/* --- limits, cancels, ends -------------------------------------------------------------------- */

/* A place for a session beside this one, and none: and so many pages as one continuation wants. */
static void test_few_places(void **state)
{
    static const char *const sets[][8] = {
        { "--store", "none", "--max-sessions", "2", NULL },
        { "--store", "none", "--max-sessions", "1", NULL },
        { "--store", "none", "--client-kv-bytes", "60K", NULL },
    };
    struct gist_choices *all;

    (void)state;
    make_many();
    for (size_t i = 0; i < sizeof(sets) / sizeof(*sets); i++) {
        start(sets[i]);
        s = open_with(NULL, prompt);
        all = scored(s, many, MANY, GIST_TOKENS);
        check_many(all);
        gist_choices_free(all);
        gist_close(s);
        stop(NULL);
    }
}

struct ended {
    int err, n;
};

static void on_done(void *arg, int err, const struct gist_choices *choices)
{
    struct ended *e = arg;

    assert_true((err == 0) == (choices != NULL));
    e->err = err;
    e->n++;
}

#define LONG_ONES 64u
static uint32_t long_ids[LONG_ONES][600];
static struct gist_span long_ones[LONG_ONES];

static void make_long(void)
{
    for (uint32_t i = 0; i < LONG_ONES; i++) {
        random_ids(long_ids[i], 600, i);
        long_ones[i] = (struct gist_span){ long_ids[i], 600 };
    }
}

static void test_without_waiting(void **state)
{
    struct ended a = { 1, 0 }, b = { 1, 0 };
    gist_session *x;
    uint64_t request;

    (void)state;
    make_many();
    make_long();
    s = open_with(NULL, prompt);
    x = open_with(NULL, prompt);
    assert_int_equal(gist_score_choices_start(x, long_ones, 9, GIST_TOKENS, on_done, &b, &request),
                     0);
    assert_int_equal(gist_score_choices_start(s, many, MANY, GIST_TOKENS, on_done, &a, NULL), 0);
    while (a.n == 0 || b.n == 0)
        assert_int_equal(gist_ping(c), 0);
    assert_int_equal(a.err, 0);
    assert_int_equal(b.err, 0);
    gist_close(x);
    gist_close(s);
}

/* 38,000 tokens are under way when nobody wants them any more. */
static void test_cancel(void **state)
{
    static const char *const args[] = { "--store", "none", "--cpu", "scalar", NULL };
    struct ended e = { 0, 0 };
    struct gist_choices *all;
    uint64_t request, before;

    (void)state;
    make_long();
    daemon_fixture_start(&d, DAEMON_FIXTURE_SLOW, args);
    c = daemon_fixture_connect(&d);
    s = open_with(NULL, prompt);
    before = daemon_fixture_steps(c);
    assert_int_equal(
        gist_score_choices_start(s, long_ones, LONG_ONES, GIST_TOKENS, on_done, &e, &request), 0);
    daemon_fixture_stepped(c, before);
    assert_int_equal(e.n, 0);
    assert_int_equal(gist_cancel(c, request), 0);
    while (e.n == 0)
        assert_int_equal(gist_ping(c), 0);
    assert_int_equal(e.err, -ECANCELED);
    all = scored(s, texts, N_TEXTS, 0); /* and the session is free */
    gist_choices_free(all);
    /* A session that is closed, and a client that is gone, in the middle. */
    assert_int_equal(
        gist_score_choices_start(s, long_ones, LONG_ONES, GIST_TOKENS, on_done, &e, NULL), 0);
    before = daemon_fixture_steps(c);
    daemon_fixture_stepped(c, before);
    gist_close(s);
    while (e.n == 1)
        assert_int_equal(gist_ping(c), 0);
    assert_int_equal(e.err, -ECANCELED);
    s = open_with(NULL, prompt);
    assert_int_equal(
        gist_score_choices_start(s, long_ones, LONG_ONES, GIST_TOKENS, on_done, &e, NULL), 0);
    before = daemon_fixture_steps(c);
    daemon_fixture_stepped(c, before);
    gist_disconnect(c);
    assert_int_equal(e.n, 3);
    c = daemon_fixture_connect(&d);
    stop(NULL);
}

int main(void)
{
    const struct CMUnitTest plain[] = {
        cmocka_unit_test(test_as_one_text),     cmocka_unit_test(test_behind_an_answer),
        cmocka_unit_test(test_single_tokens),   cmocka_unit_test(test_at_once),
        cmocka_unit_test(test_memory),          cmocka_unit_test(test_rewound),
        cmocka_unit_test(test_refused),         cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_without_waiting),
    };
    const struct CMUnitTest own[] = { cmocka_unit_test(test_few_places),
                                      cmocka_unit_test(test_cancel) };

    return cmocka_run_group_tests(plain, start_plain, stop) |
           cmocka_run_group_tests(own, NULL, NULL);
}
