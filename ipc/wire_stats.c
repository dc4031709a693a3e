/* What replies tell of the daemon (ipc/wire_stats.h), packed and read. */
#include "ipc/wire_pb.h"

#include <errno.h>
#include <string.h>

/* --- Stats ------------------------------------------------------------------------------------ */

/* Strings of replies are checked one by one: wire_check would refuse a reply for an enum's value
 * that is only new. */
bool wire_take_string(const char *s, const char **ret)
{
    if (strnlen(s, WIRE_STRING_MAX + 1) > WIRE_STRING_MAX)
        return false;
    *ret = s;
    return true;
}

/* Lists are as long as the daemon has cut them to fit into a frame; n_client and the like are those
 * that are told, `clients` all that there are. */
static int build_stats_clients(struct wire_scratch *s, const struct wire_stats *st, Gistd__Stats *m)
{
    Gistd__Stats__Client **list = wire_scratch_list(s, st->n_client, sizeof(**list));

    if (!list)
        return -EMSGSIZE;
    for (uint32_t i = 0; i < st->n_client; i++) {
        const struct wire_stats_client *c = &st->client[i];
        Gistd__Stats__Client *one = list[i];

        gistd__stats__client__init(one);
        one->id = c->id;
        one->pid = c->pid;
        one->uid = c->uid;
        one->name = wire_str(c->name);
        one->sessions = c->sessions;
        one->pages = c->pages;
        one->unit = wire_str(c->unit);
    }
    m->client = list;
    m->n_client = st->n_client;
    return 0;
}

static int build_stats_sessions(struct wire_scratch *s, const struct wire_stats *st,
                                Gistd__Stats *m)
{
    Gistd__Stats__Session **list = wire_scratch_list(s, st->n_session, sizeof(**list));

    if (!list)
        return -EMSGSIZE;
    for (uint32_t i = 0; i < st->n_session; i++) {
        const struct wire_stats_session *x = &st->session[i];
        Gistd__Stats__Session *one = list[i];

        gistd__stats__session__init(one);
        one->id = x->id;
        one->client = x->client;
        one->label = wire_str(x->label);
        one->n_tokens = x->n_tokens;
        one->pages = x->pages;
        one->segment = x->segment;
        one->busy = x->busy;
        one->gist_pages = x->gist_pages;
        one->request = x->request;
        one->doing = wire_str(x->doing);
        one->generated_tokens = x->generated_tokens;
        one->uid = x->uid;
        one->kept_s = x->kept_s;
        one->left_s = x->left_s;
        one->unit = wire_str(x->unit);
    }
    m->session = list;
    m->n_session = st->n_session;
    return 0;
}

static int build_stats_owners(struct wire_scratch *s, const struct wire_stats *st, Gistd__Stats *m)
{
    Gistd__Stats__Owner **list = wire_scratch_list(s, st->n_owner, sizeof(**list));

    if (!list)
        return -EMSGSIZE;
    for (uint32_t i = 0; i < st->n_owner; i++) {
        const struct wire_stats_owner *o = &st->owner[i];
        Gistd__Stats__Owner *one = list[i];

        gistd__stats__owner__init(one);
        one->uid = o->uid;
        one->clients = o->clients;
        one->sessions = o->sessions;
        one->pages = o->pages;
        one->gist_pages = o->gist_pages;
        one->held_pages = o->held_pages;
        one->held_pages_max = o->held_pages_max;
        one->clients_max = o->clients_max;
        one->sessions_max = o->sessions_max;
        one->text_bytes = o->text_bytes;
        one->text_bytes_max = o->text_bytes_max;
        one->rows = o->rows;
        one->store_bytes = o->store_bytes;
        one->store_bytes_max = o->store_bytes_max;
    }
    m->owner = list;
    m->n_owner = st->n_owner;
    return 0;
}

