/* The way back. A restore is planned once, by what the store has in its index, and is then a line
 * of parts, a record each, of which a window is being read:
 *
 *     segment    0      1      2      3      4      5     6 (open)
 *     tree       packed packed raw    raw                          what memory_adopt found
 *     elsewhere  packed packed packed packed packed raw   raw      host memory or the store
 *     goal       packed packed packed packed packed raw   raw      a sequence so long
 *                ^ stays       ^ from here on: parts
 *
 * Parts are taken over in order, each as soon as it and all before it are there. What the goal has
 * above rung 1 is thinned then: so no more pages are held than the window and what a session holds
 * that reads the text itself.
 *
 * A part that fails ends the chain there. What a sequence of that length holds may be other than
 * what stands before the part (a raw segment where a packed one was read), so all begins anew with
 * that length as the limit: it is rare, and has one path only.
 */
#include "daemon/tier_inner.h"

#include "base/clock.h"
#include "base/least.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW_BYTES ((size_t)128 << 20) /* that are read at once, or two parts */
/* Plans of one restore: each is shorter than the one before, so there would be an end in any case,
 * but each begins anew. */
#define ATTEMPTS 4u
/* Until it was measured: a slow SSD; and what a record costs beside its bytes. */
#define SPEED_GUESS 3e8
#define RECORD_NS   150000.0
/* So much must have been read before a speed is believed. */
#define GUESS_BYTES ((uint64_t)4 << 20)
/* From host memory to a device, of the slowest buses that are about: a fraction of what computing
 * takes in any case, so it is not measured. */
#define HOST_SPEED 5e9

struct tier_restore {
    struct tier_line line; /* its parts are the plan's; first, so that it is freed by it */
    struct tier_user *user;
    const uint32_t *ids;
    uint32_t n, limit; /* ids, and the most that may come back */
    uint32_t attempts;
    bool draining, host_only;
    struct store_hash *before; /* (segments of n, and one) */

    /* Of the plan. */
    struct ladder goal;
    uint32_t goal_n, first;    /* tokens; the first segment that is a part */
    uint32_t thinned_to;       /* segments before it stand on their rung */
    uint32_t n_disk_pages;     /* of parts that the store has */
    uint32_t n_asked, n_taken; /* parts that were asked for, and that are in the sequence */
};

double tier_read_speed(const struct tier *t)
{
    struct store_stats s;

    store_stats(t->store, &s);
    if (s.read_bytes < GUESS_BYTES || s.read_ns == 0)
        return SPEED_GUESS;
    return (double)s.read_bytes * 1e9 / (double)s.read_ns;
}

/* --- planning --------------------------------------------------------------------------------- */

static const struct policy *policy_of(const struct tier_restore *r)
{
    return &r->user->memory->policy;
}

/* The record of a segment that has most of the ids. host_only: a record that the disk has longer is
 * none, though host memory may have a part of it. That is rare, and costs reading. */
static bool find(const struct tier_restore *r, uint32_t segment, enum store_kind kind,
                 struct tier_found *ret)
{
    uint32_t seg_len = policy_of(r)->seg_len, at = segment * seg_len;

    return tier_find(r->user, r->before[segment], kind, r->ids + at, min_u32(seg_len, r->n - at),
                     ret) &&
           (ret->shelved || !r->host_only);
}

/* It is packed in the sequence, or as a record, or packed it has no keys at all. */
static bool has_packed(const struct tier_restore *r, uint32_t segment)
{
    const struct memory *m = r->user->memory;
    uint32_t n_keys = ladder_segment_keys(&m->policy, segment, 1);
    struct tier_found f;

    if (segment < m->ladder.n_at[1] || n_keys == 0)
        return true;
    return find(r, segment, STORE_PACKED, &f) && f.is.n_tokens == m->policy.seg_len &&
           f.is.n_keys == n_keys;
}

/* Tokens from the segment's start that a raw record has. */
static uint32_t has_raw(const struct tier_restore *r, uint32_t segment)
{
    struct tier_found f;

    return find(r, segment, STORE_RAW, &f) && f.is.n_keys >= f.is.n_tokens ? f.is.n_tokens : 0;
}

