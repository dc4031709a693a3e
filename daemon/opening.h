/* daemon/opening.h - sessions that are read into before their client hears of them.
 *
 *               opening_begin()               opening_end()
 *     (nothing) --------------> OPENING -------------------------> the client's, by its number
 *                                  |  opening_undo(): the request failed, or was cancelled
 *                                  +--------------------------> (nothing)
 *
 * One that is opening is its client's in all but that no other request finds it: it is charged,
 * counted and freed with the client like any other.
 *
 * Threads    the scheduler's.
 */
#ifndef DAEMON_OPENING_H
#define DAEMON_OPENING_H

#include "daemon/request.h"
#include "daemon/session.h"

/* A session that the request has, r->session. LIMIT is answered: false. -ENOMEM in *ret_err: false,
 * too, and it was not. */
bool opening_begin(struct sched *s, struct request *r, const struct policy *policy,
                   enum session_sharing sharing, enum wire_priority priority, int *ret_err);

/* From now on the client may use it. The reply is the caller's. */
void opening_end(struct request *r);

/* Frees it, if there is one. Not in the middle of a step, unless it has no page. */
void opening_undo(struct sched *s, struct request *r);

/* It stays as it is while the request begins another one: r->session is NULL then. */
struct session *opening_leave(struct sched *s, struct request *r);
/* And is the request's again, which has none. */
void opening_return(struct request *r, struct session *session);

/* Takes it out of its client, who has no session of it any more: r->session is the caller's. */
struct session *opening_take(struct sched *s, struct request *r);

#endif
