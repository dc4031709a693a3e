/* tests/test_daemon_answers.c - several answers to one request. Would catch: an answer that is not
 * the one that its seed gives alone; a session that is not what it was before; one answer after the
 * other instead of all at once; limits that several of them pass together; a cancel that leaves
 * something behind, or is heard of twice; hostile counts. */
#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct daemon_fixture d;
static gist_conn *c;
static gist_session *s;

static const char prompt[] = "Is the sky blue on Mars, or red? It is";

#define N_MAX 64u
struct said {
    uint32_t ids[400], n;
    char text[2048];
    size_t len;
    double logprobs;
    uint32_t n_logprobs;
};
struct all {
    struct said said[N_MAX];
    struct gist_result results[N_MAX];
    uint32_t ended[N_MAX], n_ended, cancel_at, n_calls;
    int err, done;
};
static struct all a, b;

static void add(struct said *x, const char *text, size_t len, const uint32_t *ids, size_t n)
{
    assert_true(x->n + n <= 400 && x->len + len < sizeof(x->text));
    if (n)
        memcpy(x->ids + x->n, ids, n * sizeof(*ids));
    x->n += (uint32_t)n;
    memcpy(x->text + x->len, text, len);
    x->len += len;
}

static int on_one(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n)
{
    add(arg, text, len, ids, n);
    return 0;
}

static int on_text(void *arg, uint32_t answer, const char *text, size_t len, const uint32_t *ids,
                   size_t n)
{
    struct all *x = arg;

    assert_true(answer < N_MAX);
    assert_int_equal(x->ended[answer], 0);
    add(&x->said[answer], text, len, ids, n);
    x->n_calls++;
    return x->cancel_at && x->n_calls >= x->cancel_at;
}

static void on_logprob(void *arg, const struct gist_logprob *token)
{
    struct all *x = arg;

    assert_true(token->answer < N_MAX && token->n_top == 2);
    x->said[token->answer].logprobs += (double)token->logprob;
    x->said[token->answer].n_logprobs++;
}

static void on_answer(void *arg, uint32_t answer, const struct gist_result *result)
{
    struct all *x = arg;

    x->results[answer] = *result;
    x->ended[answer]++;
    x->n_ended++;
}

static void on_done(void *arg, int err, const struct gist_result *result)
{
    struct all *x = arg;

    assert_true(err < 0 || result); /* what was cut has both */
    x->err = err;
    x->done++;
}

static void start(enum daemon_fixture_model m, const char *const *args)
{
    daemon_fixture_start(&d, m, args);
    c = daemon_fixture_connect(&d);
}

static int start_plain(void **state)
{
    static const char *const args[] = { "--store", "none", NULL };

    (void)state;
    start(DAEMON_FIXTURE_TINY, args);
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

static gist_session *open_session(const struct gist_policy *policy)
{
    gist_session *x;

    assert_int_equal(gist_open(c, policy, &x), 0);
    assert_int_equal(gist_append_text(x, prompt, sizeof(prompt) - 1, 0, NULL), 0);
    return x;
}

static struct gist_sampling sampled(uint32_t n_tokens, uint64_t seed)
{
    return (struct gist_sampling){
        .size = sizeof(struct gist_sampling), .max_tokens = n_tokens, .temperature = 1, .seed = seed
    };
}

static void several(const struct gist_sampling *p, uint32_t n, struct all *to)
{
    memset(to, 0, sizeof(*to));
    if (gist_generate_several(s, p, n, on_text, to, to->results) < 0)
        fail_msg("%s", gist_error(c));
}

/* Each of n is what a fork says with its seed alone; and the session goes on as it would have. */
static void check(const struct gist_sampling *p, uint32_t n)
{
    struct gist_sampling greedy = { .size = sizeof(greedy), .max_tokens = 12, .ignore_eog = 1 };
    struct gist_sampling one = *p;
    static struct said x, y;
    struct gist_result result;
    gist_session *fork, *before;

    one.on_logprob = NULL;
    assert_int_equal(gist_fork(s, NULL, &before), 0);
    several(p, n, &a);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(gist_fork(s, NULL, &fork), 0);
        one.seed = p->seed + i;
        memset(&x, 0, sizeof(x));
        assert_int_equal(gist_generate(fork, &one, on_one, &x, &result), 0);
        assert_int_equal(a.said[i].n, x.n);
        assert_memory_equal(a.said[i].ids, x.ids, x.n * sizeof(*x.ids));
        assert_int_equal(a.said[i].len, x.len);
        assert_memory_equal(a.said[i].text, x.text, x.len);
        assert_int_equal(a.results[i].reason, result.reason);
        assert_int_equal(a.results[i].stop, result.stop);
        assert_int_equal(result.stop > 0, result.reason == GIST_STOP);
        assert_int_equal(a.results[i].usage.generated_tokens, result.usage.generated_tokens);
        assert_int_equal(a.results[i].usage.prompt_tokens, result.usage.prompt_tokens);
        gist_close(fork);
    }
    memset(&x, 0, sizeof(x));
    memset(&y, 0, sizeof(y));
    assert_int_equal(gist_generate(s, &greedy, on_one, &x, NULL), 0);
    assert_int_equal(gist_generate(before, &greedy, on_one, &y, NULL), 0);
    assert_int_equal(x.n, 12);
    assert_memory_equal(x.ids, y.ids, 12 * sizeof(*x.ids));
    gist_close(before);
}

