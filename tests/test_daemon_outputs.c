/* tests/test_daemon_outputs.c - would catch: an answer that is no text of its grammar, or that goes
 * on behind its end; one that was cut and says it is whole, or that was cut though it could have
 * ended in time; a limit that is too small for any, and is not refused; a schema that is passed
 * over, or refused without its place; a grammar that loses its middle on the way; log-probabilities
 * that are not the model's. On a model of random weights, which has no idea of any language. */
#include "engine/text/callform.h"
#include "engine/text/gbnf.h"
#include "engine/text/match.h"
#include "engine/text/schema.h"
#include "tests/support/daemon_fixture.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const args[] = { "--store", "none", NULL };
static struct daemon_fixture d;
static gist_conn *c;
static gist_session *s;

struct answer {
    char text[4096];
    size_t len;
    uint32_t ids[1024], n_ids;
    float logprobs[1024], tops[1024][20];
    uint32_t top_ids[1024][20], n_top, n_logprobs;
    struct gist_result result;
    int err, done;
};

static int on_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    struct answer *a = arg;

    assert_true(a->len + len < sizeof(a->text) && a->n_ids + n_ids <= 1024);
    memcpy(a->text + a->len, text, len);
    a->len += len;
    a->text[a->len] = '\0';
    memcpy(a->ids + a->n_ids, ids, n_ids * sizeof(*ids));
    a->n_ids += (uint32_t)n_ids;
    return 0;
}

static void on_logprob(void *arg, const struct gist_logprob *token)
{
    struct answer *a = arg;

    assert_true(a->n_logprobs < 1024 && token->n_top <= 20);
    a->n_top = token->n_top;
    a->logprobs[a->n_logprobs] = token->logprob;
    for (uint32_t i = 0; i < token->n_top; i++) {
        a->tops[a->n_logprobs][i] = token->top_logprobs[i];
        a->top_ids[a->n_logprobs][i] = token->top_ids[i];
    }
    a->n_logprobs++;
}

static int start(void **state)
{
    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    gist_disconnect(c);
    daemon_fixture_stop(&d);
    return 0;
}

static int open_session(void **state)
{
    (void)state;
    assert_int_equal(gist_open(c, NULL, &s), 0);
    assert_int_equal(gist_append_text(s, "What is it? ", 12, 0, NULL), 0);
    return 0;
}

static int close_session(void **state)
{
    (void)state;
    gist_close(s);
    return 0;
}

static struct gist_sampling by(enum gist_grammar kind, const char *text, uint64_t seed)
{
    return (struct gist_sampling){ .size = sizeof(struct gist_sampling),
                                   .temperature = 1,
                                   .seed = seed,
                                   .grammar = kind,
                                   .grammar_text = text,
                                   .grammar_len = strlen(text) };
}

static void say(const struct gist_sampling *p, struct answer *a)
{
    memset(a, 0, sizeof(*a));
    if (gist_generate(s, p, on_text, a, &a->result) < 0)
        fail_msg("%s", gist_error(c));
}

static struct answer a;

static void test_gbnf(void **state)
{
    bool yes = false, no = false;

    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct gist_sampling p = by(GIST_GBNF, "root ::= \"yes\" | \"no\"", seed);

        say(&p, &a);
        yes |= strcmp(a.text, "yes") == 0;
        no |= strcmp(a.text, "no") == 0;
        assert_true(strcmp(a.text, "yes") == 0 || strcmp(a.text, "no") == 0);
        assert_int_equal(a.result.reason, GIST_END_OF_TEXT);
    }
    assert_true(yes && no);
}

/* The model's end of text comes where the grammar may end, and only there. */
static void test_end_of_text(void **state)
{
    bool long_one = false;

    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct gist_sampling p = by(GIST_GBNF, "root ::= (\"ab\" [cd])+", seed);

        p.max_tokens = 60;
        say(&p, &a);
        if (a.result.reason == GIST_END_OF_TEXT) {
            assert_true(a.len > 0 && a.len % 3 == 0);
            long_one |= a.len > 3;
        } else {
            assert_int_equal(a.result.reason, GIST_LENGTH);
            assert_int_equal(a.n_ids, 60);
        }
    }
    assert_true(long_one);
}

