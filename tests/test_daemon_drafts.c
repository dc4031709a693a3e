/* tests/test_daemon_drafts.c - tokens that are guessed ahead, in the real daemon. Would catch: an
 * answer that is not, id by id and log-probability by log-probability, the one without guesses;
 * that ends elsewhere, or says that it stands on something else; a session that goes on, is forked,
 * rewound or cancelled and is not the same then; pages of guesses that stay; segments that are
 * compressed earlier or later; guesses beside which others' answers change; a sampled distribution
 * that leans to what was guessed; guesses where they are switched off, or none where they pay.
 *
 * Each session is played with guesses and without, and all that can be seen of it is compared.
 */
#include "tests/support/daemon_fixture.h"
#include "tests/support/gguf_build.h"
#include "tests/support/memory_of.h"
#include "tests/support/sanitized.h"
#include "tests/support/scratch.h"
#include "tests/support/tiny_adapters.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SEGMENT 64u
#define BYTE_0  3u /* the tiny models' id of byte 0 */
#define MOST    1100u
#define TOPS    3u

static struct daemon_fixture d;
static gist_conn *c;
static uint64_t n_drafted, n_accepted; /* by what was played with guesses */

/* --- an answer ---------------------------------------------------------------------------------
 */

struct answer {
    char text[16384];
    size_t len;
    uint32_t ids[MOST], n_ids, n_logprobs, top_ids[MOST][TOPS];
    float logprobs[MOST], tops[MOST][TOPS];
    struct gist_result result;
    int err;
    bool done;
    uint32_t cancel_at; /* ids behind which it is cancelled; 0: never */
    uint64_t request;
};

static int on_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    struct answer *a = arg;

    assert_true(a->len + len < sizeof(a->text) && a->n_ids + n_ids <= MOST);
    memcpy(a->text + a->len, text, len);
    a->len += len;
    if (n_ids > 0)
        memcpy(a->ids + a->n_ids, ids, n_ids * sizeof(*ids));
    a->n_ids += (uint32_t)n_ids;
    if (a->cancel_at > 0 && a->n_ids >= a->cancel_at) {
        a->cancel_at = 0;
        assert_int_equal(gist_cancel(c, a->request), 0);
    }
    return 0;
}

static void on_logprob(void *arg, const struct gist_logprob *token)
{
    struct answer *a = arg;

    assert_true(a->n_logprobs < MOST && token->n_top == TOPS);
    a->logprobs[a->n_logprobs] = token->logprob;
    memcpy(a->tops[a->n_logprobs], token->top_logprobs, sizeof(a->tops[0]));
    memcpy(a->top_ids[a->n_logprobs++], token->top_ids, sizeof(a->top_ids[0]));
}

static void on_done(void *arg, int err, const struct gist_result *result)
{
    struct answer *a = arg;

    a->err = err;
    a->done = true;
    if (err == 0)
        a->result = *result;
}

static void count(const struct gist_usage *u, uint32_t draft)
{
    assert_true(u->accepted_tokens <= u->drafted_tokens);
    assert_true(u->accepted_tokens <= u->generated_tokens);
    if (draft == 0)
        assert_int_equal(u->drafted_tokens, 0);
    n_drafted += u->drafted_tokens;
    n_accepted += u->accepted_tokens;
}

static void say(gist_session *s, const struct gist_sampling *sampling, uint32_t draft,
                struct answer *a)
{
    struct gist_sampling p = *sampling;

    p.flags |= GIST_SET_DRAFT;
    p.draft = draft;
    /* Of every answer: a key that is off by its last bit shows here, long before a token does. */
    p.logprobs = TOPS;
    p.on_logprob = on_logprob;
    memset(a, 0, sizeof(*a));
    a->err = gist_generate(s, &p, on_text, a, &a->result);
    if (a->err == 0)
        count(&a->result.usage, draft);
}

