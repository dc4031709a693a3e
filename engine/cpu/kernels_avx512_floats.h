/* engine/cpu/kernels_avx512_floats.h - products of weights that are numbers (f32, f16, bf16).
 *
 * Included by kernels_avx512_float.c, whose activations are f32, and by kernels_bf16.c, whose are
 * bf16.
 *
 * A lane is a weight row (engine/file/tile.h), and an element of y one lane of one accumulator,
 * columns in order, one fma each; or two columns an instruction where both sides are bf16, the
 * second column's product first, denormals taken for zeros. Some tiles by some activation rows at a
 * time fill the registers and leave no instruction waiting for the last: two by eight or four, four
 * by two or one.
 */
#ifndef ENGINE_CPU_KERNELS_AVX512_FLOATS_H
#define ENGINE_CPU_KERNELS_AVX512_FLOATS_H

#include "engine/cpu/kernels_avx512.h"

#define FLOATS_TILES 4u
#define FLOATS_X     8u

/* A weight type and what it is multiplied by; always a constant. */
struct floats_kind {
    enum quant type;
    bool by_bf16;
};

/* Columns that a step takes: a pair where they lie in pairs, or are multiplied in pairs. */
AVX512_INLINE uint32_t floats_step(struct floats_kind kind)
{
    return kind.type == QUANT_BF16 || kind.by_bf16 ? 2 : 1;
}

AVX512_INLINE size_t floats_col_len(struct floats_kind kind)
{
    return kind.type == QUANT_F32 ? 64 : 32;
}

/* Column c of a tile, of which `pair` points at column c / 2 * 2 if it is bf16. */
AVX512_INLINE __m512 floats_load_col(struct floats_kind kind, const uint8_t *pair, uint32_t col)
{
    __m512i v;

    if (kind.type == QUANT_F32)
        return _mm512_loadu_ps(pair + (size_t)col * 64);
    if (kind.type == QUANT_F16)
        return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(pair + (size_t)col * 32)));
    v = _mm512_loadu_si512(pair);
    v = col ? _mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000)) : _mm512_slli_epi32(v, 16);
    return _mm512_castsi512_ps(v);
}

#ifdef __AVX512BF16__

/* Two columns side by side in bf16; alone: the second is none. */
AVX512_INLINE __m512bh floats_load_pair(struct floats_kind kind, const uint8_t *pair, bool alone)
{
    __m512i v;

    if (kind.type == QUANT_BF16) {
        v = _mm512_loadu_si512(pair);
    } else {
        __m512 high = alone ? _mm512_setzero_ps() : floats_load_col(kind, pair, 1);
        __m256i low16 = (__m256i)_mm512_cvtneps_pbh(floats_load_col(kind, pair, 0));
        __m256i high16 = (__m256i)_mm512_cvtneps_pbh(high);

        v = _mm512_slli_epi32(_mm512_cvtepu16_epi32(high16), 16);
        v = _mm512_or_si512(v, _mm512_cvtepu16_epi32(low16));
    }
    return (__m512bh)v;
}

#endif

/* Some rows of activations by some tiles' columns [c0, c0 + n); the numbers of tiles and rows are
 * constants. w: column c0 of each tile. */
struct floats_block {
    const uint8_t *w[FLOATS_TILES];
    uint32_t r, t; /* the first row of weights and of activations */
    uint32_t c0, n;
};

/* A step's columns from c on, counted from c0; alone: only the first of two. */
AVX512_INLINE void floats_dot(struct floats_kind kind, const struct floats_block *b,
                              uint32_t n_tiles, const uint8_t *const x[], uint32_t n_x, uint32_t c,
                              bool alone, __m512 acc[FLOATS_TILES][FLOATS_X])
{
    const size_t off = c * floats_col_len(kind);

    if (kind.by_bf16) {
#ifdef __AVX512BF16__
        __m512bh v[FLOATS_TILES];

#pragma GCC unroll 4
        for (uint32_t k = 0; k < n_tiles; k++)
            v[k] = floats_load_pair(kind, b->w[k] + off, alone);
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_x; i++) {
            int two;

            __builtin_memcpy(&two, x[i] + 2 * (size_t)c, sizeof(two));
#pragma GCC unroll 4
            for (uint32_t k = 0; k < n_tiles; k++)
                acc[k][i] = _mm512_dpbf16_ps(acc[k][i], v[k], (__m512bh)_mm512_set1_epi32(two));
        }
#endif
        return;
    }
    for (uint32_t col = 0; col < (alone ? 1 : floats_step(kind)); col++) {
        __m512 v[FLOATS_TILES];

#pragma GCC unroll 4
        for (uint32_t k = 0; k < n_tiles; k++)
            v[k] = floats_load_col(kind, b->w[k] + off, col);
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_x; i++) {
            __m512 by = _mm512_set1_ps(((const float *)x[i])[c + col]);

#pragma GCC unroll 4
            for (uint32_t k = 0; k < n_tiles; k++)
                acc[k][i] = _mm512_fmadd_ps(v[k], by, acc[k][i]);
        }
    }
}

