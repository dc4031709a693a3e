/* client/gist_stats.c - what the daemon says about itself. */
#include "client/gist_internal.h"

#include <errno.h>
#include <stdlib.h>

/* The lists of a reply, in one piece of memory, as long as the caller knows what they are of. The
 * store comes first: it is one, and may be longer. */
struct lists {
    struct gist_stats_store *store;
    uint8_t *clients, *sessions, *owners;
};

/* The strings stay in the scratch of the last reply, which the next call uses again. len is how
 * large the caller's struct is: his may be of another version, so the list is walked in his steps.
 */
static void copy_clients(const struct wire_stats *w, uint8_t *to, size_t len)
{
    for (uint32_t i = 0; i < w->n_client; i++) {
        const struct gist_stats_client one = { .id = w->client[i].id,
                                               .pid = w->client[i].pid,
                                               .uid = w->client[i].uid,
                                               .sessions = w->client[i].sessions,
                                               .pages = w->client[i].pages,
                                               .name = w->client[i].name,
                                               .unit = w->client[i].unit };

        gist_copy_out(to + i * len, len, &one, sizeof(one));
    }
}

static void copy_sessions(const struct wire_stats *w, uint8_t *to, size_t len)
{
    for (uint32_t i = 0; i < w->n_session; i++) {
        const struct gist_stats_session one = { .id = w->session[i].id,
                                                .client = w->session[i].client,
                                                .n_tokens = w->session[i].n_tokens,
                                                .pages = w->session[i].pages,
                                                .segment = w->session[i].segment,
                                                .busy = w->session[i].busy,
                                                .label = w->session[i].label,
                                                .gist_pages = w->session[i].gist_pages,
                                                .request = w->session[i].request,
                                                .doing = w->session[i].doing,
                                                .generated_tokens = w->session[i].generated_tokens,
                                                .uid = w->session[i].uid,
                                                .kept_s = w->session[i].kept_s,
                                                .left_s = w->session[i].left_s,
                                                .unit = w->session[i].unit };

        gist_copy_out(to + i * len, len, &one, sizeof(one));
    }
}

static void copy_owners(const struct wire_stats *w, uint8_t *to, size_t len)
{
    for (uint32_t i = 0; i < w->n_owner; i++) {
        const struct gist_stats_owner one = { .uid = w->owner[i].uid,
                                              .clients = w->owner[i].clients,
                                              .sessions = w->owner[i].sessions,
                                              .pages = w->owner[i].pages,
                                              .gist_pages = w->owner[i].gist_pages,
                                              .held_pages = w->owner[i].held_pages,
                                              .held_pages_max = w->owner[i].held_pages_max,
                                              .clients_max = w->owner[i].clients_max,
                                              .sessions_max = w->owner[i].sessions_max,
                                              .text_bytes = w->owner[i].text_bytes,
                                              .text_bytes_max = w->owner[i].text_bytes_max,
                                              .rows = w->owner[i].rows,
                                              .store_bytes = w->owner[i].store_bytes,
                                              .store_bytes_max = w->owner[i].store_bytes_max };

        gist_copy_out(to + i * len, len, &one, sizeof(one));
    }
}

static void copy_store(const struct wire_stats_store *w, struct gist_stats_store *to)
{
    *to = (struct gist_stats_store){ .bytes = w->bytes,
                                     .limit = w->limit,
                                     .records = w->records,
                                     .names = w->names,
                                     .written = w->written,
                                     .written_today = w->written_today,
                                     .write_a_day = w->write_a_day,
                                     .puts = w->puts,
                                     .gets = w->gets,
                                     .hits = w->hits,
                                     .misses = w->misses,
                                     .refused = w->refused,
                                     .evicted = w->evicted,
                                     .expired = w->expired,
                                     .read_bytes = w->read_bytes,
                                     .read_ns = w->read_ns,
                                     .pinned_pages = w->pinned_pages,
                                     .pending = w->pending,
                                     .restored_tokens = w->restored_tokens,
                                     .computed_instead = w->computed_instead,
                                     .forgotten = w->forgotten,
                                     .ns_per_token = w->ns_per_token,
                                     .degraded = w->degraded,
                                     .degraded_s = w->degraded_s,
                                     .io = w->io };
}

