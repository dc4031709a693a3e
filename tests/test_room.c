/* tests/test_room.c - who gives way when pages are short, in a scheduler in this process, turn by
 * turn. Would catch: sessions whose ids are hashed again for each one that goes; one that goes
 * though all its pages are another one's, too, and a request that counts on them; two that come
 * back at once into too few pages, of which one fails; an interactive request that fails beside
 * idle sessions of its user, or a background one that has those go; an answer that ends for want of
 * pages that another one of its user is about to give back; two that wait for each other; one that
 * waits and is not heard when it is cancelled, or its deadline passes.
 */

#include "daemon/batch.h"
#include "daemon/generate.h"
#include "daemon/room.h"
#include "daemon/sched.h"
#include "tests/support/alone.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PAGE  16u /* tokens */
#define PAGES 40u /* of the pool */

static struct alone a;
static struct chan *chan;
static uint64_t last_id;
static struct wire_rep rep;

static uint32_t n_asked; /* sessions, whether they are kept */

bool __real_away_is_kept(const struct memory *m);
bool __wrap_away_is_kept(const struct memory *m);

bool __wrap_away_is_kept(const struct memory *m)
{
    n_asked++;
    return __real_away_is_kept(m);
}

/* --- by hand ---------------------------------------------------------------------------------- */

static void start(const char *store)
{
    static size_t page_bytes;

    for (int i = page_bytes ? 1 : 0; i < 2; i++) {
        alone_open(&a, store, 1);
        if (page_bytes)
            a.config.kv_bytes = PAGES * page_bytes;
        a.config.prefix_cache = false;
        a.config.store_idle_ms = 1;
        alone_begin(&a);
        if (i == 1)
            break;
        page_bytes = a.sched->served.pool.page_bytes;
        alone_end(&a);
    }
    assert_int_equal(a.sched->served.pool.n_pages, PAGES);
    chan = alone_hello(&a, 1);
    last_id = 1;
}

static void stop(void)
{
    alone_end(&a);
    chan_close(chan);
}

static uint64_t open_with_budget(enum wire_priority priority, uint32_t budget)
{
    struct wire_req m = { .id = ++last_id,
                          .kind = WIRE_OPEN_SESSION,
                          .u.open_session.label = "",
                          .u.open_session.priority = priority,
                          .u.open_session.has_segment = true,
                          .u.open_session.segment = 64 };

    m.u.open_session.memory.has_budget = budget > 0;
    m.u.open_session.memory.budget = budget;
    assert_int_equal(alone_ask(&a, chan, &m, NULL, &rep), WIRE_SESSION_OPENED);
    return rep.u.session_opened.session;
}

static uint64_t open_session(enum wire_priority priority)
{
    return open_with_budget(priority, 0);
}

static uint64_t start_append(uint64_t session, uint32_t n)
{
    static uint32_t ids[PAGES * PAGE];
    static unsigned seed = 1;
    struct wire_req m = { .id = ++last_id, .kind = WIRE_APPEND, .bulk_len = n * sizeof(*ids) };

    for (uint32_t i = 0; i < n; i++)
        ids[i] = 40 + (uint32_t)rand_r(&seed) % 80;
    m.u.append.session = session;
    m.u.append.kind = WIRE_APPEND_TOKENS;
    alone_send(&a, chan, &m, ids);
    return m.id;
}

static uint64_t start_answer(uint64_t session, uint32_t n)
{
    struct wire_req m = { .id = ++last_id, .kind = WIRE_GENERATE };

    m.u.generate.session = session;
    m.u.generate.max_tokens = n;
    m.u.generate.ignore_eog = true;
    alone_send(&a, chan, &m, NULL);
    return m.id;
}

/* The last reply of this request. */
static enum wire_rep_kind wait_for(uint64_t id)
{
    do
        (void)alone_reply(&a, chan, &rep);
    while (rep.id != id || !rep.last);
    if (rep.kind == WIRE_ERROR)
        printf("%s\n", rep.u.error.text);
    return rep.kind;
}

