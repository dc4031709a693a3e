/* Would catch: tokens drawn with the wrong probabilities; a cut that keeps too many or too few, or
 * that counts after another cut; a penalty that is applied twice or past its window; a seed that
 * does not repeat, or gives other tokens under another table of kernels or by several hands; a
 * parameter out of range that gets through; logits that are not numbers ending in a crash.
 *
 * Distributions are tested by chi-square with fixed seeds: the limits are the 99.99 % points, so a
 * wrong sampler fails and a right one passes every time.
 */
#include "engine/cpu/kernels.h"
#include "engine/sampler.h"
#include "tests/support/counted.h"
#include "tests/support/fenced.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N 16u

static const struct kernels *kernels;

static const struct sampler_params neutral = { .temperature = 1, .top_p = 1, .repeat_penalty = 1 };

static void fill_logits(float logits[N])
{
    /* Not in order, so that the order of ids is not the order of weights. */
    static const float l[N] = { 0.5f, 2,  -1, 1,     3,     -2, 0, 1.5f,
                                2.5f, -3, 1,  -0.5f, 0.25f, -8, 2, -1.5f };

    memcpy(logits, l, sizeof(l));
}

/* What the header says, in the plainest way: sort, then test each token against each cut. */
static void expected_shares(const struct sampler_params *p, const float *logits, double ret[N])
{
    uint32_t order[N];
    double w[N], sum = 0, before = 0, kept = 0;

    for (uint32_t i = 0; i < N; i++) {
        order[i] = i;
        w[i] = exp(logits[i] / (double)p->temperature);
        sum += w[i];
        ret[i] = 0;
    }
    for (uint32_t i = 1; i < N; i++) {
        for (uint32_t j = i; j > 0 && w[order[j]] > w[order[j - 1]]; j--) {
            uint32_t t = order[j];

            order[j] = order[j - 1];
            order[j - 1] = t;
        }
    }
    for (uint32_t i = 0; i < N; i++) {
        uint32_t id = order[i];
        bool stays = (!p->top_k || i < p->top_k) && before < p->top_p * sum &&
                     w[id] >= p->min_p * w[order[0]];

        before += w[id];
        if (i == 0 || stays) {
            ret[id] = w[id];
            kept += w[id];
        }
    }
    for (uint32_t i = 0; i < N; i++)
        ret[i] /= kept;
}

/* 99.99 % points of chi-square with 0 to 15 degrees of freedom. */
static const double chi_limit[N] = { 0,     15.14, 18.42, 21.11, 23.51, 25.74, 27.86, 29.88,
                                     31.83, 33.72, 35.56, 37.37, 39.13, 40.87, 42.58, 44.26 };

static void check_distribution(const struct sampler_params *p)
{
    struct sampler_candidate scratch[N];
    double share[N], chi = 0;
    uint32_t seen[N] = { 0 }, n_draws = 20000, freedom = 0;
    struct sampler s;
    float logits[N];

    fill_logits(logits);
    expected_shares(p, logits, share);
    sampler_init(&s, p);
    for (uint32_t i = 0; i < n_draws; i++) {
        fill_logits(logits);
        seen[sampler_pick(&s, &kernels->sampling, logits, N, scratch)]++;
    }
    for (uint32_t i = 0; i < N; i++) {
        double want = share[i] * n_draws;

        if (share[i] == 0) {
            expect_that(seen[i] == 0, "token %u was cut and came %u times", i, seen[i]);
            continue;
        }
        if (want < 5) /* too rare for the approximation */
            continue;
        chi += (seen[i] - want) * (seen[i] - want) / want;
        freedom++;
    }
    freedom -= freedom > 0;
    expect_that(chi <= chi_limit[freedom],
                "t %g k %u p %g min %g: chi-square %.1f with %u degrees of freedom", p->temperature,
                p->top_k, p->top_p, p->min_p, chi, freedom);
}

static void test_plain(void **state)
{
    static const float temperatures[] = { 0.1f, 0.7f, 1, 1.5f, 10, 100 };

    (void)state;
    for (size_t i = 0; i < sizeof(temperatures) / sizeof(temperatures[0]); i++) {
        struct sampler_params p = neutral;

        p.temperature = temperatures[i];
        p.seed = i;
        check_distribution(&p);
    }
}

