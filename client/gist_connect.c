/* client/gist_connect.c - how a connection is made, with and without waiting for it. Both ways
 * begin with prepare() and end with the greeting (Hello, Welcome); in between one waits in
 * handshake_connect and gist_run, and the other comes back for each step:
 *
 *     gist_connect_start ---> shaking ---> has a channel, says Hello ---> Welcome: on_done(0)
 *                             gist_go_on_connecting                       end_hello
 *                                  \___________________ on_done(error) <__/
 *
 * A program that was compiled with another version of the headers says the sizes of its structs
 * (gist/sizes.h); one from before there were sizes calls the functions in brackets, which are not
 * macros. */
#include "client/gist_internal.h"

#include "ipc/handshake.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#define REPLY_SCRATCH (1024u * 1024) /* Stats of a daemon with a thousand sessions */
#define PATH_CAP      128

/* A failed gist_connect has no connection that could keep its sentence. By thread, as errno is. */
static _Thread_local struct {
    enum gist_code code;
    char text[GIST_ERROR_CAP];
} connect_error;

const char *gist_error(const gist_conn *c)
{
    return c ? c->error : connect_error.text;
}

enum gist_code gist_error_code(const gist_conn *c)
{
    return c ? c->code : connect_error.code;
}

static int fail_connect(int err, enum gist_code code, const char *text)
{
    connect_error.code = code;
    (void)snprintf(connect_error.text, sizeof(connect_error.text), "%s", text);
    return err;
}

/* The three strings are copied into one piece of memory, since the reply's are in scratch that the
 * next reply overwrites. A second Welcome is against the protocol. */
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
    c->calls = rep->u.welcome.calls;
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

static struct gist_request make_hello(gist_conn *c, const char *name)
{
    struct gist_request r = gist_request_make(c, WIRE_HELLO);

    r.msg.u.hello.client = name;
    r.msg.u.hello.hears_loading = true;
    r.on_reply = keep_welcome;
    return r;
}

/* A daemon that answers with success and no Welcome is none. */
static int check_greeting(gist_conn *c, int err)
{
    return err == 0 && !c->info_mem ? gist_fail(c, -EPROTO, "gistd did not answer the greeting")
                                    : err;
}

static int say_hello(gist_conn *c, const char *name)
{
    struct gist_request r = make_hello(c, name);

    return check_greeting(c, gist_run(&r, GIST_CONNECT_MS));
}

/* gist_disconnect takes it back whole or in part: descriptors are -1 until they are there. */
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

static enum gist_code code_of(int err)
{
    return err == -ECANCELED ? GIST_E_CANCELLED
           : err == -ENOMEM  ? GIST_E_NO_MEMORY
                             : GIST_E_TRANSPORT;
}

struct plan {
    struct gist_connect_opts opts;
    struct handshake_wait wait;
    char where[PATH_CAP]; /* the socket's path */
};

/* What both ways begin with. sizes NULL: the first ones. */
static int prepare(const struct gist_sizes *sizes, const struct gist_connect_opts *opts,
                   struct plan *p, gist_conn **ret)
{
    struct gist_connect_opts *own = &p->opts;
    int r;

    if (!opts || gist_copy_sized(own, sizeof(*own), opts) < 0 || own->flags & ~GIST_ANY_SERVER)
        return fail_connect(-EINVAL, GIST_E_BAD_REQUEST,
                            "the size field of struct gist_connect_opts is not set, or a field is "
                            "of a later version");
    p->wait = (struct handshake_wait){
        .timeout_ms = own->timeout_ms ? own->timeout_ms : GIST_CONNECT_MS,
        .on_loading = own->on_loading,
        .arg = own->arg,
        .any_server = own->flags & GIST_ANY_SERVER,
    };
    r = handshake_path(own->path, true, p->where, sizeof(p->where));
    if (r < 0)
        return fail_connect(r, GIST_E_TRANSPORT, "the path of gistd's socket is too long");
    r = new_conn(ret);
    if (r < 0)
        return fail_connect(r, code_of(r),
                            r == -ENOMEM ? "this program is out of memory"
                                         : "this program has no free file descriptor left");
    if (sizes)
        gist_copy_out(&(*ret)->sizes, sizeof((*ret)->sizes), sizes, sizes->size);
    else
        (*ret)->sizes = gist_first_sizes();
    (*ret)->first = !sizes;
    return 0;
}

