#include "engine/kv/largest.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

/* The n-th largest of len numbers, n >= 1; x is put into another order. Quickselect with three
 * parts,
 *
 *     lo .. more   larger than the pivot
 *     more .. i    equal to it
 *     i .. less    not looked at yet
 *     less .. hi   smaller
 *
 * so that equal numbers are set apart in every round: keys that nobody looked at are all zeros, and
 * with two parts it takes quadratic time on those. Not qsort, which may call malloc. */
static float nth_largest(float *x, uint32_t len, uint32_t n)
{
    uint32_t lo = 0, hi = len; /* it is in [lo, hi), and what stands before is larger */

    for (;;) {
        float pivot = x[lo + (hi - lo) / 2];
        uint32_t more = lo, i = lo, less = hi;

        while (i < less) {
            float v = x[i];

            if (v > pivot) {
                x[i++] = x[more];
                x[more++] = v;
            } else if (v < pivot) {
                x[i] = x[--less];
                x[less] = v;
            } else {
                i++;
            }
        }
        if (n <= more)
            hi = more;
        else if (n > less)
            lo = less;
        else
            return pivot;
    }
}

/* Two passes: the n-th largest number, then all that are larger and as many equal ones as are still
 * wanted. From the last key to the first, as of equals the later ones stay. */
void largest_keep(const struct largest *k, uint32_t n_keys, uint32_t *ret)
{
    uint32_t n = n_keys - k->sinks, more = 0, at = n_keys;
    float least;

    for (uint32_t i = 0; i < k->sinks; i++)
        ret[i] = i;
    if (n == 0)
        return;
    for (uint32_t i = 0; i < k->len; i++)
        /* No comparison holds of a NaN: nth_largest would take it for an equal of any pivot, and
         * the counts of the two passes would differ. */
        if (isnan(k->weights[i]))
            k->weights[i] = -INFINITY;
    memcpy(k->order, k->weights, k->len * sizeof(*k->order));
    least = nth_largest(k->order, k->len, n);
    for (uint32_t i = 0; i < k->len; i++)
        more += k->weights[i] > least;
    for (uint32_t i = k->len; i-- > 0;) {
        bool equal = k->weights[i] == least && n > more;

        if (equal)
            n--;
        if (equal || k->weights[i] > least)
            ret[--at] = k->sinks + i;
    }
    assert(at == k->sinks);
}
