/* What is made over several calls goes to pages of nobody's: they count as free all the while,
 * since who wants them gets them, and then it is made in place. */
#include "engine/kv/compress_ops.h"

/* Between calls: no step has addresses of them. */
static void reclaim(void *arg, uint32_t n)
{
    struct compressor *c = arg;

    while (c->n_staged > 0 && c->staging.pool->n_free < n)
        compress_unstage(c, c->staged[c->n_staged - 1]);
}

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
