/* daemon/request.h - one open request of a client, from its frame to its last reply.
 *
 *              start()                 work()                    rows(), token()
 *     FREE ---> . ------> WORK -------------------> RUN ----------------------> LAST ----> FREE
 *       |       ^ |         |    (text is encoded,   |   (the model reads or      ^   |
 *       v       | |         |     pages are taken)   |    writes tokens)          |
 * request_deliver() RECEIVE | +---------+------------------------+----------------------------+
 *       (large bulk   request_finish(), request_fail()                      when all was sent
 *       is copied, request_receive() again)
 *
 * Each kind of request is a table of functions. start() may run between two layers of a step, so it
 * touches no sequence and no page; the others run between steps. A reply that finds no room in the
 * channel stays here and is tried again: a slow reader stops only its own requests.
 *
 * Threads    the scheduler's.
 * Ownership  requests lie in their client; state is the kind's own, freed by its fini().
 */
#ifndef DAEMON_REQUEST_H
#define DAEMON_REQUEST_H

#include "daemon/request_fail.h"
#include "daemon/trace.h"
#include "engine/forward.h"
#include "engine/sampler.h"
#include "ipc/wire.h"

#include <sys/queue.h>

struct client;
struct encode_text;
struct memory;
struct request;
struct sched;
struct session;

enum request_phase { REQUEST_FREE, REQUEST_RECEIVE, REQUEST_WORK, REQUEST_RUN, REQUEST_LAST };

struct request_ops {
    const char *name;

    /* Whether start() would take the message's bulk: what it is going to refuse is not copied.
     * NULL: it has no use for bulk. */
    bool (*takes_bulk)(const struct sched *s, const struct request *r, const struct wire_req *m);

    /* Reads the message (bulk is shared memory: copy, then check). Bulk that came in pieces is in
     * r->parts already, and bulk_len is 0. Must leave FREE unless it returns an error: -ENOMEM or
     * -EDQUOT. */
    int (*start)(struct sched *s, struct request *r, const struct wire_req *m, const uint8_t *bulk);

    /* Phase WORK: a slice between steps. False: it waits for something, did nothing. NULL: none. */
    bool (*work)(struct sched *s, struct request *r);
    bool ids_only; /* it never fails for want of pages: those that are away stay away */

    /* In phase RUN, when its memory is not behind: the next run of at most max tokens, and no more
     * than memory_room; false: not now. decode: one token, goes first in every step. */
    bool decode;
    bool (*plan)(struct sched *s, struct request *r, uint32_t max, struct forward_run *ret);
    uint32_t (*left)(const struct request *r); /* tokens that it is to read yet; NULL: any number */
    /* After the step: its outputs [first, first + n_out) and how many tokens were read. */
    void (*rows)(struct sched *s, struct request *r, uint32_t first, uint32_t n_out, uint32_t n);
    void (*token)(struct sched *s, struct request *r, float *logits); /* decode: one row */
    /* decode, before token(): when a step begins (masker.h); and by any thread (draws.h). NULL. */
    void (*foresee)(struct sched *s, struct request *r);
    void (*draw)(const struct sched *s, struct request *r, float *x, struct sampler_candidate *c);
    /* Instead of rows(), of one that wants all outputs: the ids behind its next n tokens, whose
     * log-probabilities scored() gets; of several requests by one pass over the output matrix. */
    const uint32_t *(*next)(const struct request *r);
    void (*scored)(struct sched *s, struct request *r, uint32_t n, const float *logprobs);
    const struct draft_ops *drafts; /* decode; NULL: none */
    /* decode, where who computes samples too (engine/backend.h, pick): what for, and what came of
     * it. ids has room for SAMPLER_REPEAT_MAX. False, or NULL: the row itself is needed. */
    bool (*asks)(struct sched *s, struct request *r, uint32_t *ids, struct sampler_ask *ret);
    void (*picked)(struct sched *s, struct request *r, const struct sampler_found *found,
                   struct sampler_candidate *c);

    /* Sends what is ready. 0: all of it; -EAGAIN: no room. NULL: nothing but the last reply. */
    int (*flush)(struct sched *s, struct request *r);

    /* It is to be cancelled: answers with what became of its work. NULL: nothing to say. */
    void (*cancel)(struct sched *s, struct request *r);

    /* It failed or was cancelled: leaves the session as the client may expect it. (Parts are
     * forgotten by request_fail, when it is a part that fails.) */
    void (*undo)(struct sched *s, struct request *r);
    void (*fini)(struct request *r);
};

#define REQUEST_TEXT_MAX 384u

