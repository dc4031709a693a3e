/* The store's jobs, and the calls that touch no file of their own. What a job does stands with it
 * (put.c, get.c, names.c); here is what they have in common: they are stepped by every store_pump,
 * end by job_end, and are called back at the end of that pump. */
#include "store/inside.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define PATIENCE (30 * CLOCK_S) /* with a disk */

/* --- jobs ------------------------------------------------------------------------------------- */

/* The caller has filled all of j but its links. The first step may already end it (nothing to do,
 * no room); its callback comes from the next store_pump all the same. */
void job_start(struct store *s, struct job *j)
{
    TAILQ_INSERT_TAIL(&s->jobs, j, next);
    s->n_jobs++;
    j->step(j);
    (void)ops_submit(&s->ops);
}

/* Sets `more`, since nothing else may ring: a job can end without an operation that comes back. */
void job_end(struct job *j, int result)
{
    struct store *s = j->s;

    assert(j->n_out == 0);
    j->result = result;
    TAILQ_REMOVE(&s->jobs, j, next);
    TAILQ_INSERT_TAIL(&s->done, j, next);
    s->more = true;
}

/* A page larger than what is left is hashed whole: a pump may go over its share by one page, but
 * never finds none small enough. */
bool job_may_hash(struct store *s, size_t len)
{
    if (s->hash_left == 0) {
        s->more = true;
        return false;
    }
    s->hash_left = len < s->hash_left ? s->hash_left - len : 0;
    return true;
}

/* n_puts counts what store_flush waits for: puts and names. */
static void job_free(struct store *s, struct job *j)
{
    s->n_jobs--;
    s->n_puts -= j->kind != JOB_GET;
    j->drop(j);
}

/* The job is gone before its owner hears of it, who may start others. Callbacks may cancel other
 * jobs whose turn in this list comes later (store_cancel looks into s->calling), so the list is
 * read from its head each time. What they start goes to s->jobs, and what ends at once to s->done:
 * for the next pump. */
static uint32_t call_back(struct store *s)
{
    struct jobs done = TAILQ_HEAD_INITIALIZER(done);
    struct job *j;
    uint32_t n = 0;

    TAILQ_CONCAT(&done, &s->done, next);
    s->calling = &done;
    while ((j = TAILQ_FIRST(&done))) {
        store_done_fn *fn = j->done;
        void *arg = j->arg;
        int result = j->result;

        TAILQ_REMOVE(&done, j, next);
        job_free(s, j);
        fn(arg, result);
        n++;
    }
    s->calling = NULL;
    return n;
}

/* Something that was asked of the disk is out for longer than any disk takes. What waits for it
 * can't end: its memory may still be written to. Called by whoever is about to wait or to start
 * something. A late answer ends the silence by itself, since the oldest operation is then another
 * one. */
static void look_at_disk(struct store *s)
{
    uint64_t oldest = ops_oldest_ns(&s->ops);
    bool silent = oldest != UINT64_MAX && when_ns() >= oldest + PATIENCE;

    s->more |= silent != s->health.silent; /* people are told */
    s->health.silent = silent;
    s->health.silent_since_ns = oldest;
}

bool store_silent(const struct store *s)
{
    return s->health.silent;
}

/* A silent disk needs no timer: what ends the silence is a completion, and that rings. */
int store_timeout_ms(const struct store *s)
{
    uint64_t oldest = ops_oldest_ns(&s->ops);

    if (oldest == UINT64_MAX || s->health.silent)
        return -1;
    return clock_until_ms(oldest + PATIENCE, when_ns());
}

/* The order matters. Completions come first, so that steps see them. Then every job may go on, then
 * deletions and dates with the operations that jobs left over, and warming last, which wants an
 * idle disk. One submit hands all of it over. Callbacks come at the end: they may call anything of
 * the store but what pumps it. */
bool store_pump(struct store *s)
{
    uint32_t n = ops_reap(&s->ops);
    struct job *j, *next;

    s->more = false;
    look_at_disk(s);
    s->hash_left = STORE_HASH_STEP;
    for (j = TAILQ_FIRST(&s->jobs); j; j = next) {
        next = TAILQ_NEXT(j, next); /* a step may move j to s->done */
        j->step(j);
    }
    limits_step(s);
    warm_step(s);
    if (!ops_submit(&s->ops))
        s->more = true;
    n += call_back(s);
    return n > 0 || s->more;
}

/* --- open and close --------------------------------------------------------------------------- */

/* On failure the caller closes the half-built store. index.secret tells store_close how far this
 * came. */
