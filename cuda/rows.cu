/* Rows one by one. What these move is small beside the weights; that there are few of them counts,
 * so each does all that can be done to a row while it is here. */
#include "cuda/rows.h"

#include "cuda/best.cuh"
#include "cuda/forms.cuh"
#include "cuda/tiles.cuh"

#include "engine/plan.h"

#define THREADS 256u
#define WIDE    512u /* of a block that has a whole row, at most */

/* --- embedding -------------------------------------------------------------------------------- */

/* A token's row, or gist's sum. Work item: eight columns of a quantised row, one of another. */
template <typename R>
static __device__ void embed_quantised(const struct k_embed *a, uint32_t id, float *x)
{
    /* Of the 16 rows in which this one lies. */
    const typename R::tile *tiles =
        (const typename R::tile *)((const uint8_t *)a->tiles + id / TILE_ROWS * a->tile_len);
    unsigned row = id % TILE_ROWS;

    for (uint32_t i = threadIdx.x; i < a->n_embd / 8; i += blockDim.x) {
        uint32_t block = i / 4, k = i % 4, group = block % R::GROUPS, bytes[2];
        const typename R::tile *t = tiles + block / R::GROUPS;
        float scale[2], min = 0, v[4];

        R::pair(t, group, row, k, &bytes[0], &bytes[1]);
        R::scale(t, R::head(t, row), group, row, scale, &min);
        for (unsigned half = 0; half < 2; half++) {
            tile_values(bytes[half], scale[R::HALVES ? half : 0], min, v);
            for (unsigned j = 0; j < 4; j++)
                x[block * 32 + half * 16 + k * 4 + j] = v[j];
        }
    }
}

static __device__ void embed_float(const struct k_embed *a, uint32_t id, float *x)
{
    const uint8_t *tile = (const uint8_t *)a->tiles + id / TILE_ROWS * a->tile_len;

    for (uint32_t i = threadIdx.x; i < a->n_embd; i += blockDim.x)
        x[i] = tile_float(a->type, tile, id % TILE_ROWS, i);
}

#define EMBED(R)                                                                                   \
    embed_quantised<R>(a, id, x);                                                                  \
    break
/* All threads of the block, each its columns. */
static __device__ void embed_token(const struct k_embed *a, uint32_t id, float *x)
{
    TILES_SWITCH(a->type, EMBED, embed_float(a, id, x))
}

static __global__ void __launch_bounds__(THREADS) embed(struct k_embed a)
{
    const struct plan_row *row = a.rows + blockIdx.x;
    float *x = a.x + (size_t)blockIdx.x * a.n_embd;
    const float *own = NULL;

    grid_trigger();
    grid_wait();
    if (row->kind == PLAN_SOFT)
        own = a.pieces[row->piece].soft + (size_t)row->id * a.n_embd;
    else if (row->kind == PLAN_GIST)
        own = a.gists[row->piece] + (size_t)row->gist * a.n_embd;
    if (row->kind == PLAN_TOKEN || (row->kind == PLAN_GIST && row->id != PLAN_NONE)) {
        embed_token(&a, row->id, x);
        __syncthreads();
        /* Other threads wrote these columns, as a quantised row's work is shared by eights: so
         * behind a barrier. */
        for (uint32_t i = threadIdx.x; own && i < a.n_embd; i += blockDim.x)
            x[i] += own[i];
        return;
    }
    /* A soft row, or a gist that has no token. */
    for (uint32_t i = threadIdx.x; i < a.n_embd; i += blockDim.x)
        x[i] = own[i];
}

int k_embed(void *stream, const struct k_embed *a)
{
    return launch(a->n_rows, THREADS, 0, stream, embed, *a);
}

/* --- norms ------------------------------------------------------------------------------------ */

/* A thread meets the same columns twice, so what it wrote the first time needs no barrier. */
static __global__ void __launch_bounds__(WIDE) norm(struct k_norm a)
{
    float *x = a.x + (size_t)blockIdx.x * a.n, *to = a.to + (size_t)blockIdx.x * a.n, sum = 0, by;
    const float *add = a.add ? a.add + (size_t)blockIdx.x * a.n : NULL;

    grid_trigger();
    grid_wait();
    for (uint32_t i = threadIdx.x; i < a.n; i += blockDim.x) {
        float v = x[i];

        if (add) {
            v += add[i];
            x[i] = v;
        }
        sum += v * v;
    }
    sum = block_sum(sum);
    /* In f32: a row has few thousand values. */
    by = 1 / sqrtf(sum / (float)a.n + a.eps) + (sum - sum); /* an infinite sum would make it 0 */
    for (uint32_t i = threadIdx.x; i < a.n; i += blockDim.x) {
        float v = x[i] * by * a.w[i];

        to[i] = v;
        /* What the product behind wants, while the value is in a register. */
        store_forms(&a.forms, blockIdx.x, a.n, i, v);
    }
}

/* Whole warps, and of a short row none that has no column: they would add zeros. */
static unsigned wide(uint32_t n)
{
    return n < WIDE ? (n + WARP - 1) / WARP * WARP : WIDE;
}

int k_norm(void *stream, const struct k_norm *a)
{
    return launch(a->n_rows, wide(a->n), 0, stream, norm, *a);
}

/* --- a column a thread ------------------------------------------------------------------------ */

/* A row in y of the grid. */
static dim3 columns(uint32_t n, uint32_t n_rows)
{
    return dim3((n + THREADS - 1) / THREADS, n_rows);
}

static __device__ __forceinline__ uint32_t column(void)
{
    return blockIdx.x * THREADS + threadIdx.x;
}

