/* One thread owns all that clients share: pages, sequences, the model's scratch. So there is no
 * lock between two clients, and none between a client's death and what the model does for it; the
 * price is that nothing here may take long. Each thing a client can ask for is therefore either
 * short, or cut into slices, or part of a batch, and the time for each of the three is bounded
 * below.
 */
#include "daemon/sched.h"

#include "base/clock.h"
#include "daemon/batch.h"
#include "daemon/draws.h"
#include "daemon/kept.h"
#include "daemon/log.h"
#include "daemon/masker.h"
#include "daemon/metrics.h"
#include "daemon/notify.h"
#include "daemon/picks.h"
#include "daemon/tier.h"
#include "store/io.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Frames of one client a round: the next client's turn comes soon, however fast this one sends. A
 * count does when the model has nothing to do; while it has, the time that frames take is limited
 * as well (has_time). */
#define FRAMES_A_ROUND 16u

/* Time for encoding and the like in one step, while others wait for the model. Slices are short (16
 * KB of text), so that several requests have one; who has none yet is first in the next step. */
#define WORK_NS (5 * CLOCK_MS)

/* Time for writing what sessions hold when the daemon stops. */
#define STOP_NS (5 * CLOCK_S)

/* --- clients come and go ---------------------------------------------------------------------- */

/* Each ring of a bell is an edge and wakes once, and no bell is ever read: that would be a system
 * call a bell before each sleep, while somebody may wait for this very CPU. An eventfd counts rings
 * for ever, and who fills one up of his own (a client) is heard no more. */
static int hear(struct sched *s, int bell)
{
    struct epoll_event ev = { .events = EPOLLIN | EPOLLET };

    return epoll_ctl(s->epoll, EPOLL_CTL_ADD, bell, &ev) < 0 ? -errno : 0;
}

/* NULL: there is no memory for it. The channel is taken in either case: who was told by the control
 * thread that it is connected must see the channel's end, or it would wait for an answer for ever.
 */
static struct client *welcome(struct sched *s, const struct mailbox_letter *l)
{
    struct owner *owner = owner_ref(&s->owners, l->uid);
    struct client *c;

    if (!owner || client_new(l, owner, s->served.client_pages, s->config->client_text_bytes, &c)) {
        owner_unref(&s->owners, owner);
        chan_close(l->chan);
        return NULL;
    }
    chan_wait_by_edges(c->chan);
    if (hear(s, chan_doorbell(c->chan)) < 0) {
        client_free(c);
        owner_unref(&s->owners, owner);
        return NULL;
    }
    return c;
}

static void adopt(struct sched *s, const struct mailbox_letter *l)
{
    struct mailbox_letter gone = { .kind = MAILBOX_GONE, .client = l->client };
    struct client *c = welcome(s, l);

    free(l->unit);
    /* GONE all the same: the control thread counts it among the clients until it hears that. */
    if (!c) {
        log_peer_error("client %" PRIu64 " (pid %d): no memory to serve it", l->client,
                       (int)l->pid);
        mailbox_put(s->outbox, &gone);
        return;
    }
    TAILQ_INSERT_TAIL(&s->clients, c, link);
    s->n_clients++;
    log_debug("client %" PRIu64 " (pid %d, uid %u%s%s) connected", c->id, (int)c->pid,
              (unsigned)c->uid, c->unit->name[0] ? ", " : "", c->unit->name);
}

/* Its requests, sessions, pages and channel are free after this. Requests first, since they point
 * to sessions and charge the client's accounts, which assert that they are empty in the end. Never
 * in the middle of a step: the model may be writing to its pages (reap is called between steps). */
