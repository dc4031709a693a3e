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

#include "engine/cpu/kv.h"
#include "engine/cpu/lsq.h"
#include "engine/cpu/move.h"
#include "engine/kv/largest.h"
#include "engine/kv/pool.h"
#include "engine/run.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Queries that are weighed at a time: their scores stay in the cache. */
#define BLOCK_ROWS 64u

/* What one worker computes in; q, n and r: queries, keys that stay and raw keys, padded. */
struct desk {
    float *q;               /* (q, hd) */
    float *t;               /* (q, hd) targets, by the roots of the shares */
    float *root;            /* (q) of the shares */
    float *keys;            /* (r, hd) K, in tiles of 16 keys */
    float *values;          /* (r, hd) V, then of the keys that stay */
    float *wide;            /* (hd, r) V, in tiles of 16 rows */
    float *scores;          /* (BLOCK_ROWS, r) */
    float *weights, *order; /* (r) */
    float *b;               /* (q, n) */
    uint32_t *kept;         /* (n) */
    uint8_t *tiles;         /* K and V tiles of the keys that stay; one more pair, to round in */
    struct lsq lsq;
    struct move_scratch one; /* a key, a value, angles */
};

struct fit {
    const struct kernels *k;
    struct workers *w;
    const struct rotary *rotary;
    uint32_t hd;
    uint32_t max_queries, max_keys, max_raw; /* that desks have room for; padded */
    struct desk *desks;                      /* one a worker */
    uint32_t n_desks;
};

/* A slice is one list: nobody else writes to its tiles. */
struct job {
    struct fit *f;
    const struct backend_fit *a;
    uint32_t n_queries, n_keys; /* padded */
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

static int open_desk(const struct fit *f, struct desk *d)
{
    size_t q = f->max_queries, n = f->max_keys, r = f->max_raw, hd = f->hd;
    struct {
        float **at;
        size_t n;
    } parts[] = { { &d->q, q * hd },
                  { &d->t, q * hd },
                  { &d->root, q },
                  { &d->keys, r * hd },
                  { &d->values, r * hd },
                  { &d->wide, r * padded(f->hd) },
                  { &d->scores, BLOCK_ROWS * r },
                  { &d->weights, r },
                  { &d->order, r },
                  { &d->b, q * n } };

    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
        *parts[i].at = malloc(parts[i].n * sizeof(float));
        if (!*parts[i].at)
            return -ENOMEM;
    }
    d->kept = malloc(n * sizeof(*d->kept));
    d->tiles = malloc((n / POOL_PAGE_TOKENS + 1) * 2 * kv_tile_bytes(KV_F32, f->hd));
    if (!d->kept || !d->tiles)
        return -ENOMEM;
    return lsq_open(&d->lsq, f->max_queries, f->max_keys, f->hd);
}

static void close_desk(struct desk *d)
{
    float *parts[] = { d->q,    d->t,      d->root,    d->keys,  d->values,
                       d->wide, d->scores, d->weights, d->order, d->b };

    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++)
        free(parts[i]);
    free(d->kept);
    free(d->tiles);
    lsq_close(&d->lsq);
    *d = (struct desk){ .tiles = NULL };
}

/* For segments as long as the longest that came until now: a desk for the longest that there may be
 * takes tens of megabytes, and most daemons never see one, or never fit. */