static __global__ void __launch_bounds__(THREADS) convert(struct k_convert a)
{
    uint32_t i = column(), t = blockIdx.y;

    grid_trigger();
    grid_wait();
    if (i < a.n)
        store_forms(&a.forms, t, a.n, i, a.x[(size_t)t * a.n + i]);
}

int k_convert(void *stream, const struct k_convert *a)
{
    return launch(columns(a->n, a->n_rows), THREADS, 0, stream, convert, *a);
}

/* Two rows of int8: the value, and what that leaves over. */
static __global__ void __launch_bounds__(THREADS) fine(struct k_fine a)
{
    uint32_t i = column(), t = blockIdx.y, n_blocks = a.n / 32;
    struct k_q8 *to = a.q8 + 2 * (size_t)t * n_blocks + i / 32;

    grid_trigger();
    grid_wait();
    if (i < a.n)
        (void)quantise_block(quantise_block(a.x[(size_t)t * a.n + i], to), to + n_blocks);
}

int k_fine(void *stream, const struct k_fine *a)
{
    return launch(columns(a->n, a->n_rows), THREADS, 0, stream, fine, *a);
}

/* The products of the two are one logit. */
static __global__ void __launch_bounds__(THREADS) fold(struct k_fold a)
{
    uint32_t i = column();
    const float *x = a.x + 2 * (size_t)blockIdx.y * a.n;

    grid_trigger();
    grid_wait();
    if (i < a.n)
        a.to[(size_t)blockIdx.y * a.n + i] = x[i] + x[a.n + i];
}

int k_fold(void *stream, const struct k_fold *a)
{
    return launch(columns(a->n, a->n_rows), THREADS, 0, stream, fold, *a);
}

static __global__ void __launch_bounds__(THREADS) swiglu(struct k_swiglu a)
{
    uint32_t i = column(), t = blockIdx.y;
    size_t at = (size_t)t * a.n + i;

    grid_trigger();
    grid_wait();
    if (i < a.n) {
        /* gate is read and written by the same thread. */
        float g = a.gate[at], v = g / (1 + expf(-g)) * a.up[at];

        a.gate[at] = v;
        store_forms(&a.forms, t, a.n, i, v);
    }
}

int k_swiglu(void *stream, const struct k_swiglu *a)
{
    return launch(columns(a->n, a->n_rows), THREADS, 0, stream, swiglu, *a);
}

/* --- rows that are wanted --------------------------------------------------------------------- */

static __global__ void __launch_bounds__(THREADS) keep_out(struct k_keep a)
{
    uint32_t i = column(), all = a.n + a.m, row;

    grid_wait();
    row = a.out_rows[blockIdx.y];
    if (i < all)
        a.spare[(size_t)blockIdx.y * all + i] =
            i < a.n ? a.x[(size_t)row * a.n + i] : a.y[(size_t)row * a.m + i - a.n];
}

static __global__ void __launch_bounds__(THREADS) keep_in(struct k_keep a)
{
    uint32_t i = column(), all = a.n + a.m;
    float v;

    grid_wait();
    if (i >= all)
        return;
    v = a.spare[(size_t)blockIdx.y * all + i];
    if (i < a.n)
        a.x[(size_t)blockIdx.y * a.n + i] = v;
    else
        a.y[(size_t)blockIdx.y * a.m + i - a.n] = v;
}

/* By way of a spare buffer: rows move to the front, over rows that others still have to read. */
int k_keep(void *stream, const struct k_keep *a)
{
    dim3 grid = columns(a->n + a->m, a->n_out);
    int r = launch(grid, THREADS, 0, stream, keep_out, *a);

    return r < 0 ? r : launch(grid, THREADS, 0, stream, keep_in, *a);
}

/* --- logits ----------------------------------------------------------------------------------- */

static __global__ void __launch_bounds__(WIDE) logprobs(struct k_logprobs a)
{
    const float *x = a.logits + (size_t)blockIdx.x * a.n_vocab;
    /* Two passes: a row is in the cache behind the first. */
    float most = -INFINITY, sum = 0, bad = 0;

    grid_trigger();
    grid_wait();
    for (uint32_t i = threadIdx.x; i < a.n_vocab; i += blockDim.x) {
        float v = x[i];

        bad += is_finite(v) ? 0.0f : 1.0f;
        most = v > most ? v : most;
    }
    bad = block_sum(bad);
    most = block_max(most);
    for (uint32_t i = threadIdx.x; i < a.n_vocab; i += blockDim.x)
        sum += expf(x[i] - most);
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        /* One logit that is no number makes the whole distribution none. */
        a.to[blockIdx.x] = bad > 0 ? NAN : x[a.ids[blockIdx.x]] - (most + logf(sum));
}

int k_logprobs(void *stream, const struct k_logprobs *a)
{
    return launch(a->n, WIDE, 0, stream, logprobs, *a);
}

static __global__ void __launch_bounds__(WIDE) argmax(struct k_argmax a)
{
    const float *x = a.logits + (size_t)blockIdx.x * a.n_vocab;
    struct best b = BEST_NONE;

    grid_trigger();
    grid_wait();
    for (uint32_t i = threadIdx.x; i < a.n_vocab; i += blockDim.x)
        if (x[i] > b.x)
            b = { x[i], i };
    b = block_best(b);
    if (threadIdx.x == 0)
        a.to[blockIdx.x] = b.at == UINT32_MAX ? 0 : b.at;
}

int k_argmax(void *stream, const struct k_argmax *a)
{
    return launch(a->n, WIDE, 0, stream, argmax, *a);
}
