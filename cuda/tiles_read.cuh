/* cuda/tiles_read.cuh - a reader for each quantised type of weights in tiles (engine/file/tile.h).
 *
 * A reader gives eight columns of a row at a time, as they lie together: columns 4k .. 4k + 3 of a
 * block of 32 and 16 + 4k .. 16 + 4k + 3 (k 0 to 3), a byte each. They are what a lane holds of a
 * matrix of mma m16n8k32:
 *
 *     q[k][row]   low nibbles: lo, columns 4k ..      high nibbles: hi, columns 16 + 4k ..
 *
 * A value is scale[half] * byte + min, each product and sum rounded once: the CPU's bits. Types
 * with an offset have it in the byte's sign: a nibble in the upper half of a byte with its first
 * bit turned is 16 (q - 8), exactly, by one instruction; the scale takes the 16 back, exactly too.
 *
 *     struct reader
 *         tile            of GROUPS blocks of 32 columns
 *         HALVES          columns 0 .. 15 and 16 .. 31 have scales of their own
 *         MINS            there are minima
 *         head()          what a row has once a tile
 *         pair()          the two dwords
 *         scale()         of a row's block: scale[2] (without HALVES only [0] is set) and min
 */
#ifndef CUDA_TILES_READ_CUH
#define CUDA_TILES_READ_CUH

#include "cuda/dev.cuh"

#include "engine/file/tile.h"

#define SIGNS 0x80808080u

/* Weights are read once a step: they need not stay in a cache. */
static __device__ __forceinline__ uint32_t tile_word(const void *p)
{
    return __ldcs((const unsigned *)p);
}

static __device__ __forceinline__ uint32_t low_nibbles(uint32_t w)
{
    return w & 0x0f0f0f0fu;
}

static __device__ __forceinline__ uint32_t high_nibbles(uint32_t w)
{
    return w >> 4 & 0x0f0f0f0fu;
}

/* Bit 4 row + j of h[k] becomes bit 0 of byte j. */
static __device__ __forceinline__ uint32_t fifth_bits(const uint64_t h[8], unsigned k, unsigned row)
{
    uint32_t bits = tile_word((const uint32_t *)(const void *)h + 2 * k + row / 8);

    return (bits >> 4 * (row % 8) & 15u) * 0x00204081u & 0x01010101u;
}

static __device__ __forceinline__ float tile_half(const uint16_t *p)
{
    return half_to_float(__ldg(p));
}

struct tile_head {
    float d, m;
};

/* --- what several types have in common -------------------------------------------------------- */

/* One scale a row, of numbers of which pair() gives UNIT times as much. */
template <typename T, unsigned UNIT> struct read_scaled {
    typedef T tile;
    static const unsigned GROUPS = 1;
    static const bool HALVES = false, MINS = false;

    static __device__ __forceinline__ struct tile_head head(const tile *t, unsigned row)
    {
        return { tile_half(&t->d[row]) * (1.0f / UNIT), 0 };
    }
    static __device__ __forceinline__ void scale(const tile *, const struct tile_head &h, unsigned,
                                                 unsigned, float scale[2], float *)
    {
        scale[0] = h.d;
    }
};

/* One scale a row and one minimum. */
template <typename T> struct read_above {
    typedef T tile;
    static const unsigned GROUPS = 1;
    static const bool HALVES = false, MINS = true;

    static __device__ __forceinline__ struct tile_head head(const tile *t, unsigned row)
    {
        return { tile_half(&t->d[row]), tile_half(&t->m[row]) };
    }
    static __device__ __forceinline__ void scale(const tile *, const struct tile_head &h, unsigned,
                                                 unsigned, float scale[2], float *min)
    {
        scale[0] = h.d;
        *min = h.m;
    }
};

/* --- types ------------------------------------------------------------------------------------ */

struct read_q4_0 : read_scaled<struct tile_q4_0, 16> {
    static __device__ __forceinline__ void pair(const tile *t, unsigned, unsigned row, unsigned k,
                                                uint32_t *lo, uint32_t *hi)
    {
        uint32_t w = tile_word(t->q[k][row]);

        *lo = (w << 4 & 0xf0f0f0f0u) ^ SIGNS;
        *hi = (w & 0xf0f0f0f0u) ^ SIGNS;
    }
};

struct read_q4_1 : read_above<struct tile_q4_1> {
    static __device__ __forceinline__ void pair(const tile *t, unsigned, unsigned row, unsigned k,
                                                uint32_t *lo, uint32_t *hi)
    {
        uint32_t w = tile_word(t->q[k][row]);

        *lo = low_nibbles(w);
        *hi = high_nibbles(w);
    }
};

struct read_q5_0 : read_scaled<struct tile_q5_0, 8> {
    static __device__ __forceinline__ void pair(const tile *t, unsigned, unsigned row, unsigned k,
                                                uint32_t *lo, uint32_t *hi)
    {
        uint32_t w = tile_word(t->q[k][row]);

        *lo = (low_nibbles(w) << 3 | fifth_bits(t->h, k, row) << 7) ^ SIGNS;
        *hi = (high_nibbles(w) << 3 | fifth_bits(t->h, k + 4, row) << 7) ^ SIGNS;
    }
};

struct read_q5_1 : read_above<struct tile_q5_1> {
    static __device__ __forceinline__ void pair(const tile *t, unsigned, unsigned row, unsigned k,
                                                uint32_t *lo, uint32_t *hi)
    {
        uint32_t w = tile_word(t->q[k][row]);

        *lo = low_nibbles(w) | fifth_bits(t->h, k, row) << 4;
        *hi = high_nibbles(w) | fifth_bits(t->h, k + 4, row) << 4;
    }
};

struct read_q8_0 : read_scaled<struct tile_q8_0, 1> {
    static __device__ __forceinline__ void pair(const tile *t, unsigned, unsigned row, unsigned k,
                                                uint32_t *lo, uint32_t *hi)
    {
        *lo = tile_word(t->q[k][row]);
        *hi = tile_word(t->q[k + 4][row]);
    }
};

#endif
