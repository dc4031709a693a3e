/* Attention over one segment, or several that are joined: keys go by in groups of four pages (64
 * keys), and each row keeps its running maximum, sum and output, which are rescaled when a group
 * raises the maximum.
 *
 * Groups begin at fixed keys and every chain of additions runs over keys in order, one element an
 * accumulator: a row's result does not depend on the rows beside it. A group in which a row sees
 * nothing leaves that row alone.
 *
 * Scores: a K tile is (hd, 16), so 16 keys are one vector and an element of q is broadcast to them.
 * Up to 8 rows take tiles as they are, at the speed of memory: tiles are called into the
 * second-level cache one step ahead, V while K is multiplied and the next K while V is. For more
 * rows, a group's tiles are made f32 once, on the stack, where 6 rows by 4 vectors need 10 loads
 * for 24 multiply-adds.
 *
 * Joined segments are one row of groups, too: each page has q of its own, so that an element of q
 * is broadcast to one page and not to four, and tiles are taken as they are for any number of rows.
 */
#include "engine/cpu/kernels_avx512.h"

#include <math.h>

#define TOKENS      PAGE_TOKENS
#define GROUP_PAGES 4u
#define GROUP_KEYS  (GROUP_PAGES * TOKENS)
#define BLOCK_ROWS  8u   /* rows at a time, at most */
#define JOINED_ROWS 4u   /* the same where segments are joined */
#define CHUNK_ROWS  128u /* rows that pass over all keys together, at most */
#define HD_MAX      KERNELS_HEAD_DIM_MAX
#define BLOCKS_MAX  (HD_MAX / 32)

/* One group of pages. Missing pages repeat the last one, and their scores are hidden. */
struct group {
    const uint8_t *k[GROUP_PAGES], *v[GROUP_PAGES];
    const uint8_t *k_next[GROUP_PAGES]; /* to be fetched meanwhile */
    const struct wide *wide;            /* NULL: tiles are taken as they are */
    const float *k_d, *v_d;             /* scales of int8 tiles (blocks, 64) */
    uint32_t key0;
    const float *cs[GROUP_PAGES]; /* joined: what q is turned by */
    uint32_t n_keys[GROUP_PAGES]; /* joined: of each page; 0 if it is missing */
};

/* q of some rows for the pages of a group, in floats from one element, row and page to the next:
 * always constants; page 0: q is the same for all. */
struct turned {
    const float *q;
    size_t step, row, page;
};

/* A group's tiles in f32, as the registers of a block of rows want them. */
struct wide {
    _Alignas(64) float k[HD_MAX * GROUP_KEYS]; /* (hd, 64) */
    _Alignas(64) float v[GROUP_KEYS * HD_MAX]; /* (64, hd) */
    _Alignas(64) float k_d[BLOCKS_MAX * GROUP_KEYS], v_d[BLOCKS_MAX * GROUP_KEYS];
};

/* Rows [r0, r1) of the call on their way over the keys. */
struct chunk {
    const struct kernels_attn *a;
    uint32_t r0, r1;
    _Alignas(64) float sum[CHUNK_ROWS][16]; /* l of each row, in 16 parts */
    float turned[BLOCK_ROWS * HD_MAX];      /* q of up to 8 rows, as (hd, rows) */
    _Alignas(64) float k_d[BLOCKS_MAX * GROUP_KEYS], v_d[BLOCKS_MAX * GROUP_KEYS];
};

AVX512_INLINE size_t element_bytes(enum kv_type kv)
{
    return kv == KV_F32 ? 4 : kv == KV_F16 ? 2 : 1;
}

/* n is 16, or 8 at the end of a row of V; d: the scales of int8. kv and n are constants wherever
 * this is inlined. */
AVX512_INLINE __m512 load_some(enum kv_type kv, const uint8_t *p, uint32_t n, __m512 d)
{
    if (kv == KV_F32)
        return n == 16 ? _mm512_loadu_ps(p) : _mm512_maskz_loadu_ps(0xff, p);
    if (kv == KV_F16)
        return n == 16 ? _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p))
                       : _mm512_zextps256_ps512(_mm256_cvtph_ps(_mm_loadu_si128((const void *)p)));
    return _mm512_mul_ps(
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(n == 16 ? _mm_loadu_si128((const void *)p)
                                                        : _mm_loadl_epi64((const void *)p))),
        d);
}

