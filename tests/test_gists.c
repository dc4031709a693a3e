/* tests/test_gists.c - would catch: a compressor that computes something else than its definition:
 * gists with the wrong projections, embedding, bias or place, keys at the wrong positions, a token
 * that sees what it should not, observers that count wrongly; and results that depend on chunks.
 *
 * The reference is a plain implementation in f64 by tests/reference/gist_vectors.py, on the tiny
 * random models and random adapters. Chunks give the same bits on the CPU, and the same to rounding
 * on a device (tests/support/tolerance.h).
 */
#include "tests/support/memory_rig.h"
#include "tests/support/near.h"
#include "tests/support/ref.h"
#include "tests/support/tolerance.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SEGMENT     64u
#define BATCH       128u
#define BUDGET      4096u
#define SLOW_TOKENS 150u

static const char *const models[] = { "llama31", "smollm2", "qwen2", "qwen2_untied" };

/* The random adapters of a model, and how their files end. */
enum adapters { FINE, COARSE, REC, AMONG, ALL, N_ADAPTERS, NO_ADAPTER = N_ADAPTERS };
static const char *const suffixes[N_ADAPTERS] = { "", "_coarse", "_rec", "_among", "_all" };

static const struct {
    const char *name;
    struct policy policy;
    enum adapters adapter;
    const char *model; /* of which it is the only one; NULL: of each */
} cases[] = {
    { "none",
      { .spec = { COMPRESS_NONE, 1, 0, NULL }, .seg_len = SEGMENT, .budget = BUDGET },
      NO_ADAPTER,
      NULL },
    { "fine",
      { .spec = { COMPRESS_FINE_KV, 8, 4, NULL }, .seg_len = SEGMENT, .budget = BUDGET },
      NO_ADAPTER,
      NULL },
    { "tail",
      { .spec = { COMPRESS_FINE_KV, 4, 3, NULL },
        .seg_len = SEGMENT,
        .keep_tail = 21,
        .budget = BUDGET },
      NO_ADAPTER,
      NULL },
    { "select",
      { .spec = { COMPRESS_SELECT, 8, 4, NULL }, .seg_len = SEGMENT, .budget = BUDGET },
      NO_ADAPTER,
      NULL },
    { "gists",
      { .spec = { COMPRESS_FINE_KV, 8, 4, NULL }, .seg_len = SEGMENT, .budget = BUDGET },
      FINE,
      NULL },
    { "gists2",
      { .spec = { COMPRESS_FINE_KV, 2, 0, NULL },
        .seg_len = SEGMENT,
        .keep_tail = 10,
        .budget = BUDGET },
      FINE,
      NULL },
    { "coarse",
      { .spec = { COMPRESS_COARSE_KV, 8, 4, NULL }, .seg_len = SEGMENT, .budget = BUDGET },
      COARSE,
      NULL },
    { "coarse4",
      { .spec = { COMPRESS_COARSE_KV, 4, 0, NULL },
        .seg_len = SEGMENT,
        .keep_tail = 21,
        .budget = BUDGET },
      COARSE,
      NULL },
    { "rec",
      { .spec = { COMPRESS_COARSE_REC, 8, 4, NULL }, .seg_len = SEGMENT, .budget = BUDGET },
      REC,
      NULL },
    { "rec4",
      { .spec = { COMPRESS_COARSE_REC, 4, 1, NULL },
        .seg_len = SEGMENT,
        .keep_tail = 33,
        .budget = BUDGET },
      REC,
      NULL },
    { "among",
      { .spec = { COMPRESS_FINE_KV, 8, 4, NULL }, .seg_len = SEGMENT, .budget = BUDGET },
      AMONG,
      NULL },
    { "reread",
      { .spec = { COMPRESS_SELECT_REREAD, 8, 4, NULL }, .seg_len = SEGMENT, .budget = BUDGET },
      NO_ADAPTER,
      NULL },
    { "reread4",
      { .spec = { COMPRESS_SELECT_REREAD, 4, 3, NULL },
        .seg_len = SEGMENT,
        .keep_tail = 21,
        .budget = BUDGET },
      NO_ADAPTER,
      NULL },
    { "fit",
      { .spec = { COMPRESS_FIT, 8, 4, NULL }, .seg_len = SEGMENT, .budget = BUDGET },
      NO_ADAPTER,
      NULL },
    { "fit2",
      { .spec = { COMPRESS_FIT, 2, 3, NULL },
        .seg_len = SEGMENT,
        .keep_tail = 21,
        .budget = BUDGET },
      NO_ADAPTER,
      NULL },
    { "among2",
      { .spec = { COMPRESS_FINE_KV, 2, 2, NULL },
        .seg_len = SEGMENT,
        .keep_tail = 10,
        .budget = BUDGET },
      AMONG,
      NULL },
    { "all",
      { .spec = { COMPRESS_COARSE_REC, 4, 4, NULL }, .seg_len = SEGMENT, .budget = BUDGET },
      ALL,
      "llama31" },
    { "all",
      { .spec = { COMPRESS_FINE_KV, 4, 3, NULL },
        .seg_len = SEGMENT,
        .keep_tail = 21,
        .budget = BUDGET },
      ALL,
      "smollm2" },
    { "all",
      { .spec = { COMPRESS_FINE_KV, 4, 4, NULL },
        .seg_len = SEGMENT,
        .keep_tail = 10,
        .budget = BUDGET },
      ALL,
      "qwen2" },
    { "all",
      { .spec = { COMPRESS_COARSE_KV, 8, 4, NULL }, .seg_len = SEGMENT, .budget = BUDGET },
      ALL,
      "qwen2_untied" },
};
#define N_CASES (sizeof(cases) / sizeof(*cases))

