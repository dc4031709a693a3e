/* engine/cpu/fit.c - a raw segment becomes a packed one: weigh, choose, move, fit
 * (engine/fit.h).
 *
 * A list, a layer's KV head, is done by one worker from its raw keys to its packed ones, in memory
 * of the worker's own that stays in its cache: raw keys and values are made f32 once, queries come
 * in blocks, and the table of attention that keys are chosen by is never written as a whole. What
 * the list was is read before anything of it is written, so that it may be packed where it stands.
 *
 * Products are the most of it: two of (queries x raw keys x head_dim), about what attention took
 * when those queries were read, and for the values two more with the keys that stay, and their
 * square.
 */
#include "engine/cpu/fit.h"

#include "base/clones.h"
#include "engine/cpu/kv.h"
#include "engine/cpu/lsq.h"
#include "engine/cpu/move.h"
#include "engine/kv/asked.h"
#include "engine/kv/compress.h"
#include "engine/kv/largest.h"
#include "engine/kv/pool.h"
#include "engine/run.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Queries at a time: what they make of a segment of the default length stays in the second level,
 * and rows of products come in sixes, eights and twelves. */
#define BLOCK_ROWS 48u
/* Behind each row of scores, so that rows lie in different sets of the cache. */
#define GAP 16u

/* What one worker computes in; q, n and r: queries, keys that stay and raw keys; n and c, head_dim,
 * padded to tiles. */
struct desk {
    float *q;               /* (BLOCK_ROWS, hd) */
    float *t;               /* (q, c) targets, by the roots of the shares */
    float *root;            /* (q) of the shares */
    float *keys;            /* (r, hd) K, in tiles of 16 keys */
    float *values;          /* (n, c) V of the keys that stay */
    float *wide;            /* (c, r) V, in tiles of 16 columns */
    float *scores;          /* (BLOCK_ROWS, r + GAP) */
    float *weights, *order; /* (r) */
    float *page;            /* (16, hd) */
    uint32_t *kept;         /* (n) */
    uint8_t *tiles;         /* K and V tiles of the keys that stay; one more pair, to round in */
    struct lsq lsq;
    struct move_scratch one; /* a key, a value, angles */
};

struct fit {
    const struct kernels *k;
    struct workers *w;
    const struct rotary *rotary;
    uint32_t hd, cols;                       /* head_dim, and padded */
    uint32_t max_queries, max_keys, max_raw; /* that desks have room for; padded */
    struct desk *desks;                      /* one a worker */
    uint32_t n_desks;
};

/* A slice is one list: nobody else writes to its tiles. */
struct job {
    struct fit *f;
    const struct backend_fit *a;
    uint32_t n_keys; /* padded */
};

