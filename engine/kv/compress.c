/* engine/kv/compress.c - what every compressor goes through, and what most of them share.
 *
 *     raw --compress_plan, compress_ran--> raw, with a side --compress_finish--> packed
 *      ^    (until no rows are left)               |
 *      +----------------compress_drop--------------+
 *
 * and packed --compress_thin--> packed, with half the gists, as often as the ratio allows.
 *
 * The segment itself is raw until compress_finish changes it at one stroke: steps of other requests
 * may come between the passes, a cancel or a rewind gives up the side alone, and sequences that
 * share the raw pages see nothing of it. Only this file and the tables in compressors.def tell one
 * method from another. Everything here runs on the scheduler's thread.
 */
#include "engine/kv/compress_ops.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What sides may take together, if one of this model doesn't take more: some hundred segments of
 * the default length. Sequences that find it full wait for a few steps, so more of it buys nothing.
 */
#define SIDES_BYTES ((size_t)32 << 20)
/* The same for queries of segments that are read: three sessions of the default model. */
#define ASKS_BYTES ((size_t)64 << 20)
/* Ids of the pages beside one segment: no more keys than the segment and its sinks have. */
#define PAGE_LIST_BYTES ((2 * SEQ_SEGMENT_MAX / PAGE_TOKENS) * sizeof(uint32_t))

/* This table and the next are the lines of base/compressors.def: a line without a struct
 * compress_ops does not link. */
static const char *const names[COMPRESS__N] = {
#define COMPRESSOR(number, ID, id, name, help) [number] = name,
#include "base/compressors.def"
#undef COMPRESSOR
};

static const struct compress_ops *const table[COMPRESS__N] = {
#define COMPRESSOR(number, ID, id, name, help) [number] = &compress_##id,
#include "base/compressors.def"
#undef COMPRESSOR
};

const char *compress_name(enum compress_method method)
{
    return names[method];
}

const struct compress_ops *compress_ops_of(const struct compress_spec *c)
{
    return table[c->method];
}

/* An adapter names its method as compressors are named; each that files may have is one. */
enum compress_method compress_method_of(const struct adapter *a)
{
    const char *name = adapter_method_name(a->method);
    enum compress_method i = 0;

    while (strcmp(names[i], name) != 0) {
        i++;
        assert(i < COMPRESS__N);
    }
    return i;
}

/* --- counts ----------------------------------------------------------------------------------- */

int compress_check(const struct compress_spec *c, uint32_t seg_len, struct why *why)
{
    return table[c->method]->check(c, seg_len, why);
}

bool compress_keeps_all(const struct compress_spec *c)
{
    return table[c->method]->keeps_all;
}

/* `full` has no functions, but callers ask for the counts of any spec. */
uint32_t compress_n_keys(const struct compress_spec *c, uint32_t seg_len, uint32_t segment,
                         uint32_t thinned)
{
    const struct compress_ops *ops = table[c->method];

    return ops->keeps_all ? seg_len : ops->n_keys(c, seg_len, segment, thinned);
}

uint32_t compress_n_raw(const struct compress_spec *c, uint32_t seg_len, uint32_t segment)
{
    const struct compress_ops *ops = table[c->method];

    if (ops->keeps_all)
        return seg_len;
    return ops->n_raw ? ops->n_raw(c, seg_len, segment) : compress_n_sinks(c, segment);
}

/* A spec that passed check, whose ratio is not 0: else this would not end. */
uint32_t compress_max_thinned(const struct compress_spec *c)
{
    uint32_t n = 0;

    if (!table[c->method]->thin)
        return 0;
    /* Each thinning doubles what a key stands for. */
    while (c->ratio << (n + 1) <= COMPRESS_RATIO_MAX)
        n++;
    return n;
}

uint32_t compress_gist_every(const struct compress_spec *c)
{
    const struct compress_ops *ops = table[c->method];

    return ops->gist_every ? ops->gist_every(c) : 0;
}

uint32_t compress_n_beside(const struct compress_spec *c, uint32_t seg_len, uint32_t segment)
{
    const struct compress_ops *ops = table[c->method];

    return ops->n_beside ? ops->n_beside(c, seg_len, segment) : 0;
}

/* --- what most of them want ------------------------------------------------------------------- */

