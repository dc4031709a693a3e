/* What all implementations of store/io.h share: limits of the options, the count of what is out,
 * and how a short transfer goes on. */
#include "store/io.h"

#include "store/io_ops.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* Numbers out of range are brought into it, since they come from people. Which implementation is
 * asked for is obeyed: only IO_AUTO goes on to threads when io_uring is denied, and then the reason
 * is kept for io_why. */
int io_open(const struct io_options *o, struct io **ret, struct why *why)
{
    struct io_options opt = *o;
    struct why denied = { "" };
    int r;

    opt.depth = opt.depth ? opt.depth : IO_DEPTH_DEFAULT;
    opt.depth = opt.depth < IO_DEPTH_MAX ? opt.depth : IO_DEPTH_MAX;
    opt.threads = opt.threads ? opt.threads : IO_THREADS_DEFAULT;
    opt.threads = opt.threads < IO_THREADS_MAX ? opt.threads : IO_THREADS_MAX;

    if (opt.kind == IO_THREADS)
        return io_open_threads(&opt, ret, why);
    if (opt.kind == IO_URING)
        return io_open_uring(&opt, ret, why);

    if (io_open_uring(&opt, ret, &denied) == 0)
        return 0;
    r = io_open_threads(&opt, ret, why);
    if (r == 0)
        (void)snprintf((*ret)->why, sizeof((*ret)->why), "%s", denied.text);
    return r;
}

void io_close(struct io *io)
{
    if (io)
        io->ops->close(io);
}

const char *io_name(const struct io *io)
{
    return io->ops->name;
}

const char *io_why(const struct io *io)
{
    return io->why;
}

uint32_t io_depth(const struct io *io)
{
    return io->depth;
}

uint32_t io_room(const struct io *io)
{
    return io->depth - io->n_out;
}

int io_eventfd(const struct io *io)
{
    return io->event;
}

int io_register(struct io *io, void *mem, size_t len)
{
    return io->ops->add_memory(io, mem, len);
}

void io_unregister(struct io *io)
{
    io->ops->drop_memory(io);
}

/* The one place where n_out grows. A slot of an implementation is taken from here until io_reap
 * gives its result away, so `queue` of an implementation always finds one free. */
int io_queue(struct io *io, const struct io_op *op)
{
    assert(op->code < IO_CODE__N);
    if (io->n_out == io->depth)
        return -EAGAIN;
    io->n_out++;
    io->ops->queue(io, op);
    return 0;
}

int io_submit(struct io *io)
{
    return io->ops->submit(io);
}

/* Also with nothing out: a cancel may have left something that makes the descriptor readable. */
uint32_t io_reap(struct io *io, struct io_done *ret, uint32_t cap)
{
    uint32_t n = io->ops->reap(io, ret, cap);

    assert(n <= cap && n <= io->n_out);
    io->n_out -= n;
    return n;
}

int io_wait(struct io *io)
{
    return io->n_out ? io->ops->wait(io) : 0;
}

void io_cancel(struct io *io, uint64_t cookie)
{
    if (io->n_out)
        io->ops->cancel(io, cookie);
}

void io_drain(struct io *io)
{
    if (io->n_out)
        io->ops->drain(io);
}

/* --- transfers -------------------------------------------------------------------------------- */

/* With O_DIRECT an end within a block can't be gone on from: that block is moved once more. */
bool io_wants_blocks(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags >= 0 && flags & O_DIRECT;
}

/* With O_DIRECT, the piece after a short transfer begins at the start of the block in which that
 * one ended. It overlaps what was moved already, which is harmless: a read gets the same bytes
 * again, a write writes them again. */
size_t io_next_piece(const struct io_op *op, size_t done, size_t *ret_len)
{
    size_t at = done, left;

    if (at % IO_ALIGN && io_wants_blocks(op->fd))
        at -= at % IO_ALIGN;
    left = op->len - at;
    *ret_len = left < IO_PIECE_MAX ? left : IO_PIECE_MAX;
    return at;
}

/* `n` is counted from where the piece began, not from `*done`: the two differ by what io_next_piece
 * went back. */
bool io_piece_done(const struct io_op *op, size_t *done, int64_t n, int64_t *ret_result)
{
    size_t len, end = io_next_piece(op, *done, &len);

    if (n < 0) {
        *ret_result = n;
        return true;
    }
    end += (size_t)n;
    if (end >= op->len) {
        *ret_result = (int64_t)op->len;
        return true;
    }
    /* Nothing new: the file ends here, or a full disk that doesn't say so. */
    if (end <= *done) {
        *ret_result = op->code == IO_READ ? (int64_t)*done : -ENOSPC;
        return true;
    }
    *done = end;
    return false;
}

/* A read that ended early breaks its chain too: what is linked behind it relies on all of len. */
bool io_succeeded(const struct io_op *op, int64_t result)
{
    return io_is_transfer(op) ? result == (int64_t)op->len : result >= 0;
}

void io_forget(const struct io_op *op, int64_t result)
{
    if (op->code == IO_OPEN && result >= 0)
        (void)close((int)result);
}
