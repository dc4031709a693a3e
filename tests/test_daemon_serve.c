/* tests/test_daemon_serve.c - the real daemon and clients that behave. Would catch: answers that
 * depend on who else is served or on the size of a chunk, a cancel that is late or loses tokens,
 * stop strings across tokens, sessions that are not what their client saw, scores that differ from
 * the logits, a slow reader that holds up others, pages that are not given back.
 */

#include "tests/support/daemon_fixture.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct daemon_fixture d;

struct got {
    char text[65536];
    size_t len;
    uint32_t ids[4096];
    size_t n_ids;
    int err, ended;
    enum gist_reason reason;
    size_t cancel_after;
};

static int on_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    struct got *g = arg;

    assert_true(g->len + len < sizeof(g->text) && g->n_ids + n_ids <= 4096);
    memcpy(g->text + g->len, text, len);
    g->len += len;
    g->text[g->len] = '\0';
    if (n_ids)
        memcpy(g->ids + g->n_ids, ids, n_ids * sizeof(*ids));
    g->n_ids += n_ids;
    return g->cancel_after && g->n_ids >= g->cancel_after;
}

static void on_done(void *arg, int err, const struct gist_result *result)
{
    struct got *g = arg;

    g->err = err;
    g->ended = 1;
    if (result)
        g->reason = result->reason;
}

static const char *const prompts[] = {
    "The quick brown fox", "jumps over", "the lazy dog, and then",
    "0123456789 numbers",  "x",          "Where is the key? In the house."
};
#define N_PROMPTS (sizeof(prompts) / sizeof(*prompts))
#define N_TOKENS  40u

static struct gist_sampling greedy(uint32_t n)
{
    return (struct gist_sampling){ .size = sizeof(struct gist_sampling),
                                   .max_tokens = n,
                                   .ignore_eog = 1 };
}

static gist_session *open_with(gist_conn *c, const char *text)
{
    gist_session *s;

    assert_int_equal(gist_open(c, NULL, &s), 0);
    assert_int_equal(gist_append_text(s, text, strlen(text), 0, NULL), 0);
    return s;
}

static void answer_alone(gist_conn *c, const char *prompt, struct got *ret)
{
    gist_session *s = open_with(c, prompt);
    struct gist_sampling p = greedy(N_TOKENS);
    struct gist_result result;

    memset(ret, 0, sizeof(*ret));
    assert_int_equal(gist_generate(s, &p, on_text, ret, &result), 0);
    assert_int_equal(result.reason, GIST_LENGTH);
    assert_int_equal(result.usage.generated_tokens, N_TOKENS);
    assert_int_equal(ret->n_ids, N_TOKENS);
    gist_close(s);
}

static void same(const struct got *a, const struct got *b)
{
    assert_int_equal(a->n_ids, b->n_ids);
    assert_memory_equal(a->ids, b->ids, a->n_ids * sizeof(a->ids[0]));
    assert_int_equal(a->len, b->len);
    assert_memory_equal(a->text, b->text, a->len);
}

/* Clients that generate at once get what each gets alone. */
static void test_together(void **state)
{
    static struct got alone[N_PROMPTS], got[N_PROMPTS];
    gist_conn *c[N_PROMPTS];
    gist_session *s[N_PROMPTS];
    struct gist_sampling p = greedy(N_TOKENS);
    size_t left = N_PROMPTS;

    (void)state;
    for (size_t i = 0; i < N_PROMPTS; i++) {
        c[i] = daemon_fixture_connect(&d);
        answer_alone(c[i], prompts[i], &alone[i]);
        s[i] = open_with(c[i], prompts[i]);
        memset(&got[i], 0, sizeof(got[i]));
    }
    for (size_t i = 0; i < N_PROMPTS; i++)
        assert_int_equal(gist_generate_start(s[i], &p, on_text, on_done, &got[i], NULL), 0);
    while (left > 0) {
        left = 0;
        for (size_t i = 0; i < N_PROMPTS; i++) {
            assert_true(gist_dispatch(c[i]) >= 0);
            left += !got[i].ended;
        }
    }
    for (size_t i = 0; i < N_PROMPTS; i++) {
        assert_int_equal(got[i].err, 0);
        same(&got[i], &alone[i]);
    }
    for (size_t i = 1; i < N_PROMPTS; i++)
        gist_disconnect(c[i]);
    gist_close(s[0]);
    assert_true(daemon_fixture_all_free(c[0], DAEMON_FIXTURE_PATIENCE_MS));
    gist_disconnect(c[0]);
}

