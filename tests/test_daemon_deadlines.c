/* tests/test_daemon_deadlines.c - requests that have to end by a time. Would catch: one that is
 * read, written or waited for beyond its deadline; one that sleeps through it while nothing else
 * happens; a session that is not as it was, or busy for ever; an error without what was done until
 * then; a deadline that a later request inherits, or that ends one in time.
 */
#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WORDS 1500u /* nearly two tokens each, and a millisecond or more a token */

static struct daemon_fixture d;
static struct raw_client raw;
static char *text; /* (2 * WORDS) */

static int start(void **state)
{
    static const char *const args[] = { "--cpu", "scalar", "--threads", "1", NULL };

    (void)state;
    text = malloc(2 * WORDS);
    assert_non_null(text);
    for (size_t i = 0; i < 2 * WORDS; i++)
        text[i] = i % 2 ? ' ' : (char)('a' + i % 23);
    daemon_fixture_start(&d, DAEMON_FIXTURE_SLOW, args);
    raw_client_open(&raw, d.socket);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    raw_client_close(&raw);
    daemon_fixture_stop(&d);
    free(text);
    return 0;
}

static uint64_t open_session(void)
{
    const struct wire_rep *rep =
        raw_client_ask(&raw, (struct wire_req){ .kind = WIRE_OPEN_SESSION }, NULL, 0, NULL);

    assert_int_equal(rep->kind, WIRE_SESSION_OPENED);
    return rep->u.session_opened.session;
}

static struct wire_req append_to(uint64_t session)
{
    struct wire_req m = { .kind = WIRE_APPEND };

    m.u.append.session = session;
    return m;
}

static struct wire_req generate_in(uint64_t session, uint32_t n)
{
    struct wire_req m = { .kind = WIRE_GENERATE };

    m.u.generate.session = session;
    m.u.generate.max_tokens = n;
    m.u.generate.ignore_eog = true;
    return m;
}

static void close_session(uint64_t session)
{
    struct wire_req m = { .kind = WIRE_CLOSE_SESSION };

    m.u.close_session.session = session;
    assert_int_equal(raw_client_ask(&raw, m, NULL, 0, NULL)->kind, WIRE_SESSION_CLOSED);
}

/* --- tests ------------------------------------------------------------------------------------ */

/* The session has what it had, and goes on. */
static void a_prompt_has_one(void **state)
{
    uint64_t session = open_session();
    struct wire_req m = append_to(session);
    const struct wire_rep *rep;

    (void)state;
    assert_int_equal(raw_client_ask(&raw, m, "a b c", 5, NULL)->kind, WIRE_APPENDED);
    m.deadline_ms = 50;
    rep = raw_client_ask(&raw, m, text, 2 * WORDS, NULL);
    raw_client_refused(rep, WIRE_E_DEADLINE, "the deadline of 50 ms has passed");
    m.deadline_ms = 0;
    rep = raw_client_ask(&raw, m, " d e", 4, NULL);
    assert_int_equal(rep->kind, WIRE_APPENDED);
    assert_in_range(rep->u.appended.n_tokens, 5, 9);
    close_session(session);
}

/* What was said until then stays said. */
static void an_answer_has_one(void **state)
{
    uint64_t session = open_session();
    struct wire_req m = append_to(session);
    const struct wire_rep *rep;

    (void)state;
    assert_int_equal(raw_client_ask(&raw, m, "a b c", 5, NULL)->kind, WIRE_APPENDED);
    m = generate_in(session, 3500);
    m.deadline_ms = 400;
    rep = raw_client_ask(&raw, m, NULL, 0, NULL);
    raw_client_refused(rep, WIRE_E_DEADLINE, "the deadline of 400 ms has passed");
    assert_true(rep->u.error.has_usage);
    assert_in_range(rep->u.error.usage.generated_tokens, 0, 3499);
    m = generate_in(session, 3);
    m.deadline_ms = 10 * 60 * 1000;
    rep = raw_client_ask(&raw, m, NULL, 0, NULL);
    assert_int_equal(rep->kind, WIRE_DONE);
    assert_int_equal(rep->u.done.usage.generated_tokens, 3);
    close_session(session);
}

