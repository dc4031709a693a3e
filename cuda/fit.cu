/* cuda/fit.cu - a raw segment becomes a packed one: weigh, choose, move, fit (engine/fit.h).
 *
 * A list, a layer's KV head, is a system of its own, and there are some hundreds: a launch does one
 * thing for all of them. The table of attention over the raw keys is never written: targets come by
 * attention as ever, and what a key receives by looking at its page once more with all queries.
 *
 *     queries --turned to n_raw--> targets, shares --> weights of the raw keys --> kept
 *     kept --> packed pages;  queries --turned to n_keys--> B over those, and V0
 *     t = T - B V0;  G = B'B or BB', with the ridge;  L = chol(G);  V0 + what it says --> pages
 *
 * Of B'B (n, n) and BB' (q, q) the smaller is taken: (B'B + r)^-1 B't = B'(BB' + r)^-1 t.
 */
#include "cuda/fit.h"
#include "cuda/move.h"
#include "cuda/rows16.cuh"
#include "engine/fit.h"

#include <errno.h>

#define SOLVERS 256u /* threads of a block that factors and solves */

/* What a list has in the scratch; q: n_asked, n: keys that get values, p: the smaller. */
struct part {
    float *turned; /* (q, hd) */
    float *t;      /* (q, hd) targets by the roots of the shares, then what V0 leaves of them */
    float *share, *sums; /* (q), 0: the query says nothing; and the logarithms of its sums */
    float *weights;      /* (n_raw) */
    float *b;            /* (q, n) */
    float *v;            /* (n, hd) V0 */
    float *y;            /* (n, hd) what goes to it */
    float *g;            /* (p, p) */
    uint32_t *fits;      /* 0: V0 stays */
    uint32_t *kept;      /* (n_keys), lists side by side: move takes them so */
};

static __host__ __device__ __forceinline__ size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Words of a list, but for kept. */
static __host__ __device__ __forceinline__ size_t part_words(const struct k_fit *a)
{
    size_t q = a->n_asked, n = a->n_keys - a->sinks, hd = a->pool.head_dim, p = smaller(q, n);

    return 2 * q * hd + 2 * q + a->n_raw + q * n + 2 * n * hd + p * p + 1;
}

/* kept of all lists first, then each list's words. */
static __device__ struct part part_of(const struct k_fit *a, uint32_t i)
{
    size_t q = a->n_asked, n = a->n_keys - a->sinks, hd = a->pool.head_dim, p = smaller(q, n);
    struct part r;

    r.kept = (uint32_t *)a->scratch + (size_t)i * a->n_keys;
    r.turned = (float *)a->scratch + (size_t)a->n_lists * a->n_keys + i * part_words(a);
    r.t = r.turned + q * hd;
    r.share = r.t + q * hd;
    r.sums = r.share + q;
    r.weights = r.sums + q;
    r.b = r.weights + a->n_raw;
    r.v = r.b + q * n;
    r.y = r.v + n * hd;
    r.g = r.y + n * hd;
    r.fits = (uint32_t *)(r.g + p * p);
    return r;
}

size_t k_fit_scratch(const struct k_fit *a)
{
    return (part_words(a) + a->n_keys) * a->n_lists * sizeof(float);
}

static __device__ __forceinline__ uint8_t *tile_of(const struct k_fit *a, const uint32_t *pages,
                                                   uint32_t page, uint32_t i)
{
    uint32_t list = a->first_list + i;

    return k_tile_of(&a->pool, pages[page], list / a->pool.n_head_kv, list % a->pool.n_head_kv);
}

/* Rows [row, row + n) of a list's queries, turned by so many positions. */
static __device__ void load_asked(const struct k_fit *a, uint32_t i, uint32_t row, uint32_t n,
                                  uint32_t by, const struct desk *d)
{
    uint32_t hd = a->pool.head_dim;
    const float *from = a->asked + ((size_t)(a->first_list + i) * a->n_asked + row) * (hd + 1);

    for (uint32_t j = threadIdx.x; j < n * hd; j += THREADS)
        d->q[j] = from[j / hd * (hd + 1) + j % hd];
    clear_sums(d);
    __syncthreads();
    turn_queries(&a->angles, n, by, d);
}

