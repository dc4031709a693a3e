/* tests/test_daemon_shares.c - two users of one daemon, one of whom takes all that it can get.
 * Would catch: places, pages, sessions or memory for texts that a second user does not have any
 * more because a first one came earlier or asks more often, limits that are passed by opening more
 * connections, refusals that don't say what stands against them; numbers of Stats that are not what
 * was counted.
 */
#include "tests/support/daemon_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define OTHER 4242u /* a uid */

static struct daemon_fixture d;
static uint32_t ids[1024];

static void start(const char *const *args)
{
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    daemon_fixture_let_in(&d);
}

/* The error is ret_text's when it is NULL. */
static gist_conn *connect_as(uid_t uid, char ret_text[256])
{
    gist_conn *c = daemon_fixture_try_as(&d, uid);

    if (!c)
        (void)snprintf(ret_text, 256, "%s", gist_error(NULL));
    return c;
}

static gist_session *open_as(gist_conn *c, enum gist_priority priority)
{
    struct gist_policy p = { .size = sizeof(p), .priority = priority };
    gist_session *s;

    if (gist_open(c, &p, &s) < 0)
        fail_msg("%s", gist_error(c));
    return s;
}

static gist_session *open_session(gist_conn *c)
{
    return open_as(c, GIST_INTERACTIVE);
}

/* For which no idle interactive session of its user gives way. */
static gist_session *open_background(gist_conn *c)
{
    return open_as(c, GIST_BACKGROUND);
}

/* 0, or the error. Each text is another one. */
static int append(gist_session *s, uint32_t n)
{
    static unsigned seed;

    for (uint32_t i = 0; i < n; i++)
        ids[i] = 40 + (uint32_t)rand_r(&seed) % 80;
    return gist_append_tokens(s, ids, n, NULL);
}

static int needs_root(void **state)
{
    (void)state;
    if (getuid() == 0)
        return 0;
    printf("two users: only root can be somebody else\n");
    exit(77);
}

static void places(void **state)
{
    static const char *const args[] = { "--socket-mode", "0666", "--max-clients", "8", NULL };
    gist_conn *c[8], *other;
    char text[256];

    (void)state;
    start(args);
    for (int i = 0; i < 6; i++) {
        c[i] = connect_as(0, text);
        assert_non_null(c[i]);
    }
    assert_null(connect_as(0, text));
    assert_non_null(strstr(text, "user 0 has 6 clients connected, the most that one user may have "
                                 "(--owner-clients)"));
    other = connect_as(OTHER, text);
    assert_non_null(other);
    gist_disconnect(other);
    for (int i = 0; i < 6; i++)
        gist_disconnect(c[i]);
    daemon_fixture_stop(&d);
}

/* Nobody but root and the daemon's own user could ever take what would be kept. */
static void nothing_is_kept_for_nobody(void **state)
{
    static const char *const args[] = { "--max-clients", "4", NULL };
    gist_conn *c[4];
    char text[256];

    (void)state;
    start(args);
    for (int i = 0; i < 4; i++) {
        c[i] = connect_as(0, text);
        assert_non_null(c[i]);
    }
    for (int i = 0; i < 4; i++)
        gist_disconnect(c[i]);
    daemon_fixture_stop(&d);
}

