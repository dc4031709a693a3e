/* gist.h - libgist, the client library of gistd.
 *
 * A gist_conn is a connection to the daemon, over shared memory. A gist_session is one growing
 * token sequence in the daemon's KV pool: append text to it, generate from it, append again.
 * Nothing is read twice.
 *
 *     gist_conn *c;  gist_session *s;
 *     if (gist_connect(NULL, "my-app", &c) < 0) ...gist_error(NULL)...
 *     gist_open(c, &(struct gist_policy){ sizeof(struct gist_policy), .flags = GIST_AUTO }, &s);
 *     gist_append_text(s, "The capital of France is", 24, 0, NULL);
 *     gist_generate(s, NULL, on_text, arg, &result);
 *     gist_close(s);  gist_disconnect(c);
 *
 * Blocking and not: every gist_x waits for its answer. gist_x_start sends the request and returns;
 * then wait until gist_fd() is readable, call gist_dispatch(), which calls the callbacks, until the
 * request's done callback came. Both styles may be mixed on one connection.
 *
 * Threads    one thread at a time a connection and its sessions; any number of connections.
 *            gist_cancel_async may be called from any thread and from a signal handler.
 * Ownership  open/close, connect/disconnect. Text and arrays given to callbacks live until they
 *            return; callbacks must not close the connection or make blocking calls on it.
 * Errors     0 or a negative errno; gist_error() has the sentence, gist_error_code() the daemon's
 *            code.
 */
#ifndef GIST_H
#define GIST_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GIST_API __attribute__((visibility("default")))

typedef struct gist_conn gist_conn;
typedef struct gist_session gist_session;

/* Codes of gist_error_code(). Negative errnos returned with them in brackets. */
enum gist_code {
    GIST_OK = 0,
    GIST_E_TRANSPORT,               /* no daemon, it died, or it broke the protocol (-EPIPE...) */
    GIST_E_INTERNAL,                /* (-EIO) */
    GIST_E_BAD_REQUEST,             /* (-EINVAL) */
    GIST_E_NOT_FOUND,               /* (-ENOENT) */
    GIST_E_BUSY,                    /* (-EBUSY) the session is at work */
    GIST_E_CONTEXT_LENGTH_EXCEEDED, /* (-E2BIG) */
    GIST_E_POOL_FULL,               /* (-ENOSPC) the daemon has no page left */
    GIST_E_LIMIT,                   /* (-EDQUOT) a limit that the daemon sets each client */
    GIST_E_CANCELLED,               /* (-ECANCELED) */
    GIST_E_UNSUPPORTED,             /* (-ENOTSUP) */
    GIST_E_SHUTTING_DOWN,           /* (-ESHUTDOWN) */
    GIST_E_NO_MEMORY,               /* (-ENOMEM) */
    GIST_E_NAME_EXISTS,             /* (-EEXIST) the name is taken */
    GIST_E_WRONG_MODEL,             /* (-EMEDIUMTYPE) saved with another model or adapter */
    GIST_E_STORAGE                  /* (-EROFS) the daemon's store is off, or its disk fails */
};

/* --- connection ------------------------------------------------------------------------------- */

/* path NULL: $GISTD_SOCKET, $XDG_RUNTIME_DIR/gistd/gistd.sock, /run/gistd/gistd.sock. name is shown
 * by `gistctl status`. */
GIST_API int gist_connect(const char *path, const char *name, gist_conn **ret_conn);

/* Called from inside gist_connect_with while the daemon loads its model, first at once and then
 * when the number (0 to 100) changes. Not 0: don't wait any longer, -ECANCELED. */
typedef int gist_loading_fn(void *arg, unsigned percent);

/* Trusts whoever serves the socket. Without it that must be root, the user gistd or this program's
 * own user: -EPERM else, and nothing was said. */
#define GIST_ANY_SERVER 1u

