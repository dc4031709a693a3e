/* engine/cpu/lsq.c - normal equations, their factor, and what it solves.
 *
 * Most of the time goes into products, which the kernels of the model's f32 weights do. For the
 * factor and what it solves plain loops that compilers make vectors of are enough at this size, and
 * no library with threads of its own has to be kept from them.
 */
#include "engine/cpu/lsq.h"

#include "base/clones.h"
#include "engine/fit.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int lsq_open(struct lsq *l, uint32_t n_queries, uint32_t n_keys, uint32_t n_cols)
{
    size_t q = n_queries, n = n_keys, c = n_cols, wide = tile_count(n_cols) * TILE_ROWS;
    size_t p = q < n ? q : n, most = q < n ? n : q;
    struct {
        float **at;
        size_t n;
    } parts[] = { { &l->bt, n * q },       { &l->y, most * c },       { &l->g, p * p },
                  { &l->tiles, p * most }, { &l->wide, wide * most }, { &l->col, p } };

    *l = (struct lsq){ .bt = NULL };
    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
        *parts[i].at = malloc(parts[i].n * sizeof(float));
        if (!*parts[i].at) {
            lsq_close(l);
            return -ENOMEM;
        }
    }
    return 0;
}

void lsq_close(struct lsq *l)
{
    float *parts[] = { l->bt, l->y, l->g, l->tiles, l->wide, l->col };

    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++)
        free(parts[i]);
    *l = (struct lsq){ .bt = NULL };
}

/* --- products --------------------------------------------------------------------------------- */

void lsq_multiply(const struct kernels *k, const float *tiles, uint32_t first, uint32_t n_rows,
                  const float *x, uint32_t n, uint32_t n_cols, float *y, size_t y_stride)
{
    struct kernels_matmul dot = { .type = QUANT_F32,
                                  .w = tiles,
                                  .tile_len = (size_t)n_cols * TILE_ROWS * sizeof(float),
                                  .n_rows = n_rows,
                                  .n_cols = n_cols,
                                  .x = x,
                                  .x_row_bytes = n_cols * sizeof(float),
                                  .n_x = n,
                                  .y = y,
                                  .y_stride = y_stride };

    if (first < n_rows)
        k->matmul[QUANT_F32](&dot, first, n_rows);
}

void lsq_pack_columns(const float *x, uint32_t n, uint32_t n_cols, float *ret)
{
    for (uint32_t c = 0; c < n_cols; c += TILE_ROWS) {
        uint32_t here = n_cols - c < TILE_ROWS ? n_cols - c : TILE_ROWS;

        for (uint32_t i = 0; i < n; i++, ret += TILE_ROWS) {
            memcpy(ret, x + (size_t)i * n_cols + c, here * sizeof(*ret));
            memset(ret + here, 0, (TILE_ROWS - here) * sizeof(*ret));
        }
    }
}

/* 16 columns at a time: they are a cache line of each row. */
static void transpose(const float *x, uint32_t n, uint32_t n_cols, float *ret)
{
    for (uint32_t c = 0; c < n_cols; c += TILE_ROWS)
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t k = c; k < c + TILE_ROWS; k++)
                ret[(size_t)k * n + i] = x[(size_t)i * n_cols + k];
}

/* l->g = x x', its lower half by tiles; x (n, n_cols), and xt transposed. */
static void normal_matrix(const struct kernels *k, struct lsq *l, const float *x, const float *xt,
                          uint32_t n, uint32_t n_cols)
{
    lsq_pack_columns(xt, n_cols, n, l->tiles);
    for (uint32_t i = 0; i < n; i += TILE_ROWS)
        lsq_multiply(k, l->tiles, i, i + TILE_ROWS, x + (size_t)i * n_cols, n - i, n_cols,
                     l->g + (size_t)i * n, n);
}

/* --- solving ---------------------------------------------------------------------------------- */

/* The ridge goes to the diagonal. 0 or no number: there is nothing to fit to. */
static float add_ridge(float *g, uint32_t p, uint32_t n_keys)
{
    float sum = 0;

    for (uint32_t i = 0; i < p; i++)
        sum += g[(size_t)i * p + i];
    sum *= FIT_RIDGE / (float)n_keys;
    for (uint32_t i = 0; i < p; i++)
        g[(size_t)i * p + i] += sum;
    return sum;
}