static void test_each_as_alone(void **state)
{
    static const char *const stops[] = { "e", "a" };
    struct gist_memory m = { .size = sizeof(m), .compressor = GIST_FINE_KV, .ratio = 8 };
    const struct gist_policy p = { .size = sizeof(p), .segment = 64, .memory = &m };
    struct gist_sampling x = sampled(30, 7);

    (void)state;
    s = open_session(NULL);
    check(&x, 5);
    check(&x, 2); /* behind an answer, whose last token is still to be read */
    x.stop = stops;
    x.n_stop = 2;
    check(&x, 9);
    x = sampled(25, UINT64_MAX); /* seeds go round */
    check(&x, 3);
    gist_close(s);
    s = open_session(&p); /* and segments are compressed in the middle */
    x = sampled(150, 3);
    check(&x, 3);
    gist_close(s);
}

static void test_outputs(void **state)
{
    static const char grammar[] = "root ::= (\"yes\" | \"no\") \"!\"";
    struct gist_sampling x = sampled(0, 1);
    bool yes = false, no = false;

    (void)state;
    s = open_session(NULL);
    x.grammar = GIST_GBNF;
    x.grammar_text = grammar;
    x.grammar_len = sizeof(grammar) - 1;
    x.logprobs = 2;
    x.on_logprob = on_logprob;
    several(&x, 30, &a);
    for (uint32_t i = 0; i < 30; i++) {
        yes |= strcmp(a.said[i].text, "yes!") == 0;
        no |= strcmp(a.said[i].text, "no!") == 0;
        assert_true(strcmp(a.said[i].text, "yes!") == 0 || strcmp(a.said[i].text, "no!") == 0);
        assert_int_equal(a.results[i].reason, GIST_END_OF_TEXT);
        assert_int_equal(a.said[i].n_logprobs, a.said[i].n);
        assert_true(a.said[i].logprobs < 0);
    }
    assert_true(yes && no);
    x.logprobs = 0;
    x.grammar_text = "root ::= \"<\" [a-z]* \">\"";
    x.grammar_len = strlen(x.grammar_text);
    x.max_tokens = 6;
    several(&x, 30, &a);
    for (uint32_t i = 0; i < 30; i++) { /* each of them ends in time */
        assert_int_equal(a.results[i].reason, GIST_END_OF_TEXT);
        assert_int_equal(a.said[i].text[strlen(a.said[i].text) - 1], '>');
    }
    gist_close(s);
}

/* 32 answers of 40 tokens: one after the other 1280 steps. */
static void test_at_once(void **state)
{
    struct gist_sampling x = sampled(40, 1);
    uint64_t before;

    (void)state;
    x.ignore_eog = 1;
    s = open_session(NULL);
    before = daemon_fixture_steps(c);
    several(&x, 32, &a);
    assert_true(daemon_fixture_steps(c) - before <= 100);
    for (uint32_t i = 1; i < 32; i++)
        assert_int_equal(a.said[i].n, 40);
    assert_memory_not_equal(a.said[0].ids, a.said[1].ids, 40 * sizeof(uint32_t));
    gist_close(s);
}

static void test_without_waiting(void **state)
{
    struct gist_sampling x = sampled(30, 11);

    (void)state;
    s = open_session(NULL);
    several(&x, 8, &b);
    memset(&a, 0, sizeof(a));
    assert_int_equal(gist_generate_several_start(s, &x, 8, on_text, on_answer, on_done, &a, NULL),
                     0);
    while (!a.done)
        assert_int_equal(gist_ping(c), 0);
    assert_int_equal(a.err, 0);
    assert_int_equal(a.n_ended, 8);
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(a.ended[i], 1);
        assert_int_equal(a.said[i].n, b.said[i].n);
        assert_memory_equal(a.said[i].ids, b.said[i].ids, b.said[i].n * sizeof(uint32_t));
    }
    /* One is an answer like any other, which the session goes on with. */
    memset(&a, 0, sizeof(a));
    assert_int_equal(gist_generate_several_start(s, &x, 1, on_text, on_answer, on_done, &a, NULL),
                     0);
    while (!a.done)
        assert_int_equal(gist_ping(c), 0);
    assert_int_equal(a.n_ended, 1);
    assert_memory_equal(a.said[0].ids, b.said[0].ids, b.said[0].n * sizeof(uint32_t));
    gist_close(s);
}

