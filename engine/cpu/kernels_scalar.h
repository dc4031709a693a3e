/* engine/cpu/kernels_scalar.h - what the files of the scalar table share. */
#ifndef ENGINE_CPU_KERNELS_SCALAR_H
#define ENGINE_CPU_KERNELS_SCALAR_H

#include "engine/cpu/kernels.h"

void scalar_matmul(const struct kernels_matmul *a, uint32_t r0, uint32_t r1); /* any type */
/* The largest |x|; NaN when one is. */
float scalar_most(const float *x, uint32_t n);
void scalar_quantise(const float *x, uint32_t n, struct kernels_q8 *ret);

#endif
