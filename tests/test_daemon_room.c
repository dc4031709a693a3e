/* tests/test_daemon_room.c - requests that fail for room. Would catch: an error that blames the
 * pool for a limit of the client or of the session, and numbers that are not what was wanted, what
 * is there and what stands against it ("0 more tokens need 1 pages, 20 are free"); strings of
 * replies that are no UTF-8.
 */

#include "base/utf8.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define PAGE    16u /* tokens */
#define SEGMENT 64u

static struct daemon_fixture d;
static struct raw_client c;

/* Bytes of so many pages, as an option says them. */
static const char *pages(char text[24], uint32_t n)
{
    static uint32_t page_bytes;

    if (!page_bytes) {
        struct daemon_fixture any;

        daemon_fixture_start(&any, DAEMON_FIXTURE_TINY, NULL);
        raw_client_open(&c, any.socket);
        page_bytes = raw_client_ask(&c, (struct wire_req){ .kind = WIRE_GET_STATS }, NULL, 0, NULL)
                         ->u.stats.page_bytes;
        raw_client_close(&c);
        daemon_fixture_stop(&any);
    }
    (void)snprintf(text, 24, "%lu", (unsigned long)n * page_bytes);
    return text;
}

/* A daemon whose pool has so many pages, and a client that may have so many; 0: as many as it
 * likes.
 */
static void start(uint32_t pool, uint32_t client)
{
    char of_pool[24], of_client[24];
    const char *args[] = { "--kv-bytes", pages(of_pool, pool), client ? "--client-kv-bytes" : NULL,
                           client ? pages(of_client, client) : NULL, NULL };

    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    raw_client_open(&c, d.socket);
}

static void stop(void)
{
    raw_client_close(&c);
    daemon_fixture_stop(&d);
}

/* A background one has no idle interactive one go. */
static uint64_t open_as(enum wire_priority priority, struct wire_memory m)
{
    struct wire_req r = { .kind = WIRE_OPEN_SESSION, .u.open_session.priority = priority };
    const struct wire_rep *rep;

    r.u.open_session.has_segment = true;
    r.u.open_session.segment = SEGMENT;
    r.u.open_session.memory = m;
    rep = raw_client_ask(&c, r, NULL, 0, NULL);
    assert_int_equal(rep->kind, WIRE_SESSION_OPENED);
    return rep->u.session_opened.session;
}

static uint64_t open_session(struct wire_memory m)
{
    return open_as(WIRE_INTERACTIVE, m);
}

static const struct wire_rep *append(uint64_t session, uint32_t n)
{
    struct wire_req r = { .kind = WIRE_APPEND };
    uint32_t ids[2048];

    assert_true(n <= 2048);
    for (uint32_t i = 0; i < n; i++)
        ids[i] = 1 + (uint32_t)(session * 31 + i * 7) % 200; /* sessions have nothing in common */
    r.u.append.session = session;
    r.u.append.kind = WIRE_APPEND_TOKENS;
    return raw_client_ask(&c, r, ids, n * sizeof(*ids), NULL);
}

static const struct wire_rep *generate(uint64_t session, uint32_t n)
{
    struct wire_req r = { .kind = WIRE_GENERATE };

    r.u.generate.session = session;
    r.u.generate.max_tokens = n;
    r.u.generate.ignore_eog = true;
    return raw_client_ask(&c, r, NULL, 0, NULL);
}

static void is_error(const struct wire_rep *rep, enum wire_error code, const char *text,
                     uint64_t had, uint64_t asked, uint64_t limit)
{
    assert_int_equal(rep->kind, WIRE_ERROR);
    if (rep->u.error.code != code || !strstr(rep->u.error.text, text))
        fail_msg("found %s: %s; expected %s with \"%s\"", wire_error_name(rep->u.error.code),
                 rep->u.error.text, wire_error_name(code), text);
    if (rep->u.error.had != had || rep->u.error.asked != asked || rep->u.error.limit != limit)
        fail_msg("%s: had %lu, asked %lu, limit %lu; expected %lu, %lu, %lu", rep->u.error.text,
                 (unsigned long)rep->u.error.had, (unsigned long)rep->u.error.asked,
                 (unsigned long)rep->u.error.limit, (unsigned long)had, (unsigned long)asked,
                 (unsigned long)limit);
}

/* --- the pool --------------------------------------------------------------------------------- */

