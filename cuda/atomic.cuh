/* cuda/atomic.cuh - counting together, in any order: atomicAdd of unsigned, which nvcc has itself.
 */
#ifndef CUDA_ATOMIC_CUH
#define CUDA_ATOMIC_CUH

#include "cuda/dev.cuh"

#ifndef __CUDACC__
/* Whole, whoever else adds to it; and it orders nothing beside that. */
static inline unsigned atomicAdd(unsigned *p, unsigned v)
{
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}
#endif

#endif
