/* Would catch: a full queue that takes one more; a cancel that loses an operation, or one that was
 * cancelled and done all the same; a close that leaves the kernel writing to freed memory, a
 * descriptor open or a thread behind; idle threads that wake up, or take the program's signals.
 * Each on io_uring, on threads, and on the faulty one that tests
 * of others use, when it has no faults.
 */
#include "store/io.h"

#include "tests/support/fault.h"
#include "tests/support/io_rig.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* --- depth, cancel, drain, close -------------------------------------------------------------- */

static void is_full_at_its_depth(enum io_kind kind)
{
    struct io_op op = { .code = IO_UNLINK, .path = "none" };
    struct io_rig g;

    assert_int_equal(io_rig_try(&g, kind, 5), 0);
    op.fd = g.folder;
    assert_int_equal(io_depth(g.io), 5);
    for (int round = 0; round < 3; round++) {
        for (op.cookie = 0; op.cookie < 5; op.cookie++) {
            assert_int_equal(io_room(g.io), 5 - op.cookie);
            io_rig_put(&g, &op);
        }
        assert_int_equal(io_queue(g.io, &op), -EAGAIN);
        assert_int_equal(io_submit(g.io), 0);
        io_drain(g.io);
        assert_int_equal(io_queue(g.io, &op), -EAGAIN); /* back, but not reaped */
        assert_int_equal(io_rig_reap(&g, 1), 1);
        assert_int_equal(io_room(g.io), 1);
        while (io_rig_reap(&g, 2))
            ;
        assert_int_equal(io_room(g.io), 5);
        assert_int_equal(io_wait(g.io), 0); /* nothing is out: it does not wait */
    }
    io_rig_close(&g);
}

/* Threads stand before the gate, where no signal reaches them. */
static void cancels(enum io_kind kind)
{
    struct io_rig g;
    struct io_op gate[2];
    struct stat st;

    io_rig_open(&g, kind);
    assert_int_equal(close(io_rig_file(&g, "a", 0)), 0);
    for (uint64_t i = 0; i < 2; i++) {
        io_rig_gate(&g, &gate[i], i);
        gate[i].link = i == 1;
    }
    io_rig_put(&g, &gate[0]);
    io_rig_put(&g, &gate[1]);
    io_rig_put(&g, &(struct io_op){
                       .code = IO_UNLINK, .fd = g.folder, .path = "a", .link = true, .cookie = 2 });
    io_rig_put(&g, &(struct io_op){ .code = IO_SYNC, .fd = g.folder, .cookie = 3 });
    assert_int_equal(io_submit(g.io), 0);
    assert_int_equal(io_rig_reap(&g, N_COOKIES), 0);
    io_cancel(g.io, 77); /* nobody's */
    io_cancel(g.io, 1);
    io_cancel(g.io, 2);
    io_rig_let_through(&g);
    io_cancel(g.io, 0);
    while (g.got[0] == PENDING || g.got[1] == PENDING) {
        int fd = openat(g.folder, "gate", O_RDWR | O_NONBLOCK | O_CLOEXEC);

        (void)io_rig_reap(&g, N_COOKIES);
        (void)sched_yield();
        assert_int_equal(close(fd), 0);
    }
    for (uint64_t i = 0; i < 4; i++) {
        int64_t r = io_rig_result(&g, i);

        if (r > 0)
            assert_int_equal(close((int)r), 0);
        assert_true(r > 0 ? i < 2 : r == -ECANCELED);
    }
    assert_int_equal(fstatat(g.folder, "a", &st, 0), 0); /* nothing unlinked it */
    io_rig_close(&g);
}

static void cancels_what_waits(enum io_kind kind)
{
    struct io_rig g;
    struct stat st;
    int64_t r;
    int fd;

    io_rig_open(&g, kind);
    fd = io_rig_file(&g, "a", 0);
    /* One that was not even handed over. */
    io_rig_put(&g, &(struct io_op){ .code = IO_UNLINK, .fd = g.folder, .path = "a", .cookie = 5 });
    io_cancel(g.io, 5);
    assert_int_equal(io_submit(g.io), 0);
    assert_int_equal(io_rig_result(&g, 5), -ECANCELED);

    /* One that is held behind a transfer, when nothing else is out that could wake a sleeper. */
    for (uint64_t i = 6; i < 8; i++)
        io_rig_put(&g, &(struct io_op){ .code = i == 6 ? IO_WRITE : IO_SYNC,
                                        .fd = fd,
                                        .mem = "text",
                                        .len = 4,
                                        .link = i == 6,
                                        .cookie = i });
    assert_int_equal(io_submit(g.io), 0);
    io_cancel(g.io, 7);
    io_drain(g.io);
    assert_int_equal(io_rig_result(&g, 6), 4);
    r = io_rig_result(&g, 7);
    assert_true(r == -ECANCELED || r == 0);
    assert_int_equal(close(fd), 0);
    assert_int_equal(fstatat(g.folder, "a", &st, 0), 0);
    assert_false(io_rig_readable(&g));
    io_rig_close(&g);
}

