/* cuda/backend_cuda.c - the table of engine/backend.h, over one device or several. Of one,
 * addresses are the device's own; of several they stand for parts (cuda/spread.h), and each call
 * goes to those that have them. A step goes from device to device, or is made by all together
 * (cuda/together.h).
 */
#include "cuda/backend_cuda.h"

#include "base/least.h"
#include "cuda/backend_inner.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* The one with the last layers, and with the output matrix in any case. */
static struct part *last_of(struct cuda *c)
{
    return &c->parts[c->n - 1];
}

/* --- opening ---------------------------------------------------------------------------------- */

/* Fills in what "all" means. Each is looked at before any is opened. */
static int cuda_look(struct backend_devices *d, struct why *why)
{
    unsigned n;
    int r = 0;

    if (d->n == BACKEND_DEVICES_ALL) {
        r = rt_count(&n, why);
        if (r < 0)
            return r;
        d->n = n < BACKEND_DEVICES_MAX ? n : BACKEND_DEVICES_MAX;
        for (uint32_t i = 0; i < d->n; i++)
            d->at[i] = (uint8_t)i;
    }
    /* Nobody said which: the first. */
    if (d->n == 0)
        *d = (struct backend_devices){ .n = 1 };
    for (uint32_t i = 0; i < d->n && r == 0; i++)
        r = rt_look(d->at[i], why);
    return r;
}

/* Sums first, as they use streams; links and the spread give memory back by way of the parts'
 * runtimes. Views stay: opening again has the same. */
static void close_devices(struct cuda *c)
{
    together_close(c->together, c->lost);
    c->together = NULL;
    for (uint32_t i = 0; i < c->n; i++) {
        link_close(c->links[i]);
        c->links[i] = NULL;
    }
    spread_close(c->spread);
    c->spread = NULL;
    for (uint32_t i = 0; i < c->n; i++) {
        part_close(&c->parts[i]);
        c->parts[i].view.spread = NULL;
    }
    if (c->bell >= 0)
        (void)close(c->bell); /* behind all who ring it */
    c->bell = -1;
}

static int open_devices(struct cuda *c, struct why *why)
{
    struct rt *rts[BACKEND_DEVICES_MAX];
    int r = 0;

    /* Before the parts, whose stages ring it. */
    c->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->bell < 0)
        return why_set(why, -errno, "no descriptor for a backend");
    for (uint32_t i = 0; i < c->n && r == 0; i++) {
        /* part_open begins with nothing; of a device that was lost the view is kept. */
        struct spread_view view = c->parts[i].view;

        r = part_open(&c->parts[i], c->parts[i].number, c->bell, why);
        c->parts[i].view = view;
        /* NULL behind a part that did not open: the loop ends then. */
        rts[i] = c->parts[i].rt;
    }
    if (r == 0 && c->n > 1 && spread_open(rts, c->n, &c->spread) < 0)
        r = why_set(why, -ENOMEM, "no memory for a backend");
    for (uint32_t i = 0; i < c->n; i++)
        c->parts[i].view.spread = c->spread;
    return r;
}

static void cuda_close(struct backend *b)
{
    struct cuda *c = cuda_of(b);

    close_devices(c);
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
    assert(o->devices.n <= BACKEND_DEVICES_MAX);
    c->b.ops = gistd_backend();
    c->n = o->devices.n ? o->devices.n : 1;
    for (uint32_t i = 0; i < c->n; i++)
        c->parts[i] = (struct part){ .number = o->devices.at[i] };
    c->max_rows = o->max_rows;
    /* One device has whole layers, whatever was asked for. */
    c->split = c->n > 1 ? o->split : BACKEND_SPLIT_LAYER;
    c->n_tickets = 1; /* as a stage counts: a copy of no bytes has the ticket of the one before */
    c->bell = -1;
    /* The CPU's backend does what the host does of a step: this one asks it. */
    r = o->host->open(o, &c->host, why);
    if (r == 0)
        r = open_devices(c, why);
    if (r < 0) {
        cuda_close(&c->b);
        return r;
    }
    *ret = &c->b;
    return 0;
}

