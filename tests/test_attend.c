/* tests/test_attend.c - would catch: a key turned by the wrong distance, a segment left out or
 * merged twice, a head of the wrong group, a mask off by one, work split over workers that changes
 * bits.
 *
 * The reference is attention as the textbook has it: absolute positions, one softmax, double. */
#include "tests/support/attn_world.h"
#include "tests/support/near.h"
#include "tests/support/sanitized.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CONTEXT WORLD_CONTEXT

static void open_world(struct world *w, const struct world_shape *s, const struct kernels *k,
                       enum kv_type kv, uint32_t n_workers, uint32_t seg_len)
{
    assert_int_equal(world_open(w, s, k, kv, n_workers, seg_len, 0), 0);
}

/* All keys up to the token's own, where they stand. */
static void textbook(const struct world *w, uint32_t t, uint32_t head, double *ret)
{
    uint32_t keys[CONTEXT];
    double positions[CONTEXT];

    for (uint32_t j = 0; j <= t; j++) {
        keys[j] = j;
        positions[j] = j;
    }
    world_textbook(w, t, t, head, t + 1, keys, positions, ret, NULL);
}

static void equals_the_textbook(void **state)
{
    const struct kernels *k = *state;

    for (size_t s = 0; s < WORLD_SHAPES; s++) {
        struct world w;
        size_t width = (size_t)world_shapes[s].n_head * world_shapes[s].head_dim;
        float *out = malloc(CONTEXT * width * sizeof(float));
        double want[256], worst = 0;

        open_world(&w, &world_shapes[s], k, KV_F32, 2, 64);
        world_attend(&w, 0, 213, NULL, out);
        for (uint32_t t = 213; t < CONTEXT; t++) /* one by one: split by segments */
            world_attend(&w, t, 1, NULL, out + t * width);
        for (uint32_t t = 0; t < CONTEXT; t += 7)
            for (uint32_t h = 0; h < world_shapes[s].n_head; h++) {
                textbook(&w, t, h, want);
                for (uint32_t i = 0; i < world_shapes[s].head_dim; i++)
                    worst = near_worse(worst, want[i],
                                       (double)out[t * width + h * world_shapes[s].head_dim + i]);
            }
        /* f32 sums of 300 terms of size 1: some 1e-6; a wrong key would be off by 1e-2. */
        if (!(worst <= 1e-5))
            fail_msg("%s: off by %g", world_shapes[s].name, worst);
        free(out);
        world_close(&w);
    }
}

/* Chunks of any size, one worker or three: the same bits. */
static void check_split(const struct kernels *k, enum kv_type kv)
{
    static const uint32_t chunks[] = { 1, 2, 3, 5, 16, 37, 64, 100, 300 };
    const struct world_shape *s = &world_shapes[0];
    size_t width = (size_t)s->n_head * s->head_dim, bytes = CONTEXT * width * sizeof(float);
    float *want = malloc(bytes), *got = malloc(bytes);

    for (size_t c = 0; c < sizeof(chunks) / sizeof(*chunks); c++) {
        struct world w;

        open_world(&w, s, k, kv, c % 2 ? 3 : 1, 64);
        for (uint32_t t = 0; t < CONTEXT; t += chunks[c])
            world_attend(&w, t, t + chunks[c] > CONTEXT ? CONTEXT - t : chunks[c], NULL,
                         (c ? got : want) + t * width);
        if (c)
            assert_memory_equal(got, want, bytes);
        world_close(&w);
    }
    free(want);
    free(got);
}

static void split_changes_no_bit(void **state)
{
    for (enum kv_type kv = 0; kv < KV__N; kv++)
        check_split(*state, kv);
}

/* What the textbook says that each of the first n segments of 64 gets from tokens [t0, end), and
 * that looking changes no bit of the result, however they come. */
