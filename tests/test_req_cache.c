/* tests/test_req_cache.c - requests about what is kept on disk, slice by slice, over a store of
 * thousands of records and a channel whose reader is the test. Would catch: a slice that looks at
 * all records, also at those of others, a list with a record twice or not at all, rows that pile up
 * for a reader who does not read, a verification that reads for more than one at a time, that
 * misses a bad record or leaves it, that goes on when nobody waits for it, or frees what the disk
 * still reads for; one user's records shown to another, or deleted by another.
 */
#include "daemon/sched.h"
#include "store/inside.h"
#include "store/io.h"
#include "tests/support/made_store.h"
#include "tests/support/raw_client.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define ALICE  1000u
#define BOB    1001u
#define SLOTS  64u
#define N_MANY 5000u

struct stage {
    struct io *io;
    struct sched sched;
    struct store *store;
    struct wire_scratch out, in;
    uint64_t n_slices;   /* of work() that did something */
    uint32_t read_every; /* so many of them; more than there are: not before the ring is full */
};

/* One user's end of a channel. */
struct user {
    struct client *client;
    struct owners owners;
    struct owner *owner;
    struct chan *chan;
    uint64_t last_id;
    uint32_t n_rows, n_frames, n_last; /* that came */
    uint64_t last_row;
    struct wire_cache_rows sum;
    enum wire_error error;
    char text[256];
};

static void open_stage(struct stage *s, const char *name)
{
    const struct io_options o = { .kind = IO_AUTO };
    const struct store_limits limits = { .bytes = UINT64_C(1) << 40 };
    static struct config config; /* all zeros: nothing here looks at it */
    char path[SCRATCH_PATH_MAX];
    struct why why = { "" };

    *s = (struct stage){ .sched = { .config = &config }, .read_every = 1 };
    assert_int_equal(io_open(&o, &s->io, &why), 0);
    if (store_open(scratch_path(path, name), s->io, &limits, &s->store, &why) < 0)
        fail_msg("%s", why.text);
    s->sched.served.store = s->store;
    s->sched.served.stand_in = 65534;
    TAILQ_INIT(&s->sched.clients);
    TAILQ_INIT(&s->sched.active);
    assert_int_equal(wire_scratch_open(&s->sched.packed, WIRE_SCRATCH_BYTES), 0);
    assert_int_equal(wire_scratch_open(&s->sched.unpacked, WIRE_SCRATCH_BYTES), 0);
    assert_int_equal(wire_scratch_open(&s->out, WIRE_SCRATCH_BYTES), 0);
    assert_int_equal(wire_scratch_open(&s->in, WIRE_SCRATCH_BYTES), 0);
}

static void close_stage(struct stage *s)
{
    (void)store_close(s->store);
    io_close(s->io);
    wire_scratch_close(&s->sched.packed);
    wire_scratch_close(&s->sched.unpacked);
    wire_scratch_close(&s->out);
    wire_scratch_close(&s->in);
}

static void connect_user(struct user *u, uid_t uid)
{
    struct chan_geometry g = { SLOTS, CHAN_ARENA_MIN, CHAN_ARENA_MIN };
    struct mailbox_letter l = { .kind = MAILBOX_ADOPT, .client = uid, .uid = uid };
    const struct owner_limits limits = { .held = 1 << 20, .held_all = 1 << 20 };
    struct chan_fds fds;

    *u = (struct user){ .error = WIRE_E__N };
    assert_int_equal(chan_create(&g, &l.chan), 0);
    fds = chan_fds(l.chan);
    fds = (struct chan_fds){ dup(fds.memfd), dup(fds.to_server), dup(fds.to_client) };
    assert_int_equal(chan_attach(&g, fds, &u->chan), 0);
    owners_init(&u->owners, &limits);
    u->owner = owner_ref(&u->owners, uid);
    assert_int_equal(client_new(&l, u->owner, 1, 1 << 20, &u->client), 0);
    u->client->greeted = true;
}

