/* The definition of every kernel: plain loops, f32, one order. What a faster table may change is
 * the order of additions (fixed per table) and the last bits of exp; tests/test_kernels.c says how
 * much. */
#include "engine/cpu/kernels_scalar.h"

#include <math.h>
#include <string.h>

/* --- vectors ---------------------------------------------------------------------------------- */

/* sum - sum is 0, or NaN where the sum is not finite: a row that has gone wrong shows in all that
 * follows from it, and a normed row of zeros would not. */
static void rmsnorm(const float *x, const float *w, uint32_t n, float eps, float *ret)
{
    float sum = 0, by;

    for (uint32_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    by = 1 / sqrtf(sum / (float)n + eps) + (sum - sum); /* an infinite sum would make it 0 */
    for (uint32_t i = 0; i < n; i++)
        ret[i] = x[i] * by * w[i];
}

static void add(float *x, const float *y, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        x[i] += y[i];
}

/* silu(x) = x / (1 + e^-x). */
static void swiglu(float *gate, const float *up, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        gate[i] = gate[i] / (1 + expf(-gate[i])) * up[i];
}

/* Pairs are an element of the first half and one of the second, as files of all three architectures
 * have them once they are read. */
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

/* `by` is looked at behind the sum: what was there takes part once, and not in the order of
 * terms. */
static void dense(const struct kernels_dense *p)
{
    for (uint32_t i = 0; i < p->n_rows; i++)
        for (uint32_t t = 0; t < p->n_tiles; t++)
            for (uint32_t j = 0; j < TILE_ROWS; j++) {
                const float *a = p->a + i * p->a_row, *b = p->b + t * p->b_tile + j;
                float *c = p->c + i * p->c_row + t * p->c_tile + j, sum = 0;

                for (uint32_t k = 0; k < p->n_inner; k++)
                    sum += a[k * p->a_col] * b[k * p->b_row];
                *c = p->by ? *c + (float)p->by * sum : sum;
            }
}

/* fmaxf passes over a NaN, so it is looked for beside. What x becomes then is of no use to
 * anybody. */
static float soften(float *x, uint32_t n, float *ret_sum)
{
    float top = -INFINITY, sum = 0;
    bool bad = false;

    for (uint32_t i = 0; i < n; i++) {
        bad |= isnan(x[i]);
        top = fmaxf(top, x[i]);
    }
    for (uint32_t i = 0; i < n; i++) {
        x[i] = expf(x[i] - top);
        sum += x[i];
    }
    *ret_sum = bad || !isfinite(top) ? NAN : sum;
    return top;
}

static void widen_f16(const uint16_t *x, uint32_t n, float *ret)
{
    for (uint32_t i = 0; i < n; i++)
        ret[i] = quant_f16_to_f32(x[i]);
}

/* In double: 150,000 terms of which most are small would be lost to a large sum in f32. */
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

/* --- sampling --------------------------------------------------------------------------------- */

/* Of equals the first; NaN is never the largest, and of nothing but NaN it is 0. */
static uint32_t argmax(const float *x, uint32_t n)
{
    float best = -INFINITY;
    uint32_t at = 0;

    for (uint32_t i = 0; i < n; i++) {
        if (x[i] > best) {
            best = x[i];
            at = i;
        }
    }
    return at;
}

/* e^x for -44 <= x <= 0, to 2e-7. Not the C library's: that one's last bits differ between
 * versions. The order of these products and sums is the definition; none is fused. */
static float weight_of(float x)
{
    float n = x * 1.44269504f - 0.5f, r, p;
    int32_t power = (int32_t)n; /* towards zero: the nearest, as n is negative */
    uint32_t bits = (uint32_t)(power + 127) << 23;
    float by;

    r = x - (float)power * 0.693145752f;
    r -= (float)power * 1.42860677e-6f;
    p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1;
    p = p * r + 1;
    memcpy(&by, &bits, sizeof(by));
    return p * by;
}

/* Below the limit a weight is 0 in every table: tokens that have none are the same ones
 * everywhere. */
static void weights(const float *x, uint32_t n, float max, float temperature, float *ret)
{
    for (uint32_t i = 0; i < n; i++) {
        float v = (x[i] - max) / temperature;

        ret[i] = v > SAMPLER_WEIGHT_LOG_MIN ? weight_of(v) : 0;
    }
}

/* --- attention -------------------------------------------------------------------------------- */

/* bad: exponent bits that are all set, which infinity and NaN have. Then V says so
 * (engine/kv/page.h): in all three of these. */
static void kv_store_f16(const float *k, const float *v, uint32_t hd, uint32_t slot, void *k_tile,
                         void *v_tile)
{
    uint16_t *kt = k_tile, *vt = v_tile;
    bool bad = false;

    for (uint32_t i = 0; i < hd; i++) {
        uint16_t k16 = quant_f32_to_f16(k[i]);

        kt[i * PAGE_TOKENS + slot] = k16;
        vt[slot * hd + i] = quant_f32_to_f16(v[i]);
        bad |= (k16 & 0x7c00) == 0x7c00;
    }
    if (bad)
        vt[slot * hd] = KV_F16_NAN;
}

static void kv_store_f32(const float *k, const float *v, uint32_t hd, uint32_t slot, void *k_tile,
                         void *v_tile)
{
    float *kt = k_tile, *vt = v_tile;
    bool bad = false;

    for (uint32_t i = 0; i < hd; i++) {
        kt[i * PAGE_TOKENS + slot] = k[i];
        vt[slot * hd + i] = v[i];
        bad |= !isfinite(k[i]);
    }
    if (bad)
        vt[slot * hd] = NAN;
}

/* n values, 1 to 32, to q[0], q[stride]...; a value that is no number becomes -127. */
static void quantise_block(const float *x, uint32_t n, int8_t *q, size_t stride, uint16_t *ret_d)
{
    float inverse;

    /* q is made with the d that is stored, as it is what q will be multiplied by. */
    *ret_d = quant_f32_to_f16(scalar_most(x, n) / 127);
    inverse = *ret_d ? 1 / quant_f16_to_f32(*ret_d) : 0;
    for (uint32_t i = 0; i < n; i++) {
        float v = x[i] * inverse;

        v = v > -127 ? v : -127;
        v = v < 127 ? v : 127;
        q[i * stride] = (int8_t)lrintf(v);
    }
}

static void kv_store_q8_0(const float *k, const float *v, uint32_t hd, uint32_t slot, void *k_tile,
                          void *v_tile)
{
    int8_t *kt = k_tile, *vt = v_tile;
    uint16_t *kd = (void *)(kt + (size_t)hd * PAGE_TOKENS),
             *vd = (void *)(vt + (size_t)hd * PAGE_TOKENS);
    bool bad = false;

    for (uint32_t i = 0; i < hd; i += 32) {
        uint32_t n = hd - i < 32 ? hd - i : 32, d = i / 32 * PAGE_TOKENS + slot;

        quantise_block(k + i, n, kt + i * PAGE_TOKENS + slot, PAGE_TOKENS, &kd[d]);
        quantise_block(v + i, n, vt + slot * hd + i, 1, &vd[d]);
        bad |= (kd[d] & 0x7c00) == 0x7c00;
    }
    if (bad)
        vd[slot] = KV_F16_NAN;
}

/* Element i of a tile, which is element `dim` of the token in `slot`. */
static float tile_at(enum kv_type kv, const uint8_t *tile, uint32_t hd, uint32_t i, uint32_t dim,
                     uint32_t slot)
{
    const uint16_t *d = (const void *)(tile + (size_t)hd * PAGE_TOKENS);

    if (kv == KV_F32)
        return ((const float *)tile)[i];
    if (kv == KV_F16)
        return quant_f16_to_f32(((const uint16_t *)tile)[i]);
    return quant_f16_to_f32(d[dim / 32 * PAGE_TOKENS + slot]) * ((const int8_t *)tile)[i];
}

/* Joined pages are seen as far as they hold keys; of one segment a row sees the first so many. */
static bool sees_key(const struct kernels_attn *a, uint32_t row, uint32_t key)
{
    if (a->joined)
        return key % PAGE_TOKENS < a->joined[key / PAGE_TOKENS].n_keys;
    return key < a->first_visible + row / a->group * a->stride;
}

/* The row's q for a key: keys come in order, so that it is turned once a page, at the first of its
 * keys. */
static const float *turned_for(const struct kernels_attn *a, const float *q, uint32_t key,
                               float *turned)
{
    if (!a->joined)
        return q;
    if (key % PAGE_TOKENS == 0) {
        memcpy(turned, q, a->head_dim * sizeof(*q));
        rope(turned, 1, a->head_dim, a->joined[key / PAGE_TOKENS].cs);
    }
    return turned;
}

/* K lies (hd, 16): element i of this key is 16 floats behind the one before. */
static float score_key(const struct kernels_attn *a, enum kv_type kv, const float *q, uint32_t key)
{
    const uint8_t *page = a->pool + a->pages[key / PAGE_TOKENS] * a->page_bytes;
    uint32_t slot = key % PAGE_TOKENS;
    float sum = 0;

    for (uint32_t i = 0; i < a->head_dim; i++)
        sum += q[i] * tile_at(kv, page + a->k_off, a->head_dim, i * PAGE_TOKENS + slot, i, slot);
    return sum;
}

/* Two passes, so that no score needs to be kept: first the maximum, then the sums. */
static void attend_row(const struct kernels_attn *a, enum kv_type kv, uint32_t row)
{
    const float *q = a->q + (size_t)row * a->head_dim;
    float *o = a->o + (size_t)row * a->head_dim, m = -INFINITY, l = 0;
    float turned[KERNELS_HEAD_DIM_MAX];

    for (uint32_t j = 0; j < a->n_keys; j++)
        if (sees_key(a, row, j))
            m = fmaxf(m, score_key(a, kv, turned_for(a, q, j, turned), j));
    for (uint32_t i = 0; i < a->head_dim; i++)
        o[i] = 0;

    for (uint32_t j = 0; j < a->n_keys; j++) {
        const uint8_t *page = a->pool + a->pages[j / PAGE_TOKENS] * a->page_bytes;
        uint32_t slot = j % PAGE_TOKENS;
        float p;

        if (!sees_key(a, row, j))
            continue;
        p = expf(score_key(a, kv, turned_for(a, q, j, turned), j) - m);
        l += p;
        for (uint32_t i = 0; i < a->head_dim; i++)
            o[i] += p * tile_at(kv, page + a->v_off, a->head_dim, slot * a->head_dim + i, i, slot);
    }
    a->m[row] = m;
    a->l[row] = l;
}

static void attn_f16(const struct kernels_attn *a)
{
    for (uint32_t row = 0; row < a->n_rows; row++)
        attend_row(a, KV_F16, row);
}

static void attn_f32(const struct kernels_attn *a)
{
    for (uint32_t row = 0; row < a->n_rows; row++)
        attend_row(a, KV_F32, row);
}

static void attn_q8_0(const struct kernels_attn *a)
{
    for (uint32_t row = 0; row < a->n_rows; row++)
        attend_row(a, KV_Q8_0, row);
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
    .form = { KERNELS_FORMS },
    .matmul = { [QUANT_F32] = scalar_matmul,
                [QUANT_F16] = scalar_matmul,
                [QUANT_BF16] = scalar_matmul,
                [QUANT_Q4_0] = scalar_matmul,
                [QUANT_Q4_1] = scalar_matmul,
                [QUANT_Q8_0] = scalar_matmul,
                [QUANT_Q4_K] = scalar_matmul,
                [QUANT_Q6_K] = scalar_matmul,
                [QUANT_Q5_0] = scalar_matmul,
                [QUANT_Q5_1] = scalar_matmul,
                [QUANT_Q5_K] = scalar_matmul },
    .quantise = scalar_quantise,
    .rmsnorm = rmsnorm,
    .add = add,
    .swiglu = swiglu,
    .rope = rope,
    .kv_store = { [KV_F16] = kv_store_f16, [KV_F32] = kv_store_f32, [KV_Q8_0] = kv_store_q8_0 },
    .attn = { [KV_F16] = attn_f16, [KV_F32] = attn_f32, [KV_Q8_0] = attn_q8_0 },
    .attn_merge = attn_merge,
    .scale = scale,
    .dense = dense,
    .soften = soften,
    .widen_f16 = widen_f16,
    .logsumexp = logsumexp,
    .sampling.argmax = argmax,
    .sampling.weights = weights,
};
