/* daemon/tier_part.h - records on their way back into pages, from host memory or the disk.
 *
 * Threads    the scheduler's.
 * Ownership  a part's pages are its line's account's from when it was asked for, until they are
 *            taken; slots of the shelf and pins there are its own.
 */
#ifndef DAEMON_TIER_PART_H
#define DAEMON_TIER_PART_H

#include "daemon/tier.h"

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
    uint64_t id;  /* of its record */
    bool shelved; /* that is the shelf's, else the store's */
    uint32_t segment, n_tokens, n_keys, n_pages;
    bool packed;
    /* What the pages hold, of which a token less may be wanted: n_ids, while somebody waits. */
    const uint32_t *ids;
    uint32_t n_ids, n_ids_keys;
    struct store_hash before, own;
    uint64_t cost_ns; /* of its record */
    uint32_t *pages;
    void **mem; /* that is read to: the pool's, or slots of the shelf; or the shelf's record */
    bool pinned_busy; /* pages are the tier's: the line was dropped */
    int result;
    uint64_t ticket;
};

struct tier_line {
    TAILQ_ENTRY(tier_line) link; /* of those that were dropped */
    struct tier *tier;
    struct pool_account *account;
    uint32_t owner, seg_len;
    uint8_t scope[STORE_SCOPE_LEN];
    struct tier_part *parts; /* (n_parts) */
    uint32_t n_parts;
    uint32_t n_disk; /* of them: those that the store has */
    uint32_t n_out;  /* that the store will call back for */
    uint32_t window; /* pages that are asked for and not taken */
    bool dropped;
    void (*free)(struct tier_line *l); /* of one that was dropped, when the last read is done */
    uint32_t *pages;                   /* of all parts */
    void **mem;
};

TAILQ_HEAD(tier_lines, tier_line);

/* The record that has most of n ids behind `before`, by u's owner and scope; of two
 * that have as many the one in memory. */
struct tier_found {
    struct store_found is;
    bool shelved;
};
bool tier_find(const struct tier_user *u, struct store_hash before, enum store_kind kind,
               const uint32_t *ids, uint32_t n, struct tier_found *ret);
/* Where it is, and of what. */
void tier_part_is(struct tier_part *p, const struct tier_found *f, struct store_hash before,
                  const uint32_t *ids);
/* One of u's, without parts; fn: free. */
void tier_line_init(struct tier_line *l, const struct tier_user *u,
                    void (*fn)(struct tier_line *l));
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

#endif
