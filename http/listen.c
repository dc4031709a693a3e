/* http/listen.c - sockets that were passed count alone: who writes a socket unit means that, and
 * not the default port beside it. */

#include "http/listen.h"

#include "base/socket_file.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

/* From here on listen_close closes it. */
static void add(struct listen *l, int fd, bool is_unix, const char *where)
{
    size_t n = strlen(l->where);

    l->at[l->n].fd = fd;
    l->at[l->n++].is_unix = is_unix;
    (void)snprintf(l->where + n, sizeof(l->where) - n, "%s%s", n ? ", " : "", where);
}

/* --- from the service manager ----------------------------------------------------------------- */

/* For people, from the socket itself: port 0 has become a number by now. */
static void say_where(int fd, char ret[160])
{
    struct sockaddr_storage a;
    socklen_t len = sizeof(a);
    char host[64], port[16];

    (void)snprintf(ret, 160, "a socket of the service manager");
    if (getsockname(fd, (struct sockaddr *)&a, &len) < 0)
        return;
    if (a.ss_family == AF_UNIX)
        (void)snprintf(ret, 160, "%.107s", ((struct sockaddr_un *)&a)->sun_path);
    else if (getnameinfo((struct sockaddr *)&a, len, host, sizeof(host), port, sizeof(port),
                         NI_NUMERICHOST | NI_NUMERICSERV) == 0)
        (void)snprintf(ret, 160, a.ss_family == AF_INET6 ? "http://[%s]:%s" : "http://%s:%s", host,
                       port);
}

/* All of 127.0.0.0/8 stays on this machine, of IPv6 one address does. */
static bool is_loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET)
        return (ntohl(((const struct sockaddr_in *)a)->sin_addr.s_addr) >> 24) == 127;
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)a)->sin6_addr);
}

/* Without keys nobody but this machine may ask: forgetting them must not open it to a network. */
static int check_reach(const struct sockaddr *a, const char *where, const struct conf *conf,
                       struct why *why)
{
    if (a->sa_family == AF_UNIX || is_loopback(a) || conf->api_keys[0])
        return 0;
    return why_set(
        why, -EPERM,
        "%s: other machines could reach it, and would need no key: name a file of keys by "
        "--api-keys, or listen on 127.0.0.1",
        where);
}

/* 0: none was passed. */
static int take_passed(struct listen *l, const struct conf *conf, struct why *why)
{
    /* 1: not for programs that we might start. */
    int n = sd_listen_fds(1);

    if (n < 0 || n > (int)LISTEN_MAX)
        return why_set(why, -EINVAL, "the service manager passed %d sockets: at most %u are served",
                       n, LISTEN_MAX);
    for (int i = 0; i < n; i++) {
        int fd = SD_LISTEN_FDS_START + i, r;
        bool is_unix = sd_is_socket_unix(fd, SOCK_STREAM, 1, NULL, 0) > 0;
        struct sockaddr_storage a = { .ss_family = AF_UNIX };
        socklen_t len = sizeof(a);
        char where[160];

        if (!is_unix && sd_is_socket_inet(fd, AF_UNSPEC, SOCK_STREAM, 1, 0) <= 0)
            return why_set(
                why, -EINVAL,
                "the service manager passed something that is no listening stream socket: "
                "use ListenStream= in the socket unit");
        say_where(fd, where);
        if (!is_unix && getsockname(fd, (struct sockaddr *)&a, &len) < 0)
            return why_set(why, -errno, "%s: %s", where, strerror(errno));
        r = check_reach((struct sockaddr *)&a, where, conf, why);
        if (r < 0)
            return r;
        /* accept() must not block when a client gave up between the event and the call. */
        if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
            return why_set(why, -errno, "%s: %s", where, strerror(errno));
        add(l, fd, is_unix, where);
    }
    return n;
}

/* --- our own ---------------------------------------------------------------------------------- */

