/* dbus/view.h - what gistd says of itself, as a client of it sees that.
 *
 *     STOPPED --(it answers)--> SERVING <--(the model's memory is given back)--> IDLE
 *        ^  ^                      |  |
 *        |  +---- LOADING <--------+  +--(the connection ends)--> STOPPED
 *        +-----------+
 *
 * It is asked now and then and not watched: a look takes a few microseconds of gistd's, and one
 * that is asked for by somebody is as new as it can be.
 *
 * Threads    one.
 * Ownership  owns the connection. Lists of a look live until the next.
 */
#ifndef DBUS_VIEW_H
#define DBUS_VIEW_H

#include "client/gist.h"

#include <stdbool.h>
#include <stdint.h>

enum view_state { VIEW_STOPPED, VIEW_LOADING, VIEW_SERVING, VIEW_IDLE, VIEW__N };

#define VIEW_TEXT_MAX 129u

struct view {
    const char *socket; /* NULL: where gistd is found by default */
    gist_conn *conn;    /* NULL: there is none */

    /* Of the last look; zero but in SERVING and IDLE. Bytes. */
    enum view_state state;
    char version[VIEW_TEXT_MAX], model[VIEW_TEXT_MAX], digest[VIEW_TEXT_MAX];
    uint64_t weights, context, used, cached, returned;
    uint32_t n_clients, n_sessions, running, waiting;
    uint64_t who; /* changes with who has which sessions, and what these are doing */
    struct gist_stats stats;
};

/* knock: a connection may be made, which starts a gistd that is started by its socket. */
void view_look(struct view *v, bool knock);
void view_close(struct view *v);

/* Ends what a session is doing, if that is uid's or uid sees all. -ENOENT: no such session of that
 * user's is at work. -ENOTCONN. */
int view_cancel(struct view *v, uint64_t session, bool sees_all, uint32_t uid);

const char *view_state_name(enum view_state s);

#endif
