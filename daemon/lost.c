/* All that points to the device's memory is dropped before the device is opened anew: what was
 * queued for the disk would else be written from pages that have nothing in them, and be found
 * later by ids that it is not of.
 */
#include "daemon/lost.h"

#include "base/clock.h"
#include "daemon/lanes.h"
#include "daemon/log.h"
#include "daemon/prefix.h"
#include "daemon/sched.h"
#include "daemon/session.h"
#include "daemon/tier.h"

#include <errno.h>

#define AGAIN_NS CLOCK_S

/* --- what was on it --------------------------------------------------------------------------- */

static void fail_computing(struct sched *s)
{
    const char *device = s->config->device;
    struct request *r, *next;

    for (r = TAILQ_FIRST(&s->active); r; r = next) {
        next = TAILQ_NEXT(r, link);
        if (!request_computes(r))
            continue;
        if (s->lost.why.text[0])
            request_fail(s, r, WIRE_E_INTERNAL, REQUEST_NO_NUMBERS,
                         "device %s was lost and does not come back: %.200s; it is tried again "
                         "with later requests, and a restart of gistd may help",
                         device, s->lost.why.text);
        else
            request_fail_step(s, r, -EIO);
        request_deliver(s, r);
    }
}

/* All ids are to be read again, as after a rewind to nothing: memory_reread takes the pages, which
 * have nothing in them, and leaves the ids. */
static void forget_session(struct session *session)
{
    struct memory *m = &session->memory;

    if (!memory_exact(m))
        session->lost = true;
    memory_rest(m);
    memory_reread(m, m->n_ids);
}

/* Memories of requests that were failed and have not said so yet are theirs alone. */
static void forget_all(struct sched *s)
{
    struct document_owner *o;
    struct session *session;
    struct client *c;
    struct request *r;

    TAILQ_FOREACH (c, &s->clients, link)
        TAILQ_FOREACH (session, &c->sessions, link)
            forget_session(session);
    TAILQ_FOREACH (r, &s->active, link) {
        if (r->lane) /* its whole was failed, and it goes: its session is in no list */
            forget_session(r->lane->session);
        else if (r->memory && !r->session)
            memory_rest(r->memory);
    }
    while ((o = TAILQ_FIRST(&s->documents.owners)) != NULL)
        documents_forget(&s->documents, o->uid);
}

/* Copies to the store that are under way are told that they failed; those that wait for their turn
 * are given up. */
static void forget_cached(struct sched *s)
{
    if (s->served.prefix)
        prefix_forget_all(s->served.prefix);
    if (s->served.tier)
        (void)tier_pump(s->served.tier);
    (void)pool_make_free(&s->served.pool, s->served.pool.n_pages);
}

/* Requests first, since they have sessions; then sessions and documents, which have pages; then
 * what only caches have; then the device. */
static void leave(struct sched *s)
{
    s->lost.down = true;
    s->lost.next_ns = 0;
    s->lost.why.text[0] = '\0';
    log_about(LOG_LEVEL_ERROR, &(struct journal_about){ .message = JOURNAL_DEVICE_LOST },
              "device %s was lost: what sessions hold is computed again when it is back",
              s->config->device);
    fail_computing(s);
    forget_all(s);
    forget_cached(s);
    served_leave(&s->served);
    s->copies = -1; /* its descriptor is closed, and left the epoll set with that */
}

/* --- and again -------------------------------------------------------------------------------- */

/* Reading a model takes seconds; who asks whether we are there hears so, as between two layers. */
static int on_progress(void *arg, uint64_t done, uint64_t all)
{
    struct sched *s = arg;

    (void)done;
    (void)all;
    (void)sched_attend(s);
    return s->stopping;
}

/* Sessions whose pages host memory has are as they were; of a disk nobody knows how long it takes,
 * so what that has is read by the model. */
static void bring_back(struct sched *s)
{
    struct session *session;
    struct client *c;

    s->in_step = true;
    TAILQ_FOREACH (c, &s->clients, link)
        TAILQ_FOREACH (session, &c->sessions, link) {
            if (!session->lost && session->memory.away.state == AWAY_HERE)
                memory_bring_back(&session->memory);
            (void)sched_attend(s);
        }
    s->in_step = false;
}

static void try_again(struct sched *s)
{
    struct model_progress progress = { on_progress, s };
    struct why why = { "" };
    int r;

    s->in_step = true; /* what comes meanwhile may touch no page */
    r = served_again(&s->served, s->config, &progress, &why);
    s->in_step = false;
    if (r == 0)
        r = sched_watch_copies(s);
    s->lost.next_ns = clock_ns() + AGAIN_NS;
    s->lost.down = r < 0;
    if (r < 0) {
        s->lost.why = why;
        return;
    }
    bring_back(s);
    log_about(LOG_LEVEL_INFO, &(struct journal_about){ .message = JOURNAL_DEVICE_BACK },
              "device %s is back", s->config->device);
}

/* It is tried when somebody wants the model, and once at once: sessions would come back before
 * anybody asks. */
bool lost_look(struct sched *s)
{
    bool first = !s->lost.down;

    if (first && !served_lost(&s->served))
        return false;
    if (first)
        leave(s);
    else if (!request_in_use(s))
        return false;
    if (clock_ns() >= s->lost.next_ns)
        try_again(s);
    if (s->lost.down)
        fail_computing(s);
    return true;
}
