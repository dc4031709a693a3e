/* engine/cpu/attend.c - attention of a plan's pieces over their segments.
 *
 * No row of scores as long as the context is ever written. Over each stretch of keys a row has a
 * partial result: m, the largest score, l, the sum of exp(score - m), and o, the values weighted by
 * those; two of them are merged by scaling to the larger m, and o / l in the end is the softmax's.
 *
 * Stretches are cut by what lies behind the token alone and are merged in their order, whoever
 * computes them: how a step is cut into items changes no bit of a token's result, so what a session
 * holds follows from its ids and not from who else was served beside it.
 *
 * Scratch is for the largest block and a fixed number of partials, taken once: serving allocates
 * nothing, and a step that needs more is done in rounds.
 */
#include "engine/cpu/attend.h"

#include "engine/cpu/kv.h"
#include "engine/file/hparams.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(HPARAMS_HEAD_DIM_MAX <= KERNELS_HEAD_DIM_MAX, "a head that no kernel takes");

/* Query rows of a block: more of them share the cost of making a group of keys f32 (64 are 6 %
 * slower), fewer leave more blocks to the workers. */
#define BLOCK_ROWS 128u
/* Pages that segments are joined up to, those of a raw segment of the default length: fewer cost
 * more calls and merges, more leave fewer items to the workers. */
#define JOIN_PAGES 32u
/* Split pieces of so few tokens only: a longer one has blocks enough for all workers. */
#define SPLIT_TOKENS 4u
/* Partial results held at a time when contexts are split, and pieces cut into items at a time. */
#define PARTIALS     8192u
#define ROUND_PIECES 64u

/* What one worker computes in; rows: BLOCK_ROWS, or one token's if that is more. */
struct desk {
    float *q, *o, *o2;      /* (rows, hd) */
    float *m, *l, *m2, *l2; /* (rows) */
    float *angles;          /* (JOIN_PAGES, hd) */
    float *keys, *scores;   /* (hd, 16), (rows, 16): a page's, while they are weighed */
    struct kernels_joined joined[JOIN_PAGES];
};

struct attend {
    const struct kernels *k;
    struct workers *w;
    const struct rotary *rotary;
    uint32_t n_head, n_head_kv, group, hd;
    uint32_t block_tokens;
    struct desk *desks;              /* one a worker */
    float *part_m, *part_l, *part_o; /* (PARTIALS), (PARTIALS), (PARTIALS, hd) */
    float *floats;                   /* all of the above */
    size_t n_floats;
    uint32_t *part_first;     /* (PARTIALS) see cut */
    _Atomic uint32_t *n_left; /* (ROUND_PIECES, n_head_kv) stretches of split pieces to do */
};

/* The pieces of one round, cut into items: a split piece has one for each KV head and stretch of
 * segments, one with weights or shares one for each KV head (whoever adds to them is alone),
 * another one for each KV head and block of tokens. */
struct cut {
    uint32_t first_item;
    uint32_t n_cols; /* stretches, or blocks: item = first_item + col * n_head_kv + head */
    /* split: partial of (head, stretch, row), row fastest; stretch i begins with segment
     * part_first[first_part + i] */
    uint32_t first_part;
    bool split;
};

struct round {
    struct attend *a;
    const struct plan *plan;
    const struct plan_piece *pieces;
    struct cut cuts[ROUND_PIECES];
    uint32_t n_pieces, n_items, layer;
    const float *q, *kk, *vv;
    float *out;
    struct attend_then then;
};

/* The next n floats of the one allocation; count_floats has to sum up the same. */
static float *carve(float **next, size_t n)
{
    float *p = *next;

    *next += (n + 15) & ~(size_t)15; /* whole cache lines */
    return p;
}

/* Of a block's query rows. A block is whole tokens: a group's query heads stay together, as they
 * share what is read of a key. */
static size_t block_rows(const struct model *m)
{
    uint32_t group = m->n_head / m->n_head_kv;

    return (size_t)(group < BLOCK_ROWS ? BLOCK_ROWS / group : 1) * group;
}

