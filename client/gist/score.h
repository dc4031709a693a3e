/* gist/score.h - what the model makes of texts: scores, rows of numbers, tokens (a part of gist.h).
 */
#ifndef GIST_SCORE_H
#define GIST_SCORE_H

#ifndef GIST_H
#error "include <gist.h>, which has all of it"
#endif

/* n bytes of text, or n token ids. */
struct gist_span {
    const void *at;
    size_t n;
};

#define GIST_TOKENS 32u /* spans are ids */

/* How likely the model finds each of several continuations of s, all read behind where s stands
 * now, none behind another; s stays as it is. */
struct gist_choice {
    const uint32_t *ids;
    const float *logprobs; /* of each id */
    size_t n;
    double sum; /* of logprobs */
};
struct gist_choices {
    size_t size; /* sizeof(struct gist_choices) */
    const struct gist_choice *choices;
    size_t n;
    size_t best, best_mean; /* with the largest sum; with the largest mean a token */
    struct gist_usage usage;
};
/* flags: GIST_SPECIAL, GIST_TOKENS. *ret_choices is to be freed by gist_choices_free. -E2BIG: a
 * continuation is too long. */
GIST_API int gist_score_choices(gist_session *s, const struct gist_span *choices, size_t n,
                                unsigned flags, struct gist_choices **ret_choices);
GIST_API void gist_choices_free(struct gist_choices *choices);
/* choices lives until on_done returns; NULL with an error. */
typedef void gist_choices_fn(void *arg, int err, const struct gist_choices *choices);
GIST_API int gist_score_choices_start(gist_session *s, const struct gist_span *choices, size_t n,
                                      unsigned flags, gist_choices_fn *on_done, void *arg,
                                      uint64_t *ret_request);

/* Log-probabilities of a text's own tokens, in windows that do not overlap; each window is read
 * from nothing and its first token has none (NaN). Arrays are malloc'd: free() them. */
struct gist_score {
    uint32_t *ids;
    float *logprobs;
    size_t n;
    struct gist_usage usage;
};

struct gist_score_opts {
    size_t size;
    uint32_t window;                  /* 0: the model's context, or the budget of GIST_FULL */
    uint32_t segment;                 /* 0: as in gist_policy */
    const struct gist_memory *memory; /* of a window's earlier segments; NULL: GIST_FULL */
    unsigned flags;                   /* GIST_SET_WINDOW, GIST_SET_SEGMENT */
};
GIST_API int gist_score_text(gist_conn *c, const char *text, size_t len,
                             const struct gist_score_opts *opts, struct gist_score *ret_score);
GIST_API int gist_score_tokens(gist_conn *c, const uint32_t *ids, size_t n,
                               const struct gist_score_opts *opts, struct gist_score *ret_score);

/* Without waiting. score and its arrays live until on_score returns; NULL with an error. */
typedef void gist_score_fn(void *arg, int err, const struct gist_score *score);
GIST_API int gist_score_text_start(gist_conn *c, const char *text, size_t len,
                                   const struct gist_score_opts *opts, gist_score_fn *on_score,
                                   void *arg, uint64_t *ret_request);
GIST_API int gist_score_tokens_start(gist_conn *c, const uint32_t *ids, size_t n,
                                     const struct gist_score_opts *opts, gist_score_fn *on_score,
                                     void *arg, uint64_t *ret_request);

/* Whole rows: logits after token i, for every i. rows lie in shared memory: no copy is made. */
typedef int gist_rows_fn(void *arg, size_t first, size_t n, uint32_t n_vocab, const float *rows);
GIST_API int gist_score_logits(gist_conn *c, const uint32_t *ids, size_t n,
                               const struct gist_score_opts *opts, gist_rows_fn *on_rows,
                               void *arg);
GIST_API int gist_score_logits_start(gist_conn *c, const uint32_t *ids, size_t n,
                                     const struct gist_score_opts *opts, gist_rows_fn *on_rows,
                                     gist_done_fn *on_done, void *arg, uint64_t *ret_request);

enum gist_pooling {
    GIST_POOL_MEAN, /* of all tokens of a text */
    GIST_POOL_LAST  /* its last token's */
};

#define GIST_NORMALISE 64u /* to length 1 */

struct gist_embed_opts {
    size_t size; /* sizeof(struct gist_embed_opts) */
    enum gist_pooling pooling;
    enum gist_priority priority;
    unsigned flags; /* GIST_NORMALISE, GIST_SPECIAL, GIST_TOKENS */
};

/* A row for each text: hidden states behind the model's final norm. */
struct gist_embeddings {
    size_t size;          /* sizeof(struct gist_embeddings) */
    const float *vectors; /* (n, n_embd) */
    size_t n;
    uint32_t n_embd;
    const uint32_t *n_tokens; /* (n) that were read */
    struct gist_usage usage;
};

/* Reads each of several texts, at most 2048, from nothing and alone; none may be empty or longer
 * than the model's context. opts NULL: means, as they are. *ret_embeddings is to be freed by
 * gist_embeddings_free. */
GIST_API int gist_embed(gist_conn *c, const struct gist_span *texts, size_t n,
                        const struct gist_embed_opts *opts,
                        struct gist_embeddings **ret_embeddings);
GIST_API void gist_embeddings_free(struct gist_embeddings *embeddings);
/* embeddings lives until on_done returns; NULL with an error. */
typedef void gist_embeddings_fn(void *arg, int err, const struct gist_embeddings *embeddings);
GIST_API int gist_embed_start(gist_conn *c, const struct gist_span *texts, size_t n,
                              const struct gist_embed_opts *opts, gist_embeddings_fn *on_done,
                              void *arg, uint64_t *ret_request);

/* *ret_ids and *ret_text are malloc'd: free() them. */
GIST_API int gist_tokenize(gist_conn *c, const char *text, size_t len, unsigned flags,
                           uint32_t **ret_ids, size_t *ret_n);
GIST_API int gist_detokenize(gist_conn *c, const uint32_t *ids, size_t n, char **ret_text,
                             size_t *ret_len);
/* Without waiting. What came of it lives until the callback returns; NULL with an error. */
typedef void gist_tokens_fn(void *arg, int err, const uint32_t *ids, size_t n);
typedef void gist_string_fn(void *arg, int err, const char *text, size_t len);
GIST_API int gist_tokenize_start(gist_conn *c, const char *text, size_t len, unsigned flags,
                                 gist_tokens_fn *on_tokens, void *arg, uint64_t *ret_request);
GIST_API int gist_detokenize_start(gist_conn *c, const uint32_t *ids, size_t n,
                                   gist_string_fn *on_string, void *arg, uint64_t *ret_request);

#endif
