/* engine/cpu/backend_cpu.c - engine/backend.h by this machine's CPUs.
 *
 * Memory of this backend is memory of the process, so host is always there, copies are done when
 * they return, and no ticket is ever waited for. What computes is in files of its own; here they
 * are put together and called.
 */
#include "engine/cpu/backend_cpu.h"

#include "base/thread.h"
#include "engine/cpu/fit.h"
#include "engine/cpu/layers.h"
#include "engine/cpu/move.h"
#include "engine/cpu/place.h"
#include "engine/kv/pool.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct cpu {
    struct backend b;
    const struct kernels *k;
    struct workers *w;
    uint32_t max_rows;
    struct layers *layers; /* NULL until there is a model, and so are the others */
    struct move *move;
    struct fit *fit;
};

/* The struct backend comes first, so they have one address. */
static struct cpu *cpu_of(struct backend *b)
{
    return (struct cpu *)b;
}

/* --- opening ---------------------------------------------------------------------------------- */

/* The names that this CPU has, with commas between them. */
static const char *kernels_here(char *ret, size_t cap)
{
    size_t n = 0;

    ret[0] = '\0';
    for (unsigned i = 0; kernels_name(i) && n < cap; i++)
        n += (size_t)snprintf(ret + n, cap - n, "%s%s", i ? ", " : "", kernels_name(i));
    return ret;
}

/* Both errors name the option: a user who moved a configuration to another machine reads them. */
static int pick_kernels(const char *name, const struct kernels **ret, struct why *why)
{
    char here[64];
    int r = kernels_pick(name, ret);

    if (r == -ENOTSUP)
        return why_set(why, r, "option cpu: this CPU has no %s; it has %s", name,
                       kernels_here(here, sizeof(here)));
    return r < 0 ? why_set(why, r, "option cpu: there are no kernels %s", name) : 0;
}

/* Asked by need before there are any workers: the same number, or its bytes would be wrong. */
static uint32_t count_workers(const struct backend_options *o)
{
    uint32_t n = o->threads ? o->threads : thread_n_cpus();

    return n > WORKERS_MAX ? WORKERS_MAX : n;
}

/* A refused pinning is no error (engine/cpu/workers.h), a thread that can't be had is one. */
static int open_workers(const struct backend_options *o, struct workers **ret, struct why *why)
{
    uint32_t n = count_workers(o);
    int r;

    r = workers_open(n, o->pin, ret);
    return r < 0 ? why_set(why, r, "%u computing threads: %s", n, strerror(-r)) : 0;
}

/* Takes the workers, also where it fails. For tests and benchmarks too, which have workers
 * already. */
int backend_cpu_open(const struct kernels *k, struct workers *w, uint32_t max_rows,
                     struct backend **ret)
{
    struct cpu *c = malloc(sizeof(*c));

    if (!c) {
        workers_close(w);
        return -ENOMEM;
    }
    *c = (struct cpu){ .b = { &backend_cpu }, .k = k, .w = w, .max_rows = max_rows };
    *ret = &c->b;
    return 0;
}

static int cpu_open(const struct backend_options *o, struct backend **ret, struct why *why)
{
    const struct kernels *k;
    struct workers *w;
    int r = pick_kernels(o->cpu, &k, why);

    if (r == 0)
        r = open_workers(o, &w, why);
    if (r == 0 && backend_cpu_open(k, w, o->max_rows, ret) < 0)
        r = why_set(why, -ENOMEM, "no memory for the CPU's part");
    return r;
}

/* The workers last: the others lent their jobs to them. Each accepts NULL, of a backend without a
 * model. */
static void cpu_close(struct backend *b)
{
    struct cpu *c = cpu_of(b);

    fit_close(c->fit);
    move_close(c->move);
    layers_close(c->layers);
    workers_close(c->w);
    free(c);
}

/* exact_rows: a value is accumulated in one order whatever else is in the step
 * (engine/cpu/kernels.h). */
static void cpu_info(const struct backend *b, struct backend_info *ret)
{
    const struct cpu *c = (const struct cpu *)b;

    *ret = (struct backend_info){ .cpu = c->k->name,
                                  .threads = workers_n(c->w),
                                  .owner_cpu = workers_owner_cpu(c->w),
                                  .exact_rows = true,
                                  .scratch_bytes = (c->layers ? layers_bytes(c->layers) : 0) +
                                                   (c->fit ? fit_bytes(c->fit) : 0),
                                  .sampling = &c->k->sampling };
    (void)snprintf(ret->name, sizeof(ret->name), "cpu (%s)", c->k->name);
}

/* --- memory: that of the process -------------------------------------------------------------- */

/* A promise, which populate makes true. */
static int cpu_alloc(struct backend *b, size_t n, void **ret)
{
    (void)b;
    return place_alloc(n, ret);
}

static void cpu_free(struct backend *b, void *mem, size_t n)
{
    (void)b;
    place_free(mem, n);
}

static int cpu_populate(struct backend *b, void *mem, size_t n)
{
    return place_populate(cpu_of(b)->w, mem, n);
}

static int cpu_discard(struct backend *b, void *mem, size_t n)
{
    (void)b;
    return place_discard(mem, n);
}

/* The caller logs whether it was allowed. */
static int cpu_lock(struct backend *b, void *mem, size_t n)
{
    (void)b;
    return mlock(mem, n) < 0 ? -errno : 0;
}

static int cpu_alloc_kept(struct backend *b, size_t n, void **ret, int *ret_fd)
{
    return place_kept_alloc(cpu_of(b)->w, n, ret, ret_fd);
}

static int cpu_seal_kept(struct backend *b, void *mem, size_t n, int fd)
{
    (void)b;
    return place_kept_seal(mem, n, fd);
}

