/* tests/test_store_faults.c - a store on a disk that fails. Would catch: an error that reaches
 * anybody as more than a miss or a put that was not kept; bytes or files that a failed put leaves
 * behind; a sentence that is missing, wrong, or stays when all is well again; writing that does not
 * begin again by itself, or never stops trying; a short read that is believed; operations that come
 * back in another order than they went, or not at all; a new folder that no sync covers, or one for
 * each file in it; an allocation that fails and takes the store with it; a failure at the start
 * that takes the records with it.
 *
 * The Makefile's WRAP_test_store_faults has time pass as this test says.
 */
#include "base/clock.h"
#include "store/warm.h"
#include "tests/support/counted.h"
#include "tests/support/fault.h"
#include "tests/support/io_faulty.h"
#include "tests/support/sanitized.h"
#include "tests/support/store_names.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static uint64_t passed_ns; /* beyond the clock's own time */

uint64_t __real_when_ns(void);
uint64_t __wrap_when_ns(void);
uint64_t __wrap_when_ns(void)
{
    return __real_when_ns() + passed_ns;
}

static struct store_rig rig;

static int open_rig(void **state)
{
    struct io_options o = { .kind = IO_AUTO, .depth = 64 };
    static char name[16];
    static int n;
    struct io *inner;

    (void)state;
    passed_ns = 0;
    (void)snprintf(name, sizeof(name), "f%d", n++);
    store_rig_init(&rig, name);
    if (io_open(&o, &inner, &rig.why) < 0 || io_faulty_open(inner, &rig.io) < 0)
        return -1;
    return store_rig_open(&rig);
}

static int close_rig(void **state)
{
    (void)state;
    store_rig_close(&rig);
    return 0;
}

/* The io stays, with its faults. */
static void close_store(void)
{
    assert_true(store_close(rig.store));
    rig.store = NULL;
}

static void spoil(enum io_code code, uint64_t nth, enum io_fault_what what, int error)
{
    rig_settle(&rig); /* what the store does by itself is not what fails */
    io_faulty_add(rig.io,
                  &(struct io_fault){ .code = code, .nth = nth, .what = what, .error = error });
}

/* Time goes by while the disk has nothing to do: one that has is silent then. */
static void pass(uint64_t ns)
{
    rig_settle(&rig);
    passed_ns += ns;
}

static void assert_says(const char *words)
{
    const char *degraded = rig_stats(&rig).degraded;

    if (words)
        expect_that(strstr(degraded, words), "'%s' has no '%s'", degraded, words);
    else
        assert_string_equal(degraded, "");
}

/* Files are those of records; nothing is counted that is not there. */
static void assert_tidy(void)
{
    struct store_stats s;

    rig_settle(&rig);
    s = rig_stats(&rig);
    assert_int_equal(s.records, rig_files(&rig, "v1/1000") < 0 ? 0 : rig_files(&rig, "v1/1000"));
    assert_int_equal(s.bytes, s.records * rig_len(&(struct rig_record){ .n = 64 }));
}

/* --- writing ---------------------------------------------------------------------------------- */

/* Every operation of a put fails once. */
static void a_put_fails_anywhere(void **state)
{
    static const enum io_fault_what what[] = { IO_FAULT_ERROR, IO_FAULT_PART };
    struct rig_record r = { .n = 64 };
    uint32_t failed = 0;

    (void)state;
    for (size_t k = 0; k < 2; k++) {
        for (uint64_t nth = 1;; nth++) {
            uint64_t n;
            int err;

            r.seed++;
            spoil(IO_CODE__N, nth, what[k], EIO);
            n = io_faulty_n(rig.io, IO_CODE__N);
            err = rig_put(&rig, &r);
            n = io_faulty_n(rig.io, IO_CODE__N) - n;
            io_faulty_clear(rig.io);
            if (n < nth) {
                assert_int_equal(err, 0);
                break;
            }
            failed++;
            assert_int_equal(err, -EIO);
            assert_says("I/O error");
            assert_int_equal(rig_get(&rig, &r), 0);
            assert_tidy();
            assert_int_equal(rig_put(&rig, &r), -EROFS);
            pass(400 * CLOCK_S);
            assert_int_equal(rig_put(&rig, &r), 0);
            assert_says(NULL);
            assert_int_equal(rig_get(&rig, &r), 64);
        }
    }
    assert_true(failed >= 12);
    assert_tidy();
    store_rig_again(&rig);
    assert_int_equal(rig_stats(&rig).refused, 0);
}

