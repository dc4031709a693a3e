/* io_uring, and the only file that knows it. The way of an operation:
 *
 *             queue          submit        hand_over            collect          reap
 *     idle ---------> queued ------> todo ----------> kernel -----------> ready ------> idle
 *          behind a             ^     ^                |                    ^
 *          transfer: ---> held -+     +----------------+ short              |
 *                          |  that came back whole                          |
 *                          +------------------------------------------------+ that one failed
 *
 * Links      The kernel takes a short transfer for a failed one: it would sever the chain, where
 * our contract is that we go on. So what stands behind a read or write is held here until that came
 * back whole, and is handed over by the io_reap that learns it. Behind everything else the kernel
 * links: the sync, rename, sync of a record goes on while the owner computes.
 *
 * Readable   The descriptor to poll is the ring itself: readable just while the completion queue
 * has entries. An eventfd registered with the ring is signalled after the entry is there, so that
 * an owner who reaped in between would find it readable with nothing behind it, again and again, or
 * would have to read it in every io_reap. What is ready without an entry of its own (what a failure
 * cancelled, what did not fit into the caller's array) is announced by a NOP, the bell.
 *
 * Flags      COOP_TASKRUN: completions don't interrupt the owner's computing; a sleeper is woken
 * all the same, and TASKRUN_FLAG tells io_reap that some wait inside the kernel. Not DEFER_TASKRUN:
 * no chain would go on before the next io_reap. Not SQPOLL: a polling kernel thread uses a CPU
 * while nothing happens.
 */
#include "store/io_ops.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define BATCH      64u     /* entries of the completion queue at once */
#define TAG_BELL   (~0ull) /* user_data of what is no operation */
#define TAG_CANCEL (~0ull - 1)
#define MEMORY_MAX 64u /* pieces of at most 1 GiB, which is the kernel's limit */

struct slot {
    struct io_op op;
    struct slot *next;   /* in its list */
    struct slot *behind; /* held until this one came back */
    size_t done;         /* of a transfer, so far */
    int64_t result;
    bool in_kernel, cancelled;
};

struct list {
    struct slot *first, *last;
};

struct uring {
    struct io io;
    struct io_uring ring;
    bool has_ring;
    struct slot *slots;
    struct list idle, queued, todo, ready; /* queued, todo: the first of each chain */
    struct slot *chain;                    /* queued last, and wants another behind it */
    uint32_t n_kernel;
    bool bell, closing;
    struct iovec memory[MEMORY_MAX];
    uint32_t n_memory, n_pieces;
};

static struct uring *uring_of(struct io *io)
{
    return (struct uring *)io; /* its first member */
}

static void list_push(struct list *l, struct slot *s)
{
    s->next = NULL;
    if (l->last)
        l->last->next = s;
    else
        l->first = s;
    l->last = s;
}

static struct slot *list_pop(struct list *l)
{
    struct slot *s = l->first;

    if (!s)
        return NULL;
    l->first = s->next;
    if (!l->first)
        l->last = NULL;
    return s;
}

/* --- what came back --------------------------------------------------------------------------- */

/* s has its result, and what was held behind it goes on, or is cancelled with all behind that. */
static void finish(struct uring *u, struct slot *s, int64_t result)
{
    struct slot *behind = s->behind;
    bool go_on = io_succeeded(&s->op, result) && !u->closing;

    s->behind = NULL;
    s->result = result;
    list_push(&u->ready, s);
    if (behind && go_on) {
        list_push(&u->todo, behind);
        return;
    }
    while (behind) {
        s = behind;
        behind = s->behind;
        s->behind = NULL;
        s->result = -ECANCELED;
        list_push(&u->ready, s);
    }
}

