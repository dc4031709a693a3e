/* cuda/spread.c - addresses for memory that devices have in parts. A piece is one allocation: its
 * unit (all weights, or a page) is a list of runs, from its first byte to its last, and a run says
 * what each device has of it. Tensors cut by columns make a run of many equal stretches, of which a
 * device has the same part of each.
 *
 *     unit      | run 0    | run 1: each | each | each | run 2 |
 *     device 0  | all of 0 | lo..hi | lo..hi | lo..hi | ...        side by side, from `at` on
 *
 * Addresses of a piece are reserved and never touched: they are numbers to find a piece and an
 * offset by.
 */
#include "cuda/spread.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Parts begin at multiples of this, as the widest loads want it. */
#define ALIGN 256u

/* Of `each` bytes a device has [lo, hi), side by side from byte `at` of its unit on. lo == hi: it
 * has nothing of this run. */
struct have {
    size_t lo, hi, at;
    bool first;
};

/* `n` times `each` bytes of a unit, of all of which a device has the same part. Runs follow each
 * other without holes. */
struct run {
    size_t off, each, n;
    struct have on[BACKEND_DEVICES_MAX];
};

/* What one device has of all units, one behind the other. */
struct here {
    uint8_t *mem;
    size_t unit_bytes, bytes;
};

struct piece {
    struct piece *next;
    uint8_t *mem; /* reserved addresses */
    size_t len, unit_bytes;
    struct run *runs; /* all of a unit, ascending */
    size_t n_runs, max_runs;
    /* Pages: what a device has of each. */
    uint32_t n_layers[BACKEND_DEVICES_MAX], n_heads[BACKEND_DEVICES_MAX];
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

/* The next run of the unit, for which max_runs says that there is room. NULL: of no bytes. Where it
 * begins follows from the one before it. */
static struct run *add_run(struct piece *p, size_t each, size_t n)
{
    const struct run *last = p->n_runs ? &p->runs[p->n_runs - 1] : NULL;
    struct run *r = each ? &p->runs[p->n_runs++] : NULL;

