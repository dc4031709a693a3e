/* engine/cpu/kernels_avx512.h - what the files of the AVX-512 tables share.
 *
 * Included by engine/cpu/kernels_avx512*.c and engine/cpu/kernels_bf16*.c only, which are compiled
 * for AVX-512 F, BW, VL, DQ and VNNI.
 */
#ifndef ENGINE_CPU_KERNELS_AVX512_H
#define ENGINE_CPU_KERNELS_AVX512_H

#include "engine/cpu/kernels.h"

#include <immintrin.h>

/* Functions of a constant (a number of rows, a kind of KV) are inlined, so that it vanishes; those
 * that would only be copied to many places are not. */
#define AVX512_INLINE static inline __attribute__((always_inline))
#define AVX512_ONCE   static __attribute__((noinline))

/* Quantised weights by kernels_q8 (kernels_avx512_q8.c). */
void avx512_matmul_q4_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void avx512_matmul_q4_1(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void avx512_matmul_q5_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void avx512_matmul_q5_1(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void avx512_matmul_q8_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void avx512_matmul_q4_k(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void avx512_matmul_q5_k(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void avx512_matmul_q6_k(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);

/* Float weights by floats (kernels_avx512_float.c). */
void avx512_matmul_f32(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void avx512_matmul_f16(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void avx512_matmul_bf16(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);

/* f32 matrices (kernels_avx512_dense.c). */
void avx512_dense(const struct kernels_dense *p);
float avx512_soften(float *x, uint32_t n, float *ret_sum);
void avx512_widen_f16(const uint16_t *x, uint32_t n, float *ret);

/* Storing (kernels_avx512_store.c). */
void avx512_kv_store_q8_0(const float *k, const float *v, uint32_t hd, uint32_t slot, void *k_tile,
                          void *v_tile);

/* Attention (kernels_avx512_attn.c). */
/* rope for one head; ret may be x. */
void avx512_turn(const float *x, const float *cs, uint32_t hd, float *ret);
void avx512_attn_f16(const struct kernels_attn *a);
void avx512_attn_f32(const struct kernels_attn *a);
void avx512_attn_q8_0(const struct kernels_attn *a);
void avx512_attn_merge(float *m, float *l, float *o, float m2, float l2, const float *o2,
                       uint32_t hd);

/* Calls for weights before their turn: for one activation row, which reads as fast as memory gives,
 * as the table says; for more, as far ahead as the second level holds with ease. (In the first
 * level's few miss buffers, calls that wait for memory would keep activations waiting that only
 * come from the second: eight rows of Q4_K were 1.7 times as fast for it on Zen 4.) Memory that is
 * not there is no fault. */
AVX512_INLINE void avx512_call_ahead(const struct kernels_matmul *a, uint32_t n_x, const void *at,
                                     size_t len)
{
    for (size_t i = 0; n_x > 1 && i < len; i += 64)
        _mm_prefetch((const char *)at + (32u << 10) + i, _MM_HINT_T1);
    for (size_t i = 0; n_x == 1 && a->ahead && i < len; i += 64)
        _mm_prefetch((const char *)at + a->ahead + i, _MM_HINT_T0);
}

/* Sums in one order: halves, quarters, pairs, neighbours. */
AVX512_INLINE float avx512_sum(__m512 v)
{
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

AVX512_INLINE float avx512_max(__m512 v)
{
    __m256 h = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

/* A mask of the first n lanes (0 to 16; more is 16). */
AVX512_INLINE __mmask16 avx512_first(uint32_t n)
{
    return (__mmask16)(n < 16 ? (1u << n) - 1 : 0xffff);
}

/* 2^f for f in [0, 1): its minimax polynomial of the fifth degree among those that are 1 at 0. Off
 * by 8e-8, with its roundings 1.5e-7. */
AVX512_INLINE __m512 avx512_power(__m512 f)
{
    __m512 p = _mm512_set1_ps(1.867130515e-3f);

    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.017029777e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.579991266e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.401644439e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.931512952e-1f));
    return _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
}

/* x less the whole number below it: what vscalefps leaves to the polynomial. */
#define AVX512_FRACTION(x) _mm512_reduce_ps((x), _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)

/* e^x to 2e-7 of its value; exactly 1 at 0; 0 below -87.3; infinite above 88.8. NaN stays NaN.
 * x log2(e) is rounded, and by more than an exponent can bear when x is large: what the rounding
 * left out goes back into the fraction. */
AVX512_INLINE __m512 avx512_exp(__m512 x)
{
    const __m512 log2e = _mm512_set1_ps(1.44269502f), low = _mm512_set1_ps(-87.3f);
    __m512 c = _mm512_min_ps(_mm512_set1_ps(100), _mm512_max_ps(_mm512_set1_ps(-100), x));
    __m512 y = _mm512_mul_ps(c, log2e);
    __m512 rest = _mm512_fmadd_ps(c, _mm512_set1_ps(1.92596303e-8f), _mm512_fmsub_ps(c, log2e, y));
    __m512 f = _mm512_add_ps(AVX512_FRACTION(y), rest);

    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, low, _CMP_NLE_UQ), avx512_power(f), y);
}

#endif
