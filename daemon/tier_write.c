/* The way to the disk. A record waits in the queue with its pages pinned, so that the session may
 * go on, compress the segment or end meanwhile. Whoever wants those pages gets them, newest first:
 * what is found again is a chain from the first segment on, and one hole ends it.
 *
 * Pages that the disk reads can't be had back, so there are few of them at a time: as many bytes as
 * keep a disk busy, or one record. That also bounds what a step does for this (the store hashes
 * what it is given).
 */
#include "daemon/tier_inner.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What can't be had back while somebody waits for pages, and what the store hashes between two
 * steps. */
#define BUSY_BYTES ((uint64_t)32 << 20) /* that are being written */
#define STEP_BYTES ((uint64_t)8 << 20)  /* begun in a step */

/* --- pins ------------------------------------------------------------------------------------- */

/* The state says which account has the pins. */
static void unpin(struct tier *t, struct tier_job *j)
{
    bool queued = j->state == TIER_JOB_QUEUED;

    pool_give(t->pool, queued ? &t->queued : &t->busy, j->n_pinned, j->pages);
    j->n_pinned = 0;
}

/* From the account that can be had back to the other. There is no moment without a pin. Both
 * accounts have no limit and no owner, so sharing can't fail. */
static void pin_busy(struct tier *t, struct tier_job *j)
{
    int r = pool_share(t->pool, &t->busy, j->n_pinned, j->pages);

    assert(r == 0); /* no limit */
    (void)r;
    pool_give(t->pool, &t->queued, j->n_pinned, j->pages);
}

static uint64_t bytes_of(const struct tier_job *j)
{
    return (uint64_t)j->record.n_pages * j->record.page_bytes;
}

static void free_job(struct tier *t, struct tier_job *j, struct tier_jobs *from)
{
    unpin(t, j);
    TAILQ_REMOVE(from, j, link);
    j->state = TIER_JOB_FREE;
    TAILQ_INSERT_HEAD(&t->free, j, link);
}

/* --- reclaiming ------------------------------------------------------------------------------- */

/* Some page of it would be free without us, or when the tree gives it up as well. */
static bool gives(const struct tier *t, const struct tier_job *j)
{
    for (uint32_t i = 0; i < j->n_pinned; i++)
        if (t->pool->refs[j->pages[i]] == t->pool->kept[j->pages[i]])
            return true;
    return false;
}

/* What the tree shares with the queue it could not give up before. Reclaimers are asked in turn,
 * and the tree had its turn before the queue. */
static void ask_others(struct tier *t, uint32_t n)
{
    for (struct pool_reclaimer *r = t->pool->reclaimers; r && t->pool->n_free < n; r = r->next)
        if (r != &t->reclaimer)
            r->fn(r->arg, n);
}

/* The second round, of all that is queued: a page to be written may be ours and one session's, and
 * a copy of it would not be needed without us. From the newest back, and jobs that are under way
 * are not in this list. */
static void reclaim(void *arg, uint32_t n)
{
    struct tier *t = arg;

    for (int round = 0; round < 2; round++) {
        struct tier_job *j, *before;

        for (j = TAILQ_LAST(&t->queue, tier_jobs); j && t->pool->n_free < n; j = before) {
            before = TAILQ_PREV(j, tier_jobs, link);
            if (round == 0 && !gives(t, j))
                continue;
            free_job(t, j, &t->queue);
            t->stats.forgotten++;
        }
        ask_others(t, n);
    }
}

/* --- queue ------------------------------------------------------------------------------------ */

/* The newest that waits for the disk though its pages are on the shelf, where they stay. */
static struct tier_job *last_waiting(const struct tier *t)
{
    struct tier_job *j = TAILQ_LAST(&t->waiting, tier_jobs);

    while (j && !j->kept)
        j = TAILQ_PREV(j, tier_jobs, link);
    return j;
}

bool tier_queue_full(const struct tier *t)
{
    return TAILQ_EMPTY(&t->free) && !last_waiting(t);
}

/* A disk that is slower than the model loses records; host memory does not wait for it. */
static struct tier_job *take_job(struct tier *t)
{
    struct tier_job *j = TAILQ_EMPTY(&t->free) ? last_waiting(t) : NULL;

    if (j) {
        free_job(t, j, &t->waiting);
        t->stats.forgotten++;
    }
    return TAILQ_FIRST(&t->free);
}

/* Keys of a segment's beginning to the queue. False: it is full. */
static bool add_job(struct tier_user *u, enum store_kind kind, uint32_t segment,
                    struct store_hash before, uint32_t n_tokens)
{
    struct tier *t = u->tier;
    const struct seq *s = u->memory->seq;
    uint32_t n_keys = kind == STORE_PACKED ? s->segments[segment].n_keys : n_tokens;
    struct tier_job *j;
    int r;

