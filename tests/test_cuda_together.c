/* tests/test_cuda_together.c - devices that each have a part of every layer (--split-mode tensor:
 * cuda/together.h, engine/divide.h), over the shim: built plain, for threads and for bounds. Would
 * catch: a head, a row or a column that two devices have or none; a bias, kept keys, a norm or an
 * observer's weights that are another head's; rows that are added up before they are
 * there (races, to TSan), or not at all; a page that is spilled or hydrated in part; an adapter
 * whose matrices are cut in another way than the model's; a model that does not divide and is
 * taken; a device that is lost and leaves the others waiting.
 *
 * Sums over devices are in another order than one device's, so what comes out is near and not the
 * same: whole steps are held to the scalar kernels of the CPU by tests/test_cuda_step.c's limits.
 * What is only moved is the same to the bit.
 */
#include "cuda/backend_cuda.h"
#include "engine/divide.h"
#include "tests/support/cuda_rig.h"
#include "tests/support/cuda_segment.h"
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
#define N_TOKENS  150u
#define N_VOCAB   GGUF_BUILD_N_VOCAB

/* Mean divergence that is allowed: from the CPU as for one device, and from one device. */
#define KL_FEW   1e-4
#define KL_MANY  2e-4
#define KL_FLOAT 1e-8
/* Of a model that is wide enough for blocks of 256 columns, where logits spread more: one device is
 * 5.5e-4 from the CPU then. */
#define KL_WIDE 1e-3

struct kind {
    struct cuda_rig_kind of;
    uint32_t n_devices[3]; /* 0: no more of them */
};

/* Feed-forwards that devices share evenly and not: 96 is 3 blocks, 160 is 5, 768 is 3 of 256. */
static const struct kind kinds[] = {
    { { "f32", "llama", QUANT_F32, KV_F16, 64, 96, 4, 2, false, true }, { 2 } },
    { { "q8_0 with biases", "qwen2", QUANT_Q8_0, KV_F16, 256, 160, 8, 4, true, false }, { 2, 4 } },
    { { "q4_0, q8_0 pages", "llama", QUANT_Q4_0, KV_Q8_0, 192, 256, 3, 3, false, true }, { 3 } },
    { { "q4_k", "llama", QUANT_Q4_K, KV_F16, 512, 768, 8, 2, false, false }, { 2 } },
    { { "bf16", "qwen2", QUANT_BF16, KV_F32, 128, 96, 8, 4, true, false }, { 2 } },
};
#define N_KINDS (sizeof(kinds) / sizeof(*kinds))

/* In another order than their numbers. */
static struct backend_devices devices_of(uint32_t n)
{
    return (struct backend_devices){ n, { 2, 0, 3, 1 } };
}

static void write_model(const struct kind *k, char path[SCRATCH_PATH_MAX])
{
    cuda_rig_write(&k->of, "together.gguf", path);
}

static struct rig_opts opts_of(const char *path, enum kv_type kv, const struct backend_ops *ops,
                               uint32_t n_devices)
{
    return (struct rig_opts){ .model = path,
                              .cpu = "scalar",
                              .kv = kv,
                              .threads = 1,
                              .max_batch = MAX_BATCH,
                              .max_tokens = 8 * SEG,
                              .backend = ops,
                              .devices = devices_of(n_devices),
                              .split = BACKEND_SPLIT_TENSOR };
}

static void open_rig(struct rig *r, const char *path, enum kv_type kv,
                     const struct backend_ops *ops, uint32_t n_devices)
{
    const struct rig_opts o = opts_of(path, kv, ops, n_devices);
    struct why why = { "" };

    if (rig_open(r, &o, &why) < 0)
        fail_msg("%s", why.text);
}

/* Logits of n rows. */
static void near(const char *what, const float *p, const float *q, uint32_t n, uint32_t n_vocab,
                 double limit)
{
    double kl = cuda_rig_mean_divergence(p, q, n, n_vocab);

    print_message("%s: mean divergence %.3g\n", what, kl);
    if (!(kl <= limit))
        fail_msg("%s: %g, %g is allowed", what, kl, limit);
}

/* --- whole steps ------------------------------------------------------------------------------ */

static float *read_all(struct rig *r, uint32_t n, uint32_t chunk)
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