static int open_all(struct store *s, const char *path, struct why *why)
{
    int err = folders_open(&s->folders, path, &s->ops, s->note, sizeof(s->note), why);

    if (err < 0)
        return err;
    err = index_open(&s->index, s->folders.secret);
    if (err == 0)
        err = scan_all(s);
    if (err < 0)
        return why_set(why, err, "%s can't be read: %s", path, strerror(-err));
    /* After the scan: records that were found count as written on their dates. A limit that was
     * lowered meanwhile is met by the first step. */
    limits_open(s);
    limits_step(s);
    (void)ops_submit(&s->ops);
    return 0;
}

int store_open(const char *path, struct io *io, const struct store_limits *limits,
               struct store **ret, struct why *why)
{
    struct store *s = calloc(1, sizeof(*s));
    int err;

    if (!s)
        return why_set(why, -ENOMEM, "no memory");
    s->limits = *limits;
    s->budget_fd = -1;
    TAILQ_INIT(&s->jobs);
    TAILQ_INIT(&s->done);
    TAILQ_INIT(&s->dying);
    ops_open(&s->ops, io);
    s->folders = (struct folders){ .base_fd = -1, .lock_fd = -1, .root_fd = -1 };
    err = open_all(s, path, why);
    if (err < 0) {
        (void)store_close(s);
        return err;
    }
    *ret = s;
    return 0;
}

const char *store_note(const struct store *s)
{
    return s->note;
}

void store_set_limit(struct store *s, uint64_t bytes)
{
    s->limits.bytes = bytes;
}

void store_set_shared(struct store *s)
{
    s->limits.shared = true;
}

/* False: the disk does not answer. Waits at most as long as the disk still has to answer. */
static bool wait_for_disk(struct store *s)
{
    struct pollfd fd = { .fd = io_eventfd(s->ops.io), .events = POLLIN };

    look_at_disk(s);
    if (s->health.silent)
        return false;
    /* Not when something was refused: ops_reap tells of it at once, and nothing would ring. */
    if (ops_submit(&s->ops) && s->ops.n_refused == 0 && s->ops.n_out > 0)
        (void)poll(&fd, 1, store_timeout_ms(s));
    (void)ops_reap(&s->ops);
    return true;
}

/* Pumps and waits until nothing is under way, or what is deleted can't be. False: the disk does not
 * answer. Gets are cancelled, for nobody will use their pages; puts and names go on to their end.
 * Then come the dates of records and the budget, which may need several rounds where the io is not
 * deep enough for all of them. */
static bool finish(struct store *s)
{
    struct job *j;

    /* As by store_cancel: they end as soon as nothing of them is out. */
    TAILQ_FOREACH (j, &s->jobs, next)
        j->cancelled = j->cancelled || j->kind == JOB_GET;
    s->closing = true;
    while (s->n_jobs > 0 || s->ops.n_out > 0 || limits_deletes(s)) {
        if (!store_pump(s) && !wait_for_disk(s))
            return false;
    }
    while (!limits_finish(s) || s->ops.n_out > 0) {
        if (!wait_for_disk(s))
            return false;
    }
    return true;
}

/* index.secret is set by index_open, behind folders_open: before that nothing can be under way.
 * With a silent disk nothing is freed, since the kernel may still write to a job's memory. */
bool store_close(struct store *s)
{
    struct entry *e;

    if (!s)
        return true;
    if (s->index.secret && !finish(s))
        return false;
    /* What could not be deleted stays on the disk. The next start finds it as a record. */
    while ((e = TAILQ_FIRST(&s->dying))) {
        TAILQ_REMOVE(&s->dying, e, lru);
        index_free(e);
    }
    warm_close(s);
    names_close(s);
    limits_close(s);
    index_close(&s->index);
    shares_fini(&s->shares);
    folders_close(&s->folders);
    free(s);
    return true;
}

/* Doesn't give up early when the disk falls silent: the caller has said how long it is willing to
 * wait. */
bool store_flush(struct store *s, uint64_t ns)
{
    uint64_t until = when_ns() + ns;

    while (s->n_puts > 0) {
        struct pollfd fd = { .fd = io_eventfd(s->ops.io), .events = POLLIN };
        uint64_t now;

        if (store_pump(s))
            continue;
        now = when_ns();
        if (now >= until)
            return false;
        (void)poll(&fd, 1, (int)((until - now) / CLOCK_MS + 1));
    }
    return true;
}

