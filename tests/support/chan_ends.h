/* tests/support/chan_ends.h - both ends of a channel in one process, and messages that are words.
 */
#ifndef TESTS_SUPPORT_CHAN_ENDS_H
#define TESTS_SUPPORT_CHAN_ENDS_H

#include "ipc/chan.h"

struct ends {
    struct chan *server, *client;
};

struct ends ends_open(const struct chan_geometry *g);
void ends_close(struct ends *e);
struct chan_fds ends_dup_fds(const struct chan *c); /* as a client is sent them */

int ends_send(struct chan *c, const char *frame, const char *bulk); /* -EAGAIN: no room */
void ends_expect(struct chan *c, const char *frame, const char *bulk);

#endif
