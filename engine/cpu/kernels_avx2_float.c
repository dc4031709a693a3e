/* Products of weights that are numbers (f32, f16, bf16) and f32 activations.
 *
 * An element of y is one lane of one accumulator: columns in order, an fma each, whatever the
 * number of activation rows. An fma waits for the one of the column before, so speed is the number
 * of accumulators: six activation rows by the two vectors of a tile are all that registers have
 * room for. (One row has two only, which is still faster than memory; two tiles at a time are no
 * better.)
 *
 * Up to six activation rows take a tile as it comes. For more, a chunk of its columns becomes f32
 * on the stack once, where it stays in the first-level cache while all rows pass by; the
 * accumulators rest in y between chunks.
 */
#include "engine/cpu/kernels_avx2.h"

#define X_MAX          6u
#define CHUNK_COLS     256u /* of a tile: 16 KB; even, for bf16 */
#define FEW            24u  /* up to so many activation rows reading is the limit, and ... */
#define CHUNK_COLS_FEW 64u  /* ... chunks are small: reading goes on at every time */
#define X_BYTES        (512u << 10) /* activations that are gone over again and again */

/* Columns [c0, c0 + n) of the tile whose first row is r. */
struct chunk {
    const uint8_t *w;
    uint32_t c0, n, r;
};

/* A column of a tile is 16 rows, one behind the other. */
AVX2_INLINE size_t column_bytes(enum quant type)
{
    return TILE_ROWS * (type == QUANT_F32 ? 4 : 2);
}

/* Rows 8 * half and on of column c. bf16 lie in pairs of columns, 32 bits a row: the first is the
 * lower half, which a shift makes f32, the second the upper one, which a mask does. */
AVX2_INLINE __m256 load_column(enum quant type, const uint8_t *w, uint32_t c, uint32_t half)
{
    const uint8_t *pair;
    __m256i v;

    if (type == QUANT_F32)
        return _mm256_loadu_ps((const float *)(w + c * column_bytes(type) + 32 * half));
    if (type == QUANT_F16)
        return _mm256_cvtph_ps(
            _mm_loadu_si128((const void *)(w + c * column_bytes(type) + 16 * half)));
    pair = w + c / 2 * 2 * column_bytes(type);
    v = _mm256_loadu_si256((const void *)(pair + 32 * half));
    v = c % 2 ? _mm256_and_si256(v, _mm256_set1_epi32((int)0xffff0000)) : _mm256_slli_epi32(v, 16);
    return _mm256_castsi256_ps(v);
}

AVX2_INLINE void add_column(enum quant type, const uint8_t *w, uint32_t c, const float *const *x,
                            uint32_t n_x, __m256 acc[X_MAX][2])
{
    __m256 v[2] = { load_column(type, w, c, 0), load_column(type, w, c, 1) };

#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++) {
        __m256 by = _mm256_broadcast_ss(x[i] + c);

        acc[i][0] = _mm256_fmadd_ps(v[0], by, acc[i][0]);
        acc[i][1] = _mm256_fmadd_ps(v[1], by, acc[i][1]);
    }
}

/* A chunk by activation rows [t, t + n_x). ahead: it comes from memory. */
AVX2_INLINE void run_rows(enum quant type, const struct kernels_matmul *a, const struct chunk *k,
                          bool ahead, uint32_t t, uint32_t n_x)
{
    const float *x[X_MAX];
    __m256 acc[X_MAX][2];
    uint32_t c = 0;

#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++) {
        x[i] = (const float *)((const uint8_t *)a->x + (t + i) * a->x_row_bytes) + k->c0;
        acc[i][0] = acc[i][1] = _mm256_setzero_ps();
        if (k->c0)
            avx2_load_tile(a->y + (t + i) * a->y_stride + k->r, a->n_rows - k->r, acc[i]);
    }
    for (; c + 2 <= k->n; c += 2) { /* in twos: whether one is odd is a constant */
        if (ahead)
            avx2_call_ahead(k->w + c * column_bytes(type), 2 * column_bytes(type));
        add_column(type, k->w, c, x, n_x, acc);
        add_column(type, k->w, c + 1, x, n_x, acc);
    }
    if (c < k->n)
        add_column(type, k->w, c, x, n_x, acc);
