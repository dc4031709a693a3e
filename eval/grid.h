/* eval/grid.h - the ways to keep old context that a run compares.
 *
 * A cell is one way: a compressor with its ratio, segment, tail, hydration and budget. The grid is
 * every combination of the lists that are given, each cell once: `full` has no ratio, no tail and
 * no hydration, `none` no ratio, and of `auto` the daemon chooses all but the budget and whether to
 * hydrate. `full` is always the first cell: all is measured beside it.
 *
 * Threads    pure functions.
 * Errors     -EINVAL with a sentence; -E2BIG, more cells than GRID_CELLS_MAX, likewise.
 */
#ifndef EVAL_GRID_H
#define EVAL_GRID_H

#include "base/options.h"
#include "base/why.h"
#include "client/gist.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GRID_CELLS_MAX 256u
#define GRID_NAME_CAP  128u

struct grid_cell {
    bool automatic; /* the daemon chooses what is not said: "auto" */
    enum gist_compressor compressor;
    uint32_t ratio;     /* 0: it has none */
    uint32_t segment;   /* 0: the daemon's */
    uint32_t keep_tail; /* tokens */
    uint32_t hydrate;   /* segments, or GIST_HYDRATE_AUTO */
    uint32_t part;      /* the session may hold one key of so many tokens; 0: no limit */
};

/* The options of all commands that have a grid, eval/grid.def. */
struct grid_opts {
#define OPTION(field, name, kind, ...) OPTIONS_FIELD_##kind(field)
#include "eval/grid.def"
#undef OPTION
};

struct grid {
    struct grid_cell cells[GRID_CELLS_MAX];
    size_t n;
};

/* by_segment: cells of `full` differ by their segments too, since what is measured is by position
 * in one. */
int grid_make(const struct grid_opts *o, bool by_segment, struct grid *ret, struct why *why);

bool grid_same_cell(const struct grid_cell *a, const struct grid_cell *b);

/* "select 8, segment 512, tail 64, hydrate auto, budget 1/4": what is not said is as the daemon has
 * it, or not there. The same cell has the same name. Returns ret. */
const char *grid_cell_name(const struct grid_cell *c, char ret[GRID_NAME_CAP]);

/* "select", "auto"; and back: false, there is none of that name. */
const char *grid_compressor_name(const struct grid_cell *c);
bool grid_find_compressor(const char *name, size_t len, struct grid_cell *ret);

/* What gist_open takes, for a text of n_tokens. adapter: NULL or a name, which stays the caller's.
 */
struct gist_memory grid_memory(const struct grid_cell *c, const char *adapter, uint32_t n_tokens);

#endif
