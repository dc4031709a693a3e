#include "daemon/memory.h"

#include "daemon/prefix.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int memory_init(struct memory *m, const struct policy *p, const struct served *b, struct seq *seq)
{
    const struct compress_spec *c = &p->spec;
    size_t n_heads = (size_t)b->model->n_layer * b->model->n_head_kv;
    uint32_t every = compress_gist_every(c);
    bool bad = false;

    *m = (struct memory){ .policy = *p, .seq = seq, .served = b };
    if (every && !seq->gist_every) /* a fork's sequence has them */
        bad = seq_interleave(seq, every, c->adapter) < 0;
    if (compress_n_observers(c, seq->seg_len))
        bad |= !(m->weights = malloc(n_heads * seq->seg_len * sizeof(*m->weights)));
    if (compress_n_beside(c, seq->seg_len, 1))
        bad |= !(m->side_pages = malloc(seq_n_pages(seq->seg_len) * sizeof(*m->side_pages)));
    if (c->method == COMPRESS_COARSE_REC)
        bad |= !(m->hidden = malloc((size_t)compress_n_gists(c, seq->seg_len, 1) *
                                    b->model->n_embd * sizeof(*m->hidden)));
    return bad ? -ENOMEM : 0;
}

void memory_share(struct memory *m, struct prefix *prefix, uint32_t owner)
{
    m->prefix = m->seq->gist_every ? NULL : prefix; /* its pages are not of 16 tokens */
    m->owner = owner;
}

/* What was made of the next segment is forgotten. */
static void drop_side(struct memory *m)
{
    if (m->n_side_pages)
        pool_give(m->seq->pool, m->seq->account, m->n_side_pages, m->side_pages);
    m->n_side_pages = m->n_side = 0;
}

int memory_fork(const struct memory *m, struct memory *dst, struct seq *seq)
{
    int r = memory_init(dst, &m->policy, m->served, seq);

    memcpy(seq->tokens, m->seq->tokens, (size_t)m->n_ids * sizeof(*seq->tokens));
    memory_share(dst, m->prefix, m->owner);
    dst->early = m->early;
    dst->n_ids = m->n_ids;
    dst->ladder = m->ladder;
    return r;
}

void memory_fini(struct memory *m)
{
    if (m->seq)
        drop_side(m);
    free(m->weights);
    free(m->side_pages);
    free(m->hidden);
    *m = (struct memory){ .seq = NULL };
}

/* --- what is due ------------------------------------------------------------------------------ */

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static bool is_due(const struct memory *m)
{
    return m->seq->n_tokens >= ladder_due_at(&m->policy, &m->ladder);
}

/* The step that a check waits for. false: it has none, or none is due. */
static bool next_step(const struct memory *m, struct ladder_step *ret)
{
    return ladder_next(&m->policy, &m->ladder, m->seq->n_tokens, ret);
}

/* Gists that an adapter has to make of a segment. */
static uint32_t n_gists_of(const struct memory *m, uint32_t segment)
{
    return compress_n_gists(&m->policy.spec, m->seq->seg_len, segment);
}

/* Rows that have to run for a segment before it goes to a rung: observers or gists, these twice
 * where their hidden states become soft tokens. */
static uint32_t side_left(const struct memory *m, const struct ladder_step *step)
{
    if (step->rung > 1)
        return 0;
    return compress_n_observers(&m->policy.spec, m->seq->seg_len) +
           n_gists_of(m, step->segment) * (m->hidden ? 2 : 1) - m->n_side;
}

static int take_step(struct memory *m, const struct ladder_step *step)
{
    struct compressor *c = m->served->compressor;

    if (step->rung > 1)
        return compressor_thin(c, &m->policy.spec, m->seq, step->segment, step->rung - 2);
    if (m->prefix)
        prefix_supersede(m->prefix, m, step->segment);
    if (n_gists_of(m, step->segment) == 0)
        return compressor_run(c, &m->policy.spec, m->seq, step->segment, m->weights);
    compressor_join(c, &m->policy.spec, m->seq, step->segment, m->side_pages);
    m->n_side_pages = 0; /* they are the sequence's */
    return 0;
}

void memory_settle(struct memory *m)
{
    struct ladder_step step;

    if (m->observing) { /* that step was abandoned: its weights are worth nothing */
        m->observing = false;
        m->n_side = 0;
    }
    while (is_due(m)) {
        if (!next_step(m, &step)) {
            ladder_check(&m->ladder);
            continue;
        }
        if (side_left(m, &step) > 0 || take_step(m, &step) < 0)
            return; /* memory_plan says so */
        ladder_take(&m->ladder, &step);
        drop_side(m);
    }
}

bool memory_behind(const struct memory *m)
{
    return is_due(m) || m->seq->n_tokens < m->n_ids;
}

static void plan_observers(struct memory *m, uint32_t segment, uint32_t n, struct forward_run *ret)
{
    const struct model *model = m->served->model;
    uint32_t n_observers = compress_n_observers(&m->policy.spec, m->seq->seg_len);

    if (m->n_side == 0)
        memset(m->weights, 0,
               (size_t)model->n_layer * model->n_head_kv * m->seq->seg_len * sizeof(*m->weights));
    ret->observe.weights = m->weights;
    if (m->n_side_pages)
        ret->observe.pages = m->side_pages;
    ret->observe.first = (segment + 1) * m->seq->seg_len - n_observers + m->n_side;
    ret->n_tokens = n;
    m->observing = true;
}

