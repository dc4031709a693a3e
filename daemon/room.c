/* daemon/room.c - who may go is decided by rules that look at one session (gives_way); how much
 * that would bring only all of them together tell, since pages are shared.
 *
 * A page is free when every table that has it has gone. So a look for room first counts, for each
 * page, the tables of those who may go (sched.leaving, which is all zeros before and after a
 * look), and then lets sessions go one by one, until there is room, and only if there would be
 * enough. An upper bound comes first (count_most): where even that is too little nothing is counted
 * by pages.
 */

#include "daemon/room.h"

#include "base/clock.h"
#include "daemon/generate.h"
#include "daemon/lanes.h"
#include "daemon/log.h"
#include "daemon/sched.h"
#include "daemon/tier.h"

#include <inttypes.h>

/* The rows of the table in room.h, in its order. */
enum kind { KIND_KEPT, KIND_BACKGROUND, KIND_AGAIN, KIND_OWN, KIND_OWN_AGAIN, KIND__N };

/* Pages that are others' before: of all, of the owner's, of the account's. */
struct before {
    uint64_t all, of_owner, of_account;
};

/* Who asks, and for what. */
struct ask {
    const struct request *r, *whole; /* whole: that it is a part of, or r */
    const struct owner *owner;
    const struct pool_account *account;
    uint64_t n; /* pages that are asked for */
    struct before before;
    uint64_t even; /* an even part */
    uint64_t look; /* for room; 0: none yet */
    bool keeps;    /* its pages, while it waits */
    bool shares;   /* pages that are there: they cost the account entries, and nobody a page */
};

/* What would be free: pages, those of them that the owner is charged for, and table entries of the
 * account. */
struct gain {
    uint64_t n, of_owner, of_account;
};

static struct ask ask_of(const struct sched *s, const struct request *r,
                         const struct pool_account *a, uint64_t n)
{
    const struct owner *o = r->client->owner;

    return (struct ask){ .r = r,
                         .whole = r->lane && r->lane->whole ? r->lane->whole : r,
                         .owner = o,
                         .account = a,
                         .n = n,
                         .before = { .all = owners_ahead(&s->owners, o, clock_ns()) },
                         .even = owners_even(&s->owners, o) };
}

/* Four limits, and what others have been promised before is taken off each: the account's, its
 * owner's, what is kept for owners that come later (P6 of engine/kv/pool.h), and the pool. */
static bool is_enough(const struct sched *s, const struct ask *k, const struct gain *g)
{
    const struct pool *p = &s->served.pool;
    const struct pool_account *a = k->account;
    const struct pool_owner *o = &k->owner->pages;
    uint32_t coming = g->n < p->n_pages ? (uint32_t)g->n : p->n_pages;

    if (k->n + k->before.of_account + a->used > a->limit + g->of_account)
        return false;
    return k->shares || (k->n + k->before.of_owner + o->used <= o->limit + g->of_owner &&
                         k->n <= pool_room_copies(p, a, coming) && /* P6 */
                         k->n + k->before.all <= served_pages_free(&s->served) + g->n);
}

static bool has(const struct sched *s, const struct ask *k)
{
    return k->n == 0 || is_enough(s, k, &(struct gain){ .n = 0 });
}

bool room_has(const struct sched *s, const struct request *r, const struct pool_account *a,
              uint64_t n)
{
    const struct ask k = ask_of(s, r, a, n);

    return has(s, &k);
}

/* --- who may go ------------------------------------------------------------------------------- */

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

/* A background request does not push out what its user looks at; what comes back has been away
 * itself, and is owed its place. */
static bool is_own_lesser(const struct ask *k, const struct session *x)
{
    return is_own(k, x) &&
           (k->r->was_away || k->r->priority == WIRE_INTERACTIVE || x->priority == WIRE_BACKGROUND);
}

/* One that is opening, or was lost with its device, has no pages that could be had again by its
 * ids. */
static bool is_idle(const struct session *x)
{
    return !x->busy && !x->opening && !x->lost && away_can(&x->memory);
}

