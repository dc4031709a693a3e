/* http/listen.h - the sockets that HTTP is served on: from the service manager, or our own.
 *
 * The other door to libsystemd beside the daemon's.
 *
 * Threads    listen_open, listen_close: before there are any, and when they are gone.
 * Ownership  listen_close closes all but those whose fd somebody has taken and set to -1, and
 *            removes the Unix socket that we made.
 * Errors     a negative errno and a sentence.
 */
#ifndef HTTP_LISTEN_H
#define HTTP_LISTEN_H

#include "http/conf.h"

#define LISTEN_MAX 8u

struct listen {
    struct {
        int fd;
        bool is_unix; /* no name of a host leads there */
    } at[LISTEN_MAX];
    size_t n;
    char made[CONF_UNIX_MAX + 1]; /* the Unix socket that is ours; empty: none */
    char where[512];              /* for people */
};

int listen_open(struct listen *l, const struct conf *conf, struct why *why);
void listen_close(struct listen *l);

void listen_ready(const struct listen *l); /* what the service manager is told */
void listen_stopping(void);

#endif
