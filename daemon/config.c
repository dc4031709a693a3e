/* One table, options.def, from which all is made: the struct, the parser, help, the example and the
 * man page. */
#include "daemon/config.h"

#include "daemon/draft.h"
#include "engine/devices.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

static const struct options_item items[] = {
#define OPTION(...) OPTIONS_ITEM(struct config, __VA_ARGS__),
#include "daemon/options.def"
#undef OPTION
};

/* Flags that only a command line can have. */
static const struct options_action actions[] = {
    { "check-config", CONFIG_CHECK, "Validate the options and exit.", NULL },
    { "plan", CONFIG_PLAN,
      "Say what of this model and of its context fits where, and exit. Only the header of the GGUF "
      "file is read. See plan-memory, plan-context and plan-ratio.",
      "model" },
    { "print-config", CONFIG_PRINT,
      "Print a config file with every option and its default, and exit.", NULL },
    { "help", CONFIG_HELP, "Print this help and exit.", NULL },
    { "version", CONFIG_VERSION, "Print the version and exit.", NULL },
};

static const struct options options = {
    .program = "gistd",
    .file_word = "config file",
    .file_help = "Read this config file instead of the default one.",
    .items = items,
    .n_items = sizeof(items) / sizeof(items[0]),
    .actions = actions,
    .n_actions = sizeof(actions) / sizeof(actions[0]),
};

int config_set(struct config *c, const char *name, const char *value, const char *where,
               struct why *why)
{
    return options_set(&options, c, name, value, where, why);
}

void config_defaults(struct config *c)
{
    memset(c, 0, sizeof(*c)); /* padding too: configurations are compared as bytes in tests */
    options_set_defaults(&options, c);
}

const char *config_choice(const char *name, uint32_t value, char *ret, size_t cap)
{
    return options_choice(&options, name, value, ret, cap);
}

/* A word or a size, so the table has it as text. */
int config_host_bytes(const struct config *c, uint64_t *ret, struct why *why)
{
    *ret = 0;
    if (strcmp(c->host_bytes, "none") == 0)
        return 0;
    *ret = CONFIG_HOST_AUTO;
    if (strcmp(c->host_bytes, "auto") == 0 || options_read_size(c->host_bytes, ret))
        return 0;
    return why_set(
        why, -EINVAL,
        "option host-bytes: found \"%s\", expected auto, none or a size, in bytes or with "
        "K, M, G or T",
        c->host_bytes);
}

/* --- file and environment --------------------------------------------------------------------- */

/* The environment that was handed over, and not getenv: tests have their own. */
static const char *env_get(char *const *env, const char *name)
{
    size_t n = strlen(name);

    for (; env && *env; env++)
        if (strncmp(*env, name, n) == 0 && (*env)[n] == '=')
            return *env + n + 1;
    return NULL;
}

/* kv-bytes: GISTD_KV_BYTES. */
static void env_name(const char *option, char ret[64])
{
    size_t n = (size_t)snprintf(ret, 64, "GISTD_%s", option);

    for (size_t i = 0; i < n; i++)
        ret[i] = ret[i] == '-' ? '_' : (char)toupper((unsigned char)ret[i]);
}

static int load_env(struct config *c, char *const *env, struct why *why)
{
    char name[64], where[96];
    int r = 0;

    for (size_t i = 0; r == 0 && i < options.n_items; i++) {
        const char *value;

        env_name(items[i].name, name);
        value = env_get(env, name);
        if (!value)
            continue;
        (void)snprintf(where, sizeof(where), "the environment variable %s", name);
        r = config_set(c, items[i].name, value, where, why);
    }
    return r;
}

/* What one option alone can't say. */
static int check_together(const struct config *c, struct why *why)
{
    int r = devices_check(c->device, why);
    struct why draft = { "" };
    uint64_t host;
    uint32_t n;

    if (r == 0)
        r = config_host_bytes(c, &host, why);
    if (r < 0)
        return r;
    r = draft_read(c->draft, &n, &draft);
    if (r < 0)
        return why_set(why, r, "option draft: %.200s", draft.text);
    /* Pages have 16 tokens, and an arena's spans begin at 64 bytes. */
    if (c->segment % 16)
        return why_set(why, -EINVAL, "option segment: found %u, expected a multiple of 16",
                       c->segment);
    if (c->arena_bytes % 64 || c->max_arena_bytes % 64)
        return why_set(
            why, -EINVAL, "option %s: found %llu, expected a multiple of 64",
            c->arena_bytes % 64 ? "arena-bytes" : "max-arena-bytes",
            (unsigned long long)(c->arena_bytes % 64 ? c->arena_bytes : c->max_arena_bytes));
    if (c->arena_bytes > c->max_arena_bytes)
        return why_set(why, -EINVAL,
                       "option arena-bytes: found %llu, expected at most %llu, the "
                       "value of max-arena-bytes",
                       (unsigned long long)c->arena_bytes, (unsigned long long)c->max_arena_bytes);
    return 0;
}

/* Flags are scanned twice: first for what names the file, or needs none of it (--help), then over
 * what file and environment say. */
int config_load(struct config *c, int argc, char *const *argv, char *const *env, struct why *why)
{
    int r, action = CONFIG_SERVE;

    config_defaults(c);
    r = options_scan_flags(&options, argc, argv, &action, c->file, why);
    c->action = (enum config_action)action;
    if (r < 0 || c->action == CONFIG_HELP || c->action == CONFIG_VERSION ||
        c->action == CONFIG_PRINT)
        return r;
    if (!c->file[0])
        options_find_file(env_get(env, "XDG_CONFIG_HOME"), env_get(env, "HOME"), "gistd.conf",
                          c->file);
    if (c->file[0])
        r = options_load_file(&options, c, c->file, why);
    if (r == 0)
        r = load_env(c, env, why);
    if (r == 0)
        r = options_load_flags(&options, c, argc, argv, why);
    return r < 0 ? r : check_together(c, why);
}

/* --- what is printed from the table ----------------------------------------------------------- */

void config_print_help(FILE *f)
{
    (void)fputs("Usage: gistd --model FILE [--OPTION VALUE]...\n"
                "Serves a language model to local programs over shared memory.\n\n",
                f);
    options_print_help(&options, f);
    (void)fputs("\nEvery option is also a key of the config file (key = value) and an environment\n"
                "variable (--kv-bytes: GISTD_KV_BYTES). Flags override the environment, which\n"
                "overrides the file. SIZE is in bytes, or with K, M, G or T.\n"
                "Talk to the daemon with gistctl. See gistd(8) and gistd.conf(5).\n",
                f);
}

void config_print_example(FILE *f)
{
    (void)fputs(
        "# gistd.conf - options of gistd(8), one `key = value` per line. Each is shown with its\n"
        "# default. The environment (GISTD_KV_BYTES) and flags (--kv-bytes) override this file.\n",
        f);
    options_print_example(&options, f);
}

void config_print_mdoc(FILE *f, bool flags)
{
    options_print_mdoc(&options, f, flags ? OPTIONS_OF_FLAGS : OPTIONS_OF_KEYS);
}
