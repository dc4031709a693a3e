/* Would catch: a Watch that stops by itself, or can't be stopped; what a session does that nobody
 * can see or cancel from another connection; times of a request that don't add up, or are another
 * user's; a user who sees, or cancels, what others do.
 */
#include "tests/support/daemon_fixture.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define OTHER_UID 54321u

static struct daemon_fixture d;

static const char *const slow[] = { "--cpu", "scalar", "--socket-mode", "0666", NULL };

static int setup(void **state)
{
    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_SLOW, slow);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    daemon_fixture_stop(&d);
    return 0;
}

/* --- a request that is under way ----------------------------------------------------------------
 */

struct answer {
    unsigned n_stats, stop_at;
    bool done;
    int err;
};

static void on_done(void *arg, int err, const struct gist_result *result)
{
    struct answer *a = arg;

    (void)result;
    assert_false(a->done);
    a->done = true;
    a->err = err;
}

static void wait_done(gist_conn *c, const struct answer *a)
{
    while (!a->done) {
        struct pollfd p = { .fd = gist_fd(c), .events = POLLIN };

        assert_true(poll(&p, 1, DAEMON_FIXTURE_PATIENCE_MS) > 0);
        assert_true(gist_dispatch(c) >= 0);
    }
}

static gist_session *read_some(gist_conn *c, uint32_t n)
{
    struct gist_policy p = { .size = sizeof(p), .label = "reader" };
    uint32_t ids[1024];
    gist_session *s;

    for (uint32_t i = 0; i < n; i++)
        ids[i] = 40 + i % 83;
    assert_int_equal(gist_open(c, &p, &s), 0);
    assert_int_equal(gist_append_tokens(s, ids, n, NULL), 0);
    return s;
}

/* An answer without end. */
static void start_answer(gist_session *s, struct answer *a)
{
    const struct gist_sampling o = { .size = sizeof(o), .ignore_eog = 1 };

    assert_int_equal(gist_generate_start(s, &o, NULL, on_done, a, NULL), 0);
}

/* --- watch --------------------------------------------------------------------------------------
 */

static int count_stats(void *arg, const struct gist_stats *stats)
{
    struct answer *a = arg;

    assert_true(stats->pages > 0);
    assert_int_equal(stats->n_clients, 1);
    return ++a->n_stats == a->stop_at;
}

static void watches_until_it_is_told(void **state)
{
    gist_conn *c = daemon_fixture_connect(&d);
    struct answer a = { .stop_at = 4 }, b = { .stop_at = 0 };
    uint64_t request;

    (void)state;
    /* By what the callback returns. */
    assert_int_equal(gist_watch_start(c, 100, count_stats, on_done, &a, NULL), 0);
    wait_done(c, &a);
    assert_int_equal(a.err, -ECANCELED);
    assert_int_equal(a.n_stats, 4);
    /* By gist_cancel. */
    assert_int_equal(gist_watch_start(c, 100, count_stats, on_done, &b, &request), 0);
    while (b.n_stats < 2) {
        struct pollfd p = { .fd = gist_fd(c), .events = POLLIN };

        assert_true(poll(&p, 1, DAEMON_FIXTURE_PATIENCE_MS) > 0);
        assert_true(gist_dispatch(c) >= 0);
    }
    assert_int_equal(gist_cancel(c, request), 0);
    wait_done(c, &b);
    assert_int_equal(b.err, -ECANCELED);
    assert_int_equal(gist_ping(c), 0);
    gist_disconnect(c);
}

/* --- sessions of another connection --------------------------------------------------------------
 */

/* The session that answers; NULL: there is none yet. */
static const struct gist_stats_session *answering(const struct gist_stats *st)
{
    for (uint32_t i = 0; i < st->n_sessions; i++)
        if (strcmp(st->sessions[i].doing, "generate") == 0 && st->sessions[i].generated_tokens >= 3)
            return &st->sessions[i];
    return NULL;
}

struct traced {
    struct gist_trace_row rows[64];
    size_t n;
    char what[64][16], ended[64][32];
};

static void keep_rows(void *arg, const struct gist_trace_row *rows, size_t n)
{
    struct traced *t = arg;

    assert_in_range(n, 0, 64);
    t->n = n;
    for (size_t i = 0; i < n; i++) {
        t->rows[i] = rows[i];
        (void)snprintf(t->what[i], sizeof(t->what[i]), "%s", rows[i].what);
        (void)snprintf(t->ended[i], sizeof(t->ended[i]), "%s", rows[i].ended);
    }
}

