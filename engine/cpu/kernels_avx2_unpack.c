/* Unpacks blocks of tiles; see engine/cpu/kernels_avx2_block.h, and engine/file/tile.h for how they
 * lie.
 *
 * A tile already has dwords of a row in a lane, so unpacking moves nothing between lanes but fifth
 * bits: nibbles are masked apart, upper bits put over them. Each type has a loop of its own, in
 * which sizes and places are constants. */
#include "engine/cpu/kernels_avx2_block.h"

AVX2_INLINE __m256i load(const void *p)
{
    return _mm256_loadu_si256(p);
}

/* Eight rows' scales, one a lane. */
AVX2_INLINE __m256 load_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p));
}

AVX2_INLINE __m256 load_u8(const uint8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p)));
}

AVX2_INLINE __m256 load_i8(const int8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)));
}

/* base takes off again what sums start with (AVX2_SUM_ZERO). */
AVX2_INLINE void set_scale(struct avx2_block *ret, int part, int half, __m256 d)
{
    ret->d[part][half] = d;
    ret->base[part][half] = _mm256_mul_ps(d, _mm256_set1_ps(-AVX2_SUM_ZERO));
}

AVX2_INLINE void unpack_scales(const uint16_t d[16], struct avx2_block *ret)
{
    set_scale(ret, 0, 0, load_f16(d));
    set_scale(ret, 0, 1, load_f16(d + 8));
}

/* As the file has them, to be added: m * s is the minimum times the sum of the activations. */
AVX2_INLINE void unpack_minima(const uint16_t m[16], struct avx2_block *ret)
{
    ret->m[0] = load_f16(m);
    ret->m[1] = load_f16(m + 8);
}

/* i / 2 is a dword's number, i % 2 which 8 of the rows. Shifted as 16 bits, since there is no shift
 * of bytes; what comes over from the neighbour is masked off. */
AVX2_INLINE void unpack_nibbles(const uint8_t q[4][16][4], struct avx2_block *ret)
{
    const __m256i low = _mm256_set1_epi8(15);

#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        __m256i v = load(q[i / 2][i % 2 * 8]);

        ret->q[i / 2][i % 2] = _mm256_and_si256(v, low);
        ret->q[i / 2 + 4][i % 2] = _mm256_and_si256(_mm256_srli_epi16(v, 4), low);
    }
}

/* Bit 4 i + j of a half of h[k] to bit 4 of byte j of lane i: each lane gets the byte its four bits
 * are in, and each byte looks at its bit. */
AVX2_INLINE __m256i fifth_bits(__m256i h, int half, int odd)
{
    const __m256i place = _mm256_setr_epi32(0, 0, 0x01010101, 0x01010101, 0x02020202, 0x02020202,
                                            0x03030303, 0x03030303);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201);
    __m256i from = _mm256_add_epi8(place, _mm256_set1_epi8((char)(8 * odd + 4 * half)));
    __m256i v = _mm256_and_si256(_mm256_shuffle_epi8(h, from), bit);

    return _mm256_and_si256(_mm256_cmpeq_epi8(v, bit), _mm256_set1_epi8(16));
}

/* h of two dwords is 16 bytes, which both halves of the register get, as vpshufb stays within
 * one. */
AVX2_INLINE void unpack_fifth(const uint64_t h[8], struct avx2_block *ret)
{
#pragma GCC unroll 4
    for (int k = 0; k < 8; k += 2) {
        __m256i v = _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)(h + k)));

#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            __m256i *q = &ret->q[k + i / 2][i % 2];

            *q = _mm256_or_si256(*q, fifth_bits(v, i % 2, i / 2));
        }
    }
}

/* Signed bytes as they are: dot_pairs or dot_sums make what their instruction wants of them. */
AVX2_INLINE void unpack_q8_0(const struct tile_q8_0 *t, struct avx2_block *ret)
{
    unpack_scales(t->d, ret);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        ret->q[i / 2][i % 2] = load(t->q[i / 2][i % 2 * 8]);
}

/* The scales and minima of a group, as Q4_K and Q5_K have them. d times scale is exact: 11 bits by
 * 6. Minima are taken off in these types, so their sign is turned. */
AVX2_INLINE void unpack_group_scales(const uint16_t d[16], const uint16_t dmin[16],
                                     const uint8_t scale[16], const uint8_t min[16],
                                     struct avx2_block *ret)
{
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        __m256 m = _mm256_mul_ps(load_f16(dmin + 8 * half), load_u8(min + 8 * half));

        set_scale(ret, 0, half, _mm256_mul_ps(load_f16(d + 8 * half), load_u8(scale + 8 * half)));
        ret->m[half] = _mm256_xor_ps(m, _mm256_set1_ps(-0.0f));
    }
}

/* Two upper bits of dword k stand at bits 2 (k / 2) of h[k % 2]; all four shifts bring them to 4
 * and 5. */
AVX2_INLINE void unpack_q6_k(const uint16_t d[16], const struct tile_q6_k_group *g,
                             struct avx2_block *ret)
{
    const __m256i two = _mm256_set1_epi8(0x30);

    unpack_nibbles(g->q, ret);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        int half = i % 2, odd = i / 2;
        __m256i h = load(g->h[odd][8 * half]);
        __m256i at[4] = { _mm256_slli_epi16(h, 4), _mm256_slli_epi16(h, 2), h,
                          _mm256_srli_epi16(h, 2) };

#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            __m256i *q = &ret->q[2 * j + odd][half];

