/* gist-http - serves a running gistd over HTTP.
 *
 * A process of its own: what reads foreign HTTP and JSON holds no model and no other user's
 * context, and the daemon has no network. Start: options, sockets, threads. It needs no daemon to
 * start: requests are told how to start one.
 *
 * Exit status: 0 stopped by a signal, 1 failed, 2 a bad option, 3 the address is taken.
 */
#include "base/shown.h"
#include "base/std.h"
#include "http/server.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_BAD_OPTION = 2, EXIT_TAKEN = 3 };

static int complain(int code, const char *text)
{
    shown_line(stderr, "gist-http: error: %s", text);
    return code;
}

static int printed(void)
{
    char text[256];
    int r = std_flush();

    if (r == 0)
        return EXIT_SUCCESS;
    (void)snprintf(text, sizeof(text), "cannot write the output: %s", strerror(-r));
    return complain(EXIT_FAILURE, text);
}

static int check(const struct conf *conf)
{
    shown_line(stdout, "the options are valid%s%s", conf->file[0] ? "; config file: " : "",
               conf->file);
    return printed();
}

/* Signals are blocked before there is any thread, and so in all of them: the main thread reads them
 * from a descriptor (http/server.c). A client that hangs up is an error of a write, and no signal.
 */
static int serve(const struct conf *conf)
{
    struct why why = { "" };
    struct server server;
    struct listen at;
    sigset_t set;
    int r;

    (void)signal(SIGPIPE, SIG_IGN);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGTERM);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    r = listen_open(&at, conf, &why);
    if (r < 0)
        return complain(r == -EADDRINUSE ? EXIT_TAKEN : EXIT_BAD_OPTION, why.text);
    r = server_open(&server, conf, &at, &why);
    if (r < 0) {
        listen_close(&at);
        return complain(r == -EIO ? EXIT_FAILURE : EXIT_BAD_OPTION, why.text);
    }
    shown_line(stderr, "gist-http: serving HTTP on %s", at.where);
    listen_ready(&at);
    r = server_run(&server);
    if (r < 0)
        (void)why_set(&why, r, "waiting: %s", strerror(-r));
    listen_stopping();
    server_close(&server);
    listen_close(&at);
    return r < 0 ? complain(EXIT_FAILURE, why.text) : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    struct why why = { "" };
    struct conf conf;

    std_open();
    if (conf_load(&conf, argc, argv, &why) < 0)
        return complain(EXIT_BAD_OPTION, why.text);
    switch (conf.action) {
    case CONF_HELP:
        conf_print_help(stdout);
        return printed();
    case CONF_VERSION:
        (void)puts("gist-http " GISTD_VERSION);
        return printed();
    case CONF_PRINT:
        conf_print_example(stdout);
        return printed();
    case CONF_CHECK:
        return check(&conf);
    case CONF_SERVE:
        break;
    }
    return serve(&conf);
}
