/* engine/file/tile.h - the layout that weights are kept in: tiles of 16 rows, a row a vector lane.
 *
 * A weight (n_rows, n_cols) of a file is rows of blocks (engine/file/quant.h). Here 16 rows lie
 * side by side, so that a kernel broadcasts activations against whole vectors of rows, never adds
 * across lanes, and reads memory from one end to the other:
 *
 *     weight   | tile of rows 0 to 15 | rows 16 to 31 | ... | the last, its missing rows zeros |
 *     tile     | block of columns 0 to 31 | 32 to 63 | ...          (or a super-block of 256)
 *     block    | scales of 16 rows | minima of 16 rows | quants |
 *
 *     quants   32 columns are eight dwords a row; dword k holds columns 4k to 4k + 3, a byte each:
 *                        lane 0              lane 1                    lane 15
 *              q[k]   r0: 4k 4k+1 4k+2 4k+3 | r1: 4k .. 4k+3 | .. | r15: 4k .. 4k+3
 *              Nibbles: q[k] has dword k in its low and dword k + 4 in its high nibbles (k 0 to 3).
 *     fifth bits   bit 4 i + j of h[k] belongs to column 4k + j of row i.
 *     floats   a column after the other, 16 rows each; BF16 two columns side by side for each row
 *              (an odd last one with a zero).
 *
 * All bits of the file's formats are kept, and nothing is rounded: the 6-bit scales and minima of
 * Q4_K and Q5_K take a byte each (2 to 3 % more memory), the rest is as large as in the file.
 *
 * Threads    pure functions.
 */
#ifndef ENGINE_FILE_TILE_H
#define ENGINE_FILE_TILE_H

#include "engine/file/quant.h"

#define TILE_ROWS 16u

struct tile_q4_0 {
    uint16_t d[16];
    uint8_t q[4][16][4];
};
struct tile_q4_1 {
    uint16_t d[16], m[16];
    uint8_t q[4][16][4];
};
struct tile_q5_0 {
    uint16_t d[16];
    uint8_t q[4][16][4];
    uint64_t h[8];
};
struct tile_q5_1 {
    uint16_t d[16], m[16];
    uint8_t q[4][16][4];
    uint64_t h[8];
};
struct tile_q8_0 {
    uint16_t d[16];
    int8_t q[8][16][4];
};

/* Super-blocks: eight groups of 32 columns. */
struct tile_q4_k_group {
    uint8_t scale[16], min[16];
    uint8_t q[4][16][4];
};
struct tile_q4_k {
    uint16_t d[16], dmin[16];
    struct tile_q4_k_group g[8];
};
struct tile_q5_k_group {
    uint8_t scale[16], min[16];
    uint8_t q[4][16][4];
    uint64_t h[8];
};
struct tile_q5_k {
    uint16_t d[16], dmin[16];
    struct tile_q5_k_group g[8];
};

/* Upper bits of dword k: bits 2 (k / 2) and 2 (k / 2) + 1 of each byte of h[k % 2]. A scale covers
 * 16 columns. */
struct tile_q6_k_group {
    int8_t scale[2][16];
    uint8_t q[4][16][4];
    uint8_t h[2][16][4];
};
struct tile_q6_k {
    uint16_t d[16];
    struct tile_q6_k_group g[8];
};

/* Bytes of a tile; n_cols is a multiple of the type's block. */
size_t tile_len(enum quant type, uint32_t n_cols);

/* Tiles of n_rows rows. */
static inline uint32_t tile_count(uint32_t n_rows)
{
    return (n_rows + TILE_ROWS - 1) / TILE_ROWS;
}

/* Makes a tile of 16 rows as a file has them; a row that is NULL is zeros. */
void tile_pack(enum quant type, const void *const rows[TILE_ROWS], uint32_t n_cols, void *ret_tile);

/* 32 columns of one row of a quantised type: column c is scale[c / 16] * q[c] + min, each product
 * and sum rounded once, the same bits as quant_dequantise_row. */
struct tile_row {
    float scale[2], min;
    int8_t q[32];
};
void tile_read(enum quant type, const void *tile, unsigned lane, uint32_t block,
               struct tile_row *ret);

/* One value of a float type. */
float tile_read_float(enum quant type, const void *tile, unsigned lane, uint32_t col);

/* Row `row` of a weight of tiles: n_cols floats. */
void tile_dequantise_row(enum quant type, const void *tiles, uint32_t row, uint32_t n_cols,
                         float *ret);

#endif
