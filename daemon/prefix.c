/* Nodes of all trees lie in one array, and point at each other by index: the hash chain, the list
 * by use and the list of free ones are threaded through them, so that learning and forgetting
 * allocate nothing. There is one hash table for all trees. Roots are nodes as well, but stand
 * neither in the table nor in the list by use: they are found by owner and policy (find_root), and
 * go with their last child (evict).
 *
 * A node holds references of the pool's to its pages. What it holds alone can be had (P4 of
 * engine/kv/pool.h), whatever its place in the tree; so reclaim() has a last resort that breaks
 * branches. */
#include "daemon/prefix.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define TOKENS       POOL_PAGE_TOKENS
#define NONE         UINT32_MAX
#define PATH_MAX_LEN (POLICY_TOKENS_MAX / TOKENS)
/* A compressed segment has a node for each 16 ids, and few pages. Enough for a pool full of
 * segments at ratio 4; where they are compressed further nodes run short before pages do, and
 * take_node evicts. */
#define NODES_A_PAGE 4u
#define NODES_MIN    16384u
/* A part of the pool that is freed beyond what was asked for. */
#define RECLAIM_MORE 64u

struct node {
    uint32_t parent, n_children;
    uint32_t hash_next;
    uint32_t older, newer; /* by use */
    uint32_t page;         /* raw; or NONE */
    bool stale; /* its segment was compressed: only shorter beginnings want the raw page */
    bool going; /* of prefix_forget */
    uint32_t
        packed; /* first page of the compressed segment that ends here, or NONE; the rest by next */
    uint32_t n_know;      /* of a mark's node: sessions that know it */
    uint32_t ids[TOKENS]; /* a root has its owner there */
};

struct root {
    bool used;
    uint32_t owner;
    struct policy policy;
    uint32_t node;
    uint64_t used_at; /* the tree's clock */
};

struct prefix {
    struct pool *pool;
    struct pool_account account;
    struct pool_reclaimer reclaimer;
    struct node *nodes;
    uint32_t n_nodes, free; /* first free node; they hang on hash_next */
    uint32_t n_touched;     /* from there on nodes were never used */
    uint32_t *buckets, n_buckets;
    uint32_t oldest, newest;
    uint32_t n_stale;
    uint32_t *next; /* (n_pages) of a compressed segment's pages the one behind it */
    uint32_t *path; /* (PATH_MAX_LEN) of one walk */
    struct root roots[PREFIX_ROOTS];
    uint64_t clock; /* uses of roots */
    uint32_t own;   /* the node that marks hang on; it is never evicted */
    uint64_t last_mark;
    uint32_t *marked; /* (n_pages) the mark's node that has it, or NONE */
};

/* --- nodes ------------------------------------------------------------------------------------ */

/* The parent is hashed too: equal ids behind other beginnings have other keys and values. */
static uint32_t *bucket_of(const struct prefix *p, uint32_t parent, const uint32_t *ids)
{
    uint64_t h = XXH3_64bits_withSeed(ids, TOKENS * sizeof(*ids), parent);

    return &p->buckets[h & (p->n_buckets - 1)];
}

static uint32_t find(const struct prefix *p, uint32_t parent, const uint32_t *ids)
{
    uint32_t i = *bucket_of(p, parent, ids);

    while (i != NONE && (p->nodes[i].parent != parent ||
                         memcmp(p->nodes[i].ids, ids, sizeof(p->nodes[i].ids)) != 0))
        i = p->nodes[i].hash_next;
    return i;
}

/* The list by use, from `oldest` to `newest`. Each end of it is a field of the tree where others
 * have a neighbour's. */
static void unlink_use(struct prefix *p, uint32_t i)
{
    const struct node *n = &p->nodes[i];

    *(n->older == NONE ? &p->oldest : &p->nodes[n->older].newer) = n->newer;
    *(n->newer == NONE ? &p->newest : &p->nodes[n->newer].older) = n->older;
}

static void link_newest(struct prefix *p, uint32_t i)
{
    p->nodes[i].older = p->newest;
    p->nodes[i].newer = NONE;
    *(p->newest == NONE ? &p->oldest : &p->nodes[p->newest].newer) = i;
    p->newest = i;
}

