/* cuda/shim/sums_host.c - cuda/sums.h in the order of the devices: what NCCL is held to. The first
 * device fetches what all have, adds it up, and all take it from there, by events:
 *
 *     device 0   there | fetch | add | sum | take | follows all that took
 *     device 1   there |                   | take | taken
 */
#include "cuda/sums.h"

#include "cuda/shim/cuda_runtime_api.h"
#include "engine/device_list.h"

#include <errno.h>
#include <stdlib.h>

struct sums {
    uint32_t n;
    int devices[BACKEND_DEVICES_MAX];
    cudaStream_t streams[BACKEND_DEVICES_MAX];
    cudaEvent_t there[BACKEND_DEVICES_MAX], taken[BACKEND_DEVICES_MAX], sum;
    float *fetched; /* (n, most), the first device's */
    size_t most;
};

/* What is added up when its turn comes. */
struct addition {
    float *all;
    size_t stride, n_values;
    uint32_t n;
};

size_t sums_need(uint32_t n, size_t most)
{
    return n * most * sizeof(float);
}

/* Events are made on the device in whose stream they are recorded. */
static int open_events(struct sums *s)
{
    cudaError_t e = cudaSetDevice(s->devices[0]);

    if (e == cudaSuccess)
        e = cudaMalloc((void **)&s->fetched, sums_need(s->n, s->most));
    if (e == cudaSuccess)
        e = cudaEventCreateWithFlags(&s->sum, cudaEventDisableTiming);
    for (uint32_t i = 0; i < s->n && e == cudaSuccess; i++) {
        e = cudaSetDevice(s->devices[i]);
        if (e == cudaSuccess)
            e = cudaEventCreateWithFlags(&s->there[i], cudaEventDisableTiming);
        if (e == cudaSuccess)
            e = cudaEventCreateWithFlags(&s->taken[i], cudaEventDisableTiming);
    }
    return e == cudaSuccess ? 0 : e == cudaErrorMemoryAllocation ? -ENOMEM : -EIO;
}

int sums_open(const int *devices, void *const *streams, uint32_t n, size_t most, struct sums **ret,
              struct why *why)
{
    struct sums *s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return why_set(why, -ENOMEM, "no memory for sums over devices");
    s->n = n;
    s->most = most;
    for (uint32_t i = 0; i < n; i++) {
        s->devices[i] = devices[i];
        s->streams[i] = streams[i];
    }
    r = open_events(s);
    if (r < 0) {
        sums_close(s);
        return why_set(why, r, "no memory for sums over devices");
    }
    *ret = s;
    return 0;
}

/* Also half opened. */
void sums_close(struct sums *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; i < s->n; i++) {
        (void)cudaSetDevice(s->devices[i]);
        (void)cudaEventDestroy(s->there[i]);
        (void)cudaEventDestroy(s->taken[i]);
    }
    (void)cudaEventDestroy(s->sum);
    (void)cudaSetDevice(s->devices[0]);
    (void)cudaFree(s->fetched);
    free(s);
}

void sums_abort(struct sums *s)
{
    (void)s; /* nothing waits for a device that is lost */
}

/* By the stream's thread, in the order of the devices: the same bits each time. */
static void add(void *arg)
{
    const struct addition *a = arg;

    for (uint32_t d = 1; d < a->n; d++)
        for (size_t i = 0; i < a->n_values; i++)
            a->all[i] += a->all[d * a->stride + i];
    free(arg);
}

/* The first device comes behind all others, each of which has what is added up when its mark is
 * reached. */
static cudaError_t fetch(const struct sums *s, float *const *y, size_t n_values)
{
    cudaError_t e = cudaSuccess;

    for (uint32_t i = 0; i < s->n && e == cudaSuccess; i++) {
        e = cudaSetDevice(s->devices[i]);
        if (e == cudaSuccess)
            e = cudaEventRecord(s->there[i], s->streams[i]);
        if (e == cudaSuccess)
            e = cudaStreamWaitEvent(s->streams[0], s->there[i], 0);
        if (e == cudaSuccess)
            e = cudaMemcpyAsync(s->fetched + i * s->most, y[i], n_values * sizeof(**y),
                                cudaMemcpyDeviceToDevice, s->streams[0]);
    }
    return e;
}

static cudaError_t add_up(const struct sums *s, size_t n_values)
{
    struct addition *a = malloc(sizeof(*a));
    cudaError_t e = cudaSetDevice(s->devices[0]);

    if (!a)
        return cudaErrorMemoryAllocation;
    *a = (struct addition){ s->fetched, s->most, n_values, s->n };
    if (e == cudaSuccess)
        e = cudaLaunchHostFunc(s->streams[0], add, a);
    if (e != cudaSuccess) {
        free(a);
        return e;
    }
    return cudaEventRecord(s->sum, s->streams[0]);
}

/* The last waits keep `fetched` from the next sum until all have it. */
static cudaError_t take(const struct sums *s, float *const *y, size_t n_values)
{
    cudaError_t e = cudaSuccess;

    for (uint32_t i = 0; i < s->n && e == cudaSuccess; i++) {
        e = cudaSetDevice(s->devices[i]);
        if (e == cudaSuccess)
            e = cudaStreamWaitEvent(s->streams[i], s->sum, 0);
        if (e == cudaSuccess)
            e = cudaMemcpyAsync(y[i], s->fetched, n_values * sizeof(**y), cudaMemcpyDeviceToDevice,
                                s->streams[i]);
        if (e == cudaSuccess)
            e = cudaEventRecord(s->taken[i], s->streams[i]);
        if (e == cudaSuccess)
            e = cudaStreamWaitEvent(s->streams[0], s->taken[i], 0);
    }
    return e;
}

int sums_run(struct sums *s, float *const *y, size_t n_values)
{
    cudaError_t e = n_values <= s->most ? fetch(s, y, n_values) : cudaErrorInvalidValue;

    if (e == cudaSuccess)
        e = add_up(s, n_values);
    if (e == cudaSuccess)
        e = take(s, y, n_values);
    return e == cudaSuccess ? 0 : -EIO;
}
