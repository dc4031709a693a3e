/* engine/kv/pool.c - pages, and who is charged for them.
 *
 * Three counts of a page say all that the pool has to decide by: refs, the tables that it stands
 * in; kept, those of them that are reclaimers'; owned, those of accounts that have an owner. A page
 * is free at refs 0, and can be had (n_cached) at refs == kept. All changes of the three go through
 * count(), so that n_cached and what owners are charged follow by themselves.
 */
#include "engine/kv/pool.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One head of one layer: a K and a V tile. */
static size_t tile_pair_bytes(const struct model *m, enum kv_type kv)
{
    return 2 * kv_tile_bytes(kv, m->head_dim);
}

/* A function of shapes alone: a plan of what fits (gistd --plan) asks before there is a pool. */
size_t pool_page_bytes(const struct model *m, enum kv_type kv)
{
    size_t n = tile_pair_bytes(m, kv) * m->n_head_kv * m->n_layer;

    return (n + POOL_PAGE_ALIGN - 1) / POOL_PAGE_ALIGN * POOL_PAGE_ALIGN;
}

void pool_layout(const struct pool *p, char ret[POOL_LAYOUT_MAX])
{
    static const char *const types[KV__N] = {
        [KV_F16] = "f16", [KV_F32] = "f32", [KV_Q8_0] = "q8_0"
    };

    (void)snprintf(ret, POOL_LAYOUT_MAX,
                   "kv-page %u: %s, %u layers, %u heads of %u, %u tokens, %zu bytes",
                   POOL_LAYOUT_VERSION, types[p->kv], p->n_layer, p->n_head_kv, p->head_dim,
                   POOL_PAGE_TOKENS, p->page_bytes);
}

/* Of the text, so that whoever meets another digest can be told what it was of. */
static int set_layout(struct pool *p)
{
    XXH3_state_t *hash = XXH3_createState();
    char text[POOL_LAYOUT_MAX];

    if (!hash)
        return -ENOMEM;
    pool_layout(p, text);
    (void)XXH3_128bits_reset(hash);
    (void)XXH3_128bits_update(hash, text, strlen(text));
    digest_put(hash, p->layout);
    (void)XXH3_freeState(hash);
    return 0;
}

uint32_t pool_pages_in(uint64_t bytes, size_t page_bytes)
{
    uint64_t n = bytes / page_bytes, most = UINT32_MAX / POOL_PAGE_TOKENS; /* keys: in 32 bits */

    return (uint32_t)(n < most ? n : most);
}

size_t pool_tables_bytes(uint32_t n_pages)
{
    const struct pool *p = NULL;

    return n_pages * (sizeof(*p->free) + sizeof(*p->refs) + sizeof(*p->kept) + sizeof(*p->owned) +
                      sizeof(*p->by) + sizeof(*p->away));
}

/* The tables stay: pages are still whose they were, and only their bytes are gone. */
void pool_leave(struct pool *p)
{
    backend_free(p->backend, p->mem, p->mem_len);
    p->mem = NULL;
}

int pool_again(struct pool *p, struct why *why)
{
    void *mem;
    int r = backend_alloc_pages(p->backend, p, &mem);

    /* New memory: nothing of it was given to the machine yet. */
    memset(p->away, 0, p->n_pages * sizeof(*p->away));
    p->n_away = 0;
    if (r == 0) {
        p->mem = mem;
        /* Taken from the machine now: if memory is short, the start fails with a sentence. Taken
         * later, a session that grows would get the whole process killed. */
        r = backend_populate(p->backend, mem, p->mem_len);
    }
    if (r < 0)
        return why_set(why, r, "no memory for %zu bytes of context (--kv-bytes)", p->mem_len);
    return 0;
}

/* Tables before the arena: that they do not fit is found without populating that. */
int pool_open(struct pool *p, struct backend *b, const struct model *m, enum kv_type kv,
              uint64_t bytes, struct why *why)
{
    size_t page = pool_page_bytes(m, kv);
    uint32_t n = pool_pages_in(bytes, page);
    int r;

    *p = (struct pool){
        .backend = b,
        .kv = kv,
        .page_bytes = page,
        .head_bytes = tile_pair_bytes(m, kv),
        .n_layer = m->n_layer,
        .n_head_kv = m->n_head_kv,
        .head_dim = m->head_dim,
    };
    if (n == 0)
        return why_set(why, -EINVAL,
                       "a KV pool of %llu bytes holds no page: one page of %u tokens of this "
                       "model is %zu bytes",
                       (unsigned long long)bytes, POOL_PAGE_TOKENS, page);
    p->free = malloc(n * sizeof(*p->free));
    p->refs = calloc(n, sizeof(*p->refs));
    p->kept = calloc(n, sizeof(*p->kept));
    p->owned = calloc(n, sizeof(*p->owned));
    p->by = calloc(n, sizeof(*p->by));
    p->away = calloc(n, sizeof(*p->away));
    if (!p->free || !p->refs || !p->kept || !p->owned || !p->by || !p->away || set_layout(p) < 0) {
        pool_close(p);
        return why_set(why, -ENOMEM, "no memory for the tables of %u KV pages", n);
    }
    p->mem_len = n * page;
    r = pool_again(p, why);
    if (r < 0) {
        pool_close(p);
        return r;
    }
    p->n_pages = p->n_free = n;
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
    free(p->owned);
    free(p->by);
    free(p->away);
    *p = (struct pool){ 0 };
}

