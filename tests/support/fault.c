#include "tests/support/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>

static _Thread_local bool armed;
static _Thread_local uint64_t fail_at;
static _Thread_local struct fault now;
static _Atomic uint64_t n_allocations, n_failed;
static _Atomic int64_t n_mapped;
static _Atomic size_t most = SIZE_MAX; /* that one pread or pwrite moves */
static _Atomic bool stands;            /* pwrite moves nothing */

void fault_arm(uint64_t n)
{
    now = (struct fault){ 0 };
    fail_at = n;
    armed = true;
}

bool fault_disarm(struct fault *ret)
{
    armed = false;
    *ret = now;
    return now.name != NULL;
}

void fault_short(size_t n)
{
    most = n ? n : SIZE_MAX;
}

void fault_still(bool still)
{
    stands = still;
}

static size_t shorter(size_t n)
{
    size_t m = most;

    return n < m ? n : m;
}

uint64_t fault_n_allocations(void)
{
    return n_allocations;
}

int64_t fault_mapped(void)
{
    return n_mapped;
}

unsigned fault_n_descriptors(void)
{
    unsigned n = 0;

    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* Whether this one fails. */
static bool fails(const char *name, int error)
{
    if (!armed || ++now.n_calls != fail_at)
        return false;
    now.name = name;
    now.error = error;
    n_failed++;
    errno = error;
    return true;
}

uint64_t fault_n_failed(void)
{
    return n_failed;
}

bool fault_here(const char *name, int error)
{
    return fails(name, error);
}

static bool fails_alloc(const char *name)
{
    atomic_fetch_add_explicit(&n_allocations, 1, memory_order_relaxed);
    return fails(name, ENOMEM);
}

/* The linker sends our calls of name to __wrap_name; __real_name is name itself. */
#define WATCH(type, failed, error, name, params, args)                                             \
    type __real_##name params;                                                                     \
    type __wrap_##name params;                                                                     \
    type __wrap_##name params                                                                      \
    {                                                                                              \
        return fails(#name, error) ? failed : __real_##name args;                                  \
    }
#define WATCH_ALLOC(type, name, params, args)                                                      \
    type __real_##name params;                                                                     \
    type __wrap_##name params;                                                                     \
    type __wrap_##name params                                                                      \
    {                                                                                              \
        return fails_alloc(#name) ? NULL : __real_##name args;                                     \
    }

/* --- memory ------------------------------------------------------------------------------------
 */

WATCH_ALLOC(void *, malloc, (size_t n), (n))
WATCH_ALLOC(void *, calloc, (size_t n, size_t size), (n, size))
WATCH_ALLOC(void *, realloc, (void *p, size_t n), (p, n))
WATCH_ALLOC(void *, reallocarray, (void *p, size_t n, size_t size), (p, n, size))
WATCH_ALLOC(void *, aligned_alloc, (size_t align, size_t n), (align, n))
WATCH_ALLOC(char *, strdup, (const char *s), (s))
WATCH_ALLOC(char *, strndup, (const char *s, size_t n), (s, n))
WATCH_ALLOC(FILE *, open_memstream, (char **p, size_t *n), (p, n))
WATCH_ALLOC(void *, XXH3_createState, (void), ())

int __wrap_asprintf(char **ret, const char *format, ...);
int __wrap_asprintf(char **ret, const char *format, ...)
{
    va_list args;
    int n;

    if (fails_alloc("asprintf"))
        return -1;
    va_start(args, format);
    n = vasprintf(ret, format, args);
    va_end(args);
    return n;
}

/* Bytes, not calls: an aligned mapping cuts its ends off. */
static int64_t whole_pages(size_t len)
{
    return (int64_t)((len + 4095) / 4096 * 4096);
}

void *__real_mmap(void *at, size_t len, int prot, int flags, int fd, off_t off);
void *__wrap_mmap(void *at, size_t len, int prot, int flags, int fd, off_t off);
void *__wrap_mmap(void *at, size_t len, int prot, int flags, int fd, off_t off)
{
    void *p = fails("mmap", ENOMEM) ? MAP_FAILED : __real_mmap(at, len, prot, flags, fd, off);

    if (p != MAP_FAILED && !(flags & MAP_FIXED)) /* that takes the place of another one */
        n_mapped += whole_pages(len);
    return p;
}

int __real_munmap(void *at, size_t len);
int __wrap_munmap(void *at, size_t len);
int __wrap_munmap(void *at, size_t len)
{
    int r = __real_munmap(at, len);

    if (r == 0)
        n_mapped -= whole_pages(len);
    return r;
}

/* --- descriptors -------------------------------------------------------------------------------
 */

static unsigned mode_of(int flags, va_list args)
{
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(args, unsigned) : 0;
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    va_list args;
    unsigned mode;

    va_start(args, flags);
    mode = mode_of(flags, args);
    va_end(args);
    return fails("open", EMFILE) ? -1 : __real_open(path, flags, mode);
}

int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...)
{
    va_list args;
    void *arg;

    va_start(args, command);
    arg = va_arg(args, void *);
    va_end(args);
    return fails("fcntl", EMFILE) ? -1 : __real_fcntl(fd, command, arg);
}

WATCH(FILE *, NULL, EMFILE, fopen, (const char *path, const char *mode), (path, mode))
WATCH(FILE *, NULL, ENOMEM, fdopen, (int fd, const char *mode), (fd, mode))
WATCH(int, -1, EMFILE, eventfd, (unsigned n, int flags), (n, flags))
WATCH(int, -1, EMFILE, epoll_create1, (int flags), (flags))
WATCH(int, -1, EMFILE, memfd_create, (const char *name, unsigned flags), (name, flags))
WATCH(int, -1, EMFILE, signalfd, (int fd, const sigset_t *set, int flags), (fd, set, flags))
WATCH(int, -1, EMFILE, socket, (int domain, int type, int protocol), (domain, type, protocol))
WATCH(int, -1, EMFILE, socketpair, (int domain, int type, int protocol, int fds[2]),
      (domain, type, protocol, fds))
WATCH(int, -1, EMFILE, accept4, (int fd, struct sockaddr *a, socklen_t *len, int flags),
      (fd, a, len, flags))

/* --- files and sockets -------------------------------------------------------------------------
 */

/* Of memory: the stream is as it was. The second is what the C library's header makes of it. */
WATCH(ssize_t, -1, ENOMEM, getline, (char **line, size_t *cap, FILE *f), (line, cap, f))
WATCH(ssize_t, -1, ENOMEM, __getdelim, (char **line, size_t *cap, int end, FILE *f),
      (line, cap, end, f))
WATCH(ssize_t, -1, EIO, read, (int fd, void *p, size_t n), (fd, p, n))
WATCH(ssize_t, -1, EIO, pread, (int fd, void *p, size_t n, off_t off), (fd, p, shorter(n), off))
WATCH(ssize_t, -1, EIO, preadv2, (int fd, const struct iovec *v, int n, off_t off, int flags),
      (fd, v, n, off, flags))
/* Only of files: a doorbell's write fails when it rings already, or nobody is there. */
ssize_t __real_write(int fd, const void *p, size_t n);
ssize_t __wrap_write(int fd, const void *p, size_t n);
ssize_t __wrap_write(int fd, const void *p, size_t n)
{
    struct stat st;
    bool is_file = (armed || stands) && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);

    if (is_file && stands)
        return 0;
    return is_file && fails("write", ENOSPC) ? -1 : __real_write(fd, p, n);
}

WATCH(ssize_t, -1, ENOSPC, pwrite, (int fd, const void *p, size_t n, off_t off),
      (fd, p, stands ? 0 : shorter(n), off))
/* A stream remembers it. */
size_t __real_fwrite(const void *p, size_t size, size_t n, FILE *f);
size_t __wrap_fwrite(const void *p, size_t size, size_t n, FILE *f);
size_t __wrap_fwrite(const void *p, size_t size, size_t n, FILE *f)
{
    if (!fails("fwrite", ENOSPC))
        return __real_fwrite(p, size, n, f);
    f->_flags |= 0x20; /* _IO_ERR_SEEN of the C library: there is no call that sets it */
    return 0;
}

/* What is buffered is lost. */
int __real_fflush(FILE *f);
int __wrap_fflush(FILE *f);
int __wrap_fflush(FILE *f)
{
    if (!fails("fflush", ENOSPC))
        return __real_fflush(f);
    __fpurge(f);
    f->_flags |= 0x20;
    return EOF;
}

WATCH(int, -1, EIO, fsync, (int fd), (fd))
WATCH(int, -1, ENOSPC, ftruncate, (int fd, off_t len), (fd, len))
WATCH(int, -1, EIO, fstat, (int fd, struct stat *st), (fd, st))
WATCH(int, -1, EIO, rename, (const char *from, const char *to), (from, to))
WATCH(int, -1, EIO, renameat2,
      (int from_fd, const char *from, int to_fd, const char *to, unsigned flags),
      (from_fd, from, to_fd, to, flags))
WATCH(int, -1, ENOSPC, epoll_ctl, (int fd, int op, int on, struct epoll_event *e), (fd, op, on, e))
WATCH(int, -1, ENOBUFS, bind, (int fd, const struct sockaddr *a, socklen_t len), (fd, a, len))
WATCH(int, -1, ENOBUFS, listen, (int fd, int n), (fd, n))
WATCH(int, -1, ENOMEM, connect, (int fd, const struct sockaddr *a, socklen_t len), (fd, a, len))
WATCH(ssize_t, -1, ENOBUFS, sendmsg, (int fd, const struct msghdr *m, int flags), (fd, m, flags))
WATCH(ssize_t, -1, ENOBUFS, send, (int fd, const void *p, size_t n, int flags), (fd, p, n, flags))
WATCH(ssize_t, -1, ENOMEM, recvmsg, (int fd, struct msghdr *m, int flags), (fd, m, flags))
WATCH(ssize_t, -1, ENOMEM, recv, (int fd, void *p, size_t n, int flags), (fd, p, n, flags))
WATCH(int, EAGAIN, EAGAIN, pthread_create,
      (pthread_t * t, const pthread_attr_t *a, void *(*fn)(void *), void *arg), (t, a, fn, arg))

/* It is closed, and what was buffered is lost. */
int __real_fclose(FILE *f);
int __wrap_fclose(FILE *f);
int __wrap_fclose(FILE *f)
{
    bool failed = fails("fclose", ENOSPC);
    int r;

    if (failed)
        __fpurge(f);
    r = __real_fclose(f);
    if (!failed)
        return r;
    errno = ENOSPC;
    return EOF;
}
