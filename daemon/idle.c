/* Nothing here is on the way of a token: while steps are made the time is not even looked at. It
 * begins to count when the scheduler goes to sleep, and what has happened since is told by the
 * number of steps, which is kept anyway.
 */
#include "daemon/idle.h"

#include "base/clock.h"
#include "daemon/kept.h"
#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/reply.h"
#include "daemon/sched.h"
#include "daemon/tier.h"
#include "daemon/weight_image.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>

/* After a failure, and until the disk has what it is to have. */
#define AGAIN_NS CLOCK_S
/* The disk gets so long; what it does not have then is computed again. */
#define PATIENCE_NS (30 * CLOCK_S)

static const char away[] =
    "Idle: the model's memory is given back; the next request loads it again";

/* --- who wants the model ---------------------------------------------------------------------- */

/* A cancelled request wakes nobody, though it is still there. */
static bool is_wanted(const struct sched *s)
{
    const struct request *r;

    TAILQ_FOREACH (r, &s->active, link)
        if (request_computes(r) && !request_unwanted(r))
            return true;
    return false;
}

/* A device's memory goes as a whole, and what sessions have there would be lost. */
static bool is_held(const struct sched *s)
{
    return !s->served.backend->ops->discard &&
           (s->n_sessions > 0 || served_pages_free(&s->served) < s->served.pool.n_pages);
}

/* What is on its way to the disk is in pages that would be given up, or is read from the
 * weights. */
static bool is_writing(const struct sched *s)
{
    struct tier_stats st;

    if (weight_image_busy(s->served.image))
        return true;
    if (!s->served.tier)
        return false;
    tier_stats(s->served.tier, &st);
    return st.queued + st.writing > 0;
}

/* --- giving back ------------------------------------------------------------------------------ */

/* Pages that are kept in case they are of use again: all but those that wait for the disk. */
static void drop_cached(struct sched *s, bool all)
{
    struct pool *p = &s->served.pool;
    struct tier_stats st = { 0 };
    uint32_t can = p->n_free + p->n_cached;

    if (s->served.tier && !all)
        tier_stats(s->served.tier, &st);
    /* What is asked for is a number, and reclaimers give the tree's pages first: less than all
     * leaves the queue alone. */
    (void)pool_make_free(p, can > st.pages_queued ? can - st.pages_queued : 0);
}

/* Pages of open sessions stay. malloc_trim: texts and tables that were freed go back as well. */
static void go(struct sched *s, const char *because)
{
    struct pool *p = &s->served.pool;
    uint32_t stay;
    uint64_t bytes;

    drop_cached(s, true);
    stay = p->n_pages - p->n_free;
    bytes = served_rest(&s->served, s->keep);
    if (!s->served.backend->ops->discard)
        s->copies = -1; /* its descriptor is closed, and left the epoll set with that */
    (void)malloc_trim(0);
    s->idle.down = true;
    s->idle.due_ns = s->idle.next_ns = s->idle.patience = 0;
    s->idle.n++;
    log_about(LOG_LEVEL_INFO, &(struct journal_about){ .message = JOURNAL_IDLE },
              "%s: %" PRIu64 " bytes of memory are given back, %" PRIu64
              " of context stay with open sessions; the next request loads the model again",
              because, bytes, (uint64_t)stay * p->page_bytes);
    notify_status(away);
}

/* Only what nobody uses; and the weights, when that was nothing and nobody uses them either. */
static void press(struct sched *s)
{
    uint64_t bytes;

    s->idle.pressed = false;
    s->idle.n_pressed++;
    drop_cached(s, false);
    bytes = pool_discard(&s->served.pool);
    (void)malloc_trim(0);
    if (bytes > 0)
        log_about(LOG_LEVEL_INFO, &(struct journal_about){ .message = JOURNAL_SHORT },
                  "memory is short: %" PRIu64 " bytes of unused context are given back", bytes);
    else if (s->config->idle && served_can_rest(&s->served) && !request_in_use(s) && !is_held(s))
        go(s, "memory is short");
    else
        log_debug("memory is short, and there is nothing to give back");
}

/* --- waking ----------------------------------------------------------------------------------- */

static void tell_waiting(struct sched *s, unsigned percent)
{
    struct wire_rep rep = { .kind = WIRE_LOADING, .u.loading.percent = percent };
    struct request *r;

    TAILQ_FOREACH (r, &s->active, link) {
        struct request *to = r->client->kept ? r->client->kept->relay : r;

        /* What finds no room is not said: the next one says more. */
        if (!to || !request_computes(r) || r->phase == REQUEST_RECEIVE ||
            !to->client->hears_loading)
            continue;
        rep.id = to->id;
        (void)reply_send(s, to, &rep, NULL);
    }
}

