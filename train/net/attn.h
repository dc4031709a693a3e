/* train/net/attn.h - attention of a layer over a layout's rows, with its derivative.
 *
 *     out = softmax(q k^T / sqrt(hd)) v        over what each row sees (train/net/layout.h)
 *
 * q, k and v come unrotated: the same gist's key stands at one position among its segment's keys
 * and at another in memory. Blocks of query rows of a whole group of heads meet all their keys in
 * one product; scores are made anew in the derivative, only their log-sum-exp is kept.
 *
 * Threads    attn_forward and attn_back use all of OpenMP's, a (segment, KV head) each; one call at
 *            a time.
 * Ownership  attn owns scratch for each thread, borrows base.
 * Errors     attn_open: -ENOMEM. The products' (train/net/gemm.h) are kept: attn_error().
 */
#ifndef TRAIN_NET_ATTN_H
#define TRAIN_NET_ATTN_H

#include "train/net/base.h"
#include "train/net/layout.h"

struct attn;

int attn_open(const struct base *b, struct attn **ret);
void attn_close(struct attn *a);
int attn_error(const struct attn *a);

/* Of a stage's rows. qkv (R, n_qkv) f32; out (R, n_q) of the base's type; lse (R, n_head). -ENOMEM.
 */
int attn_forward(struct attn *a, const struct layout *l, const struct layout_stage *stage,
                 const float *qkv, void *out, float *lse);

/* dout (R, n_q) of the base's type. dqkv (R, n_qkv): q's are written, k's and v's, also of rows in
 * memory, are added to. Queries of the layout's frozen rows are left out. -ENOMEM. */
int attn_back(struct attn *a, const struct layout *l, const struct layout_stage *stage,
              const float *qkv, const void *out, const float *lse, const void *dout, float *dqkv);

#endif
