/* tests/test_room_parts.c - several answers of one prompt, and scored choices, when pages are
 * short, in a scheduler in this process, turn by turn. Would catch: one that fails for want of
 * pages that another request of its user is about to give back; two that wait for each other; a
 * scheduler that sleeps while all wait; an answer that ends beside parts which will give it enough;
 * one that waits and is not heard when it is cancelled, its deadline passes, or its client goes.
 */

#include "daemon/generate.h"
#include "daemon/lanes.h"
#include "daemon/room.h"
#include "tests/support/alone.h"
#include "tests/support/room_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include <cmocka.h>

int __real_epoll_wait(int fd, struct epoll_event *ev, int n, int timeout);
int __wrap_epoll_wait(int fd, struct epoll_event *ev, int n, int timeout);

/* Nothing here is waited for that would ring, but for what is made up. */
int __wrap_epoll_wait(int fd, struct epoll_event *ev, int n, int timeout)
{
    if (room_rig_wakes(timeout))
        return 0;
    return __real_epoll_wait(fd, ev, n, timeout);
}

/* --- requests in parts ------------------------------------------------------------------------ */

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

/* Two continuations, of n ids each. */
static uint64_t start_choices(uint64_t session, uint32_t n)
{
    struct wire_req m = { .id = ++room.last_id, .kind = WIRE_SCORE_CHOICES };
    uint64_t lens[2] = { n * sizeof(uint32_t), n * sizeof(uint32_t) };
    uint32_t ids[2 * ROOM_SAID_MAX];

    for (uint32_t i = 0; i < 2 * n; i++)
        ids[i] = 40 + i % 80;
    m.u.score_choices.session = session;
    m.u.score_choices.kind = WIRE_SCORE_TOKENS;
    m.u.score_choices.lens = lens;
    m.u.score_choices.n = 2;
    m.bulk_len = 2 * n * sizeof(*ids);
    alone_send(&room.a, room.chan, &m, ids);
    return m.id;
}

/* Parts of this request that are paused. */
static uint32_t n_paused(uint64_t id)
{
    const struct request *r;
    uint32_t n = 0;

    TAILQ_FOREACH (r, &room.a.sched->active, link)
        n += r->id == id && r->lane && r->paused;
    return n;
}

/* --- who waits for whom ----------------------------------------------------------------------- */

/* Of any two, in any order, never both; and who does not wait in order not to close a circle has
 * somebody else who does. */
static void no_two_for_each_other(void **state)
{
    const struct request_ops *ops[] = { &request_generate, &request_append, &request_answers,
                                        &request_score_choices };
    uint64_t sessions[2];

    (void)state;
    room_rig_start_two();
    room_rig_fill(sessions, 1);
    for (int i = 0; i < 4 * 4 * 2; i++) {
        struct request a = { .ops = ops[i % 4] }, b = { .ops = ops[i / 4 % 4] };
        bool parts_a = i % 4 > 1, parts_b = i / 4 % 4 > 1, a_older = i < 16, first, then;

        a.times.number = a_older ? 1 : 2;
        b.times.number = a_older ? 2 : 1;
        room_rig_at_work(sessions[0], &a);
        room_rig_at_work(sessions[1], &b);
        first = room_waits(room.a.sched, &a, 1);
        then = room_waits(room.a.sched, &b, 1);
        if (first && then)
            fail_msg("%s and %s wait for each other", a.ops->name, b.ops->name);
        if (first != (parts_a ? !parts_b || !a_older : !parts_b))
            fail_msg("%s %s for %s, number %d", a.ops->name, first ? "waits" : "does not wait",
                     b.ops->name, a_older ? 2 : 1);
        if (!first && !then)
            assert_true(!parts_b && parts_a); /* it gives way instead */
        assert_int_equal(a.paused, first);
    }
    room_rig_done(sessions[0]);
    room_rig_done(sessions[1]);
    room_rig_stop_two();
}

/* --- parts wait ------------------------------------------------------------------------------- */

/* Two answers that want two pages each beside another session's four. The one that began first
 * waits for that session, the other one for the first. */
