#include "engine/file/image_map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

#define POPULATE_BYTES ((size_t)16 << 20)

/* At a multiple of 2 MiB, as the arena is in the file: only there a huge page of the page cache is
 * one of the mapping. */
static int map_aligned(int fd, size_t len, void **ret)
{
    size_t room = len + IMAGE_ALIGN, before, after;
    uint8_t *mem, *at;

    mem = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mem == MAP_FAILED)
        return -errno;
    before = (IMAGE_ALIGN - (uintptr_t)mem % IMAGE_ALIGN) % IMAGE_ALIGN;
    after = room - before - len;
    at = mem + before;
    if (before > 0)
        (void)munmap(mem, before);
    if (after > 0)
        (void)munmap(at + len, after);
    if (mmap(at, len, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
        int r = -errno;

        (void)munmap(at, len);
        return r;
    }
    *ret = at;
    return 0;
}

/* Older kernels don't know the advice: then the comparison meets the pages one by one. */
static void populate(void *arg, uint32_t slice, uint32_t worker)
{
    const struct image_map *m = arg;
    size_t off = slice * POPULATE_BYTES;

    (void)worker;
    (void)madvise((uint8_t *)m->at + off,
                  m->len - off < POPULATE_BYTES ? m->len - off : POPULATE_BYTES,
                  MADV_POPULATE_READ);
}

int image_map_open(const struct image_file *f, const struct packed *p, struct backend *b,
                   struct image_map *ret)
{
    struct image_map m = { .len = f->arena_off + p->len };
    int r = map_aligned(f->fd, m.len, &m.at);

    if (r < 0)
        return r;
    m.arena = (uint8_t *)m.at + f->arena_off;
    if (backend_host(b, m.arena) != m.arena) {
        image_map_close(&m);
        return -ENOTSUP;
    }
    (void)madvise(m.at, m.len, MADV_HUGEPAGE);
    backend_run(b, populate, &m, (uint32_t)((m.len + POPULATE_BYTES - 1) / POPULATE_BYTES));
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
