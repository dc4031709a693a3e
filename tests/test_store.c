/* tests/test_store.c - the store as its callers see it. Would catch: pages of other ids, owner,
 * scope or kind given away; the longest match not found; a record that is not there after a
 * restart, or is there after it was replaced or deleted; a cancelled get that still writes to its
 * pages; names that are lost or mixed up; a second daemon on one store; a folder of somebody
 * else's; symbolic links that are followed. What goes when the store is full is test_store_limits'.
 */
#include "base/clock.h"
#include "store/sum.h"
#include "tests/support/file.h"
#include "tests/support/store_names.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct store_rig rig;

static int open_rig(void **state)
{
    static char name[16];
    static int n;

    (void)state;
    (void)snprintf(name, sizeof(name), "s%d", n++);
    store_rig_init(&rig, name);
    return store_rig_open(&rig);
}

static int close_rig(void **state)
{
    (void)state;
    store_rig_close(&rig);
    return 0;
}

/* --- found ------------------------------------------------------------------------------------ */

static void finds_what_was_put(void **state)
{
    struct rig_record a = { .n = 256, .seed = 1 }, b = { .n = 250, .seed = 2 };

    (void)state;
    assert_int_equal(rig_get(&rig, &a), 0);
    assert_int_equal(rig_put(&rig, &a), 0);
    b.before = rig_hash(&rig, &a);
    assert_int_equal(rig_put(&rig, &b), 0);
    for (int restart = 0; restart < 2; restart++) {
        assert_int_equal(rig_get(&rig, &a), 256);
        assert_int_equal(rig_get(&rig, &b), 250);
        b.before = STORE_ROOT;
        assert_int_equal(rig_get(&rig, &b), 0);
        b.before = rig_hash(&rig, &a);
        assert_int_equal(rig_stats(&rig).records, 2);
        assert_int_equal(rig_stats(&rig).bytes, rig_len(&a) + rig_len(&b));
        assert_int_equal(rig_files(&rig, "v1/1000"), 2);
        store_rig_again(&rig);
    }
    assert_int_equal(rig_put(&rig, &a), -EEXIST);
    assert_string_equal(rig_stats(&rig).degraded, "");
    assert_string_equal(store_note(rig.store), "");
}

static void finds_the_longest(void **state)
{
    struct rig_record shared = { .n = 64, .stem = 9, .same = 64 };
    struct rig_record a = { .n = 128, .stem = 9, .same = 64, .seed = 1 };
    struct rig_record b = { .n = 128, .stem = 9, .same = 96, .seed = 2 };
    struct rig_record asked = { .n = 120, .stem = 9, .same = 100, .seed = 3 };

    (void)state;
    assert_int_equal(rig_put(&rig, &a), 0);
    assert_int_equal(rig_get(&rig, &asked), 64);
    assert_int_equal(rig_put(&rig, &b), 0);
    /* Whole pages of 16 only. */
    assert_int_equal(rig_get(&rig, &asked), 96);
    asked.same = 79;
    assert_int_equal(rig_get(&rig, &asked), 64);
    assert_int_equal(rig_get(&rig, &shared), 64);
    asked.same = 15;
    assert_int_equal(rig_get(&rig, &asked), 0);
    /* A query shorter than any record. */
    asked = (struct rig_record){ .n = 40, .stem = 9, .same = 40 };
    assert_int_equal(rig_get(&rig, &asked), 32);
    assert_int_equal(rig_get(&rig, &b), 128);
}

static void packed_are_whole(void **state)
{
    struct rig_record a = { .n = 256, .seed = 1, .kind = STORE_PACKED }, longer = a, shorter = a;

    (void)state;
    longer.n = 300;
    shorter.n = 255;
    assert_int_equal(rig_put(&rig, &a), 0);
    assert_int_equal(rig_get(&rig, &a), 256);
    assert_int_equal(rig_get(&rig, &shorter), 0);
    assert_true(rig_has(&rig, &a));
    {
        uint32_t ids[RIG_IDS_MAX];
        struct store_key key = rig_key(&longer);
        struct store_found found;

        rig_ids(&longer, ids);
        assert_true(store_find(rig.store, &key, ids, 300, &found));
        assert_int_equal(found.n_tokens, 256);
        assert_int_equal(found.n_pages, 4);
        assert_int_equal(found.n_keys, 65);
        key.kind = STORE_RAW;
        assert_false(store_find(rig.store, &key, ids, 300, &found));
    }
}

