#include "daemon/turnaway.h"

#include "base/clock.h"
#include "ipc/handshake.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

/* A manager gives a socket up whose service was started five times within ten seconds
 * (StartLimitBurst=), and its clients would find nothing there. With three seconds of patience a
 * program that tries again and again costs four starts. */
#define PATIENCE_MS 3000
/* But it does not keep us for ever: what was wrong may have been mended, and only the next start
 * will see it. */
#define LONGEST_NS ((uint64_t)30 * CLOCK_S)
/* Who connects says hello at once. Silent ones wait in line before others. */
#define HELLO_MS 1000

static bool readable(int fd, int timeout_ms)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };

    return poll(&p, 1, timeout_ms) > 0;
}

void turnaway(int listener, const char *text)
{
    uint64_t end = clock_ns() + LONGEST_NS;

    /* The first wait is none: who is there is there already. */
    for (int wait = 0; clock_ns() < end && readable(listener, wait); wait = PATIENCE_MS) {
        int sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (sock < 0 && (errno == EAGAIN || errno == ECONNABORTED))
            continue; /* he gave up meanwhile */
        if (sock < 0)
            return;
        /* Its hello has to be read, or the end of the connection would overtake the sentence. */
        if (readable(sock, HELLO_MS))
            (void)handshake_refuse(sock, HANDSHAKE_STOPPING, text);
        (void)close(sock);
    }
}
