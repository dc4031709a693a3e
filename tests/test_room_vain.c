/* tests/test_room_vain.c - requests that would wait for pages in vain, or for what may last for
 * ever, in a scheduler in this process, turn by turn. Would catch: one that is told only when
 * another user's answer has ended; one that gives its pages away and waits for a reader who does
 * not read; a refusal whose numbers say that there was enough.
 */

#include "ipc/handshake.h"
#include "tests/support/alone.h"
#include "tests/support/room_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static uint64_t start_fork(uint64_t session)
{
    struct wire_req m = { .id = ++room.last_id, .kind = WIRE_FORK, .u.fork.label = "" };

    m.u.fork.session = session;
    alone_send(&room.a, room.chan, &m, NULL);
    return m.id;
}

static uint64_t start_answers(uint64_t session, uint32_t n, uint32_t n_tokens)
{
    struct wire_req m = { .id = ++room.last_id, .kind = WIRE_GENERATE };

    m.u.generate.session = session;
    m.u.generate.max_tokens = n_tokens;
    m.u.generate.ignore_eog = true;
    m.u.generate.n = n;
    alone_send(&room.a, room.chan, &m, NULL);
    return m.id;
}

/* A fork that can never be had: 21 + 21 of 40 entries. */
static void hopeless_fork(void **state)
{
    struct room_said said[2] = { { 0 } };
    uint64_t session, other;

    (void)state;
    room_rig_start_two();
    session = room_rig_open(WIRE_BACKGROUND);
    assert_int_equal(room_rig_read(session, 21 * ROOM_PAGE - 1), WIRE_APPENDED);
    other = room_rig_other(2);
    room_rig_swap();
    said[1].id = room_rig_answer(other, 250);
    room_rig_swap();
    while (said[1].n == 0)
        room_rig_turn(said, 2);
    said[0].id = start_fork(session);
    while (!said[0].over)
        room_rig_turn(said, 2);
    assert_int_equal(said[0].code, WIRE_E_POOL_FULL);
    assert_false(said[1].over);
    room_rig_over(said, 2);
    room_rig_stop_two();
}

static struct chan *stranger(uint64_t client)
{
    struct chan_geometry g = { ALONE_SLOTS, CHAN_ARENA_MIN, CHAN_ARENA_MIN };
    struct mailbox_letter l = {
        .kind = MAILBOX_ADOPT, .client = client, .pid = getpid(), .uid = 4242
    };
    struct wire_req m = { .id = 1, .kind = WIRE_HELLO, .u.hello.client = "stranger" };
    struct wire_rep rep;
    struct chan_fds fds;
    struct chan *ours;

    assert_int_equal(chan_create(&g, &l.chan), 0);
    fds = chan_fds(l.chan);
    fds = (struct chan_fds){ dup(fds.memfd), dup(fds.to_server), dup(fds.to_client) };
    assert_int_equal(chan_attach(&g, fds, &ours), 0);
    mailbox_put(&room.a.to, &l);
    assert_int_equal(alone_ask(&room.a, ours, &m, NULL, &rep), WIRE_WELCOME);
    return ours;
}

/* Interactive answers of one prompt, a background answer of the same user, and another user who
 * writes. */
static void parts_behind_background(void **state)
{
    struct pool_owner none = { .limit = UINT32_MAX };
    struct pool_account taken = { .limit = UINT32_MAX, .owner = &none };
    struct room_said said[3] = { { 0 } };
    uint64_t v, b, p;
    uint32_t pages[ROOM_PAGES], n_taken;
    struct pool *pool;

    (void)state;
    room_rig_start("none");
    room.second = stranger(2);
    pool = &room.a.sched->served.pool;
    v = room_rig_other(1);
    assert_int_equal(seq_reserve(&room_rig_session(v)->seq, 220), 0);
    b = room_rig_open(WIRE_BACKGROUND);
    assert_int_equal(room_rig_read(b, 8 * ROOM_PAGE - 1), WIRE_APPENDED);
    p = room_rig_open(WIRE_INTERACTIVE);
    assert_int_equal(room_rig_read(p, 8), WIRE_APPENDED);
    n_taken = pool->n_free - 4;
    assert_int_equal(pool_take(pool, &taken, n_taken, pages), 0);
    room_rig_swap();
    said[2].id = room_rig_answer(v, 200);
    room_rig_swap();
    while (said[2].n == 0)
        room_rig_turn(said, 3);
    said[0].id = room_rig_answer(b, 100); /* has all that is left */
    while (!room_rig_paused(said[0].id) && !said[0].over)
        room_rig_turn(said, 3);
    assert_false(said[0].over);
    n_taken -= 3;
    pool_give(pool, &taken, 3, pages + n_taken);
    said[1].id = start_answers(p, 2, 60);
    while (!said[1].over)
        room_rig_turn(said, 3);
    assert_int_equal(said[1].kind, WIRE_DONE);
    assert_int_equal(said[1].reasons[0], WIRE_REASON_POOL_FULL);
    assert_false(said[2].over);
    room_rig_over(said, 3);
    pool_give(pool, &taken, n_taken, pages);
    room_rig_stop_two();
}