/* After a loss that could not be mended there is no runtime to ask. */
static void info_of(const struct part *p, struct backend_device *ret)
{
    struct rt_info rt = { .name = "lost" };

    if (p->rt)
        rt_info(p->rt, &rt);
    *ret = (struct backend_device){ .memory = rt.bytes,
                                    .memory_free = rt.bytes_free,
                                    .scratch_bytes = part_scratch(p),
                                    .first_layer = p->view.first_layer,
                                    .n_layers = p->model.n_layer };
    (void)snprintf(ret->name, sizeof(ret->name), "%s:%u (%s)", rt_name, p->number, rt.name);
}

/* "cuda:0,1 (NVIDIA H200)": what the first is. A list of numbers, and what the first one is called.
 */
static void name_of(const struct cuda *c, const char *first, char *ret, size_t len)
{
    const char *kind = strchr(first, ' ');
    size_t n = (size_t)snprintf(ret, len, "%s:", rt_name);

    for (uint32_t i = 0; i < c->n && n < len; i++)
        n += (size_t)snprintf(ret + n, len - n, "%s%u", i ? "," : "", c->parts[i].number);
    if (n < len)
        (void)snprintf(ret + n, len - n, "%s", kind ? kind : "");
}

static void cuda_info(const struct backend *b, struct backend_info *ret)
{
    const struct cuda *c = (const struct cuda *)b;

    c->host->ops->info(c->host, ret);
    ret->exact_rows = false; /* a row of many is multiplied in another way than one of a few */
    ret->scratch_bytes = 0;
    ret->memory = ret->memory_free = 0;
    ret->n_devices = c->n > 1 ? c->n : 0;
    ret->split = c->split;
    for (uint32_t i = 0; i < c->n; i++) {
        struct backend_device *d = &ret->devices[i];

        info_of(&c->parts[i], d);
        if (c->together)
            d->scratch_bytes += together_need(&c->parts[i].model, c->n, c->max_rows);
        /* What all have together; of scratch the most that one needs. */
        ret->memory += d->memory;
        ret->memory_free += d->memory_free;
        /* Pages have the room that the fullest device leaves. */
        if (ret->scratch_bytes < d->scratch_bytes)
            ret->scratch_bytes = d->scratch_bytes;
    }
    name_of(c, ret->devices[0].name, ret->name, sizeof(ret->name));
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

    close_devices(c);
    for (uint32_t i = 0; i < c->n; i++)
        rt_reset(c->parts[i].number);
    r = open_devices(c, why);
    if (r < 0)
        close_devices(c);
    /* Opened again it has no model and no memory: both are made anew by the caller. */
    c->lost = r < 0;
    return r;
}

/* --- computing -------------------------------------------------------------------------------- */

/* Of devices that have a part of each layer, the largest part. */
static int need_together(const struct backend_options *o, const struct model *m, uint64_t *ret,
                         struct why *why)
{
    struct model_layer *layers = calloc(m->n_layer, sizeof(*layers));
    struct divide divide;
    struct model part;
    uint64_t most = 0;
    int r = layers ? divide_tensors(m, o->devices.n, &divide, why)
                   : why_set(why, -ENOMEM, "no memory for a model's layers");

    for (uint32_t i = 0; i < o->devices.n && r == 0; i++) {
        /* Shapes alone: no address is looked up. */
        const struct spread_view v = { .device = i, .divide = &divide };
        uint64_t here;

        view_model(&v, m, m->n_layer, layers, &part);
        here = step_need(&part, o->max_rows, o->max_pages) + shift_need(&part);
        most = here > most ? here : most;
    }
    free(layers);
    if (r == 0)
        *ret = most + together_need(m, o->devices.n, o->max_rows);
    return r;
}

/* Of layers on several devices this is what each takes beside its layers, at most. */
static int cuda_need(const struct backend_options *o, const struct model *m, uint64_t *ret,
                     struct why *why)
{
    if (o->split == BACKEND_SPLIT_TENSOR && o->devices.n > 1 && o->devices.n <= BACKEND_DEVICES_MAX)
        return need_together(o, m, ret, why);
    *ret = step_need(m, o->max_rows, o->max_pages) + shift_need(m);
    return 0;
}

/* A row of the residual; it is the same on all of them. */
static size_t row_bytes(const struct cuda *c)
{
    return (size_t)c->parts[0].model.n_embd * sizeof(float);
}

