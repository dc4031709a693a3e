/* engine/cpu/head.h - logits: the product with the output matrix.
 *
 * Where that takes activations in int8 they are given twice: what 8 bits hold of them, and what
 * those leave over. Other roundings pass through norms and sums; this one would go straight into
 * the logits, and was a third of the whole error (docs/results.md). The weights are read once for
 * both.
 *
 * Threads    the owner of the workers.
 * Errors     those of engine/file/stream.h, where the matrix does not stay.
 */
#ifndef ENGINE_CPU_HEAD_H
#define ENGINE_CPU_HEAD_H

#include "engine/cpu/kernels.h"
#include "engine/cpu/workers.h"
#include "engine/file/model.h"

#define HEAD_ROWS 8u /* outputs whose logits are made at a time, at most */

/* All of it is borrowed. */
struct head {
    const struct model *m;
    const struct kernels *k;
    struct workers *w;
    uint32_t max_rows;            /* at a time */
    void *forms[KERNELS_FORM__N]; /* (2 max_rows, n_embd) in Q8, (T, n_embd) in the others */
    float *rest;                  /* (max_rows, n_embd) */
    float *both;                  /* (2 max_rows, n_vocab) */
};

/* x (n, n_embd), with n at most T; ret (n, n_vocab). */
int head_logits(const struct head *h, const float *x, uint32_t n, float *ret);

#endif
