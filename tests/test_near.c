/* tests/test_near.c - would catch: a helper of the tests that calls a NaN near, whichever side has
 * it and wherever in a row it stands. */
#include "tests/support/near.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void numbers(void **state)
{
    static const float a[] = { 1, 2, 3 }, b[] = { 1, 2.5f, 2 };

    (void)state;
    assert_true(near_worst(0, a, a, 3) == 0);
    assert_true(near_worst(0, a, b, 3) == 1);
    assert_true(near_worst(4, a, b, 3) == 4);
    assert_true(near_within(1, 1.25, 0.25));
    assert_false(near_within(1, 1.25, 0.2));
}

static void what_is_no_number(void **state)
{
    static const double bad[] = { (double)NAN, (double)INFINITY, -(double)INFINITY };

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        assert_false(near_within(bad[i], 1, 1e30));
        assert_false(near_within(1, bad[i], 1e30));
        assert_false(near_within(bad[i], bad[i], 1e30));
        for (size_t at = 0; at < 5; at++) {
            float a[] = { 1, 2, 3, 4, 5 }, b[] = { 1, 2, 3, 4, 5 };

            a[at] = (float)bad[i];
            assert_false(near_worst(0, a, b, 5) <= 1e30);
            assert_false(near_worst(0, b, a, 5) <= 1e30);
            assert_false(near_worst(0, a, a, 5) <= 1e30);
        }
    }
    assert_false(near_worse((double)NAN, 1, 1) <= 1e30);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(numbers),
                                        cmocka_unit_test(what_is_no_number) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
