/* Products of f32 matrices, and what stands between two of them: exponentials of rows.
 *
 * Twelve rows by two tiles, or by the last one, are as many sums as registers have room for; up to
 * 256 terms are summed at a time, so that the tiles' part of b (32 KB) stays near.
 */
#include "engine/cpu/kernels_avx512.h"

#include <math.h>

#define ROWS  12u
#define TILES 2u
#define INNER 256u

/* Rows of the product, of one or two tiles, over n_inner terms. */
struct part {
    const float *a, *b;
    float *c;
    uint32_t n_inner;
    int by;
};

/* n_rows and n_tiles are constants. */
AVX512_INLINE void run_rows(const struct kernels_dense *p, const struct part *s, uint32_t n_rows,
                            uint32_t n_tiles)
{
    const float *b = s->b, *a = s->a;
    size_t a_row = p->a_row;
    __m512 sum[ROWS][TILES], v[TILES];

#pragma GCC unroll 12
    for (uint32_t i = 0; i < n_rows; i++)
#pragma GCC unroll 2
        for (uint32_t t = 0; t < n_tiles; t++)
            sum[i][t] = _mm512_setzero_ps();
    for (uint32_t k = 0; k < s->n_inner; k++, a += p->a_col, b += p->b_row) {
#pragma GCC unroll 2
        for (uint32_t t = 0; t < n_tiles; t++)
            v[t] = _mm512_loadu_ps(b + t * p->b_tile);
#pragma GCC unroll 12
        for (uint32_t i = 0; i < n_rows; i++) {
            __m512 by = _mm512_set1_ps(a[i * a_row]);

#pragma GCC unroll 2
            for (uint32_t t = 0; t < n_tiles; t++)
                sum[i][t] = _mm512_fmadd_ps(v[t], by, sum[i][t]);
        }
    }
#pragma GCC unroll 12
    for (uint32_t i = 0; i < n_rows; i++)
#pragma GCC unroll 2
        for (uint32_t t = 0; t < n_tiles; t++) {
            float *c = s->c + i * p->c_row + t * p->c_tile;
            __m512 by = _mm512_set1_ps((float)s->by);

            if (s->by)
                sum[i][t] = _mm512_fmadd_ps(by, sum[i][t], _mm512_loadu_ps(c));
            _mm512_storeu_ps(c, sum[i][t]);
        }
}

/* As many rows at once as there are, from 12 down: each number has a copy of run_rows, in which
 * sums are registers. */
AVX512_INLINE void run_tiles(const struct kernels_dense *p, struct part s, uint32_t n_tiles)
{
    static const uint32_t rows[] = { ROWS, 4, 2, 1 };
    uint32_t left = p->n_rows;

#pragma GCC unroll 4
    for (uint32_t i = 0; i < 4; i++)
        for (; left >= rows[i]; left -= rows[i]) {
            switch (i) {
            case 0:
                run_rows(p, &s, ROWS, n_tiles);
                break;
            case 1:
                run_rows(p, &s, 4, n_tiles);
                break;
            case 2:
                run_rows(p, &s, 2, n_tiles);
                break;
            default:
                run_rows(p, &s, 1, n_tiles);
            }
            s.a += rows[i] * p->a_row;
            s.c += rows[i] * p->c_row;
        }
}

/* A copy each, outside of the loop over tiles, which would be inlined into both. */
AVX512_ONCE void run_two(const struct kernels_dense *p, const struct part *s)
{
    run_tiles(p, *s, 2);
}

AVX512_ONCE void run_one(const struct kernels_dense *p, const struct part *s)
{
    run_tiles(p, *s, 1);
}

/* As avx2_dense, by two tiles. */
void avx512_dense(const struct kernels_dense *p)
{
    uint32_t k = 0;

    do {
        uint32_t n = p->n_inner - k < INNER ? p->n_inner - k : INNER;

        for (uint32_t t = 0; t < p->n_tiles; t += TILES) {
            struct part s = { .a = p->a + k * p->a_col,
                              .b = p->b + t * p->b_tile + k * p->b_row,
                              .c = p->c + t * p->c_tile,
                              .n_inner = n,
                              .by = p->by ? p->by : k > 0 };

            if (t + TILES <= p->n_tiles)
                run_two(p, &s);
            else
                run_one(p, &s);
        }
        k += n;
    } while (k < p->n_inner);
}

/* --- rows ------------------------------------------------------------------------------------- */

/* The largest of x, and whether one is NaN, which a maximum of floats may lose. */
AVX512_INLINE float top_of(const float *x, uint32_t n, bool *ret_bad)
{
    __m512 none = _mm512_set1_ps(-INFINITY), top = none;
    __mmask16 bad = 0;

    for (uint32_t i = 0; i < n; i += 16) {
        __m512 v = _mm512_mask_loadu_ps(none, avx512_first(n - i), x + i);

        top = _mm512_max_ps(v, top);
        bad |= _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    }
    *ret_bad = bad != 0;
    return avx512_max(top);
}

float avx512_soften(float *x, uint32_t n, float *ret_sum)
{
    bool bad;
    float top = top_of(x, n, &bad);
    __m512 shift = _mm512_set1_ps(top), sum = _mm512_setzero_ps();

    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 mask = avx512_first(n - i);
        __m512 e = avx512_exp(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), shift));

        _mm512_mask_storeu_ps(x + i, mask, e);
        sum = _mm512_mask_add_ps(sum, mask, sum, e);
    }
    *ret_sum = bad || !isfinite(top) ? NAN : avx512_sum(sum);
    return top;
}

void avx512_widen_f16(const uint16_t *x, uint32_t n, float *ret)
{
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 mask = avx512_first(n - i);

        _mm512_mask_storeu_ps(ret + i, mask,
                              _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, x + i)));
    }
}
