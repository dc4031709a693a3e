#include "engine/sampler.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

/* Tokens whose weight is below e^-44 of the largest are left out: all of a vocabulary of them would
 * weigh less than the last bit of the 53 that a draw has. */
#define WEIGHT_LOG_MIN (-44.0f)

int sampler_check(const struct sampler_params *p, struct why *why)
{
    /* Written so that NaN fails. */
    if (!(p->temperature >= 0 && p->temperature <= 100))
        return why_set(why, -EINVAL, "temperature is %g; 0 to 100 is allowed", p->temperature);
    if (!(p->top_p > 0 && p->top_p <= 1))
        return why_set(why, -EINVAL, "top_p is %g; more than 0 and up to 1 is allowed", p->top_p);
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

/* splitmix64: spreads one seed over the state, which must not be all zeros. */
static uint64_t split_mix(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
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
        s->rng[i] = split_mix(&state);
}

void sampler_push(struct sampler *s, uint32_t token)
{
    s->recent[s->n_recent++ % SAMPLER_REPEAT_MAX] = token;
}

/* Once a token, however often it stands in the window: a table of the ids that were seen, open
 * addressing, never more than half full. */
static void penalise(const struct sampler *s, float *logits, uint32_t n_vocab)
{
    enum { SLOTS = 2 * SAMPLER_REPEAT_MAX };
    uint32_t n = s->params.repeat_last_n < s->n_recent ? s->params.repeat_last_n : s->n_recent;
    float by = s->params.repeat_penalty;
    uint32_t seen[SLOTS];

    if (n == 0 || by == 1)
        return;
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
        logits[id] = logits[id] > 0 ? logits[id] / by : logits[id] * by;
    }
}

/* The smallest id among the largest logits; NaN is never the largest. 0 when there is no number. */
static uint32_t pick_greedy(const float *logits, uint32_t n_vocab)
{
    float best = -INFINITY;
    uint32_t id = 0;

    for (uint32_t i = 0; i < n_vocab; i++) {
        if (logits[i] > best) {
            best = logits[i];
            id = i;
        }
    }
    return id;
}

/* e^x for -44 <= x <= 0, to 2e-7. Not the C library's: that one's last bits differ between versions,
 * and a seed must give the same tokens everywhere. */
static float weight_of(float x)
{
    float n = x * 1.44269504f - 0.5f, r, p;
    int32_t power = (int32_t)n; /* towards zero: the nearest, as n is negative */
    uint32_t bits = (uint32_t)(power + 127) << 23;
    float scale;

    r = x - (float)power * 0.693145752f;
    r -= (float)power * 1.42860677e-6f;
    p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1;
    p = p * r + 1;
    memcpy(&scale, &bits, sizeof(scale));
    return p * scale;
}

/* Tokens with a weight worth the name; `logit` of a candidate is its weight from here on, 1 for the
 * most likely. NaN passes no comparison and drops out. Weights are computed some at a time and of
 * all, without a branch, so that the compiler can do several at once. */
static uint32_t gather(const float *logits, uint32_t n_vocab, float max, float temperature,
                       struct sampler_candidate *ret)
{
    enum { STEP = 64 };
    float x[STEP], w[STEP];
    uint32_t n = 0;

    for (uint32_t i = 0; i < n_vocab; i += STEP) {
        uint32_t n_step = n_vocab - i < STEP ? n_vocab - i : STEP;

        for (uint32_t k = 0; k < n_step; k++) {
            float v = (logits[i + k] - max) / temperature;

            x[k] = v > WEIGHT_LOG_MIN ? v : WEIGHT_LOG_MIN;
        }
        for (uint32_t k = 0; k < n_step; k++)
            w[k] = weight_of(x[k]);
        for (uint32_t k = 0; k < n_step; k++) {
            ret[n] = (struct sampler_candidate){ w[k], i + k };
            n += x[k] > WEIGHT_LOG_MIN;
        }
    }
    return n;
}

