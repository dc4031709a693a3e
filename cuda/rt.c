/* cuda/rt.c - the door to the runtime: one text, compiled with CUDA's header or with the shim's.
 *
 * CUDA's runtime is linked statically, and takes the driver (libcuda.so.1) by itself when it is
 * first called: so the library that we are part of loads on every machine, and says here what is
 * missing.
 */
#include "cuda/rt.h"

#include <cuda_runtime_api.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define ALIGN 4096u

/* A piece of memory that did not begin at a multiple of ALIGN, and where it did begin. cudaFree
 * wants the address that cudaMalloc gave. */
struct moved {
    void *mem, *whole;
    struct moved *next;
};

/* Memory of the host's that was pinned. */
struct pinned {
    const char *mem;
    size_t len;
    bool by_other; /* device: it is not ours to unpin */
    struct pinned *next;
};

struct rt {
    int device;
    struct cudaDeviceProp prop;
    cudaStream_t streams[RT_STREAM__N];
    struct moved *moved;
    struct pinned *pinned;
};

struct rt_event {
    cudaEvent_t e;
};

struct rt_graph {
    cudaGraphExec_t exec;
};

/* CUDA keeps an error until somebody takes it: one of no memory, which callers live with, would be
 * that of the next launch. All others are left, since the device is given up. */
static int code(cudaError_t e)
{
    if (e == cudaSuccess)
        return 0;
    if (e != cudaErrorMemoryAllocation)
        return -EIO;
    (void)cudaGetLastError(); /* it is no error of what comes next */
    return -ENOMEM;
}

/* --- a device --------------------------------------------------------------------------------- */

/* What `nvidia-smi` says of the driver is what the reader can look at next. Version questions
 * answer also where there is no driver: with 0. */
static int look_for_any(int *ret_n, struct why *why)
{
    cudaError_t e = cudaGetDeviceCount(ret_n);
    int driver = 0, runtime = 0;

    if (e == cudaSuccess && *ret_n > 0)
        return 0;
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    if (driver == 0)
        return why_set(why, -ENODEV,
                       "no NVIDIA driver was found (libcuda.so.1): install it, or use "
                       "--device cpu");
    if (e == cudaErrorInsufficientDriver)
        return why_set(why, -ENODEV,
                       "the NVIDIA driver is for CUDA %d.%d, and %d.%d is needed: update it, or "
                       "use --device cpu",
                       driver / 1000, driver / 10 % 100, runtime / 1000, runtime / 10 % 100);
    if (e == cudaSuccess || e == cudaErrorNoDevice)
        return why_set(why, -ENODEV,
                       "the NVIDIA driver shows this process no GPU: look at nvidia-smi, at "
                       "CUDA_VISIBLE_DEVICES, and at the permissions of /dev/nvidia*");
    return why_set(why, -ENODEV, "CUDA does not start: %s (%s)", cudaGetErrorString(e),
                   cudaGetErrorName(e));
}

/* Copies to shared memory that run beside computing came with 8.0 (cp.async). */
static int look_at(int n, struct cudaDeviceProp *ret, struct why *why)
{
    cudaError_t e = cudaGetDeviceProperties(ret, n);

    if (e != cudaSuccess)
        return why_set(why, -ENODEV, "device cuda:%d does not answer: %s", n,
                       cudaGetErrorString(e));
    if (ret->major < 8)
        return why_set(why, -ENODEV,
                       "device cuda:%d (%.40s) has compute capability %d.%d, expected 8.0 or later",
                       n, ret->name, ret->major, ret->minor);
    return 0;
}

static int look(unsigned n, struct cudaDeviceProp *ret, struct why *why)
{
    int count, r = look_for_any(&count, why);

    if (r < 0)
        return r;
    if (n >= (unsigned)count)
        return why_set(why, -ENODEV, "there is no device cuda:%u; there %s %d, from cuda:0 on", n,
                       count == 1 ? "is" : "are", count);
    return look_at((int)n, ret, why);
}

