/* engine/devices.h - the names that devices have, and the library that each needs.
 *
 *     cpu          none
 *     cuda:N       libgistd-cuda.so (engine/plugin.h)
 *     auto         as cuda:0 where its library is, else as cpu
 *     cuda-shim    libgistd-cuda-shim.so: CUDA's kernels on the CPU
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
    unsigned device;
    bool or_cpu; /* where it is missing */
};
int devices_place(const char *name, struct devices_place *ret, struct why *why);

/* Who computes on it; whether the device itself is here is not asked. */
int devices_library(const char *name, const struct backend_ops **ret, unsigned *ret_device,
                    struct why *why);

#endif
