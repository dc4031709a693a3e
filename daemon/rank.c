#include "daemon/rank.h"

#include "engine/text/vocab.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define NO_WORD 0u
/* No word either, and what stands right behind it is a template's. Words are odd. */
#define SPECIAL 2u
#define N_GRAM  3u
/* A share of what is found in the first or last EDGE_PART of a segment goes to its neighbour. */
#define EDGE_PART   8u
#define SHARE_AFTER 0.5f
#define SHARE_AHEAD 0.25f

struct rank_words {
    uint32_t n;
    uint32_t word[]; /* (n) of each token; NO_WORD, SPECIAL: it is passed over */
};

/* --- words ------------------------------------------------------------------------------------ */

/* Bytes above 127 are parts of letters, mostly: they are taken as they are. */
static uint32_t word_of(const uint8_t *bytes, size_t len)
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    bool says = false;

    while (len > 0 && isspace(*bytes))
        bytes++, len--;
    for (size_t i = 0; i < len; i++) {
        hash = (hash ^ (uint8_t)(bytes[i] < 128 ? tolower(bytes[i]) : bytes[i])) * 16777619u;
        says |= bytes[i] >= 128 || isalnum(bytes[i]);
    }
    return says ? hash | 1u : NO_WORD;
}

/* Made once for a vocabulary: 4 bytes a token, and a word costs a look-up from then on. */
int rank_open(const struct vocab *v, struct rank_words **ret)
{
    uint32_t n = vocab_size(v);
    struct rank_words *w = malloc(sizeof(*w) + n * sizeof(w->word[0]));

    if (!w)
        return -ENOMEM;
    w->n = n;
    for (uint32_t id = 0; id < n; id++) {
        size_t len;
        const uint8_t *bytes = vocab_bytes(v, id, &len);

        w->word[id] = vocab_is_special(v, id) ? SPECIAL : word_of(bytes, len);
    }
    *ret = w;
    return 0;
}

void rank_close(struct rank_words *w)
{
    free(w);
}

static uint32_t word(const struct rank_words *w, uint32_t id)
{
    if (!w)
        return id + 1; /* of a filler, none */
    return id < w->n ? w->word[id] : NO_WORD;
}

static bool is_word(const struct rank_words *w, uint32_t word)
{
    return word != NO_WORD && (!w || word != SPECIAL);
}

/* --- terms ------------------------------------------------------------------------------------ */

/* Words, and words in a row, of the prompt: a table of open addresses. A key is a hash, since to
 * take two for one moves a score by a little, and does no harm. */
struct term {
    uint64_t key;  /* 0: free */
    uint32_t n_in; /* segments that have it */
    uint32_t seen; /* the last of these, and one */
    float weight;
};

struct terms {
    struct term *term;
    uint32_t mask;
    uint64_t maybe[1024]; /* a bit for each word: most words of a text are none of ours */
};

/* Two bytes of a hash: a prompt of 100 words sets 100 of 65,536 bits. */
static uint32_t bit_of(uint32_t w)
{
    return (w ^ w >> 16) & 0xffff;
}

/* The last words of a text, the newest first. */
struct row {
    uint64_t words[N_GRAM];
    uint32_t n;
};

static void push(struct row *r, uint32_t w)
{
    memmove(r->words + 1, r->words, (N_GRAM - 1) * sizeof(*r->words));
    r->words[0] = w;
    r->n += r->n < N_GRAM;
}

/* Of the last n words. */
static uint64_t key_of(const struct row *r, uint32_t n)
{
    uint64_t h = n;

    for (uint32_t i = 0; i < n; i++)
        h = (h ^ r->words[i]) * UINT64_C(0x9e3779b97f4a7c15), h ^= h >> 29;
    return h ? h : 1;
}

/* The key's, or the free one where it belongs. */
static struct term *term_of(const struct terms *t, uint64_t key)
{
    uint32_t i = (uint32_t)(key >> 32) & t->mask;

    while (t->term[i].key && t->term[i].key != key)
        i = (i + 1) & t->mask;
    return &t->term[i];
}

