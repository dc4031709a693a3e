/* engine/sampler.c - from logits to a token, the same one wherever it is computed.
 *
 * Weights are e^((x - max) / temperature), never normalised: cuts and draws compare with the mass
 * of all, so no weight is rounded once more. All sums are f64 in an order that is written down
 * (BLOCK, SAMPLER_MASS_BLOCK), because one row, eight parts of it and a device have to give the
 * same bits. No step sorts the vocabulary: what is kept stays in the order of ids, which is
 * everywhere the same.
 */
#include "engine/sampler.h"

#include "base/draw.h"

#include <errno.h>
#include <math.h>
#include <string.h>

int sampler_check(const struct sampler_params *p, struct why *why)
{
    /* Written so that NaN fails. */
    if (!(p->temperature >= 0 && p->temperature <= 100))
        return why_set(why, -EINVAL, "temperature is %g; 0 to 100 is allowed", p->temperature);
    if (!(p->top_p >= 0 && p->top_p <= 1))
        return why_set(why, -EINVAL, "top_p is %g; 0 to 1 is allowed", p->top_p);
    if (!(p->min_p >= 0 && p->min_p < 1))
        return why_set(why, -EINVAL, "min_p is %g; 0 to less than 1 is allowed", p->min_p);
    if (!(p->repeat_penalty > 0 && p->repeat_penalty <= 10))
        return why_set(why, -EINVAL, "repeat_penalty is %g; more than 0 and up to 10 is allowed",
                       p->repeat_penalty);
    if (p->repeat_last_n > SAMPLER_REPEAT_MAX)
        return why_set(why, -EINVAL, "repeat_last_n is %u; 0 to %u is allowed", p->repeat_last_n,
                       SAMPLER_REPEAT_MAX);
    return 0;
}

static uint64_t rotate_left(uint64_t v, int by)
{
    return v << by | v >> (64 - by);
}

/* xoshiro256**, by Blackman and Vigna. */
static uint64_t next_random(uint64_t s[4])
{
    uint64_t ret = rotate_left(s[1] * 5, 7) * 9, t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return ret;
}

void sampler_init(struct sampler *s, const struct sampler_params *p)
{
    uint64_t state = p->seed;

    *s = (struct sampler){ .params = *p };
    for (int i = 0; i < 4; i++)
        s->rng[i] = draw_next(&state); /* not all zeros, whatever the seed */
}

void sampler_push(struct sampler *s, uint32_t token)
{
    s->recent[s->n_recent++ % SAMPLER_REPEAT_MAX] = token;
}

/* Ids that are penalised, each once, however often it stands in the window: a table of those that
 * were seen, open addressing, never more than half full. */
static uint32_t recent_ids(const struct sampler *s, uint32_t n_vocab, uint32_t *ret)
{
    enum { SLOTS = 2 * SAMPLER_REPEAT_MAX };
    uint32_t n = s->params.repeat_last_n < s->n_recent ? s->params.repeat_last_n : s->n_recent;
    uint32_t seen[SLOTS], n_ids = 0;

    if (n == 0 || s->params.repeat_penalty == 1)
        return 0;
    memset(seen, 0xff, sizeof(seen));
    for (uint32_t i = 1; i <= n; i++) {
        uint32_t id = s->recent[(s->n_recent - i) % SAMPLER_REPEAT_MAX],
                 at = id * 2654435761u >> 21;

        _Static_assert(SLOTS == 1u << 11, "the hash gives 11 bits");
        if (id >= n_vocab)
            continue;
        while (seen[at] != UINT32_MAX && seen[at] != id)
            at = (at + 1) % SLOTS;
        if (seen[at] == id)
            continue;
        seen[at] = id;
        ret[n_ids++] = id;
    }
    return n_ids;
}

/* A penalty above 1 makes a token less likely on either side of zero. */
static void penalise(const struct sampler *s, float *logits, uint32_t n_vocab)
{
    uint32_t ids[SAMPLER_REPEAT_MAX], n = recent_ids(s, n_vocab, ids);
    float by = s->params.repeat_penalty;

    for (uint32_t i = 0; i < n; i++)
        logits[ids[i]] = logits[ids[i]] > 0 ? logits[ids[i]] / by : logits[ids[i]] * by;
}

/* --- cuts ------------------------------------------------------------------------------------- */

/* Weights are added up in f64, in one order on every CPU: four sums in a block, then block by
 * block. */
#define BLOCK 64u

