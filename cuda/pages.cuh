/* cuda/pages.cuh - keys and values in pages, and turning them, for kernels.
 *
 * Element by element what engine/cpu/kv.c, kernels_scalar.c and engine/kv/rotary.c do, so that what
 * is stored here is what the CPU would have stored, to the bit.
 */
#ifndef CUDA_PAGES_CUH
#define CUDA_PAGES_CUH

#include "cuda/dev.cuh"
#include "cuda/pages.h"
#include "engine/kv/rotary.h"

/* f<KV> for pages of that type: on the host, where a launch is chosen. */
#define KV_OF(kv, f) ((kv) == KV_F16 ? f<KV_F16> : (kv) == KV_Q8_0 ? f<KV_Q8_0> : f<KV_F32>)

/* Element i of a tile, which is element `dim` of the token in `slot`. */
template <unsigned KV>
static __device__ __forceinline__ float kv_at(const uint8_t *tile, uint32_t hd, uint32_t i,
                                              uint32_t dim, uint32_t slot)
{
    if (KV == KV_F32)
        return ((const float *)(const void *)tile)[i];
    if (KV == KV_F16)
        return half_to_float(((const uint16_t *)(const void *)tile)[i]);
    return half_to_float(
               ((const uint16_t *)(const void *)(tile +
                                                 (size_t)hd *
                                                     PAGE_TOKENS))[dim / 32 * PAGE_TOKENS + slot]) *
           (float)((const int8_t *)tile)[i];
}

/* K tile of a head; its V tile is head_bytes / 2 behind it. */
static __device__ __forceinline__ uint8_t *k_tile_of(const struct k_pool *p, uint32_t page,
                                                     uint32_t layer, uint32_t head)
{
    return p->mem + (size_t)page * p->page_bytes +
           ((size_t)layer * p->n_head_kv + head) * p->head_bytes;
}

/* Cosine and sine of the rotation of pair i by n positions. */
static __device__ __forceinline__ void turn_by(const struct k_angles *a, uint32_t hd, uint32_t n,
                                               uint32_t i, float *ret_cos, float *ret_sin)
{
    const float *lo = a->fine + (size_t)(n % ROTARY_FINE) * hd, *hi;
    uint32_t h = hd / 2;

    *ret_cos = lo[i];
    *ret_sin = lo[h + i];
    if (n < ROTARY_FINE)
        return;
    hi = a->coarse + (size_t)(n / ROTARY_FINE) * hd;
    *ret_cos = hi[i] * lo[i] - hi[h + i] * lo[h + i];
    *ret_sin = hi[h + i] * lo[i] + hi[i] * lo[h + i];
}

/* --- storing ---------------------------------------------------------------------------------- */

/* A block of up to 32 values, one a lane, the rest zeros. */
static __device__ __forceinline__ int8_t quantise_lane(float x, uint16_t *ret_d)
{
    float inverse, v;

    *ret_d = float_to_half(warp_most(x) / 127);
    inverse = *ret_d ? 1 / half_to_float(*ret_d) : 0;
    v = x * inverse;
    v = v > -127 ? v : -127;
    v = v < 127 ? v : 127;
    return (int8_t)rintf(v);
}

static __device__ __forceinline__ bool half_is_odd(uint16_t h)
{
    return (h & 0x7c00) == 0x7c00;
}

/* Elements c .. c + 31 of a token's V, of a lane one, those from hd on zeros, into slot `slot` of
 * its tile: the work of a whole warp, of which all lanes come here. */
template <unsigned KV>
static __device__ __forceinline__ void kv_store_values(float y, uint32_t c, uint32_t hd,
                                                       uint32_t slot, uint8_t *tile)
{
    uint32_t lane = threadIdx.x % 32, i = c + lane;

    if (KV == KV_Q8_0) {
        uint16_t d;
        int8_t q = quantise_lane(y, &d);

        if (i < hd)
            ((int8_t *)tile)[slot * hd + i] = q;
        if (lane == 0)
            ((uint16_t *)(void *)(tile + (size_t)hd * PAGE_TOKENS))[c / 32 * PAGE_TOKENS + slot] =
                d;
    } else if (i < hd && KV == KV_F16) {
        ((uint16_t *)(void *)tile)[slot * hd + i] = float_to_half(y);
    } else if (i < hd) {
        ((float *)(void *)tile)[slot * hd + i] = y;
    }
}

/* K and V of one token and KV head, (hd) each: of a whole warp too. */
template <unsigned KV>
static __device__ void kv_store_head(const float *k, const float *v, uint32_t hd, uint32_t slot,
                                     uint8_t *k_tile, uint8_t *v_tile)
{
    uint32_t lane = threadIdx.x % 32;
    bool bad = false;

    for (uint32_t c = 0; c < hd; c += 32) {
        uint32_t i = c + lane;
        float x = i < hd ? k[i] : 0, y = i < hd ? v[i] : 0;

        if (KV == KV_Q8_0) {
            uint16_t d;
            int8_t q = quantise_lane(x, &d);

            bad |= half_is_odd(d);
            if (i < hd)
                ((int8_t *)k_tile)[i * PAGE_TOKENS + slot] = q;
            if (lane == 0)
                ((uint16_t *)(void *)(k_tile +
                                      (size_t)hd * PAGE_TOKENS))[c / 32 * PAGE_TOKENS + slot] = d;
        } else if (i < hd && KV == KV_F16) {
            uint16_t h = float_to_half(x);

            bad |= half_is_odd(h);
            ((uint16_t *)(void *)k_tile)[i * PAGE_TOKENS + slot] = h;
        } else if (i < hd) {
            bad |= !is_finite(x);
            ((float *)(void *)k_tile)[i * PAGE_TOKENS + slot] = x;
        }
        kv_store_values<KV>(y, c, hd, slot, v_tile);
    }
    /* Lane 0 wrote what is marked, and nobody else does. */
    if (__ballot_sync(~0u, bad) == 0 || lane != 0)
        return;
    if (KV == KV_Q8_0)
        ((uint16_t *)(void *)(v_tile + (size_t)hd * PAGE_TOKENS))[slot] = KV_F16_NAN;
    else if (KV == KV_F16)
        ((uint16_t *)(void *)v_tile)[slot * hd] = KV_F16_NAN;
    else
        ((float *)(void *)v_tile)[slot * hd] = NAN;
}

#endif
