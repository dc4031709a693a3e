/* eval/recall.h - gist-eval recall: questions about made texts, in every cell of a grid.
 *
 * Threads    one at a time.
 * Errors     as eval/run.h; -EINVAL for what no text can be made of.
 */
#ifndef EVAL_RECALL_H
#define EVAL_RECALL_H

#include "base/options.h"
#include "eval/run.h"

struct recall_opts {
#define OPTION(field, name, kind, ...) OPTIONS_FIELD_##kind(field)
#include "eval/recall.def"
#undef OPTION
};

#define RECALL_PLANS_MAX 32u

/* What is asked, one after the other. */
struct recall_plan {
    const struct recall_opts *opts;
    uint64_t seed;
    enum task_kind kinds[RECALL_PLANS_MAX];
    size_t n_kinds;
    bool boundary; /* the prompt ends at several places of a segment */
};

/* Adds the tasks of a list of names. probe: of surprise. */
int recall_add(struct recall_plan *p, const char *names, struct why *why);

double recall_work(struct run *r, const struct recall_plan *p);
int recall_run(struct run *r, const struct recall_plan *p, struct why *why);

#endif
