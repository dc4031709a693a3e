/* tests/test_pressure.c - who tells the daemon that memory is short. Would catch: a trigger that is
 * not what the kernel, or systemd, wants written; the machine's file asked although the cgroup's
 * can be; a FIFO that is not emptied, and wakes for ever; memory given back more often than once in
 * PRESSURE_NS; a daemon that does not start without such files.
 */
#include "daemon/log.h"
#include "daemon/pressure.h"
#include "tests/support/scratch.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char root[SCRATCH_PATH_MAX];
static struct config config;

static void make_folder(const char *name)
{
    char path[SCRATCH_PATH_MAX + 64];

    (void)snprintf(path, sizeof(path), "%s%s", root, name);
    (void)mkdir(path, 0700);
}

static void make_file(const char *name, const char *text)
{
    char path[SCRATCH_PATH_MAX + 64];
    FILE *f;

    (void)snprintf(path, sizeof(path), "%s%s", root, name);
    f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/* What stands in it; "" when it is not there. */
static const char *text_of(const char *name)
{
    char path[SCRATCH_PATH_MAX + 64];
    static char text[256];
    size_t n = 0;
    FILE *f;

    (void)snprintf(path, sizeof(path), "%s%s", root, name);
    f = fopen(path, "re");
    if (f) {
        n = fread(text, 1, sizeof(text) - 1, f);
        (void)fclose(f);
    }
    text[n] = '\0';
    return text;
}

static int make_root(void **state)
{
    (void)state;
    config_defaults(&config);
    (void)unsetenv("MEMORY_PRESSURE_WATCH");
    (void)unsetenv("MEMORY_PRESSURE_WRITE");
    (void)scratch_path(root, "root");
    make_folder("");
    make_folder("/proc");
    make_folder("/proc/self");
    make_folder("/proc/pressure");
    make_folder("/sys");
    make_folder("/sys/fs");
    make_folder("/sys/fs/cgroup");
    make_folder("/sys/fs/cgroup/a");
    make_file("/proc/self/cgroup", "4:memory:/b\n0::/a\n");
    make_file("/proc/pressure/memory", "some avg10=0.00\n");
    make_file("/sys/fs/cgroup/a/memory.pressure", "some avg10=0.00\n");
    return 0;
}

/* The cgroup's own, else the machine's, else none. */
static void own_files(void **state)
{
    char path[SCRATCH_PATH_MAX + 64];
    struct pressure p;

    (void)state;
    pressure_open(&p, &config, root);
    assert_true(p.fd >= 0);
    assert_int_equal(p.events, EPOLLPRI);
    assert_string_equal(text_of("/sys/fs/cgroup/a/memory.pressure"), "some 200000 2000000");
    assert_string_equal(text_of("/proc/pressure/memory"), "some avg10=0.00\n");
    pressure_close(&p);

    (void)snprintf(path, sizeof(path), "%s/sys/fs/cgroup/a/memory.pressure", root);
    assert_int_equal(unlink(path), 0);
    pressure_open(&p, &config, root);
    assert_true(p.fd >= 0);
    assert_string_equal(text_of("/proc/pressure/memory"), "some 200000 2000000");
    pressure_close(&p);

    (void)snprintf(path, sizeof(path), "%s/proc/pressure/memory", root);
    assert_int_equal(unlink(path), 0);
    pressure_open(&p, &config, root);
    assert_int_equal(p.fd, -1);
    pressure_close(&p);
}

static void options(void **state)
{
    struct pressure p;

    (void)state;
    (void)strcpy(config.pressure, "none");
    pressure_open(&p, &config, root);
    assert_int_equal(p.fd, -1);
    assert_string_equal(text_of("/sys/fs/cgroup/a/memory.pressure"), "some avg10=0.00\n");
    (void)snprintf(config.pressure, sizeof(config.pressure), "%s/proc/pressure/memory", root);
    pressure_open(&p, &config, root);
    assert_true(p.fd >= 0);
    assert_string_equal(text_of("/proc/pressure/memory"), "some 200000 2000000");
    pressure_close(&p);
}

/* As systemd names it. */
static void service_manager(void **state)
{
    char path[SCRATCH_PATH_MAX + 64];
    struct pressure p;

    (void)state;
    (void)snprintf(path, sizeof(path), "%s/proc/pressure/memory", root);
    assert_int_equal(setenv("MEMORY_PRESSURE_WATCH", path, 1), 0);
    assert_int_equal(setenv("MEMORY_PRESSURE_WRITE", "c29tZSAxMDAwMDAgMjAwMDAwMAA=", 1), 0);
    pressure_open(&p, &config, root);
    assert_true(p.fd >= 0);
    assert_memory_equal(text_of("/proc/pressure/memory"), "some 100000 2000000", 20);
    pressure_close(&p);
    assert_int_equal(setenv("MEMORY_PRESSURE_WRITE", "c29t*", 1), 0);
    pressure_open(&p, &config, root);
    assert_int_equal(p.fd, -1);
    assert_int_equal(setenv("MEMORY_PRESSURE_WATCH", "/dev/null", 1), 0);
    pressure_open(&p, &config, root);
    assert_int_equal(p.fd, -1);
}

/* Each write is taken, and one in PRESSURE_NS counts. */
static void a_fifo(void **state)
{
    struct epoll_event ev = { .events = EPOLLIN };
    char path[SCRATCH_PATH_MAX + 64];
    uint64_t now = PRESSURE_NS;
    int epoll = epoll_create1(EPOLL_CLOEXEC), fd;
    struct pressure p;
    bool gone = true;

    (void)state;
    (void)snprintf(path, sizeof(path), "%s/fifo", root);
    (void)unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    (void)snprintf(config.pressure, sizeof(config.pressure), "%s", path);
    pressure_open(&p, &config, root);
    assert_true(p.fd >= 0);
    assert_int_equal(p.events, EPOLLIN);
    assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_ADD, p.fd, &ev), 0);
    assert_int_equal(epoll_wait(epoll, &ev, 1, 0), 0);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(write(fd, "xyz", 3), 3);
        assert_int_equal(epoll_wait(epoll, &ev, 1, 0), 1);
        assert_int_equal(pressure_take(&p, ev.events, now + (unsigned)i, &gone), i == 0);
        assert_false(gone);
        assert_int_equal(epoll_wait(epoll, &ev, 1, 0), 0);
    }
    assert_true(pressure_take(&p, EPOLLIN, now + PRESSURE_NS, &gone));
    (void)close(fd);
    (void)close(epoll);
    pressure_close(&p);
}

/* The kernel says so of a file whose cgroup was removed. */
static void gone(void **state)
{
    struct pressure p;
    bool is_gone;

    (void)state;
    pressure_open(&p, &config, root);
    assert_false(pressure_take(&p, EPOLLERR, PRESSURE_NS, &is_gone));
    assert_true(is_gone);
    pressure_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(own_files, make_root),
        cmocka_unit_test_setup(options, make_root),
        cmocka_unit_test_setup(service_manager, make_root),
        cmocka_unit_test_setup(a_fifo, make_root),
        cmocka_unit_test_setup(gone, make_root),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
