/* daemon/kept.h - sessions that outlive their connection, and the answers that they go on writing.
 *
 *     Keep              the connection ends        Attach, with the token
 *     -----> ATTACHED ---------------------------> DETACHED -----------------> ATTACHED
 *               | ^  Attach, of another connection     |  its time is over, or it is cancelled
 *               | +--+                                 |
 *               +--------------> (nothing) <-----------+
 *            CloseSession
 *
 * Such a session has a place of its own: a client without a channel, its holder, of the same owner.
 * So its pages, texts and rows are charged, and its turn comes, whether a connection is there or
 * not, and nothing moves when one goes.
 *
 *     connection ----- Generate, Resume ------+  request_relay: takes frames out
 *         | attached                          v
 *     holder ---- session ---- answer ---> backlog     kept_reply: puts frames in
 *
 * An answer is the holder's request; what it says goes into a backlog (daemon/backlog.h). The
 * connection's own request relays that. All other requests on the session are the connection's, and
 * end with it.
 *
 * Invariants
 *   K1  A holder is a client with `kept` and without a channel; it has one session, which is in no
 *       connection's list. `at` and the list of that connection say the same.
 *   K2  Of an answer all frames that were not taken by a reader are in the backlog, and those that
 *       there is no room for are still the answer's: it waits.
 *   K3  Whoever has no token that fits, or fits no more, learns nothing but that.
 *
 * Threads    the scheduler's.
 * Ownership  a holder owns its kept session and that its backlog; a relay borrows both, and is told
 *            when they go.
 */
#ifndef DAEMON_KEPT_H
#define DAEMON_KEPT_H

#include "daemon/backlog.h"
#include "daemon/client.h"
#include "daemon/policy.h"

struct kept {
    TAILQ_ENTRY(kept) link; /* of the connection's */
    struct client *holder;
    struct client *at;     /* the connection; NULL: detached */
    struct request *claim; /* an Attach that it is to go to, before anything new; NULL: none */
    uint8_t token[WIRE_TOKEN_BYTES];
    char realm[POLICY_REALM_MAX + 1]; /* zeros behind it */
    uint32_t seconds;
    uint64_t until_ns; /* detached: when its time is over */

    struct backlog log;
    struct request *answer; /* that writes to it; NULL: none, or it has said all */
    uint32_t n_answers;     /* that it has, or had; 0: there was none yet */
    bool ended;             /* and this is how, behind all of log */
    struct wire_rep last;
    char text[REQUEST_TEXT_MAX]; /* of last, when it is an Error */
    struct request *relay;       /* that reads it; NULL: none */
    bool told;                   /* the relay has said where it begins, */
    uint64_t begins;             /* which is here */
};

extern const struct request_ops request_keep, request_attach, request_resume, request_relay;

struct session *kept_session(const struct kept *k);

/* How many of this owner's, or of all, are kept. */
uint32_t kept_count(const struct owner *o);

/* The client's session, which is not at work but by who asks, is kept. -ENOMEM; -ENOSPC, -EDQUOT:
 * it has no room, and is what it was. */
int kept_make(struct sched *s, struct session *session, struct kept **ret);
/* Another token, by chance. -EIO. */
int kept_name(struct kept *k);

/* The one with this token that this user, of this realm (zeros behind it), may have. NULL: there is
 * none. It takes as long whatever is wrong. */
struct kept *kept_find(const struct sched *s, const struct client *asks, const uint8_t *token,
                       const char *realm);
/* No connection has it any more; until it is over others may. */
void kept_detach(struct sched *s, struct kept *k);
void kept_attach(struct kept *k, struct client *c);
/* r, an Attach, waits for it: nothing new begins on the session until r has it or has ended. */
void kept_claim(struct kept *k, struct request *r);
void kept_unclaim(struct request *r); /* one that has no claim: nothing */
bool kept_claimed(const struct session *x);

/* A client goes: what it is attached to stays without it; or it is a holder, and what it holds
 * goes. Between steps. */
void kept_leave(struct sched *s, struct client *c);
/* It goes at the end of the step. */
void kept_end(struct kept *k);
/* Nobody has x (NULL: there is none), and nobody is to: true. */
bool kept_cancel(const struct session *x);
/* Its answer has something to say, or its relay. */
bool kept_speaks(const struct kept *k);

/* Those whose time is over go. True: there are any. */
bool kept_look(struct sched *s);
int kept_timeout_ms(const struct sched *s); /* -1: none waits for its end */

/* For people: the id of the connection, or 0; seconds that are left, or 0. c: any client. */
uint64_t kept_client(const struct client *c);
uint32_t kept_left_s(const struct kept *k);

/* A Generate of a session that it has, whose holder's the answer is, and r becomes its relay. As
 * generate_taken. */
int kept_generate(struct sched *s, struct request *r, const struct wire_req *m);
/* What the answer says. -EAGAIN: there is no room; -EMSGSIZE. */
int kept_reply(struct sched *s, struct kept *k, const struct wire_rep *rep);

#endif
