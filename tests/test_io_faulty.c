/* Would catch: a fault that does not happen, so that the tests which rely on it can't fail; a power
 * cut that leaves more than a disk would (a store that forgets to sync passes) or less (one that
 * syncs fails).
 */
#include "tests/support/io_faulty.h"

#include "tests/support/file.h"
#include "tests/support/io_rig.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* --- faults ----------------------------------------------------------------------------------- */

static void put_write(struct io_rig *g, int fd, const char *mem, size_t len, uint64_t cookie,
                      bool link)
{
    io_rig_put(g, &(struct io_op){ .code = IO_WRITE,
                                   .fd = fd,
                                   .mem = (void *)mem,
                                   .len = len,
                                   .off = len * cookie,
                                   .link = link,
                                   .cookie = cookie });
}

static void fails_the_nth(void **state)
{
    const struct io_fault f = { .code = IO_WRITE, .nth = 2, .error = EIO };
    struct io_rig g;
    struct stat st;
    char *mem = io_rig_pages(4096, 'x');
    int fd;

    (void)state;
    io_rig_open(&g, IO_RIG_FAULTY);
    fd = io_rig_file(&g, "a", 0);
    io_faulty_add(g.io, &f);
    for (uint64_t i = 0; i < 4; i++)
        put_write(&g, fd, mem, 4096, i, true);
    io_rig_put(&g, &(struct io_op){ .code = IO_SYNC, .fd = fd, .cookie = 4 });
    assert_int_equal(io_rig_result(&g, 4), -ECANCELED);
    assert_int_equal(io_rig_result(&g, 0), 4096);
    assert_int_equal(io_rig_result(&g, 1), -EIO);
    assert_int_equal(io_rig_result(&g, 2), -ECANCELED);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, 4096);
    assert_int_equal(io_faulty_n(g.io, IO_WRITE), 4);
    assert_int_equal(io_faulty_n(g.io, IO_CODE__N), 6);
    put_write(&g, fd, mem, 4096, 5, false); /* it was one */
    assert_int_equal(io_rig_result(&g, 5), 4096);
    assert_int_equal(close(fd), 0);
    free(mem);
    io_rig_close(&g);
}

static void fails_in_parts(void **state)
{
    const struct io_fault full = { .code = IO_WRITE, .what = IO_FAULT_PART, .error = ENOSPC },
                          early = { .code = IO_READ, .name = "io/a", .what = IO_FAULT_EARLY };
    struct io_rig g;
    struct stat st;
    char *mem = io_rig_pages(8192, 'x');
    int fd, other;

    (void)state;
    io_rig_open(&g, IO_RIG_FAULTY);
    fd = io_rig_file(&g, "a", 0);
    other = io_rig_file(&g, "b", 0);
    io_faulty_add(g.io, &full);
    put_write(&g, fd, mem, 8192, 0, false);
    assert_int_equal(io_rig_result(&g, 0), -ENOSPC);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, 4096);

    io_faulty_clear(g.io);
    put_write(&g, fd, mem, 8192, 0, false);
    put_write(&g, other, mem, 8192, 1, false);
    assert_int_equal(io_rig_result(&g, 0), 8192);
    assert_int_equal(io_rig_result(&g, 1), 8192);
    io_faulty_add(g.io, &early);
    io_rig_put(&g,
               &(struct io_op){ .code = IO_READ, .fd = fd, .mem = mem, .len = 8192, .link = true });
    io_rig_put(&g, &(struct io_op){ .code = IO_SYNC, .fd = fd, .cookie = 1 });
    assert_int_equal(io_rig_result(&g, 0), 4096);
    assert_int_equal(io_rig_result(&g, 1), -ECANCELED);
    assert_int_equal(
        io_rig_one(
            &g,
            (struct io_op){ .code = IO_READ, .fd = other, .mem = mem, .len = 8192, .off = 8192 }),
        8192);
    assert_int_equal(close(fd), 0);
    assert_int_equal(close(other), 0);
    free(mem);
    io_rig_close(&g);
}

