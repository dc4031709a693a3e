#include "tests/support/room_rig.h"

#include "daemon/generate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct room_rig room;

void room_rig_start(const char *store)
{
    static size_t page_bytes;

    for (int i = page_bytes ? 1 : 0; i < 2; i++) {
        alone_open(&room.a, store, 1);
        if (page_bytes)
            room.a.config.kv_bytes = ROOM_PAGES * page_bytes;
        room.a.config.prefix_cache = false;
        room.a.config.store_idle_ms = 1;
        alone_begin(&room.a);
        if (i == 1)
            break;
        page_bytes = room.a.sched->served.pool.page_bytes;
        alone_end(&room.a);
    }
    assert_int_equal(room.a.sched->served.pool.n_pages, ROOM_PAGES);
    room.chan = alone_hello(&room.a, 1);
    room.last_id = 1;
}

void room_rig_stop(void)
{
    alone_end(&room.a);
    chan_close(room.chan);
}

uint64_t room_rig_open_memory(enum wire_priority priority, struct wire_memory memory)
{
    struct wire_req m = { .id = ++room.last_id,
                          .kind = WIRE_OPEN_SESSION,
                          .u.open_session.label = "",
                          .u.open_session.priority = priority,
                          .u.open_session.has_segment = true,
                          .u.open_session.segment = 64,
                          .u.open_session.memory = memory };

    assert_int_equal(alone_ask(&room.a, room.chan, &m, NULL, &room.rep), WIRE_SESSION_OPENED);
    return room.rep.u.session_opened.session;
}

uint64_t room_rig_open_budget(enum wire_priority priority, uint32_t budget)
{
    return room_rig_open_memory(priority,
                                (struct wire_memory){ .has_budget = budget > 0, .budget = budget });
}

uint64_t room_rig_open(enum wire_priority priority)
{
    return room_rig_open_budget(priority, 0);
}

uint64_t room_rig_append_ids(uint64_t session, const uint32_t *ids, uint32_t n)
{
    struct wire_req m = { .id = ++room.last_id, .kind = WIRE_APPEND, .bulk_len = n * sizeof(*ids) };

    m.u.append.session = session;
    m.u.append.kind = WIRE_APPEND_TOKENS;
    alone_send(&room.a, room.chan, &m, ids);
    return m.id;
}

uint64_t room_rig_append(uint64_t session, uint32_t n)
{
    static uint32_t ids[ROOM_PAGES * ROOM_PAGE];
    static unsigned seed = 1;

    for (uint32_t i = 0; i < n; i++)
        ids[i] = 40 + (uint32_t)rand_r(&seed) % 80;
    return room_rig_append_ids(session, ids, n);
}

uint64_t room_rig_answer(uint64_t session, uint32_t n)
{
    struct wire_req m = { .id = ++room.last_id, .kind = WIRE_GENERATE };

    m.u.generate.session = session;
    m.u.generate.max_tokens = n;
    m.u.generate.ignore_eog = true;
    alone_send(&room.a, room.chan, &m, NULL);
    return m.id;
}

/* The last reply of this request. */
enum wire_rep_kind room_rig_wait(uint64_t id)
{
    do
        (void)alone_reply(&room.a, room.chan, &room.rep);
    while (room.rep.id != id || !room.rep.last);
    if (room.rep.kind == WIRE_ERROR)
        printf("%s\n", room.rep.u.error.text);
    return room.rep.kind;
}

enum wire_rep_kind room_rig_read(uint64_t session, uint32_t n)
{
    return room_rig_wait(room_rig_append(session, n));
}

struct session *room_rig_session(uint64_t id)
{
    struct session *x;
    struct client *c;

    TAILQ_FOREACH (c, &room.a.sched->clients, link)
        TAILQ_FOREACH (x, &c->sessions, link)
            if (x->id == id)
                return x;
    fail_msg("session %lu is not there", (unsigned long)id);
    return NULL;
}

uint32_t room_rig_pages(uint64_t session)
{
    return room_rig_session(session)->seq.n_pages;
}

void room_rig_shut(uint64_t session)
{
    struct wire_req m = { .id = ++room.last_id, .kind = WIRE_CLOSE_SESSION };

    m.u.close_session.session = session;
    (void)alone_ask(&room.a, room.chan, &m, NULL, &room.rep);
}

/* Ends of requests [0, n), in any order: all as they should. */
void room_rig_all_end(const uint64_t *ids, uint32_t n, enum wire_rep_kind kind)
{
    for (uint32_t left = n; left > 0;) {
        (void)alone_reply(&room.a, room.chan, &room.rep);
        for (uint32_t i = 0; i < n; i++) {
            if (room.rep.id != ids[i] || !room.rep.last)
                continue;
            if (room.rep.kind == WIRE_ERROR)
                fail_msg("request %lu: %s", (unsigned long)room.rep.id, room.rep.u.error.text);
            assert_int_equal(room.rep.kind, kind);
            if (kind == WIRE_DONE)
                assert_int_equal(room.rep.u.done.reason, WIRE_REASON_LENGTH);
            left--;
        }
    }
}

