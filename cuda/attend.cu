/* cuda/attend.cu - attention of any shape: f32 sums in shared memory, a page at a time.
 *
 * It takes what the matrix units can't: f32 pages, heads of odd sizes, and it is what those are
 * tested against.
 */
#include "cuda/attend.cuh"
#include "cuda/attend_kernels.h"
#include "cuda/rows16.cuh"
#include "engine/sampler.h"

#include <errno.h>

/* The pages that are listed lie behind the desk. Of shared memory. */
static size_t block_bytes(uint32_t hd)
{
    return desk_bytes(hd) + REFS * sizeof(struct page_ref);
}

static __device__ __forceinline__ struct page_ref *refs_behind(const struct desk *d)
{
    return (struct page_ref *)(void *)(d->by + ROWS);
}

/* Rows as they are: turned when a segment's pages ask for it. */
static __device__ void load_queries(const struct k_attend *a, const struct plan_piece *p,
                                    uint32_t head, uint32_t row, uint32_t n, const struct desk *d)
{
    uint32_t hd = a->shape.head_dim;

    for (uint32_t i = threadIdx.x; i < n * hd; i += THREADS)
        d->q[i] = a->q[query_row(a, p, head, row + i / hd) * hd + i % hd];
    clear_sums(d);
}

/* Rows [row, row + n) of a piece over pages [first, first + n_pages) of those that it sees: d->m
 * and d->l, and o, unless that is NULL. */
template <unsigned KV>
static __device__ void see_pages(const struct k_attend *a, const struct plan_piece *p,
                                 uint32_t head, uint32_t row, uint32_t n, uint32_t first,
                                 uint32_t n_pages, const struct desk *d, float (*o)[ROWS])
{
    /* Queries are turned and keys are not: a page's keys stand as they were stored, in positions of
     * their segment. */
    uint32_t turned = K_ATTEND_NONE, group = group_of(a);
    struct page_ref *refs = refs_behind(d);

    for (uint32_t i = 0; i < n_pages; i++) {
        const struct page_ref *ref = &refs[i % REFS];
        const uint8_t *tile;

        if (i % REFS == 0) {
            __syncthreads(); /* nobody looks at those before any more */
            if (threadIdx.x < REFS && i + threadIdx.x < n_pages)
                refs[threadIdx.x] = find_page(a, p, first + i + threadIdx.x);
        }
        __syncthreads();
        tile = k_tile_of(&a->pool, ref->page, a->layer, head);
        load_keys<KV>(tile, d);
        if (o)
            load_values<KV>(tile + a->pool.head_bytes / 2, d);
        if (ref->turn != turned)
            turn_queries(&a->angles, n, ref->turn, d);
        turned = ref->turn;
        __syncthreads();
        score(n, d);
        __syncthreads();
        if (threadIdx.x < n)
            soften(threadIdx.x, d,
                   [&](uint32_t slot) { return sees(p, ref, (row + threadIdx.x) / group, slot); });
        __syncthreads();
        if (o)
            add_values(n, d, o);
    }
}

/* --- an item ---------------------------------------------------------------------------------- */

/* A side piece's rows see their own key last; q is turned to where they stand. */
static __device__ void see_self(const struct k_attend *a, const struct plan_piece *p, uint32_t head,
                                uint32_t row, uint32_t n, const struct desk *d, float o[COLS][ROWS])
{
    uint32_t hd = a->shape.head_dim, group = group_of(a);

    __syncthreads();
    if (threadIdx.x < n) {
        uint32_t r = threadIdx.x;
        const float *k =
            a->k + ((size_t)(p->row + (row + r) / group) * a->shape.n_head_kv + head) * hd;
        float s = 0, top;

        for (uint32_t c = 0; c < hd; c++)
            s += d->q[r * hd + c] * k[c];
        top = fmaxf(d->m[r], s);
        d->by[r] = d->m[r] == -INFINITY ? 0 : expf(d->m[r] - top);
        d->s[r] = expf(s - top);
        d->l[r] = d->l[r] * d->by[r] + d->s[r];
        d->m[r] = top;
    }
    __syncthreads();
    for (uint32_t i = 0; i < COLS; i++) {
        uint32_t c = threadIdx.x + i * THREADS;

        for (uint32_t r = 0; r < ROWS; r++) {
            size_t at = (size_t)(p->row + (row + r) / group) * a->shape.n_head_kv + head;

            if (r < n && c < hd)
                o[i][r] = o[i][r] * d->by[r] + d->s[r] * a->v[at * hd + c];
        }
    }
}

