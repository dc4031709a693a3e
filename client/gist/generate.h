/* gist/generate.h - answers (a part of gist.h). */
#ifndef GIST_GENERATE_H
#define GIST_GENERATE_H

#ifndef GIST_H
#error "include <gist.h>, which has all of it"
#endif

/* How an answer has to look: a text of the grammar, which ends within max_tokens and the session's
 * room; limits that allow none are refused. The beginning of one, when gist_result says that it was
 * cut (any reason but GIST_END_OF_TEXT): by a stop string, or a full pool. */
enum gist_grammar {
    GIST_ANY_TEXT,
    GIST_GBNF,        /* a grammar in llama.cpp's notation; answers are texts of its rule `root` */
    GIST_JSON_SCHEMA, /* a JSON Schema; answers are JSON texts that satisfy it. What of it can't be
                       * enforced is refused (GIST_E_UNSUPPORTED), and the place named */
    /* Calls of tools, as the model's template writes them (gist_tools), or an answer in a format.
     * The text is an object of JSON:
     *
     *     "form"     "tagged" or "bare"
     *     "tools"    [{"name": "f", "parameters": SCHEMA}, ...]; what the arguments satisfy, or
     *                without "parameters" any object
     *     "one"      true: one call at most
     *     "schema"   a JSON Schema of answers that are no calls; or
     *     "grammar"  GBNF of them; without both the answer is calls
     *
     * A format whose texts may begin as calls do is refused, since nobody could tell them apart. */
    GIST_CALLS
};

/* Natural logarithms of the probability that the model gave a token, before penalties, temperature
 * and grammar; and n_top of the likeliest ones in its place, from the likeliest on. */
struct gist_logprob {
    uint32_t id;
    float logprob;
    uint32_t n_top;
    const uint32_t *top_ids;
    const float *top_logprobs;
    uint32_t answer; /* of which answer, from 0 */
};
/* One token; a later library's struct may be longer. */
typedef void gist_logprob_fn(void *arg, const struct gist_logprob *token);

struct gist_sampling {
    size_t size;         /* sizeof(struct gist_sampling) */
    uint32_t max_tokens; /* 0: until a stop or the end of the context */
    float temperature;   /* 0: greedy */
    uint32_t top_k;      /* 0: all */
    float top_p;         /* 0 or 1: all; 0 with GIST_SET_TOP_P: only the likeliest token */
    float min_p;
    float repeat_penalty; /* 0 or 1: none */
    uint32_t repeat_last_n;
    uint64_t seed;
    const char *const *stop;
    uint32_t n_stop;
    int ignore_eog;
    unsigned flags; /* GIST_SET_TOP_P, GIST_SET_REPEAT_PENALTY, GIST_SET_LOGPROBS, GIST_SET_DRAFT */
    enum gist_grammar grammar;
    const char *grammar_text; /* of grammar_len bytes */
    size_t grammar_len;
    uint32_t logprobs;           /* of so many of the likeliest tokens, at most 20; 0: none, or with
                                  * GIST_SET_LOGPROBS those of the answer's own tokens alone */
    gist_logprob_fn *on_logprob; /* before on_text is given their text, with its arg */
    /* Tokens that are guessed ahead from what the session holds, at most 15 and no more than the
     * daemon allows: the same answer, sooner where it repeats that. GIST_DRAFT_AUTO: as many as
     * pay; 0: as the daemon does, or with GIST_SET_DRAFT none. */
    uint32_t draft;
};

enum gist_reason {
    GIST_END_OF_TEXT,
    GIST_STOP,
    GIST_LENGTH,
    GIST_CONTEXT_FULL,
    GIST_POOL_FULL,
    GIST_CANCELLED, /* with -ECANCELED */
    GIST_CUT        /* with another error, or for what only a later library has a name */
};
/* "end_of_text" and so on; NULL for what this library does not know. */
GIST_API const char *gist_reason_name(enum gist_reason reason);

struct gist_result {
    enum gist_reason reason;
    /* With GIST_STOP: which of gist_sampling.stop it was, from 1; of several that end at the same
     * character the first one. 0: not known, from an older daemon. */
    uint32_t stop;
    struct gist_usage usage;
};

/* Called for each piece of the answer: whole UTF-8 characters and the ids they came from. A
 * non-zero return cancels the answer. */
typedef int gist_text_fn(void *arg, const char *text, size_t len, const uint32_t *ids,
                         size_t n_ids);

/* sampling NULL: greedy, until a stop. -ECANCELED after a cancel: what was said stays in the
 * session, and *ret_result is how much that is; of other errors too, if the answer had begun. */
GIST_API int gist_generate(gist_session *s, const struct gist_sampling *sampling,
                           gist_text_fn *on_text, void *arg, struct gist_result *ret_result);

/* The same without waiting. */
GIST_API int gist_generate_start(gist_session *s, const struct gist_sampling *sampling,
                                 gist_text_fn *on_text, gist_done_fn *on_done, void *arg,
                                 uint64_t *ret_request);

/* n answers, at most 64, of the same prompt, written at once: each behind where s stands now, with
 * the seed of sampling and its number more. s stays as it is. on_text gets the number, too;
 * ret_results, (n), may be NULL. */
typedef int gist_answers_fn(void *arg, uint32_t answer, const char *text, size_t len,
                            const uint32_t *ids, size_t n_ids);
GIST_API int gist_generate_several(gist_session *s, const struct gist_sampling *sampling,
                                   uint32_t n, gist_answers_fn *on_text, void *arg,
                                   struct gist_result *ret_results);
/* on_answer: one has ended. on_done: all have; the usage is theirs together. */
typedef void gist_answer_fn(void *arg, uint32_t answer, const struct gist_result *result);
GIST_API int gist_generate_several_start(gist_session *s, const struct gist_sampling *sampling,
                                         uint32_t n, gist_answers_fn *on_text,
                                         gist_answer_fn *on_answer, gist_done_fn *on_done,
                                         void *arg, uint64_t *ret_request);

#endif