static int cpu_map_kept(struct backend *b, int fd, size_t n, void **ret)
{
    return place_kept_map(cpu_of(b)->w, fd, n, ret);
}

/* All of this backend's memory is the host's. */
static void *cpu_host(struct backend *b, void *mem)
{
    (void)b;
    return mem;
}

/* Copies are done when the call returns. */
static int copy(void *to, const void *from, size_t n, uint64_t *ret_ticket)
{
    memcpy(to, from, n);
    if (ret_ticket)
        *ret_ticket = 1;
    return 0;
}

static int cpu_put(struct backend *b, void *to, const void *host, size_t n, uint64_t *ret_ticket)
{
    (void)b;
    return copy(to, host, n, ret_ticket);
}

static int cpu_get(struct backend *b, void *host, const void *from, size_t n, uint64_t *ret_ticket)
{
    (void)b;
    return copy(host, from, n, ret_ticket);
}

static int cpu_clear(struct backend *b, void *mem, size_t n)
{
    (void)b;
    memset(mem, 0, n);
    return 0;
}

/* Any ticket is one of a copy that has returned. */
static int cpu_done(struct backend *b, uint64_t ticket)
{
    (void)b;
    (void)ticket;
    return 1;
}

/* None: nobody has to wait for what is done. */
static int cpu_eventfd(struct backend *b)
{
    (void)b;
    return -1;
}

static int cpu_copy_page(struct backend *b, const struct pool *p, uint32_t from, uint32_t to)
{
    (void)b;
    memcpy(p->mem + to * p->page_bytes, p->mem + from * p->page_bytes, p->page_bytes);
    return 0;
}

/* --- the model -------------------------------------------------------------------------------- */

/* Once: what moves and fits keys takes the angles of the layers'. On an error close frees what
 * there is. */
static int cpu_set_model(struct backend *b, const struct model *m, struct why *why)
{
    struct cpu *c = cpu_of(b);
    int r;

    assert(!c->layers);
    r = layers_open(m, c->k, c->w, c->max_rows, &c->layers, why);
    if (r == 0 && move_open(m, c->k, c->w, layers_rotary(c->layers), &c->move) < 0)
        r = why_set(why, -ENOMEM, "no memory for moving keys");
    if (r == 0 && fit_open(m, c->k, c->w, layers_rotary(c->layers), &c->fit) < 0)
        r = why_set(why, -ENOMEM, "no memory for fitting values");
    return r;
}

/* Scratch of steps, and the desks of what fits values for segments of the length that is usual: who
 * has longer ones takes more (engine/cpu/fit.c). */
static int cpu_need(const struct backend_options *o, const struct model *m, uint64_t *ret,
                    struct why *why)
{
    const struct kernels *k;
    int r = pick_kernels(o->cpu, &k, why);

    if (r == 0)
        *ret = layers_need(m, k, count_workers(o), o->max_rows) +
               (o->segment ? fit_need(m, count_workers(o), o->segment) : 0);
    return r;
}

static int cpu_step(struct backend *b, const struct plan *plan, const struct forward_stop *stop)
{
    return layers_run(cpu_of(b)->layers, plan, stop);
}

static int cpu_logits(struct backend *b, uint32_t first, uint32_t n, float *host)
{
    return layers_logits(cpu_of(b)->layers, first, n, host);
}

static int cpu_logprobs(struct backend *b, uint32_t first, uint32_t n, const uint32_t *ids,
                        float *host)
{
    return layers_logprobs(cpu_of(b)->layers, first, n, ids, host);
}

static int cpu_hidden(struct backend *b, uint32_t first, uint32_t n, float *to)
{
    layers_hidden(cpu_of(b)->layers, first, n, to);
    return 0;
}

static int cpu_move(struct backend *b, const struct backend_move *m)
{
    move_run(cpu_of(b)->move, m);
    return 0;
}

static int cpu_norms(struct backend *b, const struct pool *p, const uint32_t *pages,
                     uint32_t n_keys, float *host)
{
    move_norms(cpu_of(b)->move, p, pages, n_keys, host);
    return 0;
}

static int cpu_fit(struct backend *b, const struct backend_fit *f)
{
    return fit_run(cpu_of(b)->fit, f);
}

/* --- host work -------------------------------------------------------------------------------- */

static void cpu_run(struct backend *b, backend_slice_fn *fn, void *arg, uint32_t n)
{
    workers_run(cpu_of(b)->w, fn, arg, n);
}

static void cpu_rest(struct backend *b)
{
    workers_rest(cpu_of(b)->w);
}

/* No look (there is always one), lost, pin or pick: each NULL means what engine/backend.h says of
 * it. */
const struct backend_ops backend_cpu = {
    .abi = BACKEND_ABI,
    .size = sizeof(struct backend_ops),
    .name = "cpu",
    .need = cpu_need,
    .open = cpu_open,
    .close = cpu_close,
    .info = cpu_info,
    .alloc = cpu_alloc,
    .populate = cpu_populate,
    .free = cpu_free,
    .lock = cpu_lock,
    .alloc_kept = cpu_alloc_kept,
    .seal_kept = cpu_seal_kept,
    .map_kept = cpu_map_kept,
    .host = cpu_host,
    .put = cpu_put,
    .get = cpu_get,
    .clear = cpu_clear,
    .done = cpu_done,
    .eventfd = cpu_eventfd,
    .set_model = cpu_set_model,
    .step = cpu_step,
    .logits = cpu_logits,
    .logprobs = cpu_logprobs,
    .hidden = cpu_hidden,
    .copy_page = cpu_copy_page,
    .move = cpu_move,
    .norms = cpu_norms,
    .fit = cpu_fit,
    .run = cpu_run,
    .rest = cpu_rest,
    .discard = cpu_discard,
};
