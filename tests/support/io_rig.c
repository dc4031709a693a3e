#include "tests/support/io_rig.h"

#include "tests/support/io_faulty.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

int io_rig_try(struct io_rig *g, enum io_kind kind, uint32_t depth)
{
    bool faulty = kind == IO_RIG_FAULTY;
    struct io_options o = { .kind = faulty ? IO_THREADS : kind,
                            .depth = faulty ? 2 * depth : depth,
                            .threads = 2 };
    char path[SCRATCH_PATH_MAX];
    int r;

    *g = (struct io_rig){ .io = NULL };
    for (uint32_t i = 0; i < N_COOKIES; i++)
        g->got[i] = PENDING;
    (void)mkdir(scratch_path(path, "io"), 0700);
    g->folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(g->folder >= 0);
    r = io_open(&o, &g->io, NULL);
    if (r < 0 || !faulty)
        return r;
    r = io_faulty_open(g->io, &g->io);
    io_faulty_shuffle(g->io, 0x5eed);
    return r;
}

void io_rig_open(struct io_rig *g, enum io_kind kind)
{
    assert_int_equal(io_rig_try(g, kind, 32), 0);
}

void io_rig_close(struct io_rig *g)
{
    io_close(g->io);
    assert_int_equal(close(g->folder), 0);
}

static void note(struct io_rig *g, const struct io_done *d, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        assert_true(d[i].cookie < N_COOKIES);
        assert_true(g->got[d[i].cookie] == PENDING);
        g->got[d[i].cookie] = d[i].result;
        g->n_got++;
    }
}

uint32_t io_rig_reap(struct io_rig *g, uint32_t cap)
{
    struct io_done d[N_COOKIES];
    uint32_t n = io_reap(g->io, d, cap);

    note(g, d, n);
    return n;
}

void io_rig_put(struct io_rig *g, const struct io_op *op)
{
    g->got[op->cookie] = PENDING;
    assert_int_equal(io_queue(g->io, op), 0);
}

/* Until that one has come back. */
int64_t io_rig_result(struct io_rig *g, uint64_t cookie)
{
    while (g->got[cookie] == PENDING) {
        int r = io_wait(g->io);

        assert_true(r == 0 || r == -EINTR);
        (void)io_rig_reap(g, N_COOKIES);
    }
    return g->got[cookie];
}

int64_t io_rig_one(struct io_rig *g, struct io_op op)
{
    io_rig_put(g, &op);
    assert_int_equal(io_submit(g->io), 0);
    return io_rig_result(g, op.cookie);
}

bool io_rig_readable(const struct io_rig *g)
{
    struct pollfd p = { .fd = io_eventfd(g->io), .events = POLLIN };

    return poll(&p, 1, 0) == 1;
}

void io_rig_wait_readable(const struct io_rig *g)
{
    struct pollfd p = { .fd = io_eventfd(g->io), .events = POLLIN };

    while (poll(&p, 1, -1) != 1)
        assert_int_equal(errno, EINTR);
}

int io_rig_file(struct io_rig *g, const char *name, int flags)
{
    int64_t fd = io_rig_one(g, (struct io_op){ .code = IO_OPEN,
                                               .fd = g->folder,
                                               .path = name,
                                               .flags = O_RDWR | O_CREAT | O_TRUNC | flags,
                                               .mode = 0600 });

    assert_true(fd >= 0);
    return (int)fd;
}

char *io_rig_pages(size_t n, char fill)
{
    char *p = aligned_alloc(IO_ALIGN, n);

    assert_non_null(p);
    memset(p, fill, n);
    return p;
}

/* A FIFO whose open blocks until io_rig_let_through(): an operation that is out for sure. O_CREAT,
 * since io_uring opens it without waiting otherwise. */
void io_rig_gate(struct io_rig *g, struct io_op *ret, uint64_t cookie)
{
    (void)unlinkat(g->folder, "gate", 0);
    assert_int_equal(mkfifoat(g->folder, "gate", 0600), 0);
    *ret = (struct io_op){ .code = IO_OPEN,
                           .fd = g->folder,
                           .path = "gate",
                           .flags = O_RDONLY | O_CREAT,
                           .mode = 0600,
                           .cookie = cookie };
}

/* Waits until someone stands at the gate, and lets him through. */
void io_rig_let_through(const struct io_rig *g)
{
    int fd;

    while ((fd = openat(g->folder, "gate", O_WRONLY | O_NONBLOCK | O_CLOEXEC)) < 0) {
        assert_int_equal(errno, ENXIO);
        (void)sched_yield();
    }
    assert_int_equal(close(fd), 0);
}

/* --- each on all ----------------------------------------------------------------------------- */

struct variant {
    const struct io_rig_test *test;
    enum io_kind kind;
    char name[80];
};

static void run_one(void **state)
{
    const struct variant *b = *state;

    b->test->run(b->kind);
}

int io_rig_run(const struct io_rig_test *tests, size_t n)
{
    static const enum io_kind kinds[] = { IO_URING, IO_THREADS, IO_RIG_FAULTY };
    static const char *const names[] = { "io_uring", "threads", "faulty" };
    static struct variant variants[3 * IO_RIG_TESTS_MAX];
    static struct CMUnitTest units[3 * IO_RIG_TESTS_MAX];
    struct io_options o = { .kind = IO_URING };
    struct why why = { "" };
    struct io *io = NULL;
    bool uring = io_open(&o, &io, &why) == 0;
    size_t n_units = 0;

    io_close(io);
    if (!uring)
        printf("not tested on io_uring: %s\n", why.text);
    assert_true(n <= IO_RIG_TESTS_MAX);
    for (size_t i = 0; i < n; i++)
        for (int k = uring ? 0 : 1; k < 3; k++) {
            struct variant *b = &variants[n_units];

            *b = (struct variant){ .test = &tests[i], .kind = kinds[k] };
            (void)snprintf(b->name, sizeof(b->name), "%s: %s", names[k], tests[i].name);
            units[n_units++] = (struct CMUnitTest){ b->name, run_one, NULL, NULL, b };
        }
    return _cmocka_run_group_tests("io", units, n_units, NULL, NULL);
}
