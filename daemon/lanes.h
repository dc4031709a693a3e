/* daemon/lanes.h - a request that is made of several, each with a session of its own.
 *
 * A request has one run in a step. One that has many short texts to read behind a session, say,
 * is read in as many lanes at once: each is a request to the scheduler, so that steps, shares of
 * owners, memories and their upkeep are what they are for anybody's. Clients know the whole alone:
 * its id, its error, its end.
 *
 *     the whole    WORK ------------------------------------------------------> LAST
 *                   | lanes_work(), in each step                lanes_ended()
 *     lane 0        +-> RUN -----------> LAST, gone
 *     lane 1        +-> RUN ---> LAST, gone
 *     lane 2                     +-> RUN --------> LAST, gone    when there is a place for it
 *
 * A lane beside another one takes a place of a session, of those that its client and its owner may
 * have; the first needs none, so that every whole comes to its end. What one fails with the whole
 * fails with. A whole that ends before them leaves them behind: they are cancelled, and go.
 *
 * Threads    the scheduler's. lanes_work: between steps.
 * Ownership  struct lanes lies in the state of its whole, which calls lanes_leave before it goes.
 *            A lane owns its session, and is freed by request_drop.
 */
#ifndef DAEMON_LANES_H
#define DAEMON_LANES_H

#include "daemon/request.h"

#define LANES_AT_ONCE 32u

struct lane {
    TAILQ_ENTRY(lane) link; /* of those of its whole, the oldest first */
    struct lanes *of;       /* and the whole itself; NULL, both: it was left behind */
    struct request *whole;
    struct session *session;
    uint32_t index; /* which one it is */
    size_t at, end; /* its kind's: how far it is, and has to go */
    struct request request;
};

/* Gives the lane a session. 1: there is nothing to do for this one, and it ends at once; -ENOSPC:
 * pages; -ENOMEM, -EDQUOT. */
typedef int lane_begin_fn(struct sched *s, struct request *whole, struct lane *l);

TAILQ_HEAD(lane_list, lane);
struct lanes {
    const struct request_ops *ops; /* of a lane's request */
    lane_begin_fn *begin;
    struct lane_list open;
    uint32_t n, n_begun, n_open;
    bool failed;
    struct wire_rep error; /* its text is why */
    char why[REQUEST_TEXT_MAX];
};

void lanes_init(struct lanes *l, const struct request_ops *ops, lane_begin_fn *begin, uint32_t n);
/* Nobody waits for those that are open. */
void lanes_leave(struct lanes *l);

/* Begins as many as have places, and fails the whole when one has failed. 1: something was done; 0:
 * it waits; else as begin(), when not even one can begin. */
int lanes_work(struct sched *s, struct request *whole, struct lanes *l);
bool lanes_ended(const struct lanes *l);

/* A whole's plan(): its session's memory was behind and is not any more; it goes on with work(). */
bool lanes_plan(struct sched *s, struct request *whole, uint32_t max, struct forward_run *ret);

/* No older one of its whole is open: it may wait for nobody. */
bool lane_is_first(const struct lane *l);
/* Whether it has something to tell its client: of one that was left behind nobody wants to hear. */
bool lane_speaks(const struct request *r);
/* Of request_drop. */
void lane_free(struct sched *s, struct lane *l);

#endif
