#include "engine/seq.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

static uint32_t pages_for(uint32_t n_tokens)
{
    return (n_tokens + POOL_PAGE_TOKENS - 1) / POOL_PAGE_TOKENS;
}

int seq_open(struct seq *s, struct pool *pool, struct pool_account *account, uint32_t max_tokens,
             uint32_t seg_len, uint32_t pos0)
{
    *s = (struct seq){
        .pool = pool, .account = account, .seg_len = seg_len, .max_tokens = max_tokens, .pos0 = pos0
    };
    if (seg_len < SEQ_SEGMENT_MIN || seg_len > SEQ_SEGMENT_MAX || seg_len % POOL_PAGE_TOKENS ||
        max_tokens == 0 || max_tokens > SEQ_TOKENS_MAX)
        return -EINVAL;
    /* Untouched pages of these tables cost address space, not memory. */
    s->tokens = malloc((size_t)max_tokens * sizeof(*s->tokens));
    s->pages = malloc((size_t)pages_for(max_tokens) * sizeof(*s->pages));
    if (!s->tokens || !s->pages) {
        seq_close(s);
        return -ENOMEM;
    }
    return 0;
}

void seq_close(struct seq *s)
{
    if (!s)
        return;
    if (s->n_pages)
        pool_give(s->pool, s->account, s->n_pages, s->pages);
    free(s->tokens);
    free(s->pages);
    *s = (struct seq){ 0 };
}

int seq_reserve(struct seq *s, uint32_t n)
{
    uint32_t want, have = s->n_pages;
    int r;

    if (n > s->max_tokens - s->n_tokens)
        return -E2BIG;
    want = pages_for(s->n_tokens + n);
    if (want > have) {
        r = pool_take(s->pool, s->account, want - have, s->pages + have);
        if (r < 0)
            return r;
        s->n_pages = want;
    }
    if (s->n_tokens + n > s->n_reserved)
        s->n_reserved = s->n_tokens + n;
    return 0;
}

void seq_rewind(struct seq *s, uint32_t n)
{
    uint32_t keep = pages_for(n);

    assert(n <= s->n_tokens);
    if (s->n_pages > keep)
        pool_give(s->pool, s->account, s->n_pages - keep, s->pages + keep);
    s->n_pages = keep;
    s->n_tokens = s->n_reserved = n;
}
