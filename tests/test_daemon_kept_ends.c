/* tests/test_daemon_kept_ends.c - kept sessions at their edges: closed while something is under
 * way, kept between two parts of a text, asked by who asked first. Would catch: a daemon that dies
 * of lanes behind a closed session; a session that stays because nobody reads its answer; the
 * beginning of a text that is lost; an answer that only another connection can have again, or a
 * place of it that is not where it begins.
 */

#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct daemon_fixture d;

static const char prompt[] = "The quick brown fox jumps over the lazy dog, and then";

static gist_session *open_kept(gist_conn *c, struct gist_kept *ret)
{
    gist_session *s;

    *ret = (struct gist_kept){ .size = sizeof(*ret) };
    assert_int_equal(gist_open(c, NULL, &s), 0);
    assert_int_equal(gist_append_text(s, prompt, strlen(prompt), 0, NULL), 0);
    assert_int_equal(gist_keep(s, 0, ret), 0);
    return s;
}

/* --- closed ----------------------------------------------------------------------------------- */

#define N_CHOICES  24
#define CHOICE_IDS 600

static void on_choices(void *arg, int err, const struct gist_choices *choices)
{
    (void)choices;
    *(int *)arg = err;
}

/* Continuations are scored behind forks of the session; those that are under way when it is closed
 * have pages of its holder. */
static void closed_while_it_scores(void **state)
{
    static uint32_t ids[N_CHOICES][CHOICE_IDS];
    struct gist_span spans[N_CHOICES];
    struct gist_kept kept;
    struct gist_stats st;
    gist_conn *c, *other;
    uint64_t before;
    gist_session *s;
    int err;

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, NULL);
    other = daemon_fixture_connect(&d);
    for (uint32_t i = 0; i < N_CHOICES; i++) {
        for (uint32_t k = 0; k < CHOICE_IDS; k++)
            ids[i][k] = 40 + (i + k * k) % 80;
        spans[i] = (struct gist_span){ ids[i], CHOICE_IDS };
    }
    for (int i = 0; i < 5; i++) {
        c = daemon_fixture_connect(&d);
        s = open_kept(c, &kept);
        assert_int_equal(gist_stats(other, &st), 0);
        before = st.prompt_tokens_total;
        err = 1;
        assert_int_equal(
            gist_score_choices_start(s, spans, N_CHOICES, GIST_TOKENS, on_choices, &err, NULL), 0);
        do
            assert_int_equal(gist_stats(other, &st), 0);
        while (st.prompt_tokens_total == before);
        gist_close(s);
        while (err == 1)
            assert_true(gist_dispatch(c) >= 0);
        assert_true(err == -ECANCELED || err == 0);
        assert_int_equal(gist_ping(c), 0);
        gist_disconnect(c);
        assert_true(daemon_fixture_all_free(other, DAEMON_FIXTURE_PATIENCE_MS));
        assert_int_equal(gist_attach(other, kept.token, NULL, &s, NULL), -ENOENT);
    }
    gist_disconnect(other);
    daemon_fixture_stop(&d);
}

/* Its answer has come to a stand, since what was written of it has no more room and nobody reads:
 * who comes back to it, and closes it without reading, has closed it. */
static void closed_unread(void **state)
{
    static const char *const args[] = { "--detach-bytes", "72K", NULL };
    const struct gist_sampling p = {
        .size = sizeof(p), .max_tokens = 900, .ignore_eog = 1, .logprobs = 20
    };
    struct gist_attached at = { .size = sizeof(at) };
    uint32_t before = 0, now;
    struct gist_kept kept;
    struct gist_stats st;
    gist_conn *c, *other;
    gist_session *s;

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    other = daemon_fixture_connect(&d);
    c = daemon_fixture_connect(&d);
    s = open_kept(c, &kept);
    assert_int_equal(gist_generate_start(s, &p, NULL, NULL, NULL, NULL), 0);
    do {
        (void)usleep(50000);
        assert_int_equal(gist_stats(other, &st), 0);
        assert_int_equal(st.n_sessions, 1);
        now = before;
        before = st.sessions[0].generated_tokens;
    } while (before < 100 || now != before);
    gist_disconnect(c);
    assert_int_equal(gist_attach(other, kept.token, NULL, &s, &at), 0);
    assert_true(at.written > at.unread && at.written < 900);
    gist_close(s);
    assert_true(daemon_fixture_all_free(other, DAEMON_FIXTURE_PATIENCE_MS));
    assert_int_equal(gist_stats(other, &st), 0);
    assert_int_equal(st.n_sessions, 0);
    gist_disconnect(other);
    daemon_fixture_stop(&d);
}

