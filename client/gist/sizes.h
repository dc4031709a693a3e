/* gist/sizes.h - how long the structs are that libgist fills, in a program that was compiled with
 * this header (a part of gist.h).
 *
 * They get new fields at their ends, and programs need not be recompiled for it: gist_connect tells
 * the library these sizes, and on that connection it fills, and puts into lists, as much as the
 * program knows. A program that was compiled with a later header than the library's finds 0 in the
 * rest. So a connection is for code that was compiled with the same gist.h as who made it.
 *
 * Structs that begin with their size, that the library makes or that it only points to (what a
 * callback is given one of) need none of this: they may be longer than a program knows. Those of
 * which lists come and go without a size (gist_message, gist_span, gist_choice) stay as they are.
 */
#ifndef GIST_SIZES_H
#define GIST_SIZES_H

#ifndef GIST_H
#error "include <gist.h>, which has all of it"
#endif

struct gist_sizes {
    size_t size; /* sizeof(struct gist_sizes) */
    uint32_t info, usage, result, score;
    uint32_t stats, stats_client, stats_session, stats_owner;
    uint32_t trace_row, segments, segment, cache_row, cache_sum;
};

static const struct gist_sizes gist_sizes_here __attribute__((unused)) = {
    sizeof(struct gist_sizes),        sizeof(struct gist_info),
    sizeof(struct gist_usage),        sizeof(struct gist_result),
    sizeof(struct gist_score),        sizeof(struct gist_stats),
    sizeof(struct gist_stats_client), sizeof(struct gist_stats_session),
    sizeof(struct gist_stats_owner),  sizeof(struct gist_trace_row),
    sizeof(struct gist_segments),     sizeof(struct gist_segment),
    sizeof(struct gist_cache_row),    sizeof(struct gist_cache_sum),
};

/* gist_connect, gist_connect_with and gist_connect_start as programs call them. The functions of
 * those names are what programs from before have, and know no field that came later: who takes
 * their address or looks them up by name (dlsym), and languages that read this header without its
 * macros, call these. */
GIST_API int gist_connect_sized(const struct gist_sizes *sizes, const char *path, const char *name,
                                gist_conn **ret_conn);
GIST_API int gist_connect_with_sized(const struct gist_sizes *sizes,
                                     const struct gist_connect_opts *opts, gist_conn **ret_conn);
GIST_API int gist_connect_start_sized(const struct gist_sizes *sizes,
                                      const struct gist_connect_opts *opts, gist_done_fn *on_done,
                                      void *arg, gist_conn **ret_conn);
#define gist_connect(...)       gist_connect_sized(&gist_sizes_here, __VA_ARGS__)
#define gist_connect_with(...)  gist_connect_with_sized(&gist_sizes_here, __VA_ARGS__)
#define gist_connect_start(...) gist_connect_start_sized(&gist_sizes_here, __VA_ARGS__)

#endif
