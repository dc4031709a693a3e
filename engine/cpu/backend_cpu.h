/* engine/cpu/backend_cpu.h - the CPU as a backend (engine/backend.h), for those who bring the
 * parts.
 *
 * Its memory is the process's, in huge pages where there are any (engine/cpu/place.h), and the host
 * may write it while a model is loaded.
 *
 * Threads    the one that opened it owns the workers and is one of them.
 */
#ifndef ENGINE_CPU_BACKEND_CPU_H
#define ENGINE_CPU_BACKEND_CPU_H

#include "engine/backend.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/workers.h"

/* With kernels of the caller's, which may be wrapped to be measured; takes the workers in any case.
 */
int backend_cpu_open(const struct kernels *k, struct workers *w, uint32_t max_rows,
                     struct backend **ret);

#endif
