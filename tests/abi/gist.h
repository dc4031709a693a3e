/* tests/abi/gist.h - gist.h as it was when sizes of structs came into libgist, without its words:
 * tests/abi/first.c is compiled with it, and runs with the library of today. It does not change. */
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

enum gist_code {
    GIST_OK = 0,
    GIST_E_TRANSPORT,
    GIST_E_INTERNAL,
    GIST_E_BAD_REQUEST,
    GIST_E_NOT_FOUND,
    GIST_E_BUSY,
    GIST_E_CONTEXT_LENGTH_EXCEEDED,
    GIST_E_POOL_FULL,
    GIST_E_LIMIT,
    GIST_E_CANCELLED,
    GIST_E_UNSUPPORTED,
    GIST_E_SHUTTING_DOWN,
    GIST_E_NO_MEMORY,
    GIST_E_NAME_EXISTS,
    GIST_E_WRONG_MODEL,
    GIST_E_STORAGE
};

GIST_API int gist_connect(const char *path, const char *name, gist_conn **ret_conn);

typedef int gist_loading_fn(void *arg, unsigned percent);

#define GIST_ANY_SERVER 1u

struct gist_connect_opts {
    size_t size;
    const char *path, *name;
    int timeout_ms;
    gist_loading_fn *on_loading;
    void *arg;
    unsigned flags;
};
GIST_API int gist_connect_with(const struct gist_connect_opts *opts, gist_conn **ret_conn);
GIST_API void gist_disconnect(gist_conn *c);

GIST_API const char *gist_error(const gist_conn *c);
GIST_API enum gist_code gist_error_code(const gist_conn *c);

struct gist_info {
    const char *version, *model, *model_digest;
    uint32_t n_vocab, context_max, segment_default;
    int chat;
};
GIST_API void gist_info(const gist_conn *c, struct gist_info *ret_info);

enum gist_tools { GIST_TOOLS_NONE, GIST_TOOLS_TAGGED, GIST_TOOLS_BARE };
GIST_API enum gist_tools gist_tools(const gist_conn *c);

GIST_API int gist_fd(gist_conn *c);

GIST_API int gist_dispatch(gist_conn *c);

GIST_API void gist_set_spin(gist_conn *c, uint64_t ns);

GIST_API int gist_ping(gist_conn *c);

enum gist_priority { GIST_INTERACTIVE, GIST_BACKGROUND };

enum gist_compressor {
    GIST_FULL,
    GIST_NONE,
    GIST_FINE_KV,
    GIST_SELECT,
    GIST_COARSE_KV,
    GIST_COARSE_REC,
    GIST_SELECT_REREAD,
    GIST_FIT
};

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

#define GIST_NO_SINKS     UINT32_MAX
#define GIST_HYDRATE_AUTO UINT32_MAX
#define GIST_DRAFT_AUTO   UINT32_MAX
#define GIST_LATE         1u
#define GIST_FIXED        2u

#define GIST_AUTO 0x20u

struct gist_memory {
    size_t size;
    enum gist_compressor compressor;
    uint32_t ratio;
    uint32_t sinks;
    uint32_t keep_tail;
    const char *adapter;
    uint32_t budget;
    unsigned flags;
    uint32_t hydrate;
};

GIST_API const char *gist_compressor_name(enum gist_compressor compressor);
GIST_API const char *gist_compressor_help(enum gist_compressor compressor);

#define GIST_PUBLIC 1u

#define GIST_PRIVATE 2u

struct gist_policy {
    size_t size;
    uint32_t segment;
    enum gist_priority priority;
    const char *label;
    const struct gist_memory *memory;
    unsigned flags;

    const char *const *documents;
    size_t n_documents;
};

#define GIST_RATIOS 6

struct gist_usage {
    uint32_t prompt_tokens, computed_tokens, generated_tokens;
    uint64_t prompt_ns, first_token_ns, generate_ns;
    uint32_t raw_tokens, gist_tokens;
    uint32_t gists;
    uint32_t shared_tokens;
    uint32_t restored_tokens;

    uint32_t approximate_tokens;

    uint32_t hydrated_tokens, hydrated_disk_tokens, recomputed_tokens;
    uint32_t missed_tokens;
    uint32_t ratio;
    uint32_t at_ratio[GIST_RATIOS];
    uint32_t drafted_tokens;
    uint32_t accepted_tokens;
};

GIST_API int gist_open(gist_conn *c, const struct gist_policy *policy, gist_session **ret_session);
GIST_API void gist_close(gist_session *s);
GIST_API uint64_t gist_session_id(const gist_session *s);