static void parts_wait(void **state)
{
    struct request work = { .ops = NULL };
    struct room_said said = { 0 };
    uint64_t other, session;

    (void)state;
    room_rig_start_two();
    other = room_rig_other(4);
    session = room_rig_open(WIRE_INTERACTIVE);
    assert_int_equal(room_rig_read(session, 8), WIRE_APPENDED);
    room_rig_at_work(other, &work);
    said.id = start_answers(session, 2, 290);
    while (n_paused(said.id) < 2)
        room_rig_turn(&said, 1);
    assert_int_equal(said.n_ends, 0);
    room_rig_done(other);
    room_rig_over(&said, 1);
    assert_int_equal(said.kind, WIRE_DONE);
    assert_int_equal(said.n_ends, 3);
    for (int i = 0; i < 2; i++)
        assert_int_equal(said.reasons[i], WIRE_REASON_LENGTH);
    assert_int_equal(said.generated, 2 * 290);
    room_rig_stop_two();
}

/* Nobody is there who would give any back: the first ends, and the other one has what that had. */
static void parts_end_one_by_one(void **state)
{
    struct room_said said = { 0 };

    (void)state;
    room_rig_start_two();
    (void)room_rig_other(4);
    said.id = room_rig_open(WIRE_INTERACTIVE);
    assert_int_equal(room_rig_read(said.id, 8), WIRE_APPENDED);
    said.id = start_answers(said.id, 2, 400);
    room_rig_over(&said, 1);
    assert_int_equal(said.n_ends, 3);
    assert_int_equal(said.reasons[0], WIRE_REASON_POOL_FULL);
    assert_int_equal(said.reasons[1], WIRE_REASON_LENGTH);
    room_rig_stop_two();
}

/* --- before the first part -------------------------------------------------------------------- */

/* Entries of the account, of which a fork takes as many as its session has; and pages. */
static void begins_later(bool answers)
{
    struct request work = { .ops = NULL };
    struct room_said said = { 0 };
    uint64_t other, session;

    room_rig_start_two();
    if (answers) {
        other = room_rig_open(WIRE_INTERACTIVE);
        assert_int_equal(room_rig_read(other, 20 * ROOM_PAGE - 1), WIRE_APPENDED);
    } else {
        other = room_rig_other(36);
    }
    session = room_rig_open(WIRE_INTERACTIVE);
    assert_int_equal(room_rig_read(session, (answers ? 15 : 2) * ROOM_PAGE - 1), WIRE_APPENDED);
    room_rig_at_work(other, &work);
    said.id = answers ? start_answers(session, 2, 20) : start_choices(session, 3 * ROOM_PAGE);
    while (!room_rig_paused(said.id))
        room_rig_turn(&said, 1);
    assert_false(said.over);
    room_rig_done(other);
    room_rig_over(&said, 1);
    assert_int_equal(said.kind, answers ? WIRE_DONE : WIRE_CHOSEN);
    assert_int_equal(said.n_ends, answers ? 3 : 0);
    for (uint32_t i = 0; i + 1 < said.n_ends; i++)
        assert_int_equal(said.reasons[i], WIRE_REASON_LENGTH);
    assert_int_equal(room_rig_pages(other), 0); /* it was idle, then */
    room_rig_stop_two();
}

static void begin_later(void **state)
{
    (void)state;
    begins_later(true);
    begins_later(false);
}

/* Those of the background wait for anybody who computes. Nobody does: they are told at once. */
static void background_alone_is_told(void **state)
{
    struct room_said said = { 0 };
    uint64_t session;

    (void)state;
    for (int i = 0; i < 2; i++) {
        room_rig_start_two();
        session = room_rig_open(WIRE_BACKGROUND);
        assert_int_equal(room_rig_read(session, 21 * ROOM_PAGE - 1), WIRE_APPENDED);
        said = (struct room_said){ 0 };
        said.id = i ? start_choices(session, 3 * ROOM_PAGE) : start_answers(session, 2, 20);
        room_rig_over(&said, 1);
        assert_int_equal(said.kind, WIRE_ERROR);
        assert_int_equal(said.code, WIRE_E_POOL_FULL);
        assert_int_equal(room_rig_pages(session), 21);
        room_rig_stop_two();
    }
}

/* --- a single one beside parts ---------------------------------------------------------------- */

/* It finds no page, and gives its own to the parts: when these have ended it says what it would
 * alone. */
