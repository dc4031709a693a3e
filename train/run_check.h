/* train/run_check.h - what can be known of a run before anything is opened: options that don't go
 * together, and files that could not be written when it is done.
 *
 * Threads    the main thread.
 * Errors     -EINVAL, -ENOMEM, or the errno of a file's folder, with a sentence.
 */
#ifndef TRAIN_RUN_CHECK_H
#define TRAIN_RUN_CHECK_H

#include "train/ranks.h"
#include "train/recipe.h"

/* Files are looked at by the first process alone, which writes them. */
int run_check(const struct recipe *c, const struct ranks *ranks, struct why *why);

#endif
