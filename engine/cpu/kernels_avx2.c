/* The AVX2 table, and its kernels over plain vectors of any length.
 *
 * All of them go by vectors of 8, and the last lanes by masks: a length that is no multiple of 8 is
 * read and written no further than it goes (tests put guard pages behind every buffer). Sums are
 * kept in several accumulators, a fixed number for every length, which are added up in one order:
 * so a result depends on x and n alone. kernels_avx512.c is the same with vectors of 16. */
#include "engine/cpu/kernels_avx2.h"

#include <math.h>

/* Lane by lane, the lower four and the upper four. */
static __m128i add_halves(__m256i v)
{
    return _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
}

/* Rounds to the nearest integer, ties to even, as the scalar twin: the bits of the result are
 * equal. The maximum is that of bits, as integers: vmaxps would lose a NaN. */
static void quantise(const float *x, uint32_t n, struct kernels_q8 *ret)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);

    for (uint32_t b = 0; b < n / 32; b++, x += 32) {
        __m256 v[4];
        __m256i q[4], bytes, amax = _mm256_setzero_si256();
        __m128i sum;
        float most, inverse;

        for (int i = 0; i < 4; i++) {
            v[i] = _mm256_loadu_ps(x + 8 * i);
            amax = _mm256_max_epi32(amax, _mm256_castps_si256(_mm256_andnot_ps(sign, v[i])));
        }
        most = avx2_max_bits(amax);
        inverse = 127 / most;
        /* Zeros, or a maximum that is too small to divide by (inverse is infinite), or infinite (it
         * is 0), or NaN (no comparison holds). */
        if (!(inverse > 0 && inverse < INFINITY)) {
            ret[b] = (struct kernels_q8){ 0 };
            if (!isfinite(most))
                ret[b].d = ret[b].s = NAN;
            continue;
        }
        for (int i = 0; i < 4; i++)
            q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], _mm256_set1_ps(inverse)));
        sum = add_halves(
            _mm256_hadd_epi32(_mm256_add_epi32(q[0], q[1]), _mm256_add_epi32(q[2], q[3])));
        sum = _mm_hadd_epi32(sum, sum); /* of 16 and of 16 */
        /* Packing works within halves: the dwords come out as 0 2 4 6 | 1 3 5 7. */
        bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
        bytes = _mm256_permutevar8x32_epi32(bytes, order);
        _mm256_storeu_si256((void *)ret[b].q, bytes);
        ret[b].d = most / 127;
        ret[b].sum[0] = (int16_t)_mm_extract_epi32(sum, 0);
        ret[b].sum[1] = (int16_t)_mm_extract_epi32(sum, 1);
        ret[b].s = ret[b].d * (float)(ret[b].sum[0] + ret[b].sum[1]);
    }
}

/* Loads and stores of the last lanes of a vector whose length is no multiple of 8. */
static __m256 load_some(const float *x, uint32_t n)
{
    return n >= 8 ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, avx2_first(n));
}

static void store_some(float *x, uint32_t n, __m256 v)
{
    if (n >= 8)
        _mm256_storeu_ps(x, v);
    else
        _mm256_maskstore_ps(x, avx2_first(n), v);
}

/* Four accumulators, or each fma would wait for the one before; then as the scalar twin, squares -
 * squares included. */
static void rmsnorm(const float *x, const float *w, uint32_t n, float eps, float *ret)
{
    __m256 sum[4], by;
    float squares;
    uint32_t i = 0;

    for (int k = 0; k < 4; k++)
        sum[k] = _mm256_setzero_ps();
    for (; i + 32 <= n; i += 32) {
        for (int k = 0; k < 4; k++) {
            __m256 v = _mm256_loadu_ps(x + i + 8 * k);

            sum[k] = _mm256_fmadd_ps(v, v, sum[k]);
        }
    }
    for (; i < n; i += 8) {
        __m256 v = load_some(x + i, n - i);

        sum[0] = _mm256_fmadd_ps(v, v, sum[0]);
    }
    sum[0] = _mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3]));
    squares = avx2_sum(sum[0]);
    by = _mm256_set1_ps(1 / sqrtf(squares / (float)n + eps) + (squares - squares));
    for (i = 0; i < n; i += 8) {
        __m256 v = _mm256_mul_ps(load_some(x + i, n - i), by);

        store_some(ret + i, n - i, _mm256_mul_ps(v, load_some(w + i, n - i)));
    }
}

