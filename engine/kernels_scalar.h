/* engine/kernels_scalar.h - what the files of the scalar table share. */
#ifndef ENGINE_KERNELS_SCALAR_H
#define ENGINE_KERNELS_SCALAR_H

#include "engine/kernels.h"

void scalar_matmul_q4_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void scalar_matmul_q4_1(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void scalar_matmul_q8_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void scalar_matmul_q4_k(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void scalar_matmul_q6_k(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void scalar_matmul_f32(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void scalar_matmul_f16(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void scalar_matmul_bf16(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void scalar_quantise(const float *x, uint32_t n, struct kernels_q8 *ret);

#endif
