/* gist/stats.h - what the daemon does, and how it holds a session's text (a part of gist.h). */
#ifndef GIST_STATS_H
#define GIST_STATS_H

#ifndef GIST_H
#error "include <gist.h>, which has all of it"
#endif

struct gist_stats_client {
    uint64_t id;
    uint32_t pid, uid, sessions, pages;
    const char *name;
    const char *unit; /* of systemd, that its part of steps is by; "": none is known */
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
    uint32_t kept_s;  /* it outlives its connection so many seconds; 0: it does not */
    uint32_t left_s;  /* and has so many left, without one; 0: there is one. Then client is 0 */
    const char *unit; /* of its client */
};
struct gist_stats_owner {
    uint32_t uid, clients, sessions, pages, gist_pages;
    /* Pages, those that several sessions share counted once; the most of that, of clients and of
     * sessions. */
    uint32_t held_pages, held_pages_max, clients_max, sessions_max;
    uint64_t text_bytes, text_bytes_max; /* of texts, ids, scores and logits */
    uint64_t rows;                       /* tokens read or written, since the user came */
    /* Of the user's records on disk, without what is public; 0: nothing is kept there, or of
     * another user. */
    uint64_t store_bytes, store_bytes_max;
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
    uint32_t pages_returned;   /* of pages_free: the machine has their memory until they are used */
    int idle; /* weights were given back until the next request that uses them: weights_memory 0 */
    uint64_t idles_total, pressures_total; /* times that they were; that memory was short */
    /* Host memory behind a device's: context there, what may be (0: there is none), records that
     * went from there for room, and tokens that came back. */
    uint64_t host_bytes, host_limit, host_records, host_evicted_total, host_tokens_total;
    int host_pinned; /* the device copies from and to it by itself */
    /* Of all users. The lists have less where others' are not shown, and are cut to what a reply
     * holds. */
    uint32_t n_clients_all, n_sessions_all;
};
/* What it points to lives until the next call on the connection. Of other users it has numbers
 * alone, unless root or the daemon's user asks. */
GIST_API int gist_stats(gist_conn *c, struct gist_stats *ret_stats);

/* The same without waiting; what on_stats returns does not matter. */
typedef int gist_stats_fn(void *arg, const struct gist_stats *stats);
GIST_API int gist_stats_start(gist_conn *c, gist_stats_fn *on_stats, gist_done_fn *on_done,
                              void *arg, uint64_t *ret_request);

/* The same at once and then every interval_ms (0: 1000, at least 100), until gist_cancel or a
 * non-zero return. on_done: -ECANCELED. */
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
GIST_API int gist_trace_start(gist_conn *c, uint64_t number, gist_trace_fn *on_rows,
                              gist_done_fn *on_done, void *arg, uint64_t *ret_request);

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
    int stored;     /* its raw keys are on the disk, or in host memory behind a device's */
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
/* segments: NULL with an error. */
typedef void gist_segments_fn(void *arg, int err, const struct gist_segments *segments);
GIST_API int gist_segments_start(gist_conn *c, uint64_t session, uint32_t first,
                                 gist_segments_fn *on_segments, void *arg, uint64_t *ret_request);

#endif