template <unsigned KV>
static __global__ void __launch_bounds__(THREADS) attend_rows(struct k_attend a)
{
    SHARED_DYNAMIC(float, mem);
    uint32_t hd = a.shape.head_dim, head = blockIdx.x;
    struct desk d = desk_in(mem, hd);
    float o[COLS][ROWS];

    grid_wait();
    const struct k_attend_item it =
        list_of<struct k_attend_item>(&a, a.table.items[K_ATTEND_ROWS])[blockIdx.y];
    const struct plan_piece *p = &a.pieces[it.piece];

    /* Whoever comes next may begin: it waits before it looks at what this one writes. */
    grid_trigger();
    /* What fills the list up to a power of two. All threads of the block leave. */
    if (it.n_rows == 0)
        return;
    for (uint32_t i = 0; i < COLS; i++)
        for (uint32_t r = 0; r < ROWS; r++)
            o[i][r] = 0;
    load_queries(&a, p, head, it.row, it.n_rows, &d);
    see_pages<KV>(&a, p, head, it.row, it.n_rows, it.first_page, it.n_pages, &d, o);
    if (p->side && it.last)
        see_self(&a, p, head, it.row, it.n_rows, &d, o);
    for (uint32_t i = 0; i < COLS; i++) {
        uint32_t c = threadIdx.x + i * THREADS;

        for (uint32_t r = 0; r < ROWS; r++)
            if (r < it.n_rows && c < hd)
                put_result(&a, p, &it, head, r, c, d.m[r], d.l[r], o[i][r]);
    }
}

/* --- parts become one ------------------------------------------------------------------------- */

static __global__ void __launch_bounds__(THREADS) attend_merge(struct k_attend a)
{
    SHARED_STATIC(float, s_top, [ROWS]);
    SHARED_STATIC(float, s_sum, [ROWS]);
    uint32_t hd = a.shape.head_dim, head = blockIdx.x;

    grid_wait();
    const struct k_attend_merge it = list_of<struct k_attend_merge>(&a, a.table.merges)[blockIdx.y];
    const struct plan_piece *p = &a.pieces[it.piece];
    grid_trigger();
    /* Of no part: the result goes where it belongs. */
    const struct k_attend_item whole = { it.piece, it.row, it.n_rows, 0, 0, K_ATTEND_NONE, 1 };
    size_t step = (size_t)a.shape.n_head_kv * it.n_rows, first = it.part + (size_t)head * it.n_rows;

    for (uint32_t r0 = 0; r0 < it.n_rows; r0 += ROWS) {
        uint32_t r = r0 + threadIdx.x;

        __syncthreads();
        if (threadIdx.x < ROWS && r < it.n_rows) {
            float top = -INFINITY, sum = 0;

            /* Parts keep their maximum and sum, so that they become one as if they had never been
             * apart. */
            for (uint32_t i = 0; i < it.n_parts; i++)
                top = fmaxf(top, part_m(&a)[first + i * step + r]);
            for (uint32_t i = 0; i < it.n_parts; i++) {
                float m = part_m(&a)[first + i * step + r];

                /* A part of which a row sees nothing is empty. */
                sum += part_l(&a)[first + i * step + r] * (m == -INFINITY ? 0 : expf(m - top));
            }
            s_top[threadIdx.x] = top;
            s_sum[threadIdx.x] = sum;
        }
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < ROWS * hd; i += THREADS) {
            float o = 0, top = s_top[i / hd];

            r = r0 + i / hd;
            if (r >= it.n_rows)
                break;
            for (uint32_t j = 0; j < it.n_parts; j++) {
                size_t at = first + j * step + r;
                float m = part_m(&a)[at];

                /* Sums of all parts by the same maximum. */
                o += part_o(&a)[at * hd + i % hd] * (m == -INFINITY ? 0 : expf(m - top));
            }
            put_result(&a, p, &whole, head, r, i % hd, top, s_sum[i / hd], o);
        }
    }
}

