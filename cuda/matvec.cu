/* A weight times one to eight rows, where all that counts is how fast the weight comes in.
 *
 * Quantised types go through int8 matrix units: a tile has 16 rows and a block 32 columns, as
 * mma m16n8k32 has, and its third side is the eight rows of x. So a weight is unpacked once for all
 * of them, and a lane's part of a block is what it reads anyhow (cuda/tiles.cuh):
 *
 *     lane (g, t)   weights: rows g and g + 8, columns 4t .. and 16 + 4t ..     two dwords, or four
 *                   x: row g, the same columns                                 two dwords
 *                   sums: rows g and g + 8 by rows 2t and 2t + 1 of x          four, exact integers
 *
 * A block of threads has a tile; its warps take blocks of columns in turn, and their sums are added
 * in one order. So a result does not depend on n_x, and y[t] has the same bits alone and in a
 * batch.
 */
#include "cuda/matvec.h"

#include "cuda/tiles.cuh"

#define WARPS_MAX 16u
#define ROWS_X    K_MATVEC_ROWS
#define AT_ONCE   2u /* blocks whose loads are under way together */
#define LINE      128u
#define AHEAD     (48u << 10) /* bytes that a tile is called for before their turn */

/* Adds the warps' sums and leaves them in y. */
static __device__ __forceinline__ void finish(const struct k_matvec *a,
                                              const float (&part)[WARPS_MAX][ROWS_X][TILE_ROWS])
{
    unsigned row = threadIdx.x % TILE_ROWS, t = threadIdx.x / TILE_ROWS, r;
    float sum = 0;

    /* All warps have left their part. */
    __syncthreads();
    r = blockIdx.x * TILE_ROWS + row;
    if (t >= a->n_x || r >= a->n_rows)
        return;
    for (unsigned w = 0; w < blockDim.x / WARP; w++)
        sum += part[w][t][row];
    if (a->add)
        sum += a->y[t * a->y_stride + r];
    a->y[t * a->y_stride + r] = sum;
}

/* What a lane holds of a block: of x, and of the weights' rows g and g + 8. */
struct x_part {
    uint32_t b[2];
    float d[2], s[2];
};
struct w_part {
    uint32_t a[4];
    float scale[2][2], min[2];
};

static __device__ __forceinline__ const struct k_q8 *x_at(const struct k_matvec *a, unsigned t,
                                                          uint32_t block)
{
    return (const struct k_q8 *)((const uint8_t *)a->x + t * a->x_stride) + block;
}

/* ONE: there is one row, and half of the loads are not needed. */
template <typename R, bool ONE>
static __device__ __forceinline__ void load_x(const struct k_matvec *a, uint32_t block, unsigned g,
                                              unsigned t, struct x_part *ret)
{
    /* Rows of x that are not there are zeros. */
    ret->b[0] = ret->b[1] = 0;
    if (g < (ONE ? 1 : a->n_x)) {
        const uint32_t *q = (const uint32_t *)(const void *)x_at(a, g, block)->q;

        ret->b[0] = q[t];
        ret->b[1] = q[t + 4];
    }
    for (unsigned i = 0; i < 2; i++) {
        bool here = ONE ? i == 0 : 2 * t + i < a->n_x;
        const struct k_q8 *x = x_at(a, ONE ? 0 : 2 * t + i, block);

        ret->d[i] = here ? x->d : 0;
        ret->s[i] = R::MINS && here ? x->s : 0;
    }
}

template <typename R>
static __device__ __forceinline__ void load_w(const typename R::tile *tile,
                                              const struct tile_head head[2], unsigned group,
                                              unsigned g, unsigned t, struct w_part *ret)
{
    R::pair(tile, group, g, t, &ret->a[0], &ret->a[2]);
    R::pair(tile, group, g + 8, t, &ret->a[1], &ret->a[3]);
    ret->min[0] = ret->min[1] = 0;
    R::scale(tile, head[0], group, g, ret->scale[0], &ret->min[0]);
    R::scale(tile, head[1], group, g + 8, ret->scale[1], &ret->min[1]);
}

/* A column of sums that nobody has asked for costs nothing: its d is a zero that the compiler sees.
 */
template <typename R, bool ONE>
static __device__ __forceinline__ void multiply(const struct w_part *w, const struct x_part *x,
                                                float acc[4])
{
    int32_t dot[2][4] = { { 0, 0, 0, 0 }, { 0, 0, 0, 0 } };

    if (R::HALVES) {
        mma_s8_k16(dot[0], w->a, &x->b[0]);
        mma_s8_k16(dot[1], w->a + 2, &x->b[1]);
    } else {
        mma_s8_k32(dot[0], w->a, x->b);
    }
    for (unsigned i = 0; i < 4; i += ONE ? 2 : 1) {
        unsigned row = i / 2, col = i % 2;

        acc[i] += w->scale[row][0] * x->d[col] * (float)dot[0][i];
        if (R::HALVES)
            acc[i] += w->scale[row][1] * x->d[col] * (float)dot[1][i];
        if (R::MINS)
            acc[i] += w->min[row] * x->s[col];
    }
}

