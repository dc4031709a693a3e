/* tests/test_daemon_hostile.c - the real daemon and clients that lie, stall or die. Would catch: an
 * index, span or frame from shared memory that is believed, a client that takes others with it,
 * pages that stay behind a killed client, a cancel or a ping that waits for a step, a silent peer
 * that keeps a place, prompts that are never read beside those of a client that cancels, a daemon
 * that is kept awake, system calls of an idle one.
 */

#include "ipc/handshake.h"
#include "ipc/ring.h"
#include "ipc/wire.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/hostile.h"
#include "tests/support/raw_client.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* It makes plain C a hundred times slower, and has a thread of its own that wakes up all the time.
 */
#ifdef __SANITIZE_THREAD__
#define THREAD_SANITIZER 1
#else
#define THREAD_SANITIZER 0
#endif

static struct daemon_fixture d;
static gist_conn *honest;

static void still_serves(void)
{
    assert_int_equal(gist_ping(honest), 0);
}

/* --- handshake -------------------------------------------------------------------------------- */

static int raw_connect(void)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    memcpy(a.sun_path, d.socket, strlen(d.socket));
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

static void test_handshakes(void **state)
{
    struct handshake_hello hello = { .magic = HANDSHAKE_MAGIC, .version = 77 };
    struct handshake_answer answer;
    int fd = raw_connect();

    (void)state;
    assert_int_equal(send(fd, &hello, sizeof(hello), 0), sizeof(hello));
    assert_int_equal(recv(fd, &answer, sizeof(answer), 0), sizeof(answer));
    assert_int_equal(answer.status, HANDSHAKE_BAD_VERSION);
    assert_int_equal(answer.version, HANDSHAKE_VERSION);
    assert_non_null(strstr(answer.text, "77"));
    assert_int_equal(recv(fd, &answer, sizeof(answer), 0), 0);
    (void)close(fd);

    fd = raw_connect();
    assert_int_equal(send(fd, "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
    assert_int_equal(recv(fd, &answer, sizeof(answer), 0), sizeof(answer));
    assert_int_equal(answer.status, HANDSHAKE_BAD_REQUEST);
    (void)close(fd);

    /* More silent peers than there are places for: the next honest client still comes in. */
    for (int i = 0; i < 40; i++)
        (void)raw_connect();
    gist_disconnect(daemon_fixture_connect(&d));
    still_serves();
}

/* --- garbage in shared memory ----------------------------------------------------------------- */

static uint64_t errors_counted(void)
{
    struct gist_stats st;

    assert_int_equal(gist_stats(honest, &st), 0);
    return st.client_errors_total;
}

/* Each field of the rings, one at a time, with values at the edges and past them. */
static void test_ring_fields(void **state)
{
    static const uint32_t values[] = { 1, 2, 255, 256, 257, 0x7fffffff, 0x80000000, 0xffffffff };
    static const enum hostile_word words[] = { HOSTILE_TURN, HOSTILE_HEAD, HOSTILE_SLEEPING,
                                               HOSTILE_ROOM };
    uint64_t before = errors_counted();
    unsigned closed = 0;

    (void)state;
    for (int ring = 0; ring < 2; ring++) {
        for (size_t w = 0; w < 4; w++) {
            for (size_t v = 0; v < sizeof(values) / sizeof(*values); v++) {
                struct hostile h;

                assert_int_equal(hostile_connect(&h, d.socket), 0);
                *hostile_word(&h, ring, words[w]) = values[v];
                hostile_ring(&h);
                still_serves();
                /* 1 publishes a slot of zeros, all else can't be right: the client is thrown out.
                 */
                if (ring == HOSTILE_C2S && words[w] == HOSTILE_TURN) {
                    assert_true(hostile_was_closed(&h, DAEMON_FIXTURE_PATIENCE_MS));
                    closed++;
                }
                hostile_close(&h);
            }
        }
    }
    assert_true(closed > 0);
    assert_true(errors_counted() >= before + closed);
}

static void test_descriptors(void **state)
{
    static const struct ring_desc bad[] = {
        { .off = 1, .len = 64, .frame_len = 64 },
        { .off = 0, .len = 0, .frame_len = 0 },
        { .off = 0, .len = 64, .frame_len = 65 },
        { .off = 0, .len = 0xffffffff, .frame_len = 8 },
        { .off = ~63u, .len = 64, .frame_len = 8 },
        { .off = 1 << 30, .len = 64, .frame_len = 8 },
        { .off = 0, .len = 1 << 30, .frame_len = 1 << 29 },
        { .off = 64, .len = 1 << 20, .frame_len = 64 },
        { .off = 0, .len = 1 << 19, .frame_len = 70000 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct hostile h;
        volatile struct hostile_slot *desc;

        assert_int_equal(hostile_connect(&h, d.socket), 0);
        desc = hostile_slot(&h, HOSTILE_C2S, 0);
        desc->off = bad[i].off;
        desc->len = bad[i].len;
        desc->frame_len = bad[i].frame_len;
        desc->turn = 1;
        hostile_ring(&h);
        assert_true(hostile_was_closed(&h, DAEMON_FIXTURE_PATIENCE_MS));
        hostile_close(&h);
        still_serves();
    }
}

/* Frames of random bytes, and good frames with changed bytes: answered or not, never believed. */
static void test_frames(void **state)
{
    uint64_t seed = 1;
    struct wire_scratch scratch;

    (void)state;
    assert_int_equal(wire_scratch_open(&scratch, WIRE_SCRATCH_BYTES), 0);
    for (int round = 0; round < 40; round++) {
        struct hostile h;

        assert_int_equal(hostile_connect(&h, d.socket), 0);
        for (int i = 0; i < 20; i++) {
            struct wire_req m = { .id = (uint64_t)i, .kind = hostile_random(&seed) % WIRE_REQ__N };
            uint8_t frame[512];
            size_t len = 0;

            if (round % 2 == 0 || wire_req_pack(&scratch, &m, frame, sizeof(frame), &len) < 0) {
                len = 1 + hostile_random(&seed) % sizeof(frame);
                for (size_t k = 0; k < len; k++)
                    frame[k] = (uint8_t)hostile_random(&seed);
            } else if (i > 0) {
                frame[hostile_random(&seed) % len] ^= (uint8_t)hostile_random(&seed);
            }
            hostile_send(&h, frame, (uint32_t)len);
        }
        still_serves();
        hostile_close(&h);
    }
    wire_scratch_close(&scratch);
    still_serves();
    assert_true(daemon_fixture_all_free(honest, DAEMON_FIXTURE_PATIENCE_MS));
}

/* All of the memory, all of the time, while the daemon works on it. */
static void test_everything(void **state)
{
    uint64_t seed = 2;

    (void)state;
    for (int round = 0; round < 20; round++) {
        struct hostile h;

        assert_int_equal(hostile_connect(&h, d.socket), 0);
        for (int i = 0; i < 200; i++) {
            size_t at = hostile_random(&seed) % (64 + 2 * RING_BYTES(h.g.slots));

            h.mem[at] = (uint8_t)hostile_random(&seed);
            if (i % 10 == 0)
                hostile_ring(&h);
        }
        still_serves();
        hostile_close(&h);
    }
}

/* --- death and cancel ------------------------------------------------------------------------- */

static void on_done(void *arg, int err, const struct gist_result *result)
{
    (void)result;
    *(int *)arg = err;
}

#define LONG_TEXT 3500
#define PINGS     50

/* A child that reads a long prompt (answer: that has an answer written) until it is killed. */
static pid_t victim(bool answer)
{
    struct gist_sampling p = { .size = sizeof(p), .ignore_eog = 1 };
    char text[LONG_TEXT];
    gist_session *s;
    gist_conn *c;
    pid_t pid = fork();

    if (pid != 0)
        return pid;
    memset(text, 'x', sizeof(text));
    if (gist_connect(d.socket, "victim", &c) == 0 && gist_open(c, NULL, &s) == 0) {
        (void)gist_append_text(s, text, answer ? 100 : sizeof(text), 0, NULL);
        (void)gist_generate(s, &p, NULL, NULL, NULL);
    }
    _exit(0);
}

static struct gist_stats stats(void)
{
    struct gist_stats st;

    assert_int_equal(gist_stats(honest, &st), 0);
    return st;
}

/* Tokens that the daemon has read and written so far: how far it came with something that is not
 * wanted any more, in numbers that do not depend on the machine's speed. */
static uint64_t tokens_made(void)
{
    struct gist_stats st = stats();

    return st.prompt_tokens_total + st.generated_tokens_total;
}

static bool pages_are_taken(uint32_t more_than)
{
    struct gist_stats st;

    assert_int_equal(gist_stats(honest, &st), 0);
    return st.pages - st.pages_free - st.pages_cached > more_than;
}

static void test_kill(void **state)
{
    (void)state;
    for (int answer = 0; answer < 2; answer++) {
        pid_t pid = victim(answer);
        double start, end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;
        uint64_t before;

        /* In the middle of it: all pages of the prompt, or one more than the prompt's. */
        while (!pages_are_taken(answer ? 7 : LONG_TEXT / 16 - 2) && daemon_fixture_ms() < end)
            (void)usleep(1000);
        assert_true(pages_are_taken(0));
        start = daemon_fixture_ms();
        before = tokens_made();
        (void)kill(pid, SIGKILL);
        assert_true(daemon_fixture_all_free(honest, DAEMON_FIXTURE_PATIENCE_MS));
        (void)printf("killed in its %s: pages back after %.1f ms\n", answer ? "answer" : "prompt",
                     daemon_fixture_ms() - start);
        /* Neither would have ended before the context is full. */
        assert_true(tokens_made() - before < LONG_TEXT / 2);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
    }
}

static void test_cancel_in_prompt(void **state)
{
    gist_conn *c = daemon_fixture_connect(&d);
    struct gist_stats st;
    gist_session *s;
    char text[LONG_TEXT];
    uint64_t request, before;
    uint32_t n;
    double start;
    int err = 1;

    (void)state;
    memset(text, 'y', sizeof(text));
    assert_int_equal(gist_open(c, NULL, &s), 0);
    assert_int_equal(gist_append_text(s, "before", 6, 0, NULL), 0);
    assert_int_equal(gist_stats(honest, &st), 0);
    n = st.sessions[0].n_tokens;
    assert_int_equal(gist_append_text_start(s, text, 3000, 0, on_done, &err, &request), 0);
    for (start = daemon_fixture_ms(); daemon_fixture_ms() < start + 300;)
        assert_true(gist_dispatch(c) >= 0);
    assert_int_equal(err, 1); /* it is still at it */
    start = daemon_fixture_ms();
    before = tokens_made();
    assert_int_equal(gist_cancel(c, request), 0);
    while (err == 1)
        assert_true(gist_dispatch(c) >= 0);
    (void)printf("cancelled in its prompt after %.1f ms\n", daemon_fixture_ms() - start);
    assert_int_equal(err, -ECANCELED);
    assert_true(tokens_made() - before < 3000 / 2);
    /* As it was before. */
    assert_int_equal(gist_stats(honest, &st), 0);
    assert_int_equal(st.n_sessions, 1);
    assert_int_equal(st.sessions[0].n_tokens, n);
    assert_int_equal(st.pages - st.pages_free - st.pages_cached, 1);
    gist_disconnect(c);
    assert_true(daemon_fixture_all_free(honest, DAEMON_FIXTURE_PATIENCE_MS));
}

/* A ping is answered between layers: more of them than there are steps, and before the prompt ends.
 */
static void test_ping_beside_prompt(void **state)
{
    gist_conn *c = daemon_fixture_connect(&d);
    gist_session *s;
    char text[LONG_TEXT];
    double worst = 0, start;
    uint64_t steps;
    int err = 1;

    (void)state;
    memset(text, 'y', sizeof(text));
    assert_int_equal(gist_open(c, NULL, &s), 0);
    assert_int_equal(gist_append_text_start(s, text, sizeof(text), 0, on_done, &err, NULL), 0);
    steps = stats().steps_total;
    for (int i = 0; i < PINGS; i++) {
        start = daemon_fixture_ms();
        still_serves();
        if (daemon_fixture_ms() - start > worst)
            worst = daemon_fixture_ms() - start;
    }
    steps = stats().steps_total - steps;
    (void)printf("%d pings beside %u steps of a long prompt: at most %.1f ms\n", PINGS,
                 (unsigned)steps, worst);
    assert_true(steps < PINGS / 2);
    assert_int_equal(gist_dispatch(c), 0);
    assert_int_equal(err, 1);
    gist_disconnect(c);
    assert_true(daemon_fixture_all_free(honest, DAEMON_FIXTURE_PATIENCE_MS));
}

/* Goes on until *err is no longer 1, or for as long. */
static void dispatch(gist_conn *c, const int *err, double ms)
{
    for (double start = daemon_fixture_ms(); *err == 1 && daemon_fixture_ms() < start + ms;) {
        assert_true(gist_dispatch(c) >= 0);
        (void)usleep(1000);
    }
}

/* Tokens that are read in about half a second, or a few steps of the fewest tokens: the thread
 * sanitizer takes a hundred times as long for each, and a busy machine a few times. */
static size_t prompt_len(size_t most)
{
    gist_session *s;
    char text[64];
    double start;
    size_t n;

    memset(text, 'u', sizeof(text));
    assert_int_equal(gist_open(honest, NULL, &s), 0);
    start = daemon_fixture_ms();
    assert_int_equal(gist_append_text(s, text, sizeof(text), 0, NULL), 0);
    n = (size_t)(sizeof(text) * 500 / (daemon_fixture_ms() - start + 1));
    gist_close(s);
    return n < sizeof(text) ? sizeof(text) : n < most ? n : most;
}

/* Two prompts of one client, cancelled in turns, so that there is always one in the step: another
 * client's prompt is read all the same. */
static void test_cancels_beside_prompt(void **state)
{
    gist_conn *c = daemon_fixture_connect(&d), *other = daemon_fixture_connect(&d);
    int err[2] = { 0, 0 }, other_err = 1, cancels = 0;
    gist_session *s[2], *prompt;
    uint64_t request[2];
    char text[900]; /* is encoded in one go, and the next step reads it */
    size_t len = prompt_len(sizeof(text));
    double end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;

    (void)state;
    for (int i = 0; i < 2; i++)
        assert_int_equal(gist_open(c, NULL, &s[i]), 0);
    assert_int_equal(gist_open(other, NULL, &prompt), 0);
    memset(text, 'v', sizeof(text));
    assert_int_equal(gist_append_text_start(prompt, text, len, 0, on_done, &other_err, NULL), 0);
    for (int i = 0; other_err == 1 && daemon_fixture_ms() < end; i ^= 1) {
        if (err[i] == 1) {
            assert_int_equal(gist_cancel(c, request[i]), 0);
            dispatch(c, &err[i], DAEMON_FIXTURE_PATIENCE_MS);
            cancels++;
        }
        err[i] = 1;
        memset(text, 'A' + cancels % 26, sizeof(text)); /* what was read before is not read again */
        assert_int_equal(gist_append_text_start(s[i], text, len, 0, on_done, &err[i], &request[i]),
                         0);
        dispatch(other, &other_err, 30);
    }
    (void)printf("a prompt beside others that are cancelled: %d cancels\n", cancels);
    assert_int_equal(other_err, 0);
    assert_true(cancels > 0);
    gist_disconnect(c);
    gist_disconnect(other);
    assert_true(daemon_fixture_all_free(honest, DAEMON_FIXTURE_PATIENCE_MS));
}

/* --- idle ------------------------------------------------------------------------------------- */

/* CPU time of all its threads so far. */
static double daemon_cpu_ms(void)
{
    struct timespec t;
    clockid_t clock;

    assert_int_equal(clock_getcpuclockid(d.pid, &clock), 0);
    assert_int_equal(clock_gettime(clock, &t), 0);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* It uses less than a millisecond of CPU in some second soon; one that spins never does. */
static bool comes_to_rest(void)
{
    double end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS, before;

    do {
        before = daemon_cpu_ms();
        (void)usleep(1000 * 1000);
        if (daemon_cpu_ms() - before < 1)
            return true;
    } while (daemon_fixture_ms() < end);
    return false;
}

static void wait_for_clients(uint32_t n)
{
    double end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;
    struct gist_stats st;

    do
        assert_int_equal(gist_stats(honest, &st), 0);
    while (st.n_clients != n && daemon_fixture_ms() < end);
    assert_int_equal(st.n_clients, n);
}

/* Who ended the connection and kept the doorbell rings it. */
static void test_ring_after_the_end(void **state)
{
    struct hostile h;

    (void)state;
    assert_int_equal(hostile_connect(&h, d.socket), 0);
    wait_for_clients(2);
    assert_int_equal(shutdown(h.sock, SHUT_RDWR), 0);
    wait_for_clients(1);
    hostile_ring(&h);
    if (!THREAD_SANITIZER)
        assert_true(comes_to_rest());
    hostile_close(&h);
    still_serves();
}

/* Pings until nothing more is taken for a second, and at least some: the rings are full, and all
 * the requests that a client may have open wait for room. */
static unsigned ping_and_read_nothing(struct chan *c, unsigned least)
{
    struct wire_req m = { .kind = WIRE_HELLO };
    double last = daemon_fixture_ms();
    struct wire_scratch scratch;

    assert_int_equal(wire_scratch_open(&scratch, WIRE_SCRATCH_BYTES), 0);
    m.u.hello.client = "reads nothing";
    while (daemon_fixture_ms() < last + (m.id > least ? 1000 : DAEMON_FIXTURE_PATIENCE_MS)) {
        if (raw_client_put(c, &scratch, &m, NULL) < 0) {
            (void)usleep(1000);
            continue;
        }
        last = daemon_fixture_ms();
        m = (struct wire_req){ .id = m.id + 1, .kind = WIRE_PING };
    }
    wire_scratch_close(&scratch);
    return (unsigned)m.id;
}

static void test_rest_beside_unread(void **state)
{
    struct chan_msg msg;
    struct hostile h;
    struct chan *c;
    unsigned n, got = 0;

    (void)state;
    assert_int_equal(hostile_connect(&h, d.socket), 0);
    assert_int_equal(chan_attach(&h.g,
                                 (struct chan_fds){ dup(h.fds.memfd), dup(h.fds.to_server),
                                                    dup(h.fds.to_client) },
                                 &c),
                     0);
    n = ping_and_read_nothing(c, 2 * h.g.slots);
    assert_true(n > 2 * h.g.slots);
    if (!THREAD_SANITIZER)
        assert_true(comes_to_rest());
    still_serves();
    /* It goes on as soon as there is room, and all are answered. */
    while (got < n && chan_wait(c, false, h.sock, -1, 0, DAEMON_FIXTURE_PATIENCE_MS) == 0) {
        for (; chan_recv(c, &msg) == 0; got++)
            chan_release(c);
    }
    assert_int_equal(got, n);
    chan_close(c);
    hostile_close(&h);
}

/* Calls that all its threads begin within two seconds, by strace; -1: it can't be used here. */
static int calls_begun(void)
{
    char out[SCRATCH_PATH_MAX], command[1024], line[512];
    int calls = 0, rc;
    FILE *f;

    (void)snprintf(command, sizeof(command),
                   "timeout -s INT 2 strace -f -o %s -p %d >/dev/null 2>&1",
                   scratch_path(out, "strace"), (int)d.pid);
    rc = system(command);
    f = fopen(out, "re");
    if (!f || !WIFEXITED(rc) || WEXITSTATUS(rc) == 127)
        return -1;
    while (fgets(line, sizeof(line), f)) {
        /* Calls that were under way when strace came, and strace's own leaving. */
        if (strstr(line, "resumed") || strstr(line, "unfinished") || strstr(line, "detached"))
            continue;
        (void)printf("%s", line);
        calls++;
    }
    (void)fclose(f);
    return calls;
}

/* Soon, that is: silent peers of the first test are sent away, and workers come to rest, later on a
 * machine that is busy. What beats more often than strace looks is never quiet. */
static void test_idle(void **state)
{
    double end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;
    int calls;

    (void)state;
    if (THREAD_SANITIZER)
        skip();
    still_serves();
    do {
        calls = calls_begun();
    } while (calls > 0 && daemon_fixture_ms() < end);
    if (calls < 0) {
        (void)printf("strace can't be used here: not tested\n");
        skip();
    }
    assert_int_equal(calls, 0);
    still_serves();
}

static int start(void **state)
{
    static const char *const args[] = { "--cpu", "scalar", "--kv-bytes", "256M", NULL };

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_SLOW, args);
    honest = daemon_fixture_connect(&d);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    gist_disconnect(honest);
    daemon_fixture_stop(&d);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_handshakes),
        cmocka_unit_test(test_ring_fields),
        cmocka_unit_test(test_descriptors),
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_everything),
        cmocka_unit_test(test_kill),
        cmocka_unit_test(test_cancel_in_prompt),
        cmocka_unit_test(test_ping_beside_prompt),
        cmocka_unit_test(test_cancels_beside_prompt),
        cmocka_unit_test(test_ring_after_the_end),
        cmocka_unit_test(test_rest_beside_unread),
        cmocka_unit_test(test_idle),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
