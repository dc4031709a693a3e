/* eval/metrics.h - how right an answer is: each from 0 to 1.
 *
 * As the papers' own evaluation programs have them; tests/reference/metrics_vectors.py records what
 * those say of some hundred cases, and tests/test_eval_metrics.c holds these to it. Text is UTF-8;
 * a byte that is none is a character of its own.
 *
 * Threads    pure functions.
 * Errors     NAN when there was no memory.
 */
#ifndef EVAL_METRICS_H
#define EVAL_METRICS_H

#include <stddef.h>

/* Substring exact match: want stands in answer. Both lose what SQuAD's program takes away: case,
 * ASCII punctuation, the articles a, an and the, and all white space but single spaces. */
double metrics_subem(const char *answer, const char *want);

/* Exact match of the same. */
double metrics_accuracy(const char *answer, const char *want);

/* F1 of their words, each as often as it is there. */
double metrics_f1(const char *answer, const char *want);

struct metrics_rouge {
    double precision, recall, f1;
};
/* ROUGE-L: the longest common subsequence of words, which are runs of ASCII letters and digits
 * without regard to case, not stemmed. */
struct metrics_rouge metrics_rouge_l(const char *answer, const char *want);

/* Edit similarity: twice the longest common subsequence of characters, in parts of both lengths.
 * Two empty texts are alike. */
double metrics_edit(const char *a, const char *b);

/* Normalised discounted cumulative gain of the first k. ranked: relevance of what was ranked, best
 * first; all: of all that could have been. 0 where nothing is relevant. */
double metrics_ndcg(const double *ranked, size_t n_ranked, const double *all, size_t n_all,
                    size_t k);

/* How many of the want's letters and digits stand in the answer one after the other, from the
 * first on, at the best place; what is neither is left out of both, and case. */
size_t metrics_prefix(const char *answer, const char *want);

#endif