/* Four sums, as one would wait for every addition. */
static double mass_of(const struct sampler_candidate *c, uint32_t n)
{
    double sum[4] = { 0, 0, 0, 0 };
    uint32_t i = 0;

    for (; i + 4 <= n; i += 4) {
        for (int k = 0; k < 4; k++)
            sum[k] += c[i + k].logit;
    }
    for (; i < n; i++)
        sum[0] += c[i].logit;
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

static bool comes_before(struct sampler_candidate a, struct sampler_candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static void swap(struct sampler_candidate *a, struct sampler_candidate *b)
{
    struct sampler_candidate t = *a;

    *a = *b;
    *b = t;
}

/* Moves what comes before c[pivot] to the front and the pivot behind it. Returns how many those are,
 * the pivot included. */
static uint32_t partition(struct sampler_candidate *c, uint32_t n, uint32_t pivot)
{
    struct sampler_candidate p = c[pivot];
    uint32_t n_before = 0;

    swap(&c[pivot], &c[n - 1]);
    for (uint32_t i = 0; i + 1 < n; i++) {
        if (comes_before(c[i], p))
            swap(&c[i], &c[n_before++]);
    }
    swap(&c[n_before], &c[n - 1]);
    return n_before + 1;
}

/* Moves to the front the shortest run of most likely candidates that has k of them or the mass; in
 * no order. Returns its length, at least 1. Quickselect, for both ends at once: linear on average,
 * where sorting a vocabulary would take longer than a layer. */
static uint32_t select_top(struct sampler_candidate *c, uint32_t n, uint32_t k, double mass)
{
    uint32_t first = 0, random = 1;

    while (n - first > 1) {
        uint32_t n_front;
        double front;

        random = random * 1664525u + 1013904223u;
        n_front = partition(c + first, n - first, (random >> 8) % (n - first));
        front = mass_of(c + first, n_front);
        if (n_front >= k || front >= mass) {
            if (n_front == n - first) {
                /* The pivot was the last: it is settled by whether the rest is enough. */
                double rest = front - c[n - 1].logit;

                if (n_front - 1 < k && rest < mass)
                    return n;
                n--;
                continue;
            }
            n = first + n_front;
            continue;
        }
        first += n_front;
        k -= n_front;
        mass -= front;
    }
    return n;
}

/* Applies the cuts. All are counted on the distribution before any cut. */
static uint32_t cut(const struct sampler_params *p, struct sampler_candidate *c, uint32_t n)
{
    uint32_t k = p->top_k ? p->top_k : n, kept = 0;

    if (k < n || p->top_p < 1)
        n = select_top(c, n, k, p->top_p < 1 ? p->top_p * mass_of(c, n) : INFINITY);
    if (p->min_p == 0)
        return n;
    for (uint32_t i = 0; i < n; i++) {
        if (c[i].logit >= p->min_p)
            c[kept++] = c[i];
    }
    return kept;
}

static uint32_t draw(uint64_t rng[4], const struct sampler_candidate *c, uint32_t n)
{
    double at = (double)(next_random(rng) >> 11) * 0x1p-53 * mass_of(c, n);

    for (uint32_t i = 0; i + 1 < n; i++) {
        at -= c[i].logit;
        if (at < 0)
            return c[i].id;
    }
    return c[n - 1].id;
}

uint32_t sampler_pick(struct sampler *s, float *logits, uint32_t n_vocab,
                      struct sampler_candidate *scratch)
{
    const struct sampler_params *p = &s->params;
    uint32_t best, n;

    penalise(s, logits, n_vocab);
    best = pick_greedy(logits, n_vocab);
    /* An infinite or missing maximum has no distribution around it. */
    if (p->temperature == 0 || !isfinite(logits[best]))
        return best;
    n = gather(logits, n_vocab, logits[best], p->temperature, scratch);
    n = cut(p, scratch, n);
    return draw(s->rng, scratch, n);
}
