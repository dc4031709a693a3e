/* ctl/ctl_watch.c - gistctl sessions, cancel, trace: who does what, how to end it, where its time
 * went. */
#include "base/shown.h"
#include "ctl/ctl.h"
#include "ctl/ctl_human.h"
#include "ctl/ctl_json.h"
#include "ctl/ctl_opt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A number of a session or a request; 0 is none. */
static bool read_number(const char *text, uint64_t *ret)
{
    char *end;

    errno = 0;
    *ret = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && !*end && errno == 0 && *ret > 0;
}

/* --- sessions --------------------------------------------------------------------------------- */

static void print_session(const struct gist_stats *s, const struct gist_stats_session *x)
{
    char raw[CTL_HUMAN_CAP], gists[CTL_HUMAN_CAP], unit[CTL_HUMAN_UNIT_CAP];

    printf("%8llu %8llu %8u %8u %10s %10s  %-22s  ", (unsigned long long)x->id,
           (unsigned long long)x->client, x->uid, x->n_tokens,
           ctl_human_bytes((uint64_t)(x->pages - x->gist_pages) * s->page_bytes, raw),
           ctl_human_bytes((uint64_t)x->gist_pages * s->page_bytes, gists),
           ctl_human_unit(x->unit, unit));
    if (x->request)
        printf("%s (%llu)  ", x->doing, (unsigned long long)x->request);
    else
        fputs("idle  ", stdout);
    if (x->left_s > 0)
        printf("detached, %u s left  ", x->left_s);
    shown_write(stdout, SHOWN_LINE, x->label, strlen(x->label));
    fputc('\n', stdout);
}

static void json_session(struct ctl_json *j, const struct gist_stats *s,
                         const struct gist_stats_session *x)
{
    ctl_json_open(j, NULL, '{');
    ctl_json_u64(j, "id", x->id);
    ctl_json_u64(j, "client", x->client);
    ctl_json_u64(j, "uid", x->uid);
    ctl_json_string(j, "label", x->label);
    ctl_json_u64(j, "n_tokens", x->n_tokens);
    ctl_json_u64(j, "raw_bytes", (uint64_t)(x->pages - x->gist_pages) * s->page_bytes);
    ctl_json_u64(j, "gist_bytes", (uint64_t)x->gist_pages * s->page_bytes);
    ctl_json_u64(j, "request", x->request);
    ctl_json_string(j, "doing", x->doing);
    ctl_json_u64(j, "generated_tokens", x->generated_tokens);
    ctl_json_u64(j, "kept_s", x->kept_s);
    ctl_json_u64(j, "left_s", x->left_s);
    ctl_json_string(j, "unit", x->unit);
    ctl_json_close(j, '}');
}

static void print_sessions(const struct gist_stats *s, bool json)
{
    struct ctl_json j = { .out = stdout };

    if (!json) {
        puts(" session   client      uid   tokens        raw      gists  unit                    "
             "doing (request)  label");
        for (uint32_t i = 0; i < s->n_sessions; i++)
            print_session(s, &s->sessions[i]);
        return;
    }
    ctl_json_open(&j, NULL, '[');
    for (uint32_t i = 0; i < s->n_sessions; i++)
        json_session(&j, s, &s->sessions[i]);
    ctl_json_close(&j, ']');
    fputc('\n', stdout);
}

/* --- segments --------------------------------------------------------------------------------- */

static const char *const states[] = {
    [GIST_SEGMENT_RAW] = "raw", [GIST_SEGMENT_GISTS] = "gists", [GIST_SEGMENT_HYDRATED] = "hydrated"
};

static const char *state_of(const struct gist_segment *x)
{
    return (size_t)x->state < sizeof(states) / sizeof(states[0]) ? states[x->state] : "unknown";
}

/* Neighbours that are alike, in one line. */
struct run {
    struct gist_segment like;
    uint32_t first, n, n_tokens, n_keys;
};

static void print_run(const struct run *r)
{
    char from_to[32];

    if (r->n == 0)
        return;
    if (r->n == 1)
        (void)snprintf(from_to, sizeof(from_to), "%u", r->first);
    else
        (void)snprintf(from_to, sizeof(from_to), "%u-%u", r->first, r->first + r->n - 1);
    printf("%15s %10u %10u  %s", from_to, r->n_tokens, r->n_keys, state_of(&r->like));
    if (r->like.state == GIST_SEGMENT_GISTS && r->like.ratio)
        printf(", %u tokens a gist", r->like.ratio);
    puts(r->like.stored ? ", kept raw, too" : "");
}

