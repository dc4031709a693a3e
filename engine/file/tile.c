/* engine/file/tile.c - rows of a file's blocks to tiles, and back for who needs a single row.
 *
 * Packing goes over all of a model's bytes: each type has a copy of the loop over blocks in which
 * all places are constants, and bytes go by dwords. Reading a row is for embeddings, the scalar
 * kernels and tests, and is plain.
 */
#include "engine/file/tile.h"

#include <stdbool.h>
#include <string.h>

_Static_assert(sizeof(struct tile_q4_0) == 16 * sizeof(struct quant_q4_0), "as in the file");
_Static_assert(sizeof(struct tile_q4_1) == 16 * sizeof(struct quant_q4_1), "as in the file");
_Static_assert(sizeof(struct tile_q5_0) == 16 * sizeof(struct quant_q5_0), "as in the file");
_Static_assert(sizeof(struct tile_q5_1) == 16 * sizeof(struct quant_q5_1), "as in the file");
_Static_assert(sizeof(struct tile_q8_0) == 16 * sizeof(struct quant_q8_0), "as in the file");
_Static_assert(sizeof(struct tile_q6_k) == 16 * sizeof(struct quant_q6_k), "as in the file");
_Static_assert(sizeof(struct tile_q4_k) == 64 + 8 * 288, "four bytes a row more");
_Static_assert(sizeof(struct tile_q5_k) == 64 + 8 * 352, "four bytes a row more");

static const struct {
    uint32_t cols, bytes;
} blocks[QUANT__N] = {
    [QUANT_F32] = { 1, 16 * 4 },
    [QUANT_F16] = { 1, 16 * 2 },
    [QUANT_BF16] = { 2, 16 * 4 },
    [QUANT_Q4_0] = { 32, sizeof(struct tile_q4_0) },
    [QUANT_Q4_1] = { 32, sizeof(struct tile_q4_1) },
    [QUANT_Q5_0] = { 32, sizeof(struct tile_q5_0) },
    [QUANT_Q5_1] = { 32, sizeof(struct tile_q5_1) },
    [QUANT_Q8_0] = { 32, sizeof(struct tile_q8_0) },
    [QUANT_Q4_K] = { 256, sizeof(struct tile_q4_k) },
    [QUANT_Q5_K] = { 256, sizeof(struct tile_q5_k) },
    [QUANT_Q6_K] = { 256, sizeof(struct tile_q6_k) },
};

/* Rounded up for BF16 alone, whose columns come in twos. */
size_t tile_len(enum quant type, uint32_t n_cols)
{
    size_t n = (n_cols + blocks[type].cols - 1) / blocks[type].cols;

    return n * blocks[type].bytes;
}

/* --- packing: block `b` of row i to lane i ---------------------------------------------------- */

/* A file's blocks are not aligned. */
static uint32_t load_u32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static void store_u32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof(v));
}

