/* cuda/shim/device.h - the language that kernels are written in, for g++; see cuda/shim/shim.h.
 *
 * As much of CUDA's C++ as kernels use and cuda/dev.cuh does not wrap. Instead of bare __shared__
 * there are SHARED_STATIC and SHARED_DYNAMIC: the memory is the block's that runs.
 */
#ifndef CUDA_SHIM_DEVICE_H
#define CUDA_SHIM_DEVICE_H

#include "cuda/shim/shim.h"

#include <math.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __constant__    const
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__    __attribute__((noinline))
#define __launch_bounds__(...)

#define SHARED_STATIC(type, name, ...)                                                             \
    static char shared_##name;                                                                     \
    type(&name) __VA_ARGS__ =                                                                      \
        *(type(*) __VA_ARGS__)shim_static(&shared_##name, sizeof(type __VA_ARGS__))
#define SHARED_DYNAMIC(type, name) type *name = (type *)shim_now.dynamic

struct dim3 : shim_dim {
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : shim_dim{ a, b, c }
    {
    }
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};

#define threadIdx (shim_self->thread)
#define blockIdx  (shim_now.block)
#define blockDim  (shim_now.dim)
#define gridDim   (shim_now.grid)
#define warpSize  32

static inline uint2 make_uint2(unsigned x, unsigned y)
{
    return { x, y };
}
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return { x, y, z, w };
}

/* --- of blocks and warps ---------------------------------------------------------------------- */

static inline void __syncthreads(void)
{
    shim_barrier();
}
static inline void __syncwarp(unsigned mask = ~0u)
{
    shim_together(mask, SHIM_SYNCWARP, 0, NULL, 0, NULL, 0);
}
template <typename T>
static inline T shim_shuffle(unsigned mask, T v, enum shim_op op, unsigned arg)
{
    uint32_t bits[2] = { 0, 0 }, n = (sizeof(T) + 3) / 4;

    static_assert(sizeof(T) <= sizeof(bits), "a shuffle is of one register or two");
    memcpy(bits, &v, sizeof(v));
    shim_together(mask, op, arg, bits, n, bits, n);
    memcpy(&v, bits, sizeof(v));
    return v;
}
template <typename T> static inline T __shfl_xor_sync(unsigned mask, T v, int by)
{
    return shim_shuffle(mask, v, SHIM_SHUFFLE_XOR, (unsigned)by);
}
template <typename T> static inline T __shfl_sync(unsigned mask, T v, int from)
{
    return shim_shuffle(mask, v, SHIM_SHUFFLE, (unsigned)from);
}
static inline unsigned __ballot_sync(unsigned mask, int vote)
{
    uint32_t v = vote != 0;

    shim_together(mask, SHIM_BALLOT, 0, &v, 1, &v, 1);
    return v;
}

#include "cuda/shim/intrinsics.h"

/* --- launching -------------------------------------------------------------------------------- */

/* A call's arguments, in memory that may be copied. */
template <typename... A> struct shim_args {
    template <typename K, typename... B> void call(K *kernel, B... b) const
    {
        kernel(b...);
    }
};
template <typename A, typename... R> struct shim_args<A, R...> {
    A a;
    shim_args<R...> rest;

    shim_args(A first, R... r) : a(first), rest(r...)
    {
    }
    template <typename K, typename... B> void call(K *kernel, B... b) const
    {
        rest.call(kernel, b..., a);
    }
};
template <typename... A> struct shim_call {
    void (*kernel)(A...);
    shim_args<A...> args;
};
template <typename... A> static void shim_apply(const void *p)
{
    const shim_call<A...> *c = (const shim_call<A...> *)p;

    c->args.call(c->kernel);
}

#endif
