/* bench/passages.c - does the passage with the answer come back?
 *
 *     passages [-b BUDGET] [-L SEGMENT] [-T TAIL] [-v] MODEL TEXT QUESTIONS
 *
 * A session with automatic memory and a BUDGET (the model's window) has read TEXT, and each line of
 * QUESTIONS, "question <tab> expression", is a prompt: what would be brought back for it, by its
 * words and by what the budget has room for? Counted are the questions of which the expression is
 * found in that (it may stand elsewhere by chance, too). No step of the model is needed, only its
 * vocabulary: so a book takes a second where reading it takes an hour.
 *
 * -L and -T try other segments and tails than those that are chosen. The line: budget, segment,
 * tail, tokens, gists, segments that come back, questions whose answer does, and of these the
 * number for which the best segment alone, and with its neighbours, has it.
 */
#include "daemon/hydrate.h"
#include "daemon/memory.h"
#include "daemon/rank.h"
#include "tests/support/encoded.h"

#include "engine/file/gguf.h"

#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IDS_MAX    (1u << 20)
#define LINE_MAX_  1024u
#define PROMPT_IDS 256u
#define TEMPLATE   30u /* tokens of a chat's template around a question */
#define ANSWER     64u
#define BRING      16u
#define WORTH      0.25f

struct bench {
    struct vocab *vocab;
    struct rank_words *words;
    struct served served;
    struct policy policy;
    struct ladder ladder;
    uint32_t *ids, n_ids;
    float *score;
    bool verbose;
};

static void read_text(struct bench *b, const char *path)
{
    int n;

    b->ids = malloc(IDS_MAX * sizeof(*b->ids));
    n = b->ids ? encoded_file(b->vocab, path, b->ids, IDS_MAX) : -ENOMEM;
    if (n <= 0)
        errx(1, "%s: %s", path, n < 0 ? strerror(-n) : "there is no text in it");
    b->n_ids = (uint32_t)n;
}

static void choose_policy(struct bench *b, uint32_t budget, uint32_t segment, uint32_t tail)
{
    const struct wire_memory m = {
        .automatic = true, .has_budget = budget > 0, .budget = budget, .keep_tail = tail
    };
    struct why why = { "" };

    if (policy_read(&m, segment ? &segment : NULL, SEQ_SEGMENT_DEFAULT, &b->served, &b->policy,
                    &why) < 0)
        errx(1, "%s", why.text);
    ladder_climb(&b->policy, &b->ladder, 0, b->n_ids, NULL, NULL);
    b->score = calloc(b->ladder.n_at[1] + 1u, sizeof(*b->score));
    if (!b->score)
        errx(1, "no memory");
}

/* As daemon/hydrate.c counts it, with pages for all. */
static uint32_t room(const struct bench *b, uint32_t n_prompt)
{
    struct ladder l = b->ladder;
    uint64_t keys, spare = ladder_spare(&b->policy, &b->ladder), left;

    ladder_climb(&b->policy, &l, b->n_ids, (uint64_t)b->n_ids + n_prompt + ANSWER, &keys, NULL);
    left = keys < b->policy.budget ? b->policy.budget - keys : 0;
    left = (left > spare ? left : spare) / b->policy.seg_len;
    if (left == 0)
        left = 1; /* gists are thinned for the best one */
    return (uint32_t)(left < BRING ? left : BRING);
}

static uint32_t best(float *score, uint32_t n)
{
    uint32_t k = 0;

    for (uint32_t i = 1; i < n; i++)
        if (score[i] > score[k])
            k = i;
    return k;
}

/* in: segments; one behind the other they are one text. */
static bool found_in(const struct bench *b, const bool *in, const regex_t *what)
{
    uint32_t n = b->ladder.n_at[1], len = b->policy.seg_len;
    char *text = malloc((size_t)n * len * 16 + 1), *p = text;
    bool found = false;

    if (!text)
        errx(1, "no memory");
    for (uint32_t k = 0; k <= n && !found; k++) {
        if (k == n || !in[k]) {
            *p = '\0';
            found = p > text && regexec(what, text, 0, NULL, 0) == 0;
            p = text;
            continue;
        }
        for (uint32_t i = 0; i < len; i++) {
            size_t bytes;
            const uint8_t *s = vocab_bytes(b->vocab, b->ids[(size_t)k * len + i], &bytes);

            if (bytes <= 16)
                p = (char *)memcpy(p, s, bytes) + bytes;
        }
    }
    free(text);
    return found;
}

