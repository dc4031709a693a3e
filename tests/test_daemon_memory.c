/* tests/test_daemon_memory.c - sessions and scores whose old context is compressed, in the real
 * daemon. Would catch: answers that depend on how a text was cut into appends or batches, a segment
 * that is compressed twice, too early or never, a session that goes back into a compressed segment
 * and is another one then, memory that grows with the text, usage that does not say what is there,
 * a score that its budget can't hold.
 */

#include "tests/support/answered.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/nasty.h"
#include "tests/support/tolerance.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SEGMENT 64u
#define BYTE_0  3u /* the model's id of byte 0 */

/* Without a store, which has pages for a moment after their sessions gave them back, and gives
 * sessions what was read before: tests/test_daemon_restart.c has that. */
static const char *const no_store[] = { "--store", "none", "--host-bytes", "none", NULL };

static struct daemon_fixture d;

static const struct gist_memory memories[] = {
    { sizeof(struct gist_memory), GIST_NONE, 0, 0, 0, NULL, 0, 0, 0 },
    { sizeof(struct gist_memory), GIST_FINE_KV, 4, 0, 0, NULL, 0, 0, 0 },
    { sizeof(struct gist_memory), GIST_FINE_KV, 16, GIST_NO_SINKS, 37, NULL, 0, 0, 0 },
    { sizeof(struct gist_memory), GIST_SELECT, 8, 0, 0, NULL, 0, 0, 0 },
    { sizeof(struct gist_memory), GIST_SELECT, 2, 3, 100, NULL, 0, 0, 0 },
    { sizeof(struct gist_memory), GIST_FINE_KV, 2, 0, 0, NULL, 200, 0, 0 },
    { sizeof(struct gist_memory), GIST_SELECT, 4, 0, 0, NULL, 256, GIST_LATE, 0 },
};
#define N_MEMORIES (sizeof(memories) / sizeof(*memories))

/* See docs/memory.md, "A session is its ids". */
static bool goes_back(const struct gist_memory *m)
{
    return m->keep_tail == 0 && m->budget == 0;
}

static void fill(uint32_t *ids, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = BYTE_0 + (uint32_t)rand_r(&seed) % 90 + 32;
}

static gist_session *open_session(gist_conn *c, const struct gist_memory *memory)
{
    struct gist_policy p = { .size = sizeof(p), .segment = SEGMENT, .memory = memory };
    gist_session *s;

    assert_int_equal(gist_open(c, &p, &s), 0);
    return s;
}

static void generate(gist_session *s, uint32_t n, struct answered *ret)
{
    assert_int_equal(answered_greedy(s, n, ret), 0);
}

static void score(gist_conn *c, const uint32_t *ids, size_t n, uint32_t window,
                  const struct gist_memory *memory, struct gist_score *ret)
{
    struct gist_score_opts o = {
        .size = sizeof(o), .window = window, .segment = SEGMENT, .memory = memory
    };

    if (gist_score_tokens(c, ids, n, &o, ret) < 0)
        fail_msg("%s", gist_error(c));
    assert_int_equal(ret->n, n);
}

static void free_score(struct gist_score *s)
{
    free(s->ids);
    free(s->logprobs);
}

/* --- scores ----------------------------------------------------------------------------------- */

static void full_is_nothing_special(void **state)
{
    static const struct gist_memory full = { .size = sizeof(full), .ratio = 8 };
    gist_conn *c = daemon_fixture_connect(&d);
    struct gist_score a, b;
    uint32_t ids[500];

    (void)state;
    fill(ids, 500, 1);
    score(c, ids, 500, 0, NULL, &a);
    score(c, ids, 500, 0, &full, &b);
    assert_memory_equal(a.logprobs + 1, b.logprobs + 1, 499 * sizeof(float));
    assert_int_equal(b.usage.raw_tokens, 500);
    assert_int_equal(b.usage.gist_tokens + b.usage.gists, 0);
    free_score(&a);
    free_score(&b);
    gist_disconnect(c);
}

