/* Products of quantised weights and kernels_q8 activations, by AVX2. */
#include "engine/cpu/kernels_avx2_matmul.h"

/* --- one activation row of the types that have nibbles ---------------------------------------- */

/* A block as it lies in the tile; d and m are made f32 where they are used. */
struct nibbles {
    const uint8_t (*q)[16][4]; /* (4) */
    __m256 d[2], m[2];
};

AVX2_INLINE __m256 half_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p));
}

AVX2_INLINE __m256 half_u8(const uint8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p)));
}

/* The same numbers as avx2_unpack finds. */
AVX2_INLINE struct nibbles find_nibbles(enum quant type, const void *tile, uint32_t b)
{
    struct nibbles n;

#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        if (type == QUANT_Q4_0) {
            const struct tile_q4_0 *t = (const struct tile_q4_0 *)tile + b;

            n.q = t->q;
            n.d[h] = half_f16(t->d + 8 * h);
        } else if (type == QUANT_Q4_1) {
            const struct tile_q4_1 *t = (const struct tile_q4_1 *)tile + b;

            n.q = t->q;
            n.d[h] = half_f16(t->d + 8 * h);
            n.m[h] = half_f16(t->m + 8 * h);
        } else {
            const struct tile_q4_k *t = (const struct tile_q4_k *)tile + b / 8;
            const struct tile_q4_k_group *g = &t->g[b % 8];
            __m256 m = _mm256_mul_ps(half_f16(t->dmin + 8 * h), half_u8(g->min + 8 * h));

            n.q = g->q;
            n.d[h] = _mm256_mul_ps(half_f16(t->d + 8 * h), half_u8(g->scale + 8 * h));
            n.m[h] = _mm256_xor_ps(m, _mm256_set1_ps(-0.0f));
        }
    }
    return n;
}

/* acc += block b times *x. Sums of integers have no order, so that they may be added as the bytes
 * come; what is done in floats is what dot_part and dot_block do. */
AVX2_INLINE void dot_nibbles(struct dot_kind kind, enum quant type, const void *tile, uint32_t b,
                             const struct kernels_q8 *x, __m256 acc[2])
{
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    struct nibbles n = find_nibbles(type, tile, b);
    __m256i part[2] = { _mm256_setzero_si256(), _mm256_setzero_si256() };

    avx2_call_ahead(n.q, sizeof(struct tile_q4_1));
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        __m256i x0 = _mm256_set1_epi32(dot_load_u32(x->q + 4 * k)),
                x1 = _mm256_set1_epi32(dot_load_u32(x->q + 4 * k + 16));

#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m256i v = _mm256_loadu_si256((const void *)n.q[k][8 * h]);
            __m256i p0 = _mm256_maddubs_epi16(_mm256_and_si256(v, low), x0),
                    p1 = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(v, 4), low), x1);

            part[h] = _mm256_add_epi16(part[h], _mm256_add_epi16(p0, p1));
            dot_pin(&part[h]);
        }
    }
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        __m256i sum = _mm256_add_epi32(dot_start(kind, x, 0), _mm256_madd_epi16(part[h], ones));
        __m256 v = _mm256_fmadd_ps(_mm256_castsi256_ps(sum), n.d[h],
                                   _mm256_mul_ps(n.d[h], _mm256_set1_ps(-AVX2_SUM_ZERO)));

        acc[h] = _mm256_fmadd_ps(v, _mm256_set1_ps(x->d), acc[h]);
        if (kind.min)
            acc[h] = _mm256_fmadd_ps(n.m[h], _mm256_set1_ps(x->s), acc[h]);
    }
}

/* What an activation row alone costs is reading, if there is little else: nothing is unpacked to
 * memory, since nobody comes by a second time. */
