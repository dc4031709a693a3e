/* client/gist_request.c - the life of a request: queue, send, receive, wait. */
#include "client/gist_internal.h"

#include "ipc/ring.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct gist_request gist_request_make(gist_conn *c, enum wire_req_kind kind)
{
    return (struct gist_request){ .conn = c, .msg = { .kind = kind } };
}

/* A quarter leaves room beside a long text for the requests of others in this program. Being a
 * multiple of 64, a part ends between two ids. */
size_t gist_part_max(const gist_conn *c)
{
    return (wire_bulk_max(c->chan) / 4) & ~(size_t)63;
}

/* --- the lists -------------------------------------------------------------------------------- */

/* By the id of the part that is out. The list is short: a program has a few requests open. */
static struct gist_request *find_in_flight(gist_conn *c, uint64_t id)
{
    struct gist_request *r = c->open;

    while (r && !(r->in_flight && r->msg.id == id))
        r = r->next;
    return r;
}

static void unqueue(struct gist_request *r)
{
    gist_conn *c = r->conn;
    size_t i = 0;

    if (!r->queued)
        return;
    while (c->queue[i] != r)
        i++;
    c->n_queue--;
    memmove(&c->queue[i], &c->queue[i + 1], (c->n_queue - i) * sizeof(*c->queue));
    r->queued = false;
}

/* What cleans up is not given up, and what is answered at once needs no time. */
static bool is_timed(enum wire_req_kind kind)
{
    return kind != WIRE_HELLO && kind != WIRE_PING && kind != WIRE_CANCEL &&
           kind != WIRE_CLOSE_SESSION;
}

/* Room first: a request that is in the queue can't fail to be there later, when it would have to be
 * told to somebody. */
static int put_in_queue(struct gist_request *r, bool front)
{
    gist_conn *c = r->conn;

    if (c->n_queue == c->cap_queue) {
        size_t cap = c->cap_queue ? 2 * c->cap_queue : 16;
        void *mem = realloc(c->queue, cap * sizeof(*c->queue));

        if (!mem)
            return -ENOMEM;
        c->queue = mem;
        c->cap_queue = cap;
    }
    /* A Cancel must not wait behind the very parts that it is to stop. */
    if (front)
        memmove(&c->queue[1], &c->queue[0], c->n_queue * sizeof(*c->queue));
    c->queue[front ? 0 : c->n_queue] = r;
    c->n_queue++;
    r->queued = true;
    return 0;
}

/* From here on the caller's id of it is fixed, also if it has to wait for room: a cancel may come
 * before it was sent. */
static int enqueue(struct gist_request *r, bool front)
{
    gist_conn *c = r->conn;
    struct gist_request **end;

    if (put_in_queue(r, front) < 0)
        return -ENOMEM;
    r->here = r->bulk_len;
    for (end = &c->open; *end; end = &(*end)->next)
        ;
    *end = r;
    r->next = NULL;
    r->msg.id = r->handle = c->next_id++;
    if (is_timed(r->msg.kind))
        r->msg.deadline_ms = c->deadline_ms;
    return 0;
}

void gist_free_arrays(struct gist_request *r)
{
    free(r->ids.mem);
    free(r->logprobs.mem);
    free(r->text.mem);
}

/* What it brought is the caller's only while the callback runs. */
static void free_request(struct gist_request *r)
{
    free(r->owned);
    free(r->opening);
    gist_free_arrays(r);
    gist_choices_free(r->choices);
    gist_embeddings_free(r->embeddings);
    free(r);
}

/* `was` and not false: this may be a callback's own doing. */
static void tell_end(struct gist_request *r, int err)
{
    gist_conn *c = r->conn;
    bool was = c->dispatching;

    if (!r->tell)
        return;
    c->dispatching = true;
    r->tell(r, err);
    c->dispatching = was;
}

/* Programs from before a cut answer had a result may take one for success. */
static void tell_done(struct gist_request *r, int err)
{
    r->end.done(r->arg, err, err == 0 || (r->cut && !r->conn->first) ? &r->result : NULL);
}

