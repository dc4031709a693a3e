/* What clients send, within a share of the time, and whether it ends the step that runs. */
#include "daemon/sched_inner.h"

#include "base/clock.h"
#include "daemon/metrics.h"

#include <errno.h>

/* Frames of one client a round: the next client's turn comes soon, however fast this one sends. A
 * count does when the model has nothing to do; while it has, the time that frames take is limited
 * as well (has_time). */
#define FRAMES_A_ROUND 16u

/* With every request at work nothing more is taken: what is in the ring waits there, and its sender
 * waits for room in it, which is all the back pressure that is needed. What has begun to come in is
 * one of the requests, and goes on. */
bool sched_takes_frames(const struct client *c)
{
    return !c->dead && c->chan && (c->receiving || c->n_requests < CLIENT_REQUESTS_ALL);
}

/* One frame, or one piece of its bulk. The frame is a private copy and is unpacked anew for each
 * piece: what an unpacked message points to lives in a scratch that all clients share. */
static bool receive_one(struct sched *s, struct client *c)
{
    int r = c->receiving ? 0 : chan_recv(c->chan, &c->msg);

    if (r == -EAGAIN)
        return false;
    /* Nothing in the ring can be believed from here on, so that not even an error can be sent. */
    if (r < 0) {
        client_broke(c, "a ring or a descriptor is out of bounds");
        return false;
    }
    s->latest = c;
    if (!s->in_step)
        seat_met(&s->seat, chan_shares_cpu(c->chan));
    request_receive(s, c, &c->msg);
    if (!c->receiving)
        chan_release(c->chan);
    return true;
}

/* Whether one more frame may be taken now; *began: this look has taken some, or tried to. Without
 * any request at work nobody waits for the model, and the clock is not looked at: reading it takes
 * a noticeable part of the time that a ping does. */
static bool has_time(struct sched *s, bool *began)
{
    bool first = !*began;

    if (s->n_active == 0)
        return true;
    *began = true;
    return first ? pace_earned(&s->pace, clock_ns()) : pace_spent(&s->pace, clock_ns());
}

/* Of one client. False: there is no time for more, and s->turn says who is next. */
static bool take_turn(struct sched *s, struct client *c, bool *began, bool *any)
{
    for (uint32_t i = 0; i < FRAMES_A_ROUND && sched_takes_frames(c) && chan_readable(c->chan);
         i++) {
        if (!has_time(s, began)) {
            s->turn = i > 0 ? TAILQ_NEXT(c, link) : c;
            return false;
        }
        if (!receive_one(s, c))
            break;
        *any = true;
    }
    return true;
}

/* The numbers that a scraper waits for are counted in the time that frames have: whoever asks for
 * them again and again holds up no step. */
static bool fill_scrape(struct sched *s, bool *began)
{
    struct mailbox_letter l = { .kind = MAILBOX_METRICS, .metrics = s->scrape };

    if (!s->scrape || !has_time(s, began))
        return false;
    metrics_fill(s->scrape, s);
    s->scrape = NULL;
    mailbox_put(s->outbox, &l);
    return true;
}

/* A round that ran out of time goes on with the next client and not with the first again, or those
 * at the head of the list would be the only ones that are heard beside a busy model. */
static bool take_frames(struct sched *s)
{
    struct client *c = s->turn;
    bool began = false, any = fill_scrape(s, &began);

    for (uint32_t n = s->n_clients; n > 0; n--) {
        if (!c)
            c = TAILQ_FIRST(&s->clients);
        if (!take_turn(s, c, &began, &any))
            break;
        c = TAILQ_NEXT(c, link);
    }
    /* The last one's cost, which may be more than there was: it is owed then. */
    if (began)
        (void)pace_spent(&s->pace, clock_ns());
    return any;
}

/* Whether to give up the step that runs: a prompt may take most of a second a step, which nobody
 * waits for any more. One that reads for others too is not given up twice in a row, or who reads
 * and cancels in turns would keep their prompts from being read. What decodes loses its token
 * either way, and has it in the next step, which only decodes (batch.c). */
static bool unwanted(const struct sched *s)
{
    bool some = false, all = true;
    struct request *r;

    TAILQ_FOREACH (r, &s->active, link) {
        if (!r->in_prefill)
            continue;
        if (request_unwanted(r))
            some = true;
        else
            all = false;
    }
    return some && (all || !s->spare);
}

/* Whether somebody has come, while a step reads in the background alone, who is not to wait for
 * that. Each comes once: who is still waiting when the next step begins waits for something else
 * than the model. */
static bool in_haste(const struct sched *s)
{
    const struct request *r;

    TAILQ_FOREACH_REVERSE(r, &s->active, request_list, link)
    {
        if (r->arrived_ns < s->step_ns)
            return false;
        if (r->session && r->priority == WIRE_INTERACTIVE && r->phase != REQUEST_LAST)
            return true;
    }
    return false;
}

/* Whether somebody has cancelled what this step has no part of: it ends between two steps, too. */
static bool withdrawn(const struct sched *s)
{
    const struct request *r;

    TAILQ_FOREACH (r, &s->active, link)
        if (r->cancelled && !r->in_prefill && r->phase == REQUEST_WORK)
            return true;
    return false;
}

bool sched_attend(struct sched *s)
{
    bool any = sched_take_letters(s);

    /* Here and not once a step, which may be long: who asks whether this thread is alive would take
     * a slow model for a dead one. One writer: no locked instruction. */
    atomic_store_explicit(&s->heartbeat,
                          atomic_load_explicit(&s->heartbeat, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    any |= take_frames(s);
    any |= request_expire(s);
    if (any && s->in_step && !s->abandon) {
        s->abandon = s->stopping || unwanted(s);
        s->gave_way = !s->abandon && s->yields && (in_haste(s) || withdrawn(s));
        s->abandon |= s->gave_way;
    }
    return any;
}
