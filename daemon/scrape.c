/* An epoll set of its own, which stands in the control thread's as one descriptor: what happens
 * among scrapers rings once there, and scrape_run does all of it. Nothing here waits for a peer, or
 * for the scheduler: a connection whose request is whole `waits`, and all that do are answered with
 * the same numbers. */
#include "daemon/scrape.h"

#include "base/clock.h"
#include "base/socket_file.h"
#include "daemon/listener.h"
#include "daemon/owner.h"
#include "ipc/handshake.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* What an event is about: numbers below are connections' places. */
enum { ABOUT_LISTENER = SCRAPE_MAX, ABOUT_TIMER };

/* Until accept() is tried again for which something was missing: no event tells that it is there.
 */
#define RESUME_NS (CLOCK_S / 2)

/* about: a connection's place, or one of the two above. */
static int watch(struct scrape *s, int op, int fd, uint32_t about, uint32_t events)
{
    struct epoll_event ev = { .events = events, .data.u32 = about };

    return epoll_ctl(s->epoll, op, fd, &ev) < 0 ? -errno : 0;
}

/* --- the socket ------------------------------------------------------------------------------- */

/* As the daemon's own, whose file a service manager may have made. */
static int set_access(const struct scrape *s, const struct config *c, const struct listener *l)
{
    /* The daemon's own file says more than the option where a manager has made it. */
    mode_t mode = c->socket_mode;
    struct stat st;

    if (l->path[0] && stat(l->path, &st) == 0) {
        mode = st.st_mode & 0777;
        if (st.st_gid != getegid() && chown(s->path, (uid_t)-1, st.st_gid) < 0)
            return -errno;
    }
    return chmod(s->path, mode) < 0 ? -errno : 0;
}

/* Access is set between bind and listen: nobody can connect before it is right. */
static int make_socket(struct scrape *s, const struct config *c, const struct listener *l,
                       struct why *why)
{
    pid_t pid;
    int r;

    (void)snprintf(s->path, sizeof(s->path), "%.*s", CONFIG_SOCKET_MAX, c->metrics_socket);
    r = socket_file_clear(s->path, SOCK_STREAM, "metrics-socket", &pid, why);
    if (r == -EADDRINUSE)
        return why_set(why, r, "somebody answers at %s; choose another path with --metrics-socket",
                       s->path);
    if (r < 0)
        return r;
    s->fd = socket_file_bind(s->path, SOCK_STREAM, why);
    if (s->fd < 0)
        return s->fd;
    s->made = true;
    r = set_access(s, c, l);
    if (r == 0 && listen(s->fd, SOCKET_BACKLOG) < 0)
        r = -errno;
    return r < 0 ? why_set(why, r, "%s: %s", s->path, strerror(-r)) : 0;
}

int scrape_open(struct scrape *s, const struct config *c, const struct listener *l, struct why *why)
{
    int r;

    *s = (struct scrape){ .epoll = -1, .fd = -1, .timer = -1 };
    for (uint32_t i = 0; i < SCRAPE_MAX; i++)
        s->conns[i].sock = -1;
    if (!c->metrics_socket[0])
        return 0;
    r = make_socket(s, c, l, why);
    if (r == 0) {
        s->epoll = epoll_create1(EPOLL_CLOEXEC);
        s->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        r = s->epoll < 0 || s->timer < 0 ? -errno : 0;
    }
    if (r == 0)
        r = watch(s, EPOLL_CTL_ADD, s->fd, ABOUT_LISTENER, EPOLLIN);
    if (r == 0)
        r = watch(s, EPOLL_CTL_ADD, s->timer, ABOUT_TIMER, EPOLLIN);
    if (r < 0) {
        scrape_close(s);
        return why_set(why, r, "option metrics-socket: %s", strerror(-r));
    }
    return 0;
}

/* --- connections ------------------------------------------------------------------------------ */

/* Closing takes it out of the epoll set. Of a free place nothing happens. */
static void drop(struct scrape_conn *c)
{
    if (c->sock >= 0)
        (void)close(c->sock);
    free(c->out);
    *c = (struct scrape_conn){ .sock = -1 };
}