/* 3 rows x hd: q, o, o2; 4 rows: m, l, m2, l2. What is more than the sizes is room for carve to
 * round up. */
static size_t count_floats(const struct model *m, uint32_t n_workers)
{
    size_t rows16 = (block_rows(m) + 15) & ~(size_t)15, hd = m->head_dim;

    return n_workers * ((3 * rows16 + POOL_PAGE_TOKENS) * hd + (4 + POOL_PAGE_TOKENS) * rows16 +
                        JOIN_PAGES * hd + 16) +
           PARTIALS * (hd + 2) + 64;
}

size_t attend_need(const struct model *m, uint32_t n_workers)
{
    return count_floats(m, n_workers) * sizeof(float);
}

int attend_open(const struct model *m, const struct kernels *k, struct workers *w,
                const struct rotary *rotary, struct attend **ret)
{
    uint32_t group = m->n_head / m->n_head_kv, hd = m->head_dim;
    size_t rows = block_rows(m);
    struct attend *a = calloc(1, sizeof(*a));
    float *next;

    if (!a)
        return -ENOMEM;
    *a = (struct attend){ .k = k,
                          .w = w,
                          .rotary = rotary,
                          .n_head = m->n_head,
                          .n_head_kv = m->n_head_kv,
                          .group = group,
                          .hd = hd,
                          .block_tokens = (uint32_t)(rows / group) };
    a->n_floats = count_floats(m, workers_n(w));
    a->desks = calloc(workers_n(w), sizeof(*a->desks));
    a->floats = aligned_alloc(64, (a->n_floats * sizeof(float) + 63) & ~(size_t)63);
    a->part_first = malloc(PARTIALS * sizeof(*a->part_first));
    a->n_left = malloc((size_t)ROUND_PIECES * m->n_head_kv * sizeof(*a->n_left));
    if (!a->desks || !a->floats || !a->part_first || !a->n_left) {
        attend_close(a);
        return -ENOMEM;
    }
    next = a->floats;
    for (uint32_t i = 0; i < workers_n(w); i++) {
        struct desk *d = &a->desks[i];

        d->q = carve(&next, rows * hd);
        d->o = carve(&next, rows * hd);
        d->o2 = carve(&next, rows * hd);
        d->m = carve(&next, rows);
        d->l = carve(&next, rows);
        d->m2 = carve(&next, rows);
        d->l2 = carve(&next, rows);
        d->angles = carve(&next, (size_t)JOIN_PAGES * hd);
        d->keys = carve(&next, (size_t)hd * POOL_PAGE_TOKENS);
        d->scores = carve(&next, rows * POOL_PAGE_TOKENS);
    }
    a->part_m = carve(&next, PARTIALS);
    a->part_l = carve(&next, PARTIALS);
    a->part_o = carve(&next, (size_t)PARTIALS * hd);
    assert((size_t)(next - a->floats) <= a->n_floats);
    *ret = a;
    return 0;
}

void attend_close(struct attend *a)
{
    if (!a)
        return;
    free(a->desks);
    free(a->floats);
    free(a->part_first);
    free(a->n_left);
    free(a);
}

size_t attend_bytes(const struct attend *a)
{
    return a->n_floats * sizeof(float);
}

/* Where the stretch of segments that begins with `first` ends: the own segment, number n_segments,
 * is one, and those before it are taken from the front, as many as have JOIN_PAGES pages together,
 * or one. So it depends on what is behind the token, and on nothing else. */
static uint32_t stretch_end(const struct plan *plan, const struct plan_piece *p, uint32_t first)
{
    const struct plan_segment *segments = plan->segments + p->first_segment;
    uint32_t n_pages, end = first + 1;

    if (first == p->n_segments)
        return end;
    n_pages = seq_n_pages(segments[first].n_keys);
    while (end < p->n_segments && n_pages + seq_n_pages(segments[end].n_keys) <= JOIN_PAGES)
        n_pages += seq_n_pages(segments[end++].n_keys);
    return end;
}

