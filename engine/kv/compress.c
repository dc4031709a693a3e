#include "engine/kv/compress.h"

#include "engine/cpu/kv.h"

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
    const uint32_t *from, *to;      /* pages: the segment's own, or those with gists in them */
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
    [COMPRESS_COARSE_KV] = "coarse-kv",
    [COMPRESS_COARSE_REC] = "coarse-rec",
    [COMPRESS_SELECT_REREAD] = "select-reread",
};

const char *compress_name(enum compress_method method)
{
    return names[method];
}

static bool is_coarse(const struct compress_spec *c)
{
    return c->method == COMPRESS_COARSE_KV || c->method == COMPRESS_COARSE_REC;
}

static bool keeps_no_gists(const struct compress_spec *c)
{
    return c->method == COMPRESS_FULL || c->method == COMPRESS_NONE;
}

static bool is_select(const struct compress_spec *c)
{
    return c->method == COMPRESS_SELECT || c->method == COMPRESS_SELECT_REREAD;
}

uint32_t compress_gist_every(const struct compress_spec *c)
{
    return c->method == COMPRESS_FINE_KV && c->adapter && c->adapter->mask == ADAPTER_IN_SEGMENT
               ? c->ratio
               : 0;
}

/* The gists stand for the whole segment. */
static bool is_whole(const struct compress_spec *c)
{
    return is_coarse(c) || compress_gist_every(c) > 0;
}

enum compress_method compress_method_of(const struct adapter *a)
{
    return a->method == ADAPTER_COARSE_KV    ? COMPRESS_COARSE_KV
           : a->method == ADAPTER_COARSE_REC ? COMPRESS_COARSE_REC
                                             : COMPRESS_FINE_KV;
}

static int check_adapter(const struct compress_spec *c, uint32_t seg_len, struct why *why)
{
    if (!c->adapter && is_coarse(c))
        return why_set(why, -EINVAL, "%s wants an adapter that makes its gists", names[c->method]);
    if (c->adapter && compress_method_of(c->adapter) != c->method)
        return why_set(why, -EINVAL, "adapter \"%s\" makes %s gists, not %s", c->adapter->name,
                       adapter_method_name(c->adapter->method), names[c->method]);
    if (compress_gist_every(c) && c->sinks > c->ratio)
        return why_set(why, -EINVAL, "found %u sinks, allowed before the first gist are up to %u",
                       c->sinks, c->ratio);
    /* Offsets inside a segment are turned by one table's rows. */
    if (compress_gist_every(c) && seg_len + seg_len / c->ratio > ROTARY_FINE)
        return why_set(why, -EINVAL,
                       "found segments of %u tokens and %u gists among them, allowed are up to "
                       "%u in all",
                       seg_len, seg_len / c->ratio, ROTARY_FINE);
    return 0;
}

int compress_check(const struct compress_spec *c, uint32_t seg_len, struct why *why)
{
    if (keeps_no_gists(c))
        return c->adapter ? why_set(why, -EINVAL, "adapter \"%s\" makes gists, %s keeps none",
                                    c->adapter->name, names[c->method])
                          : 0;
    if (c->ratio < COMPRESS_RATIO_MIN || c->ratio > COMPRESS_RATIO_MAX || seg_len % c->ratio)
        return why_set(why, -EINVAL,
                       "found ratio %u, allowed are %u to %u that divide segments of %u tokens",
                       c->ratio, COMPRESS_RATIO_MIN, COMPRESS_RATIO_MAX, seg_len);
    if (c->sinks > COMPRESS_SINKS_MAX)
        return why_set(why, -EINVAL, "found %u sinks, allowed are up to %u", c->sinks,
                       COMPRESS_SINKS_MAX);
    return check_adapter(c, seg_len, why);
}

static uint32_t n_sinks(const struct compress_spec *c, uint32_t segment)
{
    return segment == 0 ? c->sinks : 0;
}

/* Gists of a segment, and the tokens behind them that stay. */
static uint32_t snippets(const struct compress_spec *c, uint32_t seg_len, uint32_t segment)
{
    return (is_whole(c) ? seg_len : seg_len - n_sinks(c, segment)) / c->ratio;
}

static uint32_t remainder_of(const struct compress_spec *c, uint32_t seg_len, uint32_t segment)
{
    return is_whole(c) ? 0 : (seg_len - n_sinks(c, segment)) % c->ratio;
}

