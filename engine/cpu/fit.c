/* Least squares for a layer's KV head, in f32. With q recorded queries, n keys, B (q, n) the
 * softmax of each query over the keys times the root of its share, T (q, hd) what was recorded
 * times the same, and V0 (n, hd) the values that are there, the new ones are
 *
 *     V = V0 + (B'B + r)^-1 B't       n x n, with t = T - B V0
 *       = V0 + B'(BB' + r)^-1 t         q x q
 *
 * which are the same: the smaller matrix is taken. The ridge r keeps its condition below n / 1e-2,
 * so that f32 does.
 *
 * Products go through the table's kernel, whose tiles of 16 rows fix the padding here: queries and
 * keys are padded to 16 by rows and columns of zeros, which say nothing to a least square.
 */
#include "engine/cpu/fit.h"

#include "engine/cpu/kv.h"
#include "engine/kv/pool.h"
#include "engine/kv/seq.h"
#include "engine/run.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Of the mean of the diagonal. */
#define RIDGE 1e-2f
/* What an f16 has room for, with some to spare. */
#define VALUE_MAX 6e4f

/* What one worker computes in; n and q padded, most the larger and p the smaller of both. */
struct desk {
    float *q;            /* (q, hd) */
    float *t;            /* (q, hd) T, then t */
    float *root;         /* (q) of the shares */
    float *b, *bt;       /* (q, n) and (n, q) */
    float *v;            /* (n, hd) V0 */
    float *y;            /* (most, hd) what goes to V0 */
    float *g;            /* (p, p) */
    float *tiles, *wide; /* (p, most) and (hd, most), in tiles of 16 rows */
    float *col;          /* (p) */
    float *angles;       /* (hd) */
    float *keys;         /* (hd, 16) */
    uint8_t *page;       /* a K and a V tile, which a value is stored to first */
};

struct fit {
    const struct kernels *k;
    struct workers *w;
    const struct rotary *rotary;
    uint32_t n_layer, n_head_kv, hd;
    uint32_t max_queries, max_keys; /* that desks have room for; padded */
    struct desk *desks;             /* one a worker */
    uint32_t n_desks;
};

/* A slice is one layer's KV head: nobody else writes to its tiles. */
struct job {
    struct fit *f;
    const struct backend_fit *a;
    uint32_t n_queries, n_keys; /* padded */
};

static uint32_t padded(uint32_t n)
{
    return (n + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
}

/* --- memory ----------------------------------------------------------------------------------- */

static int open_desk(const struct fit *f, struct desk *d)
{
    size_t q = f->max_queries, n = f->max_keys, hd = f->hd, hd16 = padded(f->hd);
    size_t p = q < n ? q : n, most = q < n ? n : q;
    struct {
        float **at;
        size_t n;
    } parts[] = { { &d->q, q * hd },
                  { &d->t, q * hd },
                  { &d->root, q },
                  { &d->b, q * n },
                  { &d->bt, n * q },
                  { &d->v, n * hd },
                  { &d->y, most * hd },
                  { &d->g, p * p },
                  { &d->tiles, p * most },
                  { &d->wide, hd16 * most },
                  { &d->col, p },
                  { &d->angles, hd },
                  { &d->keys, hd * TILE_ROWS } };

    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
        *parts[i].at = malloc(parts[i].n * sizeof(float));
        if (!*parts[i].at)
            return -ENOMEM;
    }
    d->page = malloc(2 * kv_tile_bytes(KV_F32, f->hd));
    return d->page ? 0 : -ENOMEM;
}

static void close_desk(struct desk *d)
{
    float *parts[] = { d->q, d->t,     d->root, d->b,   d->bt,     d->v,   d->y,
                       d->g, d->tiles, d->wide, d->col, d->angles, d->keys };

    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++)
        free(parts[i]);
    free(d->page);
    *d = (struct desk){ .page = NULL };
}

/* For segments as long as the longest that came until now: a desk for the longest that there may be
 * takes tens of megabytes, and most daemons never see one, or never fit. */
static int make_room(struct fit *f, uint32_t n_queries, uint32_t n_keys)
{
    int r = 0;

    if (n_queries <= f->max_queries && n_keys <= f->max_keys)
        return 0;
    f->max_queries = n_queries > f->max_queries ? n_queries : f->max_queries;
    f->max_keys = n_keys > f->max_keys ? n_keys : f->max_keys;
    for (uint32_t i = 0; i < f->n_desks; i++) {
        close_desk(&f->desks[i]);
        r = r < 0 ? r : open_desk(f, &f->desks[i]);
    }
    if (r < 0)
        f->max_queries = f->max_keys = 0;
    return r;
}

