#include "daemon/lanes.h"

#include "daemon/sched.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ops tells an initialised one from zeros: lanes_leave may be called before this. */
void lanes_init(struct lanes *l, const struct request_ops *ops, lane_begin_fn *begin, uint32_t n)
{
    *l = (struct lanes){ .ops = ops, .begin = begin, .n = n };
    TAILQ_INIT(&l->open);
}

/* The whole's are sums, but for when the first token of all was there, and for the longest answer.
 */
static void add_usage(struct wire_usage *to, const struct wire_usage *u)
{
    to->computed_tokens += u->computed_tokens;
    to->generated_tokens += u->generated_tokens;
    to->drafted_tokens += u->drafted_tokens;
    to->accepted_tokens += u->accepted_tokens;
    if (u->first_token_ns && (!to->first_token_ns || u->first_token_ns < to->first_token_ns))
        to->first_token_ns = u->first_token_ns;
    if (u->generate_ns > to->generate_ns)
        to->generate_ns = u->generate_ns;
}

/* They are not freed here: whoever goes through the scheduler's list may stand at one of them. */
void lanes_leave(struct lanes *l)
{
    struct lane *x;

    while (l->ops && (x = TAILQ_FIRST(&l->open))) {
        TAILQ_REMOVE(&l->open, x, link);
        add_usage(&x->whole->usage, &x->request.usage);
        x->of = NULL;
        x->whole = NULL;
        x->request.cancelled = true;
    }
    l->n_open = 0;
}

bool lanes_ended(const struct lanes *l)
{
    return l->n_begun == l->n && l->n_open == 0;
}

bool lane_is_first(const struct lane *l)
{
    return !l->of || l == TAILQ_FIRST(&l->of->open);
}

/* Sessions that nobody opened are limited as those are that somebody did. */
static bool has_place(const struct sched *s, const struct request *whole, const struct lanes *l)
{
    const struct client *c = whole->client;

    /* The first needs no place: a whole would else wait for what may never be free. */
    if (l->n_open == 0)
        return true;
    return l->n_open < LANES_AT_ONCE && c->n_sessions + c->n_lanes < s->config->max_sessions &&
           owner_sessions(c->owner) + owner_lanes(c->owner) < s->owners.limits.sessions;
}

/* Into the scheduler's list and its client's, as any request, but not among the client's open ones:
 * these are found by id, and counted. */
static void insert(struct sched *s, struct lanes *l, struct lane *x)
{
    struct request *r = &x->request;

    x->session->busy = r;
    r->session = x->session;
    r->memory = &x->session->memory;
    TAILQ_INSERT_TAIL(&l->open, x, link);
    TAILQ_INSERT_TAIL(&s->active, r, link);
    TAILQ_INSERT_TAIL(&r->client->line, r, in_line);
    l->n_open++;
    r->client->n_lanes++;
    s->n_active++;
}

/* 0: it began, or there was nothing to do for it. Its id is the whole's, whose replies it sends;
 * its deadline and its cancel are the whole's as well (request_unwanted). */
static int begin(struct sched *s, struct request *whole, struct lanes *l)
{
    struct lane *x = calloc(1, sizeof(*x));
    int e;

    if (!x)
        return -ENOMEM;
    x->of = l;
    x->whole = whole;
    x->index = l->n_begun;
    x->request = (struct request){ .client = whole->client,
                                   .lane = x,
                                   .ops = l->ops,
                                   .phase = REQUEST_RUN,
                                   .priority = whole->priority,
                                   .id = whole->id,
                                   .arrived_ns = whole->arrived_ns,
                                   .times.number = whole->times.number };
    /* It gives x a session, or nothing is left to be undone but that. */
    e = l->begin(s, whole, x);
    if (e != 0) {
        session_free(x->session);
        free(x);
        return e < 0 ? e : 0;
    }
    insert(s, l, x);
    return 0;
}

/* A failure comes before anything else is begun: tell_whole left it here, since it was in a
 * step. */
int lanes_work(struct sched *s, struct request *whole, struct lanes *l)
{
    const struct wire_rep *error = &l->error;
    int any = 0, e;

    if (l->failed) {
        request_fail(s, whole, error->u.error.code,
                     (struct request_numbers){ error->u.error.had, error->u.error.asked,
                                               error->u.error.limit },
                     "%s", l->why);
        return 1;
    }
    for (; l->n_begun < l->n && has_place(s, whole, l); l->n_begun++) {
        e = begin(s, whole, l);
        if (e < 0) /* what those have that are open they give back */
            return l->n_open > 0 ? any : e;
        any = 1;
    }
    return any;
}

/* No run of its own: it was in phase RUN only so that its memory could have some. */
bool lanes_plan(struct sched *s, struct request *whole, uint32_t max, struct forward_run *ret)
{
    (void)max;
    (void)ret;
    whole->phase = REQUEST_WORK;
    s->lanes_woke = true;
    return false;
}

bool lane_speaks(const struct request *r)
{
    return !r->lane || r->lane->of;
}

/* What it ended with, before it is gone: the first failure is the whole's. */
static void tell_whole(struct sched *s, struct lane *x)
{
    const struct request *r = &x->request;
    struct lanes *l = x->of;

    TAILQ_REMOVE(&l->open, x, link);
    l->n_open--;
    s->lanes_woke = true;
    x->whole->times.ring += r->times.ring;
    add_usage(&x->whole->usage, &r->usage);
    if (l->failed || r->last.kind != WIRE_ERROR)
        return;
    l->failed = true;
    l->error = r->last;
    memcpy(l->why, r->text, sizeof(l->why));
}

/* In place of giving a client's place back (request_drop). */
void lane_free(struct sched *s, struct lane *x)
{
    x->request.client->n_lanes--;
    if (x->of)
        tell_whole(s, x);
    session_free(x->session);
    free(x);
}