    assert(p->n_runs <= p->max_runs);
    if (!r)
        return NULL;
    *r = (struct run){ .off = last ? last->off + last->each * last->n : 0, .each = each, .n = n };
    return r;
}

/* A device has bytes [lo, hi) of what was added last. first: it is read from there. */
static void add_part(struct piece *p, struct run *r, uint32_t device, size_t lo, size_t hi,
                     bool first)
{
    struct here *h = &p->here[device];

    /* Also for a run of no bytes, which is NULL. */
    if (lo == hi)
        return;
    r->on[device] = (struct have){ lo, hi, h->unit_bytes, first };
    h->unit_bytes = (h->unit_bytes + (hi - lo) * r->n + ALIGN - 1) / ALIGN * ALIGN;
}

/* The first device is the one that is read from. */
static void add_whole(const struct spread *s, struct piece *p, size_t each)
{
    struct run *r = add_run(p, each, 1);

    for (uint32_t d = 0; d < s->n; d++)
        add_part(p, r, d, 0, each, d == 0);
}

/* len: not 0, so that it has an address of its own to be found by. PROT_NONE: whoever takes such an
 * address for memory is stopped at once. */
static struct piece *piece_new(size_t len, size_t unit_bytes, size_t max_runs)
{
    struct piece *p = calloc(1, sizeof(*p));
    struct run *runs = calloc(max_runs, sizeof(*runs));
    void *mem = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (!p || !runs || mem == MAP_FAILED) {
        if (mem != MAP_FAILED)
            (void)munmap(mem, len);
        free(runs);
        free(p);
        return NULL;
    }
    p->runs = runs;
    p->max_runs = max_runs;
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
    free(p->runs);
    free(p);
}

/* Takes the piece, whose ranges are known. */
static int take_memory(struct spread *s, struct piece *p, void **ret)
{
    const struct run *last = &p->runs[p->n_runs - 1];
    size_t n_units = p->len / p->unit_bytes;
    int r = 0;

    /* Every byte belongs to some run. */
    assert(last->off + last->each * last->n == p->unit_bytes);
    for (uint32_t d = 0; d < s->n && r == 0; d++) {
        struct here *h = &p->here[d];
        void *mem;

        h->bytes = n_units * h->unit_bytes;
        r = rt_alloc(s->rts[d], h->bytes, &mem);
        if (r == 0)
            h->mem = mem;
    }
    /* What some devices gave already goes back. */
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
    p = piece_new(n, n, 1);
    if (!p)
        return -ENOMEM;
    add_whole(s, p, n);
    return take_memory(s, p, ret);
}

/* Extents are a layer's, or what all need; of these several devices may have a copy. */
static void add_extent(const struct spread *s, struct piece *p, const struct divide *div,
                       const struct model *m, uint32_t extent)
{
    size_t len = divide_extent_bytes(m, extent);
    struct run *r = add_run(p, len, 1);
    bool first = true;

    for (uint32_t d = 0; d < s->n; d++) {
        if (!divide_has(div, m, d, extent))
            continue;
        add_part(p, r, d, 0, len, first);
        first = false;
    }
}

/* Bytes of n rows, or of n columns of each tile: of what the matrix is divided by. */
static size_t part_len(unsigned projection, const struct model_tensor *t, uint32_t n)
{
    return divide_by_rows(projection) ? n / TILE_ROWS * t->tile_len : tile_len(t->type, n);
}

/* Rows lie side by side in tiles, columns inside each tile. A matrix lies in tiles of TILE_ROWS
 * rows. By rows a device has whole tiles: one stretch. By columns it has a piece of every tile. */
static void add_matrix(const struct spread *s, struct piece *p, const struct divide *div,
                       unsigned projection, const struct model_tensor *t)
{
    size_t n = tile_count(t->n_rows), len = t->tile_len;
    struct run *r = divide_by_rows(projection) ? add_run(p, n * len, 1) : add_run(p, len, n);

    for (uint32_t d = 0; d < s->n; d++) {
        struct divide_part part = divide_part(div, d, projection);
        size_t lo = part_len(projection, t, part.first);

        add_part(p, r, d, lo, lo + part_len(projection, t, part.n), true);
    }
}

/* A layer of which all have a part: its matrices in their order, and all of what is around them. */
static void add_layer(const struct spread *s, struct piece *p, const struct divide *div,
                      const struct model *m, uint32_t layer)
{
    size_t at = m->packed.extents[PACKED_LAYERS + layer].off;
    size_t end = at + divide_extent_bytes(m, PACKED_LAYERS + layer);

    /* The next matrix by its place in the file: the order is the packer's. */
    for (;;) {
        const struct model_tensor *next = NULL;
        unsigned projection = 0;

        for (unsigned i = 0; i < ADAPTER_PROJECTION__N; i++) {
            const struct model_tensor *t = adapter_projection_weight(&m->layers[layer], i);

            if (t->mem_off >= at && (!next || t->mem_off < next->mem_off)) {
                next = t;
                projection = i;
            }
        }
        if (!next)
            break;
        /* Norms and biases in between: all have them. */
        add_whole(s, p, next->mem_off - at);
        add_matrix(s, p, div, projection, next);
        at = next->mem_off + tile_count(next->n_rows) * next->tile_len;
    }
    add_whole(s, p, end - at);
}

int spread_alloc_weights(struct spread *s, const struct divide *div, const struct model *m,
                         void **ret)
{
    bool tensors = div->split == BACKEND_SPLIT_TENSOR;
    size_t max_runs = PACKED_LAYERS + (size_t)m->n_layer * (2 * ADAPTER_PROJECTION__N + 1);
    struct piece *p = piece_new(m->packed.len, m->packed.len, max_runs);

    if (!p)
        return -ENOMEM;
    for (uint32_t i = 0; i < m->packed.n_extents; i++)
        if (tensors && i >= PACKED_LAYERS)
            add_layer(s, p, div, m, i - PACKED_LAYERS);
        else
            add_extent(s, p, div, m, i);
    return take_memory(s, p, ret);
}

/* Of each layer a device's heads. What fills a page up goes with the last device, as below. */
static void add_heads(const struct spread *s, struct piece *p, const struct pool *pool)
{
    /* divide_tensors has refused a model where a rest is left. */
    uint32_t n = pool->n_head_kv / s->n;
    size_t layer = (size_t)pool->n_head_kv * pool->head_bytes, part = n * pool->head_bytes;
    struct run *r = add_run(p, layer, pool->n_layer);

    for (uint32_t d = 0; d < s->n; d++) {
        p->n_layers[d] = pool->n_layer;
        p->n_heads[d] = n;
        add_part(p, r, d, d * part, (d + 1) * part, true);
    }
    layer = pool->page_bytes - layer * pool->n_layer;
    r = add_run(p, layer, 1);
    add_part(p, r, s->n - 1, 0, layer, true);
}

/* What fills a page up is behind its last layer, and goes with it. */
static void add_layers(const struct spread *s, struct piece *p, const struct divide *div,
                       const struct pool *pool)
{
    size_t layer = (size_t)pool->n_head_kv * pool->head_bytes;

    for (uint32_t d = 0; d < s->n; d++) {
        size_t lo = div->first[d] * layer;
        size_t hi = d + 1 < s->n ? div->first[d + 1] * layer : pool->page_bytes;
        struct run *r = add_run(p, hi - lo, 1);

        p->n_layers[d] = div->first[d + 1] - div->first[d];
        p->n_heads[d] = pool->n_head_kv;
        add_part(p, r, d, 0, hi - lo, true);
    }
}

int spread_alloc_pages(struct spread *s, const struct divide *div, const struct pool *pool,
                       void **ret)
{
    struct piece *p = piece_new(pool->mem_len, pool->page_bytes, s->n + 1);

    if (!p)
        return -ENOMEM;
    if (div->split == BACKEND_SPLIT_TENSOR)
        add_heads(s, p, pool);
    else
        add_layers(s, p, div, pool);
    return take_memory(s, p, ret);
}

/* Waiting for what uses it is the caller's. */
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

/* A list: pieces are few. */
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

/* The run that has this byte of a unit. By halves: a model has hundreds, and every tensor of a step
 * is looked up. */
static const struct run *find_run(const struct piece *p, size_t off)
{
    size_t lo = 0, hi = p->n_runs;

    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;

        if (p->runs[mid].off <= off)
            lo = mid;
        else
            hi = mid;
    }
    return &p->runs[lo];
}

