/* Continuous batching: who decodes and who reads share each pass over the weights, which costs
 * nearly the same for a few rows as for one. A row is a token, or a gist that is read for one. Who
 * takes part is decided anew in every step from the line of active requests, so that a request
 * which begins, ends or is cancelled needs no place in a plan to be made or unmade.
 */
#include "daemon/batch.h"

#include "base/clock.h"
#include "daemon/log.h"
#include "daemon/sched.h"
#include "engine/file/stream.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

struct batch {
    struct forward_run runs[FORWARD_RUNS_MAX];
    struct request *requests[FORWARD_RUNS_MAX];
    bool upkeep[FORWARD_RUNS_MAX]; /* the run is its memory's, not the request's own */
    uint32_t n, n_decode;          /* the first n_decode runs decode */
    uint32_t n_rows, max_rows;
    uint32_t n_pages; /* that the runs look at */
    bool waits;       /* somebody was told "not yet" */
};

/* Something has to be done for the request's memory before it goes on: a segment is to be
 * compressed, say, and its gists are read by the model like any other tokens. */
static bool behind(const struct request *r)
{
    return r->memory && memory_behind(r->memory);
}

/* It is interactive, or one that is waits for what it reads. */
static bool urgent(const struct request *r)
{
    return r->priority == WIRE_INTERACTIVE || (r->reader && r->reader->hurried);
}

static bool plan_upkeep(struct sched *s, struct batch *b, struct request *r, uint32_t max,
                        struct forward_run *ret)
{
    struct memory_need need;
    int e;

    if (r->cancelled) /* reap ends it before the next step */
        return false;
    e = memory_plan(r->memory, max, ret, &need);
    if (e == -EAGAIN) { /* it takes part in a later step */
        b->waits = true;
        s->hurry |= urgent(r);
    } else if (e == -ENOSPC) {
        request_fail_need(s, r, &need, ret);
    } else if (e < 0) {
        request_fail_step(s, r, e);
    }
    return e == 0;
}

/* Forks of one long context list its pages for each of them, and any run may list as many as the
 * pool has. A plan has room for FORWARD_POOLS times as many: a reader is added while one of these
 * is free, an answer while two are. Answers behind a context that they share would else keep all
 * prompts from being read. */
static bool has_pages(const struct sched *s, const struct batch *b, bool decodes)
{
    return b->n_pages < (FORWARD_POOLS - (decodes ? 2 : 1)) * (uint64_t)s->served.pool.n_pages;
}

/* Its first part in a step. */
static void begins(struct sched *s, struct request *r)
{
    struct trace_times *t = &r->times;

    t->began_at = clock_ns();
    meter_add(&s->meter.queue[r->priority], t->began_at - r->arrived_ns - t->restore);
}

/* In at most max rows. False: it has no part in this step, or it was failed. The next in line is
 * asked all the same: one that waits for pages, or for its reader, holds up nobody. */
static bool add(struct sched *s, struct batch *b, struct request *r, uint32_t max)
{
    struct forward_run *run = &b->runs[b->n];
    bool upkeep = behind(r), has;

    if (r->memory)
        max = seq_tokens_of_rows(r->memory->seq, max);
    /* Who is left out is among the first of the next step. */
    if (b->n == FORWARD_RUNS_MAX || max == 0 || !has_pages(s, b, r->ops->decode && !upkeep))
        return false;
    has = upkeep ? plan_upkeep(s, b, r, max, run) : r->ops->plan(s, r, max, run);
    if (r->reader) /* not if it has just failed */
        follow_asked(r->reader, has);
    /* It has found out that its memory wants runs first: the next step has them. */
    if (!has && !upkeep && r->phase == REQUEST_RUN)
        b->waits |= behind(r);
    if (!has)
        return false;
    if (!r->times.began_at)
        begins(s, r);
    assert(run->n_tokens > 0 && run->n_tokens <= max);
    if (r->memory && !upkeep)
        memory_watch(r->memory, run);
    b->upkeep[b->n] = upkeep;
    b->requests[b->n++] = r;
    b->n_rows += forward_run_rows(run);
    b->n_pages += plan_run_pages(run);
    return true;
}