/* Where earlier segments are forgotten each scores as a window of its own. */
static void none_is_each_segment_alone(void **state)
{
    gist_conn *c = daemon_fixture_connect(&d);
    struct gist_score a, b;
    uint32_t ids[500];

    (void)state;
    fill(ids, 500, 2);
    score(c, ids, 500, 500, &memories[0], &a);
    score(c, ids, 500, SEGMENT, NULL, &b);
    for (size_t i = 0; i < 500; i++) {
        assert_int_equal(isnan(a.logprobs[i]) != 0, i == 0);
        if (i % SEGMENT)
            assert_memory_equal(&a.logprobs[i], &b.logprobs[i], sizeof(float));
    }
    assert_int_equal(a.usage.gist_tokens, 500 / SEGMENT * SEGMENT);
    assert_int_equal(a.usage.gists, 0);
    assert_int_equal(a.usage.raw_tokens, 500 % SEGMENT);
    free_score(&a);
    free_score(&b);
    gist_disconnect(c);
}

/* The same bits whatever the batches: another daemon, whose steps are small. */
static void scores_do_not_depend_on_batches(void **state)
{
    static const char *const small[] = { "--batch-tokens", "16", "--kv-type", "f32", NULL };
    static const char *const large[] = { "--batch-tokens", "512", "--kv-type", "f32", NULL };
    static struct gist_score a[N_MEMORIES], b[N_MEMORIES];
    struct daemon_fixture other;
    uint32_t ids[700];

    (void)state;
    fill(ids, 700, 3);
    daemon_fixture_stop(&d);
    for (int k = 0; k < 2; k++) {
        gist_conn *c;

        daemon_fixture_start(&other, DAEMON_FIXTURE_TINY, k ? large : small);
        c = daemon_fixture_connect(&other);
        for (size_t i = 0; i < N_MEMORIES; i++)
            score(c, ids, 700, 0, &memories[i], k ? &b[i] : &a[i]);
        gist_disconnect(c);
        daemon_fixture_stop(&other);
    }
    for (size_t i = 0; i < N_MEMORIES; i++) {
        assert_memory_equal(a[i].logprobs + 1, b[i].logprobs + 1, 699 * sizeof(float));
        /* And the compressors do differ. */
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(a[i].logprobs + 1, b[j].logprobs + 1, 699 * sizeof(float));
        assert_memory_equal(a[i].logprobs + 1, a[0].logprobs + 1, (SEGMENT - 1) * sizeof(float));
    }
    for (size_t i = 0; i < N_MEMORIES; i++) {
        free_score(&a[i]);
        free_score(&b[i]);
    }
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, no_store);
}

/* --- sessions --------------------------------------------------------------------------------- */

struct likeliest {
    const uint32_t *ids;
    size_t first, n; /* ids [first, n) must be the likeliest ones */
};

static int check_rows(void *arg, size_t first, size_t n, uint32_t n_vocab, const float *rows)
{
    const struct likeliest *l = arg;

    for (size_t i = 0; i < n; i++) {
        const float *row = rows + i * n_vocab;
        uint32_t best = 0;
        float margin;

        if (first + i + 1 < l->first || first + i + 1 >= l->n)
            continue;
        for (uint32_t v = 1; v < n_vocab; v++)
            if (row[v] > row[best])
                best = v;
        margin = row[best] - row[l->ids[first + i + 1]];
        (void)answered_ids_same(&l->ids[first + i + 1], &best, 1, &margin);
    }
    return 0;
}

/* One append, appends of odd sizes and a score of the whole agree, across several segments that end
 * in the prompt and in the answer. */
static void session_is_its_score(void **state)
{
    static const size_t parts[] = { 1, 63, 64, 65, 7, 130, 20 };
    gist_conn *c = daemon_fixture_connect(&d);
    uint32_t ids[350 + 200];

    (void)state;
    for (size_t m = 0; m < N_MEMORIES; m++) {
        struct gist_score_opts o = {
            .size = sizeof(o), .window = 1000, .segment = SEGMENT, .memory = &memories[m]
        };
        gist_session *one = open_session(c, &memories[m]), *many = open_session(c, &memories[m]);
        struct likeliest l = { ids, 350, 550 };
        struct gist_usage usage;
        static struct answered a, b;
        size_t at = 0;

        fill(ids, 350, 4 + (unsigned)m);
        assert_int_equal(gist_append_tokens(one, ids, 350, &usage), 0);
        assert_int_equal(usage.raw_tokens + usage.gist_tokens, 350);
        generate(one, 200, &a);
        for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); at += parts[i++])
            assert_int_equal(gist_append_tokens(many, ids + at, parts[i], NULL), 0);
        assert_int_equal(at, 350);
        generate(many, 200, &b);
        (void)answered_same(&b, &a);
        memcpy(ids + 350, a.ids, 200 * sizeof(*ids));
        o.window = 550;
        assert_int_equal(gist_score_logits(c, ids, 550, &o, check_rows, &l), 0);
        gist_close(one);
        gist_close(many);
    }
    assert_true(daemon_fixture_all_free(c, DAEMON_FIXTURE_PATIENCE_MS));
    gist_disconnect(c);
}

