/* client/gist_open.h - what opens a session, and what brings its answer: for the files of libgist
 * that do either.
 */
#ifndef CLIENT_GIST_OPEN_H
#define CLIENT_GIST_OPEN_H

#include "client/gist_internal.h"

/* A request that opens a session: run, or started. on_reply is set. */
int gist_run_open(struct gist_request *r, gist_session **ret_session);
int gist_start_open(struct gist_request *r, gist_session_fn *on_session, void *arg,
                    uint64_t *ret_request);

/* In two steps. Room, before r is sent: a session that the daemon has and we could not keep would
 * be lost. Then the session, which is the connection's. */
int gist_make_room(struct gist_request *r);
gist_session *gist_adopt(struct gist_request *r);

/* on_reply of a Generate, and of what brings the rest of one. */
int gist_keep_answer(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk);

#endif
