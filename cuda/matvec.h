/* cuda/matvec.h - a weight in tiles (engine/file/tile.h) times a few rows, or as bf16 for a product
 * of many.
 *
 * Threads    who has the stream (cudaStream_t). Pointers are the device's.
 * Errors     -EIO: the launch was refused.
 */
#ifndef CUDA_MATVEC_H
#define CUDA_MATVEC_H

#include "cuda/rows.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

#define K_MATVEC_ROWS 8u /* at most */

/* What a weight of this type is multiplied with: true: struct k_q8, false: float. */
bool k_matvec_takes_q8(uint32_t type);

/* y[t * y_stride + r] = sum over c of w[r][c] * x[t][c]; add: += */
struct k_matvec {
    uint32_t type; /* enum quant */
    const void *w;
    size_t tile_len;
    uint32_t n_rows, n_cols;
    const void *x;   /* (n_x, n_cols), as k_matvec_takes_q8 says */
    size_t x_stride; /* bytes from a row to the next */
    uint32_t n_x;    /* 1 to K_MATVEC_ROWS */
    float *y;
    size_t y_stride; /* floats */
    bool add;
};
int k_matvec(void *stream, const struct k_matvec *a);

/* Rows [row0, row1) of the weight as bf16: to (row1 - row0, n_cols). row0: the first of a tile. */
struct k_dequant {
    uint32_t type;
    const void *w;
    size_t tile_len;
    uint32_t n_rows, n_cols, row0, row1;
    uint16_t *to;
    uint16_t *low; /* of a float type: what bf16 leaves over, as bf16; NULL: not wanted */
};
int k_dequant(void *stream, const struct k_dequant *a);

#ifdef __cplusplus
}
#endif
#endif
