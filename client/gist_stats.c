/* client/gist_stats.c - what the daemon says about itself. */
#include "client/gist_internal.h"

#include <errno.h>
#include <stdlib.h>

/* The lists of a reply, in one piece of memory. */
struct lists {
    struct gist_stats_client *clients;
    struct gist_stats_session *sessions;
    struct gist_stats_owner *owners;
    struct gist_stats_store *store;
};

/* The strings stay in the scratch of the last reply, which the next call uses again. */
static void copy_lists(const struct wire_stats *w, const struct lists *to)
{
    struct gist_stats_client *clients = to->clients;
    struct gist_stats_session *sessions = to->sessions;

    for (uint32_t i = 0; i < w->n_client; i++)
        clients[i] = (struct gist_stats_client){ .id = w->client[i].id,
                                                 .pid = w->client[i].pid,
                                                 .uid = w->client[i].uid,
                                                 .sessions = w->client[i].sessions,
                                                 .pages = w->client[i].pages,
                                                 .name = w->client[i].name };
    for (uint32_t i = 0; i < w->n_session; i++)
        sessions[i] =
            (struct gist_stats_session){ .id = w->session[i].id,
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
                                         .uid = w->session[i].uid };
    for (uint32_t i = 0; i < w->n_owner; i++)
        to->owners[i] = (struct gist_stats_owner){ .uid = w->owner[i].uid,
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
                                                   .rows = w->owner[i].rows };
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
                              .requests_waiting = w->requests_waiting };
}

static int keep_stats(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    const struct wire_stats *w = &rep->u.stats;
    struct lists to;
    size_t n_bytes;

    (void)bulk;
    if (rep->kind != WIRE_STATS || rep->last == (r->on_stats != NULL))
        return -EPROTO;
    if (r->err)
        return 0;
    n_bytes = w->n_client * sizeof(*to.clients) + w->n_session * sizeof(*to.sessions) +
              w->n_owner * sizeof(*to.owners) + sizeof(*to.store);
    to.store = malloc(n_bytes);
    if (!to.store) {
        r->err = gist_set_errno(r->conn, -ENOMEM);
        return 0;
    }
    to.clients = (struct gist_stats_client *)(void *)(to.store + 1);
    to.sessions = (struct gist_stats_session *)(void *)(to.clients + w->n_client);
    to.owners = (struct gist_stats_owner *)(void *)(to.sessions + w->n_session);
    copy_numbers(w, r->stats);
    copy_lists(w, &to);
    /* The lists may be cut to what a frame holds; these count what the lists have. */
    r->stats->n_clients = w->n_client;
    r->stats->n_sessions = w->n_session;
    r->stats->n_owners = w->n_owner;
    r->stats->clients = to.clients;
    r->stats->sessions = to.sessions;
    r->stats->owners = to.owners;
    if (w->store) {
        copy_store(w->store, to.store);
        r->stats->store = to.store;
    }
    free(r->conn->stats_mem);
    r->conn->stats_mem = to.store;
    if (r->on_stats && r->on_stats(r->arg, r->stats) != 0) {
        r->err = -ECANCELED;
        gist_request_cancel(r);
    }
    return 0;
}

int gist_stats(gist_conn *c, struct gist_stats *ret_stats)
{
    struct gist_request r = gist_request_make(c, WIRE_GET_STATS);

    r.on_reply = keep_stats;
    r.stats = ret_stats;
    return gist_run(&r, -1);
}

int gist_watch_start(gist_conn *c, uint32_t interval_ms, gist_stats_fn *on_stats,
                     gist_done_fn *on_done, void *arg, uint64_t *ret_request)
{
    struct gist_request r = gist_request_make(c, WIRE_WATCH);

    if (!on_stats)
        return gist_set_errno(c, -EINVAL);
    r.msg.u.watch.interval_ms = interval_ms;
    r.on_reply = keep_stats;
    r.stats = &c->watched;
    r.on_stats = on_stats;
    r.on_done = on_done;
    r.arg = arg;
    return gist_submit(&r, ret_request);
}

/* --- traces, and who is cancelled by them -------------------------------------------------------
 */

static int keep_traces(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    const struct wire_traced *t = &rep->u.traced;
    struct gist_trace_row rows[WIRE_TRACES_MAX];

    (void)bulk;
    if (rep->kind != WIRE_TRACED || !rep->last || t->n_row > WIRE_TRACES_MAX)
        return -EPROTO;
    for (uint32_t i = 0; i < t->n_row; i++)
        rows[i] = (struct gist_trace_row){
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
    if (r->msg.u.trace.number && t->n_row == 0)
        r->err = gist_set_error(r->conn, GIST_E_NOT_FOUND, -ENOENT,
                                "no request %llu of this user is known, or not any more: the last "
                                "%u that used the model are",
                                (unsigned long long)r->msg.u.trace.number, WIRE_TRACES_MAX);
    else if (r->on_trace)
        r->on_trace(r->arg, rows, t->n_row);
    return 0;
}

int gist_trace(gist_conn *c, uint64_t number, gist_trace_fn *on_rows, void *arg)
{
    struct gist_request r = gist_request_make(c, WIRE_TRACE);

    r.msg.u.trace.number = number;
    r.on_reply = keep_traces;
    r.on_trace = on_rows;
    r.arg = arg;
    return gist_run(&r, -1);
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

int gist_cancel_session(gist_conn *c, uint64_t session)
{
    struct gist_request r = gist_request_make(c, WIRE_CANCEL);

    if (session == 0)
        return gist_set_errno(c, -EINVAL);
    r.msg.u.cancel.session = session;
    r.on_reply = take_found;
    return gist_run(&r, -1);
}

/* --- how a session's text is held ------------------------------------------------------------- */

static int keep_segments(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    const struct wire_segment_map *w = &rep->u.segment_map;
    struct gist_segment *at;

    (void)bulk;
    if (rep->kind != WIRE_SEGMENT_MAP || !rep->last)
        return -EPROTO;
    at = malloc((w->n_row + 1) * sizeof(*at));
    if (!at) {
        r->err = gist_set_errno(r->conn, -ENOMEM);
        return 0;
    }
    for (uint32_t i = 0; i < w->n_row; i++)
        at[i] = (struct gist_segment){ .state = (enum gist_segment_state)w->row[i].state,
                                       .n_tokens = w->row[i].n_tokens,
                                       .n_keys = w->row[i].n_keys,
                                       .ratio = w->row[i].ratio,
                                       .stored = w->row[i].stored };
    *r->segments = (struct gist_segments){ .n_segments = w->n_segments,
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

int gist_segments(gist_conn *c, uint64_t session, uint32_t first,
                  struct gist_segments *ret_segments)
{
    struct gist_request r = gist_request_make(c, WIRE_SEGMENTS);

    r.msg.u.segments.session = session;
    r.msg.u.segments.first = first;
    r.on_reply = keep_segments;
    r.segments = ret_segments;
    return gist_run(&r, -1);
}
