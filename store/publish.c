#include "store/publish.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FLAGS (O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC)

struct publish publish_of(struct job *job, ops_fn *on_done)
{
    return (struct publish){ .job = job, .on_done = on_done, .dir = -1, .fd = -1 };
}

void publish_queue(struct publish *p, struct io_op op, uint32_t what)
{
    p->job->n_out++;
    ops_queue(&p->job->s->ops, &op, p->on_done, p->job, what);
}

static void failed(struct publish *p, uint32_t what, int err)
{
    if (what == PUBLISH_UNLINK)
        p->left |= err != -ENOENT;
    else if (p->err == 0 || p->err == -ECANCELED)
        p->err = err;
}

/* A new folder's own entry, and what is in it: by one for all who write there. */
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

static void settled(struct publish *p, bool well)
{
    p->settle_failed |= !well;
    if (--p->settles > 0)
        return;
    p->folder->settling = false;
    if (!p->settle_failed && p->n_made == p->folder->n_made)
        p->folder->fresh = false;
}

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

    if (!ops_room_to_write(&s->ops, 3))
        return false;
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
