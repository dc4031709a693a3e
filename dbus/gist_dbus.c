/* gist-dbus - tells who uses a running gistd on D-Bus.
 *
 * A process of its own, as gist-http is: the daemon speaks with no bus, and what the bus brings
 * reaches it as a client's request or not at all. It starts no daemon by looking, and serves
 * without one ("stopped").
 *
 * Exit status: 0 stopped by a signal, 1 failed, 2 a bad option or no such bus, 3 the name is taken.
 */
#include "base/shown.h"
#include "base/std.h"
#include "dbus/conf.h"
#include "dbus/manager.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-event.h>
#include <unistd.h>

enum { EXIT_BAD_OPTION = 2, EXIT_TAKEN = 3 };

struct program {
    const struct conf *conf;
    struct manager manager;
    sd_event *event;
    sd_event_source *timer;
};

static int complain(int code, const char *what, int err)
{
    shown_line(stderr, "gist-dbus: error: %s%s%s", what, err ? ": " : "",
               err ? strerror(-err) : "");
    return code;
}

static int printed(void)
{
    int r = std_flush();

    return r == 0 ? EXIT_SUCCESS : complain(EXIT_FAILURE, "cannot write the output", r);
}

/* As libsystemd would find it: an address, or the socket that a session's systemd makes. A service
 * of the system has neither. */
static bool has_user_bus(void)
{
    const char *address = getenv("DBUS_SESSION_BUS_ADDRESS"), *run = getenv("XDG_RUNTIME_DIR");
    char path[PATH_MAX];

    if (address && *address)
        return true;
    (void)snprintf(path, sizeof(path), "%s/bus", run ? run : "");
    return run && access(path, F_OK) == 0;
}

static int open_bus(const struct conf *conf, sd_bus **ret)
{
    bool user = conf->bus == CONF_BUS_USER || (conf->bus == CONF_BUS_AUTO && has_user_bus());

    return user ? sd_bus_open_user(ret) : sd_bus_open_system(ret);
}

/* The next look is counted from the end of this one: a daemon that is slow is not asked more. */
static int on_time(sd_event_source *source, uint64_t us, void *arg)
{
    struct program *p = arg;
    int r;

    (void)us;
    manager_look(&p->manager);
    r = sd_event_source_set_time_relative(source, (uint64_t)p->conf->interval * 1000000);
    return r < 0 ? r : sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

/* Signals are blocked before they are events: sd-event takes them from there, and without a handler
 * of ours ends its loop. So does a bus that is gone. */
static int watch(struct program *p)
{
    sigset_t set;
    int r;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    r = sd_event_new(&p->event);
    if (r >= 0)
        r = sd_event_add_signal(p->event, NULL, SIGINT, NULL, NULL);
    if (r >= 0)
        r = sd_event_add_signal(p->event, NULL, SIGTERM, NULL, NULL);
    if (r >= 0)
        r = sd_event_add_time_relative(p->event, &p->timer, CLOCK_MONOTONIC,
                                       (uint64_t)p->conf->interval * 1000000, 0, on_time, p);
    if (r >= 0)
        r = sd_bus_attach_event(p->manager.bus, p->event, SD_EVENT_PRIORITY_NORMAL);
    return r < 0 ? r : sd_bus_set_exit_on_disconnect(p->manager.bus, 1);
}

static int serve(const struct conf *conf)
{
    struct program p = { .conf = conf };
    int r;

    (void)signal(SIGPIPE, SIG_IGN);
    p.manager.view.socket = conf->socket[0] ? conf->socket : NULL;
    r = open_bus(conf, &p.manager.bus);
    if (r < 0)
        return complain(EXIT_BAD_OPTION, "there is no bus", r);
    r = watch(&p);
    if (r >= 0)
        r = manager_open(&p.manager);
    /* Somebody else's name, or our own from another connection. */
    if (r == -EEXIST || r == -EALREADY) {
        r = complain(EXIT_TAKEN, "another program serves " MANAGER_NAME " on this bus", 0);
    } else if (r < 0) {
        r = complain(EXIT_FAILURE, "serving on the bus", r);
    } else {
        shown_line(stderr, "gist-dbus: serving " MANAGER_NAME);
        r = sd_event_loop(p.event);
        r = r < 0 ? complain(EXIT_FAILURE, "waiting", r) : r;
    }
    /* Of what was only half made, too: all of these take NULL. */
    sd_event_source_unref(p.timer);
    sd_bus_flush_close_unref(p.manager.bus);
    sd_event_unref(p.event);
    view_close(&p.manager.view);
    return r;
}

int main(int argc, char **argv)
{
    struct why why = { "" };
    struct conf conf;

    std_open();
    if (conf_load(&conf, argc, argv, &why) < 0)
        return complain(EXIT_BAD_OPTION, why.text, 0);
    switch (conf.action) {
    case CONF_HELP:
        conf_print_help(stdout);
        return printed();
    case CONF_VERSION:
        (void)puts("gist-dbus " GISTD_VERSION);
        return printed();
    case CONF_SERVE:
        break;
    }
    return serve(&conf);
}
