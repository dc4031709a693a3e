/* daemon/pressure.h - hears from the kernel or from the service manager that memory is short.
 *
 * As systemd's "Memory Pressure Handling" has it: MEMORY_PRESSURE_WATCH names a file of the
 * kernel's (pressure stall information), to which MEMORY_PRESSURE_WRITE, in base64, is written, or
 * a FIFO, or a socket. Without it our own cgroup's memory.pressure is asked, and where that is not
 * ours to write to, the machine's: told of every two seconds in which tasks waited for memory for
 * 0.2 s. A window of 2 s is one that users without privileges may have.
 *
 * Opened before the sandbox, since none of these is a file of gistd's.
 *
 * Threads    the control thread's, but for open and close.
 * Errors     none: without it nothing is given back early, and a line of the log says why.
 */
#ifndef DAEMON_PRESSURE_H
#define DAEMON_PRESSURE_H

#include "daemon/config.h"

/* Memory is given back once in so long, at most. */
#define PRESSURE_NS UINT64_C(5000000000)

struct pressure {
    int fd;          /* -1: nobody tells */
    uint32_t events; /* of epoll, that mean it: EPOLLPRI of a file, EPOLLIN of the others */
    uint64_t next_ns;
};

/* root: "" for the real /proc and /sys/fs/cgroup, a folder with files of these names in tests. */
void pressure_open(struct pressure *p, const struct config *c, const char *root);
void pressure_close(struct pressure *p);

/* It was told of: whether to do something, at `now` of clock_ns. gone: whoever tells is no longer
 * there, and the descriptor is to be left alone. */
bool pressure_take(struct pressure *p, uint32_t events, uint64_t now, bool *ret_gone);

#endif
