/* tests/test_daemon_names.c - sessions and documents that are saved by the real daemon, and opened
 * by its next run. Would catch: an answer that is not the one that the saved session would have
 * given, a conversation that forgot where it was, a session of another model that is opened, names
 * that other users see, a list that loses or repeats a name, a damaged file that is believed, and a
 * name that can't be deleted or replaced.
 */
#include "tests/support/answered.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/memory_of.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct daemon_fixture d;
static gist_conn *conn;
static const char *const args[] = { "--socket-mode", "0666", NULL };

static void start(void)
{
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    daemon_fixture_let_in(&d);
    conn = daemon_fixture_connect(&d);
}

static void stop(void)
{
    gist_disconnect(conn);
    conn = NULL;
    daemon_fixture_stop(&d);
}

static void restart_with(enum daemon_fixture_model m, bool killed)
{
    gist_disconnect(conn);
    if (killed) {
        (void)kill(d.pid, SIGKILL);
        (void)daemon_fixture_wait(&d);
    } else {
        daemon_fixture_stop(&d);
    }
    daemon_fixture_restart(&d, m, args);
    conn = daemon_fixture_connect(&d);
}

static void refused(int err, int want, const char *sentence)
{
    assert_int_equal(err, want);
    if (!strstr(gist_error(conn), sentence))
        fail_msg("\"%s\" is not in \"%s\"", sentence, gist_error(conn));
}

/* --- answers ---------------------------------------------------------------------------------- */

static struct answered generate(gist_session *s, uint32_t n)
{
    struct answered a;

    if (answered_greedy(s, n, &a) < 0)
        fail_msg("%s", gist_error(conn));
    return a;
}

static void say(gist_session *s, const char *text)
{
    const struct gist_message msg = { "user", text };

    if (gist_append_chat(s, &msg, 1, GIST_OPEN_ANSWER, NULL) < 0)
        fail_msg("%s", gist_error(conn));
}

static gist_session *restore(const char *name)
{
    gist_session *s;

    if (gist_restore(conn, name, NULL, &s) < 0)
        fail_msg("%s", gist_error(conn));
    return s;
}

/* --- saved, and opened again ------------------------------------------------------------------ */

static const struct gist_memory memories[] = {
    MEMORY_OF(GIST_FULL, 0, 0, NULL, 0, 0),
    MEMORY_OF(GIST_NONE, 0, 20, NULL, 0, 0),
    MEMORY_OF(GIST_FINE_KV, 4, 0, NULL, 0, 0),
    MEMORY_OF(GIST_SELECT, 8, 10, NULL, 0, 0),
    MEMORY_OF(GIST_SELECT_REREAD, 4, 10, NULL, 200, 0),
    MEMORY_OF(GIST_FINE_KV, 2, 0, NULL, 256, GIST_LATE),
};
#define N_MEMORIES (sizeof(memories) / sizeof(*memories))

/* Where a conversation may stand when it is saved. */
enum stand {
    STAND_EMPTY,   /* nothing was said */
    STAND_READ,    /* a turn was read: the answer starts from logits */
    STAND_SAID,    /* in the middle of an answer: its last token was not read yet */
    STAND_REWOUND, /* taken back into a turn */
    STAND__N
};

static gist_session *converse(size_t memory, enum stand stand)
{
    struct gist_policy p = {
        .size = sizeof(p), .segment = 64, .memory = &memories[memory], .label = "talk"
    };
    char text[420];
    gist_session *s;
    unsigned seed = 17 + (unsigned)memory;

    for (size_t i = 0; i + 1 < sizeof(text); i++)
        text[i] = (char)('0' + rand_r(&seed) % 10);
    text[sizeof(text) - 1] = '\0';
    assert_int_equal(gist_open(conn, &p, &s), 0);
    if (stand == STAND_EMPTY)
        return s;
    say(s, text);
    if (stand == STAND_READ)
        return s;
    (void)generate(s, 7);
    if (stand == STAND_REWOUND) {
        say(s, "And more of the same, which is then taken back.");
        assert_int_equal(gist_rewind(s, 455), 0);
    }
    return s;
}

/* How it goes on: three turns, and back into the first. All of that depends on ids, logits,
 * pending token, and on where the conversation was. */