/* Idle sessions have all that there is, but for what is kept. */
static void pages(void **state)
{
    static const char *const args[] = { "--socket-mode", "0666", "--kv-bytes", "1M",
                                        "--store",       "none", NULL };
    struct gist_stats st;
    gist_session *s, *theirs;
    gist_conn *c, *other;
    char text[256];

    (void)state;
    start(args);
    c = connect_as(0, text);
    do {
        assert_int_equal(append(open_session(c), 300), 0);
        assert_int_equal(gist_stats(c, &st), 0);
    } while (st.pages_free + st.pages_cached >= st.pages / 16 + 19);
    s = open_background(c);
    assert_true(append(s, 300) < 0);
    assert_non_null(
        strstr(gist_error(c), "that one user may have in all clients (--owner-kv-bytes)"));
    while (append(s, 16) == 0)
        ;
    assert_int_equal(gist_stats(c, &st), 0);
    assert_int_equal(st.pages_free + st.pages_cached, st.pages / 16);
    assert_int_equal(st.owners[0].held_pages, st.pages - st.pages / 16);
    other = connect_as(OTHER, text);
    theirs = open_session(other);
    assert_int_equal(append(theirs, st.pages / 16 * 16 - 15), 0);
    assert_int_equal(gist_stats(other, &st), 0);
    assert_int_equal(st.n_owners, 2);
    assert_int_equal(st.owners[1].uid, OTHER);
    assert_int_equal(st.owners[1].clients, 1);
    assert_int_equal(st.owners[1].sessions, 1);
    assert_int_equal(st.owners[1].held_pages, st.pages / 16);
    assert_true(st.owners[1].rows == st.pages / 16 * 16 - 15);
    gist_disconnect(other);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* A limit of clients is one of the user who opens the connections. */
static void more_connections(void **state)
{
    static const char *const args[] = { "--client-kv-bytes",
                                        "128K",
                                        "--owner-sessions",
                                        "3",
                                        "--store",
                                        "none",
                                        "--owner-text-bytes",
                                        "1M",
                                        NULL };
    gist_conn *c[2];
    gist_session *s;
    char text[256], *long_text = calloc(1, 700000);
    uint32_t *ret_ids;
    size_t n;

    (void)state;
    start(args);
    c[0] = connect_as(0, text);
    c[1] = connect_as(0, text);
    s = open_session(c[0]);
    while (append(s, 16) == 0)
        ;
    if (!strstr(gist_error(c[0]), "this client has"))
        fail_msg("%s", gist_error(c[0]));
    s = open_background(c[1]);
    assert_true(append(s, 100) < 0);
    assert_non_null(strstr(gist_error(c[1]), "that one user may have in all clients "
                                             "(--owner-kv-bytes)"));
    (void)open_session(c[0]);
    assert_true(gist_open(c[1], NULL, &s) < 0);
    assert_non_null(strstr(gist_error(c[1]), "user 0 has 3 sessions open in all clients"));
    assert_non_null(strstr(gist_error(c[1]), "--owner-sessions"));
    memset(long_text, 'x', 700000);
    assert_true(gist_tokenize(c[0], long_text, 700000, 0, &ret_ids, &n) < 0);
    assert_non_null(strstr(gist_error(c[0]), "user 0's texts, ids, scores and logits take"));
    assert_non_null(strstr(gist_error(c[0]), "(--owner-text-bytes)"));
    free(long_text);
    gist_disconnect(c[0]);
    gist_disconnect(c[1]);
    daemon_fixture_stop(&d);
}

/* What comes free goes to who was refused first, however fast the other asks. An even part is half
 * of the pool: for more than that no idle session gives way. */
static void in_line(void **state)
{
    static const char *const args[] = { "--socket-mode", "0666", "--kv-bytes", "256K",
                                        "--store",       "none", NULL };
    gist_conn *c, *other;
    struct gist_stats st;
    gist_session *s, *theirs;
    uint32_t half;
    char text[256];

    (void)state;
    start(args);
    c = connect_as(0, text);
    assert_int_equal(gist_stats(c, &st), 0);
    half = st.pages / 2 * 16;
    assert_true(half >= 64 && half + 16 <= sizeof(ids) / sizeof(*ids));
    s = open_session(c);
    assert_int_equal(append(s, half), 0);
    other = connect_as(OTHER, text);
    theirs = open_session(other);
    assert_int_equal(append(theirs, 64), 0);
    gist_close(theirs);
    assert_int_equal(append(open_session(c), half - 64), 0);
    theirs = open_session(other);
    assert_true(append(theirs, half + 16) < 0);
    gist_close(s);
    s = open_background(c);
    assert_true(append(s, half) < 0);
    assert_int_equal(gist_error_code(c), GIST_E_POOL_FULL);
    assert_non_null(strstr(gist_error(c), "are kept for other users"));
    assert_int_equal(append(theirs, half), 0);
    gist_disconnect(other);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_kept_for_nobody), cmocka_unit_test(more_connections),
        cmocka_unit_test_setup(places, needs_root),   cmocka_unit_test_setup(pages, needs_root),
        cmocka_unit_test_setup(in_line, needs_root),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
