/* Would catch: a channel that loses or mixes up messages between two processes, sleeps through
 * one, and a peer that can crash, hang or lead astray the other side by what it writes into the
 * memory. */
#include "ipc/chan.h"

#include "base/clock.h"
#include "tests/support/chan_ends.h"
#include "tests/support/hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const struct chan_geometry geometry = { CHAN_SLOTS_MIN, CHAN_ARENA_MIN, CHAN_ARENA_MIN };

static void pin_to(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    assert_int_equal(sched_setaffinity(0, sizeof(set), &set), 0);
}

/* --- one process ------------------------------------------------------------------------------ */

/* On which CPU they are decides how long they spin; a lie about it must do no more than that. */
static void test_sides_say_where_they_run(void **state)
{
    static const uint32_t lies[] = { 1, 4096, INT_MAX, UINT32_MAX };
    struct ends e = ends_open(&geometry);
    cpu_set_t all;
    uint32_t *said;
    int here, there;

    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
    for (here = 0; !CPU_ISSET((size_t)here, &all); here++)
        ;
    for (there = CPU_SETSIZE - 1; !CPU_ISSET((size_t)there, &all); there--)
        ;
    pin_to(here);
    assert_int_equal(chan_peer_cpu(e.server), -1); /* an old client never says */
    assert_false(chan_shares_cpu(e.server));
    assert_int_equal(ends_send(e.client, "here", ""), 0);
    assert_int_equal(chan_peer_cpu(e.server), here);
    assert_true(chan_shares_cpu(e.server));
    pin_to(there);
    assert_int_equal(chan_shares_cpu(e.server), there == here);
    assert_int_equal(chan_arm(e.client, false), false);
    chan_disarm(e.client); /* woken on the other CPU */
    assert_int_equal(chan_peer_cpu(e.server), there);
    assert_true(chan_shares_cpu(e.server));
    assert_int_equal(chan_peer_cpu(e.client), there);
    chan_leave_cpu(e.server); /* nowhere, until it looks again */
    assert_int_equal(chan_peer_cpu(e.client), -1);
    assert_false(chan_shares_cpu(e.client));
    assert_true(chan_shares_cpu(e.server));
    assert_int_equal(chan_peer_cpu(e.client), there);

    said = mmap(NULL, 64, PROT_READ | PROT_WRITE, MAP_SHARED, chan_fds(e.client).memfd, 0);
    assert_ptr_not_equal(said, MAP_FAILED);
    assert_int_equal(said[0], there + 1);
    assert_int_equal(said[1], there + 1);
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        said[0] = lies[i];
        assert_in_range(chan_peer_cpu(e.server) + 1, 0, INT_MAX);
        (void)chan_shares_cpu(e.server);
        ends_expect(e.server, "here", "");
        assert_int_equal(ends_send(e.client, "here", ""), 0);
    }
    assert_int_equal(munmap(said, 64), 0);
    assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
    ends_close(&e);
}

static void test_both_ways(void **state)
{
    struct ends e = ends_open(&geometry);
    struct chan_msg m;

    (void)state;
    assert_int_equal(chan_recv(e.server, &m), -EAGAIN);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(ends_send(e.client, "question", "with bulk"), 0);
        assert_int_equal(ends_send(e.client, "x", ""), 0);
        assert_true(chan_readable(e.server));
        ends_expect(e.server, "question", "with bulk");
        ends_expect(e.server, "x", "");
        assert_false(chan_readable(e.server));
        assert_int_equal(ends_send(e.server, "answer", "back"), 0);
        ends_expect(e.client, "answer", "back");
    }
    ends_close(&e);
}

