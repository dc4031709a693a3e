/* client/gist_conn.c - connecting, errors, what a connection is about. */
#include "client/gist_internal.h"

#include "ipc/handshake.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define REPLY_SCRATCH (1024u * 1024) /* Stats of a daemon with a thousand sessions */

/* A failed gist_connect has no connection that could keep its sentence. */
static _Thread_local struct {
    enum gist_code code;
    char text[GIST_ERROR_CAP];
} connect_error;

/* --- errors ----------------------------------------------------------------------------------- */

const char *gist_error(const gist_conn *c)
{
    return c ? c->error : connect_error.text;
}

enum gist_code gist_error_code(const gist_conn *c)
{
    return c ? c->code : connect_error.code;
}

int gist_set_error(gist_conn *c, enum gist_code code, int err, const char *fmt, ...)
{
    va_list ap;

    if (c->dead) /* the connection's end is the better explanation */
        return err;
    c->code = code;
    va_start(ap, fmt);
    (void)vsnprintf(c->error, sizeof(c->error), fmt, ap);
    va_end(ap);
    return err;
}

int gist_set_errno(gist_conn *c, int err)
{
    switch (err) {
    case -ENOMEM:
        return gist_set_error(c, GIST_E_NO_MEMORY, err, "this program is out of memory");
    case -EINVAL:
        return gist_set_error(c, GIST_E_BAD_REQUEST, err,
                              "an argument is invalid, or the size field of a struct is not set");
    case -EMSGSIZE:
        return gist_set_error(c, GIST_E_BAD_REQUEST, err,
                              "the request takes more than %u bytes besides its text and ids",
                              CHAN_FRAME_MAX);
    default:
        return gist_set_error(c, GIST_E_INTERNAL, err, "%s", strerror(-err));
    }
}

static int fail_connect(int err, enum gist_code code, const char *text)
{
    connect_error.code = code;
    (void)snprintf(connect_error.text, sizeof(connect_error.text), "%s", text);
    return err;
}

/* --- connecting ------------------------------------------------------------------------------- */

static int keep_welcome(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    gist_conn *c = r->conn;
    const char *from[] = { rep->u.welcome.version, rep->u.welcome.model,
                           rep->u.welcome.model_digest };
    size_t len = 0;
    char *p;

    (void)bulk;
    if (rep->kind != WIRE_WELCOME || c->info_mem)
        return -EPROTO;
    for (int i = 0; i < 3; i++)
        len += strlen(from[i]) + 1;
    p = c->info_mem = malloc(len);
    if (!p) {
        r->err = gist_set_errno(c, -ENOMEM);
        return 0;
    }
    c->info = (struct gist_info){ .n_vocab = rep->u.welcome.n_vocab,
                                  .context_max = rep->u.welcome.context_max,
                                  .segment_default = rep->u.welcome.segment_default,
                                  .chat = rep->u.welcome.chat,
                                  .outputs = rep->u.welcome.outputs,
                                  .several = rep->u.welcome.several };
    c->deadlines = rep->u.welcome.deadlines;
    c->realms = rep->u.welcome.realms;
    c->keep_seconds = rep->u.welcome.keep_seconds;
    /* What a later daemon may have is nothing that this library's programs could read. */
    if (rep->u.welcome.tools <= GIST_TOOLS_BARE)
        c->tools = (enum gist_tools)rep->u.welcome.tools;
    c->info.version = p;
    p = stpcpy(p, from[0]) + 1;
    c->info.model = p;
    p = stpcpy(p, from[1]) + 1;
    c->info.model_digest = p;
    stpcpy(p, from[2]);
    return 0;
}

static int say_hello(gist_conn *c, const char *name)
{
    struct gist_request r = gist_request_make(c, WIRE_HELLO);
    int err;

    r.msg.u.hello.client = name;
    r.msg.u.hello.hears_loading = true;
    r.on_reply = keep_welcome;
    err = gist_run(&r, GIST_CONNECT_MS);
    if (err == 0 && !c->info_mem)
        err = gist_fail(c, -EPROTO, "gistd did not answer the greeting");
    return err;
}

static int new_conn(gist_conn **ret)
{
    gist_conn *c = calloc(1, sizeof(*c));
    int r = 0;

    if (!c)
        return -ENOMEM;
    c->sock = c->epoll = c->kick = c->cancel_fd = -1;
    c->spin_ns = GIST_SPIN_NS;
    c->next_id = 1;
    c->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->cancel_fd < 0)
        r = -errno;
    if (r == 0)
        r = wire_scratch_open(&c->in, REPLY_SCRATCH);
    if (r == 0)
        r = wire_scratch_open(&c->out, WIRE_SCRATCH_BYTES);
    if (r < 0) {
        gist_disconnect(c);
        return r;
    }
    *ret = c;
    return 0;
}