static __device__ __forceinline__ uint32_t rows_from(const struct k_fit *a, uint32_t row)
{
    return a->n_asked - row < ROWS ? a->n_asked - row : ROWS;
}

/* --- weigh ------------------------------------------------------------------------------------ */

/* What row r counts for: its share, or nothing. d->q is the query, d->v its target. */
static __device__ float share_of(const struct k_fit *a, uint32_t i, uint32_t row, uint32_t r,
                                 const struct desk *d)
{
    uint32_t hd = d->hd;
    float all = a->asked[((size_t)(a->first_list + i) * a->n_asked + row + r) * (hd + 1) + hd];
    float share = 1 / (1 + expf(all - (d->m[r] + logf(d->l[r]))));

    /* A NaN, too. */
    if (!(share > FIT_LEAST_SHARE))
        return 0;
    for (uint32_t c = 0; c < hd; c++)
        if (!is_finite(d->v[r * hd + c]) || !is_finite(d->q[r * hd + c]))
            return 0;
    return share;
}

/* A block has 16 queries of a list. */
template <unsigned KV>
static __global__ void __launch_bounds__(THREADS, 4) fit_targets(struct k_fit a)
{
    SHARED_DYNAMIC(float, mem);
    uint32_t hd = a.pool.head_dim, row = blockIdx.x * ROWS, n = rows_from(&a, row);
    struct desk d = desk_in(mem, hd);
    struct part p = part_of(&a, blockIdx.y);
    float o[COLS][ROWS] = {};

    grid_wait();
    load_asked(&a, blockIdx.y, row, n, a.n_raw, &d);
    for (uint32_t key = a.sinks / PAGE_TOKENS * PAGE_TOKENS; key < a.n_raw; key += PAGE_TOKENS) {
        const uint8_t *tile = tile_of(&a, a.from, key / PAGE_TOKENS, blockIdx.y);

        __syncthreads();
        load_keys<KV>(tile, &d);
        load_values<KV>(tile + a.pool.head_bytes / 2, &d);
        __syncthreads();
        score(n, &d);
        __syncthreads();
        if (threadIdx.x < n)
            soften(threadIdx.x, &d,
                   [&](uint32_t slot) { return key + slot >= a.sinks && key + slot < a.n_raw; });
        __syncthreads();
        add_values(n, &d, o);
    }
    __syncthreads();
    for (uint32_t i = 0; i < COLS; i++)
        for (uint32_t r = 0; r < ROWS; r++)
            if (r < n && threadIdx.x + i * THREADS < hd)
                d.v[r * hd + threadIdx.x + i * THREADS] = o[i][r] / d.l[r];
    __syncthreads();
    if (threadIdx.x < n) {
        uint32_t r = threadIdx.x;

        d.by[r] = share_of(&a, blockIdx.y, row, r, &d);
        p.share[row + r] = d.by[r];
        p.sums[row + r] = d.m[r] + logf(d.l[r]);
    }
    __syncthreads();
    for (uint32_t j = threadIdx.x; j < n * hd; j += THREADS) {
        float share = d.by[j / hd];

        p.t[row * hd + j] = share > 0 ? sqrtf(share) * d.v[j] : 0;
        p.turned[row * hd + j] = d.t[j];
    }
}

