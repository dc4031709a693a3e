/* daemon/landlock.h - the files that are left to the daemon; the one door to the kernel's Landlock.
 *
 * Whatever is not below one of the places is denied (EACCES), to root as well: reading, making,
 * removing, running. TCP is denied where the kernel can (Linux 6.7), unless it is asked for. What
 * is open stays open.
 *
 * Threads    landlock_limit before there are any others, or they are not covered.
 * Errors     -ENOSYS or -EOPNOTSUPP: the kernel has no Landlock, or it is off; or a negative errno.
 */
#ifndef DAEMON_LANDLOCK_H
#define DAEMON_LANDLOCK_H

#include <stdbool.h>
#include <stddef.h>

enum landlock_may {
    LANDLOCK_READ,   /* a file, or all below a folder */
    LANDLOCK_KEEP,   /* a folder whose files and folders are its own: all but running and devices */
    LANDLOCK_REMOVE, /* files in a folder, and no more */
    LANDLOCK_WRITE,  /* a file that is there, a device */
    LANDLOCK_RUN     /* a folder of libraries: read, and map as code */
};

struct landlock_place {
    const char *path; /* one that is not there is passed over */
    enum landlock_may may;
};

/* ret_abi (may be NULL): the kernel's version of Landlock. */
int landlock_limit(const struct landlock_place *places, size_t n, bool tcp, int *ret_abi);

#endif
