/* engine/kernels_avx2_dot.h - products of quantised weights, for the tables that have 256-bit vectors.
 *
 * Included by one file a table, whose flags say which instruction multiplies: AVX-VNNI adds four
 * products to 32 bits, AVX2 alone pairs of them to 16, which are widened before they could saturate.
 *
 * A chunk of a tile's columns is unpacked (engine/kernels_avx2_block.h) into some KB of stack, which
 * stay in the first-level cache while all activation rows pass by, four at a time; the accumulators
 * rest in y between chunks. An element of y is one lane of one accumulator, blocks in order, whatever
 * the number of activation rows and wherever the chunks end.
 */
#ifndef ENGINE_KERNELS_AVX2_DOT_H
#define ENGINE_KERNELS_AVX2_DOT_H

#include "engine/kernels_avx2_block.h"

#define DOT_BLOCKS     32u /* of a chunk; a multiple of what a super-block has */
#define DOT_FEW        16u /* up to so many activation rows reading is the limit, and ... */
#define DOT_BLOCKS_FEW 8u  /* ... chunks are small: reading goes on at every time */
#define DOT_X          4u
#define DOT_X_BYTES    (512u << 10) /* activations that are gone over again and again */

/* What the values of a format are; always a constant. */
struct dot_kind {
    uint32_t bits;
    int16_t offset; /* bytes are so much above the values */
    bool min;
    bool two; /* a scale for each 16 columns */
};

AVX2_INLINE int dot_load_u32(const void *p)
{
    int v;

    __builtin_memcpy(&v, p, sizeof(v));
    return v;
}

/* Where the sum of products of a block (or of its half `part`) starts. */
AVX2_INLINE __m256i dot_start(struct dot_kind kind, const struct kernels_q8 *x, int part)
{
    const __m256i zero = _mm256_castps_si256(_mm256_set1_ps(AVX2_SUM_ZERO));
    uint32_t by = (uint16_t)-kind.offset;
    __m256i sums;

    if (kind.offset == 0)
        return zero;
    by = !kind.two ? by << 16 | by : part ? by << 16 : by;
    sums = _mm256_set1_epi32(dot_load_u32(x->sum));
#ifdef __AVXVNNI__
    return _mm256_dpwssd_avx_epi32(zero, sums, _mm256_set1_epi32((int)by));
#else
    return _mm256_add_epi32(zero, _mm256_madd_epi16(sums, _mm256_set1_epi32((int)by)));
#endif
}

#ifdef __AVXVNNI__

/* ret_sum[i][part][half] of block *w and of x[i]. */
AVX2_INLINE void dot_sums(struct dot_kind kind, const struct avx2_block *w,
                          const struct kernels_q8 *const *x, uint32_t n_x, __m256i sum[DOT_X][2][2])
{
#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++) {
        sum[i][0][0] = sum[i][0][1] = dot_start(kind, x[i], 0);
        if (kind.two)
            sum[i][1][0] = sum[i][1][1] = dot_start(kind, x[i], 1);
    }
#pragma GCC unroll 8
    for (int k = 0; k < 8; k++) {
        int part = kind.two ? k / 4 : 0;
        __m256i q[2] = { w->q[k][0], w->q[k][1] };

        if (kind.bits == 8) { /* signed: 128 above its value is unsigned */
            q[0] = _mm256_xor_si256(q[0], _mm256_set1_epi8(-128));
            q[1] = _mm256_xor_si256(q[1], _mm256_set1_epi8(-128));
        }

#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_x; i++) {
            __m256i v = _mm256_set1_epi32(dot_load_u32(x[i]->q + 4 * k));
            __m256i *s = sum[i][part];

            s[0] = _mm256_dpbusd_avx_epi32(s[0], q[0], v);
            s[1] = _mm256_dpbusd_avx_epi32(s[1], q[1], v);
        }
    }
}

#else

/* How many pairs of products 16 bits hold: a pair is 2 * 127 * (2^bits - 1) at most. */
AVX2_INLINE int dot_run(uint32_t bits)
{
    return bits == 4 ? 8 : bits == 5 ? 4 : bits == 6 ? 2 : 1;
}

/* Pair products. Of two bytes of 8 bits not even they fit: there the value's sign goes to x. */
AVX2_INLINE __m256i dot_pairs(struct dot_kind kind, __m256i q, __m256i x)
{
    if (kind.bits < 8)
        return _mm256_maddubs_epi16(q, x);
    return _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(x, q));
}

/* Keeps a sum in its register, in the order it was written: GCC would turn the chain of additions into
 * a tree, whose leaves are more than there are registers. */
AVX2_INLINE void dot_pin(__m256i *v)
{
    __asm__("" : "+x"(*v));
}

AVX2_INLINE void dot_sums(struct dot_kind kind, const struct avx2_block *w,
                          const struct kernels_q8 *const *x, uint32_t n_x, __m256i sum[DOT_X][2][2])
{
    const __m256i ones = _mm256_set1_epi16(1);
    const int run = dot_run(kind.bits);
    __m256i part[DOT_X][2];

#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++) {
        sum[i][0][0] = sum[i][0][1] = dot_start(kind, x[i], 0);
        if (kind.two)
            sum[i][1][0] = sum[i][1][1] = dot_start(kind, x[i], 1);
    }
#pragma GCC unroll 8
    for (int k = 0; k < 8; k++) {
        int at = kind.two ? k / 4 : 0;
        __m256i q[2] = { w->q[k][0], w->q[k][1] };

#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_x; i++) {
            __m256i v = _mm256_set1_epi32(dot_load_u32(x[i]->q + 4 * k));

#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) {
                __m256i p = dot_pairs(kind, q[h], v);

                part[i][h] = k % run == 0 ? p : _mm256_add_epi16(part[i][h], p);
                dot_pin(&part[i][h]);
                if (k % run == run - 1) {
                    p = _mm256_madd_epi16(part[i][h], ones);
                    sum[i][at][h] = _mm256_add_epi32(sum[i][at][h], p);
                    dot_pin(&sum[i][at][h]);
                }
            }
        }
    }
}

#endif

/* acc[i] += block *w times x[i]. */
AVX2_INLINE void dot_block(struct dot_kind kind, const struct avx2_block *w,
                           const struct kernels_q8 *const *x, uint32_t n_x, __m256 acc[DOT_X][2])
{
    __m256i sum[DOT_X][2][2];

    dot_sums(kind, w, x, n_x, sum);
#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++) {
        __m256 d = _mm256_set1_ps(x[i]->d), s = _mm256_set1_ps(x[i]->s);

#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m256 v =
                _mm256_fmadd_ps(_mm256_castsi256_ps(sum[i][0][h]), w->d[0][h], w->base[0][h]);

            if (kind.two)
                v = _mm256_add_ps(v, _mm256_fmadd_ps(_mm256_castsi256_ps(sum[i][1][h]), w->d[1][h],
                                                     w->base[1][h]));
            acc[i][h] = _mm256_fmadd_ps(v, d, acc[i][h]);
            if (kind.min)
                acc[i][h] = _mm256_fmadd_ps(w->m[h], s, acc[i][h]);
        }
    }
}

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
