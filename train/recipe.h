/* train/recipe.h - the options of a training run, gathered once at start.
 *
 * A flag comes before the recipe file, the file before the default. The table is train/recipe.def,
 * its reader base/options.h; --config FILE, --show and --help are flags only.
 *
 * Ownership  a plain struct, no pointers: two of them can be compared by recipe_print's text.
 * Errors     -EINVAL (a bad value or flag), or the errno of the recipe file; why has one sentence:
 *            option, where it came from, what was found, what is allowed.
 */
#ifndef TRAIN_RECIPE_H
#define TRAIN_RECIPE_H

#include "base/options.h"

#define RECIPE_TEXT_MAX OPTIONS_TEXT_MAX

enum recipe_action { RECIPE_RUN, RECIPE_HELP, RECIPE_SHOW, RECIPE_PLAN };

/* In the order of the choices in recipe.def; method and mask as enum adapter_method and
 * adapter_mask. */
enum recipe_precision { RECIPE_AUTO, RECIPE_F32, RECIPE_BF16 };
enum recipe_projections { RECIPE_NONE, RECIPE_QKV, RECIPE_QKVO, RECIPE_ALL };

struct recipe {
#define OPTION(field, name, kind, ...) OPTIONS_FIELD_##kind(field)
#include "train/recipe.def"
#undef OPTION
    enum recipe_action action;
    char file[RECIPE_TEXT_MAX + 1]; /* the recipe file that was read; empty: none */
};

/* argv[0] is left out (the program or the subcommand). */
int recipe_load(struct recipe *r, int argc, char *const *argv, struct why *why);

/* One option by its name, as the file would set it; where is what the sentence says ("--steps"). */
int recipe_set(struct recipe *r, const char *name, const char *value, const char *where,
               struct why *why);
void recipe_defaults(struct recipe *r);

/* The name of a CHOICE option's value: recipe_choice("precision", 1) is "f32". */
const char *recipe_choice(const char *name, uint32_t value, char *ret, size_t cap);

void recipe_print(const struct recipe *r, FILE *f); /* a recipe file that sets every option so */
void recipe_print_help(FILE *f);
void recipe_print_mdoc(FILE *f); /* the list of a man page */

#endif
