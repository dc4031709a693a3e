/* Products of quantised weights and kernels_q8 activations, by AVX-512 VNNI.
 *
 * A lane is a weight row (engine/file/tile.h): four columns of 16 rows against four activations
 * that are broadcast is one instruction, no sum across lanes is ever needed, and an element of y is
 * one lane of one accumulator: blocks in order, one fma for d * q and, where a type has minima, one
 * before it. The same chain for any number of activation rows and any range of weight rows.
 *
 * VNNI multiplies unsigned by signed bytes: weights are the unsigned ones, as the file's nibbles
 * are. What is to be taken off them (8, 16, 32, 128) comes off the integer sum before it is filled,
 * as that number times the activations' sum.
 *
 * Up to X_FUSED activation rows use a block as it is unpacked, at the speed of memory; up to twice
 * as many do so in two goes over each tile. For more, a chunk of columns of two tiles is unpacked
 * onto the stack, where it stays in the first-level cache while all activation rows pass by, six at
 * a time: two tiles by six rows fill the registers, and an activation that is loaded once serves
 * both. Accumulators rest in y between chunks. All tiles of a range take a chunk before the next
 * one begins, so that its activations stay in the second-level cache.
 *
 * Sums start at the bits of a large float instead of zero: so they are floats from the start, and
 * no conversion is needed.
 */
#include "engine/cpu/kernels_avx512.h"

#define X_FUSED   8u
#define TILES_MAX 2u
#define CHUNK_X   6u
#define CHUNK     24u /* blocks, at most: twice 16 KB */

/* The bits of 1.5 * 2^23: an integer below 2^22 that is added to them is added to the float too. */
#define BIAS       0x4b400000
#define BIAS_FLOAT 12582912.0f

/* bias: -BIAS_FLOAT * d, exact, as d has 19 bits at most. */
struct scale {
    __m512 d, bias;
};

/* 32 columns of 16 rows. Q6_K has a scale for each half of the columns. */
struct block {
    __m512i q[8];
    struct scale scale[2];
    __m512 m;
};

/* What types have in common once they are unpacked. */
enum kind {
    KIND_MIN,    /* q is unsigned, and there is a minimum */
    KIND_OFFSET, /* q has an offset */
    KIND_HALVES, /* the same, and two scales */
};

AVX512_INLINE enum kind kind_of(enum quant type)
{
    switch (type) {
    case QUANT_Q6_K:
        return KIND_HALVES;
    case QUANT_Q4_0:
    case QUANT_Q5_0:
    case QUANT_Q8_0:
        return KIND_OFFSET;
    default:
        return KIND_MIN;
    }
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

/* --- unpacking -------------------------------------------------------------------------------- */

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

/* Signed bytes with 128 added are unsigned ones: the sign bit turned round. */
AVX512_INLINE void load_q8_0(const struct tile_q8_0 *t, __m512i ret[8])
{
    for (int k = 0; k < 8; k++)
        ret[k] = _mm512_xor_si512(_mm512_loadu_si512(t->q[k]), _mm512_set1_epi8(-128));
}

/* Two upper bits of dword k stand at bits 2 (k / 2) of h[k % 2]; all four shifts bring them to 4
 * and 5. */
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

/* Once for eight blocks. Minima of these types are taken off, so dmin's sign is turned here. */
AVX512_INLINE void load_header(enum quant type, const void *unit, struct header *ret)
{
    const struct tile_q4_k *t = unit; /* Q5_K begins alike */

    if (unit_blocks(type) == 1)
        return;
    ret->d = load_f16(t->d);
    if (type != QUANT_Q6_K)
        ret->dmin = _mm512_sub_ps(_mm512_setzero_ps(), load_f16(t->dmin));
}

AVX512_INLINE struct scale scale_of(__m512 d)
{
    return (struct scale){ d, _mm512_mul_ps(d, _mm512_set1_ps(-BIAS_FLOAT)) };
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
        ret->scale[0] = scale_of(_mm512_mul_ps(h->d, load_u8(q4_k->g[g].scale)));
        ret->m = _mm512_mul_ps(h->dmin, load_u8(q4_k->g[g].min));
        return;
    case QUANT_Q5_K:
        load_nibbles(q5_k->g[g].q, ret->q);
        add_fifth(q5_k->g[g].h, ret->q);
        ret->scale[0] = scale_of(_mm512_mul_ps(h->d, load_u8(q5_k->g[g].scale)));
        ret->m = _mm512_mul_ps(h->dmin, load_u8(q5_k->g[g].min));
        return;
    default:
        load_q6_k(&q6_k->g[g], ret->q);
        ret->scale[0] = scale_of(_mm512_mul_ps(h->d, load_i8(q6_k->g[g].scale[0])));
        ret->scale[1] = scale_of(_mm512_mul_ps(h->d, load_i8(q6_k->g[g].scale[1])));
        return;
    }
    ret->scale[0] = scale_of(load_f16(unit)); /* d is first in all of these */
}

