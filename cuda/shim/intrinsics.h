/* cuda/shim/intrinsics.h - instructions of one thread; for cuda/shim/device.h, which includes it.
 */
#ifndef CUDA_SHIM_INTRINSICS_H
#define CUDA_SHIM_INTRINSICS_H

#include "cuda/shim/shim.h"

#include <math.h>
#include <string.h>

/* --- numbers ---------------------------------------------------------------------------------- */

/* The C library has declared functions of these names, and has none. */
#define __expf(x) expf(x)
#define __logf(x) logf(x)

static inline float __uint_as_float(unsigned u)
{
    float f;

    memcpy(&f, &u, sizeof(f));
    return f;
}
static inline unsigned __float_as_uint(float f)
{
    unsigned u;

    memcpy(&u, &f, sizeof(u));
    return u;
}
static inline float __int_as_float(int i)
{
    return __uint_as_float((unsigned)i);
}
static inline int __float_as_int(float f)
{
    return (int)__float_as_uint(f);
}
static inline int __dp4a(int a, int b, int c)
{
    for (int i = 0; i < 4; i++)
        c += (int8_t)(a >> 8 * i) * (int8_t)(b >> 8 * i);
    return c;
}
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned s)
{
    uint64_t both = (uint64_t)b << 32 | a;
    unsigned ret = 0;

    for (int i = 0; i < 4; i++)
        ret |= (unsigned)(both >> 8 * (s >> 4 * i & 7) & 0xff) << 8 * i;
    return ret;
}
static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
static inline int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}
static inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}
static inline float __fdividef(float a, float b)
{
    return a / b;
}
/* Rounded once each, never fused. */
static inline float __fmul_rn(float a, float b)
{
    return a * b;
}
static inline float __fadd_rn(float a, float b)
{
    return a + b;
}
static inline float __fsub_rn(float a, float b)
{
    return a - b;
}
static inline float __fdiv_rn(float a, float b)
{
    return a / b;
}
static inline float __fsqrt_rn(float a)
{
    return sqrtf(a);
}
static inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}
static inline int __float2int_rn(float x)
{
    return (int)lrintf(x);
}
template <typename T> static inline T min(T a, T b)
{
    return b < a ? b : a;
}
template <typename T> static inline T max(T a, T b)
{
    return a < b ? b : a;
}

/* --- memory ----------------------------------------------------------------------------------- */

template <typename T> static inline T __ldg(const T *p)
{
    return *p;
}
template <typename T> static inline T __ldcs(const T *p)
{
    return *p;
}
template <typename T> static inline T __ldcg(const T *p)
{
    return *p;
}
template <typename T> static inline void __stcs(T *p, T v)
{
    *p = v;
}

/* Of what other threads add to as well: an order is nobody's, a race it is not. */
static inline float atomicAdd(float *p, float v)
{
    unsigned *u = (unsigned *)p, was = __atomic_load_n(u, __ATOMIC_RELAXED);

    while (!__atomic_compare_exchange_n(u, &was, __float_as_uint(__uint_as_float(was) + v), false,
                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    return __uint_as_float(was);
}
template <typename T> static inline T atomicAdd(T *p, T v)
{
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}
template <typename T> static inline T atomicOr(T *p, T v)
{
    return __atomic_fetch_or(p, v, __ATOMIC_RELAXED);
}
template <typename T> static inline T atomicExch(T *p, T v)
{
    return __atomic_exchange_n(p, v, __ATOMIC_RELAXED);
}
template <typename T> static inline T atomicCAS(T *p, T was, T v)
{
    __atomic_compare_exchange_n(p, &was, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return was;
}
template <typename T> static inline T atomicMax(T *p, T v)
{
    T was = __atomic_load_n(p, __ATOMIC_RELAXED);

    while (was < v &&
           !__atomic_compare_exchange_n(p, &was, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    return was;
}

#endif
