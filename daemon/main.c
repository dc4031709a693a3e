/* gistd - serves a language model to local programs over shared memory.
 *
 * Start: options, log, signals, socket (so that a second daemon ends before it reads a model), the
 * sandbox (before anything foreign is read), then the scheduler's thread, which loads the model;
 * this one becomes the control thread and says READY when the other does. Stop: the scheduler
 * answers what is open and frees all, the socket goes last.
 *
 * Exit status: 0 stopped by a signal, 1 failed, 2 a bad option, 3 another daemon serves the socket.
 */

#include "base/shown.h"
#include "base/std.h"
#include "daemon/config.h"
#include "daemon/control.h"
#include "daemon/estimate.h"
#include "daemon/keep.h"
#include "daemon/listener.h"
#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/sandbox.h"
#include "daemon/sched.h"
#include "daemon/scrape.h"
#include "daemon/turnaway.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { EXIT_BAD_OPTION = 2, EXIT_TAKEN = 3 };

static int exit_code(int err)
{
    return err == -EADDRINUSE ? EXIT_TAKEN : err < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* Of a client: its socket, and four of its channel. Beside them the daemon's own, and those of
 * peers that shake hands. */
#define DESCRIPTORS_A_CLIENT 5u
#define DESCRIPTORS_BESIDE   64u

/* The usual soft limit would stop at two hundred clients. What is too low all the same is said now,
 * and not only when a client is refused for it. */
static void raise_descriptors(const struct config *config)
{
    uint64_t need = (uint64_t)config->max_clients * DESCRIPTORS_A_CLIENT + DESCRIPTORS_BESIDE;
    struct rlimit l;

    if (getrlimit(RLIMIT_NOFILE, &l) < 0)
        return;
    if (l.rlim_cur < l.rlim_max) {
        l.rlim_cur = l.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &l);
    }
    if (l.rlim_max < need)
        log_warning("--max-clients %u needs %" PRIu64 " file descriptors, but the limit is %" PRIu64
                    ": raise it (LimitNOFILE= of the unit), or some clients will be refused",
                    config->max_clients, need, (uint64_t)l.rlim_max);
}

/* Both threads, until the scheduler has stopped. */
static int run(const struct config *config, struct listener *listener, struct scrape *scrape,
               struct pressure *pressure, struct sched *sched, struct mailbox *to_sched,
               struct mailbox *from_sched)
{
    struct control control = { .config = config,
                               .listener = listener,
                               .sched = sched,
                               .to_sched = to_sched,
                               .from_sched = from_sched,
                               .scrape = scrape,
                               .pressure = pressure };
    pthread_t thread;
    int r;

    sched->config = config;
    sched->inbox = to_sched;
    sched->outbox = from_sched;
    r = control_open(&control);
    if (r == 0) {
        r = -pthread_create(&thread, NULL, sched_main, sched);
        if (r < 0)
            control_close(&control);
    }
    if (r < 0) {
        log_error("starting: %s", strerror(-r));
        return r;
    }
    r = control_run(&control);
    if (r < 0) {
        /* Without the control thread nobody can stop the other; the kernel frees all. */
        log_error("the control thread failed: %s", strerror(-r));
        _exit(EXIT_FAILURE);
    }
    (void)pthread_join(thread, NULL);
    control_close(&control);
    log_peer_left_out();
    if (sched->result < 0 && sched->result != -ECANCELED)
        log_error("%s", sched->why.text);
    return sched->result == -ECANCELED ? 0 : sched->result;
}

/* Sockets first, then the sandbox, then all the rest. */
static int serve_on(const struct config *config, struct sched *sched, struct mailbox *to_sched,
                    struct mailbox *from_sched)
{
    struct scrape *scrape = calloc(1, sizeof(*scrape));
    struct why why = { "" };
    struct listener listener;
    struct pressure pressure;
    struct keep keep;
    int r = scrape ? listener_open(&listener, config, &why) : -ENOMEM;

