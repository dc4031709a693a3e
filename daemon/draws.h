/* daemon/draws.h - next tokens of several answers, drawn side by side by the host's threads.
 *
 * A row of logits is looked through, weighted and cut by whoever is free, for all answers of a step
 * at once: one after another would keep all but one core waiting. What is drawn is the same: of an
 * answer only its own state is used. Its token() takes what was drawn, and draws itself what was
 * not: the row behind a guess, say, which depends on the token before it.
 *
 * Threads    the scheduler's. draws_open takes all memory.
 */
#ifndef DAEMON_DRAWS_H
#define DAEMON_DRAWS_H

#include "engine/backend.h"

struct request;
struct sched;

/* Side by side at most: each has a scratch of candidates, 8 bytes a token of the vocabulary. */
#define DRAWS_MOST 8u

struct draws;

/* NULL where the host has one thread. -ENOMEM. */
int draws_open(struct draws **ret, const struct backend_info *info, uint32_t n_vocab);
void draws_close(struct draws *d);

/* The first rows of n answers. */
void draws_make(struct sched *s, struct request *const *requests, float *const *rows, uint32_t n);

#endif