/* --- scores and values ---------------------------------------------------------------------------
 *
 * Pointers step and rows are constants: what a loop spends on addresses, it takes from the two
 * ports that multiply. */

/* Scores of n_rows rows and n_pages pages from page p on, to s (n_rows, GROUP_KEYS). t begins at
 * page p. Four elements of q at a time; V of these pages is called for meanwhile, as K was by the
 * group before. */
AVX512_INLINE void score_pages(enum kv_type kv, const struct group *g, uint32_t p, uint32_t n_pages,
                               struct turned t, uint32_t hd, uint32_t n_rows, float *s)
{
    const size_t step = TOKENS * element_bytes(kv); /* from one element of q to the next */
    const __m512 one = _mm512_set1_ps(1);
    const uint8_t *k[GROUP_PAGES], *v[GROUP_PAGES];
    __m512 acc[BLOCK_ROWS][GROUP_PAGES], key[GROUP_PAGES];

#pragma GCC unroll 8
    for (uint32_t j = 0; j < n_pages; j++) {
        k[j] = g->k[p + j];
        v[j] = g->v[p + j];
#pragma GCC unroll 8
        for (uint32_t r = 0; r < n_rows; r++)
            acc[r][j] = _mm512_setzero_ps();
    }
    for (size_t at = 0; at < hd * step; at += 4 * step) {
#pragma GCC unroll 8
        for (size_t u = 0; u < 4; u++, t.q += t.step) {
#pragma GCC unroll 8
            for (uint32_t j = 0; j < n_pages; j++) {
                __m512 d = one;

                if (kv == KV_Q8_0)
                    d = _mm512_load_ps(g->k_d + at / (32 * step) * GROUP_KEYS + (p + j) * TOKENS);
                key[j] = load_some(kv, k[j] + at + u * step, 16, d);
                if (u * step % 64 == 0)
                    _mm_prefetch(v[j] + at + u * step, _MM_HINT_T1);
            }
#pragma GCC unroll 8
            for (uint32_t r = 0; r < n_rows; r++) {
#pragma GCC unroll 8
                for (uint32_t j = 0; j < n_pages; j++)
                    acc[r][j] = _mm512_fmadd_ps(_mm512_set1_ps(t.q[r * t.row + j * t.page]), key[j],
                                                acc[r][j]);
            }
        }
    }
#pragma GCC unroll 8
    for (uint32_t r = 0; r < n_rows; r++)
#pragma GCC unroll 8
        for (uint32_t j = 0; j < n_pages; j++)
            _mm512_storeu_ps(s + r * GROUP_KEYS + (p + j) * TOKENS, acc[r][j]);
}

/* The same from wide tiles, for the first n_pages pages, and q as it is. 6 rows by 4 pages: 24
 * sums, 4 keys and what is broadcast are 29 of 32 registers. */
AVX512_INLINE void score_wide(const struct wide *w, uint32_t n_pages, const float *q, uint32_t hd,
                              uint32_t n_rows, float *s)
{
    const float *k = w->k, *row[BLOCK_ROWS];
    __m512 acc[BLOCK_ROWS][GROUP_PAGES], key[GROUP_PAGES];

#pragma GCC unroll 8
    for (uint32_t r = 0; r < n_rows; r++) {
        row[r] = q + (size_t)r * hd;
#pragma GCC unroll 8
        for (uint32_t j = 0; j < n_pages; j++)
            acc[r][j] = _mm512_setzero_ps();
    }
    for (size_t i = 0; i < hd; i += 4) {
#pragma GCC unroll 8
        for (size_t u = 0; u < 4; u++, k += GROUP_KEYS) {
#pragma GCC unroll 8
            for (uint32_t j = 0; j < n_pages; j++)
                key[j] = _mm512_load_ps(k + j * TOKENS);
#pragma GCC unroll 8
            for (uint32_t r = 0; r < n_rows; r++) {
                __m512 qi = _mm512_set1_ps(row[r][i + u]);

#pragma GCC unroll 8
                for (uint32_t j = 0; j < n_pages; j++)
                    acc[r][j] = _mm512_fmadd_ps(qi, key[j], acc[r][j]);
            }
        }
    }
#pragma GCC unroll 8
    for (uint32_t r = 0; r < n_rows; r++)
#pragma GCC unroll 8
        for (uint32_t j = 0; j < n_pages; j++)
            _mm512_storeu_ps(s + r * GROUP_KEYS + j * TOKENS, acc[r][j]);
}

