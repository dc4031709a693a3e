/* daemon/metrics.c - numbers for a scraper. They are gathered on the scheduler's thread into a
 * struct without pointers and printed on the control thread, so that neither slow readers nor
 * fprintf hold up a step. All that is printed is read from that copy, and belongs to one moment. */

#include "daemon/metrics.h"

#include "base/clock.h"
#include "daemon/kept.h"
#include "daemon/sched.h"
#include "daemon/tier.h"
#include "store/store.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* --- the scheduler's part --------------------------------------------------------------------- */

/* Holders of kept sessions (daemon/kept.h) are among its clients: what they have counts, but they
 * are no programs that are connected. */
struct metrics_owner metrics_owner_of(const struct sched *s, const struct owner *o)
{
    struct metrics_owner m = { .uid = o->uid,
                               .sessions = owner_sessions(o),
                               .pages = documents_pages_of(&s->documents, o->uid) };
    const struct session *x;
    const struct client *c;

    TAILQ_FOREACH (c, &o->clients, of_owner) {
        m.clients += c->chan != NULL;
        m.pages += c->account.used;
        TAILQ_FOREACH (x, &c->sessions, link)
            m.gist_pages += memory_gist_pages(&x->memory);
    }
    return m;
}

static void fill_store(struct metrics *m, const struct served *b)
{
    struct store_stats x;

    m->store = b->store != NULL;
    if (!b->store)
        return;
    store_stats(b->store, &x);
    m->store_bytes = x.bytes;
    m->store_limit = x.limit;
    m->store_records = x.records;
    m->store_written = x.written;
    m->store_read = x.read_bytes;
    m->store_refused = x.refused;
}

static void fill_host(struct metrics *m, const struct served *b)
{
    struct tier_stats x;

    if (!b->tier)
        return;
    tier_stats(b->tier, &x);
    m->host_bytes = x.host_bytes;
    m->host_limit = x.host_limit;
    m->host_records = x.host_records;
    m->host_evicted = x.host_evicted;
    m->host_tokens = x.host_tokens;
}

/* An attached one's reader takes it while we look: only what waits for a reader counts. */
static void fill_kept(struct metrics *m, const struct kept *k)
{
    m->kept++;
    if (k->at)
        return;
    m->detached++;
    m->detached_bytes += backlog_unread(&k->log);
}

static void fill_gists(struct metrics *m, const struct session *x)
{
    uint32_t n_tokens, n_gists;

    /* It has no pages now, and so no gists. */
    if (x->memory.away.state != AWAY_HERE)
        return;
    memory_gists(&x->memory, &n_tokens, &n_gists);
    m->gist_tokens += n_tokens;
    m->gists += n_gists;
}

static void fill_sessions(struct metrics *m, const struct sched *s)
{
    const struct session *x;
    const struct client *c;

    TAILQ_FOREACH (c, &s->clients, link) {
        if (c->kept)
            fill_kept(m, c->kept);
        TAILQ_FOREACH (x, &c->sessions, link)
            fill_gists(m, x);
    }
}

/* Between two frames, also in the middle of a step: nothing here changes anything, or takes longer
 * than a look at each session. */
