/* Would catch: a daemon that does not start, or forgets what it kept, where io_uring is denied; one
 * that says nothing of it, or says so where it is not; --io that is not obeyed; a store that no
 * segment fits into, and nobody told. The real daemon, at
 * last behind a filter as containers have one.
 */
#include "store/io.h"

#include "tests/support/daemon_fixture.h"
#include "tests/support/deny.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include <cmocka.h>

#define TOKENS 300u

/* Reads the same tokens as ever, in a session of its own. */
static void read_all(gist_conn *c, struct gist_usage *ret)
{
    struct gist_policy p = { .size = sizeof(p), .segment = 64 };
    uint32_t ids[TOKENS];
    gist_session *s;

    for (uint32_t i = 0; i < TOKENS; i++)
        ids[i] = 40 + i % 83;
    assert_int_equal(gist_open(c, &p, &s), 0);
    assert_int_equal(gist_append_tokens(s, ids, TOKENS, ret), 0);
    assert_int_equal(ret->prompt_tokens, TOKENS);
}

/* With that option, and once more after it ended: read and written by `name`, of which it says that
 * (NULL: nothing). */
static void keeps(const char *option, const char *name, const char *says)
{
    const char *args[] = { "--io", option, "--store-restore", "always", NULL };
    struct daemon_fixture d;

    for (int again = 0; again < 2; again++) {
        struct gist_stats stats;
        struct gist_usage usage;
        gist_conn *c;

        if (again)
            daemon_fixture_restart(&d, DAEMON_FIXTURE_TINY, args);
        else
            daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
        c = daemon_fixture_connect(&d);
        read_all(c, &usage);
        assert_int_equal(usage.restored_tokens, again ? TOKENS - 1 : 0);
        assert_int_equal(gist_stats(c, &stats), 0);
        assert_non_null(stats.store);
        assert_string_equal(stats.store->io, name);
        if (says)
            assert_non_null(strstr(daemon_fixture_log(&d), says));
        else
            assert_null(strstr(daemon_fixture_log(&d), "by threads"));
        gist_disconnect(c);
        daemon_fixture_stop(&d);
    }
}

static void does_as_it_is_told(void **state)
{
    struct io_options o = { .kind = IO_URING };
    struct io *io = NULL;
    bool uring = io_open(&o, &io, NULL) == 0;

    (void)state;
    io_close(io);
    keeps("threads", "threads", NULL);
    if (uring) {
        keeps("uring", "io_uring", NULL);
        keeps("auto", "io_uring", NULL);
    }
}

static void says_when_nothing_fits(void **state)
{
    const char *small[] = { "--store-bytes", "1M", "--segment", "8192", NULL },
               *large[] = { "--store-bytes", "1M", NULL };
    struct daemon_fixture d;

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, large);
    assert_null(strstr(daemon_fixture_log(&d), "the store may have"));
    daemon_fixture_stop(&d);
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, small);
    assert_non_null(strstr(daemon_fixture_log(&d),
                           "the store may have 1.0 MiB, and a segment of 8192 tokens takes "));
    daemon_fixture_stop(&d);
}

static void does_without(void **state)
{
    const char *args[] = { "--model", daemon_fixture_model(DAEMON_FIXTURE_TINY), "--io", "uring",
                           NULL };
    struct daemon_fixture d;

    (void)state;
    assert_int_equal(deny_call(__NR_io_uring_setup, EPERM), 0); /* for this process and its own */
    keeps("auto", "threads", "the store is read and written by threads: io_uring is ");
    daemon_fixture_spawn(&d, args);
    /* It tells how far the model is, and waits for a service manager that does not listen. */
    for (int i = 0; i < 1000 && !strstr(daemon_fixture_log(&d), "option io"); i++)
        (void)daemon_fixture_notified(&d, "nothing that it says", 50);
    assert_int_equal(daemon_fixture_wait(&d), 1);
    assert_non_null(strstr(daemon_fixture_log(&d), "option io: io_uring is "));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(does_as_it_is_told), cmocka_unit_test(says_when_nothing_fits),
        cmocka_unit_test(does_without), /* the last: a filter can't be taken back */
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
