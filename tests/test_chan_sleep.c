/* Would catch: a sleep that no ring ends, also behind one that failed, one that an old ring ends, a
 * doorbell that fills up with rings, a wait that does not see its time, its peer or its caller end,
 * and a connection that is lost for want of a descriptor. */
#include "ipc/chan.h"

#include "base/clock.h"
#include "tests/support/chan_ends.h"
#include "tests/support/hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static const struct chan_geometry geometry = { CHAN_SLOTS_MIN, CHAN_ARENA_MIN, CHAN_ARENA_MIN };

static void test_doorbells(void **state)
{
    struct ends e = ends_open(&geometry);
    struct pollfd p = { chan_doorbell(e.server), POLLIN, 0 };
    struct pollfd q = { chan_doorbell(e.client), POLLIN, 0 };

    (void)state;
    assert_int_equal(ends_send(e.client, "awake", ""), 0);
    assert_int_equal(poll(&p, 1, 0), 0); /* nobody slept: no system call was made */
    assert_true(chan_arm(e.server, false));
    chan_disarm(e.server);
    ends_expect(e.server, "awake", "");
    for (int i = 0; i < 3; i++) {
        assert_false(chan_arm(e.server, false));
        assert_int_equal(poll(&p, 1, 0), 0);
        assert_int_equal(ends_send(e.client, "a", ""), 0);
        assert_int_equal(ends_send(e.client, "b", ""), 0);
        assert_int_equal(poll(&p, 1, 1000), 1);
        chan_disarm(e.server);
        ends_expect(e.server, "a", "");
        ends_expect(e.server, "b", "");

        assert_false(chan_arm(e.client, false));
        assert_int_equal(ends_send(e.server, "c", ""), 0);
        assert_int_equal(poll(&q, 1, 1000), 1);
        chan_disarm(e.client);
        ends_expect(e.client, "c", "");
        assert_false(chan_arm(e.client, false));
        assert_int_equal(poll(&q, 1, 0), 0); /* drained */
        chan_disarm(e.client);
    }
    assert_int_equal(eventfd_write(p.fd, 1), 0); /* rung without a reason */
    chan_disarm(e.server);
    chan_disarm(e.server);
    assert_int_equal(poll(&p, 1, 0), 0);
    ends_close(&e);
}

static int edges_of(int epoll)
{
    struct epoll_event ev;

    return epoll_wait(epoll, &ev, 1, 0);
}

/* The daemon's way to wait: its doorbell is never drained, and each sleep ends by a ring of its
 * own. */
static void test_doorbell_by_edges(void **state)
{
    struct ends e = ends_open(&geometry);
    struct epoll_event ev = { .events = EPOLLIN | EPOLLET };
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    (void)state;
    chan_wait_by_edges(e.server);
    assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_ADD, chan_doorbell(e.server), &ev), 0);
    for (int i = 0; i < 3; i++) {
        assert_false(chan_arm(e.server, false));
        assert_int_equal(edges_of(epoll), 0);
        assert_int_equal(ends_send(e.client, "a", ""), 0);
        assert_int_equal(ends_send(e.client, "b", ""), 0);
        assert_int_equal(edges_of(epoll), 1);
        assert_int_equal(edges_of(epoll), 0);
        chan_disarm(e.server);
        chan_disarm(e.server);
        ends_expect(e.server, "a", "");
        ends_expect(e.server, "b", "");
    }
    close(epoll);
    ends_close(&e);
}

/* Who sleeps for room only is not woken by messages, neither by those that are there nor by new
 * ones. */
static void test_sleep_for_room(void **state)
{
    struct ends e = ends_open(&geometry);
    struct pollfd p = { chan_doorbell(e.server), POLLIN, 0 };

    (void)state;
    assert_int_equal(ends_send(e.client, "waits", ""), 0);
    assert_int_equal(ends_send(e.server, "reply", ""), 0);
    assert_int_equal(chan_came_back(e.server), 0);
    assert_false(chan_arm_room(e.server));
    assert_int_equal(ends_send(e.client, "waits too", ""), 0);
    assert_int_equal(poll(&p, 1, 0), 0);
    ends_expect(e.client, "reply", "");
    assert_int_equal(poll(&p, 1, 1000), 1);
    chan_disarm(e.server);
    assert_int_equal(chan_came_back(e.server), 1);
    assert_true(chan_arm_room(e.server)); /* it did not look for it yet */
    chan_disarm(e.server);
    ends_expect(e.server, "waits", "");
    ends_expect(e.server, "waits too", "");
    ends_close(&e);
}

static void test_wait_ends(void **state)
{
    struct ends e = ends_open(&geometry);
    int sock[2], stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    uint64_t t0 = clock_ns() / CLOCK_MS;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock), 0);
    assert_int_equal(chan_wait(e.client, false, sock[0], stop, 0, 0), -ETIMEDOUT);
    assert_int_equal(chan_wait(e.client, false, sock[0], stop, 1000, 30), -ETIMEDOUT);
    assert_true(clock_ns() / CLOCK_MS - t0 >= 30);
    assert_int_equal(eventfd_write(stop, 1), 0);
    assert_int_equal(chan_wait(e.client, false, sock[0], stop, 0, -1), -EINTR);

    assert_int_equal(ends_send(e.server, "last words", ""), 0);
    close(sock[1]);
    assert_int_equal(chan_wait(e.client, false, sock[0], -1, 0, -1), 0);
    ends_expect(e.client, "last words", "");
    assert_int_equal(chan_wait(e.client, false, sock[0], -1, 0, -1), -EPIPE);
    close(sock[0]);
    close(stop);
    ends_close(&e);
}

