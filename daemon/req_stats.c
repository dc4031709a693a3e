/* daemon/req_stats.c - what the daemon says of itself: Stats, once or again and again (Watch), and
 * the times of requests (Trace).
 */

#include "base/clock.h"
#include "daemon/kept.h"
#include "daemon/metrics.h"
#include "daemon/reply.h"
#include "daemon/sched.h"
#include "daemon/tier.h"
#include "engine/file/stream.h"
#include "store/io.h"
#include "store/store.h"

#include <errno.h>
#include <stdlib.h>

/* --- Stats ------------------------------------------------------------------------------------ */

/* A session's entry takes at least so many bytes of the frame, and more than fit are not listed: a
 * daemon with ten thousand sessions must not take ten times as long to say so. */
#define SESSION_BYTES_MIN 16u
#define SESSIONS_LISTED   (CHAN_FRAME_MAX / SESSION_BYTES_MIN)

struct stats {
    struct wire_stats_client *clients;
    struct wire_stats_session *sessions;
    struct wire_stats_owner *owners;
    struct store_stats counts;
    struct wire_stats_store store;
};

/* How many tokens were computed for a user is for whom it concerns, as list_all says. */
static struct wire_stats_owner owner_row(const struct sched *s, const struct client *asks,
                                         const struct owner *o)
{
    const struct owner_limits *most = &s->owners.limits;
    const struct metrics_owner has = metrics_owner_of(s, o);
    struct wire_stats_owner row = { .uid = o->uid,
                                    .clients = has.clients,
                                    .sessions = has.sessions,
                                    .pages = has.pages,
                                    .gist_pages = has.gist_pages,
                                    .held_pages_max = o->pages.limit,
                                    .clients_max = most->clients,
                                    .sessions_max = most->sessions,
                                    .text_bytes_max = o->held.limit };

    if (owner_sees(asks->uid, o->uid, s->served.stand_in)) {
        row.held_pages = o->pages.used;
        row.text_bytes = o->held.used;
        row.rows = o->rows;
        if (s->served.store)
            row.store_bytes = store_bytes_of(s->served.store, o->uid, &row.store_bytes_max);
    }
    return row;
}

static void list_owners(const struct sched *s, const struct client *asks, struct stats *t,
                        struct wire_stats *ret)
{
    const struct owner *o;

    ret->n_owner = 0;
    TAILQ_FOREACH (o, &s->owners.list, link)
        if (o->n_refs > 0)
            t->owners[ret->n_owner++] = owner_row(s, asks, o);
    ret->owner = t->owners;
}

/* Names are borrowed: of the session, its client's unit and the request's kind. So the reply is
 * packed before anything else happens (stats_flush). */
static struct wire_stats_session session_row(const struct client *c, const struct session *x)
{
    const struct request *r = x->busy;

    return (struct wire_stats_session){ .id = x->id,
                                        .client = kept_client(c),
                                        .label = x->label,
                                        .n_tokens = session_count(x),
                                        .pages = x->seq.n_pages,
                                        .segment = x->seq.seg_len,
                                        .busy = r != NULL,
                                        .gist_pages = memory_gist_pages(&x->memory),
                                        .request = r ? r->times.number : 0,
                                        .doing = r ? r->ops->name : "",
                                        .generated_tokens = r ? r->usage.generated_tokens : 0,
                                        .uid = c->uid,
                                        .kept_s = c->kept ? c->kept->seconds : 0,
                                        .left_s = c->kept ? kept_left_s(c->kept) : 0,
                                        .unit = c->unit->name };
}

/* With the sessions that it is attached to. */
static struct wire_stats_client client_row(const struct client *c)
{
    struct wire_stats_client row = { .id = c->id,
                                     .pid = (uint32_t)c->pid,
                                     .uid = c->uid,
                                     .name = c->name,
                                     .sessions = c->n_sessions + c->n_keeps,
                                     .pages = c->account.used,
                                     .unit = c->unit->name };
    const struct kept *k;

    TAILQ_FOREACH (k, &c->keeps, link)
        row.pages += k->holder->account.used;
    return row;
}

/* Owners are numbers, which the pool shows anyway; what somebody's sessions hold is told to whom it
 * concerns: tokens beside pages would tell how much of a prompt was there before. */
