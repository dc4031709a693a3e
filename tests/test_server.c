/* Would catch: a client that talks to whoever made a socket at the daemon's path, or does not when
 * it is told to; options of an earlier library that are refused. Only root can be two users.
 */
#include "client/gist.h"

#include "tests/support/scratch.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define OTHER_UID 54321u

static char path[SCRATCH_PATH_MAX];

/* A server of another user: it takes one connection, and ends with the number of bytes that came,
 * or 100 if it could not. Its socket listens when this returns. */
static pid_t start_server(void)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int ready[2], fd, sock;
    char buf[64];
    pid_t pid;
    ssize_t n;

    memcpy(a.sun_path, path, strlen(path));
    (void)unlink(path);
    assert_int_equal(pipe(ready), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
        if (setuid(OTHER_UID) < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ||
            listen(fd, 1) < 0 || write(ready[1], "x", 1) != 1)
            _exit(100);
        sock = accept(fd, NULL, NULL);
        n = sock < 0 ? 100 : recv(sock, buf, sizeof(buf), 0);
        _exit(n < 0 ? 100 : (int)n);
    }
    (void)close(ready[1]);
    assert_int_equal(read(ready[0], buf, 1), 1);
    (void)close(ready[0]);
    return pid;
}

static int heard(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void trusts_nobody_else(void **state)
{
    struct gist_connect_opts o = { .size = sizeof(o), .path = path, .timeout_ms = 20000 };
    gist_conn *c;
    pid_t pid;

    (void)state;
    pid = start_server();
    assert_int_equal(gist_connect_with(&o, &c), -EPERM);
    assert_int_equal(gist_error_code(NULL), GIST_E_TRANSPORT);
    assert_non_null(strstr(gist_error(NULL), "is served by user 54321"));
    assert_int_equal(heard(pid), 0);

    pid = start_server();
    o.flags = GIST_ANY_SERVER;
    assert_true(gist_connect_with(&o, &c) < 0); /* it hangs up instead of answering */
    assert_in_range(heard(pid), 8, 64);         /* but it was greeted */
}

/* Compiled when there were no flags: the field behind the end is not read. */
static void takes_earlier_options(void **state)
{
    struct gist_connect_opts o = { .size = offsetof(struct gist_connect_opts, flags),
                                   .path = path,
                                   .timeout_ms = 20000,
                                   .flags = ~0u };
    gist_conn *c;
    pid_t pid;

    (void)state;
    pid = start_server();
    assert_int_equal(gist_connect_with(&o, &c), -EPERM);
    assert_int_equal(heard(pid), 0);
    o.size = sizeof(o);
    assert_int_equal(gist_connect_with(&o, &c), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trusts_nobody_else),
        cmocka_unit_test(takes_earlier_options),
    };
    char folder[SCRATCH_PATH_MAX];

    if (geteuid() != 0) {
        (void)puts("only root can be two users");
        return 77;
    }
    (void)snprintf(path, sizeof(path), "%s", scratch_path(folder, "gistd.sock"));
    *strrchr(folder, '/') = '\0';
    if (chmod(folder, 0777) < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
