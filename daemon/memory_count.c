/* What a memory holds and will hold, in numbers: nothing here changes it. */
#include "daemon/memory_inner.h"

#include <string.h>

/* --- documents that stand side by side ---------------------------------------------------------
 */

/* Ids of a full segment that are none: it was closed short. */
static uint32_t filler_of(const struct memory *m, uint32_t segment)
{
    const struct seq *s = m->seq;
    uint32_t end = (segment + 1) * s->seg_len, n = 0;

    while (n < s->seg_len && s->tokens[end - 1 - n] == SEQ_FILLER)
        n++;
    return n;
}

/* Only whole segments may have any. */
static uint32_t filler_before(const struct memory *m, uint32_t place)
{
    uint32_t n = 0;

    for (uint32_t k = 0; !memory_exact(m) && (k + 1) * m->seq->seg_len <= place; k++)
        n += filler_of(m, k);
    return n;
}

uint32_t memory_filler(const struct memory *m)
{
    return filler_before(m, m->n_ids);
}

uint32_t memory_place(const struct memory *m, uint32_t n)
{
    uint32_t len = m->seq->seg_len, k = 0;

    for (; !memory_exact(m) && (k + 1) * len <= m->n_ids; k++) {
        uint32_t has = len - filler_of(m, k);

        if (n <= has)
            break;
        n -= has;
    }
    return k * len + n;
}

/* From the first document that was read alone, which begins a segment, to the last one's end. */
static uint32_t n_approximate(const struct memory *m)
{
    uint32_t len = m->seq->seg_len, first = (m->n_exact + len - 1) / len * len;

    if (memory_exact(m))
        return 0;
    return m->n_behind - first - (filler_before(m, m->n_behind) - filler_before(m, first));
}

/* --- keys and pages --------------------------------------------------------------------------- */

/* What the budget leaves to the ladder: what is kept for hydrated segments does not become the
 * text's when there are none. */
static struct policy ladders_part(const struct memory *m, const struct ladder *l)
{
    struct policy p = m->policy;
    uint64_t more = overlay_keys(&m->overlay, &p, l), spare = ladder_spare(&p, l);

    if (more < spare)
        more = spare;
    p.hydrate = 0;
    p.budget = more < p.budget ? p.budget - (uint32_t)more : 0;
    return p;
}

uint32_t memory_room(const struct memory *m)
{
    uint64_t due = ladder_due_at(&m->policy, &m->ladder), n = m->seq->n_tokens;
    struct policy p = ladders_part(m, &m->ladder);
    uint64_t room = ladder_room(&p, &m->ladder, n);

    /* Past the check more may fit, but that is known when it is done. */
    return due <= n ? 0 : (uint32_t)(due - n < room ? due - n : room);
}

/* A hydrated segment stays as it is while the ladder's counts of it shrink: so its difference is
 * the largest at the end. */
void memory_peak(const struct memory *m, uint64_t n, uint64_t *ret_keys, uint64_t *ret_pages)
{
    struct ladder l = m->ladder;
    struct policy p = memory_ladders_policy(m);

    ladder_climb(&p, &l, m->seq->n_tokens, m->n_ids + n, ret_keys, ret_pages);
    if (ret_keys)
        *ret_keys += overlay_keys(&m->overlay, &m->policy, &l);
    if (ret_pages)
        *ret_pages += overlay_pages(&m->overlay, &m->policy, &l);
}

/* By climbing a copy of the ladder to that length: what fits depends on what is compressed on the
 * way. */
bool memory_full(const struct memory *m, uint32_t n_more)
{
    struct ladder l = m->ladder;
    uint64_t n = (uint64_t)m->n_ids + n_more;
    struct policy p = memory_ladders_policy(m);

    ladder_climb(&p, &l, m->seq->n_tokens, n, NULL, NULL);
    p = ladders_part(m, &l);
    return ladder_room(&p, &l, n) == 0;
}

