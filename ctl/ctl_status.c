/* ctl/ctl_status.c - gistctl status: what the daemon holds, for whom. */
#include "base/shown.h"
#include "ctl/ctl.h"
#include "ctl/ctl_human.h"
#include "ctl/ctl_json.h"
#include "ctl/ctl_opt.h"

#include <stdio.h>
#include <string.h>

static const struct ctl_opt_usage usage = {
    "status [OPTIONS]",
    "Prints the daemon's model, memory, clients and sessions. Exit code 3: there is no daemon;\n"
    "4: it is still loading its model, and the output says how much of it is there.\n"
};

static void print_weights(const struct gist_stats *s)
{
    char a[CTL_HUMAN_CAP], b[CTL_HUMAN_CAP], c[CTL_HUMAN_CAP];
    uint64_t rate = s->weights_read_ns
                        ? (uint64_t)((double)s->weights_read * 1e9 / (double)s->weights_read_ns)
                        : 0;

    if (s->weights_streamed == 0) {
        printf("weights     %s, from the %s\n", ctl_human_bytes(s->weights_bytes, a),
               s->weights_from);
        return;
    }
    printf("weights     %s through %s of memory: %s are read for each token",
           ctl_human_bytes(s->weights_bytes, a), ctl_human_bytes(s->weights_memory, b),
           ctl_human_bytes(s->weights_streamed, c));
    if (rate)
        printf(" (%s/s, %.0f %% of the time waiting for the disk)", ctl_human_bytes(rate, a),
               100.0 * (double)s->weights_waited_ns / (double)s->weights_read_ns);
    putchar('\n');
}

static void print_memory(const struct gist_stats *s)
{
    uint32_t used = s->pages - s->pages_free - s->pages_cached;
    char a[CTL_HUMAN_CAP], b[CTL_HUMAN_CAP], c[CTL_HUMAN_CAP], d[CTL_HUMAN_CAP];

    print_weights(s);
    printf("scratch     %s\n", ctl_human_bytes(s->scratch_bytes, a));
    printf("KV pool     %s: %u of %u pages used (%s), %u free (%s),\n"
           "            %u cached for sessions that begin alike (%s); %u tokens and %u bytes per "
           "page\n",
           ctl_human_bytes(s->kv_bytes, a), used, s->pages,
           ctl_human_bytes((uint64_t)used * s->page_bytes, b), s->pages_free,
           ctl_human_bytes((uint64_t)s->pages_free * s->page_bytes, c), s->pages_cached,
           ctl_human_bytes((uint64_t)s->pages_cached * s->page_bytes, d), s->page_tokens,
           s->page_bytes);
}

/* Names and labels are whatever their client sent, a model's name whatever its file says. */
static void print_client(const struct gist_stats_client *c)
{
    char unit[CTL_HUMAN_UNIT_CAP];

    printf("%8llu %8u %8u %8u %8u  %-22s  ", (unsigned long long)c->id, c->pid, c->uid, c->sessions,
           c->pages, ctl_human_unit(c->unit, unit));
    shown_write(stdout, SHOWN_LINE, c->name, strlen(c->name));
    fputc('\n', stdout);
}

/* Pages of raw tokens and of gists, in bytes. */
static void print_kinds(const struct gist_stats *s, uint32_t pages, uint32_t gist_pages)
{
    char raw[CTL_HUMAN_CAP], gists[CTL_HUMAN_CAP];

    printf(" %10s %10s", ctl_human_bytes((uint64_t)(pages - gist_pages) * s->page_bytes, raw),
           ctl_human_bytes((uint64_t)gist_pages * s->page_bytes, gists));
}

static void print_owner(const struct gist_stats *s, const struct gist_stats_owner *o)
{
    char text[CTL_HUMAN_CAP], disk[CTL_HUMAN_CAP];

    printf("%8u %8u %8u %8u", o->uid, o->clients, o->sessions, o->pages);
    print_kinds(s, o->pages, o->gist_pages);
    printf(" %10s %10s %12llu\n", ctl_human_bytes(o->text_bytes, text),
           ctl_human_bytes(o->store_bytes, disk), (unsigned long long)o->rows);
}

static void print_session(const struct gist_stats *s, const struct gist_stats_session *x)
{
    printf("%8llu %8llu %8u %8u", (unsigned long long)x->id, (unsigned long long)x->client,
           x->n_tokens, x->pages);
    print_kinds(s, x->pages, x->gist_pages);
    printf(" %8u  ", x->segment);
    shown_write(stdout, SHOWN_LINE, x->label, strlen(x->label));
    fputs(x->busy ? " (busy)\n" : "\n", stdout);
}

