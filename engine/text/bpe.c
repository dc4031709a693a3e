#include "engine/text/bpe.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

/* A word as a doubly linked list over an array: a merge widens the left symbol and unlinks the
 * right one. Places in the array keep the order of the text, which is the order of equal ranks. */
struct bpe_symbol {
    uint32_t id;         /* NONE: merged into the one before */
    uint32_t prev, next; /* places, NONE at the ends */
};

/* Fibonacci hashing of both ids. Two parts of the product are mixed, since its low bits hardly
 * depend on `left`. */
static uint32_t pair_slot(const struct bpe *b, uint32_t left, uint32_t right)
{
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;

    return (uint32_t)(h >> 32 ^ h >> 15) & b->mask;
}

/* The slot of the pair, or the free one where it would go. Ends, for the table is at most half
 * full. */
static struct bpe_rule *find_slot(const struct bpe *b, uint32_t left, uint32_t right)
{
    uint32_t at = pair_slot(b, left, right);

    while (b->rules[at].left != NONE && (b->rules[at].left != left || b->rules[at].right != right))
        at = (at + 1) & b->mask;
    return &b->rules[at];
}

/* NONE when the pair has no rule: a free slot is all ones. No rule has that rank (bpe_add), so a
 * search for the least one needs no other test. */
static uint32_t pair_rank(const struct bpe *b, uint32_t left, uint32_t right)
{
    return find_slot(b, left, right)->rank;
}

int bpe_init(struct bpe *b, uint32_t max_rules)
{
    size_t n_slots = 16;

    *b = (struct bpe){ .max_rules = max_rules };
    while (n_slots < 2 * (size_t)max_rules) /* half full at most */
        n_slots *= 2;
    b->rules = malloc(n_slots * sizeof(*b->rules));
    if (!b->rules)
        return -ENOMEM;
    memset(b->rules, 0xff, n_slots * sizeof(*b->rules));
    b->mask = (uint32_t)(n_slots - 1);
    return 0;
}

void bpe_fini(struct bpe *b)
{
    free(b->rules);
    b->rules = NULL;
}

int bpe_add(struct bpe *b, uint32_t left, uint32_t right, uint32_t rank, uint32_t result)
{
    struct bpe_rule *rule = find_slot(b, left, right);

    assert(left != NONE && rank != NONE);
    if (rule->left != NONE)
        return -EEXIST;
    assert(b->n_rules < b->max_rules);
    *rule = (struct bpe_rule){ .left = left, .right = right, .rank = rank, .result = result };
    b->n_rules++;
    return 0;
}

void bpe_scratch_fini(struct bpe_scratch *s)
{
    free(s->symbols);
    free(s->heap);
    *s = (struct bpe_scratch){ 0 };
}

/* The ranks of all neighbours are kept beside the ids, so that a merge looks up only the two pairs
 * that it made. n is small: a list that is searched and moved is faster than a heap, and needs no
 * memory. */
static size_t merge_short(const struct bpe *b, uint32_t *ids, size_t n)
{
    uint32_t ranks[BPE_SHORT];
    size_t i, best;

    for (i = 0; i + 1 < n; i++)
        ranks[i] = pair_rank(b, ids[i], ids[i + 1]);
    while (n > 1) {
        for (best = 0, i = 1; i + 1 < n; i++)
            if (ranks[i] < ranks[best]) /* the leftmost of equal ones */
                best = i;
        if (ranks[best] == NONE)
            break;
        /* The merged pair is at best, best + 1. Ids behind it move one place down, and ranks with
         * them: only those of the pairs that have the new token in them are looked up again. */
        ids[best] = find_slot(b, ids[best], ids[best + 1])->result;
        n--;
        memmove(&ids[best + 1], &ids[best + 2], (n - best - 1) * sizeof(*ids));
        memmove(&ranks[best], &ranks[best + 1], (n - best - 1) * sizeof(*ranks));
        if (best > 0)
            ranks[best - 1] = pair_rank(b, ids[best - 1], ids[best]);
        if (best + 1 < n)
            ranks[best] = pair_rank(b, ids[best], ids[best + 1]);
    }
    return n;
}