/* NULL: there is no store, and store_off says why. */
static int build_stats_store(struct wire_scratch *s, const struct wire_stats_store *x,
                             Gistd__Stats *m)
{
    Gistd__Stats__Store *one;

    if (!x)
        return 0;
    one = wire_scratch_array(s, 1, sizeof(*one));
    if (!one)
        return -EMSGSIZE;
    gistd__stats__store__init(one);
    one->bytes = x->bytes;
    one->limit = x->limit;
    one->records = x->records;
    one->names = x->names;
    one->written = x->written;
    one->written_today = x->written_today;
    one->write_a_day = x->write_a_day;
    one->puts = x->puts;
    one->gets = x->gets;
    one->hits = x->hits;
    one->misses = x->misses;
    one->refused = x->refused;
    one->evicted = x->evicted;
    one->expired = x->expired;
    one->read_bytes = x->read_bytes;
    one->read_ns = x->read_ns;
    one->pinned_pages = x->pinned_pages;
    one->pending = x->pending;
    one->restored_tokens = x->restored_tokens;
    one->computed_instead = x->computed_instead;
    one->forgotten = x->forgotten;
    one->ns_per_token = x->ns_per_token;
    one->degraded_s = x->degraded_s;
    one->degraded = wire_str(x->degraded);
    one->io = wire_str(x->io);
    m->store = one;
    return 0;
}

/* Memory that went back to the machine (--idle). */
static void build_given_back(const struct wire_stats *st, Gistd__Stats *m)
{
    m->idle = st->idle;
    m->idles_total = st->idles_total;
    m->pages_returned = st->pages_returned;
    m->pressures_total = st->pressures_total;
}

/* Context in host memory that left a device's; zeros where there is no device. */
static void build_stats_host(const struct wire_stats *st, Gistd__Stats *m)
{
    m->host_bytes = st->host_bytes;
    m->host_limit = st->host_limit;
    m->host_records = st->host_records;
    m->host_evicted_total = st->host_evicted_total;
    m->host_tokens_total = st->host_tokens_total;
    m->host_pinned = st->host_pinned;
}

/* Strings are borrowed from st until the message is packed. */
int wire_build_stats(struct wire_scratch *s, const struct wire_stats *st, Gistd__Stats *m)
{
    int err;

    gistd__stats__init(m);
    m->version = wire_str(st->version);
    m->model = wire_str(st->model);
    m->model_digest = wire_str(st->model_digest);
    m->cpu = wire_str(st->cpu);
    m->threads = st->threads;
    m->uptime_ns = st->uptime_ns;
    m->weights_bytes = st->weights_bytes;
    m->weights_from = wire_str(st->weights_from);
    m->weights_memory = st->weights_memory;
    m->weights_streamed = st->weights_streamed;
    m->weights_read = st->weights_read;
    m->weights_read_ns = st->weights_read_ns;
    m->weights_waited_ns = st->weights_waited_ns;
    m->scratch_bytes = st->scratch_bytes;
    m->kv_bytes = st->kv_bytes;
    m->adapter_bytes = st->adapter_bytes;
    m->adapters = wire_str(st->adapters);
    m->store_off = wire_str(st->store_off);
    m->page_bytes = st->page_bytes;
    m->page_tokens = st->page_tokens;
    m->pages = st->pages;
    m->pages_free = st->pages_free;
    m->pages_cached = st->pages_cached;
    m->clients = st->clients;
    m->sessions = st->sessions;
    m->requests_running = st->requests_running;
    m->documents = st->documents;
    m->pinned_pages = st->pinned_pages;
    m->requests_total = st->requests_total;
    m->requests_failed = st->requests_failed;
    m->prompt_tokens_total = st->prompt_tokens_total;
    m->generated_tokens_total = st->generated_tokens_total;
    m->steps_total = st->steps_total;
    m->client_errors_total = st->client_errors_total;
    m->requests_waiting = st->requests_waiting;
    m->drafted_tokens_total = st->drafted_tokens_total;
    m->accepted_tokens_total = st->accepted_tokens_total;
    build_given_back(st, m);
    build_stats_host(st, m);
    err = build_stats_clients(s, st, m);
    if (err == 0)
        err = build_stats_sessions(s, st, m);
    if (err == 0)
        err = build_stats_store(s, st->store, m);
    return err < 0 ? err : build_stats_owners(s, st, m);
}

/* Lists are as long as the daemon found room for in its frame; ours may be too long for the
 * scratch, which is the caller's choice. */
