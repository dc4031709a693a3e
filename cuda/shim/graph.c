/* Graphs: what streams were given while they captured, to be done again and again.
 *
 * A graph is a list of ops in the order of the calls, each with the branch of its stream. Waits
 * point to the marks that they wait for, in the same list and before them. */
#include "cuda/shim/runtime.h"

#include <stdlib.h>
#include <string.h>

/* Any mode: nobody else uses the stream meanwhile. */
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    cudaError_t e = shim_enter();
    struct CUstream_st *s = stream_of(stream);
    struct CUgraph_st *g;

    (void)mode;
    if (e != cudaSuccess)
        return shim_leave(e);
    if (!stream || s->capture) /* the default stream can't be captured */
        return shim_leave(cudaErrorStreamCaptureUnsupported);
    g = calloc(1, sizeof(*g));
    if (!g)
        return shim_leave(cudaErrorMemoryAllocation);
    g->last = &g->first;
    /* Branch 0 is the stream that it is launched in; others join by waiting for it. */
    g->n_branches = 1;
    g->origin = s;
    s->capture = g;
    s->branch = 0;
    return shim_leave(e);
}

/* The last op of each branch is a mark that somebody waits for. Else work would be under way behind
 * the graph's end, and nobody could wait for it. */
static bool joined(const struct CUgraph_st *g)
{
    /* By branch; branch 0 need not be joined. */
    const struct op *last[BRANCHES_MAX] = { NULL };

    for (const struct op *op = g->first; op; op = op->next)
        last[op->branch] = op;
    for (unsigned b = 1; b < g->n_branches; b++) {
        const struct op *op = g->first;

        while (op && !(op->kind == OP_WAIT && op->record == last[b]))
            op = op->next;
        if (!op)
            return false;
    }
    return true;
}

static void free_ops(struct op *op)
{
    while (op) {
        struct op *next = op->next;

        op_free(op);
        op = next;
    }
}

/* Of every stream that took part. Streams go on as usual. */
static void end_capture(struct CUgraph_st *g)
{
    struct CUstream_st *s = NULL;

    while ((s = stream_next(s)))
        if (s->capture == g)
            s->capture = NULL;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *ret)
{
    cudaError_t e = shim_enter();
    struct CUstream_st *s = stream_of(stream);
    struct CUgraph_st *g = s->capture;

    /* A lost device's capture is ended all the same, as its stream would stay in it. */
    if (e != cudaSuccess && !g)
        return shim_leave(e);
    if (!g || g->origin != s)
        return shim_leave(cudaErrorStreamCaptureUnmatched);
    end_capture(g);
    if (e == cudaSuccess && !joined(g))
        e = cudaErrorStreamCaptureUnjoined;
    if (e != cudaSuccess) {
        free_ops(g->first);
        free(g);
        return shim_leave(e);
    }
    /* Ops belong to the graph from here on. */
    *ret = g;
    return shim_leave(e);
}

cudaError_t cudaGraphDestroy(cudaGraph_t g)
{
    cudaError_t e = shim_enter();

    if (g)
        free_ops(g->first);
    free(g);
    return shim_leave(e);
}

/* A copy, whose waits point to the copies of their marks: those come first. So that the graph may
 * be destroyed while its copies run. */
static struct op *copy_ops(struct CUgraph_st *g)
{
    struct op *first = NULL, **last = &first;

    for (struct op *op = g->first; op; op = op->next) {
        /* With its arguments, as the caller's are gone. */
        struct op *to = op_new(op->kind, op->arg_len);

        copy_unseen(to, op, sizeof(*op) + op->arg_len);
        to->next = NULL;
        if (op->record)
            to->record = op->record->copied;
        op->copied = to;
        *last = to;
        last = &to->next;
    }
    return first;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *ret, cudaGraph_t g, unsigned long long flags)
{
    cudaError_t e = shim_enter();
    struct CUgraphExec_st *x;

    (void)flags;
    if (e != cudaSuccess)
        return shim_leave(e);
    x = calloc(1, sizeof(*x));
    if (!x)
        return shim_leave(cudaErrorMemoryAllocation);
    x->first = copy_ops(g);
    *ret = x;
    return shim_leave(e);
}

/* Arguments may differ, kernels and their order may not. */
static bool same_shape(const struct op *a, const struct op *b)
{
    for (; a && b; a = a->next, b = b->next)
        if (a->kind != b->kind || a->branch != b->branch || a->launch.fn != b->launch.fn ||
            a->arg_len != b->arg_len)
            return false;
    return !a && !b;
}

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t x, cudaGraph_t g,
                                cudaGraphExecUpdateResultInfo *ret)
{
    cudaError_t e = shim_enter();

    /* As CUDA has it: then the caller instantiates anew. */
    if (e == cudaSuccess && !same_shape(x->first, g->first))
        e = cudaErrorGraphExecUpdateFailure;
    if (ret)
        ret->result = e != cudaSuccess;
    if (e == cudaSuccess) {
        streams_finish(); /* launches that are queued are those of before */
        free_ops(x->first);
        x->first = copy_ops(g);
    }
    return shim_leave(e);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x)
{
    cudaError_t e = shim_enter();

    if (!x)
        return shim_leave(e);
    streams_finish();
    free_ops(x->first);
    /* Branches have lanes of their own, with their machines. */
    for (unsigned i = 0; i < BRANCHES_MAX; i++)
        lane_fini(&x->lanes[i]);
    free(x);
    return shim_leave(e);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t stream)
{
    cudaError_t e = shim_enter();
    struct op *op;

    if (e == cudaSuccess) {
        op = op_new(OP_GRAPH, 0);
        /* It stays the caller's, who keeps it until it has run. */
        op->graph = x;
        op_queue(stream_of(stream), op);
    }
    return shim_leave(e);
}
