/* All tables are made at start, so that no step waits for memory, and the limit is what was asked
 * for. A record's slots and ids are lists of numbers: it may have any of them.
 *
 * Records are in two tables of chains: by what stands before them, which finds what follows some
 * ids, and by their own hash, which finds what a new one follows. Only those that nothing follows
 * are in the list that eviction looks at, the longest unused first.
 */
#include "daemon/shelf.h"

#include "store/sum.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/queue.h>

#define NONE      UINT32_MAX
#define BLOCK_IDS 64u /* ids in a block */
#define BLOCKS    4u  /* of those a slot; packed records have more ids than keys */

/* In use (indexed), pinned without being found any more, or unused: then only its generation means
 * anything. */
struct record {
    TAILQ_ENTRY(record) link; /* of the ends, or of what is not used */
    struct store_key key;
    struct store_hash own;
    uint64_t used, cost_ns;
    uint32_t next[2]; /* in the chains */
    uint32_t parent, n_children;
    uint32_t n_tokens, n_keys, n_pages;
    uint32_t slot, block; /* the first ones */
    uint32_t pins, generation;
    bool indexed, tail;
};

TAILQ_HEAD(records, record);

enum chain { BY_BEFORE, BY_OWN };

struct shelf {
    uint8_t *mem;
    size_t mem_len, page_bytes;
    uint32_t n_slots, n_free, n_kept, keep_max;
    uint32_t *free;      /* stack of n_free slots */
    uint32_t *slot_next; /* (n_slots) of a record */
    struct record *all;  /* (n_slots) */
    struct records unused, ends;
    uint32_t *block_ids, *block_next; /* (BLOCKS n_slots, BLOCK_IDS), (BLOCKS n_slots) */
    uint32_t first_block, n_blocks;   /* free ones */
    uint32_t *heads[2], mask;
    uint64_t clock; /* counts uses */
    struct shelf_stats counts;
};

/* --- opening ---------------------------------------------------------------------------------- */

/* The tables' share of a slot: chains have one to two heads a slot. */
static size_t slot_cost(void)
{
    return sizeof(struct record) + 2 * sizeof(uint32_t) + 2 * 2 * sizeof(uint32_t) +
           BLOCKS * (BLOCK_IDS + 1) * sizeof(uint32_t);
}

/* A power of two: chains are masked. */
static uint32_t heads_for(uint32_t n)
{
    uint32_t heads = 1;

    while (heads < n)
        heads *= 2;
    return heads;
}

/* A record has one page at least, so there are never more records than slots. */
static int open_tables(struct shelf *s)
{
    uint32_t n = s->n_slots, heads = heads_for(n);

    s->all = calloc(n, sizeof(*s->all));
    s->slot_next = malloc(n * sizeof(*s->slot_next));
    s->block_ids = malloc((size_t)n * BLOCKS * BLOCK_IDS * sizeof(*s->block_ids));
    s->block_next = malloc((size_t)n * BLOCKS * sizeof(*s->block_next));
    s->heads[0] = malloc(heads * sizeof(**s->heads));
    s->heads[1] = malloc(heads * sizeof(**s->heads));
    if (!s->all || !s->slot_next || !s->block_ids || !s->block_next || !s->heads[0] || !s->heads[1])
        return -ENOMEM;
    s->mask = heads - 1;
    memset(s->heads[0], 0xff, heads * sizeof(**s->heads)); /* NONE */
    memset(s->heads[1], 0xff, heads * sizeof(**s->heads));
    for (uint32_t i = 0; i < n; i++)
        TAILQ_INSERT_TAIL(&s->unused, &s->all[i], link);
    s->n_blocks = n * BLOCKS;
    for (uint32_t i = 0; i < s->n_blocks; i++)
        s->block_next[i] = i + 1 < s->n_blocks ? i + 1 : NONE;
    return 0;
}

/* In huge pages where there are any: a disk's request is cut at the end of every page. Registering
 * it with a device is what makes all of it resident. */