/* What a failure kept from the disk is no write of today's. */
static void what_failed_early_is_not_counted(void **state)
{
    static const enum io_code early[] = { IO_OPEN, IO_ALLOC };
    struct rig_record r = { .n = 64 };
    struct store_stats s;

    (void)state;
    assert_int_equal(rig_put(&rig, &r), 0);
    for (size_t i = 0; i < 2; i++) {
        r.seed++;
        spoil(early[i], 1, IO_FAULT_ERROR, EIO);
        assert_int_equal(rig_put(&rig, &r), -EIO);
        io_faulty_clear(rig.io);
        pass(600 * CLOCK_S);
        s = rig_stats(&rig);
        assert_int_equal(s.written_today, rig_len(&r));
        assert_int_equal(s.written, rig_len(&r));
    }
    spoil(IO_OPEN, 1, IO_FAULT_ERROR, EIO);
    assert_int_equal(rig_put_name(&rig, RIG_OWNER, 1, "a name", "text"), -EIO);
    io_faulty_clear(rig.io);
    pass(600 * CLOCK_S);
    assert_int_equal(rig_stats(&rig).written_today, rig_len(&r));
    spoil(IO_OPEN, 0, IO_FAULT_ERROR, ENOSPC); /* it is tried again, and fails again */
    assert_int_equal(rig_put_name(&rig, RIG_OWNER, 1, "a name", "text"), -ENOSPC);
    io_faulty_clear(rig.io);
    pass(600 * CLOCK_S);
    assert_int_equal(rig_stats(&rig).written_today, rig_len(&r));
    r.seed++;
    spoil(IO_RENAME, 1, IO_FAULT_ERROR, EIO);
    assert_int_equal(rig_put(&rig, &r), -EIO);
    assert_int_equal(rig_stats(&rig).written_today, 2 * rig_len(&r));
}

static void a_full_disk_makes_room(void **state)
{
    struct rig_record r = { .n = 64 };

    (void)state;
    for (r.seed = 1; r.seed <= 16; r.seed++)
        assert_int_equal(rig_put(&rig, &r), 0);
    spoil(IO_WRITE, 1, IO_FAULT_PART, ENOSPC);
    assert_int_equal(rig_put(&rig, &r), 0);
    assert_int_equal(rig_stats(&rig).evicted, 2);
    assert_says(NULL);
    assert_int_equal(rig_get(&rig, &r), 64);
    assert_tidy();
    /* No inode is left, whatever goes. */
    io_faulty_clear(rig.io);
    spoil(IO_OPEN, 0, IO_FAULT_ERROR, ENOSPC);
    r.seed++;
    assert_int_equal(rig_put(&rig, &r), -ENOSPC);
    assert_says("full");
    assert_int_equal(rig_put(&rig, &r), -EROFS);
    io_faulty_clear(rig.io);
    assert_tidy();
    pass(2 * CLOCK_S);
    assert_says("tried again");
    assert_int_equal(rig_put(&rig, &r), 0);
    assert_says(NULL);
}

/* 1 s, 2 s, 4 s ... 5 minutes. */
static void tries_are_further_and_further_apart(void **state)
{
    struct rig_record r = { .n = 64, .seed = 1 };
    uint64_t pause = CLOCK_S;

    (void)state;
    spoil(IO_OPEN, 0, IO_FAULT_ERROR, EROFS);
    for (int i = 0; i < 12; i++) {
        assert_int_equal(rig_put(&rig, &r), -EROFS);
        assert_says("read-only");
        pass(pause / 2);
        assert_says("the next try is in");
        assert_int_equal(rig_put(&rig, &r), -EROFS);
        assert_int_equal(io_faulty_n(rig.io, IO_OPEN) > 0, 1);
        pass(pause / 2 + CLOCK_MS);
        assert_says("tried again");
        pause = pause * 2 > 300 * CLOCK_S ? 300 * CLOCK_S : pause * 2;
    }
    io_faulty_clear(rig.io);
    assert_int_equal(rig_put(&rig, &r), 0);
    assert_says(NULL);
}