/* Copies the queries of tokens [t0, t0 + n) and one KV head, as one token's heads of the group
 * after another. */
static void load_queries(const struct round *r, const struct plan_piece *p, uint32_t t0, uint32_t n,
                         uint32_t head, struct desk *d)
{
    const struct attend *a = r->a;
    size_t width = (size_t)a->group * a->hd;

    for (uint32_t t = 0; t < n; t++)
        memcpy(d->q + t * width,
               r->q + ((size_t)(p->row + t0 + t) * a->n_head + head * a->group) * a->hd,
               width * sizeof(float));
}

/* What turns queries to the base of an earlier segment. Forth, always: earlier segments have lower
 * bases. */
static const float *angles_to(const struct attend *a, const struct plan_piece *p,
                              const struct plan_segment *to, float *scratch)
{
    return rotary_by(a->rotary, p->base - to->base, scratch);
}

/* The own segment, of which each row sees what is before it. Queries come turned by their offset in
 * it: nothing is left to be turned. */
static void see_own(const struct plan *plan, const struct plan_piece *p, uint32_t t0, uint32_t n,
                    struct kernels_attn *k)
{
    /* The first row's own key is one of the segment's, or stands beside it. */
    k->first_visible = p->off + t0 * p->stride + !p->side;
    k->n_keys = k->first_visible + (n - 1) * p->stride;
    k->stride = p->stride;
    k->pages = plan->pages + p->first_page;
}

/* One earlier segment. Queries are turned here, once for all its keys. */
static void see_earlier(const struct round *r, const struct plan_piece *p, uint32_t segment,
                        struct desk *d, struct kernels_attn *k)
{
    const struct attend *a = r->a;
    const struct plan_segment *g = &r->plan->segments[p->first_segment + segment];

    k->n_keys = k->first_visible = g->n_keys;
    k->pages = r->plan->pages + g->first_page;
    a->k->rope(d->q, k->n_rows, a->hd, angles_to(a, p, g, d->angles));
}

/* Earlier segments [first, end), whose pages go side by side. Each has a base of its own, so the
 * kernel turns queries page by page. */
static void see_joined(const struct round *r, const struct plan_piece *p, uint32_t first,
                       uint32_t end, struct desk *d, struct kernels_attn *k)
{
    const struct attend *a = r->a;
    const struct plan_segment *segments = r->plan->segments + p->first_segment;
    uint32_t page = 0;

    for (uint32_t i = first; i < end; i++) {
        uint32_t left = segments[i].n_keys;
        const float *cs = angles_to(a, p, &segments[i], d->angles + (size_t)page * a->hd);

        /* Rows of a table of megabytes, of which each segment has another. */
        for (uint32_t c = 0; c < a->hd; c += 16)
            __builtin_prefetch(cs + c);
        for (; left > 0; page++) {
            uint32_t n = left < POOL_PAGE_TOKENS ? left : POOL_PAGE_TOKENS;

            d->joined[page] = (struct kernels_joined){ .cs = cs, .n_keys = n };
            left -= n;
        }
    }
    k->n_keys = k->first_visible = page * POOL_PAGE_TOKENS;
    /* Pages of a plan's segments stand one behind the other. */
    k->pages = r->plan->pages + segments[first].first_page;
    k->joined = d->joined;
}

/* The partial result of tokens [t0, t0 + n) over segments [first, end), or the own one. */
static void segment_partial(const struct round *r, const struct plan_piece *p, uint32_t t0,
                            uint32_t n, uint32_t head, uint32_t first, uint32_t end, struct desk *d,
                            float *m, float *l, float *o)
{
    const struct attend *a = r->a;
    const struct pool *pool = r->plan->pool;
    struct kernels_attn k = { .q = d->q,
                              .n_rows = n * a->group,
                              .group = a->group,
                              .head_dim = a->hd,
                              .stride = 1,
                              .pool = pool->mem,
                              .page_bytes = pool->page_bytes,
                              .k_off = pool_k_off(pool, r->layer, head),
                              .v_off = pool_v_off(pool, r->layer, head),
                              .next_k_off = pool_k_off(pool, r->layer, (head + 1) % a->n_head_kv),
                              .m = m,
                              .l = l,
                              .o = o };

    /* Copied anew for every stretch: kernels turn them in place, to the base of one segment, and to
     * turn them on from there would round each time. */
    load_queries(r, p, t0, n, head, d);
    if (first == p->n_segments)
        see_own(r->plan, p, t0, n, &k);
    else if (end == first + 1)
        see_earlier(r, p, first, d, &k);
    else
        see_joined(r, p, first, end, d, &k);
    a->k->attn[pool->kv](&k);
}

