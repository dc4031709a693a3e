/* ctl/ctl_answer.h - one answer of the model: reads a prompt, streams to standard output, keeps
 * the times.
 *
 * On a terminal control characters of the answer are shown as U+FFFD: a model can be talked into
 * writing escape sequences, and a terminal obeys them.
 */
#ifndef CTL_CTL_ANSWER_H
#define CTL_CTL_ANSWER_H

#include "client/gist.h"
#include "ctl/ctl.h"
#include "ctl/ctl_opt.h"

#include <stdbool.h>

/* What `ask` and `chat` let the user choose. */
struct ctl_answer_opts {
    struct gist_sampling sampling;
    struct ctl_opt_list stop;
    const char *system;           /* NULL: the model's own */
    const char *grammar, *schema; /* files that say how answers look; NULL: no such */
    bool json_object;             /* or any JSON object */
    const char *draft;            /* NULL: as the daemon does */
    bool whole;                   /* of a grammar an answer that was cut is none: CTL_FAILED */
    struct ctl_text look;         /* what they say, by ctl_answer_read */
    bool logprobs;            /* with --json: of so many tokens beside each (sampling.logprobs) */
    bool stats;               /* print the times to stderr */
    bool json;                /* one object when all is said, instead of the text as it comes */
    bool is_public;           /* the session's text is no secret */
    bool is_private;          /* nothing of it is kept */
    uint64_t end_ns;          /* by when it is to be said, of ctl_now_ns; 0: whenever it is */
    struct gist_usage *usage; /* of the last prompt; NULL: nobody asks */
};

#define CTL_ANSWER_MAX_TOKENS 1024u

/* The rows of the option table for them. */
#define CTL_ANSWER_OPTIONS(o)                                                                      \
    { "system", 's', CTL_OPT_STRING, "TEXT", &(o)->system, 0, 0, "a system message" },             \
        { "max-tokens",                                                                            \
          'n',                                                                                     \
          CTL_OPT_U32,                                                                             \
          "N",                                                                                     \
          &(o)->sampling.max_tokens,                                                               \
          0,                                                                                       \
          1e9,                                                                                     \
          "end the answer after N tokens; 0: no limit (1024)" },                                   \
        { "temperature",                                                                           \
          't',                                                                                     \
          CTL_OPT_FLOAT,                                                                           \
          "T",                                                                                     \
          &(o)->sampling.temperature,                                                              \
          0,                                                                                       \
          100,                                                                                     \
          "sampling temperature; 0: always the likeliest token (0)" },                             \
        { "top-k",                                                                                 \
          0,                                                                                       \
          CTL_OPT_U32,                                                                             \
          "N",                                                                                     \
          &(o)->sampling.top_k,                                                                    \
          0,                                                                                       \
          4294967295.0,                                                                            \
          "sample from the N likeliest tokens; 0: all (0)" },                                      \
        { "top-p",                                                                                 \
          0,                                                                                       \
          CTL_OPT_FLOAT,                                                                           \
          "P",                                                                                     \
          &(o)->sampling.top_p,                                                                    \
          0,                                                                                       \
          1,                                                                                       \
          "sample from the likeliest tokens that sum to P; 0: the likeliest alone (1)" },          \
        { "min-p",                                                                                 \
          0,                                                                                       \
          CTL_OPT_FLOAT,                                                                           \
          "P",                                                                                     \
          &(o)->sampling.min_p,                                                                    \
          0,                                                                                       \
          0.999999,                                                                                \
          "leave out tokens less likely than P times the likeliest (0)" },                         \
        { "repeat-penalty",                                                                        \
          0,                                                                                       \
          CTL_OPT_FLOAT,                                                                           \
          "X",                                                                                     \
          &(o)->sampling.repeat_penalty,                                                           \
          0,                                                                                       \
          10,                                                                                      \
          "make recent tokens less likely; 1: off (1.1)" },                                        \
        { "repeat-last-n",                                                                         \
          0,                                                                                       \
          CTL_OPT_U32,                                                                             \
          "N",                                                                                     \
          &(o)->sampling.repeat_last_n,                                                            \
          0,                                                                                       \
          1024,                                                                                    \
          "how many recent tokens --repeat-penalty looks at (256)" },                              \
        { "seed",                                                                                  \
          0,                                                                                       \
          CTL_OPT_U64,                                                                             \
          "N",                                                                                     \
          &(o)->sampling.seed,                                                                     \
          0,                                                                                       \
          18446744073709549568.0,                                                                  \
          "same seed, same answer (random)" },                                                     \
        { "stop",                                                                                  \
          0,                                                                                       \
          CTL_OPT_LIST,                                                                            \
          "TEXT",                                                                                  \
          &(o)->stop,                                                                              \
          0,                                                                                       \
          0,                                                                                       \
          "end the answer before TEXT; repeatable" },                                              \
        { "public",                                                                                \
          0,                                                                                       \
          CTL_OPT_FLAG,                                                                            \
          NULL,                                                                                    \
          &(o)->is_public,                                                                         \
          0,                                                                                       \
          0,                                                                                       \
          "the text is not secret: share its computation with public sessions of other users" },   \
        { "private",                                                                               \
          0,                                                                                       \
          CTL_OPT_FLAG,                                                                            \
          NULL,                                                                                    \
          &(o)->is_private,                                                                        \
          0,                                                                                       \
          0,                                                                                       \
          "keep nothing of it afterwards, in memory or on disk" },                                 \
        { "grammar",                                                                               \
          0,                                                                                       \
          CTL_OPT_STRING,                                                                          \
          "FILE",                                                                                  \
          &(o)->grammar,                                                                           \
          0,                                                                                       \
          0,                                                                                       \
          "answer with a text of this GBNF grammar" },                                             \
        { "schema",                                                                                \
          0,                                                                                       \
          CTL_OPT_STRING,                                                                          \
          "FILE",                                                                                  \
          &(o)->schema,                                                                            \
          0,                                                                                       \
          0,                                                                                       \
          "answer with JSON that satisfies this JSON Schema" },                                    \
        { "json-object",                                                                           \
          0,                                                                                       \
          CTL_OPT_FLAG,                                                                            \
          NULL,                                                                                    \
          &(o)->json_object,                                                                       \
          0,                                                                                       \
          0,                                                                                       \
          "answer with a JSON object of any members, nested as the model likes" },                 \
        { "draft",                                                                                 \
          0,                                                                                       \
          CTL_OPT_STRING,                                                                          \
          "N",                                                                                     \
          &(o)->draft,                                                                             \
          0,                                                                                       \
          0,                                                                                       \
          "guess up to N tokens ahead from the text: the same answer, sooner; auto, off" },        \
    {                                                                                              \
        "stats", 0, CTL_OPT_FLAG, NULL, &(o)->stats, 0, 0,                                         \
            "print times to stderr, terminal or not"                                               \
    }

