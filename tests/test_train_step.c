/* test_train_step.c - fails when the trainer's loss or one of its gradients is not what a torch
 * implementation with automatic differentiation computes for the same adapter, tokens and ratio
 * (tests/reference/train_vectors.py made tests/data/train_*.vec), for each architecture, mask rule,
 * rank and kind of base model; with activation checkpointing too. And when 20 steps of AdamW end
 * elsewhere. And when what is no number becomes one in bf16. All in f32: sums in another order
 * differ by 1e-5 of a gradient's norm, tolerances are ten times that. The same of a device
 * (libgistd-cuda-shim.so: the GPU's kernels on the CPU), of what it has, there in bf16 too, whose
 * gradients are within 5 % of their norm; and two runs of it are the same to the bit.
 */
#include "engine/file/safetensors.h"
#include "engine/plugin.h"
#include "tests/support/near.h"
#include "tests/support/sanitized.h"
#include "train/net/tensors_cpu.h"
#include "train/step.h"

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

#define DATA "tests/data/"

/* What computes: NULL: the CPU. How much further apart than f32's results may be. */
static struct tensors *on;
static enum tensors_type type = TENSORS_F32;
static double roughly = 1;

struct vec {
    struct safetensors *s;
    struct model *model;
    struct base base, original;
    struct gists gist;
    struct step *step;
    uint32_t n_tokens, n_sequences;
    uint32_t *ids;
    uint8_t *carries;
    float **grads; /* of a device's parameters, fetched */
};

static float *tensor(const struct vec *v, const char *name, size_t *ret_n)
{
    const struct safetensors_tensor *t = safetensors_find(v->s, name);
    struct why why = { "" };
    float *x;

    if (!t)
        return NULL;
    x = malloc(t->len);
    assert_non_null(x);
    assert_int_equal(safetensors_read(v->s, t, x, &why), 0);
    *ret_n = t->len / sizeof(float);
    return x;
}

static const char *meta(const struct vec *v, const char *key)
{
    const char *value = safetensors_meta(v->s, key);

    if (!value)
        fail_msg("no metadata %s", key);
    return value;
}

static uint32_t number(const struct vec *v, const char *key)
{
    return (uint32_t)strtoul(meta(v, key), NULL, 10);
}

static double real(const struct vec *v, const char *key)
{
    return strtod(meta(v, key), NULL);
}

static uint32_t n_projections(const struct vec *v)
{
    const char *what = safetensors_meta(v->s, "projections");

    if (!what)
        return ADAPTER_QKV__N;
    if (strcmp(what, "none") == 0)
        return 0;
    return strcmp(what, "all") ? ADAPTER_O + 1 : ADAPTER_PROJECTION__N;
}

static struct gists_shape shape_of(const struct vec *v)
{
    struct gists_shape s = { .seg_len = number(v, "segment"), .sinks = number(v, "sinks") };
    const struct safetensors_tensor *embd = safetensors_find(v->s, "adapter.gist.embedding"),
                                    *a = safetensors_find(v->s, "adapter.layers.0.q.a");
    char *end = (char *)meta(v, "ratios");

    for (s.method = 0; strcmp(meta(v, "method"), adapter_method_name(s.method)) != 0; s.method++)
        assert_true(s.method < ADAPTER_METHOD__N);
    s.mask = strcmp(meta(v, "mask"), "memory-only") ? ADAPTER_IN_SEGMENT : ADAPTER_MEMORY_ONLY;
    s.embedding = strcmp(meta(v, "embedding"), "own") ? ADAPTER_EMBED_LAST : ADAPTER_EMBED_OWN;
    s.n_embds = (uint32_t)embd->dims[0];
    s.rank = a ? (uint32_t)a->dims[0] : 0;
    s.n_projections = n_projections(v);
    while (*end)
        s.ratios[s.n_ratios++] = (uint32_t)strtoul(end, &end, 10);
    return s;
}

