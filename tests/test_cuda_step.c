/* tests/test_cuda_step.c - whole steps on the device (cuda/step.h), over the shim: built plain, for
 * threads and for bounds. Would catch: a layer, a bias, a page or a form of rows that is wrong on
 * the device alone, work of two streams without an event between them, a buffer that is too short
 * or that is read before it was written, results that depend on the order of blocks, a step that
 * can't be given up, a device that is lost and asked again, one without memory that ends the
 * program.
 *
 * What is computed is held to the scalar kernels of the CPU, by the distributions that come out:
 * the device rounds activations and quantised weights of many rows to bf16 (8 bits), and of few
 * rows activations to int8 as the CPU does; float weights have 16 bits in both. Mean divergence of
 * random models of width 64 to 128, whose logits spread more than a trained model's, stays below
 * the limits here; a bias that is left out brings 100 times that.
 */
#include "cuda/backend_cuda.h"
#include "cuda/room.h"
#include "engine/file/tile.h"
#include "engine/fit.h"
#include "engine/forward.h"
#include "tests/support/cuda_rig.h"
#include "tests/support/near.h"
#include "tests/support/sanitized.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAX_BATCH 64u
#define SEG       64u
#define N_TOKENS  150u /* two segments and a bit: nothing is a multiple of anything */
#define N_VOCAB   GGUF_BUILD_N_VOCAB

/* Mean divergence from the CPU's distributions that is allowed. */
#define KL_FEW   1e-4
#define KL_MANY  2e-4
#define KL_FLOAT 1e-8

static const struct cuda_rig_kind kinds[] = {
    { "f32", "llama", QUANT_F32, KV_F16, 64, 96, 4, 2, false, true },
    { "q8_0 with biases", "qwen2", QUANT_Q8_0, KV_F16, 128, 160, 8, 1, true, false },
    { "q4_0, q8_0 pages", "llama", QUANT_Q4_0, KV_Q8_0, 192, 256, 3, 3, false, true },
    { "q4_k", "llama", QUANT_Q4_K, KV_F16, 256, 256, 4, 1, false, false },
    { "f16", "qwen2", QUANT_F16, KV_F16, 64, 96, 4, 4, true, false },
};
#define N_KINDS (sizeof(kinds) / sizeof(*kinds))

static void write_model(const struct cuda_rig_kind *k, char path[SCRATCH_PATH_MAX])
{
    char name[64];

    (void)snprintf(name, sizeof(name), "kind%u.gguf", (unsigned)(k - kinds));
    cuda_rig_write(k, name, path);
}

static void open_rig(struct rig *r, const struct cuda_rig_kind *k, const struct backend_ops *ops)
{
    char path[SCRATCH_PATH_MAX];
    /* One thread: the CPU's own workers are no business of the thread sanitizer's here, and are not
     * instrumented. */
    const struct rig_opts o = { .model = path,
                                .cpu = "scalar",
                                .kv = k->kv,
                                .threads = 1,
                                .max_batch = MAX_BATCH,
                                .max_tokens = 4 * N_TOKENS,
                                .backend = ops };
    struct why why = { "" };

    write_model(k, path);
    if (rig_open(r, &o, &why) < 0)
        fail_msg("%s: %s", k->name, why.text);
}

/* Logits after each of the ids, read in chunks. */
static float *feed(struct rig *r, uint32_t n, uint32_t chunk)
{
    uint32_t ids[N_TOKENS];
    float *ret = malloc((size_t)n * N_VOCAB * sizeof(*ret));
    struct seq s;

    cuda_rig_ids(ids, n);
    assert_int_equal(rig_seq(r, n, SEG, 0, &s), 0);
    assert_int_equal(rig_feed(r, &s, ids, n, chunk, ret), 0);
    seq_close(&s);
    return ret;
}

static double limit_of(const struct cuda_rig_kind *k, uint32_t chunk)
{
    if (k->type == QUANT_F32 || k->type == QUANT_F16)
        return KL_FLOAT;
    return chunk <= 8 ? KL_FEW : KL_MANY;
}

