#include "cuda/backend_cuda.h"

#include "cuda/rt.h"
#include "cuda/shift.h"
#include "cuda/stage.h"
#include "cuda/step.h"
#include "engine/kv/pool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cuda {
    struct backend b;
    struct backend *host; /* the CPU's, for host work */
    struct rt *rt;
    struct stage *stage;  /* for what computes */
    struct stage *spills; /* copies with a ticket: they run beside what computes */
    struct step *step;    /* NULL until there is a model, and so is the other */
    struct shift *shift;
    unsigned device;
    uint32_t max_rows;
    bool lost; /* the device failed: nothing of it is asked any more */
};

static struct cuda *cuda_of(struct backend *b)
{
    return (struct cuda *)b;
}

/* --- opening ---------------------------------------------------------------------------------- */

static int cuda_look(unsigned device, struct why *why)
{
    return rt_look(device, why);
}

static void close_device(struct cuda *c)
{
    shift_close(c->shift);
    step_close(c->step);
    stage_close(c->spills);
    stage_close(c->stage);
    rt_close(c->rt);
    c->shift = NULL;
    c->step = NULL;
    c->spills = c->stage = NULL;
    c->rt = NULL;
}

static int open_device(struct cuda *c, struct why *why)
{
    int r = rt_open(c->device, &c->rt, why);

    if (r == 0 &&
        (stage_open(c->rt, RT_COPY, &c->stage) < 0 || stage_open(c->rt, RT_SPILL, &c->spills) < 0))
        r = why_set(why, -ENOMEM, "no pinned memory for copies to %s:%u", rt_name, c->device);
    return r;
}

static void cuda_close(struct backend *b)
{
    struct cuda *c = cuda_of(b);

    close_device(c);
    if (c->host)
        c->host->ops->close(c->host);
    free(c);
}

static int cuda_open(const struct backend_options *o, struct backend **ret, struct why *why)
{
    struct cuda *c = calloc(1, sizeof(*c));
    int r;

    if (!c)
        return why_set(why, -ENOMEM, "no memory for a backend");
    c->b.ops = gistd_backend();
    c->device = o->device;
    c->max_rows = o->max_rows;
    r = o->host->open(o, &c->host, why);
    if (r == 0)
        r = open_device(c, why);
    if (r < 0) {
        cuda_close(&c->b);
        return r;
    }
    *ret = &c->b;
    return 0;
}

static void cuda_info(const struct backend *b, struct backend_info *ret)
{
    const struct cuda *c = (const struct cuda *)b;
    struct rt_info rt = { .name = "lost" };

    c->host->ops->info(c->host, ret);
    ret->exact_rows = false; /* a row of many is multiplied in another way than one of a few */
    if (c->rt)
        rt_info(c->rt, &rt);
    ret->scratch_bytes = c->step ? step_bytes(c->step) + shift_bytes(c->shift) : 0;
    ret->memory = rt.bytes;
    ret->memory_free = rt.bytes_free;
    (void)snprintf(ret->name, sizeof(ret->name), "%s:%u (%s)", rt_name, c->device, rt.name);
}

static bool cuda_lost(const struct backend *b)
{
    return ((const struct cuda *)b)->lost;
}

/* What is left of it goes first, which the runtime answers with errors; then the runtime is told to
 * begin anew. After some errors it can't, and says so here: then it takes another process. */
static int cuda_reopen(struct backend *b, struct why *why)
{
    struct cuda *c = cuda_of(b);
    int r;

    close_device(c);
    rt_reset(c->device);
    r = open_device(c, why);
    if (r < 0)
        close_device(c);
    c->lost = r < 0;
    return r;
}

/* --- memory ----------------------------------------------------------------------------------- */

/* An error of the device is its last word: what it has is not to be trusted, and asking again may
 * hang. */
static int said(struct cuda *c, int r)
{
    c->lost |= r == -EIO;
    return r;
}

static int ready(const struct cuda *c)
{
    return c->lost ? -EIO : 0;
}

/* What computes from now on sees all copies. */
static int join_all(struct cuda *c)
{
    int r = stage_join(c->stage);

    return r == 0 ? stage_join(c->spills) : r;
}

/* A copy sees those before it, of both kinds, by way of what computes: which shall not wait for one
 * with a ticket only because there is another. */