/* The first n of the path were used: the last one first, so that T1 holds. */
static void touch(struct prefix *p, uint32_t n)
{
    while (n-- > 0) {
        unlink_use(p, p->path[n]);
        link_newest(p, p->path[n]);
    }
}

static void drop_raw(struct prefix *p, struct node *n)
{
    if (n->page == NONE)
        return;
    pool_give(p->pool, &p->account, 1, &n->page);
    n->page = NONE;
    p->n_stale -= n->stale;
    n->stale = false;
}

/* Also takes the mark off: marked[] says which node a page is found by, and the next one to have
 * the page must not be taken for it. */
static void drop_packed(struct prefix *p, struct node *n)
{
    for (uint32_t page = n->packed, next; page != NONE; page = next) {
        next = p->next[page];
        p->marked[page] = NONE;
        pool_give(p->pool, &p->account, 1, &page);
    }
    n->packed = NONE;
}

static void release_root(struct prefix *p, uint32_t node)
{
    for (uint32_t i = 0; i < PREFIX_ROOTS; i++)
        if (p->roots[i].used && p->roots[i].node == node)
            p->roots[i].used = false;
}

static void put_free(struct prefix *p, uint32_t i)
{
    p->nodes[i].hash_next = p->free;
    p->free = i;
}

/* keep: a root that is wanted without children, too. A node without children only: who stands
 * behind it could not be found, nor freed, without it. */
static void evict(struct prefix *p, uint32_t i, uint32_t keep)
{
    struct node *n = &p->nodes[i], *parent = &p->nodes[n->parent];
    uint32_t *at = bucket_of(p, n->parent, n->ids);

    assert(n->n_children == 0);
    /* It is in its chain, or the table is broken: no check for the end. */
    while (*at != i)
        at = &p->nodes[*at].hash_next;
    *at = n->hash_next;
    unlink_use(p, i);
    drop_raw(p, n);
    drop_packed(p, n);
    if (--parent->n_children == 0 && parent->parent == NONE && n->parent != keep) {
        release_root(p, n->parent);
        put_free(p, n->parent);
    }
    put_free(p, i);
}

/* A page that lies under a mark, too, is given up here first, and then there. */
static bool raw_gives(const struct prefix *p, const struct node *n)
{
    return n->page != NONE && p->pool->refs[n->page] == 1u + (p->marked[n->page] != NONE);
}

static bool packed_gives(const struct prefix *p, const struct node *n)
{
    for (uint32_t page = n->packed; page != NONE; page = p->next[page])
        if (!pool_shared(p->pool, page))
            return true;
    return false;
}

/* Some page of it would be free without us, or it has none and is of no use. To evict one that a
 * session holds too would free nothing, and cost who comes next its sharing. */
static bool gives(const struct prefix *p, const struct node *n)
{
    return (n->page == NONE && n->packed == NONE) || raw_gives(p, n) || packed_gives(p, n);
}

/* Raw pages of segments that were compressed since, the longest unused first. */
static void reclaim_stale(struct prefix *p, uint32_t n)
{
    for (uint32_t i = p->oldest; i != NONE && p->n_stale && p->pool->n_free < n;
         i = p->nodes[i].newer)
        if (p->nodes[i].stale)
            drop_raw(p, &p->nodes[i]);
}

/* Pages in the middle of a branch that nobody has but us, though somebody works behind them: he has
 * pages of his own for the same ids, or has compressed them. They leave holes that who reads these
 * ids anew fills. The last resort, without which the pool would count as cached what can't be had.
 */
static void reclaim_inner(struct prefix *p, uint32_t n)
{
    for (uint32_t i = p->oldest; i != NONE && p->pool->n_cached && p->pool->n_free < n;
         i = p->nodes[i].newer) {
        if (raw_gives(p, &p->nodes[i]))
            drop_raw(p, &p->nodes[i]);
        if (packed_gives(p, &p->nodes[i]))
            drop_packed(p, &p->nodes[i]);
    }
}

