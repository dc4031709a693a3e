#include "eval/stats.h"

#include <math.h>
#include <stdlib.h>

#define Z 1.959963984540054 /* 97.5 % of a normal distribution lie below */

/* Not the normal approximation: of 6 right answers of 6 that would say "between 1 and 1". */
struct stats_interval stats_wilson(double sum, size_t n)
{
    double count = (double)n, share, middle, half;

    if (n == 0)
        return (struct stats_interval){ 0, 1 };
    share = sum / count;
    middle = (share + Z * Z / (2 * count)) / (1 + Z * Z / count);
    half =
        Z / (1 + Z * Z / count) * sqrt(share * (1 - share) / count + Z * Z / (4 * count * count));
    return (struct stats_interval){ fmax(0, middle - half), fmin(1, middle + half) };
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double stats_percentile(double *v, size_t n, double p)
{
    size_t at;

    if (n == 0)
        return NAN;
    qsort(v, n, sizeof(*v), compare);
    at = (size_t)ceil(p / 100 * (double)n);
    return v[at > 0 ? at - 1 : 0];
}