static int put_name_of(uint32_t owner, const char *text)
{
    return rig_put_name(&rig, owner, 1, "name", text);
}

static int put_name(const char *text)
{
    return put_name_of(RIG_OWNER, text);
}

static bool name_is(const char *text)
{
    void *bytes = NULL;
    size_t len;
    bool is = store_name_get(rig.store, RIG_OWNER, 1, "name", &bytes, &len) == 0 &&
              len == strlen(text) && memcmp(bytes, text, len) == 0;

    free(bytes);
    return is;
}

static void a_name_fails_anywhere(void **state)
{
    char was[16] = "first", next[16];
    uint64_t nth;

    (void)state;
    assert_int_equal(put_name(was), 0);
    for (nth = 1;; nth++) {
        uint64_t n;
        int err;

        (void)snprintf(next, sizeof(next), "text %u%s", (unsigned)nth, nth % 2 ? "" : " long");
        spoil(IO_CODE__N, nth, IO_FAULT_ERROR, EIO);
        n = io_faulty_n(rig.io, IO_CODE__N);
        err = put_name(next);
        n = io_faulty_n(rig.io, IO_CODE__N) - n;
        io_faulty_clear(rig.io);
        if (n < nth)
            break;
        assert_int_equal(err, -EIO);
        /* The sync of the folder may fail behind the rename. */
        assert_true(name_is(was) || name_is(next));
        assert_int_equal(rig_stats(&rig).bytes, 4096);
        pass(400 * CLOCK_S);
        assert_int_equal(put_name(next), 0);
        assert_true(name_is(next));
        memcpy(was, next, sizeof(was));
        assert_int_equal(rig_files(&rig, "v1/1000/names"), 1);
    }
    assert_int_equal(nth, 6);
}

/* Puts a record, or a name, and counts its syncs. */
static uint64_t n_syncs(bool name, uint32_t owner, uint32_t seed, int want)
{
    struct rig_record r = { .n = 64, .seed = seed, .owner = owner };
    uint64_t before = io_faulty_n(rig.io, IO_SYNC);

    assert_int_equal(name ? put_name_of(owner, "text") : rig_put(&rig, &r), want);
    return io_faulty_n(rig.io, IO_SYNC) - before;
}

/* Folders are not made by the io, so no power cut of test_power takes them away: that they are
 * synced before anything in them is said to be kept, and again where one of the syncs failed, can
 * only be counted. */
static void a_new_folder_is_synced(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t owner = 2000 + i;
        bool name = i % 2;

        spoil(IO_SYNC, 1 + i / 2, IO_FAULT_ERROR, EIO);
        (void)n_syncs(name, owner, 1, -EIO);
        io_faulty_clear(rig.io);
        pass(400 * CLOCK_S);
        assert_int_equal(n_syncs(name, owner, 1, 0), 4); /* two folders; a file, and its name */
        assert_int_equal(n_syncs(name, owner, 2, 0), 2);
    }
}

