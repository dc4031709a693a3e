/* Folders are opened once and kept: files are reached by a descriptor and a name, so nobody can
 * lead us elsewhere by putting a link in the path. Whether a folder is ours is asked of its
 * descriptor (fstat), never of its path. */
#include "store/folders.h"

#include "base/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define VERSION     1u
#define BESIDE_MAX  9u /* v1.1 to v1.9 */
#define OPEN_FOLDER (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

/* The layout is drawn in docs/store.md. */
struct format {
    char magic[8];
    uint32_t version, len;
    uint8_t secret[SUM_SECRET_LEN];
    struct store_hash sum; /* of all in front of it */
};
_Static_assert(offsetof(struct format, version) == 8, "layout");
_Static_assert(offsetof(struct format, len) == 12, "layout");
_Static_assert(offsetof(struct format, secret) == 16, "layout");
_Static_assert(offsetof(struct format, sum) == 208, "layout");
_Static_assert(sizeof(struct format) == 224, "layout");

static const char magic[8] = { 'g', 'i', 's', 't', 'd', '-', 's', 't' };

/* --- small things ----------------------------------------------------------------------------- */

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

/* *fd becomes fd_new and keeps its number: what is under way with it meets the old folder or the
 * new one, never a file that took over the number. Takes fd_new in any case. */
static int put_fd(int *fd, int fd_new)
{
    int err = 0;

    if (*fd < 0) {
        *fd = fd_new;
        return 0;
    }
    if (dup3(fd_new, *fd, O_CLOEXEC) < 0)
        err = -errno;
    (void)close(fd_new);
    return err;
}

/* What does not fit any more is cut off: a note is for people. */
void folders_say(char *note, size_t cap, const char *fmt, ...)
{
    size_t at = strlen(note);
    va_list ap;

    if (at > 0 && at + 2 < cap) {
        note[at++] = '\n';
        note[at] = '\0';
    }
    va_start(ap, fmt);
    (void)vsnprintf(note + at, cap - at, fmt, ap);
    va_end(ap);
}

void folders_block(int fd)
{
    (void)fcntl(fd, F_SETFL, 0); /* takes O_NONBLOCK away */
}

/* The folder is opened anew, since fdopendir takes its descriptor over and reading moves its
 * position. readdir tells an error from the end only by errno. */
int folders_each(int fd, void (*fn)(void *arg, const char *name), void *arg)
{
    int again = openat(fd, ".", OPEN_FOLDER), err;
    DIR *dir = again < 0 ? NULL : fdopendir(again);
    struct dirent *d;

    if (!dir) {
        err = -errno;
        close_fd(&again);
        return err;
    }
    while ((errno = 0, d = readdir(dir))) {
        if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0)
            fn(arg, d->d_name);
    }
    err = -errno;
    (void)closedir(dir);
    return err;
}

/* A folder that others may write to, or that is another's, could be filled with anything. */
static int check_ours(int fd, const char *path, struct why *why)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return why_set(why, -errno, "%s: %s", path, strerror(errno));
    if (st.st_uid != geteuid())
        return why_set(why, -EPERM,
                       "%s belongs to user %" PRIuMAX ", not to the one that runs this (%" PRIuMAX
                       "); give the store a folder of its own",
                       path, (uintmax_t)st.st_uid, (uintmax_t)geteuid());
    if (st.st_mode & (S_IWGRP | S_IWOTH))
        return why_set(why, -EPERM,
                       "%s may be written by others (mode %04o); take that away: chmod go-w %s",
                       path, st.st_mode & 07777u, path);
    return 0;
}

/* --- the format file -------------------------------------------------------------------------- */

/* OTHER: sound, but of another version. DAMAGED: it is there, and is not as it was written. FAILED:
 * what it holds is not known. */
enum found { FOUND_OURS, FOUND_NONE, FOUND_OTHER, FOUND_DAMAGED, FOUND_FAILED };

/* A link (O_NOFOLLOW), a socket or a pipe is DAMAGED too, and is replaced by the rename of a new
 * file. A call that fails is not: a new secret takes all records with it, which one bad moment of
 * the disk must not. FAILED leaves errno. */
static enum found read_format(int root_fd, uint8_t ret_secret[SUM_SECRET_LEN], uint32_t *ret_vers)
{
    int fd = openat(root_fd, "format", O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK), err;
    struct format h;
    ssize_t n;

