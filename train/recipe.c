/* train/recipe.c - the recipe's options, from the table in train/recipe.def: parsing, printing and
 * the manual are base/options.c's.
 */
#include "train/recipe.h"

#include "engine/devices.h"
#include "engine/kv/compress.h"
#include "engine/kv/seq.h"

#include <errno.h>
#include <string.h>

static const struct options_item items[] = {
#define OPTION(...) OPTIONS_ITEM(struct recipe, __VA_ARGS__),
#include "train/recipe.def"
#undef OPTION
};

/* Flags that only a command line can have. */
static const struct options_action actions[] = {
    { "show", RECIPE_SHOW, "Print the resulting recipe and exit.", NULL },
    { "plan", RECIPE_PLAN, "Print how much memory the run would take where it computes, and exit.",
      NULL },
    { "help", RECIPE_HELP, "Print this text.", NULL },
};

static const struct options options = {
    .program = "gist-train",
    .file_word = "recipe",
    .file_help = "Read this recipe file.",
    .items = items,
    .n_items = sizeof(items) / sizeof(items[0]),
    .actions = actions,
    .n_actions = sizeof(actions) / sizeof(actions[0]),
};

int recipe_set(struct recipe *r, const char *name, const char *value, const char *where,
               struct why *why)
{
    return options_set(&options, r, name, value, where, why);
}

void recipe_defaults(struct recipe *r)
{
    memset(r, 0, sizeof(*r)); /* padding too: recipes are compared as bytes in tests */
    options_set_defaults(&options, r);
}

const char *recipe_choice(const char *name, uint32_t value, char *ret, size_t cap)
{
    return options_choice(&options, name, value, ret, cap);
}

/* What one option alone can't say. What depends on the model, or on other processes, is looked at
 * by train/run_check.c and by the run. */
static int check_together(const struct recipe *r, struct why *why)
{
    if (r->segment % 16)
        return why_set(why, -EINVAL, "option segment: found %u, allowed: a multiple of 16",
                       r->segment);
    if (r->sequence % r->segment || r->sequence / r->segment < 2)
        return why_set(why, -EINVAL,
                       "option sequence: found %u, allowed: a multiple of segment, at least 2 * %u",
                       r->sequence, r->segment);
    for (uint32_t i = 0; i < r->ratios.n; i++)
        if (r->segment % r->ratios.v[i])
            return why_set(why, -EINVAL,
                           "option ratios: found %u, allowed: divisors of segment, which is %u",
                           r->ratios.v[i], r->segment);
    if (r->loss_lm + r->loss_ae + r->loss_distill <= 0)
        return why_set(
            why, -EINVAL,
            "options loss-lm, loss-ae, loss-distill: all are 0; set at least one above 0");
    if (devices_check(r->device, why) < 0)
        return -EINVAL;
    if (r->loss_tie && r->loss_lm <= 0)
        return why_set(why, -EINVAL, "option loss-tie: found yes, allowed: no while loss-lm is 0");
    return 0;
}

int recipe_load(struct recipe *r, int argc, char *const *argv, struct why *why)
{
    int err, action = RECIPE_RUN;

    recipe_defaults(r);
    /* The file's name, and flags that end the program, come first; what other flags say goes over
     * what the file says. */
    err = options_scan_flags(&options, argc, argv, &action, r->file, why);
    r->action = (enum recipe_action)action;
    if (err < 0 || r->action == RECIPE_HELP)
        return err;
    if (r->file[0])
        err = options_load_file(&options, r, r->file, why);
    if (err == 0)
        err = options_load_flags(&options, r, argc, argv, why);
    return err < 0 ? err : check_together(r, why);
}

void recipe_print(const struct recipe *r, FILE *f)
{
    options_print(&options, r, f);
}

void recipe_print_help(FILE *f)
{
    options_print_help(&options, f);
    (void)fputs("\nEvery option is also a key of the recipe file (key = value, # begins a comment "
                "line); a flag\ncomes before the file.\n",
                f);
}

void recipe_print_mdoc(FILE *f)
{
    options_print_mdoc(&options, f, OPTIONS_OF_FLAGS_AND_NUMBERS);
}
