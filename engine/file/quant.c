/* engine/file/quant.c - blocks as files have them, half precision, and whether values are numbers.
 *
 * Values are ggml's to the bit, so that a model answers here what it answers there: products are
 * made in its order, and this file is compiled without contraction (Makefile).
 */
#include "engine/file/quant.h"

#include <errno.h>
#include <string.h>

_Static_assert(sizeof(struct quant_q4_0) == 18, "stored layout");
_Static_assert(sizeof(struct quant_q4_1) == 20, "stored layout");
_Static_assert(sizeof(struct quant_q8_0) == 34, "stored layout");
_Static_assert(sizeof(struct quant_q4_k) == 144, "stored layout");
_Static_assert(sizeof(struct quant_q6_k) == 210, "stored layout");
_Static_assert(sizeof(struct quant_q5_0) == 22, "stored layout");
_Static_assert(sizeof(struct quant_q5_1) == 24, "stored layout");
_Static_assert(sizeof(struct quant_q5_k) == 176, "stored layout");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "blocks are read as they are stored");

static const struct quant_info infos[QUANT__N] = {
    [QUANT_F32] = { "F32", 0, 1, 4 },
    [QUANT_F16] = { "F16", 1, 1, 2 },
    [QUANT_BF16] = { "BF16", 30, 1, 2 },
    [QUANT_Q4_0] = { "Q4_0", 2, 32, sizeof(struct quant_q4_0) },
    [QUANT_Q4_1] = { "Q4_1", 3, 32, sizeof(struct quant_q4_1) },
    [QUANT_Q8_0] = { "Q8_0", 8, 32, sizeof(struct quant_q8_0) },
    [QUANT_Q4_K] = { "Q4_K", 12, 256, sizeof(struct quant_q4_k) },
    [QUANT_Q6_K] = { "Q6_K", 14, 256, sizeof(struct quant_q6_k) },
    [QUANT_Q5_0] = { "Q5_0", 6, 32, sizeof(struct quant_q5_0) },
    [QUANT_Q5_1] = { "Q5_1", 7, 32, sizeof(struct quant_q5_1) },
    [QUANT_Q5_K] = { "Q5_K", 13, 256, sizeof(struct quant_q5_k) },
};

const struct quant_info *quant_info(enum quant type)
{
    return &infos[type];
}

/* -ENOTSUP for what ggml has and we have not; a file's number, so not an assert. */
int quant_from_gguf(uint32_t gguf_type, enum quant *ret_type)
{
    for (int t = 0; t < QUANT__N; t++) {
        if (infos[t].gguf_type == gguf_type) {
            *ret_type = (enum quant)t;
            return 0;
        }
    }
    return -ENOTSUP;
}

size_t quant_row_bytes(enum quant type, size_t n_cols)
{
    return n_cols / infos[type].block_cols * infos[type].block_bytes;
}

/* --- half precision --------------------------------------------------------------------------- */

/* By memcpy, which is how C lets one see a float's bits; compilers make a move of it. */
static float float_of_bits(uint32_t bits)
{
    float f;

    memcpy(&f, &bits, sizeof(f));
    return f;
}

static uint32_t bits_of_float(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, sizeof(bits));
    return bits;
}

/* Like the CPU's own conversion (F16C) in every bit, NaNs included: they come out quiet. */
float quant_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t exponent = h >> 10 & 31, mantissa = h & 1023;

    if (exponent == 31)
        return float_of_bits(sign | 0x7f800000 | mantissa << 13 | (mantissa ? 0x400000 : 0));
    if (exponent == 0) {
        float tiny = (float)mantissa * 0x1p-24f; /* exact: every denormal half is a normal float */

        return sign ? -tiny : tiny;
    }
    return float_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t quant_f32_to_f16(float f)
{
    uint32_t bits = bits_of_float(f);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);

    bits &= 0x7fffffff;
    if (bits > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (bits >> 13 & 0x1ff));
    if (bits >= bits_of_float(65520.0f)) /* half way between the largest half and 2^16 */
        return sign | 0x7c00;
    if (bits < bits_of_float(0x1p-14f)) {
        /* Beside 0.5 a float's last place is 2^-24, as a denormal half's: the sum rounds for us. */
        bits = bits_of_float(float_of_bits(bits) + 0.5f);
        return (uint16_t)(sign | (bits - bits_of_float(0.5f)));
    }
    bits += 0xfff + (bits >> 13 & 1); /* to nearest, ties to even; may carry into the exponent */
    return (uint16_t)(sign | ((bits >> 13) - (112u << 10)));
}

