/* bench/restart.c - one long prompt and its first token, through the daemon: bench/restart.py asks
 * for it before and after the daemon's restart.
 *
 *     restart [-n N] [-C NAME [-R N]]
 *     restart [-n N] -i
 *
 * Reads N tokens, always the same ones, into a session and writes one. Prints
 *
 *     {"tokens": N, "first_ns": ..., "computed": ..., "shared": ..., "restored": ..., "token": ...}
 *
 * With -i it only prints the ids, a JSON array.
 *
 * The daemon is that of $GISTD_SOCKET. first_ns is the client's: from the call that appends to the
 * token's arrival.
 */
#include "client/gist.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct said {
    uint64_t ns;
    uint32_t token;
};

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench/restart: %s: %s\n", what, why);
    exit(1);
}

/* xorshift64*: any spread over the vocabulary will do. The same from run to run. */
static uint32_t *make_prompt(uint32_t n, uint32_t n_vocab)
{
    uint32_t *ids = malloc(n * sizeof(*ids));
    uint64_t rng = 20;

    if (!ids)
        die("a prompt", "out of memory");
    for (uint32_t i = 0; i < n; i++) {
        rng ^= rng >> 12;
        rng ^= rng << 25;
        rng ^= rng >> 27;
        ids[i] = (uint32_t)((rng * 0x2545f4914f6cdd1du >> 33) % n_vocab);
    }
    return ids;
}

static int on_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    struct said *s = arg;

    (void)text;
    (void)len;
    s->ns = now_ns();
    if (n_ids > 0)
        s->token = ids[0];
    return 0;
}

static void measure(gist_conn *c, uint32_t n, const struct gist_memory *memory)
{
    const struct gist_policy policy = { .size = sizeof(policy), .memory = memory };
    const struct gist_sampling one = { .size = sizeof(one), .max_tokens = 1, .ignore_eog = 1 };
    struct gist_usage usage;
    struct gist_info info;
    struct said said = { 0 };
    gist_session *s;
    uint32_t *ids;
    uint64_t start;

    gist_info(c, &info);
    ids = make_prompt(n, info.n_vocab);
    if (gist_open(c, &policy, &s) < 0)
        die("opening a session", gist_error(c));
    start = now_ns();
    if (gist_append_tokens(s, ids, n, &usage) < 0)
        die("reading the prompt", gist_error(c));
    if (gist_generate(s, &one, on_text, &said, NULL) < 0)
        die("writing a token", gist_error(c));
    gist_close(s);
    free(ids);
    printf(
        "{\"tokens\": %u, \"first_ns\": %llu, \"computed\": %u, \"shared\": %u, \"restored\": %u, "
        "\"token\": %u}\n",
        n, (unsigned long long)(said.ns - start), usage.computed_tokens, usage.shared_tokens,
        usage.restored_tokens, said.token);
}

static void print_ids(gist_conn *c, uint32_t n)
{
    struct gist_info info;
    uint32_t *ids;

    gist_info(c, &info);
    ids = make_prompt(n, info.n_vocab);
    for (uint32_t i = 0; i < n; i++)
        printf("%s%u", i ? ", " : "[", ids[i]);
    printf("]\n");
    free(ids);
}

int main(int argc, char **argv)
{
    struct gist_memory memory = { .size = sizeof(memory) };
    bool only_ids = false;
    uint32_t n = 4096;
    gist_conn *c;
    int o;

    while ((o = getopt(argc, argv, "in:C:R:")) != -1) {
        if (o == 'n')
            n = (uint32_t)strtoul(optarg, NULL, 10);
        else if (o == 'i')
            only_ids = true;
        else if (o == 'R')
            memory.ratio = (uint32_t)strtoul(optarg, NULL, 10);
        else if (o == 'C')
            while (gist_compressor_name(memory.compressor) &&
                   strcmp(gist_compressor_name(memory.compressor), optarg) != 0)
                memory.compressor++;
        else
            return 2;
    }
    if (n == 0 || !gist_compressor_name(memory.compressor))
        return 2;
    if (gist_connect(NULL, "bench/restart", &c) < 0)
        die("connecting", gist_error(NULL));
    if (only_ids)
        print_ids(c, n);
    else
        measure(c, n, &memory);
    gist_disconnect(c);
    return 0;
}
