/* bench/ranking.c - which packed segment does a question point to?
 *
 *     ranking [-t THREADS] [-n ITEMS] [-s SEGMENTS] [-L SEGMENT] [-c NAME] [-r RATIO] [-k] [-w]
 *             MODEL TEXT
 *
 * Each of ITEMS (20) is a part of TEXT, SEGMENTS (8) of SEGMENT (512) tokens, with a sentence in
 * one of them that says a code; with -k in each of them, of other things. Compressed by NAME
 * (select) at RATIO (8), it is asked for the code; with -w in other words than those that the
 * sentence has. What ranks the segments for the question:
 *
 *     lexical   its ids that a segment has, too, the rarer the more (by how many segments have it)
 *     words     as the daemon does it (daemon/rank.h)
 *     mean      the share of its attention that the segment's gists get, mean of all layers and
 *               heads
 *     peak      the same, of the layer and head where that is the most
 *     pages     key summaries (Quest, arXiv 2406.10774): of the raw keys of a page of 16 the least
 *               and the most in each dimension, so that a query's product with any of them is at
 *               most the sum of the larger of its two products. The four pages where that is the
 *               most are a query's; what counts is which share of them the segment has, mean of all
 *               layers and heads
 *     pages-peak  the same, of the layer and head where that is the most
 *     -rest     less what a question about nothing in it gives the segment: some draw attention
 *               whatever is asked, the first one most of all
 *     a+b       each divided by its largest
 *
 * A line for each: how often the right segment is the first, among the first two, its mean rank.
 */
#include "daemon/rank.h"
#include "engine/cpu/kv.h"
#include "engine/kv/rotary.h"
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

/* Pages that count for a query. */
#define BEST_PAGES 4u

enum way {
    LEXICAL,
    WORDS,
    MEAN,
    PEAK,
    MEAN_REST,
    PEAK_REST,
    PAGES,
    PAGES_PEAK,
    PAGES_REST,
    PAGES_PEAK_REST,
    WORDS_MEAN,
    WORDS_PAGES,
    MEAN_PAGES,
    ALL,
    WAYS
};
static const char *const names[WAYS] = {
    [LEXICAL] = "lexical",
    [WORDS] = "words",
    [MEAN] = "mean",
    [PEAK] = "peak",
    [MEAN_REST] = "mean-rest",
    [PEAK_REST] = "peak-rest",
    [PAGES] = "pages",
    [PAGES_PEAK] = "pages-peak",
    [PAGES_REST] = "pages-rest",
    [PAGES_PEAK_REST] = "pages-peak-rest",
    [WORDS_MEAN] = "words+mean-rest",
    [WORDS_PAGES] = "words+pages-rest",
    [MEAN_PAGES] = "mean-rest+pages-rest",
    [ALL] = "all three",
};

struct bench {
    struct memory_rig rig;
    struct vocab *vocab;
    struct policy policy;
    struct rank_words *words;
    struct rotary rotary;
    uint32_t n_segments, n_items, n_lists;
    bool many;        /* codes in all segments */
    bool other_words; /* of questions */
    uint32_t *text, n_text;
    void *shares; /* the backend's: (n_lists, n_segments) */
    size_t shares_bytes;
    void *asked; /* the backend's: queries of a question, (n_kv, n_asked, ASKED_FLOATS) */
    size_t asked_bytes;
    uint32_t n_kv, n_asked, hd, n_pages; /* layers by KV heads; n_pages: of all segments */
    float *least, *most;                 /* (n_pages, n_kv, hd), of raw keys */
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

/* The same things, in other words. */
static const char *const meant[] = { "tower whose lamp guides ships",
                                     "place from which stars are watched",
                                     "barn for wheat",
                                     "boat that takes people across",
                                     "small church",
                                     "pit where stones are cut",
                                     "hill where grapes grow",
                                     "bridge that carries water",
                                     "hall where iron is cast",
                                     "store of weapons" };

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
    const char *what = b->other_words
                           ? "\n\nQuestion: Which number opens the door at the %s?\nAnswer: It is"
                           : "\n\nQuestion: What is the entry code of the %s?\nAnswer: The entry "
                             "code is";
    char text[256];

