#include "ipc/handshake.h"

#include "base/clock.h"

#include <errno.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define N_FDS      3
#define N_FDS_ROOM 16 /* so that too many are seen, and closed */
#define TEXT_CAP   256

_Static_assert(sizeof(struct handshake_hello) == 24, "layout");
_Static_assert(sizeof(struct handshake_answer) == 256, "layout");
_Static_assert(offsetof(struct handshake_hello, features) == 10, "layout");
_Static_assert(offsetof(struct handshake_answer, status) == 12, "layout");
_Static_assert(offsetof(struct handshake_answer, percent) == 28, "layout");
_Static_assert(sizeof(HANDSHAKE_MAGIC) == 8 + 1, "layout");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the packets are little-endian");

/* What every version's packets begin with: magic, version and, of an answer, status. */
#define HELLO_HEAD  12
#define ANSWER_HEAD 16

static bool magic_valid(const char magic[8])
{
    return memcmp(magic, HANDSHAKE_MAGIC, 8) == 0;
}

/* --- the path --------------------------------------------------------------------------------- */

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

/* --- the client ------------------------------------------------------------------------------- */

__attribute__((format(printf, 3, 4))) static int say(char *text, int err, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, TEXT_CAP, fmt, ap);
    va_end(ap);
    return err;
}

static int say_connect(char *text, const char *path, int timeout_ms, int err)
{
    struct stat st;

    switch (err) {
    case ENOENT:
    case ENOTDIR:
        return say(text, -err, "no daemon at %s: start gistd, or set GISTD_SOCKET", path);
    case ECONNREFUSED:
        return say(text, -err, "nobody listens at %s: gistd is not running, start it", path);
    case EACCES:
    case EPERM:
        if (stat(path, &st) < 0)
            return say(text, -err, "no permission to reach %s", path);
        return say(text, -err,
                   "no permission to use %s: it belongs to uid %u and gid %u, mode %04o", path,
                   (unsigned)st.st_uid, (unsigned)st.st_gid, (unsigned)st.st_mode & 07777u);
    case EPROTOTYPE:
        return say(text, -EPROTO, "%s is another program's socket, not gistd's", path);
    case EAGAIN:
        return say(text, -ETIMEDOUT, "gistd at %s did not take the connection within %d ms", path,
                   timeout_ms);
    default:
        return say(text, -err, "can't connect to %s: %s", path, strerror(err));
    }
}

/* A blocking socket with time limits: the kernel keeps the time through all of the handshake. */
static int set_timeouts(int sock, int timeout_ms)
{
    struct timeval tv = { 0 };

    if (timeout_ms >= 0) {
        tv.tv_sec = timeout_ms / 1000;
        /* All zeros would mean "for ever". */
        tv.tv_usec = timeout_ms == 0 ? 1 : timeout_ms % 1000 * 1000;
    }
    if (setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) < 0 ||
        setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) < 0)
        return -errno;
    return 0;
}

static int open_socket(const char *path, int timeout_ms, int *ret_sock, char *text)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int sock, r;

    if (strlen(path) >= sizeof(addr.sun_path))
        return say(text, -ENAMETOOLONG, "the socket's path has %zu bytes, the system takes %zu",
                   strlen(path), sizeof(addr.sun_path) - 1);
    memcpy(addr.sun_path, path, strlen(path));

    sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (sock < 0) {
        r = -errno;
        return say(text, r, "can't make a socket: %s", strerror(-r));
    }
    r = set_timeouts(sock, timeout_ms);
    if (r < 0)
        r = say(text, r, "can't set the socket's time limits: %s", strerror(-r));
    else if (connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        r = say_connect(text, path, timeout_ms, errno);
    if (r < 0) {
        close(sock);
        return r;
    }
    *ret_sock = sock;
    return 0;
}

