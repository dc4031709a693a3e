/* gist/conn.h - a connection: who serves it, its errors, its loop (a part of gist.h). */
#ifndef GIST_CONN_H
#define GIST_CONN_H

#ifndef GIST_H
#error "include <gist.h>, which has all of it"
#endif

/* Codes of gist_error_code(). Negative errnos returned with them in brackets. */
enum gist_code {
    GIST_OK = 0,
    GIST_E_TRANSPORT,               /* no daemon, it died, or it broke the protocol (-EPIPE...) */
    GIST_E_INTERNAL,                /* (-EIO) */
    GIST_E_BAD_REQUEST,             /* (-EINVAL) */
    GIST_E_NOT_FOUND,               /* (-ENOENT) */
    GIST_E_BUSY,                    /* (-EBUSY) the session is at work */
    GIST_E_CONTEXT_LENGTH_EXCEEDED, /* (-E2BIG) */
    GIST_E_POOL_FULL,               /* (-ENOSPC) the daemon has no page left */
    GIST_E_LIMIT,                   /* (-EDQUOT) a limit that the daemon sets each client */
    GIST_E_CANCELLED,               /* (-ECANCELED) */
    GIST_E_UNSUPPORTED,             /* (-ENOTSUP) */
    GIST_E_SHUTTING_DOWN,           /* (-ESHUTDOWN) */
    GIST_E_NO_MEMORY,               /* (-ENOMEM) */
    GIST_E_NAME_EXISTS,             /* (-EEXIST) the name is taken */
    GIST_E_WRONG_MODEL,             /* (-EMEDIUMTYPE) saved with another model or adapter */
    GIST_E_STORAGE,                 /* (-EROFS) the daemon's store is off, or its disk fails */
    GIST_E_DEADLINE                 /* (-ETIMEDOUT) the time of gist_set_deadline is over */
};

/* path NULL: $GISTD_SOCKET, $XDG_RUNTIME_DIR/gistd/gistd.sock, /run/gistd/gistd.sock. name is shown
 * by `gistctl status`. */
GIST_API int gist_connect(const char *path, const char *name, gist_conn **ret_conn);

/* Called from inside gist_connect_with while the daemon loads its model, first at once and then
 * when the number (0 to 100) changes. Not 0: don't wait any longer, -ECANCELED. */
typedef int gist_loading_fn(void *arg, unsigned percent);

/* Trusts whoever serves the socket. Without it that must be root, the user gistd or this program's
 * own user: -EPERM else, and nothing was said. */
#define GIST_ANY_SERVER 1u

struct gist_connect_opts {
    size_t size; /* sizeof(struct gist_connect_opts) */
    const char *path, *name;
    int timeout_ms; /* 0: a minute; -1: none. For all of it, or with on_loading until its next call:
                     * who watches the model being loaded waits as long as it goes on */
    gist_loading_fn *on_loading; /* may be NULL */
    void *arg;
    unsigned flags; /* GIST_ANY_SERVER */
};
GIST_API int gist_connect_with(const struct gist_connect_opts *opts, gist_conn **ret_conn);

struct gist_result;
/* The end of a request that did not wait: err 0 or a negative errno, once. result: of appends and
 * documents the usage, of answers all of it; NULL with an error, but of answers that were cut. */
typedef void gist_done_fn(void *arg, int err, const struct gist_result *result);

/* gist_connect_with without waiting. The connection is there at once for gist_fd, gist_dispatch and
 * gist_disconnect, which is also how to give it up. on_done is called once, from gist_dispatch or
 * gist_disconnect: with 0 when everything else may be asked of it (-EAGAIN before), or with the
 * error that gist_error(*ret_conn) tells. on_loading is called from gist_dispatch; timeout_ms means
 * nothing, the caller's loop keeps the time. Negative: there is no connection, as gist_error(NULL)
 * says; -EAGAIN: the daemon has too many to take, try again. */
GIST_API int gist_connect_start(const struct gist_connect_opts *opts, gist_done_fn *on_done,
                                void *arg, gist_conn **ret_conn);

/* on_loading of a daemon that gave its model's memory back (gistd --idle): called while a request
 * of this connection waits for it, from inside the call that waits or gist_dispatch, lastly with
 * 100. Not 0: the request is cancelled. NULL: nobody asks. */
GIST_API void gist_on_loading(gist_conn *c, gist_loading_fn *on_loading, void *arg);

GIST_API void gist_disconnect(gist_conn *c); /* ends its sessions, but for those of gist_keep */

/* The last error of this connection; NULL: of the last failed gist_connect of this thread. */
GIST_API const char *gist_error(const gist_conn *c);
GIST_API enum gist_code gist_error_code(const gist_conn *c);
/* "context_length_exceeded" and so on; NULL for what this library does not know. */
GIST_API const char *gist_code_name(enum gist_code code);

struct gist_info {
    const char *version, *model, *model_digest; /* live as long as the connection */
    uint32_t n_vocab, context_max, segment_default;
    int chat;    /* a known chat template */
    int outputs; /* grammars and log-probabilities */
    int several; /* several answers of one request */
};
GIST_API void gist_info(const gist_conn *c, struct gist_info *ret_info);

/* How the model's own chat template writes calls of tools, and so how they look in answers: */
enum gist_tools {
    GIST_TOOLS_NONE,   /* it knows none; lists and calls are written as by GIST_TOOLS_TAGGED */
    GIST_TOOLS_TAGGED, /* <tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call> */
    GIST_TOOLS_BARE    /* the whole answer is {"name": "f", "parameters": {"x": 1}} */
};
GIST_API enum gist_tools gist_tools(const gist_conn *c);

/* Readable when gist_dispatch() has something to do. Level-triggered: also when the daemon died. */
GIST_API int gist_fd(gist_conn *c);
/* Handles what is there, and comes back though more may have come meanwhile: then the descriptor is
 * readable. >= 0: the number of replies; -EPIPE: the daemon is gone. */
GIST_API int gist_dispatch(gist_conn *c);
/* How long a blocking call spins before it sleeps; default 20000 ns, 0: sleep at once. */
GIST_API void gist_set_spin(gist_conn *c, uint64_t ns);

/* Requests that are made from now on end, with GIST_E_DEADLINE, when they have not come to their
 * own end so many milliseconds after they reached the daemon, whether they wait, read or write; 0:
 * none does. -ENOTSUP: a daemon that knows no deadlines. */
GIST_API int gist_set_deadline(gist_conn *c, uint32_t ms);

GIST_API int gist_ping(gist_conn *c);

/* *ret_request, here and everywhere, is for gist_cancel, and may be NULL. */
GIST_API int gist_ping_start(gist_conn *c, gist_done_fn *on_done, void *arg, uint64_t *ret_request);

GIST_API int gist_cancel(gist_conn *c, uint64_t request);

/* What a session is doing (of gist_stats), which may be another connection's of this user. -ENOENT:
 * there is none of that number at work. */
GIST_API int gist_cancel_session(gist_conn *c, uint64_t session);
GIST_API int gist_cancel_session_start(gist_conn *c, uint64_t session, gist_done_fn *on_done,
                                       void *arg, uint64_t *ret_request);

/* The blocking call that this connection is in returns -ECANCELED soon. Async-signal-safe. */
GIST_API void gist_cancel_async(gist_conn *c);

#endif
