/* bench/fit.c - what packing a segment by `fit` costs beside reading it.
 *
 *     fit [-L SEGMENT] [-k KV] [-n ROUNDS] MODEL
 *
 * One thread's processor time, the least of ROUNDS (12) of each: reading SEGMENT (512) tokens while
 * their queries are kept and while they are not, and packing them at ratios 4, 8, 16 and 32, in
 * turn, so that others on the machine disturb all of them alike. A line each:
 *
 *     ratio 8      128.4 ms    19.9 % of reading
 */
#include "engine/kv/asked.h"
#include "engine/kv/compress.h"
#include "tests/support/rig.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BATCH  256u
#define RATIOS 4u

struct bench {
    struct rig rig;
    struct compressor *c;
    uint32_t seg_len, n_rounds;
    uint32_t *ids;
    struct asked asked; /* stays, as a session's does: its memory is the system's to clear once */
    double plain, reading, packing[RATIOS]; /* seconds, the least until now */
};

static double now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void least(double *x, double since)
{
    double spent = now() - since;

    *x = spent < *x ? spent : *x;
}

/* Segment 0 of a new sequence; a NULL: nothing is kept. */
static int read_segment(struct bench *b, const struct compress_spec *spec, struct asked *a,
                        struct seq *ret)
{
    int r = rig_seq(&b->rig, 2 * b->seg_len, b->seg_len, 0, ret);

    for (uint32_t at = 0; r == 0 && at < b->seg_len; at += BATCH) {
        struct forward_run run = { .seq = ret, .tokens = b->ids + at, .n_tokens = BATCH };
        uint32_t n_out;

        run.n_tokens = b->seg_len - at < BATCH ? b->seg_len - at : BATCH;
        r = seq_reserve(ret, run.n_tokens);
        if (r == 0 && a)
            asked_watch(b->c, spec, a, 0, &run);
        r = r < 0 ? r : forward_step(&b->rig.forward, &run, 1, NULL, &n_out);
        if (r == 0 && a)
            asked_ran(a, &run);
    }
    return r;
}

/* Of a fork: the sequence stays as it is. */
static int pack(struct bench *b, const struct seq *s, const struct asked *a, uint32_t i)
{
    struct compress_spec spec = { COMPRESS_FIT, 4u << i, 4, NULL };
    struct compress_side side = { .asked = a };
    struct seq fork;
    double start;
    int r = seq_fork(s, &fork);

    if (r < 0)
        return r;
    /* Rows that are left: the queries were not kept. */
    r = compress_rows_left(&spec, &fork, 0, &side) ? -EIO : -EAGAIN;
    start = now();
    while (r == -EAGAIN)
        r = compress_finish(b->c, &spec, &fork, 0, &side);
    least(&b->packing[i], start);
    compress_drop(b->c, &fork, &side);
    seq_close(&fork);
    return r;
}

static int run_round(struct bench *b)
{
    struct compress_spec spec = { COMPRESS_FIT, 4, 4, NULL };
    struct seq s;
    double start = now();
    int r = read_segment(b, &spec, NULL, &s);

    least(&b->plain, start);
    seq_close(&s);
    if (r < 0)
        return r;
    start = now();
    r = read_segment(b, &spec, &b->asked, &s);
    least(&b->reading, start);
    for (uint32_t i = 0; r == 0 && i < RATIOS; i++)
        r = pack(b, &s, &b->asked, i);
    seq_close(&s);
    return r;
}

static int bench_open(struct bench *b, const struct rig_opts *o)
{
    struct why why = { .text = "" };
    int r = rig_open(&b->rig, o, &why);

    if (r < 0) {
        (void)fprintf(stderr, "fit: %s\n", why.text);
        return r;
    }
    b->ids = malloc(b->seg_len * sizeof(*b->ids));
    if (!b->ids)
        return -ENOMEM;
    for (uint32_t i = 0; i < b->seg_len; i++) /* text repeats itself, too */
        b->ids[i] = (i * 2654435761u >> 7) % 997 + 300;
    return compress_open(b->rig.model, b->rig.backend, &b->c);
}

int main(int argc, char **argv)
{
    struct rig_opts o = { .cpu = "auto", .kv = KV_F16, .threads = 1, .max_batch = BATCH };
    struct bench b = { .seg_len = 512, .n_rounds = 12, .plain = INFINITY, .reading = INFINITY };
    int opt, r;

    while ((opt = getopt(argc, argv, "L:k:n:")) != -1) {
        if (opt == 'L')
            b.seg_len = (uint32_t)atoi(optarg);
        else if (opt == 'n')
            b.n_rounds = (uint32_t)atoi(optarg);
        else if (opt == 'k')
            o.kv = strcmp(optarg, "q8_0") == 0  ? KV_Q8_0
                   : strcmp(optarg, "f32") == 0 ? KV_F32
                                                : KV_F16;
        else
            return 2;
    }
    if (optind + 1 != argc || !seq_takes_segments(b.seg_len)) {
        (void)fprintf(stderr, "usage: fit [-L SEGMENT] [-k f16|f32|q8_0] [-n ROUNDS] MODEL\n");
        return 2;
    }
    o.model = argv[optind];
    o.max_tokens = 4 * b.seg_len;
    for (uint32_t i = 0; i < RATIOS; i++)
        b.packing[i] = INFINITY;
    r = bench_open(&b, &o);
    for (uint32_t i = 0; r == 0 && i < b.n_rounds; i++)
        r = run_round(&b);
    if (r < 0) {
        (void)fprintf(stderr, "fit: %s\n", strerror(-r));
        return 1;
    }
    printf("reading %10.1f ms\nkeeping %10.1f ms %+7.1f %% of reading\n", 1e3 * b.plain,
           1e3 * (b.reading - b.plain), 100 * (b.reading / b.plain - 1));
    for (uint32_t i = 0; i < RATIOS; i++)
        printf("ratio %-2u %9.1f ms %7.1f %% of reading\n", 4u << i, 1e3 * b.packing[i],
               100 * b.packing[i] / b.plain);
    asked_drop(b.c, &b.asked);
    compress_close(b.c);
    rig_close(&b.rig);
    free(b.ids);
    return 0;
}