static void came_back(struct uring *u, struct slot *s, int64_t res)
{
    int64_t result = res;
    bool again = false;

    s->in_kernel = false;
    u->n_kernel--;
    if (io_is_transfer(&s->op))
        again = res == -EINTR || res == -EAGAIN || !io_piece_done(&s->op, &s->done, res, &result);
    if (again && !s->cancelled && !u->closing) {
        list_push(&u->todo, s);
        return;
    }
    /* Nothing but a cancel interrupts the kernel's own threads; -512 to -516 are its own codes for
     * that, which no system call would show. */
    if (again || (s->cancelled && (res == -EINTR || (res <= -512 && res >= -516))))
        result = -ECANCELED;
    finish(u, s, result);
}

/* Takes all entries of the completion queue. */
static void collect(struct uring *u)
{
    struct io_uring_cqe *cqes[BATCH];
    unsigned n;

    while ((n = io_uring_peek_batch_cqe(&u->ring, cqes, BATCH))) {
        for (unsigned i = 0; i < n; i++) {
            uint64_t tag = cqes[i]->user_data;

            if (tag == TAG_BELL)
                u->bell = false;
            else if (tag != TAG_CANCEL)
                came_back(u, &u->slots[tag], cqes[i]->res);
        }
        io_uring_cq_advance(&u->ring, n);
    }
}

/* --- handing over ----------------------------------------------------------------------------- */

static int registered(const struct uring *u, const char *mem, size_t len)
{
    for (uint32_t i = 0; i < u->n_memory; i++) {
        const char *base = u->memory[i].iov_base;

        if (mem >= base && mem + len <= base + u->memory[i].iov_len)
            return (int)i;
    }
    return -1;
}

static void prepare_transfer(struct uring *u, struct io_uring_sqe *sqe, const struct slot *s)
{
    const struct io_op *op = &s->op;
    size_t len, at = io_next_piece(op, s->done, &len);
    char *mem = (char *)op->mem + at;
    uint64_t off = op->off + at;
    int piece = registered(u, mem, len);

    if (op->code == IO_READ && piece >= 0)
        io_uring_prep_read_fixed(sqe, op->fd, mem, (unsigned)len, off, piece);
    else if (op->code == IO_READ)
        io_uring_prep_read(sqe, op->fd, mem, (unsigned)len, off);
    else if (piece >= 0)
        io_uring_prep_write_fixed(sqe, op->fd, mem, (unsigned)len, off, piece);
    else
        io_uring_prep_write(sqe, op->fd, mem, (unsigned)len, off);
}

/* A folder's entries are no data of it: fdatasync need not write them. */
static void prepare_sync(struct io_uring_sqe *sqe, int fd)
{
    struct stat st;
    bool folder = fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);

    io_uring_prep_fsync(sqe, fd, folder ? 0 : IORING_FSYNC_DATASYNC);
}

static void prepare(struct uring *u, struct io_uring_sqe *sqe, struct slot *s)
{
    const struct io_op *op = &s->op;

    switch (op->code) {
    case IO_READ:
    case IO_WRITE:
        prepare_transfer(u, sqe, s);
        break;
    case IO_SYNC:
        prepare_sync(sqe, op->fd);
        break;
    case IO_ALLOC:
        io_uring_prep_fallocate(sqe, op->fd, 0, (off_t)op->off, (off_t)op->len);
        break;
    case IO_OPEN:
        io_uring_prep_openat(sqe, op->fd, op->path, op->flags | O_CLOEXEC, op->mode);
        break;
    case IO_CLOSE:
        io_uring_prep_close(sqe, op->fd);
        break;
    case IO_RENAME:
        io_uring_prep_renameat(sqe, op->fd, op->path, op->fd, op->to, 0);
        break;
    default:
        io_uring_prep_unlinkat(sqe, op->fd, op->path, 0);
        break;
    }
    if (op->aside)
        sqe->flags |= IOSQE_ASYNC;
    io_uring_sqe_set_data64(sqe, (uint64_t)(s - u->slots));
    s->in_kernel = true;
    u->n_kernel++;
}

/* What waits in the submission queue to the kernel. -errno: not all of it went. */
static int flush(struct uring *u)
{
    int r = 0;

    while (io_uring_sq_ready(&u->ring) && r >= 0) {
        r = io_uring_submit(&u->ring);
        if (r == 0)
            r = -EAGAIN;
        if (r == -EINTR)
            r = 0;
    }
    return r < 0 ? r : 0;
}

