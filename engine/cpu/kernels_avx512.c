/* The AVX-512 tables, and their kernels over plain vectors of any length: those of kernels_avx2.c,
 * which has the reasons, by vectors of 16. Last lanes go by mask registers, so no loop needs
 * another for its end. */
#include "engine/cpu/kernels_avx512.h"
#include "engine/cpu/kernels_avx2.h"
#include "engine/cpu/kernels_bf16.h"

#include <math.h>

/* The next 16 elements, or the n that are left; the lanes behind them are 0 and are not stored. */
static inline __m512 load_some(const float *x, uint32_t n)
{
    return _mm512_maskz_loadu_ps(avx512_first(n), x);
}

static inline void store_some(float *x, uint32_t n, __m512 v)
{
    _mm512_mask_storeu_ps(x, avx512_first(n), v);
}

/* Two blocks of 32 at a time. */
struct pair {
    __m512 v[4];
};

/* `both` is a constant. Of one block the second half is zeros, and what it makes is not stored. */
AVX512_INLINE struct pair load_pair(const float *x, bool both)
{
    struct pair p;

    for (int i = 0; i < 4; i++)
        p.v[i] = both || i < 2 ? _mm512_loadu_ps(x + 16 * i) : _mm512_setzero_ps();
    return p;
}

/* The largest |x| of the first block in the lower four lanes, of the second in the upper ones. By
 * their bits, as integers: vmaxps would lose a NaN. */
AVX512_INLINE __m256 pair_max(const struct pair *p)
{
    const __m512 sign = _mm512_set1_ps(-0.0f);
    __m512i u[4], a, b;
    __m256i a2, b2, m;

    for (int i = 0; i < 4; i++)
        u[i] = _mm512_castps_si512(_mm512_andnot_ps(sign, p->v[i]));
    a = _mm512_max_epi32(u[0], u[1]);
    b = _mm512_max_epi32(u[2], u[3]);
    a2 = _mm256_max_epi32(_mm512_castsi512_si256(a), _mm512_extracti32x8_epi32(a, 1));
    b2 = _mm256_max_epi32(_mm512_castsi512_si256(b), _mm512_extracti32x8_epi32(b, 1));
    m = _mm256_max_epi32(_mm256_permute2x128_si256(a2, b2, 0x20),
                         _mm256_permute2x128_si256(a2, b2, 0x31));
    m = _mm256_max_epi32(m, _mm256_shuffle_epi32(m, 0x4e));
    return _mm256_castsi256_ps(_mm256_max_epi32(m, _mm256_shuffle_epi32(m, 0xb1)));
}

/* Rounds to the nearest integer, ties to even, as the scalar twin: the bits of the result are
 * equal. Two blocks fill the registers that packing takes: four vectors of 32 bits become one of
 * bytes. */
AVX512_INLINE void quantise_pair(const float *x, bool both, struct kernels_q8 *ret)
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m256 most_int = _mm256_set1_ps(127);
    struct pair p = load_pair(x, both);
    __m256 most = pair_max(&p), inverse = _mm256_div_ps(most_int, most), d;
    /* Infinite for zeros and what is too close to them, which are zeros then. Not so NaN, which
     * goes on to d, nor an infinite maximum, whose d is infinite. */
    __mmask8 some = _mm256_cmp_ps_mask(inverse, _mm256_set1_ps(INFINITY), _CMP_NEQ_UQ);
    __m512 by[2];
    __m512i q[4], bytes, sum;
    __m128i halves;

    inverse = _mm256_maskz_mov_ps(some, inverse);
    d = _mm256_maskz_div_ps(some, most, most_int);
    by[0] = _mm512_broadcastss_ps(_mm256_castps256_ps128(inverse));
    by[1] = _mm512_broadcastss_ps(_mm256_extractf128_ps(inverse, 1));
    for (int i = 0; i < 4; i++)
        q[i] = _mm512_cvtps_epi32(_mm512_mul_ps(p.v[i], by[i / 2]));
    /* Packing works within quarters: dword 4 i + j of the result is dword i of quarter j. */
    bytes = _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
    bytes = _mm512_permutexvar_epi32(order, bytes);
    /* Four columns a dword, then the four dwords of each half block. */
    sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), bytes);
    sum = _mm512_add_epi32(sum, _mm512_shuffle_epi32(sum, _MM_PERM_BADC));
    sum = _mm512_add_epi32(sum, _mm512_shuffle_epi32(sum, _MM_PERM_CDAB));
    halves = _mm512_castsi512_si128(_mm512_permutexvar_epi32(
        _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12), sum));
    for (int i = 0; i < (both ? 2 : 1); i++) {
        int h0 = i ? _mm_extract_epi32(halves, 2) : _mm_cvtsi128_si32(halves);
        int h1 = i ? _mm_extract_epi32(halves, 3) : _mm_extract_epi32(halves, 1);

        ret[i].d = _mm_cvtss_f32(i ? _mm256_extractf128_ps(d, 1) : _mm256_castps256_ps128(d));
        ret[i].s = ret[i].d * (float)(h0 + h1);
        ret[i].sum[0] = (int16_t)h0;
        ret[i].sum[1] = (int16_t)h1;
        _mm256_storeu_si256((void *)ret[i].q, i ? _mm512_extracti64x4_epi64(bytes, 1)
                                                : _mm512_castsi512_si256(bytes));
    }
}

