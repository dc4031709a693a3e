/* The way back. A restore is planned once, by what the store has in its index, and is then a line
 * of parts, a record each, of which a window is being read:
 *
 *     segment    0      1      2      3      4      5     6 (open)
 *     tree       packed packed raw    raw                          what memory_adopt found
 *     store      packed packed packed packed packed raw   raw
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

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW_BYTES ((size_t)128 << 20) /* that are read at once, or two parts */
#define ATTEMPTS     4u
/* Until it was measured: a slow SSD; and what a record costs beside its bytes. */
#define SPEED_GUESS 3e8
#define RECORD_NS   150000.0
#define GUESS_BYTES ((uint64_t)4 << 20)

enum part_state { PART_PLANNED, PART_READING, PART_READ, PART_PUTTING, PART_READY };

struct part {
    struct tier_restore *restore;
    enum part_state state;
    uint32_t segment;
    bool packed;
    uint64_t id; /* of its record */
    uint32_t n_tokens, n_keys, n_pages;
    uint32_t *pages;
    void **mem;       /* that the store reads to: the pool's, or slots of the staging area */
    bool pinned_busy; /* pages are the tier's: the restore was dropped */
    int result;
    uint64_t ticket;
};

struct tier_restore {
    TAILQ_ENTRY(tier_restore) link; /* of those that were dropped */
    struct tier *tier;
    struct tier_user *user;
    const uint32_t *ids;
    uint32_t n, limit; /* ids, and the most that may come back */
    uint32_t attempts;
    bool dropped, draining;
    struct store_hash *before; /* (segments of n, and one) */

    /* Of the plan. */
    struct ladder goal;
    uint32_t goal_n, first; /* tokens; the first segment that is a part */
    uint32_t thinned_to;    /* segments before it stand on their rung */
    struct part *parts;
    uint32_t n_parts, n_asked,
        n_taken;     /* parts that were asked for, and that are in the sequence */
    uint32_t n_out;  /* that the store will call back for */
    uint32_t window; /* pages that are asked for and not taken */
    uint32_t *pages; /* of all parts */
    void **mem;
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

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* The record of a segment that has most of the ids. The scope has the layout's pages in it; that a
 * record keeps to it is for its file to say, and what is read goes straight to pages of the pool.
 */
static bool find(const struct tier_restore *r, uint32_t segment, enum store_kind kind,
                 struct store_found *ret)
{
    uint32_t seg_len = policy_of(r)->seg_len, at = segment * seg_len;
    struct store_key key = { .owner = r->user->owner, .before = r->before[segment], .kind = kind };

    memcpy(key.scope, r->user->scope, sizeof(key.scope));
    return store_find(r->tier->store, &key, r->ids + at, min_u32(seg_len, r->n - at), ret) &&
           ret->page_bytes == r->tier->pool->page_bytes;
}

/* It is packed in the sequence, or as a record, or packed it has no keys at all. */
static bool has_packed(const struct tier_restore *r, uint32_t segment)
{
    const struct memory *m = r->user->memory;
    uint32_t n_keys = ladder_segment_keys(&m->policy, segment, 1);
    struct store_found f;

    if (segment < m->ladder.n_at[1] || n_keys == 0)
        return true;
    return find(r, segment, STORE_PACKED, &f) && f.n_tokens == m->policy.seg_len &&
           f.n_keys == n_keys;
}

/* Tokens from the segment's start that a raw record has. */
static uint32_t has_raw(const struct tier_restore *r, uint32_t segment)
{
    struct store_found f;

    return find(r, segment, STORE_RAW, &f) && f.n_keys >= f.n_tokens ? f.n_tokens : 0;
}

static struct ladder ladder_at(const struct policy *p, uint32_t n)
{
    struct ladder l = { 0 };

    ladder_climb(p, &l, 0, n, NULL, NULL);
    return l;
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
        struct ladder l = ladder_at(&m->policy, n);

