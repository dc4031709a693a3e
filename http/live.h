/* http/live.h - sessions that stay open between requests, with their memory as it is: the page's
 * chats.
 *
 * A chat that is sent whole every time costs only its new tokens, but what was brought back for its
 * last question, and the picture of its memory, end with each request. A live session keeps both.
 * It may end at any time all the same: it was idle for long, others need its place, the daemon was
 * started anew. Its client then sends the whole chat once more, as one that is new, and the daemon
 * finds by the text what it has read. So nothing is kept here that could be lost: the client counts
 * the turns it has sent, and who disagrees about their number is told to send all.
 *
 *              live_take                      live_put
 *     IDLE ---------------> BUSY, one request's ---------> IDLE
 *      |                      |
 *      | idle, no place       | live_drop, or it was deleted meanwhile
 *      +----------------------+----> gone
 *
 * Each belongs to the key that it was made with: others' are not there. Where there is no place,
 * one of the key that has most of them goes, and a key that has no more than the asker loses none.
 * One that is being answered can't go, so a key may not have all of them answered at once where
 * there are others (http/places.h).
 *
 * Threads    all; the lock is held for the list alone. A busy one is its request's, but for
 * stop_fd, title and doomed.
 * Ownership  of its connection to the daemon, which ends with it.
 * Errors     -1 and a problem.
 */
#ifndef HTTP_LIVE_H
#define HTTP_LIVE_H

#include "http/guard.h"
#include "http/pool.h"

#include "http/json.h"

#define LIVE_ID_LEN    32u
#define LIVE_TITLE_MAX 127u
#define LIVE_WAITERS   16u

struct live {
    struct live *next;
    char id[LIVE_ID_LEN + 1], who[GUARD_NAME_MAX + 1], title[LIVE_TITLE_MAX + 1];
    gist_conn *conn;
    gist_session *session; /* NULL: none was opened yet */
    uint32_t n_turns;      /* requests that it has read */
    uint64_t number;       /* of the session, as the daemon counts */
    uint64_t used_ns;
    int stop_fd; /* readable: its request is to end */
    bool busy, doomed;
};

/* A key that was refused for want of a place, and when; 0: none. */
struct live_waiter {
    char who[GUARD_NAME_MAX + 1];
    uint64_t since_ns;
};

struct lives {
    struct pool *pool;
    unsigned max;
    size_t n_keys;             /* names of keys that there are; 1: none is needed */
    uint64_t idle_ns, wait_ns; /* wait_ns: how soon who was refused comes again */
    pthread_mutex_t lock;      /* of what is below */
    struct live *list;
    unsigned n;
    struct live_waiter waiters[LIVE_WAITERS];
};

void lives_init(struct lives *l, struct pool *pool, unsigned max, size_t n_keys, unsigned idle_s);
void lives_fini(struct lives *l); /* none is busy */
/* Ends those that were idle for too long. Milliseconds until the next one will have been; -1: there
 * is none. */
int lives_expire(struct lives *l);

/* One of the key's own: busy from now on. id NULL: a new one. Not there, or after another number of
 * turns than n_turns: PROBLEM_GONE. No place: PROBLEM_LIMIT, and one that is idle stays so. */
int live_take(struct lives *l, const char *who, const char *id, uint32_t n_turns, struct live **ret,
              struct problem *p);
/* read: it holds one turn more. False: it is gone, since it was deleted meanwhile. */
bool live_put(struct lives *l, struct live *s, bool read);
void live_opened(struct lives *l, struct live *s, gist_session *session);
void live_drop(struct lives *l, struct live *s); /* NULL: nothing */

bool live_is_doomed(struct lives *l, const struct live *s);
/* Whether the key's own of that name is at work behind so many turns. */
bool live_is_heard(struct lives *l, const char *who, const char *id, size_t len, uint32_t n_turns);

/* o's field `title`, where it has one, of at most LIVE_TITLE_MAX bytes. */
int live_title(const struct json_object *o, const char **ret, struct problem *p);
void live_rename(struct lives *l, struct live *s, const char *title);

/* Its connection, made when it is first asked for; s is the caller's. */
int live_connect(struct lives *l, struct live *s, struct problem *p);

/* --- what is asked about them: info of an exchange (http/route.h) ------------------------------
 */

struct turns;

struct live_ask {
    struct lives *lives;
    struct turns *turns;            /* of these, left by their client (http/turn.h) */
    const char *who, *tail;         /* tail: what stands in the path behind the route's own */
    const struct json_object *body; /* NULL: there is none */
};
/* *ret is the caller's. */
typedef int live_fn(const struct live_ask *a, struct json_object **ret, struct problem *p);

live_fn live_list, live_look, live_change, live_delete;
/* The daemon's memory, all in all. */
live_fn live_memory;

/* How a session's text is held; c is the caller's. NULL and a problem. */
struct json_object *live_map(gist_conn *c, uint64_t number, struct problem *p);

#endif