static bool gives_way(const struct ask *k, const struct session *x, enum kind kind)
{
    const struct owner *o = x->client->owner;

    if (!is_idle(x))
        return false;
    switch (kind) {
    case KIND_BACKGROUND:
        return x->priority == WIRE_BACKGROUND && k->r->priority == WIRE_INTERACTIVE &&
               (is_own(k, x) || (o != k->owner && is_within(k)));
    case KIND_OWN:
    case KIND_OWN_AGAIN:
        return is_own_lesser(k, x);
    default:
        return has_more(k, o) && is_within(k);
    }
}

/* Kinds of which it does not matter whether they are kept: who may take those lets the model read
 * them once more. */
static bool is_read_again(enum kind kind)
{
    return kind == KIND_AGAIN || kind == KIND_OWN_AGAIN;
}

/* What this look has found out about x, empty where x was not met in it yet. */
static struct room_look *look_at(const struct ask *k, struct session *x)
{
    if (x->look.number != k->look)
        x->look = (struct room_look){ .number = k->look };
    return &x->look;
}

static bool is_kept(const struct ask *k, struct session *x)
{
    struct room_look *l = look_at(k, x);

    if (!l->asked)
        l->kept = away_is_kept(&x->memory);
    l->asked = true;
    return l->kept;
}

/* looks: also whether it is kept where only such ones go. */
static bool goes(const struct ask *k, struct session *x, bool looks)
{
    return gives_way(k, x, KIND_AGAIN) || gives_way(k, x, KIND_OWN_AGAIN) ||
           (gives_way(k, x, KIND_BACKGROUND) && (!looks || is_kept(k, x)));
}

/* Its parts never give way once they have begun (room.h). */
static bool is_in_parts(const struct request *r)
{
    return r->ops == &request_answers || r->ops == &request_score_choices ||
           r->ops == &request_embed;
}

/* Who keeps his pages would wait in a circle, or might: r waits itself. What is in parts is waited
 * for by nobody but younger ones of its kind, and so may wait for all others. */
static bool would_circle(const struct ask *k, const struct request *r)
{
    if (!is_in_parts(k->whole))
        return r->paused || is_in_parts(r);
    return is_in_parts(r) && r->times.number > k->whole->times.number;
}

/* It may wait for anybody, for as long as others compute: who is interactive does not wait for it.
 */
static bool may_last(const struct ask *k, const struct request *r)
{
    return r->paused && r->priority == WIRE_BACKGROUND && k->r->priority == WIRE_INTERACTIVE;
}

/* Its reader holds it up, or a part of the same request: they end together. */
static bool is_held_up(const struct sched *s, const struct request *r, const struct request *whole)
{
    const struct request *x;

    if (r->times.blocked_at || !is_in_parts(whole))
        return r->times.blocked_at;
    TAILQ_FOREACH (x, &s->active, link)
        if (x->lane && x->lane->whole == whole && x->times.blocked_at)
            return true;
    return false;
}

/* x, of which r is a request or a part, while that goes on: one that its reader holds up is no
 * help. */
static bool will_end(const struct sched *s, const struct ask *k, const struct session *x,
                     const struct request *r)
{
    const struct request *whole = r->lane ? r->lane->whole : r;

    if (!whole) /* it was left behind, and goes before the next step */
        return is_own(k, x);
    return whole != k->whole && !(k->keeps && (would_circle(k, whole) || may_last(k, r))) &&
           !x->opening && !x->lost && is_own_lesser(k, x) && !is_held_up(s, r, whole);
}

/* Of the owner's own. One that waits for pages itself has none, or keeps them. */
static bool will_go(const struct sched *s, const struct ask *k, const struct session *x)
{
    return x->busy && will_end(s, k, x, x->busy) && away_can(&x->memory);
}

/* The session of a part, which ends with it. NULL: that will not help. */
static struct session *part_of(const struct sched *s, const struct ask *k, const struct request *r)
{
    return r->lane && r->session && will_end(s, k, r->session, r) ? r->session : NULL;
}

/* --- how much that would be ------------------------------------------------------------------- */

