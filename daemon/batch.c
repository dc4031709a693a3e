/* Continuous batching: who decodes and who reads share each pass over the weights, which costs
 * nearly the same for a few rows as for one. A row is a token, or a gist that is read for one. Who
 * takes part is decided anew in every step from the line of active requests, so that a request
 * which begins, ends or is cancelled needs no place in a plan to be made or unmade.
 */
#include "daemon/batch.h"

#include "base/clock.h"
#include "daemon/batch_inner.h"
#include "daemon/generate.h"
#include "daemon/hydrate.h"
#include "daemon/log.h"
#include "daemon/masker.h"
#include "daemon/room.h"
#include "daemon/sched.h"
#include "engine/file/stream.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* Runs of a step that are kept for those who read. */
#define READING_RUNS 32u

/* The background has a token for so many that are read before it. */
#define BACKGROUND_PART 8u

/* So many of its steps in a row are given up for who comes; the next is so much shorter. */
#define GIVEN_MAX  4u
#define GIVEN_PART 16u

/* A step that is not given up, as the last one was, takes so little of its time. */
#define SPARED_PART 2u

/* Something has to be done for the request's memory before it goes on: a segment is to be
 * compressed, say, and its gists are read by the model like any other tokens. Its runs are upkeep:
 * rows are its owner's, and the request hears nothing of them. */
static bool behind(const struct request *r)
{
    return request_away(r) || (r->memory && memory_behind(r->memory));
}

/* It may have a part in a step: its own, or one for a memory that comes back before it begins. */
static bool runs(const struct request *r)
{
    return r->phase == REQUEST_RUN || (r->phase == REQUEST_WORK && request_away(r));
}

/* Its turn goes on between steps (daemon/ranking.h), and what it takes there is charged to who has
 * wanted something all the time. */
static bool ranks(const struct request *r)
{
    return r->phase == REQUEST_WORK && r->ranking;
}

/* It is interactive, or one that is waits for what it reads. */
static bool urgent(const struct request *r)
{
    return r->priority == WIRE_INTERACTIVE || (r->reader && r->reader->hurried);
}

/* What was away has no pages to come back to, and has ended with what it has. */
static bool is_cut(struct sched *s, struct request *r)
{
    return request_away(r) && r->ops == &request_generate && !served_lost(&s->served) &&
           generate_cut(s, r);
}

/* False: it has no part in this step. It is cancelled, pages will come, a scratch will be free; or
 * it was failed. */
static bool plan_upkeep(struct sched *s, struct batch *b, struct request *r, uint32_t max,
                        struct forward_run *ret)
{
    struct memory_need need;
    int e;

