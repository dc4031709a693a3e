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

struct rank_job {
    const struct rank_words *words;
    const uint32_t *ids; /* (n_segments, seg_len) */
    uint32_t seg_len, n_segments;
    struct terms terms;
    struct row row;
    uint32_t segment; /* that is looked at next */
    bool weighed;     /* the second look */
    float *score;     /* (n_segments), and behind them */
    float *head, *tail;
};

/* A segment has a term or not, however often. Of several places the first one says whether it is
 * near an end. */
static void found(struct rank_job *j, struct term *t, uint32_t segment, uint32_t at)
{
    uint32_t edge = j->seg_len / EDGE_PART;

    if (t->seen == segment + 1)
        return;
    t->seen = segment + 1;
    if (!j->weighed) {
        t->n_in++;
        return;
    }
    j->score[segment] += t->weight;
    if (at < edge)
        j->head[segment] += t->weight;
    if (at >= j->seg_len - edge)
        j->tail[segment] += t->weight;
}

/* Words in a row may begin in the segment before: the row goes on. */
static void look(struct rank_job *j, uint32_t k)
{
    for (uint32_t i = 0; i < j->seg_len; i++) {
        uint32_t w = word(j->words, j->ids[(size_t)k * j->seg_len + i]);

        if (!is_word(j->words, w))
            continue;
        push(&j->row, w);
        if (!(j->terms.maybe[bit_of(w) / 64] >> bit_of(w) % 64 & 1))
            continue;
        for (uint32_t g = 1; g <= j->row.n; g++) {
            struct term *t = term_of(&j->terms, key_of(&j->row, g));

            if (!t->key)
                break; /* nor does the prompt have a longer one that ends here */
            found(j, t, k, i);
        }
    }
}

/* Between the two looks. Terms of the prompt that no segment has are never found, and need no
 * weight. */
static void weigh(struct rank_job *j)
{
    for (uint32_t i = 0; i <= j->terms.mask; i++) {
        struct term *e = &j->terms.term[i];

        if (e->n_in)
            e->weight = logf(((float)j->n_segments + 1) / ((float)e->n_in + 0.5f));
        e->seen = 0;
    }
    j->row.n = 0;
    j->segment = 0;
    j->weighed = true;
}

static void share_edges(struct rank_job *j)
{
    for (uint32_t k = 0; k + 1 < j->n_segments; k++) {
        j->score[k] += SHARE_AHEAD * j->head[k + 1];
        j->score[k + 1] += SHARE_AFTER * j->tail[k];
    }
}

int rank_begin(const struct rank_words *words, const struct rank_text *t, struct rank_job **ret)
{
    struct rank_job *j = calloc(1, sizeof(*j));

    if (!j)
        return -ENOMEM;
    j->words = words;
    j->ids = t->ids;
    j->seg_len = t->seg_len;
    j->n_segments = t->n_segments;
    j->score = calloc((size_t)t->n_segments * 3 + 1, sizeof(*j->score));
    if (!j->score || take_terms(words, t, &j->terms) < 0) {
        rank_drop(j);
        return -ENOMEM;
    }
    j->head = j->score + t->n_segments;
    j->tail = j->head + t->n_segments;
    *ret = j;
    return 0;
}

/* Two looks over all ids, since a weight is known only when all were counted. */
bool rank_go(struct rank_job *j, uint32_t n)
{
    uint32_t n_segments = n / j->seg_len + 1;

    for (; n_segments > 0 && !(j->weighed && j->segment == j->n_segments); n_segments--) {
        if (j->segment < j->n_segments)
            look(j, j->segment++);
        if (j->segment < j->n_segments)
            continue;
        if (j->weighed)
            share_edges(j);
        else
            weigh(j);
    }
    return j->weighed && j->segment == j->n_segments;
}

uint64_t rank_left(const struct rank_job *j)
{
    uint64_t n_segments = j->n_segments - j->segment + (j->weighed ? 0 : j->n_segments);

    return n_segments * j->seg_len;
}

const float *rank_scores(const struct rank_job *j, uint32_t *ret_n)
{
    *ret_n = j->n_segments;
    return j->score;
}

void rank_drop(struct rank_job *j)
{
    if (!j)
        return;
    free(j->terms.term);
    free(j->score);
    free(j);
}

int rank_score(const struct rank_words *words, const struct rank_text *t, float *ret)
{
    struct rank_job *j;
    int r = rank_begin(words, t, &j);

    if (r < 0)
        return r;
    while (!rank_go(j, UINT32_MAX))
        ;
    memcpy(ret, j->score, t->n_segments * sizeof(*ret));
    rank_drop(j);
    return 0;
}
