/* cuda/backend_memory.c - memory of one device, or of several together, and copies. */
#include "cuda/backend_inner.h"

#include "engine/kv/pool.h"

/* Every device's part, copies included. */
static int clear_part(void *arg, uint32_t device, void *at, size_t off, size_t n, bool first)
{
    struct cuda *c = arg;

    (void)off;
    (void)first;
    return part_clear(&c->parts[device], at, n);
}

/* Queued: whoever reads it next comes behind it. */
int cuda_clear(struct backend *b, void *mem, size_t n)
{
    struct cuda *c = cuda_of(b);
    int r = ready(c);

    if (r == 0)
        r = c->spread ? spread_each(c->spread, mem, n, clear_part, c)
                      : part_clear(&c->parts[0], mem, n);
    return said(c, r);
}

/* All that devices have of what was just allocated. All units at once: their parts of a device lie
 * side by side. A failed one takes the memory back. */
static int clear_whole(struct cuda *c, void *mem)
{
    int r = 0;

    for (uint32_t i = 0; i < c->n && r == 0; i++) {
        size_t n;
        void *at = spread_whole(c->spread, i, mem, &n);

        r = part_clear(&c->parts[i], at, n);
    }
    if (r < 0)
        spread_free(c->spread, mem);
    return r;
}

/* Of several devices, a copy on each: nobody knows yet who reads it. */
int cuda_alloc(struct backend *b, size_t n, void **ret)
{
    struct cuda *c = cuda_of(b);
    void *mem;
    int r = ready(c);

    if (r == 0)
        r = c->spread ? spread_alloc_copies(c->spread, n, &mem) : rt_alloc(c->parts[0].rt, n, &mem);
    if (r < 0)
        return said(c, r);
    r = c->spread ? clear_whole(c, mem) : cuda_clear(b, mem, n);
    if (r < 0) {
        if (!c->spread)
            rt_free(c->parts[0].rt, mem);
        return said(c, r);
    }
    *ret = mem;
    return 0;
}

/* By layers: who is not the first takes rows up where another left them. By parts of each layer
 * nobody is before or behind anybody; the last one alone has the output matrix, as it would be its
 * size on each. */
static struct spread_view view_of(const struct cuda *c, uint32_t i)
{
    bool tensors = c->split == BACKEND_SPLIT_TENSOR;

    return (struct spread_view){ .spread = c->spread,
                                 .device = i,
                                 .first_layer = tensors ? 0 : c->divide.first[i],
                                 .before = !tensors && i > 0,
                                 .after = !tensors && i + 1 < c->n,
                                 .no_output = i + 1 < c->n,
                                 .divide = tensors ? &c->divide : NULL };
}

/* Of the same model as before, when a device was lost: its pool is to fit again. Layers by what
 * devices have free; parts of each layer are the same for all. */
static int divide(struct cuda *c, const struct model *m, struct why *why)
{
    uint64_t room[BACKEND_DEVICES_MAX];
    int r = 0;

    for (uint32_t i = 0; i < c->n; i++)
        room[i] = rt_left(c->parts[i].rt);
    if (c->split == BACKEND_SPLIT_TENSOR)
        r = divide_tensors(m, c->n, &c->divide, why);
    /* The division stays for a model that is loaded again, so that its pages have the same shape.
     */
    else if (c->divide.n == 0 || c->divide.first[c->n] != m->n_layer)
        r = divide_layers(m, room, c->n, &c->divide, why);
    for (uint32_t i = 0; i < c->n && r == 0; i++)
        c->parts[i].view = view_of(c, i);
    return r;
}

/* One device has them as they are packed. */
int cuda_alloc_weights(struct backend *b, const struct model *m, void **ret, struct why *why)
{
    struct cuda *c = cuda_of(b);
    void *mem;
    int r = ready(c);

    if (r < 0 || !c->spread)
        return r < 0 ? r : cuda_alloc(b, m->packed.len, ret);
    r = divide(c, m, why);
    if (r == 0)
        r = spread_alloc_weights(c->spread, &c->divide, m, &mem);
    if (r == 0)
        r = clear_whole(c, mem);
    if (r == 0)
        *ret = mem;
    return said(c, r);
}

