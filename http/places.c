/* http/places.c - keys are counted by going through the sessions, which are few. */

#include "http/places.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

static unsigned count_of(const struct lives *l, const char *who)
{
    unsigned n = 0;

    for (const struct live *s = l->list; s; s = s->next)
        n += strcmp(s->who, who) == 0;
    return n;
}

struct live *places_end(const struct lives *l, const char *who)
{
    unsigned n_own = count_of(l, who), most = 0;
    struct live *end = NULL;

    for (struct live *s = l->list; s; s = s->next) {
        unsigned n = count_of(l, s->who);

        if (s->busy || (n <= n_own && strcmp(s->who, who) != 0))
            continue;
        if (!end || n > most || (n == most && s->used_ns < end->used_ns)) {
            end = s;
            most = n;
        }
    }
    return end;
}

/* --- being answered --------------------------------------------------------------------------- */

static unsigned count_busy(const struct lives *l, const char *who)
{
    unsigned n = 0;

    for (const struct live *s = l->list; s; s = s->next)
        n += s->busy && strcmp(s->who, who) == 0;
    return n;
}

/* Each key that is being answered is counted once, at its first one in the list. */
static bool is_first(const struct live *list, const struct live *s)
{
    for (const struct live *x = list; x != s; x = x->next)
        if (x->busy && strcmp(x->who, s->who) == 0)
            return false;
    return true;
}

/* Others than who that wait, and are not being answered unless `also`. */
static unsigned count_waiting(const struct lives *l, const char *who, bool also)
{
    uint64_t now = clock_ns();
    unsigned n = 0;

    for (size_t i = 0; i < LIVE_WAITERS; i++) {
        const struct live_waiter *w = &l->waiters[i];

        if (w->since_ns > 0 && now - w->since_ns < l->wait_ns && strcmp(w->who, who) != 0)
            n += also || count_busy(l, w->who) == 0;
    }
    return n;
}

static struct live_waiter *waiter_of(struct lives *l, const char *who)
{
    for (size_t i = 0; i < LIVE_WAITERS; i++)
        if (l->waiters[i].since_ns > 0 && strcmp(l->waiters[i].who, who) == 0)
            return &l->waiters[i];
    return NULL;
}

static bool is_fair(const struct lives *l, const char *who)
{
    unsigned n_own = count_busy(l, who), n_busy = 0, n_keys = 0;

    for (const struct live *s = l->list; s; s = s->next) {
        n_busy += s->busy;
        n_keys += s->busy && is_first(l->list, s);
    }
    if (n_own == 0) /* P1 */
        return n_busy < l->max;
    if (n_busy + (n_keys < l->n_keys) >= l->max) /* P2 */
        return false;
    if (count_waiting(l, who, true) == 0)
        return true;
    n_keys += count_waiting(l, who, false);
    return n_own < (l->max + n_keys - 1) / n_keys; /* P3 */
}

bool places_may(struct lives *l, const char *who)
{
    struct live_waiter *w = waiter_of(l, who);

    if (!is_fair(l, who))
        return false;
    if (w)
        w->since_ns = 0;
    return true;
}

/* With more keys than there is room for the one that was refused longest ago is forgotten. */
void places_wait(struct lives *l, const char *who)
{
    struct live_waiter *w = waiter_of(l, who);

    if (!w) {
        w = l->waiters;
        for (size_t i = 1; i < LIVE_WAITERS; i++)
            if (l->waiters[i].since_ns < w->since_ns)
                w = &l->waiters[i];
    }
    (void)snprintf(w->who, sizeof(w->who), "%s", who);
    w->since_ns = clock_ns();
}
