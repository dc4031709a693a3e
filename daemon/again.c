/* Pages change hands by accounts alone: `own` takes them, since a sequence has one account, and its
 * share of the segment is moved to the account of the sequence that it is for. So that one is
 * charged from the beginning, and what is shared with it before the segment is charged to nobody
 * twice. */
#include "daemon/again.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct again {
    struct seq seq;
    struct pool_account own; /* of seq; no limit */
    const struct seq *of;
    uint32_t segment;
    bool paid; /* the segment's pages are charged to the account of `of` */
};

static uint32_t first_token(const struct again *a)
{
    return a->segment * a->seq.seg_len;
}

static uint32_t n_pages(const struct again *a)
{
    return seq_n_pages(a->seq.seg_len);
}

/* All pages that it will need are taken and paid for here: to be refused in the middle would have
 * cost the time of what was read. */
static int fill(struct again *a)
{
    int r = 0;

    if (a->segment > 0)
        r = seq_adopt_behind(&a->seq, a->of, first_token(a));
    if (r == 0)
        r = seq_reserve(&a->seq, a->seq.seg_len);
    if (r == 0)
        r = pool_account_move(&a->own, a->of->account, n_pages(a));
    a->paid = r == 0;
    return r;
}

/* seq_open has room for the tokens up to the segment's end, and no more is ever read. */
int again_begin(struct seq *s, uint32_t segment, struct again **ret)
{
    struct again *a = calloc(1, sizeof(*a));
    int r;

    assert((segment + 1) * s->seg_len <= s->n_tokens && !s->gist_every);
    if (!a)
        return -ENOMEM;
    a->own.limit = UINT32_MAX;
    a->own.owner = s->account->owner;
    a->of = s;
    a->segment = segment;
    r = seq_open(&a->seq, s->pool, &a->own, (segment + 1) * s->seg_len, s->seg_len, s->pos0);
    if (r == 0)
        r = fill(a);
    if (r < 0) {
        again_drop(a);
        return r;
    }
    *ret = a;
    return 0;
}

/* Ids are those of the sequence itself, which keeps them as long as it lives. */
void again_plan(struct again *a, uint32_t max, struct forward_run *ret)
{
    uint32_t left = first_token(a) + a->seq.seg_len - a->seq.n_tokens;

    assert(left > 0);
    *ret = (struct forward_run){ .seq = &a->seq,
                                 .tokens = a->of->tokens + a->seq.n_tokens,
                                 .n_tokens = left < max ? left : max,
                                 .want = FORWARD_WANT_NONE };
}

bool again_done(const struct again *a)
{
    return a->seq.n_tokens == first_token(a) + a->seq.seg_len;
}

/* Its own account has no limit, so what it pays for a moment can't fail; and the other one has just
 * had as much. */
static void pay_back(struct again *a)
{
    int r = a->paid ? pool_account_move(a->of->account, &a->own, n_pages(a)) : 0;

    assert(r == 0);
    (void)r;
    a->paid = false;
}

/* Paid back, then shared: for a moment the account has less than it had, so that it can't be
 * refused. `own` keeps its entries until again_drop. */
void again_take(struct again *a, uint32_t *ret_pages)
{
    const uint32_t *pages = seq_pages(&a->seq, a->segment);
    int r;

    assert(again_done(a) && a->paid);
    pay_back(a);
    r = pool_share(a->seq.pool, a->of->account, n_pages(a), pages);
    assert(r == 0);
    (void)r;
    memcpy(ret_pages, pages, n_pages(a) * sizeof(*ret_pages));
}

void again_drop(struct again *a)
{
    if (!a)
        return;
    pay_back(a);
    seq_close(&a->seq);
    free(a);
}
