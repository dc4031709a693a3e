/* The devices themselves: their memory, how much there is of it, whether they are still there.
 *
 * A kernel sees its own device's memory and that of peers it was given. What it does not see can't
 * be touched while it runs: the pages are closed, or poisoned where ASan looks. They are opened
 * again when somebody may, so a single device never pays for it. */
#include "cuda/shim/runtime.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of each; the machine has to have what is allocated of it, and no more. */
#define MEMORY ((size_t)64 << 30)

/* Of a device or the host's that it can reach. closed: a kernel of another device must not see it
 * now. */
struct region {
    struct region *next;
    void *mem;
    size_t len;
    enum region_kind { REGION_DEVICE, REGION_HOST, REGION_PINNED } kind; /* PINNED: the caller's */
    int device;
    bool closed;
};

/* Whoever holds `owner` may touch it. */
static struct {
    int owner; /* thread that holds the shim; 0: nobody */
    bool backwards, late, lost;
    unsigned lost_in;
    bool told;                                        /* by a file, which is still there */
    size_t all, used[SHIM_DEVICES], pin_max, pinned;  /* all: of each */
    bool no_peers, peers[SHIM_DEVICES][SHIM_DEVICES]; /* [who][whose] */
    bool astray;                                      /* what peers copy */
    struct region *regions;
    cudaError_t last;
} shim = { .all = MEMORY, .pin_max = SIZE_MAX };

static _Thread_local int current;

/* --- who may, and whether the device is there ------------------------------------------------- */

/* In a program whose environment has GISTD_SHIM_LOST=PATH a file of that name that comes to be
 * loses the device as shim_set_lost does, at the n-th call, n being its length; and as long as it
 * is there the device stays lost. Of the file no more is asked, which a sandbox allows. 0: it is
 * not there. */
static unsigned lost_by_file(void)
{
    const char *path = getenv("GISTD_SHIM_LOST");
    struct stat st;

    return path && stat(path, &st) == 0 ? (unsigned)st.st_size : 0;
}

/* Once for each file: `told` until it is gone. */
static void look_at_file(void)
{
    /* The length says how many calls from now. */
    unsigned n = lost_by_file();

    if (n && !shim.told)
        shim.lost_in = n;
    shim.told = n != 0;
}

/* No mutex: TSan would take it for an order between what two threads have the device do. Every call
 * begins and ends so, and one that finds the devices lost says so. */
cudaError_t shim_enter(void)
{
    /* By thread, to find a host function that calls back. */
    int me = (int)syscall(SYS_gettid), nobody = 0;

    if (__atomic_load_n(&shim.owner, __ATOMIC_RELAXED) == me)
        shim_fail("a host function of a stream calls CUDA");
    while (!__atomic_compare_exchange_n(&shim.owner, &nobody, me, false, __ATOMIC_ACQUIRE,
                                        __ATOMIC_RELAXED)) {
        nobody = 0;
        sched_yield();
    }
    look_at_file();
    /* Counted down by every call, of whatever kind. */
    if (shim.lost_in && --shim.lost_in == 0)
        shim.lost = true;
    return shim.lost ? cudaErrorDevicesUnavailable : cudaSuccess;
}

/* NotReady is an answer. */
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

/* What was queued before is done in the old way. */
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

void shim_set_peers(bool can)
{
    shim.no_peers = !can;
}

void shim_set_astray(bool astray)
{
    shim.astray = astray;
}

bool shim_is_astray(void)
{
    return shim.astray;
}

int shim_device(void)
{
    return current;
}

/* 0 also brings devices back. */
void shim_set_lost(unsigned n)
{
    shim.lost_in = n;
    shim.lost = false;
}

/* Memory that was pinned is not the device's any more. Not freed: it is the caller's. */
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

/* No shim_enter: it is what a lost device is asked first. */
cudaError_t cudaDeviceReset(void)
{
    forget_pinned();
    memset(shim.peers[current], 0, sizeof(shim.peers[current]));
    shim.lost &= lost_by_file() != 0;
    return shim.lost ? cudaErrorDevicesUnavailable : cudaSuccess;
}

