/* Queries, keys and values into their places: biases, rotary positions, pages.
 *
 * A warp has one head of one row. A lane turns pairs (i, i + hd / 2), which are its own, so only
 * what is stored (a lane an element) needs the others' to be there. */
#include "cuda/pages.cuh"
#include "cuda/rows.h"

#include "engine/plan.h"

#define WARPS 4u

/* x turned by n positions, each product and sum rounded: the CPU's bits, as stored keys are to
 * have. Not fused: an FMA rounds once where the CPU rounds twice. */
static __device__ __forceinline__ void turn(const struct k_angles *a, float *x, uint32_t hd,
                                            uint32_t n)
{
    for (uint32_t i = threadIdx.x % WARP; i < hd / 2; i += WARP) {
        float x0 = x[i], x1 = x[i + hd / 2], c, s;

        turn_by(a, hd, n, i, &c, &s);
        x[i] = __fsub_rn(__fmul_rn(x0, c), __fmul_rn(x1, s));
        x[i + hd / 2] = __fadd_rn(__fmul_rn(x0, s), __fmul_rn(x1, c));
    }
}

/* By pairs as well: what a lane adds to is what it turns. */
static __device__ __forceinline__ void add_bias(float *x, const float *bias, uint32_t hd)
{
    if (!bias)
        return;
    for (uint32_t i = threadIdx.x % WARP; i < hd / 2; i += WARP) {
        x[i] += bias[i];
        x[i + hd / 2] += bias[i + hd / 2];
    }
}

static __device__ __forceinline__ const float *bias_of(const float *own, const float *model,
                                                       uint32_t head, uint32_t hd)
{
    const float *b = own ? own : model;

    return b ? b + (size_t)head * hd : NULL;
}

static __device__ void place_query(const struct k_place *a, const struct plan_row *row, uint32_t t,
                                   uint32_t head, const float *own)
{
    uint32_t hd = a->pool.head_dim;
    /* In place; scaled here, so that scores need no factor. */
    float *q = a->q + ((size_t)t * a->n_head + head) * hd, by = 1.0f / sqrtf((float)hd);

    add_bias(q, bias_of(own, a->bias.q, head, hd), hd);
    turn(&a->angles, q, hd, row->q_off);
    for (uint32_t i = threadIdx.x % WARP; i < hd / 2; i += WARP) {
        q[i] *= by;
        q[i + hd / 2] *= by;
    }
}

static __device__ void store(const struct k_place *a, const struct plan_row *row, uint32_t head,
                             const float *k, const float *v)
{
    uint8_t *k_tile = k_tile_of(&a->pool, row->page, a->layer, head);
    uint8_t *v_tile = k_tile + a->pool.head_bytes / 2;
    uint32_t hd = a->pool.head_dim;

    __syncwarp(); /* other lanes turned them */
    if (a->pool.kv == KV_F16)
        kv_store_head<KV_F16>(k, v, hd, row->slot, k_tile, v_tile);
    else if (a->pool.kv == KV_F32)
        kv_store_head<KV_F32>(k, v, hd, row->slot, k_tile, v_tile);
    else
        kv_store_head<KV_Q8_0>(k, v, hd, row->slot, k_tile, v_tile);
    __syncwarp();
}

/* A side gist attends to itself from where it stands, which is not where its key is kept. */
static __device__ void place_key(const struct k_place *a, const struct plan_row *row, uint32_t t,
                                 uint32_t head, const struct k_bias *own)
{
    uint32_t hd = a->pool.head_dim;
    size_t at = ((size_t)t * a->pool.n_head_kv + head) * hd;
    float *k = a->k + at, *v = a->v + at;

    add_bias(k, bias_of(own ? own->k : NULL, a->bias.k, head, hd), hd);
    add_bias(v, bias_of(own ? own->v : NULL, a->bias.v, head, hd), hd);
    /* A row whose key is not kept. */
    if (row->page == PLAN_NONE)
        return;
    turn(&a->angles, k, hd, row->k_off);
    store(a, row, head, k, v);
    if (a->pieces[row->piece].side)
        turn(&a->angles, k, hd, row->q_off - row->k_off);
}

static __global__ void __launch_bounds__(WARPS *WARP) place(struct k_place a)
{
    uint32_t head = blockIdx.x * WARPS + threadIdx.x / WARP, t = blockIdx.y;
    const struct plan_row *row = a.rows + t;
    const struct k_bias *own = NULL;

    grid_trigger();
    grid_wait();
    if (a.own && row->kind == PLAN_GIST)
        own = a.own + row->piece;
    if (head < a.n_head)
        place_query(&a, row, t, head, own ? own->q : NULL);
    else if (head < a.n_head + a.pool.n_head_kv)
        place_key(&a, row, t, head - a.n_head, own);
}

int k_place(void *stream, const struct k_place *a)
{
    uint32_t heads = a->n_head + a->pool.n_head_kv;

    return launch(dim3((heads + WARPS - 1) / WARPS, a->n_rows), WARPS * WARP, 0, stream, place, *a);
}
