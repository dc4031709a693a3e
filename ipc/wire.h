/* ipc/wire.h - requests and replies as plain structs, packed to and from protobuf frames.
 *
 * The one door to protobuf-c. The meaning of every field is in proto/gistd.proto; this header has
 * the same names. Strings are NUL-terminated.
 *
 * Unpacking takes its memory from a struct wire_scratch that the caller keeps: no malloc a frame,
 * and a frame that would need more than the scratch is refused.
 *
 * Threads    pure, but for the scratch: one thread a scratch.
 * Ownership  what an unpacked message points to lives in the scratch until its next use.
 * Errors     -EBADMSG (not such a message), -EMSGSIZE (a limit: of a string, a list, the frame or
 * the scratch), -ENOTSUP (a request, or a value of an enum, that this version does not know),
 *            -ENOMEM. Of a request that was refused the scratch has the sentence.
 */
#ifndef IPC_WIRE_H
#define IPC_WIRE_H

#include "base/why.h"
#include "ipc/wire_stats.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_SCRATCH_BYTES (256u * 1024)
#define WIRE_MESSAGES_MAX  1024u /* chat messages an Append */
#define WIRE_STOPS_MAX     16u   /* stop strings a Generate */
#define WIRE_DOCUMENTS_MAX 16u   /* an OpenSession */
#define WIRE_TEXTS_MAX     2048u /* texts an Embed */
#define WIRE_CHOICES_MAX   1024u /* continuations a ScoreChoices */
#define WIRE_STRING_MAX    4096u /* bytes of a string field but Text.text */

enum wire_req_kind {
    WIRE_HELLO,
    WIRE_OPEN_SESSION,
    WIRE_APPEND,
    WIRE_GENERATE,
    WIRE_CANCEL,
    WIRE_CLOSE_SESSION,
    WIRE_SCORE,
    WIRE_TOKENIZE,
    WIRE_DETOKENIZE,
    WIRE_GET_STATS,
    WIRE_PING,
    WIRE_FORK,
    WIRE_REWIND,
    WIRE_SAVE,
    WIRE_RESTORE,
    WIRE_LIST,
    WIRE_DELETE,
    WIRE_ADD_DOCUMENT,
    WIRE_CACHE = 20, /* values between are not in use yet */
    WIRE_WATCH,
    WIRE_TRACE,
    WIRE_SCORE_CHOICES,
    WIRE_EMBED,
    WIRE_SEGMENTS = 26,
    WIRE_REQ__N
};
enum wire_append_kind { WIRE_APPEND_TEXT, WIRE_APPEND_TOKENS, WIRE_APPEND_CHAT };
enum wire_score_kind { WIRE_SCORE_TEXT, WIRE_SCORE_TOKENS };
enum wire_score_want { WIRE_SCORE_LOGPROBS, WIRE_SCORE_LOGITS };
enum wire_pooling { WIRE_POOLING_MEAN, WIRE_POOLING_LAST };
enum wire_grammar { WIRE_GRAMMAR_NONE, WIRE_GRAMMAR_GBNF, WIRE_GRAMMAR_JSON_SCHEMA };
enum wire_priority { WIRE_INTERACTIVE, WIRE_BACKGROUND };
enum wire_cache_verb {
    WIRE_CACHE_STAT,
    WIRE_CACHE_LIST,
    WIRE_CACHE_VERIFY,
    WIRE_CACHE_PRUNE,
    WIRE_CACHE_FORGET
};
enum wire_named { WIRE_NAMED_SESSION, WIRE_NAMED_DOCUMENT };
enum wire_compressor {
#define COMPRESSOR(number, ID, id, name, help) WIRE_##ID = (number),
#include "base/compressors.def"
#undef COMPRESSOR
    WIRE_COMPRESSOR__N
};
/* Of a client that names none: keep all, or with an adapter what that is for. */
#define WIRE_COMPRESSOR_UNSAID ((enum wire_compressor)0)

/* A number that has a has_x is 0 where it is absent; a 0 that is meant has has_x set. */
struct wire_memory {
    enum wire_compressor compressor;
    bool has_ratio, has_sinks, has_budget, has_hydrate;
    uint32_t ratio, sinks, keep_tail, budget;
    uint32_t hydrate; /* segments; UINT32_MAX: as many as fit */
    bool late, fixed, automatic;
    const char *adapter;
};

struct wire_chat_message {
    const char *role;
    uint64_t text_len;
};

