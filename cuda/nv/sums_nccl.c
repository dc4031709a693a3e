/* cuda/nv/sums_nccl.c - cuda/sums.h by NCCL, which is loaded when several GPUs share each layer.
 * Its functions are declared here, so that nobody needs it to build: NCCL keeps them from version 2
 * to version 2.
 *
 * One thread has all devices, so calls for them are groups. They are not kept in graphs: of one
 * thread for several devices a graph's launch may block before the others are launched, and NCCL
 * advises against it.
 */
#include "cuda/sums.h"

#include "cuda/nv/symbols.h"
#include "engine/device_list.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Buffers of its channels, for each of its protocols, sent and received: how many there are is its
 * own choice, by what connects the devices. A bound for --plan and for the pages: too little would
 * be no memory when the model is loaded. */
#define BYTES ((size_t)512 << 20)

enum { NCCL_SUCCESS = 0, NCCL_FLOAT32 = 7, NCCL_SUM = 0 };
struct ncclComm;

/* A communicator is NULL behind an abort, and where none was made. */
struct sums {
    void *lib;
    uint32_t n;
    struct ncclComm *comms[BACKEND_DEVICES_MAX];
    void *streams[BACKEND_DEVICES_MAX];
    int (*init_all)(struct ncclComm **comms, int n, const int *devices);
    int (*destroy)(struct ncclComm *comm);
    int (*abort)(struct ncclComm *comm);
    int (*group_start)(void);
    int (*group_end)(void);
    int (*all_reduce)(const void *from, void *to, size_t n, int type, int op, struct ncclComm *comm,
                      void *stream);
    const char *(*error)(int code);
};

size_t sums_need(uint32_t n, size_t most)
{
    (void)n;
    (void)most;
    return BYTES;
}

/* RTLD_LOCAL, as cuBLAS (cuda/nv/gemm_cublas.c). */
static int find_library(struct sums *s, struct why *why)
{
    s->lib = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (s->lib)
        return 0;
    return why_set(why, -ELIBACC,
                   "NCCL is missing (libnccl.so.2): install it (Debian: libnccl2; PyPI: "
                   "nvidia-nccl-cu13 or -cu12) and make it known to ldconfig, or use "
                   "--split-mode layer");
}

static int find_functions(struct sums *s, struct why *why)
{
    const struct symbol all[] = {
        { "ncclCommInitAll", &s->init_all }, { "ncclCommDestroy", &s->destroy },
        { "ncclCommAbort", &s->abort },      { "ncclGroupStart", &s->group_start },
        { "ncclGroupEnd", &s->group_end },   { "ncclAllReduce", &s->all_reduce },
        { "ncclGetErrorString", &s->error },
    };
    const char *missing = symbols_find(s->lib, all, sizeof(all) / sizeof(*all));

    if (missing)
        return why_set(why, -ELIBACC,
                       "NCCL has no function %s: found another version than 2, expected 2.4 or "
                       "later",
                       missing);
    return 0;
}

int sums_open(const int *devices, void *const *streams, uint32_t n, size_t most, struct sums **ret,
              struct why *why)
{
    struct sums *s = calloc(1, sizeof(*s));
    int r, e;

    (void)most;
    if (!s)
        return why_set(why, -ENOMEM, "no memory for NCCL");
    s->n = n;
    memcpy(s->streams, streams, n * sizeof(*streams));
    r = find_library(s, why);
    if (r == 0)
        r = find_functions(s, why);
    if (r == 0) {
        /* All ranks by one thread: the only way that needs no second process or thread to meet it.
         */
        e = s->init_all(s->comms, (int)n, devices);
        if (e != NCCL_SUCCESS) {
            /* What a failed call has left there is not ours to give back. */
            memset(s->comms, 0, sizeof(s->comms));
            r = why_set(why, -ENODEV,
                        "NCCL does not start on these devices: %.100s (NCCL_DEBUG=WARN in the "
                        "environment says more); or use --split-mode layer",
                        s->error(e));
        }
    }
    if (r < 0) {
        sums_close(s);
        return r;
    }
    *ret = s;
    return 0;
}

/* Only of devices that work: destroying finishes what is queued. Others are aborted first. */
void sums_close(struct sums *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; i < s->n; i++)
        if (s->comms[i])
            (void)s->destroy(s->comms[i]);
    if (s->lib)
        (void)dlclose(s->lib);
    free(s);
}

/* One after the other by this thread: each has a flag that its kernels look at, and they are freed
 * with the last. */
void sums_abort(struct sums *s)
{
    for (uint32_t i = 0; i < s->n; i++) {
        if (s->comms[i])
            (void)s->abort(s->comms[i]);
        s->comms[i] = NULL;
    }
}

int sums_run(struct sums *s, float *const *y, size_t n_values)
{
    /* In one group: without it the first call could wait for the second device's, which this thread
     * has not made yet. */
    int e = s->comms[0] ? s->group_start() : -1, end;

    if (e != NCCL_SUCCESS)
        return -EIO;
    for (uint32_t i = 0; i < s->n && e == NCCL_SUCCESS; i++)
        e = s->all_reduce(y[i], y[i], n_values, NCCL_FLOAT32, NCCL_SUM, s->comms[i], s->streams[i]);
    /* In any case, or the next group would be a part of this one. */
    end = s->group_end();
    return e == NCCL_SUCCESS && end == NCCL_SUCCESS ? 0 : -EIO;
}
