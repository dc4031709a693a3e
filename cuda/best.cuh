/* cuda/best.cuh - the largest of many, and where it stands.
 */
#ifndef CUDA_BEST_CUH
#define CUDA_BEST_CUH

#include "cuda/dev.cuh"

/* Larger, or as large and earlier. A NaN is larger than nothing, so never the best. */
struct best {
    float x;
    uint32_t at;
};

#define BEST_NONE                                                                                  \
    best                                                                                           \
    {                                                                                              \
        -INFINITY, UINT32_MAX                                                                      \
    }

static __device__ __forceinline__ struct best better(struct best a, struct best b)
{
    return b.x > a.x || (b.x == a.x && b.at < a.at) ? b : a;
}

static __device__ __forceinline__ struct best warp_best(struct best b)
{
    for (int by = 16; by > 0; by /= 2) {
        struct best with = { __shfl_xor_sync(~0u, b.x, by), __shfl_xor_sync(~0u, b.at, by) };

        b = better(b, with);
    }
    return b;
}

/* Of a block of whole warps; every thread gets it. */
static __device__ __forceinline__ struct best block_best(struct best b)
{
    SHARED_STATIC(struct best, part, [WARP]);
    unsigned lane = threadIdx.x % WARP;

    b = warp_best(b);
    if (lane == 0)
        part[threadIdx.x / WARP] = b;
    __syncthreads();
    b = warp_best(lane < blockDim.x / WARP ? part[lane] : BEST_NONE);
    __syncthreads(); /* part may be written again */
    return b;
}

#endif