/* Into the second-level cache, before its turn: a whole warp calls for the line of each lane. So
 * most of what is under way from memory needs no registers. */
static __device__ __forceinline__ void call_ahead(const uint8_t *at, size_t n, const uint8_t *end)
{
    const uint8_t *mine = at + threadIdx.x % WARP * LINE;

    if (threadIdx.x % WARP * LINE < n && mine < end)
        prefetch(mine);
}

/* A warp takes a tile of the reader at a time: a super-block, or AT_ONCE blocks side by side, of
 * which those past the end count as zero. All loads stand before the products. */
template <typename R, bool ONE>
static __device__ __forceinline__ void add_tiles(const struct k_matvec *a,
                                                 const typename R::tile *tiles, uint32_t i,
                                                 uint32_t n, float acc[4])
{
    const unsigned at_once = R::GROUPS == 1 ? AT_ONCE : 1;
    unsigned lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    struct tile_head head[AT_ONCE][2];

#pragma unroll
    for (unsigned j = 0; j < at_once; j++) {
        const typename R::tile *tile = tiles + (i + j < n ? i + j : n - 1);

        head[j][0] = R::head(tile, g);
        head[j][1] = R::head(tile, g + 8);
    }
#pragma unroll
    for (unsigned group = 0; group < R::GROUPS; group += R::GROUPS == 1 ? 1 : AT_ONCE) {
        struct w_part w[AT_ONCE];
        struct x_part x[AT_ONCE];

#pragma unroll
        for (unsigned j = 0; j < AT_ONCE; j++) {
            uint32_t at = R::GROUPS > 1 || i + j < n ? i + (R::GROUPS > 1 ? 0 : j) : n - 1;
            unsigned part = R::GROUPS > 1 ? group + j : 0;

            load_w<R>(tiles + at, head[R::GROUPS > 1 ? 0 : j], part, g, t, &w[j]);
            load_x<R, ONE>(a, at * R::GROUPS + part, g, t, &x[j]);
            if (R::GROUPS == 1 && i + j >= n)
                x[j].d[0] = x[j].d[1] = x[j].s[0] = x[j].s[1] = 0;
        }
#pragma unroll
        for (unsigned j = 0; j < AT_ONCE; j++)
            multiply<R, ONE>(&w[j], &x[j], acc);
    }
}

template <typename R, bool ONE>
static __global__ void __launch_bounds__(WARPS_MAX *WARP) matvec_q8(struct k_matvec a)
{
    SHARED_STATIC(float, part, [WARPS_MAX][ROWS_X][TILE_ROWS]);
    const uint8_t *at = (const uint8_t *)a.w + (size_t)blockIdx.x * a.tile_len;
    const typename R::tile *tiles = (const typename R::tile *)at;
    const unsigned step = R::GROUPS == 1 ? AT_ONCE : 1;
    unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    uint32_t n = a.n_cols / 32 / R::GROUPS, n_warps = blockDim.x / WARP;
    float acc[4] = { 0, 0, 0, 0 };

    grid_trigger();
    for (size_t off = (size_t)warp * WARP * LINE; off < AHEAD; off += n_warps * WARP * LINE)
        call_ahead(at + off, WARP * LINE, at + a.tile_len);
    grid_wait();
    for (uint32_t i = warp * step; i < n; i += n_warps * step) {
        call_ahead((const uint8_t *)&tiles[i] + AHEAD, step * sizeof(*tiles), at + a.tile_len);
        add_tiles<R, ONE>(&a, tiles, i, n, acc);
    }
    for (unsigned i = 0; i < 4; i++)
        part[warp][2 * t + i % 2][g + 8 * (i / 2)] = acc[i];
    finish(&a, part);
}

/* --- floats ----------------------------------------------------------------------------------- */

/* Four rows of a column, or of two columns side by side: a lane's 8 or 16 bytes. */
struct read_f32 {
    static const unsigned COLS = 1;
    static __device__ __forceinline__ void load(const void *tile, uint32_t col, unsigned row,
                                                float w[1][4])
    {
        float4 v = __ldcs((const float4 *)tile + (size_t)col * 4 + row / 4);

        w[0][0] = v.x, w[0][1] = v.y, w[0][2] = v.z, w[0][3] = v.w;
    }
};

struct read_f16 {
    static const unsigned COLS = 1;
    static __device__ __forceinline__ void load(const void *tile, uint32_t col, unsigned row,
                                                float w[1][4])
    {
        uint2 v = __ldcs((const uint2 *)tile + (size_t)col * 4 + row / 4);

        w[0][0] = half_to_float((uint16_t)v.x), w[0][1] = half_to_float((uint16_t)(v.x >> 16));
        w[0][2] = half_to_float((uint16_t)v.y), w[0][3] = half_to_float((uint16_t)(v.y >> 16));
    }
};