/* False when it is not there, or is not under way any more. arg is how the caller names its job. */
static bool drop_done(struct store *s, struct jobs *list, void *arg)
{
    struct job *j;

    if (!list)
        return false;
    TAILQ_FOREACH (j, list, next) {
        if (j->arg == arg) {
            TAILQ_REMOVE(list, j, next);
            job_free(s, j);
            return true;
        }
    }
    return false;
}

/* A job is in one of three lists: called back now or next (done, calling), or still going (jobs).
 * In the first two it is only taken out. */
bool store_cancel(struct store *s, void *arg)
{
    struct job *j;

    if (drop_done(s, &s->done, arg) || drop_done(s, s->calling, arg))
        return false;
    TAILQ_FOREACH (j, &s->jobs, next) {
        if (j->arg != arg)
            continue;
        /* A put may have a file to take away, so it ends by its own steps; a get has nothing. */
        if (j->kind == JOB_GET && j->n_out == 0) {
            TAILQ_REMOVE(&s->jobs, j, next);
            job_free(s, j);
            return false;
        }
        j->cancelled = true;
        return true;
    }
    return false;
}

/* --- asking ----------------------------------------------------------------------------------- */

struct store_hash store_hash(const struct store *s, struct store_hash before, const uint32_t *ids,
                             uint32_t n)
{
    return record_hash(s->index.secret, before, ids, n);
}

/* The id is no promise: the record may be evicted before store_get is called with it. */
bool store_find(struct store *s, const struct store_key *key, const uint32_t *ids, uint32_t n,
                struct store_found *ret)
{
    uint32_t got = 0;
    struct entry *e = s->health.silent ? NULL : index_find(&s->index, key, ids, n, &got);
    bool part;

    if (!e) {
        s->counts.misses++;
        return false;
    }
    s->counts.hits++;
    part = got < e->r.n_tokens; /* raw, and whole pages of it: index_find */
    *ret = (struct store_found){ .id = e->id,
                                 .n_tokens = got,
                                 .n_keys = part ? got : e->r.n_keys,
                                 .n_pages = part ? got / STORE_PAGE_TOKENS : e->r.n_pages,
                                 .page_bytes = e->r.page_bytes,
                                 .cost_ns = e->r.cost_ns };
    return true;
}

bool store_has(struct store *s, const struct store_key *key, const uint32_t *ids, uint32_t n)
{
    uint32_t got = 0;

    return !s->health.silent && index_find(&s->index, key, ids, n, &got) && got == n;
}

/* The last id that was looked at is handed back, and the next call starts behind it: a store with
 * many records of others does not hold up everybody's step. */
bool store_next(struct store *s, uint32_t owner, struct store_item *it)
{
    struct entry *e = index_next(&s->index, it->id);
    uint32_t depth;

    for (uint32_t i = 0; e && e->r.key.owner != owner; i++) {
        if (i == STORE_NEXT_LOOKS) {
            it->id = e->id;
            return false;
        }
        e = index_next(&s->index, e->id);
    }
    if (!e)
        return false;
    depth = index_depth(e);
    *it = (struct store_item){ .id = e->id,
                               .bytes = record_len(&e->r),
                               .cost_ns = e->r.cost_ns,
                               .used_s = e->used_s,
                               .owner = owner,
                               .n_tokens = e->r.n_tokens,
                               .n_keys = e->r.n_keys,
                               .depth = depth == UINT32_MAX ? 0 : depth,
                               .kind = e->r.key.kind };
    return true;
}

bool store_delete(struct store *s, uint64_t id, uint64_t *ret_bytes)
{
    struct entry *e = index_by_id(&s->index, id);

    if (!e)
        return false;
    *ret_bytes = record_len(&e->r);
    limits_delete(s, e);
    return true;
}

uint64_t store_bytes_of(const struct store *s, uint32_t owner, uint64_t *ret_most)
{
    *ret_most = limits_of_owner(s);
    return shares_of(&s->shares, owner);
}

/* Copies, because summing moves the budget's hours on and health.spent is only computed for this
 * answer. */
void store_stats(const struct store *s, struct store_stats *ret)
{
    struct budget budget = s->budget;
    struct health health = s->health;

    health.spent = limits_is_spent(s);
    *ret = s->counts;
    ret->bytes = s->bytes;
    ret->limit = s->limits.bytes;
    ret->records = s->index.n;
    ret->written_today = budget_sum(&budget, when_s());
    ret->write_a_day = s->limits.write_a_day;
    health_say(&health, s->folders.path, when_ns(), ret->degraded, sizeof(ret->degraded));
}