/* From one check to the next. */
uint32_t memory_left(const struct memory *m, uint32_t n_more, uint32_t max)
{
    struct ladder l = m->ladder;
    struct policy all = memory_ladders_policy(m), p;
    uint64_t had = m->seq->n_tokens, begin = (uint64_t)m->n_ids + n_more, n = begin;

    while (n - begin < max) {
        uint64_t room, due;

        ladder_climb(&all, &l, had, n, NULL, NULL);
        p = ladders_part(m, &l);
        room = ladder_room(&p, &l, n);
        due = ladder_due_at(&all, &l) - n; /* what was due is done */
        if (room == 0)
            break;
        had = n;
        n += room < due ? room : due;
    }
    return n - begin < max ? (uint32_t)(n - begin) : max;
}

/* A segment of the overlay is compressed all the same: the first one of what was read alone. */
static bool begins_packed(const struct memory *m, uint32_t segment)
{
    return m->seq->segments[segment].state == SEQ_PACKED && filler_of(m, segment) == 0;
}

/* gist_tokens by the rungs of their segments. */
static void account_ratios(const struct memory *m, struct wire_usage *u)
{
    const struct compress_spec *c = &m->policy.spec;

    u->ratio = c->ratio;
    memset(u->at_ratio, 0, sizeof(u->at_ratio)); /* it may be counted again, when more is back */
    for (uint32_t k = 0; k < m->ladder.n_at[1]; k++) {
        bool stays = overlay_has(&m->overlay, k), first = k == 0 || stays;

        if (stays && !begins_packed(m, k))
            continue;
        u->at_ratio[ladder_rung(&m->ladder, k) - 1] +=
            m->seq->seg_len - compress_n_raw(c, m->seq->seg_len, first ? 0 : 1);
    }
}

void memory_gists(const struct memory *m, uint32_t *ret_tokens, uint32_t *ret_gists)
{
    uint32_t n = m->ladder.n_at[1], seg_len = m->seq->seg_len, n_raw = 0, n_keys = 0;

    /* Only the first segment has sinks; all others are alike. Keys are what positions say. */
    if (n) {
        const struct seq_segment *last = &m->seq->segments[n - 1];

        n_raw = compress_n_raw(&m->policy.spec, seg_len, 0) +
                (n - 1) * compress_n_raw(&m->policy.spec, seg_len, 1);
        n_keys = last->base + last->n_keys - m->seq->pos0;
    }
    for (uint32_t i = 0; i < m->overlay.n; i++) {
        uint32_t k = m->overlay.segments[i];

        n_raw -= compress_n_raw(&m->policy.spec, seg_len, k);
        if (begins_packed(m, k)) {
            n_raw += compress_n_raw(&m->policy.spec, seg_len, 0);
            continue;
        }
        n_keys -= m->seq->segments[k].n_keys; /* all of it is raw */
        n--;
    }
    *ret_tokens = n * seg_len - n_raw;
    *ret_gists = n_keys - n_raw;
}

void memory_account(const struct memory *m, struct wire_usage *u)
{
    uint32_t n_tokens, n_gists;

    memory_gists(m, &n_tokens, &n_gists);
    hydrate_account(m, u);
    u->prompt_tokens -= memory_filler(m);
    u->approximate_tokens = n_approximate(m);
    u->gist_tokens = n_tokens;
    u->raw_tokens = u->prompt_tokens - u->gist_tokens;
    u->gists = n_gists;
    if (!compress_keeps_all(&m->policy.spec))
        account_ratios(m, u);
}

uint32_t memory_gist_pages(const struct memory *m)
{
    uint64_t n = (uint64_t)m->ladder.n_at[1] * m->seq->seg_len;
    uint64_t pages = ladder_pages(&m->policy, &m->ladder, n);

    for (uint32_t i = 0; i < m->overlay.n; i++) {
        uint32_t k = m->overlay.segments[i];

        pages -= seq_n_pages(ladder_segment_keys(&m->policy, k, ladder_rung(&m->ladder, k)));
        if (begins_packed(m, k))
            pages += seq_n_pages(m->seq->segments[k].n_keys);
    }
    return (uint32_t)pages;
}
