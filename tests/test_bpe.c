/* tests/test_bpe.c - would catch: an order of merges that differs from the definition, short and
 * long words merged by different rules, a long word that takes time by its square. */
#include "engine/text/bpe.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

/* The definition, as the header's head has it: find the lowest rank, leftmost, and merge. */
static size_t merge_plain(const struct bpe_rule *rules, size_t n_rules, uint32_t *ids, size_t n)
{
    for (;;) {
        size_t best_at = 0;
        const struct bpe_rule *best = NULL;

        for (size_t i = 0; i + 1 < n; i++)
            for (size_t j = 0; j < n_rules; j++)
                if (rules[j].left == ids[i] && rules[j].right == ids[i + 1] &&
                    (!best || rules[j].rank < best->rank)) {
                    best = &rules[j];
                    best_at = i;
                }
        if (!best)
            return n;
        ids[best_at] = best->result;
        memmove(&ids[best_at + 1], &ids[best_at + 2], (n - best_at - 2) * sizeof(*ids));
        n--;
    }
}

static uint32_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

#define LETTERS 3u
#define RULES   40u

/* Random rules that make a vocabulary: each result is a new token, so that B1 holds. */
static size_t random_rules(uint64_t *seed, struct bpe *b, struct bpe_rule *rules)
{
    size_t n = 0;

    assert_int_equal(bpe_init(b, RULES), 0);
    while (n < RULES) {
        struct bpe_rule r = { .rank = (uint32_t)n, .result = LETTERS + (uint32_t)n };

        r.left = next_random(seed) % (LETTERS + (uint32_t)n);
        r.right = next_random(seed) % (LETTERS + (uint32_t)n);
        if (bpe_add(b, r.left, r.right, r.rank, r.result) == 0)
            rules[n++] = r;
    }
    return n;
}

static void as_defined(void **state)
{
    struct bpe_rule rules[RULES];
    struct bpe_scratch s = { .cap = 0 };
    uint64_t seed = 1;

    (void)state;
    for (int round = 0; round < 60; round++) {
        struct bpe b;
        size_t n_rules = random_rules(&seed, &b, rules);

        for (int i = 0; i < 60; i++) {
            uint32_t ours[80], theirs[80];
            size_t len = 1 + next_random(&seed) % 80, n;

            for (size_t j = 0; j < len; j++)
                ours[j] = theirs[j] = next_random(&seed) % LETTERS;
            assert_int_equal(bpe_merge(&b, &s, ours, len, &n), 0);
            assert_int_equal(n, merge_plain(rules, n_rules, theirs, len));
            assert_memory_equal(ours, theirs, n * sizeof(*ours));
        }
        bpe_fini(&b);
    }
    bpe_scratch_fini(&s);
}

/* Ranks of a rule added later may be lower, and equal pairs go from the left: aaa is (aa)a. */
static void ranks_before_places(void **state)
{
    struct bpe_scratch s = { .cap = 0 };
    struct bpe b;
    uint32_t ids[] = { 0, 1, 2 }, same[] = { 0, 0, 0 };
    size_t n;

    (void)state;
    assert_int_equal(bpe_init(&b, 3), 0);
    assert_int_equal(bpe_add(&b, 0, 1, 7, 10), 0);
    assert_int_equal(bpe_add(&b, 1, 2, 6, 11), 0);
    assert_int_equal(bpe_add(&b, 0, 0, 1, 12), 0);
    assert_int_equal(bpe_add(&b, 0, 1, 1, 13), -EEXIST);
    assert_int_equal(bpe_merge(&b, &s, ids, 3, &n), 0);
    assert_int_equal(n, 2);
    assert_int_equal(ids[0], 0);
    assert_int_equal(ids[1], 11);
    assert_int_equal(bpe_merge(&b, &s, same, 3, &n), 0);
    assert_int_equal(n, 2);
    assert_int_equal(same[0], 12);
    assert_int_equal(same[1], 0);
    assert_int_equal(bpe_merge(&b, &s, same, 0, &n), 0);
    assert_int_equal(n, 0);
    bpe_fini(&b);
    bpe_scratch_fini(&s);
}

static double cpu_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* One letter, doubled up to 64. The bound is wide, for sanitizers and slow machines, but a
 * quadratic loop takes longer. */
static void the_longest_word(void **state)
{
    struct bpe_scratch s = { .cap = 0 };
    uint32_t *ids = malloc(BPE_MAX * sizeof(*ids));
    double t0, took, best = 1e9;
    struct bpe b;
    size_t n;

    (void)state;
    assert_non_null(ids);
    assert_int_equal(bpe_init(&b, 6), 0);
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(bpe_add(&b, i, i, i, i + 1), 0);
    for (int i = 0; i < 5; i++) {
        memset(ids, 0, BPE_MAX * sizeof(*ids));
        t0 = cpu_seconds();
        assert_int_equal(bpe_merge(&b, &s, ids, BPE_MAX - 1, &n), 0);
        took = cpu_seconds() - t0;
        best = took < best ? took : best;
    }
    (void)printf("%u letters: %.2f ms\n", BPE_MAX - 1, best * 1e3);
    assert_true(best < 0.1);
    assert_int_equal(n, BPE_MAX / 64 + 5); /* 63 letters are left at the end: 32 16 8 4 2 1 */
    for (size_t i = 0; i < BPE_MAX / 64 - 1; i++)
        assert_int_equal(ids[i], 6);
    assert_int_equal(ids[n - 1], 0);
    free(ids);
    bpe_fini(&b);
    bpe_scratch_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_defined),
        cmocka_unit_test(ranks_before_places),
        cmocka_unit_test(the_longest_word),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