/* Of layers.N.q.weight and so on: the parameter that it is part of, and where it begins there. */
static size_t find_part(const struct vec *v, unsigned layer, const char *kind, char ret_name[64])
{
    for (unsigned p = 0; p < ADAPTER_PROJECTION__N; p++) {
        const char *name = adapter_projection_name(p);
        uint32_t row;
        enum base_matrix w = base_part(&v->base, p, &row);

        if (strncmp(kind, name, strlen(name)) != 0 || strcmp(kind + strlen(name), ".weight") != 0)
            continue;
        snprintf(ret_name, 64, "layers.%u.%s", layer, base_matrix_name(w));
        return (size_t)row * base_n_in(&v->base, w);
    }
    return 0;
}

/* Where the tensor of that name lies among parameters (or gradients) of a full or low-rank gist;
 * NULL: nowhere. */
static float *place(const struct vec *v, const char *name, bool gradient)
{
    char kind[64], stacked[64];
    unsigned layer;
    size_t off = 0;

    snprintf(stacked, sizeof(stacked), "%s", name);
    if (!v->gist.shape.rank && sscanf(name, "layers.%u.%63s", &layer, kind) == 2)
        off = find_part(v, layer, kind, stacked);
    for (uint32_t i = 0; i < v->gist.params.n; i++)
        if (strcmp(v->gist.params.t[i].name, stacked) == 0)
            return (!gradient ? v->gist.params.t[i].p
                    : on      ? v->grads[i]
                              : v->gist.params.t[i].g) +
                   off;
    return NULL;
}

/* Calls fn for each tensor of the file whose name starts with prefix. */
static void each(struct vec *v, const char *prefix,
                 void (*fn)(struct vec *, const char *, const float *, size_t))
{
    for (size_t i = 0; i < safetensors_n(v->s); i++) {
        const struct safetensors_tensor *t = safetensors_at(v->s, i);
        size_t n;
        float *x;

        if (strncmp(t->name, prefix, strlen(prefix)) != 0)
            continue;
        x = tensor(v, t->name, &n);
        fn(v, t->name + strlen(prefix), x, n);
        free(x);
    }
}

static void put(struct vec *v, const char *name, const float *x, size_t n)
{
    float *to = place(v, name, false);

    if (!to)
        fail_msg("no parameter %s", name);
    memcpy(to, x, n * sizeof(float));
}

static void put_decoder(struct vec *v, const char *name, const float *x, size_t n)
{
    char full[96];

    snprintf(full, sizeof(full), "ae.%s", name);
    put(v, full, x, n);
}

static void make_room(struct vec *v)
{
    v->grads = calloc(v->gist.params.n, sizeof(*v->grads));
    for (uint32_t i = 0; on && i < v->gist.params.n; i++)
        v->grads[i] = malloc(v->gist.params.t[i].n * sizeof(float));
}

