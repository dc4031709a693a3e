/* cuda/attend_scores.cuh - a page's scores by matrix units, and the weights that they become. */
#ifndef CUDA_ATTEND_SCORES_CUH
#define CUDA_ATTEND_SCORES_CUH

#include "cuda/attend_mma.cuh"

/* --- scores ----------------------------------------------------------------------------------- */

/* The key that a lane's score s[h][j] (and s[h][j + 2]) is of. */
template <unsigned KV>
static __device__ __forceinline__ uint32_t key_of(unsigned h, unsigned j, unsigned t)
{
    return KV == KV_Q8_0 ? 4 * t + 2 * j + h : 8 * h + 2 * t + j;
}

/* The dim of o[i][j] (and o[i][j + 2]). */
template <unsigned HD, unsigned KV>
static __device__ __forceinline__ uint32_t dim_of(unsigned i, unsigned j, unsigned t)
{
    if (KV != KV_Q8_0)
        return 8 * i + 2 * t + j;
    if (i < HD / 32 * 4)
        return i / 4 * 32 + 4 * (2 * t + j) + i % 4;
    return i / 4 * 32 + 2 * (2 * t + j) + i % 4; /* the last 16, two by two */
}

template <unsigned HD>
static __device__ __forceinline__ void score_f16(const struct page_stage<HD, KV_F16> *st,
                                                 const uint32_t q[HD / 16][4], unsigned lane,
                                                 float s[2][4])
{
#pragma unroll
    for (unsigned c = 0; c < HD / 16; c++) {
        /* Matrices: dims 0-7 and 8-15 of keys 0-7, then of keys 8-15. */
        unsigned unit = (c * 16 + lane % 16) * 2 + lane / 16;
        uint32_t b[4];

        ldmatrix_x4_trans(b, st->k + (unit ^ (unit >> 3 & 1)) * 16);
        mma_f16(s[0], q[c], b);
        mma_f16(s[1], q[c], b + 2);
    }
}

template <unsigned HD>
static __device__ __forceinline__ void score_q8(const struct page_stage<HD, KV_Q8_0> *st,
                                                const uint32_t q[HD / 16][4], unsigned lane,
                                                float s[2][4])
{
    unsigned g = lane / 4, t = lane % 4;
    const uint16_t *k = (const uint16_t *)(const void *)st->k; /* (dims, pairs of keys) */
    const uint32_t *d = (const uint32_t *)(const void *)(st->k + HD * PAGE_TOKENS);
    float sum[2][4];

#pragma unroll
    for (unsigned c = 0; c < HD / 16; c++) {
        uint32_t b[2][2];

        if (c % 2 == 0)
            for (unsigned i = 0; i < 8; i++)
                sum[i / 4][i % 4] = 0;
        for (unsigned i = 0; i < 2; i++) {
            uint32_t x = k[(c * 16 + 8 * i + 2 * t) * 8 + g];
            uint32_t y = k[(c * 16 + 8 * i + 2 * t + 1) * 8 + g];

            b[0][i] = halves_of_bytes(x, y);
            b[1][i] = halves_of_bytes(x >> 8, y >> 8);
        }
        mma_f16(sum[0], q[c], b[0]);
        mma_f16(sum[1], q[c], b[1]);
        if (c % 2 == 0 && c + 1 < HD / 16)
            continue;
        for (unsigned j = 0; j < 2; j++)
            for (unsigned h = 0; h < 2; h++) {
                float scale = half_of_pair(d[c / 2 * 8 + 2 * t + j], h);

                s[h][j] += sum[h][j] * scale;
                s[h][j + 2] += sum[h][j + 2] * scale;
            }
    }
}

/* s[h][j], s[h][j + 2]: rows g and g + 8; with SPLIT both of row g, to be added up. */
template <unsigned HD, unsigned KV>
static __device__ __forceinline__ void score_page(const struct page_stage<HD, KV> *st,
                                                  const uint32_t q[HD / 16][4], unsigned lane,
                                                  float s[2][4])
{
    for (unsigned i = 0; i < 8; i++)
        s[i / 4][i % 4] = 0;
    if constexpr (KV == KV_Q8_0)
        score_q8<HD>(st, q, lane, s);
    else
        score_f16<HD>(st, q, lane, s);
}

/* --- softmax ---------------------------------------------------------------------------------- */

/* The largest, and the sum, over the four lanes of a row. */
static __device__ __forceinline__ float row_most(float x)
{
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

static __device__ __forceinline__ float row_sum(float x)
{
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

/* A page's scores of a lane's row become weights by the largest so far; what is not seen is -inf.
 * Returns what the sums until then are to be multiplied by. A row that has seen nothing yet counts
 * from 0. */
static __device__ __forceinline__ float soften_row(float s[4], float *m, float *l)
{
    float top = fmaxf(*m, row_most(fmaxf(fmaxf(s[0], s[1]), fmaxf(s[2], s[3]))));
    float from = top == -INFINITY ? 0 : top, by = __expf(*m - from), sum = 0;

    for (unsigned i = 0; i < 4; i++)
        sum += s[i] = __expf(s[i] - from);
    *m = top;
    *l = *l * by + row_sum(sum);
    return by;
}

#endif
