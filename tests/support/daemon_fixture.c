#include "tests/support/daemon_fixture.h"

#include "tests/support/gguf_build.h"
#include "tests/support/scratch.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARGS_MAX 48

__attribute__((noreturn, format(printf, 1, 2))) static void give_up(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vfprintf(stderr, fmt, ap);
    va_end(ap);
    abort();
}

double daemon_fixture_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

const char *daemon_fixture_model(enum daemon_fixture_model m)
{
    static char paths[2][SCRATCH_PATH_MAX];
    struct gguf_build_shape shape = gguf_build_tiny();
    struct gguf_build *b;

    if (paths[m][0])
        return paths[m];
    shape.n_ctx = 1024;
    shape.std = 0.5f; /* else every next token is as likely, and ties decide */
    if (m == DAEMON_FIXTURE_SLOW) {
        shape.n_ctx = 4096;
        shape.n_layer = 8;
        shape.n_embd = 256;
        shape.n_ff = 512;
        shape.n_head = 4;
        shape.head_dim = 64;
        shape.sparse = true;
    }
    b = gguf_build_model(&shape);
    gguf_build_write(b,
                     scratch_path(paths[m], m == DAEMON_FIXTURE_TINY ? "tiny.gguf" : "slow.gguf"));
    gguf_build_free(b);
    return paths[m];
}

/* A datagram socket of our own, as a service manager has one. */
static void open_notify(struct daemon_fixture *d, char path[SCRATCH_PATH_MAX])
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int r;

    (void)unlink(scratch_path(path, "notify"));
    d->notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert(d->notify >= 0 && strlen(path) < sizeof(a.sun_path));
    memcpy(a.sun_path, path, strlen(path));
    r = bind(d->notify, (struct sockaddr *)&a, sizeof(a));
    assert(r == 0);
}

bool daemon_fixture_slow(void)
{
    const char *backend = getenv("GISTD_TEST_BACKEND");

    return backend && strcmp(backend, "cuda-shim") == 0;
}

bool daemon_fixture_exact(void)
{
    const char *backend = getenv("GISTD_TEST_BACKEND");

    return !backend || strncmp(backend, "cuda", 4) != 0;
}

/* $GISTD_TEST_BACKEND: "fenced" is a program of its own, others are devices of the daemon's, which
 * args may still choose otherwise. */
static void choose_backend(char program[256])
{
    const char *build = getenv("BUILD"), *backend = getenv("GISTD_TEST_BACKEND");
    bool fenced = backend && strcmp(backend, "fenced") == 0;

    (void)snprintf(program, 256, "%s/%s", build ? build : "build/release",
                   fenced ? "tests/gistd_fenced" : "gistd");
    if (backend && *backend && !fenced)
        (void)setenv("GISTD_DEVICE", strcmp(backend, "cuda") == 0 ? "cuda:0" : backend, 1);
}

static void exec_daemon(const struct daemon_fixture *d, const char *const *args, const char *notify,
                        int log)
{
    const char *argv[ARGS_MAX + 2];
    char path[256];
    size_t n = 1;

    choose_backend(path);
    argv[0] = path;
    for (; args && *args; args++)
        argv[n++] = *args;
    argv[n] = NULL;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nothing behind */
    /* The user's own settings must not reach a test. */
    (void)setenv("HOME", "/nonexistent", 1);
    (void)unsetenv("XDG_CONFIG_HOME");
    (void)unsetenv("GISTD_SOCKET");
    (void)unsetenv("GISTD_MODEL");
    (void)setenv("NOTIFY_SOCKET", notify, 1);
    (void)setenv("GISTD_STORE", d->store, 1);
    (void)setenv("GISTD_WEIGHT_CACHE", "none", 1);
    (void)dup2(log, STDERR_FILENO);
    (void)dup2(log, STDOUT_FILENO);
    (void)execv(path, (char *const *)argv);
    _exit(127);
}

static void new_store(struct daemon_fixture *d)
{
    static unsigned count;
    char name[32];

    (void)snprintf(name, sizeof(name), "store%u", count++);
    (void)scratch_path(d->store, name);
}