static int open_memory(struct shelf *s)
{
    size_t len = (size_t)s->n_slots * s->page_bytes;
    void *mem =
        mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (mem == MAP_FAILED)
        return -ENOMEM;
    (void)madvise(mem, len, MADV_HUGEPAGE);
    s->mem = mem;
    s->mem_len = len;
    return 0;
}

int shelf_open(const struct shelf_options *o, struct shelf **ret)
{
    size_t cost = o->page_bytes + (o->passes ? 2 * sizeof(uint32_t) : slot_cost());
    /* Slots that the bytes have room for, with their tables. */
    uint64_t n = o->bytes / cost;
    struct shelf *s;
    int r;

    if (n < 2)
        return -EINVAL;
    s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->page_bytes = o->page_bytes;
    s->n_slots = s->n_free = n < UINT32_MAX / BLOCKS ? (uint32_t)n : UINT32_MAX / BLOCKS - 1;
    /* At most half for what passes through: with few slots there would be none to keep anything
     * in. */
    s->keep_max = o->passes ? 0 : s->n_slots - s->n_slots / 2;
    if (!o->passes && o->n_stage < s->n_slots / 2)
        s->keep_max = s->n_slots - o->n_stage;
    TAILQ_INIT(&s->unused);
    TAILQ_INIT(&s->ends);
    s->free = malloc(s->n_slots * sizeof(*s->free));
    r = s->free ? open_memory(s) : -ENOMEM;
    if (r == 0 && !o->passes)
        r = open_tables(s);
    if (r < 0) {
        shelf_close(s);
        return r;
    }
    for (uint32_t i = 0; i < s->n_slots; i++)
        s->free[i] = s->n_slots - 1 - i;
    *ret = s;
    return 0;
}

void shelf_close(struct shelf *s)
{
    if (!s)
        return;
    if (s->mem)
        (void)munmap(s->mem, s->mem_len);
    free(s->free);
    free(s->slot_next);
    free(s->all);
    free(s->block_ids);
    free(s->block_next);
    free(s->heads[0]);
    free(s->heads[1]);
    free(s);
}

void *shelf_memory(const struct shelf *s, size_t *ret_len)
{
    *ret_len = s->mem_len;
    return s->mem;
}

/* What is kept may fill all of keep_max, so only so many slots are sure to be free one day. */
uint32_t shelf_longest(const struct shelf *s)
{
    return s->n_slots - s->keep_max;
}

bool shelf_keeps(const struct shelf *s)
{
    return s->keep_max > 0;
}

/* --- slots ------------------------------------------------------------------------------------ */

static void *slot_mem(const struct shelf *s, uint32_t slot)
{
    return s->mem + slot * s->page_bytes;
}

static uint32_t slot_of(const struct shelf *s, const void *mem)
{
    return (uint32_t)((size_t)((const uint8_t *)mem - s->mem) / s->page_bytes);
}

/* All or none, at once: who waits holds no slots, so that two who want many can't wait for each
 * other. */
bool shelf_take(struct shelf *s, uint32_t n, void **ret_mem)
{
    if (n > s->n_free)
        return false;
    for (uint32_t i = 0; i < n; i++)
        ret_mem[i] = slot_mem(s, s->free[--s->n_free]);
    return true;
}

void shelf_give(struct shelf *s, uint32_t n, void *const *mem)
{
    for (uint32_t i = n; i-- > 0;)
        s->free[s->n_free++] = slot_of(s, mem[i]);
    assert(s->n_free + s->n_kept <= s->n_slots);
}

/* --- chains ----------------------------------------------------------------------------------- */

/* All of a key but the place. */
static bool same_text(const struct store_key *a, const struct store_key *b)
{
    return a->owner == b->owner && a->kind == b->kind &&
           memcmp(a->scope, b->scope, sizeof(a->scope)) == 0;
}

/* Hashes are random as they are; of the rest the owner tells most apart. */
static uint32_t *head_of(const struct shelf *s, enum chain c, const struct store_key *key,
                         struct store_hash h)
{
    uint64_t x = h.lo ^ (uint64_t)key->owner * 0x9e3779b97f4a7c15u;