static void equals_the_cpu(void **state)
{
    static const uint32_t chunks[] = { 1, 7, 50 };

    (void)state;
    if (SANITIZED)
        skip(); /* what comes out is looked at as it is */
    for (unsigned k = 0; k < N_KINDS; k++) {
        struct rig cpu, dev;
        float *expected;
        uint32_t n = N_TOKENS;

        open_rig(&cpu, &kinds[k], &backend_cpu);
        open_rig(&dev, &kinds[k], gistd_backend());
        expected = feed(&cpu, n, MAX_BATCH);
        for (unsigned c = 0; c < 3; c++) {
            float *found = feed(&dev, n, chunks[c]);
            double kl = cuda_rig_mean_divergence(expected, found, n, N_VOCAB);
            double limit = limit_of(&kinds[k], chunks[c]);

            print_message("%s, %u at a time: mean divergence %.3g\n", kinds[k].name, chunks[c], kl);
            if (!(kl <= limit))
                fail_msg("%s, %u at a time: %g, %g is allowed", kinds[k].name, chunks[c], kl,
                         limit);
            free(found);
        }
        free(expected);
        rig_close(&cpu);
        rig_close(&dev);
    }
}

/* Blocks and threads from the last to the first, and work as late as it may be: the same bits. */
static void order_and_lateness_do_not_show(void **state)
{
    struct rig r;
    float *plain, *other;
    uint32_t n = SEG + 10;

    (void)state;
    open_rig(&r, &kinds[1], gistd_backend());
    if (SANITIZED) { /* late alone, since that is where a race shows: a prompt, and a token behind
                        it */
        shim_set_late(true);
        free(feed(&r, SEG + 2, SEG));
        shim_set_late(false);
        rig_close(&r);
        return;
    }
    plain = feed(&r, n, 50);
    shim_set_order(true);
    other = feed(&r, n, 50);
    shim_set_order(false);
    assert_memory_equal(plain, other, (size_t)n * N_VOCAB * sizeof(*plain));
    free(other);
    shim_set_late(true);
    other = feed(&r, n, 50);
    shim_set_late(false);
    assert_memory_equal(plain, other, (size_t)n * N_VOCAB * sizeof(*plain));
    free(other);
    free(plain);
    rig_close(&r);
}

/* One that decodes, one that reads, one that wants all of its outputs, in one step; and what is
 * asked of the outputs. */
static void batches_and_outputs(void **state)
{
    uint32_t ids[40], wanted[20], n_out;
    float *logits, p[22], *hidden, *back;
    struct forward_run runs[3] = { { .tokens = ids, .n_tokens = 1, .want = FORWARD_WANT_LAST },
                                   { .tokens = ids, .n_tokens = 30, .want = FORWARD_WANT_LAST },
                                   { .tokens = ids, .n_tokens = 20, .want = FORWARD_WANT_ALL } };
    struct seq s[3];
    struct rig r;
    void *mem;

    (void)state;
    if (SANITIZED)
        skip();
    logits = malloc(22 * (size_t)N_VOCAB * sizeof(*logits));
    cuda_rig_ids(ids, 40);
    open_rig(&r, &kinds[1], gistd_backend());
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(rig_seq(&r, 100, SEG, 0, &s[i]), 0);
        assert_int_equal(seq_reserve(&s[i], runs[i].n_tokens), 0);
        runs[i].seq = &s[i];
    }
    assert_int_equal(forward_step(&r.forward, runs, 3, NULL, &n_out), 0);
    assert_int_equal(n_out, 22);
    assert_int_equal(forward_logits(&r.forward, 0, 22, logits), 0);
    /* The third's first output is the first's: the same token behind nothing. */
    assert_true(cuda_rig_divergence(logits, logits + 2 * (size_t)N_VOCAB, N_VOCAB) < KL_MANY);
    for (unsigned i = 0; i < 20; i++)
        wanted[i] = ids[i + 1];
    assert_int_equal(forward_logprobs(&r.forward, 2, 20, wanted, p), 0);
    for (unsigned i = 0; i < 20; i++) {
        double e = rig_logprob(logits + (2 + i) * (size_t)N_VOCAB, N_VOCAB, wanted[i]);

        assert_true(near_worse(0, (double)p[i], e) <= 1e-5);
    }
    hidden = malloc(2 * kinds[1].n_embd * sizeof(*hidden));
    back = malloc(2 * kinds[1].n_embd * sizeof(*back));
    assert_int_equal(backend_alloc(r.backend, 2 * kinds[1].n_embd * sizeof(float), &mem), 0);
    assert_int_equal(r.backend->ops->hidden(r.backend, 1, 2, mem), 0);
    assert_int_equal(backend_get(r.backend, back, mem, 2 * kinds[1].n_embd * sizeof(float)), 0);
    for (unsigned i = 0; i < 2 * kinds[1].n_embd; i++)
        assert_true(isfinite(back[i]));
    backend_free(r.backend, mem, 2 * kinds[1].n_embd * sizeof(float));
    for (unsigned i = 0; i < 3; i++)
        seq_close(&s[i]);
    free(hidden);
    free(back);
    free(logits);
    rig_close(&r);
}