/* The one way a request ends. Taken out of the lists before anybody is told, so that a callback
 * which looks at the connection does not find it. */
static void finish(struct gist_request *r, int err)
{
    struct gist_request **p = &r->conn->open;

    while (*p != r)
        p = &(*p)->next;
    *p = r->next;
    unqueue(r);
    r->in_flight = false;
    r->done = true;
    r->err = err;
    tell_end(r, err);
    if (!r->waited_for)
        free_request(r);
}

/* A callback may submit nothing any more (c->dead), so this ends. */
static void finish_all(gist_conn *c)
{
    while (c->open)
        finish(c->open, c->dead);
}

/* The first failure is the one that is told. From a callback the requests are ended later (receive,
 * gist_submit), as one of them may be the one whose callback this is. */
int gist_fail(gist_conn *c, int err, const char *fmt, ...)
{
    const uint64_t one = 1;
    va_list ap;

    if (c->dead)
        return c->dead;
    c->dead = err;
    c->code = GIST_E_TRANSPORT;
    va_start(ap, fmt);
    (void)vsnprintf(c->error, sizeof(c->error), fmt, ap);
    va_end(ap);
    /* So that the daemon gives our pages back now, and so that gist_fd() stays readable. */
    (void)shutdown(c->sock, SHUT_RDWR);
    if (c->kick >= 0)
        (void)!write(c->kick, &one, sizeof(one));
    if (!c->dispatching)
        finish_all(c);
    return err;
}

/* --- sending ---------------------------------------------------------------------------------- */

/* The wire has the field in each message, not in the envelope. */
static void set_more(struct wire_req *m, bool more)
{
    if (m->kind == WIRE_APPEND)
        m->u.append.more = more;
    else if (m->kind == WIRE_GENERATE)
        m->u.generate.more = more;
    else if (m->kind == WIRE_SCORE)
        m->u.score.more = more;
    else if (m->kind == WIRE_SCORE_CHOICES)
        m->u.score_choices.more = more;
    else if (m->kind == WIRE_EMBED)
        m->u.embed.more = more;
    else if (m->kind == WIRE_TOKENIZE)
        m->u.tokenize.more = more;
    else if (m->kind == WIRE_DETOKENIZE)
        m->u.detokenize.more = more;
    else if (m->kind == WIRE_ADD_DOCUMENT)
        m->u.add_document.more = more;
}

/* Sends the next part of r. -EAGAIN: no room. The part is counted as sent when it is committed;
 * until then nothing of r has changed but msg, which the next try writes again. */
static int send_part(struct gist_request *r)
{
    gist_conn *c = r->conn;
    size_t len, n = r->bulk_len - r->sent, most = gist_part_max(c);
    uint8_t *frame, *bulk;
    int err;

    if (n > most)
        n = most;
    r->msg.bulk_len = n;
    set_more(&r->msg, r->sent + n < r->bulk_len);
    /* Packed in private memory: packing reads back what it wrote, which in the arena could be
     * another's doing by then. */
    err = wire_req_pack(&c->out, &r->msg, c->frame, sizeof(c->frame), &len);
    if (err == 0)
        err = chan_reserve(c->chan, (uint32_t)len, (uint32_t)n, &frame, &bulk);
    if (err < 0)
        return err;
    memcpy(frame, c->frame, len);
    if (n > 0)
        memcpy(bulk, r->bulk + r->sent, n);
    chan_commit(c->chan);
    r->sent += n;
    r->in_flight = true;
    return 0;
}

/* A request leaves the queue with its last part. */
static bool all_sent(const struct gist_request *r)
{
    return !r->queued;
}

static void send_cancel(struct gist_request *r);

/* A request that breaks a limit of the wire is never sent: the daemon would refuse it, and here we
 * know what is wrong with it. */
static void set_send_error(gist_conn *c, int err)
{
    if (c->out.why.text[0])
        gist_set_error(c, GIST_E_BAD_REQUEST, err, "%s", c->out.why.text);
    else
        gist_set_errno(c, err);
}

