/* gist/cache.h - what the daemon keeps on disk (a part of gist.h). */
#ifndef GIST_CACHE_H
#define GIST_CACHE_H

#ifndef GIST_H
#error "include <gist.h>, which has all of it"
#endif

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

#endif
