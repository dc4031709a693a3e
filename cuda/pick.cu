/* A vocabulary is 512 KB of logits, a row, and what goes to the host of it a number or some KB. The
 * launches cost more than what they do: seven, or three where the largest is all that is wanted. */
#include "cuda/pick.h"

#include "cuda/atomic.cuh"
#include "cuda/best.cuh"
#include "engine/sampler.h"

#define THREADS 256u
#define EACH    4u /* tokens of a thread */
#define SPAN    (WARP * EACH)
#define BLOCK   SAMPLER_MASS_BLOCK

static_assert(BLOCK == THREADS * EACH, "a block adds up what the CPU does as one");

/* How far below 1 a weight is, as engine/sampler.c has it: buckets of its upper bits. */
#define BUCKETS      1024u
#define BUCKET_SHIFT 20u
#define ONE_BITS     0x3f800000u

/* What blocks say of a row, side by side. */
struct part {
    double *mass;            /* (blocks) */
    struct best *best;       /* (blocks) */
    uint32_t *bad;           /* (blocks) */
    uint32_t *likely, *kept; /* (blocks) */
    unsigned *depths;        /* (BUCKETS): tokens of each */
};

/* Blocks of a row, the last one partly full. */
static __host__ __device__ __forceinline__ uint32_t n_blocks(uint32_t n_vocab)
{
    return (n_vocab + BLOCK - 1) / BLOCK;
}

static __host__ __device__ __forceinline__ size_t part_bytes(uint32_t n_vocab)
{
    size_t block = sizeof(double) + sizeof(struct best) + 3 * sizeof(uint32_t);

    return (n_blocks(n_vocab) * block + BUCKETS * sizeof(unsigned) + 7) & ~(size_t)7;
}

/* In the order of alignment: doubles first. */
static __device__ __forceinline__ struct part part_of(const struct k_pick *a, uint32_t row)
{
    uint32_t n = n_blocks(a->n_vocab);
    struct part p;

    p.mass = (double *)((uint8_t *)a->scratch + row * part_bytes(a->n_vocab));
    p.best = (struct best *)(p.mass + n);
    p.bad = (uint32_t *)(p.best + n);
    p.likely = p.bad + n;
    p.kept = p.likely + n;
    p.depths = p.kept + n;
    return p;
}

size_t k_pick_scratch(uint32_t n, uint32_t n_vocab)
{
    return n * part_bytes(n_vocab);
}

/* The i-th of a thread's tokens: a warp's lie side by side, so that ballots count them in order. */
static __device__ __forceinline__ uint32_t token(uint32_t i)
{
    return blockIdx.x * BLOCK + threadIdx.x / WARP * SPAN + i * WARP + threadIdx.x % WARP;
}

/* Of all threads; every thread gets it. */
static __device__ uint32_t block_count(uint32_t v)
{
    SHARED_STATIC(uint32_t, part, [THREADS / WARP]);
    uint32_t sum = 0;

    for (int by = 16; by > 0; by /= 2)
        v += __shfl_xor_sync(~0u, v, by);
    if (threadIdx.x % WARP == 0)
        part[threadIdx.x / WARP] = v;
    __syncthreads();
    for (uint32_t i = 0; i < THREADS / WARP; i++)
        sum += part[i];
    __syncthreads(); /* part may be written again */
    return sum;
}

/* --- the largest ------------------------------------------------------------------------------ */

/* A block a row. What was a number and is none now was none of the model's faults. */
static __global__ void __launch_bounds__(THREADS) pick_penalise(struct k_pick a)
{
    const struct k_pick_ask *ask = a.asks + blockIdx.x;
    float *x = a.logits + (size_t)blockIdx.x * a.n_vocab;
    struct part p = part_of(&a, blockIdx.x);
    uint32_t n_changed = 0;

    grid_trigger();
    grid_wait();
    /* For pick_weigh, which counts into them. */
    for (uint32_t i = threadIdx.x; i < BUCKETS; i += THREADS)
        p.depths[i] = 0;
    for (uint32_t i = threadIdx.x; i < ask->n_ids; i += THREADS) {
        float *v = x + a.ids[ask->first_id + i], was = *v;

        /* Ids of an ask are each another one. */
        *v = was > 0 ? was / ask->penalty : __fmul_rn(was, ask->penalty);
        n_changed += is_finite(was) && !is_finite(*v);
    }
    n_changed = block_count(n_changed);
    if (threadIdx.x == 0)
        a.found[blockIdx.x].n_changed = n_changed;
}

