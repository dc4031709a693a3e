/* Products of quantised weights and kernels_q8 activations, by AVX-512 VNNI.
 *
 * A lane is a weight row (engine/tile.h): four columns of 16 rows against four activations that are
 * broadcast is one instruction, no sum across lanes is ever needed, and an element of y is one lane
 * of one accumulator: blocks in order, one fma for d * q and, where a type has minima, one before it.
 * The same chain for any number of activation rows and any range of weight rows.
 *
 * VNNI multiplies unsigned by signed bytes: weights are the unsigned ones, as the file's nibbles are.
 * What is to be taken off them (8, 16, 32, 128) comes off the integer sum before it is filled, as
 * that number times the activations' sum.
 *
 * Up to X_FUSED activation rows use a block as it is unpacked, at the speed of memory. For more, CHUNK
 * blocks of a tile are unpacked onto the stack, where they stay in the first-level cache while all
 * activation rows pass by; accumulators rest in y between chunks. All tiles of a range take a chunk
 * before the next one begins, so that the activations of a chunk stay in the second-level cache.
 */
#include "engine/kernels_avx512.h"

#define X_FUSED     8u
#define CHUNK       32u        /* blocks; a multiple of a super-block's 8 */
#define AHEAD_BYTES (4u << 10) /* weights called for before they are worked on */

/* 32 columns of 16 rows. Q6_K has a scale for each half of the columns. */
struct block {
    __m512i q[8];
    __m512 d[2], m;
};

AVX512_INLINE bool has_min(enum quant type)
{
    return type == QUANT_Q4_1 || type == QUANT_Q5_1 || type == QUANT_Q4_K || type == QUANT_Q5_K;
}

AVX512_INLINE bool has_halves(enum quant type)
{
    return type == QUANT_Q6_K;
}

/* What an unsigned weight byte has too much. */
AVX512_INLINE int offset_of(enum quant type)
{
    switch (type) {
    case QUANT_Q4_0:
        return 8;
    case QUANT_Q5_0:
        return 16;
    case QUANT_Q6_K:
        return 32;
    case QUANT_Q8_0:
        return 128;
    default:
        return 0;
    }
}

/* Blocks that share a header, and their bytes with it. */
AVX512_INLINE uint32_t unit_blocks(enum quant type)
{
    return type == QUANT_Q4_K || type == QUANT_Q5_K || type == QUANT_Q6_K ? 8 : 1;
}

AVX512_INLINE size_t unit_len(enum quant type)
{
    switch (type) {
    case QUANT_Q4_0:
        return sizeof(struct tile_q4_0);
    case QUANT_Q4_1:
        return sizeof(struct tile_q4_1);
    case QUANT_Q5_0:
        return sizeof(struct tile_q5_0);
    case QUANT_Q5_1:
        return sizeof(struct tile_q5_1);
    case QUANT_Q8_0:
        return sizeof(struct tile_q8_0);
    case QUANT_Q4_K:
        return sizeof(struct tile_q4_k);
    case QUANT_Q5_K:
        return sizeof(struct tile_q5_k);
    default:
        return sizeof(struct tile_q6_k);
    }
}

/* --- unpacking ------------------------------------------------------------------------------------ */

AVX512_INLINE __m512 load_f16(const uint16_t p[16])
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
}

AVX512_INLINE void load_nibbles(const uint8_t q[4][16][4], __m512i ret[8])
{
    const __m512i low = _mm512_set1_epi8(15);

    for (int k = 0; k < 4; k++) {
        __m512i v = _mm512_loadu_si512(q[k]);

        ret[k] = _mm512_and_si512(v, low);
        ret[k + 4] = _mm512_and_si512(_mm512_srli_epi16(v, 4), low);
    }
}

/* A set bit is 16 more. */
AVX512_INLINE void add_fifth(const uint64_t h[8], __m512i q[8])
{
    const __m512i bit = _mm512_set1_epi8(16);

    for (int k = 0; k < 8; k++)
        q[k] = _mm512_mask_add_epi8(q[k], h[k], q[k], bit);
}

AVX512_INLINE void load_q8_0(const struct tile_q8_0 *t, __m512i ret[8])
{
    for (int k = 0; k < 8; k++)
        ret[k] = _mm512_xor_si512(_mm512_loadu_si512(t->q[k]), _mm512_set1_epi8(-128));
}

