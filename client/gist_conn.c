/* client/gist_conn.c - a connection: its errors, its descriptors, what it is about, its end. */
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

/* --- errors ----------------------------------------------------------------------------------- */

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

/* Sentences for what a program can do something about; the rest is the C library's. */
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

/* -EAGAIN and no wait: who connects without waiting has a loop, and would block it here. */
int gist_usable(gist_conn *c)
{
    if (c->dead)
        return c->dead;
    if (c->connecting.busy)
        return gist_set_error(
            c, GIST_E_BUSY, -EAGAIN,
            "the connection is not made yet: gist_connect_start tells when it is");
    return 0;
}

/* --- the end ---------------------------------------------------------------------------------- */

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Also of a half-built one. Requests end first, while sessions and the channel that their callbacks
 * may look at are still there; the memory behind them goes last. */
void gist_disconnect(gist_conn *c)
{
    if (!c)
        return;
    /* A connection that never came to a socket has no requests, and no error of its own:
     * gist_connect has it. */
    if (c->sock >= 0 || c->connecting.shaking)
        gist_fail(c, -EPIPE, "the connection was closed by this program");
    gist_end_connecting(c, -EPIPE);
    handshake_end(c->connecting.shaking);
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
    free(c->connecting.name);
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

/* An older daemon would pass over the field, and the caller would wait for ever for a deadline that
 * nobody keeps. */
int gist_set_deadline(gist_conn *c, uint32_t ms)
{
    int r = gist_usable(c);

    if (r < 0)
        return r;
    if (ms > 0 && !c->deadlines)
        return gist_set_error(c, GIST_E_UNSUPPORTED, -ENOTSUP,
                              "gistd %s knows no deadlines: it is older than this program",
                              c->info.version);
    c->deadline_ms = ms;
    return 0;
}

/* EEXIST: it is watched already, which is what was wanted. */
static int watch(int epoll, int fd)
{
    struct epoll_event ev = { .events = EPOLLIN };

    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev) < 0 && errno != EEXIST ? -errno : 0;
}

/* Nothing to do before somebody asked for gist_fd(): a program that only makes blocking calls pays
 * for no epoll. */
int gist_watch(gist_conn *c)
{
    int r;

    if (c->epoll < 0)
        return 0;
    if (c->connecting.shaking)
        return watch(c->epoll, handshake_fd(c->connecting.shaking));
    r = watch(c->epoll, chan_doorbell(c->chan));
    return r < 0 ? r : watch(c->epoll, c->sock);
}

/* One descriptor for three: the doorbell, the connection's end, and what was there already when we
 * armed the doorbell. The descriptor is made once and stays the same while the connection is made,
 * is used and ends. On a dead connection it is readable for good, so that a loop comes to
 * gist_dispatch, which says so. */
int gist_fd(gist_conn *c)
{
    int r;

    if (c->epoll >= 0)
        return c->epoll;
    c->epoll = epoll_create1(EPOLL_CLOEXEC);
    c->kick = eventfd(c->dead ? 1 : 0, EFD_CLOEXEC | EFD_NONBLOCK);
    r = c->epoll < 0 || c->kick < 0 ? -errno : watch(c->epoll, c->kick);
    if (r == 0 && !c->dead)
        r = gist_watch(c);
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
