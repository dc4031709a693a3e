/* cuda/dev.cuh - what kernels are written with: CUDA's C++, and names for what it has as assembly.
 *
 * nvcc compiles a .cu with CUDA's headers, g++ with the shim's (cuda/shim/shim.h), the same text.
 * Everything here needs sm_80 at most.
 *
 * Rules for a kernel
 *   D1  Every thread calls grid_wait() before it touches what an earlier kernel of the stream wrote
 *       or reads: kernels may begin while the one before them still runs.
 *   D2  Shared memory is SHARED_STATIC(float, part, [8][16]) or SHARED_DYNAMIC(float, row).
 *   D3  A lane that leaves early takes no part in what the others of its warp do together.
 */
#ifndef CUDA_DEV_CUH
#define CUDA_DEV_CUH

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__
#include "cuda/nv/device.h"
#else
#include "cuda/shim/device.h"
#include "cuda/shim/wrapped.h"
#endif

#define WARP 32u

/* --- numbers ---------------------------------------------------------------------------------- */

static __device__ __forceinline__ float bf16_to_float(uint16_t b)
{
    return __uint_as_float((uint32_t)b << 16);
}

/* To nearest, ties to even; a NaN stays one. */
static __device__ __forceinline__ uint16_t float_to_bf16(float x)
{
    uint32_t u = __float_as_uint(x);

    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

/* What rounding to bf16 leaves over, exactly. */
static __device__ __forceinline__ float bf16_rest(float x)
{
    return __fsub_rn(x, bf16_to_float(float_to_bf16(x)));
}

static __device__ __forceinline__ bool is_finite(float x)
{
    return fabsf(x) < INFINITY;
}

/* --- of a warp and a block -------------------------------------------------------------------- */

static __device__ __forceinline__ float warp_sum(float v)
{
    for (int by = 16; by > 0; by /= 2)
        v += __shfl_xor_sync(~0u, v, by);
    return v;
}

/* A NaN is the largest. */
static __device__ __forceinline__ float warp_max(float v)
{
    for (int by = 16; by > 0; by /= 2) {
        float with = __shfl_xor_sync(~0u, v, by);

        v = with > v || with != with ? with : v;
    }
    return v;
}

/* The largest |x|, NaN when one is. */
static __device__ __forceinline__ float warp_most(float x)
{
    uint32_t most = __float_as_uint(x) & 0x7fffffffu;

    for (int by = 16; by > 0; by /= 2)
        most = max(most, __shfl_xor_sync(~0u, most, by));
    return __uint_as_float(most);
}

/* Of all threads of a block of whole warps; every thread gets it. In one order, so that the bits
 * are always the same. */
static __device__ __forceinline__ float block_sum(float v)
{
    SHARED_STATIC(float, part, [WARP]);
    unsigned lane = threadIdx.x % WARP;

    v = warp_sum(v);
    if (lane == 0)
        part[threadIdx.x / WARP] = v;
    __syncthreads();
    v = warp_sum(lane < blockDim.x / WARP ? part[lane] : 0.0f);
    __syncthreads(); /* part may be written again */
    return v;
}

/* The same of the largest. A NaN is the largest. */
static __device__ __forceinline__ float block_max(float v)
{
    SHARED_STATIC(float, most, [WARP]);
    unsigned lane = threadIdx.x % WARP;

    v = warp_max(v);
    if (lane == 0)
        most[threadIdx.x / WARP] = v;
    __syncthreads();
    v = warp_max(lane < blockDim.x / WARP ? most[lane] : -INFINITY);
    __syncthreads();
    return v;
}

#endif
