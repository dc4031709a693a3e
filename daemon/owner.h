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
 * Turns      Of what a step reads each owner has an even part (owner_part), and who had fewer rows
 *            of earlier steps has up to half of that more, until it has had as many. Who comes, or
 *            comes back, begins where those stand who are there: time away is not saved up.
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
    struct owner_clients clients; /* the first is served next */
    struct pool_owner pages;
    struct held_account held;
    uint64_t rows;               /* of steps, that its requests had */
    uint64_t had;                /* the same, as turns count them */
    bool wants, waited;          /* something of this step, of the last one */
    struct client *next;         /* batch.c: whose token is added next */
    uint32_t n_waiting;          /* batch.c: clients that read */
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

/* Before a step, with `wants` set: where those begin who were not there in the last one. */
void owners_turn(struct owners *o);
/* Of those who have something to read (n_waiting > 0), who had least; NULL: none has. *ret_n: how
 * many they are, *ret_most: what the one had who had most. */
struct owner *owners_next(const struct owners *o, uint32_t *ret_n, uint64_t *ret_most);
/* Its part of so many tokens, of n who wait. */
uint32_t owner_part(const struct owner *o, uint32_t tokens, uint32_t n, uint64_t most);
/* An even part of so many tokens for the first of n; none is too small to be worth its step: rather
 * than that, those at the end of the line wait. */
uint32_t owner_even(uint32_t tokens, uint32_t n);
/* It had n rows of a step; lost: which it gave up, and others might have had its turn. */
void owner_had(struct owner *o, uint32_t n, bool lost);

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