static void vec_open(struct vec *v, const char *file, bool checkpointing)
{
    struct why why = { "" };
    struct step_rule rule = { .lm = 1 };
    struct gists_shape shape;
    char path[256];
    size_t n;
    float *x;

    *v = (struct vec){ 0 };
    snprintf(path, sizeof(path), DATA "%s", file);
    if (safetensors_open(path, &v->s, &why) < 0)
        fail_msg("%s", why.text);
    snprintf(path, sizeof(path), DATA "%s", meta(v, "model"));
    if (model_open(path, NULL, NULL, &v->model, &why) < 0)
        fail_msg("%s", why.text);
    v->n_sequences = (uint32_t)safetensors_find(v->s, "ids")->dims[0];
    v->n_tokens = (uint32_t)safetensors_find(v->s, "ids")->dims[1];
    x = tensor(v, "ids", &n);
    v->ids = malloc(n * sizeof(*v->ids));
    for (size_t i = 0; i < n; i++)
        v->ids[i] = (uint32_t)x[i];
    free(x);
    x = tensor(v, "loss_mask", &n);
    v->carries = malloc(n);
    for (size_t i = 0; i < n; i++)
        v->carries[i] = x[i] != 0;
    free(x);
    shape = shape_of(v);
    if (safetensors_meta(v->s, "weight.lm")) {
        rule = (struct step_rule){ .lm = real(v, "weight.lm"),
                                   .distill = real(v, "weight.distill"),
                                   .distill_top = number(v, "distill.k") };
        rule.ae = real(v, "weight.ae");
        rule.ae_share = 1;
        rule.tie = safetensors_meta(v->s, "tie.gamma");
        rule.tie_gamma = rule.tie ? real(v, "tie.gamma") : 0;
    }
    assert_int_equal(base_open(&v->base, on, v->model, type, 2 * v->n_tokens), 0);
    assert_int_equal(gists_open(&v->gist, &v->base, &shape), 0);
    if (safetensors_meta(v->s, "train-base")) {
        assert_int_equal(base_train(&v->base, &v->gist.params), 0);
        assert_int_equal(base_open(&v->original, on, v->model, type, 2 * v->n_tokens), 0);
        rule.original = &v->original;
    }
    assert_int_equal(step_open(&v->gist, v->n_tokens, checkpointing, &rule, &v->step), 0);
    each(v, "adapter.", put);
    each(v, "ae.", put_decoder);
    optim_put(&v->gist.params, 0);
    step_refresh(v->step);
    make_room(v);
}

static void fetch_gradients(const struct vec *v)
{
    for (uint32_t i = 0; on && i < v->gist.params.n; i++)
        on->ops->get(on, v->grads[i], v->gist.params.t[i].g, v->gist.params.t[i].n * sizeof(float));
}

static void vec_close(struct vec *v)
{
    for (uint32_t i = 0; i < v->gist.params.n; i++)
        free(v->grads[i]);
    free(v->grads);
    step_close(v->step);
    gists_close(&v->gist);
    base_close(&v->base);
    if (v->original.m)
        base_close(&v->original);
    model_close(v->model);
    safetensors_close(v->s);
    free(v->ids);
    free(v->carries);
}

static void near(const char *name, const float *x, const float *expected, size_t n,
                 double tolerance)
{
    double diff = 0, norm = 0;

    for (size_t i = 0; i < n; i++) {
        diff += ((double)x[i] - expected[i]) * ((double)x[i] - expected[i]);
        norm += (double)expected[i] * expected[i];
    }
    if (!(sqrt(diff) <= roughly * tolerance * sqrt(norm) + 1e-12))
        fail_msg("%s: differs by %.3g of its norm, %.3g is allowed", name, sqrt(diff / norm),
                 tolerance);
}

struct matrix {
    const float *g;
    uint32_t n_rows, n_cols;
};

static bool starts(const char *name, const char *with)
{
    return strncmp(name, with, strlen(with)) == 0;
}

/* The gradient of the base's weight that a GGUF file calls blk.N.NAME; g NULL: there is none. */
static struct matrix layer_gradient(const struct vec *v, unsigned layer, const char *name)
{
    static const char *const names[ADAPTER_PROJECTION__N] = {
        "attn_q.", "attn_k.", "attn_v.", "attn_output.", "ffn_gate.", "ffn_up.", "ffn_down."
    };
    const struct base *b = &v->base;
    const struct base_layer *l = &b->layers[layer];

    if (starts(name, "attn_norm."))
        return (struct matrix){ l->d_attn_norm, 1, b->m->n_embd };
    if (starts(name, "ffn_norm."))
        return (struct matrix){ l->d_ffn_norm, 1, b->m->n_embd };
    for (unsigned p = 0; p < ADAPTER_PROJECTION__N; p++) {
        uint32_t row, n_out, n_in;
        enum base_matrix w = base_part(b, p, &row);

        adapter_projection_shape(b->m, p, &n_out, &n_in);
        if (starts(name, names[p]))
            return starts(name + strlen(names[p]), "bias")
                       ? (struct matrix){ l->d_bias + row, 1, n_out }
                       : (struct matrix){ l->d[w] + (size_t)row * n_in, n_out, n_in };
    }
    return (struct matrix){ NULL, 0, 0 };
}