/* Sends what the channel has room for. Only the queue's head is looked at: a later request may not
 * overtake one whose parts are still going, or the daemon would mix their texts. */
static void pump(gist_conn *c)
{
    c->want_room = false;
    while (c->n_queue > 0 && !c->dead) {
        struct gist_request *r = c->queue[0];
        int err;

        if (r->in_flight) /* its last part was not answered yet */
            return;
        err = send_part(r);
        if (err == -EAGAIN) {
            c->want_room = true;
            return;
        }
        if (err == -EPROTO) {
            gist_fail(c, err, "gistd broke the protocol: a ring's head is out of bounds");
        } else if (err < 0) {
            set_send_error(c, err);
            finish(r, err);
        } else if (r->sent == r->bulk_len) {
            unqueue(r);
            if (r->cancel)
                send_cancel(r);
        }
    }
    /* What a callback of finish() has ended, or this did. */
    if (c->dead && !c->dispatching)
        finish_all(c);
}

static void send_cancel(struct gist_request *r)
{
    struct gist_request *x = calloc(1, sizeof(*x)); /* nobody waits for it: it frees itself */

    /* Without memory the answer comes to its natural end. */
    if (!x)
        return;
    *x = gist_request_make(r->conn, WIRE_CANCEL);
    x->msg.u.cancel.request = r->msg.id;
    if (enqueue(x, true) < 0)
        free(x);
}

void gist_request_cancel(struct gist_request *r)
{
    if (r->cancel || r->done)
        return;
    r->cancel = true;
    /* Parts that were read can't be called back one by one: cancelling waits for the last. */
    if (all_sent(r))
        send_cancel(r);
    pump(r->conn);
}

/* --- receiving -------------------------------------------------------------------------------- */

/* With has_usage it is the end of an answer that had begun, and what was said counts. */
static void take_error(struct gist_request *r, const struct wire_rep *rep)
{
    enum gist_code code = gist_code_of(rep->u.error.code);
    int err = gist_errno_of(code);

    /* What nobody asked about (a Cancel that came too late) must not hide another's error. */
    if (r->waited_for || r->tell)
        gist_set_error(r->conn, code, err, "%s", rep->u.error.text);
    if (rep->u.error.has_usage) {
        r->cut = true;
        r->result.reason = code == GIST_E_CANCELLED ? GIST_CANCELLED : GIST_CUT;
        gist_copy_usage(&r->result.usage, &rep->u.error.usage);
    }
    finish(r, err);
}

/* A later daemon's, which we did not ask for: we go on without it, if there is more to come. */
static void pass_over(struct gist_request *r, const struct wire_rep *rep)
{
    if (!rep->last)
        return;
    finish(r, gist_set_error(r->conn, GIST_E_UNSUPPORTED, -ENOTSUP,
                             "gistd %s has answered in a way that this version of libgist does not "
                             "know: install the same release of both",
                             r->conn->info.version ? r->conn->info.version : ""));
}

/* The list goes on with a request of its own, behind those that wait. msg.id is new and handle
 * stays: the caller knows one request. */
static int go_on(struct gist_request *r)
{
    gist_conn *c = r->conn;
    size_t n = r->later < r->step ? r->later : r->step;

    if (r->cancel) /* it came too late for what was answered, and not for the rest */
        return gist_set_error(c, GIST_E_CANCELLED, -ECANCELED, "the request was cancelled");
    if (put_in_queue(r, false) < 0)
        return gist_set_errno(c, -ENOMEM);
    r->bulk += r->bulk_len;
    r->first += r->here / sizeof(uint32_t);
    r->had = r->ids.n;
    r->bulk_len = r->here = n;
    r->later -= n;
    r->sent = 0;
    r->in_flight = false;
    r->msg.id = c->next_id++;
    return 0;
}

