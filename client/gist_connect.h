/* client/gist_connect.h - a connection that is made without waiting: what it is until it is made.
 */
#ifndef CLIENT_GIST_CONNECT_H
#define CLIENT_GIST_CONNECT_H

#include "client/gist.h"

#include <stdbool.h>

struct gist_connecting {
    struct handshake *shaking; /* NULL: it has its channel; */
    bool busy;                 /* and until it has the Welcome too */
    char *name;                /* of the greeting; free() */
    gist_done_fn *on_done;     /* may be NULL */
    void *arg;
};

/* What gist_dispatch does until there is a channel. */
int gist_go_on_connecting(gist_conn *c);
/* Tells who waits for it, once. */
void gist_end_connecting(gist_conn *c, int err);

/* What gist_fd() has to watch from now on. */
int gist_watch(gist_conn *c);

/* Before the caller gets the thread back: what arrives from now on makes gist_fd() readable. */
void gist_rearm(gist_conn *c);

/* Why nothing can be asked of the connection: its end, or that it is not made yet. 0: all can. */
int gist_usable(gist_conn *c);

#endif
