/* daemon/listener.h - the listening socket: made here, or handed over by the service manager.
 *
 * A socket file outlives a daemon that was killed, so what is found at the path has to be judged.
 * PATH.lock is held (flock) as long as a daemon serves the path; the file itself stays for ever,
 * since removing it would let two daemons hold two locks of one name.
 *
 *     another daemon holds the lock, or answers at the path   -> refused, with its pid
 *     a socket that nobody answers at                          -> replaced
 *     anything that is not a socket                            -> refused and left alone
 *
 * Threads    one.
 * Ownership  open/close. close removes the socket file, but not one that was handed over.
 * Errors     -EADDRINUSE (another daemon), -EEXIST (not a socket), or the errno; why has the
 *            sentence.
 */
#ifndef DAEMON_LISTENER_H
#define DAEMON_LISTENER_H

#include "daemon/config.h"

#include <stdbool.h>

struct listener {
    int fd, lock;
    bool made;                        /* by us: the file is ours to remove */
    bool shared;                      /* its mode lets in users other than its owner */
    char path[CONFIG_SOCKET_MAX + 1]; /* empty: handed over, of unknown name */
};

int listener_open(struct listener *l, const struct config *c, struct why *why);
void listener_close(struct listener *l);

#endif
