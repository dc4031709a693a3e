/* The definition of the products: plain loops, f32, one order; see engine/kernels_scalar.c. */
#include "engine/kernels_scalar.h"

#include <math.h>
#include <string.h>

/* --- matmul: quantised weights by quantised activations ------------------------------------------
 *
 * The sum of products of a block is an exact integer; blocks are added in f32, first to last. A
 * weight d * q + m needs m only once a block, times s, the sum of the activations. */

static const struct kernels_q8 *x_row(const struct kernels_matmul *a, uint32_t t)
{
    return (const struct kernels_q8 *)((const uint8_t *)a->x + t * a->x_row_bytes);
}

static int32_t dot_nibbles(const uint8_t q[16], const int8_t x[32])
{
    int32_t sum = 0;

    for (int i = 0; i < 16; i++)
        sum += (q[i] & 15) * x[i] + (q[i] >> 4) * x[i + 16];
    return sum;
}

static float dot_q4_0(const void *w, const struct kernels_q8 *x, uint32_t n_cols)
{
    const struct quant_q4_0 *b = w;
    float sum = 0;

    for (uint32_t i = 0; i < n_cols / 32; i++) {
        float d = quant_f16_to_f32(b[i].d);

        sum += d * x[i].d * (float)dot_nibbles(b[i].q, x[i].q) - 8 * d * x[i].s;
    }
    return sum;
}

static float dot_q4_1(const void *w, const struct kernels_q8 *x, uint32_t n_cols)
{
    const struct quant_q4_1 *b = w;
    float sum = 0;

    for (uint32_t i = 0; i < n_cols / 32; i++) {
        sum += quant_f16_to_f32(b[i].d) * x[i].d * (float)dot_nibbles(b[i].q, x[i].q) +
               quant_f16_to_f32(b[i].m) * x[i].s;
    }
    return sum;
}

static float dot_q8_0(const void *w, const struct kernels_q8 *x, uint32_t n_cols)
{
    const struct quant_q8_0 *b = w;
    float sum = 0;

    for (uint32_t i = 0; i < n_cols / 32; i++) {
        int32_t dot = 0;

        for (int j = 0; j < 32; j++)
            dot += b[i].q[j] * x[i].q[j];
        sum += quant_f16_to_f32(b[i].d) * x[i].d * (float)dot;
    }
    return sum;
}

/* Groups 2j and 2j + 1 of 32 values are the low and the high nibbles of the same 32 bytes. */
static float dot_q4_k(const void *w, const struct kernels_q8 *x, uint32_t n_cols)
{
    const struct quant_q4_k *b = w;
    float sum = 0;

    for (uint32_t g = 0; g < n_cols / 32; g++) {
        const struct quant_q4_k *s = &b[g / 8];
        const uint8_t *q = s->q + 32 * (g % 8 / 2);
        uint8_t scale, min;
        int32_t dot = 0;

        for (int j = 0; j < 32; j++)
            dot += (g % 2 ? q[j] >> 4 : q[j] & 15) * x[g].q[j];
        quant_q4_k_scale(s->scales, g % 8, &scale, &min);
        sum += quant_f16_to_f32(s->d) * scale * x[g].d * (float)dot -
               quant_f16_to_f32(s->dmin) * min * x[g].s;
    }
    return sum;
}

/* Group g of 32 values: four bits in ql, two in qh; a half block of 128 values has 64 bytes of ql
 * (groups 0 and 2 share bytes, as do 1 and 3) and 32 of qh (two bits for each of its four groups).
 * A scale covers 16 values. */
static float dot_q6_k(const void *w, const struct kernels_q8 *x, uint32_t n_cols)
{
    const struct quant_q6_k *b = w;
    float sum = 0;

    for (uint32_t g = 0; g < n_cols / 32; g++) {
        const struct quant_q6_k *s = &b[g / 8];
        uint32_t half = g % 8 / 4, k = g % 4;
        const uint8_t *ql = s->ql + 64 * half + 32 * (k % 2), *qh = s->qh + 32 * half;
        int32_t dot[2] = { 0, 0 };

        for (int j = 0; j < 32; j++) {
            int q = (k < 2 ? ql[j] & 15 : ql[j] >> 4) | (qh[j] >> (2 * k) & 3) << 4;

            dot[j / 16] += (q - 32) * x[g].q[j];
        }
        sum += quant_f16_to_f32(s->d) * x[g].d *
               (float)(s->scales[g % 8 * 2] * dot[0] + s->scales[g % 8 * 2 + 1] * dot[1]);
    }
    return sum;
}