struct gist_connect_opts {
    size_t size; /* sizeof(struct gist_connect_opts) */
    const char *path, *name;
    int timeout_ms; /* 0: a minute; -1: none. For all of it, or with on_loading until its next call:
                     * who watches the model being loaded waits as long as it goes on */
    gist_loading_fn *on_loading; /* may be NULL */
    void *arg;
    unsigned flags; /* GIST_ANY_SERVER */
};
GIST_API int gist_connect_with(const struct gist_connect_opts *opts, gist_conn **ret_conn);
GIST_API void gist_disconnect(gist_conn *c); /* ends its sessions */

/* The last error of this connection; NULL: of the last failed gist_connect of this thread. */
GIST_API const char *gist_error(const gist_conn *c);
GIST_API enum gist_code gist_error_code(const gist_conn *c);

struct gist_info {
    const char *version, *model, *model_digest; /* live as long as the connection */
    uint32_t n_vocab, context_max, segment_default;
    int chat; /* a known chat template */
};
GIST_API void gist_info(const gist_conn *c, struct gist_info *ret_info);

/* How the model's own chat template writes calls of tools, and so how they look in answers: */
enum gist_tools {
    GIST_TOOLS_NONE,   /* it knows none; lists and calls are written as by GIST_TOOLS_TAGGED */
    GIST_TOOLS_TAGGED, /* <tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call> */
    GIST_TOOLS_BARE    /* the whole answer is {"name": "f", "parameters": {"x": 1}} */
};
GIST_API enum gist_tools gist_tools(const gist_conn *c);

/* Readable when gist_dispatch() has something to do. Level-triggered: also when the daemon died. */
GIST_API int gist_fd(gist_conn *c);
/* Handles what is there. >= 0: the number of replies; -EPIPE: the daemon is gone. */
GIST_API int gist_dispatch(gist_conn *c);
/* How long a blocking call spins before it sleeps; default 20000 ns, 0: sleep at once. */
GIST_API void gist_set_spin(gist_conn *c, uint64_t ns);

GIST_API int gist_ping(gist_conn *c);

/* --- sessions --------------------------------------------------------------------------------- */

enum gist_priority { GIST_INTERACTIVE, GIST_BACKGROUND };

/* What becomes of old context. With any compressor but GIST_FULL a segment that is full and has
 * keep_tail tokens behind it is compressed; when the budget is short older segments are compressed
 * further, up to ratio 64: memory stays bounded, and a session may be longer than the model's
 * window. */
enum gist_compressor {
    GIST_FULL,          /* all of it stays as it is */
    GIST_NONE,          /* it is forgotten */
    GIST_FINE_KV,       /* one key and value of every `ratio` tokens */
    GIST_SELECT,        /* for each head those that the segment's end attends to */
    GIST_COARSE_KV,     /* an adapter's gists of the whole segment */
    GIST_COARSE_REC,    /* the same, their last hidden states read as soft tokens */
    GIST_SELECT_REREAD, /* for each head those that reading the segment again attends to */
    GIST_FIT /* those that the next segment would attend to, with values that stand for all of it */
};           /* gist_compressor_name knows those of a later library, too */

/* A struct of zeros asks for the defaults. A field whose 0 means "the default" is 0 itself when
 * flags of its struct say so; any other number needs no flag. */
#define GIST_SET_SEGMENT        0x100u
#define GIST_SET_RATIO          0x200u
#define GIST_SET_SINKS          0x400u
#define GIST_SET_BUDGET         0x800u
#define GIST_SET_WINDOW         0x1000u
#define GIST_SET_TOP_P          0x2000u
#define GIST_SET_REPEAT_PENALTY 0x4000u
#define GIST_SET_HYDRATE        0x8000u
#define GIST_SET_LOGPROBS       0x10000u
#define GIST_SET_DRAFT          0x20000u

