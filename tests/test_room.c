/* tests/test_room.c - who gives way when pages are short, in a scheduler in this process, turn by
 * turn. Would catch: sessions whose ids are hashed again for each one that goes; one that goes
 * though all its pages are another one's, too, and a request that counts on them; two that come
 * back at once into too few pages, of which one fails; an interactive request that fails beside
 * idle sessions of its user, or a background one that has those go.
 */

#include "daemon/batch.h"
#include "daemon/generate.h"
#include "daemon/room.h"
#include "daemon/sched.h"
#include "tests/support/alone.h"
#include "tests/support/room_rig.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint32_t n_asked; /* sessions, whether they are kept */

bool __real_away_is_kept(const struct memory *m);
bool __wrap_away_is_kept(const struct memory *m);

bool __wrap_away_is_kept(const struct memory *m)
{
    n_asked++;
    return __real_away_is_kept(m);
}
/* --- what a look costs ------------------------------------------------------------------------ */

#define MANY 12u

static bool all_kept(const uint64_t *sessions, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!__real_away_is_kept(&room_rig_session(sessions[i])->memory))
            return false;
    return true;
}

/* Each is asked once whether it is kept, however many go. */
static void hashes_each_once(void **state)
{
    uint64_t sessions[MANY], front;
    char store[SCRATCH_PATH_MAX];

    (void)state;
    room_rig_start(scratch_path(store, "store"));
    for (uint32_t i = 0; i < MANY; i++) {
        sessions[i] = room_rig_open(WIRE_BACKGROUND);
        assert_int_equal(room_rig_read(sessions[i], 2 * ROOM_PAGE - 1), WIRE_APPENDED);
    }
    for (uint32_t i = MANY; i-- > 0;) /* the last one is unused for the longest */
        assert_int_equal(room_rig_read(sessions[i], 1), WIRE_APPENDED);
    while (!all_kept(sessions, MANY))
        assert_true(sched_turn(room.a.sched));
    front = room_rig_open(WIRE_INTERACTIVE);
    n_asked = 0;
    assert_int_equal(room_rig_read(front, (ROOM_PAGES - 2) * ROOM_PAGE), WIRE_APPENDED);
    assert_in_range(room.a.sched->totals.gave_way, MANY - 2, MANY);
    assert_in_range(n_asked, MANY - 2, 2 * MANY); /* two looks at most */
    room_rig_stop();
}

/* --- pages of several ------------------------------------------------------------------------- */

/* What an idle session has its fork has, too, and that is at work: it would go in vain. The work is
 * made up: how far a real answer is when the scheduler looks for room is a matter of time. */
static void shared_pages_count_once(void **state)
{
    struct wire_req fork = { .kind = WIRE_FORK };
    struct request work = { .ops = &request_generate };
    uint64_t back, other, front;
    struct chan *first;

    (void)state;
    room_rig_start("none");
    first = room.chan;
    back = room_rig_open(WIRE_INTERACTIVE);
    assert_int_equal(room_rig_read(back, 15 * ROOM_PAGE), WIRE_APPENDED);
    fork.id = ++room.last_id;
    fork.u.fork.session = back;
    assert_int_equal(alone_ask(&room.a, room.chan, &fork, NULL, &room.rep), WIRE_SESSION_OPENED);
    other = room.rep.u.session_opened.session;
    assert_int_equal(room_rig_read(other, 2 * ROOM_PAGE), WIRE_APPENDED);
    room.chan = alone_hello(&room.a, 2); /* another client: entries of tables are no limit to it */
    front = room_rig_open(WIRE_INTERACTIVE);
    room_rig_session(other)->busy = &work;
    assert_int_equal(room_rig_read(front, 30 * ROOM_PAGE), WIRE_ERROR);
    assert_int_equal(room.rep.u.error.code, WIRE_E_POOL_FULL);
    assert_int_equal(room_rig_pages(back), 15);
    room_rig_session(other)->busy = NULL;
    /* Now both may go. */
    assert_int_equal(room_rig_read(front, 30 * ROOM_PAGE), WIRE_APPENDED);
    assert_int_equal(room_rig_pages(back) + room_rig_pages(other), 0);
    chan_close(room.chan);
    room.chan = first;
    room_rig_stop();
}

/* --- two at once ------------------------------------------------------------------------------ */

