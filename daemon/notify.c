#include "daemon/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>

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

void notify_stopping(void)
{
    (void)sd_notify(0, "STOPPING=1\nSTATUS=Stopping");
}

void notify_watchdog(void)
{
    (void)sd_notify(0, "WATCHDOG=1");
}

uint64_t notify_watchdog_ns(void)
{
    uint64_t us;

    return sd_watchdog_enabled(0, &us) > 0 ? us * 1000 : 0;
}

int notify_take_socket(void)
{
    int n = sd_listen_fds(1), fd = SD_LISTEN_FDS_START;

    if (n <= 0)
        return n < 0 ? n : -ENOENT;
    if (n > 1 || sd_is_socket_unix(fd, SOCK_SEQPACKET, 1, NULL, 0) <= 0)
        return -EINVAL;
    /* accept() must not block when a client gave up between the event and the call. */
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
        return -errno;
    return fd;
}
