#include "daemon/policy.h"

#include "daemon/ladder.h"
#include "daemon/served.h"
#include "ipc/wire.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define RATIO_DEFAULT 8u

/* What is chosen for a client that wants to choose nothing. */
#define AUTO_METHOD     COMPRESS_FIT
#define AUTO_RATIO      4u
#define AUTO_TAIL_MIN   64u
#define AUTO_N_SEGMENTS 8u

/* By name. The method follows from the adapter unless the client says one too, which compress_check
 * then compares with it. */
static int read_adapter(const struct wire_memory *m, const struct served *b,
                        struct compress_spec *ret, struct why *why)
{
    if (!m->adapter || !m->adapter[0])
        return 0;
    ret->adapter = served_adapter(b, m->adapter);
    if (!ret->adapter)
        return why_set(why, -EINVAL, "this daemon has no adapter \"%.64s\"; it has: %.200s",
                       m->adapter, b->n_adapters ? b->adapter_names : "none");
    if (m->compressor == WIRE_COMPRESSOR_UNSAID)
        ret->method = compress_method_of(ret->adapter);
    return 0;
}

/* What is behind these checks divides by the numbers and sizes arrays with them. */
static int check_segment(uint32_t seg_len, struct why *why)
{
    if (seq_takes_segments(seg_len))
        return 0;
    return why_set(why, -EINVAL,
                   "segments of %u tokens are not possible: use a multiple of %u from %u to %u",
                   seg_len, POOL_PAGE_TOKENS, SEQ_SEGMENT_MIN, SEQ_SEGMENT_MAX);
}

/* The segment that is read, the one that is to be compressed, and the tail. */
static uint64_t least_budget(const struct policy *p)
{
    return 2ull * ladder_segment_keys(p, 0, 0) + p->keep_tail;
}

static int check_budget(const struct policy *p, const struct served *b, struct why *why)
{
    uint64_t least = compress_keeps_all(&p->spec) ? 1 : least_budget(p);

    if (p->budget > 0 && p->keep_tail >= p->budget)
        return why_set(why, -EINVAL,
                       "a tail of %u tokens is too long: the session may hold %u keys in all",
                       p->keep_tail, p->budget);
    if (p->budget <= b->context_max && (p->budget >= least || p->budget == b->context_max))
        return 0;
    return why_set(why, -EINVAL,
                   "a budget of %u keys is not possible: use %" PRIu64 " to %u (the context)",
                   p->budget, least, b->context_max);
}

/* UINT32_MAX is how clients said 0 when 0 was not to be told from nothing. */
static uint32_t sinks_of(const struct wire_memory *m, const struct adapter *adapter)
{
    if (!m->has_sinks)
        return adapter ? adapter->sinks : COMPRESS_SINKS;
    return m->sinks == UINT32_MAX ? 0 : m->sinks;
}

/* The last tokens that stay raw. What is known to ask does so in any case (memory_turn), this is
 * for the end of a plain text, which may be gone on with. A check asks for room for one more
 * segment (daemon/ladder.c): unless whole ones fill what the tail leaves of the budget, a text
 * would be compressed that is a few tokens short of it. */
static uint32_t auto_tail(uint32_t budget, uint32_t seg_len)
{
    uint32_t tail = budget % seg_len;

    return tail < AUTO_TAIL_MIN && tail + 3ull * seg_len <= budget ? tail + seg_len : tail;
}

/* Segments that a small budget has room for several of: they are compressed one by one, and what is
 * brought back comes in segments, too. The one that is read and the one that is packed next are
 * raw; half of the rest is for what comes back. With half as long ones again more come back, but as
 * much text and no more right answers (docs/results.md), and reading costs more: packing reads 128
 * tokens of each again. */
static uint32_t auto_segment(uint32_t preset, uint32_t budget)
{
    uint32_t len = preset;

    while (len > budget / AUTO_N_SEGMENTS && len / 2 >= SEQ_SEGMENT_MIN &&
           seq_takes_segments(len / 2))
        len /= 2;
    return len;
}

static bool is_better(const struct adapter *a, uint32_t ratio)
{
    for (uint32_t i = 0; i < a->n_better; i++)
        if (a->better[i] == ratio)
            return true;
    return false;
}

/* Training is worth it where it was measured to be; without a record of that `fit` is taken, which
 * is known. Not one that puts gists among the tokens: a text that fits would not be as it was. */
static const struct adapter *better_adapter(const struct served *b, uint32_t ratio, uint32_t budget)
{
    for (uint32_t i = 0; i < b->n_adapters; i++) {
        const struct adapter *a = b->adapters[i];

        if (is_better(a, ratio) && a->mask == ADAPTER_MEMORY_ONLY && a->segment <= budget / 8)
            return a;
    }
    return NULL;
}

/* Late, so that nothing is compressed before it has to be: a text that fits is read as if there
 * were no compressor. */
static void choose(const struct wire_memory *m, bool segment_said, const struct served *b,
                   struct policy *p)
{
    p->automatic = true;
    p->late = true;
    if (!m->has_ratio)
        p->spec.ratio = AUTO_RATIO;
    if (m->compressor == WIRE_COMPRESSOR_UNSAID && !p->spec.adapter) {
        if (!segment_said)
            p->spec.adapter = better_adapter(b, p->spec.ratio, p->budget);
        p->spec.method = p->spec.adapter ? compress_method_of(p->spec.adapter) : AUTO_METHOD;
    }
    if (!m->has_hydrate)
        p->hydrate = UINT32_MAX;
}