/* --- memory ----------------------------------------------------------------------------------- */

/* By its first byte, to be taken out of the list. */
static struct region **find(const void *mem)
{
    struct region **at = &shim.regions;

    while (*at && (*at)->mem != mem)
        at = &(*at)->next;
    return at;
}

/* Any byte of it. */
static struct region *region_of(const void *mem)
{
    struct region *r = shim.regions;

    while (r && !((const char *)mem >= (const char *)r->mem &&
                  (const char *)mem < (const char *)r->mem + r->len))
        r = r->next;
    return r;
}

/* Nobody told CUDA about it. */
bool shim_is_pageable(const void *mem)
{
    return !region_of(mem);
}

/* All n bytes, in one region. */
bool memory_is_of(int device, const void *mem, size_t n)
{
    const struct region *r = region_of(mem);

    return r && r->kind == REGION_DEVICE && r->device == device &&
           n <= r->len - (size_t)((const char *)mem - (const char *)r->mem);
}

/* Whole pages of its own, which can be closed; where ASan looks a piece of that very length. */
#ifdef SHIM_ASAN
void __asan_poison_memory_region(const volatile void *mem, size_t n);
void __asan_unpoison_memory_region(const volatile void *mem, size_t n);
static void *device_alloc(size_t n)
{
    return exact_alloc(4096, n);
}
static void device_free(void *mem, size_t n)
{
    (void)n;
    free(mem);
}
static void set_closed(struct region *r, bool closed)
{
    if (closed)
        __asan_poison_memory_region(r->mem, r->len);
    else
        __asan_unpoison_memory_region(r->mem, r->len);
    r->closed = closed;
}
#else
static void *device_alloc(size_t n)
{
    void *ret =
        mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return ret == MAP_FAILED ? NULL : ret;
}
static void device_free(void *mem, size_t n)
{
    (void)munmap(mem, n);
}
static void set_closed(struct region *r, bool closed)
{
    if (mprotect(r->mem, r->len, closed ? PROT_NONE : PROT_READ | PROT_WRITE) < 0)
        shim_fail("a device's memory can't be closed or opened");
    r->closed = closed;
}
#endif

/* Before a kernel of this device: opens and closes what differs from the last one's. */
void memory_show(int device)
{
    for (struct region *r = shim.regions; r; r = r->next) {
        bool hide =
            r->kind == REGION_DEVICE && r->device != device && !shim.peers[device][r->device];

        if (hide != r->closed)
            set_closed(r, hide);
    }
}

/* A copy may go where kernels may not. */
void memory_show_copy(const void *to, const void *from)
{
    struct region *ends[] = { region_of(to), from ? region_of(from) : NULL };

    for (unsigned i = 0; i < 2; i++)
        if (ends[i] && ends[i]->closed)
            set_closed(ends[i], false);
}

/* GISTD_SHIM_MEMORY=BYTES in the environment of a program does what shim_set_memory does. Asked
 * each time: a test may change it. */
static size_t memory_of_each(void)
{
    const char *bytes = getenv("GISTD_SHIM_MEMORY");

    return bytes ? (size_t)strtoull(bytes, NULL, 10) : shim.all;
}

/* Of what the test allows, not of the machine's. */
static size_t left(int device)
{
    size_t used = shim.used[device], all = memory_of_each();

    return used < all ? all - used : 0;
}

/* Filled with NaN: what nobody wrote shows in whatever reads it. */
static cudaError_t take(void **ret, size_t n, enum region_kind kind)
{
    struct region *r;

    *ret = NULL;
    if (n == 0)
        return cudaSuccess;
    /* The host's memory has no limit here. */
    if (kind == REGION_DEVICE && n > left(current))
        return cudaErrorMemoryAllocation;
    r = calloc(1, sizeof(*r));
    if (!r)
        return cudaErrorMemoryAllocation;
    *r = (struct region){ .next = shim.regions,
                          .mem = kind == REGION_DEVICE ? device_alloc(n) : exact_alloc(4096, n),
                          .len = n,
                          .kind = kind,
                          .device = current };
    if (!r->mem) {
        free(r);
        return cudaErrorMemoryAllocation;
    }
    fill_nan(r->mem, n);
    if (kind == REGION_DEVICE)
        shim.used[current] += n;
    shim.regions = r;
    *ret = r->mem;
    return cudaSuccess;
}