/* As the scheduler buries one. */
static void leave(struct stage *s, struct user *u)
{
    for (uint32_t i = 0; i < CLIENT_REQUESTS_ALL; i++)
        if (u->client->requests[i].phase != REQUEST_FREE)
            request_drop(&s->sched, &u->client->requests[i]);
    client_free(u->client);
    owner_unref(&u->owners, u->owner);
    owners_fini(&u->owners);
    chan_close(u->chan);
}

static uint64_t ask(struct stage *s, struct user *u, struct wire_req m)
{
    struct chan_msg msg;

    m.id = ++u->last_id;
    assert_int_equal(raw_client_put(u->chan, &s->out, &m, NULL), 0);
    assert_int_equal(chan_recv(u->client->chan, &msg), 0);
    request_receive(&s->sched, u->client, &msg);
    chan_release(u->client->chan);
    return m.id;
}

static uint64_t ask_cache(struct stage *s, struct user *u, enum wire_cache_verb verb)
{
    return ask(s, u, (struct wire_req){ .kind = WIRE_CACHE, .u.cache.verb = verb });
}

static void take_reply(struct user *u, const struct wire_rep *rep)
{
    u->n_last += rep->last;
    if (rep->kind == WIRE_ERROR) {
        u->error = rep->u.error.code;
        (void)snprintf(u->text, sizeof(u->text), "%s", rep->u.error.text);
        return;
    }
    if (rep->kind != WIRE_CACHE_ROWS)
        return;
    u->sum = rep->u.cache_rows;
    u->n_frames += rep->u.cache_rows.n_row > 0;
    for (uint32_t i = 0; i < rep->u.cache_rows.n_row; i++) {
        const struct wire_cache_row *row = &rep->u.cache_rows.row[i];

        assert_true(row->id > u->last_row);
        assert_int_equal(row->bytes, MADE_BYTES);
        assert_int_equal(row->tokens, 16);
        assert_int_equal(row->keys, 16);
        assert_int_equal(row->cost_ns, 1000000);
        assert_false(row->packed);
        u->last_row = row->id;
        u->n_rows++;
    }
}

static bool read_replies(struct stage *s, struct user *u)
{
    bool any = false;
    struct chan_msg msg;
    struct wire_rep rep;

    while (chan_recv(u->chan, &msg) == 0) {
        assert_int_equal(wire_rep_unpack(&s->in, msg.frame, msg.frame_len, &rep), 0);
        take_reply(u, &rep);
        chan_release(u->chan);
        any = true;
    }
    return any;
}

/* Between two steps: what came back from the disk, and a slice for each request. */
static bool step(struct stage *s)
{
    struct request *r, *next;
    bool any = store_pump(s->store);

    for (r = TAILQ_FIRST(&s->sched.active); r; r = next) {
        bool did = r->phase == REQUEST_WORK && r->ops->work && r->ops->work(&s->sched, r);

        next = TAILQ_NEXT(r, link);
        s->n_slices += did;
        any |= did;
        request_deliver(&s->sched, r);
    }
    return any;
}

/* Until n last replies have come in all; a reader that reads. A step that did nothing is followed
 * by sleep: then only the disk wakes the scheduler, or a reader whose reply had found no room. */
static void serve(struct stage *s, struct user *u, uint32_t n_last)
{
    while (u->n_last < n_last) {
        bool did, blocked;

        u->client->blocked = false;
        did = step(s);
        blocked = u->client->blocked;
        if (!did && s->store->n_jobs > 0)
            (void)io_wait(s->io);
        else if (!did && !(read_replies(s, u) && (blocked || u->n_last >= n_last)))
            fail_msg("the scheduler sleeps, and %u of %u replies have come", u->n_last, n_last);
        if (did && s->n_slices % s->read_every == 0)
            (void)read_replies(s, u);
    }
}

/* --- counting, listing ------------------------------------------------------------------------ */

