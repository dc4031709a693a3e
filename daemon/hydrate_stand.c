/* A segment that stands in has two sets of pages in the account: raw ones in the sequence's table,
 * its gists in `held`. So going back takes nothing and can't fail, whatever has become of the
 * pool. */
#include "daemon/hydrate_inner.h"

#include "daemon/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- there and back --------------------------------------------------------------------------- */

/* Tokens of it that are raw in any case are there. */
void hydrate_miss(struct memory *m, uint32_t segment)
{
    uint32_t len = m->seq->seg_len;

    m->hydration.missed += len - compress_n_raw(&m->policy.spec, len, segment);
}

/* n pages are the account's once more, in a list of their own. -ENOMEM, -ENOSPC. */
static int hold(struct seq *s, uint32_t n, const uint32_t *pages, uint32_t **ret)
{
    uint32_t *held = malloc((n + 1) * sizeof(*held));
    int r = held ? pool_share(s->pool, s->account, n, pages) : -ENOMEM;

    if (r < 0) {
        free(held);
        return r;
    }
    memcpy(held, pages, n * sizeof(*held));
    *ret = held;
    return 0;
}

/* Raw pages, which are the account's, take the place of the segment's gists on a rung. */
bool hydrate_stand_in(struct memory *m, const struct hydrated *what, const uint32_t *pages)
{
    struct seq *s = m->seq;
    struct hydration *h = &m->hydration;
    uint32_t segment = what->segment;
    uint64_t n_changes = s->n_changes;
    struct hydrated d = *what;

    d.n_keys = s->segments[segment].n_keys;
    if (hold(s, seq_n_pages(d.n_keys), seq_pages(s, segment), &d.pages) < 0) {
        pool_give(s->pool, s->account, seq_n_pages(s->seg_len), pages);
        return false;
    }
    seq_lengthen(s, segment, pages);
    asked_stand(&m->asked, s, n_changes);
    (void)overlay_add(&m->overlay, segment); /* no more are chosen than it takes */
    h->held[h->n++] = d;
    if (m->n_plain > h->n_read)
        m->n_plain = h->n_read;
    return true;
}

/* Its gists are the sequence's again. */
void hydrate_go_back(struct memory *m, struct hydrated *d)
{
    uint64_t n_changes = m->seq->n_changes;

    if (d->from == HYDRATE_AGAIN) /* once is enough */
        own_computed(m, d->segment, m->hydration.n_read);
    seq_replace(m->seq, d->segment, d->n_keys, d->pages);
    asked_stand(&m->asked, m->seq, n_changes);
    free(d->pages);
    d->pages = NULL;
}

/* Its gists go to the rung that the ladder has it on. -ENOSPC. */
static int catch_up(struct memory *m, struct hydrated *h)
{
    uint32_t rung = ladder_rung(&m->ladder, h->segment);
    int r = 0;

    for (; r == 0 && h->rung < rung; h->rung += r == 0)
        r = compress_thin(m->served->compressor, &m->policy.spec, m->seq, h->segment, h->rung - 1);
    return r;
}

/* Those that are back among their gists leave the overlay as soon as they stand on the ladder's
 * rung. The list is closed up as it is walked. */
void hydrate_settle(struct memory *m)
{
    struct hydration *h = &m->hydration;
    uint32_t n = 0;

    for (uint32_t i = 0; i < h->n; i++) {
        struct hydrated *d = &h->held[i];

        if (!d->pages && !overlay_has(&m->overlay, d->segment))
            continue; /* a rewind has taken it */
        if (!d->pages && catch_up(m, d) == 0)
            overlay_remove(&m->overlay, d->segment);
        else
            h->held[n++] = *d;
    }
    h->n = n;
}

bool hydrate_is_on(const struct memory *m)
{
    for (uint32_t i = 0; i < m->hydration.n; i++)
        if (m->hydration.held[i].pages)
            return true;
    return false;
}

/* All of them, also those of a turn. */
void hydrate_end(struct memory *m)
{
    struct hydration *h = &m->hydration;

    for (uint32_t i = 0; i < h->n; i++) {
        struct hydrated *d = &h->held[i];

        if (d->pages)
            hydrate_go_back(m, d);
    }
    h->missed = 0;
    if (m->seq->n_tokens <= m->n_plain) /* nothing was read behind them */
        m->n_plain = UINT32_MAX;
    hydrate_settle(m);
}

