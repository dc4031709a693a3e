/* daemon/tier.h - joins sequences to host memory and the store: what goes there when, and what
 * comes back.
 *
 * Written is what a fresh sequence of the same ids would hold, so that it can be found by them: the
 * raw pages of a segment when it is full, the compressed ones when they were made (rung 1 of the
 * ladder: thinning is done again on the way back), and the pages of the unfinished segment when
 * nothing was read for a while, when the sequence ends, or the daemon.
 *
 *     step --> tier_note --> queue --------> store_put .......> callback
 *              (pins pages)   |  a few MiB a step, pages of the pool are written as they lie
 *                             +-> pages are short: the newest is forgotten
 *
 * Read is what an empty sequence is about to read: first the tree of daemon/prefix.h is asked, then
 * the store goes on, segment by segment, as far as all is there that a sequence so long would hold.
 * All of it is looked up at once, its pages are read in parallel and taken over in order; where one
 * is missing or bad the model reads on from there.
 *
 *     tier_restore_begin --> tier_restore_go (-EAGAIN, -EAGAIN ..) --> 0
 *                               each may be followed by tier_restore_drop
 *
 * Single segments come back for daemon/hydrate.h in the same way: tier_bring_begin, tier_bring_go,
 * and each is there or not. For a prompt that is not there yet they do so by themselves
 * (tier_bring_leave).
 *
 * Pages      Those in the queue are a reclaimer's (engine/kv/pool.h): who wants pages gets them.
 *            Those that the disk is reading or writing are in an account of their own, which is
 *            bounded; who would fail for want of them waits (tier_coming).
 * Host       Where the host can't touch the pool, pages go through host memory (daemon/shelf.h) by
 *            tickets of the backend, and stay there while it has room: a record is found there
 *            before it is looked for in the store, and where there is no store it is there alone.
 *            One that is longer than what is always left for passing through is neither written
 *            nor read.
 *
 * Threads    the scheduler's, between steps.
 * Ownership  owns its queue, host memory and its references to pages; borrows pool, backend, store
 *            and io.
 * Errors     tier_open: -ENOMEM; without a store -EINVAL, host_bytes has no room for two pages.
 *            Nothing else fails: what can't be written is not there later.
 */
#ifndef DAEMON_TIER_H
#define DAEMON_TIER_H

#include "daemon/ladder.h"
#include "engine/kv/seq.h"
#include "store/store.h"

#include <sys/queue.h>

struct memory;
struct model;
struct tier;
struct tier_restore;

/* What a sequence has to do with the store. All zero: nothing. */
struct tier_user {
    struct tier *tier; /* NULL: nothing of it is kept, or comes back */
    struct memory *memory;
    uint32_t owner; /* a uid, or STORE_PUBLIC */
    uint8_t scope[STORE_SCOPE_LEN];
    /* Segments that were put in the queue, or left out, and the hash of the ids before the next. */
    uint32_t n_raw, n_packed;
    struct store_hash raw_before, packed_before;
    uint32_t tail; /* tokens of the sequence when its unfinished segment was written; 0: never */
    bool restoring;
    TAILQ_ENTRY(tier_user) link; /* of those whose end is to be written, by due_ns */
    bool listed;
    uint64_t due_ns;
};

struct tier_options {
    struct store *store; /* NULL: host memory alone */
    struct pool *pool;
    const struct model *model;
    uint64_t idle_ns;
    bool always; /* also what is expected to be computed faster than read */
    /* Of a pool in a device's memory: host memory for what leaves it, all in all. 0: what passes
     * through, 64 MiB or two segments of 512 tokens. */
    uint64_t host_bytes;
    struct io *io; /* the store's, to register that memory with; NULL: there is none */
};

int tier_open(const struct tier_options *o, struct tier **ret);
/* A sentence for the log when host memory is not all that was asked for; else empty. */
const char *tier_host_note(const struct tier *t);
/* The device was opened anew: what it had is gone, what is in host memory is still good. */
void tier_again(struct tier *t);
/* Writes what is in the queue, for at most ns. How many records were not written; without a store
 * there is nothing to be written. */
uint32_t tier_stop(struct tier *t, uint64_t ns);
/* No sequence has to do with it any more, and the store was closed. */
void tier_close(struct tier *t);

/* Once a step. True: something came back or was begun, or will be soon. */
bool tier_pump(struct tier *t);
/* Milliseconds until there is something to do that nobody rings for; -1: never. */
int tier_timeout_ms(const struct tier *t);
/* A step read so many tokens. */
void tier_measured(struct tier *t, uint32_t n_tokens, uint64_t ns);
/* Pages that are free as soon as the disk is done with them, or need no copy then to be written to;
 * t may be NULL. */
