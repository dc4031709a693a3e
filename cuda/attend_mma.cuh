/* cuda/attend_mma.cuh - attention by matrix units: a warp, up to 16 rows, a page of 16 keys at a
 * time.
 *
 * mma.m16n8k16 takes A (16, 16) and B (16, 8) in f16 and adds to C (16, 8) in f32. Lane 4 g + t
 * holds
 *
 *     A   rows g and g + 8, columns 2t, 2t + 1 and 2t + 8, 2t + 9
 *     B   rows 2t, 2t + 1 and 2t + 8, 2t + 9, column g
 *     C   rows g and g + 8, columns 2t and 2t + 1
 *
 * so a lane's scores, the C of Q K, are where it has to hold its weights, the A of W V: nothing is
 * moved between the two. K lies (dims, keys) and V (keys, dims) in a page, both with the rows of B
 * as rows; ldmatrix.trans makes fragments of that. Of q8_0 pages a lane takes keys 4t to 4t + 3,
 * and 4 g to 4 g + 3 of each 32 dims: bytes that lie side by side. int8 are halves exactly; K's
 * scales go to the sums of 32 dims, V's to the weights.
 *
 * SPLIT: rows 8 to 15 hold what rounding to f16 leaves over of rows 0 to 7, of queries and of
 * weights: for up to eight rows the sums are f32's for nothing, as the matrix units are idle
 * anyway.
 *
 * No key that nobody sees may hold a NaN in its V, since a weight of 0 times that is one: such rows
 * of V are cleared in shared memory (clear_values).
 */
#ifndef CUDA_ATTEND_MMA_CUH
#define CUDA_ATTEND_MMA_CUH

#include "cuda/attend.cuh"

static __device__ __forceinline__ uint32_t pack_halves(uint16_t lo, uint16_t hi)
{
    return (uint32_t)lo | (uint32_t)hi << 16;
}

static __device__ __forceinline__ uint32_t pack_floats(float lo, float hi)
{
    return pack_halves(float_to_half(lo), float_to_half(hi));
}

/* What rounding leaves over. */
static __device__ __forceinline__ uint32_t pack_rest(float lo, float hi)
{
    return pack_floats(lo - half_to_float(float_to_half(lo)),
                       hi - half_to_float(float_to_half(hi)));
}

/* Two int8 as halves. */
static __device__ __forceinline__ uint32_t halves_of_bytes(uint32_t lo, uint32_t hi)
{
#ifdef __CUDACC__
    /* 0x6400 | b is 1024 + b for a byte b; with the sign turned b is the int8 plus 128. */
    uint32_t x = (lo & 0xff) | (hi & 0xff) << 16;

    x = (x ^ 0x00800080u) | 0x64006400u;
    __half2 h =
        __hsub2(*(__half2 *)&x, __halves2half2(__ushort_as_half(0x6480), __ushort_as_half(0x6480)));
    return *(uint32_t *)&h;
#else
    return pack_floats((float)(int8_t)lo, (float)(int8_t)hi);
#endif
}

static __device__ __forceinline__ float half_of_pair(uint32_t pair, uint32_t i)
{
    return half_to_float((uint16_t)(pair >> 16 * i));
}

/* --- a page in shared memory ------------------------------------------------------------------ */

/* Rows of V are 16 bytes apart from where they would be, so that eight of them lie in different
 * banks; of K in f16, where a row is only 32 bytes, the halves of every other four are swapped. */
template <unsigned HD, unsigned KV> struct page_stage {
    static const unsigned elem = KV == KV_Q8_0 ? 1 : 2;
    static const unsigned scales = KV == KV_Q8_0 ? (HD + 31) / 32 * PAGE_TOKENS * 2 : 0; /* bytes */
    static const unsigned k_units = (HD * PAGE_TOKENS * elem + scales) / 16;
    static const unsigned v_row = HD * elem + 16;
    static const unsigned v_units = HD * PAGE_TOKENS * elem / 16;

    uint8_t k[HD * PAGE_TOKENS * elem + scales];
    uint8_t v[PAGE_TOKENS * v_row + scales];
};