static void quantise(const float *x, uint32_t n, struct kernels_q8 *ret)
{
    uint32_t b = 0;

    for (; b + 2 <= n / 32; b += 2)
        quantise_pair(x + 32 * b, true, ret + b);
    if (b < n / 32)
        quantise_pair(x + 32 * b, false, ret + b);
}

/* As avx2: four accumulators of 16. */
static void rmsnorm(const float *x, const float *w, uint32_t n, float eps, float *ret)
{
    __m512 sum[4], by;
    float squares;
    uint32_t i = 0;

    for (int k = 0; k < 4; k++)
        sum[k] = _mm512_setzero_ps();
    for (; i + 64 <= n; i += 64) {
        for (int k = 0; k < 4; k++) {
            __m512 v = _mm512_loadu_ps(x + i + 16 * k);

            sum[k] = _mm512_fmadd_ps(v, v, sum[k]);
        }
    }
    for (; i < n; i += 16) {
        __m512 v = load_some(x + i, n - i);

        sum[0] = _mm512_fmadd_ps(v, v, sum[0]);
    }
    sum[0] = _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3]));
    squares = avx512_sum(sum[0]);
    by = _mm512_set1_ps(1 / sqrtf(squares / (float)n + eps) + (squares - squares));
    for (i = 0; i < n; i += 16) {
        __m512 v = _mm512_mul_ps(load_some(x + i, n - i), by);

        store_some(ret + i, n - i, _mm512_mul_ps(v, load_some(w + i, n - i)));
    }
}

static void add(float *x, const float *y, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 16)
        store_some(x + i, n - i, _mm512_add_ps(load_some(x + i, n - i), load_some(y + i, n - i)));
}

static void swiglu(float *gate, const float *up, uint32_t n)
{
    const __m512 one = _mm512_set1_ps(1), sign = _mm512_set1_ps(-0.0f);

    for (uint32_t i = 0; i < n; i += 16) {
        __m512 g = load_some(gate + i, n - i);
        __m512 e = _mm512_add_ps(one, avx512_exp(_mm512_xor_ps(g, sign)));

        store_some(gate + i, n - i, _mm512_mul_ps(_mm512_div_ps(g, e), load_some(up + i, n - i)));
    }
}

/* Both halves of a pair are loaded before either is stored, so that ret may be x. */
void avx512_turn(const float *x, const float *cs, uint32_t hd, float *ret)
{
    uint32_t half = hd / 2;

    for (uint32_t i = 0; i < half; i += 16) {
        uint32_t left = half - i;
        __m512 x0 = load_some(x + i, left), x1 = load_some(x + half + i, left);
        __m512 c = load_some(cs + i, left), s = load_some(cs + half + i, left);

        store_some(ret + i, left, _mm512_fmsub_ps(x0, c, _mm512_mul_ps(x1, s)));
        store_some(ret + half + i, left, _mm512_fmadd_ps(x0, s, _mm512_mul_ps(x1, c)));
    }
}

static void rope(float *x, uint32_t n_heads, uint32_t hd, const float *cs)
{
    for (uint32_t h = 0; h < n_heads; h++, x += hd)
        avx512_turn(x, cs, hd, x);
}

static void scale(float *x, uint32_t n, float by)
{
    for (uint32_t i = 0; i < n; i += 16)
        store_some(x + i, n - i, _mm512_mul_ps(load_some(x + i, n - i), _mm512_set1_ps(by)));
}

/* NaN is never the greatest: vmaxps gives its second operand when the first is none. */
static float max_of(const float *x, uint32_t n)
{
    __m512 none = _mm512_set1_ps(-INFINITY), top[4] = { none, none, none, none };
    uint32_t i = 0;

    for (; i + 64 <= n; i += 64) {
        for (int k = 0; k < 4; k++)
            top[k] = _mm512_max_ps(_mm512_loadu_ps(x + i + 16 * k), top[k]);
    }
    for (; i < n; i += 16)
        top[0] = _mm512_max_ps(_mm512_mask_loadu_ps(none, avx512_first(n - i), x + i), top[0]);
    return avx512_max(_mm512_max_ps(_mm512_max_ps(top[0], top[1]), _mm512_max_ps(top[2], top[3])));
}

/* Sums of 512 are kept in f32, their sum in f64: a vocabulary has 150,000 terms. */
static float logsumexp(const float *x, uint32_t n)
{
    float max = max_of(x, n);
    __m512 shift = _mm512_set1_ps(max);
    double sum = 0;

    if (!isfinite(max))
        return max;
    for (uint32_t i = 0; i < n;) {
        uint32_t end = n - i < 512 ? n : i + 512;
        __m512 part = _mm512_setzero_ps();

        for (; i < end; i += 16) {
            __m512 e = avx512_exp(_mm512_sub_ps(load_some(x + i, end - i), shift));

            part = _mm512_mask_add_ps(part, avx512_first(end - i), part, e);
        }
        sum += avx512_sum(part);
    }
    return max + (float)log(sum);
}