/* --- kept between two parts ------------------------------------------------------------------- */

static uint64_t raw_session(struct raw_client *c)
{
    struct wire_req m = { .kind = WIRE_OPEN_SESSION, .u.open_session.label = "" };
    const struct wire_rep *rep = raw_client_ask(c, m, NULL, 0, NULL);

    assert_int_equal(rep->kind, WIRE_SESSION_OPENED);
    return rep->u.session_opened.session;
}

static uint32_t raw_append(struct raw_client *c, uint64_t session, const char *text, size_t len,
                           bool more)
{
    struct wire_req m = { .kind = WIRE_APPEND };
    const struct wire_rep *rep;

    m.u.append.session = session;
    m.u.append.more = more;
    rep = raw_client_ask(c, m, text, (uint32_t)len, NULL);
    assert_int_equal(rep->kind, WIRE_APPENDED);
    return rep->u.appended.n_tokens;
}

static void kept_between_parts(void **state)
{
    struct wire_req m = { .kind = WIRE_KEEP };
    struct raw_client c;
    uint32_t whole;

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, NULL);
    raw_client_open(&c, d.socket);
    whole = raw_append(&c, raw_session(&c), prompt, strlen(prompt), false);
    m.u.keep.session = raw_session(&c);
    assert_int_equal(raw_append(&c, m.u.keep.session, prompt, 20, true), 0);
    assert_int_equal(raw_client_ask(&c, m, NULL, 0, NULL)->kind, WIRE_KEPT);
    assert_int_equal(raw_append(&c, m.u.keep.session, prompt + 20, strlen(prompt) - 20, false),
                     whole);
    raw_client_close(&c);
    daemon_fixture_stop(&d);
}

/* --- had again by who asked ------------------------------------------------------------------- */

struct several {
    size_t n_ids[3];
    uint32_t n_ended, n_resumed;
    uint64_t first;
};

static int on_text(void *arg, uint32_t answer, const char *text, size_t len, const uint32_t *ids,
                   size_t n_ids)
{
    struct several *x = arg;

    (void)text;
    (void)len;
    (void)ids;
    assert_true(answer < 3);
    x->n_ids[answer] += n_ids;
    return 0;
}

static void on_answer(void *arg, uint32_t answer, const struct gist_result *result)
{
    (void)answer;
    assert_int_equal(result->reason, GIST_LENGTH);
    ((struct several *)arg)->n_ended++;
}

static void on_resumed(void *arg, uint64_t first)
{
    struct several *x = arg;

    x->first = first;
    x->n_resumed++;
}

static void expect_again(gist_session *s, unsigned flags, uint64_t first, const size_t n_ids[3],
                         uint32_t n_ended)
{
    const struct gist_resume how = {
        .size = sizeof(how), .flags = flags, .on_resumed = on_resumed, .on_answer = on_answer
    };
    struct several got = { .n_ended = 0 };

    assert_int_equal(gist_resume(s, &how, on_text, &got, NULL), 0);
    assert_int_equal(got.n_resumed, 1);
    assert_int_equal(got.first, first);
    assert_memory_equal(got.n_ids, n_ids, sizeof(got.n_ids));
    assert_int_equal(got.n_ended, n_ended);
}

/* As often as he likes, several or one; and of what he has had nothing comes unasked. */
static void had_again_by_who_asked(void **state)
{
    static const size_t three[3] = { 40, 40, 40 }, one[3] = { 40 }, none[3] = { 0 };
    const struct gist_sampling p = { .size = sizeof(p), .max_tokens = 40, .ignore_eog = 1 };
    struct several got = { .n_ended = 0 };
    struct gist_kept kept;
    gist_session *s;
    gist_conn *c;

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, NULL);
    c = daemon_fixture_connect(&d);
    s = open_kept(c, &kept);
    assert_int_equal(gist_generate_several(s, &p, 3, on_text, &got, NULL), 0);
    assert_memory_equal(got.n_ids, three, sizeof(three));
    expect_again(s, GIST_SET_FROM, 0, three, 3);
    expect_again(s, GIST_SET_FROM, 0, three, 3);
    expect_again(s, 0, 120, none, 0);
    assert_int_equal(gist_generate(s, &p, NULL, NULL, NULL), 0);
    expect_again(s, 0, 40, none, 1);
    expect_again(s, GIST_SET_FROM, 0, one, 1);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(closed_while_it_scores),
        cmocka_unit_test(closed_unread),
        cmocka_unit_test(kept_between_parts),
        cmocka_unit_test(had_again_by_who_asked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
