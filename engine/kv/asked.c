/* engine/kv/asked.c - which queries are kept, who has room for them, and which of them still stand.
 *
 * What a sequence has is one range of a segment's tokens, [from, to), that were read one behind the
 * other. A range that has a gap, or that other keys stood before, is not mended: it begins anew
 * with the run that comes, and what is missing is read once more when the segment is packed.
 */
#include "engine/kv/asked.h"

#include "engine/kv/compress_ops.h"

#include <string.h>

static uint32_t gcd(uint32_t a, uint32_t b)
{
    return b ? gcd(b, a % b) : a;
}

/* With a step that has no factor in common with the group all of its heads are asked in turn. With
 * a common factor g only every g-th head of the group would ever be asked. The step that is found
 * is the next one that will do, so n is no more than ASKED_ROWS, and little less. */
static struct asked_shape shape_of(uint32_t seg_len, uint32_t tokens, uint32_t group)
{
    uint32_t n = seg_len / tokens * group;
    struct asked_shape k = { .tokens = tokens, .heads = (n + ASKED_ROWS - 1) / ASKED_ROWS };

    while (gcd(k.heads, group) != 1)
        k.heads++;
    k.n = n / k.heads;
    return k;
}

/* What is read anyway costs nothing, so all tokens count. A second reading costs a token's pass
 * each: only as many as ASKED_AGAIN of them. */
struct asked_shape asked_shape(uint32_t seg_len, uint32_t group, bool while_read)
{
    return shape_of(seg_len, while_read ? 1 : (seg_len + ASKED_AGAIN - 1) / ASKED_AGAIN, group);
}

uint32_t asked_most(uint32_t seg_len, uint32_t group)
{
    uint32_t a = asked_shape(seg_len, group, true).n, b = asked_shape(seg_len, group, false).n;

    return a > b ? a : b;
}

struct forward_asked asked_rows(const struct asked_shape *k, uint32_t segment, float *all)
{
    return (struct forward_asked){ all, k->n, k->tokens, k->heads, segment };
}

/* One span serves both shapes: what is missing of a segment goes into the same rows. */
size_t asked_floats(const struct compressor *c, uint32_t seg_len)
{
    return (size_t)c->n_lists * asked_most(seg_len, c->group) * ASKED_FLOATS(c->head_dim);
}

/* --- memory ----------------------------------------------------------------------------------- */

/* The last one takes its place: the order of askers says nothing but who is asked to give up
 * first. */
static void forget(struct compressor *c, struct asked *a)
{
    for (uint32_t i = 0; i < c->n_askers; i++)
        if (c->askers[i] == a)
            c->askers[i] = c->askers[--c->n_askers];
}

void asked_drop(struct compressor *c, struct asked *a)
{
    forget(c, a);
    scratch_give(&c->asks, a->all);
    *a = (struct asked){ .all = NULL };
}

/* One is taken, whatever its length: the next try says whether the gap is long enough. */
static bool take_from_resting(struct compressor *c)
{
    for (uint32_t i = 0; i < c->n_askers; i++)
        if (c->askers[i]->resting) {
            asked_drop(c, c->askers[i]);
            return true;
        }
    return false;
}

static size_t room_bytes(const struct compressor *c, uint32_t seg_len)
{
    return asked_floats(c, seg_len) * sizeof(float);
}

/* askers has room as long as the scratch has spans: both end at SCRATCH_SPANS_MAX. */
static bool take_room(struct compressor *c, struct asked *a, uint32_t seg_len)
{
    a->all = scratch_take(&c->asks, room_bytes(c, seg_len));
    if (a->all)
        c->askers[c->n_askers++] = a;
    return a->all != NULL;
}

/* No step has addresses of a resting one's: nobody works on it. So a span that is taken here may be
 * written to in this very step. */
static bool find_room(struct compressor *c, struct asked *a, uint32_t seg_len)
{
    while (!take_room(c, a, seg_len))
        if (!take_from_resting(c))
            return false;
    return true;
}

/* --- reading ---------------------------------------------------------------------------------- */

/* Nothing is kept yet, and what comes begins at this token. */
static void start(struct asked *a, const struct seq *s, uint32_t segment, uint32_t at)
{
    a->segment = segment;
    a->from = a->to = at;
    a->n_changes = s->n_changes;
}

/* Tokens of its segment that the run has, [*ret_from, *ret_to) by their places in it; it is after
 * n_before tokens of the sequence. false: none. */
static bool part_of(const struct seq *s, uint32_t segment, uint32_t n_before, uint32_t n,
                    uint32_t *ret_from, uint32_t *ret_to)
{
    uint32_t first = segment * s->seg_len, end = n_before + n;

    if (n_before >= first + s->seg_len || end <= first)
        return false;
    *ret_from = n_before < first ? 0 : n_before - first;
    *ret_to = end - first < s->seg_len ? end - first : s->seg_len;
    return true;
}

void asked_watch(struct compressor *c, const struct compress_spec *spec, struct asked *a,
                 uint32_t segment, struct forward_run *run)
{
    const struct seq *s = run->seq;
    struct asked_shape k;
    uint32_t from, to;

    if (!compress_ops_of(spec)->asks ||
        !part_of(s, segment, s->n_tokens, run->n_tokens, &from, &to))
        return;
    /* Before the search for room, which must not take its own span. */
    asked_work(a);
    if (!a->all && !find_room(c, a, s->seg_len))
        return;
    /* Queries of another segment, or such as saw keys that are others now. */
    if (a->segment != segment || a->n_changes != s->n_changes)
        start(a, s, segment, from);
    k = asked_shape(s->seg_len, c->group, true);
    run->asked = asked_rows(&k, segment, a->all);
}

/* Also of runs that nobody watched: what was kept of the tokens from there on is of others. */
void asked_ran(struct asked *a, const struct forward_run *run)
{
    const struct seq *s = run->seq;
    uint32_t from, to;

    if (!a->all || !forward_run_reads(run) ||
        !part_of(s, a->segment, s->n_tokens - run->n_tokens, run->n_tokens, &from, &to))
        return;
    if (!run->asked.all || from > a->to) /* none of this run's, or a gap before it */
        a->from = run->asked.all ? from : to;
    else if (from < a->from) /* taken back to before it */
        a->from = from;
    a->to = to;
}

/* Only if nothing else had changed before: else they were of no use already. */
void asked_stand(struct asked *a, const struct seq *s, uint64_t n_changes)
{
    if (a->n_changes == n_changes)
        a->n_changes = s->n_changes;
}

/* Where the host can't touch the scratch the copy would cost two ways through it. */
void asked_fork(struct compressor *c, const struct asked *a, const struct seq *s, struct asked *dst,
                const struct seq *fork)
{
    const void *from = a->all ? backend_host(c->backend, a->all) : NULL;

    if (!from || a->to == a->from || a->n_changes != s->n_changes || !take_room(c, dst, s->seg_len))
        return;
    memcpy(backend_host(c->backend, dst->all), from, room_bytes(c, s->seg_len));
    start(dst, fork, a->segment, a->from);
    dst->to = a->to;
    dst->resting = true; /* until its first run */
}

/* What is missing is [0, from), so a range is of use only if it reaches the segment's end. */
uint32_t asked_missing(const struct asked *a, const struct seq *s, uint32_t segment)
{
    if (!a || !a->all || a->segment != segment || a->n_changes != s->n_changes ||
        a->to != s->seg_len)
        return s->seg_len;
    return a->from;
}

void asked_rest(struct asked *a)
{
    a->resting = true;
}

void asked_work(struct asked *a)
{
    a->resting = false;
}
