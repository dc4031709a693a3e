/* Products of quantised weights and kernels_q8 activations.
 *
 * Work goes in panels of 8 weight rows, row i in lane i of every vector. Per block of 32 columns a
 * panel is eight vectors of bytes, vector k holding columns 4k to 4k + 3 of its row in each lane:
 *
 *                lane 0          lane 1                lane 7
 *     q[0]   r0: c0 c1 c2 c3 | r1: c0 c1 c2 c3 | .. | r7: c0 c1 c2 c3
 *     q[7]   r0: c28 .. c31  | r1: c28 .. c31  | .. | r7: c28 .. c31
 *
 * Against it stand four activations at a time, broadcast to all lanes: no sum across lanes is ever
 * needed, sixteen-bit products of a nibble format add up over a whole block before they are widened,
 * and an element of y is one lane of one accumulator: blocks in order, one fma for d * q and one for
 * the minimum. The same chain for any number of activation rows and any range of weight rows. (The
 * plain way, a vector along the row and a sum across lanes at the end, needs twice the instructions.)
 *
 * A few activation rows use a block as it is unpacked; for more, a chunk of columns of a panel is
 * unpacked into 24 KB of stack, which stay in the first-level cache while all rows pass by, and the
 * accumulators rest in y between chunks. Rows of activations are blocked for the second level.
 */
#include "engine/kernels_avx2.h"

#include <assert.h>

#define PANEL_ROWS   8u
#define CHUNK_BLOCKS 64u          /* a multiple of every format's blocks a unit */
#define FUSED_X      4u           /* up to so many activation rows take blocks as they come */
#define X_BYTES      (512u << 10) /* activations that are gone over again and again */
#define AHEAD_BYTES  (20u << 10)  /* weights called for before they are worked on, at least */

/* Eight rows of 32 columns: weight = d * q + m, or d * scale * q with a scale for each 16 columns. */
struct block {
    __m256i q[8];
    __m256 d;
    union {
        __m256 m;
        __m256i scale[2]; /* in both 16-bit halves of the lane */
    };
};

struct panel {
    const uint8_t *row[PANEL_ROWS]; /* those past the end repeat the last */
    __m256i store;                  /* lanes that are rows */
    uint32_t n_rows;
};

/* What q's bytes are, which decides how products may be added up in 16 bits. |activation| <= 127. */
enum bytes {
    BYTES_U4, /* 0 to 15: a block's 8 pairs, 30,480 */
    BYTES_S6, /* -32 to 31: half a block's 4 pairs, 32,512 */
    BYTES_S8, /* -128 to 127: one pair, 32,512 */
};

/* How many blocks are unpacked together, and what they are. */
AVX2_INLINE uint32_t unit_blocks(enum quant type)
{
    return type == QUANT_Q4_K || type == QUANT_Q6_K ? 8 : 1;
}

AVX2_INLINE size_t unit_bytes(enum quant type)
{
    switch (type) {
    case QUANT_Q4_0:
        return sizeof(struct quant_q4_0);
    case QUANT_Q4_1:
        return sizeof(struct quant_q4_1);
    case QUANT_Q8_0:
        return sizeof(struct quant_q8_0);
    case QUANT_Q4_K:
        return sizeof(struct quant_q4_k);
    default:
        return sizeof(struct quant_q6_k);
    }
}

AVX2_INLINE enum bytes bytes_of(enum quant type)
{
    return type == QUANT_Q8_0 ? BYTES_S8 : type == QUANT_Q6_K ? BYTES_S6 : BYTES_U4;
}

/* --- unpacking ----------------------------------------------------------------------------------- */

