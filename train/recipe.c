#include "train/recipe.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum kind {
    KIND_TEXT,
    KIND_SIZE,
    KIND_COUNT,
    KIND_BIG,
    KIND_REAL,
    KIND_CHOICE,
    KIND_YES,
    KIND_LIST,
    KIND_WEIGHTS
};

struct option {
    const char *name;
    enum kind kind;
    const char *arg, *deflt;
    double min, max;
    const char *choices, *help;
    size_t off;
};

static const struct option options[] = {
#define OPTION(field, name, kind, arg, deflt, min, max, choices, help)                             \
    { name, KIND_##kind, arg, deflt, min, max, choices, help, offsetof(struct recipe, field) },
#include "train/recipe.def"
#undef OPTION
};
#define N_OPTIONS (sizeof(options) / sizeof(options[0]))

/* Flags that only a command line can have. */
static const struct {
    const char *name;
    enum recipe_action action;
    const char *help;
} actions[] = {
    { "show", RECIPE_SHOW, "Print the recipe that all of it gives and end." },
    { "help", RECIPE_HELP, "Print this text." },
};
#define N_ACTIONS (sizeof(actions) / sizeof(actions[0]))

#define FILE_HELP "Read this recipe file."

/* --- one value ---------------------------------------------------------------------------------- */

static const struct option *find_option(const char *name, size_t len)
{
    for (size_t i = 0; i < N_OPTIONS; i++)
        if (strlen(options[i].name) == len && memcmp(options[i].name, name, len) == 0)
            return &options[i];
    return NULL;
}

static bool in_range(const struct option *o, double v)
{
    return v >= o->min && v <= o->max;
}

/* A whole number of n bytes, with a suffix of 1024, 1024^2... for a SIZE. */
static bool parse_count(const struct option *o, const char *s, size_t n, uint64_t *ret)
{
    static const char letters[] = "KMGT";
    uint64_t v = 0;
    unsigned shift = 0;
    const char *p;

    if (n > 1 && o->kind == KIND_SIZE && (p = strchr(letters, toupper((unsigned char)s[n - 1])))) {
        shift = 10u * (unsigned)(p - letters + 1);
        n--;
    }
    if (n == 0 || n > 19)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!isdigit((unsigned char)s[i]))
            return false;
        v = v * 10 + (uint64_t)(s[i] - '0');
    }
    *ret = v << shift;
    return (v << shift) >> shift == v && in_range(o, (double)*ret);
}

/* strtod takes spaces, signs, hexadecimals, infinities and not-a-numbers; we don't. */
static bool parse_real(const struct option *o, const char *s, size_t n, double *ret)
{
    char text[64], *end;

    if (n == 0 || n >= sizeof(text) || strspn(s, "0123456789.eE+-") < n ||
        !strchr(".0123456789", *s))
        return false;
    memcpy(text, s, n);
    text[n] = '\0';
    *ret = strtod(text, &end);
    return !*end && isfinite(*ret) && in_range(o, *ret);
}

static bool parse_choice(const char *choices, const char *s, uint32_t *ret)
{
    size_t len = strlen(s);
    uint32_t i = 0;

    for (const char *p = choices;; i++) {
        size_t n = strcspn(p, "|");

        if (n == len && memcmp(p, s, n) == 0) {
            *ret = i;
            return true;
        }
        if (!p[n])
            return false;
        p += n + 1;
    }
}

/* The next word of a list at *s, or NULL. */
static const char *next_word(const char **s, size_t *ret_len)
{
    const char *word = *s + strspn(*s, " \t,");

    *ret_len = strcspn(word, " \t,");
    *s = word + *ret_len;
    return *ret_len ? word : NULL;
}

static bool parse_list(const struct option *o, const char *s, struct recipe_list *ret)
{
    struct recipe_list list = { 0 };
    const char *word;
    size_t len;
    uint64_t v;

    while ((word = next_word(&s, &len))) {
        if (list.n == RECIPE_LIST_MAX || !parse_count(o, word, len, &v) ||
            (list.n && v <= list.v[list.n - 1]))
            return false;
        list.v[list.n++] = (uint32_t)v;
    }
    *ret = list;
    return list.n > 0;
}