/* All that decode, before anybody reads: each adds one row to a pass that is made anyway, while a
 * token that is late is seen by the person who reads the answer. plan() may end a request (the
 * context is full, say), and then it can be freed here. */
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

/* Its own priority, or that of who waits for what it reads; but who has what an interactive one
 * waits for, or stands in line before it, is hurried: background may get nothing for as long as
 * prompts keep coming, and would have the interactive one wait as long. */
static enum wire_priority class_of(const struct sched *s, const struct request *r)
{
    if (urgent(r) || (s->hurried && r->memory && memory_in_line(r->memory)))
        return WIRE_INTERACTIVE;
    return r->priority;
}

/* An answer whose memory has to be compressed reads for a while. */
static bool reads(const struct sched *s, const struct request *r, enum wire_priority p)
{
    return r->phase == REQUEST_RUN && (!r->ops->decode || behind(r)) && class_of(s, r) == p;
}

/* Requests of one priority that read, within budget tokens. Returns what they left of it. Even
 * shares and not one after the other: a short question behind somebody's long document is answered
 * after a few steps. But none below a page's tokens, where a step costs more than it brings: then
 * those at the end of the line wait, and are at its head in a later step. */
static uint32_t add_reading(struct sched *s, struct batch *b, enum wire_priority p, uint32_t budget)
{
    struct request *r, *next;
    uint32_t waiting = 0;

    TAILQ_FOREACH (r, &s->active, link)
        waiting += reads(s, r, p);
    for (r = TAILQ_FIRST(&s->active); r && waiting > 0; r = next) {
        uint32_t before = b->n_rows, share = budget / waiting;

        next = TAILQ_NEXT(r, link);
        if (!reads(s, r, p))
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

/* Background gets what interactive reading leaves, which may be nothing for as long as prompts keep
 * coming: it was asked for so. */
static void compose(struct sched *s, struct batch *b)
{
    struct request *r;
    uint64_t settle_end = 0;
    uint32_t budget;

    TAILQ_FOREACH (r, &s->active, link)
        if (r->phase == REQUEST_RUN && r->memory)
            memory_settle(r->memory, &settle_end);
    follow_hurry(&s->follow);
    b->n = b->n_rows = b->n_pages = 0;
    b->waits = false;
    s->hurried = s->hurry; /* as the last step found it */
    s->hurry = false;
    b->max_rows = s->config->batch_tokens;
    add_decoding(s, b);
    /* The last step was given up, and with it a token of each of these: that must not happen twice
     * in a row, however fast somebody sends prompts and cancels them. */
    if (s->decode_only && b->n_decode > 0)
        return;
    budget = pace_budget(&s->pace, b->n_decode > 0);
    if (budget > b->max_rows - b->n_rows)
        budget = b->max_rows - b->n_rows;
    budget = add_reading(s, b, WIRE_INTERACTIVE, budget);
    (void)add_reading(s, b, WIRE_BACKGROUND, budget);
}

/* Between two layers. True: the step ends there, and all sequences are as they were before it. */
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

    /* From here on requests may come, but none may touch a sequence or a page: the step has
     * addresses of both (request.h, start). */
    s->in_step = true;
    s->abandon = false;
    r = forward_step(&s->served.forward, b->runs, b->n, &stop, ret_n_out);
    s->in_step = false;
    for (uint32_t i = b->n_decode; i < b->n; i++)
        b->requests[i]->in_prefill = false;
    return r;
}

/* The output matrix is a fifth and more of a small model's weights: one pass over it makes the
 * logits of as many answers as there are rows of scratch. */
static void give_decoded(struct sched *s, struct batch *b)
{
    size_t n_vocab = s->served.model->n_vocab;

    for (uint32_t first = 0; first < b->n_decode; first += SCHED_LOGITS_ROWS) {
        uint32_t n = b->n_decode - first;
        int r;

        if (n > SCHED_LOGITS_ROWS)
            n = SCHED_LOGITS_ROWS;
        r = forward_logits(&s->served.forward, first, n, s->logits);
        for (uint32_t i = 0; i < n; i++) {
            struct request *q = b->requests[first + i];

            if (r < 0)
                request_fail_step(s, q, r);
            else
                q->ops->token(s, q, s->logits + i * n_vocab);
        }
    }
}

/* Outputs lie in the order of the runs. What was read for a memory's own upkeep is the memory's
 * (memory_ran), and the request hears nothing of it. */
static void give_read(struct sched *s, struct batch *b)
{
    uint32_t out = b->n_decode; /* every decoding run has one output */

    for (uint32_t i = b->n_decode; i < b->n; i++) {
        const struct forward_run *run = &b->runs[i];
        uint32_t n_out = forward_n_out(run);
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

/* The computation failed as a whole, and whose fault it was can't be told: those who took part are
 * failed, and the daemon serves on. */
static void fail_all(struct sched *s, struct batch *b, int err)
{
    log_peer_error("a step of %u tokens for %u requests failed: %s", b->n_rows, b->n,
                   strerror(-err));
    for (uint32_t i = 0; i < b->n; i++)
        request_fail_step(s, b->requests[i], err);
}

/* The step was given up: the next one only decodes, and the next that reads is spared if this one
 * read for others than who gave it up. */
static void abandoned(struct sched *s, const struct batch *b)
{
    s->decode_only = true;
    for (uint32_t i = b->n_decode; i < b->n; i++)
        s->spare |= !request_unwanted(b->requests[i]);
}

/* Before anybody hears of the outputs: the time is that of the step. An answer's first token came
 * with it, or before it from what the last append left. */
static void clocked(struct sched *s, struct batch *b, uint64_t start, uint64_t now)
{
    for (uint32_t i = 0; i < b->n; i++) {
        struct request *r = b->requests[i];
        struct trace_times *t = &r->times;

        *(b->upkeep[i] ? &t->compress : i < b->n_decode ? &t->decode : &t->prefill) += now - start;
        if (i >= b->n_decode || b->upkeep[i])
            continue;
        if (!t->token_at && r->usage.first_token_ns)
            t->token_at = r->arrived_ns + r->usage.first_token_ns;
        if (t->token_at)
            meter_add(&s->meter.between_tokens, now - t->token_at);
        t->token_at = now;
    }
}

/* What a token costs in a long chunk decides what is read back from the disk. */
static void measured(struct sched *s, const struct batch *b, uint64_t ns, uint64_t waited)
{
    pace_measured(&s->pace, b->n == b->n_decode ? 0 : b->n_rows, ns - waited);
    if (s->served.tier && b->n > b->n_decode && b->n_rows >= PACE_TOKENS_MIN)
        tier_measured(s->served.tier, b->n_rows, ns);
}

/* What weights that pass through memory take to be there they take for any number of tokens:
 * counted as time of the tokens it would make steps of a few, and all of them wait as long. */
static uint64_t waited_ns(const struct sched *s)
{
    const struct stream *stream = s->served.model->stream;

    return stream ? stream_taken_ns(stream) : 0;
}

bool batch_run(struct sched *s)
{
    struct batch b;
    uint64_t start, waited;
    uint32_t n_out;
    int r;

    compose(s, &b);
    s->decode_only = false; /* once: the step that is composed here was spared */
    /* What somebody waits for may have come back when another one was failed, and nobody rings for
     * that: the next look finds it. */
    if (b.n == 0)
        return b.waits;
    waited = waited_ns(s);
    start = clock_ns();
    r = run(s, &b, &n_out);
    /* Nobody moves in the line, and nothing is delivered: for all but who gave it up it never was.
     */
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
        /* Before any request hears of its outputs: it may ask its memory how long it is. */
        for (uint32_t i = 0; i < b.n; i++) {
            b.requests[i]->client->owner->rows += forward_run_rows(&b.runs[i]);
            if (b.requests[i]->memory)
                memory_ran(b.requests[i]->memory, &b.runs[i]);
        }
        clocked(s, &b, start, clock_ns());
        give_decoded(s, &b);
        give_read(s, &b);
        measured(s, &b, clock_ns() - start, waited_ns(s) - waited);
    }
    deliver(s, &b);
    return true;
}