static int take_terms(const struct rank_words *words, const struct rank_text *text, struct terms *t)
{
    struct row row = { .n = 0 };
    uint32_t n = 16;
    bool is_role = false; /* "user" and "assistant" stand in every prompt, and point to nothing */

    while (n < 2 * N_GRAM * (uint64_t)text->n_prompt && n < 1u << 30)
        n *= 2;
    *t = (struct terms){ .term = calloc(n, sizeof(*t->term)), .mask = n - 1 };
    if (!t->term)
        return -ENOMEM;
    for (uint32_t i = 0; i < text->n_prompt; i++) {
        uint32_t w = word(words, text->prompt[i]);
        bool skip = is_role || !is_word(words, w);

        is_role = words && w == SPECIAL;
        if (skip)
            continue;
        push(&row, w);
        t->maybe[bit_of(w) / 64] |= UINT64_C(1) << bit_of(w) % 64;
        for (uint32_t g = 1; g <= row.n; g++) {
            uint64_t key = key_of(&row, g);

            term_of(t, key)->key = key;
        }
    }
    return 0;
}

/* --- segments --------------------------------------------------------------------------------- */

struct pass {
    const struct rank_words *words;
    const struct rank_text *text;
    struct terms *terms;
    float *score, *head, *tail; /* (n_segments); NULL: only count */
};

/* A segment has a term or not, however often. Of several places the first one says whether it is
 * near an end. */
static void found(const struct pass *p, struct term *t, uint32_t segment, uint32_t at)
{
    uint32_t edge = p->text->seg_len / EDGE_PART;

    if (t->seen == segment + 1)
        return;
    t->seen = segment + 1;
    if (!p->score) {
        t->n_in++;
        return;
    }
    p->score[segment] += t->weight;
    if (at < edge)
        p->head[segment] += t->weight;
    if (at >= p->text->seg_len - edge)
        p->tail[segment] += t->weight;
}

/* Words in a row may begin in the segment before: the row goes on. */
static void look(const struct pass *p)
{
    struct row row = { .n = 0 };

    for (uint32_t k = 0; k < p->text->n_segments; k++)
        for (uint32_t i = 0; i < p->text->seg_len; i++) {
            uint32_t w = word(p->words, p->text->ids[(size_t)k * p->text->seg_len + i]);

            if (!is_word(p->words, w))
                continue;
            push(&row, w);
            if (!(p->terms->maybe[bit_of(w) / 64] >> bit_of(w) % 64 & 1))
                continue;
            for (uint32_t g = 1; g <= row.n; g++) {
                struct term *t = term_of(p->terms, key_of(&row, g));

                if (!t->key)
                    break; /* nor does the prompt have a longer one that ends here */
                found(p, t, k, i);
            }
        }
}

/* Between the two looks. Terms of the prompt that no segment has are never found, and need no
 * weight. */
static void weigh(struct terms *t, uint32_t n_segments)
{
    for (uint32_t i = 0; i <= t->mask; i++) {
        struct term *e = &t->term[i];

        if (e->n_in)
            e->weight = logf(((float)n_segments + 1) / ((float)e->n_in + 0.5f));
        e->seen = 0;
    }
}

/* Two looks over all ids, since a weight is known only when all were counted. */
int rank_score(const struct rank_words *words, const struct rank_text *t, float *ret)
{
    float *edges = calloc((size_t)t->n_segments * 2 + 1, sizeof(*edges));
    struct terms terms;
    struct pass p = { .words = words, .text = t, .terms = &terms };

    if (!edges || take_terms(words, t, &terms) < 0) {
        free(edges);
        return -ENOMEM;
    }
    look(&p);
    weigh(&terms, t->n_segments);
    memset(ret, 0, t->n_segments * sizeof(*ret));
    p.score = ret;
    p.head = edges;
    p.tail = edges + t->n_segments;
    look(&p);
    for (uint32_t k = 0; k + 1 < t->n_segments; k++) {
        ret[k] += SHARE_AHEAD * p.head[k + 1];
        ret[k + 1] += SHARE_AFTER * p.tail[k];
    }
    free(terms.term);
    free(edges);
    return 0;
}
