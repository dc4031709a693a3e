/* daemon/memory_inner.h - what the files of the memory share: memory.c changes it, memory_count.c
 * only counts.
 *
 * Threads    the scheduler's.
 */
#ifndef DAEMON_MEMORY_INNER_H
#define DAEMON_MEMORY_INNER_H

#include "daemon/memory.h"

/* The policy that its ladder climbs by. */
struct policy memory_ladders_policy(const struct memory *m);

#endif