static void comes_late(void **state)
{
    const struct io_fault late = { .code = IO_SYNC, .nth = 1, .what = IO_FAULT_LATE };
    struct io_rig g;

    (void)state;
    io_rig_open(&g, IO_RIG_FAULTY);
    for (int release = 0; release < 2; release++) {
        io_faulty_clear(g.io);
        io_faulty_add(g.io, &late);
        io_rig_put(&g, &(struct io_op){ .code = IO_SYNC, .fd = g.folder });
        for (uint64_t i = 1; i < 6; i++)
            io_rig_put(&g, &(struct io_op){ .code = IO_SYNC, .fd = g.folder, .cookie = i });
        assert_int_equal(io_submit(g.io), 0);
        io_drain(g.io);
        if (release)
            io_faulty_release(g.io);
        assert_true(io_rig_readable(&g));
        assert_int_equal(io_rig_reap(&g, N_COOKIES), release ? 6 : 5);
        assert_true((g.got[0] == PENDING) == !release);
        assert_int_equal(io_rig_result(&g, 0), 0); /* nothing else is out: it comes by itself */
        assert_false(io_rig_readable(&g));
    }
    io_rig_close(&g);
}

static void shuffles(void **state)
{
    struct io_rig g;
    struct io_done d[8];
    bool in_order = true;

    (void)state;
    io_rig_open(&g, IO_RIG_FAULTY);
    for (int round = 0; round < 8; round++) {
        uint32_t seen = 0;

        for (uint64_t i = 0; i < 8; i++)
            io_rig_put(&g, &(struct io_op){ .code = IO_SYNC, .fd = g.folder, .cookie = i });
        io_drain(g.io);
        assert_int_equal(io_reap(g.io, d, 8), 8);
        for (uint32_t i = 0; i < 8; i++) {
            in_order &= d[i].cookie == i;
            seen |= 1u << d[i].cookie;
        }
        assert_int_equal(seen, 0xff);
    }
    assert_false(in_order);
    io_rig_close(&g);
}

/* --- power cuts ------------------------------------------------------------------------------- */

#define LEN 2048u /* four sectors */

enum found { ABSENT, SHORT, WHOLE, MIXED, FOUND__N };

struct cuts {
    struct io_rig g;
    struct io_log *log;
    char folder[SCRATCH_PATH_MAX], to[SCRATCH_PATH_MAX];
};

