/* eval/ppl.h - gist-eval ppl: what a text costs in every cell of a grid, by position.
 *
 * Windows do not overlap. What counts is behind a window's first segment, where there is memory to
 * read; an item is a window in a cell.
 *
 * Threads    one at a time.
 * Errors     as eval/run.h; a file that is none, or too short, with a sentence.
 */
#ifndef EVAL_PPL_H
#define EVAL_PPL_H

#include "base/options.h"
#include "eval/run.h"

#include <stddef.h>
#include <stdint.h>

struct ppl_opts {
#define OPTION(field, name, kind, ...) OPTIONS_FIELD_##kind(field)
#include "eval/ppl.def"
#undef OPTION
};

struct ppl_text {
    char name[RESULTS_NAME_CAP];
    uint32_t *ids;
    size_t n_windows;
    uint32_t window;
    uint64_t seed;
};

int ppl_load(struct run *r, const struct ppl_opts *o, uint64_t seed, struct ppl_text *ret,
             struct why *why);
void ppl_fini(struct ppl_text *t);
double ppl_work(const struct run *r, const struct ppl_text *t);
int ppl_run(struct run *r, const struct ppl_text *t, struct why *why);

#endif
