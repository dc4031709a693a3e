/* engine/devices.h - the names that devices have, and the library that each needs.
 *
 *     cpu          none
 *     cuda:N       libgistd-cuda.so (engine/plugin.h)
 *     cuda:N,M     the same, on several GPUs
 *     cuda:all     and on all that there are
 *     auto         as cuda:0 where its library is, else as cpu
 *     cuda-shim    libgistd-cuda-shim.so: CUDA's kernels on the CPU; several as above
 *
 * Threads    any.
 * Errors     -EINVAL (no such name), or what engine/plugin.h says.
 */
#ifndef ENGINE_DEVICES_H
#define ENGINE_DEVICES_H

#include "engine/backend.h"

#define DEVICES_MAX 64u /* cuda:0 to cuda:63 */

/* One of those: 0, or -EINVAL and which there are. */
int devices_check(const char *name, struct why *why);

/* Where who computes on it is found. */
struct devices_place {
    const char *library; /* NULL: none is needed */
    const char *help;    /* what brings it here */
    struct backend_devices devices;
    bool or_cpu; /* where it is missing */
};
int devices_place(const char *name, struct devices_place *ret, struct why *why);

/* Who computes on them; whether the devices themselves are here is not asked. */
int devices_library(const char *name, const struct backend_ops **ret,
                    struct backend_devices *ret_devices, struct why *why);
/* One of CUDA's kernels on the CPU. */
bool devices_is_shim(const char *name);

#endif