void ctl_answer_defaults(struct ctl_answer_opts *o);
/* After the options: reads the file that says how answers look. Not CTL_OK: that was said. */
int ctl_answer_read(struct ctl_answer_opts *o);
void ctl_answer_fini(struct ctl_answer_opts *o);

/* Of struct gist_policy: GIST_PUBLIC, GIST_PRIVATE. */
unsigned ctl_answer_policy_flags(const struct ctl_answer_opts *o);

/* What a session began with, when that is asked for. */
void ctl_answer_began(const gist_session *s, const struct ctl_answer_opts *o);

/* What is asked about, read in one go, and the question: apart, so that the daemon knows what to
 * look for in a memory that is longer than the model's window. */
struct ctl_prompt {
    const struct gist_message *before; /* (n_before), may be none */
    size_t n_before;
    const struct gist_message *msgs; /* (n_msgs) */
    size_t n_msgs;
};

/* Reads messages (a chat model) or their texts (any other) into the session, with a bar on a
 * terminal, says the answer, on lines of its own, and what it took and stands on. CTL_INTERRUPTED
 * after a Ctrl-C, also when that came before the first word. */
int ctl_answer_run(gist_conn *c, gist_session *s, const struct ctl_prompt *prompt,
                   const struct ctl_answer_opts *o);

/* The same without an answer: what is asked about, before the question is known. */
int ctl_answer_hear(gist_conn *c, gist_session *s, const struct gist_message *msgs, size_t n_msgs,
                    const struct ctl_answer_opts *o);

/* Its first half: reads the prompt. A negative errno. */
int ctl_answer_prompt(gist_conn *c, gist_session *s, const struct ctl_prompt *prompt,
                      const struct ctl_answer_opts *o, struct gist_usage *ret_usage);
#endif
