/* tests/test_faults_gist.c - a client's calls failing at each of their turns: connecting, sessions,
 * reading, answers, scores, with waiting and without. Would catch: a connection that hangs or
 * leaves something behind when its process has no memory or no descriptors, an error without a
 * sentence. */
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

/* --- without waiting -------------------------------------------------------------------------- */

struct told {
    int open, err; /* requests; the first error */
};

static void tell(struct told *t, int err)
{
    t->open--;
    if (t->err == 0)
        t->err = err;
}

static void on_done(void *arg, int err, const struct gist_result *result)
{
    (void)result;
    tell(arg, err);
}

static void on_session(void *arg, int err, gist_session *s)
{
    (void)s;
    tell(arg, err);
}

static void on_tokens(void *arg, int err, const uint32_t *ids, size_t n)
{
    (void)ids;
    (void)n;
    tell(arg, err);
}

static void on_score(void *arg, int err, const struct gist_score *score)
{
    (void)score;
    tell(arg, err);
}

static int on_stats(void *arg, const struct gist_stats *stats)
{
    (void)arg;
    (void)stats;
    return 0;
}

static void on_traces(void *arg, const struct gist_trace_row *rows, size_t n)
{
    (void)arg;
    (void)rows;
    (void)n;
}

/* Whatever fails, each request that was started is told once. */
static int live_async(void *arg, struct why *why)
{
    struct told t = { 0 };
    gist_conn *c = NULL;
    int r = gist_connect(daemon_.socket, "faults", &c);

    (void)arg;
#define START(call)                                                                                \
    do {                                                                                           \
        r = r < 0 ? r : (call);                                                                    \
        t.open += r == 0;                                                                          \
    } while (0)
    START(gist_open_start(c, NULL, on_session, &t, NULL));
    START(gist_tokenize_start(c, "some text", 9, 0, on_tokens, &t, NULL));
    START(gist_score_text_start(c, "some text", 9, NULL, on_score, &t, NULL));
    START(gist_stats_start(c, on_stats, on_done, &t, NULL));
    START(gist_trace_start(c, 0, on_traces, on_done, &t, NULL));
#undef START
    while (r == 0 && t.open > 0)
        r = gist_ping(c);
    r = r == 0 ? t.err : r;
    if (r < 0)
        (void)why_set(why, r, "%s", gist_error(c));
    gist_disconnect(c);
    assert_int_equal(t.open, 0);
    return r;
}

static void without_waiting(void **state)
{
    (void)state;
    fault_life(&(struct fault_life){ .name = "libgist, async", .live = live_async, .says = true });
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(connection),
                                        cmocka_unit_test(without_waiting) };

    return cmocka_run_group_tests(tests, start, stop);
}