static void bury(struct sched *s, struct client *c)
{
    struct mailbox_letter gone = { .kind = MAILBOX_GONE, .client = c->id };
    struct owner *owner = c->owner;
    bool connected = c->chan;

    kept_leave(s, c);
    for (uint32_t i = 0; i < CLIENT_REQUESTS_ALL; i++)
        if (c->requests[i].phase != REQUEST_FREE)
            request_drop(s, &c->requests[i]);
    while (!TAILQ_EMPTY(&c->line)) /* parts of them */
        request_drop(s, TAILQ_FIRST(&c->line));
    log_debug("client %" PRIu64
              " (pid %d, %s) is gone: its %u sessions are closed, its %u pages free",
              c->id, (int)c->pid, c->name, c->n_sessions, c->account.used);
    /* The turn passes to the next and not to the first: a client that comes and goes would else
     * give those at the head of the list the turns of all behind it. */
    if (s->turn == c)
        s->turn = TAILQ_NEXT(c, link);
    if (s->latest == c)
        s->latest = NULL;
    TAILQ_REMOVE(&s->clients, c, link);
    s->n_clients--;
    s->n_sessions -= c->n_sessions;
    /* The peer may keep its duplicate of the doorbell, and with it the entry in the epoll set,
     * which would wake us for ever when it rings. */
    if (connected)
        (void)epoll_ctl(s->epoll, EPOLL_CTL_DEL, chan_doorbell(c->chan), NULL);
    client_free(c);
    owner_unref(&s->owners, owner);
    /* Last: when the control thread has it, another client may take this one's place. */
    if (connected)
        mailbox_put(s->outbox, &gone);
}

/* A list of at most max-clients, looked through once in a client's life: no table is worth it. */
static struct client *find_client(struct sched *s, uint64_t id)
{
    struct client *c;

    TAILQ_FOREACH (c, &s->clients, link)
        if (c->id == id)
            return c;
    return NULL; /* buried already: the two letters crossed */
}

/* Called between two layers, so nothing is done here but to note it: who is dead is buried, and who
 * wants to stop is obeyed, when the step is over or given up. */
static bool take_letters(struct sched *s)
{
    struct mailbox_letter l;
    struct client *c;

    if (!mailbox_pending(s->inbox))
        return false;
    while (mailbox_take(s->inbox, &l)) {
        switch (l.kind) {
        case MAILBOX_ADOPT:
            adopt(s, &l);
            break;
        case MAILBOX_DEAD:
            c = find_client(s, l.client);
            if (c)
                c->dead = true;
            break;
        case MAILBOX_STOP:
            s->stopping = true;
            break;
        case MAILBOX_METRICS: /* one is under way at a time */
            s->scrape = l.metrics;
            break;
        case MAILBOX_PRESSURE: /* pages go between steps */
            s->idle.pressed = true;
            mailbox_put(s->outbox, &l);
            break;
        default:
            assert(!"a letter for the other side");
        }
    }
    return true;
}

/* --- frames ----------------------------------------------------------------------------------- */

/* With every request at work nothing more is taken: what is in the ring waits there, and its sender
 * waits for room in it, which is all the back pressure that is needed. What has begun to come in is
 * one of the requests, and goes on. */