GIST_API void gist_session_usage(const gist_session *s, struct gist_usage *ret_usage);

GIST_API int gist_fork(gist_session *s, const char *label, gist_session **ret_session);

GIST_API int gist_rewind(gist_session *s, uint32_t n_tokens);

struct gist_message {
    const char *role;
    const char *text;
};

typedef void gist_progress_fn(void *arg, uint32_t n_read, uint32_t n_tokens);

GIST_API void gist_on_progress(gist_session *s, gist_progress_fn *on_progress, void *arg);

#define GIST_SPECIAL     1u
#define GIST_OPEN_ANSWER 2u

GIST_API int gist_append_text(gist_session *s, const char *text, size_t len, unsigned flags,
                              struct gist_usage *ret_usage);
GIST_API int gist_append_tokens(gist_session *s, const uint32_t *ids, size_t n,
                                struct gist_usage *ret_usage);
GIST_API int gist_append_chat(gist_session *s, const struct gist_message *msgs, size_t n,
                              unsigned flags, struct gist_usage *ret_usage);

enum gist_grammar { GIST_ANY_TEXT, GIST_GBNF, GIST_JSON_SCHEMA };

struct gist_logprob {
    uint32_t id;
    float logprob;
    uint32_t n_top;
    const uint32_t *top_ids;
    const float *top_logprobs;
    uint32_t answer;
};

typedef void gist_logprob_fn(void *arg, const struct gist_logprob *token);

struct gist_sampling {
    size_t size;
    uint32_t max_tokens;
    float temperature;
    uint32_t top_k;
    float top_p;
    float min_p;
    float repeat_penalty;
    uint32_t repeat_last_n;
    uint64_t seed;
    const char *const *stop;
    uint32_t n_stop;
    int ignore_eog;
    unsigned flags;
    enum gist_grammar grammar;
    const char *grammar_text;
    size_t grammar_len;
    uint32_t logprobs;
    gist_logprob_fn *on_logprob;

    uint32_t draft;
};

enum gist_reason { GIST_END_OF_TEXT, GIST_STOP, GIST_LENGTH, GIST_CONTEXT_FULL, GIST_POOL_FULL };

struct gist_result {
    enum gist_reason reason;
    struct gist_usage usage;
};

typedef int gist_text_fn(void *arg, const char *text, size_t len, const uint32_t *ids,
                         size_t n_ids);

GIST_API int gist_generate(gist_session *s, const struct gist_sampling *sampling,
                           gist_text_fn *on_text, void *arg, struct gist_result *ret_result);

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

typedef int gist_answers_fn(void *arg, uint32_t answer, const char *text, size_t len,
                            const uint32_t *ids, size_t n_ids);
GIST_API int gist_generate_several(gist_session *s, const struct gist_sampling *sampling,
                                   uint32_t n, gist_answers_fn *on_text, void *arg,
                                   struct gist_result *ret_results);

typedef void gist_answer_fn(void *arg, uint32_t answer, const struct gist_result *result);
GIST_API int gist_generate_several_start(gist_session *s, const struct gist_sampling *sampling,
                                         uint32_t n, gist_answers_fn *on_text,
                                         gist_answer_fn *on_answer, gist_done_fn *on_done,
                                         void *arg, uint64_t *ret_request);

struct gist_span {
    const void *at;
    size_t n;
};

#define GIST_TOKENS 32u

struct gist_choice {
    const uint32_t *ids;
    const float *logprobs;
    size_t n;
    double sum;
};
struct gist_choices {
    size_t size;
    const struct gist_choice *choices;
    size_t n;
    size_t best, best_mean;
    struct gist_usage usage;
};

GIST_API int gist_score_choices(gist_session *s, const struct gist_span *choices, size_t n,
                                unsigned flags, struct gist_choices **ret_choices);
GIST_API void gist_choices_free(struct gist_choices *choices);

typedef void gist_choices_fn(void *arg, int err, const struct gist_choices *choices);
GIST_API int gist_score_choices_start(gist_session *s, const struct gist_span *choices, size_t n,
                                      unsigned flags, gist_choices_fn *on_done, void *arg,
                                      uint64_t *ret_request);

GIST_API int gist_cancel(gist_conn *c, uint64_t request);

GIST_API int gist_cancel_session(gist_conn *c, uint64_t session);

GIST_API void gist_cancel_async(gist_conn *c);

#define GIST_REPLACE 4u