/* As between two layers: pings are answered, and who is not wanted any more ends it. Whose deadline
 * passes is told so now: none of those that wait has begun, so no page is touched. */
static int on_progress(void *arg, uint64_t done, uint64_t all)
{
    struct sched *s = arg;
    unsigned percent = all ? (unsigned)(done * 100 / all) : 0;

    (void)sched_attend(s);
    (void)sched_end_cancelled(s);
    if (percent != s->idle.told) {
        s->idle.told = percent;
        tell_waiting(s, percent);
    }
    return s->stopping || !is_wanted(s);
}

/* Each hears why. Who is not in use of the model is not asked. */
static void fail_all(struct sched *s, const struct why *why)
{
    struct request *r, *next;

    for (r = TAILQ_FIRST(&s->active); r; r = next) {
        next = TAILQ_NEXT(r, link);
        if (!request_computes(r))
            continue;
        request_fail(s, r, WIRE_E_NO_MEMORY, REQUEST_NO_NUMBERS,
                     "the model was given back (--idle) and can't be loaded again: %.200s",
                     why->text);
        request_deliver(s, r);
    }
}

static void came_back(struct sched *s, uint64_t took_ns)
{
    s->idle.down = false;
    if (!s->served.backend->ops->discard)
        (void)sched_watch_copies(s);
    tell_waiting(s, 100);
    log_about(LOG_LEVEL_INFO, &(struct journal_about){ .message = JOURNAL_BACK },
              "the model is back after %.2f s", (double)took_ns / 1e9);
    notify_status(s->serving.status);
}

static void wake(struct sched *s)
{
    struct model_progress progress = { on_progress, s };
    struct why why = { "" };
    uint64_t start = clock_ns();
    int r;

    s->idle.told = 0;
    /* Once and not by the percent: a manager that does not read would hold us up. */
    notify_status("Loading the model again");
    tell_waiting(s, 0);
    s->in_step = true; /* what comes meanwhile may touch no page */
    /* As at the start there is no beat to look for between two parts of the file. */
    atomic_store_explicit(&s->asleep, true, memory_order_relaxed);
    r = served_wake(&s->served, s->config, s->keep, &progress, &why);
    atomic_store_explicit(&s->asleep, false, memory_order_relaxed);
    s->in_step = false;
    if (r == 0) {
        came_back(s, clock_ns() - start);
        return;
    }
    notify_status(away);
    if (r == -ECANCELED)
        return;
    s->idle.next_ns = clock_ns() + AGAIN_NS;
    log_about(LOG_LEVEL_ERROR, &(struct journal_about){ .message = JOURNAL_NOT_BACK },
              "the model can't be loaded again: %s", why.text);
    fail_all(s, &why);
}

/* --- when ------------------------------------------------------------------------------------- */

/* Also what nobody waits for wakes it up to the next failure: it is to end somehow. */
static bool look_away(struct sched *s)
{
    if (s->stopping || !is_wanted(s))
        return false;
    if (clock_ns() < s->idle.next_ns) {
        const struct why why = { "it was tried a moment ago; the log of gistd says why" };

        fail_all(s, &why);
        return true;
    }
    wake(s);
    return true;
}

/* patience begins when it would go for the first time: a disk that never ends does not keep the
 * memory for ever. */
static void look_awake(struct sched *s, uint64_t now)
{
    struct idle *i = &s->idle;

    if (i->patience == 0)
        i->patience = now + PATIENCE_NS;
    if (is_held(s) || (is_writing(s) && now < i->patience))
        i->due_ns = now + AGAIN_NS;
    else
        go(s, "idle");
}

/* While the device is lost there is nothing to give back. */
bool idle_look(struct sched *s)
{
    struct idle *i = &s->idle;
    uint64_t now;

    if (s->lost.down)
        return false;
    if (i->down) {
        i->pressed = false;
        return look_away(s);
    }
    if (i->pressed) {
        press(s);
        return true;
    }
    if (i->due_ns == 0 || i->steps != s->totals.steps)
        return false;
    now = clock_ns();
    if (now < i->due_ns || request_in_use(s))
        return false;
    look_awake(s, now);
    return true;
}

/* Called before each sleep: a step since the last one, or somebody who uses the model, sets the
 * time anew. */
int idle_timeout_ms(struct sched *s)
{
    struct idle *i = &s->idle;
    uint64_t now;

    if (!s->config->idle || i->down || s->lost.down || !served_can_rest(&s->served))
        return -1;
    now = clock_ns();
    if (i->due_ns == 0 || i->steps != s->totals.steps || request_in_use(s)) {
        i->due_ns = now + s->config->idle * CLOCK_S;
        i->steps = s->totals.steps;
        i->patience = 0;
    }
    if (request_in_use(s)) /* by who does not read: it rings when it has */
        return -1;
    return clock_until_ms(i->due_ns, now);
}
