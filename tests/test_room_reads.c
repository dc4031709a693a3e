/* tests/test_room_reads.c - appends and forks when pages are short, in a scheduler in this process,
 * turn by turn. Would catch: an append that fails in the middle of reading, though another request
 * of its user is about to give pages back; one that goes on with another context than it had; two
 * that wait for each other; a fork that fails beside idle sessions of its client; one that waits
 * and is not heard when it is cancelled, its deadline passes, or its client goes, or leaves a
 * session that is not as it was.
 */

#include "daemon/room.h"
#include "tests/support/alone.h"
#include "tests/support/room_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#include <cmocka.h>

#define HAD  40u  /* tokens of the session before */
#define MORE 200u /* that are read */

int __real_epoll_wait(int fd, struct epoll_event *ev, int n, int timeout);
int __wrap_epoll_wait(int fd, struct epoll_event *ev, int n, int timeout);

int __wrap_epoll_wait(int fd, struct epoll_event *ev, int n, int timeout)
{
    if (room_rig_wakes(timeout))
        return 0;
    return __real_epoll_wait(fd, ev, n, timeout);
}

/* Segments are compressed as they are read, so that pages are taken one by one. */
static const enum wire_compressor kinds[] = { WIRE_SELECT };
#define KINDS 1

static uint64_t open_compressed(int kind)
{
    struct wire_memory m = {
        .compressor = kinds[kind], .has_ratio = true, .ratio = 2, .fixed = true, .has_sinks = true
    };

    return room_rig_open_memory(WIRE_INTERACTIVE, m);
}

/* --- an append that has begun ----------------------------------------------------------------- */

struct scene {
    struct request work; /* at the other session */
    struct room_said said;
    uint64_t other, session;
};

/* It has read some, and the other session has taken all that is left. */
static void begin(struct scene *x, int kind)
{
    const struct pool *p;

    *x = (struct scene){ .other = 0 };
    room_rig_start_two();
    p = &room.a.sched->served.pool;
    x->other = room_rig_other(2);
    x->session = open_compressed(kind);
    assert_int_equal(room_rig_read(x->session, HAD), WIRE_APPENDED);
    room_rig_at_work(x->other, &x->work);
    x->said.id = room_rig_append(x->session, MORE);
    while (room_rig_session(x->session)->seq.n_tokens == HAD)
        room_rig_turn(&x->said, 1);
    assert_false(x->said.over);
    assert_int_equal(seq_reserve(&room_rig_session(x->other)->seq, p->n_free * ROOM_PAGE), 0);
    assert_int_equal(p->n_free, 0);
}

static bool is_gone(const struct scene *x)
{
    return room_rig_session(x->session)->memory.away.state == AWAY_GONE;
}

/* away: the other one waits itself, so that this one gives way. */
static void wait_in_the_middle(struct scene *x, int kind, bool away)
{
    begin(x, kind);
    x->work.paused = away;
    while (away ? !is_gone(x) : !room_rig_paused(x->said.id))
        room_rig_turn(&x->said, 1);
    for (int i = 0; i < 3; i++)
        room_rig_turn(&x->said, 1);
    assert_false(x->said.over);
    assert_int_equal(is_gone(x), away);
}

/* What is said behind all that the session has, and behind the same ids in another one. */
static void says_the_same(uint64_t session, int kind)
{
    const struct session *x = room_rig_session(session);
    struct room_said said = { .id = room_rig_answer(session, 20) }, alone = { .id = 0 };
    uint32_t ids[HAD + MORE], n = x->memory.n_ids;
    uint64_t other;

    assert_int_equal(n, HAD + MORE);
    memcpy(ids, x->seq.tokens, sizeof(ids));
    room_rig_over(&said, 1);
    room_rig_shut(session);
    other = open_compressed(kind);
    assert_int_equal(room_rig_wait(room_rig_append_ids(other, ids, HAD)), WIRE_APPENDED);
    assert_int_equal(room_rig_wait(room_rig_append_ids(other, ids + HAD, MORE)), WIRE_APPENDED);
    alone.id = room_rig_answer(other, 20);
    room_rig_over(&alone, 1);
    assert_int_equal(said.n, 20);
    assert_memory_equal(said.ids, alone.ids, sizeof(said.ids));
}