static void list_all(struct sched *s, const struct client *asks, struct stats *t,
                     struct wire_stats *ret)
{
    struct client *c;
    struct session *x;
    uint32_t i = 0, k = 0;

    TAILQ_FOREACH (c, &s->clients, link) {
        if (!client_sees(asks, c, s->served.stand_in))
            continue;
        if (!c->kept)
            t->clients[i++] = client_row(c);
        TAILQ_FOREACH (x, &c->sessions, link) {
            if (k == SESSIONS_LISTED)
                break;
            t->sessions[k++] = session_row(c, x);
        }
    }
    ret->client = t->clients;
    ret->n_client = i;
    ret->session = t->sessions;
    ret->n_session = k;
    list_owners(s, asks, t, ret);
}

/* Of all users: sizes of another's are no secret, in memory they are not either. */
static void fill_store(struct sched *s, struct stats *t, const struct tier_stats *tier,
                       struct wire_stats *ret)
{
    const struct served *b = &s->served;
    struct store_stats *x = &t->counts;

    ret->store_off = b->store ? "" : b->store_why.text;
    if (!b->store)
        return;
    store_stats(b->store, x);
    degraded_look(&s->degraded, x->degraded);
    t->store = (struct wire_stats_store){ .bytes = x->bytes,
                                          .limit = x->limit,
                                          .records = x->records,
                                          .names = x->names,
                                          .written = x->written,
                                          .written_today = x->written_today,
                                          .write_a_day = x->write_a_day,
                                          .puts = x->puts,
                                          .gets = x->gets,
                                          .hits = x->hits,
                                          .misses = x->misses,
                                          .refused = x->refused,
                                          .evicted = x->evicted,
                                          .expired = x->expired,
                                          .read_bytes = x->read_bytes,
                                          .read_ns = x->read_ns,
                                          .pinned_pages = tier->pages_queued + tier->pages_busy,
                                          .pending = tier->queued + tier->writing,
                                          .restored_tokens = tier->restored_tokens,
                                          .computed_instead = tier->computed_instead,
                                          .forgotten = tier->forgotten,
                                          .ns_per_token = tier->ns_per_token,
                                          .degraded = x->degraded,
                                          .degraded_s = s->degraded.since_s,
                                          .io = io_name(b->io) };
    ret->store = &t->store;
}

static void fill_host(const struct tier_stats *tier, struct wire_stats *ret)
{
    ret->host_bytes = tier->host_bytes;
    ret->host_limit = tier->host_limit;
    ret->host_records = tier->host_records;
    ret->host_evicted_total = tier->host_evicted;
    ret->host_tokens_total = tier->host_tokens;
    ret->host_pinned = tier->host_pinned;
}

/* What was not computed would tell what others' prompts had in common with earlier ones: together
 * they are as many as were sent. */
static void hide_found(const struct sched *s, struct stats *t, struct wire_stats *ret)
{
    struct wire_stats_store *x = &t->store;

    ret->prompt_tokens_total += s->meter.shared_tokens + s->meter.restored_tokens;
    x->gets = x->hits = x->misses = x->read_bytes = x->read_ns = 0;
    x->restored_tokens = x->computed_instead = 0;
    ret->host_tokens_total = 0;
    /* How much of an answer stood in its prompt, or was said before. */
    ret->drafted_tokens_total = ret->accepted_tokens_total = 0;
}

/* Read and waited are of weights that pass through memory: 0 where all of them stay. */
static void fill_weights(const struct model *m, struct wire_stats *ret)
{
    static const char *const from[] = { [MODEL_FROM_FILE] = "file",
                                        [MODEL_FROM_IMAGE] = "image",
                                        [MODEL_FROM_KEPT] = "service manager" };
    struct stream_stats st;

    ret->weights_bytes = m->weights_len;
    ret->weights_from = from[m->from];
    ret->weights_memory = m->mem_len;
    if (!m->stream)
        return;
    stream_stats(m->stream, &st);
    ret->weights_streamed = st.streamed;
    ret->weights_read = st.read;
    ret->weights_read_ns = st.step_ns;
    ret->weights_waited_ns = st.waited_ns;
}

static bool is_watch(const struct request *r)
{
    return r->ops == &request_watch;
}

/* It does more than to look on. */
static bool works(const struct request *r)
{
    return r->ops != &request_watch && r->ops != &request_stats && r->ops != &request_relay;
}