static uint16_t load_u16(const uint8_t *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

/* The file's nibbles are paired as a tile's: dwords go over as they are. */
static inline void pack_nibbles(const uint8_t *from, unsigned i, uint8_t q[4][16][4])
{
    for (int k = 0; k < 4; k++)
        store_u32(q[k][i], load_u32(from + 4 * k));
}

/* Nibbles of 32 bytes, the low ones (shift 0) or the high ones (4): byte c is column c. A tile's
 * byte has columns c and c + 16 in its two nibbles; the file has groups g and g + 1 there, so they
 * are taken apart and put together anew. */
static inline void pack_nibbles_k(const uint8_t *from, unsigned shift, unsigned i,
                                  uint8_t q[4][16][4])
{
    for (int k = 0; k < 4; k++) {
        uint32_t low = load_u32(from + 4 * k) >> shift & 0x0f0f0f0f;
        uint32_t high = load_u32(from + 4 * k + 16) >> shift & 0x0f0f0f0f;

        store_u32(q[k][i], low | high << 4);
    }
}

/* Bit c of `bits` is column c's. The lane before it cleared nothing: h starts as zeros. */
static inline void pack_fifth(uint32_t bits, unsigned i, uint64_t h[8])
{
    for (int k = 0; k < 8; k++)
        h[k] |= (uint64_t)(bits >> (4 * k) & 15) << (4 * i);
}

static inline void pack_q4_0(const uint8_t *b, unsigned i, struct tile_q4_0 *t)
{
    t->d[i] = load_u16(b);
    pack_nibbles(b + offsetof(struct quant_q4_0, q), i, t->q);
}

static inline void pack_q4_1(const uint8_t *b, unsigned i, struct tile_q4_1 *t)
{
    t->d[i] = load_u16(b);
    t->m[i] = load_u16(b + offsetof(struct quant_q4_1, m));
    pack_nibbles(b + offsetof(struct quant_q4_1, q), i, t->q);
}

static inline void pack_q5_0(const uint8_t *b, unsigned i, struct tile_q5_0 *t)
{
    t->d[i] = load_u16(b);
    pack_nibbles(b + offsetof(struct quant_q5_0, q), i, t->q);
    pack_fifth(load_u32(b + offsetof(struct quant_q5_0, qh)), i, t->h);
}

static inline void pack_q5_1(const uint8_t *b, unsigned i, struct tile_q5_1 *t)
{
    t->d[i] = load_u16(b);
    t->m[i] = load_u16(b + offsetof(struct quant_q5_1, m));
    pack_nibbles(b + offsetof(struct quant_q5_1, q), i, t->q);
    pack_fifth(load_u32(b + offsetof(struct quant_q5_1, qh)), i, t->h);
}

/* Dword k of a row goes to q[k], as it is. */
static inline void pack_q8_0(const uint8_t *b, unsigned i, struct tile_q8_0 *t)
{
    t->d[i] = load_u16(b);
    for (int k = 0; k < 8; k++)
        store_u32((uint8_t *)t->q[k][i],
                  load_u32(b + offsetof(struct quant_q8_0, q) + 4 * (size_t)k));
}

/* All eight scales and minima of a super-block at once, a byte each: what quant_q4_k_scale says for
 * one. Four bytes at once by masks on a dword. */
static inline void read_scales(const uint8_t *from, uint8_t ret_scales[8], uint8_t ret_mins[8])
{
    uint32_t a = load_u32(from), b = load_u32(from + 4), c = load_u32(from + 8);

    store_u32(ret_scales, a & 0x3f3f3f3f);
    store_u32(ret_mins, b & 0x3f3f3f3f);
    store_u32(ret_scales + 4, (c & 0x0f0f0f0f) | (a >> 6 & 0x03030303) << 4);
    store_u32(ret_mins + 4, (c >> 4 & 0x0f0f0f0f) | (b >> 6 & 0x03030303) << 4);
}

/* Six bits of a scale take a byte here: kernels would unpack them for every token. */
static inline void pack_q4_k(const uint8_t *b, unsigned i, struct tile_q4_k *t)
{
    uint8_t scales[8], mins[8];

    read_scales(b + offsetof(struct quant_q4_k, scales), scales, mins);
    t->d[i] = load_u16(b);
    t->dmin[i] = load_u16(b + offsetof(struct quant_q4_k, dmin));
    for (unsigned g = 0; g < 8; g++) {
        struct tile_q4_k_group *to = &t->g[g];

        to->scale[i] = scales[g];
        to->min[i] = mins[g];
        pack_nibbles_k(b + offsetof(struct quant_q4_k, q) + 32 * (size_t)(g / 2), g % 2 * 4, i,
                       to->q);
    }
}

/* Bit g of byte c of qh is the fifth bit of column c of group g. */
static inline void pack_q5_k(const uint8_t *b, unsigned i, struct tile_q5_k *t)
{
    const uint8_t *qh = b + offsetof(struct quant_q5_k, qh);
    uint8_t scales[8], mins[8];

    read_scales(b + offsetof(struct quant_q5_k, scales), scales, mins);
    t->d[i] = load_u16(b);
    t->dmin[i] = load_u16(b + offsetof(struct quant_q5_k, dmin));
    for (unsigned g = 0; g < 8; g++) {
        struct tile_q5_k_group *to = &t->g[g];

        to->scale[i] = scales[g];
        to->min[i] = mins[g];
        pack_nibbles_k(b + offsetof(struct quant_q5_k, q) + 32 * (size_t)(g / 2), g % 2 * 4, i,
                       to->q);
        for (int k = 0; k < 8; k++) {
            uint32_t bits = load_u32(qh + 4 * k) >> g & 0x01010101;

            /* The product's top byte has bit j of byte j. */
            to->h[k] |= (uint64_t)(bits * 0x01020408 >> 24) << (4 * i);
        }
    }
}

/* Where a group's bits are: as quant.c has it. Each dword's two upper bits go to bits 2 m and 2 m +
 * 1, where kernels shift them from. */
static inline void pack_q6_k(const uint8_t *b, unsigned i, struct tile_q6_k *t)
{
    t->d[i] = load_u16(b + offsetof(struct quant_q6_k, d));
    for (unsigned g = 0; g < 8; g++) {
        struct tile_q6_k_group *to = &t->g[g];
        const uint8_t *ql = b + 64 * (size_t)(g / 4) + 32 * (size_t)(g % 2);
        const uint8_t *qh = b + offsetof(struct quant_q6_k, qh) + 32 * (size_t)(g / 4);

        for (int half = 0; half < 2; half++)
            to->scale[half][i] =
                (int8_t)b[offsetof(struct quant_q6_k, scales) + 2 * g + (size_t)half];
        pack_nibbles_k(ql, g % 4 / 2 * 4, i, to->q);
        for (int odd = 0; odd < 2; odd++) {
            uint32_t bits = 0;

            for (int m = 0; m < 4; m++)
                bits |= (load_u32(qh + 4 * (2 * m + odd)) >> (g % 4 * 2) & 0x03030303) << (2 * m);
            store_u32(to->h[odd][i], bits);
        }
    }
}

/* Inlined with a constant type below, so that nothing is asked for each block. */
static inline __attribute__((always_inline)) void pack_block(enum quant type, const uint8_t *b,
                                                             unsigned i, void *t)
{
    switch (type) {
    case QUANT_F32:
        memcpy((uint8_t *)t + 4 * i, b, 4);
        break;
    case QUANT_F16:
        memcpy((uint8_t *)t + 2 * i, b, 2);
        break;
    case QUANT_Q4_0:
        pack_q4_0(b, i, t);
        break;
    case QUANT_Q4_1:
        pack_q4_1(b, i, t);
        break;
    case QUANT_Q5_0:
        pack_q5_0(b, i, t);
        break;
    case QUANT_Q5_1:
        pack_q5_1(b, i, t);
        break;
    case QUANT_Q8_0:
        pack_q8_0(b, i, t);
        break;
    case QUANT_Q4_K:
        pack_q4_k(b, i, t);
        break;
    case QUANT_Q5_K:
        pack_q5_k(b, i, t);
        break;
    case QUANT_Q6_K:
        pack_q6_k(b, i, t);
        break;
    default: /* BF16 has its own: its blocks cross columns */
        break;
    }
}

static inline __attribute__((always_inline)) void
pack_rows(enum quant type, const void *const rows[TILE_ROWS], uint32_t n_cols, uint8_t *to)
{
    const struct quant_info *info = quant_info(type);
    size_t n = n_cols / info->block_cols, file_len = info->block_bytes, len = blocks[type].bytes;

    for (size_t b = 0; b < n; b++, to += len) {
        for (unsigned i = 0; i < TILE_ROWS; i++) {
            if (rows[i])
                pack_block(type, (const uint8_t *)rows[i] + b * file_len, i, to);
        }
    }
}

/* Two columns of a row at once: what a kernel multiplies by pairs of activations. */
static void pack_bf16(const void *const rows[TILE_ROWS], uint32_t n_cols, uint8_t *to)
{
    for (uint32_t c = 0; c < n_cols; c += 2, to += 4 * TILE_ROWS) {
        for (uint32_t i = 0; i < TILE_ROWS; i++) {
            if (rows[i])
                memcpy(to + 4 * (size_t)i, (const uint8_t *)rows[i] + 2 * (size_t)c,
                       n_cols - c < 2 ? 2 : 4);
        }
    }
}

/* Fifth bits of lanes are gathered into the same words, missing rows are zeros, and so is what an
 * odd last column of BF16 stands beside. All else is written once. */
static bool has_zeros(enum quant type, const void *const rows[TILE_ROWS])
{
    bool missing =
        type == QUANT_Q5_0 || type == QUANT_Q5_1 || type == QUANT_Q5_K || type == QUANT_BF16;

    for (unsigned i = 0; i < TILE_ROWS; i++)
        missing |= !rows[i];
    return missing;
}

/* A call for each type, so that pack_rows is inlined with the type a constant. */
void tile_pack(enum quant type, const void *const rows[TILE_ROWS], uint32_t n_cols, void *ret_tile)
{
    if (has_zeros(type, rows))
        memset(ret_tile, 0, tile_len(type, n_cols));
    switch (type) {
    case QUANT_F32:
        pack_rows(QUANT_F32, rows, n_cols, ret_tile);
        break;
    case QUANT_F16:
        pack_rows(QUANT_F16, rows, n_cols, ret_tile);
        break;
    case QUANT_Q4_0:
        pack_rows(QUANT_Q4_0, rows, n_cols, ret_tile);
        break;
    case QUANT_Q4_1:
        pack_rows(QUANT_Q4_1, rows, n_cols, ret_tile);
        break;
    case QUANT_Q5_0:
        pack_rows(QUANT_Q5_0, rows, n_cols, ret_tile);
        break;
    case QUANT_Q5_1:
        pack_rows(QUANT_Q5_1, rows, n_cols, ret_tile);
        break;
    case QUANT_Q8_0:
        pack_rows(QUANT_Q8_0, rows, n_cols, ret_tile);
        break;
    case QUANT_Q4_K:
        pack_rows(QUANT_Q4_K, rows, n_cols, ret_tile);
        break;
    case QUANT_Q5_K:
        pack_rows(QUANT_Q5_K, rows, n_cols, ret_tile);
        break;
    case QUANT_Q6_K:
        pack_rows(QUANT_Q6_K, rows, n_cols, ret_tile);
        break;
    default:
        pack_bf16(rows, n_cols, ret_tile);
    }
}

/* --- reading one row -------------------------------------------------------------------------- */

/* Lane i: columns 4 k + j from the low nibbles, 16 further from the high ones. */
static void read_nibbles(const uint8_t q[4][16][4], unsigned i, int8_t *ret)
{
    for (int k = 0; k < 4; k++) {
        for (int j = 0; j < 4; j++) {
            ret[4 * k + j] = (int8_t)(q[k][i][j] & 15);
            ret[4 * k + j + 16] = (int8_t)(q[k][i][j] >> 4);
        }
    }
}

/* Bit 4 i + j of h[k] is column 4 k + j's. */
static void read_fifth(const uint64_t h[8], unsigned i, int8_t *q)
{
    for (unsigned c = 0; c < 32; c++)
        q[c] = (int8_t)(q[c] | (h[c / 4] >> (4 * i + c % 4) & 1) << 4);
}

/* From unsigned, as stored, to the value that the scale is for. */
static void shift_down(int8_t *q, int by)
{
    for (int c = 0; c < 32; c++)
        q[c] = (int8_t)(q[c] - by);
}

/* pack_q6_k's places, the other way round. */
static void read_q6_k(const struct tile_q6_k *t, unsigned g, unsigned i, struct tile_row *ret)
{
    const struct tile_q6_k_group *from = &t->g[g];
    float d = quant_f16_to_f32(t->d[i]);

    read_nibbles(from->q, i, ret->q);
    for (unsigned c = 0; c < 32; c++) {
        unsigned k = c / 4, bits = from->h[k % 2][i][c % 4] >> (2 * (k / 2)) & 3;

        ret->q[c] = (int8_t)((ret->q[c] | (int)(bits << 4)) - 32);
    }
    for (int half = 0; half < 2; half++)
        ret->scale[half] = d * (float)from->scale[half][i];
}

/* One scale for both halves: what all types have but Q6_K. */
static void set_scale(struct tile_row *ret, float scale, float min)
{
    ret->scale[0] = ret->scale[1] = scale;
    ret->min = min;
}

/* Products and their order as in quant.c, so that values are equal to the bit. */
void tile_read(enum quant type, const void *tile, unsigned i, uint32_t block, struct tile_row *ret)
{
    const uint8_t *at =
        (const uint8_t *)tile + (size_t)(32 * block / blocks[type].cols) * blocks[type].bytes;
    union {
        const void *p;
        const struct tile_q4_0 *q4_0;
        const struct tile_q4_1 *q4_1;
        const struct tile_q5_0 *q5_0;
        const struct tile_q5_1 *q5_1;
        const struct tile_q8_0 *q8_0;
        const struct tile_q4_k *q4_k;
        const struct tile_q5_k *q5_k;
    } t = { at };
    /* Of a super-block: the other types do not look at it. */
    unsigned g = block % 8;

    ret->min = 0;
    switch (type) {
    case QUANT_Q4_0:
        read_nibbles(t.q4_0->q, i, ret->q);
        shift_down(ret->q, 8);
        set_scale(ret, quant_f16_to_f32(t.q4_0->d[i]), 0);
        break;
    case QUANT_Q4_1:
        read_nibbles(t.q4_1->q, i, ret->q);
        set_scale(ret, quant_f16_to_f32(t.q4_1->d[i]), quant_f16_to_f32(t.q4_1->m[i]));
        break;
    case QUANT_Q5_0:
        read_nibbles(t.q5_0->q, i, ret->q);
        read_fifth(t.q5_0->h, i, ret->q);
        shift_down(ret->q, 16);
        set_scale(ret, quant_f16_to_f32(t.q5_0->d[i]), 0);
        break;
    case QUANT_Q5_1:
        read_nibbles(t.q5_1->q, i, ret->q);
        read_fifth(t.q5_1->h, i, ret->q);
        set_scale(ret, quant_f16_to_f32(t.q5_1->d[i]), quant_f16_to_f32(t.q5_1->m[i]));
        break;
    case QUANT_Q8_0:
        for (int k = 0; k < 8; k++)
            memcpy(ret->q + 4 * k, t.q8_0->q[k][i], 4);
        set_scale(ret, quant_f16_to_f32(t.q8_0->d[i]), 0);
        break;
    case QUANT_Q4_K:
        read_nibbles(t.q4_k->g[g].q, i, ret->q);
        set_scale(ret, quant_f16_to_f32(t.q4_k->d[i]) * (float)t.q4_k->g[g].scale[i],
                  -(quant_f16_to_f32(t.q4_k->dmin[i]) * (float)t.q4_k->g[g].min[i]));
        break;
    case QUANT_Q5_K:
        read_nibbles(t.q5_k->g[g].q, i, ret->q);
        read_fifth(t.q5_k->g[g].h, i, ret->q);
        set_scale(ret, quant_f16_to_f32(t.q5_k->d[i]) * (float)t.q5_k->g[g].scale[i],
                  -(quant_f16_to_f32(t.q5_k->dmin[i]) * (float)t.q5_k->g[g].min[i]));
        break;
    default:
        read_q6_k(t.p, g, i, ret);
    }
}

/* Bytes from one value of a row to its next but for BF16, whose pairs lie together. */
float tile_read_float(enum quant type, const void *tile, unsigned i, uint32_t col)
{
    const uint8_t *t = tile;
    float ret;

    if (type == QUANT_F32)
        quant_dequantise_row(type, t + ((size_t)col * TILE_ROWS + i) * 4, 1, &ret);
    else if (type == QUANT_F16)
        quant_dequantise_row(type, t + ((size_t)col * TILE_ROWS + i) * 2, 1, &ret);
    else
        quant_dequantise_row(type, t + ((size_t)(col / 2) * TILE_ROWS + i) * 4 + col % 2 * 2, 1,
                             &ret);
    return ret;
}

/* The embedding of a token, block by block. */
void tile_dequantise_row(enum quant type, const void *tiles, uint32_t row, uint32_t n_cols,
                         float *ret)
{
    const uint8_t *tile = (const uint8_t *)tiles + row / TILE_ROWS * tile_len(type, n_cols);
    unsigned i = row % TILE_ROWS;

    if (quant_info(type)->block_cols == 1) {
        for (uint32_t c = 0; c < n_cols; c++)
            ret[c] = tile_read_float(type, tile, i, c);
        return;
    }
    for (uint32_t b = 0; b < n_cols / 32; b++, ret += 32) {
        struct tile_row r;

        tile_read(type, tile, i, b, &r);
        for (int c = 0; c < 32; c++)
            ret[c] = r.scale[c / 16] * (float)r.q[c] + r.min;
    }
}
