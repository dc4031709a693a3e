/* The definition of the products: plain loops, f32, one order; see engine/cpu/kernels_scalar.c.
 *
 * The sum of products of a block is an exact integer; blocks are added in f32, first to last. A
 * weight d * q + m needs m only once a block, times s, the sum of the activations. */
#include "engine/cpu/kernels_scalar.h"

#include <math.h>
#include <string.h>

static const void *x_row(const struct kernels_matmul *a, uint32_t t)
{
    return (const uint8_t *)a->x + t * a->x_row_bytes;
}

/* At most 16 * 128 * 127: far from what 32 bits hold, so the order does not matter. */
static int32_t dot_16(const int8_t *w, const int8_t *x)
{
    int32_t sum = 0;

    for (int c = 0; c < 16; c++)
        sum += w[c] * x[c];
    return sum;
}

/* Q6_K alone has two scales. Where they are equal the two sums are one, as for types that have one
 * scale. */
static float dot_block(const struct tile_row *w, const struct kernels_q8 *x)
{
    int32_t low = dot_16(w->q, x->q), high = dot_16(w->q + 16, x->q + 16);

    if (w->scale[0] == w->scale[1])
        return w->scale[0] * x->d * (float)(low + high) + w->min * x->s;
    return w->scale[0] * x->d * (float)low + w->scale[1] * x->d * (float)high + w->min * x->s;
}

/* One weight row by all activation rows: a block is read from its tile once. */
static void quant_row(const struct kernels_matmul *a, const uint8_t *tile, uint32_t r)
{
    for (uint32_t t = 0; t < a->n_x; t++)
        a->y[t * a->y_stride + r] = 0;
    for (uint32_t b = 0; b < a->n_cols / 32; b++) {
        struct tile_row w;

        tile_read(a->type, tile, r % TILE_ROWS, b, &w);
        for (uint32_t t = 0; t < a->n_x; t++)
            a->y[t * a->y_stride + r] += dot_block(&w, (const struct kernels_q8 *)x_row(a, t) + b);
    }
}

/* Weights as f32, activations as f32: rounded nowhere but in the sum. */
static void float_row(const struct kernels_matmul *a, const uint8_t *tile, uint32_t r)
{
    for (uint32_t t = 0; t < a->n_x; t++)
        a->y[t * a->y_stride + r] = 0;
    for (uint32_t c = 0; c < a->n_cols; c++) {
        float w = tile_read_float(a->type, tile, r % TILE_ROWS, c);

        for (uint32_t t = 0; t < a->n_x; t++)
            a->y[t * a->y_stride + r] += w * ((const float *)x_row(a, t))[c];
    }
}

void scalar_matmul(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    bool is_float = quant_info(a->type)->block_cols == 1;

    for (uint32_t r = r0; r < r1; r++) {
        const uint8_t *tile = (const uint8_t *)a->w + r / TILE_ROWS * a->tile_len;

        (is_float ? float_row : quant_row)(a, tile, r);
    }
}

float scalar_most(const float *x, uint32_t n)
{
    uint32_t most = 0;
    float ret;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t bits;

        memcpy(&bits, x + i, sizeof(bits));
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
    }
    memcpy(&ret, &most, sizeof(ret));
    return ret;
}

/* A maximum so small that 127 / amax is infinite makes the block zero, as amax == 0 does: no value
 * of it could be told from zero in the product. */
void scalar_quantise(const float *x, uint32_t n, struct kernels_q8 *ret)
{
    for (uint32_t b = 0; b < n / 32; b++, x += 32) {
        float amax = scalar_most(x, 32), inverse = 127 / amax;

        ret[b] = (struct kernels_q8){ 0 };
        if (!isfinite(amax))
            ret[b].d = ret[b].s = NAN;
        if (!isfinite(amax) || !isfinite(inverse))
            continue;
        ret[b].d = amax / 127;
        for (int i = 0; i < 32; i++) {
            ret[b].q[i] = (int8_t)lrintf(x[i] * inverse);
            ret[b].sum[i / 16] = (int16_t)(ret[b].sum[i / 16] + ret[b].q[i]);
        }
        ret[b].s = ret[b].d * (float)(ret[b].sum[0] + ret[b].sum[1]);
    }
}
