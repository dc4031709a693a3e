/* cuda/train_attn.h - attention of a step of training (engine/tensors.h), in blocks of query rows:
 * products of a whole block with its segment's keys, and kernels between them, as the CPU does it
 * (train/net/attn.c).
 *
 * Segments follow one another, so what later ones add to a row's key comes in their order.
 *
 * Threads    who has the stream of rt and gemm.
 * Ownership  owns scratch on the device, which grows to what was seen.
 * Errors     -ENOMEM, -EIO.
 */
#ifndef CUDA_TRAIN_ATTN_H
#define CUDA_TRAIN_ATTN_H

#include "cuda/gemm.h"
#include "cuda/rt.h"
#include "cuda/stage.h"

struct train_attn;

/* stage: of the stream that it all is queued on. */
int train_attn_open(struct rt *rt, struct stage *stage, struct gemm *gemm,
                    const struct tensors_heads *h, struct train_attn **ret);
void train_attn_close(struct train_attn *a);
/* As the table has it. */
size_t train_attn_room(const struct tensors_heads *h, const struct tensors_sizes *s);
int train_attn_see(struct train_attn *a, const struct sight *s);
int train_attn_run(struct train_attn *a, const struct tensors_attend *p);
int train_attn_back(struct train_attn *a, const struct tensors_attend_back *p);

#endif
