/* base/thread.h - on which CPUs this thread may run, and how one is started that needs little
 * stack: RLIMIT_DATA and MemoryMax count all of it.
 *
 * Threads    any.
 */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>

#define THREAD_CPUS_MAX 4096u
#define THREAD_CPU_SET                                                                             \
    (THREAD_CPUS_MAX / 8 / sizeof(unsigned long)) /* unsigned longs of a mask                      \
                                                   */

/* A mask by hand: the kernel refuses one smaller than its own, and cpu_set_t ends at 1024 CPUs.
 * Returns how many there are; where it can't be told, the first. */
uint32_t thread_cpus(cpu_set_t *mask, size_t len);
uint32_t thread_n_cpus(void);

/* As pthread_create, with a stack of a MiB and -errno. */
int thread_start(pthread_t *ret, void *(*fn)(void *), void *arg);

#endif
