/* engine/cpu/kernels_avx2.h - what the files of the AVX2 table share.
 *
 * Included by engine/cpu/kernels_avx2*.c, which are compiled for AVX2, FMA and F16C, and by files
 * that are compiled for these and more: kernels_avxvnni.c, and kernels_avx512.c, whose tables have
 * two functions of this one.
 */
#ifndef ENGINE_CPU_KERNELS_AVX2_H
#define ENGINE_CPU_KERNELS_AVX2_H

#include "engine/cpu/kernels.h"

#include <immintrin.h>

/* Functions of a constant (a weight type, a number of rows) are inlined, so that it vanishes; those
 * that would only be copied to many places are not, as it makes them no faster and the objects
 * large. */
#define AVX2_INLINE static inline __attribute__((always_inline))
#define AVX2_ONCE   static __attribute__((noinline))

/* Products (kernels_avx2_q8.c, and kernels_avxvnni.c for the table that has AVX-VNNI); q4_min: Q4_1
 * and Q4_K, q5_min: Q5_1 and Q5_K. */
void avx2_matmul_q4_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void avx2_matmul_q4_min(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void avx2_matmul_q5_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void avx2_matmul_q5_min(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void avx2_matmul_q6_k(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void avx2_matmul_q8_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void avxvnni_matmul_q4_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void avxvnni_matmul_q4_min(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void avxvnni_matmul_q5_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void avxvnni_matmul_q5_min(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void avxvnni_matmul_q6_k(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void avxvnni_matmul_q8_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);

/* Products of floats (kernels_avx2_float.c). */
void avx2_matmul_f32(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void avx2_matmul_f16(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
void avx2_matmul_bf16(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);

/* f32 matrices (kernels_avx2_dense.c). */
void avx2_dense(const struct kernels_dense *p);
float avx2_soften(float *x, uint32_t n, float *ret_sum);
void avx2_widen_f16(const uint16_t *x, uint32_t n, float *ret);

/* Attention (kernels_avx2_attn.c). */
void avx2_kv_store_f16(const float *k, const float *v, uint32_t hd, uint32_t slot, void *k_tile,
                       void *v_tile);
void avx2_kv_store_f32(const float *k, const float *v, uint32_t hd, uint32_t slot, void *k_tile,
                       void *v_tile);
void avx2_kv_store_q8_0(const float *k, const float *v, uint32_t hd, uint32_t slot, void *k_tile,
                        void *v_tile);
/* rope for one head; ret may be x. */
void avx2_turn(const float *x, const float *cs, uint32_t hd, float *ret);
void avx2_attn_f16(const struct kernels_attn *a);
void avx2_attn_f32(const struct kernels_attn *a);
void avx2_attn_q8_0(const struct kernels_attn *a);
void avx2_attn_merge(float *m, float *l, float *o, float m2, float l2, const float *o2,
                     uint32_t hd);

/* Calls for memory that a kernel, which reads from one end to the other, gets to some KB later: it
 * must be on its way while the kernel is busy with what it has. (The caches guess as much of a
 * plain loop that only reads; with it a product for one activation row reads 0.95 times as fast as
 * that, without it 0.7 times. 2 KB is too near, 16 KB no better.) Memory that is not there is no
 * fault. */
AVX2_INLINE void avx2_call_ahead(const void *p, size_t len)
{
    for (size_t i = 0; i < len; i += 64)
        _mm_prefetch((const char *)p + 4096 + i, _MM_HINT_T0);
}

/* Sums in one order: halves, then pairs, then neighbours. */
AVX2_INLINE float avx2_sum(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));

    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

AVX2_INLINE float avx2_max(__m256 v)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));

    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

/* The float whose bits, as an integer, are the largest: of floats above 0 the largest one, but NaN
 * before all. */
AVX2_INLINE float avx2_max_bits(__m256i v)
{
    __m128i s = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));

    s = _mm_max_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_max_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    return _mm_cvtss_f32(_mm_castsi128_ps(s));
}

/* A mask of the first n lanes (0 to 8; more is 8). */
AVX2_INLINE __m256i avx2_first(uint32_t n)
{
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);

    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(n < 8 ? n : 8)), lane);
}

/* Two accumulators of a tile's rows, of which n_rows or all 16 are rows of the product. */
AVX2_INLINE void avx2_load_tile(const float *y, uint32_t n_rows, __m256 ret_acc[2])
{
    if (n_rows >= TILE_ROWS) {
        ret_acc[0] = _mm256_loadu_ps(y);
        ret_acc[1] = _mm256_loadu_ps(y + 8);
    } else {
        ret_acc[0] = _mm256_maskload_ps(y, avx2_first(n_rows));
        ret_acc[1] = _mm256_maskload_ps(y + 8, avx2_first(n_rows > 8 ? n_rows - 8 : 0));
    }
}

AVX2_INLINE void avx2_store_tile(float *y, uint32_t n_rows, const __m256 acc[2])
{
    if (n_rows >= TILE_ROWS) {
        _mm256_storeu_ps(y, acc[0]);
        _mm256_storeu_ps(y + 8, acc[1]);
    } else {
        _mm256_maskstore_ps(y, avx2_first(n_rows), acc[0]);
        _mm256_maskstore_ps(y + 8, avx2_first(n_rows > 8 ? n_rows - 8 : 0), acc[1]);
    }
}

/* e^x to about 1e-7 of its value; exactly 1 at 0; 0 below -87.3; e^88.3 above 88.3. NaN gives
 * e^88.3 or 0. x = n ln 2 + r with |r| <= ln 2 / 2; e^r by its Taylor series, whose first term left
 * out is r^7 / 5040 < 1.2e-7; ln 2 in two parts, so that r loses nothing. */
AVX2_INLINE __m256 avx2_exp(__m256 x)
{
    const __m256 low = _mm256_set1_ps(-87.3f);
    __m256 c = _mm256_min_ps(_mm256_max_ps(x, low), _mm256_set1_ps(88.3f));
    __m256 n = _mm256_round_ps(_mm256_mul_ps(c, _mm256_set1_ps(1.44269504f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693145752f), c);
    __m256 p = _mm256_set1_ps(1.0f / 5040);
    __m256i power;

    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(1.42860677e-6f), r);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 720));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    power = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    p = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), power));
    return _mm256_and_ps(p, _mm256_cmp_ps(x, low, _CMP_GT_OQ));
}

#endif
