/* train/eval.h - how well gists stand in for what they replace, on documents that were never trained on.
 *
 * The beginnings of the longest held-out documents, one sequence each: the mean negative log-likelihood of the tokens behind the
 * first segment, under full attention, with no memory of earlier segments but the sinks ("none"), and by gists at each
 * ratio. The share of the gap between none and full that a ratio closes is what runs are compared by.
 *
 * Threads    the trainer's.
 * Ownership  borrows step and corpus; owns its tokens.
 * Errors     -ENOMEM, or train/step.h's; eval_open: -EINVAL with a sentence.
 */
#ifndef TRAIN_EVAL_H
#define TRAIN_EVAL_H

#include "train/corpus.h"
#include "train/step.h"

#include <stdio.h>

struct eval {
    /* the caller's */
    struct step *step;
    struct corpus *corpus;
    uint32_t n_docs, n_tokens, seg_len;
    const uint32_t *ratios;
    uint32_t n_ratios;
    /* its own */
    uint32_t *ids;                           /* (n_docs, n_tokens) */
    float *logp;
    double full, none;                       /* once, at eval_open */
    double nll[ADAPTER_RATIOS_MAX];
};

int eval_open(struct eval *e, struct why *why);
void eval_close(struct eval *e);
int eval_run(struct eval *e);

void eval_print(const struct eval *e, FILE *f);
void eval_print_json(const struct eval *e, uint64_t step, uint64_t tokens, FILE *f);

#endif
