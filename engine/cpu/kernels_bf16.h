/* engine/cpu/kernels_bf16.h - what AVX512_BF16 adds to the AVX-512 table. */
#ifndef ENGINE_CPU_KERNELS_BF16_H
#define ENGINE_CPU_KERNELS_BF16_H

#include "engine/cpu/kernels_avx512.h"

void bf16_matmul_bf16(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void bf16_matmul_f16(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void bf16_from_f32(const float *x, uint32_t n, uint16_t *ret);

#endif