GIST_API int gist_save(gist_session *s, const char *name, unsigned flags);
GIST_API int gist_restore(gist_conn *c, const char *name, const char *label,
                          gist_session **ret_session);

#define GIST_PIN   8u
#define GIST_PLAIN 16u

struct gist_document {
    size_t size;
    uint32_t segment;
    const struct gist_memory *memory;
    enum gist_priority priority;
    const char *role;
    gist_progress_fn *on_progress;
    void *arg;
    unsigned flags;
};

GIST_API int gist_document_add(gist_conn *c, const char *name, const char *text, size_t len,
                               const struct gist_document *document, struct gist_usage *ret_usage);
GIST_API int gist_document_add_start(gist_conn *c, const char *name, const char *text, size_t len,
                                     const struct gist_document *document, gist_done_fn *on_done,
                                     void *arg, uint64_t *ret_request);

enum gist_named { GIST_SESSIONS, GIST_DOCUMENTS };
enum gist_state { GIST_READY, GIST_READING, GIST_OTHER_MODEL, GIST_DAMAGED };
struct gist_row {
    const char *name, *label, *model;
    enum gist_state state;
    uint32_t n_tokens, n_read;
    int pinned, kept;
    uint64_t at_s;
    uint64_t bytes;
};

typedef int gist_row_fn(void *arg, const struct gist_row *row);
GIST_API int gist_list(gist_conn *c, enum gist_named kind, gist_row_fn *on_row, void *arg);

GIST_API int gist_delete(gist_conn *c, enum gist_named kind, const char *name);

struct gist_score {
    uint32_t *ids;
    float *logprobs;
    size_t n;
    struct gist_usage usage;
};

struct gist_score_opts {
    size_t size;
    uint32_t window;
    uint32_t segment;
    const struct gist_memory *memory;
    unsigned flags;
};
GIST_API int gist_score_text(gist_conn *c, const char *text, size_t len,
                             const struct gist_score_opts *opts, struct gist_score *ret_score);
GIST_API int gist_score_tokens(gist_conn *c, const uint32_t *ids, size_t n,
                               const struct gist_score_opts *opts, struct gist_score *ret_score);

typedef int gist_rows_fn(void *arg, size_t first, size_t n, uint32_t n_vocab, const float *rows);
GIST_API int gist_score_logits(gist_conn *c, const uint32_t *ids, size_t n,
                               const struct gist_score_opts *opts, gist_rows_fn *on_rows,
                               void *arg);

enum gist_pooling { GIST_POOL_MEAN, GIST_POOL_LAST };

#define GIST_NORMALISE 64u

struct gist_embed_opts {
    size_t size;
    enum gist_pooling pooling;
    enum gist_priority priority;
    unsigned flags;
};

struct gist_embeddings {
    size_t size;
    const float *vectors;
    size_t n;
    uint32_t n_embd;
    const uint32_t *n_tokens;
    struct gist_usage usage;
};

GIST_API int gist_embed(gist_conn *c, const struct gist_span *texts, size_t n,
                        const struct gist_embed_opts *opts,
                        struct gist_embeddings **ret_embeddings);
GIST_API void gist_embeddings_free(struct gist_embeddings *embeddings);

typedef void gist_embeddings_fn(void *arg, int err, const struct gist_embeddings *embeddings);
GIST_API int gist_embed_start(gist_conn *c, const struct gist_span *texts, size_t n,
                              const struct gist_embed_opts *opts, gist_embeddings_fn *on_done,
                              void *arg, uint64_t *ret_request);

GIST_API int gist_tokenize(gist_conn *c, const char *text, size_t len, unsigned flags,
                           uint32_t **ret_ids, size_t *ret_n);
GIST_API int gist_detokenize(gist_conn *c, const uint32_t *ids, size_t n, char **ret_text,
                             size_t *ret_len);

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
    uint32_t gist_pages;
    uint64_t request;
    const char *doing;
    uint32_t generated_tokens, uid;
};
struct gist_stats_owner {
    uint32_t uid, clients, sessions, pages, gist_pages;

    uint32_t held_pages, held_pages_max, clients_max, sessions_max;
    uint64_t text_bytes, text_bytes_max;
    uint64_t rows;
};
struct gist_stats_store {
    uint64_t bytes, limit, records;
    uint64_t names;
    uint64_t written, written_today, write_a_day;
    uint64_t puts, gets;

    uint64_t hits, misses;
    uint64_t refused;
    uint64_t evicted, expired;
    uint64_t read_bytes, read_ns;
    uint32_t pinned_pages;
    uint32_t pending;
    const char *degraded;
    uint64_t degraded_s;
    const char *io;

