/* engine/cpu/kernels.h - the table of CPU kernels, one table an instruction set.
 *
 * kernels_scalar.c defines what each kernel computes (plain loops); the others are faster and are
 * tested against it. A table is chosen once, at start.
 *
 * Every result is independent of how work is split: a value is accumulated in one fixed order,
 * whatever the number of rows in the call. So batched equals one by one and chunked equals
 * unchunked, bit for bit, under one table.
 *
 * Shapes    T tokens, row-major, the last index fastest; hd = head_dim.
 * Threads   pure functions: any thread, on disjoint outputs.
 */
#ifndef ENGINE_CPU_KERNELS_H
#define ENGINE_CPU_KERNELS_H

#include "engine/file/tile.h"
#include "engine/kv/page.h"
#include "engine/sampler.h"

/* A block of 32 activations: x[i] ~ d * q[i]; s = d * (q[0] + ... + q[31]). The same rounding as
 * ggml's Q8_1 (d = max|x| / 127), with d and s in f32. sum: of q[0 to 15] and of q[16 to 31], for
 * weights that have an offset. A block with a NaN or an infinity in it has a d that is one, so that
 * all its products are. */
struct kernels_q8 {
    float d, s;
    int16_t sum[2];
    int8_t q[32];
};

/* The form of the activations that a product takes. */
enum kernels_form { KERNELS_FORM_F32, KERNELS_FORM_Q8, KERNELS_FORM_BF16, KERNELS_FORM__N };

struct kernels_matmul {
    enum quant type; /* of w */
    const void *w;   /* tiles (engine/file/tile.h) */
    size_t tile_len;
    uint32_t n_rows, n_cols;
    const void *x;      /* (T, n_cols) in the form that form[type] says: float, kernels_q8 blocks,
                         * or bf16, an odd last one followed by a zero */
    size_t x_row_bytes; /* a multiple of 4 */
    uint32_t n_x;       /* T */
    float *y;           /* y[t * y_stride + r] = sum_c w[r][c] * x[t][c] */
    size_t y_stride;    /* in floats */
    uint32_t ahead;     /* of the table: weights that a single activation row calls for before their
                         * turn, in bytes; 0: the CPU's own prefetchers do better alone */
};

#define KERNELS_HEAD_DIM_MAX 256u /* and a multiple of 8 */

/* Attention of some query rows over the keys of one segment, or of some, and one KV head.
 *
 * Row i of q belongs to token t = i / group of the run and sees the first
 * min(n_keys, first_visible + t * stride) keys. Writes the partial result of the segment:
 *
 *     m[i] = max_j s_ij,  l[i] = sum_j exp(s_ij - m[i]),  o[i] = sum_j exp(s_ij - m[i]) v_j
 *
 * with s_ij = q_i . k_j; q is rotated to the segment's base and scaled already. Every row sees at
 * least one key. Elements of the last tiles past n_keys are never used.
 *
 * A joined call is over pages of several segments, whose keys all rows see. A page says how many
 * keys it holds, from its first slot on, and what q is still to be rotated by for them; n_keys and
 * first_visible are 16 a page. */
struct kernels_joined {
    const float *cs; /* as rope takes it */
    uint32_t n_keys; /* 1 to 16 */
};

struct kernels_attn {
    const float *q; /* (n_rows, hd) */
    uint32_t n_rows, group, head_dim;
    uint32_t n_keys, first_visible, stride;
    const uint8_t *pool;                 /* base of the KV arena */
    const uint32_t *pages;               /* page ids */
    const struct kernels_joined *joined; /* (pages) NULL: all of one segment */
    size_t page_bytes, k_off, v_off;     /* tile of page p: pool + pages[p] * page_bytes + k_off */
    size_t next_k_off; /* K of the same pages that probably is wanted next, to be fetched */
    float *m, *l, *o;  /* (n_rows), (n_rows), (n_rows, hd) */
};

/* A product of f32 matrices that lie as their steps say, in floats:
 *
 *     x = sum over k < n_inner of a[i * a_row + k * a_col] * b[t * b_tile + k * b_row + j]
 *
 * goes to c[i * c_row + t * c_tile + j], for i < n_rows, t < n_tiles and j < 16; with `by` 1 or -1
 * it is added to what is there, or taken from it, with 0 it takes its place. */