static double mass_of_block(const struct sampler_candidate *c, uint32_t n)
{
    double sum[4] = { 0, 0, 0, 0 };
    uint32_t i = 0;

    for (; i + 4 <= n; i += 4) {
        for (int k = 0; k < 4; k++)
            sum[k] += (double)c[i + k].weight;
    }
    for (; i < n; i++)
        sum[0] += (double)c[i].weight;
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

static double mass_of(const struct sampler_candidate *c, uint32_t n)
{
    double sum = 0;

    for (uint32_t i = 0; i < n; i += BLOCK)
        sum += mass_of_block(c + i, n - i < BLOCK ? n - i : BLOCK);
    return sum;
}

/* Eight sums are independent chains, which a compiler makes vectors of without changing their
 * order. */
static double weight_of_block(const float *w, uint32_t n)
{
    double sum[8] = { 0 };
    uint32_t i = 0;

    for (; i + 8 <= n; i += 8) {
        for (int k = 0; k < 8; k++)
            sum[k] += (double)w[i + k];
    }
    for (; i < n; i++)
        sum[0] += (double)w[i];
    for (int k = 1; k < 8; k++)
        sum[0] += sum[k];
    return sum[0];
}

/* Of all weights: eight sums in a block, which a device makes of all blocks at once, then block by
 * block. */
static double weight_of_all(const float *w, uint32_t n)
{
    double sum = 0;

    for (uint32_t i = 0; i < n; i += SAMPLER_MASS_BLOCK)
        sum += weight_of_block(w + i, n - i < SAMPLER_MASS_BLOCK ? n - i : SAMPLER_MASS_BLOCK);
    return sum;
}

/* With top_p the least that one of its tokens can have, times the mean weight: all tokens that
 * weigh less make up less than 1 - top_p together. A thousandth less, for roundings. */
static double least_share(const struct sampler_params *p)
{
    return 0.999 * (1 - (double)p->top_p);
}

/* A token that weighs less passes neither min_p nor top_p, and need not be a candidate. */
static float least_weight(const struct sampler_params *p, double mass, uint32_t n)
{
    double least = least_share(p) * mass / n;

    return (float)(least > (double)p->min_p ? least : (double)p->min_p);
}

/* Of tokens [first, end), whose weights these are, those of some weight, and of the least; without
 * a branch, as it would be guessed wrong. */
static uint32_t gather(const float *w, uint32_t first, uint32_t end, float least,
                       struct sampler_candidate *ret)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < end - first; i++) {
        ret[n] = (struct sampler_candidate){ w[i], first + i };
        n += (w[i] >= least) & (w[i] > 0);
    }
    return n;
}

/* How far below 1 a weight is, in steps of its last bit: the bits of floats are in their order.
 * Less than 2^30, as no weight is below 2^-64. */
static uint32_t depth_of(float weight)
{
    const float one = 1;
    uint32_t w, top;

    memcpy(&w, &weight, sizeof(w));
    memcpy(&top, &one, sizeof(top));
    return top - w;
}

struct bucket {
    double mass;
    uint32_t n;
};

/* What a cut still has to find, among candidates whose depth has `found` in its upper bits. */
struct search {
    uint32_t k;     /* so many candidates... */
    double mass;    /* ...or this mass */
    uint32_t found; /* depth >> the shift of the last step */
};

#define DEPTH_BITS      30u
#define SEARCH_BITS_MAX 10u

/* One step: sorts the candidates that are left by the next bits of their depth, and finds the
 * bucket in which the run ends. False: it ends nowhere, all are in it. */
static bool narrow_search(const struct sampler_candidate *c, uint32_t n, uint32_t shift,
                          uint32_t bits, struct search *s)
{
    struct bucket buckets[1u << SEARCH_BITS_MAX];
    uint32_t n_buckets = 1u << bits, b;

    memset(buckets, 0, n_buckets * sizeof(*buckets));
    for (uint32_t i = 0; i < n; i++) {
        uint32_t depth = depth_of(c[i].weight);

        if (depth >> shift >> bits == s->found) {
            b = depth >> shift & (n_buckets - 1);
            buckets[b].mass += (double)c[i].weight;
            buckets[b].n++;
        }
    }
    for (b = 0; b < n_buckets; b++) {
        if (buckets[b].n >= s->k || buckets[b].mass >= s->mass) {
            s->found = s->found << bits | b;
            return true;
        }
        s->k -= buckets[b].n;
        s->mass -= buckets[b].mass;
    }
    return false;
}