static __global__ void __launch_bounds__(THREADS) pick_look(struct k_pick a)
{
    const float *x = a.logits + (size_t)blockIdx.y * a.n_vocab;
    struct part p = part_of(&a, blockIdx.y);
    struct best b = BEST_NONE;
    uint32_t bad = 0;

    grid_trigger();
    grid_wait();
    for (uint32_t i = 0; i < EACH; i++) {
        uint32_t id = token(i);

        if (id >= a.n_vocab)
            break;
        bad += !is_finite(x[id]);
        /* Of equal ones the first: ids of a thread ascend, block_best does the rest. */
        if (x[id] > b.x)
            b = { x[id], id };
    }
    bad = block_count(bad);
    b = block_best(b);
    if (threadIdx.x == 0) {
        p.best[blockIdx.x] = b;
        p.bad[blockIdx.x] = bad;
    }
}

static __global__ void __launch_bounds__(THREADS) pick_best(struct k_pick a)
{
    const float *x = a.logits + (size_t)blockIdx.x * a.n_vocab;
    struct k_pick_found *f = a.found + blockIdx.x;
    struct part p = part_of(&a, blockIdx.x);
    struct best b = BEST_NONE;
    uint32_t bad = 0;

    grid_trigger();
    grid_wait();
    for (uint32_t i = threadIdx.x; i < n_blocks(a.n_vocab); i += THREADS) {
        b = better(b, p.best[i]);
        bad += p.bad[i];
    }
    bad = block_count(bad);
    b = block_best(b);
    if (threadIdx.x != 0)
        return;
    f->best = b.at == UINT32_MAX ? 0 : b.at;
    f->max = x[f->best];
    /* Those that the penalty made so are no fault of the model's. */
    f->n_bad = bad - f->n_changed;
    f->n = f->n_likely = 0;
}

/* --- weights ---------------------------------------------------------------------------------- */

/* Whether the row is drawn from, and not just the largest of it taken: an infinite or missing
 * maximum has no distribution around it. */
static __device__ __forceinline__ bool draws(const struct k_pick *a, uint32_t row)
{
    return a->asks[row].temperature != 0 && is_finite(a->found[row].max);
}

/* engine/cpu/kernels_scalar.c, weight_of: no product is fused with a sum. */
static __device__ __forceinline__ float weight_of(float x)
{
    const float by[] = { 1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1, 1 };
    int32_t power = (int32_t)__fsub_rn(__fmul_rn(x, 1.44269504f), 0.5f);
    /* ln 2 in two parts. */
    float r = __fsub_rn(x, __fmul_rn((float)power, 0.693145752f)), p = 1.0f / 5040;

    r = __fsub_rn(r, __fmul_rn((float)power, 1.42860677e-6f));
    for (unsigned i = 0; i < sizeof(by) / sizeof(*by); i++)
        p = __fadd_rn(__fmul_rn(p, r), by[i]);
    return __fmul_rn(p, __uint_as_float((uint32_t)(power + 127) << 23));
}

/* Eight sums, of every eighth each, and what is left over of the last block: as
 * engine/sampler.c has it. */
static __device__ double mass_of(const float *w, uint32_t n)
{
    SHARED_STATIC(double, sums, [8]);
    double sum = 0;

    __syncthreads();
    if (threadIdx.x < 8) {
        for (uint32_t i = threadIdx.x; i < n / 8 * 8; i += 8)
            sum += (double)w[i];
        for (uint32_t i = n / 8 * 8; i < n && threadIdx.x == 0; i++)
            sum += (double)w[i];
        sums[threadIdx.x] = sum;
    }
    __syncthreads();
    sum = sums[0];
    for (unsigned k = 1; k < 8; k++)
        sum += sums[k];
    return sum;
}