/* --- one block -------------------------------------------------------------------------------- */

AVX512_INLINE __m512i dword(const void *p)
{
    int v;

    __builtin_memcpy(&v, p, sizeof(v));
    return _mm512_set1_epi32(v);
}

/* sum += four columns of each row times four activations. Intrinsics can't say that the instruction
 * itself broadcasts what it loads, and compilers make two of it. */
AVX512_INLINE __m512i dot_dword(__m512i sum, __m512i w, const int8_t x[4])
{
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*(const int8_t(*)[4])x));
    return sum;
}

/* The bias, less offset times the sum of the activations: of all, or of the first or second 16. */
AVX512_INLINE __m512i start(enum kind kind, int offset, const struct kernels_q8 *x, int half)
{
    uint32_t minus = (uint16_t)-offset;

    if (kind == KIND_MIN)
        return _mm512_set1_epi32(BIAS);
    if (kind == KIND_HALVES)
        minus = half ? minus << 16 : minus;
    else
        minus |= minus << 16;
    return _mm512_dpwssd_epi32(_mm512_set1_epi32(BIAS), _mm512_set1_epi32((int)minus),
                               dword(x->sum));
}

/* Columns of dwords [k0, k1) and the scale that goes with them, for n_tiles tiles and n_x
 * activation rows side by side: one chain of instructions alone would wait for each of them. */
AVX512_INLINE void dot_dwords(enum kind kind, int offset, const struct block *const w[],
                              uint32_t n_tiles, int half, int k0, int k1,
                              const struct kernels_q8 *const x[], uint32_t b, uint32_t n_x,
                              __m512 acc[TILES_MAX][X_FUSED])
{
    __m512i sum[TILES_MAX][X_FUSED];

#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++)
#pragma GCC unroll 2
        for (uint32_t j = 0; j < n_tiles; j++)
            sum[j][i] = start(kind, offset, x[i] + b, half);
#pragma GCC unroll 8
    for (int k = k0; k < k1; k++) {
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_x; i++) {
            if (n_tiles == 1) {
                sum[0][i] = dot_dword(sum[0][i], w[0]->q[k], x[i][b].q + 4 * k);
            } else {
                __m512i xk = dword(x[i][b].q + 4 * k);

                sum[0][i] = _mm512_dpbusd_epi32(sum[0][i], w[0]->q[k], xk);
                sum[1][i] = _mm512_dpbusd_epi32(sum[1][i], w[1]->q[k], xk);
            }
        }
    }
    /* sum * d in one fma, rounded once: the bias's share goes off with it. */
#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++)
#pragma GCC unroll 2
        for (uint32_t j = 0; j < n_tiles; j++) {
            const struct scale *scale = &w[j]->scale[half];
            __m512 v = _mm512_fmadd_ps(_mm512_castsi512_ps(sum[j][i]), scale->d, scale->bias);

            acc[j][i] = _mm512_fmadd_ps(v, _mm512_set1_ps(x[i][b].d), acc[j][i]);
        }
}

/* Block b of n_x rows of activations. */
AVX512_INLINE void dot_block(enum kind kind, int offset, const struct block *const w[],
                             uint32_t n_tiles, const struct kernels_q8 *const x[], uint32_t b,
                             uint32_t n_x, __m512 acc[TILES_MAX][X_FUSED])
{
    if (kind == KIND_MIN) {
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_x; i++)
#pragma GCC unroll 2
            for (uint32_t j = 0; j < n_tiles; j++)
                acc[j][i] = _mm512_fmadd_ps(w[j]->m, _mm512_set1_ps(x[i][b].s), acc[j][i]);
    }
    if (kind == KIND_HALVES) {
        dot_dwords(kind, offset, w, n_tiles, 0, 0, 4, x, b, n_x, acc);
        dot_dwords(kind, offset, w, n_tiles, 1, 4, 8, x, b, n_x, acc);
    } else {
        dot_dwords(kind, offset, w, n_tiles, 0, 0, 8, x, b, n_x, acc);
    }
}

