/* cuda/typed.cuh - values that are f32 or bf16, as the rows that a trainer keeps. */
#ifndef CUDA_TYPED_CUH
#define CUDA_TYPED_CUH

#include "cuda/dev.cuh"

#include "engine/tensors_work.h"

static __device__ __forceinline__ float typed_get(enum tensors_type t, const void *p, size_t i)
{
    return t == TENSORS_F32 ? ((const float *)p)[i] : bf16_to_float(((const uint16_t *)p)[i]);
}

static __device__ __forceinline__ void typed_put(enum tensors_type t, void *p, size_t i, float x)
{
    if (t == TENSORS_F32)
        ((float *)p)[i] = x;
    else
        ((uint16_t *)p)[i] = float_to_bf16(x);
}

#endif
