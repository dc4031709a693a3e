/* tests/test_files.c - base/files. Would catch: a write that is asked for ever of a disk that takes
 * nothing, a short move that is taken for all of it, a file that ends early and passes for whole, a
 * folder that cannot be synced and is called so, lines without memory that pass for a file's end.
 */
#include "base/files.h"
#include "tests/support/fault.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static int open_new(const char *name)
{
    char path[SCRATCH_PATH_MAX];
    int fd = open(scratch_path(path, name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    return fd;
}

/* Piece by piece both ways, and an end that comes too early. */
static void moves_all(void **state)
{
    const char text[] = "a text of some length";
    char back[sizeof(text)] = "";
    int fd = open_new("moved");

    (void)state;
    fault_short(5);
    assert_int_equal(files_write(fd, text, sizeof(text), 3), 0);
    assert_int_equal(files_read(fd, back, sizeof(back), 3), 0);
    assert_int_equal(files_read(fd, back, sizeof(back), 4), -EBADMSG);
    fault_short(0);
    /* What the third read found before the end. */
    assert_string_equal(back, text + 1);
    assert_int_equal(close(fd), 0);
}

static void disk_that_takes_nothing(void **state)
{
    int fd = open_new("nothing");

    (void)state;
    fault_still(true);
    assert_int_equal(files_write(fd, "text", 4, 0), -EIO);
    assert_int_equal(files_write(fd, "", 0, 0), 0);
    fault_still(false);
    assert_int_equal(files_write(fd, "text", 4, 0), 0);
    assert_int_equal(close(fd), 0);
}

/* With a folder in the path, without one, and in the root; every call failing in turn. */
static void syncs_entries(void **state)
{
    char path[SCRATCH_PATH_MAX];
    struct why why = { "" };
    struct fault f;

    (void)state;
    (void)close(open_new("entry"));
    assert_int_equal(files_sync_entry(scratch_path(path, "entry"), &why), 0);
    assert_int_equal(files_sync_entry("entry", NULL), 0);
    assert_int_equal(files_sync_entry("/entry", NULL), 0);
    assert_string_equal(why.text, "");
    assert_int_equal(files_sync_entry(scratch_path(path, "gone/entry"), &why), -ENOENT);
    assert_non_null(strstr(why.text, "gone/entry"));
    scratch_path(path, "entry");
    for (uint64_t n = 1;; n++) {
        int r;

        why.text[0] = '\0';
        fault_arm(n);
        r = files_sync_entry(path, &why);
        if (!fault_disarm(&f)) {
            assert_true(n > 3); /* memory, open, fsync */
            break;
        }
        assert_int_equal(r, -f.error);
        assert_non_null(strstr(why.text, path));
    }
}

/* The file is there and whole; that it may be taken back by a power cut can't be helped. */
static void folder_that_may_not_be_read(void **state)
{
    char folder[SCRATCH_PATH_MAX], path[SCRATCH_PATH_MAX];

    (void)state;
    assert_int_equal(mkdir(scratch_path(folder, "locked"), 0700), 0);
    assert_int_equal(chmod(folder, 0300), 0);
    assert_int_equal(files_sync_entry(scratch_path(path, "locked/entry"), NULL), 0);
    assert_int_equal(chmod(folder, 0700), 0);
}

/* A line that cannot be read, or has no memory, is no end. */
static void ends_of_lines(void **state)
{
    char path[SCRATCH_PATH_MAX], *line = NULL;
    size_t cap = 0;
    struct fault f;
    FILE *file;

    (void)state;
    file = fopen(scratch_path(path, "lines"), "we");
    assert_non_null(file);
    assert_true(fputs("one\ntwo", file) >= 0);
    assert_int_equal(fclose(file), 0);
    file = fopen(path, "re");
    assert_non_null(file);
    assert_int_equal(getline(&line, &cap, file), 4);
    fault_arm(1);
    assert_int_equal(getline(&line, &cap, file), -1);
    assert_int_equal(files_lines_end(file), -ENOMEM);
    assert_true(fault_disarm(&f));
    assert_int_equal(getline(&line, &cap, file), 3);
    assert_int_equal(getline(&line, &cap, file), -1);
    assert_int_equal(files_lines_end(file), 0);
    assert_int_equal(fclose(file), 0);
    file = fopen("/", "re");
    assert_non_null(file);
    assert_int_equal(getline(&line, &cap, file), -1);
    assert_int_equal(files_lines_end(file), -EISDIR);
    assert_int_equal(fclose(file), 0);
    free(line);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(moves_all),
                                        cmocka_unit_test(disk_that_takes_nothing),
                                        cmocka_unit_test(syncs_entries),
                                        cmocka_unit_test(folder_that_may_not_be_read),
                                        cmocka_unit_test(ends_of_lines) };

    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