static const char schema[] =
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":12},"
    "\"age\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":120},"
    "\"tags\":{\"type\":\"array\",\"items\":{\"enum\":[\"a\",\"b\xc3\xa9\"]},\"maxItems\":3},"
    "\"of\":{\"type\":[\"boolean\",\"null\"]}},\"required\":[\"name\",\"age\",\"tags\",\"of\"]}";

static void test_schema(void **state)
{
    struct why why = { "" };
    struct grammar *g;
    static struct match m[1];

    (void)state;
    assert_int_equal(schema_compile(schema, strlen(schema), &g, &why), 0);
    match_start(m, g);
    for (uint64_t seed = 0; seed < 8; seed++) {
        struct gist_sampling p = by(GIST_JSON_SCHEMA, schema, seed);

        gist_close(s);
        open_session(NULL);
        p.min_p = seed % 2 ? 0.1f : 0;
        say(&p, &a);
        assert_int_equal(a.result.reason, GIST_END_OF_TEXT);
        match_start(m, g);
        assert_int_equal(match_push(m, (uint8_t *)a.text, a.len), 0);
        assert_true(m->ends);
    }
    grammar_free(g);
}

/* By the limit it is known which it is: a call is longer than ten tokens, and the long text than
 * 200.
 */
static void test_calls(void **state)
{
    static const char *const forms[] = {
        "{\"form\":\"tagged\",\"tools\":[{\"name\":\"f\",\"parameters\":{\"type\":\"object\","
        "\"properties\":"
        "{\"x\":{\"enum\":[1,22]}},\"required\":[\"x\"]}}],\"schema\":{\"enum\":[7,\"a\"]}}",
        "{\"form\":\"tagged\",\"one\":true,\"tools\":[{\"name\":\"f\",\"parameters\":{\"type\":"
        "\"object\","
        "\"properties\":{\"x\":{\"enum\":[1,22]}},\"required\":[\"x\"]}}],\"grammar\":\"root ::= "
        "[a]{2000}"
        "\"}",
    };

    (void)state;
    for (uint64_t seed = 0; seed < 8; seed++) {
        struct gist_sampling p = by(GIST_CALLS, forms[seed % 2], seed);
        struct why why = { "" };
        struct grammar *g;
        static struct match m[1];

        p.max_tokens = seed % 2 ? 200 : 10;
        say(&p, &a);
        assert_int_equal(a.result.reason, GIST_END_OF_TEXT);
        assert_true((strncmp(a.text, "<tool_call>\n", 12) == 0) == seed % 2);
        assert_int_equal(callform_compile(p.grammar_text, p.grammar_len, &g, &why), 0);
        match_start(m, g);
        assert_int_equal(match_push(m, (uint8_t *)a.text, a.len), 0);
        assert_true(m->ends);
        grammar_free(g);
    }
}

static void refused(const struct gist_sampling *p, enum gist_code code, const char *says)
{
    memset(&a, 0, sizeof(a));
    assert_true(gist_generate(s, p, on_text, &a, &a.result) < 0);
    if (gist_error_code(c) != code || !strstr(gist_error(c), says))
        fail_msg("%d: %s", gist_error_code(c), gist_error(c));
    assert_int_equal(a.n_ids, 0);
}

static void test_cut(void **state)
{
    struct gist_sampling p = by(GIST_JSON_SCHEMA, schema, 3);

    (void)state;
    p.max_tokens = 9;
    refused(&p, GIST_E_BAD_REQUEST, "tokens to be whole; max_tokens is 9");
    p = by(GIST_ANY_TEXT, "", 0);
    p.max_tokens = 9;
    p.ignore_eog = 1;
    say(&p, &a);
    assert_int_equal(a.result.reason, GIST_LENGTH);
    assert_int_equal(a.n_ids, 9);
}