    for (size_t i = 0; i < sizeof(key->scope); i += 8) {
        uint64_t w;

        memcpy(&w, key->scope + i, sizeof(w));
        x ^= w;
    }
    return &s->heads[c][(x ^ x >> 32) & s->mask];
}

static struct store_hash hash_in(const struct record *r, enum chain c)
{
    return c == BY_OWN ? r->own : r->key.before;
}

static void link_in(struct shelf *s, struct record *r, enum chain c)
{
    uint32_t *head = head_of(s, c, &r->key, hash_in(r, c));

    r->next[c] = *head;
    *head = (uint32_t)(r - s->all);
}

/* It is in its chain: no check for the end. */
static void link_out(struct shelf *s, struct record *r, enum chain c)
{
    uint32_t *at = head_of(s, c, &r->key, hash_in(r, c));

    while (*at != (uint32_t)(r - s->all))
        at = &s->all[*at].next[c];
    *at = r->next[c];
}

/* The next one of a chain whose key and hash are these, from `at` on. */
static struct record *next_of(const struct shelf *s, enum chain c, uint32_t at,
                              const struct store_key *key, struct store_hash h)
{
    for (; at != NONE; at = s->all[at].next[c]) {
        struct record *r = &s->all[at];

        if (same_text(&r->key, key) && sum_equal(hash_in(r, c), h))
            return r;
    }
    return NULL;
}

static struct record *first_of(const struct shelf *s, enum chain c, const struct store_key *key,
                               struct store_hash h)
{
    return next_of(s, c, *head_of(s, c, key, h), key, h);
}

/* --- ends ------------------------------------------------------------------------------------- */

/* By time: what was used now is the last, and what others stood behind near the front. Mostly one
 * of the two ends of the list, and a walk only where a whole branch is given up. */
static void list_end(struct shelf *s, struct record *r)
{
    struct record *at = TAILQ_LAST(&s->ends, records);

    if (!at || at->used <= r->used) {
        TAILQ_INSERT_TAIL(&s->ends, r, link);
        return;
    }
    at = TAILQ_FIRST(&s->ends);
    while (at->used <= r->used)
        at = TAILQ_NEXT(at, link);
    TAILQ_INSERT_BEFORE(at, r, link);
}

/* Not listed: others stand behind it, or it is found no more. */
static void touch(struct shelf *s, struct record *r)
{
    r->used = ++s->clock;
    if (!r->indexed || r->n_children > 0)
        return;
    TAILQ_REMOVE(&s->ends, r, link);
    TAILQ_INSERT_TAIL(&s->ends, r, link);
}

/* Who is followed is no end any more (S2). */
static void follow(struct shelf *s, struct record *child, struct record *parent)
{
    child->parent = (uint32_t)(parent - s->all);
    if (parent->n_children++ == 0)
        TAILQ_REMOVE(&s->ends, parent, link);
}

/* A record that became one finds what it follows, and what follows it. Records come in any order:
 * the middle of a text may be read back before its beginning. */
static void join(struct shelf *s, struct record *r)
{
    struct record *parent = first_of(s, BY_OWN, &r->key, r->key.before), *child;

    r->parent = NONE;
    r->n_children = 0;
    link_in(s, r, BY_BEFORE);
    link_in(s, r, BY_OWN);
    r->indexed = true;
    list_end(s, r);
    if (parent)
        follow(s, r, parent);
    for (child = first_of(s, BY_BEFORE, &r->key, r->own); child;
         child = next_of(s, BY_BEFORE, child->next[BY_BEFORE], &r->key, r->own))
        /* Another record of the same ids may be the parent already. */
        if (child->parent == NONE && child != r)
            follow(s, child, r);
}

/* What it followed is an end now, if nothing else follows that. It may be one that others follow:
 * shorter ends, and all that an owner has, go wherever they stand. Children stay, without a parent,
 * and are found again when it is back. */
