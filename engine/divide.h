/* engine/divide.h - which layers of a model each of several devices has.
 *
 *     device 0    | vectors | embedding |          | layers 0 .. a - 1 |
 *     device 1    | vectors |                      | layers a .. b - 1 |
 *     the last    | vectors |           | output   | layers b .. n - 1 |      tied: the embedding
 *
 * What is left beside the weights is for pages, and a page has a part on each device, as long as
 * its layers: so the device that has the least room for a layer says how many pages there are, and
 * layers are divided so that this is as many as can be.
 *
 * Threads    pure functions.
 * Errors     divide_layers: -EINVAL, fewer layers than devices.
 */
#ifndef ENGINE_DIVIDE_H
#define ENGINE_DIVIDE_H

#include "engine/backend.h"
#include "engine/file/model.h"

struct divide {
    uint32_t n;                              /* devices */
    uint32_t first[BACKEND_DEVICES_MAX + 1]; /* device d has layers [first[d], first[d + 1]) */
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

/* Bytes of whole pages that fit, of devices with so much room for their parts of them. */
uint64_t divide_pages(const struct divide *d, const uint64_t *room);

#endif