/* All descriptors of the packet, at most N_FDS_ROOM. Returns their number. */
static int take_fds(struct msghdr *mh, int fds[N_FDS_ROOM])
{
    int n = 0;

    for (struct cmsghdr *h = CMSG_FIRSTHDR(mh); h; h = CMSG_NXTHDR(mh, h)) {
        size_t len = h->cmsg_len - CMSG_LEN(0);

        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < len / sizeof(int) && n < N_FDS_ROOM; i++)
            memcpy(&fds[n++], CMSG_DATA(h) + i * sizeof(int), sizeof(int));
    }
    return n;
}

static void close_all(const int *fds, int n)
{
    for (int i = 0; i < n; i++)
        close(fds[i]);
}

/* Reads the next packet that the daemon sends. Returns its length or -errno. */
static ssize_t read_answer(int sock, int flags, struct handshake_answer *ret, int fds[N_FDS_ROOM],
                           int *ret_n)
{
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(N_FDS_ROOM * sizeof(int))];
    } ctl;
    struct iovec io = { ret, sizeof(*ret) };
    struct msghdr mh = {
        .msg_iov = &io, .msg_iovlen = 1, .msg_control = ctl.buf, .msg_controllen = sizeof(ctl.buf)
    };
    ssize_t n = recvmsg(sock, &mh, MSG_CMSG_CLOEXEC | flags);

    /* It refused before it saw our hello. The error is told once; behind it lies the answer. */
    if (n < 0 && errno == ECONNRESET)
        n = recvmsg(sock, &mh, MSG_CMSG_CLOEXEC | flags);
    if (n < 0)
        return -errno;
    *ret_n = take_fds(&mh, fds);
    ret->text[sizeof(ret->text) - 1] = '\0';
    return n;
}

/* Is it an answer, and a yes? The sentence if not. */
static int check_answer(const struct handshake_answer *a, size_t len, int n_fds, const char *path,
                        char *text)
{
    if (len < ANSWER_HEAD || !magic_valid(a->magic))
        return say(text, -EPROTO, "%s answers, but not as gistd does", path);
    if (a->version != HANDSHAKE_VERSION || a->status == HANDSHAKE_BAD_VERSION)
        return say(text, -EPROTONOSUPPORT,
                   "this program speaks version %u of gistd's protocol, the daemon at %s speaks "
                   "version %u: install the same release of both",
                   HANDSHAKE_VERSION, path, a->version);
    if (len != sizeof(*a))
        return say(text, -EPROTO, "gistd at %s sent an answer of %zu bytes, not %zu", path, len,
                   sizeof(*a));
    if (a->status != HANDSHAKE_OK)
        return say(text, -ECONNREFUSED, "gistd at %s refused: %s", path,
                   a->text[0] ? a->text : "it gave no reason");
    if (n_fds != N_FDS)
        return say(text, -EPROTO, "gistd at %s sent %d descriptors, not %d", path, n_fds, N_FDS);
    return 0;
}

static int say_loading(char *text, const char *path, int timeout_ms, unsigned percent)
{
    return say(text, -ETIMEDOUT,
               "gistd at %s is still loading its model: %u %% after %d ms; try again later", path,
               percent, timeout_ms);
}

static int say_io(char *text, const char *path, int timeout_ms, int err)
{
    if (err == -EAGAIN)
        return say(text, -ETIMEDOUT, "gistd at %s did not answer within %d ms", path, timeout_ms);
    if (err == -EPIPE || err == -ECONNRESET)
        return say(text, -EPIPE, "gistd at %s closed the connection without an answer", path);
    return say(text, err, "talking to gistd at %s: %s", path, strerror(-err));
}

/* A handshake of a client, as far as it is. */
struct shaking {
    const char *path;
    const struct chan_geometry *want;
    const struct handshake_wait *wait;
    uint64_t deadline_ns; /* 0: none */
    int sock;
    uint16_t features;
    char *text;
};

