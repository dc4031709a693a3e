#include "cuda/spread.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Vectors, an embedding or an output, layers. */
#define RANGES_MAX 4u
/* Parts begin at multiples of this, as the widest loads want it. */
#define ALIGN 256u

/* Bytes [lo, hi) of a unit are at `at` of the device's. */
struct range {
    size_t lo, hi, at;
    bool first;
};

struct here {
    uint8_t *mem;
    size_t unit_bytes, bytes;
    struct range ranges[RANGES_MAX];
    unsigned n;
};

struct piece {
    struct piece *next;
    uint8_t *mem; /* reserved addresses */
    size_t len, unit_bytes;
    uint32_t n_layers[BACKEND_DEVICES_MAX]; /* pages: of a device */
    struct here here[BACKEND_DEVICES_MAX];
};

struct spread {
    uint32_t n;
    struct rt *rts[BACKEND_DEVICES_MAX];
    struct piece *pieces;
};

int spread_open(struct rt *const *rts, uint32_t n, struct spread **ret)
{
    struct spread *s = calloc(1, sizeof(*s));

    if (!s)
        return -ENOMEM;
    s->n = n;
    for (uint32_t d = 0; d < n; d++)
        s->rts[d] = rts[d];
    *ret = s;
    return 0;
}

void spread_close(struct spread *s)
{
    while (s && s->pieces)
        spread_free(s, s->pieces->mem);
    free(s);
}

/* --- allocating ------------------------------------------------------------------------------- */

static void add_range(struct here *h, size_t lo, size_t hi, bool first)
{
    struct range *last = h->n ? &h->ranges[h->n - 1] : NULL;

    if (lo == hi)
        return;
    if (last && last->hi == lo && last->first == first) {
        last->hi = hi;
    } else {
        assert(h->n < RANGES_MAX);
        h->ranges[h->n++] = (struct range){ lo, hi, h->unit_bytes, first };
    }
    h->unit_bytes = h->ranges[h->n - 1].at + (hi - h->ranges[h->n - 1].lo);
    h->unit_bytes = (h->unit_bytes + ALIGN - 1) / ALIGN * ALIGN;
}

/* len: not 0, so that it has an address of its own to be found by. */
static struct piece *piece_new(size_t len, size_t unit_bytes)
{
    struct piece *p = calloc(1, sizeof(*p));
    void *mem = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (!p || mem == MAP_FAILED) {
        if (mem != MAP_FAILED)
            (void)munmap(mem, len);
        free(p);
        return NULL;
    }
    p->mem = mem;
    p->len = len;
    p->unit_bytes = unit_bytes;
    return p;
}

static void piece_free(const struct spread *s, struct piece *p)
{
    for (uint32_t d = 0; d < s->n; d++)
        if (p->here[d].mem)
            rt_free(s->rts[d], p->here[d].mem);
    (void)munmap(p->mem, p->len);
    free(p);
}

/* Takes the piece, whose ranges are known. */
static int take_memory(struct spread *s, struct piece *p, void **ret)
{
    size_t n_units = p->len / p->unit_bytes;
    int r = 0;

    for (uint32_t d = 0; d < s->n && r == 0; d++) {
        struct here *h = &p->here[d];
        void *mem;

        h->bytes = n_units * h->unit_bytes;
        r = rt_alloc(s->rts[d], h->bytes, &mem);
        if (r == 0)
            h->mem = mem;
    }
    if (r < 0) {
        piece_free(s, p);
        return r;
    }
    p->next = s->pieces;
    s->pieces = p;
    *ret = p->mem;
    return 0;
}

int spread_alloc_copies(struct spread *s, size_t n, void **ret)
{
    struct piece *p;

    n = n ? n : 1;
    p = piece_new(n, n);
    if (!p)
        return -ENOMEM;
    for (uint32_t d = 0; d < s->n; d++)
        add_range(&p->here[d], 0, n, d == 0);
    return take_memory(s, p, ret);
}

int spread_alloc_weights(struct spread *s, const struct divide *div, const struct model *m,
                         void **ret)
{
    struct piece *p = piece_new(m->packed.len, m->packed.len);

    if (!p)
        return -ENOMEM;
    for (uint32_t i = 0; i < m->packed.n_extents; i++) {
        size_t lo = m->packed.extents[i].off, hi = lo + divide_extent_bytes(m, i);
        bool first = true;

        for (uint32_t d = 0; d < s->n; d++) {
            if (!divide_has(div, m, d, i))
                continue;
            add_range(&p->here[d], lo, hi, first);
            first = false;
        }
    }
    return take_memory(s, p, ret);
}

/* What fills a page up is behind its last layer, and goes with it. */
int spread_alloc_pages(struct spread *s, const struct divide *div, const struct pool *pool,
                       void **ret)
{
    struct piece *p = piece_new(pool->mem_len, pool->page_bytes);
    size_t layer = (size_t)pool->n_head_kv * pool->head_bytes;

    if (!p)
        return -ENOMEM;
    for (uint32_t d = 0; d < s->n; d++) {
        size_t lo = div->first[d] * layer;
        size_t hi = d + 1 < s->n ? div->first[d + 1] * layer : pool->page_bytes;

        p->n_layers[d] = div->first[d + 1] - div->first[d];
        add_range(&p->here[d], lo, hi, true);
    }
    return take_memory(s, p, ret);
}

