/* Products of weights that are numbers (f32, f16, bf16) and f32 activations.
 *
 * An element of y is one lane of one accumulator: columns in order, an fma each, whatever the number of
 * activation rows and of tiles that are worked on together. An fma waits for the one of the column
 * before, so speed is the number of accumulators: six activation rows by the two vectors of a tile, all
 * that registers have room for, or one activation row by two tiles.
 *
 * For more than one activation row a chunk of a tile's columns becomes f32 on the stack once, where
 * it stays in the first-level cache; the accumulators rest in y between chunks. */
#include "engine/kernels_avx2.h"

#define X_MAX      6u
#define TILES_MAX  2u
#define CHUNK_COLS 256u         /* of a tile: 16 KB; even, for bf16 */
#define X_BYTES    (512u << 10) /* activations that are gone over again and again */

/* Rows 8 * half and on of column c. */
AVX2_INLINE __m256 load_column(enum quant type, const uint8_t *tile, uint32_t c, uint32_t half)
{
    __m256i v;

    if (type == QUANT_F32)
        return _mm256_loadu_ps((const float *)tile + (size_t)c * TILE_ROWS + 8 * half);
    if (type == QUANT_F16)
        return _mm256_cvtph_ps(
            _mm_loadu_si128((const void *)(tile + ((size_t)c * TILE_ROWS + 8 * half) * 2)));
    v = _mm256_loadu_si256((const void *)(tile + ((size_t)(c / 2) * TILE_ROWS + 8 * half) * 4));
    v = c % 2 ? _mm256_and_si256(v, _mm256_set1_epi32((int)0xffff0000)) : _mm256_slli_epi32(v, 16);
    return _mm256_castsi256_ps(v);
}

/* Columns of n_tiles tiles by n_x activation rows, one of the two being 1: acc[i] belongs to the i-th
 * of the other. */
AVX2_INLINE void add_column(enum quant type, const uint8_t *const *tile, uint32_t n_tiles,
                            const float *const *x, uint32_t n_x, uint32_t c, __m256 acc[][2])
{
#pragma GCC unroll 8
    for (uint32_t j = 0; j < n_tiles; j++) {
        __m256 w[2] = { load_column(type, tile[j], c, 0), load_column(type, tile[j], c, 1) };

#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_x; i++) {
            __m256 v = _mm256_broadcast_ss(x[i] + c);

            acc[i + j][0] = _mm256_fmadd_ps(w[0], v, acc[i + j][0]);
            acc[i + j][1] = _mm256_fmadd_ps(w[1], v, acc[i + j][1]);
        }
    }
}

AVX2_INLINE void add_columns(enum quant type, const uint8_t *const *tile, uint32_t n_tiles,
                             const float *const *x, uint32_t n_x, uint32_t n_cols, __m256 acc[][2])
{
    uint32_t c = 0;

    for (; c + 2 <= n_cols; c += 2) { /* in twos: whether one is odd is a constant */
        add_column(type, tile, n_tiles, x, n_x, c, acc);
        add_column(type, tile, n_tiles, x, n_x, c + 1, acc);
    }
    if (c < n_cols)
        add_column(type, tile, n_tiles, x, n_x, c, acc);
}

AVX2_INLINE const float *x_row(const struct kernels_matmul *a, uint32_t t)
{
    return (const float *)((const uint8_t *)a->x + t * a->x_row_bytes);
}

/* --- one activation row -------------------------------------------------------------------------- */

AVX2_INLINE void run_tiles(enum quant type, const struct kernels_matmul *a, uint32_t r,
                           uint32_t n_tiles)
{
    const uint8_t *tile[TILES_MAX];
    const float *x = a->x;
    __m256 acc[TILES_MAX][2];

#pragma GCC unroll 8
    for (uint32_t j = 0; j < n_tiles; j++) {
        tile[j] = (const uint8_t *)a->w + (r / TILE_ROWS + j) * a->tile_len;
        acc[j][0] = acc[j][1] = _mm256_setzero_ps();
    }
    add_columns(type, tile, n_tiles, &x, 1, a->n_cols, acc);
#pragma GCC unroll 8
    for (uint32_t j = 0; j < n_tiles; j++)
        avx2_store_tile(a->y + r + TILE_ROWS * j, a->n_rows - r - TILE_ROWS * j, acc[j]);
}

