/* bench/decode.c - reads and writes random tokens through the daemon, and prints how long it took.
 *
 *     decode [-p N]... [-d N]... [-f N]... [-s N [-c N]] [-n N] [-r N]
 *            [-C NAME [-R N] [-A NAME]] [-L N]
 *
 * -p N: N tokens read into an empty session. -d N: -n tokens written behind a context of N tokens.
 * -f N: N tokens read and one written. -s N: N sessions write -n tokens each at the same time, each
 * behind a context of its own of -c tokens. -r: how often each. -C, -R, -A, -L: the sessions'
 * compressor, ratio, adapter and segment. One JSON object a line:
 *
 *     {"kind": "prefill", "tokens": N, "ns": ...}
 *     {"kind": "decode", "depth": N, "tokens": ..., "ns": ..., "kv_bytes": ...,
 *      "kv_bytes_end": ..., "gap_ns": {"min": ..., "p10": ..., "p50": ..., "p90": ..., "max": ...}}
 *     {"kind": "first", "tokens": N, "ns": ...}
 *     {"kind": "sessions", "sessions": N, "tokens": ..., "ns": ...}
 *
 * The daemon is that of $GISTD_SOCKET. Times are the client's: from the call to the answer, so
 * rings, scheduler and sampling are in them. Decoding counts from the first token's arrival to the
 * last one's: n tokens, n steps, none of which guesses ahead. Of sessions, the tokens of all count
 * while all of them write. Gaps are the times from one token's arrival to the next: what else runs
 * on the machine shows in the upper ones, the program's own speed in the lower. KV bytes are the
 * pages that the daemon charges to the session: behind the context and one token, and behind all
 * that was written.
 */
#include "client/gist.h"

#include <getopt.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LIST_MAX     16
#define SESSIONS_MAX 64u

struct bench {
    gist_conn *conn;
    uint32_t n_vocab;
    uint64_t rng;
    struct gist_memory memory;
    struct gist_policy policy;
};

struct arrivals {
    uint64_t first_ns, last_ns;
    uint32_t n_after_first;
    uint64_t *gaps_ns; /* (n_gaps) of cap_gaps; NULL: nobody asks */
    uint32_t n_gaps, cap_gaps;
};

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench/decode: %s: %s\n", what, why);
    exit(1);
}

/* xorshift64*: any spread over the vocabulary will do. */
static uint32_t random_token(struct bench *b)
{
    b->rng ^= b->rng >> 12;
    b->rng ^= b->rng << 25;
    b->rng ^= b->rng >> 27;
    return (uint32_t)((b->rng * 0x2545f4914f6cdd1du >> 33) % b->n_vocab);
}

/* A session that holds n random tokens; the time that reading them took. */
static gist_session *open_session(struct bench *b, uint32_t n, uint64_t *ret_ns)
{
    gist_session *s;
    uint32_t *ids = malloc(n * sizeof(*ids));
    uint64_t start;

    if (!ids)
        die("a context", "out of memory");
    for (uint32_t i = 0; i < n; i++)
        ids[i] = random_token(b);
    if (gist_open(b->conn, &b->policy, &s) < 0)
        die("opening a session", gist_error(b->conn));
    start = now_ns();
    if (gist_append_tokens(s, ids, n, NULL) < 0)
        die("reading tokens", gist_error(b->conn));
    *ret_ns = now_ns() - start;
    free(ids);
    return s;
}

static uint64_t kv_bytes(struct bench *b, const gist_session *s)
{
    struct gist_stats stats;

    if (gist_stats(b->conn, &stats) < 0)
        die("the daemon's state", gist_error(b->conn));
    for (uint32_t i = 0; i < stats.n_sessions; i++)
        if (stats.sessions[i].id == gist_session_id(s))
            return (uint64_t)stats.sessions[i].pages * stats.page_bytes;
    die("the daemon's state", "our session is not in it");
    return 0;
}

static int on_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    struct arrivals *a = arg;
    uint64_t before = a->last_ns;

    (void)text;
    (void)len;
    (void)ids;
    a->last_ns = now_ns();
    if (a->first_ns == 0) {
        a->first_ns = a->last_ns;
        return 0;
    }
    a->n_after_first += (uint32_t)n_ids;
    if (a->n_gaps < a->cap_gaps)
        a->gaps_ns[a->n_gaps++] = a->last_ns - before;
    return 0;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void print_gaps(struct arrivals *a)
{
    static const struct {
        const char *name;
        uint32_t percent;
    } rows[] = { { "min", 0 }, { "p10", 10 }, { "p50", 50 }, { "p90", 90 }, { "max", 100 } };

    qsort(a->gaps_ns, a->n_gaps, sizeof(*a->gaps_ns), by_size);
    printf("\"gap_ns\": {");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint32_t at = (a->n_gaps - 1) * rows[i].percent / 100;

        printf("%s\"%s\": %llu", i ? ", " : "", rows[i].name, (unsigned long long)a->gaps_ns[at]);
    }
    printf("}");
}

