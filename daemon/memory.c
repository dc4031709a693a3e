#include "daemon/memory.h"

#include "daemon/prefix.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RATIO_DEFAULT 8u

/* --- policy ------------------------------------------------------------------------------------- */

static int read_adapter(const struct wire_memory *m, const struct backend *b,
                        struct compress_spec *ret, struct why *why)
{
    if (!m->adapter || !m->adapter[0])
        return 0;
    ret->adapter = backend_adapter(b, m->adapter);
    if (!ret->adapter)
        return why_set(why, -EINVAL, "there is no adapter \"%.64s\"; there are: %.200s", m->adapter,
                       b->n_adapters ? b->adapter_names : "none");
    if (m->compressor == WIRE_FULL)
        ret->method = COMPRESS_FINE_KV;
    if (ret->method != COMPRESS_FINE_KV)
        return why_set(why, -EINVAL, "adapter \"%s\" makes fine-kv gists, not %s",
                       ret->adapter->name, compress_name(ret->method));
    return 0;
}

int memory_policy_read(const struct wire_memory *m, uint32_t seg_len, const struct backend *b,
                       struct memory_policy *ret, struct why *why)
{
    static const enum compress_method methods[] = { [WIRE_FULL] = COMPRESS_FULL,
                                                    [WIRE_NONE] = COMPRESS_NONE,
                                                    [WIRE_FINE_KV] = COMPRESS_FINE_KV,
                                                    [WIRE_SELECT] = COMPRESS_SELECT };
    struct memory_policy p = { .keep_tail = m->keep_tail };
    int r;

    p.spec.method = methods[m->compressor];
    p.spec.ratio = m->ratio ? m->ratio : RATIO_DEFAULT;
    p.spec.sinks = m->sinks == UINT32_MAX ? 0 : m->sinks ? m->sinks : COMPRESS_SINKS;
    if (p.keep_tail > SEQ_TOKENS_MAX)
        return why_set(why, -EINVAL, "found a tail of %u tokens, allowed are up to %u", p.keep_tail,
                       SEQ_TOKENS_MAX);
    r = read_adapter(m, b, &p.spec, why);
    if (r == 0)
        r = compress_check(&p.spec, seg_len, why);
    *ret = p;
    return r;
}

uint32_t memory_tokens_max(const struct memory_policy *p, const struct backend *b)
{
    return p->spec.method == COMPRESS_FULL ? b->context_max : MEMORY_TOKENS_MAX;
}

int memory_init(struct memory *m, const struct memory_policy *p, const struct backend *b,
                struct seq *seq)
{
    size_t n = (size_t)b->model->n_layer * b->model->n_head_kv * seq->seg_len;

    *m = (struct memory){ .policy = *p, .seq = seq, .backend = b };
    if (compress_n_observers(&p->spec, seq->seg_len)) {
        m->weights = malloc(n * sizeof(*m->weights));
        return m->weights ? 0 : -ENOMEM;
    }
    if (p->spec.adapter) {
        m->gist_pages = malloc(seq_n_pages(seq->seg_len) * sizeof(*m->gist_pages));
        return m->gist_pages ? 0 : -ENOMEM;
    }
    return 0;
}

void memory_share(struct memory *m, struct prefix *prefix, uint32_t owner)
{
    m->prefix = prefix;
    m->owner = owner;
}

/* What was made of the next segment is forgotten. */
static void drop_side(struct memory *m)
{
    if (m->n_gist_pages)
        pool_give(m->seq->pool, m->seq->account, m->n_gist_pages, m->gist_pages);
    m->n_gist_pages = m->n_side = 0;
}

int memory_fork(const struct memory *m, struct memory *dst, struct seq *seq)
{
    int r = memory_init(dst, &m->policy, m->backend, seq);

    memcpy(seq->tokens, m->seq->tokens, (size_t)m->n_ids * sizeof(*seq->tokens));
    memory_share(dst, m->prefix, m->owner);
    dst->early = m->early;
    dst->n_ids = m->n_ids;
    dst->n_packed = m->n_packed;
    return r;
}

