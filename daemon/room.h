/* daemon/room.h - room for pages: who gives way when they are short.
 *
 * Sessions that nobody works on give their pages up to who has less than an even part of the pool,
 * and to their own user's requests, and come back when they are used next (daemon/away.h). In this
 * order, of each kind the one that was not used for the longest first ("kept": in host memory or in
 * the store):
 *
 *     whose                             what it holds  for
 *     who has more than an even part    is kept        who stays within his
 *     background ones, of anybody       is kept        an interactive one
 *     who has more than an even part    is read again  who stays within his
 *     his own                           is kept        an interactive one, what comes back
 *     his own                           is read again  an interactive one, what comes back
 *
 * A background request has of its user's own the background ones alone. So nobody loses an idle
 * session to who has more than he, and without a store (--store none) a session that gave way is
 * read again by the model. Sessions of several documents, and what was read behind hydrated
 * segments, are no function of their ids: they stay. So does what would bring nothing: whose pages
 * all stand in tables of others, too, that can't go.
 *
 * What comes back and finds too few pages, while requests of its user are at work that will give
 * theirs back, stands in line for them, the oldest first, and holds none meanwhile: so nobody waits
 * for what it has. Where none of them would do it tries with what there is.
 *
 * An answer that is being written keeps its pages. Where it finds no more, and is a background one
 * or its owner has more than an even part, it waits while others compute, who end and give theirs
 * back; alone it ends.
 *
 * Threads    the scheduler's, between steps.
 */
#ifndef DAEMON_ROOM_H
#define DAEMON_ROOM_H

#include <stdbool.h>
#include <stdint.h>

struct pool_account;
struct request;
struct sched;

/* What was found out about a session in one look for room, and is not so in the next. */
struct room_look {
    uint64_t number;  /* of the look */
    bool asked, kept; /* it was asked whether it is kept, which is a hash of all its ids */
    bool counted;     /* its pages are in sched.leaving */
};

/* There are n pages more for the request, in an account of its client's, and nobody has waited for
 * them longer. */
bool room_has(const struct sched *s, const struct request *r, const struct pool_account *a,
              uint64_t n);
/* Has sessions give way until there are. True: some did, and now there are. */
bool room_make(struct sched *s, const struct request *r, const struct pool_account *a, uint64_t n);
/* There are none now, but will be in a later step. */
bool room_comes(struct sched *s, const struct request *r, const struct pool_account *a, uint64_t n);
/* Its session is GONE. True: it is to come, with all the pages that it wants, or as far as it gets.
 * False: it waits. */
bool room_to_come(struct sched *s, struct request *r);
/* It came back, or is about to, and wants n pages more that there are not. True: it is GONE again,
 * and waits. */
bool room_to_go(struct sched *s, struct request *r, uint64_t n);
/* An answer that found no page: it is to wait. */
bool room_waits(struct sched *s, const struct request *r);

#endif