/* g (p, p), of which the lower half is looked at, becomes the factor L of g = LL'. Column by
 * column, so that the inner loop is one that compilers make vectors of. */
CLONES static void factor(float *g, uint32_t p, float *col)
{
    for (uint32_t k = 0; k < p; k++) {
        float pivot = sqrtf(g[(size_t)k * p + k]);

        for (uint32_t i = k; i < p; i++)
            col[i] = g[(size_t)i * p + k] /= pivot;
        for (uint32_t i = k + 1; i < p; i++) {
            float *restrict row = g + (size_t)i * p, by = col[i];

            for (uint32_t j = k + 1; j <= i; j++)
                row[j] -= by * col[j];
        }
    }
}

static inline void subtract(float *restrict y, const float *restrict x, float by, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        y[i] -= by * x[i];
}

/* y (p, c) becomes (LL')^-1 y. */
CLONES static void solve(const float *l, uint32_t p, float *y, uint32_t n_cols)
{
    for (uint32_t i = 0; i < p; i++) {
        float *row = y + (size_t)i * n_cols;

        for (uint32_t k = 0; k < i; k++)
            subtract(row, y + (size_t)k * n_cols, l[(size_t)i * p + k], n_cols);
        for (uint32_t c = 0; c < n_cols; c++)
            row[c] /= l[(size_t)i * p + i];
    }
    for (uint32_t i = p; i-- > 0;) {
        float *row = y + (size_t)i * n_cols;

        for (uint32_t c = 0; c < n_cols; c++)
            row[c] /= l[(size_t)i * p + i];
        for (uint32_t k = 0; k < i; k++)
            subtract(y + (size_t)k * n_cols, row, l[(size_t)i * p + k], n_cols);
    }
}

/* What B V0 leaves of T. Of that the solution is made, and not of T itself: where the values that
 * are there are right, no rounding changes them much. */
static void take_residual(struct lsq *l, const struct lsq_system *s)
{
    lsq_pack_columns(s->v0, s->n_keys, s->n_cols, l->wide);
    lsq_multiply(s->k, l->wide, 0, s->n_cols, s->b, s->n_queries, s->n_keys, l->y, s->n_cols);
    for (size_t i = 0; i < (size_t)s->n_queries * s->n_cols; i++)
        s->t[i] -= l->y[i];
}

/* l->y = B't. */
static void by_transpose(struct lsq *l, const struct lsq_system *s)
{
    lsq_pack_columns(s->t, s->n_queries, s->n_cols, l->wide);
    lsq_multiply(s->k, l->wide, 0, s->n_cols, l->bt, s->n_keys, s->n_queries, l->y, s->n_cols);
}

/* (B'B + r)^-1 B't, to l->y. */
static bool solve_keys(struct lsq *l, const struct lsq_system *s)
{
    normal_matrix(s->k, l, l->bt, s->b, s->n_keys, s->n_queries);
    if (!(add_ridge(l->g, s->n_keys, s->n_real) > 0))
        return false;
    by_transpose(l, s);
    factor(l->g, s->n_keys, l->col);
    solve(l->g, s->n_keys, l->y, s->n_cols);
    return true;
}

/* B'(BB' + r)^-1 t, to l->y. */
static bool solve_queries(struct lsq *l, const struct lsq_system *s)
{
    normal_matrix(s->k, l, s->b, l->bt, s->n_queries, s->n_keys);
    if (!(add_ridge(l->g, s->n_queries, s->n_real) > 0))
        return false;
    factor(l->g, s->n_queries, l->col);
    solve(l->g, s->n_queries, s->t, s->n_cols);
    by_transpose(l, s);
    return true;
}

bool lsq_solve(struct lsq *l, const struct lsq_system *s)
{
    transpose(s->b, s->n_queries, s->n_keys, l->bt);
    take_residual(l, s);
    return s->n_keys <= s->n_queries ? solve_keys(l, s) : solve_queries(l, s);
}