/* --- waiting ---------------------------------------------------------------------------------- */

/* The error's sentence must leave the connection before that is freed. */
static int connect_sized(const struct gist_sizes *sizes, const struct gist_connect_opts *opts,
                         gist_conn **ret_conn)
{
    struct plan p;
    char text[256];
    gist_conn *c;
    int r = prepare(sizes, opts, &p, &c);

    if (r < 0)
        return r;
    r = handshake_connect(p.where, NULL, &p.wait, &c->sock, &c->chan, text);
    if (r < 0) {
        gist_disconnect(c);
        return fail_connect(r, code_of(r), text);
    }
    r = say_hello(c, p.opts.name ? p.opts.name : "");
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

/* --- not waiting ------------------------------------------------------------------------------ */

/* Callbacks run as from gist_dispatch: they may not wait. */
void gist_end_connecting(gist_conn *c, int err)
{
    bool was = c->dispatching;

    if (!c->connecting.busy)
        return;
    c->connecting.busy = false;
    c->dispatching = true;
    if (c->connecting.on_done)
        c->connecting.on_done(c->connecting.arg, err, NULL);
    c->dispatching = was;
}

/* The sentence stands in text, or in the connection's own error. `said` is a copy, for gist_fail
 * writes to the very memory that text may point to. */
static int end_badly(gist_conn *c, int err, enum gist_code code, const char *text)
{
    char said[GIST_ERROR_CAP];

    (void)snprintf(said, sizeof(said), "%s", text);
    (void)gist_fail(c, err, "%s", said);
    c->code = code;
    gist_end_connecting(c, err);
    return err;
}

/* The end of the greeting's request, whoever ended it. A connection that is dead already has its
 * sentence. */
static void end_hello(struct gist_request *r, int err)
{
    gist_conn *c = r->conn;

    err = check_greeting(c, err);
    if (err < 0 && !c->dead)
        (void)end_badly(c, err, c->code, c->error);
    else
        gist_end_connecting(c, err);
}

static int start_hello(gist_conn *c)
{
    struct gist_request r = make_hello(c, c->connecting.name);

    r.tell = end_hello;
    return gist_submit(&r, NULL);
}

/* -EAGAIN: not yet. The handshake may have changed to another descriptor, so it is watched anew
 * each time. */
int gist_go_on_connecting(gist_conn *c)
{
    char text[256];
    int r;

    c->dispatching = true;
    r = handshake_go_on(c->connecting.shaking, &c->sock, &c->chan, text);
    c->dispatching = false;
    if (r == -EAGAIN) {
        r = gist_watch(c);
        return r < 0 ? end_badly(c, r, code_of(r), strerror(-r)) : 0;
    }
    handshake_end(c->connecting.shaking);
    c->connecting.shaking = NULL;
    if (r < 0)
        return end_badly(c, r, code_of(r), text);
    r = gist_watch(c);
    if (r == 0)
        r = start_hello(c);
    return r < 0 ? end_badly(c, r, code_of(r), strerror(-r)) : 0;
}

/* The name is copied: it is said in the greeting, long after this returns. */
int gist_connect_start_sized(const struct gist_sizes *sizes, const struct gist_connect_opts *opts,
                             gist_done_fn *on_done, void *arg, gist_conn **ret_conn)
{
    struct plan p;
    char text[256];
    gist_conn *c;
    int r = prepare(sizes, opts, &p, &c);

    if (r < 0)
        return r;
    c->connecting.name = strdup(p.opts.name ? p.opts.name : "");
    r = c->connecting.name ? handshake_start(p.where, NULL, &p.wait, &c->connecting.shaking, text)
                           : -ENOMEM;
    if (r < 0) {
        (void)fail_connect(r, code_of(r),
                           c->connecting.name ? text : "this program is out of memory");
        gist_disconnect(c);
        return r;
    }
    c->connecting.busy = true;
    c->connecting.on_done = on_done;
    c->connecting.arg = arg;
    *ret_conn = c;
    return 0;
}

/* In brackets, as those above. */
int(gist_connect_start)(const struct gist_connect_opts *opts, gist_done_fn *on_done, void *arg,
                        gist_conn **ret_conn)
{
    return gist_connect_start_sized(NULL, opts, on_done, arg, ret_conn);
}
