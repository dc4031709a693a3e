/* Products of weights that are numbers (f32, f16, bf16) and f32 activations, by AVX-512. */
#include "engine/cpu/kernels_avx512_floats.h"

void avx512_matmul_f32(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    floats_run((struct floats_kind){ QUANT_F32, false }, a, r0, r1);
}

void avx512_matmul_f16(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    floats_run((struct floats_kind){ QUANT_F16, false }, a, r0, r1);
}

void avx512_matmul_bf16(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    floats_run((struct floats_kind){ QUANT_BF16, false }, a, r0, r1);
}