static void add_to_run(struct run *r, uint32_t k, const struct gist_segment *x)
{
    if (r->n > 0 &&
        (r->like.state != x->state || r->like.ratio != x->ratio || r->like.stored != x->stored)) {
        print_run(r);
        r->n = 0;
    }
    if (r->n == 0)
        *r = (struct run){ .like = *x, .first = k };
    r->n++;
    r->n_tokens += x->n_tokens;
    r->n_keys += x->n_keys;
}

static void json_segment(struct ctl_json *j, const struct gist_segment *x)
{
    ctl_json_open(j, NULL, '{');
    ctl_json_string(j, "state", state_of(x));
    ctl_json_u64(j, "n_tokens", x->n_tokens);
    ctl_json_u64(j, "n_keys", x->n_keys);
    ctl_json_u64(j, "ratio", x->ratio);
    ctl_json_bool(j, "stored", x->stored);
    ctl_json_close(j, '}');
}

static void begin_map(struct ctl_json *j, uint64_t id, const struct gist_segments *m)
{
    if (!j) {
        printf("session %llu: %u tokens, %u of at most %u keys, segments of %u tokens\n",
               (unsigned long long)id, m->n_tokens, m->n_keys, m->budget, m->segment);
        puts("        segment     tokens       keys  held as");
        return;
    }
    ctl_json_open(j, NULL, '{');
    ctl_json_u64(j, "id", id);
    ctl_json_u64(j, "n_tokens", m->n_tokens);
    ctl_json_u64(j, "n_keys", m->n_keys);
    ctl_json_u64(j, "budget", m->budget);
    ctl_json_u64(j, "segment", m->segment);
    ctl_json_open(j, "segments", '[');
}

/* j NULL: for people. A session that has ended meanwhile is none: -ENOENT. A long text comes in
 * parts, each behind the last one's end; what came before an error is printed, and closed. */
static int print_map(gist_conn *c, uint64_t id, struct ctl_json *j)
{
    struct run run = { .n = 0 };
    struct gist_segments m;
    bool begun = false;
    uint32_t at = 0;
    int r;

    do {
        r = gist_segments(c, id, at, &m);
        if (r < 0)
            break;
        if (!begun)
            begin_map(j, id, &m);
        begun = true;
        for (size_t i = 0; i < m.n; i++)
            if (j)
                json_segment(j, &m.at[i]);
            else
                add_to_run(&run, at + (uint32_t)i, &m.at[i]);
        at += (uint32_t)m.n;
    } while (m.n > 0 && at < m.n_segments);
    print_run(&run);
    if (j && begun) {
        ctl_json_close(j, ']');
        ctl_json_close(j, '}');
    }
    return r;
}

/* Of a copy of their numbers: every call takes the lists away. A session that ended in between is
 * left out. */
static int print_maps(gist_conn *c, const struct gist_stats *s, bool json)
{
    uint64_t *ids = calloc((size_t)s->n_sessions + 1, sizeof(*ids));
    struct ctl_json j = { .out = stdout };
    uint32_t n = s->n_sessions;
    int r = ids ? 0 : -ENOMEM;

    for (uint32_t i = 0; ids && i < n; i++)
        ids[i] = s->sessions[i].id;
    if (json)
        ctl_json_open(&j, NULL, '[');
    for (uint32_t i = 0; r == 0 && i < n; i++) {
        r = print_map(c, ids[i], json ? &j : NULL);
        r = r == -ENOENT ? 0 : r;
    }
    if (json) {
        ctl_json_close(&j, ']');
        fputc('\n', stdout);
    }
    free(ids);
    return r;
}

int ctl_sessions(int argc, char **argv)
{
    static const struct ctl_opt_usage usage = {
        "sessions [OPTIONS]",
        "Lists your open sessions and what they are doing; root and the daemon's user see\n"
        "everybody's.\n"
    };
    bool json = false, segments = false;
    const struct ctl_opt opts[] = {
        { "json", 'j', CTL_OPT_FLAG, NULL, &json, 0, 0, "an array, sizes in bytes" },
        { "segments", 0, CTL_OPT_FLAG, NULL, &segments, 0, 0,
          "how each part of their text is held: raw, as gists, hydrated" },
    };
    struct gist_stats stats;
    gist_conn *c;
    int r;

    if (ctl_opt_parse_all(&usage, opts, 2, argc, argv, &r) < 0)
        return r;
    r = ctl_connect(&c);
    if (r != 0)
        return r;
    r = gist_stats(c, &stats);
    if (r == 0 && segments)
        r = print_maps(c, &stats, json);
    else if (r == 0)
        print_sessions(&stats, json);
    if (r < 0)
        r = ctl_fail_gist(c, r);
    gist_disconnect(c);
    return r;
}

