#include "tests/support/made_store.h"

#include "store/inside.h"
#include "store/io.h"
#include "store/record.h"
#include "store/store.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The store makes its folder itself; what its records' names are made with is a secret. */
static int open_owner(const char *path, uint32_t owner, uint8_t ret_secret[SUM_SECRET_LEN])
{
    const struct io_options o = { .kind = IO_THREADS };
    const struct store_limits limits = { .bytes = UINT64_C(1) << 40 };
    struct folder *d;
    struct store *s;
    struct io *io;
    struct why why = { "" };
    int fd, err = 0;

    if (io_open(&o, &io, &why) < 0 || store_open(path, io, &limits, &s, &why) < 0) {
        fprintf(stderr, "%s\n", why.text);
        abort();
    }
    memcpy(ret_secret, s->index.secret, SUM_SECRET_LEN);
    d = folders_get(&s->folders, owner, true, &err);
    assert(d);
    fd = fcntl(d->fd, F_DUPFD_CLOEXEC, 0);
    assert(fd >= 0);
    (void)store_close(s);
    io_close(io);
    return fd;
}

static void write_file(int folder, const char *name, const uint8_t *bytes, size_t len)
{
    int fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    ssize_t n;

    assert(fd >= 0);
    n = write(fd, bytes, len);
    assert(n == (ssize_t)len);
    (void)close(fd);
}

static void make_one(int folder, const uint8_t *secret, uint32_t owner, uint32_t number, bool bad)
{
    uint32_t ids[STORE_PAGE_TOKENS] = { number };
    struct store_key key = { .owner = owner, .before = STORE_ROOT, .kind = STORE_RAW };
    uint8_t bytes[MADE_BYTES] = { 0 };
    struct store_hash sum = sum_bytes(bytes, RECORD_BLOCK);
    struct record r = { .key = key,
                        .n_tokens = STORE_PAGE_TOKENS,
                        .n_keys = STORE_PAGE_TOKENS,
                        .n_pages = 1,
                        .page_bytes = RECORD_BLOCK,
                        .cost_ns = 1000000,
                        .ids = ids,
                        .sums = &sum };
    char name[RECORD_NAME];

    r.own = record_hash(secret, key.before, ids, STORE_PAGE_TOKENS);
    record_name(secret, &key, ids, STORE_PAGE_TOKENS, name);
    assert(record_len(&r) == MADE_BYTES);
    record_encode(&r, bytes);
    bytes[MADE_BYTES - 1] = bad;
    write_file(folder, name, bytes, sizeof(bytes));
}

void made_store(const char *path, uint32_t owner, uint32_t first, uint32_t n, uint32_t bad)
{
    uint8_t secret[SUM_SECRET_LEN];
    int folder = open_owner(path, owner, secret);

    for (uint32_t i = 0; i < n; i++)
        make_one(folder, secret, owner, first + i, bad && i % bad == 0);
    (void)close(folder);
}