void memory_fini(struct memory *m)
{
    if (m->seq)
        drop_side(m);
    free(m->weights);
    free(m->gist_pages);
    *m = (struct memory){ .seq = NULL };
}

/* --- what is due -------------------------------------------------------------------------------- */

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Tokens at which the next segment is due. */
static uint64_t due_at(const struct memory *m)
{
    if (m->policy.spec.method == COMPRESS_FULL)
        return UINT64_MAX;
    return (m->n_packed + 1ull) * m->seq->seg_len + m->policy.keep_tail;
}

static bool is_due(const struct memory *m)
{
    return m->seq->n_tokens >= due_at(m);
}

/* Rows that have to run beside the next segment before it is compressed: observers or gists. */
static uint32_t side_left(const struct memory *m)
{
    const struct compress_spec *c = &m->policy.spec;

    return compress_n_observers(c, m->seq->seg_len) +
           compress_n_gists(c, m->seq->seg_len, m->n_packed) - m->n_side;
}

static int compress_next(struct memory *m)
{
    struct compressor *c = m->backend->compressor;

    if (m->prefix)
        prefix_supersede(m->prefix, m, m->n_packed);
    if (m->n_gist_pages == 0)
        return compressor_run(c, &m->policy.spec, m->seq, m->n_packed, m->weights);
    compressor_join(c, &m->policy.spec, m->seq, m->n_packed, m->gist_pages);
    m->n_gist_pages = 0;
    return 0;
}

void memory_settle(struct memory *m)
{
    if (m->observing) { /* that step was abandoned: its weights are worth nothing */
        m->observing = false;
        m->n_side = 0;
    }
    while (is_due(m) && side_left(m) == 0) {
        if (compress_next(m) < 0)
            return; /* memory_plan says so */
        m->n_packed++;
        m->n_side = 0;
    }
}

bool memory_behind(const struct memory *m)
{
    return is_due(m) || m->seq->n_tokens < m->n_ids;
}

static void plan_observers(struct memory *m, uint32_t n, struct forward_run *ret)
{
    const struct model *model = m->backend->model;

    if (m->n_side == 0)
        memset(m->weights, 0,
               (size_t)model->n_layer * model->n_head_kv * m->seq->seg_len * sizeof(*m->weights));
    ret->observe.weights = m->weights;
    ret->observe.first = (m->n_packed + 1) * m->seq->seg_len - side_left(m);
    ret->n_tokens = n;
    m->observing = true;
}

/* Gists that a step did not finish are made once more over themselves. */
static int plan_gists(struct memory *m, uint32_t n, struct forward_run *ret)
{
    const struct compress_spec *c = &m->policy.spec;
    uint32_t n_pages = seq_n_pages(compress_n_keys(c, m->seq->seg_len, m->n_packed));

    if (m->n_gist_pages == 0) {
        int r = pool_take(m->seq->pool, m->seq->account, n_pages, m->gist_pages);

        if (r < 0)
            return r;
        m->n_gist_pages = n_pages;
    }
    ret->gists.adapter = c->adapter;
    ret->gists.segment = m->n_packed;
    ret->gists.first = m->n_side;
    ret->gists.sinks = m->n_packed == 0 ? c->sinks : 0;
    ret->gists.ratio = c->ratio;
    ret->gists.pages = m->gist_pages;
    ret->n_tokens = n;
    return 0;
}

int memory_plan(struct memory *m, uint32_t max, struct forward_run *ret)
{
    struct seq *s = m->seq;
    uint32_t n = min_u32(side_left(m), max);

    *ret = (struct forward_run){ .seq = s };
    if (is_due(m)) {
        if (n == 0)
            return -ENOSPC; /* memory_settle found no pages */
        if (m->policy.spec.adapter)
            return plan_gists(m, n, ret);
        plan_observers(m, n, ret);
        return 0;
    }
    n = min_u32(min_u32(m->n_ids - s->n_tokens, max), memory_room(m));
    ret->tokens = s->tokens + s->n_tokens;
    ret->n_tokens = n;
    return seq_reserve(s, n);
}