static void a_folder_vanishes(void **state)
{
    static const char *const gone[] = { "", "/v1", "/v1/1000", "/v1/1000/names" };
    struct rig_record a = { .n = 64, .seed = 1 }, b = { .n = 64, .seed = 2 };
    char cmd[3 * SCRATCH_PATH_MAX];
    uint64_t written;

    (void)state;
    for (size_t i = 0; i < sizeof(gone) / sizeof(gone[0]); i++) {
        assert_int_equal(rig_put(&rig, &a), 0);
        (void)snprintf(cmd, sizeof(cmd), "rm -rf %s%s", rig.path, gone[i]);
        if (i == 3)
            break;
        assert_int_equal(system(cmd), 0);
        assert_int_equal(rig_put(&rig, &b), 0);
        assert_int_equal(rig_get(&rig, &b), 64);
        assert_int_equal(rig_get(&rig, &a), 0);
        assert_int_equal(rig_stats(&rig).records, 1);
        assert_tidy();
        written = rig_stats(&rig).written_today;
        store_rig_again(&rig);
        assert_int_equal(rig_get(&rig, &b), 64);
        assert_int_equal(rig_stats(&rig).written_today, written); /* though its file was gone */
        b.seed++;
    }
    assert_int_equal(put_name("before"), 0);
    assert_int_equal(system(cmd), 0);
    assert_int_equal(put_name("after"), 0);
    assert_true(name_is("after"));
    assert_says(NULL);
    /* Where it stood there is a file now. */
    (void)snprintf(cmd, sizeof(cmd), "rm -rf %s && echo >%s", rig.path, rig.path);
    assert_int_equal(system(cmd), 0);
    b.seed++;
    assert_true(rig_put(&rig, &b) < 0);
    assert_says("not kept");
    (void)snprintf(cmd, sizeof(cmd), "rm %s", rig.path);
    assert_int_equal(system(cmd), 0);
    pass(2 * CLOCK_S);
    assert_int_equal(rig_put(&rig, &b), 0);
    assert_says(NULL);
}

/* What can't be deleted counts on, and is tried again. */
static void deleting_fails(void **state)
{
    struct rig_record r = { .n = 64, .seed = 1 };
    uint64_t records, bytes, len = rig_len(&r);

    (void)state;
    assert_int_equal(rig_put(&rig, &r), 0);
    spoil(IO_UNLINK, 0, IO_FAULT_ERROR, EIO);
    store_prune(rig.store, RIG_OWNER, 0, &records, &bytes);
    assert_int_equal(records, 1);
    rig_settle(&rig);
    assert_int_equal(rig_stats(&rig).bytes, len);
    assert_int_equal(rig_get(&rig, &r), 0);
    io_faulty_clear(rig.io);
    rig_settle(&rig);
    assert_int_equal(rig_stats(&rig).bytes, len);
    passed_ns += 11 * CLOCK_S;
    assert_tidy();
    assert_int_equal(rig_stats(&rig).bytes, 0);
}

/* --- reading ---------------------------------------------------------------------------------- */

static void a_read_fails(void **state)
{
    struct rig_record r = { .n = 64, .seed = 1 };

    (void)state;
    assert_int_equal(rig_put(&rig, &r), 0);
    spoil(IO_READ, 1, IO_FAULT_ERROR, EIO);
    assert_int_equal(rig_get(&rig, &r), -EIO);
    assert_says("can't be read");
    assert_int_equal(rig_get(&rig, &r), 64);
    assert_says(NULL);
    for (int i = 0; i < 2; i++) {
        spoil(IO_READ, 1, IO_FAULT_ERROR, EIO);
        assert_int_equal(rig_get(&rig, &r), -EIO);
    }
    assert_int_equal(rig_get(&rig, &r), 0); /* it goes with the second */
    assert_tidy();
    assert_int_equal(rig_put(&rig, &r), 0);
    spoil(IO_READ, 1, IO_FAULT_EARLY, 0);
    assert_int_equal(rig_get(&rig, &r), -EBADMSG);
    assert_int_equal(rig_stats(&rig).refused, 1);
    assert_int_equal(rig_get(&rig, &r), 0);
    assert_tidy();
    assert_int_equal(rig_put(&rig, &r), 0);
    spoil(IO_OPEN, 1, IO_FAULT_ERROR, EMFILE);
    assert_int_equal(rig_get(&rig, &r), -EMFILE);
    assert_int_equal(rig_get(&rig, &r), 64);
}

