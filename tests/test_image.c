/* Catches: an image that is taken up for another model, another state of its file or another
 * layout; a header field that nobody looks at; a bit that turned over and is not found; a file that
 * others may write; a write that was interrupted and leaves something behind, or something that is
 * no image under an image's name; a page of one that can't be read and ends the process; a format
 * that changes without its version; a model taken anew that still looks at the one before.
 */
#include "engine/backend.h"
#include "engine/file/image_file.h"
#include "engine/file/image_map.h"
#include "engine/file/model.h"
#include "tests/support/counted.h"
#include "tests/support/fault.h"
#include "tests/support/file.h"
#include "tests/support/gguf_build.h"
#include "tests/support/scratch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

struct world {
    char gguf[SCRATCH_PATH_MAX], folder[SCRATCH_PATH_MAX];
    struct model *m;
    struct image_of of;
    struct packed_sum *sums;
};

static void open_world(struct world *w, const struct gguf_build_shape *shape)
{
    struct gguf_build *b = gguf_build_model(shape);
    struct why why = { "" };

    gguf_build_write(b, scratch_path(w->gguf, "model.gguf"));
    gguf_build_free(b);
    (void)scratch_path(w->folder, "cache/weights");
    expect_that(model_open(w->gguf, NULL, NULL, &w->m, &why) == 0, "%s", why.text);
    w->sums = calloc(w->m->packed.n_sums, sizeof(*w->sums));
    packed_sums(&w->m->packed, NULL, w->m->mem, 0, w->m->packed.n_sums, w->sums);
    assert_int_equal(image_identify(&w->m->packed, w->m->file, &w->of), 0);
}

static void close_world(struct world *w)
{
    free(w->sums);
    model_close(w->m);
}

static int make(const struct world *w, struct why *why)
{
    const struct packed *a = &w->m->packed;
    struct image_new n;
    int r = image_new_open(w->folder, &w->of, &n, why);

    if (r < 0)
        return r;
    if (pwrite(n.fd, w->m->mem, a->len, (off_t)image_head_len(a)) != (ssize_t)a->len)
        r = -errno;
    if (r == 0)
        r = image_new_publish(&n, &w->of, w->m->digest, w->sums, why);
    image_new_close(&n);
    return r;
}

static void make_well(const struct world *w)
{
    struct why why = { "" };

    expect_that(make(w, &why) == 0, "%s", why.text);
}

/* Files of the folder; ret gets the path of the last. */
static unsigned list(const struct world *w, char ret[SCRATCH_PATH_MAX])
{
    DIR *d = opendir(w->folder);
    struct dirent *e;
    unsigned n = 0;

    while (d && (e = readdir(d)))
        if (e->d_name[0] != '.') {
            n++;
            expect_that(snprintf(ret, SCRATCH_PATH_MAX, "%.120s/%.120s", w->folder, e->d_name) > 0,
                        "a path");
        }
    if (d)
        (void)closedir(d);
    return n;
}

static int take(const struct world *w, struct why *why)
{
    struct image_file f;
    struct image_of now;
    int r = image_identify(&w->m->packed, w->m->file, &now);

    if (r == 0)
        r = image_file_open(w->folder, &now, &f, why);
    if (r == 0) {
        assert_string_equal(f.digest, w->m->digest);
        image_file_close(&f);
    }
    return r;
}

static void *head_of(const struct world *w)
{
    void *head = malloc(image_head_len(&w->m->packed));

    image_describe(&w->of, w->m->digest, w->sums, head);
    return head;
}

/* --- the format ------------------------------------------------------------------------------- */