static void lists_by_the_frame(void **state)
{
    char path[SCRATCH_PATH_MAX];
    struct stage s;
    struct user u;

    (void)state;
    made_store(scratch_path(path, "list"), ALICE, 0, N_MANY, 0);
    made_store(path, BOB, 0, 10, 0);
    open_stage(&s, "list");
    connect_user(&u, ALICE);
    (void)ask_cache(&s, &u, WIRE_CACHE_STAT);
    serve(&s, &u, 1);
    assert_int_equal(u.sum.records, N_MANY);
    assert_int_equal(u.sum.bytes, (uint64_t)N_MANY * MADE_BYTES);
    assert_int_equal(u.sum.tokens, N_MANY * 16);
    assert_true(s.n_slices >= N_MANY / 1024);
    s.n_slices = 0;
    (void)ask_cache(&s, &u, WIRE_CACHE_LIST);
    serve(&s, &u, 2);
    assert_int_equal(u.n_rows, N_MANY);
    assert_int_equal(u.sum.records, N_MANY);
    assert_true(s.n_slices >= N_MANY / WIRE_CACHE_ROWS_MAX);
    assert_int_equal(u.n_frames, (N_MANY + WIRE_CACHE_ROWS_MAX - 1) / WIRE_CACHE_ROWS_MAX);
    /* Once more, read when the ring is full, and then all of it. */
    u.n_rows = 0;
    u.last_row = 0;
    s.read_every = UINT32_MAX;
    (void)ask_cache(&s, &u, WIRE_CACHE_LIST);
    serve(&s, &u, 3);
    assert_int_equal(u.n_rows, N_MANY);
    /* From the end on. */
    u.n_rows = 0;
    (void)ask(&s, &u,
              (struct wire_req){ .kind = WIRE_CACHE,
                                 .u.cache = { .verb = WIRE_CACHE_LIST, .after = u.last_row } });
    serve(&s, &u, 4);
    assert_int_equal(u.n_rows, 0);
    leave(&s, &u);
    close_stage(&s);
}

/* Who does not read has a ring full of frames and one more, and costs no more slices; a ping is
 * answered before the list ends. */
static void a_slow_reader_waits(void **state)
{
    struct stage s;
    struct user u;
    uint64_t slices;

    (void)state;
    open_stage(&s, "list");
    connect_user(&u, ALICE);
    (void)ask_cache(&s, &u, WIRE_CACHE_LIST);
    (void)ask(&s, &u, (struct wire_req){ .kind = WIRE_PING });
    while (step(&s))
        ;
    slices = s.n_slices;
    assert_true(slices <= SLOTS + 1);
    for (int i = 0; i < 100; i++)
        assert_false(step(&s));
    assert_int_equal(s.n_slices, slices);
    read_replies(&s, &u);
    assert_int_equal(u.n_last, 1); /* the ping's */
    serve(&s, &u, 2);
    assert_int_equal(u.n_rows, N_MANY);
    leave(&s, &u);
    close_stage(&s);
}

/* BOB has ten records behind thousands of ALICE's: his requests look past them in slices, too. */
static void others_are_passed_in_slices(void **state)
{
    struct store_item it = { .id = 0 };
    struct stage s;
    struct user u;
    uint32_t n = 0;

    (void)state;
    open_stage(&s, "list");
    connect_user(&u, BOB);
    (void)ask_cache(&s, &u, WIRE_CACHE_LIST);
    serve(&s, &u, 1);
    assert_int_equal(u.n_rows, 10);
    assert_int_equal(u.sum.bytes, 10 * MADE_BYTES);
    /* Nobody's: some looks that each end before the last record, then none. */
    for (uint64_t at = UINT64_MAX; it.id != at; n++) {
        at = it.id;
        assert_false(store_next(s.store, 7, &it));
    }
    assert_true(n > 1);
    leave(&s, &u);
    close_stage(&s);
}

/* --- verifying -------------------------------------------------------------------------------- */

#define N_SOME 600u
#define BAD    50u

