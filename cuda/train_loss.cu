/* Losses of rows of logits, and what becomes of parameters. */
#include "cuda/train_kernels.h"

#include "cuda/best.cuh"
#include "cuda/typed.cuh"

#define THREADS  256u
#define REST_MIN 1e-6 /* a rest below it is rounding */

/* Of all of the block's threads. */
static __device__ float row_most(const float *z, uint32_t n)
{
    float most = -INFINITY;

    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        if (z[i] > most) /* a NaN is looked for elsewhere */
            most = z[i];
    return block_max(most);
}

/* --- loss ------------------------------------------------------------------------------------- */

/* The teacher's part of a row, before its weight, and the derivative by the logit of any other id
 * as a factor of its q (train/net/loss.c has the same). One thread: lists are short. In double: the
 * rest is what is left of 1 by many subtractions. */
static __device__ double teacher_loss(const float *z, float most, float sum, const uint32_t *ids,
                                      const float *ps, uint32_t n, float *ret_others)
{
    double loss = 0, p_rest = 1, q_rest = sum, lse = (double)most + log((double)sum);

    for (uint32_t k = 0; k < n; k++) {
        double p = ps[k];

        loss += p > 0 ? p * (log(p) - (z[ids[k]] - lse)) : 0;
        p_rest -= p;
        q_rest -= expf(z[ids[k]] - most);
    }
    q_rest = q_rest / sum > REST_MIN ? q_rest / sum : REST_MIN;
    if (p_rest > REST_MIN)
        loss += p_rest * log(p_rest / q_rest);
    else
        p_rest = 0;
    *ret_others = (float)(1 - p_rest / q_rest);
    return loss;
}

/* z becomes the derivative by itself. The teacher's ids are each another one. */
static __device__ void derive(const struct k_loss *a, float *z, const struct tensors_ask *ask,
                              float most, float sum, float others)
{
    float teacher = ask->teacher_ids ? ask->teacher_weight : 0, lse = most + logf(sum);
    float by = (ask->weight + teacher * others) / sum, q = 0;
    /* Only looked at by threads that have an id. */
    size_t list = (size_t)blockIdx.x * a->of.n_teacher + threadIdx.x;
    bool has = ask->teacher_ids && threadIdx.x < a->of.n_teacher; /* an id of the teacher's */

    static_assert(TENSORS_TOP_MAX <= THREADS, "a thread has one id at most");
    /* Before z is written over. */
    if (has)
        q = expf(z[a->teacher_ids[list]] - lse);
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < a->of.n_vocab; i += THREADS)
        /* As one of the others; the teacher's own ids follow. */
        z[i] = expf(z[i] - most) * by;
    __syncthreads();
    if (has)
        z[a->teacher_ids[list]] = ask->weight * q + teacher * (q - a->teacher_p[list]);
    __syncthreads();
    /* The target may be one of the teacher's: behind the barrier it has its value. */
    if (threadIdx.x == 0)
        z[ask->target] -= ask->weight;
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < a->of.n_vocab; i += THREADS)
        typed_put(a->of.type, a->of.dz, (size_t)blockIdx.x * a->of.n_vocab + i, z[i]);
}

static __global__ void __launch_bounds__(THREADS) loss(struct k_loss a)
{
    /* From the thread that adds up the teacher's words to all. */
    SHARED_STATIC(float, shared_others, [1]);
    float *z = a.of.z + (size_t)blockIdx.x * a.of.n_vocab, most, sum = 0, bad = 0;
    size_t list = (size_t)blockIdx.x * a.of.n_teacher;
    struct tensors_ask ask;

    grid_trigger();
    grid_wait();
    ask = a.of.asks[blockIdx.x];
    most = row_most(z, a.of.n_vocab);
    for (uint32_t i = threadIdx.x; i < a.of.n_vocab; i += THREADS) {
        bad += is_finite(z[i]) ? 0.0f : 1.0f;
        sum += expf(z[i] - most);
    }
    bad = block_sum(bad);
    /* An infinite logit would give a finite loss: what is no number shows in all that follows. */
    sum = block_sum(sum) + (bad > 0 ? NAN : 0);
    if (threadIdx.x == 0) {
        struct tensors_told told = { 0, 0, 0, false };
        float at = z[ask.target], lse = most + logf(sum);

        shared_others[0] = 0;
        told.logp = at - lse;
        /* A tie with the target counts. */
        told.right = at >= most;
        told.targets = ((double)lse - at) * ask.weight;
        if (ask.teacher_ids)
            told.teacher = ask.teacher_weight * teacher_loss(z, most, sum, a.teacher_ids + list,
                                                             a.teacher_p + list, a.of.n_teacher,
                                                             shared_others);
        a.of.ret[blockIdx.x] = told;
    }
    __syncthreads();
    if (a.of.dz)
        derive(&a, z, &ask, most, sum, shared_others[0]);
}

