/* Rows one by one, forward and back: a block has a row. What they move is small beside products. */
#include "cuda/train_kernels.h"

#include "cuda/typed.cuh"

#define THREADS 256u
#define PIECE   4096u /* values of a block, where there are no rows */

static unsigned pieces(size_t n)
{
    size_t all = (n + PIECE - 1) / PIECE;

    return all < 65535 ? (unsigned)all : 65535u; /* as many as a grid has in y */
}

/* --- casts ------------------------------------------------------------------------------------ */

#define EACH_VALUE(i, n)                                                                           \
    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < (n);                           \
         i += (size_t)gridDim.x * THREADS)

static __global__ void __launch_bounds__(THREADS) narrow(struct k_cast a)
{
    grid_trigger();
    grid_wait();
    EACH_VALUE(i, a.n)
    typed_put(a.type, a.t, i, a.f[i]);
}

int k_narrow(void *stream, const struct k_cast *a)
{
    return a->n ? launch(pieces(a->n), THREADS, 0, stream, narrow, *a) : 0;
}

static __global__ void __launch_bounds__(THREADS) widen(struct k_cast a)
{
    grid_trigger();
    grid_wait();
    EACH_VALUE(i, a.n)
    a.f[i] = typed_get(a.type, a.t, i);
}

int k_widen(void *stream, const struct k_cast *a)
{
    return a->n ? launch(pieces(a->n), THREADS, 0, stream, widen, *a) : 0;
}

static __global__ void __launch_bounds__(THREADS) add(struct k_add a)
{
    /* A row in x of the grid, of which more fit than in y. */
    float *y = a.y + (size_t)blockIdx.x * a.n;

    grid_trigger();
    grid_wait();
    for (uint32_t i = blockIdx.y * THREADS + threadIdx.x; i < a.n; i += gridDim.y * THREADS)
        y[i] += a.x[i];
}

int k_add(void *stream, const struct k_add *a)
{
    return a->n_rows && a->n ? launch(dim3(a->n_rows, pieces(a->n)), THREADS, 0, stream, add, *a)
                             : 0;
}

/* --- norms ------------------------------------------------------------------------------------ */

/* y row i is of x row rows[i]. */
static __global__ void __launch_bounds__(THREADS) norm(struct tensors_norm a)
{
    const float *x;
    float sum = 0, r;

    grid_trigger();
    grid_wait();
    x = a.x + (size_t)(a.rows ? a.rows[blockIdx.x] : blockIdx.x) * a.n;
    for (uint32_t i = threadIdx.x; i < a.n; i += THREADS)
        sum += x[i] * x[i];
    sum = block_sum(sum);
    r = 1 / sqrtf(sum / (float)a.n + a.eps) + (sum - sum); /* an infinite sum would make it 0 */
    for (uint32_t i = threadIdx.x; i < a.n; i += THREADS)
        typed_put(a.type, a.y, (size_t)blockIdx.x * a.n + i, x[i] * r * a.w[i]);
    if (threadIdx.x == 0 && a.r)
        a.r[blockIdx.x] = r;
}

int k_train_norm(void *stream, const struct tensors_norm *a)
{
    return a->n_rows ? launch(a->n_rows, THREADS, 0, stream, norm, *a) : 0;
}

/* Rows of a list are each another one: no two blocks add to the same. */
static __global__ void __launch_bounds__(THREADS) norm_back(struct tensors_norm_back a)
{
    const float *x, *dy = a.dy + (size_t)blockIdx.x * a.n;
    float *dx, sum = 0, r, by;
    size_t at;

    grid_trigger();
    grid_wait();
    at = (size_t)(a.rows ? a.rows[blockIdx.x] : blockIdx.x) * a.n;
    x = a.x + at;
    dx = a.dx + at;
    r = a.r[blockIdx.x];
    for (uint32_t i = threadIdx.x; i < a.n; i += THREADS)
        sum += dy[i] * a.w[i] * x[i];
    /* The part of the derivative by way of the row's length. */
    by = block_sum(sum) * r * r * r / (float)a.n;
    for (uint32_t i = threadIdx.x; i < a.n; i += THREADS)
        dx[i] += dy[i] * a.w[i] * r - x[i] * by;
}

int k_norm_back(void *stream, const struct tensors_norm_back *a)
{
    return a->n_rows ? launch(a->n_rows, THREADS, 0, stream, norm_back, *a) : 0;
}

/* --- sums over rows ----------------------------------------------------------------------------
 */

/* A block has some columns of a piece of the rows. */
static __global__ void __launch_bounds__(THREADS) sum_rows(struct tensors_sum a, float *part)
{
    /* A piece has `each` rows; of few rows the last pieces have none. */
    uint32_t c = blockIdx.x * THREADS + threadIdx.x, each = (a.n_rows + gridDim.y - 1) / gridDim.y,
             first = blockIdx.y * each, end = min(first + each, a.n_rows);
    size_t ld = a.ld ? a.ld : a.n;
    float sum = 0;

    grid_trigger();
    grid_wait();
    /* No barrier follows. */
    if (c >= a.n)
        return;
    for (uint32_t i = first; i < end; i++) {
        float by = a.by ? a.by[i] : 1.0f;

        if (a.x)
            by *= a.x[(size_t)(a.rows ? a.rows[i] : i) * a.n + c];
        sum += by * a.d[i * ld + c];
    }
    part[(size_t)blockIdx.y * a.n + c] = sum;
}