static void verifies_and_deletes_what_is_bad(void **state)
{
    char path[SCRATCH_PATH_MAX];
    struct stage s;
    struct user u;

    (void)state;
    made_store(scratch_path(path, "bad"), ALICE, 0, N_SOME, BAD);
    made_store(path, BOB, 0, 20, 2);
    open_stage(&s, "bad");
    connect_user(&u, ALICE);
    (void)ask_cache(&s, &u, WIRE_CACHE_VERIFY);
    serve(&s, &u, 1);
    assert_int_equal(u.error, WIRE_E__N);
    assert_int_equal(u.sum.total, N_SOME);
    assert_int_equal(u.sum.records, N_SOME);
    assert_int_equal(u.sum.bad_records, N_SOME / BAD);
    assert_int_equal(u.sum.bad_bytes, N_SOME / BAD * MADE_BYTES);
    assert_int_equal(u.sum.unread_records, 0);
    (void)ask_cache(&s, &u, WIRE_CACHE_VERIFY);
    serve(&s, &u, 2);
    assert_int_equal(u.sum.records, N_SOME - N_SOME / BAD);
    assert_int_equal(u.sum.bad_records, 0);
    leave(&s, &u);
    /* BOB's were not looked at. */
    connect_user(&u, BOB);
    (void)ask_cache(&s, &u, WIRE_CACHE_STAT);
    serve(&s, &u, 1);
    assert_int_equal(u.sum.records, 20);
    leave(&s, &u);
    close_stage(&s);
}

/* Sixty of one client are one at a time; some are cancelled, then the client is gone while the disk
 * reads for it, and another one's goes on. */
static void sixty_are_one(void **state)
{
    struct stage s;
    struct user u, v;
    uint64_t ids[60];

    (void)state;
    open_stage(&s, "bad");
    connect_user(&u, ALICE);
    for (int i = 0; i < 60; i++)
        ids[i] = ask_cache(&s, &u, WIRE_CACHE_VERIFY);
    for (int i = 0; i < 200; i++) {
        (void)step(&s);
        assert_true(s.store->n_jobs <= 2);
    }
    for (int i = 0; i < 30; i++) { /* the first of them is the one that reads */
        struct request *r = client_find_request(u.client, ids[i]);

        if (!r || r->phase == REQUEST_LAST)
            continue;
        request_fail(&s.sched, r, WIRE_E_CANCELLED, REQUEST_NO_NUMBERS, "cancelled");
        request_deliver(&s.sched, r);
    }
    read_replies(&s, &u);
    assert_int_equal(u.error, WIRE_E_CANCELLED);
    for (int i = 0; i < 20; i++)
        (void)step(&s);
    assert_true(s.store->n_jobs <= 4); /* those of the cancelled one end */
    connect_user(&v, BOB);
    (void)ask_cache(&s, &v, WIRE_CACHE_VERIFY);
    leave(&s, &u);
    serve(&s, &v, 1);
    assert_int_equal(v.sum.records, 20);
    assert_int_equal(v.sum.bad_records, 10);
    leave(&s, &v);
    assert_true(TAILQ_EMPTY(&s.sched.active));
    close_stage(&s);
}

/* The store ends while a dead client's records are being read. */
static void the_store_ends_first(void **state)
{
    struct stage s;
    struct user u;

    (void)state;
    open_stage(&s, "bad");
    connect_user(&u, ALICE);
    (void)ask_cache(&s, &u, WIRE_CACHE_VERIFY);
    for (int i = 0; i < 10; i++)
        (void)step(&s);
    assert_true(s.store->n_jobs > 0);
    leave(&s, &u);
    close_stage(&s);
}

/* --- deleting --------------------------------------------------------------------------------- */

static uint64_t records_of(struct stage *s, uid_t uid)
{
    struct user u;
    uint64_t n;

    connect_user(&u, uid);
    (void)ask_cache(s, &u, WIRE_CACHE_STAT);
    serve(s, &u, 1);
    n = u.sum.records;
    leave(s, &u);
    return n;
}