/* Turns of which only the second client hears. */
static void deaf_turn(struct room_said *x)
{
    struct chan_msg msg;

    assert_true(sched_turn(room.a.sched));
    while (chan_recv(room.second, &msg) == 0) {
        assert_int_equal(wire_rep_unpack(&room.a.scratch, msg.frame, msg.frame_len, &room.rep), 0);
        if (room.rep.id == x->id && room.rep.kind == WIRE_TEXT)
            x->n += room.rep.u.text.n_ids;
        if (room.rep.id == x->id && room.rep.kind == WIRE_DONE)
            x->reasons[0] = room.rep.u.done.reason;
        if (room.rep.id == x->id && room.rep.last) {
            x->over = true;
            x->kind = room.rep.kind;
        }
        chan_release(room.second);
    }
}

/* The first client has asked for answers, and reads none of it. */
static void parts_whose_reader_sleeps(void **state)
{
    struct pool_owner none = { .limit = UINT32_MAX };
    struct pool_account taken = { .limit = UINT32_MAX, .owner = &none };
    struct wire_req watch = { .id = 0, .kind = WIRE_WATCH, .u.watch.interval_ms = 100 };
    struct room_said said = { 0 }, parts = { 0 };
    uint32_t pages[ROOM_PAGES], n_taken;
    struct pool *pool;
    uint64_t one, p;

    (void)state;
    room_rig_start_two();
    pool = &room.a.sched->served.pool;
    one = room_rig_other(20);
    p = room_rig_open(WIRE_INTERACTIVE);
    assert_int_equal(room_rig_read(p, 8), WIRE_APPENDED);
    room_rig_swap();
    watch.id = ++room.last_id;
    alone_send(&room.a, room.chan, &watch, NULL); /* so that it goes on turning */
    room_rig_swap();
    parts.id = start_answers(p, 2, 120);
    for (int i = 0; i < 140; i++)
        deaf_turn(&said);
    n_taken = pool->n_free;
    assert_int_equal(pool_take(pool, &taken, n_taken, pages), 0);
    room_rig_swap();
    said.id = room_rig_answer(one, 40);
    room_rig_swap();
    for (int i = 0; i < 60 && !said.over; i++)
        deaf_turn(&said);
    assert_true(said.over);
    assert_int_equal(said.kind, WIRE_DONE);
    assert_int_equal(said.reasons[0], WIRE_REASON_POOL_FULL);
    assert_int_equal(room.a.sched->totals.gave_way, 0);
    room_rig_over(&parts, 1);
    pool_give(pool, &taken, n_taken, pages);
    room_rig_stop_two();
}

static void choices_short_of_entries(void **state)
{
    struct wire_req m = { .id = 0, .kind = WIRE_SCORE_CHOICES };
    uint64_t lens[2] = { 48 * 4, 48 * 4 }, session;
    uint32_t ids[96];

    (void)state;
    for (int i = 0; i < 96; i++)
        ids[i] = 40 + i % 80;
    room_rig_start_two();
    session = room_rig_open(WIRE_INTERACTIVE);
    assert_int_equal(room_rig_read(session, 8 * ROOM_PAGE - 1), WIRE_APPENDED);
    session = room_rig_open(WIRE_BACKGROUND);
    assert_int_equal(room_rig_read(session, 15 * ROOM_PAGE - 1), WIRE_APPENDED);
    m.id = ++room.last_id;
    m.u.score_choices.session = session;
    m.u.score_choices.kind = WIRE_SCORE_TOKENS;
    m.u.score_choices.lens = lens;
    m.u.score_choices.n = 2;
    m.bulk_len = sizeof(ids);
    alone_send(&room.a, room.chan, &m, ids);
    assert_int_equal(room_rig_wait(m.id), WIRE_ERROR);
    assert_non_null(strstr(room.rep.u.error.text, "takes 18 more pages of 16 tokens; 17 of"));
    room_rig_stop_two();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hopeless_fork),
        cmocka_unit_test(parts_behind_background),
        cmocka_unit_test(parts_whose_reader_sleeps),
        cmocka_unit_test(choices_short_of_entries),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
