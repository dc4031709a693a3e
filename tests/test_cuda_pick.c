/* tests/test_cuda_pick.c - would catch: a row that is sampled on the device from other candidates
 * than on the CPU, with other weights or another mass, so that a seed gives other tokens; a cut
 * that loses a candidate or counts after another one; a penalty that is applied twice; logits that
 * are no numbers and pass for some; a row's result in another row's place, or one that depends on
 * the order of blocks; anything past an end. Bits are compared, not numbers. */
#include "cuda/pick.h"
#include "cuda/shim/shim.h"
#include "engine/cpu/kernels.h"
#include "engine/sampler.h"
#include "tests/support/counted.h"
#include "tests/support/cuda_mem.h"
#include "tests/support/sanitized.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define N       4613u /* five blocks, the last one ragged */
#define N_ROWS  4u
#define N_SEEDS 6u

static const struct sampler_math *const cpu = &kernels_scalar.sampling;
static uint64_t state = 88172645463325252ull;

static float random_f32(float by)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return ((float)(uint32_t)(state >> 40) / 8388608.0f - 1) * by;
}

/* Rows that differ in how many of their tokens are likely; some with equals. */
static float *make_rows(void)
{
    static const float by[N_ROWS] = { 1, 6, 30, 1e4f };
    float *ret = malloc(N_ROWS * N * sizeof(*ret));

    for (uint32_t i = 0; i < N_ROWS * N; i++)
        ret[i] = random_f32(by[i / N]);
    for (uint32_t i = 100; i < 2000; i += 7)
        ret[N + i] = 5.5f;
    return ret;
}

static const struct sampler_params params[] = {
    { .temperature = 0, .top_p = 1, .repeat_penalty = 1 },
    { .temperature = 0, .top_p = 1, .repeat_penalty = 3, .repeat_last_n = 60 },
    { .temperature = 1, .top_k = 1, .top_p = 1, .repeat_penalty = 1 },
    { .temperature = 1, .top_k = 40, .top_p = 1, .repeat_penalty = 1.3f, .repeat_last_n = 1024 },
    { .temperature = 0.2f, .top_k = 900, .top_p = 1, .repeat_penalty = 1 },
    { .temperature = 1, .top_p = 0.5f, .repeat_penalty = 1 },
    { .temperature = 0.7f, .top_p = 0.95f, .repeat_penalty = 1.1f, .repeat_last_n = 8 },
    { .temperature = 100, .top_p = 0.1f, .repeat_penalty = 1 },
    { .temperature = 1, .top_p = 0, .repeat_penalty = 1 },
    { .temperature = 1.5f, .top_k = 50, .top_p = 0.9f, .repeat_penalty = 1 },
    { .temperature = 1, .top_k = 2000, .top_p = 0.3f, .min_p = 0.01f, .repeat_penalty = 1 },
    { .temperature = 1, .top_p = 1, .min_p = 0.05f, .repeat_penalty = 0.5f, .repeat_last_n = 30 },
};
#define N_PARAMS (sizeof(params) / sizeof(*params))

/* --- asking ----------------------------------------------------------------------------------- */

struct asked {
    struct sampler samplers[N_ROWS];
    struct k_pick_ask asks[N_ROWS];
    uint32_t ids[N_ROWS * SAMPLER_REPEAT_MAX];
    struct k_pick_found found[N_ROWS];
    struct sampler_candidate c[N_ROWS * SAMPLER_CANDIDATES_MAX];
};

/* A text before it, with tokens that come again. */
static void begin(struct sampler *s, const struct sampler_params *p, uint64_t seed)
{
    struct sampler_params with = *p;

    with.seed = seed;
    sampler_init(s, &with);
    for (uint32_t i = 0; i < 300; i++)
        sampler_push(s, i * i % 991 + (i % 3) * 1700);
}

