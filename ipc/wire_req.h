/* ipc/wire_req.h - requests as plain structs (a part of ipc/wire.h).
 *
 * Ownership  what an unpacked message points to lives in the scratch, as in ipc/wire.h.
 */
#ifndef IPC_WIRE_REQ_H
#define IPC_WIRE_REQ_H

#include "ipc/wire_kept.h"
#include "ipc/wire_memory.h"

#include <stdbool.h>
#include <stdint.h>

#define WIRE_MESSAGES_MAX  1024u /* chat messages an Append */
#define WIRE_STOPS_MAX     16u   /* stop strings a Generate */
#define WIRE_DOCUMENTS_MAX 16u   /* an OpenSession */
#define WIRE_TEXTS_MAX     2048u /* texts an Embed */
#define WIRE_CHOICES_MAX   1024u /* continuations a ScoreChoices */

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
    WIRE_KEEP = 28,
    WIRE_ATTACH,
    WIRE_RESUME,
    WIRE_REQ__N
};
enum wire_append_kind { WIRE_APPEND_TEXT, WIRE_APPEND_TOKENS, WIRE_APPEND_CHAT };
enum wire_score_kind { WIRE_SCORE_TEXT, WIRE_SCORE_TOKENS };
enum wire_score_want { WIRE_SCORE_LOGPROBS, WIRE_SCORE_LOGITS };
enum wire_pooling { WIRE_POOLING_MEAN, WIRE_POOLING_LAST };
enum wire_grammar { WIRE_GRAMMAR_NONE, WIRE_GRAMMAR_GBNF, WIRE_GRAMMAR_SCHEMA, WIRE_GRAMMAR_CALLS };
enum wire_priority { WIRE_INTERACTIVE, WIRE_BACKGROUND };
enum wire_cache_verb {
    WIRE_CACHE_STAT,
    WIRE_CACHE_LIST,
    WIRE_CACHE_VERIFY,
    WIRE_CACHE_PRUNE,
    WIRE_CACHE_FORGET
};
enum wire_named { WIRE_NAMED_SESSION, WIRE_NAMED_DOCUMENT };
struct wire_chat_message {
    const char *role;
    uint64_t text_len;
};

struct wire_req {
    uint64_t id, bulk_len;
    uint32_t deadline_ms; /* 0: none */
    enum wire_req_kind kind;
    union {
        struct {
            const char *client;
            bool hears_loading;
        } hello;
        struct {
            bool has_segment;
            uint32_t segment;
            enum wire_priority priority;
            const char *label, *realm;
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
        struct wire_keep keep;
        struct wire_attach attach;
        struct wire_resume resume;
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

#endif
