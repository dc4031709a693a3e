/* io_uring, and the only file that knows it. The way of an operation:
 *
 *             queue          submit        hand_over            collect          reap
 *     idle ---------> queued ------> todo ----------> kernel -----------> ready ------> idle
 *          behind a             ^    ^ |              |    |                ^
 *          transfer: ---> held -+    | |              |    +-> would wait   |
 *                          |         +-|--------------+ short    |          |
 *                          |           |                         v          |
 *                          |           +----------------> helper threads ---+
 *                          +------------------------------------------------+ that one failed
 *
 * Helpers    The ring has what the kernel can begin at once and end by an interrupt: transfers,
 * with RWF_NOWAIT. All else waits for something, and is done by threads of our own
 * (store/io_threads.c): the same system calls that the kernel's pool for it (io-wq) would do in as
 * many threads. Not by that pool, because it loses work. Seen on 6.18, three times in half a
 * million records: after a ring was closed and another one opened, the first operation that needs
 * the pool stays in its queue for ever. Why, is read and not proven: a worker that is about to
 * end, be it after five idle seconds or because the last ring was closed, is still on the list of
 * free ones (io_acct_activate_free_worker), is taken for one that will look at the queue, and
 * nobody else is woken. Nothing in here waits for the pool, so nothing can be lost there.
 *
 * Links      What stands behind a transfer of the ring is held here until that came back whole, and
 * is handed over by the io_reap that learns it: it may be short, and goes on then. A helper goes on
 * by itself: the sync, rename, sync of a record are done while the owner computes.
 *
 * Readable   The descriptor to poll is an epoll of the ring, readable just while the completion
 * queue has entries, and of the helpers' eventfd. An eventfd registered with the ring is signalled
 * after the entry is there, so that an owner who reaped in between would find it readable with
 * nothing behind it, again and again, or would have to read it in every io_reap. What is ready
 * without an entry of its own (what a failure cancelled, what did not fit into the caller's array)
 * is announced by a NOP, the bell.
 *
 * Flags      COOP_TASKRUN: completions don't interrupt the owner's computing; a sleeper is woken
 * all the same, and TASKRUN_FLAG tells io_reap that some wait inside the kernel. Not DEFER_TASKRUN:
 * who polls the descriptor would have to enter the kernel for them first. Not SQPOLL: a polling
 * kernel thread uses a CPU while nothing happens.
 */
#include "store/io_ops.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define BATCH      64u     /* entries of the completion queue at once */
#define TAG_BELL   (~0ull) /* user_data of what is no operation */
#define TAG_CANCEL (~0ull - 1)
#define MEMORY_MAX 64u /* pieces of at most 1 GiB, which is the kernel's limit */
#define SMALL      (64u << 10)
#define HELPERS    8u /* they sleep in the disk's queue: enough to keep it busy */

/* HERE is every list of this side, also when the result is known. The other two say whom to ask for
 * a cancel. */
enum place { PLACE_HERE, PLACE_KERNEL, PLACE_HELPER };

struct slot {
    struct io_op op;
    struct slot *next;   /* in its list */
    struct slot *behind; /* held until this one came back */
    size_t done;         /* of a transfer, so far */
    size_t rest_at;      /* of a transfer: where in its memory the helper began */
    int64_t result;
    enum place place;
    bool cancelled;
    bool slow; /* a transfer that has to wait for something: not for the ring */
};

struct list {
    struct slot *first, *last;
};

/* A slot is in at most one list, or hangs on another's `behind`, or is out at the kernel or a
 * helper. Its number is the user_data in the ring, and the cookie at the helpers. */