static void drains(enum io_kind kind)
{
    struct io_rig g;
    char *mem = io_rig_pages(65536, 'y');
    int fd;

    io_rig_open(&g, kind);
    fd = io_rig_file(&g, "a", 0);
    for (uint64_t i = 0; i < 30; i++)
        io_rig_put(&g, &(struct io_op){ .code = i % 3 == 2 ? IO_SYNC : IO_WRITE,
                                        .fd = fd,
                                        .mem = mem,
                                        .len = 65536,
                                        .off = 65536 * i,
                                        .link = i % 3 != 2,
                                        .cookie = i });
    io_drain(g.io); /* submits too */
    free(mem);      /* nobody reads it any more */
    assert_int_equal(io_rig_reap(&g, N_COOKIES), 30);
    for (uint64_t i = 0; i < 30; i++)
        assert_int_equal(g.got[i], i % 3 == 2 ? 0 : 65536);
    io_drain(g.io);
    assert_int_equal(close(fd), 0);
    io_rig_close(&g);
}

struct friend
{
    int folder;
    _Atomic bool stop;
};

/* Lets through whoever comes until it is told to stop: perhaps nobody comes. */
static void *open_the_gate(void *arg)
{
    struct friend *f = arg;

    while (!f->stop) {
        int fd = openat(f->folder, "gate", O_WRONLY | O_NONBLOCK | O_CLOEXEC);

        if (fd >= 0)
            (void)close(fd);
        (void)sched_yield();
    }
    return NULL;
}

/* Queued, held, before the gate, being written, back but not reaped: all of them at once. */
static void closes_with_operations_out(enum io_kind kind)
{
    unsigned n = fault_n_descriptors();

    for (int round = 0; round < 20; round++) {
        struct io_rig g;
        char *mem = io_rig_pages(1 << 20, 'z');
        struct io_op gate;
        struct friend f = { .folder = -1 };
        pthread_t who;
        int fd;

        io_rig_open(&g, kind);
        fd = io_rig_file(&g, "a", round % 2 ? O_DIRECT : 0);
        io_rig_gate(&g, &gate, 0);
        gate.link = true;
        if (round % 4)
            io_rig_put(&g, &gate);
        for (uint64_t i = 1; i < 12; i++)
            io_rig_put(&g, &(struct io_op){ .code = IO_WRITE,
                                            .fd = fd,
                                            .mem = mem,
                                            .len = 1 << 20,
                                            .off = i << 20,
                                            .link = i % 4 != 0,
                                            .cookie = i });
        io_rig_put(&g,
                   &(struct io_op){ .code = IO_OPEN, .fd = g.folder, .path = "a", .cookie = 12 });
        if (round % 3)
            assert_int_equal(io_submit(g.io), 0);
        io_rig_put(&g, &(struct io_op){ .code = IO_SYNC, .fd = fd, .cookie = 13 });
        f.folder = g.folder;
        /* No signal reaches one that waits there. */
        assert_int_equal(pthread_create(&who, NULL, open_the_gate, &f), 0);
        io_close(g.io);
        free(mem);
        f.stop = true;
        assert_int_equal(pthread_join(who, NULL), 0);
        assert_int_equal(close(fd), 0);
        assert_int_equal(close(g.folder), 0);
    }
    io_close(NULL);
    assert_int_equal(fault_n_descriptors(), n);
}

/* --- registered memory ------------------------------------------------------------------------ */