/* A line of sizes, and one of what does not work at present, if anything. */
static void print_store(const struct gist_stats_store *t, const char *off)
{
    char a[CTL_HUMAN_CAP], b[CTL_HUMAN_CAP], c[CTL_HUMAN_CAP];

    if (!t) {
        shown_line(stdout, "store       nothing is kept on disk: %s", off);
        return;
    }
    printf("store       %s of %s on disk, %llu records; %s written in 24 hours (%s)\n",
           ctl_human_bytes(t->bytes, a), ctl_human_bytes(t->limit, b),
           (unsigned long long)t->records, ctl_human_bytes(t->written_today, c), t->io);
    if (t->restored_tokens + t->computed_instead > 0)
        printf("            %llu tokens came back from there, %llu were computed because that is "
               "faster\n",
               (unsigned long long)t->restored_tokens, (unsigned long long)t->computed_instead);
    if (t->degraded[0])
        shown_line(stdout, "store       %s (since %s); sessions go on", t->degraded,
                   ctl_human_when(t->degraded_s, a));
}

/* Where a device's context goes before it goes to the disk. */
static void print_host(const struct gist_stats *s)
{
    char a[CTL_HUMAN_CAP], b[CTL_HUMAN_CAP];

    if (s->host_limit == 0)
        return;
    printf("host memory %s of %s%s, %llu records; %llu tokens came back from there\n",
           ctl_human_bytes(s->host_bytes, a), ctl_human_bytes(s->host_limit, b),
           s->host_pinned ? "" : " (not pinned)", (unsigned long long)s->host_records,
           (unsigned long long)s->host_tokens_total);
}

static void print_text(const struct gist_stats *s)
{
    char t[CTL_HUMAN_CAP];

    shown_line(stdout, "gistd       %s, up %s", s->version, ctl_human_time(s->uptime_ns, t));
    shown_line(stdout, "model       %s (%s)", s->model, s->model_digest);
    shown_line(stdout, "cpu         %s, %u threads", s->cpu, s->threads);
    if (s->adapters[0])
        shown_line(stdout, "adapters    %s", s->adapters);
    print_memory(s);
    if (s->idle)
        puts("idle        the weights' memory is given back; the next request loads them again");
    if (s->pages_returned > 0)
        printf("            %s of free pages are given back until they are used\n",
               ctl_human_bytes((uint64_t)s->pages_returned * s->page_bytes, t));
    if (s->n_documents > 0)
        printf("documents   %u in memory, %u pages pinned\n", s->n_documents, s->pinned_pages);
    print_host(s);
    print_store(s->store, s->store_off);
    printf("requests    %llu served, %llu failed, %u running\n",
           (unsigned long long)s->requests_total, (unsigned long long)s->requests_failed,
           s->requests_running);
    printf("tokens      %llu read, %llu written, in %llu steps\n",
           (unsigned long long)s->prompt_tokens_total,
           (unsigned long long)s->generated_tokens_total, (unsigned long long)s->steps_total);
    if (s->drafted_tokens_total > 0)
        printf("drafts      %llu tokens guessed ahead, %llu right\n",
               (unsigned long long)s->drafted_tokens_total,
               (unsigned long long)s->accepted_tokens_total);
    if (s->client_errors_total > 0)
        printf("clients     %llu broke the protocol and were disconnected\n",
               (unsigned long long)s->client_errors_total);
    printf("\n%8s %8s %8s %8s %8s  %-22s  %s\n", "CLIENT", "PID", "UID", "SESSIONS", "PAGES",
           "UNIT", "NAME");
    for (uint32_t i = 0; i < s->n_clients; i++)
        print_client(&s->clients[i]);
    printf("\n%8s %8s %8s %8s %10s %10s %10s %10s %12s\n", "UID", "CLIENTS", "SESSIONS", "PAGES",
           "RAW", "GISTS", "TEXT", "DISK", "ROWS");
    for (uint32_t i = 0; i < s->n_owners; i++)
        print_owner(s, &s->owners[i]);
    if (s->n_sessions > 0)
        printf("\n%8s %8s %8s %8s %10s %10s %8s  %s\n", "SESSION", "CLIENT", "TOKENS", "PAGES",
               "RAW", "GISTS", "SEGMENT", "LABEL");
    for (uint32_t i = 0; i < s->n_sessions; i++)
        print_session(s, &s->sessions[i]);
}

static void json_kinds(struct ctl_json *j, const struct gist_stats *s, uint32_t pages,
                       uint32_t gist_pages)
{
    ctl_json_u64(j, "pages", pages);
    ctl_json_u64(j, "gist_pages", gist_pages);
    ctl_json_u64(j, "raw_bytes", (uint64_t)(pages - gist_pages) * s->page_bytes);
    ctl_json_u64(j, "gist_bytes", (uint64_t)gist_pages * s->page_bytes);
}

