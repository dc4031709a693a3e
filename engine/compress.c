#include "engine/compress.h"

#include "engine/kv.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What one worker computes in. */
struct desk {
    float k[KERNELS_HEAD_DIM_MAX], v[KERNELS_HEAD_DIM_MAX], angles[KERNELS_HEAD_DIM_MAX];
    float weights[SEQ_SEGMENT_MAX], order[SEQ_SEGMENT_MAX];
    uint32_t kept[SEQ_SEGMENT_MAX]; /* offsets, ascending */
};

struct compressor {
    const struct kernels *k;
    struct workers *w;
    const struct rotary *rotary;
    uint32_t n_layer, n_head_kv, hd;
    struct desk *desks; /* one a worker */
};

struct job {
    struct compressor *c;
    const struct compress_spec *spec;
    const struct seq *s;
    uint32_t segment, n_keys;
    const uint32_t *to;             /* pages: the segment's own, or those with gists in them */
    uint32_t gists_from, gists_end; /* keys that are there already */
    const float *weights;
    bool thin;
    uint32_t n_had; /* thin: keys before */
};

static const char *const names[COMPRESS__N] = {
    [COMPRESS_FULL] = "full",
    [COMPRESS_NONE] = "none",
    [COMPRESS_FINE_KV] = "fine-kv",
    [COMPRESS_SELECT] = "select",
};

const char *compress_name(enum compress_method method)
{
    return names[method];
}

int compress_check(const struct compress_spec *c, uint32_t seg_len, struct why *why)
{
    if (c->method == COMPRESS_FULL || c->method == COMPRESS_NONE)
        return 0;
    if (c->ratio < COMPRESS_RATIO_MIN || c->ratio > COMPRESS_RATIO_MAX || seg_len % c->ratio)
        return why_set(why, -EINVAL,
                       "found ratio %u, allowed are %u to %u that divide segments of %u tokens",
                       c->ratio, COMPRESS_RATIO_MIN, COMPRESS_RATIO_MAX, seg_len);
    if (c->sinks > COMPRESS_SINKS_MAX)
        return why_set(why, -EINVAL, "found %u sinks, allowed are up to %u", c->sinks,
                       COMPRESS_SINKS_MAX);
    return 0;
}

static uint32_t n_sinks(const struct compress_spec *c, uint32_t segment)
{
    return segment == 0 ? c->sinks : 0;
}

uint32_t compress_n_keys(const struct compress_spec *c, uint32_t seg_len, uint32_t segment,
                         uint32_t thinned)
{
    uint32_t sinks = n_sinks(c, segment), rest = seg_len - sinks, gists;

    if (c->method == COMPRESS_FULL)
        return seg_len;
    if (c->method == COMPRESS_NONE)
        return 0;
    gists = rest / c->ratio;
    while (thinned-- > 0)
        gists = (gists + 1) / 2;
    return sinks + gists + rest % c->ratio;
}

uint32_t compress_max_thinned(const struct compress_spec *c)
{
    uint32_t n = 0;

    if (c->method == COMPRESS_FULL || c->method == COMPRESS_NONE)
        return 0;
    while (c->ratio << (n + 1) <= COMPRESS_RATIO_MAX)
        n++;
    return n;
}

uint32_t compress_n_observers(const struct compress_spec *c, uint32_t seg_len)
{
    if (c->method != COMPRESS_SELECT)
        return 0;
    return seg_len < COMPRESS_OBSERVERS ? seg_len : COMPRESS_OBSERVERS;
}

uint32_t compress_n_gists(const struct compress_spec *c, uint32_t seg_len, uint32_t segment)
{
    return c->adapter ? (seg_len - n_sinks(c, segment)) / c->ratio : 0;
}

/* --- which keys stay -------------------------------------------------------------------------- */

/* The last token of every snippet, and the remainder. */
static void keep_snippets(const struct job *j, uint32_t *ret)
{
    uint32_t sinks = n_sinks(j->spec, j->segment), r = j->spec->ratio, n = 0;
    uint32_t n_snippets = (j->s->seg_len - sinks) / r;

    for (uint32_t i = 0; i < sinks; i++)
        ret[n++] = i;
    for (uint32_t i = 1; i <= n_snippets; i++)
        ret[n++] = sinks + i * r - 1;
    for (uint32_t i = sinks + n_snippets * r; i < j->s->seg_len; i++)
        ret[n++] = i;
    assert(n == j->n_keys);
}

