#include "daemon/overlay.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* Where it stands, or would stand. */
static uint32_t place_of(const struct overlay *o, uint32_t segment)
{
    uint32_t i = 0;

    while (i < o->n && o->segments[i] < segment)
        i++;
    return i;
}

bool overlay_has(const struct overlay *o, uint32_t segment)
{
    uint32_t i = place_of(o, segment);

    return i < o->n && o->segments[i] == segment;
}

/* Sorted, and searched from the front: OVERLAY_MAX is small because each hydrated segment takes as
 * much of the budget as ratio compressed ones. */
int overlay_add(struct overlay *o, uint32_t segment)
{
    uint32_t i = place_of(o, segment);

    assert(!overlay_has(o, segment));
    if (o->n == OVERLAY_MAX)
        return -ENOSPC;
    memmove(&o->segments[i + 1], &o->segments[i], (o->n - i) * sizeof(*o->segments));
    o->segments[i] = segment;
    o->n++;
    return 0;
}

void overlay_remove(struct overlay *o, uint32_t segment)
{
    uint32_t i = place_of(o, segment);

    if (!overlay_has(o, segment))
        return;
    o->n--;
    memmove(&o->segments[i], &o->segments[i + 1], (o->n - i) * sizeof(*o->segments));
}

/* They are in order: those from `first` on are the last ones. */
void overlay_cut(struct overlay *o, uint32_t first)
{
    o->n = place_of(o, first);
}

/* A raw segment has no fewer keys than on any rung, so no term is below 0. */
uint64_t overlay_keys(const struct overlay *o, const struct policy *p, const struct ladder *l)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < o->n; i++)
        n += ladder_segment_keys(p, o->segments[i], 0) -
             ladder_segment_keys(p, o->segments[i], ladder_rung(l, o->segments[i]));
    return n;
}

uint64_t overlay_pages(const struct overlay *o, const struct policy *p, const struct ladder *l)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < o->n; i++) {
        uint32_t rung = ladder_rung(l, o->segments[i]);

        n += seq_n_pages(ladder_segment_keys(p, o->segments[i], 0)) -
             seq_n_pages(ladder_segment_keys(p, o->segments[i], rung));
    }
    return n;
}