/* As of whole models (tests/support/tolerance.h); keys that are turned back are rounded once more.
 */
static const float tolerance[KV__N] = { [KV_F16] = 8e-2f, [KV_F32] = 4e-4f, [KV_Q8_0] = 1.2f };

struct bench {
    struct memory_rig rig;
    struct adapter *adapters[N_ADAPTERS + 1]; /* the last: none */
    bool exact;                               /* rig_exact */
    char model[96];
    uint32_t n_near, n_chosen; /* tokens behind a choice: within the tolerance, all */
};

static bool open_bench(struct bench *b, const char *model, const char *cpu, enum kv_type kv,
                       uint32_t max_batch)
{
    struct rig_opts opts = { .model = b->model,
                             .cpu = cpu,
                             .kv = kv,
                             .threads = 2,
                             .max_batch = max_batch,
                             .max_tokens = 2048 };
    struct why why = { "" };
    int r;

    (void)snprintf(b->model, sizeof(b->model), "tests/data/tiny_%s.gguf", model);
    r = memory_rig_open(&b->rig, &opts, &why);
    if (r == -ENOTSUP)
        return false;
    for (int i = 0; r == 0 && i < N_ADAPTERS; i++) {
        char path[96];

        (void)snprintf(path, sizeof(path), "tests/data/gist_%s%s.safetensors", model, suffixes[i]);
        r = adapter_open(path, b->rig.rig.model, &b->adapters[i], &why);
    }
    if (r < 0)
        fail_msg("%s: %s", model, why.text);
    b->exact = rig_exact(&b->rig.rig);
    return true;
}

static void close_bench(struct bench *b)
{
    for (int i = 0; i < N_ADAPTERS; i++)
        adapter_close(b->adapters[i]);
    assert_int_equal(b->rig.rig.account.used, 0);
    memory_rig_close(&b->rig);
}

/* All ids from nothing, in chunks. ret (n, n_vocab). */
static void feed(struct bench *b, const struct policy *policy, const struct ref *ref,
                 uint32_t chunk, float *ret)
{
    struct policy p = *policy;
    struct memory memory;
    struct seq seq;

    assert_int_equal(rig_seq(&b->rig.rig, ref->n_tokens, SEGMENT, 0, &seq), 0);
    assert_int_equal(memory_init(&memory, &p, &b->rig.served, &seq), 0);
    assert_int_equal(memory_rig_feed(&b->rig, &memory, ref->ids, ref->n_tokens, chunk, ret), 0);
    memory_fini(&memory);
    seq_close(&seq);
}

static double rounded(const struct bench *b)
{
    return tolerance_of(b->exact, tolerance, b->rig.rig.pool.kv);
}

/* bf16 products round their activations to 8 bits: a gist of a half-precision adapter has a
 * hundredth of that in its logits, as whole models of such weights have
 * (tests/test_reference_types.c); a device multiplies gists in f32. What is rounded in coarse-rec's
 * first pass goes through the model a second time. */
