/* tests/test_daemon_refusals.c - the real daemon where clients can't be let in. Would catch: a
 * client that is hung up on without a word, or that waits at the socket for ever, because the
 * daemon has no descriptors left; one that is kept out when there are some again; a log that a peer
 * can fill.
 */

#include "ipc/handshake.h"
#include "tests/support/daemon_fixture.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define FDS_MAX 4096

/* The limit that leaves the daemon n descriptors, which are the lowest unused numbers. */
static rlim_t limit_for(pid_t pid, unsigned n)
{
    static bool used[FDS_MAX];
    const struct dirent *e;
    char path[64];
    rlim_t limit;
    DIR *dir;

    memset(used, 0, sizeof(used));
    (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    dir = opendir(path);
    assert_non_null(dir);
    while ((e = readdir(dir)))
        if (e->d_name[0] != '.')
            used[atoi(e->d_name)] = true;
    (void)closedir(dir);
    for (limit = 0; n > 0 || used[limit]; limit++)
        n -= !used[limit];
    return limit;
}

static void set_limit(pid_t pid, rlim_t n)
{
    struct rlimit l;

    assert_int_equal(prlimit(pid, RLIMIT_NOFILE, NULL, &l), 0);
    l.rlim_cur = n;
    assert_int_equal(prlimit(pid, RLIMIT_NOFILE, &l, NULL), 0);
}

/* With this many descriptors there is no client, and it hears why. With one more it comes in. */
static void test_no_descriptors(void **state)
{
    struct daemon_fixture d;
    struct rlimit before;
    gist_conn *conn;
    unsigned n;

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, NULL);
    assert_int_equal(prlimit(d.pid, RLIMIT_NOFILE, NULL, &before), 0);
    for (n = 0; n < 16; n++) {
        int r;

        set_limit(d.pid, limit_for(d.pid, n));
        r = gist_connect(d.socket, "test", &conn);
        if (r == 0)
            break;
        assert_int_equal(r, -ECONNREFUSED);
        if (!strstr(gist_error(NULL), "file descriptors"))
            fail_msg("with %u: %s", n, gist_error(NULL));
    }
    /* A client takes five; the last one that was refused may have left its one just now. */
    assert_in_range(n, 4, 5);
    assert_int_equal(gist_connect(d.socket, "test", &(gist_conn *){ NULL }), -ECONNREFUSED);
    assert_int_equal(gist_ping(conn), 0); /* who is in notices nothing */
    set_limit(d.pid, before.rlim_cur);
    gist_disconnect(daemon_fixture_connect(&d));
    gist_disconnect(conn);
    assert_non_null(strstr(daemon_fixture_log(&d), "file descriptors"));
    daemon_fixture_stop(&d);
}

static void say_something_else(const struct daemon_fixture *d)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    struct handshake_answer answer;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    memcpy(a.sun_path, d->socket, strlen(d->socket));
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(send(fd, "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
    assert_int_equal(recv(fd, &answer, sizeof(answer), 0), sizeof(answer));
    assert_int_equal(answer.status, HANDSHAKE_BAD_REQUEST);
    (void)close(fd);
}

#define N_HELLOS 2000u

/* Lines do not grow with what a peer does, and none is left out without being counted. */
static void test_log_has_a_limit(void **state)
{
    static const char bad[] = "its hello is not gistd's", more[] = " more lines about clients";
    double start = daemon_fixture_ms(), seconds;
    unsigned said = 0, left_out = 0;
    struct daemon_fixture d;
    const char *log;

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, NULL);
    for (unsigned i = 0; i < N_HELLOS; i++)
        say_something_else(&d);
    daemon_fixture_stop(&d);
    seconds = (daemon_fixture_ms() - start) / 1e3;
    log = daemon_fixture_log(&d);
    for (const char *p = log; (p = strstr(p, bad)); p++)
        said++;
    for (const char *p = log; (p = strstr(p, more)); p++) {
        const char *number = p;

        while (number[-1] >= '0' && number[-1] <= '9')
            number--;
        left_out += (unsigned)atoi(number);
    }
    assert_true(said > 0 && said <= 21 + (unsigned)(seconds / 2));
    assert_int_equal(said + left_out, N_HELLOS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_descriptors),
        cmocka_unit_test(test_log_has_a_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