/* All of it comes from clients. A ratio that divides the segment leaves no remainder where gists
 * stand for all of it, sinks included. */
int compress_check_ratio(const struct compress_spec *c, uint32_t seg_len, struct why *why)
{
    if (c->ratio < COMPRESS_RATIO_MIN || c->ratio > COMPRESS_RATIO_MAX || seg_len % c->ratio)
        return why_set(why, -EINVAL,
                       "a ratio of %u is not possible: use one from %u to %u that divides segments "
                       "of %u tokens",
                       c->ratio, COMPRESS_RATIO_MIN, COMPRESS_RATIO_MAX, seg_len);
    if (c->sinks > COMPRESS_SINKS_MAX)
        return why_set(why, -EINVAL, "%u sinks are too many: at most %u are allowed", c->sinks,
                       COMPRESS_SINKS_MAX);
    return 0;
}

int compress_check_adapter(const struct compress_spec *c, struct why *why)
{
    if (!c->adapter || compress_method_of(c->adapter) == c->method)
        return 0;
    return why_set(why, -EINVAL, "adapter \"%s\" makes %s gists, not %s", c->adapter->name,
                   adapter_method_name(c->adapter->method), names[c->method]);
}

int compress_check_no_adapter(const struct compress_spec *c, struct why *why)
{
    return c->adapter
               ? why_set(why, -EINVAL, "adapter \"%s\" makes gists, but compressor %s keeps none",
                         c->adapter->name, names[c->method])
               : 0;
}

/* A session's first tokens are those of its first segment alone. */
uint32_t compress_n_sinks(const struct compress_spec *c, uint32_t segment)
{
    return segment == 0 ? c->sinks : 0;
}

uint32_t compress_n_snippets(const struct compress_spec *c, uint32_t seg_len, uint32_t segment)
{
    return (seg_len - compress_n_sinks(c, segment)) / c->ratio;
}

uint32_t compress_n_rest(const struct compress_spec *c, uint32_t seg_len, uint32_t segment)
{
    return (seg_len - compress_n_sinks(c, segment)) % c->ratio;
}

/* Of an odd number the last one stays: it is the later one of a pair that has no other. */
uint32_t compress_halved(uint32_t n_gists, uint32_t thinned)
{
    while (thinned-- > 0)
        n_gists = (n_gists + 1) / 2;
    return n_gists;
}

uint32_t compress_snippet_keys(const struct compress_spec *c, uint32_t seg_len, uint32_t segment,
                               uint32_t thinned)
{
    return compress_n_sinks(c, segment) +
           compress_halved(compress_n_snippets(c, seg_len, segment), thinned) +
           compress_n_rest(c, seg_len, segment);
}

/* The desk holds what one segment takes at most and is empty between calls: that it is short can
 * only be a mistake of ours. */
void *compress_list(const struct compress_work *w, bool per_head, uint32_t n_keys)
{
    size_t n = (per_head ? (size_t)w->c->n_lists : 1) * (n_keys ? n_keys : 1);
    void *p = scratch_take(&w->c->desk, n * sizeof(uint32_t));

    assert(p);
    return p;
}

/* Pages for n keys if they cost nobody anything: nothing that is only cached is given up for them,
 * since in place does as well. */
static bool take_fresh(const struct seq *s, uint32_t n, uint32_t *ret_pages)
{
    return n <= s->pool->n_free && pool_take(s->pool, s->account, n, ret_pages) == 0;
}

/* Slots of the last page that no key goes to: zeros, and not what the user had who had the page
 * before. Where the memory is a device's this is left, since clearing waits for what it copies. */
static void clear_last(const struct seq *s, struct backend *b, uint32_t n_keys,
                       const uint32_t *pages)
{
    uint8_t *mem = n_keys % POOL_PAGE_TOKENS ? backend_host(b, s->pool->mem) : NULL;

    if (mem)
        memset(mem + pages[n_keys / POOL_PAGE_TOKENS] * s->pool->page_bytes, 0,
               s->pool->page_bytes);
}

/* To the host, where keys are chosen: once a segment, and plain loops there serve all backends. */
int compress_observed(const struct compress_work *w, float **ret)
{
    size_t n = (size_t)w->c->n_lists * w->seq->seg_len;
    float *weights = compress_list(w, true, w->seq->seg_len);
    uint32_t n_layers = w->seq->pool->n_layer;
    int r = backend_get_layers(w->c->backend, weights, w->side->floats, n_layers,
                               n / n_layers * sizeof(*weights));

    if (r < 0)
        scratch_give(&w->c->desk, weights);
    else
        *ret = weights;
    return r;
}

