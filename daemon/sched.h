/* daemon/sched.h - the scheduler: every client's requests, one step after the other.
 *
 * A step: letters of the control thread, frames of the clients (within a share of the time, see
 * daemon/pace.h), cancelled and dead ones, slices of work (encoding, taking pages, sending), then
 * one batch through the model. Between the layers of a batch it looks at letters and frames again:
 * a ping is answered, and a cancel of something that is being read ends the step at once. Without
 * anything to do it spins for spin_us and then sleeps in one epoll_wait without a timeout.
 *
 * Threads    sched_main is the scheduler's thread; all below it is called there only, but for
 *            sched_alive. Letters are the only way in and out.
 * Ownership  owns backend and clients; borrows config and mailboxes.
 */
#ifndef DAEMON_SCHED_H
#define DAEMON_SCHED_H

#include "base/seat.h"
#include "daemon/client.h"
#include "daemon/config.h"
#include "daemon/degraded.h"
#include "daemon/document.h"
#include "daemon/draft.h"
#include "daemon/follow.h"
#include "daemon/grammars.h"
#include "daemon/idle.h"
#include "daemon/lost.h"
#include "daemon/mailbox.h"
#include "daemon/meter.h"
#include "daemon/names_put.h"
#include "daemon/owner.h"
#include "daemon/pace.h"
#include "daemon/served.h"
#include "engine/sampler.h"

#include <stdatomic.h>

TAILQ_HEAD(client_list, client);
TAILQ_HEAD(request_list, request);

/* Rows of logits made at once: one pass over the output matrix for so many. */
#define SCHED_LOGITS_ROWS 32u

/* What the control thread says of the model: a copy, since the model itself may be freed while
 * READY is under way. */
struct sched_serving {
    char status[512];
};

struct sched_totals {
    uint64_t requests, requests_failed, prompt_tokens, generated_tokens, steps, client_errors;
    uint64_t drafted_tokens, accepted_tokens;
    uint64_t gave_way; /* sessions, their pages (daemon/room.h) */
};

struct sched {
    /* Set by the control thread before the start. */
    const struct config *config;
    struct mailbox *inbox, *outbox;
    struct keep *keep;  /* may be NULL */
    bool shared;        /* users other than the daemon's own may connect */
    const char *socket; /* its path, for people */

    /* The scheduler's. */
    struct served served;
    int epoll;
    int copies; /* the bell of the backend's copies, or -1: it has none */
    struct client_list clients;
    struct owners owners;
    struct seat seat;
    struct client *latest;      /* who sent the last frame; NULL: it is gone */
    struct client *turn;        /* whose frames are taken next; NULL: the first one's */
    struct request_list active; /* every open request; served ones move to the end */
    struct follow follow;       /* those of them that read what others may wait for */
    struct documents documents; /* in memory, by name */
    struct names_puts puts;     /* names on their way to the disk */
    struct grammars grammars;   /* that answers are written by */
    uint32_t n_clients, n_active, n_sessions;
    uint32_t n_kept; /* of n_clients: no connections (daemon/kept.h) */
    uint64_t last_session;
    struct wire_scratch unpacked, packed;
    float *logits;                        /* (SCHED_LOGITS_ROWS, n_vocab) */
    uint32_t *next_ids;                   /* (batch_tokens), with their */
    float *logprobs;                      /* (batch_tokens): of request_ops.scored */
    struct sampler_candidate *candidates; /* (n_vocab) */
    struct draws *draws;                  /* where there are threads for it; NULL: one draws all */
    struct masker *masker;                /* where a CPU is free for it; NULL: none is */
    struct picks *picks;                  /* where who computes samples too; NULL: it does not */
    struct metrics *scrape;               /* a scraper's, to be filled; NULL: nobody asks */
    uint32_t *leaving; /* (pages) daemon/room.c: tables of who may go that have it; zeros outside */
    uint64_t n_looks;  /* for room */
    struct pace pace;
    uint32_t draft; /* tokens of a guess at most, or DRAFT_AUTO (daemon/draft.h) */
    struct draft_cost draft_cost;
    bool in_step;       /* inside forward_step: sequences and pages must not change */
    uint32_t n_scoring; /* rows of the step that is made up whose scores are wanted */
    bool abandon;       /* what the step reads is not wanted any more */
    bool decode_only;   /* the last step was abandoned: the decoding ones go first now */
    bool spare;         /* one that read for others too was: the next such step is not */
    bool yields;        /* the step reads in the background alone, and may be given up for others */
    bool gave_way;      /* and was */
    uint32_t n_given;   /* steps in a row that were */
    uint64_t step_ns;   /* since when it runs */
    uint32_t owed;      /* tokens, to the background, of what is read before it */
    uint32_t quick;  /* the step reads short texts that have just come, of so many tokens; 0: all */
    bool was_quick;  /* so did the last one */
    bool hurry;      /* an interactive request waits for what others compress with */
    bool hurried;    /* that was so in the last step */
    bool lanes_woke; /* a request may go on that waits for its parts */
    bool room_made;  /* or for pages (daemon/room.h), or for room in a ring (daemon/kept.h) */
    uint64_t rank_left;   /* ids that a step may still have looked at at once (daemon/ranking.h) */
    uint32_t n_paused;    /* requests that wait for anybody, since the last step */
    bool stalled;         /* in the last one nobody did anything else */
    uint64_t deadline_ns; /* the first of all requests', or an earlier time; 0: none has any */
    bool stopping;
    uint64_t started_ns;
    struct sched_totals totals;
    struct meter meter;
    struct trace trace;
    struct degraded degraded; /* the store */
    struct lost lost;         /* the device */
    struct idle idle;

    /* Written by the scheduler, read by the control thread: is it alive? */
    _Atomic uint64_t heartbeat;
    _Atomic bool asleep;
    _Atomic unsigned loaded; /* percent of the model */

    /* Written before MAILBOX_READY or MAILBOX_STOPPED is sent. */
    struct sched_serving serving;
    int result;
    struct why why;
};

/* The thread: loads the model, says READY, serves until STOP, frees everything, says STOPPED. arg
 * is a struct sched, zeroed but for what the control thread sets. */
void *sched_main(void *arg);

/* What it does, piece by piece, for who has a thread of their own for it: READY or false; a step,
 * or a sleep where there is nothing to do, and false when it is to stop; STOPPED. */
bool sched_open(struct sched *s);
bool sched_turn(struct sched *s);
void sched_close(struct sched *s);

/* Letters and frames, also in the middle of a step. True: there were any. */
bool sched_attend(struct sched *s);
/* Requests that are cancelled, or whose deadline has passed, end. No step runs that has a part of
 * one. True: there were any. */
bool sched_end_cancelled(struct sched *s);

/* The device was opened: its copies' descriptor wakes the thread. -errno. */
int sched_watch_copies(struct sched *s);

#endif
