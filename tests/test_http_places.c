/* tests/test_http_places.c - live sessions that several keys want at once. Would catch: a key that
 * has all places answered until its answers end, so that another is refused; one that has more than
 * its part again while another waits; and places that stay empty though nobody else wants them.
 */
#include "http/live.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define PLACES 4u

/* Who was refused waits for ever, whatever the clock says; with 0 it does not at all. */
static void open_lives(struct lives *l, size_t n_keys, uint64_t wait_ns)
{
    lives_init(l, NULL, PLACES, n_keys, 1u << 20);
    l->wait_ns = wait_ns;
}

static struct live *take_id(struct lives *l, const char *who, const char *id, uint32_t n_turns)
{
    struct problem p = { .kind = PROBLEM_NONE };
    struct live *s = NULL;
    int r = live_take(l, who, id, n_turns, &s, &p);

    assert_true(r == 0 ? p.kind == PROBLEM_NONE : p.kind == PROBLEM_LIMIT);
    return r == 0 ? s : NULL;
}

static struct live *take(struct lives *l, const char *who)
{
    return take_id(l, who, NULL, 0);
}

static void take_n(struct lives *l, const char *who, unsigned n, struct live **ret)
{
    for (unsigned i = 0; i < n; i++) {
        ret[i] = take(l, who);
        assert_non_null(ret[i]);
    }
}

static void put_all(struct live **s, unsigned n, struct lives *l)
{
    for (unsigned i = 0; i < n; i++)
        assert_true(live_put(l, s[i], true));
}

/* One place is left for another key, and when that has it, for the next one. */
static void test_another(void **state)
{
    struct live *a[PLACES], *b;
    struct lives l;

    (void)state;
    open_lives(&l, 3, 0);
    take_n(&l, "a", PLACES - 1, a);
    assert_null(take(&l, "a"));
    b = take(&l, "b");
    assert_non_null(b);
    assert_null(take(&l, "c"));
    assert_true(live_put(&l, a[0], true));
    assert_null(take(&l, "a"));
    assert_null(take_id(&l, "a", a[0]->id, 1)); /* nor with the one that it has */
    assert_null(take(&l, "b"));
    a[0] = take(&l, "c"); /* in the place of the idle one */
    assert_non_null(a[0]);
    assert_int_equal(l.n, PLACES);
    put_all(a, PLACES - 1, &l);
    assert_true(live_put(&l, b, true));
    lives_fini(&l);
}

/* Idle ones that were all one key's: it can't have them answered all at once. */
static void test_idle(void **state)
{
    struct live *a[PLACES], *b;
    char ids[PLACES][LIVE_ID_LEN + 1];
    struct lives l;

    (void)state;
    open_lives(&l, 2, 0);
    for (unsigned i = 0; i < PLACES; i++) {
        a[i] = take(&l, "a");
        assert_non_null(a[i]);
        strcpy(ids[i], a[i]->id);
        assert_true(live_put(&l, a[i], true));
    }
    assert_int_equal(l.n, PLACES);
    for (unsigned i = 0; i < PLACES - 1; i++)
        assert_non_null(take_id(&l, "a", ids[i], 1));
    assert_null(take_id(&l, "a", ids[PLACES - 1], 1));
    assert_false(a[PLACES - 1]->busy);
    b = take(&l, "b");
    assert_non_null(b);
    put_all(a, PLACES - 1, &l);
    assert_true(live_put(&l, b, true));
    lives_fini(&l);
}

/* Who waits has an even part as places come free, whoever asks first. */
static void test_even(void **state)
{
    struct live *a[PLACES], *b[PLACES];
    struct lives l;

    (void)state;
    open_lives(&l, 2, UINT64_MAX);
    take_n(&l, "a", PLACES - 1, a);
    take_n(&l, "b", 1, b);
    assert_null(take(&l, "b"));
    live_drop(&l, a[2]);
    assert_null(take(&l, "a"));
    b[1] = take(&l, "b");
    assert_non_null(b[1]);
    assert_null(take(&l, "b")); /* both have their part */
    assert_null(take(&l, "a"));
    live_drop(&l, b[1]);
    assert_null(take(&l, "a")); /* as b waits for what it had */
    b[1] = take(&l, "b");
    assert_non_null(b[1]);
    put_all(a, 2, &l);
    put_all(b, 2, &l);
    lives_fini(&l);
}

/* Who does not come again keeps nobody from a place. */
static void test_left(void **state)
{
    struct live *a[PLACES], *b;
    struct lives l;

    (void)state;
    open_lives(&l, 2, 0);
    take_n(&l, "a", PLACES - 1, a);
    b = take(&l, "b");
    assert_non_null(b);
    assert_null(take(&l, "b"));
    live_drop(&l, a[2]);
    a[2] = take(&l, "a");
    assert_non_null(a[2]);
    put_all(a, PLACES - 1, &l);
    assert_true(live_put(&l, b, true));
    lives_fini(&l);
}

static void test_alone(void **state)
{
    struct live *a[PLACES];
    struct lives l;

    (void)state;
    open_lives(&l, 1, UINT64_MAX);
    take_n(&l, "", PLACES, a);
    assert_null(take(&l, ""));
    live_drop(&l, a[0]);
    a[0] = take(&l, "");
    assert_non_null(a[0]);
    put_all(a, PLACES, &l);
    lives_fini(&l);
}

/* More keys wait than are remembered: the last one is. */
static void test_crowd(void **state)
{
    struct live *a[PLACES], *b[PLACES];
    struct lives l;

    (void)state;
    open_lives(&l, 1000, UINT64_MAX);
    take_n(&l, "a", 2, a);
    take_n(&l, "b", 1, b);
    a[2] = take(&l, "x");
    assert_non_null(a[2]);
    for (unsigned i = 0; i < 2 * LIVE_WAITERS; i++) {
        char who[] = { (char)('A' + i), '\0' };

        assert_null(take(&l, who));
    }
    assert_int_equal(l.waiters[LIVE_WAITERS - 1].who[0], 'A' + 2 * (int)LIVE_WAITERS - 1);
    live_drop(&l, a[1]);
    assert_null(take(&l, "a"));
    assert_null(take(&l, "b"));
    a[1] = take(&l, "A"); /* which was forgotten, and is asked for again */
    assert_non_null(a[1]);
    put_all(a, 3, &l);
    put_all(b, 1, &l);
    lives_fini(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_another), cmocka_unit_test(test_idle),  cmocka_unit_test(test_even),
        cmocka_unit_test(test_left),    cmocka_unit_test(test_alone), cmocka_unit_test(test_crowd),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
