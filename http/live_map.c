/* http/live_map.c - the picture of memory: of a session, segment by segment, and of the daemon. */
#include "http/live.h"

#include <string.h>

static const char *const states[] = {
    [GIST_SEGMENT_RAW] = "raw", [GIST_SEGMENT_GISTS] = "gists", [GIST_SEGMENT_HYDRATED] = "hydrated"
};

/* A later daemon's state has no name here, and is drawn as unknown. */
static struct json_object *segment(const struct gist_segment *s)
{
    bool known = (size_t)s->state < sizeof(states) / sizeof(states[0]);

    return json_make("{s:s, s:I, s:I, s:I, s:b}", "state", known ? states[s->state] : "unknown",
                     "tokens", (int64_t)s->n_tokens, "keys", (int64_t)s->n_keys, "ratio",
                     (int64_t)s->ratio, "stored", s->stored);
}

struct json_object *live_map(gist_conn *c, uint64_t number, struct problem *p)
{
    struct json_object *rows = json_make("[]"), *o;
    struct gist_segments m;
    uint32_t at = 0;
    int r = rows ? 0 : -1;

    /* In parts; of a session that grows meanwhile the last part says how it is. */
    do {
        if (gist_segments(c, number, at, &m) < 0) {
            (void)problem_of_gist(p, c);
            json_free(rows);
            return NULL;
        }
        for (size_t i = 0; i < m.n; i++)
            r |= json_add(rows, segment(&m.at[i]));
        at += (uint32_t)m.n;
        /* No rows: it shrank meanwhile, and what there was is drawn. */
    } while (m.n > 0 && at < m.n_segments);
    if (r < 0)
        json_free(rows);
    o = r < 0 ? NULL
              : json_make("{s:I, s:I, s:I, s:I, s:o}", "tokens", (int64_t)m.n_tokens, "keys",
                          (int64_t)m.n_keys, "budget", (int64_t)m.budget, "segment",
                          (int64_t)m.segment, "segments", rows);
    if (!o)
        (void)problem_unbuilt(p);
    return o;
}

static struct json_object *store(const struct gist_stats *s)
{
    if (!s->store)
        return json_make("{s:b, s:s}", "on", 0, "why", s->store_off);
    return json_make("{s:b, s:I, s:I, s:I, s:s}", "on", 1, "bytes", (int64_t)s->store->bytes,
                     "limit", (int64_t)s->store->limit, "pending", (int64_t)s->store->pending,
                     "degraded", s->store->degraded);
}

static struct json_object *memory(gist_conn *c, const struct gist_stats *s)
{
    struct gist_info info;

    gist_info(c, &info);
    return json_make("{s:s, s:s, s:I, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:o}", "model",
                     info.model, "version", info.version, "context", (int64_t)info.context_max,
                     "chat", info.chat, "page_bytes", (int64_t)s->page_bytes, "page_tokens",
                     (int64_t)s->page_tokens, "pages", (int64_t)s->pages, "pages_free",
                     (int64_t)s->pages_free, "pages_cached", (int64_t)s->pages_cached,
                     "weights_bytes", (int64_t)s->weights_bytes, "requests",
                     (int64_t)s->requests_running, "idle", s->idle, "store", store(s));
}

int live_memory(const struct live_ask *a, struct json_object **ret, struct problem *p)
{
    struct pool *pool = a->lives->pool;
    struct gist_stats stats;
    struct json_object *o;
    gist_conn *c;

    if (pool_take_stats(pool, &c, &stats, p) < 0)
        return -1;
    o = memory(c, &stats);
    pool_put(pool, c);
    return problem_or_built(o, ret, p);
}