/* --- sampling --------------------------------------------------------------------------------- */

enum { PICKED = SANITIZED ? 5 : ROOM_PICKS + 5 }; /* more than at a time */

struct picking {
    struct sampler samplers[PICKED];
    uint32_t recent[PICKED][SAMPLER_REPEAT_MAX];
    struct sampler_ask asks[PICKED];
    struct sampler_found found[PICKED];
    struct sampler_candidate c[PICKED][SAMPLER_CANDIDATES_MAX], scratch[N_VOCAB];
    float logits[PICKED][N_VOCAB];
};

/* Each in its own way, with the text before it. */
static void ask_picks(struct picking *p, const uint32_t *ids)
{
    static const struct sampler_params ways[] = {
        { .temperature = 0, .top_p = 1, .repeat_penalty = 1 },
        { .temperature = 1, .top_k = 20, .top_p = 1, .repeat_penalty = 1.2f, .repeat_last_n = 9 },
        { .temperature = 0.8f, .top_p = 0.9f, .repeat_penalty = 1 },
    };

    for (uint32_t i = 0; i < PICKED; i++) {
        sampler_init(&p->samplers[i], &ways[i % 3]);
        for (uint32_t k = 0; k < i; k++)
            sampler_push(&p->samplers[i], ids[k]);
        assert_true(sampler_ask(&p->samplers[i], N_VOCAB, p->recent[i], &p->asks[i]));
    }
}

/* The tokens that the logits give. */
static void picks_are_of_the_logits(void **state)
{
    uint32_t ids[PICKED], n_out;
    struct forward_run run = { .tokens = ids, .n_tokens = PICKED, .want = FORWARD_WANT_ALL };
    struct picking *p = calloc(1, sizeof(*p));
    struct rig r;
    struct seq s;

    (void)state;
    cuda_rig_ids(ids, PICKED);
    open_rig(&r, &kinds[1], gistd_backend());
    assert_int_equal(rig_seq(&r, 100, SEG, 0, &s), 0);
    assert_int_equal(seq_reserve(&s, PICKED), 0);
    run.seq = &s;
    assert_int_equal(forward_step(&r.forward, &run, 1, NULL, &n_out), 0);
    assert_int_equal(n_out, PICKED);
    ask_picks(p, ids);
    assert_int_equal(forward_pick(&r.forward, 0, PICKED, p->asks, p->found, p->c[0]), 0);
    assert_int_equal(forward_logits(&r.forward, 0, PICKED, p->logits[0]), 0);
    for (uint32_t i = 0; i < PICKED; i++) {
        struct sampler there = p->samplers[i];
        uint32_t id = sampler_pick(&p->samplers[i], &kernels_scalar.sampling, p->logits[i], N_VOCAB,
                                   p->scratch);

        assert_int_equal(p->found[i].n_bad, 0);
        assert_true(p->found[i].n <= SAMPLER_CANDIDATES_MAX);
        assert_int_equal(sampler_take(&there, &p->found[i], p->c[i]), id);
    }
    seq_close(&s);
    rig_close(&r);
    free(p);
}

/* --- memory ----------------------------------------------------------------------------------- */