        /* Too much of it is compressed: to before its last check. */
        hole = l.n_at[1] > n_packed ? l.n_checked * seg_len + m->policy.keep_tail - 1
                                    : first_hole(r, &l, n);
        if (hole == n)
            return n;
        n = hole;
    }
    return 0;
}

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
    uint32_t *pages = r->pages;
    void **mem = r->mem;
    double cost_ns = 0;
    bool known = true;

    for (uint32_t i = 0; i < r->n_parts; i++) {
        uint32_t k = r->first + i, n = min_u32(p->seg_len, r->goal_n - k * p->seg_len);
        struct part *part = &r->parts[i];
        struct store_found f = { 0 };

        *part = (struct part){ .restore = r, .segment = k, .packed = k < r->goal.n_at[1] };
        part->n_tokens = n;
        part->n_keys = part->packed ? ladder_segment_keys(p, k, 1) : n;
        part->n_pages = seq_n_pages(part->n_keys);
        part->pages = pages;
        part->mem = mem;
        pages += part->n_pages;
        mem += part->n_pages;
        if (part->n_pages == 0) {
            part->state = PART_READY;
            continue;
        }
        (void)find(r, k, part->packed ? STORE_PACKED : STORE_RAW, &f);
        part->id = f.id;
        known &= f.cost_ns > 0;
        if (f.n_tokens)
            cost_ns += (double)f.cost_ns * n / f.n_tokens;
    }
    return known ? cost_ns : INFINITY;
}

/* Both by what was measured here; what it took when the record was made stands in until the model
 * has read something. */
static bool is_worth_it(struct tier_restore *r, double cost_ns, uint32_t n_pages)
{
    struct tier *t = r->tier;
    uint32_t n = r->goal_n - r->user->memory->seq->n_tokens;
    double read_ns = (double)n_pages * (double)t->pool->page_bytes * 1e9 / tier_read_speed(t) +
                     RECORD_NS * r->n_parts;

    if (t->ns_per_token > 0)
        cost_ns = t->ns_per_token * n;
    if (t->always || read_ns < cost_ns)
        return true;
    t->stats.computed_instead += n;
    return false;
}

static void free_plan(struct tier_restore *r)
{
    free(r->parts);
    free(r->pages);
    free(r->mem);
    r->parts = NULL;
    r->pages = NULL;
    r->mem = NULL;
    r->n_parts = r->n_asked = r->n_taken = r->window = 0;
}

/* False: there is nothing to be had, or no memory for it. */
static bool plan(struct tier_restore *r)
{
    uint32_t n_pages;

    r->goal_n = longest(r, min_u32(r->limit, r->n - 1));
    if (r->goal_n == 0)
        return false;
    r->goal = ladder_at(policy_of(r), r->goal_n);
    r->first = first_other(r->user->memory, &r->goal);
    r->thinned_to = 0;
    count_parts(r, &r->n_parts, &n_pages);
    r->parts = malloc(r->n_parts * sizeof(*r->parts));
    r->pages = malloc((n_pages + 1) * sizeof(*r->pages));
    r->mem = malloc((n_pages + 1) * sizeof(*r->mem));
    if (!r->parts || !r->pages || !r->mem || !is_worth_it(r, fill_parts(r), n_pages)) {
        free_plan(r);
        return false;
    }
    return true;
}

static bool hash_all(struct tier_restore *r)
{
    uint32_t seg_len = policy_of(r)->seg_len, n = r->n / seg_len;

    r->before = malloc(((size_t)n + 1) * sizeof(*r->before));
    if (!r->before)
        return false;
    r->before[0] = STORE_ROOT;
    for (uint32_t k = 0; k < n; k++)
        r->before[k + 1] =
            store_hash(r->tier->store, r->before[k], r->ids + (size_t)k * seg_len, seg_len);
    return true;
}

static void free_restore(struct tier_restore *r)
{
    free_plan(r);
    free(r->before);
    free(r);
}

struct tier_restore *tier_restore_begin(struct tier_user *u, const uint32_t *ids, uint32_t n)
{
    struct tier_restore *r;

    if (!u->tier || n < 2)
        return NULL;
    r = calloc(1, sizeof(*r));
    if (!r)
        return NULL;
    *r = (struct tier_restore){ .tier = u->tier, .user = u, .ids = ids, .n = n, .limit = n };
    if (!hash_all(r) || !plan(r)) {
        free_restore(r);
        return NULL;
    }
    u->restoring = true;
    return r;
}

uint32_t tier_known(struct tier_user *u, const uint32_t *ids, uint32_t n)
{
    struct tier_restore r = { .tier = u->tier, .user = u, .ids = ids, .n = n };
    uint32_t known = 0;

    if (u->tier && n >= 2 && hash_all(&r))
        known = longest(&r, n - 1);
    free(r.before);
    return known;
}

