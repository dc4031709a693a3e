/* cuda/together.h - a step of several devices that have a part of each layer (--split-mode tensor).
 *
 * All do the same at the same time, each with its heads and its rows of the feed-forward. What wo
 * and w_down make of these is a part of what is added to the residual, which all have:
 *
 *     device 0   embed | heads a, wo  |     | rows a, w_down |     | ...  | norm | output
 *                                     | sum |                | sum |
 *     device 1   embed | heads b, wo  |     | rows b, w_down |     | ...  | norm |
 *
 * Threads    one at a time.
 * Ownership  borrows the parts.
 * Errors     as cuda/step.h, and those of sums_open.
 */
#ifndef CUDA_TOGETHER_H
#define CUDA_TOGETHER_H

#include "cuda/part.h"
#include "cuda/sums.h"

struct together;

/* Bytes of each device's memory that it takes at most, of which scratch of steps is no part. */
size_t together_need(const struct model *m, uint32_t n, uint32_t max_rows);
/* Of parts that have a model. Sums are tried: whether they end, and what they bring. */
int together_open(struct part *parts, uint32_t n, uint32_t max_rows, struct together **ret,
                  struct why *why);
/* lost: a device failed, and sums are ended without what their library would ask of it. */
void together_close(struct together *t, bool lost);

int together_step(struct together *t, const struct plan *plan, const struct forward_stop *stop);

#endif