/* The first segment that the sequence does not hold as the goal has it. */
static uint32_t first_other(const struct memory *m, const struct ladder *goal)
{
    return goal->n_at[1] > m->ladder.n_at[1] ? m->ladder.n_at[1]
                                             : m->seq->n_tokens / m->seq->seg_len;
}

/* Where raw tokens end that can be had, of n that a sequence with this ladder would hold. */
static uint32_t first_hole(const struct tier_restore *r, const struct ladder *l, uint32_t n)
{
    const struct memory *m = r->user->memory;
    uint32_t seg_len = m->policy.seg_len, k = l->n_at[1], first = first_other(m, l);

    for (k = k > first ? k : first; k * seg_len < n; k++) {
        uint32_t has = has_raw(r, k);

        if (has < seg_len && k * seg_len + has < n)
            return k * seg_len + has;
    }
    return n;
}

/* The longest beginning of no more than n ids of which all is there, in the sequence or in the
 * store, that a sequence so long would hold. Each round takes away from the end what can't be had,
 * and a shorter one may want other things. */
static uint32_t longest(const struct tier_restore *r, uint32_t n)
{
    const struct memory *m = r->user->memory;
    uint32_t seg_len = m->policy.seg_len, n_packed = 0, hole;
    bool keeps_all = compress_keeps_all(&m->policy.spec);

    while (!keeps_all && (n_packed + 1) * seg_len <= n && has_packed(r, n_packed))
        n_packed++;
    if (!keeps_all && !m->policy.late) /* the check of the next one comes here */
        n = min_u32(n, (n_packed + 1) * seg_len + m->policy.keep_tail - 1);
    while (n > m->seq->n_tokens) {
        struct ladder l = ladder_of(&m->policy, n);

        /* Too much of it is compressed: to before its last check. */
        hole = l.n_at[1] > n_packed ? l.n_checked * seg_len + m->policy.keep_tail - 1
                                    : first_hole(r, &l, n);
        if (hole == n)
            return n;
        n = hole;
    }
    return 0;
}

/* First what memory the plan needs, then fill_parts: one allocation for all. */
static void count_parts(const struct tier_restore *r, uint32_t *ret_parts, uint32_t *ret_pages)
{
    const struct policy *p = policy_of(r);

    *ret_parts = *ret_pages = 0;
    for (uint32_t k = r->first; k * p->seg_len < r->goal_n; k++) {
        bool packed = k < r->goal.n_at[1];
        uint32_t n = min_u32(p->seg_len, r->goal_n - k * p->seg_len);

        *ret_pages += seq_n_pages(packed ? ladder_segment_keys(p, k, 1) : n);
        ++*ret_parts;
    }
}

/* The records are looked up once more: nothing has changed since. What it took to compute them;
 * infinite where that is not known. */
static double fill_parts(struct tier_restore *r)
{
    const struct policy *p = policy_of(r);
    uint32_t *pages = r->line.pages;
    void **mem = r->line.mem;
    double cost_ns = 0;
    bool known = true;

    r->n_disk_pages = 0;
    for (uint32_t i = 0; i < r->line.n_parts; i++) {
        uint32_t k = r->first + i, n = min_u32(p->seg_len, r->goal_n - k * p->seg_len);
        struct tier_part *part = &r->line.parts[i];
        struct tier_found f = { .shelved = false };

        *part = (struct tier_part){ .line = &r->line, .segment = k, .packed = k < r->goal.n_at[1] };
        part->n_tokens = n;
        part->n_keys = part->packed ? ladder_segment_keys(p, k, 1) : n;
        part->n_pages = seq_n_pages(part->n_keys);
        part->pages = pages;
        part->mem = mem;
        pages += part->n_pages;
        mem += part->n_pages;
        /* A compressor that keeps nothing: the segment has no record, and is there. */
        if (part->n_pages == 0) {
            part->state = TIER_PART_READY;
            continue;
        }
        (void)find(r, k, part->packed ? STORE_PACKED : STORE_RAW, &f);
        tier_part_is(part, &f, r->before[k], r->ids + (size_t)k * p->seg_len);
        r->n_disk_pages += f.shelved ? 0 : part->n_pages;
        known &= f.is.cost_ns > 0;
        if (f.is.n_tokens)
            cost_ns += (double)f.is.cost_ns * n / f.is.n_tokens;
    }
    return known ? cost_ns : INFINITY;
}