int rt_count(unsigned *ret, struct why *why)
{
    int n, r = look_for_any(&n, why);

    if (r == 0)
        *ret = (unsigned)n;
    return r;
}

/* Before calls that need a current device: allocations, events and streams that are made, kernels.
 * Copies, marks and waits are their stream's. */
int rt_use(const struct rt *r)
{
    return code(cudaSetDevice(r->device));
}

int rt_look(unsigned n, struct why *why)
{
    struct cudaDeviceProp prop;

    return look(n, &prop, why);
}

/* Not blocking: the default stream, in which nothing of ours runs, would order them all. */
static int open_streams(struct rt *r)
{
    int e = rt_use(r);

    for (int i = 0; i < RT_STREAM__N && e == 0; i++)
        e = code(cudaStreamCreateWithFlags(&r->streams[i], cudaStreamNonBlocking));
    return e;
}

int rt_open(unsigned n, struct rt **ret, struct why *why)
{
    struct rt *r = calloc(1, sizeof(*r));
    int e;

    if (!r)
        return why_set(why, -ENOMEM, "no memory for a device");
    r->device = (int)n;
    e = look(n, &r->prop, why);
    /* The first call that makes a context: hundreds of milliseconds, and a device that others hold
     * exclusively is found out here. */
    if (e == 0 && open_streams(r) < 0)
        e = why_set(why, -EIO, "device cuda:%u does not open: %s", n,
                    cudaGetErrorString(cudaGetLastError()));
    if (e < 0) {
        rt_close(r);
        return e;
    }
    *ret = r;
    return 0;
}

/* Accepts what rt_open has half made. */
void rt_close(struct rt *r)
{
    if (!r)
        return;
    for (int i = 0; i < RT_STREAM__N; i++)
        if (r->streams[i])
            (void)cudaStreamDestroy(r->streams[i]);
    while (r->moved) { /* of a lost device: memory that was not given back in time */
        struct moved *m = r->moved;

        r->moved = m->next;
        free(m);
    }
    /* A lost device's as well: the memory is the caller's and must be nobody's when it is unmapped.
     */
    while (r->pinned)
        rt_unpin(r, (void *)(uintptr_t)r->pinned->mem);
    free(r);
}

/* The last error is taken, or the next rt_open would be told of it. */
void rt_reset(unsigned n)
{
    if (cudaSetDevice((int)n) == cudaSuccess)
        (void)cudaDeviceReset();
    (void)cudaGetLastError();
}

/* 0 where nobody knows. */
uint64_t rt_left(const struct rt *r)
{
    size_t left = 0, all = 0;

    return rt_use(r) == 0 && cudaMemGetInfo(&left, &all) == cudaSuccess ? left : 0;
}

void rt_info(const struct rt *r, struct rt_info *ret)
{
    size_t left = 0, all = 0;

    if (rt_has_memory && rt_use(r) == 0)
        (void)cudaMemGetInfo(&left, &all);
    *ret = (struct rt_info){ .bytes = all, .bytes_free = left };
    (void)snprintf(ret->name, sizeof(ret->name), "%.*s", (int)sizeof(ret->name) - 1, r->prop.name);
}

/* --- memory ----------------------------------------------------------------------------------- */

/* Large pieces begin at a multiple of the device's pages; small ones at 512, and are moved. The
 * first try is given back before the second, so that a device with just enough memory has it. */
int rt_alloc(struct rt *r, size_t n, void **ret)
{
    struct moved *m;
    void *mem;
    int e = rt_use(r);

    if (e == 0)
        e = code(cudaMalloc(&mem, n ? n : 1));
    if (e < 0)
        return e;
    if ((uintptr_t)mem % ALIGN == 0) {
        *ret = mem;
        return 0;
    }
    (void)cudaFree(mem);
    m = malloc(sizeof(*m));
    if (!m)
        return -ENOMEM;
    e = code(cudaMalloc(&m->whole, n + ALIGN));
    if (e < 0) {
        free(m);
        return e;
    }
    m->mem = (char *)m->whole + (ALIGN - (uintptr_t)m->whole % ALIGN) % ALIGN;
    m->next = r->moved;
    r->moved = m;
    *ret = m->mem;
    return 0;
}

