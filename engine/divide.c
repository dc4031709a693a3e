/* engine/divide.c - the best of all ways to cut a row of layers into parts, one for each device.
 *
 * Parts keep the order of layers, so that rows pass from device to device only once in a step. Then
 * the best way for the first d devices and `to` layers follows from the best ways for d - 1 devices
 * and fewer layers: a table of devices by layers, filled row by row (choose), from the end of which
 * the cuts are read. /
 */
#include "engine/divide.h"

#include <errno.h>
#include <stdlib.h>

/* With the zeros behind it, which a device has too. */
size_t divide_extent_bytes(const struct model *m, uint32_t extent)
{
    const struct packed *p = &m->packed;
    size_t end = extent + 1 < p->n_extents ? p->extents[extent + 1].off : p->len;

    return end - p->extents[extent].off;
}

/* A tied model's output has no bytes of its own. */
static bool is_tied(const struct model *m)
{
    return m->packed.extents[PACKED_OUTPUT].len == 0;
}

bool divide_has(const struct divide *d, const struct model *m, uint32_t device, uint32_t extent)
{
    bool last = device + 1 == d->n;

    if (extent == PACKED_VECTORS)
        return true;
    if (extent == PACKED_EMBD)
        return device == 0 || (last && is_tied(m));
    if (extent == PACKED_OUTPUT)
        return last;
    return extent - PACKED_LAYERS >= d->first[device] &&
           extent - PACKED_LAYERS < d->first[device + 1];
}

uint64_t divide_weights(const struct divide *d, const struct model *m, uint32_t device)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < m->packed.n_extents; i++)
        if (divide_has(d, m, device, i))
            n += divide_extent_bytes(m, i);
    return n;
}

/* Of a device that has layers [from, to): bytes for each layer's part of all pages. Without room
 * for its weights it is what is missing that counts, not by how many layers it would be shared. */
static double layer_room(const struct model *m, const uint64_t *room, uint32_t n, uint32_t device,
                         uint32_t from, uint32_t to)
{
    struct divide d = { .n = n };
    double left;

    for (uint32_t i = 0; i <= n; i++)
        d.first[i] = i <= device ? from : to;
    left = (double)room[device] - (double)divide_weights(&d, m, device);
    return left < 0 ? left : left / (to - from);
}

/* best[to]: the least room of any device so far when these have layers [0, to), at its largest;
 * from[to]: with which layer the last of them begins. For each device one row behind the other. */
static void choose(const struct model *m, const uint64_t *room, uint32_t n, double *best,
                   uint32_t *from)
{
    uint32_t width = m->n_layer + 1;

    for (uint32_t d = 0; d < n; d++) {
        const double *before = best + (size_t)(d ? d - 1 : 0) * width;

        for (uint32_t to = d + 1; to <= m->n_layer; to++) {
            double most = 0;
            uint32_t at = UINT32_MAX;

            /* The first device begins with layer 0; each before this one has a layer at least. */
            for (uint32_t k = d; k < (d ? to : 1); k++) {
                double here = layer_room(m, room, n, d, k, to);

                if (d && before[k] < here)
                    here = before[k];
                if (at == UINT32_MAX || here > most) {
                    most = here;
                    at = k;
                }
            }
            best[(size_t)d * width + to] = most;
            from[(size_t)d * width + to] = at;
        }
    }
}

int divide_layers(const struct model *m, const uint64_t *room, uint32_t n, struct divide *ret,
                  struct why *why)
{
    size_t width = (size_t)m->n_layer + 1;
    double *best;
    uint32_t *from;

    if (n > m->n_layer)
        return why_set(why, -EINVAL,
                       "option device: found %u devices, expected at most %u: each has a layer of "
                       "the model at least",
                       n, m->n_layer);
    best = calloc(n * width, sizeof(*best));
    from = calloc(n * width, sizeof(*from));
    if (!best || !from) {
        free(best);
        free(from);
        return why_set(why, -ENOMEM, "no memory for dividing %u layers", m->n_layer);
    }
    choose(m, room, n, best, from);
    *ret = (struct divide){ .n = n };
    ret->first[n] = m->n_layer;
    /* The last device ends with the last layer, and where it begins the one before it ends. */
    for (uint32_t d = n; d-- > 0;)
        ret->first[d] = from[d * width + ret->first[d + 1]];
    free(best);
    free(from);
    return 0;
}

/* By the least: a page has a part on every device. */
uint64_t divide_pages(const struct divide *d, const uint64_t *room)
{
    uint64_t least = UINT64_MAX;

    for (uint32_t i = 0; i < d->n; i++) {
        uint64_t layer = room[i] / (d->first[i + 1] - d->first[i]);

        least = layer < least ? layer : least;
    }
    return least * d->first[d->n];
}
