/* The ladder (daemon/ladder.h) says what is to be where, in counts; this does it to the sequence's
 * keys, when the scheduler asks. All that differs from what a fresh sequence of the same ids would
 * hold is said by four marks, and each of them ends sharing with others until it is gone:
 *
 *     early      compressed further than its length asks for
 *     n_behind   documents that were read alone stand in it
 *     overlay    segments are raw that the ladder has compressed
 *     n_plain    where reading behind such segments began */
#include "daemon/memory.h"

#include "base/clock.h"
#include "base/least.h"
#include "daemon/again.h"
#include "daemon/memory_inner.h"
#include "daemon/prefix.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* On an error memory_fini takes it as it is. */
int memory_init(struct memory *m, const struct policy *p, const struct served *b, struct seq *seq)
{
    uint32_t every = compress_gist_every(&p->spec);

    *m = (struct memory){
        .policy = *p, .seq = seq, .served = b, .hydrate = p->hydrate, .n_plain = UINT32_MAX
    };
    if (every && !seq->gist_every) /* a fork's sequence has them */
        return seq_interleave(seq, every, p->spec.adapter);
    return 0;
}

void memory_share(struct memory *m, struct prefix *prefix, uint32_t owner, bool keeps_nothing)
{
    /* With gists among its tokens pages are not of 16 tokens. */
    m->shared = (struct prefix_user){ .prefix = m->seq->gist_every ? NULL : prefix,
                                      .owner = owner,
                                      .keeps_nothing = keeps_nothing };
}

void memory_keep(struct memory *m, struct tier *tier)
{
    tier_join(&m->kept, tier, m, m->shared.owner);
}

/* From the tree alone; tier_restore_begin goes on from there. */
uint32_t memory_adopt(struct memory *m, const uint32_t *ids, uint32_t n)
{
    assert(m->n_ids == 0);
    m->n_ids = prefix_adopt(&m->shared, m->seq, &m->ladder, &m->policy, ids, n);
    return m->n_ids;
}

uint32_t memory_known(struct memory *m, const uint32_t *ids, uint32_t n)
{
    uint32_t tree = prefix_known_pages(&m->shared, &m->policy, ids, n) * POOL_PAGE_TOKENS;
    uint32_t disk = tier_known(&m->kept, ids, n);

    return tree > disk ? tree : disk;
}

/* Segments are packed when they were read, while what stood before them is still there: so their
 * queries of that time are those that a second reading would have. Who packs late would have to
 * keep them of all that is raw. */
static struct compress_side *side_of(struct memory *m)
{
    m->side.asked = m->policy.late ? NULL : &m->asked;
    return &m->side;
}

/* What was made of the next segment is forgotten. */
static void drop_side(struct memory *m)
{
    compress_drop(m->served->compressor, m->seq, &m->side);
}

bool memory_joins(const struct policy *p)
{
    return compress_keeps_all(&p->spec) || (!p->late && !compress_gist_every(&p->spec));
}

/* The ladder of both, one behind the other. What is raw although a sequence of that length would
 * have it compressed is the overlay's: a segment that is closed short, and those that keep_tail
 * has kept before it. So is the first compressed segment of what comes behind, which has sinks
 * where no other one has any: it is counted as if it were raw, and never thinned. Thinned segments
 * can't be put together so, since those of the second part would stand below younger ones. */
static int join(const struct memory *m, const struct memory *from, struct ladder *l,
                struct overlay *o)
{
    uint32_t first = (uint32_t)(seq_behind(m->seq) / m->seq->seg_len);
    uint64_t n = seq_behind(m->seq) + from->n_ids, len = m->seq->seg_len;
    int r = 0;

    if (!memory_joins(&m->policy) || l->n_at[2] > 0 || from->ladder.n_at[2] > 0 ||
        from->overlay.n > 0)
        return -ENOTSUP;
    for (uint32_t k = l->n_at[1]; r == 0 && k < first; k++)
        r = overlay_add(o, k);
    if (r == 0 && from->ladder.n_at[1] > 0)
        r = overlay_add(o, first);
    if (r < 0)
        return -ENOTSUP;
    l->n_checked = first + from->ladder.n_checked;
    l->n_at[1] = first + from->ladder.n_at[1];
    /* As behind each check: one segment more has to fit, raw. */
    return ladder_keys(&m->policy, l, n) + (o->n + 1) * len > m->policy.budget ? -ENOTSUP : 0;
}