static void same_usage(const struct gist_usage *a, const struct gist_usage *b)
{
    assert_int_equal(a->prompt_tokens, b->prompt_tokens);
    assert_int_equal(a->computed_tokens, b->computed_tokens);
    assert_int_equal(a->generated_tokens, b->generated_tokens);
    assert_int_equal(a->raw_tokens, b->raw_tokens);
    assert_int_equal(a->gist_tokens, b->gist_tokens);
    assert_int_equal(a->gists, b->gists);
    assert_int_equal(a->hydrated_tokens, b->hydrated_tokens);
    assert_int_equal(a->missed_tokens, b->missed_tokens);
    assert_memory_equal(a->at_ratio, b->at_ratio, sizeof(a->at_ratio));
}

static void same_answer(const struct answer *a, const struct answer *b)
{
    assert_int_equal(a->err, b->err);
    assert_int_equal(a->n_ids, b->n_ids);
    assert_memory_equal(a->ids, b->ids, a->n_ids * sizeof(*a->ids));
    assert_int_equal(a->len, b->len);
    assert_memory_equal(a->text, b->text, a->len);
    assert_int_equal(a->n_logprobs, b->n_logprobs);
    assert_memory_equal(a->logprobs, b->logprobs, a->n_logprobs * sizeof(*a->logprobs));
    assert_memory_equal(a->tops, b->tops, a->n_logprobs * sizeof(*a->tops));
    assert_memory_equal(a->top_ids, b->top_ids, a->n_logprobs * sizeof(*a->top_ids));
    assert_int_equal(a->result.reason, b->result.reason);
    same_usage(&a->result.usage, &b->result.usage);
}

/* --- a session that is played ------------------------------------------------------------------
 */

/* A model that nearly goes by the last token alone, and so comes around again after some time; but
 * not quite, and then it goes elsewhere. */
static const char *model_path(void)
{
    static char path[SCRATCH_PATH_MAX];
    struct gguf_build_shape shape = gguf_build_tiny();
    const uint64_t dims[] = { shape.n_head * shape.head_dim, shape.n_embd };
    struct gguf_build *b;

    if (path[0])
        return path;
    shape.n_ctx = 1024;
    shape.std = 0.5f;
    b = gguf_build_model(&shape);
    for (uint32_t i = 0; i < shape.n_layer; i++) {
        char name[64];

        (void)snprintf(name, sizeof(name), "blk.%u.attn_output.weight", i);
        gguf_build_random(b, name, shape.attn, 2, dims, 0, 0.002f, i);
    }
    gguf_build_write(b, scratch_path(path, "around.gguf"));
    gguf_build_free(b);
    return path;
}

/* A text that repeats itself, with changes: what can be guessed, and what can't. */
static void fill(uint32_t *ids, uint32_t n)
{
    unsigned seed = 7;

    for (uint32_t i = 0; i < n; i++)
        ids[i] = BYTE_0 + 97 + (i % 23 * 7 + (rand_r(&seed) % 12 == 0)) % 26;
}

struct played {
    struct answer answers[4];
    uint32_t n_tokens, pages, gist_pages;
};

static gist_session *open_session(const struct gist_memory *memory, unsigned flags)
{
    struct gist_policy p = {
        .size = sizeof(p), .segment = SEGMENT, .memory = memory, .flags = flags
    };
    gist_session *s;

    if (gist_open(c, &p, &s) < 0)
        fail_msg("%s", gist_error(c));
    return s;
}

static void look(const gist_session *s, struct played *ret)
{
    struct gist_stats st;

    assert_int_equal(gist_stats(c, &st), 0);
    for (uint32_t i = 0; i < st.n_sessions; i++) {
        if (st.sessions[i].id != gist_session_id(s))
            continue;
        ret->n_tokens = st.sessions[i].n_tokens;
        ret->pages = st.sessions[i].pages;
        ret->gist_pages = st.sessions[i].gist_pages;
    }
}

