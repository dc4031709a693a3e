/* ctl/ctl_named.h - what `gistctl doc` and `gistctl session` have in common.
 */
#ifndef CTL_CTL_NAMED_H
#define CTL_CTL_NAMED_H

#include "ctl/ctl.h"

/* Whole commands: argv[0] is "doc ls" and so on. */
int ctl_named_ls(enum gist_named kind, int argc, char **argv);
int ctl_named_rm(enum gist_named kind, int argc, char **argv);

#endif
