/* Products of weights that are numbers (f32, f16, bf16) and f32 activations, by AVX-512.
 *
 * A lane is a weight row (engine/tile.h): a column of a tile is one vector, and an element of y one
 * lane of one accumulator, columns in order, one fma each. Some tiles by some activation rows at a
 * time fill the registers: two by eight when there are many activation rows, four by one when there
 * is one and each fma would wait for the last.
 */
#include "engine/kernels_avx512.h"

#define TILES_MAX   4u
#define X_MAX       8u
#define AHEAD_BYTES (4u << 10) /* as in kernels_avx512_q8.c */

/* Columns that a step takes: a pair where they lie in pairs. */
AVX512_INLINE uint32_t step_cols(enum quant type)
{
    return type == QUANT_BF16 ? 2 : 1;
}

AVX512_INLINE size_t step_len(enum quant type)
{
    return type == QUANT_F16 ? 32 : 64;
}

/* Column `col` of a step. */
AVX512_INLINE __m512 load_col(enum quant type, const uint8_t *step, uint32_t col)
{
    __m512i v;

    if (type == QUANT_F32)
        return _mm512_loadu_ps(step);
    if (type == QUANT_F16)
        return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)step));
    v = _mm512_loadu_si512(step);
    v = col ? _mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000)) : _mm512_slli_epi32(v, 16);
    return _mm512_castsi512_ps(v);
}

AVX512_INLINE void dot_col(enum quant type, const uint8_t *const w[], uint32_t n_tiles,
                           const float *const x[], uint32_t n_x, uint32_t c, uint32_t col,
                           __m512 acc[TILES_MAX][X_MAX])
{
    size_t off = c / step_cols(type) * step_len(type);
    __m512 v[TILES_MAX];

#pragma GCC unroll 4
    for (uint32_t k = 0; k < n_tiles; k++)
        v[k] = load_col(type, w[k] + off, col);
#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++) {
        __m512 by = _mm512_set1_ps(x[i][c + col]);

#pragma GCC unroll 4
        for (uint32_t k = 0; k < n_tiles; k++)
            acc[k][i] = _mm512_fmadd_ps(v[k], by, acc[k][i]);
    }
}

/* Tiles from row r on by activation rows from t on; both numbers of a constant. */
AVX512_INLINE void run_tiles(enum quant type, const struct kernels_matmul *a, uint32_t r,
                             uint32_t n_tiles, uint32_t t, uint32_t n_x)
{
    const uint8_t *w[TILES_MAX];
    const float *x[X_MAX];
    __m512 acc[TILES_MAX][X_MAX];
    uint32_t c = 0;

#pragma GCC unroll 4
    for (uint32_t k = 0; k < n_tiles; k++)
        w[k] = (const uint8_t *)a->w + (r / TILE_ROWS + k) * a->tile_len;
#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++)
        x[i] = (const float *)((const uint8_t *)a->x + (t + i) * a->x_row_bytes);
#pragma GCC unroll 4
    for (uint32_t k = 0; k < n_tiles; k++)
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_x; i++)
            acc[k][i] = _mm512_setzero_ps();

    for (; c + step_cols(type) <= a->n_cols; c += step_cols(type)) {
        if (n_x == 1) {
#pragma GCC unroll 4
            for (uint32_t k = 0; k < n_tiles; k++)
                _mm_prefetch(w[k] + c / step_cols(type) * step_len(type) + AHEAD_BYTES,
                             _MM_HINT_T0);
        }
#pragma GCC unroll 2
        for (uint32_t col = 0; col < step_cols(type); col++)
            dot_col(type, w, n_tiles, x, n_x, c, col, acc);
    }
    if (c < a->n_cols) /* the last of an odd number, whose pair is a zero */
        dot_col(type, w, n_tiles, x, n_x, c, 0, acc);
#pragma GCC unroll 4
    for (uint32_t k = 0; k < n_tiles; k++)
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_x; i++)
            _mm512_mask_storeu_ps(a->y + (t + i) * a->y_stride + r + k * TILE_ROWS,
                                  avx512_first(a->n_rows - r - k * TILE_ROWS), acc[k][i]);
}

AVX512_INLINE void run_few(enum quant type, const struct kernels_matmul *a, uint32_t r0,
                           uint32_t r1, uint32_t t)
{
    uint32_t r = r0;

    for (; r + 3 * TILE_ROWS < r1; r += 4 * TILE_ROWS)
        run_tiles(type, a, r, 4, t, 1);
    for (; r < r1; r += TILE_ROWS)
        run_tiles(type, a, r, 1, t, 1);
}

/* Activation rows inside, so that two tiles stay in the cache while all of them pass by. */
AVX512_INLINE void run(enum quant type, const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    uint32_t whole = a->n_x / X_MAX * X_MAX;

    for (uint32_t r = r0; r < r1; r += 2 * TILE_ROWS) {
        bool both = r + TILE_ROWS < r1;
        uint32_t t = 0;

        for (; t < whole; t += X_MAX) {
            if (both)
                run_tiles(type, a, r, 2, t, X_MAX);
            else
                run_tiles(type, a, r, 1, t, X_MAX);
        }
        for (; t + 2 <= a->n_x; t += 2) {
            if (both)
                run_tiles(type, a, r, 2, t, 2);
            else
                run_tiles(type, a, r, 1, t, 2);
        }
    }
    if (a->n_x % 2)
        run_few(type, a, r0, r1, a->n_x - 1);
}

void avx512_matmul_f32(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    run(QUANT_F32, a, r0, r1);
}

void avx512_matmul_f16(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    run(QUANT_F16, a, r0, r1);
}

void avx512_matmul_bf16(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    run(QUANT_BF16, a, r0, r1);
}