/* --- rows ------------------------------------------------------------------------------------- */

union block {
    struct quant_q4_0 q4_0;
    struct quant_q4_1 q4_1;
    struct quant_q8_0 q8_0;
    struct quant_q4_k q4_k;
    struct quant_q6_k q6_k;
    struct quant_q5_0 q5_0;
    struct quant_q5_1 q5_1;
    struct quant_q5_k q5_k;
};

/* Each reads one block. Order of the products as in ggml, so that values are equal in every bit. */

static void dequantise_q4_0(const union block *u, float *ret)
{
    const struct quant_q4_0 *b = &u->q4_0;
    float d = quant_f16_to_f32(b->d);

    for (int i = 0; i < 16; i++) {
        ret[i] = d * (float)((b->q[i] & 15) - 8);
        ret[i + 16] = d * (float)((b->q[i] >> 4) - 8);
    }
}

static void dequantise_q4_1(const union block *u, float *ret)
{
    const struct quant_q4_1 *b = &u->q4_1;
    float d = quant_f16_to_f32(b->d), m = quant_f16_to_f32(b->m);

    for (int i = 0; i < 16; i++) {
        ret[i] = d * (float)(b->q[i] & 15) + m;
        ret[i + 16] = d * (float)(b->q[i] >> 4) + m;
    }
}

static void dequantise_q8_0(const union block *u, float *ret)
{
    const struct quant_q8_0 *b = &u->q8_0;
    float d = quant_f16_to_f32(b->d);

    for (int i = 0; i < 32; i++)
        ret[i] = d * (float)b->q[i];
}

/* Twelve bytes hold eight 6-bit scales and eight 6-bit minima:
 *
 *     byte j, 0 to 3      scale j      low 6 bits; its top 2 bits are scale  j + 4's bits 4 and 5
 *     byte j + 4          minimum j    low 6 bits; its top 2 bits are minimum j + 4's bits 4 and 5
 *     byte j + 8          low nibble: scale j + 4's bits 0 to 3, high nibble: minimum j + 4's
 */
void quant_q4_k_scale(const uint8_t scales[12], unsigned j, uint8_t *ret_scale, uint8_t *ret_min)
{
    if (j < 4) {
        *ret_scale = scales[j] & 63;
        *ret_min = scales[j + 4] & 63;
    } else {
        *ret_scale = (uint8_t)((scales[j + 4] & 15) | scales[j - 4] >> 6 << 4);
        *ret_min = (uint8_t)(scales[j + 4] >> 4 | scales[j] >> 6 << 4);
    }
}

/* 32 bytes hold two groups of 32: the low nibbles one, the high nibbles the next. */
static void dequantise_q4_k(const union block *u, float *ret)
{
    const struct quant_q4_k *b = &u->q4_k;
    float d = quant_f16_to_f32(b->d), dmin = quant_f16_to_f32(b->dmin);

    for (unsigned j = 0; j < 8; j++) {
        const uint8_t *q = b->q + j / 2 * 32;
        uint8_t scale, min;
        float by, minus;

        quant_q4_k_scale(b->scales, j, &scale, &min);
        by = d * (float)scale;
        minus = dmin * (float)min;
        for (int i = 0; i < 32; i++)
            ret[j * 32 + (unsigned)i] = by * (float)(q[i] >> (j % 2 * 4) & 15) - minus;
    }
}

