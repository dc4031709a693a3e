/* Products of f32 matrices, and what stands between two of them: exponentials of rows.
 *
 * Six rows by a tile of 16 columns fill the registers: twelve sums, of which each waits for its
 * last fma while the others go on, two vectors of b, and what they are multiplied by. Up to 256
 * terms are summed at a time, so that a tile's part of b (16 KB) stays in the first level while all
 * rows pass by.
 */
#include "engine/cpu/kernels_avx2.h"

#include <math.h>

#define ROWS  6u
#define INNER 256u

/* Rows of the product, of one tile, over n_inner terms. */
struct part {
    const float *a, *b;
    float *c;
    uint32_t n_inner;
    int by;
};

/* n_rows is a constant. */
AVX2_INLINE void run_rows(const struct kernels_dense *p, const struct part *s, uint32_t n_rows)
{
    const float *a[ROWS], *b = s->b;
    size_t a_col = p->a_col, b_row = p->b_row, at = 0;
    __m256 sum[ROWS][2];

#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_rows; i++) {
        a[i] = s->a + i * p->a_row;
        sum[i][0] = sum[i][1] = _mm256_setzero_ps();
    }
    for (uint32_t k = 0; k < s->n_inner; k++, at += a_col, b += b_row) {
        __m256 v0 = _mm256_loadu_ps(b), v1 = _mm256_loadu_ps(b + 8);

#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_rows; i++) {
            __m256 by = _mm256_broadcast_ss(a[i] + at);

            sum[i][0] = _mm256_fmadd_ps(v0, by, sum[i][0]);
            sum[i][1] = _mm256_fmadd_ps(v1, by, sum[i][1]);
        }
    }
#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_rows; i++)
        for (uint32_t h = 0; h < 2; h++) {
            float *c = s->c + i * p->c_row + 8 * (size_t)h;
            __m256 by = _mm256_set1_ps((float)s->by);

            if (s->by)
                sum[i][h] = _mm256_fmadd_ps(by, sum[i][h], _mm256_loadu_ps(c));
            _mm256_storeu_ps(c, sum[i][h]);
        }
}

/* The last rows, fewer than six: each number has a copy of run_rows, in which sums are
 * registers. */
AVX2_ONCE void run_rest(const struct kernels_dense *p, const struct part *s, uint32_t n_rows)
{
    switch (n_rows) {
    case 5:
        run_rows(p, s, 5);
        break;
    case 4:
        run_rows(p, s, 4);
        break;
    case 3:
        run_rows(p, s, 3);
        break;
    case 2:
        run_rows(p, s, 2);
        break;
    case 1:
        run_rows(p, s, 1);
    }
}

AVX2_ONCE void run_tile(const struct kernels_dense *p, struct part s)
{
    uint32_t i = 0;

    for (; i + ROWS <= p->n_rows; i += ROWS) {
        run_rows(p, &s, ROWS);
        s.a += ROWS * p->a_row;
        s.c += ROWS * p->c_row;
    }
    run_rest(p, &s, p->n_rows - i);
}

/* The first 256 terms take the place of what is there, if by is 0, and the next ones are added to
 * that. At least once, so that a sum of no terms is 0. How terms are parted depends on n_inner
 * alone. */
void avx2_dense(const struct kernels_dense *p)
{
    uint32_t k = 0;

    do {
        uint32_t n = p->n_inner - k < INNER ? p->n_inner - k : INNER;

        for (uint32_t t = 0; t < p->n_tiles; t++)
            run_tile(p, (struct part){ .a = p->a + k * p->a_col,
                                       .b = p->b + t * p->b_tile + k * p->b_row,
                                       .c = p->c + t * p->c_tile,
                                       .n_inner = n,
                                       .by = p->by ? p->by : k > 0 });
        k += n;
    } while (k < p->n_inner);
}

/* --- rows ------------------------------------------------------------------------------------- */

/* The largest of x, and whether one is NaN, which a maximum of floats may lose. */
AVX2_INLINE float top_of(const float *x, uint32_t n, bool *ret_bad)
{
    __m256 top[2] = { _mm256_set1_ps(-INFINITY), _mm256_set1_ps(-INFINITY) };
    __m256 bad = _mm256_setzero_ps();
    float most;
    uint32_t i = 0;

    for (; i + 16 <= n; i += 16)
        for (uint32_t h = 0; h < 2; h++) {
            __m256 v = _mm256_loadu_ps(x + i + 8 * (size_t)h);

            top[h] = _mm256_max_ps(v, top[h]);
            bad = _mm256_or_ps(bad, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
        }
    *ret_bad = _mm256_movemask_ps(bad) != 0;
    most = avx2_max(_mm256_max_ps(top[0], top[1]));
    for (; i < n; i++) {
        most = x[i] > most ? x[i] : most;
        *ret_bad |= isnan(x[i]);
    }
    return most;
}

/* Exponentials of a row that has no finite top come out somehow; the sum says that they are
 * nothing. */
float avx2_soften(float *x, uint32_t n, float *ret_sum)
{
    __m256 sum[2] = { _mm256_setzero_ps(), _mm256_setzero_ps() };
    bool bad;
    float top = top_of(x, n, &bad);
    __m256 shift = _mm256_set1_ps(top);
    uint32_t i = 0;

    for (; i + 16 <= n; i += 16)
        for (uint32_t h = 0; h < 2; h++) {
            float *at = x + i + 8 * (size_t)h;
            __m256 e = avx2_exp(_mm256_sub_ps(_mm256_loadu_ps(at), shift));

            _mm256_storeu_ps(at, e);
            sum[h] = _mm256_add_ps(sum[h], e);
        }
    for (; i < n; i += 8) {
        __m256i mask = avx2_first(n - i);
        __m256 e = avx2_exp(_mm256_sub_ps(_mm256_maskload_ps(x + i, mask), shift));

        _mm256_maskstore_ps(x + i, mask, e);
        sum[0] = _mm256_add_ps(sum[0], _mm256_and_ps(e, _mm256_castsi256_ps(mask)));
    }
    *ret_sum = bad || !isfinite(top) ? NAN : avx2_sum(_mm256_add_ps(sum[0], sum[1]));
    return top;
}

void avx2_widen_f16(const uint16_t *x, uint32_t n, float *ret)
{
    uint32_t i = 0;

    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(ret + i, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(x + i))));
    for (; i < n; i++)
        ret[i] = _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(x[i])));
}
