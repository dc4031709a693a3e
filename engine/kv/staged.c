/* engine/kv/staged.c - pages of a packed segment that is made over several calls.
 *
 * They are nobody's: they count as free all the while, since who wants them gets them, and then the
 * segment is packed in place. For that the compressor is a reclaimer of the pool (engine/kv/pool.h)
 * whose account pays for them.
 *
 *     nothing --compress_stage--> staged --compress_staged--> the segment's own
 *        ^                          |
 *        +------ reclaim, unstage --+   what was made is lost, n_lists is 0 again
 */
#include "engine/kv/compress_ops.h"

/* The pool wants n pages free. Between calls of compress_finish: no step has addresses of staged
 * ones. */
static void reclaim(void *arg, uint32_t n)
{
    struct compressor *c = arg;

    while (c->n_staged > 0 && c->staging.pool->n_free < n)
        compress_unstage(c, c->staged[c->n_staged - 1]);
}

/* A compressor has no pool of its own: it joins that of the first segment that is staged, and
 * leaves it behind the last (compress_end_staging). kept: its pages count as such that can be
 * had. */
static void begin_staging(struct compressor *c, struct pool *p)
{
    if (c->staging.pool == p)
        return;
    c->staging.pool = p;
    c->staging.account = (struct pool_account){ .limit = UINT32_MAX, .kept = true };
    c->staging.reclaimer =
        (struct pool_reclaimer){ .fn = reclaim, .arg = c, .account = &c->staging.account };
    pool_add_reclaimer(p, &c->staging.reclaimer);
}

void compress_unstage(struct compressor *c, struct compress_side *side)
{
    if (!side->staged)
        return;
    pool_give(c->staging.pool, &c->staging.account, side->n_staged, side->staged);
    scratch_give(&c->page_lists, side->staged);
    side->staged = NULL;
    side->n_staged = side->n_lists = 0;
    /* Another one takes its place: in reclaim, which goes from the end, that is itself. */
    for (uint32_t i = 0; i < c->n_staged; i++)
        if (c->staged[i] == side)
            c->staged[i] = c->staged[--c->n_staged];
}

/* Not from within a reclaim, whose list of reclaimers it changes. */
void compress_end_staging(struct compressor *c)
{
    if (!c->staging.pool || c->n_staged > 0)
        return;
    pool_drop_reclaimer(c->staging.pool, &c->staging.reclaimer);
    c->staging.pool = NULL;
}

/* The sequence's account must have room as well, although it is not charged before compress_staged:
 * what it could not take over then would be made for nothing. in_place: that has happened once, and
 * is not tried again. */
bool compress_stage(const struct compress_work *w, uint32_t n_keys)
{
    struct compressor *c = w->c;
    struct pool *p = w->seq->pool;
    const struct pool_account *a = w->seq->account;
    uint32_t n = seq_n_pages(n_keys), *ids;

    if (w->side->staged)
        return true;
    if (w->side->in_place || n > p->n_free || n > pool_room(p, a, 0) ||
        (c->staging.pool && c->staging.pool != p))
        return false;
    /* page_lists has at most SCRATCH_SPANS_MAX spans, which is as many as c->staged has places. */
    ids = scratch_take(&c->page_lists, n * sizeof(*ids));
    if (!ids)
        return false;
    begin_staging(c, p);
    if (pool_take(p, &c->staging.account, n, ids) < 0) {
        scratch_give(&c->page_lists, ids);
        return false;
    }
    w->side->staged = ids;
    w->side->n_staged = n;
    w->side->n_lists = 0;
    c->staged[c->n_staged++] = w->side;
    return true;
}

/* The sequence's account gets a table more of each page before the compressor's loses its own: at
 * no time does a page stand in none, or somebody else might have it. */
bool compress_staged(const struct compress_work *w, uint32_t n_keys)
{
    struct compress_side *side = w->side;
    struct seq *s = w->seq;
    bool has = pool_share(s->pool, s->account, side->n_staged, side->staged) == 0;

    if (has)
        seq_replace(s, w->segment, n_keys, side->staged);
    side->in_place = !has;
    compress_unstage(w->c, side);
    return has;
}
