/* tests/test_daemon_draws.c - would catch: answers that are drawn side by side, or whose masks are
 * made beside a step, and that differ from what each is alone; one that has another's candidates,
 * log-probabilities, random numbers or mask; a mask that is made for an answer that is gone. Under
 * TSan: a state that two threads draw from. On a model of random weights. */
#include "tests/support/daemon_fixture.h"
#include "tests/support/tolerance.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N       9u /* answers: more than are drawn at a time */
#define IDS_MAX 256u

struct answer {
    uint32_t ids[IDS_MAX], n_ids, n_logprobs;
    float logprobs[IDS_MAX];
    enum gist_reason reason;
    int done;
};

static struct daemon_fixture d;
static struct answer want[N];

static int on_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    struct answer *a = arg;

    (void)text, (void)len;
    assert_true(a->n_ids + n_ids <= IDS_MAX);
    memcpy(a->ids + a->n_ids, ids, n_ids * sizeof(*ids));
    a->n_ids += (uint32_t)n_ids;
    return 0;
}

static void on_logprob(void *arg, const struct gist_logprob *token)
{
    struct answer *a = arg;

    assert_true(a->n_logprobs < IDS_MAX);
    a->logprobs[a->n_logprobs++] = token->logprob;
}

static void on_done(void *arg, int err, const struct gist_result *result)
{
    struct answer *a = arg;

    assert_int_equal(err, 0);
    a->reason = result->reason;
    a->done = 1;
}

/* Of each kind some: greedy, with cuts, with penalties, with log-probabilities, by two grammars. */
static struct gist_sampling sampling(uint32_t i)
{
    static const char *const grammars[] = { "root ::= (\"ab\" [cd] [0-9]*)+",
                                            "root ::= \"[\" [a-z]+ (\",\" [a-z]+)* \"]\"" };
    struct gist_sampling p = { .size = sizeof(p),
                               .temperature = i % 4 ? 1 : 0,
                               .top_p = i % 3 ? 0.9f : 1,
                               .top_k = i % 5 ? 0 : 20,
                               .seed = 100 + i,
                               .max_tokens = 40 + i };

    if (i % 2) {
        p.repeat_penalty = 1.3f;
        p.repeat_last_n = 32;
    }
    if (i % 3 == 1) {
        p.grammar = GIST_GBNF;
        p.grammar_text = grammars[i / 3 % 2];
        p.grammar_len = strlen(p.grammar_text);
    }
    if (i % 4 == 1) {
        p.on_logprob = on_logprob;
        p.logprobs = 3;
    }
    return p;
}

static gist_session *open_one(gist_conn *c, uint32_t i)
{
    char text[64];
    gist_session *s;
    int n = snprintf(text, sizeof(text), "Question number %u of some: ", i);

    assert_int_equal(gist_open(c, NULL, &s), 0);
    assert_int_equal(gist_append_text(s, text, (size_t)n, 0, NULL), 0);
    return s;
}

static void ask(gist_session *s, uint32_t i, struct answer *a)
{
    struct gist_sampling p = sampling(i);

    memset(a, 0, sizeof(*a));
    assert_int_equal(gist_generate_start(s, &p, on_text, on_done, a, NULL), 0);
}

static void ask_alone(gist_conn *c, uint32_t i, struct answer *a)
{
    gist_session *s = open_one(c, i);

    ask(s, i, a);
    while (!a->done)
        assert_true(gist_dispatch(c) >= 0);
    gist_close(s);
}

static bool all_done(const struct answer *a)
{
    for (uint32_t i = 0; i < N; i++)
        if (!a[i].done)
            return false;
    return true;
}

/* On a device: one token may be drawn otherwise where the draw is as near to it as rounding, and
 * then the rest is another answer. What the two are before that is the same to rounding. */
static bool near(const struct answer *a, const struct answer *b)
{
    /* Of a logit, and of what all of them add up to. */
    double most = 2 * tolerance_of_device(tolerance_tiny, KV_F16);

    for (uint32_t i = 0; i < a->n_ids && i < b->n_ids; i++) {
        if (a->ids[i] != b->ids[i])
            return false;
        if (a->n_logprobs && !(fabs((double)a->logprobs[i] - (double)b->logprobs[i]) <= most))
            fail_msg("token %u: %f and %f", i, (double)a->logprobs[i], (double)b->logprobs[i]);
    }
    return a->n_ids == b->n_ids && a->reason == b->reason && a->n_logprobs == b->n_logprobs;
}

