/* Attention over one segment, or several that are joined: keys go by in groups of four pages (64
 * keys), and each row keeps its running maximum, sum and output, which are rescaled when a group
 * raises the maximum.
 *
 * Groups begin at fixed keys and every chain of additions runs over keys in order, one element an
 * accumulator: a row's result does not depend on the rows beside it. A group in which a row sees
 * nothing leaves that row alone.
 *
 * Scores: a K tile is (hd, 16), so 16 keys are two vectors and an element of q is broadcast to
 * them. Few rows take f16 and int8 tiles as they are: what they cost is reading, and the next
 * group's tiles are on their way meanwhile. For many rows a group's tiles are made f32 once, on the
 * stack. Either way an element is the same f32, so that it makes no difference to a result. Joined
 * segments are one row of groups, too, in which each page has q of its own.
 */
#include "engine/cpu/kernels_avx2.h"

#include <math.h>
#include <string.h>

#define TOKENS      PAGE_TOKENS
#define GROUP_PAGES 4u
#define GROUP_KEYS  (GROUP_PAGES * TOKENS)
#define BLOCK_ROWS  6u /* rows at a time, at most: 12 accumulators of 16 registers */
#define FEW_ROWS    3u /* by four vectors of keys or values: 12 as well */
#define JOINED_ROWS 3u /* the same where segments are joined, by two pages */

/* One group of pages. Missing pages repeat the last one, and their scores are masked. */
struct group {
    const uint8_t *k[GROUP_PAGES], *v[GROUP_PAGES];
    const uint8_t *k_next[GROUP_PAGES], *v_next[GROUP_PAGES]; /* to be fetched meanwhile */
    const float *kd[GROUP_PAGES], *vd[GROUP_PAGES];           /* q8_0: scales (blocks, 16) */
    uint32_t key0;
    const float *cs[GROUP_PAGES]; /* joined: what q is turned by */
    uint32_t n_keys[GROUP_PAGES]; /* joined: of each page; 0 if it is missing */
};

/* q of some rows for the pages of a group, in floats from one row and page to the next; page 0: q
 * is the same for all. */
struct turned {
    const float *q;
    size_t row, page;
};

struct wide {
    _Alignas(64) float k[GROUP_PAGES][KERNELS_HEAD_DIM_MAX * TOKENS];
    _Alignas(64) float v[GROUP_PAGES][KERNELS_HEAD_DIM_MAX * TOKENS];
};

/* The scales of a group, made f32: 4 KB, while all of its tiles made f32 would fill the first-level
 * cache. */
struct scales {
    _Alignas(64) float k[GROUP_PAGES][KERNELS_HEAD_DIM_MAX / 32 * TOKENS];
    _Alignas(64) float v[GROUP_PAGES][KERNELS_HEAD_DIM_MAX / 32 * TOKENS];
};

/* 8 elements of an f16 or f32 tile. */
AVX2_INLINE __m256 load8(enum kv_type kv, const uint8_t *tile, size_t i)
{
    if (kv == KV_F32)
        return _mm256_loadu_ps((const float *)tile + i);
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)(tile + 2 * i)));
}

/* 8 int8 as f32, times their scales. */
AVX2_INLINE __m256 dequantise8(const uint8_t *q, __m256 d)
{
    __m256i v = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)q));

    return _mm256_mul_ps(_mm256_cvtepi32_ps(v), d);
}

/* Element i of keys j to j + 7 of page p. */
AVX2_INLINE __m256 load_keys(enum kv_type kv, const struct group *g, uint32_t p, uint32_t i,
                             uint32_t j)
{
    size_t at = (size_t)i * TOKENS + j;

    if (kv == KV_Q8_0)
        return dequantise8(g->k[p] + at, _mm256_load_ps(g->kd[p] + i / 32 * TOKENS + j));
    return load8(kv, g->k[p], at);
}

/* Elements i to i + 7 of a value tile; d: q8_0's scale of them. */
AVX2_INLINE __m256 load_values(enum kv_type kv, const uint8_t *tile, size_t i, const float *d)
{
    if (kv == KV_Q8_0)
        return dequantise8(tile + i, _mm256_broadcast_ss(d));
    return load8(kv, tile, i);
}

