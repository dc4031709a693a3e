/* Would catch: a machine that denies io_uring and a daemon that then does not start, does not say
 * what stood against it, or finds out in the middle of its work. Each denial is a real one, in a
 * process of its own.
 */
#include "store/io.h"

#include "tests/support/deny.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define DISABLED "/proc/sys/kernel/io_uring_disabled"
#define NOBODY   65534

/* What the process in which it is denied has found. */
struct told {
    int automatic, forced, registered;
    char name[16], why[WHY_MAX], forced_why[WHY_MAX];
    bool works;
};

/* One page there and back. */
static bool works(struct io *io, int fd, char *mem)
{
    struct io_done d[3];
    uint32_t n = 0;

    memset(mem, 'x', 4096);
    for (uint64_t i = 0; i < 3; i++) {
        struct io_op op = { .code = i == 2 ? IO_READ : IO_WRITE,
                            .fd = fd,
                            .mem = mem + 4096 * i,
                            .len = 4096,
                            .off = 4096 * (i == 1),
                            .link = i < 2,
                            .cookie = i };

        if (io_queue(io, &op) < 0)
            return false;
    }
    while (n < 3) {
        if (io_wait(io) < 0)
            return false;
        n += io_reap(io, d + n, 3 - n);
    }
    return d[0].result == 4096 && d[1].result == 4096 && d[2].result == 4096 &&
           memcmp(mem, mem + 8192, 4096) == 0;
}

static void find_out(int fd, struct told *ret)
{
    struct io_options o = { .kind = IO_AUTO }, forced = { .kind = IO_URING };
    struct why why = { "" };
    char *mem = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct io *io;

    ret->automatic = io_open(&o, &io, &why);
    if (ret->automatic == 0 && mem != MAP_FAILED) {
        (void)snprintf(ret->name, sizeof(ret->name), "%s", io_name(io));
        (void)snprintf(ret->why, sizeof(ret->why), "%s", io_why(io));
        ret->registered = io_register(io, mem, 1 << 20);
        ret->works = works(io, fd, mem);
        io_close(io);
    }
    ret->forced = io_open(&forced, &io, &why);
    (void)snprintf(ret->forced_why, sizeof(ret->forced_why), "%s", why.text);
    if (ret->forced == 0)
        io_close(io);
}

static void in_a_child(int (*deny)(void), struct told *ret)
{
    char path[SCRATCH_PATH_MAX];
    int fd = open(scratch_path(path, "file"), O_RDWR | O_CREAT | O_CLOEXEC, 0600), pipes[2], status;
    pid_t pid;

    assert_true(fd >= 0);
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct told t = { .automatic = 1 };

        if (deny() < 0)
            _exit(2);
        find_out(fd, &t);
        _exit(write(pipes[1], &t, sizeof(t)) == sizeof(t) ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(read(pipes[0], ret, sizeof(*ret)), sizeof(*ret));
    assert_int_equal(close(pipes[0]), 0);
    assert_int_equal(close(pipes[1]), 0);
    assert_int_equal(close(fd), 0);
}

/* --- seccomp ---------------------------------------------------------------------------------- */

static int setup_not_permitted(void)
{
    return deny_call(__NR_io_uring_setup, EPERM);
}

static int setup_unknown(void)
{
    return deny_call(__NR_io_uring_setup, ENOSYS);
}

/* A ring that may be made and not used. */
static int enter_not_permitted(void)
{
    return deny_call(__NR_io_uring_enter, EPERM);
}

static void a_filter_denies(void **state)
{
    static const struct {
        int (*deny)(void);
        int error;
        const char *word;
    } cases[] = {
        { setup_not_permitted, -EPERM, "not permitted" },
        { setup_unknown, -ENOSYS, "no io_uring" },
        { enter_not_permitted, -EPERM, "not permitted" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct told t;

        in_a_child(cases[i].deny, &t);
        assert_int_equal(t.automatic, 0);
        assert_string_equal(t.name, "threads");
        assert_true(t.works);
        assert_non_null(strstr(t.why, "seccomp"));
        /* A machine may have said no before our filter did. */
        if (access(DISABLED, F_OK) == 0 && t.forced == cases[i].error)
            assert_non_null(strstr(t.why, cases[i].word));
        assert_true(t.forced < 0);
        assert_string_equal(t.forced_why, t.why);
        assert_null(strchr(t.why, '\n'));
    }
}

/* --- a user with little ----------------------------------------------------------------------- */

static int become_nobody(void)
{
    struct rlimit small = { 64 << 10, 64 << 10 };

    if (setrlimit(RLIMIT_MEMLOCK, &small) < 0)
        return -1;
    if (geteuid() == 0 && (setgid(NOBODY) < 0 || setuid(NOBODY) < 0))
        return -1;
    return prctl(PR_SET_DUMPABLE, 1); /* as after exec: its own /proc is its own */
}

/* 64 kB of locked memory: kernels before 5.12 count the ring itself, later ones what is
 * registered. Either way it works, and says what was refused. */
static void little_memory_may_be_locked(void **state)
{
    struct told t;

    (void)state;
    in_a_child(become_nobody, &t);
    assert_int_equal(t.automatic, 0);
    assert_true(t.works);
    assert_true(t.registered < 0);
    if (strcmp(t.name, "io_uring") == 0) {
        assert_int_equal(t.registered, -ENOMEM);
        assert_int_equal(t.forced, 0);
        assert_string_equal(t.why, "");
    } else {
        assert_true(strlen(t.why) > 20);
    }
}

/* 1: for all but root and a group, so that nobody else on this machine has to do without. */
static void the_administrator_denies(void **state)
{
    struct told t;
    char was = 0;
    int fd = open(DISABLED, O_RDWR | O_CLOEXEC);

    (void)state;
    if (fd < 0 || geteuid() != 0 || read(fd, &was, 1) != 1 || was != '0' ||
        pwrite(fd, "1", 1, 0) != 1) {
        printf("skipped: kernel.io_uring_disabled can't be set here\n");
        if (fd >= 0)
            (void)close(fd);
        skip();
    }
    in_a_child(become_nobody, &t);
    assert_int_equal(pwrite(fd, "0", 1, 0), 1);
    assert_int_equal(close(fd), 0);
    assert_int_equal(t.automatic, 0);
    assert_string_equal(t.name, "threads");
    assert_true(t.works);
    assert_int_equal(t.forced, -EPERM);
    assert_non_null(strstr(t.why, "kernel.io_uring_disabled is 1"));
    assert_string_equal(t.forced_why, t.why);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_filter_denies),
        cmocka_unit_test(little_memory_may_be_locked),
        cmocka_unit_test(the_administrator_denies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