uint32_t compress_n_keys(const struct compress_spec *c, uint32_t seg_len, uint32_t segment,
                         uint32_t thinned)
{
    uint32_t gists = snippets(c, seg_len, segment);

    if (c->method == COMPRESS_FULL)
        return seg_len;
    if (c->method == COMPRESS_NONE)
        return 0;
    while (thinned-- > 0)
        gists = (gists + 1) / 2;
    return n_sinks(c, segment) + gists + remainder_of(c, seg_len, segment);
}

uint32_t compress_n_raw(const struct compress_spec *c, uint32_t seg_len, uint32_t segment)
{
    if (c->method == COMPRESS_FULL)
        return seg_len;
    if (c->method == COMPRESS_NONE)
        return 0;
    return n_sinks(c, segment) + (is_select(c) ? 0 : remainder_of(c, seg_len, segment));
}

uint32_t compress_max_thinned(const struct compress_spec *c)
{
    uint32_t n = 0;

    if (keeps_no_gists(c))
        return 0;
    while (c->ratio << (n + 1) <= COMPRESS_RATIO_MAX)
        n++;
    return n;
}

uint32_t compress_n_observers(const struct compress_spec *c, uint32_t seg_len)
{
    if (!is_select(c))
        return 0;
    if (c->method == COMPRESS_SELECT_REREAD)
        return seg_len;
    return seg_len < COMPRESS_OBSERVERS ? seg_len : COMPRESS_OBSERVERS;
}

uint32_t compress_n_beside(const struct compress_spec *c, uint32_t seg_len, uint32_t segment)
{
    if (c->method == COMPRESS_SELECT_REREAD)
        return seg_len;
    return compress_n_gists(c, seg_len, segment) ? compress_n_keys(c, seg_len, segment, 0) : 0;
}

uint32_t compress_n_gists(const struct compress_spec *c, uint32_t seg_len, uint32_t segment)
{
    if (!c->adapter || keeps_no_gists(c) || compress_gist_every(c))
        return 0;
    return snippets(c, seg_len, segment);
}

/* --- which keys stay -------------------------------------------------------------------------- */

/* Gists that stand among the tokens. */
static void keep_gists(const struct job *j, uint32_t *ret)
{
    uint32_t sinks = n_sinks(j->spec, j->segment), r = j->spec->ratio, n = 0;

    for (uint32_t i = 0; i < sinks; i++)
        ret[n++] = i;
    for (uint32_t i = 1; i <= j->s->seg_len / r; i++)
        ret[n++] = i * (r + 1) - 1;
    assert(n == j->n_keys);
}

/* The last token of every snippet, and the remainder. */
static void keep_snippets(const struct job *j, uint32_t *ret)
{
    uint32_t sinks = n_sinks(j->spec, j->segment), r = j->spec->ratio, n = 0;
    uint32_t n_snippets = snippets(j->spec, j->s->seg_len, j->segment);

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

/* The sinks, and of the len numbers in d->weights, one for each key behind them, the largest; of
 * equals the later ones, which are nearer to what comes. */
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
    uint32_t end = j->n_had - remainder_of(j->spec, j->s->seg_len, j->segment);

    for (uint32_t i = 0; i < sinks; i++)
        ret[n++] = i;
    for (uint32_t i = sinks; i < end; i += 2)
        ret[n++] = i + 1 < end ? i + 1 : i;
    for (uint32_t i = end; i < j->n_had; i++)
        ret[n++] = i;
    assert(n == j->n_keys);
}

/* Offsets of a layer's head in a page. */
struct head {
    size_t k, v;
};

static struct head head_of(const struct job *j, uint32_t item)
{
    uint32_t n = j->c->n_head_kv;

    return (struct head){ pool_k_off(j->s->pool, item / n, item % n),
                          pool_v_off(j->s->pool, item / n, item % n) };
}

static uint8_t *page_of(const struct job *j, const uint32_t *pages, uint32_t i)
{
    return j->s->pool->mem + pages[i / POOL_PAGE_TOKENS] * j->s->pool->page_bytes;
}

static void read_key(const struct job *j, struct head h, uint32_t i, struct desk *d)
{
    const uint8_t *at = page_of(j, j->from, i);

    kv_read(j->s->pool->kv, at + h.k, at + h.v, j->c->hd, i % POOL_PAGE_TOKENS, d->k, d->v);
}

