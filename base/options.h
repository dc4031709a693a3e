/* base/options.h - options of a program, read and printed by its table: defaults, file, flags.
 *
 * A program has a struct with a field an option and a .def file with a line an option:
 *
 *   OPTION(field, "name", KIND, "ARG", "default", min, max, "a|b", "What it does.")
 *
 *   KIND      the field              what it takes
 *   TEXT      char [TEXT_MAX + 1]    min to max bytes
 *   SIZE      uint64_t               bytes, with K, M, G or T; max INT64_MAX: no limit
 *   COUNT     uint32_t               a whole number
 *   BIG       uint64_t               one below 2^63
 *   REAL      double
 *   CHOICE    uint32_t               one of the names, in the order of an enum
 *   YES       bool                   yes or no
 *   MODE      uint32_t               octal permission bits
 *   LIST      struct options_list    ascending counts with spaces or commas between them
 *   WEIGHTS   struct options_weights name=real, likewise
 *
 * A file has lines of `key = value`; empty lines and lines that begin with # are left out. A flag
 * is `--name value` or `--name=value`; `--name` alone says yes. --config FILE and the program's
 * actions (--help...) are flags only.
 *
 * Threads    pure, but for the files.
 * Ownership  struct options is the caller's, constant, and borrows its tables. The program's struct
 *            holds no pointers.
 * Errors     -EINVAL (a bad value or flag), or the errno of the file; why has one sentence: option,
 *            where it came from, what was found, what is allowed.
 */
#ifndef BASE_OPTIONS_H
#define BASE_OPTIONS_H

#include "base/why.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define OPTIONS_TEXT_MAX    1023
#define OPTIONS_LIST_MAX    8
#define OPTIONS_WEIGHTS_MAX 16
#define OPTIONS_NAME_MAX    47 /* bytes of a weight's name */

struct options_list {
    uint32_t n, v[OPTIONS_LIST_MAX]; /* ascending */
};

struct options_weights {
    uint32_t n;
    struct {
        char name[OPTIONS_NAME_MAX + 1];
        double weight;
    } v[OPTIONS_WEIGHTS_MAX];
};

/* The field of a KIND, for the program's struct:
 * #define OPTION(field, name, kind, ...) OPTIONS_FIELD_##kind(field) */
#define OPTIONS_FIELD_TEXT(f)    char f[OPTIONS_TEXT_MAX + 1];
#define OPTIONS_FIELD_SIZE(f)    uint64_t f;
#define OPTIONS_FIELD_COUNT(f)   uint32_t f;
#define OPTIONS_FIELD_BIG(f)     uint64_t f;
#define OPTIONS_FIELD_REAL(f)    double f;
#define OPTIONS_FIELD_CHOICE(f)  uint32_t f;
#define OPTIONS_FIELD_YES(f)     bool f;
#define OPTIONS_FIELD_MODE(f)    uint32_t f;
#define OPTIONS_FIELD_LIST(f)    struct options_list f;
#define OPTIONS_FIELD_WEIGHTS(f) struct options_weights f;

enum options_kind {
    OPTIONS_TEXT,
    OPTIONS_SIZE,
    OPTIONS_COUNT,
    OPTIONS_BIG,
    OPTIONS_REAL,
    OPTIONS_CHOICE,
    OPTIONS_YES,
    OPTIONS_MODE,
    OPTIONS_LIST,
    OPTIONS_WEIGHTS
};

struct options_item {
    const char *name;
    enum options_kind kind;
    const char *arg, *deflt;
    double min, max;
    const char *choices, *help;
    size_t off; /* of the field */
};

/* A line of the table: #define OPTION(...) OPTIONS_ITEM(struct config, __VA_ARGS__), */
#define OPTIONS_ITEM(type, field, name, kind, arg, deflt, min, max, choices, help)                 \
    {                                                                                              \
        name, OPTIONS_##kind, arg, deflt, (double)(min), (double)(max), choices, help,             \
            offsetof(type, field)                                                                  \
    }

/* A flag that says what the program is to do instead of its work, which is 0. It takes no value, or
 * that of an option, which it sets. */
struct options_action {
    const char *name;
    int action;
    const char *help;
    const char *sets; /* the option's name; NULL: no value */
};

struct options {
    const char *program;   /* whose --help sentences name */
    const char *file_word; /* what its file is: "config file" */
    const char *file_help; /* of --config */
    const struct options_item *items;
    size_t n_items;
    const struct options_action *actions;
    size_t n_actions;
};

/* One option by its name, as the file would set it; to is the program's struct, where is what the
 * sentence says ("the flag --threads"). */
int options_set(const struct options *o, void *to, const char *name, const char *value,
                const char *where, struct why *why);
void options_set_defaults(const struct options *o, void *to);

/* A SIZE of no option's own: false when it is none. */
bool options_read_size(const char *s, uint64_t *ret);
/* "auto" (UINT32_MAX), "off" (0) or a number up to max: false when it is none of them. */
bool options_read_auto(const char *s, uint32_t max, uint32_t *ret);

int options_load_file(const struct options *o, void *to, const char *path, struct why *why);
/* The default file that is there: gistd/NAME in config_home ($XDG_CONFIG_HOME; or without one in
 * .config of home, $HOME), or in /etc. Either may be NULL; what is not absolute counts as that. ret
 * has TEXT_MAX + 1 bytes; empty: there is none. */
void options_find_file(const char *config_home, const char *home, const char *name, char *ret);
/* Flags are read twice: first what they ask for (0, or the first action) and the file that they
 * name (ret_file has TEXT_MAX + 1 bytes and is left alone when there is none), and when that was
 * read what they set. argv[0] is left out. */
int options_scan_flags(const struct options *o, int argc, char *const *argv, int *ret_action,
                       char *ret_file, struct why *why);
int options_load_flags(const struct options *o, void *to, int argc, char *const *argv,
                       struct why *why);

/* The name of a CHOICE option's value; empty when there is none. */
const char *options_choice(const struct options *o, const char *name, uint32_t value, char *ret,
                           size_t cap);

/* --- what is printed -------------------------------------------------------------------------- */

/* A file that sets every option as it is in `from`. */
void options_print(const struct options *o, const void *from, FILE *f);
/* A file with every option at its default, commented out and explained. */
void options_print_example(const struct options *o, FILE *f);
/* The flags, for --help. */
void options_print_help(const struct options *o, FILE *f);

/* The list of a man page: of the file's keys with what is allowed, or of flags, without or with the
 * numbers that are allowed. */
enum options_list_of { OPTIONS_OF_KEYS, OPTIONS_OF_FLAGS, OPTIONS_OF_FLAGS_AND_NUMBERS };
void options_print_mdoc(const struct options *o, FILE *f, enum options_list_of what);

#endif
