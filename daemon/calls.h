/* daemon/calls.h - the system calls that are left to the daemon; the one door to libseccomp.
 *
 * The lists are daemon/calls.def, a filter of the kernel's, for every thread that is there or will
 * be.
 *
 *     on the list                    done
 *     a twin of one, not known yet   ENOSYS: the C library does without
 *     anything else                  EPERM, and one line in the log that names the call
 *     what an intruder would call    the same line, and SIGSYS ends the process
 *
 * EPERM and not the end for what is merely not listed: another version of a library may call
 * something that nobody thought of, and everybody's sessions are worth more than the purity of the
 * list. What starts programs, changes users or reaches into other processes is called by no version
 * of anything that is linked here: whoever calls it runs foreign code, and there is nothing left to
 * protect.
 *
 * With a GPU its driver's calls are not ours to list: then all is allowed but the last kind. So it
 * is under a sanitizer.
 *
 * Threads    calls_limit before there are any others, or they are not covered.
 * Errors     a negative errno: the kernel has no filters, or they are denied.
 */
#ifndef DAEMON_CALLS_H
#define DAEMON_CALLS_H

#include <stdbool.h>

/* driver: of a GPU, which is to be loaded. ret_n: calls that are on the list; 0: there is none. */
int calls_limit(bool driver, unsigned *ret_n);

#endif