void metrics_fill(struct metrics *m, struct sched *s)
{
    const struct served *b = &s->served;
    const struct request *r;
    const struct owner *o;

    *m = (struct metrics){
        .uptime_ns = clock_ns() - s->started_ns,
        .requests = s->totals.requests,
        .requests_failed = s->totals.requests_failed,
        .prompt_tokens = s->totals.prompt_tokens,
        .generated_tokens = s->totals.generated_tokens,
        .steps = s->totals.steps,
        .client_errors = s->totals.client_errors,
        .drafted_tokens = s->totals.drafted_tokens,
        .accepted_tokens = s->totals.accepted_tokens,
        .gave_way = s->totals.gave_way,
        .clients = s->n_clients - s->n_kept,
        .sessions = s->n_sessions,
        .pages = b->pool.n_pages,
        .pages_free = b->pool.n_free,
        .pages_cached = b->pool.n_cached,
        .page_bytes = b->pool.page_bytes,
        .weights_bytes = b->model->weights_len,
        .kv_bytes = b->pool.mem_len,
        .idle = s->idle.down,
        .pages_returned = b->pool.n_away,
        .idles = s->idle.n,
        .pressures = s->idle.n_pressed,
        .meter = s->meter,
        .stand_in = b->stand_in,
    };
    (void)snprintf(m->model, sizeof(m->model), "%s", b->model->name);
    (void)snprintf(m->digest, sizeof(m->digest), "%s", b->model->digest);
    TAILQ_FOREACH (r, &s->active, link) {
        m->running += request_computes(r);
        m->waiting += request_waits(r);
    }
    TAILQ_FOREACH (o, &s->owners.list, link)
        /* Owners without a client remain while documents are charged to them, and are left out; so
         * are those for whom there is no place. */
        if (!TAILQ_EMPTY(&o->clients) && m->n_owners < METRICS_OWNERS)
            m->owners[m->n_owners++] = metrics_owner_of(s, o);
    fill_sessions(m, s);
    fill_store(m, b);
    fill_host(m, b);
}

/* --- text ------------------------------------------------------------------------------------- */

/* Text format of Prometheus, version 0.0.4: help and type once, ahead of all samples of a name. */
static void head(FILE *out, const char *name, const char *type, const char *help)
{
    (void)fprintf(out, "# HELP gistd_%s %s\n# TYPE gistd_%s %s\n", name, help, name, type);
}

static void number(FILE *out, const char *name, const char *type, const char *help, uint64_t v)
{
    head(out, name, type, help);
    (void)fprintf(out, "gistd_%s %" PRIu64 "\n", name, v);
}

/* A name may hold anything; in a label's value three characters are written otherwise. */
static void value(FILE *out, const char *s)
{
    for (; *s; s++) {
        if (*s == '\n')
            (void)fputs("\\n", out);
        else if (*s == '"' || *s == '\\')
            (void)fprintf(out, "\\%c", *s);
        else
            (void)fputc(*s, out);
    }
}

/* One histogram of a name; label is "" or `priority="interactive"`. Its buckets are cumulative in
 * that format, and counted one by one here. */
static void histogram(FILE *out, const char *name, const char *label,
                      const struct meter_histogram *h)
{
    static const double bounds[] = METER_BOUNDS;
    const char *comma = *label ? "," : "", *open = *label ? "{" : "", *shut = *label ? "}" : "";
    uint64_t n = 0;

    for (uint32_t i = 0; i < METER_BUCKETS - 1; i++) {
        n += h->n[i];
        (void)fprintf(out, "gistd_%s_bucket{%s%sle=\"%g\"} %" PRIu64 "\n", name, label, comma,
                      bounds[i], n);
    }
    n += h->n[METER_BUCKETS - 1];
    (void)fprintf(out, "gistd_%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", name, label, comma, n);
    (void)fprintf(out, "gistd_%s_sum%s%s%s %.9f\n", name, open, label, shut,
                  (double)h->sum_ns / 1e9);
    (void)fprintf(out, "gistd_%s_count%s%s%s %" PRIu64 "\n", name, open, label, shut, n);
}

static void by_priority(FILE *out, const char *name, const char *help,
                        const struct meter_histogram h[2])
{
    head(out, name, "histogram", help);
    histogram(out, name, "priority=\"interactive\"", &h[WIRE_INTERACTIVE]);
    histogram(out, name, "priority=\"background\"", &h[WIRE_BACKGROUND]);
}

static void print_times(const struct metrics *m, bool all, FILE *out)
{
    if (all)
        by_priority(out, "ttft_seconds",
                    "Time to the first token: of the request, and of appends before it.",
                    m->meter.first_token);
    by_priority(out, "queue_seconds", "From a request's arrival to its first step.",
                m->meter.queue);
    head(out, "itl_seconds", "histogram", "Time between two tokens of an answer.");
    histogram(out, "itl_seconds", "", &m->meter.between_tokens);
    head(out, "cancel_latency_seconds", "histogram",
         "From a cancel's arrival to the end of what it cancels.");
    histogram(out, "cancel_latency_seconds", "", &m->meter.cancel);
}