static void print_json_lists(struct ctl_json *j, const struct gist_stats *s)
{
    ctl_json_open(j, "clients", '[');
    for (uint32_t i = 0; i < s->n_clients; i++) {
        ctl_json_open(j, NULL, '{');
        ctl_json_u64(j, "id", s->clients[i].id);
        ctl_json_u64(j, "pid", s->clients[i].pid);
        ctl_json_u64(j, "uid", s->clients[i].uid);
        ctl_json_string(j, "name", s->clients[i].name);
        ctl_json_string(j, "unit", s->clients[i].unit);
        ctl_json_u64(j, "sessions", s->clients[i].sessions);
        ctl_json_u64(j, "pages", s->clients[i].pages);
        ctl_json_close(j, '}');
    }
    ctl_json_close(j, ']');
    ctl_json_open(j, "owners", '[');
    for (uint32_t i = 0; i < s->n_owners; i++) {
        ctl_json_open(j, NULL, '{');
        ctl_json_u64(j, "uid", s->owners[i].uid);
        ctl_json_u64(j, "clients", s->owners[i].clients);
        ctl_json_u64(j, "sessions", s->owners[i].sessions);
        json_kinds(j, s, s->owners[i].pages, s->owners[i].gist_pages);
        ctl_json_u64(j, "held_pages", s->owners[i].held_pages);
        ctl_json_u64(j, "held_pages_max", s->owners[i].held_pages_max);
        ctl_json_u64(j, "clients_max", s->owners[i].clients_max);
        ctl_json_u64(j, "sessions_max", s->owners[i].sessions_max);
        ctl_json_u64(j, "text_bytes", s->owners[i].text_bytes);
        ctl_json_u64(j, "text_bytes_max", s->owners[i].text_bytes_max);
        ctl_json_u64(j, "rows", s->owners[i].rows);
        ctl_json_u64(j, "store_bytes", s->owners[i].store_bytes);
        ctl_json_u64(j, "store_bytes_max", s->owners[i].store_bytes_max);
        ctl_json_close(j, '}');
    }
    ctl_json_close(j, ']');
    ctl_json_open(j, "sessions", '[');
    for (uint32_t i = 0; i < s->n_sessions; i++) {
        ctl_json_open(j, NULL, '{');
        ctl_json_u64(j, "id", s->sessions[i].id);
        ctl_json_u64(j, "client", s->sessions[i].client);
        ctl_json_string(j, "label", s->sessions[i].label);
        ctl_json_u64(j, "n_tokens", s->sessions[i].n_tokens);
        json_kinds(j, s, s->sessions[i].pages, s->sessions[i].gist_pages);
        ctl_json_u64(j, "segment", s->sessions[i].segment);
        ctl_json_bool(j, "busy", s->sessions[i].busy);
        ctl_json_string(j, "unit", s->sessions[i].unit);
        ctl_json_close(j, '}');
    }
    ctl_json_close(j, ']');
}

static void json_store(struct ctl_json *j, const struct gist_stats_store *t)
{
    if (!t) {
        ctl_json_string(j, "store", NULL);
        return;
    }
    ctl_json_open(j, "store", '{');
    ctl_json_u64(j, "bytes", t->bytes);
    ctl_json_u64(j, "limit", t->limit);
    ctl_json_u64(j, "records", t->records);
    ctl_json_u64(j, "names", t->names);
    ctl_json_u64(j, "written", t->written);
    ctl_json_u64(j, "written_today", t->written_today);
    ctl_json_u64(j, "write_a_day", t->write_a_day);
    ctl_json_u64(j, "puts", t->puts);
    ctl_json_u64(j, "gets", t->gets);
    ctl_json_u64(j, "hits", t->hits);
    ctl_json_u64(j, "misses", t->misses);
    ctl_json_u64(j, "refused", t->refused);
    ctl_json_u64(j, "evicted", t->evicted);
    ctl_json_u64(j, "expired", t->expired);
    ctl_json_u64(j, "read_bytes", t->read_bytes);
    ctl_json_u64(j, "read_ns", t->read_ns);
    ctl_json_u64(j, "pinned_pages", t->pinned_pages);
    ctl_json_u64(j, "pending", t->pending);
    ctl_json_u64(j, "restored_tokens", t->restored_tokens);
    ctl_json_u64(j, "computed_instead", t->computed_instead);
    ctl_json_u64(j, "forgotten", t->forgotten);
    ctl_json_u64(j, "ns_per_token", t->ns_per_token);
    ctl_json_string(j, "io", t->io);
    ctl_json_string(j, "degraded", t->degraded);
    ctl_json_u64(j, "degraded_s", t->degraded_s);
    ctl_json_close(j, '}');
}