AVX512_INLINE const struct kernels_q8 *x_row(const struct kernels_matmul *a, uint32_t t)
{
    return (const struct kernels_q8 *)((const uint8_t *)a->x + t * a->x_row_bytes);
}

/* --- few activation rows ---------------------------------------------------------------------- */

/* n_x of a constant; activation rows from a->n_x on repeat the last one and are not stored. So
 * three rows cost as much as four, and there are fewer copies of this. */
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
        __m512 acc[TILES_MAX][X_FUSED];

#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_x; i++)
            acc[0][i] = _mm512_setzero_ps();
        for (uint32_t u = 0; u < n_units; u++, at += unit_len(type)) {
            struct header h;

            avx512_call_ahead(a, n_x, at, unit_len(type));
            load_header(type, at, &h);
            for (uint32_t g = 0; g < unit_blocks(type); g++) {
                struct block w;
                const struct block *const one[] = { &w };

                load_block(type, at, &h, g, &w);
                dot_block(kind_of(type), offset_of(type), one, 1, x, u * unit_blocks(type) + g, n_x,
                          acc);
            }
        }
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_x; i++) {
            if (i < a->n_x)
                _mm512_mask_storeu_ps(a->y + i * a->y_stride + r, lanes, acc[0][i]);
        }
    }
}

/* X_FUSED activation rows at a time, over one tile after the other. The second time a tile comes
 * from a cache: it is read from memory once. */
AVX512_INLINE void run_fused_twice(enum quant type, const struct kernels_matmul *a, uint32_t r0,
                                   uint32_t r1)
{
    for (uint32_t r = r0; r < r1; r += TILE_ROWS) {
        for (uint32_t t = 0; t < a->n_x; t += X_FUSED) {
            struct kernels_matmul part = *a;

            part.x = x_row(a, t);
            part.y += t * a->y_stride;
            part.n_x -= t;
            run_fused(type, &part, r, r + 1, X_FUSED);
        }
    }
}

/* --- many activation rows --------------------------------------------------------------------- */

/* A chunk of blocks of two tiles. */
struct chunk {
    struct block w[TILES_MAX][CHUNK];
    uint32_t b0, n;
    int offset;
};

/* Tiles from row r on by activation rows [t, t + n_x); n_tiles and n_x of a constant. */
AVX512_INLINE void dot_chunk(enum kind kind, const struct kernels_matmul *a, uint32_t r,
                             const struct chunk *c, uint32_t n_tiles, uint32_t t, uint32_t n_x)
{
    const size_t ahead = CHUNK_X * a->x_row_bytes;
    const struct kernels_q8 *x[X_FUSED];
    __m512 acc[TILES_MAX][X_FUSED];
    float *y = a->y + t * a->y_stride + r;

#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++) {
        x[i] = x_row(a, t + i) + c->b0;
#pragma GCC unroll 2
        for (uint32_t j = 0; j < n_tiles; j++)
            acc[j][i] = c->b0 ? _mm512_maskz_loadu_ps(avx512_first(a->n_rows - r - 16 * j),
                                                      y + i * a->y_stride + 16 * j)
                              : _mm512_setzero_ps();
    }
    for (uint32_t b = 0; b < c->n; b++) {
        const struct block *const w[] = { &c->w[0][b], &c->w[1][b] };

        /* Of the rows that come next: each is too short for the cache to guess. */
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_x; i++)
            _mm_prefetch((const char *)(x[i] + b) + ahead, _MM_HINT_T0);
        dot_block(kind, c->offset, w, n_tiles, x, b, n_x, acc);
    }
#pragma GCC unroll 8
    for (uint32_t i = 0; i < n_x; i++)
