/* train/eval.h - how well gists stand in for what they replace, on documents that were never
 * trained on.
 *
 * Plain documents: the beginning of each, a sequence: the mean negative log-likelihood of the
 * tokens behind the first segment, under full attention, with no memory of earlier segments but the
 * sinks ("none"), and by gists at each ratio, trained and untrained. The share of the gap between
 * none and full that a ratio closes is what runs are compared by. A control has the segments before
 * of another document in memory: what is better than none there is not memory of the text.
 *
 * Recall tasks (documents of which only answers carry loss): the share of their answers' tokens
 * that are the most probable ones given those before them, and of tasks all of whose tokens are.
 * Snippets: the share of tokens that the decoder of train/net/ae.h rebuilds from one gist each.
 *
 * Threads    the trainer's.
 * Ownership  borrows step and corpus; owns its tokens.
 * Errors     -ENOMEM, -ECANCELED (stop said so), or train/step.h's; eval_open: -EINVAL with a
 *            sentence.
 */
#ifndef TRAIN_EVAL_H
#define TRAIN_EVAL_H

#include "train/data/corpus.h"
#include "train/run_log.h"
#include "train/step.h"

#include <signal.h>

struct eval {
    /* the caller's */
    struct step *step;
    struct corpus *corpus;
    uint32_t n_docs, n_recall;  /* wanted, then had */
    uint32_t n_tokens, seg_len; /* of a sequence */
    const uint32_t *ratios;
    uint32_t n_ratios;
    bool rebuilds;                     /* step has a decoder of snippets */
    const volatile sig_atomic_t *stop; /* asked between sequences; NULL: nobody */
    /* Told between sequences how many of how many are behind; NULL: nobody. */
    void (*tell)(void *arg, uint32_t done, uint32_t n);
    void *arg;
    /* its own */
    uint32_t *ids;        /* (n_docs, n_tokens) */
    uint32_t *recall_ids; /* (n_recall, n_tokens), behind the end eos */
    uint8_t *recall_carries;
    uint32_t *mixed; /* (n_tokens) */
    float *logp;
    uint32_t n_done, n_to_do;
    struct run_log_eval last; /* full, none and untrained from eval_open on */
};

/* known: an evaluation of before that asked the same; NULL: there is none, full, none and untrained
 * are computed, and the gists of step have to be the untrained ones. */
int eval_open(struct eval *e, const struct run_log_eval *known, struct why *why);
void eval_close(struct eval *e);

/* Into last. thorough: with the control, which takes as long as everything else. */
int eval_run(struct eval *e, bool thorough);

/* One line. */
void eval_print(const struct eval *e, char *ret, size_t cap);

#endif
