/* ctl/ctl_main.c - gistctl: finds the command, and what all commands share. */
#include "ctl/ctl.h"

#include "base/shown.h"
#include "base/std.h"

#include <errno.h>
#include <getopt.h>
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    { "start", ctl_start, "start a daemon of your own, in the background" },
    { "stop", ctl_stop, "end it" },
    { "models", ctl_models, "models that can be fetched, and those on this machine" },
    { "pull", ctl_pull, "fetch a model" },
    { "use", ctl_use, "take a model for the next start" },
    { "ask", ctl_ask, "answer one question, optionally about files" },
    { "attach", ctl_attach, "go on with an answer whose program was killed" },
    { "chat", ctl_chat, "talk with the model" },
    { "doc", ctl_doc, "texts that are read once and asked about by name" },
    { "session", ctl_session, "conversations that were saved" },
    { "score", ctl_score, "log-probabilities and perplexity of a text" },
    { "embed", ctl_embed, "a row of numbers for each of several texts" },
    { "tokenize", ctl_tokenize, "text to token ids" },
    { "detokenize", ctl_detokenize, "token ids to text" },
    { "cache", ctl_cache, "what is kept on disk of your sessions" },
    { "sessions", ctl_sessions, "what open sessions hold and do" },
    { "cancel", ctl_cancel, "end what a session is doing" },
    { "trace", ctl_trace, "where the time of your requests went" },
    { "top", ctl_top, "the daemon at work, on a terminal" },
    { "status", ctl_status, "the daemon's model, memory, clients and sessions" },
    { "bench-ring", ctl_bench_ring, "round trips over shared memory, against a Unix socket" },
};
#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

int ctl_fail(enum ctl_exit code, const char *fmt, ...)
{
    va_list ap;

    fflush(stdout); /* so that the sentence comes after what was said before it */
    fputs("gistctl: ", stderr);
    va_start(ap, fmt);
    shown_vline(stderr, fmt, ap); /* a path, a daemon's word, a file's text: anything is quoted */
    va_end(ap);
    return code;
}

/* -ECANCELED without a Ctrl-C is an answer that the daemon ended: a failure as any other. */
int ctl_fail_gist(const gist_conn *c, int err)
{
    const char *text = gist_error(c);

    ctl_loading_end();
    if (err == -ECANCELED && ctl_interrupt_came())
        return CTL_INTERRUPTED;
    ctl_fail(CTL_FAILED, "%s", text && *text ? text : strerror(-err));
    return gist_error_code(c) == GIST_E_TRANSPORT ? CTL_NO_DAEMON : CTL_FAILED;
}

/* Set once, by an option before the command. */
static unsigned connect_flags;

/* One line that is written over; the last thing is to take it away, and none is left in a log. */
static struct {
    bool terminal, shown;
} loading;

static int show_loading(void *arg, unsigned percent)
{
    (void)arg;
    if (loading.terminal) {
        fprintf(stderr, "\rgistd is loading the model: %u %%", percent);
        fflush(stderr);
        loading.shown = true;
    }
    return 0;
}

/* Of a model that the daemon had given back: it is loaded inside any later call. */
static int show_loading_again(void *arg, unsigned percent)
{
    if (percent < 100)
        return show_loading(arg, percent);
    ctl_loading_end();
    return 0;
}

void ctl_loading_end(void)
{
    if (loading.shown)
        fputs("\r\033[K", stderr);
    loading.shown = false;
}

/* -ENOENT: no socket is there, so no daemon runs, which a person can change. */
static int connect_failed(int err)
{
    ctl_fail_gist(NULL, err);
    if (err == -ENOENT)
        (void)ctl_fail(CTL_NO_DAEMON, "`gistctl start` starts one of your own.");
    return err == -ENOMEM ? CTL_FAILED : CTL_NO_DAEMON;
}

int ctl_connect(gist_conn **ret_conn)
{
    const struct gist_connect_opts o = {
        .size = sizeof(o), .name = "gistctl", .on_loading = show_loading, .flags = connect_flags
    };
    int r;

    loading.terminal = isatty(STDERR_FILENO);
    r = gist_connect_with(&o, ret_conn);
    ctl_loading_end();
    if (r < 0)
        return connect_failed(r);
    gist_on_loading(*ret_conn, show_loading_again, NULL);
    return CTL_OK;
}

