/* store/ops.h - operations on their way through the io, each with who is told of its result.
 *
 * Threads    one.
 * Ownership  borrows the io, and is the only one that reaps it.
 * Errors     results are the io's. What the io does not take comes back at the next ops_reap with
 *            its reason, as anything that failed.
 */
#ifndef STORE_OPS_H
#define STORE_OPS_H

#include "store/io.h"

#define OPS_MAX 256u

typedef void ops_fn(void *job, uint32_t what, int64_t result);

struct ops_slot {
    ops_fn *fn;     /* NULL: it is free */
    uint64_t at_ns; /* when it was queued */
    void *job;
    uint32_t what, next;
    int refused; /* by io_queue; 0: it is out */
};

struct ops {
    struct io *io;
    uint32_t n, n_out, n_refused, first_free;
    bool queued; /* since the last submit */
    struct ops_slot slot[OPS_MAX];
};

void ops_open(struct ops *o, struct io *io);

/* n more may be out. Writers leave a quarter to who reads: somebody waits for that. */
static inline bool ops_room(const struct ops *o, uint32_t n)
{
    return o->n_out + n <= o->n;
}
static inline bool ops_room_to_write(const struct ops *o, uint32_t n)
{
    return o->n_out + n <= o->n - o->n / 4;
}
/* There is room. The cookie is ours. */
void ops_queue(struct ops *o, const struct io_op *op, ops_fn *fn, void *job, uint32_t what);
/* Hands over what was queued; false: the io did not take it, ask again later. */
bool ops_submit(struct ops *o);
/* Tells whom it concerns of what came back: how many. */
uint32_t ops_reap(struct ops *o);
/* Waits for one at least, or returns at once when nothing is out. */
void ops_wait(struct ops *o);
/* When the one that is out for the longest was queued (store/when.h); UINT64_MAX: none is out. */
uint64_t ops_oldest_ns(const struct ops *o);
/* One operation, waited for; others are told of theirs meanwhile. */
int64_t ops_run(struct ops *o, const struct io_op *op);

#endif