/* Of int8 without its scales, which lie behind the tile. */
AVX2_INLINE size_t element_bytes(enum kv_type kv)
{
    return kv == KV_F32 ? 4 : kv == KV_F16 ? 2 : 1;
}

/* acc += x * y, in this order and in a register: left alone GCC loads all factors first, runs out
 * of registers and keeps accumulators on the stack, which takes twice the time. */
AVX2_INLINE void add_product(__m256 *acc, __m256 x, __m256 y)
{
    *acc = _mm256_fmadd_ps(x, y, *acc);
    __asm__("" : "+x"(*acc));
}

/* Element i of q by 16 keys of page p, to accumulators acc[r][at] and acc[r][at + 1]; q: of the
 * first row. Few rows' elements rest in registers while the keys pass, or the keys while rows do.
 */
AVX2_INLINE void score_element(enum kv_type kv, const struct group *g, uint32_t p, uint32_t i,
                               const float *q, size_t row, uint32_t n_rows,
                               __m256 acc[BLOCK_ROWS][2 * GROUP_PAGES], uint32_t at)
{
    if (n_rows <= FEW_ROWS) {
        __m256 qi[FEW_ROWS];

#pragma GCC unroll 8
        for (uint32_t r = 0; r < n_rows; r++)
            qi[r] = _mm256_broadcast_ss(q + r * row);
#pragma GCC unroll 8
        for (uint32_t h = 0; h < 2; h++) {
            __m256 k = load_keys(kv, g, p, i, 8 * h);

#pragma GCC unroll 8
            for (uint32_t r = 0; r < n_rows; r++)
                add_product(&acc[r][at + h], qi[r], k);
        }
    } else {
        __m256 k0 = load_keys(kv, g, p, i, 0), k1 = load_keys(kv, g, p, i, 8);

#pragma GCC unroll 8
        for (uint32_t r = 0; r < n_rows; r++) {
            __m256 qi = _mm256_broadcast_ss(q + r * row);

            add_product(&acc[r][at], qi, k0);
            add_product(&acc[r][at + 1], qi, k1);
        }
    }
}

/* Scores of n_rows rows and n_pages pages from page p on, to s (n_rows, GROUP_KEYS). The next
 * group's K is called for as this one's is used, a cache line for a line. */
AVX2_INLINE void score_pages(enum kv_type kv, const struct group *g, uint32_t p, uint32_t n_pages,
                             struct turned t, uint32_t hd, uint32_t n_rows, float *s)
{
    const uint32_t step = 64 / (TOKENS * (uint32_t)element_bytes(kv)); /* elements a cache line */
    __m256 acc[BLOCK_ROWS][2 * GROUP_PAGES];

#pragma GCC unroll 8
    for (uint32_t r = 0; r < n_rows; r++)
#pragma GCC unroll 8
        for (uint32_t j = 0; j < 2 * n_pages; j++)
            acc[r][j] = _mm256_setzero_ps();

    for (uint32_t at = 0; at < hd; at += step) {
#pragma GCC unroll 8
        for (uint32_t j = 0; j < n_pages; j++)
            _mm_prefetch(g->k_next[p + j] + at * TOKENS * element_bytes(kv), _MM_HINT_T1);
        for (uint32_t i = 0; i < step; i++)
#pragma GCC unroll 8
            for (uint32_t j = 0; j < n_pages; j++)
                score_element(kv, g, p + j, at + i, t.q + at + i + (p + j) * t.page, t.row, n_rows,
                              acc, 2 * j);
    }
#pragma GCC unroll 8
    for (uint32_t r = 0; r < n_rows; r++)
#pragma GCC unroll 8
        for (uint32_t j = 0; j < 2 * n_pages; j++)
            _mm256_storeu_ps(s + r * GROUP_KEYS + p * TOKENS + j * 8, acc[r][j]);
}

/* acc += weights times n_vec vectors of a value, from element `at` of the tile on; w: of the first
 * row; d: q8_0's scale of the first element, whose block the vectors fill or are within. */