/* The backend moves before the sequence's table changes, so that an error leaves the segment raw,
 * and fresh pages go back. In place an error of the backend (a device that was lost) leaves neither
 * one nor the other; pages of a lost device have nothing in them anyway. */
int compress_keep(const struct compress_work *w, uint32_t *kept, bool per_head, uint32_t n_keys)
{
    struct seq *s = w->seq;
    uint32_t *fresh = compress_list(w, false, seq_n_pages(n_keys));
    struct backend_move m = { .pool = s->pool,
                              .from = seq_pages(s, w->segment),
                              .to = fresh,
                              .kept = kept,
                              .per_head = per_head,
                              .n_keys = n_keys };
    bool has_fresh = take_fresh(s, seq_n_pages(n_keys), fresh);
    int r = has_fresh ? 0 : seq_own(s, w->segment, n_keys);

    /* In place a shared page is copied first (S4): the copies cost pages too, but may be of pages
     * that only a cache shares, which gives them up. */
    if (!has_fresh)
        m.to = m.from;
    else
        clear_last(s, w->c->backend, n_keys, fresh);
    if (r == 0 && n_keys)
        r = w->c->backend->ops->move(w->c->backend, &m);
    if (r == 0 && has_fresh)
        seq_replace(s, w->segment, n_keys, fresh);
    else if (r == 0)
        seq_shorten(s, w->segment, n_keys);
    else if (has_fresh)
        pool_give(s->pool, s->account, seq_n_pages(n_keys), fresh);
    scratch_give(&w->c->desk, fresh);
    scratch_give(&w->c->desk, kept);
    return r;
}

/* Gists stand for ever more tokens and are not made anew, since the raw segment is gone. */
int compress_keep_later(const struct compress_work *w, uint32_t n_rest, uint32_t n_keys)
{
    uint32_t sinks = compress_n_sinks(w->spec, w->segment), n = 0;
    uint32_t had = w->seq->segments[w->segment].n_keys, end = had - n_rest;
    uint32_t *kept = compress_list(w, false, n_keys);

    for (uint32_t i = 0; i < sinks; i++)
        kept[n++] = i;
    for (uint32_t i = sinks; i < end; i += 2)
        kept[n++] = i + 1 < end ? i + 1 : i;
    for (uint32_t i = end; i < had; i++)
        kept[n++] = i;
    assert(n == n_keys);
    return compress_keep(w, kept, false, n_keys);
}

/* --- segments --------------------------------------------------------------------------------- */

static uint32_t n_rows(const struct compress_spec *spec, const struct seq *s, uint32_t segment)
{
    const struct compress_ops *ops = table[spec->method];

    return ops->n_rows ? ops->n_rows(spec, s->seg_len, segment) : 0;
}

/* Every so many-th token of those that are missing; what ran before something changed is, too. */
static uint32_t asks_left(const struct seq *s, uint32_t segment, const struct compress_side *side)
{
    uint32_t n = asked_missing(side->asked, s, segment) /
                 asked_shape(s->seg_len, 1, side->asked != NULL).tokens;

    return side->n_changes == s->n_changes ? n - side->n_done : n;
}

static size_t n_floats(const struct compressor *c, const struct compress_spec *spec,
                       uint32_t seg_len, uint32_t segment)
{
    const struct compress_ops *ops = table[spec->method];

    return ops->n_floats ? ops->n_floats(c, spec, seg_len, segment) : 0;
}

uint32_t compress_rows_left(const struct compress_spec *spec, const struct seq *s, uint32_t segment,
                            const struct compress_side *side)
{
    if (table[spec->method]->asks)
        return asks_left(s, segment, side);
    return n_rows(spec, s, segment) - side->n_done;
}

/* Pages are given back to the pool by the caller, who has the sequence. asked stays: it is the
 * caller's. */
static void give_scratch(struct compressor *c, struct compress_side *side)
{
    if (c->next == side)
        c->next = NULL;
    scratch_give(&c->sides, side->floats);
    scratch_give(&c->page_lists, side->pages);
    compress_unstage(c, side);
    *side = (struct compress_side){ .asked = side->asked };
}

