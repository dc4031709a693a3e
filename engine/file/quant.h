/* engine/file/quant.h - the block formats that weights are stored in, and their dequantisation.
 *
 * Source: the GGUF specification and ggml's block definitions (ggml-common.h). A row of n_cols
 * values is a sequence of blocks along the row; all numbers little-endian; d, m, dmin are IEEE f16.
 *
 *     type   values  bytes  value of element i
 *     F32        1      4
 *     F16        1      2
 *     BF16       1      2
 *     Q4_0      32     18   d * (nibble - 8)
 *     Q4_1      32     20   d * nibble + m
 *     Q8_0      32     34   d * int8
 *     Q4_K     256    144   d * sc[i/32] * nibble - dmin * mn[i/32]
 *     Q6_K     256    210   d * sc[i/16] * (6 bits - 32)
 *     Q5_0      32     22   d * (5 bits - 16)
 *     Q5_1      32     24   d * 5 bits + m
 *     Q5_K     256    176   d * sc[i/32] * 5 bits - dmin * mn[i/32]
 *
 * Threads    pure functions.
 */
#ifndef ENGINE_FILE_QUANT_H
#define ENGINE_FILE_QUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum quant {
    QUANT_F32,
    QUANT_F16,
    QUANT_BF16,
    QUANT_Q4_0,
    QUANT_Q4_1,
    QUANT_Q8_0,
    QUANT_Q4_K,
    QUANT_Q6_K,
    QUANT_Q5_0,
    QUANT_Q5_1,
    QUANT_Q5_K,
    QUANT__N
};

struct quant_q4_0 {
    uint16_t d;
    uint8_t q[16];
};
struct quant_q4_1 {
    uint16_t d, m;
    uint8_t q[16];
};
struct quant_q8_0 {
    uint16_t d;
    int8_t q[32];
};
struct quant_q4_k {
    uint16_t d, dmin;
    uint8_t scales[12];
    uint8_t q[128];
};
struct quant_q6_k {
    uint8_t ql[128];
    uint8_t qh[64];
    int8_t scales[16];
    uint16_t d;
};
struct quant_q5_0 {
    uint16_t d;
    uint8_t qh[4];
    uint8_t q[16];
};
struct quant_q5_1 {
    uint16_t d, m;
    uint8_t qh[4];
    uint8_t q[16];
};
struct quant_q5_k {
    uint16_t d, dmin;
    uint8_t scales[12];
    uint8_t qh[32];
    uint8_t q[128];
};

struct quant_info {
    const char *name;
    uint32_t gguf_type;  /* ggml's number in a GGUF tensor record */
    uint32_t block_cols; /* values a block */
    uint32_t block_bytes;
};

const struct quant_info *quant_info(enum quant type);

/* The type with this ggml number, or -ENOTSUP. */
int quant_from_gguf(uint32_t gguf_type, enum quant *ret_type);

/* Bytes of a row; n_cols is a multiple of block_cols. */
size_t quant_row_bytes(enum quant type, size_t n_cols);

/* Writes n_cols floats. src needs no alignment. */
void quant_dequantise_row(enum quant type, const void *src, size_t n_cols, float *ret);

/* No value of n_cols is NaN or infinite: of a quantised type its scales and minima are looked at,
 * as all else are integers. src needs no alignment. */
bool quant_finite(enum quant type, const void *src, size_t n_cols);

float quant_f16_to_f32(uint16_t h);
uint16_t quant_f32_to_f16(float f); /* round to nearest even */

/* The 6-bit scale and minimum of 32-value group j (0 to 7) of a Q4_K or Q5_K block. */
void quant_q4_k_scale(const uint8_t scales[12], unsigned j, uint8_t *ret_scale, uint8_t *ret_min);

#endif
