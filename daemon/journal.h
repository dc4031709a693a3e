/* daemon/journal.h - lines of the log for journald, with fields of their own.
 *
 * Its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): one datagram a line, NAME=value and a
 * newline for each field; a value has no newline in it. What is trusted of the sender (_PID, _UID,
 * _SYSTEMD_UNIT) the journal adds itself.
 *
 *     MESSAGE, PRIORITY, SYSLOG_IDENTIFIER     every line
 *     MESSAGE_ID                               of daemon/messages.def
 *     GISTD_CLIENT, GISTD_CLIENT_PID,          the client that it is about, which the kernel named,
 *     GISTD_UID, GISTD_CLIENT_NAME             and how it calls itself
 *     GISTD_REQUEST                            and the request
 *
 * Threads    any; no state but the socket.
 * Errors     -errno. Never waits: a journal that does not read is no reason to stop serving.
 */
#ifndef DAEMON_JOURNAL_H
#define DAEMON_JOURNAL_H

#include <stdint.h>
#include <sys/types.h>

#define JOURNAL_SOCKET "/run/systemd/journal/socket"

enum journal_message {
    JOURNAL_NO_MESSAGE,
#define MESSAGE(name, id, text) JOURNAL_##name,
#include "daemon/messages.def"
#undef MESSAGE
    JOURNAL_MESSAGE__N
};

/* What a line is about. All zero: nothing in particular. */
struct journal_about {
    enum journal_message message;
    uint64_t client;  /* 0: none, or not one yet */
    pid_t pid;        /* 0: nobody knows, or it is about nobody */
    uid_t uid;        /* with pid */
    const char *name; /* may be NULL */
    uint64_t request; /* 0: none */
};

/* A descriptor for journal_send. */
int journal_open(const char *path);

/* text: a line, without the newline. priority: as of syslog(3). about may be NULL. */
int journal_send(int fd, int priority, const struct journal_about *about, const char *text,
                 size_t n);

#endif
