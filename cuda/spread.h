/* cuda/spread.h - memory of which several devices have parts or copies.
 *
 * Who allocates it gets addresses that stand for it, where nothing is: they are reserved. Each
 * device has some ranges of each unit, side by side:
 *
 *     weights    one unit; its layers', and what all layers need
 *     pages      a unit a page; the part of its layers
 *     copies     one unit, all of it
 *
 *     addresses   | unit 0: layers 0 1 2 3 | unit 1: layers 0 1 2 3 | ...
 *     device 0    | 0 1 | 0 1 | ...                  device 1    | 2 3 | 2 3 | ...
 *
 * Or of every layer some heads and some of the feed-forward's rows (--split-mode tensor):
 *
 *     device 0    | of 0, 1, 2, 3 heads a | ...      device 1    | of 0, 1, 2, 3 heads b | ...
 *
 * Some bytes are on several devices: one of these is the first, which is read from.
 *
 * Threads    one at a time.
 * Ownership  the spread owns the devices' memory and the addresses.
 * Errors     -ENOMEM, -EIO (cuda/rt.h).
 */
#ifndef CUDA_SPREAD_H
#define CUDA_SPREAD_H

#include "cuda/rt.h"
#include "engine/divide.h"
#include "engine/file/tile.h"
#include "engine/kv/pool.h"

struct spread;

int spread_open(struct rt *const *rts, uint32_t n, struct spread **ret);
/* All that is there is given back. */
void spread_close(struct spread *s);

/* What is in it is anything. */
int spread_alloc_copies(struct spread *s, size_t n, void **ret);
int spread_alloc_weights(struct spread *s, const struct divide *d, const struct model *m,
                         void **ret);
int spread_alloc_pages(struct spread *s, const struct divide *d, const struct pool *p, void **ret);
void spread_free(struct spread *s, void *mem);
/* All that a device has of it. */
void *spread_whole(const struct spread *s, uint32_t device, const void *mem, size_t *ret_len);

/* Where this byte is on a device; mem itself where it is none of ours, NULL included. The device
 * has it. */
void *spread_at(const struct spread *s, uint32_t device, const void *mem);

/* Each part of [mem, mem + n): where it is on which device, and from which byte on. Ends with the
 * first error. */
typedef int spread_fn(void *arg, uint32_t device, void *at, size_t off, size_t n, bool first);
int spread_each(const struct spread *s, const void *mem, size_t n, spread_fn *fn, void *arg);

/* What a device that computes some layers sees. All zeros: it has all layers, and addresses are its
 * own. */
struct spread_view {
    const struct spread *spread;
    uint32_t device;
    uint32_t first_layer;
    bool before, after;          /* there are layers on devices before it, or behind it */
    bool no_output;              /* the output matrix is on another one */
    const struct divide *divide; /* it has a part of each layer; NULL: layers as a whole */
};

static inline void *view_at(const struct spread_view *v, const void *mem)
{
    return v->spread ? spread_at(v->spread, v->device, mem) : (void *)(uintptr_t)mem;
}

/* A matrix of a layer (ADAPTER_Q ...), or one that an adapter has in its place, cut to what the
 * view has of it; where that is in the whole. Of a bias: where it is on the device. */
struct model_tensor view_part(const struct spread_view *v, unsigned projection,
                              const struct model_tensor *t);
const float *view_bias(const struct spread_view *v, unsigned projection, const float *all);

/* m with n_layers of its layers, as the view has them, in `layers`; what it has not is NULL. */
void view_model(const struct spread_view *v, const struct model *m, uint32_t n_layers,
                struct model_layer *layers, struct model *ret);
/* The pool's part: mem, page_bytes, n_layer and n_head_kv. */
struct pool view_pool(const struct spread_view *v, const struct pool *p);

#endif