static void prunes_and_forgets_ones_own(void **state)
{
    char path[SCRATCH_PATH_MAX];
    struct stage s;
    struct user u;

    (void)state;
    made_store(scratch_path(path, "gone"), ALICE, 0, 1000, 0);
    made_store(path, BOB, 0, 30, 0);
    open_stage(&s, "gone");
    connect_user(&u, ALICE);
    (void)ask(
        &s, &u,
        (struct wire_req){ .kind = WIRE_CACHE,
                           .u.cache = { .verb = WIRE_CACHE_PRUNE, .bytes = 300 * MADE_BYTES } });
    serve(&s, &u, 1);
    assert_int_equal(u.sum.records, 700);
    assert_int_equal(u.sum.bytes, 700 * MADE_BYTES);
    assert_true(s.n_slices > 700 / 64);
    assert_int_equal(records_of(&s, ALICE), 300);
    (void)ask(
        &s, &u,
        (struct wire_req){ .kind = WIRE_CACHE,
                           .u.cache = { .verb = WIRE_CACHE_PRUNE, .bytes = 300 * MADE_BYTES } });
    serve(&s, &u, 2);
    assert_int_equal(u.sum.records, 0);
    (void)ask_cache(&s, &u, WIRE_CACHE_FORGET);
    serve(&s, &u, 3);
    assert_int_equal(u.sum.records, 300);
    assert_int_equal(records_of(&s, ALICE), 0);
    assert_int_equal(records_of(&s, BOB), 30);
    leave(&s, &u);
    close_stage(&s);
    /* On the disk, too. */
    open_stage(&s, "gone");
    assert_int_equal(records_of(&s, ALICE), 0);
    assert_int_equal(records_of(&s, BOB), 30);
    close_stage(&s);
}

static void public_records_are_nobodys(void **state)
{
    static const struct wire_req forget = { .kind = WIRE_CACHE,
                                            .u.cache = { .verb = WIRE_CACHE_FORGET,
                                                         .public_records = true } },
                                 list = { .kind = WIRE_CACHE,
                                          .u.cache = { .verb = WIRE_CACHE_LIST,
                                                       .public_records = true } };
    char path[SCRATCH_PATH_MAX];
    struct stage s;
    struct user u;

    (void)state;
    made_store(scratch_path(path, "public"), STORE_PUBLIC, 0, 5, 0);
    open_stage(&s, "public");
    connect_user(&u, geteuid() + 77);
    (void)ask(&s, &u, list);
    serve(&s, &u, 1);
    assert_int_equal(u.n_rows, 5);
    (void)ask(&s, &u, forget);
    serve(&s, &u, 2);
    assert_int_equal(u.error, WIRE_E_BAD_REQUEST);
    assert_non_null(strstr(u.text, "only root and the daemon's own user"));
    leave(&s, &u);
    connect_user(&u, geteuid());
    (void)ask(&s, &u, forget);
    serve(&s, &u, 1);
    assert_int_equal(u.error, WIRE_E__N);
    assert_int_equal(u.sum.records, 5);
    leave(&s, &u);
    close_stage(&s);
}

/* --- refusals --------------------------------------------------------------------------------- */

static void who_has_nothing_hears_why(void **state)
{
    struct stage s;
    struct user u;

    (void)state;
    open_stage(&s, "none");
    connect_user(&u, 65534); /* the stand-in */
    (void)ask_cache(&s, &u, WIRE_CACHE_STAT);
    serve(&s, &u, 1);
    assert_int_equal(u.error, WIRE_E_STORAGE);
    assert_non_null(strstr(u.text, "cannot tell apart"));
    leave(&s, &u);
    s.sched.served.store = NULL;
    (void)why_set(&s.sched.served.store_why, 0, "store = none");
    connect_user(&u, ALICE);
    (void)ask_cache(&s, &u, WIRE_CACHE_LIST);
    serve(&s, &u, 1);
    assert_int_equal(u.error, WIRE_E_STORAGE);
    assert_non_null(strstr(u.text, "keeps nothing on disk: store = none"));
    leave(&s, &u);
    close_stage(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_by_the_frame),
        cmocka_unit_test(a_slow_reader_waits),
        cmocka_unit_test(others_are_passed_in_slices),
        cmocka_unit_test(verifies_and_deletes_what_is_bad),
        cmocka_unit_test(sixty_are_one),
        cmocka_unit_test(the_store_ends_first),
        cmocka_unit_test(prunes_and_forgets_ones_own),
        cmocka_unit_test(public_records_are_nobodys),
        cmocka_unit_test(who_has_nothing_hears_why),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
