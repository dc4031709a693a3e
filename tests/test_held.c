/* tests/test_held.c - memory that is charged to a client. Would catch: bytes that are granted past
 * the limit, that stay charged when they are freed, or that a refusal charges or takes away; a
 * limit of all clients together that several of them pass.
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

/* From one client to another of an owner who has no more, and not past the other's limit. */
static void test_move(void **state)
{
    struct held_account owner = { .limit = 60 }, a = { .limit = 60, .above = &owner };
    struct held_account b = { .limit = 50, .above = &owner };
    void *x = NULL;
    size_t x_len = 0;

    (void)state;
    assert_int_equal(held_resize(&a, &x, &x_len, 60), 0);
    assert_int_equal(held_move(&a, &b, 60), -EDQUOT);
    assert_ptr_equal(b.by, &b);
    assert_int_equal(a.used, 60);
    assert_int_equal(held_resize(&a, &x, &x_len, 50), 0);
    assert_int_equal(held_move(&a, &b, 50), 0);
    assert_int_equal(a.used, 0);
    assert_int_equal(b.used, 50);
    assert_int_equal(owner.used, 50);
    assert_int_equal(held_resize(&b, &x, &x_len, 0), 0);
    assert_int_equal(owner.used, 0);
}

/* Two clients of one owner, and another owner. */
static void test_above(void **state)
{
    struct held_account all = { .limit = 150 }, owner = { .limit = 100, .above = &all };
    struct held_account a = { .limit = 80, .above = &owner }, b = a, c = { .limit = 80 };
    void *x = NULL, *y = NULL, *z = NULL;
    size_t x_len = 0, y_len = 0, z_len = 0;

    (void)state;
    c.above = &all;
    assert_int_equal(held_resize(&a, &x, &x_len, 70), 0);
    assert_int_equal(held_resize(&b, &y, &y_len, 31), -EDQUOT);
    assert_ptr_equal(b.by, &owner);
    assert_int_equal(b.refused, 31);
    assert_int_equal(b.used, 0);
    assert_int_equal(held_resize(&b, &y, &y_len, 30), 0);
    assert_int_equal(owner.used, 100);
    assert_int_equal(held_resize(&c, &z, &z_len, 51), -EDQUOT);
    assert_ptr_equal(c.by, &all);
    assert_int_equal(held_resize(&c, &z, &z_len, 81), -EDQUOT);
    assert_ptr_equal(c.by, &c); /* the nearest */
    assert_int_equal(held_resize(&c, &z, &z_len, 50), 0);
    assert_int_equal(held_resize(&a, &x, &x_len, 0), 0);
    assert_int_equal(owner.used, 30);
    assert_int_equal(all.used, 80);
    assert_int_equal(held_resize(&b, &y, &y_len, 0), 0);
    assert_int_equal(held_resize(&c, &z, &z_len, 0), 0);
    assert_int_equal(a.used + b.used + c.used + owner.used + all.used, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_move),
        cmocka_unit_test(test_above),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