/* A header that can't be read at the start is left for another one. */
static void the_start_meets_errors(void **state)
{
    struct rig_record a = { .n = 64, .seed = 1 }, b = { .n = 64, .seed = 2 };

    (void)state;
    assert_int_equal(rig_put(&rig, &a), 0);
    assert_int_equal(rig_put(&rig, &b), 0);
    for (int k = 0; k < 2; k++) {
        close_store();
        spoil(k == 0 ? IO_READ : IO_OPEN, 1, IO_FAULT_ERROR, EIO);
        assert_int_equal(store_rig_open(&rig), 0);
        io_faulty_clear(rig.io);
        assert_int_equal(rig_stats(&rig).records, 1);
        assert_int_equal(rig_files(&rig, "v1/1000"), 2);
    }
    close_store();
    assert_int_equal(store_rig_open(&rig), 0);
    assert_int_equal(rig_get(&rig, &a) + rig_get(&rig, &b), 128);
}

/* --- order ------------------------------------------------------------------------------------ */

static void any_order_will_do(void **state)
{
    struct rig_record r[12];

    (void)state;
    for (uint64_t seed = 1; seed <= (SANITIZED ? 3u : 10u); seed++) {
        uint32_t n = rig.n_called;

        io_faulty_shuffle(rig.io, seed);
        spoil(IO_WRITE, 3, IO_FAULT_LATE, 0);
        spoil(IO_SYNC, 5, IO_FAULT_LATE, 0);
        for (uint32_t i = 0; i < 12; i++) {
            r[i] = (struct rig_record){ .n = 64, .seed = (uint32_t)seed * 100 + i };
            assert_int_equal(rig_put_later(&rig, &r[i]), 0);
        }
        rig_wait(&rig, n + 12);
        spoil(IO_READ, 2, IO_FAULT_LATE, 0);
        for (uint32_t i = 0; i < 12; i++)
            assert_int_equal(rig_get(&rig, &r[i]), 64);
        io_faulty_clear(rig.io);
    }
    assert_tidy();
    io_faulty_shuffle(rig.io, 0);
}

/* --- an operation that never comes back ------------------------------------------------------- */

/* Puts r, whose first sync does not come back, and lets time pass. */
static void put_and_wait(const struct rig_record *r, uint64_t ns)
{
    uint64_t n;

    spoil(IO_SYNC, 1, IO_FAULT_NEVER, 0);
    n = io_faulty_n(rig.io, IO_SYNC);
    assert_int_equal(store_timeout_ms(rig.store), -1);
    assert_int_equal(rig_put_later(&rig, r), 0);
    while (io_faulty_n(rig.io, IO_SYNC) == n)
        (void)store_pump(rig.store);
    passed_ns += ns;
}

/* Nobody waits for it, and all is as before when it does come. */
static void a_disk_is_silent(void **state)
{
    struct rig_record there = { .n = 64 }, slow = { .n = 64, .seed = 1 },
                      late = { .n = 64, .seed = 2 };
    uint32_t n;

    (void)state;
    assert_int_equal(rig_put(&rig, &there), 0);
    put_and_wait(&slow, 20 * CLOCK_S);
    (void)store_pump(rig.store);
    assert_false(store_silent(rig.store));
    assert_in_range(store_timeout_ms(rig.store), 1, 10001);
    assert_int_equal(rig_get(&rig, &there), 64);
    n = rig.n_called;

    passed_ns += 11 * CLOCK_S;
    assert_int_equal(store_timeout_ms(rig.store), 0);
    assert_true(store_pump(rig.store)); /* it is news */
    assert_true(store_silent(rig.store));
    assert_int_equal(store_timeout_ms(rig.store), -1);
    assert_says("has not answered for 3");
    assert_false(rig_has(&rig, &there));
    assert_int_equal(rig_put_later(&rig, &late), -EROFS);
    assert_int_equal(rig_put_name(&rig, RIG_OWNER, 1, "a name", "text"), -EROFS);
    assert_int_equal(rig.n_called, n);

    io_faulty_clear(rig.io);
    io_faulty_release(rig.io);
    rig_wait(&rig, n + 1);
    assert_int_equal(rig.result, 0);
    assert_false(store_silent(rig.store));
    assert_says(NULL);
    assert_int_equal(rig_get(&rig, &there), 64);
    assert_int_equal(rig_get(&rig, &slow), 64);
    assert_tidy();
}

