#include "daemon/meter.h"

#include <stddef.h>

static const double bounds[] = METER_BOUNDS;
_Static_assert(sizeof(bounds) / sizeof(*bounds) == METER_BUCKETS - 1, "one bucket has no bound");

/* Bounds are in seconds, as scrapers have them. */
void meter_add(struct meter_histogram *h, uint64_t ns)
{
    size_t i = 0;

    while (i < METER_BUCKETS - 1 && (double)ns > bounds[i] * 1e9)
        i++;
    h->n[i]++;
    h->sum_ns += ns;
}
