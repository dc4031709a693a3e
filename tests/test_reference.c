/* tests/test_reference.c - would catch: anything that the engine computes otherwise than the rest
 * of the world does: a wrong pair or angle of the rotary embedding, Llama 3.1's scaling of it, a
 * bias or norm left out, heads in the wrong groups, the wrong epsilon; and results that depend on
 * how the tokens were fed, on where the sequence begins, on its segments, on its neighbours in a
 * batch, or on the number of threads.
 *
 * The reference is transformers in f32 on tiny random models (tests/reference/README.md). What is
 * the same to the bit on the CPU is so to rounding on a device, unless its steps have the same
 * shapes (tests/support/tolerance.h).
 */
#include "tests/support/near.h"
#include "tests/support/ref.h"
#include "tests/support/rig.h"
#include "tests/support/tolerance.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAX_BATCH   256u
#define POOL_TOKENS 4096u
#define SLOW_TOKENS 100u /* more than a segment of 64 or 80 */

static const char *const models[] = { "llama31", "smollm2", "qwen2", "qwen2_untied" };
#define N_MODELS (sizeof(models) / sizeof(*models))

static const char *const kv_name[KV__N] = { "f16", "f32", "q8_0" };

struct bench { /* a tiny model under one choice of kernels and KV, and its vectors */
    struct rig rig;
    struct ref ref;
    bool exact; /* rig_exact */
    char name[64];
    uint32_t n;   /* tokens that are fed: all that ref has, or SLOW_TOKENS */
    float *all;   /* (n, n_vocab): fed all at once, segments of 512 */
    float *other; /* (n, n_vocab): fed otherwise */
};

typedef void check_fn(struct bench *b);

/* --- the bench -------------------------------------------------------------------------------- */

static void feed(struct bench *b, uint32_t seg_len, uint32_t pos0, uint32_t chunk, float *ret)
{
    struct seq s;

    assert_int_equal(rig_seq(&b->rig, b->n, seg_len, pos0, &s), 0);
    assert_int_equal(rig_feed(&b->rig, &s, b->ref.ids, b->n, chunk, ret), 0);
    seq_close(&s);
}

/* n_tokens: of the reference, so many are fed; 0: all. */
static bool open_bench(struct bench *b, const char *model, const char *cpu, enum kv_type kv,
                       uint32_t threads, uint32_t n_tokens)
{
    struct why why = { 0 };
    char path[128];
    struct rig_opts opts = { .model = path,
                             .cpu = cpu,
                             .kv = kv,
                             .threads = threads,
                             .max_batch = MAX_BATCH,
                             .max_tokens = POOL_TOKENS };
    size_t len;
    int r;

    snprintf(b->name, sizeof(b->name), "%s, %s, %s KV", model, cpu, kv_name[kv]);
    snprintf(path, sizeof(path), "tests/data/tiny_%s.gguf", model);
    r = rig_open(&b->rig, &opts, &why);
    if (r == -ENOTSUP && !b->rig.kernels && strcmp(cpu, "scalar")) {
        print_message("not run: this CPU has no %s\n", cpu);
        return false;
    }
    if (r < 0)
        fail_msg("%s: %s", b->name, why.text);

    snprintf(path, sizeof(path), "tests/data/tiny_%s.ref", model);
    assert_int_equal(ref_open(path, &b->ref), 0);
    assert_int_equal(b->ref.n_vocab, b->rig.model->n_vocab);
    assert_true(b->ref.n_tokens <= MAX_BATCH);
    b->n = n_tokens ? n_tokens : b->ref.n_tokens;
    b->exact = rig_exact(&b->rig);
    len = (size_t)b->n * b->ref.n_vocab * sizeof(float);
    b->all = malloc(len);
    b->other = malloc(len);
    assert_true(b->all && b->other);
    feed(b, SEQ_SEGMENT_DEFAULT, 0, b->n, b->all);
    return true;
}

static void close_bench(struct bench *b)
{
    assert_int_equal(b->rig.account.used, 0);
    free(b->all);
    free(b->other);
    ref_close(&b->ref);
    rig_close(&b->rig);
}

static void run_on(check_fn *check, size_t m, enum kv_type kv, uint32_t n_tokens)
{
    for (unsigned c = 0; rig_table(c); c++) {
        struct bench b = { 0 };

        if (!open_bench(&b, models[m], rig_table(c), kv, 1, n_tokens))
            continue;
        check(&b);
        close_bench(&b);
    }
}

/* Runs a check on every model with every kind of kernels and KV. */
static void for_each(check_fn *check)
{
    for (size_t m = 0; m < N_MODELS; m++)
        for (int kv = 0; kv < KV__N; kv++)
            run_on(check, m, (enum kv_type)kv, 0);
}