/* Times of use and the budget go to the disk as all else does, a minute later: a call of the
 * store's own would wait for it. */
static void keeps_no_books_by_itself(void **state)
{
    struct rig_record r = { .n = 64 };
    uint64_t n_written, n_dated = io_faulty_n(rig.io, IO_DATE);

    (void)state;
    assert_int_equal(rig_put(&rig, &r), 0);
    rig_settle(&rig);
    n_written = io_faulty_n(rig.io, IO_WRITE);
    (void)store_pump(rig.store);
    assert_int_equal(io_faulty_n(rig.io, IO_WRITE), n_written);
    assert_int_equal(io_faulty_n(rig.io, IO_DATE), n_dated);
    pass(61 * CLOCK_S);
    (void)store_pump(rig.store);
    assert_int_equal(io_faulty_n(rig.io, IO_WRITE), n_written + 1);
    assert_int_equal(io_faulty_n(rig.io, IO_DATE), n_dated + 1);

    r.seed++; /* and so does what is left at the end */
    assert_int_equal(rig_put(&rig, &r), 0);
    rig_settle(&rig);
    n_written = io_faulty_n(rig.io, IO_WRITE);
    close_store();
    assert_int_equal(io_faulty_n(rig.io, IO_WRITE), n_written + 1);
    assert_int_equal(io_faulty_n(rig.io, IO_DATE), n_dated + 2);
    assert_int_equal(store_rig_open(&rig), 0);
}

/* Closing waits no longer than that either, and may be tried again. */
static void closes_on_a_silent_disk(void **state)
{
    struct rig_record slow = { .n = 64, .seed = 1 };
    uint32_t n = rig.n_called;

    (void)state;
    put_and_wait(&slow, 31 * CLOCK_S);
    assert_false(store_close(rig.store));
    io_faulty_clear(rig.io);
    io_faulty_release(rig.io);
    rig_wait(&rig, n + 1);
    close_store();
    assert_int_equal(store_rig_open(&rig), 0);
    assert_int_equal(rig_get(&rig, &slow), 64);
}

/* A new folder is synced into its own by one of those who write there, not by each. */
static void a_new_folder_is_synced_once(void **state)
{
    uint64_t n = io_faulty_n(rig.io, IO_SYNC);
    uint32_t called = rig.n_called;

    (void)state;
    for (uint32_t i = 0; i < 8; i++)
        assert_int_equal(rig_put_later(&rig, &(struct rig_record){ .n = 64, .seed = i }), 0);
    rig_wait(&rig, called + 8);
    assert_int_equal(io_faulty_n(rig.io, IO_SYNC) - n, 2 + 8 * 2);
}

/* One whose syncs fail does not leave it to the others. */
static void a_new_folder_is_synced_again(void **state)
{
    uint64_t n = io_faulty_n(rig.io, IO_SYNC);
    uint32_t called = rig.n_called, n_kept = 0;

    (void)state;
    spoil(IO_SYNC, 1, IO_FAULT_ERROR, EIO);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(rig_put_later(&rig, &(struct rig_record){ .n = 64, .seed = i }), 0);
    rig_wait(&rig, called + 3);
    for (uint32_t i = 0; i < 3; i++)
        n_kept += rig_has(&rig, &(struct rig_record){ .n = 64, .seed = i });
    assert_int_equal(n_kept, 2);
    assert_int_equal(io_faulty_n(rig.io, IO_SYNC) - n, 2 + 2 + 2 * 2);
}

/* --- warming ---------------------------------------------------------------------------------- */

/* Of more than are remembered the newest are read back, also when the first is read all the while.
 * A file system without direct writes has nothing to read back. */
