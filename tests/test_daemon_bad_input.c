/* tests/test_daemon_bad_input.c - the real daemon, asked for what can't be. Would catch: a start
 * that fails without a sentence or with a wrong exit code, a second daemon that takes the socket, a
 * file that is removed though it is no socket or another's, a prompt that is cut instead of
 * refused, a refusal that changes the session, silence at SIGTERM.
 */

#include "ipc/handshake.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/gguf_build.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

/* Runs gistd with args until it ends by itself: the exit status, and text must be in what it said.
 */
static void fails(const char *const *args, int status, const char *text)
{
    struct daemon_fixture d;
    int got;

    daemon_fixture_spawn(&d, args);
    got = daemon_fixture_wait(&d);
    if (got != status || !strstr(daemon_fixture_log(&d), text))
        print_error("exit status %d, expected %d with \"%s\"; it said: %s", got, status, text,
                    daemon_fixture_log(&d));
    assert_int_equal(got, status);
    assert_non_null(strstr(daemon_fixture_log(&d), text));
}

static void test_options(void **state)
{
    const char *none[] = { NULL }, *bad[] = { "--kv-bytes", "12X", NULL };
    const char *unknown[] = { "--bogus", NULL }, *config[] = { "--config", "/nonexistent/x", NULL };
    const char *check[] = { "--check-config", "--segment", "100", NULL };
    const char *good[] = { "--check-config", "--threads=3", NULL };

    (void)state;
    fails(none, 2, "--model FILE");
    fails(bad, 2, "option kv-bytes, from the flag --kv-bytes: found \"12X\"");
    fails(unknown, 2, "no flag \"--bogus\"");
    fails(config, 2, "/nonexistent/x: No such file");
    fails(check, 2, "multiple of 16");
    fails(good, 0, "valid");
}

static void write_file(const char *path, const void *data, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0 && write(fd, data, len) == (ssize_t)len);
    (void)close(fd);
}

static void test_bad_models(void **state)
{
    char path[SCRATCH_PATH_MAX], sock[SCRATCH_PATH_MAX];
    const char *args[] = { "--model",    scratch_path(path, "bad.gguf"),
                           "--socket",   scratch_path(sock, "bad.sock"),
                           "--kv-bytes", "1M",
                           NULL };
    struct gguf_build_shape shape = gguf_build_tiny();
    struct gguf_build *b;
    uint8_t *bytes;
    size_t len, off;

    (void)state;
    (void)unlink(path);
    fails(args, 1, "No such file");
    b = gguf_build_model(&shape);
    bytes = gguf_build_bytes(b, &len, &off);
    write_file(path, bytes, len / 2);
    fails(args, 1, path);
    write_file(path, bytes, off / 2);
    fails(args, 1, path);
    write_file(path, "hello", 5);
    fails(args, 1, path);
    gguf_build_str(b, "general.architecture", "mamba");
    gguf_build_write(b, path);
    fails(args, 1, "mamba");
    gguf_build_free(b);
    free(bytes);
    assert_int_equal(access(sock, F_OK), -1);
}

static void test_socket_paths(void **state)
{
    char sock[SCRATCH_PATH_MAX];
    const char *args[] = { "--model",    daemon_fixture_model(DAEMON_FIXTURE_TINY),
                           "--socket",   scratch_path(sock, "taken.sock"),
                           "--kv-bytes", "1M",
                           NULL };
    const char *nodir[] = { "--model", args[1], "--socket", "/nonexistent/dir/x.sock", NULL };
    char said[64], path[200];
    struct daemon_fixture d;
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    struct stat st;
    int fd;

    (void)state;
    fails(nodir, 1, "/nonexistent/dir/x.sock");
    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    nodir[3] = path;
    fails(nodir, 2, "at most 107 bytes");

    /* Not a socket: left alone. */
    write_file(sock, "precious", 8);
    fails(args, 1, "not a socket");
    assert_int_equal(stat(sock, &st), 0);
    assert_int_equal(st.st_size, 8);
    assert_int_equal(unlink(sock), 0);

    /* A socket that nobody answers at: replaced. */
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    memcpy(a.sun_path, sock, strlen(sock));
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    (void)close(fd);
    daemon_fixture_spawn(&d, args);
    assert_true(daemon_fixture_notified(&d, "READY=1", DAEMON_FIXTURE_PATIENCE_MS));
    assert_int_equal(stat(sock, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);

    /* A second daemon: refused, with the first one's pid, which goes on. */
    (void)snprintf(said, sizeof(said), "another daemon (pid %d) is serving", (int)d.pid);
    fails(args, 3, said);
    (void)snprintf(d.socket, sizeof(d.socket), "%s", sock);
    gist_disconnect(daemon_fixture_connect(&d));

    /* Killed: its socket and lock stay, the next daemon serves. */
    (void)kill(d.pid, SIGKILL);
    assert_int_equal(daemon_fixture_wait(&d), 128 + SIGKILL);
    assert_int_equal(access(sock, F_OK), 0);
    daemon_fixture_spawn(&d, args);
    assert_true(daemon_fixture_notified(&d, "READY=1", DAEMON_FIXTURE_PATIENCE_MS));
    daemon_fixture_stop(&d);
    assert_int_equal(access(sock, F_OK), -1);
}

/* Where the numbers of a second one were to be: a socket of another kind, and it stays. */
static void test_metrics_socket_taken(void **state)
{
    char own[SCRATCH_PATH_MAX];
    struct daemon_fixture d;
    const char *args[] = { "--model",
                           daemon_fixture_model(DAEMON_FIXTURE_TINY),
                           "--socket",
                           scratch_path(own, "own.sock"),
                           "--metrics-socket",
                           d.socket,
                           NULL };

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, NULL);
    fails(args, 1, "is a socket that can't be replaced");
    gist_disconnect(daemon_fixture_connect(&d));
    daemon_fixture_stop(&d);
}