static int read_stats_clients(struct wire_scratch *s, const Gistd__Stats *m, struct wire_stats *st)
{
    struct wire_stats_client *list = wire_scratch_array(s, m->n_client, sizeof(*list));

    if (!list)
        return -EMSGSIZE;
    for (size_t i = 0; i < m->n_client; i++) {
        const Gistd__Stats__Client *c = m->client[i];

        list[i] = (struct wire_stats_client){
            .id = c->id, .pid = c->pid, .uid = c->uid, .sessions = c->sessions, .pages = c->pages
        };
        if (!wire_take_string(c->name, &list[i].name) || !wire_take_string(c->unit, &list[i].unit))
            return -EMSGSIZE;
    }
    st->client = list;
    st->n_client = (uint32_t)m->n_client;
    return 0;
}

static int read_stats_sessions(struct wire_scratch *s, const Gistd__Stats *m, struct wire_stats *st)
{
    struct wire_stats_session *list = wire_scratch_array(s, m->n_session, sizeof(*list));

    if (!list)
        return -EMSGSIZE;
    for (size_t i = 0; i < m->n_session; i++) {
        const Gistd__Stats__Session *x = m->session[i];

        list[i] = (struct wire_stats_session){ .id = x->id,
                                               .client = x->client,
                                               .n_tokens = x->n_tokens,
                                               .pages = x->pages,
                                               .segment = x->segment,
                                               .busy = x->busy,
                                               .gist_pages = x->gist_pages,
                                               .request = x->request,
                                               .generated_tokens = x->generated_tokens,
                                               .uid = x->uid,
                                               .kept_s = x->kept_s,
                                               .left_s = x->left_s };
        if (!wire_take_string(x->label, &list[i].label) ||
            !wire_take_string(x->doing, &list[i].doing) ||
            !wire_take_string(x->unit, &list[i].unit))
            return -EMSGSIZE;
    }
    st->session = list;
    st->n_session = (uint32_t)m->n_session;
    return 0;
}

static int read_stats_owners(struct wire_scratch *s, const Gistd__Stats *m, struct wire_stats *st)
{
    struct wire_stats_owner *list = wire_scratch_array(s, m->n_owner, sizeof(*list));

    if (!list)
        return -EMSGSIZE;
    for (size_t i = 0; i < m->n_owner; i++) {
        const Gistd__Stats__Owner *o = m->owner[i];

        list[i] = (struct wire_stats_owner){ .uid = o->uid,
                                             .clients = o->clients,
                                             .sessions = o->sessions,
                                             .pages = o->pages,
                                             .gist_pages = o->gist_pages,
                                             .held_pages = o->held_pages,
                                             .held_pages_max = o->held_pages_max,
                                             .clients_max = o->clients_max,
                                             .sessions_max = o->sessions_max,
                                             .text_bytes = o->text_bytes,
                                             .text_bytes_max = o->text_bytes_max,
                                             .rows = o->rows,
                                             .store_bytes = o->store_bytes,
                                             .store_bytes_max = o->store_bytes_max };
    }
    st->owner = list;
    st->n_owner = (uint32_t)m->n_owner;
    return 0;
}

static int read_stats_store(struct wire_scratch *s, const Gistd__Stats__Store *m,
                            struct wire_stats *st)
{
    struct wire_stats_store *x;

    if (!m)
        return 0;
    x = wire_scratch_array(s, 1, sizeof(*x));
    if (!x)
        return -EMSGSIZE;
    x->bytes = m->bytes;
    x->limit = m->limit;
    x->records = m->records;
    x->names = m->names;
    x->written = m->written;
    x->written_today = m->written_today;
    x->write_a_day = m->write_a_day;
    x->puts = m->puts;
    x->gets = m->gets;
    x->hits = m->hits;
    x->misses = m->misses;
    x->refused = m->refused;
    x->evicted = m->evicted;
    x->expired = m->expired;
    x->read_bytes = m->read_bytes;
    x->read_ns = m->read_ns;
    x->pinned_pages = m->pinned_pages;
    x->pending = m->pending;
    x->restored_tokens = m->restored_tokens;
    x->computed_instead = m->computed_instead;
    x->forgotten = m->forgotten;
    x->ns_per_token = m->ns_per_token;
    x->degraded_s = m->degraded_s;
    st->store = x;
    return wire_take_string(m->degraded, &x->degraded) && wire_take_string(m->io, &x->io)
               ? 0
               : -EMSGSIZE;
}