static void copy_numbers(const struct wire_stats *w, struct gist_stats *s)
{
    *s = (struct gist_stats){ .version = w->version,
                              .model = w->model,
                              .model_digest = w->model_digest,
                              .cpu = w->cpu,
                              .adapters = w->adapters,
                              .store_off = w->store_off,
                              .threads = w->threads,
                              .page_bytes = w->page_bytes,
                              .page_tokens = w->page_tokens,
                              .pages = w->pages,
                              .pages_free = w->pages_free,
                              .pages_cached = w->pages_cached,
                              .requests_running = w->requests_running,
                              .n_documents = w->documents,
                              .pinned_pages = w->pinned_pages,
                              .uptime_ns = w->uptime_ns,
                              .weights_bytes = w->weights_bytes,
                              .weights_from = w->weights_from,
                              .weights_memory = w->weights_memory,
                              .weights_streamed = w->weights_streamed,
                              .weights_read = w->weights_read,
                              .weights_read_ns = w->weights_read_ns,
                              .weights_waited_ns = w->weights_waited_ns,
                              .scratch_bytes = w->scratch_bytes,
                              .kv_bytes = w->kv_bytes,
                              .adapter_bytes = w->adapter_bytes,
                              .requests_total = w->requests_total,
                              .requests_failed = w->requests_failed,
                              .prompt_tokens_total = w->prompt_tokens_total,
                              .generated_tokens_total = w->generated_tokens_total,
                              .steps_total = w->steps_total,
                              .client_errors_total = w->client_errors_total,
                              .drafted_tokens_total = w->drafted_tokens_total,
                              .accepted_tokens_total = w->accepted_tokens_total,
                              .requests_waiting = w->requests_waiting,
                              .pages_returned = w->pages_returned,
                              .idle = w->idle,
                              .idles_total = w->idles_total,
                              .pressures_total = w->pressures_total,
                              .host_bytes = w->host_bytes,
                              .host_limit = w->host_limit,
                              .host_records = w->host_records,
                              .host_evicted_total = w->host_evicted_total,
                              .host_tokens_total = w->host_tokens_total,
                              .host_pinned = w->host_pinned,
                              .n_clients_all = w->clients,
                              .n_sessions_all = w->sessions };
}

/* NULL: no memory. The caller frees what is returned, with all lists in it. */
static struct gist_stats_store *make_lists(const struct wire_stats *w, const struct gist_sizes *len,
                                           struct gist_stats *ret)
{
    struct lists to;

    to.store =
        malloc(sizeof(*to.store) + w->n_client * (size_t)len->stats_client +
               w->n_session * (size_t)len->stats_session + w->n_owner * (size_t)len->stats_owner);
    if (!to.store)
        return NULL;
    to.clients = (uint8_t *)(to.store + 1);
    to.sessions = to.clients + w->n_client * (size_t)len->stats_client;
    to.owners = to.sessions + w->n_session * (size_t)len->stats_session;
    copy_clients(w, to.clients, len->stats_client);
    copy_sessions(w, to.sessions, len->stats_session);
    copy_owners(w, to.owners, len->stats_owner);
    /* The lists may be cut to what a frame holds; these count what the lists have. */
    ret->n_clients = w->n_client;
    ret->n_sessions = w->n_session;
    ret->n_owners = w->n_owner;
    ret->clients = (const void *)to.clients;
    ret->sessions = (const void *)to.sessions;
    ret->owners = (const void *)to.owners;
    if (w->store) {
        copy_store(w->store, to.store);
        ret->store = to.store;
    }
    return to.store;
}

/* Of a Watch none is the last, of anything else the only one is. The last memory is freed only when
 * the new one is there, and before the callback sees it. */
static int keep_stats(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    const struct wire_stats *w = &rep->u.stats;
    bool again = r->msg.kind == WIRE_WATCH;
    gist_conn *c = r->conn;
    void *mem;

    (void)bulk;
    if (rep->kind != WIRE_STATS || rep->last == again)
        return -EPROTO;
    if (r->err)
        return 0;
    copy_numbers(w, &c->stats);
    mem = make_lists(w, &c->sizes, &c->stats);
    if (!mem) {
        r->err = gist_set_errno(c, -ENOMEM);
        if (again) /* or it would never end */
            gist_request_cancel(r);
        return 0;
    }
    free(c->stats_mem);
    c->stats_mem = mem;
    if (r->on_stats && r->on_stats(r->arg, &c->stats) != 0 && again) {
        r->err = -ECANCELED;
        gist_request_cancel(r);
    }
    return 0;
}