/* --- what observers want ---------------------------------------------------------------------- */

/* What rows give a whole earlier segment is added up token after token, by one block a segment: the
 * sum is the same however many there are beside it. */
template <unsigned KV>
static __global__ void __launch_bounds__(THREADS, 4) attend_shares(struct k_attend a)
{
    SHARED_DYNAMIC(float, mem);
    uint32_t group = group_of(&a), head = blockIdx.y;
    struct desk d = desk_in(mem, a.shape.head_dim);

    grid_wait();
    const struct k_attend_look it = list_of<struct k_attend_look>(&a, a.table.shares)[blockIdx.z];
    const struct plan_piece *p = &a.pieces[it.piece];
    const struct plan_segment *s = a.segments + p->first_segment;
    float sum = 0;

    /* The grid is as large as the longest of all pieces wants it. */
    if (blockIdx.x >= it.n)
        return;
    /* All of the piece's rows, and one segment's keys. */
    for (uint32_t row = 0; row < p->n * group; row += ROWS) {
        uint32_t n = p->n * group - row < ROWS ? p->n * group - row : ROWS;

        __syncthreads();
        load_queries(&a, p, head, row, n, &d);
        see_pages<KV>(&a, p, head, row, n, s[blockIdx.x].first_page - s[0].first_page,
                      pages_of(s[blockIdx.x].n_keys), &d, NULL);
        for (uint32_t r = 0; r < n && threadIdx.x < group; r++)
            if ((row + r) % group == threadIdx.x)
                /* Of a row's whole sum the part that this segment has. */
                sum += d.l[r] * expf(d.m[r] - row_sums(&a)[query_row(&a, p, head, row + r)]);
    }
    if (threadIdx.x < group)
        p->shares[((size_t)a.layer * a.shape.n_head + head * group + threadIdx.x) * it.n +
                  blockIdx.x] += sum;
}

/* Of the segment that was read again, or of the own one. */
static __device__ __forceinline__ const struct plan_segment *weighed(const struct k_attend *a,
                                                                     const struct plan_piece *p)
{
    return &a->segments[p->first_segment + p->n_segments - 1];
}

/* One page's keys, each of one thread, row after row. */
template <unsigned KV>
static __global__ void __launch_bounds__(THREADS) attend_weights(struct k_attend a)
{
    SHARED_DYNAMIC(float, mem);
    uint32_t group = group_of(&a), head = blockIdx.y, key = blockIdx.x * PAGE_TOKENS + threadIdx.x;
    struct desk d = desk_in(mem, a.shape.head_dim);

    grid_wait();
    const struct k_attend_look it = list_of<struct k_attend_look>(&a, a.table.weights)[blockIdx.z];
    const struct plan_piece *p = &a.pieces[it.piece];

    if (blockIdx.x >= it.n)
        return;
    uint32_t first = p->again ? weighed(&a, p)->first_page : p->first_page;
    uint32_t turn = p->again ? p->base - weighed(&a, p)->base : 0;
    /* Of (layer, KV head, key): added to, as a segment's tokens come over many steps. */
    float *to = p->weights + ((size_t)a.layer * a.shape.n_head_kv + head) * p->seg_len + key;
    bool mine = threadIdx.x < PAGE_TOKENS && key < p->seg_len;
    float sum = mine ? *to : 0;

    load_keys<KV>(k_tile_of(&a.pool, a.pages[first + blockIdx.x], a.layer, head), &d);
    for (uint32_t row = 0; row < p->n * group; row += ROWS) {
        uint32_t n = p->n * group - row < ROWS ? p->n * group - row : ROWS;

        __syncthreads();
        load_queries(&a, p, head, row, n, &d);
        __syncthreads();
        turn_queries(&a.angles, n, turn, &d);
        __syncthreads();
        score(n, &d);
        __syncthreads();
        for (uint32_t r = 0; mine && r < n; r++) {
            float x =
                d.s[r * PAGE_TOKENS + threadIdx.x] - row_sums(&a)[query_row(&a, p, head, row + r)];

            /* Of the own segment a row sees the keys up to its own. */
            if (!p->again && key > p->off + (row + r) / group)
                continue;
            /* The largest of a segment that was read again, the sum of one that is written. */
            x = x > SAMPLER_WEIGHT_LOG_MIN ? expf(x) : 0;
            sum = !p->again ? sum + x : x > sum ? x : sum;
        }
    }
    if (mine)
        *to = sum;
}

