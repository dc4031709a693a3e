#include "base/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One that is there is no error, also where nobody could make one: on a disk that is read-only. */
static int make_one(const char *path, uint32_t *made)
{
    if (mkdir(path, 0700) == 0) {
        (*made)++;
        return 0;
    }
    return errno == EEXIST || access(path, F_OK) == 0 ? 0 : -errno;
}

int files_make_path(const char *path, uint32_t *ret_made)
{
    char *part = strdup(path);
    uint32_t made = 0;
    int r = 0;

    if (!part)
        return -ENOMEM;
    for (char *p = part; r == 0 && *p && (p = strchr(p + 1, '/'));) {
        *p = '\0';
        r = make_one(part, &made);
        *p = '/';
    }
    if (r == 0)
        r = make_one(part, &made);
    free(part);
    if (ret_made)
        *ret_made += made;
    return r;
}

void files_sync_above(const char *path, uint32_t n_made)
{
    char *part = strdup(path), *slash;

    while (n_made-- > 0 && part && (slash = strrchr(part, '/'))) {
        int fd;

        *slash = '\0';
        fd = open(slash == part ? "/" : part, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0) {
            (void)fsync(fd);
            (void)close(fd);
        }
    }
    free(part);
}

int files_read(int fd, void *to, size_t n, off_t off)
{
    for (size_t done = 0; done < n;) {
        ssize_t r = pread(fd, (char *)to + done, n - done, off + (off_t)done);

        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return r < 0 ? -errno : -EBADMSG;
        done += (size_t)r;
    }
    return 0;
}

int files_write(int fd, const void *from, size_t n, off_t off)
{
    for (size_t done = 0; done < n;) {
        ssize_t r = pwrite(fd, (const char *)from + done, n - done, off + (off_t)done);

        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -errno;
        done += (size_t)r;
    }
    return 0;
}
