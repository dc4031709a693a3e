/* tests/test_room_waits.c - who waits for pages, in a scheduler in this process, turn by turn.
 * Would catch: an answer that ends for want of pages that another one of its user is about to give
 * back; two that wait for each other; one that waits and is not heard when it is cancelled, or its
 * deadline passes; one that gave way, finds the pool taken, and is not told how much it has said.
 */

#include "daemon/batch.h"
#include "daemon/generate.h"
#include "daemon/room.h"
#include "tests/support/alone.h"
#include "tests/support/room_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* --- answers that wait ------------------------------------------------------------------------ */

/* Who is waited for. The others' work is made up. */
static void waits_for_its_own(void **state)
{
    struct request work = { .ops = &request_generate }, r = { .ops = &request_generate };
    uint64_t sessions[2];
    struct session *x;

    (void)state;
    room_rig_start("none");
    room_rig_fill(sessions, 1);
    x = room_rig_session(sessions[0]);
    r.client = x->client;
    r.session = x;
    r.memory = &x->memory;
    x->busy = &r;
    x = room_rig_session(sessions[1]);
    work.client = x->client;
    work.session = x;
    work.memory = &x->memory;
    x->busy = &work;
    assert_true(room_waits(room.a.sched, &r, 1) && r.paused);
    assert_true(room_waits(room.a.sched, &r, ROOM_PAGES / 2));
    assert_false(room_waits(room.a.sched, &r, ROOM_PAGES / 2 + 1) ||
                 r.paused);    /* that would not do */
    work.times.blocked_at = 1; /* its reader is slow */
    assert_false(room_waits(room.a.sched, &r, 1));
    work.times.blocked_at = 0;
    work.ops = &request_answers;
    assert_false(room_waits(room.a.sched, &r, 1));
    work.ops = &request_append;
    assert_true(room_waits(room.a.sched, &r, 1));
    assert_false(room_waits(room.a.sched, &work, 1)); /* that one waits: not in a circle */
    assert_false(work.paused);
    r.priority = WIRE_BACKGROUND; /* it does not wait for what it may not have */
    assert_int_equal(room.a.sched->n_paused, 0);
    assert_true(room_waits(room.a.sched, &r, 1)); /* but for anybody who computes */
    assert_int_equal(room.a.sched->n_paused, 1);
    room.a.sched->stalled = true;
    assert_false(room_waits(room.a.sched, &r, 1));
    room.a.sched->stalled = false;
    room.a.sched->n_paused = 0;
    x->busy = room_rig_session(sessions[0])->busy = NULL;
    room_rig_stop();
}

/* However far the one is when the other has used up its pages. */
static void answer_waits_for_another(void **state)
{
    uint64_t sessions[2], ids[2];

    (void)state;
    room_rig_start("none");
    room_rig_fill(sessions, ROOM_PAGE - 1);
    ids[1] = room_rig_answer(sessions[1], ROOM_PAGE - 2);
    ids[0] = room_rig_answer(sessions[0], 3 * ROOM_PAGE);
    room_rig_all_end(ids, 2, WIRE_DONE);
    room_rig_stop();
}

/* The one that is waited for has no part in the step in which it ends, nor has anybody else: the
 * scheduler must not sleep behind it. */
