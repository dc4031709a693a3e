/* tests/test_degraded.c - would catch: a line in the log for each write that fails, a beginning or
 * an end that is not said, a time since when that moves while it lasts.
 */
#include "daemon/degraded.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char said[4096];

/* Looks many times, with a sentence that changes as that of a store does, and keeps what was said.
 */
static void look(struct degraded *d, const char *sentence)
{
    int keep = dup(STDERR_FILENO), fds[2];
    ssize_t n;

    assert_int_equal(pipe(fds), 0);
    assert_true(dup2(fds[1], STDERR_FILENO) >= 0);
    for (int i = 0; i < 50; i++) {
        char text[128] = "";

        if (sentence[0])
            (void)snprintf(text, sizeof(text), "%s; the next try is in %d s", sentence, 50 - i);
        degraded_look(d, text);
    }
    assert_true(dup2(keep, STDERR_FILENO) >= 0);
    (void)close(keep);
    (void)close(fds[1]);
    n = read(fds[0], said, sizeof(said) - 1);
    said[n > 0 ? n : 0] = '\0';
    (void)close(fds[0]);
}

static void says_the_beginning_and_the_end(void **state)
{
    struct degraded d = { 0 };
    uint64_t since;

    (void)state;
    look(&d, "");
    assert_string_equal(said, "");
    assert_int_equal(d.since_s, 0);
    look(&d, "not writing: the disk is full");
    assert_string_equal(said, "gistd: warning: store: not writing: the disk is full; the next try "
                              "is in 50 s; sessions go on\n");
    since = d.since_s;
    assert_true(since > 0);
    look(&d, "not writing: something else");
    assert_string_equal(said, "");
    assert_int_equal(d.since_s, since);
    look(&d, "");
    assert_non_null(strstr(said, "all is well again"));
    assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
    assert_int_equal(d.since_s, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(says_the_beginning_and_the_end) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