int fit_open(const struct model *m, const struct kernels *k, struct workers *w,
             const struct rotary *rotary, struct fit **ret)
{
    struct fit *f = malloc(sizeof(*f));

    if (!f)
        return -ENOMEM;
    *f = (struct fit){ .k = k,
                       .w = w,
                       .rotary = rotary,
                       .n_layer = m->n_layer,
                       .n_head_kv = m->n_head_kv,
                       .hd = m->head_dim,
                       .desks = calloc(workers_n(w), sizeof(*f->desks)),
                       .n_desks = workers_n(w) };
    if (!f->desks) {
        free(f);
        return -ENOMEM;
    }
    *ret = f;
    return 0;
}

void fit_close(struct fit *f)
{
    if (!f)
        return;
    for (uint32_t i = 0; i < f->n_desks; i++)
        close_desk(&f->desks[i]);
    free(f->desks);
    free(f);
}

/* --- products --------------------------------------------------------------------------------- */

/* Rows of so many columns. */
struct rows {
    const float *x;
    uint32_t n, n_cols;
};

/* x (n, n_cols) times the rows [first, n_rows) of tiles: y (n, n_rows), row by row of y_stride. */
static void multiply(const struct fit *f, const float *tiles, uint32_t first, uint32_t n_rows,
                     const struct rows *x, float *y, size_t y_stride)
{
    struct kernels_matmul dot = { .type = QUANT_F32,
                                  .w = tiles,
                                  .tile_len = (size_t)x->n_cols * TILE_ROWS * sizeof(float),
                                  .n_rows = n_rows,
                                  .n_cols = x->n_cols,
                                  .x = x->x,
                                  .x_row_bytes = x->n_cols * sizeof(float),
                                  .n_x = x->n,
                                  .y = y,
                                  .y_stride = y_stride };

    if (first < n_rows)
        f->k->matmul[QUANT_F32](&dot, first, n_rows);
}

/* Columns of x become rows of tiles: those of its transpose. */
static void pack_columns(const float *x, uint32_t n, uint32_t n_cols, float *ret)
{
    for (uint32_t c = 0; c < n_cols; c += TILE_ROWS) {
        uint32_t here = n_cols - c < TILE_ROWS ? n_cols - c : TILE_ROWS;

        for (uint32_t i = 0; i < n; i++, ret += TILE_ROWS) {
            memcpy(ret, x + (size_t)i * n_cols + c, here * sizeof(*ret));
            memset(ret + here, 0, (TILE_ROWS - here) * sizeof(*ret));
        }
    }
}

static void transpose(const float *x, uint32_t n, uint32_t n_cols, float *ret)
{
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t c = 0; c < n_cols; c++)
            ret[(size_t)c * n + i] = x[(size_t)i * n_cols + c];
}

/* d->g = x x', its lower half by tiles; x transposed is xt (n_cols, n). */
static void normal_matrix(const struct fit *f, struct desk *d, const struct rows *x,
                          const float *xt)
{
    pack_columns(xt, x->n_cols, x->n, d->tiles);
    for (uint32_t i = 0; i < x->n; i += TILE_ROWS) {
        struct rows below = { x->x + (size_t)i * x->n_cols, x->n - i, x->n_cols };

        multiply(f, d->tiles, i, i + TILE_ROWS, &below, d->g + (size_t)i * x->n, x->n);
    }
}

/* --- solving ---------------------------------------------------------------------------------- */

/* The ridge goes to the diagonal. 0: there is nothing to fit to. */
static float add_ridge(float *g, uint32_t p, uint32_t n_keys)
{
    float sum = 0;

    for (uint32_t i = 0; i < p; i++)
        sum += g[(size_t)i * p + i];
    sum *= RIDGE / (float)n_keys;
    for (uint32_t i = 0; i < p; i++)
        g[(size_t)i * p + i] += sum;
    return sum;
}

/* g (p, p), of which the lower half is looked at, becomes the factor L of g = LL'. Column by
 * column, so that the inner loop is one that compilers make vectors of. */
static void factor(float *g, uint32_t p, float *col)
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

