/* tests/test_daemon_follow.c - several clients of the real daemon read the same text at the same
 * time. Would catch: a text that is computed by each of them, or again when who read it was
 * cancelled, killed or closed; an answer that is another one's because of it; a follower that is
 * forgotten; one that waits for somebody else's text, for a reader in the background that gets
 * nothing, or without that being counted as time.
 *
 * Texts come at once: the daemon is stopped (SIGSTOP) until all have sent theirs.
 */
#include "tests/support/counted.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/memory_of.h"
#include "tests/support/tiny_adapters.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define SEGMENT 64u
#define MANY    10
#define PAGE    16u
#define ANSWER  8u

static const struct gist_memory memories[] = {
    MEMORY_OF(GIST_FULL, 0, 0, NULL, 0, 0),
    MEMORY_OF(GIST_NONE, 0, 20, NULL, 0, 0),
    MEMORY_OF(GIST_FINE_KV, 4, 0, NULL, 0, 0),
    MEMORY_OF(GIST_SELECT, 8, 0, NULL, 0, 0),
    MEMORY_OF(GIST_SELECT, 4, 30, NULL, 256, GIST_LATE),
    MEMORY_OF(GIST_SELECT_REREAD, 4, 10, NULL, 250, 0),
    MEMORY_OF(GIST_FULL, 8, 0, "fine", 0, 0),
    MEMORY_OF(GIST_FULL, 8, 0, "among", 0, 0),
    MEMORY_OF(GIST_FULL, 4, 0, "coarse", 260, 0),
    MEMORY_OF(GIST_FULL, 8, 5, "rec", 0, 0),
};
#define N_MEMORIES (sizeof(memories) / sizeof(*memories))

/* One connection with one session, which reads or writes. */
struct reader {
    gist_conn *conn;
    gist_session *session;
    uint64_t request;
    bool busy;
    int err;
    unsigned place; /* the n-th that was done */
    struct gist_usage usage;
    uint32_t ids[ANSWER];
    size_t n_ids;
};

static struct daemon_fixture d;
static unsigned n_done;

static void start_daemon(enum daemon_fixture_model m, const char *cache)
{
    const char *tiny[] = {
        "--store", "none",      "--host-bytes",  "none", "--prefix-cache", cache, "--batch-tokens",
        "64",      "--adapter", tiny_adapters(), NULL
    };
    const char *slow[] = {
        "--store", "none",       "--host-bytes", "none", "--prefix-cache", cache, "--batch-tokens",
        "32",      "--kv-bytes", "200M",         NULL
    };

    daemon_fixture_start(&d, m, m == DAEMON_FIXTURE_TINY ? tiny : slow);
}

static void open_reader(struct reader *r, const struct gist_memory *memory,
                        enum gist_priority priority, unsigned flags)
{
    struct gist_policy p = { .size = sizeof(p),
                             .segment = SEGMENT,
                             .memory = memory,
                             .priority = priority,
                             .flags = flags };

    *r = (struct reader){ .conn = daemon_fixture_connect(&d) };
    if (gist_open(r->conn, &p, &r->session) < 0)
        fail_msg("%s", gist_error(r->conn));
}

static void close_reader(struct reader *r)
{
    gist_close(r->session);
    gist_disconnect(r->conn);
}

static void on_done(void *arg, int err, const struct gist_result *result)
{
    struct reader *r = arg;

    r->busy = false;
    r->err = err;
    r->place = ++n_done;
    if (result)
        r->usage = result->usage;
}

static void append(struct reader *r, const char *text, size_t n)
{
    r->busy = true;
    if (gist_append_text_start(r->session, text, n, 0, on_done, r, &r->request) < 0)
        fail_msg("%s", gist_error(r->conn));
}

/* Until all of them are done. */
static void wait_for(struct reader *const *readers, size_t n)
{
    double end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;

    for (size_t i = 0; i < n;) {
        struct pollfd p = { .fd = gist_fd(readers[i]->conn), .events = POLLIN };

        /* In the order that they end in, as far as it can be told. */
        for (size_t k = 0; k < n; k++)
            assert_true(gist_dispatch(readers[k]->conn) >= 0);
        if (!readers[i]->busy)
            i++;
        else if (poll(&p, 1, 5) >= 0)
            expect_that(daemon_fixture_ms() < end, "reader %zu of %zu is not done", i, n);
    }
}

static void wait_all(struct reader *r, size_t n)
{
    struct reader *all[MANY];

    for (size_t i = 0; i < n; i++)
        all[i] = &r[i];
    wait_for(all, n);
}

static int on_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    struct reader *r = arg;

    (void)text;
    (void)len;
    for (size_t i = 0; i < n_ids && r->n_ids < ANSWER; i++)
        r->ids[r->n_ids++] = ids[i];
    return 0;
}