static void bench_prefill(struct bench *b, uint32_t n)
{
    uint64_t ns;
    gist_session *s = open_session(b, n, &ns);

    gist_close(s);
    printf("{\"kind\": \"prefill\", \"tokens\": %u, \"ns\": %llu}\n", n, (unsigned long long)ns);
}

static void bench_decode(struct bench *b, uint32_t depth, uint32_t n)
{
    /* One more than is counted: the first only starts the clock. */
    struct gist_sampling sampling = {
        .size = sizeof(sampling), .max_tokens = n + 1, .ignore_eog = 1, .flags = GIST_SET_DRAFT
    };
    struct gist_sampling two = { .size = sizeof(two), .max_tokens = 2, .ignore_eog = 1 };
    struct arrivals a = { .gaps_ns = calloc(n, sizeof(*a.gaps_ns)), .cap_gaps = n };
    uint64_t ns, before, after;
    /* An empty session has nothing to go on from. */
    gist_session *s = open_session(b, depth ? depth : 1, &ns);

    if (!a.gaps_ns)
        die("times", "out of memory");
    /* A last segment that is full is compressed when more is read: the first token written, for a
     * second. */
    if (gist_generate(s, &two, NULL, NULL, NULL) < 0)
        die("writing a token", gist_error(b->conn));
    before = kv_bytes(b, s);
    if (gist_generate(s, &sampling, on_text, &a, NULL) < 0)
        die("writing tokens", gist_error(b->conn));
    after = kv_bytes(b, s);
    gist_close(s);
    if (a.n_after_first == 0)
        die("writing tokens", "they came all at once: nothing to time");
    printf(
        "{\"kind\": \"decode\", \"depth\": %u, \"tokens\": %u, \"ns\": %llu, \"kv_bytes\": %llu, "
        "\"kv_bytes_end\": %llu, ",
        depth, a.n_after_first, (unsigned long long)(a.last_ns - a.first_ns),
        (unsigned long long)before, (unsigned long long)after);
    print_gaps(&a);
    printf("}\n");
    free(a.gaps_ns);
}

static void bench_first(struct bench *b, uint32_t n)
{
    struct gist_sampling sampling = { .size = sizeof(sampling),
                                      .max_tokens = 2, /* one may wait for the rest of its letter */
                                      .ignore_eog = 1,
                                      .flags = GIST_SET_DRAFT };
    struct arrivals a = { 0 };
    uint64_t read_ns, start;
    gist_session *s = open_session(b, n, &read_ns);

    start = now_ns();
    if (gist_generate(s, &sampling, on_text, &a, NULL) < 0)
        die("writing a token", gist_error(b->conn));
    gist_close(s);
    printf("{\"kind\": \"first\", \"tokens\": %u, \"ns\": %llu}\n", n,
           (unsigned long long)(read_ns + a.first_ns - start));
}

/* --- several sessions at once ----------------------------------------------------------------- */

struct crowd {
    uint32_t n_sessions, n_begun, n_ended;
    uint64_t begun_ns, ended_ns; /* all have begun; the first one has ended */
    uint32_t n_tokens;           /* between the two */
    int err;
};

struct member {
    struct crowd *crowd;
    gist_session *s;
    bool begun;
};

static int on_member_text(void *arg, const char *text, size_t len, const uint32_t *ids,
                          size_t n_ids)
{
    struct member *m = arg;
    struct crowd *c = m->crowd;

    (void)text;
    (void)len;
    (void)ids;
    if (c->n_begun == c->n_sessions && c->n_ended == 0) {
        c->n_tokens += (uint32_t)n_ids;
        c->ended_ns = now_ns();
    }
    if (!m->begun) {
        m->begun = true;
        if (++c->n_begun == c->n_sessions)
            c->begun_ns = now_ns();
    }
    return 0;
}

static void on_member_done(void *arg, int err, const struct gist_result *result)
{
    struct crowd *c = ((struct member *)arg)->crowd;

    (void)result;
    c->n_ended++;
    if (err < 0)
        c->err = err;
}

static void wait_for_all(struct bench *b, const struct crowd *c)
{
    struct pollfd fd = { .fd = gist_fd(b->conn), .events = POLLIN };

    while (c->n_ended < c->n_sessions) {
        if (poll(&fd, 1, -1) < 0 || gist_dispatch(b->conn) < 0)
            die("several sessions", gist_error(b->conn));
    }
    if (c->err < 0)
        die("several sessions", gist_error(b->conn));
}