/* A session is what its client sent and saw: two answers in a row are one long one, and an append
 * after an answer is the same as the whole text of ids from the start. */
static void test_session_is_what_was_seen(void **state)
{
    static struct got whole, parts, third, fresh;
    gist_conn *c = daemon_fixture_connect(&d);
    gist_session *s = open_with(c, prompts[0]), *t;
    struct gist_sampling p = greedy(N_TOKENS / 2);
    struct gist_result result;
    uint32_t *ids, *more, all[256];
    size_t n, n_more;

    (void)state;
    answer_alone(c, prompts[0], &whole);
    memset(&parts, 0, sizeof(parts));
    assert_int_equal(gist_generate(s, &p, on_text, &parts, &result), 0);
    assert_int_equal(gist_generate(s, &p, on_text, &parts, &result), 0);
    assert_int_equal(parts.n_ids, whole.n_ids);
    assert_memory_equal(parts.ids, whole.ids, whole.n_ids * sizeof(whole.ids[0]));

    assert_int_equal(gist_append_text(s, prompts[1], strlen(prompts[1]), 0, NULL), 0);
    memset(&third, 0, sizeof(third));
    assert_int_equal(gist_generate(s, &p, on_text, &third, &result), 0);

    assert_int_equal(gist_tokenize(c, prompts[0], strlen(prompts[0]), 0, &ids, &n), 0);
    assert_int_equal(gist_tokenize(c, prompts[1], strlen(prompts[1]), 0, &more, &n_more), 0);
    memcpy(all, ids, n * 4);
    memcpy(all + n, whole.ids, whole.n_ids * 4);
    memcpy(all + n + whole.n_ids, more, n_more * 4);
    assert_int_equal(gist_open(c, NULL, &t), 0);
    assert_int_equal(gist_append_tokens(t, all, n + whole.n_ids + n_more, NULL), 0);
    memset(&fresh, 0, sizeof(fresh));
    assert_int_equal(gist_generate(t, &p, on_text, &fresh, &result), 0);
    same(&fresh, &third);
    free(ids);
    free(more);
    gist_disconnect(c);
}

/* Every text that occurs in an answer, of 1 to 6 bytes, ends it just before itself; what follows is
 * as if the stop string's tokens had never been. */
static void test_stop_strings(void **state)
{
    static struct got whole, got;
    gist_conn *c = daemon_fixture_connect(&d);

    (void)state;
    answer_alone(c, prompts[2], &whole);
    for (size_t len = 1; len <= 6; len++) {
        for (size_t at = 3; at + len < whole.len; at += 7) {
            char stop[8] = { 0 };
            const char *const stops[] = { "\x01never", stop };
            gist_session *s = open_with(c, prompts[2]);
            struct gist_sampling p = greedy(N_TOKENS);
            struct gist_result result;
            size_t first;

            memcpy(stop, whole.text + at, len);
            first = (size_t)(strstr(whole.text, stop) - whole.text);
            p.stop = stops;
            p.n_stop = 2;
            memset(&got, 0, sizeof(got));
            assert_int_equal(gist_generate(s, &p, on_text, &got, &result), 0);
            assert_int_equal(result.reason, GIST_STOP);
            assert_int_equal(result.stop, 2);
            assert_int_equal(got.len, first);
            assert_memory_equal(got.text, whole.text, first);
            /* Tokens kept are a beginning of the answer without stops. */
            assert_true(got.n_ids <= whole.n_ids);
            assert_memory_equal(got.ids, whole.ids, got.n_ids * 4);
            /* And going on from there gives the same tokens again. */
            p.n_stop = 0;
            p.max_tokens = 1;
            assert_int_equal(gist_generate(s, &p, on_text, &got, &result), 0);
            assert_memory_equal(got.ids, whole.ids, got.n_ids * 4);
            gist_close(s);
        }
    }
    gist_disconnect(c);
}

/* The stop string that must end an answer of this text: the one that ends first, of several that
 * end there the first given. */