#define GIST_NO_SINKS     UINT32_MAX /* 0 with GIST_SET_SINKS */
#define GIST_HYDRATE_AUTO UINT32_MAX /* as many as fit */
#define GIST_DRAFT_AUTO   UINT32_MAX /* as many as pay */
#define GIST_LATE         1u         /* segments stay as they are until the budget is short */
#define GIST_FIXED        2u /* all segments keep one ratio: when the budget is used up, an error */

/* Texts of any length, without a choice to make: all of it stays as it is while it fits (the
 * model's window or the budget, this client's pages, the daemon's), and is exactly what GIST_FULL
 * has. When it does not fit the oldest segments are compressed, as far as needed; never what was
 * asked last, while it is answered; and those that a prompt points to come back as they were read.
 * In gist_policy.flags it is all that has to be
 * said, and what new programs should say. In gist_memory.flags it chooses what the other fields
 * leave at 0, and takes what they say. Who does not say it has what earlier versions had:
 * GIST_FULL, which ends with GIST_E_CONTEXT_LENGTH_EXCEEDED when a text does not fit. */
#define GIST_AUTO 0x20u

struct gist_memory {
    size_t size; /* sizeof(struct gist_memory) */
    enum gist_compressor compressor;
    uint32_t ratio;      /* 2 to 64, a divisor of the segment; 0: 8, by GIST_AUTO 4 */
    uint32_t sinks;      /* first tokens that always stay; 0: the adapter's,
                          * without one 4; GIST_NO_SINKS: none */
    uint32_t keep_tail;  /* last tokens that are not compressed yet */
    const char *adapter; /* that makes the gists, of gist_stats.adapters; NULL: none */
    uint32_t budget;     /* keys that the session may hold; 0: as many as the model's window */
    unsigned flags;      /* GIST_AUTO, _LATE, _FIXED, GIST_SET_RATIO, _SINKS, _BUDGET, _HYDRATE */
    uint32_t hydrate;    /* compressed segments, at most, that come back as they were read for a
                          * prompt that points to them; 0: none, by GIST_AUTO as many as fit */
};

/* "full" for GIST_FULL and so on, and a sentence that says what old context becomes; NULL past the
 * last. */
GIST_API const char *gist_compressor_name(enum gist_compressor compressor);
GIST_API const char *gist_compressor_help(enum gist_compressor compressor);

/* All that the session reads and writes is no secret: it takes over what sessions of any user with
 * this flag have read, and they what it has. Without it sessions of one user do so among
 * themselves. */
#define GIST_PUBLIC 1u

/* Nothing of the session is kept when it is closed, in the daemon's memory or on disk, and no other
 * session takes anything over from it. It may take over itself what earlier sessions of this user
 * have read. Not with GIST_PUBLIC. */
#define GIST_PRIVATE 2u

struct gist_policy {
    size_t size;      /* sizeof(struct gist_policy): later versions may grow it */
    uint32_t segment; /* tokens; 0: the adapter's, or the daemon's default */
    enum gist_priority priority;
    const char *label;                /* for status; may be NULL */
    const struct gist_memory *memory; /* NULL: GIST_FULL, or GIST_AUTO of flags */
    unsigned flags;                   /* GIST_AUTO, GIST_PUBLIC, GIST_PRIVATE, GIST_SET_SEGMENT */
    /* (n_documents) names: the session begins with them, under what the first was added with.
     * memory, segment and GIST_PUBLIC are that then; who says them all the same must say the same.
     * Several, of the same options, stand in any order, each as it was read alone; automatic ones,
     * and any with GIST_AUTO or longer than the window, are read as one text of any length. */
    const char *const *documents;
    size_t n_documents;
};

#define GIST_RATIOS 6 /* 2 and its doubles, up to 64 */

