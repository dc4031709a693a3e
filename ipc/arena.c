/* ipc/arena.c - positions that only grow, and the places that they stand for (arena.h has a
 * drawing). */

#include "ipc/arena.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/* The smallest page that there is. Only a hint of when to look (arena_leaves_page): nothing depends
 * on its being right. */
#define PAGE 4096u

int arena_init(struct arena *a, uint32_t size, uint32_t slots)
{
    *a = (struct arena){ 0 };
    if (size == 0 || size % ARENA_ALIGN != 0 || slots == 0 || (slots & (slots - 1)) != 0)
        return -EINVAL;
    a->end = calloc(slots, sizeof(*a->end));
    if (!a->end)
        return -ENOMEM;
    a->size = size;
    a->mask = slots - 1;
    return 0;
}

void arena_fini(struct arena *a)
{
    if (!a)
        return;
    free(a->end);
    *a = (struct arena){ 0 };
}

static uint64_t align_up(uint64_t x)
{
    return (x + ARENA_ALIGN - 1) & ~(uint64_t)(ARENA_ALIGN - 1);
}

/* Behind what is lent, if it fits before the end of the arena; else at 0, and then all the rest
 * before the end is part of what it takes. */
int arena_find(const struct arena *a, uint32_t len, uint64_t *ret_off)
{
    uint64_t need = align_up(len), room, off, rest;

    if (len == 0) {
        *ret_off = 0;
        return 0;
    }
    if (len > a->size)
        return -EMSGSIZE;
    room = a->size - (a->lent - a->freed);
    off = a->lent % a->size;
    rest = a->size - off;
    if (need <= rest) {
        if (need > room)
            return -EAGAIN;
        *ret_off = off;
        return 0;
    }
    if (rest + need > room)
        return -EAGAIN;
    *ret_off = 0;
    return 0;
}

/* Another place than the one that `lent` is at can only be 0: arena_find has wrapped, and the rest
 * is lent too. A message without bytes has an end as well (A3), since the receiver gives back
 * messages and not bytes. */
void arena_lend(struct arena *a, uint64_t off, uint32_t len)
{
    if (len > 0) {
        uint64_t at = a->lent % a->size;

        if (off != at) {
            assert(off == 0);
            a->lent += a->size - at;
        }
        a->lent += align_up(len);
    }
    assert(a->lent - a->freed <= a->size); /* A1 */
    assert(a->n_out <= a->mask);
    a->end[(a->first + a->n_out) & a->mask] = a->lent;
    a->n_out++;
}

void arena_give_back(struct arena *a, uint32_t n_spans)
{
    assert(n_spans <= a->n_out);
    if (n_spans == 0)
        return;
    a->freed = a->end[(a->first + n_spans - 1) & a->mask];
    a->first = (a->first + n_spans) & a->mask;
    a->n_out -= n_spans;
    /* All is back: from 0 again, where the largest span fits. */
    if (a->n_out == 0)
        a->freed = a->lent = 0;
}

bool arena_leaves_page(const struct arena *a, uint32_t len)
{
    return a->lent % PAGE + align_up(len) > PAGE;
}