static void test_no_permission(void **state)
{
    const char *args[] = { "--socket-mode", "0000", NULL };
    struct daemon_fixture d;
    gist_conn *c;

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    if (geteuid() == 0) { /* root passes every mode: be somebody else for the call */
        assert_int_equal(seteuid(65534), 0);
        assert_true(gist_connect(d.socket, "test", &c) < 0);
        assert_int_equal(seteuid(0), 0);
    } else {
        assert_int_equal(gist_connect(d.socket, "test", &c), -EACCES);
    }
    assert_non_null(strstr(gist_error(NULL), "ermission"));
    daemon_fixture_stop(&d);
}

/* --- prompts that don't fit ------------------------------------------------------------------- */

static uint32_t session_tokens(gist_conn *c)
{
    struct gist_stats st;

    assert_int_equal(gist_stats(c, &st), 0);
    assert_int_equal(st.n_sessions, 1);
    return st.sessions[0].n_tokens;
}

static void test_too_long(void **state)
{
    struct daemon_fixture d;
    const char *small[] = { "--kv-bytes", "128K", NULL };
    struct gist_stats st;
    gist_session *s;
    gist_conn *c;
    char *text = malloc((1 << 20) + 1);
    struct gist_message msg = { "user", text };
    uint32_t n, pool_tokens, *many = calloc(1 << 20, sizeof(*many));

    (void)state;
    memset(text, 'q', 1 << 20);
    text[1 << 20] = '\0';
    for (size_t i = 0; i < 1 << 20; i += 3)
        text[i] = ' ';
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, NULL);
    c = daemon_fixture_connect(&d);
    assert_int_equal(gist_open(c, NULL, &s), 0);
    assert_int_equal(gist_append_text(s, "some text", 9, 0, NULL), 0);
    n = session_tokens(c);
    assert_int_equal(gist_append_text(s, text, 2000, 0, NULL), -E2BIG);
    assert_int_equal(gist_error_code(c), GIST_E_CONTEXT_LENGTH_EXCEEDED);
    assert_non_null(strstr(gist_error(c), "context_length_exceeded"));
    assert_non_null(strstr(gist_error(c), "1024"));
    assert_int_equal(gist_append_text(s, text, 1 << 20, 0, NULL), -E2BIG);
    assert_non_null(strstr(gist_error(c), "context_length_exceeded"));
    /* Ids and messages come in parts, too; those that came are forgotten. */
    assert_int_equal(gist_append_chat(s, &msg, 1, 0, NULL), -E2BIG);
    assert_non_null(strstr(gist_error(c), "this text has"));
    assert_int_equal(gist_append_tokens(s, many, 1 << 20, NULL), -E2BIG);
    assert_non_null(strstr(gist_error(c), "these ids have"));
    assert_int_equal(gist_append_tokens(s, many, 20000, NULL), -E2BIG);
    assert_non_null(strstr(gist_error(c), "20000 more were asked for"));
    assert_int_equal(session_tokens(c), n);
    /* What fits still does. */
    assert_int_equal(gist_append_text(s, text, 300, 0, NULL), 0);
    assert_int_equal(session_tokens(c), n + 300);
    gist_disconnect(c);
    daemon_fixture_stop(&d);

    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, small);
    c = daemon_fixture_connect(&d);
    assert_int_equal(gist_stats(c, &st), 0);
    pool_tokens = st.pages * st.page_tokens;
    assert_true(pool_tokens >= 64 && pool_tokens < 1024 - 64);
    assert_int_equal(gist_open(c, NULL, &s), 0);
    assert_int_equal(gist_append_text(s, "some text", 9, 0, NULL), 0);
    n = session_tokens(c);
    assert_int_equal(gist_append_text(s, text, pool_tokens + 100, 0, NULL), -ENOSPC);
    assert_int_equal(gist_error_code(c), GIST_E_POOL_FULL);
    assert_non_null(strstr(gist_error(c), "pages"));
    assert_int_equal(session_tokens(c), n);
    assert_int_equal(gist_stats(c, &st), 0);
    assert_true(st.pages_free + st.pages_cached >= st.pages - 1);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
    free(many);
    free(text);
}

static int ignore_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    (void)arg;
    (void)text;
    (void)len;
    (void)ids;
    (void)n_ids;
    return 0;
}

