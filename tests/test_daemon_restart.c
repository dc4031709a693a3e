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
#include "tests/support/memory_of.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define SEGMENT   64u
#define BYTE_0    3u /* the model's id of byte 0 */
#define TOKENS    1000u
#define UNLIMITED 0u

static const struct gist_memory memories[] = {
    MEMORY_OF(GIST_FULL, 0, 0, NULL, 0, 0),
    MEMORY_OF(GIST_SELECT, 8, 0, NULL, 0, 0),
    MEMORY_OF(GIST_FINE_KV, 4, 20, NULL, 260, 0), /* thinned twice and more */
    MEMORY_OF(GIST_SELECT, 2, 0, NULL, 200, 0),
    MEMORY_OF(GIST_NONE, 0, 37, NULL, 0, 0),
    MEMORY_OF(GIST_SELECT_REREAD, 4, 10, NULL, 0, 0),
    MEMORY_OF(GIST_FINE_KV, 2, 0, NULL, 300, GIST_LATE),
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

/* How it ends. */
enum end {
    STOPPED, /* SIGTERM */
    KILLED,  /* SIGKILL, when all was written */
    KILLED_AT_ONCE
};

static void end_daemon(struct daemon_fixture *d, gist_conn *c, enum end how)
{
    if (how == STOPPED) {
        gist_disconnect(c);
        daemon_fixture_stop(d);
        return;
    }
    if (how == KILLED)
        daemon_fixture_stored(c);
    assert_int_equal(kill(d->pid, SIGKILL), 0);
    assert_int_equal(daemon_fixture_wait(d), 128 + SIGKILL);
    gist_disconnect(c);
}

/* From the beginning, with an end before ops whose bit is set. All that was said but its last token
 * is there afterwards, and nothing else is computed; but for what the disk had no time for. */
static void talk_with_ends(size_t memory, unsigned ends, enum end how, const struct talk *want)
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
        if (how != KILLED_AT_ONCE && had > 0 && u.restored_tokens != had - 1)
            fail_msg("memory %zu, restart before step %zu: %u tokens of %u were restored:\n%s",
                     memory, i, u.restored_tokens, had, daemon_fixture_log(&d));
    }
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* Every second step for one memory, the others for the next; and at all of them. */
static void ends_at_every_step(enum end how)
{
    struct talk want;

    for (size_t m = 0; m < N_MEMORIES; m++) {
        without_a_restart(&memories[m], &want);
        for (size_t i = 1 + m % 2; i < N_OPS; i += 2)
            talk_with_ends(m, 1u << i, how, &want);
        talk_with_ends(m, ~1u, how, &want);
    }
}

static void stopped_at_every_step(void **state)
{
    (void)state;
    ends_at_every_step(STOPPED);
}

static void killed_at_every_step(void **state)
{
    (void)state;
    ends_at_every_step(KILLED);
}

static void killed_while_it_writes(void **state)
{
    (void)state;
    ends_at_every_step(KILLED_AT_ONCE);
}

/* --- nobody else's ---------------------------------------------------------------------------- */

static const char *another_model(void)
{
    static char path[SCRATCH_PATH_MAX];
    struct gguf_build_shape shape = gguf_build_tiny();
    struct gguf_build *b;

    shape.n_ctx = 1024;
    shape.std = 0.4f;
    b = gguf_build_model(&shape);
    gguf_build_write(b, scratch_path(path, "another.gguf"));
    gguf_build_free(b);
    return path;
}

static uint32_t restored(const struct daemon_fixture *d, uid_t uid,
                         const struct gist_memory *memory, const struct talk *t)
{
    struct gist_usage u;
    gist_session *s;
    gist_conn *c = daemon_fixture_connect_as(d, uid);

    s = open_session(c, memory);
    append(s, t, 0, &u);
    daemon_fixture_stored(c);
    gist_disconnect(c);
    return u.restored_tokens;
}

