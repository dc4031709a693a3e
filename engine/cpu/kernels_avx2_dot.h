/* engine/cpu/kernels_avx2_dot.h - a block of a tile by a few activation rows.
 *
 * Included (by engine/cpu/kernels_avx2_matmul.h) once for each table that has 256-bit vectors. The
 * flags of the including file say which instruction multiplies: AVX-VNNI adds four products to 32
 * bits, AVX2 alone pairs of them to 16, which are widened before they could saturate.
 */
#ifndef ENGINE_CPU_KERNELS_AVX2_DOT_H
#define ENGINE_CPU_KERNELS_AVX2_DOT_H

#include "engine/cpu/kernels_avx2_block.h"

/* Activation rows at a time, so that a load of four activations feeds two products, one of weights
 * four, and the sums fill half of the registers. */
#define DOT_X 4u

/* What the values of a format are; always a constant. */
struct dot_kind {
    uint32_t bits;
    int16_t offset; /* bytes are so much above the values */
    bool min;
    bool two; /* a scale for each 16 columns */
};

AVX2_INLINE int dot_load_u32(const void *p)
{
    int v;

    __builtin_memcpy(&v, p, sizeof(v));
    return v;
}

/* Where the sum of products of a block (or of its half `part`) starts. */
AVX2_INLINE __m256i dot_start(struct dot_kind kind, const struct kernels_q8 *x, int part)
{
    const __m256i zero = _mm256_castps_si256(_mm256_set1_ps(AVX2_SUM_ZERO));
    uint32_t by = (uint16_t)-kind.offset;
    __m256i sums;

    if (kind.offset == 0)
        return zero;
    by = !kind.two ? by << 16 | by : part ? by << 16 : by;
    sums = _mm256_set1_epi32(dot_load_u32(x->sum));
#ifdef __AVXVNNI__
    return _mm256_dpwssd_avx_epi32(zero, sums, _mm256_set1_epi32((int)by));
#else
    return _mm256_add_epi32(zero, _mm256_madd_epi16(sums, _mm256_set1_epi32((int)by)));
#endif
}

#ifdef __AVXVNNI__

/* sum[i][half] += products of dwords [k0, k1) of block *w and of x[i]. */
AVX2_INLINE void dot_sums(struct dot_kind kind, const struct avx2_block *w,
                          const struct kernels_q8 *const *x, uint32_t n_x, int k0, int k1,
                          __m256i sum[DOT_X][2])
{
#pragma GCC unroll 8
    for (int k = k0; k < k1; k++) {
        __m256i q[2] = { w->q[k][0], w->q[k][1] };

        if (kind.bits == 8) { /* signed: 128 above its value is unsigned */
            q[0] = _mm256_xor_si256(q[0], _mm256_set1_epi8(-128));
            q[1] = _mm256_xor_si256(q[1], _mm256_set1_epi8(-128));
        }
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_x; i++) {
            __m256i v = _mm256_set1_epi32(dot_load_u32(x[i]->q + 4 * k));

            sum[i][0] = _mm256_dpbusd_avx_epi32(sum[i][0], q[0], v);
            sum[i][1] = _mm256_dpbusd_avx_epi32(sum[i][1], q[1], v);
        }
    }
}

#else

/* How many pairs of products 16 bits hold: a pair is 2 * 127 * (2^bits - 1) at most. */
AVX2_INLINE int dot_run(uint32_t bits)
{
    return bits == 4 ? 8 : bits == 5 ? 4 : bits == 6 ? 2 : 1;
}

/* Pair products. Of two bytes of 8 bits not even they fit: there the value's sign goes to x. */
AVX2_INLINE __m256i dot_pairs(struct dot_kind kind, __m256i q, __m256i x)
{
    if (kind.bits < 8)
        return _mm256_maddubs_epi16(q, x);
    return _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(x, q));
}

/* Keeps a sum in its register, in the order it was written: GCC would turn the chain of additions
 * into a tree, whose leaves are more than there are registers. */
AVX2_INLINE void dot_pin(__m256i *v)
{
    __asm__("" : "+x"(*v));
}

AVX2_INLINE void dot_sums(struct dot_kind kind, const struct avx2_block *w,
                          const struct kernels_q8 *const *x, uint32_t n_x, int k0, int k1,
                          __m256i sum[DOT_X][2])
{
    const __m256i ones = _mm256_set1_epi16(1);
    const int run = dot_run(kind.bits);
    __m256i part[DOT_X][2];

#pragma GCC unroll 8
    for (int k = k0; k < k1; k++) {
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_x; i++) {
            __m256i v = _mm256_set1_epi32(dot_load_u32(x[i]->q + 4 * k));

#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) {
                __m256i p = dot_pairs(kind, w->q[k][h], v);

                part[i][h] = k % run == 0 ? p : _mm256_add_epi16(part[i][h], p);
                dot_pin(&part[i][h]);
                if (k % run == run - 1) {
                    p = _mm256_madd_epi16(part[i][h], ones);
                    sum[i][h] = _mm256_add_epi32(sum[i][h], p);
                    dot_pin(&sum[i][h]);
                }
            }
        }
    }
}

#endif

/* acc[i] += what one scale covers of block *w, all of it or half `part`, times x[i]. */
AVX2_INLINE void dot_part(struct dot_kind kind, const struct avx2_block *w,
                          const struct kernels_q8 *const *x, uint32_t n_x, int part,
                          __m256 acc[DOT_X][2])
{
    __m256i sum[DOT_X][2];

#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++)
        sum[i][0] = sum[i][1] = dot_start(kind, x[i], part);
    dot_sums(kind, w, x, n_x, 4 * part, kind.two ? 4 * part + 4 : 8, sum);
#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++) {
        __m256 d = _mm256_set1_ps(x[i]->d);

#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m256 v = _mm256_castsi256_ps(sum[i][h]);

            v = _mm256_fmadd_ps(v, w->d[part][h], w->base[part][h]);
            acc[i][h] = _mm256_fmadd_ps(v, d, acc[i][h]);
        }
    }
}

/* acc[i] += block *w times x[i]. */
AVX2_INLINE void dot_block(struct dot_kind kind, const struct avx2_block *w,
                           const struct kernels_q8 *const *x, uint32_t n_x, __m256 acc[DOT_X][2])
{
    dot_part(kind, w, x, n_x, 0, acc);
    if (kind.two)
        dot_part(kind, w, x, n_x, 1, acc);
    if (!kind.min)
        return;
#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++) {
        __m256 s = _mm256_set1_ps(x[i]->s);

        acc[i][0] = _mm256_fmadd_ps(w->m[0], s, acc[i][0]);
        acc[i][1] = _mm256_fmadd_ps(w->m[1], s, acc[i][1]);
    }
}

#endif