/* An answer, another one behind more text, one of a fork, and one behind a rewind. */
static void play(const struct gist_memory *memory, unsigned flags, uint32_t n_prompt,
                 const struct gist_sampling *p, uint32_t draft, struct played *ret)
{
    gist_session *s = open_session(memory, flags), *t;
    uint32_t ids[MOST];

    memset(ret, 0, sizeof(*ret));
    fill(ids, n_prompt);
    assert_int_equal(gist_append_tokens(s, ids, n_prompt, NULL), 0);
    say(s, p, draft, &ret->answers[0]);
    look(s, ret);
    if (gist_append_tokens(s, ids, 5, NULL) == 0) { /* else there is no room for it */
        say(s, p, draft, &ret->answers[1]);
        if (gist_fork(s, NULL, &t) == 0) {
            say(t, p, draft, &ret->answers[2]);
            gist_close(t);
        }
        assert_int_equal(gist_rewind(s, n_prompt + 2), 0);
        say(s, p, draft, &ret->answers[3]);
    }
    gist_close(s);
}

static void compare(const struct gist_memory *memory, unsigned flags, uint32_t n_prompt,
                    const struct gist_sampling *p)
{
    static const uint32_t drafts[] = { 15, 3, GIST_DRAFT_AUTO };
    static struct played plain, drafted;

    play(memory, flags, n_prompt, p, 0, &plain);
    for (size_t i = 0; i < sizeof(drafts) / sizeof(drafts[0]); i++) {
        play(memory, flags, n_prompt, p, drafts[i], &drafted);
        for (int k = 0; k < 4; k++)
            same_answer(&plain.answers[k], &drafted.answers[k]);
        assert_int_equal(plain.n_tokens, drafted.n_tokens);
        assert_int_equal(plain.pages, drafted.pages);
        assert_int_equal(plain.gist_pages, drafted.gist_pages);
    }
}

static struct gist_sampling greedy(uint32_t max_tokens)
{
    return (struct gist_sampling){ .size = sizeof(struct gist_sampling),
                                   .max_tokens = max_tokens,
                                   .ignore_eog = 1 };
}

static struct gist_sampling sampled(uint32_t max_tokens, float temperature, uint64_t seed)
{
    struct gist_sampling p = greedy(max_tokens);

    p.temperature = temperature;
    p.seed = seed;
    return p;
}

/* Some guesses were right and some wrong since the last call: nothing was compared else. */
static void both_ways(void)
{
    assert_true(n_accepted > 10);
    assert_true(n_drafted > n_accepted + 10);
    n_drafted = n_accepted = 0;
}

/* --- tests --------------------------------------------------------------------------------------
 */

static void start(const char *const *more)
{
    const char *args[24] = { "--store", "none", "--prefix-cache=no", "--model", model_path() };
    size_t n = 5;

    for (; more && *more; more++)
        args[n++] = *more;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    n_drafted = n_accepted = 0;
}

