/* cuda/attend_tile.cu - attention of a prompt's rows.
 *
 * A block has 64 rows, 16 a warp, tokens and the heads of a group side by side; all warps look at
 * the same pages, four at a time, while the next four are copied. Queries and weights are rounded
 * to f16, as nothing is idle here that could take the rest.
 *
 * A warp leaves out pages of the own segment that lie behind all of its rows. A key that only some
 * of them see has a weight of 0 for the others: should its V be no number, so is what they get, and
 * the token that they belong to is in the same prompt.
 */
#include "cuda/attend_kernels.h"
#include "cuda/attend_scores.cuh"
#include "cuda/attend_values.cuh"

#include <errno.h>

#define WARPS   4u
#define THREADS (WARPS * 32u)
#define LISTED  256u /* pages listed at a time */
#define PAGES   4u   /* of a step */

/* What a warp carries from page to page: of its lane's rows g and g + 8. */
template <unsigned HD> struct lane_state {
    uint32_t q[HD / 16][4];
    uint32_t turned;
    float m[2], l[2], o[HD / 8][4];
};

/* A warp's rows of the item. */
struct warp_rows {
    const struct plan_piece *p;
    uint32_t head, n;
    uint32_t row[2], token[2]; /* of the lane; of the piece's */
    bool here[2];
    uint32_t own; /* keys of the own segment that any of them sees */
};

static __device__ __forceinline__ struct warp_rows rows_of(const struct k_attend *a,
                                                           const struct plan_piece *p,
                                                           const struct k_attend_item *it,
                                                           uint32_t head)
{
    uint32_t warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, first = warp * 16;
    struct warp_rows w;

    w.p = p;
    w.head = head;
    w.n = it->n_rows <= first ? 0 : it->n_rows - first < 16 ? it->n_rows - first : 16;
    for (unsigned i = 0; i < 2; i++) {
        w.row[i] = it->row + first + g + 8 * i;
        w.token[i] = w.row[i] / group_of(a);
        w.here[i] = g + 8 * i < w.n;
    }
    w.own = w.n ? own_keys(p, (it->row + first + w.n - 1) / group_of(a)) : 0;
    return w;
}

template <unsigned HD>
static __device__ void turn_rows(const struct k_attend *a, const struct warp_rows *w, uint32_t by,
                                 unsigned t, struct lane_state<HD> *x)
{
    struct lane_turn<HD> turn;
    float raw[HD / 8][2];

    x->turned = by;
    load_turn<HD>(&a->angles, by, t, &turn);
    for (unsigned i = 0; i < 2; i++) {
        /* From memory again: registers are full of sums. */
        load_row<HD>(w->here[i] ? a->q + query_row(a, w->p, w->head, w->row[i]) * HD : NULL, t,
                     raw);
        put_row<HD, false>(raw, &turn, i, x->q);
    }
}

template <unsigned HD, unsigned KV>
static __device__ __forceinline__ void
see_page(const struct k_attend *a, const struct warp_rows *w, const struct page_ref *ref,
         const struct page_stage<HD, KV> *st, unsigned lane, struct lane_state<HD> *x)
{
    unsigned t = lane % 4;
    float s[2][4], mine[4], by[2];
    bool seen[2][2];

    if (ref->turn != x->turned) /* of all lanes */
        turn_rows<HD>(a, w, ref->turn, t, x);
    score_page<HD, KV>(st, x->q, lane, s);
    for (unsigned half = 0; half < 2; half++) {
        for (unsigned i = 0; i < 4; i++) {
            uint32_t key = key_of<KV>(i / 2, i % 2, t);

            seen[i / 2][i % 2] = key < ref->n_keys;
            mine[i] = w->here[half] && sees(w->p, ref, w->token[half], key)
                          ? s[i / 2][i % 2 + 2 * half]
                          : -INFINITY;
        }
        by[half] = soften_row(mine, &x->m[half], &x->l[half]);
        for (unsigned i = 0; i < 4; i++)
            s[i / 2][i % 2 + 2 * half] = mine[i];
    }
    if (__ballot_sync(~0u, by[0] != 1 || by[1] != 1))
        for (unsigned i = 0; i < HD / 8; i++)
            for (unsigned j = 0; j < 4; j++)
                x->o[i][j] *= by[j / 2];
    add_page<HD, KV, false>(st, s, seen, lane, x->o);
}

