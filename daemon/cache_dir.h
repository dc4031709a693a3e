/* daemon/cache_dir.h - where a daemon keeps what it could make anew.
 *
 * $CACHE_DIRECTORY (systemd's CacheDirectory=), else gistd in $XDG_CACHE_HOME, else ~/.cache/gistd.
 *
 * Threads    at start, before others change the environment.
 */
#ifndef DAEMON_CACHE_DIR_H
#define DAEMON_CACHE_DIR_H

#include "base/options.h"

#include <stdbool.h>

#define CACHE_DIR_MAX (OPTIONS_TEXT_MAX + 64)

/* The folder `leaf` of it; nothing is made. False: the environment names none. */
bool cache_dir(const char *leaf, char ret[CACHE_DIR_MAX]);

#endif