static uint32_t count(const struct sched *s, bool (*is)(const struct request *))
{
    const struct request *r;
    uint32_t n = 0;

    TAILQ_FOREACH (r, &s->active, link)
        n += is(r);
    return n;
}

static void fill_stats(struct sched *s, struct wire_stats *ret)
{
    const struct served *b = &s->served;

    *ret = (struct wire_stats){
        .version = GISTD_VERSION,
        .model = b->model->name,
        .model_digest = b->model->digest,
        .cpu = b->info.cpu,
        .threads = b->info.threads,
        .uptime_ns = clock_ns() - s->started_ns,
        .scratch_bytes = b->info.scratch_bytes + plan_bytes(&b->forward.plan),
        .kv_bytes = b->pool.mem_len,
        .adapter_bytes = served_adapter_bytes(b),
        .adapters = b->adapter_names,
        .page_bytes = (uint32_t)b->pool.page_bytes,
        .page_tokens = POOL_PAGE_TOKENS,
        .pages = b->pool.n_pages,
        .pages_free = b->pool.n_free,
        .pages_cached = b->pool.n_cached,
        .clients = s->n_clients - s->n_kept,
        .sessions = s->n_sessions,
        .documents = s->documents.n,
        .pinned_pages = s->documents.n_pinned_pages,
        .requests_running = count(s, works),
        .requests_waiting = count(s, request_waits),
        .requests_total = s->totals.requests,
        .requests_failed = s->totals.requests_failed,
        .prompt_tokens_total = s->totals.prompt_tokens,
        .generated_tokens_total = s->totals.generated_tokens,
        .steps_total = s->totals.steps,
        .client_errors_total = s->totals.client_errors,
        .drafted_tokens_total = s->totals.drafted_tokens,
        .accepted_tokens_total = s->totals.accepted_tokens,
        .idle = s->idle.down,
        .idles_total = s->idle.n,
        .pages_returned = b->pool.n_away,
        .pressures_total = s->idle.n_pressed,
    };
    fill_weights(b->model, ret);
    if (s->idle.down)
        ret->weights_memory = 0;
}

static void free_lists(struct stats *t)
{
    free(t->clients);
    free(t->sessions);
    free(t->owners);
    *t = (struct stats){ .clients = NULL };
}

/* Of lists that don't fit into a frame the first part is sent: the totals are of all. */
static void shrink_to_frame(struct sched *s, struct wire_rep *rep)
{
    struct wire_stats *t = &rep->u.stats;

    while (!reply_fits(s, rep) && t->n_client + t->n_session + t->n_owner > 0) {
        if (t->n_session > 0 && t->n_session >= t->n_client)
            t->n_session /= 2;
        else if (t->n_client >= t->n_owner)
            t->n_client /= 2;
        else
            t->n_owner /= 2;
    }
}

/* Lists for as many as there are. False: no memory, and the reply has none of them. Told is what
 * the asker may know: first all of the daemon's, then what hide_found takes out, then lists by
 * client_sees. */
static bool make(struct sched *s, const struct client *asks, struct stats *t, struct wire_rep *rep)
{
    uint32_t n_sessions = s->n_sessions < SESSIONS_LISTED ? s->n_sessions : SESSIONS_LISTED;
    struct tier_stats tier = { 0 };

    free_lists(t);
    t->clients = calloc(s->n_clients + 1, sizeof(*t->clients));
    /* One more of each: none may be NULL. */
    t->sessions = calloc(n_sessions + 1, sizeof(*t->sessions));
    t->owners = calloc(owners_count(&s->owners) + 1, sizeof(*t->owners));
    if (!t->clients || !t->sessions || !t->owners)
        return false;
    fill_stats(s, &rep->u.stats);
    if (s->served.tier)
        tier_stats(s->served.tier, &tier);
    fill_store(s, t, &tier, &rep->u.stats);
    fill_host(&tier, &rep->u.stats);
    if (!owner_sees_all(asks->uid))
        hide_found(s, t, &rep->u.stats);
    list_all(s, asks, t, &rep->u.stats);
    shrink_to_frame(s, rep);
    return true;
}

/* The client's last Stats found no room, and none came back since: this one would find none either.
 */