/* By quarters: each budget is another policy, which shares with no other, so there are few of them
 * between the window and the least. */
bool policy_lower(struct policy *p)
{
    struct policy q = *p;

    q.budget = p->budget / 4 * 3;
    if (q.keep_tail > q.budget / 4)
        q.keep_tail = q.budget / 4;
    q.budget -= (q.budget - q.keep_tail) % q.seg_len; /* as auto_tail */
    if (!p->automatic || compress_keeps_all(&p->spec) || q.budget < least_budget(&q))
        return false;
    *p = q;
    return true;
}

/* In the order in which one follows from another: adapter, method and ratio; then the segment's
 * length, which follows from the adapter or the budget; then the tail, from both. */
int policy_read(const struct wire_memory *m, const uint32_t *segment, uint32_t preset,
                const struct served *b, struct policy *ret, struct why *why)
{
    struct policy p = { .seg_len = segment ? *segment : preset,
                        .keep_tail = m->keep_tail,
                        .budget = m->has_budget ? m->budget : b->context_max,
                        .late = m->late,
                        .fixed = m->fixed,
                        .hydrate = m->hydrate };
    int r;

    p.spec.method = (enum compress_method)m->compressor; /* one table, base/compressors.def */
    p.spec.ratio = m->has_ratio ? m->ratio : RATIO_DEFAULT;
    /* Also where no compressor asks for it: counts are divided by it. */
    if (p.spec.ratio == 0)
        return why_set(why, -EINVAL, "the ratio is 0; %u to %u are allowed", COMPRESS_RATIO_MIN,
                       COMPRESS_RATIO_MAX);
    r = read_adapter(m, b, &p.spec, why);
    if (r < 0)
        return r;
    if (m->automatic)
        choose(m, segment != NULL, b, &p);
    if (p.spec.adapter && !segment)
        p.seg_len = p.spec.adapter->segment;
    else if (!segment && (m->automatic || p.hydrate > 0))
        p.seg_len = auto_segment(p.seg_len, p.budget);
    p.spec.sinks = sinks_of(m, p.spec.adapter);
    r = check_segment(p.seg_len, why);
    if (r == 0 && m->automatic && m->keep_tail == 0)
        p.keep_tail = auto_tail(p.budget, p.seg_len);
    if (r == 0)
        r = compress_check(&p.spec, p.seg_len, why);
    if (r == 0)
        r = check_budget(&p, b, why);
    if (r == 0)
        *ret = p;
    return r;
}

struct policy policy_normal(const struct policy *p)
{
    struct policy n = *p;
    uint32_t spare = policy_spare(p);

    if (compress_keeps_all(&p->spec)) {
        n = (struct policy){ .spec = { .method = p->spec.method }, .seg_len = p->seg_len };
        memcpy(n.realm, p->realm, sizeof(n.realm));
        return n;
    }
    /* What is kept of the budget is the text's until something is compressed, by late ones. */
    n.hydrate = p->late ? spare : 0;
    n.budget -= p->late ? 0 : spare;
    n.automatic = false;
    return n;
}

/* Field by field, since a struct has padding. Who adds a field to a policy adds it here, and to
 * tier_scope. */
bool policy_same(const struct policy *a, const struct policy *b)
{
    const struct policy x = policy_normal(a), y = policy_normal(b);

    return x.spec.method == y.spec.method && x.spec.ratio == y.spec.ratio &&
           x.spec.sinks == y.spec.sinks && x.spec.adapter == y.spec.adapter &&
           x.seg_len == y.seg_len && x.keep_tail == y.keep_tail && x.budget == y.budget &&
           x.late == y.late && x.fixed == y.fixed && x.hydrate == y.hydrate &&
           strcmp(x.realm, y.realm) == 0;
}

const char *policy_longer(const struct policy *p, uint32_t context)
{
    if (compress_keeps_all(&p->spec))
        return ", since all of it is kept as it is; with automatic memory texts of any length can "
               "be read (gistctl: --memory auto, libgist: GIST_AUTO)";
    if (p->fixed)
        return "; without a fixed ratio older text would be compressed further (gistctl: no "
               "--fixed-ratio, libgist: no GIST_FIXED)";
    return p->budget < context ? "; a larger budget holds more (--budget)" : "";
}

/* Half of the budget, or what so many segments take up to that; but never what the text itself
 * needs (check_budget). What is too little for one segment is of no use. Half, because the right
 * segment is among the best four by far more often than among the best two, and what is asked for
 * is worth more than twice as many gists of all else (docs/results.md). */
uint32_t policy_spare(const struct policy *p)
{
    uint64_t one = ladder_segment_keys(p, 0, 0), least = least_budget(p), n;

    if (p->hydrate == 0 || compress_keeps_all(&p->spec) || compress_gist_every(&p->spec) ||
        p->budget < least + one)
        return 0;
    n = p->budget / 2 > one ? p->budget / 2 : one;
    if (n > p->hydrate * one)
        n = p->hydrate * one;
    return (uint32_t)(n < p->budget - least ? n : p->budget - least);
}

uint32_t policy_tokens_max(const struct policy *p)
{
    return compress_keeps_all(&p->spec) ? p->budget : POLICY_TOKENS_MAX;
}
