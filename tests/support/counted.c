#include "tests/support/counted.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static _Atomic unsigned long n_asserted;
static unsigned long n_tests;

void counted_one(void)
{
    atomic_fetch_add_explicit(&n_asserted, 1, memory_order_relaxed);
}

/* The linker sends calls of name to __wrap_name, and __real_name is name. */
#define COUNTED(name, params, args)                                                                \
    void __real_##name params;                                                                     \
    void __wrap_##name params;                                                                     \
    void __wrap_##name params                                                                      \
    {                                                                                              \
        counted_one();                                                                             \
        __real_##name args;                                                                        \
    }

typedef LargestIntegralType big;

COUNTED(_assert_true, (const big r, const char *x, const char *file, const int line),
        (r, x, file, line))
COUNTED(_assert_return_code,
        (const big r, size_t len, const big error, const char *x, const char *file, const int line),
        (r, len, error, x, file, line))
COUNTED(_assert_int_equal, (const big a, const big b, const char *file, const int line),
        (a, b, file, line))
COUNTED(_assert_int_not_equal, (const big a, const big b, const char *file, const int line),
        (a, b, file, line))
COUNTED(_assert_string_equal, (const char *a, const char *b, const char *file, const int line),
        (a, b, file, line))
COUNTED(_assert_string_not_equal, (const char *a, const char *b, const char *file, const int line),
        (a, b, file, line))
COUNTED(_assert_memory_equal,
        (const void *a, const void *b, const size_t n, const char *file, const int line),
        (a, b, n, file, line))
COUNTED(_assert_memory_not_equal,
        (const void *a, const void *b, const size_t n, const char *file, const int line),
        (a, b, n, file, line))
COUNTED(_assert_in_range,
        (const big v, const big min, const big max, const char *file, const int line),
        (v, min, max, file, line))
COUNTED(_assert_not_in_range,
        (const big v, const big min, const big max, const char *file, const int line),
        (v, min, max, file, line))

/* A test of a group, and what cmocka is given in its place: the slot as its state. */
struct slot {
    const struct CMUnitTest *test;
    void *state;
};

static struct slot *running;

static int slot_setup(void **state)
{
    running = *state;
    *state = running->test->initial_state;
    return running->test->setup_func ? running->test->setup_func(state) : 0;
}

static void slot_run(void **state)
{
    unsigned long before = n_asserted;

    n_tests++;
    running->test->test_func(state);
    if (n_asserted == before)
        fail_msg("%s asserted nothing", running->test->name);
}

int __real__cmocka_run_group_tests(const char *name, const struct CMUnitTest *tests, size_t n,
                                   CMFixtureFunction setup, CMFixtureFunction teardown);
int __wrap__cmocka_run_group_tests(const char *name, const struct CMUnitTest *tests, size_t n,
                                   CMFixtureFunction setup, CMFixtureFunction teardown);

int __wrap__cmocka_run_group_tests(const char *name, const struct CMUnitTest *tests, size_t n,
                                   CMFixtureFunction setup, CMFixtureFunction teardown)
{
    struct slot *slots = calloc(n + 1, sizeof(*slots));
    struct CMUnitTest *counted = calloc(n + 1, sizeof(*counted));
    int failed;

    if (!slots || !counted)
        abort();
    for (size_t i = 0; i < n; i++) {
        slots[i].test = &tests[i];
        counted[i] = (struct CMUnitTest){ tests[i].name, tests[i].test_func ? slot_run : NULL,
                                          slot_setup, tests[i].teardown_func, &slots[i] };
    }
    failed = __real__cmocka_run_group_tests(name, counted, n, setup, teardown);
    free(slots);
    free(counted);
    return failed;
}

static void at_exit(int status, void *unused)
{
    (void)unused;
    if (status == 0 && n_tests == 0) {
        (void)fprintf(stderr, "no test ran: exit 77 with a reason if there is nothing to test\n");
        _exit(1);
    }
}

__attribute__((constructor)) static void watch_exit(void)
{
    (void)on_exit(at_exit, NULL);
}
