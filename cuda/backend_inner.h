/* cuda/backend_inner.h - what the files of the backend share: its devices, and its memory's
 * functions.
 *
 * Threads    as engine/backend.h.
 */
#ifndef CUDA_BACKEND_INNER_H
#define CUDA_BACKEND_INNER_H

#include "cuda/link.h"
#include "cuda/part.h"
#include "cuda/spread.h"
#include "cuda/together.h"

#include <errno.h>

struct cuda {
    struct backend b;
    struct backend *host; /* the CPU's, for host work */
    struct part parts[BACKEND_DEVICES_MAX];
    uint32_t n;
    uint32_t max_rows;
    bool lost; /* a device failed: nothing of any is asked any more */
    int bell;  /* of all copies with a ticket; -1: it is lost */
    /* Of several alone. */
    enum backend_split split;
    struct together *together; /* NULL: each has some layers, or there is no model yet */
    struct divide divide;      /* n: 0 until a model's weights have memory */
    struct spread *spread;     /* all memory is its */
    struct link *links[BACKEND_DEVICES_MAX]; /* from each to the next; the last's to the first */
    uint64_t n_tickets;
};

static inline struct cuda *cuda_of(struct backend *b)
{
    return (struct cuda *)b;
}

/* An error of the device is its last word: what it has is not to be trusted, and asking again may
 * hang. */
static inline int said(struct cuda *c, int r)
{
    c->lost |= r == -EIO;
    return r;
}

/* Which device is meant is each thread's own, and the scheduler's is not the one that opened it. */
static inline int use(const struct cuda *c, const struct part *p)
{
    return c->lost ? -EIO : rt_use(p->rt);
}

static inline int ready(const struct cuda *c)
{
    return use(c, &c->parts[0]);
}

/* As struct backend_ops has them: cuda/backend_memory.c. */
int cuda_clear(struct backend *b, void *mem, size_t n);
int cuda_alloc(struct backend *b, size_t n, void **ret);
int cuda_alloc_weights(struct backend *b, const struct model *m, void **ret, struct why *why);
int cuda_alloc_pages(struct backend *b, const struct pool *p, void **ret);
void cuda_free(struct backend *b, void *mem, size_t n);
int cuda_lock(struct backend *b, void *mem, size_t n);
int cuda_pin(struct backend *b, void *mem, size_t n);
void cuda_unpin(struct backend *b, void *mem, size_t n);
void *cuda_host(struct backend *b, void *mem);
int cuda_put(struct backend *b, void *to, const void *host, size_t n, uint64_t *ret_ticket);
int cuda_get(struct backend *b, void *host, const void *from, size_t n, uint64_t *ret_ticket);
int cuda_get_layers(struct backend *b, void *host, const void *from, size_t len);
int cuda_done(struct backend *b, uint64_t ticket);
int cuda_eventfd(struct backend *b);
int cuda_copy_page(struct backend *b, const struct pool *pool, uint32_t from, uint32_t to);

#endif