/* Both by what was measured here; what it took when the record was made stands in until the model
 * has read something. Without
 * any measurement cost_ns is what the records say, or infinite: then all is read. */
static bool is_worth_it(struct tier_restore *r, double cost_ns, uint32_t n_pages)
{
    struct tier *t = r->line.tier;
    uint32_t n = r->goal_n - r->user->memory->seq->n_tokens;
    double page = (double)t->pool->page_bytes, read_ns;

    read_ns = (double)(n_pages - r->n_disk_pages) * page * 1e9 / HOST_SPEED;
    if (r->n_disk_pages > 0)
        read_ns +=
            (double)r->n_disk_pages * page * 1e9 / tier_read_speed(t) + RECORD_NS * r->line.n_disk;
    if (t->ns_per_token > 0)
        cost_ns = t->ns_per_token * n;
    if (t->always || read_ns < cost_ns)
        return true;
    t->stats.computed_instead += n;
    return false;
}

/* The line stays, for the next plan. */
static void free_plan(struct tier_restore *r)
{
    tier_line_fini(&r->line);
    r->n_asked = r->n_taken = 0;
}

/* False: there is nothing to be had, or no memory for it. */
static bool plan(struct tier_restore *r)
{
    uint32_t n_parts, n_pages;

    r->goal_n = longest(r, min_u32(r->limit, r->n - 1));
    if (r->goal_n == 0)
        return false;
    r->goal = ladder_of(policy_of(r), r->goal_n);
    r->first = first_other(r->user->memory, &r->goal);
    r->thinned_to = 0;
    count_parts(r, &n_parts, &n_pages);
    if (tier_line_take(&r->line, n_parts, n_pages) < 0)
        return false;
    if (is_worth_it(r, fill_parts(r), n_pages))
        return true;
    free_plan(r);
    return false;
}

/* before[k]: of all ids before segment k, by which its records are found. */
static bool hash_all(struct tier_restore *r)
{
    uint32_t seg_len = policy_of(r)->seg_len, n = r->n / seg_len;

    r->before = malloc(((size_t)n + 1) * sizeof(*r->before));
    if (!r->before)
        return false;
    r->before[0] = STORE_ROOT;
    for (uint32_t k = 0; k < n; k++)
        r->before[k + 1] =
            tier_hash(r->line.tier, r->before[k], r->ids + (size_t)k * seg_len, seg_len);
    return true;
}

static void free_restore(struct tier_restore *r)
{
    free_plan(r);
    free(r->before);
    free(r);
}

/* The line is the first member. */
static void free_line(struct tier_line *l)
{
    free_restore((struct tier_restore *)l);
}

static struct tier_restore *restore_begin(struct tier_user *u, const uint32_t *ids, uint32_t n,
                                          bool host_only)
{
    struct tier_restore *r;

    if (!u->tier || n < 2)
        return NULL;
    r = calloc(1, sizeof(*r));
    if (!r)
        return NULL;
    *r = (struct tier_restore){ .user = u, .ids = ids, .n = n, .limit = n, .host_only = host_only };
    tier_line_init(&r->line, u, free_line);
    if (!hash_all(r) || !plan(r)) {
        free_restore(r);
        return NULL;
    }
    u->restoring = true;
    return r;
}

struct tier_restore *tier_restore_begin(struct tier_user *u, const uint32_t *ids, uint32_t n)
{
    return restore_begin(u, ids, n, false);
}

uint32_t tier_known(struct tier_user *u, const uint32_t *ids, uint32_t n)
{
    struct tier_restore r = { .line = { .tier = u->tier }, .user = u, .ids = ids, .n = n };
    uint32_t known = 0;

    if (u->tier && n >= 2 && hash_all(&r))
        known = longest(&r, n - 1);
    free(r.before);
    return known;
}

/* As if its session came back with nothing: asked with an empty sequence that has the same ids. All
 * copies are shallow and nothing is written through them. */
bool tier_holds(const struct tier_user *u)
{
    uint32_t n = u->memory->n_ids;
    struct memory empty = *u->memory;
    struct seq none = *u->memory->seq;
    struct tier_user of = *u;
    struct tier_restore r = {
        .line = { .tier = u->tier }, .user = &of, .ids = none.tokens, .n = n
    };
    bool all;

    if (!u->tier || n == 0)
        return false;
    none.n_tokens = 0;
    empty.seq = &none;
    empty.ladder = (struct ladder){ 0 };
    of.memory = &empty;
    all = hash_all(&r) && longest(&r, n) == n;
    free(r.before);
    return all;
}

