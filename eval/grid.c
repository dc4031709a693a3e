/* A combination that differs from another only in what has no effect is the same cell (simplify),
 * so the grid may be much smaller than the product of the lists. Cells are in the order of the
 * lists, the compressors outermost, and `full` first. */
#include "eval/grid.h"

#include "eval/words.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMES_MAX 16u

/* --- the two lists that are texts ------------------------------------------------------------- */

const char *grid_compressor_name(const struct grid_cell *c)
{
    const char *name = c->automatic ? "auto" : gist_compressor_name(c->compressor);

    return name ? name : "unknown";
}

bool grid_find_compressor(const char *name, size_t len, struct grid_cell *ret)
{
    struct grid_cell c = { .automatic = words_same(name, len, "auto") };

    for (unsigned i = 0; !c.automatic; i++) {
        const char *known = gist_compressor_name(i);

        if (!known)
            return false;
        c.compressor = i;
        if (words_same(name, len, known))
            break;
    }
    *ret = c;
    return true;
}

static int bad_compressor(const char *word, size_t len, struct why *why)
{
    char known[256] = "auto";
    size_t n = strlen(known);

    for (unsigned i = 0; gist_compressor_name(i) && n < sizeof(known); i++)
        n += (size_t)snprintf(known + n, sizeof(known) - n, ", %s", gist_compressor_name(i));
    return why_set(why, -EINVAL, "--compressors: unknown compressor '%.*s'; known: %s", (int)len,
                   word, known);
}

/* The word ends at a blank or a comma, which strtoul stops at. */
static int read_hydrate(const char *word, size_t len, uint32_t *ret, struct why *why)
{
    char *end;
    unsigned long v;

    if (words_same(word, len, "off")) {
        *ret = 0;
        return 0;
    }
    if (words_same(word, len, "auto")) {
        *ret = GIST_HYDRATE_AUTO;
        return 0;
    }
    errno = 0;
    v = strtoul(word, &end, 10);
    if (errno || !isdigit((unsigned char)word[0]) || end != word + len || v > 65536)
        return why_set(why, -EINVAL,
                       "--hydrate: found '%.*s', allowed: off, auto or a number of segments",
                       (int)len, word);
    *ret = (uint32_t)v;
    return 0;
}

/* --- the grid --------------------------------------------------------------------------------- */

/* What a cell has of the grid's combination, and no more: those without effect are 0. */
static void simplify(struct grid_cell *c, bool by_segment)
{
    if (by_segment)
        c->hydrate = 0; /* of a text that is scored nothing comes back */
    if (c->automatic) {
        *c = (struct grid_cell){ .automatic = true, .hydrate = c->hydrate, .part = c->part };
    } else if (c->compressor == GIST_FULL) {
        *c = (struct grid_cell){ .compressor = GIST_FULL, .segment = by_segment ? c->segment : 0 };
    } else if (c->compressor == GIST_NONE) {
        c->ratio = c->hydrate = c->part = 0;
    }
}

static int add(struct grid *g, struct grid_cell c, bool by_segment, struct why *why)
{
    simplify(&c, by_segment);
    for (size_t i = 0; i < g->n; i++)
        if (grid_same_cell(&g->cells[i], &c))
            return 0;
    if (g->n == GRID_CELLS_MAX)
        return why_set(why, -E2BIG, "the grid has more than %u cells: give fewer values",
                       GRID_CELLS_MAX);
    g->cells[g->n++] = c;
    return 0;
}

struct lists {
    struct grid_cell compressors[NAMES_MAX]; /* nothing else of them is set */
    uint32_t hydrate[NAMES_MAX];
    size_t n_compressors, n_hydrate;
};

static int read_lists(const struct grid_opts *o, struct lists *ret, struct why *why)
{
    const char *at = o->compressors, *word;
    int r = 0;

    *ret = (struct lists){ .n_compressors = 1, .compressors = { { .compressor = GIST_FULL } } };
    for (size_t len; r == 0 && (len = words_next(&at, &word));) {
        if (ret->n_compressors == NAMES_MAX)
            return why_set(why, -EINVAL, "--compressors: more than %u names", NAMES_MAX - 1);
        if (!grid_find_compressor(word, len, &ret->compressors[ret->n_compressors++]))
            r = bad_compressor(word, len, why);
    }
    at = o->hydrate;
    for (size_t len; r == 0 && (len = words_next(&at, &word));) {
        if (ret->n_hydrate == NAMES_MAX)
            return why_set(why, -EINVAL, "--hydrate: more than %u values", NAMES_MAX);
        r = read_hydrate(word, len, &ret->hydrate[ret->n_hydrate++], why);
    }
    if (r == 0 && (ret->n_hydrate == 0 || o->ratios.n == 0 || o->segments.n == 0 ||
                   o->tails.n == 0 || o->parts.n == 0))
        return why_set(why, -EINVAL,
                       "ratios, segments, keep-tail, hydrate and budget-parts need a value each");
    return r;
}