static void answer(struct reader *r)
{
    struct gist_sampling p = { .size = sizeof(p), .max_tokens = ANSWER, .ignore_eog = 1 };
    struct gist_result result;

    if (gist_generate(r->session, &p, on_text, r, &result) < 0)
        fail_msg("%s", gist_error(r->conn));
    assert_int_equal(r->n_ids, ANSWER);
}

/* Of n characters; letters that differ from seed to seed. */
static void write_text(char *text, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++)
        text[i] = (char)('a' + rand_r(&seed) % 26);
}

static uint64_t tokens_read(gist_conn *c)
{
    struct gist_stats s;

    assert_int_equal(gist_stats(c, &s), 0);
    return s.prompt_tokens_total;
}

static void wait_until_read(gist_conn *c, uint64_t n)
{
    double end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;

    while (tokens_read(c) < n)
        expect_that(daemon_fixture_ms() < end, "nothing is read");
}

/* --- at once ---------------------------------------------------------------------------------- */

static void append_at_once(struct reader *r, size_t n, const char *text, size_t len)
{
    assert_int_equal(kill(d.pid, SIGSTOP), 0);
    for (size_t i = 0; i < n; i++)
        append(&r[i], text, len);
    assert_int_equal(kill(d.pid, SIGCONT), 0);
    wait_all(r, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(r[i].err, 0);
}

/* What a session that comes when all are done finds: they should have found as much. */
static uint32_t shared_later(const struct gist_memory *memory, const char *text, size_t len)
{
    struct reader r;

    open_reader(&r, memory, GIST_INTERACTIVE, 0);
    append(&r, text, len);
    wait_all(&r, 1);
    assert_int_equal(r.err, 0);
    close_reader(&r);
    return r.usage.shared_tokens;
}

/* One of them has read it all, each of the others what is nobody's to share. */
static void read_once(const struct gist_memory *memory, size_t n, const char *text, size_t len,
                      const uint32_t *expected)
{
    struct reader r[MANY];
    uint32_t n_tokens, later, n_all = 0;

    for (size_t i = 0; i < n; i++)
        open_reader(&r[i], memory, GIST_INTERACTIVE, 0);
    append_at_once(r, n, text, len);
    later = shared_later(memory, text, len);
    n_tokens = r[0].usage.prompt_tokens;
    for (size_t i = 0; i < n; i++) {
        struct gist_usage u = r[i].usage;

        assert_int_equal(u.computed_tokens + u.shared_tokens, n_tokens);
        if (u.shared_tokens == 0)
            n_all++;
        else
            assert_int_equal(u.shared_tokens, later);
        answer(&r[i]);
        assert_memory_equal(r[i].ids, expected, ANSWER * sizeof(*expected));
    }
    assert_int_equal(n_all, later > 0 ? 1 : n);
    for (size_t i = 0; i < n; i++)
        close_reader(&r[i]);
}

static void alone(const struct gist_memory *memory, const char *text, size_t len,
                  uint32_t ret[ANSWER])
{
    struct reader r;

    open_reader(&r, memory, GIST_INTERACTIVE, 0);
    append(&r, text, len);
    wait_all(&r, 1);
    assert_int_equal(r.err, 0);
    assert_int_equal(r.usage.shared_tokens, 0);
    answer(&r);
    memcpy(ret, r.ids, sizeof(r.ids));
    close_reader(&r);
}

/* Also where segments are compressed on the way, by runs of the model and without, and where the
 * first of them are thinned. */
static void of_each_memory(void **state)
{
    static char texts[N_MEMORIES + 2][700];
    uint32_t expected[N_MEMORIES + 2][ANSWER];

    (void)state;
    start_daemon(DAEMON_FIXTURE_TINY, "no");
    for (size_t i = 0; i < N_MEMORIES + 2; i++) {
        write_text(texts[i], 700, (unsigned)i);
        alone(&memories[i < N_MEMORIES ? i : 0], texts[i], 700, expected[i]);
    }
    daemon_fixture_stop(&d);
    start_daemon(DAEMON_FIXTURE_TINY, "yes");
    for (size_t i = 0; i < N_MEMORIES; i++)
        read_once(&memories[i], 3, texts[i], 700, expected[i]);
    read_once(&memories[0], 2, texts[N_MEMORIES], 700, expected[N_MEMORIES]);
    read_once(&memories[0], MANY, texts[N_MEMORIES + 1], 700, expected[N_MEMORIES + 1]);
    daemon_fixture_stop(&d);
}

/* Eight texts that part in two, and again, and again: each piece is read once. */
static void that_part(void **state)
{
    struct reader r[8];
    char text[8][800];
    uint64_t before;

    (void)state;
    start_daemon(DAEMON_FIXTURE_TINY, "yes");
    for (unsigned i = 0; i < 8; i++) {
        for (unsigned k = 0; k < 4; k++) /* all, 4, 2 and 1 of them are alike */
            write_text(text[i] + (size_t)k * 200, 200, 100 * k + i / (8 >> k));
        open_reader(&r[i], NULL, GIST_INTERACTIVE, 0);
    }
    before = tokens_read(r[0].conn);
    assert_int_equal(kill(d.pid, SIGSTOP), 0);
    for (unsigned i = 0; i < 8; i++)
        append(&r[i], text[i], 800);
    assert_int_equal(kill(d.pid, SIGCONT), 0);
    wait_all(r, 8);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(r[i].err, 0);
    /* Tokens are about letters: pieces of 200 letters, and a page at each place where they part. */
    assert_in_range(tokens_read(r[0].conn) - before, 1, (1 + 2 + 4 + 8) * 200 + 8 * PAGE);
    for (unsigned i = 0; i < 8; i++)
        close_reader(&r[i]);
    daemon_fixture_stop(&d);
}

/* Without a tree, and between those who read for all and those who don't, nobody waits. */
static void of_strangers(void **state)
{
    struct reader r[2];
    char text[600];

    (void)state;
    write_text(text, sizeof(text), 7);
    for (int cache = 0; cache < 2; cache++) {
        start_daemon(DAEMON_FIXTURE_TINY, cache ? "yes" : "no");
        open_reader(&r[0], NULL, GIST_INTERACTIVE, 0);
        open_reader(&r[1], NULL, GIST_INTERACTIVE, cache ? GIST_PUBLIC : 0);
        append_at_once(r, 2, text, sizeof(text));
        for (int i = 0; i < 2; i++) {
            assert_int_equal(r[i].usage.shared_tokens, 0);
            assert_int_equal(r[i].usage.computed_tokens, r[i].usage.prompt_tokens);
            close_reader(&r[i]);
        }
        daemon_fixture_stop(&d);
    }
}

/* Of three that ask at once for what lies on the disk one has it read back, and the others take it
 * over from that one. */
static void what_is_on_disk(void **state)
{
    const char *args[] = { "--batch-tokens", "64", NULL };
    struct reader r[3];
    char text[900];
    unsigned n_restored = 0;

    (void)state;
    write_text(text, sizeof(text), 8);
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    open_reader(&r[0], NULL, GIST_INTERACTIVE, 0);
    append_at_once(r, 1, text, sizeof(text));
    close_reader(&r[0]);
    daemon_fixture_stop(&d);
    daemon_fixture_restart(&d, DAEMON_FIXTURE_TINY, args);
    for (int i = 0; i < 3; i++)
        open_reader(&r[i], NULL, GIST_INTERACTIVE, 0);
    append_at_once(r, 3, text, sizeof(text));
    for (int i = 0; i < 3; i++) {
        struct gist_usage u = r[i].usage;

        /* The end of the text may be the disk's for each: the tree has whole pages. */
        n_restored += u.restored_tokens > SEGMENT;
        assert_in_range(u.computed_tokens, 1, 2 * PAGE);
        assert_int_equal(u.computed_tokens + u.shared_tokens + u.restored_tokens, u.prompt_tokens);
    }
    assert_int_equal(n_restored, 1);
    for (int i = 0; i < 3; i++)
        close_reader(&r[i]);
    daemon_fixture_stop(&d);
}

/* --- who ends in the middle ------------------------------------------------------------------- */

enum end { CANCELLED, CLOSED, DISCONNECTED, N_ENDS };

static void end_it(struct reader *r, enum end how)
{
    if (how == CANCELLED)
        assert_int_equal(gist_cancel(r->conn, r->request), 0);
    else if (how == CLOSED)
        gist_close(r->session);
    else
        gist_disconnect(r->conn);
}

/* What the leader had read is not read again, and the second of those who waited for it reads
 * nothing. */
static void a_leader_ends(void **state)
{
    static char text[1200];
    struct reader watch;

    (void)state;
    start_daemon(DAEMON_FIXTURE_SLOW, "yes");
    open_reader(&watch, NULL, GIST_INTERACTIVE, 0);
    for (enum end how = 0; how < N_ENDS; how++) {
        struct reader r[3];
        uint64_t before = tokens_read(watch.conn), read;

        write_text(text, sizeof(text), 30 + how);
        for (int i = 0; i < 3; i++)
            open_reader(&r[i], NULL, GIST_INTERACTIVE, 0);
        append(&r[0], text, sizeof(text));
        wait_until_read(watch.conn, before + 1);
        append(&r[1], text, sizeof(text));
        append(&r[2], text, sizeof(text));
        wait_until_read(watch.conn, before + 200);
        end_it(&r[0], how);
        read = tokens_read(watch.conn) - before;
        assert_in_range(read, 200, 1000); /* it was in the middle */
        wait_all(r + 1, 2);
        for (int i = 1; i < 3; i++) {
            assert_int_equal(r[i].err, 0);
            assert_true(r[i].usage.shared_tokens >= 200 / PAGE * PAGE);
        }
        read = tokens_read(watch.conn) - before;
        assert_in_range(read, r[1].usage.prompt_tokens, r[1].usage.prompt_tokens + 3 * PAGE);
        for (int i = how == DISCONNECTED ? 1 : 0; i < 3; i++) {
            if (i == 0 && how == CANCELLED)
                wait_all(r, 1);
            if (i == 0 && how == CLOSED)
                gist_disconnect(r[i].conn);
            else
                close_reader(&r[i]);
        }
    }
    close_reader(&watch);
    daemon_fixture_stop(&d);
}

static void a_leader_is_killed(void **state)
{
    static char text[1200];
    struct reader r, watch;
    pid_t pid;

    (void)state;
    write_text(text, sizeof(text), 50);
    start_daemon(DAEMON_FIXTURE_SLOW, "yes");
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct reader own;

        open_reader(&own, NULL, GIST_INTERACTIVE, 0);
        (void)gist_append_text(own.session, text, sizeof(text), 0, NULL);
        _exit(0);
    }
    open_reader(&watch, NULL, GIST_INTERACTIVE, 0);
    open_reader(&r, NULL, GIST_INTERACTIVE, 0);
    wait_until_read(watch.conn, 1);
    append(&r, text, sizeof(text));
    wait_until_read(watch.conn, 200);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    wait_all(&r, 1);
    assert_int_equal(r.err, 0);
    assert_in_range(r.usage.shared_tokens, 200 / PAGE * PAGE, 1000);
    assert_in_range(tokens_read(watch.conn), r.usage.prompt_tokens,
                    r.usage.prompt_tokens + 2 * PAGE);
    close_reader(&r);
    close_reader(&watch);
    daemon_fixture_stop(&d);
}