/* Two sessions of n pages, which are away. */
static void two_away(uint64_t ret[2], uint32_t n)
{
    uint64_t all;

    for (int i = 0; i < 2; i++) {
        ret[i] = room_rig_open(WIRE_INTERACTIVE);
        assert_int_equal(room_rig_read(ret[i], n * ROOM_PAGE - 1), WIRE_APPENDED);
    }
    all = room_rig_open(WIRE_INTERACTIVE);
    assert_int_equal(room_rig_read(all, ROOM_PAGES * ROOM_PAGE), WIRE_APPENDED);
    assert_int_equal(room_rig_pages(ret[0]) + room_rig_pages(ret[1]), 0);
    room_rig_shut(all);
    assert_int_equal(room.a.sched->served.pool.n_free, ROOM_PAGES);
}

static void both_answer(uint32_t n_pages)
{
    uint64_t sessions[2], ids[2];

    room_rig_start("none");
    two_away(sessions, n_pages);
    for (int i = 0; i < 2; i++)
        ids[i] = room_rig_answer(sessions[i], 40);
    room_rig_all_end(ids, 2, WIRE_DONE);
    room_rig_stop();
}

/* There is room for one of them, and then for the other; or for both, but not for their answers. */
static void both_come_back(void **state)
{
    (void)state;
    both_answer(25);
    both_answer(33);
}

static void both_read_on(uint32_t n_pages, uint32_t n_more)
{
    uint64_t sessions[2], ids[2];

    room_rig_start("none");
    two_away(sessions, n_pages);
    for (int i = 0; i < 2; i++)
        ids[i] = room_rig_append(sessions[i], n_more * ROOM_PAGE);
    room_rig_all_end(ids, 2, WIRE_APPENDED);
    room_rig_stop();
}

/* Also when both are there, and have no room for what they are to read. */
static void both_come_back_and_read(void **state)
{
    (void)state;
    both_read_on(18, 10);
    both_read_on(25, 10);
}

/* What can't be had at all is told, and not waited for. */
static void too_much_is_told(void **state)
{
    uint64_t sessions[2], ids[2];

    (void)state;
    room_rig_start("none");
    two_away(sessions, 25);
    ids[0] = room_rig_append(sessions[0], 20 * ROOM_PAGE);
    ids[1] = room_rig_answer(sessions[1], 20);
    for (int n = 0; n < 2;) {
        (void)alone_reply(&room.a, room.chan, &room.rep);
        if (!room.rep.last)
            continue;
        assert_int_equal(room.rep.kind, room.rep.id == ids[0] ? WIRE_ERROR : WIRE_DONE);
        if (room.rep.id == ids[0])
            assert_int_equal(room.rep.u.error.code, WIRE_E_POOL_FULL);
        n++;
    }
    room_rig_stop();
}

/* --- a user's own ----------------------------------------------------------------------------- */

/* The longest unused goes for an interactive request, and none for a background one. */
static void own_idle_ones_give_way(void **state)
{
    uint64_t idle[2], back, front;

    (void)state;
    room_rig_start("none");
    for (int i = 0; i < 2; i++) {
        idle[i] = room_rig_open(WIRE_INTERACTIVE);
        assert_int_equal(room_rig_read(idle[i], 15 * ROOM_PAGE), WIRE_APPENDED);
    }
    back = room_rig_open(WIRE_BACKGROUND);
    assert_int_equal(room_rig_read(back, 15 * ROOM_PAGE), WIRE_ERROR);
    assert_int_equal(room.rep.u.error.code, WIRE_E_POOL_FULL);
    assert_int_equal(room_rig_pages(idle[0]) + room_rig_pages(idle[1]), 30);
    front = room_rig_open(WIRE_INTERACTIVE);
    assert_int_equal(room_rig_read(front, 15 * ROOM_PAGE), WIRE_APPENDED);
    assert_int_equal(room_rig_pages(idle[0]), 0);
    assert_int_equal(room_rig_pages(idle[1]), 15);
    assert_int_equal(room_rig_read(idle[0], 1), WIRE_APPENDED); /* and it comes back */
    assert_int_equal(room_rig_pages(idle[1]), 0);
    room_rig_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hashes_each_once), cmocka_unit_test(shared_pages_count_once),
        cmocka_unit_test(both_come_back),   cmocka_unit_test(both_come_back_and_read),
        cmocka_unit_test(too_much_is_told), cmocka_unit_test(own_idle_ones_give_way),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
