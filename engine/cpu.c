/* Which table of kernels this CPU gets. Compiled for the base instruction set, as it runs before
 * anything is known about the CPU. */
#include "engine/kernels.h"

#include <cpuid.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

/* The builtins ask cpuid and, as wide registers must also be saved, the operating system. */
static bool has_avx2(void)
{
    unsigned a, b, c, d;

    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C); /* clang 14 has no name for it */
}

int kernels_pick(const char *name, const struct kernels **ret_table)
{
    bool widest = strcmp(name, "auto") == 0;

    if (strcmp(name, "scalar") == 0 || (widest && !has_avx2())) {
        *ret_table = &kernels_scalar;
        return 0;
    }
    if (!widest && strcmp(name, "avx2") != 0)
        return -EINVAL;
    if (!has_avx2())
        return -ENOTSUP;
    *ret_table = &kernels_avx2;
    return 0;
}