#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++)
        avx2_store_tile(a->y + (t + i) * a->y_stride + k->r, a->n_rows - k->r, acc[i]);
}

/* The last rows, fewer than X_MAX. */
AVX2_INLINE void run_rest(enum quant type, const struct kernels_matmul *a, const struct chunk *k,
                          bool ahead, uint32_t t, uint32_t n_x)
{
    switch (n_x) {
    case 5:
        run_rows(type, a, k, ahead, t, 5);
        break;
    case 4:
        run_rows(type, a, k, ahead, t, 4);
        break;
    case 3:
        run_rows(type, a, k, ahead, t, 3);
        break;
    case 2:
        run_rows(type, a, k, ahead, t, 2);
        break;
    case 1:
        run_rows(type, a, k, ahead, t, 1);
    }
}

AVX2_INLINE void run_tile_few(enum quant type, const struct kernels_matmul *a, const uint8_t *tile,
                              uint32_t r)
{
    struct chunk k = { .w = tile, .n = a->n_cols, .r = r };

    if (a->n_x == X_MAX)
        run_rows(type, a, &k, true, 0, X_MAX);
    else
        run_rest(type, a, &k, true, 0, a->n_x);
}

/* One copy for all types: what is on the stack is f32. */
AVX2_ONCE void run_chunk(const struct kernels_matmul *a, const struct chunk *k, uint32_t t,
                         uint32_t t1)
{
    for (; t + X_MAX <= t1; t += X_MAX)
        run_rows(QUANT_F32, a, k, false, t, X_MAX);
    run_rest(QUANT_F32, a, k, false, t, t1 - t);
}

AVX2_INLINE void unpack(enum quant type, const uint8_t *w, uint32_t n, __m256 (*ret)[2])
{
#pragma GCC unroll 2
    for (uint32_t c = 0; c < n; c++) {
        if (c % 2 == 0)
            avx2_call_ahead(w + c * column_bytes(type), 2 * column_bytes(type));
        ret[c][0] = load_column(type, w, c, 0);
        ret[c][1] = load_column(type, w, c, 1);
    }
}

/* By activation rows [t0, t1). */
AVX2_INLINE void run_tile(enum quant type, const struct kernels_matmul *a, const uint8_t *tile,
                          uint32_t r, uint32_t t0, uint32_t t1)
{
    uint32_t step = a->n_x <= FEW ? CHUNK_COLS_FEW : CHUNK_COLS;
    __m256 w[CHUNK_COLS][2];
    struct chunk k = { .w = (const uint8_t *)w, .r = r };

    for (k.c0 = 0; k.c0 < a->n_cols; k.c0 += step) {
        k.n = a->n_cols - k.c0 < step ? a->n_cols - k.c0 : step;
        unpack(type, tile + k.c0 * column_bytes(type), k.n, w);
        run_chunk(a, &k, t0, t1);
    }
}

/* Activation rows are blocked for the second level: a block of them passes by all tiles of the
 * range before the next one comes. At least 30 of them, or weights would be unpacked too often. */
AVX2_INLINE void run(enum quant type, const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    const uint8_t *w = a->w;
    uint32_t step = (uint32_t)(X_BYTES / a->x_row_bytes) / X_MAX * X_MAX;

    if (a->n_x <= X_MAX) {
        for (uint32_t r = r0; r < r1; r += TILE_ROWS)
            run_tile_few(type, a, w + r / TILE_ROWS * a->tile_len, r);
        return;
    }
    step = step < 5 * X_MAX ? 5 * X_MAX : step;
    for (uint32_t t = 0; t < a->n_x; t += step) {
        uint32_t end = a->n_x - t < step ? a->n_x : t + step;

        for (uint32_t r = r0; r < r1; r += TILE_ROWS)
            run_tile(type, a, w + r / TILE_ROWS * a->tile_len, r, t, end);
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