AVX2_INLINE void add_value(enum kv_type kv, const uint8_t *tile, size_t at, const float *d,
                           const float *w, uint32_t n_rows, uint32_t n_vec,
                           __m256 acc[BLOCK_ROWS][8])
{
    if (n_rows <= FEW_ROWS) {
        __m256 wj[FEW_ROWS];

#pragma GCC unroll 8
        for (uint32_t r = 0; r < n_rows; r++)
            wj[r] = _mm256_broadcast_ss(w + r * GROUP_KEYS);
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_vec; i++) {
            __m256 value = load_values(kv, tile, at + 8 * i, d + i / 4 * TOKENS);

#pragma GCC unroll 8
            for (uint32_t r = 0; r < n_rows; r++)
                add_product(&acc[r][i], wj[r], value);
        }
    } else {
        __m256 value[8];

#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_vec; i++)
            value[i] = load_values(kv, tile, at + 8 * i, d + i / 4 * TOKENS);
#pragma GCC unroll 8
        for (uint32_t r = 0; r < n_rows; r++) {
            __m256 wj = _mm256_broadcast_ss(w + r * GROUP_KEYS);

#pragma GCC unroll 8
            for (uint32_t i = 0; i < n_vec; i++)
                add_product(&acc[r][i], wj, value[i]);
        }
    }
}

/* o += weights times values over keys [j0, j1) of the group, for n_rows rows and n_vec vectors from
 * element c on. The accumulators rest in o between groups. What is called for meanwhile is the next
 * group's V. */
AVX2_INLINE void add_values(enum kv_type kv, const struct group *g, uint32_t j0, uint32_t j1,
                            const float *w, float *o, uint32_t hd, uint32_t c, uint32_t n_rows,
                            uint32_t n_vec)
{
    __m256 acc[BLOCK_ROWS][8];

#pragma GCC unroll 8
    for (uint32_t r = 0; r < n_rows; r++)
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_vec; i++)
            acc[r][i] = _mm256_loadu_ps(o + r * hd + c + 8 * i);

    for (uint32_t j = j0, end; j < j1; j = end) {
        uint32_t p = j / TOKENS, first = p * TOKENS;
        const uint8_t *v = g->v[p], *next = g->v_next[p];
        const float *d = kv == KV_Q8_0 ? g->vd[p] + c / 32 * TOKENS : NULL;

        end = j1 < first + TOKENS ? j1 : first + TOKENS;
        for (uint32_t t = j - first; t < end - first; t++) {
            size_t at = (size_t)t * hd + c;

#pragma GCC unroll 8
            for (uint32_t i = 0; i < n_vec * 8 * element_bytes(kv); i += 64)
                _mm_prefetch(next + at * element_bytes(kv) + i, _MM_HINT_T1);
            add_value(kv, v, at, d + t, w + first + t, n_rows, n_vec, acc);
        }
    }
#pragma GCC unroll 8
    for (uint32_t r = 0; r < n_rows; r++)
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_vec; i++)
            _mm256_storeu_ps(o + r * hd + c + 8 * i, acc[r][i]);
}

/* Heads are multiples of 8: what n_vec vectors leave over goes one vector at a time. */
AVX2_INLINE void add_values_rows(enum kv_type kv, const struct group *g, uint32_t j0, uint32_t j1,
                                 const float *w, float *o, uint32_t hd, uint32_t n_rows,
                                 uint32_t n_vec)
{
    uint32_t c = 0;

    for (; c + 8 * n_vec <= hd; c += 8 * n_vec)
        add_values(kv, g, j0, j1, w, o, hd, c, n_rows, n_vec);
    for (; c < hd; c += 8)
        add_values(kv, g, j0, j1, w, o, hd, c, n_rows, 1);
}

/* One row, over keys that rows beside it do not see. */
AVX2_ONCE void add_own_f16(const struct group *g, uint32_t j0, uint32_t j1, const float *w,
                           float *o, uint32_t hd)
{
    add_values_rows(KV_F16, g, j0, j1, w, o, hd, 1, 8);
}

