/* Would catch: a handshake that accepts what it should refuse, leaks descriptors, hangs, or leaves
 * the reader without a sentence that says what to do. */
#include "ipc/handshake.h"
#include "tests/support/hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

static const struct chan_geometry defaults = { 64, CHAN_ARENA_MIN, CHAN_ARENA_MIN };
static char dir[] = "/tmp/gistd-handshake-XXXXXX", path[128];

static int make_dir(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    (void)snprintf(path, sizeof(path), "%s/gistd.sock", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(dir);
}

static int count_fds(void)
{
    int n = 0;

    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static int listen_at(int type)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

    (void)unlink(path);
    memcpy(addr.sun_path, path, strlen(path));
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(fd, 4), 0);
    return fd;
}

/* --- both ways to connect -------------------------------------------------------------------- */

static bool by_steps; /* handshake_start, and then whenever there is something to read */

static int connect_by(const char *where, const struct chan_geometry *want,
                      const struct handshake_wait *wait, int *ret_sock, struct chan **ret_chan,
                      char text[256])
{
    struct handshake *h;
    int r;

    if (!by_steps)
        return handshake_connect(where, want, wait, ret_sock, ret_chan, text);
    r = handshake_start(where, want, wait, &h, text);
    if (r < 0)
        return r;
    do {
        assert_int_equal(poll(&(struct pollfd){ handshake_fd(h), POLLIN, 0 }, 1, 60000), 1);
        r = handshake_go_on(h, ret_sock, ret_chan, text);
    } while (r == -EAGAIN);
    handshake_end(h);
    return r;
}

/* --- a daemon of one connection, in a thread -------------------------------------------------- */

struct daemon {
    int fds_before, listener;
    pthread_t thread;
    void (*serve)(struct daemon *d, int sock);
    const void *arg;
    int result;
    struct handshake_wish got;
};

static void *run_daemon(void *arg)
{
    struct daemon *d = arg;
    int sock = accept4(d->listener, NULL, NULL, SOCK_CLOEXEC);

    if (sock >= 0) {
        d->serve(d, sock);
        close(sock);
    }
    return NULL;
}

static void start(struct daemon *d, void (*serve)(struct daemon *, int), const void *arg)
{
    *d = (struct daemon){ .fds_before = count_fds(), .serve = serve, .arg = arg };
    d->listener = listen_at(SOCK_SEQPACKET);
    assert_int_equal(pthread_create(&d->thread, NULL, run_daemon, d), 0);
}

/* Neither side has left a descriptor open, whatever happened. */
static void stop(struct daemon *d)
{
    pthread_join(d->thread, NULL);
    close(d->listener);
    assert_int_equal(count_fds(), d->fds_before);
}

static int read_hello(struct daemon *d, int sock)
{
    int r;

    do {
        struct pollfd p = { .fd = sock, .events = POLLIN };

        poll(&p, 1, 1000);
        r = handshake_read_hello(sock, &defaults, &d->got);
    } while (r == -EAGAIN);
    return r;
}

/* Until the client hangs up. */
static void hold(int sock)
{
    char c;

    while (recv(sock, &c, 1, 0) > 0)
        ;
}

static void serve_well(struct daemon *d, int sock)
{
    struct chan *c = NULL;

    d->result = read_hello(d, sock);
    if (d->result == 0)
        d->result = chan_create(&d->got.g, &c);
    if (d->result == 0)
        d->result = handshake_accept(sock, &d->got.g, c);
    hold(sock);
    chan_close(c);
}

