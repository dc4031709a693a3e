/* engine/seq.h - one token sequence: its ids, its segments, its page table.
 *
 * Tokens stand in segments of seg_len; each segment begins a page and has a base, the position of its
 * first token. Keys are stored rotated by the offset inside their segment, and a query is rotated by
 * (its position - base): moving a segment moves its base and touches no key.
 *
 *     segment 0            segment 1            segment 2 (open)
 *     |p0|p1|p2|..         |p32|p33|..          |p64|p65|   pages in order, 16 tokens each
 *
 * Token ids are kept for the life of the sequence; a sequence that is dropped can be rebuilt.
 *
 * Invariants
 *   S1  n_tokens <= n_reserved <= max_tokens; pages cover [0, n_reserved) and are charged to account.
 *   S2  KV of tokens [0, n_tokens) is valid in every layer; the rest is never read.
 *
 * Threads    the scheduler's.
 * Ownership  borrows pool and account, owns its tables and pages.
 */
#ifndef ENGINE_SEQ_H
#define ENGINE_SEQ_H

#include "engine/pool.h"

#define SEQ_SEGMENT_DEFAULT 512u
#define SEQ_SEGMENT_MIN     64u
#define SEQ_SEGMENT_MAX     8192u
#define SEQ_TOKENS_MAX      (1u << 23)     /* a distance that engine/rotary.h has angles for */

struct seq {
    struct pool *pool;
    struct pool_account *account;
    uint32_t seg_len;                /* a multiple of POOL_PAGE_TOKENS */
    uint32_t max_tokens;
    uint32_t pos0;                   /* position of the first token */
    uint32_t n_tokens, n_reserved;
    uint32_t n_pages;
    uint32_t *tokens;                /* (max_tokens) */
    uint32_t *pages;                 /* (max_tokens / 16, rounded up) */
};

/* seg_len: SEQ_SEGMENT_MIN to SEQ_SEGMENT_MAX, a multiple of 16. -EINVAL, -ENOMEM. */
int seq_open(struct seq *s, struct pool *pool, struct pool_account *account, uint32_t max_tokens,
             uint32_t seg_len, uint32_t pos0);
void seq_close(struct seq *s);

/* Takes pages so that n more tokens fit after n_tokens. -E2BIG: past max_tokens; -ENOSPC: the pool or
 * the account has too few pages. Nothing changes on an error. */
int seq_reserve(struct seq *s, uint32_t n);

/* Forgets tokens after the first n and gives back the pages behind them. */
void seq_rewind(struct seq *s, uint32_t n);

static inline uint32_t seq_n_segments(const struct seq *s, uint32_t n_tokens)
{
    return (n_tokens + s->seg_len - 1) / s->seg_len;
}

#endif
