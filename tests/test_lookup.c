/* tests/test_lookup.c - would catch: a guess that stands nowhere behind the same ids, a shorter
 * match where a longer one is among the last ones, places that are forgotten too early, guesses
 * from or past ids that are none, a text that is added in other slices and is known differently, a
 * table that grows with its text or is charged wrongly. Against a model that keeps every place.
 */
#include "base/draw.h"
#include "daemon/lookup.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_VOCAB 1000u
#define MOST    16u
#define FILLER  UINT32_MAX

static uint32_t below(uint64_t *rng, uint32_t n)
{
    return (uint32_t)(draw_next(rng) % n);
}

/* --- the model: every place, looked through ----------------------------------------------------
 */

static uint32_t match_of(const uint32_t *ids, uint32_t a, uint32_t b)
{
    uint32_t n = 0;

    while (n < LOOKUP_MATCH_MAX && n < a && ids[a - 1 - n] == ids[b - 1 - n] &&
           ids[b - 1 - n] < N_VOCAB)
        n++;
    return n;
}

/* What stands behind a place, at most MOST, or behind itself again. */
static uint32_t behind(const uint32_t *ids, uint32_t at, uint32_t n, uint32_t *ret)
{
    uint32_t k = 0;

    for (; k < MOST; k++) {
        ret[k] = ids[at + k % (n - at)];
        if (ret[k] >= N_VOCAB)
            break;
    }
    return k;
}

/* The longest match among the last `ways` places of the gram, the newest of equals; 0: none. */
static uint32_t model_place(const uint32_t *ids, uint32_t n, uint32_t ways, uint32_t *ret_match)
{
    uint32_t at = 0, best = LOOKUP_GRAM - 1;

    for (uint32_t p = n - 1; p >= LOOKUP_GRAM && ways > 0; p--) {
        uint32_t match = match_of(ids, p, n);

        if (match < LOOKUP_GRAM)
            continue;
        ways--;
        if (match > best) {
            best = match;
            at = p;
        }
    }
    *ret_match = best;
    return at;
}

/* The guess is what stands behind some place with that match. */
static bool stands_somewhere(const uint32_t *ids, uint32_t n, uint32_t match, const uint32_t *guess,
                             uint32_t k)
{
    uint32_t there[MOST];

    for (uint32_t p = LOOKUP_GRAM; p < n; p++)
        if (match_of(ids, p, n) == match && behind(ids, p, n, there) == k &&
            memcmp(there, guess, k * sizeof(*there)) == 0)
            return true;
    return false;
}

/* --- tests -------------------------------------------------------------------------------------
 */

struct text {
    uint32_t ids[6000], n;
};

/* Words of an alphabet, with copies of what stood before, changed here and there, and holes. */
static void write_text(struct text *t, uint64_t *rng, uint32_t alphabet, uint32_t n)
{
    t->n = 0;
    while (t->n < n) {
        uint32_t left = n - t->n, len = 1 + below(rng, 60), from;

        if (len > left)
            len = left;
        if (t->n < 10 || below(rng, 3) == 0) {
            for (uint32_t i = 0; i < len; i++)
                t->ids[t->n++] = below(rng, alphabet);
            continue;
        }
        from = below(rng, t->n);
        for (uint32_t i = 0; i < len; i++, t->n++)
            t->ids[t->n] = below(rng, 40) == 0 ? below(rng, alphabet) : t->ids[from + i];
        if (below(rng, 20) == 0)
            t->ids[t->n - 1] = FILLER;
    }
}

struct counts {
    uint32_t known, found,
        same; /* places that the model has; guesses; and those that are its own */
};

/* Whatever is guessed is right: it stands behind ids that agree as far as is said, and no further
 * than the best of all places does. */
static void try_text(uint64_t seed, uint32_t alphabet, uint32_t n, struct counts *c)
{
    static struct text t;
    struct held_account account = { .limit = SIZE_MAX };
    uint32_t guess[MOST], there[MOST];
    struct lookup l;

    write_text(&t, &seed, alphabet, n);
    assert_int_equal(lookup_init(&l, &account, 4 * n), 0);
    for (uint32_t i = LOOKUP_GRAM + 1; i <= t.n; i += 1 + below(&seed, 3)) {
        uint32_t match = 0, best, want, k, at;

        while (!lookup_add(&l, t.ids, i, 1 + below(&seed, 3)))
            ;
        k = lookup_find(&l, t.ids, i, N_VOCAB, MOST, guess, &match);
        at = model_place(t.ids, i, LOOKUP_WAYS, &want);
        (void)model_place(t.ids, i, UINT32_MAX, &best);
        if (at > 0 && behind(t.ids, at, i, there) > 0)
            c->known++;
        if (k == 0)
            continue;
        assert_true(match >= LOOKUP_GRAM && match <= best);
        assert_true(stands_somewhere(t.ids, i, match, guess, k));
        c->found++;
        c->same += match == want && behind(t.ids, at, i, there) == k &&
                   memcmp(there, guess, k * sizeof(*guess)) == 0;
    }
    lookup_fini(&l);
    assert_int_equal(account.used, 0);
}

