#include "tests/support/store_rig.h"

#include "base/clock.h"
#include "store/inside.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE (120 * CLOCK_S)

void store_rig_init(struct store_rig *r, const char *name)
{
    *r = (struct store_rig){ .limits = { .bytes = (uint64_t)64 << 20 } };
    scratch_path(r->path, name);
}

int store_rig_open(struct store_rig *r)
{
    struct io_options o = { .kind = IO_AUTO, .depth = 64 };
    int err;

    r->why = (struct why){ "" };
    if (!r->io && io_open(&o, &r->io, &r->why) < 0) {
        fprintf(stderr, "no io: %s\n", r->why.text);
        abort();
    }
    err = store_open(r->path, r->io, &r->limits, &r->store, &r->why);
    if (err < 0)
        r->store = NULL;
    return err;
}

void store_rig_close(struct store_rig *r)
{
    (void)store_close(r->store);
    r->store = NULL;
    io_close(r->io);
    r->io = NULL;
}

void store_rig_again(struct store_rig *r)
{
    store_rig_close(r);
    if (store_rig_open(r) < 0) {
        fprintf(stderr, "not opened again: %s\n", r->why.text);
        abort();
    }
}

/* --- records ---------------------------------------------------------------------------------- */

void rig_ids(const struct rig_record *rec, uint32_t ret[RIG_IDS_MAX])
{
    assert(rec->n <= RIG_IDS_MAX);
    for (uint32_t i = 0; i < rec->n; i++)
        ret[i] = (i < rec->same ? rec->stem : rec->seed) * 100003u + i;
}

struct store_key rig_key(const struct rig_record *rec)
{
    return (struct store_key){ .scope = "a scope of tests",
                               .owner = rec->owner ? rec->owner : RIG_OWNER,
                               .before = rec->before,
                               .kind = rec->kind };
}

struct store_hash rig_hash(const struct store_rig *r, const struct rig_record *rec)
{
    uint32_t ids[RIG_IDS_MAX];

    rig_ids(rec, ids);
    return store_hash(r->store, rec->before, ids, rec->n);
}

static uint32_t n_pages_of(const struct rig_record *rec)
{
    uint32_t n = (rec->n + STORE_PAGE_TOKENS - 1) / STORE_PAGE_TOKENS;

    return rec->kind == STORE_RAW ? n : (n + 3) / 4;
}

uint64_t rig_len(const struct rig_record *rec)
{
    uint64_t header = 128 + (rec->n * 4 + 15) / 16 * 16 + n_pages_of(rec) * 16;

    return (header + 4095) / 4096 * 4096 + (uint64_t)n_pages_of(rec) * RIG_PAGE;
}

void rig_page(const struct rig_record *rec, uint32_t i, uint8_t ret[RIG_PAGE])
{
    uint32_t ids[RIG_IDS_MAX], upto = rec->n;
    uint64_t x = UINT64_C(0x9e3779b97f4a7c15) * (rec->owner + 1) + rec->kind + i;

    rig_ids(rec, ids);
    if (rec->kind == STORE_RAW && (i + 1) * STORE_PAGE_TOKENS < upto)
        upto = (i + 1) * STORE_PAGE_TOKENS;
    x ^= rec->before.lo;
    for (uint32_t k = 0; k < upto; k++)
        x = (x ^ ids[k]) * UINT64_C(0xbf58476d1ce4e5b9) + 1;
    for (uint32_t k = 0; k < RIG_PAGE; k += 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(ret + k, &x, 8);
    }
}

/* --- calls ------------------------------------------------------------------------------------ */

struct flight {
    struct store_rig *r;
    uint8_t *pages;
};

static void on_done(void *arg, int result)
{
    struct flight *f = arg;

    f->r->n_called++;
    f->r->result = result;
    free(f->pages);
    free(f);
}

static void on_got(void *arg, int result)
{
    struct store_rig *r = arg;

    r->n_called++;
    r->result = result;
}

/* What a store that stands still is waiting for. */
static void say_state(const struct store *s)
{
    static const char *const kinds[] = { "put", "get", "name" };
    const struct entry *e;
    const struct job *j;
    uint32_t n_dying = 0;

    TAILQ_FOREACH (j, &s->jobs, next)
        fprintf(stderr, "  a %s with %u operations out\n", kinds[j->kind], j->n_out);
    TAILQ_FOREACH (e, &s->dying, lru)
        n_dying++;
    fprintf(stderr,
            "  %u of %u operations out, %u refused; %u files dying (%" PRIu64 " bytes), %u of them "
            "on their way; %" PRIu64 " of %" PRIu64 " bytes\n",
            s->ops.n_out, s->ops.n, s->ops.n_refused, n_dying, s->dying_bytes, s->n_unlinking,
            s->bytes, s->limits.bytes);
}