struct wire_req {
    uint64_t id, bulk_len;
    enum wire_req_kind kind;
    union {
        struct {
            const char *client;
        } hello;
        struct {
            bool has_segment;
            uint32_t segment;
            enum wire_priority priority;
            const char *label;
            struct wire_memory memory;
            bool public_prefix, is_private;
            const char *const *documents;
            uint32_t n_documents;
        } open_session;
        struct {
            uint64_t session;
            enum wire_append_kind kind;
            const struct wire_chat_message *messages;
            uint32_t n_messages;
            bool special, more, open_answer, progress;
        } append;
        struct {
            uint64_t session;
            uint32_t max_tokens;
            float temperature;
            uint32_t top_k;
            bool has_top_p, has_repeat_penalty;
            float top_p, min_p, repeat_penalty;
            uint32_t repeat_last_n;
            uint64_t seed;
            const char *const *stops;
            uint32_t n_stops;
            bool ignore_eog;
            enum wire_grammar grammar; /* of the bulk */
            bool more, has_logprobs, has_draft;
            uint32_t logprobs, draft, n;
        } generate;
        struct {
            uint64_t request, session; /* one of them */
        } cancel;
        struct {
            uint32_t interval_ms;
        } watch;
        struct {
            uint64_t number;
        } trace;
        struct {
            uint64_t session;
            uint32_t first;
        } segments;
        struct {
            uint64_t session;
        } close_session;
        struct {
            uint64_t session;
            const char *label;
        } fork;
        struct {
            uint64_t session;
            uint32_t n_tokens;
        } rewind;
        struct {
            enum wire_score_kind kind;
            bool has_window, has_segment;
            uint32_t window, segment;
            enum wire_score_want want;
            bool more;
            struct wire_memory memory;
        } score;
        struct {
            uint64_t session;
            enum wire_score_kind kind;
            const uint64_t *lens; /* (n) */
            uint32_t n;
            bool special, more;
        } score_choices;
        struct {
            enum wire_score_kind kind;
            const uint64_t *lens; /* (n) */
            uint32_t n;
            enum wire_pooling pooling;
            enum wire_priority priority;
            bool normalise, special, more;
        } embed;
        struct {
            bool special, more;
        } tokenize;
        struct {
            bool more;
        } detokenize;
        struct {
            enum wire_cache_verb verb;
            bool public_records;
            uint64_t after, bytes;
        } cache;
        struct {
            uint64_t session;
            const char *name;
            bool replace;
        } save;
        struct {
            const char *name, *label;
        } restore;
        struct {
            enum wire_named kind;
        } list;
        struct {
            enum wire_named kind;
            const char *name;
        } delete;
        struct {
            const char *name, *role;
            struct wire_memory memory;
            bool has_segment;
            uint32_t segment;
            enum wire_append_kind kind;
            enum wire_priority priority;
            bool pin, more, public_prefix, replace;
        } add_document;
    } u;
};

enum wire_rep_kind {
    WIRE_WELCOME,
    WIRE_SESSION_OPENED,
    WIRE_APPENDED,
    WIRE_TEXT,
    WIRE_DONE,
    WIRE_SCORE_ROWS,
    WIRE_TOKENS,
    WIRE_STATS,
    WIRE_PONG,
    WIRE_ERROR,
    WIRE_CANCELLED,
    WIRE_SESSION_CLOSED,
    WIRE_REWOUND,
    WIRE_SAVED,
    WIRE_RESTORED,
    WIRE_LISTED,
    WIRE_DELETED,
    WIRE_DOCUMENT_ADDED,
    WIRE_CACHE_ROWS = 20,
    WIRE_TRACED = 22,
    WIRE_CHOSEN,
    WIRE_EMBEDDING,
    WIRE_SEGMENT_MAP = 26,
    WIRE_REP__N
};
enum wire_reason {
    WIRE_REASON_END_OF_TEXT,
    WIRE_REASON_STOP,
    WIRE_REASON_LENGTH,
    WIRE_REASON_CONTEXT_FULL,
    WIRE_REASON_POOL_FULL
};
enum wire_error {
    WIRE_E_INTERNAL,
    WIRE_E_BAD_REQUEST,
    WIRE_E_NOT_FOUND,
    WIRE_E_BUSY,
    WIRE_E_CONTEXT_LENGTH_EXCEEDED,
    WIRE_E_POOL_FULL,
    WIRE_E_LIMIT,
    WIRE_E_CANCELLED,
    WIRE_E_UNSUPPORTED,
    WIRE_E_SHUTTING_DOWN,
    WIRE_E_NO_MEMORY,
    WIRE_E_NAME_EXISTS,
    WIRE_E_WRONG_MODEL,
    WIRE_E_STORAGE,
    WIRE_E__N
};

