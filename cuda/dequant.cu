/* A weight's rows as bf16, for products of many rows: read once a chunk of a prompt, so it has to
 * come in as fast as memory gives it, and go out in the rows that cuBLAS wants. */
#include "cuda/matvec.h"
#include "cuda/tiles.cuh"

#define THREADS 256u
#define BLOCKS  4u /* of 32 columns, that a block of threads takes: 64 threads each */

static __device__ __forceinline__ uint2 four_bf16(const float v[4])
{
    return make_uint2(float_to_bf16(v[0]) | (uint32_t)float_to_bf16(v[1]) << 16,
                      float_to_bf16(v[2]) | (uint32_t)float_to_bf16(v[3]) << 16);
}

/* A thread has eight columns of a row: neighbours in a warp have one row's, so that stores are
 * whole sectors. */
template <typename R> static __global__ void __launch_bounds__(THREADS) dequant(struct k_dequant a)
{
    uint32_t block = blockIdx.x * BLOCKS + threadIdx.x / 64, k = threadIdx.x % 4;
    uint32_t row = threadIdx.x / 4 % TILE_ROWS, r = a.row0 + blockIdx.y * TILE_ROWS + row;
    const typename R::tile *t =
        (const typename R::tile *)((const uint8_t *)a.w + (size_t)(r / TILE_ROWS) * a.tile_len) +
        block / R::GROUPS;
    uint32_t bytes[2];
    float scale[2], min = 0, v[4];

    grid_trigger();
    grid_wait();
    /* Columns are whole blocks; the last thread block may have fewer. */
    if (block >= a.n_cols / 32 || r >= a.row1)
        return;
    R::pair(t, block % R::GROUPS, row, k, &bytes[0], &bytes[1]);
    R::scale(t, R::head(t, row), block % R::GROUPS, row, scale, &min);
    for (unsigned half = 0; half < 2; half++) {
        tile_values(bytes[half], scale[R::HALVES ? half : 0], min, v);
        *(uint2 *)(void *)&a.to[(size_t)(r - a.row0) * a.n_cols + block * 32 + half * 16 + k * 4] =
            four_bf16(v);
    }
}

static __global__ void __launch_bounds__(THREADS) dequant_float(struct k_dequant a)
{
    uint32_t c = blockIdx.x * 16 + threadIdx.x / TILE_ROWS;
    uint32_t row = threadIdx.x % TILE_ROWS, r = a.row0 + blockIdx.y * TILE_ROWS + row;
    const uint8_t *tile = (const uint8_t *)a.w + (size_t)(r / TILE_ROWS) * a.tile_len;

    grid_trigger();
    grid_wait();
    if (c < a.n_cols && r < a.row1) {
        size_t at = (size_t)(r - a.row0) * a.n_cols + c;
        float v = tile_float(a.type, tile, row, c);

        a.to[at] = float_to_bf16(v);
        /* Float weights: what bf16 leaves over, for the products of low parts. */
        if (a.low)
            a.low[at] = float_to_bf16(bf16_rest(v));
    }
}

#define RUN(R)                                                                                     \
    return launch(dim3((a->n_cols / 32 + BLOCKS - 1) / BLOCKS, tiles), THREADS, 0, stream,         \
                  dequant<R>, *a)

int k_dequant(void *stream, const struct k_dequant *a)
{
    uint32_t tiles = tile_count(a->row1 - a->row0);

    if (a->row0 % TILE_ROWS || a->row1 <= a->row0)
        return -EIO;
    TILES_SWITCH(
        a->type, RUN,
        return launch(dim3((a->n_cols + 15) / 16, tiles), THREADS, 0, stream, dequant_float, *a))
}