/* Bytes off to off + 15 of the eight rows: dword k of row i to lane i of ret[k]. */
AVX2_INLINE void transpose(const struct panel *p, size_t off, __m256i ret[4])
{
    __m256i v[4], t[4];

    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_castsi128_si256(_mm_loadu_si128((const void *)(p->row[i] + off)));
        v[i] =
            _mm256_inserti128_si256(v[i], _mm_loadu_si128((const void *)(p->row[i + 4] + off)), 1);
    }
    t[0] = _mm256_unpacklo_epi32(v[0], v[1]);
    t[1] = _mm256_unpackhi_epi32(v[0], v[1]);
    t[2] = _mm256_unpacklo_epi32(v[2], v[3]);
    t[3] = _mm256_unpackhi_epi32(v[2], v[3]);
    ret[0] = _mm256_unpacklo_epi64(t[0], t[2]);
    ret[1] = _mm256_unpackhi_epi64(t[0], t[2]);
    ret[2] = _mm256_unpacklo_epi64(t[1], t[3]);
    ret[3] = _mm256_unpackhi_epi64(t[1], t[3]);
}

AVX2_INLINE int load_u16(const uint8_t *p)
{
    return *(const uint16_t *)p;
}

AVX2_INLINE int load_u32(const uint8_t *p)
{
    int v;

    __builtin_memcpy(&v, p, sizeof(v));
    return v;
}

/* An f16 of each row. */
AVX2_INLINE __m256 load_f16(const struct panel *p, size_t off)
{
    const uint8_t *const *r = p->row;
    __m128i v = _mm_cvtsi32_si128(load_u16(r[0] + off));

    v = _mm_insert_epi16(v, load_u16(r[1] + off), 1);
    v = _mm_insert_epi16(v, load_u16(r[2] + off), 2);
    v = _mm_insert_epi16(v, load_u16(r[3] + off), 3);
    v = _mm_insert_epi16(v, load_u16(r[4] + off), 4);
    v = _mm_insert_epi16(v, load_u16(r[5] + off), 5);
    v = _mm_insert_epi16(v, load_u16(r[6] + off), 6);
    v = _mm_insert_epi16(v, load_u16(r[7] + off), 7);
    return _mm256_cvtph_ps(v);
}

/* Two f16 side by side in each dword: the low ones and the high ones. */
AVX2_INLINE void split_f16(__m128i rows03, __m128i rows47, __m256 *ret_low, __m256 *ret_high)
{
    const __m128i mask = _mm_set1_epi32(0xffff);

    *ret_low =
        _mm256_cvtph_ps(_mm_packus_epi32(_mm_and_si128(rows03, mask), _mm_and_si128(rows47, mask)));
    *ret_high =
        _mm256_cvtph_ps(_mm_packus_epi32(_mm_srli_epi32(rows03, 16), _mm_srli_epi32(rows47, 16)));
}

AVX2_INLINE void load_f16_pairs(const struct panel *p, size_t off, __m256 *ret_low,
                                __m256 *ret_high)
{
    const uint8_t *const *r = p->row;

    split_f16(_mm_setr_epi32(load_u32(r[0] + off), load_u32(r[1] + off), load_u32(r[2] + off),
                             load_u32(r[3] + off)),
              _mm_setr_epi32(load_u32(r[4] + off), load_u32(r[5] + off), load_u32(r[6] + off),
                             load_u32(r[7] + off)),
              ret_low, ret_high);
}

AVX2_INLINE __m256i low_nibbles(__m256i v)
{
    return _mm256_and_si256(v, _mm256_set1_epi8(15));
}

AVX2_INLINE __m256i high_nibbles(__m256i v)
{
    return low_nibbles(_mm256_srli_epi16(v, 4));
}

AVX2_INLINE void unpack_q4(const struct panel *p, size_t off, struct block *ret)
{
    __m256i v[4];

    transpose(p, off, v);
    for (int k = 0; k < 4; k++) {
        ret->q[k] = low_nibbles(v[k]);
        ret->q[k + 4] = high_nibbles(v[k]);
    }
}