/* Pages beside each other at once: a huge page is given back whole or not at all. */
uint64_t pool_discard(struct pool *p)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0, n; i < p->n_pages; i += n ? n : 1) {
        for (n = 0; i + n < p->n_pages && p->refs[i + n] == 0 && !p->away[i + n];)
            n++;
        if (n == 0)
            continue;
        if (backend_discard(p->backend, p->mem + i * p->page_bytes, n * p->page_bytes) < 0)
            return bytes;
        memset(p->away + i, 1, n * sizeof(*p->away));
        p->n_away += n;
        bytes += n * p->page_bytes;
    }
    return bytes;
}

/* The backend populates all of it: what is there stays as it is. A page that came back to use by
 * itself (pop_free) is not away any more, so n_away says whether anything is missing. */
int pool_refill(struct pool *p)
{
    int r = p->n_away ? backend_populate(p->backend, p->mem, p->mem_len) : 0;

    if (r < 0)
        return r;
    memset(p->away, 0, p->n_pages * sizeof(*p->away));
    p->n_away = 0;
    return 0;
}

/* At the end: they are asked in the order that they came in, so what is cheap to bring back comes
 * first. */
void pool_add_reclaimer(struct pool *p, struct pool_reclaimer *r)
{
    struct pool_reclaimer **at = &p->reclaimers;

    assert(r->account->used == 0); /* else P4 would not hold for what it has */
    while (*at)
        at = &(*at)->next;
    r->account->kept = true;
    r->next = NULL;
    *at = r;
}

void pool_drop_reclaimer(struct pool *p, struct pool_reclaimer *r)
{
    struct pool_reclaimer **at = &p->reclaimers;

    while (*at && *at != r)
        at = &(*at)->next;
    if (*at)
        *at = r->next;
}

/* In turn: what is cheap to bring back is to be first in the list, and nobody gives up more than is
 * needed behind those before it. */
bool pool_make_free(struct pool *p, uint32_t n)
{
    for (struct pool_reclaimer *r = p->reclaimers; r && n > p->n_free; r = r->next)
        r->fn(r->arg, n);
    return n <= p->n_free;
}

/* P4. With refs 0 it would be free, and counted in n_free instead. */
static bool is_cached(const struct pool *p, uint32_t page)
{
    return p->refs[page] > 0 && p->refs[page] == p->kept[page];
}

/* P5. A page that nobody was charged for may come to be an owner's while it is held: what was made
 * aside, for whoever gets it. What only the disk still has is nobody's. The owner who pays is the
 * first one, also when only another one's tables are left: to move the charge could take that one
 * past its limit for what somebody else did. */
static void charge(struct pool *p, uint32_t page, uint32_t by, struct pool_owner *owner)
{
    if (!owner)
        return;
    p->owned[page] += by;
    if (p->owned[page] == 0) {
        p->by[page]->used--;
        p->by[page] = NULL;
    } else if (!p->by[page]) {
        p->by[page] = owner;
        owner->used++;
    }
}

/* The page stands in `by` more tables of the account; -1u: in one less. Whether it is cached is
 * asked before and after, since any of the counts may change that, in either direction. */
static void count(struct pool *p, uint32_t page, uint32_t by, const struct pool_account *a)
{
    p->n_cached -= is_cached(p, page);
    p->refs[page] += by;
    if (a->kept)
        p->kept[page] += by;
    p->n_cached += is_cached(p, page);
    charge(p, page, by, a->owner);
}

/* The top of the stack gets its first table. If the machine has its memory, the first write takes
 * that back. */
static uint32_t pop_free(struct pool *p, const struct pool_account *a)
{
    uint32_t page = p->free[--p->n_free];

    p->n_away -= p->away[page];
    p->away[page] = false;
    count(p, page, 1, a);
    return page;
}

static uint32_t limit_room(const struct pool_owner *o)
{
    return o->used < o->limit ? o->limit - o->used : 0;
}

/* The first `reserve` pages of anybody may be the last there are; who has more leaves so many. What
 * is coming may be the owner's own: what the disk brings for it that it has no use for any more. */
static uint32_t owner_room(const struct pool *p, const struct pool_owner *o, uint32_t coming)
{
    uint32_t room = limit_room(o) + coming, had = p->n_free + p->n_cached + coming;
    uint32_t first = o->used < p->reserve ? p->reserve - o->used : 0;
    uint32_t spare = had > p->reserve ? had - p->reserve : 0;

    if (p->reserve == 0)
        return room;
    if (spare < first)
        spare = first;
    return room < spare ? room : spare;
}