/* Over the stretch that begins with segment `first`. */
static void stretch_partial(const struct round *r, const struct plan_piece *p, uint32_t t0,
                            uint32_t n, uint32_t head, uint32_t first, struct desk *d, float *m,
                            float *l, float *o)
{
    segment_partial(r, p, t0, n, head, first, stretch_end(r->plan, p, first), d, m, l, o);
}

/* The rows' keys of their own, after the segment's. Each is a partial result of one key: m its
 * score, l 1, o its value. */
static void merge_self(const struct round *r, const struct plan_piece *p, uint32_t t0, uint32_t n,
                       uint32_t head, struct desk *d)
{
    const struct attend *a = r->a;

    for (uint32_t i = 0; i < n * a->group; i++) {
        size_t at = ((size_t)(p->row + t0 + i / a->group) * a->n_head_kv + head) * a->hd;
        const float *q = d->q + (size_t)i * a->hd, *k = r->kk + at;
        float s = 0;

        for (uint32_t c = 0; c < a->hd; c++)
            s += q[c] * k[c];
        a->k->attn_merge(&d->m[i], &d->l[i], d->o + (size_t)i * a->hd, s, 1, r->vv + at, a->hd);
    }
}

static void keep_larger(float *to, const float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        to[i] = x[i] > to[i] ? x[i] : to[i];
}

/* The segment that was read again. */
static const struct plan_segment *weighed(const struct round *r, const struct plan_piece *p)
{
    return &r->plan->segments[p->first_segment + p->n_segments - 1];
}

/* The attention that the keys of one page receive from d's rows of queries: the softmax is over all
 * that they see, whose sums d->m and d->l are. Row after row, so that it does not matter how a
 * piece is cut. */
static void weigh_page(const struct round *r, const struct plan_piece *p, uint32_t t0, uint32_t n,
                       uint32_t head, uint32_t page, struct desk *d)
{
    const struct attend *a = r->a;
    const struct pool *pool = r->plan->pool;
    uint32_t of = p->again ? weighed(r, p)->first_page : p->first_page;
    const uint8_t *tile =
        pool->mem + r->plan->pages[of + page] * pool->page_bytes + pool_k_off(pool, r->layer, head);
    uint32_t first = page * POOL_PAGE_TOKENS;
    float *to = p->weights + ((size_t)r->layer * a->n_head_kv + head) * p->seg_len + first;
    struct kernels_matmul dot = { .type = QUANT_F32, /* a K tile is a tile of 16 rows of weights */
                                  .w = d->keys,
                                  .tile_len = (size_t)a->hd * POOL_PAGE_TOKENS * sizeof(float),
                                  .n_rows = POOL_PAGE_TOKENS,
                                  .n_cols = a->hd,
                                  .x = d->q,
                                  .x_row_bytes = a->hd * sizeof(float),
                                  .n_x = n * a->group,
                                  .y = d->scores,
                                  .y_stride = POOL_PAGE_TOKENS };

    kv_read_keys(pool->kv, tile, a->hd, d->keys);
    a->k->matmul[QUANT_F32](&dot, 0, POOL_PAGE_TOKENS);
    for (uint32_t i = 0; i < n * a->group; i++) {
        uint32_t seen = p->again ? p->seg_len : p->off + t0 + i / a->group + 1;
        float *row = d->scores + (size_t)i * POOL_PAGE_TOKENS;

        /* All of this page stands behind the token. */
        if (seen <= first)
            continue;
        seen = seen - first < POOL_PAGE_TOKENS ? seen - first : POOL_PAGE_TOKENS;
        /* exp(score - log of the sum of exp): the softmax over all that the row saw, here of one
         * page. */
        a->k->sampling.weights(row, seen, d->m[i] + logf(d->l[i]), 1.0f, row);
        if (p->again)
            keep_larger(to, row, seen);
        else
            a->k->add(to, row, seen);
    }
}

