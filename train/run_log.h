/* train/run_log.h - what a training run measured, one JSON object a line.
 *
 *     {"step":12,"tokens":2456,"loss":2.31,"lm":2.3,"lr":0.0006,"norm":0.9,"ratio":8,"seconds":1.9}
 *     {"eval":100,"tokens":204800,"full":2.232,"none":2.592,"ratios":[4,8],"nll":[2.4,2.5]...}
 *
 * Steps count from 1; a line says what a step found before it changed the weights, an evaluation
 * what the weights are worth after so many steps. tokens: read since the run began. What was not
 * measured (NAN, or 0 for ratio) is not written, and null in a list.
 *
 * A run that goes on from a checkpoint cuts the lines of later steps, and one that was half
 * written, so that the log is the same as without the interruption but for `seconds` and an
 * evaluation where it was. One that begins cuts all lines.
 *
 * Threads    one at a time.
 * Errors     -EINVAL (a line that is none) with a sentence, -ENOMEM, or the errno of the I/O.
 */
#ifndef TRAIN_RUN_LOG_H
#define TRAIN_RUN_LOG_H

#include "base/why.h"

#include <stddef.h>
#include <stdint.h>

#define RUN_LOG_RATIOS_MAX 8

struct run_log_step {
    uint64_t step, tokens;
    double loss;            /* weighed sum of those below */
    double lm, ae, distill; /* each as it is, before its weight */
    double lr, norm;        /* norm: of the gradient, before clipping */
    double seconds;
    uint32_t ratio; /* of all its sequences, or 0 */
};

/* Mean negative log-likelihoods of held-out tokens behind the first segment, and shares. */
struct run_log_eval {
    uint64_t step, tokens;
    uint64_t asked;    /* a digest of what was asked of what; 0: unknown */
    double full, none; /* full attention; the segment alone */
    uint32_t n_ratios, ratios[RUN_LOG_RATIOS_MAX];
    double nll[RUN_LOG_RATIOS_MAX];
    double untrained[RUN_LOG_RATIOS_MAX];       /* nll of the copy initialisation */
    double other[RUN_LOG_RATIOS_MAX];           /* nll with the memory of another document */
    double rebuilt[RUN_LOG_RATIOS_MAX];         /* tokens right, rebuilt from one gist each */
    double recalled[RUN_LOG_RATIOS_MAX];        /* recall tasks answered right */
    double recalled_tokens[RUN_LOG_RATIOS_MAX]; /* tokens of their answers right */
    double recalled_full, recalled_none;        /* the same without gists, as full and none */
    double recalled_tokens_full, recalled_tokens_none;
    double seconds;
};

/* All NAN, for those who fill in some. */
void run_log_step_init(struct run_log_step *s);
void run_log_eval_init(struct run_log_eval *e);

struct run_log;

/* Appends to the file, which is made when it is not there. done: steps of lines that stay. */
int run_log_open(const char *path, uint64_t done, struct run_log **ret, struct why *why);
void run_log_close(struct run_log *l);
int run_log_step(struct run_log *l, const struct run_log_step *s);
int run_log_eval(struct run_log *l, const struct run_log_eval *e);

struct run_log_data {
    struct run_log_step *steps;
    struct run_log_eval *evals;
    size_t n_steps, n_evals;
};

/* A last line without its end is left out. */
int run_log_read(const char *path, struct run_log_data *ret, struct why *why);
void run_log_data_fini(struct run_log_data *d);

#endif
