#include "tests/support/backend_fenced.h"

#include "engine/kv/pool.h"
#include "engine/run.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define AREAS_MAX  256
#define COPIES_MAX 64
/* Of a step's questions whether to stop: closing is two system calls an area, and each interrupts
 * all threads. */
#define CLOSE_EVERY 8

struct area {
    void *mem; /* NULL: free */
    size_t len;
};

struct late {
    void *to;
    const void *from;
    size_t n;
};

struct fenced {
    struct backend b;
    struct backend *cpu; /* computes */
    struct area areas[AREAS_MAX];
    struct late copies[COPIES_MAX]; /* copy of ticket t: [t % COPIES_MAX] */
    uint64_t made, asked;           /* tickets up to these */
    bool looked;                    /* done was asked about a copy that is not made */
    int bell;
    bool open;
};

static struct fenced *fenced_of(struct backend *b)
{
    return (struct fenced *)b;
}

/* --- the fence -------------------------------------------------------------------------------- */

static size_t whole_pages(size_t n)
{
    return (n + 4095) & ~(size_t)4095;
}

static void set_fence(struct fenced *f, bool open)
{
    for (int i = 0; i < AREAS_MAX; i++)
        if (f->areas[i].mem && mprotect(f->areas[i].mem, f->areas[i].len,
                                        open ? PROT_READ | PROT_WRITE : PROT_NONE) < 0)
            abort();
    f->open = open;
}

/* All that was asked for so far happens now. */
static void make_copies(struct fenced *f)
{
    uint64_t one = 1;

    assert(f->open);
    if (f->made == f->asked)
        return;
    while (f->made < f->asked) {
        const struct late *c = &f->copies[++f->made % COPIES_MAX];

        memcpy(c->to, c->from, c->n);
    }
    f->looked = false;
    if (write(f->bell, &one, sizeof(one)) != sizeof(one))
        abort();
}

/* As who computes does: copies with tickets are not waited for. */
static struct fenced *beside(struct backend *b)
{
    struct fenced *f = fenced_of(b);

    assert(!f->open);
    set_fence(f, true);
    return f;
}

static struct fenced *enter(struct backend *b)
{
    struct fenced *f = beside(b);

    make_copies(f);
    return f;
}

static int leave(struct fenced *f, int r)
{
    set_fence(f, false);
    return r;
}

/* --- memory ----------------------------------------------------------------------------------- */

static int fenced_alloc(struct backend *b, size_t n, void **ret)
{
    struct fenced *f = fenced_of(b);
    void *mem;

    for (int i = 0; i < AREAS_MAX; i++) {
        if (f->areas[i].mem)
            continue;
        mem = mmap(NULL, whole_pages(n), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mem == MAP_FAILED)
            return -ENOMEM;
        f->areas[i] = (struct area){ mem, whole_pages(n) };
        *ret = mem;
        return 0;
    }
    return -ENOMEM;
}

static void fenced_free(struct backend *b, void *mem, size_t n)
{
    struct fenced *f = enter(b); /* copies that are late may read or write it */

    for (int i = 0; i < AREAS_MAX; i++)
        if (f->areas[i].mem == mem) {
            assert(f->areas[i].len == whole_pages(n));
            (void)munmap(mem, whole_pages(n));
            f->areas[i].mem = NULL;
            (void)leave(f, 0);
            return;
        }
    abort(); /* not ours */
}

static int fenced_lock(struct backend *b, void *mem, size_t n)
{
    (void)b;
    (void)mem;
    (void)n;
    return -EPERM;
}

bool backend_fenced_pins = true;

/* What is pinned may go as soon as nothing is late that is from or to it. */
static int fenced_pin(struct backend *b, void *mem, size_t n)
{
    (void)b;
    (void)mem;
    (void)n;
    return backend_fenced_pins ? 0 : -ENOMEM;
}

static void fenced_unpin(struct backend *b, void *mem, size_t n)
{
    (void)mem;
    (void)n;
    (void)leave(enter(b), 0);
}

static void *fenced_host(struct backend *b, void *mem)
{
    (void)b;
    (void)mem;
    return NULL;
}

static int fenced_copy(struct backend *b, void *to, const void *from, size_t n,
                       uint64_t *ret_ticket)
{
    struct fenced *f = fenced_of(b);

    if (!ret_ticket || f->asked - f->made == COPIES_MAX - 1) {
        f = enter(b);
        memcpy(to, from, n);
        if (ret_ticket)
            *ret_ticket = f->made;
        return leave(f, 0);
    }
    *ret_ticket = ++f->asked;
    f->copies[f->asked % COPIES_MAX] = (struct late){ to, from, n };
    return 0;
}

static int fenced_put(struct backend *b, void *to, const void *host, size_t n, uint64_t *ret_ticket)
{
    return fenced_copy(b, to, host, n, ret_ticket);
}

static int fenced_get(struct backend *b, void *host, const void *from, size_t n,
                      uint64_t *ret_ticket)
{
    return fenced_copy(b, host, from, n, ret_ticket);
}

static int fenced_clear(struct backend *b, void *mem, size_t n)
{
    struct fenced *f = enter(b);

    memset(mem, 0, n);
    return leave(f, 0);
}

static int fenced_done(struct backend *b, uint64_t ticket)
{
    struct fenced *f = fenced_of(b);

    if (ticket <= f->made)
        return 1;
    if (f->looked)
        (void)leave(enter(b), 0);
    else
        (void)eventfd_write(f->bell, 1); /* it is done for who comes again */
    f->looked = true;
    return ticket <= f->made;
}

static int fenced_eventfd(struct backend *b)
{
    return fenced_of(b)->bell;
}

