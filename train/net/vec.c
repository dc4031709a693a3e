/* train/net/vec.c - loops over floats, compiled for several instruction sets (base/clones.h): plain
 * C that compilers make vectors of. `omp simd` allows it to add in the order of lanes, which is the
 * same in every run on a machine.
 */
#include "train/net/vec.h"

#include "base/clones.h"

#include <math.h>
#include <string.h>

/* To nearest, ties to even. A NaN stays one: rounded up, its bits could be those of a zero. */
static inline uint16_t to_bf16(float x)
{
    uint32_t u;

    memcpy(&u, &x, 4);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static inline float from_bf16(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float x;

    memcpy(&x, &u, 4);
    return x;
}

/* 2^n times a polynomial of degree 6 on [-ln2 / 2, ln2 / 2]: within 2 ulp, 0 below -87. */
static inline float exp_of(float x)
{
    /* x = n ln 2 + r: ln 2 in two parts, so that r is nearly exact. */
    float n, r, p;
    int32_t e;

    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    n = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: its last bits are the rounded quotient */
    n -= 12582912.0f;
    r = x - n * 0.693359375f + n * 2.12194440e-4f;
    p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    e = ((int32_t)n + 127) << 23;
    /* 2^n by its exponent's bits: n is between -126 and 127. */
    float two_n;
    memcpy(&two_n, &e, 4);
    return p * two_n;
}

/* n values; memory of both is apart. */
CLONES void vec_put(enum tensors_type t, void *dst, const float *x, size_t n)
{
    uint16_t *h = dst;

    if (t == TENSORS_F32) {
        memcpy(dst, x, n * sizeof(float));
        return;
    }
    for (size_t i = 0; i < n; i++)
        h[i] = to_bf16(x[i]);
}

CLONES void vec_get(enum tensors_type t, const void *src, float *ret, size_t n)
{
    const uint16_t *h = src;

    if (t == TENSORS_F32) {
        memcpy(ret, src, n * sizeof(float));
        return;
    }
    for (size_t i = 0; i < n; i++)
        ret[i] = from_bf16(h[i]);
}

CLONES void vec_add(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

CLONES void vec_add_scaled(float *y, float a, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += a * x[i];
}

CLONES void vec_scale(float *y, float a, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] *= a;
}

CLONES float vec_dot(const float *x, const float *y, size_t n)
{
    float sum = 0;

#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++)
        sum += x[i] * y[i];
    return sum;
}

/* In double: 8B's gradients are a sum over more terms than f32 has digits for. */
CLONES double vec_sum_squares(const float *x, size_t n)
{
    double sum = 0;

#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    return sum;
}

/* A NaN is passed over; the sum of exponents finds it. */
CLONES float vec_max(const float *x, size_t n)
{
    float m = -INFINITY;

#pragma omp simd reduction(max : m)
    for (size_t i = 0; i < n; i++)
        m = x[i] > m ? x[i] : m;
    return m;
}

/* x becomes exp(x - shift); returns the sum. */
CLONES float vec_exp(float *x, float shift, size_t n)
{
    float sum = 0;

#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) {
        x[i] = exp_of(x[i] - shift);
        sum += x[i];
    }
    return sum;
}

/* d: of the row, the sum of p dp. */
CLONES void vec_softmax_back(float *dp, const float *p, float d, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dp[i] = p[i] * (dp[i] - d);
}

/* Returns 1 / rms, which the derivative needs. */
CLONES float vec_norm(float *y, const float *x, const float *w, float eps, size_t n)
{
    float sum = 0, r;

#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    r = 1.0f / sqrtf(sum / (float)n + eps);
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * r * w[i];
    return r;
}

/* dy becomes dy w. */
CLONES void vec_norm_back(float *dx, float *dy, const float *x, const float *w, float r, size_t n)
{
    float sum = 0, c;

#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) {
        dy[i] *= w[i];
        sum += dy[i] * x[i];
    }
    c = sum * r * r * r / (float)n;
    for (size_t i = 0; i < n; i++)
        dx[i] += dy[i] * r - x[i] * c;
}

CLONES void vec_norm_back_weight(float *dw, const float *dy, const float *x, float r, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dw[i] += dy[i] * x[i] * r;
}

/* y may be g. */
CLONES void vec_swiglu(float *y, const float *g, const float *u, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = g[i] / (1.0f + exp_of(-g[i])) * u[i];
}

/* g and u become the derivatives by themselves. */
CLONES void vec_swiglu_back(float *g, float *u, const float *dy, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float s = 1.0f / (1.0f + exp_of(-g[i])), silu = g[i] * s;
        float du = dy[i] * silu, dg = dy[i] * u[i] * (s + silu * (1.0f - s));

        g[i] = dg;
        u[i] = du;
    }
}

/* The two halves of a head turn against each other, as rotary embeddings of llama do once weights
 * are in the engine's order. */
CLONES void vec_rotate(float *x, const float *angle, uint32_t hd, bool back)
{
    uint32_t half = hd / 2;
    float sign = back ? -1.0f : 1.0f;

    for (uint32_t i = 0; i < half; i++) {
        float c = angle[i], s = angle[half + i] * sign, a = x[i], b = x[half + i];

        x[i] = a * c - b * s;
        x[half + i] = a * s + b * c;
    }
}