/* A stop string takes an answer back over segment ends; going on from there says the same again. */
static void stops_go_back(void **state)
{
    gist_conn *c = daemon_fixture_connect(&d);
    uint32_t ids[100];
    static struct answered whole, got;

    (void)state;
    fill(ids, 100, 20);
    for (size_t m = 1; m < N_MEMORIES; m++) {
        gist_session *s = open_session(c, &memories[m]);

        assert_int_equal(gist_append_tokens(s, ids, 100, NULL), 0);
        generate(s, 160, &whole);
        gist_close(s);
        for (size_t at = 5; at < 150; at += 9) {
            struct gist_sampling p = { .size = sizeof(p), .max_tokens = 160, .ignore_eog = 1 };
            struct gist_result result;
            const char *stop;
            char *text;
            size_t len;

            /* Ten tokens that end behind a segment's end, perhaps. */
            assert_int_equal(gist_detokenize(c, whole.ids + at, 10, &text, &len), 0);
            stop = text;
            p.stop = &stop;
            p.n_stop = len > 0;
            s = open_session(c, &memories[m]);
            assert_int_equal(gist_append_tokens(s, ids, 100, NULL), 0);
            got.n = 0;
            assert_int_equal(gist_generate(s, &p, answered_take, &got, &result), 0);
            if (result.reason == GIST_STOP && got.n < 150) {
                static struct answered rest;
                uint32_t n = (uint32_t)(150 - got.n);

                generate(s, n, &rest);
                if (answered_ids_same(got.ids, whole.ids, got.n, whole.margins) &&
                    goes_back(&memories[m]))
                    (void)answered_ids_same(rest.ids, whole.ids + got.n, n, whole.margins + got.n);
            }
            free(text);
            gist_close(s);
        }
    }
    gist_disconnect(c);
}

/* A cancelled append leaves the session that it found. */
static void cancel_leaves_the_session(void **state)
{
    gist_conn *c = daemon_fixture_connect(&d);
    static uint32_t ids[3000];
    static char text[200000];
    static struct answered want, got;
    gist_session *s;

    (void)state;
    fill(ids, 3000, 30);
    memset(text, 'x', sizeof(text) - 1);
    s = open_session(c, &memories[3]);
    assert_int_equal(gist_append_tokens(s, ids, 250, NULL), 0);
    generate(s, 50, &want);
    gist_close(s);
    for (int i = 0; i < 20; i++) {
        uint64_t request;

        s = open_session(c, &memories[3]);
        assert_int_equal(gist_append_tokens(s, ids, 250, NULL), 0);
        assert_int_equal(gist_append_text_start(s, text, 3000, 0, NULL, NULL, &request), 0);
        for (int k = 0; k < i; k++)
            assert_int_equal(gist_ping(c), 0); /* some steps later */
        (void)gist_cancel(c, request);
        while (gist_ping(c) == 0 && gist_append_tokens(s, ids, 0, NULL) == -EBUSY)
            ;
        got.n = 0;
        struct gist_stats st;
        assert_int_equal(gist_stats(c, &st), 0);
        if (st.sessions[st.n_sessions - 1].n_tokens == 250) { /* it came in time */
            generate(s, 50, &got);
            (void)answered_same(&got, &want);
        }
        gist_close(s);
    }
    gist_disconnect(c);
}

/* --- fork, rewind ----------------------------------------------------------------------------- */

/* A fork says what its origin says, costs the pages that it changes, and leaves the origin alone;
 * going back and asking again gives the same answer. */