/* cudaFree waits for the device: nothing that is queued still has it. */
void rt_free(struct rt *r, void *mem)
{
    for (struct moved **at = &r->moved; *at; at = &(*at)->next) {
        struct moved *m = *at;

        if (m->mem != mem)
            continue;
        *at = m->next;
        mem = m->whole;
        free(m);
        break;
    }
    (void)cudaFree(mem);
}

/* Portable: for all devices, not the current one alone. */
int rt_alloc_host(struct rt *r, size_t n, void **ret)
{
    int e = rt_use(r);

    return e == 0 ? code(cudaHostAlloc(ret, n ? n : 1, cudaHostAllocPortable)) : e;
}

void rt_free_host(struct rt *r, void *mem)
{
    (void)r;
    if (mem)
        (void)cudaFreeHost(mem);
}

/* Only noted: the driver has it from the device that pinned it. */
int rt_pin_too(struct rt *r, void *mem, size_t n)
{
    struct pinned *p = malloc(sizeof(*p));

    if (!p)
        return -ENOMEM;
    *p = (struct pinned){ mem, n, true, r->pinned };
    r->pinned = p;
    return 0;
}

/* Noted first, so that nothing can fail once the driver has it. */
int rt_pin(struct rt *r, void *mem, size_t n)
{
    int e = rt_pin_too(r, mem, n);

    if (e < 0)
        return e;
    /* Whatever stands against it is no error of the device's: it goes without. */
    if (rt_use(r) < 0 || cudaHostRegister(mem, n, cudaHostRegisterPortable) != cudaSuccess) {
        (void)cudaGetLastError();
        rt_unpin(r, mem);
        return -ENOMEM;
    }
    r->pinned->by_other = false;
    return 0;
}

/* Whoever pinned it unpins; the note goes in any case. */
void rt_unpin(struct rt *r, void *mem)
{
    for (struct pinned **at = &r->pinned; *at; at = &(*at)->next) {
        struct pinned *p = *at;

        if (p->mem != mem)
            continue;
        *at = p->next;
        if (!p->by_other) {
            (void)cudaHostUnregister(mem);
            (void)cudaGetLastError(); /* of a lost device, which has forgotten it */
        }
        free(p);
        return;
    }
}

/* A span that lies in two of them is not: a copy needs one. */
bool rt_is_pinned(const struct rt *r, const void *mem, size_t n)
{
    const struct pinned *p = r->pinned;
    const char *at = mem;

    while (p && !(at >= p->mem && n <= p->len && (size_t)(at - p->mem) <= p->len - n))
        p = p->next;
    return p != NULL;
}

/* --- work of a stream ------------------------------------------------------------------------- */

/* Of memory that is not pinned CUDA leaves open when it is read: callers pass what is
 * (cuda/stage.h). */
int rt_put(struct rt *r, enum rt_stream s, void *to, const void *host, size_t n)
{
    return code(cudaMemcpyAsync(to, host, n, cudaMemcpyHostToDevice, r->streams[s]));
}

int rt_get(struct rt *r, enum rt_stream s, void *host, const void *from, size_t n)
{
    return code(cudaMemcpyAsync(host, from, n, cudaMemcpyDeviceToHost, r->streams[s]));
}

int rt_copy(struct rt *r, enum rt_stream s, void *to, const void *from, size_t n)
{
    return code(cudaMemcpyAsync(to, from, n, cudaMemcpyDeviceToDevice, r->streams[s]));
}

/* Kernels could look there then, too; copies alone do. Once for a pair and a context: it stays when
 * others ask again. */
static bool enable_peer(const struct rt *r, const struct rt *other)
{
    int can = 0;
    cudaError_t e;

    if (cudaDeviceCanAccessPeer(&can, r->device, other->device) != cudaSuccess || !can ||
        rt_use(r) < 0)
        return false;
    e = cudaDeviceEnablePeerAccess(other->device, 0);
    (void)cudaGetLastError();
    return e == cudaSuccess || e == cudaErrorPeerAccessAlreadyEnabled;
}

