/* ctl/ctl_attach.h - answers that another program of the same user can go on with.
 *
 * Errors     a negative errno of libgist.
 */
#ifndef CTL_CTL_ATTACH_H
#define CTL_CTL_ATTACH_H

#include "client/gist.h"
#include "ctl/ctl.h"

/* The session outlives this program; how to come back to it is said on standard error. prints: what
 * was read is printed at once. If not, the rest is not all that is missing. */
int ctl_attach_offer(gist_session *s, bool prints);

#endif
