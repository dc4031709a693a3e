/* tests/test_gist_cache.c - libgist's view of what is kept on disk, against a daemon that says what
 * the test tells it to. Would catch: a field that is lost on the way to the caller, rows of a frame
 * that are given twice or not at all, a callback that is called after it refused, an end that is
 * told twice, a store that is off taken for one that is empty.
 */
#include "client/gist.h"
#include "tests/support/fake_daemon.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct fake_daemon fake;
static gist_conn *conn;

static void begin(fake_script *script)
{
    fake_start(&fake, script, NULL);
    assert_int_equal(gist_connect(fake.path, "test", &conn), 0);
}

static void end(void)
{
    gist_disconnect(conn);
    conn = NULL;
    assert_int_equal(fake_stop(&fake), 0);
}

static const struct wire_cache_row rows[] = { { 1, 2, 3, 4, 5, 6, 7, true },
                                              { 8, 9, 10, 11, 12, 13, 0, false } };
#define SUM ((struct wire_cache_rows){ NULL, 0, 10, 11, 12, 13, 14, 15, 16, 17, 18 })

static void send_rows(struct fake_daemon *d, uint32_t n)
{
    struct wire_rep rep = { .kind = WIRE_CACHE_ROWS, .u.cache_rows = SUM };

    rep.u.cache_rows.row = rows;
    rep.u.cache_rows.n_row = n;
    fake_reply(d, rep, NULL, 0);
}

static void send_last(struct fake_daemon *d)
{
    fake_last(d, (struct wire_rep){ .kind = WIRE_CACHE_ROWS, .u.cache_rows = SUM });
}

static void check_sum(const struct gist_cache_sum *s)
{
    assert_int_equal(s->records, 10);
    assert_int_equal(s->bytes, 11);
    assert_int_equal(s->tokens, 12);
    assert_int_equal(s->packed_records, 13);
    assert_int_equal(s->packed_bytes, 14);
    assert_int_equal(s->bad_records, 15);
    assert_int_equal(s->bad_bytes, 16);
    assert_int_equal(s->total, 17);
    assert_int_equal(s->unread_records, 18);
}

struct heard {
    uint32_t n_calls, n_rows, stop_at;
    int n_done, err;
};

static int on_rows(void *arg, const struct gist_cache_row *x, size_t n,
                   const struct gist_cache_sum *so_far)
{
    struct heard *h = arg;

    check_sum(so_far);
    if (n > 0) {
        assert_true(x[0].id == 1 && x[0].bytes == 2 && x[0].used_s == 3 && x[0].cost_ns == 4);
        assert_true(x[0].n_tokens == 5 && x[0].n_keys == 6 && x[0].depth == 7 && x[0].packed);
    }
    if (n > 1)
        assert_true(x[1].id == 8 && !x[1].packed);
    h->n_rows += (uint32_t)n;
    return ++h->n_calls == h->stop_at;
}

static void on_done(void *arg, int err, const struct gist_cache_sum *sum)
{
    struct heard *h = arg;

    h->n_done++;
    h->err = err;
    if (err == 0)
        check_sum(sum);
    else
        assert_null(sum);
}

static void expect_cache(struct fake_daemon *d, enum wire_cache_verb verb)
{
    fake_expect(d, WIRE_CACHE);
    FAKE_CHECK(d->req.u.cache.verb == verb);
}

static void script_all(struct fake_daemon *d, void *arg)
{
    (void)arg;
    expect_cache(d, WIRE_CACHE_LIST);
    FAKE_CHECK(d->req.u.cache.after == 77 && d->req.u.cache.public_records);
    send_rows(d, 2);
    send_rows(d, 1);
    send_last(d);
    expect_cache(d, WIRE_CACHE_PRUNE);
    FAKE_CHECK(d->req.u.cache.bytes == 1ull << 40 && !d->req.u.cache.public_records);
    send_last(d);
    expect_cache(d, WIRE_CACHE_FORGET);
    send_last(d);
    expect_cache(d, WIRE_CACHE_VERIFY);
    send_rows(d, 0);
    send_last(d);
    expect_cache(d, WIRE_CACHE_STAT);
    fake_error(d, WIRE_E_STORAGE, "nothing is kept");
}

static void every_verb_and_field(void **state)
{
    struct gist_cache_opts o = { .size = sizeof(o), .after = 77, .flags = GIST_CACHE_PUBLIC };
    struct heard h = { 0 };
    struct gist_cache_sum sum;

    (void)state;
    begin(script_all);
    assert_int_equal(gist_cache(conn, GIST_CACHE_LIST, &o, on_rows, &h, &sum), 0);
    check_sum(&sum);
    assert_int_equal(h.n_calls, 2);
    assert_int_equal(h.n_rows, 3);
    o = (struct gist_cache_opts){ .size = sizeof(o), .bytes = 1ull << 40 };
    assert_int_equal(gist_cache(conn, GIST_CACHE_PRUNE, &o, NULL, NULL, NULL), 0);
    assert_int_equal(gist_cache(conn, GIST_CACHE_FORGET, NULL, NULL, NULL, &sum), 0);
    assert_int_equal(gist_cache(conn, GIST_CACHE_VERIFY, NULL, on_rows, &h, &sum), 0);
    assert_int_equal(h.n_calls, 3);
    assert_int_equal(gist_cache(conn, GIST_CACHE_STAT, NULL, NULL, NULL, &sum), -EROFS);
    assert_string_equal(gist_error(conn), "nothing is kept");
    /* What we don't know is not sent. */
    o.flags = 8;
    assert_int_equal(gist_cache(conn, GIST_CACHE_STAT, &o, NULL, NULL, &sum), -EINVAL);
    assert_int_equal(
        gist_cache(conn, (enum gist_cache_verb)(GIST_CACHE_FORGET + 1), NULL, NULL, NULL, &sum),
        -EINVAL);
    end();
}