static void takes_memory(enum io_kind kind)
{
    size_t n = 1 << 20;
    char *mem = io_rig_pages(n, 0), *other = io_rig_pages(8192, 0);
    struct io_rig g;
    int fd;

    io_rig_open(&g, kind);
    fd = io_rig_file(&g, "a", 0);
    for (int round = 0; round < 3; round++) {
        int r = io_register(g.io, mem, n);

        assert_true(kind != IO_URING ? r == -EOPNOTSUPP : r == 0 || r == -ENOMEM);
        for (size_t i = 0; i < n; i++)
            mem[i] = (char)(i / 512 + (size_t)round);
        /* Within it, at its last byte, and what reaches into it from outside. */
        assert_int_equal(
            io_rig_one(&g, (struct io_op){ .code = IO_WRITE, .fd = fd, .mem = mem, .len = n }), n);
        memset(mem + 4096, 0, n - 4096);
        assert_int_equal(io_rig_one(&g, (struct io_op){ .code = IO_READ,
                                                        .fd = fd,
                                                        .mem = mem + 4096,
                                                        .len = n - 4096,
                                                        .off = 4096 }),
                         n - 4096);
        assert_int_equal(
            io_rig_one(&g,
                       (struct io_op){
                           .code = IO_READ, .fd = fd, .mem = other, .len = 8192, .off = n - 8192 }),
            8192);
        for (size_t i = 0; i < n; i++)
            if (mem[i] != (char)(i / 512 + (size_t)round))
                fail_msg("round %d, byte %zu", round, i);
        assert_memory_equal(other, mem + n - 8192, 8192);
        io_unregister(g.io);
    }
    if (kind == IO_URING && io_register(g.io, mem, 4096) == 0) {
        for (size_t i = 1; i < 8; i++)
            assert_int_equal(io_register(g.io, mem + 4096 * i, 4096), 0);
        assert_int_equal(io_register(g.io, mem + 32768, 4096), -ENOSPC);
    }
    assert_int_equal(close(fd), 0);
    io_rig_close(&g);
    free(mem);
    free(other);
}

/* --- interrupted, idle, failing to open ------------------------------------------------------- */

static void hear(int signal)
{
    (void)signal;
}

struct teaser {
    pthread_t whom;
    _Atomic bool stop;
};

static void *tease(void *arg)
{
    struct teaser *t = arg;

    while (!t->stop) {
        (void)pthread_kill(t->whom, SIGUSR1);
        (void)sched_yield();
    }
    return NULL;
}

static void is_interrupted(enum io_kind kind)
{
    struct sigaction hearing = { .sa_handler = hear }, was;
    struct teaser t = { .whom = pthread_self() };
    pthread_t who;
    struct io_rig g;
    struct io_op gate;
    int64_t fd;

    io_rig_open(&g, kind);
    io_rig_gate(&g, &gate, 0);
    io_rig_put(&g, &gate);
    assert_int_equal(sigaction(SIGUSR1, &hearing, &was), 0);
    assert_int_equal(pthread_create(&who, NULL, tease, &t), 0);
    assert_int_equal(io_wait(g.io), -EINTR);
    t.stop = true;
    assert_int_equal(pthread_join(who, NULL), 0);
    assert_int_equal(sigaction(SIGUSR1, &was, NULL), 0);
    io_rig_let_through(&g);
    fd = io_rig_result(&g, 0);
    assert_true(fd > 0);
    assert_int_equal(close((int)fd), 0);
    io_rig_close(&g);
}

/* Threads that files are read by: ours, and the kernel's. A sanitizer has one of its own. */
struct helpers {
    uint32_t n, n_kernel;
    uint64_t switches; /* sleeps and wake-ups */
    uint64_t blocked;  /* signals, by all */
};

static void look_at_task(const char *task, struct helpers *h)
{
    char path[300], line[256];
    unsigned long long n;
    FILE *f;

    (void)snprintf(path, sizeof(path), "/proc/self/task/%s/status", task);
    f = fopen(path, "re");
    if (!f)
        return;
    if (fgets(line, sizeof(line), f) && (strstr(line, "gistd-io") || strstr(line, "iou-wrk"))) {
        h->n++;
        h->n_kernel += strstr(line, "iou-wrk") != NULL;
        while (fgets(line, sizeof(line), f)) {
            if (sscanf(line, "voluntary_ctxt_switches: %llu", &n) == 1)
                h->switches += n;
            if (sscanf(line, "SigBlk: %llx", &n) == 1)
                h->blocked &= n;
        }
    }
    (void)fclose(f);
}

static struct helpers helpers(void)
{
    struct helpers h = { .blocked = ~0ull };
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *e;

    assert_non_null(tasks);
    while ((e = readdir(tasks)))
        look_at_task(e->d_name, &h);
    (void)closedir(tasks);
    return h;
}

/* The test's own time: nothing can show that nothing happens but to wait for a while. */
static void sleeps_when_idle(enum io_kind kind)
{
    struct io_rig g;
    struct pollfd p;
    struct helpers before, after;
    uint32_t tries = 0;

    io_rig_open(&g, kind);
    (void)close(io_rig_file(&g, "a", 0));
    p = (struct pollfd){ .fd = io_eventfd(g.io), .events = POLLIN };
    do { /* on a busy machine one may still be on its way to sleep */
        before = helpers();
        assert_int_equal(poll(&p, 1, 100), 0);
        after = helpers();
    } while (after.switches != before.switches && ++tries < 200);
    assert_int_equal(after.switches, before.switches);
    assert_true(after.n >= 2);
    assert_true(after.blocked >> (SIGTERM - 1) & after.blocked >> (SIGUSR1 - 1) & 1);
    io_rig_close(&g);
}