/* Asked by the pool: then ends of branches that nobody works on. */
static void reclaim(void *arg, uint32_t n)
{
    struct prefix *p = arg;
    uint32_t wanted = n;

    n += p->pool->n_pages / RECLAIM_MORE; /* so that the next one does not walk as far again */
    reclaim_stale(p, n);
    /* With nothing cached none of them gives anything, and who asks in vain asks in each step. */
    for (uint32_t i = p->oldest, newer; i != NONE && p->pool->n_cached && p->pool->n_free < n;
         i = newer) {
        newer = p->nodes[i].newer;
        if (p->nodes[i].n_children == 0 && gives(p, &p->nodes[i]))
            evict(p, i, NONE);
    }
    reclaim_inner(p, wanted);
}

/* A node that is nobody's, but not keep. NONE: there is none. */
static uint32_t take_node(struct prefix *p, uint32_t keep)
{
    uint32_t i = p->oldest;

    while (p->free == NONE && p->n_touched == p->n_nodes && i != NONE) {
        uint32_t newer = p->nodes[i].newer;

        if (p->nodes[i].n_children == 0 && i != keep)
            evict(p, i, keep);
        i = newer;
    }
    i = p->free;
    if (i != NONE)
        p->free = p->nodes[i].hash_next;
    else if (p->n_touched < p->n_nodes)
        i = p->n_touched++;
    return i;
}

/* A child of parent, which is not there yet. It is the newest of all, its parent is not: the caller
 * touches the path when it has all of it, which restores T1. */
static uint32_t add(struct prefix *p, uint32_t parent, const uint32_t *ids)
{
    uint32_t i = take_node(p, parent), *bucket;

    if (i == NONE)
        return NONE;
    bucket = bucket_of(p, parent, ids);
    p->nodes[i] =
        (struct node){ .parent = parent, .hash_next = *bucket, .page = NONE, .packed = NONE };
    memcpy(p->nodes[i].ids, ids, sizeof(p->nodes[i].ids));
    *bucket = i;
    p->nodes[parent].n_children++;
    link_newest(p, i);
    return i;
}

/* --- roots ------------------------------------------------------------------------------------ */

/* To look for a root is to use it, also when nothing is found below it. */
static uint32_t find_root(struct prefix *p, uint32_t owner, const struct policy *policy)
{
    for (uint32_t i = 0; i < PREFIX_ROOTS; i++) {
        struct root *r = &p->roots[i];

        if (!r->used || r->owner != owner || !policy_same(&r->policy, policy))
            continue;
        r->used_at = ++p->clock;
        return r->node;
    }
    return NONE;
}

static uint32_t n_roots_of(const struct prefix *p, uint32_t owner)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < PREFIX_ROOTS; i++)
        n += p->roots[i].used && p->roots[i].owner == owner;
    return n;
}

/* The one to give up: of an owner who has most of them, the longest unused. Quadratic, and only
 * when a policy is seen for the first time with all places taken. */
static struct root *least_used_root(struct prefix *p)
{
    struct root *best = &p->roots[0];
    uint32_t most = 0;

    for (uint32_t i = 0; i < PREFIX_ROOTS; i++) {
        struct root *r = &p->roots[i];
        uint32_t n = n_roots_of(p, r->owner);

        if (n < most || (n == most && r->used_at >= best->used_at))
            continue;
        most = n;
        best = r;
    }
    return best;
}

/* Its nodes are not looked up any more, so nothing makes them younger: sooner or later they are
 * what is evicted next, and the last of them frees the root's own (evict). To free them here would
 * be a walk over all nodes, which a client could ask for with each session that it opens. */
static void retire(struct prefix *p, struct root *r)
{
    r->used = false;
    if (p->nodes[r->node].n_children == 0)
        put_free(p, r->node);
}

static struct root *free_root(struct prefix *p)
{
    struct root *r;

    for (uint32_t i = 0; i < PREFIX_ROOTS; i++)
        if (!p->roots[i].used)
            return &p->roots[i];
    r = least_used_root(p);
    retire(p, r);
    return r;
}

