/* tests/test_room_mix.c - any requests beside each other when pages are short: answers, several of
 * one prompt, scored choices, appends and forks, some of which are cancelled, of two clients of a
 * user, in an order that a seed decides. Would catch: some that wait for each other, or that give
 * way to each other without end; pages that are lost or counted as leaving for good; an answer that
 * is shorter than it says.
 */

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

#define SEEDS    24u
#define SESSIONS 6u  /* the first half are the first client's */
#define REQUESTS 48u /* of a seed */
#define TURNS    20000u

enum kind { ANSWER, ANSWERS, CHOICES, APPEND, FORK, KIND__N };

static unsigned seed;
static uint64_t sessions[SESSIONS];
static struct room_said said[REQUESTS];
static struct {
    enum kind kind;
    uint32_t session, n, n_tokens;
} asked[REQUESTS];
static uint32_t n_asked, n_turns;

int __real_epoll_wait(int fd, struct epoll_event *ev, int n, int timeout);
int __wrap_epoll_wait(int fd, struct epoll_event *ev, int n, int timeout);

int __wrap_epoll_wait(int fd, struct epoll_event *ev, int n, int timeout)
{
    if (room_rig_wakes(timeout))
        return 0;
    return __real_epoll_wait(fd, ev, n, timeout);
}

/* [first, end) */
static uint32_t any(uint32_t first, uint32_t end)
{
    return first + (uint32_t)rand_r(&seed) % (end - first);
}

/* With nothing to do it would sleep. */
static void turn(void)
{
    bool open = room.a.sched->n_active > 0;

    for (uint32_t i = 0; i < n_asked; i++)
        open |= !said[i].over;
    if (!open)
        return;
    if (++n_turns > TURNS)
        fail_msg("%u turns, and requests are still open", n_turns);
    room_rig_turn(said, n_asked);
}

/* Its client is the one that asks until this is called again. */
static void as_client_of(uint32_t session)
{
    static struct chan *first;

    if (session == UINT32_MAX)
        first = room.chan;
    else if ((session < SESSIONS / 2) != (room.chan == first))
        room_rig_swap();
}

static uint64_t open_any(void)
{
    static const enum wire_compressor kinds[] = { WIRE_FULL, WIRE_SELECT, WIRE_SELECT_REREAD };
    struct wire_memory m = { .compressor = kinds[any(0, 3)] };

    if (m.compressor != WIRE_FULL) {
        m.has_ratio = m.fixed = m.has_sinks = true;
        m.ratio = 2;
    }
    return room_rig_open_memory(any(0, 4) ? WIRE_INTERACTIVE : WIRE_BACKGROUND, m);
}

/* --- requests --------------------------------------------------------------------------------- */

static uint64_t ask_for(enum kind kind, uint64_t session, uint32_t n, uint32_t n_tokens)
{
    struct wire_req m = { .id = ++room.last_id };
    uint32_t ids[200];
    uint64_t lens[4];

    for (uint32_t i = 0; i < 200; i++)
        ids[i] = any(40, 120);
    switch (kind) {
    case ANSWER:
    case ANSWERS:
        m.kind = WIRE_GENERATE;
        m.u.generate.session = session;
        m.u.generate.max_tokens = n_tokens;
        m.u.generate.ignore_eog = true;
        m.u.generate.n = n;
        break;
    case CHOICES:
        m.kind = WIRE_SCORE_CHOICES;
        m.u.score_choices.session = session;
        m.u.score_choices.kind = WIRE_SCORE_TOKENS;
        for (uint32_t i = 0; i < n; i++)
            lens[i] = n_tokens * sizeof(*ids);
        m.u.score_choices.lens = lens;
        m.u.score_choices.n = n;
        m.bulk_len = (uint64_t)n * n_tokens * sizeof(*ids);
        break;
    case FORK:
        m.kind = WIRE_FORK;
        m.u.fork.label = "";
        m.u.fork.session = session;
        break;
    default:
        m.kind = WIRE_APPEND;
        m.u.append.session = session;
        m.u.append.kind = WIRE_APPEND_TOKENS;
        m.bulk_len = n_tokens * sizeof(*ids);
    }
    alone_send(&room.a, room.chan, &m, ids);
    return m.id;
}

