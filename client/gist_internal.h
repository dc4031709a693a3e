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

/* Ids or bytes that grow. */
struct gist_array {
    void *mem;
    size_t n, cap;
};

struct gist_request {
    struct gist_request *next; /* of the connection's open ones, oldest first */
    gist_conn *conn;
    uint64_t handle;     /* id of the first part: what the caller knows it by */
    struct wire_req msg; /* its id is that of the part in flight */
    const uint8_t *bulk;
    size_t bulk_len, sent;
    void *owned; /* bulk, or what msg points to, if that is a copy of ours */
    bool queued, in_flight, waited_for, done;
    bool cancel; /* wanted; sent as soon as the last part is in flight */
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
    gist_done_fn *on_done;
    gist_cache_fn *on_cache;
    gist_cache_done_fn *on_cache_done;
    gist_choices_fn *on_choices;
    gist_embeddings_fn *on_embeddings;
    gist_answers_fn *on_answers; /* several: instead of on_text */
    gist_answer_fn *on_answer;
    struct gist_result *results; /* (msg.u.generate.n) the caller's, or NULL */
    void *arg;

    /* What the answer brings, for who asked. */
    struct gist_result result;
    uint64_t session;
    struct gist_array ids, logprobs, text;
    size_t first;    /* of rows: where this request's begin */
    uint32_t n_embd; /* of embeddings; 0: none came yet */
    struct gist_stats *stats;
    struct gist_segments *segments;
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
    struct chan *chan;
    int sock;
    uint64_t spin_ns, next_id;
    struct gist_request *open;
    struct gist_request **queue; /* (n_queue) of cap_queue */
    size_t n_queue, cap_queue;
    gist_session *sessions;
    bool want_room;   /* the queue's first waits for room */
    bool dispatching; /* a callback may be running */
    int dead;         /* 0, or what every call returns from now on */

    int epoll, kick;   /* gist_fd(); -1 until it is asked for */
    atomic_int cancel; /* set by gist_cancel_async */
    int cancel_fd;

    struct wire_scratch in, out;
    uint8_t frame[CHAN_FRAME_MAX];
    struct gist_info info;
    enum gist_tools tools;
    bool outputs; /* the daemon knows grammars and log-probabilities */
    bool several; /* and several answers of one request */
    char *info_mem;
    void *stats_mem;
    struct gist_stats watched;
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

/* Ends the connection and every request. Returns err. */
int gist_fail(gist_conn *c, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Bytes of bulk that go at once: a quarter of the arena. */
size_t gist_part_max(const gist_conn *c);

/* Asks the daemon to cancel r. */
void gist_request_cancel(struct gist_request *r);

/* Before the caller gets the thread back: what arrives from now on makes gist_fd() readable. */
void gist_rearm(gist_conn *c);

/* --- gist_conn.c ------------------------------------------------------------------------------ */

/* Keeps the sentence and code of an error. Returns err. */
int gist_set_error(gist_conn *c, enum gist_code code, int err, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* The same with the usual sentence for an errno of our own. */
int gist_set_errno(gist_conn *c, int err);

/* --- gist_session.c --------------------------------------------------------------------------- */

/* s, which is new, is the connection's: what the request r opened. */
gist_session *gist_session_keep(gist_session *s, const struct gist_request *r);

/* --- gist_value.c: small conversions ---------------------------------------------------------- */

/* Copies a caller's struct that begins with its size into ours, which was larger or smaller when
 * the caller was compiled; -EINVAL when it asks for something that we don't know. src NULL:
 * zeros. */
int gist_copy_sized(void *dst, size_t dst_size, const void *src);

/* -EINVAL for a compressor that we don't know. src may be NULL. */
int gist_copy_memory(struct wire_memory *dst, const struct gist_memory *src);

void gist_copy_usage(struct gist_usage *dst, const struct wire_usage *src);
void gist_add_usage(struct gist_usage *dst, const struct gist_usage *src);

/* Adds n elements; -ENOMEM. src may be shared memory: it is read once. */
int gist_array_add(struct gist_array *a, const void *src, size_t n, size_t elem);

enum gist_code gist_code_of(enum wire_error e);
int gist_errno_of(enum gist_code code);

#endif