static void go_on(gist_session *s, struct answered ret[4])
{
    struct gist_usage u;

    say(s, "Go on.");
    ret[0] = generate(s, 12);
    say(s, "And then?");
    ret[1] = generate(s, 12);
    assert_int_equal(gist_append_text(s, " ", 1, 0, &u), 0);
    ret[2] = generate(s, 12);
    assert_int_equal(gist_rewind(s, u.prompt_tokens - 20), 0);
    say(s, "Once more.");
    ret[3] = generate(s, 12);
}

static void name_of(size_t memory, enum stand stand, char ret[32])
{
    (void)snprintf(ret, 32, "m%zu s%d", memory, stand);
}

/* A session that was rewound past a compression holds less than a fresh one of its ids would: what
 * is opened again is the fresh one. */
static bool exact(size_t memory, enum stand stand)
{
    return memory == 0 || stand != STAND_REWOUND;
}

static void goes_on(bool killed)
{
    static struct answered want[N_MEMORIES][STAND__N][4];
    struct answered got[4], direct;
    char name[32];

    start();
    for (size_t m = 0; m < N_MEMORIES; m++)
        for (enum stand st = 0; st < STAND__N; st++) {
            gist_session *s = converse(m, st);

            name_of(m, st, name);
            if (gist_save(s, name, 0) < 0)
                fail_msg("%s", gist_error(conn));
            go_on(s, want[m][st]);
            gist_close(s);
        }
    restart_with(DAEMON_FIXTURE_TINY, killed);
    for (size_t m = 0; m < N_MEMORIES; m++)
        for (enum stand st = 0; st < STAND__N; st++) {
            gist_session *s;

            name_of(m, st, name);
            s = restore(name);
            go_on(s, got);
            for (int i = 0; exact(m, st) && i < 4; i++)
                if (!answered_same(&got[i], &want[m][st][i]))
                    break;
            gist_close(s);
        }
    /* Also without a word before: from the logits, and from the token that waits. */
    direct = generate(restore("m2 s1"), 12);
    restart_with(DAEMON_FIXTURE_TINY, killed);
    got[0] = generate(restore("m2 s1"), 12);
    (void)answered_same(&got[0], &direct);
    stop();
}

static void test_goes_on(void **state)
{
    (void)state;
    goes_on(false);
}

static void test_goes_on_after_a_kill(void **state)
{
    (void)state;
    goes_on(true);
}

/* What is restored is told, and is not read anew. */
static void test_usage(void **state)
{
    struct gist_usage u;
    struct gist_stats st;
    gist_session *s;

    (void)state;
    start();
    s = converse(0, STAND_SAID);
    assert_int_equal(gist_save(s, "talk", 0), 0);
    s = restore("talk"); /* beside the one that is open */
    gist_session_usage(s, &u);
    assert_true(u.prompt_tokens > 430 && u.computed_tokens <= 17);
    assert_true(u.shared_tokens + u.restored_tokens + u.computed_tokens >= u.prompt_tokens - 1);
    restart_with(DAEMON_FIXTURE_TINY, false);
    s = restore("talk");
    gist_session_usage(s, &u);
    /* The token that waited is all that the model had to read. */
    assert_true(u.prompt_tokens > 430 && u.restored_tokens == u.prompt_tokens - 1);
    assert_int_equal(u.computed_tokens, 1);
    assert_int_equal(gist_stats(conn, &st), 0);
    assert_int_equal(st.n_sessions, 1);
    assert_string_equal(st.sessions[0].label, "talk");
    stop();
}

/* A question and its answer: where the conversation stands has a say in both. */
static struct answered ask(gist_session *s)
{
    say(s, "And then?");
    return generate(s, 10);
}

/* Back into the answer, which the next turn has to end first: of all that is saved, only the marks
 * know that. */
static void test_rewinds(void **state)
{
    struct gist_usage u;
    gist_session *s, *t;
    struct answered a, b;

    (void)state;
    start();
    s = converse(0, STAND_SAID);
    assert_int_equal(gist_save(s, "talk", 0), 0);
    t = restore("talk");
    gist_session_usage(t, &u);
    assert_int_equal(gist_rewind(s, u.prompt_tokens - 3), 0);
    assert_int_equal(gist_rewind(t, u.prompt_tokens - 3), 0);
    a = ask(s);
    b = ask(t);
    (void)answered_same(&b, &a);
    stop();
}

/* --- names ------------------------------------------------------------------------------------ */

struct found {
    char names[4096]; /* with a comma behind each */
    char last_model[128];
    struct gist_row row; /* of the last; its strings are gone */
    unsigned n;
};