AVX512_INLINE void load_q6_k(const struct tile_q6_k_group *t, __m512i ret[8])
{
    const __m512i high = _mm512_set1_epi8(0x30);

    load_nibbles(t->q, ret);
    for (int odd = 0; odd < 2; odd++) {
        __m512i h = _mm512_loadu_si512(t->h[odd]);

        ret[odd] = _mm512_or_si512(ret[odd], _mm512_and_si512(_mm512_slli_epi16(h, 4), high));
        ret[odd + 2] =
            _mm512_or_si512(ret[odd + 2], _mm512_and_si512(_mm512_slli_epi16(h, 2), high));
        ret[odd + 4] = _mm512_or_si512(ret[odd + 4], _mm512_and_si512(h, high));
        ret[odd + 6] =
            _mm512_or_si512(ret[odd + 6], _mm512_and_si512(_mm512_srli_epi16(h, 2), high));
    }
}

AVX512_INLINE __m512 load_u8(const uint8_t p[16])
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p)));
}

AVX512_INLINE __m512 load_i8(const int8_t p[16])
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)));
}

/* Scales of a super-block. */
struct header {
    __m512 d, dmin;
};

AVX512_INLINE void load_header(enum quant type, const void *unit, struct header *ret)
{
    const struct tile_q4_k *t = unit; /* Q5_K begins alike */

    if (unit_blocks(type) == 1)
        return;
    ret->d = load_f16(t->d);
    if (type != QUANT_Q6_K)
        ret->dmin = _mm512_sub_ps(_mm512_setzero_ps(), load_f16(t->dmin));
}

/* Block g of a unit. */
AVX512_INLINE void load_block(enum quant type, const void *unit, const struct header *h, uint32_t g,
                              struct block *ret)
{
    const struct tile_q4_1 *q4_1 = unit;
    const struct tile_q5_1 *q5_1 = unit;
    const struct tile_q4_k *q4_k = unit;
    const struct tile_q5_k *q5_k = unit;
    const struct tile_q6_k *q6_k = unit;

    switch (type) {
    case QUANT_Q4_0:
        load_nibbles(((const struct tile_q4_0 *)unit)->q, ret->q);
        break;
    case QUANT_Q4_1:
        load_nibbles(q4_1->q, ret->q);
        ret->m = load_f16(q4_1->m);
        break;
    case QUANT_Q5_0:
        load_nibbles(((const struct tile_q5_0 *)unit)->q, ret->q);
        add_fifth(((const struct tile_q5_0 *)unit)->h, ret->q);
        break;
    case QUANT_Q5_1:
        load_nibbles(q5_1->q, ret->q);
        add_fifth(q5_1->h, ret->q);
        ret->m = load_f16(q5_1->m);
        break;
    case QUANT_Q8_0:
        load_q8_0(unit, ret->q);
        break;
    case QUANT_Q4_K:
        load_nibbles(q4_k->g[g].q, ret->q);
        ret->d[0] = _mm512_mul_ps(h->d, load_u8(q4_k->g[g].scale));
        ret->m = _mm512_mul_ps(h->dmin, load_u8(q4_k->g[g].min));
        return;
    case QUANT_Q5_K:
        load_nibbles(q5_k->g[g].q, ret->q);
        add_fifth(q5_k->g[g].h, ret->q);
        ret->d[0] = _mm512_mul_ps(h->d, load_u8(q5_k->g[g].scale));
        ret->m = _mm512_mul_ps(h->dmin, load_u8(q5_k->g[g].min));
        return;
    default:
        load_q6_k(&q6_k->g[g], ret->q);
        ret->d[0] = _mm512_mul_ps(h->d, load_i8(q6_k->g[g].scale[0]));
        ret->d[1] = _mm512_mul_ps(h->d, load_i8(q6_k->g[g].scale[1]));
        return;
    }
    ret->d[0] = load_f16(unit); /* d is first in all of these */
}

/* --- one block ------------------------------------------------------------------------------------ */

AVX512_INLINE __m512i dword(const void *p)
{
    int v;

    __builtin_memcpy(&v, p, sizeof(v));
    return _mm512_set1_epi32(v);
}