static uint32_t add_root(struct prefix *p, uint32_t owner, const struct policy *policy)
{
    uint32_t node = take_node(p, NONE);
    struct root *r;

    if (node == NONE)
        return NONE;
    p->nodes[node] =
        (struct node){ .parent = NONE, .page = NONE, .packed = NONE, .ids = { owner } };
    r = free_root(p);
    *r = (struct root){
        .used = true, .owner = owner, .policy = *policy, .node = node, .used_at = ++p->clock
    };
    return node;
}

/* --- learning --------------------------------------------------------------------------------- */

/* Who read the same at the same time has other pages with the same keys: the first ones stay. */
static void keep_raw(struct prefix *p, struct node *n, uint32_t page)
{
    if (n->page != NONE)
        return;
    if (pool_share(p->pool, &p->account, 1, &page) == 0)
        n->page = page;
}

/* Pages of a compressed segment are chained by `next`, which has an entry for each page of the
 * pool: so a node needs no room for a list, and a page can stand in one chain only. pool_share
 * comes first: who fails there leaves the chain of whoever has the page. */
static void keep_packed(struct prefix *p, struct node *n, const uint32_t *pages, uint32_t n_pages)
{
    if (n->packed != NONE || n_pages == 0 || pool_share(p->pool, &p->account, n_pages, pages) < 0)
        return;
    for (uint32_t i = 0; i < n_pages; i++)
        p->next[pages[i]] = i + 1 < n_pages ? pages[i + 1] : NONE;
    n->packed = pages[0];
}

/* A page of raw keys, or the pages of the compressed segment that ends here. i is the page's number
 * in the sequence, and in the path. */
static void keep(struct prefix *p, struct node *n, const struct seq *s, const struct ladder *l,
                 uint32_t i)
{
    uint32_t per_segment = s->seg_len / TOKENS, segment = i / per_segment;

    if (!seq_resident(s, segment))
        return;
    if (segment >= l->n_at[1])
        keep_raw(p, n, seq_pages(s, segment)[i % per_segment]);
    else if ((i + 1) % per_segment == 0)
        keep_packed(p, n, seq_pages(s, segment), seq_n_pages(s->segments[segment].n_keys));
}

/* Called after each step of each sequence, and has something to do in one of 16 steps that decode:
 * when another page is full, or a segment was packed. It walks from the root then, since nodes on
 * the way may have gone; the nodes that are still there cost a hash of 64 bytes each. */
void prefix_learn(struct prefix_user *u, const struct seq *s, const struct ladder *l,
                  const struct policy *policy)
{
    struct prefix *p = u->prefix;
    uint32_t n = s->n_tokens / TOKENS, i, at;

    if (!p || u->keeps_nothing || l->n_at[2] > 0 || n == 0 || n > PATH_MAX_LEN ||
        (n == u->n_pages && l->n_at[1] == u->n_packed))
        return;
    at = find_root(p, u->owner, policy);
    if (at == NONE)
        at = add_root(p, u->owner, policy);
    for (i = 0; i < n && at != NONE; i++) {
        uint32_t child = find(p, at, s->tokens + (size_t)i * TOKENS);

        if (child == NONE)
            child = add(p, at, s->tokens + (size_t)i * TOKENS);
        if (child == NONE)
            break;
        p->path[i] = at = child;
        keep(p, &p->nodes[at], s, l, i);
    }
    touch(p, i);
    u->n_pages = n;
    u->n_packed = l->n_at[1];
}

void prefix_unlearn(struct prefix_user *u)
{
    u->n_pages = u->n_packed = 0;
}

/* Marks by the way from the root: other sessions may have the same pages and keep them raw, but who
 * reads this text from the beginning finds it compressed there. */
void prefix_supersede(const struct prefix_user *u, const struct seq *s, const struct policy *policy,
                      uint32_t segment)
{
    struct prefix *p = u->prefix;
    uint32_t per_segment = s->seg_len / TOKENS, at = NONE;

    if (p && !u->keeps_nothing)
        at = find_root(p, u->owner, policy);
    for (uint32_t i = 0; i < (segment + 1) * per_segment && at != NONE; i++) {
        struct node *n;

        at = find(p, at, s->tokens + (size_t)i * TOKENS);
        n = at == NONE ? NULL : &p->nodes[at];
        if (!n || i < segment * per_segment || n->page == NONE || n->stale)
            continue;
        n->stale = true;
        p->n_stale++;
    }
}

