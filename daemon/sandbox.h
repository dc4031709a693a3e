/* daemon/sandbox.h - what a daemon that was taken over could still do: next to nothing.
 *
 * What it reads comes from others: models, adapters, frames, the store's files. So before the first
 * byte of them is read, everything is given up that serving does not need:
 *
 *     system calls   by a list (daemon/calls.h)
 *     files          the model and adapters, /proc, /sys: read; the store and packed weights: kept;
 *                    the sockets: removed at the end (daemon/landlock.h)
 *     privileges     none to be gained by running something (no_new_privs)
 *
 * Its socket is open by then, and the log: they need no file any more.
 *
 * Threads    sandbox_enter before there are any others.
 * Errors     -EPERM: `sandbox yes`, and the kernel can't; why has the sentence.
 */
#ifndef DAEMON_SANDBOX_H
#define DAEMON_SANDBOX_H

#include "daemon/config.h"

struct listener;
struct scrape;

/* l, s: whose files are removed at the end. */
int sandbox_enter(const struct config *c, const struct listener *l, const struct scrape *s,
                  struct why *why);

#endif