/* sum += four columns of each row times four activations. Intrinsics can't say that the instruction
 * itself broadcasts what it loads, and compilers make two of it: half as fast as the front end goes. */
AVX512_INLINE __m512i dot_dword(__m512i sum, __m512i w, const int8_t x[4])
{
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*(const int8_t(*)[4])x));
    return sum;
}

/* Minus offset times the sum of the activations: of all, or of the first or second 16. */
AVX512_INLINE __m512i start(enum quant type, const struct kernels_q8 *x, int half)
{
    int by = offset_of(type), pair;

    if (by == 0)
        return _mm512_setzero_si512();
    if (!has_halves(type))
        pair = (int)((uint32_t)(uint16_t)-by << 16 | (uint16_t)-by);
    else
        pair = half ? (int)((uint32_t)(uint16_t)-by << 16) : (uint16_t)-by;
    return _mm512_dpwssd_epi32(_mm512_setzero_si512(), _mm512_set1_epi32(pair), dword(x->sum));
}

/* Columns of dwords [k0, k1) and the scale that goes with them. Activation rows side by side: a chain
 * of one row's instructions alone would wait for each of them. */
AVX512_INLINE void dot_dwords(enum quant type, const struct block *w, int half, int k0, int k1,
                              const struct kernels_q8 *const x[], uint32_t b, uint32_t n_x,
                              __m512 acc[])
{
    __m512i sum[X_FUSED];

#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++)
        sum[i] = start(type, x[i] + b, half);
#pragma GCC unroll 8
    for (int k = k0; k < k1; k++)
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_x; i++)
            sum[i] = dot_dword(sum[i], w->q[k], x[i][b].q + 4 * k);
#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++)
        acc[i] = _mm512_fmadd_ps(_mm512_mul_ps(w->d[half], _mm512_set1_ps(x[i][b].d)),
                                 _mm512_cvtepi32_ps(sum[i]), acc[i]);
}

/* Block b of n_x rows of activations. */
AVX512_INLINE void dot_block(enum quant type, const struct block *w,
                             const struct kernels_q8 *const x[], uint32_t b, uint32_t n_x,
                             __m512 acc[])
{
    if (has_min(type)) {
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_x; i++)
            acc[i] = _mm512_fmadd_ps(w->m, _mm512_set1_ps(x[i][b].s), acc[i]);
    }
    if (has_halves(type)) {
        dot_dwords(type, w, 0, 0, 4, x, b, n_x, acc);
        dot_dwords(type, w, 1, 4, 8, x, b, n_x, acc);
    } else {
        dot_dwords(type, w, 0, 0, 8, x, b, n_x, acc);
    }
}

AVX512_INLINE const struct kernels_q8 *x_row(const struct kernels_matmul *a, uint32_t t)
{
    return (const struct kernels_q8 *)((const uint8_t *)a->x + t * a->x_row_bytes);
}

/* --- few activation rows -------------------------------------------------------------------------- */

/* n_x of a constant; activation rows from a->n_x on repeat the last one and are not stored. */
AVX512_INLINE void run_fused(enum quant type, const struct kernels_matmul *a, uint32_t r0,
                             uint32_t r1, uint32_t n_x)
{
    const uint32_t n_units = a->n_cols / 32 / unit_blocks(type);
    const struct kernels_q8 *x[X_FUSED];

#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++)
        x[i] = x_row(a, i < a->n_x ? i : a->n_x - 1);
    for (uint32_t r = r0; r < r1; r += TILE_ROWS) {
        const uint8_t *at = (const uint8_t *)a->w + r / TILE_ROWS * a->tile_len;
        __mmask16 lanes = avx512_first(a->n_rows - r);
        __m512 acc[X_FUSED];

#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_x; i++)
            acc[i] = _mm512_setzero_ps();
        for (uint32_t u = 0; u < n_units; u++, at += unit_len(type)) {
            struct header h;

            for (size_t off = 0; off < unit_len(type); off += 64)
                _mm_prefetch((const char *)at + AHEAD_BYTES + off, _MM_HINT_T0);
            load_header(type, at, &h);
            for (uint32_t g = 0; g < unit_blocks(type); g++) {
                struct block w;

                load_block(type, at, &h, g, &w);
                dot_block(type, &w, x, u * unit_blocks(type) + g, n_x, acc);
            }
        }
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_x; i++) {
            if (i < a->n_x)
                _mm512_mask_storeu_ps(a->y + i * a->y_stride + r, lanes, acc[i]);
        }
    }
}

