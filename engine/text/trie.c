#include "engine/text/trie.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The first bytes beside the id: most comparisons need no more, and those of the vocabulary lie all
 * over the memory. */
struct key {
    uint64_t head;
    uint32_t id;
};

/* The token's bytes, and of a special one the byte before them. */
static size_t key_len(const struct vocab *v, uint32_t id)
{
    size_t len;

    (void)vocab_bytes(v, id, &len);
    return len + vocab_is_special(v, id);
}

static uint8_t key_byte(const struct vocab *v, uint32_t id, size_t i)
{
    size_t len, special = vocab_is_special(v, id);
    const uint8_t *bytes = vocab_bytes(v, id, &len);

    return i < special ? TRIE_SPECIAL : bytes[i - special];
}

/* Bytes in `head` are a number, the first one uppermost, so that numbers compare as bytes do. A
 * shorter token is padded with zeros there: it ties with one that goes on with NULs, and the whole
 * bytes decide. Those that tie are both special or both not. */
static int by_bytes(const void *a, const void *b, void *vocab)
{
    const struct key *p = a, *q = b;
    const uint8_t *x, *y;
    size_t n, k;
    int c;

    if (p->head != q->head)
        return p->head < q->head ? -1 : 1;
    x = vocab_bytes(vocab, p->id, &n);
    y = vocab_bytes(vocab, q->id, &k);
    c = memcmp(x, y, n < k ? n : k);
    return c ? c : (n > k) - (n < k);
}

static struct key key_of(const struct vocab *v, uint32_t id)
{
    struct key key = { 0, id };
    size_t len = key_len(v, id);

    for (size_t i = 0; i < sizeof(key.head); i++)
        key.head = key.head << 8 | (i < len ? key_byte(v, id, i) : 0);
    return key;
}

/* A walk (mask.c) has a level for each of TRIE_LEN_MAX bytes, no more. */
static bool belongs(const struct vocab *v, uint32_t id)
{
    size_t len;
    const uint8_t *bytes = vocab_bytes(v, id, &len);

    return len > 0 && key_len(v, id) <= TRIE_LEN_MAX && !memchr(bytes, TRIE_SPECIAL, len);
}

/* Tokens that end an answer are not tried against a grammar: they may come exactly where it may end
 * (ends). */
static int sort(struct trie *t, const struct vocab *v)
{
    struct key *keys = calloc(t->n_vocab + 1, sizeof(*keys));

    if (!keys)
        return -ENOMEM;

    for (uint32_t id = 0; id < t->n_vocab; id++) {
        if (vocab_is_eog(v, id))
            t->ends[id / 64] |= 1ull << id % 64;
        else if (belongs(v, id))
            keys[t->n++] = key_of(v, id);
    }
    qsort_r(keys, t->n, sizeof(*keys), by_bytes, (void *)v);
    for (uint32_t i = 0; i < t->n; i++)
        t->ids[i] = keys[i].id;
    free(keys);
    return 0;
}

/* Bytes that token i has in common with the one before it. Lengths fit a byte: TRIE_LEN_MAX. */
static uint8_t common(const struct trie *t, uint32_t i)
{
    const uint8_t *a = t->bytes + t->at[i - 1], *b = t->bytes + t->at[i];
    uint32_t n = t->at[i] - t->at[i - 1], k = t->at[i + 1] - t->at[i], same = 0;

    while (same < n && same < k && a[same] == b[same])
        same++;
    return (uint8_t)same;
}

/* The bytes are copied in the order in which they are read, which is what a walk's time is made of:
 * in the vocabulary, neighbours of this order lie far apart. */
static int fill(struct trie *t, const struct vocab *v)
{
    size_t all = 0;

    for (uint32_t i = 0; i < t->n; i++) {
        t->at[i] = (uint32_t)all;
        all += key_len(v, t->ids[i]);
    }
    t->at[t->n] = (uint32_t)all;
    t->bytes = malloc(all + 1);
    if (!t->bytes)
        return -ENOMEM;
    memset(t->block_lcp, 0xff, t->n_words); /* above any lcp */
    for (uint32_t i = 0; i < t->n; i++) {
        for (uint32_t k = t->at[i]; k < t->at[i + 1]; k++)
            t->bytes[k] = key_byte(v, t->ids[i], k - t->at[i]);
        t->lcp[i] = i == 0 ? 0 : common(t, i);
        if (t->lcp[i] < t->block_lcp[i / TRIE_BLOCK])
            t->block_lcp[i / TRIE_BLOCK] = t->lcp[i];
    }
    return 0;
}

/* Rooms are for all tokens of the vocabulary, though some are left out: that is a few bytes each.
 */
int trie_new(const struct vocab *v, struct trie **ret)
{
    struct trie *t = calloc(1, sizeof(*t));
    uint32_t n = vocab_size(v);

    if (!t)
        return -ENOMEM;
    t->n_vocab = n;
    t->n_words = (n + 63) / 64;
    t->ids = calloc(n + 1, sizeof(*t->ids));
    t->at = calloc(n + 1, sizeof(*t->at));
    t->lcp = calloc(n + 1, 1);
    t->block_lcp = calloc(t->n_words + 1, 1);
    t->ends = calloc(t->n_words + 1, sizeof(*t->ends));
    if (!t->ids || !t->at || !t->lcp || !t->block_lcp || !t->ends) {
        trie_free(t);
        return -ENOMEM;
    }
    if (sort(t, v) < 0 || fill(t, v) < 0) {
        trie_free(t);
        return -ENOMEM;
    }
    *ret = t;
    return 0;
}

void trie_free(struct trie *t)
{
    if (!t)
        return;
    free(t->ids);
    free(t->at);
    free(t->bytes);
    free(t->lcp);
    free(t->block_lcp);
    free(t->ends);
    free(t);
}
