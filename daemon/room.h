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
 * Who finds too few pages may wait for those of requests at work, which give them back when they
 * end:
 *
 *     who                               waits for                          holds meanwhile
 *     what comes back                   its user's, the oldest first       nothing
 *     an answer that is being written,  its user's, but none in parts      its pages
 *     an append that reads, a fork
 *     the oldest part of a request      its user's, and older ones in      its pages
 *                                       parts
 *     another part of it                the oldest                         its pages
 *     a background one, or one of who   anybody who computes               its pages
 *     has more than an even part
 *
 * Its user's are waited for only if there will be enough when they have ended, and not where their
 * reader holds them up; nor by an interactive one for a background one that waits, since that may
 * wait for anybody. Entries of an account nobody gives back but its client. Nobody who holds pages
 * waits for one that waits, so that there are no circles: of two answers that want each other's
 * pages the second one gives way (room_gives_way), and comes back when the first has ended; where
 * its ids do not bring it back it ends instead. Several answers, scored choices and embeddings are
 * in parts, which do not give way once one has begun: so nobody who holds pages waits for them but
 * younger ones, and single ones give way to them. Of what segments are compressed with an answer
 * gives back all that it has before it waits. What comes back, and finds nobody to wait for, tries
 * with what there is. Nobody waits for the pages that compressing takes (batch.c, plan_upkeep): who
 * finds none fails.
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
/* An answer, or an append that reads, that found n pages too few: it is to wait. It asks again in
 * each step. */
bool room_waits(struct sched *s, struct request *r, uint64_t n);
/* It is not, since those who will give pages back wait for its own: these they have. True: it is
 * GONE, and comes back. False: there is nobody who would, or it can't. */
bool room_gives_way(struct sched *s, struct request *r, uint64_t n);

/* A fork for the request found too few entries in the account for n pages that are there. True: it
 * is to be tried again, and waits as room_waits says. */
bool room_to_share(struct sched *s, struct request *r, const struct pool_account *a, uint64_t n);

#endif
