/* bench/documents.c - what an answer loses when documents were read alone.
 *
 *     documents [-t THREADS] [-n FACTS] [-L SEGMENT] MODEL [TEXT]
 *
 * Two documents, A and B, are lists of FACTS (40) sentences "The access code of X is N." with other
 * sentences between them. Questions about both are asked behind A and B read in one go, behind B as
 * it was read alone and put behind A (seq_adopt_behind), the other way round, and behind the other
 * document only, to see what an answer is worth that was guessed. A line each:
 *
 *     in one go, A B       A 10/10 -0.01   B 10/10 -0.01
 *
 * right answers (every token is the likeliest one), and the mean log-probability of their tokens.
 * With TEXT, a file of prose, also its perplexity: of what follows two pieces of it, the second
 * read behind the first, alone and put behind it, and without the first.
 */
#include "tests/support/encoded.h"
#include "tests/support/rig.h"

#include <err.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TOKENS   16384u
#define BATCH        256u
#define QUESTIONS    10u
#define PIECE        800u /* tokens of TEXT: two of them, and half of one behind them */
#define QUERY_MAX    128u
#define TEXT_LETTERS (1u << 16)

struct bench {
    struct rig rig;
    struct vocab *vocab;
    uint32_t n_facts, seg_len;
    float *logits; /* (PIECE, n_vocab) */
};

struct ids {
    uint32_t n, ids[MAX_TOKENS];
};

struct result {
    uint32_t n_right, n_tokens;
    double logprob;
};

static void encode(const struct bench *b, const char *text, struct ids *ret)
{
    int n = encoded_ids(b->vocab, text, false, ret->ids, MAX_TOKENS);

    if (n < 0)
        errx(1, "%s", strerror(-n));
    ret->n = (uint32_t)n;
}

/* --- sequences -------------------------------------------------------------------------------- */

static void open_seq(struct bench *b, struct seq *s)
{
    if (rig_seq(&b->rig, MAX_TOKENS, b->seg_len, 0, s) < 0)
        errx(1, "no memory for a sequence");
}

static void read_ids(struct bench *b, struct seq *s, const uint32_t *ids, uint32_t n)
{
    for (uint32_t at = 0, k; at < n; at += k) {
        k = n - at < BATCH ? n - at : BATCH;
        if (rig_feed(&b->rig, s, ids + at, k, BATCH, b->logits) < 0)
            errx(1, "no room for %u tokens", n);
    }
}

static void put_behind(struct bench *b, struct seq *s, const struct ids *doc)
{
    struct seq alone;

    open_seq(b, &alone);
    read_ids(b, &alone, doc->ids, doc->n);
    if (seq_adopt_behind(s, &alone, doc->n) < 0)
        errx(1, "no room behind a document");
    seq_close(&alone);
}

/* Log-probabilities of the last n_answer of n ids behind the sequence, which is as before then. */
static void ask(struct bench *b, const struct seq *s, const uint32_t *ids, uint32_t n,
                uint32_t n_answer, struct result *ret)
{
    uint32_t n_vocab = b->rig.model->n_vocab;
    bool right = true;
    struct seq fork;

    if (seq_fork(s, &fork) < 0 || rig_feed(&b->rig, &fork, ids, n - 1, BATCH, b->logits) < 0)
        errx(1, "no room for a question");
    for (uint32_t i = n - n_answer; i < n; i++) {
        const float *row = b->logits + (size_t)(i - 1) * n_vocab;
        uint32_t best = 0;

        for (uint32_t k = 1; k < n_vocab; k++)
            if (row[k] > row[best])
                best = k;
        right &= best == ids[i];
        ret->logprob += rig_logprob(row, n_vocab, ids[i]);
        ret->n_tokens++;
    }
    ret->n_right += right;
    seq_close(&fork);
}

/* --- facts ------------------------------------------------------------------------------------ */

static const char *const colours[] = { "red",  "blue",   "green", "white", "black",
                                       "grey", "yellow", "brown", "pink",  "purple" };
static const char *const places[] = { "tower", "harbour", "library", "garden", "station",
                                      "mill",  "bridge",  "school",  "market", "castle" };
static const char *const others[] = {
    "It was built long before anybody kept a record of such things.",
    "Visitors are asked to leave by the north gate in the evening.",
    "The keeper writes down who comes and who goes, and nothing else.",
    "In winter the road to it is closed for some weeks.",
};

static unsigned code_of(uint32_t doc, uint32_t fact)
{
    return 1000 + (doc * 4273 + fact * 7919 + 577) % 9000;
}

static void name_of(uint32_t doc, uint32_t fact, char ret[64])
{
    (void)snprintf(ret, 64, "%s %s of %s", colours[fact % 10], places[fact / 10 % 10],
                   doc ? "Westford" : "Easton");
}

static void write_facts(const struct bench *b, uint32_t doc, struct ids *ret)
{
    static char text[TEXT_LETTERS];
    size_t n = 0;
    char name[64];

    n += (size_t)snprintf(text, sizeof(text), "Register of %s.\n", doc ? "Westford" : "Easton");
    for (uint32_t i = 0; i < b->n_facts && n + 400 < sizeof(text); i++) {
        name_of(doc, i, name);
        n += (size_t)snprintf(text + n, sizeof(text) - n, "The access code of the %s is %u. %s\n",
                              name, code_of(doc, i), others[i % 4]);
    }
    encode(b, text, ret);
}

static struct result ask_all(struct bench *b, const struct seq *s, uint32_t doc)
{
    static struct ids question, whole;
    struct result ret = { 0 };