static void single_gives_way(void **state)
{
    struct room_said alone = { 0 }, said[2] = { { 0 } };
    uint64_t session, one;
    struct wire_req m = { .kind = WIRE_REWIND };

    (void)state;
    room_rig_start_two();
    one = room_rig_other(20);
    room_rig_swap();
    alone.id = room_rig_answer(one, 3 * ROOM_PAGE);
    room_rig_over(&alone, 1);
    m.id = ++room.last_id;
    m.u.rewind.session = one;
    m.u.rewind.n_tokens = 20 * ROOM_PAGE - 1;
    assert_int_equal(alone_ask(&room.a, room.chan, &m, NULL, &room.rep), WIRE_REWOUND);
    room_rig_swap();
    session = room_rig_open(WIRE_INTERACTIVE);
    assert_int_equal(room_rig_read(session, 8), WIRE_APPENDED);
    said[1].id = start_answers(session, 2, 256);
    while (said[1].n == 0)
        room_rig_turn(said, 2);
    room_rig_swap();
    said[0].id = room_rig_answer(one, 3 * ROOM_PAGE);
    room_rig_swap();
    room_rig_over(said, 2);
    assert_int_equal(said[0].reasons[0], WIRE_REASON_LENGTH);
    assert_int_equal(said[0].n, 3 * ROOM_PAGE);
    assert_memory_equal(said[0].ids, alone.ids, sizeof(alone.ids));
    assert_int_equal(said[1].kind, WIRE_DONE);
    for (int i = 0; i < 2; i++)
        assert_int_equal(said[1].reasons[i], WIRE_REASON_LENGTH);
    assert_true(room.a.sched->totals.gave_way > 0);
    room_rig_stop_two();
}

/* --- ends while it waits ---------------------------------------------------------------------- */

/* i / ROOM_END__N: 0: before the first part, for entries; 1: the same of choices, for pages; 2: of
 * an answer that has begun. */
static void ends_while_waiting(int i)
{
    struct request work = { .ops = NULL };
    struct room_said said = { 0 };
    uint64_t other, session;
    uint32_t n_free;

    room_rig_start_two();
    other = room_rig_other(i / ROOM_END__N == 2 ? 36 : 24);
    session = room_rig_open(WIRE_INTERACTIVE);
    assert_int_equal(room_rig_read(session, i / ROOM_END__N == 2 ? 8 : 15 * ROOM_PAGE - 1),
                     WIRE_APPENDED);
    n_free = room.a.sched->served.pool.n_free;
    room_rig_at_work(other, &work);
    if (i / ROOM_END__N == 0) { /* all but what it has is at work beside it */
        room_rig_done(other);
        room_rig_swap();
        room_rig_shut(other);
        room_rig_swap();
        other = room_rig_open(WIRE_INTERACTIVE);
        assert_int_equal(room_rig_read(other, 24 * ROOM_PAGE - 1), WIRE_APPENDED);
        room_rig_at_work(other, &work);
        said.id = start_answers(session, 2, 20);
    } else if (i / ROOM_END__N == 1) {
        said.id = start_choices(session, 3 * ROOM_PAGE);
    } else {
        said.id = start_answers(session, 2, 200);
    }
    while (!room_rig_paused(said.id) && n_paused(said.id) == 0)
        room_rig_turn(&said, 1);
    room_rig_end(said.id, i % ROOM_END__N);
    if (i % ROOM_END__N == ROOM_END_GONE) {
        while (room_rig_request(said.id))
            room_rig_turn(&said, 1);
        if (i / ROOM_END__N > 0)
            room_rig_done(other);
        room.n_made_up = 0; /* it went with its client */
        assert_true(room.a.sched->served.pool.n_free > n_free);
    } else {
        room_rig_over(&said, 1);
        assert_int_equal(said.kind, WIRE_ERROR);
        assert_int_equal(said.code,
                         i % ROOM_END__N == ROOM_END_CANCEL ? WIRE_E_CANCELLED : WIRE_E_DEADLINE);
        room_rig_turn(&said, 1);
        assert_int_equal(room.a.sched->served.pool.n_free, n_free);
        room_rig_done(other);
        /* And the session goes on. */
        assert_int_equal(room_rig_read(session, 1), WIRE_APPENDED);
    }
    room_rig_stop_two();
}

static void ends_while_it_waits(void **state)
{
    (void)state;
    for (int i = 0; i < 3 * ROOM_END__N; i++)
        ends_while_waiting(i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_two_for_each_other),    cmocka_unit_test(parts_wait),
        cmocka_unit_test(parts_end_one_by_one),     cmocka_unit_test(begin_later),
        cmocka_unit_test(background_alone_is_told), cmocka_unit_test(single_gives_way),
        cmocka_unit_test(ends_while_it_waits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
