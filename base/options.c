/* base/options.c - a table of options, and all that is done by it: values are read and checked,
 * from files and flags, and help, examples, configurations and manuals are printed. Nothing here
 * knows what an option means; a struct's field is found by its offset, and written by the table's
 * kind alone. */

#include "base/options.h"

#include "base/files.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- one value -------------------------------------------------------------------------------- */

/* INT64_MAX as a double: no number that is parsed is larger. */
#define NO_LIMIT 0x1p63

/* A few dozen, looked through at the start of a program: no order and no table of hashes is worth
 * it. */
static const struct options_item *find(const struct options *o, const char *name, size_t len)
{
    for (size_t i = 0; i < o->n_items; i++)
        if (strlen(o->items[i].name) == len && memcmp(o->items[i].name, name, len) == 0)
            return &o->items[i];
    return NULL;
}

/* As doubles for every kind: limits above 2^53 are powers of two or "none", which they hold
 * exactly. */
static bool in_range(const struct options_item *o, double v)
{
    return v >= o->min && v <= o->max;
}

/* A whole number below 2^63 in n bytes, with a suffix of 1024, 1024^2... for a SIZE. */
static bool parse_count(const struct options_item *o, const char *s, size_t n, uint64_t *ret)
{
    static const char letters[] = "KMGT";
    uint64_t v = 0, base = o->kind == OPTIONS_MODE ? 8 : 10;
    unsigned shift = 0;
    const char *p;

    if (n > 1 && o->kind == OPTIONS_SIZE &&
        (p = strchr(letters, toupper((unsigned char)s[n - 1])))) {
        shift = 10u * (unsigned)(p - letters + 1);
        n--;
    }
    for (size_t i = 0; i < n; i++) {
        uint64_t digit = (uint64_t)(s[i] - '0');

        if (!isdigit((unsigned char)s[i]) || digit >= base ||
            v > ((uint64_t)INT64_MAX - digit) / base)
            return false;
        v = v * base + digit;
    }
    if (n == 0 || v > (uint64_t)INT64_MAX >> shift)
        return false;
    v <<= shift;
    if (!in_range(o, (double)v))
        return false;
    *ret = v;
    return true;
}

bool options_read_size(const char *s, uint64_t *ret)
{
    static const struct options_item any = { .kind = OPTIONS_SIZE, .max = NO_LIMIT };

    return parse_count(&any, s, strlen(s), ret);
}

/* UINT32_MAX is "auto", and so max is below it. */
bool options_read_auto(const char *s, uint32_t max, uint32_t *ret)
{
    char *end;
    unsigned long n;

    if (strcmp(s, "auto") == 0 || strcmp(s, "off") == 0) {
        *ret = *s == 'a' ? UINT32_MAX : 0;
        return true;
    }
    n = strtoul(s, &end, 10); /* ULONG_MAX of a larger one */
    if (*s < '0' || *s > '9' || *end || n > max)
        return false;
    *ret = (uint32_t)n;
    return true;
}

/* strtod takes spaces, signs, hexadecimals, infinities and not-a-numbers; we don't. */
static bool parse_real(const struct options_item *o, const char *s, size_t n, double *ret)
{
    char text[64], *end;
    double v;

    if (n == 0 || n >= sizeof(text) || strspn(s, "0123456789.eE+-") < n ||
        !strchr(".0123456789", *s))
        return false;
    memcpy(text, s, n);
    text[n] = '\0';
    v = strtod(text, &end);
    if (*end || !isfinite(v) || !in_range(o, v))
        return false;
    *ret = v;
    return true;
}

/* Words in the order of the enum: the place is the value. */
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

/* Ascending, and each number once. */
static bool parse_list(const struct options_item *o, const char *s, struct options_list *ret)
{
    struct options_list list = { 0 };
    const char *word;
    size_t len;
    uint64_t v;

    while ((word = next_word(&s, &len))) {
        if (list.n == OPTIONS_LIST_MAX || !parse_count(o, word, len, &v) ||
            (list.n && v <= list.v[list.n - 1]))
            return false;
        list.v[list.n++] = (uint32_t)v;
    }
    if (list.n == 0)
        return false;
    *ret = list;
    return true;
}