static __global__ void __launch_bounds__(THREADS) pick_weigh(struct k_pick a)
{
    SHARED_STATIC(float, w, [BLOCK]);
    const struct k_pick_ask *ask = a.asks + blockIdx.y;
    float *x = a.logits + (size_t)blockIdx.y * a.n_vocab, max;
    uint32_t first = blockIdx.x * BLOCK;
    struct part p = part_of(&a, blockIdx.y);
    double mass;

    grid_trigger();
    grid_wait();
    if (!draws(&a, blockIdx.y))
        return;
    max = a.found[blockIdx.y].max;
    for (uint32_t i = 0; i < EACH; i++) {
        uint32_t id = token(i);
        float v;

        if (id >= a.n_vocab)
            break;
        v = __fsub_rn(x[id], max) / ask->temperature;
        /* Less would be denormal, or nothing. */
        v = v > SAMPLER_WEIGHT_LOG_MIN ? weight_of(v) : 0;
        /* Logits become weights in place: later kernels look at these. */
        x[id] = w[id - first] = v;
        /* In shared order or not, counts come out the same. */
        if (v > 0 && ask->top_k)
            atomicAdd(&p.depths[(ONE_BITS - __float_as_uint(v)) >> BUCKET_SHIFT], 1u);
    }
    mass = mass_of(w, min(BLOCK, a.n_vocab - first));
    if (threadIdx.x == 0)
        p.mass[blockIdx.x] = mass;
}

/* --- cuts ------------------------------------------------------------------------------------- */

/* The lower end of the bucket that the k-th largest is in; 0: there are not so many. */
static __device__ float weight_of_kth(const unsigned *depths, uint32_t k)
{
    SHARED_STATIC(uint32_t, sums, [THREADS]);
    uint32_t mine = 0, at = 0;

    for (uint32_t i = 0; i < BUCKETS / THREADS; i++)
        mine += depths[threadIdx.x * (BUCKETS / THREADS) + i];
    sums[threadIdx.x] = mine;
    __syncthreads();
    if (threadIdx.x != 0)
        return 0;
    while (at < THREADS && sums[at] < k)
        k -= sums[at++];
    if (at == THREADS)
        return 0;
    /* First which thread's buckets, then which of them. */
    at *= BUCKETS / THREADS;
    while (depths[at] < k)
        k -= depths[at++];
    return __uint_as_float(ONE_BITS + 1 - ((at + 1) << BUCKET_SHIFT));
}

/* One thread a row adds up the blocks, in their order, as the CPU does. */
static __global__ void __launch_bounds__(THREADS) pick_cut(struct k_pick a)
{
    const struct k_pick_ask *ask = a.asks + blockIdx.x;
    struct k_pick_found *f = a.found + blockIdx.x;
    struct part p = part_of(&a, blockIdx.x);
    double mass = 0, least;
    float kth = 0;

    grid_trigger();
    grid_wait();
    if (!draws(&a, blockIdx.x))
        return;
    if (ask->top_k)
        kth = weight_of_kth(p.depths, ask->top_k);
    if (threadIdx.x != 0)
        return;
    for (uint32_t i = 0; i < n_blocks(a.n_vocab); i++)
        mass += p.mass[i];
    least = ask->least * mass / a.n_vocab;
    f->mass = mass;
    f->least = (float)(least > (double)ask->min_p ? least : (double)ask->min_p);
    /* Buckets are coarse: a few more than k may stay, and the host counts again. */
    f->cut = kth > f->least ? kth : f->least;
}

static __device__ __forceinline__ bool weighs(float w, float least)
{
    return w >= least && w > 0;
}