/* Also of a root that was given up (retire), whose nodes are there as long as nobody wants their
 * pages: so the node itself knows its owner. Marks hang on a node that is nobody's. */
static bool is_root_of(const struct prefix *p, uint32_t node, uint32_t owner)
{
    return node != p->own && p->nodes[node].ids[0] == owner;
}

/* By T1 parents come first on the way from the newest node to the oldest, and children on the way
 * back: so one walk finds all that stand below the owner's roots, and another frees them. */
void prefix_forget(struct prefix *p, uint32_t owner)
{
    for (uint32_t i = p->newest; i != NONE; i = p->nodes[i].older) {
        uint32_t parent = p->nodes[i].parent;

        p->nodes[i].going =
            p->nodes[parent].parent == NONE ? is_root_of(p, parent, owner) : p->nodes[parent].going;
    }
    for (uint32_t i = p->oldest, newer; i != NONE; i = newer) {
        newer = p->nodes[i].newer;
        if (p->nodes[i].going)
            evict(p, i, NONE);
    }
}

void prefix_forget_all(struct prefix *p)
{
    for (uint32_t i = p->oldest, newer; i != NONE; i = newer) {
        newer = p->nodes[i].newer;
        evict(p, i, NONE);
    }
}

/* --- adopting --------------------------------------------------------------------------------- */

/* The nodes that ids lead to, in path: how many. */
static uint32_t walk(const struct prefix_user *u, const struct policy *policy, const uint32_t *ids,
                     uint32_t n)
{
    struct prefix *p = u->prefix;
    uint32_t at = find_root(p, u->owner, policy), i = 0;

    for (; at != NONE && i < n && i < PATH_MAX_LEN; i++) {
        at = find(p, at, ids + (size_t)i * TOKENS);
        if (at == NONE)
            break;
        p->path[i] = at;
    }
    return i;
}

/* The longest part of the path, in pages, of which all is there that a sequence so long would hold.
 */
static uint32_t usable(const struct prefix *p, const struct policy *policy, uint32_t n)
{
    uint32_t per_segment = policy->seg_len / TOKENS, n_packed = 0, first = 0;
    bool nothing = ladder_segment_keys(policy, 0, 1) == 0;

    while ((n_packed + 1) * per_segment <= n &&
           (nothing || p->nodes[p->path[(n_packed + 1) * per_segment - 1]].packed != NONE))
        n_packed++;
    n = (uint32_t)(ladder_unthinned(policy, (uint64_t)n * TOKENS) / TOKENS);
    for (; n > 0; n--) {
        uint32_t wants = ladder_of(policy, (uint64_t)n * TOKENS).n_at[1];

        if (wants > n_packed)
            continue;
        /* `first`: from where on raw pages are there without a hole, up to n. */
        for (first = n; first > wants * per_segment && p->nodes[p->path[first - 1]].page != NONE;)
            first--;
        if (first == wants * per_segment)
            return n;
        n = first; /* a longer part would have the same hole, this one ends before it */
    }
    return 0;
}

/* usable() has looked at this: the segment's last node has the chain, of as many pages as the
 * policy says. */
static void adopt_segment(const struct prefix *p, struct seq *s, const struct policy *policy,
                          uint32_t segment, const uint32_t *ids)
{
    uint32_t n_keys = ladder_segment_keys(policy, segment, 1);
    uint32_t pages[SEQ_SEGMENT_MAX / TOKENS], n = 0;
    uint32_t last = p->path[(segment + 1) * (s->seg_len / TOKENS) - 1];

    for (uint32_t page = p->nodes[last].packed; n < seq_n_pages(n_keys); page = p->next[page])
        pages[n++] = page;
    seq_adopt_compressed(s, ids, n_keys, pages);
}

bool prefix_raw(const struct prefix_user *u, const struct seq *s, const struct policy *policy,
                uint32_t segment, uint32_t *ret_pages)
{
    struct prefix *p = u->prefix;
    uint32_t per_segment = s->seg_len / TOKENS, n = (segment + 1) * per_segment;

    if (!p || s->gist_every || walk(u, policy, s->tokens, n) < n)
        return false;
    for (uint32_t i = 0; i < per_segment; i++) {
        ret_pages[i] = p->nodes[p->path[n - per_segment + i]].page;
        if (ret_pages[i] == NONE)
            return false;
    }
    touch(p, n);
    return true;
}