/* --- cancel ----------------------------------------------------------------------------------- */

/* What was cancelled, a number each, is printed with json; one that can't be does not keep the
 * others, unless there is nobody left to ask. */
static int cancel_all(gist_conn *c, char *const *numbers, int n, bool json)
{
    struct ctl_json j = { .out = stdout };
    uint64_t session;
    int r = CTL_OK;
    bool lost = false;

    if (json)
        ctl_json_open(&j, NULL, '[');
    for (int i = 0; i < n && !lost; i++) {
        int err;

        (void)read_number(numbers[i], &session);
        err = gist_cancel_session(c, session);
        lost = err < 0 && gist_error_code(c) == GIST_E_TRANSPORT;
        if (err < 0)
            r = ctl_fail_gist(c, err);
        else if (json)
            ctl_json_u64(&j, NULL, session);
    }
    if (json) {
        ctl_json_close(&j, ']');
        fputc('\n', stdout);
    }
    return r;
}

int ctl_cancel(int argc, char **argv)
{
    static const struct ctl_opt_usage usage = {
        "cancel [OPTIONS] SESSION ...",
        "Ends what sessions are doing, whichever of your programs they are of: a text that is\n"
        "read, an answer. `gistctl sessions` has their numbers. The sessions stay, but for those\n"
        "that are detached.\n"
    };
    bool json = false;
    const struct ctl_opt opts[] = {
        { "json", 'j', CTL_OPT_FLAG, NULL, &json, 0, 0, "one array: the numbers of those" },
    };
    uint64_t session;
    gist_conn *c;
    int r, first = ctl_opt_parse(&usage, opts, 1, argc, argv, &r);

    if (first < 0)
        return r;
    if (first == argc)
        return ctl_fail(CTL_USAGE, "cancel needs the number of a session; `gistctl sessions` lists "
                                   "them.");
    for (int i = first; i < argc; i++)
        if (!read_number(argv[i], &session))
            return ctl_fail(CTL_USAGE,
                            "'%s' is no number of a session; `gistctl sessions` lists them.",
                            argv[i]);
    r = ctl_connect(&c);
    if (r != 0)
        return r;
    r = cancel_all(c, argv + first, argc - first, json);
    gist_disconnect(c);
    return r;
}

/* --- trace ------------------------------------------------------------------------------------ */

static void print_span(const char *name, uint64_t ns, uint64_t all)
{
    char text[CTL_HUMAN_CAP];

    if (ns > 0)
        printf("  %-12s %12s %5.1f %%\n", name, ctl_human_time(ns, text),
               all ? 100.0 * (double)ns / (double)all : 0.0);
}

/* One request, a line for each part of its time. */
static void print_one(const struct gist_trace_row *t)
{
    char when[CTL_HUMAN_CAP], total[CTL_HUMAN_CAP];

    printf("request %llu: %s of ", (unsigned long long)t->number, t->what);
    shown_write(stdout, SHOWN_LINE, t->client, strlen(t->client));
    printf(", session %llu, %s, %s: %s\n", (unsigned long long)t->session,
           ctl_human_when(t->at_s, when), t->ended, ctl_human_time(t->total_ns, total));
    print_span("queue", t->queue_ns, t->total_ns);
    print_span("restore", t->restore_ns, t->total_ns);
    print_span("hydrate", t->hydrate_ns, t->total_ns);
    print_span("prefill", t->prefill_ns, t->total_ns);
    print_span("compress", t->compress_ns, t->total_ns);
    print_span("decode", t->decode_ns, t->total_ns);
    print_span("ring", t->ring_ns, t->total_ns);
    if (t->first_token_ns)
        printf("  first token after %s\n", ctl_human_time(t->first_token_ns, total));
    printf("  %u tokens computed, %u found, %u generated\n", t->computed_tokens, t->found_tokens,
           t->generated_tokens);
    if (t->drafted_tokens > 0)
        printf("  %u tokens guessed ahead, %u right\n", t->drafted_tokens, t->accepted_tokens);
}

