#include "daemon/ladder.h"

#include <assert.h>
#include <string.h>

/* --- counts ----------------------------------------------------------------------------------- */

/* Without a compressor there are no checks, and all rungs but 0 stay empty. */
static bool compresses(const struct policy *p)
{
    return !compress_keeps_all(&p->spec);
}

/* A ratio may be so high at first that it can be halved less often than there are rungs. The last
 * one is what the ratio's halves end at, COMPRESS_RATIO_MAX. */
static uint32_t max_rung(const struct policy *p)
{
    uint32_t n = p->fixed ? 1 : 1 + compress_max_thinned(&p->spec);

    return n < LADDER_RUNGS ? n : LADDER_RUNGS - 1;
}

/* Keys of n raw tokens, with the gists that stand among them. */
static uint64_t raw_keys(const struct policy *p, uint64_t n)
{
    uint32_t every = compress_gist_every(&p->spec);

    return every ? n + n / every : n;
}

uint32_t ladder_segment_keys(const struct policy *p, uint32_t segment, uint32_t rung)
{
    return rung == 0 ? (uint32_t)raw_keys(p, p->seg_len)
                     : compress_n_keys(&p->spec, p->seg_len, segment, rung - 1);
}

/* A text that can't do without it gets of it what it takes with all of its segments thinned as far
 * as they can be: a few keys of everything are worth more than an error. */
uint32_t ladder_spare(const struct policy *p, const struct ladder *l)
{
    uint64_t n = p->late && l->n_at[1] == 0 ? 0 : policy_spare(p), least;
    uint32_t top = max_rung(p);

    if (n == 0)
        return 0;
    /* All that is checked on the highest rung; two raw segments, the one that is read and the one
     * that has to fit before a check (ladder_next); the tail. */
    least = ladder_segment_keys(p, 0, top) +
            (uint64_t)l->n_checked * ladder_segment_keys(p, 1, top) + 2 * raw_keys(p, p->seg_len) +
            p->keep_tail;
    if (least + n > p->budget)
        n = least < p->budget ? p->budget - least : 0;
    return (uint32_t)n;
}

/* Keys that the text may have. */
static uint32_t budget(const struct policy *p, const struct ladder *l)
{
    return p->budget - ladder_spare(p, l);
}

/* n_at falls from rung to rung, since older segments never stand below younger ones: the last rung
 * that reaches the segment is its own. So a few numbers hold the state of thousands of segments. */
uint32_t ladder_rung(const struct ladder *l, uint32_t segment)
{
    uint32_t rung = 0;

    while (rung + 1 < LADDER_RUNGS && segment < l->n_at[rung + 1])
        rung++;
    return rung;
}

/* Pages are counted by segment, since each segment begins a page. */
static uint64_t size_of(const struct policy *p, uint32_t segment, uint32_t rung, bool pages)
{
    uint32_t keys = ladder_segment_keys(p, segment, rung);

    return pages ? seq_n_pages(keys) : keys;
}

/* Keys or pages on a rung above the first: only segment 0 is not like the others. */
static uint64_t rung_size(const struct policy *p, const struct ladder *l, uint32_t rung, bool pages)
{
    uint32_t end = l->n_at[rung], first = rung + 1 < LADDER_RUNGS ? l->n_at[rung + 1] : 0;

    if (end == first)
        return 0;
    return size_of(p, first, rung, pages) + (end - first - 1) * size_of(p, 1, rung, pages);
}

/* In time that does not depend on the number of segments: this is asked for every token of every
 * session, and for all of a prompt before it is read. */
static uint64_t size_all(const struct policy *p, const struct ladder *l, uint64_t n_tokens,
                         bool pages)
{
    /* Raw segments, the open one, then a term for each rung. */
    uint64_t raw = n_tokens - (uint64_t)l->n_at[1] * p->seg_len;
    uint64_t size = raw / p->seg_len * size_of(p, 0, 0, pages),
             open = raw_keys(p, raw % p->seg_len);

    size += pages ? seq_n_pages((uint32_t)open) : open;
    for (uint32_t rung = 1; rung < LADDER_RUNGS; rung++)
        size += rung_size(p, l, rung, pages);
    return size;
}

uint64_t ladder_keys(const struct policy *p, const struct ladder *l, uint64_t n_tokens)
{
    return size_all(p, l, n_tokens, false);
}

uint64_t ladder_pages(const struct policy *p, const struct ladder *l, uint64_t n_tokens)
{
    return size_all(p, l, n_tokens, true);
}

/* --- checks ----------------------------------------------------------------------------------- */

/* One check a segment, and always at the same number of tokens behind its end: what a sequence
 * holds must not depend on when somebody looked. */
uint64_t ladder_due_at(const struct policy *p, const struct ladder *l)
{
    return compresses(p) ? (l->n_checked + 1ull) * p->seg_len + p->keep_tail : UINT64_MAX;
}

/* The rung whose oldest segment climbs next; LADDER_RUNGS: none can. n_checked counts the segments
 * that may be compressed at all: raw ones behind them are the tail's, or open. Of equals the lowest
 * rung, whose segments have more to give. */
static uint32_t fullest(const struct policy *p, const struct ladder *l, uint32_t n_checked)
{
    uint64_t most =
        n_checked > l->n_at[1] ? raw_keys(p, (uint64_t)(n_checked - l->n_at[1]) * p->seg_len) : 0;
    uint32_t best = most ? 0 : LADDER_RUNGS;

    for (uint32_t rung = 1; rung < max_rung(p); rung++) {
        uint64_t size = rung_size(p, l, rung, false);

        if (size > most) {
            most = size;
            best = rung;
        }
    }
    return best;
}

