/* engine/file/image_map.c - maps an image, has all of its pages come, and compares them. */
#include "engine/file/image_map.h"

#include "base/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

/* A slice of the host threads. */
#define POPULATE_BYTES ((size_t)16 << 20)

/* At a multiple of 2 MiB, as the arena is in the file: only there a huge page of the page cache is
 * one of the mapping. */
static int map_aligned(int fd, size_t len, void **ret)
{
    void *at = pages_map(len, IMAGE_ALIGN, PROT_NONE);

    if (!at)
        return -ENOMEM;
    if (mmap(at, len, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
        int r = -errno;

        (void)munmap(at, len);
        return r;
    }
    *ret = at;
    return 0;
}

struct populate {
    uint8_t *at;
    size_t len;
    _Atomic int result;
};

/* A page that can't be read, on a bad disk or behind the end of a file that became shorter, would
 * end the process by SIGBUS, at this start and at every later one: here it is an error, and the
 * model's own file is read. Older kernels don't know the advice: then the comparison meets the
 * pages one by one. */
static void populate(void *arg, uint32_t slice, uint32_t worker)
{
    struct populate *p = arg;
    size_t off = slice * POPULATE_BYTES;
    size_t n = p->len - off < POPULATE_BYTES ? p->len - off : POPULATE_BYTES;
    int r;

    (void)worker;
    do
        r = madvise(p->at + off, n, MADV_POPULATE_READ);
    while (r < 0 && (errno == EINTR || errno == EAGAIN));
    if (r < 0 && errno != EINVAL)
        atomic_store_explicit(&p->result, errno == ENOMEM ? -ENOMEM : -EIO, memory_order_relaxed);
}

int image_map_open(const struct image_file *f, const struct packed *p, struct backend *b,
                   struct image_map *ret)
{
    struct image_map m = { .len = f->arena_off + p->len };
    struct populate all = { .len = m.len };
    int r = map_aligned(f->fd, m.len, &m.at);

    if (r < 0)
        return r;
    m.arena = (uint8_t *)m.at + f->arena_off;
    if (backend_host(b, m.arena) != m.arena) {
        image_map_close(&m);
        return -ENOTSUP;
    }
    /* Where the file system has huge pages. Not having them costs some speed. */
    (void)madvise(m.at, m.len, MADV_HUGEPAGE);
    /* Pages first, then the comparison: that would meet a bad page as SIGBUS. */
    all.at = m.at;
    backend_run(b, populate, &all, (uint32_t)((m.len + POPULATE_BYTES - 1) / POPULATE_BYTES));
    r = atomic_load_explicit(&all.result, memory_order_relaxed);
    if (r == 0)
        r = packed_check(p, b, m.arena, 0, p->n_sums, image_sums(f->head));
    if (r < 0) {
        image_map_close(&m);
        return r;
    }
    *ret = m;
    return 0;
}

void image_map_close(struct image_map *m)
{
    if (m->at)
        (void)munmap(m->at, m->len);
    *m = (struct image_map){ .at = NULL };
}
