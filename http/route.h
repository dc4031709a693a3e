/* http/route.h - which path is what: how a request is read, how its answer is said.
 *
 * Threads    pure.
 */
#ifndef HTTP_ROUTE_H
#define HTTP_ROUTE_H

#include "http/embed.h"
#include "http/info.h"
#include "http/live.h"
#include "http/read.h"
#include "http/say.h"
#include "http/turn.h"

struct route {
    const char *method, *path; /* a path that ends with '/' has anything behind it */
    const struct voice *voice; /* also of what is refused */
    read_fn *read;             /* of a job; NULL: it is asked about something: */
    info_fn *info;
    bool open;      /* needs no key */
    bool is_turn;   /* read: of a live session */
    bool is_answer; /* of a live session, to who comes back to it */
    live_fn *about; /* live sessions */
    embed_fn *embed;
};

/* *ret_tail: what is behind the route's path. Of a path that is known by another method
 * *ret_method is that one. NULL: a path that is not there. */
const struct route *route_find(const char *method, const char *path, const char **ret_tail,
                               const char **ret_method);

/* Whose words a refusal takes where there is no route. */
const struct voice *route_voice(const char *path);

#endif