static uint32_t ends_first(const char *text, const char *const *stops, uint32_t n, size_t *ret_at)
{
    size_t end = SIZE_MAX;
    uint32_t which = 0;

    for (uint32_t i = 0; i < n; i++) {
        const char *p = strstr(text, stops[i]);

        if (!p || (size_t)(p - text) + strlen(stops[i]) >= end)
            continue;
        *ret_at = (size_t)(p - text);
        end = *ret_at + strlen(stops[i]);
        which = i + 1;
    }
    return which;
}

/* At each place of an answer: one that never comes, a text, its beginning, its inside and its end,
 * in turn. Which of them it was is the same in several answers and in one. */
static void test_which_stop_string(void **state)
{
    static struct got whole, got;
    gist_conn *c = daemon_fixture_connect(&d);

    (void)state;
    answer_alone(c, prompts[2], &whole);
    for (size_t at = 0; at + 16 < whole.len; at += 3) {
        char of[5][8] = { "\x01never" };
        const char *stops[5];
        struct gist_sampling p = greedy(N_TOKENS);
        gist_session *s = open_with(c, prompts[2]);
        struct gist_result result, results[2];
        size_t begin = SIZE_MAX;
        uint32_t want;

        memcpy(of[1], whole.text + at, 6);
        memcpy(of[2], whole.text + at, 3 + at % 4);
        memcpy(of[3], whole.text + at + 1, 4);
        memcpy(of[4], whole.text + at + 2, 4);
        for (size_t i = 0; i < 5; i++)
            stops[i] = of[(i + at) % 5];
        want = ends_first(whole.text, stops, 5, &begin);
        assert_true(want > 0);
        p.stop = stops;
        p.n_stop = 5;
        assert_int_equal(gist_generate_several(s, &p, 2, NULL, NULL, results), 0);
        memset(&got, 0, sizeof(got));
        assert_int_equal(gist_generate(s, &p, on_text, &got, &result), 0);
        assert_int_equal(result.reason, GIST_STOP);
        assert_int_equal(result.stop, want);
        assert_int_equal(results[0].stop, want); /* greedy: both are this one */
        assert_int_equal(results[1].stop, want);
        assert_int_equal(got.len, begin);
        assert_memory_equal(got.text, whole.text, begin);
        gist_close(s);
    }
    gist_disconnect(c);
}

static void test_cancel_in_answer(void **state)
{
    static struct got whole, got;
    gist_conn *c = daemon_fixture_connect(&d);
    gist_session *s = open_with(c, prompts[3]);
    struct gist_sampling p = greedy(900);
    struct gist_result result;
    struct gist_stats st;
    size_t n, kept;

    (void)state;
    assert_int_equal(gist_stats(c, &st), 0);
    n = st.sessions[0].n_tokens;
    memset(&got, 0, sizeof(got));
    got.cancel_after = 5;
    assert_int_equal(gist_generate(s, &p, on_text, &got, &result), -ECANCELED);
    assert_int_equal(gist_error_code(c), GIST_E_CANCELLED);
    assert_true(got.n_ids >= 5 && got.n_ids < 900);
    /* What was said stays (some of it was on its way when the cancel came), and the answer goes on
     * from there. */
    assert_int_equal(gist_stats(c, &st), 0);
    kept = st.sessions[0].n_tokens - n;
    assert_true(kept >= got.n_ids && kept < 800);
    memset(&got, 0, sizeof(got));
    p.max_tokens = 20;
    assert_int_equal(gist_generate(s, &p, on_text, &got, &result), 0);
    memset(&whole, 0, sizeof(whole));
    p.max_tokens = (uint32_t)kept + 20;
    gist_close(s);
    s = open_with(c, prompts[3]);
    assert_int_equal(gist_generate(s, &p, on_text, &whole, &result), 0);
    assert_int_equal(whole.n_ids, kept + 20);
    assert_memory_equal(whole.ids + kept, got.ids, 20 * 4);
    gist_disconnect(c);
}

/* --- score ------------------------------------------------------------------------------------ */

struct rows {
    float *logprobs;
    const uint32_t *ids;
    size_t n, next, window;
};

