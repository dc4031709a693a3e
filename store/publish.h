/* store/publish.h - a file that is there whole or not at all, for who writes one.
 *
 *     begin ----> (the file's own writes) ----> chain ----> renamed: it is published
 *       folder,      allocate, pages             header, sync, rename, folder's sync
 *       temporary
 *       file          anything that failed ----> clean ----> again, or given up
 *
 * A file in a folder whose own entry is not on the disk is not there after a power cut: where the
 * folder is new it is synced first, and so is the folder that it is in, by the first who writes
 * there while all write their files. The rename comes behind the sync of what it names, and the
 * folder's sync behind the rename: the chain breaks at the first that fails.
 *
 * Threads    one.
 * Ownership  part of its job, which queues its own operations by publish_queue, too, and gives each
 *            result to publish_done. Owns fd.
 * Errors     in err, the first one: what was linked behind a failure says ECANCELED.
 */
#ifndef STORE_PUBLISH_H
#define STORE_PUBLISH_H

#include "store/inside.h"

/* What a completion was of. The job's own count on from PUBLISH__N. */
enum publish_op {
    PUBLISH_FOLDER,
    PUBLISH_OPEN,
    PUBLISH_HEADER,
    PUBLISH_SYNC,
    PUBLISH_RENAME,
    PUBLISH_ENTRY, /* the folder's sync behind the rename */
    PUBLISH_UNLINK,
    PUBLISH__N
};

struct publish {
    struct job *job;
    ops_fn *on_done;
    struct folder *folder;
    int dir; /* the folder that it is in: the owner's, or names/ there */
    int fd;  /* of the temporary file; -1: none */
    char temp[STORE_TEMP_MAX];
    size_t header_len;
    int err;
    bool made, renamed, again;
    uint32_t settles, n_made; /* syncs of a new folder that are out, and what they are of */
    bool settle_failed;
    bool left; /* its file could not be removed: the next start finds it */
};

struct publish publish_of(struct job *job, ops_fn *on_done);

void publish_queue(struct publish *p, struct io_op op, uint32_t what);
/* A failure is not an error yet where the job knows better: result 0. */
void publish_done(struct publish *p, uint32_t what, int64_t result);

/* The owner's folder, or with `names` the one of names in it, and a temporary file there, opened
 * with flags beside its own. False: no room to write now, or err. */
bool publish_begin(struct publish *p, uint32_t owner, bool names, int flags);
/* The header, which is written at the start of the file and stays the caller's; and all that makes
 * it be there under the name `to`. False: no room to write now, or the folder is not settled. */
bool publish_chain(struct publish *p, const void *header, size_t len, const char *to);

/* After a failure. True: the file is being removed, go on when that came back. to: where it may
 * have gone by now; NULL: whole as it is there, it may stay. */
bool publish_clean(struct publish *p, const char *to);
/* What was missing is there now: all may be tried from the start, once. */
bool publish_again(struct publish *p);
void publish_close(struct publish *p);

#endif
