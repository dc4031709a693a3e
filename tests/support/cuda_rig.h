/* tests/support/cuda_rig.h - what tests of whole models on the shim's devices have in common, of
 * one device and of several.
 *
 * Inline, so that it is built as its test is: plain, for threads, for bounds. A failure ends the
 * test.
 */
#ifndef TESTS_SUPPORT_CUDA_RIG_H
#define TESTS_SUPPORT_CUDA_RIG_H

#include "cuda/shim/cuda_runtime_api.h"
#include "cuda/shim/shim.h"
#include "tests/support/gguf_build.h"
#include "tests/support/rig.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What takes minutes for threads is left out there. */
#ifdef SHIM_TSAN
#define CUDA_RIG_THREADS true
#else
#define CUDA_RIG_THREADS false
#endif

/* --- models and tokens ------------------------------------------------------------------------ */

struct cuda_rig_kind {
    const char *name, *arch;
    enum quant type;
    enum kv_type kv;
    uint32_t n_embd, n_ff, n_head, n_head_kv;
    bool biases, tied;
};

/* A tiny model of this kind, in a file of this name. */
static inline void cuda_rig_write(const struct cuda_rig_kind *k, const char *name,
                                  char path[SCRATCH_PATH_MAX])
{
    struct gguf_build_shape shape = gguf_build_tiny();
    struct gguf_build *b;

    shape.arch = k->arch;
    shape.n_embd = k->n_embd;
    shape.n_ff = k->n_ff;
    shape.n_head = k->n_head;
    shape.n_head_kv = k->n_head_kv;
    shape.head_dim = k->n_embd / k->n_head;
    shape.embd = shape.attn = shape.ffn = k->type;
    shape.biases = k->biases;
    shape.tied = k->tied;
    b = gguf_build_model(&shape);
    gguf_build_write(b, scratch_path(path, name));
    gguf_build_free(b);
}

static inline void cuda_rig_ids(uint32_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        ids[i] = GGUF_BUILD_BYTE_0 + (i * i * 7 + i * 13 + 5) % 250;
}

/* Of q from p, in nats; both as logits. */
static inline double cuda_rig_divergence(const float *p, const float *q, uint32_t n_vocab)
{
    double sum = 0;

    for (uint32_t i = 0; i < n_vocab; i++) {
        double lp = rig_logprob(p, n_vocab, i), lq = rig_logprob(q, n_vocab, i);

        sum += exp(lp) * (lp - lq);
    }
    return sum;
}

/* Of n rows. */
static inline double cuda_rig_mean_divergence(const float *p, const float *q, uint32_t n,
                                              uint32_t n_vocab)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += cuda_rig_divergence(p + i * n_vocab, q + i * n_vocab, n_vocab);
    return sum / n;
}

/* --- what fails ------------------------------------------------------------------------------- */

/* All that was on devices goes, and comes back when they do. path: the model's. */
static inline void cuda_rig_reopen(struct rig *r, const char *path)
{
    const struct backend_ops *ops = r->backend->ops;
    struct why why = { "" };
    struct model *again;
    int e = 0;

    forward_leave(&r->forward);
    pool_leave(&r->pool);
    model_leave(r->model);
    for (unsigned n = 1; e == 0; n += 20) { /* until it is lost again while it is opened */
        shim_set_lost(n);
        e = ops->reopen(r->backend, &why);
    }
    assert_int_equal(ops->hidden(r->backend, 0, 1, NULL), -EIO);
    shim_set_lost(0);
    assert_int_equal(ops->reopen(r->backend, &why), 0);
    assert_int_equal(model_open(path, r->backend, NULL, &again, &why), 0);
    model_take(r->model, again);
    assert_int_equal(ops->set_model(r->backend, r->model, &why), 0);
    assert_int_equal(pool_again(&r->pool, &why), 0);
}

/* Bytes that are left, of each device that is asked for. */
static inline void cuda_rig_left(const struct rig_opts *o, size_t ret[BACKEND_DEVICES_MAX])
{
    size_t all;

    for (uint32_t i = 0; i < (o->devices.n ? o->devices.n : 1); i++) {
        assert_int_equal(cudaSetDevice(o->devices.at[i]), cudaSuccess);
        assert_int_equal(cudaMemGetInfo(&ret[i], &all), cudaSuccess);
    }
}

/* Devices of each size, by a part of it larger each time: refused with a sentence, more than so
 * often, and what was taken is given back on all of them. */
static inline void cuda_rig_no_memory(const struct rig_opts *o, unsigned part, unsigned refused)
{
    size_t before[BACKEND_DEVICES_MAX] = { 0 }, after[BACKEND_DEVICES_MAX] = { 0 };
    unsigned n_refused = 0;
    struct rig r;
    int e = -ENOMEM;

    for (size_t bytes = 100000; e < 0; bytes += bytes / part) {
        struct why why = { "" };

        shim_set_memory(bytes);
        cuda_rig_left(o, before);
        e = rig_open(&r, o, &why);
        if (e < 0) {
            cuda_rig_left(o, after);
            assert_memory_equal(before, after, sizeof(before));
            assert_int_equal(e, -ENOMEM);
            assert_non_null(strstr(why.text, "no "));
            n_refused++;
        }
        assert_true(bytes < (size_t)1 << 32);
    }
    rig_close(&r);
    shim_set_memory((size_t)8 << 30);
    assert_true(n_refused > refused);
}

#endif
