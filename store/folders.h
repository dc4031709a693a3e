/* store/folders.h - where the store's files are: its folder, the version's, an owner's.
 *
 *     PATH/                     made 0700; ours, and nobody else may write to it
 *       lock                    flock: one daemon has the store
 *       v1/                     this version of the format; others beside it are left alone
 *         format                magic, version, the secret of the keyed hash, a checksum
 *         written               what was written in the last hours (store/budget.h)
 *         1000/                 an owner's, by uid, or `public`; 0700
 *           3f2a...             records, 0600, named by what they are of
 *           .new-...            a record that is being written
 *           names/              what owners called by name
 *
 * A v1 whose format file is of another version is left alone as well: v1.1, v1.2 ... are tried
 * then. Nothing follows a symbolic link, and what is not ours is not read.
 *
 * Threads    one.
 * Ownership  owns its descriptors. Borrows ops.
 * Errors     -errno, and a sentence. -EWOULDBLOCK: another daemon has the store. -EPERM: the folder
 *            is not ours alone.
 */
#ifndef STORE_FOLDERS_H
#define STORE_FOLDERS_H

#include "store/ops.h"
#include "store/sum.h"

#include <sys/queue.h>

#define FOLDERS_TEMP ".new-" /* how a name begins that is not published */

struct folder {
    SLIST_ENTRY(folder) next;
    uint32_t owner;
    int fd, names_fd;
    uint32_t n_made; /* times that something of it was made by us */
    bool fresh;      /* and its entry in v1, or one in it, is not synced yet */
    bool settling;   /* but that is under way (store/publish.h) */
};

struct folders {
    char *path;
    struct ops *ops;
    int base_fd, lock_fd, root_fd; /* root: the version's */
    char version[16];              /* its name */
    uint32_t n_made;               /* folders of the path that were not there */
    uint8_t secret[SUM_SECRET_LEN];
    SLIST_HEAD(, folder) list;
};

/* note: sentences for the log are appended. */
int folders_open(struct folders *f, const char *path, struct ops *ops, char *note, size_t note_cap,
                 struct why *why);
void folders_close(struct folders *f);
/* Makes anew what is no longer there, with the same secret. Descriptors of folders that are still
 * there stay. */
int folders_again(struct folders *f);

/* NULL: it is not there, or (make) can't be made; *ret_err says why. */
struct folder *folders_get(struct folders *f, uint32_t owner, bool make, int *ret_err);

/* Files are opened without waiting, in case that one is a pipe; reads of a file may wait (io_uring
 * would answer -EAGAIN on file systems that can't tell whether they do). */
void folders_block(int fd);

/* Appends a sentence to those for the log, on a line of its own. */
void folders_say(char *note, size_t cap, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Calls fn with each name in the folder but "." and "..". */
int folders_each(int fd, void (*fn)(void *arg, const char *name), void *arg);

/* The owner whose folder has this name. */
bool folders_owner(const char *name, uint32_t *ret);

#endif