struct gist_usage {
    uint32_t prompt_tokens, computed_tokens, generated_tokens;
    uint64_t prompt_ns, first_token_ns, generate_ns;
    uint32_t raw_tokens, gist_tokens; /* of prompt_tokens: there as they are, there as gists */
    uint32_t gists;                   /* keys that stand for gist_tokens */
    uint32_t shared_tokens;           /* not computed: an earlier session had read them */
    uint32_t restored_tokens;         /* not computed: they came back from the disk */
    /* of prompt_tokens: of documents that were read alone, and not behind what stands before them
     */
    uint32_t approximate_tokens;
    /* of raw_tokens: of compressed segments that are there as they were read, for this prompt; of
     * these: read back from the disk for it, computed again */
    uint32_t hydrated_tokens, hydrated_disk_tokens, recomputed_tokens;
    uint32_t missed_tokens; /* of gist_tokens: the prompt points to them, but they can't come back
                             */
    uint32_t ratio;         /* tokens a gist stands for at first; 0: there are none */
    uint32_t at_ratio[GIST_RATIOS]; /* of gist_tokens: at that ratio, at twice, four times ... it */
    uint32_t drafted_tokens;        /* guessed ahead */
    uint32_t accepted_tokens;       /* and right: each a step of the model less */
};

GIST_API int gist_open(gist_conn *c, const struct gist_policy *policy, gist_session **ret_session);
GIST_API void gist_close(gist_session *s); /* does not wait; the daemon frees its pages */
GIST_API uint64_t gist_session_id(const gist_session *s);
/* What it took to open s: its documents, or what gist_restore read. Zeros of any other. */
GIST_API void gist_session_usage(const gist_session *s, struct gist_usage *ret_usage);

/* A session that goes on from where s is: tokens, policy and logits are the same, memory is shared
 * as long as both leave it as it is. label may be NULL. */
GIST_API int gist_fork(gist_session *s, const char *label, gist_session **ret_session);
/* Takes s back to its first n_tokens (of gist_usage.prompt_tokens), as if nothing had come behind
 * them. */
GIST_API int gist_rewind(gist_session *s, uint32_t n_tokens);

/* role: "system", "user", "assistant". And of tools: "tools", before all others, is what may be
 * called, a line of JSON each, as OpenAI's API has them; "calls", behind what the assistant says
 * beside them, if anything, is what it calls, a line for each of its name, a space and its
 * arguments as JSON; "tool" is what came of a call. */
struct gist_message {
    const char *role;
    const char *text;
};

/* n_read of n_tokens are there; both 0: the text is still being encoded. */
typedef void gist_progress_fn(void *arg, uint32_t n_read, uint32_t n_tokens);

/* From now on appends to s tell how far they are: at first how many tokens need not be computed,
 * since they were read before or another session is reading them now, then after each step. NULL:
 * not any more. */
GIST_API void gist_on_progress(gist_session *s, gist_progress_fn *on_progress, void *arg);

#define GIST_SPECIAL     1u /* special tokens in the text are special */
#define GIST_OPEN_ANSWER 2u /* chat: end with the head of an assistant's turn */

/* Read into the session all that is given, or nothing, if they fail. Texts and lists of any length
 * are sent in parts and read as one: the tokens are those of the whole. */
GIST_API int gist_append_text(gist_session *s, const char *text, size_t len, unsigned flags,
                              struct gist_usage *ret_usage);
GIST_API int gist_append_tokens(gist_session *s, const uint32_t *ids, size_t n,
                                struct gist_usage *ret_usage);
GIST_API int gist_append_chat(gist_session *s, const struct gist_message *msgs, size_t n,
                              unsigned flags, struct gist_usage *ret_usage);

/* How an answer has to look: a text of the grammar, or the beginning of one, when gist_result says
 * that it was cut (any reason but GIST_END_OF_TEXT). */
