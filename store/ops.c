/* A cookie of the io is the number of a slot here. Free slots are a list through `next`, beginning
 * at first_free.
 *
 * An operation that io_queue refuses keeps its slot and counts as out, so the caller of ops_queue
 * has one way to hear of a failure: the callback, from the next ops_reap. */
#include "store/ops.h"

#include "store/when.h"

#include <assert.h>

#define REAP 64u        /* completions taken by one io_reap */
#define NONE UINT32_MAX /* the end of the list of free slots */

/* An io that is deeper than OPS_MAX is used in part; the slots behind o->n are in no list. */
void ops_open(struct ops *o, struct io *io)
{
    uint32_t depth = io_depth(io);

    *o = (struct ops){ .io = io, .n = depth < OPS_MAX ? depth : OPS_MAX };
    for (uint32_t i = 0; i < OPS_MAX; i++)
        o->slot[i].next = i + 1 < o->n ? i + 1 : NONE;
}

void ops_queue(struct ops *o, const struct io_op *op, ops_fn *fn, void *job, uint32_t what)
{
    struct ops_slot *slot = &o->slot[o->first_free];
    struct io_op out = *op;
    uint32_t at = o->first_free;

    assert(ops_room(o, 1));
    o->first_free = slot->next;
    *slot = (struct ops_slot){ .fn = fn, .at_ns = when_ns(), .job = job, .what = what };
    out.cookie = at;
    o->n_out++;
    slot->refused = io_queue(o->io, &out);
    if (slot->refused < 0)
        o->n_refused++;
    else
        o->queued = true;
}

bool ops_submit(struct ops *o)
{
    if (o->queued && io_submit(o->io) < 0)
        return false;
    o->queued = false;
    return true;
}

/* The slot is free before its owner hears of it: it may queue the next one. */
static void tell(struct ops *o, uint32_t at, int64_t result)
{
    struct ops_slot slot = o->slot[at];

    o->slot[at].refused = 0;
    o->slot[at].fn = NULL;
    o->slot[at].next = o->first_free;
    o->first_free = at;
    o->n_out--;
    slot.fn(slot.job, slot.what, result);
}

/* A callback that queues again may be refused again, into a slot behind or before i. It is told now
 * or by the next ops_reap; the count says whether there is one left. */
static uint32_t tell_refused(struct ops *o)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < o->n && o->n_refused > 0; i++) {
        int refused = o->slot[i].refused;

        if (refused < 0) {
            o->n_refused--;
            tell(o, i, refused);
            n++;
        }
    }
    return n;
}

uint32_t ops_reap(struct ops *o)
{
    struct io_done done[REAP];
    uint32_t n = o->n_refused > 0 ? tell_refused(o) : 0, got;

    /* Also with nothing out: only a look makes the descriptor unreadable again (store/io.h). */
    do {
        got = io_reap(o->io, done, REAP);
        for (uint32_t i = 0; i < got; i++)
            tell(o, (uint32_t)done[i].cookie, done[i].result);
        n += got;
    } while (got == REAP);
    return n;
}

/* With something refused there is something to tell already, and a wait could be for ever: that
 * operation is not out. */
void ops_wait(struct ops *o)
{
    if (o->n_refused == 0 && o->n_out > 0) {
        o->queued = false; /* io_wait submits */
        (void)io_wait(o->io);
    }
    (void)ops_reap(o);
}

/* Looks at all slots: it is asked once a pump, and 256 slots are a few microseconds at most. With a
 * list by age, each operation would pay for it. */
uint64_t ops_oldest_ns(const struct ops *o)
{
    uint64_t oldest = UINT64_MAX;

    for (uint32_t i = 0; i < o->n && o->n_out > 0; i++) {
        if (o->slot[i].fn && o->slot[i].at_ns < oldest)
            oldest = o->slot[i].at_ns;
    }
    return oldest;
}

struct waited {
    bool done;
    int64_t result;
};

static void on_waited(void *job, uint32_t what, int64_t result)
{
    struct waited *w = job;

    (void)what;
    *w = (struct waited){ .done = true, .result = result };
}

/* May be called where others are under way: their callbacks come from inside here. */
int64_t ops_run(struct ops *o, const struct io_op *op)
{
    struct waited w = { 0 };

    while (!ops_room(o, 1))
        ops_wait(o);
    ops_queue(o, op, on_waited, &w, 0);
    while (!w.done)
        ops_wait(o);
    return w.result;
}
