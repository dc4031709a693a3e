/* Work, as lanes do it. To TSan a lane is a fibre that receives the host's state with each op, and
 * other lanes' by events alone; a kernel's threads receive the lane's, those of a kernel that may
 * begin early only at grid_wait():
 *
 *     copy   kernel 1   kernel 2   kernel 3        2 and 3 begin with what was there before 1, and
 *            ^ before   '- early   '- early        wait for all that came in between
 */
#include "cuda/shim/runtime.h"

#include <stdlib.h>
#include <string.h>

/* Returns who goes on when the lane's work is done. */
static void *lane_enter(struct lane *l)
{
#ifdef SHIM_TSAN
    void *was = __tsan_get_current_fiber();

    if (!l->tsan)
        l->tsan = __tsan_create_fiber(0);
    __tsan_switch_to_fiber(l->tsan, 1);
    return was;
#else
    return l;
#endif
}

static void lane_leave(void *was)
{
#ifdef SHIM_TSAN
    __tsan_switch_to_fiber(was, 1);
#else
    (void)was;
#endif
}

/* Two machines from the start: a kernel that begins early may not wait for one to be made. */
static void need_machines(struct lane *l)
{
    for (unsigned i = 0; i < 2; i++) {
        if (!l->machines[i])
            l->machines[i] = machine_new();
        if (!l->machines[i])
            shim_fail("no memory for threads");
    }
}

/* The two machines take turns, so that a kernel that begins early has threads beside those of the
 * one before it. */
static void run_kernel(struct lane *l, struct op *op)
{
    struct machine_launch launch = op->launch;

    SYNC_RELEASE(&l->after);
    launch.arg = op->arg;
    launch.backwards = shim_is_backwards();
    launch.host = &op->host;
    /* What its threads know when they begin: of a kernel behind a kernel, what was there before
     * both. */
    launch.before = l->kernel_before ? &l->before : &l->after;
    launch.after = &l->after;
    l->turn ^= 1;
    machine_run(l->machines[l->turn], &launch);
}

/* memmove by code that TSan does not see: what is read and written is said to it. */
static void run_copy(const struct op *op)
{
#ifdef SHIM_TSAN
    __tsan_read_range((void *)(uintptr_t)op->from, op->n);
    __tsan_write_range(op->to, op->n);
#endif
    memmove(op->to, op->from, op->n);
}

static void run_set(const struct op *op)
{
#ifdef SHIM_TSAN
    __tsan_write_range(op->to, op->n);
#endif
    memset(op->to, op->byte, op->n);
}

static void run_wait(const struct op *op)
{
    if (op->record)
        SYNC_ACQUIRE(&op->record->mark);
    else
        SYNC_ACQUIRE(&op->event->sync);
}

static void run_in(struct lane *l, struct op *op)
{
    switch (op->kind) {
    /* Memory that its device has no way to is closed meanwhile. */
    case OP_KERNEL:
        memory_show(l->device);
        run_kernel(l, op);
        break;
    case OP_COPY:
        memory_show_copy(op->to, op->from);
        run_copy(op);
        break;
    case OP_SET:
        memory_show_copy(op->to, NULL);
        run_set(op);
        break;
    case OP_HOST: /* it may compute for the device: a library's product */
        memory_show(l->device);
        op->host_fn(op->host_arg);
        break;
    case OP_RECORD:
        SYNC_RELEASE(op->event ? &op->event->sync : &op->mark);
        break;
    case OP_WAIT:
        run_wait(op);
        break;
    case OP_GRAPH:
        graph_run(l, op->graph);
        break;
    }
}

void op_run(struct lane *l, struct op *op)
{
    void *was;

    /* Nothing is done any more. Host functions are called for what they free, which CUDA does not
     * do behind an error; marks are reached, so that nobody waits for ever. */
    if (shim_is_lost() && op->kind != OP_HOST && op->kind != OP_RECORD)
        return;
    /* Another lane's work, first: it runs on its own. */
    if (op->kind == OP_WAIT && op->of)
        stream_run_until(op->of, op->seq);
    was = lane_enter(l);
    need_machines(l);
    SYNC_ACQUIRE(&op->host);
    if (op->kind != OP_KERNEL || !l->kernel_before)
        SYNC_RELEASE(&l->before);
    run_in(l, op);
    l->kernel_before = op->kind == OP_KERNEL;
    SYNC_RELEASE(&l->done);
    lane_leave(was);
}

/* Branch 0 is the lane that it is launched in. */
void graph_run(struct lane *l, struct CUgraphExec_st *x)
{
    l->kernel_before = false;
    for (struct op *op = x->first; op; op = op->next) {
        struct lane *in = op->branch ? &x->lanes[op->branch] : l;

        in->device = l->device;
        SYNC_RELEASE(&op->host);
        op_run(in, op);
    }
}

void lane_acquire(struct lane *l)
{
    SYNC_ACQUIRE(&l->done);
}

void lane_fini(struct lane *l)
{
    for (unsigned i = 0; i < 2; i++) {
        machine_free(l->machines[i]);
        l->machines[i] = NULL;
    }
#ifdef SHIM_TSAN
    if (l->tsan)
        __tsan_destroy_fiber(l->tsan);
    l->tsan = NULL;
#endif
}
