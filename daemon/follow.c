/* A follower holds nothing and is nobody's: it only looks again, in each step, whether its leader
 * still goes ahead. So a leader may end in any way without having to care for who follows it, and
 * what a follower does next is decided anew from what is known then, not from what was promised.
 *
 * The road not taken: to hand the pages over from sequence to sequence. That would be faster by
 * one walk through the tree, but the two could then not differ in length, and each way to end (a
 * cancel, a full pool, a client that dies) would have to be thought of twice.
 */
#include "daemon/follow.h"

#include "base/least.h"

#include <assert.h>
#include <string.h>

/* Ids that are compared in one look. Sessions that begin alike for very long and then differ are
 * told apart to here: past it the best one so far is followed, which may cost some reading. */
#define LOOK_IDS (1u << 20)

void follow_init(struct follow *f)
{
    *f = (struct follow){ .woke = false };
    TAILQ_INIT(&f->readers);
}

void follow_join(struct follow *f, struct follow_reader *r)
{
    assert(!r->joined && !r->leader);
    if (!r->memory->shared.prefix)
        return;
    r->joined = true;
    r->reads = r->n_had > 0;
    r->age = f->n_joined++;
    TAILQ_INSERT_TAIL(&f->readers, r, link);
}

void follow_leave(struct follow *f, struct follow_reader *r)
{
    struct follow_reader *q;

    if (!r->joined)
        return;
    TAILQ_REMOVE(&f->readers, r, link);
    r->joined = false;
    r->leader = NULL;
    TAILQ_FOREACH (q, &f->readers, link) {
        if (q->leader != r)
            continue;
        q->leader = NULL;
        f->woke = true;
    }
}

/* --- who may be followed ---------------------------------------------------------------------- */

/* How many of the first n are equal. */
static uint32_t n_equal(const uint32_t *a, const uint32_t *b, uint32_t n)
{
    const uint32_t at_once = POOL_PAGE_TOKENS;
    uint32_t i = 0;

    while (n - i >= at_once && memcmp(a + i, b + i, at_once * sizeof(*a)) == 0)
        i += at_once;
    while (i < n && a[i] == b[i])
        i++;
    return i;
}

/* Ids that r, which has none yet, begins with as q does or will: less than all of r's, since one at
 * least is to be read. */
static uint32_t n_common(const struct follow_reader *q, const struct follow_reader *r)
{
    uint32_t most = r->n - 1, n = n_equal(r->ids, q->memory->seq->tokens, min_u32(q->n_had, most));

    if (n == q->n_had)
        n += n_equal(r->ids + n, q->ids, min_u32(q->n, most - n));
    return n;
}

static bool has_taught(const struct follow_reader *q, uint32_t n_pages, uint32_t n_packed)
{
    const struct prefix_user *u = &q->memory->shared;

    return u->n_pages >= n_pages && u->n_packed >= n_packed;
}

static bool goes_ahead(const struct follow_reader *q)
{
    return q->n_stalled <= FOLLOW_STALLED_MAX && memory_teaches(q->memory);
}

/* Of the same owner and policy, and F2. One that is behind what is known, since it could not take
 * that over, is no help. */
static bool may_follow(const struct follow_reader *q, const struct follow_reader *r,
                       uint32_t n_known)
{
    const struct memory *a = q->memory, *b = r->memory;

    if (q == r || a->shared.prefix != b->shared.prefix || a->shared.owner != b->shared.owner ||
        !policy_same(&a->policy, &b->policy) || !goes_ahead(q))
        return false;
    if (!q->reads)
        return q->age < r->age;
    return q->restoring || a->seq->n_tokens / POOL_PAGE_TOKENS >= n_known;
}

/* The one who shares most with r, more than what is known; of equals one that reads before one that
 * waits, and the older before the younger. */
static void look(struct follow *f, struct follow_reader *r)
{
    const struct policy *p = &r->memory->policy;
    uint32_t most = prefix_known_pages(&r->memory->shared, p, r->ids, r->n), n_known = most;
    uint64_t compared = 0;
    struct follow_reader *q;

    TAILQ_FOREACH (q, &f->readers, link) {
        uint32_t n, n_packed;

        if (compared > LOOK_IDS)
            break;
        if (!may_follow(q, r, n_known))
            continue;
        n = n_common(q, r);
        compared += n + POOL_PAGE_TOKENS;
        /* Thinned segments are nobody else's. */
        n = (uint32_t)(ladder_unthinned(p, n) / POOL_PAGE_TOKENS);
        if (n < most || (n == most && (!r->leader || r->leader->reads || !q->reads)))
            continue;
        n_packed = ladder_of(p, (uint64_t)n * POOL_PAGE_TOKENS).n_at[1];
        if (has_taught(q, n, n_packed))
            continue;
        r->leader = q;
        r->n_pages = most = n;
        r->n_packed = n_packed;
    }
}

bool follow_waits(struct follow *f, struct follow_reader *r)
{
    if (!r->joined || r->reads)
        return false;
    if (r->leader && goes_ahead(r->leader) && !has_taught(r->leader, r->n_pages, r->n_packed))
        return true;
    r->leader = NULL;
    look(f, r);
    r->reads = !r->leader;
    return !r->reads;
}

uint32_t follow_read(const struct follow_reader *r)
{
    const struct follow_reader *q = r->leader;
    uint32_t n = r->n_pages * POOL_PAGE_TOKENS;

    while (q && !q->reads) /* by F2 there is an end */
        q = q->leader;
    if (!q)
        return 0;
    return q->memory->seq->n_tokens < n ? q->memory->seq->n_tokens : n;
}

/* --- haste ------------------------------------------------------------------------------------ */

void follow_asked(struct follow_reader *r, bool had)
{
    r->n_stalled = had ? 0 : r->n_stalled + 1;
}

void follow_hurry(struct follow *f)
{
    struct follow_reader *r, *q;

    TAILQ_FOREACH (r, &f->readers, link)
        r->hurried = false;
    TAILQ_FOREACH (r, &f->readers, link)
        if (r->priority == WIRE_INTERACTIVE)
            for (q = r->leader; q && !q->hurried; q = q->leader)
                q->hurried = true;
}

bool follow_woke(struct follow *f)
{
    bool woke = f->woke;

    f->woke = false;
    return woke;
}