/* o += weights times values over keys [j0, j1) of the group, for n_rows rows and n_vec vectors from
 * element c on; the last vector has n_last elements. `ahead`: calls for the next K. */
AVX512_INLINE void add_values(enum kv_type kv, bool ahead, const struct group *g, uint32_t j0,
                              uint32_t j1, const float *w, float *o, uint32_t hd, uint32_t c,
                              uint32_t n_rows, uint32_t n_vec, uint32_t n_last)
{
    const size_t len = element_bytes(kv), step = hd * len;
    const float *d = g->v_d + c / 32 * GROUP_KEYS; /* c is a multiple of 32 when n_vec > 1 */
    __mmask16 last = n_last == 16 ? 0xffff : 0xff;
    __m512 acc[BLOCK_ROWS][4], value[4];

#pragma GCC unroll 8
    for (uint32_t r = 0; r < n_rows; r++)
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_vec; i++)
            acc[r][i] =
                _mm512_maskz_loadu_ps(i + 1 < n_vec ? 0xffff : last, o + r * hd + c + 16 * i);

    for (uint32_t j = j0, end; j < j1; j = end) {
        size_t at = (j % TOKENS * (size_t)hd + c) * len;
        const uint8_t *v = g->v[j / TOKENS] + at, *next = g->k_next[j / TOKENS] + at;
        const float *wj = w + j;

        end = j / TOKENS * TOKENS + TOKENS;
        end = end < j1 ? end : j1;
        for (const float *w_end = w + end; wj < w_end; wj++, v += step, next += step) {
#pragma GCC unroll 8
            for (uint32_t i = 0; i < n_vec; i++)
                value[i] = load_some(kv, v + 16 * len * i, i + 1 < n_vec ? 16 : n_last,
                                     kv == KV_Q8_0
                                         ? _mm512_set1_ps(d[(size_t)(wj - w) + i / 2 * GROUP_KEYS])
                                         : acc[0][0]);
            for (size_t i = 0; ahead && i < n_vec * 16 * len; i += 64)
                _mm_prefetch(next + i, _MM_HINT_T1);
#pragma GCC unroll 8
            for (uint32_t r = 0; r < n_rows; r++) {
                __m512 by = _mm512_set1_ps(wj[r * GROUP_KEYS]);

#pragma GCC unroll 8
                for (uint32_t i = 0; i < n_vec; i++)
                    acc[r][i] = _mm512_fmadd_ps(by, value[i], acc[r][i]);
            }
        }
    }
#pragma GCC unroll 8
    for (uint32_t r = 0; r < n_rows; r++)
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_vec; i++)
            _mm512_mask_storeu_ps(o + r * hd + c + 16 * i, i + 1 < n_vec ? 0xffff : last,
                                  acc[r][i]);
}

AVX512_INLINE void add_values_rows(enum kv_type kv, bool ahead, const struct group *g, uint32_t j0,
                                   uint32_t j1, const float *w, float *o, uint32_t hd,
                                   uint32_t n_rows, uint32_t n_vec)
{
    uint32_t c = 0;

    for (; c + 16 * n_vec <= hd; c += 16 * n_vec)
        add_values(kv, ahead, g, j0, j1, w, o, hd, c, n_rows, n_vec, 16);
    for (; c + 16 <= hd; c += 16)
        add_values(kv, ahead, g, j0, j1, w, o, hd, c, n_rows, 1, 16);
    if (c < hd)
        add_values(kv, ahead, g, j0, j1, w, o, hd, c, n_rows, 1, 8);
}

/* One row, over keys that rows beside it do not see. */
AVX512_ONCE void add_own(enum kv_type kv, const struct group *g, uint32_t j0, uint32_t j1,
                         const float *w, float *o, uint32_t hd)
{
    if (kv == KV_F16)
        add_values_rows(KV_F16, false, g, j0, j1, w, o, hd, 1, 4);
    else if (kv == KV_Q8_0)
        add_values_rows(KV_Q8_0, false, g, j0, j1, w, o, hd, 1, 4);
    else
        add_values_rows(KV_F32, false, g, j0, j1, w, o, hd, 1, 4);
}

/* --- softmax ---------------------------------------------------------------------------------- */