static struct gist_request make_stats(gist_conn *c)
{
    struct gist_request r = gist_request_make(c, WIRE_GET_STATS);

    r.on_reply = keep_stats;
    return r;
}

int gist_stats(gist_conn *c, struct gist_stats *ret_stats)
{
    struct gist_request r = make_stats(c);
    int err = gist_run(&r, -1);

    if (err == 0)
        gist_copy_out(ret_stats, c->sizes.stats, &c->stats, sizeof(c->stats));
    return err;
}

int gist_stats_start(gist_conn *c, gist_stats_fn *on_stats, gist_done_fn *on_done, void *arg,
                     uint64_t *ret_request)
{
    struct gist_request r = make_stats(c);

    r.on_stats = on_stats;
    return gist_start(&r, on_done, arg, ret_request);
}

int gist_watch_start(gist_conn *c, uint32_t interval_ms, gist_stats_fn *on_stats,
                     gist_done_fn *on_done, void *arg, uint64_t *ret_request)
{
    struct gist_request r = gist_request_make(c, WIRE_WATCH);

    if (!on_stats)
        return gist_set_errno(c, -EINVAL);
    r.msg.u.watch.interval_ms = interval_ms;
    r.on_reply = keep_stats;
    r.on_stats = on_stats;
    return gist_start(&r, on_done, arg, ret_request);
}

/* --- traces, and who is cancelled by them -------------------------------------------------------
 */

static void copy_traces(const struct wire_traced *t, uint8_t *to, size_t len)
{
    for (uint32_t i = 0; i < t->n_row; i++) {
        const struct gist_trace_row one = {
            .number = t->row[i].number,
            .session = t->row[i].session,
            .at_s = t->row[i].at_s,
            .what = t->row[i].what,
            .client = t->row[i].client,
            .ended = t->row[i].ended,
            .total_ns = t->row[i].total_ns,
            .queue_ns = t->row[i].queue_ns,
            .restore_ns = t->row[i].restore_ns,
            .hydrate_ns = t->row[i].hydrate_ns,
            .prefill_ns = t->row[i].prefill_ns,
            .compress_ns = t->row[i].compress_ns,
            .decode_ns = t->row[i].decode_ns,
            .first_token_ns = t->row[i].first_token_ns,
            .ring_ns = t->row[i].ring_ns,
            .computed_tokens = t->row[i].computed_tokens,
            .found_tokens = t->row[i].found_tokens,
            .generated_tokens = t->row[i].generated_tokens,
            .drafted_tokens = t->row[i].drafted_tokens,
            .accepted_tokens = t->row[i].accepted_tokens,
        };

        gist_copy_out(to + i * len, len, &one, sizeof(one));
    }
}

/* The rows live until the callback returns. A trace of one number that has no row is an error here:
 * to the daemon it is an empty list. */
static int keep_traces(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    const struct wire_traced *t = &rep->u.traced;
    size_t len = r->conn->sizes.trace_row;
    void *rows;

    (void)bulk;
    if (rep->kind != WIRE_TRACED || !rep->last || t->n_row > WIRE_TRACES_MAX)
        return -EPROTO;
    rows = malloc(t->n_row * len + 1);
    if (!rows) {
        r->err = gist_set_errno(r->conn, -ENOMEM);
        return 0;
    }
    copy_traces(t, rows, len);
    if (r->msg.u.trace.number && t->n_row == 0)
        r->err = gist_set_error(r->conn, GIST_E_NOT_FOUND, -ENOENT,
                                "no request %llu of this user is known, or not any more: the last "
                                "%u that used the model are",
                                (unsigned long long)r->msg.u.trace.number, WIRE_TRACES_MAX);
    else if (r->on_trace)
        r->on_trace(r->arg, rows, t->n_row);
    free(rows);
    return 0;
}

static struct gist_request make_trace(gist_conn *c, uint64_t number, gist_trace_fn *on_rows)
{
    struct gist_request r = gist_request_make(c, WIRE_TRACE);

    r.msg.u.trace.number = number;
    r.on_reply = keep_traces;
    r.on_trace = on_rows;
    return r;
}

int gist_trace(gist_conn *c, uint64_t number, gist_trace_fn *on_rows, void *arg)
{
    struct gist_request r = make_trace(c, number, on_rows);

    r.arg = arg;
    return gist_run(&r, -1);
}