            *q = _mm256_or_si256(*q, _mm256_and_si256(at[j], two));
        }
        /* Of columns 16 * odd and on, for rows 8 * half and on. */
        set_scale(ret, odd, half,
                  _mm256_mul_ps(load_f16(d + 8 * half), load_i8(g->scale[odd] + 8 * half)));
    }
}

/* What comes 4 KB later is called for meanwhile, in each of these (avx2_call_ahead). */
static void unpack_q4_0s(const struct tile_q4_0 *t, uint32_t n, struct avx2_block *ret)
{
    for (uint32_t b = 0; b < n; b++) {
        avx2_call_ahead(&t[b], sizeof(t[b]));
        unpack_scales(t[b].d, &ret[b]);
        unpack_nibbles(t[b].q, &ret[b]);
    }
}

static void unpack_q4_1s(const struct tile_q4_1 *t, uint32_t n, struct avx2_block *ret)
{
    for (uint32_t b = 0; b < n; b++) {
        avx2_call_ahead(&t[b], sizeof(t[b]));
        unpack_scales(t[b].d, &ret[b]);
        unpack_minima(t[b].m, &ret[b]);
        unpack_nibbles(t[b].q, &ret[b]);
    }
}

static void unpack_q5_0s(const struct tile_q5_0 *t, uint32_t n, struct avx2_block *ret)
{
    for (uint32_t b = 0; b < n; b++) {
        avx2_call_ahead(&t[b], sizeof(t[b]));
        unpack_scales(t[b].d, &ret[b]);
        unpack_nibbles(t[b].q, &ret[b]);
        unpack_fifth(t[b].h, &ret[b]);
    }
}

static void unpack_q5_1s(const struct tile_q5_1 *t, uint32_t n, struct avx2_block *ret)
{
    for (uint32_t b = 0; b < n; b++) {
        avx2_call_ahead(&t[b], sizeof(t[b]));
        unpack_scales(t[b].d, &ret[b]);
        unpack_minima(t[b].m, &ret[b]);
        unpack_nibbles(t[b].q, &ret[b]);
        unpack_fifth(t[b].h, &ret[b]);
    }
}

static void unpack_q8_0s(const struct tile_q8_0 *t, uint32_t n, struct avx2_block *ret)
{
    for (uint32_t b = 0; b < n; b++) {
        avx2_call_ahead(&t[b], sizeof(t[b]));
        unpack_q8_0(&t[b], &ret[b]);
    }
}

static void unpack_q4_ks(const struct tile_q4_k *t, uint32_t n, struct avx2_block *ret)
{
    for (uint32_t b = 0; b < n; b++) {
        const struct tile_q4_k_group *g = &t[b / 8].g[b % 8];

        avx2_call_ahead(g, sizeof(*g));
        unpack_group_scales(t[b / 8].d, t[b / 8].dmin, g->scale, g->min, &ret[b]);
        unpack_nibbles(g->q, &ret[b]);
    }
}

static void unpack_q5_ks(const struct tile_q5_k *t, uint32_t n, struct avx2_block *ret)
{
    for (uint32_t b = 0; b < n; b++) {
        const struct tile_q5_k_group *g = &t[b / 8].g[b % 8];

        avx2_call_ahead(g, sizeof(*g));
        unpack_group_scales(t[b / 8].d, t[b / 8].dmin, g->scale, g->min, &ret[b]);
        unpack_nibbles(g->q, &ret[b]);
        unpack_fifth(g->h, &ret[b]);
    }
}

static void unpack_q6_ks(const struct tile_q6_k *t, uint32_t n, struct avx2_block *ret)
{
    for (uint32_t b = 0; b < n; b++) {
        avx2_call_ahead(&t[b / 8].g[b % 8], sizeof(t[0].g[0]));
        unpack_q6_k(t[b / 8].d, &t[b / 8].g[b % 8], &ret[b]);
    }
}

/* b0 is a multiple of 8 where eight blocks share a header, so that b / 8 and b % 8 count from
 * it. */
void avx2_unpack(enum quant type, const void *tile, uint32_t b0, uint32_t n, struct avx2_block *ret)
{
    switch (type) {
    case QUANT_Q4_0:
        unpack_q4_0s((const struct tile_q4_0 *)tile + b0, n, ret);
        break;
    case QUANT_Q4_1:
        unpack_q4_1s((const struct tile_q4_1 *)tile + b0, n, ret);
        break;
    case QUANT_Q5_0:
        unpack_q5_0s((const struct tile_q5_0 *)tile + b0, n, ret);
        break;
    case QUANT_Q5_1:
        unpack_q5_1s((const struct tile_q5_1 *)tile + b0, n, ret);
        break;
    case QUANT_Q8_0:
        unpack_q8_0s((const struct tile_q8_0 *)tile + b0, n, ret);
        break;
    case QUANT_Q4_K:
        unpack_q4_ks((const struct tile_q4_k *)tile + b0 / 8, n, ret);
        break;
    case QUANT_Q5_K:
        unpack_q5_ks((const struct tile_q5_k *)tile + b0 / 8, n, ret);
        break;
    default:
        unpack_q6_ks((const struct tile_q6_k *)tile + b0 / 8, n, ret);
    }
}
