/* daemon/follow.h - who reads which ids just now, so that a beginning that several ask for is read
 * once.
 *
 * The prefix tree (daemon/prefix.h) knows what was read; this knows what is being read. A reader
 * with an empty sequence that finds another one on the way through its own beginning waits until
 * that one has taught the tree all that the two share, and takes it over from there. It may be that
 * the other waits, too:
 *
 *     ids of  p   aaaaaaaaaaaaaa          reads
 *             q   aaaaaaaaabbbbbbbb       follows p up to the end of a, then reads b
 *             r   aaaaaaaaabbbbcc         follows q up to the end of b, then reads c
 *
 *            follow_join          follow_waits(): nobody to follow
 *     (none) ----------> WAITS ------------------------------------> READS
 *                        ^   |                                        |
 *                        +---+ follow_waits(): its leader has         | follow_leave
 *                          passed what they share, has left,          v
 *                          or can't go on: another look             (none)
 *
 * A leader is let go when it has taught what is shared; when it has left, however it ended; and
 * when it was asked to go on FOLLOW_STALLED_MAX times in a row and could not. What it taught until
 * then is taken over, and somebody goes on from there.
 *
 * Invariants
 *   F1  A reader that waits has an empty sequence: no pages, and nothing of what segments are
 *       compressed with. Nobody can wait for what it has.
 *   F2  It waits for one that reads, or for an older one that waits. So chains end at one that
 *       reads, and who reads does not come back.
 *   F3  Only readers of one owner and equal policy (PREFIX_PUBLIC is an owner) wait for each other:
 *       what one could learn by the time that it waits, its usage tells it anyway.
 *
 * Threads    the scheduler's. Allocates nothing.
 * Ownership  borrows readers between follow_join and follow_leave, and a reader its memory and ids.
 */
#ifndef DAEMON_FOLLOW_H
#define DAEMON_FOLLOW_H

#include "daemon/memory.h"

#include <sys/queue.h>

#define FOLLOW_STALLED_MAX 64u

struct follow_reader {
    /* The caller's. */
    const struct memory *memory;
    const uint32_t *ids; /* (n) that come behind the first n_had of the memory's own */
    uint32_t n_had, n;
    enum wire_priority priority;
    bool restoring; /* it reads, but from elsewhere: how far it is can't be told by its sequence */

    /* daemon/follow.c's. */
    TAILQ_ENTRY(follow_reader) link; /* by age */
    uint64_t age;
    bool joined, reads;
    struct follow_reader *leader; /* NULL: it reads, or is to look for another one */
    uint32_t n_pages, n_packed;   /* the tree is to know of the leader's; see struct prefix_user */
    uint32_t n_stalled;           /* times in a row that it could not go on */
    bool hurried;                 /* an interactive one waits for it */
};

struct follow {
    TAILQ_HEAD(follow_readers, follow_reader) readers;
    uint64_t n_joined;
    bool woke; /* one has left that others waited for */
};

void follow_init(struct follow *f);

/* A reader that is about to read, and may be followed from now on. One that shares nothing can't,
 * and does not join. */
void follow_join(struct follow *f, struct follow_reader *r);
/* It has read all, or will not. One that has not joined: nothing. */
void follow_leave(struct follow *f, struct follow_reader *r);

/* Whether it has to wait. Asked again in every step, until it has not; what is known is to be taken
 * over then, and the rest to be read. A sequence that is not empty never waits. */
bool follow_waits(struct follow *f, struct follow_reader *r);

/* Of what it waits for so much has been read: 0 of one that does not wait. */
uint32_t follow_read(const struct follow_reader *r);

/* It was asked for a run, and had one or could not go on. */
void follow_asked(struct follow_reader *r, bool had);

/* Before a step: marks as hurried who is followed by an interactive one, also through others. */
void follow_hurry(struct follow *f);

/* One that was waited for has left since the last call: who waited is to be asked again. */
bool follow_woke(struct follow *f);

#endif