/* --- long words: a binary heap of (rank, place), smallest first ------------------------------- */

/* The hole moves up instead of swapping. */
static void heap_push(uint64_t *heap, size_t *n, uint64_t key)
{
    size_t at = (*n)++;

    while (at > 0 && heap[(at - 1) / 2] > key) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = key;
}

static uint64_t heap_pop(uint64_t *heap, size_t *n)
{
    uint64_t top = heap[0], last = heap[--*n];
    size_t at = 0, child;

    while ((child = 2 * at + 1) < *n) {
        if (child + 1 < *n && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= last)
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
    return top;
}

/* Adds the pair that begins at a place, if there is a rule for it. The rank is in the upper half of
 * the key and the place in the lower one, so the heap's order is that of the definition: rank
 * first, then from left to right. */
static void push_pair(const struct bpe *b, struct bpe_scratch *s, size_t *n_heap, uint32_t at)
{
    const struct bpe_symbol *sym = &s->symbols[at];
    uint32_t rank;

    if (sym->next == NONE)
        return;
    rank = pair_rank(b, sym->id, s->symbols[sym->next].id);
    if (rank != NONE)
        heap_push(s->heap, n_heap, (uint64_t)rank << 32 | at);
}

/* n symbols have at most n - 1 pairs at first, and a merge takes one key out and puts two in at
 * most: 2n keys are always enough, and nothing can fail in the middle. */
static int reserve(struct bpe_scratch *s, size_t n)
{
    if (n <= s->cap)
        return 0;
    bpe_scratch_fini(s);
    s->symbols = malloc(n * sizeof(*s->symbols));
    s->heap = malloc(2 * n * sizeof(*s->heap));
    if (!s->symbols || !s->heap) {
        bpe_scratch_fini(s);
        return -ENOMEM;
    }
    s->cap = n;
    return 0;
}

/* The same as merge_short, with the ids in a linked list and the pairs in a heap. */
static size_t merge_long(const struct bpe *b, struct bpe_scratch *s, uint32_t *ids, size_t n)
{
    struct bpe_symbol *sym = s->symbols, *left, *right;
    const struct bpe_rule *rule;
    size_t n_heap = 0, n_left = 0, i;
    uint32_t at;
    uint64_t key;

    for (i = 0; i < n; i++)
        sym[i] = (struct bpe_symbol){ .id = ids[i],
                                      .prev = i ? (uint32_t)i - 1 : NONE,
                                      .next = i + 1 < n ? (uint32_t)i + 1 : NONE };
    for (i = 0; i + 1 < n; i++)
        push_pair(b, s, &n_heap, (uint32_t)i);

    while (n_heap > 0) {
        key = heap_pop(s->heap, &n_heap);
        at = (uint32_t)key;
        left = &sym[at];
        /* Keys are not taken out when a merge beside them makes them stale: seen here, since the
         * pair that now stands there has another rank or the place is gone (B1). */
        if (left->id == NONE || left->next == NONE)
            continue;
        right = &sym[left->next];
        rule = find_slot(b, left->id, right->id);
        if (rule->rank != key >> 32)
            continue;
        left->id = rule->result;
        left->next = right->next;
        right->id = NONE; /* keys of its place are stale */
        if (left->next != NONE)
            sym[left->next].prev = at;
        if (left->prev != NONE) /* two new pairs */
            push_pair(b, s, &n_heap, left->prev);
        push_pair(b, s, &n_heap, at);
    }
    for (at = 0; at != NONE; at = sym[at].next)
        ids[n_left++] = sym[at].id;
    return n_left;
}

/* A word is at most BPE_MAX long (the caller cuts it), so a key's lower half has room for a place.
 */
int bpe_merge(const struct bpe *b, struct bpe_scratch *s, uint32_t *ids, size_t n, size_t *ret_n)
{
    int r;

    assert(n <= BPE_MAX);
    if (n <= BPE_SHORT) {
        *ret_n = merge_short(b, ids, n);
        return 0;
    }
    r = reserve(s, n);
    if (r < 0)
        return r;
    *ret_n = merge_long(b, s, ids, n);
    return 0;
}
