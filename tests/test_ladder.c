/* tests/test_ladder.c - how far old context is compressed. Would catch: a budget that is passed
 * although something could still be compressed, younger segments compressed further than older
 * ones, a prediction that is not what happens, a state that depends on how the tokens came.
 */
#include "daemon/ladder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TOKENS 6000u

/* Segments of 64 at ratio 8, no sinks, 256 keys: 8, 4, 2, 1 keys on rungs 1 to 4. */
static void climbs_as_said(void **state)
{
    static const struct policy p = { .spec = { COMPRESS_FINE_KV, 8, 0, NULL },
                                     .seg_len = 64,
                                     .budget = 256 };
    /* 24 segments take 192 keys, and another 64 fit. With the 25th there are 200 and not enough
     * room: the rung with most keys, the first, gives one (196), and one more (192). */
    static const struct {
        uint32_t segments, n_at[4];
        uint64_t keys;
    } known[] = {
        { 1, { 0, 1, 0, 0 }, 8 },      { 23, { 0, 23, 0, 0 }, 184 }, { 24, { 0, 24, 0, 0 }, 192 },
        { 25, { 0, 25, 2, 0 }, 192 },  { 26, { 0, 26, 4, 0 }, 192 }, { 32, { 0, 32, 16, 0 }, 192 },
        { 33, { 0, 33, 18, 0 }, 192 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
        struct ladder l = ladder_of(&p, known[i].segments * 64u);

        for (uint32_t rung = 1; rung < 4; rung++)
            assert_int_equal(l.n_at[rung], known[i].n_at[rung]);
        assert_int_equal(ladder_keys(&p, &l, known[i].segments * 64u), known[i].keys);
        assert_int_equal(ladder_rung(&l, known[i].segments - 1), 1);
        assert_int_equal(ladder_rung(&l, known[i].segments), 0);
    }
}

static const struct policy *draw_policy(struct policy *p, unsigned *seed)
{
    static const enum compress_method methods[] = { COMPRESS_NONE, COMPRESS_FINE_KV,
                                                    COMPRESS_SELECT };
    uint32_t least;

    *p = (struct policy){ .spec.method = methods[rand_r(seed) % 3] };
    p->spec.ratio = 2u << rand_r(seed) % 6;
    p->spec.sinks = (uint32_t)rand_r(seed) % 17;
    p->seg_len = 64u << rand_r(seed) % 3;
    p->keep_tail = rand_r(seed) % 2 ? (uint32_t)rand_r(seed) % 300 : 0;
    p->late = rand_r(seed) % 2;
    p->fixed = rand_r(seed) % 4 == 0;
    least = 2 * p->seg_len + p->keep_tail;
    p->budget = least + (uint32_t)rand_r(seed) % 1000;
    return p;
}

/* No segment could go on: what is behind the checks is on the last rung. */
static bool exhausted(const struct policy *p, const struct ladder *l)
{
    uint32_t last = p->fixed ? 1 : 1 + compress_max_thinned(&p->spec);

    return l->n_at[last] >= l->n_checked;
}

/* Token after token, as a session climbs, is what ladder_climb says beforehand. */
static void is_what_was_predicted(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 60; seed++) {
        struct ladder l = { 0 };
        struct policy p;
        unsigned draws = seed;
        uint64_t keys, pages, most = 0, most_pages = 0, unthinned = 0;

        draw_policy(&p, &draws);
        for (uint64_t n = 0; n <= TOKENS; n++) {
            struct ladder_step step;

            most = ladder_keys(&p, &l, n) > most ? ladder_keys(&p, &l, n) : most;
            most_pages =
                ladder_pages(&p, &l, n) > most_pages ? ladder_pages(&p, &l, n) : most_pages;
            while (n >= ladder_due_at(&p, &l)) {
                while (ladder_next(&p, &l, n, &step)) {
                    assert_int_equal(ladder_rung(&l, step.segment) + 1, step.rung);
                    assert_true((step.segment + 1) * p.seg_len <= n);
                    ladder_take(&l, &step);
                }
                ladder_check(&l);
            }
            for (uint32_t rung = 1; rung + 1 < LADDER_RUNGS; rung++)
                assert_true(l.n_at[rung] >= l.n_at[rung + 1]);
            if (ladder_keys(&p, &l, n) > p.budget)
                assert_true(exhausted(&p, &l));
            if (l.n_at[2] == 0)
                unthinned = n;
            if (n % 97 == 0) {
                struct ladder again = { 0 };

                ladder_climb(&p, &again, 0, n, &keys, &pages);
                assert_true(ladder_equal(&l, &again));
                assert_int_equal(keys, most);
                assert_int_equal(pages, most_pages);
                assert_int_equal(ladder_unthinned(&p, n), unthinned);
            }
        }
        for (uint64_t n = 0; n < TOKENS; n += 61) { /* from anywhere */
            struct ladder part = ladder_of(&p, n);

            ladder_climb(&p, &part, n, TOKENS, NULL, NULL);
            assert_true(ladder_equal(&part, &l));
        }
    }
}

/* A session that was taken back goes on from no lower rungs than a fresh one's. */
static void rewinds_keep_what_is_compressed(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 60; seed++) {
        struct policy p;
        unsigned draws = seed;

        draw_policy(&p, &draws);
        for (uint64_t n = 0; n < TOKENS; n += 113) {
            struct ladder l = ladder_of(&p, TOKENS), fresh = ladder_of(&p, n);

            ladder_rewind(&p, &l, n);
            assert_int_equal(l.n_checked, fresh.n_checked);
            for (uint32_t rung = 1; rung < LADDER_RUNGS; rung++) {
                assert_true(l.n_at[rung] >= fresh.n_at[rung]);
                assert_true(l.n_at[rung] * p.seg_len <= n);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(climbs_as_said),
        cmocka_unit_test(is_what_was_predicted),
        cmocka_unit_test(rewinds_keep_what_is_compressed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
