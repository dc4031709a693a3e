/* bench/io.c - how fast pages go to a disk and come back; bench/disk.py runs fio beside it.
 *
 *     io FILE write|read uring|threads direct|small|cached|registered N
 *
 * N records of 32 pages of 360 KiB, as a segment of the default model is: written one record after
 * the other, each synced, or read all at once. direct: O_DIRECT, memory in huge pages as the pool
 * is; small: memory in pages of 4 KiB; registered: huge, and registered; cached: through the page
 * cache (aside, as the store does), which has all of it when it is read. The file is there already,
 * with all its blocks.
 *
 *     io FOLDER put|get-cold|get-warm uring|threads N
 *
 * The same through store/store.h: records that are published whole, found by their ids, and
 * verified. A new store each time for put; get reads what put left there.
 *
 * One line of JSON: MB/s, and milliseconds inside io_submit, which are the caller's.
 */
#include "store/io.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE   (360u << 10)
#define PAGES  32u /* of a record */
#define RECORD ((size_t)PAGE * PAGES)
#define TOKENS 512u

struct bench {
    struct io *io;
    char *mem; /* n records */
    size_t n;
    double submit_s;
};

static double now_s(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *what, int err)
{
    (void)fprintf(stderr, "io: %s: %s\n", what, strerror(err < 0 ? -err : err));
    exit(1);
}

static void report(const struct bench *b, double seconds)
{
    printf("{\"mb_s\": %.1f, \"submit_ms\": %.2f}\n", (double)(b->n * RECORD) / seconds / 1e6,
           b->submit_s * 1e3);
}

/* --- the file --------------------------------------------------------------------------------- */

static void submit(struct bench *b)
{
    double start = now_s();

    (void)io_submit(b->io);
    b->submit_s += now_s() - start;
}

static void reap(struct bench *b)
{
    struct io_done d[64];
    uint32_t n;

    (void)io_wait(b->io);
    n = io_reap(b->io, d, 64);
    for (uint32_t i = 0; i < n; i++)
        if (d[i].result < 0)
            die("an operation", (int)d[i].result);
}

static void all_back(struct bench *b)
{
    while (io_room(b->io) < io_depth(b->io))
        reap(b);
}

static void queue(struct bench *b, const struct io_op *op)
{
    while (io_queue(b->io, op) == -EAGAIN) {
        submit(b);
        reap(b);
    }
}

static void move_record(struct bench *b, int fd, enum io_code code, size_t record, bool aside)
{
    for (size_t p = 0; p < PAGES; p++)
        queue(b, &(struct io_op){ .code = code,
                                  .fd = fd,
                                  .mem = b->mem + record * RECORD + p * PAGE,
                                  .len = PAGE,
                                  .off = record * RECORD + p * PAGE,
                                  .aside = aside });
    submit(b);
}