/* d * (q - 8): the 8 becomes a minimum of -8 d. */
AVX2_INLINE void unpack_q4_0(const struct panel *p, size_t off, struct block *ret)
{
    unpack_q4(p, off + offsetof(struct quant_q4_0, q), ret);
    ret->d = load_f16(p, off);
    ret->m = _mm256_mul_ps(ret->d, _mm256_set1_ps(-8));
}

AVX2_INLINE void unpack_q4_1(const struct panel *p, size_t off, struct block *ret)
{
    unpack_q4(p, off + offsetof(struct quant_q4_1, q), ret);
    load_f16_pairs(p, off, &ret->d, &ret->m);
}

AVX2_INLINE void unpack_q8_0(const struct panel *p, size_t off, struct block *ret)
{
    off += offsetof(struct quant_q8_0, q);
    transpose(p, off, ret->q);
    transpose(p, off + 16, ret->q + 4);
    ret->d = load_f16(p, off - offsetof(struct quant_q8_0, q));
}

/* The 6-bit scales and minimums of groups 0 to 3 and 4 to 7, a byte each. */
AVX2_INLINE void unpack_q4_k_scales(const __m256i h[4], __m256i ret_scale[2], __m256i ret_min[2])
{
    const __m256i six = _mm256_set1_epi8(0x3f), two = _mm256_set1_epi8(0x30);

    ret_scale[0] = _mm256_and_si256(h[1], six);
    ret_min[0] = _mm256_and_si256(h[2], six);
    ret_scale[1] =
        _mm256_or_si256(low_nibbles(h[3]), _mm256_and_si256(_mm256_srli_epi16(h[1], 2), two));
    ret_min[1] =
        _mm256_or_si256(high_nibbles(h[3]), _mm256_and_si256(_mm256_srli_epi16(h[2], 2), two));
}

AVX2_INLINE __m256 byte_to_f32(__m256i v, int i)
{
    v = _mm256_and_si256(_mm256_srli_epi32(v, 8 * i), _mm256_set1_epi32(255));
    return _mm256_cvtepi32_ps(v);
}

/* The first 16 bytes of a block are d, dmin and the packed scales: a column of the transposition each. */
AVX2_ONCE void unpack_q4_k(const struct panel *p, size_t off, struct block ret[8])
{
    __m256i h[4], scale[2], min[2], v[8];
    __m256 d, dmin;

    transpose(p, off, h);
    split_f16(_mm256_castsi256_si128(h[0]), _mm256_extracti128_si256(h[0], 1), &d, &dmin);
    unpack_q4_k_scales(h, scale, min);
    dmin = _mm256_xor_ps(dmin, _mm256_set1_ps(-0.0f));
    off += offsetof(struct quant_q4_k, q);
    for (int g = 0; g < 8; g++) {
        ret[g].d = _mm256_mul_ps(d, byte_to_f32(scale[g / 4], g % 4));
        ret[g].m = _mm256_mul_ps(dmin, byte_to_f32(min[g / 4], g % 4));
    }
    for (int g = 0; g < 8; g += 2, off += 32) {
        transpose(p, off, v);
        transpose(p, off + 16, v + 4);
        for (int k = 0; k < 8; k++) {
            ret[g].q[k] = low_nibbles(v[k]);
            ret[g + 1].q[k] = high_nibbles(v[k]);
        }
    }
}

/* Byte i of each lane, sign extended, in both halves of the lane. */
AVX2_INLINE __m256i byte_to_i16(__m256i v, int i)
{
    const __m256i lanes =
        _mm256_setr_epi8(-1, 0, -1, 0, -1, 4, -1, 4, -1, 8, -1, 8, -1, 12, -1, 12, -1, 0, -1, 0, -1,
                         4, -1, 4, -1, 8, -1, 8, -1, 12, -1, 12);
    __m256i pick = _mm256_or_si256(lanes, _mm256_set1_epi16((short)(i << 8)));

    return _mm256_srai_epi16(_mm256_shuffle_epi8(v, pick), 8);
}