static void forks_and_rewinds(void **state)
{
    gist_conn *c = daemon_fixture_connect(&d);
    static struct answered want, got;
    struct gist_stats st;
    uint32_t ids[600], all, used;

    (void)state;
    fill(ids, 600, 50);
    for (size_t m = 0; m < N_MEMORIES; m++) {
        gist_session *s = open_session(c, &memories[m]), *f[4];
        struct gist_usage usage;

        assert_int_equal(gist_append_tokens(s, ids, 500, &usage), 0);
        assert_int_equal(gist_stats(c, &st), 0);
        all = st.pages_free + st.pages_cached;
        for (int i = 0; i < 4; i++)
            assert_int_equal(gist_fork(s, "a fork", &f[i]), 0);
        assert_int_equal(gist_stats(c, &st), 0);
        assert_int_equal(st.n_sessions, 5);
        assert_int_equal(st.pages_free + st.pages_cached, all);
        assert_string_equal(st.sessions[4].label, "a fork");
        assert_int_equal(st.sessions[4].n_tokens, 500);
        generate(s, 60, &want);
        for (int i = 0; i < 4; i++) {
            generate(f[i], 60, &got);
            (void)answered_same(&got, &want);
        }
        assert_int_equal(gist_stats(c, &st), 0);
        used = all - st.pages_free - st.pages_cached;
        assert_true(used <= 5 * (1 + 60 / 16 + 1 + 128 / 16));
        /* Back to where it was, and into what was compressed. */
        assert_int_equal(gist_rewind(f[0], 500), 0);
        generate(f[0], 60, &got);
        if (goes_back(&memories[m]))
            (void)answered_same(&got, &want);
        assert_int_equal(gist_rewind(f[1], 150), 0);
        assert_int_equal(gist_append_tokens(f[1], ids + 150, 350, &usage), 0);
        assert_int_equal(usage.prompt_tokens, 500);
        generate(f[1], 60, &got);
        if (goes_back(&memories[m]))
            (void)answered_same(&got, &want);
        assert_int_equal(gist_rewind(f[2], 0), 0);
        assert_int_equal(gist_append_tokens(f[2], ids, 500, NULL), 0);
        generate(f[2], 60, &got);
        (void)answered_same(&got, &want);
        assert_int_equal(gist_rewind(f[3], 561), -EINVAL);
        assert_non_null(strstr(gist_error(c), "561"));
        assert_non_null(strstr(gist_error(c), "560"));
        gist_close(s);
        for (int i = 0; i < 4; i++)
            gist_close(f[i]);
        assert_true(daemon_fixture_all_free(c, DAEMON_FIXTURE_PATIENCE_MS));
    }
    gist_disconnect(c);
}

/* A conversation that is taken back is where it was then: the same turn gives the same answer. */
static void conversation_goes_back(void **state)
{
    static const struct gist_message first = { "user", "Say something." };
    static const struct gist_message second = { "user", "And now?" };
    gist_conn *c = daemon_fixture_connect(&d);
    gist_session *s = open_session(c, &memories[1]);
    static struct answered begin, want, got;
    struct gist_usage at, usage;
    bool same;

    (void)state;
    assert_int_equal(gist_append_chat(s, &first, 1, GIST_OPEN_ANSWER, &at), 0);
    generate(s, 30, &begin);
    assert_int_equal(gist_append_chat(s, &second, 1, GIST_OPEN_ANSWER, &usage), 0);
    generate(s, 30, &want);
    assert_int_equal(gist_rewind(s, at.prompt_tokens), 0);
    generate(s, 30, &got);
    same = answered_same(&got, &begin);
    assert_int_equal(gist_append_chat(s, &second, 1, GIST_OPEN_ANSWER, &at), 0);
    assert_int_equal(at.prompt_tokens, usage.prompt_tokens);
    generate(s, 30, &got);
    if (same)
        (void)answered_same(&got, &want);
    gist_disconnect(c);
}

/* No messages are no beginning: nothing is written but the answer's head, and the first message
 * that comes has before it what a conversation begins with. */
static void conversation_of_no_messages(void **state)
{
    static const struct gist_message first = { "user", "Say something." };
    gist_conn *c = daemon_fixture_connect(&d);
    gist_session *s = open_session(c, &memories[1]), *t = open_session(c, &memories[1]);
    struct gist_usage none, head, want, got;

    (void)state;
    assert_int_equal(gist_append_chat(t, &first, 1, 0, &want), 0);
    assert_int_equal(gist_append_chat(s, NULL, 0, 0, &none), 0);
    assert_int_equal(none.prompt_tokens, 0);
    assert_int_equal(gist_append_chat(s, &first, 1, 0, &got), 0);
    assert_int_equal(got.prompt_tokens, want.prompt_tokens);
    assert_int_equal(gist_rewind(s, 0), 0);
    assert_int_equal(gist_append_chat(s, NULL, 0, GIST_OPEN_ANSWER, &head), 0);
    assert_int_equal(gist_append_chat(t, NULL, 0, GIST_OPEN_ANSWER, &got), 0);
    assert_int_equal(head.prompt_tokens, got.prompt_tokens - want.prompt_tokens);
    gist_disconnect(c);
}