struct uring {
    struct io io;
    struct io_uring ring;
    bool has_ring;
    struct io *helper;
    struct slot *slots;
    struct list idle, queued, todo, ready; /* queued, todo: the first of each chain */
    struct slot *chain;                    /* queued last, and wants another behind it */
    uint32_t n_kernel, n_helper;
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

/* The ring's: only transfers. -EAGAIN is the kernel's answer to RWF_NOWAIT when the transfer would
 * have to wait; -EOPNOTSUPP is that of a file system that doesn't know the flag. Both mark the slot
 * slow, so that hand_over gives the rest to a helper. */
static void came_back(struct uring *u, struct slot *s, int64_t res)
{
    int64_t result = res;
    bool wait = res == -EAGAIN || res == -EOPNOTSUPP, again;

    s->place = PLACE_HERE;
    u->n_kernel--;
    again = wait || res == -EINTR || !io_piece_done(&s->op, &s->done, res, &result);
    s->slow = s->slow || wait;
    if (again && !s->cancelled && !u->closing) {
        list_push(&u->todo, s);
        return;
    }
    finish(u, s, again ? -ECANCELED : result);
}

/* A helper counts from where it began (leave_rest); what the ring had moved before that is added.
 */
static void helper_did(struct uring *u, struct slot *s, int64_t res)
{
    s->place = PLACE_HERE;
    u->n_helper--;
    finish(u, s, res >= 0 && io_is_transfer(&s->op) ? res + (int64_t)s->rest_at : res);
}

/* Takes all entries of the completion queue, and what helpers have done. */
static void collect(struct uring *u)
{
    struct io_uring_cqe *cqes[BATCH];
    struct io_done done[BATCH];
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
    while ((n = io_reap(u->helper, done, BATCH)))
        for (unsigned i = 0; i < n; i++)
            helper_did(u, &u->slots[done[i].cookie], done[i].result);
}

/* --- handing over ----------------------------------------------------------------------------- */

/* Which piece of the registered memory has all of the transfer; -1: none. A transfer across two
 * pieces goes unregistered: it is as right, and rare. */
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
    sqe->rw_flags = RWF_NOWAIT; /* else it may go to the kernel's pool of threads */
    io_uring_sqe_set_data64(sqe, (uint64_t)(s - u->slots));
}

/* What waits in the submission queue to the kernel. -errno: not all of it went. A submit that takes
 * nothing is -EAGAIN: without it this would turn in a circle where the kernel has no memory. */
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

/* NULL: the submission queue is full, and the kernel takes none of it now. */
static struct io_uring_sqe *take_entry(struct uring *u)
{
    if (io_uring_sq_space_left(&u->ring) == 0)
        (void)flush(u);
    return io_uring_get_sqe(&u->ring);
}

/* Transfers that may end by an interrupt. Writes into the page cache never do; whether others do is
 * the kernel's to say (-EAGAIN). A small one with something behind it is not worth the owner's turn
 * in between: the helper does all of it in one go. */
static bool is_for_ring(const struct slot *s)
{
    if (!io_is_transfer(&s->op) || s->op.aside || s->slow || (s->behind && s->op.len <= SMALL))
        return false;
    return s->op.code == IO_READ || io_wants_blocks(s->op.fd);
}

/* What the ring has not moved of a transfer. */
static void leave_rest(struct slot *s, struct io_op *op)
{
    size_t len;

    if (!io_is_transfer(op))
        return;
    s->rest_at = io_next_piece(op, s->done, &len);
    op->mem = (char *)op->mem + s->rest_at;
    op->len -= s->rest_at;
    op->off += s->rest_at;
}

/* With all behind it: a helper goes on behind a short transfer, and tells those behind when this
 * one fails. */
static void hand_to_helper(struct uring *u, struct slot *s)
{
    while (s) {
        struct slot *behind = s->behind;
        struct io_op op = s->op;

        leave_rest(s, &op);
        op.link = behind != NULL;
        op.cookie = (uint64_t)(s - u->slots);
        s->behind = NULL;
        s->place = PLACE_HELPER;
        u->n_helper++;
        (void)io_queue(u->helper, &op); /* it is as deep as we are */
        if (s->cancelled)
            io_cancel(u->helper, op.cookie);
        s = behind;
    }
}

/* False: the submission queue is full. */
static bool hand_over(struct uring *u, struct slot *s)
{
    struct io_uring_sqe *sqe;

    if (s->cancelled) {
        finish(u, s, -ECANCELED);
        return true;
    }
    if (!is_for_ring(s)) {
        hand_to_helper(u, s);
        return true;
    }
    sqe = take_entry(u);
    if (!sqe)
        return false;
    prepare_transfer(u, sqe, s);
    s->place = PLACE_KERNEL;
    u->n_kernel++;
    return true;
}

/* One that found no entry goes back to the front of todo, so that the order stays. The next submit
 * or reap tries it again. */
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
    (void)io_submit(u->helper);
    return flush(u);
}

/* Makes the descriptor readable when something is ready that has no entry of its own. At most one
 * bell is out. Where the kernel takes no entry now, the next submit or reap rings. */
static void ring_bell(struct uring *u)
{
    struct io_uring_sqe *sqe;

    if (!u->ready.first || u->bell || !(sqe = take_entry(u)))
        return;
    io_uring_prep_nop(sqe);
    io_uring_sqe_set_data64(sqe, TAG_BELL);
    u->bell = true;
    (void)flush(u);
}

