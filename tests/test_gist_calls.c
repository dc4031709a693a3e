/* Would catch: calls of tools that are asked of a daemon which knows grammars and not yet these: it
 * would take the text for a schema; a kind of grammar that this library does not know, and sends.
 * The daemon is a scripted one; see fake_daemon.h. */
#include "client/gist.h"
#include "tests/support/fake_daemon.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void script(struct fake_daemon *d, void *arg)
{
    (void)arg;
    fake_expect(d, WIRE_OPEN_SESSION);
    fake_last(d, (struct wire_rep){ .kind = WIRE_SESSION_OPENED,
                                    .u.session_opened = { .session = 7, .context_max = 512 } });
    fake_drain(d);
}

static void test_older_daemon(void **state)
{
    const struct gist_sampling calls = { .size = sizeof(calls), .grammar = GIST_CALLS },
                               later = { .size = sizeof(later), .grammar = GIST_CALLS + 1 };
    struct fake_daemon fake;
    gist_session *s = NULL;
    gist_conn *conn;

    (void)state;
    fake_start(&fake, script, NULL);
    assert_int_equal(gist_connect(fake.path, "test", &conn), 0);
    assert_int_equal(gist_open(conn, NULL, &s), 0);
    assert_int_equal(gist_generate(s, &calls, NULL, NULL, NULL), -ENOTSUP);
    assert_int_equal(gist_error_code(conn), GIST_E_UNSUPPORTED);
    assert_non_null(strstr(gist_error(conn), "restart it with a newer version"));
    assert_int_equal(gist_generate(s, &later, NULL, NULL, NULL), -EINVAL);
    gist_disconnect(conn);
    assert_int_equal(fake_stop(&fake), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_older_daemon) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
