/* Threads that call pread and the rest, for where io_uring is denied.
 *
 *     owner: queue      submit            worker: the chain's          owner: reap
 *     free -------> queued -------> todo ------> operations, one ------> ready -------> free
 *                                                after the other
 *
 * One lock over todo and ready: a system call that moves pages takes a thousand times what it
 * takes. The eventfd is written when ready gets its first and read when it loses its last, both
 * under the lock: so it is readable just while there is something to reap.
 */
#include "store/io_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

/* `cancelled` is read by a worker and written by the owner, under the lock; all else belongs to
 * whoever has the job in its list. */
struct job {
    struct io_op op;
    struct job *next;   /* in its list */
    struct job *behind; /* linked to this one */
    int64_t result;
    bool cancelled;
};

/* First in, first out: with a stack an operation could wait for ever under later ones. */
struct list {
    struct job *first, *last;
};

struct threads {
    struct io io;
    struct job *jobs;
    struct list idle, queued; /* the owner's */
    struct job *chain;        /* the owner's: queued last, and wants another behind it */

    pthread_mutex_t lock; /* of what follows, and of `cancelled` */
    pthread_cond_t more, done;
    struct list todo, ready;
    uint32_t n_busy; /* handed over, not ready */
    bool closing;

    _Atomic uint32_t n_ready; /* written under the lock */
    pthread_t *workers;
    uint32_t n_workers;
};

static struct threads *threads_of(struct io *io)
{
    return (struct threads *)io; /* its first member */
}

static void list_push(struct list *l, struct job *j)
{
    j->next = NULL;
    if (l->last)
        l->last->next = j;
    else
        l->first = j;
    l->last = j;
}

static struct job *list_pop(struct list *l)
{
    struct job *j = l->first;

    if (!j)
        return NULL;
    l->first = j->next;
    if (!l->first)
        l->last = NULL;
    return j;
}

/* --- a worker --------------------------------------------------------------------------------- */

static int64_t transfer(const struct io_op *op)
{
    size_t done = 0, len;
    int64_t result;

    for (;;) {
        size_t at = io_next_piece(op, done, &len);
        off_t off = (off_t)(op->off + at);
        ssize_t n = op->code == IO_READ ? pread(op->fd, (char *)op->mem + at, len, off)
                                        : pwrite(op->fd, (const char *)op->mem + at, len, off);

        if (n < 0 && errno == EINTR)
            continue;
        if (io_piece_done(op, &done, n < 0 ? -errno : n, &result))
            return result;
    }
}

/* A folder's entries are no data of it: fdatasync need not write them. IO_SYNC means both, so that
 * who queues one need not know which it has. */
static int sync_fd(int fd)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -1;
    return S_ISDIR(st.st_mode) ? fsync(fd) : fdatasync(fd);
}

/* The time of last access stays as it is: only the other one means something to the store. */
static int set_date(const struct io_op *op)
{
    const struct timespec t[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = (time_t)op->off } };

    return utimensat(op->fd, op->path, t, AT_SYMLINK_NOFOLLOW);
}

/* Runs without the lock. Paths and memory are the caller's, and stay as they are until the result
 * was reaped (store/io.h). */
static int64_t perform(const struct io_op *op)
{
    int r;

    do {
        switch (op->code) {
        case IO_READ:
        case IO_WRITE:
            return transfer(op);
        case IO_SYNC:
            r = sync_fd(op->fd);
            break;
        case IO_ALLOC:
            r = fallocate(op->fd, 0, (off_t)op->off, (off_t)op->len);
            break;
        case IO_OPEN:
            r = openat(op->fd, op->path, op->flags | O_CLOEXEC, op->mode);
            break;
        case IO_CLOSE:
            /* Once: the descriptor is gone also when it fails. */
            return close(op->fd) < 0 ? -errno : 0;
        case IO_RENAME:
            r = renameat(op->fd, op->path, op->fd, op->to);
            break;
        case IO_UNLINK:
            r = unlinkat(op->fd, op->path, 0);
            break;
        case IO_DATE:
            r = set_date(op);
            break;
        default:
            return -EINVAL;
        }
    } while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : r;
}

/* Under the lock. The counter and the eventfd change together here and in threads_reap. Outside the
 * lock n_ready may be read, for a look whether a system call is worth it. */
