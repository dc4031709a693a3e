/* daemon/req_misc.c - the requests that are answered at once. */

#include "base/clock.h"
#include "daemon/reply.h"
#include "daemon/sched.h"
#include "daemon/tier.h"
#include "engine/file/stream.h"
#include "store/io.h"
#include "store/store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* --- Hello, Ping, Cancel ---------------------------------------------------------------------- */

static int hello_start(struct sched *s, struct request *r, const struct wire_req *m,
                       const uint8_t *bulk)
{
    const struct served *b = &s->served;

    (void)bulk;
    request_label(r->client->name, sizeof(r->client->name), m->u.hello.client);
    r->client->greeted = true;
    r->last = (struct wire_rep){ .kind = WIRE_WELCOME };
    r->last.u.welcome.version = GISTD_VERSION;
    r->last.u.welcome.model = b->model->name;
    r->last.u.welcome.model_digest = b->model->digest;
    r->last.u.welcome.n_vocab = b->model->n_vocab;
    r->last.u.welcome.context_max = b->context_max;
    r->last.u.welcome.chat = b->chat != NULL;
    r->last.u.welcome.outputs = true;
    r->last.u.welcome.segment_default = s->config->segment;
    request_finish(s, r);
    return 0;
}

static int ping_start(struct sched *s, struct request *r, const struct wire_req *m,
                      const uint8_t *bulk)
{
    (void)m;
    (void)bulk;
    r->last = (struct wire_rep){ .kind = WIRE_PONG };
    request_finish(s, r);
    return 0;
}

/* Only marks it: a sequence may be in the middle of a step, which sched_attend ends soon. */
static int cancel_start(struct sched *s, struct request *r, const struct wire_req *m,
                        const uint8_t *bulk)
{
    struct request *target = client_find_request(r->client, m->u.cancel.request);
    bool found = target && target != r && target->phase != REQUEST_LAST;

    (void)bulk;
    if (found)
        target->cancelled = true;
    r->last = (struct wire_rep){ .kind = WIRE_CANCELLED };
    r->last.u.cancelled.found = found;
    request_finish(s, r);
    return 0;
}

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

/* A client's to its user's. */
static void add_owner(const struct sched *s, struct stats *t, uint32_t *n, const struct client *c)
{
    const struct session *x;
    uint32_t i = 0;

    while (i < *n && t->owners[i].uid != c->uid)
        i++;
    if (i == *n)
        t->owners[(*n)++] =
            (struct wire_stats_owner){ .uid = c->uid,
                                       .pages = documents_pages_of(&s->documents, c->uid) };
    t->owners[i].clients++;
    t->owners[i].sessions += c->n_sessions;
    t->owners[i].pages += c->account.used;
    TAILQ_FOREACH (x, &c->sessions, link)
        t->owners[i].gist_pages += memory_gist_pages(&x->memory);
}

static void list_all(struct sched *s, struct stats *t, struct wire_stats *ret)
{
    struct client *c;
    struct session *x;
    uint32_t i = 0, k = 0;

    ret->n_owner = 0;
    TAILQ_FOREACH (c, &s->clients, link) {
        add_owner(s, t, &ret->n_owner, c);
        t->clients[i++] = (struct wire_stats_client){ .id = c->id,
                                                      .pid = (uint32_t)c->pid,
                                                      .uid = c->uid,
                                                      .name = c->name,
                                                      .sessions = c->n_sessions,
                                                      .pages = c->account.used };
        TAILQ_FOREACH (x, &c->sessions, link) {
            if (k == SESSIONS_LISTED)
                break;
            t->sessions[k++] =
                (struct wire_stats_session){ .id = x->id,
                                             .client = c->id,
                                             .label = x->label,
                                             .n_tokens = session_count(x),
                                             .pages = x->seq.n_pages,
                                             .segment = x->seq.seg_len,
                                             .busy = x->busy != NULL,
                                             .gist_pages = memory_gist_pages(&x->memory) };
        }
    }
    ret->client = t->clients;
    ret->n_client = i;
    ret->session = t->sessions;
    ret->n_session = k;
    ret->owner = t->owners;
}

/* Of all users: sizes of another's are no secret, in memory they are not either. */
static void fill_store(struct sched *s, struct stats *t, struct wire_stats *ret)
{
    const struct served *b = &s->served;
    struct store_stats *x = &t->counts;
    struct tier_stats tier;

    ret->store_off = b->store ? "" : b->store_why.text;
    if (!b->store)
        return;
    store_stats(b->store, x);
    tier_stats(b->tier, &tier);
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
                                          .pinned_pages = tier.pages_queued + tier.pages_busy,
                                          .pending = tier.queued + tier.writing,
                                          .restored_tokens = tier.restored_tokens,
                                          .computed_instead = tier.computed_instead,
                                          .forgotten = tier.forgotten,
                                          .ns_per_token = tier.ns_per_token,
                                          .degraded = x->degraded,
                                          .degraded_s = s->degraded.since_s,
                                          .io = io_name(b->io) };
    ret->store = &t->store;
}

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
        .clients = s->n_clients,
        .sessions = s->n_sessions,
        .documents = s->documents.n,
        .pinned_pages = s->documents.n_pinned_pages,
        .requests_running = s->n_active - 1, /* but this one */
        .requests_total = s->totals.requests,
        .requests_failed = s->totals.requests_failed,
        .prompt_tokens_total = s->totals.prompt_tokens,
        .generated_tokens_total = s->totals.generated_tokens,
        .steps_total = s->totals.steps,
        .client_errors_total = s->totals.client_errors,
    };
    fill_weights(b->model, ret);
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
    size_t len;

    while ((wire_rep_pack(&s->packed, rep, NULL, 0, &len) < 0 || len > CHAN_FRAME_MAX) &&
           t->n_client + t->n_session + t->n_owner > 0) {
        if (t->n_session > 0 && t->n_session >= t->n_client)
            t->n_session /= 2;
        else if (t->n_client >= t->n_owner)
            t->n_client /= 2;
        else
            t->n_owner /= 2;
    }
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
    uint32_t n_sessions = s->n_sessions < SESSIONS_LISTED ? s->n_sessions : SESSIONS_LISTED;

    if (!t || r->last.kind == WIRE_ERROR)
        return 0;
    if (waits_for_room(r->client))
        return -EAGAIN;
    free_lists(t);
    t->clients = calloc(s->n_clients + 1, sizeof(*t->clients));
    t->sessions = calloc(n_sessions + 1, sizeof(*t->sessions));
    t->owners = calloc(s->n_clients + 1, sizeof(*t->owners));
    r->last = (struct wire_rep){ .id = r->id, .last = true, .kind = WIRE_STATS };
    if (t->clients && t->sessions && t->owners) {
        fill_stats(s, &r->last.u.stats);
        fill_store(s, t, &r->last.u.stats);
        list_all(s, t, &r->last.u.stats);
        shrink_to_frame(s, &r->last);
    }
    if (r->phase != REQUEST_LAST)
        request_finish(s, r);
    return 0;
}

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

const struct request_ops request_hello = { .name = "hello", .start = hello_start };
const struct request_ops request_ping = { .name = "ping", .start = ping_start };
const struct request_ops request_cancel = { .name = "cancel", .start = cancel_start };
const struct request_ops request_stats = {
    .name = "stats", .start = stats_start, .flush = stats_flush, .fini = stats_fini
};