/* e^x for x <= 0, as it is needed here: x log2(e) is rounded, which is 6e-8 |x| e^x of the largest
 * weight, 1. Weights below 2^-126 are none: denormals would be slow and weigh nothing. */
AVX512_INLINE __m512 weigh(__m512 x)
{
    __m512 y = _mm512_mul_ps(x, _mm512_set1_ps(1.44269502f));
    __mmask16 some = _mm512_cmp_ps_mask(y, _mm512_set1_ps(-126), _CMP_NLT_UQ);

    return _mm512_maskz_scalef_ps(some, avx512_power(AVX512_FRACTION(y)), y);
}

/* Keys from `seen` on: e^-infinity is 0. */
AVX512_ONCE void hide_keys(float *s, uint32_t seen)
{
    for (uint32_t j = seen & ~15u; j < GROUP_KEYS; j += 16) {
        __mmask16 hidden = (__mmask16)~avx512_first(seen > j ? seen - j : 0);

        _mm512_mask_storeu_ps(s + j, hidden, _mm512_set1_ps(-INFINITY));
    }
}

/* A greater maximum: what was summed so far is brought to it. */
AVX512_ONCE void raise_row(__m512 top, float *m, float *sum, float *o, uint32_t hd)
{
    float max = avx512_max(top);
    __m512 by = weigh(_mm512_set1_ps(*m - max));

    *m = max;
    _mm512_store_ps(sum, _mm512_mul_ps(_mm512_load_ps(sum), by));
    for (uint32_t i = 0; i < hd; i += 16) {
        __mmask16 in = avx512_first(hd - i);

        _mm512_mask_storeu_ps(o + i, in, _mm512_mul_ps(_mm512_maskz_loadu_ps(in, o + i), by));
    }
}

/* One row's scores s become weights against the new maximum; keys from `seen` on get none. The sum
 * stays in 16 parts until the end, and the greatest score is only looked for when some score is
 * above the maximum: most groups raise nothing. */
AVX512_INLINE void soften_row(float *s, uint32_t seen, float *m, float *sum, float *o, uint32_t hd)
{
    __m512 v[GROUP_PAGES], top, shift;

    if (seen < GROUP_KEYS)
        hide_keys(s, seen);
    for (int i = 0; i < 4; i++)
        v[i] = _mm512_loadu_ps(s + 16 * i);
    top = _mm512_max_ps(_mm512_max_ps(v[0], v[1]), _mm512_max_ps(v[2], v[3]));
    if (_mm512_cmp_ps_mask(top, _mm512_set1_ps(*m), _CMP_GT_OQ))
        raise_row(top, m, sum, o, hd);
    shift = _mm512_set1_ps(*m);
    for (int i = 0; i < 4; i++) {
        v[i] = weigh(_mm512_sub_ps(v[i], shift));
        _mm512_storeu_ps(s + 16 * i, v[i]);
    }
    v[0] = _mm512_add_ps(_mm512_add_ps(v[0], v[1]), _mm512_add_ps(v[2], v[3]));
    _mm512_store_ps(sum, _mm512_add_ps(_mm512_load_ps(sum), v[0]));
}

/* --- rows by groups --------------------------------------------------------------------------- */

/* Keys of the group that row r sees. */
AVX512_INLINE uint32_t keys_seen(const struct kernels_attn *a, const struct group *g, uint32_t r)
{
    uint32_t seen = a->first_visible + r / a->group * a->stride;

    seen = seen < a->n_keys ? seen : a->n_keys;
    if (seen <= g->key0)
        return 0;
    return seen - g->key0 < GROUP_KEYS ? seen - g->key0 : GROUP_KEYS;
}

/* Rows [r, r + n_rows) over one group; n_pages pages and n_vec vectors at a time fill the
 * registers. */