/* An answer that fills the context, or the pool, ends and says so. */
static void test_answer_too_long(void **state)
{
    const char *small[] = { "--kv-bytes", "128K", NULL };
    struct gist_sampling p = { .size = sizeof(p), .ignore_eog = 1 };
    struct gist_result result;
    struct daemon_fixture d;
    gist_session *s;
    gist_conn *c;

    (void)state;
    for (int i = 0; i < 2; i++) {
        daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, i ? small : NULL);
        c = daemon_fixture_connect(&d);
        assert_int_equal(gist_open(c, NULL, &s), 0);
        assert_int_equal(gist_append_text(s, "abc", 3, 0, NULL), 0);
        assert_int_equal(gist_generate(s, &p, ignore_text, NULL, &result), 0);
        assert_int_equal(result.reason, i ? GIST_POOL_FULL : GIST_CONTEXT_FULL);
        if (!i)
            assert_int_equal(session_tokens(c), 1024);
        gist_disconnect(c);
        daemon_fixture_stop(&d);
    }
}

static void test_limits(void **state)
{
    const char *args[] = { "--max-clients", "2", "--max-sessions", "3", "--log-level=debug", NULL };
    struct gist_policy policy = { .size = sizeof(policy), .segment = 100 };
    struct gist_sampling p = { .size = sizeof(p), .temperature = -1 };
    uint32_t ids[] = { 1, 2, 4000000000u };
    struct daemon_fixture d;
    gist_conn *c[3];
    gist_session *s[4];

    (void)state;
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
    c[0] = daemon_fixture_connect(&d);
    c[1] = daemon_fixture_connect(&d);
    assert_true(gist_connect(d.socket, "third", &c[2]) < 0);
    assert_non_null(strstr(gist_error(NULL), "2 clients"));
    for (int i = 0; i < 3; i++)
        assert_int_equal(gist_open(c[0], NULL, &s[i]), 0);
    assert_int_equal(gist_open(c[0], NULL, &s[3]), -EDQUOT);
    assert_int_equal(gist_open(c[1], &policy, &s[3]), -EINVAL);
    assert_non_null(strstr(gist_error(c[1]), "100"));
    assert_int_equal(gist_append_tokens(s[0], ids, 3, NULL), -EINVAL);
    assert_non_null(strstr(gist_error(c[0]), "4000000000"));
    assert_int_equal(gist_append_text(s[0], "x", 1, 0, NULL), 0);
    assert_int_equal(gist_generate(s[0], &p, ignore_text, NULL, NULL), -EINVAL);
    assert_non_null(strstr(gist_error(c[0]), "temperature"));
    /* A place that was left is free again. */
    gist_disconnect(c[1]);
    for (double end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS; daemon_fixture_ms() < end;)
        if (gist_connect(d.socket, "third", &c[2]) == 0)
            break;
    assert_int_equal(gist_ping(c[2]), 0);
    gist_disconnect(c[0]);
    gist_disconnect(c[2]);
    daemon_fixture_stop(&d);
}

/* --- SIGTERM ---------------------------------------------------------------------------------- */

static void on_done(void *arg, int err, const struct gist_result *result)
{
    (void)result;
    *(int *)arg = err;
}

static void test_sigterm(void **state)
{
    const char *args[] = { "--cpu", "scalar", "--kv-bytes", "256M", NULL };
    struct gist_sampling p = { .size = sizeof(p), .ignore_eog = 1 };
    struct daemon_fixture d;
    int reading = 1, writing = 1;
    gist_session *s, *t;
    struct gist_stats st;
    char text[3000];
    gist_conn *c;
    double end;

    (void)state;
    memset(text, 'x', sizeof(text));
    daemon_fixture_start(&d, DAEMON_FIXTURE_SLOW, args);
    c = daemon_fixture_connect(&d);
    assert_int_equal(gist_open(c, NULL, &s), 0);
    assert_int_equal(gist_open(c, NULL, &t), 0);
    assert_int_equal(gist_append_text(t, "x", 1, 0, NULL), 0);
    assert_int_equal(gist_generate_start(t, &p, ignore_text, on_done, &writing, NULL), 0);
    assert_int_equal(gist_append_text_start(s, text, sizeof(text), 0, on_done, &reading, NULL), 0);
    end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;
    do {
        assert_int_equal(gist_stats(c, &st), 0);
    } while (st.requests_running < 2 && daemon_fixture_ms() < end);
    (void)kill(d.pid, SIGTERM);
    while (gist_dispatch(c) >= 0 && (reading == 1 || writing == 1))
        ;
    assert_int_equal(reading, -ESHUTDOWN);
    assert_int_equal(writing, -ESHUTDOWN);
    assert_int_equal(daemon_fixture_wait(&d), 0);
    assert_int_equal(access(d.socket, F_OK), -1);
    gist_disconnect(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options),         cmocka_unit_test(test_bad_models),
        cmocka_unit_test(test_socket_paths),    cmocka_unit_test(test_metrics_socket_taken),
        cmocka_unit_test(test_no_permission),   cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_answer_too_long), cmocka_unit_test(test_limits),
        cmocka_unit_test(test_sigterm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
