/* cuda/upload.c - a step's plan in a block of pinned memory, and where its parts lie on the device.
 * Pointers that the plan has to memory of several devices become this device's own.
 */
#include "cuda/upload.h"

#include "cuda/room.h"
#include "engine/file/adapter.h"
#include "engine/plan_limits.h"

#include <string.h>

#define LEAST 16u /* entries of a part */

/* In the order that they lie in. */
enum part { ROWS, PIECES, SEGMENTS, PAGES, OUT_ROWS, GISTS, OWN, CUT, PART__N };

/* Where parts lie. Offsets are the same in both blocks. */
struct layout {
    size_t off[PART__N], bytes;
    uint32_t n_own;
};

void upload_init(struct upload *u, struct rt *rt, const struct model *m,
                 const struct spread_view *v)
{
    *u = (struct upload){ .rt = rt, .model = m };
    if (v)
        u->view = *v;
}

void upload_fini(struct upload *u)
{
    if (!u->rt)
        return;
    if (u->mem)
        rt_free(u->rt, u->mem);
    rt_free_host(u->rt, u->host);
    *u = (struct upload){ .rt = NULL };
}

size_t upload_bytes(const struct upload *u)
{
    return u->len;
}

/* Powers of two: a session that grows by a token a step keeps its shapes, and its recorded graph
 * with them. */
static size_t rounded(uint32_t n)
{
    uint32_t ret = LEAST;

    while (ret < n)
        ret *= 2;
    return ret;
}

static bool has_adapter(const struct plan *plan)
{
    for (uint32_t i = 0; i < plan->n_pieces; i++)
        if (plan->pieces[i].adapter)
            return true;
    return false;
}

/* The cut's size is known when it was cut: room for the largest is left, and it goes last.
 * adapters: without any their tables are left out, and with them the kernels' work. */
static struct layout lay_out(const struct model *m, const struct plan *plan, bool adapters,
                             const struct k_attend_shape *shape)
{
    struct layout l = { .n_own = adapters ? (uint32_t)rounded(plan->n_pieces) : 0 };
    const size_t bytes[PART__N] = {
        [ROWS] = rounded(plan->n_rows) * sizeof(*plan->rows),
        [PIECES] = rounded(plan->n_pieces) * sizeof(*plan->pieces),
        [SEGMENTS] = rounded(plan->n_segments) * sizeof(*plan->segments),
        [PAGES] = rounded(plan->n_pages) * sizeof(*plan->pages),
        [OUT_ROWS] = rounded(plan->n_out) * sizeof(*plan->out_rows),
        [GISTS] = l.n_own * sizeof(const float *),
        [OWN] = l.n_own * m->n_layer * sizeof(struct k_bias),
        [CUT] = k_attend_cut_bytes(shape, plan),
    };

    for (unsigned i = 0; i < PART__N; i++) {
        l.off[i] = l.bytes;
        /* So that parts begin where the widest loads want it. */
        l.bytes += (bytes[i] + 255) & ~(size_t)255;
    }
    return l;
}

/* Of the largest step that a plan of these limits can be. */
static size_t most_bytes(const struct model *m, const struct plan *limits,
                         const struct k_attend_shape *shape)
{
    struct plan p = *limits;

    p.n_rows = p.n_out = p.max_rows;
    p.n_pieces = p.max_pieces;
    p.n_segments = p.n_pages = p.max_pages;
    return lay_out(m, &p, true, shape).bytes;
}

size_t upload_need(const struct model *m, uint32_t max_rows, uint32_t max_pages)
{
    const struct plan p = plan_limits(max_rows, max_pages);
    /* The kind of pages does not change how many items there are at most. */
    const struct k_attend_shape shape = room_attend_shape(m, KV_F16);

    return most_bytes(m, &p, &shape);
}

/* Once for a plan, and not for each step: old blocks beside new ones would be more than was said.
 * The step before it is over, so neither block is in use. */
static int make_room(struct upload *u, size_t len)
{
    void *host, *mem;
    int r;

    if (len <= u->len)
        return 0;
    r = rt_alloc_host(u->rt, len, &host);
    if (r < 0)
        return r;
    r = rt_alloc(u->rt, len, &mem);
    if (r < 0) {
        rt_free_host(u->rt, host);
        return r;
    }
    if (u->mem)
        rt_free(u->rt, u->mem);
    rt_free_host(u->rt, u->host);
    u->host = host;
    u->mem = mem;
    u->len = len;
    return 0;
}

