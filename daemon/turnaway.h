/* daemon/turnaway.h - tells those who wait at the service manager's socket why there is no daemon.
 *
 * A client's connection is what started us, so somebody waits for an answer. If we just ended he
 * would hear that the connection was closed, and the manager, which finds him still in the queue,
 * would start us again until it gives the socket up. Without such a socket, or while nobody waits
 * (an administrator started the unit), there is nobody to tell and this returns at once.
 *
 * Threads    one, before there is a second.
 */
#ifndef DAEMON_TURNAWAY_H
#define DAEMON_TURNAWAY_H

/* Answers with the sentence until nobody has come for a while. listener: of notify_take_socket. */
void turnaway(int listener, const char *text);

#endif
