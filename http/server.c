/* http/server.c - libmicrohttpd's threads on one side, the main thread on the other. They share the
 * list of connections, live sessions (http/live.h) and turns that nobody hears (http/turn.h), each
 * with a lock of its own. The main thread does what nobody asks for: it ends what has taken too
 * long, and goes on with turns that were left. */

#include "http/server.h"

#include "base/clock.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEADER_BYTES (64u * 1024) /* of a request's line and headers; beyond it: 431 */
/* How late a connection that is too slow may be noticed, and how long what is being sent may take
 * when we stop. */
#define LOOK_MS 1000
#define STOP_S  3

/* --- connections ------------------------------------------------------------------------------ */

/* The main thread sleeps without a timeout while there is no connection: the first one wakes it. */
static void add_client(struct server *s, struct client *c)
{
    const uint64_t one = 1;
    bool first;

    c->waiting_ns = clock_ns();
    (void)pthread_mutex_lock(&s->lock);
    first = !s->clients;
    c->next = s->clients;
    c->prev = &s->clients;
    if (c->next)
        c->next->prev = &c->next;
    s->clients = c;
    (void)pthread_mutex_unlock(&s->lock);
    if (first)
        (void)!write(s->wake_fd, &one, sizeof(one));
}

/* Under the lock, before libmicrohttpd closes the descriptor: end_slow must not shut down
 * another's. */
static void remove_client(struct server *s, struct client *c)
{
    (void)pthread_mutex_lock(&s->lock);
    s->n_busy -= c->waiting_ns == 0;
    if (s->n_busy == 0)
        (void)pthread_cond_broadcast(&s->answered);
    *c->prev = c->next;
    if (c->next)
        c->next->prev = c->prev;
    (void)pthread_mutex_unlock(&s->lock);
    free(c);
}

/* What is sent and never taken, as to a machine that has lost its network, ends the connection: the
 * kernel alone would wait for a quarter of an hour. */
static void give_up_in_time(const struct server *s, int fd)
{
    const unsigned ms = (unsigned)s->conf->send_s * 1000;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
}

/* Without memory for it a connection gets no answer (exchange.c). */
static void on_connection(void *cls, struct MHD_Connection *connection, void **ret_client,
                          enum MHD_ConnectionNotificationCode code)
{
    struct door *d = cls;

    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        struct client *c = calloc(1, sizeof(*c));
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);

        *ret_client = c;
        if (!c)
            return;
        c->fd = info ? info->connect_fd : -1;
        if (!d->is_unix)
            give_up_in_time(d->server, c->fd);
        add_client(d->server, c);
    } else if (*ret_client) {
        remove_client(d->server, *ret_client);
        *ret_client = NULL;
    }
}

/* Called twice with the same, it changes nothing but the time: what was counted is taken off first.
 */
void server_waits(struct server *s, struct client *c, bool waits)
{
    (void)pthread_mutex_lock(&s->lock);
    s->n_busy -= c->waiting_ns == 0;
    c->waiting_ns = waits ? clock_ns() : 0;
    s->n_busy += c->waiting_ns == 0;
    if (s->n_busy == 0)
        (void)pthread_cond_broadcast(&s->answered);
    (void)pthread_mutex_unlock(&s->lock);
}

/* Ends those that have been sending for too long; true: there are connections to look at again. A
 * descriptor on the list is open: what closes it takes it out first. */
static bool end_slow(struct server *s)
{
    uint64_t now = clock_ns(), limit = s->conf->request_s * CLOCK_S;
    bool any;

    (void)pthread_mutex_lock(&s->lock);
    any = s->clients != NULL;
    for (struct client *c = s->clients; c; c = c->next)
        if (c->waiting_ns && now > c->waiting_ns + limit && c->fd >= 0)
            (void)shutdown(c->fd, SHUT_RDWR);
    (void)pthread_mutex_unlock(&s->lock);
    return any;
}

/* Milliseconds until it looks again. Without connections and sessions there is nothing to wake up
 * for. */
static int look(struct server *s)
{
    int ms = clock_sooner_ms(turns_run(&s->turns), lives_expire(&s->lives));

    return end_slow(s) && (ms < 0 || ms > LOOK_MS) ? LOOK_MS : ms;
}

/* --- the main thread -------------------------------------------------------------------------- */

/* In one poll: signals, wake_fd, and what each turn here waits for. A turn that somebody takes
 * meanwhile leaves descriptors in it that wake us once for nothing. */