static void test_shake_hands(void **state)
{
    const struct chan_geometry want = { 100, CHAN_ARENA_MIN + 1, 0 };
    struct daemon d;
    struct chan *c;
    char text[256];
    int sock;

    (void)state;
    start(&d, serve_well, NULL);
    assert_int_equal(
        connect_by(path, &want, &(struct handshake_wait){ .timeout_ms = 5000 }, &sock, &c, text),
        0);
    assert_string_equal(text, "");
    assert_int_equal(d.got.g.slots, 128);
    assert_int_equal(d.got.g.arena_c2s, CHAN_ARENA_MIN + 64);
    assert_int_equal(d.got.g.arena_s2c, CHAN_ARENA_MIN);
    assert_true(fcntl(sock, F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(chan_fds(c).memfd, F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(chan_fds(c).to_server, F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(chan_fds(c).to_client, F_GETFD) & FD_CLOEXEC);
    close(sock);
    chan_close(c);
    stop(&d);
    assert_int_equal(d.result, 0);
}

static void test_huge_wishes_are_bounded(void **state)
{
    const struct chan_geometry want = { UINT32_MAX, UINT32_MAX, 1 };
    struct daemon d;
    struct chan *c;
    char text[256];
    int sock;

    (void)state;
    start(&d, serve_well, NULL);
    assert_int_equal(
        connect_by(path, &want, &(struct handshake_wait){ .timeout_ms = 5000 }, &sock, &c, text),
        0);
    assert_int_equal(d.got.g.slots, RING_SLOTS_MAX);
    assert_int_equal(d.got.g.arena_c2s, CHAN_ARENA_MAX);
    assert_int_equal(d.got.g.arena_s2c, CHAN_ARENA_MIN);
    close(sock);
    chan_close(c);
    stop(&d);
}

/* --- refusals and their sentences ------------------------------------------------------------- */

static void expect_failure(const char *where, int err, const char *sentence)
{
    struct chan *c = NULL;
    char text[256];
    int sock = -1, r;

    r = connect_by(where, NULL, &(struct handshake_wait){ .timeout_ms = 300 }, &sock, &c, text);
    if (r != err || !strstr(text, sentence))
        print_error("%d: %s\n", r, text);
    assert_int_equal(r, err);
    assert_non_null(strstr(text, sentence));
    assert_int_equal(sock, -1);
    assert_null(c);
}

static void test_no_socket(void **state)
{
    char expected[256];
    int fd;

    (void)state;
    (void)unlink(path);
    (void)snprintf(expected, sizeof(expected), "no daemon at %s: start gistd, or set GISTD_SOCKET",
                   path);
    expect_failure(path, -ENOENT, expected);
    expect_failure("/dev/null/x", -ENOTDIR, "no daemon at /dev/null/x");

    close(listen_at(SOCK_SEQPACKET));
    expect_failure(path, -ECONNREFUSED, "gistd is not running");

    fd = listen_at(SOCK_STREAM);
    expect_failure(path, -EPROTO, "another program's socket");
    close(fd);
}

static void test_no_permission(void **state)
{
    int fd = listen_at(SOCK_SEQPACKET);

    (void)state;
    assert_int_equal(chmod(path, 0), 0);
    if (geteuid() == 0) { /* nobody, for a moment */
        assert_int_equal(chmod(dir, 0755), 0);
        assert_int_equal(seteuid(65534), 0);
    }
    expect_failure(path, -EACCES, "no permission to use");
    expect_failure(path, -EACCES, "mode 0000");
    (void)!seteuid(getuid());
    close(fd);
}

static void test_path_too_long(void **state)
{
    char where[300];

    (void)state;
    memset(where, 'x', sizeof(where) - 1);
    where[sizeof(where) - 1] = '\0';
    expect_failure(where, -ENAMETOOLONG, "299 bytes");
}

static void serve_silence(struct daemon *d, int sock)
{
    (void)d;
    hold(sock);
}

static void serve_nothing(struct daemon *d, int sock)
{
    (void)d;
    (void)sock;
}

static void test_no_answer(void **state)
{
    struct daemon d;

    (void)state;
    if (!by_steps) {
        start(&d, serve_silence, NULL);
        expect_failure(path, -ETIMEDOUT, "did not answer within 300 ms");
        stop(&d);
    }
    start(&d, serve_nothing, NULL);
    expect_failure(path, -EPIPE, "closed the connection");
    stop(&d);
}

static void test_nobody_accepts(void **state)
{
    int fd = listen_at(SOCK_SEQPACKET), busy[16], n = 0;

    (void)state;
    /* Fill the queue of connections, so that the next one has to wait. */
    for (; n < 16; n++) {
        struct sockaddr_un addr = { .sun_family = AF_UNIX };

        memcpy(addr.sun_path, path, strlen(path));
        busy[n] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (connect(busy[n], (struct sockaddr *)&addr, sizeof(addr)) < 0)
            break;
    }
    if (by_steps)
        expect_failure(path, -EAGAIN, "has too many connections to take");
    else
        expect_failure(path, -ETIMEDOUT, "did not take the connection within 300 ms");
    for (int i = 0; i <= n && i < 16; i++)
        close(busy[i]);
    close(fd);
}

static void serve_full(struct daemon *d, int sock)
{
    d->result =
        handshake_refuse(sock, HANDSHAKE_FULL, "64 clients are connected, the most allowed");
    hold(sock);
}

static void test_refused(void **state)
{
    struct daemon d;

    (void)state;
    start(&d, serve_full, NULL);
    expect_failure(path, -ECONNREFUSED, "refused: 64 clients are connected, the most allowed");
    stop(&d);
}

/* --- a model that is not there yet ------------------------------------------------------------ */

static void serve_loading(struct daemon *d, int sock)
{
    d->result = read_hello(d, sock);
    for (const unsigned *percent = d->arg; *percent; percent++)
        handshake_tell_loading(sock, *percent);
}

static void serve_loading_well(struct daemon *d, int sock)
{
    struct chan *c = NULL;

    serve_loading(d, sock);
    (void)chan_create(&d->got.g, &c);
    d->result = handshake_accept(sock, &d->got.g, c);
    hold(sock);
    chan_close(c);
}

static void serve_loading_for_ever(struct daemon *d, int sock)
{
    serve_loading(d, sock);
    hold(sock);
}

struct heard {
    unsigned n, percent[8], enough;
};

static int hear(void *arg, unsigned percent)
{
    struct heard *h = arg;

    h->percent[h->n++ % 8] = percent;
    usleep(60000);
    return h->n == h->enough;
}

/* All that is said is heard, and the time that it takes is not counted against the limit: the three
 * together last longer than that. */
static void test_loading_is_told(void **state)
{
    static const unsigned percents[] = { 10, 55, 4000, 0 };
    struct heard heard = { 0 };
    const struct handshake_wait wait = { .timeout_ms = 100, .on_loading = hear, .arg = &heard };
    struct daemon d;
    struct chan *c;
    char text[256];
    int sock;

    (void)state;
    start(&d, serve_loading_well, percents);
    assert_int_equal(connect_by(path, NULL, &wait, &sock, &c, text), 0);
    assert_string_equal(text, "");
    assert_true(d.got.progress);
    assert_int_equal(heard.n, 3);
    assert_int_equal(heard.percent[0], 10);
    assert_int_equal(heard.percent[1], 55);
    assert_int_equal(heard.percent[2], 100); /* whatever a daemon says */
    chan_close(c);
    close(sock);
    stop(&d);
}

static void test_loading_takes_too_long(void **state)
{
    static const unsigned percents[] = { 10, 43, 0 };
    struct heard heard = { .enough = 2 };
    const struct handshake_wait wait = { .timeout_ms = 5000, .on_loading = hear, .arg = &heard };
    struct daemon d;
    struct chan *c;
    char text[256];
    int sock;

    (void)state;
    if (!by_steps) {
        start(&d, serve_loading_for_ever, percents);
        expect_failure(path, -ETIMEDOUT, "is still loading its model: 43 % after 300 ms");
        stop(&d);
    }
    start(&d, serve_loading_for_ever, percents);
    assert_int_equal(connect_by(path, NULL, &wait, &sock, &c, text), -ECANCELED);
    assert_non_null(strstr(text, "still loading"));
    assert_int_equal(heard.n, 2);
    stop(&d);
}

/* As daemons did before there were features: the version was a number of 32 bits. */
static int answer_as_of_old(int sock)
{
    struct handshake_answer a = { .magic = HANDSHAKE_MAGIC,
                                  .version = 1,
                                  .status = HANDSHAKE_BAD_VERSION };
    uint32_t version;
    char hello[24];

    if (recv(sock, hello, sizeof(hello), 0) != sizeof(hello))
        return -EPROTO;
    memcpy(&version, hello + 8, sizeof(version));
    if (version == 1)
        return 0;
    (void)!send(sock, &a, sizeof(a), MSG_NOSIGNAL);
    return -EPROTONOSUPPORT;
}

static void serve_as_of_old(struct daemon *d, int sock)
{
    struct chan *c = NULL;
    int again;

    if (answer_as_of_old(sock) != -EPROTONOSUPPORT)
        return;
    hold(sock);
    again = accept4(d->listener, NULL, NULL, SOCK_CLOEXEC);
    if (answer_as_of_old(again) == 0) {
        (void)chan_create(&defaults, &c);
        d->result = handshake_accept(again, &defaults, c);
        hold(again);
        chan_close(c);
    }
    close(again);
}

static void test_old_daemon(void **state)
{
    struct daemon d;
    struct chan *c;
    char text[256];
    int sock;

    (void)state;
    start(&d, serve_as_of_old, NULL);
    assert_int_equal(
        connect_by(path, NULL, &(struct handshake_wait){ .timeout_ms = 5000 }, &sock, &c, text), 0);
    assert_string_equal(text, "");
    chan_close(c);
    close(sock);
    stop(&d);
}

/* --- answers that are wrong ------------------------------------------------------------------- */

struct reply {
    struct handshake_answer a;
    size_t len;
    int n_fds;
    bool real_memfd;
};

static void serve_reply(struct daemon *d, int sock)
{
    const struct reply *reply = d->arg;
    struct chan *c = NULL;
    int fds[20];
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(sizeof(fds))];
    } ctl = { 0 };
    struct handshake_answer a = reply->a;
    struct iovec io = { &a, reply->len };
    struct msghdr mh = { .msg_iov = &io, .msg_iovlen = 1 };
    size_t n_bytes = (size_t)reply->n_fds * sizeof(int);

    (void)read_hello(d, sock);
    (void)chan_create(&defaults, &c);
    for (int i = 0; i < reply->n_fds; i++)
        fds[i] = STDERR_FILENO;
    if (reply->real_memfd) {
        fds[0] = chan_fds(c).memfd;
        fds[1] = chan_fds(c).to_server;
        fds[2] = chan_fds(c).to_client;
    }
    if (reply->n_fds > 0) {
        struct cmsghdr *h;

        mh.msg_control = ctl.buf;
        mh.msg_controllen = CMSG_SPACE(n_bytes);
        h = CMSG_FIRSTHDR(&mh);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(n_bytes);
        memcpy(CMSG_DATA(h), fds, n_bytes);
    }
    (void)sendmsg(sock, &mh, MSG_NOSIGNAL);
    hold(sock);
    chan_close(c);
}

static void test_wrong_answers(void **state)
{
    const struct handshake_answer good = { .magic = HANDSHAKE_MAGIC,
                                           .version = HANDSHAKE_VERSION,
                                           .slots = 64,
                                           .arena_c2s = CHAN_ARENA_MIN,
                                           .arena_s2c = CHAN_ARENA_MIN };
    struct handshake_answer magic = good, newer = good, larger = good, slots = good, endless = good;
    const size_t all = sizeof(good);

    (void)state;
    magic.magic[3] ^= 1;
    newer.version = 7;
    larger.arena_c2s *= 2;
    slots.slots = 63;
    endless.status = HANDSHAKE_FULL;
    memset(endless.text, 'x', sizeof(endless.text));
    const struct {
        struct reply reply;
        int err;
        const char *sentence;
    } cases[] = {
        { { magic, all, 3, true }, -EPROTO, "not as gistd does" },
        { { good, 8, 0, false }, -EPROTO, "not as gistd does" },
        { { good, 100, 3, true }, -EPROTO, "100 bytes" },
        { { good, all, 0, false }, -EPROTO, "0 descriptors" },
        { { good, all, 2, false }, -EPROTO, "2 descriptors" },
        { { good, all, 5, true }, -EPROTO, "5 descriptors" },
        { { good, all, 20, true }, -EPROTO, "descriptors, not 3" },
        { { good, all, 3, false }, -EPROTO, "not as promised or not sealed" },
        { { larger, all, 3, true }, -EPROTO, "not as promised" },
        { { slots, all, 3, true }, -EPROTO, "not as promised" },
        { { newer, all, 3, true }, -EPROTONOSUPPORT, "speaks version 1 of gistd's protocol" },
        { { newer, 16, 0, false }, -EPROTONOSUPPORT, "version 7" },
        { { endless, all, 0, false }, -ECONNREFUSED, "refused: xxx" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct daemon d;

        start(&d, serve_reply, &cases[i].reply);
        expect_failure(path, cases[i].err, cases[i].sentence);
        stop(&d);
    }
}

/* --- hellos that are wrong -------------------------------------------------------------------- */

static void test_wrong_hellos(void **state)
{
    const struct handshake_hello good = { .magic = HANDSHAKE_MAGIC, .version = HANDSHAKE_VERSION };
    struct handshake_hello magic = good, version = good;

    (void)state;
    magic.magic[0] = 'G';
    version.version = 99;
    const struct {
        struct handshake_hello h;
        size_t len;
        int err;
        uint32_t status;
    } cases[] = {
        { magic, sizeof(good), -EPROTO, HANDSHAKE_BAD_REQUEST },
        { good, 4, -EPROTO, HANDSHAKE_BAD_REQUEST },
        { good, sizeof(good) - 4, -EPROTO, HANDSHAKE_BAD_REQUEST },
        { version, sizeof(good), -EPROTONOSUPPORT, HANDSHAKE_BAD_VERSION },
        { version, 12, -EPROTONOSUPPORT, HANDSHAKE_BAD_VERSION },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct handshake_answer a = { 0 };
        struct handshake_wish g;
        int s[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s), 0);
        assert_int_equal(handshake_read_hello(s[1], &defaults, &g), -EAGAIN);
        assert_int_equal(send(s[0], &cases[i].h, cases[i].len, 0), (ssize_t)cases[i].len);
        assert_int_equal(handshake_read_hello(s[1], &defaults, &g), cases[i].err);
        assert_int_equal(recv(s[0], &a, sizeof(a), 0), sizeof(a));
        assert_int_equal(a.status, cases[i].status);
        assert_int_equal(a.version, HANDSHAKE_VERSION);
        assert_true(a.text[0] != '\0');
        close(s[0]);
        assert_int_equal(handshake_read_hello(s[1], &defaults, &g), -EPIPE);
        close(s[1]);
    }
}

/* Longer than a hello, and with descriptors: those must not stay in the daemon. */
static void test_a_hello_with_presents(void **state)
{
    int before, s[2], fds[4] = { 0, 1, 2, 2 };
    char packet[4096] = HANDSHAKE_MAGIC;
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(sizeof(fds))];
    } ctl = { 0 };
    struct iovec io = { packet, sizeof(packet) };
    struct msghdr mh = {
        .msg_iov = &io, .msg_iovlen = 1, .msg_control = ctl.buf, .msg_controllen = sizeof(ctl.buf)
    };
    struct cmsghdr *h = CMSG_FIRSTHDR(&mh);
    struct handshake_wish g;

    (void)state;
    packet[8] = HANDSHAKE_VERSION;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s), 0);
    before = count_fds();
    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(sizeof(fds));
    memcpy(CMSG_DATA(h), fds, sizeof(fds));
    assert_int_equal(sendmsg(s[0], &mh, 0), sizeof(packet));
    assert_int_equal(handshake_read_hello(s[1], &defaults, &g), -EPROTO);
    assert_int_equal(count_fds(), before);
    close(s[0]);
    close(s[1]);
}

