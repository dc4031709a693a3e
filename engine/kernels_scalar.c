/* The definition of every kernel: plain loops, f32, one order. What a faster table may change is
 * the order of additions (fixed per table) and the last bits of exp; tests/test_kernels.c says how
 * much. */
#include "engine/kernels.h"

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

static void matmul_q4_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    matmul_q8(a, r0, r1, dot_q4_0);
}

static void matmul_q4_1(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    matmul_q8(a, r0, r1, dot_q4_1);
}

static void matmul_q8_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    matmul_q8(a, r0, r1, dot_q8_0);
}

static void matmul_q4_k(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    matmul_q8(a, r0, r1, dot_q4_k);
}

static void matmul_q6_k(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
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

static void matmul_f32(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    matmul_float(a, r0, r1, QUANT_F32);
}

static void matmul_f16(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    matmul_float(a, r0, r1, QUANT_F16);
}

static void matmul_bf16(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    matmul_float(a, r0, r1, QUANT_BF16);
}

/* A maximum so small that 127 / amax is infinite makes the block zero, as amax == 0 does: no value
 * of it could be told from zero in the product. */
static void quantise(const float *x, uint32_t n, struct kernels_q8 *ret)
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

/* --- vectors ---------------------------------------------------------------------------------- */

static void rmsnorm(const float *x, const float *w, uint32_t n, float eps, float *ret)
{
    float sum = 0, by;

    for (uint32_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    by = 1 / sqrtf(sum / (float)n + eps);
    for (uint32_t i = 0; i < n; i++)
        ret[i] = x[i] * by * w[i];
}

static void add(float *x, const float *y, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        x[i] += y[i];
}

static void swiglu(float *gate, const float *up, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        gate[i] = gate[i] / (1 + expf(-gate[i])) * up[i];
}

static void rope(float *x, uint32_t n_heads, uint32_t hd, const float *cs)
{
    for (uint32_t h = 0; h < n_heads; h++, x += hd) {
        for (uint32_t i = 0; i < hd / 2; i++) {
            float x0 = x[i], x1 = x[i + hd / 2], c = cs[i], s = cs[hd / 2 + i];

            x[i] = x0 * c - x1 * s;
            x[i + hd / 2] = x0 * s + x1 * c;
        }
    }
}

static void scale(float *x, uint32_t n, float by)
{
    for (uint32_t i = 0; i < n; i++)
        x[i] *= by;
}

static float logsumexp(const float *x, uint32_t n)
{
    float max = -INFINITY;
    double sum = 0;

    for (uint32_t i = 0; i < n; i++)
        max = fmaxf(max, x[i]);
    if (!isfinite(max))
        return max;
    for (uint32_t i = 0; i < n; i++)
        sum += expf(x[i] - max);
    return max + (float)log(sum);
}

/* --- attention -------------------------------------------------------------------------------- */

static void kv_store_f16(const float *k, const float *v, uint32_t hd, uint32_t slot, void *k_tile,
                         void *v_tile)
{
    uint16_t *kt = k_tile, *vt = v_tile;

    for (uint32_t i = 0; i < hd; i++) {
        kt[i * KERNELS_PAGE_TOKENS + slot] = quant_f32_to_f16(k[i]);
        vt[slot * hd + i] = quant_f32_to_f16(v[i]);
    }
}

static void kv_store_f32(const float *k, const float *v, uint32_t hd, uint32_t slot, void *k_tile,
                         void *v_tile)
{
    float *kt = k_tile, *vt = v_tile;

    for (uint32_t i = 0; i < hd; i++) {
        kt[i * KERNELS_PAGE_TOKENS + slot] = k[i];
        vt[slot * hd + i] = v[i];
    }
}

static float tile_at(enum kernels_kv kv, const uint8_t *tile, uint32_t i)
{
    return kv == KERNELS_KV_F32 ? ((const float *)tile)[i]
                                : quant_f16_to_f32(((const uint16_t *)tile)[i]);
}

static float score_key(const struct kernels_attn *a, enum kernels_kv kv, const float *q,
                       uint32_t key)
{
    const uint8_t *page = a->pool + a->pages[key / KERNELS_PAGE_TOKENS] * a->page_bytes;
    float sum = 0;

    for (uint32_t i = 0; i < a->head_dim; i++) {
        sum += q[i] *
               tile_at(kv, page + a->k_off, i * KERNELS_PAGE_TOKENS + key % KERNELS_PAGE_TOKENS);
    }
    return sum;
}

/* Two passes, so that no score needs to be kept: first the maximum, then the sums. */
static void attend_row(const struct kernels_attn *a, enum kernels_kv kv, uint32_t row)
{
    const float *q = a->q + (size_t)row * a->head_dim;
    float *o = a->o + (size_t)row * a->head_dim, m = -INFINITY, l = 0;
    uint32_t visible = a->first_visible + row / a->group;

    if (visible > a->n_keys)
        visible = a->n_keys;
    for (uint32_t j = 0; j < visible; j++)
        m = fmaxf(m, score_key(a, kv, q, j));
    for (uint32_t i = 0; i < a->head_dim; i++)
        o[i] = 0;

    for (uint32_t j = 0; j < visible; j++) {
        const uint8_t *page = a->pool + a->pages[j / KERNELS_PAGE_TOKENS] * a->page_bytes;
        float p = expf(score_key(a, kv, q, j) - m);

        l += p;
        for (uint32_t i = 0; i < a->head_dim; i++)
            o[i] += p * tile_at(kv, page + a->v_off, j % KERNELS_PAGE_TOKENS * a->head_dim + i);
    }
    a->m[row] = m;
    a->l[row] = l;
}

static void attn_f16(const struct kernels_attn *a)
{
    for (uint32_t row = 0; row < a->n_rows; row++)
        attend_row(a, KERNELS_KV_F16, row);
}

static void attn_f32(const struct kernels_attn *a)
{
    for (uint32_t row = 0; row < a->n_rows; row++)
        attend_row(a, KERNELS_KV_F32, row);
}

/* With l == 0 a side is the empty set of keys (m = -inf) and adds nothing. */
static void attn_merge(float *m, float *l, float *o, float m2, float l2, const float *o2,
                       uint32_t hd)
{
    float top = fmaxf(*m, m2);
    float by1 = *l > 0 ? expf(*m - top) : 0, by2 = l2 > 0 ? expf(m2 - top) : 0;

    *m = top;
    *l = *l * by1 + l2 * by2;
    for (uint32_t i = 0; i < hd; i++)
        o[i] = o[i] * by1 + o2[i] * by2;
}

const struct kernels kernels_scalar = {
    .name = "scalar",
    .quant_x = { [QUANT_Q4_0] = true,
                 [QUANT_Q4_1] = true,
                 [QUANT_Q8_0] = true,
                 [QUANT_Q4_K] = true,
                 [QUANT_Q6_K] = true },
    .matmul = { [QUANT_F32] = matmul_f32,
                [QUANT_F16] = matmul_f16,
                [QUANT_BF16] = matmul_bf16,
                [QUANT_Q4_0] = matmul_q4_0,
                [QUANT_Q4_1] = matmul_q4_1,
                [QUANT_Q8_0] = matmul_q8_0,
                [QUANT_Q4_K] = matmul_q4_k,
                [QUANT_Q6_K] = matmul_q6_k },
    .quantise = quantise,
    .rmsnorm = rmsnorm,
    .add = add,
    .swiglu = swiglu,
    .rope = rope,
    .kv_store = { [KERNELS_KV_F16] = kv_store_f16, [KERNELS_KV_F32] = kv_store_f32 },
    .attn = { [KERNELS_KV_F16] = attn_f16, [KERNELS_KV_F32] = attn_f32 },
    .attn_merge = attn_merge,
    .scale = scale,
    .logsumexp = logsumexp,
};