static bool takes_frames(const struct client *c)
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
    for (uint32_t i = 0; i < FRAMES_A_ROUND && takes_frames(c) && chan_readable(c->chan); i++) {
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
    bool any = take_letters(s);

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

/* --- what happens between steps --------------------------------------------------------------- */

/* One whose last reply is made was done before it was cancelled: the reply stands. */
bool sched_end_cancelled(struct sched *s)
{
    struct request *r, *next;
    bool any = false;

    for (r = TAILQ_FIRST(&s->active); r; r = next) {
        next = TAILQ_NEXT(r, link);
        if (!r->cancelled || r->phase == REQUEST_LAST)
            continue;
        if (r->ops->cancel)
            r->ops->cancel(s, r);
        else if (r->expired)
            request_fail_cancelled(s, r, "%s", "");
        else
            request_fail(s, r, WIRE_E_CANCELLED, REQUEST_NO_NUMBERS, "the request was cancelled");
        request_deliver(s, r);
        any = true;
    }
    return any;
}

/* Who is gone, and what is not wanted any more. Between steps only: a step that read for them has
 * ended or was given up, so their sequences are whole and can be freed or taken back. */
static bool reap(struct sched *s)
{
    struct client *c, *next_c;
    bool any = false;

    for (c = TAILQ_FIRST(&s->clients); c; c = next_c) {
        next_c = TAILQ_NEXT(c, link);
        if (c->dead) {
            s->totals.client_errors += c->broke;
            bury(s, c);
            any = true;
        }
    }
    return sched_end_cancelled(s) || any;
}

/* A slice for each request, as long as there is time; who had one goes to the end of the line. So
 * does who only has something to say (a Stats that found no room): making it takes time, too. What
 * was sent is tried for all, working or not: a reader may have made room since the last step, and
 * nobody tells us whose. */
static bool work(struct sched *s)
{
    uint64_t end = clock_ns() + WORK_NS;
    struct request *r, *next;
    bool any = false;

    r = TAILQ_FIRST(&s->active);
    for (uint32_t n = s->n_active; n > 0 && r; n--, r = next) {
        bool worked = r->phase == REQUEST_WORK;

        next = TAILQ_NEXT(r, link);
        if (worked) {
            TAILQ_REMOVE(&s->active, r, link);
            TAILQ_INSERT_TAIL(&s->active, r, link);
            if (r->ops->work && !(s->idle.down && request_computes(r)) && request_back(r))
                any |= r->ops->work(s, r);
        }
        request_deliver(s, r);
        /* Those behind it were not tried: who sleeps now is not told when one of them has room. */
        if (worked && n > 1 && clock_ns() > end)
            return true;
    }
    return any;
}

/* Each open request gets its one last reply, also now: a client that waits for it learns that the
 * daemon went on purpose, and need not guess from a closed socket. Tried once, since a client that
 * does not read must not keep the daemon from ending. */
static void fail_everything(struct sched *s)
{
    struct request *r, *next;

    for (r = TAILQ_FIRST(&s->active); r; r = next) {
        next = TAILQ_NEXT(r, link);
        if (r->phase != REQUEST_LAST)
            request_fail(s, r, WIRE_E_SHUTTING_DOWN, REQUEST_NO_NUMBERS,
                         "the daemon is shutting down");
        request_deliver(s, r);
    }
}

/* What came back from the disk, or is to be tried again. */
static bool look_after_store(struct sched *s)
{
    struct store_stats stats;

    if (!s->served.tier || !tier_pump(s->served.tier))
        return false;
    if (s->served.store) {
        store_stats(s->served.store, &stats);
        degraded_look(&s->degraded, stats.degraded);
    }
    return true;
}

/* True: something was done, so that there may be more to do. The order is that of haste: what only
 * needs an answer, then what frees memory, then preparing, then the model, which takes most of the
 * time and looks at the first of these again between its layers. */
static bool step(struct sched *s)
{
    struct client *c;
    bool any = sched_attend(s), ran = false;

    /* Found out anew in each step by trying to send: a flag that is kept would need somebody to
     * clear it, and a client that was forgotten so would wait for ever. */
    TAILQ_FOREACH (c, &s->clients, link)
        c->blocked = false;
    any |= kept_look(s);
    any |= reap(s);
    any |= lost_look(s);
    any |= idle_look(s);
    /* Before work, which may wait for what came from the disk. */
    any |= look_after_store(s);
    /* What ends at once was answered above: back to the rings, where the next one may be. */
    if (s->n_active > 0) {
        any |= work(s);
        if (!s->stopping) {
            seat_home(&s->seat);
            ran = !s->idle.down && batch_run(s);
        }
    }
    /* Without a batch nobody's answer is held up by frames: the next look may take its time. */
    if (!ran)
        pace_idle(&s->pace);
    /* Last: the step itself may have failed one that others waited for. */
    any |= follow_woke(&s->follow) | s->lanes_woke | s->room_made;
    s->lanes_woke = s->room_made = false;
    return any || ran;
}

/* --- sleeping --------------------------------------------------------------------------------- */

/* Without a side effect, in contrast to arm: nobody has to ring while we look by ourselves. */
static bool something_came(struct sched *s)
{
    struct client *c;

    if (mailbox_pending(s->inbox) || s->scrape)
        return true;
    TAILQ_FOREACH (c, &s->clients, link)
        if (takes_frames(c) && chan_readable(c->chan))
            return true;
    return false;
}

/* Away from the CPU of who spoke last, when he waits for nothing: said before it is done, since he
 * runs as soon as we are gone, and would find us beside him still and sleep. */
static bool leave(struct sched *s)
{
    if (!seat_leaves(&s->seat) || something_came(s))
        return false;
    chan_leave_cpu(s->latest->chan);
    seat_leave(&s->seat);
    return true;
}

/* A client that works with one answer sends its next request some microseconds later. To be woken
 * for it costs both sides a system call and the time that the scheduler of the machine takes. */
static bool spin(struct sched *s)
{
    uint64_t end = clock_ns() + (uint64_t)s->config->spin_us * 1000;

    do {
        /* Of the one who spoke last: others may have slept since they said where they are. */
        if (s->latest && chan_shares_cpu(s->latest->chan) && !leave(s)) {
            if (!something_came(s))
                (void)sched_yield(); /* enough where it is of our scheduling group; else sleep is */
            return something_came(s);
        }
        for (int i = 0; i < CHAN_SPIN_LOOKS; i++) {
            if (something_came(s))
                return true;
            clock_pause();
        }
        /* A client may wait for this very CPU, and would wait until the next tick. */
        (void)sched_yield();
    } while (clock_ns() < end);
    return false;
}

/* Says to a client that we are about to sleep. True: it has something. One whose frames are not
 * taken anyway is asked to ring for room only: its full ring would look like something to do, and
 * the loop would go round without end. */
static bool arm_client(struct client *c)
{
    if (c->dead) /* only found out when its replies were sent: to be buried */
        return true;
    if (takes_frames(c))
        return chan_arm(c->chan, c->blocked);
    return c->blocked && chan_arm_room(c->chan);
}

/* Every channel is armed before any is trusted to be quiet, and letters are looked at last: what
 * comes between the look and the sleep finds the flag set, and rings. Copies and grammars always
 * ring, and an edge that came before the sleep ends it at once. True: don't sleep. */
static bool arm(struct sched *s)
{
    struct client *c;
    bool ready = false;

    TAILQ_FOREACH (c, &s->clients, link)
        ready |= arm_client(c);
    return ready || mailbox_pending(s->inbox) || s->scrape;
}

static void disarm(struct sched *s)
{
    struct client *c;

    /* Of one that was not armed nothing is left to take back: its doorbell is never drained. */
    TAILQ_FOREACH (c, &s->clients, link)
        if (c->chan)
            chan_disarm(c->chan);
}

/* Sleeps without a timeout, but for the time until the end of a session is to be written, until the
 * disk should have answered, until memory is given back that nobody uses (--idle), until
 * somebody's deadline, or until a session that is kept has had its time: an idle daemon makes no
 * system call at all. What the scheduler waits for always rings: a letter's bell, a client's, the
 * disk's, a device's or a grammar's. */
static void idle(struct sched *s)
{
    struct epoll_event ev[16];
    int n, timeout;

    if (spin(s))
        return;
    timeout = s->served.tier ? tier_timeout_ms(s->served.tier) : -1;
    timeout = clock_sooner_ms(timeout, request_watch_ms(s));
    timeout = clock_sooner_ms(timeout, request_deadline_ms(s));
    timeout = clock_sooner_ms(timeout, idle_timeout_ms(s));
    timeout = clock_sooner_ms(timeout, kept_timeout_ms(s));
    /* They spin between two jobs, and a sleep is longer than any pause that is worth it. */
    s->served.backend->ops->rest(s->served.backend);
    seat_free(&s->seat, s->latest ? chan_peer_cpu(s->latest->chan) : -1);
    if (!arm(s)) {
        /* For the watchdog: a thread that sleeps gives no sign of life, and is well. */
        atomic_store_explicit(&s->asleep, true, memory_order_relaxed);
        /* Again at once when a tracer came or went: nothing has happened. */
        do
            n = epoll_wait(s->epoll, ev, 16, timeout);
        while (n < 0 && errno == EINTR);
        atomic_store_explicit(&s->asleep, false, memory_order_relaxed);
    }
    disarm(s);
}

/* --- the thread ------------------------------------------------------------------------------- */

/* Of one user's documents: what a client of it may hold, and no more than all of them may. */
static uint32_t most_pinned(const struct sched *s)
{
    uint32_t half = s->served.pool.n_pages / 2;

    return s->served.client_pages < half ? s->served.client_pages : half;
}

int sched_watch_copies(struct sched *s)
{
    s->copies = s->served.backend->ops->eventfd(s->served.backend);
    return s->copies >= 0 ? hear(s, s->copies) : 0;
}

static bool take_arrays(struct sched *s)
{
    size_t n = s->served.model->n_vocab;

    s->logits = malloc(SCHED_LOGITS_ROWS * n * sizeof(*s->logits));
    s->candidates = malloc(n * sizeof(*s->candidates));
    s->next_ids = malloc(s->config->batch_tokens * sizeof(*s->next_ids));
    s->logprobs = malloc(s->config->batch_tokens * sizeof(*s->logprobs));
    s->leaving = calloc(s->served.pool.n_pages, sizeof(*s->leaving));
    return s->logits && s->candidates && s->next_ids && s->logprobs && s->leaving;
}

/* All that serving needs beside the model, so that making tokens allocates nothing: an answer that
 * has begun does not fail for want of memory. */
static int open_scratch(struct sched *s)
{
    struct epoll_event ev = { .events = EPOLLIN };
    struct owner_limits limits;
    int r;

    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (s->epoll < 0)
        return -errno;
    r = hear(s, s->inbox->bell);
    if (r < 0)
        return r;
    /* Not by edges: it is readable just while there is something to reap. */
    if (s->served.io && epoll_ctl(s->epoll, EPOLL_CTL_ADD, io_eventfd(s->served.io), &ev) < 0)
        return -errno;
    r = sched_watch_copies(s);
    if (r == 0)
        r = grammars_start(&s->grammars, s->served.vocab);
    if (r == 0)
        r = hear(s, grammars_bell(&s->grammars));
    if (r < 0)
        return r;
    if (!take_arrays(s) || picks_open(&s->picks, s->served.backend) < 0 ||
        draws_open(&s->draws, &s->served.info, s->served.model->n_vocab) < 0)
        return -ENOMEM;
    r = masker_open(&s->masker, &s->served.info);
    if (r == 0)
        r = wire_scratch_open(&s->unpacked, WIRE_SCRATCH_BYTES);
    if (r == 0)
        r = wire_scratch_open(&s->packed, WIRE_SCRATCH_BYTES);
    limits = owner_limits(s->config, s->shared, s->served.pool.page_bytes, s->served.pool.n_pages);
    owners_init(&s->owners, &limits);
    s->served.pool.reserve = limits.reserve;
    if (s->shared && s->served.store)
        store_set_shared(s->served.store);
    documents_init(&s->documents, &s->served.pool, &s->owners, most_pinned(s),
                   s->config->client_text_bytes);
    seat_init(&s->seat, s->served.info.owner_cpu, s->config->pin);
    pace_init(&s->pace, s->served.model->n_layer, s->config->batch_tokens);
    (void)draft_read(s->config->draft, &s->draft, NULL); /* config_load has looked at it */
    /* Answers are to be the same with guesses and without. Who wants them all the same says how
     * many. */
    if (s->draft == DRAFT_AUTO && !s->served.info.exact_rows)
        s->draft = 0;
    return r;
}

/* Told by the loader. The first letter can only be STOP, since clients are let in when READY was
 * taken: it is left where it is, and not 0 makes the loader give up. */
static int on_progress(void *arg, uint64_t done, uint64_t all)
{
    struct sched *s = arg;
    unsigned percent = all ? (unsigned)(done * 100 / all) : 0;

    atomic_store_explicit(&s->loaded, percent, memory_order_relaxed);
    notify_loading(percent);
    return mailbox_pending(s->inbox);
}

static int open_all(struct sched *s)
{
    struct model_progress progress = { on_progress, s };
    int r = served_load(&s->served, s->config, s->keep, &progress, &s->why);

    if (r == 0)
        r = served_start(&s->served, s->config, &s->why);
    if (r == 0)
        r = open_scratch(s);
    return r < 0 ? why_set(&s->why, r, "starting to serve: %s", strerror(-r)) : 0;
}

/* For the control thread, which must not look at the model: see struct sched_serving. */
static void describe(struct sched *s)
{
    const struct served *b = &s->served;

    (void)snprintf(s->serving.status, sizeof(s->serving.status),
                   "Serving %s on %.128s: %u threads, %s, context for %" PRIu64 " tokens",
                   b->model->name, s->socket ? s->socket : "", b->info.threads, b->info.cpu,
                   (uint64_t)b->pool.n_pages * POOL_PAGE_TOKENS);
}

/* What sessions leave behind follows them to the disk, for a bounded time: who stops the daemon is
 * waiting. */
static void save(struct sched *s)
{
    struct tier_stats st;
    uint32_t left;

    if (!s->served.store)
        return;
    tier_stats(s->served.tier, &st);
    if (st.queued + st.writing > 0)
        notify_saving(st.queued + st.writing);
    left = tier_stop(s->served.tier, STOP_NS);
    if (left > 0)
        log_warning("%u segments of context were not written to the store in %u s: they will be "
                    "computed again",
                    left, (unsigned)(STOP_NS / CLOCK_S));
}

/* Also of what was only half opened. Clients first: their sequences give back pages to the pool. */
static void close_all(struct sched *s)
{
    struct client *c, *next;

    fail_everything(s);
    /* GONE for each, ahead of STOPPED: the control thread closes the sockets behind the last word.
     */
    for (c = TAILQ_FIRST(&s->clients); c; c = next) {
        next = TAILQ_NEXT(c, link);
        bury(s, c);
        if (s->served.tier)
            (void)tier_pump(s->served.tier);
    }
    documents_close(&s->documents);
    grammars_fini(&s->grammars);
    save(s);
    wire_scratch_close(&s->unpacked);
    wire_scratch_close(&s->packed);
    free(s->logits);
    free(s->candidates);
    free(s->next_ids);
    free(s->logprobs);
    free(s->leaving);
    picks_close(s->picks);
    draws_close(s->draws);
    masker_close(s->masker);
    if (s->epoll >= 0)
        (void)close(s->epoll);
    served_close(&s->served);
    owners_fini(&s->owners);
}

bool sched_open(struct sched *s)
{
    struct mailbox_letter letter = { .kind = MAILBOX_READY };

    s->epoll = -1; /* here and not by the control thread: close_all takes what was half opened */
    TAILQ_INIT(&s->clients);
    TAILQ_INIT(&s->active);
    owners_init(&s->owners, &(struct owner_limits){ 0 });
    TAILQ_INIT(&s->puts);
    grammars_init(&s->grammars);
    follow_init(&s->follow);
    s->started_ns = clock_ns();
    s->result = open_all(s);
    if (s->result < 0)
        return false;
    describe(s);
    if (s->config->idle && !served_can_rest(&s->served))
        log_warning("option idle: device %s gives no memory back", s->config->device);
    mailbox_put(s->outbox, &letter);
    return true;
}

bool sched_turn(struct sched *s)
{
    if (!step(s))
        idle(s);
    return !s->stopping;
}

void sched_close(struct sched *s)
{
    struct mailbox_letter letter = { .kind = MAILBOX_STOPPED };

    close_all(s);
    /* The last thing: behind it the process may end. After a failed start, too, with result and
     * why. */
    mailbox_put(s->outbox, &letter);
}

void *sched_main(void *arg)
{
    struct sched *s = arg;

    (void)pthread_setname_np(pthread_self(), "gistd-sched");
    if (sched_open(s))
        while (!s->stopping)
            (void)sched_turn(s);
    sched_close(s);
    return NULL;
}