/* by: 1 or -1. What the disk has of a page it gives back by itself, and what is kept in case it is
 * of use can be had: so a page is free as soon as no owner has it. */
static void count_pages(struct sched *s, const struct ask *k, struct session *x, uint32_t by,
                        struct gain *g)
{
    const struct pool *p = &s->served.pool;
    const struct seq *q = &x->seq;

    look_at(k, x)->counted = by == 1;
    g->of_account += q->account == k->account ? q->n_pages : 0;
    for (uint32_t i = 0; i < seq_n_segments(q); i++)
        for (uint32_t j = 0; j < seq_pages_of(q, i); j++) {
            uint32_t page = seq_pages(q, i)[j];

            s->leaving[page] += by;
            if (s->leaving[page] != p->owned[page])
                continue;
            g->n++;
            g->of_owner += p->by[page] == &k->owner->pages;
        }
}

static bool is_counted(const struct ask *k, const struct session *x)
{
    return x->look.number == k->look && x->look.counted;
}

/* Before x goes, or when it turns out that it would be no help: its pages are no reason any more
 * for others to go. */
static void forget_pages(struct sched *s, const struct ask *k, struct session *x)
{
    struct gain none = { .n = 0 };

    if (is_counted(k, x))
        count_pages(s, k, x, -1u, &none);
}

/* The end of every look that has counted: sched.leaving is zeros again. */
static void forget_all_pages(struct sched *s, const struct ask *k)
{
    struct session *x;
    struct request *r;
    struct client *c;

    TAILQ_FOREACH (c, &s->clients, link)
        TAILQ_FOREACH (x, &c->sessions, link)
            forget_pages(s, k, x);
    TAILQ_FOREACH (r, &s->active, link)
        if (r->lane && r->session)
            forget_pages(s, k, r->session);
}

/* All that may go, and with later also those that will; and what the disk gives back by itself. */
static struct gain count_all(struct sched *s, const struct ask *k, bool later)
{
    struct gain g = { .n = tier_coming(s->served.tier) };
    struct session *x;
    struct request *r;
    struct client *c;

    TAILQ_FOREACH (c, &s->clients, link)
        TAILQ_FOREACH (x, &c->sessions, link)
            if (goes(k, x, true) || (later && will_go(s, k, x)))
                count_pages(s, k, x, 1, &g);
    TAILQ_FOREACH (r, &s->active, link)
        if (later && (x = part_of(s, k, r)))
            count_pages(s, k, x, 1, &g);
    return g;
}

static void add_most(const struct ask *k, const struct session *x, struct gain *g)
{
    g->n += x->seq.n_pages;
    g->of_account += x->seq.account == k->account ? x->seq.n_pages : 0;
}

/* No more than that, as fast as it can be said: each page once for each table. */
static struct gain count_most(struct sched *s, const struct ask *k, bool later)
{
    struct gain g = { .n = tier_coming(s->served.tier) };
    struct session *x;
    struct request *r;
    struct client *c;

    TAILQ_FOREACH (c, &s->clients, link)
        TAILQ_FOREACH (x, &c->sessions, link)
            if (goes(k, x, false) || (later && will_go(s, k, x)))
                add_most(k, x, &g);
    TAILQ_FOREACH (r, &s->active, link)
        if (later && (x = part_of(s, k, r)))
            add_most(k, x, &g);
    g.of_owner = g.n;
    return g;
}

/* There would be enough. A new look: what sessions remember of an older one counts no more. What it
 * has counted stays so until forget_all_pages. */
static bool would_do(struct sched *s, struct ask *k, bool later)
{
    struct gain g = count_most(s, k, later);

    k->look = ++s->n_looks;
    if (!is_enough(s, k, &g))
        return false;
    g = count_all(s, k, later);
    return is_enough(s, k, &g);
}

/* --- who goes --------------------------------------------------------------------------------- */

/* With it a page is free, when all that it shares it with have gone; or an entry is what it takes.
 */