/* The kernel's own pool loses work (store/io_uring.c). It keeps a worker once it had one. */
static void leaves_the_kernels_pool_alone(enum io_kind kind)
{
    size_t n = 1 << 20;
    char *mem = io_rig_pages(n, 'k');
    struct io_rig g;

    io_rig_open(&g, kind);
    for (int direct = 0; direct < 2; direct++) {
        struct io_op ops[] = {
            { .code = IO_ALLOC, .len = 8 * n },
            { .code = IO_WRITE, .mem = mem, .len = n },
            { .code = IO_WRITE, .mem = mem, .len = n, .off = n, .link = true },
            { .code = IO_SYNC },
            { .code = IO_WRITE, .mem = mem, .len = n, .off = 16 * n }, /* it grows */
            { .code = IO_WRITE, .mem = mem, .len = 4096, .off = 2 * n, .link = true },
            { .code = IO_SYNC, .link = true },
            { .code = IO_RENAME, .fd = g.folder, .path = "a", .to = "b", .link = true },
            { .code = IO_SYNC, .fd = g.folder },
            { .code = IO_READ, .mem = mem, .len = n },
            { .code = IO_READ, .mem = mem, .len = n, .off = 4 * n, .aside = true },
            { .code = IO_UNLINK, .fd = g.folder, .path = "b" },
            { .code = IO_CLOSE },
        };
        int64_t fd =
            io_rig_one(&g, (struct io_op){ .code = IO_OPEN,
                                           .fd = g.folder,
                                           .path = "a",
                                           .flags = O_RDWR | O_CREAT | (direct ? O_DIRECT : 0),
                                           .mode = 0600 });

        if (fd < 0)
            break; /* tmpfs of an older kernel */
        for (uint64_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
            ops[i].fd = ops[i].fd ? ops[i].fd : (int)fd;
            ops[i].cookie = i;
            io_rig_put(&g, &ops[i]);
            if (ops[i].link)
                continue;
            assert_true(io_rig_result(&g, i) >= 0);
            if (ops[i].code == IO_WRITE) /* and then it is read from the disk */
                assert_int_equal(posix_fadvise((int)fd, 0, 0, POSIX_FADV_DONTNEED), 0);
        }
    }
    assert_int_equal(helpers().n_kernel, 0);
    free(mem);
    io_rig_close(&g);
}

static void opens_or_leaves_nothing(enum io_kind kind)
{
    unsigned n_open = fault_n_descriptors();
    enum io_kind under = kind == IO_RIG_FAULTY ? IO_AUTO : kind; /* it has no io_open */
    struct io_options o = { .kind = under, .threads = 2 };
    struct fault f;
    struct why why;
    uint64_t n = 0;

    do {
        struct io *io = NULL;
        int r;

        why = (struct why){ "" };
        fault_arm(++n);
        r = io_open(&o, &io, &why);
        /* One thread of two is enough. */
        if (fault_disarm(&f) && r < 0) {
            assert_int_equal(r, -f.error);
            assert_true(strlen(why.text) > 20);
        } else {
            assert_int_equal(r, 0);
            if (under != IO_AUTO)
                assert_string_equal(io_name(io), under == IO_URING ? "io_uring" : "threads");
            assert_int_equal(under == IO_AUTO && !strcmp(io_name(io), "threads"),
                             io_why(io)[0] != '\0');
            io_close(io);
        }
        assert_int_equal(fault_n_descriptors(), n_open);
    } while (f.name);
    assert_true(n > 2);
}

static const struct io_rig_test contracts[] = {
    { "is full at its depth", is_full_at_its_depth },
    { "cancels", cancels },
    { "cancels what waits", cancels_what_waits },
    { "drains", drains },
    { "closes with operations out", closes_with_operations_out },
    { "takes memory", takes_memory },
    { "is interrupted", is_interrupted },
    { "sleeps when idle", sleeps_when_idle },
    { "leaves the kernel's pool alone", leaves_the_kernels_pool_alone },
    { "opens or leaves nothing", opens_or_leaves_nothing },
};

int main(void)
{
    return io_rig_run(contracts, sizeof(contracts) / sizeof(contracts[0]));
}
