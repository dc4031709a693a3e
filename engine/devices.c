/* engine/devices.c - names to devices and libraries, without asking whether any of them is here. */
#include "engine/devices.h"

#include "engine/plugin.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool has(const struct backend_devices *d, unsigned long device)
{
    for (uint32_t i = 0; i < d->n; i++)
        if (d->at[i] == device)
            return true;
    return false;
}

/* "0,2", each once, or "all". A digit first: strtoul would take a sign, or spaces. */
static bool read_numbers(const char *text, struct backend_devices *ret)
{
    *ret = (struct backend_devices){ .n = BACKEND_DEVICES_ALL };
    if (strcmp(text, "all") == 0)
        return true;
    for (ret->n = 0;; text++) {
        char *end;
        unsigned long device =
            isdigit((unsigned char)*text) ? strtoul(text, &end, 10) : DEVICES_MAX;

        if (device >= DEVICES_MAX || ret->n == BACKEND_DEVICES_MAX || has(ret, device))
            return false;
        ret->at[ret->n++] = (uint8_t)device;
        text = end;
        if (*text != ',')
            return *text == '\0';
    }
}

/* "cuda:N" and so on. */
static bool is_cuda(const char *name, struct backend_devices *ret)
{
    return strncmp(name, "cuda:", strlen("cuda:")) == 0 &&
           read_numbers(name + strlen("cuda:"), ret);
}

static bool is_shim(const char *name, struct backend_devices *ret)
{
    size_t n = strlen("cuda-shim");

    if (strncmp(name, "cuda-shim", n) != 0)
        return false;
    *ret = (struct backend_devices){ 0 }; /* the first */
    return name[n] == '\0' || (name[n] == ':' && read_numbers(name + n + 1, ret));
}

bool devices_is_shim(const char *name)
{
    struct backend_devices devices;

    return is_shim(name, &devices);
}

int devices_check(const char *name, struct why *why)
{
    struct backend_devices devices;

    if (strcmp(name, backend_cpu.name) == 0 || strcmp(name, "auto") == 0 ||
        is_shim(name, &devices) || is_cuda(name, &devices))
        return 0;
    return why_set(why, -EINVAL,
                   "option device: found %.80s, allowed: cpu, cuda:0 (or another number below %u), "
                   "cuda:0,1 (up to %u of them, each once), cuda:all, auto, cuda-shim",
                   name, DEVICES_MAX, BACKEND_DEVICES_MAX);
}

int devices_place(const char *name, struct devices_place *ret, struct why *why)
{
    bool is_auto = strcmp(name, "auto") == 0;

    *ret = (struct devices_place){ 0 };
    if (strcmp(name, backend_cpu.name) == 0)
        return 0;
    if (is_shim(name, &ret->devices)) {
        ret->library = "libgistd-cuda-shim.so";
        ret->help = "it is for tests of the kernels, and `make shim` builds it";
        return 0;
    }
    if (!is_auto && !is_cuda(name, &ret->devices))
        return devices_check(name, why);
    ret->library = "libgistd-cuda.so";
    ret->help = "build it with `make CUDA=1`, which needs nvcc, or use --device cpu";
    ret->or_cpu = is_auto;
    return 0;
}

/* Where "auto" finds no library the CPU's table, which ret begins with, stays, and why says what
 * was missing. */
int devices_library(const char *name, const struct backend_ops **ret,
                    struct backend_devices *ret_devices, struct why *why)
{
    struct devices_place place;
    int r = devices_place(name, &place, why);

    *ret = &backend_cpu;
    *ret_devices = place.devices;
    if (r == 0 && place.library)
        r = plugin_find(place.library, place.help, ret, why);
    return place.or_cpu ? 0 : r;
}