static int on_rows(void *arg, size_t first, size_t n, uint32_t n_vocab, const float *rows)
{
    struct rows *r = arg;

    assert_int_equal(first, r->next);
    for (size_t i = 0; i < n; i++) {
        const float *row = rows + i * n_vocab;
        double sum = 0, max = row[0];
        size_t next = first + i + 1;

        if (next >= r->n)
            continue;
        for (uint32_t v = 1; v < n_vocab; v++)
            max = row[v] > max ? row[v] : max;
        for (uint32_t v = 0; v < n_vocab; v++)
            sum += exp(row[v] - max);
        r->logprobs[next] =
            next % r->window == 0 ? NAN : (float)(row[r->ids[next]] - max - log(sum));
    }
    r->next += n;
    return 0;
}

static void test_score(void **state)
{
    gist_conn *c = daemon_fixture_connect(&d);
    struct gist_score_opts opts = { .size = sizeof(opts), .window = 96 };
    struct gist_score score;
    struct rows rows = { .window = 96 };
    char text[3000];

    (void)state;
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = prompts[i % N_PROMPTS][i % strlen(prompts[i % N_PROMPTS])];
    assert_int_equal(gist_score_text(c, text, sizeof(text), &opts, &score), 0);
    assert_true(score.n > 1000);
    rows.logprobs = calloc(score.n, sizeof(float));
    rows.logprobs[0] = NAN;
    rows.ids = score.ids;
    rows.n = score.n;
    assert_int_equal(gist_score_logits(c, score.ids, score.n, &opts, on_rows, &rows), 0);
    assert_int_equal(rows.next, score.n);
    for (size_t i = 0; i < score.n; i++) {
        assert_int_equal(isnan(score.logprobs[i]) != 0, i % 96 == 0);
        if (i % 96)
            assert_true(fabsf(score.logprobs[i] - rows.logprobs[i]) < 1e-4f);
    }
    assert_true(daemon_fixture_all_free(c, DAEMON_FIXTURE_PATIENCE_MS));
    free(rows.logprobs);
    free(score.ids);
    free(score.logprobs);
    gist_disconnect(c);
}

/* The likeliest next token under the score's logits is what a greedy answer says. */
static void test_score_is_the_answers_model(void **state)
{
    static struct got got;
    gist_conn *c = daemon_fixture_connect(&d);
    struct gist_score score;
    uint32_t *ids, all[128];
    size_t n;

    (void)state;
    answer_alone(c, prompts[5], &got);
    assert_int_equal(gist_tokenize(c, prompts[5], strlen(prompts[5]), 0, &ids, &n), 0);
    memcpy(all, ids, n * 4);
    memcpy(all + n, got.ids, got.n_ids * 4);
    assert_int_equal(gist_score_tokens(c, all, n + got.n_ids, NULL, &score), 0);
    for (size_t i = n; i < score.n; i++) {
        struct gist_score other;
        uint32_t was = all[i];

        if (i % 8)
            continue;
        all[i] = was == 50 ? 51 : 50;
        assert_int_equal(gist_score_tokens(c, all, i + 1, NULL, &other), 0);
        assert_true(other.logprobs[i] <= score.logprobs[i] + 1e-5f);
        all[i] = was;
        free(other.ids);
        free(other.logprobs);
    }
    free(score.ids);
    free(score.logprobs);
    free(ids);
    gist_disconnect(c);
}

/* --- others are not held up ------------------------------------------------------------------- */

/* A client that asks for more than its channel holds and does not read: another is served
 * meanwhile, and it gets everything when it reads at last. */
static void test_slow_reader(void **state)
{
    static struct got got, other;
    gist_conn *slow = daemon_fixture_connect(&d), *c = daemon_fixture_connect(&d);
    struct gist_sampling p = greedy(900);
    gist_session *s[4];

    (void)state;
    memset(&got, 0, sizeof(got));
    for (int i = 0; i < 4; i++) {
        s[i] = open_with(slow, prompts[i]);
        assert_int_equal(gist_generate_start(s[i], &p, NULL, i ? NULL : on_done, &got, NULL), 0);
    }
    for (int i = 0; i < 3; i++)
        answer_alone(c, prompts[i], &other);
    while (!got.ended) {
        assert_int_equal(gist_ping(c), 0);
        assert_true(gist_dispatch(slow) >= 0);
    }
    assert_int_equal(got.err, 0);
    assert_int_equal(got.reason, GIST_LENGTH);
    gist_disconnect(slow);
    assert_true(daemon_fixture_all_free(c, DAEMON_FIXTURE_PATIENCE_MS));
    gist_disconnect(c);
}

