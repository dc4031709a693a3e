/* cuda/move.h - keys and values from place to place inside the pool: struct backend_move on a
 * device.
 *
 * What is stored is what engine/cpu/move.c stores: a key that keeps its place is copied bit for
 * bit.
 *
 * Threads    who has the stream.
 * Errors     -EIO: a launch was refused.
 */
#ifndef CUDA_MOVE_H
#define CUDA_MOVE_H

#include "cuda/pages.h"

#ifdef __cplusplus
extern "C" {
#endif

/* All pointers are of the device. */
struct k_move {
    struct k_pool pool;
    struct k_angles angles;
    const uint32_t *from, *to, *kept;
    uint32_t per_head; /* kept: (lists, n_keys), else (n_keys) */
    uint32_t first, n_keys;
    uint32_t first_list, n_lists; /* those that are moved, of which kept has n_lists; 0: all */
};

struct k_norms {
    struct k_pool pool;
    const uint32_t *pages;
    uint32_t n_keys;
    float *to; /* (lists, n_keys) */
};

int k_move(void *stream, const struct k_move *a);
int k_norms(void *stream, const struct k_norms *a);

#ifdef __cplusplus
}
#endif
#endif
