#include "daemon/cgroup.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A stable distribution's headers are older than its kernel may be. */
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* A line a hierarchy, of which v1 has a dozen and v2 one, the last. */
#define CGROUP_FILE_MAX 16384u
#define STAT_FILE_MAX   2048u

/* The field of /proc/PID/stat that has when it began, counted from the one behind the name. */
#define STAT_BEGAN 20u

/* --- what the file says ----------------------------------------------------------------------- */

/* Something stands before the suffix. */
static bool ends_in(const char *s, size_t len, const char *suffix)
{
    size_t n = strlen(suffix);

    return len > n && memcmp(s + len - n, suffix, n) == 0;
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr(":-_.\\@", c));
}

/* Those kinds that processes are in. A slice has none of its own. */
static bool is_unit(const char *s, size_t len)
{
    static const char *const kinds[] = { ".service", ".scope", ".socket", ".mount", ".swap" };

    if (len > CGROUP_UNIT_MAX)
        return false;
    for (size_t i = 0; i < len; i++)
        if (!is_letter(s[i]))
            return false;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
        if (ends_in(s, len, kinds[i]))
            return true;
    return false;
}

/* user@1000.service: all that a user has started. */
static bool is_whole_user(const char *s, size_t len)
{
    static const char begin[] = "user@";
    size_t n = sizeof(begin) - 1;

    return len > n && memcmp(s, begin, n) == 0 && ends_in(s, len, ".service") &&
           n + strspn(s + n, "0123456789") == len - strlen(".service");
}

/* systemd puts a "_" before a name that would look like one of the kernel's files. */
static void parse_path(const char *path, size_t len, struct cgroup_unit *ret)
{
    const char *end = path + len;
    struct cgroup_unit unit = { "" };

    /* Nobody is in it any more. */
    if (len == 0 || path[0] != '/' || ends_in(path, len, " (deleted)"))
        return;
    while (path < end) {
        const char *slash = memchr(path, '/', (size_t)(end - path));
        size_t n = (size_t)((slash ? slash : end) - path);
        size_t escape = n > 0 && path[0] == '_';

        if (is_unit(path + escape, n - escape)) {
            memcpy(unit.name, path + escape, n - escape);
            unit.name[n - escape] = '\0';
        }
        if (!slash)
            break;
        path = slash + 1;
    }
    if (!is_whole_user(unit.name, strlen(unit.name)))
        *ret = unit;
}

/* Units are known by the v2 hierarchy alone. */
void cgroup_parse(const char *text, size_t len, struct cgroup_unit *ret)
{
    static const char v2[] = "0::";
    const char *end = text + len;

    ret->name[0] = '\0';
    while (text < end) {
        const char *line_end = memchr(text, '\n', (size_t)(end - text));
        size_t n = (size_t)((line_end ? line_end : end) - text);

        if (n >= sizeof(v2) - 1 && memcmp(text, v2, sizeof(v2) - 1) == 0) {
            parse_path(text + sizeof(v2) - 1, n - (sizeof(v2) - 1), ret);
            return;
        }
        if (!line_end)
            return;
        text = line_end + 1;
    }
}

/* --- whose file it is ------------------------------------------------------------------------- */

/* The clock that /proc/PID/stat counts ticks of, suspended time included. */
uint64_t cgroup_clock_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * CLOCK_S + (uint64_t)t.tv_nsec;
}

/* All of a file below the folder, with a NUL behind it. -E2BIG: it is longer. */
static int read_file(int folder, const char *name, char *ret, size_t cap, size_t *ret_len)
{
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    size_t len = 0;
    ssize_t n;

    if (fd < 0)
        return -errno;
    while ((n = read(fd, ret + len, cap - len)) > 0)
        len += (size_t)n;
    n = n < 0 ? -errno : len == cap ? -E2BIG : 0;
    (void)close(fd);
    if (n < 0)
        return (int)n;
    ret[len] = '\0';
    *ret_len = len;
    return 0;
}

/* The name before the numbers is in brackets, and may have some itself. */
static int began_by(int folder, uint64_t by_ns)
{
    char text[STAT_FILE_MAX], *at, *end;
    long hz = sysconf(_SC_CLK_TCK);
    uint64_t ticks;
    size_t len;
    int r = read_file(folder, "stat", text, sizeof(text), &len);

    if (r < 0)
        return r;
    at = strrchr(text, ')');
    for (unsigned i = 0; at && i < STAT_BEGAN; i++)
        at = strchr(at + 1, ' ');
    if (!at || hz <= 0 || at[1] < '0' || at[1] > '9')
        return -EPROTO;
    errno = 0;
    ticks = strtoull(at + 1, &end, 10);
    if (errno != 0 || *end != ' ')
        return -EPROTO;
    /* It began before it connected, or the number is another one's by now. */
    return ticks <= by_ns / (CLOCK_S / (uint64_t)hz) ? 0 : -ESRCH;
}

/* An error counts as ended: nothing is known then. */
static bool has_ended(int pidfd)
{
    struct pollfd p = { .fd = pidfd, .events = POLLIN };

    return poll(&p, 1, 0) != 0;
}

/* Of one and the same process: an open folder below /proc is never another one's. */
static int look(int folder, int pidfd, uint64_t by_ns, struct cgroup_unit *ret)
{
    char text[CGROUP_FILE_MAX];
    size_t len;
    int r = pidfd >= 0 ? 0 : began_by(folder, by_ns);

    if (r == 0)
        r = read_file(folder, "cgroup", text, sizeof(text), &len);
    if (r == 0)
        cgroup_parse(text, len, ret);
    return r;
}

int cgroup_of_process(const char *root, pid_t pid, int pidfd, uint64_t by_ns,
                      struct cgroup_unit *ret)
{
    struct cgroup_unit unit;
    char path[PATH_MAX];
    int folder, r;

    (void)snprintf(path, sizeof(path), "%s/proc/%d", root, (int)pid);
    folder = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    r = folder < 0 ? -errno : look(folder, pidfd, by_ns, &unit);
    if (folder >= 0)
        (void)close(folder);
    /* Last: while it runs nobody else has its number. */
    if (pidfd >= 0 && has_ended(pidfd))
        return -ESRCH;
    if (r == 0)
        *ret = unit;
    return r;
}

/* -ENOPROTOOPT: the kernel has none. */
static int pidfd_of_peer(int sock)
{
    socklen_t len = sizeof(int);
    int fd = -1;

    if (getsockopt(sock, SOL_SOCKET, SO_PEERPIDFD, &fd, &len) == 0)
        return fd;
    /* It has ended: kernels differ in what they call that. */
    return errno == EINVAL || errno == ENODATA ? -ESRCH : -errno;
}

int cgroup_of_peer(const char *root, int sock, pid_t pid, uint64_t by_ns, struct cgroup_unit *ret)
{
    int pidfd = pidfd_of_peer(sock), r;

    if (pidfd < 0 && pidfd != -ENOPROTOOPT)
        return pidfd;
    r = cgroup_of_process(root, pid, pidfd < 0 ? -1 : pidfd, by_ns, ret);
    if (pidfd >= 0)
        (void)close(pidfd);
    return r;
}