AVX2_ONCE void unpack_q6_k(const struct panel *p, size_t off, struct block ret[8])
{
    const __m256i offset = _mm256_set1_epi8(32), high = _mm256_set1_epi8(0x30);
    __m256 d = load_f16(p, off + offsetof(struct quant_q6_k, d));
    __m256i scale[4], ql[8], qh[8];

    transpose(p, off + offsetof(struct quant_q6_k, scales), scale);
    for (int g = 0; g < 8; g++) {
        ret[g].d = d;
        ret[g].scale[0] = byte_to_i16(scale[g / 2], g % 2 * 2);
        ret[g].scale[1] = byte_to_i16(scale[g / 2], g % 2 * 2 + 1);
    }
    for (int half = 0; half < 8; half += 4) {
        size_t h_off = off + offsetof(struct quant_q6_k, qh) + 8 * (size_t)half;

        transpose(p, h_off, qh);
        transpose(p, h_off + 16, qh + 4);
        for (int g = half; g < half + 2; g++) {
            size_t l_off = off + 16 * (size_t)half + 32 * (size_t)(g - half);

            transpose(p, l_off, ql);
            transpose(p, l_off + 16, ql + 4);
            for (int k = 0; k < 8; k++) {
                /* Bits 0 and 1 of qh are group 0's, bits 4 and 5 group 2's; next pair for 1 and 3. */
                __m256i h = g == half ? qh[k] : _mm256_srli_epi16(qh[k], 2);
                __m256i q0 = _mm256_and_si256(_mm256_slli_epi16(h, 4), high);
                __m256i q2 = _mm256_and_si256(h, high);

                ret[g].q[k] = _mm256_sub_epi8(_mm256_or_si256(q0, low_nibbles(ql[k])), offset);
                ret[g + 2].q[k] = _mm256_sub_epi8(_mm256_or_si256(q2, high_nibbles(ql[k])), offset);
            }
        }
    }
}

/* Unit u of the panel's rows. */
AVX2_INLINE void unpack(enum quant type, const struct panel *p, uint32_t u, struct block *ret)
{
    size_t off = u * unit_bytes(type);

    switch (type) {
    case QUANT_Q4_0:
        unpack_q4_0(p, off, ret);
        break;
    case QUANT_Q4_1:
        unpack_q4_1(p, off, ret);
        break;
    case QUANT_Q8_0:
        unpack_q8_0(p, off, ret);
        break;
    case QUANT_Q4_K:
        unpack_q4_k(p, off, ret);
        break;
    default:
        unpack_q6_k(p, off, ret);
    }
}

/* --- products ------------------------------------------------------------------------------------ */

AVX2_INLINE __m256i four_of(const struct kernels_q8 *x, int k)
{
    return _mm256_set1_epi32(load_u32((const uint8_t *)x->q + 4 * k));
}

/* Pair products of vector k, in 16 bits. The instruction wants one unsigned side. */
AVX2_INLINE __m256i pairs(enum bytes bytes, __m256i q, __m256i x)
{
    if (bytes == BYTES_U4)
        return _mm256_maddubs_epi16(q, x);
    return _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(x, q));
}

/* acc[i] += block times block b of activation row i. */
AVX2_INLINE void dot_block(enum bytes bytes, const struct block *w,
                           const struct kernels_q8 *const *x, uint32_t b, uint32_t n_x, __m256 *acc)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sum[4], part[4];

#pragma GCC unroll 8
    for (int k = 0; k < 8; k++) {
        __m256i q = w->q[k];

#pragma GCC unroll 4
        for (uint32_t i = 0; i < n_x; i++) {
            __m256i p = pairs(bytes, q, four_of(&x[i][b], k));

            if (bytes == BYTES_S8) {
                p = _mm256_madd_epi16(p, ones);
                sum[i] = k ? _mm256_add_epi32(sum[i], p) : p;
            } else {
                bool first = bytes == BYTES_U4 ? k == 0 : k % 4 == 0;

                part[i] = first ? p : _mm256_add_epi16(part[i], p);
            }
            if (bytes == BYTES_S6 && k == 3)
                sum[i] = _mm256_madd_epi16(part[i], w->scale[0]);
        }
    }
