/* tests/test_perplexity.c - would catch: a loss of precision that no small test shows: in the
 * quantised kernels, in f16 KV, over 30 layers and 2048 tokens of context; or another tokenizer
 * than the model was trained with.
 *
 * The reference: transformers in f32 on the dequantised weights of the same file, over 22,359
 * tokens of tests/data/score.txt (tests/reference/README.md). All of it on the kernels that this
 * CPU gets, its beginning on each of the others that it has.
 */
#include "base/thread.h"
#include "engine/file/gguf.h"
#include "engine/text/vocab.h"
#include "tests/support/ref.h"
#include "tests/support/rig.h"
#include "tests/support/sanitized.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define REF  "tests/data/score.ref"
#define TEXT "tests/data/score.txt"
#define STEP 256u /* tokens a step */

#define SHORT        512u  /* tokens of the beginning */
#define SHORT_SCALAR 2048u /* when it is the scalar kernels that this CPU shall use */

#define PPL_TOLERANCE       0.003 /* what the project promises */
#define PPL_TOLERANCE_SHORT 0.01  /* of some hundred tokens */
/* Mean distance of a token's log-probability. Errors of both signs would cancel out in the
 * perplexity; they don't here. Activations in int8 blocks cost 0.048. */
#define LOGPROB_TOLERANCE 0.06

static const char *model_path;

static char *read_text(size_t *ret_len)
{
    FILE *f = fopen(TEXT, "rb");
    char *text;
    long len;

    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    len = ftell(f);
    rewind(f);
    text = malloc((size_t)len);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)len, f), len);
    fclose(f);
    *ret_len = (size_t)len;
    return text;
}

static void ids_equal(void **state)
{
    struct why why = { 0 };
    struct vocab_encoder *e;
    struct vocab *v;
    struct gguf *g;
    struct ref ref;
    size_t len, n = 0, part;
    int ended;
    char *text = read_text(&len);
    uint32_t *ids;

    (void)state;
    assert_int_equal(ref_open(REF, &ref), 0);
    ids = malloc(((size_t)ref.n_tokens + 1) * sizeof(*ids));
    assert_non_null(ids);
    if (gguf_open(model_path, &g, &why) < 0 || vocab_open(g, &v, &why) < 0)
        fail_msg("%s", why.text);
    assert_int_equal(vocab_size(v), ref.n_vocab);
    assert_int_equal(vocab_encoder_new(v, &e), 0);
    vocab_encoder_start(e, text, len, false);
    do {
        ended = vocab_encoder_next(e, ids + n, ref.n_tokens + 1 - n, &part);
        assert_true(ended >= 0);
        n += part;
    } while (!ended && n <= ref.n_tokens);
    assert_int_equal(n, ref.n_tokens);
    assert_memory_equal(ids, ref.ids, n * sizeof(*ids));

    vocab_encoder_free(e);
    vocab_close(v);
    gguf_close(g);
    ref_close(&ref);
    free(ids);
    free(text);
}

/* The log-probabilities of one window's tokens but the first. */
static void score_window(struct rig *r, const uint32_t *ids, uint32_t n, float *logits,
                         float *ret_logprobs)
{
    uint32_t n_vocab = r->model->n_vocab;
    struct seq s;

    assert_int_equal(rig_seq(r, n, SEQ_SEGMENT_DEFAULT, 0, &s), 0);
    for (uint32_t at = 0; at < n; at += STEP) {
        uint32_t part = n - at < STEP ? n - at : STEP;

        assert_int_equal(rig_feed(r, &s, ids + at, part, STEP, logits), 0);
        for (uint32_t t = at; t < at + part && t + 1 < n; t++) {
            const float *row = logits + (size_t)(t - at) * n_vocab;

            ret_logprobs[t + 1] = row[ids[t + 1]] - r->kernels->logsumexp(row, n_vocab);
        }
    }
    seq_close(&s);
}

