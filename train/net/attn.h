/* train/net/attn.h - attention of a layer over a sequence's rows, with its derivative, on the CPU.
 *
 *     out = softmax(q k^T / sqrt(hd)) v        over what each row sees (engine/sight.h)
 *
 * q, k and v come unrotated: the same gist's key stands at one position among its segment's keys
 * and at another in memory. Blocks of query rows of a whole group of heads meet all their keys in
 * one product; scores are made anew in the derivative, only their log-sum-exp is kept.
 *
 * Threads    attn_forward and attn_back use all of OpenMP's, a (segment, KV head) each; one call at
 *            a time.
 * Ownership  attn owns scratch for each thread, borrows the heads' angles.
 * Errors     attn_open: -ENOMEM. The products' (train/net/gemm.h) are kept: attn_error().
 */
#ifndef TRAIN_NET_ATTN_H
#define TRAIN_NET_ATTN_H

#include "engine/tensors_work.h"

struct attn;

int attn_open(const struct tensors_heads *heads, struct attn **ret);
/* Bytes of all threads, without what oneDNN keeps. */
size_t attn_room(const struct tensors_heads *heads, const struct tensors_sizes *s);
void attn_close(struct attn *a);
int attn_error(const struct attn *a);

/* As engine/tensors_work.h has them. -ENOMEM. */
int attn_forward(struct attn *a, const struct sight *l, const struct tensors_attend *p);
int attn_back(struct attn *a, const struct sight *l, const struct tensors_attend_back *p);

#endif