/* The page cache has all of it, or nothing. */
static void prepare(int fd, bool cached)
{
    static char piece[1 << 20];

    if (fsync(fd) < 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
        die("cannot empty the page cache", errno);
    for (off_t at = 0; cached && pread(fd, piece, sizeof(piece), at) > 0;)
        at += (off_t)sizeof(piece);
}

static void move_file(struct bench *b, const char *path, bool write, const char *how)
{
    bool cached = strcmp(how, "cached") == 0;
    int fd = open(path, O_RDWR | O_CLOEXEC), r;
    double start;

    if (fd < 0)
        die(path, errno);
    prepare(fd, cached && !write);
    if (!cached && fcntl(fd, F_SETFL, O_RDWR | O_DIRECT) < 0)
        die("O_DIRECT", errno);
    if (strcmp(how, "registered") == 0) {
        r = io_register(b->io, b->mem, b->n * RECORD);
        if (r < 0)
            die("memory is not registered", r);
    }

    start = now_s();
    for (size_t i = 0; i < b->n; i++) {
        move_record(b, fd, write ? IO_WRITE : IO_READ, i, cached);
        if (write) {
            all_back(b);
            queue(b, &(struct io_op){ .code = IO_SYNC, .fd = fd });
            all_back(b);
        }
    }
    all_back(b);
    report(b, now_s() - start);
    (void)close(fd);
}

/* --- the store -------------------------------------------------------------------------------- */

struct under_way {
    size_t left;
    int result;
};

static void one_done(void *arg, int result)
{
    struct under_way *u = arg;

    u->left--;
    if (result < 0)
        u->result = result;
}

static int drop(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    int fd = kind == FTW_F ? open(path, O_RDONLY | O_CLOEXEC) : -1;

    (void)st;
    (void)at;
    if (fd >= 0) {
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        (void)close(fd);
    }
    return 0;
}

static void pump(struct bench *b, struct store *s)
{
    struct pollfd p = { .fd = io_eventfd(b->io), .events = POLLIN };

    if (!store_pump(s))
        (void)poll(&p, 1, 10);
}

static void ids_of(size_t record, uint32_t ids[TOKENS])
{
    for (uint32_t i = 0; i < TOKENS; i++)
        ids[i] = (uint32_t)record * TOKENS + i;
}

static int start_one(struct bench *b, struct store *s, size_t i, bool put, struct under_way *u)
{
    struct store_record r = { .key = { .owner = 1000, .kind = STORE_RAW },
                              .n_tokens = TOKENS,
                              .n_keys = TOKENS,
                              .n_pages = PAGES,
                              .page_bytes = PAGE,
                              .cost_ns = 1000000000 };
    struct store_found found;
    void *pages[PAGES];
    uint32_t ids[TOKENS];

    ids_of(i, ids);
    r.ids = ids;
    for (size_t p = 0; p < PAGES; p++)
        pages[p] = b->mem + i * RECORD + p * PAGE;
    if (put)
        return store_put(s, &r, (const void *const *)pages, one_done, u);
    if (!store_find(s, &r.key, ids, TOKENS, &found) || found.n_pages != PAGES)
        die("a record is not there", ENOENT);
    return store_get(s, found.id, PAGES, pages, one_done, u);
}

static void use_store(struct bench *b, const char *folder, const char *what)
{
    const struct store_limits limits = { .bytes = 1ull << 40 };
    bool put = strcmp(what, "put") == 0;
    struct under_way u = { .left = 0 };
    struct why why = { "" };
    struct store *s;
    double start;

    if (strcmp(what, "get-cold") == 0)
        (void)nftw(folder, drop, 8, FTW_PHYS);
    if (store_open(folder, b->io, &limits, &s, &why) < 0)
        die(why.text, EIO);
    start = now_s();
    for (size_t i = 0; i < b->n;) {
        int r = start_one(b, s, i, put, &u);

        if (r == -EAGAIN) {
            pump(b, s);
            continue;
        }
        if (r < 0)
            die(what, r);
        u.left++;
        i++;
    }
    while (u.left)
        pump(b, s);
    start = now_s() - start;
    if (u.result < 0)
        die(what, u.result);
    report(b, start);
    (void)store_close(s);
}

/* --- all -------------------------------------------------------------------------------------- */

/* Bytes that no disk could make less of. */
static char *filled(size_t len, bool huge)
{
    char *mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t x = 0x9e3779b97f4a7c15ull;

    if (mem == MAP_FAILED)
        die("no memory", errno);
    (void)madvise(mem, len, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    for (size_t i = 0; i < len; i += sizeof(x)) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(mem + i, &x, sizeof(x));
    }
    return mem;
}

int main(int argc, char **argv)
{
    bool is_file = argc == 6;
    struct bench b = { .submit_s = 0 };
    struct io_options o = { .kind = IO_URING };
    struct why why = { "" };

    if (argc != 5 && argc != 6) {
        (void)fputs("usage: io FILE write|read uring|threads direct|small|cached|registered N\n"
                    "       io FOLDER put|get-cold|get-warm uring|threads N\n",
                    stderr);
        return 2;
    }
    if (strcmp(argv[3], "threads") == 0)
        o.kind = IO_THREADS;
    if (io_open(&o, &b.io, &why) < 0) {
        (void)fprintf(stderr, "io: %s\n", why.text);
        return 1;
    }
    b.n = strtoul(argv[argc - 1], NULL, 10);
    b.mem = filled(b.n * RECORD, !is_file || strcmp(argv[4], "small") != 0);
    if (is_file)
        move_file(&b, argv[1], strcmp(argv[2], "write") == 0, argv[4]);
    else
        use_store(&b, argv[1], argv[2]);
    io_close(b.io);
    return 0;
}
