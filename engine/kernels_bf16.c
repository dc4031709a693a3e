/* Products of bf16 weights and bf16 activations, by AVX512_BF16.
 *
 * As kernels_avx512_float.c, but two columns of 16 rows are one instruction, which adds both products
 * to the accumulator, the second column's first, and takes denormals for zeros. Activations lose all
 * but 8 bits, less than those in int8 lose (1.1e-3 of each on average, against 7e-3).
 */
#include "engine/kernels_bf16.h"

#define TILES_MAX   4u
#define X_MAX       8u
#define AHEAD_BYTES (4u << 10) /* as in kernels_avx512_q8.c */

AVX512_INLINE __m512bh pair_of(const uint16_t *x)
{
    int v;

    __builtin_memcpy(&v, x, sizeof(v));
    return (__m512bh)_mm512_set1_epi32(v);
}

/* Tiles from row r on by activation rows from t on; both numbers of a constant. */
AVX512_INLINE void run_tiles(const struct kernels_matmul *a, uint32_t r, uint32_t n_tiles,
                             uint32_t t, uint32_t n_x)
{
    const uint8_t *w[TILES_MAX];
    const uint16_t *x[X_MAX];
    __m512 acc[TILES_MAX][X_MAX];

#pragma GCC unroll 4
    for (uint32_t k = 0; k < n_tiles; k++)
        w[k] = (const uint8_t *)a->w + (r / TILE_ROWS + k) * a->tile_len;
#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++)
        x[i] = (const uint16_t *)((const uint8_t *)a->x + (t + i) * a->x_row_bytes);
#pragma GCC unroll 4
    for (uint32_t k = 0; k < n_tiles; k++)
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_x; i++)
            acc[k][i] = _mm512_setzero_ps();

    for (uint32_t c = 0; c < a->n_cols; c += 2) {
        __m512bh v[TILES_MAX];

#pragma GCC unroll 4
        for (uint32_t k = 0; k < n_tiles; k++) {
            v[k] = (__m512bh)_mm512_loadu_si512(w[k] + (size_t)c * 32);
            if (n_x == 1)
                _mm_prefetch(w[k] + (size_t)c * 32 + AHEAD_BYTES, _MM_HINT_T0);
        }
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_x; i++) {
            __m512bh by = pair_of(x[i] + c);

#pragma GCC unroll 4
            for (uint32_t k = 0; k < n_tiles; k++)
                acc[k][i] = _mm512_dpbf16_ps(acc[k][i], v[k], by);
        }
    }
#pragma GCC unroll 4
    for (uint32_t k = 0; k < n_tiles; k++)
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_x; i++)
            _mm512_mask_storeu_ps(a->y + (t + i) * a->y_stride + r + k * TILE_ROWS,
                                  avx512_first(a->n_rows - r - k * TILE_ROWS), acc[k][i]);
}

static void run_few(const struct kernels_matmul *a, uint32_t r0, uint32_t r1, uint32_t t)
{
    uint32_t r = r0;

    for (; r + 3 * TILE_ROWS < r1; r += 4 * TILE_ROWS)
        run_tiles(a, r, 4, t, 1);
    for (; r < r1; r += TILE_ROWS)
        run_tiles(a, r, 1, t, 1);
}

void bf16_matmul(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    for (uint32_t r = r0; r < r1; r += 2 * TILE_ROWS) {
        bool both = r + TILE_ROWS < r1;
        uint32_t t = 0;

        for (; t + X_MAX <= a->n_x; t += X_MAX) {
            if (both)
                run_tiles(a, r, 2, t, X_MAX);
            else
                run_tiles(a, r, 1, t, X_MAX);
        }
        for (; t + 2 <= a->n_x; t += 2) {
            if (both)
                run_tiles(a, r, 2, t, 2);
            else
                run_tiles(a, r, 1, t, 2);
        }
    }
    if (a->n_x % 2)
        run_few(a, r0, r1, a->n_x - 1);
}

void bf16_from_f32(const float *x, uint32_t n, uint16_t *ret)
{
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 lanes = avx512_first(n - i);
        __m256bh v = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(lanes, x + i));

        _mm256_mask_storeu_epi16(ret + i, lanes, (__m256i)v);
    }
    if (n % 2)
        ret[n] = 0;
}
