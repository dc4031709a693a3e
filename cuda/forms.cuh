/* cuda/forms.cuh - rows in the forms that products take, for kernels. */
#ifndef CUDA_FORMS_CUH
#define CUDA_FORMS_CUH

#include "cuda/dev.cuh"
#include "cuda/rows.h"

/* A block of 32 values, one a lane of a whole warp, as the CPU's quantise makes it, to the bit.
 * Returns what is left of the lane's value. */
static __device__ __forceinline__ float quantise_block(float x, struct k_q8 *to)
{
    float amax = warp_most(x), inverse = 127 / amax, d = 0;
    unsigned lane = threadIdx.x % WARP;
    bool bad = !is_finite(amax); /* so is the block's scale */
    bool zero = bad || !is_finite(inverse);
    int q, sum;

    q = zero ? 0 : __float2int_rn(x * inverse);
    sum = q;
    for (int by = 8; by > 0; by /= 2)
        sum += __shfl_xor_sync(~0u, sum, by);
    if (!zero)
        d = amax / 127;
    if (bad)
        d = NAN;
    to->q[lane] = (int8_t)q;
    if (lane % 16 == 0)
        to->sum[lane / 16] = (int16_t)sum;
    sum += __shfl_xor_sync(~0u, sum, 16);
    if (lane == 0) {
        to->d = d;
        to->s = d * (float)sum;
    }
    return __fsub_rn(x, __fmul_rn(d, (float)q));
}

/* Column i of row t, of rows of n: with q8, all lanes of a warp are here with a block's columns. */
static __device__ __forceinline__ void store_forms(const struct k_forms *f, uint32_t t, uint32_t n,
                                                   uint32_t i, float x)
{
    if (f->q8)
        (void)quantise_block(x, f->q8 + ((size_t)t * n + i) / 32);
    if (f->bf16)
        f->bf16[(size_t)t * n + i] = float_to_bf16(x);
    if (f->low)
        f->low[(size_t)t * n + i] = float_to_bf16(bf16_rest(x));
}

#endif