static double limit_of(const struct kind *k, uint32_t chunk)
{
    if (k->of.type == QUANT_F32 || k->of.type == QUANT_BF16)
        return KL_FLOAT;
    if (k->of.type == QUANT_Q4_K)
        return KL_WIDE;
    return chunk <= 8 ? KL_FEW : KL_MANY;
}

static void compare_to_cpu(const struct kind *k, const char *path, const float *expected,
                           uint32_t n_devices)
{
    static const uint32_t chunks[] = { 7, 50 };
    struct rig r;

    open_rig(&r, path, k->of.kv, gistd_backend(), n_devices);
    for (unsigned c = 0; c < 2; c++) {
        float *found = read_all(&r, N_TOKENS, chunks[c]);
        char what[96];

        (void)snprintf(what, sizeof(what), "%s, %u devices, %u at a time", k->of.name, n_devices,
                       chunks[c]);
        near(what, expected, found, N_TOKENS, N_VOCAB, limit_of(k, chunks[c]));
        free(found);
    }
    rig_close(&r);
}

static void equals_the_cpu(void **state)
{
    (void)state;
    if (SANITIZED)
        skip(); /* what comes out is looked at as it is */
    for (unsigned i = 0; i < N_KINDS; i++) {
        const struct kind *k = &kinds[i];
        char path[SCRATCH_PATH_MAX];
        float *expected;
        struct rig cpu;

        write_model(k, path);
        open_rig(&cpu, path, k->of.kv, &backend_cpu, 0);
        expected = read_all(&cpu, N_TOKENS, MAX_BATCH);
        rig_close(&cpu);
        compare_to_cpu(k, path, expected, 1); /* there is nothing to share */
        for (unsigned n = 0; n < 3 && k->n_devices[n]; n++)
            compare_to_cpu(k, path, expected, k->n_devices[n]);
        free(expected);
    }
}

/* Work as late as it may be, blocks from the last to the first, devices that do not reach each
 * other: the same bits. */
static void the_same_every_time(void **state)
{
    const struct kind *k = &kinds[1];
    uint32_t n = SEG + 10;
    size_t len = n * N_VOCAB * sizeof(float);
    char path[SCRATCH_PATH_MAX];
    float *all[4];
    struct rig r;

    (void)state;
    if (SANITIZED)
        skip();
    write_model(k, path);
    for (unsigned i = 0; i < 4; i++) {
        shim_set_late(i == 1);
        shim_set_order(i == 2);
        shim_set_peers(i != 3);
        open_rig(&r, path, k->of.kv, gistd_backend(), 2);
        all[i] = read_all(&r, n, 50);
        rig_close(&r);
    }
    shim_set_peers(true);
    for (unsigned i = 1; i < 4; i++) {
        assert_memory_equal(all[0], all[i], len);
        free(all[i]);
    }
    free(all[0]);
}

/* What a device has of the weights, put together: the bytes that one device has. */
static void weights_come_back(void **state)
{
    (void)state;
    if (CUDA_RIG_THREADS)
        skip();
    for (unsigned i = 0; i < N_KINDS; i++) {
        const struct kind *k = &kinds[i];
        uint8_t *bytes[2] = { NULL, NULL };
        char path[SCRATCH_PATH_MAX];
        size_t len = 0;

        write_model(k, path);
        for (unsigned n = 0; n < 2; n++) {
            struct rig r;

            open_rig(&r, path, k->of.kv, gistd_backend(), n ? k->n_devices[0] : 1);
            len = r.model->mem_len;
            bytes[n] = malloc(len);
            assert_non_null(bytes[n]);
            assert_int_equal(backend_get(r.backend, bytes[n], r.model->mem, len), 0);
            rig_close(&r);
        }
        assert_memory_equal(bytes[0], bytes[1], len);
        free(bytes[0]);
        free(bytes[1]);
    }
}

/* --- what a session goes through -------------------------------------------------------------- */

/* Logits after each token, in the order that they were read; the norms of a segment's keys. */
struct trace {
    float *logits, *norms;
    uint32_t n, n_norms, n_vocab;
    float hidden[2 * 256];
};

