/* dbus/conf.h - the options of gist-dbus, gathered once at start: flags, and a file that --config
 * names.
 *
 * Ownership  a plain struct, no pointers.
 * Errors     -EINVAL (a bad value or flag), or the errno of the file; why has a sentence.
 */
#ifndef DBUS_CONF_H
#define DBUS_CONF_H

#include "base/options.h"

enum conf_action { CONF_SERVE, CONF_HELP, CONF_VERSION };
enum conf_bus { CONF_BUS_AUTO, CONF_BUS_USER, CONF_BUS_SYSTEM };

struct conf {
#define OPTION(field, name, kind, ...) OPTIONS_FIELD_##kind(field)
#include "dbus/options.def"
#undef OPTION
    enum conf_action action;
};

int conf_load(struct conf *c, int argc, char *const *argv, struct why *why);
void conf_print_help(FILE *f);

#endif
