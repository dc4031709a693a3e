/* tests/test_cuda_several.c - a model on several devices (cuda/spread.h, cuda/link.h), over the
 * shim: built plain, for threads and for bounds. Would catch: one bit of a logit, a page, a norm or
 * a compressed key that is not what one device makes; a device that computes with another's memory
 * (that is a fault, or poison to ASan); rows or hidden states that are taken up before they are
 * there, or written over while they are on their way (races, to TSan); a page that is spilled or
 * hydrated in part; a copy between devices that brings something else, and is believed; a thread
 * that launches on the device of another; layers that are on no device, or on one that has no room.
 *
 * All that a session goes through leaves a trace, byte by byte; it is the same on one device and on
 * several, also where these can't reach each other's memory.
 */
#include "cuda/backend_cuda.h"
#include "engine/divide.h"
#include "tests/support/cuda_rig.h"
#include "tests/support/cuda_segment.h"
#include "tests/support/sanitized.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAX_BATCH   64u
#define SEG         64u
#define N_SEG_PAGES (SEG / PAGE_TOKENS)
#define N_VOCAB     GGUF_BUILD_N_VOCAB

struct trace {
    uint8_t *bytes;
    size_t n, room;
};

static void add(struct trace *t, const void *bytes, size_t n)
{
    if (t->n + n > t->room) {
        t->room = 2 * (t->n + n);
        t->bytes = realloc(t->bytes, t->room);
        assert_non_null(t->bytes);
    }
    memcpy(t->bytes + t->n, bytes, n);
    t->n += n;
}

static void same(const struct trace *a, const struct trace *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->bytes, b->bytes, a->n);
}

/* Layers: an odd number, which no two devices share evenly. */
static void write_model(uint32_t n_layer, bool tied, char path[SCRATCH_PATH_MAX])
{
    struct gguf_build_shape shape = gguf_build_tiny();
    struct gguf_build *b;

    shape.arch = "qwen2";
    shape.n_layer = n_layer;
    shape.embd = shape.attn = shape.ffn = QUANT_Q8_0;
    shape.biases = true;
    shape.tied = tied;
    b = gguf_build_model(&shape);
    gguf_build_write(b, scratch_path(path, "several.gguf"));
    gguf_build_free(b);
}

static void open_rig(struct rig *r, const char *path, enum kv_type kv,
                     const struct backend_devices *devices)
{
    const struct rig_opts o = { .model = path,
                                .cpu = "scalar",
                                .kv = kv,
                                .threads = 1,
                                .max_batch = MAX_BATCH,
                                .max_tokens = 8 * SEG,
                                .backend = gistd_backend(),
                                .devices = *devices };
    struct why why = { "" };

    if (rig_open(r, &o, &why) < 0)
        fail_msg("%s", why.text);
}

/* --- what a session goes through -------------------------------------------------------------- */

static void feed(struct rig *r, struct seq *s, uint32_t n, uint32_t chunk, struct trace *t)
{
    uint32_t *ids = malloc((s->n_tokens + n) * sizeof(*ids));
    float *logits = malloc((size_t)n * r->model->n_vocab * sizeof(*logits));

    cuda_rig_ids(ids, s->n_tokens + n);
    assert_int_equal(rig_feed(r, s, ids + s->n_tokens, n, chunk, logits), 0);
    add(t, logits, (size_t)n * r->model->n_vocab * sizeof(*logits));
    free(logits);
    free(ids);
}

static void spill_and_hydrate(struct rig *r, struct seq *s, uint32_t segment, struct trace *t)
{
    uint8_t *host = cuda_segment_spill(r, s, segment, true);

    add(t, host, N_SEG_PAGES * r->pool.page_bytes);
    free(host);
}

static void pack(struct rig *r, struct compressor *c, const struct compress_spec *spec,
                 struct seq *s, uint32_t segment, struct trace *t)
{
    uint8_t *page = malloc(r->pool.page_bytes);

    cuda_segment_pack(r, c, spec, s, segment);
    for (uint32_t i = 0; i < seq_n_pages(compress_n_keys(spec, SEG, segment, 0)); i++) {
        assert_int_equal(backend_get(r->backend, page,
                                     cuda_segment_page(r, seq_pages(s, segment)[i]),
                                     r->pool.page_bytes),
                         0);
        add(t, page, r->pool.page_bytes);
    }
    free(page);
}

