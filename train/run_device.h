/* train/run_device.h - what computes a run, in each of its processes.
 *
 * Processes of one machine have a device each; all processes have one, or none has: the bits of a
 * step would differ, and parameters with them.
 *
 * Threads    the main thread of every process; all of them call these together.
 * Ownership  run_device_open: the caller closes what it opened.
 * Errors     as engine/tensors.h has them, with a sentence. run_device_between: -ENOMEM,
 *            run_device_sum: the device's, without one.
 */
#ifndef TRAIN_RUN_DEVICE_H
#define TRAIN_RUN_DEVICE_H

#include "train/net/optim.h"
#include "train/ranks.h"
#include "train/recipe.h"

/* NULL: the CPU. ret_note: a line to be said, if any. */
int run_device_open(const struct recipe *c, const struct ranks *ranks, struct tensors **ret,
                    char *ret_note, size_t cap, struct why *why);

/* The gradients, over all processes; a device's pass through the host's memory, for which between
 * is taken once, when all tensors are there: NULL where nothing passes. The caller frees it. */
int run_device_between(struct tensors *on, const struct ranks *ranks, const struct optim *o,
                       float **ret);
int run_device_sum(struct tensors *on, const struct ranks *ranks, const struct optim *o,
                   float *between);

#endif