int cuda_alloc_pages(struct backend *b, const struct pool *p, void **ret)
{
    struct cuda *c = cuda_of(b);
    void *mem;
    int r = ready(c);

    if (r < 0 || !c->spread)
        return r < 0 ? r : cuda_alloc(b, p->mem_len, ret);
    /* Weights come first: they say which layers are whose. */
    if (c->divide.n == 0 || c->divide.first[c->n] != p->n_layer)
        return -EINVAL;
    r = spread_alloc_pages(c->spread, &c->divide, p, &mem);
    if (r == 0)
        r = clear_whole(c, mem);
    if (r == 0)
        *ret = mem;
    return said(c, r);
}

/* Copies and kernels that are queued may still read or write it. A lost device is not waited for.
 */
void cuda_free(struct backend *b, void *mem, size_t n)
{
    struct cuda *c = cuda_of(b);

    (void)n;
    for (uint32_t i = 0; i < c->n && !c->lost; i++)
        (void)said(c, part_wait(&c->parts[i]));
    if (c->spread)
        spread_free(c->spread, mem);
    else if (c->n == 1 && c->parts[0].rt)
        rt_free(c->parts[0].rt, mem);
}

/* A device's memory is never swapped out. 0, so that callers need not know where their memory is.
 */
int cuda_lock(struct backend *b, void *mem, size_t n)
{
    (void)b;
    (void)mem;
    (void)n;
    return 0;
}

/* The first device last: it is the one that pinned it (rt_pin_too). */
static void unpin(struct cuda *c, void *mem)
{
    for (uint32_t i = c->n; i-- > 0;)
        if (c->parts[i].rt)
            rt_unpin(c->parts[i].rt, mem);
}

/* What is not pinned is no error of the device's. By one of them, for all. Portable, so the others
 * copy from it as fast; what they must know is that it is. */
int cuda_pin(struct backend *b, void *mem, size_t n)
{
    struct cuda *c = cuda_of(b);
    int r = ready(c);

    if (r == 0)
        r = rt_pin(c->parts[0].rt, mem, n);
    for (uint32_t i = 1; i < c->n && r == 0; i++) {
        r = rt_pin_too(c->parts[i].rt, mem, n);
        if (r < 0)
            unpin(c, mem);
    }
    return r;
}

/* Spills alone read or write memory that callers pinned. */
void cuda_unpin(struct backend *b, void *mem, size_t n)
{
    struct cuda *c = cuda_of(b);

    (void)n;
    for (uint32_t i = 0; i < c->n && !c->lost; i++)
        (void)said(c, rt_wait(c->parts[i].rt, RT_SPILL));
    unpin(c, mem);
}

/* No memory of a device can be touched by the host. */
void *cuda_host(struct backend *b, void *mem)
{
    (void)b;
    (void)mem;
    return NULL;
}

/* One copy, of which each device does its parts. One of from and to is NULL: which it is says
 * whether it is a put. */
struct copying {
    struct cuda *c;
    const uint8_t *from; /* the host's: of a put, or of a get */
    uint8_t *to;
    uint64_t ticket; /* 0: none */
};

/* Every device that has a part is put; of copies the first alone is read. */
static int copy_part(void *arg, uint32_t device, void *at, size_t off, size_t n, bool first)
{
    struct copying *copy = arg;
    struct part *p = &copy->c->parts[device];
    uint64_t ticket, *ret_ticket = copy->ticket ? &ticket : NULL;

    if (copy->to && !first)
        return 0;
    if (ret_ticket)
        stage_ticket(p->spills, copy->ticket);
    return copy->to ? part_get(p, copy->to + off, at, n, ret_ticket)
                    : part_put(p, at, copy->from + off, n, ret_ticket);
}

