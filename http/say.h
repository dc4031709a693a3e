/* http/say.h - the voices: a job's answer, and why there is none, as each API says it.
 *
 *     a stream       begin, then for each answer choice, text or call ..., choice_end; then end.
 *                    What several answers say comes mixed. keep_alive says, while nothing else is
 *                    there, that we are; error is the end of a stream that had begun.
 *     all at once    whole: the body, when the job is done.
 *     refused        refusal: the body beside a status that is no 200.
 *
 * What streams say goes to job.out; memory that is short shows there (mem.h).
 *
 * Threads    the job's.
 * Ownership  bodies are the caller's; NULL: out of memory.
 */
#ifndef HTTP_SAY_H
#define HTTP_SAY_H

#include "http/job.h"

struct voice {
    const char *stream_type; /* Content-Type */
    bool keeps_text;         /* the whole answer is said again at a stream's end */
    bool early;              /* begins when the prompt is read, and not with the first text */
    void (*begin)(struct job *j);
    void (*choice)(struct job *j);
    void (*text)(struct job *j, const char *text, size_t len);
    /* {id, name, arguments}; of those that read tools */
    void (*call)(struct job *j, const struct json_object *call);
    void (*choice_end)(struct job *j);
    void (*end)(struct job *j);
    void (*keep_alive)(struct job *j);
    unsigned tick_ms;              /* 0: never */
    void (*tick)(struct job *j);   /* now and then; may ask the daemon */
    void (*opened)(struct job *j); /* NULL: it says nothing of that; there is a session */
    void (*again)(struct job *j);  /* all that was said, to who did not hear it; of live sessions */
    void (*error)(struct job *j);
    struct json_object *(*whole)(const struct job *j);
    struct json_object *(*refusal)(const struct problem *p);
};

extern const struct voice say_chat, say_completions, say_responses, say_messages, say_count_tokens,
    say_ollama_chat, say_ollama_generate, say_page;

/* --- what they share -------------------------------------------------------------------------- */

/* Server-sent events and lines of JSON; they take over body. event NULL: none is named. */
void say_event(struct job *j, const char *event, struct json_object *body);
void say_line(struct job *j, struct json_object *body);
/* A comment of a stream of events: clients leave it out, and know that we live. */
void say_comment(struct job *j);
void say_nothing(struct job *j);

/* Of the answer that the job is at. */
struct job_choice *say_choice(struct job *j);
uint32_t say_cached(const struct job *j); /* tokens of the prompt that were not computed */
/* What it stood on, beside what the APIs count: the object `gistd`. */
struct json_object *say_gistd(const struct job *j);
struct json_object *say_text(const struct job_choice *c); /* the whole of it */
/* Log-probabilities of the text that is being said, the caller's from now on; NULL: not wanted. */
struct json_object *say_take_logprobs(struct job *j);
/* An array of what one() makes of each of the answer's calls. */
struct json_object *say_calls(const struct job_choice *c,
                              struct json_object *(*one)(const struct json_object *call));
/* An arguments object as a text, and as itself, once more. */
struct json_object *say_arguments_text(const struct json_object *call);
struct json_object *say_arguments(const struct json_object *call);
struct json_object *say_openai_refusal(const struct problem *p);

#endif