static double allowed(const struct bench *b, const struct compress_spec *c)
{
    bool rounds = c->adapter && b->exact && b->rig.rig.kernels->to_bf16;
    double once = rounds && rounded(b) < 1e-1 ? 1e-1 : rounded(b);

    return c->method == COMPRESS_COARSE_REC && once > 1e-3 ? 4 * once : once;
}

static bool chooses(const struct compress_spec *c)
{
    return c->method == COMPRESS_SELECT || c->method == COMPRESS_SELECT_REREAD ||
           c->method == COMPRESS_FIT;
}

/* A rounding of KV, or of a device's products, may let select choose another key than the
 * reference's, and what follows differs then. Nothing was chosen before the end of the first
 * segment, so there it has to be equal. */
static void count_near(struct bench *b, size_t i, const struct ref *ref, const float *logits)
{
    for (uint32_t t = 0; t + 1 < ref->n_tokens; t++) {
        double p = rig_logprob(logits + (size_t)t * ref->n_vocab, ref->n_vocab, ref->ids[t + 1]);
        bool near = near_within(p, (double)ref->logprobs[t + 1], rounded(b));

        if (t < SEGMENT && !near)
            fail_msg("%s, %s: token %u is off by %g before a key was chosen", b->model,
                     cases[i].name, t, near_distance(p, (double)ref->logprobs[t + 1]));
        b->n_near += near && t >= SEGMENT;
        b->n_chosen += t >= SEGMENT;
    }
}

/* Measured: behind the first choice f16 is near in 78 tokens of 100 or more and q8_0 in 88; with
 * fine-kv's keys in the place of the chosen ones they are in 8 and in 63. */
static void check_choices(const struct bench *b)
{
    uint32_t percent = b->rig.rig.pool.kv == KV_Q8_0 ? 77 : 45;

    assert_int_equal(b->n_chosen > 0, !b->exact || b->rig.rig.pool.kv != KV_F32);
    if (b->n_chosen)
        print_message("%s, %s, KV %d: %u of %u tokens behind a choice are near\n", b->model,
                      b->rig.rig.kernels->name, (int)b->rig.rig.pool.kv, b->n_near, b->n_chosen);
    if (b->n_near * 100 < b->n_chosen * percent)
        fail_msg("%s, %s: %u of %u tokens are near the reference, %u %% should be", b->model,
                 b->rig.rig.kernels->name, b->n_near, b->n_chosen, percent);
}

/* Steps of other shapes: to the bit, or each as far from the reference as it may be. */
static void same(const struct bench *b, const struct compress_spec *c, const float *one,
                 const float *other, size_t len)
{
    double d = near_worst(0, one, other, len / sizeof(*one));

    if (b->exact)
        assert_memory_equal(one, other, len);
    else if (!(d <= allowed(b, c)))
        fail_msg("%s, method %d: %g apart, %g allowed", b->model, (int)c->method, d, allowed(b, c));
}

/* Where it takes long to the first of its tokens, two segments and a bit. */
static void shorten(struct ref *ref)
{
    if (!rig_slow())
        return;
    ref->n_tokens = SLOW_TOKENS;
    while (ref->n_rows && ref->row_pos[ref->n_rows - 1] >= SLOW_TOKENS)
        ref->n_rows--;
}

/* chunked: the same ids in other chunks, too. */
static void check_case(struct bench *b, const char *model, size_t i, enum kv_type kv, bool chunked)
{
    static const uint32_t chunks[] = { 100, 7, 1 };
    struct policy policy = cases[i].policy;
    struct ref ref;
    char path[96];
    size_t len;
    float *all, *other;
    double worst;
    bool chosen;

    (void)snprintf(path, sizeof(path), "tests/data/gist_%s_%s.ref", model, cases[i].name);
    assert_int_equal(ref_open(path, &ref), 0);
    assert_int_equal(ref.n_vocab, b->rig.rig.model->n_vocab);
    shorten(&ref);
    policy.spec.adapter = b->adapters[cases[i].adapter];
    len = (size_t)ref.n_tokens * ref.n_vocab * sizeof(float);
    all = malloc(len);
    other = malloc(len);
    feed(b, &policy, &ref, chunks[0], all);
    worst = rig_distance(&ref, all);
    chosen = chooses(&policy.spec) && (kv != KV_F32 || !b->exact);
    if (chosen)
        count_near(b, i, &ref, all);
    else if (!(worst <= allowed(b, &policy.spec)))
        fail_msg("%s, %s, %s, KV %d: off by %g", model, cases[i].name, b->rig.rig.kernels->name, kv,
                 worst);
    for (size_t c = 1; chunked && c < sizeof(chunks) / sizeof(*chunks); c++) {
        if (rig_slow() && c % 2 != i % 2) /* each case in one of the ways */
            continue;
        feed(b, &policy, &ref, chunks[c], other);
        if (chosen)
            count_near(b, i, &ref, other);
        else
            same(b, &policy.spec, other, all, len);
    }
    free(all);
    free(other);
    ref_close(&ref);
}

