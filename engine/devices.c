#include "engine/devices.h"

#include "engine/plugin.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* "cuda:N". */
static bool is_cuda(const char *name, unsigned *ret_device)
{
    const char *n = name + strlen("cuda:");
    char *end;
    unsigned long device;

    if (strncmp(name, "cuda:", strlen("cuda:")) != 0 || !isdigit((unsigned char)*n))
        return false;
    device = strtoul(n, &end, 10);
    if (*end != '\0' || device >= DEVICES_MAX)
        return false;
    *ret_device = (unsigned)device;
    return true;
}

int devices_check(const char *name, struct why *why)
{
    unsigned device;

    if (strcmp(name, backend_cpu.name) == 0 || strcmp(name, "auto") == 0 ||
        strcmp(name, "cuda-shim") == 0 || is_cuda(name, &device))
        return 0;
    return why_set(why, -EINVAL,
                   "option device: found %.80s, allowed: cpu, cuda:0 (or another number below %u), "
                   "auto, cuda-shim",
                   name, DEVICES_MAX);
}

static int find_cuda(const struct backend_ops **ret, struct why *why)
{
    return plugin_find("libgistd-cuda.so",
                       "build it with `make CUDA=1`, which needs nvcc, or use --device cpu", ret,
                       why);
}

int devices_library(const char *name, const struct backend_ops **ret, unsigned *ret_device,
                    struct why *why)
{
    *ret = &backend_cpu;
    *ret_device = 0;
    if (strcmp(name, backend_cpu.name) == 0)
        return 0;
    if (strcmp(name, "auto") == 0) {
        (void)find_cuda(ret, why);
        return 0;
    }
    if (strcmp(name, "cuda-shim") == 0)
        return plugin_find("libgistd-cuda-shim.so",
                           "it is for tests of the kernels, and `make shim` builds it", ret, why);
    return is_cuda(name, ret_device) ? find_cuda(ret, why) : devices_check(name, why);
}