AVX2_ONCE void add_own_f32(const struct group *g, uint32_t j0, uint32_t j1, const float *w,
                           float *o, uint32_t hd)
{
    add_values_rows(KV_F32, g, j0, j1, w, o, hd, 1, 8);
}

AVX2_ONCE void add_own_q8_0(const struct group *g, uint32_t j0, uint32_t j1, const float *w,
                            float *o, uint32_t hd)
{
    add_values_rows(KV_Q8_0, g, j0, j1, w, o, hd, 1, 8);
}

AVX2_INLINE void add_own(enum kv_type kv, const struct group *g, uint32_t j0, uint32_t j1,
                         const float *w, float *o, uint32_t hd)
{
    (kv == KV_F16 ? add_own_f16 : kv == KV_F32 ? add_own_f32 : add_own_q8_0)(g, j0, j1, w, o, hd);
}

/* One row's scores s become weights against the new maximum; keys from `seen` on get none. What was
 * summed before is brought to the new maximum. */
AVX2_ONCE void soften_row(float *s, uint32_t seen, float *m, float *l, float *o, uint32_t hd)
{
    const __m256 none = _mm256_set1_ps(-INFINITY);
    __m256 top = none, sum = _mm256_setzero_ps(), by, shift;
    float max;

    for (uint32_t j = 0; j < GROUP_KEYS; j += 8) {
        __m256 mask = _mm256_castsi256_ps(avx2_first(seen > j ? seen - j : 0));
        __m256 v = _mm256_blendv_ps(none, _mm256_loadu_ps(s + j), mask);

        top = _mm256_max_ps(top, v);
        _mm256_storeu_ps(s + j, v);
    }
    max = fmaxf(*m, avx2_max(top));
    shift = _mm256_set1_ps(max);
    for (uint32_t j = 0; j < GROUP_KEYS; j += 8) {
        __m256 v = avx2_exp(_mm256_sub_ps(_mm256_loadu_ps(s + j), shift));

        sum = _mm256_add_ps(sum, v);
        _mm256_storeu_ps(s + j, v);
    }
    /* Of the first group m is -infinity, and `by` 0: what was summed before is nothing. */
    by = avx2_exp(_mm256_set1_ps(*m - max));
    *l = *l * _mm256_cvtss_f32(by) + avx2_sum(sum);
    if (max > *m) {
        for (uint32_t i = 0; i < hd; i += 8)
            _mm256_storeu_ps(o + i, _mm256_mul_ps(_mm256_loadu_ps(o + i), by));
    }
    *m = max;
}

/* Keys of the group that row r sees. */
AVX2_INLINE uint32_t keys_seen(const struct kernels_attn *a, const struct group *g, uint32_t r)
{
    uint32_t seen = a->first_visible + r / a->group * a->stride;

    seen = seen < a->n_keys ? seen : a->n_keys;
    if (seen <= g->key0)
        return 0;
    return seen - g->key0 < GROUP_KEYS ? seen - g->key0 : GROUP_KEYS;
}

/* Rows [r, r + n_rows) over one group; n_pages pages and n_vec vectors at a time fill the
 * registers. least and most: keys that the first row of them sees, and the last one, as later
 * tokens see more. */
AVX2_INLINE void attend_tile(enum kv_type kv, const struct kernels_attn *a, const struct group *g,
                             uint32_t r, uint32_t n_rows, uint32_t n_pages, uint32_t n_vec)
{
    uint32_t hd = a->head_dim, least = keys_seen(a, g, r), most = keys_seen(a, g, r + n_rows - 1);
    _Alignas(32) float s[BLOCK_ROWS * GROUP_KEYS];
    struct turned t = { .q = a->q + (size_t)r * hd, .row = hd };
    float *o = a->o + (size_t)r * hd;

    for (uint32_t p = 0; p * TOKENS < most; p += n_pages)
        score_pages(kv, g, p, n_pages, t, hd, n_rows, s);
    for (uint32_t i = 0; i < n_rows; i++) {
        uint32_t seen = keys_seen(a, g, r + i);

        if (seen)
            soften_row(s + i * GROUP_KEYS, seen, &a->m[r + i], &a->l[r + i], o + i * hd, hd);
    }
    /* Keys that all rows see, then each row's own: a key that a row does not see is not even
     * multiplied by zero. */
    add_values_rows(kv, g, 0, least, s, o, hd, n_rows, n_vec);
    for (uint32_t i = 0; i < n_rows && least < most; i++) {
        uint32_t seen = keys_seen(a, g, r + i);

        if (least < seen)
            add_own(kv, g, least, seen, s + i * GROUP_KEYS, o + i * hd, hd);
    }
}