static void part(struct shelf *s, struct record *r)
{
    struct record *child, *parent = r->parent == NONE ? NULL : &s->all[r->parent];

    for (child = first_of(s, BY_BEFORE, &r->key, r->own); child && r->n_children > 0;
         child = next_of(s, BY_BEFORE, child->next[BY_BEFORE], &r->key, r->own))
        if (child->parent == (uint32_t)(r - s->all)) {
            child->parent = NONE;
            if (--r->n_children == 0)
                list_end(s, r);
        }
    assert(r->n_children == 0);
    TAILQ_REMOVE(&s->ends, r, link);
    link_out(s, r, BY_BEFORE);
    link_out(s, r, BY_OWN);
    r->indexed = false;
    if (parent && --parent->n_children == 0)
        list_end(s, parent);
}

/* --- records ---------------------------------------------------------------------------------- */

static uint32_t blocks_for(uint32_t n_ids)
{
    return (n_ids + BLOCK_IDS - 1) / BLOCK_IDS;
}

/* fits() has looked: there are blocks enough. */
static void put_ids(struct shelf *s, struct record *r, const uint32_t *ids)
{
    uint32_t *at = &r->block;

    for (uint32_t i = 0; i < r->n_tokens; i += BLOCK_IDS) {
        uint32_t b = s->first_block, n = r->n_tokens - i < BLOCK_IDS ? r->n_tokens - i : BLOCK_IDS;

        s->first_block = s->block_next[b];
        s->n_blocks--;
        memcpy(s->block_ids + (size_t)b * BLOCK_IDS, ids + i, n * sizeof(*ids));
        *at = b;
        at = &s->block_next[b];
    }
    *at = NONE;
}

/* Ids that the record begins with as these do. */
static uint32_t common(const struct shelf *s, const struct record *r, const uint32_t *ids,
                       uint32_t n)
{
    uint32_t b = r->block, most = n < r->n_tokens ? n : r->n_tokens;

    for (uint32_t i = 0; i < most; i++) {
        if (i > 0 && i % BLOCK_IDS == 0)
            b = s->block_next[b];
        if (s->block_ids[(size_t)b * BLOCK_IDS + i % BLOCK_IDS] != ids[i])
            return i;
    }
    return most;
}

/* Its slots and ids are free: it is found no more, and nobody has it pinned. */
static void release(struct shelf *s, struct record *r)
{
    uint32_t slot = r->slot, b = r->block;

    for (uint32_t i = 0; i < r->n_pages; i++, slot = s->slot_next[slot])
        s->free[s->n_free++] = slot;
    s->n_kept -= r->n_pages;
    while (b != NONE) {
        uint32_t next = s->block_next[b];

        s->block_next[b] = s->first_block;
        s->first_block = b;
        s->n_blocks++;
        b = next;
    }
    r->generation++; /* ids of it find nothing any more */
    TAILQ_INSERT_HEAD(&s->unused, r, link);
}

/* Pinned, its slots are somebody's still: the last unpin releases them (S3). */
static void discard(struct shelf *s, struct record *r)
{
    part(s, r);
    s->counts.records--;
    if (r->pins == 0)
        release(s, r);
}

/* A shorter end of the same segment, which has grown since: the new one takes its place. */
static bool replaces(const struct shelf *s, const struct store_record *new, const struct record *x)
{
    return x->tail && x->n_tokens < new->n_tokens &&same_text(&x->key, &new->key) &&
           sum_equal(x->key.before, new->key.before) &&
           common(s, x, new->ids, new->n_tokens) == x->n_tokens;
}

/* False: all that could go is pinned, or what the new one follows, or goes for it in any case. */
static bool evict_one(struct shelf *s, const struct store_record *new, const struct record *before)
{
    struct record *r;

    TAILQ_FOREACH (r, &s->ends, link) {
        if (r->pins > 0 || r == before || replaces(s, new, r))
            continue;
        discard(s, r);
        s->counts.evicted++;
        return true;
    }
    return false;
}

/* Slots are taken already, so what counts is how many may be kept: as if what the new one replaces
 * were gone. That which is pinned keeps its slots. */
