/* ctl/ctl_tool.h - the programs that belong to gistctl: gistd, and the script that fetches models.
 *
 * They are looked for where this program lies: in the same folder, in ../lib/gistd of an
 * installation, in scripts/ of the source tree; gistd then in $PATH.
 *
 * Errors     -errno; -ENOENT: there is none.
 */
#ifndef CTL_CTL_TOOL_H
#define CTL_CTL_TOOL_H

#include "ctl/ctl.h"

#include <limits.h>

int ctl_tool_gistd(char ret[PATH_MAX]);
int ctl_tool_no_gistd(void); /* says so: CTL_FAILED */
int ctl_tool_fetch(char ret[PATH_MAX]);
int ctl_tool_list(char ret[PATH_MAX]); /* of models: scripts/models */

/* Runs argv[0] to its end, without standard input. out and err take what it prints; NULL: it goes
 * where ours goes. *ret_code: its exit code, 128 + n behind a signal n. */
int ctl_tool_run(char *const *argv, struct ctl_text *out, struct ctl_text *err, int *ret_code);

/* Where a user's files of this project lie: $NAME/gistd, else ~/FALLBACK/gistd. -ENOENT: neither
 * variable is set. */
int ctl_tool_folder(const char *name, const char *fallback, char ret[PATH_MAX]);

#endif
