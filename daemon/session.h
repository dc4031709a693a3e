/* daemon/session.h - one growing token sequence of one client.
 *
 * What is in a session is what its client sent or saw. The last token of an answer was sampled but
 * not yet read by the model: it waits as `pending` and is read with whatever comes next.
 *
 *     seq.tokens [0, memory.n_ids)          pending
 *     +-----------------------------+      +-------+
 *     | read, or to be read again   |      |  0/1  |      session_len() = both
 *     | (daemon/memory.h)           |      |       |
 *     +-----------------------------+      +-------+
 *
 * Invariant  A session that is not empty and not at work has either a pending token or, in `row`,
 *            the logits behind its last token: an answer can start from both.
 *
 * Threads    the scheduler's.
 * Ownership  owns seq, memory, row, marks and parts; borrows its client, whose held account is
 *            charged for the last three.
 */
#ifndef DAEMON_SESSION_H
#define DAEMON_SESSION_H

#include "daemon/draft.h"
#include "daemon/encode.h"
#include "daemon/memory.h"
#include "daemon/room.h"
#include "engine/kv/seq.h"
#include "engine/text/chat.h"
#include "ipc/wire.h"

#include <sys/queue.h>

#define SESSION_LABEL_MAX 63u

struct client;
struct request;

struct session_mark {
    uint32_t n_tokens;
    enum chat_at chat_at;
};

struct session {
    TAILQ_ENTRY(session) link; /* of its client */
    struct client *client;
    uint64_t id;
    char label[SESSION_LABEL_MAX + 1];
    enum wire_priority priority;
    struct seq seq;
    struct memory memory; /* of seq */
    bool has_pending;
    uint32_t pending;
    float *row; /* (n_vocab), from the start of an append until its logits are used; NULL: none */
    size_t row_len;
    bool row_valid;
    enum chat_at chat_at;
    uint32_t n_asks; /* its last tokens may ask about the text before, which is not known yet */
    struct session_mark *marks; /* where a conversation was after each append, ascending */
    size_t n_marks, marks_len;  /* bytes of marks */
    struct encode_text parts;   /* bulk of an Append that goes on */
    size_t parts_ranked;        /* its length when what is packed was last ranked for it */
    struct request *busy;       /* the one request that works on it */
    uint64_t read_ns;           /* that appends took since the last answer */
    uint64_t rested_ns;         /* since when nobody works on it */
    struct room_look look;      /* daemon/room.c's */
    struct draft_rate drafts;   /* how often its answers were guessed right */
    bool closing;
    bool lost;    /* with a device, what is no function of its ids */
    bool opening; /* its client does not know of it yet (daemon/opening.h) */
};

struct served;

/* With whom a session has what it reads in common, and when it ends. */
enum session_sharing {
    SESSION_OF_USER, /* sessions of its user */
    SESSION_PUBLIC,  /* public sessions of all users */
    SESSION_PRIVATE  /* nobody; it may use what its user's sessions have read */
};

/* policy: of policy_read. -ENOMEM. */
int session_new(struct served *b, struct client *c, uint64_t id, enum session_sharing sharing,
                const struct policy *policy, struct session **ret);
void session_free(struct session *s);

/* A session of the same client with the same tokens, which goes on as s would; s is not at work.
 * -ENOMEM; -ENOSPC: pages; -EDQUOT: row and marks. */
int session_fork(const struct session *s, uint64_t id, struct session **ret);

/* The same for reading behind it and nothing else: without logits and marks, and nobody learns from
 * it. */
int session_fork_bare(const struct session *s, struct session **ret);

uint32_t session_len(const struct session *s);
/* Without SEQ_FILLER: what its client counts. */
uint32_t session_count(const struct session *s);

/* Has room for n_vocab logits before they are made. -ENOMEM, -EDQUOT: daemon/held.h. */
int session_take_row(struct session *s, uint32_t n_vocab);
/* The logits that s has, if it has any, to a fork of it. Likewise. */
int session_copy_row(const struct session *s, struct session *to);
/* The logits are used, or will not be made: the session is to have a pending token instead. */
void session_drop_row(struct session *s);

/* Before an answer: its last n_asks tokens, those that are raw, are to be read again, behind what
 * they point to; the last of them becomes the pending one. Automatic memory makes them the running
 * turn, and those that are not raw any more are read again in any case. How many; 0: nothing has
 * changed but that. */
uint32_t session_ask(struct session *s);

/* An append is done: the conversation is there now. */
void session_appended(struct session *s, enum chat_at at);

/* It goes on with all tokens of another one, which was read alone (memory_adopt_behind). Neither a
 * pending token nor logits are there then: session_truncate makes one of the last token. */
int session_adopt_behind(struct session *s, const struct session *from);

/* Takes it back to its first n tokens, n <= session_len, and the conversation to where it was then.
 */
void session_rewind(struct session *s, uint32_t n);

/* Stands as one did that was saved: behind the ids that it has read. -ENOMEM, -EDQUOT: marks. */
int session_stand(struct session *s, const uint32_t *pending, enum chat_at at,
                  const struct session_mark *marks, size_t n_marks);

/* It is another client's of the same owner, with all that it has, also text of which more is to
 * come. It is not at work. -ENOSPC, -EDQUOT: an account of that one, and nothing has changed. */
int session_move(struct session *s, struct client *to);

/* Its pages are charged to another account, and it is no client's any more: it holds nothing but
 * its memory. -ENOSPC: the account. */
int session_detach(struct session *s, struct pool_account *pages, struct held_account *held);

/* Keeps the first n tokens, n <= session_len, and restores the invariant: the last of them becomes
 * the pending one, unless nothing is dropped and it holds already. */
void session_truncate(struct session *s, uint32_t n);

#endif
