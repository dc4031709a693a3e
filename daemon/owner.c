#include "daemon/owner.h"

#include "daemon/client.h"

#include <assert.h>
#include <stdlib.h>
#include <unistd.h>

/* Parts that are kept for an owner who is still to come, where others than the daemon's user may
 * connect (daemon/owner.h). Options that are 0 leave it to these. */
#define PLACES_KEPT 4u  /* of the places for clients, a part */
#define PAGES_KEPT  16u /* of the pool: a short question and its answer */
#define HELD_KEPT   4u  /* of held text */

/* An owner's connections. What the administrator says goes before what is kept for others. */
static uint32_t most_clients(const struct config *c, bool shared)
{
    uint32_t kept = c->max_clients / PLACES_KEPT;

    if (c->owner_clients)
        return c->owner_clients;
    /* With a single place there is none to be kept. */
    if (!shared || c->max_clients == 1)
        return c->max_clients;
    return c->max_clients - (kept ? kept : 1);
}

/* A limit of a client is meant to be one of whoever opens the connections, unless an owner's own
 * says otherwise. In 64 bits until it is compared: bytes of a configuration may be more pages than
 * there are numbers for. */
static uint32_t most_pages(const struct config *c, size_t page_bytes, uint32_t n_pages,
                           uint32_t reserve)
{
    uint64_t bytes = c->owner_kv_bytes ? c->owner_kv_bytes : c->client_kv_bytes;
    uint64_t pages = bytes && page_bytes ? bytes / page_bytes : n_pages;

    return pages < n_pages - reserve ? (uint32_t)pages : n_pages - reserve;
}

struct owner_limits owner_limits(const struct config *c, bool shared, size_t page_bytes,
                                 uint32_t n_pages)
{
    uint32_t reserve = shared ? n_pages / PAGES_KEPT : 0;
    struct owner_limits l = { .clients = most_clients(c, shared),
                              .sessions = c->owner_sessions,
                              .pages = most_pages(c, page_bytes, n_pages, reserve),
                              .reserve = reserve,
                              .pool = n_pages,
                              .held = c->owner_text_bytes,
                              .held_all = c->text_bytes };

    if (!l.held)
        l.held = shared ? l.held_all - l.held_all / HELD_KEPT : l.held_all;
    return l;
}

void owners_init(struct owners *o, const struct owner_limits *limits)
{
    *o = (struct owners){ .limits = *limits, .held.limit = limits->held_all };
    TAILQ_INIT(&o->list);
    TAILQ_INIT(&o->portions);
}

/* The last reference may go while text is still charged only by mistake: each held byte belongs to
 * a client or a document, which has a reference. */
static void forget(struct owners *o, struct owner *owner)
{
    assert(TAILQ_EMPTY(&owner->clients) && TAILQ_EMPTY(&owner->units) && owner->held.used == 0);
    TAILQ_REMOVE(&o->portions, &owner->portion, link);
    TAILQ_REMOVE(&o->list, owner, link);
    free(owner);
}

/* Of a text that is public another user may have pages that are charged to who had them first: such
 * an owner is kept until the next look. */
static void forget_gone(struct owners *o)
{
    struct owner *owner, *next;

    for (owner = TAILQ_FIRST(&o->list); owner; owner = next) {
        next = TAILQ_NEXT(owner, link);
        if (owner->n_refs == 0 && owner->pages.used == 0)
            forget(o, owner);
    }
}

/* The pool is closed behind this and has no use for owners any more, whatever is still charged. */
void owners_fini(struct owners *o)
{
    struct owner *owner;

    while ((owner = TAILQ_FIRST(&o->list))) {
        assert(owner->n_refs == 0);
        forget(o, owner);
    }
    assert(o->held.used == 0);
}

/* A list, and not a table: owners are users who are connected, and few. Looked through when a
 * client comes, not in steps. */
struct owner *owner_ref(struct owners *o, uid_t uid)
{
    struct owner *owner;

    forget_gone(o);
    TAILQ_FOREACH (owner, &o->list, link)
        if (owner->uid == uid)
            break;
    if (!owner) {
        owner = calloc(1, sizeof(*owner));
        if (!owner)
            return NULL;
        owner->uid = uid;
        owner->pages.limit = o->limits.pages;
        owner->held = (struct held_account){ .limit = o->limits.held, .above = &o->held };
        owner->portion.of = owner;
        TAILQ_INIT(&owner->clients);
        TAILQ_INIT(&owner->units);
        TAILQ_INSERT_TAIL(&o->list, owner, link);
        TAILQ_INSERT_TAIL(&o->portions, &owner->portion, link);
    }
    owner->n_refs++;
    return owner;
}

