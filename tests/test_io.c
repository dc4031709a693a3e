/* Would catch: an operation that is lost, comes back twice or with another one's result; a chain
 * that goes on behind a failure or stops at a short transfer; a descriptor that stays readable with
 * nothing to reap (a busy loop in the daemon), or silent with something (a hang); a close that
 * leaves the kernel writing to freed memory. Each on io_uring, on threads, and on the faulty one
 * that tests of others use, when it has no faults.
 */
#include "store/io.h"

#include "tests/support/fault.h"
#include "tests/support/io_rig.h"

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

/* --- one operation of each kind --------------------------------------------------------------- */

static void does_each(enum io_kind kind)
{
    struct io_rig g;
    struct stat st;
    char text[16];
    int fd;

    io_rig_open(&g, kind);
    fd = io_rig_file(&g, "a", 0);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    assert_int_equal(io_rig_one(&g, (struct io_op){ .code = IO_ALLOC, .fd = fd, .len = 8192 }), 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, 8192);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(
        io_rig_one(
            &g, (struct io_op){ .code = IO_WRITE, .fd = fd, .mem = "hello", .len = 5, .off = 100 }),
        5);
    assert_int_equal(io_rig_one(&g, (struct io_op){ .code = IO_SYNC, .fd = fd }), 0);
    assert_int_equal(io_rig_one(&g, (struct io_op){ .code = IO_SYNC, .fd = g.folder }), 0);
    assert_int_equal(
        io_rig_one(&g,
                   (struct io_op){ .code = IO_READ, .fd = fd, .mem = text, .len = 5, .off = 100 }),
        5);
    assert_memory_equal(text, "hello", 5);
    assert_int_equal(
        io_rig_one(&g, (struct io_op){ .code = IO_RENAME, .fd = g.folder, .path = "a", .to = "b" }),
        0);
    assert_int_equal(fstatat(g.folder, "a", &st, 0), -1);
    assert_int_equal(
        io_rig_one(&g, (struct io_op){ .code = IO_UNLINK, .fd = g.folder, .path = "b" }), 0);
    assert_int_equal(fstatat(g.folder, "b", &st, 0), -1);
    assert_int_equal(io_rig_one(&g, (struct io_op){ .code = IO_CLOSE, .fd = fd }), 0);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    io_rig_close(&g);
}

static void says_what_failed(enum io_kind kind)
{
    struct io_rig g;
    char text[8];

    io_rig_open(&g, kind);
    assert_int_equal(
        io_rig_one(&g, (struct io_op){ .code = IO_OPEN, .fd = g.folder, .path = "none" }), -ENOENT);
    assert_int_equal(
        io_rig_one(&g, (struct io_op){ .code = IO_UNLINK, .fd = g.folder, .path = "none" }),
        -ENOENT);
    assert_int_equal(
        io_rig_one(&g,
                   (struct io_op){ .code = IO_RENAME, .fd = g.folder, .path = "none", .to = "b" }),
        -ENOENT);
    assert_int_equal(
        io_rig_one(&g, (struct io_op){ .code = IO_READ, .fd = g.folder, .mem = text, .len = 8 }),
        -EISDIR);
    assert_int_equal(io_rig_one(&g, (struct io_op){ .code = IO_SYNC, .fd = 1000 }), -EBADF);
    assert_int_equal(io_rig_one(&g, (struct io_op){ .code = IO_CLOSE, .fd = 1000 }), -EBADF);
    assert_int_equal(
        io_rig_one(&g, (struct io_op){ .code = IO_WRITE, .fd = 1000, .mem = text, .len = 8 }),
        -EBADF);
    assert_int_equal(io_rig_one(&g, (struct io_op){ .code = IO_ALLOC, .fd = 1000, .len = 8 }),
                     -EBADF);
    io_rig_close(&g);
}

/* --- the end of the file, and short transfers ------------------------------------------------- */

