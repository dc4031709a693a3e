/* tests/test_daemon_lost.c - a device that is lost under a daemon that serves. Would catch: an
 * answer made of pages that have nothing in them any more, from memory or from the store; a session
 * that can't go on though the device is back; a request that nobody answers; a daemon that ends, or
 * that does not say what happened.
 */
#include "tests/support/daemon_fixture.h"
#include "tests/support/lost_device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define N_IDS 6u

static const char *const args[] = { "--device",   "cuda-shim", "--threads",       "1",
                                    "--kv-bytes", "4M",        "--segment",       "64",
                                    "--cpu",      "scalar",    "--store-idle-ms", "1",
                                    NULL };
/* More than a page, and not much more: what is read in other parts has other last digits. */
static const char text[] = "The fox jumps over the dog, who sleeps.";

/* A session that has read the text; how many tokens it has. */
static gist_session *read_text(gist_conn *c, uint32_t *ret_n)
{
    struct gist_usage usage;
    gist_session *s = answered_read(c, text, &usage);

    *ret_n = usage.prompt_tokens;
    return s;
}

/* At several places of an answer. The session that it was lost under, one that was at rest, and a
 * new one go on as if nothing had been; and so does the next daemon, from what is on the disk. */
static void sessions_go_on(void **state)
{
    static const unsigned at[] = { 1, 5, 25 };
    gist_session *s, *rests, *other;
    struct answered first, found;
    struct daemon_fixture d;
    uint32_t n;
    gist_conn *c;

    (void)state;
    lost_device_begin();
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    s = read_text(c, &n);
    assert_int_equal(gist_fork(s, "rests", &rests), 0);
    assert_int_equal(gist_rewind(s, n), 0);
    if (answered_greedy(s, N_IDS, &first) < 0)
        fail_msg("answering: %s", gist_error(c));
    for (unsigned i = 0; i < sizeof(at) / sizeof(*at); i++) {
        assert_int_equal(gist_rewind(s, n), 0);
        lost_device_lose(at[i]);
        assert_true(answered_greedy(s, N_IDS, &found) < 0);
        assert_non_null(strstr(gist_error(c), "device cuda-shim was lost"));
        assert_true(found.n < N_IDS);
        assert_memory_equal(found.ids, first.ids, found.n * sizeof(*found.ids));
        lost_device_return();
        lost_device_answers(c, s, n, &first);
    }
    lost_device_answers(c, rests, n, &first);
    other = read_text(c, &n);
    lost_device_answers(c, other, n, &first);
    assert_non_null(strstr(daemon_fixture_log(&d), "device cuda-shim is back"));
    gist_close(other);
    gist_close(rests);
    gist_close(s);
    daemon_fixture_stored(c);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
    daemon_fixture_restart(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    s = read_text(c, &n);
    lost_device_answers(c, s, n, &first);
    gist_close(s);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* Every request hears why, what needs no model is answered, and the daemon ends when it is told to.
 */
static void it_stays_lost(void **state)
{
    double end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;
    struct answered found;
    struct daemon_fixture d;
    gist_session *s;
    gist_conn *c;
    uint32_t n;

    (void)state;
    lost_device_begin();
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    s = read_text(c, &n);
    lost_device_lose(20);
    do
        assert_true(answered_greedy(s, N_IDS, &found) < 0);
    while (!strstr(gist_error(c), "does not come back") && daemon_fixture_ms() < end);
    assert_non_null(strstr(gist_error(c), "device cuda-shim was lost and does not come back: "));
    assert_int_equal(gist_ping(c), 0);
    assert_true(answered_greedy(s, N_IDS, &found) < 0);
    assert_non_null(strstr(gist_error(c), "lost"));
    gist_close(s);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
    lost_device_return();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sessions_go_on),
        cmocka_unit_test(it_stays_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