static void is_told_of_an_end(void **state)
{
    enum wire_reason reasons[2];
    uint64_t sessions[2], ids[2];
    bool goes_on = true;

    (void)state;
    room_rig_start("none");
    sessions[0] = room_rig_open(WIRE_INTERACTIVE);
    sessions[1] = room_rig_open_budget(WIRE_INTERACTIVE, ROOM_PAGES / 2 * ROOM_PAGE - 6);
    assert_int_equal(room_rig_read(sessions[0], ROOM_PAGES / 2 * ROOM_PAGE - 1), WIRE_APPENDED);
    assert_int_equal(room_rig_read(sessions[1], ROOM_PAGES / 2 * ROOM_PAGE - 14), WIRE_APPENDED);
    for (int i = 1; i >= 0; i--)
        ids[i] = room_rig_answer(sessions[i], 3 * ROOM_PAGE);
    while (!room_rig_request(ids[1]))
        (void)sched_turn(room.a.sched);
    while (room_rig_request(ids[1]) && !room_rig_paused(ids[0]))
        (void)sched_turn(room.a.sched);
    while (room_rig_request(ids[1]))
        goes_on = batch_run(room.a.sched);
    assert_true(goes_on);
    for (int left = 2; left > 0;) {
        (void)alone_reply(&room.a, room.chan, &room.rep);
        if (!room.rep.last || (room.rep.id != ids[0] && room.rep.id != ids[1]))
            continue;
        assert_int_equal(room.rep.kind, WIRE_DONE);
        reasons[room.rep.id == ids[1]] = room.rep.u.done.reason;
        left--;
    }
    assert_int_equal(reasons[0], WIRE_REASON_LENGTH);
    assert_int_equal(reasons[1], WIRE_REASON_CONTEXT_FULL);
    room_rig_stop();
}

/* What answers say, all of both. */
struct said {
    uint32_t n, ids[3 * ROOM_PAGE];
};

static void hear(const uint64_t *ids, struct said *said, uint32_t n)
{
    for (uint32_t left = n; left > 0;) {
        (void)alone_reply(&room.a, room.chan, &room.rep);
        for (uint32_t i = 0; i < n; i++) {
            if (room.rep.id != ids[i])
                continue;
            for (uint32_t k = 0; room.rep.kind == WIRE_TEXT && k < room.rep.u.text.n_ids; k++)
                said[i].ids[said[i].n++] = room.rep.u.text.tokens[k];
            if (!room.rep.last)
                continue;
            if (room.rep.kind == WIRE_ERROR)
                fail_msg("request %lu: %s", (unsigned long)room.rep.id, room.rep.u.error.text);
            assert_int_equal(room.rep.kind, WIRE_DONE);
            assert_int_equal(room.rep.u.done.reason, WIRE_REASON_LENGTH);
            assert_int_equal(room.rep.u.done.usage.raw_tokens, ROOM_PAGES / 2 * ROOM_PAGE - 1);
            left--;
        }
    }
}

static void rewind_to(uint64_t session, uint32_t n)
{
    struct wire_req m = { .id = ++room.last_id, .kind = WIRE_REWIND };

    m.u.rewind.session = session;
    m.u.rewind.n_tokens = n;
    assert_int_equal(alone_ask(&room.a, room.chan, &m, NULL, &room.rep), WIRE_REWOUND);
}

static bool is_away(uint64_t session)
{
    return room_rig_session(session)->memory.away.state != AWAY_HERE;
}

/* Both want more than there is. One gives way, and both say what they would alone. */
static void not_in_a_circle(void **state)
{
    struct said alone[2] = { { 0 } }, beside[2] = { { 0 } };
    uint64_t sessions[2], ids[2];

    (void)state;
    room_rig_start("none");
    room_rig_fill(sessions, 1);
    for (int i = 0; i < 2; i++) {
        ids[i] = room_rig_answer(sessions[i], 3 * ROOM_PAGE);
        hear(&ids[i], &alone[i], 1);
        rewind_to(sessions[i], ROOM_PAGES / 2 * ROOM_PAGE - 1);
    }
    for (int i = 0; i < 2; i++)
        ids[i] = room_rig_answer(sessions[i], 3 * ROOM_PAGE);
    hear(ids, beside, 2);
    assert_memory_equal(beside, alone, sizeof(alone));
    assert_int_equal(alone[0].n, 3 * ROOM_PAGE);
    room_rig_stop();
}

/* What any request says until this one has ended; no turn is made behind that. */
static void hear_until(uint64_t last, const uint64_t *ids, struct said *said)
{
    do {
        (void)alone_reply(&room.a, room.chan, &room.rep);
        for (uint32_t k = 0; room.rep.kind == WIRE_TEXT && k < room.rep.u.text.n_ids; k++) {
            struct said *x = &said[room.rep.id == ids[1]];

            x->ids[x->n++] = room.rep.u.text.tokens[k];
        }
    } while (room.rep.id != last || !room.rep.last);
    assert_int_equal(room.rep.kind, WIRE_DONE);
}

