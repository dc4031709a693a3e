/* engine/cpu/kv.h - reading and copying what kernels' kv_store put into K and V tiles.
 *
 * Layout     engine/cpu/kernels.h.
 * Threads    pure functions.
 */
#ifndef ENGINE_CPU_KV_H
#define ENGINE_CPU_KV_H

#include "engine/cpu/kernels.h"

/* K of a whole page, as it lies: ret (hd, 16). */
void kv_read_keys(enum kv_type kv, const void *k_tile, uint32_t hd, float *ret);

/* K and V of the token in one slot: ret_k (hd), ret_v (hd). */
void kv_read(enum kv_type kv, const void *k_tile, const void *v_tile, uint32_t hd, uint32_t slot,
             float *ret_k, float *ret_v);

/* V of a whole page: ret (16, hd). */
void kv_read_values(enum kv_type kv, const void *v_tile, uint32_t hd, float *ret);

/* The token in one slot, to the same slot of other tiles, bit for bit. */
void kv_copy(enum kv_type kv, const void *k_from, const void *v_from, void *k_to, void *v_to,
             uint32_t hd, uint32_t slot);

/* The value alone. */
void kv_copy_value(enum kv_type kv, const void *v_from, void *v_to, uint32_t hd, uint32_t slot);

#endif
