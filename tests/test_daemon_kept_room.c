/* tests/test_daemon_kept_room.c - how much sessions that outlive their connection may take. Would
 * catch: a user who keeps so many that another can't keep one, or can't be served; tokens that
 * another user can use; more than a limit says; memory that stays when they are gone.
 */

#include "tests/support/daemon_fixture.h"
#include "tests/support/sanitized.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define OTHER 4242u /* a uid */

static struct daemon_fixture d;

static void start(const char *const *args)
{
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    daemon_fixture_let_in(&d);
}

static bool is_root(void)
{
    if (getuid() == 0)
        return true;
    printf("two users: only root can be somebody else\n");
    return false;
}

/* A kept session with n tokens, whose connection has ended: it is the daemon's alone. */
static int leave_one(uid_t uid, uint32_t n, struct gist_kept *ret, char text[512])
{
    static unsigned seed;
    gist_conn *c = daemon_fixture_connect_as(&d, uid);
    uint32_t ids[512];
    gist_session *s;
    int r = gist_open(c, NULL, &s);

    for (uint32_t i = 0; i < n; i++)
        ids[i] = 40 + (uint32_t)rand_r(&seed) % 80;
    *ret = (struct gist_kept){ .size = sizeof(*ret) };
    if (r == 0 && n > 0)
        r = gist_append_tokens(s, ids, n, NULL);
    if (r == 0)
        r = gist_keep(s, 0, ret);
    (void)snprintf(text, 512, "%s", r < 0 ? gist_error(c) : "");
    gist_disconnect(c);
    return r;
}

/* Whose connection is there still keeps its session through a cancel. */
static bool all_detached(const struct gist_stats *st)
{
    for (uint32_t i = 0; i < st->n_sessions; i++)
        if (st->sessions[i].left_s == 0)
            return false;
    return true;
}

static void cancel_all(gist_conn *c)
{
    struct gist_stats st;
    uint64_t ids[64];
    uint32_t n;

    do
        assert_int_equal(gist_stats(c, &st), 0);
    while (!all_detached(&st));
    n = st.n_sessions;
    assert_true(n <= 64);
    for (uint32_t i = 0; i < n; i++)
        ids[i] = st.sessions[i].id;
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(gist_cancel_session(c, ids[i]), 0);
    do
        assert_int_equal(gist_stats(c, &st), 0);
    while (st.n_sessions > 0);
    assert_true(daemon_fixture_all_free(c, DAEMON_FIXTURE_PATIENCE_MS));
}

/* One user keeps all that he may. The other still has places, pages and text for his; and what is
 * the one's is not the other's, though he has the token. */