#pragma GCC unroll 4
    for (uint32_t i = 0; i < n_x; i++) {
        __m256 d = _mm256_mul_ps(w->d, _mm256_set1_ps(x[i][b].d));

        if (bytes == BYTES_U4)
            sum[i] = _mm256_madd_epi16(part[i], ones);
        if (bytes == BYTES_S6)
            sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(part[i], w->scale[1]));
        acc[i] = _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(sum[i]), acc[i]);
        if (bytes == BYTES_U4)
            acc[i] = _mm256_fmadd_ps(w->m, _mm256_set1_ps(x[i][b].s), acc[i]);
    }
}

AVX2_INLINE const struct kernels_q8 *x_row(const struct kernels_matmul *a, uint32_t t)
{
    return (const struct kernels_q8 *)((const uint8_t *)a->x + t * a->x_row_bytes);
}

AVX2_INLINE void store_rows(const struct panel *p, float *y, __m256 v)
{
    if (p->n_rows == PANEL_ROWS)
        _mm256_storeu_ps(y, v);
    else
        _mm256_maskstore_ps(y, p->store, v);
}

AVX2_INLINE __m256 load_rows(const struct panel *p, const float *y)
{
    return p->n_rows == PANEL_ROWS ? _mm256_loadu_ps(y) : _mm256_maskload_ps(y, p->store);
}

/* Blocks [b0, b0 + n) of an unpacked panel by activation rows [t, t + n_x). */
AVX2_INLINE void dot_chunk(enum bytes bytes, const struct kernels_matmul *a, const struct panel *p,
                           uint32_t r, const struct block *w, uint32_t b0, uint32_t n, uint32_t t,
                           uint32_t n_x)
{
    const struct kernels_q8 *x[4];
    __m256 acc[4];

#pragma GCC unroll 4
    for (uint32_t i = 0; i < n_x; i++) {
        x[i] = x_row(a, t + i) + b0;
        acc[i] = b0 ? load_rows(p, a->y + (t + i) * a->y_stride + r) : _mm256_setzero_ps();
    }
    for (uint32_t b = 0; b < n; b++)
        dot_block(bytes, &w[b], x, b, n_x, acc);
#pragma GCC unroll 4
    for (uint32_t i = 0; i < n_x; i++)
        store_rows(p, a->y + (t + i) * a->y_stride + r, acc[i]);
}

/* Many activation rows, [t0, t1). */
AVX2_INLINE void run_panel(enum quant type, const struct kernels_matmul *a, const struct panel *p,
                           uint32_t r, uint32_t t0, uint32_t t1)
{
    const enum bytes bytes = bytes_of(type);
    uint32_t n_blocks = a->n_cols / 32, unit = unit_blocks(type);
    struct block w[CHUNK_BLOCKS];

    for (uint32_t b0 = 0; b0 < n_blocks; b0 += CHUNK_BLOCKS) {
        uint32_t n = n_blocks - b0 < CHUNK_BLOCKS ? n_blocks - b0 : CHUNK_BLOCKS, t = t0;

        for (uint32_t b = 0; b < n; b += unit)
            unpack(type, p, (b0 + b) / unit, &w[b]);
        for (; t + 4 <= t1; t += 4)
            dot_chunk(bytes, a, p, r, w, b0, n, t, 4);
        for (; t < t1; t++)
            dot_chunk(bytes, a, p, r, w, b0, n, t, 1);
    }
}

/* Few activation rows: memory is the limit, and the caches' own guesses reach half of it. Panels
 * follow each other, so while this one is worked on, one some panels ahead is called for. */
