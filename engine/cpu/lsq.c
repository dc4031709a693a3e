/* engine/cpu/lsq.c - normal equations, their factor, and what it solves.
 *
 * All in blocks of 16 keys: what lies between two blocks is a product, which the kernels do, and
 * the blocks on the diagonal, plain loops, are little beside them. A library's routines have
 * threads of their own that would have to be kept from them; its speed was not compared.
 */
#include "engine/cpu/lsq.h"

#include "base/clones.h"
#include "engine/fit.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK TILE_ROWS

size_t lsq_bytes(uint32_t max_n, uint32_t max_c)
{
    size_t n = max_n;

    return (n * n + n * max_c + BLOCK * n) * sizeof(float);
}

/* For the largest; a call with smaller n and c uses the first part of each, rows close together. */
int lsq_open(struct lsq *l, uint32_t max_n, uint32_t max_c)
{
    size_t n = max_n, c = max_c;

    *l = (struct lsq){ .g = malloc(n * n * sizeof(float)),
                       .y = malloc(n * c * sizeof(float)),
                       .panel = malloc(BLOCK * n * sizeof(float)) };
    if (l->g && l->y && l->panel)
        return 0;
    lsq_close(l);
    return -ENOMEM;
}

void lsq_close(struct lsq *l)
{
    free(l->g);
    free(l->y);
    free(l->panel);
    *l = (struct lsq){ .g = NULL };
}

/* --- the sums --------------------------------------------------------------------------------- */

void lsq_begin(struct lsq *l, const struct kernels *k, uint32_t n, uint32_t c)
{
    l->k = k;
    l->n = n;
    l->c = c;
    memset(l->g, 0, (size_t)n * n * sizeof(*l->g));
    memset(l->y, 0, (size_t)n * c * sizeof(*l->y));
}

/* Both are c = a'b with b's rows one after the other, as they come. Of B'B the blocks on and below
 * the diagonal alone: a column of 16 from its own row down, as the rest is the same mirrored. */
void lsq_add(struct lsq *l, const float *b, size_t b_row, const float *t, uint32_t n_rows)
{
    struct kernels_dense y = { .a = b,
                               .a_row = 1,
                               .a_col = b_row,
                               .b = t,
                               .b_tile = BLOCK,
                               .b_row = l->c,
                               .c = l->y,
                               .c_tile = BLOCK,
                               .c_row = l->c,
                               .n_rows = l->n,
                               .n_tiles = l->c / BLOCK,
                               .n_inner = n_rows,
                               .by = 1 };
    struct kernels_dense g = y;

    l->k->dense(&y);
    g.b_row = b_row;
    g.c_row = l->n;
    g.n_tiles = 1;
    for (uint32_t i = 0; i < l->n; i += BLOCK) {
        g.a = g.b = b + i;
        g.c = l->g + (size_t)i * l->n + i;
        g.n_rows = l->n - i;
        l->k->dense(&g);
    }
}

/* --- the factor ------------------------------------------------------------------------------- */

/* The ridge goes to the diagonal. 0 or no number: there is nothing to fit to. Padding and sinks
 * have zeros there, and are none of the n_real that the mean is of; with the ridge they have a
 * pivot, too. */
static float add_ridge(struct lsq *l, uint32_t n_real)
{
    float sum = 0;

    for (uint32_t i = 0; i < l->n; i++)
        sum += l->g[(size_t)i * l->n + i];
    sum *= FIT_RIDGE / (float)n_real;
    for (uint32_t i = 0; i < l->n; i++)
        l->g[(size_t)i * l->n + i] += sum;
    return sum;
}

/* A block on the diagonal becomes its factor, by Cholesky's loops. A pivot that rounding has made
 * negative becomes NaN, and so all that follows: fit.c keeps the values that it had then. */
static void factor_block(float *g, size_t row)
{
    for (uint32_t k = 0; k < BLOCK; k++) {
        float pivot = sqrtf(g[k * row + k]);

        for (uint32_t i = k; i < BLOCK; i++)
            g[i * row + k] /= pivot;
        for (uint32_t i = k + 1; i < BLOCK; i++)
            for (uint32_t j = k + 1; j <= i; j++)
                g[i * row + j] -= g[i * row + k] * g[j * row + k];
    }
}

/* n rows of 16 columns of g become rows of the panel, or the other way round. As a panel the 16
 * columns are rows: forward_block goes along them by vectors. */
