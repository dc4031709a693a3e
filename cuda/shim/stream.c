/* Queues of work, and events. An op has a number in its stream; an event is the number of the op
 * that records it.
 *
 * Either an op is done when it is queued, or (shim_set_late) when somebody waits or looks: both are
 * what CUDA may do. A stream that waits for another one's event does that one's work first, so all
 * comes in an order that events allow, by the thread that asked. */
#include "cuda/shim/runtime.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Never freed: an event that was recorded in one may be asked after it is gone. */
static struct CUstream_st *streams;
static struct CUstream_st default_streams[SHIM_DEVICES];

/* To TSan nobody's memory: who frees an op has not waited for its kernel's threads, who read their
 * arguments there. */
struct op *op_new(enum op_kind kind, size_t arg_len)
{
    size_t len = sizeof(struct op) + arg_len;
    struct op *op;

/* By a system call that TSan does not see. */
#ifdef SHIM_TSAN
    op = (void *)syscall(SYS_mmap, NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                         -1, 0L);
    if (op == MAP_FAILED)
        op = NULL;
#else
    op = calloc(1, len);
#endif
    if (!op)
        shim_fail("no memory for a stream's work");
    op->kind = kind;
    op->arg_len = arg_len;
    return op;
}

void op_free(struct op *op)
{
#ifdef SHIM_TSAN
    syscall(SYS_munmap, op, sizeof(*op) + op->arg_len);
#else
    free(op);
#endif
}

/* The default stream is the current device's. */
struct CUstream_st *stream_of(cudaStream_t s)
{
    if (!s) {
        s = &default_streams[shim_device()];
        s->lane.device = shim_device();
    }
    if (!s->last)
        s->last = &s->first;
    if (s->free)
        shim_fail("a stream is used that was destroyed");
    return s;
}

/* --- doing ------------------------------------------------------------------------------------ */

/* Taken out before it is done: what it waits for may come back to this stream. */
void stream_run_until(struct CUstream_st *s, uint64_t seq)
{
    while (s->n_done < seq && s->first) {
        struct op *op = s->first;

        s->first = op->next;
        if (!s->first)
            s->last = &s->first;
        op_run(&s->lane, op);
        s->n_done++;
        op_free(op);
    }
}

static void run_all(struct CUstream_st *s)
{
    stream_run_until(s, s->n_queued);
}

/* NULL: the first; the default streams, then the others, then NULL. */
struct CUstream_st *stream_next(struct CUstream_st *s)
{
    struct CUstream_st *last = &default_streams[SHIM_DEVICES - 1];

    return !s                                 ? default_streams
           : s >= default_streams && s < last ? s + 1
           : s == last                        ? streams
                                              : s->next;
}

/* What frees or destroys comes behind everything. */
void streams_finish(void)
{
    struct CUstream_st *s = NULL;

    while ((s = stream_next(s)))
        run_all(s);
}

void op_queue(struct CUstream_st *s, struct op *op)
{
    /* Noted in the graph and not done. Ops of all its streams are in one list, which knows their
     * branches. */
    if (s->capture) {
        op->branch = s->branch;
        *s->capture->last = op;
        s->capture->last = &op->next;
        return;
    }
    /* What the host has written until now the op may read. */
    SYNC_RELEASE(&op->host);
    *s->last = op;
    s->last = &op->next;
    s->n_queued++;
    if (!shim_is_late())
        run_all(s);
}

/* A call that waits: the host receives what the stream did. */
static cudaError_t end_of_call(struct CUstream_st *s, cudaError_t if_capturing)
{
    if (s->capture)
        return if_capturing;
    run_all(s);
    lane_acquire(&s->lane);
    return cudaSuccess;
}

/* --- streams ---------------------------------------------------------------------------------- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *ret, unsigned flags)
{
    cudaError_t e = shim_enter();
    struct CUstream_st *s = streams;

    (void)flags;
    /* A destroyed one is used again, with its place in the list. */
    while (s && !s->free)
        s = s->next;
    if (e == cudaSuccess && !s) {
        s = calloc(1, sizeof(*s));
        if (!s)
            return shim_leave(cudaErrorMemoryAllocation);
        s->next = streams;
        streams = s;
    }
    if (e == cudaSuccess) {
        s->free = false;
        s->lane.device = shim_device();
        *ret = s;
    }
    return shim_leave(e);
}

cudaError_t cudaStreamCreate(cudaStream_t *ret)
{
    return cudaStreamCreateWithFlags(ret, cudaStreamDefault);
}

/* The host does not receive what the stream did: on a device it goes on behind its end. */
cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    cudaError_t e = shim_enter();

    run_all(stream_of(s));
    lane_fini(&s->lane);
    s->lane = (struct lane){ 0 };
    s->free = true;
    return shim_leave(e);
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    cudaError_t e = shim_enter();

    if (e == cudaSuccess)
        e = end_of_call(stream_of(s), cudaErrorStreamCaptureUnsupported);
    return shim_leave(e);
}