static struct matrix base_gradient(const struct vec *v, const char *name)
{
    const struct base *b = &v->base;
    uint32_t n_embd = b->m->n_embd, n_vocab = b->m->n_vocab;
    unsigned layer;
    char rest[64];

    if (starts(name, "token_embd."))
        return (struct matrix){ b->d_embd, n_vocab, n_embd };
    if (starts(name, "output."))
        return (struct matrix){ b->d_output, n_vocab, n_embd };
    if (starts(name, "output_norm."))
        return (struct matrix){ b->d_output_norm, 1, n_embd };
    assert_int_equal(sscanf(name, "blk.%u.%63s", &layer, rest), 2);
    return layer_gradient(v, layer, rest);
}

/* By the sum over columns weighed by cos(j), or over rows by cos(i + 1). */
static void compare_product(const char *name, struct matrix m, bool by_columns, const float *x,
                            size_t n)
{
    float *sums = calloc(n, sizeof(*sums));

    assert_int_equal(n, by_columns ? m.n_rows : m.n_cols);
    for (size_t k = 0; k < n; k++) {
        double sum = 0;

        for (uint32_t i = 0; i < (by_columns ? m.n_cols : m.n_rows); i++)
            sum += by_columns ? cos(i) * m.g[k * m.n_cols + i]
                              : cos(i + 1.0) * m.g[(size_t)i * m.n_cols + k];
        sums[k] = (float)sum;
    }
    near(name, sums, x, n, 1e-4);
    free(sums);
}

/* What was fetched of it. */
static const float *on_host(const struct vec *v, const float *g)
{
    for (uint32_t i = 0; on && g && i < v->gist.params.n; i++) {
        const struct optim_tensor *t = &v->gist.params.t[i];

        if (g >= t->g && g < t->g + t->n)
            return v->grads[i] + (g - t->g);
    }
    return on ? NULL : g;
}

static void compare_base(const struct vec *v, const char *name, const float *x, size_t n)
{
    struct matrix m = base_gradient(v, name);

    m.g = on_host(v, m.g);
    if (!m.g)
        fail_msg("no gradient of the base's %s", name);
    if (name[strlen(name) - 2] == '.')
        compare_product(name, m, name[strlen(name) - 1] == 'u', x, n);
    else
        near(name, m.g, x, n, 1e-4);
}

static void compare_gradient(struct vec *v, const char *name, const float *x, size_t n)
{
    const float *g;

    if (starts(name, "base.")) {
        compare_base(v, name + 5, x, n);
        return;
    }
    g = place(v, name, true);
    if (!g)
        fail_msg("no gradient %s", name);
    near(name, g, x, n, 1e-4);
}

static void one_run(struct vec *v, uint32_t run)
{
    char key[64], value[64];
    struct step_loss loss;
    uint32_t sequence;
    double expected;

    snprintf(key, sizeof(key), "run.%u.loss", run);
    expected = strtod(meta(v, key), NULL);
    snprintf(key, sizeof(key), "run.%u.sequence", run);
    sequence = number(v, key);
    snprintf(key, sizeof(key), "run.%u.ratio", run);
    gists_zero_gradients(&v->gist);
    assert_int_equal(step_learn(v->step, v->ids + (size_t)sequence * v->n_tokens,
                                v->carries + (size_t)sequence * v->n_tokens, number(v, key), 0,
                                1.0f, &loss),
                     0);
    gists_collect(&v->gist);
    fetch_gradients(v);
    if (!near_within(loss.all, expected, roughly * 2e-5))
        fail_msg("run %u: loss %.7f, expected %.7f", run, loss.all, expected);
    snprintf(value, sizeof(value), "run.%u.grad.", run);
    each(v, value, compare_gradient);
}