static enum wire_rep_kind append(uint64_t session, uint32_t n)
{
    return wait_for(start_append(session, n));
}

static struct session *find(uint64_t id)
{
    struct session *x;
    struct client *c;

    TAILQ_FOREACH (c, &a.sched->clients, link)
        TAILQ_FOREACH (x, &c->sessions, link)
            if (x->id == id)
                return x;
    fail_msg("session %lu is not there", (unsigned long)id);
    return NULL;
}

static uint32_t pages_of(uint64_t session)
{
    return find(session)->seq.n_pages;
}

static void close_session(uint64_t session)
{
    struct wire_req m = { .id = ++last_id, .kind = WIRE_CLOSE_SESSION };

    m.u.close_session.session = session;
    (void)alone_ask(&a, chan, &m, NULL, &rep);
}

/* Ends of requests [0, n), in any order: all as they should. */
static void all_end(const uint64_t *ids, uint32_t n, enum wire_rep_kind kind)
{
    for (uint32_t left = n; left > 0;) {
        (void)alone_reply(&a, chan, &rep);
        for (uint32_t i = 0; i < n; i++) {
            if (rep.id != ids[i] || !rep.last)
                continue;
            if (rep.kind == WIRE_ERROR)
                fail_msg("request %lu: %s", (unsigned long)rep.id, rep.u.error.text);
            assert_int_equal(rep.kind, kind);
            if (kind == WIRE_DONE)
                assert_int_equal(rep.u.done.reason, WIRE_REASON_LENGTH);
            left--;
        }
    }
}

/* --- what a look costs ------------------------------------------------------------------------ */

#define MANY 12u

static bool all_kept(const uint64_t *sessions, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!__real_away_is_kept(&find(sessions[i])->memory))
            return false;
    return true;
}

/* Each is asked once whether it is kept, however many go. */
static void hashes_each_once(void **state)
{
    uint64_t sessions[MANY], front;
    char store[SCRATCH_PATH_MAX];

    (void)state;
    start(scratch_path(store, "store"));
    for (uint32_t i = 0; i < MANY; i++) {
        sessions[i] = open_session(WIRE_BACKGROUND);
        assert_int_equal(append(sessions[i], 2 * PAGE - 1), WIRE_APPENDED);
    }
    for (uint32_t i = MANY; i-- > 0;) /* the last one is unused for the longest */
        assert_int_equal(append(sessions[i], 1), WIRE_APPENDED);
    while (!all_kept(sessions, MANY))
        assert_true(sched_turn(a.sched));
    front = open_session(WIRE_INTERACTIVE);
    n_asked = 0;
    assert_int_equal(append(front, (PAGES - 2) * PAGE), WIRE_APPENDED);
    assert_in_range(a.sched->totals.gave_way, MANY - 2, MANY);
    assert_in_range(n_asked, MANY - 2, 2 * MANY); /* two looks at most */
    stop();
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
    start("none");
    first = chan;
    back = open_session(WIRE_INTERACTIVE);
    assert_int_equal(append(back, 15 * PAGE), WIRE_APPENDED);
    fork.id = ++last_id;
    fork.u.fork.session = back;
    assert_int_equal(alone_ask(&a, chan, &fork, NULL, &rep), WIRE_SESSION_OPENED);
    other = rep.u.session_opened.session;
    assert_int_equal(append(other, 2 * PAGE), WIRE_APPENDED);
    chan = alone_hello(&a, 2); /* another client: entries of tables are no limit to it */
    front = open_session(WIRE_INTERACTIVE);
    find(other)->busy = &work;
    assert_int_equal(append(front, 30 * PAGE), WIRE_ERROR);
    assert_int_equal(rep.u.error.code, WIRE_E_POOL_FULL);
    assert_int_equal(pages_of(back), 15);
    find(other)->busy = NULL;
    /* Now both may go. */
    assert_int_equal(append(front, 30 * PAGE), WIRE_APPENDED);
    assert_int_equal(pages_of(back) + pages_of(other), 0);
    chan_close(chan);
    chan = first;
    stop();
}

