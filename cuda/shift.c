/* cuda/shift.c - what moves keys, weighs them by norms or fits them has lists from the host: which
 * keys of which layer and KV head. A device is given the lists that it has keys of. By layers these
 * are one stretch of the host's; with a part of each layer, a stretch a layer.
 */
#include "cuda/shift.h"

#include "cuda/fit.h"
#include "cuda/move.h"
#include "engine/kv/asked.h"
#include "engine/kv/pool.h"
#include "engine/kv/seq.h"
#include "engine/run.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Pages of the longest segment, with a gist among its tokens for every one of them. */
#define PAGES_MAX (2 * SEQ_SEGMENT_MAX / PAGE_TOKENS)

/* from, to, kept and norms are in mem. */
struct shift {
    void *fit;      /* scratch; NULL: nothing was fitted yet */
    size_t fit_len; /* that it has, or will have */
    struct rt *rt;
    struct stage *stage;
    struct k_angles angles;
    struct spread_view view;
    uint32_t n_lists; /* of the view: its layers times its heads */
    /* Of each layer the view has n_heads, from one on; the model n_all. */
    uint32_t first_head, n_heads, n_all;
    void *mem;
    uint32_t *from, *to; /* (PAGES_MAX) */
    uint32_t *kept;      /* (n_lists, keys of the longest segment) */
    float *norms;        /* the same */
};

/* Scratch of the lists that are fitted at once: all of them, but of very long segments. */
#define FIT_BYTES ((size_t)64 << 20)

static uint32_t lists_of(const struct model *m)
{
    return m->n_layer * m->n_head_kv;
}

/* One buffer for lists and norms, since nothing is measured while keys move. Twice SEQ_SEGMENT_MAX
 * keys: each token may have a gist beside it. */
static size_t lists_bytes(uint32_t n_lists)
{
    return (2 * (size_t)PAGES_MAX + (size_t)n_lists * 2 * SEQ_SEGMENT_MAX) * sizeof(uint32_t);
}

/* FIT_BYTES, or what one list of the longest segment takes, or all of them if that is less. At
 * least one list has room, however long a segment is. */
static size_t fit_bytes(const struct model *m)
{
    const struct k_fit longest = { .pool.head_dim = m->head_dim,
                                   .n_raw = SEQ_SEGMENT_MAX,
                                   .n_keys = SEQ_SEGMENT_MAX,
                                   .n_asked = ASKED_ROWS,
                                   .n_lists = 1 };
    size_t one = k_fit_scratch(&longest), all = one * lists_of(m);
    size_t most = one > FIT_BYTES ? one : FIT_BYTES;

    return all < most ? all : most;
}

/* Scratch of fitting is counted, though it is only taken when something is fitted. */
size_t shift_need(const struct model *m)
{
    return lists_bytes(lists_of(m)) + fit_bytes(m);
}

_Static_assert(sizeof(float) == sizeof(uint32_t), "lists and norms share memory");

int shift_open(struct rt *rt, struct stage *stage, const struct model *m,
               const struct spread_view *v, struct k_angles angles, struct shift **ret)
{
    struct shift *s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return -ENOMEM;
    *s = (struct shift){ .rt = rt,
                         .stage = stage,
                         .view = *v,
                         .angles = angles,
                         .n_lists = lists_of(m),
                         .first_head = v->divide ? v->device * m->n_head_kv : 0,
                         .n_heads = m->n_head_kv,
                         .n_all = m->n_head_kv * (v->divide ? v->divide->n : 1),
                         .fit_len = fit_bytes(m) };
    r = rt_alloc(rt, lists_bytes(s->n_lists), &s->mem);
    if (r < 0) {
        free(s);
        return r;
    }
    /* Lists of pages first; both kinds of the others share the rest. */
    s->from = s->mem;
    s->to = s->from + PAGES_MAX;
    s->kept = s->to + PAGES_MAX;
    s->norms = (float *)(void *)s->kept;
    *ret = s;
    return 0;
}

void shift_close(struct shift *s)
{
    if (!s)
        return;
    rt_free(s->rt, s->mem);
    if (s->fit)
        rt_free(s->rt, s->fit);
    free(s);
}

size_t shift_bytes(const struct shift *s)
{
    return lists_bytes(s->n_lists) + (s->fit ? s->fit_len : 0);
}

struct k_pool shift_pool(const struct spread_view *v, const struct pool *pool)
{
    struct pool p = view_pool(v, pool);

    return (struct k_pool){ .mem = p.mem,
                            .page_bytes = p.page_bytes,
                            .head_bytes = p.head_bytes,
                            .kv = p.kv,
                            .n_layer = p.n_layer,
                            .n_head_kv = p.n_head_kv,
                            .head_dim = p.head_dim };
}

/* Pages up to the last key that a list takes. */
static uint32_t pages_from(const uint32_t *kept, size_t n)
{
    uint32_t most = 0;

    for (size_t i = 0; i < n; i++)
        most = kept[i] > most ? kept[i] : most;
    return most / PAGE_TOKENS + 1;
}

/* Read before it returns, and seen by what computes after stage_join. */
static int put(struct shift *s, uint32_t *to, const uint32_t *from, size_t n)
{
    return stage_put(s->stage, to, from, n * sizeof(*from), NULL);
}

/* Lists of all layers and heads lie layer by layer: of these, where the view's of its layer i do.
 */