static void feed(struct rig *r, struct seq *s, uint32_t n, uint32_t chunk, struct trace *t)
{
    uint32_t ids[8 * SEG];
    float *to;

    t->n_vocab = r->model->n_vocab;
    cuda_rig_ids(ids, s->n_tokens + n);
    t->logits = realloc(t->logits, (size_t)(t->n + n) * t->n_vocab * sizeof(*t->logits));
    assert_non_null(t->logits);
    to = t->logits + (size_t)t->n * t->n_vocab;
    assert_int_equal(rig_feed(r, s, ids + s->n_tokens, n, chunk, to), 0);
    t->n += n;
}

static void free_trace(struct trace *t)
{
    free(t->logits);
    free(t->norms);
}

static void near_traces(const char *what, const struct trace *a, const struct trace *b)
{
    assert_true(a->n == b->n && a->n_vocab == b->n_vocab);
    near(what, a->logits, b->logits, a->n, a->n_vocab, KL_MANY);
}

/* A copy of a page has what was put back into it. */
static void move_pages(struct rig *r, struct seq *s, bool pinned)
{
    uint8_t *host = cuda_segment_spill(r, s, 0, pinned),
            *copy = cuda_segment_copy(r, seq_pages(s, 0)[1]);
    size_t page = r->pool.page_bytes;

    assert_memory_equal(copy, host + page, page);
    free(host);
    free(copy);
}

static void measure(struct rig *r, struct seq *s, struct trace *t)
{
    t->n_norms = r->model->n_layer * r->model->n_head_kv * SEG;
    t->norms = malloc(t->n_norms * sizeof(*t->norms));
    assert_non_null(t->norms);
    assert_int_equal(r->backend->ops->norms(r->backend, &r->pool, seq_pages(s, 0), SEG, t->norms),
                     0);
}

/* Prompts, decoding, all that moves, measures and fits keys, hidden states. */
static struct trace session(const char *path, enum kv_type kv, uint32_t n_devices)
{
    static const struct compress_spec select = { COMPRESS_SELECT, 4, 4, NULL };
    static const struct compress_spec fit = { COMPRESS_FIT, 8, 4, NULL };
    struct trace t = { .n = 0 };
    struct compressor *c;
    struct rig r;
    struct seq s;

    open_rig(&r, path, kv, gistd_backend(), n_devices);
    assert_int_equal(compress_open(r.model, r.backend, &c), 0);
    assert_int_equal(rig_seq(&r, 6 * SEG, SEG, 0, &s), 0);
    feed(&r, &s, 2 * SEG + 6, 50, &t);
    assert_true(r.model->n_embd <= 256);
    assert_int_equal(forward_hidden(&r.forward, 0, 2, t.hidden), 0);
    feed(&r, &s, 2, 1, &t);
    measure(&r, &s, &t);
    move_pages(&r, &s, true);
    move_pages(&r, &s, false);
    feed(&r, &s, 1, 1, &t);
    cuda_segment_pack(&r, c, &select, &s, 0);
    feed(&r, &s, 2, 1, &t);
    cuda_segment_pack(&r, c, &fit, &s, 1);
    feed(&r, &s, 9, 5, &t);
    seq_close(&s);
    compress_close(c);
    rig_close(&r);
    return t;
}

/* A hundredth of the largest. */
static void near_values(const float *a, const float *b, uint32_t n)
{
    double most = 0;

    for (uint32_t i = 0; i < n; i++)
        most = fabs((double)a[i]) > most ? fabs((double)a[i]) : most;
    assert_true(most > 0 && near_worst(0, a, b, n) <= most / 100);
}

static void a_session(void **state)
{
    (void)state;
    if (CUDA_RIG_THREADS)
        skip();
    for (unsigned i = 1; i < (SANITIZED ? 2 : 3); i++) {
        const struct kind *k = &kinds[i];
        struct trace one, several;
        char path[SCRATCH_PATH_MAX];

        write_model(k, path);
        one = session(path, k->of.kv, 1);
        for (unsigned n = 0; n < (SANITIZED ? 1 : 3) && k->n_devices[n]; n++) {
            several = session(path, k->of.kv, k->n_devices[n]);
            near_traces("a session", &one, &several);
            near_values(one.norms, several.norms, one.n_norms);
            near_values(one.hidden, several.hidden, 2 * k->of.n_embd);
            free_trace(&several);
        }
        free_trace(&one);
    }
}