static void turn(const float *from, size_t from_row, uint32_t n_rows, uint32_t n_cols, float *to,
                 size_t to_row)
{
    for (uint32_t i = 0; i < n_rows; i++)
        for (uint32_t j = 0; j < n_cols; j++)
            to[j * to_row + i] = from[i * from_row + j];
}

static inline void subtract(float *restrict y, const float *restrict x, float by, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        y[i] -= by * x[i];
}

/* y (16, n) becomes L^-1 y for a block L; rows of y are n_row floats apart. Columns of y are
 * systems of their own: n of them at once. */
CLONES static void forward_block(const float *l, size_t row, float *y, size_t y_row, uint32_t n)
{
    for (uint32_t i = 0; i < BLOCK; i++) {
        float *at = y + i * y_row, by = 1 / l[i * row + i];

        for (uint32_t k = 0; k < i; k++)
            subtract(at, y + k * y_row, l[i * row + k], n);
        for (uint32_t c = 0; c < n; c++)
            at[c] *= by;
    }
}

/* y becomes L'^-1 y: the same from the last row up. */
CLONES static void backward_block(const float *l, size_t row, float *y, size_t y_row, uint32_t n)
{
    for (uint32_t i = BLOCK; i-- > 0;) {
        float *at = y + i * y_row, by = 1 / l[i * row + i];

        for (uint32_t k = i + 1; k < BLOCK; k++)
            subtract(at, y + k * y_row, l[k * row + i], n);
        for (uint32_t c = 0; c < n; c++)
            at[c] *= by;
    }
}

/* The square behind the 16 columns from k on, less those columns times themselves: what is left for
 * the next ones to factor. Its lower half alone. */
static void update(const struct lsq *l, uint32_t k)
{
    struct kernels_dense p = { .a_row = l->n,
                               .a_col = 1,
                               .b_row = l->n,
                               .c_row = l->n,
                               .n_tiles = 1,
                               .n_inner = BLOCK,
                               .by = -1 };

    for (uint32_t i = k + BLOCK; i < l->n; i += BLOCK) {
        p.a = l->g + (size_t)i * l->n + k;
        p.b = l->panel + (i - k - BLOCK);
        p.c = l->g + (size_t)i * l->n + i;
        p.n_rows = l->n - i;
        l->k->dense(&p);
    }
}

/* g, of which the lower half is looked at, becomes L of g = LL', 16 columns at a time: the block on
 * the diagonal, those below it, then what lies behind. */
static void factor(const struct lsq *l)
{
    size_t n = l->n;

    for (uint32_t k = 0; k < n; k += BLOCK) {
        float *block = l->g + k * n + k, *below = block + BLOCK * n;
        uint32_t left = l->n - k - BLOCK;

        factor_block(block, n);
        turn(below, n, left, BLOCK, l->panel, n);
        forward_block(block, n, l->panel, n, left);
        turn(l->panel, n, BLOCK, left, below, n);
        update(l, k);
    }
}

/* --- what it solves --------------------------------------------------------------------------- */

/* y becomes (LL')^-1 y. First L, from the top: rows above are done and are taken off by one
 * product. Then L', from the bottom, whose rows are columns of L: the product's steps through it
 * are exchanged. */
static void solve(const struct lsq *l)
{
    size_t n = l->n, c = l->c;
    struct kernels_dense p = { .b_tile = BLOCK,
                               .b_row = c,
                               .c_tile = BLOCK,
                               .c_row = c,
                               .n_rows = BLOCK,
                               .n_tiles = l->c / BLOCK,
                               .by = -1 };

    for (uint32_t k = 0; k < n; k += BLOCK) {
        p.a = l->g + k * n;
        p.a_row = n;
        p.a_col = 1;
        p.b = l->y;
        p.c = l->y + k * c;
        p.n_inner = k;
        l->k->dense(&p);
        forward_block(l->g + k * n + k, n, p.c, c, l->c);
    }
    for (uint32_t k = l->n; k > 0;) {
        p.n_inner = l->n - k;
        p.a = l->g + k * n;
        p.b = l->y + k * c;
        k -= BLOCK;
        p.a += k;
        p.a_row = 1;
        p.a_col = n;
        p.c = l->y + k * c;
        l->k->dense(&p);
        backward_block(l->g + k * n + k, n, p.c, c, l->c);
    }
}

bool lsq_solve(struct lsq *l, uint32_t n_real)
{
    if (!(add_ridge(l, n_real) > 0))
        return false;
    factor(l);
    solve(l);
    return true;
}