/* Rows [r, r + n_rows), at most JOINED_ROWS, over one group of joined segments. All rows see all
 * keys here, but pages may be part full: their gaps get no weight, and are not multiplied
 * either. */
AVX2_INLINE void attend_joined_tile(enum kv_type kv, const struct kernels_attn *a,
                                    const struct group *g, uint32_t r, uint32_t n_rows)
{
    enum { ROW = KERNELS_HEAD_DIM_MAX + 16 }; /* so that rows lie in different sets of the cache */
    uint32_t hd = a->head_dim;
    _Alignas(32) float q[GROUP_PAGES * JOINED_ROWS * ROW], s[JOINED_ROWS * GROUP_KEYS];
    struct turned t = { .q = q, .row = ROW, .page = JOINED_ROWS * ROW };
    float *o = a->o + (size_t)r * hd;

    for (uint32_t p = 0; p < GROUP_PAGES; p++)
        for (uint32_t i = 0; i < n_rows; i++)
            avx2_turn(a->q + (size_t)(r + i) * hd, g->cs[p], hd, q + p * t.page + i * ROW);
    for (uint32_t p = 0; p < GROUP_PAGES; p += 2)
        score_pages(kv, g, p, 2, t, hd, n_rows, s);
    for (uint32_t i = 0; i < n_rows; i++) {
        for (uint32_t p = 0; p < GROUP_PAGES; p++)
            for (uint32_t j = g->n_keys[p]; j < TOKENS; j++)
                s[i * GROUP_KEYS + p * TOKENS + j] = -INFINITY;
        soften_row(s + i * GROUP_KEYS, GROUP_KEYS, &a->m[r + i], &a->l[r + i], o + i * hd, hd);
    }
    for (uint32_t p = 0, last; p < GROUP_PAGES && g->n_keys[p]; p = last + 1) {
        last = p; /* of the pages without a gap between their keys */
        while (last + 1 < GROUP_PAGES && g->n_keys[last] == TOKENS && g->n_keys[last + 1])
            last++;
        add_values_rows(kv, g, p * TOKENS, last * TOKENS + g->n_keys[last], s, o, hd, n_rows, 4);
    }
}

AVX2_INLINE void attend_joined_group(enum kv_type kv, const struct kernels_attn *a,
                                     const struct group *g)
{
    for (uint32_t r = 0, n; r < a->n_rows; r += n) {
        n = a->n_rows - r < JOINED_ROWS ? a->n_rows - r : JOINED_ROWS;
        switch (n) {
        case 3:
            attend_joined_tile(kv, a, g, r, 3);
            break;
        case 2:
            attend_joined_tile(kv, a, g, r, 2);
            break;
        default:
            attend_joined_tile(kv, a, g, r, 1);
        }
    }
}

/* All rows over one group, in tiles of 6; the rest so that no tile of one row is left over. */
AVX2_INLINE void attend_group(enum kv_type kv, const struct kernels_attn *a, const struct group *g)
{
    uint32_t r = 0, n;

    /* Rows that see nothing of the group come first. */
    if (g->key0 >= a->first_visible)
        r = ((g->key0 - a->first_visible) / a->stride + 1) * a->group;
    for (; r < a->n_rows; r += n) {
        uint32_t left = a->n_rows - r;

        n = left >= 9 ? 6 : left >= 7 ? 4 : left == 5 ? 3 : left;
        switch (n) {
        case 6:
            attend_tile(kv, a, g, r, 6, 1, 2);
            break;
        case 4:
            attend_tile(kv, a, g, r, 4, 1, 2);
            break;
        case 3:
            attend_tile(kv, a, g, r, 3, 2, 4);
            break;
        case 2:
            attend_tile(kv, a, g, r, 2, 2, 4);
            break;
        default:
            attend_tile(kv, a, g, r, 1, 4, 8);
        }
    }
}

