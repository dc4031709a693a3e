/* daemon/picks.h - answers whose next tokens are sampled by who computes them, so that a row of
 * logits stays where it is (engine/backend.h, pick).
 *
 * What is drawn is the same token: only what it is drawn from is cut elsewhere (engine/sampler.h).
 * Grammars and log-probabilities want the row itself.
 *
 * Threads    the scheduler's. picks_open takes all memory.
 */
#ifndef DAEMON_PICKS_H
#define DAEMON_PICKS_H

#include "engine/backend.h"

struct picks;
struct request;
struct sched;

/* NULL where logits are as near. -ENOMEM. */
int picks_open(struct picks **ret, const struct backend *b);
void picks_close(struct picks *p);

/* Answers of n requests, at most SCHED_LOGITS_ROWS, whose outputs in the last step are [first,
 * first + n): each is given its token, or was failed. False: nothing was done, their logits are to
 * be taken. */
bool picks_give(struct sched *s, struct request *const *requests, uint32_t first, uint32_t n);

#endif
