/* cuda/attend_decode.cu - attention of a few rows behind a long context.
 *
 * What costs here is to read the pages once, so what counts is bytes under way: each of four warps
 * has a run of pages of its own and the next one or two on their way, and no warp waits for another
 * until the end. Runs, and not every fourth page: queries are turned once for all pages of a
 * segment that lie side by side.
 */
#include "cuda/attend_kernels.h"
#include "cuda/attend_scores.cuh"
#include "cuda/attend_values.cuh"

#include <errno.h>

#define WARPS   4u
#define THREADS (WARPS * 32u)
#define LISTED  256u /* pages of an item listed at a time */
#define ROWS    8u

/* Pages of a warp in shared memory: three, or two of the largest, so that several blocks have room
 * on one processor, and a block on the smallest. */
template <unsigned HD, unsigned KV>
static const unsigned n_stages = sizeof(struct page_stage<HD, KV>) > 6000 ? 2 : 3;

/* What a warp carries from page to page: of its lane's row g, and columns of o. */
template <unsigned HD> struct lane_state {
    float raw[HD / 8][2];
    uint32_t q[HD / 16][4];
    uint32_t turned;
    float m, l, o[HD / 8][4];
};

template <unsigned HD, unsigned KV>
static __device__ __forceinline__ void
see_page(const struct k_attend *a, const struct plan_piece *p, const struct k_attend_item *it,
         const struct page_ref *ref, struct page_stage<HD, KV> *st, unsigned lane,
         struct lane_state<HD> *x)
{
    unsigned g = lane / 4, t = lane % 4;
    uint32_t token = (it->row + g) / group_of(a);
    float s[2][4], w[4], by;
    bool seen[2][2];

    if (ref->n_keys < PAGE_TOKENS) {
        clear_values<HD, KV>(st, ref->n_keys, lane, 32);
        __syncwarp();
    }
    if (ref->turn != x->turned) { /* of all lanes */
        struct lane_turn<HD> turn;

        /* Seldom: pages of a segment that follow each other are turned alike. */
        x->turned = ref->turn;
        load_turn<HD>(&a->angles, ref->turn, t, &turn);
        /* In a high and a low part, as rows g and g + 8 of the product: f16 alone would round it.
         * The two scores are added. */
        put_row<HD, true>(x->raw, &turn, 0, x->q);
    }
    score_page<HD, KV>(st, x->q, lane, s);
    for (unsigned i = 0; i < 4; i++) {
        unsigned h = i / 2, j = i % 2;
        uint32_t key = key_of<KV>(h, j, t);

        seen[h][j] = key < ref->n_keys;
        w[i] = g < it->n_rows && sees(p, ref, token, key) ? s[h][j] + s[h][j + 2] : -INFINITY;
    }
    by = soften_row(w, &x->m, &x->l);
    for (unsigned i = 0; i < 4; i++)
        s[i / 2][i % 2] = w[i];
    /* A maximum that stays, as most do, needs no pass over the sums. */
    if (__ballot_sync(~0u, by != 1))
        for (unsigned i = 0; i < HD / 8; i++)
            for (unsigned j = 0; j < 4; j++)
                x->o[i][j] *= by;
    add_page<HD, KV, true>(st, s, seen, lane, x->o);
}

/* A warp's pages, refs[0, n). */
template <unsigned HD, unsigned KV>
static __device__ __forceinline__ void
see_run(const struct k_attend *a, const struct plan_piece *p, const struct k_attend_item *it,
        uint32_t head, const struct page_ref *refs, uint32_t n, struct page_stage<HD, KV> *stages,
        unsigned lane, struct lane_state<HD> *x)
{
    /* The pages that are on their way. */
    const unsigned ahead = n_stages<HD, KV> - 1;

    for (uint32_t i = 0; i < n + ahead; i++) {
        /* A lane may still read what is written over now. */
        __syncwarp();
        if (i < n) {
            const uint8_t *k = k_tile_of(&a->pool, refs[i].page, a->layer, head);

            fetch_page<HD, KV>(&stages[i % (ahead + 1)], k, k + a->pool.head_bytes / 2, lane, 32);
        }
        /* Also with nothing in it: what is waited for is counted in commits. */
        cp_async_commit();
        if (i < ahead)
            continue;
        cp_async_wait<n_stages<HD, KV> - 1>();
        __syncwarp(); /* what the other lanes copied */
        see_page<HD, KV>(a, p, it, &refs[i - ahead], &stages[(i - ahead) % (ahead + 1)], lane, x);
    }
}

/* What the warps of a block leave, in the place of their pages. */
template <unsigned HD> struct warp_results {
    float m[WARPS][ROWS], l[WARPS][ROWS], o[WARPS][ROWS][HD];
};

