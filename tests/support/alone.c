#include "tests/support/alone.h"

#include "tests/support/daemon_fixture.h"

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
