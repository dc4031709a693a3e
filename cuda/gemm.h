/* cuda/gemm.h - the products that a library makes for us. The one that steps of a model take: of
 * many rows, in bf16 with f32 sums.
 *
 *     y (T, n_rows), y_stride floats apart  =  x (T, n_cols) times the transpose of w (n_rows,
 * n_cols)
 *
 * cuBLAS has it on a GPU (cuda/nv/gemm_cublas.c), plain loops on the shim (cuda/shim/gemm_host.c).
 *
 * Threads    who has the stream.
 * Errors     gemm_open: -ELIBACC (the library is missing), -ENOMEM. gemm_run: -EIO.
 */
#ifndef CUDA_GEMM_H
#define CUDA_GEMM_H

#include "base/why.h"
#include "engine/tensors_work.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gemm;

extern const size_t gemm_workspace; /* bytes of the device's that it works in */

struct gemm_product {
    const uint16_t *w, *x;
    float *y;
    uint32_t n_rows, n_cols, n_x;
    size_t y_stride;
    bool add; /* to what y has */
};

/* workspace: borrowed; its own, so that nothing is allocated while steps run. */
int gemm_open(void *stream, void *workspace, struct gemm **ret, struct why *why);
void gemm_close(struct gemm *g);
int gemm_run(struct gemm *g, const struct gemm_product *p);

/* As training has them, of bf16 or f32, sums in f32: n at once, whose matrices lie so many values
 * behind each other. */
struct gemm_batch {
    struct tensors_product of; /* the first */
    uint32_t n;
    size_t a_stride, b_stride, c_stride;
};
int gemm_batch(struct gemm *g, const struct gemm_batch *p);

#endif