static void test_cuts(void **state)
{
    static const uint32_t top_k[] = { 0, 1, 2, 5, 15, 16, 17, 1000 };
    static const float top_p[] = { 1, 0.999f, 0.9f, 0.5f, 0.1f, 1e-6f, 0 };
    static const float min_p[] = { 0, 0.01f, 0.1f, 0.5f, 0.99f };

    (void)state;
    for (size_t i = 0; i < sizeof(top_k) / sizeof(top_k[0]); i++) {
        for (size_t j = 0; j < sizeof(top_p) / sizeof(top_p[0]); j++) {
            for (size_t k = 0; k < sizeof(min_p) / sizeof(min_p[0]); k++) {
                struct sampler_params p = neutral;

                p.top_k = top_k[i];
                p.top_p = top_p[j];
                p.min_p = min_p[k];
                p.seed = i * 100 + j * 10 + k;
                check_distribution(&p);
            }
        }
    }
}

/* Among equal weights the smaller id comes first. */
static void test_ties(void **state)
{
    struct sampler_candidate scratch[N];
    struct sampler_params p = neutral;
    struct sampler s;
    uint32_t seen = 0;

    (void)state;
    p.top_k = 3;
    sampler_init(&s, &p);
    for (int i = 0; i < 200; i++) {
        float logits[N] = { 0 };

        logits[5] = -1;
        seen |= 1u << sampler_pick(&s, &kernels->sampling, logits, N, scratch);
    }
    assert_int_equal(seen, 7);
}

static void test_greedy(void **state)
{
    struct sampler_candidate scratch[N];
    struct sampler_params p = neutral;
    struct sampler s;
    float logits[N];

    (void)state;
    p.temperature = 0;
    sampler_init(&s, &p);
    fill_logits(logits);
    assert_int_equal(sampler_pick(&s, &kernels->sampling, logits, N, scratch), 4);
    logits[9] = logits[4];
    assert_int_equal(sampler_pick(&s, &kernels->sampling, logits, N, scratch), 4);
    logits[1] = logits[4];
    assert_int_equal(sampler_pick(&s, &kernels->sampling, logits, N, scratch), 1);
}

static void test_penalty(void **state)
{
    struct sampler_candidate scratch[N];
    struct sampler_params p = neutral;
    struct sampler s;
    float logits[N];

    (void)state;
    p.temperature = 0;
    p.repeat_penalty = 2;
    p.repeat_last_n = 3;
    sampler_init(&s, &p);
    fill_logits(logits);
    assert_int_equal(sampler_pick(&s, &kernels->sampling, logits, N, scratch),
                     4); /* nothing pushed yet */

    sampler_push(&s, 8); /* pushed out of the window */
    sampler_push(&s, 4);
    sampler_push(&s, 4); /* twice, penalised once */
    sampler_push(&s, 9);
    sampler_push(&s, 4);
    fill_logits(logits);
    assert_int_equal(sampler_pick(&s, &kernels->sampling, logits, N, scratch), 8);
    assert_true(logits[4] == 1.5f); /* 3 / 2 */
    assert_true(logits[9] == -6);   /* -3 * 2: down as well */
    assert_true(logits[8] == 2.5f);

    sampler_push(&s, 1u << 31); /* no token of this vocabulary */
    fill_logits(logits);
    sampler_pick(&s, &kernels->sampling, logits, N, scratch);
    p.repeat_penalty = 0.5f; /* a reward */
    sampler_init(&s, &p);
    sampler_push(&s, 7);
    fill_logits(logits);
    sampler_pick(&s, &kernels->sampling, logits, N, scratch);
    assert_true(logits[7] == 3);
}

