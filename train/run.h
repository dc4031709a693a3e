/* train/run.h - a training run from its recipe: opens everything, goes on from a checkpoint, steps,
 * evaluates, saves.
 *
 * Sequence number step * batch + i of the corpus' stream and its ratio follow from the seed alone,
 * so that a run that goes on does what an uninterrupted one does.
 *
 * Threads    the main thread; *stop may be set by a signal handler: the step is finished, all is
 *            saved.
 * Errors     a negative errno with a sentence. A loss that is not finite is -EDOM: what led to it
 *            is in the sentence.
 */
#ifndef TRAIN_RUN_H
#define TRAIN_RUN_H

#include "train/recipe.h"

#include <signal.h>
#include <stdio.h>

/* What its memory would be, in lines. -ENOMEM: there is not so much. */
int run_plan(const struct recipe *recipe, FILE *f, struct why *why);

int run_train(const struct recipe *recipe, const volatile sig_atomic_t *stop, struct why *why);

#endif
