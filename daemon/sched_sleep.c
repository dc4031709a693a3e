/* What the scheduler does when there is nothing to do: it looks again for a moment, says to each
 * client that it is about to sleep, and sleeps. */
#include "daemon/sched_inner.h"

#include "base/clock.h"
#include "daemon/kept.h"
#include "daemon/tier.h"

#include <errno.h>
#include <sched.h>
#include <sys/epoll.h>

/* Without a side effect, in contrast to arm: nobody has to ring while we look by ourselves. */
static bool something_came(struct sched *s)
{
    struct client *c;

    if (mailbox_pending(s->inbox) || s->scrape)
        return true;
    TAILQ_FOREACH (c, &s->clients, link)
        if (sched_takes_frames(c) && chan_readable(c->chan))
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
    if (sched_takes_frames(c))
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
void sched_sleep(struct sched *s)
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