static size_t list_at(const struct shift *s, uint32_t i)
{
    return (size_t)(s->view.first_layer + i) * s->n_all + s->first_head;
}

/* Layers whose lists lie behind each other both here and there: all of them where a view has all
 * heads. */
static uint32_t layers_at_once(const struct shift *s)
{
    return s->n_heads == s->n_all ? s->n_lists / s->n_heads : 1;
}

/* One list for all, or one of each layer and head. */
static int put_kept(struct shift *s, const struct backend_move *m)
{
    uint32_t n = layers_at_once(s);
    size_t len = (size_t)n * s->n_heads * m->n_keys;
    int r = m->per_head ? 0 : put(s, s->kept, m->kept, m->n_keys);

    for (uint32_t i = 0; m->per_head && i < s->n_lists / s->n_heads && r == 0; i += n)
        r = put(s, s->kept + i / n * len, m->kept + list_at(s, i) * m->n_keys, len);
    return r;
}

int shift_move(struct shift *s, const struct backend_move *m)
{
    /* From the view's first layer on, with all heads: others' lists may name later pages, which
     * does no harm. */
    size_t layers = s->n_lists / s->n_heads, n = m->n_keys;
    size_t at = m->per_head ? list_at(s, 0) - s->first_head : 0;
    uint32_t n_from = pages_from(m->kept + at * n, m->per_head ? layers * s->n_all * n : n);
    uint32_t n_to = seq_n_pages(m->n_keys);
    int r;

    /* All of the segment stays where it is. */
    if (m->n_keys <= m->first)
        return 0;
    assert(n_from <= PAGES_MAX && n_to <= PAGES_MAX);
    r = put(s, s->from, m->from, n_from);
    if (r == 0)
        r = put(s, s->to, m->to, n_to);
    if (r == 0)
        r = put_kept(s, m);
    if (r == 0)
        r = stage_join(s->stage);
    return r == 0 ? k_move(rt_stream(s->rt, RT_COMPUTE),
                           &(struct k_move){ .pool = shift_pool(&s->view, m->pool),
                                             .angles = s->angles,
                                             .from = s->from,
                                             .to = s->to,
                                             .kept = s->kept,
                                             .per_head = m->per_head,
                                             .first = m->first,
                                             .n_keys = m->n_keys })
                  : r;
}

/* To their places among all layers' and heads': other devices write the rest. */
static int get_norms(struct shift *s, uint32_t n_keys, float *host)
{
    uint32_t n = layers_at_once(s);
    size_t len = (size_t)n * s->n_heads * n_keys;
    int r = 0;

    for (uint32_t i = 0; i < s->n_lists / s->n_heads && r == 0; i += n)
        r = stage_get(s->stage, host + list_at(s, i) * n_keys, s->norms + i / n * len,
                      len * sizeof(*host), NULL);
    return r;
}

int shift_norms(struct shift *s, const struct pool *p, const uint32_t *pages, uint32_t n_keys,
                float *host)
{
    int r;

    if (n_keys == 0)
        return 0;
    r = put(s, s->from, pages, seq_n_pages(n_keys));
    if (r == 0)
        r = stage_join(s->stage);
    if (r == 0)
        r = k_norms(rt_stream(s->rt, RT_COMPUTE),
                    &(struct k_norms){ .pool = shift_pool(&s->view, p),
                                       .pages = s->from,
                                       .n_keys = n_keys,
                                       .to = s->norms });
    return r == 0 ? get_norms(s, n_keys, host) : r;
}

/* By the first segment that is fitted, for the longest that there are. */
static int fit_room(struct shift *s)
{
    return s->fit ? 0 : rt_alloc(s->rt, s->fit_len, &s->fit);
}

/* Queries are of all layers' lists, of the heads that the view has. */
static const float *asked_here(const struct shift *s, const struct backend_fit *f)
{
    const float *all = view_at(&s->view, f->asked);

    return all +
           (size_t)s->view.first_layer * s->n_heads * f->n_asked * ASKED_FLOATS(f->pool->head_dim);
}

uint32_t shift_fits(const struct shift *s, const struct backend_fit *f)
{
    const struct k_fit one = { .pool.head_dim = f->pool->head_dim,
                               .n_raw = f->n_raw,
                               .n_keys = f->n_keys,
                               .n_asked = f->n_asked,
                               .n_lists = 1 };
    size_t n = s->fit_len / k_fit_scratch(&one);

    assert(n > 0);
    return n < s->n_lists ? (uint32_t)n : s->n_lists;
}

int shift_fit(struct shift *s, const struct backend_fit *f, uint32_t first, uint32_t n)
{
    struct k_fit a = { .pool = shift_pool(&s->view, f->pool),
                       .angles = s->angles,
                       .from = s->from,
                       .to = s->to,
                       .n_raw = f->n_raw,
                       .n_keys = f->n_keys,
                       .sinks = f->sinks,
                       .asked = asked_here(s, f),
                       .n_asked = f->n_asked,
                       .first_list = first,
                       .n_lists = n };
    int r = put(s, s->from, f->from, seq_n_pages(f->n_raw));

    assert(n > 0 && first + n <= s->n_lists);
    if (r == 0)
        r = put(s, s->to, f->to, seq_n_pages(f->n_keys));
    if (r == 0)
        r = fit_room(s);
    if (r == 0)
        r = stage_join(s->stage);
    a.scratch = s->fit;
    return r == 0 ? k_fit(rt_stream(s->rt, RT_COMPUTE), &a) : r;
}