/* When all was of use, down to a fit, a device has less what `need` said, and not a byte more. */
static void memory_is_as_said(void **state)
{
    struct backend_options o = { .max_rows = MAX_BATCH };
    struct backend_fit fit = { .n_raw = SEG, .n_keys = 16, .n_asked = 8 };
    struct backend_info info;
    uint32_t pages[SEG / PAGE_TOKENS];
    struct why why = { "" };
    size_t n, before, after, all;
    uint64_t need;
    struct rig r;
    struct seq s;
    void *asked;

    (void)state;
    if (SANITIZED)
        skip();
    assert_int_equal(cudaMemGetInfo(&before, &all), 0);
    open_rig(&r, &kinds[0], gistd_backend());
    o.max_pages = FORWARD_POOLS * r.pool.n_pages;
    assert_int_equal(r.backend->ops->need(&o, r.model, &need, &why), 0);
    r.backend->ops->info(r.backend, &info);
    assert_true(info.scratch_bytes < need);
    free(feed(&r, N_TOKENS, MAX_BATCH));
    assert_int_equal(rig_seq(&r, N_TOKENS, SEG, 0, &s), 0);
    assert_int_equal(seq_reserve(&s, SEG), 0);
    for (uint32_t i = 0; i < SEG / PAGE_TOKENS; i++)
        pages[i] = seq_pages(&s, 0)[i];
    fit.pool = &r.pool;
    fit.from = fit.to = pages;
    fit.n_lists = r.model->n_layer * r.model->n_head_kv;
    n = fit.n_lists * fit.n_asked * ASKED_FLOATS(r.model->head_dim) * sizeof(float);
    assert_int_equal(backend_alloc(r.backend, n, &asked), 0);
    fit.asked = asked;
    assert_int_equal(r.backend->ops->fit(r.backend, &fit), fit.n_lists);
    backend_free(r.backend, asked, n);
    r.backend->ops->info(r.backend, &info);
    assert_int_equal(info.scratch_bytes, need);
    assert_int_equal(cudaMemGetInfo(&after, &all), 0);
    assert_int_equal(before - after, need + r.model->block_len + r.pool.mem_len);
    seq_close(&s);
    rig_close(&r);
}

/* --- giving up, and what fails ---------------------------------------------------------------- */

static bool stop_at(void *arg)
{
    uint32_t *left = arg;

    return (*left)-- == 0;
}

/* At each of the questions; the sequence is as before, and goes on. */
static void a_step_is_given_up(void **state)
{
    uint32_t ids[20], n_out;
    float *expected, *found;
    struct rig r;
    struct seq s;
    int e;

    (void)state;
    if (SANITIZED)
        skip();
    found = malloc((size_t)N_VOCAB * sizeof(*found));
    cuda_rig_ids(ids, 20);
    open_rig(&r, &kinds[0], gistd_backend());
    expected = feed(&r, 20, 20);
    assert_int_equal(rig_seq(&r, 100, SEG, 0, &s), 0);
    for (uint32_t at = 0;; at++) {
        uint32_t left = at;
        struct forward_stop stop = { stop_at, &left };
        struct forward_run run = {
            .seq = &s, .tokens = ids, .n_tokens = 20, .want = FORWARD_WANT_LAST
        };

        assert_int_equal(seq_reserve(&s, 20), 0);
        e = forward_step(&r.forward, &run, 1, &stop, &n_out);
        if (e == 0)
            break;
        assert_int_equal(e, -ECANCELED);
        assert_int_equal(s.n_tokens, 0);
        assert_true(at < 100);
    }
    assert_int_equal(s.n_tokens, 20);
    assert_int_equal(forward_logits(&r.forward, 0, 1, found), 0);
    /* Not to the bit: one output is a product of few rows, twenty are one of many. */
    assert_true(cuda_rig_divergence(expected + 19 * (size_t)N_VOCAB, found, N_VOCAB) < KL_MANY);
    seq_close(&s);
    free(expected);
    free(found);
    rig_close(&r);
}

/* Lost at the n-th call that could find out, for every n of a step and its logits: an error, and
 * the same error ever after. */