/* A ratio and its doubles, up to 64 from 2 on. */
#define WIRE_RATIOS 6u

struct wire_usage {
    uint32_t prompt_tokens, computed_tokens, generated_tokens;
    uint64_t prompt_ns, first_token_ns, generate_ns;
    uint32_t raw_tokens, gist_tokens, gists, shared_tokens, restored_tokens, approximate_tokens;
    uint32_t hydrated_tokens, hydrated_disk_tokens, recomputed_tokens, missed_tokens;
    uint32_t ratio, at_ratio[WIRE_RATIOS];
    uint32_t drafted_tokens, accepted_tokens;
};

struct wire_rep {
    uint64_t id, bulk_len;
    bool last;
    enum wire_rep_kind kind;
    union {
        struct {
            const char *version, *model, *model_digest;
            uint32_t n_vocab, context_max;
            bool chat;
            uint32_t segment_default;
            bool outputs, several;
            uint32_t tools;
        } welcome;
        struct {
            uint64_t session;
            uint32_t context_max;
            struct wire_usage usage;
        } session_opened;
        struct {
            uint32_t n_tokens;
            struct wire_usage usage;
            uint32_t n_read, n_all, n_found;
        } appended;
        struct {
            uint32_t n_tokens;
            const char *text;
            const uint32_t *tokens;
            uint32_t n_ids;
            const float *logprobs; /* (n_ids), or NULL: none */
            uint32_t n_top;        /* then these are (n_ids, n_top) */
            const uint32_t *top_ids;
            const float *top_logprobs;
            uint32_t index; /* of which answer */
        } text;
        struct {
            enum wire_reason reason;
            struct wire_usage usage;
            uint32_t index;
        } done;
        struct {
            uint32_t first, n, n_vocab;
        } score_rows;
        struct {
            const uint32_t *n_tokens; /* (n), */
            const double *sums;       /* (n) */
            uint32_t n, best, best_mean;
            struct wire_usage usage;
        } chosen;
        struct {
            uint32_t first, n, n_embd;
            const uint32_t *n_tokens; /* (n) */
            struct wire_usage usage;
        } embedding;
        struct {
            uint32_t n;
        } tokens;
        struct wire_stats stats;
        struct wire_cache_rows cache_rows;
        struct wire_traced traced;
        struct wire_segment_map segment_map;
        struct {
            enum wire_error code;
            const char *text;
            uint64_t had, asked, limit;
        } error;
        struct {
            bool found;
        } cancelled;
        struct {
            uint32_t n_tokens;
        } session_closed, rewound;
        struct {
            uint32_t n_tokens;
            uint64_t bytes;
        } saved;
        struct {
            uint64_t session;
            uint32_t context_max, n_tokens;
            struct wire_usage usage;
        } restored;
        struct {
            const struct wire_row *rows;
            uint32_t n_rows;
        } listed;
        struct {
            uint32_t n_tokens, n_read;
            struct wire_usage usage;
            bool kept;
        } document_added;
    } u;
};

struct wire_scratch {
    uint8_t *mem;
    size_t len, used;
    struct why why; /* what is wrong with the last request that was refused, packing or unpacking */
};

int wire_scratch_open(struct wire_scratch *s, size_t len);
void wire_scratch_close(struct wire_scratch *s);

/* Packing: ask the size, reserve it in the channel, pack there. The scratch holds the generated
 * structs for a moment. */
int wire_req_pack(struct wire_scratch *s, const struct wire_req *r, uint8_t *buf, size_t cap,
                  size_t *ret_len); /* buf NULL: the size only */
int wire_rep_pack(struct wire_scratch *s, const struct wire_rep *r, uint8_t *buf, size_t cap,
                  size_t *ret_len);

int wire_req_unpack(struct wire_scratch *s, const uint8_t *frame, size_t len, struct wire_req *ret);

/* Of a frame that was refused, what an answer needs, as far as it can be read: id, bulk_len, kind
 * (WIRE_REQ__N: none that we know) and the session of an Append. All else is 0. */
void wire_req_head(const uint8_t *frame, size_t len, struct wire_req *ret);

int wire_rep_unpack(struct wire_scratch *s, const uint8_t *frame, size_t len, struct wire_rep *ret);

/* Bytes of bulk that fit beside a frame of a few numbers, at best: what one message carries. */
struct chan;
uint32_t wire_bulk_max(const struct chan *c);

const char *wire_error_name(enum wire_error e);   /* "context_length_exceeded" */
const char *wire_reason_name(enum wire_reason r); /* "end_of_text", "stop", "length", ... */

#endif