static int join_for(struct cuda *c, const uint64_t *ret_ticket)
{
    return ret_ticket ? stage_join(c->stage) : join_all(c);
}

static int cuda_clear(struct backend *b, void *mem, size_t n)
{
    struct cuda *c = cuda_of(b);
    int r = ready(c);

    if (r == 0)
        r = join_all(c);
    if (r == 0)
        r = rt_clear(c->rt, RT_COMPUTE, mem, n);
    return said(c, r);
}

static int cuda_alloc(struct backend *b, size_t n, void **ret)
{
    struct cuda *c = cuda_of(b);
    void *mem;
    int r = ready(c);

    if (r == 0)
        r = rt_alloc(c->rt, n, &mem);
    if (r < 0)
        return said(c, r);
    r = cuda_clear(b, mem, n);
    if (r < 0) {
        rt_free(c->rt, mem);
        return r;
    }
    *ret = mem;
    return 0;
}

/* Copies and kernels that are queued may still read or write it. */
static void cuda_free(struct backend *b, void *mem, size_t n)
{
    struct cuda *c = cuda_of(b);

    (void)n;
    if (!c->lost) {
        (void)said(c, rt_wait(c->rt, RT_COPY));
        (void)said(c, rt_wait(c->rt, RT_SPILL));
        (void)said(c, rt_wait(c->rt, RT_COMPUTE));
    }
    if (c->rt)
        rt_free(c->rt, mem);
}

/* A device's memory is never swapped out. */
static int cuda_lock(struct backend *b, void *mem, size_t n)
{
    (void)b;
    (void)mem;
    (void)n;
    return 0;
}

/* What is not pinned is no error of the device's. */
static int cuda_pin(struct backend *b, void *mem, size_t n)
{
    struct cuda *c = cuda_of(b);
    int r = ready(c);

    return r == 0 ? rt_pin(c->rt, mem, n) : r;
}

static void cuda_unpin(struct backend *b, void *mem, size_t n)
{
    struct cuda *c = cuda_of(b);

    (void)n;
    if (!c->lost)
        (void)said(c, rt_wait(c->rt, RT_SPILL));
    if (c->rt)
        rt_unpin(c->rt, mem);
}

static void *cuda_host(struct backend *b, void *mem)
{
    (void)b;
    (void)mem;
    return NULL;
}

static int cuda_put(struct backend *b, void *to, const void *host, size_t n, uint64_t *ret_ticket)
{
    struct cuda *c = cuda_of(b);
    int r = ready(c);

    if (r == 0)
        r = join_for(c, ret_ticket);
    if (r == 0)
        r = stage_put(ret_ticket ? c->spills : c->stage, to, host, n, ret_ticket);
    return said(c, r);
}

static int cuda_get(struct backend *b, void *host, const void *from, size_t n, uint64_t *ret_ticket)
{
    struct cuda *c = cuda_of(b);
    int r = ready(c);

    if (r == 0)
        r = join_for(c, ret_ticket);
    if (r == 0)
        r = stage_get(ret_ticket ? c->spills : c->stage, host, from, n, ret_ticket);
    return said(c, r);
}

static int cuda_done(struct backend *b, uint64_t ticket)
{
    struct cuda *c = cuda_of(b);

    return c->spills ? said(c, stage_done(c->spills, ticket)) : -EIO;
}

static int cuda_eventfd(struct backend *b)
{
    struct cuda *c = cuda_of(b);

    return c->spills ? stage_eventfd(c->spills) : -1;
}

static int cuda_copy_page(struct backend *b, const struct pool *p, uint32_t from, uint32_t to)
{
    struct cuda *c = cuda_of(b);
    int r = ready(c);

    if (r == 0)
        r = join_all(c);
    if (r == 0)
        r = rt_copy(c->rt, RT_COMPUTE, p->mem + to * p->page_bytes, p->mem + from * p->page_bytes,
                    p->page_bytes);
    return said(c, r);
}

/* --- computing -------------------------------------------------------------------------------- */

static int cuda_need(const struct backend_options *o, const struct model *m, uint64_t *ret,
                     struct why *why)
{
    (void)why;
    *ret = step_need(m, o->max_rows, o->max_pages) + shift_need(m);
    return 0;
}

