/* eval/tally.h - what items of a results file say together.
 *
 * Threads    pure functions.
 * Errors     -ENOMEM.
 */
#ifndef EVAL_TALLY_H
#define EVAL_TALLY_H

#include "eval/results.h"

#include <stddef.h>
#include <stdint.h>

#define TALLY_ANY      UINT64_MAX
#define TALLY_LIST_MAX 64u
#define TALLY_PREFIXES 4u

/* Names of tasks, which are the results'. */
struct tally_tasks {
    const char *v[TALLY_LIST_MAX];
    size_t n;
};

/* Which items; NULL and TALLY_ANY: all. */
struct tally_filter {
    enum results_kind kind;
    const struct grid_cell *cell;
    const char *task;
    const struct tally_tasks *tasks; /* one of these */
    uint64_t length, depth, offset;
};
/* Of a kind, all others any. */
struct tally_filter tally_all(enum results_kind kind);

struct tally {
    size_t n;          /* items with a score */
    size_t n_too_long; /* items that did not fit into the window */
    double sum;        /* of scores */
    /* Of those that full attention was asked too. */
    size_t n_pairs;
    double pairs_sum, full_sum;
    double added_p50, added_p99; /* time to the first token beyond full attention's, in seconds */
    double held;                 /* keys that stand for the prompt, in parts of its tokens */
    double hydrated;             /* tokens as they were for the question, likewise */
    /* Right from the first digit on: shares of tally_prefixes digits. */
    double prefix[TALLY_PREFIXES];
    size_t n_prefix;
    /* of RESULTS_PPL, weighed by tokens */
    double nll;
    uint64_t n_scored;
    double by_segment[RESULTS_BINS], by_quarter[RESULTS_QUARTERS]; /* means of windows */
};
extern const unsigned tally_prefixes[TALLY_PREFIXES];

int tally_make(const struct results *r, const struct tally_filter *f, struct tally *ret);

/* What there is, each once, in the order of the file; numbers ascend. */
struct tally_cells {
    struct grid_cell v[GRID_CELLS_MAX];
    size_t n;
};
void tally_cells(const struct results *r, const struct tally_filter *f, struct tally_cells *ret);
void tally_tasks(const struct results *r, const struct tally_filter *f, struct tally_tasks *ret);
struct tally_numbers {
    uint64_t v[TALLY_LIST_MAX];
    size_t n;
};
enum tally_of { TALLY_LENGTH, TALLY_DEPTH, TALLY_OFFSET };
void tally_numbers(const struct results *r, const struct tally_filter *f, enum tally_of of,
                   struct tally_numbers *ret);

#endif
