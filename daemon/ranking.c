/* A ranking is made by calls of its request's work(), where those who encode have their slices, in
 * the same line and within the same time (WORK_NS). What is charged for it is counted where the
 * rows of steps are (daemon/portion.h): who has a long text ranked again and again reads less in
 * the steps that he shares with others. */
#include "daemon/ranking.h"

#include "base/clock.h"
#include "daemon/hydrate.h"
#include "daemon/rank.h"
#include "daemon/sched.h"

/* A slice takes no longer by itself: the thread was stopped, which is not its owner's fault. */
#define CHARGE_NS_MAX (10 * CLOCK_MS)

static bool slice(struct sched *s, const struct client *c, struct rank_job *j)
{
    uint64_t start = clock_ns(), ns;
    bool done = hydrate_rank_go(j);

    ns = clock_ns() - start;
    if (ns > CHARGE_NS_MAX)
        ns = CHARGE_NS_MAX;
    portion_spent(&c->owner->portion, ns, s->pace.ns_per_token);
    portion_spent(&c->unit->portion, ns, s->pace.ns_per_token);
    return done;
}

/* Short ones take no turn: each would cost its answer a step. */
static bool at_once(struct sched *s, const struct client *c, struct ranking *k)
{
    uint64_t left = rank_left(k->job);

    if (left > s->rank_left)
        return false;
    s->rank_left -= left;
    while (!slice(s, c, k->job))
        ;
    return true;
}

bool ranking_ready(struct sched *s, struct request *r, struct ranking *k, const struct memory *m,
                   const uint32_t *ids, uint32_t n)
{
    if (r->ranking)
        return false;
    if (k->job && hydrate_is_ranked(m, k->job))
        return true;
    ranking_drop(r, k);
    k->job = hydrate_rank_begin(m, ids, n);
    if (!k->job || at_once(s, r->client, k))
        return true;
    k->from = r->phase;
    r->phase = REQUEST_WORK;
    r->ranking = k;
    return false;
}

bool ranking_go(struct sched *s, struct request *r, struct ranking *k)
{
    if (!r->ranking)
        return true;
    if (!slice(s, r->client, k->job))
        return false;
    r->ranking = NULL;
    r->phase = k->from;
    return true;
}

void ranking_drop(struct request *r, struct ranking *k)
{
    rank_drop(k->job);
    k->job = NULL;
    if (r->ranking == k)
        r->ranking = NULL;
}
