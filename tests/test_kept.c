/* tests/test_kept.c - kept sessions in a scheduler in this process, turn by turn. Would catch: a
 * message that nobody gives back when its request fails, or when the daemon ends; a request that
 * has memory of a session when that is gone; texts without a pause that keep others from it; lanes
 * that outlive the session whose pages they have.
 */

#include "base/clock.h"
#include "daemon/kept.h"
#include "daemon/lanes.h"
#include "daemon/pace.h"
#include "daemon/sched.h"
#include "tests/support/alone.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct chan *chan;

/* Its message is in hand, and there is no time for the first piece. */
static struct request *begin_long_text(struct alone *a)
{
    static char text[200000];
    const struct wire_req m = { .id = 9, .kind = WIRE_SCORE, .bulk_len = sizeof(text) };
    struct sched *s = a->sched;
    struct client *c = TAILQ_FIRST(&s->clients);

    alone_send(a, chan, &m, text);
    s->pace.frames_ns = -INT64_MAX / 4;
    s->pace.frames_at = clock_ns();
    (void)sched_attend(s);
    assert_non_null(c->receiving);
    return c->receiving;
}

/* A connection with a session that is kept; its number. */
static uint64_t begin_with(struct alone *a)
{
    struct wire_req m = { .id = 2, .kind = WIRE_OPEN_SESSION, .u.open_session.label = "" };
    struct wire_rep rep;
    uint64_t session;

    alone_begin(a);
    chan = alone_hello(a, 1);
    assert_int_equal(alone_ask(a, chan, &m, NULL, &rep), WIRE_SESSION_OPENED);
    session = rep.u.session_opened.session;
    m = (struct wire_req){ .id = 3, .kind = WIRE_KEEP, .u.keep.session = session };
    assert_int_equal(alone_ask(a, chan, &m, NULL, &rep), WIRE_KEPT);
    return session;
}

static uint64_t begin(struct alone *a)
{
    alone_open(a, "none", 1);
    return begin_with(a);
}

static void end(struct alone *a)
{
    alone_end(a);
    chan_close(chan);
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
    r = begin_long_text(&a);
    request_fail(a.sched, r, WIRE_E_INTERNAL, REQUEST_NO_NUMBERS, "lost");
    request_deliver(a.sched, r);
    assert_int_equal(alone_reply(&a, chan, &rep), WIRE_ERROR);
    pace_idle(&a.sched->pace);
    assert_int_equal(alone_ask(&a, chan, &ping, NULL, &rep), WIRE_PONG);
    (void)begin_long_text(&a);
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
        alone_send(&a, chan, &m, NULL);
        while (!sched_attend(a.sched))
            ;
    }
    m = (struct wire_req){ .id = 4, .kind = WIRE_APPEND, .bulk_len = sizeof(text) };
    m.u.append.session = session;
    alone_send(&a, chan, &m, text);
    m = (struct wire_req){ .id = 5, .kind = WIRE_CLOSE_SESSION };
    m.u.close_session.session = session;
    alone_send(&a, chan, &m, NULL);
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

/* The next text is in hand, some of it: this look had no time for the rest. */
static void send_without_a_pause(struct alone *a, uint64_t session, uint64_t id)
{
    static char ids[70001]; /* two pieces, and no whole ids: the session is free again at once */
    struct wire_req m = { .id = id, .kind = WIRE_APPEND, .bulk_len = sizeof(ids) };
    struct client *c = TAILQ_FIRST(&a->sched->clients);

    m.u.append.session = session;
    m.u.append.kind = WIRE_APPEND_TOKENS;
    while (c->receiving) {
        pace_idle(&a->sched->pace);
        (void)sched_attend(a->sched);
    }
    alone_send(a, chan, &m, ids);
    while (chan_readable(c->chan) && !c->receiving) {
        a->sched->pace.frames_ns = 1;
        a->sched->pace.frames_at = clock_ns();
        (void)sched_attend(a->sched);
    }
    a->sched->pace.frames_ns = -INT64_MAX / 4;
    a->sched->pace.frames_at = clock_ns();
}

/* Who sends one text behind the other to a session, so that one is always on its way, has it until
 * somebody else attaches to it, and not for ever. */
