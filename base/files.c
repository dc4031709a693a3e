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

/* From the top down. How many were made tells files_sync_above how far up the disk has to hear of
 * it. */
int files_make_path(const char *path, uint32_t *ret_made)
{
    char *part = strdup(path);
    uint32_t made = 0;
    int r = 0;

    if (!part)
        return -ENOMEM;
    /* From the second character on: the root of an absolute path is there. */
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

/* A folder's name is an entry of the folder above it, which is what has to reach the disk. Best
 * effort: who relies on a file syncs that itself. */
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

/* No memory sets no flag of the stream, so ferror does not know of it. */
int files_lines_end(FILE *f)
{
    if (feof(f))
        return 0;
    return errno ? -errno : -EIO;
}

/* All of it or an error: a file that is shorter than it says is a damaged one (-EBADMSG). */
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
        /* Nothing and no error: it would be asked for ever. */
        if (r <= 0)
            return r < 0 ? -errno : -EIO;
        done += (size_t)r;
    }
    return 0;
}

int files_sync_entry(const char *path, struct why *why)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    int fd, r;

    if (!folder)
        return why_set(why, -ENOMEM, "%s: no memory", path);
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    r = fd < 0 || fsync(fd) < 0 ? -errno : 0;
    if (fd >= 0)
        (void)close(fd);
    free(folder);
    /* A file system that syncs no folders, and a folder that may be written but not read: nothing
     * can be done about either, and a file that is whole there is all that there will be. */
    if (r == 0 || r == -EINVAL || r == -EACCES)
        return 0;
    return why_set(why, r,
                   "%s: it is whole, but its folder cannot be synced, so a power cut may "
                   "take it back: %s",
                   path, strerror(-r));
}
