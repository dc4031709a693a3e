/* cuda/shim/intrinsics.h - instructions of one thread; for cuda/shim/device.h, which includes it.
 */
#ifndef CUDA_SHIM_INTRINSICS_H
#define CUDA_SHIM_INTRINSICS_H

#include "cuda/shim/shim.h"

#include <math.h>
#include <string.h>

/* --- numbers ---------------------------------------------------------------------------------- */

/* The C library has declared a function of this name, and has none. */
#define __expf(x) expf(x)

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
static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
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

#endif