template <unsigned HD, unsigned KV>
static __device__ __forceinline__ void leave(struct warp_results<HD> *r, unsigned warp,
                                             unsigned lane, const struct lane_state<HD> *x)
{
    unsigned g = lane / 4, t = lane % 4;

    if (t == 0) {
        r->m[warp][g] = x->m;
        r->l[warp][g] = x->l;
    }
    for (unsigned i = 0; i < HD / 8; i++)
        for (unsigned j = 0; j < 2; j++)
            r->o[warp][g][dim_of<HD, KV>(i, j, t)] = x->o[i][j] + x->o[i][j + 2];
}

template <unsigned HD>
static __device__ __forceinline__ void join(const struct k_attend *a, const struct plan_piece *p,
                                            const struct k_attend_item *it, uint32_t head,
                                            const struct warp_results<HD> *r)
{
    for (uint32_t i = threadIdx.x; i < it->n_rows * HD; i += THREADS) {
        uint32_t row = i / HD, c = i % HD;
        float top = -INFINITY, l = 0, o = 0;

        for (unsigned w = 0; w < WARPS; w++)
            top = fmaxf(top, r->m[w][row]);
        for (unsigned w = 0; w < WARPS; w++) {
            float by = r->m[w][row] == -INFINITY ? 0 : __expf(r->m[w][row] - top);

            l += r->l[w][row] * by;
            o += r->o[w][row][c] * by;
        }
        put_result(a, p, it, head, row, c, top, l, o);
    }
}

template <unsigned HD, unsigned KV>
static __global__ void __launch_bounds__(THREADS, 2) attend_decode(struct k_attend a)
{
    SHARED_DYNAMIC(uint8_t, mem);
    SHARED_STATIC(struct page_ref, refs, [LISTED]);
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    uint32_t head = blockIdx.x;
    struct page_stage<HD, KV> *stages =
        (struct page_stage<HD, KV> *)(void *)mem + warp * n_stages<HD, KV>;
    struct warp_results<HD> *results = (struct warp_results<HD> *)(void *)mem;
    struct lane_state<HD> x;

    grid_wait();
    const struct k_attend_item it =
        list_of<struct k_attend_item>(&a, a.table.items[K_ATTEND_DECODE])[blockIdx.y];
    const struct plan_piece *p = &a.pieces[it.piece];

    grid_trigger(); /* whoever comes next may call for weights meanwhile */
    if (it.n_rows == 0)
        return;
    x.turned = K_ATTEND_NONE;
    x.m = -INFINITY;
    x.l = 0;
    for (unsigned i = 0; i < HD / 8; i++)
        for (unsigned j = 0; j < 4; j++)
            x.o[i][j] = 0;
    /* NULL: a row of zeros. */
    load_row<HD>(lane / 4 < it.n_rows ? a.q + query_row(&a, p, head, it.row + lane / 4) * HD : NULL,
                 lane % 4, x.raw);
    for (uint32_t done = 0; done < it.n_pages; done += LISTED) {
        uint32_t n = it.n_pages - done < LISTED ? it.n_pages - done : LISTED;
        /* Shares of what is listed: of equal length, but for one. */
        uint32_t first = warp * n / WARPS, end = (warp + 1) * n / WARPS;

        __syncthreads();
        for (uint32_t i = threadIdx.x; i < n; i += THREADS)
            refs[i] = list_page(&a, p, &it, done + i);
        __syncthreads();
        if (first < end)
            see_run<HD, KV>(&a, p, &it, head, refs + first, end - first, stages, lane, &x);
    }
    __syncthreads(); /* the warps' pages are done with */
    leave<HD, KV>(results, warp, lane, &x);
    __syncthreads();
    join<HD>(&a, p, &it, head, results);
}

template <unsigned HD, unsigned KV> static int run(void *stream, const struct k_attend *a)
{
    dim3 grid(a->shape.n_head_kv, a->table.n_items[K_ATTEND_DECODE]);
    size_t pages = WARPS * n_stages<HD, KV> * sizeof(struct page_stage<HD, KV>);
    size_t results = sizeof(struct warp_results<HD>);

    return launch(grid, dim3(THREADS), pages > results ? pages : results, stream,
                  attend_decode<HD, KV>, *a);
}

#define RUN(HD)                                                                                    \
    case HD:                                                                                       \
        return run<HD, KV>(stream, a);

template <unsigned KV> static int run_of(void *stream, const struct k_attend *a)
{
    switch (a->shape.head_dim) {
        K_ATTEND_HEADS(RUN)
    default:
        return -EIO;
    }
}

int k_attend_decode(void *stream, const struct k_attend *a)
{
    if (a->table.n_items[K_ATTEND_DECODE] == 0)
        return 0;
    return a->shape.kv == KV_Q8_0 ? run_of<KV_Q8_0>(stream, a) : run_of<KV_F16>(stream, a);
}
