/* engine/cpu/kv.c - tiles read and copied by plain loops, for what happens once a segment and not
 * once a token. K lies transposed (hd, 16), so a token is a column of it; V lies as rows (16,
 * hd). */
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

static void read_value(enum kv_type kv, const void *v_tile, uint32_t hd, uint32_t slot, float *ret)
{
    for (uint32_t dim = 0; dim < hd; dim++)
        ret[dim] = at(kv, v_tile, hd, slot * hd + dim, dim, slot);
}

void kv_read(enum kv_type kv, const void *k_tile, const void *v_tile, uint32_t hd, uint32_t slot,
             float *ret_k, float *ret_v)
{
    for (uint32_t dim = 0; dim < hd; dim++)
        ret_k[dim] = at(kv, k_tile, hd, dim * TOKENS + slot, dim, slot);
    read_value(kv, v_tile, hd, slot, ret_v);
}

void kv_read_values(enum kv_type kv, const void *v_tile, uint32_t hd, float *ret)
{
    for (uint32_t slot = 0; slot < TOKENS; slot++)
        read_value(kv, v_tile, hd, slot, ret + (size_t)slot * hd);
}

/* Column `slot` of rows of one element a token. */
static void copy_column(const uint8_t *from, uint8_t *to, uint32_t n_rows, size_t elem,
                        uint32_t slot)
{
    for (uint32_t i = 0; i < n_rows; i++) {
        size_t at = (i * (size_t)TOKENS + slot) * elem;

        memcpy(to + at, from + at, elem);
    }
}

static size_t elem_bytes(enum kv_type kv)
{
    return kv == KV_F32 ? sizeof(float) : kv == KV_F16 ? sizeof(uint16_t) : sizeof(int8_t);
}

void kv_copy_value(enum kv_type kv, const void *v_from, void *v_to, uint32_t hd, uint32_t slot)
{
    size_t row = hd * elem_bytes(kv), scales = (size_t)hd * TOKENS;

    memcpy((uint8_t *)v_to + slot * row, (const uint8_t *)v_from + slot * row, row);
    if (kv == KV_Q8_0)
        copy_column((const uint8_t *)v_from + scales, (uint8_t *)v_to + scales, (hd + 31) / 32,
                    sizeof(uint16_t), slot);
}

void kv_copy(enum kv_type kv, const void *k_from, const void *v_from, void *k_to, void *v_to,
             uint32_t hd, uint32_t slot)
{
    size_t scales = (size_t)hd * TOKENS;

    copy_column(k_from, k_to, hd, elem_bytes(kv), slot);
    if (kv == KV_Q8_0)
        copy_column((const uint8_t *)k_from + scales, (uint8_t *)k_to + scales, (hd + 31) / 32,
                    sizeof(uint16_t), slot);
    kv_copy_value(kv, v_from, v_to, hd, slot);
}
