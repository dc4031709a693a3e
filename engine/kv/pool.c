#include "engine/kv/pool.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* One head of one layer: a K and a V tile. */
static size_t tile_pair_bytes(const struct model *m, enum kv_type kv)
{
    return 2 * kv_tile_bytes(kv, m->head_dim);
}

size_t pool_page_bytes(const struct model *m, enum kv_type kv)
{
    return tile_pair_bytes(m, kv) * m->n_head_kv * m->n_layer;
}

int pool_open(struct pool *p, struct backend *b, const struct model *m, enum kv_type kv,
              uint64_t bytes, struct why *why)
{
    size_t page = pool_page_bytes(m, kv);
    uint64_t n = bytes / page;
    void *mem;
    int r;

    *p = (struct pool){
        .backend = b, .kv = kv, .page_bytes = page, .head_bytes = tile_pair_bytes(m, kv)
    };
    if (n == 0)
        return why_set(why, -EINVAL,
                       "a KV pool of %llu bytes holds no page: one page of %u tokens of this "
                       "model is %zu bytes",
                       (unsigned long long)bytes, POOL_PAGE_TOKENS, page);
    if (n > UINT32_MAX / POOL_PAGE_TOKENS)
        n = UINT32_MAX / POOL_PAGE_TOKENS;

    p->free = malloc(n * sizeof(*p->free));
    p->refs = calloc(n, sizeof(*p->refs));
    p->kept = calloc(n, sizeof(*p->kept));
    if (!p->free || !p->refs || !p->kept) {
        pool_close(p);
        return why_set(why, -ENOMEM, "no memory for the tables of %llu KV pages",
                       (unsigned long long)n);
    }
    p->mem_len = n * page;
    r = backend_alloc(b, p->mem_len, &mem);
    if (r == 0) {
        p->mem = mem;
        r = backend_populate(b, mem, p->mem_len);
    }
    if (r < 0) {
        pool_close(p);
        return why_set(why, r, "no memory for %llu bytes of context (--kv-bytes)",
                       (unsigned long long)bytes);
    }
    p->n_head_kv = m->n_head_kv;
    p->head_dim = m->head_dim;
    p->n_pages = p->n_free = (uint32_t)n;
    for (uint32_t i = 0; i < p->n_pages; i++) /* page 0 is taken first */
        p->free[i] = p->n_pages - 1 - i;
    return 0;
}

void pool_close(struct pool *p)
{
    if (!p)
        return;
    backend_free(p->backend, p->mem, p->mem_len);
    free(p->free);
    free(p->refs);
    free(p->kept);
    *p = (struct pool){ 0 };
}

/* Sees that n pages are free, if that can be. */
static bool make_free(struct pool *p, uint32_t n)
{
    if (n > p->n_free && p->reclaim.fn)
        p->reclaim.fn(p->reclaim.arg, n);
    return n <= p->n_free;
}

static bool is_cached(const struct pool *p, uint32_t page)
{
    return p->refs[page] > 0 && p->refs[page] == p->kept[page];
}

/* by tables more that hold the page; kept: they are the reclaim's. */
static void count(struct pool *p, uint32_t page, uint32_t by, bool kept)
{
    p->n_cached -= is_cached(p, page);
    p->refs[page] += by;
    if (kept)
        p->kept[page] += by;
    p->n_cached += is_cached(p, page);
}

static uint32_t pop_free(struct pool *p)
{
    uint32_t page = p->free[--p->n_free];

    count(p, page, 1, false);
    return page;
}

int pool_take(struct pool *p, struct pool_account *a, uint32_t n, uint32_t *ret_pages)
{
    if (n > a->limit - a->used || !make_free(p, n))
        return -ENOSPC;
    for (uint32_t i = 0; i < n; i++)
        ret_pages[i] = pop_free(p);
    a->used += n;
    assert(a->used <= a->limit); /* P2 */
    return 0;
}

void pool_give(struct pool *p, struct pool_account *a, uint32_t n, const uint32_t *pages)
{
    for (uint32_t i = n; i-- > 0;) {
        assert(p->refs[pages[i]] > 0 && a->used > 0); /* P1 */
        a->used--;
        count(p, pages[i], -1u, a == p->reclaim.account);
        if (p->refs[pages[i]] == 0)
            p->free[p->n_free++] = pages[i];
    }
}

int pool_share(struct pool *p, struct pool_account *a, uint32_t n, const uint32_t *pages)
{
    if (n > a->limit - a->used)
        return -ENOSPC;
    a->used += n;
    for (uint32_t i = 0; i < n; i++) {
        assert(p->refs[pages[i]] > 0);
        count(p, pages[i], 1, a == p->reclaim.account);
    }
    return 0;
}

int pool_own(struct pool *p, uint32_t *page)
{
    uint32_t copy;
    bool room;
    int r;

    if (!pool_shared(p, *page))
        return 0;
    room = make_free(p, 1);
    if (!pool_shared(p, *page))
        return 0; /* the other table gave it up */
    if (!room)
        return -ENOSPC;
    copy = pop_free(p);
    r = backend_copy_page(p->backend, p, *page, copy);
    if (r < 0) {
        count(p, copy, -1u, false);
        p->free[p->n_free++] = copy;
        return r;
    }
    count(p, *page, -1u, false);
    *page = copy;
    return 0;
}

size_t pool_k_off(const struct pool *p, uint32_t layer, uint32_t head)
{
    return ((size_t)layer * p->n_head_kv + head) * p->head_bytes;
}

size_t pool_v_off(const struct pool *p, uint32_t layer, uint32_t head)
{
    return pool_k_off(p, layer, head) + p->head_bytes / 2;
}
