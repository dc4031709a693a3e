/* The newest of several places is not the best one: in code and tables the same three ids stand
 * everywhere, and what follows them depends on what stands further back. So all places of a row are
 * compared backwards, and the longest match wins; among equals the newest, since a text that was
 * edited once is mostly edited alike from there on. A row is four places, 16 bytes: one look into
 * memory that is in no cache.
 */
#include "daemon/lookup.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* 4 KB: a chat of a few hundred tokens. */
#define ROWS_MIN 256u

int lookup_init(struct lookup *l, struct held_account *a, uint32_t n_ids)
{
    uint32_t n_rows = ROWS_MIN;
    int e;

    *l = (struct lookup){ .account = a };
    if (n_ids > LOOKUP_IDS_MAX)
        n_ids = LOOKUP_IDS_MAX;
    while (n_rows * LOOKUP_WAYS < n_ids)
        n_rows *= 2;
    e = held_resize(a, &l->mem, &l->len, (size_t)n_rows * LOOKUP_WAYS * sizeof(*l->rows));
    if (e < 0)
        return e;
    memset(l->mem, 0, l->len);
    l->rows = l->mem;
    l->n_rows = n_rows;
    return 0;
}

void lookup_fini(struct lookup *l)
{
    if (l->account)
        (void)held_resize(l->account, &l->mem, &l->len, 0);
    *l = (struct lookup){ .n = 0 };
}

/* Of the gram that ends before place n. The upper half of the product: the lower bits of a
 * multiplicative hash depend on the lower bits of the ids alone. */
static uint32_t *row_of(const struct lookup *l, const uint32_t *ids, uint32_t n)
{
    uint64_t h = 0;

    for (uint32_t i = n - LOOKUP_GRAM; i < n; i++)
        h = (h ^ ids[i]) * 0x9e3779b97f4a7c15u;
    return l->rows + (size_t)(h >> 32 & (l->n_rows - 1)) * LOOKUP_WAYS;
}

bool lookup_add(struct lookup *l, const uint32_t *ids, uint32_t n, uint32_t most)
{
    uint32_t end = n - l->n > most ? l->n + most : n;

    assert(n >= l->n);
    /* What stands at the very end has nothing behind it yet: its place is added with the next id,
     * so that a gram never finds itself. */
    for (uint32_t at = l->n < LOOKUP_GRAM ? LOOKUP_GRAM : l->n; at < end; at++) {
        uint32_t *row = row_of(l, ids, at);

        memmove(row + 1, row, (LOOKUP_WAYS - 1) * sizeof(*row));
        row[0] = at;
    }
    l->n = end;
    return end == n;
}

/* Ids before a and before b that agree, a < b. */
static uint32_t match_of(const uint32_t *ids, uint32_t a, uint32_t b, uint32_t n_vocab)
{
    uint32_t n = 0;

    while (n < LOOKUP_MATCH_MAX && n < a && ids[a - 1 - n] == ids[b - 1 - n] &&
           ids[a - 1 - n] < n_vocab)
        n++;
    return n;
}

uint32_t lookup_find(const struct lookup *l, const uint32_t *ids, uint32_t n, uint32_t n_vocab,
                     uint32_t max, uint32_t *ret, uint32_t *ret_match)
{
    uint32_t at = 0, best = LOOKUP_GRAM - 1, k = 0;
    const uint32_t *row;

    assert(n == l->n);
    if (n <= LOOKUP_GRAM || !l->rows)
        return 0;
    row = row_of(l, ids, n);
    for (uint32_t i = 0; i < LOOKUP_WAYS && row[i]; i++) {
        uint32_t match = match_of(ids, row[i], n, n_vocab);

        if (match > best) {
            best = match;
            at = row[i];
        }
    }
    if (!at)
        return 0;
    for (; k < max; k++) {
        /* Past the end of the text it goes on with the guess itself, which repeats with that
         * period. */
        uint32_t id = at + k < n ? ids[at + k] : ret[at + k - n];

        if (id >= n_vocab)
            break;
        ret[k] = id;
    }
    *ret_match = best;
    return k;
}