/* --- two at once ------------------------------------------------------------------------------ */

/* Two sessions of n pages, which are away. */
static void two_away(uint64_t ret[2], uint32_t n)
{
    uint64_t all;

    for (int i = 0; i < 2; i++) {
        ret[i] = open_session(WIRE_INTERACTIVE);
        assert_int_equal(append(ret[i], n * PAGE - 1), WIRE_APPENDED);
    }
    all = open_session(WIRE_INTERACTIVE);
    assert_int_equal(append(all, PAGES * PAGE), WIRE_APPENDED);
    assert_int_equal(pages_of(ret[0]) + pages_of(ret[1]), 0);
    close_session(all);
    assert_int_equal(a.sched->served.pool.n_free, PAGES);
}

static void both_answer(uint32_t n_pages)
{
    uint64_t sessions[2], ids[2];

    start("none");
    two_away(sessions, n_pages);
    for (int i = 0; i < 2; i++)
        ids[i] = start_answer(sessions[i], 40);
    all_end(ids, 2, WIRE_DONE);
    stop();
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

    start("none");
    two_away(sessions, n_pages);
    for (int i = 0; i < 2; i++)
        ids[i] = start_append(sessions[i], n_more * PAGE);
    all_end(ids, 2, WIRE_APPENDED);
    stop();
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
    start("none");
    two_away(sessions, 25);
    ids[0] = start_append(sessions[0], 20 * PAGE);
    ids[1] = start_answer(sessions[1], 20);
    for (int n = 0; n < 2;) {
        (void)alone_reply(&a, chan, &rep);
        if (!rep.last)
            continue;
        assert_int_equal(rep.kind, rep.id == ids[0] ? WIRE_ERROR : WIRE_DONE);
        if (rep.id == ids[0])
            assert_int_equal(rep.u.error.code, WIRE_E_POOL_FULL);
        n++;
    }
    stop();
}

/* --- a user's own ----------------------------------------------------------------------------- */

/* The longest unused goes for an interactive request, and none for a background one. */
static void own_idle_ones_give_way(void **state)
{
    uint64_t idle[2], back, front;

    (void)state;
    start("none");
    for (int i = 0; i < 2; i++) {
        idle[i] = open_session(WIRE_INTERACTIVE);
        assert_int_equal(append(idle[i], 15 * PAGE), WIRE_APPENDED);
    }
    back = open_session(WIRE_BACKGROUND);
    assert_int_equal(append(back, 15 * PAGE), WIRE_ERROR);
    assert_int_equal(rep.u.error.code, WIRE_E_POOL_FULL);
    assert_int_equal(pages_of(idle[0]) + pages_of(idle[1]), 30);
    front = open_session(WIRE_INTERACTIVE);
    assert_int_equal(append(front, 15 * PAGE), WIRE_APPENDED);
    assert_int_equal(pages_of(idle[0]), 0);
    assert_int_equal(pages_of(idle[1]), 15);
    assert_int_equal(append(idle[0], 1), WIRE_APPENDED); /* and it comes back */
    assert_int_equal(pages_of(idle[1]), 0);
    stop();
}

/* --- answers that wait ------------------------------------------------------------------------ */

/* Two sessions that have all pages. The second one's last page has room for n more tokens. */
static void fill(uint64_t ret[2], uint32_t n)
{
    for (int i = 0; i < 2; i++) {
        ret[i] = open_session(WIRE_INTERACTIVE);
        assert_int_equal(append(ret[i], PAGES / 2 * PAGE - (i ? n : 1)), WIRE_APPENDED);
        assert_int_equal(pages_of(ret[i]), PAGES / 2);
    }
}

