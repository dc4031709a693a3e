/* cuda/link.h - rows on their way from one device to another.
 *
 * Where the two reach each other's memory they copy by themselves, else by way of pinned memory of
 * the host's. Whether what they copy arrives is tried first: behind an IOMMU it may be other bytes,
 * and no error (docs/cuda.md). Either way in the order of what they compute, by events:
 *
 *     from    layers | there ---.                     (| to the host | there)
 *     to                        '-> copy | taken | layers
 *     from    the next step's rows <-- taken
 *
 * Threads    one at a time.
 * Ownership  borrows both runtimes.
 * Errors     -ENOMEM, -EIO (cuda/rt.h).
 */
#ifndef CUDA_LINK_H
#define CUDA_LINK_H

#include "cuda/rt.h"

struct link;

struct link_piece {
    void *to;
    const void *from;
    size_t n;
};

/* most: bytes that are copied at once. */
int link_open(struct rt *from, struct rt *to, size_t most, struct link **ret);
void link_close(struct link *l);

/* What `to` computes from now on sees the pieces as what `from` has computed left them. */
int link_copy(struct link *l, const struct link_piece *pieces, unsigned n);

#endif
