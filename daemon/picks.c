/* All of a batch's rows, or none: logits of one row cost a pass over the output matrix as those of
 * several do, and one that needs its row would make two passes of one. */
#include "daemon/picks.h"

#include "daemon/request.h"
#include "daemon/sched.h"

#include <errno.h>
#include <stdlib.h>

/* Made at start (picks_open): serving allocates nothing. */
struct picks {
    struct sampler_ask asks[SCHED_LOGITS_ROWS];
    struct sampler_found found[SCHED_LOGITS_ROWS];
    uint32_t ids[SCHED_LOGITS_ROWS][SAMPLER_REPEAT_MAX];
    struct sampler_candidate candidates[SCHED_LOGITS_ROWS][SAMPLER_CANDIDATES_MAX];
};

int picks_open(struct picks **ret, const struct backend *b)
{
    *ret = b->ops->pick ? malloc(sizeof(**ret)) : NULL;
    return b->ops->pick && !*ret ? -ENOMEM : 0;
}

void picks_close(struct picks *p)
{
    free(p);
}

/* False as soon as one of them needs its row. */
static bool ask_all(struct sched *s, struct request *const *requests, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        struct request *r = requests[i];

        if (!r->ops->asks || !r->ops->asks(s, r, s->picks->ids[i], &s->picks->asks[i]))
            return false;
    }
    return true;
}

/* It found more than it has room for: a row that is nearly flat. */
static void give_row(struct sched *s, struct request *r, uint32_t output)
{
    int e = forward_logits(&s->served.forward, output, 1, s->logits);

    if (e < 0)
        request_fail_step(s, r, e);
    else
        r->ops->token(s, r, s->logits);
}

bool picks_give(struct sched *s, struct request *const *requests, uint32_t first, uint32_t n)
{
    struct picks *p = s->picks;
    int e;

    if (!p || !ask_all(s, requests, n))
        return false;
    e = forward_pick(&s->served.forward, first, n, p->asks, p->found, p->candidates[0]);
    for (uint32_t i = 0; i < n; i++) {
        struct request *r = requests[i];

        if (e < 0)
            request_fail_step(s, r, e);
        else if (p->found[i].n > SAMPLER_CANDIDATES_MAX)
            give_row(s, r, first + i);
        else
            r->ops->picked(s, r, &p->found[i], p->candidates[i]);
    }
    return true;
}
