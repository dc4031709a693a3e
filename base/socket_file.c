/* base/socket_file.c - see socket_file.h. A file of a dead server refuses connections and is
 * replaced; one that anybody answers at is left alone. */

#include "base/socket_file.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int open_socket(int type, struct why *why)
{
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    return fd < 0 ? why_set(why, -errno, "socket: %s", strerror(errno)) : fd;
}

/* Its length was checked by whoever reads options; a file in the abstract namespace it can't be. */
static struct sockaddr_un address(const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };

    memcpy(a.sun_path, path, strlen(path));
    return a;
}

/* 0: it can't be said. */
static pid_t peer(int fd)
{
    struct ucred who;
    socklen_t len = sizeof(who);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0 ? 0 : who.pid;
}

/* 0: nobody answers. */
static int try_connect(const char *path, int type, pid_t *ret_pid, struct why *why)
{
    struct sockaddr_un a = address(path);
    int fd = open_socket(type, why), r = 0, err;

    if (fd < 0)
        return fd;
    err = connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ? errno : 0;
    if (err == 0 || err == EAGAIN) { /* EAGAIN: its queue is full */
        r = -EADDRINUSE;
        if (err == 0)
            *ret_pid = peer(fd);
    } else if (err != ECONNREFUSED && err != ENOENT) {
        r = why_set(why, -err, "%s is a socket that can't be replaced: %s", path, strerror(err));
    }
    (void)close(fd);
    return r;
}

int socket_file_clear(const char *path, int type, const char *option, pid_t *ret_pid,
                      struct why *why)
{
    struct stat st;
    int r;

    *ret_pid = 0;
    /* A symbolic link is no socket: what it points to is somebody's. */
    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : why_set(why, -errno, "%s: %s", path, strerror(errno));
    if (!S_ISSOCK(st.st_mode))
        return why_set(why, -EEXIST,
                       "%s exists and is not a socket: it is left alone; choose another path with "
                       "--%s",
                       path, option);
    r = try_connect(path, type, ret_pid, why);
    /* Another server that starts just now may have removed it, too; bind tells which of the two has
     * the place. */
    if (r == 0 && unlink(path) < 0 && errno != ENOENT)
        r = why_set(why, -errno, "%s: %s", path, strerror(errno));
    return r;
}

int socket_file_bind(const char *path, int type, struct why *why)
{
    struct sockaddr_un a = address(path);
    int fd = open_socket(type, why), r;
    mode_t mask;

    if (fd < 0)
        return fd;
    mask = umask(0777); /* nobody may connect before the mode is right */
    r = bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ? -errno : 0;
    (void)umask(mask);
    if (r == 0)
        return fd;
    (void)close(fd);
    return why_set(why, r, "%s: %s", path, strerror(-r));
}

int socket_file_connect(const char *path, int type)
{
    struct sockaddr_un a;
    int fd, r;

    if (strlen(path) >= sizeof(a.sun_path))
        return -ENAMETOOLONG;
    a = address(path);
    fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&a, sizeof(a)) == 0)
        return fd;
    r = -errno;
    (void)close(fd);
    return r;
}
