#include "tests/support/alone.h"

#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"

#include <errno.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

void alone_open(struct alone *a, const char *store, uint32_t threads)
{
    const char *model = daemon_fixture_model(DAEMON_FIXTURE_TINY);
    struct why why;

    config_defaults(&a->config);
    assert_int_equal(config_set(&a->config, "model", model, "test", &why), 0);
    assert_int_equal(config_set(&a->config, "store", store, "test", &why), 0);
    a->config.kv_bytes = 16 << 20;
    a->config.threads = threads;
    assert_int_equal(wire_scratch_open(&a->scratch, WIRE_SCRATCH_BYTES), 0);
    assert_int_equal(mailbox_open(&a->to, 4), 0);
    assert_int_equal(mailbox_open(&a->from, 4), 0);
    a->sched = calloc(1, sizeof(*a->sched));
    assert_non_null(a->sched);
    a->sched->config = &a->config;
    a->sched->inbox = &a->to;
    a->sched->outbox = &a->from;
}

void alone_close(struct alone *a)
{
    mailbox_close(&a->to);
    mailbox_close(&a->from);
    free(a->sched);
    wire_scratch_close(&a->scratch);
}

void alone_begin(struct alone *a)
{
    assert_true(sched_open(a->sched));
    alone_expect(&a->from, MAILBOX_READY);
}

void alone_end(struct alone *a)
{
    sched_close(a->sched);
    alone_expect(&a->from, MAILBOX_STOPPED);
    alone_close(a);
}

struct chan *alone_adopt(struct alone *a, uint64_t client, const char *unit)
{
    struct chan_geometry g = { ALONE_SLOTS, CHAN_ARENA_MIN, CHAN_ARENA_MIN };
    struct mailbox_letter l = { .kind = MAILBOX_ADOPT, .client = client, .pid = getpid() };
    struct chan_fds fds;
    struct chan *ours;

    assert_int_equal(chan_create(&g, &l.chan), 0);
    fds = chan_fds(l.chan);
    fds = (struct chan_fds){ dup(fds.memfd), dup(fds.to_server), dup(fds.to_client) };
    assert_int_equal(chan_attach(&g, fds, &ours), 0);
    l.unit = unit ? strdup(unit) : NULL;
    mailbox_put(&a->to, &l);
    return ours;
}

void alone_send(struct alone *a, struct chan *ours, const struct wire_req *m, const void *bulk)
{
    assert_int_equal(raw_client_put(ours, &a->scratch, m, bulk), 0);
}

enum wire_rep_kind alone_reply(struct alone *a, struct chan *ours, struct wire_rep *ret)
{
    struct chan_msg msg;
    int r;

    while ((r = chan_recv(ours, &msg)) == -EAGAIN)
        assert_true(sched_turn(a->sched));
    assert_int_equal(r, 0);
    assert_int_equal(wire_rep_unpack(&a->scratch, msg.frame, msg.frame_len, ret), 0);
    chan_release(ours);
    return ret->kind;
}

enum wire_rep_kind alone_ask(struct alone *a, struct chan *ours, const struct wire_req *m,
                             const void *bulk, struct wire_rep *ret)
{
    alone_send(a, ours, m, bulk);
    do
        (void)alone_reply(a, ours, ret);
    while (ret->id != m->id || !ret->last);
    return ret->kind;
}

struct chan *alone_hello(struct alone *a, uint64_t client)
{
    struct wire_req m = { .id = 1, .kind = WIRE_HELLO, .u.hello.client = "by hand" };
    struct chan *ours = alone_adopt(a, client, NULL);
    struct wire_rep rep;

    assert_int_equal(alone_ask(a, ours, &m, NULL, &rep), WIRE_WELCOME);
    return ours;
}

void alone_expect(struct mailbox *m, enum mailbox_kind kind)
{
    struct mailbox_letter l;

    do
        assert_true(mailbox_take(m, &l));
    while (l.kind != kind);
}