#pragma GCC unroll 2
        for (uint32_t j = 0; j < n_tiles; j++)
            _mm512_mask_storeu_ps(y + i * a->y_stride + 16 * j,
                                  avx512_first(a->n_rows - r - 16 * j), acc[j][i]);
}

/* Six rows at a time, then two, then one: whichever it is, a row's chain is the same. */
AVX512_INLINE void dot_rows(enum kind kind, const struct kernels_matmul *a, uint32_t r,
                            const struct chunk *c, uint32_t n_tiles)
{
    uint32_t t = 0;

    for (; t + CHUNK_X <= a->n_x; t += CHUNK_X)
        dot_chunk(kind, a, r, c, n_tiles, t, CHUNK_X);
    for (; t + 2 <= a->n_x; t += 2)
        dot_chunk(kind, a, r, c, n_tiles, t, 2);
    for (; t < a->n_x; t++)
        dot_chunk(kind, a, r, c, n_tiles, t, 1);
}

/* What is on the stack is alike for all types of a kind: three copies serve eight types. */
AVX512_ONCE void dot_min(const struct kernels_matmul *a, uint32_t r, const struct chunk *c,
                         uint32_t n_tiles)
{
    if (n_tiles == 2)
        dot_rows(KIND_MIN, a, r, c, 2);
    else
        dot_rows(KIND_MIN, a, r, c, 1);
}

AVX512_ONCE void dot_offset(const struct kernels_matmul *a, uint32_t r, const struct chunk *c,
                            uint32_t n_tiles)
{
    if (n_tiles == 2)
        dot_rows(KIND_OFFSET, a, r, c, 2);
    else
        dot_rows(KIND_OFFSET, a, r, c, 1);
}

AVX512_ONCE void dot_halves(const struct kernels_matmul *a, uint32_t r, const struct chunk *c,
                            uint32_t n_tiles)
{
    if (n_tiles == 2)
        dot_rows(KIND_HALVES, a, r, c, 2);
    else
        dot_rows(KIND_HALVES, a, r, c, 1);
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

/* Equal chunks, of whole units. A last one of a few blocks would load and store all accumulators
 * for little. */
AVX512_INLINE uint32_t chunk_blocks(enum quant type, uint32_t n_blocks)
{
    uint32_t unit = unit_blocks(type), n_chunks = (n_blocks + CHUNK - 1) / CHUNK;
    uint32_t n = (n_blocks + n_chunks - 1) / n_chunks;

    return (n + unit - 1) / unit * unit;
}

/* Chunks outside, tiles inside: see the head. */
AVX512_INLINE void run_chunks(enum quant type, const struct kernels_matmul *a, uint32_t r0,
                              uint32_t r1)
{
    uint32_t n_blocks = a->n_cols / 32, step = chunk_blocks(type, n_blocks);
    const enum kind kind = kind_of(type);
    struct chunk c;

    c.offset = offset_of(type);
    for (c.b0 = 0; c.b0 < n_blocks; c.b0 += step) {
        c.n = n_blocks - c.b0 < step ? n_blocks - c.b0 : step;
        for (uint32_t r = r0; r < r1; r += TILES_MAX * TILE_ROWS) {
            const uint8_t *tile = (const uint8_t *)a->w + r / TILE_ROWS * a->tile_len;
            uint32_t n_tiles = r1 - r > TILE_ROWS ? 2 : 1;

            for (uint32_t j = 0; j < n_tiles; j++)
                unpack_chunk(type, tile + j * a->tile_len, c.b0, c.n, c.w[j]);
            (kind == KIND_MIN      ? dot_min
             : kind == KIND_OFFSET ? dot_offset
                                   : dot_halves)(a, r, &c, n_tiles);
        }
    }
}

/* By how often an unpacked block is used. Up to 16 activation rows weights come from memory as fast
 * as it gives them, and unpacking twice is hidden by that; beyond, unpacking once and keeping it is
 * faster. */
AVX512_INLINE void run(enum quant type, const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    if (a->n_x == 1)
        run_fused(type, a, r0, r1, 1);
    else if (a->n_x == 2)
        run_fused(type, a, r0, r1, 2);
    else if (a->n_x <= 4)
        run_fused(type, a, r0, r1, 4);
    else if (a->n_x <= 2 * X_FUSED)
        run_fused_twice(type, a, r0, r1);
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