/* The same, but where that takes long each model has one kind of KV, and fewer tokens. */
static void for_each_way(check_fn *check)
{
    if (!rig_slow())
        for_each(check);
    for (size_t m = 0; rig_slow() && m < N_MODELS; m++)
        run_on(check, m, (enum kv_type)(m % KV__N), SLOW_TOKENS);
}

/* Of a logit, from a reference and from another way to read. */
static double allowed(const struct bench *b)
{
    return tolerance_of(b->exact, tolerance_tiny, b->rig.pool.kv);
}

/* The bits of other are those of all; says where not. */
static void same_bits(const struct bench *b, const char *what)
{
    size_t n_vocab = b->ref.n_vocab;

    for (uint32_t t = 0; t < b->n; t++) {
        if (memcmp(b->all + t * n_vocab, b->other + t * n_vocab, n_vocab * sizeof(float)))
            fail_msg("%s: %s: logits after token %u differ by %g", b->name, what, t,
                     near_worst(0, b->all + t * n_vocab, b->other + t * n_vocab, n_vocab));
    }
}

/* The same of steps of other shapes. */
static void same(const struct bench *b, const char *what)
{
    double d = near_worst(0, b->all, b->other, (size_t)b->n * b->ref.n_vocab);

    if (b->exact)
        same_bits(b, what);
    else if (!(d <= allowed(b)))
        fail_msg("%s: %s: logits differ by %g, %g allowed", b->name, what, d, allowed(b));
}

/* --- against transformers --------------------------------------------------------------------- */

static void check_agrees(struct bench *b)
{
    const struct ref *ref = &b->ref;
    double rows = 0, logprobs = 0;

    for (uint32_t i = 0; i < ref->n_rows; i++)
        rows = near_worst(rows, b->all + (size_t)ref->row_pos[i] * ref->n_vocab,
                          ref->rows + (size_t)i * ref->n_vocab, ref->n_vocab);
    for (uint32_t t = 1; t < ref->n_tokens; t++)
        logprobs = near_worse(
            logprobs,
            rig_logprob(b->all + (size_t)(t - 1) * ref->n_vocab, ref->n_vocab, ref->ids[t]),
            (double)ref->logprobs[t]);
    print_message("%-30s logits within %.1e, log-probabilities within %.1e\n", b->name, rows,
                  logprobs);
    if (!(rows <= allowed(b)) || !(logprobs <= allowed(b)))
        fail_msg("%s: logits %g, log-probabilities %g from transformers, %g allowed", b->name, rows,
                 logprobs, allowed(b));
}

static void agrees_with_transformers(void **state)
{
    (void)state;
    for_each(check_agrees);
}

/* --- against itself --------------------------------------------------------------------------- */

static void check_chunks(struct bench *b)
{
    static const uint32_t chunks[] = { 1, 7, 33 };

    for (size_t i = 0; i < sizeof(chunks) / sizeof(*chunks); i++) {
        char what[32];

        snprintf(what, sizeof(what), "in chunks of %u", chunks[i]);
        feed(b, SEQ_SEGMENT_DEFAULT, 0, chunks[i], b->other);
        same(b, what);
    }
}

static void chunked_equals_whole(void **state)
{
    (void)state;
    for_each_way(check_chunks);
}

/* Keys are relative to their segment, so only distances may matter. Whole and chunked, since the
 * place of a chunk's first token is computed too; segments of 64, since bases of several matter. */
static void check_far(struct bench *b)
{
    feed(b, 64, 0, b->n, b->all);
    feed(b, 64, 1000000, b->n, b->other);
    same_bits(b, "at position 1,000,000");
    feed(b, 64, 1000000, 33, b->other);
    same(b, "at position 1,000,000 in chunks");
    feed(b, 64, 0, 33, b->all);
    same_bits(b, "at position 1,000,000 in chunks as before it");
}

static void far_position_equals_zero(void **state)
{
    (void)state;
    for_each_way(check_far);
}

/* Another segment length is another split of each query's sum, and other angles whose difference is
 * the same: equal to rounding, not to the bit. */
static void check_segments(struct bench *b)
{
    static const uint32_t lens[] = { 64, 80 };

    for (size_t i = 0; i < sizeof(lens) / sizeof(*lens); i++) {
        double d;
        /* q8_0 by its tolerance twice: each side is off by its own roundings. */
        double bound = allowed(b) * (b->rig.pool.kv == KV_Q8_0 ? 2 : 1);

        feed(b, lens[i], 0, b->n, b->other);
        d = near_worst(0, b->all, b->other, (size_t)b->n * b->ref.n_vocab);
        if (!(d <= bound))
            fail_msg("%s: segments of %u: %g from segments of %u", b->name, lens[i], d,
                     SEQ_SEGMENT_DEFAULT);
    }
}