static void set_deadline(struct shaking *s)
{
    s->deadline_ns =
        s->wait->timeout_ms < 0 ? 0 : clock_ns() + (uint64_t)s->wait->timeout_ms * CLOCK_MS;
}

/* The kernel keeps the time of one call; what is left for the next one is up to us. */
static int ms_left(const struct shaking *s)
{
    uint64_t now = clock_ns();

    if (s->deadline_ns == 0)
        return -1;
    return s->deadline_ns <= now ? 0 : (int)((s->deadline_ns - now + CLOCK_MS - 1) / CLOCK_MS);
}

static bool is_loading(const struct handshake_answer *a, ssize_t len, int n_fds)
{
    return len == (ssize_t)sizeof(*a) && magic_valid(a->magic) && a->version == HANDSHAKE_VERSION &&
           a->status == HANDSHAKE_LOADING && n_fds == 0;
}

/* Not 0: the caller does not go on waiting. */
static int tell(struct shaking *s, uint32_t percent)
{
    if (!s->wait->on_loading)
        return 0;
    if (s->wait->on_loading(s->wait->arg, percent < 100 ? percent : 100) != 0)
        return say(s->text, -ECANCELED, "gistd at %s is still loading its model", s->path);
    set_deadline(s); /* it is alive, and who is told how far it is may want to see the end */
    return 0;
}

/* The answer that is the last word. */
static int wait_answer(struct shaking *s, int flags, struct handshake_answer *a,
                       int fds[N_FDS_ROOM], int *ret_n, ssize_t *ret_len)
{
    bool loading = false;
    int r;

    for (;;) {
        uint32_t percent = a->percent;

        r = set_timeouts(s->sock, ms_left(s));
        *ret_len = r < 0 ? r : read_answer(s->sock, flags, a, fds, ret_n);
        if (*ret_len == -EAGAIN && loading)
            return say_loading(s->text, s->path, s->wait->timeout_ms, percent);
        if (*ret_len == 0)
            *ret_len = -EPIPE;
        if (*ret_len < 0 || !is_loading(a, *ret_len, *ret_n))
            return 0;
        loading = true;
        r = tell(s, a->percent);
        if (r < 0)
            return r;
    }
}

static int attach(const struct shaking *s, const struct handshake_answer *a, const int *fds,
                  struct chan **ret)
{
    const struct chan_geometry g = { a->slots, a->arena_c2s, a->arena_s2c };
    int r = chan_attach(&g, (struct chan_fds){ fds[0], fds[1], fds[2] }, ret);

    if (r == -EPROTO)
        return say(s->text, r, "gistd at %s sent a channel that is not as promised or not sealed",
                   s->path);
    if (r < 0)
        return say(s->text, r, "can't map the channel of gistd at %s: %s", s->path, strerror(-r));
    return 0;
}

static int shake(struct shaking *s, struct chan **ret)
{
    struct handshake_hello hello = { .magic = HANDSHAKE_MAGIC,
                                     .version = HANDSHAKE_VERSION,
                                     .features = s->features };
    struct handshake_answer a = { 0 };
    int fds[N_FDS_ROOM], n_fds = 0, r, sent;
    ssize_t n;

    if (s->want) {
        hello.slots = s->want->slots;
        hello.arena_c2s = s->want->arena_c2s;
        hello.arena_s2c = s->want->arena_s2c;
    }
    /* A refusal may have been sent before we said a word, so that an error here is not the last
     * word: what the daemon said is looked at first, but nobody waits for an answer to nothing. */
    sent = send(s->sock, &hello, sizeof(hello), MSG_NOSIGNAL) < 0 ? -errno : 0;
    r = wait_answer(s, sent < 0 ? MSG_DONTWAIT : 0, &a, fds, &n_fds, &n);
    if (r < 0)
        return r;
    if (n < 0)
        return say_io(s->text, s->path, s->wait->timeout_ms, sent < 0 ? sent : (int)n);
    r = check_answer(&a, (size_t)n, n_fds, s->path, s->text);
    if (r < 0) {
        close_all(fds, n_fds);
        /* For our features it does not know us, and knows our version all the same. */
        return r == -EPROTONOSUPPORT && s->features && a.version == HANDSHAKE_VERSION ? -EAGAIN : r;
    }
    return attach(s, &a, fds, ret);
}

