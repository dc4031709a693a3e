/* cuda/rows16.cuh - up to 16 queries and a page at a time, in f32: a block of 128 threads.
 *
 *     q (16, hd) as it came | t (16, hd) turned to the page's keys | K (hd, 16) | V (16, hd)
 *     s (16, 16) scores, and then weights by the largest score so far; m, l as in attend.cuh
 *
 * A key that a row doesn't see is left out, and not weighed by zero: its V may hold anything. A
 * barrier is between any two of these functions that hand something on; they have none themselves.
 */
#ifndef CUDA_ROWS16_CUH
#define CUDA_ROWS16_CUH

#include "cuda/pages.cuh"

#define ROWS    16u
#define THREADS 128u
#define COLS    (K_HEAD_DIM_MAX / THREADS) /* of a thread */
#define UNSEEN  -1.0f                      /* in the place of a weight */

/* What a block computes in, behind one another in dynamic shared memory. */
struct desk {
    uint32_t hd;
    float *q, *t, *k, *v; /* (ROWS, hd), (ROWS, hd), (hd, 16), (16, hd) */
    float *s;             /* (ROWS, 16) */
    float *m, *l, *by;    /* (ROWS) */
};

static inline size_t desk_bytes(uint32_t hd)
{
    return (4 * (size_t)ROWS * hd + ROWS * PAGE_TOKENS + 3 * ROWS) * sizeof(float);
}

static __device__ __forceinline__ struct desk desk_in(float *mem, uint32_t hd)
{
    struct desk d;

    d.hd = hd;
    d.q = mem;
    d.t = d.q + ROWS * hd;
    d.k = d.t + ROWS * hd;
    d.v = d.k + ROWS * hd;
    d.s = d.v + ROWS * hd;
    d.m = d.s + ROWS * PAGE_TOKENS;
    d.l = d.m + ROWS;
    d.by = d.l + ROWS;
    return d;
}

/* t = q turned on by so many positions; n rows. */
static __device__ __forceinline__ void turn_queries(const struct k_angles *a, uint32_t n,
                                                    uint32_t by, const struct desk *d)
{
    uint32_t hd = d->hd, half = hd / 2;

    for (uint32_t i = threadIdx.x; i < n * half; i += THREADS) {
        uint32_t at = i / half * hd + i % half;
        float c, s, x0 = d->q[at], x1 = d->q[at + half];

        turn_by(a, hd, by, i % half, &c, &s);
        d->t[at] = x0 * c - x1 * s;
        d->t[at + half] = x0 * s + x1 * c;
    }
}

/* Whoever is about to sum up starts from nothing. */
static __device__ __forceinline__ void clear_sums(const struct desk *d)
{
    if (threadIdx.x < ROWS) {
        d->m[threadIdx.x] = -INFINITY;
        d->l[threadIdx.x] = 0;
    }
}

template <unsigned KV>
static __device__ __forceinline__ void load_keys(const uint8_t *tile, const struct desk *d)
{
    for (uint32_t i = threadIdx.x; i < d->hd * PAGE_TOKENS; i += THREADS)
        d->k[i] = kv_at<KV>(tile, d->hd, i, i / PAGE_TOKENS, i % PAGE_TOKENS);
}

template <unsigned KV>
static __device__ __forceinline__ void load_values(const uint8_t *tile, const struct desk *d)
{
    for (uint32_t i = threadIdx.x; i < d->hd * PAGE_TOKENS; i += THREADS)
        d->v[i] = kv_at<KV>(tile, d->hd, i, i % d->hd, i / d->hd);
}

/* s = t K, of a thread two keys of a row. */
static __device__ __forceinline__ void score(uint32_t n, const struct desk *d)
{
    uint32_t row = threadIdx.x / 8, key = threadIdx.x % 8 * 2;
    float s0 = 0, s1 = 0;

    if (row >= n)
        return;
    for (uint32_t i = 0; i < d->hd; i++) {
        float x = d->t[row * d->hd + i];

        s0 += x * d->k[i * PAGE_TOKENS + key];
        s1 += x * d->k[i * PAGE_TOKENS + key + 1];
    }
    d->s[row * PAGE_TOKENS + key] = s0;
    d->s[row * PAGE_TOKENS + key + 1] = s1;
}

/* Scores of row r become weights by the largest so far, and m and l go on; by: what was summed up
 * until then is to be multiplied by. sees(slot): whether the row sees that key. */
template <typename F>
static __device__ __forceinline__ void soften(uint32_t r, const struct desk *d, const F &sees)
{
    float *s = d->s + r * PAGE_TOKENS, top = d->m[r], sum = 0;
    bool any = false;

    for (uint32_t j = 0; j < PAGE_TOKENS; j++) {
        if (!sees(j))
            continue;
        top = fmaxf(top, s[j]);
        any = true;
    }
    for (uint32_t j = 0; j < PAGE_TOKENS; j++) {
        bool seen = sees(j);

        s[j] = seen ? expf(s[j] - top) : UNSEEN;
        sum += seen ? s[j] : 0;
    }
    d->by[r] = !any ? 1 : d->m[r] == -INFINITY ? 0 : expf(d->m[r] - top);
    d->l[r] = d->l[r] * d->by[r] + sum;
    d->m[r] = top;
}

/* o = o * by + s V; a thread has columns threadIdx.x and every THREADS-th from there. */
static __device__ __forceinline__ void add_values(uint32_t n, const struct desk *d,
                                                  float o[COLS][ROWS])
{
    for (uint32_t i = 0; i < COLS; i++) {
        uint32_t c = threadIdx.x + i * THREADS;

        for (uint32_t r = 0; r < ROWS; r++) {
            if (r >= n || c >= d->hd)
                continue;
            o[i][r] *= d->by[r];
            for (uint32_t j = 0; j < PAGE_TOKENS; j++) {
                float w = d->s[r * PAGE_TOKENS + j];

                if (w != UNSEEN)
                    o[i][r] += w * d->v[j * d->hd + c];
            }
        }
    }
}

#endif
