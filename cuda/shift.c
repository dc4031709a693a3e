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

struct shift {
    void *fit;      /* scratch; NULL: nothing was fitted yet */
    size_t fit_len; /* that it has, or will have */
    struct rt *rt;
    struct stage *stage;
    struct k_angles angles;
    struct spread_view view;
    uint32_t first_list, n_lists; /* of the view's layers: n_layer * n_head_kv */
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

/* One buffer for lists and norms, since nothing is measured while keys move. */
static size_t lists_bytes(uint32_t n_lists)
{
    return (2 * (size_t)PAGES_MAX + (size_t)n_lists * 2 * SEQ_SEGMENT_MAX) * sizeof(uint32_t);
}

/* FIT_BYTES, or what one list of the longest segment takes, or all of them if that is less. */
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
                         .first_list = v->first_layer * m->n_head_kv,
                         .n_lists = lists_of(m),
                         .fit_len = fit_bytes(m) };
    r = rt_alloc(rt, lists_bytes(s->n_lists), &s->mem);
    if (r < 0) {
        free(s);
        return r;
    }
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

static int put(struct shift *s, uint32_t *to, const uint32_t *from, size_t n)
{
    return stage_put(s->stage, to, from, n * sizeof(*from), NULL);
}

int shift_move(struct shift *s, const struct backend_move *m)
{
    size_t n = (size_t)(m->per_head ? s->n_lists : 1) * m->n_keys;
    const uint32_t *kept = m->kept + (m->per_head ? (size_t)s->first_list * m->n_keys : 0);
    uint32_t n_from = pages_from(kept, n), n_to = seq_n_pages(m->n_keys);
    int r;

    if (m->n_keys <= m->first)
        return 0;
    assert(n_from <= PAGES_MAX && n_to <= PAGES_MAX);
    r = put(s, s->from, m->from, n_from);
    if (r == 0)
        r = put(s, s->to, m->to, n_to);
    if (r == 0)
        r = put(s, s->kept, kept, n);
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
    return r == 0 ? stage_get(s->stage, host + (size_t)s->first_list * n_keys, s->norms,
                              (size_t)s->n_lists * n_keys * sizeof(*host), NULL)
                  : r;
}

/* By the first segment that is fitted, for the longest that there are. */
static int fit_room(struct shift *s)
{
    return s->fit ? 0 : rt_alloc(s->rt, s->fit_len, &s->fit);
}

/* Queries are of all layers' lists. */
static const float *asked_here(const struct shift *s, const struct backend_fit *f)
{
    const float *all = view_at(&s->view, f->asked);

    return all + (size_t)s->first_list * f->n_asked * ASKED_FLOATS(f->pool->head_dim);
}

int shift_fit(struct shift *s, const struct backend_fit *f)
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
                       .first_list = f->first_list - s->first_list,
                       .n_lists = 1 };
    size_t fitting = s->fit_len / k_fit_scratch(&a);
    uint32_t n = s->n_lists - a.first_list;
    int r = put(s, s->from, f->from, seq_n_pages(f->n_raw));

    assert(fitting > 0 && a.first_list < s->n_lists);
    if (n > f->n_lists)
        n = f->n_lists;
    a.n_lists = fitting < n ? (uint32_t)fitting : n;
    if (r == 0)
        r = put(s, s->to, f->to, seq_n_pages(f->n_keys));
    if (r == 0)
        r = fit_room(s);
    if (r == 0)
        r = stage_join(s->stage);
    a.scratch = s->fit;
    if (r == 0)
        r = k_fit(rt_stream(s->rt, RT_COMPUTE), &a);
    return r == 0 ? (int)a.n_lists : r;
}