struct read_bf16 {
    static const unsigned COLS = 2;
    static __device__ __forceinline__ void load(const void *tile, uint32_t pair, unsigned row,
                                                float w[2][4])
    {
        uint4 v = __ldcs((const uint4 *)tile + (size_t)pair * 4 + row / 4);
        unsigned all[4] = { v.x, v.y, v.z, v.w };

        for (int i = 0; i < 4; i++) {
            w[0][i] = bf16_to_float((uint16_t)all[i]);
            w[1][i] = bf16_to_float((uint16_t)(all[i] >> 16));
        }
    }
};

template <typename R, unsigned N>
static __device__ __forceinline__ void add_columns(const struct k_matvec *a, const void *tile,
                                                   uint32_t i, unsigned row, float acc[N][4])
{
    float w[R::COLS][4];

    R::load(tile, i, row, w);
    for (unsigned c = 0; c < R::COLS; c++) {
        uint32_t col = i * R::COLS + c;

        for (unsigned t = 0; t < N; t++) {
            const float *x = (const float *)((const uint8_t *)a->x + t * a->x_stride);
            float v = t < a->n_x && col < a->n_cols ? __ldg(x + col) : 0;

            for (unsigned r = 0; r < 4; r++)
                acc[t][r] += w[c][r] * v;
        }
    }
}

/* A warp takes eight columns at a time, four lanes for the 16 rows of each. */
template <typename R, unsigned N>
static __global__ void __launch_bounds__(WARPS_MAX *WARP) matvec_float(struct k_matvec a)
{
    SHARED_STATIC(float, part, [WARPS_MAX][ROWS_X][TILE_ROWS]);
    /* A block of threads has one tile: all columns of 16 rows. */
    const uint8_t *tile = (const uint8_t *)a.w + (size_t)blockIdx.x * a.tile_len;
    unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, row = lane % 4 * 4;
    uint32_t n = (a.n_cols + R::COLS - 1) / R::COLS;
    float acc[N][4];

    grid_trigger();
    grid_wait();
    for (unsigned t = 0; t < N; t++)
        for (unsigned r = 0; r < 4; r++)
            acc[t][r] = 0;
#pragma unroll 4
    for (uint32_t i = threadIdx.x / 4; i < n; i += blockDim.x / 4)
        add_columns<R, N>(&a, tile, i, row, acc);
    for (unsigned t = 0; t < N; t++) {
        for (unsigned r = 0; r < 4; r++) {
            for (int by = 16; by >= 4; by /= 2)
                acc[t][r] += __shfl_xor_sync(~0u, acc[t][r], by);
            if (lane < 4)
                part[warp][t][row + r] = acc[t][r];
        }
    }
    finish(&a, part);
}

/* --- launching -------------------------------------------------------------------------------- */

/* More warps for each where there are few tiles: a device has room for two or three thousand warps
 * at least, and asks for all of them to keep its memory busy. units: what a warp takes at a time.
 */
static dim3 threads(const struct k_matvec *a, uint32_t units)
{
    uint32_t warps = tile_count(a->n_rows) > 512 ? 8 : 16;

    while (warps > 4 && warps > units)
        warps /= 2;
    return dim3(warps * WARP);
}

template <typename R> static int run_float(void *stream, const struct k_matvec *a)
{
    dim3 grid(tile_count(a->n_rows)), dim = threads(a, a->n_cols / R::COLS / 8);

    /* By powers of two, so that sums stay in registers. */
    if (a->n_x <= 1)
        return launch(grid, dim, 0, stream, matvec_float<R, 1>, *a);
    if (a->n_x <= 2)
        return launch(grid, dim, 0, stream, matvec_float<R, 2>, *a);
    if (a->n_x <= 4)
        return launch(grid, dim, 0, stream, matvec_float<R, 4>, *a);
    return launch(grid, dim, 0, stream, matvec_float<R, 8>, *a);
}

static int run_floats(void *stream, const struct k_matvec *a)
{
    if (a->type == QUANT_F32)
        return run_float<read_f32>(stream, a);
    return a->type == QUANT_F16 ? run_float<read_f16>(stream, a) : run_float<read_bf16>(stream, a);
}

bool k_matvec_takes_q8(uint32_t type)
{
    return type != QUANT_F32 && type != QUANT_F16 && type != QUANT_BF16;
}

template <typename R> static int run_q8(void *stream, const struct k_matvec *a)
{
    uint32_t blocks = a->n_cols / 32;
    dim3 grid(tile_count(a->n_rows));
    dim3 dim = threads(a, blocks / (R::GROUPS == 1 ? AT_ONCE : R::GROUPS));

    return a->n_x == 1 ? launch(grid, dim, 0, stream, matvec_q8<R, true>, *a)
                       : launch(grid, dim, 0, stream, matvec_q8<R, false>, *a);
}

#define RUN_Q8(R) return run_q8<R>(stream, a)

int k_matvec(void *stream, const struct k_matvec *a)
{
    if (a->n_x == 0 || a->n_x > ROWS_X)
        return -EIO;
    TILES_SWITCH(a->type, RUN_Q8, return run_floats(stream, a))
}