/* A block has a page of a list: the squares of what its keys receive, query after query. */
template <unsigned KV> static __global__ void __launch_bounds__(THREADS) fit_weights(struct k_fit a)
{
    SHARED_DYNAMIC(float, mem);
    uint32_t hd = a.pool.head_dim, key = blockIdx.x * PAGE_TOKENS + threadIdx.x;
    struct desk d = desk_in(mem, hd);
    struct part p = part_of(&a, blockIdx.y);
    float sum = 0;

    grid_wait();
    load_keys<KV>(tile_of(&a, a.from, blockIdx.x, blockIdx.y), &d);
    for (uint32_t row = 0; row < a.n_asked; row += ROWS) {
        uint32_t n = rows_from(&a, row);

        __syncthreads();
        for (uint32_t j = threadIdx.x; j < n * hd; j += THREADS)
            d.t[j] = p.turned[row * hd + j];
        __syncthreads();
        score(n, &d);
        __syncthreads();
        for (uint32_t r = 0; threadIdx.x < PAGE_TOKENS && r < n; r++) {
            float share = p.share[row + r];
            float x = share * expf(d.s[r * PAGE_TOKENS + threadIdx.x] - p.sums[row + r]);

            if (share > 0)
                sum += x * x;
        }
    }
    if (threadIdx.x < PAGE_TOKENS && key < a.n_raw)
        p.weights[key] = sum;
}

/* --- choose ----------------------------------------------------------------------------------- */

/* What is no number counts as the smallest. */
static __device__ __forceinline__ float weight_at(const float *w, uint32_t i)
{
    return w[i] == w[i] ? w[i] : -INFINITY;
}

/* Whether so few are larger, or equal and later, that key i stays: engine/kv/largest.h. */
static __device__ bool stays(const struct k_fit *a, const float *w, uint32_t i)
{
    uint32_t before = 0;
    float x = weight_at(w, i);

    if (i < a->sinks)
        return true;
    for (uint32_t j = a->sinks; j < a->n_raw; j++) {
        float y = weight_at(w, j);

        before += y > x || (y == x && j > i);
    }
    return before < a->n_keys - a->sinks;
}

/* A list's places that stay, in order; each thread looks at its own keys. */
static __global__ void __launch_bounds__(SOLVERS) fit_choose(struct k_fit a)
{
    SHARED_STATIC(uint32_t, n_kept, [SOLVERS / 32]);
    struct part p = part_of(&a, blockIdx.x);
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, at = 0;

    grid_wait();
    for (uint32_t i0 = 0; i0 < a.n_raw; i0 += SOLVERS) {
        uint32_t i = i0 + threadIdx.x, here = at;
        /* Each key looks at all others: n^2, but n is a segment's. */
        bool stay = i < a.n_raw && stays(&a, p.weights, i);
        /* How many before this one: in the warp by votes, in the block by warps, then all passes
         * before. */
        unsigned votes = __ballot_sync(~0u, stay);

        __syncthreads();
        if (lane == 0)
            n_kept[warp] = (uint32_t)__popc(votes);
        __syncthreads();
        for (uint32_t w = 0; w < SOLVERS / 32; w++) {
            here += w < warp ? n_kept[w] : 0;
            at += n_kept[w];
        }
        if (stay)
            p.kept[here + (uint32_t)__popc(votes & ((1u << lane) - 1))] = i;
    }
}

/* --- the system ------------------------------------------------------------------------------- */

/* Rows of B: what queries attend to of the keys that stay, by the roots of their shares. */
template <unsigned KV> static __global__ void __launch_bounds__(THREADS) fit_attend(struct k_fit a)
{
    SHARED_DYNAMIC(float, mem);
    uint32_t hd = a.pool.head_dim, row = blockIdx.x * ROWS, n = rows_from(&a, row);
    uint32_t n_cols = a.n_keys - a.sinks;
    struct desk d = desk_in(mem, hd);
    struct part p = part_of(&a, blockIdx.y);

    grid_wait();
    load_asked(&a, blockIdx.y, row, n, a.n_keys, &d);
    for (uint32_t key = a.sinks / PAGE_TOKENS * PAGE_TOKENS; key < a.n_keys; key += PAGE_TOKENS) {
        __syncthreads();
        load_keys<KV>(tile_of(&a, a.to, key / PAGE_TOKENS, blockIdx.y), &d);
        __syncthreads();
        score(n, &d);
        __syncthreads();
        for (uint32_t j = threadIdx.x; j < n * PAGE_TOKENS; j += THREADS) {
            uint32_t at = key + j % PAGE_TOKENS;

            if (at >= a.sinks && at < a.n_keys)
                p.b[(size_t)(row + j / PAGE_TOKENS) * n_cols + at - a.sinks] = d.s[j];
        }
    }
    __syncthreads(); /* a row's scores come from several threads */
    for (uint32_t r = threadIdx.x / 32; r < n; r += THREADS / 32) {
        float *b = p.b + (size_t)(row + r) * n_cols, share = p.share[row + r], top = -INFINITY;
        float sum = 0;

        for (uint32_t j = threadIdx.x % 32; j < n_cols; j += 32)
            top = fmaxf(top, b[j]);
        top = warp_max(top);
        for (uint32_t j = threadIdx.x % 32; j < n_cols; j += 32)
            /* Over the keys that stay alone: attention as it will be. */
            sum += b[j] = expf(b[j] - top);
        sum = warp_sum(sum);
        for (uint32_t j = threadIdx.x % 32; j < n_cols; j += 32)
            b[j] = share > 0 ? b[j] * (sqrtf(share) / sum) : 0;
    }
}

