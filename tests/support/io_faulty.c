/* An operation that is to fail is put to the io below as one that does: a sync of no descriptor. So
 * the chain that it is in ends as any other does, and its error is put in when it comes back. What
 * is to be done of it before goes as an operation of its own in front, linked.
 */
#include "tests/support/io_faulty.h"

#include "store/io_ops.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define RULES_MAX 16u
#define FRONT     (1ull << 32) /* in a cookie below: the part that is done */

struct slot {
    struct io_op op;
    bool used, failing, late, never, cancelled;
    bool has_front, logged, front_logged;
    struct io_op front;
    int error;            /* IO_FAULT_EARLY: 0 */
    int64_t done, result; /* done: by the front */
    size_t entry, front_entry;
    uint64_t chain;
    size_t handed_over;
    struct slot *behind;
};

struct rule {
    struct io_fault f;
    uint64_t seen;
};

struct faulty {
    struct io io;
    struct io *inner;
    int bell; /* readable: something of `back` is to be told */
    struct slot *slots;
    uint32_t *queued, n_queued; /* slots; the first of each chain */
    uint32_t *back, n_back;     /* slots with a result */
    struct slot *chain;
    struct rule rules[RULES_MAX];
    uint32_t n_rules;
    uint64_t random, n_chains, seen[IO_CODE__N];
    struct io_log *log;
    bool released, let_go;
};

static struct faulty *faulty_of(const struct io *io)
{
    return (struct faulty *)io; /* its first member */
}

static uint64_t next_random(struct faulty *f)
{
    f->random ^= f->random << 13;
    f->random ^= f->random >> 7;
    f->random ^= f->random << 17;
    return f->random;
}

static void shuffle(struct faulty *f, uint32_t *v, uint32_t n)
{
    if (f->random == 0)
        return;
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = (uint32_t)(next_random(f) % i), t = v[i - 1];

        v[i - 1] = v[j];
        v[j] = t;
    }
}

/* --- rules ------------------------------------------------------------------------------------ */

static bool is_named(const struct io_op *op, const char *name)
{
    char link[64], path[4096];
    ssize_t n;

    if (op->path)
        return strstr(op->path, name) || (op->to && strstr(op->to, name));
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", op->fd);
    n = readlink(link, path, sizeof(path) - 1);
    if (n < 0)
        return false;
    path[n] = '\0';
    return strstr(path, name) != NULL;
}

static const struct io_fault *fault_of(struct faulty *f, const struct io_op *op)
{
    const struct io_fault *hit = NULL;

    for (uint32_t i = 0; i < f->n_rules; i++) {
        struct rule *r = &f->rules[i];

        if (r->f.code != IO_CODE__N && r->f.code != op->code)
            continue;
        if (r->f.name && !is_named(op, r->f.name))
            continue;
        r->seen++;
        if (!hit && (r->f.nth == 0 || r->f.nth == r->seen))
            hit = &r->f;
    }
    return hit;
}

static void apply(struct slot *s, const struct io_fault *f)
{
    s->late = f->what == IO_FAULT_LATE;
    s->never = f->what == IO_FAULT_NEVER;
    if (s->late || s->never)
        return;
    s->failing = true;
    s->error = f->what == IO_FAULT_EARLY ? 0 : f->error;
    if (f->what == IO_FAULT_ERROR || !io_is_transfer(&s->op))
        return;
    s->has_front = true;
    s->front = s->op;
    s->front.len = s->op.len / 2 / 512 * 512;
}

/* --- down ------------------------------------------------------------------------------------- */

static void faulty_queue(struct io *io, const struct io_op *op)
{
    struct faulty *f = faulty_of(io);
    const struct io_fault *fault = fault_of(f, op);
    uint32_t i = 0;
    struct slot *s;

    while (f->slots[i].used)
        i++;
    s = &f->slots[i];
    *s = (struct slot){ .op = *op, .used = true };
    f->seen[op->code]++;
    if (fault)
        apply(s, fault);
    if (f->chain)
        f->chain->behind = s;
    else
        f->queued[f->n_queued++] = i;
    f->chain = op->link ? s : NULL;
}

static void below(struct faulty *f, struct io_op op, uint64_t cookie, bool link)
{
    int r;

    op.cookie = cookie;
    op.link = link;
    r = io_queue(f->inner, &op);
    assert(r == 0);
    (void)r;
}