/* --- the owner -------------------------------------------------------------------------------- */

/* A chain hangs on its first slot by `behind`; only the first is in queued. */
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

/* Sleeps until something came back, and takes all of it. Only while something is out: what is
 * handed over may come back at once, cancelled, and then nobody would wake us. */
static int sleep_once(struct uring *u)
{
    struct pollfd p = { .fd = u->io.event, .events = POLLIN };
    int r;

    /* Helpers don't make completions in the ring, so both are waited for by the epoll. */
    if (u->n_helper)
        r = poll(&p, 1, -1) < 0 ? -errno : 0;
    else
        r = io_uring_submit_and_wait(&u->ring, 1);
    collect(u);
    return r < 0 ? r : 0;
}

/* Goes on until something is ready: what comes back may be a short transfer that is handed over
 * again, which is nothing to reap yet. */
static int uring_wait(struct io *io)
{
    struct uring *u = uring_of(io);
    int r = 0;

    (void)uring_submit(io);
    collect(u);
    for (;;) {
        (void)hand_over_all(u);
        if (u->ready.first || !(u->n_kernel + u->n_helper) || r == -EINTR)
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
    while (u->n_kernel + u->n_helper) {
        (void)sleep_once(u);
        (void)hand_over_all(u);
    }
    ring_bell(u);
}

static void ask_kernel_to_cancel(struct uring *u, uint64_t tag, int flags)
{
    struct io_uring_sqe *sqe = take_entry(u);

    if (!sqe)
        return; /* nobody was promised more than that it comes back */
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
        if (s->place == PLACE_KERNEL)
            ask_kernel_to_cancel(u, i, 0);
        if (s->place == PLACE_HELPER)
            io_cancel(u->helper, i);
    }
}

/* --- registered memory ------------------------------------------------------------------------ */

/* An empty entry in place of a registered one lets its memory go. */
static void drop_from(struct uring *u, uint32_t first)
{
    struct iovec none = { NULL, 0 };

    for (; u->n_memory > first; u->n_memory--)
        (void)io_uring_register_buffers_update_tag(&u->ring, u->n_memory - 1, &none, NULL, 1);
}

/* The table is made with the first piece, with all its places empty: tables can't grow. On failure
 * what this call has put there is taken out again, so that a piece is registered whole or not at
 * all. */
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

/* The ring's operations are cancelled and waited for: the kernel may not write to a caller's memory
 * after this. What waits behind them does not begin. Helpers last, since they may still have
 * results of ours. */
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
    io_close(u->helper);
    if (io->event >= 0)
        (void)close(io->event);
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
    static const int needed[] = { IORING_OP_READ, IORING_OP_WRITE, IORING_OP_ASYNC_CANCEL };
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

/* liburing opens and closes the ring by system calls of its own, which a thread sanitizer does not
 * see: it would take the next file of that number for the ring. So it sees none of this either. */
static long watch_ring(const struct uring *u, struct epoll_event *e)
{
    return syscall(SYS_epoll_ctl, u->io.event, EPOLL_CTL_ADD, u->ring.ring_fd, e);
}

/* The helpers, and one descriptor for both. All of them at once, though some may never be needed:
 * who submits later may be tied to a CPU for the moment (base/seat.h), and they would inherit that.
 */
static int make_helper(struct uring *u, struct why *why)
{
    const struct io_options o = { .kind = IO_THREADS, .depth = u->io.depth, .threads = HELPERS };
    struct epoll_event e = { .events = EPOLLIN };
    int r = io_open_threads(&o, &u->helper, why);

    if (r < 0)
        return r;
    u->io.event = epoll_create1(EPOLL_CLOEXEC);
    if (u->io.event < 0 || watch_ring(u, &e) < 0 ||
        epoll_ctl(u->io.event, EPOLL_CTL_ADD, io_eventfd(u->helper), &e) < 0)
        return why_set(why, -errno, "cannot wait for io_uring: %s", strerror(errno));
    return 0;
}

int io_open_uring(const struct io_options *o, struct io **ret, struct why *why)
{
    struct uring *u = calloc(1, sizeof(*u));
    int r = -ENOMEM;

    if (!u)
        return why_set(why, r, "no memory for the operations of io_uring");
    u->io = (struct io){ .ops = &uring_ops, .depth = o->depth, .event = -1 };
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
    r = make_helper(u, why);
    if (r < 0) {
        uring_close(&u->io);
        return r;
    }
    *ret = &u->io;
    return 0;

fail:
    uring_close(&u->io);
    return say_why(why, r);
}
