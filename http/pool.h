/* http/pool.h - connections to the daemon, of which each request has one to itself.
 *
 * A libgist connection is one thread's at a time. It is handed on when its request ended in order;
 * who gives up in the middle drops it, and the daemon frees what it held and stops its work within
 * a step. At most `max` are out at once: who comes then is told to come again.
 *
 * The daemon may be started anew at any time: a connection from before is noticed when it is taken,
 * or else by its first call, which is when a request takes a fresh one (http/job.c).
 *
 * Threads    all of them; the lock is held for the list alone, never while connecting.
 * Ownership  taken connections are the request's until pool_put or pool_drop.
 * Errors     -1 and a problem: no daemon, a daemon that loads its model, too many requests.
 */
#ifndef HTTP_POOL_H
#define HTTP_POOL_H

#include "http/problem.h"

#include <pthread.h>
#include <stdbool.h>

#define POOL_IDLE_MAX 8u

struct pool {
    const char *path; /* of the daemon's socket; NULL: the usual one */
    unsigned max;
    pthread_mutex_t lock; /* of what is below */
    gist_conn *idle[POOL_IDLE_MAX];
    unsigned n_idle, n_out;
};

void pool_init(struct pool *p, const char *path, unsigned max);
void pool_fini(struct pool *p); /* all that were out are back */

/* *ret_fresh: nobody had it before. */
int pool_take(struct pool *p, gist_conn **ret, bool *ret_fresh, struct problem *problem);
/* One that is the caller's own, and counts as nobody's. */
int pool_open(struct pool *p, gist_conn **ret, struct problem *problem);
/* c, whose first call failed, for a new one. */
int pool_renew(struct pool *p, gist_conn *c, gist_conn **ret, struct problem *problem);
/* Takes one and asks it how its daemon is. *ret_stats: until something else is asked on it. */
int pool_take_stats(struct pool *p, gist_conn **ret, struct gist_stats *ret_stats,
                    struct problem *problem);
/* asked: the model that a request names, NULL: none. -1 and a problem: c's daemon serves another.
 */
int pool_check_model(const gist_conn *c, const char *asked, struct problem *problem);
void pool_put(struct pool *p, gist_conn *c);
void pool_drop(struct pool *p, gist_conn *c);

#endif