static bool parse_weights(const struct option *o, const char *s, struct recipe_weights *ret)
{
    struct recipe_weights w = { 0 };
    const char *word;
    size_t len;

    while ((word = next_word(&s, &len))) {
        const char *eq = memchr(word, '=', len);
        size_t name_len = eq ? (size_t)(eq - word) : 0;

        if (w.n == RECIPE_WEIGHTS_MAX || name_len == 0 || name_len > RECIPE_NAME_MAX ||
            !parse_real(o, eq + 1, len - name_len - 1, &w.v[w.n].weight))
            return false;
        memcpy(w.v[w.n].name, word, name_len);
        for (uint32_t i = 0; i < w.n; i++)
            if (strcmp(w.v[i].name, w.v[w.n].name) == 0)
                return false;
        w.n++;
    }
    *ret = w;
    return true;
}

static bool set_text(const struct option *o, char *field, const char *value)
{
    size_t len = strlen(value);

    if (!in_range(o, (double)len))
        return false;
    memset(field, 0, RECIPE_TEXT_MAX + 1);
    memcpy(field, value, len);
    return true;
}

static bool set_value(const struct option *o, void *field, const char *value)
{
    uint64_t v;
    bool ok;

    switch (o->kind) {
    case KIND_TEXT:
        return set_text(o, field, value);
    case KIND_SIZE:
    case KIND_BIG:
        return parse_count(o, value, strlen(value), field);
    case KIND_COUNT:
        ok = parse_count(o, value, strlen(value), &v);
        if (ok)
            *(uint32_t *)field = (uint32_t)v;
        return ok;
    case KIND_REAL:
        return parse_real(o, value, strlen(value), field);
    case KIND_CHOICE:
        return parse_choice(o->choices, value, field);
    case KIND_YES:
        ok = strcmp(value, "yes") == 0;
        if (ok || strcmp(value, "no") == 0) {
            *(bool *)field = ok;
            return true;
        }
        return false;
    case KIND_LIST:
        return parse_list(o, value, field);
    case KIND_WEIGHTS:
        return parse_weights(o, value, field);
    }
    return false;
}

static void format_size(double v, char *ret, size_t cap)
{
    static const char letters[] = "KMGT";
    int i = -1;

    while (v >= 1024 && fmod(v, 1024) == 0 && i < 3) {
        v /= 1024;
        i++;
    }
    (void)snprintf(ret, cap, "%.0f%.*s", v, i >= 0, i >= 0 ? &letters[i] : "");
}

static void format_allowed(const struct option *o, char *ret, size_t cap)
{
    char min[32], max[32];

    switch (o->kind) {
    case KIND_TEXT:
        (void)snprintf(ret, cap, "at most %.0f bytes", o->max);
        break;
    case KIND_SIZE:
        format_size(o->min, min, sizeof(min));
        format_size(o->max, max, sizeof(max));
        (void)snprintf(ret, cap, "%s to %s, in bytes or with K, M, G or T", min, max);
        break;
    case KIND_COUNT:
        (void)snprintf(ret, cap, "%.0f to %.0f", o->min, o->max);
        break;
    case KIND_BIG:
        (void)snprintf(ret, cap, "a whole number below 2^63");
        break;
    case KIND_REAL:
        (void)snprintf(ret, cap, "a number from %g to %g", o->min, o->max);
        break;
    case KIND_CHOICE:
        (void)snprintf(ret, cap, "one of %s", o->choices);
        break;
    case KIND_YES:
        (void)snprintf(ret, cap, "yes or no");
        break;
    case KIND_LIST:
        (void)snprintf(ret, cap, "1 to %d rising numbers from %.0f to %.0f", RECIPE_LIST_MAX,
                       o->min, o->max);
        break;
    case KIND_WEIGHTS:
        (void)snprintf(ret, cap, "up to %d of NAME=NUMBER, each name once, numbers from %g to %g",
                       RECIPE_WEIGHTS_MAX, o->min, o->max);
        break;
    }
}

int recipe_set(struct recipe *r, const char *name, const char *value, const char *where,
               struct why *why)
{
    const struct option *o = find_option(name, strlen(name));
    char allowed[256];

