/* engine/kv/seq.h - one token sequence: its ids, its segments, its page table.
 *
 * Tokens stand in segments of seg_len. A segment has a base, the position of its first key; keys
 * are stored rotated by their offset inside the segment, and a query is rotated by (its position -
 * base): moving a segment moves its base and touches no key.
 *
 *     segment 0              segment 1                segment 2 (open)
 *     |p0|p1|p2|..           |p32|p33|  |  |..        |p64|p65|      pages, 16 keys each
 *      raw: seg_len keys      compressed: n_keys       raw, n_tokens % seg_len keys
 *     base 0                 base seg_len             base seg_len + n_keys of segment 1
 *
 * A segment has its slots in the page table whether they hold pages or not. Compressing one
 * shortens it and moves the bases behind it: positions stay without gaps, keys behind it stay as
 * they are.
 *
 * States of a segment; seq_x makes the arrow x. The open segment is RAW, and so is every new one.
 *
 *            shorten, replace             shorten, replace
 *       RAW ------------------> PACKED ------------------> PACKED, thinned
 *        ^ <------------------    ^
 *        |        lengthen        |
 *        |                        |
 *        +-------- evict ---------+--------> STORED --- lose ---> LOST
 *        +<------ restore --------+<------------+                   |
 *        +<------ restore --------+<--------------------------------+  (its tokens were read again)
 *
 * shorten is in place, replace by other pages. A STORED or LOST segment has no pages: nothing may
 * attend to it, so its sequence waits until it is restored. It keeps its number of keys, and
 * positions behind it stay. Forks have segments in the states that they were in; a rewind forgets
 * segments in any state.
 *
 * A sequence may go on with what another one read from its own first token on, a document, say.
 * That begins a segment, so the open one before it is closed short: it is full and PACKED with the
 * raw keys that it has, and the ids up to its end are SEQ_FILLER, which no model knows and nobody
 * reads.
 *
 *     tokens   | a a a a a a a a | a a a . . . . . | b b b b b b b b | b b b      . filler
 *     keys       8                 3                 8                 3 so far
 *
 * In a sequence with gist_every r a gist stands behind every r tokens of a segment, a key of its
 * own: what follows sees it (mask rule in-segment). Then a raw segment has more keys than tokens,
 * and n_tokens, seg_len and all numbers of tokens are without gists. Token ids are kept for the
 * life of the sequence; a sequence that is dropped can be rebuilt.
 *
 * Invariants
 *   S1  n_tokens <= n_reserved <= max_tokens; a raw segment's pages cover its reserved tokens, a
 *       packed one's its keys, others have none. All n_pages are charged to account.
 *   S2  KV of a raw segment's tokens and of a packed one's keys is valid in every layer; the
 *       rest is never read.
 *   S3  Bases ascend: base[k + 1] = base[k] + keys of segment k. The open segment is raw.
 *   S4  A page that will be written (of a reserved token, or by a compressor) stands in this table
 *       only.
 *
 * Threads    the scheduler's.
 * Ownership  borrows pool and account, owns its tables and pages.
 */
#ifndef ENGINE_KV_SEQ_H
#define ENGINE_KV_SEQ_H

#include "engine/file/adapter.h"
#include "engine/kv/pool.h"

#define SEQ_SEGMENT_DEFAULT 512u
#define SEQ_SEGMENT_MIN     64u
#define SEQ_SEGMENT_MAX     8192u
#define SEQ_TOKENS_MAX      (1u << 23) /* a distance that engine/kv/rotary.h has angles for */
#define SEQ_FILLER          UINT32_MAX /* an id that is none */

enum seq_state {
    SEQ_RAW,    /* a key for each token */
    SEQ_PACKED, /* compressed: n_keys */
    SEQ_STORED, /* its pages are elsewhere */
    SEQ_LOST    /* only its ids are left */
};

struct seq_segment {
    uint32_t base;   /* position of its first key */
    uint32_t n_keys; /* that it has, or will have when it is full or restored */
    enum seq_state state;
};

struct seq {
    struct pool *pool;
    struct pool_account *account;
    uint32_t seg_len; /* a multiple of POOL_PAGE_TOKENS */
    uint32_t max_tokens;
    uint32_t gist_every;           /* a divisor of seg_len; 0: no gists between tokens */
    const struct adapter *adapter; /* that makes them */
    uint32_t pos0;                 /* position of the first token */
    uint32_t n_tokens, n_reserved;
    uint32_t n_pages;             /* held */
    uint32_t *tokens;             /* (max_tokens) */
    uint32_t n_slots;             /* of a segment in pages */
    uint32_t *pages;              /* (segments, n_slots): key i of a segment is in page i / 16 */
    struct seq_segment *segments; /* (max_tokens / seg_len + 1): valid up to n_reserved */
    uint64_t n_changes; /* of its keys, but by reading on: is what follows from them still so? */
};

/* SEQ_SEGMENT_MIN to SEQ_SEGMENT_MAX, a multiple of POOL_PAGE_TOKENS. */
bool seq_takes_segments(uint32_t seg_len);
/* -EINVAL: no such segments, or tokens; -ENOMEM. */
int seq_open(struct seq *s, struct pool *pool, struct pool_account *account, uint32_t max_tokens,
             uint32_t seg_len, uint32_t pos0);