static void subtract(float *restrict y, const float *restrict x, float by, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        y[i] -= by * x[i];
}

/* y (p, hd) becomes (LL')^-1 y. */
static void solve(const float *l, uint32_t p, float *y, uint32_t hd)
{
    for (uint32_t i = 0; i < p; i++) {
        float *row = y + (size_t)i * hd;

        for (uint32_t k = 0; k < i; k++)
            subtract(row, y + (size_t)k * hd, l[(size_t)i * p + k], hd);
        for (uint32_t c = 0; c < hd; c++)
            row[c] /= l[(size_t)i * p + i];
    }
    for (uint32_t i = p; i-- > 0;) {
        float *row = y + (size_t)i * hd;

        for (uint32_t c = 0; c < hd; c++)
            row[c] /= l[(size_t)i * p + i];
        for (uint32_t k = 0; k < i; k++)
            subtract(y + (size_t)k * hd, row, l[(size_t)i * p + k], hd);
    }
}

/* What B V0 leaves of T. Of that the solution is made, and not of T itself: where the values that
 * are there are right, no rounding changes them much. */
static void take_residual(const struct job *j, struct desk *d)
{
    uint32_t n = j->n_keys, n_queries = j->n_queries, hd = j->f->hd;
    struct rows b = { d->b, n_queries, n };

    pack_columns(d->v, n, hd, d->wide);
    multiply(j->f, d->wide, 0, hd, &b, d->y, hd);
    for (size_t i = 0; i < (size_t)n_queries * hd; i++)
        d->t[i] -= d->y[i];
}

/* (B'B + r)^-1 B't, to d->y. */
static bool fit_keys(const struct job *j, struct desk *d)
{
    uint32_t n = j->n_keys, n_queries = j->n_queries, hd = j->f->hd;
    struct rows bt = { d->bt, n, n_queries };

    normal_matrix(j->f, d, &bt, d->b);
    if (!(add_ridge(d->g, n, j->a->n_keys - j->a->first) > 0))
        return false;
    pack_columns(d->t, n_queries, hd, d->wide);
    multiply(j->f, d->wide, 0, hd, &bt, d->y, hd);
    factor(d->g, n, d->col);
    solve(d->g, n, d->y, hd);
    return true;
}

/* B'(BB' + r)^-1 t, to d->y. */
static bool fit_queries(const struct job *j, struct desk *d)
{
    uint32_t n = j->n_keys, n_queries = j->n_queries, hd = j->f->hd;
    struct rows b = { d->b, n_queries, n }, bt = { d->bt, n, n_queries };

    normal_matrix(j->f, d, &b, d->bt);
    if (!(add_ridge(d->g, n_queries, j->a->n_keys - j->a->first) > 0))
        return false;
    factor(d->g, n_queries, d->col);
    solve(d->g, n_queries, d->t, hd);
    pack_columns(d->t, n_queries, hd, d->wide);
    multiply(j->f, d->wide, 0, hd, &bt, d->y, hd);
    return true;
}

/* --- one head --------------------------------------------------------------------------------- */

static uint8_t *tile_of(const struct job *j, uint32_t list, uint32_t key, bool of_v)
{
    const struct pool *p = j->a->pool;
    uint32_t layer = list / j->f->n_head_kv, head = list % j->f->n_head_kv;

    return p->mem + j->a->pages[key / POOL_PAGE_TOKENS] * p->page_bytes +
           (of_v ? pool_v_off(p, layer, head) : pool_k_off(p, layer, head));
}

/* Queries, turned to behind the segment as it is now, and what was recorded, by the roots of their
 * shares. */
static void load_records(const struct job *j, uint32_t list, struct desk *d)
{
    const struct fit *f = j->f;
    uint32_t n = j->a->n_records, hd = f->hd;
    const float *record = j->a->records + (size_t)list * n * RECORD_FLOATS(hd);

    for (uint32_t i = 0; i < j->n_queries; i++) {
        float *q = d->q + (size_t)i * hd, *t = d->t + (size_t)i * hd;

        d->root[i] = 0;
        memset(q, 0, hd * sizeof(*q));
        memset(t, 0, hd * sizeof(*t));
        if (i >= n)
            continue;
        d->root[i] = sqrtf(record[2 * hd]);
        memcpy(q, record, hd * sizeof(*q));
        for (uint32_t c = 0; c < hd; c++)
            t[c] = d->root[i] * record[hd + c];
        record += RECORD_FLOATS(hd);
    }
    f->k->rope(d->q, n, hd, rotary_by(f->rotary, j->a->n_keys, d->angles));
}