static void keeps_owners_and_scopes_apart(void **state)
{
    struct rig_record a = { .n = 64, .seed = 1 }, b = a, c = a;
    uint32_t ids[RIG_IDS_MAX];
    struct store_key key = rig_key(&a);
    struct store_found found;

    (void)state;
    b.owner = 1001;
    c.owner = STORE_PUBLIC;
    assert_int_equal(rig_put(&rig, &a), 0);
    assert_int_equal(rig_get(&rig, &b), 0);
    assert_int_equal(rig_get(&rig, &c), 0);
    rig_ids(&a, ids);
    key.scope[0] ^= 1;
    assert_false(store_find(rig.store, &key, ids, a.n, &found));
    assert_int_equal(rig_put(&rig, &b), 0);
    assert_int_equal(rig_put(&rig, &c), 0);
    store_rig_again(&rig);
    assert_int_equal(rig_get(&rig, &a), 64);
    assert_int_equal(rig_get(&rig, &b), 64);
    assert_int_equal(rig_get(&rig, &c), 64);
    assert_int_equal(rig_files(&rig, "v1/1001"), 1);
    assert_int_equal(rig_files(&rig, "v1/public"), 1);
}

/* As many as may be under way, and more than the start has open at once. */
static void takes_many(void **state)
{
    struct rig_record r = { .n = 48, .stem = 5, .same = 32 };
    uint32_t n = 0;
    int err;

    (void)state;
    for (r.seed = 1; (err = rig_put_later(&rig, &r)) == 0; r.seed++)
        n++;
    assert_int_equal(err, -EAGAIN);
    assert_int_equal(n, 256);
    assert_true(store_flush(rig.store, 120 * CLOCK_S));
    assert_int_equal(rig.n_called, n);
    assert_int_equal(rig_put(&rig, &r), 0);
    store_rig_again(&rig);
    assert_int_equal(rig_stats(&rig).records, n + 1);
    for (r.seed = 1; r.seed <= n + 1; r.seed += 16)
        assert_int_equal(rig_get(&rig, &r), 48);
    r.seed = n + 100;
    assert_int_equal(rig_get(&rig, &r), 32); /* the common beginning */
}

/* Tails: shorter than a page, replaced, and both there after a cut between publishing and deleting.
 */
static void replaces_tails(void **state)
{
    struct rig_record tail = { .n = 24, .seed = 1, .tail = true }, full = tail, tiny = tail;

    (void)state;
    tiny.n = 5;
    assert_int_equal(rig_put(&rig, &tiny), 0);
    assert_int_equal(rig_get(&rig, &tail), 0 + 5);
    assert_int_equal(rig_put(&rig, &tail), 0);
    assert_int_equal(rig_get(&rig, &tail), 24);
    full.n = 64;
    full.tail = false;
    assert_int_equal(rig_get(&rig, &full), 24);
    assert_int_equal(rig_put(&rig, &full), 0);
    assert_int_equal(rig_get(&rig, &full), 64);
    assert_int_equal(rig_put(&rig, &tail), -EEXIST);
    rig_settle(&rig);
    assert_int_equal(rig_stats(&rig).records, 2); /* the tiny one stays until it is old */
    assert_int_equal(rig_files(&rig, "v1/1000"), 2);
    store_rig_again(&rig);
    assert_int_equal(rig_get(&rig, &full), 64);
    assert_int_equal(rig_get(&rig, &tail), 16);
}

