/* tests/test_daemon_parts.c - the real daemon and requests whose bulk comes in parts. Would catch:
 * a request that fails and takes with it parts that another one waits for, a part that is refused
 * and leaves those before it behind, to be read twice, a client whose texts and scores fill the
 * host's memory, bytes that stay counted, long bulk that is cut or mixed up where it is copied in
 * pieces.
 */

#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct daemon_fixture d;
static struct raw_client c;

static struct wire_req score(bool more)
{
    return (struct wire_req){ .kind = WIRE_SCORE,
                              .u.score = { .kind = WIRE_SCORE_TEXT, .window = 512, .more = more } };
}

static struct wire_req append(uint64_t session, bool more)
{
    return (struct wire_req){ .kind = WIRE_APPEND,
                              .u.append = {
                                  .session = session, .kind = WIRE_APPEND_TEXT, .more = more } };
}

static void expect(const struct wire_rep *rep, enum wire_rep_kind kind)
{
    if (rep->kind == WIRE_ERROR && kind != WIRE_ERROR)
        fail_msg("%s", rep->u.error.text);
    assert_int_equal(rep->kind, kind);
}

static void expect_error(const struct wire_rep *rep, enum wire_error code)
{
    expect(rep, WIRE_ERROR);
    assert_int_equal(rep->u.error.code, code);
}

/* A Score that has all its text is cancelled while the next one's comes in. */
static void failure_leaves_the_parts_of_others(void **state)
{
    static char text[3000];
    struct wire_req cancel = { .kind = WIRE_CANCEL };
    uint64_t first, whole, parts;

    (void)state;
    memset(text, 'x', sizeof(text));
    expect(raw_client_ask(&c, score(false), text, 20, &whole), WIRE_DONE);
    assert_true(whole > 0);
    first = raw_client_send(&c, score(false), text, sizeof(text));
    expect(raw_client_ask(&c, score(true), text, 12, NULL), WIRE_DONE);
    cancel.u.cancel.request = first;
    (void)raw_client_send(&c, cancel, NULL, 0);
    expect_error(raw_client_wait(&c, first, NULL), WIRE_E_CANCELLED);
    expect(raw_client_ask(&c, score(false), text, 8, &parts), WIRE_DONE);
    assert_int_equal(parts, whole);
}

static uint32_t session_tokens(void)
{
    const struct wire_rep *rep =
        raw_client_ask(&c, (struct wire_req){ .kind = WIRE_GET_STATS }, NULL, 0, NULL);

    expect(rep, WIRE_STATS);
    assert_int_equal(rep->u.stats.n_session, 1);
    return rep->u.stats.session[0].n_tokens;
}

/* A part that meets an answer being written is refused, and the one before it is forgotten. */
static void refused_part_forgets_the_others(void **state)
{
    struct wire_req open = { .kind = WIRE_OPEN_SESSION }, cancel = { .kind = WIRE_CANCEL };
    struct wire_req generate = { .kind = WIRE_GENERATE, .u.generate.ignore_eog = true };
    const struct wire_rep *rep = raw_client_ask(&c, open, NULL, 0, NULL);
    uint64_t session;
    uint32_t n;

    (void)state;
    expect(rep, WIRE_SESSION_OPENED);
    session = generate.u.generate.session = rep->u.session_opened.session;
    expect(raw_client_ask(&c, append(session, false), "x", 1, NULL), WIRE_APPENDED);
    expect(raw_client_ask(&c, append(session, true), "hello", 5, NULL), WIRE_APPENDED);
    cancel.u.cancel.request = raw_client_send(&c, generate, NULL, 0);
    expect_error(raw_client_ask(&c, append(session, false), "world", 5, NULL), WIRE_E_BUSY);
    (void)raw_client_send(&c, cancel, NULL, 0);
    expect_error(raw_client_wait(&c, cancel.u.cancel.request, NULL), WIRE_E_CANCELLED);
    n = session_tokens();
    rep = raw_client_ask(&c, append(session, false), NULL, 0, NULL);
    expect(rep, WIRE_APPENDED);
    assert_int_equal(rep->u.appended.n_tokens, n);
}

static bool can_tokenize(struct raw_client *client)
{
    struct wire_req tokenize = { .kind = WIRE_TOKENIZE };

    return raw_client_ask(client, tokenize, "x", 1, NULL)->kind == WIRE_TOKENS;
}

/* What a client has sent is counted in one place, whatever request it came with, and refused past
 * the limit. */
