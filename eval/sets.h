/* eval/sets.h - gist-eval sets: public sets that the user has put into a folder.
 *
 * A file is a task, by its path in the folder without .jsonl and, as RULER has them,
 * /validation or /test; an item is a line of it (eval/example.h).
 *
 * Threads    one at a time.
 * Errors     as eval/run.h; -EINVAL for a line of no layout that is known, with file and line.
 */
#ifndef EVAL_SETS_H
#define EVAL_SETS_H

#include "base/options.h"
#include "eval/run.h"

struct sets_opts {
#define OPTION(field, name, kind, ...) OPTIONS_FIELD_##kind(field)
#include "eval/sets.def"
#undef OPTION
};

struct sets {
    const struct sets_opts *opts;
    char **paths; /* sorted */
    size_t n;
};

int sets_open(const struct sets_opts *o, struct sets *ret, struct why *why);
void sets_close(struct sets *s);
double sets_work(const struct run *r, const struct sets *s);
int sets_run(struct run *r, const struct sets *s, struct why *why);

#endif
