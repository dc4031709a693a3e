/* engine/cpu/lsq.h - least squares with a ridge, in f32, for engine/cpu/fit.c.
 *
 * With B (q, n), T (q, c) and V0 (n, c) the V that brings B V near to T and stays near V0 is
 *
 *     V = V0 + (B'B + r)^-1 B't       n x n, with t = T - B V0
 *       = V0 + B'(BB' + r)^-1 t         q x q
 *
 * which are the same: the smaller matrix is taken. The ridge r keeps its condition below n / 1e-2,
 * so that f32 does.
 *
 * Products go through the table's kernel, whose tiles of 16 rows fix the padding: q and n are
 * multiples of 16, and rows and columns of zeros say nothing to a least square.
 *
 * Threads    a struct lsq is one worker's.
 * Errors     lsq_open: -ENOMEM.
 */
#ifndef ENGINE_CPU_LSQ_H
#define ENGINE_CPU_LSQ_H

#include "engine/cpu/kernels.h"

#include <stdbool.h>

/* Room for the largest q, n and c. */
struct lsq {
    float *bt;           /* (n, q) */
    float *y;            /* (most of q and n, c) */
    float *g;            /* (p, p), p the smaller of q and n */
    float *tiles, *wide; /* (p, most) and (c, most), in tiles of 16 rows */
    float *col;          /* (p) */
};

struct lsq_system {
    const struct kernels *k;
    uint32_t n_queries, n_keys, n_cols; /* q, n, c */
    uint32_t n_real; /* keys that are no padding: the ridge is 1e-2 of their mean */
    const float *b;
    float *t; /* T, and afterwards something else */
    const float *v0;
};

int lsq_open(struct lsq *l, uint32_t n_queries, uint32_t n_keys, uint32_t n_cols);
void lsq_close(struct lsq *l);

/* V - V0, (n, c) in l->y. false: B is zeros, or no numbers. */
bool lsq_solve(struct lsq *l, const struct lsq_system *s);

/* y (n, n_rows) = x (n, n_cols) times rows of tiles (engine/file/tile.h, f32), those of [first,
 * n_rows); y's rows are y_stride floats apart. */
void lsq_multiply(const struct kernels *k, const float *tiles, uint32_t first, uint32_t n_rows,
                  const float *x, uint32_t n, uint32_t n_cols, float *y, size_t y_stride);
/* Columns of x (n, n_cols) become rows of tiles: those of its transpose. */
void lsq_pack_columns(const float *x, uint32_t n, uint32_t n_cols, float *ret);

#endif