bool ladder_next(const struct policy *p, const struct ladder *l, uint64_t n_tokens,
                 struct ladder_step *ret)
{
    uint32_t n_checked = l->n_checked + 1, rung;

    if (n_tokens < ladder_due_at(p, l))
        return false;
    /* The segment of this check itself comes first, whether there is room or not. */
    if (!p->late && l->n_at[1] < n_checked) {
        *ret = (struct ladder_step){ l->n_at[1], 1 };
        return true;
    }
    /* The next segment has to fit raw, since it is read before it can be compressed. */
    if (ladder_keys(p, l, n_tokens) + raw_keys(p, p->seg_len) <= budget(p, l))
        return false;
    rung = fullest(p, l, n_checked);
    if (rung == LADDER_RUNGS)
        return false;
    *ret = (struct ladder_step){ l->n_at[rung + 1], rung + 1 };
    return true;
}

bool ladder_thinner(const struct policy *p, const struct ladder *l, struct ladder_step *ret)
{
    uint32_t rung = fullest(p, l, l->n_at[1]); /* without those that are raw */

    if (rung == LADDER_RUNGS)
        return false;
    *ret = (struct ladder_step){ l->n_at[rung + 1], rung + 1 };
    return true;
}

/* A rung takes its segments in order, so one number is enough to say which. */
void ladder_take(struct ladder *l, const struct ladder_step *step)
{
    assert(step->segment == l->n_at[step->rung]);
    l->n_at[step->rung]++;
}

void ladder_check(struct ladder *l)
{
    l->n_checked++;
}

bool ladder_equal(const struct ladder *a, const struct ladder *b)
{
    return a->n_checked == b->n_checked && memcmp(a->n_at, b->n_at, sizeof(a->n_at)) == 0;
}

/* Checks that a sequence of n tokens would not have had yet come again; segments that stay keep
 * their rungs, since what was thrown away does not come back. */
void ladder_rewind(const struct policy *p, struct ladder *l, uint64_t n_tokens)
{
    uint64_t full = n_tokens / p->seg_len, due;

    due = n_tokens < p->keep_tail ? 0 : (n_tokens - p->keep_tail) / p->seg_len;
    if (l->n_checked > due)
        l->n_checked = (uint32_t)due;
    for (uint32_t rung = 1; rung < LADDER_RUNGS; rung++)
        if (l->n_at[rung] > full)
            l->n_at[rung] = (uint32_t)full;
}

void ladder_cut(struct ladder *l, uint32_t first)
{
    if (l->n_checked > first)
        l->n_checked = first;
    for (uint32_t rung = 1; rung < LADDER_RUNGS; rung++)
        if (l->n_at[rung] > first)
            l->n_at[rung] = first;
}

/* most may be NULL: nobody asks. */
static void note(uint64_t *most, uint64_t n)
{
    if (most && *most < n)
        *most = n;
}

/* What memory_settle does, without any keys. The two must take the same steps in the same order:
 * what is promised to a prompt (memory_peak, memory_full) and what a beginning in the tree is taken
 * for rest on it. */
void ladder_climb(const struct policy *p, struct ladder *l, uint64_t n_had, uint64_t n_tokens,
                  uint64_t *ret_keys, uint64_t *ret_pages)
{
    struct ladder_step step;
    uint64_t at;

    if (ret_keys)
        *ret_keys = ladder_keys(p, l, n_had);
    if (ret_pages)
        *ret_pages = ladder_pages(p, l, n_had);
    while ((at = ladder_due_at(p, l)) <= n_tokens) {
        /* A check may be overdue, when it waits for runs or pages. */
        if (at < n_had)
            at = n_had;
        note(ret_keys, ladder_keys(p, l, at));
        while (ladder_next(p, l, at, &step)) {
            /* Pages beside a segment are there together with all of it. In place or to fresh pages:
             * those are only taken where they are not missed, so they are not promised here. */
            uint32_t beside = 0;

            if (step.rung == 1)
                beside = seq_n_pages(compress_n_beside(&p->spec, p->seg_len, step.segment));
            note(ret_pages, ladder_pages(p, l, at) + beside);
            ladder_take(l, &step);
        }
        ladder_check(l);
    }
    note(ret_keys, ladder_keys(p, l, n_tokens));
    note(ret_pages, ladder_pages(p, l, n_tokens));
}

struct ladder ladder_of(const struct policy *p, uint64_t n_tokens)
{
    struct ladder l = { 0 };

    ladder_climb(p, &l, 0, n_tokens, NULL, NULL);
    return l;
}

/* Once a segment is thinned none of those behind it can undo that: the first such check decides. */
uint64_t ladder_unthinned(const struct policy *p, uint64_t n_tokens)
{
    struct ladder l = { 0 };
    uint64_t at;

    while ((at = ladder_due_at(p, &l)) <= n_tokens) {
        ladder_climb(p, &l, at, at, NULL, NULL);
        if (l.n_at[2] > 0)
            return at - 1;
    }
    return n_tokens;
}

uint64_t ladder_room(const struct policy *p, const struct ladder *l, uint64_t n_tokens)
{
    /* From keys back to tokens: `had` are the keys of what is raw now, n those that it may have,
     * and tokens follow from n. */
    uint64_t raw = n_tokens - (uint64_t)l->n_at[1] * p->seg_len, had = raw_keys(p, raw);
    uint64_t keys = ladder_keys(p, l, n_tokens), n, every = compress_gist_every(&p->spec);

    if (keys >= budget(p, l))
        return 0;
    n = had + budget(p, l) - keys; /* keys that raw tokens may have */
    /* A token that would have its gist behind it needs room for both. */
    if (every) {
        uint64_t rest = n % (every + 1);

        n = n / (every + 1) * every + (rest < every ? rest : every - 1);
    }
    return n - raw;
}