    uint64_t restored_tokens, computed_instead;
    uint64_t forgotten;
    uint64_t ns_per_token;
};
struct gist_stats {
    const char *version, *model, *model_digest, *cpu;
    const char *adapters;
    uint32_t threads, page_bytes, page_tokens, pages, pages_free, pages_cached, n_clients,
        n_sessions, n_owners, requests_running, n_documents, pinned_pages;
    uint64_t uptime_ns, weights_bytes, scratch_bytes, kv_bytes, adapter_bytes;
    const char *weights_from;
    uint64_t weights_memory;
    uint64_t weights_streamed;
    uint64_t weights_read;
    uint64_t weights_read_ns;
    uint64_t weights_waited_ns;
    uint64_t requests_total, requests_failed, prompt_tokens_total, generated_tokens_total,
        steps_total;
    uint64_t client_errors_total;
    uint64_t drafted_tokens_total, accepted_tokens_total;
    const struct gist_stats_client *clients;
    const struct gist_stats_session *sessions;
    const struct gist_stats_owner *owners;
    const struct gist_stats_store *store;
    const char *store_off;
    uint32_t requests_waiting;
};

GIST_API int gist_stats(gist_conn *c, struct gist_stats *ret_stats);

typedef int gist_stats_fn(void *arg, const struct gist_stats *stats);
GIST_API int gist_watch_start(gist_conn *c, uint32_t interval_ms, gist_stats_fn *on_stats,
                              gist_done_fn *on_done, void *arg, uint64_t *ret_request);

struct gist_trace_row {
    uint64_t number, session, at_s;
    const char *what, *client, *ended;
    uint64_t total_ns, queue_ns;
    uint64_t restore_ns, hydrate_ns;
    uint64_t prefill_ns, compress_ns, decode_ns;
    uint64_t first_token_ns, ring_ns;
    uint32_t computed_tokens, found_tokens, generated_tokens;
    uint32_t drafted_tokens, accepted_tokens;
};
typedef void gist_trace_fn(void *arg, const struct gist_trace_row *rows, size_t n);

GIST_API int gist_trace(gist_conn *c, uint64_t number, gist_trace_fn *on_rows, void *arg);

enum gist_segment_state { GIST_SEGMENT_RAW, GIST_SEGMENT_GISTS, GIST_SEGMENT_HYDRATED };
struct gist_segment {
    enum gist_segment_state state;
    uint32_t n_tokens, n_keys;
    uint32_t ratio;
    int stored;
};
struct gist_segments {
    uint32_t n_segments;

    uint32_t segment, n_tokens, n_keys;
    uint32_t budget;
    size_t n;
    const struct gist_segment *at;
};

GIST_API int gist_segments(gist_conn *c, uint64_t session, uint32_t first,
                           struct gist_segments *ret_segments);

enum gist_cache_verb {
    GIST_CACHE_STAT,
    GIST_CACHE_LIST,
    GIST_CACHE_VERIFY,
    GIST_CACHE_PRUNE,
    GIST_CACHE_FORGET
};

#define GIST_CACHE_PUBLIC 1u

struct gist_cache_opts {
    size_t size;
    uint64_t after;
    uint64_t bytes;
    unsigned flags;
};

struct gist_cache_row {
    uint64_t id, bytes;
    uint64_t used_s;
    uint64_t cost_ns;
    uint32_t n_tokens;
    uint32_t n_keys;
    uint32_t depth;
    int packed;
};

struct gist_cache_sum {
    uint64_t records, bytes, tokens;
    uint64_t packed_records, packed_bytes;
    uint64_t bad_records, bad_bytes;
    uint64_t unread_records;
    uint64_t total;
};

typedef int gist_cache_fn(void *arg, const struct gist_cache_row *rows, size_t n,
                          const struct gist_cache_sum *so_far);
typedef void gist_cache_done_fn(void *arg, int err, const struct gist_cache_sum *sum);

GIST_API int gist_cache(gist_conn *c, enum gist_cache_verb verb, const struct gist_cache_opts *opts,
                        gist_cache_fn *on_rows, void *arg, struct gist_cache_sum *ret_sum);
GIST_API int gist_cache_start(gist_conn *c, enum gist_cache_verb verb,
                              const struct gist_cache_opts *opts, gist_cache_fn *on_rows,
                              gist_cache_done_fn *on_done, void *arg, uint64_t *ret_request);

#ifdef __cplusplus
}
#endif
#endif