/* Two that are under way together: the longer wins, whichever is done first. */
static void tails_meet(void **state)
{
    struct rig_record tail = { .n = 24, .seed = 1, .tail = true }, full = { .n = 64, .seed = 1 };

    (void)state;
    for (int order = 0; order < 2; order++) {
        uint32_t n = rig.n_called;

        assert_int_equal(rig_put_later(&rig, order ? &full : &tail), 0);
        assert_int_equal(rig_put_later(&rig, order ? &tail : &full), 0);
        assert_int_equal(rig_put_later(&rig, &full), -EEXIST);
        rig_wait(&rig, n + 2);
        rig_settle(&rig);
        assert_int_equal(rig_stats(&rig).records, 1 + (uint64_t)order);
        assert_int_equal(rig_get(&rig, &full), 64);
        tail.seed = ++full.seed;
    }
}

/* --- gets ------------------------------------------------------------------------------------- */

static void cancels(void **state)
{
    struct rig_record a = { .n = 1024, .seed = 1 };
    struct rig_called c = { 0 };
    uint32_t ids[RIG_IDS_MAX];
    struct store_key key = rig_key(&a);
    struct store_found found;
    void *pages[64];
    uint8_t *mem = aligned_alloc(4096, (size_t)64 * RIG_PAGE);

    (void)state;
    assert_int_equal(rig_put(&rig, &a), 0);
    rig_ids(&a, ids);
    for (int i = 0; i < 64; i++)
        pages[i] = mem + (size_t)i * RIG_PAGE;
    for (int steps = 0; steps < 6; steps++) {
        bool later;

        c = (struct rig_called){ 0 };
        assert_true(store_find(rig.store, &key, ids, a.n, &found));
        assert_int_equal(store_get(rig.store, found.id, found.n_pages, pages, rig_count, &c), 0);
        for (int k = 0; k < steps && c.n == 0; k++) {
            (void)io_wait(rig.io);
            (void)store_pump(rig.store);
        }
        if (c.n > 0) /* done before */
            continue;
        later = store_cancel(rig.store, &c);
        rig_settle(&rig);
        assert_int_equal(c.n, later ? 1 : 0);
        assert_int_equal(c.result, later ? -ECANCELED : 0);
    }
    assert_int_equal(rig_get(&rig, &a), 1024);
    /* The store is closed under a get. */
    c = (struct rig_called){ 0 };
    assert_true(store_find(rig.store, &key, ids, a.n, &found));
    assert_int_equal(store_get(rig.store, found.id, found.n_pages, pages, rig_count, &c), 0);
    store_rig_close(&rig);
    assert_int_equal(c.n, 1);
    assert_int_equal(c.result, -ECANCELED);
    free(mem);
}

/* Pages of a folder's files that the page cache has, of 100. */
static unsigned cached_share(const char *folder)
{
    char path[SCRATCH_PATH_MAX];
    DIR *dir = opendir(rig_path(&rig, path, folder));
    unsigned n = 0, cached = 0;

    for (struct dirent *d; (d = readdir(dir));) {
        int fd = openat(dirfd(dir), d->d_name, O_RDONLY);
        struct stat st;
        unsigned char in[1024];
        void *map;

        if (d->d_type == DT_REG && fstat(fd, &st) == 0) {
            map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
            assert_int_equal(mincore(map, (size_t)st.st_size, in), 0);
            for (long i = 0; i < st.st_size / 4096; i++, n++)
                cached += in[i] & 1;
            assert_int_equal(munmap(map, (size_t)st.st_size), 0);
        }
        (void)close(fd);
    }
    (void)closedir(dir);
    assert_true(n > 0);
    return cached * 100 / n;
}

/* What was written past the page cache is in it when the store had time for that. */
static void warms_what_was_put(void **state)
{
    struct rig_record a = { .n = 1024, .seed = 1 }, b = { .n = 1024, .seed = 2 };

    (void)state;
    assert_int_equal(rig_put(&rig, &a), 0);
    assert_int_equal(rig_put(&rig, &b), 0);
    rig_settle(&rig);
    assert_true(cached_share("v1/1000") > 90);
    assert_int_equal(rig_stats(&rig).gets, 0);
    assert_int_equal(rig_stats(&rig).read_bytes, 0);
    assert_int_equal(rig_get(&rig, &a), 1024);
}