void rig_wait(struct store_rig *r, uint32_t n_called)
{
    uint64_t until = clock_ns() + PATIENCE;

    while (r->n_called < n_called) {
        struct pollfd fd = { .fd = io_eventfd(r->io), .events = POLLIN };

        if (store_pump(r->store))
            continue;
        (void)poll(&fd, 1, 10);
        if (clock_ns() > until) {
            fprintf(stderr, "callbacks that never came: %u of %u\n", r->n_called, n_called);
            say_state(r->store);
            abort();
        }
    }
}

/* The rig's own memory is not what a test of failing calls is after: once more, then. */
static void *alloc_len(size_t len)
{
    void *mem = aligned_alloc(RIG_PAGE, len);

    mem = mem ? mem : aligned_alloc(RIG_PAGE, len);
    assert(mem);
    return mem;
}

static uint8_t *alloc_pages(uint32_t n, void *ret[])
{
    uint8_t *pages = alloc_len((size_t)n * RIG_PAGE);

    for (uint32_t i = 0; i < n; i++)
        ret[i] = pages + (size_t)i * RIG_PAGE;
    return pages;
}

int rig_put_later(struct store_rig *r, const struct rig_record *rec)
{
    uint32_t ids[RIG_IDS_MAX], n_pages = n_pages_of(rec);
    void *pages[RIG_IDS_MAX / STORE_PAGE_TOKENS];
    struct flight *f = alloc_len(RIG_PAGE);
    struct store_record put = { .key = rig_key(rec),
                                .ids = ids,
                                .n_tokens = rec->n,
                                .n_keys = rec->kind == STORE_RAW ? rec->n : rec->n / 4 + 1,
                                .n_pages = n_pages,
                                .page_bytes = RIG_PAGE,
                                .cost_ns = rec->cost_ns ? rec->cost_ns : 1000000000,
                                .tail = rec->tail };
    int err;

    rig_ids(rec, ids);
    *f = (struct flight){ r, alloc_pages(n_pages, pages) };
    for (uint32_t i = 0; i < n_pages; i++)
        rig_page(rec, i, pages[i]);
    err = store_put(r->store, &put, (const void *const *)pages, on_done, f);
    if (err < 0) {
        free(f->pages);
        free(f);
    }
    return err;
}

int rig_put(struct store_rig *r, const struct rig_record *rec)
{
    uint32_t before = r->n_called;
    int err = rig_put_later(r, rec);

    if (err < 0)
        return err;
    rig_wait(r, before + 1);
    return r->result;
}

int rig_get(struct store_rig *r, const struct rig_record *rec)
{
    uint32_t ids[RIG_IDS_MAX], before = r->n_called;
    void *pages[RIG_IDS_MAX / STORE_PAGE_TOKENS];
    uint8_t want[RIG_PAGE], *got;
    struct store_key key = rig_key(rec);
    struct rig_record is = *rec;
    struct store_found found;
    int err;

    rig_ids(rec, ids);
    if (!store_find(r->store, &key, ids, rec->n, &found))
        return 0;
    got = alloc_pages(found.n_pages, pages);
    memset(got, 0xa5, (size_t)found.n_pages * RIG_PAGE);
    err = store_get(r->store, found.id, found.n_pages, pages, on_got, r);
    if (err == 0) {
        rig_wait(r, before + 1);
        err = r->result;
    }
    /* What was found is a record of so many ids, or full pages of a longer one: the same bytes. */
    is.n = found.n_tokens;
    for (uint32_t i = 0; err == 0 && i < found.n_pages; i++) {
        rig_page(&is, i, want);
        err = memcmp(pages[i], want, RIG_PAGE) == 0 ? 0 : -EINVAL;
    }
    free(got);
    return err < 0 ? err : (int)found.n_tokens;
}

bool rig_has(struct store_rig *r, const struct rig_record *rec)
{
    uint32_t ids[RIG_IDS_MAX];
    struct store_key key = rig_key(rec);
    struct store_found found;

    rig_ids(rec, ids);
    return store_find(r->store, &key, ids, rec->n, &found) && found.n_tokens == rec->n;
}

struct store_stats rig_stats(const struct store_rig *r)
{
    struct store_stats s;

    store_stats(r->store, &s);
    return s;
}

int rig_files(const struct store_rig *r, const char *folder)
{
    char path[SCRATCH_PATH_MAX + 64];
    DIR *dir;
    int n = 0;

    (void)snprintf(path, sizeof(path), "%s/%s", r->path, folder);
    dir = opendir(path);
    if (!dir)
        return -1;
    for (struct dirent *d; (d = readdir(dir));)
        n += d->d_type == DT_REG;
    (void)closedir(dir);
    return n;
}

void rig_settle(struct store_rig *r)
{
    for (int i = 0; i < 500 && r->store; i++) {
        (void)io_wait(r->io);
        (void)store_pump(r->store);
    }
}
