/* cuda/move.cu - moves of compression, a block a layer's KV head.
 *
 * Keys move in place, sixteen at a time: all are read before one is written. Towards lower places
 * it goes from the front, towards higher ones from the end, as on the CPU. Then no later one is
 * written over: kept places ascend, so what is still to be read lies behind all that was read.
 */
#include "cuda/move.h"
#include "cuda/pages.cuh"

#define WARPS   16u
#define THREADS (WARPS * 32u)

struct slot_of {
    uint8_t *k, *v; /* tiles */
    uint32_t slot;
};

static __device__ __forceinline__ struct slot_of
find_slot(const struct k_pool *p, const uint32_t *pages, uint32_t key, uint32_t list)
{
    struct slot_of s;

    s.k = k_tile_of(p, pages[key / PAGE_TOKENS], list / p->n_head_kv, list % p->n_head_kv);
    s.v = s.k + p->head_bytes / 2;
    s.slot = key % PAGE_TOKENS;
    return s;
}

/* A warp's key and value as f32. */
template <unsigned KV>
static __device__ __forceinline__ void read_slot(const struct slot_of *s, uint32_t hd, float *k,
                                                 float *v)
{
    for (uint32_t i = threadIdx.x % 32; i < hd; i += 32) {
        /* Keys lie by dims, values by keys. */
        k[i] = kv_at<KV>(s->k, hd, i * PAGE_TOKENS + s->slot, i, s->slot);
        v[i] = kv_at<KV>(s->v, hd, s->slot * hd + i, i, s->slot);
    }
}

/* By so many places, to either side. */
static __device__ __forceinline__ void turn_key(const struct k_angles *a, uint32_t hd, int by,
                                                float *k)
{
    __syncwarp();
    for (uint32_t i = threadIdx.x % 32; i < hd / 2; i += 32) {
        float c, s, x0 = k[i], x1 = k[i + hd / 2];

        turn_by(a, hd, (uint32_t)(by < 0 ? -by : by), i, &c, &s);
        s = by < 0 ? -s : s;
        k[i] = x0 * c - x1 * s;
        k[i + hd / 2] = x0 * s + x1 * c;
    }
    __syncwarp();
}

/* Element by element: rounding again could change it. */
template <typename T>
static __device__ __forceinline__ void copy_elements(const uint8_t *from, uint8_t *to, uint32_t n,
                                                     uint32_t first, uint32_t step)
{
    for (uint32_t i = threadIdx.x % 32; i < n; i += 32)
        ((T *)(void *)to)[first + i * step] = ((const T *)(const void *)from)[first + i * step];
}

template <typename T>
static __device__ __forceinline__ void copy_slot(const struct slot_of *a, const struct slot_of *b,
                                                 uint32_t hd)
{
    copy_elements<T>(a->k, b->k, hd, a->slot, PAGE_TOKENS);
    copy_elements<T>(a->v, b->v, hd, a->slot * hd, 1);
    /* Only Q8_0 has scales behind its bytes. */
    if (sizeof(T) > 1)
        return;
    copy_elements<uint16_t>(a->k + hd * PAGE_TOKENS, b->k + hd * PAGE_TOKENS, (hd + 31) / 32,
                            a->slot, PAGE_TOKENS);
    copy_elements<uint16_t>(a->v + hd * PAGE_TOKENS, b->v + hd * PAGE_TOKENS, (hd + 31) / 32,
                            a->slot, PAGE_TOKENS);
}

template <unsigned KV> static __global__ void __launch_bounds__(THREADS) move_keys(struct k_move a)
{
    SHARED_DYNAMIC(float, mem);
    uint32_t hd = a.pool.head_dim, warp = threadIdx.x / 32, list = a.first_list + blockIdx.x;
    float *k = mem + 2 * warp * hd, *v = k + hd;

    grid_wait();
    const uint32_t *kept = a.kept + (a.per_head ? (size_t)blockIdx.x * a.n_keys : 0);
    /* The last one alone says it: kept places ascend, and move all to one side. */
    bool up = kept[a.n_keys - 1] < a.n_keys - 1;

    for (uint32_t done = 0; done < a.n_keys - a.first; done += WARPS) {
        uint32_t i = done + warp, from, to;
        bool here = i < a.n_keys - a.first;
        struct slot_of s, d;

        to = up ? a.n_keys - 1 - i : a.first + i;
        /* Behind the end nothing moves, but the barriers are for all warps. */
        from = here ? kept[to] : to;
        if (here) {
            s = find_slot(&a.pool, a.from, from, list);
            d = find_slot(&a.pool, a.to, to, list);
        }
        if (from != to) {
            read_slot<KV>(&s, hd, k, v);
            turn_key(&a.angles, hd, (int)to - (int)from, k);
        }
        __syncthreads();
        if (from != to)
            /* Rounded again, as a turned key has other values. */
            kv_store_head<KV>(k, v, hd, d.slot, d.k, d.v);
        else if (here && s.k != d.k && KV == KV_F32)
            copy_slot<uint32_t>(&s, &d, hd);
        else if (here && s.k != d.k && KV == KV_F16)
            copy_slot<uint16_t>(&s, &d, hd);
        else if (here && s.k != d.k)
            copy_slot<uint8_t>(&s, &d, hd);
        __syncthreads(); /* before k and v are written again, and pages are read */
    }
}

template <unsigned KV>
static __global__ void __launch_bounds__(THREADS) sum_squares(struct k_norms a)
{
    uint32_t hd = a.pool.head_dim, list = blockIdx.x;

    grid_wait();
    for (uint32_t key = threadIdx.x / 32; key < a.n_keys; key += WARPS) {
        struct slot_of s = find_slot(&a.pool, a.pages, key, list);
        float sum = 0;

        for (uint32_t i = threadIdx.x % 32; i < hd; i += 32) {
            float x = kv_at<KV>(s.k, hd, i * PAGE_TOKENS + s.slot, i, s.slot);

            sum += x * x;
        }
        sum = warp_sum(sum);
        /* One lane of the warp that has the key. */
        if (threadIdx.x % 32 == 0)
            a.to[(size_t)list * a.n_keys + key] = sum;
    }
}

int k_move(void *stream, const struct k_move *a)
{
    dim3 grid(a->n_lists ? a->n_lists : a->pool.n_layer * a->pool.n_head_kv);
    size_t shared = 2 * WARPS * a->pool.head_dim * sizeof(float);

    if (a->first >= a->n_keys)
        return 0;
    return launch(grid, dim3(THREADS), shared, stream, KV_OF(a->pool.kv, move_keys), *a);
}

int k_norms(void *stream, const struct k_norms *a)
{
    dim3 grid(a->pool.n_layer * a->pool.n_head_kv);

    if (a->n_keys == 0)
        return 0;
    return launch(grid, dim3(THREADS), 0, stream, KV_OF(a->pool.kv, sum_squares), *a);
}