static void copy_and_measure(struct rig *r, struct seq *s, struct trace *t)
{
    size_t n = (size_t)r->model->n_layer * r->model->n_head_kv * SEG;
    float *norms = malloc(n * sizeof(*norms));
    uint8_t *page = cuda_segment_copy(r, seq_pages(s, 0)[1]);

    add(t, page, r->pool.page_bytes);
    assert_int_equal(r->backend->ops->norms(r->backend, &r->pool, seq_pages(s, 0), SEG, norms), 0);
    add(t, norms, n * sizeof(*norms));
    free(page);
    free(norms);
}

/* Prompts, decoding by kept graphs, all that moves, measures and fits keys, copies of pages, hidden
 * states. */
static struct trace session(struct rig *r)
{
    static const struct compress_spec select = { COMPRESS_SELECT, 4, 4, NULL };
    static const struct compress_spec fit = { COMPRESS_FIT, 8, 4, NULL };
    struct trace t = { NULL, 0, 0 };
    float hidden[2 * 64];
    struct compressor *c;
    struct seq s;

    assert_int_equal(compress_open(r->model, r->backend, &c), 0);
    assert_int_equal(rig_seq(r, 6 * SEG, SEG, 0, &s), 0);
    feed(r, &s, 2 * SEG + 6, 50, &t);
    assert_int_equal(r->model->n_embd, 64);
    assert_int_equal(forward_hidden(&r->forward, 0, 2, hidden), 0);
    add(&t, hidden, sizeof(hidden));
    feed(r, &s, 3, 1, &t);
    copy_and_measure(r, &s, &t);
    spill_and_hydrate(r, &s, 0, &t);
    feed(r, &s, 1, 1, &t);
    pack(r, c, &select, &s, 0, &t);
    feed(r, &s, 1, 1, &t);
    pack(r, c, &fit, &s, 1, &t);
    feed(r, &s, 9, 5, &t);
    seq_close(&s);
    compress_close(c);
    return t;
}

/* --- the same bits ---------------------------------------------------------------------------- */

static const struct backend_devices one = { 1, { 0 } };
static const struct backend_devices several[] = {
    { 2, { 0, 1 } }, { 2, { 3, 1 } }, { 3, { 2, 0, 1 } }, { 4, { 0, 1, 2, 3 } }
};
#define N_SEVERAL (sizeof(several) / sizeof(*several))

static void compare(const char *path, enum kv_type kv, const struct backend_devices *devices,
                    const struct trace *expected)
{
    struct trace found;
    struct rig r;

    open_rig(&r, path, kv, devices);
    found = session(&r);
    same(expected, &found);
    free(found.bytes);
    rig_close(&r);
}

static struct trace expect(const char *path, enum kv_type kv)
{
    struct trace ret;
    struct rig r;

    open_rig(&r, path, kv, &one);
    ret = session(&r);
    rig_close(&r);
    return ret;
}

static void same_bits(void **state)
{
    char path[SCRATCH_PATH_MAX];

    (void)state;
    if (CUDA_RIG_THREADS)
        skip();
    for (int tied = SANITIZED; tied < 2; tied++) {
        enum kv_type kv = tied ? KV_Q8_0 : KV_F16;
        struct trace expected;

        write_model(5, tied, path);
        expected = expect(path, kv);
        for (size_t i = 0; i < N_SEVERAL; i += SANITIZED ? 2 : 1)
            compare(path, kv, &several[i], &expected);
        shim_set_late(!SANITIZED);
        compare(path, kv, &several[0], &expected);
        shim_set_late(false);
        free(expected.bytes);
    }
}

/* Devices that have none of each other's memory: by way of the host's. What a kernel touches of
 * another's is found whatever it writes there. */
static void without_peers(void **state)
{
    char path[SCRATCH_PATH_MAX];
    struct trace expected;

    (void)state;
    if (CUDA_RIG_THREADS)
        skip();
    write_model(5, false, path);
    expected = expect(path, KV_F16);
    for (unsigned i = 0; i < 4; i++) { /* peers that others were given, above */
        assert_int_equal(cudaSetDevice((int)i), cudaSuccess);
        assert_int_equal(cudaDeviceReset(), cudaSuccess);
    }
    shim_set_peers(false);
    compare(path, KV_F16, &several[0], &expected);
    compare(path, KV_F16, &several[3], &expected);
    shim_set_peers(true);
    free(expected.bytes);
}