typedef float dot_fn(const void *w, const struct kernels_q8 *x, uint32_t n_cols);

static void matmul_q8(const struct kernels_matmul *a, uint32_t r0, uint32_t r1, dot_fn *dot)
{
    for (uint32_t r = r0; r < r1; r++) {
        const uint8_t *w = (const uint8_t *)a->w + r * a->w_row_bytes;

        for (uint32_t t = 0; t < a->n_x; t++)
            a->y[t * a->y_stride + r] = dot(w, x_row(a, t), a->n_cols);
    }
}

void scalar_matmul_q4_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    matmul_q8(a, r0, r1, dot_q4_0);
}

void scalar_matmul_q4_1(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    matmul_q8(a, r0, r1, dot_q4_1);
}

void scalar_matmul_q8_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    matmul_q8(a, r0, r1, dot_q8_0);
}

void scalar_matmul_q4_k(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    matmul_q8(a, r0, r1, dot_q4_k);
}

void scalar_matmul_q6_k(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    matmul_q8(a, r0, r1, dot_q6_k);
}

/* --- matmul: weights that are numbers, by f32 activations ------------------------------------- */

/* bf16 is the upper half of an f32. */
static float bf16_to_f32(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float f;

    memcpy(&f, &bits, sizeof(f));
    return f;
}

/* Bytes, not an array of the type: rows of a file need no alignment. */
static float weight_at(enum quant type, const uint8_t *w, uint32_t c)
{
    uint16_t half;
    float f;

    if (type == QUANT_F32) {
        memcpy(&f, w + 4 * (size_t)c, sizeof(f));
        return f;
    }
    memcpy(&half, w + 2 * (size_t)c, sizeof(half));
    return type == QUANT_F16 ? quant_f16_to_f32(half) : bf16_to_f32(half);
}

static void matmul_float(const struct kernels_matmul *a, uint32_t r0, uint32_t r1, enum quant type)
{
    for (uint32_t r = r0; r < r1; r++) {
        const uint8_t *w = (const uint8_t *)a->w + r * a->w_row_bytes;

        for (uint32_t t = 0; t < a->n_x; t++) {
            const float *x = (const float *)((const uint8_t *)a->x + t * a->x_row_bytes);
            float sum = 0;

            for (uint32_t c = 0; c < a->n_cols; c++)
                sum += weight_at(type, w, c) * x[c];
            a->y[t * a->y_stride + r] = sum;
        }
    }
}

void scalar_matmul_f32(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    matmul_float(a, r0, r1, QUANT_F32);
}

void scalar_matmul_f16(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    matmul_float(a, r0, r1, QUANT_F16);
}

void scalar_matmul_bf16(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    matmul_float(a, r0, r1, QUANT_BF16);
}

/* A maximum so small that 127 / amax is infinite makes the block zero, as amax == 0 does: no value
 * of it could be told from zero in the product. */
void scalar_quantise(const float *x, uint32_t n, struct kernels_q8 *ret)
{
    for (uint32_t b = 0; b < n / 32; b++, x += 32) {
        float amax = 0, inverse;
        int32_t sum = 0;

        for (int i = 0; i < 32; i++)
            amax = fmaxf(amax, fabsf(x[i]));
        inverse = 127 / amax;
        if (!isfinite(inverse)) {
            ret[b] = (struct kernels_q8){ 0 };
            continue;
        }
        ret[b].d = amax / 127;
        for (int i = 0; i < 32; i++) {
            ret[b].q[i] = (int8_t)lrintf(x[i] * inverse);
            sum += ret[b].q[i];
        }
        ret[b].s = ret[b].d * (float)sum;
    }
}
