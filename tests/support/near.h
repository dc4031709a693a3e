/* tests/support/near.h - how far two floats are apart, and a NaN is never near anything.
 *
 * fmax drops a NaN, and every comparison with one is false: the largest distance so far, taken by
 * fmax, behind "if (worst > tolerance)" calls a row of NaNs equal to the reference. So a distance
 * is infinite when either side is not a number, and what is asserted is that it *is* within the
 * tolerance, never that it is not beyond. scripts/check-house looks for the other way.
 */
#ifndef TESTS_SUPPORT_NEAR_H
#define TESTS_SUPPORT_NEAR_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

/* |a - b|, or infinity if that is not a number: two equal infinities are not near either. */
static inline double near_distance(double a, double b)
{
    double d = fabs(a - b);

    return isnan(d) ? (double)INFINITY : d;
}

/* The larger of worst, which may have become NaN itself, and the distance of a and b. */
static inline double near_worse(double worst, double a, double b)
{
    double d = near_distance(a, b);

    return worst >= d ? worst : isnan(worst) ? (double)INFINITY : d;
}

/* The larger of worst and the distances of n pairs. */
static inline double near_worst(double worst, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        worst = near_worse(worst, (double)a[i], (double)b[i]);
    return worst;
}

static inline bool near_within(double a, double b, double tolerance)
{
    return near_distance(a, b) <= tolerance;
}

#endif