/* Ladder and overlay are tried on copies: on an error m is what it was. */
int memory_adopt_behind(struct memory *m, const struct memory *from)
{
    uint32_t had = m->n_ids;
    struct ladder l = m->ladder;
    struct overlay o = m->overlay;
    int r = 0;

    assert(policy_same(&m->policy, &from->policy));
    assert(had == m->seq->n_tokens && from->n_ids == from->seq->n_tokens);
    if (had == 0) /* what begins with the other one is what that is */
        l = from->ladder;
    else if (!compress_keeps_all(&m->policy.spec))
        r = join(m, from, &l, &o);
    if (r == 0)
        r = seq_adopt_behind(m->seq, from->seq, from->n_ids);
    if (r < 0)
        return r;
    drop_side(m);
    m->ladder = l;
    m->overlay = o;
    m->n_ids = m->seq->n_tokens;
    if (had == 0)
        return 0;
    if (memory_exact(m))
        m->n_exact = had;
    m->n_behind = m->n_ids;
    return 0;
}

bool memory_exact(const struct memory *m)
{
    return m->n_behind == 0;
}

bool memory_teaches(const struct memory *m)
{
    return m->shared.prefix && memory_lasts(m) && m->ladder.n_at[2] == 0;
}

uint32_t memory_len(const struct memory *m)
{
    return m->away.ids ? m->away.n : m->n_ids;
}

bool memory_is_ids(const struct memory *m)
{
    return !m->early && memory_exact(m) && m->overlay.n == 0 && m->n_plain == UINT32_MAX;
}

bool memory_lasts(const struct memory *m)
{
    return !m->shared.keeps_nothing && memory_is_ids(m);
}

/* The tree and the tier are told, or they would take what comes next for what was there. */
void memory_empty(struct memory *m)
{
    hydrate_fetch_drop(m);
    (void)seq_rewind(m->seq, 0);
    m->n_ids = 0;
    m->ladder = (struct ladder){ 0 };
    own_cut(m, 0, 0);
    prefix_unlearn(&m->shared);
    tier_cut(&m->kept);
}

void memory_restored(struct memory *m, const struct ladder *l)
{
    m->ladder = *l;
    m->n_ids = m->seq->n_tokens;
    prefix_unlearn(&m->shared);
}

/* After a device was lost. Ids that did not come back are put behind those that did: they are read
 * again by the model. */
void memory_bring_back(struct memory *m)
{
    uint32_t n = m->n_ids, *ids;

    if (!m->kept.tier || m->seq->n_tokens > 0 || n < 2 || !memory_exact(m))
        return;
    ids = malloc(n * sizeof(*ids));
    if (!ids)
        return;
    memcpy(ids, m->seq->tokens, n * sizeof(*ids));
    memory_empty(m);
    (void)memory_adopt(m, ids, n);
    tier_restore_now(&m->kept, ids, n);
    memcpy(m->seq->tokens, ids, n * sizeof(*ids));
    m->n_ids = n;
    if (memory_teaches(m))
        prefix_learn(&m->shared, m->seq, &m->ladder, &m->policy);
    free(ids);
}

/* All ids, also those that are to be read again: the fork reads them for itself. The side stays
 * behind, since its pages are charged to one session. */