/* Few ids: rows are shared by several grams, and places are forgotten. Many: nearly all that the
 * model knows is found, and the same place of it. */
static void test_against_the_model(void **state)
{
    struct counts few = { 0 }, many = { 0 };

    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        try_text(seed, 3, 1500, &few);
        try_text(seed, 20, 1500, &few);
        try_text(seed, N_VOCAB, 3000, &many);
    }
    assert_true(few.found > few.known / 2);
    assert_true(many.known > 3000);
    assert_true(many.found >= many.known - many.known / 50);
    assert_true(many.same >= many.known - many.known / 20);
}

static uint32_t find(const struct lookup *l, const uint32_t *ids, uint32_t n, uint32_t *ret,
                     uint32_t *ret_match)
{
    return lookup_find(l, ids, n, N_VOCAB, MOST, ret, ret_match);
}

static void test_by_hand(void **state)
{
    /*                       0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15 16 */
    const uint32_t ids[] = { 9, 1, 2, 3, 7, 8, 5, 1, 2, 3, 6, 6, 9, 1, 2, 3, 7 };
    struct held_account account = { .limit = SIZE_MAX };
    uint32_t got[MOST], match;
    struct lookup l;

    (void)state;
    assert_int_equal(lookup_init(&l, &account, 100), 0);
    assert_int_equal(find(&l, ids, 0, got, &match), 0);
    assert_true(lookup_add(&l, ids, 3, 100));
    assert_int_equal(find(&l, ids, 3, got, &match), 0); /* it does not find itself */
    assert_true(lookup_add(&l, ids, 10, 100));
    assert_true(find(&l, ids, 10, got, &match) == MOST && match == 3);
    assert_true(got[0] == 7 && got[1] == 8 && got[5] == 3);
    assert_true(got[6] == 7 && got[7] == 8); /* and around again */
    /* Behind 9 1 2 3 the older place agrees further than the newer one. */
    assert_true(lookup_add(&l, ids, 16, 100));
    assert_true(find(&l, ids, 16, got, &match) == MOST && match == 4);
    assert_true(got[0] == 7 && got[1] == 8 && got[2] == 5);
    /* No more than is asked for. */
    assert_int_equal(lookup_find(&l, ids, 16, N_VOCAB, 2, got, &match), 2);
    /* An id that is none ends the guess, and is no part of a match. */
    assert_int_equal(lookup_find(&l, ids, 16, 8, MOST, got, &match), 2);
    assert_int_equal(match, 3);
    lookup_fini(&l);
    lookup_fini(&l); /* and once more is nothing */
    assert_int_equal(account.used, 0);
}

static void test_memory(void **state)
{
    struct held_account account = { .limit = 10000 };
    struct lookup l;
    uint32_t *ids = calloc(200000, sizeof(*ids)), got[MOST], match;

    (void)state;
    assert_int_equal(lookup_init(&l, &account, 5000), -EDQUOT);
    assert_int_equal(account.used, 0);
    assert_int_equal(lookup_find(&l, ids, 0, N_VOCAB, MOST, got, &match), 0);
    lookup_fini(&l);
    account.limit = SIZE_MAX;
    /* As large as it will be for a text of any length. */
    assert_int_equal(lookup_init(&l, &account, UINT32_MAX), 0);
    assert_int_equal(account.used, LOOKUP_IDS_MAX * sizeof(uint32_t));
    lookup_fini(&l);
    assert_int_equal(lookup_init(&l, &account, 1), 0);
    assert_true(account.used <= 4096);
    for (uint32_t i = 0; i < 200000; i++)
        ids[i] = i % 7 * i % N_VOCAB;
    assert_false(lookup_add(&l, ids, 200000, 199999));
    assert_true(lookup_add(&l, ids, 200000, 199999));
    assert_true(account.used <= 4096);
    lookup_fini(&l);
    assert_int_equal(account.used, 0);
    free(ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_against_the_model),
        cmocka_unit_test(test_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
