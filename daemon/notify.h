/* daemon/notify.h - what the service manager is told, and the socket it may hand over.
 *
 * The one door to libsystemd. Without a service manager all of it does nothing.
 *
 * Threads    any.
 */
#ifndef DAEMON_NOTIFY_H
#define DAEMON_NOTIFY_H

#include <stdint.h>

void notify_loading(unsigned percent); /* STATUS=, when the number changed */
void notify_ready(const char *status);
void notify_stopping(void);
void notify_watchdog(void);

/* Nanoseconds between two signs of life that the manager asks for; 0: none. */
uint64_t notify_watchdog_ns(void);

/* A listening Unix SEQPACKET socket that was handed over: its descriptor; -ENOENT: none; -EINVAL:
 * something else was. */
int notify_take_socket(void);

#endif