int k_loss(void *stream, const struct k_loss *a)
{
    return a->of.n_rows ? launch(a->of.n_rows, THREADS, 0, stream, loss, *a) : 0;
}

/* --- the largest ------------------------------------------------------------------------------ */

/* In rounds, each the largest of those behind the one before: lists are short, rows in the cache.
 */
static __global__ void __launch_bounds__(THREADS) top(struct tensors_top a)
{
    const float *z = a.z + (size_t)blockIdx.x * a.n_vocab;
    float most, sum = 0;
    struct best last = { INFINITY, 0 };
    size_t to = (size_t)blockIdx.x * a.k;

    grid_trigger();
    grid_wait();
    most = row_most(z, a.n_vocab);
    for (uint32_t i = threadIdx.x; i < a.n_vocab; i += THREADS)
        sum += expf(z[i] - most);
    sum = block_sum(sum);
    for (uint32_t k = 0; k < a.k; k++) {
        struct best b = BEST_NONE;

        for (uint32_t i = threadIdx.x; i < a.n_vocab; i += THREADS)
            /* Behind the last one in the order of size, then of ids. */
            if (z[i] > b.x && (z[i] < last.x || (z[i] == last.x && i > last.at)))
                b = { z[i], i };
        last = block_best(b);
        if (threadIdx.x == 0) {
            /* A row of NaN has no largest: an id that exists, and a probability that is none. */
            a.ids[to + k] = last.at == UINT32_MAX ? 0 : last.at;
            a.p[to + k] = last.at == UINT32_MAX ? NAN : expf(last.x - most) / sum;
        }
    }
}

int k_top(void *stream, const struct tensors_top *a)
{
    return a->n_rows ? launch(a->n_rows, THREADS, 0, stream, top, *a) : 0;
}

/* --- parameters ------------------------------------------------------------------------------- */

/* Every thread gets it. The order of additions is that of lanes and warps, always. */
static __device__ double block_sum_double(double v)
{
    SHARED_STATIC(double, part, [WARP]);
    unsigned lane = threadIdx.x % WARP;

    for (int by = 16; by > 0; by /= 2)
        v += __shfl_xor_sync(~0u, v, by);
    if (lane == 0)
        part[threadIdx.x / WARP] = v;
    __syncthreads();
    v = lane < blockDim.x / WARP ? part[lane] : 0.0;
    for (int by = 16; by > 0; by /= 2)
        v += __shfl_xor_sync(~0u, v, by);
    __syncthreads();
    return v;
}

/* Blocks leave theirs side by side: to[0] is for all of them. */
static __global__ void __launch_bounds__(THREADS) sum_squares(const float *x, size_t n, double *to)
{
    double sum = 0;

    grid_trigger();
    grid_wait();
    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < n;
         i += (size_t)gridDim.x * THREADS)
        sum += (double)x[i] * x[i];
    sum = block_sum_double(sum);
    if (threadIdx.x == 0)
        to[1 + blockIdx.x] = sum;
}

static __global__ void __launch_bounds__(THREADS) sum_parts(double *sums, uint32_t n)
{
    double sum = 0;

    grid_trigger();
    grid_wait();
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        sum += sums[1 + i];
    sum = block_sum_double(sum);
    if (threadIdx.x == 0)
        sums[0] = sum;
}

int k_sum_squares(void *stream, const float *x, size_t n, double *sums)
{
    /* By n alone, so that the same values are added in the same order on every device. */
    size_t all = (n + 16 * THREADS - 1) / (16 * THREADS);
    uint32_t blocks = all < 1 ? 1 : all < K_SUMS ? (uint32_t)all : K_SUMS;
    int r = launch(blocks, THREADS, 0, stream, sum_squares, x, n, sums);

    return r < 0 ? r : launch(1, THREADS, 0, stream, sum_parts, sums, blocks);
}

static __global__ void __launch_bounds__(THREADS) adamw(struct tensors_adamw a)
{
    grid_trigger();
    grid_wait();
    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < a.n;
         i += (size_t)gridDim.x * THREADS) {
        float g = a.g[i] * a.scale, m = a.beta1 * a.m[i] + (1 - a.beta1) * g,
              v = a.beta2 * a.v[i] + (1 - a.beta2) * g * g;

        a.m[i] = m;
        a.v[i] = v;
        a.p[i] = a.p[i] * a.keep - a.rate * m / (sqrtf(v) * a.root + a.eps);
    }
}

int k_adamw(void *stream, const struct tensors_adamw *a)
{
    /* Four values a thread, or more where the grid has no more blocks. */
    size_t all = (a->n + 4 * THREADS - 1) / (4 * THREADS);

    return a->n ? launch((unsigned)(all < 65536 ? all : 65536), THREADS, 0, stream, adamw, *a) : 0;
}