static bool is_user(uid_t uid, const char *name)
{
    char buf[1024];
    struct passwd p, *found = NULL;

    return getpwnam_r(name, &p, buf, sizeof(buf), &found) == 0 && found && found->pw_uid == uid;
}

/* Whoever may make a socket at the path could read all that is said to it: in /tmp, or in a folder
 * that others may write to. Of a socket that a service manager listens on it is the manager. */
static int check_server(const struct shaking *s)
{
    pid_t pid = 0;
    uid_t uid = 0;
    int r = handshake_peer(s->sock, &pid, &uid);

    if (r < 0)
        return say(s->text, r, "cannot tell who serves %s: %s", s->path, strerror(-r));
    if (uid == 0 || uid == geteuid() || is_user(uid, "gistd"))
        return 0;
    return say(s->text, -EPERM,
               "%s is served by user %u (pid %d), who is neither root, gistd nor you: nothing was "
               "said to it; if that user is trusted: gistctl --any-server, libgist GIST_ANY_SERVER",
               s->path, (unsigned)uid, (int)pid);
}

static int connect_once(struct shaking *s, struct chan **ret_chan)
{
    int r = open_socket(s->path, ms_left(s), &s->sock, s->text);

    if (r < 0)
        return r;
    r = s->wait->any_server ? 0 : check_server(s);
    if (r == 0)
        r = shake(s, ret_chan);
    if (r < 0)
        close(s->sock);
    return r;
}

int handshake_connect(const char *path, const struct chan_geometry *want,
                      const struct handshake_wait *wait, int *ret_sock, struct chan **ret_chan,
                      char text[TEXT_CAP])
{
    struct shaking s = {
        .path = path, .want = want, .wait = wait, .features = HANDSHAKE_WANTS_PROGRESS, .text = text
    };
    int r;

    text[0] = '\0';
    set_deadline(&s);
    r = connect_once(&s, ret_chan);
    if (r == -EAGAIN) { /* it is of before there were features */
        s.features = 0;
        r = connect_once(&s, ret_chan);
    }
    if (r < 0)
        return r;
    text[0] = '\0';
    (void)set_timeouts(s.sock, -1);
    *ret_sock = s.sock;
    return 0;
}

/* --- the daemon ------------------------------------------------------------------------------- */

static uint32_t clamp(uint32_t x, uint32_t lo, uint32_t hi)
{
    return x < lo ? lo : x > hi ? hi : x;
}

static uint32_t bound_slots(uint32_t wanted, uint32_t by_default)
{
    uint32_t x = clamp(wanted ? wanted : by_default, CHAN_SLOTS_MIN, RING_SLOTS_MAX), n = 1;

    while (n < x)
        n *= 2;
    return n;
}

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
    if (n < HELLO_HEAD || !magic_valid(h.magic)) {
        (void)handshake_refuse(sock, HANDSHAKE_BAD_REQUEST, "this is not gistd's handshake");
        return -EPROTO;
    }
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

int handshake_accept(int sock, const struct chan_geometry *g, const struct chan *c)
{
    struct handshake_answer a = { .magic = HANDSHAKE_MAGIC,
                                  .version = HANDSHAKE_VERSION,
                                  .status = HANDSHAKE_OK,
                                  .slots = g->slots,
                                  .arena_c2s = g->arena_c2s,
                                  .arena_s2c = g->arena_s2c };
    struct chan_fds own = chan_fds(c);
    int fds[N_FDS] = { own.memfd, own.to_server, own.to_client };
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