    if (r->cancelled) /* reap ends it before the next step */
        return false;
    e = memory_plan(r->memory, max, ret, &need);
    /* MEMORY_CLIENT as well: there may be no more than what is kept for who has few. */
    if (e == -ENOSPC && need.cause != MEMORY_BUDGET &&
        room_comes(s, r, r->memory->seq->account, need.wanted)) {
        b->waits = true;
    } else if (e == -ENOSPC && need.cause != MEMORY_BUDGET && request_away(r) &&
               room_to_go(s, r, need.wanted)) {
        b->waits = true;       /* others may go on */
    } else if (e == -EAGAIN) { /* it takes part in a later step */
        b->waits = true;
        s->hurry |= urgent(r);
    } else if (e == -ENOSPC) {
        if (need.cause == MEMORY_BUDGET || !is_cut(s, r))
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

/* Its first part in a step. Its time in the queue ends, less what it waited for a disk. */
static void begins(struct sched *s, struct request *r)
{
    struct trace_times *t = &r->times;

    t->began_at = clock_ns();
    meter_add(&s->meter.queue[r->priority], t->began_at - r->arrived_ns - t->restore);
}

/* What gave its pages to others: first what the store has of it, which rings, then the rest is read
 * again like what a rewind has left. False: not yet. What has come is settled before more is read,
 * or the request goes on with it, in the next step. */
static bool comes_back(struct sched *s, struct batch *b, struct request *r)
{
    struct trace_times *t = &request_whole(r)->times;
    struct memory *m = r->memory;

    r->was_away = true;
    if (r->cancelled || m->away.state == AWAY_READING)
        return !r->cancelled;
    if (m->away.state == AWAY_GONE) {
        trace_waits(t);
        if (!room_to_come(s, r)) /* who is at work ends in a step */
            return false;
    }
    if (away_come(m) == -EAGAIN)
        return false;
    trace_waited(t, &t->restore);
    b->waits = true;
    return false;
}

/* In at most max rows. False: it has no part in this step, or it was failed. The next in line is
 * asked all the same: one that waits for pages, or for its reader, holds up nobody. */
static bool add(struct sched *s, struct batch *b, struct request *r, uint32_t max)
{
    struct forward_run *run = &b->runs[b->n];
    bool upkeep, has;

    if (request_away(r) && !comes_back(s, b, r))
        return false;
    upkeep = behind(r);
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
    /* Who has just ended gives back what others may wait for (daemon/room.h). */
    b->waits |= ranks(r) || r->phase == REQUEST_LAST;
    if (!has)
        return false;
    if (!request_whole(r)->times.began_at)
        begins(s, request_whole(r));
    assert(run->n_tokens > 0 && run->n_tokens <= max);
    if (r->memory && !upkeep)
        memory_watch(r->memory, run);
    b->upkeep[b->n] = upkeep;
    b->requests[b->n++] = r;
    b->n_rows += forward_run_rows(run);
    b->n_pages += plan_run_pages(run);
    return true;
}

/* Of its client's line, from r on, the first that decodes. */
static struct request *next_decoding(struct request *r)
{
    while (r && (r->phase != REQUEST_RUN || !r->ops->decode || behind(r)))
        r = TAILQ_NEXT(r, in_line);
    return r;
}

/* A token of one of the owner's. plan() may end a request (the context is full, say), and then it
 * can be freed here: who is next is known before. False: it has none left. */
static bool add_token(struct sched *s, struct batch *b, struct owner *o, uint32_t max_rows)
{
    struct client *c = owner_next(o);
    struct request *r = c ? c->next : NULL;

    if (!r)
        return false;
    c->next = next_decoding(TAILQ_NEXT(r, in_line));
    if (!add(s, b, r, max_rows - b->n_rows))
        request_deliver(s, r);
    return true;
}

/* Who decodes, before anybody reads: each adds one row to a pass that is made anyway, while a token
 * that is late is seen by the person who reads the answer. In turn an owner, of each a unit, of
 * each a client, of each a session, until all are in or there is no more room: then each owner has
 * as many as it wants, or no fewer than any other, and so on within it. Who is left out is first in
 * its line. */
static void add_decoding(struct sched *s, struct batch *b, uint32_t max_rows, uint32_t max_runs)
{
    struct owner *o;
    struct client *c;
    bool any = true;

    TAILQ_FOREACH (c, &s->clients, link) {
        c->next = next_decoding(TAILQ_FIRST(&c->line));
        c->unit->next = TAILQ_FIRST(&c->unit->clients);
    }
    TAILQ_FOREACH (o, &s->owners.list, link)
        o->next = TAILQ_FIRST(&o->units);
    while (any) {
        any = false;
        TAILQ_FOREACH (o, &s->owners.list, link)
            if (b->n < max_runs && b->n_rows < max_rows)
                any |= add_token(s, b, o, max_rows);
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

/* It has just come, and all that it reads are so many tokens. */
static bool is_quick(const struct request *r, uint32_t most)
{
    return r->ops->left && !r->times.began_at && !behind(r) && r->ops->left(r) <= most;
}

/* An answer whose memory has to be compressed reads for a while. */
static bool reads(const struct sched *s, const struct request *r, enum wire_priority p)
{
    return runs(r) && (!r->ops->decode || behind(r)) && class_of(s, r) == p &&
           (s->quick == 0 || is_quick(r, s->quick));
}

/* Counts those of one priority: a client's requests, a unit's clients, an owner's units. */
static void count_reading(struct sched *s, enum wire_priority p)
{
    struct client *c;
    struct request *r;
    struct portion *x;

    TAILQ_FOREACH (x, &s->owners.portions, link)
        x->n_waiting = 0;
    TAILQ_FOREACH (c, &s->clients, link)
        c->unit->portion.n_waiting = 0;
    TAILQ_FOREACH (c, &s->clients, link) {
        c->n_waiting = 0;
        TAILQ_FOREACH (r, &c->line, in_line)
            c->n_waiting += reads(s, r, p);
        if (c->n_waiting > 0 && c->unit->portion.n_waiting++ == 0)
            c->owner->portion.n_waiting++;
    }
}

static uint32_t left_of(uint32_t tokens, uint32_t n_rows)
{
    return n_rows < tokens ? tokens - n_rows : 0;
}

/* How many rows a client's requests took of so many tokens, and of a unit's clients and an owner's
 * units the same. The next one is known before add(): plan() may end a request, and then it is
 * freed here. */
static uint32_t read_of_client(struct sched *s, struct batch *b, struct client *c,
                               enum wire_priority p, uint32_t tokens)
{
    struct request *r, *next;
    uint32_t begin = b->n_rows;

    for (r = TAILQ_FIRST(&c->line); r && c->n_waiting > 0; r = next) {
        uint32_t left = left_of(tokens, b->n_rows - begin);

        next = TAILQ_NEXT(r, in_line);
        if (!reads(s, r, p))
            continue;
        if (add(s, b, r, portion_even(left, c->n_waiting--)))
            r->in_prefill = true;
        else
            request_deliver(s, r);
    }
    return b->n_rows - begin;
}

static uint32_t read_of_unit(struct sched *s, struct batch *b, struct unit *u, enum wire_priority p,
                             uint32_t tokens)
{
    uint32_t left = tokens, n = u->portion.n_waiting;
    struct client *c;

    TAILQ_FOREACH (c, &u->clients, of_unit)
        if (c->n_waiting > 0)
            left = left_of(left, read_of_client(s, b, c, p, portion_even(left, n--)));
    u->portion.n_waiting = 0;
    return tokens - left;
}

static uint32_t read_of_owner(struct sched *s, struct batch *b, struct owner *o,
                              enum wire_priority p, uint32_t tokens)
{
    uint32_t left = tokens, n;
    struct portion *x;
    uint64_t most;

    while ((x = portion_next(&o->units, &n, &most)))
        left -= read_of_unit(s, b, x->of, p, portion_part(x, left, n, most));
    o->portion.n_waiting = 0;
    return tokens - left;
}

/* Requests of one priority that read, within budget tokens. Returns what they left of it. Even
 * shares, of owners, units, clients and requests, and not one after the other: a short question
 * behind somebody's long document is answered after a few steps. What the short ones leave goes to
 * those behind them. */
static uint32_t add_reading(struct sched *s, struct batch *b, enum wire_priority p, uint32_t budget)
{
    struct portion *x;
    uint64_t most;
    uint32_t n;

    if (b->n_reading[p] == 0)
        return budget;
    count_reading(s, p);
    while ((x = portion_next(&s->owners.portions, &n, &most)))
        budget -= read_of_owner(s, b, x->of, p, portion_part(x, budget, n, most));
    return budget;
}

/* What the background may have of a budget when others read as well: for every 8 tokens of theirs
 * one, saved up until it is worth a step. It was asked to wait, but not for ever. */
static uint32_t take_owed(struct sched *s, uint32_t budget)
{
    uint32_t part = s->owed / BACKGROUND_PART;

    part -= part % PACE_TOKENS_MIN;
    if (part > budget)
        part = budget;
    s->owed -= part * BACKGROUND_PART;
    return part;
}

/* A text that somebody waits for is encoded by slices, one between two steps: behind long ones it
 * would take seconds. */
static bool encodes(const struct sched *s)
{
    const struct request *r;

    TAILQ_FOREACH (r, &s->active, link)
        if (r->phase == REQUEST_WORK && r->session && r->priority == WIRE_INTERACTIVE)
            return true;
    return false;
}

/* A question that has come beside documents has waited for the step that they were in, and would
 * for another one that they share with it: its own part comes first, in a step of its own, which is
 * as short as it is. Not twice in a row, so that questions that keep coming stop nobody. The most
 * tokens that it may have; 0: all read. */
static uint32_t quick_part(const struct sched *s, const struct batch *b, uint32_t budget)
{
    uint32_t n = b->n_reading[WIRE_INTERACTIVE], n_quick = 0, most;
    const struct request *r;

    if (s->was_quick || n < 2)
        return 0;
    most = portion_even(budget, n);
    TAILQ_FOREACH (r, &s->active, link)
        n_quick += reads(s, r, WIRE_INTERACTIVE) && is_quick(r, most);
    return n_quick < n ? most : 0;
}

/* Interactive ones first. The background has the rest only of a step that none of them reads in: it
 * would last longer for who waits for it. */
static void add_all_reading(struct sched *s, struct batch *b, uint32_t budget)
{
    bool waits = b->n_reading[WIRE_BACKGROUND] > 0;
    uint32_t owed = waits ? take_owed(s, budget) : 0, left;

    left = add_reading(s, b, WIRE_INTERACTIVE, budget - owed);
    if (!waits) {
        s->owed = 0;
    } else if (b->n > b->n_decode) {
        s->owed += budget - owed - left;
        (void)add_reading(s, b, WIRE_BACKGROUND, owed);
    } else {
        if (s->n_given >= GIVEN_MAX || encodes(s))
            budget = portion_even(budget, GIVEN_PART);
        (void)add_reading(s, b, WIRE_BACKGROUND, budget);
        s->yields = b->n_decode == 0 && s->n_given < GIVEN_MAX;
    }
}

/* Those of the step: a unit's answers, an owner's units. Returns how many owners there are. */
static uint32_t count_answers(const struct batch *b)
{
    uint32_t n_owners = 0;

    for (uint32_t i = 0; i < b->n; i++) {
        const struct client *c = b->requests[i]->client;

        c->owner->portion.n_waiting = c->unit->portion.n_waiting = 0;
    }
    for (uint32_t i = 0; i < b->n; i++) {
        const struct client *c = b->requests[i]->client;

        if (c->unit->portion.n_waiting++ == 0)
            n_owners += c->owner->portion.n_waiting++ == 0;
    }
    return n_owners;
}

/* Guesses for those who decode. Not beside who reads: such a step is long enough. The rows that are
 * left to them are shared out as all rows are, by owners and units, and each unit's by its answers.
 */
static void add_drafts(struct sched *s, struct batch *b)
{
    uint32_t n_owners, left;

    if (s->draft == 0 || b->n > b->n_decode || b->n_rows >= DRAFT_ROWS)
        return;
    n_owners = count_answers(b);
    left = (b->max_rows < DRAFT_ROWS ? b->max_rows : DRAFT_ROWS) - b->n_rows;
    for (uint32_t i = 0; i < b->n; i++) {
        struct request *r = b->requests[i];
        struct forward_run *run = &b->runs[i];
        uint32_t had = forward_run_rows(run), max = left / n_owners;

        max = max / r->client->owner->portion.n_waiting / r->client->unit->portion.n_waiting;
        if (b->upkeep[i] || !r->ops->drafts)
            continue;
        max = seq_tokens_of_rows(r->memory->seq, max);
        if (max == 0)
            continue;
        r->ops->drafts->add(s, r, b->n_rows, max, run);
        if (run->n_drafts > 0)
            memory_watch(r->memory, run);
        b->n_rows += forward_run_rows(run) - had;
    }
}

/* What memories can do without the model, within a time that all of them share; and who wants what
 * of this step. In this order: turns are of who wants something, haste of who is followed, and
 * classes of requests follow from both. */
static void settle(struct sched *s, struct batch *b)
{
    uint64_t settle_end = 0;
    struct request *r;

    TAILQ_FOREACH (r, &s->active, link) {
        b->waits |= ranks(r);
        if (runs(r) || ranks(r))
            r->client->owner->portion.wants = r->client->unit->portion.wants = true;
        if (!runs(r))
            continue;
        if (r->memory)
            memory_settle(r->memory, &settle_end);
        if (request_back(r) && r->phase == REQUEST_WORK) /* it is, now */
            b->waits = true;
    }
    owners_turn(&s->owners);
    follow_hurry(&s->follow);
    s->hurried = s->hurry; /* as the last step found it */
    s->hurry = false;
    TAILQ_FOREACH (r, &s->active, link)
        if (reads(s, r, class_of(s, r)))
            b->n_reading[class_of(s, r)]++;
}

/* Where somebody reads, decoding leaves it half of the step at least, or what it would have alone.
 * A step that decodes is kept short (PACE_STEP_NS), and so is one that is spared. */
static void compose(struct sched *s, struct batch *b)
{
    uint32_t max_rows = s->config->batch_tokens, budget, kept = 0;

    b->n = b->n_rows = b->n_pages = 0;
    b->n_reading[WIRE_INTERACTIVE] = b->n_reading[WIRE_BACKGROUND] = 0;
    b->waits = s->yields = false;
    s->n_scoring = 0;
    s->rank_left = HYDRATE_SLICE_IDS;
    b->max_rows = max_rows;
    settle(s, b);
    if (b->n_reading[WIRE_INTERACTIVE] + b->n_reading[WIRE_BACKGROUND] > 0)
        kept = max_rows / 2;
    if (kept > pace_budget(&s->pace, true))
        kept = pace_budget(&s->pace, true);
    add_decoding(s, b, max_rows - kept, FORWARD_RUNS_MAX - (kept ? READING_RUNS : 0));
    /* The last step was given up, and with it a token of each of these: that must not happen twice
     * in a row, however fast somebody sends prompts and cancels them. */
    if (s->decode_only && b->n_decode > 0)
        return;
    budget = pace_budget(&s->pace, b->n_decode > 0 || s->spare);
    if (s->spare)
        budget = portion_even(budget, SPARED_PART);
    if (budget > b->max_rows - b->n_rows)
        budget = b->max_rows - b->n_rows;
    s->quick = quick_part(s, b, budget);
    if (s->quick > 0)
        (void)add_reading(s, b, WIRE_INTERACTIVE, budget);
    s->was_quick = s->quick > 0 && b->n > b->n_decode;
    s->quick = 0;
    if (s->was_quick)
        return;
    add_all_reading(s, b, budget);
    add_drafts(s, b);
}

/* Between two layers. True: the step ends there, and all sequences are as they were before it. The
 * heart of an answer to a cancel: letters and frames are taken here, and s->abandon is what came of
 * them. */
static bool stop_step(void *arg)
{
    struct sched *s = arg;

    (void)sched_attend(s);
    return s->abandon;
}

/* What the answers' next tokens may be is found while the step computes. Only of answers that are
 * in the step: masks of others would be of no use to it. */
static void foresee(struct sched *s, struct batch *b)
{
    if (!s->masker)
        return;
    for (uint32_t i = 0; i < b->n_decode; i++)
        if (b->requests[i]->ops->foresee && !b->upkeep[i])
            b->requests[i]->ops->foresee(s, b->requests[i]);
    masker_go(s->masker);
}

static int run(struct sched *s, struct batch *b, uint32_t *ret_n_out)
{
    struct forward_stop stop = { stop_step, s };
    int r;

    /* From here on requests may come, but none may touch a sequence or a page: the step has
     * addresses of both (request.h, start). */
    s->in_step = true;
    s->abandon = s->gave_way = false;
    s->step_ns = clock_ns();
    foresee(s, b);
    r = forward_step(&s->served.forward, b->runs, b->n, &stop, ret_n_out);
    /* Also where the step was given up: the thread has forms of requests that may end now. */
    masker_wait(s->masker);
    s->in_step = false;
    for (uint32_t i = b->n_decode; i < b->n; i++)
        b->requests[i]->in_prefill = false;
    return r;
}

/* Its client, and so the unit and the owner, had n rows of a step; lost: which it gave up, and
 * others might have had its turn. portion.had decides whose turn it is; rows are what was computed,
 * for people. */
static void had(const struct client *c, uint32_t n, bool lost)
{
    c->owner->rows += lost ? 0 : n;
    c->owner->portion.had += n;
    c->unit->portion.had += n;
}

/* Who was served goes to the end of its line, its client to the end of its unit's, and that to the
 * end of its owner's. */
static void go_behind(struct sched *s, struct request *r)
{
    struct client *c = r->client;

    TAILQ_REMOVE(&s->active, r, link);
    TAILQ_INSERT_TAIL(&s->active, r, link);
    TAILQ_REMOVE(&c->line, r, in_line);
    TAILQ_INSERT_TAIL(&c->line, r, in_line);
    unit_served(&c->owner->units, c);
}

/* And what they have to say goes out. Lines first: request_deliver may free a request. */
static void deliver(struct sched *s, struct batch *b)
{
    for (uint32_t i = 0; i < b->n; i++)
        go_behind(s, b->requests[i]);
    for (uint32_t i = 0; i < b->n; i++)
        request_deliver(s, b->requests[i]);
}

/* The computation failed as a whole, and whose fault it was can't be told: those who took part are
 * failed, and the daemon serves on. */
static void fail_all(struct sched *s, struct batch *b, int err)
{
    log_peer_about(LOG_LEVEL_ERROR, &(struct journal_about){ .message = JOURNAL_STEP_FAILED },
                   "a step of %u tokens for %u requests failed: %s", b->n_rows, b->n,
                   strerror(-err));
    for (uint32_t i = 0; i < b->n; i++)
        request_fail_step(s, b->requests[i], err);
}

/* The step was given up: the next one only decodes, and the next that reads is spared if this one
 * read for others than who gave it up. Who did has had its turn: it would else be the first again
 * with its next prompt, and the only one where a step has a few tokens. One that gave way to who
 * came is none of their fault: but so many in a row are enough, and then the background has a short
 * one that lasts. */
static void abandoned(struct sched *s, const struct batch *b)
{
    if (s->gave_way) {
        s->n_given++;
        return;
    }
    s->decode_only = true;
    for (uint32_t i = b->n_decode; i < b->n; i++) {
        struct request *r = b->requests[i];

        s->spare |= !request_unwanted(r);
        if (!request_unwanted(r))
            continue;
        had(r->client, forward_run_rows(&b->runs[i]), true);
        go_behind(s, r);
    }
}

/* Before anybody hears of the outputs: the time is that of the step. An answer's first token came
 * with it, or before it from what the last append left. A whole with several lanes in a step was in
 * it once (step_at). */
static void clocked(struct sched *s, struct batch *b, uint64_t start, uint64_t now)
{
    for (uint32_t i = 0; i < b->n; i++) {
        struct request *r = b->requests[i];
        struct trace_times *t = &r->times, *all = &request_whole(r)->times;
        uint64_t *to = b->upkeep[i]      ? &all->compress
                       : i < b->n_decode ? &all->decode
                                         : &all->prefill;

        *to += all->step_at == start ? 0 : now - start;
        all->step_at = start;
        if (i >= b->n_decode || b->upkeep[i])
            continue;
        if (!t->token_at && r->usage.first_token_ns)
            t->token_at = r->arrived_ns + r->usage.first_token_ns;
        if (t->token_at)
            meter_add(&s->meter.between_tokens, now - t->token_at);
        t->token_at = now;
    }
}

/* Guesses are nobody's until they are found to be right. */
static void ran(struct memory *m, const struct forward_run *run)
{
    struct forward_run own = *run;

    own.n_tokens -= own.n_drafts;
    own.n_drafts = 0;
    memory_ran(m, &own);
}

/* What a token costs in a long chunk decides what is read back from the disk. Steps that only
 * decode tell what rows cost (drafts), those that read what tokens do (pace, tier). */
static void measured(struct sched *s, const struct batch *b, uint64_t ns, uint64_t waited)
{
    pace_measured(&s->pace, b->n == b->n_decode ? 0 : b->n_rows, ns - waited);
    if (b->n == b->n_decode)
        draft_timed(&s->draft_cost, b->n_rows, ns);
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

/* Before its requests hear of it: they may end. */
static bool reads_in_background(const struct sched *s, const struct batch *b)
{
    for (uint32_t i = b->n_decode; i < b->n; i++)
        if (class_of(s, b->requests[i]) == WIRE_BACKGROUND)
            return true;
    return false;
}

/* True: call again at once, something was done or will be. b lies on the stack, some 100 KB: a step
 * allocates nothing. */
bool batch_run(struct sched *s)
{
    struct batch b;
    uint64_t start, waited;
    uint32_t n_out, n_paused;
    int r;

    compose(s, &b);
    n_paused = s->n_paused; /* then, and before that when they worked */
    s->n_paused = 0;
    s->decode_only = false; /* once: the step that is composed here was spared */
    /* What somebody waits for may have come back when another one was failed, and nobody rings for
     * that: the next look finds it. */
    if (b.n == 0) {
        bool paused = n_paused > 0 && !s->stalled;

        /* Alone they end, in the next one. Who was told "not yet", or is ranked for, goes on. */
        s->stalled = paused && !b.waits;
        return b.waits || paused;
    }
    s->stalled = false;
    waited = waited_ns(s);
    start = clock_ns();
    r = run(s, &b, &n_out);
    /* Nothing is delivered: for all but who gave it up it never was. */
    if (r == -ECANCELED) {
        abandoned(s, &b);
        return true;
    }
    if (b.n > b.n_decode)
        s->spare = false;
    if (reads_in_background(s, &b))
        s->n_given = 0;
    if (r < 0) {
        fail_all(s, &b, r);
    } else {
        s->totals.steps++;
        /* Before any request hears of its outputs: it may ask its memory how long it is. */
        for (uint32_t i = 0; i < b.n; i++) {
            had(b.requests[i]->client, forward_run_rows(&b.runs[i]), false);
            if (b.requests[i]->memory)
                ran(b.requests[i]->memory, &b.runs[i]);
        }
        clocked(s, &b, start, clock_ns());
        batch_give(s, &b);
        measured(s, &b, clock_ns() - start, waited_ns(s) - waited);
    }
    deliver(s, &b);
    return true;
}