static void append_waits(void **state)
{
    struct scene x;

    (void)state;
    for (int i = 0; i < 2 * KINDS; i++) {
        wait_in_the_middle(&x, i / 2, i % 2);
        room_rig_done(x.other);
        room_rig_over(&x.said, 1);
        assert_int_equal(x.said.kind, WIRE_APPENDED);
        says_the_same(x.session, i / 2);
        room_rig_stop_two();
    }
}

/* Another user has them. It fails, and the session is as it was. */
static void append_fails_alone(void **state)
{
    struct pool_owner other = { .limit = UINT32_MAX };
    struct pool_account taken = { .limit = UINT32_MAX, .owner = &other };
    struct scene x;

    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct session *y;
        uint32_t pages[ROOM_PAGES], n;

        begin(&x, kind);
        room_rig_done(x.other);
        y = room_rig_session(x.other);
        away_go(&y->memory);
        n = room.a.sched->served.pool.n_free;
        assert_int_equal(pool_take(&room.a.sched->served.pool, &taken, n, pages), 0);
        room_rig_over(&x.said, 1);
        assert_int_equal(x.said.kind, WIRE_ERROR);
        assert_int_equal(x.said.code, WIRE_E_POOL_FULL);
        assert_int_equal(room_rig_session(x.session)->memory.n_ids, HAD);
        pool_give(&room.a.sched->served.pool, &taken, n, pages);
        assert_int_equal(room_rig_read(x.session, MORE), WIRE_APPENDED);
        says_the_same(x.session, kind);
        room_rig_stop_two();
    }
}

/* While it keeps its pages, and while it has none. */
static void append_ends(int kind, bool away, enum room_end how)
{
    struct scene x;

    wait_in_the_middle(&x, kind, away);
    room_rig_end(x.said.id, how);
    if (how == ROOM_END_GONE) {
        while (room_rig_request(x.said.id))
            room_rig_turn(&x.said, 1);
    } else {
        room_rig_over(&x.said, 1);
        assert_int_equal(x.said.kind, WIRE_ERROR);
        assert_int_equal(x.said.code, how == ROOM_END_CANCEL ? WIRE_E_CANCELLED : WIRE_E_DEADLINE);
        assert_int_equal(room_rig_session(x.session)->memory.n_ids, HAD);
        room_rig_done(x.other);
        assert_int_equal(room_rig_read(x.session, MORE), WIRE_APPENDED);
        says_the_same(x.session, kind);
        room_rig_at_work(x.other, &x.work);
    }
    room_rig_done(x.other);
    room_rig_stop_two();
}

static void append_ends_while_it_waits(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * KINDS * ROOM_END__N; i++)
        append_ends(i % KINDS, i / KINDS % 2, i / KINDS / 2);
}

/* --- a fork ----------------------------------------------------------------------------------- */

static uint64_t start_fork(uint64_t session)
{
    struct wire_req m = { .id = ++room.last_id, .kind = WIRE_FORK, .u.fork.label = "" };

    m.u.fork.session = session;
    alone_send(&room.a, room.chan, &m, NULL);
    return m.id;
}

/* A session to fork, of 15 pages, and one of 20 of the same client: together with the fork they are
 * more than a client may have. */
static void two_of_one_client(uint64_t *ret_session, uint64_t *ret_other)
{
    room_rig_start_two();
    *ret_session = room_rig_open(WIRE_INTERACTIVE);
    assert_int_equal(room_rig_read(*ret_session, 15 * ROOM_PAGE - 1), WIRE_APPENDED);
    *ret_other = room_rig_open(WIRE_INTERACTIVE);
    assert_int_equal(room_rig_read(*ret_other, 20 * ROOM_PAGE - 1), WIRE_APPENDED);
}

