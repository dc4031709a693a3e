#include "daemon/portion.h"

#include "daemon/pace.h"

#include <stddef.h>

/* Who begins to want something has as much as the one who had least of those that were there:
 * neither what it used long ago nor the time that it was away counts. Before the first step with
 * anybody in it there is nobody to compare with, and counts stay as they are. */
void portion_turn(struct portion_list *l)
{
    uint64_t least = UINT64_MAX;
    struct portion *x;

    TAILQ_FOREACH (x, l, link)
        if (x->wants && x->waited && x->had < least)
            least = x->had;
    TAILQ_FOREACH (x, l, link) {
        if (x->wants && !x->waited && least != UINT64_MAX)
            x->had = least;
        x->waited = x->wants;
        x->wants = false;
    }
}

/* A walk for each part of a step: owners, and units of one, are few. The caller sets n_waiting of
 * the one that it got to 0, and asks again. */
struct portion *portion_next(const struct portion_list *l, uint32_t *ret_n, uint64_t *ret_most)
{
    struct portion *x, *best = NULL;

    *ret_n = 0;
    *ret_most = 0;
    TAILQ_FOREACH (x, l, link) {
        if (x->n_waiting == 0)
            continue;
        ++*ret_n;
        if (x->had > *ret_most)
            *ret_most = x->had;
        if (!best || x->had < best->had)
            best = x;
    }
    return best;
}

/* What is left counts with the next: a slow model's row takes longer than most of what is charged.
 */
void portion_spent(struct portion *x, uint64_t ns, double ns_per_row)
{
    uint64_t rows;

    x->spent_ns += ns;
    if (ns_per_row <= 0 || (double)x->spent_ns < ns_per_row)
        return;
    rows = (uint64_t)((double)x->spent_ns / ns_per_row);
    ns = (uint64_t)((double)rows * ns_per_row);
    x->had += rows;
    x->spent_ns -= ns < x->spent_ns ? ns : x->spent_ns;
}

/* n > 0. With more readers than parts of PACE_TOKENS_MIN the last ones get nothing in this step:
 * lines turn, so they are the first of the next one. */
uint32_t portion_even(uint32_t tokens, uint32_t n)
{
    uint32_t part = tokens / n;

    if (part >= PACE_TOKENS_MIN)
        return part;
    return tokens < PACE_TOKENS_MIN ? tokens : PACE_TOKENS_MIN;
}

/* Even parts alone would be enough if everybody could use them; but a chunk ends where a segment
 * does, and what it leaves goes to others in the same step. Half a part at a time, and nobody is
 * kept waiting by who catches up. */
uint32_t portion_part(const struct portion *x, uint32_t tokens, uint32_t n, uint64_t most)
{
    uint32_t part = portion_even(tokens, n);
    uint64_t behind = most - x->had;

    part += behind < part / 2 ? (uint32_t)behind : part / 2;
    return part < tokens ? part : tokens;
}
