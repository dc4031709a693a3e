/* cuda/tiles.cuh - weights in tiles, for kernels: the readers of super-blocks, and of any type.
 *
 * What a reader is: cuda/tiles_read.cuh.
 */
#ifndef CUDA_TILES_CUH
#define CUDA_TILES_CUH

#include "cuda/tiles_read.cuh"

/* A block's scale and minimum are numbers that the super-block's two are multiplied by. */
template <typename T> struct read_super {
    typedef T tile;
    static const unsigned GROUPS = 8;
    static const bool HALVES = false, MINS = true;

    /* Minima are subtracted. */
    static __device__ __forceinline__ struct tile_head head(const tile *t, unsigned row)
    {
        return { tile_half(&t->d[row]), -tile_half(&t->dmin[row]) };
    }
    static __device__ __forceinline__ void scale(const tile *t, const struct tile_head &h,
                                                 unsigned g, unsigned row, float scale[2],
                                                 float *min)
    {
        scale[0] = __fmul_rn(h.d, (float)__ldg(&t->g[g].scale[row]));
        *min = __fmul_rn(h.m, (float)__ldg(&t->g[g].min[row]));
    }
};

struct read_q4_k : read_super<struct tile_q4_k> {
    static __device__ __forceinline__ void pair(const tile *t, unsigned g, unsigned row, unsigned k,
                                                uint32_t *lo, uint32_t *hi)
    {
        uint32_t w = tile_word(t->g[g].q[k][row]);

        *lo = low_nibbles(w);
        *hi = high_nibbles(w);
    }
};

struct read_q5_k : read_super<struct tile_q5_k> {
    static __device__ __forceinline__ void pair(const tile *t, unsigned g, unsigned row, unsigned k,
                                                uint32_t *lo, uint32_t *hi)
    {
        uint32_t w = tile_word(t->g[g].q[k][row]);

        *lo = low_nibbles(w) | fifth_bits(t->g[g].h, k, row) << 4;
        *hi = high_nibbles(w) | fifth_bits(t->g[g].h, k + 4, row) << 4;
    }
};

/* Six bits as the upper ones of a byte: with its first bit turned it is four times the value, whose
 * offset of 32 is the sign then, and d is a quarter. */
struct read_q6_k {
    typedef struct tile_q6_k tile;
    static const unsigned GROUPS = 8;
    static const bool HALVES = true, MINS = false;

    static __device__ __forceinline__ void pair(const tile *t, unsigned g, unsigned row, unsigned k,
                                                uint32_t *lo, uint32_t *hi)
    {
        uint32_t w = tile_word(t->g[g].q[k][row]);
        uint32_t h = tile_word(t->g[g].h[k % 2][row]) >> 2 * (k / 2);

        *lo = (low_nibbles(w) << 2 | (h & 0x03030303u) << 6) ^ SIGNS;
        *hi = (high_nibbles(w) << 2 | (h >> 4 & 0x03030303u) << 6) ^ SIGNS;
    }
    static __device__ __forceinline__ struct tile_head head(const tile *t, unsigned row)
    {
        return { tile_half(&t->d[row]) * (1.0f / 4), 0 };
    }
    static __device__ __forceinline__ void scale(const tile *t, const struct tile_head &h,
                                                 unsigned g, unsigned row, float scale[2], float *)
    {
        for (int half = 0; half < 2; half++)
            scale[half] = __fmul_rn(h.d, (float)__ldg(&t->g[g].scale[half][row]));
    }
};

/* Calls f of the reader for a quantised type: DO(read_q4_0) and so on. A float type is DEFAULT. */
#define TILES_SWITCH(type, DO, DEFAULT)                                                            \
    switch (type) {                                                                                \
    case QUANT_Q4_0:                                                                               \
        DO(read_q4_0);                                                                             \
    case QUANT_Q4_1:                                                                               \
        DO(read_q4_1);                                                                             \
    case QUANT_Q5_0:                                                                               \
        DO(read_q5_0);                                                                             \
    case QUANT_Q5_1:                                                                               \
        DO(read_q5_1);                                                                             \
    case QUANT_Q8_0:                                                                               \
        DO(read_q8_0);                                                                             \
    case QUANT_Q4_K:                                                                               \
        DO(read_q4_k);                                                                             \
    case QUANT_Q5_K:                                                                               \
        DO(read_q5_k);                                                                             \
    case QUANT_Q6_K:                                                                               \
        DO(read_q6_k);                                                                             \
    default:                                                                                       \
        DEFAULT;                                                                                   \
    }

/* Four bytes of pair() as values. */
static __device__ __forceinline__ void tile_values(uint32_t bytes, float scale, float min,
                                                   float ret[4])
{
    for (int i = 0; i < 4; i++)
        ret[i] = __fadd_rn(__fmul_rn(scale, (float)(int8_t)(bytes >> 8 * i)), min);
}

/* One value of a float type. */
static __device__ __forceinline__ float tile_float(uint32_t type, const void *tile, unsigned row,
                                                   uint32_t col)
{
    if (type == QUANT_F32)
        return __ldg((const float *)tile + (size_t)col * TILE_ROWS + row);
    if (type == QUANT_F16)
        return tile_half((const uint16_t *)tile + (size_t)col * TILE_ROWS + row);
    return bf16_to_float(
        __ldg((const uint16_t *)tile + ((size_t)(col / 2) * TILE_ROWS + row) * 2 + col % 2));
}

#endif