AVX2_ONCE void attend_group_f16(const struct kernels_attn *a, const struct group *g)
{
    if (a->joined)
        attend_joined_group(KV_F16, a, g);
    else
        attend_group(KV_F16, a, g);
}

AVX2_ONCE void attend_group_f32(const struct kernels_attn *a, const struct group *g)
{
    if (a->joined)
        attend_joined_group(KV_F32, a, g);
    else
        attend_group(KV_F32, a, g);
}

AVX2_ONCE void attend_group_q8_0(const struct kernels_attn *a, const struct group *g)
{
    if (a->joined)
        attend_joined_group(KV_Q8_0, a, g);
    else
        attend_group(KV_Q8_0, a, g);
}

/* The tiles of the group at first_page, and of the next one; after the last group they are those
 * that the caller names. A page that is missing is the last one again: it is read, which does no
 * harm, and its scores are masked. */
AVX2_INLINE struct group open_group(const struct kernels_attn *a, uint32_t first_page)
{
    uint32_t last = (a->n_keys - 1) / TOKENS;
    bool is_last = first_page + GROUP_PAGES > last;
    struct group g = { .key0 = first_page * TOKENS };

    for (uint32_t i = 0; i < GROUP_PAGES; i++) {
        uint32_t p = first_page + i < last ? first_page + i : last;
        uint32_t next = is_last ? i : first_page + GROUP_PAGES + i;
        const uint8_t *page = a->pool + a->pages[p] * a->page_bytes;

        next = next < last ? next : last;
        g.k[i] = page + a->k_off;
        g.v[i] = page + a->v_off;
        g.k_next[i] =
            a->pool + a->pages[next] * a->page_bytes + (is_last ? a->next_k_off : a->k_off);
        g.v_next[i] = g.k_next[i] + (a->v_off - a->k_off);
        if (a->joined) {
            g.cs[i] = a->joined[p].cs;
            g.n_keys[i] = first_page + i == p ? a->joined[p].n_keys : 0;
        }
    }
    return g;
}

static void widen_f16(const uint8_t *k, const uint8_t *v, uint32_t hd, float *ret_k, float *ret_v)
{
    for (uint32_t i = 0; i < hd * TOKENS; i += 8) {
        _mm256_store_ps(&ret_k[i], load8(KV_F16, k, i));
        _mm256_store_ps(&ret_v[i], load8(KV_F16, v, i));
    }
}

/* The scales of a q8_0 tile. */
AVX2_INLINE void widen_scales(const uint8_t *tile, uint32_t hd, float *ret)
{
    const uint8_t *d = tile + (size_t)hd * TOKENS;

    for (uint32_t i = 0; i < (hd + 31) / 32 * TOKENS; i += 8)
        _mm256_store_ps(&ret[i], load8(KV_F16, d, i));
}

static void widen_q8_0(const uint8_t *k, const uint8_t *v, uint32_t hd, float *ret_k, float *ret_v)
{
    _Alignas(32) float kd[KERNELS_HEAD_DIM_MAX / 32 * TOKENS],
        vd[KERNELS_HEAD_DIM_MAX / 32 * TOKENS];
    struct group g = { .k = { k }, .kd = { kd } };

    widen_scales(k, hd, kd);
    widen_scales(v, hd, vd);
    for (uint32_t i = 0; i < hd; i++)
        for (uint32_t j = 0; j < TOKENS; j += 8)
            _mm256_store_ps(&ret_k[i * TOKENS + j], load_keys(KV_Q8_0, &g, 0, i, j));
    for (uint32_t t = 0; t < TOKENS; t++)
        for (uint32_t i = 0; i < hd; i += 8)
            _mm256_store_ps(&ret_v[t * hd + i],
                            load_values(KV_Q8_0, v, t * hd + i, vd + i / 32 * TOKENS + t));
}