/* The whole window, with ids that collide in a table, each penalised exactly once. */
static void test_penalty_full_window(void **state)
{
    enum { VOCAB = 200000 };
    struct sampler_candidate *scratch = malloc(VOCAB * sizeof(*scratch));
    float *logits = malloc(VOCAB * sizeof(*logits));
    struct sampler_params p = neutral;
    struct sampler s;

    (void)state;
    p.temperature = 0;
    p.repeat_penalty = 2;
    p.repeat_last_n = SAMPLER_REPEAT_MAX;
    sampler_init(&s, &p);
    for (uint32_t i = 0; i < 3 * SAMPLER_REPEAT_MAX; i++)
        sampler_push(&s, i * 61 % 199999);
    for (uint32_t i = 0; i < VOCAB; i++)
        logits[i] = 1;
    sampler_pick(&s, &kernels->sampling, logits, VOCAB, scratch);
    for (uint32_t i = 0; i < 3 * SAMPLER_REPEAT_MAX; i++) {
        float want = i < 2 * SAMPLER_REPEAT_MAX ? 1 : 0.5f;

        assert_true(logits[i * 61 % 199999] == want);
    }
    free(scratch);
    free(logits);
}

/* The values are part of the promise: the same on every machine. Recorded from a few lines of
 * Python that do splitmix64, xoshiro256** and the draw over exp(l - 3) by the algorithms'
 * descriptions. */
static void test_seed(void **state)
{
    static const uint32_t want[24] = { 1, 4, 8, 14, 14, 8,  8, 11, 8, 7, 8, 4,
                                       8, 4, 8, 12, 8,  11, 8, 8,  1, 3, 4, 7 };
    struct sampler_candidate scratch[N];
    struct sampler_params p = neutral;
    struct sampler a, b;
    uint32_t differ = 0;

    (void)state;
    p.seed = 42;
    sampler_init(&a, &p);
    for (int i = 0; i < 24; i++) {
        float logits[N];

        fill_logits(logits);
        assert_int_equal(sampler_pick(&a, &kernels->sampling, logits, N, scratch), want[i]);
    }
    p.seed = 43;
    sampler_init(&a, &p);
    p.seed = 44;
    sampler_init(&b, &p);
    for (int i = 0; i < 100; i++) {
        float logits[N], again[N];

        fill_logits(logits);
        fill_logits(again);
        differ += sampler_pick(&a, &kernels->sampling, logits, N, scratch) !=
                  sampler_pick(&b, &kernels->sampling, again, N, scratch);
    }
    assert_true(differ > 50);
}

/* A large vocabulary: cuts that keep many, few, and ties without end. */
static void test_large(void **state)
{
    enum { VOCAB = 151936 };
    struct sampler_candidate *scratch = malloc(VOCAB * sizeof(*scratch));
    float *logits = malloc(VOCAB * sizeof(*logits));

    (void)state;
    for (int way = 0; way < 8; way++) {
        struct sampler_params p = neutral;
        struct sampler s;

        p.top_k = way & 1 ? 40 : 0;
        p.top_p = way & 2 ? 0.9f : 1;
        p.min_p = way & 4 ? 0.5f : 0;
        sampler_init(&s, &p);
        for (int i = 0; i < 20; i++) {
            uint32_t id;

            for (uint32_t j = 0; j < VOCAB; j++)
                logits[j] = i % 2 ? 0 : (float)(j * 2654435761u >> 8) * 0x1p-22f;
            id = sampler_pick(&s, &kernels->sampling, logits, VOCAB, scratch);
            assert_true(id < VOCAB);
            if (way & 1 && i % 2)
                assert_true(id < 40);
        }
    }
    free(scratch);
    free(logits);
}

/* The last part first. */
static void run_backwards(void *to, void (*fn)(void *arg, uint32_t part, uint32_t who), void *arg,
                          uint32_t n)
{
    *(uint32_t *)to += n;
    while (n-- > 0)
        fn(arg, n, n);
}

static void fill_row(float *x, uint32_t n, int way, uint64_t *rng)
{
    for (uint32_t i = 0; i < n; i++) {
        *rng = *rng * 6364136223846793005u + 1442695040888963407u;
        x[i] = (float)(int32_t)(*rng >> 32) * (way % 3 ? 0x1p-28f : 0x1p-31f);
        if (way == 5)
            x[i] = i % 5 ? -1 : 2; /* many are the largest */
        if (way == 6)
            x[i] = i < n / 2 ? NAN : -INFINITY;
        if (way == 7 && i < n / 3)
            x[i] = NAN;
    }
    if (way == 8)
        x[n - 1] = INFINITY;
}

/* Of a row that several go through the tokens are those that one finds, whatever is cut, and so
 * are the draws that follow. */
