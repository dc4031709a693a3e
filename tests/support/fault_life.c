#include "tests/support/fault_life.h"
#include "tests/support/counted.h"
#include "tests/support/fault.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* A life has hundreds of calls; one that has more waits for something that does not come. */
#define CALLS_MAX 20000u

/* Of the address sanitizer, where it is. */
int __lsan_do_recoverable_leak_check(void) __attribute__((weak));

static void check_one(const struct fault_life *l, const struct fault *f, int r, const char *text)
{
    expect_that(r == 0 || r == -f->error || (l->also && r == -l->also),
                "%s: call %llu, %s, gave %s, and what came of it is %s (%s)", l->name,
                (unsigned long long)f->n_calls, f->name, strerror(f->error), strerror(-r), text);
    expect_that(r == 0 || !l->says || text[0], "%s: call %llu, %s, failed without a word", l->name,
                (unsigned long long)f->n_calls, f->name);
}

void fault_life(const struct fault_life *l)
{
    unsigned n_fds = fault_n_descriptors(), tolerated = 0;
    int64_t mapped = fault_mapped();
    struct why why = { "" };
    struct fault f;
    uint64_t n;
    int r;

    for (n = 1; n < CALLS_MAX; n++) {
        why.text[0] = '\0';
        fault_arm(n);
        r = l->live(l->arg, &why);
        if (!fault_disarm(&f))
            break;
        f.n_calls = n;
        check_one(l, &f, r, why.text);
        tolerated += r == 0;
        expect_that(fault_n_descriptors() == n_fds, "%s: call %llu, %s, leaves a descriptor open",
                    l->name, (unsigned long long)n, f.name);
        expect_that(fault_mapped() == mapped, "%s: call %llu, %s, leaves a mapping", l->name,
                    (unsigned long long)n, f.name);
    }
    expect_that(r == 0 && n < CALLS_MAX, "%s: %s without a fault (%s)", l->name, strerror(-r),
                why.text);
    if (__lsan_do_recoverable_leak_check)
        expect_that(__lsan_do_recoverable_leak_check() == 0, "%s: memory is left", l->name);
    print_message("%-20s %4llu calls, %u that it can do without\n", l->name,
                  (unsigned long long)n - 1, tolerated);
}