struct request *room_rig_request(uint64_t id)
{
    struct request *r;

    TAILQ_FOREACH (r, &room.a.sched->active, link)
        if (r->id == id)
            return r;
    return NULL;
}

struct request *room_rig_paused(uint64_t id)
{
    struct request *r = room_rig_request(id);

    return r && r->paused ? r : NULL;
}

/* Two sessions that have all pages. The second one's last page has room for n more tokens. */
void room_rig_fill(uint64_t ret[2], uint32_t n)
{
    for (int i = 0; i < 2; i++) {
        ret[i] = room_rig_open(WIRE_INTERACTIVE);
        assert_int_equal(room_rig_read(ret[i], ROOM_PAGES / 2 * ROOM_PAGE - (i ? n : 1)),
                         WIRE_APPENDED);
        assert_int_equal(room_rig_pages(ret[i]), ROOM_PAGES / 2);
    }
}

/* Stats every so often, so that a scheduler with nothing to do goes on turning. */
struct chan *room_rig_turns(void)
{
    struct wire_req m = { .id = ++room.last_id, .kind = WIRE_WATCH, .u.watch.interval_ms = 100 };
    struct chan *other = alone_hello(&room.a, 2);

    alone_send(&room.a, other, &m, NULL);
    return other;
}

void room_rig_start_two(void)
{
    room_rig_start("none");
    room.second = alone_hello(&room.a, 2);
}

void room_rig_stop_two(void)
{
    room_rig_stop();
    chan_close(room.second);
}

void room_rig_swap(void)
{
    struct chan *c = room.chan;

    room.chan = room.second;
    room.second = c;
}

static void note(const struct wire_rep *rep, struct room_said *said, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        struct room_said *x = &said[i];

        if (rep->id != x->id)
            continue;
        for (uint32_t k = 0; rep->kind == WIRE_TEXT && k < rep->u.text.n_ids; k++)
            if (x->n < ROOM_SAID_MAX)
                x->ids[x->n++] = rep->u.text.tokens[k];
        if (rep->kind == WIRE_DONE && x->n_ends < 4)
            x->reasons[x->n_ends++] = rep->u.done.reason;
        if (rep->kind == WIRE_DONE)
            x->generated = rep->u.done.usage.generated_tokens;
        if (rep->kind == WIRE_ERROR)
            x->code = rep->u.error.code;
        x->over |= rep->last;
        x->kind = rep->kind;
    }
}

/* All that is there, from both; then a turn. */
void room_rig_turn(struct room_said *said, uint32_t n)
{
    struct chan *both[2] = { room.chan, room.second };
    struct chan_msg msg;

    assert_true(sched_turn(room.a.sched));
    for (int i = 0; i < 2; i++)
        while (chan_recv(both[i], &msg) == 0) {
            assert_int_equal(wire_rep_unpack(&room.a.scratch, msg.frame, msg.frame_len, &room.rep),
                             0);
            note(&room.rep, said, n);
            chan_release(both[i]);
        }
}

void room_rig_over(struct room_said *said, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        while (!said[i].over)
            room_rig_turn(said, n);
}

/* How far a real request is when another one looks is a matter of time. */
void room_rig_at_work(uint64_t session, struct request *work)
{
    struct session *x = room_rig_session(session);

    work->ops = work->ops ? work->ops : &request_generate;
    work->client = x->client;
    work->session = x;
    work->memory = &x->memory;
    room.n_made_up += !x->busy;
    x->busy = work;
}

void room_rig_done(uint64_t session)
{
    room_rig_session(session)->busy = NULL;
    room.n_made_up--;
}

/* A session of the second client, of so many pages. */
uint64_t room_rig_other(uint32_t n_pages)
{
    uint64_t id;

    room_rig_swap();
    id = room_rig_open(WIRE_INTERACTIVE);
    assert_int_equal(room_rig_read(id, n_pages * ROOM_PAGE - 1), WIRE_APPENDED);
    room_rig_swap();
    return id;
}

void room_rig_end(uint64_t id, enum room_end how)
{
    struct wire_req m = { .id = ++room.last_id, .kind = WIRE_CANCEL };
    struct mailbox_letter dead = { .kind = MAILBOX_DEAD, .client = 1 };

    m.u.cancel.request = id;
    if (how == ROOM_END_CANCEL)
        alone_send(&room.a, room.chan, &m, NULL);
    else if (how == ROOM_END_DEADLINE) /* the clock is the request's own */
        room_rig_request(id)->deadline_ns = room.a.sched->deadline_ns = 1;
    else
        mailbox_put(&room.a.to, &dead);
}

bool room_rig_wakes(int timeout)
{
    if (timeout < 0 && room.n_made_up == 0 && room.a.sched->n_active > 0)
        fail_msg("the scheduler sleeps while %u requests are open", room.a.sched->n_active);
    return room.n_made_up > 0;
}
