/* http/ask.h - what a request of any API asks for, in our words.
 *
 * The readers (http/read.h) make it of JSON, a job (http/job.h) answers it.
 *
 * Threads    one at a time.
 * Ownership  texts point into `root`, the parsed body, or `mem`; ask_fini frees both.
 */
#ifndef HTTP_ASK_H
#define HTTP_ASK_H

#include "http/field.h"
#include "http/mem.h"

#define ASK_STOPS_MAX    16u /* as libgist */
#define ASK_MESSAGES_MAX 1024u
#define ASK_PROMPTS_MAX  64u
#define ASK_CHOICES_MAX  64u

/* One beginning that is gone on with: messages, a text or ids. */
struct ask_prompt {
    const struct gist_message *msgs;
    size_t n_msgs;
    const char *text; /* of messages: with what the answer begins; may be NULL */
    size_t len;
    const uint32_t *ids;
    size_t n_ids;
    bool chat;
};

/* A tool that may be called; parameters: the schema of its arguments, or NULL. strict: they satisfy
 * it also where no call is asked for, if the answer is held to anything. */
struct ask_tool {
    const char *name;
    const struct json_object *parameters;
    bool strict;
};

struct ask {
    struct mem mem;
    struct json_object *root;
    const char *model;           /* NULL: none was named */
    const char *session, *title; /* of a live session (http/live.h); NULL: a new one, none */
    uint32_t n_turns;            /* that its client sent it */
    uint32_t deadline_ms;        /* for all of it; 0: none */
    struct ask_prompt *prompts;
    size_t n_prompts;
    uint32_t n;      /* answers to each prompt */
    bool stream;     /* piece by piece */
    bool with_usage; /* a stream says at its end what it took */
    bool echo;       /* the answer begins with the prompt */
    bool count_only; /* nothing but the number of the prompt's tokens */
    bool no_answer;  /* it is read, and that is all */
    bool detachable; /* it goes on without its client (http/turn.h) */
    bool has_seed;
    bool logprobs; /* of the answer's tokens; sampling says of how many others */
    struct ask_tool *tools;
    size_t n_tools;
    bool must_call;              /* one of them, */
    const struct ask_tool *only; /* and if not NULL, this one */
    bool held;                   /* calls, or an answer in the format or the grammar of sampling */
    bool one_call;               /* at most; of an answer that is held */
    struct gist_sampling sampling;
    const char *stops[ASK_STOPS_MAX];
    bool ends_call; /* the last of them is not the client's but the end of a call (tools_one) */
    struct gist_policy policy;
    struct gist_memory memory;
};

void ask_init(struct ask *a); /* one greedy answer, automatic memory */
void ask_fini(struct ask *a);

/* One more message; there may be ASK_MESSAGES_MAX. Borrows both. */
int ask_message(struct ask *a, const char *role, const char *text, struct problem *p);
/* The messages so far become the one prompt. */
int ask_chat(struct ask *a, struct problem *p);

#endif
