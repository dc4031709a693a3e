/* Storing K and V of one token and KV head into their tiles (engine/kv/page.h) as int8. In the
 * other formats there is nothing for wider vectors: the tables have AVX2's.
 */
#include "engine/cpu/kernels_avx512.h"

#define TOKENS PAGE_TOKENS

/* n values, 8 to 32, a multiple of 8, as the lanes of two vectors. Steps and roundings are the
 * scalar twin's; vmaxps gives its second operand when the first is no number. The largest is found
 * by bits, among which NaN is the largest. */
AVX512_INLINE __m256i quantise_block(const float *x, uint32_t n, uint16_t *ret_d)
{
    const __m512 sign = _mm512_set1_ps(-0.0f), low = _mm512_set1_ps(-127),
                 high = _mm512_set1_ps(127);
    __m512 v[2] = { _mm512_maskz_loadu_ps(avx512_first(n), x),
                    _mm512_maskz_loadu_ps(avx512_first(n > 16 ? n - 16 : 0), x + 16) };
    __m512i most = _mm512_max_epi32(_mm512_castps_si512(_mm512_andnot_ps(sign, v[0])),
                                    _mm512_castps_si512(_mm512_andnot_ps(sign, v[1])));
    int bits = _mm512_reduce_max_epi32(most);
    __m128i q[2];
    __m512 by;

    *ret_d = _cvtss_sh(_mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(bits))) / 127, 0);
    by = _mm512_set1_ps(*ret_d ? 1 / _cvtsh_ss(*ret_d) : 0);
    for (int i = 0; i < 2; i++) {
        v[i] = _mm512_min_ps(_mm512_max_ps(_mm512_mul_ps(v[i], by), low), high);
        q[i] = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v[i]));
    }
    return _mm256_inserti128_si256(_mm256_castsi128_si256(q[0]), q[1], 1);
}

void avx512_kv_store_q8_0(const float *k, const float *v, uint32_t hd, uint32_t slot, void *k_tile,
                          void *v_tile)
{
    int8_t *kt = (int8_t *)k_tile + slot, *vt = (int8_t *)v_tile + (size_t)slot * hd;
    uint16_t *kd = (void *)((uint8_t *)k_tile + (size_t)hd * TOKENS),
             *vd = (void *)((uint8_t *)v_tile + (size_t)hd * TOKENS);
    bool bad = false;

    for (uint32_t i = 0; i < hd; i += 32) {
        uint32_t n = hd - i < 32 ? hd - i : 32, at = i / 32 * TOKENS + slot;
        __mmask32 in = n < 32 ? (1u << n) - 1 : 0xffffffff;
        int8_t q[32];

        _mm256_storeu_si256((void *)q, quantise_block(k + i, n, &kd[at]));
        for (uint32_t j = 0; j < n; j++)
            kt[(i + j) * TOKENS] = q[j];
        _mm256_mask_storeu_epi8(vt + i, in, quantise_block(v + i, n, &vd[at]));
        bad |= (kd[at] & 0x7c00) == 0x7c00;
    }
    if (bad)
        vd[slot] = KV_F16_NAN;
}
