/* daemon/batch.h - one batch of the scheduler: who gets which tokens of the next forward pass.
 *
 * First a token of every answer that is being written, then reading, within the step's budget:
 * interactive before background, which has a ninth of it all the same when it has waited long
 * enough. Both are shared out by owners, then their units, then clients, then sessions: each has as
 * much as it wants, or no less than others of its level. Who was served goes to the end of the
 * line.
 *
 * A step that reads in the background alone is given up between two layers when an interactive
 * request comes. What it has computed is lost, so that this happens GIVEN_MAX times in a row at
 * most; then the background has a short step that lasts.
 *
 * Threads    the scheduler's. Allocates nothing.
 */
#ifndef DAEMON_BATCH_H
#define DAEMON_BATCH_H

#include <stdbool.h>

struct sched;

/* Runs one batch. False: nobody had anything for the model. */
bool batch_run(struct sched *s);

#endif
