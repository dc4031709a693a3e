/* tests/test_daemon_lost.c - a device that is lost under a daemon that serves. Would catch: an
 * answer made of pages that have nothing in them any more, from memory or from the store; a session
 * that can't go on though the device is back; a request that nobody answers; a daemon that ends, or
 * that does not say what happened.
 *
 * The device is the shim's, which is lost at the n-th call when it is told so, and is back when the
 * file that says so is gone (cuda/shim/memory.c).
 */
#include "tests/support/answered.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/scratch.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define N_IDS 6u

static const char *const args[] = { "--device",   "cuda-shim", "--threads",       "1",
                                    "--kv-bytes", "4M",        "--segment",       "64",
                                    "--cpu",      "scalar",    "--store-idle-ms", "1",
                                    NULL };
/* More than a page, and not much more: what is read in other parts has other last digits. */
static const char text[] = "The fox jumps over the dog, who sleeps.";

static char file[SCRATCH_PATH_MAX];

/* Lost at the n-th call from now on. */
static void lose(unsigned n)
{
    char at_first[SCRATCH_PATH_MAX + 8];
    int fd;

    (void)snprintf(at_first, sizeof(at_first), "%s.new", file);
    fd = open(at_first, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, n), 0);
    assert_int_equal(close(fd), 0);
    assert_int_equal(rename(at_first, file), 0);
}

static void come_back(void)
{
    assert_int_equal(unlink(file), 0);
}

static void start(struct daemon_fixture *d)
{
    assert_int_equal(setenv("GISTD_SHIM_LOST", scratch_path(file, "lost"), 1), 0);
    daemon_fixture_start(d, DAEMON_FIXTURE_TINY, args);
}

/* A session that has read the text; how many tokens it has. */
static gist_session *read_text(gist_conn *c, uint32_t *ret_n)
{
    struct gist_usage usage;
    gist_session *s;

    assert_int_equal(gist_open(c, NULL, &s), 0);
    if (gist_append_text(s, text, strlen(text), 0, &usage) < 0)
        fail_msg("reading: %s", gist_error(c));
    *ret_n = usage.prompt_tokens;
    return s;
}

static int answer(gist_session *s, struct answered *ret)
{
    struct gist_sampling greedy = { .size = sizeof(greedy),
                                    .max_tokens = N_IDS,
                                    .ignore_eog = true };

    ret->n = 0;
    return gist_generate(s, &greedy, answered_take, ret, NULL);
}

/* It does as soon as the device was tried again. */
static void must_answer(gist_conn *c, gist_session *s, uint32_t n, const struct answered *expected)
{
    double end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;
    struct answered found;
    int r;

    do {
        assert_int_equal(gist_rewind(s, n), 0);
        r = answer(s, &found);
        if (r < 0 && !strstr(gist_error(c), "lost"))
            fail_msg("answering: %s", gist_error(c));
    } while (r < 0 && daemon_fixture_ms() < end);
    assert_int_equal(r, 0);
    assert_int_equal(found.n, N_IDS);
    assert_memory_equal(found.ids, expected->ids, N_IDS * sizeof(*found.ids));
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
    start(&d);
    c = daemon_fixture_connect(&d);
    s = read_text(c, &n);
    assert_int_equal(gist_fork(s, "rests", &rests), 0);
    assert_int_equal(gist_rewind(s, n), 0);
    if (answer(s, &first) < 0)
        fail_msg("answering: %s", gist_error(c));
    for (unsigned i = 0; i < sizeof(at) / sizeof(*at); i++) {
        assert_int_equal(gist_rewind(s, n), 0);
        lose(at[i]);
        assert_true(answer(s, &found) < 0);
        assert_non_null(strstr(gist_error(c), "device cuda-shim was lost"));
        assert_true(found.n < N_IDS);
        assert_memory_equal(found.ids, first.ids, found.n * sizeof(*found.ids));
        come_back();
        must_answer(c, s, n, &first);
    }
    must_answer(c, rests, n, &first);
    other = read_text(c, &n);
    must_answer(c, other, n, &first);
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
    must_answer(c, s, n, &first);
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
    start(&d);
    c = daemon_fixture_connect(&d);
    s = read_text(c, &n);
    lose(20);
    do
        assert_true(answer(s, &found) < 0);
    while (!strstr(gist_error(c), "does not come back") && daemon_fixture_ms() < end);
    assert_non_null(strstr(gist_error(c), "device cuda-shim was lost and does not come back: "));
    assert_int_equal(gist_ping(c), 0);
    assert_true(answer(s, &found) < 0);
    assert_non_null(strstr(gist_error(c), "lost"));
    gist_close(s);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
    come_back();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sessions_go_on),
        cmocka_unit_test(it_stays_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
