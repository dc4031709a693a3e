/* base/memfd.h - memory that is a file of no folder, so that another process may map it.
 *
 * Threads    any.
 * Errors     -errno of memfd_create or ftruncate.
 */
#ifndef BASE_MEMFD_H
#define BASE_MEMFD_H

#include <stddef.h>

/* A descriptor of len bytes, closed on exec and, where the kernel knows that (6.3), never
 * executable. flags: MFD_ALLOW_SEALING or 0. */
int memfd_new(const char *name, unsigned flags, size_t len);

/* A mapping of one in huge pages, whatever the administrator's setting for shared memory is. One
 * byte of each huge page is zeroed, since there must be something to collapse: only where nothing
 * has been written yet. mem: at a multiple of MEMFD_HUGE. What can't be had is no error, the pages
 * are small then. */
#define MEMFD_HUGE ((size_t)2 << 20)
void memfd_huge(void *mem, size_t n);

#endif
