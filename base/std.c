#include "base/std.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

void std_open(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) >= 0)
            continue;
        /* The lowest free number is fd: those below are taken. No O_CLOEXEC: a program that this
         * one starts wants them as much. Where there is no /dev, a descriptor that only names a
         * folder refuses reads and writes too. */
        if (open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0)
            (void)!open("/", O_PATH);
    }
}

/* What std_open has put there can't be read, and so tells of itself. */
bool std_in_is_readable(void)
{
    int flags = fcntl(STDIN_FILENO, F_GETFL);

    return flags >= 0 && !(flags & O_PATH) && (flags & O_ACCMODE) != O_WRONLY;
}

/* Why writes to standard output fail, when the stream only remembers that one did. */
static int find_error(void)
{
    struct pollfd p = { .fd = STDOUT_FILENO, .events = POLLOUT };

    /* Nothing is written, but a descriptor that takes nothing says so. */
    if (write(STDOUT_FILENO, "", 0) < 0)
        return -errno;
    return poll(&p, 1, 0) == 1 && (p.revents & POLLERR) ? -EPIPE : -EIO;
}

int std_flush(void)
{
    if (fflush(stdout) != 0)
        return -errno;
    return ferror(stdout) ? find_error() : 0;
}
