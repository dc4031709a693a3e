/* train/ranks.h - one training run on several processes or machines: the trainer's door to MPI.
 *
 * Every process computes some of a step's sequences; gradients are summed, and each makes the same
 * step. `local` counts those of one machine, which has a device for each of them. Started without
 * mpirun, or built without MPI, there is one process and nothing here costs anything.
 *
 * Threads    the main thread.
 * Errors     ranks_open: -EIO. A process that dies ends the others (MPI's own rule).
 */
#ifndef TRAIN_RANKS_H
#define TRAIN_RANKS_H

#include <stddef.h>
#include <stdint.h>

struct ranks {
    uint32_t rank, n;
    uint32_t local, n_local;
};

int ranks_open(struct ranks *r);
void ranks_close(struct ranks *r);

/* Over all processes, in place, the same result in each. */
void ranks_sum(const struct ranks *r, float *x, size_t n);
void ranks_sum_double(const struct ranks *r, double *x, size_t n);

/* n bytes of the first process, to all. */
void ranks_share(const struct ranks *r, void *x, size_t n);

#endif