static void read_given_back(const Gistd__Stats *m, struct wire_stats *st)
{
    st->idle = m->idle;
    st->idles_total = m->idles_total;
    st->pages_returned = m->pages_returned;
    st->pressures_total = m->pressures_total;
}

static void read_stats_host(const Gistd__Stats *m, struct wire_stats *st)
{
    st->host_bytes = m->host_bytes;
    st->host_limit = m->host_limit;
    st->host_records = m->host_records;
    st->host_evicted_total = m->host_evicted_total;
    st->host_tokens_total = m->host_tokens_total;
    st->host_pinned = m->host_pinned;
}

int wire_read_stats(struct wire_scratch *s, const Gistd__Stats *m, struct wire_stats *st)
{
    int err;

    if (!wire_take_string(m->version, &st->version) || !wire_take_string(m->model, &st->model) ||
        !wire_take_string(m->model_digest, &st->model_digest) ||
        !wire_take_string(m->cpu, &st->cpu) ||
        !wire_take_string(m->weights_from, &st->weights_from) ||
        !wire_take_string(m->adapters, &st->adapters) ||
        !wire_take_string(m->store_off, &st->store_off))
        return -EMSGSIZE;
    st->threads = m->threads;
    st->uptime_ns = m->uptime_ns;
    st->weights_bytes = m->weights_bytes;
    st->weights_memory = m->weights_memory;
    st->weights_streamed = m->weights_streamed;
    st->weights_read = m->weights_read;
    st->weights_read_ns = m->weights_read_ns;
    st->weights_waited_ns = m->weights_waited_ns;
    st->scratch_bytes = m->scratch_bytes;
    st->kv_bytes = m->kv_bytes;
    st->adapter_bytes = m->adapter_bytes;
    st->page_bytes = m->page_bytes;
    st->page_tokens = m->page_tokens;
    st->pages = m->pages;
    st->pages_free = m->pages_free;
    st->pages_cached = m->pages_cached;
    st->clients = m->clients;
    st->sessions = m->sessions;
    st->requests_running = m->requests_running;
    st->documents = m->documents;
    st->pinned_pages = m->pinned_pages;
    st->requests_total = m->requests_total;
    st->requests_failed = m->requests_failed;
    st->prompt_tokens_total = m->prompt_tokens_total;
    st->generated_tokens_total = m->generated_tokens_total;
    st->steps_total = m->steps_total;
    st->client_errors_total = m->client_errors_total;
    st->requests_waiting = m->requests_waiting;
    st->drafted_tokens_total = m->drafted_tokens_total;
    st->accepted_tokens_total = m->accepted_tokens_total;
    read_given_back(m, st);
    read_stats_host(m, st);
    err = read_stats_clients(s, m, st);
    if (err == 0)
        err = read_stats_sessions(s, m, st);
    if (err == 0)
        err = read_stats_store(s, m->store, st);
    return err < 0 ? err : read_stats_owners(s, m, st);
}

/* --- Traced ----------------------------------------------------------------------------------- */

int wire_build_traced(struct wire_scratch *s, const struct wire_traced *t, Gistd__Traced *m)
{
    Gistd__Traced__Row **list = wire_scratch_list(s, t->n_row, sizeof(**list));

    gistd__traced__init(m);
    if (!list)
        return -EMSGSIZE;
    for (uint32_t i = 0; i < t->n_row; i++) {
        const struct wire_trace_row *x = &t->row[i];
        Gistd__Traced__Row *one = list[i];

        gistd__traced__row__init(one);
        one->what = wire_str(x->what);
        one->client = wire_str(x->client);
        one->ended = wire_str(x->ended);
        one->number = x->number;
        one->session = x->session;
        one->at_s = x->at_s;
        one->total_ns = x->total_ns;
        one->queue_ns = x->queue_ns;
        one->restore_ns = x->restore_ns;
        one->hydrate_ns = x->hydrate_ns;
        one->prefill_ns = x->prefill_ns;
        one->compress_ns = x->compress_ns;
        one->decode_ns = x->decode_ns;
        one->first_token_ns = x->first_token_ns;
        one->ring_ns = x->ring_ns;
        one->computed_tokens = x->computed_tokens;
        one->found_tokens = x->found_tokens;
        one->generated_tokens = x->generated_tokens;
        one->drafted_tokens = x->drafted_tokens;
        one->accepted_tokens = x->accepted_tokens;
    }
    m->row = list;
    m->n_row = t->n_row;
    return 0;
}