/* d->q is turned to the own segment. */
static void weigh(const struct round *r, const struct plan_piece *p, uint32_t t0, uint32_t n,
                  uint32_t head, struct desk *d)
{
    const struct attend *a = r->a;
    uint32_t n_keys = p->again ? p->seg_len : p->off + t0 + n;

    if (p->again) {
        load_queries(r, p, t0, n, head, d);
        a->k->rope(d->q, n * a->group, a->hd, angles_to(a, p, weighed(r, p), d->angles));
    }
    for (uint32_t page = 0; page < seq_n_pages(n_keys); page++)
        weigh_page(r, p, t0, n, head, page, d);
}

/* What of the rows' attention earlier segments get, whose sums d->m and d->l are. Each segment is
 * looked at once more, alone: stretches, which the result was made of, join some of them. */
static void share(const struct round *r, const struct plan_piece *p, uint32_t t0, uint32_t n,
                  uint32_t head, struct desk *d)
{
    const struct attend *a = r->a;

    for (uint32_t s = 0; s < p->n_shares; s++) {
        segment_partial(r, p, t0, n, head, s, s + 1, d, d->m2, d->l2, d->o2);
        for (uint32_t i = 0; i < n * a->group; i++) {
            size_t row = (size_t)r->layer * a->n_head + head * a->group + i % a->group;

            /* The segment's sum, scaled to the whole one's largest score, over the whole sum. */
            p->shares[row * p->n_shares + s] += d->l2[i] * expf(d->m2[i] - d->m[i]) / d->l[i];
        }
    }
}

/* The queries of one token and KV head that are kept (engine/run.h); m and l (group) are of all
 * that they see. Numbers are counted from 1: the nth token of the segment, and of those that count
 * the at-th head. */
static void keep_asked(const struct round *r, const struct plan_piece *p, uint32_t t, uint32_t head,
                       const float *m, const float *l)
{
    const struct attend *a = r->a;
    const struct forward_asked *k = &p->asked;
    size_t len = ASKED_FLOATS(a->hd), list = (size_t)r->layer * a->n_head_kv + head;
    uint32_t nth = p->off + t * p->stride + 1;

    if (nth % k->tokens)
        return;
    for (uint32_t g = 0; g < a->group; g++) {
        uint32_t at = (nth / k->tokens - 1) * a->group + g + 1;
        float *to = k->all + (list * k->n + at / k->heads - 1) * len;

        if (at % k->heads)
            continue;
        memcpy(to, r->q + ((size_t)(p->row + t) * a->n_head + head * a->group + g) * a->hd,
               a->hd * sizeof(*to));
        to[a->hd] = m[g] + logf(l[g]);
    }
}

/* o / l of one query row to its place in out. */
static void store_row(const struct round *r, const struct plan_piece *p, uint32_t t, uint32_t head,
                      uint32_t g, const float *o, float l)
{
    const struct attend *a = r->a;
    float *out = r->out + ((size_t)(p->row + t) * a->n_head + head * a->group + g) * a->hd;

    memcpy(out, o, a->hd * sizeof(float));
    a->k->scale(out, a->hd, 1.0f / l);
}

/* All rows of the group of token t are stored. */
static void stored(const struct round *r, const struct plan_piece *p, uint32_t t, uint32_t head)
{
    uint32_t width = r->a->group * r->a->hd;

    if (r->then.fn)
        r->then.fn(r->then.arg, p->row + t, head * width, (head + 1) * width);
}

