/* cuda/fit.h - a raw segment becomes a packed one by its queries: struct backend_fit on a device.
 *
 * Weigh, choose, move, fit, as engine/fit.h has it, for some lists (layer * n_head_kv + head)
 * at once. Sums are f32's in another order than the CPU's, so of two keys with weights as good as
 * equal the other may stay.
 *
 * Threads    who has the stream.
 * Errors     -EIO: a launch was refused.
 */
#ifndef CUDA_FIT_H
#define CUDA_FIT_H

#include "cuda/pages.h"

#ifdef __cplusplus
extern "C" {
#endif

/* All pointers are of the device. */
struct k_fit {
    struct k_pool pool;
    struct k_angles angles;
    const uint32_t *from, *to; /* pages; may be the same */
    uint32_t n_raw, n_keys;    /* keys of both, sinks included */
    uint32_t sinks;            /* the first ones stay as they are */
    const float *asked;        /* (n_layer * n_head_kv, n_asked, hd + 1): queries, and their sums */
    uint32_t n_asked;
    uint32_t first_list, n_lists; /* those of this call */
    void *scratch;                /* k_fit_scratch */
};

/* Bytes for so many lists at once. */
size_t k_fit_scratch(const struct k_fit *a);

int k_fit(void *stream, const struct k_fit *a);

#ifdef __cplusplus
}
#endif
#endif
