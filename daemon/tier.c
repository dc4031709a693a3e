/* What a sequence tells the tier, and the time of it. What goes to the disk and how is
 * tier_write.c's, what comes back tier_read.c's and tier_bring.c's; tier_inner.h has what they
 * share. */
#include "daemon/tier.h"

#include "base/clock.h"
#include "daemon/tier_inner.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

/* A device that is lost rings for nothing any more: so often it is asked all the same. */
#define LOST_MS 1000

/* A slice of waiting at the end. */
#define AWAIT_MS 20

/* --- who rests -------------------------------------------------------------------------------- */

/* A sequence's unfinished segment changes with each token, so it is written when nothing was read
 * for idle_ns. Until then it stands in `resting`. */
static void unlist(struct tier_user *u)
{
    if (u->listed)
        TAILQ_REMOVE(&u->tier->resting, u, link);
    u->listed = false;
}

/* All wait equally long, so the list is in order of time, and its head is the next. */
static void rest_from_now(struct tier_user *u)
{
    unlist(u);
    u->due_ns = clock_ns() + u->tier->idle_ns;
    u->listed = true;
    TAILQ_INSERT_TAIL(&u->tier->resting, u, link);
}

/* With a full queue it goes on when a record was written, which rings. */
static bool write_ends(struct tier *t)
{
    struct tier_user *u;
    bool any = false;
    uint64_t now;

    if (TAILQ_EMPTY(&t->resting))
        return false;
    now = clock_ns();
    while ((u = TAILQ_FIRST(&t->resting)) && u->due_ns <= now && !tier_queue_full(t)) {
        /* What is coming back is on the disk already. */
        if (!u->restoring)
            tier_write_end(u);
        if (tier_queue_full(t))
            break;
        unlist(u);
        any = true;
    }
    return any;
}

/* The scheduler sleeps by this. With the queue full no end can be written, whenever it is due: the
 * disk rings when there is room. */
int tier_timeout_ms(const struct tier *t)
{
    const struct tier_user *u = TAILQ_FIRST(&t->resting);
    int ret =
        clock_sooner_ms(t->store ? store_timeout_ms(t->store) : -1, t->n_fetching ? LOST_MS : -1);

    if (!u || tier_queue_full(t))
        return ret;
    return clock_sooner_ms(ret, clock_until_ms(u->due_ns, clock_ns()));
}

/* --- of a sequence ---------------------------------------------------------------------------- */

/* Pages with gists among their tokens are not of 16 tokens each, and no prefix of such a segment is
 * one of another: they are left out, as the tree of beginnings does. */
void tier_join(struct tier_user *u, struct tier *t, struct memory *m, uint32_t owner)
{
    *u = (struct tier_user){
        .tier = m->seq->gist_every ? NULL : t,
        .memory = m,
        .owner = owner,
    };
    if (u->tier)
        tier_scope(u->tier, &m->policy, u->scope);
}

/* All that was written until now is found by the old scope. Under the new one nothing is, so counts
 * and hashes begin at the first segment. */
void tier_rescope(struct tier_user *u)
{
    if (!u->tier)
        return;
    unlist(u);
    tier_join(u, u->tier, u->memory, u->owner);
}

void tier_fork(const struct tier_user *u, struct tier_user *dst, struct memory *m)
{
    *dst = *u;
    dst->memory = m;
    /* The list's links were copied, and are the other one's. The fork stands in it after its own
     * first step. */
    dst->listed = false;
    dst->restoring = false;
}

void tier_note(struct tier_user *u)
{
    if (!u->tier)
        return;
    tier_note_segments(u);
    rest_from_now(u);
}

/* The hash of what stands before a segment, from the first one on. Anew, since only the last one is
 * kept: a rewind is rare, a million ids take a millisecond. */
static struct store_hash hash_before(const struct tier_user *u, uint32_t segment)
{
    const struct seq *s = u->memory->seq;
    struct store_hash h = STORE_ROOT;

    for (uint32_t k = 0; k < segment; k++)
        h = tier_hash(u->tier, h, s->tokens + (size_t)k * s->seg_len, s->seg_len);
    return h;
}

/* Segments that were cut away will be others when they are full again. What was written of them
 * stays on the disk, where it is found by the ids that it had. */
void tier_cut(struct tier_user *u)
{
    const struct memory *m = u->memory;
    uint32_t n_full;

    if (!u->tier)
        return;
    n_full = m->seq->n_tokens / m->seq->seg_len;
    if (u->n_raw > n_full) {
        u->n_raw = n_full;
        u->raw_before = hash_before(u, n_full);
    }
    if (u->n_packed > m->ladder.n_at[1]) {
        u->n_packed = m->ladder.n_at[1];
        u->packed_before = hash_before(u, u->n_packed);
    }
    if (u->tail > m->seq->n_tokens)
        u->tail = 0;
}

/* Not listed: its end was written, or there is nothing new. */
void tier_hold(struct tier_user *u, bool keeps)
{
    if (!u->listed)
        return;
    unlist(u);
    if (keeps && !u->restoring)
        tier_write_end(u);
}

/* The end goes to the queue at once, not when it is due: the pages are pinned there, and the
 * sequence may give its own back. */