/* Makes the group's tiles f32. Tokens past the last key come along; nobody looks at them. */
static void widen_group(enum kv_type kv, struct group *g, uint32_t hd, struct wide *w)
{
    for (uint32_t p = 0; p < GROUP_PAGES; p++) {
        (kv == KV_F16 ? widen_f16 : widen_q8_0)(g->k[p], g->v[p], hd, w->k[p], w->v[p]);
        g->k[p] = g->k_next[p] = (const uint8_t *)w->k[p];
        g->v[p] = g->v_next[p] = (const uint8_t *)w->v[p];
    }
}

/* The empty set of keys, to which the first group adds. */
static void clear_rows(const struct kernels_attn *a)
{
    for (uint32_t r = 0; r < a->n_rows; r++) {
        a->m[r] = -INFINITY;
        a->l[r] = 0;
    }
    for (size_t i = 0; i < (size_t)a->n_rows * a->head_dim; i += 8)
        _mm256_storeu_ps(a->o + i, _mm256_setzero_ps());
}

/* 128 KB of stack at the largest head_dim, of which a head of 64 uses a quarter. */
static void attend_widened(enum kv_type kv, const struct kernels_attn *a)
{
    struct wide w;

    for (uint32_t p = 0; p * TOKENS < a->n_keys; p += GROUP_PAGES) {
        struct group g = open_group(a, p);

        widen_group(kv, &g, a->head_dim, &w);
        attend_group_f32(a, &g);
    }
}

/* More rows than a block: widened once, a group's tiles serve them all. */
void avx2_attn_f16(const struct kernels_attn *a)
{
    clear_rows(a);
    if (a->n_rows > BLOCK_ROWS) {
        attend_widened(KV_F16, a);
        return;
    }
    for (uint32_t p = 0; p * TOKENS < a->n_keys; p += GROUP_PAGES) {
        struct group g = open_group(a, p);

        attend_group_f16(a, &g);
    }
}

void avx2_attn_f32(const struct kernels_attn *a)
{
    clear_rows(a);
    for (uint32_t p = 0; p * TOKENS < a->n_keys; p += GROUP_PAGES) {
        struct group g = open_group(a, p);

        attend_group_f32(a, &g);
    }
}

void avx2_attn_q8_0(const struct kernels_attn *a)
{
    struct scales d;

    clear_rows(a);
    if (a->n_rows > BLOCK_ROWS) {
        attend_widened(KV_Q8_0, a);
        return;
    }
    for (uint32_t p = 0; p * TOKENS < a->n_keys; p += GROUP_PAGES) {
        struct group g = open_group(a, p);

        for (uint32_t i = 0; i < GROUP_PAGES; i++) {
            widen_scales(g.k[i], a->head_dim, d.k[i]);
            widen_scales(g.v[i], a->head_dim, d.v[i]);
            g.kd[i] = d.k[i];
            g.vd[i] = d.v[i];
            _mm_prefetch(g.k_next[i] + a->head_dim * TOKENS, _MM_HINT_T1);
            _mm_prefetch(g.v_next[i] + a->head_dim * TOKENS, _MM_HINT_T1);
        }
        attend_group_q8_0(a, &g);
    }
}

/* l 0 is the empty set, whose m is -infinity: -infinity less itself would be NaN. */
void avx2_attn_merge(float *m, float *l, float *o, float m2, float l2, const float *o2, uint32_t hd)
{
    float top = fmaxf(*m, m2);
    __m256 zero = _mm256_setzero_ps();
    __m256 by1 = *l > 0 ? avx2_exp(_mm256_set1_ps(*m - top)) : zero;
    __m256 by2 = l2 > 0 ? avx2_exp(_mm256_set1_ps(m2 - top)) : zero;

    *m = top;
    *l = *l * _mm256_cvtss_f32(by1) + l2 * _mm256_cvtss_f32(by2);
    for (uint32_t i = 0; i < hd; i += 8) {
        __m256 v = _mm256_mul_ps(_mm256_loadu_ps(o2 + i), by2);

        _mm256_storeu_ps(o + i, _mm256_fmadd_ps(_mm256_loadu_ps(o + i), by1, v));
    }
}

/* --- storing ---------------------------------------------------------------------------------- */