struct kernels_dense {
    const float *a, *b;
    float *c;
    size_t a_row, a_col, b_tile, b_row, c_tile, c_row;
    uint32_t n_rows, n_tiles, n_inner;
    int by;
};

struct kernels {
    const char *name; /* as kernels_pick takes it */
    uint32_t ahead;   /* for kernels_matmul */

    enum kernels_form form[QUANT__N]; /* what the matmul of this weight type takes */
    /* Rows [r0, r1) of the product; r0 is the first of a tile, r1 the end of one or of the rows. */
    void (*matmul[QUANT__N])(const struct kernels_matmul *a, uint32_t r0, uint32_t r1);
    void (*quantise)(const float *x, uint32_t n, struct kernels_q8 *ret); /* n % 32 == 0 */
    void (*to_bf16)(const float *x, uint32_t n, uint16_t *ret); /* to nearest, ties to even; NULL
                                                                 * when no product takes it */

    /* NaN everywhere when the sum of squares is not finite. */
    void (*rmsnorm)(const float *x, const float *w, uint32_t n, float eps, float *ret);
    void (*add)(float *x, const float *y, uint32_t n);        /* x += y */
    void (*swiglu)(float *gate, const float *up, uint32_t n); /* gate = silu(gate) * up */

    /* Rotates n_heads vectors of hd in place: pair (i, i + hd/2) by the angle whose cosine is
     * cs[i] and whose sine is cs[hd/2 + i]. */
    void (*rope)(float *x, uint32_t n_heads, uint32_t hd, const float *cs);

    /* Puts one token's K and V of one KV head into slot (0 to 15) of its tiles. */
    void (*kv_store[KV__N])(const float *k, const float *v, uint32_t hd, uint32_t slot,
                            void *k_tile, void *v_tile);
    void (*attn[KV__N])(const struct kernels_attn *a);
    /* (m, l, o) += (m2, l2, o2) for one row: both become partial results of the union of keys. */
    void (*attn_merge)(float *m, float *l, float *o, float m2, float l2, const float *o2,
                       uint32_t hd);
    void (*scale)(float *x, uint32_t n, float by);

    void (*dense)(const struct kernels_dense *p);
    /* x (n) becomes exp(x - top), top being the largest of them, which is returned; and their sum:
     * NaN where one is NaN, or top is no number. */
    float (*soften)(float *x, uint32_t n, float *ret_sum);
    void (*widen_f16)(const uint16_t *x, uint32_t n, float *ret);

    /* log(sum exp(x)), for log-probabilities. */
    float (*logsumexp)(const float *x, uint32_t n);

    struct sampler_math sampling;
};

/* The forms of the scalar table, and of all others but for BF16 weights. */
#define KERNELS_FORMS                                                                              \
    [QUANT_Q4_0] = KERNELS_FORM_Q8, [QUANT_Q4_1] = KERNELS_FORM_Q8,                                \
    [QUANT_Q5_0] = KERNELS_FORM_Q8, [QUANT_Q5_1] = KERNELS_FORM_Q8,                                \
    [QUANT_Q8_0] = KERNELS_FORM_Q8, [QUANT_Q4_K] = KERNELS_FORM_Q8,                                \
    [QUANT_Q5_K] = KERNELS_FORM_Q8, [QUANT_Q6_K] = KERNELS_FORM_Q8

extern const struct kernels kernels_scalar, kernels_avx2, kernels_avxvnni, kernels_avx512,
    kernels_avx512bf16;

/* "scalar", "avx2", "avxvnni", "avx512", "avx512bf16" or "auto" (the fastest this CPU has).
 * -EINVAL: no such name; -ENOTSUP: the CPU lacks it; ret_table is written on success. */
int kernels_pick(const char *name, const struct kernels **ret_table);

/* The names of the tables that this CPU has, the widest first; NULL after the last, "scalar". */
const char *kernels_name(unsigned i);

#endif