static void test_sizes(void **state)
{
    struct ends e = ends_open(&geometry);
    uint32_t max = chan_bulk_max(e.client, 100);
    struct chan_msg m;
    uint8_t *f, *b;

    (void)state;
    assert_int_equal(chan_reserve(e.client, 0, 0, &f, &b), -EMSGSIZE);
    assert_int_equal(chan_reserve(e.client, CHAN_FRAME_MAX + 1, 0, &f, &b), -EMSGSIZE);
    assert_int_equal(chan_reserve(e.client, UINT32_MAX, UINT32_MAX, &f, &b), -EMSGSIZE);
    assert_int_equal(chan_reserve(e.client, 100, UINT32_MAX, &f, &b), -EMSGSIZE);
    assert_int_equal(chan_reserve(e.client, 100, max + 1, &f, &b), -EMSGSIZE);
    assert_int_equal(chan_bulk_max(e.client, CHAN_FRAME_MAX + 1), 0);

    /* The largest goes through also when the arena's tail stands in its middle. */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ends_send(e.client, "small", "one"), 0);
        ends_expect(e.server, "small", "one");
        assert_int_equal(chan_reserve(e.client, 100, max, &f, &b), 0);
        memset(f, 'f', 100);
        memset(b, i, max);
        chan_commit(e.client);
        assert_int_equal(chan_reserve(e.client, 100, 0, &f, &b), -EAGAIN);
        assert_int_equal(chan_recv(e.server, &m), 0);
        assert_int_equal(m.frame_len, 100);
        assert_int_equal(m.bulk_len, max);
        assert_int_equal(m.bulk[0], i);
        assert_int_equal(m.bulk[max - 1], i);
        assert_int_equal((uintptr_t)m.bulk % 64, 0);
        chan_release(e.server);
    }
    ends_close(&e);
}

static void test_a_reservation_can_be_forgotten(void **state)
{
    struct ends e = ends_open(&geometry);
    uint8_t *f, *b;

    (void)state;
    for (int i = 0; i < 100; i++)
        assert_int_equal(chan_reserve(e.client, 1000, 100000, &f, &b), 0);
    assert_int_equal(ends_send(e.client, "kept", ""), 0);
    ends_expect(e.server, "kept", "");
    ends_close(&e);
}

static void test_full_then_room(void **state)
{
    struct ends e = ends_open(&geometry);
    int n = 0;

    (void)state;
    while (ends_send(e.client, "m", "") == 0)
        n++;
    assert_int_equal(n, CHAN_SLOTS_MIN);
    assert_false(chan_arm(e.client, true));
    ends_expect(e.server, "m", ""); /* rings: the client waits for room */
    assert_int_equal(poll(&(struct pollfd){ chan_doorbell(e.client), POLLIN, 0 }, 1, 1000), 1);
    chan_disarm(e.client);
    assert_int_equal(ends_send(e.client, "m", ""), 0);
    assert_int_equal(ends_send(e.client, "m", ""), -EAGAIN);
    ends_close(&e);
}

/* What the other side has released is counted when it is looked at, and is news once. */
static void test_what_came_back(void **state)
{
    struct ends e = ends_open(&geometry);
    uint32_t n = 77;

    (void)state;
    assert_int_equal(chan_sent(e.server), 0);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(ends_send(e.server, "text", "bulk"), 0);
    assert_int_equal(chan_sent(e.server), 3);
    assert_int_equal(chan_taken(e.server, &n), 0);
    assert_int_equal(n, 0);
    ends_expect(e.client, "text", "bulk");
    ends_expect(e.client, "text", "bulk");
    assert_int_equal(chan_taken(e.server, &n), 1);
    assert_int_equal(n, 2);
    assert_int_equal(chan_taken(e.server, &n), 0);
    assert_int_equal(n, 2);
    ends_close(&e);
}

static void test_bad_geometry(void **state)
{
    const struct chan_geometry bad[] = {
        { 0, CHAN_ARENA_MIN, CHAN_ARENA_MIN },
        { 24, CHAN_ARENA_MIN, CHAN_ARENA_MIN },
        { 8, CHAN_ARENA_MIN, CHAN_ARENA_MIN },
        { 2 * RING_SLOTS_MAX, CHAN_ARENA_MIN, CHAN_ARENA_MIN },
        { 16, CHAN_ARENA_MIN - 64, CHAN_ARENA_MIN },
        { 16, CHAN_ARENA_MIN, CHAN_ARENA_MIN + 1 },
        { 16, CHAN_ARENA_MIN, CHAN_ARENA_MAX + 64 },
    };
    struct chan *c;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(chan_create(&bad[i], &c), -EINVAL);
        assert_int_equal(chan_attach(&bad[i], (struct chan_fds){ -1, -1, -1 }, &c), -EPROTO);
    }
    chan_close(NULL);
}