static uint64_t u64_at(const uint8_t *p)
{
    uint64_t v = 0;

    for (int i = 7; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static uint32_t u32_at(const uint8_t *p)
{
    return (uint32_t)(p[0] | p[1] << 8 | p[2] << 16) | (uint32_t)p[3] << 24;
}

static void test_format(void **state)
{
    struct gguf_build_shape shape = gguf_build_tiny();
    char path[SCRATCH_PATH_MAX], digest[33];
    struct packed_sum sum;
    size_t len, gguf_len;
    const uint8_t *gguf;
    struct world w;
    struct stat st;
    uint8_t *f;

    (void)state;
    open_world(&w, &shape);
    make_well(&w);
    assert_int_equal(list(&w, path), 1);
    f = file_read(path, &len);
    assert_int_equal(stat(w.gguf, &st), 0);
    assert_memory_equal(f, "gistdwts", 8);
    assert_int_equal(u32_at(f + 8), 1);
    assert_int_equal(u32_at(f + 12), 0);
    assert_int_equal(u64_at(f + 16), 2 << 20);
    assert_int_equal(u64_at(f + 24), w.m->packed.len);
    assert_int_equal(u64_at(f + 32), w.m->packed.n_sums);
    assert_memory_equal(f + 40, &w.m->packed.layout, 16);
    sum = packed_hash(f + 4096, 16 * (size_t)w.m->packed.n_sums);
    assert_memory_equal(f + 56, &sum, 16);
    for (int i = 0; i < 16; i++)
        (void)snprintf(digest + (size_t)2 * i, 3, "%02x", f[72 + i]);
    assert_string_equal(digest, w.m->digest);
    gguf = gguf_header(w.m->file, &gguf_len);
    sum = packed_hash(gguf, gguf_len);
    assert_memory_equal(f + 88, &sum, 16);
    assert_int_equal(u64_at(f + 104), st.st_size);
    assert_int_equal(u64_at(f + 112), st.st_mtim.tv_sec);
    assert_int_equal(u32_at(f + 120), st.st_mtim.tv_nsec);
    assert_int_equal(u32_at(f + 124), 0);
    assert_int_equal(u64_at(f + 128), st.st_ino);
    assert_string_equal((char *)f + 136, w.gguf);
    sum = packed_hash(f, 4080);
    assert_memory_equal(f + 4080, &sum, 16);
    assert_memory_equal(f + 4096, w.sums, 16 * (size_t)w.m->packed.n_sums);
    assert_memory_equal(f + (2 << 20), w.m->mem, w.m->packed.len);
    assert_int_equal(len, (2 << 20) + w.m->packed.len);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    free(f);
    close_world(&w);
}

/* Each field says something else, and the header's own digest agrees with that. */
static void test_lies(void **state)
{
    static const struct {
        unsigned at;
        int error;
    } fields[] = { { 0, -EBADMSG },  { 8, -ESTALE },   { 16, -ESTALE },  { 24, -ESTALE },
                   { 32, -ESTALE },  { 40, -ESTALE },  { 56, -EBADMSG }, { 88, -ESTALE },
                   { 104, -ESTALE }, { 112, -ESTALE }, { 120, -ESTALE }, { 128, -ESTALE } };
    struct gguf_build_shape shape = gguf_build_tiny();
    char digest[DIGEST_LEN];
    struct packed_sum check;
    struct world w;
    uint8_t *head;

    (void)state;
    open_world(&w, &shape);
    head = head_of(&w);
    assert_int_equal(image_check_head(&w.of, head, digest, NULL), 0);
    for (unsigned i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
        for (unsigned bit = 0; bit < 32; bit++) {
            struct why why = { "" };

            head[fields[i].at + bit / 8] ^= (uint8_t)(1u << bit % 8);
            check = packed_hash(head, 4080);
            memcpy(head + 4080, &check, sizeof(check));
            assert_int_equal(image_check_head(&w.of, head, digest, &why), fields[i].error);
            assert_true(why.text[0]);
            head[fields[i].at + bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
    free(head);
    close_world(&w);
}

/* Any bit of the head that means something, with nobody to cover for it. */
static void test_flips(void **state)
{
    struct gguf_build_shape shape = gguf_build_tiny();
    char digest[DIGEST_LEN];
    struct world w;
    uint8_t *head;
    size_t n;

    (void)state;
    open_world(&w, &shape);
    head = head_of(&w);
    n = 4096 + 16 * (size_t)w.m->packed.n_sums;
    for (size_t bit = 0; bit < 8 * n; bit++) {
        head[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (image_check_head(&w.of, head, digest, NULL) == 0)
            fail_msg("bit %zu of the head turned over and was not found", bit);
        head[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(image_check_head(&w.of, head, digest, NULL), 0);
    assert_string_equal(digest, w.m->digest);
    free(head);
    close_world(&w);
}

/* --- files ------------------------------------------------------------------------------------ */

static void test_lengths(void **state)
{
    struct gguf_build_shape shape = gguf_build_tiny();
    char path[SCRATCH_PATH_MAX];
    struct world w;
    off_t len;

    (void)state;
    open_world(&w, &shape);
    make_well(&w);
    assert_int_equal(take(&w, NULL), 0);
    assert_int_equal(list(&w, path), 1);
    len = (off_t)image_len(&w.m->packed);
    for (off_t cut = 1; cut <= len; cut *= 7) {
        struct why why = { "" };

        assert_int_equal(truncate(path, len - cut), 0);
        assert_int_equal(take(&w, &why), -EBADMSG);
        assert_non_null(strstr(why.text, "bytes"));
    }
    assert_int_equal(truncate(path, len + 1), 0);
    assert_int_equal(take(&w, NULL), -EBADMSG);
    make_well(&w);
    assert_int_equal(take(&w, NULL), 0);
    assert_int_equal(list(&w, path), 1);
    close_world(&w);
}

/* Cut off behind our back, as a page that the disk can't give any more: an error, and no SIGBUS. */
static void test_pages_that_are_not_there(void **state)
{
    struct gguf_build_shape shape = gguf_build_tiny();
    char path[SCRATCH_PATH_MAX];
    struct image_of now;
    struct image_map map;
    struct image_file f;
    struct world w;

    (void)state;
    open_world(&w, &shape);
    make_well(&w);
    assert_int_equal(list(&w, path), 1);
    assert_int_equal(image_identify(&w.m->packed, w.m->file, &now), 0);
    assert_int_equal(image_file_open(w.folder, &now, &f, NULL), 0);
    assert_int_equal(image_map_open(&f, &w.m->packed, w.m->backend, &map), 0);
    image_map_close(&map);
    assert_int_equal(truncate(path, (off_t)f.arena_off + 4096), 0);
    assert_int_equal(image_map_open(&f, &w.m->packed, w.m->backend, &map), -EIO);
    image_file_close(&f);
    close_world(&w);
}

static void test_other_states_of_the_file(void **state)
{
    struct gguf_build_shape shape = gguf_build_tiny();
    struct timespec times[2];
    struct world w, other;
    struct stat st;

    (void)state;
    open_world(&w, &shape);
    make_well(&w);
    assert_int_equal(stat(w.gguf, &st), 0);
    times[0] = times[1] = st.st_mtim;
    times[1].tv_nsec ^= 1;
    assert_int_equal(utimensat(AT_FDCWD, w.gguf, times, 0), 0);
    assert_int_equal(take(&w, NULL), -ESTALE);
    times[1].tv_nsec ^= 1;
    assert_int_equal(utimensat(AT_FDCWD, w.gguf, times, 0), 0);
    assert_int_equal(take(&w, NULL), 0);
    close_world(&w);

    /* Another file of that name: of another shape, and of the same. */
    shape.n_ff += 32;
    open_world(&other, &shape);
    assert_int_equal(take(&other, NULL), -EBADMSG); /* of another length */
    close_world(&other);
    shape.n_ff -= 32;
    shape.seed++;
    open_world(&other, &shape);
    assert_int_equal(take(&other, NULL), -ESTALE);
    make_well(&other);
    assert_int_equal(take(&other, NULL), 0);
    close_world(&other);
}

static void test_whose(void **state)
{
    char path[SCRATCH_PATH_MAX], aside[SCRATCH_PATH_MAX];
    struct gguf_build_shape shape = gguf_build_tiny();
    struct world w;

    (void)state;
    open_world(&w, &shape);
    make_well(&w);
    assert_int_equal(list(&w, path), 1);
    assert_int_equal(chmod(path, 0620), 0);
    assert_int_equal(take(&w, NULL), -EPERM);
    assert_int_equal(chmod(path, 0602), 0);
    assert_int_equal(take(&w, NULL), -EPERM);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(take(&w, NULL), 0);
    assert_int_equal(rename(path, scratch_path(aside, "aside")), 0);
    assert_int_equal(symlink(aside, path), 0);
    assert_int_equal(take(&w, NULL), -ELOOP);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(take(&w, NULL), -ENOENT);
    close_world(&w);
}

/* --- interrupted ------------------------------------------------------------------------------ */

/* Each call that can fail fails once: what has an image's name is one, and nothing else is there.
 */
static void test_calls_fail(void **state)
{
    struct gguf_build_shape shape = gguf_build_tiny();
    char path[SCRATCH_PATH_MAX];
    struct world w;
    struct fault f;
    uint64_t n;

    (void)state;
    open_world(&w, &shape);
    for (n = 1;; n++) {
        struct why why = { "" };
        unsigned fds = fault_n_descriptors();
        int r;

        if (list(&w, path))
            assert_int_equal(unlink(path), 0);
        fault_arm(n);
        r = make(&w, &why);
        if (!fault_disarm(&f))
            break;
        assert_int_equal(fault_n_descriptors(), fds);
        expect_that(r == -f.error, "%s failed: %d", f.name, r);
        /* The folder could not be synced: then the name is there, or is not after a power cut. */
        if (list(&w, path))
            assert_int_equal(take(&w, NULL), 0);
    }
    assert_true(n > 5);
    assert_int_equal(list(&w, path), 1);
    for (n = 1;; n++) {
        unsigned fds = fault_n_descriptors();
        int r;

        fault_arm(n);
        r = take(&w, NULL);
        if (!fault_disarm(&f))
            break;
        assert_int_equal(fault_n_descriptors(), fds);
        if (strcmp(f.name, "fcntl") != 0) /* without O_DIRECT it is slower, no more */
            expect_that(r == -f.error, "%s failed: %d", f.name, r);
    }
    assert_true(n > 3);
    close_world(&w);
}

/* Killed with all but the name in place. */
static void test_killed(void **state)
{
    struct gguf_build_shape shape = gguf_build_tiny();
    char path[SCRATCH_PATH_MAX];
    struct world w;
    int status;
    pid_t pid;

    (void)state;
    open_world(&w, &shape);
    if (list(&w, path))
        assert_int_equal(unlink(path), 0);
    pid = fork();
    if (pid == 0) {
        struct image_new n;

        if (image_new_open(w.folder, &w.of, &n, NULL) < 0 ||
            pwrite(n.fd, w.m->mem, w.m->packed.len, (off_t)image_head_len(&w.m->packed)) < 0)
            _exit(1);
        (void)kill(getpid(), SIGKILL);
        _exit(2);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(list(&w, path), 0);
    assert_int_equal(take(&w, NULL), -ENOENT);
    close_world(&w);
}

/* Weights that went and came back: an image is found for them, and made of them, as before. */
static void test_taken_anew(void **state)
{
    struct gguf_build_shape shape = gguf_build_tiny();
    struct why why = { "" };
    struct model *again;
    struct image_file f;
    struct world w;

    (void)state;
    open_world(&w, &shape);
    make_well(&w);
    model_leave(w.m);
    expect_that(model_open(w.gguf, NULL, NULL, &again, &why) == 0, "%s", why.text);
    model_take(w.m, again);
    assert_ptr_equal(w.m->of.packed, &w.m->packed);
    assert_ptr_equal(w.m->of.file, w.m->file);
    expect_that(image_file_open(w.folder, &w.m->of, &f, &why) == 0, "%s", why.text);
    assert_string_equal(f.digest, w.m->digest);
    image_file_close(&f);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_format),
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_flips),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_pages_that_are_not_there),
        cmocka_unit_test(test_other_states_of_the_file),
        cmocka_unit_test(test_whose),
        cmocka_unit_test(test_calls_fail),
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_taken_anew),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
