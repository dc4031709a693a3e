/* tests/support/alone.h - a scheduler without a control thread, in this process: the other ends of
 * its mailboxes and of its clients' channels are the test's.
 *
 * It is turned by the test (daemon/sched.h), or runs in a thread of the test's (sched_main).
 */
#ifndef TESTS_SUPPORT_ALONE_H
#define TESTS_SUPPORT_ALONE_H

#include "daemon/config.h"
#include "daemon/mailbox.h"
#include "daemon/sched.h"

#define ALONE_SLOTS 64u /* of a client's channel */

struct alone {
    struct mailbox to, from;
    struct config config;
    struct sched *sched;
    struct wire_scratch scratch; /* of replies, too */
};

/* With the tiny random model, 16 MiB of KV. store: its folder, or "none". Nothing runs yet. */
void alone_open(struct alone *a, const char *store, uint32_t threads);
/* The scheduler has ended. */
void alone_close(struct alone *a);

/* A scheduler that the test turns: it is ready; it ends, and all is closed. */
void alone_begin(struct alone *a);
void alone_end(struct alone *a);

/* A client of this user: its end of the channel. unit: its systemd unit, or NULL. */
struct chan *alone_adopt(struct alone *a, uint64_t client, const char *unit);

/* By turns of the scheduler, in the test's own thread. A reply's strings live until the next call.
 */
void alone_send(struct alone *a, struct chan *ours, const struct wire_req *m, const void *bulk);
/* The next one that is there, or comes. */
enum wire_rep_kind alone_reply(struct alone *a, struct chan *ours, struct wire_rep *ret);
/* Sends, and the last reply of that; those of others are dropped. */
enum wire_rep_kind alone_ask(struct alone *a, struct chan *ours, const struct wire_req *m,
                             const void *bulk, struct wire_rep *ret);
/* A client that has said hello, in request 1. */
struct chan *alone_hello(struct alone *a, uint64_t client);
void alone_expect(struct mailbox *m, enum mailbox_kind kind);

#endif