/* One ticket for all devices: it is done when none of them has a copy of it any more. A copy of no
 * bytes has the one before it. */
static int copy_parts(struct copying *copy, const void *mem, size_t n, uint64_t *ret_ticket)
{
    struct cuda *c = copy->c;
    int r;

    c->n_tickets += ret_ticket && n > 0;
    copy->ticket = ret_ticket ? c->n_tickets : 0;
    r = spread_each(c->spread, mem, n, copy_part, copy);
    if (r == 0 && ret_ticket)
        *ret_ticket = c->n_tickets;
    return r;
}

int cuda_put(struct backend *b, void *to, const void *host, size_t n, uint64_t *ret_ticket)
{
    struct cuda *c = cuda_of(b);
    int r = ready(c);

    if (r == 0)
        r = c->spread ? copy_parts(&(struct copying){ .c = c, .from = host }, to, n, ret_ticket)
                      : part_put(&c->parts[0], to, host, n, ret_ticket);
    return said(c, r);
}

int cuda_get(struct backend *b, void *host, const void *from, size_t n, uint64_t *ret_ticket)
{
    struct cuda *c = cuda_of(b);
    int r = ready(c);

    if (r == 0)
        r = c->spread ? copy_parts(&(struct copying){ .c = c, .to = host }, from, n, ret_ticket)
                      : part_get(&c->parts[0], host, from, n, ret_ticket);
    return said(c, r);
}

/* What a device has of each layer lies there side by side. len: of a layer, all heads. */
static int get_heads(struct cuda *c, uint32_t device, uint8_t *host, const void *from, size_t len)
{
    struct part *p = &c->parts[device];
    const uint8_t *at = view_at(&p->view, from);
    size_t part = len / c->n;
    int r = 0;

    for (uint32_t i = 0; i < p->model.n_layer && r == 0; i++)
        r = part_get(p, host + i * len + device * part, at + i * part, part, NULL);
    return r;
}

/* Each device has its own layers' values in its own copy: together they are the whole. */
int cuda_get_layers(struct backend *b, void *host, const void *from, size_t len)
{
    struct cuda *c = cuda_of(b);
    int r = ready(c);

    for (uint32_t i = 0; i < c->n && c->together && r == 0; i++)
        r = get_heads(c, i, host, from, len);
    if (c->together)
        return said(c, r);
    for (uint32_t i = 0; i < c->n && r == 0; i++) {
        struct part *p = &c->parts[i];
        size_t first = p->view.first_layer * len;

        r = part_get(p, (uint8_t *)host + first, (const uint8_t *)view_at(&p->view, from) + first,
                     p->model.n_layer * len, NULL);
    }
    return said(c, r);
}

/* 1: on all of them. */
int cuda_done(struct backend *b, uint64_t ticket)
{
    struct cuda *c = cuda_of(b);
    int done = 1;

    for (uint32_t i = 0; i < c->n; i++) {
        int r = c->parts[i].spills ? stage_done(c->parts[i].spills, ticket) : -EIO;

        if (r < 0)
            return said(c, r);
        done &= r;
    }
    return done;
}

/* One for all devices, whose stages ring it. */
int cuda_eventfd(struct backend *b)
{
    return cuda_of(b)->bell;
}

int cuda_copy_page(struct backend *b, const struct pool *pool, uint32_t from, uint32_t to)
{
    struct cuda *c = cuda_of(b);
    int r = ready(c);

    /* Each of its part; inside of a device, so nothing crosses. */
    for (uint32_t i = 0; i < c->n && r == 0; i++) {
        struct pool p = view_pool(&c->parts[i].view, pool);

        r = part_copy(&c->parts[i], p.mem + to * p.page_bytes, p.mem + from * p.page_bytes,
                      p.page_bytes);
    }
    return said(c, r);
}