    for (uint32_t q = 0; q < QUESTIONS; q++) {
        uint32_t fact = q * b->n_facts / QUESTIONS;
        char name[64], text[256];
        int n;

        name_of(doc, fact, name);
        n = snprintf(text, sizeof(text),
                     "\nQuestion: What is the access code of the %s?\nAnswer: The access code of "
                     "the %s is",
                     name, name);
        encode(b, text, &question);
        (void)snprintf(text + n, sizeof(text) - (size_t)n, " %u", code_of(doc, fact));
        encode(b, text, &whole);
        if (whole.n > QUERY_MAX)
            errx(1, "a question of %u tokens", whole.n);
        ask(b, s, whole.ids, whole.n, whole.n - question.n, &ret);
    }
    return ret;
}

static void print_facts(struct bench *b, const char *name, struct seq *s)
{
    struct result r[2] = { ask_all(b, s, 0), ask_all(b, s, 1) };

    printf("%-28s", name);
    for (int i = 0; i < 2; i++)
        printf("   %c %2u/%u %6.3f", 'A' + i, r[i].n_right, QUESTIONS,
               r[i].logprob / r[i].n_tokens);
    printf("\n");
    (void)fflush(stdout);
    seq_close(s);
}

static void facts(struct bench *b)
{
    static struct ids docs[2];
    struct seq s;

    write_facts(b, 0, &docs[0]);
    write_facts(b, 1, &docs[1]);
    printf("A %u tokens, B %u tokens, segments of %u\n", docs[0].n, docs[1].n, b->seg_len);
    for (int first = 0; first < 2; first++) {
        const struct ids *x = &docs[first], *y = &docs[!first];

        open_seq(b, &s);
        read_ids(b, &s, x->ids, x->n);
        read_ids(b, &s, y->ids, y->n);
        print_facts(b, first ? "in one go, B A" : "in one go, A B", &s);
        open_seq(b, &s);
        read_ids(b, &s, x->ids, x->n);
        put_behind(b, &s, y);
        print_facts(b, first ? "read alone, B A" : "read alone, A B", &s);
        open_seq(b, &s);
        read_ids(b, &s, x->ids, x->n);
        print_facts(b, first ? "only B" : "only A", &s);
    }
}

/* --- prose ------------------------------------------------------------------------------------ */

static void print_prose(struct bench *b, const char *name, struct seq *s, const uint32_t *ids)
{
    struct result r = { 0 };

    ask(b, s, ids, PIECE / 2, PIECE / 2 - 1, &r);
    printf("%-28s   perplexity %.3f of %u tokens\n", name, exp(-r.logprob / r.n_tokens),
           r.n_tokens);
    (void)fflush(stdout);
    seq_close(s);
}

static void prose(struct bench *b, const char *path)
{
    static struct ids text, second;
    struct seq s;
    int n = encoded_file(b->vocab, path, text.ids, MAX_TOKENS);

    if (n < 0)
        errx(1, "%s: %s", path, strerror(-n));
    text.n = (uint32_t)n;
    if (text.n < 2 * PIECE + PIECE / 2)
        errx(1, "%s has %u tokens; %u are needed", path, text.n, 2 * PIECE + PIECE / 2);
    second.n = PIECE;
    memcpy(second.ids, text.ids + PIECE, PIECE * sizeof(*text.ids));
    open_seq(b, &s);
    read_ids(b, &s, text.ids, 2 * PIECE);
    print_prose(b, "in one go", &s, text.ids + 2 * PIECE);
    open_seq(b, &s);
    read_ids(b, &s, text.ids, PIECE);
    put_behind(b, &s, &second);
    print_prose(b, "the second read alone", &s, text.ids + 2 * PIECE);
    open_seq(b, &s);
    read_ids(b, &s, second.ids, PIECE);
    print_prose(b, "only the second", &s, text.ids + 2 * PIECE);
    open_seq(b, &s);
    read_ids(b, &s, text.ids, PIECE);
    print_prose(b, "only the first", &s, text.ids + 2 * PIECE);
}

int main(int argc, char **argv)
{
    struct bench b = { .n_facts = 40, .seg_len = SEQ_SEGMENT_DEFAULT };
    struct rig_opts opts = {
        .cpu = "auto", .kv = KV_F16, .threads = 2, .max_batch = BATCH, .max_tokens = 2 * MAX_TOKENS
    };
    struct why why = { "" };
    int c;

    while ((c = getopt(argc, argv, "t:n:L:")) != -1) {
        if (c == 't')
            opts.threads = (uint32_t)atoi(optarg);
        else if (c == 'n')
            b.n_facts = (uint32_t)atoi(optarg);
        else if (c == 'L')
            b.seg_len = (uint32_t)atoi(optarg);
        else
            errx(1, "see the head of bench/documents.c");
    }
    if (optind >= argc || b.n_facts < QUESTIONS || b.n_facts > 100 ||
        !seq_takes_segments(b.seg_len))
        errx(1, "documents [-t THREADS] [-n FACTS, 10 to 100] [-L SEGMENT] MODEL [TEXT]");
    opts.model = argv[optind];
    if (rig_open(&b.rig, &opts, &why) < 0 || vocab_open(b.rig.model->file, &b.vocab, &why) < 0)
        errx(1, "%s", why.text);
    b.logits = malloc((size_t)PIECE * b.rig.model->n_vocab * sizeof(float));
    if (!b.logits)
        errx(1, "no memory");
    facts(&b);
    if (optind + 1 < argc)
        prose(&b, argv[optind + 1]);
    free(b.logits);
    vocab_close(b.vocab);
    rig_close(&b.rig);
    return 0;
}