/* The shortest keys of one head. */
static void keep_shortest(const struct job *j, struct head h, struct desk *d)
{
    uint32_t sinks = n_sinks(j->spec, j->segment);

    for (uint32_t i = sinks; i < j->n_had; i++) {
        float sum = 0;

        read_key(j, h, i, d);
        for (uint32_t c = 0; c < j->c->hd; c++)
            sum += d->k[c] * d->k[c];
        d->weights[i - sinks] = sum >= 0 ? -sum : -INFINITY;
    }
    keep_largest(j, j->n_had - sinks, d);
}

/* --- moving them ------------------------------------------------------------------------------ */

/* d->k by so many positions, less than SEQ_SEGMENT_MAX. */
static void turn_key(const struct compressor *c, int by, struct desk *d)
{
    uint32_t hd = c->hd;

    memcpy(d->angles, rotary_by(c->rotary, (uint32_t)abs(by), NULL), hd * sizeof(float));
    for (uint32_t i = hd / 2; by < 0 && i < hd; i++)
        d->angles[i] = -d->angles[i];
    c->k->rope(d->k, 1, hd, d->angles);
}

/* A key is kept rotated by its place. */
static void move_key(const struct job *j, struct head h, uint32_t from, uint32_t to, struct desk *d)
{
    uint8_t *at = page_of(j, j->to, to);

    if (from == to && j->from == j->to)
        return;
    read_key(j, h, from, d);
    turn_key(j->c, (int)to - (int)from, d);
    j->c->k->kv_store[j->s->pool->kv](d->k, d->v, j->c->hd, to % POOL_PAGE_TOKENS, at + h.k,
                                      at + h.v);
}

/* Kept offsets ascend, so that in place an entry never lies before its place: none is overwritten
 * unread. */
static void move_head(void *arg, uint32_t item, uint32_t worker)
{
    const struct job *j = arg;
    struct head h = head_of(j, item);
    struct desk *d = &j->c->desks[worker];

    if (is_select(j->spec) && j->thin)
        keep_shortest(j, h, d);
    else if (is_select(j->spec))
        keep_heaviest(j, item, d);
    else if (j->thin)
        keep_later(j, d->kept);
    else if (j->s->gist_every)
        keep_gists(j, d->kept);
    else
        keep_snippets(j, d->kept);
    for (uint32_t to = 0; to < j->n_keys; to++)
        if (to < j->gists_from || to >= j->gists_end)
            move_key(j, h, d->kept[to], to, d);
}

static void copy_sinks(void *arg, uint32_t item, uint32_t worker)
{
    const struct job *j = arg;

    for (uint32_t i = 0; i < n_sinks(j->spec, j->segment); i++)
        move_key(j, head_of(j, item), i, i, &j->c->desks[worker]);
}

/* Gists in pages of their own make room for the sinks. */
static void shift_gists(void *arg, uint32_t item, uint32_t worker)
{
    const struct job *j = arg;
    uint32_t sinks = n_sinks(j->spec, j->segment);

    for (uint32_t i = j->n_keys - sinks; i-- > 0;)
        move_key(j, head_of(j, item), i, sinks + i, &j->c->desks[worker]);
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
                         .from = seq_pages(s, segment),
                         .to = seq_pages(s, segment) };
}

static void run_job(struct job *j, void (*fn)(void *arg, uint32_t item, uint32_t worker))
{
    workers_run(j->c->w, fn, j, j->c->n_layer * j->c->n_head_kv);
}

/* In place. */
static int move_all(struct job *j, struct seq *s)
{
    int r = seq_own(s, j->segment, j->n_keys);

    if (r < 0)
        return r;
    if (j->n_keys)
        run_job(j, move_head);
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

void compressor_put_sinks(struct compressor *c, const struct compress_spec *spec, struct seq *s,
                          uint32_t segment, const uint32_t *pages)
{
    struct job j = make_job(c, spec, s, segment);

    j.to = pages;
    run_job(&j, copy_sinks);
}

void compressor_join(struct compressor *c, const struct compress_spec *spec, struct seq *s,
                     uint32_t segment, const uint32_t *pages)
{
    struct job j = make_job(c, spec, s, segment);

    j.to = pages;
    if (spec->method == COMPRESS_COARSE_KV && n_sinks(spec, segment)) {
        j.from = pages;
        run_job(&j, shift_gists);
        compressor_put_sinks(c, spec, s, segment, pages);
    } else if (spec->method == COMPRESS_FINE_KV) {
        j.gists_from = n_sinks(spec, segment);
        j.gists_end = j.gists_from + compress_n_gists(spec, s->seg_len, segment);
        run_job(&j, move_head);
    }
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
