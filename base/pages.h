/* base/pages.h - memory by pages: aligned, shared, in huge ones.
 *
 * Threads    any.
 */
#ifndef BASE_PAGES_H
#define BASE_PAGES_H

#include <stddef.h>

#define PAGES_HUGE ((size_t)2 << 20)

/* len bytes of memory of the process's own, or (PROT_NONE) of addresses that others are mapped
 * over. The start is a multiple of align, one of the page size; len a multiple of the page size.
 * The kernel gives a huge page only to a whole 2 MiB at a multiple of that, and mmap promises 4
 * KiB. NULL: there is none. munmap frees it. */
void *pages_map(size_t len, size_t align, int prot);

/* A descriptor of len bytes of memory, for mappings that are shared: closed on exec and, where the
 * kernel knows that (6.3), never executable. flags: MFD_ALLOW_SEALING or 0. -errno. */
int pages_memfd(const char *name, unsigned flags, size_t len);

/* A shared mapping's pages become huge ones, whatever the administrator's setting for shared memory
 * is. One byte of each is zeroed, since there must be something to collapse: only where nothing has
 * been written yet. mem: at a multiple of PAGES_HUGE. What can't be had is no error, the pages are
 * small then. */
void pages_collapse(void *mem, size_t n);

#endif