/* By n threads, of which this is number i: copies begin, and nobody waits. */
template <unsigned HD, unsigned KV>
static __device__ __forceinline__ void fetch_page(struct page_stage<HD, KV> *s, const uint8_t *k,
                                                  const uint8_t *v, unsigned i, unsigned n)
{
    typedef struct page_stage<HD, KV> stage;
    const unsigned per_row = HD * stage::elem / 16;

    for (unsigned u = i; u < stage::k_units; u += n)
        cp_async16(s->k + (KV == KV_F16 ? u ^ (u >> 3 & 1) : u) * 16, k + u * 16);
    for (unsigned u = i; u < stage::v_units; u += n)
        cp_async16(s->v + u / per_row * stage::v_row + u % per_row * 16, v + u * 16);
    if constexpr (stage::scales > 0)
        for (unsigned u = i; u < stage::scales / 16; u += n)
            cp_async16(s->v + PAGE_TOKENS * stage::v_row + u * 16, v + (stage::v_units + u) * 16);
}

/* Slots from n on hold nothing that anybody sees. q8_0's bytes are numbers whatever they are, and
 * their scales are looked at for keys that are seen only. */
template <unsigned HD, unsigned KV>
static __device__ __forceinline__ void clear_values(struct page_stage<HD, KV> *s, uint32_t n,
                                                    unsigned thread, unsigned n_threads)
{
    if constexpr (KV != KV_Q8_0)
        for (unsigned i = thread; i < (PAGE_TOKENS - n) * page_stage<HD, KV>::v_row / 4;
             i += n_threads)
            ((uint32_t *)(void *)(s->v + n * page_stage<HD, KV>::v_row))[i] = 0;
}

/* --- queries ---------------------------------------------------------------------------------- */

/* What a lane holds of row r (g or g + 8): dims 8 u + 2 t and the next, for every u. */
template <unsigned HD>
static __device__ __forceinline__ void load_row(const float *row, unsigned t, float ret[HD / 8][2])
{
    for (unsigned u = 0; u < HD / 8; u++) {
        ret[u][0] = row ? row[8 * u + 2 * t] : 0;
        ret[u][1] = row ? row[8 * u + 2 * t + 1] : 0;
    }
}

/* Cosines and sines of a lane's dims. */
template <unsigned HD> struct lane_turn {
    float c[HD / 16][2], s[HD / 16][2];
};

template <unsigned HD>
static __device__ __forceinline__ void load_turn(const struct k_angles *a, uint32_t by, unsigned t,
                                                 struct lane_turn<HD> *ret)
{
    for (unsigned u = 0; u < HD / 16; u++)
        for (unsigned j = 0; j < 2; j++)
            turn_by(a, HD, by, 8 * u + 2 * t + j, &ret->c[u][j], &ret->s[u][j]);
}

/* One row of A's fragments, turned: half 0 of a register pair is row g, 1 is row g + 8. With SPLIT
 * the row's rest goes to row g + 8. */
template <unsigned HD, bool SPLIT>
static __device__ __forceinline__ void put_row(const float x[HD / 8][2],
                                               const struct lane_turn<HD> *by, unsigned half,
                                               uint32_t q[HD / 16][4])
{
#pragma unroll
    for (unsigned u = 0; u < HD / 16; u++) {
        const unsigned w = u + HD / 16; /* the other of each pair */
        float lo[2], hi[2];

        for (unsigned j = 0; j < 2; j++) {
            lo[j] = x[u][j] * by->c[u][j] - x[w][j] * by->s[u][j];
            hi[j] = x[u][j] * by->s[u][j] + x[w][j] * by->c[u][j];
        }
        q[u / 2][u % 2 * 2 + half] = pack_floats(lo[0], lo[1]);
        q[w / 2][w % 2 * 2 + half] = pack_floats(hi[0], hi[1]);
        if (SPLIT) {
            q[u / 2][u % 2 * 2 + 1] = pack_rest(lo[0], lo[1]);
            q[w / 2][w % 2 * 2 + 1] = pack_rest(hi[0], hi[1]);
        }
    }
}

#endif
