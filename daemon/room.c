#include "daemon/room.h"

#include "base/clock.h"
#include "daemon/log.h"
#include "daemon/sched.h"

#include <inttypes.h>

enum kind { KIND_KEPT, KIND_BACKGROUND, KIND_AGAIN, KIND_OWN, KIND_OWN_AGAIN, KIND__N };

/* Who asks, and for what. */
struct ask {
    const struct request *r;
    const struct owner *owner;
    const struct pool_account *account;
    uint64_t n, ahead; /* pages that are asked for, and that are others' before */
    uint64_t even;     /* an even part */
};

bool room_has(const struct sched *s, const struct request *r, const struct pool_account *a,
              uint64_t n)
{
    uint64_t ahead = owners_ahead(&s->owners, r->client->owner, clock_ns());

    return n == 0 ||
           (n <= pool_room(&s->served.pool, a, 0) && n + ahead <= served_pages_free(&s->served));
}

/* With what it asks for the owner has no more than an even part, and nothing stands against that
 * but what others have. */
static bool is_within(const struct ask *k)
{
    return k->owner->pages.used + k->n <= k->even && k->n <= pool_room_shared(k->account);
}

static bool has_more(const struct ask *k, const struct owner *o)
{
    return o != k->owner && o->pages.used > k->even;
}

/* The owner's own sessions help where he is at his limit, too, and where an account is those of it:
 * a client has one for all its sessions, but for those that are kept (daemon/kept.h). */
static bool is_own(const struct ask *k, const struct session *x)
{
    return x->client->owner == k->owner &&
           (x->seq.account == k->account || k->n <= k->account->limit - k->account->used);
}

static bool gives_way(const struct ask *k, const struct session *x, enum kind kind)
{
    const struct owner *o = x->client->owner;

    if (x->busy || x->opening || x->lost || !away_can(&x->memory))
        return false;
    switch (kind) {
    case KIND_BACKGROUND:
        return x->priority == WIRE_BACKGROUND && k->r->priority == WIRE_INTERACTIVE &&
               (is_own(k, x) || (o != k->owner && is_within(k)));
    case KIND_OWN:
    case KIND_OWN_AGAIN:
        return is_own(k, x) && k->r->was_away;
    default:
        return has_more(k, o) && is_within(k);
    }
}

static bool is_read_again(enum kind kind)
{
    return kind == KIND_AGAIN || kind == KIND_OWN_AGAIN;
}

/* looks: also whether it is kept where only such ones go, which is a hash of all its ids. */
static bool goes(const struct ask *k, const struct session *x, bool looks)
{
    return gives_way(k, x, KIND_AGAIN) || gives_way(k, x, KIND_OWN_AGAIN) ||
           (gives_way(k, x, KIND_BACKGROUND) && (!looks || away_is_kept(&x->memory)));
}

/* Should all go that may: whether it would be enough. */
static bool is_enough(struct sched *s, const struct ask *k, bool looks)
{
    const struct pool_account *a = k->account;
    uint64_t n = 0, of_account = 0;
    struct session *x;
    struct client *c;

    TAILQ_FOREACH (c, &s->clients, link)
        TAILQ_FOREACH (x, &c->sessions, link) {
            if (!goes(k, x, looks))
                continue;
            n += x->seq.n_pages;
            of_account += x->seq.account == a ? x->seq.n_pages : 0;
        }
    if (n > s->served.pool.n_pages) /* forks list the same ones */
        n = s->served.pool.n_pages;
    return k->n <= (uint64_t)a->limit - a->used + of_account &&
           k->n <= pool_room_copies(&s->served.pool, a, (uint32_t)n) &&
           k->n + k->ahead <= served_pages_free(&s->served) + n;
}

/* For what can't be had nobody goes. */
static bool would_do(struct sched *s, const struct ask *k)
{
    return is_enough(s, k, false) && is_enough(s, k, true);
}

/* What is kept is looked up last. */
static struct session *longest_unused(struct sched *s, const struct ask *k, enum kind kind)
{
    struct session *x, *best = NULL;
    struct client *c;

    TAILQ_FOREACH (c, &s->clients, link)
        TAILQ_FOREACH (x, &c->sessions, link)
            if ((!best || x->rested_ns < best->rested_ns) && gives_way(k, x, kind) &&
                (is_read_again(kind) || away_is_kept(&x->memory)))
                best = x;
    return best;
}

static void go(struct sched *s, struct session *x)
{
    struct memory *m = &x->memory;

    log_debug("session %" PRIu64 " of user %u gives %u pages to others: it comes back when it is "
              "used next",
              x->id, (unsigned)x->client->uid, m->seq->n_pages);
    away_go(m);
    s->totals.gave_way++;
}

bool room_make(struct sched *s, const struct request *r, const struct pool_account *a, uint64_t n)
{
    const struct owner *o = r->client->owner;
    struct ask k = { .r = r,
                     .owner = o,
                     .account = a,
                     .n = n,
                     .ahead = owners_ahead(&s->owners, o, clock_ns()),
                     .even = owners_even(&s->owners, o) };
    bool any = false;

    if (room_has(s, r, a, n) || !would_do(s, &k))
        return false;
    /* Pages that are just being written are free when that is done. */
    for (int kind = 0;
         kind < KIND__N && !room_has(s, r, a, n) && !served_pages_come(&s->served, a, n);) {
        struct session *x = longest_unused(s, &k, kind);

        if (x)
            go(s, x);
        else
            kind++;
        any |= x != NULL;
    }
    return any && room_has(s, r, a, n);
}

bool room_comes(struct sched *s, const struct request *r, const struct pool_account *a, uint64_t n)
{
    if (served_pages_come(&s->served, a, n))
        return true;
    if (!room_make(s, r, a, n))
        return served_pages_come(&s->served, a, n); /* the disk has those of who gave way */
    s->room_made = true;
    return true;
}

bool room_waits(struct sched *s, const struct request *r)
{
    const struct owner *o = r->client->owner;

    if (s->stalled ||
        (r->priority == WIRE_INTERACTIVE && o->pages.used <= owners_even(&s->owners, o)))
        return false;
    s->n_paused++;
    return true;
}
