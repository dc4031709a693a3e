/* The device itself: its memory, how much there is of it, whether it is still there. */
#include "cuda/shim/runtime.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MEMORY ((size_t)64 << 30)

/* Of the device or the host's that it can reach. */
struct region {
    struct region *next;
    void *mem;
    size_t len;
    enum region_kind { REGION_DEVICE, REGION_HOST, REGION_PINNED } kind; /* PINNED: the caller's */
};

static struct {
    int owner; /* thread that holds the shim; 0: nobody */
    bool backwards, late, lost;
    unsigned lost_in;
    bool told; /* by a file, which is still there */
    size_t all, used, pin_max, pinned;
    struct region *regions;
    cudaError_t last;
} shim = { .all = MEMORY, .pin_max = SIZE_MAX };

/* --- who may, and whether the device is there ------------------------------------------------- */

/* In a program whose environment has GISTD_SHIM_LOST=PATH a file of that name that comes to be
 * loses the device as shim_set_lost does, at the n-th call, n being its length; and as long as it
 * is there the device stays lost. Of the file no more is asked, which a sandbox allows. */
static unsigned lost_by_file(void)
{
    const char *path = getenv("GISTD_SHIM_LOST");
    struct stat st;

    return path && stat(path, &st) == 0 ? (unsigned)st.st_size : 0;
}

static void look_at_file(void)
{
    unsigned n = lost_by_file();

    if (n && !shim.told)
        shim.lost_in = n;
    shim.told = n != 0;
}

/* No mutex: TSan would take it for an order between what two threads have the device do. */
cudaError_t shim_enter(void)
{
    int me = (int)syscall(SYS_gettid), nobody = 0;

    if (__atomic_load_n(&shim.owner, __ATOMIC_RELAXED) == me)
        shim_fail("a host function of a stream calls CUDA");
    while (!__atomic_compare_exchange_n(&shim.owner, &nobody, me, false, __ATOMIC_ACQUIRE,
                                        __ATOMIC_RELAXED)) {
        nobody = 0;
        sched_yield();
    }
    look_at_file();
    if (shim.lost_in && --shim.lost_in == 0)
        shim.lost = true;
    return shim.lost ? cudaErrorDevicesUnavailable : cudaSuccess;
}

cudaError_t shim_leave(cudaError_t e)
{
    if (e != cudaSuccess && e != cudaErrorNotReady)
        shim.last = e;
    __atomic_store_n(&shim.owner, 0, __ATOMIC_RELEASE);
    return e;
}

bool shim_is_late(void)
{
    return shim.late;
}

bool shim_is_lost(void)
{
    return shim.lost;
}

bool shim_is_backwards(void)
{
    return shim.backwards;
}

void shim_set_order(bool backwards)
{
    shim.backwards = backwards;
}

void shim_set_late(bool late)
{
    (void)shim_enter();
    streams_finish();
    shim.late = late;
    (void)shim_leave(cudaSuccess);
}

void shim_set_memory(size_t bytes)
{
    shim.all = bytes;
}

void shim_set_pinned(size_t bytes)
{
    shim.pin_max = bytes;
}

void shim_set_lost(unsigned n)
{
    shim.lost_in = n;
    shim.lost = false;
}

/* Memory that was pinned is not the device's any more. */
static void forget_pinned(void)
{
    struct region **at = &shim.regions;

    while (*at) {
        struct region *r = *at;

        if (r->kind != REGION_PINNED) {
            at = &r->next;
            continue;
        }
        *at = r->next;
        free(r);
    }
    shim.pinned = 0;
}

cudaError_t cudaDeviceReset(void)
{
    forget_pinned();
    shim.lost &= lost_by_file() != 0;
    return shim.lost ? cudaErrorDevicesUnavailable : cudaSuccess;
}

/* --- memory ----------------------------------------------------------------------------------- */

static struct region **find(const void *mem)
{
    struct region **at = &shim.regions;

    while (*at && (*at)->mem != mem)
        at = &(*at)->next;
    return at;
}

bool shim_is_pageable(const void *mem)
{
    const struct region *r = shim.regions;

    while (r && !((const char *)mem >= (const char *)r->mem &&
                  (const char *)mem < (const char *)r->mem + r->len))
        r = r->next;
    return !r;
}

static cudaError_t take(void **ret, size_t n, enum region_kind kind)
{
    struct region *r;

    *ret = NULL;
    if (n == 0)
        return cudaSuccess;
    if (kind == REGION_DEVICE && n > shim.all - (shim.used < shim.all ? shim.used : shim.all))
        return cudaErrorMemoryAllocation;
    r = calloc(1, sizeof(*r));
    if (!r)
        return cudaErrorMemoryAllocation;
    *r = (struct region){ shim.regions, exact_alloc(4096, n), n, kind };
    if (!r->mem) {
        free(r);
        return cudaErrorMemoryAllocation;
    }
    fill_nan(r->mem, n);
    if (kind == REGION_DEVICE)
        shim.used += n;
    shim.regions = r;
    *ret = r->mem;
    return cudaSuccess;
}