static void texts_have_a_limit(void **state)
{
    static const char *const args[] = { "--client-text-bytes", "1M", NULL };
    static char text[128 << 10];
    struct wire_req tokenize = { .kind = WIRE_TOKENIZE }, cancel = { .kind = WIRE_CANCEL };
    struct raw_client full, other;
    const struct wire_rep *rep;
    struct daemon_fixture small;

    (void)state;
    memset(text, 'x', sizeof(text));
    daemon_fixture_start(&small, DAEMON_FIXTURE_TINY, args);
    raw_client_open(&full, small.socket);
    raw_client_open(&other, small.socket);
    for (int i = 0; i < 5; i++)
        expect(raw_client_ask(&full, score(true), text, sizeof(text), NULL), WIRE_DONE);
    rep = raw_client_ask(&full, tokenize, "x", 1, NULL);
    expect_error(rep, WIRE_E_LIMIT);
    assert_non_null(strstr(rep->u.error.text, "--client-text-bytes"));
    assert_int_equal(rep->u.error.had, 1 << 20);
    assert_int_equal(rep->u.error.asked, 64);
    assert_int_equal(rep->u.error.limit, 1 << 20);
    assert_true(can_tokenize(&other));
    /* Its ids find no room either, and then it is given up as a whole. */
    expect_error(raw_client_ask(&full, score(false), "x", 1, NULL), WIRE_E_LIMIT);
    assert_true(can_tokenize(&full));
    for (int i = 0; i < 20; i++) {
        cancel.u.cancel.request = raw_client_send(&full, score(false), text, 100000);
        (void)raw_client_send(&full, cancel, NULL, 0);
        expect_error(raw_client_wait(&full, cancel.u.cancel.request, NULL), WIRE_E_CANCELLED);
    }
    for (int i = 0; i < 5; i++)
        expect(raw_client_ask(&full, score(true), text, sizeof(text), NULL), WIRE_DONE);
    raw_client_close(&full);
    raw_client_close(&other);
    daemon_fixture_stop(&small); /* it asserts that nothing of a client that left is counted */
}

/* Bulk of many pieces in one frame: nothing is lost, nothing is read twice, and what is refused is
 * refused as if it were short. Other requests of the client wait behind it, in order. */
static void long_bulk_comes_whole(void **state)
{
    static char text[200000];
    static uint32_t ids[20000];
    struct wire_req tokenize = { .kind = WIRE_TOKENIZE }, open = { .kind = WIRE_OPEN_SESSION };
    struct wire_req detokenize = { .kind = WIRE_DETOKENIZE }, ping = { .kind = WIRE_PING };
    struct wire_req generate = { .kind = WIRE_GENERATE, .u.generate.ignore_eog = true };
    struct wire_req cancel = { .kind = WIRE_CANCEL };
    uint64_t whole, parts, session, id;

    (void)state;
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (char)(i % 61 ? 'a' + i % 23 : ' ');
    expect(raw_client_ask(&c, tokenize, text, sizeof(text), &whole), WIRE_TOKENS);
    assert_true(whole >= sizeof(text)); /* four bytes an id, a few bytes of text each */
    tokenize.u.tokenize.more = true;
    expect(raw_client_ask(&c, tokenize, text, 70001, NULL), WIRE_TOKENS);
    tokenize.u.tokenize.more = false;
    expect(raw_client_ask(&c, tokenize, text + 70001, sizeof(text) - 70001, &parts), WIRE_TOKENS);
    assert_int_equal(parts, whole);

    id = raw_client_send(&c, tokenize, text, sizeof(text));
    expect(raw_client_ask(&c, ping, NULL, 0, NULL), WIRE_PONG);
    assert_int_equal(id + 1, c.last_id);

    ids[sizeof(ids) / sizeof(*ids) - 1] = 1u << 30;
    expect_error(raw_client_ask(&c, detokenize, ids, sizeof(ids), NULL), WIRE_E_BAD_REQUEST);
    ids[sizeof(ids) / sizeof(*ids) - 1] = 0;
    expect(raw_client_ask(&c, detokenize, ids, sizeof(ids), NULL), WIRE_TEXT);

    expect_error(raw_client_ask(&c, append(99, false), text, 100000, NULL), WIRE_E_NOT_FOUND);
    session = raw_client_ask(&c, open, NULL, 0, NULL)->u.session_opened.session;
    expect_error(raw_client_ask(&c, append(session, false), text, sizeof(text), NULL),
                 WIRE_E_CONTEXT_LENGTH_EXCEEDED);
    expect(raw_client_ask(&c, append(session, false), "x", 1, NULL), WIRE_APPENDED);
    generate.u.generate.session = session;
    cancel.u.cancel.request = raw_client_send(&c, generate, NULL, 0);
    expect_error(raw_client_ask(&c, append(session, true), text, 100000, NULL), WIRE_E_BUSY);
    (void)raw_client_send(&c, cancel, NULL, 0);
    expect_error(raw_client_wait(&c, cancel.u.cancel.request, NULL), WIRE_E_CANCELLED);
    /* 100,000 bytes of parts, and a client that leaves in the middle of the next. */
    expect(raw_client_ask(&c, append(session, true), text, 100000, NULL), WIRE_APPENDED);
    (void)raw_client_send(&c, append(session, true), text, 30000);
    raw_client_close(&c);
    raw_client_open(&c, d.socket);
    expect(raw_client_ask(&c, tokenize, text, 70000, NULL), WIRE_TOKENS);
}

static int start(void **state)
{
    static const char *const args[] = { "--cpu",   "scalar", "--kv-bytes", "64M",
                                        "--store", "none",   NULL };

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_SLOW, args);
    raw_client_open(&c, d.socket);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    raw_client_close(&c);
    daemon_fixture_stop(&d);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failure_leaves_the_parts_of_others),
        cmocka_unit_test(refused_part_forgets_the_others),
        cmocka_unit_test(texts_have_a_limit),
        cmocka_unit_test(long_bulk_comes_whole),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