/* Something is done at each look, so that who polls comes to an end. A device makes progress by
 * itself; here somebody has to. */
static cudaError_t look(struct CUstream_st *s, uint64_t seq)
{
    if (s->n_done < seq)
        stream_run_until(s, s->n_done + 1);
    return s->n_done < seq ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t s)
{
    cudaError_t e = shim_enter();

    s = stream_of(s);
    if (e == cudaSuccess)
        e = s->capture ? cudaErrorStreamCaptureUnsupported : look(s, s->n_queued);
    if (e == cudaSuccess)
        lane_acquire(&s->lane);
    return shim_leave(e);
}

cudaError_t cudaDeviceSynchronize(void)
{
    cudaError_t e = shim_enter();
    struct CUstream_st *s = NULL;

    streams_finish();
    while (e == cudaSuccess && (s = stream_next(s)))
        if (s->lane.device == shim_device())
            lane_acquire(&s->lane);
    return shim_leave(e);
}

cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t fn, void *arg)
{
    cudaError_t e = shim_enter();
    struct op *op;

    /* Functions and kernels are of the device that is current; copies and events are their
     * stream's. */
    if (e == cudaSuccess && stream_of(s)->lane.device != shim_device())
        e = cudaErrorInvalidResourceHandle;
    if (e == cudaSuccess) {
        op = op_new(OP_HOST, 0);
        op->host_fn = fn;
        op->host_arg = arg;
        op_queue(stream_of(s), op);
    }
    return shim_leave(e);
}

static cudaError_t check_launch(const struct shim_dim *grid, const struct shim_dim *dim,
                                size_t shared)
{
    uint64_t n = (uint64_t)dim->x * dim->y * dim->z;

    if (n == 0 || n > SHIM_THREADS_MAX || shared > SHIM_SHARED_MAX)
        return cudaErrorInvalidConfiguration;
    if (grid->x == 0 || grid->x > 0x7fffffff || grid->y == 0 || grid->y > 65535 || grid->z == 0 ||
        grid->z > 65535)
        return cudaErrorInvalidConfiguration;
    return cudaSuccess;
}

int shim_launch(void *stream, struct shim_dim grid, struct shim_dim dim, size_t shared,
                void (*fn)(const void *arg), const void *arg, size_t arg_len)
{
    cudaError_t e = shim_enter();
    struct op *op;

    if (e == cudaSuccess)
        e = check_launch(&grid, &dim, shared);
    if (e == cudaSuccess && stream_of(stream)->lane.device != shim_device())
        e = cudaErrorInvalidResourceHandle; /* cudaSetDevice is a thread's */
    if (e == cudaSuccess) {
        op = op_new(OP_KERNEL, arg_len);
        op->launch =
            (struct machine_launch){ .grid = grid, .dim = dim, .shared = shared, .fn = fn };
        /* By value: the caller's arguments are gone when it runs. */
        copy_unseen(op->arg, arg, arg_len);
        op_queue(stream_of(stream), op);
    }
    return (int)shim_leave(e);
}

/* --- copies ----------------------------------------------------------------------------------- */

/* When host memory is read or written that is not pinned CUDA leaves open: before the call returns,
 * or late, as any other work. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    cudaError_t e = shim_enter();
    /* staged: read before the call returns, as CUDA does with small pieces. */
    bool pageable = shim_is_pageable(from), staged = pageable && !shim_is_late();
    struct CUstream_st *s = stream_of(stream);
    struct op *op;

    (void)kind;
    if (e != cudaSuccess)
        return shim_leave(e);
    /* A graph would read it when it is long gone. */
    if (s->capture && (pageable || shim_is_pageable(to)))
        return shim_leave(cudaErrorStreamCaptureUnsupported);
    op = op_new(OP_COPY, staged ? n : 0);
    op->to = to;
    op->from = staged ? op->arg : from;
    op->n = n;
    if (staged)
        copy_unseen(op->arg, from, n);
    op_queue(s, op);
    /* To memory that is not pinned a copy is there when the call returns, mostly. */
    if (shim_is_pageable(to) && !shim_is_late())
        e = end_of_call(s, cudaErrorStreamCaptureUnsupported);
    return shim_leave(e);
}

/* Other memory than those devices' is an error, so that a wrong address is found. */
cudaError_t cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device,
                                size_t n, cudaStream_t stream)
{
    cudaError_t e = shim_enter();
    bool are =
        e == cudaSuccess && memory_is_of(to_device, to, n) && memory_is_of(from_device, from, n);

    (void)shim_leave(cudaSuccess);
    if (e == cudaSuccess && !are)
        return cudaErrorInvalidValue;
    /* As behind an IOMMU: other bytes, and no error. */
    if (shim_is_astray())
        return cudaMemsetAsync(to, 0xa5, n, stream);
    return cudaMemcpyAsync(to, from, n, cudaMemcpyDeviceToDevice, stream);
}

