/* eval/stats.h - what can be said of a few measurements.
 *
 * Threads    pure functions.
 */
#ifndef EVAL_STATS_H
#define EVAL_STATS_H

#include <stddef.h>

struct stats_interval {
    double low, high;
};

/* Wilson's interval of 95 % for the share that n tries with this sum found: tries of 0 or 1; for
 * those in between it is wider than it would have to be. n 0: from 0 to 1. */
struct stats_interval stats_wilson(double sum, size_t n);

/* The p-th percentile (0 to 100) of v, which is sorted for it: the smallest value that at least
 * that part of the values does not exceed. n 0: NAN. */
double stats_percentile(double *v, size_t n, double p);

#endif
