/* tests/support/counted.h - a test that asserted nothing has failed.
 *
 * A loop over no cases, a case that is passed over, a comparison that was taken out: such a test
 * says OK and can't fail. All test programs are linked so that cmocka's asserts are counted and its
 * run of a group gives each test a look at the count (the Makefile's WRAP, counted.c): a test that
 * ends without an assertion fails, and so does a program that ends with 0 and ran no test. Tests
 * need nothing for it, unless they compare on their own and call fail_msg: that is expect_that().
 *
 * Threads    may assert; a child process's assertions are not its parent's.
 */
#ifndef TESTS_SUPPORT_COUNTED_H
#define TESTS_SUPPORT_COUNTED_H

/* One assertion more. */
void counted_one(void);

/* An assertion whose failure has a sentence of its own. */
#define expect_that(what, ...)                                                                     \
    do {                                                                                           \
        counted_one();                                                                             \
        if (!(what))                                                                               \
            fail_msg(__VA_ARGS__);                                                                 \
    } while (0)

#endif