static void hear_loading(struct gist_request *r, unsigned percent)
{
    gist_conn *c = r->conn;

    if (c->on_loading && c->on_loading(c->loading_arg, percent) != 0)
        gist_request_cancel(r);
}

/* The daemon is trusted with the text, but a reply that does not fit is the end of the connection:
 * it would be anybody's guess what the next one belongs to. */
static int take_reply(gist_conn *c, const struct chan_msg *msg)
{
    struct gist_request *r;
    struct wire_rep rep;
    int err = wire_rep_unpack(&c->in, msg->frame, msg->frame_len, &rep);

    if (err < 0)
        return gist_fail(c, -EPROTO, "gistd sent a reply that can't be read: %s", strerror(-err));
    if (rep.bulk_len != msg->bulk_len)
        return gist_fail(c, -EPROTO, "gistd sent a reply with %u bytes of data and announced %llu",
                         msg->bulk_len, (unsigned long long)rep.bulk_len);
    /* Only what has no id that could be found is answered so, and we send no such frame: memory was
     * overwritten, here or there. */
    if (rep.id == 0 && rep.kind == WIRE_ERROR)
        return gist_fail(c, -EPROTO, "gistd could not read a request: %s", rep.u.error.text);
    r = find_in_flight(c, rep.id);
    if (!r)
        return gist_fail(c, -EPROTO, "gistd answered a request (%llu) that is not open",
                         (unsigned long long)rep.id);
    if (rep.kind == WIRE_ERROR) {
        take_error(r, &rep);
        return 0;
    }
    if (rep.kind == WIRE_REP__N) {
        pass_over(r, &rep);
        return 0;
    }
    if (rep.kind == WIRE_LOADING && !rep.last && rep.u.loading.percent <= 100) {
        hear_loading(r, rep.u.loading.percent);
        return 0;
    }
    if (!all_sent(r)) { /* a part; pump() sends the next one */
        if (!rep.last)
            return gist_fail(c, -EPROTO, "gistd answered before it had received the whole text");
        r->in_flight = false;
        r->msg.id = c->next_id++;
        return 0;
    }
    err = r->on_reply ? r->on_reply(r, &rep, msg->bulk) : 0;
    if (err < 0)
        return gist_fail(c, err, "gistd sent the wrong kind of reply (%d) to a request (%d)",
                         (int)rep.kind, (int)r->msg.kind);
    if (rep.last && r->err == 0 && r->later > 0) {
        r->err = go_on(r);
        if (r->err == 0)
            return 0;
    }
    if (rep.last)
        finish(r, r->err);
    return 0;
}

/* Replies that are handled at a time: as many as a ring may hold. Who takes his time with each of
 * them would else come back no more, since the next one is there by then. */
#define RECEIVE_MOST ((int)RING_SLOTS_MAX)

/* Whether there is no more to be received for a call that waits: a cancel is to be heard, also
 * where replies come faster than they are handled. */
static bool is_enough(const gist_conn *c, const struct gist_request *target)
{
    return target && (target->done || atomic_load_explicit(&c->cancel, memory_order_relaxed) != 0);
}

/* Handles what is there, until `target` (may be NULL) is done. Returns the number of replies. Each
 * message is released after its callbacks, which may look at bulk in the arena until then. */
static int receive(gist_conn *c, const struct gist_request *target)
{
    struct chan_msg msg;
    int n = 0, r = 0;

    c->dispatching = true;
    while (!c->dead && n < RECEIVE_MOST && !is_enough(c, target)) {
        r = chan_recv(c->chan, &msg);
        if (r < 0)
            break;
        (void)take_reply(c, &msg);
        chan_release(c->chan);
        n++;
    }
    if (r == -EPROTO)
        gist_fail(c, r, "gistd broke the protocol: a ring or a descriptor is out of bounds");
    c->dispatching = false;
    if (c->dead)
        finish_all(c);
    return n;
}

/* --- waiting ---------------------------------------------------------------------------------- */

static void drain_cancel_fd(gist_conn *c)
{
    uint64_t n;

    (void)!read(c->cancel_fd, &n, sizeof(n));
}