static int cuda_set_model(struct backend *b, const struct model *m, struct why *why)
{
    struct cuda *c = cuda_of(b);
    int r = step_open(c->rt, c->stage, m, c->max_rows, &c->step, why);

    if (r == 0 && shift_open(c->rt, c->stage, m, step_angles(c->step), &c->shift) < 0)
        r = why_set(why, -ENOMEM, "no memory on the device for moving keys");
    return said(c, r);
}

static int cuda_step(struct backend *b, const struct plan *plan, const struct forward_stop *stop)
{
    struct cuda *c = cuda_of(b);
    int r = ready(c);

    return r < 0 ? r : said(c, step_run(c->step, plan, stop));
}

static int cuda_logits(struct backend *b, uint32_t first, uint32_t n, float *host)
{
    struct cuda *c = cuda_of(b);
    int r = ready(c);

    return r < 0 ? r : said(c, step_logits(c->step, first, n, host));
}

static int cuda_logprobs(struct backend *b, uint32_t first, uint32_t n, const uint32_t *ids,
                         float *host)
{
    struct cuda *c = cuda_of(b);
    int r = ready(c);

    return r < 0 ? r : said(c, step_logprobs(c->step, first, n, ids, host));
}

static int cuda_hidden(struct backend *b, uint32_t first, uint32_t n, float *to)
{
    struct cuda *c = cuda_of(b);
    int r = ready(c);

    return r < 0 ? r : said(c, step_hidden(c->step, first, n, to));
}

static int cuda_pick(struct backend *b, uint32_t first, uint32_t n, const struct sampler_ask *asks,
                     struct sampler_found *ret, struct sampler_candidate *ret_c)
{
    struct cuda *c = cuda_of(b);
    int r = ready(c);

    return r < 0 ? r : said(c, step_pick(c->step, first, n, asks, ret, ret_c));
}

static int cuda_move(struct backend *b, const struct backend_move *m)
{
    struct cuda *c = cuda_of(b);
    int r = ready(c);

    return r < 0 ? r : said(c, shift_move(c->shift, m));
}

static int cuda_norms(struct backend *b, const struct pool *p, const uint32_t *pages,
                      uint32_t n_keys, float *host)
{
    struct cuda *c = cuda_of(b);
    int r = ready(c);

    return r < 0 ? r : said(c, shift_norms(c->shift, p, pages, n_keys, host));
}

static int cuda_fit(struct backend *b, const struct backend_fit *f)
{
    struct cuda *c = cuda_of(b);
    int r = ready(c);

    return r < 0 ? r : said(c, shift_fit(c->shift, f));
}

/* --- host work -------------------------------------------------------------------------------- */

static void cuda_run(struct backend *b, backend_slice_fn *fn, void *arg, uint32_t n)
{
    struct cuda *c = cuda_of(b);

    c->host->ops->run(c->host, fn, arg, n);
}

static void cuda_rest(struct backend *b)
{
    struct cuda *c = cuda_of(b);

    c->host->ops->rest(c->host);
}

const struct backend_ops *gistd_backend(void)
{
    static const struct backend_ops ops = {
        .abi = BACKEND_ABI,
        .size = sizeof(struct backend_ops),
        .name = rt_name,
        .look = cuda_look,
        .need = cuda_need,
        .open = cuda_open,
        .close = cuda_close,
        .info = cuda_info,
        .lost = cuda_lost,
        .reopen = cuda_reopen,
        .alloc = cuda_alloc,
        .free = cuda_free,
        .lock = cuda_lock,
        .pin = cuda_pin,
        .unpin = cuda_unpin,
        .host = cuda_host,
        .put = cuda_put,
        .get = cuda_get,
        .clear = cuda_clear,
        .done = cuda_done,
        .eventfd = cuda_eventfd,
        .set_model = cuda_set_model,
        .step = cuda_step,
        .logits = cuda_logits,
        .logprobs = cuda_logprobs,
        .hidden = cuda_hidden,
        .pick = cuda_pick,
        .copy_page = cuda_copy_page,
        .move = cuda_move,
        .norms = cuda_norms,
        .fit = cuda_fit,
        .run = cuda_run,
        .rest = cuda_rest,
    };

    return &ops;
}
