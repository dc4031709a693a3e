/* daemon/idle.h - memory that is given back: when nobody uses the model, and when it is short.
 *
 *                     no request used the model for --idle seconds,
 *                     or memory is short and none does
 *     serving (AWAKE) -------------------------------------------> AWAY: weights, free and cached
 *        ^                                                           |   pages are the machine's
 *        |            the model was read again                       | a request uses the model
 *        +---------------------------- WAKING <----------------------+
 *                                        |  can't be read: these requests fail, with the reason;
 *                                        +  nobody waits any more: AWAY again
 *
 * What sessions hold stays in the pool, page by page: who comes back to a conversation finds it as
 * it was. What was read before and no session has (the cached pages) is on the disk, where there is
 * a store, or is computed again. A device's memory can't be given back in parts, so its session's
 * pages keep all of it.
 *
 * Requests that need no weights (status, tokens, saved sessions, metrics) are answered meanwhile
 * and wake nobody. Those that wait are told how far the model is, if their clients want to hear it.
 *
 * Threads    the scheduler's, between steps.
 */
#ifndef DAEMON_IDLE_H
#define DAEMON_IDLE_H

#include <stdbool.h>
#include <stdint.h>

struct sched;

struct idle {
    bool down;         /* AWAY, or WAKING */
    bool pressed;      /* the control thread says that memory is short */
    uint64_t due_ns;   /* when memory is given back if nothing happens; 0: not known */
    uint64_t steps;    /* of the scheduler's totals, when due_ns was set */
    uint64_t patience; /* until when what is being written to the disk is waited for; 0: not yet */
    uint64_t next_ns;  /* not to be woken before, after a failure */
    unsigned told;     /* percent, while WAKING */
    uint64_t n, n_pressed; /* times that it was AWAY; that memory was short */
};

/* True: something was done. */
bool idle_look(struct sched *s);

/* The scheduler is about to sleep: milliseconds until idle_look has something to do; -1: nothing.
 */
int idle_timeout_ms(struct sched *s);

#endif