static void test_side_by_side(void **state)
{
    enum { VOCAB = 49152 };
    static const uint32_t sizes[] = { VOCAB, 20001, 16384, 16383, 15361, 1000 };
    struct sampler_candidate *scratch = malloc(VOCAB * sizeof(*scratch));
    float *a = malloc(VOCAB * sizeof(*a)), *b = malloc(VOCAB * sizeof(*b));
    uint32_t n_parts = 0;
    const struct sampler_crew crew = { run_backwards, &n_parts };
    uint64_t rng = 11;

    (void)state;
    for (int way = 0; way < 9 * 6 * 8; way++) {
        uint32_t n = sizes[way / 9 % 6];
        struct sampler_params p = neutral;
        struct sampler one, many;

        p.temperature = way % 5 ? 0.8f : 0;
        p.top_k = way / 54 & 1 ? 40 : 0;
        p.top_p = way / 54 & 2 ? 0.9f : 1;
        p.min_p = way / 54 & 4 ? 0.05f : 0;
        p.repeat_penalty = 1.5f;
        p.repeat_last_n = 64;
        p.seed = (uint64_t)way;
        sampler_init(&one, &p);
        sampler_init(&many, &p);
        for (int i = 0; i < 3; i++) {
            uint32_t id;

            fill_row(a, n, way % 9, &rng);
            memcpy(b, a, n * sizeof(*b));
            id = sampler_pick(&one, &kernels->sampling, a, n, scratch);
            assert_int_equal(sampler_pick_by(&many, &kernels->sampling, &crew, b, n, scratch), id);
            sampler_push(&one, id);
            sampler_push(&many, id);
        }
    }
    assert_true(n_parts > 1000); /* the crew had work */
    free(scratch);
    free(a);
    free(b);
}

/* Every table gives the scalar one's bits: a seed gives the same tokens on every CPU. */
static void test_same_bits(void **state)
{
    static const float odd[] = { NAN, -NAN, INFINITY, -INFINITY, 0, -0.0f, 1e-40f, -1e30f, 20 };
    static const uint32_t sizes[] = { 1,  2,  7,  8,  9,  15,  16,   17,   31,
                                      32, 33, 63, 64, 65, 100, 1000, 1023, 49152 };
    uint64_t rng = 7;

    (void)state;
    for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
        uint32_t n = sizes[k];
        struct fenced x = fenced_new(n * sizeof(float)), a = fenced_new(n * sizeof(float)),
                      b = fenced_new(n * sizeof(float));
        float *v = x.p;

        for (int way = 0; way < 12; way++) {
            for (uint32_t i = 0; i < n; i++) {
                rng = rng * 6364136223846793005u + 1442695040888963407u;
                v[i] = (float)(int32_t)(rng >> 32) * (way % 3 ? 0x1p-27f : 0x1p-24f);
                if (way % 4 == 3) /* many are the same, and some no numbers */
                    v[i] = (rng >> 20) % 3 ? 3 : odd[(rng >> 33) % (sizeof(odd) / sizeof(odd[0]))];
                if (way == 8)
                    v[i] = i % 2 ? NAN : -INFINITY;
            }
            assert_int_equal(kernels->sampling.argmax(v, n), kernels_scalar.sampling.argmax(v, n));
            kernels->sampling.weights(v, n, 20, way % 2 ? 0.7f : 1.3f, a.p);
            kernels_scalar.sampling.weights(v, n, 20, way % 2 ? 0.7f : 1.3f, b.p);
            if (way % 4 != 3) /* there, some are above the maximum */
                assert_memory_equal(a.p, b.p, n * sizeof(float));
        }
        fenced_free(&x);
        fenced_free(&a);
        fenced_free(&b);
    }
}

/* e^x to 2e-7 all the way, 1 at 0, none of e^-44 and of what is no number. */
static void test_weights(void **state)
{
    (void)state;
    for (int i = 0; i <= 44000; i++) {
        float x = (float)-i / 1000, w;

        kernels->sampling.weights(&x, 1, 0, 1, &w);
        if (x <= SAMPLER_WEIGHT_LOG_MIN)
            assert_true(w == 0);
        else if (!(fabs(w / exp((double)x) - 1) <= 2e-7) || w > 1)
            fail_msg("e^%g is %.9g", (double)x, (double)w);
    }
    for (int way = 0; way < 3; way++) {
        float x[] = { 0, NAN, -INFINITY, -44, -45, -1e30f, 0, 0, -1 }, w[9];

        kernels->sampling.weights(x, 9, 0, way ? 1 : 1e-30f, w);
        assert_true(w[0] == 1 && w[6] == 1 && w[1] == 0 && w[2] == 0 && w[3] == 0 && w[5] == 0);
    }
}