static void print_counts(const struct metrics *m, FILE *out)
{
    head(out, "uptime_seconds", "gauge", "Since the start.");
    (void)fprintf(out, "gistd_uptime_seconds %.3f\n", (double)m->uptime_ns / 1e9);
    number(out, "clients", "gauge", "Connected programs.", m->clients);
    number(out, "sessions", "gauge", "Open sessions.", m->sessions);
    number(out, "sessions_kept", "gauge", "Of these: outlive their connection.", m->kept);
    number(out, "sessions_detached", "gauge", "Of these: have none now.", m->detached);
    number(out, "requests_running", "gauge", "Requests that use the model.", m->running);
    number(out, "requests_waiting", "gauge", "Of these: had no part in a step yet.", m->waiting);
    number(out, "requests_total", "counter", "Requests that came.", m->requests);
    number(out, "requests_failed_total", "counter", "Requests that ended with an error.",
           m->requests_failed);
    number(out, "client_errors_total", "counter", "Clients that broke the protocol.",
           m->client_errors);
    number(out, "steps_total", "counter", "Passes over the model.", m->steps);
    number(out, "generated_tokens_total", "counter", "Tokens of answers.", m->generated_tokens);
}

/* Nothing of a tier that is not there: a gauge that is always 0 looks like one that is broken. */
static void print_host(const struct metrics *m, bool all, FILE *out)
{
    if (!m->host_limit)
        return;
    number(out, "host_bytes", "gauge", "Context in host memory that left the device's.",
           m->host_bytes);
    number(out, "host_limit_bytes", "gauge", "What may be there.", m->host_limit);
    number(out, "host_records", "gauge", "Records there.", m->host_records);
    number(out, "host_evicted_total", "counter", "Records that went from there for room.",
           m->host_evicted);
    if (all)
        number(out, "host_tokens_total", "counter", "Tokens that came back from there.",
               m->host_tokens);
}

static void print_memory(const struct metrics *m, bool all, FILE *out)
{
    head(out, "kv_pages", "gauge", "Pages of the context pool.");
    (void)fprintf(out,
                  "gistd_kv_pages{state=\"used\"} %u\ngistd_kv_pages{state=\"cached\"} %u\n"
                  "gistd_kv_pages{state=\"free\"} %u\n",
                  m->pages - m->pages_free - m->pages_cached, m->pages_cached, m->pages_free);
    number(out, "sessions_gave_way_total", "counter",
           "Idle sessions whose pages went to others until they were used.", m->gave_way);
    number(out, "kv_page_bytes", "gauge", "Size of a page.", m->page_bytes);
    number(out, "kv_bytes", "gauge", "Size of the pool.", m->kv_bytes);
    number(out, "kv_returned_bytes", "gauge",
           "Of free pages: given back to the machine until they are used.",
           m->pages_returned * m->page_bytes);
    number(out, "weights_bytes", "gauge", "Size of the model's weights.", m->weights_bytes);
    number(out, "idle", "gauge", "1: the weights are given back until they are used.", m->idle);
    number(out, "idles_total", "counter", "Times that they were.", m->idles);
    number(out, "memory_pressures_total", "counter", "Times that memory was short.", m->pressures);
    print_host(m, all, out);
    if (!m->store)
        return;
    number(out, "store_bytes", "gauge", "What the store has on disk.", m->store_bytes);
    number(out, "store_limit_bytes", "gauge", "What it may have.", m->store_limit);
    number(out, "store_records", "gauge", "Records on disk.", m->store_records);
    number(out, "spill_bytes_total", "counter", "Bytes written to the store.", m->store_written);
    if (all)
        number(out, "restore_bytes_total", "counter", "Bytes read from the store.", m->store_read);
    number(out, "store_refused_total", "counter", "Records that were not what was written.",
           m->store_refused);
}