AVX2_INLINE void run_one(enum quant type, const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    uint32_t r = r0;

    for (; r + TILE_ROWS < r1; r += TILES_MAX * TILE_ROWS)
        run_tiles(type, a, r, TILES_MAX);
    if (r < r1)
        run_tiles(type, a, r, 1);
}

/* --- more ---------------------------------------------------------------------------------------- */

/* Columns [c0, c0 + n) of the tile whose first row is r, as f32. */
struct chunk {
    const uint8_t *w;
    uint32_t c0, n, r;
};

AVX2_INLINE void run_rows(const struct kernels_matmul *a, const struct chunk *c, uint32_t t,
                          uint32_t n_x)
{
    const float *x[X_MAX];
    __m256 acc[X_MAX][2];

#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++) {
        x[i] = x_row(a, t + i) + c->c0;
        acc[i][0] = acc[i][1] = _mm256_setzero_ps();
        if (c->c0)
            avx2_load_tile(a->y + (t + i) * a->y_stride + c->r, a->n_rows - c->r, acc[i]);
    }
    add_columns(QUANT_F32, &c->w, 1, x, n_x, c->n, acc);
#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++)
        avx2_store_tile(a->y + (t + i) * a->y_stride + c->r, a->n_rows - c->r, acc[i]);
}

AVX2_ONCE void run_chunk(const struct kernels_matmul *a, const struct chunk *c, uint32_t t,
                         uint32_t t1)
{
    for (; t + X_MAX <= t1; t += X_MAX)
        run_rows(a, c, t, X_MAX);
    switch (t1 - t) {
    case 5:
        run_rows(a, c, t, 5);
        break;
    case 4:
        run_rows(a, c, t, 4);
        break;
    case 3:
        run_rows(a, c, t, 3);
        break;
    case 2:
        run_rows(a, c, t, 2);
        break;
    case 1:
        run_rows(a, c, t, 1);
    }
}

AVX2_INLINE void unpack(enum quant type, const uint8_t *tile, uint32_t c0, uint32_t n, __m256 *ret)
{
#pragma GCC unroll 2
    for (uint32_t c = 0; c < n; c++) {
        ret[2 * c] = load_column(type, tile, c0 + c, 0);
        ret[2 * c + 1] = load_column(type, tile, c0 + c, 1);
    }
}

AVX2_INLINE void run_tile(enum quant type, const struct kernels_matmul *a, uint32_t r, uint32_t t0,
                          uint32_t t1)
{
    const uint8_t *tile = (const uint8_t *)a->w + r / TILE_ROWS * a->tile_len;
    __m256 w[CHUNK_COLS * 2];
    struct chunk c = { .w = (const uint8_t *)w, .r = r };

    for (c.c0 = 0; c.c0 < a->n_cols; c.c0 += CHUNK_COLS) {
        c.n = a->n_cols - c.c0 < CHUNK_COLS ? a->n_cols - c.c0 : CHUNK_COLS;
        if (type == QUANT_F32)
            c.w = tile + (size_t)c.c0 * TILE_ROWS * sizeof(float);
        else
            unpack(type, tile, c.c0, c.n, w);
        run_chunk(a, &c, t0, t1);
    }
}

AVX2_INLINE void run(enum quant type, const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    uint32_t step = (uint32_t)(X_BYTES / a->x_row_bytes) / X_MAX * X_MAX;

    if (a->n_x == 1) {
        run_one(type, a, r0, r1);
        return;
    }
    step = step < 5 * X_MAX ? 5 * X_MAX : step;
    for (uint32_t t = 0; t < a->n_x; t += step) {
        uint32_t end = a->n_x - t < step ? a->n_x : t + step;

        for (uint32_t r = r0; r < r1; r += TILE_ROWS)
            run_tile(type, a, r, t, end);
    }
}

void avx2_matmul_f32(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    run(QUANT_F32, a, r0, r1);
}

void avx2_matmul_f16(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    run(QUANT_F16, a, r0, r1);
}

void avx2_matmul_bf16(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    run(QUANT_BF16, a, r0, r1);
}
