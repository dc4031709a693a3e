/* daemon/notify.h - what the service manager is told, and the socket it may hand over.
 *
 * The one door to libsystemd. Without a service manager all of it does nothing.
 *
 * Threads    any; notify_take_socket and notify_take_kept: before there is a second one.
 */
#ifndef DAEMON_NOTIFY_H
#define DAEMON_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>

void notify_loading(unsigned percent); /* STATUS=, when the number changed */
void notify_ready(const char *status);
void notify_status(const char *status);
void notify_stopping(void);
void notify_saving(unsigned n); /* STATUS=: segments that are to be written before the end */
void notify_watchdog(void);

/* Nanoseconds between two signs of life that the manager asks for; 0: none. */
uint64_t notify_watchdog_ns(void);

/* A listening Unix SEQPACKET socket that was handed over: its descriptor; -ENOENT: none; -EINVAL:
 * something else was, beside what notify_take_kept finds. */
int notify_take_socket(void);

/* --- the manager's store of descriptors ---------------------------------------------------------
 */

#define NOTIFY_KEPT_PREFIX "gistd-weights-"
#define NOTIFY_NAME_MAX    63u

struct notify_kept {
    int fd;
    char name[NOTIFY_NAME_MAX + 1];
};

/* Descriptors that an earlier process left with the manager, at most cap: their number. Those that
 * there is no room for are closed. Once, behind notify_take_socket: no child is told of any. */
uint32_t notify_take_kept(struct notify_kept *ret, uint32_t cap);

bool notify_manager(void); /* there is one */
bool notify_store(void);   /* it says that it has such a store */

/* The manager keeps a copy of fd across our end. Nobody says whether it does: no answer comes. */
int notify_keep(int fd, const char *name);
/* It closes what it has of that name, and has done so when this returns, or it is very slow. */
void notify_forget(const char *name);

#endif