/* The i-th combination, its lists' indices as digits. The compressor is the highest digit, since it
 * is divided by the product of all others. */
static struct grid_cell combination(const struct grid_opts *o, const struct lists *l, size_t i)
{
    size_t n = (size_t)o->parts.n * l->n_hydrate * o->tails.n * o->segments.n * o->ratios.n;
    struct grid_cell c = l->compressors[i / n];

    c.part = o->parts.v[i % o->parts.n];
    i /= o->parts.n;
    c.hydrate = l->hydrate[i % l->n_hydrate];
    i /= l->n_hydrate;
    c.keep_tail = o->tails.v[i % o->tails.n];
    i /= o->tails.n;
    c.segment = o->segments.v[i % o->segments.n];
    i /= o->segments.n;
    c.ratio = o->ratios.v[i % o->ratios.n];
    return c;
}

int grid_make(const struct grid_opts *o, bool by_segment, struct grid *ret, struct why *why)
{
    struct lists l;
    size_t n;
    int r = read_lists(o, &l, why);

    if (r < 0)
        return r;
    ret->n = 0;
    n = (size_t)o->parts.n * l.n_hydrate * o->tails.n * o->segments.n * o->ratios.n *
        l.n_compressors;
    for (size_t i = 0; r == 0 && i < n; i++) {
        struct grid_cell c = combination(o, &l, i);

        if (!by_segment || !c.automatic) /* a text that is scored is packed as it is told */
            r = add(ret, c, by_segment, why);
    }
    return r;
}

/* --- cells ------------------------------------------------------------------------------------ */

bool grid_same_cell(const struct grid_cell *a, const struct grid_cell *b)
{
    return a->automatic == b->automatic && a->compressor == b->compressor && a->ratio == b->ratio &&
           a->segment == b->segment && a->keep_tail == b->keep_tail && a->hydrate == b->hydrate &&
           a->part == b->part;
}

/* Also the name in tables: no cell may have two. */
const char *grid_cell_name(const struct grid_cell *c, char ret[GRID_NAME_CAP])
{
    FILE *f = fmemopen(ret, GRID_NAME_CAP, "w");

    ret[0] = '\0';
    if (!f)
        return ret;
    (void)fputs(grid_compressor_name(c), f);
    if (c->ratio)
        (void)fprintf(f, " %u", c->ratio);
    if (c->segment)
        (void)fprintf(f, ", segment %u", c->segment);
    if (c->keep_tail)
        (void)fprintf(f, ", tail %u", c->keep_tail);
    if (c->hydrate == GIST_HYDRATE_AUTO)
        (void)fprintf(f, ", hydrate auto");
    else if (c->automatic && !c->hydrate)
        (void)fprintf(f, ", hydrate off");
    else if (c->hydrate)
        (void)fprintf(f, ", hydrate %u", c->hydrate);
    if (c->part)
        (void)fprintf(f, ", budget 1/%u", c->part);
    (void)fclose(f);
    return ret;
}

/* 0 hydration is "off" for `auto`, where it has to be said; for the others it is what they do
 * anyway. */
struct gist_memory grid_memory(const struct grid_cell *c, const char *adapter, uint32_t n_tokens)
{
    struct gist_memory m = { .size = sizeof(m), .compressor = c->compressor };

    if (c->compressor == GIST_FULL && !c->automatic)
        return m;
    m.ratio = c->ratio;
    m.keep_tail = c->keep_tail;
    m.adapter = adapter;
    m.budget = c->part ? n_tokens / c->part : 0;
    m.hydrate = c->hydrate;
    m.flags = c->automatic ? GIST_AUTO | GIST_SET_HYDRATE : c->hydrate ? GIST_SET_HYDRATE : 0;
    return m;
}