    if (fd < 0 && errno == ENOENT)
        return FOUND_NONE;
    if (fd < 0)
        return errno == ELOOP || errno == ENXIO ? FOUND_DAMAGED : FOUND_FAILED;
    n = pread(fd, &h, sizeof(h), 0);
    err = errno;
    (void)close(fd);
    errno = err;
    if (n < 0 && err != ESPIPE)
        return FOUND_FAILED;
    if (n != sizeof(h) || memcmp(h.magic, magic, sizeof(magic)) != 0 || h.len != sizeof(h) ||
        !sum_equal(h.sum, sum_bytes(&h, offsetof(struct format, sum))))
        return FOUND_DAMAGED;
    *ret_vers = h.version;
    if (h.version != VERSION)
        return FOUND_OTHER;
    memcpy(ret_secret, h.secret, SUM_SECRET_LEN);
    return FOUND_OURS;
}

/* Under another name, synced, renamed: a cut leaves the old one, the new one or none. The folders
 * above are synced too: v1 itself may be new. By operations and not by calls of our own, so that
 * tests with a faulty io meet these as well. */
static int write_format(struct folders *f)
{
    struct format h = { .version = VERSION, .len = sizeof(h) };
    struct io_op op = { .code = IO_OPEN,
                        .fd = f->root_fd,
                        .path = FOLDERS_TEMP "format",
                        .flags = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
                        .mode = 0600 };
    int64_t r = ops_run(f->ops, &op);
    int fd = (int)r;

    if (r < 0)
        return (int)r;
    memcpy(h.magic, magic, sizeof(h.magic));
    memcpy(h.secret, f->secret, sizeof(h.secret));
    h.sum = sum_bytes(&h, offsetof(struct format, sum));
    op = (struct io_op){ .code = IO_WRITE, .fd = fd, .mem = &h, .len = sizeof(h) };
    r = ops_run(f->ops, &op);
    op = (struct io_op){ .code = IO_SYNC, .fd = fd };
    if (r >= 0)
        r = ops_run(f->ops, &op);
    (void)close(fd);
    op = (struct io_op){
        .code = IO_RENAME, .fd = f->root_fd, .path = FOLDERS_TEMP "format", .to = "format"
    };
    if (r >= 0)
        r = ops_run(f->ops, &op);
    op = (struct io_op){ .code = IO_SYNC, .fd = f->root_fd };
    if (r >= 0)
        r = ops_run(f->ops, &op);
    op.fd = f->base_fd;
    if (r >= 0)
        r = ops_run(f->ops, &op);
    return r < 0 ? (int)r : 0;
}

static int make_secret(uint8_t secret[SUM_SECRET_LEN])
{
    /* At most 256 bytes come whole once the kernel has its entropy. */
    return getrandom(secret, SUM_SECRET_LEN, 0) == SUM_SECRET_LEN ? 0 : -EIO;
}

/* Makes the version's folder where it is not there. Also used when it vanished: put_fd keeps the
 * number. */
static int open_root(struct folders *f, struct why *why)
{
    const char *name = f->version;
    int fd, err;

    if (mkdirat(f->base_fd, name, 0700) < 0 && errno != EEXIST)
        return why_set(why, -errno, "%s/%s can't be made: %s", f->path, name, strerror(errno));
    fd = openat(f->base_fd, name, OPEN_FOLDER);
    err = fd < 0 ? -errno : put_fd(&f->root_fd, fd);
    if (err < 0)
        return why_set(why, err, "%s/%s: %s", f->path, name, strerror(-err));
    return check_ours(f->root_fd, name, why);
}

/* The first folder of v1, v1.1, ... whose format is ours or not yet any. At most BESIDE_MAX others
 * are tried. A damaged format makes a new secret, under which no record's name fits: the scan
 * deletes all of them. */
static int choose_root(struct folders *f, char *note, size_t cap, struct why *why)
{
    for (uint32_t i = 0; i <= BESIDE_MAX; i++) {
        enum found found;
        uint32_t version = 0;
        const char *name = f->version;
        int err;

        (void)snprintf(f->version, sizeof(f->version), i == 0 ? "v1" : "v1.%" PRIu32, i);
        err = open_root(f, why);
        if (err < 0)
            return err;
        found = read_format(f->root_fd, f->secret, &version);
        if (found == FOUND_OURS)
            return 0;
        if (found == FOUND_FAILED)
            return why_set(why, -errno, "%s/%s/format can't be read: %s", f->path, name,
                           strerror(errno));
        if (found == FOUND_OTHER) {
            folders_say(
                note, cap,
                "%s/%s has the format of version %" PRIu32
                ", this gistd writes %u: it is left alone, and the store starts empty beside it",
                f->path, name, version, VERSION);
            continue;
        }
        if (found == FOUND_DAMAGED)
            folders_say(note, cap,
                        "%s/%s/format is damaged: the store starts empty, names are still there",
                        f->path, name);
        err = make_secret(f->secret);
        if (err == 0)
            err = write_format(f);
        if (err == 0)
            files_sync_above(f->path, f->n_made);
        return err < 0 ? why_set(why, err, "%s/%s/format can't be written: %s", f->path, name,
                                 strerror(-err))
                       : 0;
    }
    return why_set(why, -EEXIST, "%s has only folders of other versions", f->path);
}