/* What "an answer by this grammar needs N tokens to be whole" says. */
static uint32_t needs(struct gist_sampling p)
{
    const char *at;

    p.max_tokens = 1;
    refused(&p, GIST_E_BAD_REQUEST, "an answer by this grammar needs ");
    at = strstr(gist_error(c), "needs ");
    return (uint32_t)strtoul(at + 6, NULL, 10);
}

/* Whatever the limit, from the smallest on. */
static void test_whole_in_time(void **state)
{
    struct why why = { "" };
    struct grammar *g;
    static struct match m[1];
    uint32_t least = needs(by(GIST_JSON_SCHEMA, schema, 0));

    (void)state;
    assert_in_range(least, 12, 60);
    assert_int_equal(schema_compile(schema, strlen(schema), &g, &why), 0);
    for (uint32_t n = least; n < least + 24; n++) {
        struct gist_sampling p = by(GIST_JSON_SCHEMA, schema, n);

        gist_close(s);
        open_session(NULL);
        p.max_tokens = n;
        say(&p, &a);
        assert_int_equal(a.result.reason, GIST_END_OF_TEXT);
        assert_in_range(a.result.usage.generated_tokens, 1, n);
        match_start(m, g);
        assert_int_equal(match_push(m, (uint8_t *)a.text, a.len), 0);
        assert_true(m->ends);
    }
    grammar_free(g);
    for (uint32_t n = 1; n < 6;
         n++) { /* a text that may go on for ever is one where it is stopped */
        struct gist_sampling p = by(GIST_GBNF, "root ::= (\"a\" [bc])+", n);

        p.max_tokens = 2 * n;
        say(&p, &a);
        assert_int_equal(a.result.reason, GIST_END_OF_TEXT);
        assert_true(a.len > 0 && a.len % 2 == 0);
    }
}

/* What a session's budget leaves is a limit as max_tokens is. */
static void test_whole_in_budget(void **state)
{
    const struct gist_sampling free_one = by(GIST_JSON_SCHEMA, schema, 3);
    struct gist_memory memory = { .size = sizeof(memory) };
    struct gist_policy policy = { .size = sizeof(policy), .memory = &memory };
    uint32_t least = needs(free_one), n_prompt;
    gist_session *small;
    struct gist_usage usage;

    (void)state;
    assert_int_equal(gist_fork(s, NULL, &small), 0);
    assert_int_equal(gist_append_text(small, "x", 1, 0, &usage), 0);
    gist_close(small);
    n_prompt = usage.prompt_tokens - 1;
    for (uint32_t more = 1; more < least + 12; more++) {
        struct gist_sampling p = by(GIST_JSON_SCHEMA, schema, more);

        memory.budget = n_prompt + more;
        gist_close(s);
        assert_int_equal(gist_open(c, &policy, &s), 0);
        assert_int_equal(gist_append_text(s, "What is it? ", 12, 0, NULL), 0);
        if (more < least) {
            refused(&p, GIST_E_CONTEXT_LENGTH_EXCEEDED, "the session has room for");
            continue;
        }
        say(&p, &a);
        assert_int_equal(a.result.reason, GIST_END_OF_TEXT);
        assert_int_equal(a.text[a.len - 1], '}');
    }
}

/* By a kind of sampling that looks at the likeliest alone: what is not allowed must not be it. */
static void test_greedy(void **state)
{
    struct gist_sampling p = by(GIST_GBNF, "root ::= [0-9]{5} \"!\"", 0);

    (void)state;
    p.temperature = 0;
    say(&p, &a);
    assert_int_equal(a.len, 6);
    assert_int_equal(a.text[5], '!');
    p.temperature = 1;
    p.top_k = 1;
    p.repeat_penalty = 1.5f;
    p.repeat_last_n = 64;
    say(&p, &a);
    assert_int_equal(a.len, 6);
}