/* One KV head at a time: the query heads of its group share the keys that are read. */
static void run_block(const struct round *r, const struct plan_piece *p, uint32_t head,
                      uint32_t block, struct desk *d)
{
    const struct attend *a = r->a;
    uint32_t t0 = block * a->block_tokens;
    uint32_t n = p->n - t0 < a->block_tokens ? p->n - t0 : a->block_tokens;
    uint32_t n_rows = n * a->group;

    stretch_partial(r, p, t0, n, head, 0, d, d->m, d->l, d->o);
    for (uint32_t s = stretch_end(r->plan, p, 0); s <= p->n_segments;
         s = stretch_end(r->plan, p, s)) {
        stretch_partial(r, p, t0, n, head, s, d, d->m2, d->l2, d->o2);
        for (uint32_t i = 0; i < n_rows; i++)
            a->k->attn_merge(&d->m[i], &d->l[i], d->o + (size_t)i * a->hd, d->m2[i], d->l2[i],
                             d->o2 + (size_t)i * a->hd, a->hd);
    }
    if (p->side) /* d->q is turned to the own segment, the last one */
        merge_self(r, p, t0, n, head, d);
    for (uint32_t i = 0; i < n_rows; i++)
        store_row(r, p, t0 + i / a->group, head, i % a->group, d->o + (size_t)i * a->hd, d->l[i]);
    for (uint32_t t = 0; t < n; t++)
        stored(r, p, t0 + t, head);
    for (uint32_t t = 0; p->asked.all && t < n; t++)
        keep_asked(r, p, t0 + t, head, d->m + t * a->group, d->l + t * a->group);
    if (p->weights)
        weigh(r, p, t0, n, head, d);
    if (p->shares)
        share(r, p, t0, n, head, d);
}

/* Whoever adds up what a head's queries see is alone, and does it in order. */
static bool adds_up(const struct plan_piece *p)
{
    return p->weights || p->shares;
}

static uint32_t n_blocks(const struct attend *a, const struct plan_piece *p)
{
    return (p->n + a->block_tokens - 1) / a->block_tokens;
}

/* Merges a head's partials of a split piece, stretch after stretch as run_block does: another
 * order, or one by pairs, would change the last bits. The first stretch's partial gets all the
 * others. */
static void merge_head(const struct round *r, uint32_t piece, uint32_t head)
{
    const struct attend *a = r->a;
    const struct plan_piece *p = &r->pieces[piece];
    const struct cut *c = &r->cuts[piece];
    uint32_t n_rows = p->n * a->group;

    for (uint32_t row = 0; row < n_rows; row++) {
        uint32_t to = c->first_part + head * c->n_cols * n_rows + row;
        float *o = a->part_o + (size_t)to * a->hd;

        for (uint32_t s = 1; s < c->n_cols; s++) {
            uint32_t from = to + s * n_rows;

            a->k->attn_merge(&a->part_m[to], &a->part_l[to], o, a->part_m[from], a->part_l[from],
                             a->part_o + (size_t)from * a->hd, a->hd);
        }
        store_row(r, p, row / a->group, head, row % a->group, o, a->part_l[to]);
        if ((row + 1) % a->group == 0)
            stored(r, p, row / a->group, head);
    }
    for (uint32_t t = 0; p->asked.all && t < p->n; t++) {
        size_t to = c->first_part + (size_t)head * c->n_cols * n_rows + t * a->group;

        keep_asked(r, p, t, head, a->part_m + to, a->part_l + to);
    }
}