/* A copy takes the place of a page in the same table: the account's entries stay as many. */
uint32_t pool_room_copies(const struct pool *p, const struct pool_account *a, uint32_t coming)
{
    return a->owner ? owner_room(p, a->owner, coming) : UINT32_MAX;
}

/* No P6: a page that others have, too, leaves as many to be had as before. */
uint32_t pool_room_shared(const struct pool_account *a)
{
    uint32_t own = a->limit - a->used, room = a->owner ? limit_room(a->owner) : UINT32_MAX;

    return own < room ? own : room;
}

uint32_t pool_room(const struct pool *p, const struct pool_account *a, uint32_t coming)
{
    uint32_t own = a->limit - a->used, room = pool_room_copies(p, a, coming);

    return own < room ? own : room;
}

/* The limit first: a client that is at its own must not have other sessions' prefixes evicted. */
int pool_take(struct pool *p, struct pool_account *a, uint32_t n, uint32_t *ret_pages)
{
    if (n > pool_room(p, a, 0) || !pool_make_free(p, n))
        return -ENOSPC;
    for (uint32_t i = 0; i < n; i++)
        ret_pages[i] = pop_free(p, a);
    a->used += n;
    assert(a->used <= a->limit); /* P2 */
    return 0;
}

/* From the last to the first: the stack then hands them out again in the order that they had. */
void pool_give(struct pool *p, struct pool_account *a, uint32_t n, const uint32_t *pages)
{
    for (uint32_t i = n; i-- > 0;) {
        assert(p->refs[pages[i]] > 0 && a->used > 0); /* P1 */
        a->used--;
        count(p, pages[i], -1u, a);
        if (p->refs[pages[i]] == 0)
            p->free[p->n_free++] = pages[i];
    }
}

/* Both accounts are one owner's and neither is a reclaimer's, so no page's counts change. */
int pool_account_move(struct pool_account *a, struct pool_account *b, uint32_t n)
{
    assert(n <= a->used && !a->kept && !b->kept && a->owner == b->owner);
    if (n > b->limit - b->used)
        return -ENOSPC;
    a->used -= n;
    b->used += n;
    return 0;
}

/* A page twice among those that are added counts twice: then the cost is too high, never too
 * low. */
void pool_cost_add(const struct pool *p, struct pool_cost *c, uint32_t n, const uint32_t *pages)
{
    c->n += n;
    for (uint32_t i = 0; i < n; i++) {
        c->n_new += !p->by[pages[i]];
        c->n_cached += is_cached(p, pages[i]);
    }
}

/* Cached pages are charged to nobody, so n_cached <= n_new: what holds for all of them holds for
 * the rest when a part is shared. */
bool pool_may_share(const struct pool *p, const struct pool_account *a, const struct pool_cost *c)
{
    const struct pool_owner *o = a->owner;
    uint32_t had = p->n_free + p->n_cached;

    if (c->n > a->limit - a->used)
        return false;
    if (!o)
        return true;
    if (c->n_new > limit_room(o))
        return false;
    return c->n_cached == 0 || p->reserve == 0 || o->used + c->n_new <= p->reserve || /* P6 */
           c->n_cached + p->reserve <= had;
}

/* All is counted before any page is shared, so that an error has changed nothing. */
int pool_share(struct pool *p, struct pool_account *a, uint32_t n, const uint32_t *pages)
{
    struct pool_cost cost = { .n = 0 };

    pool_cost_add(p, &cost, n, pages);
    if (!pool_may_share(p, a, &cost))
        return -ENOSPC;
    a->used += n;
    for (uint32_t i = 0; i < n; i++) {
        assert(p->refs[pages[i]] > 0);
        count(p, pages[i], 1, a);
    }
    return 0;
}

/* Where all other tables are reclaimers' the page itself can be had once there is a copy: P6 and
 * the owner's limit stand where they stood. */
bool pool_copy_costs(const struct pool *p, const struct pool_account *a, uint32_t page)
{
    return p->refs[page] != p->kept[page] + 1 || p->by[page] != a->owner;
}

/* Looks twice whether the page is shared: the other table may be a reclaimer's, which gives it up
 * to make room for the copy, and then none is needed. */
int pool_own(struct pool *p, const struct pool_account *a, uint32_t *page)
{
    uint32_t copy;
    bool room;
    int r;

    if (!pool_shared(p, *page))
        return 0;
    /* The limit before the reclaimers, as in pool_take: who may not have a copy evicts nothing for
     * it. */
    room = (!pool_copy_costs(p, a, *page) || pool_room_copies(p, a, 0) > 0) && pool_make_free(p, 1);
    if (!pool_shared(p, *page))
        return 0; /* the other table gave it up */
    if (!room)
        return -ENOSPC;
    assert(!a->kept); /* tables that are written to are no reclaimer's */
    copy = pop_free(p, a);
    r = backend_copy_page(p->backend, p, *page, copy);
    if (r < 0) {
        count(p, copy, -1u, a);
        p->free[p->n_free++] = copy;
        return r;
    }
    /* The old page loses this table only now, when its bytes have been copied. */
    count(p, *page, -1u, a);
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