static void add(float *x, const float *y, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 8)
        store_some(x + i, n - i, _mm256_add_ps(load_some(x + i, n - i), load_some(y + i, n - i)));
}

/* Below -88.3 the divisor would grow no further, but there the quotient is a denormal at most. */
static void swiglu(float *gate, const float *up, uint32_t n)
{
    const __m256 one = _mm256_set1_ps(1), sign = _mm256_set1_ps(-0.0f);

    for (uint32_t i = 0; i < n; i += 8) {
        __m256 g = load_some(gate + i, n - i);
        __m256 e = _mm256_add_ps(one, avx2_exp(_mm256_xor_ps(g, sign)));

        store_some(gate + i, n - i, _mm256_mul_ps(_mm256_div_ps(g, e), load_some(up + i, n - i)));
    }
}

/* Both halves of a pair are loaded before either is stored, so that ret may be x. */
void avx2_turn(const float *x, const float *cs, uint32_t hd, float *ret)
{
    uint32_t half = hd / 2;

    for (uint32_t i = 0; i < half; i += 8) {
        uint32_t left = half - i;
        __m256 x0 = load_some(x + i, left), x1 = load_some(x + half + i, left);
        __m256 c = load_some(cs + i, left), s = load_some(cs + half + i, left);

        store_some(ret + i, left, _mm256_fmsub_ps(x0, c, _mm256_mul_ps(x1, s)));
        store_some(ret + half + i, left, _mm256_fmadd_ps(x0, s, _mm256_mul_ps(x1, c)));
    }
}

static void rope(float *x, uint32_t n_heads, uint32_t hd, const float *cs)
{
    for (uint32_t h = 0; h < n_heads; h++, x += hd)
        avx2_turn(x, cs, hd, x);
}

static void scale(float *x, uint32_t n, float by)
{
    for (uint32_t i = 0; i < n; i += 8)
        store_some(x + i, n - i, _mm256_mul_ps(load_some(x + i, n - i), _mm256_set1_ps(by)));
}

/* vmaxps gives its second operand where the first is NaN: so the loads come first, and NaN never
 * wins. */
static float max_of(const float *x, uint32_t n)
{
    __m256 top[2] = { _mm256_set1_ps(-INFINITY), _mm256_set1_ps(-INFINITY) };
    float max;
    uint32_t i = 0;

    for (; i + 16 <= n; i += 16) {
        top[0] = _mm256_max_ps(_mm256_loadu_ps(x + i), top[0]);
        top[1] = _mm256_max_ps(_mm256_loadu_ps(x + i + 8), top[1]);
    }
    max = avx2_max(_mm256_max_ps(top[0], top[1]));
    for (; i < n; i++)
        max = fmaxf(max, x[i]);
    return max;
}

/* Sums of 512 are kept in f32, their sum in f64: a vocabulary has 150,000 terms. */
static float logsumexp(const float *x, uint32_t n)
{
    float max = max_of(x, n);
    __m256 shift = _mm256_set1_ps(max);
    double sum = 0;

    if (!isfinite(max))
        return max;
    for (uint32_t i = 0; i < n;) {
        uint32_t end = n - i < 512 ? n : i + 512;
        __m256 part = _mm256_setzero_ps();

        for (; i < end; i += 8) {
            __m256 e = avx2_exp(_mm256_sub_ps(load_some(x + i, end - i), shift));

            part = _mm256_add_ps(part, _mm256_and_ps(e, _mm256_castsi256_ps(avx2_first(end - i))));
        }
        sum += avx2_sum(part);
    }
    return max + (float)log(sum);
}

/* --- sampling --------------------------------------------------------------------------------- */

/* The largest first, then where it stands first: two passes that wait for nothing. */
static uint32_t argmax(const float *x, uint32_t n)
{
    float max = max_of(x, n);
    __m256 top = _mm256_set1_ps(max);
    uint32_t i = 0;

    if (max == -INFINITY)
        return 0;
    for (; i + 8 <= n; i += 8) {
        int equal = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(x + i), top, _CMP_EQ_OQ));

        if (equal)
            return i + (uint32_t)__builtin_ctz((unsigned)equal);
    }
    /* It is one of the last: max_of found it somewhere. */
    while (x[i] != max)
        i++;
    return i;
}

