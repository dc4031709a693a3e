/* dbus/conf.c - the options of gist-dbus, by base/options. No file is looked for: what it does
 * hardly needs one. */

#include "dbus/conf.h"

#include <string.h>

static const struct options_item items[] = {
#define OPTION(...) OPTIONS_ITEM(struct conf, __VA_ARGS__),
#include "dbus/options.def"
#undef OPTION
};

static const struct options_action actions[] = {
    { "help", CONF_HELP, "Print this help and exit.", NULL },
    { "version", CONF_VERSION, "Print the version and exit.", NULL },
};

static const struct options options = {
    .program = "gist-dbus",
    .file_word = "config file",
    .file_help = "Read this config file; without it there is none.",
    .items = items,
    .n_items = sizeof(items) / sizeof(items[0]),
    .actions = actions,
    .n_actions = sizeof(actions) / sizeof(actions[0]),
};

int conf_load(struct conf *c, int argc, char *const *argv, struct why *why)
{
    char file[OPTIONS_TEXT_MAX + 1] = "";
    int r, action = CONF_SERVE;

    memset(c, 0, sizeof(*c));
    options_set_defaults(&options, c);
    r = options_scan_flags(&options, argc, argv, &action, file, why);
    c->action = (enum conf_action)action;
    if (r < 0 || c->action != CONF_SERVE)
        return r;
    if (file[0])
        r = options_load_file(&options, c, file, why);
    return r < 0 ? r : options_load_flags(&options, c, argc, argv, why);
}

void conf_print_help(FILE *f)
{
    (void)fputs("Usage: gist-dbus [--OPTION VALUE]...\n"
                "Tells who uses a running gistd on D-Bus, as org.gistd.Manager1.\n\n",
                f);
    options_print_help(&options, f);
    (void)fputs(
        "\nEvery option is also a key of the config file (key = value); flags override it.\n"
        "See gist-dbus(1).\n",
        f);
}
