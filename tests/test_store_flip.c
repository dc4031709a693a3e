/* tests/test_store_flip.c - a bit flips in a file of the store: every byte of headers, of the
 * format file, of names and of the count of what was written, and places all over the pages. Would
 * catch: wrong pages or wrong bytes of a name served; a flip in a record that is not counted as
 * refused, or whose record stays; a flip in one file that costs more than it must.
 */
#include "tests/support/counted.h"
#include "tests/support/file.h"
#include "tests/support/sanitized.h"
#include "tests/support/store_rig.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define KIND   1u
#define TEXT   "what a name has"
#define STRIDE (SANITIZED ? 11u : 3u) /* of bytes in headers; with 8 bits in turn all are met */

static const struct rig_record records[] = { { .n = 250, .seed = 1 },
                                             { .n = 64, .seed = 2, .kind = STORE_PACKED } };
static struct store_rig rig;

struct kept_file {
    char path[2 * SCRATCH_PATH_MAX];
    uint8_t *bytes;
    size_t len;
};

static void on_named(void *arg, int result)
{
    *(int *)arg = result;
}

static int fill(void **state)
{
    struct io_options o = { .kind = IO_THREADS, .depth = 16, .threads = 1 };
    int result = 1;

    (void)state;
    store_rig_init(&rig, "flip");
    if (io_open(&o, &rig.io, &rig.why) < 0 || store_rig_open(&rig) < 0)
        return -1;
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(rig_put(&rig, &records[i]), 0);
    assert_int_equal(
        store_name_put(rig.store, RIG_OWNER, KIND, "name", TEXT, strlen(TEXT), on_named, &result),
        0);
    assert_true(store_flush(rig.store, UINT64_MAX / 2));
    (void)store_close(rig.store);
    rig.store = NULL;
    return result;
}

static int empty(void **state)
{
    (void)state;
    store_rig_close(&rig);
    return 0;
}

/* The n-th file of a folder that begins with these letters. */
static struct kept_file file_of(const char *folder, const char *begins, uint64_t len)
{
    struct kept_file f = { 0 };
    char path[2 * SCRATCH_PATH_MAX];
    DIR *dir;

    (void)snprintf(path, sizeof(path), "%s/%s", rig.path, folder);
    dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *d; !f.bytes && (d = readdir(dir));) {
        size_t got;
        uint8_t *bytes;

        if (d->d_type != DT_REG || strncmp(d->d_name, begins, strlen(begins)) != 0)
            continue;
        assert_true(snprintf(f.path, sizeof(f.path), "%.200s/%.40s/%.200s", rig.path, folder,
                             d->d_name) > 0);
        bytes = file_read(f.path, &got);
        if (len == 0 || got == len) {
            f.bytes = bytes;
            f.len = got;
        } else {
            free(bytes);
        }
    }
    (void)closedir(dir);
    assert_non_null(f.bytes);
    return f;
}

/* The store as it was, but for one bit. */
static void flip(struct kept_file *f, size_t at)
{
    uint8_t bit = (uint8_t)(1u << at % 8);

    f->bytes[at] ^= bit;
    file_write(f->path, f->bytes, f->len);
    assert_int_equal(store_rig_open(&rig), 0);
    f->bytes[at] ^= bit;
}

static void mend(struct kept_file *f)
{
    (void)store_close(rig.store);
    rig.store = NULL;
    file_write(f->path, f->bytes, f->len);
}

static int name_err(void)
{
    void *bytes = NULL;
    size_t len = 0;
    int err = store_name_get(rig.store, RIG_OWNER, KIND, "name", &bytes, &len);

    if (err == 0 && (len != strlen(TEXT) || memcmp(bytes, TEXT, len) != 0))
        err = -EINVAL;
    free(bytes);
    return err;
}