static void says_what_is_gone(void **state)
{
    struct rig_record a = { .n = 64, .seed = 1 }, b = { .n = 64, .seed = 2 };
    struct store_item it = { 0 };
    void *page = NULL;

    (void)state;
    assert_int_equal(store_get(rig.store, 77, 1, &page, rig_count, NULL), -ENOENT);
    assert_int_equal(store_verify(rig.store, 77, rig_count, NULL), -ENOENT);
    assert_int_equal(rig_put(&rig, &a), 0);
    assert_int_equal(rig_put(&rig, &b), 0);
    assert_true(store_next(rig.store, RIG_OWNER, &it));
    assert_int_equal(store_get(rig.store, it.id, 5, &page, rig_count, NULL), -EINVAL);
    assert_int_equal(store_get(rig.store, it.id, 0, &page, rig_count, NULL), -EINVAL);
    {
        char cmd[SCRATCH_PATH_MAX + 32], path[SCRATCH_PATH_MAX];

        (void)snprintf(cmd, sizeof(cmd), "rm -f %s/[0-9a-f]*", rig_path(&rig, path, "v1/1000"));
        assert_int_equal(system(cmd), 0);
    }
    assert_int_equal(rig_get(&rig, &a), -ENOENT);
    assert_int_equal(rig_get(&rig, &a), 0);
    rig_settle(&rig);
    assert_int_equal(rig_stats(&rig).records, 1);
    assert_int_equal(rig_put(&rig, &a), 0);
    assert_int_equal(rig_get(&rig, &a), 64);
}

/* Of the only record. */
static void flip(off_t at)
{
    char folder[SCRATCH_PATH_MAX];
    DIR *d = opendir(rig_path(&rig, folder, "v1/1000"));
    struct dirent *e;
    unsigned n = 0;

    assert_non_null(d);
    while ((e = readdir(d))) {
        int fd = openat(dirfd(d), e->d_name, O_RDWR | O_CLOEXEC);
        char byte;

        if (fd < 0) /* a folder */
            continue;
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= 1;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        assert_int_equal(close(fd), 0);
        n++;
    }
    assert_int_equal(closedir(d), 0);
    assert_int_equal(n, 1);
}

static int verify(uint64_t id)
{
    struct rig_called c = { 0 };

    assert_int_equal(store_verify(rig.store, id, rig_count, &c), 0);
    for (int i = 0; i < 1000 && c.n == 0; i++)
        rig_settle(&rig);
    assert_int_equal(c.n, 1);
    return c.result;
}

static void verifies(void **state)
{
    struct rig_record a = { .n = 256, .seed = 1 };
    struct store_item it = { 0 };

    (void)state;
    assert_int_equal(rig_put(&rig, &a), 0);
    assert_true(store_next(rig.store, RIG_OWNER, &it));
    assert_int_equal(it.n_tokens, 256);
    assert_int_equal(it.bytes, rig_len(&a));
    assert_int_equal(verify(it.id), 0);
    assert_int_equal(rig_stats(&rig).gets, 0);
    assert_false(store_next(rig.store, RIG_OWNER, &it));
    assert_false(store_next(rig.store, STORE_PUBLIC, &(struct store_item){ 0 }));
    /* What the next start would read is looked at, too: the header, though it is known here. */
    flip(60);
    assert_int_equal(verify(it.id), -EBADMSG);
    rig_settle(&rig);
    assert_int_equal(rig_files(&rig, "v1/1000"), 0);
    assert_int_equal(rig_get(&rig, &a), 0);
}

/* --- names ------------------------------------------------------------------------------------ */