/* Devices that can have each other's memory, as they say, and whose copies bring something else: an
 * IOMMU that stands between them does that. */
static void peers_that_do_not_reach(void **state)
{
    char path[SCRATCH_PATH_MAX];
    struct trace expected;

    (void)state;
    if (CUDA_RIG_THREADS)
        skip();
    write_model(3, false, path);
    expected = expect(path, KV_F16);
    shim_set_astray(true);
    compare(path, KV_F16, &several[0], &expected);
    shim_set_astray(false);
    free(expected.bytes);
}

/* Work as late as it may be, with what a page takes to the host beside it: where a race shows. A
 * prompt, a token, a page out and in. */
static void short_session(const char *path)
{
    struct trace t = { NULL, 0, 0 };
    float hidden[64];
    struct rig r;
    struct seq s;

    open_rig(&r, path, KV_F16, &several[0]);
    assert_int_equal(rig_seq(&r, 2 * SEG, SEG, 0, &s), 0);
    shim_set_late(true);
    feed(&r, &s, SEG, SEG, &t);
    assert_int_equal(forward_hidden(&r.forward, 0, 1, hidden), 0);
    feed(&r, &s, 1, 1, &t);
    spill_and_hydrate(&r, &s, 0, &t);
    feed(&r, &s, 1, 1, &t);
    shim_set_late(false);
    seq_close(&s);
    rig_close(&r);
    free(t.bytes);
}

static void a_short_session(void **state)
{
    char path[SCRATCH_PATH_MAX];

    (void)state;
    write_model(3, false, path);
    shim_set_peers(false);
    short_session(path);
    shim_set_peers(true);
    short_session(path);
}

/* --- adapters --------------------------------------------------------------------------------- */

static struct trace gists(const char *model, const char *file,
                          const struct backend_devices *devices)
{
    struct trace t = { NULL, 0, 0 };
    struct compress_spec spec;
    struct compressor *c;
    struct adapter *a;
    struct rig r;
    struct seq s;

    open_rig(&r, model, KV_F16, devices);
    spec = cuda_segment_gists(&r, file, &a);
    assert_int_equal(compress_open(r.model, r.backend, &c), 0);
    assert_int_equal(rig_seq(&r, 4 * SEG, SEG, 0, &s), 0);
    feed(&r, &s, SEG + 5, 50, &t);
    pack(&r, c, &spec, &s, 0, &t);
    feed(&r, &s, 2, 1, &t);
    seq_close(&s);
    compress_close(c);
    adapter_close(a);
    rig_close(&r);
    return t;
}

/* Of matrices and biases of its own, and of hidden states that come back as embeddings. */
static void an_adapter(void **state)
{
    static const char *const all[][2] = {
        { "tests/data/tiny_qwen2.gguf", "tests/data/gist_qwen2_all.safetensors" },
        { "tests/data/tiny_llama31.gguf", "tests/data/gist_llama31_rec.safetensors" },
    };

    (void)state;
    if (CUDA_RIG_THREADS)
        skip();
    for (unsigned i = 0; i < 2; i++) {
        struct trace expected = gists(all[i][0], all[i][1], &one);
        struct trace found = gists(all[i][0], all[i][1], &several[0]);

        same(&expected, &found);
        free(expected.bytes);
        free(found.bytes);
    }
}

/* --- threads, memory, what fails -------------------------------------------------------------- */

struct elsewhere {
    struct rig *r;
    struct trace t;
};

static void *feed_elsewhere(void *arg)
{
    struct elsewhere *e = arg;
    struct seq s;

    assert_int_equal(rig_seq(e->r, SEG, SEG, 0, &s), 0);
    feed(e->r, &s, 12, 12, &e->t);
    feed(e->r, &s, 1, 1, &e->t);
    seq_close(&s);
    return NULL;
}