static int on_row(void *arg, const struct gist_row *row)
{
    struct found *f = arg;

    if (strlen(f->names) + strlen(row->name) + 2 < sizeof(f->names))
        (void)strcat(strcat(f->names, row->name), ",");
    (void)snprintf(f->last_model, sizeof(f->last_model), "%s", row->model);
    f->row = *row;
    f->n++;
    return 0;
}

static struct found list(gist_conn *c, enum gist_named kind)
{
    struct found f = { .n = 0 };

    assert_int_equal(gist_list(c, kind, on_row, &f), 0);
    return f;
}

static void test_names(void **state)
{
    struct gist_policy private = { .size = sizeof(private), .flags = GIST_PRIVATE };
    gist_session *s, *t;
    char longest[130];
    struct found f;

    (void)state;
    memset(longest, 'x', 128);
    longest[128] = longest[129] = '\0';
    start();
    s = converse(0, STAND_READ);
    assert_int_equal(gist_save(s, longest, 0), 0);
    assert_int_equal(gist_save(s, "b", 0), 0);
    refused(gist_save(s, "b", 0), -EEXIST, "already");
    assert_int_equal(gist_save(s, "caf\xc3\xa9", 0), 0);
    longest[128] = 'x';
    refused(gist_save(s, longest, 0), -EINVAL, "129 bytes");
    refused(gist_save(s, "", 0), -EINVAL, "0 bytes");
    refused(gist_save(s, "../b", 0), -EINVAL, "'/'");
    refused(gist_restore(conn, "a\nb", NULL, &t), -EINVAL, "control");
    refused(gist_restore(conn, "nothing", NULL, &t), -ENOENT, "no saved session \"nothing\"");
    refused(gist_delete(conn, GIST_SESSIONS, "nothing"), -ENOENT, "nothing");
    refused(gist_delete(conn, GIST_DOCUMENTS, "b"), -ENOENT, "no document");
    f = list(conn, GIST_SESSIONS);
    assert_int_equal(f.n, 3);
    assert_memory_equal(f.names, "b,caf\xc3\xa9,xxxx", 11);
    assert_true(f.row.kept && f.row.bytes > 512 && f.row.at_s > 1600000000);
    assert_int_equal(list(conn, GIST_DOCUMENTS).n, 0);

    /* Replaced: what it was is gone, also after a restart. */
    (void)generate(s, 5);
    assert_int_equal(gist_save(s, "b", GIST_REPLACE), 0);
    longest[128] = '\0';
    assert_int_equal(gist_delete(conn, GIST_SESSIONS, longest), 0);
    restart_with(DAEMON_FIXTURE_TINY, true);
    f = list(conn, GIST_SESSIONS);
    assert_string_equal(f.names, "b,caf\xc3\xa9,");
    s = restore("b");
    t = restore("caf\xc3\xa9");
    assert_true(gist_rewind(s, 430) == 0);
    gist_close(t);
    assert_int_equal(gist_open(conn, &private, &t), 0);
    refused(gist_save(t, "secret", 0), -EINVAL, "private");
    stop();
}

static void test_owners(void **state)
{
    gist_conn *other, *nobody;
    gist_session *s, *t;

    (void)state;
    if (geteuid() != 0) {
        printf("skipped: only root can be several users\n");
        skip();
    }
    start();
    other = daemon_fixture_connect_as(&d, 12345);
    nobody = daemon_fixture_connect_as(&d, 65534);
    s = converse(0, STAND_READ);
    assert_int_equal(gist_save(s, "mine", 0), 0);
    assert_int_equal(gist_restore(other, "mine", NULL, &t), -ENOENT);
    assert_int_equal(gist_delete(other, GIST_SESSIONS, "mine"), -ENOENT);
    assert_int_equal(list(other, GIST_SESSIONS).n, 0);
    assert_int_equal(gist_open(other, NULL, &t), 0);
    assert_int_equal(gist_append_text(t, "another's", 9, 0, NULL), 0);
    assert_int_equal(gist_save(t, "mine", 0), 0);
    assert_int_equal(gist_delete(other, GIST_SESSIONS, "mine"), 0);
    assert_int_equal(list(conn, GIST_SESSIONS).n, 1);
    assert_int_equal(gist_open(nobody, NULL, &t), 0);
    assert_int_equal(gist_save(t, "x", 0), -ENOTSUP);
    assert_int_equal(gist_restore(nobody, "mine", NULL, &t), -ENOTSUP);
    gist_disconnect(other);
    gist_disconnect(nobody);
    stop();
}