    (void)snprintf(text, sizeof(text), what, of);
    ret->n = encode(b, text, QUESTION_MAX, ret->ids);
}

/* Of what the item hides in the segment. */
static void question_of(const struct bench *b, uint32_t item, uint32_t segment, struct ids *ret)
{
    uint32_t i = item * 7 + segment;
    char name[64];

    name_of(i, name);
    question(b, b->other_words ? meant[i % 10] : name, ret);
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

static void words(const struct bench *b, const uint32_t *ids, const struct ids *q, double *ret)
{
    const struct rank_text t = { .ids = ids,
                                 .seg_len = b->policy.seg_len,
                                 .n_segments = b->n_segments,
                                 .prompt = q->ids,
                                 .n_prompt = q->n };
    float score[SEGMENTS_MAX];

    if (rank_score(b->words, &t, score) < 0)
        errx(1, "no memory");
    for (uint32_t s = 0; s < b->n_segments; s++)
        ret[s] = score[s];
}

/* --- key summaries ---------------------------------------------------------------------------- */

/* Of a segment that is raw. */
static void summarize(struct bench *b, const struct seq *s, uint32_t segment)
{
    const struct pool *p = s->pool;
    uint32_t n = b->policy.seg_len / POOL_PAGE_TOKENS, n_head_kv = b->rig.rig.model->n_head_kv;
    float keys[256 * POOL_PAGE_TOKENS];

    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *page = (const uint8_t *)backend_host(p->backend, p->mem) +
                              (size_t)seq_pages(s, segment)[i] * p->page_bytes;

        for (uint32_t list = 0; list < b->n_kv; list++) {
            size_t at = (((size_t)segment * n + i) * b->n_kv + list) * b->hd;

            kv_read_keys(p->kv, page + pool_k_off(p, list / n_head_kv, list % n_head_kv), b->hd,
                         keys);
            for (uint32_t d = 0; d < b->hd; d++) {
                const float *k = keys + (size_t)d * POOL_PAGE_TOKENS;

                b->least[at + d] = b->most[at + d] = k[0];
                for (uint32_t t = 1; t < POOL_PAGE_TOKENS; t++) {
                    b->least[at + d] = fminf(b->least[at + d], k[t]);
                    b->most[at + d] = fmaxf(b->most[at + d], k[t]);
                }
            }
        }
    }
}

/* A query, turned by its offset in its segment, as it stands before another one. */
static void turn(const struct bench *b, const float *q, uint32_t by, float *ret)
{
    uint32_t h = b->hd / 2;
    float scratch[256];
    const float *r = rotary_by(&b->rotary, by, scratch);

    for (uint32_t i = 0; i < h; i++) {
        ret[i] = q[i] * r[i] - q[h + i] * r[h + i];
        ret[h + i] = q[h + i] * r[i] + q[i] * r[h + i];
    }
}

/* The segments of the pages that a query may have most to do with, a part each. What draws all
 * attention that has no aim, the first page, is left out. */
static void vote(const struct bench *b, const struct seq *s, uint32_t list, const float *q,
                 double *ret)
{
    uint32_t n = b->n_pages / b->n_segments, of[BEST_PAGES] = { 0 };
    float best[BEST_PAGES], own[256];

    for (uint32_t k = 0; k < BEST_PAGES; k++)
        best[k] = -INFINITY;
    for (uint32_t i = 1; i < b->n_pages; i++) {
        size_t at = ((size_t)i * b->n_kv + list) * b->hd;
        uint32_t segment = i / n, k = BEST_PAGES;
        float sum = 0;

        if (i == 1 || i % n == 0)
            turn(b, q, s->segments[b->n_segments].base - s->segments[segment].base, own);
        for (uint32_t d = 0; d < b->hd; d++)
            sum += fmaxf(own[d] * b->least[at + d], own[d] * b->most[at + d]);
        for (; k > 0 && sum > best[k - 1]; k--)
            if (k < BEST_PAGES) {
                best[k] = best[k - 1];
                of[k] = of[k - 1];
            }
        if (k < BEST_PAGES) {
            best[k] = sum;
            of[k] = segment;
        }
    }
    for (uint32_t k = 0; k < BEST_PAGES; k++)
        ret[of[k]] += 1.0 / BEST_PAGES;
}