static void cancels_from_elsewhere(void **state)
{
    gist_conn *c = daemon_fixture_connect(&d), *other = daemon_fixture_connect(&d);
    gist_session *s = read_some(c, 64);
    const struct gist_stats_session *x;
    struct answer a = { .done = false };
    struct traced t;
    struct gist_segments map;
    struct gist_stats st;
    uint64_t request;
    double end;

    (void)state;
    start_answer(s, &a);
    end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;
    do
        assert_int_equal(gist_stats(other, &st), 0);
    while (!(x = answering(&st)) && daemon_fixture_ms() < end);
    assert_non_null(x);
    assert_int_equal(x->id, gist_session_id(s));
    assert_int_equal(x->uid, getuid());
    request = x->request;
    /* How it is held is told while it answers, too. */
    assert_int_equal(gist_segments(other, gist_session_id(s), 0, &map), 0);
    assert_true(map.n > 0 && map.n_tokens > 64);
    assert_true(request > 0);
    assert_int_equal(gist_cancel_session(other, gist_session_id(s)), 0);
    wait_done(c, &a);
    assert_int_equal(a.err, -ECANCELED);
    /* It is idle now. */
    assert_int_equal(gist_cancel_session(other, gist_session_id(s)), -ENOENT);
    assert_int_equal(gist_error_code(other), GIST_E_NOT_FOUND);
    assert_int_equal(gist_cancel_session(other, 0), -EINVAL);

    assert_int_equal(gist_trace(other, request, keep_rows, &t), 0);
    assert_int_equal(t.n, 1);
    assert_int_equal(t.rows[0].number, request);
    assert_int_equal(t.rows[0].session, gist_session_id(s));
    assert_string_equal(t.what[0], "generate");
    assert_string_equal(t.ended[0], "cancelled");
    assert_true(t.rows[0].generated_tokens >= 3);
    assert_true(t.rows[0].first_token_ns > 0 && t.rows[0].decode_ns > 0);
    gist_disconnect(other);
    gist_disconnect(c);
}

/* --- a cut answer --------------------------------------------------------------------------------
 */

struct cut {
    gist_conn *conn;
    uint64_t request;
    uint32_t n_ids, n_ended;
    bool done;
    struct gist_result result;
};

static int hear(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    struct cut *a = arg;

    (void)text;
    (void)len;
    (void)ids;
    a->n_ids += (uint32_t)n_ids;
    if (a->n_ids >= 3 && a->request)
        assert_int_equal(gist_cancel(a->conn, a->request), 0);
    return 0;
}

static int hear_one(void *arg, uint32_t answer, const char *text, size_t len, const uint32_t *ids,
                    size_t n_ids)
{
    (void)answer;
    return hear(arg, text, len, ids, n_ids);
}

static void on_one(void *arg, uint32_t answer, const struct gist_result *result)
{
    (void)answer;
    (void)result;
    ((struct cut *)arg)->n_ended++;
}

static void on_cut(void *arg, int err, const struct gist_result *result)
{
    struct cut *a = arg;

    assert_int_equal(err, -ECANCELED);
    assert_non_null(result);
    a->result = *result;
    a->done = true;
}

static void wait_cut(struct cut *a)
{
    while (!a->done) {
        struct pollfd p = { .fd = gist_fd(a->conn), .events = POLLIN };

        assert_true(poll(&p, 1, DAEMON_FIXTURE_PATIENCE_MS) > 0);
        assert_true(gist_dispatch(a->conn) >= 0);
    }
}

/* What was said before the cancel is in the session, and is what the usage counts. */
static void counts_what_was_said(void **state)
{
    const struct gist_sampling o = { .size = sizeof(o), .ignore_eog = 1 };
    struct cut one = { .conn = daemon_fixture_connect(&d) }, several = { .conn = one.conn };
    gist_session *s = read_some(one.conn, 64);
    struct gist_usage u;

    (void)state;
    assert_int_equal(gist_generate_start(s, &o, hear, on_cut, &one, &one.request), 0);
    wait_cut(&one);
    assert_int_equal(one.result.reason, GIST_CANCELLED);
    assert_true(one.n_ids >= 3);
    assert_int_equal(one.result.usage.generated_tokens, one.n_ids);
    assert_int_equal(one.result.usage.prompt_tokens, 64);
    assert_true(one.result.usage.first_token_ns > 0 && one.result.usage.generate_ns > 0);
    assert_int_equal(gist_append_tokens(s, (uint32_t[]){ 40 }, 1, &u), 0);
    assert_int_equal(u.prompt_tokens, 64 + one.n_ids + 1);

    assert_int_equal(
        gist_generate_several_start(s, &o, 3, hear_one, on_one, on_cut, &several, &several.request),
        0);
    wait_cut(&several);
    assert_int_equal(several.result.reason, GIST_CANCELLED);
    assert_int_equal(several.n_ended, 0);
    assert_true(several.result.usage.generated_tokens >= several.n_ids);
    gist_disconnect(one.conn);
}

/* --- times ---------------------------------------------------------------------------------------
 */

