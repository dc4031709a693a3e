/* tests/test_backlog.c - the last frames of an answer. Would catch: a frame that is lost before it
 * was taken, a count of tokens that does not go with the frames, a place that gives another frame,
 * a full one that grows, what stays charged.
 */

#include "daemon/backlog.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SIZE 4096u

static struct held_account account;
static struct backlog b;

static void start(void)
{
    account = (struct held_account){ .limit = 1 << 20 };
    assert_int_equal(backlog_init(&b, &account, SIZE), 0);
    assert_int_equal(account.used, SIZE);
}

static void stop(void)
{
    backlog_fini(&b);
    assert_int_equal(account.used, 0);
}

/* Its number, over and over, and of i % 4 tokens. */
static int put(uint32_t i, size_t len)
{
    uint8_t *to;
    int r = backlog_room(&b, len, &to);

    if (r == 0) {
        memset(to, (int)(i & 255), len);
        backlog_add(&b, len, i % 4);
    }
    return r;
}

/* Takes the next one out, which is number i. */
static void get(uint32_t i, size_t len, uint32_t message)
{
    const uint8_t *p;
    size_t n = 0;

    p = backlog_next(&b, &n);
    assert_non_null(p);
    assert_int_equal(n, len);
    for (size_t k = 0; k < n; k++)
        assert_int_equal(p[k], i & 255);
    backlog_sent(&b, message);
}

static uint64_t tokens_before(uint32_t i)
{
    uint64_t n = 0;

    for (uint32_t k = 0; k < i; k++)
        n += k % 4;
    return n;
}

/* Of any lengths, with a reader that is a few behind: all come, in order, and the oldest ones go.
 */
static void test_goes_on(void **state)
{
    uint32_t out = 0;
    size_t n;

    (void)state;
    start();
    for (uint32_t i = 0; i < 2000; i++) {
        assert_int_equal(put(i, i % 97), 0);
        if (i < 10)
            continue;
        get(out, out % 97, UINT32_MAX - 5 + out); /* numbers wrap */
        backlog_took(&b, UINT32_MAX - 5 + out + 1);
        out++;
        assert_int_equal(b.unread, tokens_before(out));
    }
    assert_int_equal(b.written, tokens_before(2000));
    assert_true(b.first > 0 && b.first < b.unread);
    for (; out < 2000; out++) {
        assert_int_equal(backlog_place(&b), tokens_before(out)); /* also of what was not taken */
        get(out, out % 97, out);
    }
    assert_int_equal(backlog_place(&b), b.written);
    assert_null(backlog_next(&b, &n));
    stop();
}

/* Nobody reads: it is full, and stays so until something was taken, not only sent. */
static void test_full(void **state)
{
    uint32_t n = 0;

    (void)state;
    start();
    assert_int_equal(put(0, SIZE), -EMSGSIZE);
    while (put(n, 100) == 0)
        n++;
    assert_true(n > 30 && n < SIZE / 100);
    assert_int_equal(put(n, 100), -EAGAIN);
    for (uint32_t i = 0; i < n; i++)
        get(i, 100, i);
    assert_int_equal(put(n, 100), -EAGAIN);
    backlog_took(&b, 0);
    assert_int_equal(put(n, 100), -EAGAIN);
    backlog_took(&b, 1);
    assert_int_equal(put(n, 100), 0);
    assert_int_equal(b.first, 0); /* the one that went had no token */
    backlog_again(&b);            /* those that were not taken come again, to another reader */
    for (uint32_t i = 1; i <= n; i++)
        get(i, 100, 1000 + i);
    assert_int_equal(account.used, SIZE);
    stop();
}

static void test_places(void **state)
{
    (void)state;
    start();
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(put(i, 8), 0);
    for (uint64_t place = 0; place <= b.written; place++) {
        uint32_t i = 0;

        while (i < 20 && tokens_before(i + 1) <= place && tokens_before(i) < place)
            i++;
        assert_int_equal(backlog_seek(&b, place), tokens_before(i));
        for (; i < 20; i++)
            get(i, 8, i);
    }
    backlog_clear(&b);
    assert_int_equal(b.written, 0);
    assert_int_equal(backlog_seek(&b, 0), 0);
    assert_int_equal(put(7, 8), 0);
    get(7, 8, 0);
    stop();
}

/* A place that is not there any more. */
static void test_dropped(void **state)
{
    (void)state;
    start();
    for (uint32_t i = 1; i < 200; i++) {
        assert_int_equal(put(i, 100), 0);
        get(i, 100, i);
        backlog_took(&b, i + 1);
    }
    assert_true(b.first > 0);
    assert_int_equal(backlog_seek(&b, 0), b.first);
    assert_int_equal(backlog_seek(&b, b.written), b.written);
    stop();
}

static void test_no_room_in_the_account(void **state)
{
    (void)state;
    account = (struct held_account){ .limit = SIZE - 1 };
    assert_int_equal(backlog_init(&b, &account, SIZE), -EDQUOT);
    backlog_fini(&b);
    assert_int_equal(account.used, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goes_on),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_dropped),
        cmocka_unit_test(test_no_room_in_the_account),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
