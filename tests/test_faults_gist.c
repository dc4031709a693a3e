/* tests/test_faults_gist.c - a client's calls failing at each of their turns: connecting, sessions,
 * reading, answers, scores. Would catch: a connection that hangs or leaves something behind when
 * its process has no memory or no descriptors, an error without a sentence. */
#include "client/gist.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/fault_life.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct daemon_fixture daemon_;

static int start(void **state)
{
    (void)state;
    daemon_fixture_start(&daemon_, DAEMON_FIXTURE_TINY, NULL);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    daemon_fixture_stop(&daemon_);
    return 0;
}

static int live(void *arg, struct why *why)
{
    struct gist_sampling p = { .size = sizeof(p), .max_tokens = 3 };
    gist_conn *c = NULL;
    gist_session *s = NULL, *fork = NULL;
    int r = gist_connect(daemon_.socket, "faults", &c);

    (void)arg;
    if (r == 0)
        r = gist_open(c, NULL, &s);
    if (r == 0)
        r = gist_append_text(s, "some text", 9, 0, NULL);
    if (r == 0)
        r = gist_generate(s, &p, NULL, NULL, NULL);
    if (r == 0)
        r = gist_fork(s, NULL, &fork);
    if (r < 0)
        (void)why_set(why, r, "%s", gist_error(c));
    gist_disconnect(c);
    return r;
}

static void connection(void **state)
{
    (void)state;
    fault_life(&(struct fault_life){ .name = "libgist", .live = live, .says = true });
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(connection) };

    return cmocka_run_group_tests(tests, start, stop);
}