void tier_leave(struct tier_user *u, bool keeps)
{
    if (!u->tier)
        return;
    if (keeps && !u->restoring)
        tier_write_end(u);
    unlist(u);
    u->tier = NULL;
}

/* --- the whole -------------------------------------------------------------------------------- */

/* A pool that the host can address is read from and written to as it lies; only that of a device's
 * memory needs a shelf. */
int tier_open(const struct tier_options *o, struct tier **ret)
{
    struct tier *t = calloc(1, sizeof(*t));
    int r;

    if (!t)
        return -ENOMEM;
    t->store = o->store;
    t->pool = o->pool;
    t->backend = o->pool->backend;
    t->model = o->model;
    t->host = backend_host(t->backend, t->pool->mem);
    t->idle_ns = o->idle_ns;
    t->always = o->always;
    TAILQ_INIT(&t->resting);
    TAILQ_INIT(&t->dropped);
    TAILQ_INIT(&t->early);
    t->io = o->io;
    r = tier_write_open(t);
    if (r == 0 && !t->host)
        r = tier_host_open(t, o->host_bytes);
    if (r < 0) {
        tier_close(t);
        return r;
    }
    *ret = t;
    return 0;
}

const char *tier_host_note(const struct tier *t)
{
    return t->note.text;
}

void tier_close(struct tier *t)
{
    if (!t)
        return;
    assert(TAILQ_EMPTY(&t->resting) && TAILQ_EMPTY(&t->dropped) && TAILQ_EMPTY(&t->early));
    tier_write_close(t);
    tier_host_close(t);
    free(t);
}

/* Results first: they free jobs and slots, which the others then have in the same step. */
bool tier_pump(struct tier *t)
{
    bool any = t->store && store_pump(t->store);

    any |= tier_bring_pump(t);
    any |= write_ends(t);
    any |= tier_write_pump(t);
    return any;
}

/* Until the device rings, for a moment. Drained before the next look, which finds what was rung
 * for. */
void tier_await_copies(const struct tier *t)
{
    struct pollfd bell = { .fd = t->backend->ops->eventfd(t->backend), .events = POLLIN };
    eventfd_t n;

    if (poll(&bell, 1, AWAIT_MS) > 0)
        (void)eventfd_read(bell.fd, &n);
}

static uint32_t count_jobs(const struct tier_jobs *jobs)
{
    const struct tier_job *j;
    uint32_t n = 0;

    TAILQ_FOREACH (j, jobs, link)
        n++;
    return n;
}

/* Those that are with the store are not counted: store_flush waits for these. */
static uint32_t count_unwritten(const struct tier *t)
{
    return count_jobs(&t->queue) + count_jobs(&t->fetching) + count_jobs(&t->waiting);
}

/* Slices of store_flush, so that what is queued follows what was written. */
uint32_t tier_stop(struct tier *t, uint64_t ns)
{
    uint64_t end = clock_ns() + ns, now;

    if (!t->store)
        return 0;
    while ((now = clock_ns()) < end) {
        bool more = tier_pump(t);

        if (count_unwritten(t) == 0) {
            if (store_flush(t->store, end - now))
                break;
        } else if (!more && !TAILQ_EMPTY(&t->fetching)) {
            tier_await_copies(t);
        } else if (!more && TAILQ_EMPTY(&t->writing)) {
            break; /* the store takes no more */
        } else if (!TAILQ_EMPTY(&t->writing)) {
            (void)store_flush(t->store, CLOCK_MS * 20);
        }
    }
    return count_unwritten(t);
}

/* The last ten steps or so: what a token costs grows with the context that it is read behind. */
void tier_measured(struct tier *t, uint32_t n_tokens, uint64_t ns)
{
    double one = (double)ns / n_tokens;

    t->ns_per_token = t->ns_per_token > 0 ? t->ns_per_token * 0.9 + one * 0.1 : one;
}

/* A disk that does not answer gives nothing back: who waits for it would wait for ever. */
uint32_t tier_coming(const struct tier *t)
{
    if (!t || tier_silent(t))
        return 0;
    return tier_write_coming(t) + tier_read_coming(t);
}

/* All 0 where there is no shelf. */
static void host_stats(const struct tier *t, struct tier_stats *ret)
{
    struct shelf_stats x;

    if (!t->shelf)
        return;
    shelf_stats(t->shelf, &x);
    ret->host_bytes = x.bytes;
    ret->host_limit = x.limit;
    ret->host_records = x.records;
    ret->host_evicted = x.evicted;
    ret->host_pinned = t->pinned;
}

void tier_stats(const struct tier *t, struct tier_stats *ret)
{
    const struct tier_user *u;

    *ret = t->stats;
    TAILQ_FOREACH (u, &t->resting, link)
        ret->queued++;
    ret->ns_per_token = (uint64_t)t->ns_per_token;
    ret->read_bytes_s = t->store ? (uint64_t)tier_read_speed(t) : 0;
    ret->pages_queued = t->queued.used;
    ret->pages_busy = t->busy.used;
    ret->queued += count_jobs(&t->queue);
    ret->writing = count_jobs(&t->fetching) + count_jobs(&t->waiting) + count_jobs(&t->writing);
    host_stats(t, ret);
}

void tier_forget(struct tier *t, uint32_t owner)
{
    uint64_t records, bytes;

    if (t->shelf)
        shelf_forget(t->shelf, owner, &records, &bytes);
}