/* Work as late as it may be, with a page to the host and back beside it: where a race shows. */
static void a_short_session(void **state)
{
    static const struct compress_spec select = { COMPRESS_SELECT, 4, 4, NULL };
    struct trace t = { .n = 0 };
    char path[SCRATCH_PATH_MAX];
    struct compressor *c;
    struct rig r;
    struct seq s;

    (void)state;
    write_model(&kinds[0], path);
    open_rig(&r, path, KV_F16, gistd_backend(), 2);
    assert_int_equal(compress_open(r.model, r.backend, &c), 0);
    assert_int_equal(rig_seq(&r, 2 * SEG, SEG, 0, &s), 0);
    shim_set_late(true);
    feed(&r, &s, SEG, SEG, &t);
    feed(&r, &s, 1, 1, &t);
    move_pages(&r, &s, true);
    feed(&r, &s, 1, 1, &t);
    cuda_segment_pack(&r, c, &select, &s, 0);
    feed(&r, &s, 1, 1, &t);
    shim_set_late(false);
    seq_close(&s);
    compress_close(c);
    rig_close(&r);
    free_trace(&t);
}

/* --- adapters --------------------------------------------------------------------------------- */

/* A safetensors file that grows by tensors of noise. */
struct made {
    char json[16384];
    float *data;
    size_t n;
};

static void add_tensor(struct made *f, unsigned layer, const char *p, const char *what,
                       uint32_t rows, uint32_t cols)
{
    size_t len = rows * (cols ? cols : 1), at = strlen(f->json);
    char shape[32];

    (void)snprintf(shape, sizeof(shape), cols ? "%u,%u" : "%u", rows, cols);
    (void)snprintf(f->json + at, sizeof(f->json) - at,
                   ",\"layers.%u.%s.%s\":{\"dtype\":\"F32\",\"shape\":[%s],"
                   "\"data_offsets\":[%zu,%zu]}",
                   layer, p, what, shape, f->n * sizeof(float), (f->n + len) * sizeof(float));
    f->data = realloc(f->data, (f->n + len) * sizeof(float));
    assert_non_null(f->data);
    for (size_t i = 0; i < len; i++, f->n++)
        f->data[f->n] = (float)((f->n * 2654435761u >> 7) % 1000) / 4000.0f - 0.125f;
}

/* Of its own in the first layer all matrices, and in the second low-rank ones; biases in both. */
static void write_adapter(const struct model *m, const char *method, const char *path)
{
    struct made f = { .n = 0 };
    uint64_t len;
    FILE *file;

    (void)snprintf(f.json, sizeof(f.json),
                   "{\"__metadata__\":{\"format\":\"gist-adapter\",\"version\":\"1\","
                   "\"base_model\":\"%s\",\"method\":\"%s\",\"mask\":\"memory-only\","
                   "\"embedding\":\"last-token\",\"segment\":\"64\",\"sinks\":\"2\"}",
                   m->digest, method);
    for (unsigned p = 0; p < ADAPTER_PROJECTION__N; p++) {
        const char *name = adapter_projection_name(p);
        uint32_t out, in;

        adapter_projection_shape(m, p, &out, &in);
        add_tensor(&f, 0, name, "weight", out, in);
        add_tensor(&f, 1, name, "a", 3, in);
        add_tensor(&f, 1, name, "b", out, 3);
        for (unsigned layer = 0; layer < 2 && p < ADAPTER_QKV__N; layer++)
            add_tensor(&f, layer, name, "bias", out, 0);
    }
    (void)strcat(f.json, "}");
    len = strlen(f.json);
    file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(&len, sizeof(len), 1, file), 1);
    assert_int_equal(fwrite(f.json, len, 1, file), 1);
    assert_int_equal(fwrite(f.data, sizeof(float), f.n, file), f.n);
    assert_int_equal(fclose(file), 0);
    free(f.data);
}

static struct trace gists(const char *path, const char *method, uint32_t n_devices)
{
    struct trace t = { .n = 0 };
    char file[SCRATCH_PATH_MAX];
    struct compress_spec spec;
    struct compressor *c;
    struct adapter *a;
    struct rig r;
    struct seq s;

