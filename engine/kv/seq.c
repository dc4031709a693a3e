/* engine/kv/seq.c - the states of a sequence's segments, and the pages that each state has.
 *
 * Every function leaves S1 to S4 (engine/kv/seq.h) as they were, also where it fails. Two numbers
 * do most of it: n_reserved, up to where pages are taken, and keys_reserved, which says from a
 * segment's state and n_reserved how many of its slots hold pages. What gives pages back asks
 * keys_reserved before it changes either.
 */
#include "engine/kv/seq.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool seq_takes_segments(uint32_t seg_len)
{
    return seg_len >= SEQ_SEGMENT_MIN && seg_len <= SEQ_SEGMENT_MAX &&
           seg_len % POOL_PAGE_TOKENS == 0;
}

int seq_open(struct seq *s, struct pool *pool, struct pool_account *account, uint32_t max_tokens,
             uint32_t seg_len, uint32_t pos0)
{
    *s = (struct seq){
        .pool = pool, .account = account, .seg_len = seg_len, .max_tokens = max_tokens, .pos0 = pos0
    };
    if (!seq_takes_segments(seg_len) || max_tokens == 0 || max_tokens > SEQ_TOKENS_MAX)
        return -EINVAL;
    /* Untouched pages of these tables cost address space, not memory. */
    s->tokens = malloc((size_t)max_tokens * sizeof(*s->tokens));
    s->segments = malloc(((size_t)max_tokens / seg_len + 1) * sizeof(*s->segments));
    if (!s->tokens || !s->segments || seq_interleave(s, 0, NULL) < 0) {
        seq_close(s);
        return -ENOMEM;
    }
    return 0;
}

/* Also how seq_open makes the table of a sequence without gists. */
int seq_interleave(struct seq *s, uint32_t every, const struct adapter *adapter)
{
    /* Slots for the longest that a segment can be: compressing and lengthening move no table. */
    uint32_t n_slots = seq_n_pages(s->seg_len + (every ? s->seg_len / every : 0));
    uint32_t *pages = malloc(((size_t)s->max_tokens / s->seg_len + 1) * n_slots * sizeof(*pages));

    if (!pages)
        return -ENOMEM;
    assert(s->n_reserved == 0 && (every == 0 || s->seg_len % every == 0));
    free(s->pages);
    s->pages = pages;
    s->n_slots = n_slots;
    s->gist_every = every;
    s->adapter = adapter;
    return 0;
}

void seq_close(struct seq *s)
{
    if (!s)
        return;
    if (s->segments)
        (void)seq_rewind(s, 0);
    free(s->tokens);
    free(s->pages);
    free(s->segments);
    *s = (struct seq){ 0 };
}

/* Those that have reserved tokens, the open one included. */
uint32_t seq_n_segments(const struct seq *s)
{
    return (s->n_reserved + s->seg_len - 1) / s->seg_len;
}

/* Keys of a segment that has tokens for which its pages are taken. */
static uint32_t keys_reserved(const struct seq *s, uint32_t segment)
{
    const struct seq_segment *g = &s->segments[segment];
    uint32_t behind = s->n_reserved - segment * s->seg_len;

    if (!seq_resident(s, segment))
        return 0;
    /* The open segment's n_keys are those that it will have when it is full. */
    return g->state == SEQ_RAW && behind < s->seg_len ? seq_raw_keys(s, behind) : g->n_keys;
}

uint32_t seq_pages_of(const struct seq *s, uint32_t segment)
{
    return seq_n_pages(keys_reserved(s, segment));
}

int seq_fork(const struct seq *s, struct seq *dst)
{
    int r = seq_open(dst, s->pool, s->account, s->max_tokens, s->seg_len, s->pos0);

    if (r == 0 && s->gist_every)
        r = seq_interleave(dst, s->gist_every, s->adapter);
    if (r < 0) {
        seq_close(dst);
        return r;
    }
    /* Segment by segment, so that dst can be closed at any point: it has what it was charged. */
    memcpy(dst->tokens, s->tokens, (size_t)s->n_tokens * sizeof(*s->tokens));
    for (uint32_t k = 0; r == 0 && k * s->seg_len < s->n_tokens; k++) {
        uint32_t end = (k + 1) * s->seg_len, n;

        /* The slots are filled first: if sharing fails, n_reserved ends before them and nobody
         * looks at them. */
        dst->segments[k] = s->segments[k];
        dst->n_reserved = end < s->n_tokens ? end : s->n_tokens;
        n = seq_n_pages(keys_reserved(dst, k));
        memcpy(seq_pages(dst, k), seq_pages(s, k), n * sizeof(*s->pages));
        r = pool_share(s->pool, s->account, n, seq_pages(s, k));
        if (r < 0)
            dst->n_reserved = k * s->seg_len;
        else
            dst->n_pages += n;
    }
    dst->n_tokens = dst->n_reserved;
    if (r < 0)
        seq_close(dst);
    return r;
}

