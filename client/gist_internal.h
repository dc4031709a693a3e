/* client/gist_internal.h - what the files of libgist share: a connection and its open requests.
 *
 * A request is made by the caller's thread, queued, sent when the channel has room, answered by one
 * or more replies, and done:
 *
 *              gist_submit()        pump()                 take_reply(), last
 *     (new) ---------------> QUEUED ---------> IN FLIGHT -----------------------> DONE
 *                              ^                  |      gist_fail(): all of them   |
 *                              +------------------+                                 v
 *                                 a part of long bulk was                 on_done, and freed if
 *                                 answered: the next one                  nobody waits for it
 *
 * Bulk (text, token ids) of any length goes in parts of a quarter of the arena, each a request of
 * its own on the wire, sent when the one before it was answered: an error then leaves no part
 * behind in the daemon that would become the beginning of the next text. The daemon reads nothing
 * before it has the last part, and then all as one: where the cuts are is of no consequence. The
 * queue is first in, first out, but Cancel goes to its front.
 *
 * A list of ids that is too long for one request goes as several, one behind the other, and they
 * are one to the caller: `later` is what those to come will have.
 *
 * A reply is handled with the channel's message still held, and callbacks run from there. They may
 * submit, so sending must not wait; they may not wait, so gist_run refuses. What ends a connection
 * while a callback runs takes effect behind it, so that no request is freed under its own callback.
 *
 * Threads    one at a time a connection; gist_cancel_async touches only cancel and cancel_fd.
 * Ownership  the connection owns its sessions, and requests that nobody waits for.
 */
#ifndef CLIENT_GIST_INTERNAL_H
#define CLIENT_GIST_INTERNAL_H

#include "client/gist.h"
#include "client/gist_connect.h"
#include "client/gist_value.h"
#include "ipc/chan.h"
#include "ipc/wire.h"

#include <stdatomic.h>
#include <stdbool.h>

#define GIST_ERROR_CAP  512
#define GIST_SPIN_NS    20000u
#define GIST_CONNECT_MS 60000 /* a daemon that systemd just started loads its model first */

struct gist_request;

/* Handles a reply that is no Error. Returns 0 or -EPROTO: not an answer to this. Other trouble goes
 * to r->err, which the request ends with when its last reply came. */
typedef int gist_reply_fn(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk);

typedef void gist_tell_fn(struct gist_request *r, int err);

struct gist_request {
    struct gist_request *next; /* of the connection's open ones, oldest first */
    gist_conn *conn;
    uint64_t handle;     /* id of the first part: what the caller knows it by */
    struct wire_req msg; /* its id is that of the part in flight */
    const uint8_t *bulk;
    size_t bulk_len, sent;
    size_t later, step; /* bytes behind bulk, which go `step` at a time when this was answered */
    size_t here;        /* bytes that bulk began with */
    void *owned;        /* bulk, and what msg points to, if that is a copy of ours */
    bool queued, in_flight, waited_for, done;
    bool cancel; /* wanted; sent as soon as the last part is in flight */
    bool cut;    /* an answer that ended with an error, and result says how far it had come */
    int err;
    gist_reply_fn *on_reply; /* NULL: any reply will do */
    gist_text_fn *on_text;
    gist_logprob_fn *on_logprob;
    gist_rows_fn *on_rows;
    gist_row_fn *on_row;
    gist_stats_fn *on_stats;
    gist_trace_fn *on_trace;
    gist_progress_fn *on_progress;
    void *progress_arg;
    bool progress_begun; /* it was told of */
    gist_cache_fn *on_cache;
    gist_answers_fn *on_answers; /* several: instead of on_text */
    gist_answer_fn *on_answer;
    uint32_t n_answers; /* of one that brings answers; of a Resume it is told of */
    uint8_t *results;   /* (n_answers) the caller's gist_result, or NULL */
    void *arg;

    /* Calls what the caller gave for the end of it, which is one of `end`; NULL: nobody listens. */
    gist_tell_fn *tell;
    union {
        gist_done_fn *done;
        gist_session_fn *session;
        gist_cache_done_fn *cache;
        gist_choices_fn *choices;
        gist_embeddings_fn *embeddings;
        gist_score_fn *score;
        gist_tokens_fn *tokens;
        gist_string_fn *string;
        gist_segments_fn *segments;
        gist_kept_fn *kept;
        gist_attached_fn *attached;
    } end;