    if (!o)
        return why_set(why, -EINVAL,
                       "%s: there is no option \"%.100s\"; gist-train --help lists them", where,
                       name);
    if (set_value(o, (char *)r + o->off, value))
        return 0;
    format_allowed(o, allowed, sizeof(allowed));
    return why_set(why, -EINVAL, "option %s, from %s: found \"%.100s\", allowed is %s", o->name,
                   where, value, allowed);
}

void recipe_defaults(struct recipe *r)
{
    memset(r, 0, sizeof(*r)); /* padding too: recipes are compared as bytes in tests */
    for (size_t i = 0; i < N_OPTIONS; i++)
        (void)recipe_set(r, options[i].name, options[i].deflt, "default", NULL);
}

const char *recipe_choice(const char *name, uint32_t value, char *ret, size_t cap)
{
    const struct option *o = find_option(name, strlen(name));
    const char *p = o && o->kind == KIND_CHOICE ? o->choices : "";

    for (; value && *p; value--) {
        p += strcspn(p, "|");
        p += *p == '|';
    }
    (void)snprintf(ret, cap, "%.*s", (int)strcspn(p, "|"), p);
    return ret;
}

/* --- file and flags ----------------------------------------------------------------------------- */

static char *trim(char *s)
{
    char *end;

    while (isspace((unsigned char)*s))
        s++;
    end = s + strlen(s);
    while (end > s && isspace((unsigned char)end[-1]))
        end--;
    *end = '\0';
    return s;
}

static int load_line(struct recipe *r, char *line, const char *path, unsigned number,
                     struct why *why)
{
    char where[RECIPE_TEXT_MAX + 32], *key, *eq;

    (void)snprintf(where, sizeof(where), "%s:%u", path, number);
    key = trim(line);
    if (!*key || *key == '#')
        return 0;
    eq = strchr(key, '=');
    if (!eq)
        return why_set(why, -EINVAL, "%s: found \"%.100s\", expected key = value", where, key);
    *eq = '\0';
    return recipe_set(r, trim(key), trim(eq + 1), where, why);
}

static int load_file(struct recipe *r, const char *path, struct why *why)
{
    FILE *f = fopen(path, "re");
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    int err = 0;

    if (!f)
        return why_set(why, -errno, "recipe %s: %s", path, strerror(errno));
    for (unsigned number = 1; err == 0 && (len = getline(&line, &cap, f)) >= 0; number++) {
        if (strlen(line) != (size_t)len)
            err = why_set(why, -EINVAL, "%s:%u: found a zero byte, expected text", path, number);
        else
            err = load_line(r, line, path, number, why);
    }
    if (err == 0 && ferror(f))
        err = why_set(why, -EIO, "recipe %s: %s", path, strerror(errno));
    free(line);
    (void)fclose(f);
    return err;
}

/* One flag at argv[*i], `--name=value`, `--name value` or `--name` of a yes/no option. */
struct flag {
    char name[64];
    const char *value; /* NULL: an action */
};

static int flag_action(const char *name)
{
    for (size_t i = 0; i < N_ACTIONS; i++)
        if (strcmp(actions[i].name, name) == 0)
            return (int)actions[i].action;
    return -1;
}

static int flag_value(int argc, char *const *argv, int *i, const struct option *o, struct flag *f,
                      struct why *why)
{
    const char *next = *i + 1 < argc ? argv[*i + 1] : NULL;

    if (o && o->kind == KIND_YES &&
        !(next && (strcmp(next, "yes") == 0 || strcmp(next, "no") == 0))) {
        f->value = "yes";
        return 0;
    }
    if (!next)
        return why_set(why, -EINVAL, "flag --%s needs a value; gist-train --help says which",
                       f->name);
    f->value = next;
    *i += 1;
    return 0;
}

static int flag_parse(int argc, char *const *argv, int *i, struct flag *ret, struct why *why)
{
    const char *a = strcmp(argv[*i], "-h") == 0 ? "--help" : argv[*i];
    const struct option *o;
    size_t len;

    if (strncmp(a, "--", 2) != 0 || !a[2])
        return why_set(why, -EINVAL, "found \"%.100s\" on the command line, expected --OPTION", a);
    len = strcspn(a + 2, "=");
    (void)snprintf(ret->name, sizeof(ret->name), "%.*s", (int)len, a + 2);
    ret->value = a[2 + len] ? a + 3 + len : NULL;
    if (flag_action(ret->name) >= 0)
        return ret->value ? why_set(why, -EINVAL, "flag --%s takes no value", ret->name) : 0;
    o = find_option(a + 2, len);
    if (!o && strcmp(ret->name, "config") != 0)
        return why_set(why, -EINVAL, "there is no flag \"%.100s\"; gist-train --help lists them",
                       a);
    return ret->value ? 0 : flag_value(argc, argv, i, o, ret, why);
}

