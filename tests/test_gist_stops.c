/* tests/test_gist_stops.c - which stop string ended an answer, as libgist tells it. Would catch: a
 * number that does not arrive, or is another answer's; one for an answer that none ended; one that
 * leads behind the end of what the program gave.
 */
#include "client/gist.h"
#include "tests/support/fake_daemon.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const char *const stops[] = { "one", "two", "three" };
static const struct gist_sampling sampling = { .size = sizeof(sampling),
                                               .stop = stops,
                                               .n_stop = 3 };

/* What the daemon says of its answers, the last one's to the request itself. */
struct said {
    uint32_t n;
    struct {
        enum wire_reason reason;
        uint32_t stop;
    } of[4];
};

static struct fake_daemon fake;
static gist_conn *conn;
static gist_session *session;

static void script(struct fake_daemon *d, void *arg)
{
    const struct said *said = arg;

    fake_expect(d, WIRE_OPEN_SESSION);
    fake_last(d, (struct wire_rep){ .kind = WIRE_SESSION_OPENED, .u.session_opened.session = 77 });
    fake_expect(d, WIRE_GENERATE);
    for (uint32_t i = 0; i < said->n; i++) {
        struct wire_rep rep = { .kind = WIRE_DONE };

        rep.u.done.reason = said->of[i].reason;
        rep.u.done.stop = said->of[i].stop;
        rep.u.done.index = i;
        if (i + 1 < said->n)
            fake_reply(d, rep, NULL, 0);
        else
            fake_last(d, rep);
    }
    fake_drain(d);
}

static void begin(struct said *said)
{
    fake_start(&fake, script, said);
    assert_int_equal(gist_connect(fake.path, "test", &conn), 0);
    assert_int_equal(gist_open(conn, NULL, &session), 0);
}

static void end(void)
{
    gist_disconnect(conn);
    assert_int_equal(fake_stop(&fake), 0);
}

static void test_one(void **state)
{
    static const struct {
        enum wire_reason reason;
        uint32_t said, told;
    } all[] = { { WIRE_REASON_STOP, 1, 1 },
                { WIRE_REASON_STOP, 3, 3 },
                { WIRE_REASON_STOP, 0, 0 }, /* an older daemon */
                { WIRE_REASON_LENGTH, 2, 0 },
                { WIRE_REASON_END_OF_TEXT, 1, 0 } };

    (void)state;
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        struct said said = { 1, { { all[i].reason, all[i].said } } };
        struct gist_result result;

        memset(&result, 0xff, sizeof(result));
        begin(&said);
        assert_int_equal(gist_generate(session, &sampling, NULL, NULL, &result), 0);
        assert_int_equal(result.stop, all[i].told);
        end();
    }
}

/* The request's own Done is behind those of its answers, and of none of them. */
static void test_several(void **state)
{
    struct said said = { 4,
                         { { WIRE_REASON_STOP, 3 },
                           { WIRE_REASON_LENGTH, 0 },
                           { WIRE_REASON_STOP, 1 },
                           { WIRE_REASON_END_OF_TEXT, 0 } } };
    struct gist_result results[3];

    (void)state;
    begin(&said);
    assert_int_equal(gist_generate_several(session, &sampling, 3, NULL, NULL, results), 0);
    assert_int_equal(results[0].stop, 3);
    assert_int_equal(results[1].stop, 0);
    assert_int_equal(results[2].stop, 1);
    end();
}

/* It would be looked up among three. */
static void test_one_that_was_not_given(void **state)
{
    struct said said = { 1, { { WIRE_REASON_STOP, 4 } } };

    (void)state;
    begin(&said);
    assert_int_equal(gist_generate(session, &sampling, NULL, NULL, NULL), -EPROTO);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one),
        cmocka_unit_test(test_several),
        cmocka_unit_test(test_one_that_was_not_given),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