static void check_shares(const struct kernels *k, const struct world_shape *s, enum kv_type kv)
{
    enum { T0 = 270, N_SHARES = 3, L = 64 };
    size_t width = (size_t)s->n_head * s->head_dim, n = (CONTEXT - T0) * width;
    double *want = calloc((size_t)s->n_head * N_SHARES, sizeof(*want)), p[CONTEXT], o[256];
    float *plain = malloc(n * sizeof(float)), *out = malloc(n * sizeof(float));
    float *all = malloc(CONTEXT * width * sizeof(float));
    double worst = 0, positions[CONTEXT];
    uint32_t keys[CONTEXT];
    struct world w;

    open_world(&w, s, k, kv, 2, L);
    for (uint32_t j = 0; j < CONTEXT; j++)
        positions[j] = keys[j] = j;
    for (uint32_t t = T0; t < CONTEXT; t++)
        for (uint32_t h = 0; h < s->n_head; h++) {
            world_textbook(&w, t, t, h, t + 1, keys, positions, o, p);
            for (uint32_t j = 0; j < N_SHARES * L; j++)
                want[h * N_SHARES + j / L] += p[j];
        }
    world_attend(&w, 0, CONTEXT, NULL, all);
    world_attend(&w, T0, CONTEXT - T0, NULL, plain);
    w.n_shares = N_SHARES;
    for (uint32_t chunk = 1; chunk <= CONTEXT; chunk *= 7) {
        w.shares = calloc((size_t)s->n_head * N_SHARES, sizeof(float));
        for (uint32_t t = T0; t < CONTEXT; t += chunk)
            world_attend(&w, t, t + chunk > CONTEXT ? CONTEXT - t : chunk, NULL,
                         out + (t - T0) * width);
        assert_memory_equal(out, plain, n * sizeof(float));
        for (uint32_t i = 0; i < s->n_head * N_SHARES; i++)
            worst = near_worse(worst, want[i], (double)w.shares[i]);
        free(w.shares);
    }
    /* Sums of 30 shares; keys in fewer bits look a little different. */
    if (!(worst <= (kv == KV_F32 ? 1e-5 : 0.1)))
        fail_msg("%s: off by %g", s->name, worst);
    world_close(&w);
    free(want);
    free(plain);
    free(out);
    free(all);
}

static void shares_equal_the_textbook(void **state)
{
    for (size_t s = 0; s < WORLD_SHAPES; s++)
        check_shares(*state, &world_shapes[s], KV_F32);
    check_shares(*state, &world_shapes[0], KV_F16);
    check_shares(*state, &world_shapes[0], KV_Q8_0);
}

/* Many sequences in one call, more than a round holds, equal each alone. */
static void batch_equals_alone(void **state)
{
    enum { N = 150 };
    const struct kernels *k = *state;
    struct world w;
    size_t width = (size_t)world_shapes[0].n_head * world_shapes[0].head_dim;
    float *want = malloc(CONTEXT * width * sizeof(float)), *q,
          *out = malloc(N * width * sizeof(float));

    open_world(&w, &world_shapes[0], k, KV_F32, 2, 64);
    world_attend(&w, 0, CONTEXT, NULL, want);
    q = malloc(N * width * sizeof(float));
    for (uint32_t i = 0; i < N; i++) { /* token i of the same sequence, N times over */
        uint32_t t = CONTEXT - N + i;

        world_queries(&w, t, 1, t % 64, q + i * width);
        world_look(&w, &w.seq, t, 1);
    }
    world_run(&w, q, out);
    assert_memory_equal(out, want + (CONTEXT - N) * width, N * width * sizeof(float));
    free(q);
    free(out);
    free(want);
    world_close(&w);
}

/* Sixty short segments of all sorts, some forgotten: more pages than one call takes. Their keys are
 * those of the world's first segments, again and again. */
