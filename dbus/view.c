/* dbus/view.c - a client that asks for numbers and nothing else. A look that fails ends the
 * connection, and the next one begins with another. */

#include "dbus/view.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* A daemon that hangs must not hang us for long; one that loads its model says so at once. */
#define CONNECT_MS 2000

const char *view_state_name(enum view_state s)
{
    static const char *const names[] = { [VIEW_STOPPED] = "stopped",
                                         [VIEW_LOADING] = "loading",
                                         [VIEW_SERVING] = "serving",
                                         [VIEW_IDLE] = "idle" };

    return names[s];
}

/* Pointers of v->stats lead into the connection's memory: with it they go. */
static void forget(struct view *v, enum view_state state)
{
    const struct view none = { .socket = v->socket, .conn = v->conn, .state = state };

    *v = none;
}

void view_close(struct view *v)
{
    gist_disconnect(v->conn);
    v->conn = NULL;
    forget(v, VIEW_STOPPED);
}

/* Not waited for: what is loaded is served a few looks later. */
static int leave(void *arg, unsigned percent)
{
    (void)arg;
    (void)percent;
    return 1;
}

static bool connect_to(struct view *v)
{
    const struct gist_connect_opts o = { .size = sizeof(o),
                                         .path = v->socket,
                                         .name = "gist-dbus",
                                         .timeout_ms = CONNECT_MS,
                                         .on_loading = leave };
    int r = gist_connect_with(&o, &v->conn);

    if (r == 0)
        return true;
    v->conn = NULL;
    forget(v, r == -ECANCELED ? VIEW_LOADING : VIEW_STOPPED);
    return false;
}

/* FNV-1a: no more than a sign that something is another one now. */
static void mix(uint64_t *h, uint64_t x)
{
    for (unsigned i = 0; i < 8; i++, x >>= 8)
        *h = (*h ^ (x & 0xff)) * UINT64_C(0x100000001b3);
}

/* Of who is there, which sessions they have, and which request each is at: what the lists of the
 * interface show, but for sizes. */
static uint64_t sign_of(const struct gist_stats *st)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    /* For those that have no room in the lists. */
    mix(&h, st->n_clients_all);
    mix(&h, st->n_sessions_all);
    for (uint32_t i = 0; i < st->n_clients; i++)
        mix(&h, st->clients[i].id);
    for (uint32_t i = 0; i < st->n_sessions; i++) {
        mix(&h, st->sessions[i].id);
        mix(&h, st->sessions[i].request);
    }
    return h;
}

static void keep(struct view *v)
{
    const struct gist_stats *st = &v->stats;
    uint32_t used = st->pages - st->pages_free - st->pages_cached;

    (void)snprintf(v->version, sizeof(v->version), "%s", st->version);
    (void)snprintf(v->model, sizeof(v->model), "%s", st->model);
    (void)snprintf(v->digest, sizeof(v->digest), "%s", st->model_digest);
    v->state = st->idle ? VIEW_IDLE : VIEW_SERVING;
    v->weights = st->weights_memory;
    v->context = st->kv_bytes;
    v->used = (uint64_t)used * st->page_bytes;
    v->cached = (uint64_t)st->pages_cached * st->page_bytes;
    v->returned = (uint64_t)st->pages_returned * st->page_bytes;
    v->n_clients = st->n_clients_all > 0 ? st->n_clients_all - 1 : 0; /* without us */
    v->n_sessions = st->n_sessions_all;
    v->running = st->requests_running;
    v->waiting = st->requests_waiting;
    v->who = sign_of(st);
}

void view_look(struct view *v, bool knock)
{
    /* connect_to has said what is the matter; without it gistd counts as stopped. */
    if (!v->conn && !(knock && connect_to(v))) {
        if (!knock)
            forget(v, VIEW_STOPPED);
        return;
    }
    if (gist_stats(v->conn, &v->stats) < 0)
        view_close(v);
    else
        keep(v);
}

static const struct gist_stats_session *find(const struct gist_stats *st, uint64_t id)
{
    for (uint32_t i = 0; i < st->n_sessions; i++)
        if (st->sessions[i].id == id)
            return &st->sessions[i];
    return NULL;
}

/* Whose it is is looked up in the moment, by the number that gistd never gives twice. */
int view_cancel(struct view *v, uint64_t session, bool sees_all, uint32_t uid)
{
    const struct gist_stats_session *s;

    view_look(v, false);
    if (!v->conn)
        return -ENOTCONN;
    s = find(&v->stats, session);
    /* One that the list had no room for is looked up by gistd. */
    if (!s && sees_all && v->stats.n_sessions < v->n_sessions)
        return gist_cancel_session(v->conn, session);
    if (!s || !(sees_all || s->uid == uid))
        return -ENOENT;
    return gist_cancel_session(v->conn, session);
}
