/* cuda/attend_values.cuh - a page's values, weighed and added up by matrix units. */
#ifndef CUDA_ATTEND_VALUES_CUH
#define CUDA_ATTEND_VALUES_CUH

#include "cuda/attend_mma.cuh"

/* --- values ----------------------------------------------------------------------------------- */

/* A of the weights, times `by`: w[h][j] of row g, w[h][j + 2] of row g + 8 or, with SPLIT, nothing:
 * there the rests go. */
template <bool SPLIT>
static __device__ __forceinline__ void put_weights(const float w[2][4], const float by[2][2],
                                                   uint32_t ret[4])
{
    for (unsigned h = 0; h < 2; h++) {
        float x = w[h][0] * by[h][0], y = w[h][1] * by[h][1];

        ret[2 * h] = pack_floats(x, y);
        ret[2 * h + 1] =
            SPLIT ? pack_rest(x, y) : pack_floats(w[h][2] * by[h][0], w[h][3] * by[h][1]);
    }
}

template <unsigned HD, bool SPLIT>
static __device__ __forceinline__ void add_f16(const struct page_stage<HD, KV_F16> *st,
                                               const float w[2][4], unsigned lane,
                                               float o[HD / 8][4])
{
    const float one[2][2] = { { 1, 1 }, { 1, 1 } };
    uint32_t a[4];

    put_weights<SPLIT>(w, one, a);
#pragma unroll
    for (unsigned c = 0; c < HD / 16; c++) {
        /* Keys 0-7 and 8-15 of dims 0-7, then of dims 8-15. */
        uint32_t b[4];

        ldmatrix_x4_trans(b, st->v + lane % 16 * page_stage<HD, KV_F16>::v_row +
                                 (c * 2 + lane / 16) * 16);
        mma_f16(o[c * 2], a, b);
        mma_f16(o[c * 2 + 1], a, b + 2);
    }
}

/* Four dims of a key, or the last two. */
template <unsigned N> static __device__ __forceinline__ uint32_t bytes_of(const uint8_t *at)
{
    return N == 4 ? *(const uint32_t *)(const void *)at
                  : (uint32_t) * (const uint16_t *)(const void *)at;
}

/* N tiles of eight dims: 4 N g.. of 8 N dims. */
template <unsigned HD, unsigned N>
static __device__ __forceinline__ void add_bytes(const struct page_stage<HD, KV_Q8_0> *st,
                                                 const uint32_t a[4], unsigned first, unsigned lane,
                                                 float (*o)[4])
{
    unsigned g = lane / 4, t = lane % 4;
    const uint8_t *v = st->v + 4 * t * page_stage<HD, KV_Q8_0>::v_row + first + N * g;
    uint32_t x[4];

    for (unsigned i = 0; i < 4; i++)
        x[i] = bytes_of<N>(v + i * page_stage<HD, KV_Q8_0>::v_row);
    for (unsigned i = 0; i < N; i++) {
        uint32_t b[2] = { halves_of_bytes(x[0] >> 8 * i, x[2] >> 8 * i),
                          halves_of_bytes(x[1] >> 8 * i, x[3] >> 8 * i) };

        mma_f16(o[i], a, b);
    }
}

template <unsigned HD, bool SPLIT>
static __device__ __forceinline__ void add_q8(const struct page_stage<HD, KV_Q8_0> *st,
                                              const float w[2][4], const bool seen[2][2],
                                              unsigned lane, float o[HD / 8][4])
{
    const uint32_t *d =
        (const uint32_t *)(const void *)(st->v + PAGE_TOKENS * page_stage<HD, KV_Q8_0>::v_row);
    unsigned t = lane % 4;

#pragma unroll
    for (unsigned i = 0; i < (HD + 31) / 32; i++) {
        float by[2][2];
        uint32_t a[4];

        for (unsigned j = 0; j < 2; j++)
            for (unsigned h = 0; h < 2; h++)
                by[h][j] = seen[h][j] ? half_of_pair(d[i * 8 + 2 * t + j], h) : 0;
        put_weights<SPLIT>(w, by, a);
        if (HD - i * 32 >= 32)
            add_bytes<HD, 4>(st, a, i * 32, lane, o + i * 4);
        else
            add_bytes<HD, 2>(st, a, i * 32, lane, o + i * 4);
    }
}

/* o += w V. seen[h][j]: some row sees key_of(h, j). */
template <unsigned HD, unsigned KV, bool SPLIT>
static __device__ __forceinline__ void add_page(const struct page_stage<HD, KV> *st,
                                                const float w[2][4], const bool seen[2][2],
                                                unsigned lane, float o[HD / 8][4])
{
    if constexpr (KV == KV_Q8_0)
        add_q8<HD, SPLIT>(st, w, seen, lane, o);
    else
        add_f16<HD, SPLIT>(st, w, lane, o);
}

#endif
