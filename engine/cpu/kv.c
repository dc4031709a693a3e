#include "engine/cpu/kv.h"

#include <string.h>

#define TOKENS PAGE_TOKENS

/* Element i of a tile, which is element `dim` of the token in `slot`. */
static float at(enum kv_type kv, const uint8_t *tile, uint32_t hd, uint32_t i, uint32_t dim,
                uint32_t slot)
{
    const uint16_t *d = (const void *)(tile + (size_t)hd * TOKENS);

    switch (kv) {
    case KV_F16:
        return quant_f16_to_f32(((const uint16_t *)(const void *)tile)[i]);
    case KV_Q8_0:
        return quant_f16_to_f32(d[dim / 32 * TOKENS + slot]) * (float)((const int8_t *)tile)[i];
    default:
        return ((const float *)(const void *)tile)[i];
    }
}

void kv_read_keys(enum kv_type kv, const void *k_tile, uint32_t hd, float *ret)
{
    if (kv == KV_F32) {
        memcpy(ret, k_tile, (size_t)hd * TOKENS * sizeof(*ret));
        return;
    }
    for (uint32_t dim = 0; dim < hd; dim++)
        for (uint32_t slot = 0; slot < TOKENS; slot++)
            ret[dim * TOKENS + slot] = at(kv, k_tile, hd, dim * TOKENS + slot, dim, slot);
}

void kv_read(enum kv_type kv, const void *k_tile, const void *v_tile, uint32_t hd, uint32_t slot,
             float *ret_k, float *ret_v)
{
    for (uint32_t dim = 0; dim < hd; dim++) {
        ret_k[dim] = at(kv, k_tile, hd, dim * TOKENS + slot, dim, slot);
        ret_v[dim] = at(kv, v_tile, hd, slot * hd + dim, dim, slot);
    }
}
