/* cuda/attend.cuh - what attention's kernels share: pieces, pages that are seen, partial results.
 *
 * A block has one KV head of one item. The pages that it sees are listed in shared memory, a
 * stretch at a time, each with what queries are turned by for it.
 */
#ifndef CUDA_ATTEND_CUH
#define CUDA_ATTEND_CUH

#include "cuda/attend.h"
#include "cuda/pages.cuh"
#include "engine/plan.h"

#define REFS 64u /* pages listed at a time */

struct page_ref {
    uint32_t page, turn; /* positions that queries are turned by */
    uint32_t n_keys;     /* slots that hold keys; of the own segment all do that a row sees */
    uint32_t own;        /* number of the page's first key in the own segment, or NONE: all rows see
                          * all keys */
};

static __device__ __forceinline__ uint32_t pages_of(uint32_t n_keys)
{
    return (n_keys + PAGE_TOKENS - 1) / PAGE_TOKENS;
}

static __device__ __forceinline__ uint32_t group_of(const struct k_attend *a)
{
    return a->shape.n_head / a->shape.n_head_kv;
}

/* Keys of the own segment that the row of token t sees. */
static __device__ __forceinline__ uint32_t own_keys(const struct plan_piece *p, uint32_t t)
{
    return p->off + t * p->stride + !p->side;
}

/* Page number n of those that a piece sees: of its earlier segments, and then of its own. */
static __device__ __forceinline__ struct page_ref find_page(const struct k_attend *a,
                                                            const struct plan_piece *p, uint32_t n)
{
    const struct plan_segment *s = a->segments + p->first_segment;
    uint32_t lo = 0, hi = p->n_segments, at, in;
    struct page_ref ret;

    if (hi > 0) {
        at = s[0].first_page + n;
        while (hi - lo > 1) {
            uint32_t mid = lo + (hi - lo) / 2;

            if (s[mid].first_page <= at)
                lo = mid;
            else
                hi = mid;
        }
        in = at - s[lo].first_page;
        if (in < pages_of(s[lo].n_keys)) {
            uint32_t left = s[lo].n_keys - in * PAGE_TOKENS;

            ret.page = a->pages[at];
            ret.turn = p->base - s[lo].base;
            ret.n_keys = left < PAGE_TOKENS ? left : PAGE_TOKENS;
            ret.own = K_ATTEND_NONE;
            return ret;
        }
        n = in - pages_of(s[lo].n_keys);
    }
    ret.page = a->pages[p->first_page + n];
    ret.turn = 0;
    ret.n_keys = PAGE_TOKENS;
    ret.own = n * PAGE_TOKENS;
    return ret;
}

static __device__ __forceinline__ bool sees(const struct plan_piece *p, const struct page_ref *ref,
                                            uint32_t token, uint32_t slot)
{
    return slot < ref->n_keys &&
           (ref->own == K_ATTEND_NONE || ref->own + slot < own_keys(p, token));
}

/* Row r of a piece's rows of a KV head. */
static __device__ __forceinline__ size_t query_row(const struct k_attend *a,
                                                   const struct plan_piece *p, uint32_t head,
                                                   uint32_t row)
{
    uint32_t group = group_of(a);

    return (size_t)(p->row + row / group) * a->shape.n_head + head * group + row % group;
}

/* Page i of an item. Of the own segment's last one slots count that any of its rows sees: what lies
 * behind them may never have been written. */
static __device__ __forceinline__ struct page_ref list_page(const struct k_attend *a,
                                                            const struct plan_piece *p,
                                                            const struct k_attend_item *it,
                                                            uint32_t i)
{
    struct page_ref ret = find_page(a, p, it->first_page + i);
    uint32_t seen = own_keys(p, (it->row + it->n_rows - 1) / group_of(a));

    if (ret.own != K_ATTEND_NONE && seen - ret.own < ret.n_keys)
        ret.n_keys = seen - ret.own;
    return ret;
}

/* --- where results go ------------------------------------------------------------------------- */

static __device__ __forceinline__ float *part_m(const struct k_attend *a)
{
    return (float *)a->scratch;
}
static __device__ __forceinline__ float *part_l(const struct k_attend *a)
{
    return part_m(a) + K_ATTEND_PART_ROWS;
}
static __device__ __forceinline__ float *part_o(const struct k_attend *a)
{
    return part_l(a) + K_ATTEND_PART_ROWS;
}
/* (max_rows, n_head) the logarithm of each query's sum, for who observes. */
static __device__ __forceinline__ float *row_sums(const struct k_attend *a)
{
    return part_o(a) + (size_t)K_ATTEND_PART_ROWS * a->shape.head_dim;
}

template <typename T>
static __device__ __forceinline__ const T *list_of(const struct k_attend *a, size_t off)
{
    return (const T *)(const void *)((const uint8_t *)a->cut + off);
}

/* Element c of row r of an item: o, whose sums are m and l, as a part or as the result. */
static __device__ __forceinline__ void put_result(const struct k_attend *a,
                                                  const struct plan_piece *p,
                                                  const struct k_attend_item *it, uint32_t head,
                                                  uint32_t r, uint32_t c, float m, float l, float o)
{
    uint32_t hd = a->shape.head_dim;

    if (it->part == K_ATTEND_NONE) {
        size_t row = query_row(a, p, head, it->row + r);

        a->out[row * hd + c] = o * (1.0f / l);
        if (c == 0)
            row_sums(a)[row] = m + logf(l);
    } else {
        size_t row = it->part + (size_t)head * it->n_rows + r;

        part_o(a)[row * hd + c] = o;
        if (c == 0) {
            part_m(a)[row] = m;
            part_l(a)[row] = l;
        }
    }
}

#endif