int memory_fork(const struct memory *m, struct memory *dst, struct seq *seq)
{
    int r = memory_init(dst, &m->policy, m->served, seq);

    memcpy(seq->tokens, m->seq->tokens, (size_t)m->n_ids * sizeof(*seq->tokens));
    memory_share(dst, m->shared.prefix, m->shared.owner, m->shared.keeps_nothing);
    dst->early = m->early;
    dst->n_exact = m->n_exact;
    dst->n_behind = m->n_behind;
    dst->n_ids = m->n_ids;
    dst->ladder = m->ladder;
    dst->overlay = m->overlay;
    dst->hydrate = m->hydrate;
    dst->away = (struct away){ .state = m->away.state, .n_pages = m->away.n_pages };
    dst->n_plain = m->n_plain;
    dst->turn = m->turn;
    own_fork(m, dst);
    if (r == 0)
        asked_fork(m->served->compressor, &m->asked, m->seq, &dst->asked, seq);
    tier_fork(&m->kept, &dst->kept, dst);
    return r < 0 ? r : hydrate_fork(m, dst);
}

/* In this order: what is under way first, which has pages of ours; then what stands beside the
 * sequence; the tier last, which may want the sequence's end. The sequence itself is the
 * caller's. */
void memory_fini(struct memory *m)
{
    if (m->seq) {
        bool keeps = memory_lasts(m);

        away_rest(m);
        drop_side(m);
        asked_drop(m->served->compressor, &m->asked);
        hydrate_fetch_drop(m);
        hydrate_end(m);
        own_cut(m, 0, 0);
        tier_leave(&m->kept, keeps);
    }
    *m = (struct memory){ .seq = NULL };
}

/* --- what is due ------------------------------------------------------------------------------ */

/* What the ladder climbs by. Hydrated segments come and go, and it knows nothing of them; but those
 * of memory_adopt_behind stay, so it has to leave room for them. */
struct policy memory_ladders_policy(const struct memory *m)
{
    struct policy p = m->policy;
    uint64_t more = (uint64_t)m->overlay.n * p.seg_len + ladder_spare(&p, &m->ladder);

    if (memory_exact(m))
        return p;
    p.hydrate = 0;
    p.budget = more < p.budget ? p.budget - (uint32_t)more : 0;
    return p;
}

/* A check comes at a number of tokens, not when a segment happens to be full in some step: so it
 * does not matter in which chunks a text was read. */
static bool is_due(const struct memory *m)
{
    return m->seq->n_tokens >= ladder_due_at(&m->policy, &m->ladder);
}

/* The step that a check waits for. false: it has none, or none is due. */
static bool next_step(const struct memory *m, struct ladder_step *ret)
{
    struct policy p = memory_ladders_policy(m);

    return ladder_next(&p, &m->ladder, m->seq->n_tokens, ret);
}

/* Rows that have to run for a segment before it goes to a rung. */
static uint32_t side_left(struct memory *m, const struct ladder_step *step)
{
    if (step->rung > 1)
        return 0;
    return compress_rows_left(&m->policy.spec, m->seq, step->segment, side_of(m));
}

/* Only of automatic memories: who says what is kept means it. */
static bool in_turn(const struct memory *m, uint32_t segment)
{
    uint32_t len = m->seq->seg_len;

    return m->policy.automatic && memory_exact(m) && !m->seq->gist_every &&
           segment * len < m->turn.to && (segment + 1) * len > m->turn.from;
}

/* Raw pages may be wanted later by this session (own_pack), and now by the model (hydrate_hold):
 * both take references before the compressor writes. */
static int pack(struct memory *m, uint32_t segment)
{
    uint32_t n_keys = ladder_segment_keys(&m->policy, segment, 1), *raw = NULL;
    int r;

    /* Before the pages change hands: what others may still want of the raw ones is marked as the
     * first to go, or a cache full of them would keep the gists from finding pages. */
    if (!m->side.staged) {
        prefix_supersede(&m->shared, m->seq, &m->policy, segment);
        own_pack(m, segment, n_keys);
    }
    if (in_turn(m, segment))
        raw = hydrate_hold(m, segment, n_keys);
    r = compress_finish(m->served->compressor, &m->policy.spec, m->seq, segment, side_of(m));
    if (raw)
        hydrate_stay(m, segment, raw, r == 0);
    return r;
}