/* K goes down a column of its tile, V along a row. */
void avx2_kv_store_f16(const float *k, const float *v, uint32_t hd, uint32_t slot, void *k_tile,
                       void *v_tile)
{
    uint16_t *kt = (uint16_t *)k_tile + slot, *vt = (uint16_t *)v_tile + (size_t)slot * hd;
    const __m128i exponent = _mm_set1_epi16(0x7c00);
    __m128i bad = _mm_setzero_si128();

    for (uint32_t i = 0; i < hd; i += 8) {
        __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(k + i), 0);
        uint16_t k16[8];

        bad = _mm_or_si128(bad, _mm_cmpeq_epi16(_mm_and_si128(half, exponent), exponent));
        _mm_storeu_si128((void *)k16, half);
        _mm_storeu_si128((void *)(vt + i), _mm256_cvtps_ph(_mm256_loadu_ps(v + i), 0));
        for (uint32_t j = 0; j < 8; j++)
            kt[(i + j) * TOKENS] = k16[j];
    }
    if (_mm_movemask_epi8(bad))
        vt[0] = KV_F16_NAN;
}

/* K's elements are 16 floats apart: a store each, as in the other formats. */
void avx2_kv_store_f32(const float *k, const float *v, uint32_t hd, uint32_t slot, void *k_tile,
                       void *v_tile)
{
    float *kt = k_tile, *vt = (float *)v_tile + (size_t)slot * hd;
    bool bad = false;

    for (uint32_t i = 0; i < hd; i++) {
        kt[i * TOKENS + slot] = k[i];
        bad |= !isfinite(k[i]);
    }
    memcpy(vt, v, hd * sizeof(float));
    if (bad)
        vt[0] = NAN;
}

/* n values, 8 to 32, a multiple of 8. Steps and roundings are the scalar twin's; vmaxps gives its
 * second operand when the first is no number. The largest is found by bits, among which NaN is the
 * largest. */
static void quantise_block(const float *x, uint32_t n, int8_t *ret_q, uint16_t *ret_d)
{
    const __m256 sign = _mm256_set1_ps(-0.0f), low = _mm256_set1_ps(-127);
    __m256i amax = _mm256_setzero_si256();
    __m256 by;

    for (uint32_t i = 0; i < n; i += 8) {
        __m256 v = _mm256_andnot_ps(sign, _mm256_loadu_ps(x + i));

        amax = _mm256_max_epi32(amax, _mm256_castps_si256(v));
    }
    *ret_d = _cvtss_sh(avx2_max_bits(amax) / 127, 0);
    by = _mm256_set1_ps(*ret_d ? 1 / _cvtsh_ss(*ret_d) : 0);
    for (uint32_t i = 0; i < n; i += 8) {
        __m256 v = _mm256_max_ps(_mm256_mul_ps(_mm256_loadu_ps(x + i), by), low);
        __m256i q = _mm256_cvtps_epi32(_mm256_min_ps(v, _mm256_set1_ps(127)));
        __m128i q16 = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));

        _mm_storel_epi64((void *)(ret_q + i), _mm_packs_epi16(q16, q16));
    }
}

void avx2_kv_store_q8_0(const float *k, const float *v, uint32_t hd, uint32_t slot, void *k_tile,
                        void *v_tile)
{
    int8_t *kt = (int8_t *)k_tile + slot, *vt = (int8_t *)v_tile + (size_t)slot * hd;
    uint16_t *kd = (void *)((uint8_t *)k_tile + (size_t)hd * TOKENS),
             *vd = (void *)((uint8_t *)v_tile + (size_t)hd * TOKENS);
    bool bad = false;

    for (uint32_t i = 0; i < hd; i += 32) {
        uint32_t n = hd - i < 32 ? hd - i : 32, at = i / 32 * TOKENS + slot;
        int8_t q[32];

        quantise_block(k + i, n, q, &kd[at]);
        for (uint32_t j = 0; j < n; j++)
            kt[(i + j) * TOKENS] = q[j];
        quantise_block(v + i, n, vt + i, &vd[at]);
        bad |= (kd[at] & 0x7c00) == 0x7c00;
    }
    if (bad)
        vd[slot] = KV_F16_NAN;
}
