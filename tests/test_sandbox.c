/* Would catch: a daemon that still may start programs, map code, open other people's files or speak
 * over a network; one whose denied call is not named in the log, or named at each try; a thread
 * that is not covered; --sandbox that is not obeyed; a daemon that says nothing of what its kernel
 * lacks.
 *
 * That the lists are long enough is what every other test of a real daemon proves: the fixtures
 * look for a denied call in its log.
 */
#include "base/sanitized.h"
#include "daemon/calls.h"
#include "daemon/landlock.h"
#include "daemon/log.h"
#include "tests/support/count.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/deny.h"
#include "tests/support/scratch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* --- system calls ------------------------------------------------------------------------------
 */

struct ended {
    int status;      /* of waitpid */
    char text[2048]; /* what it logged */
};

/* Runs try() in a process of its own, behind the filter. It ends by _exit: 0, all was as expected.
 */
static struct ended behind_filter(bool driver, int (*try)(void))
{
    struct ended e = { .status = -1 };
    size_t n = 0;
    ssize_t got;
    int pipes[2];
    pid_t pid;

    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        unsigned calls;

        (void)dup2(pipes[1], STDERR_FILENO);
        log_open(LOG_LEVEL_INFO);
        _exit(calls_limit(driver, &calls) == 0 ? try() : 99);
    }
    (void)close(pipes[1]);
    while (n < sizeof(e.text) - 1 && (got = read(pipes[0], e.text + n, sizeof(e.text) - 1 - n)) > 0)
        n += (size_t)got;
    (void)close(pipes[0]);
    assert_int_equal(waitpid(pid, &e.status, 0), pid);
    return e;
}

static bool refused(long r)
{
    return r < 0 && errno == EPERM;
}

/* Twice: the second time it is not worth a line. */
static int calls_what_is_not_listed(void)
{
    for (int i = 0; i < 2; i++)
        if (!refused(syscall(SYS_sched_setattr, 0, NULL, 0)) ||
            !refused(socket(AF_INET, SOCK_STREAM, 0)))
            return 1;
    return 0;
}

static void names_what_it_denies(void **state)
{
    struct ended e;

    (void)state;
    if (SANITIZED) /* there is no list then */
        skip();
    e = behind_filter(false, calls_what_is_not_listed);
    assert_int_equal(e.status, 0);
    assert_int_equal(count_of(e.text, "system call sched_setattr,"), 1);
    assert_int_equal(count_of(e.text, "system call socket,"), 1);
}

static void *nothing(void *arg)
{
    return arg;
}