AVX512_INLINE void attend_block(enum kv_type kv, bool wide, struct chunk *c, const struct group *g,
                                uint32_t r, uint32_t n_rows, uint32_t n_pages, uint32_t n_vec)
{
    const struct kernels_attn *a = c->a;
    uint32_t hd = a->head_dim, least = keys_seen(a, g, r), most = keys_seen(a, g, r + n_rows - 1);
    _Alignas(64) float s[BLOCK_ROWS * GROUP_KEYS];
    struct turned t = { .q = c->turned + (size_t)(r - c->r0) * hd, .step = n_rows, .row = 1 };
    float *o = a->o + (size_t)r * hd;

    /* No row of the block sees the second half of the group. */
    if (wide && most <= GROUP_KEYS / 2)
        score_wide(g->wide, GROUP_PAGES / 2, a->q + (size_t)r * hd, hd, n_rows, s);
    else if (wide)
        score_wide(g->wide, GROUP_PAGES, a->q + (size_t)r * hd, hd, n_rows, s);
    for (uint32_t p = 0; !wide && p * TOKENS < most; p += n_pages)
        score_pages(kv, g, p, n_pages, t, hd, n_rows, s);
    for (uint32_t i = 0; i < n_rows; i++) {
        uint32_t seen = keys_seen(a, g, r + i);

        if (seen)
            soften_row(s + i * GROUP_KEYS, seen, &a->m[r + i], c->sum[r + i - c->r0], o + i * hd,
                       hd);
    }
    /* Keys that all rows see, then each row's own: a key that a row does not see is not even
     * multiplied by zero. */
    add_values_rows(kv, !wide, g, 0, least, s, o, hd, n_rows, n_vec);
    for (uint32_t i = 0; i < n_rows && least < most; i++) {
        uint32_t seen = keys_seen(a, g, r + i);

        if (least < seen)
            add_own(kv, g, least, seen, s + i * GROUP_KEYS, o + i * hd, hd);
    }
}

/* Rows of the chunk that see nothing of the group: the first ones. */
AVX512_INLINE uint32_t rows_blind(const struct chunk *c, const struct group *g)
{
    uint32_t blind;

    if (g->key0 < c->a->first_visible)
        return c->r0;
    blind = ((g->key0 - c->a->first_visible) / c->a->stride + 1) * c->a->group;
    return blind > c->r0 ? blind : c->r0;
}

/* All rows of the chunk over one group of wide tiles, so that no block of one row is left over. */
AVX512_ONCE void attend_wide(struct chunk *c, const struct group *g)
{
    for (uint32_t r = rows_blind(c, g), n; r < c->r1; r += n) {
        uint32_t left = c->r1 - r;

        n = left > 7 ? 6 : left == 7 ? 4 : left;
        switch (n) {
        case 6:
            attend_block(KV_F32, true, c, g, r, 6, 4, 4);
            break;
        case 5:
            attend_block(KV_F32, true, c, g, r, 5, 4, 4);
            break;
        case 4:
            attend_block(KV_F32, true, c, g, r, 4, 4, 4);
            break;
        case 3:
            attend_block(KV_F32, true, c, g, r, 3, 4, 4);
            break;
        case 2:
            attend_block(KV_F32, true, c, g, r, 2, 4, 4);
            break;
        default:
            attend_block(KV_F32, true, c, g, r, 1, 4, 4);
        }
    }
}

/* A chunk of up to 8 rows over one group, tiles as they are. Rows that see nothing only come first
 * when the chunk is narrow for the size of its heads, so they are left to their turn. 8 and 7 rows
 * by two pages, fewer by four: as many sums as registers have room for. */
AVX512_INLINE void attend_narrow(enum kv_type kv, struct chunk *c, const struct group *g)
{
    switch (c->r1 - c->r0) {
    case 8:
        attend_block(kv, false, c, g, c->r0, 8, 2, 2);
        break;
    case 7:
        attend_block(kv, false, c, g, c->r0, 7, 2, 2);
        break;
    case 6:
        attend_block(kv, false, c, g, c->r0, 6, 4, 4);
        break;
    case 5:
        attend_block(kv, false, c, g, c->r0, 5, 4, 4);
        break;
    case 4:
        attend_block(kv, false, c, g, c->r0, 4, 4, 4);
        break;
    case 3:
        attend_block(kv, false, c, g, c->r0, 3, 4, 4);
        break;
    case 2:
        attend_block(kv, false, c, g, c->r0, 2, 4, 4);
        break;
    default:
        attend_block(kv, false, c, g, c->r0, 1, 4, 4);
    }
}

AVX512_ONCE void attend_narrow_f16(struct chunk *c, const struct group *g)
{
    attend_narrow(KV_F16, c, g);
}

AVX512_ONCE void attend_narrow_q8_0(struct chunk *c, const struct group *g)
{
    attend_narrow(KV_Q8_0, c, g);
}

AVX512_ONCE void attend_narrow_f32(struct chunk *c, const struct group *g)
{
    attend_narrow(KV_F32, c, g);
}