/* Guesses come from the text before them: how many are right tells of that. */
static void print_prompts(const struct metrics *m, FILE *out)
{
    head(out, "prompt_tokens_total", "counter", "Tokens of prompts, by what had them.");
    (void)fprintf(out,
                  "gistd_prompt_tokens_total{source=\"computed\"} %" PRIu64 "\n"
                  "gistd_prompt_tokens_total{source=\"page\"} %" PRIu64 "\n"
                  "gistd_prompt_tokens_total{source=\"disk\"} %" PRIu64 "\n",
                  m->prompt_tokens, m->meter.shared_tokens, m->meter.restored_tokens);
    number(out, "drafted_tokens_total", "counter", "Tokens that were guessed ahead.",
           m->drafted_tokens);
    number(out, "accepted_tokens_total", "counter", "Of these: right, each a step less.",
           m->accepted_tokens);
}

/* How long a detached answer is, or what was compressed of a text, may be one user's alone. */
static void print_contents(const struct metrics *m, FILE *out)
{
    number(out, "detached_bytes", "gauge", "Of detached sessions' answers: waits to be taken.",
           m->detached_bytes);
    number(out, "gist_tokens", "gauge", "Tokens of open sessions that stand compressed.",
           m->gist_tokens);
    if (m->gists == 0)
        return;
    head(out, "gist_ratio", "gauge", "Of these: how many a key stands for.");
    (void)fprintf(out, "gistd_gist_ratio %.6g\n", (double)m->gist_tokens / (double)m->gists);
}

static bool shown(const struct metrics *m, const struct metrics_owner *o, bool all, uid_t uid)
{
    return all || owner_is_own(uid, o->uid, m->stand_in);
}

/* All rows of one name stand together: the format wants it so. */
static void print_owners(const struct metrics *m, bool all, uid_t uid, FILE *out)
{
    head(out, "owner_clients", "gauge", "A user's connected programs.");
    for (uint32_t i = 0; i < m->n_owners; i++)
        if (shown(m, &m->owners[i], all, uid))
            (void)fprintf(out, "gistd_owner_clients{uid=\"%u\"} %u\n", m->owners[i].uid,
                          m->owners[i].clients);
    head(out, "owner_sessions", "gauge", "A user's open sessions.");
    for (uint32_t i = 0; i < m->n_owners; i++)
        if (shown(m, &m->owners[i], all, uid))
            (void)fprintf(out, "gistd_owner_sessions{uid=\"%u\"} %u\n", m->owners[i].uid,
                          m->owners[i].sessions);
    head(out, "client_bytes", "gauge", "Context memory of a user's clients.");
    for (uint32_t i = 0; i < m->n_owners; i++) {
        const struct metrics_owner *o = &m->owners[i];

        if (shown(m, o, all, uid))
            (void)fprintf(out,
                          "gistd_client_bytes{uid=\"%u\",kind=\"raw\"} %" PRIu64 "\n"
                          "gistd_client_bytes{uid=\"%u\",kind=\"gist\"} %" PRIu64 "\n",
                          o->uid, (o->pages - o->gist_pages) * m->page_bytes, o->uid,
                          o->gist_pages * m->page_bytes);
    }
}

void metrics_print(const struct metrics *m, bool all, uid_t uid, FILE *out)
{
    head(out, "build_info", "gauge", "Version and model.");
    (void)fputs("gistd_build_info{version=\"" GISTD_VERSION "\",model=\"", out);
    value(out, m ? m->model : "");
    (void)fputs("\",digest=\"", out);
    value(out, m ? m->digest : "");
    (void)fputs("\"} 1\n", out);
    number(out, "loaded", "gauge", "1: the model is loaded and served.", m != NULL);
    if (!m)
        return;
    print_counts(m, out);
    print_memory(m, all, out);
    print_times(m, all, out);
    if (all) {
        print_prompts(m, out);
        print_contents(m, out);
    }
    print_owners(m, all, uid, out);
}