static bool is_of_use(const struct sched *s, const struct ask *k, const struct session *x)
{
    const struct pool_account *a = k->account;
    const struct seq *q = &x->seq;

    if (q->account == a && k->n + k->before.of_account > a->limit - a->used)
        return true;
    if (k->shares)
        return false;
    for (uint32_t i = 0; i < seq_n_segments(q); i++)
        for (uint32_t j = 0; j < seq_pages_of(q, i); j++)
            if (s->leaving[seq_pages(q, i)[j]] == s->served.pool.owned[seq_pages(q, i)[j]])
                return true;
    return false;
}

static struct session *longest_unused(struct sched *s, const struct ask *k, enum kind kind)
{
    struct session *x, *best = NULL;
    struct client *c;

    TAILQ_FOREACH (c, &s->clients, link)
        TAILQ_FOREACH (x, &c->sessions, link)
            if ((!best || x->rested_ns < best->rested_ns) && is_counted(k, x) &&
                (is_read_again(kind) || !x->look.asked || x->look.kept) && gives_way(k, x, kind))
                best = x;
    return best;
}

/* What is kept is looked up last, and once in a look for room. */
static struct session *next_to_go(struct sched *s, const struct ask *k, enum kind kind)
{
    struct session *x;

    while ((x = longest_unused(s, k, kind))) {
        if (!is_of_use(s, k, x))
            forget_pages(s, k, x);
        else if (is_read_again(kind) || is_kept(k, x))
            break;
    }
    return x;
}

static void go(struct sched *s, const struct ask *k, struct session *x)
{
    struct memory *m = &x->memory;

    log_debug("session %" PRIu64 " of user %u gives %u pages to others: it comes back when it is "
              "used next",
              x->id, (unsigned)x->client->uid, m->seq->n_pages);
    forget_pages(s, k, x);
    away_go(m);
    s->totals.gave_way++;
}

/* Pages that are just being written are free when that is done. */
static bool come_by_themselves(const struct sched *s, const struct ask *k)
{
    return !k->shares && served_pages_come(&s->served, k->account, k->n);
}

static bool make(struct sched *s, const struct ask *k)
{
    bool any = false;

    for (int kind = 0; kind < KIND__N && !has(s, k) && !come_by_themselves(s, k);) {
        struct session *x = next_to_go(s, k, kind);

        if (x)
            go(s, k, x);
        else
            kind++;
        any |= x != NULL;
    }
    return any;
}

/* Some go, and there are enough. For what can't be had nobody goes. */
static bool make_enough(struct sched *s, struct ask *k)
{
    bool any = would_do(s, k, false) && make(s, k);

    forget_all_pages(s, k);
    return any && has(s, k);
}

bool room_make(struct sched *s, const struct request *r, const struct pool_account *a, uint64_t n)
{
    struct ask k = ask_of(s, r, a, n);

    return !has(s, &k) && make_enough(s, &k);
}

/* Tried again in a later step, so what went for it is not handed to r here; room_made keeps the
 * scheduler from sleeping until then. */
bool room_comes(struct sched *s, const struct request *r, const struct pool_account *a, uint64_t n)
{
    if (served_pages_come(&s->served, a, n))
        return true;
    if (!room_make(s, r, a, n))
        return served_pages_come(&s->served, a, n); /* the disk has those of who gave way */
    s->room_made = true;
    return true;
}

/* --- who waits -------------------------------------------------------------------------------- */

/* When those have ended who are at work there will be enough. */
static bool later(struct sched *s, struct ask *k)
{
    bool is = would_do(s, k, true);

    forget_all_pages(s, k);
    return is;
}

/* Of those that come back what they don't have yet; of the owner's, also of those that have waited
 * longer. */
static struct before promised(const struct sched *s, const struct request *r)
{
    struct before b = { .all = 0 };
    const struct request *x;

    TAILQ_FOREACH (x, &s->active, link) {
        const struct owner *o = x->client->owner;
        uint32_t n;

        if (x == r || !x->was_away || x->cancelled || !request_away(x) ||
            (x->memory->away.state == AWAY_GONE &&
             (o != r->client->owner || x->arrived_ns >= r->arrived_ns)))
            continue;
        n = away_wants(x->memory);
        b.all += n;
        b.of_owner += o == r->client->owner ? n : 0;
        b.of_account += x->memory->seq->account == r->memory->seq->account ? n : 0;
    }
    return b;
}