/* Keeps the shortest run of most likely candidates that has k of them or the mass, in the order of
 * their ids; of equal weights, the smaller ids. Linear, where sorting a vocabulary would take
 * longer than a layer: three times the candidates are counted by 10 bits of their weight, from the
 * upper ones on; or six times by 5, when they are fewer than the buckets would be. Which of the
 * two, the n_likely there were say: of these c may be only the first k and some, and the sums that
 * are compared are the same then. */
static uint32_t select_top(struct sampler_candidate *c, uint32_t n, uint32_t n_likely, uint32_t k,
                           double mass)
{
    struct search s = { .k = k, .mass = mass };
    uint32_t kept = 0, equal = 0, bits = n_likely < 1u << SEARCH_BITS_MAX ? 5 : SEARCH_BITS_MAX;

    /* DEPTH_BITS is a multiple of either number of bits. */
    for (uint32_t shift = DEPTH_BITS; shift > 0;) {
        shift -= bits;
        if (!narrow_search(c, n, shift, bits, &s))
            return n;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t depth = depth_of(c[i].weight);

        /* All of the last bucket weigh the same: the run goes on until it has enough of them. */
        if (depth == s.found &&
            (equal == 0 || (equal < s.k && equal * (double)c[i].weight < s.mass)))
            equal++;
        else if (depth >= s.found)
            continue;
        c[kept++] = c[i];
    }
    return kept;
}

/* --- drawing ---------------------------------------------------------------------------------- */

/* Whole blocks are passed by their sums, the very ones that mass_of added up. The last candidate is
 * what roundings leave over. */
static uint32_t draw(uint64_t rng[4], const struct sampler_candidate *c, uint32_t n)
{
    double at = draw_unit(next_random(rng)) * mass_of(c, n);

    for (; n > BLOCK; c += BLOCK, n -= BLOCK) {
        double mass = mass_of_block(c, BLOCK);

        if (at < mass)
            break;
        at -= mass;
    }
    for (uint32_t i = 0; i + 1 < n; i++) {
        at -= (double)c[i].weight;
        if (at < 0)
            return c[i].id;
    }
    return c[n - 1].id;
}

/* All cuts keep the most likely ones, so they can be made one after another; but they are counted
 * on the whole distribution, whose mass this is. */
static uint32_t finish(struct sampler *s, struct sampler_candidate *c, uint32_t n,
                       uint32_t n_likely, double mass)
{
    const struct sampler_params *p = &s->params;
    uint32_t top_k = p->top_k ? p->top_k : n;

    if (top_k < n || p->top_p < 1)
        n = select_top(c, n, n_likely, top_k, p->top_p < 1 ? (double)p->top_p * mass : INFINITY);
    return draw(s->rng, c, n);
}

uint32_t sampler_pick(struct sampler *s, const struct sampler_math *math, float *logits,
                      uint32_t n_vocab, struct sampler_candidate *scratch)
{
    const struct sampler_params *p = &s->params;
    uint32_t best, n;
    double mass;

    penalise(s, logits, n_vocab);
    best = math->argmax(logits, n_vocab);
    /* An infinite or missing maximum has no distribution around it. */
    if (p->temperature == 0 || !isfinite(logits[best]))
        return best;
    math->weights(logits, n_vocab, logits[best], p->temperature, logits);
    mass = weight_of_all(logits, n_vocab);
    n = gather(logits, 0, n_vocab, least_weight(p, mass, n_vocab), scratch);
    return finish(s, scratch, n, n, mass);
}

/* --- side by side ----------------------------------------------------------------------------- */

#define PARTS 8u

/* Parts are whole blocks of SAMPLER_MASS_BLOCK, and what is found in them is put together in their
 * order: so all comes out as of one. */
struct parts {
    const struct sampler_math *math;
    float *logits;
    struct sampler_candidate *scratch; /* at first the sums of blocks lie there */
    uint32_t n_vocab, each;            /* tokens of a part */
    float max, temperature, least;
    uint32_t best[PARTS], n[PARTS];
};

static uint32_t part_len(const struct parts *p, uint32_t part)
{
    uint32_t at = part * p->each;

    return p->n_vocab - at < p->each ? p->n_vocab - at : p->each;
}

static void find_best(void *arg, uint32_t part, uint32_t who)
{
    struct parts *p = arg;
    uint32_t at = part * p->each;

    (void)who;
    p->best[part] = at + p->math->argmax(p->logits + at, part_len(p, part));
}