/* --- sampling --------------------------------------------------------------------------------- */

/* The largest first, then where it stands first: two passes that wait for nothing. */
static uint32_t argmax(const float *x, uint32_t n)
{
    float max = max_of(x, n);
    __m512 top = _mm512_set1_ps(max);

    if (max == -INFINITY)
        return 0;
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 equal =
            _mm512_mask_cmp_ps_mask(avx512_first(n - i), load_some(x + i, n - i), top, _CMP_EQ_OQ);

        if (equal)
            return i + (uint32_t)__builtin_ctz(equal);
    }
    return 0;
}

/* weight_of in the scalar twin, step by step and with nothing fused: the same bits. */
static __m512 weigh(__m512 x)
{
    static const float c[] = { 1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1, 1 };
    __m512 n = _mm512_sub_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), _mm512_set1_ps(0.5f));
    __m512i whole = _mm512_cvttps_epi32(n);
    __m512 power = _mm512_cvtepi32_ps(whole), p = _mm512_set1_ps(1.0f / 5040);
    __m512 r = _mm512_sub_ps(x, _mm512_mul_ps(power, _mm512_set1_ps(0.693145752f)));

    r = _mm512_sub_ps(r, _mm512_mul_ps(power, _mm512_set1_ps(1.42860677e-6f)));
    for (size_t i = 0; i < sizeof(c) / sizeof(c[0]); i++)
        p = _mm512_add_ps(_mm512_mul_ps(p, r), _mm512_set1_ps(c[i]));
    whole = _mm512_slli_epi32(_mm512_add_epi32(whole, _mm512_set1_epi32(127)), 23);
    return _mm512_mul_ps(p, _mm512_castsi512_ps(whole));
}

static void weights(const float *x, uint32_t n, float max, float temperature, float *ret)
{
    const __m512 shift = _mm512_set1_ps(max), by = _mm512_set1_ps(temperature),
                 low = _mm512_set1_ps(SAMPLER_WEIGHT_LOG_MIN);

    for (uint32_t i = 0; i < n; i += 16) {
        __m512 v = _mm512_div_ps(_mm512_sub_ps(load_some(x + i, n - i), shift), by);
        __mmask16 some = _mm512_cmp_ps_mask(v, low, _CMP_GT_OQ);

        v = _mm512_maskz_mov_ps(some, weigh(_mm512_max_ps(v, low)));
        store_some(ret + i, n - i, v);
    }
}

/* --- tables ----------------------------------------------------------------------------------- */

/* All that the tables have in common. */
#define VECTORS                                                                                    \
    .quantise = quantise, .rmsnorm = rmsnorm, .add = add, .swiglu = swiglu, .rope = rope,          \
    .kv_store = { [KV_F16] = avx2_kv_store_f16,                                                    \
                  [KV_F32] = avx2_kv_store_f32,                                                    \
                  [KV_Q8_0] = avx512_kv_store_q8_0 },                                              \
    .attn = { [KV_F16] = avx512_attn_f16,                                                          \
              [KV_F32] = avx512_attn_f32,                                                          \
              [KV_Q8_0] = avx512_attn_q8_0 },                                                      \
    .attn_merge = avx512_attn_merge, .scale = scale, .dense = avx512_dense,                        \
    .soften = avx512_soften, .widen_f16 = avx512_widen_f16, .logsumexp = logsumexp,                \
    .sampling.argmax = argmax, .sampling.weights = weights

#define PRODUCTS                                                                                   \
    [QUANT_F32] = avx512_matmul_f32, [QUANT_Q4_0] = avx512_matmul_q4_0,                            \
    [QUANT_Q4_1] = avx512_matmul_q4_1, [QUANT_Q5_0] = avx512_matmul_q5_0,                          \
    [QUANT_Q5_1] = avx512_matmul_q5_1, [QUANT_Q8_0] = avx512_matmul_q8_0,                          \
    [QUANT_Q4_K] = avx512_matmul_q4_k, [QUANT_Q5_K] = avx512_matmul_q5_k,                          \
    [QUANT_Q6_K] = avx512_matmul_q6_k

const struct kernels kernels_avx512 = {
    .name = "avx512",
    .ahead = 4u << 10,
    .form = { KERNELS_FORMS },
    .matmul = { PRODUCTS, [QUANT_F16] = avx512_matmul_f16, [QUANT_BF16] = avx512_matmul_bf16 },
    VECTORS,
};

const struct kernels kernels_avx512bf16 = {
    .name = "avx512bf16", /* AMD's, whose prefetchers are at their best alone */
    .form = { KERNELS_FORMS, [QUANT_F16] = KERNELS_FORM_BF16, [QUANT_BF16] = KERNELS_FORM_BF16 },
    .matmul = { PRODUCTS, [QUANT_F16] = bf16_matmul_f16, [QUANT_BF16] = bf16_matmul_bf16 },
    .to_bf16 = bf16_from_f32,
    VECTORS,
};