/* 0: the ladder may count it. -EAGAIN: a part is done; -ENOSPC. */
static int take_step(struct memory *m, const struct ladder_step *step)
{
    if (overlay_has(&m->overlay, step->segment))
        return 0; /* the ladder's counts climb, its keys stay raw */
    if (step->rung > 1)
        return compress_thin(m->served->compressor, &m->policy.spec, m->seq, step->segment,
                             step->rung - 2);
    return pack(m, step->segment);
}

/* Packing a segment may take as long as many tokens do, and others' answers go on meanwhile. */
static bool has_time(uint64_t *end_ns)
{
    if (end_ns && *end_ns == 0)
        *end_ns = clock_ns() + MEMORY_SETTLE_NS;
    return !end_ns || clock_ns() < *end_ns;
}

/* A check is steps, one segment to one rung each, until the ladder has no more for it. It may take
 * several calls: a step that wants runs of the model first ends this one, and goes on when those
 * have run. What was made for a segment is given up with its step, whether it was needed or not. */
void memory_settle(struct memory *m, uint64_t *end_ns)
{
    struct ladder_step step;

    if (m->away.state == AWAY_COMING) /* the ladder is that of what is there when all of it is */
        return;
    hydrate_settle(m);
    while (is_due(m)) {
        if (!next_step(m, &step)) {
            ladder_check(&m->ladder);
            continue;
        }
        if (side_left(m, &step) > 0)
            return; /* memory_plan says so */
        m->settled = has_time(end_ns) ? take_step(m, &step) : -EAGAIN;
        if (m->settled == -EAGAIN && has_time(end_ns))
            continue; /* a part of it is done */
        if (m->settled < 0)
            return; /* and this */
        ladder_take(&m->ladder, &step);
        drop_side(m);
        /* Before it is thinned, which the next step may ask for. */
        if (step.rung == 1 && memory_lasts(m))
            tier_note(&m->kept);
    }
}

/* Ids that are not in the sequence are those of a rewind into a compressed segment: they are read
 * again before what the request itself brings, as if they had never been away. */
static bool is_short(const struct memory *m)
{
    return m->seq->n_tokens < m->n_ids && !m->hydration.coming;
}

bool memory_behind(const struct memory *m)
{
    return is_due(m) || is_short(m) || (m->hydration.again && !again_done(m->hydration.again));
}

/* Keys that it has, hydrated ones included, and would have with one token more. */
static uint64_t keys_with_one_more(const struct memory *m)
{
    const struct seq *s = m->seq;
    uint32_t off = s->n_tokens % s->seg_len;

    return ladder_keys(&m->policy, &m->ladder, s->n_tokens) +
           overlay_keys(&m->overlay, &m->policy, &m->ladder) + seq_raw_keys(s, off + 1) -
           seq_raw_keys(s, off);
}

/* Pages are short: of which of the two accounts. What a disk has comes back soon. */
static int lacks(const struct memory *m, uint32_t wanted, struct memory_need *ret)
{
    const struct pool_account *a = m->seq->account;
    const struct pool *p = m->seq->pool;
    uint32_t coming = tier_coming(m->served->tier), n_free = p->n_free + p->n_cached;
    uint32_t left = pool_room(p, a, coming);

    *ret = wanted > left ? (struct memory_need){ MEMORY_CLIENT, wanted, left }
                         : (struct memory_need){ MEMORY_POOL, wanted, n_free };
    if (wanted > left || wanted > n_free + coming)
        return -ENOSPC;
    ret->cause = MEMORY_WAITING;
    return -EAGAIN;
}

/* A step that memory_settle could not take: of the pages that it would have written to some stand
 * in other tables, too, and their copies cost the pool pages, but the account nothing. The step
 * itself needs no page: it can write in place. */
static int lacks_copies(const struct memory *m, const struct ladder_step *step,
                        struct memory_need *ret)
{
    const struct seq *s = m->seq;
    uint32_t n = seq_n_pages(ladder_segment_keys(&m->policy, step->segment, step->rung));
    uint32_t n_shared = 0, coming = tier_coming(m->served->tier), n_free;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t page = seq_pages(s, step->segment)[i];

