/* ctl/ctl_start.c - gistctl start, stop: a daemon of the user's own, in the background.
 *
 * start waits for what the daemon tells a service manager ($NOTIFY_SOCKET): that it loads its
 * model, and that it serves; or for its end. Nothing is asked again and again. Behind that the
 * daemon is alone: it has a session of its own and writes to a log file.
 *
 * stop asks the kernel who listens at the socket, so there is no file with a process number, which
 * could be another process's by now.
 */
#include "base/files.h"
#include "base/options.h"
#include "base/shown.h"
#include "ctl/ctl.h"
#include "ctl/ctl_conf.h"
#include "ctl/ctl_json.h"
#include "ctl/ctl_models.h"
#include "ctl/ctl_opt.h"
#include "ctl/ctl_tool.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEFAULT_MODEL "smollm2-135m-instruct"
#define LOG_MAX       (1 << 20) /* bytes; a longer one takes the place of the one before */
#define SAID_MAX      4096      /* bytes of the log that a failed start shows */
#define STOP_MS       60000     /* it writes what was read to its store first */
#define ARGS_MAX      64

/* --- who serves ------------------------------------------------------------------------------- */

/* Where a daemon of this user listens: as gist_connect looks for it, but for the machine's own. */
static int own_socket(struct sockaddr_un *ret)
{
    const char *env = getenv("GISTD_SOCKET"), *xdg = getenv("XDG_RUNTIME_DIR");
    int n;

    *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (env && *env)
        n = snprintf(ret->sun_path, sizeof(ret->sun_path), "%s", env);
    else if (xdg && *xdg)
        n = snprintf(ret->sun_path, sizeof(ret->sun_path), "%s/gistd/gistd.sock", xdg);
    else if (geteuid() == 0)
        n = snprintf(ret->sun_path, sizeof(ret->sun_path), "/run/gistd/gistd.sock");
    else
        return ctl_fail(CTL_FAILED,
                        "there is no folder for the daemon's socket: XDG_RUNTIME_DIR is "
                        "not set; name one by --socket PATH or GISTD_SOCKET.");
    return n < (int)sizeof(ret->sun_path)
               ? CTL_OK
               : ctl_fail(CTL_USAGE, "the path of the socket is longer than 107 bytes.");
}

/* The process that listens there; 0: nobody does. By connecting: the kernel tells whose socket it
 * is without a word being said. */
static int find_server(const struct sockaddr_un *at, struct ucred *ret)
{
    socklen_t len = sizeof(*ret);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    int r = fd < 0 ? -errno : 0;

    *ret = (struct ucred){ 0 };
    if (r == 0 && connect(fd, (const struct sockaddr *)at, sizeof(*at)) < 0)
        r = errno == ENOENT || errno == ECONNREFUSED || errno == ENOTDIR ? 0 : -errno;
    else if (r == 0 && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ret, &len) < 0)
        r = -errno;
    if (fd >= 0)
        (void)close(fd);
    return r < 0 ? ctl_fail(CTL_FAILED, "%s: %s", at->sun_path, strerror(-r)) : CTL_OK;
}