/* V0, as it is stored. */
template <unsigned KV> static __global__ void __launch_bounds__(THREADS) fit_values(struct k_fit a)
{
    uint32_t hd = a.pool.head_dim, key = a.sinks + blockIdx.x;
    struct part p = part_of(&a, blockIdx.y);

    grid_wait();
    const uint8_t *v = tile_of(&a, a.to, key / PAGE_TOKENS, blockIdx.y) + a.pool.head_bytes / 2;
    uint32_t slot = key % PAGE_TOKENS;

    for (uint32_t c = threadIdx.x; c < hd; c += THREADS)
        p.v[(size_t)blockIdx.x * hd + c] = kv_at<KV>(v, hd, slot * hd + c, c, slot);
}

/* Products of a list's matrices. */
enum product {
    LEAVE_OVER, /* t -= B V0 */
    SQUARE,     /* g = B'B or BB' */
    APPLY,      /* y = B't; of the larger system when that is solved: t is its solution then */
};

struct matrix {
    float *at;
    size_t row, col; /* strides */
};

static __device__ __forceinline__ struct matrix matrix_of(float *at, size_t row, size_t col)
{
    struct matrix m = { at, row, col };

    return m;
}

#define SIDE 16u /* of a tile of a product; a thread an element */

/* c = x y of (n_rows, n_cols), or c -= x y, over `inner`: a tile. */
static __device__ void multiply(const struct matrix *x, const struct matrix *y,
                                const struct matrix *c, uint32_t n_rows, uint32_t n_cols,
                                uint32_t inner, bool subtract)
{
    SHARED_STATIC(float, xs, [SIDE][SIDE + 1]);
    SHARED_STATIC(float, ys, [SIDE][SIDE + 1]);
    uint32_t i = threadIdx.x / SIDE, j = threadIdx.x % SIDE;
    uint32_t row = blockIdx.x * SIDE + i, col = blockIdx.y * SIDE + j;
    float sum = 0;

    for (uint32_t k0 = 0; k0 < inner; k0 += SIDE) {
        __syncthreads();
        xs[i][j] = row < n_rows && k0 + j < inner ? x->at[row * x->row + (k0 + j) * x->col] : 0;
        ys[i][j] = col < n_cols && k0 + i < inner ? y->at[(k0 + i) * y->row + col * y->col] : 0;
        __syncthreads();
        for (uint32_t k = 0; k < SIDE; k++)
            sum += xs[i][k] * ys[k][j];
    }
    if (row < n_rows && col < n_cols) {
        float *at = c->at + row * c->row + col * c->col;

        *at = subtract ? *at - sum : sum;
    }
}

