/* Rows are cheap up to a point that depends on the machine, the model's format and the context: a
 * few rows share one pass over the weights, more of them cost what their products cost. A table of
 * measured times knows that point; a formula would not. Machines change their speed, so a time that
 * was not measured for a while counts no more than one that never was.
 */
#include "daemon/draft.h"

#include "base/options.h"

#include <errno.h>

#define COST_WEIGHT 0.2  /* of a new time */
#define COST_FIRST  0.5  /* the same where there was none */
#define COST_STEPS  256u /* after which an old one is forgotten */
#define COST_MOST   2.0  /* times what was expected: more is the machine's doing, not the rows' */
#define COST_ROW    0.1  /* of a step with one row: what another one is taken to cost at first */

#define RATE_WEIGHT 0.1f /* of a new token */
#define RATE_FIRST  0.5f
#define PAUSE_FIRST 8u
#define PAUSE_MOST  128u
#define TRY_TOKENS  2u /* of a guess that is only a try */

int draft_read(const char *text, uint32_t *ret, struct why *why)
{
    if (!options_read_auto(text, DRAFT_MAX, ret))
        return why_set(why, -EINVAL, "found '%.64s', expected auto, off or a number from 0 to %u",
                       text, DRAFT_MAX);
    return 0;
}

uint32_t draft_setting(uint32_t daemon, uint32_t asked)
{
    return asked < daemon ? asked : daemon; /* off, a number, auto: in this order */
}

void draft_rate_init(struct draft_rate *r)
{
    *r = (struct draft_rate){ .pause = PAUSE_FIRST };
    for (uint32_t i = 0; i < DRAFT_CLASSES; i++)
        r->right[i] = RATE_FIRST;
}

uint32_t draft_class(uint32_t match)
{
    return match < 4 ? 0 : match < 8 ? 1 : match < 16 ? 2 : 3;
}

/* --- what rows cost --------------------------------------------------------------------------- */

/* That of one row is never forgotten: all others are measured against it, and it is timed whenever
 * nothing can be guessed. */
static bool is_known(const struct draft_cost *c, uint32_t n_rows)
{
    return c->at[n_rows] > 0 && (n_rows == 1 || c->n_steps - c->at[n_rows] < COST_STEPS);
}

/* Between the next known ones on both sides; past the last one as from the first to it, or as it is
 * taken to be. More rows are never taken to be cheaper than fewer. */
double draft_cost(const struct draft_cost *c, uint32_t n_rows)
{
    uint32_t below = n_rows, above = n_rows;
    double slope;

    while (below > 0 && !is_known(c, below))
        below--;
    while (above <= DRAFT_ROWS && !is_known(c, above))
        above++;
    if (below == n_rows && below > 0)
        return c->ns[n_rows];
    if (below == 0)
        return above > DRAFT_ROWS ? 0 : c->ns[above];
    slope = c->ns[below] * COST_ROW;
    if (above <= DRAFT_ROWS)
        slope = (c->ns[above] - c->ns[below]) / (above - below);
    else if (below > 1 && is_known(c, 1))
        slope = (c->ns[below] - c->ns[1]) / (below - 1);
    return c->ns[below] + (slope > 0 ? slope : 0) * (n_rows - below);
}

void draft_timed(struct draft_cost *c, uint32_t n_rows, uint64_t ns)
{
    double now = (double)ns, weight, before;

    if (n_rows == 0 || n_rows > DRAFT_ROWS)
        return;
    before = draft_cost(c, n_rows);
    if (before > 0 && now > COST_MOST * before)
        now = COST_MOST * before;
    weight = is_known(c, n_rows) ? COST_WEIGHT : COST_FIRST;
    c->ns[n_rows] = before > 0 ? (1 - weight) * before + weight * now : now;
    c->at[n_rows] = ++c->n_steps;
}

/* --- how far ahead ---------------------------------------------------------------------------- */

/* Tokens a step makes, by what it takes: the first of a guess comes with the chance of its class,
 * each that follows with that of all before it. */
static uint32_t best_length(const struct draft_cost *c, double right, uint32_t n_rows, uint32_t n)
{
    double alone = draft_cost(c, n_rows), tokens = n_rows, chance = 1, best;
    uint32_t ret = 0;

    if (alone <= 0) /* not a step was timed: the first one is to be */
        return 0;
    best = tokens / alone;
    for (uint32_t k = 1; k <= n; k++) {
        double rate;

        chance *= right;
        tokens += chance;
        rate = tokens / draft_cost(c, n_rows + k);
        if (rate > best) {
            best = rate;
            ret = k;
        }
    }
    return ret;
}

uint32_t draft_length(struct draft_rate *r, const struct draft_cost *c, uint32_t class,
                      uint32_t n_rows, uint32_t n)
{
    uint32_t ret;

    if (n_rows + n > DRAFT_ROWS)
        n = n_rows < DRAFT_ROWS ? DRAFT_ROWS - n_rows : 0;
    if (n == 0)
        return 0;
    ret = best_length(c, (double)r->right[class], n_rows, n);
    if (ret == 0 && ++r->skipped >= r->pause) {
        ret = n < TRY_TOKENS ? n : TRY_TOKENS;
        r->skipped = 0;
        r->pause = r->pause < PAUSE_MOST ? 2 * r->pause : PAUSE_MOST;
    }
    return ret;
}

void draft_learn(struct draft_rate *r, uint32_t class, bool right)
{
    r->right[class] += RATE_WEIGHT * ((right ? 1 : 0) - r->right[class]);
    if (right)
        r->pause = PAUSE_FIRST;
}
