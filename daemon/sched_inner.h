/* daemon/sched_inner.h - the scheduler's own parts: who is served (sched_clients.c), what they send
 * (sched_frames.c), steps (sched.c), sleep (sched_sleep.c), start and end (sched_open.c).
 *
 * Threads    the scheduler's.
 */
#ifndef DAEMON_SCHED_INNER_H
#define DAEMON_SCHED_INNER_H

#include "daemon/request.h"
#include "daemon/sched.h"

/* --- sched_clients.c --- */

/* The bell's rings end a sleep from now on. -errno. */
int sched_hear(struct sched *s, int bell);
/* Notes what the control thread says. True: it said something. */
bool sched_take_letters(struct sched *s);
/* Frees a client and all that is its. Never in the middle of a step. */
void sched_bury(struct sched *s, struct client *c);

/* --- sched_frames.c --- */

/* Whether what it sends is taken at present. */
bool sched_takes_frames(const struct client *c);

/* --- sched_sleep.c --- */

/* Until something comes, or is due. */
void sched_sleep(struct sched *s);

#endif