/* --- rows by groups of joined segments -------------------------------------------------------- */

/* The first bytes of a group's tiles are called for before q is turned and before the softmax:
 * memory would wait for them to end. */
#define AHEAD 512u

AVX512_INLINE void call_tiles(const uint8_t *const tiles[GROUP_PAGES], size_t len)
{
    for (size_t at = 0; at < len; at += 64)
        for (uint32_t p = 0; p < GROUP_PAGES; p++)
            _mm_prefetch(tiles[p] + at, _MM_HINT_T1);
}

/* The keys that pages of the group do not have. */
AVX512_INLINE void hide_gaps(const struct group *g, float *s)
{
    for (uint32_t p = 0; p < GROUP_PAGES; p++) {
        if (g->n_keys[p] < TOKENS)
            _mm512_mask_storeu_ps(s + p * TOKENS, (__mmask16)~avx512_first(g->n_keys[p]),
                                  _mm512_set1_ps(-INFINITY));
    }
}

/* Rows [r, r + n_rows), at most JOINED_ROWS, over one group. */
AVX512_INLINE void attend_joined_block(enum kv_type kv, struct chunk *c, const struct group *g,
                                       uint32_t r, uint32_t n_rows)
{
    enum { ROW = HD_MAX + 16 }; /* so that rows lie in different sets of the cache */
    const struct kernels_attn *a = c->a;
    uint32_t hd = a->head_dim;
    _Alignas(64) float q[GROUP_PAGES * JOINED_ROWS * ROW], s[JOINED_ROWS * GROUP_KEYS];
    struct turned t = { .q = q, .step = 1, .row = ROW, .page = JOINED_ROWS * ROW };
    float *o = a->o + (size_t)r * hd;

    /* V is wanted behind the scores; the next K behind the softmax. */
    call_tiles(g->v, AHEAD);
    for (uint32_t p = 0; p < GROUP_PAGES; p++)
        for (uint32_t i = 0; i < n_rows; i++)
            avx512_turn(a->q + (size_t)(r + i) * hd, g->cs[p], hd, q + p * t.page + i * ROW);
    score_pages(kv, g, 0, GROUP_PAGES, t, hd, n_rows, s);
    call_tiles(g->k_next, AHEAD);
    for (uint32_t i = 0; i < n_rows; i++) {
        hide_gaps(g, s + i * GROUP_KEYS);
        soften_row(s + i * GROUP_KEYS, GROUP_KEYS, &a->m[r + i], c->sum[r + i - c->r0], o + i * hd,
                   hd);
    }
    for (uint32_t p = 0, last; p < GROUP_PAGES && g->n_keys[p]; p = last + 1) {
        last = p; /* of the pages without a gap between their keys */
        while (last + 1 < GROUP_PAGES && g->n_keys[last] == TOKENS && g->n_keys[last + 1])
            last++;
        add_values_rows(kv, true, g, p * TOKENS, last * TOKENS + g->n_keys[last], s, o, hd, n_rows,
                        4);
    }
}

AVX512_INLINE void attend_joined_rows(enum kv_type kv, struct chunk *c, const struct group *g)
{
    for (uint32_t r = c->r0, n; r < c->r1; r += n) {
        n = c->r1 - r < JOINED_ROWS ? c->r1 - r : JOINED_ROWS;
        switch (n) {
        case 4:
            attend_joined_block(kv, c, g, r, 4);
            break;
        case 3:
            attend_joined_block(kv, c, g, r, 3);
            break;
        case 2:
            attend_joined_block(kv, c, g, r, 2);
            break;
        default:
            attend_joined_block(kv, c, g, r, 1);
        }
    }
}

AVX512_ONCE void attend_joined_f16(struct chunk *c, const struct group *g)
{
    attend_joined_rows(KV_F16, c, g);
}

AVX512_ONCE void attend_joined_q8_0(struct chunk *c, const struct group *g)
{
    attend_joined_rows(KV_Q8_0, c, g);
}

AVX512_ONCE void attend_joined_f32(struct chunk *c, const struct group *g)
{
    attend_joined_rows(KV_F32, c, g);
}

/* --- all keys of a call ----------------------------------------------------------------------- */

/* The tiles of the group at first_page, and the K tiles of the next one; after the last group they
 * are those that the caller names. wide, k_d and v_d come later, where tiles or scales are made
 * f32. */