/* --- shared beginnings ------------------------------------------------------------------------ */

/* A client that opens sessions of every policy there is does not end that for itself and others. */
static void policies_end_no_sharing(void **state)
{
    gist_conn *c = daemon_fixture_connect(&d);
    struct gist_usage usage;
    uint32_t ids[40];

    (void)state;
    fill(ids, 40, 59);
    for (uint32_t i = 0; i < 300 + 2; i++) {
        struct gist_policy p = { .size = sizeof(p), .segment = 64 + 16 * (i < 300 ? i : 300) };
        gist_session *s;

        assert_int_equal(gist_open(c, &p, &s), 0);
        assert_int_equal(gist_append_tokens(s, ids, 40, &usage), 0);
        assert_int_equal(usage.shared_tokens, i < 301 ? 0 : 32);
        gist_close(s);
    }
    gist_disconnect(c);
}

/* What a session of the same policy read is not read again, also when that one is gone; the answer
 * is the same. */
static void beginnings_are_read_once(void **state)
{
    gist_conn *c = daemon_fixture_connect(&d), *other = daemon_fixture_connect(&d);
    static struct answered want, got;
    uint32_t ids[400];

    (void)state;
    for (size_t m = 0; m < N_MEMORIES; m++) {
        const struct gist_memory *next = &memories[(m + 1) % N_MEMORIES];
        gist_session *s = open_session(c, &memories[m]);
        struct gist_usage usage;
        struct gist_stats st;

        fill(ids, 400, 60 + (unsigned)m);
        assert_int_equal(gist_append_tokens(s, ids, 400, &usage), 0);
        assert_int_equal(usage.shared_tokens, 0);
        assert_int_equal(usage.computed_tokens, 400);
        generate(s, 30, &want);
        gist_close(s);
        assert_int_equal(gist_stats(c, &st), 0);
        assert_true(st.pages_cached > 0);

        s = open_session(other, &memories[m]);
        assert_int_equal(gist_append_tokens(s, ids, 400, &usage), 0);
        if (memories[m].budget) /* up to where segments were compressed further */
            assert_true(usage.shared_tokens >= 2 * SEGMENT);
        else
            assert_int_equal(usage.shared_tokens, 399 / 16 * 16);
        assert_int_equal(usage.computed_tokens, 400 - usage.shared_tokens);
        generate(s, 30, &got);
        (void)answered_same(&got, &want);
        gist_close(s);

        s = open_session(other, next); /* another policy reads for itself */
        assert_int_equal(gist_append_tokens(s, ids, 400, &usage), 0);
        assert_int_equal(usage.shared_tokens, 0);
        gist_close(s);
        if (memories[m].budget)
            continue;
        ids[392]++; /* as far as it is the same */
        s = open_session(other, &memories[m]);
        assert_int_equal(gist_append_tokens(s, ids, 395, &usage), 0);
        assert_int_equal(usage.shared_tokens, 384);
        assert_int_equal(gist_append_tokens(s, ids + 395, 5, &usage), 0);
        assert_int_equal(usage.shared_tokens, 0);
        gist_close(s);
    }
    gist_disconnect(c);
    gist_disconnect(other);
}

static void nothing_is_kept_without_a_cache(void **state)
{
    static const char *const off[] = { "--prefix-cache", "no", NULL };
    struct daemon_fixture alone;
    struct gist_usage usage;
    struct gist_stats st;
    uint32_t ids[400];
    gist_conn *c;

    (void)state;
    fill(ids, 400, 70);
    daemon_fixture_start(&alone, DAEMON_FIXTURE_TINY, off);
    c = daemon_fixture_connect(&alone);
    for (int i = 0; i < 2; i++) {
        gist_session *s = open_session(c, &memories[1]);

        assert_int_equal(gist_append_tokens(s, ids, 400, &usage), 0);
        assert_int_equal(usage.shared_tokens, 0);
        gist_close(s);
    }
    assert_true(daemon_fixture_all_free(c, DAEMON_FIXTURE_PATIENCE_MS));
    assert_int_equal(gist_stats(c, &st), 0);
    assert_int_equal(st.pages_cached, 0);
    gist_disconnect(c);
    daemon_fixture_stop(&alone);
}