/* Scratch and pages, both or none: who waits for one holds none of the other, so that somebody can
 * always go on. */
static int begin(const struct compress_work *w)
{
    struct compress_side *side = w->side;
    uint32_t seg_len = w->seq->seg_len;
    uint32_t n = seq_n_pages(compress_n_beside(w->spec, seg_len, w->segment));
    size_t floats = n_floats(w->c, w->spec, seg_len, w->segment);
    int r = 0;

    if (side->asked && side->asked->all) /* it has them already */
        floats = 0;
    /* Somebody else found it full and waits: even a smaller side may not take what that one waits
     * for. */
    if ((floats || n) && w->c->next && w->c->next != side)
        return -EAGAIN;
    if (floats)
        side->floats = scratch_take(&w->c->sides, floats * sizeof(*side->floats));
    if (n)
        side->pages = scratch_take(&w->c->page_lists, n * sizeof(*side->pages));
    if ((floats && !side->floats) || (n && !side->pages))
        r = -EAGAIN;
    else if (n)
        r = pool_take(w->seq->pool, w->seq->account, n, side->pages);
    if (r < 0) {
        give_scratch(w->c, side);
        /* After give_scratch, which would clear it. A side waits in line for scratch alone: when
         * pages are short the caller decides whether to wait or to refuse. */
        if (r == -EAGAIN)
            w->c->next = side;
        return r;
    }
    side->n_pages = n;
    side->begun = true;
    w->c->next = NULL;
    return 0;
}

bool compress_in_line(const struct compressor *c, const struct compress_side *side)
{
    return side->begun || c->next == side;
}

int compress_plan(struct compressor *c, const struct compress_spec *spec, struct seq *s,
                  uint32_t segment, struct compress_side *side, uint32_t max,
                  struct forward_run *ret)
{
    struct compress_work w = { c, spec, s, segment, side };
    uint32_t left;
    int r;

    /* Before anybody's search for room, in this step or a later one: the run writes to the span. */
    if (side->asked)
        asked_work(side->asked);
    r = side->begun ? 0 : begin(&w);
    if (r < 0)
        return r;
    /* What was asked before something changed is not what would be now. */
    if (table[spec->method]->asks && side->n_changes != s->n_changes)
        side->n_lists = side->n_done = 0;
    side->n_changes = s->n_changes;
    /* Observers' weights are a sum, from which a given up step's part can't be taken back. */
    if (side->observing) /* added to by a part of a step that was given up */
        side->n_done = 0;
    /* Scratch as the last one left it. */
    if (side->n_done == 0 && side->floats && !table[spec->method]->asks)
        r = backend_clear(c->backend, side->floats,
                          n_floats(c, spec, s->seg_len, segment) * sizeof(*side->floats));
    if (r < 0)
        return r;
    left = compress_rows_left(spec, s, segment, side);
    assert(left > 0 && max > 0);
    *ret = (struct forward_run){ .seq = s };
    /* A pass that needs fewer rows says so in ret->n_tokens, which compress_ran counts by. */
    r = table[spec->method]->next_pass(&w, max < left ? max : left, ret);
    side->observing = ret->observe.weights != NULL;
    return r;
}

/* Of a step that was done. One that was given up is not reported: its rows are planned again. */
void compress_ran(struct compress_side *side, const struct forward_run *run)
{
    side->n_done += run->n_tokens;
    side->observing = false;
}

/* Also behind compress_finish, which leaves what it did not take over. */
void compress_drop(struct compressor *c, struct seq *s, struct compress_side *side)
{
    if (side->n_pages)
        pool_give(s->pool, s->account, side->n_pages, side->pages);
    give_scratch(c, side);
    compress_end_staging(c);
}

/* The caller has run all rows, and the segment has all of its tokens. */
int compress_finish(struct compressor *c, const struct compress_spec *spec, struct seq *s,
                    uint32_t segment, struct compress_side *side)
{
    struct compress_work w = { c, spec, s, segment, side };

    assert((segment + 1) * s->seg_len <= s->n_tokens && s->segments[segment].state == SEQ_RAW);
    assert(compress_rows_left(spec, s, segment, side) == 0);
    if (side->asked) /* it may take several calls, and others' steps come between */
        asked_work(side->asked);
    return table[spec->method]->finish(&w);
}