        n_shared += pool_shared(s->pool, page) && pool_copy_costs(s->pool, s->account, page);
    }
    n_free = s->pool->n_free + s->pool->n_cached;
    *ret = (struct memory_need){ MEMORY_POOL, n_shared, n_free };
    /* Somebody has just given some back, or will. */
    if (n_shared <= n_free + coming && n_shared <= pool_room_copies(s->pool, s->account, coming)) {
        ret->cause = MEMORY_WAITING;
        return -EAGAIN;
    }
    return -ENOSPC;
}

/* A check that waits: for runs, which are planned here, or for pages, which memory_settle found
 * none of. */
static int plan_side(struct memory *m, uint32_t max, struct forward_run *ret,
                     struct memory_need *ret_need)
{
    const struct compress_spec *c = &m->policy.spec;
    struct ladder_step step;
    bool due;
    int r;

    due = next_step(m, &step);
    assert(due); /* memory_settle ends checks that have no step */
    *ret_need = (struct memory_need){ .cause = MEMORY_WAITING };
    if (side_left(m, &step) == 0)
        return m->settled == -ENOSPC ? lacks_copies(m, &step, ret_need) : m->settled;
    r = compress_plan(m->served->compressor, c, m->seq, step.segment, side_of(m), max, ret);
    if (r == -ENOSPC)
        r = lacks(m, seq_n_pages(compress_n_beside(c, m->seq->seg_len, step.segment)), ret_need);
    return r;
}

static int reserve(struct memory *m, uint32_t n, struct memory_need *ret_need)
{
    int r = seq_reserve(m->seq, n);

    return r == -ENOSPC ? lacks(m, seq_wants(m->seq, n), ret_need) : r;
}

/* In turn: a check that is due, a segment that is computed again, ids that are read again.
 * memory_behind was true. */
int memory_plan(struct memory *m, uint32_t max, struct forward_run *ret,
                struct memory_need *ret_need)
{
    struct seq *s = m->seq;
    int r;

    *ret = (struct forward_run){ .seq = s };
    if (is_due(m))
        return plan_side(m, max, ret, ret_need);
    if (!is_short(m)) {
        again_plan(m->hydration.again, max, ret);
        return 0;
    }
    /* What is read again stops at the next check, like all reading: a fresh sequence would have
     * compressed there, and what comes behind must see the same. */
    ret->tokens = s->tokens + s->n_tokens;
    do
        ret->n_tokens = min_u32(min_u32(m->n_ids - s->n_tokens, max), memory_room(m));
    while (ret->n_tokens == 0 && hydrate_less(m));
    if (ret->n_tokens == 0) {
        *ret_need = (struct memory_need){ MEMORY_BUDGET, keys_with_one_more(m), m->policy.budget };
        return -ENOSPC;
    }
    memory_watch(m, ret);
    r = reserve(m, ret->n_tokens, ret_need);
    /* What came back for a question that is read again is worth less than that reading. */
    while (r == -ENOSPC && hydrate_less(m))
        r = reserve(m, ret->n_tokens, ret_need);
    return r;
}

/* Queries of the segment that is checked next. What comes behind it before the check is read once
 * more in any case, since the check changes what it sees. */
void memory_watch(struct memory *m, struct forward_run *run)
{
    uint32_t segment = m->ladder.n_checked;

    if (!m->policy.late && !compress_keeps_all(&m->policy.spec) && m->ladder.n_at[1] <= segment &&
        !overlay_has(&m->overlay, segment))
        asked_watch(m->served->compressor, &m->policy.spec, &m->asked, segment, run);
}

bool memory_in_line(const struct memory *m)
{
    return compress_in_line(m->served->compressor, &m->side);
}

/* What is taught and noted here is the sequence's state between two steps: nothing is
 * half-written. */
void memory_ran(struct memory *m, const struct forward_run *run)
{
    if (run->seq != m->seq) /* a segment that is computed again, which is not the sequence's yet */
        return;
    asked_ran(&m->asked, run);
    if (!forward_run_reads(run))
        compress_ran(&m->side, run);
    else if (m->seq->n_tokens > m->n_ids)
        m->n_ids = m->seq->n_tokens;
    if (memory_teaches(m))
        prefix_learn(&m->shared, m->seq, &m->ladder, &m->policy);
    if (memory_lasts(m))
        tier_note(&m->kept);
}

