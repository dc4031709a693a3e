/* eval/opts.h - the options of gist-eval's commands: parsed and printed by their tables.
 *
 * Threads    pure functions.
 * Errors     -EINVAL with a sentence.
 */
#ifndef EVAL_OPTS_H
#define EVAL_OPTS_H

#include "eval/grid.h"
#include "eval/ppl.h"
#include "eval/recall.h"
#include "eval/sets.h"

#include <stdbool.h>
#include <stdio.h>

enum opts_command { OPTS_RECALL, OPTS_PROBES, OPTS_PPL, OPTS_SETS, OPTS_COMMAND__N };

/* Those that a command has not have their defaults. */
struct opts {
    struct grid_opts grid;
    struct recall_opts recall;
    struct ppl_opts ppl;
    struct sets_opts sets;
    char tasks[OPTIONS_TEXT_MAX + 1], probes[OPTIONS_TEXT_MAX + 1];
};

/* argv[0] is the command. ret_help: --help was among them, and nothing was read. */
int opts_load(enum opts_command command, int argc, char *const *argv, struct opts *ret,
              bool *ret_help, struct why *why);
void opts_print_help(enum opts_command command, FILE *f);
/* The manual's list. */
void opts_print_mdoc(enum opts_command command, FILE *f);

#endif
