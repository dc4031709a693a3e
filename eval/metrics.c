#include "eval/metrics.h"

#include "base/utf8.h"

#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* --- SQuAD's normal form ---------------------------------------------------------------------- */

static bool is_article(const char *word, size_t len)
{
    return (len == 1 && word[0] == 'a') || (len == 2 && memcmp(word, "an", 2) == 0) ||
           (len == 3 && memcmp(word, "the", 3) == 0);
}

/* In this order: lower case, no punctuation ("the-end" is one word then), no articles, white space.
 * free() it. */
static char *normal(const char *text)
{
    size_t n = 0, out = 0, start;
    char *s = malloc(strlen(text) + 1);

    if (!s)
        return NULL;
    for (; *text; text++)
        if (!ispunct((unsigned char)*text))
            s[n++] = (char)tolower((unsigned char)*text);
    for (size_t i = 0; i < n;) {
        while (i < n && isspace((unsigned char)s[i]))
            i++;
        start = i;
        while (i < n && !isspace((unsigned char)s[i]))
            i++;
        if (i == start || is_article(s + start, i - start))
            continue;
        if (out > 0)
            s[out++] = ' ';
        memmove(s + out, s + start, i - start);
        out += i - start;
    }
    s[out] = '\0';
    return s;
}

/* An empty want stands in every answer, as in the original. */
double metrics_subem(const char *answer, const char *want)
{
    char *a = normal(answer), *w = normal(want);
    double score = a && w ? (strstr(a, w) ? 1 : 0) : NAN;

    free(a);
    free(w);
    return score;
}

double metrics_accuracy(const char *answer, const char *want)
{
    char *a = normal(answer), *w = normal(want);
    double score = a && w ? (strcmp(a, w) == 0 ? 1 : 0) : NAN;

    free(a);
    free(w);
    return score;
}

/* --- common subsequences ---------------------------------------------------------------------- */

/* Of two lists of numbers that stand for words or characters: one row of the table at a time. Row i
 * has, at j, what the first i of a and the first j of b have in common. Memory is one row; time is
 * the product of both lengths. */
static size_t common(const uint64_t *a, size_t n_a, const uint64_t *b, size_t n_b, bool *ret_failed)
{
    size_t *row = calloc(n_b + 1, sizeof(*row)), best;

    *ret_failed = !row;
    if (!row)
        return 0;
    for (size_t i = 0; i < n_a; i++) {
        size_t diagonal = 0; /* of the row above, one to the left */

        for (size_t j = 0; j < n_b; j++) {
            size_t above = row[j + 1];

            if (a[i] == b[j])
                row[j + 1] = diagonal + 1;
            else if (row[j] > above)
                row[j + 1] = row[j];
            diagonal = above;
        }
    }
    best = row[n_b];
    free(row);
    return best;
}

/* A word's letters by a hash: two words of one text that collide would need 2^32 of them. */
static uint64_t hash_word(const char *word, size_t len)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < len; i++)
        h = (h ^ (uint64_t)tolower((unsigned char)word[i])) * UINT64_C(0x100000001b3);
    return h;
}

/* As ROUGE's tokenizer: what is no ASCII letter or digit only separates. */
static size_t words(const char *text, uint64_t *ret)
{
    size_t n = 0, len;

    for (; *text; text += len) {
        for (len = 0; isalnum((unsigned char)text[len]); len++)
            ;
        if (len > 0)
            ret[n++] = hash_word(text, len);
        else
            len = 1;
    }
    return n;
}

static size_t characters(const char *text, uint64_t *ret)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t left = strlen(text), n = 0, len;

    for (; left > 0; left -= len, p += len) {
        if (utf8_check(p, left, &len) == UTF8_OK) {
            ret[n++] = utf8_get(p, len);
        } else {
            len = 1;
            ret[n++] = 0x110000u + *p; /* no character has that number */
        }
    }
    return n;
}

struct counts {
    size_t n_a, n_b, n_common;
    bool failed;
};