/* An entry of the submission queue when it has room for n, which then follow one another. */
static bool has_room(struct uring *u, uint32_t n)
{
    if (io_uring_sq_space_left(&u->ring) < n)
        (void)flush(u);
    return io_uring_sq_space_left(&u->ring) >= n;
}

/* From s to the first transfer: so many the kernel links. */
static uint32_t run_length(const struct slot *s)
{
    uint32_t n = 1;

    for (; s->behind && !io_is_transfer(&s->op); s = s->behind)
        n++;
    return n;
}

/* False: the submission queue is full. */
static bool hand_over(struct uring *u, struct slot *s)
{
    uint32_t n = run_length(s);

    if (s->cancelled) {
        finish(u, s, -ECANCELED);
        return true;
    }
    if (!has_room(u, n))
        return false;
    while (n--) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
        struct slot *behind = s->behind;

        prepare(u, sqe, s);
        if (n) {
            /* The kernel's from now on: it also tells those behind when this one fails. */
            sqe->flags |= IOSQE_IO_LINK;
            s->behind = NULL;
            s = behind;
        }
    }
    return true;
}

static int hand_over_all(struct uring *u)
{
    struct slot *s;

    while ((s = list_pop(&u->todo))) {
        if (hand_over(u, s))
            continue;
        s->next = u->todo.first;
        u->todo.first = s;
        u->todo.last = u->todo.last ? u->todo.last : s;
        break;
    }
    return flush(u);
}

/* Makes the descriptor readable when something is ready that has no entry of its own. */
static void ring_bell(struct uring *u)
{
    struct io_uring_sqe *sqe;

    if (!u->ready.first || u->bell || !has_room(u, 1))
        return;
    sqe = io_uring_get_sqe(&u->ring);
    io_uring_prep_nop(sqe);
    io_uring_sqe_set_data64(sqe, TAG_BELL);
    u->bell = true;
    (void)flush(u);
}

/* --- the owner -------------------------------------------------------------------------------- */

static void uring_queue(struct io *io, const struct io_op *op)
{
    struct uring *u = uring_of(io);
    struct slot *s = list_pop(&u->idle);

    *s = (struct slot){ .op = *op };
    if (u->chain)
        u->chain->behind = s;
    else
        list_push(&u->queued, s);
    u->chain = op->link ? s : NULL;
}

static int uring_submit(struct io *io)
{
    struct uring *u = uring_of(io);
    struct slot *s;
    int r;

    u->chain = NULL;
    while ((s = list_pop(&u->queued)))
        list_push(&u->todo, s);
    r = hand_over_all(u);
    ring_bell(u);
    return r;
}

static uint32_t uring_reap(struct io *io, struct io_done *ret, uint32_t cap)
{
    struct uring *u = uring_of(io);
    uint32_t n = 0;
    struct slot *s;

    collect(u);
    while (n < cap && (s = list_pop(&u->ready))) {
        ret[n++] = (struct io_done){ s->op.cookie, s->result };
        list_push(&u->idle, s);
    }
    /* What goes on: held ones whose turn has come, short transfers, and what the kernel had no
     * memory for. No system call when there is none of that, and nothing is left behind. */
    (void)hand_over_all(u);
    ring_bell(u);
    return n;
}

/* Sleeps until the completion queue has an entry, and takes all of them. Only while the kernel has
 * something: what is handed over may come back at once, cancelled, and then nobody would wake us.
 */
static int sleep_once(struct uring *u)
{
    int r = io_uring_submit_and_wait(&u->ring, 1);

    collect(u);
    return r < 0 ? r : 0;
}

static int uring_wait(struct io *io)
{
    struct uring *u = uring_of(io);
    int r = 0;

    (void)uring_submit(io);
    collect(u);
    for (;;) {
        (void)hand_over_all(u);
        if (u->ready.first || !u->n_kernel || r == -EINTR)
            break;
        r = sleep_once(u);
    }
    ring_bell(u);
    return u->ready.first ? 0 : r;
}