static void test_other_model(void **state)
{
    gist_session *s;
    struct found f;

    (void)state;
    start();
    assert_int_equal(gist_save(converse(0, STAND_READ), "talk", 0), 0);
    assert_int_equal(gist_document_add(conn, "book", "1234567890", 10, NULL, NULL), 0);
    restart_with(DAEMON_FIXTURE_SLOW, false);
    refused(gist_restore(conn, "talk", NULL, &s), -EMEDIUMTYPE, "it is of the model");
    assert_int_equal(gist_error_code(conn), GIST_E_WRONG_MODEL);
    assert_non_null(strstr(gist_error(conn), "this daemon serves"));
    f = list(conn, GIST_SESSIONS);
    assert_int_equal(f.n, 1);
    assert_int_equal(f.row.state, GIST_OTHER_MODEL);
    assert_int_equal(list(conn, GIST_DOCUMENTS).row.state, GIST_OTHER_MODEL);
    restart_with(DAEMON_FIXTURE_TINY, false);
    assert_int_equal(list(conn, GIST_SESSIONS).row.state, GIST_READY);
    gist_close(restore("talk"));
    stop();
}

/* --- a thousand names ------------------------------------------------------------------------- */

#define MANY 1000u

static int in_order(void *arg, const struct gist_row *row)
{
    unsigned *n = arg;
    char want[16];

    (void)snprintf(want, sizeof(want), "n%04u", *n);
    assert_string_equal(row->name, want);
    assert_int_equal(row->n_tokens, 3);
    ++*n;
    return 0;
}

static void test_many(void **state)
{
    gist_session *s;
    char name[16];
    unsigned n = 0;

    (void)state;
    start();
    assert_int_equal(gist_open(conn, NULL, &s), 0);
    assert_int_equal(gist_append_text(s, "123", 3, 0, NULL), 0);
    for (unsigned i = 0; i < MANY; i++) {
        (void)snprintf(name, sizeof(name), "n%04u", i * 7 % MANY);
        assert_int_equal(gist_save(s, name, 0), 0);
    }
    assert_int_equal(gist_list(conn, GIST_SESSIONS, in_order, &n), 0);
    assert_int_equal(n, MANY);
    restart_with(DAEMON_FIXTURE_TINY, false);
    n = 0;
    assert_int_equal(gist_list(conn, GIST_SESSIONS, in_order, &n), 0);
    assert_int_equal(n, MANY);
    stop();
}

/* --- damage ----------------------------------------------------------------------------------- */

/* Flips a bit of the last byte of the only file whose name begins so. */
static void flip(const char *begins)
{
    char *const roots[] = { d.store, NULL };
    FTS *fts = fts_open(roots, FTS_PHYSICAL, NULL);
    unsigned n = 0;
    FTSENT *e;

    assert_non_null(fts);
    while ((e = fts_read(fts))) {
        uint8_t byte;
        int fd;

        if (e->fts_info != FTS_F || strncmp(e->fts_name, begins, strlen(begins)) != 0)
            continue;
        fd = open(e->fts_accpath, O_RDWR);
        assert_true(fd >= 0 && e->fts_statp->st_size > 512);
        assert_int_equal(pread(fd, &byte, 1, 600), 1);
        byte ^= 1;
        assert_int_equal(pwrite(fd, &byte, 1, 600), 1);
        (void)close(fd);
        n++;
    }
    (void)fts_close(fts);
    assert_int_equal(n, 1);
}

static void test_damaged(void **state)
{
    gist_session *s;
    struct found f;

    (void)state;
    start();
    s = converse(0, STAND_READ);
    assert_int_equal(gist_save(s, "talk", 0), 0);
    gist_close(s);
    restart_with(DAEMON_FIXTURE_TINY, false);
    flip("0-");
    refused(gist_restore(conn, "talk", NULL, &s), -EROFS, "damaged");
    f = list(conn, GIST_SESSIONS);
    assert_int_equal(f.n, 1);
    assert_int_equal(f.row.state, GIST_DAMAGED);
    assert_int_equal(gist_delete(conn, GIST_SESSIONS, "talk"), 0);
    assert_int_equal(list(conn, GIST_SESSIONS).n, 0);
    stop();
}

/* --- documents -------------------------------------------------------------------------------- */