/* The first operation of a chain begins when it is handed over, another when the one in front of it
 * has come back. */
static void log_begin(struct faulty *f, struct slot *s)
{
    if (!f->log)
        return;
    if (s->has_front) {
        s->front_entry = io_log_begin(f->log, &s->front, s->chain, s->handed_over);
        s->front_logged = true;
    } else if (!s->failing) {
        s->entry = io_log_begin(f->log, &s->op, s->chain, s->handed_over);
        s->logged = true;
    }
}

static int faulty_submit(struct io *io)
{
    struct faulty *f = faulty_of(io);
    size_t now = f->log ? io_log_points(f->log) : 0;

    f->chain = NULL;
    shuffle(f, f->queued, f->n_queued);
    for (uint32_t i = 0; i < f->n_queued; i++) {
        struct slot *first = &f->slots[f->queued[i]];

        f->n_chains++;
        for (struct slot *s = first; s; s = s->behind) {
            uint64_t cookie = (uint64_t)(s - f->slots);

            s->chain = f->n_chains;
            s->handed_over = now;
            if (s->has_front)
                below(f, s->front, cookie | FRONT, true);
            if (s->failing)
                below(f, (struct io_op){ .code = IO_SYNC, .fd = -1 }, cookie, s->behind != NULL);
            else
                below(f, s->op, cookie, s->behind != NULL);
            if (s->cancelled)
                io_cancel(f->inner, cookie);
        }
        log_begin(f, first);
    }
    f->n_queued = 0;
    return io_submit(f->inner);
}

/* --- up --------------------------------------------------------------------------------------- */

static void came_back(struct faulty *f, const struct io_done *d)
{
    struct slot *s = &f->slots[d->cookie & (FRONT - 1)];

    if (d->cookie & FRONT) {
        s->done = d->result;
        if (s->front_logged && f->log)
            io_log_end(f->log, s->front_entry, d->result);
        return;
    }
    s->result = d->result;
    if (s->logged && f->log)
        io_log_end(f->log, s->entry, d->result);
    if (s->failing && d->result == -EBADF)
        s->result = s->error ? -s->error : s->done;
    /* The front's own failure, or its end before its end. */
    if (s->has_front && d->result == -ECANCELED && s->done != 0)
        s->result = s->done;
    if (s->behind && io_succeeded(&s->op, s->result))
        log_begin(f, s->behind);
    f->back[f->n_back++] = d->cookie & (FRONT - 1);
}

static void collect(struct faulty *f)
{
    struct io_done d[32];
    uint32_t n;

    while ((n = io_reap(f->inner, d, 32)))
        for (uint32_t i = 0; i < n; i++)
            came_back(f, &d[i]);
}

/* Late ones are told when there are no others. */
static bool may_be_told(const struct faulty *f, const struct slot *s)
{
    return s->never ? f->let_go : !s->late || f->released;
}

static bool is_any_told(struct faulty *f)
{
    bool any = false, late = false;

    for (uint32_t i = 0; i < f->n_back; i++) {
        any |= may_be_told(f, &f->slots[f->back[i]]);
        late |= f->slots[f->back[i]].late;
    }
    if (!any && late && f->n_queued == 0 && io_room(f->inner) == io_depth(f->inner)) {
        f->released = true;
        any = true;
    }
    return any;
}

static void ring(struct faulty *f)
{
    uint64_t one = 1;

    if (is_any_told(f))
        (void)!write(f->bell, &one, sizeof(one));
    else
        (void)!read(f->bell, &one, sizeof(one));
}

static uint32_t faulty_reap(struct io *io, struct io_done *ret, uint32_t cap)
{
    struct faulty *f = faulty_of(io);
    uint32_t n = 0, left = 0;

    collect(f);
    shuffle(f, f->back, f->n_back);
    (void)is_any_told(f);
    for (uint32_t i = 0; i < f->n_back; i++) {
        struct slot *s = &f->slots[f->back[i]];

        if (n < cap && may_be_told(f, s)) {
            ret[n++] = (struct io_done){ s->op.cookie, s->result };
            s->used = false;
        } else {
            f->back[left++] = f->back[i];
        }
    }
    f->n_back = left;
    f->released = f->released && left;
    ring(f);
    return n;
}

