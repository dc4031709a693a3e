/* http/turn.h - turns of live sessions that go on without their client: who comes back to a page
 * that was loaded again, or lost its connection, hears the answer from its beginning.
 *
 *                  turns_leave                       turns_run
 *     HEARD, an ------------------> UNHEARD ----------------------> ENDED, nobody heard of it
 *     exchange's <-----------------    |      nobody's thread          |
 *         |          turns_take        | its time is over, forgotten   |
 *         +----------------------------+-------> gone <----------------+
 *
 * A turn that is heard is its exchange's (http/exchange.c), as any job is. When the client leaves,
 * and the request said that it may be (`detachable`), the turn comes here. The main thread goes on
 * with it, and what it says is dropped: the answer's text is the job's, and bounded by the model's
 * window. What has ended is kept, too, heard or not: nobody knows what arrived.
 *
 * Its time begins when the client leaves. When that is over the answer is cancelled, and its
 * session ends. There are at most as many turns here as live sessions may be open: of those that
 * have ended one of the key that has most makes place, the one that was left longest ago.
 *
 * Threads    all. The lock is held while a turn here goes on, a millisecond a turn and round.
 * Ownership  of turns that were left, until turns_take.
 */
#ifndef HTTP_TURN_H
#define HTTP_TURN_H

#include "http/job.h"
#include "http/live.h"

#include <poll.h>

#define TURNS_DELETED 32u

struct turn {
    struct ask ask;
    struct job job;
    bool begun; /* there is a job */

    struct turn *next;
    char who[GUARD_NAME_MAX + 1];
    uint64_t left_ns;
    bool forgotten; /* nobody is to have it */
};

/* A session that was deleted, and whose it was. */
struct turn_deleted {
    char who[GUARD_NAME_MAX + 1], id[LIVE_ID_LEN + 1];
};

struct turns {
    struct lives *lives;
    unsigned max;
    uint64_t wait_ns;
    int wake_fd;          /* the main thread is to look; borrowed */
    pthread_mutex_t lock; /* of what is below */
    struct turn *list;    /* the one that was left last first */
    unsigned n;
    struct turn_deleted deleted[TURNS_DELETED]; /* in a ring: the last ones */
    unsigned n_deleted;
};

/* wait_s 0: turns end with their client. */
void turns_init(struct turns *l, struct lives *lives, unsigned max, unsigned wait_s, int wake_fd);
void turns_fini(struct turns *l);

struct turn *turn_new(void); /* NULL: out of memory */
void turn_free(struct turn *t);

/* t, whose client `who` is gone or has heard all, is kept or freed. */
void turns_leave(struct turns *l, struct turn *t, const char *who);
/* The key's own turn, which is the caller's then: what it says is heard again from its beginning.
 * path: the session's id, '/' and how many turns that had read before. NULL and a problem: it is
 * not there, or somebody hears it. */
struct turn *turns_take(struct turns *l, const char *who, const char *path, struct problem *p);
/* live_delete, and nobody comes back to what is here of the session. */
live_fn turns_delete;

/* --- the main thread's ------------------------------------------------------------------------ */

#define TURNS_FDS 2u /* that a turn waits for */
/* How many of ret, which has room for TURNS_FDS * max, are to be waited for. */
size_t turns_wait_for(struct turns *l, struct pollfd *ret);
/* Goes on with what can, and ends what has waited for too long. Milliseconds until the next one
 * will have; -1: there is none. */
int turns_run(struct turns *l);

#endif
