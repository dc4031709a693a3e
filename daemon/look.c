#include "daemon/look.h"

/* By what is in the sequence: ids that are to be read again are held in no way now. */
uint32_t look_count(const struct memory *m)
{
    const struct seq *s = m->seq;

    return (s->n_tokens + s->seg_len - 1) / s->seg_len;
}

/* Without what fills up a segment that was closed short (engine/kv/seq.h). */
static uint32_t tokens_of(const struct seq *s, uint32_t segment)
{
    uint32_t from = segment * s->seg_len, n = s->n_tokens - from;

    n = n < s->seg_len ? n : s->seg_len;
    while (n > 0 && s->tokens[from + n - 1] == SEQ_FILLER)
        n--;
    return n;
}

/* It is raw for the last prompt alone. What is still the prompt's own was never away. */
static bool is_back(const struct memory *m, uint32_t segment)
{
    for (uint32_t i = 0; i < m->hydration.n; i++)
        if (m->hydration.held[i].segment == segment)
            return m->hydration.held[i].pages && m->hydration.held[i].from != HYDRATE_TURN;
    return false;
}

/* A compressor that keeps nothing has no ratio. */
static uint32_t ratio_of(const struct memory *m, uint32_t segment)
{
    uint32_t rung = ladder_rung(&m->ladder, segment);

    if (rung == 0 || ladder_segment_keys(&m->policy, segment, rung) == 0)
        return 0;
    return m->policy.spec.ratio << (rung - 1);
}

/* A packed segment with a key for each token is one that was closed short, which is stored as
 * packed ones are. */
struct wire_segment look_at(const struct memory *m, uint32_t segment)
{
    const struct seq *s = m->seq;
    const struct seq_segment *x = &s->segments[segment];
    struct wire_segment w = { .n_tokens = tokens_of(s, segment), .n_keys = x->n_keys };

    if (x->state == SEQ_RAW) {
        w.n_keys = seq_raw_keys(s, w.n_tokens);
        w.state = is_back(m, segment) ? WIRE_SEGMENT_HYDRATED : WIRE_SEGMENT_RAW;
    } else if (x->n_keys != w.n_tokens) { /* else it was closed short, and nothing else */
        w.state = WIRE_SEGMENT_GISTS;
    }
    if (w.state != WIRE_SEGMENT_RAW)
        w.ratio = ratio_of(m, segment);
    return w;
}

uint32_t look_tokens(const struct memory *m)
{
    uint32_t n = m->seq->n_tokens, n_segments = look_count(m);

    if (memory_exact(m))
        return n;
    n = 0;
    for (uint32_t k = 0; k < n_segments; k++)
        n += tokens_of(m->seq, k);
    return n;
}

/* Positions are compact: where the next token would stand is how many keys there are. */
uint32_t look_keys(const struct memory *m)
{
    return seq_position(m->seq, m->seq->n_tokens) - m->seq->pos0;
}