/* The first n_tokens. */
static void compare(const struct ref *ref, const char *cpu, const float *logprobs,
                    uint32_t n_tokens)
{
    double ours = 0, theirs = 0, apart = 0, ppl, ppl_ref;
    uint32_t n = 0;

    for (uint32_t t = 0; t < n_tokens; t++) {
        if (t % ref->window == 0) {
            assert_true(isnan(ref->logprobs[t]));
            continue;
        }
        ours += logprobs[t];
        theirs += ref->logprobs[t];
        apart += fabs((double)logprobs[t] - ref->logprobs[t]);
        n++;
    }
    ppl = exp(-ours / n);
    ppl_ref = exp(-theirs / n);
    print_message(
        "%s, %u tokens: perplexity %.5f, reference %.5f (%+.3f %%); a log-probability is %.4f "
        "apart on average\n",
        cpu, n, ppl, ppl_ref, 100 * (ppl / ppl_ref - 1), apart / n);
    assert_true(n >= (n_tokens == ref->n_tokens ? 20000 : SHORT - 1));
    assert_true(fabs(ppl / ppl_ref - 1) <=
                (n_tokens == ref->n_tokens ? PPL_TOLERANCE : PPL_TOLERANCE_SHORT));
    assert_true(apart / n <= LOGPROB_TOLERANCE);
}

/* n_tokens 0: all of them. */
static void run(const char *cpu, uint32_t n_tokens)
{
    struct why why = { 0 };
    struct rig_opts opts = { .model = model_path, .cpu = cpu, .kv = KV_F16, .max_batch = STEP };
    struct rig r;
    struct ref ref;
    float *logits, *logprobs;

    assert_int_equal(ref_open(REF, &ref), 0);
    n_tokens = n_tokens ? n_tokens : ref.n_tokens;
    opts.max_tokens = ref.window;
    opts.threads = thread_n_cpus() < 8 ? thread_n_cpus() : 8;
    if (rig_open(&r, &opts, &why) < 0)
        fail_msg("%s", why.text);
    assert_int_equal(r.model->n_vocab, ref.n_vocab);
    logits = malloc((size_t)STEP * ref.n_vocab * sizeof(*logits));
    logprobs = calloc(ref.n_tokens, sizeof(*logprobs));
    assert_true(logits && logprobs);

    for (uint32_t at = 0; at < n_tokens; at += ref.window)
        score_window(&r, ref.ids + at, n_tokens - at < ref.window ? n_tokens - at : ref.window,
                     logits, logprobs + at);
    compare(&ref, r.kernels->name, logprobs, n_tokens);

    free(logits);
    free(logprobs);
    ref_close(&ref);
    rig_close(&r);
}

static const struct kernels *chosen(void)
{
    const struct kernels *k;

    assert_int_equal(kernels_pick(rig_cpu(), &k), 0);
    return k;
}

static void perplexity_as_reference(void **state)
{
    (void)state;
    run("auto", chosen() == &kernels_scalar ? SHORT_SCALAR : 0);
}

static void beginning_on_all_kernels(void **state)
{
    (void)state;
    for (unsigned i = 0; kernels_name(i); i++) {
        if (strcmp(kernels_name(i), chosen()->name) != 0)
            run(kernels_name(i), SHORT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_equal),
        cmocka_unit_test(perplexity_as_reference),
        cmocka_unit_test(beginning_on_all_kernels),
    };

    model_path = getenv("GISTD_TEST_MODEL");
    if (!model_path || !*model_path) {
        puts("GISTD_TEST_MODEL does not name the default model");
        return 77;
    }
    if (SANITIZED) {
        puts("22,359 tokens take too long under a sanitizer");
        return 77;
    }
    if (rig_slow()) {
        puts("22,359 tokens of the default model take hours on the shim");
        return 77;
    }
    return cmocka_run_group_tests_name("perplexity", tests, NULL, NULL);
}
