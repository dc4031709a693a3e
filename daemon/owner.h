/* daemon/owner.h - a user of the daemon: what all its clients and documents have together.
 *
 * Limits of a client alone are passed by opening more connections; these are not. What nobody else
 * may want is not kept from anybody: where the socket's mode lets in the daemon's own user alone
 * (root aside), an owner may have all there is. Else there is always room for one more owner:
 *
 *     places of clients   a quarter of max-clients, one at least      (daemon/control.h counts)
 *     pages               the last sixteenth of the pool              (P6 of engine/kv/pool.h)
 *     held text           a quarter of text-bytes                     (daemon/held.h)
 *
 *        owner_ref()                              owner_unref()
 *     ----------------> client, document, .. <--------------------> forgotten, when nothing is
 *        by uid                                                      charged to it any more
 *
 * Turns      A step is divided into even parts of owners, an owner's into those of its units
 *            (daemon/portion.h, daemon/unit.h).
 *
 * Line       Who was refused pages stands in a line, and of those that come free an even part
 *            of the pool is kept for it, until it has them or has not asked for them again for
 *            OWNER_LINE_NS. Whoever asks right behind its own close would else have them before
 *            who waits.
 *
 * Threads    the scheduler's, but for owner_limits.
 * Ownership  owners belong to struct owners; a reference keeps one alive.
 */
#ifndef DAEMON_OWNER_H
#define DAEMON_OWNER_H

#include "daemon/config.h"
#include "daemon/held.h"
#include "daemon/portion.h"
#include "engine/kv/pool.h"

#include <sys/queue.h>
#include <sys/types.h>

#define OWNER_LINE_NS (1000u * 1000u * 1000u)

struct client;

TAILQ_HEAD(owner_clients, client);

struct owner {
    TAILQ_ENTRY(owner) link;
    uid_t uid;
    uint32_t n_refs;
    struct owner_clients clients; /* in no order */
    struct portion_list units;    /* that they are of; the first is served next */
    struct pool_owner pages;
    struct held_account held;
    uint64_t rows;               /* of steps, that its requests had */
    struct portion portion;      /* among all owners */
    struct portion *next;        /* batch.c: the unit whose token is added next */
    uint64_t wanted;             /* pages that it was refused; 0: it stands in no line */
    uint64_t since_ns, asked_ns; /* it has stood there, and has last asked */
};

/* 0 in what was asked for is what stands above. */
struct owner_limits {
    uint32_t clients, sessions, pages, reserve, pool; /* pool: all of its pages */
    size_t held, held_all;                            /* bytes */
};

TAILQ_HEAD(owner_list, owner);

struct owners {
    struct owner_list list;
    struct portion_list portions; /* of the same */
    struct owner_limits limits;
    struct held_account held; /* of all of them */
};

/* shared: users other than the daemon's own may connect. page_bytes, n_pages: of the pool; without
 * one, 0. */
struct owner_limits owner_limits(const struct config *c, bool shared, size_t page_bytes,
                                 uint32_t n_pages);

void owners_init(struct owners *o, const struct owner_limits *limits);
void owners_fini(struct owners *o); /* nobody has a reference */

/* The one with this uid. NULL: no memory. */
struct owner *owner_ref(struct owners *o, uid_t uid);
void owner_unref(struct owners *o, struct owner *owner); /* NULL: nothing */

/* portion_turn, of owners and of the units of each. */
void owners_turn(struct owners *o);
/* Of its clients with a request that is `next`, the first in turn: of its next unit, the next one.
 * Those behind both have the next turn. NULL: there is none. */
struct client *owner_next(struct owner *o);

/* It asked for so many pages, and there are too few; or it has what it asked for. */
void owner_refused(struct owner *o, uint64_t pages, uint64_t now_ns);
void owner_served(struct owner *o);
/* How many pages are kept for who stands before this one in the line. */
uint64_t owners_ahead(const struct owners *o, const struct owner *owner, uint64_t now_ns);

/* Who may know what: of a user's programs he himself, of everybody's root and the daemon's user.
 * stand_in: who is nobody's own (daemon/served.h). */
bool owner_is_own(uid_t asks, uid_t uid, uid_t stand_in);
bool owner_sees_all(uid_t asks);
bool owner_sees(uid_t asks, uid_t uid, uid_t stand_in);

uint32_t owners_count(const struct owners *o);
/* An even part of the pool's pages, of who has some and this one. */
uint32_t owners_even(const struct owners *o, const struct owner *owner);

/* Sessions of all its clients, and those that only their requests know (daemon/lanes.h). */
uint32_t owner_sessions(const struct owner *o);
uint32_t owner_lanes(const struct owner *o);

#endif