/* What serving stands on, and what only looks like it. */
static int calls_what_is_listed(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    pthread_t t;
    void *p;

    if (fd < 0 || write(fd, "x", 1) != 1 || socket(AF_UNIX, SOCK_DGRAM, 0) < 0)
        return 1;
    if (pthread_create(&t, NULL, nothing, NULL) != 0 || pthread_join(t, NULL) != 0)
        return 2;
    p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return 3;
    if (SANITIZED)
        return 0;
    if (!refused(mprotect(p, 4096, PROT_READ | PROT_EXEC)))
        return 4;
    if (mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
        return 5;
    /* The C library goes on to clone, whose flags can be looked at. */
    return syscall(SYS_clone3, NULL, 0) < 0 && errno == ENOSYS ? 0 : 6;
}

static void lets_it_serve(void **state)
{
    struct ended e = behind_filter(false, calls_what_is_listed);

    (void)state;
    if (e.status != 0)
        print_message("%s", e.text);
    assert_int_equal(e.status, 0);
}

static int starts_a_program(void)
{
    char *argv[] = { (char *)"true", NULL };

    (void)execv("/bin/true", argv);
    return 1;
}

static int makes_a_process(void)
{
    return fork() == 0 ? 0 : 1;
}

static int mounts(void)
{
    (void)syscall(SYS_mount, "none", "/", "tmpfs", 0, NULL);
    return 1;
}

static void ends_by(bool driver, int (*try)(void), const char *name)
{
    struct ended e = behind_filter(driver, try);

    assert_true(WIFSIGNALED(e.status));
    assert_int_equal(WTERMSIG(e.status), SIGSYS);
    assert_int_equal(count_of(e.text, name), 1);
    assert_int_equal(count_of(e.text, "foreign code"), 1);
}

/* With a GPU's driver, too, where all else is allowed. */
static void ends_an_intruder(void **state)
{
    struct ended e;

    (void)state;
    for (int driver = 0; driver < 2; driver++) {
        ends_by(driver, mounts, "system call mount,");
        if (!SANITIZED)
            ends_by(driver, starts_a_program, "system call execve,");
    }
    if (!SANITIZED) {
        e = behind_filter(false, makes_a_process);
        assert_int_equal(count_of(e.text, "system call clone,"), 1);
        assert_int_equal(e.status, 1 << 8); /* refused, and it goes on */
    }
}

/* --- files -------------------------------------------------------------------------------------
 */

static void path(char ret[SCRATCH_PATH_MAX], const char *name, bool folder)
{
    int fd;

    (void)scratch_path(ret, name);
    if (folder) {
        assert_int_equal(mkdir(ret, 0700), 0);
        return;
    }
    fd = open(ret, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    (void)close(fd);
}

static int at(const char *folder, const char *name, int flags)
{
    char p[2 * SCRATCH_PATH_MAX];
    int fd;

    (void)snprintf(p, sizeof(p), "%s/%s", folder, name);
    fd = open(p, flags | O_CLOEXEC, 0600);
    if (fd >= 0)
        (void)close(fd);
    return fd < 0 ? -errno : 0;
}

/* A number for each thing that is not as it should be; 77: no Landlock here. */
static int stays_in(const struct landlock_place *p, size_t n)
{
    char socket[2 * SCRATCH_PATH_MAX];
    int r = landlock_limit(p, n, false, NULL);

    if (r == -ENOSYS || r == -EOPNOTSUPP)
        return 77;
    if (r < 0)
        return 1;
    if (at(p[0].path, "", O_RDONLY) != -ENOTDIR || open(p[0].path, O_RDONLY | O_CLOEXEC) < 0)
        return 2;
    if (open(p[0].path, O_WRONLY | O_CLOEXEC) >= 0 || errno != EACCES)
        return 3;
    if (at(p[1].path, "new", O_CREAT | O_RDWR) != 0 ||
        at(p[1].path, "new", O_WRONLY | O_TRUNC) != 0)
        return 4;
    if (at(p[2].path, "new", O_CREAT | O_RDWR) != -EACCES ||
        at(p[2].path, "socket", O_RDONLY) != -EACCES)
        return 5;
    (void)snprintf(socket, sizeof(socket), "%s/socket", p[2].path);
    if (unlink(socket) < 0)
        return 6;
    return at("/etc", "passwd", O_RDONLY) == -EACCES ? 0 : 7;
}

static void keeps_to_its_files(void **state)
{
    char model[SCRATCH_PATH_MAX], store[SCRATCH_PATH_MAX], run[SCRATCH_PATH_MAX],
        sock[SCRATCH_PATH_MAX];
    const struct landlock_place places[] = { { model, LANDLOCK_READ },
                                             { store, LANDLOCK_KEEP },
                                             { run, LANDLOCK_REMOVE },
                                             { "/nonexistent", LANDLOCK_KEEP } };
    int status;
    pid_t pid;

    (void)state;
    path(model, "model", false);
    path(store, "kept", true);
    path(run, "run", true);
    path(sock, "run/socket", false);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(stays_in(places, sizeof(places) / sizeof(places[0])));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WEXITSTATUS(status) == 77) {
        print_message("this kernel has no Landlock\n");
        skip();
    }
    assert_int_equal(status, 0);
}

/* --- the daemon --------------------------------------------------------------------------------
 */

/* Every thread's status has the line. */
static bool all_have(const struct daemon_fixture *d, const char *line)
{
    char folder[64], file[512], text[8192];
    unsigned n = 0, all = 0;
    struct dirent *e;
    DIR *tasks;

    (void)snprintf(folder, sizeof(folder), "/proc/%d/task", (int)d->pid);
    tasks = opendir(folder);
    assert_non_null(tasks);
    while ((e = readdir(tasks))) {
        FILE *f;
        size_t len;

        if (e->d_name[0] == '.')
            continue;
        (void)snprintf(file, sizeof(file), "%s/%s/status", folder, e->d_name);
        f = fopen(file, "re");
        len = f ? fread(text, 1, sizeof(text) - 1, f) : 0;
        text[len] = '\0';
        if (f)
            (void)fclose(f);
        all++;
        n += strstr(text, line) != NULL;
    }
    (void)closedir(tasks);
    return all >= 3 && n == all;
}

static void covers_every_thread(void **state)
{
    const char *off[] = { "--sandbox", "no", NULL };
    struct daemon_fixture d;

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, NULL);
    assert_true(all_have(&d, "\nSeccomp:\t2\n"));
    assert_true(all_have(&d, "\nNoNewPrivs:\t1\n"));
    assert_non_null(strstr(daemon_fixture_log(&d), "sandbox: "));
    daemon_fixture_stop(&d);
    assert_int_equal(access(d.socket, F_OK), -1);

    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, off);
    assert_true(all_have(&d, "\nSeccomp:\t0\n"));
    assert_non_null(strstr(daemon_fixture_log(&d), "the sandbox is off (--sandbox no)"));
    daemon_fixture_stop(&d);
}

/* Last: this process is denied it as well from here on. */
static void says_what_the_kernel_lacks(void **state)
{
    const char *insists[] = { "--model",   daemon_fixture_model(DAEMON_FIXTURE_TINY),
                              "--sandbox", "yes",
                              "--socket",  NULL,
                              NULL };
    char sock[SCRATCH_PATH_MAX];
    struct daemon_fixture d;

    (void)state;
    insists[5] = scratch_path(sock, "insists.sock");
    assert_int_equal(deny_call(SYS_landlock_create_ruleset, ENOSYS), 0);
    daemon_fixture_spawn(&d, insists);
    assert_int_equal(daemon_fixture_wait(&d), 1);
    assert_non_null(strstr(daemon_fixture_log(&d), "option sandbox: the files that gistd may open "
                                                   "(Landlock) can't be limited: "));
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, NULL);
    assert_non_null(strstr(daemon_fixture_log(&d), "the sandbox is not complete: the files"));
    daemon_fixture_stop(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_what_it_denies), cmocka_unit_test(lets_it_serve),
        cmocka_unit_test(ends_an_intruder),     cmocka_unit_test(keeps_to_its_files),
        cmocka_unit_test(covers_every_thread),  cmocka_unit_test(says_what_the_kernel_lacks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