static __global__ void __launch_bounds__(SIDE *SIDE) fit_product(struct k_fit a, uint32_t what)
{
    uint32_t q = a.n_asked, n = a.n_keys - a.sinks, hd = a.pool.head_dim;
    struct part p = part_of(&a, blockIdx.z);
    struct matrix b = matrix_of(p.b, n, 1), bt = matrix_of(p.b, 1, n), v = matrix_of(p.v, hd, 1),
                  t = matrix_of(p.t, hd, 1), y = matrix_of(p.y, hd, 1),
                  g = matrix_of(p.g, n < q ? n : q, 1);

    grid_wait();
    if (what == LEAVE_OVER)
        multiply(&b, &v, &t, q, hd, n, true);
    else if (what == APPLY)
        multiply(&bt, &t, &y, n, hd, q, false);
    else if (n <= q)
        multiply(&bt, &b, &g, n, n, q, false);
    else
        multiply(&b, &bt, &g, q, q, n, false);
}

/* g with the ridge becomes L of LL', its lower half. false: there is nothing to fit to. */
static __device__ bool factor(float *g, uint32_t p, uint32_t n_keys)
{
    float sum = 0;

    for (uint32_t i = threadIdx.x; i < p; i += SOLVERS)
        sum += g[(size_t)i * p + i];
    sum = block_sum(sum) * (FIT_RIDGE / (float)n_keys);
    if (!(sum > 0))
        return false;
    for (uint32_t i = threadIdx.x; i < p; i += SOLVERS)
        g[(size_t)i * p + i] += sum;
    for (uint32_t k = 0; k < p; k++) {
        float pivot;

        __syncthreads();
        /* Read by all before one divides by it. */
        pivot = sqrtf(g[(size_t)k * p + k]);
        __syncthreads();
        for (uint32_t i = k + threadIdx.x; i < p; i += SOLVERS)
            g[(size_t)i * p + k] /= pivot;
        __syncthreads();
        /* A thread has rows of its own; what it reads of column k nobody writes any more. */
        for (uint32_t i = k + 1 + threadIdx.x; i < p; i += SOLVERS)
            for (uint32_t j = k + 1; j <= i; j++)
                g[(size_t)i * p + j] -= g[(size_t)i * p + k] * g[(size_t)j * p + k];
    }
    __syncthreads();
    return true;
}

/* x (p, hd) becomes (LL')^-1 x: a thread has columns of its own. */
static __device__ void solve(const float *l, uint32_t p, float *x, uint32_t hd)
{
    for (uint32_t c = threadIdx.x; c < hd; c += SOLVERS) {
        for (uint32_t i = 0; i < p; i++) {
            float sum = x[(size_t)i * hd + c];

            for (uint32_t k = 0; k < i; k++)
                sum -= l[(size_t)i * p + k] * x[(size_t)k * hd + c];
            x[(size_t)i * hd + c] = sum / l[(size_t)i * p + i];
        }
        /* Back: L' from the last row up. */
        for (uint32_t i = p; i-- > 0;) {
            float sum = x[(size_t)i * hd + c];

            for (uint32_t k = i + 1; k < p; k++)
                sum -= l[(size_t)k * p + i] * x[(size_t)k * hd + c];
            x[(size_t)i * hd + c] = sum / l[(size_t)i * p + i];
        }
    }
}

static __global__ void __launch_bounds__(SOLVERS) fit_solve(struct k_fit a)
{
    uint32_t q = a.n_asked, n = a.n_keys - a.sinks;
    struct part p = part_of(&a, blockIdx.x);
    bool fits;

    grid_wait();
    /* All threads of the block say the same. */
    fits = factor(p.g, n < q ? n : q, n);
    if (fits)
        solve(p.g, n < q ? n : q, n <= q ? p.y : p.t, a.pool.head_dim);
    if (threadIdx.x == 0)
        *p.fits = fits;
}

/* --- the values go where they stay ------------------------------------------------------------ */

static __device__ bool has_room(const struct k_fit *a, const struct part *p)
{
    size_t n = (size_t)(a->n_keys - a->sinks) * a->pool.head_dim;
    float bad = 0;

    for (size_t i = threadIdx.x; i < n; i += SOLVERS)
        /* Too large for f16 pages, or no number. */
        bad += !(fabsf(p->v[i] + p->y[i]) <= FIT_VALUE_MAX);
    return block_sum(bad) == 0;
}