void *spread_at(const struct spread *s, uint32_t device, const void *mem)
{
    const struct piece *p = find(s, mem);
    const struct here *h;
    const struct have *have;
    const struct run *r;
    size_t off, unit, i;

    if (!p)
        return (void *)(uintptr_t)mem;
    h = &p->here[device];
    off = (size_t)((uintptr_t)mem - (uintptr_t)p->mem);
    unit = off / p->unit_bytes;
    /* From here on within the unit, below within the run. */
    off -= unit * p->unit_bytes;
    r = find_run(p, off);
    have = &r->on[device];
    i = (off - r->off) / r->each;
    off -= r->off + i * r->each;
    if (off < have->lo || off >= have->hi)
        assert(!"memory that this device has no part of");
    return h->mem + unit * h->unit_bytes + have->at + i * (have->hi - have->lo) + (off - have->lo);
}

/* A copy, and where it is. */
struct walk {
    size_t unit, off, n; /* bytes [off, off + n) of the unit */
    size_t done;         /* before them */
    uint32_t device;
    spread_fn *fn;
    void *arg;
};

/* One call for each stretch of the run that the device has a part of. */
static int each_of_run(const struct walk *w, const struct here *h, const struct run *run)
{
    const struct have *have = &run->on[w->device];
    size_t len = have->hi - have->lo;
    size_t i = w->off > run->off ? (w->off - run->off) / run->each : 0;
    int r = 0;

    for (; len && i < run->n && r == 0; i++) {
        size_t begin = run->off + i * run->each + have->lo, end = begin + len;
        size_t lo = w->off > begin ? w->off : begin;
        size_t hi = w->off + w->n < end ? w->off + w->n : end;

        if (begin >= w->off + w->n)
            break;
        if (lo < hi)
            r = w->fn(w->arg, w->device,
                      h->mem + w->unit * h->unit_bytes + have->at + i * len + (lo - begin),
                      w->done + (lo - w->off), hi - lo, have->first);
    }
    return r;
}

