/* tests/test_gist_broken.c - a daemon that dies or lies. Would catch: libgist that hangs, crashes
 * or says nothing of use then.
 */
#include "base/clock.h"
#include "tests/support/fake_client.h"
#include "tests/support/hostile.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void script_die(struct fake_daemon *d, void *arg)
{
    int when = *(int *)arg;

    if (when == 0)
        raise(SIGKILL);
    fake_expect(d, WIRE_OPEN_SESSION);
    if (when == 1)
        raise(SIGKILL);
    fake_answer(d);
    while (fake_take(d) && d->req.kind != WIRE_GENERATE)
        ;
    fake_text(d, 0, "last words");
    raise(SIGKILL);
}

static void test_death_at_any_moment(void **state)
{
    (void)state;
    for (int when = 0; when < 3; when++) {
        struct fake_heard h = { 0 }, g = { 0 };
        gist_session *s = NULL;
        uint64_t t0 = (clock_ns() / CLOCK_MS);
        int r;

        fake_start(&fake_peer, script_die, &when);
        r = gist_connect(fake_peer.path, "test", &fake_conn);
        assert_int_equal(r, 0);
        r = gist_open(fake_conn, NULL, &s);
        if (when == 2) {
            assert_int_equal(r, 0);
            assert_int_equal(gist_append_text_start(s, "x", 1, 0, fake_on_done, &g, NULL), 0);
            r = gist_generate(s, NULL, fake_on_text, &h, NULL);
        }
        assert_int_equal(r, -EPIPE);
        assert_int_equal(g.done, when == 2); /* told as well */
        assert_int_equal(gist_error_code(fake_conn), GIST_E_TRANSPORT);
        assert_non_null(strstr(gist_error(fake_conn), "stopped or it crashed"));
        assert_true((clock_ns() / CLOCK_MS) - t0 < FAKE_PATIENCE_MS);
        assert_int_equal(gist_ping(fake_conn), -EPIPE);
        assert_int_equal(gist_dispatch(fake_conn), -EPIPE);
        gist_close(s);
        gist_disconnect(fake_conn);
        assert_int_equal(fake_stop(&fake_peer), 137);
    }
}

static void test_death_seen_by_descriptor(void **state)
{
    struct fake_heard h = { 0 };
    struct pollfd p = { .events = POLLIN };
    gist_session *s;
    int r = 0;

    (void)state;
    fake_start(&fake_peer, script_die, &(int){ 2 });
    assert_int_equal(gist_connect(fake_peer.path, "test", &fake_conn), 0);
    s = fake_open();
    p.fd = gist_fd(fake_conn);
    assert_int_equal(gist_generate_start(s, NULL, fake_on_text, fake_on_done, &h, NULL), 0);
    while (r >= 0) {
        assert_int_equal(poll(&p, 1, FAKE_PATIENCE_MS), 1);
        r = gist_dispatch(fake_conn);
    }
    assert_int_equal(r, -EPIPE);
    assert_int_equal(h.err, -EPIPE);
    assert_int_equal(h.done, 1);
    assert_string_equal(h.text, "last words");
    assert_int_equal(poll(&p, 1, 0), 1); /* and stays readable */
    gist_disconnect(fake_conn);
    assert_int_equal(fake_stop(&fake_peer), 137);
}

enum lie {
    LIE_ID,
    LIE_KIND,
    LIE_FRAME,
    LIE_BULK_LEN,
    LIE_ROWS,
    LIE_LAST_TEXT,
    LIE_TURN,
    LIE_DESC_OFF,
    LIE_DESC_LEN,
    LIE_FRAME_LEN,
    LIE_HEAD,
    LIE__N
};

static void lie_in_memory(struct fake_daemon *d, enum lie lie)
{
    volatile struct hostile_slot *s;
    struct hostile h;

    FAKE_CHECK(hostile_map(&h, d->chan, &d->g) == 0);
    /* Giving a message back rings a client that waits for room. */
    *hostile_word(&h, HOSTILE_C2S, HOSTILE_ROOM) = 1;
    if (lie == LIE_HEAD) {
        *hostile_word(&h, HOSTILE_C2S, HOSTILE_HEAD) += 1000;
    } else {
        s = hostile_slot(&h, HOSTILE_S2C, 2); /* after Welcome and SessionOpened */
        s->off = lie == LIE_DESC_OFF ? CHAN_ARENA_MIN : 0;
        s->len = lie == LIE_DESC_LEN ? UINT32_MAX : 64;
        s->frame_len = lie == LIE_FRAME_LEN ? 65 : 64;
        __atomic_store_n(&s->turn, lie == LIE_TURN ? 1000 : 1, __ATOMIC_SEQ_CST);
        fake_release(d);
    }
    hostile_close(&h);
}

