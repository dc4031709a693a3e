/* bench/ranking.c - which packed segment does a question point to?
 *
 *     ranking [-t THREADS] [-n ITEMS] [-s SEGMENTS] [-L SEGMENT] [-c NAME] [-r RATIO] [-k]
 *             MODEL TEXT
 *
 * Each of ITEMS (20) is a part of TEXT, SEGMENTS (8) of SEGMENT (512) tokens, with a sentence in
 * one of them that says a code; with -k in each of them, of other things. Compressed by NAME
 * (select) at RATIO (8), it is asked for the code. What ranks the segments for the question:
 *
 *     lexical   its ids that a segment has, too, the rarer the more (by how many segments have it)
 *     mean      the share of its attention that the segment gets, mean of all layers and heads
 *     peak      the same, of the layer and head where that is the most
 *     -rest     less what a question about nothing in it gives the segment: some draw attention
 *               whatever is asked, the first one most of all
 *     sum       lexical and mean-rest, each divided by its largest
 *
 * A line for each: how often the right segment is the first, among the first two, its mean rank.
 */
#include "tests/support/encoded.h"
#include "tests/support/memory_rig.h"

#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEGMENTS_MAX 64u
#define IDS_MAX      (1u << 20)
#define BATCH        256u
#define QUESTION_MAX 96u

enum way { LEXICAL, MEAN, PEAK, MEAN_REST, PEAK_REST, SUM, WAYS };
static const char *const names[WAYS] = {
    "lexical", "mean", "peak", "mean-rest", "peak-rest", "sum"
};

struct bench {
    struct memory_rig rig;
    struct vocab *vocab;
    struct policy policy;
    uint32_t n_segments, n_items, n_lists;
    bool many; /* codes in all segments */
    uint32_t *text, n_text;
    void *shares; /* the backend's: (n_lists, n_segments) */
    size_t shares_bytes;
};

struct ids {
    uint32_t n, ids[QUESTION_MAX];
};

static uint32_t encode(const struct bench *b, const char *text, uint32_t max, uint32_t *ret)
{
    int n = encoded_ids(b->vocab, text, false, ret, max);

    if (n < 0)
        errx(1, "%s", strerror(-n));
    return (uint32_t)n;
}

static void read_text(struct bench *b, const char *path)
{
    int n;

    b->text = malloc(IDS_MAX * sizeof(*b->text));
    n = b->text ? encoded_file(b->vocab, path, b->text, IDS_MAX) : -ENOMEM;
    if (n < 0)
        errx(1, "%s: %s", path, strerror(-n));
    b->n_text = (uint32_t)n;
}

/* --- items ------------------------------------------------------------------------------------ */

static const char *const things[] = {
    "lighthouse", "observatory", "granary",  "ferry",   "chapel",
    "quarry",     "vineyard",    "aqueduct", "foundry", "arsenal"
};
static const char *const towns[] = {
    "Easton", "Westford", "Northam", "Sutton", "Harwick", "Linford"
};

static void name_of(uint32_t i, char ret[64])
{
    (void)snprintf(ret, 64, "%s of %s", things[i % 10], towns[i / 10 % 6]);
}

/* At a quarter, half or three quarters of the segment. */
static void hide(const struct bench *b, uint32_t item, uint32_t segment, uint32_t *ids)
{
    uint32_t len = b->policy.seg_len, at = segment * len + len * (1 + (item + segment) % 3) / 4;
    uint32_t needle[QUESTION_MAX], n;
    char name[64], text[256];

    name_of(item * 7 + segment, name);
    (void)snprintf(text, sizeof(text), " The entry code of the %s is %u. ", name,
                   1000000 + (item * 7919 + segment * 104729) * 37 % 9000000);
    n = encode(b, text, QUESTION_MAX, needle);
    memcpy(ids + at, needle, n * sizeof(*needle));
}

static void question(const struct bench *b, const char *of, struct ids *ret)
{
    char text[256];

    (void)snprintf(text, sizeof(text),
                   "\n\nQuestion: What is the entry code of the %s?\nAnswer: The entry code is",
                   of);
    ret->n = encode(b, text, QUESTION_MAX, ret->ids);
}

/* --- scores ----------------------------------------------------------------------------------- */

