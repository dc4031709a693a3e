/* bench/decode.c - reads and writes random tokens through the daemon, and prints how long it took.
 *
 *     decode [-p N]... [-d N]... [-n N] [-r N]
 *
 * -p N: N tokens read into an empty session. -d N: -n tokens written behind a context of N tokens. -r:
 * how often each. One JSON object a line: {"kind": "prefill", "tokens": N, "ns": ...} or {"kind":
 * "decode", "depth": N, "tokens": ..., "ns": ...}. The daemon is that of $GISTD_SOCKET.
 *
 * Times are the client's: from the call to the answer, so rings, scheduler and sampling are in them.
 * Decoding counts from the first token's arrival to the last one's: n tokens, n steps.
 */
#include "client/gist.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define LIST_MAX 16

struct bench {
    gist_conn *conn;
    uint32_t n_vocab;
    uint64_t rng;
};

struct arrivals {
    uint64_t first_ns, last_ns;
    uint32_t n_after_first;
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
    if (gist_open(b->conn, NULL, &s) < 0)
        die("opening a session", gist_error(b->conn));
    start = now_ns();
    if (gist_append_tokens(s, ids, n, NULL) < 0)
        die("reading tokens", gist_error(b->conn));
    *ret_ns = now_ns() - start;
    free(ids);
    return s;
}

static int on_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    struct arrivals *a = arg;

    (void)text;
    (void)len;
    (void)ids;
    a->last_ns = now_ns();
    if (a->first_ns == 0)
        a->first_ns = a->last_ns;
    else
        a->n_after_first += (uint32_t)n_ids;
    return 0;
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
    struct gist_sampling sampling = { .size = sizeof(sampling),
                                      .max_tokens = n + 1,
                                      .ignore_eog = 1 };
    struct arrivals a = { 0 };
    uint64_t ns;
    /* An empty session has nothing to go on from. */
    gist_session *s = open_session(b, depth ? depth : 1, &ns);

    if (gist_generate(s, &sampling, on_text, &a, NULL) < 0)
        die("writing tokens", gist_error(b->conn));
    gist_close(s);
    if (a.n_after_first == 0)
        die("writing tokens", "they came all at once: nothing to time");
    printf("{\"kind\": \"decode\", \"depth\": %u, \"tokens\": %u, \"ns\": %llu}\n", depth,
           a.n_after_first, (unsigned long long)(a.last_ns - a.first_ns));
}

int main(int argc, char **argv)
{
    uint32_t prefills[LIST_MAX], depths[LIST_MAX], n = 32, reps = 1;
    int n_prefills = 0, n_depths = 0, o;
    struct bench b = { .rng = 88172645463325252u };
    struct gist_info info;

    while ((o = getopt(argc, argv, "p:d:n:r:")) != -1) {
        uint32_t v = o == '?' ? 0 : (uint32_t)strtoul(optarg, NULL, 10);

        if (o == 'p' && n_prefills < LIST_MAX)
            prefills[n_prefills++] = v;
        else if (o == 'd' && n_depths < LIST_MAX)
            depths[n_depths++] = v;
        else if (o == 'n')
            n = v;
        else if (o == 'r')
            reps = v;
        else
            die("usage", "decode [-p N]... [-d N]... [-n N] [-r N]");
    }
    if (gist_connect(NULL, "bench", &b.conn) < 0)
        die("no daemon", gist_error(NULL));
    gist_info(b.conn, &info);
    b.n_vocab = info.n_vocab;
    for (uint32_t i = 0; i < reps; i++) {
        for (int k = 0; k < n_prefills; k++)
            bench_prefill(&b, prefills[k]);
        for (int k = 0; k < n_depths; k++)
            bench_decode(&b, depths[k], n);
    }
    gist_disconnect(b.conn);
    return 0;
}
