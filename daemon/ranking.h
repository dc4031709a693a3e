/* daemon/ranking.h - what is packed in a memory is ranked for a request (daemon/hydrate.h), in
 * slices between steps.
 *
 * All ids of a long text are looked at for that, and who waits for the next step is not to wait
 * until it is done. So the request goes back to phase WORK, where each step has a slice of it:
 *
 *     RUN --plan(): ranking_ready() is false--> WORK --work(): ranking_go() is true--> RUN
 *
 * Nothing is read into its memory meanwhile, so what comes of it is what a ranking in one go would
 * be. Short texts are ranked at once: all of them in a step are no more than one slice.
 *
 * The time is charged to the client's owner and unit, as rows of a step that would have taken as
 * long.
 *
 * Threads    the scheduler's, between steps.
 * Ownership  a struct ranking is a part of its request's state, and is dropped before the memory
 *            goes. While it is under way the request points to it.
 * Errors     none: without memory for it there is no job, as where nothing is packed.
 */
#ifndef DAEMON_RANKING_H
#define DAEMON_RANKING_H

#include "daemon/request.h"

struct rank_job;

struct ranking {
    struct rank_job *job;    /* NULL: none, or there is nothing to rank */
    enum request_phase from; /* where the request goes on */
};

/* Whether what is packed now is ranked for these ids. Where it is not that is begun, and unless it
 * is short the request is in phase WORK until ranking_go is true. */
bool ranking_ready(struct sched *s, struct request *r, struct ranking *k, const struct memory *m,
                   const uint32_t *ids, uint32_t n);
/* A slice. True: that was the last one, or none is under way, and the request is in the phase that
 * it was in. */
bool ranking_go(struct sched *s, struct request *r, struct ranking *k);
void ranking_drop(struct request *r, struct ranking *k);

#endif