/* --- reading ---------------------------------------------------------------------------------- */

static struct pool_account *account_of(const struct tier_restore *r)
{
    return r->user->memory->seq->account;
}

static void give_stage(struct part *p)
{
    if (!p->restore->tier->host)
        tier_stage_give(&p->restore->tier->stage, p->n_pages, p->mem);
}

/* The part has pages no more, in whatever way it has them. */
static void give_pages(struct part *p)
{
    struct tier *t = p->restore->tier;

    pool_give(t->pool, p->pinned_busy ? &t->busy : account_of(p->restore), p->n_pages, p->pages);
}

/* From store_pump. */
static void on_get(void *arg, int result)
{
    struct part *p = arg;
    struct tier_restore *r = p->restore;

    r->n_out--;
    p->state = PART_READ;
    p->result = result;
    if (!r->dropped)
        return;
    give_stage(p);
    give_pages(p);
    if (r->n_out == 0) {
        TAILQ_REMOVE(&r->tier->dropped, r, link);
        free_restore(r);
    }
}

/* -EAGAIN: later, when something came back. */
static int ask(struct tier_restore *r, struct part *p)
{
    struct tier *t = r->tier;
    int e = pool_take(t->pool, account_of(r), p->n_pages, p->pages);

    if (e < 0)
        return e;
    if (t->host) {
        for (uint32_t i = 0; i < p->n_pages; i++)
            p->mem[i] = t->host + (size_t)p->pages[i] * t->pool->page_bytes;
    } else if (p->n_pages > t->stage.n_slots) {
        e = -E2BIG;
    } else if (!tier_stage_take(&t->stage, p->n_pages, p->mem)) {
        e = -EAGAIN;
    }
    if (e == 0) {
        e = store_get(t->store, p->id, p->n_pages, p->mem, on_get, p);
        if (e < 0)
            give_stage(p);
    }
    if (e < 0) {
        pool_give(t->pool, account_of(r), p->n_pages, p->pages);
        return e;
    }
    p->state = PART_READING;
    r->n_out++;
    r->window += p->n_pages;
    return 0;
}

/* What the store has read goes on to the device. 0, or the errno of the copy. */
static int put_part(struct part *p)
{
    struct tier *t = p->restore->tier;
    int e = 0;

    for (uint32_t i = 0; e == 0 && i < p->n_pages; i++)
        e = t->backend->ops->put(t->backend, tier_page(t, p->pages[i]), p->mem[i],
                                 t->pool->page_bytes, &p->ticket);
    p->state = PART_PUTTING;
    t->n_fetching++;
    return e;
}

static void end_putting(struct part *p)
{
    p->restore->tier->n_fetching--;
    give_stage(p);
    p->state = PART_READY;
}

