/* daemon/batch_inner.h - one step as it is made up (batch.c), and as its outputs are given out
 * (batch_give.c).
 *
 * Threads    the scheduler's.
 */
#ifndef DAEMON_BATCH_INNER_H
#define DAEMON_BATCH_INNER_H

#include "daemon/request.h"
#include "engine/forward.h"

struct batch {
    struct forward_run runs[FORWARD_RUNS_MAX];
    struct request *requests[FORWARD_RUNS_MAX];
    bool upkeep[FORWARD_RUNS_MAX]; /* the run is its memory's, not the request's own */
    uint32_t n, n_decode;          /* the first n_decode runs decode */
    uint32_t n_rows, max_rows;
    uint32_t n_pages;                        /* that the runs look at */
    bool waits;                              /* somebody was told "not yet" */
    uint32_t n_reading[WIRE_BACKGROUND + 1]; /* of each priority, when the step began */
};

/* After the step: each request has its outputs, and each memory what its upkeep made. Requests may
 * end, but none is freed. */
void batch_give(struct sched *s, struct batch *b);

#endif