/* A key or value that is no number shows in all of the head's: they stay as they are then. */
template <unsigned KV> static __global__ void __launch_bounds__(SOLVERS) fit_store(struct k_fit a)
{
    uint32_t hd = a.pool.head_dim, warp = threadIdx.x / 32;
    struct part p = part_of(&a, blockIdx.x);

    grid_wait();
    if (!*p.fits || !has_room(&a, &p))
        return;
    for (uint32_t i = warp; i < a.n_keys - a.sinks; i += SOLVERS / 32) {
        uint32_t key = a.sinks + i;
        uint8_t *v = tile_of(&a, a.to, key / PAGE_TOKENS, blockIdx.x) + a.pool.head_bytes / 2;

        for (uint32_t c = 0; c < hd; c += 32) {
            uint32_t dim = c + threadIdx.x % 32;
            size_t at = (size_t)i * hd + dim;

            kv_store_values<KV>(dim < hd ? p.v[at] + p.y[at] : 0, c, hd, key % PAGE_TOKENS, v);
        }
    }
}

/* --- launches --------------------------------------------------------------------------------- */

static int run_product(void *stream, const struct k_fit *a, enum product what, uint32_t n_rows,
                       uint32_t n_cols)
{
    dim3 grid((n_rows + SIDE - 1) / SIDE, (n_cols + SIDE - 1) / SIDE, a->n_lists);

    return launch(grid, dim3(SIDE * SIDE), 0, stream, fit_product, *a, (uint32_t)what);
}

template <unsigned KV> static int weigh_and_choose(void *stream, const struct k_fit *a)
{
    dim3 rows((a->n_asked + ROWS - 1) / ROWS, a->n_lists);
    dim3 pages((a->n_raw + PAGE_TOKENS - 1) / PAGE_TOKENS, a->n_lists);
    size_t desk = desk_bytes(a->pool.head_dim);
    int r = launch(rows, dim3(THREADS), desk, stream, fit_targets<KV>, *a);

    if (r == 0)
        r = launch(pages, dim3(THREADS), desk, stream, fit_weights<KV>, *a);
    return r == 0 ? launch(dim3(a->n_lists), dim3(SOLVERS), 0, stream, fit_choose, *a) : r;
}

static int pack(void *stream, const struct k_fit *a)
{
    struct k_move m = { a->pool, a->angles, a->from,   a->to,         (const uint32_t *)a->scratch,
                        1,       0,         a->n_keys, a->first_list, a->n_lists };

    return k_move(stream, &m);
}

template <unsigned KV> static int fit(void *stream, const struct k_fit *a)
{
    uint32_t q = a->n_asked, n = a->n_keys - a->sinks, hd = a->pool.head_dim, p = n < q ? n : q;
    dim3 rows((q + ROWS - 1) / ROWS, a->n_lists), lists(a->n_lists);
    int r = launch(rows, dim3(THREADS), desk_bytes(hd), stream, fit_attend<KV>, *a);

    if (r == 0)
        r = launch(dim3(n, a->n_lists), dim3(THREADS), 0, stream, fit_values<KV>, *a);
    if (r == 0)
        r = run_product(stream, a, LEAVE_OVER, q, hd);
    if (r == 0)
        r = run_product(stream, a, SQUARE, p, p);
    if (r == 0 && n <= q)
        r = run_product(stream, a, APPLY, n, hd);
    if (r == 0)
        r = launch(lists, dim3(SOLVERS), 0, stream, fit_solve, *a);
    if (r == 0 && n > q)
        r = run_product(stream, a, APPLY, n, hd);
    if (r == 0)
        r = launch(lists, dim3(SOLVERS), 0, stream, fit_store<KV>, *a);
    return r;
}

template <unsigned KV> static int run(void *stream, const struct k_fit *a)
{
    int r = weigh_and_choose<KV>(stream, a);

    if (r == 0)
        r = pack(stream, a);
    return r == 0 && a->sinks < a->n_keys ? fit<KV>(stream, a) : r;
}

int k_fit(void *stream, const struct k_fit *a)
{
    return KV_OF(a->pool.kv, run)(stream, a);
}