/* Row i by params[(first + i) % N_PARAMS], all of them at once. */
static void ask(struct asked *a, const float *rows, uint32_t first)
{
    struct k_pick k = { .logits = cuda_put(rows, N_ROWS * N * sizeof(*rows)),
                        .n = N_ROWS,
                        .n_vocab = N,
                        .max = SAMPLER_CANDIDATES_MAX,
                        .found = cuda_new(sizeof(a->found)),
                        .candidates = cuda_new(sizeof(a->c)),
                        .scratch = cuda_new(k_pick_scratch(N_ROWS, N)) };
    uint32_t n_ids = 0;

    for (uint32_t i = 0; i < N_ROWS; i++) {
        struct sampler_ask one;

        begin(&a->samplers[i], &params[(first + i) % N_PARAMS], 1);
        assert_true(sampler_ask(&a->samplers[i], N, a->ids + n_ids, &one));
        a->asks[i] = (struct k_pick_ask){ one.least, one.penalty, one.temperature, one.min_p,
                                          one.top_k, n_ids,       one.n_ids };
        k.draws |= one.temperature != 0;
        n_ids += one.n_ids;
    }
    k.asks = cuda_put(a->asks, sizeof(a->asks));
    k.ids = cuda_put(a->ids, (n_ids ? n_ids : 1) * sizeof(*a->ids));
    assert_int_equal(k_pick(NULL, &k), 0);
    cuda_get(a->found, k.found, sizeof(a->found));
    cuda_get(a->c, k.candidates, sizeof(a->c));
    cuda_give(k.logits);
    cuda_give(k.found);
    cuda_give(k.candidates);
    cuda_give(k.scratch);
    cuda_give((void *)(uintptr_t)k.asks);
    cuda_give((void *)(uintptr_t)k.ids);
}

/* --- what the CPU has ------------------------------------------------------------------------- */

/* In the order that engine/sampler.h gives: eight sums a block. */
static double mass_of(const float *w)
{
    double all = 0;

    for (uint32_t at = 0; at < N; at += SAMPLER_MASS_BLOCK) {
        uint32_t n = N - at < SAMPLER_MASS_BLOCK ? N - at : SAMPLER_MASS_BLOCK;
        double sum[8] = { 0 };

        for (uint32_t i = 0; i < n; i++)
            sum[i < n / 8 * 8 ? i % 8 : 0] += (double)w[at + i];
        for (int k = 1; k < 8; k++)
            sum[0] += sum[k];
        all += sum[0];
    }
    return all;
}

/* Penalised weights of a row; its largest logit in *ret_max. */
static void weigh(const struct sampler_params *p, const float *row, float *ret, float *ret_max)
{
    bool seen[N] = { false };
    struct sampler s;

    begin(&s, p, 1);
    memcpy(ret, row, N * sizeof(*ret));
    for (uint32_t i = 0; i < p->repeat_last_n && i < s.n_recent; i++) {
        uint32_t id = s.recent[s.n_recent - 1 - i];

        if (!seen[id])
            ret[id] = ret[id] > 0 ? ret[id] / p->repeat_penalty : ret[id] * p->repeat_penalty;
        seen[id] = true;
    }
    *ret_max = ret[cpu->argmax(ret, N)];
    cpu->weights(ret, N, *ret_max, p->temperature, ret);
}

/* Every candidate is there, with its weight, and none that is beneath all cuts. */
static void check_candidates(const struct sampler_params *p, const float *row,
                             const struct k_pick_found *f, const struct sampler_candidate *c)
{
    float *w = malloc(N * sizeof(*w)), max, least, kept = 1;
    uint32_t n = 0, n_likely = 0, n_least = 0;

    weigh(p, row, w, &max);
    assert_true(f->mass == mass_of(w));
    least = (float)(0.999 * (1 - (double)p->top_p) * f->mass / N);
    least = least > p->min_p ? least : p->min_p;
    for (uint32_t i = 0; i < f->n && f->n <= SAMPLER_CANDIDATES_MAX; i++)
        kept = c[i].weight < kept ? c[i].weight : kept;
    for (uint32_t i = 0; i < N; i++) {
        n_likely += w[i] >= least && w[i] > 0;
        n_least += w[i] >= kept && w[i] >= least && w[i] > 0;
        if (f->n > SAMPLER_CANDIDATES_MAX || n == f->n || c[n].id != i)
            continue;
        assert_memory_equal(&c[n].weight, &w[i], sizeof(w[i]));
        n++;
    }
    assert_int_equal(f->n_likely, n_likely);
    if (f->n <= SAMPLER_CANDIDATES_MAX) {
        assert_int_equal(n, f->n);       /* in the order of ids */
        assert_int_equal(n_least, f->n); /* all that weigh as much as one that is there */
    }
    if (p->top_k && f->n < n_likely)
        assert_true(f->n >= p->top_k);
    if (!p->top_k)
        assert_int_equal(f->n, n_likely);
    free(w);
}