uint32_t tier_coming(const struct tier *t);

/* --- of a sequence ---------------------------------------------------------------------------- */

/* The memory is empty. t NULL, or gists among the tokens: nothing is kept. */
void tier_join(struct tier_user *u, struct tier *t, struct memory *m, uint32_t owner);
/* Its policy is another one from now on: what is written is found by that. */
void tier_rescope(struct tier_user *u);
/* dst, of a fork of u's sequence. */
void tier_fork(const struct tier_user *u, struct tier_user *dst, struct memory *m);
/* After a step, and after a segment was compressed. Only of a sequence that holds what a fresh one
 * of its ids would. */
void tier_note(struct tier_user *u);
/* The sequence was taken back. */
void tier_cut(struct tier_user *u);
/* What is read from now on is not to be found by its ids. keeps: what was read until now is, and
 * its end is to be written. */
void tier_hold(struct tier_user *u, bool keeps);
/* The sequence ends, and still has its pages. keeps: its end is to be written. */
void tier_leave(struct tier_user *u, bool keeps);

/* --- back from the store ---------------------------------------------------------------------- */

/* The sequence holds what memory_adopt gave it of ids, and is about to read the rest of them; they
 * are borrowed until the restore is done or dropped. NULL: there is nothing to be had. */
struct tier_restore *tier_restore_begin(struct tier_user *u, const uint32_t *ids, uint32_t n);
/* How many of ids such a restore would bring back, of an empty sequence; 0: none. */
uint32_t tier_known(struct tier_user *u, const uint32_t *ids, uint32_t n);
/* All that its memory holds would come back, but from the tree of beginnings. */
bool tier_holds(const struct tier_user *u);
/* -EAGAIN: call again after tier_pump. 0: it is done and gone; the memory holds all that came back,
 * *ret_shared ids of it from the tree or from host memory, the others from the disk. */
int tier_restore_go(struct tier_restore *r, uint32_t *ret_shared);
/* Of an empty sequence, what host memory alone has of ids, waited for: no disk has a say in it. */
void tier_restore_now(struct tier_user *u, const uint32_t *ids, uint32_t n);
/* Given up: the memory is empty again. NULL: nothing. */
void tier_restore_drop(struct tier_restore *r);

/* --- single segments back --------------------------------------------------------------------- */

struct tier_bring;

/* Raw keys of full segments of the sequence, n of them, ascending. NULL: there are none. */
struct tier_bring *tier_bring_begin(struct tier_user *u, const uint32_t *segments, uint32_t n);
/* -EAGAIN: call again after tier_pump. 0: each is there, or can't be had. */
int tier_bring_go(struct tier_bring *b);
/* Behind that: pages of a segment, in the sequence's account, which are the caller's now; NULL: it
 * can't be had. The array lives as long as b. */
const uint32_t *tier_bring_take(struct tier_bring *b, uint32_t segment, bool *ret_from_disk);
/* Pages that were not taken go back. NULL: nothing. */
void tier_bring_drop(struct tier_bring *b);
/* It asks for this one. b may be NULL. */
bool tier_bring_has(const struct tier_bring *b, uint32_t segment);
/* The last one that it asks for; pages that it holds. */
uint32_t tier_bring_last(const struct tier_bring *b);
uint32_t tier_bring_pages(const struct tier_bring *b);
/* Nobody waits for it: tier_pump goes on with it, and calls fn once, when each is there or can't be
 * had; not if it is dropped before. */
void tier_bring_leave(struct tier_bring *b, void (*fn)(void *arg), void *arg);

/* --- for people ------------------------------------------------------------------------------- */

/* Which of the first n segments, all full, have their raw keys in host memory or on the disk. */
void tier_stored(const struct tier_user *u, uint32_t n, bool *ret);

struct tier_stats {
    uint32_t queued, writing;            /* records; queued: also ends that are not due yet */
    uint32_t pages_queued, pages_busy;   /* busy: the disk has them */
    uint64_t forgotten;                  /* records: pages or places in the queue were short */
    uint64_t restored_tokens, restores;  /* since the start */
    uint64_t computed_instead;           /* tokens: reading them back would have taken longer */
    uint64_t read_bytes_s, ns_per_token; /* what that is decided by */
    uint64_t host_tokens;                /* that came from host memory, of raw and packed records */
    uint64_t host_bytes, host_limit;     /* of pages there; limit 0: there is no such memory */
    uint64_t host_records, host_evicted;
    bool host_pinned;
};
void tier_stats(const struct tier *t, struct tier_stats *ret);

/* What an owner has in host memory is found no more. */
void tier_forget(struct tier *t, uint32_t owner);

#endif
