/* tests/test_daemon_host.c - gistd --host-bytes. Would catch: context of a device that is computed
 * again, or read from a disk, though host memory has it; that is found by who must not; numbers
 * that nobody sees; sessions that a lost device has read again though their pages were copied; a
 * daemon that starts with a size that is none, or that is not there.
 */
#include "tests/support/daemon_fixture.h"
#include "tests/support/lost_device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define N_IDS 6u

/* No store, and no tree of beginnings: what is not computed can come from host memory alone. */
static const char *const args[] = { "--device",
                                    "cuda-shim",
                                    "--threads",
                                    "1",
                                    "--kv-bytes",
                                    "4M",
                                    "--segment",
                                    "64",
                                    "--cpu",
                                    "scalar",
                                    "--store",
                                    "none",
                                    "--prefix-cache",
                                    "no",
                                    "--host-bytes",
                                    "8M",
                                    "--store-idle-ms",
                                    "1",
                                    NULL };
static const char text[] =
    "The quick brown fox jumps over the lazy dog, and the dog does not mind that at all, since "
    "foxes come and go. The dog stays where it is, and sleeps, and dreams of foxes that jump.";

/* Until so many records are there. */
static void await_records(gist_conn *c, uint64_t n)
{
    double end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;
    struct gist_stats st;

    do
        assert_int_equal(gist_stats(c, &st), 0);
    while (st.host_records < n && daemon_fixture_ms() < end);
    assert_int_equal(st.host_records, n);
    assert_true(st.host_bytes > 0 && st.host_bytes <= st.host_limit);
    assert_true(st.host_limit < (8u << 20));
    assert_true(st.host_pinned);
    assert_null(st.store);
}

/* Two full segments, and what the answer left of the unfinished one: its full pages. */
static void without_a_store(void **state)
{
    struct answered first, again;
    struct gist_usage usage;
    struct daemon_fixture d;
    struct gist_stats st;
    gist_session *s;
    gist_conn *c;
    uint32_t n;

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    s = answered_read(c, text, &usage);
    n = usage.prompt_tokens;
    assert_true(n > 128 && n % 64 != 0 && usage.shared_tokens == 0);
    await_records(c, n / 64 + 1);
    assert_int_equal(answered_greedy(s, N_IDS, &first), 0);
    gist_close(s);
    s = answered_read(c, text, &usage);
    assert_in_range(usage.shared_tokens, n / 16 * 16, n - 1);
    assert_int_equal(usage.restored_tokens, 0);
    assert_int_equal(answered_greedy(s, N_IDS, &again), 0);
    assert_memory_equal(first.ids, again.ids, N_IDS * sizeof(*first.ids));
    assert_int_equal(gist_stats(c, &st), 0);
    assert_int_equal(st.host_tokens_total, usage.shared_tokens);
    gist_close(s);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* What a private session has read is found by nobody, and is not there. */
static void nothing_of_private_ones(void **state)
{
    struct gist_policy policy = { .size = sizeof(policy), .flags = GIST_PRIVATE };
    struct gist_usage usage;
    struct daemon_fixture d;
    struct gist_stats st;
    gist_session *s;
    gist_conn *c;

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    assert_int_equal(gist_open(c, &policy, &s), 0);
    assert_int_equal(gist_append_text(s, text, strlen(text), 0, &usage), 0);
    gist_close(s);
    s = answered_read(c, text, &usage);
    assert_int_equal(usage.shared_tokens, 0);
    await_records(c, usage.prompt_tokens / 64 + 1); /* its own */
    assert_int_equal(gist_stats(c, &st), 0);
    assert_int_equal(st.host_tokens_total, 0);
    gist_close(s);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* --- a device that is lost -------------------------------------------------------------------- */

/* Its pages were copied before: when the device is back they are, too, and what the session says is
 * what it would have said. */
static void lost_and_back(void **state)
{
    struct answered first, found;
    struct gist_usage usage;
    struct daemon_fixture d;
    struct gist_stats st;
    gist_session *s;
    gist_conn *c;
    uint32_t n;

    (void)state;
    lost_device_begin();
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    s = answered_read(c, text, &usage);
    n = usage.prompt_tokens;
    await_records(c, n / 64 + 1);
    assert_int_equal(answered_greedy(s, N_IDS, &first), 0);
    assert_int_equal(gist_rewind(s, n), 0);
    lost_device_lose(1);
    assert_true(answered_greedy(s, N_IDS, &found) < 0);
    lost_device_return();
    lost_device_answers(c, s, n, &first);
    assert_int_equal(gist_stats(c, &st), 0);
    assert_true(st.host_tokens_total >= n / 64 * 64 && st.host_pinned);
    gist_close(s);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
    assert_int_equal(unsetenv("GISTD_SHIM_LOST"), 0);
}

/* --- what is said of it ----------------------------------------------------------------------- */

static void expect_refused(const char *value, const char *sentence)
{
    const char *wrong[] = { "--model",
                            daemon_fixture_model(DAEMON_FIXTURE_TINY),
                            "--device",
                            "cuda-shim",
                            "--kv-bytes",
                            "4M",
                            "--store",
                            "none",
                            "--host-bytes",
                            value,
                            NULL };
    struct daemon_fixture d;

    daemon_fixture_spawn(&d, wrong);
    assert_false(daemon_fixture_notified(&d, "READY=1", DAEMON_FIXTURE_PATIENCE_MS));
    assert_int_not_equal(daemon_fixture_wait(&d), 0);
    if (!strstr(daemon_fixture_log(&d), sentence))
        fail_msg("host-bytes %s: %s", value, daemon_fixture_log(&d));
}

static void sizes(void **state)
{
    static const char *const none[] = { "--device",  "cuda-shim", "--kv-bytes",   "4M",
                                        "--cpu",     "scalar",    "--store",      "none",
                                        "--threads", "1",         "--host-bytes", "none",
                                        NULL };
    static const char *const on_cpu[] = { "--kv-bytes", "4M", "--host-bytes", "1G", NULL };
    struct daemon_fixture d;
    struct gist_stats st;
    gist_conn *c;

    (void)state;
    expect_refused("some", "option host-bytes: found \"some\", expected auto, none or a size");
    expect_refused("4000T", "available: ");
    for (int i = 0; i < 2; i++) {
        daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, i ? on_cpu : none);
        c = daemon_fixture_connect(&d);
        assert_int_equal(gist_stats(c, &st), 0);
        assert_int_equal(st.host_limit, 0);
        gist_disconnect(c);
        daemon_fixture_stop(&d);
        assert_int_equal(strstr(daemon_fixture_log(&d), "host-bytes is of no use") != NULL, i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_store),
        cmocka_unit_test(nothing_of_private_ones),
        cmocka_unit_test(lost_and_back),
        cmocka_unit_test(sizes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
