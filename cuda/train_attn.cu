/* What attention does beside its products (cuda/train_attn.c): keys and queries out of rows, turned
 * to where they stand, the softmax and its derivative, and results back to rows. */
#include "cuda/train_kernels.h"

#include "cuda/typed.cuh"

#define THREADS 256u
#define LINE    128u /* of a block that has a row of scores */

/* --- keys ------------------------------------------------------------------------------------- */

/* Memory, then the segment's raw rows, then its gists: as the CPU counts them (train/net/attn.c).
 */
static __device__ struct sight_key key_at(const struct k_train_keys *a, uint32_t i)
{
    const struct sight_segment *g = &a->segment;
    uint32_t row;

    if (i < g->n_memory)
        return a->memory[i];
    i -= g->n_memory;
    row = i < g->n_raw ? g->raw + i : g->gist + i - g->n_raw;
    return { row, a->rows[row].pos };
}

/* A block has a key of all heads, a thread pairs of values that turn together. */
static __global__ void __launch_bounds__(THREADS) take_keys(struct k_train_keys a)
{
    const struct tensors_heads *h = &a.heads;
    uint32_t half = h->head_dim / 2;
    const float *k, *angle;
    struct sight_key key;

    grid_trigger();
    grid_wait();
    /* Lists may have been copied just before: they are looked at behind grid_wait, too. */
    key = key_at(&a, blockIdx.x);
    angle = h->angles + (size_t)key.pos * h->head_dim;
    k = a.qkv + (size_t)key.row * h->n_qkv + h->n_q;
    for (uint32_t e = threadIdx.x; e < h->n_head_kv * half; e += THREADS) {
        uint32_t head = e / half, i = e % half, from = head * h->head_dim + i;
        /* (head, key, dim): a head's keys are a matrix of their own. */
        size_t to = ((size_t)head * gridDim.x + blockIdx.x) * h->head_dim + i;
        float c = angle[i], s = angle[half + i], x = k[from], y = k[from + half];

        typed_put(h->type, a.k, to, x * c - y * s);
        typed_put(h->type, a.k, to + half, x * s + y * c);
        typed_put(h->type, a.v, to, k[h->n_kv + from]);
        typed_put(h->type, a.v, to + half, k[h->n_kv + from + half]);
    }
}

static uint32_t n_keys_of(const struct k_train_keys *a)
{
    return sight_n_keys(&a->segment);
}

int k_train_keys(void *stream, const struct k_train_keys *a)
{
    return n_keys_of(a) ? launch(n_keys_of(a), THREADS, 0, stream, take_keys, *a) : 0;
}

/* Rows of a segment's keys are each another one, so no two blocks add to the same. */
static __global__ void __launch_bounds__(THREADS) give_keys(struct k_train_keys a, float *dqkv)
{
    const struct tensors_heads *h = &a.heads;
    const float *dk = (const float *)a.k, *dv = (const float *)a.v, *angle;
    uint32_t half = h->head_dim / 2;
    struct sight_key key;
    float *to;

    grid_trigger();
    grid_wait();
    key = key_at(&a, blockIdx.x);
    angle = h->angles + (size_t)key.pos * h->head_dim;
    to = dqkv + (size_t)key.row * h->n_qkv + h->n_q;
    for (uint32_t e = threadIdx.x; e < h->n_head_kv * half; e += THREADS) {
        uint32_t head = e / half, i = e % half, at = head * h->head_dim + i;
        size_t from = ((size_t)head * gridDim.x + blockIdx.x) * h->head_dim + i;
        float c = angle[i], s = angle[half + i], x = dk[from], y = dk[from + half];

        /* The rotation's transpose: back by the same angle. */
        to[at] += x * c + y * s;
        to[at + half] += y * c - x * s;
        to[h->n_kv + at] += dv[from];
        to[h->n_kv + at + half] += dv[from + half];
    }
}

int k_train_dkv(void *stream, const struct k_train_keys *a, float *dqkv)
{
    return n_keys_of(a) ? launch(n_keys_of(a), THREADS, 0, stream, give_keys, *a, dqkv) : 0;
}

/* --- queries ---------------------------------------------------------------------------------- */

/* A block has a row of all heads. */
static __global__ void __launch_bounds__(THREADS) queries(struct k_block a)
{
    const struct tensors_heads *h = &a.heads;
    uint32_t half = h->head_dim / 2, row = a.row + blockIdx.x;
    float scale = 1 / sqrtf((float)h->head_dim);
    const float *q = a.qkv + (size_t)row * h->n_qkv, *angle;

    grid_trigger();
    grid_wait();
    angle = h->angles + (size_t)a.rows[row].pos * h->head_dim;
    for (uint32_t e = threadIdx.x; e < h->n_head * half; e += THREADS) {
        uint32_t head = e / half, i = e % half, from = head * h->head_dim + i;
        size_t to = ((size_t)head * a.n + blockIdx.x) * h->head_dim + i,
               at = (size_t)row * h->n_q + from;
        float c = angle[i], s = angle[half + i], x = q[from], y = q[from + half];

        typed_put(h->type, a.q, to, (x * c - y * s) * scale);
        typed_put(h->type, a.q, to + half, (x * s + y * c) * scale);
        if (!a.dout)
            continue;
        typed_put(h->type, a.o, to, typed_get(h->type, a.dout, at));
        typed_put(h->type, a.o, to + half, typed_get(h->type, a.dout, at + half));
    }
}

int k_train_queries(void *stream, const struct k_block *a)
{
    return launch(a->n, THREADS, 0, stream, queries, *a);
}

