/* Products of quantised weights and kernels_q8 activations, by AVX2. */
#include "engine/cpu/kernels_avx2_matmul.h"

void avx2_matmul_q4_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    dot_matmul((struct dot_kind){ .bits = 4, .offset = 8 }, a, r0, r1);
}

void avx2_matmul_q4_min(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    dot_matmul((struct dot_kind){ .bits = 4, .min = true }, a, r0, r1);
}

void avx2_matmul_q5_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    dot_matmul((struct dot_kind){ .bits = 5, .offset = 16 }, a, r0, r1);
}

void avx2_matmul_q5_min(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    dot_matmul((struct dot_kind){ .bits = 5, .min = true }, a, r0, r1);
}

void avx2_matmul_q6_k(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    dot_matmul((struct dot_kind){ .bits = 6, .offset = 32, .two = true }, a, r0, r1);
}

void avx2_matmul_q8_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    dot_matmul((struct dot_kind){ .bits = 8 }, a, r0, r1);
}
