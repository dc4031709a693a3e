#include "daemon/batch.h"

#include "base/clock.h"
#include "daemon/log.h"
#include "daemon/sched.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

struct batch {
    struct forward_run runs[FORWARD_RUNS_MAX];
    struct request *requests[FORWARD_RUNS_MAX];
    bool upkeep[FORWARD_RUNS_MAX]; /* the run is its memory's, not the request's own */
    uint32_t n, n_decode;          /* the first n_decode runs decode */
    uint32_t n_rows, max_rows;
};

/* Something has to be done for the request's memory before it goes on. */
static bool behind(const struct request *r)
{
    return r->memory && memory_behind(r->memory);
}

static bool plan_upkeep(struct sched *s, struct request *r, uint32_t max, struct forward_run *ret)
{
    struct memory_need need;
    int e;

    if (r->cancelled)
        return false;
    e = memory_plan(r->memory, max, ret, &need);
    if (e < 0 && e != -EAGAIN) /* else it takes part in a later step */
        request_fail_need(s, r, &need, ret);
    return e == 0;
}

/* In at most max rows. */
static bool add(struct sched *s, struct batch *b, struct request *r, uint32_t max)
{
    struct forward_run *run = &b->runs[b->n];
    bool upkeep = behind(r);

    if (r->memory)
        max = seq_tokens_of_rows(r->memory->seq, max);
    if (b->n == FORWARD_RUNS_MAX || max == 0)
        return false;
    if (!(upkeep ? plan_upkeep(s, r, max, run) : r->ops->plan(s, r, max, run)))
        return false;
    assert(run->n_tokens > 0 && run->n_tokens <= max);
    b->upkeep[b->n] = upkeep;
    b->requests[b->n++] = r;
    b->n_rows += forward_run_rows(run);
    return true;
}

/* plan() may end a request (the context is full, say), and then it can be freed here. */
static void add_decoding(struct sched *s, struct batch *b)
{
    struct request *r, *next;

    for (r = TAILQ_FIRST(&s->active); r; r = next) {
        next = TAILQ_NEXT(r, link);
        if (r->phase != REQUEST_RUN || !r->ops->decode || behind(r))
            continue;
        if (!add(s, b, r, b->max_rows - b->n_rows))
            request_deliver(s, r);
    }
    b->n_decode = b->n;
}

static bool reads(const struct request *r, enum wire_priority p)
{
    return r->phase == REQUEST_RUN && (!r->ops->decode || behind(r)) && r->priority == p;
}

/* Requests of one priority that read, within budget tokens. Returns what they left of it. */
static uint32_t add_reading(struct sched *s, struct batch *b, enum wire_priority p, uint32_t budget)
{
    struct request *r, *next;
    uint32_t waiting = 0;

    TAILQ_FOREACH (r, &s->active, link)
        waiting += reads(r, p);
    for (r = TAILQ_FIRST(&s->active); r && waiting > 0; r = next) {
        uint32_t before = b->n_rows, share = budget / waiting;

        next = TAILQ_NEXT(r, link);
        if (!reads(r, p))
            continue;
        /* What the short ones leave goes to those behind them. */
        if (share < PACE_TOKENS_MIN)
            share = budget < PACE_TOKENS_MIN ? budget : PACE_TOKENS_MIN;
        waiting--;
        if (!add(s, b, r, share)) {
            request_deliver(s, r);
            continue;
        }
        r->in_prefill = true;
        budget -= b->n_rows - before;
    }
    return budget;
}

static void compose(struct sched *s, struct batch *b)
{
    struct request *r;
    uint32_t budget;

    TAILQ_FOREACH (r, &s->active, link)
        if (r->phase == REQUEST_RUN && r->memory)
            memory_settle(r->memory);
    b->n = b->n_rows = 0;
    b->max_rows = s->config->batch_tokens;
    add_decoding(s, b);
    if (s->decode_only && b->n_decode > 0)
        return;
    budget = pace_budget(&s->pace, b->n_decode > 0);
    if (budget > b->max_rows - b->n_rows)
        budget = b->max_rows - b->n_rows;
    budget = add_reading(s, b, WIRE_INTERACTIVE, budget);
    (void)add_reading(s, b, WIRE_BACKGROUND, budget);
}