/* Whether a line of that file of the process's in /proc holds a word. */
static bool proc_says(pid_t pid, const char *file, const char *word)
{
    char path[64], line[512];
    bool found = false;
    FILE *f;

    (void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
    f = fopen(path, "re");
    while (f && !found && fgets(line, sizeof(line), f))
        found = strstr(line, word) != NULL;
    if (f)
        (void)fclose(f);
    return found;
}

/* --- starting --------------------------------------------------------------------------------- */

struct start {
    const char *model; /* as it was named; NULL: it was not */
    char *path;        /* for --model; NULL: gistd.conf has it */
    bool wait, json;
    char *const *args; /* (n_args) for gistd */
    size_t n_args;
    struct sockaddr_un socket;
    char log[PATH_MAX];
    off_t log_at; /* where this start's part of it begins */
    int log_fd, notify_fd, pid_fd;
    struct sockaddr_un notify;
    pid_t pid;
    bool loading, serving;
    bool shown; /* a line that is written over */
};

/* The model that is named, that gistd.conf has, or the first one of the list. s->path stays NULL
 * where gistd.conf has it: gistd reads that itself. */
static int choose_model(struct start *s)
{
    char used[OPTIONS_TEXT_MAX + 1];
    int r;

    if (s->model)
        return ctl_model_path(s->model, true, &s->path);
    r = ctl_conf_model(used);
    if (r != CTL_OK || used[0])
        return r;
    fprintf(stderr, "No model was chosen (`gistctl use`): taking %s.\n", DEFAULT_MODEL);
    return ctl_model_fetch(DEFAULT_MODEL, &s->path);
}

/* One file is kept beside it, so two megabytes at most stay on the disk. */
static int open_log(struct start *s)
{
    char folder[PATH_MAX], before[PATH_MAX + 8];
    struct stat st;
    int r = ctl_tool_folder("XDG_STATE_HOME", ".local/state", folder);

    if (r == 0)
        r = files_make_path(folder, NULL);
    if (r == 0 && snprintf(s->log, sizeof(s->log), "%s/gistd.log", folder) >= PATH_MAX)
        r = -ENAMETOOLONG;
    if (r < 0)
        return ctl_fail(CTL_FAILED, "there is no folder for the daemon's log: %s", strerror(-r));
    (void)snprintf(before, sizeof(before), "%s.1", s->log);
    if (stat(s->log, &st) == 0 && st.st_size > LOG_MAX)
        (void)rename(s->log, before);
    s->log_fd = open(s->log, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (s->log_fd < 0 || (s->log_at = lseek(s->log_fd, 0, SEEK_END)) < 0)
        return ctl_fail(CTL_FAILED, "%s: %s", s->log, strerror(errno));
    return CTL_OK;
}

/* A socket that the kernel names. Without a name in the file system there is nothing to take away
 * afterwards. Messages carry who sent them (SO_PASSCRED). */
static int open_notify(struct start *s)
{
    struct sockaddr_un any = { .sun_family = AF_UNIX };
    socklen_t len = sizeof(s->notify);

    s->notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (s->notify_fd < 0 ||
        setsockopt(s->notify_fd, SOL_SOCKET, SO_PASSCRED, &(int){ 1 }, sizeof(int)) < 0 ||
        bind(s->notify_fd, (struct sockaddr *)&any, sizeof(sa_family_t)) < 0 ||
        getsockname(s->notify_fd, (struct sockaddr *)&s->notify, &len) < 0)
        return ctl_fail(CTL_FAILED, "cannot listen to the daemon: %s", strerror(errno));
    s->notify.sun_path[0] = '@'; /* as the variable has it, instead of the zero byte */
    if (len < sizeof(s->notify))
        ((char *)&s->notify)[len] = '\0';
    return CTL_OK;
}

/* In the child: nothing of this terminal is left to it, nor a file that the caller had open, such
 * as a script's lock. The folder stays: paths behind -- and in variables are of there. Only what
 * may be called between fork and exec in a program of one thread. */
static void become_gistd(const struct start *s, char *const *argv)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    (void)setsid();
    (void)dup2(null, STDIN_FILENO);
    (void)dup2(s->log_fd, STDOUT_FILENO);
    (void)dup2(s->log_fd, STDERR_FILENO);
    (void)setenv("NOTIFY_SOCKET", s->notify.sun_path, 1);
    /* Of whoever started us: none of it is meant for the daemon. */
    (void)unsetenv("FDSTORE");
    (void)unsetenv("WATCHDOG_USEC");
    (void)unsetenv("LISTEN_FDS");
    (void)unsetenv("JOURNAL_STREAM");
    (void)close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC);
    execv(argv[0], argv);
    dprintf(STDERR_FILENO, "gistctl: cannot run %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

/* The folder of the usual path, in the user's run-time folder, is gone whenever the user was. What
 * the user has named is left to the user. */
static int make_socket_folder(const struct start *s)
{
    const char *env = getenv("GISTD_SOCKET"), *path = s->socket.sun_path;
    char folder[sizeof(s->socket.sun_path)];
    int r;

    if (env && *env)
        return CTL_OK;
    (void)snprintf(folder, sizeof(folder), "%.*s", (int)(strrchr(path, '/') - path), path);
    r = files_make_path(folder, NULL);
    return r < 0 ? ctl_fail(CTL_FAILED, "cannot make %s: %s", folder, strerror(-r)) : CTL_OK;
}

/* Its own process descriptor tells when it ends, whatever its number is by then. */
static int spawn(struct start *s)
{
    char gistd[PATH_MAX], *argv[ARGS_MAX + 8];
    size_t n = 0;

    if (ctl_tool_gistd(gistd) < 0)
        return ctl_tool_no_gistd();
    if (s->n_args > ARGS_MAX)
        return ctl_fail(CTL_USAGE, "these are more than %u words for gistd.", ARGS_MAX);
    argv[n++] = gistd;
    argv[n++] = (char *)"--socket";
    argv[n++] = s->socket.sun_path;
    if (s->path) {
        argv[n++] = (char *)"--model";
        argv[n++] = s->path;
    }
    for (size_t i = 0; i < s->n_args; i++)
        argv[n++] = s->args[i];
    argv[n] = NULL;
    fflush(NULL);
    s->pid = fork();
    if (s->pid == 0)
        become_gistd(s, argv);
    if (s->pid > 0)
        s->pid_fd = pidfd_open(s->pid, 0);
    if (s->pid < 0 || s->pid_fd < 0)
        return ctl_fail(CTL_FAILED, "cannot start gistd: %s", strerror(errno));
    return CTL_OK;
}

/* What it wrote since it was started: the end of it, if that is much. */
static int show_failure(const struct start *s)
{
    char said[SAID_MAX];
    off_t end = lseek(s->log_fd, 0, SEEK_END), from = s->log_at;
    ssize_t n;

    if (end - from > SAID_MAX)
        from = end - SAID_MAX;
    n = pread(s->log_fd, said, sizeof(said), from);
    (void)ctl_fail(CTL_FAILED, "gistd did not start. It said:");
    if (n > 0)
        shown_write(stderr, SHOWN_TEXT, said, (size_t)n);
    return ctl_fail(CTL_FAILED, "this is also in %s.", s->log);
}

/* Any user may write to a socket that the kernel has named; who it was stands beside the message.
 */
static ssize_t receive(int fd, char *text, size_t cap)
{
    _Alignas(struct cmsghdr) char beside[CMSG_SPACE(sizeof(struct ucred))];
    struct iovec io = { text, cap };
    struct msghdr m = {
        .msg_iov = &io, .msg_iovlen = 1, .msg_control = beside, .msg_controllen = sizeof(beside)
    };
    ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    const struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
    struct ucred who;

    if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS)
        return 0;
    memcpy(&who, CMSG_DATA(c), sizeof(who));
    return who.uid == getuid() ? n : 0;
}

static void show_status(struct start *s, const char *status)
{
    char line[60];
    size_t len = shown_put(SHOWN_LINE, status, strcspn(status, "\n"), line, sizeof(line));

    fprintf(stderr, "\r%.*s", (int)len, line);
    fflush(stderr);
    s->shown = true;
}

/* One of its messages, lines of NAME=VALUE. */
static void take_message(struct start *s)
{
    char text[1024];
    ssize_t n = receive(s->notify_fd, text, sizeof(text) - 1);
    const char *status;

    if (n <= 0)
        return;
    text[n] = '\0';
    s->serving |= strncmp(text, "READY=1", 7) == 0 || strstr(text, "\nREADY=1");
    status = strstr(text, "STATUS=Loading");
    s->loading |= status != NULL;
    if (status && s->wait && isatty(STDERR_FILENO))
        show_status(s, status + strlen("STATUS="));
}

/* Until it serves; or without --wait, until its options and the model's head were read, and clients
 * may come and wait themselves. A message is taken before the end is looked at: a daemon that says
 * something and ends has said it. */
static int await(struct start *s)
{
    struct pollfd p[2] = { { .fd = s->notify_fd, .events = POLLIN },
                           { .fd = s->pid_fd, .events = POLLIN } };
    bool ended = false;

    while (!s->serving && !(s->loading && !s->wait) && !ended) {
        if (poll(p, 2, -1) < 0 && errno != EINTR)
            return ctl_fail(CTL_FAILED, "cannot wait for the daemon: %s", strerror(errno));
        if (p[0].revents)
            take_message(s);
        else
            ended = p[1].revents != 0;
    }
    if (s->shown)
        fputs("\r\033[K", stderr);
    return ended ? show_failure(s) : CTL_OK;
}

static void print_start(const struct start *s, pid_t pid, bool already)
{
    struct ctl_json j = { .out = stdout };

    if (!s->json) {
        shown_line(stdout, "gistd %s at %s (pid %d).",
                   already      ? "serves already"
                   : s->serving ? "serves"
                                : "loads its model; `gistctl ask` waits for it,",
                   s->socket.sun_path, (int)pid);
        if (!already)
            shown_line(stdout, "Its log is %s; `gistctl stop` ends it.", s->log);
        return;
    }
    ctl_json_open(&j, NULL, '{');
    ctl_json_u64(&j, "pid", (uint64_t)pid);
    ctl_json_string(&j, "socket", s->socket.sun_path);
    ctl_json_string(&j, "log", already ? NULL : s->log);
    ctl_json_bool(&j, "already", already);
    ctl_json_bool(&j, "serving", already || s->serving);
    ctl_json_close(&j, '}');
    fputc('\n', stdout);
}

/* There is one: good, unless another model was asked for, which it would not have. */
static int tell_other(const struct start *s, pid_t pid)
{
    print_start(s, pid, true);
    if (!s->model && s->n_args == 0)
        return CTL_OK;
    return ctl_fail(CTL_FAILED,
                    "it was started with its own model and options: `gistctl stop` first.");
}

/* In this order, so that nothing is made or fetched when a daemon runs already. */
static int start_daemon(struct start *s)
{
    struct ucred peer;
    int r = own_socket(&s->socket);

    if (r == CTL_OK)
        r = find_server(&s->socket, &peer);
    if (r == CTL_OK && peer.pid > 0)
        return tell_other(s, peer.pid);
    if (r == CTL_OK)
        r = choose_model(s);
    if (r == CTL_OK)
        r = make_socket_folder(s);
    if (r == CTL_OK)
        r = open_log(s);
    if (r == CTL_OK)
        r = open_notify(s);
    if (r == CTL_OK)
        r = spawn(s);
    if (r == CTL_OK)
        r = await(s);
    if (r == CTL_OK)
        print_start(s, s->pid, false);
    return r;
}

int ctl_start(int argc, char **argv)
{
    static const struct ctl_opt_usage usage = {
        "start [OPTIONS] [-- GISTD OPTIONS...]",
        "Starts a daemon of your own, in the background: with the model that is named, the one of\n"
        "`gistctl use`, or the smallest, which is fetched if it is not here. What stands behind "
        "--\n"
        "goes to gistd(8). `gistctl stop` ends it.\n"
    };
    struct start s = { .log_fd = -1, .notify_fd = -1, .pid_fd = -1 };
    const struct ctl_opt opts[] = {
        { "model", 'm', CTL_OPT_STRING, "MODEL", &s.model, 0, 0,
          "a name of `gistctl models`, fetched if it is not here, or a GGUF file" },
        { "wait", 'w', CTL_OPT_FLAG, NULL, &s.wait, 0, 0, "until it has loaded its model" },
        { "json", 'j', CTL_OPT_FLAG, NULL, &s.json, 0, 0, "one object: pid, socket, log" },
    };
    int r, first = ctl_opt_parse(&usage, opts, sizeof(opts) / sizeof(opts[0]), argc, argv, &r);

    if (first < 0)
        return r;
    if (first < argc && strcmp(argv[first - 1], "--") != 0)
        return ctl_fail(CTL_USAGE,
                        "start takes no arguments but options of gistd behind --, and "
                        "got '%s'; a model is named by --model.",
                        argv[first]);
    s.args = argv + first;
    s.n_args = (size_t)(argc - first);
    r = start_daemon(&s);
    for (int *fd = (int[]){ s.log_fd, s.notify_fd, s.pid_fd, -2 }; *fd != -2; fd++)
        if (*fd >= 0)
            (void)close(*fd);
    free(s.path);
    return r;
}

/* --- stopping --------------------------------------------------------------------------------- */

/* By the descriptor, so that no other process of that number is meant. */
static int wait_end(int pid_fd, pid_t pid)
{
    struct pollfd p = { .fd = pid_fd, .events = POLLIN };
    int n;

    if (pidfd_send_signal(pid_fd, SIGTERM, NULL, 0) < 0)
        return ctl_fail(CTL_FAILED, "cannot end the daemon (pid %d): %s", (int)pid,
                        strerror(errno));
    do
        n = poll(&p, 1, STOP_MS);
    while (n < 0 && errno == EINTR);
    return n > 0 ? CTL_OK
                 : ctl_fail(CTL_FAILED,
                            "the daemon (pid %d) was told to end and is still there after a "
                            "minute; its log says what it does.",
                            (int)pid);
}

static int stop_server(const struct ucred *peer)
{
    int pid_fd, r;

    /* systemd holds the socket, or has started the daemon and would start it again. */
    if (!proc_says(peer->pid, "comm", "gistd") || proc_says(peer->pid, "cgroup", "gistd.service"))
        return ctl_fail(CTL_FAILED,
                        "the socket is served for systemd: `systemctl %sstop gistd.socket "
                        "gistd.service` ends it.",
                        peer->uid == 0 ? "" : "--user ");
    pid_fd = pidfd_open(peer->pid, 0);
    if (pid_fd < 0)
        return errno == ESRCH ? CTL_OK : ctl_fail(CTL_FAILED, "%s", strerror(errno));
    r = wait_end(pid_fd, peer->pid);
    (void)close(pid_fd);
    return r;
}

int ctl_stop(int argc, char **argv)
{
    static const struct ctl_opt_usage usage = { "stop [OPTIONS]",
                                                "Ends your daemon, behind what it has to write to "
                                                "its store. What was read comes back when\n"
                                                "it is started again.\n" };
    bool json = false;
    const struct ctl_opt opts[] = {
        { "json", 'j', CTL_OPT_FLAG, NULL, &json, 0, 0, "one object: pid, socket" },
    };
    struct ctl_json j = { .out = stdout };
    struct sockaddr_un at;
    struct ucred peer;
    int r;

    if (ctl_opt_parse_all(&usage, opts, 1, argc, argv, &r) < 0)
        return r;
    r = own_socket(&at);
    if (r == CTL_OK)
        r = find_server(&at, &peer);
    if (r == CTL_OK && peer.pid == 0)
        return ctl_fail(CTL_NO_DAEMON, "no daemon is running at %s.", at.sun_path);
    if (r == CTL_OK)
        r = stop_server(&peer);
    if (r == CTL_OK && json) {
        ctl_json_open(&j, NULL, '{');
        ctl_json_u64(&j, "pid", (uint64_t)peer.pid);
        ctl_json_string(&j, "socket", at.sun_path);
        ctl_json_close(&j, '}');
        fputc('\n', stdout);
    } else if (r == CTL_OK) {
        shown_line(stdout, "gistd at %s (pid %d) has ended.", at.sun_path, (int)peer.pid);
    }
    return r;
}
