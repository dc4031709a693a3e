/* gist.h - libgist, the client library of gistd.
 *
 * A gist_conn is a connection to the daemon, over shared memory. A gist_session is one growing
 * token sequence in the daemon's KV pool: append text to it, generate from it, append again.
 * Nothing is read twice.
 *
 *     gist_conn *c;  gist_session *s;
 *     if (gist_connect(NULL, "my-app", &c) < 0) ...gist_error(NULL)...
 *     gist_open(c, &(struct gist_policy){ sizeof(struct gist_policy), .flags = GIST_AUTO }, &s);
 *     gist_append_text(s, "The capital of France is", 24, 0, NULL);
 *     gist_generate(s, NULL, on_text, arg, &result);
 *     gist_close(s);  gist_disconnect(c);
 *
 * Blocking and not: every gist_x waits for its answer. gist_x_start sends the request and returns;
 * then wait until gist_fd() is readable, call gist_dispatch(), which calls the callbacks, until the
 * request's done callback came. Both styles may be mixed on one connection. One loop can do all
 * without a call that waits, but for gist_connect.
 *
 * Structs get new fields at their ends, and programs need not be recompiled (gist/sizes.h). Enums
 * get new values.
 *
 * Threads    one thread at a time a connection and its sessions; any number of connections.
 *            gist_cancel_async may be called from any thread and from a signal handler.
 * Ownership  open/close, connect/disconnect. Text and arrays given to callbacks live until they
 *            return; callbacks must not close the connection or make blocking calls on it.
 * Errors     0 or a negative errno; gist_error() has the sentence, gist_error_code() the daemon's
 *            code.
 */
#ifndef GIST_H
#define GIST_H

#include <stddef.h>
#include <stdint.h>

#define GIST_API __attribute__((visibility("default")))

typedef struct gist_conn gist_conn;
typedef struct gist_session gist_session;

#ifdef __cplusplus
extern "C" {
#endif

/* Each knows the ones before it. */
/* clang-format off */
#include "gist/conn.h"
#include "gist/memory.h"
#include "gist/session.h"
#include "gist/generate.h"
#include "gist/kept.h"
#include "gist/score.h"
#include "gist/named.h"
#include "gist/stats.h"
#include "gist/cache.h"
#include "gist/sizes.h"
/* clang-format on */

#ifdef __cplusplus
}
#endif
#endif
