/* daemon/client.h - a connected client: its channel, sessions and open requests.
 *
 * One without a channel is nobody's connection but the place of a session that outlives its own
 * (daemon/kept.h): such a client is listed, counted and charged as all are.
 *
 * Threads    the scheduler's, from the moment its channel came by the mailbox.
 * Ownership  owns the channel, sessions and requests. The socket is the control thread's.
 */
#ifndef DAEMON_CLIENT_H
#define DAEMON_CLIENT_H

#include "daemon/journal.h"
#include "daemon/mailbox.h"
#include "daemon/owner.h"
#include "daemon/request.h"
#include "daemon/session.h"
#include "daemon/unit.h"
#include "ipc/chan.h"

#define CLIENT_NAME_MAX 63u

/* Open requests of a client. The spare ones are for those that end at once (a Cancel, a refusal)
 * when the others are all at work; without a free one the client's ring waits. */
#define CLIENT_REQUESTS_MAX   64u
#define CLIENT_REQUESTS_SPARE 4u
#define CLIENT_REQUESTS_ALL   (CLIENT_REQUESTS_MAX + CLIENT_REQUESTS_SPARE)

TAILQ_HEAD(session_list, session);
TAILQ_HEAD(client_line, request);
TAILQ_HEAD(kept_list, kept);

enum client_parts {
    CLIENT_PARTS_SCORE,
    CLIENT_PARTS_CHOICES,
    CLIENT_PARTS_EMBED,
    CLIENT_PARTS_TOKENIZE,
    CLIENT_PARTS_DETOKENIZE,
    CLIENT_PARTS_DOCUMENT,
    CLIENT_PARTS_GRAMMAR,
    CLIENT_PARTS__N
};

struct client {
    TAILQ_ENTRY(client) link;
    TAILQ_ENTRY(client) of_owner;
    TAILQ_ENTRY(client) of_unit;
    struct owner *owner; /* a reference */
    struct unit *unit;   /* one of the owner's */
    uint64_t id;
    pid_t pid;
    uid_t uid;
    char name[CLIENT_NAME_MAX + 1];
    struct chan *chan;      /* NULL: it is no connection, and */
    struct kept *kept;      /* this is its session's; else NULL */
    struct kept_list keeps; /* of a connection: those that it is attached to */
    uint32_t n_keeps;
    bool greeted;       /* said Hello */
    bool hears_loading; /* and wants to know how far a model is that it waits for */
    bool dead;          /* its socket ended, or it broke the protocol */
    bool broke;         /* it did */
    bool blocked;       /* a reply found no room */
    bool stats_blocked; /* a Stats did, when stats_back spans had come back */
    uint32_t stats_back;
    struct pool_account account; /* of all its sessions */
    struct held_account held;    /* of all its requests, and of parts */
    struct session_list sessions;
    uint32_t n_sessions, n_requests;
    uint32_t n_lanes; /* daemon/lanes.h: of its requests, each with a session */
    struct encode_text parts[CLIENT_PARTS__N]; /* of bulk that goes on in the next request */
    struct chan_msg msg;       /* the message that was received and not released yet */
    struct client_line line;   /* open ones; the first is served next */
    struct request *next;      /* batch.c: whose token is added next */
    uint32_t n_waiting;        /* batch.c: of those that read */
    struct request *receiving; /* whose bulk, msg's, is copied in pieces; NULL: none */
    uint64_t received;         /* bytes of it so far */
    struct request requests[CLIENT_REQUESTS_ALL];
};

/* Of its owner, which has it in its list until it is freed. held: bytes. -ENOMEM. */
int client_new(const struct mailbox_letter *adopt, struct owner *owner, uint32_t max_pages,
               size_t max_held, struct client **ret);
void client_free(struct client *c); /* its requests were dropped; the reference is the caller's */

/* For lines of the log that are about it. */
struct journal_about client_about(const struct client *c, enum journal_message message);

/* It broke the protocol: that is logged, and it is gone at the end of the step. */
void client_broke(struct client *c, const char *what);

/* Whether it may know, and cancel, what another one does: its own, and by daemon/owner.h. */
bool client_sees(const struct client *c, const struct client *other, uid_t stand_in);

/* One of its own, or that it is attached to; or NULL. */
struct session *client_find_session(struct client *c, uint64_t id);
struct request *client_find_request(struct client *c, uint64_t id); /* or NULL */
struct request *client_free_request(struct client *c);              /* or NULL: all are open */

#endif