static void times_add_up(void **state)
{
    gist_conn *c = daemon_fixture_connect(&d);
    gist_session *s = read_some(c, 300);
    const struct gist_sampling o = { .size = sizeof(o), .ignore_eog = 1, .max_tokens = 5 };
    const struct gist_trace_row *g, *r;
    struct gist_result result;
    struct traced t;

    (void)state;
    assert_int_equal(gist_generate(s, &o, NULL, NULL, &result), 0);
    assert_int_equal(gist_trace(c, 0, keep_rows, &t), 0);
    assert_in_range(t.n, 2, 64);
    g = &t.rows[0];
    r = &t.rows[1];
    assert_string_equal(t.what[0], "generate");
    assert_string_equal(t.what[1], "append");
    assert_string_equal(t.ended[1], "done");
    assert_true(g->number > r->number);
    assert_int_equal(g->generated_tokens, 5);
    assert_int_equal(g->first_token_ns, result.usage.first_token_ns);
    assert_int_equal(r->computed_tokens + r->found_tokens, 300);
    assert_true(r->prefill_ns > 0 && r->decode_ns == 0);
    assert_true(g->decode_ns > 0);
    for (size_t i = 0; i < 2; i++) {
        const struct gist_trace_row *x = &t.rows[i];

        assert_true(x->queue_ns + x->restore_ns + x->hydrate_ns + x->prefill_ns + x->compress_ns +
                        x->decode_ns <=
                    x->total_ns);
    }
    assert_int_equal(gist_trace(c, 1ull << 60, keep_rows, &t), -ENOENT);
    /* A bounded list of the last ones. */
    for (int i = 0; i < 70; i++)
        assert_int_equal(gist_append_text(s, "a", 1, 0, NULL), 0);
    assert_int_equal(gist_trace(c, 0, keep_rows, &t), 0);
    assert_int_equal(t.n, 64);
    for (size_t i = 1; i < t.n; i++)
        assert_true(t.rows[i].number < t.rows[i - 1].number);
    gist_disconnect(c);
}

/* --- another user --------------------------------------------------------------------------------
 */

/* A number for each thing that is not as it should be. */
static int as_another(uint64_t session, uint64_t request, uint64_t computed)
{
    struct gist_policy p = { .size = sizeof(p), .label = "mine" };
    struct gist_segments map;
    struct gist_stats st;
    struct traced t;
    gist_session *s;
    gist_conn *c;

    if (setgid(OTHER_UID) < 0 || setuid(OTHER_UID) < 0)
        return 1;
    if (gist_connect(d.socket, "another", &c) < 0 || gist_open(c, &p, &s) < 0)
        return 2;
    if (gist_stats(c, &st) < 0 || st.n_clients != 1 || st.n_sessions != 1)
        return 3;
    if (st.clients[0].uid != OTHER_UID || strcmp(st.sessions[0].label, "mine") != 0)
        return 4;
    /* Prompts that were there before count as if they were not. */
    if (st.prompt_tokens_total <= computed)
        return 8;
    if (!st.store || st.store->misses + st.store->hits + st.store->restored_tokens > 0)
        return 9;
    if (gist_cancel_session(c, session) != -ENOENT)
        return 5;
    if (gist_trace(c, 0, keep_rows, &t) != 0 || t.n != 0)
        return 6;
    if (gist_trace(c, request, keep_rows, &t) != -ENOENT)
        return 7;
    if (gist_segments(c, session, 0, &map) != -ENOENT)
        return 10;
    return 0;
}

static void keeps_users_apart(void **state)
{
    gist_conn *c = daemon_fixture_connect(&d);
    gist_session *s = read_some(c, 64);
    struct answer a = { .done = false };
    struct gist_stats st;
    struct traced t;
    uint64_t session;
    int status;
    pid_t pid;

    (void)state;
    if (getuid() != 0) {
        print_message("only root can be two users\n");
        skip();
    }
    daemon_fixture_let_in(&d);
    assert_int_equal(gist_trace(c, 0, keep_rows, &t), 0);
    session = gist_session_id(s);
    assert_int_equal(gist_stats(c, &st), 0);
    assert_true(st.store && st.store->misses > 0);
    start_answer(s, &a);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(as_another(session, t.rows[0].number, st.prompt_tokens_total));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_false(a.done);
    /* Root sees all; the other one's connection may be gone by now. */
    assert_int_equal(gist_stats(c, &st), 0);
    assert_in_range(st.n_sessions, 1, 2);
    assert_int_equal(gist_cancel_session(c, session), 0);
    wait_done(c, &a);
    gist_disconnect(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(watches_until_it_is_told), cmocka_unit_test(cancels_from_elsewhere),
        cmocka_unit_test(counts_what_was_said),     cmocka_unit_test(times_add_up),
        cmocka_unit_test(keeps_users_apart),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