static void same(const struct answer *a, const struct answer *b)
{
    assert_int_equal(a->n_ids, b->n_ids);
    assert_memory_equal(a->ids, b->ids, a->n_ids * sizeof(a->ids[0]));
    assert_int_equal(a->reason, b->reason);
    assert_int_equal(a->n_logprobs, b->n_logprobs);
    assert_memory_equal(a->logprobs, b->logprobs, a->n_logprobs * sizeof(a->logprobs[0]));
}

/* Of all: on a device most, since a tie is rare. */
static void all_same(const struct answer *const *a, const struct answer *const *b, uint32_t n)
{
    uint32_t n_near = 0;

    for (uint32_t i = 0; i < n; i++) {
        if (daemon_fixture_exact())
            same(a[i], b[i]);
        n_near += near(a[i], b[i]);
    }
    assert_true(3 * n_near >= 2 * n);
}

/* One after another by one thread: what all others are held against. */
static void alone(void **state)
{
    static const char *const args[] = {
        "--store", "none", "--threads", "1", "--draft", "off", NULL
    };
    gist_conn *c;

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    for (uint32_t i = 0; i < N; i++) {
        ask_alone(c, i, &want[i]);
        assert_true(want[i].n_ids > 0);
        assert_int_equal(want[i].n_logprobs, i % 4 == 1 ? want[i].n_ids : 0);
    }
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

static void together(const char *threads, const char *draft)
{
    const char *const args[] = { "--store", "none", "--threads", threads, "--draft", draft, NULL };
    static struct answer got[N];
    const struct answer *pairs[2][N];
    gist_session *s[N];
    gist_conn *c;

    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    for (uint32_t i = 0; i < N; i++)
        s[i] = open_one(c, i);
    for (uint32_t i = 0; i < N; i++)
        ask(s[i], i, &got[i]);
    while (!all_done(got))
        assert_true(gist_dispatch(c) >= 0);
    for (uint32_t i = 0; i < N; i++) {
        pairs[0][i] = &got[i];
        pairs[1][i] = &want[i];
        gist_close(s[i]);
    }
    all_same(pairs[0], pairs[1], N);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* Where there are more CPUs than computing threads masks are made beside the steps. */
static void by_one_thread(void **state)
{
    (void)state;
    together("1", "off");
    together("1", "3");
}

/* More threads than many machines have CPUs: then they draw, and no mask is made beside a step. */
static void by_several(void **state)
{
    (void)state;
    together("2", "off");
    together("3", "2");
    together("12", "off");
}

#define ROUNDS 12u

static void on_end(void *arg, int err, const struct gist_result *result)
{
    struct answer *a = arg;

    (void)err, (void)result; /* cancelled, disconnected, or at its end before that */
    a->done = 1;
}

/* Answers by grammars have begun when they are cancelled, or their client goes. */
static void leave(uint32_t round)
{
    static struct answer got[ROUNDS][N];
    struct answer *a = got[round];
    gist_conn *c = daemon_fixture_connect(&d);
    uint64_t requests[N];
    bool any = false;

    for (uint32_t i = 0; i < N; i++) {
        struct gist_sampling p = sampling(i);

        a[i].done = i % 3 != 1;
        if (!a[i].done)
            assert_int_equal(
                gist_generate_start(open_one(c, i), &p, on_text, on_end, &a[i], &requests[i]), 0);
    }
    while (!any) {
        assert_true(gist_dispatch(c) >= 0);
        for (uint32_t i = 1; i < N; i += 3)
            any |= a[i].done || a[i].n_ids > round % 5;
    }
    for (uint32_t i = 1; round % 2 && i < N; i += 3)
        if (!a[i].done)
            (void)gist_cancel(c, requests[i]);
    while (round % 2 && !all_done(a))
        assert_true(gist_dispatch(c) >= 0);
    gist_disconnect(c);
}

static void who_goes_in_the_middle(void **state)
{
    static const char *const args[] = {
        "--store", "none", "--threads", "1", "--draft", "off", NULL
    };
    static struct answer got[N];
    const struct answer *pairs[2][N];
    uint32_t n = 0;
    gist_conn *c;

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    for (uint32_t i = 0; i < ROUNDS; i++)
        leave(i);
    c = daemon_fixture_connect(&d);
    for (uint32_t i = 1; i < N; i += 3) {
        ask_alone(c, i, &got[i]);
        pairs[0][n] = &got[i];
        pairs[1][n++] = &want[i];
    }
    all_same(pairs[0], pairs[1], n);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alone),
        cmocka_unit_test(by_one_thread),
        cmocka_unit_test(by_several),
        cmocka_unit_test(who_goes_in_the_middle),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
