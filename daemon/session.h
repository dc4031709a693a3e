/* daemon/session.h - one growing token sequence of one client.
 *
 * What is in a session is what its client sent or saw. The last token of an answer was sampled but not
 * yet read by the model: it waits as `pending` and is read with whatever comes next.
 *
 *     seq.tokens [0, seq.n_tokens)          pending
 *     +-----------------------------+      +-------+
 *     | read: their KV is in pages  |      |  0/1  |      session_len() = both
 *     +-----------------------------+      +-------+
 *
 * Invariant  A session that is not empty and not at work has either a pending token or, in `row`, the
 *            logits behind its last token: an answer can start from both.
 *
 * Threads    the scheduler's.
 * Ownership  owns seq, row and text; borrows its client.
 */
#ifndef DAEMON_SESSION_H
#define DAEMON_SESSION_H

#include "daemon/encode.h"
#include "engine/chat.h"
#include "engine/seq.h"
#include "ipc/wire.h"

#include <sys/queue.h>

#define SESSION_LABEL_MAX 63u

struct client;
struct request;

struct session {
    TAILQ_ENTRY(session) link; /* of its client */
    struct client *client;
    uint64_t id;
    char label[SESSION_LABEL_MAX + 1];
    enum wire_priority priority;
    struct seq seq;
    bool has_pending;
    uint32_t pending;
    float *row; /* (n_vocab) */
    bool row_valid;
    enum chat_at chat_at;
    struct encode_text text; /* parts of an Append that goes on */
    struct request *busy;    /* the one request that works on it */
    bool closing;
};

struct backend;

int session_new(struct backend *b, struct client *c, uint64_t id, uint32_t segment,
                struct session **ret);
void session_free(struct session *s);

uint32_t session_len(const struct session *s);

/* Keeps the first n tokens, n <= session_len, and restores the invariant: the last of them becomes the
 * pending one, unless nothing is dropped and it holds already. */
void session_truncate(struct session *s, uint32_t n);

#endif