/* --- bounds ----------------------------------------------------------------------------------- */

static void longer_than_the_window(void **state)
{
    static const struct gist_memory m = {
        .size = sizeof(m), .compressor = GIST_FINE_KV, .ratio = 32, .flags = GIST_FIXED
    };
    static uint32_t ids[16000];
    gist_conn *c = daemon_fixture_connect(&d);
    gist_session *s = open_session(c, &m);
    struct gist_usage usage;
    struct gist_stats st;
    static struct answered a;
    uint32_t done = 0;

    (void)state;
    fill(ids, 16000, 40);
    for (size_t n = 1000; n <= 14000; n += 1000, done += 1000) {
        assert_int_equal(gist_append_tokens(s, ids + done, 1000, &usage), 0);
        assert_int_equal(usage.prompt_tokens, n);
        /* A segment that has just become full waits for the next token. Of the first one 4 sinks
         * and (64 - 4) % 32 tokens stay as they are, and one gist stands for the rest. */
        assert_int_equal(usage.gist_tokens, (n - 1) / SEGMENT * SEGMENT - 32);
        assert_int_equal(usage.gists, (n - 1) / SEGMENT * 2 - 1);
        assert_int_equal(usage.raw_tokens, n - usage.gist_tokens);
        assert_int_equal(gist_stats(c, &st), 0);
        assert_true(st.sessions[0].pages <= n / SEGMENT + 2 + 4);
    }
    generate(s, 100, &a);
    /* 16,000 more tokens would take more keys than the model's window of 1024. */
    assert_int_equal(gist_append_tokens(s, ids, 16000, &usage), -E2BIG);
    assert_non_null(strstr(gist_error(c), "context_length_exceeded"));
    assert_non_null(strstr(gist_error(c), "14100"));
    generate(s, 10, &a);
    gist_close(s);
    assert_true(daemon_fixture_all_free(c, DAEMON_FIXTURE_PATIENCE_MS));
    gist_disconnect(c);
}

static gist_session *open_long(gist_conn *c)
{
    struct gist_policy p = { .size = sizeof(p), .segment = 512, .memory = &memories[0] };
    gist_session *s;

    assert_int_equal(gist_open(c, &p, &s), 0);
    return s;
}

/* The session has the n ids of the first one: shared tokens are those that were found to be the
 * same, up to the page that the last one stands in. */
static void expect_same(gist_session *s, int err, const struct gist_usage *u, size_t n, bool first,
                        struct answered *want)
{
    struct answered got;

    assert_int_equal(err, 0);
    assert_int_equal(u->prompt_tokens, n);
    assert_int_equal(u->shared_tokens, first ? 0 : (n - 1) / 16 * 16);
    assert_int_equal(u->computed_tokens + u->shared_tokens, n);
    generate(s, 20, first ? want : &got);
    if (!first)
        (void)answered_same(&got, want);
    gist_close(s);
}

/* A text of several of the channel's arenas has the ids of the whole, wherever its parts were cut:
 * as text, as ids, and as a message in the model's template. */
static void text_in_parts(void **state)
{
    static const char *const args[] = { "--arena-bytes", "256K", "--kv-bytes", "256M", NULL };
    static const char head[] = "<|im_start|>system\nYou are a test.<|im_end|>\n<|im_start|>user\n";
    static const char end[] = "<|im_end|>\n<|im_start|>assistant\n";
    char *message = nasty_text(300000, 5), *text;
    struct gist_message msg = { "user", message };
    struct daemon_fixture small;
    struct gist_usage usage;
    struct answered want;
    gist_session *s;
    gist_conn *c;
    uint32_t *ids;
    size_t n;
    int e;

    (void)state;
    assert_true(asprintf(&text, "%s%s%s", head, message, end) > 0);
    daemon_fixture_start(&small, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&small);
    assert_int_equal(gist_tokenize(c, text, strlen(text), GIST_SPECIAL, &ids, &n), 0);
    s = open_long(c);
    e = gist_append_tokens(s, ids, n, &usage);
    expect_same(s, e, &usage, n, true, &want);
    s = open_long(c);
    e = gist_append_text(s, text, strlen(text), GIST_SPECIAL, &usage);
    expect_same(s, e, &usage, n, false, &want);
    s = open_long(c);
    e = gist_append_chat(s, &msg, 1, GIST_OPEN_ANSWER, &usage);
    expect_same(s, e, &usage, n, false, &want);
    assert_true(daemon_fixture_all_free(c, DAEMON_FIXTURE_PATIENCE_MS));
    gist_disconnect(c);
    daemon_fixture_stop(&small);
    free(ids);
    free(message);
    free(text);
}

