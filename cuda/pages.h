/* cuda/pages.h - the pool and the rotations as kernels get them: plain C, device pointers.
 *
 * A page is engine/kv/page.h's and engine/kv/pool.h's to the byte, and the tables of angles are
 * engine/kv/rotary.h's, so a page that the CPU wrote can be attended to here and back again.
 *
 * Offsets into the pool are 64 bits: it may be larger than 4 GiB.
 */
#ifndef CUDA_PAGES_H
#define CUDA_PAGES_H

#include "engine/kv/page.h"

#include <stddef.h>
#include <stdint.h>

#define K_HEAD_DIM_MAX 256u

struct k_pool {
    uint8_t *mem;
    size_t page_bytes, head_bytes; /* of a page; of K and V tile of one head of one layer */
    uint32_t kv;                   /* enum kv_type */
    uint32_t n_layer, n_head_kv, head_dim;
};

struct k_angles {
    const float *fine, *coarse; /* (ROTARY_FINE, hd), (ROTARY_COARSE, hd) */
};

#endif
