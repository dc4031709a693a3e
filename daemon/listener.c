#include "daemon/listener.h"

#include "base/socket_file.h"
#include "daemon/notify.h"
#include "ipc/handshake.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* The folder of the default path is ours to make: it is one of the user's or the system's run-time
 * folder, which is gone after a restart of the machine. */
static int make_folder(const char *path, struct why *why)
{
    char dir[CONFIG_SOCKET_MAX + 1];
    char *slash;

    (void)snprintf(dir, sizeof(dir), "%s", path);
    slash = strrchr(dir, '/');
    if (!slash || slash == dir)
        return 0;
    *slash = '\0';
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return why_set(why, -errno,
                       "the socket's folder %s can't be made: %s; choose a path with "
                       "--socket",
                       dir, strerror(errno));
    return 0;
}

/* pid 0: nobody says which. */
static int refuse_second(struct why *why, const char *path, long pid)
{
    char who[48] = "";

    if (pid > 0)
        (void)snprintf(who, sizeof(who), " (pid %ld)", pid);
    return why_set(why, -EADDRINUSE,
                   "another daemon%s is serving %s; stop it, or choose another path with --socket",
                   who, path);
}

/* The lock is the kernel's, and goes with the process however that ends; what the file says is only
 * for the sentence above. O_NOFOLLOW: in a folder that others may write to a link would have us
 * write elsewhere. */
static int take_lock(struct listener *l, struct why *why)
{
    char path[CONFIG_SOCKET_MAX + 8], pid[24];
    ssize_t n;

    (void)snprintf(path, sizeof(path), "%s.lock", l->path);
    l->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (l->lock < 0)
        return why_set(why, -errno, "%s: %s", path, strerror(errno));
    if (flock(l->lock, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK)
            return why_set(why, -errno, "%s: %s", path, strerror(errno));
        /* Who has it wrote its number there; an empty file is one that is being written just
         * now. */
        n = pread(l->lock, pid, sizeof(pid) - 1, 0);
        pid[n > 0 ? n : 0] = '\0';
        return refuse_second(why, l->path, strtol(pid, NULL, 10));
    }
    n = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
    errno = 0; /* a short write has none */
    if (ftruncate(l->lock, 0) < 0 || pwrite(l->lock, pid, (size_t)n, 0) != n)
        return why_set(why, errno ? -errno : -EIO, "%s: can't be written: %s", path,
                       strerror(errno ? errno : EIO));
    return 0;
}

/* chmod stands between bind and listen: nobody can connect before the mode is right. */
static int make_socket(struct listener *l, const struct config *c, struct why *why)
{
    pid_t pid;
    int r = socket_file_clear(l->path, SOCK_SEQPACKET, "socket", &pid, why);

    /* Although the lock was free: a daemon whose socket was handed over. */
    if (r == -EADDRINUSE)
        return refuse_second(why, l->path, pid);
    if (r < 0)
        return r;
    l->fd = socket_file_bind(l->path, SOCK_SEQPACKET, why);
    if (l->fd < 0)
        return l->fd;
    l->made = true;
    if (chmod(l->path, c->socket_mode) < 0 || listen(l->fd, SOCKET_BACKLOG) < 0)
        return why_set(why, -errno, "%s: %s", l->path, strerror(errno));
    return 0;
}

/* -ENOENT: there is none. The path is for people, and may be unknown: a socket without a name, or
 * an abstract one. */
static int take_over(struct listener *l, struct why *why)
{
    struct sockaddr_un a;
    socklen_t len = sizeof(a);
    int fd = notify_take_socket();

    if (fd == -EINVAL)
        return why_set(why, fd,
                       "the service manager handed over something else than one listening "
                       "Unix SEQPACKET socket (ListenSequentialPacket=)");
    if (fd < 0)
        return fd == -ENOENT
                   ? fd
                   : why_set(why, fd, "the socket from the service manager: %s", strerror(-fd));
    l->fd = fd;
    if (getsockname(fd, (struct sockaddr *)&a, &len) == 0 &&
        len > offsetof(struct sockaddr_un, sun_path))
        (void)snprintf(l->path, sizeof(l->path), "%.*s",
                       (int)(len - offsetof(struct sockaddr_un, sun_path)), a.sun_path);
    return 0;
}

/* Only the default path's folder is made (make_folder says why). */
static int make_own(struct listener *l, const struct config *c, struct why *why)
{
    int r = handshake_path(c->socket[0] ? c->socket : NULL, false, l->path, sizeof(l->path));

    if (r < 0)
        return why_set(why, r, "option socket: the path has more than %d bytes", CONFIG_SOCKET_MAX);
    if (!c->socket[0])
        r = make_folder(l->path, why);
    if (r == 0)
        r = take_lock(l, why);
    return r < 0 ? r : make_socket(l, c, why);
}

/* Of a socket whose file can't be found anybody may have the other end. Any right of group or
 * others counts, though connecting takes the right to write. */
static bool lets_others_in(const struct listener *l)
{
    struct stat st;

    return !l->path[0] || lstat(l->path, &st) < 0 || (st.st_mode & (S_IRWXG | S_IRWXO)) != 0;
}

/* A socket that was handed over needs no lock: its manager starts one daemon for it. */
int listener_open(struct listener *l, const struct config *c, struct why *why)
{
    int r;

    *l = (struct listener){ .fd = -1, .lock = -1 };
    r = take_over(l, why);
    if (r == -ENOENT)
        r = make_own(l, c, why);
    if (r < 0)
        listener_close(l);
    else
        l->shared = lets_others_in(l);
    return r;
}

void listener_close(struct listener *l)
{
    /* Removed while the lock is held: no other daemon can have made it anew. */
    if (l->made)
        (void)unlink(l->path);
    if (l->fd >= 0)
        (void)close(l->fd);
    if (l->lock >= 0)
        (void)close(l->lock);
    *l = (struct listener){ .fd = -1, .lock = -1 };
}