/* No text has more parts than bytes. */
static struct counts count(const char *a, const char *b, size_t (*split)(const char *, uint64_t *))
{
    uint64_t *of_a = calloc(strlen(a) + 1, sizeof(*of_a)),
             *of_b = calloc(strlen(b) + 1, sizeof(*of_b));
    struct counts c = { .failed = !of_a || !of_b };

    if (!c.failed) {
        c.n_a = split(a, of_a);
        c.n_b = split(b, of_b);
        c.n_common = common(of_a, c.n_a, of_b, c.n_b, &c.failed);
    }
    free(of_a);
    free(of_b);
    return c;
}

/* How much of each the common part is, and their harmonic mean. */
static struct metrics_rouge shares(const struct counts *c)
{
    double p, r;

    if (c->failed)
        return (struct metrics_rouge){ NAN, NAN, NAN };
    if (c->n_common == 0)
        return (struct metrics_rouge){ 0, 0, 0 };
    p = (double)c->n_common / (double)c->n_a;
    r = (double)c->n_common / (double)c->n_b;
    return (struct metrics_rouge){ p, r, 2 * p * r / (p + r) };
}

struct metrics_rouge metrics_rouge_l(const char *answer, const char *want)
{
    struct counts c = count(answer, want, words);

    return shares(&c);
}

double metrics_edit(const char *a, const char *b)
{
    struct counts c = count(a, b, characters);

    if (c.failed)
        return NAN;
    return c.n_a + c.n_b ? 2 * (double)c.n_common / (double)(c.n_a + c.n_b) : 1;
}

static int compare_words(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* Words between spaces, sorted. */
static size_t sorted_words(const char *text, uint64_t *ret)
{
    size_t n = 0, len;

    for (; *text; text += len) {
        text += strspn(text, " ");
        len = strcspn(text, " ");
        if (len > 0)
            ret[n++] = hash_word(text, len);
    }
    qsort(ret, n, sizeof(*ret), compare_words);
    return n;
}

/* Two sorted lists have as much in common as one after the other has. */
double metrics_f1(const char *answer, const char *want)
{
    char *a = normal(answer), *w = normal(want);
    struct counts c = { .failed = true };

    if (a && w)
        c = count(a, w, sorted_words);
    free(a);
    free(w);
    return shares(&c).f1;
}

/* --- rankings --------------------------------------------------------------------------------- */

static int compare_down(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x < y) - (x > y);
}

/* Relevance at rank i counts 1 / log2(i + 1), ranks from 1. */
static double gain(const double *v, size_t n, size_t k)
{
    double sum = 0;

    for (size_t i = 0; i < n && i < k; i++)
        sum += v[i] / log2((double)i + 2);
    return sum;
}

/* The best possible ranking is that of all relevances in descending order. */
double metrics_ndcg(const double *ranked, size_t n_ranked, const double *all, size_t n_all,
                    size_t k)
{
    double *ideal = calloc(n_all + 1, sizeof(*ideal)), best;

    if (!ideal)
        return NAN;
    memcpy(ideal, all, n_all * sizeof(*ideal));
    qsort(ideal, n_all, sizeof(*ideal), compare_down);
    best = gain(ideal, n_all, k);
    free(ideal);
    return best > 0 ? gain(ranked, n_ranked, k) / best : 0;
}

/* --- prefixes --------------------------------------------------------------------------------- */

static char *letters(const char *text)
{
    char *s = malloc(strlen(text) + 1);
    size_t n = 0;

    if (!s)
        return NULL;
    for (; *text; text++)
        if (isalnum((unsigned char)*text))
            s[n++] = (char)tolower((unsigned char)*text);
    s[n] = '\0';
    return s;
}

size_t metrics_prefix(const char *answer, const char *want)
{
    char *a = letters(answer), *w = letters(want);
    size_t best = 0;

    for (char *at = a; at && w && *at; at++) {
        size_t n = 0;

        while (at[n] && at[n] == w[n])
            n++;
        best = n > best ? n : best;
    }
    free(a);
    free(w);
    return best;
}