/* How usage counts what stays raw of the first segment, by the compressor; others have no such
 * tokens. */
static void usage_says_what_is_raw(void **state)
{
    static const struct {
        size_t memory;
        uint32_t raw, first; /* tokens and gists of the first segment */
        uint32_t gists;      /* of each other */
    } cases[] = {
        { 0, 0, 0, 0 },       /* none */
        { 1, 4, 15, 16 },     /* fine-kv 4: 4 sinks, 60 / 4 */
        { 2, 0, 4, 4 },       /* fine-kv 16, no sinks */
        { 3, 4, 7 + 4, 8 },   /* select 8: 4 sinks, 60 / 8, and 60 % 8 more of its choice */
        { 4, 3, 30 + 1, 32 }, /* select 2: 3 sinks, 61 / 2, 61 % 2 */
    };
    gist_conn *c = daemon_fixture_connect(&d);
    uint32_t ids[500];

    (void)state;
    fill(ids, 500, 80);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        gist_session *s = open_session(c, &memories[cases[i].memory]);
        uint32_t n = (500 - memories[cases[i].memory].keep_tail) / SEGMENT;
        struct gist_usage usage;

        assert_int_equal(gist_append_tokens(s, ids, 500, &usage), 0);
        assert_int_equal(usage.raw_tokens, 500 - n * SEGMENT + cases[i].raw);
        assert_int_equal(usage.gist_tokens, n * SEGMENT - cases[i].raw);
        assert_int_equal(usage.gists, cases[i].first + (n - 1) * cases[i].gists);
        gist_close(s);
    }
    gist_disconnect(c);
}

/* What does not fit at one ratio fits when older text climbs, within the budget, to the end of the
 * ladder. */
static void older_text_climbs(void **state)
{
    static const struct gist_memory m = {
        .size = sizeof(m), .compressor = GIST_SELECT, .ratio = 8, .budget = 300
    };
    static uint32_t ids[500];
    gist_conn *c = daemon_fixture_connect(&d);
    gist_session *s = open_session(c, &m);
    struct gist_usage usage;
    struct gist_stats st;
    static struct answered a;
    uint32_t n = 0;
    int e;

    (void)state;
    fill(ids, 500, 41);
    for (; (e = gist_append_tokens(s, ids, 500, &usage)) == 0; n += 500) {
        assert_int_equal(usage.prompt_tokens, n + 500);
        assert_int_equal(usage.raw_tokens + usage.gist_tokens, usage.prompt_tokens);
        assert_true(usage.raw_tokens + usage.gists <= m.budget);
        assert_int_equal(gist_stats(c, &st), 0);
        /* Pages of short segments are not full. */
        assert_true(st.sessions[0].pages <= (m.budget + 15) / 16 + (n + 500) / SEGMENT);
        assert_true(n < 300 * 64);
    }
    assert_int_equal(e, -E2BIG);
    assert_non_null(strstr(gist_error(c), "the session's budget is 300"));
    assert_true(n >= 300 * 8 * 2); /* at ratio 8 alone it would have been half of it */
    generate(s, 20, &a);
    gist_close(s);
    gist_disconnect(c);
}