static void test_refused(void **state)
{
    struct gist_sampling p = by(GIST_GBNF, "root ::= (", 0);
    char *text = calloc(1, 300000);

    (void)state;
    refused(&p, GIST_E_BAD_REQUEST, "line 1, column 11 of the grammar");
    p = by(GIST_GBNF, "", 0);
    refused(&p, GIST_E_BAD_REQUEST, "no rule named root");
    p = by(GIST_JSON_SCHEMA, "{\"type\":\"object\",\"properties\":{\"x\":{\"not\":{}}}}", 0);
    refused(&p, GIST_E_UNSUPPORTED, "/properties/x/not: this keyword is not supported");
    p = by(GIST_JSON_SCHEMA, "{", 0);
    refused(&p, GIST_E_BAD_REQUEST, "not JSON");
    p = by(GIST_CALLS,
           "{\"form\":\"tagged\",\"tools\":[{\"name\":\"f\",\"parameters\":{\"not\":{}}}]}", 0);
    refused(&p, GIST_E_UNSUPPORTED, "the tool f: the schema's /not: this keyword is not supported");
    p = by(GIST_GBNF, "root ::= \"a\"", 0);
    p.ignore_eog = 1;
    refused(&p, GIST_E_BAD_REQUEST, "ignore_eog can't be used");
    p.ignore_eog = 0;
    p.logprobs = 21;
    refused(&p, GIST_E_BAD_REQUEST, "20 are allowed");
    memset(text, ' ', 299999);
    p = by(GIST_GBNF, text, 0);
    refused(&p, GIST_E_LIMIT, "262144 are allowed");
    free(text);
    /* None of it has spoilt the session, nor left anything for the next request. */
    p = by(GIST_GBNF, "root ::= \"a\"", 0);
    say(&p, &a);
    assert_string_equal(a.text, "a");
    p = by(GIST_ANY_TEXT, "", 0);
    p.max_tokens = 3;
    p.ignore_eog = 1;
    say(&p, &a);
    assert_int_equal(a.n_ids, 3);
}

/* Longer than what the arena carries at once: it comes in parts, whose order and cuts must not
 * show. Also without waiting. */
static void on_done(void *arg, int err, const struct gist_result *result)
{
    struct answer *x = arg;

    x->err = err;
    x->done = 1;
    if (result)
        x->result = *result;
}

static void test_long(void **state)
{
    char *text = calloc(1, 260000);
    size_t n = (size_t)sprintf(text, "root ::= last\n");
    struct gist_sampling p;

    (void)state;
    for (unsigned i = 0; n < 250000; i++)
        n += (size_t)sprintf(text + n, "# %u is a comment of some length, and no rule\n", i);
    n += (size_t)sprintf(text + n, "last ::= \"behind it all\"\n");
    p = by(GIST_GBNF, text, 0);
    say(&p, &a);
    assert_string_equal(a.text, "behind it all");

    memset(&a, 0, sizeof(a));
    assert_int_equal(gist_generate_start(s, &p, on_text, on_done, &a, NULL), 0);
    memset(text, 'x', n); /* it was copied */
    while (!a.done)
        assert_true(gist_dispatch(c) >= 0);
    assert_int_equal(a.err, 0);
    assert_string_equal(a.text, "behind it all");
    free(text);
}

