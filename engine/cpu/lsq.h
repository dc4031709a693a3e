/* engine/cpu/lsq.h - least squares with a ridge, in f32, for engine/cpu/fit.c.
 *
 * With B (q, n), T (q, c) and V0 (n, c) the V that brings B V near to T and stays near V0 is
 *
 *     V = V0 + (B'B + r)^-1 B't       with t = T - B V0
 *
 * Of t the solution is made, and not of T itself: where the values that are there are right, no
 * rounding changes them much. The ridge r keeps the condition of the sum below n / 1e-2, so that
 * f32 does, with fewer rows than keys too.
 *
 * B'B and B't are sums over rows: they come some at a time, and B is never there as a whole. n and
 * c are multiples of 16; columns of zeros say nothing to a least square.
 *
 * Threads    a struct lsq is one worker's.
 * Errors     lsq_open: -ENOMEM.
 */
#ifndef ENGINE_CPU_LSQ_H
#define ENGINE_CPU_LSQ_H

#include "engine/cpu/kernels.h"

#include <stdbool.h>
#include <stddef.h>

/* Room for the largest n and c. */
struct lsq {
    const struct kernels *k;
    uint32_t n, c;
    float *g;     /* (n, n) B'B, its lower half by tiles; then the factor */
    float *y;     /* (n, c) B't, then V - V0 */
    float *panel; /* (16, n) columns of the factor */
};

size_t lsq_bytes(uint32_t max_n, uint32_t max_c);
int lsq_open(struct lsq *l, uint32_t max_n, uint32_t max_c);
void lsq_close(struct lsq *l);

/* Nothing was added yet. */
void lsq_begin(struct lsq *l, const struct kernels *k, uint32_t n, uint32_t c);
/* Rows of B, b_row floats apart, and of t (n_rows, c). */
void lsq_add(struct lsq *l, const float *b, size_t b_row, const float *t, uint32_t n_rows);
/* V - V0, in l->y. The ridge is 1e-2 of the mean of n_real keys' diagonal. false: B is zeros, or no
 * numbers. */
bool lsq_solve(struct lsq *l, uint32_t n_real);

#endif