/* The n-th largest of len numbers, n >= 1; x is put into another order. (qsort may call malloc.) */
static float nth_largest(float *x, uint32_t len, uint32_t n)
{
    uint32_t lo = 0, hi = len; /* it is in [lo, hi), and what stands before is larger */

    for (;;) {
        float pivot = x[lo + (hi - lo) / 2];
        uint32_t more = lo, i = lo, less = hi;

        while (i < less) {
            float v = x[i];

            if (v > pivot) {
                x[i++] = x[more];
                x[more++] = v;
            } else if (v < pivot) {
                x[i] = x[--less];
                x[less] = v;
            } else {
                i++;
            }
        }
        if (n <= more)
            hi = more;
        else if (n > less)
            lo = less;
        else
            return pivot;
    }
}

/* The sinks, and of the len numbers in d->weights, one for each key behind them, the largest; of equals the
 * later ones, which are nearer to what comes. */
static void keep_largest(const struct job *j, uint32_t len, struct desk *d)
{
    uint32_t sinks = n_sinks(j->spec, j->segment), n = j->n_keys - sinks, more = 0, at = j->n_keys;
    float least;

    for (uint32_t i = 0; i < sinks; i++)
        d->kept[i] = i;
    memcpy(d->order, d->weights, len * sizeof(*d->order));
    least = nth_largest(d->order, len, n);
    for (uint32_t i = 0; i < len; i++)
        more += d->weights[i] > least;
    for (uint32_t i = len; i-- > 0;) {
        bool equal = d->weights[i] == least && n > more;

        if (equal)
            n--;
        if (equal || d->weights[i] > least)
            d->kept[--at] = sinks + i;
    }
    assert(at == sinks);
}

/* The keys of one head that received most attention. */
static void keep_heaviest(const struct job *j, uint32_t head_of_all, struct desk *d)
{
    const float *weights = j->weights + (size_t)head_of_all * j->s->seg_len;
    uint32_t sinks = n_sinks(j->spec, j->segment), len = j->s->seg_len - sinks;

    for (uint32_t i = 0; i < len; i++) /* also a weight that is no number has to have an order */
        d->weights[i] = weights[sinks + i] > 0 ? weights[sinks + i] : 0;
    keep_largest(j, len, d);
}

/* Of every two neighbouring gists the later one, and all else. */
static void keep_later(const struct job *j, uint32_t *ret)
{
    uint32_t sinks = n_sinks(j->spec, j->segment), n = 0;
    uint32_t rest = (j->s->seg_len - sinks) % j->spec->ratio, end = j->n_had - rest;

    for (uint32_t i = 0; i < sinks; i++)
        ret[n++] = i;
    for (uint32_t i = sinks; i < end; i += 2)
        ret[n++] = i + 1 < end ? i + 1 : i;
    for (uint32_t i = end; i < j->n_had; i++)
        ret[n++] = i;
    assert(n == j->n_keys);
}

static void read_key(const struct job *j, size_t k_off, size_t v_off, uint32_t i, struct desk *d)
{
    const struct pool *p = j->s->pool;
    uint32_t page = seq_pages(j->s, j->segment)[i / POOL_PAGE_TOKENS];
    const uint8_t *at = p->mem + page * p->page_bytes;

    kv_read(p->kv, at + k_off, at + v_off, j->c->hd, i % POOL_PAGE_TOKENS, d->k, d->v);
}

/* The shortest keys of one head. */
static void keep_shortest(const struct job *j, size_t k_off, size_t v_off, struct desk *d)
{
    uint32_t sinks = n_sinks(j->spec, j->segment);

    for (uint32_t i = sinks; i < j->n_had; i++) {
        float sum = 0;

        read_key(j, k_off, v_off, i, d);
        for (uint32_t c = 0; c < j->c->hd; c++)
            sum += d->k[c] * d->k[c];
        d->weights[i - sinks] = sum >= 0 ? -sum : -INFINITY;
    }
    keep_largest(j, j->n_had - sinks, d);
}

/* --- moving them ------------------------------------------------------------------------------ */

/* The rotation by n positions, backwards. */
static void turn_back(const struct compressor *c, uint32_t n, struct desk *d)
{
    uint32_t hd = c->hd;

    memcpy(d->angles, rotary_by(c->rotary, n, NULL), hd * sizeof(float)); /* n < SEQ_SEGMENT_MAX */
    for (uint32_t i = hd / 2; i < hd; i++)
        d->angles[i] = -d->angles[i];
    c->k->rope(d->k, 1, hd, d->angles);
}