/* The same token, whatever the seed, and the same one after that. */
static void check_tokens(const struct sampler_params *p, const float *row,
                         const struct k_pick_found *f, const struct sampler_candidate *c)
{
    struct sampler_found found = { f->mass, f->best, f->n_bad, f->n, f->n_likely };
    struct sampler_candidate *scratch = malloc(N * sizeof(*scratch));
    float *logits = malloc(N * sizeof(*logits));

    for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
        struct sampler here, there;
        uint32_t id;

        begin(&here, p, seed);
        begin(&there, p, seed);
        memcpy(logits, row, N * sizeof(*logits));
        id = sampler_pick(&here, cpu, logits, N, scratch);
        memcpy(scratch, c, f->n * sizeof(*c));
        assert_int_equal(sampler_take(&there, &found, scratch), id);
        assert_memory_equal(here.rng, there.rng, sizeof(here.rng));
    }
    free(logits);
    free(scratch);
}

static void check(const struct asked *a, const float *rows, uint32_t first, uint32_t *n_cut)
{
    for (uint32_t i = 0; i < N_ROWS; i++) {
        const struct sampler_params *p = &params[(first + i) % N_PARAMS];
        const struct sampler_candidate *c = a->c + (size_t)i * SAMPLER_CANDIDATES_MAX;
        const struct k_pick_found *f = &a->found[i];

        assert_int_equal(f->n_bad, 0);
        assert_int_equal(f->n == 0, p->temperature == 0);
        if (f->n)
            check_candidates(p, rows + i * N, f, c);
        if (f->n <= SAMPLER_CANDIDATES_MAX)
            check_tokens(p, rows + i * N, f, c);
        else
            n_cut[0]++;
        n_cut[1] += f->n > 1 && f->n < f->n_likely;
    }
}

/* --- tests ------------------------------------------------------------------------------------ */

static void tokens_are_the_cpus(void **unused)
{
    struct asked *a = malloc(sizeof(*a)), *b = malloc(sizeof(*b));
    float *rows = make_rows();
    uint32_t n_cut[2] = { 0, 0 };

    (void)unused;
    for (uint32_t first = 0; first < N_PARAMS; first += SANITIZED ? 5 : 1) {
        ask(a, rows, first);
        check(a, rows, first, n_cut);
        shim_set_order(true);
        ask(b, rows, first);
        shim_set_order(false);
        /* What nobody wrote is the same NaN. */
        assert_memory_equal(a->found, b->found, sizeof(a->found));
        assert_memory_equal(a->c, b->c, sizeof(a->c));
    }
    /* Rows with too many candidates, and rows that top_k cut here already: there are both. */
    assert_true(SANITIZED || n_cut[0] > 0);
    assert_true(n_cut[1] > 0);
    free(a);
    free(b);
    free(rows);
}

/* As sampler_pick has it: of an infinite or missing maximum the largest, and what is no number is
 * counted, but not what a penalty made of one. */
static void no_numbers(void **unused)
{
    static const uint32_t bad[N_ROWS] = { 2, N, 1, 0 };
    struct asked *a = malloc(sizeof(*a));
    float *rows = make_rows();

    (void)unused;
    rows[17] = NAN;
    rows[N - 1] = -INFINITY;
    for (uint32_t i = 0; i < N; i++)
        rows[N + i] = i % 2 ? NAN : -INFINITY;
    rows[2 * N + 4000] = INFINITY;
    rows[3 * N + 3611] = 3e38f; /* the last of the text: a penalty of a half doubles it */
    ask(a, rows, 8);
    for (uint32_t i = 0; i < N_ROWS; i++) {
        struct sampler_candidate *scratch = malloc(N * sizeof(*scratch));
        struct sampler s;

        begin(&s, &params[8 + i], 1);
        assert_int_equal(a->found[i].n_bad, bad[i]);
        if (i > 0) {
            assert_int_equal(a->found[i].n, 0);
            assert_int_equal(a->found[i].best, sampler_pick(&s, cpu, rows + i * N, N, scratch));
        }
        free(scratch);
    }
    assert_int_equal(a->found[2].best, 4000);
    free(a);
    free(rows);
}

/* Nothing to cut: candidates would be the vocabulary. */
static void what_is_not_asked(void **unused)
{
    static const struct sampler_params all = { .temperature = 1, .top_p = 1, .repeat_penalty = 1 };
    uint32_t ids[SAMPLER_REPEAT_MAX];
    struct sampler_ask one;
    struct sampler s;

    (void)unused;
    begin(&s, &all, 1);
    assert_false(sampler_ask(&s, N, ids, &one));
    begin(&s, &params[3], 1);
    assert_true(sampler_ask(&s, 500, ids, &one)); /* of a smaller vocabulary */
    for (uint32_t i = 0; i < one.n_ids; i++)
        assert_true(ids[i] < 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_are_the_cpus),
        cmocka_unit_test(no_numbers),
        cmocka_unit_test(what_is_not_asked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
