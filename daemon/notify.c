#include "daemon/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

/* What is forgotten may be memory that is needed now; a manager that does not know of barriers
 * would keep us here. */
#define FORGET_US ((uint64_t)2000000)

/* Once a percent, whoever calls it how often: a message to the manager is a system call, and a line
 * of its log. */
void notify_loading(unsigned percent)
{
    static _Atomic unsigned last = UINT32_MAX;

    if (atomic_exchange(&last, percent) != percent)
        (void)sd_notifyf(0, "STATUS=Loading the model, %u %%", percent);
}

void notify_ready(const char *status)
{
    (void)sd_notifyf(0, "READY=1\nSTATUS=%s", status);
}

void notify_status(const char *status)
{
    (void)sd_notifyf(0, "STATUS=%s", status);
}

void notify_stopping(void)
{
    (void)sd_notify(0, "STOPPING=1\nSTATUS=Stopping");
}

void notify_saving(unsigned n)
{
    (void)sd_notifyf(0, "STATUS=Stopping: writing %u segments of context to the store", n);
}

void notify_watchdog(void)
{
    (void)sd_notify(0, "WATCHDOG=1");
}

/* 0: no watchdog is set. */
uint64_t notify_watchdog_ns(void)
{
    uint64_t us;

    return sd_watchdog_enabled(0, &us) > 0 ? us * 1000 : 0;
}

static bool is_kept(const char *name)
{
    return strncmp(name, NOTIFY_KEPT_PREFIX, strlen(NOTIFY_KEPT_PREFIX)) == 0;
}

static void free_names(char **names, int n)
{
    for (int i = 0; i < n; i++)
        free(names[i]);
    free(names);
}

/* The one descriptor that is not one of ours from before; -EINVAL: there are several. */
static int find_socket(char *const *names, int n)
{
    int found = -ENOENT;

    for (int i = 0; i < n; i++) {
        if (is_kept(names[i]))
            continue;
        if (found >= 0)
            return -EINVAL;
        found = SD_LISTEN_FDS_START + i;
    }
    return found;
}

/* The variables stay: notify_take_kept reads them as well, and takes them out of the
 * environment. */
int notify_take_socket(void)
{
    char **names = NULL;
    int n = sd_listen_fds_with_names(0, &names), fd;

    if (n <= 0)
        return n < 0 ? n : -ENOENT;
    fd = find_socket(names, n);
    free_names(names, n);
    if (fd < 0)
        return fd;
    if (sd_is_socket_unix(fd, SOCK_SEQPACKET, 1, NULL, 0) <= 0)
        return -EINVAL;
    /* accept() must not block when a client gave up between the event and the call. */
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
        return -errno;
    return fd;
}

uint32_t notify_take_kept(struct notify_kept *ret, uint32_t cap)
{
    char **names = NULL;
    int n = sd_listen_fds_with_names(1, &names);
    uint32_t taken = 0;

    for (int i = 0; i < n; i++) {
        int fd = SD_LISTEN_FDS_START + i;

        if (!is_kept(names[i]))
            continue;
        if (taken == cap || strlen(names[i]) > NOTIFY_NAME_MAX) {
            (void)close(fd);
            continue;
        }
        ret[taken].fd = fd;
        (void)snprintf(ret[taken++].name, sizeof(ret->name), "%s", names[i]);
    }
    if (n > 0)
        free_names(names, n);
    return taken;
}

bool notify_manager(void)
{
    const char *socket = getenv("NOTIFY_SOCKET");

    return socket && *socket;
}

/* The manager says how many descriptors the unit may leave with it (FileDescriptorStoreMax=). */
bool notify_store(void)
{
    const char *max = getenv("FDSTORE");

    return notify_manager() && max && strtoul(max, NULL, 10) > 0;
}

int notify_keep(int fd, const char *name)
{
    char state[NOTIFY_NAME_MAX + 64];
    int r;

    /* A memfd is always readable: there is nothing to poll for. */
    (void)snprintf(state, sizeof(state), "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", name);
    r = sd_pid_notify_with_fds(0, 0, state, &fd, 1);
    return r < 0 ? r : r == 0 ? -ENOTCONN : 0;
}

/* The barrier: only when the manager has closed its copy is the memory free. */
void notify_forget(const char *name)
{
    if (sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%s", name) > 0)
        (void)sd_notify_barrier(0, FORGET_US);
}
