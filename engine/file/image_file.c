/* engine/file/image_file.c - where images are found, and how a new one comes to its name. */
#include "engine/file/image_file.h"

#include "base/files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Of what the path leads to: two names of a file share an image. */
static int name_of(const struct gguf *g, char ret[64], struct why *why)
{
    char *path = realpath(gguf_path(g), NULL);
    struct packed_sum sum;
    size_t n = 0;

    if (!path)
        return why_set(why, -errno, "%s: %s", gguf_label(g), strerror(errno));
    sum = packed_hash(path, strlen(path));
    free(path);
    for (size_t i = 0; i < sizeof(sum.bytes); i++)
        n += (size_t)snprintf(ret + n, 64 - n, "%02x", sum.bytes[i]);
    (void)snprintf(ret + n, 64 - n, ".weights");
    return 0;
}

/* --- taking one up ---------------------------------------------------------------------------- */

/* Whoever can write to it could have us compute anything. Asked of the descriptor, so it is this
 * file, whatever the name leads to by now. Its length has to be exact: what is mapped or read
 * behind this lies in it. */
static int check_owner(const char *folder, int fd, size_t len, struct why *why)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return why_set(why, -errno, "images in %s: %s", folder, strerror(errno));
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_mode & (S_IWGRP | S_IWOTH))
        return why_set(why, -EPERM,
                       "images in %s: found one that others may write, expected a file of this "
                       "user's alone",
                       folder);
    if ((uint64_t)st.st_size != len)
        return why_set(why, -EBADMSG, "images in %s: found %lld bytes, expected %zu", folder,
                       (long long)st.st_size, len);
    return 0;
}

/* Blocks of O_DIRECT are for the arena alone; the head is read before. */
static void set_direct(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags >= 0)
        (void)fcntl(fd, F_SETFL, flags | O_DIRECT);
}

int image_file_open(const char *folder, const struct image_of *of, struct image_file *ret,
                    struct why *why)
{
    size_t head = IMAGE_HEADER + of->packed->n_sums * sizeof(struct packed_sum);
    struct image_file f = { .fd = -1, .arena_off = image_head_len(of->packed) };
    char name[64], path[PATH_MAX];
    int r = name_of(of->file, name, why);

    if (r < 0)
        return r;
    if ((size_t)snprintf(path, sizeof(path), "%s/%s", folder, name) >= sizeof(path))
        return why_set(why, -ENAMETOOLONG, "images in %s: the path is too long", folder);
    /* A link or a FIFO of that name is refused and waited for by nobody. */
    f.fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (f.fd < 0)
        return why_set(why, -errno, "%s: %s", path, strerror(errno));
    r = check_owner(folder, f.fd, image_len(of->packed), why);
    if (r == 0) {
        f.head = malloc(head);
        r = f.head ? files_read(f.fd, f.head, head, 0) : -ENOMEM;
        if (r < 0)
            (void)why_set(why, r, "%s: %s", path, strerror(-r));
    }
    if (r == 0)
        r = image_check_head(of, f.head, f.digest, why);
    if (r < 0) {
        image_file_close(&f);
        return r;
    }
    /* For streams, which read past the page cache. A mapping of the descriptor is as it would be
     * without. */
    set_direct(f.fd);
    *ret = f;
    return 0;
}

void image_file_close(struct image_file *f)
{
    if (f->fd >= 0)
        (void)close(f->fd);
    free(f->head);
    *f = (struct image_file){ .fd = -1 };
}

/* --- making one ------------------------------------------------------------------------------- */

/* 0700 where it is made (files_make_path): what users' daemons cache is their own. */
static int open_folder(const char *folder, int *ret)
{
    int r = files_make_path(folder, NULL);

    if (r < 0)
        return r;
    *ret = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *ret < 0 ? -errno : 0;
}

/* All blocks now: a write through a mapping that finds none ends the process. */
static int allocate(int fd, size_t len)
{
    int r;

    do
        r = posix_fallocate(fd, 0, (off_t)len);
    while (r == EINTR);
    return -r;
}

/* What fails here is mostly the folder or the disk: the sentence says what can be set. */
int image_new_open(const char *folder, const struct image_of *of, struct image_new *ret,
                   struct why *why)
{
    struct image_new n = { .folder = -1, .fd = -1, .len = image_len(of->packed) };
    int r = name_of(of->file, n.name, why);

    if (r < 0)
        return r;
    r = open_folder(folder, &n.folder);
    if (r == 0) {
        /* For this user alone, as check_owner wants it when it is taken up. */
        n.fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        r = n.fd < 0 ? -errno : allocate(n.fd, n.len);
    }
    if (r < 0) {
        image_new_close(&n);
        return why_set(why, r,
                       "no image of packed weights (%zu bytes) in %s: %s; weight-cache "
                       "takes another folder",
                       n.len, folder, strerror(-r));
    }
    *ret = n;
    return 0;
}

/* A file without a name can't take the place of another one: it gets a name of its own first. One
 * of that name was left by a crash between the two calls. */
static int give_name(const struct image_new *n)
{
    char from[64], temporary[96];

    (void)snprintf(from, sizeof(from), "/proc/self/fd/%d", n->fd);
    (void)snprintf(temporary, sizeof(temporary), "%s.new", n->name);
    (void)unlinkat(n->folder, temporary, 0);
    if (linkat(AT_FDCWD, from, n->folder, temporary, AT_SYMLINK_FOLLOW) < 0)
        return -errno;
    if (renameat2(n->folder, temporary, n->folder, n->name, 0) < 0) {
        int r = -errno;

        (void)unlinkat(n->folder, temporary, 0);
        return r;
    }
    return fsync(n->folder) < 0 ? -errno : 0;
}

/* The head last, and synced with all the rest before there is a name: who finds an image finds all
 * of it. */
int image_new_publish(struct image_new *n, const struct image_of *of, const char digest[DIGEST_LEN],
                      const struct packed_sum *sums, struct why *why)
{
    size_t head_len = image_head_len(of->packed);
    void *head = aligned_alloc(IMAGE_HEADER, head_len);
    int r = head ? 0 : -ENOMEM;

    if (r == 0) {
        image_describe(of, digest, sums, head);
        r = files_write(n->fd, head, head_len, 0);
    }
    free(head);
    if (r == 0 && fsync(n->fd) < 0)
        r = -errno;
    if (r == 0)
        r = give_name(n);
    return r < 0 ? why_set(why, r, "the image of %s: %s", gguf_label(of->file), strerror(-r)) : 0;
}

/* One that was not published goes with its descriptor. */
void image_new_close(struct image_new *n)
{
    if (n->fd >= 0)
        (void)close(n->fd);
    if (n->folder >= 0)
        (void)close(n->folder);
    n->fd = n->folder = -1;
}