/* Kept offsets ascend, so that in place an entry never lies before its place: none is overwritten unread. */
static void move_head(void *arg, uint32_t item, uint32_t worker)
{
    const struct job *j = arg;
    const struct compressor *c = j->c;
    const struct pool *p = j->s->pool;
    bool in_place = j->to == seq_pages(j->s, j->segment);
    size_t k_off = pool_k_off(p, item / c->n_head_kv, item % c->n_head_kv);
    size_t v_off = pool_v_off(p, item / c->n_head_kv, item % c->n_head_kv);
    struct desk *d = &c->desks[worker];

    if (j->spec->method == COMPRESS_SELECT && j->thin)
        keep_shortest(j, k_off, v_off, d);
    else if (j->spec->method == COMPRESS_SELECT)
        keep_heaviest(j, item, d);
    else if (j->thin)
        keep_later(j, d->kept);
    else
        keep_snippets(j, d->kept);
    for (uint32_t to = 0; to < j->n_keys; to++) {
        uint32_t from = d->kept[to];
        uint8_t *target = p->mem + j->to[to / POOL_PAGE_TOKENS] * p->page_bytes;

        if ((from == to && in_place) || (to >= j->gists_from && to < j->gists_end))
            continue;
        read_key(j, k_off, v_off, from, d);
        turn_back(c, from - to, d);
        c->k->kv_store[p->kv](d->k, d->v, c->hd, to % POOL_PAGE_TOKENS, target + k_off,
                              target + v_off);
    }
}

static struct job make_job(struct compressor *c, const struct compress_spec *spec,
                           const struct seq *s, uint32_t segment)
{
    assert((segment + 1) * s->seg_len <= s->n_tokens);
    return (struct job){ .c = c,
                         .spec = spec,
                         .s = s,
                         .segment = segment,
                         .n_keys = compress_n_keys(spec, s->seg_len, segment, 0),
                         .to = seq_pages(s, segment) };
}

/* In place. */
static int move_all(struct job *j, struct seq *s)
{
    int r = seq_own(s, j->segment, j->n_keys);

    if (r < 0)
        return r;
    if (j->n_keys)
        workers_run(j->c->w, move_head, j, j->c->n_layer * j->c->n_head_kv);
    seq_shorten(s, j->segment, j->n_keys);
    return 0;
}

int compressor_run(struct compressor *c, const struct compress_spec *spec, struct seq *s,
                   uint32_t segment, const float *weights)
{
    struct job j = make_job(c, spec, s, segment);

    assert(!s->segments[segment].compressed);
    assert(weights || compress_n_observers(spec, s->seg_len) == 0);
    if (spec->method == COMPRESS_FULL)
        return 0;
    j.weights = weights;
    return move_all(&j, s);
}

int compressor_thin(struct compressor *c, const struct compress_spec *spec, struct seq *s,
                    uint32_t segment, uint32_t thinned)
{
    struct job j = make_job(c, spec, s, segment);

    assert(s->segments[segment].compressed && thinned < compress_max_thinned(spec));
    j.thin = true;
    j.n_had = s->segments[segment].n_keys;
    j.n_keys = compress_n_keys(spec, s->seg_len, segment, thinned + 1);
    return move_all(&j, s);
}

void compressor_join(struct compressor *c, const struct compress_spec *spec, struct seq *s,
                     uint32_t segment, const uint32_t *pages)
{
    struct job j = make_job(c, spec, s, segment);

    j.to = pages;
    j.gists_from = n_sinks(spec, segment);
    j.gists_end = j.gists_from + compress_n_gists(spec, s->seg_len, segment);
    workers_run(c->w, move_head, &j, c->n_layer * c->n_head_kv);
    seq_replace(s, segment, j.n_keys, pages);
}

/* --- opening ---------------------------------------------------------------------------------- */

int compressor_open(const struct model *m, const struct kernels *k, struct workers *w,
                    const struct rotary *rotary, struct compressor **ret)
{
    struct compressor *c = malloc(sizeof(*c));

    if (!c)
        return -ENOMEM;
    *c = (struct compressor){ .k = k,
                              .w = w,
                              .rotary = rotary,
                              .n_layer = m->n_layer,
                              .n_head_kv = m->n_head_kv,
                              .hd = m->head_dim };
    c->desks = malloc(workers_n(w) * sizeof(*c->desks));
    if (!c->desks) {
        compressor_close(c);
        return -ENOMEM;
    }
    *ret = c;
    return 0;
}

void compressor_close(struct compressor *c)
{
    if (!c)
        return;
    free(c->desks);
    free(c);
}