static void keeps_names(void **state)
{
    struct store_named n = { 0 };
    char longest[STORE_NAME_MAX + 2];

    (void)state;
    memset(longest, 'x', sizeof(longest));
    longest[STORE_NAME_MAX] = '\0';
    assert_int_equal(rig_put_name(&rig, 1000, 1, "b", "first"), 0);
    assert_int_equal(rig_put_name(&rig, 1000, 1, "a \n\xff", ""), 0);
    assert_int_equal(rig_put_name(&rig, 1000, 1, longest, "long"), 0);
    assert_int_equal(rig_put_name(&rig, 1000, 2, "b", "of another kind"), 0);
    assert_int_equal(rig_put_name(&rig, 1001, 1, "b", "of another owner"), 0);
    assert_int_equal(rig_put_name(&rig, 1000, 1, "b", "second, and longer"), 0);
    for (int restart = 0; restart < 2; restart++) {
        rig_assert_name(&rig, 1000, 1, "b", "second, and longer");
        rig_assert_name(&rig, 1000, 1, "a \n\xff", "");
        rig_assert_name(&rig, 1000, 1, longest, "long");
        rig_assert_name(&rig, 1000, 2, "b", "of another kind");
        rig_assert_name(&rig, 1001, 1, "b", "of another owner");
        rig_assert_name(&rig, 1001, 2, "b", NULL);
        rig_assert_name(&rig, 1000, 1, "c", NULL);
        n = (struct store_named){ 0 };
        assert_true(store_name_next(rig.store, 1000, 1, &n));
        assert_string_equal(n.name, "a \n\xff");
        assert_true(store_name_next(rig.store, 1000, 1, &n));
        assert_string_equal(n.name, "b");
        assert_int_equal(n.len, strlen("second, and longer"));
        assert_true(store_name_next(rig.store, 1000, 1, &n));
        assert_string_equal(n.name, longest);
        assert_false(store_name_next(rig.store, 1000, 1, &n));
        assert_int_equal(rig_stats(&rig).names, 5);
        assert_int_equal(rig_stats(&rig).bytes, 5 * 4096);
        store_rig_again(&rig);
    }
    assert_int_equal(store_name_delete(rig.store, 1000, 1, "b"), 0);
    assert_int_equal(store_name_delete(rig.store, 1000, 1, "b"), -ENOENT);
    rig_assert_name(&rig, 1000, 1, "b", NULL);
    rig_assert_name(&rig, 1000, 2, "b", "of another kind");
    store_rig_again(&rig);
    rig_assert_name(&rig, 1000, 1, "b", NULL);
    assert_int_equal(rig_stats(&rig).names, 4);
    longest[STORE_NAME_MAX] = 'x';
    longest[STORE_NAME_MAX + 1] = '\0';
    assert_int_equal(rig_put_name(&rig, 1000, 1, longest, ""), -EINVAL);
    assert_int_equal(rig_put_name(&rig, 1000, 1, "", ""), -EINVAL);
    assert_int_equal(rig_put_name(&rig, 1000, 1, "../a", ""), -EINVAL);
}

/* --- whose folder ----------------------------------------------------------------------------- */

static void is_one_daemons(void **state)
{
    struct store_rig second = rig;

    (void)state;
    second.io = NULL;
    assert_int_equal(store_rig_open(&second), -EWOULDBLOCK);
    assert_non_null(strstr(second.why.text, "another daemon"));
    store_rig_close(&rig);
    assert_int_equal(store_rig_open(&second), 0);
    assert_int_equal(store_rig_open(&rig), -EWOULDBLOCK);
    store_rig_close(&second);
}