/* A look first: an exchange is a barrier, and we come by here often. Pairs with the release in
 * gist_cancel_async. */
static bool take_cancel(gist_conn *c)
{
    return atomic_load_explicit(&c->cancel, memory_order_relaxed) &&
           atomic_exchange_explicit(&c->cancel, 0, memory_order_acquire);
}

/* Also for room, if something waits for that. Whatever ends the sleep, gist_run looks at everything
 * again. */
static void wait_for_more(struct gist_request *r, int timeout_ms)
{
    gist_conn *c = r->conn;
    int err = chan_wait(c->chan, c->want_room, c->sock, c->cancel_fd, c->spin_ns, timeout_ms);

    if (err == -EINTR) {
        drain_cancel_fd(c);
        err = 0;
    }
    if (err == -EPIPE)
        gist_fail(c, err, "gistd has closed the connection: it was stopped or it crashed");
    else if (err == -ETIMEDOUT)
        gist_fail(c, err, "gistd did not answer within %d ms", timeout_ms);
    else if (err < 0)
        gist_fail(c, err, "waiting for gistd: %s", strerror(-err));
}

/* Only the greeting may be said before there is a connection. */
static int refusal(const struct gist_request *r)
{
    return r->msg.kind == WIRE_HELLO ? r->conn->dead : gist_usable(r->conn);
}

/* The order in the loop keeps from sleeping over something: send, take what came, send what that
 * allowed, look for a cancel, then sleep. A doorbell that rings in between ends the sleep at once
 * (chan_wait). */
int gist_run(struct gist_request *r, int timeout_ms)
{
    gist_conn *c = r->conn;
    int err = refusal(r);

    if (err < 0)
        return err;
    if (c->dispatching)
        return gist_set_error(c, GIST_E_BAD_REQUEST, -EDEADLK,
                              "cannot wait inside a callback of the same connection");
    /* A cancel that came too late for the last call is not meant for this one. */
    if (take_cancel(c))
        drain_cancel_fd(c);
    r->waited_for = true;
    if (enqueue(r, false) < 0)
        return gist_set_errno(c, -ENOMEM);
    if (c->epoll >= 0)
        chan_disarm(c->chan); /* no rings for gist_fd() while we look ourselves */
    for (;;) {
        pump(c);
        receive(c, r);
        if (r->done)
            break;
        pump(c); /* before we sleep: a part's answer calls for the next part */
        if (r->done)
            break;
        if (take_cancel(c))
            gist_request_cancel(r);
        wait_for_more(r, timeout_ms);
    }
    gist_rearm(c);
    return r->err;
}

/* --- not waiting ------------------------------------------------------------------------------ */

/* Copies what the caller's memory holds: the rest of the text, and what the message points to. That
 * is copied as the daemon would get it, packed and unpacked, so that no field is forgotten here;
 * once to see how much memory it takes. The scratch of c->out is borrowed for the first of them,
 * and has nothing in it that is still needed. */
static int own_memory(struct gist_request *r)
{
    size_t n = r->bulk_len - r->sent + r->later, len;
    gist_conn *c = r->conn;
    struct wire_scratch own;
    struct wire_req copy;
    int err = wire_req_pack(&c->out, &r->msg, c->frame, sizeof(c->frame), &len);

    c->out.used = 0;
    if (err == 0)
        err = wire_req_unpack(&c->out, c->frame, len, &copy);
    if (err < 0)
        return err;
    own = (struct wire_scratch){ .len = c->out.used };
    r->owned = own.mem = malloc(own.len + n + 1);
    if (!r->owned)
        return -ENOMEM;
    err = wire_req_unpack(&own, c->frame, len, &r->msg);
    if (n > 0)
        memcpy(own.mem + own.len, r->bulk + r->sent, n);
    r->bulk = own.mem + own.len;
    r->bulk_len -= r->sent;
    r->sent = 0;
    return err;
}

/* From a callback the doorbell is not armed and the connection's end not taken up: whoever called
 * the callback does both. */
