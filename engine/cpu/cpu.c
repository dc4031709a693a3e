/* Which table of kernels this CPU gets. Compiled for the base instruction set, as it runs before
 * anything is known about the CPU. */
#include "engine/cpu/kernels.h"

#include <cpuid.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* The builtins ask cpuid and, as wide registers must also be saved, the operating system. What they
 * have no name for in every compiler (clang 14: F16C, AVX-VNNI) is read from cpuid, beside one they
 * do know that needs the same registers. */
static bool has_avx2(void)
{
    unsigned a, b, c, d;

    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

/* cpuid leaf 7.1, eax bit 4. Its registers are AVX2's, which has_avx2 knows to be saved. */
static bool has_avxvnni(void)
{
    unsigned a, b, c, d;

    return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
}

/* All five or none: the table's kernels are compiled with these flags together (Makefile). */
static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}

static bool has_avx512bf16(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512bf16");
}

/* Intel's takes twice as long as the two fmas that it stands for (docs/results.md), AMD's half. */
static bool bf16_is_fast(void)
{
    return has_avx512bf16() && __builtin_cpu_is("amd");
}

static bool has_all(void)
{
    return true;
}

/* From the widest on. `best`: "auto" takes it if nothing before is. */
static const struct {
    const struct kernels *table;
    bool (*has)(void), (*best)(void);
} tables[] = {
    { &kernels_avx512bf16, has_avx512bf16, bf16_is_fast },
    { &kernels_avx512, has_avx512, has_avx512 },
    { &kernels_avxvnni, has_avxvnni, has_avxvnni },
    { &kernels_avx2, has_avx2, has_avx2 },
    { &kernels_scalar, has_all, has_all },
};

#define N_TABLES (sizeof(tables) / sizeof(tables[0]))

int kernels_pick(const char *name, const struct kernels **ret_table)
{
    bool any = strcmp(name, "auto") == 0;

    for (size_t i = 0; i < N_TABLES; i++) {
        bool named = strcmp(name, tables[i].table->name) == 0;

        if (any ? tables[i].best() : named && tables[i].has()) {
            *ret_table = tables[i].table;
            return 0;
        }
        /* By name what this CPU lacks is refused, and nothing else taken in its place: who names
         * one measures it. */
        if (named)
            return -ENOTSUP;
    }
    return -EINVAL;
}

const char *kernels_name(unsigned i)
{
    for (size_t t = 0; t < N_TABLES; t++) {
        if (tables[t].has() && i-- == 0)
            return tables[t].table->name;
    }
    return NULL;
}