static void post(struct threads *t, struct job *j, int64_t result)
{
    uint64_t one = 1;

    j->result = result;
    list_push(&t->ready, j);
    t->n_busy--;
    if (atomic_fetch_add(&t->n_ready, 1) == 0)
        (void)!write(t->io.event, &one, sizeof(one)); /* cannot fail: it was 0 */
    if (t->n_busy == 0)
        (void)pthread_cond_broadcast(&t->done);
}

/* With the lock held, and let go while an operation is done. `closing` cancels what has not begun,
 * also within a chain. `behind` is read before post(): from then on the owner may reap j and use it
 * again. */
static void run_chain(struct threads *t, struct job *j)
{
    bool go_on = true;

    while (j) {
        struct job *behind = j->behind; /* of j's own chain: nobody else changes it */
        int64_t result = -ECANCELED;

        if (go_on && !j->cancelled && !t->closing) {
            (void)pthread_mutex_unlock(&t->lock);
            result = perform(&j->op);
            (void)pthread_mutex_lock(&t->lock);
        }
        go_on = io_succeeded(&j->op, result);
        post(t, j, result);
        j = behind;
    }
}

/* A chain is one worker's from beginning to end, and chains are taken in the order in which they
 * came. On `closing` those in todo stay there: nobody will ask for their results. */
static void *work(void *arg)
{
    struct threads *t = arg;

    (void)pthread_setname_np(pthread_self(), "gistd-io");
    (void)pthread_mutex_lock(&t->lock);
    while (!t->closing) {
        struct job *j = list_pop(&t->todo);

        if (j)
            run_chain(t, j);
        else
            (void)pthread_cond_wait(&t->more, &t->lock);
    }
    (void)pthread_mutex_unlock(&t->lock);
    return NULL;
}

/* --- the owner -------------------------------------------------------------------------------- */

/* Not under the lock: no worker sees a job before threads_submit. A chain hangs on its first job by
 * `behind`, and only that first one is in a list. */
static void threads_queue(struct io *io, const struct io_op *op)
{
    struct threads *t = threads_of(io);
    struct job *j = list_pop(&t->idle);

    *j = (struct job){ .op = *op };
    if (t->chain)
        t->chain->behind = j;
    else
        list_push(&t->queued, j);
    t->chain = op->link ? j : NULL;
}

static int threads_submit(struct io *io)
{
    struct threads *t = threads_of(io);
    struct job *j;

    t->chain = NULL;
    if (!t->queued.first)
        return 0;
    (void)pthread_mutex_lock(&t->lock);
    while ((j = list_pop(&t->queued))) {
        /* Before a worker can take the chain, and so before post() can count it down. */
        for (const struct job *k = j; k; k = k->behind)
            t->n_busy++;
        list_push(&t->todo, j);
        (void)pthread_cond_signal(&t->more);
    }
    (void)pthread_mutex_unlock(&t->lock);
    return 0;
}

/* Polled once a step, mostly in vain, so the look without the lock comes first. One that is missed
 * is found next time: the eventfd stays readable. */
static uint32_t threads_reap(struct io *io, struct io_done *ret, uint32_t cap)
{
    struct threads *t = threads_of(io);
    uint32_t n = 0;
    uint64_t count;
    struct job *j;

    if (cap == 0 || atomic_load(&t->n_ready) == 0)
        return 0;
    (void)pthread_mutex_lock(&t->lock);
    while (n < cap && (j = list_pop(&t->ready))) {
        ret[n++] = (struct io_done){ j->op.cookie, j->result };
        list_push(&t->idle, j);
    }
    if (atomic_fetch_sub(&t->n_ready, n) == n)
        (void)!read(io->event, &count, sizeof(count));
    (void)pthread_mutex_unlock(&t->lock);
    return n;
}

static int threads_wait(struct io *io)
{
    struct threads *t = threads_of(io);
    struct pollfd p = { .fd = io->event, .events = POLLIN };

    (void)threads_submit(io);
    /* All that is out is with a worker or ready now, so the eventfd will be readable. */
    if (atomic_load(&t->n_ready))
        return 0;
    return poll(&p, 1, -1) < 0 ? -errno : 0;
}