/* As cudaFree does, it waits for all work: nothing may still use the memory. */
static cudaError_t give(void *mem, enum region_kind kind)
{
    struct region **at = find(mem), *r = *at;

    if (!mem)
        return cudaSuccess;
    if (!r || r->kind != kind)
        return cudaErrorInvalidValue;
    streams_finish();
    for (struct CUstream_st *s = NULL; (s = stream_next(s));)
        lane_acquire(&s->lane);
    *at = r->next;
    if (kind == REGION_DEVICE)
        shim.used -= r->len;
    if (kind == REGION_PINNED)
        shim.pinned -= r->len;
    else
        free(r->mem);
    free(r);
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **ret, size_t n)
{
    cudaError_t e = shim_enter();

    return shim_leave(e == cudaSuccess ? take(ret, n, REGION_DEVICE) : e);
}

cudaError_t cudaHostAlloc(void **ret, size_t n, unsigned flags)
{
    cudaError_t e = shim_enter();

    (void)flags;
    return shim_leave(e == cudaSuccess ? take(ret, n, REGION_HOST) : e);
}

cudaError_t cudaMallocHost(void **ret, size_t n)
{
    return cudaHostAlloc(ret, n, cudaHostAllocDefault);
}

/* Memory is given back also by a device that is lost: the process goes on. */
cudaError_t cudaFree(void *mem)
{
    cudaError_t lost = shim_enter(), e = give(mem, REGION_DEVICE);

    return shim_leave(lost != cudaSuccess ? lost : e);
}

cudaError_t cudaFreeHost(void *mem)
{
    cudaError_t lost = shim_enter(), e = give(mem, REGION_HOST);

    return shim_leave(lost != cudaSuccess ? lost : e);
}

static cudaError_t pin(void *mem, size_t n)
{
    struct region *r;

    if (n == 0 || !shim_is_pageable(mem))
        return cudaErrorInvalidValue;
    if (n > shim.pin_max - (shim.pinned < shim.pin_max ? shim.pinned : shim.pin_max))
        return cudaErrorMemoryAllocation;
    r = calloc(1, sizeof(*r));
    if (!r)
        return cudaErrorMemoryAllocation;
    *r = (struct region){ shim.regions, mem, n, REGION_PINNED };
    shim.pinned += n;
    shim.regions = r;
    return cudaSuccess;
}

cudaError_t cudaHostRegister(void *mem, size_t n, unsigned flags)
{
    cudaError_t e = shim_enter();

    (void)flags;
    return shim_leave(e == cudaSuccess ? pin(mem, n) : e);
}

cudaError_t cudaHostUnregister(void *mem)
{
    cudaError_t lost = shim_enter(), e = give(mem, REGION_PINNED);

    return shim_leave(lost != cudaSuccess ? lost : e);
}

cudaError_t cudaMemGetInfo(size_t *ret_free, size_t *ret_all)
{
    cudaError_t e = shim_enter();

    *ret_all = shim.all;
    *ret_free = shim.used < shim.all ? shim.all - shim.used : 0;
    return shim_leave(e);
}

/* --- what it is ------------------------------------------------------------------------------- */

static const struct error {
    cudaError_t e;
    const char *name, *text;
} errors[] = {
    { cudaSuccess, "cudaSuccess", "no error" },
    { cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument" },
    { cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory" },
    { cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
      "invalid configuration argument" },
    { cudaErrorDevicesUnavailable, "cudaErrorDevicesUnavailable",
      "CUDA-capable device(s) is/are busy or unavailable" },
    { cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected" },
    { cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal" },
    { cudaErrorNotReady, "cudaErrorNotReady", "device not ready" },
    { cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported" },
    { cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
      "operation not permitted when stream is capturing" },
    { cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined",
      "capturing stream has unjoined work" },
    { cudaErrorGraphExecUpdateFailure, "cudaErrorGraphExecUpdateFailure",
      "the graph update was not performed because it included changes which violated constraints" },
};

static const struct error *error_of(cudaError_t e)
{
    static const struct error unknown = { cudaSuccess, "cudaErrorUnknown", "unknown error" };

    for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++)
        if (errors[i].e == e)
            return &errors[i];
    return &unknown;
}

const char *cudaGetErrorName(cudaError_t e)
{
    return error_of(e)->name;
}

const char *cudaGetErrorString(cudaError_t e)
{
    return error_of(e)->text;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t e = shim.last;

    shim.last = cudaSuccess;
    return e;
}

cudaError_t cudaDriverGetVersion(int *ret)
{
    *ret = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *ret)
{
    *ret = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *ret)
{
    *ret = 1;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    return device == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *ret, int device)
{
    if (device != 0)
        return cudaErrorInvalidDevice;
    if (shim.lost)
        return cudaErrorDevicesUnavailable;
    *ret = (struct cudaDeviceProp){
        .totalGlobalMem = shim.all, .major = 8, .minor = 9, .multiProcessorCount = 4
    };
    snprintf(ret->name, sizeof(ret->name), "shim");
    return cudaSuccess;
}