/* May be empty: then the whole option is as if it were not there. */
static bool parse_weights(const struct options_item *o, const char *s, struct options_weights *ret)
{
    struct options_weights w = { 0 };
    const char *word;
    size_t len;

    while ((word = next_word(&s, &len))) {
        const char *eq = memchr(word, '=', len);
        size_t name_len = eq ? (size_t)(eq - word) : 0;

        if (w.n == OPTIONS_WEIGHTS_MAX || name_len == 0 || name_len > OPTIONS_NAME_MAX ||
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

static bool set_text(const struct options_item *o, char *field, const char *value)
{
    size_t len = strlen(value);

    if (!in_range(o, (double)len))
        return false;
    memset(field, 0,
           OPTIONS_TEXT_MAX + 1); /* its tail too: structs are compared as bytes in tests */
    memcpy(field, value, len);
    return true;
}

/* The field is written where the value is good, and not touched else: what stood there counts. */
static bool set_value(const struct options_item *o, void *field, const char *value)
{
    uint64_t v;
    bool ok;

    switch (o->kind) {
    case OPTIONS_TEXT:
        return set_text(o, field, value);
    case OPTIONS_SIZE:
    case OPTIONS_BIG:
        return parse_count(o, value, strlen(value), field);
    case OPTIONS_COUNT:
    case OPTIONS_MODE:
        ok = parse_count(o, value, strlen(value), &v);
        if (ok)
            *(uint32_t *)field = (uint32_t)v;
        return ok;
    case OPTIONS_REAL:
        return parse_real(o, value, strlen(value), field);
    case OPTIONS_CHOICE:
        return parse_choice(o->choices, value, field);
    case OPTIONS_YES:
        ok = strcmp(value, "yes") == 0;
        if (ok || strcmp(value, "no") == 0) {
            *(bool *)field = ok;
            return true;
        }
        return false;
    case OPTIONS_LIST:
        return parse_list(o, value, field);
    case OPTIONS_WEIGHTS:
        return parse_weights(o, value, field);
    }
    return false;
}

/* In the largest unit that leaves a whole number, as it would be typed. */
static void format_size(double v, char *ret, size_t cap)
{
    static const char letters[] = "KMGT";
    int i = -1;

    /* Without fmod: libgist has this file, and is to need no libm. */
    while (v >= 1024 && v <= NO_LIMIT && (uint64_t)v % 1024 == 0 && i < 3) {
        v /= 1024;
        i++;
    }
    (void)snprintf(ret, cap, "%.0f%.*s", v, i >= 0, i >= 0 ? &letters[i] : "");
}

/* What an error, the example and the manuals say of a value; so they can't differ. */
static void format_allowed(const struct options_item *o, char *ret, size_t cap)
{
    /* Sizes of something else say so by their argument: of tokens, say. */
    const char *unit = strcmp(o->arg, "SIZE") == 0 ? "in bytes or " : "as a number or ";
    char min[32], max[32];

    switch (o->kind) {
    case OPTIONS_TEXT:
        (void)snprintf(ret, cap, "at most %.0f bytes", o->max);
        break;
    case OPTIONS_SIZE:
        format_size(o->min, min, sizeof(min));
        format_size(o->max, max, sizeof(max));
        if (o->max == NO_LIMIT)
            (void)snprintf(ret, cap, "%s or more, %swith K, M, G or T", min, unit);
        else
            (void)snprintf(ret, cap, "%s to %s, %swith K, M, G or T", min, max, unit);
        break;
    case OPTIONS_COUNT:
        (void)snprintf(ret, cap, "%.0f to %.0f", o->min, o->max);
        break;
    case OPTIONS_BIG:
        (void)snprintf(ret, cap, "a whole number below 2^63");
        break;
    case OPTIONS_REAL:
        (void)snprintf(ret, cap, "a number from %g to %g", o->min, o->max);
        break;
    case OPTIONS_CHOICE:
        (void)snprintf(ret, cap, "one of %s", o->choices);
        break;
    case OPTIONS_YES:
        (void)snprintf(ret, cap, "yes or no");
        break;
    case OPTIONS_MODE:
        (void)snprintf(ret, cap, "octal permission bits, 0 to 0777");
        break;
    case OPTIONS_LIST:
        (void)snprintf(ret, cap, "1 to %d ascending numbers from %.0f to %.0f", OPTIONS_LIST_MAX,
                       o->min, o->max);
        break;
    case OPTIONS_WEIGHTS:
        (void)snprintf(ret, cap, "up to %d of NAME=NUMBER, each name once, numbers from %g to %g",
                       OPTIONS_WEIGHTS_MAX, o->min, o->max);
        break;
    }
}

int options_set(const struct options *o, void *to, const char *name, const char *value,
                const char *where, struct why *why)
{
    const struct options_item *item = find(o, name, strlen(name));
    char allowed[256];

    if (!item)
        return why_set(why, -EINVAL, "%s: there is no option \"%.100s\"; %s --help lists them",
                       where, name, o->program);
    if (set_value(item, (char *)to + item->off, value))
        return 0;
    format_allowed(item, allowed, sizeof(allowed));
    return why_set(why, -EINVAL, "option %s, from %s: found \"%.100s\", allowed: %s", item->name,
                   where, value, allowed);
}

/* By the same parser as all else. That every default is allowed is up to tests. */
void options_set_defaults(const struct options *o, void *to)
{
    for (size_t i = 0; i < o->n_items; i++)
        (void)options_set(o, to, o->items[i].name, o->items[i].deflt, "default", NULL);
}

/* The value-th word of a|b|c. */
static void copy_choice(const char *choices, uint32_t value, char *ret, size_t cap)
{
    for (; value && *choices; value--) {
        choices += strcspn(choices, "|");
        choices += *choices == '|';
    }
    (void)snprintf(ret, cap, "%.*s", (int)strcspn(choices, "|"), choices);
}

const char *options_choice(const struct options *o, const char *name, uint32_t value, char *ret,
                           size_t cap)
{
    const struct options_item *item = find(o, name, strlen(name));

    copy_choice(item && item->kind == OPTIONS_CHOICE ? item->choices : "", value, ret, cap);
    return ret;
}

/* --- file and flags --------------------------------------------------------------------------- */

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

/* In place: `line` is the caller's to lose. */
static int load_line(const struct options *o, void *to, char *line, const char *path,
                     unsigned number, struct why *why)
{
    char where[OPTIONS_TEXT_MAX + 32], *key, *eq;

    (void)snprintf(where, sizeof(where), "%s:%u", path, number);
    key = trim(line);
    if (!*key || *key == '#')
        return 0;
    eq = strchr(key, '=');
    if (!eq)
        return why_set(why, -EINVAL, "%s: found \"%.100s\", expected key = value", where, key);
    *eq = '\0';
    return options_set(o, to, trim(key), trim(eq + 1), where, why);
}

int options_load_file(const struct options *o, void *to, const char *path, struct why *why)
{
    FILE *f = fopen(path, "re");
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    int err = 0;

    if (!f)
        return why_set(why, -errno, "%s %s: %s", o->file_word, path, strerror(errno));
    for (unsigned number = 1; err == 0 && (len = getline(&line, &cap, f)) >= 0; number++) {
        /* The rest behind it would be lost in silence. */
        if (strlen(line) != (size_t)len)
            err = why_set(why, -EINVAL, "%s:%u: found a zero byte, expected text", path, number);
        else
            err = load_line(o, to, line, path, number, why);
    }
    /* What is behind would not count, in silence. */
    if (err == 0 && (err = files_lines_end(f)) < 0)
        why_set(why, err, "%s %s: %s", o->file_word, path, strerror(-err));
    free(line);
    (void)fclose(f);
    return err;
}

/* The user's own before the machine's. Relative paths in the environment are ignored, as the XDG
 * specification wants it. */
void options_find_file(const char *config_home, const char *home, const char *name, char *ret)
{
    ret[0] = '\0';
    if (config_home && config_home[0] == '/')
        (void)snprintf(ret, OPTIONS_TEXT_MAX + 1, "%s/gistd/%s", config_home, name);
    else if (home && home[0] == '/')
        (void)snprintf(ret, OPTIONS_TEXT_MAX + 1, "%s/.config/gistd/%s", home, name);
    if (ret[0] && access(ret, F_OK) == 0)
        return;
    (void)snprintf(ret, OPTIONS_TEXT_MAX + 1, "/etc/gistd/%s", name);
    if (access(ret, F_OK) < 0)
        ret[0] = '\0';
}

/* One flag at argv[*i], `--name=value`, `--name value` or `--name` of a yes/no option. */
struct flag {
    char name[64];
    const char *value;                   /* NULL: there is none */
    const struct options_action *action; /* NULL: an option */
};

/* Of an action's value, or of an option's. */
static const char *arg_of(const struct options_item *o)
{
    return o->kind == OPTIONS_CHOICE ? o->choices : o->arg;
}

static const struct options_action *find_action(const struct options *o, const char *name)
{
    for (size_t i = 0; i < o->n_actions; i++)
        if (strcmp(o->actions[i].name, name) == 0)
            return &o->actions[i];
    return NULL;
}

/* A yes/no option takes the next word for its value only where that is one: `--pin --store FILE`
 * are two flags. */
static int flag_value(const struct options *o, int argc, char *const *argv, int *i,
                      const struct options_item *item, struct flag *f, struct why *why)
{
    const char *next = *i + 1 < argc ? argv[*i + 1] : NULL;

    if (item && item->kind == OPTIONS_YES &&
        !(next && (strcmp(next, "yes") == 0 || strcmp(next, "no") == 0))) {
        f->value = "yes";
        return 0;
    }
    if (!next)
        return why_set(why, -EINVAL, "flag --%s needs a value; %s --help says which", f->name,
                       o->program);
    f->value = next;
    *i += 1;
    return 0;
}

/* Actions first: one may set an option as well (`sets`), and takes that one's value. */
static int flag_parse(const struct options *o, int argc, char *const *argv, int *i,
                      struct flag *ret, struct why *why)
{
    const char *a = strcmp(argv[*i], "-h") == 0 ? "--help" : argv[*i];
    const struct options_item *item;
    size_t len;

    if (strncmp(a, "--", 2) != 0 || !a[2])
        return why_set(why, -EINVAL, "found \"%.100s\" on the command line, expected --OPTION", a);
    len = strcspn(a + 2, "=");
    (void)snprintf(ret->name, sizeof(ret->name), "%.*s", (int)len, a + 2);
    ret->value = a[2 + len] ? a + 3 + len : NULL;
    ret->action = find_action(o, ret->name);
    if (ret->action && !ret->action->sets)
        return ret->value ? why_set(why, -EINVAL, "flag --%s takes no value", ret->name) : 0;
    item =
        ret->action ? find(o, ret->action->sets, strlen(ret->action->sets)) : find(o, a + 2, len);
    if (!item && strcmp(ret->name, "config") != 0)
        return why_set(why, -EINVAL, "there is no flag \"%.100s\"; %s --help lists them", a,
                       o->program);
    return ret->value ? 0 : flag_value(o, argc, argv, i, item, ret, why);
}

/* Two passes over the flags: this one finds what has to be known before any option is set, the file
 * first of all, since flags override it. It also refuses what is no flag, before a file is read. */
int options_scan_flags(const struct options *o, int argc, char *const *argv, int *ret_action,
                       char *ret_file, struct why *why)
{
    int action = 0;

    for (int i = 1; i < argc; i++) {
        struct flag f;
        int err = flag_parse(o, argc, argv, &i, &f, why);

        if (err < 0)
            return err;
        /* The first of several counts. */
        if (f.action && !action)
            action = f.action->action;
        if (strcmp(f.name, "config") != 0)
            continue;
        if (strlen(f.value) > OPTIONS_TEXT_MAX)
            return why_set(why, -EINVAL,
                           "flag --config: the path has %zu bytes; at most %d are allowed",
                           strlen(f.value), OPTIONS_TEXT_MAX);
        strcpy(ret_file, f.value);
    }
    *ret_action = action;
    return 0;
}

/* The second pass, behind the file. */
int options_load_flags(const struct options *o, void *to, int argc, char *const *argv,
                       struct why *why)
{
    char where[80];

    for (int i = 1; i < argc; i++) {
        struct flag f;
        int err = flag_parse(o, argc, argv, &i, &f, why);

        if (err == 0 && f.value && strcmp(f.name, "config") != 0) {
            (void)snprintf(where, sizeof(where), "the flag --%s", f.name);
            err = options_set(o, to, f.action ? f.action->sets : f.name, f.value, where, why);
        }
        if (err < 0)
            return err;
    }
    return 0;
}

/* --- what is printed from the table ----------------------------------------------------------- */

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

/* In a form that options_set reads again. */
static void print_value(FILE *f, const struct options_item *o, const void *field)
{
    const struct options_list *list = field;
    const struct options_weights *w = field;
    char text[64];

    switch (o->kind) {
    case OPTIONS_TEXT:
        (void)fputs(field, f);
        break;
    case OPTIONS_SIZE:
    case OPTIONS_BIG:
        (void)fprintf(f, "%llu", (unsigned long long)*(const uint64_t *)field);
        break;
    case OPTIONS_COUNT:
        (void)fprintf(f, "%u", *(const uint32_t *)field);
        break;
    case OPTIONS_REAL:
        print_real(f, *(const double *)field);
        break;
    case OPTIONS_CHOICE:
        copy_choice(o->choices, *(const uint32_t *)field, text, sizeof(text));
        (void)fputs(text, f);
        break;
    case OPTIONS_YES:
        (void)fputs(*(const bool *)field ? "yes" : "no", f);
        break;
    case OPTIONS_MODE:
        (void)fprintf(f, "%04o", *(const uint32_t *)field);
        break;
    case OPTIONS_LIST:
        for (uint32_t i = 0; i < list->n; i++)
            (void)fprintf(f, "%s%u", i ? " " : "", list->v[i]);
        break;
    case OPTIONS_WEIGHTS:
        for (uint32_t i = 0; i < w->n; i++) {
            (void)fprintf(f, "%s%s=", i ? " " : "", w->v[i].name);
            print_real(f, w->v[i].weight);
        }
        break;
    }
}

void options_print(const struct options *o, const void *from, FILE *f)
{
    for (size_t i = 0; i < o->n_items; i++) {
        (void)fprintf(f, "%s = ", o->items[i].name);
        print_value(f, &o->items[i], (const char *)from + o->items[i].off);
        (void)fputc('\n', f);
    }
}

/* Every option is a comment there: a file that is copied as it is sets nothing, and follows the
 * defaults of later versions. */
void options_print_example(const struct options *o, FILE *f)
{
    char allowed[256];

    for (size_t i = 0; i < o->n_items; i++) {
        const struct options_item *item = &o->items[i];

        (void)fputc('\n', f);
        print_wrapped(f, item->help, "# ", 96);
        format_allowed(item, allowed, sizeof(allowed));
        (void)fprintf(f, "# Allowed: %s.\n#%s =%s%s\n", allowed, item->name,
                      item->deflt[0] ? " " : "", item->deflt);
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

/* What an action's value is called; empty: it takes none. */
static const char *action_arg(const struct options *o, const struct options_action *a)
{
    return a->sets ? arg_of(find(o, a->sets, strlen(a->sets))) : "";
}

void options_print_help(const struct options *o, FILE *f)
{
    for (size_t i = 0; i < o->n_items; i++) {
        const struct options_item *item = &o->items[i];

        print_flag(f, item->name, arg_of(item), item->deflt, item->help);
    }
    print_flag(f, "config", "FILE", "", o->file_help);
    for (size_t i = 0; i < o->n_actions; i++)
        print_flag(f, o->actions[i].name, action_arg(o, &o->actions[i]), "", o->actions[i].help);
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

/* In lists of flags what is allowed stands beside numbers alone, and only where that is wanted: a
 * choice has its words as the argument. */
static void print_mdoc_item(FILE *f, const struct options_item *o, enum options_list_of what)
{
    bool number = o->kind != OPTIONS_CHOICE && o->kind != OPTIONS_TEXT && o->kind != OPTIONS_YES;
    char allowed[256];

    if (what == OPTIONS_OF_KEYS)
        (void)fprintf(f, ".It Ic %s\n", o->name);
    else
        (void)fprintf(f, ".It Fl \\-%s Ar %s\n", o->name, arg_of(o));
    print_sentences(f, o->help);
    format_allowed(o, allowed, sizeof(allowed));
    if (what == OPTIONS_OF_KEYS || (what == OPTIONS_OF_FLAGS_AND_NUMBERS && number))
        (void)fprintf(f, "Allowed: %s.\n", allowed);
    if (o->deflt[0])
        (void)fprintf(f, "The default is %s.\n", o->deflt);
}

void options_print_mdoc(const struct options *o, FILE *f, enum options_list_of what)
{
    for (size_t i = 0; i < o->n_items; i++)
        print_mdoc_item(f, &o->items[i], what);
    if (what == OPTIONS_OF_KEYS)
        return;
    (void)fprintf(f, ".It Fl \\-config Ar FILE\n%s\n", o->file_help);
    for (size_t i = 0; i < o->n_actions; i++) {
        const char *arg = action_arg(o, &o->actions[i]);

        (void)fprintf(f, ".It Fl \\-%s%s%s\n", o->actions[i].name, arg[0] ? " Ar " : "", arg);
        print_sentences(f, o->actions[i].help);
    }
}