/* First pass: what the flags ask for, and the recipe file they name. */
static int scan_flags(struct recipe *r, int argc, char *const *argv, struct why *why)
{
    for (int i = 1; i < argc; i++) {
        struct flag f;
        int err = flag_parse(argc, argv, &i, &f, why);

        if (err < 0)
            return err;
        if (!f.value && r->action == RECIPE_RUN)
            r->action = (enum recipe_action)flag_action(f.name);
        if (strcmp(f.name, "config") != 0)
            continue;
        if (strlen(f.value) > RECIPE_TEXT_MAX)
            return why_set(why, -EINVAL, "flag --config: found a path of %zu bytes, allowed are %d",
                           strlen(f.value), RECIPE_TEXT_MAX);
        memset(r->file, 0, sizeof(r->file));
        memcpy(r->file, f.value, strlen(f.value));
    }
    return 0;
}

static int load_flags(struct recipe *r, int argc, char *const *argv, struct why *why)
{
    char where[80];

    for (int i = 1; i < argc; i++) {
        struct flag f;
        int err = flag_parse(argc, argv, &i, &f, why);

        if (err == 0 && f.value && strcmp(f.name, "config") != 0) {
            (void)snprintf(where, sizeof(where), "the flag --%s", f.name);
            err = recipe_set(r, f.name, f.value, where, why);
        }
        if (err < 0)
            return err;
    }
    return 0;
}

/* What one option alone can't say. */
static int check_together(const struct recipe *r, struct why *why)
{
    if (r->segment % 16)
        return why_set(why, -EINVAL, "option segment: found %u, allowed is a multiple of 16",
                       r->segment);
    if (r->sequence % r->segment || r->sequence / r->segment < 2)
        return why_set(
            why, -EINVAL,
            "option sequence: found %u, allowed is two or more times segment, which is %u",
            r->sequence, r->segment);
    if (r->sinks >= r->segment)
        return why_set(why, -EINVAL,
                       "option sinks: found %u, allowed is below segment, which is %u", r->sinks,
                       r->segment);
    for (uint32_t i = 0; i < r->ratios.n; i++)
        if (r->segment % r->ratios.v[i])
            return why_set(why, -EINVAL,
                           "option ratios: found %u, allowed is what divides segment, "
                           "which is %u",
                           r->ratios.v[i], r->segment);
    if (r->loss_lm + r->loss_ae + r->loss_distill <= 0)
        return why_set(why, -EINVAL,
                       "options loss-lm, loss-ae, loss-distill: found 0, allowed is a sum above 0");
    if (r->loss_tie && r->loss_lm <= 0)
        return why_set(why, -EINVAL, "option loss-tie: found yes, allowed is no when loss-lm is 0");
    return 0;
}

int recipe_load(struct recipe *r, int argc, char *const *argv, struct why *why)
{
    int err;

    recipe_defaults(r);
    err = scan_flags(r, argc, argv, why);
    if (err < 0 || r->action == RECIPE_HELP)
        return err;
    if (r->file[0])
        err = load_file(r, r->file, why);
    if (err == 0)
        err = load_flags(r, argc, argv, why);
    return err < 0 ? err : check_together(r, why);
}

/* --- what is printed from the table ------------------------------------------------------------- */

/* Words of text in lines of at most width columns, each begun with indent. */
static void print_wrapped(FILE *f, const char *text, const char *indent, size_t width)
{
    size_t col = 0;

    while (*text) {
        size_t n = strcspn(text, " ");

        if (col && col + 1 + n > width) {
            (void)fputc('\n', f);
            col = 0;
        }
        col += (size_t)fprintf(f, "%s%.*s", col ? " " : indent, (int)n, text);
        text += n + (text[n] == ' ');
    }
    (void)fputc('\n', f);
}

