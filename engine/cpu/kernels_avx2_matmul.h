/* engine/cpu/kernels_avx2_matmul.h - products of quantised weights, for the tables that have
 * 256-bit vectors.
 *
 * A chunk of a tile's columns is unpacked (engine/cpu/kernels_avx2_block.h) into some KB of stack,
 * which stay in the first-level cache while all activation rows pass by, four at a time; the
 * accumulators rest in y between chunks. An element of y is one lane of one accumulator, blocks in
 * order, whatever the number of activation rows and wherever the chunks end.
 */
#ifndef ENGINE_CPU_KERNELS_AVX2_MATMUL_H
#define ENGINE_CPU_KERNELS_AVX2_MATMUL_H

#include "engine/cpu/kernels_avx2_dot.h"

#define DOT_BLOCKS     32u /* of a chunk; a multiple of what a super-block has */
#define DOT_FEW        16u /* up to so many activation rows reading is the limit, and ... */
#define DOT_BLOCKS_FEW 8u  /* ... chunks are small: reading goes on at every time */
#define DOT_X_BYTES    (512u << 10) /* activations that are gone over again and again */

/* A chunk of a tile. */
struct dot_chunk {
    const struct avx2_block *w;
    uint32_t b0, n, r; /* blocks b0 to b0 + n of the tile whose first row is r */
};

/* A chunk by activation rows [t, t + n_x). */
AVX2_INLINE void dot_rows(struct dot_kind kind, const struct kernels_matmul *a,
                          const struct dot_chunk *c, uint32_t t, uint32_t n_x)
{
    const struct kernels_q8 *x[DOT_X];
    __m256 acc[DOT_X][2];

#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++) {
        x[i] = (const struct kernels_q8 *)((const uint8_t *)a->x + (t + i) * a->x_row_bytes);
        x[i] += c->b0;
        acc[i][0] = acc[i][1] = _mm256_setzero_ps();
        if (c->b0)
            avx2_load_tile(a->y + (t + i) * a->y_stride + c->r, a->n_rows - c->r, acc[i]);
    }
    for (uint32_t b = 0; b < c->n; b++) {
        dot_block(kind, &c->w[b], x, n_x, acc);
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_x; i++)
            x[i]++;
    }
#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++)
        avx2_store_tile(a->y + (t + i) * a->y_stride + c->r, a->n_rows - c->r, acc[i]);
}

/* The tile whose first row is r, by activation rows [t0, t1). */
AVX2_INLINE void dot_tile(struct dot_kind kind, const struct kernels_matmul *a, uint32_t r,
                          uint32_t t0, uint32_t t1)
{
    const uint8_t *tile = (const uint8_t *)a->w + r / TILE_ROWS * a->tile_len;
    uint32_t step = t1 - t0 <= DOT_FEW ? DOT_BLOCKS_FEW : DOT_BLOCKS;
    uint32_t n_blocks = a->n_cols / 32, t;
    struct avx2_block w[DOT_BLOCKS];
    struct dot_chunk c = { .w = w, .r = r };

    for (c.b0 = 0; c.b0 < n_blocks; c.b0 += step) {
        c.n = n_blocks - c.b0 < step ? n_blocks - c.b0 : step;
        avx2_unpack(a->type, tile, c.b0, c.n, w);
        for (t = t0; t + DOT_X <= t1; t += DOT_X)
            dot_rows(kind, a, &c, t, DOT_X);
        if (t1 - t == 3)
            dot_rows(kind, a, &c, t, 3);
        else if (t1 - t == 2)
            dot_rows(kind, a, &c, t, 2);
        else if (t1 - t == 1)
            dot_rows(kind, a, &c, t, 1);
    }
}

/* Rows of activations are blocked for the second level. */
AVX2_INLINE void dot_matmul(struct dot_kind kind, const struct kernels_matmul *a, uint32_t r0,
                            uint32_t r1)
{
    uint32_t step = (uint32_t)(DOT_X_BYTES / a->x_row_bytes) / DOT_X * DOT_X;

    step = step < 32 ? 32 : step;
    for (uint32_t t = 0; t < a->n_x; t += step) {
        uint32_t end = a->n_x - t < step ? a->n_x : t + step;

        for (uint32_t r = r0; r < r1; r += TILE_ROWS)
            dot_tile(kind, a, r, t, end);
    }
}

#endif