/* A file that can shrink would kill who reads it; a smaller one than promised too. */
static void test_attach_checks_the_memory(void **state)
{
    struct chan_geometry larger = { 32, CHAN_ARENA_MIN, CHAN_ARENA_MIN };
    struct chan *server, *c;
    struct chan_fds fds;
    int unsealed = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct stat st;

    (void)state;
    assert_int_equal(chan_create(&geometry, &server), 0);
    assert_int_equal(chan_attach(&larger, ends_dup_fds(server), &c), -EPROTO);

    fds = ends_dup_fds(server);
    assert_int_equal(fstat(fds.memfd, &st), 0);
    close(fds.memfd);
    assert_int_equal(ftruncate(unsealed, st.st_size), 0);
    fds.memfd = unsealed;
    assert_int_equal(chan_attach(&geometry, fds, &c), -EPROTO);
    assert_int_equal(fcntl(unsealed, F_GETFD), -1); /* taken, also on failure */

    fds = ends_dup_fds(server);
    close(fds.memfd);
    fds.memfd = open("/dev/null", O_RDWR);
    assert_int_equal(chan_attach(&geometry, fds, &c), -EPROTO);
    chan_close(server);
}

static void test_nobody_can_resize_it(void **state)
{
    struct ends e = ends_open(&geometry);

    (void)state;
    assert_int_equal(ftruncate(chan_fds(e.client).memfd, 4096), -1);
    assert_int_equal(ftruncate(chan_fds(e.client).memfd, 1 << 30), -1);
    ends_close(&e);
}