/* An empty sequence gets gist_every and, borrowed, the adapter. -ENOMEM. */
int seq_interleave(struct seq *s, uint32_t every, const struct adapter *adapter);
void seq_close(struct seq *s);

/* dst becomes a sequence of its own with the same tokens and the same pool, account and shape;
 * pages are shared until one of the two writes to them. dst's max_tokens are s's. -ENOMEM; -ENOSPC:
 * the account. */
int seq_fork(const struct seq *s, struct seq *dst);

/* A sequence without reserved tokens, at the start of a page or segment, goes on with what another
 * one read: raw keys of n ids, no further than the segment's end, or a compressed segment of
 * seg_len ids. Its account has room for their pages, which get a table more. */
void seq_adopt_raw(struct seq *s, const uint32_t *ids, uint32_t n, const uint32_t *pages);
void seq_adopt_compressed(struct seq *s, const uint32_t *ids, uint32_t n_keys,
                          const uint32_t *pages);

/* Tokens that it has with its open segment closed: where another one's begin. */
uint64_t seq_behind(const struct seq *s);
/* Goes on with the first n tokens of another sequence of the same pool and shape, as those stand:
 * behind s's own, at the start of a segment. Pages are shared; what was reserved behind s's tokens
 * goes back. n is not inside a compressed segment, and none before it is STORED or LOST. -E2BIG:
 * past max_tokens; -ENOSPC: the account; then nothing was taken over. */
int seq_adopt_behind(struct seq *s, const struct seq *from, uint32_t n);

/* Takes pages so that n more tokens fit after n_tokens. -E2BIG: past max_tokens; -ENOSPC: the pool
 * or the account has too few pages. Nothing that can be seen changes on an error. */
int seq_reserve(struct seq *s, uint32_t n);
/* Pages that seq_reserve has to have for n more tokens. */
uint32_t seq_wants(const struct seq *s, uint32_t n);

/* Forgets tokens after the first n and gives back the pages behind them. Inside a segment that is
 * not raw there is nothing to go back to: all of it is forgotten. How many tokens are left. */
uint32_t seq_rewind(struct seq *s, uint32_t n);

/* Position of the token that comes after the first n, n <= n_tokens: also the number of keys before
 * it. */
uint32_t seq_position(const struct seq *s, uint32_t n);

/* Before a compressor writes to the first n_keys keys of a segment. -ENOSPC: shared pages are to be
 * copied, and there are none to copy them to. */
int seq_own(struct seq *s, uint32_t segment, uint32_t n_keys);

/* A full segment, raw or packed, becomes a packed one: its first n_keys keys were rewritten in
 * place and the pages behind them go back. */
void seq_shorten(struct seq *s, uint32_t segment, uint32_t n_keys);
/* The same with other pages, which hold n_keys and were taken for the same account: they are the
 * sequence's now, and the segment's own go back as they are. */
void seq_replace(struct seq *s, uint32_t segment, uint32_t n_keys, const uint32_t *pages);
/* The way back: a packed one becomes raw again. pages, taken for the same account, hold all of its
 * seq_raw_keys(seg_len) keys. */
void seq_lengthen(struct seq *s, uint32_t segment, const uint32_t *pages);

/* A full segment gives its pages back and is STORED: whoever asks has a copy of them. */
void seq_evict(struct seq *s, uint32_t segment);
/* The copy of a stored one is gone, too. */
void seq_lose(struct seq *s, uint32_t segment);
/* A stored or lost one has n_keys in pages again, taken for the same account: it is RAW with a key
 * for each token, else PACKED. */
void seq_restore(struct seq *s, uint32_t segment, uint32_t n_keys, const uint32_t *pages);

/* It has pages: what attends may see it. */
static inline bool seq_resident(const struct seq *s, uint32_t segment)
{
    return s->segments[segment].state <= SEQ_PACKED;
}

/* Pages of n_keys. */
static inline uint32_t seq_n_pages(uint32_t n_keys)
{
    return (n_keys + POOL_PAGE_TOKENS - 1) / POOL_PAGE_TOKENS;
}

/* Page table of a segment. */
static inline uint32_t *seq_pages(const struct seq *s, uint32_t segment)
{
    return s->pages + (size_t)segment * s->n_slots;
}
/* Up to which segment there are any, and how many a segment has. */
uint32_t seq_n_segments(const struct seq *s);
uint32_t seq_pages_of(const struct seq *s, uint32_t segment);

/* Keys of so many tokens of a raw segment; or of raw segments, one after the other. */
static inline uint32_t seq_raw_keys(const struct seq *s, uint32_t n_tokens)
{
    return s->gist_every ? n_tokens + n_tokens / s->gist_every : n_tokens;
}

/* Tokens that take no more than so many rows of a batch, with the gists among them. */
static inline uint32_t seq_tokens_of_rows(const struct seq *s, uint32_t n_rows)
{
    uint64_t every = s->gist_every;

    return every ? (uint32_t)(n_rows * every / (every + 1)) : n_rows;
}

#endif