int compress_thin(struct compressor *c, const struct compress_spec *spec, struct seq *s,
                  uint32_t segment, uint32_t thinned)
{
    struct compress_work w = { c, spec, s, segment, NULL };

    assert(s->segments[segment].state == SEQ_PACKED && thinned < compress_max_thinned(spec));
    return table[spec->method]->thin(&w, thinned);
}

/* The sequence's own span, or what a second reading of the whole segment goes to. */
float *compress_asked_floats(const struct compress_work *w)
{
    const struct asked *a = w->side->asked;

    return a && a->all ? a->all : w->side->floats;
}

/* --- opening ---------------------------------------------------------------------------------- */

/* The longest segments at the lowest ratio, by the compressor that has most to remember. */
static size_t largest_side(const struct compressor *c)
{
    size_t most = 0;

    /* Whoever can be asked for must be able to begin when nobody else has. */
    for (enum compress_method i = 0; i < COMPRESS__N; i++) {
        struct compress_spec spec = { .method = i, .ratio = COMPRESS_RATIO_MIN };
        size_t n = n_floats(c, &spec, SEQ_SEGMENT_MAX, 0);

        most = n > most ? n : most;
    }
    return most * sizeof(float);
}

/* The fields that sizes follow from: compress_need is asked before there is a backend. */
static struct compressor shape_of(const struct model *m)
{
    return (struct compressor){ .n_lists = m->n_layer * m->n_head_kv,
                                .group = m->n_head / m->n_head_kv,
                                .n_embd = m->n_embd,
                                .head_dim = m->head_dim };
}

/* At least one segment of any compressor fits, or it would wait for ever. */
static size_t sides_bytes(const struct compressor *c)
{
    size_t most = largest_side(c);

    return most > SIDES_BYTES ? most : SIDES_BYTES;
}

static size_t asks_bytes(const struct compressor *c)
{
    size_t asks = asked_floats(c, SEQ_SEGMENT_MAX) * sizeof(float);

    return asks > ASKS_BYTES ? asks : ASKS_BYTES;
}

/* Taken at start: compressing while the daemon serves allocates nothing. */
size_t compress_need(const struct model *m)
{
    const struct compressor c = shape_of(m);

    return sides_bytes(&c) + asks_bytes(&c);
}

int compress_open(const struct model *m, struct backend *b, struct compressor **ret)
{
    struct compressor *c = calloc(1, sizeof(*c));

    if (!c)
        return -ENOMEM;
    *c = shape_of(m);
    c->backend = b;
    /* Nothing is lost without it but time, and who never fits has no use for it. */
    scratch_promise(&c->asks, b, asks_bytes(c));
    /* The desk: the numbers that keys are chosen by and the places that were chosen, of all heads;
     * and two lists of one head. */
    if (scratch_open(&c->sides, b, sides_bytes(c)) < 0 ||
        scratch_open(&c->page_lists, NULL, SCRATCH_SPANS_MAX * PAGE_LIST_BYTES) < 0 ||
        scratch_open(&c->desk, NULL,
                     (2 * (size_t)c->n_lists + 8) * SEQ_SEGMENT_MAX * sizeof(float)) < 0) {
        compress_close(c);
        return -ENOMEM;
    }
    *ret = c;
    return 0;
}

void compress_close(struct compressor *c)
{
    if (!c)
        return;
    /* Sequences are closed first: their sides and what they keep of their segments lie here. */
    assert(c->n_staged == 0 && c->n_askers == 0);
    compress_end_staging(c);
    scratch_close(&c->sides);
    scratch_close(&c->asks);
    scratch_close(&c->page_lists);
    scratch_close(&c->desk);
    free(c);
}

/* page_lists and desk are the process's memory, which no device takes along. */
void compress_leave(struct compressor *c)
{
    while (c->n_askers > 0)
        asked_drop(c, c->askers[0]);
    assert(c->n_staged == 0);
    scratch_leave(&c->sides);
    scratch_leave(&c->asks);
}

size_t compress_scratch_used(const struct compressor *c)
{
    return c->sides.used + c->asks.used;
}

size_t compress_scratch_len(const struct compressor *c)
{
    return c->sides.len + c->asks.len;
}