/* Pages refs[0, n): all warps. */
template <unsigned HD, unsigned KV>
static __device__ __forceinline__ void
see_pages(const struct k_attend *a, const struct warp_rows *w, const struct page_ref *refs,
          uint32_t n, struct page_stage<HD, KV> *stages, struct lane_state<HD> *x)
{
    unsigned lane = threadIdx.x % 32;

    for (uint32_t step = 0; step * PAGES < n + PAGES; step++) {
        /* Two sets, by turns. */
        struct page_stage<HD, KV> *next = stages + step % 2 * PAGES,
                                  *st = stages + (step + 1) % 2 * PAGES;
        bool short_ones = false;

        __syncthreads(); /* what is written over is done with */
        for (uint32_t i = step * PAGES; i < n && i < (step + 1) * PAGES; i++) {
            const uint8_t *k = k_tile_of(&a->pool, refs[i].page, a->layer, w->head);

            fetch_page<HD, KV>(&next[i % PAGES], k, k + a->pool.head_bytes / 2, threadIdx.x,
                               THREADS);
        }
        cp_async_commit();
        if (step == 0)
            continue;
        cp_async_wait<1>();
        __syncthreads(); /* what the others copied */
        for (uint32_t i = (step - 1) * PAGES; i < n && i < step * PAGES; i++)
            /* What lies behind a page's last key is anything, and 0 times NaN is NaN. */
            if (refs[i].n_keys < PAGE_TOKENS) {
                clear_values<HD, KV>(&st[i % PAGES], refs[i].n_keys, threadIdx.x, THREADS);
                short_ones = true;
            }
        if (short_ones) /* of all threads */
            __syncthreads();
        for (uint32_t i = (step - 1) * PAGES; i < n && i < step * PAGES; i++)
            if (w->n && (refs[i].own == K_ATTEND_NONE || refs[i].own < w->own))
                see_page<HD, KV>(a, w, &refs[i], &st[i % PAGES], lane, x);
    }
}

/* A side piece's rows see their own key last, in f32. */
template <unsigned HD, unsigned KV>
static __device__ __forceinline__ void see_self(const struct k_attend *a, const struct warp_rows *w,
                                                unsigned t, struct lane_state<HD> *x)
{
    for (unsigned half = 0; half < 2; half++) {
        uint32_t token = w->here[half] ? w->token[half] : 0;
        size_t at = ((size_t)(w->p->row + token) * a->shape.n_head_kv + w->head) * HD;
        float q[HD / 8][2], k[HD / 8][2], s = 0, top, by, mine;

        load_row<HD>(w->here[half] ? a->q + query_row(a, w->p, w->head, w->row[half]) * HD : NULL,
                     t, q);
        load_row<HD>(a->k + at, t, k);
        for (unsigned u = 0; u < HD / 8; u++)
            s += q[u][0] * k[u][0] + q[u][1] * k[u][1];
        s = row_sum(s);
        top = fmaxf(x->m[half], s);
        by = x->m[half] == -INFINITY ? 0 : __expf(x->m[half] - top);
        mine = __expf(s - top);
        x->m[half] = top;
        x->l[half] = x->l[half] * by + mine;
        for (unsigned i = 0; i < HD / 8; i++)
            for (unsigned j = 0; j < 2; j++) {
                float *o = &x->o[i][2 * half + j];

                *o = *o * by + mine * a->v[at + dim_of<HD, KV>(i, j, t)];
            }
    }
}

template <unsigned HD, unsigned KV>
static __global__ void __launch_bounds__(THREADS, 2) attend_tile(struct k_attend a)
{
    SHARED_DYNAMIC(uint8_t, mem);
    SHARED_STATIC(struct page_ref, refs, [LISTED]);
    struct page_stage<HD, KV> *stages = (struct page_stage<HD, KV> *)(void *)mem;
    uint32_t head = blockIdx.x, t = threadIdx.x % 4;
    struct lane_state<HD> x;

    grid_wait();
    const struct k_attend_item it =
        list_of<struct k_attend_item>(&a, a.table.items[K_ATTEND_TILE])[blockIdx.y];
    const struct plan_piece *p = &a.pieces[it.piece];

    grid_trigger(); /* whoever comes next may call for weights meanwhile */
    if (it.n_rows == 0)
        return;
    const struct warp_rows w = rows_of(&a, p, &it, head);

    x.turned = K_ATTEND_NONE;
    for (unsigned i = 0; i < 2; i++) {
        x.m[i] = -INFINITY;
        x.l[i] = 0;
    }
    for (unsigned i = 0; i < HD / 8; i++)
        for (unsigned j = 0; j < 4; j++)
            x.o[i][j] = 0;
    for (uint32_t done = 0; done < it.n_pages; done += LISTED) {
        uint32_t n = it.n_pages - done < LISTED ? it.n_pages - done : LISTED;

        __syncthreads();
        for (uint32_t i = threadIdx.x; i < n; i += THREADS)
            refs[i] = list_page(&a, p, &it, done + i);
        __syncthreads();
        see_pages<HD, KV>(&a, &w, refs, n, stages, &x);
    }
    if (w.n && p->side && it.last)
        see_self<HD, KV>(&a, &w, t, &x);
    for (unsigned half = 0; half < 2; half++)
        for (unsigned i = 0; i < HD / 8 && w.here[half]; i++)
            for (unsigned j = 0; j < 2; j++)
                put_result(&a, p, &it, head, w.row[half] - it.row, dim_of<HD, KV>(i, j, t),
                           x.m[half], x.l[half], x.o[i][2 * half + j]);
}

template <unsigned HD, unsigned KV> static int run(void *stream, const struct k_attend *a)
{
    dim3 grid(a->shape.n_head_kv, a->table.n_items[K_ATTEND_TILE]);

    return launch(grid, dim3(THREADS), 2 * PAGES * sizeof(struct page_stage<HD, KV>), stream,
                  attend_tile<HD, KV>, *a);
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

int k_attend_tile(void *stream, const struct k_attend *a)
{
    if (a->table.n_items[K_ATTEND_TILE] == 0)
        return 0;
    return a->shape.kv == KV_Q8_0 ? run_of<KV_Q8_0>(stream, a) : run_of<KV_F16>(stream, a);
}
