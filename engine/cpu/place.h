/* engine/cpu/place.h - where large memory and threads are put: huge pages, NUMA nodes, in this
 * process alone or kept by a descriptor.
 *
 * The one door to libnuma. On a machine with one node, or without NUMA in the kernel, all of it
 * degrades to plain anonymous memory and a CPU list.
 *
 * Threads    any.
 */
#ifndef ENGINE_CPU_PLACE_H
#define ENGINE_CPU_PLACE_H

#include <stddef.h>
#include <stdint.h>

struct workers;

/* Zeroed memory of len bytes, 2 MiB aligned when len allows, transparent huge pages advised,
 * interleaved over the nodes when there are several. -ENOMEM. */
int place_alloc(size_t len, void **ret);
void place_free(void *mem, size_t len);

/* Touches all of it, by all workers, so that it is there: memory is only a promise until then, and
 * who is out of it when a page is first written is killed. Bytes keep their values. -ENOMEM: the
 * kernel has said that it has no more. */
int place_populate(struct workers *w, void *mem, size_t len);

/* Memory of place_alloc, at multiples of the page size, goes back to the kernel, locked or not: it
 * is taken anew, zeroed, when it is next written. Of a huge page that is given back in part the
 * kernel keeps the rest, and the part until it needs memory. -errno: it stays as it is. */
int place_discard(void *mem, size_t len);

/* --- memory that outlives the process ----------------------------------------------------------
 */

/* A memfd, whose memory is there as long as anybody has a descriptor of it or a mapping. place_free
 * ends the mapping; the descriptor is the caller's.
 *
 * Huge pages: by default the kernel gives a memfd none (shmem_enabled is "never"), and the setting
 * is the administrator's. MADV_COLLAPSE asks for a range whatever the setting is: one byte of each
 * 2 MiB is touched, then the range collapsed, which allocates and clears a huge page as a fault of
 * anonymous memory does, and takes as long. Kernels before 6.1 can't: small pages, and the weights
 * are read some percent slower.
 *
 * alloc: all of it is there; -ENOMEM, or memfd_create's error. seal: mapped anew, read-only, where
 * it is, then sealed (F_SEAL_WRITE and the others): the kernel refuses that seal while anybody,
 * also another process, can write; -EFAULT, it can't be mapped any more: nothing may be read there.
 * map: what somebody sealed; -EPERM, it is not; -EINVAL, it is no
 * memfd of this length. */
int place_kept_alloc(struct workers *w, size_t len, void **ret, int *ret_fd);
int place_kept_seal(void *mem, size_t len, int fd);
int place_kept_map(struct workers *w, int fd, size_t len, void **ret);

/* Of the CPUs that this thread may use (base/thread.h) one for each worker i, nodes in turn. Its
 * number. */
uint32_t place_cpu(uint32_t i);

#endif