/* Who is waited for. The others' work is made up. */
static void waits_for_its_own(void **state)
{
    struct request work = { .ops = &request_generate }, r = { .ops = &request_generate };
    uint64_t sessions[2];
    struct session *x;

    (void)state;
    start("none");
    fill(sessions, 1);
    x = find(sessions[0]);
    r.client = x->client;
    r.session = x;
    r.memory = &x->memory;
    x->busy = &r;
    x = find(sessions[1]);
    work.client = x->client;
    work.session = x;
    work.memory = &x->memory;
    x->busy = &work;
    assert_true(room_waits(a.sched, &r, 1) && r.paused);
    assert_true(room_waits(a.sched, &r, PAGES / 2));
    assert_false(room_waits(a.sched, &r, PAGES / 2 + 1) || r.paused); /* that would not do */
    work.times.blocked_at = 1;                                        /* its reader is slow */
    assert_false(room_waits(a.sched, &r, 1));
    work.times.blocked_at = 0;
    work.ops = &request_answers;
    assert_false(room_waits(a.sched, &r, 1));
    work.ops = &request_append;
    assert_true(room_waits(a.sched, &r, 1));
    assert_false(room_waits(a.sched, &work, 1)); /* that one waits: not in a circle */
    assert_false(work.paused);
    r.priority = WIRE_BACKGROUND; /* it does not wait for what it may not have */
    assert_int_equal(a.sched->n_paused, 0);
    assert_true(room_waits(a.sched, &r, 1)); /* but for anybody who computes */
    assert_int_equal(a.sched->n_paused, 1);
    a.sched->stalled = true;
    assert_false(room_waits(a.sched, &r, 1));
    a.sched->stalled = false;
    a.sched->n_paused = 0;
    x->busy = find(sessions[0])->busy = NULL;
    stop();
}

/* However far the one is when the other has used up its pages. */
static void answer_waits_for_another(void **state)
{
    uint64_t sessions[2], ids[2];

    (void)state;
    start("none");
    fill(sessions, PAGE - 1);
    ids[1] = start_answer(sessions[1], PAGE - 2);
    ids[0] = start_answer(sessions[0], 3 * PAGE);
    all_end(ids, 2, WIRE_DONE);
    stop();
}

static struct request *open_request(uint64_t id)
{
    struct request *r;

    TAILQ_FOREACH (r, &a.sched->active, link)
        if (r->id == id)
            return r;
    return NULL;
}

static struct request *paused(uint64_t id)
{
    struct request *r = open_request(id);

    return r && r->paused ? r : NULL;
}

/* The one that is waited for has no part in the step in which it ends, nor has anybody else: the
 * scheduler must not sleep behind it. */
static void is_told_of_an_end(void **state)
{
    enum wire_reason reasons[2];
    uint64_t sessions[2], ids[2];
    bool goes_on = true;

    (void)state;
    start("none");
    sessions[0] = open_session(WIRE_INTERACTIVE);
    sessions[1] = open_with_budget(WIRE_INTERACTIVE, PAGES / 2 * PAGE - 6);
    assert_int_equal(append(sessions[0], PAGES / 2 * PAGE - 1), WIRE_APPENDED);
    assert_int_equal(append(sessions[1], PAGES / 2 * PAGE - 14), WIRE_APPENDED);
    for (int i = 1; i >= 0; i--)
        ids[i] = start_answer(sessions[i], 3 * PAGE);
    while (!open_request(ids[1]))
        (void)sched_turn(a.sched);
    while (open_request(ids[1]) && !paused(ids[0]))
        (void)sched_turn(a.sched);
    while (open_request(ids[1]))
        goes_on = batch_run(a.sched);
    assert_true(goes_on);
    for (int left = 2; left > 0;) {
        (void)alone_reply(&a, chan, &rep);
        if (!rep.last || (rep.id != ids[0] && rep.id != ids[1]))
            continue;
        assert_int_equal(rep.kind, WIRE_DONE);
        reasons[rep.id == ids[1]] = rep.u.done.reason;
        left--;
    }
    assert_int_equal(reasons[0], WIRE_REASON_LENGTH);
    assert_int_equal(reasons[1], WIRE_REASON_CONTEXT_FULL);
    stop();
}

