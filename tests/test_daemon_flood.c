/* tests/test_daemon_flood.c - the real daemon and clients that keep it busy within the rules. Would
 * catch: an answer that hardly goes on because others send large texts, name one span of memory in
 * many slots, or ask for statistics all the time; a scheduler that gives no sign of life meanwhile.
 *
 * `test_daemon_flood MODEL` prints the same table for another model, and compares nothing.
 */

#include "ipc/handshake.h"
#include "ipc/wire.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/hostile.h"
#include "tests/support/raw_client.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define FLOOD_MAX   24
#define ARENA_BYTES (16u << 20)
#define PART_BYTES  (1u << 20)
#define SPAN_SLOTS  16u
#define N_SESSIONS  500u

/* What a flooding client sends without end. */
enum flood { FLOOD_PARTS, FLOOD_SPAN, FLOOD_STATS, FLOOD__N };
static const char *const flood_names[FLOOD__N] = { "parts of 1 MB", "16 slots, one span of 16 MB",
                                                   "statistics" };

static struct daemon_fixture d;
static gist_conn *honest;

/* --- a flooding client, in a process of its own ------------------------------------------------
 */

struct flooder {
    struct raw_client c;
    struct hostile h; /* the same memory, to write slots by hand */
};

static struct wire_req score_part(uint32_t len)
{
    return (struct wire_req){ .kind = WIRE_SCORE,
                              .bulk_len = len,
                              .u.score = { .kind = WIRE_SCORE_TEXT, .window = 64, .more = true } };
}

/* Replies are dropped as they come, so that it is never the one who is waited for. */
static void drop_replies(struct flooder *f)
{
    struct chan_msg msg;

    while (chan_recv(f->c.chan, &msg) == 0)
        chan_release(f->c.chan);
}

static void flood_by_the_rules(struct flooder *f, const struct wire_req *req)
{
    struct wire_req m = *req;

    m.id = 1u << 20;
    for (;;) {
        int r = raw_client_put(f->c.chan, &f->c.out, &m, NULL);

        if (r == 0)
            m.id++;
        else if (r != -EAGAIN || chan_wait(f->c.chan, true, f->c.sock, -1, 0, -1) < 0)
            _exit(0);
        drop_replies(f);
    }
}

/* A slot that names all of the arena, whatever the slots before it name. */
static void put_span(struct flooder *f, uint64_t id)
{
    volatile struct hostile_slot *slot = hostile_slot(&f->h, HOSTILE_C2S, f->h.sent);
    struct wire_req m = score_part(f->h.g.arena_c2s);
    uint8_t frame[sizeof(slot->small)];
    size_t len;

    m.id = id;
    if (wire_req_pack(&f->c.out, &m, frame, sizeof(frame), &len) < 0)
        _exit(1);
    memcpy((uint8_t *)(uintptr_t)slot->small, frame, len);
    slot->frame_len = (uint32_t)len;
    slot->len = f->h.g.arena_c2s;
    slot->off = 0;
    __atomic_store_n(&slot->turn, f->h.sent / f->h.g.slots + 1, __ATOMIC_SEQ_CST);
    f->h.sent++;
}

static void flood_one_span(struct flooder *f)
{
    volatile uint32_t *head = hostile_word(&f->h, HOSTILE_C2S, HOSTILE_HEAD);

    f->h.sent = 1; /* Hello */
    for (uint64_t id = 1u << 20;; id++) {
        while (f->h.sent - *head >= f->h.g.slots) {
            if (chan_wait(f->c.chan, false, f->c.sock, -1, 0, -1) < 0)
                _exit(0);
            drop_replies(f);
        }
        put_span(f, id);
        hostile_ring(&f->h);
    }
}

static void flood(enum flood kind)
{
    const struct chan_geometry want = { SPAN_SLOTS, ARENA_BYTES, CHAN_ARENA_MIN };
    struct wire_req part = score_part(PART_BYTES), stats = { .kind = WIRE_GET_STATS };
    struct flooder f;

    raw_client_open_with(&f.c, d.socket, &want);
    if (hostile_map(&f.h, f.c.chan, &want) < 0)
        _exit(1);
    if (kind == FLOOD_SPAN)
        flood_one_span(&f);
    flood_by_the_rules(&f, kind == FLOOD_PARTS ? &part : &stats);
}