static void a_lost_device(void **state)
{
    uint32_t ids[12], n_out;
    float logits[N_VOCAB];
    unsigned n_failed = 0, step = SANITIZED ? 61 : 1;
    int e;

    (void)state;
    cuda_rig_ids(ids, 12);
    for (unsigned n = 1;; n += step) {
        struct forward_run run = { .tokens = ids, .n_tokens = 12, .want = FORWARD_WANT_LAST };
        struct rig r;
        struct seq s;

        open_rig(&r, &kinds[0], gistd_backend());
        assert_int_equal(rig_seq(&r, 100, SEG, 0, &s), 0);
        assert_int_equal(seq_reserve(&s, 12), 0);
        run.seq = &s;
        shim_set_lost(n);
        e = forward_step(&r.forward, &run, 1, NULL, &n_out);
        if (e == 0)
            e = forward_logits(&r.forward, 0, 1, logits);
        if (e < 0) {
            uint64_t ticket;
            uint8_t byte;

            assert_int_equal(e, -EIO);
            assert_int_equal(seq_reserve(&s, 12), 0);
            assert_int_equal(forward_step(&r.forward, &run, 1, NULL, &n_out), -EIO);
            assert_int_equal(backend_get(r.backend, &byte, r.pool.mem, 1), -EIO);
            assert_int_equal(r.backend->ops->get(r.backend, &byte, r.pool.mem, 1, &ticket), -EIO);
            n_failed++;
        }
        seq_close(&s);
        rig_close(&r);
        shim_set_lost(0);
        if (e == 0)
            break;
    }
    assert_true(n_failed > (SANITIZED ? 1 : 20));
}

/* Work is as late as it may be: what a page takes to the host is still to be done behind a step and
 * its outputs, and a copy without a ticket waits for it. */
static void steps_do_not_wait_for_spills(void **state)
{
    uint32_t ids[12], n_out, spare;
    struct forward_run run = { .tokens = ids, .n_tokens = 12, .want = FORWARD_WANT_LAST };
    struct pool_account account = { .limit = 1 };
    const struct backend_ops *ops = gistd_backend();
    float logits[N_VOCAB];
    uint8_t byte = 1, other = 1;
    uint64_t ticket;
    struct rig r;
    struct seq s;

    (void)state;
    cuda_rig_ids(ids, 12);
    open_rig(&r, &kinds[0], ops);
    assert_int_equal(rig_seq(&r, 100, SEG, 0, &s), 0);
    assert_int_equal(seq_reserve(&s, 12), 0);
    assert_int_equal(pool_take(&r.pool, &account, 1, &spare), 0);
    run.seq = &s;
    shim_set_late(true);
    assert_int_equal(ops->get(r.backend, &byte, r.pool.mem + spare * r.pool.page_bytes, 1, &ticket),
                     0);
    assert_int_equal(forward_step(&r.forward, &run, 1, NULL, &n_out), 0);
    assert_int_equal(forward_logits(&r.forward, 0, 1, logits), 0);
    assert_int_equal(ops->done(r.backend, ticket), 0);
    assert_int_equal(backend_get(r.backend, &other, r.pool.mem, 1), 0);
    assert_int_equal(ops->done(r.backend, ticket), 1);
    assert_int_equal(byte, 0); /* memory was zeroed, and nobody wrote to the page yet */
    shim_set_late(false);
    pool_give(&r.pool, &account, 1, &spare);
    seq_close(&s);
    rig_close(&r);
}

static void no_memory(void **state)
{
    char path[SCRATCH_PATH_MAX];
    const struct rig_opts o = { .model = path,
                                .cpu = "scalar",
                                .kv = KV_F16,
                                .threads = 1,
                                .max_batch = MAX_BATCH,
                                .max_tokens = 256,
                                .backend = gistd_backend() };

    (void)state;
    if (SANITIZED)
        skip();
    write_model(&kinds[0], path);
    cuda_rig_no_memory(&o, 4, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_cpu),      cmocka_unit_test(order_and_lateness_do_not_show),
        cmocka_unit_test(batches_and_outputs), cmocka_unit_test(picks_are_of_the_logits),
        cmocka_unit_test(memory_is_as_said),   cmocka_unit_test(a_step_is_given_up),
        cmocka_unit_test(a_lost_device),       cmocka_unit_test(steps_do_not_wait_for_spills),
        cmocka_unit_test(no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