void spread_free(struct spread *s, void *mem)
{
    for (struct piece **at = &s->pieces; *at; at = &(*at)->next) {
        struct piece *p = *at;

        if (p->mem != mem)
            continue;
        *at = p->next;
        piece_free(s, p);
        return;
    }
}

/* --- finding ---------------------------------------------------------------------------------- */

static const struct piece *find(const struct spread *s, const void *mem)
{
    const struct piece *p = s->pieces;
    uintptr_t at = (uintptr_t)mem;

    while (p && !(at >= (uintptr_t)p->mem && at - (uintptr_t)p->mem < p->len))
        p = p->next;
    return p;
}

void *spread_whole(const struct spread *s, uint32_t device, const void *mem, size_t *ret_len)
{
    const struct here *h = &find(s, mem)->here[device];

    *ret_len = h->bytes;
    return h->mem;
}

void *spread_at(const struct spread *s, uint32_t device, const void *mem)
{
    const struct piece *p = find(s, mem);
    const struct here *h;
    size_t off, unit;

    if (!p)
        return (void *)(uintptr_t)mem;
    h = &p->here[device];
    off = (size_t)((uintptr_t)mem - (uintptr_t)p->mem);
    unit = off / p->unit_bytes;
    off -= unit * p->unit_bytes;
    for (unsigned i = 0; i < h->n; i++)
        if (off >= h->ranges[i].lo && off < h->ranges[i].hi)
            return h->mem + unit * h->unit_bytes + h->ranges[i].at + (off - h->ranges[i].lo);
    assert(!"memory that this device has no part of");
    return NULL;
}

/* What of [off, off + n), which lies in one unit, is in a range. */
static int each_range(const struct here *h, size_t unit, size_t off, size_t n, size_t done,
                      uint32_t device, spread_fn *fn, void *arg)
{
    int r = 0;

    for (unsigned i = 0; i < h->n && r == 0; i++) {
        const struct range *range = &h->ranges[i];
        size_t lo = off > range->lo ? off : range->lo;
        size_t hi = off + n < range->hi ? off + n : range->hi;

        if (lo < hi)
            r = fn(arg, device, h->mem + unit * h->unit_bytes + range->at + (lo - range->lo),
                   done + (lo - off), hi - lo, range->first);
    }
    return r;
}

int spread_each(const struct spread *s, const void *mem, size_t n, spread_fn *fn, void *arg)
{
    const struct piece *p = n ? find(s, mem) : NULL;
    size_t first = p ? (size_t)((uintptr_t)mem - (uintptr_t)p->mem) : 0;
    int r = 0;

    assert(n == 0 || (p && n <= p->len - first));
    for (size_t done = 0, k; done < n && r == 0; done += k) {
        size_t unit = (first + done) / p->unit_bytes;
        size_t off = first + done - unit * p->unit_bytes;

        k = p->unit_bytes - off < n - done ? p->unit_bytes - off : n - done;
        for (uint32_t d = 0; d < s->n && r == 0; d++)
            r = each_range(&p->here[d], unit, off, k, done, d, fn, arg);
    }
    return r;
}

/* --- views ------------------------------------------------------------------------------------ */

static struct model_tensor tensor_at(const struct spread_view *v, const struct model_tensor *t)
{
    struct model_tensor ret = *t;

    ret.data = view_at(v, t->data);
    return ret;
}

static struct model_layer layer_at(const struct spread_view *v, const struct model_layer *l)
{
    return (struct model_layer){ .attn_norm = view_at(v, l->attn_norm),
                                 .ffn_norm = view_at(v, l->ffn_norm),
                                 .wq = tensor_at(v, &l->wq),
                                 .wk = tensor_at(v, &l->wk),
                                 .wv = tensor_at(v, &l->wv),
                                 .wo = tensor_at(v, &l->wo),
                                 .w_gate = tensor_at(v, &l->w_gate),
                                 .w_up = tensor_at(v, &l->w_up),
                                 .w_down = tensor_at(v, &l->w_down),
                                 .bq = view_at(v, l->bq),
                                 .bk = view_at(v, l->bk),
                                 .bv = view_at(v, l->bv) };
}

void view_model(const struct spread_view *v, const struct model *m, uint32_t n_layers,
                struct model_layer *layers, struct model *ret)
{
    *ret = *m;
    ret->n_layer = n_layers;
    ret->layers = layers;
    for (uint32_t i = 0; i < n_layers; i++)
        layers[i] = layer_at(v, &m->layers[v->first_layer + i]);
    ret->embd.data = v->before ? NULL : view_at(v, m->embd.data);
    ret->output.data = v->after ? NULL : view_at(v, m->output.data);
    ret->output_norm = v->after ? NULL : view_at(v, m->output_norm);
}

struct pool view_pool(const struct spread_view *v, const struct pool *p)
{
    const struct piece *piece = v->spread ? find(v->spread, p->mem) : NULL;
    struct pool ret = *p;

    if (!piece)
        return ret;
    ret.mem = piece->here[v->device].mem;
    ret.page_bytes = piece->here[v->device].unit_bytes;
    ret.n_layer = piece->n_layers[v->device];
    return ret;
}