/* "127.0.0.1:80", "[::1]:80" */
static int split(const char *text, char host[64], char port[16])
{
    const char *colon = strrchr(text, ':'), *begin = text;
    size_t n;

    if (!colon || strlen(colon + 1) > 15 || !colon[1])
        return -EINVAL;
    n = (size_t)(colon - text);
    if (*begin == '[') {
        if (n < 2 || begin[n - 1] != ']')
            return -EINVAL;
        begin++;
        n -= 2;
        /* An address of IPv6 without brackets: which colon the port stands behind can't be told. */
    } else if (memchr(begin, ':', n)) {
        return -EINVAL;
    }
    if (n == 0 || n > 63)
        return -EINVAL;
    memcpy(host, begin, n);
    host[n] = '\0';
    (void)snprintf(port, 16, "%s", colon + 1);
    return 0;
}

static int bind_one(const struct addrinfo *a, const char *text, struct why *why)
{
    const int one = 1;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r;

    if (fd < 0)
        return why_set(why, -errno, "%s: %s", text, strerror(errno));
    /* Connections of the last run that the kernel still remembers are no reason to wait; another
     * listener is. */
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, SOCKET_BACKLOG) == 0)
        return fd;
    r = -errno;
    (void)close(fd);
    return why_set(why, r,
                   r == -EADDRINUSE ? "%s: another program listens there: end it, or choose "
                                      "another port by --listen"
                                    : "%s: cannot listen there",
                   text);
}

static int open_tcp(struct listen *l, const struct conf *conf, const char *text, struct why *why)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
                                    .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
    char host[64], port[16], where[160];
    struct addrinfo *list;
    int r = split(text, host, port);

    if (r < 0)
        return why_set(why, r,
                       "option listen: found '%s', expected an address and a port, as in "
                       "127.0.0.1:4478 or [::1]:4478",
                       text);
    if (l->n == LISTEN_MAX)
        return why_set(why, -EINVAL, "option listen: at most %u addresses are served", LISTEN_MAX);
    r = getaddrinfo(host, port, &hints, &list);
    if (r != 0)
        return why_set(why, -EINVAL, "option listen: '%s': %s", text, gai_strerror(r));
    /* Of what a name is resolved to, the first address is judged and the same one is listened on.
     */
    r = check_reach(list->ai_addr, text, conf, why);
    if (r == 0)
        r = bind_one(list, text, why);
    freeaddrinfo(list);
    if (r < 0)
        return r;
    say_where(r, where);
    add(l, r, false, where);
    return 0;
}

static int open_unix(struct listen *l, const struct conf *conf, struct why *why)
{
    const char *path = conf->unix_path;
    pid_t pid;
    int fd, r = socket_file_clear(path, SOCK_STREAM, "unix", &pid, why);

    if (r == -EADDRINUSE)
        return why_set(why, r, "somebody answers at %s; choose another path with --unix", path);
    if (r < 0)
        return r;
    fd = socket_file_bind(path, SOCK_STREAM, why);
    if (fd < 0)
        return fd;
    /* To be removed in the end, from here on, whatever fails below. */
    (void)snprintf(l->made, sizeof(l->made), "%.*s", CONF_UNIX_MAX, path);
    add(l, fd, true, path);
    if (chmod(path, conf->unix_mode) < 0 || listen(fd, SOCKET_BACKLOG) < 0)
        return why_set(why, -errno, "option unix: %s: %s", path, strerror(errno));
    return 0;
}

int listen_open(struct listen *l, const struct conf *conf, struct why *why)
{
    const char *at = conf->listen;
    char one[128];
    int r;

    *l = (struct listen){ 0 };
    r = take_passed(l, conf, why);
    if (r > 0)
        return 0;
    while (r == 0 && conf_next(&at, one, sizeof(one)))
        r = open_tcp(l, conf, one, why);
    if (r == 0 && conf->unix_path[0])
        r = open_unix(l, conf, why);
    if (r == 0 && l->n == 0)
        r = why_set(why, -EINVAL, "there is nowhere to listen: --listen and --unix are both empty");
    if (r < 0)
        listen_close(l);
    return r;
}

void listen_close(struct listen *l)
{
    while (l->n > 0)
        if (l->at[--l->n].fd >= 0)
            (void)close(l->at[l->n].fd);
    if (l->made[0])
        (void)unlink(l->made);
    l->made[0] = '\0';
}

/* Without a service manager both of these do nothing. */
void listen_ready(const struct listen *l)
{
    (void)sd_notifyf(0, "READY=1\nSTATUS=Serving HTTP on %s", l->where);
}

void listen_stopping(void)
{
    (void)sd_notify(0, "STOPPING=1\nSTATUS=Stopping");
}