/* Gists that a step did not finish are made once more over themselves. */
static void plan_gists(struct memory *m, uint32_t segment, uint32_t n, struct forward_run *ret)
{
    const struct compress_spec *c = &m->policy.spec;
    uint32_t n_gists = n_gists_of(m, segment), first = m->n_side;

    ret->gists.kind = c->method == COMPRESS_FINE_KV ? FORWARD_SIDE : FORWARD_BEHIND;
    if (m->n_side >= n_gists) {
        ret->gists.kind = FORWARD_SOFT;
        first -= n_gists;
        if (first == 0)
            compressor_put_sinks(m->served->compressor, c, m->seq, segment, m->side_pages);
    }
    if (m->hidden)
        ret->gists.hidden = m->hidden + (size_t)first * m->served->model->n_embd;
    if (m->hidden && ret->gists.kind == FORWARD_BEHIND)
        ret->want = FORWARD_WANT_ALL;
    ret->gists.adapter = c->adapter;
    ret->gists.segment = segment;
    ret->gists.first = first;
    ret->gists.sinks = segment == 0 ? c->sinks : 0;
    ret->gists.ratio = c->ratio;
    ret->gists.pages = m->side_pages;
    ret->n_tokens = min_u32(n, n_gists - first);
}

/* Pages for keys beside the segment, if it wants any. */
static int take_side(struct memory *m, uint32_t segment)
{
    uint32_t n = seq_n_pages(compress_n_beside(&m->policy.spec, m->seq->seg_len, segment));
    int r = 0;

    if (m->n_side_pages == 0 && n) {
        r = pool_take(m->seq->pool, m->seq->account, n, m->side_pages);
        m->n_side_pages = r == 0 ? n : 0;
    }
    return r;
}

static int plan_side(struct memory *m, uint32_t max, struct forward_run *ret)
{
    struct ladder_step step;
    uint32_t n;
    int r;

    if (!next_step(m, &step) || side_left(m, &step) == 0)
        return -ENOSPC; /* memory_settle found no pages */
    n = min_u32(side_left(m, &step), max);
    r = take_side(m, step.segment);
    if (r < 0)
        return r;
    if (n_gists_of(m, step.segment))
        plan_gists(m, step.segment, n, ret);
    else
        plan_observers(m, step.segment, n, ret);
    return 0;
}

int memory_plan(struct memory *m, uint32_t max, struct forward_run *ret)
{
    struct seq *s = m->seq;

    *ret = (struct forward_run){ .seq = s };
    if (is_due(m))
        return plan_side(m, max, ret);
    ret->tokens = s->tokens + s->n_tokens;
    ret->n_tokens = min_u32(min_u32(m->n_ids - s->n_tokens, max), memory_room(m));
    return ret->n_tokens ? seq_reserve(s, ret->n_tokens) : -ENOSPC;
}

void memory_ran(struct memory *m, const struct forward_run *run)
{
    if (run->observe.weights || run->gists.kind != FORWARD_NO_GISTS) {
        m->n_side += run->n_tokens;
        m->observing = false;
    } else if (m->seq->n_tokens > m->n_ids) {
        m->n_ids = m->seq->n_tokens;
    }
}

void memory_rewind(struct memory *m, uint32_t n)
{
    struct ladder fresh = { 0 };
    uint32_t left;

    assert(n <= m->n_ids);
    left = seq_rewind(m->seq, min_u32(n, m->seq->n_tokens));
    m->n_ids = n;
    ladder_rewind(&m->policy, &m->ladder, left);
    ladder_climb(&m->policy, &fresh, 0, left, NULL, NULL);
    m->early = m->early || !ladder_equal(&m->ladder, &fresh);
    if (m->ladder.n_at[1] == 0)
        m->early = false;
    m->n_learned = m->n_learned_packed = 0;
    drop_side(m);
}

/* --- counts ----------------------------------------------------------------------------------- */

uint32_t memory_room(const struct memory *m)
{
    uint64_t due = ladder_due_at(&m->policy, &m->ladder), n = m->seq->n_tokens;
    uint64_t room = ladder_room(&m->policy, &m->ladder, n);

    return due <= n ? 0 : (uint32_t)(due - n < room ? due - n : room);
}

void memory_peak(const struct memory *m, uint64_t n, uint64_t *ret_keys, uint64_t *ret_pages)
{
    struct ladder l = m->ladder;

    ladder_climb(&m->policy, &l, m->seq->n_tokens, m->n_ids + n, ret_keys, ret_pages);
}

bool memory_full(const struct memory *m, uint32_t n_more)
{
    struct ladder l = m->ladder;
    uint64_t n = (uint64_t)m->n_ids + n_more;

    ladder_climb(&m->policy, &l, m->seq->n_tokens, n, NULL, NULL);
    return ladder_room(&m->policy, &l, n) == 0;
}

void memory_account(const struct memory *m, struct wire_usage *u)
{
    uint32_t n = m->ladder.n_at[1], seg_len = m->seq->seg_len, n_raw = 0, n_keys = 0;

    if (n) {
        const struct seq_segment *last = &m->seq->segments[n - 1];

        n_raw = compress_n_raw(&m->policy.spec, seg_len, 0) +
                (n - 1) * compress_n_raw(&m->policy.spec, seg_len, 1);
        n_keys = last->base + last->n_keys - m->seq->pos0;
    }
    u->gist_tokens = n * seg_len - n_raw;
    u->raw_tokens = u->prompt_tokens - u->gist_tokens;
    u->gists = n_keys - n_raw;
}

uint32_t memory_gist_pages(const struct memory *m)
{
    uint64_t n = (uint64_t)m->ladder.n_at[1] * m->seq->seg_len;

    return (uint32_t)ladder_pages(&m->policy, &m->ladder, n);
}
