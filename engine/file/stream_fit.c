/* engine/file/stream_fit.c - spends a budget, step by step.
 *
 * Each step makes a shape that keeps more, sizes its ring, and is taken if all of it fits: so no
 * step needs to know what the others cost.
 */
#include "engine/file/stream_fit.h"

#include "engine/file/stream.h"
#include "store/io.h"

#include <errno.h>

/* A slice of the output matrix, or more of them, when there is no layer that needs a larger slot:
 * enough for the disk to be at its best. */
#define SLICE_BYTES ((size_t)2 << 20)

static size_t whole(size_t n)
{
    return (n + IO_ALIGN - 1) / IO_ALIGN * IO_ALIGN;
}

/* What has n bytes anywhere in the file, read by whole blocks. */
static size_t any_place(size_t n)
{
    return whole(n) + IO_ALIGN;
}

/* Layers may differ: quantised files mix types. */
static size_t largest_layer(const struct packed *p)
{
    size_t most = 0;

    for (uint32_t i = PACKED_LAYERS; i < p->n_extents; i++)
        if (p->extents[i].len > most)
            most = p->extents[i].len;
    return whole(most);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Layers [0, i) of n that stay, when k of all do. */
static uint32_t kept_before(uint32_t i, uint32_t k, uint32_t n)
{
    return (uint32_t)((uint64_t)i * k / n);
}

bool stream_fit_keeps(const struct stream_fit *f, const struct packed *p, uint32_t extent)
{
    uint32_t n = p->n_extents - PACKED_LAYERS, layer;

    if (extent < PACKED_LAYERS)
        return extent == PACKED_VECTORS || (extent == f->output && f->keeps_output) ||
               (extent == PACKED_EMBD && f->keeps_embd);
    layer = extent - PACKED_LAYERS;
    return kept_before(layer + 1, f->n_layers, n) > kept_before(layer, f->n_layers, n);
}

static size_t length(const struct stream_fit *f, const struct packed *p)
{
    size_t n = f->n_slots * f->slot_len + f->n_rows * f->row_len;

    for (uint32_t i = 0; i < p->n_extents; i++)
        if (stream_fit_keeps(f, p, i))
            n += whole(p->extents[i].len);
    return n;
}

/* The shape of the ring for what passes now. */
static void set_ring(struct stream_fit *f, const struct model *m, uint32_t n_slots, uint32_t n_rows)
{
    const struct packed *p = &m->packed;
    size_t tile = any_place(p->extents[f->output].piece);

    f->n_slots = n_slots;
    f->n_rows = n_rows;
    if (f->n_layers < m->n_layer)
        f->slot_len = larger(largest_layer(p), tile);
    else
        f->slot_len = larger(SLICE_BYTES, tile);
    if (f->n_layers == m->n_layer && f->keeps_output)
        f->n_slots = 0;
    f->row_len = f->keeps_embd ? 0 : any_place(p->extents[PACKED_EMBD].piece);
    f->len = length(f, p);
}

/* Takes the larger one if it fits. */
static bool grow(struct stream_fit *f, const struct model *m, uint64_t budget, struct stream_fit to)
{
    set_ring(&to, m, STREAM_SLOTS_MAX, STREAM_ROWS);
    if (to.len > budget)
        return false;
    *f = to;
    return true;
}

/* The output passes alone, in slices of any length: what is left of the budget reads further ahead
 * while layers are computed. */
static void widen(struct stream_fit *f, const struct model *m, uint64_t budget)
{
    size_t most = any_place(m->packed.extents[f->output].len) / f->n_slots / IO_ALIGN * IO_ALIGN;
    size_t more = (size_t)(budget - f->len) / f->n_slots / IO_ALIGN * IO_ALIGN;

    if (f->slot_len < most)
        f->slot_len = f->slot_len + more < most ? f->slot_len + more : most;
    f->len = length(f, &m->packed);
}

int stream_fit(const struct model *m, uint64_t budget, struct stream_fit *ret, size_t *ret_least)
{
    bool tied = m->packed.extents[PACKED_OUTPUT].len == 0;
    struct stream_fit f = { .output = tied ? PACKED_EMBD : PACKED_OUTPUT }, to;

    set_ring(&f, m, 2, 1);
    *ret_least = f.len;
    if (f.len > budget)
        return -EINVAL;
    /* The ring in full size first: a third slot keeps the disk busy, where one layer more only
     * saves it work. Then as many layers as fit, from all of them down. */
    if (grow(&f, m, budget, f)) {
        for (to = f, to.n_layers = m->n_layer; to.n_layers > 0; to.n_layers--)
            if (grow(&f, m, budget, to))
                break;
    }
    to = f;
    to.keeps_output = true;
    /* Tied, they are one extent. */
    to.keeps_embd = tied;
    (void)grow(&f, m, budget, to);
    to = f;
    to.keeps_embd = true;
    to.keeps_output |= tied;
    (void)grow(&f, m, budget, to);
    if (f.n_slots > 0 && f.n_layers == m->n_layer)
        widen(&f, m, budget);
    *ret = f;
    return 0;
}