int spread_each(const struct spread *s, const void *mem, size_t n, spread_fn *fn, void *arg)
{
    const struct piece *p = n ? find(s, mem) : NULL;
    size_t first = p ? (size_t)((uintptr_t)mem - (uintptr_t)p->mem) : 0;
    const struct run *begin, *run, *end = p ? p->runs + p->n_runs : NULL;
    struct walk w = { .fn = fn, .arg = arg };
    int r = 0;

    assert(n == 0 || (p && n <= p->len - first));
    for (; w.done < n && r == 0; w.done += w.n) {
        w.unit = (first + w.done) / p->unit_bytes;
        w.off = first + w.done - w.unit * p->unit_bytes;
        w.n = p->unit_bytes - w.off < n - w.done ? p->unit_bytes - w.off : n - w.done;
        begin = find_run(p, w.off);
        for (w.device = 0; w.device < s->n; w.device++)
            for (run = begin; run < end && run->off < w.off + w.n && r == 0; run++)
                r = each_of_run(&w, &p->here[w.device], run);
    }
    return r;
}

/* --- views ------------------------------------------------------------------------------------ */

struct model_tensor view_part(const struct spread_view *v, unsigned projection,
                              const struct model_tensor *t)
{
    struct model_tensor ret = *t;
    struct divide_part part;

    if (!v->divide)
        return ret;
    part = divide_part(v->divide, v->device, projection);
    if (divide_by_rows(projection))
        ret.n_rows = part.n;
    else
        ret.n_cols = part.n;
    if (t->data)
        ret.data = (const uint8_t *)t->data + part_len(projection, t, part.first);
    return ret;
}

const float *view_bias(const struct spread_view *v, unsigned projection, const float *all)
{
    if (v->divide && all)
        all += divide_part(v->divide, v->device, projection).first;
    return view_at(v, all);
}

static struct model_tensor tensor_at(const struct spread_view *v, const struct model_layer *l,
                                     unsigned projection)
{
    struct model_tensor ret = view_part(v, projection, adapter_projection_weight(l, projection));

    if (v->divide)
        ret.tile_len = tile_len(ret.type, ret.n_cols); /* its columns alone are here */
    ret.data = view_at(v, ret.data);
    return ret;
}

static struct model_layer layer_at(const struct spread_view *v, const struct model_layer *l)
{
    return (struct model_layer){ .attn_norm = view_at(v, l->attn_norm),
                                 .ffn_norm = view_at(v, l->ffn_norm),
                                 .wq = tensor_at(v, l, ADAPTER_Q),
                                 .wk = tensor_at(v, l, ADAPTER_K),
                                 .wv = tensor_at(v, l, ADAPTER_V),
                                 .wo = tensor_at(v, l, ADAPTER_O),
                                 .w_gate = tensor_at(v, l, ADAPTER_GATE),
                                 .w_up = tensor_at(v, l, ADAPTER_UP),
                                 .w_down = tensor_at(v, l, ADAPTER_DOWN),
                                 .bq = view_bias(v, ADAPTER_Q, l->bq),
                                 .bk = view_bias(v, ADAPTER_K, l->bk),
                                 .bv = view_bias(v, ADAPTER_V, l->bv) };
}

void view_model(const struct spread_view *v, const struct model *m, uint32_t n_layers,
                struct model_layer *layers, struct model *ret)
{
    *ret = *m;
    ret->n_layer = n_layers;
    ret->layers = layers;
    if (v->divide)
        divide_shape(v->divide, v->device, ret);
    for (uint32_t i = 0; i < n_layers; i++)
        layers[i] = layer_at(v, &m->layers[v->first_layer + i]);
    ret->embd.data = v->before ? NULL : view_at(v, m->embd.data);
    ret->output.data = v->no_output ? NULL : view_at(v, m->output.data);
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
    ret.n_head_kv = piece->n_heads[v->device];
    return ret;
}
