/* daemon/hydrate.h - compressed segments that come back as they were read, for a prompt.
 *
 * Before a prompt is read the compressed segments are ranked for it (daemon/rank.h), and raw keys
 * of the best ones take the place of their gists, from the tree of beginnings or from the store. So
 * they stay while the answer is written, and go when the next prompt comes. The gists' pages are
 * kept meanwhile, in the session's account: to go back takes nothing and can't fail.
 *
 *     hydrate_begin --> hydrate_go (-EAGAIN ..) --> 0 --> the prompt is read, answers are written
 *                                                          --> hydrate_end
 *
 *     segment   packed --stand_in--> raw, in the overlay, its gists held --hydrate_end--> packed
 *
 * How many: as the policy says, or as many as fit. The policy keeps a part of the budget for them
 * (policy_spare); what the ladder leaves beside that may be used, too, but a segment of the text
 * always fits behind them. Pages are taken as anybody's; who finds none goes on without.
 *
 * While segments are hydrated the ladder climbs without them (daemon/overlay.h): when they go their
 * gists are thinned to where they should be. For want of pages that may have to wait; until then
 * the segment stays in the overlay, packed, and counts as if it were raw.
 *
 * What is read behind hydrated segments is no function of ids: memory's n_plain says where that
 * begins. A rewind to before the prompt ends hydration, and is as if it had never been.
 *
 * Not in sessions of several documents, whose segments' places in the store are not known here, nor
 * with gists among the tokens: what the prompt points to is missed there.
 *
 * Threads    the scheduler's, between steps.
 * Ownership  a job is its request's until hydrate_go is 0 or it is dropped.
 * Errors     none: a segment that can't come back is counted as missed.
 */
#ifndef DAEMON_HYDRATE_H
#define DAEMON_HYDRATE_H

#include "daemon/overlay.h"

struct memory;
struct wire_usage;

struct hydrated {
    uint32_t segment, rung; /* rung: that its gists stand on */
    uint32_t n_keys;        /* gists */
    uint32_t *pages; /* of them; NULL: the segment has them again, and lags behind its rung */
    bool from_disk;
};

struct hydration {
    uint32_t n;
    struct hydrated held[OVERLAY_MAX];
    uint32_t n_read; /* tokens of the sequence when it began */
    uint32_t missed; /* tokens of segments that the prompt points to, and that did not come */
};

struct hydrate_job;

/* The memory is not behind, and is about to read n_left ids of which the last n_prompt are a
 * prompt. NULL: it is done, whatever came of it. */
struct hydrate_job *hydrate_begin(struct memory *m, const uint32_t *prompt, uint32_t n_prompt,
                                  uint32_t n_left);
/* The same with segments that somebody chose, ascending, n <= OVERLAY_MAX of them. */
struct hydrate_job *hydrate_bring(struct memory *m, const uint32_t *segments, uint32_t n);
/* -EAGAIN: call again after tier_pump. 0: it is done and gone. */
int hydrate_go(struct hydrate_job *j);
/* Given up: what came is in place. NULL: nothing. */
void hydrate_drop(struct hydrate_job *j);

/* There are hydrated segments. */
bool hydrate_is_on(const struct memory *m);
/* All segments are what the ladder says, but for those that lag. */
void hydrate_end(struct memory *m);
/* Some lag: tries again to thin them. */
void hydrate_settle(struct memory *m);

/* dst, of a fork of m's sequence, has the same. -ENOMEM; -ENOSPC: the account. */
int hydrate_fork(const struct memory *m, struct memory *dst);

void hydrate_account(const struct memory *m, struct wire_usage *u);

#endif
