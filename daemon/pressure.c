/* The trigger is a line that is written to the very descriptor that is waited on: "some", the stall
 * and the window in microseconds. The kernel takes it back when the descriptor is closed, and rings
 * once a window at most.
 */
#include "daemon/pressure.h"

#include "base/socket_file.h"
#include "daemon/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* A window of 2 s: the kernel lets users without privileges have multiples of that alone. */
static const char trigger[] = "some 200000 2000000";

#define WRITE_MAX 256u

/* --- what is written -------------------------------------------------------------------------- */

static int digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;

    return at ? (int)(at - digits) : -1;
}

/* base64, of a few bytes. How many; -EINVAL. */
static int decode(const char *text, char *ret, size_t cap)
{
    uint32_t bits = 0;
    size_t n = 0;

    for (unsigned n_bits = 0; *text && *text != '='; text++) {
        int d = digit(*text);

        if (d < 0 || n == cap)
            return -EINVAL;
        bits = bits << 6 | (uint32_t)d;
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            ret[n++] = (char)(bits >> n_bits & 0xff);
        }
    }
    return (int)n;
}

/* --- opening ---------------------------------------------------------------------------------- */

static int tell(int fd, const char *text, size_t n)
{
    ssize_t done = write(fd, text, n);

    return done < 0 ? -errno : (size_t)done < n ? -EIO : 0;
}

/* The file, FIFO or socket at path, told what to tell us of. -errno. The kernel's files want the
 * zero byte as well (Documentation/accounting/psi.rst), so n counts it where the text is ours. */
static int open_at(struct pressure *p, const char *path, const char *text, size_t n)
{
    struct stat st;
    int fd, r;

    if (stat(path, &st) < 0)
        return -errno;
    fd = S_ISSOCK(st.st_mode) ? socket_file_connect(path, SOCK_STREAM)
                              : open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return S_ISSOCK(st.st_mode) ? fd : -errno;
    /* A FIFO that is open for both would give us back what we write. */
    r = n > 0 && !S_ISFIFO(st.st_mode) ? tell(fd, text, n) : 0;
    if (r < 0) {
        (void)close(fd);
        return r;
    }
    p->fd = fd;
    p->events = S_ISREG(st.st_mode) ? EPOLLPRI : EPOLLIN;
    return 0;
}

/* That of our own cgroup (v2), then the machine's. */
static int open_own(struct pressure *p, const char *root, char path[PATH_MAX])
{
    char line[PATH_MAX / 2] = "";
    FILE *f;
    int r;

    (void)snprintf(path, PATH_MAX, "%s/proc/self/cgroup", root);
    f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f) && strncmp(line, "0::", 3) != 0)
        line[0] = '\0';
    if (f)
        (void)fclose(f);
    line[strcspn(line, "\n")] = '\0';
    if (line[0]) {
        (void)snprintf(path, PATH_MAX, "%s/sys/fs/cgroup%s/memory.pressure", root, line + 3);
        r = open_at(p, path, trigger, sizeof(trigger));
        if (r == 0)
            return 0;
    }
    (void)snprintf(path, PATH_MAX, "%s/proc/pressure/memory", root);
    return open_at(p, path, trigger, sizeof(trigger));
}

/* The service manager says what to write, or nothing: then it only tells. */
static int open_named(struct pressure *p, const char *path)
{
    const char *encoded = getenv("MEMORY_PRESSURE_WRITE");
    char text[WRITE_MAX];
    int n;

    if (!encoded)
        return open_at(p, path, NULL, 0);
    n = decode(encoded, text, sizeof(text));
    return n < 0 ? n : open_at(p, path, text, (size_t)n);
}

/* "none" by option, /dev/null by the service manager: the same wish. What was asked for by name and
 * fails is a warning; what is tried on the off chance is not. */
void pressure_open(struct pressure *p, const struct config *c, const char *root)
{
    const char *watch = getenv("MEMORY_PRESSURE_WATCH");
    char path[PATH_MAX];
    int r;

    *p = (struct pressure){ .fd = -1 };
    (void)snprintf(path, sizeof(path), "%s", watch ? watch : "");
    if (strcmp(c->pressure, "none") == 0 || (watch && strcmp(watch, "/dev/null") == 0)) {
        log_debug("nobody is asked whether memory is short");
        return;
    }
    if (strcmp(c->pressure, "auto") != 0) {
        (void)snprintf(path, sizeof(path), "%s", c->pressure);
        r = open_at(p, path, trigger, sizeof(trigger));
    } else {
        r = watch ? open_named(p, watch) : open_own(p, root, path);
    }
    if (r == 0)
        log_debug("%s tells when memory is short", path);
    else if (strcmp(c->pressure, "auto") != 0)
        log_warning("option memory-pressure: %s: %s; nobody tells when memory is short", path,
                    strerror(-r));
    else
        log_debug("nobody tells when memory is short: %s: %s", path, strerror(-r));
}

void pressure_close(struct pressure *p)
{
    if (p->fd >= 0)
        (void)close(p->fd);
    p->fd = -1;
}

/* --- hearing of it ---------------------------------------------------------------------------- */

bool pressure_take(struct pressure *p, uint32_t events, uint64_t now, bool *ret_gone)
{
    bool told = events & p->events;
    char buf[256];
    ssize_t n = 1;

    /* The kernel's files are readable at any time: what counts of them is the event itself. */
    while (p->events == EPOLLIN && n > 0)
        n = read(p->fd, buf, sizeof(buf));
    *ret_gone = events & (EPOLLERR | EPOLLHUP) || n == 0;
    if (!told || now < p->next_ns)
        return false;
    p->next_ns = now + PRESSURE_NS;
    return true;
}