static bool waits_for_room(struct client *c)
{
    uint32_t back = chan_came_back(c->chan);

    if (c->stats_blocked && back == c->stats_back) {
        c->blocked = true;
        return true;
    }
    c->stats_blocked = true; /* until it is sent, and freed */
    c->stats_back = back;
    return false;
}

/* Makes the reply anew each time that it is tried: the lists point to names that may have gone. */
static int stats_flush(struct sched *s, struct request *r)
{
    struct stats *t = r->state;

    if (!t || r->last.kind == WIRE_ERROR)
        return 0;
    if (waits_for_room(r->client))
        return -EAGAIN;
    r->last = (struct wire_rep){ .id = r->id, .last = true, .kind = WIRE_STATS };
    (void)make(s, r->client, t, &r->last);
    if (r->phase != REQUEST_LAST)
        request_finish(s, r);
    return 0;
}

/* Nothing but a place for the lists: they are made when there is room to send them. */
static int stats_start(struct sched *s, struct request *r, const struct wire_req *m,
                       const uint8_t *bulk)
{
    (void)s;
    (void)m;
    (void)bulk;
    r->state = calloc(1, sizeof(struct stats));
    return r->state ? 0 : -ENOMEM;
}

static void stats_fini(struct request *r)
{
    struct stats *t = r->state;

    r->client->stats_blocked = false;
    if (t)
        free_lists(t);
    free(t);
}

/* --- Watch ------------------------------------------------------------------------------------ */

/* No faster than an eye follows: each one walks over all sessions. */
#define WATCH_MIN_MS     100u
#define WATCH_DEFAULT_MS 1000u

struct watch {
    uint64_t interval_ns, due_ns;
};

static int watch_start(struct sched *s, struct request *r, const struct wire_req *m,
                       const uint8_t *bulk)
{
    uint32_t ms = m->u.watch.interval_ms ? m->u.watch.interval_ms : WATCH_DEFAULT_MS;
    struct watch *w = calloc(1, sizeof(*w));

    (void)s;
    (void)bulk;
    if (!w)
        return -ENOMEM;
    w->interval_ns = (ms < WATCH_MIN_MS ? WATCH_MIN_MS : ms) * CLOCK_MS;
    r->state = w;
    return 0;
}

/* What finds no room is not said: the next one says more. */
static bool watch_work(struct sched *s, struct request *r)
{
    struct wire_rep rep = { .id = r->id, .kind = WIRE_STATS };
    struct stats t = { .clients = NULL };
    struct watch *w = r->state;
    uint64_t now = clock_ns();

    if (now < w->due_ns)
        return false;
    w->due_ns = now + w->interval_ns;
    if (make(s, r->client, &t, &rep))
        (void)reply_send(s, r, &rep, NULL);
    free_lists(&t);
    return true;
}

static void free_state(struct request *r)
{
    free(r->state);
}

/* The scheduler sleeps by this: no event says that a Watch is due. */
int request_watch_ms(const struct sched *s)
{
    uint64_t due = UINT64_MAX;
    const struct request *r;

    TAILQ_FOREACH (r, &s->active, link) {
        const struct watch *w = r->phase == REQUEST_WORK && is_watch(r) ? r->state : NULL;

        if (w && w->due_ns < due)
            due = w->due_ns;
    }
    return due == UINT64_MAX ? -1 : clock_until_ms(due, clock_ns());
}

/* --- Trace ------------------------------------------------------------------------------------ */

static int trace_start(struct sched *s, struct request *r, const struct wire_req *m,
                       const uint8_t *bulk)
{
    struct trace_rows *rows = calloc(1, sizeof(*rows));
    struct wire_traced *t = &r->last.u.traced;

    (void)bulk;
    if (!rows)
        return -ENOMEM;
    r->state = rows;
    r->last = (struct wire_rep){ .kind = WIRE_TRACED };
    t->row = rows->row;
    t->n_row = trace_list(&s->trace, r->client->uid, m->u.trace.number, rows);
    while (t->n_row > 0 && !reply_fits(s, &r->last))
        t->n_row--;
    request_finish(s, r);
    return 0;
}

const struct request_ops request_stats = {
    .name = "stats", .start = stats_start, .flush = stats_flush, .fini = stats_fini
};
const struct request_ops request_watch = {
    .name = "watch", .start = watch_start, .work = watch_work, .fini = free_state
};
const struct request_ops request_trace = { .name = "trace",
                                           .start = trace_start,
                                           .fini = free_state };