static void test_attach_ends_a_stream(void **state)
{
    struct wire_req m = { .id = 1, .kind = WIRE_HELLO, .u.hello.client = "another" };
    struct chan *mine, *others;
    struct wire_rep rep;
    const struct kept *k;
    struct alone a;
    uint64_t session;

    (void)state;
    session = begin(&a);
    mine = chan;
    others = alone_adopt(&a, 2, NULL);
    assert_int_equal(alone_ask(&a, others, &m, NULL, &rep), WIRE_WELCOME);
    k = TAILQ_FIRST(&TAILQ_FIRST(&a.sched->clients)->keeps);
    send_without_a_pause(&a, session, 100);
    m = (struct wire_req){ .id = 2, .kind = WIRE_ATTACH };
    m.u.attach.token = k->token;
    m.u.attach.n = WIRE_TOKEN_BYTES;
    alone_send(&a, others, &m, NULL);
    for (uint64_t i = 101; k->at == TAILQ_FIRST(&a.sched->clients); i++) {
        assert_in_range(i, 101, 110);
        (void)sched_turn(a.sched);
        if (k->at == TAILQ_FIRST(&a.sched->clients))
            send_without_a_pause(&a, session, i);
    }
    assert_int_equal(alone_reply(&a, others, &rep), WIRE_ATTACHED);
    assert_int_equal(k->at->id, 2);
    assert_null(k->claim);
    chan = mine;
    chan_close(others);
    end(&a);
}

/* Lanes of a request that has ended, which go in the next step. */
static uint32_t n_left_behind(const struct sched *s)
{
    const struct request *r;
    uint32_t n = 0;

    TAILQ_FOREACH (r, &s->active, link)
        n += r->lane && !r->lane->of && r->lane->session->client->kept;
    return n;
}

/* A kept session is closed while continuations of it are scored, of which not all have a part in
 * every step: those are left behind when the request ends, stand on forks of the session, and are
 * gone before the one that their pages are charged to. */
static void test_closes_and_leaves_lanes(void **state)
{
    enum { N = 32, LEN = 48 };
    static uint32_t ids[N * LEN];
    uint64_t lens[N];
    struct wire_req m = { .id = 10, .kind = WIRE_APPEND, .bulk_len = 20 * sizeof(*ids) };
    struct wire_rep rep;
    struct alone a;
    uint64_t session;

    (void)state;
    alone_open(&a, "none", 1);
    a.config.batch_tokens = 16;
    session = begin_with(&a);
    for (uint32_t i = 0; i < N * LEN; i++)
        ids[i] = 40 + i * 7 % 80;
    for (uint32_t i = 0; i < N; i++)
        lens[i] = LEN * sizeof(*ids);
    m.u.append.session = session;
    m.u.append.kind = WIRE_APPEND_TOKENS;
    assert_int_equal(alone_ask(&a, chan, &m, ids, &rep), WIRE_APPENDED);
    m = (struct wire_req){ .id = 11, .kind = WIRE_SCORE_CHOICES, .bulk_len = sizeof(ids) };
    m.u.score_choices.session = session;
    m.u.score_choices.kind = WIRE_SCORE_TOKENS;
    m.u.score_choices.lens = lens;
    m.u.score_choices.n = N;
    alone_send(&a, chan, &m, ids);
    /* Those that had no part in the last step stand before the request itself. */
    while (TAILQ_EMPTY(&a.sched->active) || !TAILQ_FIRST(&a.sched->active)->lane)
        assert_true(sched_turn(a.sched));
    m = (struct wire_req){ .id = 12, .kind = WIRE_CLOSE_SESSION };
    m.u.close_session.session = session;
    alone_send(&a, chan, &m, NULL);
    while (n_left_behind(a.sched) == 0) {
        assert_int_equal(a.sched->n_kept, 1); /* else none were */
        assert_true(sched_turn(a.sched));
    }
    assert_true(sched_turn(a.sched));
    assert_int_equal(a.sched->n_kept, 0);
    assert_int_equal(n_left_behind(a.sched), 0);
    end(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fails_while_it_receives),
        cmocka_unit_test(test_closes_and_reads_nothing),
        cmocka_unit_test(test_attach_ends_a_stream),
        cmocka_unit_test(test_closes_and_leaves_lanes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
