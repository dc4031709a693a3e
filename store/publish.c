/* The order on the medium is what this file is for:
 *
 *     sync of the new folder, and of the folder it is in   (publish_begin or publish_chain, once a
 * folder) header > fdatasync > rename > sync of the folder     (publish_chain, linked)
 *
 * The file's other bytes were written before publish_chain is called, so its fdatasync covers them
 * as well. */
#include "store/publish.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* O_EXCL: a temporary file that is there already is one that another start left, and not ours to
 * write to. */
#define FLAGS (O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC)

struct publish publish_of(struct job *job, ops_fn *on_done)
{
    return (struct publish){ .job = job, .on_done = on_done, .dir = -1, .fd = -1 };
}

/* n_out of the job is what keeps it from its next step, and from being freed: each queued operation
 * counts, and each publish_done takes one off. */
void publish_queue(struct publish *p, struct io_op op, uint32_t what)
{
    p->job->n_out++;
    ops_queue(&p->job->s->ops, &op, p->on_done, p->job, what);
}

/* ECANCELED is what stands behind the failure in a chain; the failure itself may come later in the
 * order of completions and replaces it. A temporary file that can't be removed is no error of the
 * job's: the file keeps its bytes. */
static void failed(struct publish *p, uint32_t what, int err)
{
    if (what == PUBLISH_UNLINK)
        p->left |= err != -ENOENT;
    else if (p->err == 0 || p->err == -ECANCELED)
        p->err = err;
}

/* A new folder's own entry, and what is in it: by one for all who write there. n_made is remembered
 * because the folder may vanish and be made anew while these are out: then they have synced the one
 * that is gone. */
static void settle(struct publish *p)
{
    struct store *s = p->job->s;
    struct folder *d = p->folder;

    p->settles = 2;
    p->settle_failed = false;
    p->n_made = d->n_made;
    d->settling = true;
    publish_queue(p, (struct io_op){ .code = IO_SYNC, .fd = d->fd }, PUBLISH_FOLDER);
    publish_queue(p, (struct io_op){ .code = IO_SYNC, .fd = s->folders.root_fd }, PUBLISH_FOLDER);
}

/* A failure leaves the folder fresh, and whoever comes to publish_chain next tries again. */
static void settled(struct publish *p, bool well)
{
    p->settle_failed |= !well;
    if (--p->settles > 0)
        return;
    p->folder->settling = false;
    if (!p->settle_failed && p->n_made == p->folder->n_made)
        p->folder->fresh = false;
}

/* The result of an operation that the job itself queued comes through here too: `what` from
 * PUBLISH__N on falls through to the failure check alone. */
void publish_done(struct publish *p, uint32_t what, int64_t result)
{
    p->job->n_out--;
    if (what == PUBLISH_FOLDER)
        settled(p, result >= 0);
    if (what == PUBLISH_HEADER && result >= 0 && (size_t)result < p->header_len)
        result = -EIO;
    if (result < 0) {
        failed(p, what, (int)result);
        return;
    }
    if (what == PUBLISH_OPEN) {
        p->fd = (int)result;
        p->made = true;
    }
    if (what == PUBLISH_RENAME)
        p->renamed = true;
}

bool publish_begin(struct publish *p, uint32_t owner, bool names, int flags)
{
    struct store *s = p->job->s;
    struct folder *d;

    /* Two syncs of a new folder, and the open. */
    if (!ops_room_to_write(&s->ops, 3))
        return false;
    /* A system call or two of ours, which may wait for a disk. Only a new owner pays for it: the
     * descriptors stay open. */
    d = folders_get(&s->folders, owner, true, &p->err);
    if (!d)
        return false;
    p->folder = d;
    p->dir = names ? d->names_fd : d->fd;
    if (d->fresh && !d->settling)
        settle(p);
    (void)snprintf(p->temp, sizeof(p->temp), FOLDERS_TEMP "%016" PRIx64, s->n_temps++);
    publish_queue(
        p,
        (struct io_op){
            .code = IO_OPEN, .fd = p->dir, .path = p->temp, .flags = FLAGS | flags, .mode = 0600 },
        PUBLISH_OPEN);
    return true;
}

bool publish_chain(struct publish *p, const void *header, size_t len, const char *to)
{
    struct io_op write = { .code = IO_WRITE, .fd = p->fd, .len = len, .link = true };

    /* All four or none: a chain is queued without a gap. */
    if (!ops_room_to_write(&p->job->s->ops, 4))
        return false;
    /* Another one's syncs of the folder are on their way, or failed. */
    if (p->folder->fresh) {
        if (!p->folder->settling)
            settle(p);
        return false;
    }
    memcpy(&write.mem, &header, sizeof(write.mem)); /* the io only reads what it writes to a file */
    p->header_len = len;
    publish_queue(p, write, PUBLISH_HEADER);
    publish_queue(p, (struct io_op){ .code = IO_SYNC, .fd = p->fd, .link = true }, PUBLISH_SYNC);
    publish_queue(
        p,
        (struct io_op){ .code = IO_RENAME, .fd = p->dir, .path = p->temp, .to = to, .link = true },
        PUBLISH_RENAME);
    publish_queue(p, (struct io_op){ .code = IO_SYNC, .fd = p->dir }, PUBLISH_ENTRY);
    return true;
}

/* `made` is taken back when the removal is queued, so that a second call finds nothing to do and a
 * failure of the removal isn't tried for ever. Without room for it now, true as well: the job comes
 * again. */
bool publish_clean(struct publish *p, const char *to)
{
    if (!p->made)
        return false;
    if (!ops_room_to_write(&p->job->s->ops, 1))
        return true;
    p->made = false;
    publish_queue(
        p,
        (struct io_op){ .code = IO_UNLINK, .fd = p->dir, .path = p->renamed && to ? to : p->temp },
        PUBLISH_UNLINK);
    return true;
}

/* What may be different at a second try: a full disk after some records went, a folder after it was
 * made again. Anything else would fail the same way. */
static bool repair(struct store *s, int err)
{
    switch (-err) {
    case ENOSPC:
    case EDQUOT:
        limits_shrink(s);
        return true;
    case ENOENT:
    case ESTALE:
        return !s->closing && scan_again(s) == 0;
    default:
        return false;
    }
}

/* Nothing is out, so all but the job, its callback and `again` may start from zero. `again` stays:
 * one more try, not one after the other. */
bool publish_again(struct publish *p)
{
    if (p->again || !repair(p->job->s, p->err))
        return false;
    publish_close(p);
    *p = publish_of(p->job, p->on_done);
    p->again = true;
    return true;
}

void publish_close(struct publish *p)
{
    if (p->fd >= 0)
        (void)close(p->fd);
    p->fd = -1;
}