enum gist_grammar {
    GIST_ANY_TEXT,
    GIST_GBNF,       /* a grammar in llama.cpp's notation; answers are texts of its rule `root` */
    GIST_JSON_SCHEMA /* a JSON Schema; answers are JSON texts that satisfy it. What of it can't be
                      * enforced is refused (GIST_E_UNSUPPORTED), and the place named */
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

enum gist_reason { GIST_END_OF_TEXT, GIST_STOP, GIST_LENGTH, GIST_CONTEXT_FULL, GIST_POOL_FULL };

struct gist_result {
    enum gist_reason reason;
    struct gist_usage usage;
};

/* Called for each piece of the answer: whole UTF-8 characters and the ids they came from. A
 * non-zero return cancels the answer. */
typedef int gist_text_fn(void *arg, const char *text, size_t len, const uint32_t *ids,
                         size_t n_ids);

/* sampling NULL: greedy, until a stop. -ECANCELED after a cancel: what was said stays in the
 * session. */
GIST_API int gist_generate(gist_session *s, const struct gist_sampling *sampling,
                           gist_text_fn *on_text, void *arg, struct gist_result *ret_result);

/* The same without waiting. on_done: err 0 or a negative errno, once. *ret_request (may be NULL) is
 * for gist_cancel. */
typedef void gist_done_fn(void *arg, int err, const struct gist_result *result);
GIST_API int gist_append_text_start(gist_session *s, const char *text, size_t len, unsigned flags,
                                    gist_done_fn *on_done, void *arg, uint64_t *ret_request);
GIST_API int gist_append_tokens_start(gist_session *s, const uint32_t *ids, size_t n,
                                      gist_done_fn *on_done, void *arg, uint64_t *ret_request);
GIST_API int gist_append_chat_start(gist_session *s, const struct gist_message *msgs, size_t n,
                                    unsigned flags, gist_done_fn *on_done, void *arg,
                                    uint64_t *ret_request);
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

GIST_API int gist_cancel(gist_conn *c, uint64_t request);

/* What a session is doing (of gist_stats), which may be another connection's of this user. -ENOENT:
 * there is none of that number at work. */
GIST_API int gist_cancel_session(gist_conn *c, uint64_t session);

/* The blocking call that this connection is in returns -ECANCELED soon. Async-signal-safe. */
GIST_API void gist_cancel_async(gist_conn *c);

/* --- by name ---------------------------------------------------------------------------------- */

/* Names are this user's, sessions' and documents' apart: 1 to 128 bytes of UTF-8 without control
 * characters and '/'. */

#define GIST_REPLACE 4u /* also where the name is taken; else GIST_E_NAME_EXISTS */

/* Keeps where s stands, on disk: gist_restore opens a session that stands there, also of another
 * connection, and after the daemon was started anew. flags: GIST_REPLACE. label NULL: as it was. */
GIST_API int gist_save(gist_session *s, const char *name, unsigned flags);
GIST_API int gist_restore(gist_conn *c, const char *name, const char *label,
                          gist_session **ret_session);

/* A document is a text that sessions begin with (gist_policy.documents): it is read once. The name
 * is there at once, also for other connections, while it is still read. */
#define GIST_PIN   8u  /* its memory is kept until it is deleted */
#define GIST_PLAIN 16u /* no chat message, though the model has a template */

struct gist_document {
    size_t size;      /* sizeof(struct gist_document) */
    uint32_t segment; /* as in gist_policy */
    const struct gist_memory *memory;
    enum gist_priority priority;   /* of reading it */
    const char *role;              /* of the chat message that the text becomes; NULL: "system" */
    gist_progress_fn *on_progress; /* may be NULL; gets the call's arg */
    void *arg;                     /* for on_progress of the blocking call */
    unsigned flags;                /* GIST_PIN, _PLAIN, _REPLACE, _PUBLIC, _SET_SEGMENT */
};

/* Waits until it was read. -ECANCELED and any other error, and the end of the connection: there is
 * no such document. document NULL: zeros. */
GIST_API int gist_document_add(gist_conn *c, const char *name, const char *text, size_t len,
                               const struct gist_document *document, struct gist_usage *ret_usage);
GIST_API int gist_document_add_start(gist_conn *c, const char *name, const char *text, size_t len,
                                     const struct gist_document *document, gist_done_fn *on_done,
                                     void *arg, uint64_t *ret_request);

enum gist_named { GIST_SESSIONS, GIST_DOCUMENTS };
enum gist_state {
    GIST_READY,
    GIST_READING,
    GIST_OTHER_MODEL, /* saved with another model or adapter than the daemon has now */
    GIST_DAMAGED      /* its file can't be read */
};
struct gist_row {
    const char *name, *label, *model; /* model: that it was saved with */
    enum gist_state state;
    uint32_t n_tokens, n_read;
    int pinned, kept; /* kept: on disk; else it goes with the daemon */
    uint64_t at_s;    /* when it was saved or added, seconds since 1970 */
    uint64_t bytes;   /* of its file */
};
/* In order of name; a later library's rows may be longer. Not 0 ends the list. */
typedef int gist_row_fn(void *arg, const struct gist_row *row);
GIST_API int gist_list(gist_conn *c, enum gist_named kind, gist_row_fn *on_row, void *arg);

/* Sessions that were restored from it, or begin with it, go on. */
GIST_API int gist_delete(gist_conn *c, enum gist_named kind, const char *name);

/* --- without a session ------------------------------------------------------------------------ */

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

/* Whole rows: logits after token i, for every i. rows lie in shared memory: no copy is made. */
typedef int gist_rows_fn(void *arg, size_t first, size_t n, uint32_t n_vocab, const float *rows);
GIST_API int gist_score_logits(gist_conn *c, const uint32_t *ids, size_t n,
                               const struct gist_score_opts *opts, gist_rows_fn *on_rows,
                               void *arg);

/* --- embeddings ------------------------------------------------------------------------------- */

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

GIST_API int gist_tokenize(gist_conn *c, const char *text, size_t len, unsigned flags,
                           uint32_t **ret_ids, size_t *ret_n);
GIST_API int gist_detokenize(gist_conn *c, const uint32_t *ids, size_t n, char **ret_text,
                             size_t *ret_len);

/* --- the daemon ------------------------------------------------------------------------------- */

struct gist_stats_client {
    uint64_t id;
    uint32_t pid, uid, sessions, pages;
    const char *name;
};
struct gist_stats_session {
    uint64_t id, client;
    uint32_t n_tokens, pages, segment;
    int busy;
    const char *label;
    uint32_t gist_pages; /* of pages: those of compressed segments */
    uint64_t request;    /* that is at work on it, as gist_trace has it; 0: none */
    const char *doing;   /* "append", "generate" ... */
    uint32_t generated_tokens, uid;
};
struct gist_stats_owner {
    uint32_t uid, clients, sessions, pages, gist_pages;
    /* Pages, those that several sessions share counted once; the most of that, of clients and of
     * sessions. */
    uint32_t held_pages, held_pages_max, clients_max, sessions_max;
    uint64_t text_bytes, text_bytes_max; /* of texts, ids, scores and logits */
    uint64_t rows;                       /* tokens read or written, since the user came */
};
struct gist_stats_store { /* what is kept on disk, of all users */
    uint64_t bytes, limit, records;
    uint64_t names;                               /* saved sessions and documents */
    uint64_t written, written_today, write_a_day; /* bytes; write_a_day 0: no limit */
    uint64_t puts, gets;                          /* records written and read since the start */
    /* gets, hits, misses, read_*, restored_tokens, computed_instead: 0 for who does not see all */
    uint64_t hits, misses;        /* records that were looked for and found, or not */
    uint64_t refused;             /* records that were not what was written */
    uint64_t evicted, expired;    /* for room, for age */
    uint64_t read_bytes, read_ns; /* of gets: the disk's speed */
    uint32_t pinned_pages;        /* of the pool, until they are written */
    uint32_t pending;             /* records that are not on disk yet */
    const char *degraded;         /* what it can't do and why; "": all is well */
    uint64_t degraded_s;          /* since when, seconds since 1970 */
    const char *io;               /* "io_uring", "threads" */
    /* Since the start; computed_instead: for reading them back would have taken longer. */
    uint64_t restored_tokens, computed_instead;
    uint64_t forgotten;    /* records that were not written: sessions wanted their pages */
    uint64_t ns_per_token; /* that the model takes to read; 0: not measured yet */
};
struct gist_stats {
    const char *version, *model, *model_digest, *cpu;
    const char *adapters; /* names, a space between them */
    uint32_t threads, page_bytes, page_tokens, pages, pages_free, pages_cached, n_clients,
        n_sessions, n_owners, requests_running, n_documents, pinned_pages;
    uint64_t uptime_ns, weights_bytes, scratch_bytes, kv_bytes, adapter_bytes;
    const char *weights_from;   /* "file", "image", "service manager" */
    uint64_t weights_memory;    /* bytes held for them */
    uint64_t weights_streamed;  /* bytes read for a token; 0: all stay in memory */
    uint64_t weights_read;      /* bytes read for steps so far, in */
    uint64_t weights_read_ns;   /* so long, while */
    uint64_t weights_waited_ns; /* nothing else was done so long */
    uint64_t requests_total, requests_failed, prompt_tokens_total, generated_tokens_total,
        steps_total;
    uint64_t client_errors_total;
    uint64_t drafted_tokens_total, accepted_tokens_total; /* of answers: guessed ahead, and right */
    const struct gist_stats_client *clients;              /* (n_clients) */
    const struct gist_stats_session *sessions;            /* (n_sessions) */
    const struct gist_stats_owner *owners; /* (n_owners): each user's clients together */
    const struct gist_stats_store *store;  /* NULL: nothing is kept on disk, */
    const char *store_off;                 /* and this says why */
    uint32_t requests_waiting; /* of requests_running: the model has done nothing for them yet */
};
/* What it points to lives until the next call on the connection. Of other users it has numbers
 * alone, unless root or the daemon's user asks. */
GIST_API int gist_stats(gist_conn *c, struct gist_stats *ret_stats);

/* The same at once and then every interval_ms (0: 1000, at least 100), until gist_cancel or a
 * non-zero return. on_done: -ECANCELED. */
typedef int gist_stats_fn(void *arg, const struct gist_stats *stats);
GIST_API int gist_watch_start(gist_conn *c, uint32_t interval_ms, gist_stats_fn *on_stats,
                              gist_done_fn *on_done, void *arg, uint64_t *ret_request);

/* Where the time of a request went that used the model. */
struct gist_trace_row {
    uint64_t number, session, at_s;    /* at_s: when it came, seconds since 1970 */
    const char *what, *client, *ended; /* "generate"; ended: "done", or an error's name */
    uint64_t total_ns, queue_ns;       /* until the answer was ready; until its first step */
    uint64_t restore_ns, hydrate_ns;   /* waited for the disk, for old segments */
    uint64_t prefill_ns, compress_ns, decode_ns; /* in steps that did that for it */
    uint64_t first_token_ns, ring_ns; /* from its arrival; had replies that found no room */
    uint32_t computed_tokens, found_tokens, generated_tokens;
    uint32_t drafted_tokens, accepted_tokens; /* guessed ahead, and right */
};
typedef void gist_trace_fn(void *arg, const struct gist_trace_row *rows, size_t n);
/* Of this user's requests that ended last, the newest first, or of the one of that number. -ENOENT:
 * it is not known, or not any more. */
GIST_API int gist_trace(gist_conn *c, uint64_t number, gist_trace_fn *on_rows, void *arg);

/* How a session's text is held, segment by segment: the picture of its memory. */
enum gist_segment_state {
    GIST_SEGMENT_RAW,     /* a key for each token, or it is not full yet */
    GIST_SEGMENT_GISTS,   /* compressed: n_keys stand for all of its tokens; 0: it is forgotten */
    GIST_SEGMENT_HYDRATED /* compressed, and there as it was read for the last prompt */
};
struct gist_segment {
    enum gist_segment_state state;
    uint32_t n_tokens, n_keys;
    uint32_t ratio; /* tokens a gist stands for; HYDRATED: will stand for again; 0: it has none */
    int stored;     /* as it was read it is on the disk, too */
};
struct gist_segments {
    uint32_t n_segments; /* of the session */
    /* Tokens of a full segment; of all of them, which is without an answer's last token until it is
     * read. */
    uint32_t segment, n_tokens, n_keys;
    uint32_t budget;               /* keys that it may have */
    size_t n;                      /* of at */
    const struct gist_segment *at; /* (n) from `first` on: there may be more behind them */
};
/* session: its number (of gist_session_id, or gist_stats), which may be of another connection of
 * this user. What it points to lives until the next call on the connection. Also while the session
 * is at work. -ENOENT: there is none of that number. */
GIST_API int gist_segments(gist_conn *c, uint64_t session, uint32_t first,
                           struct gist_segments *ret_segments);

/* --- what is kept on disk --------------------------------------------------------------------- */

/* Records of what this user's sessions have read, which later ones need not compute again. */
enum gist_cache_verb {
    GIST_CACHE_STAT,   /* how much it is */
    GIST_CACHE_LIST,   /* rows of all records, in order of id */
    GIST_CACHE_VERIFY, /* reads all of it; records that are not what was written are deleted */
    GIST_CACHE_PRUNE,  /* deletes records, those worth least first, until opts->bytes are left */
    GIST_CACHE_FORGET  /* deletes all, saved sessions and documents too, and in memory as well */
};

#define GIST_CACHE_PUBLIC                                                                          \
    1u /* of public sessions. PRUNE and FORGET: root and the daemon's user                         \
        */

struct gist_cache_opts {
    size_t size;    /* sizeof(struct gist_cache_opts) */
    uint64_t after; /* STAT, LIST, VERIFY: records with a larger id */
    uint64_t bytes; /* PRUNE */
    unsigned flags; /* GIST_CACHE_PUBLIC */
};

struct gist_cache_row {
    uint64_t id, bytes;
    uint64_t used_s;   /* when last, seconds since 1970 */
    uint64_t cost_ns;  /* computing it again would take about so long */
    uint32_t n_tokens; /* that it stands for */
    uint32_t n_keys;   /* that it has of each head */
    uint32_t depth;    /* tokens before it; 0 also where that is not known */
    int packed;        /* gists, else keys and values of each token */
};

/* Of all records that a call was about; of PRUNE and FORGET: those deleted. */
struct gist_cache_sum {
    uint64_t records, bytes, tokens;
    uint64_t packed_records, packed_bytes; /* part of the above */
    uint64_t bad_records, bad_bytes;       /* VERIFY: part of the above; deleted */
    uint64_t unread_records;               /* VERIFY: could not be read, and are still there */
    uint64_t total;                        /* VERIFY: records there were when it began */
};

/* Rows of LIST; of VERIFY now and then none, with the sums so far. Non-zero cancels the call. */
typedef int gist_cache_fn(void *arg, const struct gist_cache_row *rows, size_t n,
                          const struct gist_cache_sum *so_far);
typedef void gist_cache_done_fn(void *arg, int err, const struct gist_cache_sum *sum);

/* opts, on_rows and ret_sum may be NULL. One verification of a connection runs at a time, others
 * wait. -EROFS: the daemon keeps nothing on disk. */
GIST_API int gist_cache(gist_conn *c, enum gist_cache_verb verb, const struct gist_cache_opts *opts,
                        gist_cache_fn *on_rows, void *arg, struct gist_cache_sum *ret_sum);
GIST_API int gist_cache_start(gist_conn *c, enum gist_cache_verb verb,
                              const struct gist_cache_opts *opts, gist_cache_fn *on_rows,
                              gist_cache_done_fn *on_done, void *arg, uint64_t *ret_request);

#ifdef __cplusplus
}
#endif
#endif