/* --- haste, and time -------------------------------------------------------------------------- */

/* Two interactive ones leave nothing to the background for as long as they read; but one more waits
 * for what the background reads, and is done long before them. */
static void a_leader_in_the_background(void **state)
{
    static char text[400], longs[2][1500];
    struct reader leader, follower, others[2];
    struct reader *all[] = { &leader, &follower, &others[0], &others[1] };

    (void)state;
    start_daemon(DAEMON_FIXTURE_SLOW, "yes");
    write_text(text, sizeof(text), 60);
    open_reader(&leader, NULL, GIST_BACKGROUND, 0);
    open_reader(&follower, NULL, GIST_INTERACTIVE, 0);
    for (int i = 0; i < 2; i++) {
        write_text(longs[i], sizeof(longs[i]), 61 + (unsigned)i);
        open_reader(&others[i], NULL, GIST_INTERACTIVE, 0);
    }
    n_done = 0;
    assert_int_equal(kill(d.pid, SIGSTOP), 0);
    append(&leader, text, sizeof(text));
    append(&follower, text, sizeof(text));
    for (int i = 0; i < 2; i++)
        append(&others[i], longs[i], sizeof(longs[i]));
    assert_int_equal(kill(d.pid, SIGCONT), 0);
    wait_for(all, 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(all[i]->err, 0);
    /* Whoever of the two was the first. */
    assert_int_equal((leader.usage.shared_tokens > 0) + (follower.usage.shared_tokens > 0), 1);
    assert_in_range(follower.place, 1, 2);
    for (int i = 0; i < 4; i++)
        close_reader(all[i]);
    daemon_fixture_stop(&d);
}

/* Time to the first token is counted from where the text was there, not from where the wait ended:
 * of two at once the second took as long as the first, though it has computed next to nothing. */
static void time_counts(void **state)
{
    static char text[600];
    struct reader r[2];
    uint64_t a, b;

    (void)state;
    start_daemon(DAEMON_FIXTURE_SLOW, "yes");
    write_text(text, sizeof(text), 70);
    for (int i = 0; i < 2; i++)
        open_reader(&r[i], NULL, GIST_INTERACTIVE, 0);
    append_at_once(r, 2, text, sizeof(text));
    a = r[0].usage.prompt_ns;
    b = r[1].usage.prompt_ns;
    assert_true(a > b / 2 && b > a / 2);
    for (int i = 0; i < 2; i++)
        close_reader(&r[i]);
    daemon_fixture_stop(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_each_memory),
        cmocka_unit_test(that_part),
        cmocka_unit_test(of_strangers),
        cmocka_unit_test(what_is_on_disk),
        cmocka_unit_test(a_leader_ends),
        cmocka_unit_test(a_leader_is_killed),
        cmocka_unit_test(a_leader_in_the_background),
        cmocka_unit_test(time_counts),
    };

    return cmocka_run_group_tests_name("follow", tests, NULL, NULL);
}