/* Queries that are kept for who fits the segment, with the logarithms of their sums: a warp a token
 * (engine/run.h says which). */
static __global__ void __launch_bounds__(THREADS) attend_asked(struct k_attend a)
{
    uint32_t hd = a.shape.head_dim, group = group_of(&a), head = blockIdx.y,
             lane = threadIdx.x % 32;

    grid_wait();
    const struct k_attend_look it = list_of<struct k_attend_look>(&a, a.table.asked)[blockIdx.z];
    const struct plan_piece *p = &a.pieces[it.piece];
    uint32_t t = (blockIdx.x * THREADS + threadIdx.x) / 32, nth;
    size_t list = (size_t)a.layer * a.shape.n_head_kv + head;

    if (t >= it.n)
        return;
    nth = p->off + t * p->stride + 1;
    /* One of so many tokens, and of its heads one of so many. */
    for (uint32_t g = 0; g < group && nth % p->asked.tokens == 0; g++) {
        uint32_t at = (nth / p->asked.tokens - 1) * group + g + 1;
        size_t row = query_row(&a, p, head, t * group + g);
        float *to = p->asked.all + (list * p->asked.n + at / p->asked.heads - 1) * (hd + 1);

        if (at % p->asked.heads)
            continue;
        for (uint32_t c = lane; c < hd; c += 32)
            to[c] = a.q[row * hd + c];
        if (lane == 0)
            to[hd] = row_sums(&a)[row];
    }
}

/* --- launches --------------------------------------------------------------------------------- */

/* By a block that has a desk. */
static int run(void *stream, dim3 grid, void (*kernel)(struct k_attend), const struct k_attend *a)
{
    return launch(grid, dim3(THREADS), block_bytes(a->shape.head_dim), stream, kernel, *a);
}

int k_attend_rows(void *stream, const struct k_attend *a)
{
    dim3 grid(a->shape.n_head_kv, a->table.n_items[K_ATTEND_ROWS]);

    return grid.y ? run(stream, grid, KV_OF(a->shape.kv, attend_rows), a) : 0;
}

int k_attend_merge(void *stream, const struct k_attend *a)
{
    dim3 grid(a->shape.n_head_kv, a->table.n_merges);

    return grid.y ? launch(grid, dim3(THREADS), 0, stream, attend_merge, *a) : 0;
}

int k_attend_look(void *stream, const struct k_attend *a)
{
    const struct k_attend_table *t = &a->table;
    dim3 weights(t->most_weights, a->shape.n_head_kv, t->n_weights);
    dim3 shares(t->most_shares, a->shape.n_head_kv, t->n_shares);
    /* A warp each. */
    dim3 asked((t->most_asked * 32 + THREADS - 1) / THREADS, a->shape.n_head_kv, t->n_asked);
    int r = 0;

    if (t->n_weights)
        r = run(stream, weights, KV_OF(a->shape.kv, attend_weights), a);
    if (r == 0 && t->n_shares)
        r = run(stream, shares, KV_OF(a->shape.kv, attend_shares), a);
    if (r == 0 && t->n_asked)
        r = launch(asked, dim3(THREADS), 0, stream, attend_asked, *a);
    return r;
}

int k_attend(void *stream, const struct k_attend *a)
{
    int r = k_attend_rows(stream, a);

    if (r == 0)
        r = k_attend_decode(stream, a);
    if (r == 0)
        r = k_attend_tile(stream, a);
    if (r == 0)
        r = k_attend_merge(stream, a);
    return r == 0 ? k_attend_look(stream, a) : r;
}
