/* Would catch: gist_connect_start waiting for anything, asking before it may, telling its end twice
 * or never, a descriptor that is not readable when there is something to do, what a daemon says at
 * any of its steps being lost. The daemon is this very thread: whoever waited for it would wait for
 * ever. */
#include "client/gist.h"
#include "ipc/handshake.h"
#include "ipc/wire.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

static const struct chan_geometry geometry = { 64, CHAN_ARENA_MIN, CHAN_ARENA_MIN };

static char dir[64], path[96];

/* The daemon, and what the client was told. */
static struct {
    int listener, sock;
    struct chan *chan;
    struct wire_scratch in, out;
} d;
static gist_conn *conn;
static int n_ended, ended, n_pongs;
static unsigned percents[4], n_percents, enough;

static void begin(void)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };

    (void)alarm(120); /* a call that waits for ever ends the test */
    n_ended = n_pongs = 0;
    ended = 1;
    n_percents = 0;
    enough = 99;
    conn = NULL;
    (void)snprintf(dir, sizeof(dir), "/tmp/gistd-connect-XXXXXX");
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/sock", dir);
    memcpy(addr.sun_path, path, strlen(path));
    d.sock = -1;
    d.chan = NULL;
    d.listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(d.listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(d.listener, 4), 0);
    assert_int_equal(wire_scratch_open(&d.in, WIRE_SCRATCH_BYTES), 0);
    assert_int_equal(wire_scratch_open(&d.out, WIRE_SCRATCH_BYTES), 0);
}

static void hang_up(void)
{
    chan_close(d.chan);
    d.chan = NULL;
    if (d.sock >= 0)
        close(d.sock);
    d.sock = -1;
}

static void end(void)
{
    gist_disconnect(conn);
    hang_up();
    close(d.listener);
    wire_scratch_close(&d.in);
    wire_scratch_close(&d.out);
    (void)unlink(path);
    assert_int_equal(rmdir(dir), 0);
    (void)alarm(0);
}

/* --- the daemon's steps ----------------------------------------------------------------------- */

