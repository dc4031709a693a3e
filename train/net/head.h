/* train/net/head.h - from last hidden states to the loss: the base's output norm and matrix, cross
 * entropy, its derivative.
 *
 *     loss = sum over rows of weight * -log softmax(Wout norm(x))[target]
 *
 * A row may have a teacher too: the k most likely ids of the full-attention model with their
 * probabilities p. It adds teacher_weight * (sum_k p_k (log p_k - log q_k) + p_rest (log p_rest -
 * log q_rest)), q the softmax of this row, rest all other ids together: without the rest q would
 * learn that they don't occur. Rows go through in blocks, so that the logits of a sequence never
 * stand in memory at once.
 *
 * Source     paper 3.1 (language modelling), 3.3 (weights); distillation is beyond the paper.
 *
 * Threads    all of OpenMP's; one call at a time.
 * Ownership  borrows base, owns scratch.
 * Errors     head_open: -ENOMEM. head_run: the products' -EIO, -ENOMEM.
 */
#ifndef TRAIN_NET_HEAD_H
#define TRAIN_NET_HEAD_H

#include "train/net/base.h"

#define HEAD_TEACHER_MAX TENSORS_TOP_MAX

struct head_row {
    uint32_t row, target;
    float weight;
    const uint32_t *teacher_ids; /* (n_teacher), up to HEAD_TEACHER_MAX; NULL: none */
    const float *teacher_p;
    float teacher_weight;
};

struct head_loss {
    double targets, teacher; /* with the rows' weights */
    uint32_t n_right;        /* rows whose target is the most probable id */
};

struct head;

/* What it takes where it is computed. */
size_t head_room(const struct base *b);

int head_open(const struct base *b, struct head **ret);
void head_close(struct head *h);

/* Another base of the same shape from now on. */
void head_set_base(struct head *h, const struct base *b);

/* x (., n_embd), where the base is: rows, each once, are taken from it. ret_logp (n):
 * log-probability of each target. dx: gets the derivatives of these rows added, as the base's
 * output norm and matrix do where they are trained. These and ret_loss may be NULL. */
int head_run(struct head *h, const float *x, const struct head_row *rows, uint32_t n,
             uint32_t n_teacher, float *ret_logp, float *dx, struct head_loss *ret_loss);

/* The n most likely ids of each row, most likely first, with their probabilities: (rows, n) each.
 */
int head_top(struct head *h, const float *x, const struct head_row *rows, uint32_t n_rows,
             uint32_t n, uint32_t *ret_ids, float *ret_p);

#endif
