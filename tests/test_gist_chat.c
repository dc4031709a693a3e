/* Would catch: messages that are appended without waiting and lose their roles, their texts or an
 * end of one when the caller's memory is gone before they were sent; too many of them that are sent
 * all the same. The daemon is a scripted one; see fake_daemon.h. */
#include "client/gist.h"
#include "tests/support/fake_daemon.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LONG_LEN (1024u * 1024) /* four arenas */

static void script_chat(struct fake_daemon *d, void *arg)
{
    size_t at = 0;

    (void)arg;
    fake_expect(d, WIRE_OPEN_SESSION);
    fake_last(d, (struct wire_rep){ .kind = WIRE_SESSION_OPENED,
                                    .u.session_opened = { .session = 7, .context_max = 512 } });
    for (bool more = true; more;) {
        fake_expect(d, WIRE_APPEND);
        more = d->req.u.append.more;
        FAKE_CHECK(d->req.u.append.kind == WIRE_APPEND_CHAT && d->req.u.append.open_answer);
        FAKE_CHECK(d->req.u.append.n_messages == 2);
        FAKE_CHECK(strcmp(d->req.u.append.messages[0].role, "system") == 0);
        FAKE_CHECK(strcmp(d->req.u.append.messages[1].role, "user") == 0);
        FAKE_CHECK(d->req.u.append.messages[0].text_len == LONG_LEN);
        FAKE_CHECK(d->req.u.append.messages[1].text_len == 3);
        for (size_t i = 0; i < d->req.bulk_len; i++, at++)
            FAKE_CHECK(d->bulk[i] ==
                       (at < LONG_LEN ? 'a' + at % 26 : (size_t) "Why"[at - LONG_LEN]));
        fake_last(d, (struct wire_rep){ .kind = WIRE_APPENDED,
                                        .u.appended = { 5, { .computed_tokens = 5 } } });
    }
    FAKE_CHECK(at == LONG_LEN + 3);
    fake_drain(d);
}

static void on_done(void *arg, int err, const struct gist_result *result)
{
    int *done = arg;

    assert_int_equal(err, 0);
    assert_int_equal(result->usage.computed_tokens, 5);
    ++*done;
}

static void test_long_chat_without_waiting(void **state)
{
    char *text = malloc(LONG_LEN + 1), roles[2][8] = { "system", "user" }, why[] = "Why";
    struct gist_message *msgs = calloc(2000, sizeof(*msgs));
    struct fake_daemon fake;
    gist_session *s = NULL;
    gist_conn *conn;
    int done = 0;

    (void)state;
    for (size_t i = 0; i < LONG_LEN; i++)
        text[i] = (char)('a' + i % 26);
    text[LONG_LEN] = '\0';
    msgs[0] = (struct gist_message){ roles[0], text };
    msgs[1] = (struct gist_message){ roles[1], why };
    fake_start(&fake, script_chat, NULL);
    assert_int_equal(gist_connect(fake.path, "test", &conn), 0);
    assert_int_equal(gist_open(conn, NULL, &s), 0);
    assert_int_equal(gist_append_chat_start(s, msgs, 2, 4, on_done, &done, NULL), -EINVAL);
    for (size_t i = 2; i < 2000; i++)
        msgs[i] = msgs[1];
    assert_int_equal(gist_append_chat_start(s, msgs, 2000, 0, on_done, &done, NULL), -EMSGSIZE);
    assert_int_equal(gist_append_chat_start(s, msgs, 2, GIST_OPEN_ANSWER, on_done, &done, NULL), 0);
    memset(text, 0, LONG_LEN);
    memset(roles, 'x', sizeof(roles));
    memset(why, 'x', sizeof(why));
    free(text);
    free(msgs);
    while (!done) {
        struct pollfd p = { gist_fd(conn), POLLIN, 0 };

        assert_int_equal(poll(&p, 1, FAKE_PATIENCE_MS), 1);
        assert_true(gist_dispatch(conn) >= 0);
    }
    assert_int_equal(done, 1);
    gist_disconnect(conn);
    assert_int_equal(fake_stop(&fake), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_long_chat_without_waiting) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