void memory_ran(struct memory *m, const struct forward_run *run)
{
    if (run->observe.weights || run->gists.adapter) {
        m->n_side += run->n_tokens;
        m->observing = false;
    } else if (m->seq->n_tokens > m->n_ids) {
        m->n_ids = m->seq->n_tokens;
    }
}

uint32_t memory_room(const struct memory *m)
{
    uint64_t room = due_at(m) - m->seq->n_tokens;

    return is_due(m) ? 0 : room < UINT32_MAX ? (uint32_t)room : UINT32_MAX;
}

/* --- counts ------------------------------------------------------------------------------------- */

/* Keys, or pages, of n ids when the first n_packed segments are compressed. */
static uint64_t size_of(const struct memory_policy *p, uint32_t seg_len, uint64_t n,
                        uint64_t n_packed, bool pages)
{
    uint64_t raw = n - n_packed * seg_len, first = compress_n_keys(&p->spec, seg_len, 0),
             other = compress_n_keys(&p->spec, seg_len, 1);

    if (pages) {
        raw = (raw + POOL_PAGE_TOKENS - 1) / POOL_PAGE_TOKENS;
        first = seq_n_pages((uint32_t)first);
        other = seq_n_pages((uint32_t)other);
    }
    return n_packed ? raw + first + (n_packed - 1) * other : raw;
}

uint32_t memory_n_packed(const struct memory_policy *p, uint32_t seg_len, uint64_t n)
{
    if (p->spec.method == COMPRESS_FULL || n < p->keep_tail)
        return 0;
    return (uint32_t)((n - p->keep_tail) / seg_len);
}

static uint64_t peak(const struct memory_policy *p, uint32_t seg_len, uint64_t n, bool pages)
{
    uint64_t n_packed = memory_n_packed(p, seg_len, n),
             end = size_of(p, seg_len, n, n_packed, pages);
    uint64_t before;

    if (n_packed == 0)
        return end;
    before = size_of(p, seg_len, n_packed * seg_len + p->keep_tail, n_packed - 1, pages);
    if (pages && p->spec.adapter) /* gists are made beside what they replace */
        before += seq_n_pages(compress_n_keys(&p->spec, seg_len, (uint32_t)n_packed - 1));
    return end > before ? end : before;
}

uint64_t memory_peak_keys(const struct memory_policy *p, uint32_t seg_len, uint64_t n)
{
    return peak(p, seg_len, n, false);
}

uint64_t memory_peak_pages(const struct memory_policy *p, uint32_t seg_len, uint64_t n)
{
    return peak(p, seg_len, n, true);
}

void memory_rewind(struct memory *m, uint32_t n)
{
    uint32_t left;

    assert(n <= m->n_ids);
    left = seq_rewind(m->seq, min_u32(n, m->seq->n_tokens));
    m->n_ids = n;
    m->n_packed = min_u32(m->n_packed, left / m->seq->seg_len);
    m->early = m->n_packed > 0 &&
               (m->early || m->n_packed > memory_n_packed(&m->policy, m->seq->seg_len, left));
    m->n_learned = m->n_learned_packed = 0;
    drop_side(m);
}

uint32_t memory_position(const struct memory *m)
{
    const struct memory_policy *p = &m->policy;
    uint32_t seg_len = m->seq->seg_len;
    uint64_t due = memory_n_packed(p, seg_len, m->n_ids),
             n_packed = due > m->n_packed ? due : m->n_packed;

    return (uint32_t)size_of(p, seg_len, m->n_ids, n_packed, false);
}

void memory_account(const struct memory *m, struct wire_usage *u)
{
    u->gist_tokens = m->n_packed * m->seq->seg_len;
    u->raw_tokens = u->prompt_tokens - u->gist_tokens;
    u->gists = (uint32_t)size_of(&m->policy, m->seq->seg_len, u->gist_tokens, m->n_packed, false);
}

uint32_t memory_gist_pages(const struct memory *m)
{
    uint64_t n = (uint64_t)m->n_packed * m->seq->seg_len;

    return (uint32_t)size_of(&m->policy, m->seq->seg_len, n, m->n_packed, true);
}
