/* store/io_ops.h - what stands behind store/io.h: a table of functions, and what all tables share.
 *
 * Only those who implement it include this: store/io_*.c, and tests with one of their own
 * (tests/support/io_faulty.h). An implementation's struct begins with a struct io, which its open
 * fills in.
 *
 * store/io.c counts what is out, so `queue` always has room, and a slot is free again when `reap`
 * has given its result away.
 *
 * Threads    as store/io.h: all functions are called by the one thread that opened it.
 */
#ifndef STORE_IO_OPS_H
#define STORE_IO_OPS_H

#include "store/io.h"

struct io_ops {
    const char *name;
    void (*close)(struct io *io);
    int (*add_memory)(struct io *io, void *mem, size_t len);
    void (*drop_memory)(struct io *io);
    void (*queue)(struct io *io, const struct io_op *op);
    int (*submit)(struct io *io);
    uint32_t (*reap)(struct io *io, struct io_done *ret, uint32_t cap);
    int (*wait)(struct io *io);
    void (*cancel)(struct io *io, uint64_t cookie);
    void (*drain)(struct io *io);
};

struct io {
    const struct io_ops *ops;
    uint32_t depth, n_out; /* n_out: queued and not yet reaped */
    int event;             /* what io_eventfd gives */
    char why[WHY_MAX];
};

#define IO_DEPTH_DEFAULT   256u
#define IO_DEPTH_MAX       4096u
#define IO_THREADS_DEFAULT 4u
#define IO_THREADS_MAX     64u
#define IO_PIECES_MAX      8u /* of memory, by io_register */

int io_open_uring(const struct io_options *o, struct io **ret, struct why *why);
int io_open_threads(const struct io_options *o, struct io **ret, struct why *why);

/* --- transfers: how one goes on behind a short one ---------------------------------------------*/

#define IO_PIECE_MAX ((size_t)1 << 30) /* of one system call: the kernel takes 2^31 - 4096 */

static inline bool io_is_transfer(const struct io_op *op)
{
    return op->code == IO_READ || op->code == IO_WRITE;
}

bool io_wants_blocks(int fd); /* it has O_DIRECT */
/* Where in op's memory the next system call starts when `done` bytes are there, and its length. */
size_t io_next_piece(const struct io_op *op, size_t done, size_t *ret_len);
/* That call gave n (bytes or -errno). True: it was the last, *ret_result is the operation's. */
bool io_piece_done(const struct io_op *op, size_t *done, int64_t n, int64_t *ret_result);
/* Whether what is linked behind op may begin. */
bool io_succeeded(const struct io_op *op, int64_t result);
/* Nobody will hear of that result: a descriptor that it opened is closed. */
void io_forget(const struct io_op *op, int64_t result);

#endif