static bool has(const uint32_t *ids, uint32_t n, uint32_t id)
{
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

static void lexical(const struct bench *b, const uint32_t *ids, const struct ids *q, double *ret)
{
    uint32_t len = b->policy.seg_len;

    memset(ret, 0, b->n_segments * sizeof(*ret));
    for (uint32_t i = 0; i < q->n; i++) {
        uint32_t n_with = 0;

        if (has(q->ids, i, q->ids[i]))
            continue;
        for (uint32_t s = 0; s < b->n_segments; s++)
            n_with += has(ids + s * len, len, q->ids[i]);
        for (uint32_t s = 0; n_with > 0 && s < b->n_segments; s++)
            if (has(ids + s * len, len, q->ids[i]))
                ret[s] += log((b->n_segments + 1.0) / n_with);
    }
}

/* What a prompt looks at, behind a memory that stays as it is: (n_lists, n_segments), a token. */
static void look(struct bench *b, struct memory *m, const struct ids *q, float *ret)
{
    size_t n = (size_t)b->n_lists * b->n_segments;
    struct forward_run run = {
        .seq = m->seq, .tokens = q->ids, .n_tokens = q->n, .look = { b->shares, b->n_segments }
    };
    uint32_t n_had = m->seq->n_tokens, n_out;

    memset(ret, 0, n * sizeof(*ret));
    if (backend_put(b->rig.rig.backend, b->shares, ret, n * sizeof(*ret)) < 0 ||
        seq_reserve(m->seq, q->n) < 0 ||
        forward_step(&b->rig.rig.forward, &run, 1, NULL, &n_out) < 0 ||
        backend_get(b->rig.rig.backend, ret, b->shares, n * sizeof(*ret)) < 0)
        errx(1, "no room for a question");
    (void)seq_rewind(m->seq, n_had);
    for (size_t i = 0; i < n; i++)
        ret[i] /= (float)q->n;
}

static void attention(const struct bench *b, const float *shares, const float *rest, double *mean,
                      double *peak)
{
    for (uint32_t s = 0; s < b->n_segments; s++) {
        mean[s] = 0;
        peak[s] = -INFINITY;
        for (uint32_t i = 0; i < b->n_lists; i++) {
            size_t at = (size_t)i * b->n_segments + s;
            double x = shares[at] - (rest ? rest[at] : 0);

            mean[s] += x / b->n_lists;
            peak[s] = fmax(peak[s], x);
        }
    }
}

static double largest(const double *x, uint32_t n)
{
    double most = 0;

    for (uint32_t i = 0; i < n; i++)
        most = fmax(most, x[i]);
    return most > 0 ? most : 1;
}

/* 1 is the first. */
static uint32_t rank_of(const double *x, uint32_t n, uint32_t right)
{
    uint32_t rank = 1;

    for (uint32_t i = 0; i < n; i++)
        rank += i != right && x[i] >= x[right];
    return rank;
}

struct result {
    uint32_t n_first, n_two, ranks;
};

static void run_item(struct bench *b, uint32_t item, struct result ret[WAYS])
{
    uint32_t n = b->n_segments * b->policy.seg_len, right = item * 5 % b->n_segments;
    size_t n_shares = (size_t)b->n_lists * b->n_segments;
    float *shares = malloc(2 * n_shares * sizeof(*shares));
    uint32_t *ids = malloc((n + 1) * sizeof(*ids));
    double x[WAYS][SEGMENTS_MAX];
    struct ids q, nothing;
    struct memory m;
    struct seq seq;
    char name[64];

    if (!shares || !ids)
        errx(1, "no memory");
    memcpy(ids, b->text + (size_t)item * n % (b->n_text - n), n * sizeof(*ids));
    for (uint32_t s = 0; s < b->n_segments; s++)
        if (b->many || s == right)
            hide(b, item, s, ids);
    name_of(item * 7 + right, name);
    question(b, name, &q);
    question(b, "thing", &nothing);
    if (rig_seq(&b->rig.rig, n + BATCH, b->policy.seg_len, 0, &seq) < 0 ||
        memory_init(&m, &b->policy, &b->rig.served, &seq) < 0 ||
        memory_rig_feed(&b->rig, &m, ids, n, BATCH, NULL) < 0)
        errx(1, "no room for %u tokens", n);
    memory_settle(&m, NULL);
    look(b, &m, &q, shares);
    look(b, &m, &nothing, shares + n_shares);
    lexical(b, ids, &q, x[LEXICAL]);
    attention(b, shares, NULL, x[MEAN], x[PEAK]);
    attention(b, shares, shares + n_shares, x[MEAN_REST], x[PEAK_REST]);
    for (uint32_t s = 0; s < b->n_segments; s++)
        x[SUM][s] = x[LEXICAL][s] / largest(x[LEXICAL], b->n_segments) +
                    x[MEAN_REST][s] / largest(x[MEAN_REST], b->n_segments);
    for (int w = 0; w < WAYS; w++) {
        uint32_t rank = rank_of(x[w], b->n_segments, right);

        ret[w].n_first += rank == 1;
        ret[w].n_two += rank <= 2;
        ret[w].ranks += rank;
    }
    memory_fini(&m);
    seq_close(&seq);
    free(shares);
    free(ids);
}

static enum compress_method method_of(const char *name)
{
    for (int i = 0; i < COMPRESS__N; i++)
        if (strcmp(compress_name((enum compress_method)i), name) == 0)
            return (enum compress_method)i;
    errx(1, "there is no compressor %s", name);
}

static void options(int argc, char **argv, struct bench *b, struct rig_opts *opts)
{
    struct policy *p = &b->policy;
    int c;

    while ((c = getopt(argc, argv, "t:n:s:L:c:r:k")) != -1) {
        if (c == 't')
            opts->threads = (uint32_t)atoi(optarg);
        else if (c == 'n')
            b->n_items = (uint32_t)atoi(optarg);
        else if (c == 's')
            b->n_segments = (uint32_t)atoi(optarg);
        else if (c == 'L')
            p->seg_len = (uint32_t)atoi(optarg);
        else if (c == 'c')
            p->spec.method = method_of(optarg);
        else if (c == 'r')
            p->spec.ratio = (uint32_t)atoi(optarg);
        else if (c == 'k')
            b->many = true;
        else
            errx(1, "see the head of bench/ranking.c");
    }
    if (optind + 2 != argc || b->n_segments < 2 || b->n_segments > SEGMENTS_MAX || b->n_items == 0)
        errx(1, "see the head of bench/ranking.c");
}

static void open_all(struct bench *b, struct rig_opts *opts, const char *text)
{
    uint32_t n = b->n_segments * b->policy.seg_len;
    struct why why = { "" };

    if (!seq_takes_segments(b->policy.seg_len))
        errx(1, "segments of %u tokens are not possible", b->policy.seg_len);
    if (compress_check(&b->policy.spec, b->policy.seg_len, &why) < 0)
        errx(1, "%s", why.text);
    opts->max_tokens = n + 2 * b->policy.seg_len + 2 * BATCH;
    b->policy.budget = opts->max_tokens;
    if (memory_rig_open(&b->rig, opts, &why) < 0 ||
        vocab_open(b->rig.rig.model->file, &b->vocab, &why) < 0)
        errx(1, "%s", why.text);
    b->n_lists = b->rig.rig.model->n_layer * b->rig.rig.model->n_head;
    b->shares_bytes = (size_t)b->n_lists * b->n_segments * sizeof(float);
    if (backend_alloc(b->rig.rig.backend, b->shares_bytes, &b->shares) < 0)
        errx(1, "no memory");
    read_text(b, text);
    if (b->n_text <= n)
        errx(1, "%s has %u tokens; more than %u are needed", text, b->n_text, n);
}

int main(int argc, char **argv)
{
    struct bench b = { .n_segments = 8, .n_items = 20 };
    struct rig_opts opts = { .cpu = "auto", .kv = KV_F16, .threads = 2, .max_batch = BATCH };
    struct result results[WAYS] = { { 0 } };

    b.policy = (struct policy){ .spec = { COMPRESS_SELECT, 8, COMPRESS_SINKS, NULL },
                                .seg_len = SEQ_SEGMENT_DEFAULT };
    options(argc, argv, &b, &opts);
    opts.model = argv[optind];
    open_all(&b, &opts, argv[optind + 1]);
    for (uint32_t i = 0; i < b.n_items; i++) {
        run_item(&b, i, results);
        (void)fprintf(stderr, "\r%u of %u", i + 1, b.n_items);
    }
    (void)fputs("\n", stderr);
    for (int w = 0; w < WAYS; w++)
        printf("%-10s first %3u of %u, in two %3u, mean rank %.2f of %u\n", names[w],
               results[w].n_first, b.n_items, results[w].n_two,
               (double)results[w].ranks / b.n_items, b.n_segments);
    backend_free(b.rig.rig.backend, b.shares, b.shares_bytes);
    free(b.text);
    vocab_close(b.vocab);
    memory_rig_close(&b.rig);
    return 0;
}