/* NULLs where the adapter has the base's. */
static struct k_bias own_biases(const struct spread_view *v, const struct adapter *a,
                                uint32_t layer)
{
    const struct adapter_projection *p = a->layers[v->first_layer + layer].p;

    return (struct k_bias){ view_bias(v, ADAPTER_Q, p[ADAPTER_Q].bias),
                            view_bias(v, ADAPTER_K, p[ADAPTER_K].bias),
                            view_bias(v, ADAPTER_V, p[ADAPTER_V].bias) };
}

static void write_adapters(const struct upload *u, const struct plan *plan, const struct layout *l)
{
    const float **gists = (const float **)(void *)(u->host + l->off[GISTS]);
    struct k_bias *own = (struct k_bias *)(void *)(u->host + l->off[OWN]);

    for (uint32_t i = 0; i < plan->n_pieces && l->n_own; i++) {
        const struct adapter *a = plan->pieces[i].adapter;

        gists[i] = a ? view_at(&u->view, a->embd) : NULL;
        for (uint32_t layer = 0; layer < u->model->n_layer; layer++)
            /* By layer first: a kernel is of one. */
            own[(size_t)layer * l->n_own + i] =
                a ? own_biases(&u->view, a, layer) : (struct k_bias){ 0 };
    }
}

/* What all layers leave, or want, is (layers, ...): kernels count from the view's first. n: values
 * of a layer that this device has. NULL stays NULL. */
static float *of_layers(const struct spread_view *v, float *all, size_t n)
{
    float *here = view_at(v, all);

    return here ? here + v->first_layer * n : NULL;
}

static void write_pieces(const struct upload *u, const struct plan *plan, const struct layout *l)
{
    struct plan_piece *to = (struct plan_piece *)(void *)(u->host + l->off[PIECES]);
    const struct model *m = u->model;

    /* Of one device pointers are good as they are. */
    memcpy(to, plan->pieces, plan->n_pieces * sizeof(*to));
    for (uint32_t i = 0; i < plan->n_pieces && u->view.spread; i++) {
        struct plan_piece *p = &to[i];

        p->weights = of_layers(&u->view, p->weights, (size_t)m->n_head_kv * p->seg_len);
        p->shares = of_layers(&u->view, p->shares, (size_t)m->n_head * p->n_shares);
        p->asked.all = of_layers(&u->view, p->asked.all,
                                 (size_t)m->n_head_kv * p->asked.n * ASKED_FLOATS(m->head_dim));
        p->soft = view_at(&u->view, p->soft);
    }
}

static void write_plan(const struct upload *u, const struct plan *plan, const struct layout *l)
{
    memcpy(u->host + l->off[ROWS], plan->rows, plan->n_rows * sizeof(*plan->rows));
    write_pieces(u, plan, l);
    memcpy(u->host + l->off[SEGMENTS], plan->segments, plan->n_segments * sizeof(*plan->segments));
    memcpy(u->host + l->off[PAGES], plan->pages, plan->n_pages * sizeof(*plan->pages));
    memcpy(u->host + l->off[OUT_ROWS], plan->out_rows, plan->n_out * sizeof(*plan->out_rows));
    write_adapters(u, plan, l);
}

/* What kernels are given, and what tells one kept graph from another. */
static void set_pointers(struct upload *u, const struct layout *l)
{
    u->rows = (const struct plan_row *)(const void *)(u->mem + l->off[ROWS]);
    u->pieces = (const struct plan_piece *)(const void *)(u->mem + l->off[PIECES]);
    u->segments = (const struct plan_segment *)(const void *)(u->mem + l->off[SEGMENTS]);
    u->pages = (const uint32_t *)(const void *)(u->mem + l->off[PAGES]);
    u->out_rows = (const uint32_t *)(const void *)(u->mem + l->off[OUT_ROWS]);
    u->cut = u->mem + l->off[CUT];
    u->n_own = l->n_own;
    u->gists = l->n_own ? (const float *const *)(const void *)(u->mem + l->off[GISTS]) : NULL;
    u->own = l->n_own ? (const struct k_bias *)(const void *)(u->mem + l->off[OWN]) : NULL;
}

/* The host's block stays as it is until the copy is done: the next step begins when this one is
 * over. */
int upload_plan(struct upload *u, const struct plan *plan, const struct k_attend_shape *shape)
{
    struct layout l = lay_out(u->model, plan, has_adapter(plan), shape);
    int r = make_room(u, most_bytes(u->model, plan, shape));

    if (r == 0)
        r = k_attend_cut(shape, plan, u->host + l.off[CUT], l.bytes - l.off[CUT], &u->table);
    if (r < 0)
        return r;
    write_plan(u, plan, &l);
    set_pointers(u, &l);
    /* Up to the end of the cut, which is the last part and mostly much shorter than its room. */
    return rt_put(u->rt, RT_COMPUTE, u->mem, u->host, l.off[CUT] + u->table.bytes);
}