/* In as few digits as give the same number back. */
static void print_real(FILE *f, double v)
{
    char text[32];

    for (int digits = 1; digits <= 17; digits++) {
        (void)snprintf(text, sizeof(text), "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    (void)fputs(text, f);
}

static void print_value(FILE *f, const struct option *o, const void *field)
{
    const struct recipe_list *list = field;
    const struct recipe_weights *w = field;
    char text[64];

    switch (o->kind) {
    case KIND_TEXT:
        (void)fputs(field, f);
        break;
    case KIND_SIZE:
    case KIND_BIG:
        (void)fprintf(f, "%llu", (unsigned long long)*(const uint64_t *)field);
        break;
    case KIND_COUNT:
        (void)fprintf(f, "%u", *(const uint32_t *)field);
        break;
    case KIND_REAL:
        print_real(f, *(const double *)field);
        break;
    case KIND_CHOICE:
        (void)fputs(recipe_choice(o->name, *(const uint32_t *)field, text, sizeof(text)), f);
        break;
    case KIND_YES:
        (void)fputs(*(const bool *)field ? "yes" : "no", f);
        break;
    case KIND_LIST:
        for (uint32_t i = 0; i < list->n; i++)
            (void)fprintf(f, "%s%u", i ? " " : "", list->v[i]);
        break;
    case KIND_WEIGHTS:
        for (uint32_t i = 0; i < w->n; i++) {
            (void)fprintf(f, "%s%s=", i ? " " : "", w->v[i].name);
            print_real(f, w->v[i].weight);
        }
        break;
    }
}

void recipe_print(const struct recipe *r, FILE *f)
{
    for (size_t i = 0; i < N_OPTIONS; i++) {
        (void)fprintf(f, "%s = ", options[i].name);
        print_value(f, &options[i], (const char *)r + options[i].off);
        (void)fputc('\n', f);
    }
}

static void print_flag(FILE *f, const char *name, const char *arg, const char *deflt,
                       const char *help)
{
    (void)fprintf(f, "  --%s%s%s", name, arg[0] ? " " : "", arg);
    if (deflt[0])
        (void)fprintf(f, "  (default %s)", deflt);
    (void)fputc('\n', f);
    print_wrapped(f, help, "        ", 88);
}

static const char *option_arg(const struct option *o)
{
    return o->kind == KIND_CHOICE ? o->choices : o->arg;
}

void recipe_print_help(FILE *f)
{
    for (size_t i = 0; i < N_OPTIONS; i++)
        print_flag(f, options[i].name, option_arg(&options[i]), options[i].deflt, options[i].help);
    print_flag(f, "config", "FILE", "", FILE_HELP);
    for (size_t i = 0; i < N_ACTIONS; i++)
        print_flag(f, actions[i].name, "", "", actions[i].help);
    (void)fputs("\nEvery option is also a key of the recipe file (key = value, # begins a comment "
                "line); a flag\ncomes before the file.\n",
                f);
}

/* mdoc wants each sentence on a line of its own. */
static void print_sentences(FILE *f, const char *text)
{
    char sentence[512];

    while (*text) {
        const char *end = strstr(text, ". ");
        size_t n = end ? (size_t)(end - text) + 1 : strlen(text);

        (void)snprintf(sentence, sizeof(sentence), "%.*s", (int)n, text);
        print_wrapped(f, sentence, "", 78);
        text += n + (end != NULL);
    }
}

void recipe_print_mdoc(FILE *f)
{
    char allowed[256];

    for (size_t i = 0; i < N_OPTIONS; i++) {
        const struct option *o = &options[i];

        (void)fprintf(f, ".It Fl \\-%s Ar %s\n", o->name, option_arg(o));
        print_sentences(f, o->help);
        format_allowed(o, allowed, sizeof(allowed));
        if (o->kind != KIND_CHOICE && o->kind != KIND_TEXT && o->kind != KIND_YES)
            (void)fprintf(f, "Allowed: %s.\n", allowed);
        if (o->deflt[0])
            (void)fprintf(f, "The default is %s.\n", o->deflt);
    }
    (void)fprintf(f, ".It Fl \\-config Ar FILE\n%s\n", FILE_HELP);
    for (size_t i = 0; i < N_ACTIONS; i++)
        (void)fprintf(f, ".It Fl \\-%s\n%s\n", actions[i].name, actions[i].help);
}
