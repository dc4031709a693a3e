/* train/net/loss.h - what a row of logits costs, with its derivative, and its largest ones, on the
 * CPU (engine/tensors_work.h: struct tensors_loss, tensors_top; train/net/head.h has the formulas).
 *
 * Threads    all of OpenMP's.
 */
#ifndef TRAIN_NET_LOSS_H
#define TRAIN_NET_LOSS_H

#include "engine/tensors_work.h"

void loss_rows(const struct tensors_loss *a);
void loss_top(const struct tensors_top *a);

#endif
