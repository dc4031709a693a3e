/* ipc/handshake.c - the daemon's side, and where the socket is. */
#include "ipc/handshake.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

_Static_assert(sizeof(struct handshake_hello) == 24, "layout");
_Static_assert(sizeof(struct handshake_answer) == 256, "layout");
_Static_assert(offsetof(struct handshake_hello, features) == 10, "layout");
_Static_assert(offsetof(struct handshake_answer, status) == 12, "layout");
_Static_assert(offsetof(struct handshake_answer, percent) == 28, "layout");
_Static_assert(sizeof(HANDSHAKE_MAGIC) == 8 + 1, "layout");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the packets are little-endian");

#define HELLO_HEAD 12 /* what every version's begins with: magic and version */

/* --- the path --------------------------------------------------------------------------------- */

/* What was said by hand is taken as it is, whether there is a socket or not: to go on elsewhere
 * would talk to a daemon that nobody meant. An empty variable says nothing. A path that the kernel
 * could not take is refused here, and not cut. */
int handshake_path(const char *override, bool client, char *ret, size_t cap)
{
    const char *env = getenv("GISTD_SOCKET"), *xdg = getenv("XDG_RUNTIME_DIR");
    size_t max = sizeof(((struct sockaddr_un *)0)->sun_path);
    int n;

    if (cap > max)
        cap = max;
    if (override || (env && *env)) {
        n = snprintf(ret, cap, "%s", override ? override : env);
        return n >= 0 && (size_t)n < cap ? 0 : -ENAMETOOLONG;
    }
    if (xdg && *xdg) {
        n = snprintf(ret, cap, "%s/gistd/gistd.sock", xdg);
        if (n < 0 || (size_t)n >= cap)
            return -ENAMETOOLONG;
        /* A user's own daemon comes before the machine's. */
        if (!client || access(ret, F_OK) == 0)
            return 0;
    }
    n = snprintf(ret, cap, "/run/gistd/gistd.sock");
    return n >= 0 && (size_t)n < cap ? 0 : -ENAMETOOLONG;
}

/* --- the daemon ------------------------------------------------------------------------------- */

static uint32_t clamp(uint32_t x, uint32_t lo, uint32_t hi)
{
    return x < lo ? lo : x > hi ? hi : x;
}

/* The next power of two. Both bounds are powers of two, so that it stays between them. */
static uint32_t bound_slots(uint32_t wanted, uint32_t by_default)
{
    uint32_t x = clamp(wanted ? wanted : by_default, CHAN_SLOTS_MIN, RING_SLOTS_MAX), n = 1;

    while (n < x)
        n *= 2;
    return n;
}

/* The upper bound is a multiple of 64 itself: rounding up does not pass it. */
static uint32_t bound_arena(uint32_t wanted, uint32_t by_default)
{
    uint32_t x = clamp(wanted ? wanted : by_default, CHAN_ARENA_MIN, CHAN_ARENA_MAX);

    return (x + 63) & ~63u;
}

int handshake_read_hello(int sock, const struct chan_geometry *defaults, struct handshake_wish *ret)
{
    struct handshake_hello h = { 0 };
    char text[128];
    /* MSG_TRUNC: the packet's own length. Descriptors that came along are dropped by the kernel. */
    ssize_t n = recv(sock, &h, sizeof(h), MSG_DONTWAIT | MSG_TRUNC);

    if (n < 0)
        return errno == EWOULDBLOCK ? -EAGAIN : errno == ECONNRESET ? -EPIPE : -errno;
    if (n == 0)
        return -EPIPE;
    if (n < HELLO_HEAD || !handshake_magic_valid(h.magic)) {
        (void)handshake_refuse(sock, HANDSHAKE_BAD_REQUEST, "this is not gistd's handshake");
        return -EPROTO;
    }
    /* Before the length: another version's hello may have another one, and its sender is to hear
     * which version is spoken here. */
    if (h.version != HANDSHAKE_VERSION) {
        (void)snprintf(text, sizeof(text), "the daemon speaks version %u only, not %u",
                       HANDSHAKE_VERSION, h.version);
        (void)handshake_refuse(sock, HANDSHAKE_BAD_VERSION, text);
        return -EPROTONOSUPPORT;
    }
    if (n != (ssize_t)sizeof(h)) {
        (void)handshake_refuse(sock, HANDSHAKE_BAD_REQUEST, "the hello has a wrong length");
        return -EPROTO;
    }
    ret->g.slots = bound_slots(h.slots, defaults->slots);
    ret->g.arena_c2s = bound_arena(h.arena_c2s, defaults->arena_c2s);
    ret->g.arena_s2c = bound_arena(h.arena_s2c, defaults->arena_s2c);
    ret->progress = h.features & HANDSHAKE_WANTS_PROGRESS;
    return 0;
}

/* The answer and its descriptors are one packet: a client has all or nothing. The descriptors stay
 * the channel's, the client gets duplicates. Never waits: a client that has read none of what it
 * was told while the model was loaded may have no room, and is let go. */
int handshake_accept(int sock, const struct chan_geometry *g, const struct chan *c)
{
    struct handshake_answer a = { .magic = HANDSHAKE_MAGIC,
                                  .version = HANDSHAKE_VERSION,
                                  .status = HANDSHAKE_OK,
                                  .slots = g->slots,
                                  .arena_c2s = g->arena_c2s,
                                  .arena_s2c = g->arena_s2c };
    struct chan_fds own = chan_fds(c);
    int fds[HANDSHAKE_FDS] = { own.memfd, own.to_server, own.to_client };
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(sizeof(fds))];
    } ctl = { 0 };
    struct iovec io = { &a, sizeof(a) };
    struct msghdr mh = {
        .msg_iov = &io, .msg_iovlen = 1, .msg_control = ctl.buf, .msg_controllen = sizeof(ctl.buf)
    };
    struct cmsghdr *h = CMSG_FIRSTHDR(&mh);

    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(sizeof(fds));
    memcpy(CMSG_DATA(h), fds, sizeof(fds));
    return sendmsg(sock, &mh, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

int handshake_refuse(int sock, enum handshake_status status, const char *text)
{
    struct handshake_answer a = { .magic = HANDSHAKE_MAGIC,
                                  .version = HANDSHAKE_VERSION,
                                  .status = status };
    uint8_t rest[sizeof(struct handshake_hello)];

    /* A socket that is closed with something unread in it resets the connection, and the peer would
     * hear of that instead of the sentence. */
    (void)!recv(sock, rest, sizeof(rest), MSG_DONTWAIT);
    (void)snprintf(a.text, sizeof(a.text), "%s", text);
    return send(sock, &a, sizeof(a), MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

void handshake_tell_loading(int sock, unsigned percent)
{
    struct handshake_answer a = { .magic = HANDSHAKE_MAGIC,
                                  .version = HANDSHAKE_VERSION,
                                  .status = HANDSHAKE_LOADING,
                                  .percent = percent };

    (void)snprintf(a.text, sizeof(a.text), "the model is being loaded");
    (void)!send(sock, &a, sizeof(a), MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* As the kernel noted them when the connection was made: a process that changes its user
 * afterwards, or passes the socket on, remains who it was. */
int handshake_peer(int sock, pid_t *ret_pid, uid_t *ret_uid)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);

    if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
        return -errno;
    *ret_pid = cred.pid;
    *ret_uid = cred.uid;
    return 0;
}