static void test_refused(void **state)
{
    struct gist_sampling x = sampled(5, 0);
    struct wire_req m = { .kind = WIRE_GENERATE };
    const struct wire_rep *rep;
    struct raw_client r;
    gist_session *empty;

    (void)state;
    s = open_session(NULL);
    assert_int_equal(gist_generate_several(s, &x, 0, on_text, &a, NULL), -EINVAL);
    assert_int_equal(gist_generate_several(s, &x, 65, on_text, &a, NULL), -EINVAL);
    assert_non_null(strstr(gist_error(c), "65 answers in one request; 64 are allowed"));
    assert_int_equal(gist_open(c, NULL, &empty), 0);
    assert_int_equal(gist_generate_several(empty, &x, 2, on_text, &a, NULL), -EINVAL);
    assert_non_null(strstr(gist_error(c), "the session is empty"));
    gist_close(empty);
    x.grammar = GIST_GBNF;
    x.grammar_text = "root ::= (";
    x.grammar_len = 10;
    assert_int_equal(gist_generate_several(s, &x, 5, on_text, &a, NULL), -EINVAL);
    assert_non_null(strstr(gist_error(c), "line 1, column 11"));
    gist_close(s);
    raw_client_open(&r, d.socket);
    m.u.generate.session =
        raw_client_ask(&r, (struct wire_req){ .kind = WIRE_OPEN_SESSION }, NULL, 0, NULL)
            ->u.session_opened.session;
    (void)raw_client_ask(
        &r, (struct wire_req){ .kind = WIRE_APPEND, .u.append.session = m.u.generate.session },
        "abc", 3, NULL);
    m.u.generate.n = UINT32_MAX;
    rep = raw_client_ask(&r, m, NULL, 0, NULL);
    assert_int_equal(rep->kind, WIRE_ERROR);
    assert_non_null(strstr(rep->u.error.text, "4294967295 answers"));
    raw_client_close(&r);
}

/* A place for a session beside this one, or none; pages for a fork or two. */
static void test_few_places(void **state)
{
    static const char *const sets[][8] = {
        { "--store", "none", "--max-sessions", "3", NULL },
        { "--store", "none", "--max-sessions", "1", NULL },
        { "--store", "none", "--client-kv-bytes", "100K", NULL },
    };
    struct gist_sampling x = sampled(20, 5);

    (void)state;
    for (size_t i = 0; i < sizeof(sets) / sizeof(*sets); i++) {
        start(DAEMON_FIXTURE_TINY, sets[i]);
        s = open_session(NULL);
        several(&x, 40, i ? &a : &b);
        for (uint32_t k = 0; i && k < 40; k++) {
            assert_int_equal(a.said[k].n, b.said[k].n);
            assert_memory_equal(a.said[k].ids, b.said[k].ids, b.said[k].n * sizeof(uint32_t));
        }
        gist_close(s);
        stop(NULL);
    }
}

static void test_cancel(void **state)
{
    static const char *const args[] = { "--store", "none", "--cpu", "scalar", NULL };
    struct gist_sampling x = sampled(300, 0);
    static struct said one;

    (void)state;
    start(DAEMON_FIXTURE_SLOW, args);
    x.ignore_eog = 1;
    s = open_session(NULL);
    memset(&a, 0, sizeof(a));
    a.cancel_at = 20;
    assert_int_equal(gist_generate_several(s, &x, 16, on_text, &a, a.results), -ECANCELED);
    assert_int_equal(a.n_calls, 20);
    x.max_tokens = 3;
    assert_int_equal(gist_generate(s, &x, on_one, &one, NULL), 0); /* the session is free */
    assert_int_equal(one.n, 3);
    /* Closed, and its client gone, in the middle. */
    x.max_tokens = 300;
    memset(&a, 0, sizeof(a));
    assert_int_equal(gist_generate_several_start(s, &x, 16, on_text, on_answer, on_done, &a, NULL),
                     0);
    while (a.n_calls < 5)
        assert_int_equal(gist_ping(c), 0);
    gist_close(s);
    while (!a.done)
        assert_int_equal(gist_ping(c), 0);
    assert_int_equal(a.err, -ECANCELED);
    s = open_session(NULL);
    memset(&a, 0, sizeof(a));
    assert_int_equal(gist_generate_several_start(s, &x, 16, on_text, on_answer, on_done, &a, NULL),
                     0);
    while (a.n_calls < 5)
        assert_int_equal(gist_ping(c), 0);
    gist_disconnect(c);
    assert_int_equal(a.done, 1);
    c = daemon_fixture_connect(&d);
    stop(NULL);
}

int main(void)
{
    const struct CMUnitTest plain[] = {
        cmocka_unit_test(test_each_as_alone),   cmocka_unit_test(test_outputs),
        cmocka_unit_test(test_at_once),         cmocka_unit_test(test_refused),
        cmocka_unit_test(test_without_waiting),
    };
    const struct CMUnitTest own[] = { cmocka_unit_test(test_few_places),
                                      cmocka_unit_test(test_cancel) };

    return cmocka_run_group_tests(plain, start_plain, stop) |
           cmocka_run_group_tests(own, NULL, NULL);
}