static void start_flood(enum flood kind, int n, pid_t *ret)
{
    for (int i = 0; i < n; i++) {
        ret[i] = fork();
        assert_true(ret[i] >= 0);
        if (ret[i] == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            flood(kind);
        }
    }
}

static void end_flood(int n, const pid_t *pids)
{
    for (int i = 0; i < n; i++) {
        (void)kill(pids[i], SIGKILL);
        assert_int_equal(waitpid(pids[i], NULL, 0), pids[i]);
    }
}

/* --- who is to be served beside it -------------------------------------------------------------
 */

/* Tokens a second of an answer of n tokens; *ret_steps: the steps that the daemon made meanwhile.
 */
static double decode(uint32_t n)
{
    struct gist_sampling p = { .size = sizeof(p), .ignore_eog = 1, .max_tokens = n };
    gist_session *s;
    double start;

    assert_int_equal(gist_open(honest, NULL, &s), 0);
    assert_int_equal(gist_append_text(s, "x", 1, 0, NULL), 0);
    start = daemon_fixture_ms();
    assert_int_equal(gist_generate(s, &p, NULL, NULL, NULL), 0);
    start = daemon_fixture_ms() - start;
    gist_close(s);
    return n * 1e3 / start;
}

/* Until all are connected, and the daemon has answered ten requests of each. */
static void wait_for_flood(int n)
{
    double end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;
    uint64_t first = 0, asked = 0;
    struct gist_stats st;

    do {
        assert_int_equal(gist_stats(honest, &st), 0);
        asked++;
        if (first == 0 && st.n_clients == (uint32_t)n + 1)
            first = st.requests_total - asked;
    } while ((first == 0 || st.requests_total - asked < first + 10 * (uint64_t)n) &&
             daemon_fixture_ms() < end);
    assert_true(first > 0);
}

/* What is left of the speed beside n flooding clients, of 1. */
static double compare(enum flood kind, int n, uint32_t n_tokens)
{
    double alone = decode(n_tokens), beside;
    pid_t pids[FLOOD_MAX];

    start_flood(kind, n, pids);
    wait_for_flood(n);
    beside = decode(n_tokens);
    end_flood(n, pids);
    (void)printf("%2d clients, %-28s %7.1f tokens/s, %7.1f alone\n", n, flood_names[kind], beside,
                 alone);
    (void)fflush(stdout);
    return beside / alone;
}

/* A third is left where it is measured alone, and a thousandth where what they send is taken as it
 * comes. The bound is between them by factors, since other programs take CPUs from the second
 * measurement only. */
static void test_an_answer_goes_on(void **state)
{
    (void)state;
    for (int kind = 0; kind < FLOOD__N; kind++)
        assert_true(compare((enum flood)kind, 8, 900) > 0.01);
}

static void open_sessions(void)
{
    gist_session *s;

    for (uint32_t i = 0; i < N_SESSIONS; i++)
        assert_int_equal(gist_open(honest, NULL, &s), 0);
}

static const char *const args[] = { "--threads",  "1",   "--max-sessions",      "512",
                                    "--kv-bytes", "64M", "--client-text-bytes", "64M",
                                    NULL };

static int start(void **state)
{
    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    honest = daemon_fixture_connect(&d);
    open_sessions();
    return 0;
}

static int stop(void **state)
{
    (void)state;
    gist_disconnect(honest);
    daemon_fixture_stop(&d);
    return 0;
}

static int measure(const char *model)
{
    static const int n_clients[] = { 1, 8, FLOOD_MAX };
    const char *with[] = { "--model", model, "--socket", d.socket, "--max-sessions", "512", NULL };

    (void)snprintf(d.socket, sizeof(d.socket), "/tmp/gistd-flood-%d.sock", (int)getpid());
    daemon_fixture_spawn(&d, with);
    if (!daemon_fixture_notified(&d, "READY=1", DAEMON_FIXTURE_PATIENCE_MS))
        return 1;
    honest = daemon_fixture_connect(&d);
    open_sessions();
    for (int kind = 0; kind < FLOOD__N; kind++)
        for (int i = 0; i < 3; i++)
            (void)compare((enum flood)kind, n_clients[i], 30);
    return stop(NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_answer_goes_on),
    };

    if (argc > 1)
        return measure(argv[1]);
    return cmocka_run_group_tests(tests, start, stop);
}