/* Where it takes long, every third is. */
static bool is_due(size_t i, size_t m)
{
    if (cases[i].model)
        return strcmp(cases[i].model, models[m]) == 0;
    return !rig_slow() || (i + m) % 3 == 0;
}

static void equals_the_reference(void **state)
{
    (void)state;
    for (size_t m = 0; m < sizeof(models) / sizeof(*models); m++)
        for (unsigned k = 0; rig_table(k); k++)
            for (enum kv_type kv = 0; kv < KV__N; kv++) {
                struct bench b = { .model = "" };

                if (kv != KV_F32 && (m + k) % 2) /* each has two of the models */
                    continue;
                if (!open_bench(&b, models[m], rig_table(k), kv, BATCH))
                    continue;
                for (size_t i = 0; i < N_CASES; i++)
                    if (is_due(i, m))
                        check_case(&b, models[m], i, kv, kv == KV_F32 && (m + k) % 2 == 0);
                check_choices(&b);
                close_bench(&b);
            }
}

/* An adapter without tensors is "keep every r-th token": only the last bit of its keys differs,
 * which are computed once more. */
static void untrained_keeps_every_rth(void **state)
{
    struct bench b = { .model = "" };
    struct ref ref;
    float *with, *without;
    double worst = 0;

    (void)state;
    assert_true(open_bench(&b, "qwen2_untied", "auto", KV_F32, BATCH));
    assert_int_equal(ref_open("tests/data/gist_qwen2_untied_fine.ref", &ref), 0);
    shorten(&ref);
    with = malloc((size_t)ref.n_tokens * ref.n_vocab * sizeof(float));
    without = malloc((size_t)ref.n_tokens * ref.n_vocab * sizeof(float));
    for (uint32_t ratio = 2; ratio <= 64; ratio *= 2) {
        struct policy policy = { .spec = { COMPRESS_FINE_KV, ratio, 4, NULL },
                                 .seg_len = SEGMENT,
                                 .budget = BUDGET };

        feed(&b, &policy, &ref, 100, without);
        policy.spec.adapter = b.adapters[FINE];
        feed(&b, &policy, &ref, 100, with);
        worst = near_worst(worst, with, without, (size_t)ref.n_tokens * ref.n_vocab);
    }
    if (!(worst <= (b.exact ? 1e-4 : rounded(&b))))
        fail_msg("off by %g", worst);
    free(with);
    free(without);
    ref_close(&ref);
    close_bench(&b);
}

/* Gists that take all of a small batch go through low-rank matrices some at a time. */
static void batches_say_the_same(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        struct policy policy = cases[i].policy;
        struct bench large = { .model = "" }, small = { .model = "" };
        struct ref ref;
        char path[96];
        float *one, *other;
        size_t len;

        if (cases[i].adapter != ALL)
            continue;
        assert_true(open_bench(&large, cases[i].model, "auto", KV_F32, BATCH));
        assert_true(open_bench(&small, cases[i].model, "auto", KV_F32, 16));
        (void)snprintf(path, sizeof(path), "tests/data/gist_%s_all.ref", cases[i].model);
        assert_int_equal(ref_open(path, &ref), 0);
        shorten(&ref);
        len = (size_t)ref.n_tokens * ref.n_vocab * sizeof(float);
        one = malloc(len);
        other = malloc(len);
        policy.spec.adapter = large.adapters[ALL];
        feed(&large, &policy, &ref, 100, one);
        policy.spec.adapter = small.adapters[ALL];
        feed(&small, &policy, &ref, 8, other);
        same(&large, &policy.spec, one, other, len);
        free(one);
        free(other);
        ref_close(&ref);
        close_bench(&large);
        close_bench(&small);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(equals_the_reference),
                                        cmocka_unit_test(untrained_keeps_every_rth),
                                        cmocka_unit_test(batches_say_the_same) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
