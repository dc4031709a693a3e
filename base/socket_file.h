/* base/socket_file.h - the file of a Unix socket, in the place of one that nobody answers at.
 *
 * A path has at most 107 bytes, as sun_path has with its NUL; type is SOCK_STREAM, SOCK_SEQPACKET
 * or, to connect to, SOCK_DGRAM.
 *
 * Threads    socket_file_bind changes the process's umask for a moment: before there are others.
 * Errors     -EEXIST (no socket), -EADDRINUSE (somebody answers there), or the errno; why has the
 *            sentence, but for -EADDRINUSE: whose that is the caller knows.
 */
#ifndef BASE_SOCKET_FILE_H
#define BASE_SOCKET_FILE_H

#include "base/why.h"

#include <sys/types.h>

/* For listen(): how many peers may wait to be accepted, since a machine's programs may all start at
 * once. Where the queue is full, connect() waits, or fails with EAGAIN if it must not. No more than
 * kernels before 5.4 allow. */
#define SOCKET_BACKLOG 128

/* Removes what an earlier daemon left there, and nothing else: a socket of another type is
 * somebody's. option: which names the path. *ret_pid: who answers, behind -EADDRINUSE; 0: that is
 * not known. */
int socket_file_clear(const char *path, int type, const char *option, pid_t *ret_pid,
                      struct why *why);

/* A descriptor, which does not listen yet. Nobody may connect until the file gets a mode. */
int socket_file_bind(const char *path, int type, struct why *why);

/* Of somebody else's, which may have any path: a descriptor that does not block; -ENAMETOOLONG, or
 * the errno. */
int socket_file_connect(const char *path, int type);

#endif