static int make_room(struct fit *f, const struct job *j)
{
    uint32_t raw = j->a->n_raw;
    int r = 0;

    if (j->n_queries <= f->max_queries && j->n_keys <= f->max_keys && raw <= f->max_raw)
        return 0;
    f->max_queries = max_u32(f->max_queries, j->n_queries);
    f->max_keys = max_u32(f->max_keys, j->n_keys);
    f->max_raw = max_u32(f->max_raw, raw);
    for (uint32_t i = 0; i < f->n_desks; i++) {
        close_desk(&f->desks[i]);
        r = r < 0 ? r : open_desk(f, &f->desks[i]);
    }
    if (r < 0)
        f->max_queries = f->max_keys = f->max_raw = 0;
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

/* --- weigh ------------------------------------------------------------------------------------ */

/* The queries, turned by so many positions. Behind them zeros. */
static void load_queries(const struct job *j, uint32_t list, uint32_t by, struct desk *d)
{
    const struct fit *f = j->f;
    uint32_t n = j->a->n_asked, hd = f->hd;
    const float *row = j->a->asked + (size_t)list * n * ASKED_FLOATS(hd);

    for (uint32_t i = 0; i < n; i++)
        memcpy(d->q + (size_t)i * hd, row + i * ASKED_FLOATS(hd), hd * sizeof(*d->q));
    memset(d->q + (size_t)n * hd, 0, (size_t)(j->n_queries - n) * hd * sizeof(*d->q));
    f->k->rope(d->q, n, hd, rotary_by(f->rotary, by, d->one.angles));
}

static void load_raw(const struct job *j, uint32_t list, struct desk *d)
{
    const struct backend_fit *a = j->a;
    enum kv_type kv = a->pool->kv;
    uint32_t hd = j->f->hd;

    for (uint32_t i = 0; i < a->n_raw; i++) {
        struct move_place at = move_place_of(a->pool, a->from, i, list);

        if (i % POOL_PAGE_TOKENS == 0)
            kv_read_keys(kv, at.k, hd, d->keys + (size_t)i * hd);
        kv_read_value(kv, at.v, hd, i % POOL_PAGE_TOKENS, d->values + (size_t)i * hd);
    }
    lsq_pack_columns(d->values, a->n_raw, hd, d->wide);
}

/* x (n) becomes its softmax. The logarithm of sum exp(x), by which two kernels that look for the
 * largest and add up in many lanes beat plain loops, whose additions wait for each other. */
static float soft(const struct fit *f, float *x, uint32_t n)
{
    float log_sum = f->k->logsumexp(x, n);

    f->k->sampling.weights(x, n, log_sum, 1.0f, x);
    return log_sum;
}

static bool all_finite(const float *x, uint32_t n)
{
    float sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += x[i] * 0;
    return sum == 0;
}

/* Row i's share, and what the keys received of it; p is its softmax. */
static void count_row(const struct job *j, uint32_t i, float share, const float *p, struct desk *d)
{
    uint32_t hd = j->f->hd, n = j->a->n_raw;
    float *restrict w = d->weights, *t = d->t + (size_t)i * hd;

    if (!(share > FIT_LEAST_SHARE) || !all_finite(t, hd) ||
        !all_finite(d->q + (size_t)i * hd, hd)) {
        d->root[i] = 0;
        memset(t, 0, hd * sizeof(*t));
        return;
    }
    d->root[i] = sqrtf(share);
    for (uint32_t c = 0; c < hd; c++)
        t[c] *= d->root[i];
    /* Squares: a key that one query needs badly is worth more than one that all look at in passing.
     */
    for (uint32_t c = 0; c < n; c++)
        w[c] += share * p[c] * (share * p[c]);
}

/* Rows [i0, i0 + n). */
static void weigh_block(const struct job *j, uint32_t list, uint32_t i0, uint32_t n, struct desk *d)
{
    const struct fit *f = j->f;
    const struct backend_fit *a = j->a;
    uint32_t hd = f->hd, raw = a->n_raw, sinks = a->sinks;
    const float *asked = a->asked + ((size_t)list * a->n_asked + i0) * ASKED_FLOATS(hd);
    float share[BLOCK_ROWS];

    lsq_multiply(f->k, d->keys, 0, raw, d->q + (size_t)i0 * hd, n, hd, d->scores, raw);
    for (uint32_t i = 0; i < n; i++) {
        float *p = d->scores + (size_t)i * raw, log_sum = soft(f, p + sinks, raw - sinks);

        share[i] = 1 / (1 + expf(asked[i * ASKED_FLOATS(hd) + hd] - log_sum));
        memset(p, 0, sinks * sizeof(*p));
    }
    lsq_multiply(f->k, d->wide, 0, hd, d->scores, n, raw, d->t + (size_t)i0 * hd, hd);
    for (uint32_t i = 0; i < n; i++)
        count_row(j, i0 + i, share[i], d->scores + (size_t)i * raw, d);
}

static void weigh(const struct job *j, uint32_t list, struct desk *d)
{
    uint32_t n = j->a->n_asked, hd = j->f->hd;

    load_queries(j, list, j->a->n_raw, d);
    load_raw(j, list, d);
    memset(d->weights, 0, j->a->n_raw * sizeof(*d->weights));
    for (uint32_t i = 0; i < n; i += BLOCK_ROWS)
        weigh_block(j, list, i, n - i < BLOCK_ROWS ? n - i : BLOCK_ROWS, d);
    memset(d->root + n, 0, (j->n_queries - n) * sizeof(*d->root));
    memset(d->t + (size_t)n * hd, 0, (size_t)(j->n_queries - n) * hd * sizeof(*d->t));
}

/* --- choose and move -------------------------------------------------------------------------- */

/* Of the desk's tiles. */
static struct move_place desk_place(const struct job *j, const struct desk *d, uint32_t key)
{
    size_t len = kv_tile_bytes(j->a->pool->kv, j->f->hd);
    uint8_t *k = d->tiles + key / POOL_PAGE_TOKENS * 2 * len;

    return (struct move_place){ k, k + len, key };
}

static void choose(const struct job *j, uint32_t list, struct desk *d)
{
    const struct fit *f = j->f;
    const struct backend_fit *a = j->a;
    struct largest k = { a->sinks, a->n_raw - a->sinks, d->weights + a->sinks, d->order };

    largest_keep(&k, a->n_keys, d->kept);
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
    enum kv_type kv = j->a->pool->kv;
    uint32_t hd = j->f->hd;

    memset(d->values, 0, (size_t)j->n_keys * hd * sizeof(*d->values));
    for (uint32_t i = 0; i < j->a->n_keys; i++) {
        struct move_place at = desk_place(j, d, i);

        if (i % POOL_PAGE_TOKENS == 0)
            kv_read_keys(kv, at.k, hd, d->keys + (size_t)i * hd);
        if (i >= j->a->sinks)
            kv_read_value(kv, at.v, hd, i % POOL_PAGE_TOKENS, d->values + (size_t)i * hd);
    }
}

/* Row i of d->b: scores become what the query attends to, by the root of its share. */
static void soften(const struct job *j, struct desk *d, uint32_t i)
{
    uint32_t first = j->a->sinks, n = j->a->n_keys - first;
    float *row = d->b + (size_t)i * j->n_keys;

    memset(row, 0, first * sizeof(*row));
    memset(row + first + n, 0, (j->n_keys - first - n) * sizeof(*row));
    if (d->root[i] == 0) {
        memset(row + first, 0, n * sizeof(*row));
        return;
    }
    (void)soft(j->f, row + first, n);
    j->f->k->scale(row + first, n, d->root[i]);
}

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
        j->f->k->kv_store[kv](d->one.k, d->values + (size_t)i * hd, hd, i % POOL_PAGE_TOKENS,
                              rounded.k, rounded.v);
        kv_copy_value(kv, rounded.v, desk_place(j, d, i).v, hd, i % POOL_PAGE_TOKENS);
    }
}

static void fit_values(const struct job *j, uint32_t list, struct desk *d)
{
    const struct fit *f = j->f;
    uint32_t n_real = j->a->n_keys - j->a->sinks;
    struct lsq_system s = { f->k, j->n_queries, j->n_keys, f->hd, n_real, d->b, d->t, d->values };
    size_t n = (size_t)j->n_keys * f->hd;

    load_kept(j, d);
    load_queries(j, list, j->a->n_keys, d);
    lsq_multiply(f->k, d->keys, 0, j->n_keys, d->q, j->n_queries, f->hd, d->b, j->n_keys);
    for (uint32_t i = 0; i < j->n_queries; i++)
        soften(j, d, i);
    if (!lsq_solve(&d->lsq, &s))
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

/* A list is some milliseconds of one worker. */
int fit_run(struct fit *f, const struct backend_fit *a)
{
    struct job j = { f, a, padded(a->n_asked), padded(a->n_keys) };
    uint32_t n = a->n_lists < f->n_desks ? a->n_lists : f->n_desks;
    int r = make_room(f, &j);

    assert(n > 0 && a->n_raw % POOL_PAGE_TOKENS == 0);
    if (r < 0)
        return r;
    workers_run(f->w, fit_list, &j, n);
    return (int)n;
}