struct counts {
    uint32_t asked, found, first, near, most;
};

static void ask(struct bench *b, const char *question, const char *answer, struct counts *c)
{
    uint32_t prompt[PROMPT_IDS], n_segments = b->ladder.n_at[1], m, first = 0;
    int n = encoded_ids(b->vocab, question, false, prompt, PROMPT_IDS);
    const struct rank_text t = { .ids = b->ids,
                                 .seg_len = b->policy.seg_len,
                                 .n_segments = n_segments,
                                 .prompt = prompt,
                                 .n_prompt = n > 0 ? (uint32_t)n : 0 };
    bool *in = calloc(n_segments + 1u, sizeof(*in));
    bool found, alone, near;
    float top = 0;
    regex_t what;

    if (!in || n <= 0 || regcomp(&what, answer, REG_EXTENDED | REG_ICASE | REG_NOSUB) != 0 ||
        rank_score(b->words, &t, b->score) < 0)
        errx(1, "\"%s\" can't be asked", question);
    m = room(b, (uint32_t)n + TEMPLATE);
    for (uint32_t i = 0; i < m; i++) {
        uint32_t k = best(b->score, n_segments);

        if (i == 0) {
            top = b->score[k];
            first = k;
        }
        if (b->score[k] <= 0 || b->score[k] < WORTH * top)
            break;
        b->score[k] = 0;
        in[k] = true;
    }
    found = found_in(b, in, &what);
    memset(in, 0, n_segments * sizeof(*in));
    in[first] = true;
    alone = found_in(b, in, &what);
    if (first > 0)
        in[first - 1] = true;
    if (first + 1 < n_segments)
        in[first + 1] = true;
    near = found_in(b, in, &what);
    c->asked++;
    c->found += found;
    c->first += alone;
    c->near += near;
    c->most = m > c->most ? m : c->most;
    if (b->verbose)
        printf("  %s %s %s  %s\n", found ? "back" : "----", alone ? "first" : "-----",
               near ? "near" : "----", question);
    regfree(&what);
    free(in);
}

static void ask_all(struct bench *b, const char *path)
{
    FILE *f = fopen(path, "re");
    struct counts c = { .asked = 0 };
    char line[LINE_MAX_];

    if (!f)
        errx(1, "%s can't be read", path);
    while (fgets(line, sizeof(line), f)) {
        char *tab = strchr(line, '\t');

        if (!tab)
            continue;
        *tab = '\0';
        tab[1 + strcspn(tab + 1, "\n")] = '\0';
        ask(b, line, tab + 1, &c);
    }
    (void)fclose(f);
    printf("budget %u, segments of %u, tail %u: %u tokens, %llu keys, %u segments back; of %u "
           "answers %u back, %u in the best segment, %u in it and its neighbours\n",
           b->policy.budget, b->policy.seg_len, b->policy.keep_tail, b->n_ids,
           (unsigned long long)ladder_keys(&b->policy, &b->ladder, b->n_ids), c.most, c.asked,
           c.found, c.first, c.near);
}

int main(int argc, char **argv)
{
    struct bench b = { .served = { .context_max = 32768 } };
    uint32_t budget = 0, segment = 0, tail = 0;
    struct why why = { "" };
    struct gguf *g;
    int c;

    while ((c = getopt(argc, argv, "b:L:T:v")) != -1)
        switch (c) {
        case 'b':
            budget = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'L':
            segment = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'T':
            tail = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'v':
            b.verbose = true;
            break;
        default:
            return 2;
        }
    if (argc - optind != 3)
        errx(1, "MODEL TEXT QUESTIONS are wanted");
    if (gguf_open(argv[optind], &g, &why) < 0 || vocab_open(g, &b.vocab, &why) < 0)
        errx(1, "%s", why.text);
    gguf_close(g);
    if (rank_open(b.vocab, &b.words) < 0)
        errx(1, "no memory");
    read_text(&b, argv[optind + 1]);
    choose_policy(&b, budget, segment, tail);
    ask_all(&b, argv[optind + 2]);
    free(b.score);
    free(b.ids);
    rank_close(b.words);
    vocab_close(b.vocab);
    return 0;
}
