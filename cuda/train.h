/* cuda/train.h - a step of training on a device (engine/tensors.h): the second table of
 * libgistd-cuda.so and of libgistd-cuda-shim.so.
 *
 * All is queued on one stream in the order of the calls. What is the host's passes through pinned
 * slots (cuda/stage.h): of other memory CUDA does not say when it reads it. Lists of the host are
 * copied to one buffer on the device, which the next call writes over when its turn in the stream
 * has come.
 */
#ifndef CUDA_TRAIN_H
#define CUDA_TRAIN_H

#include "engine/tensors.h"

/* What engine/tensors.h looks for. */
__attribute__((visibility("default"))) const struct tensors_ops *gistd_tensors(void);

#endif