bool rt_reaches(const struct rt *r, const struct rt *other)
{
    return enable_peer(r, other) && enable_peer(other, r);
}

int rt_copy_from(struct rt *r, enum rt_stream s, void *to, const struct rt *other, const void *from,
                 size_t n)
{
    return code(cudaMemcpyPeerAsync(to, r->device, from, other->device, n, r->streams[s]));
}

int rt_clear(struct rt *r, enum rt_stream s, void *mem, size_t n)
{
    return code(cudaMemsetAsync(mem, 0, n, r->streams[s]));
}

/* fn runs on a thread of the driver's, and may not call CUDA. */
int rt_call(struct rt *r, enum rt_stream s, void (*fn)(void *arg), void *arg)
{
    return code(cudaLaunchHostFunc(r->streams[s], fn, arg));
}

int rt_event_open(struct rt *r, struct rt_event **ret)
{
    struct rt_event *e = malloc(sizeof(*e));
    int err = rt_use(r);

    if (!e)
        return -ENOMEM;
    if (err == 0)
        err = code(cudaEventCreateWithFlags(&e->e, cudaEventDisableTiming));
    if (err < 0) {
        free(e);
        return err;
    }
    *ret = e;
    return 0;
}

void rt_event_close(struct rt *r, struct rt_event *e)
{
    (void)r;
    if (!e)
        return;
    (void)cudaEventDestroy(e->e);
    free(e);
}

int rt_record(struct rt *r, enum rt_stream s, struct rt_event *e)
{
    return code(cudaEventRecord(e->e, r->streams[s]));
}

int rt_follow(struct rt *r, enum rt_stream s, struct rt_event *e)
{
    return code(cudaStreamWaitEvent(r->streams[s], e->e, 0));
}

int rt_event_done(struct rt *r, struct rt_event *e)
{
    cudaError_t err = cudaEventQuery(e->e);

    (void)r;
    if (err != cudaErrorNotReady)
        return code(err);
    (void)cudaGetLastError(); /* or the next launch would be taken for one that failed */
    return -EAGAIN;
}

int rt_event_wait(struct rt *r, struct rt_event *e)
{
    (void)r;
    return code(cudaEventSynchronize(e->e));
}

int rt_wait(struct rt *r, enum rt_stream s)
{
    return code(cudaStreamSynchronize(r->streams[s]));
}

/* --- work that is kept ------------------------------------------------------------------------ */

/* Of this thread: what others queue meanwhile is none of it. Copies from memory that is not pinned,
 * and allocations, end the capture with an error: between rt_keep and rt_kept there are launches
 * alone. */
int rt_keep(struct rt *r)
{
    return code(cudaStreamBeginCapture(r->streams[RT_COMPUTE], cudaStreamCaptureModeThreadLocal));
}

/* The end of the capture comes before anything that can fail, since the stream takes no other work
 * until then. */
int rt_kept(struct rt *r, struct rt_graph **ret)
{
    struct rt_graph *g = ret ? malloc(sizeof(*g)) : NULL;
    cudaGraph_t graph = NULL;
    int e = code(cudaStreamEndCapture(r->streams[RT_COMPUTE], &graph));

    if (e == 0 && ret)
        e = g ? code(cudaGraphInstantiate(&g->exec, graph, 0)) : -ENOMEM;
    if (graph)
        (void)cudaGraphDestroy(graph);
    if (e < 0) {
        free(g);
        return e;
    }
    if (ret)
        *ret = g;
    return 0;
}

int rt_queue(struct rt *r, struct rt_graph *g)
{
    return code(cudaGraphLaunch(g->exec, r->streams[RT_COMPUTE]));
}

void rt_graph_close(struct rt *r, struct rt_graph *g)
{
    (void)r;
    if (!g)
        return;
    (void)cudaGraphExecDestroy(g->exec);
    free(g);
}

void *rt_stream(struct rt *r, enum rt_stream s)
{
    return r->streams[s];
}
