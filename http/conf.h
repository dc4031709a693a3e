/* http/conf.h - the options of gist-http, gathered once at start.
 *
 * A flag comes before the config file, the file before the default. The table is http/options.def.
 * Without --config the file is $XDG_CONFIG_HOME/gistd/gist-http.conf (~/.config when that is not
 * set) if it is there, else /etc/gistd/gist-http.conf if that is there.
 *
 * Ownership  a plain struct, no pointers.
 * Errors     -EINVAL (a bad value or flag), or the errno of the config file; why has a sentence.
 */
#ifndef HTTP_CONF_H
#define HTTP_CONF_H

#include "base/options.h"

#define CONF_UNIX_MAX 107 /* sun_path with its NUL */
#define CONF_LIVE_MAX 256 /* sessions that stay open */

enum conf_action { CONF_SERVE, CONF_CHECK, CONF_PRINT, CONF_HELP, CONF_VERSION };

struct conf {
#define OPTION(field, name, kind, ...) OPTIONS_FIELD_##kind(field)
#include "http/options.def"
#undef OPTION
    enum conf_action action;
    char file[OPTIONS_TEXT_MAX + 1]; /* the config file that was read; empty: none */
};

int conf_load(struct conf *c, int argc, char *const *argv, struct why *why);

/* The next of a list with commas: from *at on, without spaces; false at its end. */
bool conf_next(const char **at, char *ret, size_t cap);

void conf_print_help(FILE *f);
void conf_print_example(FILE *f); /* a config file: every option, commented out */
void conf_print_mdoc(FILE *f);    /* the list of the man page */

#endif