/* (n_lists, n_segments), as look() has it: by the queries that it left. */
static void pages(struct bench *b, const struct seq *s, uint32_t n_tokens, float *ret)
{
    const struct model *m = b->rig.rig.model;
    const float *all = backend_host(b->rig.rig.backend, b->asked);
    uint32_t group = m->n_head / m->n_head_kv;

    for (uint32_t i = 0; i < b->n_lists; i++) {
        uint32_t list = i / m->n_head * m->n_head_kv + i % m->n_head / group;
        double votes[SEGMENTS_MAX] = { 0 };

        for (uint32_t t = 0; t < n_tokens; t++)
            vote(b, s, list,
                 all + ((size_t)list * b->n_asked + t * group + i % group) * ASKED_FLOATS(b->hd),
                 votes);
        for (uint32_t k = 0; k < b->n_segments; k++)
            ret[(size_t)i * b->n_segments + k] = (float)(votes[k] / n_tokens);
    }
}

/* --- attention -------------------------------------------------------------------------------- */

/* What a prompt looks at, behind a memory that stays as it is: (n_lists, n_segments), a token; and
 * the same by the pages of the raw keys. */
static void look(struct bench *b, struct memory *m, const struct ids *q, float *ret,
                 float *ret_pages)
{
    size_t n = (size_t)b->n_lists * b->n_segments;
    struct forward_run run = { .seq = m->seq,
                               .tokens = q->ids,
                               .n_tokens = q->n,
                               .look = { b->shares, b->n_segments },
                               .asked = { b->asked, b->n_asked, 1, 1, b->n_segments } };
    uint32_t n_had = m->seq->n_tokens, n_out;

    memset(ret, 0, n * sizeof(*ret));
    if (backend_put(b->rig.rig.backend, b->shares, ret, n * sizeof(*ret)) < 0 ||
        seq_reserve(m->seq, q->n) < 0 ||
        forward_step(&b->rig.rig.forward, &run, 1, NULL, &n_out) < 0 ||
        backend_get(b->rig.rig.backend, ret, b->shares, n * sizeof(*ret)) < 0)
        errx(1, "no room for a question");
    pages(b, m->seq, q->n, ret_pages);
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

static void add(const struct bench *b, const double *x, double *ret)
{
    for (uint32_t s = 0; s < b->n_segments; s++)
        ret[s] += x[s] / largest(x, b->n_segments);
}

static void combine(const struct bench *b, double x[WAYS][SEGMENTS_MAX])
{
    static const struct {
        enum way way, of;
    } parts[] = { { WORDS_MEAN, WORDS },
                  { WORDS_MEAN, MEAN_REST },
                  { WORDS_PAGES, WORDS },
                  { WORDS_PAGES, PAGES_REST },
                  { MEAN_PAGES, MEAN_REST },
                  { MEAN_PAGES, PAGES_REST },
                  { ALL, WORDS },
                  { ALL, MEAN_REST },
                  { ALL, PAGES_REST } };

    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++)
        memset(x[parts[i].way], 0, sizeof(x[0]));
    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++)
        add(b, x[parts[i].of], x[parts[i].way]);
}

/* The item's text, with what it hides. */
static void make_text(const struct bench *b, uint32_t item, uint32_t right, uint32_t *ids)
{
    uint32_t n = b->n_segments * b->policy.seg_len;

    memcpy(ids, b->text + (size_t)item * n % (b->n_text - n), n * sizeof(*ids));
    for (uint32_t s = 0; s < b->n_segments; s++)
        if (b->many || s == right)
            hide(b, item, s, ids);
}

/* A segment is raw from its last token on until the next one is read. */
static void read_all(struct bench *b, struct memory *m, const uint32_t *ids)
{
    uint32_t len = b->policy.seg_len;

    for (uint32_t s = 0; s < b->n_segments; s++) {
        if (memory_rig_feed(&b->rig, m, ids + (size_t)s * len, len, BATCH, NULL) < 0)
            errx(1, "no room for %u tokens", (s + 1) * len);
        summarize(b, m->seq, s);
    }
    if (memory_rig_settle(&b->rig, m, BATCH) < 0)
        errx(1, "no room for the last segment");
}