static void threads_cancel(struct io *io, uint64_t cookie)
{
    struct threads *t = threads_of(io);

    (void)pthread_mutex_lock(&t->lock);
    for (uint32_t i = 0; i < io->depth; i++)
        if (t->jobs[i].op.cookie == cookie)
            t->jobs[i].cancelled = true; /* means nothing in one that is idle or ready */
    (void)pthread_mutex_unlock(&t->lock);
}

static void threads_drain(struct io *io)
{
    struct threads *t = threads_of(io);

    (void)threads_submit(io);
    (void)pthread_mutex_lock(&t->lock);
    while (t->n_busy)
        (void)pthread_cond_wait(&t->done, &t->lock);
    (void)pthread_mutex_unlock(&t->lock);
}

/* Threads have nothing to gain from it. */
static int threads_add_memory(struct io *io, void *mem, size_t len)
{
    (void)io;
    (void)mem;
    (void)len;
    return -EOPNOTSUPP;
}

static void threads_drop_memory(struct io *io)
{
    (void)io;
}

/* --- life ------------------------------------------------------------------------------------- */

/* Also of a half-built one, and with operations out: those that run are waited for, the others are
 * dropped. A descriptor that was opened and not reaped is closed. */
static void threads_close(struct io *io)
{
    struct threads *t = threads_of(io);

    (void)pthread_mutex_lock(&t->lock);
    t->closing = true;
    (void)pthread_cond_broadcast(&t->more);
    (void)pthread_mutex_unlock(&t->lock);
    for (uint32_t i = 0; i < t->n_workers; i++)
        (void)pthread_join(t->workers[i], NULL);
    for (struct job *j = t->ready.first; j; j = j->next)
        io_forget(&j->op, j->result);
    (void)pthread_cond_destroy(&t->more);
    (void)pthread_cond_destroy(&t->done);
    (void)pthread_mutex_destroy(&t->lock);
    if (io->event >= 0)
        (void)close(io->event);
    free(t->workers);
    free(t->jobs);
    free(t);
}

static const struct io_ops threads_ops = {
    .name = "threads",
    .close = threads_close,
    .add_memory = threads_add_memory,
    .drop_memory = threads_drop_memory,
    .queue = threads_queue,
    .submit = threads_submit,
    .reap = threads_reap,
    .wait = threads_wait,
    .cancel = threads_cancel,
    .drain = threads_drain,
};

/* Signals are the business of the program's own threads, but for what a thread has done itself. One
 * worker is enough to go on. SIGSYS stays unmasked: seccomp raises it in the thread that made the
 * call, and masked it would kill the process without a word. */
static int start_workers(struct threads *t, uint32_t n)
{
    sigset_t all, before;
    int r = 0;

    (void)sigfillset(&all);
    (void)sigdelset(&all, SIGSYS);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    for (uint32_t i = 0; i < n && r == 0; i++) {
        r = -pthread_create(&t->workers[i], NULL, work, t);
        if (r == 0)
            t->n_workers++;
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return t->n_workers ? 0 : r;
}

int io_open_threads(const struct io_options *o, struct io **ret, struct why *why)
{
    struct threads *t = calloc(1, sizeof(*t));
    int r;

    if (!t)
        return why_set(why, -ENOMEM, "no memory for the threads that read and write files");
    t->io = (struct io){ .ops = &threads_ops, .depth = o->depth, .event = -1 };
    (void)pthread_mutex_init(&t->lock, NULL);
    (void)pthread_cond_init(&t->more, NULL);
    (void)pthread_cond_init(&t->done, NULL);
    t->jobs = calloc(o->depth, sizeof(*t->jobs));
    t->workers = calloc(o->threads, sizeof(*t->workers));
    if (!t->jobs || !t->workers) {
        r = -ENOMEM;
        goto fail;
    }
    for (uint32_t i = 0; i < o->depth; i++)
        list_push(&t->idle, &t->jobs[i]);
    t->io.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (t->io.event < 0) {
        r = -errno;
        goto fail;
    }
    r = start_workers(t, o->threads);
    if (r < 0)
        goto fail;
    *ret = &t->io;
    return 0;

fail:
    threads_close(&t->io);
    return why_set(why, r, "cannot start the threads that read and write files: %s", strerror(-r));
}
