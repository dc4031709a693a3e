/* train/recipe.h - the options of a training run, gathered once at start.
 *
 * A flag comes before the recipe file, the file before the default. The table is train/recipe.def;
 * --config FILE and --help are flags only. The file has lines of `key = value`; empty lines and
 * lines that begin with # are left out.
 *
 * Ownership  a plain struct, no pointers: two of them can be compared by recipe_print's text.
 * Errors     -EINVAL (a bad value or flag), or the errno of the recipe file; why has one sentence:
 *            option, where it came from, what was found, what is allowed.
 */
#ifndef TRAIN_RECIPE_H
#define TRAIN_RECIPE_H

#include "engine/why.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define RECIPE_TEXT_MAX    1023
#define RECIPE_LIST_MAX    8
#define RECIPE_WEIGHTS_MAX 16
#define RECIPE_NAME_MAX    47

enum recipe_action { RECIPE_RUN, RECIPE_HELP, RECIPE_SHOW };

/* In the order of the choices in recipe.def; method and mask as enum adapter_method and
 * adapter_mask. */
enum recipe_precision { RECIPE_AUTO, RECIPE_F32, RECIPE_BF16 };
enum recipe_projections { RECIPE_NONE, RECIPE_QKV, RECIPE_QKVO, RECIPE_ALL };

struct recipe_list {
    uint32_t n, v[RECIPE_LIST_MAX];     /* ascending */
};

struct recipe_weights {
    uint32_t n;
    struct {
        char name[RECIPE_NAME_MAX + 1];
        double weight;
    } v[RECIPE_WEIGHTS_MAX];
};

struct recipe {
#define RECIPE_FIELD_TEXT(f)           char f[RECIPE_TEXT_MAX + 1];
#define RECIPE_FIELD_SIZE(f)           uint64_t f;
#define RECIPE_FIELD_COUNT(f)          uint32_t f;
#define RECIPE_FIELD_BIG(f)            uint64_t f;
#define RECIPE_FIELD_REAL(f)           double f;
#define RECIPE_FIELD_CHOICE(f)         uint32_t f;
#define RECIPE_FIELD_YES(f)            bool f;
#define RECIPE_FIELD_LIST(f)           struct recipe_list f;
#define RECIPE_FIELD_WEIGHTS(f)        struct recipe_weights f;
#define OPTION(field, name, kind, ...) RECIPE_FIELD_##kind(field)
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

void recipe_print(const struct recipe *r, FILE *f);  /* a recipe file that sets every option so */
void recipe_print_help(FILE *f);
void recipe_print_mdoc(FILE *f);                      /* the list of a man page */

#endif
