/* engine/kv/page.h - what the bytes of a KV page are, for every backend and for files.
 *
 * A page holds, for a layer and KV head, a K tile (hd, 16), transposed so that 16 keys are one
 * vector, and a V tile (16, hd). In Q8_0 a tile's int8 are followed by f16 scales, one for each
 * token and 32 elements (the last may have fewer), in both tiles as (blocks, 16):
 *
 *     0                    16 hd                16 hd + 32 blocks
 *     +--------------------+--------------------+
 *     | int8 q (hd, 16)    | f16 d (blocks, 16) |     K; V has q (16, hd)
 *     +--------------------+--------------------+
 *
 * An element is d * q, exactly, as f32 has room for the 18 bits. d = max|x| / 127 in f16, and q = x
 * / d, to nearest, ties to even, within +-127: with the d that is stored, not the one before
 * rounding, which the largest elements would show. A tile's bytes are a multiple of 32.
 *
 * A token whose K is not finite as it is stored (it overflows f16, or comes as NaN) gets a V that
 * is not either, its first element or scale KV_F16_NAN: a softmax may lose a score that is no
 * number, but nobody who sees the key can take its V without noticing. So what goes wrong in one
 * token ends in logits that are NaN, and those are looked at.
 *
 * Threads    pure functions.
 */
#ifndef ENGINE_KV_PAGE_H
#define ENGINE_KV_PAGE_H

#include <stddef.h>
#include <stdint.h>

#define PAGE_TOKENS 16u

#define KV_F16_NAN 0x7e00u

enum kv_type { KV_F16, KV_F32, KV_Q8_0, KV__N };

/* Bytes of a K or a V tile. */
static inline size_t kv_tile_bytes(enum kv_type kv, uint32_t hd)
{
    size_t n = (size_t)hd * PAGE_TOKENS;

    if (kv == KV_Q8_0)
        return n + (hd + 31) / 32 * PAGE_TOKENS * sizeof(uint16_t);
    return n * (kv == KV_F32 ? sizeof(float) : sizeof(uint16_t));
}

#endif