/* --- open and close --------------------------------------------------------------------------- */

static int open_base(struct folders *f, struct why *why)
{
    int err = files_make_path(f->path, &f->n_made), fd;

    if (err < 0)
        return why_set(why, err, "%s can't be made: %s", f->path, strerror(-err));
    fd = open(f->path, OPEN_FOLDER);
    if (fd < 0 && (errno == ELOOP || errno == ENOTDIR))
        return why_set(why, -errno,
                       "%s is no folder (and a symbolic link is not followed); name the folder "
                       "itself",
                       f->path);
    err = fd < 0 ? -errno : put_fd(&f->base_fd, fd);
    if (err < 0)
        return why_set(why, err, "%s: %s", f->path, strerror(-err));
    return check_ours(f->base_fd, f->path, why);
}

/* Who can't write to the lock can't write to the store either, and may read it beside another. The
 * lock goes with the descriptor, also when the process is killed. */
static int take_lock(struct folders *f, struct why *why)
{
    close_fd(&f->lock_fd);
    f->lock_fd = openat(f->base_fd, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (f->lock_fd < 0 && errno == EROFS)
        return 0;
    if (f->lock_fd < 0)
        return why_set(why, -errno, "%s/lock: %s", f->path, strerror(errno));
    if (flock(f->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno == EWOULDBLOCK)
        return why_set(why, -EWOULDBLOCK,
                       "%s is in use by another daemon; give this one a folder of its own",
                       f->path);
    return why_set(why, -errno, "%s/lock: %s", f->path, strerror(errno));
}

struct versions {
    char *note;
    size_t cap;
    const char *path;
};

/* Only names like v2: those of choose_root (v1.1) are told there. */
static void note_version(void *arg, const char *name)
{
    const struct versions *v = arg;
    size_t digits = name[0] == 'v' ? strspn(name + 1, "0123456789") : 0;

    if (digits > 0 && name[1 + digits] == '\0' && strcmp(name, "v1") != 0)
        folders_say(
            v->note, v->cap,
            "%s/%.20s is of another version of gistd: it is left alone and takes room beside this "
            "store's",
            v->path, name);
}

int folders_open(struct folders *f, const char *path, struct ops *ops, char *note, size_t note_cap,
                 struct why *why)
{
    struct versions v = { note, note_cap, path };
    int err;

    *f = (struct folders){ .ops = ops, .base_fd = -1, .lock_fd = -1, .root_fd = -1 };
    SLIST_INIT(&f->list);
    f->path = strdup(path);
    err = f->path ? open_base(f, why) : why_set(why, -ENOMEM, "no memory");
    if (err == 0)
        err = take_lock(f, why);
    if (err == 0)
        (void)folders_each(f->base_fd, note_version, &v);
    if (err == 0)
        err = choose_root(f, note, note_cap, why);
    if (err < 0)
        folders_close(f);
    return err;
}

void folders_close(struct folders *f)
{
    struct folder *d;

    while ((d = SLIST_FIRST(&f->list))) {
        SLIST_REMOVE_HEAD(&f->list, next);
        close_fd(&d->fd);
        close_fd(&d->names_fd);
        free(d);
    }
    close_fd(&f->root_fd);
    close_fd(&f->lock_fd);
    close_fd(&f->base_fd);
    free(f->path);
    f->path = NULL;
}

/* --- owners ----------------------------------------------------------------------------------- */

/* 16 bytes: ten digits of a uid at most, or "public". */
static void owner_text(uint32_t owner, char ret[16])
{
    if (owner == STORE_PUBLIC)
        (void)strcpy(ret, "public");
    else
        (void)snprintf(ret, 16, "%" PRIu32, owner);
}

/* The other way round, for names that stand in the store's folder: only what owner_text writes is
 * an owner's. */
bool folders_owner(const char *name, uint32_t *ret)
{
    char text[16];
    uint64_t n;

    if (strcmp(name, "public") == 0) {
        *ret = STORE_PUBLIC;
        return true;
    }
    if (name[0] == '\0' || strlen(name) > 10 || name[strspn(name, "0123456789")] != '\0')
        return false;
    n = strtoull(name, NULL, 10);
    if (n >= STORE_PUBLIC)
        return false;
    owner_text((uint32_t)n, text);
    *ret = (uint32_t)n;
    return strcmp(text, name) == 0; /* no leading zeros: one folder an owner */
}

/* Opens a folder of ours in `at`. Checked after it is opened: what was looked at is what is used.
 */
static int open_inner(int at, const char *name, bool make, bool *ret_made)
{
    struct stat st;
    int fd, err;

    *ret_made = make && mkdirat(at, name, 0700) == 0;
    if (make && !*ret_made && errno != EEXIST)
        return -errno;
    fd = openat(at, name, OPEN_FOLDER);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) == 0 && st.st_uid == geteuid() && !(st.st_mode & (S_IWGRP | S_IWOTH)))
        return fd;
    err = -EPERM;
    (void)close(fd);
    return err;
}