static void refuses_bad_memory(void **state)
{
    static const struct {
        struct gist_memory m;
        const char *says;
    } bad[] = {
        { { sizeof(struct gist_memory), GIST_FINE_KV, 7, 0, 0, NULL, 0, 0, 0 }, "a ratio of 7" },
        { { sizeof(struct gist_memory), GIST_SELECT, 1, 0, 0, NULL, 0, 0, 0 }, "a ratio of 1" },
        { { sizeof(struct gist_memory), GIST_SELECT, 8, 17, 0, NULL, 0, 0, 0 }, "17 sinks" },
        { { sizeof(struct gist_memory), GIST_SELECT, 8, 0, UINT32_MAX, NULL, 0, 0, 0 },
          "4294967295" },
        { { sizeof(struct gist_memory), GIST_SELECT, 8, 0, 10, NULL, 137, 0, 0 },
          "a budget of 137 keys is not possible: use 138 to 1024 (the context)" },
        { { sizeof(struct gist_memory), GIST_NONE, 0, 0, 0, NULL, 1025, 0, 0 }, "1025" },
    };
    gist_conn *c = daemon_fixture_connect(&d);
    struct gist_memory unknown = { .size = sizeof(unknown), .compressor = 77 };
    struct gist_policy p = { .size = sizeof(p), .segment = SEGMENT };
    struct gist_score_opts o = { .size = sizeof(o), .segment = SEGMENT };
    struct gist_score ret;
    gist_session *s;
    uint32_t id = 5;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        p.memory = o.memory = &bad[i].m;
        assert_int_equal(gist_open(c, &p, &s), -EINVAL);
        assert_non_null(strstr(gist_error(c), bad[i].says));
        assert_int_equal(gist_score_tokens(c, &id, 1, &o, &ret), -EINVAL);
        assert_non_null(strstr(gist_error(c), bad[i].says));
    }
    p.memory = &unknown;
    assert_int_equal(gist_open(c, &p, &s), -EINVAL);
    gist_disconnect(c);
}

/* Without a window it is what the budget holds. Windows and segments that can't be are refused
 * before anything is counted in them. */
static void scores_fit_their_budget(void **state)
{
    static const struct gist_memory full = { .size = sizeof(full), .budget = 100 };
    static const struct gist_memory fixed = { .size = sizeof(fixed),
                                              .compressor = GIST_SELECT,
                                              .ratio = 8,
                                              .budget = 150,
                                              .flags = GIST_FIXED };
    gist_conn *c = daemon_fixture_connect(&d);
    struct gist_score_opts o = { .size = sizeof(o), .segment = SEGMENT, .memory = &fixed };
    struct gist_score a, b;
    uint32_t ids[1000];

    (void)state;
    fill(ids, 1000, 42);
    score(c, ids, 500, 0, &full, &a);
    score(c, ids, 500, 100, NULL, &b);
    for (size_t i = 0; i < 500; i++) {
        assert_int_equal(isnan(a.logprobs[i]) != 0, i % 100 == 0);
        if (i % 100)
            assert_memory_equal(&a.logprobs[i], &b.logprobs[i], sizeof(float));
    }
    free_score(&a);
    free_score(&b);
    score(c, ids, 500, 0, &fixed, &a);
    free_score(&a);
    assert_int_equal(gist_score_tokens(c, ids, 1000, &o, &a), -E2BIG);
    assert_non_null(strstr(gist_error(c), "the budget is 150"));
    o.memory = &memories[0];
    o.window = UINT32_MAX;
    assert_int_equal(gist_score_tokens(c, ids, 1000, &o, &a), -E2BIG);
    assert_non_null(strstr(gist_error(c), "4294967295"));
    o.segment = 1;
    assert_int_equal(gist_score_tokens(c, ids, 1000, &o, &a), -EINVAL);
    assert_non_null(strstr(gist_error(c), "segments of 1 tokens"));
    gist_disconnect(c);
}

static int start(void **state)
{
    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, no_store);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    daemon_fixture_stop(&d);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_is_nothing_special),
        cmocka_unit_test(none_is_each_segment_alone),
        cmocka_unit_test(scores_do_not_depend_on_batches),
        cmocka_unit_test(session_is_its_score),
        cmocka_unit_test(stops_go_back),
        cmocka_unit_test(cancel_leaves_the_session),
        cmocka_unit_test(forks_and_rewinds),
        cmocka_unit_test(conversation_goes_back),
        cmocka_unit_test(conversation_of_no_messages),
        cmocka_unit_test(policies_end_no_sharing),
        cmocka_unit_test(beginnings_are_read_once),
        cmocka_unit_test(nothing_is_kept_without_a_cache),
        cmocka_unit_test(longer_than_the_window),
        cmocka_unit_test(text_in_parts),
        cmocka_unit_test(usage_says_what_is_raw),
        cmocka_unit_test(older_text_climbs),
        cmocka_unit_test(refuses_bad_memory),
        cmocka_unit_test(scores_fit_their_budget),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