static void print_line(const struct gist_trace_row *t)
{
    char when[CTL_HUMAN_CAP], total[CTL_HUMAN_CAP], queue[CTL_HUMAN_CAP], first[CTL_HUMAN_CAP];

    printf("%10llu %-16s %-10s %8llu %10s %10s %10s %8u %8u  %s\n", (unsigned long long)t->number,
           ctl_human_when(t->at_s, when), t->what, (unsigned long long)t->session,
           ctl_human_time(t->total_ns, total), ctl_human_time(t->queue_ns, queue),
           t->first_token_ns ? ctl_human_time(t->first_token_ns, first) : "-", t->computed_tokens,
           t->generated_tokens, t->ended);
}

static void json_row(struct ctl_json *j, const struct gist_trace_row *t)
{
    ctl_json_open(j, NULL, '{');
    ctl_json_u64(j, "number", t->number);
    ctl_json_string(j, "what", t->what);
    ctl_json_string(j, "client", t->client);
    ctl_json_u64(j, "session", t->session);
    ctl_json_u64(j, "at_s", t->at_s);
    ctl_json_string(j, "ended", t->ended);
    ctl_json_u64(j, "total_ns", t->total_ns);
    ctl_json_u64(j, "queue_ns", t->queue_ns);
    ctl_json_u64(j, "restore_ns", t->restore_ns);
    ctl_json_u64(j, "hydrate_ns", t->hydrate_ns);
    ctl_json_u64(j, "prefill_ns", t->prefill_ns);
    ctl_json_u64(j, "compress_ns", t->compress_ns);
    ctl_json_u64(j, "decode_ns", t->decode_ns);
    ctl_json_u64(j, "first_token_ns", t->first_token_ns);
    ctl_json_u64(j, "ring_ns", t->ring_ns);
    ctl_json_u64(j, "computed_tokens", t->computed_tokens);
    ctl_json_u64(j, "found_tokens", t->found_tokens);
    ctl_json_u64(j, "generated_tokens", t->generated_tokens);
    ctl_json_u64(j, "drafted_tokens", t->drafted_tokens);
    ctl_json_u64(j, "accepted_tokens", t->accepted_tokens);
    ctl_json_close(j, '}');
}

struct printing {
    bool json, one;
};

static void print_rows(void *arg, const struct gist_trace_row *rows, size_t n)
{
    const struct printing *p = arg;
    struct ctl_json j = { .out = stdout };

    if (p->json) {
        ctl_json_open(&j, NULL, '[');
        for (size_t i = 0; i < n; i++)
            json_row(&j, &rows[i]);
        ctl_json_close(&j, ']');
        fputc('\n', stdout);
        return;
    }
    if (!p->one)
        puts("   request came             what        session      total      queue first token "
             "computed  written  ended");
    for (size_t i = 0; i < n; i++) {
        if (p->one)
            print_one(&rows[i]);
        else
            print_line(&rows[i]);
    }
}

int ctl_trace(int argc, char **argv)
{
    static const struct ctl_opt_usage usage = {
        "trace [OPTIONS] [REQUEST]",
        "Says where the time of your requests went: queue, disk (restore), old segments\n"
        "(hydrate), reading (prefill), compressing, writing (decode), and replies that nobody\n"
        "took (ring). Without a number: a line for each of the last 64 that used the model.\n"
    };
    struct printing p = { .json = false };
    const struct ctl_opt opts[] = { { "json", 'j', CTL_OPT_FLAG, NULL, &p.json, 0, 0,
                                      "an array, all times in ns" } };
    uint64_t number = 0;
    gist_conn *c;
    int r, first = ctl_opt_parse(&usage, opts, 1, argc, argv, &r);

    if (first < 0)
        return r;
    if (argc - first > 1)
        return ctl_fail(CTL_USAGE, "trace takes one number, but got '%s' as well.",
                        argv[first + 1]);
    if (first < argc && !read_number(argv[first], &number))
        return ctl_fail(CTL_USAGE,
                        "'%s' is no number of a request; `gistctl trace` lists the last ones.",
                        argv[first]);
    p.one = number > 0;
    r = ctl_connect(&c);
    if (r != 0)
        return r;
    r = gist_trace(c, number, print_rows, &p);
    if (r < 0)
        r = ctl_fail_gist(c, r);
    gist_disconnect(c);
    return r;
}