static void ends_at_the_end(enum io_kind kind)
{
    struct io_rig g;
    char *mem = io_rig_pages(16384, 'x');

    io_rig_open(&g, kind);
    for (int direct = 0; direct < 2; direct++) {
        int fd = io_rig_file(&g, "a", 0);

        assert_int_equal(write(fd, mem, 5000), 5000);
        assert_int_equal(fsync(fd), 0);
        if (direct) {
            assert_int_equal(close(fd), 0);
            fd = openat(g.folder, "a", O_RDONLY | O_DIRECT | O_CLOEXEC);
            if (fd < 0)
                break; /* tmpfs of an older kernel */
        }
        assert_int_equal(
            io_rig_one(&g, (struct io_op){ .code = IO_READ, .fd = fd, .mem = mem, .len = 16384 }),
            5000);
        assert_int_equal(
            io_rig_one(
                &g,
                (struct io_op){ .code = IO_READ, .fd = fd, .mem = mem, .len = 8192, .off = 4096 }),
            904);
        assert_int_equal(
            io_rig_one(
                &g,
                (struct io_op){ .code = IO_READ, .fd = fd, .mem = mem, .len = 4096, .off = 8192 }),
            0);
        assert_int_equal(io_rig_one(&g, (struct io_op){ .code = IO_READ, .fd = fd, .mem = mem }),
                         0);
        assert_int_equal(close(fd), 0);
    }
    free(mem);
    io_rig_close(&g);
}

static void moves_it_in_pieces(struct io_rig *g, int fd, size_t most, uint64_t off, bool aside)
{
    size_t n = 64u << 10;
    char *mem = io_rig_pages(n, 0), *back = io_rig_pages(n, 0);
    struct io_op op = {
        .code = IO_WRITE, .fd = fd, .mem = mem, .len = n, .off = off, .aside = aside
    };

    for (size_t i = 0; i < n; i++)
        mem[i] = (char)(i * 7 + i / 4096 + most);
    fault_short(most);
    assert_int_equal(io_rig_one(g, op), n);
    op.code = IO_READ;
    op.mem = back;
    assert_int_equal(io_rig_one(g, op), n);
    fault_short(0);
    assert_memory_equal(mem, back, n);
    free(mem);
    free(back);
}

/* No call of the threads moves more than that: no multiple of anything, and sectors that are no
 * block, which O_DIRECT would not go on from. */
static void goes_on_behind_short_ones(enum io_kind kind)
{
    struct io_rig g;
    int fd;

    io_rig_open(&g, kind);
    fd = io_rig_file(&g, "a", 0);
    moves_it_in_pieces(&g, fd, 10000, 512, false);
    moves_it_in_pieces(&g, fd, 10000, 512, true);
    assert_int_equal(close(fd), 0);
    fd = openat(g.folder, "a", O_RDWR | O_DIRECT | O_CLOEXEC);
    if (fd >= 0) {
        moves_it_in_pieces(&g, fd, 4608, 4096, false);
        assert_int_equal(close(fd), 0);
    }
    io_rig_close(&g);
}

/* Half of a file is in the page cache, and io_uring gets no more without waiting. */
static void goes_on_where_the_cache_ends(enum io_kind kind)
{
    size_t n = 1 << 20;
    char *mem = io_rig_pages(n, 0), *back = io_rig_pages(n, 0);
    struct io_rig g;
    int fd;

    io_rig_open(&g, kind);
    fd = io_rig_file(&g, "a", 0);
    for (size_t i = 0; i < n; i++)
        mem[i] = (char)(i * 7 + i / 4096);
    assert_int_equal(pwrite(fd, mem, n, 0), n);
    assert_int_equal(fsync(fd), 0);
    for (size_t hot = 0; hot <= n / 2; hot += n / 4) {
        memset(back, 0, n);
        assert_int_equal(posix_fadvise(fd, (off_t)hot, 0, POSIX_FADV_DONTNEED), 0);
        assert_int_equal(io_rig_one(&g, (struct io_op){ .code = IO_READ,
                                                        .fd = fd,
                                                        .mem = back + 100,
                                                        .len = n - 100,
                                                        .off = 100 }),
                         n - 100);
        assert_memory_equal(mem + 100, back + 100, n - 100);
    }
    assert_int_equal(close(fd), 0);
    free(mem);
    free(back);
    io_rig_close(&g);
}