static int faulty_wait(struct io *io)
{
    struct faulty *f = faulty_of(io);
    int r = 0;

    (void)faulty_submit(io);
    collect(f);
    while (r == 0 && !is_any_told(f) && io_room(f->inner) < io_depth(f->inner)) {
        r = io_wait(f->inner);
        collect(f);
    }
    ring(f);
    return r;
}

static void faulty_drain(struct io *io)
{
    struct faulty *f = faulty_of(io);

    (void)faulty_submit(io);
    io_drain(f->inner);
    collect(f);
    ring(f);
}

static void faulty_cancel(struct io *io, uint64_t cookie)
{
    struct faulty *f = faulty_of(io);

    for (uint32_t i = 0; i < io->depth; i++)
        if (f->slots[i].used && f->slots[i].op.cookie == cookie) {
            f->slots[i].cancelled = true;
            io_cancel(f->inner, i | FRONT);
            io_cancel(f->inner, i);
        }
}

static int faulty_add_memory(struct io *io, void *mem, size_t len)
{
    return io_register(faulty_of(io)->inner, mem, len);
}

static void faulty_drop_memory(struct io *io)
{
    io_unregister(faulty_of(io)->inner);
}

/* --- life ------------------------------------------------------------------------------------- */

static void faulty_close(struct io *io)
{
    struct faulty *f = faulty_of(io);

    io_close(f->inner);
    for (uint32_t i = 0; i < f->n_back; i++)
        io_forget(&f->slots[f->back[i]].op, f->slots[f->back[i]].result);
    (void)close(f->bell);
    (void)close(io->event);
    free(f->slots);
    free(f->queued);
    free(f->back);
    free(f);
}

static const struct io_ops faulty_ops = {
    .name = "faulty",
    .close = faulty_close,
    .add_memory = faulty_add_memory,
    .drop_memory = faulty_drop_memory,
    .queue = faulty_queue,
    .submit = faulty_submit,
    .reap = faulty_reap,
    .wait = faulty_wait,
    .cancel = faulty_cancel,
    .drain = faulty_drain,
};

int io_faulty_open(struct io *inner, struct io **ret)
{
    struct faulty *f = calloc(1, sizeof(*f));
    struct epoll_event e = { .events = EPOLLIN };
    uint32_t depth = io_depth(inner) / 2;

    assert(f && depth);
    f->io = (struct io){ .ops = &faulty_ops, .depth = depth };
    f->inner = inner;
    f->slots = calloc(depth, sizeof(*f->slots));
    f->queued = calloc(depth, sizeof(*f->queued));
    f->back = calloc(depth, sizeof(*f->back));
    f->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    f->io.event = epoll_create1(EPOLL_CLOEXEC);
    assert(f->slots && f->queued && f->back && f->bell >= 0 && f->io.event >= 0);
    if (epoll_ctl(f->io.event, EPOLL_CTL_ADD, f->bell, &e) < 0 ||
        epoll_ctl(f->io.event, EPOLL_CTL_ADD, io_eventfd(inner), &e) < 0)
        abort();
    *ret = &f->io;
    return 0;
}

void io_faulty_add(struct io *io, const struct io_fault *fault)
{
    struct faulty *f = faulty_of(io);

    f->let_go = f->let_go && fault->what != IO_FAULT_NEVER;
    assert(f->n_rules < RULES_MAX);
    f->rules[f->n_rules++] = (struct rule){ .f = *fault };
}

void io_faulty_clear(struct io *io)
{
    faulty_of(io)->n_rules = 0;
}

void io_faulty_shuffle(struct io *io, uint64_t seed)
{
    faulty_of(io)->random = seed;
}

void io_faulty_release(struct io *io)
{
    faulty_of(io)->released = faulty_of(io)->let_go = true;
    collect(faulty_of(io));
    ring(faulty_of(io));
}

uint64_t io_faulty_n(const struct io *io, enum io_code code)
{
    const struct faulty *f = faulty_of(io);
    uint64_t n = 0;

    for (uint32_t i = 0; i < IO_CODE__N; i++)
        n += code == IO_CODE__N || code == i ? f->seen[i] : 0;
    return n;
}

void io_faulty_record(struct io *io, struct io_log *log)
{
    faulty_of(io)->log = log;
}
