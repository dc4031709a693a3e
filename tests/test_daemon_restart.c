/* tests/test_daemon_restart.c - conversations that a daemon's end interrupts. Would catch: an
 * answer that is another one after a restart, by SIGTERM or SIGKILL and at any point; text that is
 * computed again although it was stored; what is not stored, but said to be; a session of another
 * user, model, adapter or number format that is given what is not its own; a disk that fails and
 * takes sessions with it.
 *
 * The client is one without any session handling: after a restart it sends all that was said.
 */
#include "tests/support/daemon_fixture.h"
#include "tests/support/gguf_build.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define SEGMENT   64u
#define BYTE_0    3u /* the model's id of byte 0 */
#define TOKENS    1000u
#define UNLIMITED 0u

#define M(compressor, ratio, tail, budget, flags)                                                  \
    {                                                                                              \
        sizeof(struct gist_memory), compressor, ratio, 0, tail, NULL, budget, flags                \
    }
static const struct gist_memory memories[] = {
    M(GIST_FULL, 0, 0, 0, 0),           M(GIST_SELECT, 8, 0, 0, 0),
    M(GIST_FINE_KV, 4, 20, 260, 0), /* thinned twice and more */
    M(GIST_SELECT, 2, 0, 200, 0),       M(GIST_NONE, 0, 37, 0, 0),
    M(GIST_SELECT_REREAD, 4, 10, 0, 0), M(GIST_FINE_KV, 2, 0, 300, GIST_LATE),
};
#define N_MEMORIES (sizeof(memories) / sizeof(*memories))

/* --- a conversation --------------------------------------------------------------------------- */

struct op {
    bool says; /* the model; else the user */
    uint32_t n;
};
static const struct op ops[] = { { false, 300 }, { true, 40 }, { false, 77 },  { true, 64 },
                                 { false, 5 },   { true, 1 },  { false, 400 }, { true, 20 } };
#define N_OPS (sizeof(ops) / sizeof(*ops))

/* All that was said, by whom does not matter. */
struct talk {
    uint32_t ids[TOKENS];
    uint32_t n;
};

static void user_says(struct talk *t, uint32_t n, unsigned seed)
{
    seed += t->n;
    for (uint32_t i = 0; i < n; i++)
        t->ids[t->n++] = BYTE_0 + 32 + (uint32_t)rand_r(&seed) % 90;
}

static int on_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    struct talk *t = arg;

    (void)text;
    (void)len;
    assert_true(t->n + n_ids <= TOKENS);
    for (size_t i = 0; i < n_ids; i++)
        t->ids[t->n++] = ids[i];
    return 0;
}

static void model_says(gist_session *s, uint32_t n, struct talk *t)
{
    struct gist_sampling p = { .size = sizeof(p), .max_tokens = n, .ignore_eog = 1 };
    struct gist_result result;

    assert_int_equal(gist_generate(s, &p, on_text, t, &result), 0);
    assert_int_equal(result.reason, GIST_LENGTH);
}

static gist_session *open_session(gist_conn *c, const struct gist_memory *memory)
{
    struct gist_policy p = { .size = sizeof(p), .segment = SEGMENT, .memory = memory };
    gist_session *s;

    if (gist_open(c, &p, &s) < 0)
        fail_msg("%s", gist_error(c));
    return s;
}

/* What is in the session ends at `had`. What is computed, shared and restored is all of it. */
static void append(gist_session *s, const struct talk *t, uint32_t had, struct gist_usage *ret)
{
    assert_int_equal(gist_append_tokens(s, t->ids + had, t->n - had, ret), 0);
    assert_int_equal(ret->prompt_tokens, t->n);
}

/* One op of the script. fresh: the session is new, and hears all that was said before. */
static void play(gist_session *s, const struct op *op, struct talk *t, bool fresh,
                 struct gist_usage *ret_usage)
{
    uint32_t had = fresh ? 0 : t->n;

    if (!op->says)
        user_says(t, op->n, 5);
    if (t->n > had)
        append(s, t, had, ret_usage);
    if (op->says)
        model_says(s, op->n, t);
}

/* The conversation as it goes in one daemon that keeps nothing. */
static void without_a_restart(const struct gist_memory *memory, struct talk *ret)
{
    const char *args[] = { "--store", "none", NULL };
    struct daemon_fixture d;
    struct gist_usage usage;
    gist_session *s;
    gist_conn *c;

    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    s = open_session(c, memory);
    ret->n = 0;
    for (size_t i = 0; i < N_OPS; i++)
        play(s, &ops[i], ret, false, &usage);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

static void expect_same(const struct talk *got, const struct talk *want, size_t memory, size_t op)
{
    for (uint32_t i = 0; i < got->n; i++)
        if (got->ids[i] != want->ids[i])
            fail_msg("memory %zu, restart before step %zu: token %u is %u, expected %u", memory, op,
                     i, got->ids[i], want->ids[i]);
}

/* --- at every step ---------------------------------------------------------------------------- */

static const char *const args[] = { "--store-restore", "always", "--store-idle-ms", "20", NULL };

static void end_daemon(struct daemon_fixture *d, gist_conn *c, int how)
{
    if (how == SIGTERM) {
        gist_disconnect(c);
        daemon_fixture_stop(d);
        return;
    }
    assert_int_equal(kill(d->pid, SIGKILL), 0);
    assert_int_equal(daemon_fixture_wait(d), 128 + SIGKILL);
    gist_disconnect(c);
}

/* From the beginning, with an end before ops whose bit is set. After SIGTERM all that was said but
 * its last token is there, and nothing else is computed. */
static void talk_with_ends(size_t memory, unsigned ends, int how, const struct talk *want)
{
    struct talk t = { .n = 0 };
    struct daemon_fixture d;
    gist_session *s;
    gist_conn *c;

    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    s = open_session(c, &memories[memory]);
    for (size_t i = 0; i < N_OPS; i++) {
        bool ended = ends >> i & 1;
        struct gist_usage u = { .prompt_tokens = 0 };
        uint32_t had = t.n;

        if (ended) {
            end_daemon(&d, c, how);
            daemon_fixture_restart(&d, DAEMON_FIXTURE_TINY, args);
            c = daemon_fixture_connect(&d);
            s = open_session(c, &memories[memory]);
        }
        play(s, &ops[i], &t, ended, &u);
        expect_same(&t, want, memory, i);
        if (!ended)
            continue;
        assert_int_equal(u.computed_tokens + u.restored_tokens, u.prompt_tokens);
        if (how == SIGTERM && had > 0 && u.restored_tokens != had - 1)
            fail_msg("memory %zu, restart before step %zu: %u tokens of %u were restored:\n%s",
                     memory, i, u.restored_tokens, had, daemon_fixture_log(&d));
    }
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

static void stopped_at_every_step(void **state)
{
    struct talk want;

    (void)state;
    for (size_t m = 0; m < N_MEMORIES; m++) {
        without_a_restart(&memories[m], &want);
        for (size_t i = 1 + m % 2; i < N_OPS; i += 2)
            talk_with_ends(m, 1u << i, SIGTERM, &want);
        talk_with_ends(m, ~1u, SIGTERM, &want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stopped_at_every_step),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