/* Each half of the block, 128 values, is four groups of 32. Groups 0 and 1 are the low nibbles of
 * its 64 bytes of ql, groups 2 and 3 the high ones; group g's upper bits are bits 2g and 2g + 1 of
 * its 32 bytes of qh. */
static void dequantise_q6_k(const union block *u, float *ret)
{
    const struct quant_q6_k *b = &u->q6_k;
    float d = quant_f16_to_f32(b->d);

    for (unsigned half = 0; half < 2; half++) {
        const uint8_t *qh = b->qh + half * 32;

        for (unsigned g = 0; g < 4; g++) {
            const uint8_t *ql = b->ql + half * 64 + g % 2 * 32;
            const int8_t *scale = b->scales + half * 8 + g * 2;

            for (unsigned i = 0; i < 32; i++) {
                int q = (ql[i] >> (g / 2 * 4) & 15) | (qh[i] >> (g * 2) & 3) << 4;

                *ret++ = d * (float)scale[i / 16] * (float)(q - 32);
            }
        }
    }
}

/* The fifth bits of a Q5_0 or Q5_1 block: bit i belongs to value i. qh is not aligned within a
 * block of 22 bytes. */
static uint32_t fifth_bits(const uint8_t qh[4])
{
    uint32_t bits;

    memcpy(&bits, qh, sizeof(bits));
    return bits;
}

/* Value i of 32: nibbles as in Q4_0, the fifth bit on top. */
static int five_bits(const uint8_t q[16], uint32_t high, unsigned i)
{
    int low = i < 16 ? q[i] & 15 : q[i - 16] >> 4;

    return low | (int)(high >> i & 1) << 4;
}

static void dequantise_q5_0(const union block *u, float *ret)
{
    const struct quant_q5_0 *b = &u->q5_0;
    float d = quant_f16_to_f32(b->d);
    uint32_t high = fifth_bits(b->qh);

    for (unsigned i = 0; i < 32; i++)
        ret[i] = d * (float)(five_bits(b->q, high, i) - 16);
}

static void dequantise_q5_1(const union block *u, float *ret)
{
    const struct quant_q5_1 *b = &u->q5_1;
    float d = quant_f16_to_f32(b->d), m = quant_f16_to_f32(b->m);
    uint32_t high = fifth_bits(b->qh);

    for (unsigned i = 0; i < 32; i++)
        ret[i] = d * (float)five_bits(b->q, high, i) + m;
}

/* As Q4_K; bit j of qh[i] is the fifth bit of value i of group j. */
static void dequantise_q5_k(const union block *u, float *ret)
{
    const struct quant_q5_k *b = &u->q5_k;
    float d = quant_f16_to_f32(b->d), dmin = quant_f16_to_f32(b->dmin);

    for (unsigned j = 0; j < 8; j++) {
        const uint8_t *q = b->q + j / 2 * 32;
        uint8_t scale, min;
        float by, minus;

        quant_q4_k_scale(b->scales, j, &scale, &min);
        by = d * (float)scale;
        minus = dmin * (float)min;
        for (unsigned i = 0; i < 32; i++) {
            int v = (q[i] >> (j % 2 * 4) & 15) | (b->qh[i] >> j & 1) << 4;

            ret[j * 32 + i] = by * (float)v - minus;
        }
    }
}

static void (*const dequantise_block[QUANT__N])(const union block *u, float *ret) = {
    [QUANT_Q4_0] = dequantise_q4_0, [QUANT_Q4_1] = dequantise_q4_1, [QUANT_Q8_0] = dequantise_q8_0,
    [QUANT_Q4_K] = dequantise_q4_k, [QUANT_Q6_K] = dequantise_q6_k, [QUANT_Q5_0] = dequantise_q5_0,
    [QUANT_Q5_1] = dequantise_q5_1, [QUANT_Q5_K] = dequantise_q5_k,
};

/* Copied one by one: src need not be aligned. */
static void dequantise_f16(const uint8_t *src, size_t n, float *ret)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h;

        memcpy(&h, src + i * sizeof(h), sizeof(h));
        ret[i] = quant_f16_to_f32(h);
    }
}