/* --- taking over ------------------------------------------------------------------------------ */

/* Rungs above the first, from the keys that the first had: what thinning keeps follows from them
 * alone. -ENOSPC. */
static int thin(const struct tier_restore *r, uint32_t segment)
{
    const struct memory *m = r->user->memory;
    uint32_t rung = ladder_rung(&r->goal, segment), n_keys, at = 1;
    int e = 0;

    /* Where an attempt ended for want of pages: by the keys that there are. */
    n_keys = m->seq->segments[segment].n_keys;
    while (at < rung && ladder_segment_keys(&m->policy, segment, at) != n_keys)
        at++;
    for (; e == 0 && at < rung; at++)
        e = compress_thin(m->served->compressor, &m->policy.spec, m->seq, segment, at - 1);
    return e;
}

/* The pages were taken for the sequence's account, and adopting charges it once more: the tier
 * holds them for the moment between. */
static void adopt(struct tier_restore *r, struct tier_part *p)
{
    struct tier *t = r->line.tier;
    struct seq *s = r->user->memory->seq;
    const uint32_t *ids = r->ids + (size_t)p->segment * s->seg_len;

    tier_part_to_busy(p);
    if (p->packed)
        seq_adopt_compressed(s, ids, p->n_keys, p->pages);
    else
        seq_adopt_raw(s, ids, p->n_tokens, p->pages);
    pool_give(t->pool, &t->busy, p->n_pages, p->pages);
    tier_part_took(p);
}

/* What the tree gave of the segments that are parts goes: they come from the store. Pages that were
 * only reserved go, too. */
static void cut_to_first(struct tier_restore *r)
{
    struct seq *s = r->user->memory->seq;

    if (r->n_taken == 0)
        (void)seq_rewind(s, r->first * s->seg_len);
}

/* Segments before `end` that are there climb to their rungs. */
static int thin_up_to(struct tier_restore *r, uint32_t end)
{
    int e = 0;

    for (; e == 0 && r->thinned_to < end; r->thinned_to += e == 0)
        if (r->thinned_to < r->goal.n_at[2])
            e = thin(r, r->thinned_to);
    return e;
}

/* 0: all that is there was taken; -EAGAIN: for now. */
static int take_parts(struct tier_restore *r)
{
    int e = thin_up_to(r, r->first + r->n_taken);

    while (e == 0 && r->n_taken < r->line.n_parts) {
        struct tier_part *p = &r->line.parts[r->n_taken];

        if (r->n_taken == r->n_asked && p->state != TIER_PART_READY)
            return -EAGAIN;
        e = tier_part_look(p);
        if (e < 0)
            return e;
        cut_to_first(r);
        adopt(r, p);
        r->n_taken++;
        if (r->n_asked < r->n_taken)
            r->n_asked = r->n_taken; /* a part without pages */
        e = thin_up_to(r, r->first + r->n_taken);
    }
    return e;
}

/* Up to the window. -EAGAIN: the store takes no more now; -ENOSPC and the like. Two parts are asked
 * for whatever their size, so that one is on its way while the other is taken over: the window is
 * bytes, and a segment of a large model may be longer than that. */
static int ask_parts(struct tier_restore *r)
{
    uint32_t most = (uint32_t)(WINDOW_BYTES / r->line.tier->pool->page_bytes);

    for (; r->n_asked < r->line.n_parts; r->n_asked++) {
        struct tier_part *p = &r->line.parts[r->n_asked];
        int e;

        if (p->state == TIER_PART_READY)
            continue;
        if (r->n_asked > r->n_taken + 1 && r->line.window + p->n_pages > most)
            return -EAGAIN;
        e = tier_part_ask(p);
        if (e < 0)
            return e;
    }
    return 0;
}

/* --- failing, ending -------------------------------------------------------------------------- */

/* Those that the disk reads to are left: their callbacks are waited for (draining). */
static void forget_all(struct tier_restore *r)
{
    for (uint32_t i = r->n_taken; i < r->n_asked; i++)
        (void)tier_part_forget(&r->line.parts[i]);
}

