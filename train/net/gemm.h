/* train/net/gemm.h - matrix products, the trainer's one door to oneDNN.
 *
 *     C (m, n) = A (m, k) B (k, n)            or += with `add`
 *
 * Matrices lie row by row, a row every ld elements; one that is `t` lies transposed. Sums are f32
 * whatever the inputs are. bf16 runs on AMX or AVX512_BF16 where the CPU has them (oneDNN
 * dispatches at run time), f32 everywhere.
 *
 * Measured for this choice on a Sapphire Rapids, 2 threads, (2560, 576) x (576, 1536): bf16 by AMX
 * 2.4 TFLOP/s, f32 by oneDNN 0.35, f32 by OpenBLAS 0.33; a head's scores, (512, 64) x (64, 512):
 * 1.5, 0.35 and 0.02.
 *
 * Threads    a struct gemm belongs to one thread at a time; the products of one that was opened
 *            outside of a parallel region use all of OpenMP's threads, of one that was opened
 *            inside only the caller's.
 * Ownership  owns compiled primitives (one for each shape) and scratch; borrows matrices.
 * Errors     kept: after the first failure products do nothing and gemm_error() says -ENOMEM or
 *            -EIO.
 */
#ifndef TRAIN_NET_GEMM_H
#define TRAIN_NET_GEMM_H

#include "engine/tensors_work.h"

struct gemm;

int gemm_open(struct gemm **ret); /* -ENOMEM, -EIO */
void gemm_close(struct gemm *g);

/* a and b are of one type; c is f32 when add is asked for. */
void gemm_run(struct gemm *g, uint32_t m, uint32_t n, uint32_t k, struct tensors_mat a,
              struct tensors_mat b, struct tensors_mat c, bool add);
int gemm_error(const struct gemm *g);

/* bf16 products are faster than f32 ones here. */
bool gemm_has_bf16(void);

#endif
