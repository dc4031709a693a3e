/* One file at a time, a piece at a time, each a step:
 *
 *     id[done % 64] ---> now --- queue_open ---> open --- a read for each PIECE ---> end()
 *
 * The bytes that were read are thrown away: what they are for is the copy that the kernel keeps of
 * them. */
#include "store/inside.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define PIECE ((size_t)4 << 20) /* read at once: while the model computes, one a step */

/* The ring holds the newest WARM_RECORDS ids: who writes faster than is read back loses the oldest
 * ones. An id, and no pointer: the record may be deleted while it waits. */
void warm_later(struct store *s, const struct entry *e)
{
    struct warm *w = &s->warm;

    w->id[w->put++ % WARM_RECORDS] = e->id;
    if (w->put - w->done > WARM_RECORDS)
        w->done = w->put - WARM_RECORDS;
}

static void end(struct warm *w)
{
    if (w->open)
        (void)close(w->fd);
    w->open = false;
}

/* The name was borrowed from the entry until here; from now on the descriptor is enough, also when
 * the file is deleted. */
static void on_open(void *job, uint32_t what, int64_t result)
{
    struct store *s = job;

    (void)what;
    s->warm.out = false;
    limits_unbusy(s, s->warm.e);
    if (result < 0)
        return;
    s->warm.fd = (int)result;
    folders_block(s->warm.fd);
    s->warm.open = true;
    s->warm.off = 0;
}

/* A read that fails or finds the file's end is the end of this record: nobody needs to hear of it.
 *
 * A read gives all of PIECE but at the end of the file, so off is where the next one starts. */
static void on_read(void *job, uint32_t what, int64_t result)
{
    struct store *s = job;
    struct warm *w = &s->warm;

    (void)what;
    w->out = false;
    if (result > 0)
        w->off += (uint64_t)result;
    if (result <= 0 || w->off >= w->len)
        end(w);
}

/* A folder that is gone makes the open fail with EBADF, which is handled as any other failure. */
static void queue_open(struct store *s, struct entry *e)
{
    struct warm *w = &s->warm;
    int err;
    struct folder *d = folders_get(&s->folders, e->r.key.owner, false, &err);
    struct io_op op = { .code = IO_OPEN,
                        .fd = d ? d->fd : -1,
                        .path = e->name,
                        .flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC };

    w->e = e;
    w->len = record_len(&e->r);
    w->out = true;
    e->n_busy++;
    ops_queue(&s->ops, &op, on_open, s, 0);
}

void warm_step(struct store *s)
{
    struct warm *w = &s->warm;
    struct entry *e;

    /* Any job has priority, also one that is only being hashed: a read of ours would delay its
     * reads on the disk. */
    if ((w->done == w->put && !w->open) || w->out || s->n_jobs > 0 || s->closing ||
        !ops_room_to_write(&s->ops, 1))
        return;
    /* Allocated at the first use, for a store that never writes past the cache never needs it. */
    if (!w->buf && !(w->buf = aligned_alloc(IO_ALIGN, PIECE)))
        return;
    /* Taken from the ring, whose place others may want while this one is read. */
    if (!w->open)
        w->now = w->id[w->done++ % WARM_RECORDS];
    e = index_by_id(&s->index, w->now);
    if (!e) {
        end(w);
        s->more = true; /* another id may be behind it */
    } else if (w->open) {
        w->out = true;
        ops_queue(&s->ops,
                  &(struct io_op){ .code = IO_READ,
                                   .fd = w->fd,
                                   .mem = w->buf,
                                   .len = PIECE,
                                   .off = w->off,
                                   .aside = true },
                  on_read, s, 0);
    } else {
        queue_open(s, e);
    }
}

void warm_close(struct store *s)
{
    if (s->warm.open)
        (void)close(s->warm.fd);
    free(s->warm.buf);
}