/* Between two layers. */
static bool stop_step(void *arg)
{
    struct sched *s = arg;

    (void)sched_attend(s);
    return s->abandon;
}

static int run(struct sched *s, struct batch *b, uint32_t *ret_n_out)
{
    struct forward_stop stop = { stop_step, s };
    int r;

    s->in_step = true;
    s->abandon = false;
    r = forward_step(s->served.forward, b->runs, b->n, &stop, ret_n_out);
    s->in_step = false;
    for (uint32_t i = b->n_decode; i < b->n; i++)
        b->requests[i]->in_prefill = false;
    return r;
}

static void give_decoded(struct sched *s, struct batch *b)
{
    size_t n_vocab = s->served.model->n_vocab;

    for (uint32_t first = 0; first < b->n_decode; first += SCHED_LOGITS_ROWS) {
        uint32_t n = b->n_decode - first;

        if (n > SCHED_LOGITS_ROWS)
            n = SCHED_LOGITS_ROWS;
        forward_logits(s->served.forward, first, n, s->logits);
        for (uint32_t i = 0; i < n; i++) {
            struct request *r = b->requests[first + i];

            r->ops->token(s, r, s->logits + i * n_vocab);
        }
    }
}

static void give_read(struct sched *s, struct batch *b)
{
    uint32_t out = b->n_decode; /* every decoding run has one output */

    for (uint32_t i = b->n_decode; i < b->n; i++) {
        const struct forward_run *run = &b->runs[i];
        uint32_t n_out =
            run->want == FORWARD_WANT_ALL ? run->n_tokens : run->want == FORWARD_WANT_LAST;
        struct request *r = b->requests[i];

        if (!b->upkeep[i])
            r->ops->rows(s, r, out, n_out, run->n_tokens);
        out += n_out;
    }
}

/* Who was served goes to the end of the line, and what it has to say goes out. */
static void deliver(struct sched *s, struct batch *b)
{
    for (uint32_t i = 0; i < b->n; i++) {
        TAILQ_REMOVE(&s->active, b->requests[i], link);
        TAILQ_INSERT_TAIL(&s->active, b->requests[i], link);
        request_deliver(s, b->requests[i]);
    }
}

static void fail_all(struct sched *s, struct batch *b, int err)
{
    log_peer_error("a step of %u tokens for %u requests failed: %s", b->n_rows, b->n,
                   strerror(-err));
    for (uint32_t i = 0; i < b->n; i++)
        request_fail(s, b->requests[i], WIRE_E_INTERNAL, REQUEST_NO_NUMBERS,
                     "the model's step failed: %s", strerror(-err));
}

/* The step was given up: the next one only decodes, and the next that reads is spared if this one
 * read for others than who gave it up. */
static void abandoned(struct sched *s, const struct batch *b)
{
    s->decode_only = true;
    for (uint32_t i = b->n_decode; i < b->n; i++)
        s->spare |= !request_unwanted(b->requests[i]);
}

bool batch_run(struct sched *s)
{
    struct batch b;
    uint64_t start;
    uint32_t n_out;
    int r;

    compose(s, &b);
    s->decode_only = false;
    if (b.n == 0)
        return false;
    start = clock_ns();
    r = run(s, &b, &n_out);
    if (r == -ECANCELED) {
        abandoned(s, &b);
        return true;
    }
    if (b.n > b.n_decode)
        s->spare = false;
    if (r < 0) {
        fail_all(s, &b, r);
    } else {
        s->totals.steps++;
        for (uint32_t i = 0; i < b.n; i++)
            if (b.requests[i]->memory)
                memory_ran(b.requests[i]->memory, &b.runs[i]);
        give_decoded(s, &b);
        give_read(s, &b);
        pace_measured(&s->pace, b.n == b.n_decode ? 0 : b.n_rows, clock_ns() - start);
    }
    deliver(s, &b);
    return true;
}