    /* What the answer brings, for who asked. */
    struct gist_result result;
    uint64_t session;
    gist_session *opening; /* its room, until the daemon has opened it; free() */
    struct gist_array ids, logprobs, text;
    size_t first, had; /* before those of bulk: ids that were sent, and that came back */
    uint32_t n_embd;   /* of embeddings; 0: none came yet */
    struct gist_segments segments;
    struct gist_kept kept;
    struct gist_attached attached;
    gist_resumed_fn *on_resumed;
    struct gist_cache_sum cache;
    struct gist_choices *choices;       /* free() */
    struct gist_embeddings *embeddings; /* free() */
};

struct gist_session {
    gist_session *next;
    gist_conn *conn;
    uint64_t id;
    struct gist_usage opened;      /* what that took */
    gist_progress_fn *on_progress; /* of its appends; NULL: nobody asks */
    void *progress_arg;
};

struct gist_conn {
    struct chan *chan; /* NULL while the handshake goes on */
    int sock;
    struct gist_connecting connecting;
    uint64_t spin_ns, next_id;
    struct gist_request *open;
    struct gist_request **queue; /* (n_queue) of cap_queue */
    size_t n_queue, cap_queue;
    gist_session *sessions;
    bool want_room;   /* the queue's first waits for room */
    bool dispatching; /* a callback may be running */
    int dead;         /* 0, or what every call returns from now on */

    int epoll, kick;   /* gist_fd(); -1 until it is asked for */
    bool kicked;       /* kick is to be read before the next sleep */
    atomic_int cancel; /* set by gist_cancel_async */
    int cancel_fd;

    struct wire_scratch in, out;
    uint8_t frame[CHAN_FRAME_MAX];
    struct gist_info info;
    enum gist_tools tools;
    bool realms, deadlines,      /* the daemon knows them, besides what info says, */
        calls;                   /* and GIST_CALLS */
    uint32_t keep_seconds;       /* and keeps sessions so long; 0: it does not */
    uint32_t deadline_ms;        /* of requests that are made now; 0: none */
    gist_loading_fn *on_loading; /* of a model that a request waits for; or NULL */
    void *loading_arg;
    char *info_mem;
    void *stats_mem;
    struct gist_stats stats; /* the last */
    struct gist_sizes sizes; /* of the structs of who connected (gist/sizes.h) */
    bool first;              /* he is from before there were sizes */
    enum gist_code code;
    char error[GIST_ERROR_CAP];
};

/* --- gist_request.c: sending, receiving, waiting ---------------------------------------------- */

/* A request of the given kind, all else zero. */
struct gist_request gist_request_make(gist_conn *c, enum wire_req_kind kind);

/* Sends it and waits for its end; timeout_ms -1: as long as it takes. r may be on the stack. */
int gist_run(struct gist_request *r, int timeout_ms);

/* Sends a heap copy of it as soon as there is room; it frees itself. What it points to is copied
 * if it can't be sent at once. ret_request may be NULL. */
int gist_submit(const struct gist_request *r, uint64_t *ret_request);

/* Those that end as gist_done_fn says; on_done may be NULL. */
int gist_start(struct gist_request *r, gist_done_fn *on_done, void *arg, uint64_t *ret_request);

/* Ends the connection and every request. Returns err. */
int gist_fail(gist_conn *c, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Bytes of bulk that go at once: a quarter of the arena. */
size_t gist_part_max(const gist_conn *c);

/* What the answer brought, of a request on the stack that nobody wants it of. */
void gist_free_arrays(struct gist_request *r);

/* Asks the daemon to cancel r. */
void gist_request_cancel(struct gist_request *r);

/* --- gist_conn.c ------------------------------------------------------------------------------ */

/* Keeps the sentence and code of an error. Returns err. */
int gist_set_error(gist_conn *c, enum gist_code code, int err, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* The same with the usual sentence for an errno of our own. */
int gist_set_errno(gist_conn *c, int err);

#endif
