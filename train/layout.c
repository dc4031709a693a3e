#include "train/layout.h"

#include <errno.h>
#include <stdlib.h>

/* Gists stand among the tokens and count them from the segment's start. */
static bool in_segment(const struct layout_shape *s)
{
    return s->method == ADAPTER_FINE_KV && s->mask == ADAPTER_IN_SEGMENT;
}

static bool coarse(const struct layout_shape *s)
{
    return s->method != ADAPTER_FINE_KV;
}

static uint32_t sinks_of(const struct layout_shape *s, uint32_t segment)
{
    return segment == 0 ? s->sinks : 0;
}

/* Tokens of the segment that no gist stands for before the first snippet. */
static uint32_t lead(const struct layout_shape *s, uint32_t segment)
{
    return in_segment(s) || coarse(s) ? 0 : sinks_of(s, segment);
}

static uint32_t gists_of(const struct layout *l, uint32_t segment)
{
    const struct layout_shape *s = &l->shape;

    if (s->kind != LAYOUT_GISTS || (segment + 1 == l->n_segments && !in_segment(s)))
        return 0;
    return (l->segments[segment].n_raw - lead(s, segment)) / s->ratio;
}

static void place_raw(struct layout *l, uint32_t segment, uint32_t base)
{
    const struct layout_shape *s = &l->shape;
    const struct layout_segment *g = &l->segments[segment];

    for (uint32_t o = 0; o < g->n_raw; o++) {
        uint32_t before = in_segment(s) && g->n_gists ? o / s->ratio : 0;

        l->rows[g->raw + o] = (struct layout_row){
            .segment = segment, .pos = base + o + before, .raw_end = o + 1, .gist_end = before
        };
    }
}

static void place_gists(struct layout *l, uint32_t segment, uint32_t base)
{
    const struct layout_shape *s = &l->shape;
    const struct layout_segment *g = &l->segments[segment];

    for (uint32_t j = 0; j < g->n_gists; j++) {
        uint32_t end = lead(s, segment) + (j + 1) * s->ratio;
        struct layout_row r = { .segment = segment, .gist_end = j + 1, .last = g->raw + end - 1 };

        if (coarse(s)) {
            r.pos = base + g->n_raw + j;
            r.raw_end = g->n_raw;
        } else if (in_segment(s)) {
            r.pos = base + end + j;
            r.raw_end = end;
        } else {
            r.pos = base + end - 1;
            r.raw_end = end - 1;
            r.gist_first = j;
        }
        l->rows[g->gist + j] = r;
    }
}

/* The segment's sinks, gists and remainder, from position `pos` on; returns the position behind them. */
static uint32_t remember(struct layout *l, uint32_t segment, uint32_t pos)
{
    const struct layout_shape *s = &l->shape;
    const struct layout_segment *g = &l->segments[segment];
    uint32_t sinks = sinks_of(s, segment), rest = lead(s, segment) + g->n_gists * s->ratio;

    if (s->kind == LAYOUT_NONE)
        rest = g->n_raw;
    for (uint32_t i = 0; i < sinks; i++)
        l->memory[l->n_memory++] = (struct layout_memory){ g->raw + i, pos++ };
    for (uint32_t j = 0; j < g->n_gists; j++)
        l->memory[l->n_memory++] = (struct layout_memory){ g->gist + j, pos++ };
    for (uint32_t o = rest; o < g->n_raw; o++)
        l->memory[l->n_memory++] = (struct layout_memory){ g->raw + o, pos++ };
    return pos;
}

static bool suits(const struct layout_shape *s)
{
    return s->n_tokens > 0 && s->seg_len > 0 && s->sinks < s->seg_len &&
           (s->kind != LAYOUT_GISTS ||
            (s->ratio >= 2 && s->seg_len % s->ratio == 0 && s->method != ADAPTER_COARSE_REC));
}

static int allocate(struct layout *l)
{
    uint32_t seg_len = l->shape.seg_len, row;

    l->n_segments = (l->shape.n_tokens + seg_len - 1) / seg_len;
    l->segments = calloc(l->n_segments, sizeof(*l->segments));
    if (!l->segments)
        return -ENOMEM;
    for (uint32_t i = 0, at = 0; i < l->n_segments; i++, at += seg_len) {
        uint32_t left = l->shape.n_tokens - at;

        l->segments[i] =
            (struct layout_segment){ .raw = at, .n_raw = left < seg_len ? left : seg_len };
        l->segments[i].n_gists = gists_of(l, i);
        l->n_gists += l->segments[i].n_gists;
    }
    row = l->shape.n_tokens;
    for (uint32_t i = 0; i < l->n_segments; row += l->segments[i++].n_gists)
        l->segments[i].gist = row;
    l->n_rows = row;
    l->rows = calloc(l->n_rows, sizeof(*l->rows));
    l->memory = calloc(l->n_rows, sizeof(*l->memory));
    return l->rows && l->memory ? 0 : -ENOMEM;
}

int layout_make(struct layout *l, const struct layout_shape *shape)
{
    uint32_t base = 0;
    int r;

    *l = (struct layout){ .shape = *shape };
    if (shape->kind == LAYOUT_FULL)
        l->shape.seg_len = shape->n_tokens;
    if (!suits(&l->shape))
        return -EINVAL;
    r = allocate(l);
    if (r < 0) {
        layout_fini(l);
        return r;
    }
    l->n_frozen = in_segment(&l->shape) && l->n_gists ? 0 : l->segments[0].n_raw;
    for (uint32_t i = 0; i < l->n_segments; i++) {
        struct layout_segment *g = &l->segments[i];

        g->n_memory = l->n_memory;
        place_raw(l, i, base);
        place_gists(l, i, base);
        if (base + g->n_raw + g->n_gists > l->max_pos)
            l->max_pos = base + g->n_raw + g->n_gists;
        if (g->n_memory + g->n_raw + g->n_gists > l->max_keys)
            l->max_keys = g->n_memory + g->n_raw + g->n_gists;
        if (i + 1 < l->n_segments)
            base = remember(l, i, base);
    }
    return 0;
}

void layout_fini(struct layout *l)
{
    free(l->rows);
    free(l->memory);
    free(l->segments);
    *l = (struct layout){ 0 };
}