AVX512_INLINE struct group open_group(const struct kernels_attn *a, uint32_t first_page)
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
        if (a->joined) {
            g.cs[i] = a->joined[p].cs;
            g.n_keys[i] = first_page + i == p ? a->joined[p].n_keys : 0;
        }
    }
    return g;
}

/* Makes the scales of a group's int8 tiles f32, and calls for those of the next K and V: only what
 * they scale is called for on the way. */
AVX512_INLINE void widen_scales(struct group *g, size_t v_off, uint32_t hd, float *ret_k,
                                float *ret_v)
{
    const size_t at = (size_t)hd * TOKENS, len = (hd + 31) / 32 * TOKENS * sizeof(uint16_t);

    for (uint32_t p = 0; p < GROUP_PAGES; p++) {
        for (size_t b = 0; b < len; b += 32) {
            const uint8_t *k = g->k[p] + at + b, *v = g->v[p] + at + b;
            size_t to = b / 32 * GROUP_KEYS + p * TOKENS;

            _mm512_store_ps(ret_k + to, _mm512_cvtph_ps(_mm256_loadu_si256((const void *)k)));
            _mm512_store_ps(ret_v + to, _mm512_cvtph_ps(_mm256_loadu_si256((const void *)v)));
            _mm_prefetch(g->k_next[p] + at + b, _MM_HINT_T1);
            _mm_prefetch(g->k_next[p] + v_off + at + b, _MM_HINT_T1);
        }
    }
    g->k_d = ret_k;
    g->v_d = ret_v;
}

/* Makes the group's tiles f32. Tokens past the last key come along; nobody looks at them. */
AVX512_INLINE void widen_group(enum kv_type kv, struct group *g, uint32_t hd, struct wide *w)
{
    const size_t len = element_bytes(kv);
    __m512 d = _mm512_setzero_ps();

    for (uint32_t p = 0; p < GROUP_PAGES; p++) {
        float *k = w->k + p * TOKENS, *v = w->v + (size_t)p * TOKENS * hd;

        for (uint32_t i = 0; i < hd; i++) {
            if (kv == KV_Q8_0)
                d = _mm512_load_ps(g->k_d + i / 32 * GROUP_KEYS + p * TOKENS);
            _mm512_store_ps(k + i * GROUP_KEYS, load_some(kv, g->k[p] + i * TOKENS * len, 16, d));
        }
        for (uint32_t t = 0; t < TOKENS; t++) {
            for (uint32_t i = 0; i < hd; i += 16) {
                size_t at = (size_t)t * hd + i;

                if (kv == KV_Q8_0)
                    d = _mm512_set1_ps(g->v_d[i / 32 * GROUP_KEYS + p * TOKENS + t]);
                if (i + 16 <= hd)
                    _mm512_storeu_ps(v + at, load_some(kv, g->v[p] + at * len, 16, d));
                else
                    _mm512_mask_storeu_ps(v + at, 0xff, load_some(kv, g->v[p] + at * len, 8, d));
            }
        }
        g->v[p] = (const uint8_t *)v;
    }
    g->wide = w;
}

/* The groups that some row of the chunk sees. */
static uint32_t pages_seen(const struct chunk *c)
{
    uint32_t seen = c->a->first_visible + (c->r1 - 1) / c->a->group * c->a->stride;

    return ((seen < c->a->n_keys ? seen : c->a->n_keys) + TOKENS - 1) / TOKENS;
}

AVX512_ONCE void attend_widened(enum kv_type kv, struct chunk *c, uint32_t n_pages)
{
    uint32_t hd = c->a->head_dim;
    struct wide w;

    for (uint32_t p = 0; p < n_pages; p += GROUP_PAGES) {
        struct group g = open_group(c->a, p);

        if (kv == KV_F16) {
            widen_group(KV_F16, &g, hd, &w);
        } else if (kv == KV_F32) {
            widen_group(KV_F32, &g, hd, &w);
        } else {
            widen_scales(&g, c->a->v_off - c->a->k_off, hd, w.k_d, w.v_d);
            widen_group(KV_Q8_0, &g, hd, &w);
        }
        attend_wide(c, &g);
    }
}