static void uring_drain(struct io *io)
{
    struct uring *u = uring_of(io);

    (void)uring_submit(io);
    while (u->n_kernel) {
        (void)sleep_once(u);
        (void)hand_over_all(u);
    }
    ring_bell(u);
}

static void ask_kernel_to_cancel(struct uring *u, uint64_t tag, int flags)
{
    struct io_uring_sqe *sqe;

    if (!has_room(u, 1))
        return; /* nobody was promised more than that it comes back */
    sqe = io_uring_get_sqe(&u->ring);
    io_uring_prep_cancel64(sqe, tag, flags);
    io_uring_sqe_set_data64(sqe, TAG_CANCEL);
    (void)flush(u);
}

/* One that the kernel has not is stopped when its turn comes. */
static void uring_cancel(struct io *io, uint64_t cookie)
{
    struct uring *u = uring_of(io);

    for (uint32_t i = 0; i < io->depth; i++) {
        struct slot *s = &u->slots[i];

        if (s->op.cookie != cookie)
            continue;
        s->cancelled = true; /* means nothing in one that is idle or ready */
        if (s->in_kernel)
            ask_kernel_to_cancel(u, i, 0);
    }
}

/* --- registered memory ------------------------------------------------------------------------ */

static void drop_from(struct uring *u, uint32_t first)
{
    struct iovec none = { NULL, 0 };

    for (; u->n_memory > first; u->n_memory--)
        (void)io_uring_register_buffers_update_tag(&u->ring, u->n_memory - 1, &none, NULL, 1);
}

static int uring_add_memory(struct io *io, void *mem, size_t len)
{
    struct uring *u = uring_of(io);
    uint32_t first = u->n_memory;
    int r = 0;

    if (u->n_pieces == IO_PIECES_MAX)
        return -ENOSPC;
    if (u->n_pieces == 0)
        r = io_uring_register_buffers_sparse(&u->ring, MEMORY_MAX);
    for (size_t at = 0; at < len && r >= 0; at += IO_PIECE_MAX) {
        struct iovec v = { (char *)mem + at, len - at < IO_PIECE_MAX ? len - at : IO_PIECE_MAX };

        if (u->n_memory == MEMORY_MAX) {
            r = -ENOSPC;
            break;
        }
        r = io_uring_register_buffers_update_tag(&u->ring, u->n_memory, &v, NULL, 1);
        if (r >= 0)
            u->memory[u->n_memory++] = v;
    }
    if (r < 0) {
        drop_from(u, first);
        if (u->n_pieces == 0)
            (void)io_uring_unregister_buffers(&u->ring);
        return r;
    }
    u->n_pieces++;
    return 0;
}

static void uring_drop_memory(struct io *io)
{
    struct uring *u = uring_of(io);

    if (u->n_pieces)
        (void)io_uring_unregister_buffers(&u->ring);
    u->n_pieces = u->n_memory = 0;
}

/* --- life ------------------------------------------------------------------------------------- */

static void uring_close(struct io *io)
{
    struct uring *u = uring_of(io);

    u->closing = true; /* nothing goes on behind what comes back now */
    u->todo = (struct list){ NULL, NULL };
    if (u->has_ring) {
        if (u->n_kernel)
            ask_kernel_to_cancel(u, 0, IORING_ASYNC_CANCEL_ANY);
        while (u->n_kernel)
            (void)sleep_once(u);
        for (struct slot *s = u->ready.first; s; s = s->next)
            io_forget(&s->op, s->result);
        uring_drop_memory(io);
        io_uring_queue_exit(&u->ring);
    }
    free(u->slots);
    free(u);
}

static const struct io_ops uring_ops = {
    .name = "io_uring",
    .close = uring_close,
    .add_memory = uring_add_memory,
    .drop_memory = uring_drop_memory,
    .queue = uring_queue,
    .submit = uring_submit,
    .reap = uring_reap,
    .wait = uring_wait,
    .cancel = uring_cancel,
    .drain = uring_drain,
};