/* Raw segments up to n_reserved are known; the new one begins where the one before ends. So bases
 * need the segments before them to be full, which they are: only the last one is open. */
static void open_segment(struct seq *s, uint32_t k)
{
    const struct seq_segment *last = k ? &s->segments[k - 1] : NULL;

    s->segments[k] = (struct seq_segment){ .base = last ? last->base + last->n_keys : s->pos0,
                                           .n_keys = seq_raw_keys(s, s->seg_len) };
}

/* The next n ids come with pages that stand in another table, too. */
static void adopt(struct seq *s, const uint32_t *ids, uint32_t n, uint32_t n_pages,
                  const uint32_t *pages)
{
    int r = pool_share(s->pool, s->account, n_pages, pages);
    uint32_t off = s->n_tokens % s->seg_len;

    assert(r == 0 && s->n_tokens == s->n_reserved && s->n_tokens + n <= s->max_tokens);
    /* The pages of others hold 16 tokens each; with gists among the tokens they would hold
     * fewer. */
    assert(!s->gist_every);
    memcpy(s->tokens + s->n_tokens, ids, n * sizeof(*ids));
    memcpy(seq_pages(s, s->n_tokens / s->seg_len) + off / POOL_PAGE_TOKENS, pages,
           n_pages * sizeof(*pages));
    if (s->n_tokens % s->seg_len == 0)
        open_segment(s, s->n_tokens / s->seg_len);
    s->n_pages += n_pages;
    s->n_tokens = s->n_reserved = s->n_tokens + n;
    s->n_changes++;
}

/* n may end inside a page: the next token's seq_reserve then copies that page, which others have,
 * too. */
void seq_adopt_raw(struct seq *s, const uint32_t *ids, uint32_t n, const uint32_t *pages)
{
    assert(s->n_tokens % POOL_PAGE_TOKENS == 0 && s->n_tokens % s->seg_len + n <= s->seg_len);
    adopt(s, ids, n, seq_n_pages(n), pages);
}

void seq_adopt_compressed(struct seq *s, const uint32_t *ids, uint32_t n_keys,
                          const uint32_t *pages)
{
    /* Found before adopt(), which moves n_tokens past it and opens it as a raw segment: what it is
     * instead is set afterwards. */
    struct seq_segment *g = &s->segments[s->n_tokens / s->seg_len];

    assert(s->n_tokens % s->seg_len == 0);
    adopt(s, ids, s->seg_len, seq_n_pages(n_keys), pages);
    g->n_keys = n_keys;
    g->state = SEQ_PACKED;
}

/* Pages that were copied before one failed stay copies: they cost the account nothing and the pool
 * what it would have cost anyway. */
int seq_own(struct seq *s, uint32_t segment, uint32_t n_keys)
{
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < seq_n_pages(n_keys); i++)
        r = pool_own(s->pool, s->account, seq_pages(s, segment) + i);
    return r;
}

/* Gives back the pages of a segment behind its first n_keys. Before its state, its n_keys or
 * n_reserved change, since keys_reserved goes by those. */
static void give_behind(struct seq *s, uint32_t segment, uint32_t n_keys)
{
    uint32_t have = seq_n_pages(keys_reserved(s, segment)), keep = seq_n_pages(n_keys);

    if (have > keep)
        pool_give(s->pool, s->account, have - keep, seq_pages(s, segment) + keep);
    s->n_pages -= have - keep;
}

/* Gives back all pages behind the first n tokens, which end in no compressed segment. From the last
 * segment to the first, so that the pool's stack hands the pages out again as they were. */
static void unreserve(struct seq *s, uint32_t n)
{
    uint32_t segment = n / s->seg_len, keep = seq_raw_keys(s, n % s->seg_len);

    for (uint32_t k = seq_n_segments(s); k-- > segment;)
        give_behind(s, k, k == segment ? keep : 0);
    s->n_reserved = n;
}

/* Pages of n_keys become the table of a segment that has none. */
static void put_pages(struct seq *s, uint32_t segment, uint32_t n_keys, const uint32_t *pages)
{
    memcpy(seq_pages(s, segment), pages, seq_n_pages(n_keys) * sizeof(*pages));
    s->n_pages += seq_n_pages(n_keys);
}

/* The open segment is full with the keys that it has. Its last page is not written any more, so it
 * may stand in other tables as it is. */
