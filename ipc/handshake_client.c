/* ipc/handshake_client.c - the client's side of the handshake. */
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

#define N_FDS_ROOM  16 /* so that too many are seen, and closed */
#define TEXT_CAP    256
#define ANSWER_HEAD 16 /* what every version's begins with: magic, version and status */

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

/* A socket that does not wait has this error where another waits for its place in the daemon's
 * queue. */
static int say_crowded(char *text, const char *path)
{
    return say(text, -EAGAIN, "gistd at %s has too many connections to take: try again", path);
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

/* flags: SOCK_NONBLOCK, or 0. The time limits are set before connect: a daemon that takes no
 * connections holds up that call, too. */
static int open_socket(const char *path, int timeout_ms, int flags, int *ret_sock, char *text)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int sock, r;

    if (strlen(path) >= sizeof(addr.sun_path))
        return say(text, -ENAMETOOLONG, "the socket's path has %zu bytes, the system takes %zu",
                   strlen(path), sizeof(addr.sun_path) - 1);
    memcpy(addr.sun_path, path, strlen(path));

    sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0);
    if (sock < 0) {
        r = -errno;
        return say(text, r, "can't make a socket: %s", strerror(-r));
    }
    r = set_timeouts(sock, timeout_ms);
    if (r < 0)
        r = say(text, r, "can't set the socket's time limits: %s", strerror(-r));
    else if (connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        r = errno == EAGAIN && flags & SOCK_NONBLOCK ? say_crowded(text, path)
                                                     : say_connect(text, path, timeout_ms, errno);
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

/* Of an answer that was no yes: whoever sends us descriptors does not leave them here. */
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
    /* From what all versions share to what this one adds: a later daemon is named by its version,
     * whatever its answer looks like. */
    if (len < ANSWER_HEAD || !handshake_magic_valid(a->magic))
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
    if (n_fds != HANDSHAKE_FDS)
        return say(text, -EPROTO, "gistd at %s sent %d descriptors, not %d", path, n_fds,
                   HANDSHAKE_FDS);
    return 0;
}

static int say_loading(char *text, const char *path, int timeout_ms, unsigned percent)
{
    return say(text, -ETIMEDOUT,
               "gistd at %s is still loading its model: %u %% after %d ms; try again later", path,
               percent, timeout_ms);
}

/* EAGAIN is the socket's time limit. */
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
    int sent; /* of the hello: 0, or -errno */
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

/* With descriptors it is none, so that there are never two sets of them. */
static bool is_loading(const struct handshake_answer *a, ssize_t len, int n_fds)
{
    return len == (ssize_t)sizeof(*a) && handshake_magic_valid(a->magic) &&
           a->version == HANDSHAKE_VERSION && a->status == HANDSHAKE_LOADING && n_fds == 0;
}

