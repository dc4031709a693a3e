/* tests/support/raw_client.h - a client that sends one frame at a time, which libgist does not:
 * parts of several requests in any order, ids of its own.
 *
 * Replies are taken by who waits for one; those of other requests that come before it are dropped.
 *
 * Ownership  open/close. A reply's strings live until the next call.
 * Errors     a test's helper: what can't go wrong in a test is asserted.
 */
#ifndef TESTS_SUPPORT_RAW_CLIENT_H
#define TESTS_SUPPORT_RAW_CLIENT_H

#include "ipc/chan.h"
#include "ipc/wire.h"

struct raw_client {
    int sock;
    struct chan *chan;
    struct wire_scratch out, in;
    uint64_t last_id;
    struct wire_rep rep;
};

void raw_client_open(struct raw_client *c, const char *socket); /* says Hello */
/* With rings and arenas of this size (NULL: the daemon's defaults). */
void raw_client_open_with(struct raw_client *c, const char *socket,
                          const struct chan_geometry *want);
void raw_client_close(struct raw_client *c);

/* One frame with bulk_len bytes of bulk, over any channel: 0, or chan_reserve's error. */
int raw_client_put(struct chan *c, struct wire_scratch *scratch, const struct wire_req *req,
                   const void *bulk);

/* Sets id and bulk_len; returns the id. */
uint64_t raw_client_send(struct raw_client *c, struct wire_req req, const void *bulk, uint32_t len);

/* The last reply of this request. ret_bulk_len (may be NULL): of all its replies together. */
const struct wire_rep *raw_client_wait(struct raw_client *c, uint64_t id, uint64_t *ret_bulk_len);

/* Sends and waits. */
const struct wire_rep *raw_client_ask(struct raw_client *c, struct wire_req req, const void *bulk,
                                      uint32_t len, uint64_t *ret_bulk_len);

/* The reply is this error, with text in its sentence. */
void raw_client_refused(const struct wire_rep *rep, enum wire_error code, const char *text);

#endif
