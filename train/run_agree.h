/* train/run_agree.h - what processes of one run have in common, beside what computes them
 * (train/run_device.h): in which type products are, and what was trained so far.
 *
 * A sum over processes is the same in all of them: MPI requires that of MPI_Allreduce ("identical
 * results"). What each makes of it is not, where their CPUs or libraries differ: the step of the
 * optimiser rounds in its own way on each, and nobody would see how parameters part. So they are
 * compared where they are saved.
 *
 * Threads    the main thread of every process; all of them call these together.
 * Errors     run_agree_state: what optim_fetch says.
 */
#ifndef TRAIN_RUN_AGREE_H
#define TRAIN_RUN_AGREE_H

#include "train/net/optim.h"
#include "train/ranks.h"

/* bf16 where all have it. ret_n_f32: so many processes have f32. */
enum tensors_type run_agree_type(const struct ranks *ranks, enum tensors_type own,
                                 uint32_t *ret_n_f32);

/* The state of the first process, to all, and to their devices. What follows from parameters is to
 * be made anew. */
void run_agree_share(const struct ranks *ranks, struct optim *o, struct optim_progress *at);

/* Whether all are where the first one is: ret_n_other of them are not, and if there are any all
 * have its state now, as by run_agree_share. */
int run_agree_state(const struct ranks *ranks, struct optim *o, struct optim_progress *at,
                    uint32_t *ret_n_other);

#endif
