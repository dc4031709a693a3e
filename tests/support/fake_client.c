#include "tests/support/fake_client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

struct fake_daemon fake_peer;
gist_conn *fake_conn;

void fake_begin(fake_script *script, void *arg)
{
    fake_start(&fake_peer, script, arg);
    assert_int_equal(gist_connect(fake_peer.path, "test", &fake_conn), 0);
}

void fake_end(void)
{
    gist_disconnect(fake_conn);
    fake_conn = NULL;
    assert_int_equal(fake_stop(&fake_peer), 0);
}

gist_session *fake_open(void)
{
    gist_session *s = NULL;

    assert_int_equal(gist_open(fake_conn, NULL, &s), 0);
    return s;
}

int fake_on_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    struct fake_heard *h = arg;

    if (h->len + len < sizeof(h->text))
        memcpy(h->text + h->len, text, len);
    h->len += len;
    h->n_ids += n_ids;
    assert_int_equal(ids[0], 1);
    return ++h->n_calls == h->stop_at;
}

void fake_on_done(void *arg, int err, const struct gist_result *result)
{
    struct fake_heard *h = arg;

    h->done++;
    h->err = err;
    assert_true(err < 0 || result); /* what was cut has both */
}

void fake_answer(struct fake_daemon *d)
{
    switch (d->req.kind) {
    case WIRE_OPEN_SESSION:
        fake_last(d,
                  (struct wire_rep){ .kind = WIRE_SESSION_OPENED,
                                     .u.session_opened = { .session = 77, .context_max = 512 } });
        break;
    case WIRE_APPEND:
        fake_last(d, (struct wire_rep){ .kind = WIRE_APPENDED,
                                        .u.appended = { 5, { .computed_tokens = 5 } } });
        break;
    case WIRE_GENERATE:
        fake_text(d, 0, "Hello");
        fake_text(d, 0, ", world");
        fake_done(d, 0, WIRE_REASON_STOP);
        break;
    case WIRE_CANCEL:
        fake_last(d, (struct wire_rep){ .kind = WIRE_CANCELLED });
        break;
    case WIRE_CLOSE_SESSION:
        fake_last(d, (struct wire_rep){ .kind = WIRE_SESSION_CLOSED });
        break;
    case WIRE_PING:
        fake_last(d, (struct wire_rep){ .kind = WIRE_PONG });
        break;
    default:
        fake_error(d, WIRE_E_UNSUPPORTED, "not in this script");
    }
}

void fake_plain(struct fake_daemon *d, void *arg)
{
    (void)arg;
    while (fake_take(d))
        fake_answer(d);
}