/* 0: it is ready, -EAGAIN: not yet; else what became of it. */
static int look_at(struct part *p)
{
    struct tier *t = p->restore->tier;

    if (p->state == PART_READ && p->result == 0 && t->host)
        p->state = PART_READY;
    else if (p->state == PART_READ && p->result == 0)
        p->result = put_part(p);
    if (p->state == PART_PUTTING && t->backend->ops->done(t->backend, p->ticket))
        end_putting(p);
    if (p->state == PART_READY || p->state == PART_READ)
        return p->result;
    return -EAGAIN;
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
static void adopt(struct tier_restore *r, struct part *p)
{
    struct tier *t = r->tier;
    struct seq *s = r->user->memory->seq;
    const uint32_t *ids = r->ids + (size_t)p->segment * s->seg_len;
    int e = pool_share(t->pool, &t->busy, p->n_pages, p->pages);

    assert(e == 0); /* no limit */
    (void)e;
    pool_give(t->pool, s->account, p->n_pages, p->pages);
    if (p->packed)
        seq_adopt_compressed(s, ids, p->n_keys, p->pages);
    else
        seq_adopt_raw(s, ids, p->n_tokens, p->pages);
    pool_give(t->pool, &t->busy, p->n_pages, p->pages);
    r->window -= p->n_pages;
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

    while (e == 0 && r->n_taken < r->n_parts) {
        struct part *p = &r->parts[r->n_taken];

        if (r->n_taken == r->n_asked && p->state != PART_READY)
            return -EAGAIN;
        e = look_at(p);
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

/* Up to the window. -EAGAIN: the store takes no more now; -ENOSPC and the like. */
static int ask_parts(struct tier_restore *r)
{
    uint32_t most = (uint32_t)(WINDOW_BYTES / r->tier->pool->page_bytes);

    for (; r->n_asked < r->n_parts; r->n_asked++) {
        struct part *p = &r->parts[r->n_asked];
        int e;

        if (p->state == PART_READY)
            continue;
        if (r->n_asked > r->n_taken + 1 && r->window + p->n_pages > most)
            return -EAGAIN;
        e = ask(r, p);
        if (e < 0)
            return e;
    }
    return 0;
}

/* --- failing, ending -------------------------------------------------------------------------- */

/* Nothing of a part is wanted any more. False: the store still has its pages. */
static bool forget(struct part *p)
{
    struct tier_restore *r = p->restore;

    if (p->state == PART_PLANNED || p->n_pages == 0)
        return true;
    if (p->state == PART_READING && store_cancel(r->tier->store, p))
        return false;
    r->n_out -= p->state == PART_READING;
    if (p->state == PART_PUTTING) /* the queue of copies may still read the slots */
        while (!r->tier->backend->ops->done(r->tier->backend, p->ticket))
            ;
    if (p->state == PART_PUTTING)
        end_putting(p);
    else if (p->state != PART_READY)
        give_stage(p);
    give_pages(p);
    p->state = PART_PLANNED;
    return true;
}

static void forget_all(struct tier_restore *r)
{
    for (uint32_t i = r->n_taken; i < r->n_asked; i++)
        (void)forget(&r->parts[i]);
}

void tier_restore_drop(struct tier_restore *r)
{
    struct tier *t;

    if (!r)
        return;
    t = r->tier;
    /* The callbacks of these are to come: their pages are the tier's until then. */
    for (uint32_t i = r->n_taken; i < r->n_asked; i++) {
        struct part *p = &r->parts[i];
        int e;

        if (forget(p))
            continue;
        e = pool_share(t->pool, &t->busy, p->n_pages, p->pages);
        assert(e == 0); /* no limit */
        (void)e;
        give_pages(p);
        p->pinned_busy = true;
    }
    r->user->restoring = false;
    memory_empty(r->user->memory);
    r->user = NULL;
    r->dropped = true;
    if (r->n_out == 0)
        free_restore(r);
    else
        TAILQ_INSERT_TAIL(&t->dropped, r, link);
}

/* All that came back is in the sequence. */
static int done(struct tier_restore *r, uint32_t *ret_shared)
{
    struct tier_user *u = r->user;
    uint32_t seg_len = policy_of(r)->seg_len, shared = r->first * seg_len;

    u->restoring = false;
    memory_restored(u->memory, &r->goal);
    if (r->first == 0) { /* it is there already: need not be written again */
        u->n_raw = r->goal_n / seg_len;
        u->n_packed = r->goal.n_at[1];
        u->raw_before = r->before[u->n_raw];
        u->packed_before = r->before[u->n_packed];
        u->tail = r->goal_n;
    }
    r->tier->stats.restores++;
    r->tier->stats.restored_tokens += r->goal_n - shared;
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
        e = ask_parts(r) ?: -EAGAIN;
    if (e == -ENOSPC && (r->n_out || tier_coming(r->tier)))
        e = -EAGAIN;
    return e;
}

int tier_restore_go(struct tier_restore *r, uint32_t *ret_shared)
{
    for (;;) {
        int e = r->draining ? -ECANCELED : go_on(r);

        if (e == 0)
            return done(r, ret_shared);
        if (e == -EAGAIN)
            return e;
        forget_all(r);
        r->draining = r->n_out > 0;
        if (r->draining)
            return -EAGAIN;
        start_over(r);
        if (++r->attempts == ATTEMPTS || r->limit <= r->user->memory->seq->n_tokens || !plan(r))
            return give_up(r, ret_shared);
    }
}

/* --- of all ----------------------------------------------------------------------------------- */

uint32_t tier_read_coming(const struct tier *t)
{
    const struct tier_restore *r;
    uint32_t n = 0;

    TAILQ_FOREACH (r, &t->dropped, link)
        for (uint32_t i = r->n_taken; i < r->n_asked; i++)
            n += r->parts[i].pinned_busy && r->parts[i].state == PART_READING ? r->parts[i].n_pages
                                                                              : 0;
    return n;
}