/* --- computing: the CPU's, inside the fence --------------------------------------------------- */

static int fenced_set_model(struct backend *b, const struct model *m, struct why *why)
{
    struct fenced *f = enter(b);

    return leave(f, f->cpu->ops->set_model(f->cpu, m, why));
}

struct outside {
    struct fenced *f;
    const struct forward_stop *stop;
    uint32_t asked;
};

/* The host is asked, and looks at what it likes meanwhile, but not in here. */
static bool stop_outside(void *arg)
{
    struct outside *o = arg;
    bool stop, closes = o->asked++ % CLOSE_EVERY == 0;

    if (closes)
        set_fence(o->f, false);
    stop = o->stop->fn(o->stop->arg);
    if (closes)
        set_fence(o->f, true);
    return stop;
}

static int fenced_step(struct backend *b, const struct plan *plan, const struct forward_stop *stop)
{
    struct fenced *f = beside(b);
    struct outside o = { f, stop, 0 };
    struct forward_stop inner = { stop_outside, &o };

    return leave(f, f->cpu->ops->step(f->cpu, plan, stop ? &inner : NULL));
}

static int fenced_logits(struct backend *b, uint32_t first, uint32_t n, float *host)
{
    struct fenced *f = beside(b);

    return leave(f, f->cpu->ops->logits(f->cpu, first, n, host));
}

static int fenced_logprobs(struct backend *b, uint32_t first, uint32_t n, const uint32_t *ids,
                           float *host)
{
    struct fenced *f = beside(b);

    return leave(f, f->cpu->ops->logprobs(f->cpu, first, n, ids, host));
}

static int fenced_hidden(struct backend *b, uint32_t first, uint32_t n, float *to)
{
    struct fenced *f = beside(b);

    return leave(f, f->cpu->ops->hidden(f->cpu, first, n, to));
}

static int fenced_copy_page(struct backend *b, const struct pool *p, uint32_t from, uint32_t to)
{
    struct fenced *f = enter(b);

    return leave(f, f->cpu->ops->copy_page(f->cpu, p, from, to));
}

static int fenced_move(struct backend *b, const struct backend_move *m)
{
    struct fenced *f = beside(b);

    return leave(f, f->cpu->ops->move(f->cpu, m));
}

static int fenced_norms(struct backend *b, const struct pool *p, const uint32_t *pages,
                        uint32_t n_keys, float *host)
{
    struct fenced *f = beside(b);

    return leave(f, f->cpu->ops->norms(f->cpu, p, pages, n_keys, host));
}

static int fenced_fit(struct backend *b, const struct backend_fit *a)
{
    struct fenced *f = beside(b);

    return leave(f, f->cpu->ops->fit(f->cpu, a));
}

static void fenced_run(struct backend *b, backend_slice_fn *fn, void *arg, uint32_t n)
{
    struct fenced *f = fenced_of(b);

    f->cpu->ops->run(f->cpu, fn, arg, n); /* host work: outside */
}

static void fenced_rest(struct backend *b)
{
    struct fenced *f = fenced_of(b);

    f->cpu->ops->rest(f->cpu);
}

static void fenced_info(const struct backend *b, struct backend_info *ret)
{
    const struct fenced *f = (const struct fenced *)b;

    f->cpu->ops->info(f->cpu, ret);
    (void)snprintf(ret->name, sizeof(ret->name), "fenced");
}

static void fenced_close(struct backend *b)
{
    struct fenced *f = fenced_of(b);

    for (int i = 0; i < AREAS_MAX; i++)
        if (f->areas[i].mem) {
            fprintf(stderr, "backend_fenced: %zu bytes were not freed\n", f->areas[i].len);
            abort();
        }
    f->cpu->ops->close(f->cpu);
    (void)close(f->bell);
    free(f);
}

static int fenced_need(const struct backend_options *o, const struct model *m, uint64_t *ret,
                       struct why *why)
{
    struct backend_options scalar = *o;

    scalar.cpu = "scalar";
    return backend_cpu.need(&scalar, m, ret, why);
}

static int fenced_open(const struct backend_options *o, struct backend **ret, struct why *why)
{
    struct fenced *f = calloc(1, sizeof(*f));
    struct backend_options scalar = *o;
    int r;

    if (!f)
        return why_set(why, -ENOMEM, "no memory for a backend");
    f->b.ops = &backend_fenced;
    f->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    scalar.cpu = "scalar";
    r = f->bell < 0 ? -errno : backend_open(&backend_cpu, &scalar, &f->cpu, why);
    if (r < 0) {
        if (f->bell >= 0)
            (void)close(f->bell);
        free(f);
        return r;
    }
    *ret = &f->b;
    return 0;
}

const struct backend_ops backend_fenced = {
    .abi = BACKEND_ABI,
    .size = sizeof(struct backend_ops),
    .name = "fenced",
    .need = fenced_need,
    .open = fenced_open,
    .close = fenced_close,
    .info = fenced_info,
    .alloc = fenced_alloc,
    .free = fenced_free,
    .lock = fenced_lock,
    .pin = fenced_pin,
    .unpin = fenced_unpin,
    .host = fenced_host,
    .put = fenced_put,
    .get = fenced_get,
    .clear = fenced_clear,
    .done = fenced_done,
    .eventfd = fenced_eventfd,
    .set_model = fenced_set_model,
    .step = fenced_step,
    .logits = fenced_logits,
    .logprobs = fenced_logprobs,
    .hidden = fenced_hidden,
    .copy_page = fenced_copy_page,
    .move = fenced_move,
    .norms = fenced_norms,
    .fit = fenced_fit,
    .run = fenced_run,
    .rest = fenced_rest,
};