static void spawn(struct daemon_fixture *d, const char *const *args)
{
    static unsigned count;
    char notify[SCRATCH_PATH_MAX], name[32];
    int log;

    (void)snprintf(name, sizeof(name), "log%u", count++);
    (void)scratch_path(d->log, name);
    open_notify(d, notify);
    log = open(d->log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert(log >= 0);
    d->pid = fork();
    assert(d->pid >= 0);
    if (d->pid == 0)
        exec_daemon(d, args, notify, log);
    (void)close(log);
}

void daemon_fixture_spawn(struct daemon_fixture *d, const char *const *args)
{
    new_store(d);
    spawn(d, args);
}

const char *daemon_fixture_log(struct daemon_fixture *d)
{
    static char text[16384];
    FILE *f = fopen(d->log, "re");
    size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;

    text[n] = '\0';
    if (f)
        (void)fclose(f);
    return text;
}

bool daemon_fixture_notified(struct daemon_fixture *d, const char *text, int timeout_ms)
{
    double end = daemon_fixture_ms() + timeout_ms;
    char buf[1024];

    while (daemon_fixture_ms() < end) {
        struct pollfd p = { .fd = d->notify, .events = POLLIN };
        ssize_t n;
        siginfo_t info;

        if (poll(&p, 1, 50) <= 0) {
            info.si_pid = 0;
            if (waitid(P_PID, (id_t)d->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid)
                return false; /* it has ended */
            continue;
        }
        n = recv(d->notify, buf, sizeof(buf) - 1, 0);
        buf[n > 0 ? n : 0] = '\0';
        if (strstr(buf, text))
            return true;
    }
    return false;
}

static void start(struct daemon_fixture *d, enum daemon_fixture_model m, const char *const *args)
{
    const char *all[ARGS_MAX] = { "--model",    daemon_fixture_model(m),
                                  "--socket",   d->socket,
                                  "--kv-bytes", "16M",
                                  "--threads",  "2",
                                  "--pin=no" };
    static unsigned count;
    char name[32];
    size_t n = 9;

    (void)snprintf(name, sizeof(name), "gistd%u.sock", count++);
    (void)scratch_path(d->socket, name);
    for (; args && *args; args++)
        all[n++] = *args;
    assert(n < ARGS_MAX);
    spawn(d, all);
    if (!daemon_fixture_notified(d, "READY=1", DAEMON_FIXTURE_PATIENCE_MS))
        give_up("the daemon does not serve:\n%s", daemon_fixture_log(d));
}

void daemon_fixture_start(struct daemon_fixture *d, enum daemon_fixture_model m,
                          const char *const *args)
{
    new_store(d);
    start(d, m, args);
}

void daemon_fixture_restart(struct daemon_fixture *d, enum daemon_fixture_model m,
                            const char *const *args)
{
    start(d, m, args);
}

/* Every test is one of the sandbox, too: what the daemon needs is on its list. */
static void check_sandbox(struct daemon_fixture *d)
{
    if (strstr(daemon_fixture_log(d), "the sandbox denied"))
        give_up("the daemon made a call that its sandbox denies:\n%s", daemon_fixture_log(d));
}

int daemon_fixture_wait(struct daemon_fixture *d)
{
    double end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;
    int status;
    pid_t r;

    while ((r = waitpid(d->pid, &status, WNOHANG)) == 0 && daemon_fixture_ms() < end)
        (void)usleep(1000);
    if (r == 0) {
        (void)kill(d->pid, SIGKILL);
        give_up("the daemon does not end:\n%s", daemon_fixture_log(d));
    }
    (void)close(d->notify);
    d->notify = -1;
    check_sandbox(d);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void daemon_fixture_stop(struct daemon_fixture *d)
{
    int status;

    (void)kill(d->pid, SIGTERM);
    status = daemon_fixture_wait(d);
    if (status != 0)
        give_up("the daemon ended with %d:\n%s", status, daemon_fixture_log(d));
}

gist_conn *daemon_fixture_connect(const struct daemon_fixture *d)
{
    gist_conn *c;

    if (gist_connect(d->socket, "test", &c) < 0)
        give_up("connect: %s\n", gist_error(NULL));
    return c;
}

void daemon_fixture_let_in(const struct daemon_fixture *d)
{
    char folder[sizeof(d->socket)];

    (void)snprintf(folder, sizeof(folder), "%s", d->socket);
    *strrchr(folder, '/') = '\0';
    if (chmod(folder, 0711) < 0)
        give_up("chmod: %s\n", strerror(errno));
}

gist_conn *daemon_fixture_try_as(const struct daemon_fixture *d, uid_t uid)
{
    gist_conn *c = NULL;

    if (uid && seteuid(uid) < 0)
        give_up("seteuid: %s\n", strerror(errno));
    (void)gist_connect(d->socket, "test", &c);
    if (uid && seteuid(0) < 0)
        give_up("seteuid: %s\n", strerror(errno));
    return c;
}

gist_conn *daemon_fixture_connect_as(const struct daemon_fixture *d, uid_t uid)
{
    gist_conn *c = daemon_fixture_try_as(d, uid);

    if (!c)
        give_up("connect: %s\n", gist_error(NULL));
    return c;
}

bool daemon_fixture_all_free(gist_conn *conn, int timeout_ms)
{
    double end = daemon_fixture_ms() + timeout_ms;
    struct gist_stats st;

    do {
        int r = gist_stats(conn, &st);

        assert(r == 0);
        if (st.pages_free + st.pages_cached == st.pages)
            return true;
    } while (daemon_fixture_ms() < end);
    return false;
}

uint64_t daemon_fixture_steps(gist_conn *conn)
{
    struct gist_stats st;
    int r = gist_stats(conn, &st);

    assert(r == 0);
    return st.steps_total;
}

void daemon_fixture_stepped(gist_conn *conn, uint64_t n)
{
    double end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;

    while (daemon_fixture_steps(conn) <= n)
        assert(daemon_fixture_ms() < end);
}

void daemon_fixture_stored(gist_conn *conn)
{
    double end = daemon_fixture_ms() + DAEMON_FIXTURE_PATIENCE_MS;
    struct gist_stats st;

    do {
        int r = gist_stats(conn, &st);

        assert(r == 0 && st.store);
        if (st.store->pending == 0)
            return;
        (void)usleep(2000);
    } while (daemon_fixture_ms() < end);
    give_up("%u records are still not on the disk\n", st.store->pending);
}