/* From each to the next, and from the last, which has the outputs, to the first. */
static int open_links(struct cuda *c, struct why *why)
{
    int r = 0;

    for (uint32_t i = 0; i < c->n && c->n > 1 && r == 0; i++)
        /* x and y of the most rows. */
        r = link_open(c->parts[i].rt, c->parts[(i + 1) % c->n].rt, 2 * c->max_rows * row_bytes(c),
                      &c->links[i]);
    return r < 0 ? why_set(why, r, "no pinned memory for what goes from device to device") : 0;
}

static int cuda_set_model(struct backend *b, const struct model *m, struct why *why)
{
    struct cuda *c = cuda_of(b);
    int r = ready(c);

    /* Nobody has said yet which layers are whose. */
    if (c->spread && c->divide.n == 0)
        return why_set(why, -EINVAL, "several devices have the weights of alloc_weights alone");
    for (uint32_t i = 0; i < c->n && r == 0; i++) {
        /* Each has all layers, or a part of all of them. */
        bool all = !c->spread || c->split == BACKEND_SPLIT_TENSOR;
        uint32_t n = all ? m->n_layer : c->divide.first[i + 1] - c->divide.first[i];

        r = part_set_model(&c->parts[i], m, n, c->max_rows, why);
    }
    /* Either sums or links. */
    if (r == 0 && c->split == BACKEND_SPLIT_TENSOR)
        r = together_open(c->parts, c->n, c->max_rows, &c->together, why);
    else if (r == 0)
        r = open_links(c, why);
    return said(c, r);
}

/* The rows of a step, as the layers of device i have left them. n_rows of the whole plan, also
 * behind the last layer's cut: that is on the last device. */
static int pass_rows(struct cuda *c, uint32_t i, uint32_t n_rows)
{
    struct step_residual from = step_residual(c->parts[i].step);
    struct step_residual to = step_residual(c->parts[i + 1].step);
    const struct link_piece pieces[] = { { to.x, from.x, n_rows * row_bytes(c) },
                                         { to.y, from.y, n_rows * row_bytes(c) } };

    return link_copy(c->links[i], pieces, 2);
}

static int cuda_step(struct backend *b, const struct plan *plan, const struct forward_stop *stop)
{
    struct cuda *c = cuda_of(b);
    uint32_t n_begun = 0;
    int r = ready(c);

    if (r == 0 && c->together)
        return said(c, together_step(c->together, plan, stop));
    for (uint32_t i = 0; i < c->n && r == 0; i++) {
        r = use(c, &c->parts[i]);
        /* The rows arrive behind what the device before has queued, and before what this one does.
         */
        if (r == 0 && i > 0)
            r = pass_rows(c, i - 1, plan->n_rows);
        if (r == 0) {
            r = step_begin(c->parts[i].step, plan, stop);
            n_begun++;
        }
    }
    /* All that began are ended, whatever failed: they still read the plan. An error, once there,
     * goes through all. */
    for (uint32_t i = 0; i < n_begun; i++)
        r = step_end(c->parts[i].step, stop, r);
    return said(c, r);
}

/* Outputs are the last device's, also of those that step together, of which it has the matrix. */
static int cuda_logits(struct backend *b, uint32_t first, uint32_t n, float *host)
{
    struct cuda *c = cuda_of(b);
    int r = use(c, last_of(c));

    return r < 0 ? r : said(c, step_logits(last_of(c)->step, first, n, host));
}

static int cuda_logprobs(struct backend *b, uint32_t first, uint32_t n, const uint32_t *ids,
                         float *host)
{
    struct cuda *c = cuda_of(b);
    int r = use(c, last_of(c));

    return r < 0 ? r : said(c, step_logprobs(last_of(c)->step, first, n, ids, host));
}

/* Of devices that have a part of each layer all have them. So each keeps its own copy. */
static int hidden_of_all(struct cuda *c, uint32_t first, uint32_t n, float *to)
{
    int r = 0;

    for (uint32_t i = 0; i < c->n && r == 0; i++) {
        r = use(c, &c->parts[i]);
        if (r == 0)
            r = step_hidden(c->parts[i].step, first, n, view_at(&c->parts[i].view, to));
    }
    return said(c, r);
}