static void two_users(void **state)
{
    static const char *const args[] = {
        "--socket-mode", "0666", "--max-clients", "8",     "--kv-bytes", "256K",
        "--store",       "none", "--log-level",   "debug", NULL
    };
    struct gist_kept mine, theirs;
    gist_session *s;
    gist_conn *c;
    char text[512];
    int n = 0;

    (void)state;
    if (!is_root())
        skip();
    start(args);
    while (leave_one(0, 0, &mine, text) == 0)
        n++;
    assert_int_equal(n, 6); /* three quarters of the places */
    assert_non_null(strstr(text, "user 0 keeps 6 sessions, the most that one user may"));
    for (n = 0; n < 2; n++) /* all that there are */
        assert_int_equal(leave_one(OTHER, 0, &theirs, text), 0);
    assert_int_equal(leave_one(OTHER, 0, &theirs, text), -EDQUOT);
    assert_non_null(strstr(text, "8 sessions of all users are kept"));
    c = daemon_fixture_connect_as(&d, 0);
    cancel_all(c);
    n = 0;
    while (leave_one(0, 128, &mine, text) == 0)
        n++;
    assert_true(n > 0);
    if (!strstr(text, "--owner-kv-bytes") && !strstr(text, "kept for other users") &&
        !strstr(text, "--owner-clients"))
        fail_msg("%s", text);
    assert_int_equal(leave_one(OTHER, 16, &theirs, text), 0);
    assert_int_equal(gist_attach(c, theirs.token, NULL, &s, NULL), -ENOENT);
    (void)snprintf(text, sizeof(text), "%s", gist_error(c));
    theirs.token[0] ^= 1;
    assert_int_equal(gist_attach(c, theirs.token, NULL, &s, NULL), -ENOENT);
    assert_string_equal(gist_error(c), text);
    theirs.token[0] ^= 1;
    gist_disconnect(c);
    c = daemon_fixture_connect_as(&d, OTHER);
    assert_int_equal(gist_attach(c, theirs.token, NULL, &s, NULL), 0);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* Limits of a client and of a user count them, attached or not. */
static void limits(void **state)
{
    static const char *const args[] = { "--max-sessions", "2", "--owner-sessions", "3", NULL };
    struct gist_kept kept[4];
    gist_session *s, *own;
    gist_conn *c;
    char text[512];

    (void)state;
    start(args);
    for (int i = 0; i < 3; i++)
        assert_int_equal(leave_one(0, 16, &kept[i], text), 0);
    assert_int_equal(leave_one(0, 16, &kept[3], text), -EDQUOT);
    assert_non_null(strstr(text, "--owner-sessions"));
    c = daemon_fixture_connect_as(&d, 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(gist_attach(c, kept[i].token, NULL, &s, NULL), 0);
    assert_int_equal(gist_attach(c, kept[2].token, NULL, &own, NULL), -EDQUOT);
    assert_non_null(strstr(gist_error(c), "--max-sessions"));
    gist_close(s);
    assert_int_equal(gist_attach(c, kept[2].token, NULL, &s, NULL), 0);
    gist_close(s);
    assert_int_equal(gist_ping(c), 0);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* The memory for an answer is text of the user's. */
static void text_bytes(void **state)
{
    static const char *const args[] = { "--owner-text-bytes", "1M", "--detach-bytes", "300K",
                                        NULL };
    struct gist_kept kept;
    struct gist_stats st;
    gist_conn *c;
    char text[512];

    (void)state;
    start(args);
    for (int i = 0; i < 3; i++)
        assert_int_equal(leave_one(0, 0, &kept, text), 0);
    assert_int_equal(leave_one(0, 0, &kept, text), -EDQUOT);
    assert_non_null(strstr(text, "--detach-bytes"));
    c = daemon_fixture_connect_as(&d, 0);
    assert_int_equal(gist_stats(c, &st), 0);
    assert_int_equal(st.owners[0].text_bytes, 3 * (300 << 10));
    cancel_all(c);
    assert_int_equal(gist_stats(c, &st), 0);
    assert_int_equal(st.owners[0].text_bytes, 0);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

static uint64_t resident(void)
{
    unsigned long all = 0, here = 0;
    char path[64];
    FILE *f;

    (void)snprintf(path, sizeof(path), "/proc/%d/statm", (int)d.pid);
    f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%lu %lu", &all, &here), 2);
    (void)fclose(f);
    return here * (uint64_t)sysconf(_SC_PAGESIZE);
}

static int on_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    (void)text;
    (void)len;
    (void)ids;
    *(size_t *)arg += n_ids;
    return 0;
}

/* Kept, left in the middle of an answer, found again or not: again and again, and no more memory
 * is held than after the first few times. */
static void memory_is_flat(void **state)
{
    const struct gist_sampling p = { .size = sizeof(p), .max_tokens = 900, .ignore_eog = 1 };
    static const char *const args[] = { "--detach-bytes", "72K", "--store", "none", NULL };
    uint64_t before = 0;
    gist_conn *c;

    (void)state;
    start(args);
    for (int i = 0; i < 60; i++) {
        struct gist_kept kept = { .size = sizeof(kept) };
        size_t n = 0;
        gist_session *s;

        c = daemon_fixture_connect_as(&d, 0);
        assert_int_equal(gist_open(c, NULL, &s), 0);
        assert_int_equal(gist_append_text(s, "once upon a time", 16, 0, NULL), 0);
        assert_int_equal(gist_keep(s, 0, &kept), 0);
        assert_int_equal(gist_generate_start(s, &p, on_text, NULL, &n, NULL), 0);
        while (n < 5)
            assert_true(gist_dispatch(c) >= 0);
        gist_disconnect(c);
        c = daemon_fixture_connect_as(&d, 0);
        if (i % 2) {
            assert_int_equal(gist_attach(c, kept.token, NULL, &s, NULL), 0);
            gist_close(s);
            assert_true(daemon_fixture_all_free(c, DAEMON_FIXTURE_PATIENCE_MS));
        } else {
            cancel_all(c);
        }
        gist_disconnect(c);
        if (i == 20)
            before = resident();
    }
    /* Forty more: with one that stays each, it would be as many backlogs and clients. */
    if (!SANITIZED) /* which keep what was freed */
        assert_true(resident() < before + 40 * (72u << 10) / 2);
    daemon_fixture_stop(&d);
}

static void turned_off(void **state)
{
    static const char *const args[] = { "--detach-seconds", "0", NULL };
    struct gist_kept kept;
    char text[512];

    (void)state;
    start(args);
    assert_int_equal(leave_one(0, 0, &kept, text), -ENOTSUP);
    assert_non_null(strstr(text, "--detach-seconds 0"));
    daemon_fixture_stop(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_users),  cmocka_unit_test(limits),
        cmocka_unit_test(text_bytes), cmocka_unit_test(memory_is_flat),
        cmocka_unit_test(turned_off),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
