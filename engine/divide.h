/* engine/divide.h - what of a model each of several devices has: some of its layers, or a part of
 * each layer.
 *
 * Layers (BACKEND_SPLIT_LAYER)
 *
 *     device 0    | vectors | embedding |          | layers 0 .. a - 1 |
 *     device 1    | vectors |                      | layers a .. b - 1 |
 *     the last    | vectors |           | output   | layers b .. n - 1 |      tied: the embedding
 *
 * What is left beside the weights is for pages, and a page has a part on each device, as long as
 * its layers: so the device that has the least room for a layer says how many pages there are, and
 * layers are divided so that this is as many as can be.
 *
 * Tensors (BACKEND_SPLIT_TENSOR). Of every layer a device has the same number of KV heads, with
 * their query heads, and about the same number of the feed-forward's rows: so what wo and w_down
 * make of them is a part of a sum, which is added up over all devices (cuda/sums.h).
 *
 *     wq, wk, wv, w_gate, w_up   rows          wo, w_down   columns
 *     vectors, embedding         all of them   output       the last device
 *
 * Threads    pure functions.
 * Errors     divide_layers: -EINVAL, fewer layers than devices. divide_tensors: -EINVAL, what does
 *            not divide.
 */
#ifndef ENGINE_DIVIDE_H
#define ENGINE_DIVIDE_H

#include "engine/backend.h"
#include "engine/file/adapter.h"
#include "engine/file/model.h"

struct divide {
    enum backend_split split;
    uint32_t n;                              /* devices */
    uint32_t first[BACKEND_DEVICES_MAX + 1]; /* device d has layers [first[d], first[d + 1]);
                                              * tensors: 0, and the last all layers */
    /* Tensors: rows [ff[d], ff[d + 1]) of w_gate, and how many rows of wq and of wk each has. */
    uint32_t ff[BACKEND_DEVICES_MAX + 1];
    uint32_t q, kv;
};

/* Bytes of the extent (engine/file/packed.h) up to the next one's. */
size_t divide_extent_bytes(const struct model *m, uint32_t extent);
/* Whether device d has it. */
bool divide_has(const struct divide *d, const struct model *m, uint32_t device, uint32_t extent);
/* Bytes of weights that the device has. */
uint64_t divide_weights(const struct divide *d, const struct model *m, uint32_t device);

/* room: bytes that each device has for weights and pages. */
int divide_layers(const struct model *m, const uint64_t *room, uint32_t n, struct divide *ret,
                  struct why *why);

int divide_tensors(const struct model *m, uint32_t n, struct divide *ret, struct why *why);

/* Of a matrix of a layer, by its name to adapters (ADAPTER_Q ...): whether its rows are divided or
 * its columns, and which of these a device has. */
bool divide_by_rows(unsigned projection);
struct divide_part {
    uint32_t first, n;
};
struct divide_part divide_part(const struct divide *d, uint32_t device, unsigned projection);
/* Heads and rows of the part: n_head, n_head_kv, n_ff. */
void divide_shape(const struct divide *d, uint32_t device, struct model *m);

/* Bytes of whole pages that fit, of devices with so much room for their parts of them. */
uint64_t divide_pages(const struct divide *d, const uint64_t *room);

#endif
