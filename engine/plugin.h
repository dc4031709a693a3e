/* engine/plugin.h - a backend in a library of its own, which is loaded when it is asked for.
 *
 * One gistd runs everywhere: what a device needs (a driver, CUDA's libraries) is the library's
 * business, and where that is missing a sentence says so. The library has one symbol that counts,
 * PLUGIN_ENTRY, a function without arguments that returns its struct backend_ops. Looked for is
 * beside the program, and where `make install` puts it:
 *
 *     build/release/gistd     build/release/NAME
 *     PREFIX/bin/gistd        PREFIX/lib/gistd/NAME
 *
 * Never along LD_LIBRARY_PATH or in the current folder: a daemon does not run what lies around
 * there.
 *
 * Threads    any. A library that was loaded stays until the process ends.
 * Errors     -ENOENT (there is no such library), -ELIBACC (it can't be loaded: something that it
 *            needs is missing), -ELIBBAD (another version of gistd's, or none of its plug-ins).
 */
#ifndef ENGINE_PLUGIN_H
#define ENGINE_PLUGIN_H

#include "engine/backend.h"

#define PLUGIN_ENTRY "gistd_backend"

typedef const struct backend_ops *plugin_entry(void);

/* name: "libgistd-cuda.so". help: what brings the library here, a part of a sentence. */
int plugin_find(const char *name, const char *help, const struct backend_ops **ret,
                struct why *why);
/* Another table of such a library, by its entry; whether it is of our version is not asked. */
int plugin_find_entry(const char *name, const char *entry, const char *help, const void **ret,
                      struct why *why);
int plugin_load_entry(const char *path, const char *entry, const void **ret, struct why *why);
/* By its path. */
int plugin_load(const char *path, const struct backend_ops **ret, struct why *why);

/* A table of our version, with all that has to be in it: 0, or -ELIBBAD. */
int plugin_check(const struct backend_ops *ops, struct why *why);

#endif