static const float *sort_by;

static int by_weight(const void *a, const void *b)
{
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;

    if (sort_by[i] != sort_by[j])
        return sort_by[i] < sort_by[j] ? 1 : -1;
    return i < j ? -1 : i > j;
}

/* How many tokens the cuts leave, by sorting; order: ids by weight. */
static uint32_t expected_run(const struct sampler_params *p, const float *w, uint32_t n,
                             uint32_t *order)
{
    double sum = 0, mass = 0;
    uint32_t kept = 0;

    for (uint32_t i = 0; i < n; i++) {
        order[i] = i;
        sum += (double)w[i];
    }
    sort_by = w;
    qsort(order, n, sizeof(*order), by_weight);
    while (kept < n && w[order[kept]] > 0 && w[order[kept]] >= p->min_p &&
           (p->top_k == 0 || kept < p->top_k) &&
           (kept == 0 || p->top_p == 1 || mass < (double)p->top_p * sum))
        mass += (double)w[order[kept++]];
    return kept;
}

/* Cuts of a vocabulary whose weights are flat, steep, or in steps of many equal ones: no token is
 * drawn that sorting would not leave, and of few that are left, each is. */
static void test_cuts_of_many(void **state)
{
    enum { VOCAB = 5003 };
    static const uint32_t top_ks[] = { 0, 1, 3, 40, 4000, 6000 };
    static const float top_ps[] = { 1, 0.999f, 0.9f, 0.5f, 1e-6f, 0 }, min_ps[] = { 0, 0.05f };
    static float logits[VOCAB], w[VOCAB];
    static struct sampler_candidate scratch[VOCAB];
    static uint32_t order[VOCAB], rank[VOCAB], seen[VOCAB];
    static const float spans[] = { 0.3f, 12, 60, -5 };

    (void)state;
    for (int way = 0; way < 6 * 6 * 2 * 4; way++) {
        struct sampler_params p = neutral;
        float span = spans[way / 72];
        struct sampler s;
        uint32_t n_kept, n_seen = 0;

        p.top_k = top_ks[way % 6];
        p.top_p = top_ps[way / 6 % 6];
        p.min_p = min_ps[way / 36 % 2];
        p.seed = (uint64_t)way;
        for (uint32_t i = 0; i < VOCAB; i++) {
            float u = (float)(i * 2654435761u >> 8) * 0x1p-24f;

            logits[i] = span > 0 ? u * span : floorf(u * 7) * span / 7;
        }
        kernels_scalar.sampling.weights(
            logits, VOCAB, logits[kernels_scalar.sampling.argmax(logits, VOCAB)], 1, w);
        n_kept = expected_run(&p, w, VOCAB, order);
        for (uint32_t i = 0; i < VOCAB; i++) {
            rank[order[i]] = i;
            seen[i] = 0;
        }
        sampler_init(&s, &p);
        for (int i = 0; i < 100; i++) {
            float again[VOCAB];
            uint32_t id;

            memcpy(again, logits, sizeof(again));
            id = sampler_pick(&s, &kernels->sampling, again, VOCAB, scratch);
            if (rank[id] >= n_kept)
                fail_msg("way %d: token %u is at place %u of %u", way, id, rank[id], n_kept);
            n_seen += seen[id]++ == 0;
        }
        if (n_kept <= 3 && p.min_p > 0.01f)
            assert_int_equal(n_seen, n_kept);
    }
}