static void segment_lengths_agree(void **state)
{
    (void)state;
    for_each_way(check_segments);
}

/* --- in company ------------------------------------------------------------------------------- */

/* Sequences of a mixed batch: each step gives each so many of its next tokens. The first is the one
 * that is looked at; the others begin at other tokens and positions and have other segments. */
static const struct guest {
    uint32_t seg_len, pos0, shift, steps[4];
} guests[] = {
    { 512, 0, 0, { 1, 40, 1, 22 } },   /* decodes, reads, decodes, reads */
    { 64, 5000, 17, { 70, 1, 1, 1 } }, /* reads a prompt, then decodes */
    { 128, 0, 101, { 1, 1, 100, 3 } },
    { 512, 9, 33, { 5, 5, 0, 5 } }, /* sits out a step */
};
#define N_GUESTS (sizeof(guests) / sizeof(*guests))

/* One step of the company; returns the number of tokens that the first one took. */
static uint32_t feed_company(struct bench *b, struct seq *seqs, uint32_t step, uint32_t *ids)
{
    struct forward_run runs[N_GUESTS];
    uint32_t n_runs = 0, n_out, first = guests[0].steps[step % 4];

    if (first > b->n - seqs[0].n_tokens)
        first = b->n - seqs[0].n_tokens;
    /* Last guest first, so that the first one's rows are not the first rows of the batch. */
    for (size_t g = N_GUESTS; g-- > 0;) {
        struct seq *s = &seqs[g];
        uint32_t n = g == 0 ? first : guests[g].steps[step % 4];

        if (n == 0 || s->n_tokens + n > s->max_tokens)
            continue;
        assert_int_equal(seq_reserve(s, n), 0);
        runs[n_runs++] = (struct forward_run){
            .seq = s,
            .tokens = ids + (guests[g].shift + s->n_tokens) % b->n,
            .n_tokens = n,
            .want = g == 0   ? FORWARD_WANT_ALL
                    : g == 1 ? FORWARD_WANT_LAST
                             : FORWARD_WANT_NONE,
        };
    }
    assert_int_equal(forward_step(&b->rig.forward, runs, n_runs, NULL, &n_out), 0);
    assert_true(n_out >= first);
    (void)forward_logits(&b->rig.forward, n_out - first, first,
                         b->other + (size_t)(seqs[0].n_tokens - first) * b->ref.n_vocab);
    return first;
}

static void check_company(struct bench *b)
{
    struct seq seqs[N_GUESTS];
    uint32_t n = b->n;
    uint32_t *ids =
        malloc(2 * (size_t)n * sizeof(*ids)); /* twice, so that a run may pass the end */

    assert_non_null(ids);
    memcpy(ids, b->ref.ids, n * sizeof(*ids));
    memcpy(ids + n, b->ref.ids, n * sizeof(*ids));
    for (size_t g = 0; g < N_GUESTS; g++)
        assert_int_equal(
            rig_seq(&b->rig, g == 0 ? n : 600, guests[g].seg_len, guests[g].pos0, &seqs[g]), 0);
    for (uint32_t step = 0, done = 0; done < n; step++)
        done += feed_company(b, seqs, step, ids);
    for (size_t g = 0; g < N_GUESTS; g++)
        seq_close(&seqs[g]);
    free(ids);
    same(b, "in company");
}

static void batched_equals_alone(void **state)
{
    (void)state;
    for_each_way(check_company);
}

static void threads_change_nothing(void **state)
{
    struct bench one = { 0 }, three = { 0 };

    (void)state;
    assert_true(open_bench(&one, "smollm2", "auto", KV_F16, 1, 0));
    assert_true(open_bench(&three, "smollm2", "auto", KV_F16, 3, 0));
    memcpy(three.other, one.all, (size_t)one.n * one.ref.n_vocab * sizeof(*one.all));
    same_bits(&three, "three threads against one");
    close_bench(&one);
    close_bench(&three);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_transformers), cmocka_unit_test(chunked_equals_whole),
        cmocka_unit_test(far_position_equals_zero), cmocka_unit_test(segment_lengths_agree),
        cmocka_unit_test(batched_equals_alone),     cmocka_unit_test(threads_change_nothing),
    };

    return cmocka_run_group_tests_name("reference", tests, NULL, NULL);
}
