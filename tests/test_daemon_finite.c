/* tests/test_daemon_finite.c - the real daemon with models whose values overflow. Would catch: an
 * answer, a score or a row of logits that is made of NaN and sent as if it were none; a request
 * that fails of it and takes its session or its neighbours with it (issue 16).
 */
#include "tests/support/daemon_fixture.h"
#include "tests/support/gguf_build.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define GOOD_END 150u /* ids below are good tokens in hot_model, those from there on are not */

/* A qwen2 whose K has one element of 1e6: nothing to f32, and too much for f16. */
static const char *wide_model(void)
{
    static char path[SCRATCH_PATH_MAX];
    struct gguf_build_shape s = gguf_build_tiny();
    float bias[32] = { 0 };
    const uint64_t n = 32;
    struct gguf_build *b;

    s.arch = "qwen2";
    s.biases = true;
    b = gguf_build_model(&s);
    bias[5] = 1e6f;
    gguf_build_tensor(b, "blk.1.attn_k.bias", QUANT_F32, 1, &n, bias);
    gguf_build_write(b, scratch_path(path, "wide.gguf"));
    gguf_build_free(b);
    return path;
}

/* A model with embeddings so large that the square of one is infinite. */
static const char *hot_model(void)
{
    static char path[SCRATCH_PATH_MAX];
    struct gguf_build_shape s = gguf_build_tiny();
    const uint64_t dims[] = { s.n_embd, s.n_vocab };
    float *embd = malloc(dims[0] * dims[1] * sizeof(*embd));
    struct gguf_build *b;
    uint64_t seed = 4;

    s.tied = false;
    b = gguf_build_model(&s);
    gguf_build_values(QUANT_F32, dims[0] * dims[1], 0, 0.1f, &seed, embd);
    for (size_t i = GOOD_END * dims[0]; i < dims[0] * dims[1]; i++)
        embd[i] *= 1e25f;
    gguf_build_tensor(b, "token_embd.weight", QUANT_F32, 2, dims, embd);
    gguf_build_write(b, scratch_path(path, "hot.gguf"));
    gguf_build_free(b);
    free(embd);
    return path;
}

static gist_conn *start(struct daemon_fixture *d, const char *model, const char *kv)
{
    static char sock[SCRATCH_PATH_MAX];
    const char *args[] = { "--model",    model, "--socket",  scratch_path(sock, "finite.sock"),
                           "--kv-bytes", "8M",  "--kv-type", kv,
                           NULL };

    daemon_fixture_spawn(d, args);
    (void)snprintf(d->socket, sizeof(d->socket), "%s", sock);
    if (!daemon_fixture_notified(d, "READY=1", DAEMON_FIXTURE_PATIENCE_MS))
        fail_msg("it said: %s", daemon_fixture_log(d));
    return daemon_fixture_connect(d);
}

static void failed(gist_conn *c, int e, const char *words)
{
    assert_true(e < 0);
    if (gist_error_code(c) != GIST_E_INTERNAL ||
        !strstr(gist_error(c), "the model's output is not finite") || !strstr(gist_error(c), words))
        fail_msg("said \"%s\", expected \"%s\"", gist_error(c), words);
}

static uint32_t tokens_of(gist_conn *c)
{
    struct gist_stats st;

    assert_int_equal(gist_stats(c, &st), 0);
    assert_int_equal(st.n_sessions, 1);
    return st.sessions[0].n_tokens;
}

/* Context memory that is too narrow: its type is named, and a wider one helps. */
static void narrow_context(void **state)
{
    static const char *const types[] = { "f16", "f32", "q8_0" };
    const char *model = wide_model();

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct daemon_fixture d;
        gist_conn *c = start(&d, model, types[i]);
        struct gist_score score;
        gist_session *s;

        assert_int_equal(gist_open(c, NULL, &s), 0);
        if (i == 0) {
            failed(c, gist_append_text(s, "abc", 3, 0, NULL), "of type f16 (try --kv-type f32)");
            assert_int_equal(tokens_of(c), 0);
            failed(c, gist_score_text(c, "abcabc", 6, NULL, &score), "f16");
        } else {
            assert_int_equal(gist_append_text(s, "abc", 3, 0, NULL), 0);
            assert_int_equal(gist_score_text(c, "abcabc", 6, NULL, &score), 0);
            for (size_t t = 1; t < score.n; t++)
                assert_true(isfinite(score.logprobs[t]));
            free(score.ids);
            free(score.logprobs);
        }
        gist_close(s);
        gist_disconnect(c);
        daemon_fixture_stop(&d);
    }
}

static int on_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    uint32_t *n = arg;

    (void)text;
    (void)len;
    for (size_t i = 0; i < n_ids; i++)
        n[ids[i] >= GOOD_END]++;
    return 0;
}

static int on_rows(void *arg, size_t first, size_t n, uint32_t n_vocab, const float *rows)
{
    (void)first;
    for (size_t i = 0; i < n * n_vocab; i++)
        assert_true(isfinite(rows[i]));
    *(size_t *)arg += n;
    return 0;
}

/* Generate: what was said before the bad token was read stays, and the session goes on before it.
 */
static void hot_tokens(void **state)
{
    const struct gist_sampling p = {
        .size = sizeof(p), .max_tokens = 500, .temperature = 100, .ignore_eog = 1, .seed = 1
    };
    uint32_t good[] = { 70, 71, 72, 73 }, bad[] = { 70, 71, 200, 73 };
    struct daemon_fixture d;
    gist_conn *c = start(&d, hot_model(), "f32");
    struct gist_result result;

    (void)state;
    for (int i = 0; i < 3; i++) {
        uint32_t n[2] = { 0, 0 };
        gist_session *s;

        assert_int_equal(gist_open(c, NULL, &s), 0);
        assert_int_equal(gist_append_tokens(s, good, 4, NULL), 0);
        failed(c, gist_append_tokens(s, bad, 4, NULL), "overflow");
        assert_int_equal(tokens_of(c), 4);
        failed(c, gist_generate(s, &p, on_text, n, &result), "overflow");
        assert_int_equal(n[1], 1); /* the last one, which could not be gone on from */
        assert_int_equal(tokens_of(c), 4 + n[0] + n[1]);
        failed(c, gist_generate(s, &p, on_text, n, &result), "overflow"); /* again */
        assert_int_equal(gist_rewind(s, 4), 0);
        assert_int_equal(gist_append_tokens(s, good, 4, NULL), 0);
        gist_close(s);
    }
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

static void hot_scores(void **state)
{
    uint32_t ids[400];
    struct daemon_fixture d;
    gist_conn *c = start(&d, hot_model(), "f32");
    size_t n_rows = 0;
    struct gist_score score;

    (void)state;
    for (uint32_t i = 0; i < 400; i++)
        ids[i] = 70 + i % 50;
    assert_int_equal(gist_score_logits(c, ids, 400, NULL, on_rows, &n_rows), 0);
    assert_int_equal(n_rows, 400);
    ids[390] = 200;
    failed(c, gist_score_tokens(c, ids, 400, NULL, &score), "overflow");
    failed(c, gist_score_logits(c, ids, 400, NULL, on_rows, &n_rows), "overflow");
    ids[390] = 70;
    assert_int_equal(gist_score_tokens(c, ids, 400, NULL, &score), 0);
    assert_int_equal(score.n, 400);
    free(score.ids);
    free(score.logprobs);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(narrow_context),
        cmocka_unit_test(hot_tokens),
        cmocka_unit_test(hot_scores),
    };

    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
