/* Each command's table is put together from the parts that several have (.def): one line there is
 * an option of every command that includes it. All of them fill one struct. */
#include "eval/opts.h"

#define GRID_ITEM(field, ...)   OPTIONS_ITEM(struct opts, grid.field, __VA_ARGS__),
#define RECALL_ITEM(field, ...) OPTIONS_ITEM(struct opts, recall.field, __VA_ARGS__),
#define PPL_ITEM(field, ...)    OPTIONS_ITEM(struct opts, ppl.field, __VA_ARGS__),
#define SETS_ITEM(field, ...)   OPTIONS_ITEM(struct opts, sets.field, __VA_ARGS__),

static const struct options_item recall_items[] = {
    OPTIONS_ITEM(struct opts, tasks, "tasks", TEXT, "NAME...",
                 "needle multikey multivalue json uuid", 1, OPTIONS_TEXT_MAX, "",
                 "What is asked: needle, multikey, multivalue, json, uuid."),
#define OPTION RECALL_ITEM
#include "eval/recall.def"
#undef OPTION
#define OPTION GRID_ITEM
#include "eval/grid.def"
#undef OPTION
};
static const struct options_item probes_items[] = {
    OPTIONS_ITEM(struct opts, probes, "probes", TEXT, "NAME...",
                 "prefix surprise boundary position", 1, OPTIONS_TEXT_MAX, "",
                 "What to probe: prefix, UUIDs by their first digits; surprise, sentences that do "
                 "not fit their text; boundary, prompts that end at and beside a segment's end; "
                 "position, perplexity by position in the segment."),
#define OPTION RECALL_ITEM
#include "eval/recall.def"
#undef OPTION
#define OPTION PPL_ITEM
#include "eval/ppl.def"
#undef OPTION
#define OPTION GRID_ITEM
#include "eval/grid.def"
#undef OPTION
};
static const struct options_item ppl_items[] = {
#define OPTION PPL_ITEM
#include "eval/ppl.def"
#undef OPTION
#define OPTION GRID_ITEM
#include "eval/grid.def"
#undef OPTION
};

static const struct options_item sets_items[] = {
#define OPTION SETS_ITEM
#include "eval/sets.def"
#undef OPTION
#define OPTION GRID_ITEM
#include "eval/grid.def"
#undef OPTION
};

static const struct options_action actions[] = { { "help", 1, "Print this text.", NULL } };

#define N_OF(a) (sizeof(a) / sizeof((a)[0]))
#define TABLE(list, word)                                                                          \
    {                                                                                              \
        .program = word, .file_word = "options file", .file_help = "Read options from this file.", \
        .items = list, .n_items = N_OF(list), .actions = actions, .n_actions = N_OF(actions)       \
    }

static const struct options tables[OPTS_COMMAND__N] = {
    [OPTS_RECALL] = TABLE(recall_items, "gist-eval recall"),
    [OPTS_PROBES] = TABLE(probes_items, "gist-eval probes"),
    [OPTS_PPL] = TABLE(ppl_items, "gist-eval ppl"),
    [OPTS_SETS] = TABLE(sets_items, "gist-eval sets"),
};

/* Defaults of all commands, since a plan looks at all fields. Flags come last: what is typed goes
 * before what a file says. */
int opts_load(enum opts_command command, int argc, char *const *argv, struct opts *ret,
              bool *ret_help, struct why *why)
{
    const struct options *o = &tables[command];
    char file[OPTIONS_TEXT_MAX + 1] = "";
    int action = 0, r;

    for (int i = 0; i < OPTS_COMMAND__N; i++)
        options_set_defaults(&tables[i], ret);
    r = options_scan_flags(o, argc, argv, &action, file, why);
    *ret_help = r == 0 && action;
    if (r < 0 || action)
        return r;
    if (*file)
        r = options_load_file(o, ret, file, why);
    return r < 0 ? r : options_load_flags(o, ret, argc, argv, why);
}

void opts_print_help(enum opts_command command, FILE *f)
{
    options_print_help(&tables[command], f);
}

void opts_print_mdoc(enum opts_command command, FILE *f)
{
    options_print_mdoc(&tables[command], f, OPTIONS_OF_FLAGS_AND_NUMBERS);
}