/* What answers say, all of both. */
struct said {
    uint32_t n, ids[3 * PAGE];
};

static void hear(const uint64_t *ids, struct said *said, uint32_t n)
{
    for (uint32_t left = n; left > 0;) {
        (void)alone_reply(&a, chan, &rep);
        for (uint32_t i = 0; i < n; i++) {
            if (rep.id != ids[i])
                continue;
            for (uint32_t k = 0; rep.kind == WIRE_TEXT && k < rep.u.text.n_ids; k++)
                said[i].ids[said[i].n++] = rep.u.text.tokens[k];
            if (!rep.last)
                continue;
            if (rep.kind == WIRE_ERROR)
                fail_msg("request %lu: %s", (unsigned long)rep.id, rep.u.error.text);
            assert_int_equal(rep.kind, WIRE_DONE);
            assert_int_equal(rep.u.done.reason, WIRE_REASON_LENGTH);
            assert_int_equal(rep.u.done.usage.raw_tokens, PAGES / 2 * PAGE - 1);
            left--;
        }
    }
}

/* Both want more than there is. One gives way, and both say what they would alone. */
static void not_in_a_circle(void **state)
{
    struct said alone[2] = { { 0 } }, beside[2] = { { 0 } };
    uint64_t sessions[2], ids[2];

    (void)state;
    start("none");
    fill(sessions, 1);
    for (int i = 0; i < 2; i++) {
        struct wire_req m = { .kind = WIRE_REWIND };

        ids[i] = start_answer(sessions[i], 3 * PAGE);
        hear(&ids[i], &alone[i], 1);
        m.id = ++last_id;
        m.u.rewind.session = sessions[i];
        m.u.rewind.n_tokens = PAGES / 2 * PAGE - 1;
        assert_int_equal(alone_ask(&a, chan, &m, NULL, &rep), WIRE_REWOUND);
    }
    for (int i = 0; i < 2; i++)
        ids[i] = start_answer(sessions[i], 3 * PAGE);
    hear(ids, beside, 2);
    assert_memory_equal(beside, alone, sizeof(alone));
    assert_int_equal(alone[0].n, 3 * PAGE);
    stop();
}

/* Stats every so often, so that a scheduler with nothing to do goes on turning. */
static struct chan *keep_turning(void)
{
    struct wire_req m = { .id = ++last_id, .kind = WIRE_WATCH, .u.watch.interval_ms = 100 };
    struct chan *other = alone_hello(&a, 2);

    alone_send(&a, other, &m, NULL);
    return other;
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
    start("none");
    fill(sessions, 1);
    other = keep_turning();
    work.client = find(sessions[1])->client;
    find(sessions[1])->busy = &work;
    for (int i = 0; i < 2; i++) {
        uint64_t id = start_answer(sessions[0], 3 * PAGE);

        while (!paused(id))
            (void)sched_turn(a.sched);
        if (i == 0) {
            m.id = ++last_id;
            m.u.cancel.request = id;
            alone_send(&a, chan, &m, NULL);
        } else {
            paused(id)->deadline_ns = a.sched->deadline_ns = 1;
        }
        assert_int_equal(wait_for(id), WIRE_ERROR);
        assert_int_equal(rep.u.error.code, i ? WIRE_E_DEADLINE : WIRE_E_CANCELLED);
        assert_int_equal(pages_of(sessions[0]), PAGES / 2);
    }
    find(sessions[1])->busy = NULL;
    chan_close(other);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hashes_each_once),    cmocka_unit_test(shared_pages_count_once),
        cmocka_unit_test(both_come_back),      cmocka_unit_test(both_come_back_and_read),
        cmocka_unit_test(too_much_is_told),    cmocka_unit_test(own_idle_ones_give_way),
        cmocka_unit_test(waits_for_its_own),   cmocka_unit_test(answer_waits_for_another),
        cmocka_unit_test(is_told_of_an_end),   cmocka_unit_test(not_in_a_circle),
        cmocka_unit_test(ends_while_it_waits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