/* ahead: the tiles come from memory. */
AVX512_INLINE void floats_run_block(struct floats_kind kind, const struct kernels_matmul *a,
                                    const struct floats_block *b, bool ahead, uint32_t n_tiles,
                                    uint32_t n_x)
{
    const uint32_t step = floats_step(kind);
    const size_t x_len = kind.by_bf16 ? 2 : 4;
    const uint8_t *x[FLOATS_X];
    __m512 acc[FLOATS_TILES][FLOATS_X];
    float *y = a->y + b->t * a->y_stride + b->r;
    uint32_t c = 0;

#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++) {
        x[i] = (const uint8_t *)a->x + (b->t + i) * a->x_row_bytes + b->c0 * x_len;
#pragma GCC unroll 4
        for (uint32_t k = 0; k < n_tiles; k++)
            acc[k][i] = b->c0
                            ? _mm512_maskz_loadu_ps(avx512_first(a->n_rows - b->r - k * TILE_ROWS),
                                                    y + i * a->y_stride + k * TILE_ROWS)
                            : _mm512_setzero_ps();
    }
    for (; c + step <= b->n; c += step) {
        for (uint32_t k = 0; k < (ahead ? n_tiles : 0); k++)
            avx512_call_ahead(a, n_x, b->w[k] + c * floats_col_len(kind),
                              step * floats_col_len(kind));
        floats_dot(kind, b, n_tiles, x, n_x, c, false, acc);
    }
    if (c < b->n)
        floats_dot(kind, b, n_tiles, x, n_x, c, true, acc);
#pragma GCC unroll 4
    for (uint32_t k = 0; k < n_tiles; k++)
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_x; i++)
            _mm512_mask_storeu_ps(y + i * a->y_stride + k * TILE_ROWS,
                                  avx512_first(a->n_rows - b->r - k * TILE_ROWS), acc[k][i]);
}

/* All activation rows by the block's tiles, n_tiles of a constant: those that there are, up to
 * four. */
AVX512_INLINE void floats_run_rows(struct floats_kind kind, const struct kernels_matmul *a,
                                   struct floats_block *b, bool ahead, uint32_t n_tiles)
{
    uint32_t n_x = a->n_x, half = n_tiles > 2 ? 2 : n_tiles;
    struct floats_block two = *b;

    for (uint32_t k = 0; k < n_tiles; k += half, two.r += half * TILE_ROWS) {
        for (uint32_t j = 0; j < half; j++)
            two.w[j] = b->w[k + j];
        for (two.t = 0; two.t + FLOATS_X <= n_x; two.t += FLOATS_X)
            floats_run_block(kind, a, &two, ahead && two.t == 0, half, FLOATS_X);
        if (n_x & 4)
            floats_run_block(kind, a, &two, ahead && two.t == 0, half, 4);
    }
    b->t = n_x & ~3u;
    if (n_x & 2)
        floats_run_block(kind, a, b, ahead && b->t == 0, n_tiles, 2);
    b->t = n_x & ~1u;
    if (n_x & 1)
        floats_run_block(kind, a, b, ahead && b->t == 0, n_tiles, 1);
}

/* Rows [r0, r1) of the product, weights as they lie. */
AVX512_INLINE void floats_run(struct floats_kind kind, const struct kernels_matmul *a, uint32_t r0,
                              uint32_t r1)
{
    struct floats_block b = { .n = a->n_cols };

    for (b.r = r0; b.r < r1;) {
        bool four = b.r + 3 * TILE_ROWS < r1;

        for (uint32_t k = 0; k < (four ? 4 : 1); k++)
            b.w[k] = (const uint8_t *)a->w + (b.r / TILE_ROWS + k) * a->tile_len;
        if (four)
            floats_run_rows(kind, a, &b, true, 4);
        else
            floats_run_rows(kind, a, &b, true, 1);
        b.r += (four ? 4 : 1) * TILE_ROWS;
    }
}

#endif
