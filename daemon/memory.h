/* daemon/memory.h - what is kept of a sequence's older context, by its policy.
 *
 * When keep_tail tokens stand behind a segment's end a check is due (daemon/ladder.h): segments are
 * compressed or thinned before more is read. Some compressors want runs of the model first, over
 * the segment's tokens or for its gists (engine/kv/compress.h). And a sequence that was rewound
 * into a compressed segment stands at that segment's start: what it should have behind that is read
 * once more.
 *
 *     ids          [0 ...................................... n_ids)     what the session holds
 *     in the seq   [ gists | gists | raw ........... n_tokens)           the rest is read again
 *
 * The scheduler asks before each step, for every request that runs: memory_settle compresses what
 * needs no run; memory_behind says whether a run is wanted first, memory_plan which, memory_ran
 * that it is done. Runs of the request's own are shown to memory_watch.
 *
 * Threads    the scheduler's, between steps.
 * Ownership  borrows seq and served, owns the rest.
 */
#ifndef DAEMON_MEMORY_H
#define DAEMON_MEMORY_H

#include "daemon/away.h"
#include "daemon/hydrate.h"
#include "daemon/ladder.h"
#include "daemon/overlay.h"
#include "daemon/own.h"
#include "daemon/prefix.h"
#include "daemon/served.h"
#include "daemon/tier.h"
#include "engine/kv/asked.h"
#include "ipc/wire.h"

struct memory {
    struct policy policy;
    struct seq *seq;
    const struct served *served;
    uint32_t n_ids;
    struct ladder ladder;
    struct overlay overlay; /* segments that are raw although the ladder has them compressed */
    bool early; /* rewound past a compression: more compressed than a fresh sequence of this length
                 */

    /* Ids that were read one behind the other, and up to where those stand that were read elsewhere
     * (memory_adopt_behind); both 0: there are none such. */
    uint32_t n_exact, n_behind;

    uint32_t hydrate;           /* as the policy, or what a session with documents says instead */
    struct hydration hydration; /* of the last prompt */
    uint32_t n_plain; /* where reading behind hydrated segments began; UINT32_MAX: nowhere */
    struct {
        uint32_t from, to;
    } turn; /* ids that ask, and are to be seen until they are answered; to 0: none */

    struct prefix_user shared; /* what it takes over from other sequences, and gives them */
    struct tier_user kept;     /* what of it is on a disk, and comes back from there */
    struct own own;            /* what nobody else may find */
    struct away away;          /* where its pages are */

    struct asked asked;        /* what was kept of the segment that is read, for its compressor */
    struct compress_side side; /* what the next segment's compressor has made until now */
    int settled; /* what became of the last step of a check that needed no more runs */
};

int memory_init(struct memory *m, const struct policy *p, const struct served *b,
                struct seq *seq); /* -ENOMEM */
/* From now on what is read may be of use to other sessions of this owner, and the other way.
 * keeps_nothing: only the other way, and nothing of it outlives the session. */
void memory_share(struct memory *m, struct prefix *prefix, uint32_t owner, bool keeps_nothing);
/* Behind memory_share: the owner and keeps_nothing are the same. tier NULL: nothing is on a disk.
 */
void memory_keep(struct memory *m, struct tier *tier);
/* An empty one takes over the longest beginning of ids that is known: its length, less than n. */
uint32_t memory_adopt(struct memory *m, const uint32_t *ids, uint32_t n);
/* How many of ids an empty one would not have to compute now. */
uint32_t memory_known(struct memory *m, const uint32_t *ids, uint32_t n);
/* Whether sequences of this policy can stand one behind the other. */
bool memory_joins(const struct policy *p);
/* It goes on with all of another one of the same policy, a document that was read alone: raw
 * segments and compressed ones as they are. Approximate, since keys were computed without what
 * stands before them now; nobody learns from such a sequence, which has SEQ_FILLER among its ids.
 * -ENOTSUP: one of the two is thinned, both are too much for the budget, or too many are together;
 * -E2BIG: past max_tokens; -ENOSPC: the account. */
int memory_adopt_behind(struct memory *m, const struct memory *from);
/* There is nothing of the kind in it: it is a function of its ids, which have no holes. */
bool memory_exact(const struct memory *m);
/* How many of its ids are SEQ_FILLER; and where the first n others end, up to all of them and one
 * more. */
uint32_t memory_filler(const struct memory *m);
uint32_t memory_place(const struct memory *m, uint32_t n);
/* Ids that it has, also while its pages come back. */
uint32_t memory_len(const struct memory *m);
/* It holds what a fresh sequence of its ids would. */
bool memory_is_ids(const struct memory *m);
/* What it reads next is learned by others: it holds what a fresh sequence of its ids would, and
 * nothing that is thinned. */
