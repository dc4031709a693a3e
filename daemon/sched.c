/* One thread owns all that clients share: pages, sequences, the model's scratch. So there is no
 * lock between two clients, and none between a client's death and what the model does for it; the
 * price is that nothing here may take long. Each thing a client can ask for is therefore either
 * short, or cut into slices, or part of a batch, and the time for each of the three is bounded
 * below.
 */
#include "daemon/sched.h"

#include "base/clock.h"
#include "daemon/batch.h"
#include "daemon/kept.h"
#include "daemon/sched_inner.h"
#include "daemon/tier.h"

#include <pthread.h>

/* Time for encoding and the like in one step, while others wait for the model. Slices are short (16
 * KB of text), so that several requests have one; who has none yet is first in the next step. */
#define WORK_NS (5 * CLOCK_MS)

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
            sched_bury(s, c);
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

/* --- the thread ------------------------------------------------------------------------------- */

bool sched_turn(struct sched *s)
{
    if (!step(s))
        sched_sleep(s);
    return !s->stopping;
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