/* q is turned to (hd, rows): what one step of score_pages broadcasts lies side by side. */
AVX512_ONCE void attend_as_is(enum kv_type kv, struct chunk *c, uint32_t n_pages)
{
    uint32_t hd = c->a->head_dim, n_rows = c->r1 - c->r0;

    for (uint32_t r = 0; r < n_rows; r++)
        for (uint32_t i = 0; i < hd; i++)
            c->turned[i * n_rows + r] = c->a->q[(size_t)(c->r0 + r) * hd + i];
    for (uint32_t p = 0; p < n_pages; p += GROUP_PAGES) {
        struct group g = open_group(c->a, p);

        if (kv == KV_F16) {
            attend_narrow_f16(c, &g);
        } else if (kv == KV_F32) {
            attend_narrow_f32(c, &g);
        } else {
            widen_scales(&g, c->a->v_off - c->a->k_off, hd, c->k_d, c->v_d);
            attend_narrow_q8_0(c, &g);
        }
    }
}

AVX512_ONCE void attend_joined(enum kv_type kv, struct chunk *c, uint32_t n_pages)
{
    uint32_t hd = c->a->head_dim;

    for (uint32_t p = 0; p < n_pages; p += GROUP_PAGES) {
        struct group g = open_group(c->a, p);

        if (p == 0) /* no group before it did */
            call_tiles(g.k, hd * TOKENS * element_bytes(kv));
        if (kv == KV_F16) {
            attend_joined_f16(c, &g);
        } else if (kv == KV_F32) {
            attend_joined_f32(c, &g);
        } else {
            widen_scales(&g, c->a->v_off - c->a->k_off, hd, c->k_d, c->v_d);
            attend_joined_q8_0(c, &g);
        }
    }
}

/* Rows begin as the empty set of keys. l is kept in 16 parts until all groups have passed. */
static void attend_chunk(enum kv_type kv, bool wide, struct chunk *c)
{
    size_t hd = c->a->head_dim;

    for (uint32_t r = c->r0; r < c->r1; r++) {
        c->a->m[r] = -INFINITY;
        _mm512_store_ps(c->sum[r - c->r0], _mm512_setzero_ps());
    }
    for (size_t i = c->r0 * hd; i < c->r1 * hd; i += 8)
        _mm256_storeu_ps(c->a->o + i, _mm256_setzero_ps());
    (c->a->joined ? attend_joined : wide ? attend_widened : attend_as_is)(kv, c, pages_seen(c));
    for (uint32_t r = c->r0; r < c->r1; r++)
        c->a->l[r] = avx512_sum(_mm512_load_ps(c->sum[r - c->r0]));
}

/* Many rows go over the keys some at a time, so that their sums and q stay in the cache. */
static void attend(enum kv_type kv, const struct kernels_attn *a)
{
    bool wide = a->n_rows > BLOCK_ROWS;
    uint32_t n = wide ? CHUNK_ROWS : BLOCK_ROWS;
    struct chunk c; /* not cleared: rows clear what they use */

    c.a = a;
    for (c.r0 = 0; c.r0 < a->n_rows; c.r0 = c.r1) {
        c.r1 = a->n_rows - c.r0 < n ? a->n_rows : c.r0 + n;
        attend_chunk(kv, wide, &c);
    }
}

void avx512_attn_f16(const struct kernels_attn *a)
{
    attend(KV_F16, a);
}

void avx512_attn_f32(const struct kernels_attn *a)
{
    attend(KV_F32, a);
}

void avx512_attn_q8_0(const struct kernels_attn *a)
{
    attend(KV_Q8_0, a);
}

/* As avx2_attn_merge: l 0 is the empty set. */
void avx512_attn_merge(float *m, float *l, float *o, float m2, float l2, const float *o2,
                       uint32_t hd)
{
    float top = fmaxf(*m, m2);
    __m512 zero = _mm512_setzero_ps();
    __m512 by1 = *l > 0 ? avx512_exp(_mm512_set1_ps(*m - top)) : zero;
    __m512 by2 = l2 > 0 ? avx512_exp(_mm512_set1_ps(m2 - top)) : zero;

    *m = top;
    *l = *l * _mm512_cvtss_f32(by1) + l2 * _mm512_cvtss_f32(by2);
    for (uint32_t i = 0; i < hd; i += 16) {
        __mmask16 in = avx512_first(hd - i);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(in, o2 + i), by2);

        v = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(in, o + i), by1, v);
        _mm512_mask_storeu_ps(o + i, in, v);
    }
}