#define N_SLEEPS 200

struct waker {
    struct chan *server;
    int n;                       /* sleeps */
    volatile uint32_t *sleeping; /* the client's flag */
    struct hostile h;            /* that it sees it by */
    pthread_t thread;
};

/* A message for each sleep, whose flag it takes. */
static void *wake_each_sleep(void *arg)
{
    struct waker *w = arg;

    for (int i = 0; i < w->n; i++) {
        while (*w->sleeping == 0)
            (void)sched_yield();
        if (ends_send(w->server, "m", "") != 0)
            break;
    }
    return NULL;
}

static void start_waker(struct waker *w, const struct ends *e, int n)
{
    *w = (struct waker){ .server = e->server, .n = n };
    assert_int_equal(hostile_map(&w->h, e->server, &geometry), 0);
    w->sleeping = hostile_word(&w->h, HOSTILE_S2C, HOSTILE_SLEEPING);
    assert_int_equal(pthread_create(&w->thread, NULL, wake_each_sleep, w), 0);
}

/* After the last of its sleeps. */
static void end_waker(struct waker *w)
{
    assert_int_equal(pthread_join(w->thread, NULL), 0);
    hostile_close(&w->h);
}

/* chan_wait drains now and then: what lies in the doorbell of a client never fills it, ends no
 * later sleep, and is gone with the next chan_arm. */
static void test_rings_that_lie_there(void **state)
{
    struct ends e = ends_open(&geometry);
    struct pollfd p = { chan_doorbell(e.client), POLLIN, 0 };
    int sock[2], n = 0, most = 0;
    struct waker w;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock), 0);
    start_waker(&w, &e, N_SLEEPS);
    for (int i = 0; i < N_SLEEPS; i++) {
        assert_int_equal(chan_wait(e.client, false, sock[0], -1, 0, -1), 0);
        ends_expect(e.client, "m", "");
        assert_int_equal(ioctl(p.fd, FIONREAD, &n), 0);
        most = n > most ? n : most;
    }
    end_waker(&w);
    assert_in_range(most, 2, 64);
    assert_int_equal(chan_wait(e.client, false, sock[0], -1, 0, 1), -ETIMEDOUT);
    assert_false(chan_arm(e.client, false));
    assert_int_equal(poll(&p, 1, 0), 0);
    chan_disarm(e.client);
    close(sock[0]);
    close(sock[1]);
    ends_close(&e);
}

/* A wait that failed before it had the doorbell does not leave the next one deaf. */
static void test_wait_again(void **state)
{
    struct ends e = ends_open(&geometry);
    int bell = chan_doorbell(e.client), other = fcntl(bell, F_DUPFD_CLOEXEC, 3);
    struct waker w;

    (void)state;
    assert_true(other >= 0);
    assert_int_equal(dup3(chan_fds(e.client).memfd, bell, O_CLOEXEC), bell); /* epoll takes none */
    assert_int_equal(chan_wait(e.client, false, -1, -1, 0, 0), -EPERM);
    assert_int_equal(dup3(other, bell, O_CLOEXEC), bell);
    start_waker(&w, &e, 1);
    assert_int_equal(chan_wait(e.client, false, -1, -1, 0, -1), 0);
    ends_expect(e.client, "m", "");
    end_waker(&w);
    close(other);
    ends_close(&e);
}

/* A program that has no descriptor left sleeps all the same, however often it is woken. */
static void test_no_descriptors(void **state)
{
    struct ends e = ends_open(&geometry);
    struct rlimit all, none;
    struct waker w;
    int sock[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock), 0);
    start_waker(&w, &e, 3);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &all), 0);
    none = (struct rlimit){ 3, all.rlim_max }; /* poll wants as many as it is asked about */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    for (int i = 0; i < w.n; i++) {
        assert_int_equal(chan_wait(e.client, false, sock[0], -1, 0, -1), 0);
        ends_expect(e.client, "m", "");
    }
    end_waker(&w);
    assert_int_equal(chan_wait(e.client, false, sock[0], -1, 0, 1), -ETIMEDOUT);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &all), 0);
    assert_int_equal(chan_wait(e.client, false, sock[0], -1, 0, 1), -ETIMEDOUT);
    close(sock[1]);
    assert_int_equal(chan_wait(e.client, false, sock[0], -1, 0, -1), -EPIPE);
    close(sock[0]);
    ends_close(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_doorbells),
        cmocka_unit_test(test_doorbell_by_edges),
        cmocka_unit_test(test_sleep_for_room),
        cmocka_unit_test(test_wait_ends),
        cmocka_unit_test(test_rings_that_lie_there),
        cmocka_unit_test(test_wait_again),
        cmocka_unit_test(test_no_descriptors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
