/* engine/tensors.h - what a step of training is computed with: memory, and operations on rows and
 * matrices in it.
 *
 *     train/net/tensors_cpu.c      the process's memory, oneDNN, OpenMP
 *     cuda/train.c                 a device's memory, cuBLAS, kernels (libgistd-cuda.so)
 *
 * What the trainer holds between operations (weights, activations, gradients, moments) stays where
 * it is computed: pointers are of that memory, but those that are called host. "Typed" values are
 * f32 or bf16, all others f32; sums are f32's at least, in an order that never changes, so a run
 * repeats bit for bit.
 *
 * Threads    one call at a time. Operations may still be under way when they return; get, loss,
 *            top and sum_squares wait for all before them.
 * Ownership  what alloc and attn_open gave is given back before close. Lists of the host are read
 *            before the call returns.
 * Errors     kept: after the first failure operations do nothing, and error() says -ENOMEM or -EIO.
 */
#ifndef ENGINE_TENSORS_H
#define ENGINE_TENSORS_H

#include "base/why.h"
#include "engine/tensors_work.h"

#define TENSORS_ABI   2u
#define TENSORS_ENTRY "gistd_tensors" /* of a library: a function that returns its table */

struct tensors_attn;

struct tensors {
    const struct tensors_ops *ops;
};

struct tensors_ops {
    uint32_t abi;
    size_t size; /* of this table */
    const char *name;
    bool host; /* its memory is the process's */

    int (*look)(unsigned n, struct why *why); /* whether device n is there */
    int (*open)(unsigned n, struct tensors **ret, struct why *why);
    void (*close)(struct tensors *t);
    int (*error)(struct tensors *t);

    uint64_t (*left)(struct tensors *t);         /* bytes that are free; 0: nobody knows */
    void *(*alloc)(struct tensors *t, size_t n); /* NULL: no memory. Its bytes are anything */
    void (*free)(struct tensors *t, void *p);
    void (*put)(struct tensors *t, void *to, const void *host, size_t n);
    void (*get)(struct tensors *t, void *host, const void *from, size_t n);
    void (*copy)(struct tensors *t, void *to, const void *from, size_t n);
    void (*clear)(struct tensors *t, void *p, size_t n);

    void (*product)(struct tensors *t, const struct tensors_product *p);
    void (*narrow)(struct tensors *t, enum tensors_type type, void *y, const float *x, size_t n);
    void (*widen)(struct tensors *t, enum tensors_type type, float *y, const void *x, size_t n);
    void (*add)(struct tensors *t, float *y, const float *x, uint32_t n_rows,
                uint32_t n); /* x (n) */
    void (*norm)(struct tensors *t, const struct tensors_norm *a);
    void (*norm_back)(struct tensors *t, const struct tensors_norm_back *a);
    void (*sum_rows)(struct tensors *t, const struct tensors_sum *a); /* before norm_back */
    /* y (n_rows, n) = silu(g) u, gu (n_rows, 2 n); back: gu becomes the derivative by it. Typed. */
    void (*swiglu)(struct tensors *t, enum tensors_type type, void *y, const void *gu,
                   uint32_t n_rows, uint32_t n);
    void (*swiglu_back)(struct tensors *t, enum tensors_type type, void *gu, const void *dy,
                        uint32_t n_rows, uint32_t n);
    void (*take)(struct tensors *t, const struct tensors_take *a);
    void (*give)(struct tensors *t, const struct tensors_give *a);

    int (*attn_open)(struct tensors *t, const struct tensors_heads *h, struct tensors_attn **ret);
    void (*attn_close)(struct tensors_attn *a);
    /* The bytes that it takes for sights of no more than these sizes. */
    size_t (*attn_room)(const struct tensors_heads *h, const struct tensors_sizes *s);
    /* What the calls after it look at; the sight stays until the next one. */
    void (*attn_see)(struct tensors_attn *a, const struct sight *s);
    void (*attend)(struct tensors_attn *a, const struct tensors_attend *p);
    void (*attend_back)(struct tensors_attn *a, const struct tensors_attend_back *p);

    void (*loss)(struct tensors *t, const struct tensors_loss *a);
    void (*top)(struct tensors *t, const struct tensors_top *a);
    /* w (n_out, n_in) += b (n_out, rank) a (rank, n_in) */
    void (*low_rank)(struct tensors *t, float *w, const float *b, const float *a, uint32_t n_out,
                     uint32_t n_in, uint32_t rank);
    double (*sum_squares)(struct tensors *t, const float *x, size_t n);
    void (*adamw)(struct tensors *t, const struct tensors_adamw *a);
};

/* The version, before all else: 0, or -ELIBBAD. */
int tensors_check(const struct tensors_ops *ops, struct why *why);

/* Who computes on a device, by its name (engine/devices.h), and the device is there: that of
 * process k of n on this machine, which has the k-th of several. NULL: the CPU, also for "auto"
 * where something is missing, and then why has a sentence. -EINVAL, or what engine/plugin.h and
 * look say.
 */
int tensors_find(const char *name, uint32_t k, uint32_t n, const struct tensors_ops **ret,
                 unsigned *ret_device, struct why *why);

#endif