static void test_busy_and_not_found(void **state)
{
    static struct got got;
    gist_conn *c = daemon_fixture_connect(&d);
    gist_session *s = open_with(c, prompts[0]);
    struct gist_sampling p = greedy(900);
    gist_session *empty;

    (void)state;
    memset(&got, 0, sizeof(got));
    assert_int_equal(gist_open(c, NULL, &empty), 0);
    assert_int_equal(gist_generate(empty, &p, on_text, &got, NULL), -EINVAL);
    assert_non_null(strstr(gist_error(c), "empty"));
    assert_int_equal(gist_generate_start(s, &p, on_text, on_done, &got, NULL), 0);
    assert_int_equal(gist_append_text(s, "x", 1, 0, NULL), -EBUSY);
    while (!got.ended)
        assert_true(gist_dispatch(c) >= 0);
    assert_int_equal(got.err, 0);
    gist_disconnect(c);
}

static void test_seed(void **state)
{
    static struct got a, b, other;
    gist_conn *c = daemon_fixture_connect(&d);
    struct gist_sampling p = greedy(N_TOKENS);
    struct got *all[] = { &a, &b, &other };

    (void)state;
    p.temperature = 1.5f;
    p.top_k = 40;
    p.repeat_penalty = 1.1f;
    p.repeat_last_n = 64;
    for (int i = 0; i < 3; i++) {
        gist_session *s = open_with(c, prompts[4]);

        p.seed = i < 2 ? 7 : 8;
        memset(all[i], 0, sizeof(a));
        assert_int_equal(gist_generate(s, &p, on_text, all[i], NULL), 0);
        gist_close(s);
    }
    same(&a, &b);
    assert_true(a.n_ids != other.n_ids || memcmp(a.ids, other.ids, a.n_ids * 4) != 0);
    gist_disconnect(c);
}

static void test_text_and_back(void **state)
{
    gist_conn *c = daemon_fixture_connect(&d);
    size_t n, len, size = 3u << 20;
    char *text = malloc(size + 1), *back;
    uint32_t *ids;

    (void)state;
    for (size_t i = 0; i < size; i++)
        text[i] = (char)(' ' + (i * i / 7) % 90);
    /* Longer than the arena: comes in parts, goes out in parts. */
    assert_int_equal(gist_tokenize(c, text, size, 0, &ids, &n), 0);
    assert_true(n > 0 && n <= size);
    assert_int_equal(gist_detokenize(c, ids, n, &back, &len), 0);
    assert_int_equal(len, size);
    assert_memory_equal(back, text, len);
    free(back);
    free(ids);
    free(text);
    gist_disconnect(c);
}

/* --- another daemon, other chunks ------------------------------------------------------------- */

static void test_chunks(void **state)
{
    static const char *const small[] = { "--batch-tokens", "16", "--kv-type", "f32", NULL };
    static const char *const large[] = { "--batch-tokens", "512", "--kv-type", "f32", NULL };
    static struct got a, b;
    struct daemon_fixture other;
    char text[700];
    gist_conn *c;

    (void)state;
    for (size_t i = 0; i < sizeof(text) - 1; i++)
        text[i] = (char)('a' + i * i % 23);
    text[sizeof(text) - 1] = '\0';
    daemon_fixture_stop(&d);
    daemon_fixture_start(&other, DAEMON_FIXTURE_TINY, small);
    c = daemon_fixture_connect(&other);
    answer_alone(c, text, &a);
    gist_disconnect(c);
    daemon_fixture_stop(&other);
    daemon_fixture_start(&other, DAEMON_FIXTURE_TINY, large);
    c = daemon_fixture_connect(&other);
    answer_alone(c, text, &b);
    gist_disconnect(c);
    daemon_fixture_stop(&other);
    same(&a, &b);
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, NULL);
}

static int start(void **state)
{
    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, NULL);
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
        cmocka_unit_test(test_together),
        cmocka_unit_test(test_session_is_what_was_seen),
        cmocka_unit_test(test_stop_strings),
        cmocka_unit_test(test_which_stop_string),
        cmocka_unit_test(test_cancel_in_answer),
        cmocka_unit_test(test_score),
        cmocka_unit_test(test_score_is_the_answers_model),
        cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_busy_and_not_found),
        cmocka_unit_test(test_seed),
        cmocka_unit_test(test_text_and_back),
        cmocka_unit_test(test_chunks),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