uint32_t prefix_known_pages(const struct prefix_user *u, const struct policy *policy,
                            const uint32_t *ids, uint32_t n)
{
    if (!u->prefix || n < 2)
        return 0;
    return usable(u->prefix, policy, walk(u, policy, ids, (n - 1) / TOKENS));
}

/* All pages of the first n of the path, of which `there` is compressed, fit the account. */
static bool has_room(const struct prefix *p, const struct seq *s, const struct policy *policy,
                     const struct ladder *there, uint32_t n)
{
    uint32_t per_segment = s->seg_len / TOKENS;
    struct pool_cost cost = { .n = 0 };

    for (uint32_t k = 0; k < there->n_at[1]; k++) {
        uint32_t left = seq_n_pages(ladder_segment_keys(policy, k, 1));
        uint32_t page = p->nodes[p->path[(k + 1) * per_segment - 1]].packed;

        for (; left > 0; left--, page = p->next[page])
            pool_cost_add(p->pool, &cost, 1, &page);
    }
    for (uint32_t i = there->n_at[1] * per_segment; i < n; i++)
        pool_cost_add(p->pool, &cost, 1, &p->nodes[p->path[i]].page);
    return pool_may_share(p->pool, s->account, &cost);
}

uint32_t prefix_adopt(struct prefix_user *u, struct seq *s, struct ladder *l,
                      const struct policy *policy, const uint32_t *ids, uint32_t n)
{
    struct prefix *p = u->prefix;
    uint32_t n_pages, per_segment = s->seg_len / TOKENS;
    struct ladder there;

    assert(s->n_tokens == 0);
    n_pages = prefix_known_pages(u, policy, ids, n);
    there = ladder_of(policy, (uint64_t)n_pages * TOKENS);
    if (n_pages == 0 || !has_room(p, s, policy, &there, n_pages))
        return 0;
    /* has_room was asked, and nothing takes pages in between: adopting can't fail half-way. */
    (void)seq_rewind(s, 0); /* pages that were reserved for what is there already */
    for (uint32_t k = 0; k < there.n_at[1]; k++)
        adopt_segment(p, s, policy, k, ids + (size_t)k * s->seg_len);
    for (uint32_t i = there.n_at[1] * per_segment; i < n_pages; i++)
        seq_adopt_raw(s, ids + (size_t)i * TOKENS, TOKENS, &p->nodes[p->path[i]].page);
    touch(p, n_pages);
    *l = there;
    u->n_packed = there.n_at[1];
    u->n_pages = n_pages;
    return s->n_tokens;
}

/* --- of one session alone --------------------------------------------------------------------- */

/* A mark's node hangs on `own` and is found by the mark in place of ids. No ids lead there: `own`
 * is in no root's tree (T3). */
static void mark_ids(uint64_t mark, uint32_t ret[TOKENS])
{
    memset(ret, 0, TOKENS * sizeof(*ret));
    ret[0] = (uint32_t)mark;
    ret[1] = (uint32_t)(mark >> 32);
}

static uint32_t find_own(const struct prefix *p, uint64_t mark)
{
    uint32_t label[TOKENS];

    mark_ids(mark, label);
    return find(p, p->own, label);
}

/* A fork of the session may have kept the same pages. */
static uint64_t kept_already(const struct prefix *p, uint32_t n, const uint32_t *pages)
{
    uint32_t i = p->marked[pages[0]], page;

    if (i == NONE)
        return 0;
    page = p->nodes[i].packed;
    for (uint32_t k = 0; k < n; k++, page = p->next[page])
        if (page != pages[k])
            return 0;
    return p->nodes[i].ids[0] | (uint64_t)p->nodes[i].ids[1] << 32;
}

/* A page has one place in a chain, and one mark. */
static bool any_marked(const struct prefix *p, uint32_t n, const uint32_t *pages)
{
    for (uint32_t i = 0; i < n; i++)
        if (p->marked[pages[i]] != NONE)
            return true;
    return false;
}