static bool is_busy(uint32_t session)
{
    for (uint32_t i = 0; i < n_asked; i++)
        if (asked[i].session == session && !said[i].over)
            return true;
    return false;
}

static void ask_any(void)
{
    uint32_t i = n_asked, session = any(0, SESSIONS);

    if (is_busy(session))
        return;
    asked[i].kind = any(0, KIND__N);
    asked[i].session = session;
    asked[i].n = asked[i].kind == ANSWER ? 1 : any(2, 4);
    asked[i].n_tokens = any(1, 60);
    as_client_of(session);
    said[i] = (struct room_said){ .id = ask_for(asked[i].kind, sessions[session], asked[i].n,
                                                asked[i].n_tokens) };
    n_asked++;
}

static void cancel_any(void)
{
    uint32_t i = n_asked ? any(0, n_asked) : 0;

    if (n_asked == 0 || said[i].over)
        return;
    as_client_of(asked[i].session);
    room_rig_end(said[i].id, ROOM_END_CANCEL);
}

/* --- what became of them ---------------------------------------------------------------------- */

static void check_end(uint32_t i)
{
    static const enum wire_rep_kind kinds[KIND__N] = { WIRE_DONE, WIRE_DONE, WIRE_CHOSEN,
                                                       WIRE_APPENDED, WIRE_SESSION_OPENED };
    const struct room_said *x = &said[i];
    bool whole = true;

    if (x->kind == WIRE_ERROR) {
        if (x->code != WIRE_E_POOL_FULL && x->code != WIRE_E_LIMIT && x->code != WIRE_E_CANCELLED)
            fail_msg("request %u of kind %u: error %s", i, asked[i].kind, wire_error_name(x->code));
        return;
    }
    assert_int_equal(x->kind, kinds[asked[i].kind]);
    if (x->kind != WIRE_DONE)
        return;
    assert_int_equal(x->generated, x->n);
    for (uint32_t k = 0; k < asked[i].n; k++) {
        whole &= x->reasons[k] == WIRE_REASON_LENGTH;
        assert_true(x->reasons[k] == WIRE_REASON_LENGTH || x->reasons[k] == WIRE_REASON_POOL_FULL);
    }
    if (whole)
        assert_int_equal(x->n, asked[i].n * asked[i].n_tokens);
}

static void close_all(void)
{
    struct client *c;

    for (uint32_t i = 0; i < SESSIONS; i++) {
        as_client_of(i);
        while ((c = room_rig_session(sessions[i])->client) && c->n_sessions > SESSIONS / 2)
            room_rig_shut(TAILQ_LAST(&c->sessions, session_list)->id); /* a fork */
    }
    for (uint32_t i = 0; i < SESSIONS; i++) {
        as_client_of(i);
        room_rig_shut(sessions[i]);
    }
    assert_int_equal(room.a.sched->served.pool.n_free, ROOM_PAGES);
    for (uint32_t i = 0; i < ROOM_PAGES; i++)
        assert_int_equal(room.a.sched->leaving[i], 0);
}

static void mix(unsigned number)
{
    seed = number;
    n_asked = n_turns = 0;
    room_rig_start_two();
    as_client_of(UINT32_MAX);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        as_client_of(i);
        sessions[i] = open_any();
        (void)room_rig_read(sessions[i], any(4, 140));
    }
    while (n_asked < REQUESTS) {
        if (any(0, 12) == 0)
            cancel_any();
        else
            ask_any();
        for (uint32_t n = any(0, 6); n > 0; n--)
            turn();
    }
    for (uint32_t i = 0; i < n_asked; i++) {
        while (!said[i].over)
            turn();
        check_end(i);
    }
    turn(); /* parts that were left behind */
    close_all();
    as_client_of(0);
    room_rig_stop_two();
}

static void all_end(void **state)
{
    (void)state;
    for (unsigned i = 1; i <= SEEDS; i++) {
        printf("seed %u\n", i);
        mix(i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(all_end) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