/* Each in a daemon of its own on the same store: nothing can come from memory. */
static void nobody_elses(void **state)
{
    static const struct {
        const char *option, *value; /* another daemon */
        bool other_model;
        uid_t uid;
        size_t memory;
        bool comes_back;
    } cases[] = {
        { .memory = 1, .comes_back = true },
        { "--kv-type", "f32", .memory = 1 },
        { "--kv-type", "q8_0", .memory = 1 },
        { .other_model = true, .memory = 1 },
        { .uid = 65533, .memory = 1 },
        { .memory = 0 }, /* read once with another policy */
        { .memory = 4 },
        { "--threads", "1", .memory = 1, .comes_back = true },
    };
    struct daemon_fixture d;
    struct talk t = { .n = 0 };

    (void)state;
    user_says(&t, 500, 17);
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    assert_int_equal(restored(&d, 0, &memories[1], &t), 0);
    daemon_fixture_stop(&d);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const char *more[16] = { "--store-restore", "always", "--store-idle-ms", "20",
                                 "--socket-mode",   "0666",   "--pin",           "no" };
        size_t n = 8;

        if (cases[i].uid && geteuid() != 0)
            continue;
        if (cases[i].option) {
            more[n++] = cases[i].option;
            more[n++] = cases[i].value;
        }
        if (cases[i].other_model) {
            more[n++] = "--model";
            more[n++] = another_model();
        }
        daemon_fixture_restart(&d, DAEMON_FIXTURE_TINY, more);
        daemon_fixture_let_in(&d);
        if (restored(&d, cases[i].uid, &memories[cases[i].memory], &t) !=
            (cases[i].comes_back ? t.n - 1 : 0))
            fail_msg("case %zu", i);
        daemon_fixture_stop(&d);
    }
}

/* --- disks that don't ------------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

/* A conversation in this daemon is what it is without a store. */
static void expect_served(const struct daemon_fixture *d, const char *removed)
{
    struct gist_usage u;
    struct talk t = { .n = 0 }, want;
    gist_conn *c = daemon_fixture_connect(d);
    gist_session *s = open_session(c, &memories[1]);

    without_a_restart(&memories[1], &want);
    for (size_t i = 0; i < N_OPS; i++) {
        if (removed && i == 3)
            while (access(removed, F_OK) == 0) /* the daemon makes files meanwhile */
                (void)nftw(removed, remove_one, 8, FTW_DEPTH | FTW_PHYS);
        play(s, &ops[i], &t, false, &u);
        expect_same(&t, &want, 1, i);
    }
    gist_disconnect(c);
}

static void without_a_folder(void **state)
{
    char file[SCRATCH_PATH_MAX];
    const char *const in_a_file[] = { "--store", scratch_path(file, "a file"), NULL };
    struct daemon_fixture d;
    FILE *f = fopen(file, "w");

    (void)state;
    assert_non_null(f);
    assert_int_equal(fclose(f), 0);
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, in_a_file);
    assert_non_null(strstr(daemon_fixture_log(&d), "context is kept in memory only: "));
    expect_served(&d, NULL);
    daemon_fixture_stop(&d);

    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    expect_served(&d, d.store); /* it goes while the daemon serves */
    daemon_fixture_stop(&d);
}

static void of_another_daemon(void **state)
{
    struct daemon_fixture d, other;
    const char *const same[] = { "--store", d.store, NULL };

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    daemon_fixture_start(&other, DAEMON_FIXTURE_TINY, same);
    assert_non_null(strstr(daemon_fixture_log(&other), "context is kept in memory only: "));
    expect_served(&other, NULL);
    daemon_fixture_stop(&other);
    daemon_fixture_stop(&d);
}

/* Of a store that is smaller than a conversation, or may not write so much a day. */
static void that_is_full(void **state)
{
    static const char *const small[] = { "--store-bytes", "1M", "--store-idle-ms", "20", NULL };
    static const char *const poor[] = { "--store-write-bytes", "100K", "--store-idle-ms", "20",
                                        NULL };
    struct daemon_fixture d;

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, small);
    for (int i = 0; i < 3; i++)
        expect_served(&d, NULL);
    daemon_fixture_stop(&d);
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, poor);
    expect_served(&d, NULL);
    daemon_fixture_stop(&d);
}

/* The beginning is in memory, the rest on the disk: each token is counted once. */
static void from_memory_and_disk(void **state)
{
    struct talk t = { .n = 0 }, begin;
    struct daemon_fixture d;
    struct gist_usage usage;
    gist_conn *c;

    (void)state;
    user_says(&t, 700, 5);
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    append(open_session(c, &memories[0]), &t, 0, &usage);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
    daemon_fixture_restart(&d, DAEMON_FIXTURE_TINY, args);
    c = daemon_fixture_connect(&d);
    begin = t;
    begin.n = 300;
    append(open_session(c, &memories[0]), &begin, 0, &usage);
    append(open_session(c, &memories[0]), &t, 0, &usage);
    assert_true(usage.shared_tokens > 0 && usage.restored_tokens > 0);
    assert_int_equal(usage.shared_tokens + usage.restored_tokens + usage.computed_tokens, 700);
    assert_int_equal(usage.computed_tokens, 1);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(from_memory_and_disk), cmocka_unit_test(stopped_at_every_step),
        cmocka_unit_test(killed_at_every_step), cmocka_unit_test(killed_while_it_writes),
        cmocka_unit_test(nobody_elses),         cmocka_unit_test(without_a_folder),
        cmocka_unit_test(of_another_daemon),    cmocka_unit_test(that_is_full),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
