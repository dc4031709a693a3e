/* The staging area is taken at start and belongs to the host: a disk can't write to a device's
 * memory, and a device's driver copies fastest from memory that stays where it is.
 */
#include "daemon/tier_inner.h"

#include <errno.h>
#include <stdlib.h>

int tier_stage_open(struct tier_stage *s, size_t page_bytes, size_t bytes)
{
    uint32_t n = (uint32_t)(bytes / page_bytes);

    *s = (struct tier_stage){ .page_bytes = page_bytes, .n_slots = n };
    s->mem = aligned_alloc(4096, n * page_bytes); /* pages are whole 4096 bytes */
    s->free = malloc(n * sizeof(*s->free));
    if (!s->mem || !s->free) {
        tier_stage_close(s);
        return -ENOMEM;
    }
    while (s->n_free < n) {
        s->free[s->n_free] = n - 1 - s->n_free;
        s->n_free++;
    }
    return 0;
}

void tier_stage_close(struct tier_stage *s)
{
    free(s->mem);
    free(s->free);
    *s = (struct tier_stage){ .mem = NULL };
}

bool tier_stage_take(struct tier_stage *s, uint32_t n, void **ret_mem)
{
    if (n > s->n_free)
        return false;
    for (uint32_t i = 0; i < n; i++)
        ret_mem[i] = s->mem + s->free[--s->n_free] * s->page_bytes;
    return true;
}

void tier_stage_give(struct tier_stage *s, uint32_t n, void *const *mem)
{
    for (uint32_t i = n; i-- > 0;)
        s->free[s->n_free++] = (uint32_t)(((uint8_t *)mem[i] - s->mem) / (ptrdiff_t)s->page_bytes);
}
