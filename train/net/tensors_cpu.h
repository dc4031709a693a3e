/* train/net/tensors_cpu.h - engine/tensors.h on the CPU: the process's memory, products by oneDNN,
 * rows by OpenMP's threads.
 *
 * Ownership  a trainer's, one for all that it computes.
 */
#ifndef TRAIN_NET_TENSORS_CPU_H
#define TRAIN_NET_TENSORS_CPU_H

#include "engine/tensors.h"

extern const struct tensors_ops tensors_cpu;

#endif
