/* tests/test_view.c - what gist-dbus sees of a daemon with more sessions than a reply lists. Would
 * catch: the listed ones counted for all, one that is not listed and comes or goes unseen, or
 * cannot be cancelled by who sees all; itself counted among the clients.
 */
#include "dbus/view.h"

#include "tests/support/daemon_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* Labels of 63 bytes: 64 KB are less. */
#define N_SESSIONS 1024u

static bool is_listed(const struct view *v, uint64_t id)
{
    for (uint32_t i = 0; i < v->stats.n_sessions; i++)
        if (v->stats.sessions[i].id == id)
            return true;
    return false;
}

static void open_some(gist_conn *c, gist_session **s, uint32_t n)
{
    char label[64];
    struct gist_policy p = { .size = sizeof(p), .label = label };

    for (uint32_t i = 0; i < n; i++) {
        (void)snprintf(label, sizeof(label), "%063u", i);
        if (gist_open(c, &p, &s[i]) < 0)
            fail_msg("session %u: %s", i, gist_error(c));
    }
}

/* A look that connects has two seconds, which a busy machine may take: then it looks again, and the
 * connection that came to nothing is counted until the daemon has noticed its end. */
static void look_until_alone(struct view *v)
{
    const struct timespec tick = { .tv_nsec = 10000000 };

    view_look(v, true);
    for (int i = 0; i < 3000 && (v->state != VIEW_SERVING || v->n_clients > 0); i++) {
        (void)nanosleep(&tick, NULL);
        view_look(v, true);
    }
}

static void counts_all(void **state)
{
    static gist_session *s[N_SESSIONS];
    const char *const args[] = { "--max-sessions", "1024", NULL };
    struct daemon_fixture d;
    struct gist_stats st;
    struct view v;
    uint64_t who;
    gist_conn *c;

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    v = (struct view){ .socket = d.socket };
    look_until_alone(&v);
    assert_int_equal(v.state, VIEW_SERVING);
    assert_int_equal(v.n_clients, 0);
    assert_int_equal(v.n_sessions, 0);
    c = daemon_fixture_connect(&d);
    open_some(c, s, N_SESSIONS);
    view_look(&v, true);
    assert_int_equal(v.n_clients, 1);
    assert_int_equal(v.n_sessions, N_SESSIONS);
    assert_true(v.stats.n_sessions > 0 && v.stats.n_sessions < N_SESSIONS);
    /* The last one is not listed, and none of them is at work. */
    assert_true(is_listed(&v, gist_session_id(s[0])));
    assert_false(is_listed(&v, gist_session_id(s[N_SESSIONS - 1])));
    assert_int_equal(view_cancel(&v, gist_session_id(s[N_SESSIONS - 1]), false, getuid()), -ENOENT);
    assert_int_equal(view_cancel(&v, UINT64_MAX, true, getuid()), -ENOENT);
    who = v.who;
    gist_close(s[N_SESSIONS - 1]);
    assert_int_equal(gist_stats(c, &st), 0); /* by the same ring, so behind it */
    view_look(&v, true);
    assert_int_equal(v.n_sessions, N_SESSIONS - 1);
    assert_true(v.who != who);
    gist_disconnect(c);
    view_close(&v);
    assert_int_equal(v.n_clients, 0);
    assert_int_equal(v.n_sessions, 0);
    daemon_fixture_stop(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(counts_all) };

    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