static void script_lie(struct fake_daemon *d, void *arg)
{
    enum lie lie = *(enum lie *)arg;
    uint8_t *f, *b;

    fake_expect(d, WIRE_OPEN_SESSION);
    fake_answer(d);
    fake_expect(d, WIRE_GENERATE);
    if (lie == LIE_ID) {
        fake_reply(d, (struct wire_rep){ .id = 999, .kind = WIRE_PONG, .last = true }, NULL, 0);
    } else if (lie == LIE_KIND) {
        fake_last(d, (struct wire_rep){ .kind = WIRE_SESSION_OPENED });
    } else if (lie == LIE_FRAME) {
        FAKE_CHECK(chan_reserve(d->chan, 100, 0, &f, &b) == 0);
        memset(f, 0xff, 100);
        chan_commit(d->chan);
    } else if (lie == LIE_BULK_LEN) {
        FAKE_CHECK(chan_reserve(d->chan, 4, 64, &f, &b) == 0);
        memcpy(f, "\x08\x02\x92\x01", 4);
        chan_commit(d->chan);
    } else if (lie == LIE_ROWS) {
        fake_reply(
            d,
            (struct wire_rep){ .kind = WIRE_SCORE_ROWS, .u.score_rows = { 0, 1u << 30, 1u << 30 } },
            "1234", 4);
    } else if (lie == LIE_LAST_TEXT) {
        fake_last(d, (struct wire_rep){ .kind = WIRE_TEXT });
    } else {
        lie_in_memory(d, lie);
        if (lie == LIE_HEAD) { /* taking a request would put it right */
            fake_done(d, 0, WIRE_REASON_STOP);
            (void)poll(&(struct pollfd){ d->sock, POLLIN, 0 }, 1, -1);
            return;
        }
    }
    fake_drain(d);
}

static void test_lies(void **state)
{
    (void)state;
    for (enum lie lie = 0; lie < LIE__N; lie++) {
        uint64_t t0 = (clock_ns() / CLOCK_MS);
        gist_session *s;
        int r = 0;

        fake_start(&fake_peer, script_lie, &lie);
        assert_int_equal(gist_connect(fake_peer.path, "test", &fake_conn), 0);
        s = fake_open();
        r = gist_generate(s, NULL, NULL, NULL, NULL);
        /* A head is looked at when room is needed. */
        for (int i = 0; lie == LIE_HEAD && r == 0 && i < 1000; i++)
            r = gist_append_text_start(s, "x", 1, 0, NULL, NULL, NULL);
        if (r != -EPROTO)
            print_error("lie %d: %d %s\n", (int)lie, r, gist_error(fake_conn));
        assert_int_equal(r, -EPROTO);
        assert_int_equal(gist_error_code(fake_conn), GIST_E_TRANSPORT);
        assert_true(strlen(gist_error(fake_conn)) > 20);
        assert_int_equal(gist_ping(fake_conn), -EPROTO);
        assert_true((clock_ns() / CLOCK_MS) - t0 < FAKE_PATIENCE_MS);
        gist_disconnect(fake_conn);
        assert_int_equal(fake_stop(&fake_peer), 0);
    }
}

/* A daemon whose memory is rewritten all the time while we talk to it: any error, no crash, no
 * hang. */
static void script_scribble(struct fake_daemon *d, void *arg)
{
    uint64_t seed = *(uint64_t *)arg;
    struct hostile h;
    uint8_t *f, *b;

    FAKE_CHECK(hostile_map(&h, d->chan, &d->g) == 0);
    for (uint32_t i = 0; i < 200000; i++) {
        uint32_t x = hostile_random(&seed), len = 1 + x % 100;
        volatile struct hostile_slot *s = hostile_slot(&h, HOSTILE_S2C, x);
        uint8_t *to = len <= RING_SMALL ? (uint8_t *)(uintptr_t)s->small
                                        : hostile_arena(&h, HOSTILE_S2C) + (x % 64) * 64;

        /* The beginning of a reply to the request that is open, and noise. */
        memcpy(to, "\x08\x02\x18\x01\x6a\x0a", 6);
        to[6 + x % 40] = (uint8_t)(x >> 8);
        s->off = (x % 64) * 64;
        s->frame_len = len;
        s->len = x % 100 == 0 ? x : len <= RING_SMALL ? 0 : len;
        s->turn += x % (i < 1000 ? 1000 : 3) == 0;
        if (i % 64 == 0 && chan_reserve(d->chan, 1, 0, &f, &b) == 0)
            chan_commit(d->chan); /* rings, if the client sleeps */
    }
    hostile_close(&h);
}

static void test_a_scribbling_daemon(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        uint64_t t0 = (clock_ns() / CLOCK_MS);
        gist_session *s;
        int r;

        fake_start(&fake_peer, script_scribble, &seed);
        if (gist_connect(fake_peer.path, "test", &fake_conn) == 0) {
            r = gist_open(fake_conn, NULL, &s);
            assert_true(r < 0);
            assert_true(strlen(gist_error(fake_conn)) > 10);
            gist_disconnect(fake_conn);
        }
        assert_int_equal(fake_stop(&fake_peer), 0);
        assert_true((clock_ns() / CLOCK_MS) - t0 < FAKE_PATIENCE_MS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_death_at_any_moment),
        cmocka_unit_test(test_death_seen_by_descriptor),
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_a_scribbling_daemon),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
