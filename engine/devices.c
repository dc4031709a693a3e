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

int devices_place(const char *name, struct devices_place *ret, struct why *why)
{
    bool is_auto = strcmp(name, "auto") == 0;

    *ret = (struct devices_place){ 0 };
    if (strcmp(name, backend_cpu.name) == 0)
        return 0;
    if (strcmp(name, "cuda-shim") == 0) {
        ret->library = "libgistd-cuda-shim.so";
        ret->help = "it is for tests of the kernels, and `make shim` builds it";
        return 0;
    }
    if (!is_auto && !is_cuda(name, &ret->device))
        return devices_check(name, why);
    ret->library = "libgistd-cuda.so";
    ret->help = "build it with `make CUDA=1`, which needs nvcc, or use --device cpu";
    ret->or_cpu = is_auto;
    return 0;
}

int devices_library(const char *name, const struct backend_ops **ret, unsigned *ret_device,
                    struct why *why)
{
    struct devices_place place;
    int r = devices_place(name, &place, why);

    *ret = &backend_cpu;
    *ret_device = place.device;
    if (r == 0 && place.library)
        r = plugin_find(place.library, place.help, ret, why);
    return place.or_cpu ? 0 : r;
}