static uint32_t padded(uint32_t n)
{
    return tile_count(n) * TILE_ROWS;
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* --- memory ----------------------------------------------------------------------------------- */

/* Floats of a desk. */
struct desk_part {
    float **at;
    size_t n;
};
#define DESK_PARTS 10u

static void list_parts(const struct fit *f, struct desk *d, struct desk_part ret[DESK_PARTS])
{
    size_t q = f->max_queries, n = f->max_keys, r = f->max_raw, hd = f->hd, c = f->cols;
    const struct desk_part parts[DESK_PARTS] = { { &d->q, BLOCK_ROWS * hd },
                                                 { &d->t, q * c },
                                                 { &d->root, q },
                                                 { &d->keys, r * hd },
                                                 { &d->values, n * c },
                                                 { &d->wide, r * c },
                                                 { &d->scores, BLOCK_ROWS * (r + GAP) },
                                                 { &d->weights, r },
                                                 { &d->order, r },
                                                 { &d->page, POOL_PAGE_TOKENS * hd } };

    memcpy(ret, parts, sizeof(parts));
}

static size_t tiles_bytes(const struct fit *f)
{
    return (f->max_keys / POOL_PAGE_TOKENS + 1) * 2 * kv_tile_bytes(KV_F32, f->hd);
}

static size_t desks_bytes(const struct fit *f)
{
    size_t n = tiles_bytes(f) + f->max_keys * sizeof(uint32_t) + lsq_bytes(f->max_keys, f->cols);
    struct desk_part parts[DESK_PARTS];
    struct desk d;

    list_parts(f, &d, parts);
    for (size_t i = 0; i < DESK_PARTS; i++)
        n += parts[i].n * sizeof(float);
    return n * f->n_desks;
}

/* What there is when one fails is freed by the next make_room, or by fit_close. */
static int open_desk(const struct fit *f, struct desk *d)
{
    struct desk_part parts[DESK_PARTS];

    list_parts(f, d, parts);
    for (size_t i = 0; i < DESK_PARTS; i++) {
        *parts[i].at = malloc(parts[i].n * sizeof(float));
        if (!*parts[i].at)
            return -ENOMEM;
    }
    d->kept = malloc(f->max_keys * sizeof(*d->kept));
    d->tiles = malloc(tiles_bytes(f));
    if (!d->kept || !d->tiles)
        return -ENOMEM;
    return lsq_open(&d->lsq, f->max_keys, f->cols);
}

static void close_desk(const struct fit *f, struct desk *d)
{
    struct desk_part parts[DESK_PARTS];

    list_parts(f, d, parts);
    for (size_t i = 0; i < DESK_PARTS; i++)
        free(*parts[i].at);
    free(d->kept);
    free(d->tiles);
    lsq_close(&d->lsq);
    *d = (struct desk){ .tiles = NULL };
}

/* For segments as long as the longest that came until now: a desk for the longest that there may be
 * takes tens of megabytes, and most daemons never see one, or never fit. */
static int make_room(struct fit *f, const struct job *j)
{
    uint32_t raw = j->a->n_raw, n = j->a->n_asked;
    int r = 0;

    if (n <= f->max_queries && j->n_keys <= f->max_keys && raw <= f->max_raw)
        return 0;
    f->max_queries = max_u32(f->max_queries, n);
    f->max_keys = max_u32(f->max_keys, j->n_keys);
    f->max_raw = max_u32(f->max_raw, raw);
    for (uint32_t i = 0; i < f->n_desks; i++) {
        close_desk(f, &f->desks[i]);
        r = r < 0 ? r : open_desk(f, &f->desks[i]);
    }
    if (r < 0)
        f->max_queries = f->max_keys = f->max_raw = 0;
    return r;
}

/* Queries as asked.h has them, of either reading. */
size_t fit_need(const struct model *m, uint32_t n_workers, uint32_t seg_len)
{
    const struct compress_spec most = { COMPRESS_FIT, COMPRESS_RATIO_MIN, COMPRESS_SINKS, NULL };
    struct fit f = { .hd = m->head_dim,
                     .cols = padded(m->head_dim),
                     .max_queries = asked_most(seg_len, m->n_head / m->n_head_kv),
                     .max_keys = padded(compress_n_keys(&most, seg_len, 0, 0)),
                     .max_raw = seg_len,
                     .n_desks = n_workers };

    return desks_bytes(&f);
}

size_t fit_bytes(const struct fit *f)
{
    return f->max_raw ? desks_bytes(f) : 0;
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
                       .hd = m->head_dim,
                       .cols = padded(m->head_dim),
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
        close_desk(f, &f->desks[i]);
    free(f->desks);
    free(f);
}

/* --- weigh ------------------------------------------------------------------------------------ */

/* Queries [i0, i0 + n), turned by so many positions. */
static void load_queries(const struct job *j, uint32_t list, uint32_t i0, uint32_t n, uint32_t by,
                         struct desk *d)
{
    const struct fit *f = j->f;
    uint32_t hd = f->hd;
    const float *row = j->a->asked + ((size_t)list * j->a->n_asked + i0) * ASKED_FLOATS(hd);

    for (uint32_t i = 0; i < n; i++)
        memcpy(d->q + (size_t)i * hd, row + i * ASKED_FLOATS(hd), hd * sizeof(*d->q));
    f->k->rope(d->q, n, hd, rotary_by(f->rotary, by, d->one.angles));
}

/* A page: K to the tile of the desk's keys that begins with key i, V as rows to its page. */
static void read_page(const struct job *j, const struct move_place *at, uint32_t i, struct desk *d)
{
    enum kv_type kv = j->a->pool->kv;
    uint32_t hd = j->f->hd;
    float *keys = d->keys + (size_t)i * hd;

    if (kv == KV_F16) {
        j->f->k->widen_f16((const void *)at->k, POOL_PAGE_TOKENS * hd, keys);
        j->f->k->widen_f16((const void *)at->v, POOL_PAGE_TOKENS * hd, d->page);
    } else {
        kv_read_keys(kv, at->k, hd, keys);
        kv_read_values(kv, at->v, hd, d->page);
    }
}

/* Rows of a page's V to the tiles of columns that they are in; behind the last column zeros. */
static void widen_page(const struct job *j, uint32_t key, struct desk *d)
{
    uint32_t hd = j->f->hd;

    for (uint32_t c = 0; c < hd; c += TILE_ROWS) {
        float *to = d->wide + ((size_t)c / TILE_ROWS * j->a->n_raw + key) * TILE_ROWS;
        size_t n = hd - c < TILE_ROWS ? hd - c : TILE_ROWS;

        for (uint32_t i = 0; i < POOL_PAGE_TOKENS; i++, to += TILE_ROWS) {
            memcpy(to, d->page + (size_t)i * hd + c, n * sizeof(*to));
            memset(to + n, 0, (TILE_ROWS - n) * sizeof(*to));
        }
    }
}

/* All of the list, before a block of queries needs it; choose reads kept keys from the pages once
 * more, since a key that stays where it is must keep its bits. */
static void load_raw(const struct job *j, uint32_t list, struct desk *d)
{
    for (uint32_t i = 0; i < j->a->n_raw; i += POOL_PAGE_TOKENS) {
        struct move_place at = move_place_of(j->a->pool, j->a->from, i, list);

        read_page(j, &at, i, d);
        widen_page(j, i, d);
    }
}

/* Scores of n queries over so many keys, which are a multiple of 16: (n, n_keys + GAP). */
static void score(const struct job *j, uint32_t n, uint32_t n_keys, struct desk *d)
{
    struct kernels_dense p = { .a = d->q,
                               .a_row = j->f->hd,
                               .a_col = 1,
                               .b = d->keys,
                               .b_tile = (size_t)j->f->hd * TILE_ROWS,
                               .b_row = TILE_ROWS,
                               .c = d->scores,
                               .c_tile = TILE_ROWS,
                               .c_row = n_keys + GAP,
                               .n_rows = n,
                               .n_tiles = n_keys / TILE_ROWS,
                               .n_inner = j->f->hd };

    j->f->k->dense(&p);
}

/* What n queries see: (n, c), from row `to` on. */
static void look(const struct job *j, uint32_t n, float *to, const struct desk *d)
{
    uint32_t raw = j->a->n_raw;
    struct kernels_dense p = { .a = d->scores,
                               .a_row = raw + GAP,
                               .a_col = 1,
                               .b = d->wide,
                               .b_tile = (size_t)raw * TILE_ROWS,
                               .b_row = TILE_ROWS,
                               .c = to,
                               .c_tile = TILE_ROWS,
                               .c_row = j->f->cols,
                               .n_rows = n,
                               .n_tiles = j->f->cols / TILE_ROWS,
                               .n_inner = raw };

    j->f->k->dense(&p);
}

/* Whether all of x are numbers: none has the exponent that has all bits. */
CLONES static bool all_finite(const float *x, uint32_t n)
{
    uint32_t bad = 0;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t bits;

        memcpy(&bits, x + i, sizeof(bits));
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return bad == 0;
}

/* Squares: a key that one query needs badly is worth more than one that all look at in passing. */
CLONES static void add_squares(float *restrict w, const float *restrict p, float by, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        w[i] += by * p[i] * (by * p[i]);
}

/* Row i's share, and what the keys received of it; p is its softmax times sum. */
static void count_row(const struct job *j, uint32_t i, float share, float sum, const float *p,
                      struct desk *d)
{
    uint32_t cols = j->f->cols;
    float *t = d->t + (size_t)i * cols;

    if (!(share > FIT_LEAST_SHARE) || !all_finite(t, cols)) {
        d->root[i] = 0;
        memset(t, 0, cols * sizeof(*t));
        return;
    }
    d->root[i] = sqrtf(share);
    j->f->k->scale(t, cols, d->root[i] / sum);
    add_squares(d->weights, p, share / sum, j->a->n_raw);
}

/* Rows [i0, i0 + n). A query that is no number makes a sum that is none, and so a share. Targets
 * are made of exp(score - top), not of the softmax: the sum is divided by in count_row, where the
 * root of the share comes in anyway. */
static void weigh_block(const struct job *j, uint32_t list, uint32_t i0, uint32_t n, struct desk *d)
{
    const struct fit *f = j->f;
    const struct backend_fit *a = j->a;
    uint32_t hd = f->hd, raw = a->n_raw, sinks = a->sinks;
    const float *asked = a->asked + ((size_t)list * a->n_asked + i0) * ASKED_FLOATS(hd);
    float share[BLOCK_ROWS], sum[BLOCK_ROWS];

    load_queries(j, list, i0, n, raw, d);
    score(j, n, raw, d);
    for (uint32_t i = 0; i < n; i++) {
        float *p = d->scores + (size_t)i * (raw + GAP);
        float top = f->k->soften(p + sinks, raw - sinks, &sum[i]);

        share[i] = 1 / (1 + expf(asked[i * ASKED_FLOATS(hd) + hd] - (top + logf(sum[i]))));
        memset(p, 0, sinks * sizeof(*p));
    }
    look(j, n, d->t + (size_t)i0 * f->cols, d);
    for (uint32_t i = 0; i < n; i++)
        count_row(j, i0 + i, share[i], sum[i], d->scores + (size_t)i * (raw + GAP), d);
}

static uint32_t rows_from(const struct job *j, uint32_t i)
{
    return j->a->n_asked - i < BLOCK_ROWS ? j->a->n_asked - i : BLOCK_ROWS;
}

static void weigh(const struct job *j, uint32_t list, struct desk *d)
{
    load_raw(j, list, d);
    memset(d->weights, 0, j->a->n_raw * sizeof(*d->weights));
    for (uint32_t i = 0; i < j->a->n_asked; i += BLOCK_ROWS)
        weigh_block(j, list, i, rows_from(j, i), d);
}

/* --- choose and move -------------------------------------------------------------------------- */

/* Of the desk's tiles. */
static struct move_place desk_place(const struct job *j, const struct desk *d, uint32_t key)
{
    size_t len = kv_tile_bytes(j->a->pool->kv, j->f->hd);
    uint8_t *k = d->tiles + key / POOL_PAGE_TOKENS * 2 * len;

    return (struct move_place){ k, k + len, key };
}

/* To the desk's own tiles: to and from may be the same pages, and values are still to be fitted.
 * The last tiles are zeros where no key stays: what another session's segment left there would go
 * to a page with them, and to the disk. */
static void choose(const struct job *j, uint32_t list, struct desk *d)
{
    const struct fit *f = j->f;
    const struct backend_fit *a = j->a;
    struct largest k = { a->sinks, a->n_raw - a->sinks, d->weights + a->sinks, d->order };

    largest_keep(&k, a->n_keys, d->kept);
    memset(desk_place(j, d, a->n_keys - 1).k, 0, 2 * kv_tile_bytes(a->pool->kv, f->hd));
    for (uint32_t i = 0; i < a->n_keys; i++) {
        struct move_place raw = move_place_of(a->pool, a->from, d->kept[i], list);
        struct move_place to = desk_place(j, d, i);

        move_key(f->k, f->rotary, a->pool->kv, f->hd, &raw, &to, &d->one);
    }
}

/* --- fit -------------------------------------------------------------------------------------- */

/* K and V of the keys that stay, as they are stored. Sinks and padding: zeros as values. */
static void load_kept(const struct job *j, struct desk *d)
{
    uint32_t hd = j->f->hd, cols = j->f->cols;

    memset(d->values, 0, (size_t)j->n_keys * cols * sizeof(*d->values));
    for (uint32_t i = 0; i < j->a->n_keys; i++) {
        struct move_place at = desk_place(j, d, i);
        uint32_t slot = i % POOL_PAGE_TOKENS;

        if (slot == 0)
            read_page(j, &at, i, d);
        if (i >= j->a->sinks)
            memcpy(d->values + (size_t)i * cols, d->page + (size_t)slot * hd,
                   hd * sizeof(*d->page));
    }
}

/* Scores become what a query attends to of the keys that stay, by the root of its share. */
static void soften(const struct job *j, float root, float *row)
{
    uint32_t first = j->a->sinks, n = j->a->n_keys - first;
    float sum;

    if (root == 0) {
        memset(row, 0, j->n_keys * sizeof(*row));
        return;
    }
    memset(row, 0, first * sizeof(*row));
    memset(row + first + n, 0, (j->n_keys - first - n) * sizeof(*row));
    (void)j->f->k->soften(row + first, n, &sum);
    j->f->k->scale(row + first, n, root / sum);
}

/* t (n, c) less what the values that are there make of B. */
static void leave_over(const struct job *j, uint32_t n, float *t, const struct desk *d)
{
    uint32_t cols = j->f->cols;
    struct kernels_dense p = { .a = d->scores,
                               .a_row = j->n_keys + GAP,
                               .a_col = 1,
                               .b = d->values,
                               .b_tile = TILE_ROWS,
                               .b_row = cols,
                               .c = t,
                               .c_tile = TILE_ROWS,
                               .c_row = cols,
                               .n_rows = n,
                               .n_tiles = cols / TILE_ROWS,
                               .n_inner = j->n_keys,
                               .by = -1 };

    j->f->k->dense(&p);
}

/* Compared so that no number has none. */
static bool has_room(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(x[i]) <= FIT_VALUE_MAX))
            return false;
    return true;
}