/* Not 0: the caller does not go on waiting. */
static int tell(struct shaking *s, uint32_t percent)
{
    if (!s->wait->on_loading)
        return 0;
    /* The number is the daemon's: bounded, since somebody draws a bar of it. */
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
        /* Of the packet before: the next one is read over it. */
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

/* The descriptors are chan_attach's from here on, also when it fails. */
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

/* What the last word means; n: its length, or -errno. -ERESTART: it is of before there were
 * features, and knows our version all the same. */
static int judge(const struct shaking *s, const struct handshake_answer *a, ssize_t n,
                 const int *fds, int n_fds, struct chan **ret)
{
    int r;

    if (n < 0)
        return say_io(s->text, s->path, s->wait->timeout_ms, s->sent < 0 ? s->sent : (int)n);
    r = check_answer(a, (size_t)n, n_fds, s->path, s->text);
    if (r == 0)
        return attach(s, a, fds, ret);
    close_all(fds, n_fds);
    return r == -EPROTONOSUPPORT && s->features && a->version == HANDSHAKE_VERSION ? -ERESTART : r;
}

/* A refusal may have been sent before we said a word, so that an error here is not the last word:
 * what the daemon said is looked at first, but nobody waits for an answer to nothing. */
static void say_hello(struct shaking *s)
{
    struct handshake_hello hello = { .magic = HANDSHAKE_MAGIC,
                                     .version = HANDSHAKE_VERSION,
                                     .features = s->features };

    if (s->want) {
        hello.slots = s->want->slots;
        hello.arena_c2s = s->want->arena_c2s;
        hello.arena_s2c = s->want->arena_s2c;
    }
    s->sent = send(s->sock, &hello, sizeof(hello), MSG_NOSIGNAL) < 0 ? -errno : 0;
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

/* Twice in a row is the same as once. */
static void hang_up(struct shaking *s)
{
    if (s->sock >= 0)
        close(s->sock);
    s->sock = -1;
}

/* Connects, looks who serves there, and only then says a word. */
static int begin(struct shaking *s, int flags)
{
    int r = open_socket(s->path, ms_left(s), flags, &s->sock, s->text);

    if (r == 0 && !s->wait->any_server)
        r = check_server(s);
    if (r == 0)
        say_hello(s);
    else
        hang_up(s);
    return r;
}

/* --- waiting ---------------------------------------------------------------------------------- */

/* The socket is s->sock where it went well, and closed otherwise. */
static int connect_once(struct shaking *s, struct chan **ret_chan)
{
    struct handshake_answer a = { 0 };
    int fds[N_FDS_ROOM], n_fds = 0;
    int r = begin(s, 0);
    ssize_t n = 0;

    if (r < 0)
        return r;
    r = wait_answer(s, s->sent < 0 ? MSG_DONTWAIT : 0, &a, fds, &n_fds, &n);
    if (r == 0)
        r = judge(s, &a, n, fds, n_fds, ret_chan);
    if (r < 0)
        hang_up(s);
    return r;
}

int handshake_connect(const char *path, const struct chan_geometry *want,
                      const struct handshake_wait *wait, int *ret_sock, struct chan **ret_chan,
                      char text[TEXT_CAP])
{
    struct shaking s = { .path = path,
                         .want = want,
                         .wait = wait,
                         .features = HANDSHAKE_WANTS_PROGRESS,
                         .sock = -1,
                         .text = text };
    int r;

    text[0] = '\0';
    set_deadline(&s);
    r = connect_once(&s, ret_chan);
    if (r == -ERESTART) {
        /* A daemon from before features: the upper half of the version that it saw was not 0. */
        s.features = 0;
        r = connect_once(&s, ret_chan);
    }
    if (r < 0)
        return r;
    text[0] = '\0';
    /* The socket lives as long as the connection, and is only watched for its end. */
    (void)set_timeouts(s.sock, -1);
    *ret_sock = s.sock;
    return 0;
}

/* --- not waiting ------------------------------------------------------------------------------ */

/* Copies of what the caller passed, which need not outlive the call; s points to them. */
struct handshake {
    struct shaking s;
    struct chan_geometry want;
    struct handshake_wait wait;
    char path[];
};

int handshake_start(const char *path, const struct chan_geometry *want,
                    const struct handshake_wait *wait, struct handshake **ret, char text[TEXT_CAP])
{
    size_t len = strlen(path) + 1;
    struct handshake *h = malloc(sizeof(*h) + len);
    int r;

    text[0] = '\0';
    if (!h)
        return say(text, -ENOMEM, "this program is out of memory");
    h->wait = *wait;
    /* Nobody sits in a call whose time could be kept. */
    h->wait.timeout_ms = -1;
    if (want)
        h->want = *want;
    memcpy(h->path, path, len);
    h->s = (struct shaking){ .path = h->path,
                             .want = want ? &h->want : NULL,
                             .wait = &h->wait,
                             .features = HANDSHAKE_WANTS_PROGRESS,
                             .sock = -1,
                             .text = text };
    r = begin(&h->s, SOCK_NONBLOCK);
    if (r < 0)
        free(h);
    else
        *ret = h;
    return r;
}

int handshake_fd(const struct handshake *h)
{
    return h->s.sock;
}

void handshake_end(struct handshake *h)
{
    if (!h)
        return;
    hang_up(&h->s);
    free(h);
}

/* As wait_answer, of what is there. */
static int next_answer(struct shaking *s, struct handshake_answer *a, int fds[N_FDS_ROOM],
                       int *ret_n, ssize_t *ret_len)
{
    int r = 0;

    do {
        *ret_len = read_answer(s->sock, MSG_DONTWAIT, a, fds, ret_n);
        /* A hello that could not be sent is never answered: what is not there by now does not come.
         */
        if (*ret_len == -EAGAIN && s->sent == 0)
            return -EAGAIN;
        if (*ret_len == 0)
            *ret_len = -EPIPE;
        if (*ret_len < 0 || !is_loading(a, *ret_len, *ret_n))
            return 0;
        r = tell(s, a->percent);
    } while (r == 0);
    return r;
}

int handshake_go_on(struct handshake *h, int *ret_sock, struct chan **ret_chan, char text[TEXT_CAP])
{
    struct handshake_answer a = { 0 };
    int fds[N_FDS_ROOM], n_fds = 0, r;
    struct shaking *s = &h->s;
    ssize_t n = 0;

    text[0] = '\0';
    s->text = text;
    r = next_answer(s, &a, fds, &n_fds, &n);
    if (r < 0)
        return r;
    r = judge(s, &a, n, fds, n_fds, ret_chan);
    if (r == -ERESTART) {
        hang_up(s);
        s->features = 0;
        r = begin(s, SOCK_NONBLOCK);
        /* A crowded daemon would be a "not yet" without anything to watch. */
        return r == 0 ? -EAGAIN : r == -EAGAIN ? -EBUSY : r;
    }
    if (r < 0)
        return r;
    text[0] = '\0';
    *ret_sock = s->sock;
    s->sock = -1;
    return 0;
}