static void stop(void)
{
    assert_true(daemon_fixture_all_free(c, DAEMON_FIXTURE_PATIENCE_MS));
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

static int start_plain(void **state)
{
    (void)state;
    start(NULL);
    return 0;
}

/* Adapters are the fixture's own model's. */
static int start_adapted(void **state)
{
    const char *args[] = { "--model", daemon_fixture_model(DAEMON_FIXTURE_TINY), "--adapter",
                           tiny_adapters(), NULL };

    (void)state;
    start(args);
    return 0;
}

/* With the fewest rows that a step may have. */
static int start_narrow(void **state)
{
    const char *args[] = { "--model",
                           daemon_fixture_model(DAEMON_FIXTURE_TINY),
                           "--adapter",
                           tiny_adapters(),
                           "--batch-tokens",
                           "16",
                           NULL };

    (void)state;
    start(args);
    return 0;
}

static int stop_plain(void **state)
{
    (void)state;
    stop();
    return 0;
}

static void test_sampling(void **state)
{
    struct gist_sampling p = greedy(200);

    (void)state;
    compare(NULL, 0, 40, &p);
    both_ways();
    p.repeat_penalty = 1.3f;
    p.repeat_last_n = 64;
    compare(NULL, 0, 90, &p);
    for (uint64_t seed = 1; seed <= 4; seed++) {
        p = sampled(120, seed % 2 ? 0.2f : 1, seed);
        p.top_k = seed == 3 ? 5 : 0;
        p.top_p = 0.9f;
        compare(NULL, 0, 60, &p);
    }
    both_ways();
}

/* Where a guess is cut. */
static void test_max_tokens(void **state)
{
    struct gist_sampling p = greedy(60);

    (void)state;
    for (; p.max_tokens < 80; p.max_tokens += 1 + p.max_tokens % 3)
        compare(NULL, 0, 50, &p);
    both_ways();
}

/* What the answer says anyway ends it, wherever that stands in a guess. */
static void test_stops(void **state)
{
    static struct answer all;
    gist_session *s = open_session(NULL, 0);
    struct gist_sampling p = greedy(120);
    uint32_t ids[50];

    (void)state;
    fill(ids, 50);
    assert_int_equal(gist_append_tokens(s, ids, 50, NULL), 0);
    say(s, &p, 0, &all);
    gist_close(s);
    for (size_t at = 1; at + 8 < all.len; at += 9) {
        char stop[2][8];
        const char *stops[2] = { stop[0], stop[1] };

        for (size_t i = 0; i < 2; i++) {
            memcpy(stop[i], all.text + at + i, 4);
            stop[i][4] = '\0';
        }
        if (strlen(stop[0]) != 4 || strlen(stop[1]) != 4)
            continue; /* a zero byte */
        p.stop = stops;
        p.n_stop = 2;
        compare(NULL, 0, 50, &p);
    }
    assert_true(n_accepted > 0);
}

static void test_grammars(void **state)
{
    static const char *const grammars[] = {
        "root ::= (\"ab\" [cd])+", "root ::= \"x\" (\"abc\" | \"abd\" | \"q\"){3,40} \"y\"",
        "root ::= [a-c]{10,60}"
    };

    (void)state;
    for (uint64_t seed = 0; seed < 9; seed++) {
        struct gist_sampling p = sampled(90, seed % 3 ? 0.8f : 0, seed);

        p.ignore_eog = 0;
        p.grammar = GIST_GBNF;
        p.grammar_text = grammars[seed / 3];
        p.grammar_len = strlen(p.grammar_text);
        compare(NULL, 0, 30, &p);
    }
    both_ways();
    for (uint64_t seed = 0; seed < 3; seed++) {
        struct gist_sampling p = sampled(150, 1, seed);

        p.ignore_eog = 0;
        p.grammar = GIST_JSON_SCHEMA;
        p.grammar_text = "{\"type\":\"array\",\"minItems\":4,\"maxItems\":9,\"items\":{\"type\":"
                         "\"object\",\"properties\":{\"name\":{\"enum\":[\"one\",\"two\"]},\"n\":"
                         "{\"type\":\"boolean\"}},\"required\":[\"name\",\"n\"]}}";
        p.grammar_len = strlen(p.grammar_text);
        compare(NULL, 0, 30, &p);
    }
    both_ways();
}

/* Segments are closed, compressed and thinned while the answer is written. */
static void test_memories(void **state)
{
    static const struct gist_memory memories[] = {
        MEMORY_OF(GIST_NONE, 0, 20, NULL, 0, 0),
        MEMORY_OF(GIST_FINE_KV, 4, 0, NULL, 0, 0),
        MEMORY_OF(GIST_SELECT, 8, 0, NULL, 0, 0),
        MEMORY_OF(GIST_SELECT_REREAD, 4, 10, NULL, 200, 0),
        MEMORY_OF(GIST_FIT, 4, 0, NULL, 0, 0),
        MEMORY_OF(GIST_FIT, 4, 7, NULL, 300, 0),
        MEMORY_OF(GIST_FINE_KV, 2, 0, NULL, 256, GIST_LATE),
        MEMORY_OF(GIST_FINE_KV, 2, 0, NULL, 200, GIST_FIXED),
        MEMORY_OF(GIST_FULL, 0, 0, NULL, 170, 0),
    };
    struct gist_sampling p = greedy(250), q = sampled(250, 0.2f, 3);

    (void)state;
    for (size_t i = 0; i < sizeof(memories) / sizeof(memories[0]); i++) {
        compare(&memories[i], 0, 100 + (uint32_t)i, &p);
        compare(&memories[i], 0, 60, &q);
        both_ways();
    }
}

/* Gists that a trained adapter makes, also among the tokens: rows of a guess, too. The model is one
 * that never comes around, so that a grammar of few letters has to see to it. */
static void test_adapters(void **state)
{
    static const struct gist_memory memories[] = {
        MEMORY_OF(GIST_FULL, 8, 0, "fine", 0, 0),
        MEMORY_OF(GIST_FULL, 8, 0, "among", 0, 0),
        MEMORY_OF(GIST_FULL, 4, 0, "coarse", 220, 0),
        MEMORY_OF(GIST_FULL, 8, 5, "rec", 0, 0),
    };
    struct gist_sampling p = sampled(200, 0.8f, 4);

    (void)state;
    p.ignore_eog = 0;
    p.grammar = GIST_GBNF;
    p.grammar_text = "root ::= [ab]{200,300}";
    p.grammar_len = strlen(p.grammar_text);
    for (size_t i = 0; i < sizeof(memories) / sizeof(memories[0]); i++) {
        compare(&memories[i], 0, 100 + (uint32_t)i, &p);
        both_ways();
    }
}

/* A guess brings the rows of the gists among its tokens along, and a step has room for both: else
 * it fails, with the answers of all who decode in it. */
static void test_narrow(void **state)
{
    const struct gist_memory among = MEMORY_OF(GIST_FULL, 8, 0, "among", 0, 0);
    struct gist_sampling p = sampled(60, 0.8f, 4);
    static struct answer a;
    gist_session *s;
    uint32_t ids[50];

    (void)state;
    p.ignore_eog = 0;
    p.grammar = GIST_GBNF;
    p.grammar_text = "root ::= [a]{60,300}";
    p.grammar_len = strlen(p.grammar_text);
    fill(ids, 50);
    s = open_session(&among, 0);
    assert_int_equal(gist_append_tokens(s, ids, 50, NULL), 0);
    say(s, &p, 15, &a);
    if (a.err < 0)
        fail_msg("%s", gist_error(c));
    assert_int_equal(a.n_ids, 60);
    assert_true(n_accepted > 20);
    gist_close(s);
}

/* Automatic memory: it is compressed late, and old segments come back while the answer is written.
 */
static void test_automatic(void **state)
{
    const struct gist_memory m = { .size = sizeof(m), .budget = 400, .flags = GIST_AUTO };
    const struct gist_memory one = {
        .size = sizeof(one), .budget = 400, .hydrate = 2, .flags = GIST_AUTO
    };
    struct gist_sampling p = greedy(200), q = sampled(200, 0.2f, 5);

    (void)state;
    compare(&m, 0, 700, &p);
    compare(&m, 0, 380, &p);
    compare(&one, 0, 800, &p);
    compare(&one, 0, 800, &q);
    both_ways();
}

/* The session's end, and with a client's few pages theirs. */
static void test_full(void **state)
{
    static const char *const few[] = { "--client-kv-bytes", "128K", NULL };
    struct gist_sampling p = greedy(0);
    static struct played played;

    (void)state;
    for (uint32_t n = 900; n < 960; n += 19)
        compare(NULL, 0, n, &p);
    play(NULL, 0, 900, &p, 15, &played);
    assert_int_equal(played.answers[0].result.reason, GIST_CONTEXT_FULL);
    both_ways();
    stop();
    start(few);
    for (uint32_t n = 100; n < 116; n += 5)
        compare(NULL, 0, n, &p);
    play(NULL, 0, 100, &p, 15, &played);
    assert_int_equal(played.answers[0].result.reason, GIST_POOL_FULL);
    both_ways();
}

/* A session is where its client saw it, whenever it was cancelled. */
static void test_cancel(void **state)
{
    static struct answer all, first, rest;
    struct gist_sampling p = greedy(300), q = greedy(300);
    uint32_t ids[50], n_cut = 0;

    (void)state;
    q.flags = GIST_SET_DRAFT;
    q.draft = 15;
    fill(ids, 50);
    for (uint32_t at = 0; at < 60; at += 3) {
        gist_session *s = open_session(NULL, 0);

        assert_int_equal(gist_append_tokens(s, ids, 50, NULL), 0);
        if (at == 0) {
            say(s, &p, 0, &all);
            gist_close(s);
            continue;
        }
        memset(&first, 0, sizeof(first));
        first.cancel_at = at;
        assert_int_equal(gist_generate_start(s, &q, on_text, on_done, &first, &first.request), 0);
        while (!first.done)
            assert_true(gist_dispatch(c) >= 0);
        assert_true(first.err == -ECANCELED || first.n_ids == 300);
        assert_memory_equal(first.ids, all.ids, first.n_ids * sizeof(*all.ids));
        if (first.n_ids < 300) {
            n_cut++;
            q.max_tokens = 300 - first.n_ids;
            say(s, &q, 15, &rest);
            assert_int_equal(rest.n_ids, q.max_tokens);
            assert_memory_equal(rest.ids, all.ids + first.n_ids, rest.n_ids * sizeof(*all.ids));
            q.max_tokens = 300;
        }
        gist_close(s);
    }
    assert_true(n_cut > 0 || SANITIZED);
}

/* Beside each other, and beside one that reads: each as alone. */
static void test_together(void **state)
{
    enum { N = 6 };
    static struct answer alone[N], all[N], reading;
    gist_session *s[N], *reader = open_session(NULL, 0);
    struct gist_sampling p[N];
    uint32_t ids[1000];

    (void)state;
    fill(ids, 1000);
    for (int i = 0; i < N; i++) {
        p[i] = i % 2 ? sampled(150, 0.2f, (uint64_t)i) : greedy(150);
        s[i] = open_session(NULL, 0);
        assert_int_equal(gist_append_tokens(s[i], ids + i, 41 + (uint32_t)i, NULL), 0);
        assert_int_equal(gist_rewind(s[i], 40 + (uint32_t)i), 0); /* as below */
        say(s[i], &p[i], 0, &alone[i]);
        assert_int_equal(gist_rewind(s[i], 40 + (uint32_t)i), 0);
        p[i].flags = GIST_SET_DRAFT;
        p[i].draft = i == 5 ? GIST_DRAFT_AUTO : 15;
        p[i].logprobs = TOPS;
        p[i].on_logprob = on_logprob;
    }
    memset(all, 0, sizeof(all));
    memset(&reading, 0, sizeof(reading));
    for (int i = 0; i < N; i++)
        assert_int_equal(gist_generate_start(s[i], &p[i], on_text, on_done, &all[i], NULL), 0);
    assert_int_equal(gist_append_tokens_start(reader, ids, 1000, on_done, &reading, NULL), 0);
    for (int i = 0; i < N; i++) {
        while (!all[i].done || !reading.done)
            assert_true(gist_dispatch(c) >= 0);
        same_answer(&alone[i], &all[i]);
        count(&all[i].result.usage, p[i].draft);
        gist_close(s[i]);
    }
    assert_int_equal(reading.err, 0);
    gist_close(reader);
    both_ways();
}

/* Strings of two letters under a grammar, by two sets of seeds, with guesses and without: were
 * they drawn from the same distribution? About half of the guesses are right. */
static void test_distribution(void **state)
{
    enum { N = SANITIZED ? 300 : 1500, LETTERS = 4, CELLS = 1 << LETTERS };
    const char *grammar = "root ::= [ab]+";
    double n_of[2][CELLS] = { { 0 } }, chi = 0, n = 0;
    gist_session *s = open_session(NULL, 0);
    static struct answer a;
    uint32_t ids[41];

    (void)state;
    for (uint32_t i = 0; i < 41; i++)
        ids[i] = BYTE_0 + (i % 3 ? 'a' : 'b');
    assert_int_equal(gist_append_tokens(s, ids, 41, NULL), 0);
    for (uint32_t i = 0; i < 2 * N; i++) {
        struct gist_sampling p = sampled(LETTERS + 1, 1, 1000 + i);
        uint32_t cell = 0;

        p.ignore_eog = 0;
        p.grammar = GIST_GBNF;
        p.grammar_text = grammar;
        p.grammar_len = strlen(grammar);
        say(s, &p, i % 2 ? 15 : 0, &a);
        assert_int_equal(gist_rewind(s, 41), 0);
        if (a.len < LETTERS)
            continue;
        for (uint32_t k = 0; k < LETTERS; k++)
            cell = 2 * cell + (a.text[k] == 'b');
        n_of[i % 2][cell]++;
    }
    gist_close(s);
    both_ways();
    for (uint32_t i = 0; i < CELLS; i++) {
        double sum = n_of[0][i] + n_of[1][i], less = n_of[0][i] - n_of[1][i];

        chi += sum > 0 ? less * less / sum : 0;
        n += sum;
    }
    assert_true(n > 5 * CELLS); /* of fewer it says nothing: short ones are left out */
    assert_true(chi < 37.7);    /* 15 degrees of freedom: one of a thousand is larger */
}

/* What the daemon is told, and what is asked of it. */
static void test_settings(void **state)
{
    static const char *const off[] = { "--draft", "off", NULL }, *const two[] = { "--draft", "2",
                                                                                  NULL };
    struct gist_sampling p = greedy(100), q = greedy(100);
    gist_session *s;
    static struct answer a;
    uint32_t ids[50];
    struct gist_stats st;

    (void)state;
    fill(ids, 50);
    s = open_session(NULL, 0);
    assert_int_equal(gist_append_tokens(s, ids, 50, NULL), 0);
    q.draft = 16;
    assert_int_equal(gist_generate(s, &q, NULL, NULL, NULL), -EINVAL);
    assert_string_equal(gist_error(c), "16 tokens are to be guessed ahead; 15 at most are");
    say(s, &p, 15, &a);
    assert_int_equal(gist_stats(c, &st), 0);
    assert_int_equal(st.drafted_tokens_total, a.result.usage.drafted_tokens);
    assert_int_equal(st.accepted_tokens_total, a.result.usage.accepted_tokens);
    /* Rows are the owner's, right or wrong. */
    assert_true(st.owners[0].rows >=
                50 + 99 + a.result.usage.drafted_tokens - a.result.usage.accepted_tokens);
    assert_true(st.steps_total <= 110u - a.result.usage.accepted_tokens);
    gist_close(s);
    stop();
    start(off);
    s = open_session(NULL, 0);
    assert_int_equal(gist_append_tokens(s, ids, 50, NULL), 0);
    say(s, &p, 15, &a);
    assert_int_equal(a.result.usage.drafted_tokens, 0);
    gist_close(s);
    stop();
    start(two);
    s = open_session(NULL, 0);
    assert_int_equal(gist_append_tokens(s, ids, 50, NULL), 0);
    assert_int_equal(gist_generate(s, &p, NULL, NULL, &a.result), 0); /* as the daemon does */
    assert_true(a.result.usage.drafted_tokens > 0);
    assert_true(a.result.usage.drafted_tokens <= 2 * 99);
    gist_close(s);
}

/* The other architectures, and every format of context memory. */
static void test_models(void **state)
{
    static const char *const models[][5] = {
        { "--model", "tests/data/tiny_qwen2.gguf", "--kv-type", "f16", NULL },
        { "--model", "tests/data/tiny_llama31.gguf", "--kv-type", "q8_0", NULL },
        { "--model", "tests/data/tiny_smollm2.gguf", "--kv-type", "f32", NULL },
    };
    const struct gist_memory fit = MEMORY_OF(GIST_FIT, 4, 0, NULL, 0, 0);
    struct gist_sampling p = greedy(120), q = sampled(60, 0.5f, 2);

    (void)state;
    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
        const char *args[16] = { "--store", "none", "--prefix-cache=no" };

        memcpy(args + 3, models[i], sizeof(models[i]));
        daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
        c = daemon_fixture_connect(&d);
        compare(NULL, 0, 60, &p);
        compare(&fit, 0, 60, &p);
        compare(NULL, 0, 60, &q);
        stop();
    }
    assert_true(n_accepted > 0);
}