void scrape_close(struct scrape *s)
{
    for (uint32_t i = 0; i < SCRAPE_MAX; i++)
        drop(&s->conns[i]);
    if (s->made)
        (void)unlink(s->path);
    if (s->fd >= 0)
        (void)close(s->fd);
    if (s->timer >= 0)
        (void)close(s->timer);
    if (s->epoll >= 0)
        (void)close(s->epoll);
    s->epoll = s->fd = s->timer = -1;
    s->made = false;
    s->resume_ns = 0;
}

/* Once for the one that is due first. */
static void set_timer(struct scrape *s)
{
    uint64_t first = s->resume_ns ? s->resume_ns : UINT64_MAX;
    struct itimerspec t = { .it_value = { 0, 0 } };

    for (uint32_t i = 0; i < SCRAPE_MAX; i++)
        if (s->conns[i].sock >= 0 && s->conns[i].deadline_ns < first)
            first = s->conns[i].deadline_ns;
    if (first != UINT64_MAX) {
        t.it_value.tv_sec = (time_t)(first / CLOCK_S);
        t.it_value.tv_nsec = (long)(first % CLOCK_S);
    }
    (void)timerfd_settime(s->timer, TFD_TIMER_ABSTIME, &t, NULL);
}

/* Read first: a timer that fires behind this rings anew. */
static void on_timer(struct scrape *s)
{
    uint64_t n, now = clock_ns();

    (void)!read(s->timer, &n, sizeof(n));
    for (uint32_t i = 0; i < SCRAPE_MAX; i++)
        if (s->conns[i].sock >= 0 && s->conns[i].deadline_ns <= now)
            drop(&s->conns[i]);
    if (s->resume_ns && s->resume_ns <= now) {
        s->resume_ns = 0;
        (void)watch(s, EPOLL_CTL_MOD, s->fd, ABOUT_LISTENER, EPOLLIN);
    }
    set_timer(s);
}

/* Without descriptors, say: the listener would stay readable, and keep the control thread awake for
 * nothing. */
static void pause_accepting(struct scrape *s)
{
    (void)watch(s, EPOLL_CTL_MOD, s->fd, ABOUT_LISTENER, 0);
    s->resume_ns = clock_ns() + RESUME_NS;
    set_timer(s);
}

/* A free place, else that of the one who is due first: scrapers that hang keep nobody out. */
static void take_connection(struct scrape *s)
{
    int sock = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct scrape_conn *c = &s->conns[0];
    pid_t pid;

    if (sock < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
            pause_accepting(s);
        return;
    }
    for (uint32_t i = 0; i < SCRAPE_MAX && c->sock >= 0; i++)
        if (s->conns[i].sock < 0 || s->conns[i].deadline_ns < c->deadline_ns)
            c = &s->conns[i];
    drop(c);
    c->sock = sock;
    c->deadline_ns = clock_ns() + SCRAPE_NS;
    if (handshake_peer(sock, &pid, &c->uid) < 0 ||
        watch(s, EPOLL_CTL_ADD, sock, (uint32_t)(c - s->conns), EPOLLIN) < 0)
        drop(c);
    set_timer(s);
}

/* --- requests and answers --------------------------------------------------------------------- */

/* As much as the socket takes; the rest when it is writable. Closed behind the last byte, as
 * HTTP/1.0 has it. */
static void push(struct scrape *s, struct scrape_conn *c)
{
    ssize_t n = send(c->sock, c->out + c->sent, c->n_out - c->sent, MSG_NOSIGNAL);

    if (n > 0)
        c->sent += (size_t)n;
    if (c->sent == c->n_out || (n < 0 && errno != EAGAIN && errno != EINTR))
        drop(c);
    else
        (void)watch(s, EPOLL_CTL_MOD, c->sock, (uint32_t)(c - s->conns), EPOLLOUT);
}

/* body NULL: a line that says the status. */
static void answer(struct scrape *s, struct scrape_conn *c, const char *status, const char *body,
                   size_t len)
{
    FILE *f = open_memstream(&c->out, &c->n_out);
    char line[64];

    if (!body)
        len = (size_t)snprintf(line, sizeof(line), "%s\n", status);
    c->waits = false;
    if (!f) {
        drop(c);
        return;
    }
    (void)fprintf(f,
                  "HTTP/1.0 %s\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                  "Content-Length: %zu\r\nConnection: close\r\n\r\n",
                  status, len);
    if (!c->head)
        (void)fwrite(body ? body : line, 1, len, f);
    if (fclose(f) != 0)
        drop(c);
    else
        push(s, c);
}