/* The second client's stays: its entries are no help. */
static void idle_ones_give_way_to_a_fork(void **state)
{
    uint64_t session, other, third;
    struct room_said said = { 0 };

    (void)state;
    two_of_one_client(&session, &other);
    third = room_rig_other(5);
    said.id = start_fork(session);
    room_rig_over(&said, 1);
    assert_int_equal(said.kind, WIRE_SESSION_OPENED);
    assert_int_equal(room_rig_pages(session), 15);
    assert_int_equal(room_rig_pages(other), 0);
    assert_int_equal(room_rig_pages(third), 5);
    assert_int_equal(room.a.sched->served.pool.n_free, ROOM_PAGES - 20);
    room_rig_stop_two();
}

static void fork_waits(void **state)
{
    struct request work = { .ops = NULL };
    struct room_said said = { 0 };
    uint64_t session, other;

    (void)state;
    two_of_one_client(&session, &other);
    room_rig_at_work(other, &work);
    said.id = start_fork(session);
    while (!room_rig_paused(said.id))
        room_rig_turn(&said, 1);
    room_rig_turn(&said, 1);
    assert_false(said.over);
    room_rig_done(other);
    room_rig_over(&said, 1);
    assert_int_equal(said.kind, WIRE_SESSION_OPENED);
    room_rig_stop_two();
}

/* What would not do is not waited for, nor done. */
static void fork_is_told(void **state)
{
    struct request work = { .ops = NULL };
    uint64_t session, other;

    (void)state;
    for (int i = 0; i < 2; i++) {
        enum wire_priority priority = i ? WIRE_BACKGROUND : WIRE_INTERACTIVE;
        struct room_said said = { 0 };

        room_rig_start_two();
        session = room_rig_open(priority);
        assert_int_equal(room_rig_read(session, 21 * ROOM_PAGE - 1), WIRE_APPENDED);
        other = room_rig_open(priority);
        assert_int_equal(room_rig_read(other, 5 * ROOM_PAGE - 1), WIRE_APPENDED);
        room_rig_at_work(other, &work);
        said.id = start_fork(session);
        room_rig_over(&said, 1);
        assert_int_equal(said.kind, WIRE_ERROR);
        assert_int_equal(said.code, WIRE_E_POOL_FULL);
        room_rig_done(other);
        said = (struct room_said){ .id = start_fork(session) };
        room_rig_over(&said, 1);
        assert_int_equal(said.kind, WIRE_ERROR);
        assert_int_equal(room_rig_pages(other), 5);
        room_rig_stop_two();
    }
}

static void fork_ends_while_it_waits(void **state)
{
    (void)state;
    for (int i = 0; i < ROOM_END__N; i++) {
        struct request work = { .ops = NULL };
        struct room_said said = { 0 };
        uint64_t session, other;

        two_of_one_client(&session, &other);
        room_rig_at_work(other, &work);
        said.id = start_fork(session);
        while (!room_rig_paused(said.id))
            room_rig_turn(&said, 1);
        room_rig_end(said.id, i);
        if (i == ROOM_END_GONE) {
            while (room.a.sched->n_clients > 1)
                room_rig_turn(&said, 1);
            assert_int_equal(room.a.sched->served.pool.n_free, ROOM_PAGES);
            room.n_made_up = 0;
        } else {
            room_rig_over(&said, 1);
            assert_int_equal(said.code, i == ROOM_END_CANCEL ? WIRE_E_CANCELLED : WIRE_E_DEADLINE);
            room_rig_done(other);
            assert_int_equal(room_rig_pages(session), 15);
            assert_int_equal(room_rig_read(session, 1), WIRE_APPENDED);
        }
        room_rig_stop_two();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(append_waits),
        cmocka_unit_test(append_fails_alone),
        cmocka_unit_test(append_ends_while_it_waits),
        cmocka_unit_test(idle_ones_give_way_to_a_fork),
        cmocka_unit_test(fork_waits),
        cmocka_unit_test(fork_is_told),
        cmocka_unit_test(fork_ends_while_it_waits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