/* a goes before b does. */
static bool less_wanted(const struct hydrated *a, const struct hydrated *b)
{
    if ((a->from == HYDRATE_TURN) != (b->from == HYDRATE_TURN))
        return b->from == HYDRATE_TURN;
    return a->place > b->place;
}

/* Called until there is room, or there is nothing left to give up. */
bool hydrate_less(struct memory *m)
{
    struct hydration *h = &m->hydration;
    struct hydrated *least = NULL;

    if (h->early) { /* a guess goes first */
        hydrate_fetch_drop(m);
        return true;
    }
    for (uint32_t i = 0; i < h->n; i++)
        if (h->held[i].pages && (!least || less_wanted(&h->held[i], least)))
            least = &h->held[i];
    if (!least)
        return false;
    hydrate_go_back(m, least);
    hydrate_settle(m);
    return true;
}

/* The segments' raw pages go with the sequence's; their gists are ours to give back. */
void hydrate_cut(struct memory *m, uint32_t n)
{
    struct hydration *h = &m->hydration;
    struct seq *s = m->seq;
    uint32_t n_left = 0;

    for (uint32_t i = 0; i < h->n; i++) {
        struct hydrated *d = &h->held[i];

        if ((d->segment + 1) * s->seg_len <= n) {
            h->held[n_left++] = *d;
            continue;
        }
        if (d->pages)
            pool_give(s->pool, s->account, seq_n_pages(d->n_keys), d->pages);
        free(d->pages);
    }
    h->n = n_left;
}

/* Jobs stay behind: the fork has what stands in now. */
int hydrate_fork(const struct memory *m, struct memory *dst)
{
    struct hydration *h = &dst->hydration;

    *h = m->hydration;
    h->again = NULL;
    h->early = NULL;
    h->coming = false;
    for (h->n = 0; h->n < m->hydration.n; h->n++) { /* those before it have their own pages */
        struct hydrated *d = &h->held[h->n];
        int r = d->pages ? hold(dst->seq, seq_n_pages(d->n_keys), d->pages, &d->pages) : 0;

        if (r < 0)
            return r;
    }
    return 0;
}

/* Counted anew each time: more may have come back since. */
void hydrate_account(const struct memory *m, struct wire_usage *u)
{
    const struct hydration *h = &m->hydration;

    u->hydrated_tokens = u->hydrated_disk_tokens = u->recomputed_tokens = 0;
    for (uint32_t i = 0; i < h->n; i++) {
        bool came = h->held[i].pages && h->held[i].from != HYDRATE_TURN;
        uint32_t n = came ? m->seq->seg_len : 0;

        u->hydrated_tokens += n;
        u->hydrated_disk_tokens += h->held[i].from == HYDRATE_DISK ? n : 0;
        u->recomputed_tokens += h->held[i].from == HYDRATE_AGAIN ? n : 0;
    }
    u->missed_tokens = h->missed;
}

/* --- the running turn ------------------------------------------------------------------------- */

/* Gists want pages of their own then: as where raw ones are kept (daemon/own.c), those that are
 * only cached are given up for them. */
uint32_t *hydrate_hold(struct memory *m, uint32_t segment, uint32_t n_keys)
{
    struct seq *s = m->seq;
    uint32_t n = seq_n_pages(s->seg_len), n_gists = seq_n_pages(n_keys), *pages;

    if (m->overlay.n == OVERLAY_MAX || m->hydration.n == OVERLAY_MAX ||
        n + 2 * n_gists > s->account->limit - s->account->used ||
        n_gists > pool_room_copies(s->pool, s->account, 0) || !pool_make_free(s->pool, n_gists) ||
        hold(s, n, seq_pages(s, segment), &pages))
        return NULL;
    return pages;
}

/* Up to here all was read as it would have been without a turn: others may find it. */
void hydrate_stay(struct memory *m, uint32_t segment, uint32_t *pages, bool packed)
{
    const struct hydrated d = { .segment = segment, .rung = 1, .from = HYDRATE_TURN };
    struct seq *s = m->seq;

    if (packed) {
        tier_hold(&m->kept, memory_lasts(m));
        if (!hydrate_is_on(m))
            m->hydration.n_read = m->turn.from;
        if (!hydrate_stand_in(m, &d, pages))
            hydrate_miss(m, segment);
    } else if (pages) {
        pool_give(s->pool, s->account, seq_n_pages(s->seg_len), pages);
    }
    free(pages);
}
