/* eval/example.h - one line of a public set: a text, a question, and what a right answer is.
 *
 * The layout is known by the line's fields:
 *
 *   RULER      input, outputs            the last line of input is the question
 *   LongBench  context, input, answers   dataset says what is asked
 *   HELMET     ctxs, question, answers   documents of KILT sets
 *              ctxs, query               MS MARCO: ctxs have id, text and label
 *              context, question, answer JSON key-value
 *   RepoBench  context (a list), cropped_code, next_line
 *
 * What is not in the line is worded here: these are not the sets' own prompts, so figures compare
 * with each other, and not with published ones.
 *
 * Threads    pure functions.
 * Ownership  example_fini releases what example_parse made; of zeros it does nothing.
 * Errors     -EINVAL (no layout that is known), -ENOMEM.
 */
#ifndef EVAL_EXAMPLE_H
#define EVAL_EXAMPLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum example_metric {
    EXAMPLE_SUBEM,
    EXAMPLE_F1,
    EXAMPLE_ROUGE_L,
    EXAMPLE_EDIT, /* of the answer's first line of code */
    EXAMPLE_NDCG  /* at 10; wants are ids, labels their relevance */
};

struct example {
    char *text, *question;
    char **wants;
    double *labels; /* (n_wants), of EXAMPLE_NDCG, else NULL */
    size_t n_wants;
    bool all; /* the mean over wants, else the best of them */
    enum example_metric metric;
    uint32_t max_tokens; /* of an answer */
};

/* name: of the file, which says what some sets are. */
int example_parse(const char *line, const char *name, struct example *ret);
void example_fini(struct example *e);

/* 0 to 1. */
double example_score(const struct example *e, const char *answer);

#endif
