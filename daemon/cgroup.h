/* daemon/cgroup.h - which systemd unit a peer is of, by the control group of its process.
 *
 * The unit is the last part of the path in cgroup v2 that is named as systemd names units which
 * have processes: `app-firefox-1234.scope`, `session-3.scope`, `nightly.service`. What lies below
 * it is the unit's own business. There is none, "", where that says no more than the user does
 * (`user@1000.service`), and where there is no such part, or no cgroup v2.
 *
 * A path is text of whoever could make a folder there. A name that is given here has the letters of
 * a unit's, digits and `:-_.\@`, and is as long as a file's may be.
 *
 * The process is known by its number (SO_PEERCRED), which another one may have when /proc is read.
 * Where the kernel has SO_PEERPIDFD (Linux 6.5) that is found out for certain: the peer still runs
 * when its file has been read. Else who has the number now must have begun before the connection
 * was taken: numbers go round, but not while a connection waits for that.
 *
 * Threads    any; no state.
 * Errors     -ESRCH: the process has ended, or is another one. Else /proc could not be read:
 *            -ENOENT where other users' processes are hidden (hidepid, ProtectProc=), -EACCES,
 *            -EPROTO: it is none that we know, -E2BIG, -errno.
 */
#ifndef DAEMON_CGROUP_H
#define DAEMON_CGROUP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CGROUP_UNIT_MAX 255u

struct cgroup_unit {
    char name[CGROUP_UNIT_MAX + 1];
};

/* Time as processes' beginnings are counted, also in sleep. */
uint64_t cgroup_clock_ns(void);

/* Of the peer of a socket, whose connection was taken at that time. root: "", or where a test has
 * its /proc. */
int cgroup_of_peer(const char *root, int sock, pid_t pid, uint64_t by_ns, struct cgroup_unit *ret);

/* Of the process of this number; pidfd: its own, or -1, and then by_ns says when it was there. */
int cgroup_of_process(const char *root, pid_t pid, int pidfd, uint64_t by_ns,
                      struct cgroup_unit *ret);

/* What a /proc/PID/cgroup says. */
void cgroup_parse(const char *text, size_t len, struct cgroup_unit *ret);

#endif