    open_rig(&r, path, KV_F16, gistd_backend(), n_devices);
    write_adapter(r.model, method, scratch_path(file, "gist.safetensors"));
    spec = cuda_segment_gists(&r, file, &a);
    assert_int_equal(compress_open(r.model, r.backend, &c), 0);
    assert_int_equal(rig_seq(&r, 4 * SEG, SEG, 0, &s), 0);
    feed(&r, &s, SEG + 5, 50, &t);
    cuda_segment_pack(&r, c, &spec, &s, 0);
    feed(&r, &s, 4, 1, &t);
    feed(&r, &s, 20, 20, &t);
    seq_close(&s);
    compress_close(c);
    adapter_close(a);
    rig_close(&r);
    return t;
}

/* Of matrices cut as the model's are, and of hidden states that come back as embeddings. */
static void an_adapter(void **state)
{
    static const char *const methods[] = { "fine-kv", "coarse-rec" };
    char path[SCRATCH_PATH_MAX];

    (void)state;
    if (CUDA_RIG_THREADS)
        skip();
    write_model(&kinds[1], path);
    for (unsigned i = 0; i < (SANITIZED ? 1 : 2); i++) {
        struct trace one = gists(path, methods[i], 1);

        for (uint32_t n = 2; n <= (SANITIZED ? 2 : 4); n += 2) {
            struct trace several = gists(path, methods[i], n);

            near_traces(methods[i], &one, &several);
            free_trace(&several);
        }
        free_trace(&one);
    }
}

/* --- what divides ----------------------------------------------------------------------------- */

static void refused(void **state)
{
    char path[SCRATCH_PATH_MAX];
    const struct rig_opts o = opts_of(path, KV_F16, gistd_backend(), 2);
    struct why why = { "" };
    struct rig r;

    (void)state;
    write_model(&kinds[2], path);
    assert_int_equal(rig_open(&r, &o, &why), -EINVAL);
    assert_non_null(strstr(why.text, "found 2 devices for 3 KV heads of 64 (3 heads)"));
    assert_non_null(strstr(why.text, "expected 1 or 3: use so many, or --split-mode layer"));
}

/* --- memory, what fails ----------------------------------------------------------------------- */

static void devices_say_what_they_have(void **state)
{
    const struct backend_options bo = { .devices = devices_of(4),
                                        .split = BACKEND_SPLIT_TENSOR,
                                        .max_rows = MAX_BATCH,
                                        .max_pages = 64 };
    struct backend_info info;
    char path[SCRATCH_PATH_MAX];
    struct why why = { "" };
    uint64_t need;
    struct rig r;

    (void)state;
    write_model(&kinds[1], path);
    open_rig(&r, path, KV_F16, gistd_backend(), 4);
    r.backend->ops->info(r.backend, &info);
    assert_string_equal(info.name, "cuda-shim:2,0,3,1 (shim)");
    assert_int_equal(info.n_devices, 4);
    assert_int_equal(info.split, BACKEND_SPLIT_TENSOR);
    assert_int_equal(r.backend->ops->need(&bo, r.model, &need, &why), 0);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(info.devices[i].first_layer, 0);
        assert_int_equal(info.devices[i].n_layers, r.model->n_layer);
        assert_in_range(info.devices[i].scratch_bytes, 1, need);
    }
    rig_close(&r);
}

/* Of each device what divide_weights says, but for where parts begin. */
static void weights_are_divided(void **state)
{
    size_t before[4], after, all;
    char path[SCRATCH_PATH_MAX];
    struct divide d;
    struct why why = { "" };
    void *mem;
    struct rig r;

    (void)state;
    write_model(&kinds[3], path);
    open_rig(&r, path, KV_F16, gistd_backend(), 2);
    assert_int_equal(divide_tensors(r.model, 2, &d, &why), 0);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(cudaSetDevice(devices_of(2).at[i]), cudaSuccess);
        assert_int_equal(cudaMemGetInfo(&before[i], &all), cudaSuccess);
    }
    assert_int_equal(r.backend->ops->alloc_weights(r.backend, r.model, &mem, &why), 0);
    for (uint32_t i = 0; i < 2; i++) {
        uint64_t n = divide_weights(&d, r.model, i);

        assert_int_equal(cudaSetDevice(devices_of(2).at[i]), cudaSuccess);
        assert_int_equal(cudaMemGetInfo(&after, &all), cudaSuccess);
        assert_in_range(before[i] - after, n, n + 65536);
        assert_true(n < r.model->packed.len);
    }
    backend_free(r.backend, mem, r.model->packed.len);
    rig_close(&r);
}