    /* Asked first: to take a job may forget another one. */
    if (!t->host && seq_n_pages(n_keys) > shelf_longest(t->shelf))
        return true; /* it would never have room */
    j = take_job(t);
    if (!j)
        return false;
    TAILQ_REMOVE(&t->free, j, link);
    j->state = TIER_JOB_QUEUED;
    j->n_pinned = seq_n_pages(n_keys);
    /* A copy: the session may be taken back, or end, before its turn. */
    memcpy(j->ids, s->tokens + (size_t)segment * s->seg_len, n_tokens * sizeof(*j->ids));
    memcpy(j->pages, seq_pages(s, segment), j->n_pinned * sizeof(*j->pages));
    r = pool_share(t->pool, &t->queued, j->n_pinned, j->pages);
    assert(r == 0); /* no limit */
    (void)r;
    j->record = (struct store_record){ .key = { .owner = u->owner, .before = before, .kind = kind },
                                       .ids = j->ids,
                                       .n_tokens = n_tokens,
                                       .n_keys = n_keys,
                                       .n_pages = j->n_pinned,
                                       .page_bytes = t->pool->page_bytes,
                                       .tail = kind == STORE_RAW && n_tokens < s->seg_len };
    memcpy(j->record.key.scope, u->scope, STORE_SCOPE_LEN);
    TAILQ_INSERT_TAIL(&t->queue, j, link);
    return true;
}

static const uint32_t *ids_of(const struct seq *s, uint32_t segment)
{
    return s->tokens + (size_t)segment * s->seg_len;
}

/* A segment that was compressed before there was room for it is left out. With a full queue it goes
 * on from there after the next step, which finds it raw or too late. */
static void note_raw(struct tier_user *u)
{
    const struct memory *m = u->memory;
    const struct seq *s = m->seq;

    for (uint32_t k = u->n_raw; (k + 1) * s->seg_len <= s->n_tokens; k = ++u->n_raw) {
        if (k >= m->ladder.n_at[1] && s->segments[k].state == SEQ_RAW &&
            !add_job(u, STORE_RAW, k, u->raw_before, s->seg_len))
            return;
        u->raw_before = tier_hash(u->tier, u->raw_before, ids_of(s, k), s->seg_len);
    }
}

/* The same of compressed ones: above rung 1 there is no record, thinning is done again on the way
 * back. */
static void note_packed(struct tier_user *u)
{
    const struct memory *m = u->memory;
    const struct seq *s = m->seq;

    for (uint32_t k = u->n_packed; k < m->ladder.n_at[1]; k = ++u->n_packed) {
        if (k >= m->ladder.n_at[2] && s->segments[k].state == SEQ_PACKED &&
            s->segments[k].n_keys > 0 && !add_job(u, STORE_PACKED, k, u->packed_before, s->seg_len))
            return;
        u->packed_before = tier_hash(u->tier, u->packed_before, ids_of(s, k), s->seg_len);
    }
}

void tier_note_segments(struct tier_user *u)
{
    note_raw(u);
    note_packed(u);
}

/* Without what stands before it nobody would find it. u->n_raw != k: a segment before it had no
 * place in the queue. */
void tier_write_end(struct tier_user *u)
{
    const struct seq *s = u->memory->seq;
    uint32_t k = s->n_tokens / s->seg_len, n = s->n_tokens % s->seg_len;

    tier_note_segments(u);
    if (n == 0 || u->n_raw != k || u->tail == s->n_tokens || s->segments[k].state != SEQ_RAW)
        return;
    if (add_job(u, STORE_RAW, k, u->raw_before, n))
        u->tail = s->n_tokens;
}

/* --- to the disk ------------------------------------------------------------------------------ */

static void move_job(struct tier_job *j, struct tier_jobs *from, struct tier_jobs *to,
                     enum tier_job_state state)
{
    TAILQ_REMOVE(from, j, link);
    j->state = state;
    TAILQ_INSERT_TAIL(to, j, link);
}

/* Of one that counts as busy. Its slots are free, or the shelf's as any other. */
static void end_busy(struct tier *t, struct tier_job *j, struct tier_jobs *from)
{
    t->busy_bytes -= bytes_of(j);
    if (j->kept)
        shelf_unpin(t->shelf, j->kept);
    else if (!t->host)
        shelf_give(t->shelf, j->record.n_pages, j->mem);
    free_job(t, j, from);
}

/* The callback of a put: whether it is on the disk or not, the store has no use for its pages. */
static void on_put(void *arg, int result)
{
    struct tier_job *j = arg;
    struct tier *t = j->tier;

    (void)result; /* the store counts, and says what is wrong with the disk */
    end_busy(t, j, &t->writing);
}