/* Says how far it is for ever, until it is told to stop. */
static void script_endless(struct fake_daemon *d, void *arg)
{
    uint64_t id;

    (void)arg;
    expect_cache(d, WIRE_CACHE_VERIFY);
    id = d->req.id;
    fake_release(d);
    while (!chan_readable(d->chan)) {
        struct wire_rep rep = { .id = id, .kind = WIRE_CACHE_ROWS, .u.cache_rows = SUM };

        fake_reply(d, rep, NULL, 0);
    }
    fake_expect(d, WIRE_CANCEL);
    FAKE_CHECK(d->req.u.cancel.request == id);
    fake_last(d, (struct wire_rep){ .kind = WIRE_CANCELLED, .u.cancelled.found = true });
    fake_reply(d,
               (struct wire_rep){ .id = id,
                                  .last = true,
                                  .kind = WIRE_ERROR,
                                  .u.error = { .code = WIRE_E_CANCELLED, .text = "cancelled" } },
               NULL, 0);
    fake_drain(d);
}

static void the_callback_cancels(void **state)
{
    struct heard h = { .stop_at = 3 };
    struct gist_cache_sum sum = { .records = 99 };

    (void)state;
    begin(script_endless);
    assert_int_equal(gist_cache(conn, GIST_CACHE_VERIFY, NULL, on_rows, &h, &sum), -ECANCELED);
    assert_int_equal(h.n_calls, 3); /* and no further call */
    assert_int_equal(sum.records, 99);
    end();
}

static void without_waiting(void **state)
{
    struct heard h = { 0 };
    struct pollfd p = { .events = POLLIN };
    uint64_t id;

    (void)state;
    begin(script_endless);
    assert_int_equal(gist_cache_start(conn, GIST_CACHE_VERIFY, NULL, on_rows, on_done, &h, &id), 0);
    p.fd = gist_fd(conn);
    while (h.n_done == 0) {
        assert_int_equal(poll(&p, 1, FAKE_PATIENCE_MS), 1);
        assert_true(gist_dispatch(conn) >= 0);
        if (h.n_calls > 0 && h.n_done == 0)
            (void)gist_cancel(conn, id);
    }
    assert_int_equal(h.n_done, 1);
    assert_int_equal(h.err, -ECANCELED);
    end();
}

/* --- Stats ------------------------------------------------------------------------------------ */

static const struct wire_stats_store store = {
    1,         2,  3,  4,  5,  6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 19, "the disk is full",
    "threads", 18, 20, 21, 22, 23
};

static void script_stats(struct fake_daemon *d, void *arg)
{
    (void)arg;
    fake_expect(d, WIRE_GET_STATS);
    fake_last(d, (struct wire_rep){ .kind = WIRE_STATS, .u.stats = { .store = &store } });
    fake_expect(d, WIRE_GET_STATS);
    fake_last(d, (struct wire_rep){ .kind = WIRE_STATS, .u.stats = { .store_off = "no folder" } });
}

static void stats_of_the_store(void **state)
{
    struct gist_stats s;

    (void)state;
    begin(script_stats);
    assert_int_equal(gist_stats(conn, &s), 0);
    assert_non_null(s.store);
    assert_true(s.store->bytes == 1 && s.store->limit == 2 && s.store->records == 3);
    assert_true(s.store->names == 4 && s.store->written == 5 && s.store->written_today == 6);
    assert_true(s.store->write_a_day == 7 && s.store->puts == 8 && s.store->gets == 9);
    assert_true(s.store->hits == 10 && s.store->misses == 11 && s.store->refused == 12);
    assert_true(s.store->evicted == 13 && s.store->expired == 14);
    assert_true(s.store->read_bytes == 15 && s.store->read_ns == 16);
    assert_true(s.store->pinned_pages == 17 && s.store->pending == 19 && s.store->degraded_s == 18);
    assert_string_equal(s.store->degraded, "the disk is full");
    assert_string_equal(s.store->io, "threads");
    assert_true(s.store->restored_tokens == 20 && s.store->computed_instead == 21);
    assert_true(s.store->forgotten == 22 && s.store->ns_per_token == 23);
    assert_int_equal(gist_stats(conn, &s), 0);
    assert_null(s.store);
    assert_string_equal(s.store_off, "no folder");
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_verb_and_field),
        cmocka_unit_test(the_callback_cancels),
        cmocka_unit_test(without_waiting),
        cmocka_unit_test(stats_of_the_store),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