bool memory_teaches(const struct memory *m);
/* The same of what is to be found on the disk, where also what is thinned is of use. */
bool memory_lasts(const struct memory *m);
/* dst, of a sequence that was forked from ours, goes on as we would. -ENOMEM; -ENOSPC: the account.
 */
int memory_fork(const struct memory *m, struct memory *dst, struct seq *seq);
void memory_fini(struct memory *m);

/* Takes the sequence back to its first n ids. What was compressed before them stays compressed. */
void memory_rewind(struct memory *m, uint32_t n);

/* Ids [from, to), which are there or come next, are what the running turn asks; to 0: nothing is
 * known to. An automatic memory keeps them raw while there is room, whatever its tail is, until the
 * next call. */
void memory_turn(struct memory *m, uint32_t from, uint32_t to);

/* The same, and the n ids behind that are read again. */
void memory_reread(struct memory *m, uint32_t n);

/* For daemon/tier_read.c: back to nothing; and what was adopted behind our back, which is what a
 * sequence with this ladder holds. */
void memory_empty(struct memory *m);
/* None of its ids is in the sequence: those that host memory has are, at once. The others are read
 * again as ever. */
void memory_bring_back(struct memory *m);
void memory_restored(struct memory *m, const struct ladder *l);

/* An automatic policy's budget is made smaller, which counts from the next check on. False: there
 * is no smaller one. */
bool memory_lower(struct memory *m);

/* Older segments are thinned further than the budget asks for, and stay so. False: none can. */
bool memory_thin(struct memory *m);

/* Before a step. What takes long is done in parts, at least one if *end_ns is 0, which it sets to
 * the time (base/clock.h) that is MEMORY_SETTLE_NS later: the callers' next memories have what is
 * left of that. NULL: all of it at once. */
#define MEMORY_SETTLE_NS (5u * 1000u * 1000u)
void memory_settle(struct memory *m, uint64_t *end_ns);
bool memory_behind(const struct memory *m);
/* Why a sequence can't go on, or not yet. */
enum memory_cause {
    MEMORY_BUDGET, /* its policy's budget has no room for another key */
    MEMORY_CLIENT, /* its client may hold no more pages */
    MEMORY_POOL,   /* there are no more pages */
    MEMORY_WAITING /* others are being compressed, or written to a disk, and will be done */
};

struct memory_need {
    enum memory_cause cause;
    uint64_t wanted, had; /* BUDGET: keys held and one more, and the budget; CLIENT, POOL: pages
                           * wanted, and those that can be had */
};

/* The run that it is behind with, of at most max tokens. -ENOSPC: it can't go on; -EAGAIN: not in
 * this step. need says why. */
int memory_plan(struct memory *m, uint32_t max, struct forward_run *ret,
                struct memory_need *ret_need);
/* A run that reads, and was not planned by memory_plan, is to be in a step: it may leave something
 * that compressing will want. */
void memory_watch(struct memory *m, struct forward_run *run);
/* It has some of what segments are compressed with, or is the next to get it: others wait for it.
 */
bool memory_in_line(const struct memory *m);
/* After a step with a run of this sequence, planned here or elsewhere. What it holds more now is
 * shared. */
void memory_ran(struct memory *m, const struct forward_run *run);

/* Nobody works on the session for now: what was made of its next segment is given up, so that an
 * idle one keeps nothing from others. */
void memory_rest(struct memory *m);

/* Tokens that may be read until something is due or the budget is used up. */
uint32_t memory_room(const struct memory *m);

/* What n more ids lead to at most on the way: keys, to be compared with the budget, and pages.
 * Hydrated segments are counted as if they stayed so. */
void memory_peak(const struct memory *m, uint64_t n, uint64_t *ret_keys, uint64_t *ret_pages);

/* No token fits the budget behind n_more ids, when everything that is due is done. */
bool memory_full(const struct memory *m, uint32_t n_more);
/* So many ids may come behind those until it is full, at most max: the first for which memory_full
 * is true. What is hydrated counts, though it may go. */
uint32_t memory_left(const struct memory *m, uint32_t n_more, uint32_t max);

/* Tokens that stand compressed, and the gists that stand for them. Not a walk over all segments. */
void memory_gists(const struct memory *m, uint32_t *ret_tokens, uint32_t *ret_gists);

/* Pages of compressed segments. */
uint32_t memory_gist_pages(const struct memory *m);

/* How the ids that are there were kept. prompt_tokens, in u as the number of ids, is without
 * SEQ_FILLER then; approximate_tokens are those of memory_adopt_behind; raw_tokens (with those of
 * compressed segments that stay raw), gist_tokens, gists; what is hydrated, and missed. */
void memory_account(const struct memory *m, struct wire_usage *u);

#endif