static void run_item(struct bench *b, uint32_t item, struct result ret[WAYS])
{
    uint32_t n = b->n_segments * b->policy.seg_len, right = item * 5 % b->n_segments;
    size_t n_shares = (size_t)b->n_lists * b->n_segments;
    float *shares = malloc(4 * n_shares * sizeof(*shares)), *rest = shares + n_shares;
    float *of_pages = rest + n_shares, *pages_rest = of_pages + n_shares;
    uint32_t *ids = malloc((n + 1) * sizeof(*ids));
    double x[WAYS][SEGMENTS_MAX];
    struct ids q, nothing;
    struct memory m;
    struct seq seq;

    if (!shares || !ids)
        errx(1, "no memory");
    make_text(b, item, right, ids);
    question_of(b, item, right, &q);
    question(b, "thing", &nothing);
    if (rig_seq(&b->rig.rig, n + BATCH, b->policy.seg_len, 0, &seq) < 0 ||
        memory_init(&m, &b->policy, &b->rig.served, &seq) < 0)
        errx(1, "no room for %u tokens", n);
    read_all(b, &m, ids);
    look(b, &m, &q, shares, of_pages);
    look(b, &m, &nothing, rest, pages_rest);
    lexical(b, ids, &q, x[LEXICAL]);
    words(b, ids, &q, x[WORDS]);
    attention(b, shares, NULL, x[MEAN], x[PEAK]);
    attention(b, shares, rest, x[MEAN_REST], x[PEAK_REST]);
    attention(b, of_pages, NULL, x[PAGES], x[PAGES_PEAK]);
    attention(b, of_pages, pages_rest, x[PAGES_REST], x[PAGES_PEAK_REST]);
    combine(b, x);
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

    while ((c = getopt(argc, argv, "t:n:s:L:c:r:kw")) != -1) {
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
        else if (c == 'w')
            b->other_words = true;
        else
            errx(1, "see the head of bench/ranking.c");
    }
    if (optind + 2 != argc || b->n_segments < 2 || b->n_segments > SEGMENTS_MAX || b->n_items == 0)
        errx(1, "see the head of bench/ranking.c");
}

static void open_all(struct bench *b, struct rig_opts *opts, const char *text)
{
    uint32_t n = b->n_segments * b->policy.seg_len;
    const struct model *m;
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
    m = b->rig.rig.model;
    b->n_lists = m->n_layer * m->n_head;
    b->n_kv = m->n_layer * m->n_head_kv;
    b->n_asked = QUESTION_MAX * (m->n_head / m->n_head_kv);
    b->hd = m->head_dim;
    b->n_pages = n / POOL_PAGE_TOKENS;
    b->shares_bytes = (size_t)b->n_lists * b->n_segments * sizeof(float);
    b->asked_bytes = (size_t)b->n_kv * b->n_asked * ASKED_FLOATS(b->hd) * sizeof(float);
    b->least = malloc((size_t)b->n_pages * b->n_kv * b->hd * sizeof(float));
    b->most = malloc((size_t)b->n_pages * b->n_kv * b->hd * sizeof(float));
    if (backend_alloc(b->rig.rig.backend, b->shares_bytes, &b->shares) < 0 ||
        backend_alloc(b->rig.rig.backend, b->asked_bytes, &b->asked) < 0 ||
        rotary_open(&b->rotary, m->rope_freq, m->head_dim) < 0 ||
        rank_open(b->vocab, &b->words) < 0 || !b->least || !b->most)
        errx(1, "no memory");
    if (b->hd > 256 || !backend_host(b->rig.rig.backend, b->asked))
        errx(1, "key summaries are made by the host, of heads of up to 256");
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
        printf("%-20s first %3u of %u, in two %3u, mean rank %.2f of %u\n", names[w],
               results[w].n_first, b.n_items, results[w].n_two,
               (double)results[w].ranks / b.n_items, b.n_segments);
    backend_free(b.rig.rig.backend, b.shares, b.shares_bytes);
    backend_free(b.rig.rig.backend, b.asked, b.asked_bytes);
    rank_close(b.words);
    rotary_close(&b.rotary);
    free(b.least);
    free(b.most);
    free(b.text);
    vocab_close(b.vocab);
    memory_rig_close(&b.rig);
    return 0;
}