/* 0: under way; -EAGAIN: later; else it is not to be written. The cost is asked for as late as can
 * be: the step that read the first tokens of all has been measured by now. */
static int put(struct tier *t, struct tier_job *j)
{
    j->record.cost_ns = (uint64_t)(t->ns_per_token * j->record.n_tokens);
    return store_put(t->store, &j->record, (const void *const *)j->mem, on_put, j);
}

/* As the pages lie in the pool. Pins change accounts after the store took the record: refused, it
 * is still queued, and can be had back. */
static int start_direct(struct tier *t, struct tier_job *j)
{
    int r;

    for (uint32_t i = 0; i < j->n_pinned; i++)
        j->mem[i] = t->host + (size_t)j->pages[i] * t->pool->page_bytes;
    r = put(t, j);
    if (r < 0)
        return r;
    pin_busy(t, j);
    move_job(j, &t->queue, &t->writing, TIER_JOB_WRITING);
    t->busy_bytes += bytes_of(j);
    return 0;
}

/* All of it is on the shelf: read back from there, most likely, and not changed since. */
static bool is_shelved(const struct tier *t, const struct tier_job *j, uint64_t *ret)
{
    const struct store_record *r = &j->record;
    struct store_found f;

    if (!shelf_find(t->shelf, &r->key, r->ids, r->n_tokens, &f) || f.n_tokens != r->n_tokens ||
        f.n_keys != r->n_keys)
        return false;
    *ret = f.id;
    return true;
}

/* To slots of the shelf first. An error of a copy is not returned: other copies of the same job may
 * be under way to its slots, which are not free before their ticket is done. */
static int start_fetch(struct tier *t, struct tier_job *j)
{
    int r = 0;

    if (is_shelved(t, j, &j->kept)) {
        unpin(t, j);
        move_job(j, &t->queue, &t->waiting, TIER_JOB_WAITING);
        return 0;
    }
    j->kept = 0;
    j->ticket = 0; /* none was made: done at once */
    if (!shelf_take(t->shelf, j->n_pinned, j->mem))
        return -EAGAIN;
    for (uint32_t i = 0; r == 0 && i < j->n_pinned; i++)
        r = t->backend->ops->get(t->backend, j->mem[i], tier_page(t, j->pages[i]),
                                 t->pool->page_bytes, &j->ticket);
    pin_busy(t, j);
    move_job(j, &t->queue, &t->fetching, TIER_JOB_FETCHING);
    t->busy_bytes += bytes_of(j);
    t->n_fetching++;
    if (r < 0)
        j->record.n_tokens = 0; /* see fetched */
    return 0;
}

/* The pool's pages are free; the copy stays on the shelf if that has room, and the disk gets it
 * from there. */
static void shelve(struct tier *t, struct tier_job *j)
{
    const struct store_record *r = &j->record;

    unpin(t, j);
    j->record.cost_ns = (uint64_t)(t->ns_per_token * r->n_tokens);
    j->kept = shelf_add(t->shelf, r, tier_hash(t, r->key.before, r->ids, r->n_tokens), j->mem);
    if (j->kept)
        t->busy_bytes -= bytes_of(j);
    move_job(j, &t->fetching, &t->waiting, TIER_JOB_WAITING);
}

/* Who could not be copied is not kept, but others' copies may still come to its place. */
static bool fetched(struct tier *t)
{
    struct tier_job *j, *next;
    bool any = false;

    for (j = TAILQ_FIRST(&t->fetching); j; j = next) {
        int done = t->backend->ops->done(t->backend, j->ticket);

        next = TAILQ_NEXT(j, link);
        if (done == 0)
            continue;
        any = true;
        t->n_fetching--;
        if (done > 0 && j->record.n_tokens) {
            shelve(t, j);
            continue;
        }
        end_busy(t, j, &t->fetching);
    }
    return any;
}

static bool may_start(const struct tier *t, const struct tier_job *j, uint64_t begun)
{
    return begun < STEP_BYTES && (t->busy_bytes == 0 || t->busy_bytes + bytes_of(j) <= BUSY_BYTES);
}

/* Of those that wait one goes to the disk. 0, -EAGAIN, or why it does not. What the shelf keeps
 * counts as busy only while the disk has it; what is in slots of its own does so since it was
 * fetched. */
static int start_waiting(struct tier *t, struct tier_job *j)
{
    int r;

    if (!t->store)
        return -ENOENT;
    if (j->kept && !shelf_pin(t->shelf, j->kept, j->record.n_pages, j->mem)) {
        t->stats.forgotten++;
        return -ENOENT;
    }
    r = put(t, j);
    if (r == 0) {
        t->busy_bytes += j->kept ? bytes_of(j) : 0;
        move_job(j, &t->waiting, &t->writing, TIER_JOB_WRITING);
    } else if (j->kept) {
        shelf_unpin(t->shelf, j->kept);
    }
    return r;
}