static void test_peer(void **state)
{
    int s[2];
    pid_t pid;
    uid_t uid;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s), 0);
    assert_int_equal(handshake_peer(s[0], &pid, &uid), 0);
    assert_int_equal(pid, getpid());
    assert_int_equal(uid, geteuid());
    close(s[0]);
    close(s[1]);
    assert_int_equal(handshake_peer(s[0], &pid, &uid), -EBADF);
}

static void test_where_the_socket_is(void **state)
{
    char got[128], want[128], sub[160];

    (void)state;
    assert_int_equal(unsetenv("GISTD_SOCKET"), 0);
    assert_int_equal(setenv("XDG_RUNTIME_DIR", dir, 1), 0);
    assert_int_equal(handshake_path("/a/b", true, got, sizeof(got)), 0);
    assert_string_equal(got, "/a/b");
    assert_int_equal(handshake_path(NULL, true, got, sizeof(got)), 0);
    assert_string_equal(got, "/run/gistd/gistd.sock"); /* not there: the machine's */
    (void)snprintf(want, sizeof(want), "%s/gistd/gistd.sock", dir);
    assert_int_equal(handshake_path(NULL, false, got, sizeof(got)), 0);
    assert_string_equal(got, want);

    (void)snprintf(sub, sizeof(sub), "%s/gistd", dir);
    assert_int_equal(mkdir(sub, 0700), 0);
    close(open(want, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    assert_int_equal(handshake_path(NULL, true, got, sizeof(got)), 0);
    assert_string_equal(got, want);
    (void)unlink(want);
    (void)rmdir(sub);

    assert_int_equal(setenv("GISTD_SOCKET", "/c/d", 1), 0);
    assert_int_equal(handshake_path(NULL, true, got, sizeof(got)), 0);
    assert_string_equal(got, "/c/d");
    assert_int_equal(setenv("GISTD_SOCKET", "", 1), 0);
    assert_int_equal(unsetenv("XDG_RUNTIME_DIR"), 0);
    assert_int_equal(handshake_path(NULL, false, got, sizeof(got)), 0);
    assert_string_equal(got, "/run/gistd/gistd.sock");
    assert_int_equal(handshake_path("0123456789", true, got, 10), -ENAMETOOLONG);
    assert_int_equal(handshake_path("012345678", true, got, 10), 0);
}

/* Nothing was said yet, or half of it: whoever leaves takes all with him, and nobody waits. */
static void test_left_early(void **state)
{
    static const unsigned percents[] = { 10, 0 };
    const struct handshake_wait wait = { .timeout_ms = -1 };
    struct handshake *h;
    struct daemon d;
    struct chan *c;
    char text[256];
    int sock;

    (void)state;
    start(&d, serve_loading_for_ever, percents);
    assert_int_equal(handshake_start(path, NULL, &wait, &h, text), 0);
    handshake_end(h);
    stop(&d);
    start(&d, serve_loading_for_ever, percents);
    assert_int_equal(handshake_start(path, NULL, &wait, &h, text), 0);
    assert_int_equal(poll(&(struct pollfd){ handshake_fd(h), POLLIN, 0 }, 1, 60000), 1);
    assert_int_equal(handshake_go_on(h, &sock, &c, text), -EAGAIN);
    assert_int_equal(handshake_go_on(h, &sock, &c, text), -EAGAIN);
    handshake_end(h);
    stop(&d);
}

#define CLIENT_TESTS                                                                               \
    cmocka_unit_test(test_shake_hands), cmocka_unit_test(test_huge_wishes_are_bounded),            \
        cmocka_unit_test(test_no_socket), cmocka_unit_test(test_no_permission),                    \
        cmocka_unit_test(test_path_too_long), cmocka_unit_test(test_no_answer),                    \
        cmocka_unit_test(test_nobody_accepts), cmocka_unit_test(test_refused),                     \
        cmocka_unit_test(test_loading_is_told), cmocka_unit_test(test_loading_takes_too_long),     \
        cmocka_unit_test(test_old_daemon), cmocka_unit_test(test_wrong_answers)

static int set_by_steps(void **state)
{
    (void)state;
    by_steps = true;
    return 0;
}

int main(void)
{
    const struct CMUnitTest waiting[] = {
        CLIENT_TESTS,
        cmocka_unit_test(test_wrong_hellos),
        cmocka_unit_test(test_a_hello_with_presents),
        cmocka_unit_test(test_peer),
        cmocka_unit_test(test_where_the_socket_is),
    };
    const struct CMUnitTest by_steps_too[] = { CLIENT_TESTS, cmocka_unit_test(test_left_early) };
    int failed = make_dir(NULL);

    failed += cmocka_run_group_tests_name("waiting", waiting, NULL, NULL);
    failed += cmocka_run_group_tests_name("by steps", by_steps_too, set_by_steps, NULL);
    return failed + remove_dir(NULL);
}