/* Another user has taken what it waited for. It ends with what it has said, and goes on from there
 * when it is asked to. */
static void gave_way_for_good(void **state)
{
    struct pool_owner other = { .limit = UINT32_MAX };
    struct pool_account taken = { .limit = UINT32_MAX, .owner = &other };
    struct pool *pool;
    struct said said[2] = { { 0 } }, alone = { 0 };
    uint32_t pages[ROOM_PAGES], n;
    uint64_t sessions[2], ids[2];
    int first, gone;

    (void)state;
    room_rig_start("none");
    pool = &room.a.sched->served.pool;
    room_rig_fill(sessions, 1);
    for (int i = 0; i < 2; i++)
        ids[i] = room_rig_answer(sessions[i], 3 * ROOM_PAGE);
    while (!is_away(sessions[0]) && !is_away(sessions[1]))
        assert_true(sched_turn(room.a.sched));
    gone = is_away(sessions[1]);
    first = !gone;
    hear_until(ids[first], ids, said);
    assert_int_equal(room.rep.u.done.reason, WIRE_REASON_LENGTH);
    away_go(&room_rig_session(sessions[first])->memory);
    n = pool->n_free;
    assert_int_equal(pool_take(pool, &taken, n, pages), 0);
    hear_until(ids[gone], ids, said);
    assert_int_equal(room.rep.u.done.reason, WIRE_REASON_POOL_FULL);
    assert_in_range(said[gone].n, 1, 3 * ROOM_PAGE - 1);
    assert_int_equal(room.rep.u.done.usage.generated_tokens, said[gone].n);
    pool_give(pool, &taken, n, pages);
    ids[gone] = room_rig_answer(sessions[gone], 3 * ROOM_PAGE - said[gone].n);
    hear_until(ids[gone], ids, said);
    assert_int_equal(said[gone].n, 3 * ROOM_PAGE);
    rewind_to(sessions[gone], ROOM_PAGES / 2 * ROOM_PAGE - 1);
    ids[gone] = room_rig_answer(sessions[gone], 3 * ROOM_PAGE);
    hear(&ids[gone], &alone, 1);
    assert_memory_equal(&said[gone], &alone, sizeof(alone));
    room_rig_stop();
}

/* By a cancel, and by a deadline, of which the clock is the request's own: it passes while it
 * waits. */
static void ends_while_it_waits(void **state)
{
    struct request work = { .ops = &request_generate };
    struct wire_req m = { .kind = WIRE_CANCEL };
    uint64_t sessions[2];
    struct chan *other;

    (void)state;
    room_rig_start("none");
    room_rig_fill(sessions, 1);
    other = room_rig_turns();
    work.client = room_rig_session(sessions[1])->client;
    room_rig_session(sessions[1])->busy = &work;
    for (int i = 0; i < 2; i++) {
        uint64_t id = room_rig_answer(sessions[0], 3 * ROOM_PAGE);

        while (!room_rig_paused(id))
            (void)sched_turn(room.a.sched);
        if (i == 0) {
            m.id = ++room.last_id;
            m.u.cancel.request = id;
            alone_send(&room.a, room.chan, &m, NULL);
        } else {
            room_rig_paused(id)->deadline_ns = room.a.sched->deadline_ns = 1;
        }
        assert_int_equal(room_rig_wait(id), WIRE_ERROR);
        assert_int_equal(room.rep.u.error.code, i ? WIRE_E_DEADLINE : WIRE_E_CANCELLED);
        assert_int_equal(room_rig_pages(sessions[0]), ROOM_PAGES / 2);
    }
    room_rig_session(sessions[1])->busy = NULL;
    chan_close(other);
    room_rig_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waits_for_its_own), cmocka_unit_test(answer_waits_for_another),
        cmocka_unit_test(is_told_of_an_end), cmocka_unit_test(not_in_a_circle),
        cmocka_unit_test(gave_way_for_good), cmocka_unit_test(ends_while_it_waits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
