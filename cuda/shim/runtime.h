/* cuda/shim/runtime.h - streams as queues of work, inside the shim.
 *
 *     stream, or a branch of a graph --> lane: who does the work, a fibre to TSan
 *     op: a kernel, a copy, a mark of an event ...   queued, or held by a graph
 *
 * Work is done when it is queued, or (shim_set_late) when somebody waits for it. Either way its
 * lane receives only what the host and events give it.
 *
 * Threads    all of it under shim_enter.
 */
#ifndef CUDA_SHIM_RUNTIME_H
#define CUDA_SHIM_RUNTIME_H

#include "cuda/shim/cuda_runtime_api.h"
#include "cuda/shim/machine.h"

/* What does work, one op after the other. */
struct lane {
    int device;
    struct machine *machines[2];
    unsigned turn;
    bool kernel_before; /* the last op was a kernel: the next may begin early */
    void *tsan;
    char before, after, done; /* syncs, see machine.h; done: of the whole lane */
};

enum op_kind { OP_KERNEL, OP_COPY, OP_SET, OP_HOST, OP_RECORD, OP_WAIT, OP_GRAPH };

struct op {
    struct op *next;
    enum op_kind kind;
    unsigned branch;          /* of a graph */
    char host;                /* sync: what the host had done when it queued it */
    struct CUevent_st *event; /* RECORD, WAIT */
    struct CUstream_st *of;   /* WAIT: what the event was recorded in, and after which op */
    uint64_t seq;
    const struct op *record; /* WAIT of a graph */
    char mark;               /* RECORD of a graph: a sync */
    struct CUgraphExec_st *graph;
    void *to;
    const void *from;
    size_t n;
    int byte;
    cudaHostFn_t host_fn;
    void *host_arg;
    struct machine_launch launch;
    size_t arg_len;
    struct op *copied; /* while a graph is: what it became */
    _Alignas(16) unsigned char arg[];
};

struct CUstream_st {
    struct CUstream_st *next; /* of all, also those that were destroyed: they are used again */
    bool free;
    struct lane lane; /* and the stream's device */
    struct op *first, **last;
    uint64_t n_queued, n_done;
    struct CUgraph_st *capture; /* that work goes into; NULL: it is done */
    unsigned branch;
};

struct CUevent_st {
    int device;
    struct CUstream_st *of; /* NULL: never recorded */
    uint64_t seq;
    char sync;
    struct CUgraph_st *capture; /* the record is in this graph */
    struct op *record;
};

struct CUgraph_st {
    struct op *first, **last;
    unsigned n_branches;
    struct CUstream_st *origin;
};

#define BRANCHES_MAX 8u
struct CUgraphExec_st {
    struct op *first;
    struct lane lanes[BRANCHES_MAX]; /* [0] is not used: the stream's */
};

/* Begins and ends each call: one at a time. An error that stays: the device is lost. */
cudaError_t shim_enter(void);
cudaError_t shim_leave(cudaError_t e);
bool shim_is_late(void);
bool shim_is_lost(void);
bool shim_is_backwards(void);
bool shim_is_astray(void);
bool shim_is_pageable(const void *mem); /* neither a device's nor pinned */
int shim_device(void);                  /* the calling thread's */
/* Device memory that may be touched now: by what computes on a device, or by the two ends of a
 * copy, whoever has them. */
void memory_show(int device);
void memory_show_copy(const void *to, const void *from);
/* All of [mem, mem + n) is this device's. */
bool memory_is_of(int device, const void *mem, size_t n);

struct op *op_new(enum op_kind kind, size_t arg_len);
void op_free(struct op *op);
/* For this stream's lane, now or later, or into the graph that it captures. Takes op. */
void op_queue(struct CUstream_st *s, struct op *op);
void op_run(struct lane *l, struct op *op);
void lane_fini(struct lane *l);
void lane_acquire(struct lane *l); /* the caller sees all that the lane has done */
void graph_run(struct lane *l, struct CUgraphExec_st *x);

struct CUstream_st *stream_of(cudaStream_t s); /* NULL: the default one */
void stream_run_until(struct CUstream_st *s, uint64_t seq);
struct CUstream_st *stream_next(struct CUstream_st *s); /* NULL: the first; NULL behind the last */
void streams_finish(void);                              /* all that is queued is done */

#endif
