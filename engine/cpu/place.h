/* engine/cpu/place.h - where large memory and threads are put: huge pages, NUMA nodes, locked or
 * not.
 *
 * The one door to libnuma. On a machine with one node, or without NUMA in the kernel, all of it
 * degrades to plain anonymous memory and a CPU list.
 *
 * Threads    any.
 */
#ifndef ENGINE_CPU_PLACE_H
#define ENGINE_CPU_PLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct workers;

struct place_result {
    bool huge;
    bool locked;
}; /* what was had: huge pages advised, mlocked */

/* Zeroed memory of len bytes, 2 MiB aligned when len allows, transparent huge pages advised,
 * interleaved over the nodes when there are several, mlocked when lock is set and the limit
 * allows. -ENOMEM. */
int place_alloc(size_t len, bool lock, void **ret, struct place_result *ret_result);
void place_free(void *mem, size_t len);

/* Touches all of it, by all workers, so that it is there: memory is only a promise until then, and
 * who is out of it when a page is first written is killed. Bytes keep their values. -ENOMEM: the
 * kernel has said that it has no more. */
int place_populate(struct workers *w, void *mem, size_t len);

/* CPUs this process may use, one for each worker i, nodes in turn. Returns the CPU's number. */
uint32_t place_n_cpus(void);
uint32_t place_cpu(uint32_t i);

#endif