static void take_client(void)
{
    struct handshake_wish wish;

    d.sock = accept4(d.listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(d.sock >= 0);
    assert_int_equal(handshake_read_hello(d.sock, &geometry, &wish), 0);
    assert_true(wish.progress);
}

static void give_channel(void)
{
    assert_int_equal(chan_create(&geometry, &d.chan), 0);
    assert_int_equal(handshake_accept(d.sock, &geometry, d.chan), 0);
}

/* The next request must be of that kind. Its id, for the answer; 0: there is none. */
static uint64_t take_request(enum wire_req_kind kind, char *name, size_t cap)
{
    struct chan_msg msg;
    struct wire_req req;

    if (chan_recv(d.chan, &msg) == -EAGAIN)
        return 0;
    assert_int_equal(wire_req_unpack(&d.in, msg.frame, msg.frame_len, &req), 0);
    assert_int_equal(req.kind, kind);
    if (name)
        (void)snprintf(name, cap, "%s", req.u.hello.client);
    chan_release(d.chan);
    return req.id;
}

static void answer(struct wire_rep rep)
{
    static uint8_t buf[CHAN_FRAME_MAX];
    uint8_t *f, *b;
    size_t len;

    rep.last = true;
    assert_int_equal(wire_rep_pack(&d.out, &rep, buf, sizeof(buf), &len), 0);
    assert_int_equal(chan_reserve(d.chan, (uint32_t)len, 0, &f, &b), 0);
    memcpy(f, buf, len);
    chan_commit(d.chan);
}

static void welcome(uint64_t id)
{
    answer((struct wire_rep){
        .id = id,
        .kind = WIRE_WELCOME,
        .u.welcome = { .version = "1.0", .model = "m", .model_digest = "d", .n_vocab = 9 } });
}

/* --- the client's ----------------------------------------------------------------------------- */

static void on_done(void *arg, int err, const struct gist_result *result)
{
    assert_ptr_equal(arg, &d);
    assert_null(result);
    n_ended++;
    ended = err;
}

static void on_pong(void *arg, int err, const struct gist_result *result)
{
    (void)arg;
    (void)result;
    assert_int_equal(err, 0);
    n_pongs++;
}

static int on_loading(void *arg, unsigned percent)
{
    assert_ptr_equal(arg, percents);
    percents[n_percents++ % 4] = percent;
    return n_percents == enough;
}

static int start(void)
{
    const struct gist_connect_opts opts = { .size = sizeof(opts),
                                            .path = path,
                                            .name = "steps",
                                            .on_loading = on_loading,
                                            .arg = percents };

    return gist_connect_start(&opts, on_done, &d, &conn);
}

static bool readable(void)
{
    return poll(&(struct pollfd){ gist_fd(conn), POLLIN, 0 }, 1, 0) == 1;
}

static void on_tokens(void *arg, int err, const uint32_t *ids, size_t n)
{
    (void)arg;
    (void)err;
    (void)ids;
    (void)n;
    fail();
}

static void on_score(void *arg, int err, const struct gist_score *score)
{
    (void)arg;
    (void)err;
    (void)score;
    fail();
}

static void on_attached(void *arg, int err, gist_session *s, const struct gist_attached *attached)
{
    (void)arg;
    (void)err;
    (void)s;
    (void)attached;
    fail();
}

static void expect_early(int err)
{
    assert_int_equal(err, -EAGAIN);
    assert_int_equal(gist_error_code(conn), GIST_E_BUSY);
    assert_non_null(strstr(gist_error(conn), "not made yet"));
}

/* One of each way to ask, of what does not need a session. */
static void ask_too_early(void)
{
    const uint32_t ids[] = { 1, 2 };
    const struct gist_policy policy = { .size = sizeof(policy), .realm = "r" };
    const unsigned char token[GIST_TOKEN_BYTES] = { 1 };
    struct gist_stats stats;
    struct gist_info info;
    gist_session *s;

    expect_early(gist_ping(conn));
    expect_early(gist_ping_start(conn, on_done, NULL, NULL));
    expect_early(gist_open(conn, &policy, &s));
    expect_early(gist_attach(conn, token, NULL, &s, NULL));
    expect_early(gist_attach_start(conn, token, NULL, on_attached, NULL, NULL));
    expect_early(gist_stats(conn, &stats));
    expect_early(gist_set_deadline(conn, 5));
    expect_early(gist_tokenize_start(conn, "a", 1, 0, on_tokens, NULL, NULL));
    expect_early(gist_score_tokens_start(conn, ids, 2, NULL, on_score, NULL, NULL));
    gist_info(conn, &info);
    assert_null(info.version);
}

static void test_in_steps(void **state)
{
    struct gist_info info;
    char name[16];
    uint64_t id;

    (void)state;
    begin();
    assert_int_equal(start(), 0);
    assert_false(readable());
    ask_too_early();
    assert_int_equal(gist_dispatch(conn), 0);

    take_client();
    handshake_tell_loading(d.sock, 10);
    handshake_tell_loading(d.sock, 55);
    assert_true(readable());
    assert_int_equal(gist_dispatch(conn), 0);
    assert_int_equal(n_percents, 2);
    assert_int_equal(percents[0], 10);
    assert_int_equal(percents[1], 55);
    assert_false(readable());

    give_channel();
    assert_true(readable());
    assert_int_equal(gist_dispatch(conn), 0);
    ask_too_early();
    assert_int_equal(n_ended, 0);
    id = take_request(WIRE_HELLO, name, sizeof(name));
    assert_string_equal(name, "steps");
    assert_int_equal(take_request(WIRE_HELLO, NULL, 0),
                     0); /* nothing of what was asked too early */
    assert_false(readable());

    welcome(id);
    assert_true(readable());
    assert_int_equal(gist_dispatch(conn), 1);
    assert_int_equal(n_ended, 1);
    assert_int_equal(ended, 0);
    gist_info(conn, &info);
    assert_string_equal(info.version, "1.0");
    assert_int_equal(info.n_vocab, 9);

    assert_int_equal(gist_ping_start(conn, on_pong, NULL, NULL), 0);
    id = take_request(WIRE_PING, NULL, 0);
    answer((struct wire_rep){ .id = id, .kind = WIRE_PONG });
    assert_true(readable());
    assert_int_equal(gist_dispatch(conn), 1);
    assert_int_equal(n_pongs, 1);
    assert_int_equal(n_ended, 1);
    end();
}

/* It has failed: that was told once, the sentence stays, and the loop is woken. */
static void expect_end(int err, enum gist_code code, const char *says)
{
    assert_int_equal(n_ended, 1);
    assert_int_equal(ended, err);
    assert_int_equal(gist_error_code(conn), code);
    assert_non_null(strstr(gist_error(conn), says));
    assert_true(readable());
    assert_int_equal(gist_dispatch(conn), err);
    assert_int_equal(gist_ping(conn), err);
    end();
    assert_int_equal(n_ended, 1);
}

static void test_refused(void **state)
{
    (void)state;
    begin();
    assert_int_equal(start(), 0);
    take_client();
    (void)handshake_refuse(d.sock, HANDSHAKE_FULL, "64 clients are connected");
    assert_true(readable());
    assert_int_equal(gist_dispatch(conn), -ECONNREFUSED);
    expect_end(-ECONNREFUSED, GIST_E_TRANSPORT, "refused: 64 clients are connected");
}

static void test_greeting_refused(void **state)
{
    (void)state;
    begin();
    assert_int_equal(start(), 0);
    take_client();
    give_channel();
    assert_int_equal(gist_dispatch(conn), 0);
    answer((struct wire_rep){ .id = take_request(WIRE_HELLO, NULL, 0),
                              .kind = WIRE_ERROR,
                              .u.error = { .code = WIRE_E_LIMIT, .text = "no more of you" } });
    assert_true(readable());
    (void)gist_dispatch(conn);
    expect_end(-EDQUOT, GIST_E_LIMIT, "no more of you");
}

static void test_enough_of_loading(void **state)
{
    (void)state;
    begin();
    enough = 1;
    assert_int_equal(start(), 0);
    take_client();
    handshake_tell_loading(d.sock, 10);
    assert_int_equal(gist_dispatch(conn), -ECANCELED);
    expect_end(-ECANCELED, GIST_E_CANCELLED, "still loading");
}

/* Steps of the daemon before somebody leaves. */
static void go_to(int step)
{
    begin();
    assert_int_equal(start(), 0);
    (void)gist_fd(conn);
    take_client();
    if (step > 0)
        handshake_tell_loading(d.sock, 10);
    if (step > 1) {
        give_channel();
        assert_int_equal(gist_dispatch(conn), 0);
    }
    if (step > 2)
        (void)take_request(WIRE_HELLO, NULL, 0);
}

static void test_daemon_dies(void **state)
{
    (void)state;
    for (int step = 0; step < 4; step++) {
        go_to(step);
        hang_up();
        assert_true(readable());
        assert_int_equal(gist_dispatch(conn), -EPIPE);
        expect_end(-EPIPE, GIST_E_TRANSPORT, "closed the connection");
    }
}

static void test_given_up(void **state)
{
    (void)state;
    for (int step = 0; step < 4; step++) {
        go_to(step);
        gist_disconnect(conn);
        conn = NULL;
        assert_int_equal(n_ended, 1);
        assert_int_equal(ended, -EPIPE);
        assert_int_equal(poll(&(struct pollfd){ d.sock, POLLIN, 0 }, 1, 0), 1);
        end();
    }
}

static void test_none(void **state)
{
    struct gist_connect_opts opts = { .size = sizeof(opts), .flags = 1u << 31 };
    gist_conn *queued[8];
    int n = 0, r;

    (void)state;
    assert_int_equal(gist_connect_start(NULL, on_done, &d, &conn), -EINVAL);
    assert_int_equal(gist_connect_start(&opts, on_done, &d, &conn), -EINVAL);
    begin();
    while ((r = start()) == 0 && n < 8)
        queued[n++] = conn;
    assert_int_equal(r, -EAGAIN);
    assert_non_null(strstr(gist_error(NULL), "too many connections"));
    for (int i = 0; i < n; i++)
        gist_disconnect(queued[i]);
    assert_int_equal(n_ended, n);
    conn = NULL;
    close(d.listener);
    assert_int_equal(start(), -ECONNREFUSED);
    assert_non_null(strstr(gist_error(NULL), "gistd is not running"));
    assert_int_equal(gist_error_code(NULL), GIST_E_TRANSPORT);
    d.listener = dup(STDERR_FILENO);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_steps),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_greeting_refused),
        cmocka_unit_test(test_enough_of_loading),
        cmocka_unit_test(test_daemon_dies),
        cmocka_unit_test(test_given_up),
        cmocka_unit_test(test_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
