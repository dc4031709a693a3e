/* cuda/sums.h - vectors that are added up over several devices: each gets the sum of all.
 *
 * NCCL has it on GPUs (cuda/nv/sums_nccl.c), copies and a loop on the shim (cuda/shim/sums_host.c).
 * It is work of each device's computing stream, and begins when all of them have come to it:
 *
 *     device 0   ... y0 |      | y0 + y1 | ...
 *     device 1   ...... y1 |   | y0 + y1 | ...
 *
 * Threads    one at a time.
 * Ownership  borrows devices and streams.
 * Errors     sums_open: -ELIBACC (the library is missing), -ENODEV, -ENOMEM. sums_run: -EIO.
 */
#ifndef CUDA_SUMS_H
#define CUDA_SUMS_H

#include "base/why.h"

#include <stddef.h>
#include <stdint.h>

struct sums;

/* Bytes of each device's memory that it takes, at most. */
size_t sums_need(uint32_t n, size_t most);

/* devices, streams: (n), by their numbers and as rt_stream has them. most: values at once. */
int sums_open(const int *devices, void *const *streams, uint32_t n, size_t most, struct sums **ret,
              struct why *why);
void sums_close(struct sums *s);

/* y: (n) addresses of n_values, of a device each. */
int sums_run(struct sums *s, float *const *y, size_t n_values);
/* A device failed: the others wait no longer for it. Nothing may be added up any more. */
void sums_abort(struct sums *s);

#endif