static int count_fds(void)
{
    int n = 0;

    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void test_nothing_is_left_open(void **state)
{
    bool old[256];
    int before = count_fds();
    struct ends e;

    (void)state;
    for (int fd = 0; fd < 256; fd++)
        old[fd] = fcntl(fd, F_GETFD) >= 0;
    e = ends_open(&geometry);
    for (int fd = 0; fd < 256; fd++)
        if (!old[fd] && fcntl(fd, F_GETFD) >= 0)
            assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    ends_close(&e);
    assert_int_equal(count_fds(), before);
}

/* --- a peer that writes what it likes --------------------------------------------------------- */

static void test_bad_descriptors(void **state)
{
    const uint32_t A = CHAN_ARENA_MIN;
    const struct ring_desc bad[] = {
        { 0 },
        { .frame_len = 0, .len = 10 },    /* no frame */
        { .frame_len = 64, .len = 63 },   /* frame longer than the span */
        { .frame_len = 100, .len = 110 }, /* bulk would begin behind the span */
        { .frame_len = 100, .len = 128 },
        { .frame_len = 100, .len = 100, .off = 1 },    /* not aligned */
        { .frame_len = 64, .len = 64, .off = A },      /* behind the arena */
        { .frame_len = 65, .len = 65, .off = A - 64 }, /* over its end */
        { .frame_len = 8, .len = 65, .off = A - 64 },
        { .frame_len = 128, .len = 128, .off = ~63u }, /* wraps */
        { .frame_len = 64, .len = UINT32_MAX, .off = 64 },
        { .frame_len = 8, .len = UINT32_MAX },
        { .frame_len = UINT32_MAX, .len = UINT32_MAX },
        { .frame_len = CHAN_FRAME_MAX + 1, .len = CHAN_FRAME_MAX + 1 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct ends e = ends_open(&geometry);
        struct chan_msg m;
        struct hostile h;

        assert_int_equal(hostile_map(&h, e.server, &geometry), 0);
        hostile_slot(&h, HOSTILE_C2S, 0)->off = bad[i].off;
        hostile_slot(&h, HOSTILE_C2S, 0)->len = bad[i].len;
        hostile_slot(&h, HOSTILE_C2S, 0)->frame_len = bad[i].frame_len;
        *hostile_word(&h, HOSTILE_C2S, HOSTILE_TURN) = 1;
        assert_int_equal(chan_recv(e.server, &m), -EPROTO);
        hostile_close(&h);
        ends_close(&e);
    }
}

static void test_bad_indices(void **state)
{
    struct ends e = ends_open(&geometry);
    struct chan_msg m;
    struct hostile h;
    uint8_t *f, *b;

    (void)state;
    assert_int_equal(hostile_map(&h, e.server, &geometry), 0);
    *hostile_word(&h, HOSTILE_C2S, HOSTILE_TURN) = 2;
    assert_true(chan_readable(e.server));
    assert_int_equal(chan_recv(e.server, &m), -EPROTO);
    assert_true(chan_arm(e.server, true));
    chan_disarm(e.server);

    while (ends_send(e.server, "m", "") == 0)
        ;
    *hostile_word(&h, HOSTILE_S2C, HOSTILE_HEAD) = CHAN_SLOTS_MIN + 1;
    assert_int_equal(chan_reserve(e.server, 1, 0, &f, &b), -EPROTO);
    hostile_close(&h);
    ends_close(&e);
}

/* The descriptor that a client holds is the daemon's own: clearing O_NONBLOCK and filling counters
 * must not make the daemon wait. */
static void test_doorbells_never_block(void **state)
{
    struct ends e = ends_open(&geometry);
    const uint64_t most = UINT64_MAX - 1;
    struct chan_fds f = chan_fds(e.client);
    struct hostile h;

    (void)state;
    (void)signal(SIGPIPE, SIG_IGN); /* raised by the hostile side's own writes */
    assert_int_equal(fcntl(f.to_server, F_SETFL, 0), 0);
    assert_int_equal(fcntl(f.to_client, F_SETFL, 0), 0);
    alarm(600); /* who waits for the foe waits for ever */
    for (int i = 0; i < 3; i++) {
        assert_false(chan_arm(e.server, true));
        chan_disarm(e.server); /* empty, and reading it would block */
        assert_int_equal(write(f.to_server, &most, sizeof(most)), (ssize_t)sizeof(most));
        chan_disarm(e.server);
    }
    for (int i = 0; i < 100000; i++) /* a doorbell that nobody answers */
        if (write(f.to_client, "", 1) < 0 && errno == EPIPE)
            break;
    assert_int_equal(hostile_map(&h, e.server, &geometry), 0);
    for (int i = 0; i < 20000; i++) {
        *hostile_word(&h, HOSTILE_S2C, HOSTILE_SLEEPING) = 1;
        assert_int_equal(ends_send(e.server, "m", ""), 0);
        ends_expect(e.client, "m", "");
    }
    hostile_close(&h);
    alarm(0);
    (void)signal(SIGPIPE, SIG_DFL);
    ends_close(&e);
}

/* A process of its own rewrites all of the memory while the daemon's side works with it: any result
 * but a crash, a hang, or a length beyond the arena. */
static void scribble(struct hostile *h, uint64_t seed)
{
    for (;;) {
        enum hostile_ring ring = hostile_random(&seed) & 1 ? HOSTILE_C2S : HOSTILE_S2C;
        uint32_t what = hostile_random(&seed) % 8, x = hostile_random(&seed);
        volatile struct hostile_slot *s = hostile_slot(h, ring, hostile_random(&seed));

        /* Mostly what could be true, so that the reader is led far inside before it is not. */
        if (what == 0)
            s->turn = x % 64 ? *hostile_word(h, ring, HOSTILE_HEAD) / h->g.slots + x % 2 : x;
        else if (what == 1)
            *hostile_word(h, HOSTILE_S2C, HOSTILE_HEAD) += x % 64 == 0;
        else if (what == 2)
            *hostile_word(h, ring, HOSTILE_SLEEPING) = x & 1;
        else if (what == 3)
            *hostile_word(h, ring, HOSTILE_ROOM) = x;
        else if (what == 4)
            s->off = x % 8 ? x % CHAN_ARENA_MIN & ~63u : x;
        else if (what == 5)
            s->len = x % 8 ? 512 + x % 4096 : x;
        else if (what == 6)
            s->frame_len = x % 8 ? x % 512 : x;
        else
            memset(hostile_arena(h, ring) + x % (CHAN_ARENA_MIN - 64), (int)x, 64);
    }
}

static void work_with(struct chan *c, uint32_t *ret_ok, uint32_t *ret_refused)
{
    struct chan_msg m;
    uint8_t *f, *b;
    uint32_t sum = 0;

    if (chan_readable(c)) {
        int r = chan_recv(c, &m);

        if (r == -EPROTO) {
            ++*ret_refused;
            sched_yield(); /* let it scribble on */
        }
        if (r == 0) {
            assert_true(m.frame_len <= CHAN_FRAME_MAX && m.bulk_len <= CHAN_ARENA_MIN);
            for (uint32_t i = 0; i < m.frame_len; i++)
                sum += m.frame[i];
            for (uint32_t i = 0; i < m.bulk_len; i++)
                sum += m.bulk[i];
            *ret_ok += 1 + (sum & 0);
            chan_release(c);
        }
    }
    if (chan_reserve(c, 200, 1000, &f, &b) == 0) {
        memset(f, 1, 200);
        memset(b, 2, 1000);
        chan_commit(c);
    }
    (void)chan_arm(c, true);
    chan_disarm(c);
}

static void work_with_scribbler(uint64_t seed, uint32_t *ret_ok, uint32_t *ret_refused)
{
    struct ends e = ends_open(&geometry);
    uint32_t ok = 0, refused = 0;
    uint64_t end = clock_ns() / CLOCK_MS + 60;
    struct hostile h;
    pid_t pid;

    assert_int_equal(hostile_map(&h, e.server, &geometry), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        scribble(&h, seed);
    while (clock_ns() / CLOCK_MS < end) {
        for (int i = 0; i < 100; i++)
            work_with(e.server, &ok, &refused);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    hostile_close(&h);
    ends_close(&e);
    *ret_ok += ok;
    *ret_refused += refused;
}

static void test_a_scribbling_peer(void **state)
{
    uint32_t ok = 0, refused = 0;

    (void)state;
    /* Anew each time: a ring whose tail ran away refuses everything from then on. */
    for (uint64_t seed = 0; seed < 20; seed++)
        work_with_scribbler(seed, &ok, &refused);
    print_message("%u messages, %u refused\n", ok, refused);
    assert_true(ok > 0 && refused > 0);
}

/* --- two processes ---------------------------------------------------------------------------- */

static void fill(uint8_t *p, uint32_t n, uint64_t seed)
{
    for (uint32_t i = 0; i < n; i++)
        p[i] = (uint8_t)hostile_random(&seed);
}

/* Sends back what it gets, sleeping whenever there is nothing to do. */
static int echo(struct chan *c, int sock)
{
    struct chan_msg m;
    uint8_t *f, *b;

    for (;;) {
        int r = chan_recv(c, &m);

        if (r == -EAGAIN) {
            r = chan_wait(c, false, sock, -1, 0, -1);
            if (r == 0)
                continue;
            return r == -EPIPE ? 0 : 1;
        }
        if (r < 0)
            return 2;
        while ((r = chan_reserve(c, m.frame_len, m.bulk_len, &f, &b)) == -EAGAIN) {
            /* Waiting for room only: a message is there all the time. */
            struct pollfd p[] = { { chan_doorbell(c), POLLIN, 0 }, { sock, POLLIN, 0 } };

            if (!chan_arm(c, true) || !chan_readable(c))
                poll(p, 2, 1);
            chan_disarm(c);
            if (p[1].revents)
                return 0;
        }
        if (r < 0)
            return 3;
        memcpy(f, m.frame, m.frame_len);
        if (m.bulk_len > 0)
            memcpy(b, m.bulk, m.bulk_len);
        chan_commit(c);
        chan_release(c);
    }
}

static void check_echo(const struct chan_msg *m, uint64_t i)
{
    static uint8_t want[CHAN_ARENA_MIN];
    uint64_t seed = i;
    uint32_t frame_len = 1 + hostile_random(&seed) % 300;
    uint32_t bulk_len = i % 50 == 0 ? hostile_random(&seed) % 100000 : hostile_random(&seed) % 500;

    assert_int_equal(m->frame_len, frame_len);
    fill(want, frame_len, i + 1);
    assert_memory_equal(m->frame, want, frame_len);
    assert_int_equal(m->bulk_len, bulk_len);
    fill(want, bulk_len, i + 2);
    if (bulk_len > 0)
        assert_memory_equal(m->bulk, want, bulk_len);
}

static bool send_echo(struct chan *c, uint64_t i)
{
    uint64_t seed = i;
    uint32_t frame_len = 1 + hostile_random(&seed) % 300;
    uint32_t bulk_len = i % 50 == 0 ? hostile_random(&seed) % 100000 : hostile_random(&seed) % 500;
    uint8_t *f, *b;

    if (chan_reserve(c, frame_len, bulk_len, &f, &b) < 0)
        return false;
    fill(f, frame_len, i + 1);
    fill(b, bulk_len, i + 2);
    chan_commit(c);
    return true;
}

static void run_echo(uint64_t spin_ns, uint64_t n)
{
    struct chan *server, *client;
    struct chan_msg m;
    uint64_t sent = 0, got = 0;
    int sock[2], status;
    pid_t pid;

    assert_int_equal(chan_create(&geometry, &server), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(sock[0]);
        assert_int_equal(chan_attach(&geometry, ends_dup_fds(server), &client), 0);
        status = echo(client, sock[1]);
        chan_close(client);
        chan_close(server);
        _exit(status);
    }
    close(sock[1]);
    while (got < n) {
        while (sent < n && send_echo(server, sent))
            sent++;
        while (chan_recv(server, &m) == 0) {
            check_echo(&m, got++);
            chan_release(server);
        }
        if (got < n)
            assert_int_equal(chan_wait(server, sent < n, sock[0], -1, spin_ns, 10000), 0);
    }
    close(sock[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    chan_close(server);
}

static void test_echo_asleep(void **state)
{
    (void)state;
    run_echo(0, 5000);
}

static void test_echo_spinning(void **state)
{
    (void)state;
    run_echo(50000, 5000);
}

/* The peer dies with the doorbell unanswered; the daemon's ring must not raise SIGPIPE. */
static void test_ringing_the_dead(void **state)
{
    struct ends e = ends_open(&geometry);
    struct hostile h;

    (void)state;
    assert_int_equal(hostile_map(&h, e.server, &geometry), 0);
    *hostile_word(&h, HOSTILE_S2C, HOSTILE_SLEEPING) = 1;
    hostile_close(&h);
    chan_close(e.client);
    close(chan_fds(e.server).to_client);
    assert_int_equal(ends_send(e.server, "anyone?", ""), 0);
    assert_true(dup2(STDERR_FILENO, chan_fds(e.server).to_client) >= 0);
    chan_close(e.server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways),
        cmocka_unit_test(test_sides_say_where_they_run),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_a_reservation_can_be_forgotten),
        cmocka_unit_test(test_full_then_room),
        cmocka_unit_test(test_what_came_back),
        cmocka_unit_test(test_bad_geometry),
        cmocka_unit_test(test_attach_checks_the_memory),
        cmocka_unit_test(test_nobody_can_resize_it),
        cmocka_unit_test(test_nothing_is_left_open),
        cmocka_unit_test(test_bad_descriptors),
        cmocka_unit_test(test_bad_indices),
        cmocka_unit_test(test_doorbells_never_block),
        cmocka_unit_test(test_a_scribbling_peer),
        cmocka_unit_test(test_echo_asleep),
        cmocka_unit_test(test_echo_spinning),
        cmocka_unit_test(test_ringing_the_dead),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
