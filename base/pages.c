#include "base/pages.h"

#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

/* Of kernels that are younger than some C libraries. */
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif

/* Maps more and cuts the ends off. */
void *pages_map(size_t len, size_t align, int prot)
{
    size_t room = len + align, before;
    uint8_t *mem;

    if (room < len)
        return NULL;
    mem = mmap(NULL, room, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mem == MAP_FAILED)
        return NULL;
    before = (align - (uintptr_t)mem % align) % align;
    if (before > 0)
        (void)munmap(mem, before);
    (void)munmap(mem + before + len, align - before);
    return mem + before;
}

int pages_memfd(const char *name, unsigned flags, size_t len)
{
    int fd = memfd_create(name, flags | MFD_CLOEXEC | MFD_NOEXEC_SEAL), r;

    if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
        fd = memfd_create(name, flags | MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)len) < 0) {
        r = -errno;
        (void)close(fd);
        return r;
    }
    return fd;
}

void pages_collapse(void *mem, size_t n)
{
    for (size_t at = 0; at + PAGES_HUGE <= n; at += PAGES_HUGE) {
        *((volatile uint8_t *)mem + at) = 0;
        (void)madvise((uint8_t *)mem + at, PAGES_HUGE, MADV_COLLAPSE);
    }
}