/* Slots of its own are what new copies wait for, so such a job goes whatever is busy. */
static bool write_waiting(struct tier *t)
{
    struct tier_job *j, *next;
    uint64_t begun = 0;
    bool any = false;

    for (j = TAILQ_FIRST(&t->waiting); j; j = next) {
        int r;

        next = TAILQ_NEXT(j, link);
        if (j->kept && t->store && !may_start(t, j, begun))
            break;
        r = start_waiting(t, j);
        if (r == -EAGAIN)
            break;
        any = true;
        begun += r == 0 ? bytes_of(j) : 0;
        if (r < 0 && j->kept)
            free_job(t, j, &t->waiting);
        else if (r < 0)
            end_busy(t, j, &t->waiting);
    }
    return any;
}

/* The queue goes last: slots and bytes that came back above are there for it. */
bool tier_write_pump(struct tier *t)
{
    bool any = t->host ? false : fetched(t) | write_waiting(t);
    uint64_t begun = 0;
    struct tier_job *j;

    while ((j = TAILQ_FIRST(&t->queue)) && may_start(t, j, begun)) {
        int r = t->host ? start_direct(t, j) : start_fetch(t, j);

        if (r == -EAGAIN)
            break;
        any = true;
        if (r == 0)
            begun += bytes_of(j);
        else
            free_job(t, j, &t->queue);
    }
    return any;
}

/* Pages that nobody else has but who can be made to give them up; and those of one session, which
 * needs no copy then to write to them. */
uint32_t tier_write_coming(const struct tier *t)
{
    const struct tier_jobs *lists[] = { &t->fetching, &t->writing };
    const struct tier_job *j;
    uint32_t n = 0;

    for (int i = 0; i < 2; i++)
        TAILQ_FOREACH (j, lists[i], link)
            for (uint32_t k = 0; k < j->n_pinned; k++)
                n += t->pool->refs[j->pages[k]] <= t->pool->kept[j->pages[k]] + 2;
    return n;
}

/* --- the whole -------------------------------------------------------------------------------- */

int tier_write_open(struct tier *t)
{
    TAILQ_INIT(&t->free);
    TAILQ_INIT(&t->queue);
    TAILQ_INIT(&t->fetching);
    TAILQ_INIT(&t->waiting);
    TAILQ_INIT(&t->writing);
    t->queued.limit = t->busy.limit = UINT32_MAX;
    t->reclaimer = (struct pool_reclaimer){ .fn = reclaim, .arg = t, .account = &t->queued };
    pool_add_reclaimer(t->pool, &t->reclaimer);
    /* Untouched parts of these cost address space, not memory. */
    t->job_ids = malloc((size_t)TIER_JOBS * STORE_TOKENS_MAX * sizeof(*t->job_ids));
    t->job_pages = malloc((size_t)TIER_JOBS * TIER_PAGES_MAX * sizeof(*t->job_pages));
    t->job_mem = malloc((size_t)TIER_JOBS * TIER_PAGES_MAX * sizeof(*t->job_mem));
    if (!t->job_ids || !t->job_pages || !t->job_mem)
        return -ENOMEM;
    for (uint32_t i = 0; i < TIER_JOBS; i++) {
        struct tier_job *j = &t->jobs[i];

        j->tier = t;
        j->ids = t->job_ids + (size_t)i * STORE_TOKENS_MAX;
        j->pages = t->job_pages + (size_t)i * TIER_PAGES_MAX;
        j->mem = t->job_mem + (size_t)i * TIER_PAGES_MAX;
        TAILQ_INSERT_TAIL(&t->free, j, link);
    }
    return 0;
}

/* What is queued is forgotten. The disk is done: the store was closed, or never had any. */
void tier_write_close(struct tier *t)
{
    struct tier_job *j;

    while ((j = TAILQ_FIRST(&t->queue)))
        free_job(t, j, &t->queue);
    while ((j = TAILQ_FIRST(&t->fetching))) {
        while (t->backend->ops->done(t->backend, j->ticket) == 0)
            ; /* it is about to write to its slots */
        free_job(t, j, &t->fetching);
    }
    while ((j = TAILQ_FIRST(&t->waiting)))
        free_job(t, j, &t->waiting);
    assert(TAILQ_EMPTY(&t->writing));
    pool_drop_reclaimer(t->pool, &t->reclaimer);
    free(t->job_ids);
    free(t->job_pages);
    free(t->job_mem);
}
