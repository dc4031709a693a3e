/* engine/file/image_write.c - writes an image behind a daemon that serves already.
 *
 * Through the page cache: the next start, which maps the image, finds it there. What is dirty is
 * bounded, or the kernel would stop other writers of the disk for ours.
 */
#include "engine/file/image_write.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* After each piece a stop is heard; after DIRTY_MOST, a multiple of it, all is synced. */
#define PIECE      ((size_t)4 << 20)
#define DIRTY_MOST ((size_t)64 << 20)

static bool stopped(const struct image_write *w)
{
    return w->stop && w->stop(w->arg);
}

/* One operation, to its end. */
static int64_t run(struct io *io, const struct io_op *op)
{
    struct io_done done;
    int r = io_queue(io, op);

    while (r == 0) {
        r = io_wait(io);
        if (r == -EINTR)
            r = 0;
        if (r == 0 && io_reap(io, &done, 1) == 1)
            return done.result;
    }
    return r;
}

static int write_arena(const struct image_write *w, int fd)
{
    size_t len = w->of->packed->len, head = image_head_len(w->of->packed);

    for (size_t at = 0; at < len; at += PIECE) {
        size_t n = len - at < PIECE ? len - at : PIECE;
        struct io_op op = { .code = IO_WRITE, .fd = fd, .len = n, .off = head + at, .aside = true };
        int64_t r;

        if (stopped(w))
            return -ECANCELED;
        /* The interface has one pointer for both ways; a write only reads. */
        op.mem = (void *)(uintptr_t)(w->arena + at);
        r = run(w->io, &op);
        if (r >= 0 && (size_t)r != n)
            return -EIO;
        if (r >= 0 && (at + n) % DIRTY_MOST == 0)
            r = run(w->io, &(struct io_op){ .code = IO_SYNC, .fd = fd });
        if (r < 0)
            return (int)r;
    }
    return 0;
}

/* Piece by piece, so that a stop is soon heard. On this thread alone (NULL for a backend): the host
 * threads are the scheduler's. */
static int sum_all(const struct image_write *w, struct packed_sum *ret)
{
    for (uint32_t i = 0; i < w->of->packed->n_sums; i++) {
        if (stopped(w))
            return -ECANCELED;
        packed_sums(w->of->packed, NULL, w->arena, i, 1, &ret[i]);
    }
    return 0;
}

int image_write(const struct image_write *w, struct why *why)
{
    struct packed_sum *sums = calloc(w->of->packed->n_sums, sizeof(*sums));
    struct image_new n;
    int r;

    if (!sums)
        return why_set(why, -ENOMEM, "no memory for an image of the weights");
    r = image_new_open(w->folder, w->of, &n, why);
    if (r < 0) {
        free(sums);
        return r;
    }
    r = write_arena(w, n.fd);
    if (r == 0)
        r = sum_all(w, sums);
    if (r == 0)
        r = image_new_publish(&n, w->of, w->digest, sums, why);
    else
        (void)why_set(why, r, "an image of the weights in %s: %s", w->folder, strerror(-r));
    image_new_close(&n);
    free(sums);
    return r;
}