/* What reads them later is the first device: soft embeddings, and a get. */
static int cuda_hidden(struct backend *b, uint32_t first, uint32_t n, float *to)
{
    struct cuda *c = cuda_of(b);
    struct part *p = last_of(c);
    void *here = NULL;
    int r = use(c, p);

    if (r == 0 && c->together)
        return hidden_of_all(c, first, n, to);
    if (r == 0) {
        here = view_at(&p->view, to);
        r = step_hidden(p->step, first, n, here);
    }
    /* In the order of both streams: nobody waits for it here. */
    if (r == 0 && c->spread)
        r = link_copy(
            c->links[c->n - 1],
            &(struct link_piece){ view_at(&c->parts[0].view, to), here, n * row_bytes(c) }, 1);
    return said(c, r);
}

/* asks, ret, ret_c: (n), the host's. */
static int cuda_pick(struct backend *b, uint32_t first, uint32_t n, const struct sampler_ask *asks,
                     struct sampler_found *ret, struct sampler_candidate *ret_c)
{
    struct cuda *c = cuda_of(b);
    int r = use(c, last_of(c));

    return r < 0 ? r : said(c, step_pick(last_of(c)->step, first, n, asks, ret, ret_c));
}

/* Each moves the keys that it has; no key goes to another device. */
static int cuda_move(struct backend *b, const struct backend_move *m)
{
    struct cuda *c = cuda_of(b);
    int r = 0;

    for (uint32_t i = 0; i < c->n && r == 0; i++) {
        r = use(c, &c->parts[i]);
        if (r == 0)
            r = shift_move(c->parts[i].shift, m);
    }
    return said(c, r);
}

/* host: of all lists; each writes those of its keys. */
static int cuda_norms(struct backend *b, const struct pool *p, const uint32_t *pages,
                      uint32_t n_keys, float *host)
{
    struct cuda *c = cuda_of(b);
    int r = 0;

    for (uint32_t i = 0; i < c->n && r == 0; i++) {
        r = use(c, &c->parts[i]);
        if (r == 0)
            r = shift_norms(c->parts[i].shift, p, pages, n_keys, host);
    }
    return said(c, r);
}

/* first: counted among the device's lists. */
static int fit_on(struct cuda *c, uint32_t device, const struct backend_fit *f, uint32_t first,
                  uint32_t n)
{
    int r = use(c, &c->parts[device]);

    return said(c, r < 0 ? r : shift_fit(c->parts[device].shift, f, first, n));
}

/* Whole layers, of which all devices do their heads at the same time; else what one has of the
 * first layer. */
static int fit_together(struct cuda *c, const struct backend_fit *f)
{
    uint32_t all = f->pool->n_head_kv, each = all / c->n;
    uint32_t layer = f->first_list / all, head = f->first_list % all;
    uint32_t fits = shift_fits(c->parts[0].shift, f);
    /* Layers at once: as many as each device has scratch for. */
    uint32_t n = head == 0 ? min_u32(f->n_lists / all, fits / each) : 0;
    int r = 0;

    for (uint32_t i = 0; i < c->n && n > 0 && r == 0; i++)
        r = fit_on(c, i, f, layer * each, n * each);
    if (n > 0)
        return r < 0 ? r : (int)(n * all);
    n = min_u32(min_u32(f->n_lists, fits), each - head % each);
    r = fit_on(c, head / each, f, layer * each + head % each, n);
    return r < 0 ? r : (int)n;
}

/* By the device that has the first of the lists; others are asked for by the next call. */
static int cuda_fit(struct backend *b, const struct backend_fit *f)
{
    struct cuda *c = cuda_of(b);
    uint32_t heads = f->pool->n_head_kv, i = 0, first, n;
    int r = ready(c);

    if (r < 0)
        return r;
    if (c->together)
        return fit_together(c, f);
    while (i + 1 < c->n && f->first_list / heads >= c->parts[i + 1].view.first_layer)
        i++;
    /* Lists of one device alone, up to its last layer. */
    first = f->first_list - c->parts[i].view.first_layer * heads;
    n = c->parts[i].model.n_layer * heads - first;
    n = min_u32(min_u32(f->n_lists, n), shift_fits(c->parts[i].shift, f));
    r = fit_on(c, i, f, first, n);
    return r < 0 ? r : (int)n;
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
        .alloc_weights = cuda_alloc_weights,
        .alloc_pages = cuda_alloc_pages,
        .get_layers = cuda_get_layers,
    };

    return &ops;
}
