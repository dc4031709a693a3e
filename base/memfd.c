#include "base/memfd.h"

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

int memfd_new(const char *name, unsigned flags, size_t len)
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

void memfd_huge(void *mem, size_t n)
{
    for (size_t at = 0; at + MEMFD_HUGE <= n; at += MEMFD_HUGE) {
        *((volatile uint8_t *)mem + at) = 0;
        (void)madvise((uint8_t *)mem + at, MEMFD_HUGE, MADV_COLLAPSE);
    }
}
