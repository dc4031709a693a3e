/* daemon/append.h - reading into a session, for requests that do more than that.
 *
 * Append reads what its client sent; Restore, an OpenSession with documents and AddDocument read
 * ids or a text, too, and by the same functions, so that all of them wait for each other's
 * beginnings, take over what is known, and leave a session as it was when they fail. Such a request
 * has these as its own ops, or calls them from its own, with r->session taken:
 *
 *                append_take(), append_take_ids()    append_work()         append_rows()
 *     request's start ------------------------> WORK --------------> RUN ---------------> done()
 *
 * done() has the session as it is to be and r->usage filled; it ends the request, or goes on with
 * it in phase WORK. Without it the reply is Appended.
 *
 * Threads    the scheduler's.
 * Ownership  r->state is an append's own, freed by append_fini; r->job is the request's.
 * Errors     append_take, append_take_ids: -ENOMEM, -EDQUOT; all else was answered.
 */
#ifndef DAEMON_APPEND_H
#define DAEMON_APPEND_H

#include "daemon/request.h"
#include "engine/text/chat.h"

typedef void append_done_fn(struct sched *s, struct request *r);

/* What the Append m says; the bulk is r->parts, whole. */
int append_take(struct sched *s, struct request *r, const struct wire_req *m, append_done_fn *done);
/* Ids as they are, behind which a conversation stands at `after`. */
int append_take_ids(struct sched *s, struct request *r, const uint32_t *ids, size_t n,
                    enum chat_at after, append_done_fn *done);

/* How far it is. */
struct append_progress {
    const uint32_t *ids; /* (n) of all; NULL: not all are known yet */
    uint32_t n, n_read;  /* n_read: also those that others had read */
    enum chat_at chat_after;
};
struct append_progress append_progress(const struct request *r);

bool append_work(struct sched *s, struct request *r);
bool append_plan(struct sched *s, struct request *r, uint32_t max, struct forward_run *ret);
void append_rows(struct sched *s, struct request *r, uint32_t first, uint32_t n_out, uint32_t n);
void append_undo(struct sched *s, struct request *r);
void append_fini(struct request *r);

#endif