static int keep_percent(void *arg, unsigned percent)
{
    *(unsigned *)arg = percent;
    return 1;
}

/* Its callback refuses to wait, which libgist reports as a cancel. */
int ctl_connect_now(gist_conn **ret_conn, unsigned *ret_percent)
{
    const struct gist_connect_opts o = { .size = sizeof(o),
                                         .name = "gistctl",
                                         .on_loading = keep_percent,
                                         .arg = ret_percent,
                                         .flags = connect_flags };
    int r = gist_connect_with(&o, ret_conn);

    return r == -ECANCELED ? CTL_LOADING : r < 0 ? connect_failed(r) : CTL_OK;
}

uint64_t ctl_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int ctl_set_end(gist_conn *c, uint64_t end_ns)
{
    uint64_t now = ctl_now_ns(), left = end_ns > now ? (end_ns - now) / 1000000 : 0;

    return end_ns ? gist_set_deadline(c, (uint32_t)left + 1) : 0; /* 0 ms would be any time */
}

static void print_help(FILE *out)
{
    fputs("usage: gistctl [--socket PATH] COMMAND [OPTIONS] ...\n\n"
          "Talks to gistd, the local language model daemon.\n\n",
          out);
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-12s %s\n", commands[i].name, commands[i].help);
    fputs("\n"
          "  -S, --socket PATH   the daemon's socket; else $GISTD_SOCKET,\n"
          "                      $XDG_RUNTIME_DIR/gistd/gistd.sock, /run/gistd/gistd.sock\n"
          "  -A, --any-server    also if the socket's server is neither root, gistd nor you\n"
          "  -h, --help          this, or a command's own: gistctl COMMAND --help\n"
          "  -V, --version\n\n"
          "Exit codes: 0 done, 1 the request failed, 2 wrong usage, 3 no daemon or connection\n"
          "lost, 4 (status) still loading, 130 interrupted. More in gistctl(1).\n",
          out);
}

static int run_command(int argc, char **argv)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(argv[0], commands[i].name) == 0)
            return commands[i].run(argc, argv);
    return ctl_fail(CTL_USAGE, "unknown command '%s'; `gistctl --help` lists the commands.",
                    argv[0]);
}

/* Options before a command, then the command. "+": options end at the first word, since those
 * behind it are the command's. */
static int run(int argc, char **argv)
{
    static const struct option options[] = { { "socket", required_argument, NULL, 'S' },
                                             { "any-server", no_argument, NULL, 'A' },
                                             { "help", no_argument, NULL, 'h' },
                                             { "version", no_argument, NULL, 'V' },
                                             { 0 } };
    int o;

    while ((o = getopt_long(argc, argv, "+:AS:hV", options, NULL)) != -1) {
        switch (o) {
        case 'S': /* by the environment, so that a command need not be told */
            if (setenv("GISTD_SOCKET", optarg, 1) < 0)
                return ctl_fail(CTL_FAILED, "%s", strerror(errno));
            break;
        case 'A':
            connect_flags = GIST_ANY_SERVER;
            break;
        case 'h':
            print_help(stdout);
            return CTL_OK;
        case 'V':
            puts("gistctl " GISTD_VERSION);
            return CTL_OK;
        case ':':
            return ctl_fail(CTL_USAGE, "%s needs a value; see `gistctl --help`.", argv[optind - 1]);
        default:
            return ctl_fail(CTL_USAGE,
                            "unknown option %s before the command; see `gistctl --help`.",
                            argv[optind - 1]);
        }
    }
    if (optind == argc) {
        print_help(stderr);
        return CTL_USAGE;
    }
    argc -= optind;
    argv += optind;
    optind = 0; /* getopt_long starts anew for the command's own options */
    return run_command(argc, argv);
}

/* What is written is flushed here, once, so that a full disk or a closed pipe is an error of every
 * command without each looking. */
int main(int argc, char **argv)
{
    int r, err;

    std_open();
    /* For line editing. The model speaks UTF-8 and so do we, also where no locale was set. Numbers
     * stay in the C locale. */
    if (!setlocale(LC_CTYPE, "") || MB_CUR_MAX == 1)
        setlocale(LC_CTYPE, "C.UTF-8");
    r = run(argc, argv);
    err = std_flush();
    if (err < 0)
        return ctl_fail(CTL_FAILED, "cannot write the output: %s", strerror(-err));
    return r;
}