static void check(const char *file, bool checkpointing)
{
    struct vec v;

    vec_open(&v, file, checkpointing);
    for (uint32_t run = 0; run < number(&v, "runs"); run++)
        one_run(&v, run);
    vec_close(&v);
}

static void test_full(void **state)
{
    (void)state;
    check("train_llama31_full.vec", false);
    check("train_qwen2_full.vec", false);
}

static void test_low_rank(void **state)
{
    (void)state;
    check("train_llama31_rank3.vec", false);
    check("train_smollm2_rank3.vec", false);
    check("train_qwen2_rank3.vec", false);
}

/* Of all matrices, or of o too. */
static void test_projections(void **state)
{
    (void)state;
    check("train_smollm2_all_full.vec", false);
    check("train_llama31_all_rank3.vec", false);
    check("train_llama31_all_rank3.vec", true);
    check("train_qwen2_all_in_segment.vec", false);
    check("train_smollm2_all_coarse_rec.vec", false);
    check("train_qwen2_qkvo_coarse_kv.vec", false);
}

/* All weights. */
static void test_base(void **state)
{
    (void)state;
    check("train_smollm2_base_fine.vec", false);
    check("train_smollm2_base_fine.vec", true);
    check("train_llama31_base_in_segment.vec", false);
    check("train_qwen2_base_coarse_rec.vec", false);
    check("train_qwen2_base_losses.vec", false);
}

static void test_in_segment(void **state)
{
    (void)state;
    check("train_smollm2_in_segment.vec", false);
    check("train_qwen2_in_segment.vec", false);
}

static void test_coarse_kv(void **state)
{
    (void)state;
    check("train_smollm2_coarse_kv.vec", false);
    check("train_qwen2_coarse_kv.vec", false);
}

static void test_coarse_rec(void **state)
{
    (void)state;
    check("train_smollm2_coarse_rec.vec", false);
    check("train_llama31_coarse_rec.vec", false);
    check("train_qwen2_coarse_rec_ae.vec", false);
}

static void test_tie(void **state)
{
    (void)state;
    check("train_smollm2_tie.vec", false);
}

static void test_distill(void **state)
{
    (void)state;
    check("train_qwen2_distill.vec", false);
}

static void test_ae(void **state)
{
    (void)state;
    check("train_smollm2_ae.vec", false);
}

static void test_checkpointing(void **state)
{
    (void)state;
    check("train_smollm2_rank3.vec", true);
    check("train_qwen2_in_segment.vec", true);
}

static void compare_final(struct vec *v, const char *name, const float *x, size_t n)
{
    near(name, place(v, name, false), x, n, 1e-4);
}

static void test_steps(void **state)
{
    struct vec v;
    struct optim_rule rule;
    uint32_t n_steps;

    (void)state;
    vec_open(&v, "train_smollm2_steps20.vec", false);
    rule = (struct optim_rule){ real(&v, "beta1"), real(&v, "beta2"), real(&v, "eps"),
                                real(&v, "weight_decay"), real(&v, "clip") };
    n_steps = number(&v, "steps");
    for (uint32_t i = 0; i < (on ? 3 : n_steps); i++) { /* a device over the shim is slow */
        double lr = optim_lr(real(&v, "lr"), real(&v, "floor"), number(&v, "warmup"), n_steps, i),
               norm;
        struct step_loss loss;
        char key[64];

        snprintf(key, sizeof(key), "step.%u.ratio", i);
        gists_zero_gradients(&v.gist);
        assert_int_equal(step_learn(v.step, v.ids + (size_t)i * v.n_tokens,
                                    v.carries + (size_t)i * v.n_tokens, number(&v, key), 0, 1.0f,
                                    &loss),
                         0);
        gists_collect(&v.gist);
        norm = optim_step(&v.gist.params, &rule, lr, i + 1);
        step_refresh(v.step);
        snprintf(key, sizeof(key), "step.%u.lr", i);
        assert_true(fabs(lr - real(&v, key)) < 1e-9);
        snprintf(key, sizeof(key), "step.%u.loss", i);
        if (!near_within(loss.lm, real(&v, key), 2e-4))
            fail_msg("step %u: loss %.6f, expected %.6f", i, loss.lm, real(&v, key));
        snprintf(key, sizeof(key), "step.%u.norm", i);
        assert_true(fabs(norm / real(&v, key) - 1) < 1e-3);
    }
    assert_int_equal(optim_fetch(&v.gist.params), 0);
    if (!on)
        each(&v, "final.", compare_final);
    vec_close(&v);
}