static void test_append_and_pool(void **state)
{
    uint64_t s;

    (void)state;
    start(16, 0);
    s = open_session((struct wire_memory){ .compressor = WIRE_FULL });
    assert_int_equal(append(s, 2 * PAGE)->kind, WIRE_APPENDED);
    is_error(
        append(s, 15 * PAGE), WIRE_E_POOL_FULL,
        "reading 240 more tokens takes 15 more pages of 16 tokens; 14 of the pool's 16 are free", 2,
        15, 16);
    assert_int_equal(append(s, 14 * PAGE)->kind, WIRE_APPENDED);
    is_error(append(s, 1), WIRE_E_POOL_FULL, "takes 1 more page of", 16, 1, 16);
    stop();
}

/* What the client may have is no less than the pool, but other clients hold most of that. */
static void test_pool_of_others(void **state)
{
    struct raw_client first;
    uint64_t s;

    (void)state;
    start(16, 0);
    s = open_session((struct wire_memory){ .compressor = WIRE_FULL });
    assert_int_equal(append(s, 13 * PAGE)->kind, WIRE_APPENDED);
    first = c;
    raw_client_open(&c, d.socket);
    s = open_as(WIRE_BACKGROUND, (struct wire_memory){ .compressor = WIRE_FULL });
    is_error(append(s, 4 * PAGE), WIRE_E_POOL_FULL, "3 of the pool's 16 are free", 13, 4, 16);
    raw_client_close(&first);
    stop();
}

/* --- the client's own limit ------------------------------------------------------------------- */

static void test_append_and_client(void **state)
{
    uint64_t s;

    (void)state;
    start(40, 6);
    s = open_session((struct wire_memory){ .compressor = WIRE_FULL });
    assert_int_equal(append(s, 4 * PAGE)->kind, WIRE_APPENDED);
    is_error(
        append(s, 3 * PAGE), WIRE_E_LIMIT,
        "reading 48 more tokens takes 3 more pages of 16 tokens; this client has 4 of the 6 that "
        "it may have (--client-kv-bytes)",
        4, 3, 6);
    stop();
}

static void test_fork_and_client(void **state)
{
    struct wire_req fork = { .kind = WIRE_FORK };
    uint64_t s;

    (void)state;
    start(40, 6);
    s = fork.u.fork.session = open_session((struct wire_memory){ .compressor = WIRE_FULL });
    assert_int_equal(append(s, 5 * PAGE)->kind, WIRE_APPENDED);
    is_error(raw_client_ask(&c, fork, NULL, 0, NULL), WIRE_E_LIMIT, "a fork of 80 tokens takes 5",
             5, 5, 6);
    stop();
}

static void test_score_and_client(void **state)
{
    struct wire_req score = { .kind = WIRE_SCORE, .u.score.kind = WIRE_SCORE_TOKENS };
    uint32_t ids[200] = { 0 };
    uint64_t s;

    (void)state;
    start(40, 6);
    s = open_session((struct wire_memory){ .compressor = WIRE_FULL });
    assert_int_equal(append(s, 2 * PAGE)->kind, WIRE_APPENDED);
    is_error(raw_client_ask(&c, score, ids, sizeof(ids), NULL), WIRE_E_LIMIT,
             "reading a window's next 200 tokens takes 13", 2, 13, 6);
    stop();
}

/* The budget is to blame, and not the tail that nobody asked for. */
static void test_budget_of_nothing(void **state)
{
    struct wire_req open = { .kind = WIRE_OPEN_SESSION };

    (void)state;
    start(40, 6);
    open.u.open_session.memory =
        (struct wire_memory){ .compressor = WIRE_SELECT, .has_budget = true };
    is_error(raw_client_ask(&c, open, NULL, 0, NULL), WIRE_E_BAD_REQUEST,
             "a budget of 0 keys is not possible", 0, 0, 0);
    stop();
}

static void is_utf8(const char *text)
{
    assert_int_equal(utf8_span((const uint8_t *)text, strlen(text)), strlen(text));
}

/* Whoever reads Stats gets what others called themselves, and an error what the client asked for:
 * strings of a message are UTF-8, or a careful reader refuses all of it. */