AVX2_INLINE void run_panel_fused(enum quant type, const struct kernels_matmul *a,
                                 const struct panel *p, uint32_t r, uint32_t n_x)
{
    size_t panel_bytes = PANEL_ROWS * a->w_row_bytes;
    const uint8_t *next = p->row[0] + (1 + AHEAD_BYTES / panel_bytes) * panel_bytes;
    uint32_t unit = unit_blocks(type), n_units = a->n_cols / 32 / unit;
    const struct kernels_q8 *x[4];
    struct block w[8];
    __m256 acc[4];

#pragma GCC unroll 4
    for (uint32_t i = 0; i < n_x; i++) {
        x[i] = x_row(a, i < a->n_x ? i : a->n_x - 1);
        acc[i] = _mm256_setzero_ps();
    }
    for (uint32_t u = 0; u < n_units; u++) {
        for (size_t off = 0; off < PANEL_ROWS * unit_bytes(type); off += 64)
            _mm_prefetch(next + u * PANEL_ROWS * unit_bytes(type) + off, _MM_HINT_T0);
        unpack(type, p, u, w);
        for (uint32_t b = 0; b < unit; b++)
            dot_block(bytes_of(type), &w[b], x, u * unit + b, n_x, acc);
    }
#pragma GCC unroll 4
    for (uint32_t i = 0; i < n_x; i++) {
        if (i < a->n_x)
            store_rows(p, a->y + i * a->y_stride + r, acc[i]);
    }
}

AVX2_INLINE struct panel open_panel(const struct kernels_matmul *a, uint32_t r, uint32_t r1)
{
    struct panel p = { .n_rows = r1 - r < PANEL_ROWS ? r1 - r : PANEL_ROWS };

    for (uint32_t i = 0; i < PANEL_ROWS; i++) {
        uint32_t at = i < p.n_rows ? i : p.n_rows - 1;

        p.row[i] = (const uint8_t *)a->w + (r + at) * a->w_row_bytes;
    }
    p.store = avx2_first(p.n_rows);
    return p;
}

AVX2_INLINE void run_fused(enum quant type, const struct kernels_matmul *a, uint32_t r0,
                           uint32_t r1, uint32_t n_x)
{
    for (uint32_t r = r0; r < r1; r += PANEL_ROWS) {
        struct panel p = open_panel(a, r, r1);

        run_panel_fused(type, a, &p, r, n_x);
    }
}

AVX2_INLINE void run(enum quant type, const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    uint32_t step = (uint32_t)(X_BYTES / a->x_row_bytes) / 4 * 4;

    if (a->n_x <= FUSED_X) {
        if (a->n_x == 1)
            run_fused(type, a, r0, r1, 1);
        else if (a->n_x == 2)
            run_fused(type, a, r0, r1, 2);
        else
            run_fused(type, a, r0, r1, FUSED_X); /* three: the last one twice */
        return;
    }
    step = step < 32 ? 32 : step;
    for (uint32_t t = 0; t < a->n_x; t += step) {
        uint32_t end = a->n_x - t < step ? a->n_x : t + step;

        for (uint32_t r = r0; r < r1; r += PANEL_ROWS) {
            struct panel p = open_panel(a, r, r1);

            run_panel(type, a, &p, r, t, end);
        }
    }
}

void avx2_matmul_q4_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    run(QUANT_Q4_0, a, r0, r1);
}

void avx2_matmul_q4_1(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    run(QUANT_Q4_1, a, r0, r1);
}

void avx2_matmul_q8_0(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    run(QUANT_Q8_0, a, r0, r1);
}

void avx2_matmul_q4_k(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    run(QUANT_Q4_K, a, r0, r1);
}

void avx2_matmul_q6_k(const struct kernels_matmul *a, uint32_t r0, uint32_t r1)
{
    run(QUANT_Q6_K, a, r0, r1);
}