/* Of a session to which the document's text was said. */
static struct answered ask_told(const char *text)
{
    const struct gist_message message = { "system", text };
    gist_session *s;

    assert_int_equal(gist_open(conn, NULL, &s), 0);
    assert_int_equal(gist_append_chat(s, &message, 1, 0, NULL), 0);
    return ask(s);
}

static void test_documents(void **state)
{
    const struct gist_document doc = { .size = sizeof(doc), .flags = GIST_PLAIN | GIST_PIN };
    struct gist_policy p = { .size = sizeof(p), .n_documents = 1 };
    const char *pinned = "pinned", *loose = "loose";
    struct gist_usage u;
    struct gist_stats st;
    gist_session *s;
    char text[501] = "";
    struct found f;
    struct answered a, b;

    (void)state;
    memset(text, '7', 500);
    start();
    assert_int_equal(gist_document_add(conn, pinned, text, 500, &doc, NULL), 0);
    text[0] = '1';
    assert_int_equal(gist_document_add(conn, loose, text, 500, NULL, NULL), 0);
    f = list(conn, GIST_DOCUMENTS);
    assert_string_equal(f.names, "loose,pinned,");
    assert_true(f.row.kept && f.row.pinned);
    p.documents = &loose;
    assert_int_equal(gist_open(conn, &p, &s), 0);
    a = ask(s);
    b = ask_told(text);
    (void)answered_same(&b, &a);
    restart_with(DAEMON_FIXTURE_TINY, true);
    f = list(conn, GIST_DOCUMENTS);
    assert_string_equal(f.names, "loose,pinned,");
    assert_true(f.row.kept && f.row.n_tokens == 500);
    assert_int_equal(gist_open(conn, &p, &s), 0);
    b = ask(s);
    (void)answered_same(&b, &a);
    assert_int_equal(gist_stats(conn, &st), 0);
    assert_int_equal(st.pinned_pages, 0);
    /* It is pinned again as soon as somebody has begun with it. */
    p.documents = &pinned;
    assert_int_equal(gist_open(conn, &p, &s), 0);
    gist_session_usage(s, &u);
    assert_int_equal(u.prompt_tokens, 500);
    assert_int_equal(gist_stats(conn, &st), 0);
    assert_int_equal(st.pinned_pages, 32);
    f = list(conn, GIST_DOCUMENTS);
    assert_true(f.row.kept && f.row.pinned && f.row.at_s > 1600000000);
    assert_int_equal(gist_delete(conn, GIST_DOCUMENTS, pinned), 0);
    assert_int_equal(gist_delete(conn, GIST_DOCUMENTS, loose), 0);
    assert_int_equal(gist_stats(conn, &st), 0);
    assert_int_equal(st.pinned_pages, 0);
    restart_with(DAEMON_FIXTURE_TINY, false);
    assert_int_equal(list(conn, GIST_DOCUMENTS).n, 0);
    stop();
}

/* All that is kept of a user goes at once: names, and what is pinned for them. */
static void test_forgotten(void **state)
{
    const struct gist_document doc = { .size = sizeof(doc), .flags = GIST_PLAIN | GIST_PIN };
    struct gist_stats st;
    gist_session *s;
    char text[500];

    (void)state;
    memset(text, '7', sizeof(text));
    start();
    assert_int_equal(gist_document_add(conn, "pinned", text, 500, &doc, NULL), 0);
    assert_int_equal(gist_save(converse(0, STAND_READ), "talk", 0), 0);
    assert_int_equal(gist_cache(conn, GIST_CACHE_FORGET, NULL, NULL, NULL, NULL), 0);
    assert_int_equal(list(conn, GIST_DOCUMENTS).n, 0);
    assert_int_equal(list(conn, GIST_SESSIONS).n, 0);
    refused(gist_restore(conn, "talk", NULL, &s), -ENOENT, "talk");
    assert_int_equal(gist_stats(conn, &st), 0);
    assert_int_equal(st.pinned_pages, 0);
    assert_int_equal(st.n_documents, 0);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goes_on),     cmocka_unit_test(test_goes_on_after_a_kill),
        cmocka_unit_test(test_usage),       cmocka_unit_test(test_rewinds),
        cmocka_unit_test(test_names),       cmocka_unit_test(test_owners),
        cmocka_unit_test(test_other_model), cmocka_unit_test(test_many),
        cmocka_unit_test(test_damaged),     cmocka_unit_test(test_documents),
        cmocka_unit_test(test_forgotten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