uint64_t prefix_keep_own(const struct prefix_user *u, uint32_t n, const uint32_t *pages)
{
    struct prefix *p = u->prefix;
    uint64_t mark = kept_already(p, n, pages);
    uint32_t label[TOKENS], i;

    if (mark)
        prefix_share_own(u, mark);
    if (mark || any_marked(p, n, pages))
        return mark;
    mark_ids(p->last_mark + 1, label);
    i = add(p, p->own, label);
    if (i == NONE)
        return 0;
    keep_packed(p, &p->nodes[i], pages, n);
    for (uint32_t k = 0; k < n; k++)
        p->marked[pages[k]] = i;
    p->nodes[i].n_know = 1;
    return ++p->last_mark;
}

bool prefix_own(const struct prefix_user *u, uint64_t mark, uint32_t *ret_pages)
{
    struct prefix *p = u->prefix;
    uint32_t i = find_own(p, mark), n = 0;

    if (i == NONE || p->nodes[i].packed == NONE)
        return false;
    for (uint32_t page = p->nodes[i].packed; page != NONE; page = p->next[page])
        ret_pages[n++] = page;
    unlink_use(p, i);
    link_newest(p, i);
    return true;
}

void prefix_share_own(const struct prefix_user *u, uint64_t mark)
{
    uint32_t i = find_own(u->prefix, mark);

    if (i != NONE)
        u->prefix->nodes[i].n_know++;
}

void prefix_drop_own(const struct prefix_user *u, uint64_t mark)
{
    uint32_t i = find_own(u->prefix, mark);

    if (i != NONE && --u->prefix->nodes[i].n_know == 0)
        evict(u->prefix, i, NONE);
}

/* --- the whole -------------------------------------------------------------------------------- */

int prefix_open(struct pool *pool, struct prefix **ret)
{
    struct prefix *p = calloc(1, sizeof(*p));
    uint64_t n = (uint64_t)pool->n_pages * NODES_A_PAGE;

    if (!p)
        return -ENOMEM;
    p->pool = pool;
    p->account.limit = UINT32_MAX;
    p->oldest = p->newest = p->free = NONE;
    p->n_nodes = n > UINT32_MAX / 2 ? UINT32_MAX / 2 : n < NODES_MIN ? NODES_MIN : (uint32_t)n;
    for (p->n_buckets = 1024; p->n_buckets < p->n_nodes;)
        p->n_buckets *= 2;
    /* Untouched nodes cost address space, not memory. */
    p->nodes = malloc(p->n_nodes * sizeof(*p->nodes));
    p->buckets = malloc((size_t)p->n_buckets * sizeof(*p->buckets));
    p->next = malloc(pool->n_pages * sizeof(*p->next));
    p->marked = malloc(pool->n_pages * sizeof(*p->marked));
    p->path = malloc(PATH_MAX_LEN * sizeof(*p->path));
    if (!p->nodes || !p->buckets || !p->next || !p->marked || !p->path) {
        prefix_close(p);
        return -ENOMEM;
    }
    memset(p->buckets, 0xff, (size_t)p->n_buckets * sizeof(*p->buckets));
    memset(p->marked, 0xff, pool->n_pages * sizeof(*p->marked));
    p->own = take_node(p, NONE);
    p->nodes[p->own] =
        (struct node){ .parent = NONE, .page = NONE, .packed = NONE, .n_children = 1 };
    p->reclaimer = (struct pool_reclaimer){ .fn = reclaim, .arg = p, .account = &p->account };
    pool_add_reclaimer(pool, &p->reclaimer);
    *ret = p;
    return 0;
}

void prefix_close(struct prefix *p)
{
    if (!p)
        return;
    pool_drop_reclaimer(p->pool, &p->reclaimer);
    for (uint32_t i = p->oldest; i != NONE && p->nodes; i = p->nodes[i].newer) {
        drop_raw(p, &p->nodes[i]);
        drop_packed(p, &p->nodes[i]);
    }
    free(p->nodes);
    free(p->buckets);
    free(p->next);
    free(p->marked);
    free(p->path);
    free(p);
}