int gist_trace_start(gist_conn *c, uint64_t number, gist_trace_fn *on_rows, gist_done_fn *on_done,
                     void *arg, uint64_t *ret_request)
{
    struct gist_request r = make_trace(c, number, on_rows);

    return gist_start(&r, on_done, arg, ret_request);
}

static int take_found(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    (void)bulk;
    if (rep->kind != WIRE_CANCELLED || !rep->last)
        return -EPROTO;
    if (!rep->u.cancelled.found)
        r->err = gist_set_error(r->conn, GIST_E_NOT_FOUND, -ENOENT,
                                "no session %llu of this user is at work",
                                (unsigned long long)r->msg.u.cancel.session);
    return 0;
}

static int make_cancel(gist_conn *c, uint64_t session, struct gist_request *ret)
{
    if (session == 0)
        return gist_set_errno(c, -EINVAL);
    *ret = gist_request_make(c, WIRE_CANCEL);
    ret->msg.u.cancel.session = session;
    ret->on_reply = take_found;
    return 0;
}

int gist_cancel_session(gist_conn *c, uint64_t session)
{
    struct gist_request r;
    int err = make_cancel(c, session, &r);

    return err < 0 ? err : gist_run(&r, -1);
}

int gist_cancel_session_start(gist_conn *c, uint64_t session, gist_done_fn *on_done, void *arg,
                              uint64_t *ret_request)
{
    struct gist_request r;
    int err = make_cancel(c, session, &r);

    return err < 0 ? err : gist_start(&r, on_done, arg, ret_request);
}

/* --- how a session's text is held ------------------------------------------------------------- */

static void copy_segments(const struct wire_segment_map *w, uint8_t *to, size_t len)
{
    for (uint32_t i = 0; i < w->n_row; i++) {
        const struct gist_segment one = { .state = (enum gist_segment_state)w->row[i].state,
                                          .n_tokens = w->row[i].n_tokens,
                                          .n_keys = w->row[i].n_keys,
                                          .ratio = w->row[i].ratio,
                                          .stored = w->row[i].stored };

        gist_copy_out(to + i * len, len, &one, sizeof(one));
    }
}

/* Shares the connection's stats_mem: of both, the last that was asked for is valid. */
static int keep_segments(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    const struct wire_segment_map *w = &rep->u.segment_map;
    size_t len = r->conn->sizes.segment;
    void *at;

    (void)bulk;
    if (rep->kind != WIRE_SEGMENT_MAP || !rep->last)
        return -EPROTO;
    at = malloc(w->n_row * len + 1);
    if (!at) {
        r->err = gist_set_errno(r->conn, -ENOMEM);
        return 0;
    }
    copy_segments(w, at, len);
    r->segments = (struct gist_segments){ .n_segments = w->n_segments,
                                          .segment = w->segment,
                                          .n_tokens = w->n_tokens,
                                          .n_keys = w->n_keys,
                                          .budget = w->budget,
                                          .n = w->n_row,
                                          .at = at };
    free(r->conn->stats_mem);
    r->conn->stats_mem = at;
    return 0;
}

static struct gist_request make_segments(gist_conn *c, uint64_t session, uint32_t first)
{
    struct gist_request r = gist_request_make(c, WIRE_SEGMENTS);

    r.msg.u.segments.session = session;
    r.msg.u.segments.first = first;
    r.on_reply = keep_segments;
    return r;
}

int gist_segments(gist_conn *c, uint64_t session, uint32_t first,
                  struct gist_segments *ret_segments)
{
    struct gist_request r = make_segments(c, session, first);
    int err = gist_run(&r, -1);

    if (err == 0)
        gist_copy_out(ret_segments, c->sizes.segments, &r.segments, sizeof(r.segments));
    return err;
}

static void tell_segments(struct gist_request *r, int err)
{
    r->end.segments(r->arg, err, err == 0 ? &r->segments : NULL);
}

int gist_segments_start(gist_conn *c, uint64_t session, uint32_t first,
                        gist_segments_fn *on_segments, void *arg, uint64_t *ret_request)
{
    struct gist_request r = make_segments(c, session, first);

    r.end.segments = on_segments;
    r.tell = on_segments ? tell_segments : NULL;
    r.arg = arg;
    return gist_submit(&r, ret_request);
}