/* x (head, row, dim) f32 to out (row, head, dim) typed. */
static __global__ void __launch_bounds__(THREADS) outputs(struct k_block a)
{
    const struct tensors_heads *h = &a.heads;

    grid_trigger();
    grid_wait();
    for (uint32_t e = threadIdx.x; e < h->n_q; e += THREADS) {
        uint32_t head = e / h->head_dim, i = e % h->head_dim;

        typed_put(h->type, a.out, (size_t)(a.row + blockIdx.x) * h->n_q + e,
                  a.x[((size_t)head * a.n + blockIdx.x) * h->head_dim + i]);
    }
}

int k_train_out(void *stream, const struct k_block *a)
{
    return launch(a->n, THREADS, 0, stream, outputs, *a);
}

/* A row is in one block of query rows, so its derivative is set and not added to. */
static __global__ void __launch_bounds__(THREADS) dq(struct k_block a)
{
    const struct tensors_heads *h = &a.heads;
    uint32_t half = h->head_dim / 2, row = a.row + blockIdx.x;
    float scale = 1 / sqrtf((float)h->head_dim), *to = a.dqkv + (size_t)row * h->n_qkv;
    const float *angle;

    grid_trigger();
    grid_wait();
    angle = h->angles + (size_t)a.rows[row].pos * h->head_dim;
    for (uint32_t e = threadIdx.x; e < h->n_head * half; e += THREADS) {
        uint32_t head = e / half, i = e % half, at = head * h->head_dim + i;
        const float *x = a.x + ((size_t)head * a.n + blockIdx.x) * h->head_dim + i;
        float c = angle[i], s = angle[half + i];

        to[at] = (x[0] * c + x[half] * s) * scale;
        to[at + half] = (x[half] * c - x[0] * s) * scale;
    }
}

int k_train_dq(void *stream, const struct k_block *a)
{
    return launch(a->n, THREADS, 0, stream, dq, *a);
}

/* --- scores ----------------------------------------------------------------------------------- */

/* Keys [0, end) and [from, to) are seen. end is never behind the raw keys, from never before the
 * gists. */
struct spans {
    uint32_t end, from, to;
};

static __device__ struct spans spans_of(const struct k_block *a, uint32_t row)
{
    const struct sight_row *r = a->rows + row;

    return { a->n_memory + r->raw_end, a->n_raw_keys + r->gist_first, a->n_raw_keys + r->gist_end };
}

static __device__ __forceinline__ bool seen(const struct spans *v, uint32_t i)
{
    return i < v->end || (i >= v->from && i < v->to);
}

/* A block has a row of one head. What a row does not see may be anything in s, infinite too: it is
 * never read. */
static __global__ void __launch_bounds__(LINE) softmax(struct k_block a)
{
    uint32_t head = blockIdx.y, row = a.row + blockIdx.x;
    size_t at = ((size_t)head * a.n + blockIdx.x) * a.ld;
    const float *s = a.s + at;
    float most = -INFINITY, sum = 0;
    struct spans v;

    grid_trigger();
    grid_wait();
    v = spans_of(&a, row);
    for (uint32_t i = threadIdx.x; i < a.n_keys; i += LINE)
        if (seen(&v, i) && !(s[i] <= most)) /* a NaN stays */
            most = s[i];
    most = block_max(most);
    for (uint32_t i = threadIdx.x; i < a.n_keys; i += LINE)
        if (seen(&v, i))
            sum += expf(s[i] - most);
    sum = block_sum(sum);
    for (uint32_t i = threadIdx.x; i < a.n_keys; i += LINE)
        typed_put(a.heads.type, a.p, at + i, seen(&v, i) ? expf(s[i] - most) / sum : 0);
    if (threadIdx.x == 0)
        /* For the way back, which makes the same probabilities without another pass over the row.
         */
        a.lse[(size_t)row * a.heads.n_head + head] = most + logf(sum);
}

int k_train_softmax(void *stream, const struct k_block *a)
{
    return launch(dim3(a->n, a->heads.n_head), LINE, 0, stream, softmax, *a);
}

/* d, the sum of p dp over all keys, is the output times its derivative. */
static __global__ void __launch_bounds__(LINE) softmax_back(struct k_block a)
{
    const struct tensors_heads *h = &a.heads;
    uint32_t head = blockIdx.y, row = a.row + blockIdx.x;
    size_t of = (size_t)head * a.n + blockIdx.x, at = of * a.ld,
           out = (size_t)row * h->n_q + (size_t)head * h->head_dim;
    float lse, d = 0;
    struct spans v;

    grid_trigger();
    grid_wait();
    v = spans_of(&a, row);
    lse = a.lse[(size_t)row * h->n_head + head];
    for (uint32_t i = threadIdx.x; i < h->head_dim; i += LINE)
        d += typed_get(h->type, a.out, out + i) * typed_get(h->type, a.o, of * h->head_dim + i);
    d = block_sum(d);
    for (uint32_t i = threadIdx.x; i < a.n_keys; i += LINE) {
        float p = 0, ds = 0;

        if (seen(&v, i)) {
            p = expf(a.s[at + i] - lse);
            ds = p * (a.dp[at + i] - d);
        }
        typed_put(h->type, a.p, at + i, p);
        typed_put(h->type, a.ds, at + i, ds);
    }
}

int k_train_softmax_back(void *stream, const struct k_block *a)
{
    return launch(dim3(a->n, a->heads.n_head), LINE, 0, stream, softmax_back, *a);
}