static __global__ void __launch_bounds__(THREADS)
    add_pieces(float *y, const float *part, uint32_t n, uint32_t n_pieces)
{
    uint32_t c = blockIdx.x * THREADS + threadIdx.x;
    float sum = 0;

    grid_trigger();
    grid_wait();
    if (c >= n)
        return;
    for (uint32_t i = 0; i < n_pieces; i++)
        sum += part[(size_t)i * n + c];
    y[c] += sum;
}

int k_sum_rows(void *stream, const struct tensors_sum *a, float *part)
{
    /* More pieces keep the device busy, as columns alone are few blocks; the number depends on the
     * rows alone, and so does the order of the sum. */
    uint32_t n_pieces = a->n_rows < K_SPLITS ? a->n_rows : K_SPLITS,
             blocks = (a->n + THREADS - 1) / THREADS;
    int r = 0;

    if (n_pieces && a->n)
        r = launch(dim3(blocks, n_pieces), THREADS, 0, stream, sum_rows, *a, part);
    if (n_pieces && a->n && r == 0)
        r = launch(blocks, THREADS, 0, stream, add_pieces, a->y, (const float *)part, a->n,
                   n_pieces);
    return r;
}

/* --- SwiGLU ----------------------------------------------------------------------------------- */

static __global__ void __launch_bounds__(THREADS) gate(struct k_gate a)
{
    /* gu: g, then u, of a row. */
    size_t row = blockIdx.x;

    grid_trigger();
    grid_wait();
    for (uint32_t i = threadIdx.x; i < a.n; i += THREADS) {
        float g = typed_get(a.type, a.gu, 2 * row * a.n + i),
              u = typed_get(a.type, a.gu, (2 * row + 1) * a.n + i);

        typed_put(a.type, a.y, row * a.n + i, g / (1 + expf(-g)) * u);
    }
}

int k_gate(void *stream, const struct k_gate *a)
{
    return a->n_rows ? launch(a->n_rows, THREADS, 0, stream, gate, *a) : 0;
}

static __global__ void __launch_bounds__(THREADS) gate_back(struct k_gate a)
{
    size_t row = blockIdx.x;

    grid_trigger();
    grid_wait();
    for (uint32_t i = threadIdx.x; i < a.n; i += THREADS) {
        size_t at = 2 * row * a.n + i;
        float g = typed_get(a.type, a.gu, at), u = typed_get(a.type, a.gu, at + a.n),
              dy = typed_get(a.type, a.y, row * a.n + i), s = 1 / (1 + expf(-g)), silu = g * s;

        typed_put(a.type, a.gu, at, dy * u * (s + silu * (1 - s)));
        typed_put(a.type, a.gu, at + a.n, dy * silu);
    }
}

int k_gate_back(void *stream, const struct k_gate *a)
{
    return a->n_rows ? launch(a->n_rows, THREADS, 0, stream, gate_back, *a) : 0;
}

/* --- rows of a table -------------------------------------------------------------------------- */

static __global__ void __launch_bounds__(THREADS) take(struct tensors_take a)
{
    float *y = a.y + (size_t)blockIdx.x * (a.ld_y ? a.ld_y : a.n);
    const float *from;
    uint32_t index;

    grid_trigger();
    grid_wait();
    index = a.index[blockIdx.x];
    /* Somebody else fills this row, or it stays as it is. */
    if (index == SIGHT_NO_ROW)
        return;
    from = a.table + (size_t)index * (a.ld ? a.ld : a.n);
    for (uint32_t i = threadIdx.x; i < a.n; i += THREADS)
        y[i] = a.add ? y[i] + from[i] : from[i];
}

int k_take(void *stream, const struct tensors_take *a)
{
    return a->n_rows ? launch(a->n_rows, THREADS, 0, stream, take, *a) : 0;
}

/* A block has some columns of one row of the table. */
static __global__ void __launch_bounds__(THREADS) give(struct k_give a)
{
    uint32_t i = blockIdx.y * THREADS + threadIdx.x;
    float *y, sum;

    grid_trigger();
    grid_wait();
    if (i >= a.n)
        return;
    y = a.table + (size_t)a.to[blockIdx.x] * a.n + i;
    /* In a register: the row is read and written once. */
    sum = *y;
    for (uint32_t j = a.starts[blockIdx.x]; j < a.starts[blockIdx.x + 1]; j++)
        sum += a.x[(size_t)a.from[j] * a.n + i];
    *y = sum;
}

int k_give(void *stream, const struct k_give *a)
{
    dim3 grid(a->n_rows, (a->n + THREADS - 1) / THREADS);

    return a->n_rows && a->n ? launch(grid, THREADS, 0, stream, give, *a) : 0;
}
