/* tests/support/io_rig.h - an io in a folder of its own, and what came back from it.
 *
 * All functions assert: a call that fails ends the test.
 */
#ifndef TESTS_SUPPORT_IO_RIG_H
#define TESTS_SUPPORT_IO_RIG_H

#include "store/io.h"

#define N_COOKIES 64u       /* cookies are below it */
#define PENDING   INT64_MIN /* a result that has not come back */

struct io_rig {
    struct io *io;
    int folder;
    int64_t got[N_COOKIES];
    uint32_t n_got;
};

/* tests/support/io_faulty.h without a fault, over threads: it must keep every promise too. */
#define IO_RIG_FAULTY ((enum io_kind)(IO_THREADS + 1))

/* io_open's result. */
int io_rig_try(struct io_rig *g, enum io_kind kind, uint32_t depth);
void io_rig_open(struct io_rig *g, enum io_kind kind);
void io_rig_close(struct io_rig *g);

uint32_t io_rig_reap(struct io_rig *g, uint32_t cap);
/* Queues it; its cookie is pending again. */
void io_rig_put(struct io_rig *g, const struct io_op *op);
/* Waits for that one. */
int64_t io_rig_result(struct io_rig *g, uint64_t cookie);
/* An operation of its own: queued, submitted, waited for. */
int64_t io_rig_one(struct io_rig *g, struct io_op op);
bool io_rig_readable(const struct io_rig *g);
void io_rig_wait_readable(const struct io_rig *g);

/* An empty file, open for both. */
int io_rig_file(struct io_rig *g, const char *name, int flags);
char *io_rig_pages(size_t n, char fill); /* free() */

/* An operation that is out for sure: the open of a FIFO, which blocks until someone lets it
 * through. */
void io_rig_gate(struct io_rig *g, struct io_op *ret, uint64_t cookie);
/* Waits until someone stands there. */
void io_rig_let_through(const struct io_rig *g);

/* Runs each on io_uring, threads and IO_RIG_FAULTY; what main returns. */
struct io_rig_test {
    const char *name;
    void (*run)(enum io_kind kind);
};
#define IO_RIG_TESTS_MAX 32u
int io_rig_run(const struct io_rig_test *tests, size_t n);

#endif