/* A block's sum goes where candidates will be gathered: by then it has been added up. */
static void weigh(void *arg, uint32_t part, uint32_t who)
{
    struct parts *p = arg;
    uint32_t at = part * p->each, end = at + part_len(p, part);

    (void)who;
    p->math->weights(p->logits + at, end - at, p->max, p->temperature, p->logits + at);
    for (; at < end; at += SAMPLER_MASS_BLOCK) {
        uint32_t n = end - at < SAMPLER_MASS_BLOCK ? end - at : SAMPLER_MASS_BLOCK;
        double sum = weight_of_block(p->logits + at, n);

        memcpy(p->scratch + at / SAMPLER_MASS_BLOCK, &sum, sizeof(sum));
    }
}

static void gather_part(void *arg, uint32_t part, uint32_t who)
{
    struct parts *p = arg;
    uint32_t at = part * p->each;

    (void)who;
    p->n[part] = gather(p->logits + at, at, at + part_len(p, part), p->least, p->scratch + at);
}

/* As argmax: the first of the largest, and 0 where none is a number above minus infinity. */
static uint32_t best_of(const struct parts *p, uint32_t n_parts)
{
    uint32_t best = 0;

    for (uint32_t i = 0; i < n_parts; i++) {
        float x = p->logits[p->best[i]];

        if (x > -INFINITY && !(p->logits[best] >= x))
            best = p->best[i];
    }
    return best;
}

static double mass_of_blocks(const struct parts *p)
{
    double mass = 0, sum;

    for (uint32_t i = 0; i * SAMPLER_MASS_BLOCK < p->n_vocab; i++) {
        memcpy(&sum, p->scratch + i, sizeof(sum));
        mass += sum;
    }
    return mass;
}

uint32_t sampler_pick_by(struct sampler *s, const struct sampler_math *math,
                         const struct sampler_crew *crew, float *logits, uint32_t n_vocab,
                         struct sampler_candidate *scratch)
{
    const struct sampler_params *params = &s->params;
    uint32_t n_blocks = (n_vocab + SAMPLER_MASS_BLOCK - 1) / SAMPLER_MASS_BLOCK;
    struct parts p = { .math = math,
                       .logits = logits,
                       .scratch = scratch,
                       .n_vocab = n_vocab,
                       .each = (n_blocks + PARTS - 1) / PARTS * SAMPLER_MASS_BLOCK,
                       .temperature = params->temperature };
    uint32_t n_parts, best, n;
    double mass;

    _Static_assert(sizeof(double) <= sizeof(*scratch), "a sum has the room of a candidate");
    /* The largest alone is found in less time than is worth sharing. */
    if (!crew || params->temperature == 0 || n_blocks < 2 * PARTS)
        return sampler_pick(s, math, logits, n_vocab, scratch);
    n_parts = (n_vocab + p.each - 1) / p.each;
    penalise(s, logits, n_vocab);
    crew->run(crew->to, find_best, &p, n_parts);
    best = best_of(&p, n_parts);
    if (!isfinite(logits[best]))
        return best;
    p.max = logits[best];
    crew->run(crew->to, weigh, &p, n_parts);
    mass = mass_of_blocks(&p);
    p.least = least_weight(params, mass, n_vocab);
    crew->run(crew->to, gather_part, &p, n_parts);
    n = p.n[0];
    /* Parts close up, which keeps the order of ids. */
    for (uint32_t i = 1; i < n_parts; n += p.n[i++])
        memmove(scratch + n, scratch + (size_t)i * p.each, p.n[i] * sizeof(*scratch));
    return finish(s, scratch, n, n, mass);
}

/* --- in two steps ----------------------------------------------------------------------------- */

bool sampler_ask(const struct sampler *s, uint32_t n_vocab, uint32_t *ids, struct sampler_ask *ret)
{
    const struct sampler_params *p = &s->params;

    if (p->temperature != 0 && p->top_k == 0 && p->top_p >= 1 && p->min_p == 0)
        return false;
    *ret = (struct sampler_ask){ .penalty = p->repeat_penalty,
                                 .n_ids = recent_ids(s, n_vocab, ids),
                                 .ids = ids,
                                 .temperature = p->temperature,
                                 .top_k = p->top_k,
                                 .min_p = p->min_p,
                                 .least = least_share(p) };
    return true;
}

uint32_t sampler_take(struct sampler *s, const struct sampler_found *found,
                      struct sampler_candidate *c)
{
    return found->n ? finish(s, c, found->n, found->n_likely, found->mass) : found->best;
}