static void in_a_record(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        const struct rig_record *r = &records[i], *other = &records[1 - i];
        struct kept_file f = file_of("v1/1000", "", rig_len(r));

        for (size_t at = 0; at < f.len; at += at < 4096 ? STRIDE : 509) {
            int got;

            flip(&f, at);
            got = rig_get(&rig, r);
            expect_that(got == (at < 4096 ? 0 : -EBADMSG), "byte %zu flipped: %d", at, got);
            expect_that(rig_stats(&rig).refused == 1, "byte %zu flipped: not counted", at);
            expect_that(rig_get(&rig, r) == 0, "byte %zu flipped: still there", at);
            expect_that(rig_get(&rig, other) == (int)other->n, "byte %zu flipped: the other", at);
            expect_that(name_err() == 0, "byte %zu flipped: the name", at);
            rig_settle(&rig);
            expect_that(rig_files(&rig, "v1/1000") == 1, "byte %zu flipped: the file stays", at);
            mend(&f);
        }
        free(f.bytes);
    }
}

static void in_a_name(void **state)
{
    struct kept_file f = file_of("v1/1000/names", "", 0);

    (void)state;
    for (size_t at = 0; at < f.len; at++) {
        int err;

        flip(&f, at);
        err = name_err();
        expect_that(err == -ENOENT || err == -EBADMSG, "byte %zu flipped: %d", at, err);
        expect_that(rig_stats(&rig).refused == 1, "byte %zu flipped: not counted", at);
        expect_that(rig_files(&rig, "v1/1000/names") == 1, "byte %zu: it is gone", at);
        expect_that(rig_get(&rig, &records[0]) == 250, "byte %zu flipped: a record", at);
        mend(&f);
    }
    free(f.bytes);
}

static void in_what_was_written(void **state)
{
    struct kept_file f = file_of("v1", "written", 0);
    uint64_t least = rig_len(&records[0]) + rig_len(&records[1]);

    (void)state;
    for (size_t at = 0; at < f.len; at += at % 4096 < 256 ? 1 : 511) {
        flip(&f, at);
        expect_that(rig_stats(&rig).written_today >= least &&
                        rig_stats(&rig).written_today <= least + 4096,
                    "byte %zu flipped: %u", at, (unsigned)rig_stats(&rig).written_today);
        expect_that(rig_get(&rig, &records[0]) == 250, "byte %zu flipped: a record", at);
        mend(&f);
    }
    free(f.bytes);
}

/* Last, since it takes the records: under another secret none can be found. */
static void in_the_format(void **state)
{
    struct kept_file f = file_of("v1", "format", 0), r[2];

    (void)state;
    for (uint32_t i = 0; i < 2; i++)
        r[i] = file_of("v1/1000", "", rig_len(&records[i]));
    for (size_t at = 0; at < f.len; at++) {
        flip(&f, at);
        expect_that(strstr(store_note(rig.store), "damaged"), "byte %zu flipped: '%s'", at,
                    store_note(rig.store));
        for (uint32_t i = 0; i < 2; i++)
            expect_that(rig_get(&rig, &records[i]) == 0, "byte %zu flipped: a record", at);
        expect_that(name_err() == 0, "byte %zu flipped: the name", at);
        mend(&f);
        for (uint32_t i = 0; i < 2; i++)
            file_write(r[i].path, r[i].bytes, r[i].len);
    }
    assert_int_equal(store_rig_open(&rig), 0);
    assert_int_equal(rig_get(&rig, &records[0]), 250);
    free(f.bytes);
    free(r[0].bytes);
    free(r[1].bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_a_record),
        cmocka_unit_test(in_a_name),
        cmocka_unit_test(in_what_was_written),
        cmocka_unit_test(in_the_format),
    };

    /* Nothing here is about what a disk keeps. */
    if (access("/dev/shm", W_OK) == 0)
        (void)setenv("TMPDIR", "/dev/shm", 0);
    return cmocka_run_group_tests(tests, fill, empty);
}