/* By way of tiles whose K is zeros: a key's K stays as it is to the bit. */
static void store_values(const struct job *j, struct desk *d)
{
    enum kv_type kv = j->a->pool->kv;
    uint32_t hd = j->f->hd;
    struct move_place rounded = desk_place(j, d, j->n_keys);

    memset(d->one.k, 0, hd * sizeof(*d->one.k));
    for (uint32_t i = j->a->sinks; i < j->a->n_keys; i++) {
        j->f->k->kv_store[kv](d->one.k, d->values + (size_t)i * j->f->cols, hd,
                              i % POOL_PAGE_TOKENS, rounded.k, rounded.v);
        kv_copy_value(kv, rounded.v, desk_place(j, d, i).v, hd, i % POOL_PAGE_TOKENS);
    }
}

/* As weigh, by the packed segment's own keys: queries are placed n_keys behind it now. t becomes
 * what the values that are there leave over, block by block, and goes into the sums with its rows
 * of B. */
static void fit_values(const struct job *j, uint32_t list, struct desk *d)
{
    size_t n = (size_t)j->n_keys * j->f->cols, row = j->n_keys + GAP;

    load_kept(j, d);
    lsq_begin(&d->lsq, j->f->k, j->n_keys, j->f->cols);
    for (uint32_t i = 0; i < j->a->n_asked; i += BLOCK_ROWS) {
        uint32_t n_rows = rows_from(j, i);
        float *t = d->t + (size_t)i * j->f->cols;

        load_queries(j, list, i, n_rows, j->a->n_keys, d);
        score(j, n_rows, j->n_keys, d);
        for (uint32_t k = 0; k < n_rows; k++)
            soften(j, d->root[i + k], d->scores + k * row);
        leave_over(j, n_rows, t, d);
        lsq_add(&d->lsq, d->scores, row, t, n_rows);
    }
    /* The tiles have V0 already: a head that nothing can be fitted to is done. */
    if (!lsq_solve(&d->lsq, j->a->n_keys - j->a->sinks))
        return;
    for (size_t i = 0; i < n; i++)
        d->values[i] += d->lsq.y[i];
    if (has_room(d->values, n))
        store_values(j, d);
}