/* What stood against it, for people: they can change most of that. */
static int say_why(struct why *why, int r)
{
    struct rlimit lim = { 0 };
    char value[16] = "";
    FILE *f;

    if (r == -ENOSYS)
        return why_set(why, r, "this kernel has no io_uring, or a seccomp filter hides it");
    if (r == -ENOMEM && getrlimit(RLIMIT_MEMLOCK, &lim) == 0 && lim.rlim_cur != RLIM_INFINITY)
        return why_set(why, r,
                       "no memory for io_uring: the limit of locked memory is %llu kB (ulimit -l)",
                       (unsigned long long)lim.rlim_cur / 1024);
    if (r != -EPERM)
        return why_set(why, r, "cannot use io_uring: %s", strerror(-r));

    f = fopen("/proc/sys/kernel/io_uring_disabled", "re");
    if (f) {
        if (!fgets(value, sizeof(value), f))
            value[0] = '\0';
        (void)fclose(f);
    }
    if (value[0] == '1' || value[0] == '2')
        return why_set(why, r, "io_uring is switched off here: kernel.io_uring_disabled is %c",
                       value[0]);
    return why_set(why, r,
                   "io_uring is not permitted here: a seccomp filter denies it, as those of "
                   "containers do");
}

/* Kernels before 5.19 know fewer flags; they only make it cheaper. */
static int make_ring(struct uring *u, uint32_t depth)
{
    unsigned flags = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
                     IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CLAMP;
    int r = io_uring_queue_init(depth, &u->ring, flags);

    if (r == -EINVAL)
        r = io_uring_queue_init(depth, &u->ring, IORING_SETUP_CLAMP);
    u->has_ring = r == 0;
    return r;
}

/* Whether the kernel has all that we use, and lets us use it: a filter may let a ring be made and
 * no more. */
static int try_ring(struct uring *u)
{
    static const int needed[] = { IORING_OP_READ,     IORING_OP_WRITE,    IORING_OP_FSYNC,
                                  IORING_OP_OPENAT,   IORING_OP_CLOSE,    IORING_OP_FALLOCATE,
                                  IORING_OP_RENAMEAT, IORING_OP_UNLINKAT, IORING_OP_ASYNC_CANCEL };
    struct io_uring_probe *p = io_uring_get_probe_ring(&u->ring);
    struct io_uring_sqe *sqe;
    struct io_uring_cqe *cqe;
    bool all = p != NULL;
    int r;

    for (size_t i = 0; all && i < sizeof(needed) / sizeof(needed[0]); i++)
        all = io_uring_opcode_supported(p, needed[i]);
    io_uring_free_probe(p);
    if (!all)
        return -EOPNOTSUPP;

    sqe = io_uring_get_sqe(&u->ring);
    io_uring_prep_nop(sqe);
    do
        r = io_uring_submit_and_wait(&u->ring, 1);
    while (r == -EINTR);
    if (r < 0)
        return r;
    r = io_uring_wait_cqe(&u->ring, &cqe);
    if (r == 0)
        io_uring_cqe_seen(&u->ring, cqe);
    return r;
}

int io_open_uring(const struct io_options *o, struct io **ret, struct why *why)
{
    struct uring *u = calloc(1, sizeof(*u));
    int r = -ENOMEM;

    if (!u)
        return why_set(why, r, "no memory for the operations of io_uring");
    u->io = (struct io){ .ops = &uring_ops, .depth = o->depth };
    u->slots = calloc(o->depth, sizeof(*u->slots));
    if (!u->slots)
        goto fail;
    for (uint32_t i = 0; i < o->depth; i++)
        list_push(&u->idle, &u->slots[i]);
    r = make_ring(u, o->depth);
    if (r == 0)
        r = try_ring(u);
    if (r < 0)
        goto fail;
    u->io.event = u->ring.ring_fd;
    *ret = &u->io;
    return 0;

fail:
    uring_close(&u->io);
    return say_why(why, r);
}
