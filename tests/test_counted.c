/* tests/test_counted.c - would catch: a runner that lets a test pass that asserted nothing, or a
 * program that ran no test. */
#include "tests/support/counted.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void nothing(void **state)
{
    (void)state;
}

static void something(void **state)
{
    assert_int_equal(*(int *)*state, 7);
}

static void skipped(void **state)
{
    (void)state;
    skip();
}

/* The exit status of a process that runs this group as a test program does. */
static int status_of(const struct CMUnitTest *tests, size_t n)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        (void)freopen("/dev/null", "w", stdout);
        (void)freopen("/dev/null", "w", stderr);
        _exit(_cmocka_run_group_tests("inner", tests, n, NULL, NULL) ? 1 : 0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void a_test_that_asserts_nothing(void **state)
{
    static int seven = 7, eight = 8;
    const struct CMUnitTest good[] = { cmocka_unit_test_prestate(something, &seven) },
                            bad[] = { cmocka_unit_test_prestate(something, &eight) },
                            none[] = { cmocka_unit_test_prestate(something, &seven),
                                       cmocka_unit_test(nothing) },
                            passed_over[] = { cmocka_unit_test(skipped) };

    (void)state;
    assert_int_equal(status_of(good, 1), 0);
    assert_int_equal(status_of(bad, 1), 1);
    assert_int_equal(status_of(none, 2), 1);
    assert_int_equal(status_of(passed_over, 1), 0);
}

/* This program again: without a test if it is told so. */
static void a_program_without_a_test(void **state)
{
    int status;
    pid_t pid = fork();

    (void)state;
    if (pid == 0) {
        (void)freopen("/dev/null", "w", stderr);
        (void)execl("/proc/self/exe", "test_counted", "none", (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(a_test_that_asserts_nothing),
                                        cmocka_unit_test(a_program_without_a_test) };

    (void)argv;
    return argc > 1 ? 0 : cmocka_run_group_tests(tests, NULL, NULL);
}