static bool fits(const struct shelf *s, const struct store_record *r)
{
    uint32_t n_pages = 0, n_blocks = 0;

    for (const struct record *x = first_of(s, BY_BEFORE, &r->key, r->key.before); x;
         x = next_of(s, BY_BEFORE, x->next[BY_BEFORE], &r->key, r->key.before))
        if (x->pins == 0 && replaces(s, r, x)) {
            n_pages += x->n_pages;
            n_blocks += blocks_for(x->n_tokens);
        }
    return s->n_kept - n_pages + r->n_pages <= s->keep_max &&
           blocks_for(r->n_tokens) <= s->n_blocks + n_blocks &&
           (n_pages > 0 || !TAILQ_EMPTY(&s->unused));
}

static bool make_room(struct shelf *s, const struct store_record *r)
{
    const struct record *before = first_of(s, BY_OWN, &r->key, r->key.before);

    /* Nothing is evicted for what can't fit in any case. */
    if (r->n_pages > s->keep_max || blocks_for(r->n_tokens) > s->n_slots * BLOCKS)
        return false;
    while (!fits(s, r))
        if (!evict_one(s, r, before))
            return false;
    return true;
}

/* Never 0, which says that there is none. */
static uint64_t id_of(const struct shelf *s, const struct record *r)
{
    return (uint64_t)r->generation << 32 | ((uint32_t)(r - s->all) + 1);
}

/* NULL: its place was used anew, or it is none of ours (0). */
static struct record *by_id(const struct shelf *s, uint64_t id)
{
    uint32_t i = (uint32_t)id - 1;

    if (i >= s->n_slots || !s->all || s->all[i].generation != id >> 32)
        return NULL;
    return &s->all[i];
}

/* Tokens of ids that the record has: of a raw one whole pages of them, or all that it has. */
static uint32_t has_of(const struct shelf *s, const struct record *r, const uint32_t *ids,
                       uint32_t n)
{
    uint32_t got = common(s, r, ids, n);

    if (got == r->n_tokens)
        return got;
    if (r->key.kind == STORE_PACKED || r->n_keys != r->n_tokens)
        return 0;
    /* Whole pages: the rest of one would be keys of other ids. */
    return got - got % STORE_PAGE_TOKENS;
}

/* Those that stand behind the same ids are few: a segment, and shorter ends of it. */
static struct record *best_of(const struct shelf *s, const struct store_key *key,
                              const uint32_t *ids, uint32_t n, uint32_t *ret_got)
{
    struct record *best = NULL;

    *ret_got = 0;
    if (!shelf_keeps(s))
        return NULL;
    for (struct record *r = first_of(s, BY_BEFORE, key, key->before); r;
         r = next_of(s, BY_BEFORE, r->next[BY_BEFORE], key, key->before)) {
        uint32_t got = has_of(s, r, ids, n);

        if (got > *ret_got) {
            *ret_got = got;
            best = r;
        }
    }
    return best;
}

/* One that has all of the new one's keys: of as many ids, or of more that begin as those do. */
static struct record *same_as(const struct shelf *s, const struct store_record *r)
{
    for (struct record *x = first_of(s, BY_BEFORE, &r->key, r->key.before); x;
         x = next_of(s, BY_BEFORE, x->next[BY_BEFORE], &r->key, r->key.before))
        if (common(s, x, r->ids, r->n_tokens) == r->n_tokens &&
            (x->n_tokens == r->n_tokens ? x->n_keys == r->n_keys
                                        : r->key.kind == STORE_RAW && r->n_keys == r->n_tokens &&
                                              x->n_keys == x->n_tokens))
            return x;
    return NULL;
}

/* Only when there is room for the new one: else the shorter end is all that there is. */
static void drop_tails(struct shelf *s, const struct store_record *r)
{
    struct record *x = first_of(s, BY_BEFORE, &r->key, r->key.before), *next;

    for (; x; x = next) {
        next = next_of(s, BY_BEFORE, x->next[BY_BEFORE], &r->key, r->key.before);
        if (replaces(s, r, x))
            discard(s, x);
    }
}