struct request {
    TAILQ_ENTRY(request) link;    /* of the scheduler's active ones */
    TAILQ_ENTRY(request) in_line; /* of its client's */
    struct client *client;
    struct session *session;      /* that it keeps busy; NULL: none */
    struct memory *memory;        /* of the sequence that it reads into; NULL: none yet */
    struct lane *lane;            /* it is a part of another one; NULL: a client's own */
    struct ranking *ranking;      /* under way, a slice a step (daemon/ranking.h); NULL: none is */
    struct follow_reader *reader; /* while others may wait for what it reads; NULL: they don't */
    const struct request_ops *ops;
    enum request_phase phase;
    enum wire_priority priority;
    uint64_t id, arrived_ns;
    uint64_t deadline_ns; /* by when it is to have ended; 0: whenever it does */
    struct trace_times times;
    bool cancelled;  /* by the client, or expired; taken up between steps */
    bool expired;    /* its deadline has passed */
    bool in_prefill; /* a run of the current step reads for it */
    bool paused;     /* it waits for pages, and keeps those that it has (daemon/room.h) */
    bool was_away;   /* its session, when it began or since (daemon/away.h) */
    struct wire_usage usage;
    struct wire_rep last;        /* phase LAST */
    char text[REQUEST_TEXT_MAX]; /* of last, when it is an Error */
    void *state;
    void *job;                 /* of one that appends (daemon/append.h) and does more: its own */
    struct encode_text *parts; /* RECEIVE, start(): bulk of earlier parts; NULL: it has no such */
};

/* The table of kinds, indexed by enum wire_req_kind. */
extern const struct request_ops *const request_ops_of[WIRE_REQ__N];
extern const struct request_ops request_hello, request_open, request_append, request_generate,
    request_cancel, request_close, request_score, request_tokenize, request_detokenize,
    request_stats, request_ping, request_fork, request_rewind, request_cache, request_save,
    request_restore, request_list, request_delete, request_add_document, request_open_with,
    request_watch, request_trace, request_score_choices, request_embed, request_segments;

/* Bytes of bulk that are copied at once. */
#define REQUEST_PIECE_BYTES (64u * 1024)

/* A message that was received: makes a request of it, or sends an error with the id that it has. Of
 * bulk that is longer than a piece only the room is taken at first. Then the client's `receiving`
 * is that request, and the message is to be kept and given here again and again until it is NULL:
 * each call copies a piece. */
struct chan_msg;
void request_receive(struct sched *s, struct client *c, const struct chan_msg *msg);

/* The last reply: r->last filled but for id and last. */
void request_finish(struct sched *s, struct request *r);

/* A name for people, of at most cap - 1 bytes: control characters would garble a terminal. */
void request_label(char *to, size_t cap, const char *from);

/* A session of the same user's, whichever client has it; any, for who may see all. NULL: there is
 * none. */
const struct session *request_see_session(const struct sched *s, const struct client *asks,
                                          uint64_t session);

/* Takes the session for this request: NOT_FOUND and BUSY are answered. False: it was. */
bool request_take_session(struct sched *s, struct request *r, uint64_t session);

/* A takes_bulk: what request_collect would take. */
bool request_collects(const struct sched *s, const struct request *r, const struct wire_req *m);

/* Adds bulk (shared memory) to r->parts. LIMIT and NO_MEMORY are answered. False: it was. */
bool request_collect(struct sched *s, struct request *r, const uint8_t *bulk, uint64_t n);

/* Whether bytes of token ids are whole ids, and whether ids are the vocabulary's. BAD_REQUEST is
 * answered. False: it was. */
bool request_whole_ids(struct sched *s, struct request *r, size_t n_bytes);
bool request_known_ids(struct sched *s, struct request *r, const uint32_t *ids, size_t n);
/* The same for the last *left of n ids, a slice a call, in work(): millions take milliseconds.
 * False: it was answered, or there are more to look at. */
bool request_known_slice(struct sched *s, struct request *r, const uint32_t *ids, size_t n,
                         size_t *left);

/* Sends what is ready; the request is freed when its last reply is out. */
void request_deliver(struct sched *s, struct request *r);

/* Milliseconds until a Watch has something to say; -1: there is none. */
int request_watch_ms(const struct sched *s);

/* The client's request that it is, or is a part of. */
struct request *request_whole(struct request *r);

/* The session's context has given its pages to others, and is not all back (daemon/away.h). */
bool request_away(const struct request *r);
/* It may be now: what was counted of it while it was away is counted again. False: it is not. */
bool request_back(struct request *r);

/* It uses the model, or will. Parts of another one don't count. */
bool request_computes(const struct request *r);
/* And had no part in a step yet. */
bool request_waits(const struct request *r);

/* Nobody waits for what it makes: cancelled, or its client is dead. */
bool request_unwanted(const struct request *r);

/* Those whose deadline has passed are cancelled, and end as all cancelled ones do. True: there were
 * any. Cheap as long as none has. */
bool request_expire(struct sched *s);
/* Milliseconds until the next deadline; -1: there is none. */
int request_deadline_ms(const struct sched *s);

/* Some request uses the model, or will. */
bool request_in_use(const struct sched *s);

/* Forgets it without a word (its client is dead). */
void request_drop(struct sched *s, struct request *r);

#endif