    if (r < 0) {
        log_error("%s", scrape ? why.text : strerror(-r));
        free(scrape);
        return r;
    }
    keep_open(&keep, config);
    pressure_open(&pressure, config, "");
    sched->keep = &keep;
    sched->shared = listener.shared;
    sched->socket = listener.path;
    r = scrape_open(scrape, config, &listener, &why);
    if (r == 0)
        r = sandbox_enter(config, &listener, scrape, &why);
    if (r < 0)
        log_error("%s", why.text);
    else
        r = run(config, &listener, scrape, &pressure, sched, to_sched, from_sched);
    scrape_close(scrape);
    pressure_close(&pressure);
    keep_close(&keep);
    listener_close(&listener);
    free(scrape);
    return r;
}

/* Signals are blocked before there is a second thread, and mailboxes have room before there is a
 * letter. */
static int serve(const struct config *config)
{
    struct mailbox to_sched = { .slots = NULL }, from_sched = { .slots = NULL };
    struct sched *sched = calloc(1, sizeof(*sched));
    int r;

    raise_descriptors(config);
    r = sched ? control_block_signals() : -ENOMEM;
    if (r == 0)
        r = mailbox_open(&to_sched, config->max_clients);
    if (r == 0)
        r = mailbox_open(&from_sched, config->max_clients);
    if (r < 0) {
        log_error("starting: %s", strerror(-r));
    } else {
        r = serve_on(config, sched, &to_sched, &from_sched);
    }
    mailbox_close(&to_sched);
    mailbox_close(&from_sched);
    free(sched);
    return exit_code(r);
}

/* What was asked for is on standard output, or an error. */
static int printed(void)
{
    int r = std_flush();

    if (r < 0)
        log_error("cannot write the output: %s", strerror(-r));
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* config_load has said what is wrong; being here is the answer. */
static int check(const struct config *config)
{
    shown_line(stdout, "the options are valid%s%s", config->file[0] ? "; config file: " : "",
               config->file);
    return printed();
}

/* The status tells scripts whether it fits. */
static int plan(const struct config *config)
{
    struct why why = { "" };
    struct estimate e;

    if (estimate_make(config, &e, &why) < 0) {
        log_error("%s", why.text);
        return EXIT_FAILURE;
    }
    estimate_print(&e, stdout);
    return printed() == EXIT_SUCCESS && estimate_fits(&e) ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* Who started us by connecting is told as well as the log. */
static int refuse_options(int listener, const char *text)
{
    if (listener >= 0)
        turnaway(listener, text);
    return EXIT_BAD_OPTION;
}

/* Which of the ways to name one helps depends on how we were started: a socket that was handed over
 * is a unit's. */
static int refuse_without_model(const struct config *config)
{
    int listener = notify_take_socket();
    struct why why = { "" };

    if (listener < 0)
        (void)why_set(&why, -EINVAL,
                      "no model was named: start `gistd --model FILE` with a GGUF file, or set "
                      "model in the config file or GISTD_MODEL; `gistd --help` lists all options");
    else if (config->file[0])
        (void)why_set(&why, -EINVAL,
                      "no model was named: write `model = FILE` with a GGUF file into %s, and try "
                      "again",
                      config->file);
    else
        (void)why_set(&why, -EINVAL,
                      "no model was named: write `model = FILE` with a GGUF file into "
                      "~/.config/gistd/gistd.conf or /etc/gistd/gistd.conf, and try again");
    log_error("%s", why.text);
    return refuse_options(listener, why.text);
}

int main(int argc, char **argv)
{
    struct why why = { "" };
    struct config config;

    std_open();
    log_open(LOG_LEVEL_INFO);
    if (config_load(&config, argc, argv, environ, &why) < 0) {
        log_error("%s", why.text);
        return refuse_options(notify_take_socket(),
                              "an option of the daemon is wrong: its log says which");
    }
    log_open((enum log_level)config.log_level);
    switch (config.action) {
    case CONFIG_HELP:
        config_print_help(stdout);
        return printed();
    case CONFIG_VERSION:
        (void)puts("gistd " GISTD_VERSION);
        return printed();
    case CONFIG_PRINT:
        config_print_example(stdout);
        return printed();
    case CONFIG_CHECK:
        return check(&config);
    case CONFIG_PLAN:
        return plan(&config);
    case CONFIG_SERVE:
        break;
    }
    return config.model[0] ? serve(&config) : refuse_without_model(&config);
}