/* The generation is what a record keeps when its place is used again: old ids find nothing. */
static struct record *make(struct shelf *s, const struct store_record *r, struct store_hash own,
                           void *const *mem)
{
    struct record *x = TAILQ_FIRST(&s->unused);
    uint32_t generation = x->generation, *at = &x->slot;

    TAILQ_REMOVE(&s->unused, x, link);
    *x = (struct record){ .key = r->key,
                          .own = own,
                          .used = ++s->clock,
                          .cost_ns = r->cost_ns,
                          .n_tokens = r->n_tokens,
                          .n_keys = r->n_keys,
                          .n_pages = r->n_pages,
                          .generation = generation,
                          .tail = r->tail };
    for (uint32_t i = 0; i < r->n_pages; i++) {
        *at = slot_of(s, mem[i]);
        at = &s->slot_next[*at];
    }
    *at = NONE;
    s->n_kept += r->n_pages;
    put_ids(s, x, r->ids);
    return x;
}

uint64_t shelf_add(struct shelf *s, const struct store_record *r, struct store_hash own,
                   void *const *mem)
{
    struct record *x = shelf_keeps(s) ? same_as(s, r) : NULL;

    if (x) {
        /* It is there: the copy was for nothing, but that it was used counts. */
        shelf_give(s, r->n_pages, mem);
        touch(s, x);
        return id_of(s, x);
    }
    if (!shelf_keeps(s) || !make_room(s, r)) {
        s->counts.refused += shelf_keeps(s);
        return 0;
    }
    drop_tails(s, r);
    x = make(s, r, own, mem);
    join(s, x);
    s->counts.records++;
    return id_of(s, x);
}

/* --- finding ---------------------------------------------------------------------------------- */

/* A part of a record has as many keys as tokens: has_of gives parts of raw ones alone. */
bool shelf_find(const struct shelf *s, const struct store_key *key, const uint32_t *ids, uint32_t n,
                struct store_found *ret)
{
    uint32_t got;
    const struct record *r = best_of(s, key, ids, n, &got);
    bool part_of;

    if (!r)
        return false;
    part_of = got < r->n_tokens;
    *ret = (struct store_found){ .id = id_of(s, r),
                                 .n_tokens = got,
                                 .n_keys = part_of ? got : r->n_keys,
                                 .n_pages = part_of ? got / STORE_PAGE_TOKENS : r->n_pages,
                                 .page_bytes = (uint32_t)s->page_bytes,
                                 .cost_ns = r->cost_ns };
    return true;
}

bool shelf_pin(struct shelf *s, uint64_t id, uint32_t n, void **ret_mem)
{
    struct record *r = by_id(s, id);
    uint32_t slot;

    if (!r || !r->indexed || n > r->n_pages)
        return false;
    slot = r->slot;
    for (uint32_t i = 0; i < n; i++, slot = s->slot_next[slot])
        ret_mem[i] = slot_mem(s, slot);
    r->pins++;
    touch(s, r);
    return true;
}

void shelf_unpin(struct shelf *s, uint64_t id)
{
    struct record *r = by_id(s, id);

    assert(r && r->pins > 0);
    if (--r->pins == 0 && !r->indexed)
        release(s, r);
}

/* Those that are pinned are found no more, and go with their last pin. */
void shelf_forget(struct shelf *s, uint32_t owner, uint64_t *ret_records, uint64_t *ret_bytes)
{
    *ret_records = *ret_bytes = 0;
    for (uint32_t i = 0; s->all && i < s->n_slots; i++) {
        struct record *r = &s->all[i];

        if (!r->indexed || r->key.owner != owner)
            continue;
        ++*ret_records;
        *ret_bytes += r->n_pages * s->page_bytes;
        discard(s, r);
    }
}

void shelf_stats(const struct shelf *s, struct shelf_stats *ret)
{
    *ret = s->counts;
    ret->bytes = (uint64_t)s->n_kept * s->page_bytes;
    ret->limit = (uint64_t)s->keep_max * s->page_bytes;
    ret->n_slots = s->n_slots;
    ret->n_free = s->n_free;
    ret->n_kept = s->n_kept;
}