static void joins_short_segments(void **state)
{
    enum { N = 60, ROWS = 5, FIRST = 246, L = 64, HD = 64 };
    static const uint32_t lengths[] = { 64, 16, 0, 17, 1, 33, 16, 16 };
    const struct world_shape *shape = &world_shapes[0];
    uint32_t keys[N * L], n = 0, pages[(N + 1) * (L / POOL_PAGE_TOKENS)];
    size_t width = (size_t)shape->n_head * HD;
    float *q = malloc(ROWS * width * sizeof(float)),
          *at_once = malloc(ROWS * width * sizeof(float)),
          *alone = malloc(ROWS * width * sizeof(float)),
          *read = malloc(CONTEXT * width * sizeof(float));
    struct seq_segment segments[N + 1] = { 0 };
    double positions[N * L], want[HD];
    uint32_t *ids = calloc((N + 1) * L, sizeof(*ids));
    struct world w;
    struct seq s;

    open_world(&w, shape, *state, KV_F32, 3, L);
    world_attend(&w, 0, CONTEXT, NULL, read);
    s = w.seq;
    s.segments = segments;
    s.pages = pages;
    s.tokens = ids;
    for (uint32_t k = 0; k <= N; k++) {
        uint32_t from = k < N ? k % 4 : 3;

        memcpy(seq_pages(&s, k), seq_pages(&w.seq, from), L / POOL_PAGE_TOKENS * sizeof(*pages));
        segments[k] = (struct seq_segment){ .base = n, .n_keys = lengths[k % 8] };
        for (uint32_t j = 0; j < (k < N ? lengths[k % 8] : L); j++, n++) {
            keys[n] = from * L + j;
            positions[n] = n;
        }
    }
    world_queries(&w, FIRST, ROWS, FIRST, q);
    for (uint32_t i = 0; i < ROWS; i++) { /* each alone is split over the workers, all are not */
        world_look(&w, &s, N * L + FIRST % L + i, 1);
        world_run(&w, q + i * width, alone + i * width);
    }
    world_look(&w, &s, N * L + FIRST % L, ROWS);
    world_run(&w, q, at_once);
    assert_memory_equal(alone, at_once, ROWS * width * sizeof(float));
    for (uint32_t i = 0; i < ROWS; i++)
        for (uint32_t h = 0; h < shape->n_head; h++) {
            uint32_t pos = segments[N].base + FIRST % L + i;

            world_textbook(&w, FIRST + i, pos, h, pos + 1, keys, positions, want, NULL);
            for (uint32_t c = 0; c < HD; c++)
                assert_true(near_within(want[c], (double)alone[i * width + h * HD + c], 1e-5));
        }
    free(q);
    free(ids);
    free(at_once);
    free(alone);
    free(read);
    world_close(&w);
}

static void far_rotations(void **state)
{
    static const uint32_t distances[] = { 0,      1,       511,
                                          8191,   8192,    8193,
                                          131071, 1000000, SEQ_TOKENS_MAX - 1 };
    struct rotary r;
    float freq[32], scratch[64];

    (void)state;
    for (uint32_t i = 0; i < 32; i++)
        freq[i] = (float)pow(500000.0, -2.0 * i / 64);
    assert_int_equal(rotary_open(&r, freq, 64), 0);
    for (size_t d = 0; d < sizeof(distances) / sizeof(*distances); d++) {
        const float *cs = rotary_by(&r, distances[d], scratch);

        for (uint32_t i = 0; i < 32; i++) {
            assert_true(fabs(cs[i] - cos((double)distances[d] * (double)freq[i])) < 3e-7);
            assert_true(fabs(cs[32 + i] - sin((double)distances[d] * (double)freq[i])) < 3e-7);
        }
    }
    rotary_close(&r);
}

int main(void)
{
    const struct kernels *k;
    int failed = 0;

    for (unsigned i = 0; i < SANITIZED_TABLES && kernels_name(i); i++) {
        if (kernels_pick(kernels_name(i), &k) < 0)
            continue;
        const struct CMUnitTest tests[] = {
            cmocka_unit_test_prestate(equals_the_textbook, (void *)k),
            cmocka_unit_test_prestate(split_changes_no_bit, (void *)k),
            cmocka_unit_test_prestate(shares_equal_the_textbook, (void *)k),
            cmocka_unit_test_prestate(batch_equals_alone, (void *)k),
            cmocka_unit_test_prestate(joins_short_segments, (void *)k),
            cmocka_unit_test(far_rotations),
        };

        failed += cmocka_run_group_tests_name(k->name, tests, NULL, NULL);
    }
    return failed ? 1 : 0;
}