/* --- many activation rows ------------------------------------------------------------------------- */

/* Rows [t, t + n_x) over n blocks from b0 on; n_x of a constant. */
AVX512_INLINE void dot_chunk(enum quant type, const struct kernels_matmul *a, uint32_t r,
                             const struct block *w, uint32_t b0, uint32_t n, uint32_t t,
                             uint32_t n_x)
{
    __mmask16 lanes = avx512_first(a->n_rows - r);
    const struct kernels_q8 *x[X_FUSED];
    __m512 acc[X_FUSED];

#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++) {
        x[i] = x_row(a, t + i) + b0;
        acc[i] = b0 ? _mm512_maskz_loadu_ps(lanes, a->y + (t + i) * a->y_stride + r)
                    : _mm512_setzero_ps();
    }
    for (uint32_t b = 0; b < n; b++)
        dot_block(type, &w[b], x, b, n_x, acc);
#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++)
        _mm512_mask_storeu_ps(a->y + (t + i) * a->y_stride + r, lanes, acc[i]);
}

AVX512_INLINE void unpack_chunk(enum quant type, const uint8_t *tile, uint32_t b0, uint32_t n,
                                struct block *ret)
{
    for (uint32_t b = 0; b < n; b += unit_blocks(type)) {
        const uint8_t *unit = tile + (b0 + b) / unit_blocks(type) * unit_len(type);
        struct header h;

        load_header(type, unit, &h);
        for (uint32_t g = 0; g < unit_blocks(type); g++)
            load_block(type, unit, &h, g, &ret[b + g]);
    }
}

AVX512_INLINE void run_chunks(enum quant type, const struct kernels_matmul *a, uint32_t r0,
                              uint32_t r1)
{
    uint32_t n_blocks = a->n_cols / 32;
    struct block w[CHUNK];

    for (uint32_t b0 = 0; b0 < n_blocks; b0 += CHUNK) {
        uint32_t n = n_blocks - b0 < CHUNK ? n_blocks - b0 : CHUNK;

        for (uint32_t r = r0; r < r1; r += TILE_ROWS) {
            uint32_t t = 0;

            unpack_chunk(type, (const uint8_t *)a->w + r / TILE_ROWS * a->tile_len, b0, n, w);
            for (; t + 8 <= a->n_x; t += 8)
                dot_chunk(type, a, r, w, b0, n, t, 8);
            for (; t + 2 <= a->n_x; t += 2)
                dot_chunk(type, a, r, w, b0, n, t, 2);
            for (; t < a->n_x; t++)
                dot_chunk(type, a, r, w, b0, n, t, 1);
        }
    }
}

AVX512_INLINE void run(enum quant type, const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    if (a->n_x == 1)
        run_fused(type, a, r0, r1, 1);
    else if (a->n_x == 2)
        run_fused(type, a, r0, r1, 2);
    else if (a->n_x <= 4)
        run_fused(type, a, r0, r1, 4);
    else if (a->n_x <= 8)
        run_fused(type, a, r0, r1, 8);
    else
        run_chunks(type, a, r0, r1);
}

void avx512_matmul_q4_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    run(QUANT_Q4_0, a, r0, r1);
}

void avx512_matmul_q4_1(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    run(QUANT_Q4_1, a, r0, r1);
}

void avx512_matmul_q5_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    run(QUANT_Q5_0, a, r0, r1);
}

void avx512_matmul_q5_1(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    run(QUANT_Q5_1, a, r0, r1);
}

void avx512_matmul_q8_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    run(QUANT_Q8_0, a, r0, r1);
}

void avx512_matmul_q4_k(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    run(QUANT_Q4_K, a, r0, r1);
}

void avx512_matmul_q5_k(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    run(QUANT_Q5_K, a, r0, r1);
}

void avx512_matmul_q6_k(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    run(QUANT_Q6_K, a, r0, r1);
}
