/* engine/divide.c - the best of all ways to cut a row of layers into parts, one for each device.
 *
 * Parts keep the order of layers, so that rows pass from device to device only once in a step. Then
 * the best way for the first d devices and `to` layers follows from the best ways for d - 1 devices
 * and fewer layers: a table of devices by layers, filled row by row (choose), from the end of which
 * the cuts are read.
 */
#include "engine/divide.h"

#include "engine/file/tile.h"

#include <errno.h>
#include <stdio.h>
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

    if (extent == PACKED_OUTPUT)
        return last;
    if (extent == PACKED_VECTORS || d->split == BACKEND_SPLIT_TENSOR)
        return true;
    if (extent == PACKED_EMBD)
        return device == 0 || (last && is_tied(m));
    return extent - PACKED_LAYERS >= d->first[device] &&
           extent - PACKED_LAYERS < d->first[device + 1];
}

/* What others have of a layer's matrices. */
static uint64_t others_bytes(const struct divide *d, uint32_t device, const struct model_layer *l)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < ADAPTER_PROJECTION__N; i++) {
        const struct model_tensor *t = adapter_projection_weight(l, i);
        struct divide_part part = divide_part(d, device, i);
        size_t tiles = tile_count(t->n_rows);

        n += tiles * t->tile_len;
        n -= divide_by_rows(i) ? tile_count(part.n) * t->tile_len
                               : tiles * tile_len(t->type, part.n);
    }
    return n;
}

uint64_t divide_weights(const struct divide *d, const struct model *m, uint32_t device)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < m->packed.n_extents; i++)
        if (divide_has(d, m, device, i))
            n += divide_extent_bytes(m, i);
    for (uint32_t i = 0; i < m->n_layer && d->split == BACKEND_SPLIT_TENSOR; i++)
        n -= others_bytes(d, device, &m->layers[i]);
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
    *ret = (struct divide){ .split = BACKEND_SPLIT_LAYER, .n = n };
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

    bool tensors = d->split == BACKEND_SPLIT_TENSOR;

    for (uint32_t i = 0; i < d->n; i++) {
        uint64_t part = room[i] / (tensors ? 1 : d->first[i + 1] - d->first[i]);

        least = part < least ? part : least;
    }
    return least * (tensors ? d->n : d->first[d->n]);
}

/* --- a part of each layer --------------------------------------------------------------------- */

bool divide_by_rows(unsigned projection)
{
    return projection != ADAPTER_O && projection != ADAPTER_DOWN;
}

struct divide_part divide_part(const struct divide *d, uint32_t device, unsigned projection)
{
    uint32_t n = projection == ADAPTER_K || projection == ADAPTER_V ? d->kv : d->q;

    if (projection == ADAPTER_GATE || projection == ADAPTER_UP || projection == ADAPTER_DOWN)
        return (struct divide_part){ d->ff[device], d->ff[device + 1] - d->ff[device] };
    return (struct divide_part){ device * n, n };
}

void divide_shape(const struct divide *d, uint32_t device, struct model *m)
{
    m->n_head /= d->n;
    m->n_head_kv /= d->n;
    m->n_ff = d->ff[device + 1] - d->ff[device];
}

/* Columns that a matrix is divided by: whole blocks of its type, and of the int8 rows. */
static uint32_t unit_of(const struct model_tensor *t)
{
    uint32_t block = quant_info(t->type)->block_cols;

    return block > 32 ? block : 32;
}

/* The largest of all layers, each of which is a multiple of the smaller ones. */
static uint32_t largest_unit(const struct model *m, unsigned projection)
{
    uint32_t unit = 0;

    for (uint32_t i = 0; i < m->n_layer; i++) {
        uint32_t here = unit_of(adapter_projection_weight(&m->layers[i], projection));

        unit = here > unit ? here : unit;
    }
    return unit;
}

/* Whether so many devices have as many heads each, whole tiles of wk's rows and whole blocks of
 * wo's columns. */
static bool heads_divide(const struct model *m, uint32_t n)
{
    uint32_t q = m->n_head / n * m->head_dim, kv = m->n_head_kv / n * m->head_dim;

    return m->n_head_kv % n == 0 && kv % TILE_ROWS == 0 && q % largest_unit(m, ADAPTER_O) == 0;
}

static bool ff_divides(const struct model *m, uint32_t n)
{
    return m->n_ff / largest_unit(m, ADAPTER_DOWN) >= n;
}

/* "1, 2 or 4". */
static void list_counts(const struct model *m, char ret[64])
{
    uint32_t all[BACKEND_DEVICES_MAX], k = 0;
    size_t at = 0;

    for (uint32_t n = 1; n <= BACKEND_DEVICES_MAX; n++)
        if (n == 1 || (heads_divide(m, n) && ff_divides(m, n)))
            all[k++] = n;
    for (uint32_t i = 0; i < k && at < 64; i++)
        at += (size_t)snprintf(ret + at, 64 - at, "%s%u",
                               i == 0      ? ""
                               : i + 1 < k ? ", "
                                           : " or ",
                               all[i]);
}

int divide_tensors(const struct model *m, uint32_t n, struct divide *ret, struct why *why)
{
    struct divide d = { .split = BACKEND_SPLIT_TENSOR,
                        .n = n,
                        .q = m->n_head / n * m->head_dim,
                        .kv = m->n_head_kv / n * m->head_dim };
    uint32_t unit = largest_unit(m, ADAPTER_DOWN);
    char counts[64];

    if (!heads_divide(m, n) || !ff_divides(m, n)) {
        list_counts(m, counts);
        return why_set(why, -EINVAL,
                       "option split-mode: found %u devices for %u KV heads of %u (%u heads) and "
                       "%u rows of the feed-forward in blocks of %u, expected %s: use so many, or "
                       "--split-mode layer",
                       n, m->n_head_kv, m->head_dim, m->n_head, m->n_ff, unit, counts);
    }
    for (uint32_t i = 0; i <= n; i++)
        d.ff[i] = (uint32_t)((uint64_t)(m->n_ff / unit) * i / n) * unit;
    d.ff[n] = m->n_ff;
    d.first[n] = m->n_layer;
    *ret = d;
    return 0;
}