cudaError_t cudaMemsetAsync(void *to, int byte, size_t n, cudaStream_t s)
{
    cudaError_t e = shim_enter();
    struct op *op;

    if (e == cudaSuccess) {
        op = op_new(OP_SET, 0);
        op->to = to;
        op->byte = byte;
        op->n = n;
        op_queue(stream_of(s), op);
    }
    return shim_leave(e);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t n, enum cudaMemcpyKind kind)
{
    cudaError_t e = cudaMemcpyAsync(to, from, n, kind, NULL);

    return e == cudaSuccess ? cudaStreamSynchronize(NULL) : e;
}

cudaError_t cudaMemset(void *to, int byte, size_t n)
{
    cudaError_t e = cudaMemsetAsync(to, byte, n, NULL);

    return e == cudaSuccess ? cudaStreamSynchronize(NULL) : e;
}

/* --- events ----------------------------------------------------------------------------------- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *ret, unsigned flags)
{
    cudaError_t e = shim_enter();

    (void)flags;
    if (e == cudaSuccess) {
        *ret = calloc(1, sizeof(**ret));
        e = *ret ? cudaSuccess : cudaErrorMemoryAllocation;
    }
    if (e == cudaSuccess)
        (*ret)->device = shim_device();
    return shim_leave(e);
}

cudaError_t cudaEventCreate(cudaEvent_t *ret)
{
    return cudaEventCreateWithFlags(ret, cudaEventDefault);
}

/* Whoever still is to wait for it does so now: nobody may notice that it is gone. */
cudaError_t cudaEventDestroy(cudaEvent_t ev)
{
    cudaError_t e = shim_enter();

    streams_finish();
    free(ev);
    return shim_leave(e);
}

cudaError_t cudaEventRecord(cudaEvent_t ev, cudaStream_t stream)
{
    cudaError_t e = shim_enter();
    struct CUstream_st *s = stream_of(stream);
    struct op *op;

    if (e == cudaSuccess && ev->device != s->lane.device)
        e = cudaErrorInvalidResourceHandle;
    if (e != cudaSuccess)
        return shim_leave(e);
    op = op_new(OP_RECORD, 0);
    if (s->capture) {
        ev->capture = s->capture;
        ev->record = op;
    } else {
        op->event = ev;
        /* An event is where its stream was when it was recorded last. */
        ev->of = s;
        ev->seq = s->n_queued + 1;
        ev->capture = NULL;
    }
    op_queue(s, op);
    return shim_leave(e);
}

/* A stream that waits for an event of a capture joins it, as a branch of its graph. */
static cudaError_t wait_in_graph(struct CUstream_st *s, struct CUevent_st *ev)
{
    struct op *op;

    if (!s->capture) {
        if (ev->capture->n_branches == BRANCHES_MAX)
            return cudaErrorNotSupported;
        s->capture = ev->capture;
        s->branch = ev->capture->n_branches++;
    }
    if (s->capture != ev->capture)
        return cudaErrorStreamCaptureUnmatched;
    op = op_new(OP_WAIT, 0);
    op->record = ev->record;
    op_queue(s, op);
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t ev, unsigned flags)
{
    cudaError_t e = shim_enter();
    struct CUstream_st *s = stream_of(stream);
    struct op *op;

    (void)flags;
    /* An event that was never recorded holds nobody up. */
    if (e != cudaSuccess || (!ev->of && !ev->capture))
        return shim_leave(e);
    if (ev->capture)
        return shim_leave(wait_in_graph(s, ev));
    if (s->capture)
        return shim_leave(cudaErrorStreamCaptureUnsupported);
    op = op_new(OP_WAIT, 0);
    op->event = ev;
    /* As it is now: recorded again later, it is still this mark that is waited for. */
    op->of = ev->of;
    op->seq = ev->seq;
    op_queue(s, op);
    return shim_leave(e);
}

cudaError_t cudaEventQuery(cudaEvent_t ev)
{
    cudaError_t e = shim_enter();

    if (e == cudaSuccess && ev->capture)
        e = cudaErrorStreamCaptureUnsupported;
    if (e == cudaSuccess && ev->of)
        e = look(ev->of, ev->seq);
    if (e == cudaSuccess)
        SYNC_ACQUIRE(&ev->sync);
    return shim_leave(e);
}

cudaError_t cudaEventSynchronize(cudaEvent_t ev)
{
    cudaError_t e = shim_enter();

    if (e == cudaSuccess && ev->capture)
        e = cudaErrorStreamCaptureUnsupported;
    if (e == cudaSuccess && ev->of) {
        stream_run_until(ev->of, ev->seq);
        SYNC_ACQUIRE(&ev->sync);
    }
    return shim_leave(e);
}
