/* daemon/hydrate.h - compressed segments that come back as they were read, for a prompt.
 *
 * Before a prompt is read the compressed segments are ranked for it (daemon/rank.h), and raw keys
 * of the best ones take the place of their gists: from the tree of beginnings (the session's own,
 * too: daemon/own.h), else from the store, else they are computed again (daemon/again.h), a few of
 * them. So they stay while the answer is written, and go when the next prompt comes. The gists'
 * pages are kept meanwhile, in the session's account: to go back takes nothing and can't fail.
 *
 *     hydrate_begin --> hydrate_go (-EAGAIN ..) --> 0 --> the prompt is read, answers are written
 *                         ^     |                         --> hydrate_end
 *                         |     v
 *                       runs of the model (memory_behind), or the disk
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
 * A segment with the question of the running turn (memory_turn) is packed at its check like any
 * other one, and hydrated at once: to the ladder it makes no difference, and the model goes on
 * seeing what it was asked.
 *
 * What a prompt is likely to point to may be read from the disk while it still arrives, or before
 * it is known to be one (hydrate_fetch): it is kept as the session's own then (daemon/own.h).
 *
 * A long answer may come to what its question did not say, a list to its next entry: so while it is
 * written its own words are ranked, too, now and then (hydrate_more).
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

struct again;
struct memory;
struct wire_usage;

enum hydrate_source {
    HYDRATE_NOWHERE,
    HYDRATE_MEMORY,
    HYDRATE_DISK,
    HYDRATE_AGAIN,
    HYDRATE_TURN /* it was never away: the running turn's */
};

struct hydrated {
    uint32_t segment, rung; /* rung: that its gists stand on */
    uint32_t n_keys;        /* gists */
    uint32_t *pages; /* of them; NULL: the segment has them again, and lags behind its rung */
    uint32_t place;  /* 0: the prompt points to it most */
    enum hydrate_source from;
};

struct hydration {
    uint32_t n;
    struct hydrated held[OVERLAY_MAX];
    uint32_t n_read;     /* tokens of the sequence when it began */
    uint32_t missed;     /* tokens of segments that the prompt points to, and that did not come */
    bool coming;         /* a job is at work: ids that are to be read again wait for it */
    struct again *again; /* a job's, whose next runs the memory plans; NULL: none */
    uint32_t again_segment;   /* that it computes */
    struct tier_bring *early; /* on its way for a prompt that is still to come; NULL: nothing is */
};

struct hydrate_job;
struct rank_job;

/* Ids of a slice, of the two looks that they get: two to three milliseconds. There is one slice a
 * step: shorter ones would have a prompt behind a million ids wait for dozens of steps. */
#define HYDRATE_SLICE_IDS 262144u

/* Ranks what is packed now for a prompt, in slices: hydrate_rank_go until it is true; then
 * rank_drop. A text of a million ids takes 20 ms, and those who wait for the next step are not to
 * wait for that (daemon/ranking.h). NULL: there is nothing to rank, or no memory; who has none
 * ranks in one go. Only as long as the memory is there, whatever becomes of it otherwise. */
struct rank_job *hydrate_rank_begin(const struct memory *m, const uint32_t *prompt,
                                    uint32_t n_prompt);
bool hydrate_rank_go(struct rank_job *j);
/* It is of just what is packed now. */
bool hydrate_is_ranked(const struct memory *m, const struct rank_job *by);

/* The memory is not behind, or only with ids that were taken back (memory_reread), and is about to
 * read these and n_left more; the last n_prompt of all are a prompt. by: a ranking of that, which
 * is done; without one, or where more or less is packed by now, it ranks here. NULL: it is done,
 * whatever came of it. */
struct hydrate_job *hydrate_begin(struct memory *m, const uint32_t *prompt, uint32_t n_prompt,
                                  uint32_t n_left, const struct rank_job *by);
/* While an answer is written, every HYDRATE_EVERY tokens of it: the last n ids of it point to
 * segments that are not there, more than to any that is. What memory and disk have of them comes,
 * in the place of what they point to less; nothing is computed again. by, NULL: as above. */
#define HYDRATE_EVERY 32u
struct hydrate_job *hydrate_more(struct memory *m, uint32_t n, const struct rank_job *by);
/* The same with segments that somebody chose, n <= OVERLAY_MAX of them, the most wanted first. */
struct hydrate_job *hydrate_bring(struct memory *m, const uint32_t *segments, uint32_t n);
/* -EAGAIN: call again after tier_pump, or when the memory is not behind any more. 0: it is done and
 * gone. */
int hydrate_go(struct hydrate_job *j);
/* Given up: what came is in place. NULL: nothing. */
void hydrate_drop(struct hydrate_job *j);

/* Ids that were ranked for, of a prompt that is not whole yet, or not known to be one, are likely
 * to be asked about: what they point to, and only the disk has, is read meanwhile. It is in
 * nobody's way: its pages count as nobody's when they are there, and what is not there yet when
 * pages are short is given up. Asked again, it stays on its way unless something is pointed to that
 * is not in it. by: done; NULL, or where more or less is packed by now: nothing. */
void hydrate_fetch(struct memory *m, const struct rank_job *by);
bool hydrate_may_fetch(const struct memory *m);
void hydrate_fetch_drop(struct memory *m);
/* The sequence was taken back, and the ladder with it. */
void hydrate_fetch_cut(struct memory *m);

/* A prompt may bring something back; and so may an answer that is being written. */
bool hydrate_can(const struct memory *m);
bool hydrate_can_more(const struct memory *m);
/* There are hydrated segments. */
bool hydrate_is_on(const struct memory *m);
/* All segments are what the ladder says, but for those that lag. */
void hydrate_end(struct memory *m);
/* The one that is wanted least goes back; those of the running turn last. False: there is none. */
bool hydrate_less(struct memory *m);
/* The sequence is taken back to n tokens: what is not all of it before them is no segment then. */
void hydrate_cut(struct memory *m, uint32_t n);
/* Some lag: tries again to thin them. */
void hydrate_settle(struct memory *m);

/* dst, of a fork of m's sequence, has the same. -ENOMEM; -ENOSPC: the account. */
int hydrate_fork(const struct memory *m, struct memory *dst);

/* Raw pages of a segment of the running turn, which is about to be packed, n_keys of it: held
 * beside the segment's own. NULL: there is no room for both. */
uint32_t *hydrate_hold(struct memory *m, uint32_t segment, uint32_t n_keys);
/* Takes them: in place of the gists, if it is packed now. */
void hydrate_stay(struct memory *m, uint32_t segment, uint32_t *pages, bool packed);

void hydrate_account(const struct memory *m, struct wire_usage *u);

#endif