/* Several answers, and continuations that are scored, end as one. */
static void parts_have_that_of_the_whole(void **state)
{
    uint64_t session = open_session(), lens[] = { WORDS, WORDS };
    struct wire_req m = append_to(session);

    (void)state;
    assert_int_equal(raw_client_ask(&raw, m, "a b c", 5, NULL)->kind, WIRE_APPENDED);
    m = generate_in(session, 3500);
    m.u.generate.n = 3;
    m.deadline_ms = 100;
    raw_client_refused(raw_client_ask(&raw, m, NULL, 0, NULL), WIRE_E_DEADLINE,
                       "the deadline of 100 ms has passed");
    m = (struct wire_req){ .kind = WIRE_SCORE_CHOICES, .deadline_ms = 20 };
    m.u.score_choices.session = session;
    m.u.score_choices.lens = lens;
    m.u.score_choices.n = 2;
    raw_client_refused(raw_client_ask(&raw, m, text, 2 * WORDS, NULL), WIRE_E_DEADLINE,
                       "the deadline of 20 ms has passed");
    close_session(session); /* it is nobody's any more */
}

/* Nothing else happens meanwhile: a Watch waits for ten minutes, and the daemon sleeps. */
static void one_that_waits_has_one(void **state)
{
    struct wire_req m = { .kind = WIRE_WATCH, .deadline_ms = 150 };
    const struct wire_rep *rep;

    (void)state;
    m.u.watch.interval_ms = 10 * 60 * 1000;
    rep = raw_client_ask(&raw, m, NULL, 0, NULL);
    assert_int_equal(rep->kind, WIRE_ERROR);
    raw_client_refused(rep, WIRE_E_DEADLINE, "the deadline of 150 ms has passed");
}

/* Beside another one's prompt, which is read on. */
static void one_in_the_queue_has_one(void **state)
{
    uint64_t session = open_session(), others = open_session(), id;
    struct wire_req m = append_to(others);

    (void)state;
    id = raw_client_send(&raw, m, text, 2 * WORDS);
    m = append_to(session);
    m.deadline_ms = 1;
    raw_client_refused(raw_client_ask(&raw, m, text, 2 * WORDS, NULL), WIRE_E_DEADLINE,
                       "the deadline of 1 ms has passed");
    assert_int_equal(
        raw_client_ask(&raw, (struct wire_req){ .kind = WIRE_PING }, NULL, 0, NULL)->kind,
        WIRE_PONG);
    m = (struct wire_req){ .kind = WIRE_CANCEL };
    m.u.cancel.request = id;
    (void)raw_client_send(&raw, m, NULL, 0);
    raw_client_refused(raw_client_wait(&raw, id, NULL), WIRE_E_CANCELLED, "cancelled");
    close_session(session);
    close_session(others);
}

static int on_text(void *arg, const char *piece, size_t len, const uint32_t *ids, size_t n_ids)
{
    (void)arg, (void)piece, (void)len, (void)ids, (void)n_ids;
    return 0;
}

static void libgist_sets_it(void **state)
{
    struct gist_sampling o = { .size = sizeof(o), .max_tokens = 3500, .ignore_eog = 1 };
    gist_conn *c = daemon_fixture_connect(&d);
    gist_session *s;

    (void)state;
    assert_int_equal(gist_open(c, NULL, &s), 0);
    assert_int_equal(gist_append_text(s, "a b c", 5, 0, NULL), 0);
    assert_int_equal(gist_set_deadline(c, 100), 0);
    assert_int_equal(gist_generate(s, &o, on_text, NULL, NULL), -ETIMEDOUT);
    assert_int_equal(gist_error_code(c), GIST_E_DEADLINE);
    assert_non_null(strstr(gist_error(c), "the deadline of 100 ms has passed"));
    assert_int_equal(gist_append_text(s, text, 2 * WORDS, 0, NULL), -ETIMEDOUT);
    assert_int_equal(gist_error_code(c), GIST_E_DEADLINE);
    assert_int_equal(gist_set_deadline(c, 0), 0);
    o.max_tokens = 30;
    assert_int_equal(gist_generate(s, &o, on_text, NULL, NULL), 0);
    gist_close(s);
    gist_disconnect(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_has_one),
        cmocka_unit_test(an_answer_has_one),
        cmocka_unit_test(parts_have_that_of_the_whole),
        cmocka_unit_test(one_that_waits_has_one),
        cmocka_unit_test(one_in_the_queue_has_one),
        cmocka_unit_test(libgist_sets_it),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