/* sizes NULL: the first ones. */
static int connect_sized(const struct gist_sizes *sizes, const struct gist_connect_opts *opts,
                         gist_conn **ret_conn)
{
    char where[128], text[256];
    struct gist_connect_opts own;
    struct handshake_wait wait;
    struct gist_sizes told;
    gist_conn *c;
    int r;

    if (sizes)
        gist_copy_out(&told, sizeof(told), sizes, sizes->size);
    else
        told = gist_first_sizes();
    if (!opts || gist_copy_sized(&own, sizeof(own), opts) < 0 || own.flags & ~GIST_ANY_SERVER)
        return fail_connect(-EINVAL, GIST_E_BAD_REQUEST,
                            "the size field of struct gist_connect_opts is not set, or a field is "
                            "of a later version");
    opts = &own;
    wait = (struct handshake_wait){ .timeout_ms =
                                        opts->timeout_ms ? opts->timeout_ms : GIST_CONNECT_MS,
                                    .on_loading = opts->on_loading,
                                    .arg = opts->arg,
                                    .any_server = opts->flags & GIST_ANY_SERVER };
    r = handshake_path(opts->path, true, where, sizeof(where));
    if (r < 0)
        return fail_connect(r, GIST_E_TRANSPORT, "the path of gistd's socket is too long");
    r = new_conn(&c);
    if (r < 0)
        return fail_connect(r, r == -ENOMEM ? GIST_E_NO_MEMORY : GIST_E_TRANSPORT,
                            r == -ENOMEM ? "this program is out of memory"
                                         : "this program has no free file descriptor left");
    c->sizes = told;
    c->first = !sizes;
    r = handshake_connect(where, NULL, &wait, &c->sock, &c->chan, text);
    if (r < 0) {
        gist_disconnect(c);
        return fail_connect(r, r == -ECANCELED ? GIST_E_CANCELLED : GIST_E_TRANSPORT, text);
    }
    r = say_hello(c, opts->name ? opts->name : "");
    if (r < 0) {
        (void)fail_connect(r, c->code, c->error);
        gist_disconnect(c);
        return r;
    }
    *ret_conn = c;
    return 0;
}

int gist_connect_with_sized(const struct gist_sizes *sizes, const struct gist_connect_opts *opts,
                            gist_conn **ret_conn)
{
    return connect_sized(sizes, opts, ret_conn);
}

int gist_connect_sized(const struct gist_sizes *sizes, const char *path, const char *name,
                       gist_conn **ret_conn)
{
    const struct gist_connect_opts o = { .size = sizeof(o), .path = path, .name = name };

    return connect_sized(sizes, &o, ret_conn);
}

/* In brackets, since these names are macros: what programs from before call. */
int(gist_connect_with)(const struct gist_connect_opts *opts, gist_conn **ret_conn)
{
    return connect_sized(NULL, opts, ret_conn);
}

int(gist_connect)(const char *path, const char *name, gist_conn **ret_conn)
{
    return gist_connect_sized(NULL, path, name, ret_conn);
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void gist_disconnect(gist_conn *c)
{
    if (!c)
        return;
    if (c->sock >= 0)
        gist_fail(c, -EPIPE, "the connection was closed by this program");
    while (c->sessions) {
        gist_session *s = c->sessions;

        c->sessions = s->next;
        free(s);
    }
    chan_close(c->chan);
    close_fd(&c->sock);
    close_fd(&c->epoll);
    close_fd(&c->kick);
    close_fd(&c->cancel_fd);
    wire_scratch_close(&c->in);
    wire_scratch_close(&c->out);
    free(c->queue);
    free(c->info_mem);
    free(c->stats_mem);
    free(c);
}

void gist_on_loading(gist_conn *c, gist_loading_fn *on_loading, void *arg)
{
    c->on_loading = on_loading;
    c->loading_arg = arg;
}

/* --- small calls ------------------------------------------------------------------------------ */

void gist_info(const gist_conn *c, struct gist_info *ret_info)
{
    gist_copy_out(ret_info, c->sizes.info, &c->info, sizeof(c->info));
}

enum gist_tools gist_tools(const gist_conn *c)
{
    return c->tools;
}

void gist_set_spin(gist_conn *c, uint64_t ns)
{
    c->spin_ns = ns;
}

int gist_set_deadline(gist_conn *c, uint32_t ms)
{
    if (c->dead)
        return c->dead;
    if (ms > 0 && !c->deadlines)
        return gist_set_error(c, GIST_E_UNSUPPORTED, -ENOTSUP,
                              "gistd %s knows no deadlines: it is older than this program",
                              c->info.version);
    c->deadline_ms = ms;
    return 0;
}

static int watch(int epoll, int fd)
{
    struct epoll_event ev = { .events = EPOLLIN };

    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

/* One descriptor for three: the doorbell, the connection's end, and what was there already when we
 * armed the doorbell. */
int gist_fd(gist_conn *c)
{
    int r;

    if (c->epoll >= 0)
        return c->epoll;
    c->epoll = epoll_create1(EPOLL_CLOEXEC);
    c->kick = eventfd(c->dead ? 1 : 0, EFD_CLOEXEC | EFD_NONBLOCK);
    r = c->epoll < 0 || c->kick < 0 ? -errno : watch(c->epoll, c->kick);
    if (r == 0)
        r = watch(c->epoll, chan_doorbell(c->chan));
    if (r == 0)
        r = watch(c->epoll, c->sock);
    if (r < 0) {
        close_fd(&c->epoll);
        close_fd(&c->kick);
        return gist_set_errno(c, r);
    }
    gist_rearm(c);
    return c->epoll;
}

static int expect_pong(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    (void)r;
    (void)bulk;
    return rep->kind == WIRE_PONG && rep->last ? 0 : -EPROTO;
}

static struct gist_request make_ping(gist_conn *c)
{
    struct gist_request r = gist_request_make(c, WIRE_PING);

    r.on_reply = expect_pong;
    return r;
}

int gist_ping(gist_conn *c)
{
    struct gist_request r = make_ping(c);

    return gist_run(&r, -1);
}

int gist_ping_start(gist_conn *c, gist_done_fn *on_done, void *arg, uint64_t *ret_request)
{
    struct gist_request r = make_ping(c);

    return gist_start(&r, on_done, arg, ret_request);
}