/* names/ is made with its owner's folder, so that a name needs no more than its own file. Where it
 * is not to be made, an owner's folder without names/ will do: names_fd stays -1. */
static int open_owner(struct folders *f, struct folder *d, bool make)
{
    bool made, made_names = false;
    char text[16];
    int fd, err;

    owner_text(d->owner, text);
    fd = open_inner(f->root_fd, text, make, &made);
    err = fd < 0 ? fd : put_fd(&d->fd, fd);
    if (err < 0)
        return err;
    fd = open_inner(d->fd, "names", make, &made_names);
    if (fd >= 0)
        err = put_fd(&d->names_fd, fd);
    else if (make)
        err = fd;
    d->n_made += made || made_names;
    d->fresh = d->fresh || made || made_names;
    return err;
}

/* An entry is kept for good once its folder could be opened; operations that are out have its
 * descriptors. `make` asks for names/ as well, so an entry without it is opened once more. */
struct folder *folders_get(struct folders *f, uint32_t owner, bool make, int *ret_err)
{
    struct folder *d;

    SLIST_FOREACH(d, &f->list, next)
    {
        if (d->owner == owner && (d->names_fd >= 0 || !make))
            return d;
        if (d->owner == owner)
            break;
    }
    if (!d) {
        d = malloc(sizeof(*d));
        if (!d) {
            *ret_err = -ENOMEM;
            return NULL;
        }
        *d = (struct folder){ .owner = owner, .fd = -1, .names_fd = -1 };
        SLIST_INSERT_HEAD(&f->list, d, next);
    }
    *ret_err = open_owner(f, d, make);
    if (*ret_err == 0)
        return d;
    if (d->fd >= 0) /* it stays for what is under way in it */
        return NULL;
    SLIST_REMOVE(&f->list, d, folder, next);
    free(d);
    return NULL;
}

/* --- what vanished ---------------------------------------------------------------------------- */

/* The descriptor goes on to work when its folder was deleted or moved. Whether the path still leads
 * to it is said by its inode. */
static bool still_there(int at, const char *name, int fd)
{
    struct stat a, b;

    return fstatat(at, name, &a, AT_SYMLINK_NOFOLLOW) == 0 && fstat(fd, &b) == 0 &&
           a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

/* From the outside in: each is looked for in the one that was just found or made. The first that
 * fails ends it, and the store goes on trying with the next write that fails. */
int folders_again(struct folders *f)
{
    struct folder *d, *next;
    int err = 0;

    if (!still_there(AT_FDCWD, f->path, f->base_fd)) {
        err = open_base(f, NULL);
        if (err == 0)
            err = take_lock(f, NULL);
    }
    if (err == 0 && !still_there(f->base_fd, f->version, f->root_fd)) {
        err = open_root(f, NULL);
        if (err == 0)
            err = write_format(f);
    }
    for (d = SLIST_FIRST(&f->list); d && err == 0; d = next) {
        char text[16];

        next = SLIST_NEXT(d, next);
        owner_text(d->owner, text);
        if (still_there(f->root_fd, text, d->fd) &&
            (d->names_fd < 0 || still_there(d->fd, "names", d->names_fd)))
            continue;
        err = open_owner(f, d, true);
    }
    return err;
}