void owner_unref(struct owners *o, struct owner *owner)
{
    if (!owner)
        return;
    assert(owner->n_refs > 0);
    owner->n_refs--;
    forget_gone(o);
}

void owners_turn(struct owners *o)
{
    struct owner *owner;

    portion_turn(&o->portions);
    TAILQ_FOREACH (owner, &o->list, link)
        portion_turn(&owner->units);
}

/* Once around the unit's ring of clients, from where the last turn ended. u->next moves on before
 * anything is returned, so that the one behind has the next turn. NULL, from where there was
 * nobody: the ring begins at its head. */
static struct client *next_of_unit(struct unit *u)
{
    struct client *c = u->next, *first = c;

    do {
        struct client *behind = c ? TAILQ_NEXT(c, of_unit) : NULL;

        u->next = behind ? behind : TAILQ_FIRST(&u->clients);
        if (c && c->next)
            return c;
        c = u->next;
    } while (c != first);
    return NULL;
}

/* The same ring one level up: a unit a turn, and a client of it. */
struct client *owner_next(struct owner *o)
{
    struct portion *x = o->next, *first = x;

    do {
        struct portion *behind = x ? TAILQ_NEXT(x, link) : NULL;
        struct client *c = x ? next_of_unit(x->of) : NULL;

        o->next = behind ? behind : TAILQ_FIRST(&o->units);
        if (c)
            return c;
        x = o->next;
    } while (x != first);
    return NULL;
}

/* Nobody says when he gives up: who has not asked again for OWNER_LINE_NS is taken to have. */
static bool in_line(const struct owner *o, uint64_t now_ns)
{
    return o->wanted > 0 && now_ns - o->asked_ns < OWNER_LINE_NS;
}

void owner_refused(struct owner *o, uint64_t pages, uint64_t now_ns)
{
    /* Its place is that of the first time: asking again and again moves nobody back. */
    if (!in_line(o, now_ns))
        o->since_ns = now_ns;
    o->asked_ns = now_ns;
    o->wanted = pages;
}

void owner_served(struct owner *o)
{
    o->wanted = 0;
}

/* An even part, and no more: who asks for what can never be had keeps the rest from nobody. Who
 * stands in line himself waits for those who came before him only. */
uint64_t owners_ahead(const struct owners *o, const struct owner *owner, uint64_t now_ns)
{
    uint32_t n_owners = owners_count(o), even = o->limits.pool / (n_owners ? n_owners : 1);
    const struct owner *x;
    uint64_t n = 0;

    TAILQ_FOREACH (x, &o->list, link) {
        if (x == owner || !in_line(x, now_ns) || x->pages.used >= even ||
            (in_line(owner, now_ns) && owner->since_ns <= x->since_ns))
            continue;
        n += x->wanted < even - x->pages.used ? x->wanted : even - x->pages.used;
    }
    return n;
}

/* Users without a number in the daemon's user namespace all look like the same one (overflowuid),
 * so that number is no proof of being anybody. */
bool owner_is_own(uid_t asks, uid_t uid, uid_t stand_in)
{
    return asks == uid && uid != stand_in;
}

bool owner_sees_all(uid_t asks)
{
    return asks == 0 || asks == geteuid();
}

bool owner_sees(uid_t asks, uid_t uid, uid_t stand_in)
{
    return owner_sees_all(asks) || owner_is_own(asks, uid, stand_in);
}

uint32_t owners_count(const struct owners *o)
{
    const struct owner *owner;
    uint32_t n = 0;

    TAILQ_FOREACH (owner, &o->list, link)
        n++;
    return n;
}

/* Of those that have pages. Who is connected and reads nothing makes nobody else's part smaller. */
uint32_t owners_even(const struct owners *o, const struct owner *owner)
{
    const struct owner *x;
    uint32_t n = 0;

    TAILQ_FOREACH (x, &o->list, link)
        n += x == owner || x->pages.used > 0;
    return o->limits.pool / (n ? n : 1);
}

uint32_t owner_sessions(const struct owner *o)
{
    const struct client *c;
    uint32_t n = 0;

    TAILQ_FOREACH (c, &o->clients, of_owner)
        n += c->n_sessions;
    return n;
}

uint32_t owner_lanes(const struct owner *o)
{
    const struct client *c;
    uint32_t n = 0;

    TAILQ_FOREACH (c, &o->clients, of_owner)
        n += c->n_lanes;
    return n;
}