static void is_ours_alone(void **state)
{
    struct rig_record a = { .n = 64, .seed = 1 };
    char path[SCRATCH_PATH_MAX], link[SCRATCH_PATH_MAX];
    struct stat st;

    (void)state;
    assert_int_equal(rig_put(&rig, &a), 0);
    assert_int_equal(stat(rig.path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(stat(rig_path(&rig, path, "v1/1000"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    {
        DIR *dir = opendir(path);

        for (struct dirent *d; (d = readdir(dir));) {
            if (d->d_type != DT_REG)
                continue;
            assert_int_equal(fstatat(dirfd(dir), d->d_name, &st, 0), 0);
            assert_int_equal(st.st_mode & 07777, 0600);
        }
        (void)closedir(dir);
    }
    store_rig_close(&rig);
    assert_int_equal(chmod(rig.path, 0770), 0);
    assert_int_equal(store_rig_open(&rig), -EPERM);
    assert_non_null(strstr(rig.why.text, "chmod go-w"));
    assert_int_equal(chmod(rig.path, 0755),
                     0); /* to be read does no harm: folders inside are 0700 */
    assert_int_equal(store_rig_open(&rig), 0);
    store_rig_close(&rig);
    /* By a symbolic link. */
    scratch_path(link, "link");
    (void)unlink(link);
    assert_int_equal(symlink(rig.path, link), 0);
    memcpy(path, rig.path, sizeof(path));
    memcpy(rig.path, link, sizeof(link));
    assert_true(store_rig_open(&rig) < 0);
    assert_non_null(strstr(rig.why.text, "symbolic link"));
    memcpy(rig.path, path, sizeof(path));
    if (geteuid() == 0) { /* another user's */
        assert_int_equal(chown(rig.path, 12345, 12345), 0);
        assert_int_equal(store_rig_open(&rig), -EPERM);
        assert_non_null(strstr(rig.why.text, "12345"));
    }
}

/* What lies in the store and is not the store's: it stays, and is not read. */
static void leaves_alone_what_is_not_its(void **state)
{
    struct rig_record a = { .n = 64, .seed = 1 };
    char path[SCRATCH_PATH_MAX], cmd[4 * SCRATCH_PATH_MAX];

    (void)state;
    assert_int_equal(rig_put(&rig, &a), 0);
    store_rig_close(&rig);
    rig_path(&rig, path, "v1/1000");
    /* A file of another name, a link to a record under a record's name, a folder under one, and
     * what a kill in the middle of a write leaves. */
    (void)snprintf(cmd, sizeof(cmd),
                   "cd %s && f=$(ls | grep -v names) && cp $f notes.txt && mv $f ../moved && "
                   "ln -s ../moved $f && mkdir 0123456789abcdef0123456789abcdef && "
                   "mkfifo 1123456789abcdef0123456789abcdef && "
                   "echo x >.new-0000000000000001 && echo x >names/.new-2 && mkdir ../0100",
                   path);
    assert_int_equal(system(cmd), 0);
    assert_int_equal(store_rig_open(&rig), 0);
    assert_int_equal(rig_get(&rig, &a), 0);
    assert_int_equal(rig_stats(&rig).records, 0);
    assert_int_equal(rig_files(&rig, "v1/1000"), 1);
    assert_int_equal(rig_files(&rig, "v1/1000/names"), 0);
    /* The record comes back in the place of the link, which is not followed for writing either. */
    assert_int_equal(rig_put(&rig, &a), 0);
    assert_int_equal(rig_get(&rig, &a), 64);
    assert_int_equal(rig_files(&rig, "v1/1000"), 2);
}

/* --- other versions --------------------------------------------------------------------------- */

static void starts_empty_beside_others(void **state)
{
    struct rig_record a = { .n = 64, .seed = 1 };
    char path[SCRATCH_PATH_MAX];

    (void)state;
    assert_int_equal(rig_put(&rig, &a), 0);
    store_rig_close(&rig);
    assert_int_equal(mkdir(rig_path(&rig, path, "v2"), 0700), 0);
    assert_int_equal(store_rig_open(&rig), 0);
    assert_non_null(strstr(store_note(rig.store), "v2 is of another version"));
    assert_int_equal(rig_get(&rig, &a), 64);
    store_rig_close(&rig);
    assert_int_equal(rmdir(path), 0);
}

/* A format file of another version, as another gistd would have written it. */
static void another_version_inside(void **state)
{
    struct rig_record a = { .n = 64, .seed = 1 }, b = { .n = 64, .seed = 2 };
    char path[SCRATCH_PATH_MAX];
    struct store_hash sum;
    uint8_t *format;
    size_t len;

    (void)state;
    assert_int_equal(rig_put(&rig, &a), 0);
    store_rig_close(&rig);
    format = file_read(rig_path(&rig, path, "v1/format"), &len);
    assert_int_equal(len, 224);
    assert_memory_equal(format, "gistd-st\1\0\0\0", 12);
    format[8] = 2;
    sum = sum_bytes(format, 208);
    memcpy(format + 208, &sum, sizeof(sum));
    file_write(path, format, len);
    free(format);
    for (int restart = 0; restart < 2; restart++) {
        assert_int_equal(store_rig_open(&rig), 0);
        assert_non_null(strstr(store_note(rig.store), "version 2"));
        assert_int_equal(rig_get(&rig, &a), 0);
        assert_int_equal(rig_files(&rig, "v1/1000"), 1);
        assert_int_equal(rig_get(&rig, &b), restart ? 64 : 0);
        assert_int_equal(rig_put(&rig, &b), restart ? -EEXIST : 0);
        assert_int_equal(rig_files(&rig, "v1.1/1000"), 1);
        store_rig_close(&rig);
    }
}

/* What docs/store.md says of a name's file. */
static void names_are_as_documented(void **state)
{
    char path[SCRATCH_PATH_MAX];
    struct store_hash sum;
    uint8_t *file;
    size_t len;

    (void)state;
    assert_int_equal(rig_put_name(&rig, 1000, 7, "a", "bytes"), 0);
    file =
        file_read(rig_path(&rig, path, "v1/1000/names/7-a96faf705af16834e6c632b61e964e1f"), &len);
    assert_int_equal(len, 208 + 5);
    assert_memory_equal(file, "gistd-nm\1\0\0\0\xd0\0\0\0\xe8\3\0\0\7\0\0\0\5\0\0\0", 28);
    assert_memory_equal(file + 40, "\1\0\0\0\0\0\0\0a\0", 10);
    sum = sum_bytes("bytes", 5);
    assert_memory_equal(file + 176, &sum, 16);
    sum = sum_bytes(file, 192);
    assert_memory_equal(file + 192, &sum, 16);
    assert_memory_equal(file + 208, "bytes", 5);
    free(file);
}

static void a_damaged_format_is_a_new_store(void **state)
{
    struct rig_record a = { .n = 64, .seed = 1 };
    char path[SCRATCH_PATH_MAX];
    int fd;

    (void)state;
    assert_int_equal(rig_put(&rig, &a), 0);
    assert_int_equal(rig_put_name(&rig, 1000, 1, "kept", "text"), 0);
    store_rig_close(&rig);
    fd = open(rig_path(&rig, path, "v1/format"), O_WRONLY | O_TRUNC);
    assert_int_equal(write(fd, "xx", 2), 2);
    assert_int_equal(close(fd), 0);
    assert_int_equal(store_rig_open(&rig), 0);
    assert_non_null(strstr(store_note(rig.store), "damaged"));
    assert_int_equal(rig_get(&rig, &a), 0);
    assert_int_equal(rig_files(&rig, "v1/1000"), 0);
    rig_assert_name(&rig, 1000, 1, "kept", "text");
    assert_int_equal(rig_put(&rig, &a), 0);
    store_rig_again(&rig);
    assert_int_equal(rig_get(&rig, &a), 64);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_rig, close_rig)
    const struct CMUnitTest tests[] = {
        TEST(finds_what_was_put),
        TEST(finds_the_longest),
        TEST(packed_are_whole),
        TEST(keeps_owners_and_scopes_apart),
        TEST(takes_many),
        TEST(replaces_tails),
        TEST(tails_meet),
        TEST(cancels),
        TEST(warms_what_was_put),
        TEST(says_what_is_gone),
        TEST(verifies),
        TEST(keeps_names),
        TEST(is_one_daemons),
        TEST(is_ours_alone),
        TEST(leaves_alone_what_is_not_its),
        TEST(starts_empty_beside_others),
        TEST(another_version_inside),
        TEST(names_are_as_documented),
        TEST(a_damaged_format_is_a_new_store),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
