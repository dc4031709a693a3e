/* ctl/ctl_conf.h - the model that gistd.conf(5) names: read, and set in the user's own file.
 *
 * Errors     exit codes of ctl.h, behind a sentence.
 */
#ifndef CTL_CTL_CONF_H
#define CTL_CTL_CONF_H

#include "base/options.h"

/* What a daemon would take that is started without --model: of the environment, else of the file
 * that it would read. Empty: none. */
int ctl_conf_model(char ret[OPTIONS_TEXT_MAX + 1]);

/* Writes it into $XDG_CONFIG_HOME/gistd/gistd.conf, whole or not at all; all else in the file stays
 * as it is. ret: the file. */
int ctl_conf_set_model(const char *path, char ret[OPTIONS_TEXT_MAX + 1]);

#endif