/* --- a device --------------------------------------------------------------------------------- */

/* By scripts/test-cuda. */
static bool on_gpu(void)
{
    const char *backend = getenv("GISTD_TEST_BACKEND");

    return backend && strcmp(backend, "cuda") == 0;
}

static int open_device(void **state)
{
    const struct tensors_ops *ops;
    const void *found;
    struct why why = { "" };
    char path[4096];

    (void)state;
    snprintf(path, sizeof(path), "%s/libgistd-cuda%s.so", getenv("BUILD"), on_gpu() ? "" : "-shim");
    if (plugin_load_entry(path, TENSORS_ENTRY, &found, &why) < 0)
        fail_msg("%s", why.text);
    ops = found;
    assert_int_equal(tensors_check(ops, &why), 0);
    return ops->open(0, &on, &why);
}

static int close_device(void **state)
{
    (void)state;
    on->ops->close(on);
    on = NULL;
    return 0;
}

static void device_full(void **state)
{
    (void)state;
    check("train_smollm2_all_full.vec", false);
}

static void device_low_rank(void **state)
{
    (void)state;
    check("train_qwen2_rank3.vec", false);
    check("train_llama31_all_rank3.vec", true);
}

static void device_masks(void **state)
{
    (void)state;
    check("train_qwen2_all_in_segment.vec", false);
    check("train_qwen2_qkvo_coarse_kv.vec", false);
    check("train_smollm2_coarse_rec.vec", false);
}

static void device_losses(void **state)
{
    (void)state;
    check("train_smollm2_tie.vec", false);
    check("train_qwen2_distill.vec", false);
    check("train_smollm2_ae.vec", false);
    check("train_qwen2_coarse_rec_ae.vec", false);
}

static void device_bf16(void **state)
{
    (void)state;
    type = TENSORS_BF16;
    roughly = 500;
    check("train_llama31_full.vec", false);
    type = TENSORS_F32;
    roughly = 1;
}

static void device_repeats(void **state)
{
    struct vec v, w;

    (void)state;
    vec_open(&v, "train_smollm2_rank3.vec", false);
    vec_open(&w, "train_smollm2_rank3.vec", true);
    one_run(&v, 0);
    one_run(&w, 0);
    for (uint32_t i = 0; i < v.gist.params.n; i++)
        assert_memory_equal(v.grads[i], w.grads[i], v.gist.params.t[i].n * sizeof(float));
    vec_close(&v);
    vec_close(&w);
}

static void device_base(void **state)
{
    (void)state;
    check("train_smollm2_base_fine.vec", true);
    check("train_llama31_base_in_segment.vec", false);
    check("train_qwen2_base_coarse_rec.vec", false);
    check("train_qwen2_base_losses.vec", false);
}