/* A model that writes: its own words, and a text that is to be written again. */
static void test_real_model(void **state)
{
    static const char text[] =
        "The parts of the lamp are the foot, the arm, the shade and the cable. The foot is made of "
        "iron. The arm is made of brass. The shade is made of paper.\n\nThe same again:\n\nThe "
        "parts of the lamp are the";
    const char *model = getenv("GISTD_TEST_MODEL");
    const char *args[] = { "--model",           model,        "--store", "none",
                           "--prefix-cache=no", "--kv-bytes", "64M",     NULL };
    static struct answer plain, drafted;
    gist_session *s;

    (void)state;
    if (!model) {
        (void)printf("GISTD_TEST_MODEL is not set: no real model\n");
        skip();
    }
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    n_drafted = n_accepted = 0;
    s = open_session(NULL, 0);
    for (int i = 0; i < 2; i++) {
        struct gist_sampling p = i ? sampled(40, 0.5f, 1) : greedy(60), one = greedy(1);
        struct gist_usage u;

        assert_int_equal(gist_append_text(s, text, sizeof(text) - 1, 0, &u), 0);
        say(s, &one, 0, &plain);
        assert_int_equal(gist_rewind(s, u.prompt_tokens), 0); /* all three begin behind this */
        say(s, &p, 0, &plain);
        assert_int_equal(gist_rewind(s, u.prompt_tokens), 0);
        say(s, &p, 15, &drafted);
        same_answer(&plain, &drafted);
        assert_int_equal(gist_rewind(s, u.prompt_tokens), 0);
        say(s, &p, GIST_DRAFT_AUTO, &drafted);
        same_answer(&plain, &drafted);
        assert_int_equal(gist_rewind(s, 0), 0);
    }
    gist_close(s);
    assert_true(n_accepted > 20);
    stop();
}

#define PLAIN(test) cmocka_unit_test_setup_teardown(test, start_plain, stop_plain)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLAIN(test_sampling),
        PLAIN(test_max_tokens),
        PLAIN(test_stops),
        PLAIN(test_grammars),
        PLAIN(test_memories),
        cmocka_unit_test_setup_teardown(test_adapters, start_adapted, stop_plain),
        cmocka_unit_test_setup_teardown(test_narrow, start_narrow, stop_plain),
        PLAIN(test_automatic),
        PLAIN(test_full),
        PLAIN(test_cancel),
        PLAIN(test_together),
        PLAIN(test_distribution),
        PLAIN(test_settings),
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_real_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