/* Pieces are few (ROUND_PIECES), so the one that an item belongs to is looked for. */
static void run_item(void *arg, uint32_t item, uint32_t worker)
{
    const struct round *r = arg;
    const struct attend *a = r->a;
    struct desk *d = &a->desks[worker];
    const struct plan_piece *p;
    const struct cut *c;
    uint32_t i = 0, head, col, part;

    while (i + 1 < r->n_pieces && item >= r->cuts[i + 1].first_item)
        i++;
    p = &r->pieces[i];
    c = &r->cuts[i];
    col = (item - c->first_item) / a->n_head_kv;
    head = (item - c->first_item) % a->n_head_kv;
    if (adds_up(p)) { /* all of a head's blocks */
        for (uint32_t block = 0; block < n_blocks(a, p); block++)
            run_block(r, p, head, block, d);
        return;
    }
    if (!c->split) {
        run_block(r, p, head, col, d);
        return;
    }
    part = c->first_part + (head * c->n_cols + col) * p->n * a->group;
    stretch_partial(r, p, 0, p->n, head, a->part_first[c->first_part + col], d, a->part_m + part,
                    a->part_l + part, a->part_o + (size_t)part * a->hd);
    /* acq_rel: each worker releases its partial with this, and the last one to come acquires the
     * others' and merges them. Nobody waits. */
    if (atomic_fetch_sub_explicit(&a->n_left[i * a->n_head_kv + head], 1, memory_order_acq_rel) ==
        1)
        merge_head(r, i, head);
}

/* The first segments of all stretches, the own one's last. Returns how many: 0 if they are more
 * than `most`. */
static uint32_t list_stretches(const struct plan *plan, const struct plan_piece *p, uint32_t most,
                               uint32_t *ret)
{
    uint32_t n = 0;

    for (uint32_t first = 0; first <= p->n_segments; first = stretch_end(plan, p, first)) {
        if (n == most)
            return 0;
        ret[n++] = first;
    }
    return n;
}

/* Cuts as many pieces as one round holds.
 *
 * A decoding token has one row for each head, too little for all workers over a long context, so
 * its stretches are items, too. Not where weights are summed, by one worker a head, nor where a
 * side gist merges its own key, which run_block does. A piece with more stretches than there are
 * partials, alone in its round, goes by blocks after all: slower, and the same bits. */
static void cut_round(struct round *r, uint32_t n_left)
{
    const struct attend *a = r->a;
    uint32_t n_part = 0;

    r->n_pieces = r->n_items = 0;
    while (r->n_pieces < n_left && r->n_pieces < ROUND_PIECES) {
        const struct plan_piece *p = &r->pieces[r->n_pieces];
        struct cut *c = &r->cuts[r->n_pieces];
        uint32_t n_rows = p->n * a->n_head; /* of a stretch */

        *c = (struct cut){ .first_item = r->n_items, .first_part = n_part };
        if (p->n_segments > 0 && p->n <= SPLIT_TOKENS && p->n <= a->block_tokens && !adds_up(p) &&
            !p->side) {
            c->n_cols =
                list_stretches(r->plan, p, (PARTIALS - n_part) / n_rows, a->part_first + n_part);
            if (c->n_cols == 0 && n_part > 0)
                break; /* the next round has room */
            n_part += c->n_cols * n_rows;
        }
        c->split = c->n_cols > 0;
        /* Relaxed: workers_run publishes it with the round. */
        for (uint32_t h = 0; c->split && h < a->n_head_kv; h++)
            atomic_store_explicit(&a->n_left[r->n_pieces * a->n_head_kv + h], c->n_cols,
                                  memory_order_relaxed);
        if (!c->split)
            c->n_cols = adds_up(p) ? 1 : n_blocks(a, p);
        r->n_items += a->n_head_kv * c->n_cols;
        r->n_pieces++;
    }
}

void attend_run(struct attend *a, const struct plan *plan, uint32_t layer,
                const struct attend_rows *rows, float *out)
{
    attend_run_then(a, plan, layer, rows, out, (struct attend_then){ NULL, NULL });
}

void attend_run_then(struct attend *a, const struct plan *plan, uint32_t layer,
                     const struct attend_rows *rows, float *out, struct attend_then then)
{
    struct round r = { .a = a,
                       .plan = plan,
                       .layer = layer,
                       .q = rows->q,
                       .kk = rows->k,
                       .vv = rows->v,
                       .out = out,
                       .then = then };

    for (uint32_t done = 0; done < plan->n_pieces; done += r.n_pieces) {
        r.pieces = plan->pieces + done;
        cut_round(&r, plan->n_pieces - done);
        workers_run(a->w, run_item, &r, r.n_items);
    }
}