static void test_no_numbers(void **state)
{
    static const float bad[] = { NAN, INFINITY, -INFINITY };

    (void)state;
    for (int way = 0; way < 3 * 16; way++) {
        struct sampler_candidate scratch[N];
        struct sampler_params p = neutral;
        struct sampler s;
        float logits[N];
        uint32_t id;

        p.temperature = way & 1 ? 0 : 0.8f;
        p.top_k = way & 2 ? 5 : 0;
        p.top_p = way & 4 ? 0.9f : 1;
        p.repeat_penalty = 1.1f;
        p.repeat_last_n = 4;
        sampler_init(&s, &p);
        sampler_push(&s, 4);
        fill_logits(logits);
        for (uint32_t i = 0; i < (way & 8 ? N : 7); i++)
            logits[i] = bad[way / 16];
        id = sampler_pick(&s, &kernels->sampling, logits, N, scratch);
        assert_true(id < N);
        if (!(way & 8) && bad[way / 16] != INFINITY)
            assert_true(id >= 7);
        if (way & 8)
            assert_int_equal(id, 0);
    }
}

/* Temperatures at both ends, and logits far apart. */
static void test_extreme(void **state)
{
    struct sampler_candidate scratch[N];
    struct sampler_params p = neutral;
    struct sampler s;

    (void)state;
    p.temperature = 1e-30f;
    sampler_init(&s, &p);
    for (int i = 0; i < 50; i++) {
        float logits[N];

        fill_logits(logits);
        logits[0] = 1e30f;
        logits[3] = -3e38f;
        assert_int_equal(sampler_pick(&s, &kernels->sampling, logits, N, scratch), 0);
        fill_logits(logits);
        assert_int_equal(sampler_pick(&s, &kernels->sampling, logits, N, scratch), 4);
    }
}

static void check_refused(struct sampler_params p, const char *field, const char *found)
{
    struct why why = { "" };

    assert_int_equal(sampler_check(&p, &why), -EINVAL);
    if (!strstr(why.text, field) || !strstr(why.text, found))
        fail_msg("says \"%s\", without %s or %s", why.text, field, found);
    assert_int_equal(sampler_check(&p, NULL), -EINVAL);
}

static void test_check(void **state)
{
    struct sampler_params p = neutral;

    (void)state;
    assert_int_equal(sampler_check(&p, NULL), 0);
    p = (struct sampler_params){ 100, 1u << 31, 1e-6f, 0.999f, 10, SAMPLER_REPEAT_MAX, 1 };
    assert_int_equal(sampler_check(&p, NULL), 0);
#define REFUSED(field, value, found) (p = neutral, p.field = value, check_refused(p, #field, found))
    REFUSED(temperature, -0.5f, "-0.5");
    REFUSED(temperature, 101, "101");
    REFUSED(temperature, NAN, "nan");
    REFUSED(temperature, INFINITY, "inf");
    REFUSED(top_p, -0.5f, "-0.5");
    REFUSED(top_p, 1.5f, "1.5");
    REFUSED(top_p, NAN, "nan");
    REFUSED(min_p, -1, "-1");
    REFUSED(min_p, 1, "1");
    REFUSED(min_p, NAN, "nan");
    REFUSED(repeat_penalty, 0, "0");
    REFUSED(repeat_penalty, 11, "11");
    REFUSED(repeat_penalty, NAN, "nan");
    REFUSED(repeat_last_n, SAMPLER_REPEAT_MAX + 1, "1025");
#undef REFUSED
}

int main(void)
{
    /* The widest table draws, all are held against the scalar one: then they draw the same. */
    const struct CMUnitTest once[] = {
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_ties),
        cmocka_unit_test(test_penalty),
        cmocka_unit_test(test_penalty_full_window),
        cmocka_unit_test(test_seed),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_side_by_side),
        cmocka_unit_test(test_cuts_of_many),
        cmocka_unit_test(test_no_numbers),
        cmocka_unit_test(test_extreme),
    };
    const struct CMUnitTest each[] = {
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_seed),
        cmocka_unit_test(test_no_numbers),
    };
    int failed = 0;

    if (kernels_pick("auto", &kernels) < 0)
        return 1;
    failed += cmocka_run_group_tests_name("sampler", once, NULL, NULL);
    for (unsigned i = 0; kernels_name(i); i++) {
        if (kernels_pick(kernels_name(i), &kernels) < 0)
            return 1;
        failed += cmocka_run_group_tests_name(kernels->name, each, NULL, NULL);
    }
    return failed ? 1 : 0;
}
