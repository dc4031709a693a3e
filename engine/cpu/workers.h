/* engine/cpu/workers.h - a few threads that run slices of one job at a time.
 *
 * The caller's thread is worker 0; n - 1 threads wait for work: they spin for a few microseconds
 * and then sleep on a futex, so that a busy step pays no system call and an idle daemon uses no
 * CPU. Each takes slices from a range of its own and then from what others have left: a slow or
 * stolen core runs fewer.
 *
 * Threads    workers_run: one thread only, the owner's. Workers are pinned to the CPUs of the
 *            process's affinity mask, spread over NUMA nodes as engine/cpu/place.h says, unless
 *            told otherwise.
 * Errors     workers_open: -ENOMEM, -EINVAL, or pthread's error. A refused pinning is no error.
 */
#ifndef ENGINE_CPU_WORKERS_H
#define ENGINE_CPU_WORKERS_H

#include <stdbool.h>
#include <stdint.h>

#define WORKERS_MAX 256u

struct workers;

/* n: threads in all, the caller's included (1 to WORKERS_MAX). */
int workers_open(uint32_t n, bool pin, struct workers **ret);
void workers_close(struct workers *w);
uint32_t workers_n(const struct workers *w);

/* The CPU that pinned workers leave for the owner, who may go there (base/seat.h); -1 when
 * there are none or they are not pinned. */
int workers_owner_cpu(const struct workers *w);

/* Runs fn(arg, slice, worker) for every slice of [0, n_slices), in any order, on any worker, and
 * returns when all are done. What the caller wrote before is visible in fn, and the other way. */
typedef void workers_fn(void *arg, uint32_t slice, uint32_t worker);
void workers_run(struct workers *w, workers_fn *fn, void *arg, uint32_t n_slices);

/* No job is expected soon: workers stop spinning at once and sleep. */
void workers_rest(struct workers *w);

#endif
