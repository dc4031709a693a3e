/* http/conf.c - the options of gist-http, by base/options, and lists in their values. */

#include "http/conf.h"

#include <stdlib.h>
#include <string.h>

static const struct options_item items[] = {
#define OPTION(...) OPTIONS_ITEM(struct conf, __VA_ARGS__),
#include "http/options.def"
#undef OPTION
};

static const struct options_action actions[] = {
    { "check-config", CONF_CHECK, "Validate the options and exit.", NULL },
    { "print-config", CONF_PRINT,
      "Print a config file with every option and its default, and exit.", NULL },
    { "help", CONF_HELP, "Print this help and exit.", NULL },
    { "version", CONF_VERSION, "Print the version and exit.", NULL },
};

static const struct options options = {
    .program = "gist-http",
    .file_word = "config file",
    .file_help = "Read this config file instead of the default one.",
    .items = items,
    .n_items = sizeof(items) / sizeof(items[0]),
    .actions = actions,
    .n_actions = sizeof(actions) / sizeof(actions[0]),
};

int conf_load(struct conf *c, int argc, char *const *argv, struct why *why)
{
    int r, action = CONF_SERVE;

    memset(c, 0, sizeof(*c));
    options_set_defaults(&options, c);
    r = options_scan_flags(&options, argc, argv, &action, c->file, why);
    c->action = (enum conf_action)action;
    /* Who wants help gets it, however broken the file is. A check reads it. */
    if (r < 0 || c->action >= CONF_PRINT)
        return r;
    if (!c->file[0])
        options_find_file(getenv("XDG_CONFIG_HOME"), getenv("HOME"), "gist-http.conf", c->file);
    if (c->file[0])
        r = options_load_file(&options, c, c->file, why);
    return r < 0 ? r : options_load_flags(&options, c, argc, argv, why);
}

/* Words between commas or spaces. One that is too long is cut: no name of a host is. */
bool conf_next(const char **at, char *ret, size_t cap)
{
    const char *p = *at + strspn(*at, ", ");
    size_t n = strcspn(p, ", ");

    *at = p + n;
    if (n == 0)
        return false;
    n = n < cap ? n : cap - 1;
    memcpy(ret, p, n);
    ret[n] = '\0';
    return true;
}

void conf_print_help(FILE *f)
{
    (void)fputs("Usage: gist-http [--OPTION VALUE]...\n"
                "Serves a running gistd over HTTP, to programs made for OpenAI's, Anthropic's or\n"
                "Ollama's API.\n\n",
                f);
    options_print_help(&options, f);
    (void)fputs(
        "\nEvery option is also a key of the config file (key = value); flags override it.\n"
        "See gist-http(1).\n",
        f);
}

void conf_print_example(FILE *f)
{
    (void)fputs(
        "# gist-http.conf - options of gist-http(1), one `key = value` per line. Each is shown\n"
        "# with its default. Flags (--max-body) override this file.\n",
        f);
    options_print_example(&options, f);
}

void conf_print_mdoc(FILE *f)
{
    options_print_mdoc(&options, f, OPTIONS_OF_FLAGS_AND_NUMBERS);
}