bool room_to_come(struct sched *s, struct request *r)
{
    const struct memory *m = r->memory;
    struct ask k = ask_of(s, r, m->seq->account, away_wants(m));
    struct before b = promised(s, r);

    k.before.all += b.all;
    k.before.of_owner += b.of_owner;
    k.before.of_account += b.of_account;
    if (has(s, &k) || make_enough(s, &k) || served_pages_come(&s->served, k.account, k.n))
        return true;
    k = ask_of(s, r, m->seq->account, k.n); /* those will have come, and gone */
    return !later(s, &k);
}

/* Only of a session itself, which its ids bring back, and which is not just coming from the disk:
 * that would have to be given up halfway. */
bool room_to_go(struct sched *s, struct request *r, uint64_t n)
{
    struct memory *m = r->memory;
    struct ask k;

    if (!r->was_away || !r->session || m != &r->session->memory ||
        (m->away.state != AWAY_HERE && m->away.state != AWAY_READING) ||
        (m->seq->n_pages > 0 && !away_can(m)))
        return false;
    k = ask_of(s, r, m->seq->account, n);
    if (!later(s, &k))
        return false;
    away_again(m, (uint32_t)n);
    return true;
}

/* While others compute; when nobody else has done anything in the last step, nobody will give
 * anything back. */
static bool waits_for_any(struct sched *s, const struct request *r)
{
    const struct owner *o = r->client->owner;

    if (s->stalled ||
        (r->priority == WIRE_INTERACTIVE && o->pages.used <= owners_even(&s->owners, o)))
        return false;
    s->n_paused++;
    return true;
}

/* Those of its user that it waits for go on by themselves: they read or write, and no step is
 * without them, or they wait for a disk or a grammar, which ring. So the scheduler may sleep, and
 * each step looks again, also the one behind a step in which one has ended (batch.c, add). What is
 * in parts has its pages back from the older ones of them, in any case. */
static bool waits(struct sched *s, struct request *r, struct ask *k)
{
    bool is;

    k->keeps = true;
    is = (r->lane && !lane_is_first(r->lane)) || (!has(s, k) && later(s, k)) ||
         (!k->shares && waits_for_any(s, r)); /* nobody else gives entries back */
    if (is && !r->paused)
        memory_rest(r->memory); /* those may want what it compresses with */
    r->paused = is;
    return is;
}

bool room_waits(struct sched *s, struct request *r, uint64_t n)
{
    struct ask k = ask_of(s, r, r->memory->seq->account, n);

    return waits(s, r, &k);
}

/* It holds none from here on, and so may wait for those who keep theirs. What more it does than
 * read or write has no place to go on from. */
static bool gives_its_own(struct sched *s, struct request *r, struct ask *k)
{
    struct memory *m = r->memory;

    k->keeps = false;
    if (r->lane || r->job || !r->session || r->session->opening || m != &r->session->memory ||
        m->away.state != AWAY_HERE || !away_can(m) || has(s, k) || !later(s, k))
        return false;
    if (r->reader) /* they might be those that it waits for */
        follow_leave(&s->follow, r->reader);
    r->reader = NULL;
    away_again(m, (uint32_t)k->n);
    r->paused = false;
    r->was_away = s->room_made = true;
    s->totals.gave_way++;
    return true;
}

bool room_gives_way(struct sched *s, struct request *r, uint64_t n)
{
    struct ask k = ask_of(s, r, r->memory->seq->account, n);

    return gives_its_own(s, r, &k);
}

bool room_to_share(struct sched *s, struct request *r, const struct pool_account *a, uint64_t n)
{
    struct ask k = ask_of(s, r, a, n);

    k.shares = true;
    if (has(s, &k)) /* something else stands against it */
        return false;
    if (!make_enough(s, &k))
        return waits(s, r, &k);
    s->room_made = true;
    return true;
}
