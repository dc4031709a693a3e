/* tests/test_held.c - memory that is charged to a client. Would catch: bytes that are granted past
 * the limit, that stay charged when they are freed, or that a refusal charges or takes away.
 */

#include "daemon/held.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_limit(void **state)
{
    struct held_account a = { .limit = 100 };
    void *x = NULL, *y = NULL, *was;
    size_t x_len = 0, y_len = 0;

    (void)state;
    assert_int_equal(held_resize(&a, &x, &x_len, 60), 0);
    assert_int_equal(x_len, 60);
    memset(x, 7, 60);
    was = x;
    assert_int_equal(held_resize(&a, &y, &y_len, 41), -EDQUOT);
    assert_null(y);
    assert_int_equal(a.refused, 41);
    assert_int_equal(held_resize(&a, &x, &x_len, SIZE_MAX), -EDQUOT);
    assert_ptr_equal(x, was);
    assert_int_equal(x_len, 60);
    assert_int_equal(a.used, 60);
    assert_int_equal(held_resize(&a, &y, &y_len, 40), 0); /* all of it */
    assert_int_equal(a.used, 100);
    assert_int_equal(held_resize(&a, &x, &x_len, 10), 0);
    assert_int_equal(a.used, 50);
    assert_int_equal(((char *)x)[9], 7);
    assert_int_equal(held_resize(&a, &x, &x_len, 0), 0);
    assert_int_equal(held_resize(&a, &y, &y_len, 0), 0);
    assert_int_equal(held_resize(&a, &y, &y_len, 0), 0);
    assert_null(x);
    assert_int_equal(a.used + x_len + y_len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