/* weight_of in the scalar twin, step by step and with nothing fused: the same bits. */
static __m256 weigh(__m256 x)
{
    static const float c[] = { 1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1, 1 };
    __m256 n = _mm256_sub_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)), _mm256_set1_ps(0.5f));
    __m256i whole = _mm256_cvttps_epi32(n);
    __m256 power = _mm256_cvtepi32_ps(whole), p = _mm256_set1_ps(1.0f / 5040);
    __m256 r = _mm256_sub_ps(x, _mm256_mul_ps(power, _mm256_set1_ps(0.693145752f)));

    r = _mm256_sub_ps(r, _mm256_mul_ps(power, _mm256_set1_ps(1.42860677e-6f)));
    for (size_t i = 0; i < sizeof(c) / sizeof(c[0]); i++)
        p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(c[i]));
    whole = _mm256_slli_epi32(_mm256_add_epi32(whole, _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(p, _mm256_castsi256_ps(whole));
}

/* Lanes below the limit are computed at the limit, where weigh is defined, and then cleared; vmaxps
 * puts the limit in a NaN's place, whose comparison fails: 0 as well. */
static void weights(const float *x, uint32_t n, float max, float temperature, float *ret)
{
    const __m256 shift = _mm256_set1_ps(max), by = _mm256_set1_ps(temperature),
                 low = _mm256_set1_ps(SAMPLER_WEIGHT_LOG_MIN);

    for (uint32_t i = 0; i < n; i += 8) {
        __m256 v = _mm256_div_ps(_mm256_sub_ps(load_some(x + i, n - i), shift), by);
        __m256 some = _mm256_cmp_ps(v, low, _CMP_GT_OQ);

        v = _mm256_and_ps(some, weigh(_mm256_max_ps(v, low)));
        store_some(ret + i, n - i, v);
    }
}

/* --- tables ----------------------------------------------------------------------------------- */

/* All that the tables have in common. */
#define VECTORS                                                                                    \
    .quantise = quantise, .rmsnorm = rmsnorm, .add = add, .swiglu = swiglu, .rope = rope,          \
    .kv_store = { [KV_F16] = avx2_kv_store_f16,                                                    \
                  [KV_F32] = avx2_kv_store_f32,                                                    \
                  [KV_Q8_0] = avx2_kv_store_q8_0 },                                                \
    .attn = { [KV_F16] = avx2_attn_f16, [KV_F32] = avx2_attn_f32, [KV_Q8_0] = avx2_attn_q8_0 },    \
    .attn_merge = avx2_attn_merge, .scale = scale, .dense = avx2_dense, .soften = avx2_soften,     \
    .widen_f16 = avx2_widen_f16, .logsumexp = logsumexp, .sampling.argmax = argmax,                \
    .sampling.weights = weights

#define FLOATS                                                                                     \
    [QUANT_F32] = avx2_matmul_f32, [QUANT_F16] = avx2_matmul_f16, [QUANT_BF16] = avx2_matmul_bf16

const struct kernels kernels_avx2 = {
    .name = "avx2",
    .form = { KERNELS_FORMS },
    .matmul = { FLOATS, [QUANT_Q4_0] = avx2_matmul_q4_0, [QUANT_Q4_1] = avx2_matmul_q4_min,
                [QUANT_Q5_0] = avx2_matmul_q5_0, [QUANT_Q5_1] = avx2_matmul_q5_min,
                [QUANT_Q8_0] = avx2_matmul_q8_0, [QUANT_Q4_K] = avx2_matmul_q4_min,
                [QUANT_Q5_K] = avx2_matmul_q5_min, [QUANT_Q6_K] = avx2_matmul_q6_k },
    VECTORS,
};

const struct kernels kernels_avxvnni = {
    .name = "avxvnni",
    .form = { KERNELS_FORMS },
    .matmul = { FLOATS, [QUANT_Q4_0] = avxvnni_matmul_q4_0, [QUANT_Q4_1] = avxvnni_matmul_q4_min,
                [QUANT_Q5_0] = avxvnni_matmul_q5_0, [QUANT_Q5_1] = avxvnni_matmul_q5_min,
                [QUANT_Q8_0] = avxvnni_matmul_q8_0, [QUANT_Q4_K] = avxvnni_matmul_q4_min,
                [QUANT_Q5_K] = avxvnni_matmul_q5_min, [QUANT_Q6_K] = avxvnni_matmul_q6_k },
    VECTORS,
};