static __global__ void __launch_bounds__(THREADS) pick_count(struct k_pick a)
{
    const float *w = a.logits + (size_t)blockIdx.y * a.n_vocab;
    const struct k_pick_found *f = a.found + blockIdx.y;
    struct part p = part_of(&a, blockIdx.y);
    uint32_t likely = 0, kept = 0;

    grid_trigger();
    grid_wait();
    if (!draws(&a, blockIdx.y))
        return;
    for (uint32_t i = 0; i < EACH; i++) {
        uint32_t id = token(i);

        if (id >= a.n_vocab)
            break;
        likely += weighs(w[id], f->least);
        kept += weighs(w[id], f->cut);
    }
    likely = block_count(likely);
    kept = block_count(kept);
    if (threadIdx.x == 0) {
        p.likely[blockIdx.x] = likely;
        p.kept[blockIdx.x] = kept;
    }
}

/* Candidates of the warps before this one's, in the block. */
static __device__ uint32_t kept_before(uint32_t of_warp)
{
    SHARED_STATIC(uint32_t, part, [THREADS / WARP]);
    uint32_t n = 0;

    if (threadIdx.x % WARP == 0)
        part[threadIdx.x / WARP] = of_warp;
    __syncthreads();
    for (uint32_t i = 0; i < threadIdx.x / WARP; i++)
        n += part[i];
    return n;
}

/* In the order of ids, which is that of the CPU's candidates: a token's place is how many are kept
 * before it, by block, warp and lane. */
static __global__ void __launch_bounds__(THREADS) pick_gather(struct k_pick a)
{
    const float *w = a.logits + (size_t)blockIdx.y * a.n_vocab;
    struct k_pick_found *f = a.found + blockIdx.y;
    struct sampler_candidate *to = a.candidates + (size_t)blockIdx.y * a.max;
    uint32_t before = 0, likely = 0, of_warp = 0, votes[EACH], at;
    struct part p = part_of(&a, blockIdx.y);
    bool last = blockIdx.x + 1 == n_blocks(a.n_vocab);

    grid_trigger();
    grid_wait();
    if (!draws(&a, blockIdx.y))
        return;
    for (uint32_t i = threadIdx.x; i < n_blocks(a.n_vocab); i += THREADS) {
        before += i < blockIdx.x ? p.kept[i] : 0;
        likely += p.likely[i];
    }
    before = block_count(before);
    likely = block_count(likely);
    for (uint32_t i = 0; i < EACH; i++) {
        uint32_t id = token(i);

        votes[i] = __ballot_sync(~0u, id < a.n_vocab && weighs(w[id], f->cut));
        of_warp += __popc(votes[i]);
    }
    at = before + kept_before(of_warp);
    for (uint32_t i = 0; i < EACH; i++) {
        uint32_t lane = threadIdx.x % WARP, mine = at + __popc(votes[i] & ((1u << lane) - 1));

        if ((votes[i] >> lane & 1) && mine < a.max)
            to[mine] = { w[token(i)], token(i) };
        at += __popc(votes[i]);
    }
    if (last && threadIdx.x == 0) {
        f->n = before + p.kept[blockIdx.x];
        f->n_likely = likely;
    }
}

/* --- all of it -------------------------------------------------------------------------------- */

int k_pick(void *stream, const struct k_pick *a)
{
    dim3 blocks(n_blocks(a->n_vocab), a->n);
    int r = launch(a->n, THREADS, 0, stream, pick_penalise, *a);

    if (r == 0)
        r = launch(blocks, THREADS, 0, stream, pick_look, *a);
    if (r == 0)
        r = launch(a->n, THREADS, 0, stream, pick_best, *a);
    if (r < 0 || !a->draws)
        return r;
    r = launch(blocks, THREADS, 0, stream, pick_weigh, *a);
    if (r == 0)
        r = launch(a->n, THREADS, 0, stream, pick_cut, *a);
    if (r == 0)
        r = launch(blocks, THREADS, 0, stream, pick_count, *a);
    return r == 0 ? launch(blocks, THREADS, 0, stream, pick_gather, *a) : r;
}