/* Row i of d->b: scores become what the query attends to, by the root of its share. */
static void soften(const struct job *j, struct desk *d, uint32_t i)
{
    uint32_t first = j->a->first, n = j->a->n_keys - first;
    float *row = d->b + (size_t)i * j->n_keys, *x = row + first, most = -INFINITY, sum = 0;

    memset(row, 0, first * sizeof(*row));
    memset(x + n, 0, (j->n_keys - first - n) * sizeof(*row));
    if (d->root[i] == 0) {
        memset(x, 0, n * sizeof(*x));
        return;
    }
    for (uint32_t c = 0; c < n; c++)
        most = x[c] > most ? x[c] : most;
    j->f->k->sampling.weights(x, n, most, 1.0f, x);
    for (uint32_t c = 0; c < n; c++)
        sum += x[c];
    sum = d->root[i] / sum;
    for (uint32_t c = 0; c < n; c++)
        x[c] *= sum;
}

/* d->b, d->bt and d->v. A page's K, transposed as it lies, is a tile of 16 rows of weights. */
static void load_keys(const struct job *j, uint32_t list, struct desk *d)
{
    const struct fit *f = j->f;
    enum kv_type kv = j->a->pool->kv;
    struct rows q = { d->q, j->n_queries, f->hd };

    for (uint32_t i = 0; i < j->n_keys; i += POOL_PAGE_TOKENS) {
        kv_read_keys(kv, tile_of(j, list, i, false), f->hd, d->keys);
        multiply(f, d->keys, 0, POOL_PAGE_TOKENS, &q, d->b + i, j->n_keys);
    }
    for (uint32_t i = 0; i < j->n_queries; i++)
        soften(j, d, i);
    transpose(d->b, j->n_queries, j->n_keys, d->bt);
    memset(d->v, 0, (size_t)j->n_keys * f->hd * sizeof(*d->v));
    for (uint32_t i = j->a->first; i < j->a->n_keys; i++)
        kv_read(kv, tile_of(j, list, i, false), tile_of(j, list, i, true), f->hd,
                i % POOL_PAGE_TOKENS, d->keys, d->v + (size_t)i * f->hd);
}

static bool has_room(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(x[i]) <= VALUE_MAX))
            return false;
    return true;
}

/* By way of a page of the worker's own, whose K is zeros: a page's K stays as it is to the bit. */
static void store_values(const struct job *j, uint32_t list, struct desk *d)
{
    enum kv_type kv = j->a->pool->kv;
    uint32_t hd = j->f->hd;
    uint8_t *v_tile = d->page + kv_tile_bytes(kv, hd);

    memset(d->keys, 0, hd * sizeof(*d->keys));
    for (uint32_t i = j->a->first; i < j->a->n_keys; i++) {
        j->f->k->kv_store[kv](d->keys, d->v + (size_t)i * hd, hd, i % POOL_PAGE_TOKENS, d->page,
                              v_tile);
        kv_copy_value(kv, v_tile, tile_of(j, list, i, true), hd, i % POOL_PAGE_TOKENS);
    }
}

/* A key or value that is no number shows in all of the head's: they stay as they are then, and who
 * attends to that key finds it (engine/kv/page.h). */
static void fit_list(void *arg, uint32_t list, uint32_t worker)
{
    const struct job *j = arg;
    struct desk *d = &j->f->desks[worker];
    bool fits;

    load_records(j, list, d);
    load_keys(j, list, d);
    take_residual(j, d);
    fits = j->n_keys <= j->n_queries ? fit_keys(j, d) : fit_queries(j, d);
    if (!fits)
        return;
    for (uint32_t i = j->a->first * j->f->hd; i < j->a->n_keys * j->f->hd; i++)
        d->v[i] += d->y[i];
    if (has_room(d->v, (size_t)j->n_keys * j->f->hd))
        store_values(j, list, d);
}

void fit_run(struct fit *f, const struct backend_fit *a)
{
    struct job j = { f, a, padded(a->n_records), padded(a->n_keys) };

    if (a->first < a->n_keys && make_room(f, j.n_queries, j.n_keys) == 0)
        workers_run(f->w, fit_list, &j, f->n_layer * f->n_head_kv);
}