void tier_restore_drop(struct tier_restore *r)
{
    struct tier_user *u;

    if (!r)
        return;
    /* tier_line_drop may free r. */
    u = r->user;
    r->user = NULL;
    u->restoring = false;
    tier_line_drop(&r->line);
    memory_empty(u->memory);
}

/* All that came back is in the sequence. */
static int done(struct tier_restore *r, uint32_t *ret_shared)
{
    struct tier_user *u = r->user;
    uint32_t seg_len = policy_of(r)->seg_len, shared = r->first * seg_len;

    for (uint32_t i = 0; i < r->line.n_parts; i++)
        shared += r->line.parts[i].shelved ? r->line.parts[i].n_tokens : 0;
    u->restoring = false;
    memory_restored(u->memory, &r->goal);
    if (r->first == 0) { /* it is there already: need not be written again */
        u->n_raw = r->goal_n / seg_len;
        u->n_packed = r->goal.n_at[1];
        u->raw_before = r->before[u->n_raw];
        u->packed_before = r->before[u->n_packed];
        u->tail = r->goal_n;
    }
    r->line.tier->stats.restores++;
    r->line.tier->stats.restored_tokens += r->goal_n - shared;
    *ret_shared = shared;
    free_restore(r);
    return 0;
}

/* It ends with what the tree has, as if there were no store. */
static int give_up(struct tier_restore *r, uint32_t *ret_shared)
{
    struct memory *m = r->user->memory;

    *ret_shared = m->n_ids;
    r->user->restoring = false;
    free_restore(r);
    return 0;
}

/* What is next failed: from the beginning, with less. */
static void start_over(struct tier_restore *r)
{
    struct memory *m = r->user->memory;
    uint32_t failed = r->first + r->n_taken;

    if (r->thinned_to < failed) /* no pages to thin it */
        failed = r->thinned_to;
    r->limit = min_u32(r->limit, failed * m->policy.seg_len);
    free_plan(r);
    memory_empty(m);
    (void)memory_adopt(m, r->ids, r->n);
}

/* 0: all is there; -EAGAIN: something is on its way, or will be when others' pages are back; else
 * the chain has ended. */
static int go_on(struct tier_restore *r)
{
    int e = take_parts(r);

    if (e == -EAGAIN)
        /* All were asked for, and the next one is not there yet. */
        e = ask_parts(r) ?: -EAGAIN;
    if (e == -ENOSPC && (r->line.n_out || tier_coming(r->line.tier)))
        e = -EAGAIN;
    return e;
}

/* The disk does not answer: the model reads on behind what the tree has. Pages that are being read
 * to are the tier's until that is done. */
static int leave_disk(struct tier_restore *r, uint32_t *ret_shared)
{
    struct memory *m = r->user->memory;
    const uint32_t *ids = r->ids;
    uint32_t n = r->n;

    tier_restore_drop(r);
    (void)memory_adopt(m, ids, n);
    *ret_shared = m->n_ids;
    return 0;
}

int tier_restore_go(struct tier_restore *r, uint32_t *ret_shared)
{
    if (r->line.n_disk > 0 && tier_silent(r->line.tier))
        return leave_disk(r, ret_shared);
    for (;;) {
        int e = r->draining ? -ECANCELED : go_on(r);

        if (e == 0)
            return done(r, ret_shared);
        if (e == -EAGAIN)
            return e;
        forget_all(r);
        /* Only then may the plan's memory, which the reads have addresses of, be used again. */
        r->draining = r->line.n_out > 0;
        if (r->draining)
            return -EAGAIN;
        start_over(r);
        if (++r->attempts == ATTEMPTS || r->limit <= r->user->memory->seq->n_tokens || !plan(r))
            return give_up(r, ret_shared);
    }
}

/* The one place that waits here: copies from host memory take milliseconds, and the device has just
 * come back with nothing to do. */
void tier_restore_now(struct tier_user *u, const uint32_t *ids, uint32_t n)
{
    struct tier_restore *r = restore_begin(u, ids, n, true);
    uint32_t shared;

    while (r && tier_restore_go(r, &shared) == -EAGAIN)
        if (!tier_pump(u->tier))
            tier_await_copies(u->tier);
}
