/* Products of weights that are numbers (f32, f16, bf16) and f32 activations.
 *
 * An element of y is one vector of eight partial sums, columns in order, added up at the end: the same
 * whatever tile of rows and activation rows it was computed in. Tiles fill the registers: four weight
 * rows by three activation rows, or eight weight rows by one. */
#include "engine/kernels_avx2.h"

#include <string.h>

#define ROWS_MAX    8u
#define X_MAX       3u
#define AHEAD_BYTES (20u << 10) /* as in kernels_avx2_q8.c */

AVX2_INLINE size_t weight_bytes(enum quant type)
{
    return type == QUANT_F32 ? 4 : 2;
}

/* Eight weights from column c on. */
AVX2_INLINE __m256 load_weights(enum quant type, const uint8_t *w, size_t c)
{
    const uint8_t *p = w + c * weight_bytes(type);
    __m256i v;

    if (type == QUANT_F32)
        return _mm256_loadu_ps((const float *)p);
    if (type == QUANT_F16)
        return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p));
    v = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
}

/* The last n < 8 weights of a row, then zeros: nothing past the row is read. */
AVX2_INLINE __m256 load_weights_tail(enum quant type, const uint8_t *w, size_t c, uint32_t n)
{
    uint8_t padded[32] = { 0 };

    memcpy(padded, w + c * weight_bytes(type), n * weight_bytes(type));
    return load_weights(type, padded, 0);
}

AVX2_INLINE const float *x_row(const struct kernels_matmul *a, uint32_t t)
{
    return (const float *)((const uint8_t *)a->x + t * a->x_row_bytes);
}

AVX2_INLINE void run_tile(enum quant type, const struct kernels_matmul *a, uint32_t r,
                          uint32_t n_rows, uint32_t t, uint32_t n_x)
{
    const uint8_t *w = (const uint8_t *)a->w + r * a->w_row_bytes;
    size_t tile_bytes = n_rows * a->w_row_bytes;
    const uint8_t *next = w + (1 + AHEAD_BYTES / tile_bytes) * tile_bytes;
    uint32_t whole = a->n_cols / 8 * 8, rest = a->n_cols - whole;
    __m256i mask = avx2_first(rest);
    __m256 acc[ROWS_MAX][X_MAX], sum[ROWS_MAX][X_MAX];
    const float *x[X_MAX];

#pragma GCC unroll 8
    for (uint32_t j = 0; j < n_x; j++)
        x[j] = x_row(a, t + j);
#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_rows; i++)
#pragma GCC unroll 8
        for (uint32_t j = 0; j < n_x; j++)
            acc[i][j] = _mm256_setzero_ps();

    for (uint32_t c = 0; c < whole; c += 8) {
        /* One activation row: memory is the limit, and rows this short are over before the caches
         * guess what comes. (For long ones their guesses are better than this.) */
        if (n_rows == ROWS_MAX && tile_bytes <= AHEAD_BYTES) {
            for (size_t i = 0; i < n_rows * 8 * weight_bytes(type); i += 64)
                _mm_prefetch(next + c * n_rows * weight_bytes(type) + i, _MM_HINT_T0);
        }
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_rows; i++) {
            __m256 v = load_weights(type, w + i * a->w_row_bytes, c);

#pragma GCC unroll 8
            for (uint32_t j = 0; j < n_x; j++)
                acc[i][j] = _mm256_fmadd_ps(v, _mm256_loadu_ps(x[j] + c), acc[i][j]);
        }
    }
    /* Into an array of its own: what follows is not unrolled, and would keep acc in memory. */
#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_rows; i++)
#pragma GCC unroll 8
        for (uint32_t j = 0; j < n_x; j++)
            sum[i][j] = acc[i][j];
    for (uint32_t i = 0; i < n_rows; i++) {
        __m256 v = load_weights_tail(type, w + i * a->w_row_bytes, whole, rest);

        for (uint32_t j = 0; j < n_x; j++) {
            __m256 last = _mm256_maskload_ps(x_row(a, t + j) + whole, mask);

            sum[i][j] = rest ? _mm256_fmadd_ps(v, last, sum[i][j]) : sum[i][j];
            a->y[(t + j) * a->y_stride + r + i] = avx2_sum(sum[i][j]);
        }
    }
}

/* Activation rows inside, so that a few weight rows stay in the first-level cache. */
AVX2_INLINE void run(enum quant type, const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    uint32_t r = r0, t;

    for (; r + 8 <= r1; r += 8) {
        for (t = 0; t + X_MAX <= a->n_x; t += X_MAX) {
            for (uint32_t half = 0; half < 8; half += 4)
                run_tile(type, a, r + half, 4, t, X_MAX);
        }
        for (; t < a->n_x; t++)
            run_tile(type, a, r, 8, t, 1);
    }
    for (; r < r1; r++) {
        for (t = 0; t < a->n_x; t++)
            run_tile(type, a, r, 1, t, 1);
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
