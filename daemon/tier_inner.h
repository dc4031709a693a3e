/* daemon/tier_inner.h - what the files of the tier share: its queue, its staging area.
 *
 * A record on its way to the disk is a job. Jobs are made at start, as many as there may be; the
 * pages of one are pinned by one of two accounts, which says whether they can be had back.
 *
 *     FREE --tier_job_add--> QUEUED --start--> WRITING ---------> FREE       host memory
 *                             | ^                                  ^
 *                             | +--- FETCHING --> WRITING ---------+         by the staging area
 *                             |      (tickets)
 *                             +-----------reclaim, no more queued -> FREE
 *
 * Threads    the scheduler's.
 */
#ifndef DAEMON_TIER_INNER_H
#define DAEMON_TIER_INNER_H

#include "daemon/memory.h"
#include "daemon/tier.h"

#define TIER_JOBS      512u
#define TIER_PAGES_MAX (SEQ_SEGMENT_MAX / POOL_PAGE_TOKENS)

enum tier_job_state { TIER_JOB_FREE, TIER_JOB_QUEUED, TIER_JOB_FETCHING, TIER_JOB_WRITING };

struct tier_job {
    TAILQ_ENTRY(tier_job) link; /* of the free ones, or of the queue */
    struct tier *tier;
    enum tier_job_state state;
    struct store_record record;
    uint32_t *ids;   /* (STORE_TOKENS_MAX) */
    uint32_t *pages; /* (TIER_PAGES_MAX); WRITING from the staging area: none any more */
    uint32_t n_pinned;
    void **mem;      /* (TIER_PAGES_MAX) what the store is given */
    uint64_t ticket; /* FETCHING: the last one */
};

TAILQ_HEAD(tier_jobs, tier_job);
TAILQ_HEAD(tier_users, tier_user);

/* A record on its way back, and a line of them. A part's pages are the account's from when it was
 * asked for; who takes them says so.
 *
 *     PLANNED --ask--> READING --> READ --(PUTTING)--> READY --took--> TAKEN
 *        ^                |          |        |          |
 *        +----------------+----------+--------+----------+ forget
 */
enum tier_part_state {
    TIER_PART_PLANNED,
    TIER_PART_READING,
    TIER_PART_READ,
    TIER_PART_PUTTING,
    TIER_PART_READY,
    TIER_PART_TAKEN
};

struct tier_part {
    struct tier_line *line;
    enum tier_part_state state;
    uint64_t id; /* of its record */
    uint32_t segment, n_tokens, n_keys, n_pages;
    bool packed;
    uint32_t *pages;
    void **mem;       /* that the store reads to: the pool's, or slots of the staging area */
    bool pinned_busy; /* pages are the tier's: the line was dropped */
    int result;
    uint64_t ticket;
};

struct tier_line {
    TAILQ_ENTRY(tier_line) link; /* of those that were dropped */
    struct tier *tier;
    struct pool_account *account;
    struct tier_part *parts; /* (n_parts) */
    uint32_t n_parts;
    uint32_t n_out;  /* that the store will call back for */
    uint32_t window; /* pages that are asked for and not taken */
    bool dropped;
    void (*free)(struct tier_line *l); /* of one that was dropped, when the last read is done */
    uint32_t *pages;                   /* of all parts */
    void **mem;
};

TAILQ_HEAD(tier_lines, tier_line);
TAILQ_HEAD(tier_brings, tier_bring);

/* Room for pages where the host can't touch the pool: equal slots. */
struct tier_stage {
    uint8_t *mem;
    size_t page_bytes;
    uint32_t n_slots, n_free;
    uint32_t *free; /* stack of n_free */
};

struct tier {
    struct store *store;
    struct pool *pool;
    struct backend *backend;
    const struct model *model;
    uint8_t *host; /* of the pool's memory; NULL: by the staging area */
    struct tier_stage stage;
    uint64_t idle_ns;
    bool always, stopping;

    struct pool_account queued; /* a reclaimer's: what can be had back at once */
    struct pool_account busy;   /* what the disk or a ticket has */
    struct pool_reclaimer reclaimer;

    struct tier_job jobs[TIER_JOBS];
    uint32_t *job_ids, *job_pages;
    void **job_mem;
    struct tier_jobs free, queue, fetching, writing;
    uint64_t busy_bytes; /* of jobs that are FETCHING or WRITING */
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

/* tier_part.c: the record that has most of n ids behind `before`, by u's owner and scope. */
bool tier_find(const struct tier_user *u, struct store_hash before, enum store_kind kind,
               const uint32_t *ids, uint32_t n, struct store_found *ret);
/* -ENOMEM. */
int tier_line_take(struct tier_line *l, uint32_t n_parts, uint32_t n_pages);
void tier_line_fini(struct tier_line *l);
/* Gives it up: it is freed now or later. */
void tier_line_drop(struct tier_line *l);
/* -EAGAIN: later, when something came back; -ENOSPC, -ENOENT and the like. */
int tier_part_ask(struct tier_part *p);
/* 0: it is ready, -EAGAIN: not yet; else what became of it. */
int tier_part_look(struct tier_part *p);
/* The pages of a ready one are another one's now. */
void tier_part_took(struct tier_part *p);
/* Its pages are the tier's, and the account's no more. */
void tier_part_to_busy(struct tier_part *p);
/* Nothing of it is wanted any more. False: the store still has its pages. */
bool tier_part_forget(struct tier_part *p);
uint32_t tier_read_coming(const struct tier *t);

/* tier_bring.c: those that were left to it. True: some are done. */
bool tier_bring_pump(struct tier *t);

/* tier_read.c */
double tier_read_speed(const struct tier *t); /* bytes a second */

/* tier_scope.c: the digest of all that the meaning of a record depends on. */
void tier_scope(const struct tier *t, const struct policy *p, uint8_t ret[STORE_SCOPE_LEN]);

/* tier_stage.c: -ENOMEM; n slots for mem, or false. */
int tier_stage_open(struct tier_stage *s, size_t page_bytes, size_t bytes);
void tier_stage_close(struct tier_stage *s);
bool tier_stage_take(struct tier_stage *s, uint32_t n, void **ret_mem);
void tier_stage_give(struct tier_stage *s, uint32_t n, void *const *mem);

static inline void *tier_page(const struct tier *t, uint32_t page)
{
    return t->pool->mem + (size_t)page * t->pool->page_bytes;
}

#endif