AVX2_INLINE void dot_single(struct dot_kind kind, enum quant type, const struct kernels_matmul *a,
                            uint32_t r0, uint32_t r1)
{
    const struct kernels_q8 *x = a->x;

    for (uint32_t r = r0; r < r1; r += TILE_ROWS) {
        const uint8_t *tile = (const uint8_t *)a->w + r / TILE_ROWS * a->tile_len;
        __m256 acc[2] = { _mm256_setzero_ps(), _mm256_setzero_ps() };

        for (uint32_t b = 0; b < a->n_cols / 32; b++)
            dot_nibbles(kind, type, tile, b, &x[b], acc);
        avx2_store_tile(a->y + r, a->n_rows - r, acc);
    }
}

/* --- one or two activation rows of Q8_0 ------------------------------------------------------- */

/* A tile has the bytes as the products take them. Two rows: those of the output matrix. */
AVX2_INLINE void dot_bytes(const struct kernels_matmul *a, uint32_t r0, uint32_t r1, uint32_t n_x)
{
    const struct dot_kind kind = { .bits = 8 };
    const struct kernels_q8 *x[2] = { a->x,
                                      (const void *)((const uint8_t *)a->x + a->x_row_bytes) };

    for (uint32_t r = r0; r < r1; r += TILE_ROWS) {
        const uint8_t *tile = (const uint8_t *)a->w + r / TILE_ROWS * a->tile_len;
        __m256 acc[2][2] = { { _mm256_setzero_ps(), _mm256_setzero_ps() },
                             { _mm256_setzero_ps(), _mm256_setzero_ps() } };

        for (uint32_t b = 0; b < a->n_cols / 32; b++) {
            const struct tile_q8_0 *t = (const struct tile_q8_0 *)tile + b;
            const struct kernels_q8 *xb[2] = { x[0] + b, x[n_x - 1] + b };
            __m256i sum[DOT_X][2];

            avx2_call_ahead(t, sizeof(*t));
#pragma GCC unroll 2
            for (uint32_t i = 0; i < n_x; i++)
                sum[i][0] = sum[i][1] = dot_start(kind, xb[i], 0);
            dot_sums(kind, t->q, xb, n_x, 0, 8, sum);
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) {
                __m256 d = half_f16(t->d + 8 * h);
                __m256 base = _mm256_mul_ps(d, _mm256_set1_ps(-AVX2_SUM_ZERO));

#pragma GCC unroll 2
                for (uint32_t i = 0; i < n_x; i++) {
                    __m256 v = _mm256_fmadd_ps(_mm256_castsi256_ps(sum[i][h]), d, base);

                    acc[i][h] = _mm256_fmadd_ps(v, _mm256_set1_ps(xb[i]->d), acc[i][h]);
                }
            }
        }
#pragma GCC unroll 2
        for (uint32_t i = 0; i < n_x; i++)
            avx2_store_tile(a->y + i * a->y_stride + r, a->n_rows - r, acc[i]);
    }
}

/* --- all of them ------------------------------------------------------------------------------ */

void avx2_matmul_q4_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    const struct dot_kind kind = { .bits = 4, .offset = 8 };

    if (a->n_x == 1)
        dot_single(kind, QUANT_Q4_0, a, r0, r1);
    else
        dot_matmul(kind, a, r0, r1);
}

void avx2_matmul_q4_min(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    const struct dot_kind kind = { .bits = 4, .min = true };

    if (a->n_x > 1)
        dot_matmul(kind, a, r0, r1);
    else if (a->type == QUANT_Q4_1)
        dot_single(kind, QUANT_Q4_1, a, r0, r1);
    else
        dot_single(kind, QUANT_Q4_K, a, r0, r1);
}

void avx2_matmul_q5_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    dot_matmul((struct dot_kind){ .bits = 5, .offset = 16 }, a, r0, r1);
}

void avx2_matmul_q5_min(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    dot_matmul((struct dot_kind){ .bits = 5, .min = true }, a, r0, r1);
}

void avx2_matmul_q6_k(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    dot_matmul((struct dot_kind){ .bits = 6, .offset = 32, .two = true }, a, r0, r1);
}

void avx2_matmul_q8_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    if (a->n_x == 1)
        dot_bytes(a, r0, r1, 1);
    else if (a->n_x == 2)
        dot_bytes(a, r0, r1, 2);
    else
        dot_matmul((struct dot_kind){ .bits = 8 }, a, r0, r1);
}