static void close_short(struct seq *s)
{
    uint32_t n = s->n_tokens % s->seg_len, segment = s->n_tokens / s->seg_len;
    struct seq_segment *g = &s->segments[segment];

    if (n == 0)
        return;
    g->n_keys = n;
    g->state = SEQ_PACKED;
    /* Places still tell their segments: token i is in segment i / seg_len, whatever was closed
     * short. */
    for (; n < s->seg_len; n++)
        s->tokens[(size_t)segment * s->seg_len + n] = SEQ_FILLER;
    s->n_tokens = s->n_reserved = (segment + 1) * s->seg_len;
}

/* Keys of a segment, where only the first n tokens of its sequence are looked at. */
static uint32_t keys_of_first(const struct seq *s, uint32_t segment, uint32_t n)
{
    uint32_t off = n - segment * s->seg_len;

    return off < s->seg_len ? off : s->segments[segment].n_keys;
}

uint64_t seq_behind(const struct seq *s)
{
    return ((uint64_t)s->n_tokens + s->seg_len - 1) / s->seg_len * s->seg_len;
}

int seq_adopt_behind(struct seq *s, const struct seq *from, uint32_t n)
{
    uint32_t len = s->seg_len, first = (uint32_t)(seq_behind(s) / len);
    struct pool_cost cost = { .n = 0 };

    assert(from->pool == s->pool && from->seg_len == len && !from->gist_every && !s->gist_every);
    assert(n <= from->n_tokens && (n % len == 0 || from->segments[n / len].state == SEQ_RAW));
    if (seq_behind(s) + n > s->max_tokens)
        return -E2BIG;
    /* Pages for tokens to come would stand before what is taken over. The next seq_reserve takes
     * them again. */
    unreserve(s, s->n_tokens);
    s->n_changes++;
    /* All pages before any: close_short can't be taken back, so nothing may fail behind it. */
    for (uint32_t k = 0; k * len < n; k++) {
        assert(seq_resident(from, k));
        pool_cost_add(s->pool, &cost, seq_n_pages(keys_of_first(from, k, n)), seq_pages(from, k));
    }
    if (!pool_may_share(s->pool, s->account, &cost))
        return -ENOSPC;
    close_short(s);
    memcpy(s->tokens + s->n_tokens, from->tokens, n * sizeof(*from->tokens));
    for (uint32_t k = 0; k * len < n; k++) {
        uint32_t n_keys = keys_of_first(from, k, n);
        int r = pool_share(s->pool, s->account, seq_n_pages(n_keys), seq_pages(from, k));

        assert(r == 0);
        open_segment(s, first + k);
        s->segments[first + k].n_keys = from->segments[k].n_keys;
        s->segments[first + k].state = from->segments[k].state;
        put_pages(s, first + k, n_keys, seq_pages(from, k));
    }
    s->n_tokens = s->n_reserved = first * len + n;
    return 0;
}

/* Takes pages of the segment that n_reserved ends in, up to n tokens or its end. */
static int reserve_segment(struct seq *s, uint32_t n)
{
    uint32_t k = s->n_reserved / s->seg_len, first = k * s->seg_len, have, want;
    uint32_t end = n - first < s->seg_len ? n : first + s->seg_len;
    int r;

    /* A page may be half full: what is missing are pages between the two counts, not of the
     * difference. */
    have = seq_n_pages(seq_raw_keys(s, s->n_reserved - first));
    want = seq_n_pages(seq_raw_keys(s, end - first));
    r = want > have ? pool_take(s->pool, s->account, want - have, seq_pages(s, k) + have) : 0;
    if (r < 0)
        return r;
    if (s->n_reserved == first)
        open_segment(s, k);
    s->n_pages += want - have;
    s->n_reserved = end;
    return 0;
}

int seq_reserve(struct seq *s, uint32_t n)
{
    uint32_t had = s->n_reserved, segment = s->n_tokens / s->seg_len;
    uint32_t keys = seq_raw_keys(s, s->n_tokens % s->seg_len);
    int r = 0;

    if (n > s->max_tokens - s->n_tokens)
        return -E2BIG;
    /* Of pages that hold keys only the last can get more. */
    if (keys % POOL_PAGE_TOKENS)
        r = pool_own(s->pool, s->account, seq_pages(s, segment) + keys / POOL_PAGE_TOKENS);
    while (r == 0 && s->n_reserved < s->n_tokens + n)
        r = reserve_segment(s, s->n_tokens + n);
    if (r < 0)
        unreserve(s, had);
    return r;
}

/* seq_reserve without taking: the same two parts, a copy of the last page and what is missing
 * behind. */
