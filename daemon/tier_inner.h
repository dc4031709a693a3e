/* daemon/tier_inner.h - what the files of the tier share: its queue, its host memory.
 *
 * A record on its way to the disk is a job. Jobs are made at start, as many as there may be; the
 * pages of one are pinned by one of two accounts, which says whether they can be had back.
 *
 *     FREE ----add_job-----> QUEUED --start--> WRITING -------------> FREE     pool in host memory
 *                             |  |                                     ^
 *                             |  +--> FETCHING --> WAITING --> WRITING +       pool in a device's:
 *                             |       (tickets)    its pages are in slots of the shelf, the pool's
 *                             |                    are free; without a store it ends there
 *                             +-----------reclaim, no more queued ---> FREE
 *
 * Threads    the scheduler's.
 */
#ifndef DAEMON_TIER_INNER_H
#define DAEMON_TIER_INNER_H

#include "daemon/memory.h"
#include "daemon/shelf.h"
#include "daemon/tier_part.h"
#include "store/sum.h"

#define TIER_JOBS      512u
#define TIER_PAGES_MAX (SEQ_SEGMENT_MAX / POOL_PAGE_TOKENS)

enum tier_job_state {
    TIER_JOB_FREE,
    TIER_JOB_QUEUED,
    TIER_JOB_FETCHING,
    TIER_JOB_WAITING,
    TIER_JOB_WRITING
};

struct tier_job {
    TAILQ_ENTRY(tier_job) link; /* of the free ones, or of the queue */
    struct tier *tier;
    enum tier_job_state state;
    struct store_record record;
    uint32_t *ids;   /* (STORE_TOKENS_MAX) */
    uint32_t *pages; /* (TIER_PAGES_MAX); WAITING and behind that: none any more */
    uint32_t n_pinned;
    void **mem;      /* (TIER_PAGES_MAX) what the store is given */
    uint64_t ticket; /* FETCHING: the last one */
    uint64_t kept;   /* the shelf's record, pinned while WRITING; 0: mem are slots of its own */
};

TAILQ_HEAD(tier_jobs, tier_job);
TAILQ_HEAD(tier_users, tier_user);

TAILQ_HEAD(tier_brings, tier_bring);

struct tier {
    struct store *store; /* NULL: there is none */
    struct pool *pool;
    struct backend *backend;
    const struct model *model;
    uint8_t *host;       /* of the pool's memory; NULL: by the shelf */
    struct shelf *shelf; /* NULL with host */
    struct io *io;       /* that the shelf's memory is registered with; NULL: it is not */
    bool pinned;         /* the device copies from and to it by itself */
    struct why note;
    uint8_t secret[SUM_SECRET_LEN]; /* of hashes without a store */
    uint64_t idle_ns;
    bool always;

    struct pool_account queued; /* a reclaimer's: what can be had back at once */
    struct pool_account busy;   /* what the disk or a ticket has */
    struct pool_reclaimer reclaimer;

    struct tier_job jobs[TIER_JOBS];
    uint32_t *job_ids, *job_pages;
    void **job_mem;
    struct tier_jobs free, queue, fetching, waiting, writing;
    uint64_t
        busy_bytes; /* of jobs that are FETCHING or WRITING, or WAITING in slots of their own */
    uint32_t n_fetching; /* jobs and parts of restores with tickets */

    struct tier_users resting;
    struct tier_lines dropped; /* given up, and the disk is not done with them */
    struct tier_brings early;  /* that nobody waits for */

    double ns_per_token; /* moving average; 0: not measured */
    struct tier_stats stats;
};

/* tier_write.c */
int tier_write_open(struct tier *t);
void tier_write_close(struct tier *t);
bool tier_write_pump(struct tier *t);
/* The end of the sequence, and what of it did not fit into the queue. */
void tier_write_end(struct tier_user *u);
/* Full segments and compressed ones that were not looked at yet: to the queue. */
void tier_note_segments(struct tier_user *u);
bool tier_queue_full(const struct tier *t);
uint32_t tier_write_coming(const struct tier *t);

/* tier_bring.c: those that were left to it. True: some are done. */
bool tier_bring_pump(struct tier *t);

/* tier_read.c */
double tier_read_speed(const struct tier *t); /* bytes a second */

/* tier.c: until the device rings, for a moment. */
void tier_await_copies(const struct tier *t);

/* tier_scope.c: the digest of all that the meaning of a record depends on. */
void tier_scope(const struct tier *t, const struct policy *p, uint8_t ret[STORE_SCOPE_LEN]);

/* tier_host.c: the shelf of a pool that the host can't touch, as `bytes` says (0: it keeps
 * nothing). -ENOMEM. */
int tier_host_open(struct tier *t, uint64_t bytes);
void tier_host_close(struct tier *t);
/* store_hash, or one that is as good where there is no store. */
struct store_hash tier_hash(const struct tier *t, struct store_hash before, const uint32_t *ids,
                            uint32_t n);

static inline bool tier_silent(const struct tier *t)
{
    return t->store && store_silent(t->store);
}

static inline void *tier_page(const struct tier *t, uint32_t page)
{
    return t->pool->mem + (size_t)page * t->pool->page_bytes;
}

#endif
