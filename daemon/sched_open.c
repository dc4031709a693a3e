/* All that serving needs, before the first client and behind the last. Whatever half of it there is
 * when something fails goes by the same way as the whole. */
#include "daemon/sched_inner.h"

#include "base/clock.h"
#include "daemon/draws.h"
#include "daemon/log.h"
#include "daemon/masker.h"
#include "daemon/notify.h"
#include "daemon/picks.h"
#include "daemon/tier.h"
#include "store/io.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* Time for writing what sessions hold when the daemon stops. */
#define STOP_NS (5 * CLOCK_S)

/* --- from the start to READY ------------------------------------------------------------------ */

/* Of one user's documents: what a client of it may hold, and no more than all of them may. */
static uint32_t most_pinned(const struct sched *s)
{
    uint32_t half = s->served.pool.n_pages / 2;

    return s->served.client_pages < half ? s->served.client_pages : half;
}

int sched_watch_copies(struct sched *s)
{
    s->copies = s->served.backend->ops->eventfd(s->served.backend);
    return s->copies >= 0 ? sched_hear(s, s->copies) : 0;
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
    r = sched_hear(s, s->inbox->bell);
    if (r < 0)
        return r;
    /* Not by edges: it is readable just while there is something to reap. */
    if (s->served.io && epoll_ctl(s->epoll, EPOLL_CTL_ADD, io_eventfd(s->served.io), &ev) < 0)
        return -errno;
    r = sched_watch_copies(s);
    if (r == 0)
        r = grammars_start(&s->grammars, s->served.vocab);
    if (r == 0)
        r = sched_hear(s, grammars_bell(&s->grammars));
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

/* --- to the end ------------------------------------------------------------------------------- */

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
        sched_bury(s, c);
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

void sched_close(struct sched *s)
{
    struct mailbox_letter letter = { .kind = MAILBOX_STOPPED };

    close_all(s);
    /* The last thing: behind it the process may end. After a failed start, too, with result and
     * why. */
    mailbox_put(s->outbox, &letter);
}