static void test_strings_are_utf8(void **state)
{
    struct wire_req open = { .kind = WIRE_OPEN_SESSION },
                    hello = { .kind = WIRE_HELLO, .u.hello.client = "na\xffme\xc2\x9b\xe2\x82" },
                    stats = { .kind = WIRE_GET_STATS };
    const struct wire_rep *rep;

    (void)state;
    start(40, 6);
    (void)raw_client_ask(&c, hello, NULL, 0, NULL);
    open.u.open_session.label = "\xc0\x80 label \x80";
    assert_int_equal(raw_client_ask(&c, open, NULL, 0, NULL)->kind, WIRE_SESSION_OPENED);
    rep = raw_client_ask(&c, stats, NULL, 0, NULL);
    assert_int_equal(rep->kind, WIRE_STATS);
    assert_int_equal(rep->u.stats.n_client, 1);
    is_utf8(rep->u.stats.client[0].name);
    assert_null(strstr(rep->u.stats.client[0].name, "\xc2\x9b")); /* nor does it reach a terminal */
    assert_int_equal(rep->u.stats.n_session, 1);
    is_utf8(rep->u.stats.session[0].label);
    open.u.open_session.memory.adapter = "\xff\xfe";
    rep = raw_client_ask(&c, open, NULL, 0, NULL);
    assert_int_equal(rep->kind, WIRE_ERROR);
    is_utf8(rep->u.error.text);
    stop();
}

/* --- pages beside a segment, in the middle of an answer --------------------------------------- */

/* others: pages that another session of the client has. */
static void side_pages(uint32_t pool, uint32_t client, uint32_t others, enum wire_error code,
                       const char *text, uint32_t limit)
{
    uint64_t s;

    start(pool, client);
    s = open_session((struct wire_memory){ .compressor = WIRE_FULL });
    assert_int_equal(append(s, others * PAGE)->kind, WIRE_APPENDED);
    s = open_as(WIRE_BACKGROUND, (struct wire_memory){ .compressor = WIRE_SELECT_REREAD });
    assert_int_equal(append(s, SEGMENT - 4)->kind, WIRE_APPENDED);
    is_error(generate(s, 20), code, text, others + SEGMENT / PAGE, SEGMENT / PAGE, limit);
    stop();
}

static void test_side_pages(void **state)
{
    (void)state;
    side_pages(40, 6, 1, WIRE_E_LIMIT,
               "compressing a segment takes 4 more pages of 16 tokens; this client has 5 of the 6",
               6);
    side_pages(16, 0, 10, WIRE_E_POOL_FULL,
               "compressing a segment takes 4 more pages of 16 tokens; 2 of the pool's 16 are free",
               16);
}

/* --- the session's budget --------------------------------------------------------------------- */

static void test_budget(void **state)
{
    struct wire_memory m = { .compressor = WIRE_SELECT,
                             .has_budget = true,
                             .budget = 160,
                             .has_ratio = true,
                             .ratio = 2,
                             .fixed = true,
                             .has_sinks = true };
    struct wire_rep rep;
    uint64_t s;

    (void)state;
    start(40, 0);
    /* A context that stays whole has its budget for a limit. */
    s = open_session((struct wire_memory){ .has_budget = true, .budget = 100 });
    assert_int_equal(append(s, 90)->kind, WIRE_APPENDED);
    is_error(append(s, 11), WIRE_E_CONTEXT_LENGTH_EXCEEDED, "limit is 100", 90, 11, 100);
    /* One that is compressed: three segments at 32 keys each, and up to 64 raw ones. */
    s = open_session(m);
    assert_int_equal(append(s, 3 * SEGMENT + 1)->kind, WIRE_APPENDED);
    is_error(append(s, 2 * SEGMENT), WIRE_E_CONTEXT_LENGTH_EXCEEDED, "the session's budget is 160",
             97, 95, 160);
    /* An answer ends there; it is no error, and not the pool. */
    rep = *generate(s, 500);
    assert_int_equal(rep.kind, WIRE_DONE);
    assert_int_equal(rep.u.done.reason, WIRE_REASON_CONTEXT_FULL);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_append_and_pool),
        cmocka_unit_test(test_pool_of_others),
        cmocka_unit_test(test_append_and_client),
        cmocka_unit_test(test_fork_and_client),
        cmocka_unit_test(test_score_and_client),
        cmocka_unit_test(test_budget_of_nothing),
        cmocka_unit_test(test_strings_are_utf8),
        cmocka_unit_test(test_side_pages),
        cmocka_unit_test(test_budget),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