/* What Score says of the same tokens, read in one go. */
static void test_logprobs(void **state)
{
    struct gist_sampling p = { .size = sizeof(p),
                               .max_tokens = 30,
                               .temperature = 1.5f,
                               .seed = 5,
                               .repeat_penalty = 1.3f,
                               .repeat_last_n = 64,
                               .ignore_eog = 1,
                               .logprobs = 20,
                               .on_logprob = on_logprob };
    struct gist_score score;
    uint32_t ids[100], *prompt;
    size_t n;

    (void)state;
    assert_int_equal(gist_tokenize(c, "What is it? ", 12, 0, &prompt, &n), 0);
    say(&p, &a);
    assert_int_equal(a.n_logprobs, a.n_ids);
    assert_int_equal(a.n_ids, 30);
    assert_int_equal(a.n_top, 20);
    memcpy(ids, prompt, n * sizeof(*ids));
    memcpy(ids + n, a.ids, 30 * sizeof(*ids));
    assert_int_equal(gist_score_tokens(c, ids, n + 30, NULL, &score), 0);
    for (uint32_t i = 0; i < 30; i++) {
        double sum = 0;

        assert_true(fabsf(score.logprobs[n + i] - a.logprobs[i]) <= 2e-3f);
        for (uint32_t k = 0; k < 20; k++) {
            sum += exp((double)a.tops[i][k]);
            assert_true(k == 0 || a.tops[i][k] <= a.tops[i][k - 1]);
            assert_true(a.logprobs[i] <= a.tops[i][0]);
            if (a.top_ids[i][k] == a.ids[i])
                assert_true(a.tops[i][k] == a.logprobs[i]);
        }
        assert_true(sum <= 1.0001);
    }
    free(score.ids);
    free(score.logprobs);
    free(prompt);
}

static void test_logprobs_alone(void **state)
{
    struct gist_sampling p = by(GIST_GBNF, "root ::= [a-f]{300}", 1);

    (void)state;
    p.on_logprob = on_logprob;
    say(&p, &a);
    assert_int_equal(a.n_logprobs, 0); /* nobody asked */
    p.flags = GIST_SET_LOGPROBS;
    p.stop = (const char *[]){ "fade" };
    p.n_stop = 1;
    say(&p, &a);
    assert_int_equal(a.n_logprobs, a.n_ids);
    assert_int_equal(a.n_top, 0);
    for (uint32_t i = 0; i < a.n_ids; i++)
        assert_true(a.logprobs[i] < 0); /* the model's, not those of the few that are allowed */
}

/* Two with the same grammar and one without, at once. */
static void test_together(void **state)
{
    static struct answer all[3];
    gist_session *other[3];
    struct gist_sampling p = by(GIST_JSON_SCHEMA, schema, 1), plain = by(GIST_ANY_TEXT, "", 1);

    (void)state;
    memset(all, 0, sizeof(all));
    plain.max_tokens = 40;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(gist_fork(s, NULL, &other[i]), 0);
        assert_int_equal(
            gist_generate_start(other[i], i == 1 ? &plain : &p, on_text, on_done, &all[i], NULL),
            0);
    }
    while (!all[0].done || !all[1].done || !all[2].done)
        assert_true(gist_dispatch(c) >= 0);
    assert_string_equal(all[0].text, all[2].text);
    say(&p, &a);
    assert_string_equal(a.text, all[0].text);
    for (int i = 0; i < 3; i++)
        gist_close(other[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_gbnf, open_session, close_session),
        cmocka_unit_test_setup_teardown(test_end_of_text, open_session, close_session),
        cmocka_unit_test_setup_teardown(test_schema, open_session, close_session),
        cmocka_unit_test_setup_teardown(test_calls, open_session, close_session),
        cmocka_unit_test_setup_teardown(test_cut, open_session, close_session),
        cmocka_unit_test_setup_teardown(test_whole_in_time, open_session, close_session),
        cmocka_unit_test_setup_teardown(test_whole_in_budget, open_session, close_session),
        cmocka_unit_test_setup_teardown(test_greedy, open_session, close_session),
        cmocka_unit_test_setup_teardown(test_refused, open_session, close_session),
        cmocka_unit_test_setup_teardown(test_long, open_session, close_session),
        cmocka_unit_test_setup_teardown(test_logprobs, open_session, close_session),
        cmocka_unit_test_setup_teardown(test_logprobs_alone, open_session, close_session),
        cmocka_unit_test_setup_teardown(test_together, open_session, close_session),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