static void bench_sessions(struct bench *b, uint32_t n_sessions, uint32_t depth, uint32_t n)
{
    struct gist_sampling sampling = {
        .size = sizeof(sampling), .max_tokens = n + 1, .ignore_eog = 1, .flags = GIST_SET_DRAFT
    };
    struct crowd c = { .n_sessions = n_sessions };
    struct member members[SESSIONS_MAX];
    uint64_t ns;

    for (uint32_t i = 0; i < n_sessions; i++)
        members[i] = (struct member){ .crowd = &c, .s = open_session(b, depth, &ns) };
    for (uint32_t i = 0; i < n_sessions; i++)
        if (gist_generate_start(members[i].s, &sampling, on_member_text, on_member_done,
                                &members[i], NULL) < 0)
            die("several sessions", gist_error(b->conn));
    wait_for_all(b, &c);
    for (uint32_t i = 0; i < n_sessions; i++)
        gist_close(members[i].s);
    if (c.n_tokens == 0)
        die("several sessions", "they never wrote all at once: ask for more tokens");
    printf("{\"kind\": \"sessions\", \"sessions\": %u, \"tokens\": %u, \"ns\": %llu}\n", n_sessions,
           c.n_tokens, (unsigned long long)(c.ended_ns - c.begun_ns));
}

/* --- the command line ------------------------------------------------------------------------- */

struct list {
    uint32_t v[LIST_MAX];
    int n;
};

struct plan {
    struct list prefills, depths, firsts;
    uint32_t n, reps, n_sessions, sessions_depth;
};

static enum gist_compressor compressor_named(const char *name)
{
    for (int c = 0; gist_compressor_name((enum gist_compressor)c); c++)
        if (strcmp(gist_compressor_name((enum gist_compressor)c), name) == 0)
            return (enum gist_compressor)c;
    die("there is no compressor of that name", name);
    return GIST_FULL;
}

/* 'C', 'R', 'A' and 'L' are the sessions' policy; false for any other. */
static bool read_policy(struct bench *b, int o)
{
    if (o == 'C')
        b->memory.compressor = compressor_named(optarg);
    else if (o == 'A')
        b->memory.adapter = optarg;
    else if (o == 'R')
        b->memory.ratio = (uint32_t)strtoul(optarg, NULL, 10);
    else if (o == 'L')
        b->policy.segment = (uint32_t)strtoul(optarg, NULL, 10);
    else
        return false;
    return true;
}

static void read_options(int argc, char **argv, struct plan *p, struct bench *b)
{
    static const char *const usage =
        "decode [-p N]... [-d N]... [-f N]... [-s N [-c N]] [-n N] [-r N] "
        "[-C NAME [-R N] [-A NAME]] [-L N]";
    int o;

    *p = (struct plan){ .n = 32, .reps = 1, .sessions_depth = 128 };
    while ((o = getopt(argc, argv, "p:d:f:s:c:n:r:C:R:A:L:")) != -1) {
        uint32_t v = o == '?' ? 0 : (uint32_t)strtoul(optarg, NULL, 10);
        struct list *l = o == 'p' ? &p->prefills : o == 'd' ? &p->depths : &p->firsts;

        if (read_policy(b, o))
            continue;
        if (o == 's' && v <= SESSIONS_MAX)
            p->n_sessions = v;
        else if (o == 'c')
            p->sessions_depth = v;
        else if (o == 'n')
            p->n = v;
        else if (o == 'r')
            p->reps = v;
        else if ((o == 'p' || o == 'd' || o == 'f') && l->n < LIST_MAX)
            l->v[l->n++] = v;
        else
            die("usage", usage);
    }
}

int main(int argc, char **argv)
{
    struct bench b = { .rng = 88172645463325252u };
    struct gist_info info;
    struct plan p;

    b.memory.size = sizeof(b.memory);
    b.policy = (struct gist_policy){ .size = sizeof(b.policy), .memory = &b.memory };
    read_options(argc, argv, &p, &b);
    if (gist_connect(NULL, "bench", &b.conn) < 0)
        die("no daemon", gist_error(NULL));
    gist_info(b.conn, &info);
    b.n_vocab = info.n_vocab;
    for (uint32_t i = 0; i < p.reps; i++) {
        for (int k = 0; k < p.firsts.n; k++)
            bench_first(&b, p.firsts.v[k]);
        for (int k = 0; k < p.prefills.n; k++)
            bench_prefill(&b, p.prefills.v[k]);
        for (int k = 0; k < p.depths.n; k++)
            bench_decode(&b, p.depths.v[k], p.n);
        if (p.n_sessions)
            bench_sessions(&b, p.n_sessions, p.sessions_depth, p.n);
    }
    gist_disconnect(b.conn);
    return 0;
}
