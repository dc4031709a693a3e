/* http/job.h - an ask being answered: on one thread, by one connection to the daemon.
 *
 *            job_wait()
 *   OPEN -> OPENING -> OPENED -> READING ----> CONTINUING ------> CHOICE
 *    ^      a session            the prompt    what the answer      |  all answers to it at once
 *    |                                         begins with          v
 *    |                                                          ANSWERING
 *    |                                                              |  told to the end
 *    |                     prompts left                             v
 *    +---------------------------------------------------------- ANSWERED -------------> ENDED
 *
 * The thread waits in poll() for the daemon, for the program's end, and for the client: one that
 * leaves ends the job whatever it is at, also while a prompt is read. What a voice (http/say.h)
 * says goes to `out`, from where the server takes it.
 *
 * Several answers to a prompt, which is read once, are written at the same time, and their pieces
 * told as they come. A stream begins with the first thing that is said: what the daemon finds wrong
 * with a request until then, a schema too, is refused with a status of its own.
 *
 * With a live session (http/live.h) there is one prompt and one answer, and the session goes back
 * to where it was taken from. It may be stopped there: what was said until then is the answer.
 *
 * Threads    the request's own.
 * Ownership  borrows ask, pool and voice; job_fini closes the session and gives the connection
 * back, or drops it when something is still open on it.
 *
 * Errors     JOB_FAILED and `problem`.
 */
#ifndef HTTP_JOB_H
#define HTTP_JOB_H

#include "http/calls.h"
#include "http/live.h"
#include "http/logprobs.h"

struct voice;

enum job_state {
    JOB_OPEN,
    JOB_OPENING,
    JOB_OPENED,
    JOB_READING,
    JOB_CONTINUING,
    JOB_CHOICE,
    JOB_ANSWERING,
    JOB_ANSWERED, /* what is left to be told is told, and the next prompt comes */
    JOB_ENDED
};
enum job_event {
    JOB_OUTPUT, /* there is something in out */
    JOB_DONE,
    JOB_FAILED,
    JOB_QUIET, /* the time is over */
    JOB_GONE   /* the client is */
};

struct job_choice {
    struct text text;             /* the whole answer, where the voice needs it */
    size_t n_text;                /* bytes of it so far, in any case */
    struct json_object *logprobs; /* of all of it, where they are wanted */
    struct json_object *calls;    /* NULL: none; an array of {id, name, arguments} */
    enum gist_reason reason;
    uint32_t stop; /* which of the ask's stops, from 1; 0: none, or not known */
    uint32_t n_tokens;
    struct logprobs pieces; /* that came with log-probabilities, and are not told yet */
    struct calls parser;    /* where tools were offered */
    bool begun, answered;   /* something of it was said; nothing more of it comes */
    bool ended;             /* and that was said */
};

/* Sums over prompts and answers; what an answer stands on is that of the last. */
struct job_usage {
    uint32_t prompt, computed, shared, restored, generated;
    uint32_t raw, gist_tokens, gists, hydrated, missed, ratio;
    uint64_t prompt_ns, generate_ns;
};

struct job {
    const struct ask *ask;
    const struct voice *voice;
    struct pool *pool;
    struct tokens *tokens;
    int client_fd, stop_fd; /* -1: nobody to watch */
    const char *label;      /* of its sessions, for `gistctl status` */
    bool strict_model;      /* another model than the one that is asked for will not do */
    struct lives *lives;
    struct live *live; /* whose session it goes on with; NULL: it has its own, which end with it */

    char
        session[LIVE_ID_LEN + 1]; /* the id of a live one, also when that was given back; else "" */
    uint32_t n_turns;             /* what that had read before */
    bool unheard;                 /* nobody takes what is said */
    char id[25], model[128];
    uint64_t created_s, begun_ns;
    struct job_choice *choices; /* (n_prompts * n) */
    size_t n_choices;
    size_t choice; /* whose voice speaks */
    size_t turn;   /* which of the prompt's answers is to be told next */
    struct job_usage usage;
    uint32_t n_read, n_all; /* of the prompt that is being read */
    uint32_t n_events;      /* a voice's own count */
    bool in_text;           /* and what it is at */
    struct json_object
        *said; /* log-probabilities of the text that is being said; a voice takes it */
    struct text out;
    size_t out_at; /* bytes of it that were taken */
    struct problem problem;

    gist_conn *conn;
    gist_session *base;
    size_t prompt; /* that it is at: behind the last one when all are answered */
    enum job_state state;
    bool begun, fresh, waiting; /* waiting: a request is open */
    bool renew;                 /* it is dead, and another one will do */
    bool stopped;               /* somebody wants no more of the answer */
    unsigned loading; /* percent of a model that comes back (gistd --idle); 0, 100: it is there */
    uint64_t tick_ns; /* when the voice is to tick */
    uint64_t request;
    struct mem mem; /* of what the model decides */
};

/* Fields above the first empty line are the caller's; the rest is zero. */
int job_init(struct job *j);
void job_fini(struct job *j);

/* Goes on until one of the events; timeout_ms -1: no JOB_QUIET. */
enum job_event job_wait(struct job *j, int timeout_ms);

/* What is in out, once: at most cap bytes. */
size_t job_take(struct job *j, char *ret, size_t cap);

#endif
