/* tests/test_gist_flood.c - a daemon whose replies come faster than they are read. Would catch: a
 * gist_dispatch that never comes back, so that nothing else of the program's loop has its turn; a
 * cancel of a call that waits, which is heard when the answer is over.
 *
 * The callback makes it so: it comes back only when the next reply is there.
 */
#include "client/gist.h"
#include "tests/support/fake_daemon.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

/* More than any ring holds: who hears so many has not come back. */
#define TOO_MANY 20000u

static struct fake_daemon fake;
static gist_conn *conn;
static atomic_uint *n_said; /* by the daemon, which is another process */

/* Says one thing after the other until it is told to stop. */
static void script(struct fake_daemon *d, void *arg)
{
    uint64_t id;

    (void)arg;
    fake_expect(d, WIRE_OPEN_SESSION);
    fake_last(d, (struct wire_rep){ .kind = WIRE_SESSION_OPENED, .u.session_opened.session = 1 });
    fake_expect(d, WIRE_GENERATE);
    id = d->req.id;
    fake_release(d);
    for (unsigned n = 1; !chan_readable(d->chan); n++) {
        fake_text(d, id, "word ");
        atomic_store(n_said, n);
    }
    atomic_store(n_said, UINT_MAX);
    fake_expect(d, WIRE_CANCEL);
    fake_last(d, (struct wire_rep){ .kind = WIRE_CANCELLED, .u.cancelled.found = true });
    fake_last(d, (struct wire_rep){ .id = id,
                                    .kind = WIRE_ERROR,
                                    .u.error = { .code = WIRE_E_CANCELLED, .text = "stopped" } });
    fake_drain(d);
}

static gist_session *begin(void)
{
    gist_session *s;

    (void)alarm(120);
    n_said = mmap(NULL, sizeof(*n_said), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(n_said != MAP_FAILED);
    fake_start(&fake, script, NULL);
    assert_int_equal(gist_connect(fake.path, "test", &conn), 0);
    assert_int_equal(gist_open(conn, NULL, &s), 0);
    return s;
}

static void end(void)
{
    gist_disconnect(conn);
    assert_int_equal(fake_stop(&fake), 0);
    assert_int_equal(munmap(n_said, sizeof(*n_said)), 0);
    (void)alarm(0);
}

struct heard {
    unsigned n;
    bool cancels;
};

static int on_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    struct heard *h = arg;

    (void)text;
    (void)len;
    (void)ids;
    (void)n_ids;
    if (h->n == 0 && h->cancels)
        gist_cancel_async(conn);
    if (++h->n > TOO_MANY)
        return 1;
    while (atomic_load(n_said) <= h->n)
        (void)sched_yield();
    return 0;
}

static void hears_a_cancel(void **state)
{
    struct heard h = { .cancels = true };
    gist_session *s = begin();

    (void)state;
    assert_int_equal(gist_generate(s, NULL, on_text, &h, NULL), -ECANCELED);
    assert_in_range(h.n, 1, TOO_MANY);
    end();
}

struct ended {
    bool done;
    int result;
};

/* Of a request whose callbacks share one arg. */
struct both {
    struct heard heard;
    struct ended ended;
};

static void on_done(void *arg, int err, const struct gist_result *result)
{
    struct both *b = arg;

    (void)result;
    b->ended = (struct ended){ true, err };
}

static void comes_back(void **state)
{
    struct both b = { .heard = { .n = 0 } };
    gist_session *s = begin();
    uint64_t request;

    (void)state;
    assert_true(gist_fd(conn) >= 0);
    assert_int_equal(gist_generate_start(s, NULL, on_text, on_done, &b, &request), 0);
    while (b.heard.n == 0) {
        assert_int_equal(poll(&(struct pollfd){ gist_fd(conn), POLLIN, 0 }, 1, FAKE_PATIENCE_MS),
                         1);
        assert_true(gist_dispatch(conn) >= 0);
    }
    assert_in_range(b.heard.n, 1, TOO_MANY);
    /* What it left is no less there for that. */
    assert_int_equal(poll(&(struct pollfd){ gist_fd(conn), POLLIN, 0 }, 1, FAKE_PATIENCE_MS), 1);
    assert_int_equal(gist_cancel(conn, request), 0);
    while (!b.ended.done) {
        assert_int_equal(poll(&(struct pollfd){ gist_fd(conn), POLLIN, 0 }, 1, FAKE_PATIENCE_MS),
                         1);
        assert_true(gist_dispatch(conn) >= 0);
    }
    assert_int_equal(b.ended.result, -ECANCELED);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(hears_a_cancel),
                                        cmocka_unit_test(comes_back) };

    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