/* --- one list --------------------------------------------------------------------------------- */

static void store_tiles(const struct job *j, uint32_t list, const struct desk *d)
{
    size_t len = kv_tile_bytes(j->a->pool->kv, j->f->hd);

    for (uint32_t i = 0; i < j->a->n_keys; i += POOL_PAGE_TOKENS) {
        struct move_place from = desk_place(j, d, i);
        struct move_place to = move_place_of(j->a->pool, j->a->to, i, list);

        memcpy(to.k, from.k, len);
        memcpy(to.v, from.v, len);
    }
}

/* A key or value that is no number shows in all of the head's: they stay as they are then, and who
 * attends to that key finds it (engine/kv/page.h). */
static void fit_list(void *arg, uint32_t slice, uint32_t worker)
{
    const struct job *j = arg;
    struct desk *d = &j->f->desks[worker];
    uint32_t list = j->a->first_list + slice;

    weigh(j, list, d);
    choose(j, list, d);
    if (j->a->sinks < j->a->n_keys)
        fit_values(j, list, d);
    store_tiles(j, list, d);
}

/* A list is some milliseconds of one worker. One for each worker a call: all end at about the same
 * time, and the caller may do something else then. */
int fit_run(struct fit *f, const struct backend_fit *a)
{
    struct job j = { f, a, padded(a->n_keys) };
    uint32_t n = a->n_lists < f->n_desks ? a->n_lists : f->n_desks;
    int r = make_room(f, &j);

    assert(n > 0 && a->n_raw % POOL_PAGE_TOKENS == 0);
    if (r < 0)
        return r;
    workers_run(f->w, fit_list, &j, n);
    return (int)n;
}