/* A dozen tokens, from the beginning. */
static void feed_dozen(struct rig *r, struct trace *t)
{
    struct seq s;

    t->n = 0;
    assert_int_equal(rig_seq(r, 2 * SEG, SEG, 0, &s), 0);
    feed(r, &s, 12, 12, t);
    seq_close(&s);
}

/* The same in a step that fails, or is given up. */
static void fail_dozen(struct rig *r, const struct forward_stop *stop, int expected)
{
    uint32_t ids[12], n_out;
    struct seq s;
    struct forward_run run = {
        .seq = &s, .tokens = ids, .n_tokens = 12, .want = FORWARD_WANT_LAST
    };

    cuda_rig_ids(ids, 12);
    assert_int_equal(rig_seq(r, 2 * SEG, SEG, 0, &s), 0);
    assert_int_equal(seq_reserve(&s, 12), 0);
    assert_int_equal(forward_step(&r->forward, &run, 1, stop, &n_out), expected);
    if (expected == -EIO) /* and ever after */
        assert_int_equal(forward_step(&r->forward, &run, 1, stop, &n_out), expected);
    seq_close(&s);
}

static void same(const struct trace *a, const struct trace *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->logits, b->logits, (size_t)a->n * N_VOCAB * sizeof(float));
}

/* Lost at some call of a step: an error, and the same ever after; then all come back, and give the
 * same again. */
static void a_lost_device(void **state)
{
    struct trace before = { .n = 0 }, after = before;
    char path[SCRATCH_PATH_MAX];
    struct rig r;

    (void)state;
    if (CUDA_RIG_THREADS)
        skip();
    write_model(&kinds[1], path);
    open_rig(&r, path, KV_F16, gistd_backend(), 2);
    feed_dozen(&r, &before);
    for (unsigned at = 5; at < 80; at += 25) {
        shim_set_lost(at);
        fail_dozen(&r, NULL, -EIO);
        assert_true(r.backend->ops->lost(r.backend));
        cuda_rig_reopen(&r, path);
        feed_dozen(&r, &after);
        same(&before, &after);
    }
    rig_close(&r);
    free_trace(&before);
    free_trace(&after);
}

static bool stop_now(void *arg)
{
    return (*(unsigned *)arg)-- == 0;
}

/* Given up between any two layers: nothing is left behind, and the next step is as ever. */
static void a_step_that_is_given_up(void **state)
{
    struct trace before = { .n = 0 }, after = before;
    char path[SCRATCH_PATH_MAX];
    struct rig r;

    (void)state;
    if (CUDA_RIG_THREADS)
        skip();
    write_model(&kinds[1], path);
    open_rig(&r, path, KV_F16, gistd_backend(), 2);
    feed_dozen(&r, &before);
    for (unsigned n = 0; n < 2; n++) {
        unsigned left = n;
        const struct forward_stop stop = { stop_now, &left };

        fail_dozen(&r, &stop, -ECANCELED);
        feed_dozen(&r, &after);
        same(&before, &after);
    }
    rig_close(&r);
    free_trace(&before);
    free_trace(&after);
}

static void no_memory(void **state)
{
    char path[SCRATCH_PATH_MAX];
    const struct rig_opts o = opts_of(path, KV_F16, gistd_backend(), 2);

    (void)state;
    if (CUDA_RIG_THREADS)
        skip();
    write_model(&kinds[0], path);
    cuda_rig_no_memory(&o, 2, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_cpu),
        cmocka_unit_test(the_same_every_time),
        cmocka_unit_test(weights_come_back),
        cmocka_unit_test(a_session),
        cmocka_unit_test(a_short_session),
        cmocka_unit_test(an_adapter),
        cmocka_unit_test(refused),
        cmocka_unit_test(devices_say_what_they_have),
        cmocka_unit_test(weights_are_divided),
        cmocka_unit_test(a_lost_device),
        cmocka_unit_test(a_step_that_is_given_up),
        cmocka_unit_test(no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