static void goes_on_elsewhere(void **state)
{
    char path[] = "/tmp/test_train_step.XXXXXX";
    struct tensors *device = on;
    struct optim_progress at = { 1, 192 }, read;
    struct optim_rule rule = { 0.9, 0.95, 1e-8, 0, 1 };
    struct why why = { "" };
    struct vec v, w;
    float before;
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    vec_open(&v, "train_smollm2_rank3.vec", false);
    one_run(&v, 0);
    (void)optim_step(&v.gist.params, &rule, 1e-3, 1);
    if (optim_save(&v.gist.params, path, &at, "recipe", &why) < 0)
        fail_msg("%s", why.text);
    on = NULL;
    vec_open(&w, "train_smollm2_rank3.vec", false);
    if (optim_load(&w.gist.params, path, "recipe", &read, &why) < 0)
        fail_msg("%s", why.text);
    for (uint32_t i = 0; i < v.gist.params.n; i++) {
        const struct optim_tensor *a = &v.gist.params.t[i], *b = &w.gist.params.t[i];

        assert_memory_equal(a->p, b->p, a->n * sizeof(float));
        assert_memory_equal(a->m, b->m, a->n * sizeof(float));
        assert_memory_equal(a->v, b->v, a->n * sizeof(float));
    }
    if (optim_save(&w.gist.params, path, &at, "recipe", &why) < 0)
        fail_msg("%s", why.text);
    vec_close(&w);
    on = device;
    before = v.gist.params.t[1].p[0];
    (void)optim_step(&v.gist.params, &rule, 1e-2, 2); /* on the device alone */
    if (optim_load(&v.gist.params, path, "recipe", &read, &why) < 0)
        fail_msg("%s", why.text);
    v.gist.params.t[1].p[0] = 0;
    assert_int_equal(optim_fetch(&v.gist.params), 0);
    assert_true(v.gist.params.t[1].p[0] == before);
    assert_int_equal(read.step, 1);
    vec_close(&v);
    unlink(path);
}

/* Whatever its bits are: a weight that is broken is to show in the loss. */
static void test_no_number(void **state)
{
    static const uint32_t bits[] = { 0x7fffffff, 0xffffffff, 0x7f800001, 0xffc00000, 0x7f800000 };
    uint16_t half[5];
    float x[5], back[5];

    (void)state;
    memcpy(x, bits, sizeof(x));
    tensors_cpu.narrow(NULL, TENSORS_BF16, half, x, 5);
    tensors_cpu.widen(NULL, TENSORS_BF16, back, half, 5);
    for (unsigned i = 0; i < 4; i++)
        assert_true(isnan(back[i]));
    assert_true(isinf(back[4]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full),          cmocka_unit_test(test_low_rank),
        cmocka_unit_test(test_projections),   cmocka_unit_test(test_base),
        cmocka_unit_test(test_in_segment),    cmocka_unit_test(test_coarse_kv),
        cmocka_unit_test(test_coarse_rec),    cmocka_unit_test(test_tie),
        cmocka_unit_test(test_distill),       cmocka_unit_test(test_ae),
        cmocka_unit_test(test_checkpointing), cmocka_unit_test(test_steps),
        cmocka_unit_test(test_no_number),
    };

    /* Of a sanitizer's build: kernels are not instrumented, tests/test_cuda_train*.c are for them.
     */
    const struct CMUnitTest some[] = {
        cmocka_unit_test(goes_on_elsewhere),
    };
    const struct CMUnitTest all[] = {
        cmocka_unit_test(device_full),    cmocka_unit_test(device_low_rank),
        cmocka_unit_test(device_masks),   cmocka_unit_test(device_losses),
        cmocka_unit_test(device_base),    cmocka_unit_test(device_bf16),
        cmocka_unit_test(device_repeats), cmocka_unit_test(goes_on_elsewhere),
        cmocka_unit_test(test_steps),
    };
    int r = on_gpu() ? 0 : cmocka_run_group_tests_name("CPU", tests, NULL, NULL);

    if (SANITIZED)
        r += cmocka_run_group_tests_name("device", some, open_device, close_device);
    else
        r += cmocka_run_group_tests_name("device", all, open_device, close_device);
    return r ? 1 : 0;
}
