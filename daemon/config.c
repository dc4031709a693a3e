#include "daemon/config.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum kind { KIND_TEXT, KIND_SIZE, KIND_COUNT, KIND_CHOICE, KIND_YES, KIND_MODE };

struct option {
    const char *name;
    enum kind kind;
    const char *arg, *deflt;
    uint64_t min, max;
    const char *choices, *help;
    size_t off;
};

static const struct option options[] = {
#define OPTION(field, name, kind, arg, deflt, min, max, choices, help)                             \
    { name, KIND_##kind, arg, deflt, min, max, choices, help, offsetof(struct config, field) },
#include "daemon/options.def"
#undef OPTION
};
#define N_OPTIONS (sizeof(options) / sizeof(options[0]))

/* Flags that only a command line can have. */
static const struct {
    const char *name;
    enum config_action action;
    const char *help;
} actions[] = {
    { "check-config", CONFIG_CHECK, "Read all options, say what is wrong with them and end." },
    { "print-config", CONFIG_PRINT, "Print a config file with every option and its default." },
    { "help", CONFIG_HELP, "Print this text." },
    { "version", CONFIG_VERSION, "Print the version." },
};
#define N_ACTIONS (sizeof(actions) / sizeof(actions[0]))

#define CONFIG_FLAG_HELP "Read this config file instead of the default one."

/* --- one value -------------------------------------------------------------------------------- */

static const struct option *find_option(const char *name, size_t len)
{
    for (size_t i = 0; i < N_OPTIONS; i++)
        if (strlen(options[i].name) == len && memcmp(options[i].name, name, len) == 0)
            return &options[i];
    return NULL;
}

/* A number with an optional suffix of 1024, 1024^2...: "512M". False: not one, or past 64 bits. */
static bool parse_number(const char *s, int base, bool suffix, uint64_t *ret)
{
    static const char letters[] = "KMGT";
    unsigned shift = 0;
    char *end;
    uint64_t v;

    if (!isdigit((unsigned char)s[0])) /* strtoull takes spaces and signs, we don't */
        return false;
    errno = 0;
    v = strtoull(s, &end, base);
    if (errno)
        return false;
    if (suffix && *end) {
        const char *p = strchr(letters, toupper((unsigned char)*end));

        if (!p)
            return false;
        shift = 10u * (unsigned)(p - letters + 1);
        end++;
    }
    if (*end || (v << shift) >> shift != v)
        return false;
    *ret = v << shift;
    return true;
}

static bool parse_choice(const char *choices, const char *s, uint64_t *ret)
{
    size_t len = strlen(s);
    uint64_t i = 0;

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

static bool parse_yes(const char *s, uint64_t *ret)
{
    *ret = strcmp(s, "yes") == 0;
    return *ret || strcmp(s, "no") == 0;
}

/* "16 to 8192", for the sentence. */
static void format_size(uint64_t v, char *ret, size_t cap)
{
    static const char letters[] = "KMGT";
    int i = -1;

    while (v && v % 1024 == 0 && i < 3) {
        v /= 1024;
        i++;
    }
    (void)snprintf(ret, cap, "%llu%.*s", (unsigned long long)v, i >= 0, i >= 0 ? &letters[i] : "");
}

static void format_allowed(const struct option *o, char *ret, size_t cap)
{
    char min[32], max[32];

    switch (o->kind) {
    case KIND_TEXT:
        (void)snprintf(ret, cap, "at most %llu bytes", (unsigned long long)o->max);
        break;
    case KIND_CHOICE:
        (void)snprintf(ret, cap, "one of %s", o->choices);
        break;
    case KIND_YES:
        (void)snprintf(ret, cap, "yes or no");
        break;
    case KIND_MODE:
        (void)snprintf(ret, cap, "octal permission bits, 0 to 0777");
        break;
    case KIND_SIZE:
        format_size(o->min, min, sizeof(min));
        format_size(o->max, max, sizeof(max));
        if (o->max == INT64_MAX)
            (void)snprintf(ret, cap, "%s or more, in bytes or with K, M, G or T", min);
        else
            (void)snprintf(ret, cap, "%s to %s, in bytes or with K, M, G or T", min, max);
        break;
    case KIND_COUNT:
        (void)snprintf(ret, cap, "%llu to %llu", (unsigned long long)o->min,
                       (unsigned long long)o->max);
        break;
    }
}

static bool set_text(const struct option *o, char *field, const char *value)
{
    size_t len = strlen(value);

    if (len > o->max)
        return false;
    memcpy(field, value, len + 1);
    return true;
}

static bool set_number(const struct option *o, void *field, const char *value)
{
    uint64_t v;
    bool ok = false;

    switch (o->kind) {
    case KIND_SIZE:
        ok = parse_number(value, 10, true, &v);
        break;
    case KIND_COUNT:
        ok = parse_number(value, 10, false, &v);
        break;
    case KIND_MODE:
        ok = parse_number(value, 8, false, &v);
        break;
    case KIND_CHOICE:
        ok = parse_choice(o->choices, value, &v);
        break;
    case KIND_YES:
        ok = parse_yes(value, &v);
        break;
    case KIND_TEXT:
        break;
    }
    if (!ok)
        return false;
    if (o->kind != KIND_CHOICE && o->kind != KIND_YES && (v < o->min || v > o->max))
        return false;
    if (o->kind == KIND_SIZE)
        *(uint64_t *)field = v;
    else if (o->kind == KIND_YES)
        *(bool *)field = v != 0;
    else
        *(uint32_t *)field = (uint32_t)v;
    return true;
}

int config_set(struct config *c, const char *name, const char *value, const char *where,
               struct why *why)
{
    const struct option *o = find_option(name, strlen(name));
    char allowed[256];
    void *field;

    if (!o)
        return why_set(why, -EINVAL, "%s: there is no option \"%s\"; gistd --help lists them",
                       where, name);
    field = (char *)c + o->off;
    if (o->kind == KIND_TEXT ? set_text(o, field, value) : set_number(o, field, value))
        return 0;
    format_allowed(o, allowed, sizeof(allowed));
    return why_set(why, -EINVAL, "option %s, from %s: found \"%.100s\", allowed is %s", o->name,
                   where, value, allowed);
}

void config_defaults(struct config *c)
{
    struct why why = { "" };

    *c = (struct config){ .action = CONFIG_SERVE };
    for (size_t i = 0; i < N_OPTIONS; i++)
        (void)config_set(c, options[i].name, options[i].deflt, "default", &why);
}

const char *config_choice(const char *name, uint32_t value, char *ret, size_t cap)
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

/* --- file, environment, flags ------------------------------------------------------------------ */

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

static int load_line(struct config *c, char *line, const char *path, unsigned number,
                     struct why *why)
{
    char where[CONFIG_TEXT_MAX + 32], *key, *eq;

    (void)snprintf(where, sizeof(where), "%s:%u", path, number);
    key = trim(line);
    if (!*key || *key == '#')
        return 0;
    eq = strchr(key, '=');
    if (!eq)
        return why_set(why, -EINVAL, "%s: found \"%.100s\", expected key = value", where, key);
    *eq = '\0';
    return config_set(c, trim(key), trim(eq + 1), where, why);
}

static int load_file(struct config *c, const char *path, struct why *why)
{
    FILE *f = fopen(path, "re");
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    int r = 0;

    if (!f)
        return why_set(why, -errno, "config file %s: %s", path, strerror(errno));
    for (unsigned number = 1; r == 0 && (len = getline(&line, &cap, f)) >= 0; number++) {
        if (strlen(line) != (size_t)len)
            r = why_set(why, -EINVAL, "%s:%u: found a zero byte, expected text", path, number);
        else
            r = load_line(c, line, path, number, why);
    }
    if (r == 0 && ferror(f))
        r = why_set(why, -EIO, "config file %s: %s", path, strerror(errno));
    free(line);
    (void)fclose(f);
    (void)snprintf(c->file, sizeof(c->file), "%s", path);
    return r;
}

static const char *env_get(char *const *env, const char *name)
{
    size_t n = strlen(name);

    for (; env && *env; env++)
        if (strncmp(*env, name, n) == 0 && (*env)[n] == '=')
            return *env + n + 1;
    return NULL;
}

/* The default config file that is there, or an empty string. */
static void find_file(char *const *env, char *ret, size_t cap)
{
    const char *base = env_get(env, "XDG_CONFIG_HOME"), *home = env_get(env, "HOME");

    ret[0] = '\0';
    if (base && base[0] == '/')
        (void)snprintf(ret, cap, "%s/gistd/gistd.conf", base);
    else if (home && home[0] == '/')
        (void)snprintf(ret, cap, "%s/.config/gistd/gistd.conf", home);
    if (ret[0] && access(ret, F_OK) == 0)
        return;
    (void)snprintf(ret, cap, "/etc/gistd/gistd.conf");
    if (access(ret, F_OK) < 0)
        ret[0] = '\0';
}

static void env_name(const struct option *o, char ret[64])
{
    size_t n = (size_t)snprintf(ret, 64, "GISTD_%s", o->name);

    for (size_t i = 0; i < n; i++)
        ret[i] = ret[i] == '-' ? '_' : (char)toupper((unsigned char)ret[i]);
}

static int load_env(struct config *c, char *const *env, struct why *why)
{
    char name[64], where[96];
    int r = 0;

    for (size_t i = 0; r == 0 && i < N_OPTIONS; i++) {
        const char *value;

        env_name(&options[i], name);
        value = env_get(env, name);
        if (!value)
            continue;
        (void)snprintf(where, sizeof(where), "the environment variable %s", name);
        r = config_set(c, options[i].name, value, where, why);
    }
    return r;
}

/* One flag at argv[*i], `--name=value`, `--name value` or `--name` of a yes/no option. */
struct flag {
    const char *name;
    size_t len;
    const char *value;
};

static int flag_parse(int argc, char *const *argv, int *i, struct flag *ret, struct why *why)
{
    const char *a = argv[*i];
    const char *eq = strchr(a, '=');
    const char *next = *i + 1 < argc ? argv[*i + 1] : NULL;
    const struct option *o;
    uint64_t yes;

    if (strcmp(a, "-h") == 0)
        a = "--help";
    if (strncmp(a, "--", 2) != 0 || !a[2])
        return why_set(why, -EINVAL, "found \"%.100s\" on the command line, expected --OPTION", a);
    ret->name = a + 2;
    ret->len = eq ? (size_t)(eq - ret->name) : strlen(ret->name);
    ret->value = eq ? eq + 1 : NULL;
    for (size_t k = 0; k < N_ACTIONS; k++)
        if (strlen(actions[k].name) == ret->len &&
            strncmp(ret->name, actions[k].name, ret->len) == 0)
            return eq ? why_set(why, -EINVAL, "flag --%s takes no value", actions[k].name) : 0;
    o = find_option(ret->name, ret->len);
    if (!o && !(ret->len == 6 && strncmp(ret->name, "config", 6) == 0))
        return why_set(why, -EINVAL, "there is no flag \"%.100s\"; gistd --help lists them", a);
    if (ret->value)
        return 0;
    if (o && o->kind == KIND_YES && !(next && parse_yes(next, &yes))) {
        ret->value = "yes";
        return 0;
    }
    if (!next)
        return why_set(why, -EINVAL, "flag %s needs a value; gistd --help says which", a);
    ret->value = next;
    *i += 1;
    return 0;
}

static bool flag_is(const struct flag *f, const char *name)
{
    return strlen(name) == f->len && memcmp(name, f->name, f->len) == 0;
}

static int load_flags(struct config *c, int argc, char *const *argv, struct why *why)
{
    char name[64], where[80];

    for (int i = 1; i < argc; i++) {
        struct flag f;
        int r = flag_parse(argc, argv, &i, &f, why);

        if (r < 0)
            return r;
        if (!f.value || flag_is(&f, "config"))
            continue;
        (void)snprintf(name, sizeof(name), "%.*s", (int)f.len, f.name);
        (void)snprintf(where, sizeof(where), "the flag --%s", name);
        r = config_set(c, name, f.value, where, why);
        if (r < 0)
            return r;
    }
    return 0;
}

/* First pass: what the flags ask for, and the config file they name. */
static int scan_flags(struct config *c, int argc, char *const *argv, struct why *why)
{
    for (int i = 1; i < argc; i++) {
        struct flag f;
        int r = flag_parse(argc, argv, &i, &f, why);

        if (r < 0)
            return r;
        if (flag_is(&f, "config") &&
            (size_t)snprintf(c->file, sizeof(c->file), "%s", f.value) >= sizeof(c->file))
            return why_set(why, -EINVAL, "flag --config: found a path of %zu bytes, allowed are %d",
                           strlen(f.value), CONFIG_TEXT_MAX);
        for (size_t k = 0; k < N_ACTIONS; k++)
            if (flag_is(&f, actions[k].name) && c->action == CONFIG_SERVE)
                c->action = actions[k].action;
    }
    return 0;
}

/* What one option alone can't say. */
static int check_together(const struct config *c, struct why *why)
{
    if (c->segment % 16)
        return why_set(why, -EINVAL, "option segment: found %u, allowed is a multiple of 16",
                       c->segment);
    if (c->arena_bytes % 64 || c->max_arena_bytes % 64)
        return why_set(
            why, -EINVAL, "option %s: found %llu, allowed is a multiple of 64",
            c->arena_bytes % 64 ? "arena-bytes" : "max-arena-bytes",
            (unsigned long long)(c->arena_bytes % 64 ? c->arena_bytes : c->max_arena_bytes));
    if (c->arena_bytes > c->max_arena_bytes)
        return why_set(why, -EINVAL,
                       "option arena-bytes: found %llu, allowed is up to %llu, the "
                       "value of max-arena-bytes",
                       (unsigned long long)c->arena_bytes, (unsigned long long)c->max_arena_bytes);
    return 0;
}

int config_load(struct config *c, int argc, char *const *argv, char *const *env, struct why *why)
{
    char path[CONFIG_TEXT_MAX + 1];
    int r;

    config_defaults(c);
    r = scan_flags(c, argc, argv, why);
    if (r < 0 || c->action == CONFIG_HELP || c->action == CONFIG_VERSION ||
        c->action == CONFIG_PRINT)
        return r;
    (void)snprintf(path, sizeof(path), "%s", c->file);
    if (!path[0])
        find_file(env, path, sizeof(path));
    if (path[0])
        r = load_file(c, path, why);
    if (r == 0)
        r = load_env(c, env, why);
    if (r == 0)
        r = load_flags(c, argc, argv, why);
    return r < 0 ? r : check_together(c, why);
}

/* --- what is printed from the table ------------------------------------------------------------ */

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

static void print_flag(FILE *f, const char *name, const char *arg, const char *deflt,
                       const char *help)
{
    (void)fprintf(f, "  --%s%s%s", name, arg[0] ? " " : "", arg);
    if (deflt[0])
        (void)fprintf(f, "  (default %s)", deflt);
    (void)fputc('\n', f);
    print_wrapped(f, help, "        ", 88);
}

void config_print_help(FILE *f)
{
    (void)fputs("Usage: gistd --model FILE [--OPTION VALUE]...\n"
                "Serves a language model to local programs over shared memory.\n\n",
                f);
    for (size_t i = 0; i < N_OPTIONS; i++) {
        const struct option *o = &options[i];

        print_flag(f, o->name, o->kind == KIND_CHOICE ? o->choices : o->arg, o->deflt, o->help);
    }
    print_flag(f, "config", "FILE", "", CONFIG_FLAG_HELP);
    for (size_t i = 0; i < N_ACTIONS; i++)
        print_flag(f, actions[i].name, "", "", actions[i].help);
    (void)fputs("\nEvery option is also a key of the config file (key = value) and an environment\n"
                "variable (--kv-bytes: GISTD_KV_BYTES). A flag comes before the environment, the\n"
                "environment before the file. SIZE is in bytes or with K, M, G or T.\n"
                "Ask the daemon with gistctl; see gistd(8), gistd.conf(5).\n",
                f);
}

void config_print_example(FILE *f)
{
    (void)fputs(
        "# gistd.conf - options of gistd(8), one `key = value` a line. Each is shown with its\n"
        "# default. The environment (GISTD_KV_BYTES) and flags (--kv-bytes) come before this.\n",
        f);
    for (size_t i = 0; i < N_OPTIONS; i++) {
        char allowed[256];

        (void)fputc('\n', f);
        print_wrapped(f, options[i].help, "# ", 96);
        format_allowed(&options[i], allowed, sizeof(allowed));
        (void)fprintf(f, "# Allowed: %s.\n#%s =%s%s\n", allowed, options[i].name,
                      options[i].deflt[0] ? " " : "", options[i].deflt);
    }
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

void config_print_mdoc(FILE *f, bool flags)
{
    for (size_t i = 0; i < N_OPTIONS; i++) {
        const struct option *o = &options[i];
        char allowed[256];

        if (flags)
            (void)fprintf(f, ".It Fl \\-%s Ar %s\n", o->name,
                          o->kind == KIND_CHOICE ? o->choices : o->arg);
        else
            (void)fprintf(f, ".It Ic %s\n", o->name);
        print_sentences(f, o->help);
        format_allowed(o, allowed, sizeof(allowed));
        if (!flags)
            (void)fprintf(f, "Allowed: %s.\n", allowed);
        if (o->deflt[0])
            (void)fprintf(f, "The default is %s.\n", o->deflt);
    }
    if (!flags)
        return;
    (void)fprintf(f, ".It Fl \\-config Ar FILE\n%s\n", CONFIG_FLAG_HELP);
    for (size_t i = 0; i < N_ACTIONS; i++)
        (void)fprintf(f, ".It Fl \\-%s\n%s\n", actions[i].name, actions[i].help);
}