/* What left the pool. */
static void json_kept(struct ctl_json *j, const struct gist_stats *s)
{
    if (s->host_limit > 0) {
        ctl_json_open(j, "host", '{');
        ctl_json_u64(j, "bytes", s->host_bytes);
        ctl_json_u64(j, "limit", s->host_limit);
        ctl_json_u64(j, "records", s->host_records);
        ctl_json_u64(j, "evicted", s->host_evicted_total);
        ctl_json_u64(j, "tokens", s->host_tokens_total);
        ctl_json_bool(j, "pinned", s->host_pinned);
        ctl_json_close(j, '}');
    }
    json_store(j, s->store);
    ctl_json_string(j, "store_off", s->store_off);
}

static void print_json(const struct gist_stats *s)
{
    struct ctl_json j = { .out = stdout };

    ctl_json_open(&j, NULL, '{');
    ctl_json_string(&j, "version", s->version);
    ctl_json_string(&j, "model", s->model);
    ctl_json_string(&j, "model_digest", s->model_digest);
    ctl_json_string(&j, "cpu", s->cpu);
    ctl_json_string(&j, "adapters", s->adapters);
    ctl_json_u64(&j, "adapter_bytes", s->adapter_bytes);
    ctl_json_u64(&j, "threads", s->threads);
    ctl_json_u64(&j, "uptime_ns", s->uptime_ns);
    ctl_json_u64(&j, "weights_bytes", s->weights_bytes);
    ctl_json_string(&j, "weights_from", s->weights_from);
    ctl_json_u64(&j, "weights_memory", s->weights_memory);
    ctl_json_u64(&j, "weights_streamed", s->weights_streamed);
    ctl_json_u64(&j, "weights_read", s->weights_read);
    ctl_json_u64(&j, "weights_read_ns", s->weights_read_ns);
    ctl_json_u64(&j, "weights_waited_ns", s->weights_waited_ns);
    ctl_json_u64(&j, "scratch_bytes", s->scratch_bytes);
    ctl_json_u64(&j, "kv_bytes", s->kv_bytes);
    ctl_json_u64(&j, "page_bytes", s->page_bytes);
    ctl_json_u64(&j, "page_tokens", s->page_tokens);
    ctl_json_u64(&j, "pages", s->pages);
    ctl_json_u64(&j, "pages_free", s->pages_free);
    ctl_json_u64(&j, "pages_cached", s->pages_cached);
    ctl_json_u64(&j, "pages_returned", s->pages_returned);
    ctl_json_bool(&j, "idle", s->idle);
    ctl_json_u64(&j, "idles_total", s->idles_total);
    ctl_json_u64(&j, "memory_pressures_total", s->pressures_total);
    ctl_json_u64(&j, "documents", s->n_documents);
    ctl_json_u64(&j, "pinned_pages", s->pinned_pages);
    ctl_json_u64(&j, "requests_running", s->requests_running);
    ctl_json_u64(&j, "requests_total", s->requests_total);
    ctl_json_u64(&j, "requests_failed", s->requests_failed);
    ctl_json_u64(&j, "prompt_tokens_total", s->prompt_tokens_total);
    ctl_json_u64(&j, "generated_tokens_total", s->generated_tokens_total);
    ctl_json_u64(&j, "steps_total", s->steps_total);
    ctl_json_u64(&j, "drafted_tokens_total", s->drafted_tokens_total);
    ctl_json_u64(&j, "accepted_tokens_total", s->accepted_tokens_total);
    ctl_json_u64(&j, "client_errors_total", s->client_errors_total);
    json_kept(&j, s);
    print_json_lists(&j, s);
    ctl_json_close(&j, '}');
    fputc('\n', stdout);
}

static int print_loading(unsigned percent, bool json)
{
    struct ctl_json j = { .out = stdout };

    if (json) {
        ctl_json_open(&j, NULL, '{');
        ctl_json_u64(&j, "loading_percent", percent);
        ctl_json_close(&j, '}');
        fputc('\n', stdout);
    } else {
        printf("gistd is loading the model: %u %%\n", percent);
    }
    return CTL_LOADING;
}

int ctl_status(int argc, char **argv)
{
    bool json = false;
    const struct ctl_opt opts[] = {
        { "json", 'j', CTL_OPT_FLAG, NULL, &json, 0, 0, "one object, all numbers in bytes and ns" },
    };
    struct gist_stats stats;
    unsigned percent = 0;
    gist_conn *c;
    int r;

    if (ctl_opt_parse_all(&usage, opts, 1, argc, argv, &r) < 0)
        return r;
    r = ctl_connect_now(&c, &percent);
    if (r == CTL_LOADING)
        return print_loading(percent, json);
    if (r != 0)
        return r;
    r = gist_stats(c, &stats);
    if (r < 0)
        r = ctl_fail_gist(c, r);
    else if (json)
        print_json(&stats);
    else
        print_text(&stats);
    gist_disconnect(c);
    return r;
}