uint32_t seq_wants(const struct seq *s, uint32_t n)
{
    uint32_t keys = seq_raw_keys(s, s->n_tokens % s->seg_len), end = s->n_tokens + n, wants = 0;

    if (keys % POOL_PAGE_TOKENS) /* its copy, if others have it, too */
        wants +=
            pool_shared(s->pool, seq_pages(s, s->n_tokens / s->seg_len)[keys / POOL_PAGE_TOKENS]);
    for (uint32_t at = s->n_reserved, first; at < end; at = first + s->seg_len) {
        uint32_t have, upto;

        first = at - at % s->seg_len;
        upto = end - first < s->seg_len ? end - first : s->seg_len;
        have = seq_n_pages(seq_raw_keys(s, at - first));
        wants += seq_n_pages(seq_raw_keys(s, upto)) - have;
    }
    return wants;
}

/* The segment that n tokens end in is raw, or was only closed short: then it is open again. Closed
 * short is told by the filler in its last place, which no model's id is. Among the fillers there is
 * no token to go back to. */
static bool opens_again(struct seq *s, uint32_t n)
{
    uint32_t k = n / s->seg_len;
    struct seq_segment *g = &s->segments[k];

    if (g->state == SEQ_RAW)
        return true;
    if (g->state != SEQ_PACKED || n % s->seg_len > g->n_keys ||
        s->tokens[(size_t)(k + 1) * s->seg_len - 1] != SEQ_FILLER)
        return false;
    s->n_changes++;
    unreserve(s, (k + 1) * s->seg_len);
    /* By the n_keys that it was closed with: n_keys of a raw segment would be more than it has
     * pages for. */
    give_behind(s, k, n % s->seg_len);
    g->n_keys = s->seg_len;
    g->state = SEQ_RAW;
    s->n_reserved = n;
    return true;
}

uint32_t seq_rewind(struct seq *s, uint32_t n)
{
    assert(n <= s->n_tokens);
    if (n % s->seg_len && !opens_again(s, n))
        n -= n % s->seg_len;
    unreserve(s, n);
    s->n_tokens = n;
    return n;
}

/* At a segment's start by the one before it: the segment that n begins may not have been opened. */
uint32_t seq_position(const struct seq *s, uint32_t n)
{
    uint32_t segment = n / s->seg_len, off = n % s->seg_len;

    assert(n <= s->n_tokens);
    if (off)
        return s->segments[segment].base + seq_raw_keys(s, off);
    return segment ? s->segments[segment - 1].base + s->segments[segment - 1].n_keys : s->pos0;
}

/* From now on the segment has n_keys. Those behind it keep their keys as they are: keys are rotated
 * by their place in the segment alone, so only the numbers that the bases are have to move. */
static void resize(struct seq *s, uint32_t segment, uint32_t n_keys, enum seq_state state)
{
    struct seq_segment *g = &s->segments[segment];
    uint32_t more = n_keys - g->n_keys; /* modulo 2^32 */

    assert((segment + 1) * s->seg_len <= s->n_tokens);
    s->n_changes++;
    g->n_keys = n_keys;
    g->state = state;
    for (uint32_t k = segment + 1; k < seq_n_segments(s); k++)
        s->segments[k].base += more;
}

/* Here and in those below pages come and go first: resize() changes what keys_reserved() counts
 * by. */
void seq_shorten(struct seq *s, uint32_t segment, uint32_t n_keys)
{
    assert(seq_resident(s, segment) && n_keys <= s->segments[segment].n_keys);
    give_behind(s, segment, n_keys);
    resize(s, segment, n_keys, SEQ_PACKED);
}

void seq_replace(struct seq *s, uint32_t segment, uint32_t n_keys, const uint32_t *pages)
{
    assert(seq_resident(s, segment) && n_keys <= s->segments[segment].n_keys);
    give_behind(s, segment, 0);
    put_pages(s, segment, n_keys, pages);
    resize(s, segment, n_keys, SEQ_PACKED);
}

void seq_lengthen(struct seq *s, uint32_t segment, const uint32_t *pages)
{
    uint32_t n_keys = seq_raw_keys(s, s->seg_len);

    assert(s->segments[segment].state == SEQ_PACKED);
    give_behind(s, segment, 0);
    put_pages(s, segment, n_keys, pages);
    resize(s, segment, n_keys, SEQ_RAW);
}

/* n_keys stays, so no base moves: what stands behind it is as good as before when it is back. */
void seq_evict(struct seq *s, uint32_t segment)
{
    assert(seq_resident(s, segment));
    give_behind(s, segment, 0);
    resize(s, segment, s->segments[segment].n_keys, SEQ_STORED);
}

void seq_lose(struct seq *s, uint32_t segment)
{
    assert(s->segments[segment].state == SEQ_STORED);
    s->segments[segment].state = SEQ_LOST;
}

void seq_restore(struct seq *s, uint32_t segment, uint32_t n_keys, const uint32_t *pages)
{
    assert(!seq_resident(s, segment));
    put_pages(s, segment, n_keys, pages);
    resize(s, segment, n_keys, n_keys == seq_raw_keys(s, s->seg_len) ? SEQ_RAW : SEQ_PACKED);
}