void memory_rest(struct memory *m)
{
    if (!m->seq)
        return;
    away_rest(m);
    drop_side(m);
    asked_rest(&m->asked);
}

/* Back in what was read in one go. Segments there that keep_tail had kept raw when others came
 * behind them are compressed at their checks again. */
static void come_back(struct memory *m)
{
    m->n_exact = m->n_behind = 0;
    if (m->overlay.n == 0)
        return;
    ladder_cut(&m->ladder, m->overlay.segments[0]);
    m->overlay.n = 0;
}

/* Where a fresh sequence would stand elsewhere it is told from that. */
static void compare_fresh(struct memory *m)
{
    struct ladder fresh = { 0 };

    ladder_climb(&m->policy, &fresh, 0, m->seq->n_tokens, NULL, NULL);
    m->early = m->early || !ladder_equal(&m->ladder, &fresh);
}

/* `left` is where the sequence stands then, which is less than n where n lies in a compressed
 * segment. Everything that knows of tokens behind it is cut in turn: hydration, the turn, the
 * sequence, the ladder, the overlay, marks. */
void memory_rewind(struct memory *m, uint32_t n)
{
    uint32_t left;

    assert(n <= m->n_ids);
    /* To before the prompt: as if it had never been. All that is hydrated stands before it. */
    if (n <= m->hydration.n_read)
        hydrate_end(m);
    else
        hydrate_cut(m, n);
    memory_turn(m, m->turn.from, min_u32(m->turn.to, n));
    left = seq_rewind(m->seq, min_u32(n, m->seq->n_tokens));
    if (left < m->hydration.n_read) /* what stands before the prompt is to be read again */
        hydrate_end(m);
    m->n_ids = n;
    if (left <= m->n_plain && !hydrate_is_on(m))
        m->n_plain = UINT32_MAX;
    else
        m->n_plain = min_u32(m->n_plain, left);
    if (m->n_behind > left)
        m->n_behind = left;
    ladder_rewind(&m->policy, &m->ladder, left);
    overlay_cut(&m->overlay, m->ladder.n_at[1]);
    own_cut(m, m->ladder.n_at[1], left);
    hydrate_fetch_cut(m);
    if (n <= m->n_exact)
        come_back(m);
    /* Segments that were compressed stay so, though a fresh sequence of this length would have them
     * raw, or on lower rungs: to have them back, their tokens would have to be read again while the
     * segment before each is raw, and so on to the first. Until nothing is compressed any more such
     * a session is not a function of its ids alone, and teaches others nothing. */
    compare_fresh(m);
    if (m->ladder.n_at[1] == 0)
        m->early = false;
    prefix_unlearn(&m->shared);
    tier_cut(&m->kept);
    drop_side(m);
}

void memory_turn(struct memory *m, uint32_t from, uint32_t to)
{
    m->turn.from = from;
    m->turn.to = from < to ? to : 0;
}

/* It holds other than a fresh one then, which compare_fresh notes. */
bool memory_thin(struct memory *m)
{
    struct ladder_step step;

    if (!ladder_thinner(&m->policy, &m->ladder, &step) || take_step(m, &step) < 0)
        return false;
    ladder_take(&m->ladder, &step);
    compare_fresh(m);
    return true;
}

/* The ids stay in the sequence's array behind its end, where memory_plan takes them from. */
void memory_reread(struct memory *m, uint32_t n)
{
    uint32_t n_ids = m->n_ids;

    memory_rewind(m, n_ids - n);
    m->n_ids = n_ids;
}

/* What the ladder has done until now was for the larger budget. */
bool memory_lower(struct memory *m)
{
    if (!policy_lower(&m->policy))
        return false;
    compare_fresh(m);
    prefix_unlearn(&m->shared);
    tier_rescope(&m->kept);
    return true;
}
