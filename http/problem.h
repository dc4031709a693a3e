/* http/problem.h - why a request is refused: a status of HTTP, and one sentence that helps.
 *
 * Each API has its own words around the sentence (http/say.h); programs look at the status and at
 * the code, people read the sentence.
 *
 * Threads    pure.
 * Ownership  the caller's storage. The first writer wins: the innermost cause stays.
 */
#ifndef HTTP_PROBLEM_H
#define HTTP_PROBLEM_H

#include "client/gist.h"

struct json_object;

enum problem_kind {
    PROBLEM_NONE,
    PROBLEM_INVALID,     /* 400: it can't be understood */
    PROBLEM_UNSUPPORTED, /* 400: it asks for what can't be done here */
    PROBLEM_CONTEXT,     /* 400: longer than the context, and may not be compressed */
    PROBLEM_KEY,         /* 401 */
    PROBLEM_FORBIDDEN,   /* 403: of a page or a host name that is not allowed */
    PROBLEM_NOT_FOUND,   /* 404 */
    PROBLEM_GONE,        /* 404: a live session; it can be had again */
    PROBLEM_METHOD,      /* 405 */
    PROBLEM_STOPPED,     /* 409: somebody said so */
    PROBLEM_TOO_LARGE,   /* 413 */
    PROBLEM_LIMIT,       /* 429: too much at once */
    PROBLEM_INTERNAL,    /* 500 */
    PROBLEM_NO_DAEMON,   /* 503 */
    PROBLEM_LOADING,     /* 503: the daemon loads its model */
    PROBLEM_FULL,        /* 503: the daemon has no memory left for now */
    PROBLEM_DEADLINE,    /* 504: the time that the request gave itself is over */
    PROBLEM__N
};

struct problem {
    enum problem_kind kind;
    char param[64]; /* the field that it is about; empty: none */
    char text[640];
};

/* Returns -1, so that a reader can say `return problem_set(...)`. param may be NULL. */
int problem_set(struct problem *p, enum problem_kind kind, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#define PROBLEM_UNBUILT "gist-http is out of memory: the answer could not be put together"

int problem_no_memory(struct problem *p); /* of ours, for a request; -1 */
int problem_unbuilt(struct problem *p);   /* and for its answer: what was to be done is done; -1 */
/* *ret = o, or that it could not be built: NULL is out of memory. */
int problem_or_built(struct json_object *o, struct json_object **ret, struct problem *p);

/* What libgist said last: of the connection, or with NULL of the connect that failed. */
int problem_of_gist(struct problem *p, const gist_conn *c);

unsigned problem_status(const struct problem *p);
unsigned problem_retry_s(const struct problem *p); /* Retry-After; 0: it would not help */
const char *problem_openai_type(const struct problem *p);
const char *problem_openai_code(const struct problem *p); /* NULL: none */
const char *problem_anthropic_type(const struct problem *p);

#endif
