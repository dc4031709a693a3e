/* tests/test_kept.c - kept sessions in a scheduler in this process, turn by turn. Would catch: a
 * message that nobody gives back when its request fails, or when the daemon ends; a request that
 * has memory of a session when that is gone.
 */

#include "base/clock.h"
#include "daemon/kept.h"
#include "daemon/pace.h"
#include "daemon/sched.h"
#include "tests/support/alone.h"
#include "tests/support/raw_client.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct chan *chan;
static struct wire_scratch scratch;

static void send_req(const struct wire_req *m, const void *bulk)
{
    assert_int_equal(raw_client_put(chan, &scratch, m, bulk), 0);
}

static void expect_letter(struct mailbox *m, enum mailbox_kind kind)
{
    struct mailbox_letter l;

    do
        assert_true(mailbox_take(m, &l));
    while (l.kind != kind);
}

/* A reply that is there, or comes by turns of the scheduler. */
static enum wire_rep_kind reply(struct sched *s, struct wire_rep *ret)
{
    struct chan_msg msg;
    int r;

    while ((r = chan_recv(chan, &msg)) == -EAGAIN)
        assert_true(sched_turn(s));
    assert_int_equal(r, 0);
    assert_int_equal(wire_rep_unpack(&scratch, msg.frame, msg.frame_len, ret), 0);
    chan_release(chan);
    return ret->kind;
}

static enum wire_rep_kind ask(struct sched *s, const struct wire_req *m, struct wire_rep *ret)
{
    send_req(m, NULL);
    (void)reply(s, ret);
    assert_int_equal(ret->id, m->id);
    return ret->kind;
}

/* Its message is in hand, and there is no time for the first piece. */
static struct request *begin_long_text(struct sched *s)
{
    static char text[200000];
    const struct wire_req m = { .id = 9, .kind = WIRE_SCORE, .bulk_len = sizeof(text) };
    struct client *c = TAILQ_FIRST(&s->clients);

    send_req(&m, text);
    s->pace.frames_ns = -INT64_MAX / 4;
    s->pace.frames_at = clock_ns();
    (void)sched_attend(s);
    assert_non_null(c->receiving);
    return c->receiving;
}

/* A connection with a session that is kept; its number. */
static uint64_t begin(struct alone *a)
{
    struct wire_req m = { .id = 1, .kind = WIRE_HELLO, .u.hello.client = "by hand" };
    struct wire_rep rep;
    uint64_t session;

    assert_int_equal(wire_scratch_open(&scratch, WIRE_SCRATCH_BYTES), 0);
    alone_open(a, "none", 1);
    assert_true(sched_open(a->sched));
    expect_letter(&a->from, MAILBOX_READY);
    chan = alone_adopt(a, 1, NULL);
    assert_int_equal(ask(a->sched, &m, &rep), WIRE_WELCOME);
    m = (struct wire_req){ .id = 2, .kind = WIRE_OPEN_SESSION, .u.open_session.label = "" };
    assert_int_equal(ask(a->sched, &m, &rep), WIRE_SESSION_OPENED);
    session = rep.u.session_opened.session;
    m = (struct wire_req){ .id = 3, .kind = WIRE_KEEP, .u.keep.session = session };
    assert_int_equal(ask(a->sched, &m, &rep), WIRE_KEPT);
    return session;
}

static void end(struct alone *a)
{
    sched_close(a->sched);
    expect_letter(&a->from, MAILBOX_STOPPED);
    alone_close(a);
    chan_close(chan);
    wire_scratch_close(&scratch);
}

/* A request that fails while its text comes in, as when a device is lost, gives the message back:
 * the next one is heard. When the daemon ends, too, by a client with a session that is kept. */
static void test_fails_while_it_receives(void **state)
{
    const struct wire_req ping = { .id = 4, .kind = WIRE_PING };
    struct request *r;
    struct wire_rep rep;
    struct alone a;

    (void)state;
    (void)begin(&a);
    r = begin_long_text(a.sched);
    request_fail(a.sched, r, WIRE_E_INTERNAL, REQUEST_NO_NUMBERS, "lost");
    request_deliver(a.sched, r);
    assert_int_equal(reply(a.sched, &rep), WIRE_ERROR);
    pace_idle(&a.sched->pace);
    assert_int_equal(ask(a.sched, &ping, &rep), WIRE_PONG);
    (void)begin_long_text(a.sched);
    end(&a);
}

/* Who reads no replies closes a kept session while his text is encoded: the request that could not
 * say its end has nothing any more that was the session's. */
static void test_closes_and_reads_nothing(void **state)
{
    static char text[60000];
    struct wire_req m = { .kind = WIRE_PING };
    const struct kept *k;
    struct alone a;
    uint64_t session;

    (void)state;
    session = begin(&a);
    memset(text, 'x', sizeof(text));
    for (m.id = 10; m.id < 10 + ALONE_SLOTS; m.id++) {
        send_req(&m, NULL);
        while (!sched_attend(a.sched))
            ;
    }
    m = (struct wire_req){ .id = 4, .kind = WIRE_APPEND, .bulk_len = sizeof(text) };
    m.u.append.session = session;
    send_req(&m, text);
    m = (struct wire_req){ .id = 5, .kind = WIRE_CLOSE_SESSION };
    m.u.close_session.session = session;
    send_req(&m, NULL);
    k = TAILQ_FIRST(&TAILQ_FIRST(&a.sched->clients)->keeps);
    while (!kept_session(k)->closing) {
        pace_idle(&a.sched->pace);
        (void)sched_attend(a.sched);
    }
    assert_int_equal(a.sched->n_kept, 1);
    assert_true(sched_turn(a.sched)); /* the text is given up, the session is closed, */
    assert_true(sched_turn(a.sched)); /* and goes */
    assert_int_equal(a.sched->n_kept, 0);
    end(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fails_while_it_receives),
        cmocka_unit_test(test_closes_and_reads_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