int gist_submit(const struct gist_request *r, uint64_t *ret_request)
{
    gist_conn *c = r->conn;
    struct gist_request *x;
    int err = refusal(r);

    if (err < 0)
        return err;
    x = malloc(sizeof(*x));
    if (!x)
        return gist_set_errno(c, -ENOMEM);
    *x = *r;
    if (enqueue(x, false) < 0) {
        free(x);
        return gist_set_errno(c, -ENOMEM);
    }
    if (ret_request)
        *ret_request = x->handle;
    /* From here on errors are told to on_done, which may run before we return. */
    x->waited_for = true;
    pump(c);
    x->waited_for = false;
    /* What could be sent at once, which is nearly all, is never copied. */
    if (!x->done && (x->queued || x->later > 0))
        err = own_memory(x);
    if (err < 0 && x->in_flight) { /* half of it is there, and can't be called back */
        (void)gist_fail(c, err, "this program has no memory for the rest of a request");
    } else if (err < 0) {
        set_send_error(c, err);
        finish(x, err);
    } else if (x->done) {
        free_request(x);
    }
    if (c->dispatching)
        return 0;
    if (c->dead) /* by what a callback of finish() has started */
        finish_all(c);
    gist_rearm(c);
    return 0;
}

int gist_start(struct gist_request *r, gist_done_fn *on_done, void *arg, uint64_t *ret_request)
{
    r->end.done = on_done;
    r->tell = on_done ? tell_done : NULL;
    r->arg = arg;
    return gist_submit(r, ret_request);
}

/* The socket carries nothing after the handshake, so it is readable only at its end. */
static bool hung_up(const gist_conn *c)
{
    char byte;
    ssize_t n = recv(c->sock, &byte, 1, MSG_DONTWAIT | MSG_PEEK);

    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

/* The doorbell is disarmed while we look, and armed again at the end: in between the daemon need
 * not make a system call for each reply. A connection whose end came behind replies is ended only
 * when those were read. */
int gist_dispatch(gist_conn *c)
{
    uint64_t n;
    int done;

    if (c->dispatching)
        return gist_set_error(c, GIST_E_BAD_REQUEST, -EDEADLK,
                              "cannot dispatch inside a callback of the same connection");
    if (c->dead)
        return c->dead;
    if (!c->chan)
        return gist_go_on_connecting(c);
    if (c->epoll >= 0) {
        chan_disarm(c->chan);
        if (c->kicked)
            (void)!read(c->kick, &n, sizeof(n));
        c->kicked = false;
    }
    done = receive(c, NULL);
    pump(c);
    if (done == 0 && !c->dead && hung_up(c) && !chan_readable(c->chan))
        gist_fail(c, -EPIPE, "gistd has closed the connection: it was stopped or it crashed");
    gist_rearm(c);
    return c->dead && done == 0 ? c->dead : done;
}

void gist_rearm(gist_conn *c)
{
    const uint64_t one = 1;

    if (c->epoll < 0 || c->dead || !c->chan)
        return;
    /* What is there already rings no doorbell. */
    if (chan_arm(c->chan, c->want_room)) {
        (void)!write(c->kick, &one, sizeof(one));
        c->kicked = true;
    }
}

int gist_cancel(gist_conn *c, uint64_t request)
{
    struct gist_request *r = c->open;

    if (c->dead)
        return c->dead;
    while (r && r->handle != request)
        r = r->next;
    if (!r)
        return gist_set_error(c, GIST_E_NOT_FOUND, -ENOENT, "there is no open request %llu",
                              (unsigned long long)request);
    gist_request_cancel(r);
    if (!c->dispatching)
        gist_rearm(c);
    return 0;
}

void gist_cancel_async(gist_conn *c)
{
    const uint64_t one = 1;
    int saved = errno;

    atomic_store_explicit(&c->cancel, 1, memory_order_release);
    (void)!write(c->cancel_fd, &one, sizeof(one));
    errno = saved;
}