/* As cudaFree does, it waits for all work: nothing may still use the memory. The host receives what
 * all streams did, since it has waited for them. */
static cudaError_t give(void *mem, enum region_kind kind)
{
    struct region **at = find(mem), *r = *at;

    /* Freeing nothing is no error. */
    if (!mem)
        return cudaSuccess;
    if (!r || r->kind != kind)
        return cudaErrorInvalidValue;
    streams_finish();
    for (struct CUstream_st *s = NULL; (s = stream_next(s));)
        lane_acquire(&s->lane);
    *at = r->next;
    if (r->closed)
        set_closed(r, false);
    if (kind == REGION_DEVICE) {
        shim.used[r->device] -= r->len;
        device_free(r->mem, r->len);
    } else if (kind == REGION_PINNED) {
        shim.pinned -= r->len;
    } else {
        free(r->mem);
    }
    free(r);
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **ret, size_t n)
{
    cudaError_t e = shim_enter();

    return shim_leave(e == cudaSuccess ? take(ret, n, REGION_DEVICE) : e);
}

/* Portable or not, all devices reach it. */
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

/* Memory that CUDA has already is refused, as CUDA does. */
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
    *r = (struct region){ .next = shim.regions, .mem = mem, .len = n, .kind = REGION_PINNED };
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

/* Of the current device. */
cudaError_t cudaMemGetInfo(size_t *ret_free, size_t *ret_all)
{
    cudaError_t e = shim_enter();

    *ret_all = memory_of_each();
    *ret_free = left(current);
    return shim_leave(e);
}

/* --- what it is ------------------------------------------------------------------------------- */

/* Those that the shim returns. */
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
    { cudaErrorPeerAccessUnsupported, "cudaErrorPeerAccessUnsupported",
      "peer access is not supported between these two devices" },
    { cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle" },
    { cudaErrorPeerAccessAlreadyEnabled, "cudaErrorPeerAccessAlreadyEnabled",
      "peer access is already enabled" },
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
    *ret = SHIM_DEVICES;
    return cudaSuccess;
}

static bool is_device(int device)
{
    return device >= 0 && device < (int)SHIM_DEVICES;
}

/* It is a thread's own, as in CUDA: so a thread that never said it is found out. */
cudaError_t cudaSetDevice(int device)
{
    if (!is_device(device))
        return cudaErrorInvalidDevice;
    current = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *ret)
{
    *ret = current;
    return cudaSuccess;
}

/* All or none of them. */
cudaError_t cudaDeviceCanAccessPeer(int *ret, int device, int peer)
{
    if (!is_device(device) || !is_device(peer))
        return cudaErrorInvalidDevice;
    *ret = !shim.no_peers && device != peer;
    return cudaSuccess;
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags)
{
    cudaError_t e = shim_enter();
    int can = 0;

    (void)flags;
    if (e == cudaSuccess)
        e = cudaDeviceCanAccessPeer(&can, current, peer);
    if (e == cudaSuccess && !can)
        e = cudaErrorPeerAccessUnsupported;
    if (e == cudaSuccess && shim.peers[current][peer])
        e = cudaErrorPeerAccessAlreadyEnabled;
    if (e == cudaSuccess)
        /* From `current` to peer; the other way is asked for by itself. */
        shim.peers[current][peer] = true;
    return shim_leave(e);
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *ret, int device)
{
    if (!is_device(device))
        return cudaErrorInvalidDevice;
    if (shim.lost)
        return cudaErrorDevicesUnavailable;
    /* 8.9: the smallest of the targets, whose shared memory is the limit (cuda/shim/shim.h). */
    *ret = (struct cudaDeviceProp){
        .totalGlobalMem = memory_of_each(), .major = 8, .minor = 9, .multiProcessorCount = 4
    };
    snprintf(ret->name, sizeof(ret->name), "shim");
    return cudaSuccess;
}