static void begin(struct cuts *c)
{
    static int n;
    char name[32];

    io_rig_open(&c->g, IO_RIG_FAULTY);
    (void)snprintf(name, sizeof(name), "cuts-%d", n++);
    (void)scratch_path(c->folder, name);
    assert_int_equal(mkdir(c->folder, 0700), 0);
    assert_int_equal(close(c->g.folder), 0);
    c->g.folder = open(c->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(c->g.folder >= 0);
    (void)scratch_path(c->to, "after");
}

static void record(struct cuts *c)
{
    c->log = io_log_new(c->folder);
    io_faulty_record(c->g.io, c->log);
}

static void end(struct cuts *c)
{
    io_log_free(c->log);
    io_rig_close(&c->g);
}

static void remove_after(const struct cuts *c)
{
    static const char *const names[] = { "a", "b" };
    char path[SCRATCH_PATH_MAX + 8];

    for (int i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", c->to, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(c->to);
}

/* What is in a file after a cut, of which all bytes are `fill`. */
static enum found look(const struct cuts *c, size_t point, uint64_t seed, const char *name,
                       char fill)
{
    char path[SCRATCH_PATH_MAX + 8];
    enum found f = WHOLE;
    size_t len = 0;

    io_log_cut(c->log, point, seed, c->to);
    (void)snprintf(path, sizeof(path), "%s/%s", c->to, name);
    if (access(path, F_OK) < 0) {
        f = ABSENT;
    } else {
        uint8_t *bytes = file_read(path, &len);

        if (len < LEN)
            f = SHORT;
        for (size_t i = 0; i < len; i++)
            if (bytes[i] != (uint8_t)fill)
                f = MIXED;
        free(bytes);
    }
    remove_after(c);
    return f;
}

/* Which of them some seed shows. */
static uint32_t all_found(const struct cuts *c, size_t point, const char *name, char fill)
{
    uint32_t found = 0;

    for (uint64_t seed = 0; seed < 64; seed++)
        found |= 1u << look(c, point, seed, name, fill);
    return found;
}

static struct io_op of_text(enum io_code code, int fd, const char *text)
{
    return (struct io_op){ .code = code, .fd = fd, .mem = (void *)text, .len = LEN };
}

static char text_x[LEN], text_y[LEN];

static struct io_op renames(const struct cuts *c)
{
    return (struct io_op){ .code = IO_RENAME, .fd = c->g.folder, .path = "a", .to = "b" };
}

static struct io_op syncs(int fd)
{
    return (struct io_op){ .code = IO_SYNC, .fd = fd };
}

/* The right way to publish a file: it is there whole or not at all, at every point. */
static void keeps_what_was_synced(void **state)
{
    struct cuts c;
    uint32_t found = 0;
    size_t points;
    int fd;

    (void)state;
    begin(&c);
    record(&c);
    fd = io_rig_file(&c.g, "a", 0);
    assert_int_equal(io_rig_one(&c.g, of_text(IO_WRITE, fd, text_x)), LEN);
    assert_int_equal(all_found(&c, io_log_points(c.log), "b", 'x'), 1u << ABSENT);
    io_rig_put(&c.g, &(struct io_op){ .code = IO_SYNC, .fd = fd, .link = true, .cookie = 1 });
    io_rig_put(&c.g, &(struct io_op){ .code = IO_RENAME,
                                      .fd = c.g.folder,
                                      .path = "a",
                                      .to = "b",
                                      .link = true,
                                      .cookie = 2 });
    io_rig_put(&c.g, &(struct io_op){ .code = IO_SYNC, .fd = c.g.folder, .cookie = 3 });
    assert_int_equal(io_rig_result(&c.g, 3), 0);
    points = io_log_points(c.log);
    assert_int_equal(points, 10); /* five operations */
    for (size_t p = 0; p < points; p++)
        found |= all_found(&c, p, "b", 'x');
    assert_int_equal(found, 1u << ABSENT | 1u << WHOLE);
    assert_int_equal(all_found(&c, points, "b", 'x'), 1u << WHOLE);
    assert_int_equal(all_found(&c, points, "a", 'x'), 1u << ABSENT);
    assert_int_equal(close(fd), 0);
    end(&c);
}

/* The wrong ways, each found out. */
static void loses_what_was_not(void **state)
{
    struct cuts c;
    size_t all;
    int fd;

    (void)state;
    /* The name is synced, the bytes are not. */
    begin(&c);
    record(&c);
    fd = io_rig_file(&c.g, "a", 0);
    assert_int_equal(io_rig_one(&c.g, of_text(IO_WRITE, fd, text_x)), LEN);
    assert_int_equal(io_rig_one(&c.g, renames(&c)), 0);
    assert_int_equal(io_rig_one(&c.g, syncs(c.g.folder)), 0);
    all = io_log_points(c.log);
    assert_int_equal(all_found(&c, all, "b", 'x'), 1u << SHORT | 1u << WHOLE | 1u << MIXED);
    assert_int_equal(look(&c, all, 0, "b", 'x'), SHORT);
    assert_int_equal(look(&c, all, 1, "b", 'x'), WHOLE);
    assert_int_equal(close(fd), 0);
    end(&c);

    /* The bytes are synced, the name is not. */
    begin(&c);
    record(&c);
    fd = io_rig_file(&c.g, "a", 0);
    assert_int_equal(io_rig_one(&c.g, of_text(IO_WRITE, fd, text_x)), LEN);
    assert_int_equal(io_rig_one(&c.g, syncs(fd)), 0);
    assert_int_equal(io_rig_one(&c.g, renames(&c)), 0);
    all = io_log_points(c.log);
    assert_int_equal(all_found(&c, all, "b", 'x'), 1u << ABSENT | 1u << WHOLE);
    assert_int_equal(all_found(&c, all, "a", 'x'), 1u << ABSENT | 1u << WHOLE);
    for (uint64_t seed = 0; seed < 64; seed++) /* and never under both names */
        assert_true(look(&c, all, seed, "a", 'x') == ABSENT ||
                    look(&c, all, seed, "b", 'x') == ABSENT);
    assert_int_equal(close(fd), 0);
    end(&c);
}

/* A sync that was under way when the write was says nothing of it. */
static void a_sync_covers_what_was_before(void **state)
{
    struct cuts c;
    int fd;

    (void)state;
    begin(&c);
    fd = io_rig_file(&c.g, "a", 0);
    record(&c);
    for (uint64_t i = 0; i < 2; i++) {
        struct io_op op = i ? syncs(fd) : of_text(IO_WRITE, fd, text_x);

        op.cookie = i;
        io_rig_put(&c.g, &op);
    }
    assert_int_equal(io_rig_result(&c.g, 0), LEN);
    assert_int_equal(io_rig_result(&c.g, 1), 0);
    assert_int_equal(look(&c, io_log_points(c.log), 0, "a", 'x'), SHORT);
    assert_int_equal(close(fd), 0);
    end(&c);
}

/* What was there before, overwritten and removed. */
static void begins_with_what_is_there(void **state)
{
    char path[SCRATCH_PATH_MAX + 8], say[256];
    struct cuts c;
    size_t at;
    int fd;

    (void)state;
    begin(&c);
    (void)snprintf(path, sizeof(path), "%s/a", c.folder);
    file_write(path, text_y, LEN);
    record(&c);
    fd = open(path, O_RDWR | O_CLOEXEC); /* past the io */
    assert_true(fd >= 0);
    assert_int_equal(io_rig_one(&c.g, of_text(IO_WRITE, fd, text_x)), LEN);
    at = io_log_points(c.log);
    assert_int_equal(all_found(&c, 0, "a", 'y'), 1u << WHOLE);
    assert_int_equal(all_found(&c, at, "a", 'y'), 1u << WHOLE | 1u << MIXED);
    assert_int_equal(io_rig_one(&c.g, syncs(fd)), 0);
    assert_int_equal(all_found(&c, io_log_points(c.log), "a", 'x'), 1u << WHOLE);

    assert_int_equal(
        io_rig_one(&c.g, (struct io_op){ .code = IO_UNLINK, .fd = c.g.folder, .path = "a" }), 0);
    at = io_log_points(c.log);
    assert_int_equal(all_found(&c, at, "a", 'x'), 1u << WHOLE | 1u << ABSENT);
    assert_int_equal(io_rig_one(&c.g, syncs(c.g.folder)), 0);
    assert_int_equal(all_found(&c, io_log_points(c.log), "a", 'x'), 1u << ABSENT);
    assert_non_null(strstr(io_log_say(c.log, 4, say), "before the begin of: unlink a"));
    assert_int_equal(close(fd), 0);
    end(&c);
}

/* An operation that failed did nothing, but the half of a write. */
static void failures_do_nothing(void **state)
{
    const struct io_fault full = { .code = IO_WRITE, .what = IO_FAULT_PART, .error = ENOSPC },
                          broken = { .code = IO_RENAME, .error = EIO };
    struct cuts c;
    int fd;

    (void)state;
    begin(&c);
    fd = io_rig_file(&c.g, "a", 0);
    record(&c);
    io_faulty_add(c.g.io, &full);
    io_faulty_add(c.g.io, &broken);
    assert_int_equal(io_rig_one(&c.g, of_text(IO_WRITE, fd, text_x)), -ENOSPC);
    assert_int_equal(io_rig_one(&c.g, syncs(fd)), 0);
    assert_int_equal(io_rig_one(&c.g, renames(&c)), -EIO);
    assert_int_equal(all_found(&c, io_log_points(c.log), "a", 'x'), 1u << SHORT);
    assert_int_equal(all_found(&c, io_log_points(c.log), "b", 'x'), 1u << ABSENT);
    assert_int_equal(close(fd), 0);
    end(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fails_the_nth),
        cmocka_unit_test(fails_in_parts),
        cmocka_unit_test(comes_late),
        cmocka_unit_test(shuffles),
        cmocka_unit_test(keeps_what_was_synced),
        cmocka_unit_test(loses_what_was_not),
        cmocka_unit_test(a_sync_covers_what_was_before),
        cmocka_unit_test(begins_with_what_is_there),
        cmocka_unit_test(failures_do_nothing),
    };

    memset(text_x, 'x', LEN);
    memset(text_y, 'y', LEN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