/* m NULL: there are no numbers, while the model is loaded or the daemon stops. Each is told what
 * his user may see. */
void scrape_answer(struct scrape *s, const struct metrics *m)
{
    for (uint32_t i = 0; i < SCRAPE_MAX; i++) {
        struct scrape_conn *c = &s->conns[i];
        char *text = NULL;
        size_t len = 0;
        FILE *f;

        if (c->sock < 0 || !c->waits)
            continue;
        f = open_memstream(&text, &len);
        if (f)
            metrics_print(m, owner_sees_all(c->uid), c->uid, f);
        if (f && fclose(f) == 0)
            answer(s, c, "200 OK", text, len);
        else
            drop(c);
        free(text);
    }
}

/* A query may follow, which is not looked at. */
static bool is_path(const char *target, const char *path)
{
    size_t n = strlen(path);

    return strncmp(target, path, n) == 0 && (target[n] == ' ' || target[n] == '?');
}

/* The first line is all that is read of it; the rest only has to end. */
static void take_request(struct scrape *s, struct scrape_conn *c)
{
    char *target = strchr(c->in, ' '), *version = target ? strchr(target + 1, ' ') : NULL;
    size_t line = strcspn(c->in, "\r\n");
    bool get = strncmp(c->in, "GET ", 4) == 0;

    c->head = strncmp(c->in, "HEAD ", 5) == 0;
    if (!version || version > c->in + line || strncmp(version + 1, "HTTP/1.", 7) != 0)
        answer(s, c, "400 Bad Request", NULL, 0);
    else if (!get && !c->head)
        answer(s, c, "405 Method Not Allowed", NULL, 0);
    else if (!is_path(target + 1, "/metrics"))
        answer(s, c, "404 Not Found", NULL, 0);
    else
        c->waits = true;
}

/* hung_up: it neither says anything more nor reads, which epoll would tell again and again. */
static void on_readable(struct scrape *s, struct scrape_conn *c, bool hung_up)
{
    ssize_t n = recv(c->sock, c->in + c->n_in, sizeof(c->in) - 1 - c->n_in, 0);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n == 0 && !hung_up && (c->waits || c->out)) { /* it has said all, and reads on */
        (void)watch(s, EPOLL_CTL_MOD, c->sock, (uint32_t)(c - s->conns), 0);
        return;
    }
    if (n <= 0 || c->waits || c->out) { /* it left, or goes on after its request */
        drop(c);
        return;
    }
    c->n_in += (size_t)n;
    c->in[c->n_in] = '\0';
    /* A zero byte would hide what stands behind it from the functions for strings. */
    if (strlen(c->in) != c->n_in)
        answer(s, c, "400 Bad Request", NULL, 0);
    else if (strstr(c->in, "\r\n\r\n") || strstr(c->in, "\n\n"))
        take_request(s, c);
    else if (c->n_in == sizeof(c->in) - 1)
        answer(s, c, "431 Request Header Fields Too Large", NULL, 0);
}

/* Its place may have been given to another one since the event was fetched: that one has nothing to
 * read then, which recv() says. */
static void on_event(struct scrape *s, const struct epoll_event *ev)
{
    struct scrape_conn *c;

    if (ev->data.u32 == ABOUT_LISTENER) {
        take_connection(s);
    } else if (ev->data.u32 == ABOUT_TIMER) {
        on_timer(s);
    } else {
        c = &s->conns[ev->data.u32];
        if (c->sock < 0)
            return;
        if (c->out && (ev->events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
            push(s, c);
        else
            on_readable(s, c, ev->events & EPOLLHUP);
    }
}

/* True: somebody waits for numbers. Also called where nothing has happened: it does not wait. */
bool scrape_run(struct scrape *s)
{
    struct epoll_event ev[SCRAPE_MAX + 2];
    int n = epoll_wait(s->epoll, ev, SCRAPE_MAX + 2, 0);
    bool waits = false;

    for (int i = 0; i < n; i++)
        on_event(s, &ev[i]);
    for (uint32_t i = 0; i < SCRAPE_MAX; i++)
        waits |= s->conns[i].waits;
    return waits;
}
