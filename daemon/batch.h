/* daemon/batch.h - one batch of the scheduler: who gets which tokens of the next forward pass.
 *
 * First a token of every answer that is being written, then reading, within the step's budget:
 * interactive before background; among equals the budget is shared evenly, and who was served goes
 * to the end of the line.
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