static void the_newest_are_warmed(void **state)
{
    const uint32_t n = WARM_RECORDS + 6;
    uint64_t reads;

    (void)state;
    assert_int_equal(rig_put(&rig, &(struct rig_record){ .n = 64, .seed = 1000 }), 0);
    reads = io_faulty_n(rig.io, IO_READ);
    rig_settle(&rig);
    if (io_faulty_n(rig.io, IO_READ) == reads)
        skip();
    assert_int_equal(rig_put(&rig, &(struct rig_record){ .n = 64, .seed = 0 }), 0);
    io_faulty_add(rig.io, &(struct io_fault){ .code = IO_READ, .nth = 1, .what = IO_FAULT_NEVER });
    reads = io_faulty_n(rig.io, IO_READ);
    rig_settle(&rig);
    assert_int_equal(io_faulty_n(rig.io, IO_READ) - reads, 1);
    for (uint32_t i = 1; i < n; i++)
        assert_int_equal(rig_put(&rig, &(struct rig_record){ .n = 64, .seed = i }), 0);
    io_faulty_release(rig.io);
    rig_settle(&rig);
    assert_int_equal(io_faulty_n(rig.io, IO_READ) - reads, 1 + WARM_RECORDS);
}

/* --- memory ----------------------------------------------------------------------------------- */

static const struct rig_record lived[] = { { .n = 64, .seed = 1 }, { .n = 64, .seed = 2 } };

/* Opens, puts, gets, names; what fails says so, and nothing else happens. */
static int live(void)
{
    uint64_t records, bytes;
    int err = store_rig_open(&rig), r;

    if (err < 0)
        return err;
    for (size_t i = 0; i < 2; i++) {
        r = rig_put(&rig, &lived[i]);
        if (r < 0 && r != -EEXIST)
            err = r;
        r = rig_get(&rig, &lived[i]);
        if (r < 0)
            err = r;
    }
    store_prune(rig.store, RIG_OWNER, rig_len(&lived[0]), &records, &bytes);
    close_store();
    return err;
}

static void no_call_is_needed(void **state)
{
    unsigned n_descriptors;
    uint64_t n, failed = 0;
    struct fault f;

    (void)state;
    close_store();
    n_descriptors = fault_n_descriptors();
    for (n = 1;; n++) {
        int err;

        fault_arm(n);
        err = live();
        if (!fault_disarm(&f))
            break;
        failed += err < 0;
        pass(400 * CLOCK_S);
        assert_int_equal(fault_n_descriptors(), n_descriptors);
        /* The next life is as if nothing had been. */
        assert_int_equal(live(), 0);
    }
    assert_true(n > 20);
    assert_true(failed > 5);
    assert_int_equal(store_rig_open(&rig), 0);
}

/* Whatever fails while it is opened, the records are there when it is opened again. */
static void opening_loses_nothing(void **state)
{
    struct fault f;
    uint64_t n;

    (void)state;
    assert_int_equal(rig_put(&rig, &lived[0]), 0);
    close_store();
    for (n = 1;; n++) {
        fault_arm(n);
        if (store_rig_open(&rig) == 0)
            close_store();
        if (!fault_disarm(&f))
            break;
        assert_int_equal(store_rig_open(&rig), 0);
        expect_that(rig_get(&rig, &lived[0]) == 64, "%s failed, and a record was lost", f.name);
        close_store();
    }
    assert_true(n > 5);
    assert_int_equal(store_rig_open(&rig), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_rig, close_rig)
    const struct CMUnitTest tests[] = {
        TEST(a_put_fails_anywhere),
        TEST(what_failed_early_is_not_counted),
        TEST(a_full_disk_makes_room),
        TEST(tries_are_further_and_further_apart),
        TEST(a_name_fails_anywhere),
        TEST(a_new_folder_is_synced),
        TEST(a_folder_vanishes),
        TEST(deleting_fails),
        TEST(a_read_fails),
        TEST(the_start_meets_errors),
        TEST(any_order_will_do),
        TEST(a_disk_is_silent),
        TEST(keeps_no_books_by_itself),
        TEST(closes_on_a_silent_disk),
        TEST(a_new_folder_is_synced_once),
        TEST(a_new_folder_is_synced_again),
        TEST(the_newest_are_warmed),
        TEST(no_call_is_needed),
        TEST(opening_loses_nothing),
    };

    /* Nothing here is about what a disk keeps, or how fast. */
    if (access("/dev/shm", W_OK) == 0)
        (void)setenv("TMPDIR", "/dev/shm", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