static void dates(enum io_kind kind)
{
    struct io_rig g;
    struct stat st;
    int fd;

    io_rig_open(&g, kind);
    fd = io_rig_file(&g, "a", 0);
    assert_int_equal(
        io_rig_one(
            &g, (struct io_op){ .code = IO_DATE, .fd = g.folder, .path = "a", .off = 1234567890 }),
        0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_mtim.tv_sec, 1234567890);
    assert_int_equal(io_rig_one(&g, (struct io_op){ .code = IO_DATE, .fd = g.folder, .path = "b" }),
                     -ENOENT);
    assert_int_equal(close(fd), 0);
    io_rig_close(&g);
}

/* A file that may not grow: the kernel writes up to the limit and says so, the next call fails. */
static void is_not_whole_when_it_was_short(enum io_kind kind)
{
    struct rlimit was, small;
    struct io_rig g;
    char *mem = io_rig_pages(65536, 'x');
    int fd;

    io_rig_open(&g, kind);
    fd = io_rig_file(&g, "a", 0);
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    small = (struct rlimit){ .rlim_cur = 20000, .rlim_max = was.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    io_rig_put(
        &g, &(struct io_op){
                .code = IO_WRITE, .fd = fd, .mem = mem, .len = 65536, .link = true, .cookie = 1 });
    io_rig_put(&g, &(struct io_op){ .code = IO_SYNC, .fd = fd, .cookie = 2 });
    assert_int_equal(io_rig_result(&g, 1), -EFBIG);
    assert_int_equal(io_rig_result(&g, 2), -ECANCELED);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    assert_int_equal(close(fd), 0);
    free(mem);
    io_rig_close(&g);
}

/* --- chains ----------------------------------------------------------------------------------- */

static void chains_go_in_order(enum io_kind kind)
{
    struct io_rig g;
    struct stat st;
    char text[8] = "";
    int fd;

    io_rig_open(&g, kind);
    fd = io_rig_file(&g, "a", 0);
    /* The second write and the read would see something else in any other order. */
    for (uint64_t i = 0; i < 3; i++)
        io_rig_put(&g, &(struct io_op){ .code = IO_WRITE,
                                        .fd = fd,
                                        .mem = (void *)("one\0two\0six" + 4 * i),
                                        .len = 4,
                                        .link = true,
                                        .cookie = i });
    io_rig_put(&g, &(struct io_op){ .code = IO_SYNC, .fd = fd, .link = true, .cookie = 3 });
    io_rig_put(
        &g,
        &(struct io_op){
            .code = IO_RENAME, .fd = g.folder, .path = "a", .to = "b", .link = true, .cookie = 4 });
    io_rig_put(&g, &(struct io_op){ .code = IO_SYNC, .fd = g.folder, .link = true, .cookie = 5 });
    io_rig_put(&g,
               &(struct io_op){
                   .code = IO_READ, .fd = fd, .mem = text, .len = 4, .link = true, .cookie = 6 });
    io_rig_put(&g, &(struct io_op){ .code = IO_CLOSE, .fd = fd, .link = true, .cookie = 7 });
    io_rig_put(&g, &(struct io_op){ .code = IO_UNLINK, .fd = g.folder, .path = "b", .cookie = 8 });
    assert_int_equal(io_submit(g.io), 0);
    assert_int_equal(io_rig_result(&g, 8), 0);
    for (uint64_t i = 0; i < 8; i++)
        assert_int_equal(g.got[i], i < 3 || i == 6 ? 4 : 0);
    assert_string_equal(text, "six");
    assert_int_equal(fstatat(g.folder, "b", &st, 0), -1);
    io_rig_close(&g);
}

/* A failure at each place of a chain, which has transfers here and there. */
static void chains_end_at_a_failure(enum io_kind kind)
{
    struct io_rig g;
    struct stat st;
    char text[8] = "";
    int fd;

    io_rig_open(&g, kind);
    fd = io_rig_file(&g, "a", 0);
    for (uint64_t bad = 0; bad < 7; bad++) {
        for (uint64_t i = 0; i < 7; i++) {
            struct io_op op = { .code = IO_SYNC, .fd = fd, .link = true, .cookie = i };

            if (i % 3 == 1)
                op = (struct io_op){
                    .code = IO_WRITE, .fd = fd, .mem = text, .len = 4, .link = true, .cookie = i
                };
            if (i == bad)
                op.fd = 1000;
            io_rig_put(&g, &op);
        }
        io_rig_put(&g,
                   &(struct io_op){ .code = IO_UNLINK, .fd = g.folder, .path = "a", .cookie = 7 });
        io_rig_put(&g, &(struct io_op){ .code = IO_SYNC, .fd = fd, .cookie = 8 }); /* of no chain */
        assert_int_equal(io_submit(g.io), 0);
        for (uint64_t i = 0; i < 9; i++) {
            int64_t good = i % 3 == 1 && i < 7 ? 4 : 0;
            bool after = i > bad && i < 8;

            assert_int_equal(io_rig_result(&g, i), after ? -ECANCELED : i == bad ? -EBADF : good);
        }
        assert_int_equal(fstatat(g.folder, "a", &st, 0), 0);
        assert_false(io_rig_readable(&g));
    }
    /* A read that ends early is a failure for what follows. */
    io_rig_put(&g,
               &(struct io_op){
                   .code = IO_READ, .fd = fd, .mem = text, .len = 8, .link = true, .cookie = 0 });
    io_rig_put(&g, &(struct io_op){ .code = IO_UNLINK, .fd = g.folder, .path = "a", .cookie = 1 });
    assert_int_equal(io_rig_result(&g, 1), -ECANCELED);
    assert_int_equal(g.got[0], 4);
    assert_int_equal(close(fd), 0);
    io_rig_close(&g);
}

/* --- what is readable when -------------------------------------------------------------------- */

static void is_readable_while_there_is_something(enum io_kind kind)
{
    struct io_rig g;

    io_rig_open(&g, kind);
    assert_false(io_rig_readable(&g));
    for (int round = 0; round < 50; round++) {
        for (uint64_t i = 0; i < 8; i++)
            io_rig_put(&g, &(struct io_op){
                               .code = IO_UNLINK, .fd = g.folder, .path = "none", .cookie = i });
        assert_false(io_rig_readable(&g));
        assert_int_equal(io_submit(g.io), 0);
        io_drain(g.io);
        assert_int_equal(io_room(g.io), 24);
        for (uint32_t left = 8; left > 0; left -= left > 3 ? 3 : left) {
            assert_true(io_rig_readable(&g));
            assert_int_equal(io_rig_reap(&g, 3), left > 3 ? 3 : left);
        }
        assert_false(io_rig_readable(&g));
        assert_int_equal(io_room(g.io), 32);
        assert_int_equal(io_rig_reap(&g, 3), 0);
    }
    io_rig_close(&g);
}

/* What comes one by one, each waited for as the daemon does it. */
static void wakes_a_sleeper(enum io_kind kind)
{
    int ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = { .events = EPOLLIN };
    struct io_rig g;

    io_rig_open(&g, kind);
    assert_int_equal(epoll_ctl(ep, EPOLL_CTL_ADD, io_eventfd(g.io), &e), 0);
    for (int round = 0; round < 200; round++) {
        for (uint64_t i = 0; i < 4; i++)
            io_rig_put(&g, &(struct io_op){
                               .code = IO_UNLINK, .fd = g.folder, .path = "none", .cookie = i });
        assert_int_equal(io_submit(g.io), 0);
        for (uint32_t n = 0; n < 4;) {
            int r = epoll_wait(ep, &e, 1, -1);

            assert_true(r == 1 || (r < 0 && errno == EINTR));
            n += io_rig_reap(&g, 2);
        }
        assert_int_equal(epoll_wait(ep, &e, 1, 0), 0);
    }
    assert_int_equal(close(ep), 0);
    io_rig_close(&g);
}

static const struct io_rig_test contracts[] = {
    { "does each", does_each },
    { "says what failed", says_what_failed },
    { "ends at the end", ends_at_the_end },
    { "goes on behind short ones", goes_on_behind_short_ones },
    { "goes on where the cache ends", goes_on_where_the_cache_ends },
    { "dates", dates },
    { "is not whole when it was short", is_not_whole_when_it_was_short },
    { "chains go in order", chains_go_in_order },
    { "chains end at a failure", chains_end_at_a_failure },
    { "is readable while there is something", is_readable_while_there_is_something },
    { "wakes a sleeper", wakes_a_sleeper },
};

int main(void)
{
    return io_rig_run(contracts, sizeof(contracts) / sizeof(contracts[0]));
}
