/* ipc/wire_stats.h - what replies tell of the daemon: Stats, Listed, CacheRows, SegmentMap (a part
 * of ipc/wire.h).
 *
 * Lists are as long as their sender found room for in a frame.
 *
 * Ownership  what an unpacked message points to lives in the scratch, as in ipc/wire.h.
 */
#ifndef IPC_WIRE_STATS_H
#define IPC_WIRE_STATS_H

#include <stdbool.h>
#include <stdint.h>

#define WIRE_ROWS_MAX       256u /* rows of a Listed */
#define WIRE_CACHE_ROWS_MAX 64u  /* rows of a CacheRows */

struct wire_stats_client {
    uint64_t id;
    uint32_t pid, uid;
    const char *name;
    uint32_t sessions, pages;
    const char *unit; /* "": none is known */
};
struct wire_stats_session {
    uint64_t id, client;
    const char *label;
    uint32_t n_tokens, pages, segment;
    bool busy;
    uint32_t gist_pages;
    uint64_t request; /* 0: it does nothing */
    const char *doing;
    uint32_t generated_tokens, uid;
    uint32_t kept_s, left_s; /* 0: it goes with its connection; it has one */
    const char *unit;
};
struct wire_stats_owner {
    uint32_t uid, clients, sessions, pages, gist_pages;
    uint32_t held_pages, held_pages_max, clients_max, sessions_max;
    uint64_t text_bytes, text_bytes_max, rows;
    uint64_t store_bytes, store_bytes_max;
};
struct wire_stats_store {
    uint64_t bytes, limit, records, names;
    uint64_t written, written_today, write_a_day;
    uint64_t puts, gets, hits, misses, refused, evicted, expired, read_bytes, read_ns;
    uint32_t pinned_pages, pending;
    const char *degraded, *io;
    uint64_t degraded_s;
    uint64_t restored_tokens, computed_instead, forgotten, ns_per_token;
};
struct wire_stats {
    const char *version, *model, *model_digest, *cpu, *adapters;
    uint32_t threads;
    uint64_t uptime_ns;
    uint64_t weights_bytes, scratch_bytes, kv_bytes, adapter_bytes;
    uint32_t page_bytes, page_tokens, pages, pages_free, pages_cached;
    uint32_t clients, sessions, requests_running, documents, pinned_pages;
    uint64_t requests_total, requests_failed, prompt_tokens_total, generated_tokens_total;
    uint64_t steps_total, client_errors_total;
    uint32_t requests_waiting;
    const struct wire_stats_client *client;
    uint32_t n_client;
    const struct wire_stats_session *session;
    uint32_t n_session;
    const struct wire_stats_owner *owner;
    uint32_t n_owner;
    const struct wire_stats_store *store; /* NULL: nothing is kept on disk, */
    const char *store_off;                /* and this says why */
    const char *weights_from;
    uint64_t weights_memory, weights_streamed, weights_read, weights_read_ns, weights_waited_ns;
    uint64_t drafted_tokens_total, accepted_tokens_total;
    bool idle;
    uint32_t pages_returned;
    uint64_t idles_total, pressures_total;
    uint64_t host_bytes, host_limit, host_records, host_evicted_total, host_tokens_total;
    bool host_pinned;
};

#define WIRE_TRACES_MAX 64u /* rows of a Traced */
struct wire_trace_row {
    uint64_t number, session, at_s;
    const char *what, *client, *ended;
    uint64_t total_ns, queue_ns, restore_ns, hydrate_ns, prefill_ns, compress_ns, decode_ns;
    uint64_t first_token_ns, ring_ns;
    uint32_t computed_tokens, found_tokens, generated_tokens, drafted_tokens, accepted_tokens;
};
struct wire_traced {
    const struct wire_trace_row *row;
    uint32_t n_row;
};

#define WIRE_SEGMENTS_MAX 1024u /* rows of a SegmentMap */
enum wire_segment_state { WIRE_SEGMENT_RAW, WIRE_SEGMENT_GISTS, WIRE_SEGMENT_HYDRATED };
struct wire_segment {
    enum wire_segment_state state;
    uint32_t n_tokens, n_keys, ratio;
    bool stored;
};
struct wire_segment_map {
    const struct wire_segment *row;
    uint32_t n_row, first, n_segments, segment, n_tokens, n_keys, budget;
};

enum wire_row_state { WIRE_ROW_READY, WIRE_ROW_READING, WIRE_ROW_OTHER_MODEL, WIRE_ROW_DAMAGED };
struct wire_row {
    const char *name, *label, *model;
    enum wire_row_state state;
    uint32_t n_tokens, n_read;
    bool pinned, kept;
    uint64_t at_s, bytes;
};

struct wire_cache_row {
    uint64_t id, bytes, used_s, cost_ns;
    uint32_t tokens, keys, depth;
    bool packed;
};
struct wire_cache_rows {
    const struct wire_cache_row *row;
    uint32_t n_row;
    uint64_t records, bytes, tokens, packed_records, packed_bytes, bad_records, bad_bytes, total;
    uint64_t unread_records;
};

#endif
