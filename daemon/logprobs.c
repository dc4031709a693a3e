/* The row is copied before sampling changes it, and which token came of it is known later:
 * logprobs_look, the pick, logprobs_push. Guessed tokens have their rows looked at one by one in
 * the same order. */
#include "daemon/logprobs.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* One piece: the row, then a number for each token that may wait, then n_top of them, then their
 * ids. */
int logprobs_init(struct logprobs *l, struct held_account *a, uint32_t n_vocab, uint32_t n_top,
                  uint32_t cap)
{
    size_t row = n_vocab * sizeof(*l->row), own = cap * sizeof(*l->own);
    int e;

    assert(n_top <= LOGPROBS_TOP_MAX);
    *l = (struct logprobs){ .account = a, .n_vocab = n_vocab, .n_top = n_top, .cap = cap };
    e = held_resize(a, &l->mem, &l->len, row + own + 2 * n_top * own);
    if (e < 0)
        return e;
    l->row = l->mem;
    l->own = l->row + n_vocab;
    l->top_logprobs = l->own + cap;
    l->top_ids = (uint32_t *)(l->top_logprobs + (size_t)cap * n_top);
    return 0;
}

void logprobs_fini(struct logprobs *l)
{
    if (l->account)
        (void)held_resize(l->account, &l->mem, &l->len, 0);
    *l = (struct logprobs){ .n = 0 };
}

/* Less the largest, or the exponentials would overflow. Summed in double: a vocabulary has 100,000
 * terms and more. */
double logprobs_sum(const struct sampler_math *math, const float *logits, uint32_t n,
                    float *scratch)
{
    float max = logits[math->argmax(logits, n)];
    double sum = 0;

    math->weights(logits, n, max, 1, scratch);
    for (uint32_t i = 0; i < n; i++)
        sum += (double)scratch[i];
    return (double)max + log(sum);
}

void logprobs_look(struct logprobs *l, const struct sampler_math *math, const float *logits,
                   float *scratch)
{
    memcpy(l->row, logits, l->n_vocab * sizeof(*l->row));
    l->log_sum = logprobs_sum(math, logits, l->n_vocab, scratch);
}

/* The likeliest so far are kept in order; nearly all others are less than the last of them. Of
 * equals the one of the smaller id comes first. */
static void take_top(struct logprobs *l, uint32_t *ids, float *values)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < l->n_vocab; i++) {
        uint32_t at = n;

        if (n == l->n_top && !(l->row[i] > values[n - 1]))
            continue;
        if (n == l->n_top)
            at = n - 1;
        else
            n++;
        for (; at > 0 && l->row[i] > values[at - 1]; at--) {
            values[at] = values[at - 1];
            ids[at] = ids[at - 1];
        }
        values[at] = l->row[i];
        ids[at] = i;
    }
    for (uint32_t i = 0; i < n; i++)
        values[i] = (float)((double)values[i] - l->log_sum);
}

void logprobs_push(struct logprobs *l, uint32_t id)
{
    assert(l->n < l->cap && id < l->n_vocab);
    if (l->n_top > 0)
        take_top(l, l->top_ids + (size_t)l->n * l->n_top,
                 l->top_logprobs + (size_t)l->n * l->n_top);
    l->own[l->n++] = (float)((double)l->row[id] - l->log_sum);
}

/* Tokens of a stop string, which may have gone out in part. */
void logprobs_drop(struct logprobs *l, uint32_t n)
{
    l->n = n < l->n ? l->n - n : 0;
}

void logprobs_sent(struct logprobs *l, uint32_t n)
{
    size_t left;

    n = n < l->n ? n : l->n;
    left = l->n - n;
    memmove(l->own, l->own + n, left * sizeof(*l->own));
    left *= l->n_top;
    memmove(l->top_ids, l->top_ids + (size_t)n * l->n_top, left * sizeof(*l->top_ids));
    memmove(l->top_logprobs, l->top_logprobs + (size_t)n * l->n_top,
            left * sizeof(*l->top_logprobs));
    l->n -= n;
}