int server_run(struct server *s)
{
    sigset_t set;
    struct pollfd p[2 + TURNS_FDS * CONF_LIVE_MAX] = { { -1, POLLIN, 0 },
                                                       { s->wake_fd, POLLIN, 0 } };
    uint64_t n;
    int r = 0, ms;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGTERM);
    p[0].fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (p[0].fd < 0)
        return -errno;
    while (!p[0].revents) {
        ms = look(s);
        if (poll(p, 2 + turns_wait_for(&s->turns, p + 2), ms) < 0 && errno != EINTR) {
            r = -errno;
            break;
        }
        if (p[1].revents)
            (void)!read(s->wake_fd, &n, sizeof(n));
    }
    (void)close(p[0].fd);
    return r;
}

/* One daemon of libmicrohttpd for each socket, so that each knows whether names of hosts lead to
 * it. */
static int open_door(struct server *s, struct listen *l, size_t i, struct why *why)
{
    struct door *d = &s->doors[i];

    d->server = s;
    d->is_unix = l->at[i].is_unix;
    d->daemon = MHD_start_daemon(MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
                                     MHD_USE_POLL | MHD_USE_ITC,
                                 0, NULL, NULL, exchange_on_request, d, MHD_OPTION_LISTEN_SOCKET,
                                 l->at[i].fd, MHD_OPTION_CONNECTION_LIMIT,
                                 (unsigned)s->conf->max_connections, MHD_OPTION_CONNECTION_TIMEOUT,
                                 (unsigned)s->conf->request_s, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                                 (size_t)HEADER_BYTES, MHD_OPTION_STRICT_FOR_CLIENT, 1,
                                 MHD_OPTION_NOTIFY_COMPLETED, exchange_on_completed, d,
                                 MHD_OPTION_NOTIFY_CONNECTION, on_connection, d, MHD_OPTION_END);
    if (!d->daemon)
        return why_set(why, -EIO, "libmicrohttpd does not serve on %s", l->where);
    l->at[i].fd = -1; /* it closes it */
    s->n_doors++;
    return 0;
}

int server_open(struct server *s, const struct conf *conf, struct listen *l, struct why *why)
{
    int r;

    *s = (struct server){ .conf = conf, .stop_fd = -1, .wake_fd = -1 };
    (void)pthread_mutex_init(&s->lock, NULL);
    (void)pthread_cond_init(&s->answered, NULL);
    pool_init(&s->pool, conf->socket[0] ? conf->socket : NULL, conf->max_requests);
    tokens_init(&s->tokens);
    r = guard_open(&s->guard, conf, why);
    lives_init(&s->lives, &s->pool, conf->live_sessions, guard_n_names(&s->guard),
               conf->session_idle_s);
    if (r == 0) {
        s->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (s->stop_fd < 0 || s->wake_fd < 0)
            r = why_set(why, -errno, "starting: %s", strerror(errno));
    }
    /* Also behind a failure: server_close ends all of them. */
    turns_init(&s->turns, &s->lives, conf->live_sessions, conf->answer_s, s->wake_fd);
    for (size_t i = 0; r == 0 && i < l->n; i++)
        r = open_door(s, l, i, why);
    if (r < 0)
        server_close(s);
    return r;
}

/* libmicrohttpd cuts off what it is sending when it is stopped: streams get the time to say why
 * they end, but not from clients that take nothing. */
static void wait_for_answers(struct server *s)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += STOP_S;
    (void)pthread_mutex_lock(&s->lock);
    while (s->n_busy > 0 && pthread_cond_timedwait(&s->answered, &s->lock, &until) == 0)
        ;
    (void)pthread_mutex_unlock(&s->lock);
}

/* Jobs see that stop_fd is readable and end. */
void server_close(struct server *s)
{
    const uint64_t one = 1;

    if (s->stop_fd >= 0 && write(s->stop_fd, &one, sizeof(one)) == sizeof(one))
        wait_for_answers(s);
    while (s->n_doors > 0)
        MHD_stop_daemon(s->doors[--s->n_doors].daemon);
    /* Nobody asks any more: all threads of connections have ended. Turns go before the
     * sessions that they hold. */
    guard_close(&s->guard);
    turns_fini(&s->turns);
    lives_fini(&s->lives);
    pool_fini(&s->pool);
    tokens_fini(&s->tokens);
    if (s->stop_fd >= 0)
        (void)close(s->stop_fd);
    if (s->wake_fd >= 0)
        (void)close(s->wake_fd);
    s->stop_fd = s->wake_fd = -1;
    (void)pthread_cond_destroy(&s->answered);
    (void)pthread_mutex_destroy(&s->lock);
}
