/* ctl/ctl_named.h - what `gistctl doc` and `gistctl session` have in common.
 */
#ifndef CTL_CTL_NAMED_H
#define CTL_CTL_NAMED_H

#include "ctl/ctl.h"

/* Whole commands: argv[0] is "doc ls" and so on. */
int ctl_named_ls(enum gist_named kind, int argc, char **argv);
int ctl_named_rm(enum gist_named kind, int argc, char **argv);

/* As ctl_fail_gist; when there is no such name a second line says what lists them. */
int ctl_named_fail(const gist_conn *c, enum gist_named kind, int err);

#endif
