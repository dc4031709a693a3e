/* ipc/wire_rep.h - replies as plain structs (a part of ipc/wire.h).
 *
 * Ownership  what an unpacked message points to lives in the scratch, as in ipc/wire.h.
 */
#ifndef IPC_WIRE_REP_H
#define IPC_WIRE_REP_H

#include "ipc/wire_kept.h"
#include "ipc/wire_stats.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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
    WIRE_LOADING,
    WIRE_KEPT,
    WIRE_ATTACHED,
    WIRE_RESUMED,
    WIRE_REP__N /* unpacked: one that this version does not know, but for id and last */
};
enum wire_reason {
    WIRE_REASON_END_OF_TEXT,
    WIRE_REASON_STOP,
    WIRE_REASON_LENGTH,
    WIRE_REASON_CONTEXT_FULL,
    WIRE_REASON_POOL_FULL,
    WIRE_REASON__N /* unpacked: one that this version does not know */
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
    WIRE_E_DEADLINE,
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
            bool outputs, several, realms;
            uint32_t tools;
            bool deadlines;
            uint32_t keep_seconds; /* 0: sessions are not kept */
            bool calls;
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
            uint32_t stop; /* which stop string, from 1; 0: not said, or none */
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
            bool has_usage;
            struct wire_usage usage;
        } error;
        struct {
            bool found;
        } cancelled;
        struct {
            uint32_t percent;
        } loading;
        struct wire_kept kept;
        struct wire_attached attached;
        struct {
            uint64_t first;
            uint32_t answers;
        } resumed;
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

#endif