static void dequantise_bf16(const uint8_t *src, size_t n, float *ret)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h;

        memcpy(&h, src + i * sizeof(h), sizeof(h));
        ret[i] = float_of_bits((uint32_t)h << 16);
    }
}

void quant_dequantise_row(enum quant type, const void *src, size_t n_cols, float *ret)
{
    const struct quant_info *info = &infos[type];
    const uint8_t *p = src;

    if (type == QUANT_F32) {
        memcpy(ret, src, n_cols * sizeof(*ret));
        return;
    }
    if (type == QUANT_F16) {
        dequantise_f16(p, n_cols, ret);
        return;
    }
    if (type == QUANT_BF16) {
        dequantise_bf16(p, n_cols, ret);
        return;
    }
    for (size_t i = 0; i < n_cols; i += info->block_cols, p += info->block_bytes) {
        union block b; /* a copy: src need not be aligned */

        memcpy(&b, p, info->block_bytes);
        dequantise_block[type](&b, ret + i);
    }
}

/* --- numbers or not --------------------------------------------------------------------------- */

/* An exponent of ones is what NaN and infinity have in common: one more carries into the sign's
 * place. Loops without a branch, so that they become vectors: a loader asks for every value of a
 * file. */
static bool finite_32(const uint8_t *p, size_t n)
{
    uint32_t carries = 0;

    for (size_t i = 0; i < n; i++) {
        uint32_t v;

        memcpy(&v, p + 4 * i, sizeof(v));
        carries |= (v & 0x7fffffff) + 0x00800000;
    }
    return !(carries >> 31);
}

/* one: the last place of the exponent. */
static bool finite_16(const uint8_t *p, size_t n, uint16_t one)
{
    uint16_t carries = 0;

    for (size_t i = 0; i < n; i++) {
        uint16_t v;

        memcpy(&v, p + 2 * i, sizeof(v));
        carries |= (uint16_t)((v & 0x7fff) + one);
    }
    return !(carries >> 15);
}

/* The halves of a block: the first one's place, and how many there are. */
static const struct {
    uint8_t off, n;
} halves[QUANT__N] = {
    [QUANT_Q4_0] = { offsetof(struct quant_q4_0, d), 1 },
    [QUANT_Q4_1] = { offsetof(struct quant_q4_1, d), 2 },
    [QUANT_Q8_0] = { offsetof(struct quant_q8_0, d), 1 },
    [QUANT_Q4_K] = { offsetof(struct quant_q4_k, d), 2 },
    [QUANT_Q6_K] = { offsetof(struct quant_q6_k, d), 1 },
    [QUANT_Q5_0] = { offsetof(struct quant_q5_0, d), 1 },
    [QUANT_Q5_1] = { offsetof(struct quant_q5_1, d), 2 },
    [QUANT_Q5_K] = { offsetof(struct quant_q5_k, d), 2 },
};

/* p: the half of the first of n_blocks blocks, of len bytes each. */
static bool finite_halves(const uint8_t *p, size_t n_blocks, size_t len)
{
    uint32_t bad = 0;

    for (size_t i = 0; i < n_blocks; i++, p += len)
        bad |= ((uint32_t)p[1] & 0x7c) == 0x7c; /* its upper byte has the exponent */
    return !bad;
}

bool quant_finite(enum quant type, const void *src, size_t n_cols)
{
    const struct quant_info *info = &infos[type];
    const uint8_t *p = src;
    bool good = true;

    if (type == QUANT_F32)
        return finite_32(p, n_cols);
    if (info->block_cols == 1)
        return finite_16(p, n_cols, type == QUANT_F16 ? 0x0400 : 0x0080);
    for (size_t i = 0; i < halves[type].n; i++)
        good &= finite_halves(p + halves[type].off + 2 * i, n_cols / info->block_cols,
                              info->block_bytes);
    return good;
}