/* Times are in nanoseconds of the daemon's clock, and at_s in seconds of the calendar. */
int wire_read_traced(struct wire_scratch *s, const Gistd__Traced *m, struct wire_traced *t)
{
    struct wire_trace_row *list = wire_scratch_array(s, m->n_row, sizeof(*list));

    if (!list)
        return -EMSGSIZE;
    for (size_t i = 0; i < m->n_row; i++) {
        const Gistd__Traced__Row *x = m->row[i];

        list[i] = (struct wire_trace_row){
            .number = x->number,
            .session = x->session,
            .at_s = x->at_s,
            .total_ns = x->total_ns,
            .queue_ns = x->queue_ns,
            .restore_ns = x->restore_ns,
            .hydrate_ns = x->hydrate_ns,
            .prefill_ns = x->prefill_ns,
            .compress_ns = x->compress_ns,
            .decode_ns = x->decode_ns,
            .first_token_ns = x->first_token_ns,
            .ring_ns = x->ring_ns,
            .computed_tokens = x->computed_tokens,
            .found_tokens = x->found_tokens,
            .generated_tokens = x->generated_tokens,
            .drafted_tokens = x->drafted_tokens,
            .accepted_tokens = x->accepted_tokens,
        };
        if (!wire_take_string(x->what, &list[i].what) ||
            !wire_take_string(x->client, &list[i].client) ||
            !wire_take_string(x->ended, &list[i].ended))
            return -EMSGSIZE;
    }
    t->row = list;
    t->n_row = (uint32_t)m->n_row;
    return 0;
}

/* --- SegmentMap ------------------------------------------------------------------------------- */

int wire_build_segment_map(struct wire_scratch *s, const struct wire_segment_map *t,
                           Gistd__SegmentMap *m)
{
    Gistd__SegmentMap__Row **list = wire_scratch_list(s, t->n_row, sizeof(**list));

    gistd__segment_map__init(m);
    if (!list)
        return -EMSGSIZE;
    for (uint32_t i = 0; i < t->n_row; i++) {
        const struct wire_segment *x = &t->row[i];
        Gistd__SegmentMap__Row *one = list[i];

        gistd__segment_map__row__init(one);
        one->state = (Gistd__SegmentMap__State)x->state;
        one->n_tokens = x->n_tokens;
        one->n_keys = x->n_keys;
        one->ratio = x->ratio;
        one->stored = x->stored;
    }
    m->row = list;
    m->n_row = t->n_row;
    m->first = t->first;
    m->n_segments = t->n_segments;
    m->segment = t->segment;
    m->n_tokens = t->n_tokens;
    m->n_keys = t->n_keys;
    m->budget = t->budget;
    return 0;
}

/* A state that is new to us is passed on as its number: who shows it knows what to do with that. */
int wire_read_segment_map(struct wire_scratch *s, const Gistd__SegmentMap *m,
                          struct wire_segment_map *t)
{
    struct wire_segment *list = wire_scratch_array(s, m->n_row, sizeof(*list));

    if (!list)
        return -EMSGSIZE;
    for (size_t i = 0; i < m->n_row; i++) {
        const Gistd__SegmentMap__Row *x = m->row[i];

        list[i] = (struct wire_segment){ .state = (enum wire_segment_state)x->state,
                                         .n_tokens = x->n_tokens,
                                         .n_keys = x->n_keys,
                                         .ratio = x->ratio,
                                         .stored = x->stored };
    }
    *t = (struct wire_segment_map){ .row = list,
                                    .n_row = (uint32_t)m->n_row,
                                    .first = m->first,
                                    .n_segments = m->n_segments,
                                    .segment = m->segment,
                                    .n_tokens = m->n_tokens,
                                    .n_keys = m->n_keys,
                                    .budget = m->budget };
    return 0;
}