/* CUDA's device is each thread's own: who opened device 1 is not who computes on it. */
static void another_thread(void **state)
{
    static const struct backend_devices second = { 1, { 1 } };
    struct elsewhere e[2] = { { NULL, { NULL, 0, 0 } }, { NULL, { NULL, 0, 0 } } };
    char path[SCRATCH_PATH_MAX];
    struct rig r[2];

    (void)state;
    write_model(3, true, path);
    open_rig(&r[0], path, KV_F16, &one);
    open_rig(&r[1], path, KV_F16, &second);
    for (unsigned i = 0; i < 2; i++) {
        pthread_t thread;

        e[i].r = &r[i];
        assert_int_equal(pthread_create(&thread, NULL, feed_elsewhere, &e[i]), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
    }
    same(&e[0].t, &e[1].t);
    for (unsigned i = 0; i < 2; i++) {
        free(e[i].t.bytes);
        rig_close(&r[i]);
    }
}

static void devices_say_what_they_have(void **state)
{
    struct backend_info info;
    char path[SCRATCH_PATH_MAX];
    uint32_t n = 0;
    void *nothing;
    struct rig r;

    (void)state;
    write_model(5, false, path);
    open_rig(&r, path, KV_F16, &several[2]);
    assert_int_equal(backend_alloc(r.backend, 0, &nothing), 0);
    backend_free(r.backend, nothing, 0);
    r.backend->ops->info(r.backend, &info);
    assert_string_equal(info.name, "cuda-shim:2,0,1 (shim)");
    assert_int_equal(info.n_devices, 3);
    assert_string_equal(info.devices[1].name, "cuda-shim:0 (shim)");
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(info.devices[i].first_layer, n);
        assert_in_range(info.devices[i].n_layers, 1, 2);
        assert_true(info.devices[i].scratch_bytes > 0);
        n += info.devices[i].n_layers;
    }
    assert_int_equal(n, 5);
    rig_close(&r);
}

/* Lost at some call of a step: an error, and the same ever after; then all come back, and give the
 * same again. */
static void a_lost_device(void **state)
{
    struct trace before = { NULL, 0, 0 }, after = { NULL, 0, 0 };
    char path[SCRATCH_PATH_MAX];
    uint32_t ids[12], n_out;
    struct forward_run run = { .tokens = ids, .n_tokens = 12, .want = FORWARD_WANT_LAST };
    struct rig r;
    struct seq s;

    (void)state;
    if (CUDA_RIG_THREADS)
        skip();
    cuda_rig_ids(ids, 12);
    write_model(5, false, path);
    open_rig(&r, path, KV_F16, &several[0]);
    assert_int_equal(rig_seq(&r, 2 * SEG, SEG, 0, &s), 0);
    feed(&r, &s, 12, 12, &before);
    assert_int_equal(seq_reserve(&s, 12), 0);
    run.seq = &s;
    shim_set_lost(20);
    assert_int_equal(forward_step(&r.forward, &run, 1, NULL, &n_out), -EIO);
    assert_true(r.backend->ops->lost(r.backend));
    assert_int_equal(forward_step(&r.forward, &run, 1, NULL, &n_out), -EIO);
    seq_close(&s);
    cuda_rig_reopen(&r, path);
    assert_int_equal(rig_seq(&r, 2 * SEG, SEG, 0, &s), 0);
    feed(&r, &s, 12, 12, &after);
    same(&before, &after);
    seq_close(&s);
    rig_close(&r);
    free(before.bytes);
    free(after.bytes);
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
                                .backend = gistd_backend(),
                                .devices = several[0] };

    (void)state;
    if (CUDA_RIG_THREADS)
        skip();
    write_model(3, false, path);
    cuda_rig_no_memory(&o, 2, 3);
}

static void more_devices_than_layers(void **state)
{
    char path[SCRATCH_PATH_MAX];
    const struct rig_opts o = { .model = path,
                                .cpu = "scalar",
                                .threads = 1,
                                .max_batch = MAX_BATCH,
                                .max_tokens = 256,
                                .backend = gistd_backend(),
                                .devices = several[2] };
    struct why why = { "" };
    struct rig r;

    (void)state;
    write_model(2, false, path);
    assert_int_equal(rig_open(&r, &o, &why), -EINVAL);
    assert_non_null(strstr(why.text, "found 3 devices, expected at most 2"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits),
        cmocka_unit_test(without_peers),
        cmocka_unit_test(peers_that_do_not_reach),
        cmocka_unit_test(a_short_session),
        cmocka_unit_test(an_adapter),
        cmocka_unit_test(another_thread),
        cmocka_unit_test(devices_say_what_they_have),
        cmocka_unit_test(a_lost_device),
        cmocka_unit_test(no_memory),
        cmocka_unit_test(more_devices_than_layers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
