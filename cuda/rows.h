/* cuda/rows.h - what is done to the rows of a step one by one: embedding, norms, conversions,
 * biases, rotary positions, keys and values into their pages.
 *
 * Every function queues a kernel on a stream (cudaStream_t) and returns. Pointers are the device's,
 * T rows of f32 are row-major, and what each computes is what its namesake in engine/cpu/layers.c
 * and engine/cpu/kernels.h does.
 *
 * Threads    who has the stream.
 * Errors     -EIO: the launch was refused.
 */
#ifndef CUDA_ROWS_H
#define CUDA_ROWS_H

#include "cuda/pages.h"

#include "engine/file/tile.h"

#ifdef __cplusplus
extern "C" {
#endif

struct plan_piece;
struct plan_row;

/* struct kernels_q8 (engine/cpu/kernels.h), the same bytes. */
struct k_q8 {
    float d, s;
    int16_t sum[2];
    int8_t q[32];
};

/* Other forms of rows that a kernel leaves: what the products after it take. NULL: not wanted. */
struct k_forms {
    struct k_q8 *q8; /* (T, n / 32) */
    uint16_t *bf16;  /* (T, n), to nearest, ties to even */
    uint16_t *low;   /* (T, n): what bf16 leaves over, as bf16. Only beside that */
};

/* x (T, n_embd): a token's row of the table, a gist's own with that added if it has an id, or a
 * soft one (engine/plan.h). */
struct k_embed {
    const struct plan_row *rows;
    const struct plan_piece *pieces;
    const float *const *gists; /* (pieces): the adapter's embeddings (n_gists, n_embd), or NULL */
    const void *tiles;         /* of the table */
    uint32_t type;             /* enum quant */
    size_t tile_len;
    uint32_t n_rows, n_embd;
    float *x;
};
int k_embed(void *stream, const struct k_embed *a);

/* x += add (NULL: nothing); to = rmsnorm(x) * w, NaN where the sum of squares is not finite. */
struct k_norm {
    float *x, *to; /* (T, n) */
    const float *add, *w;
    uint32_t n_rows, n;
    float eps;
    struct k_forms forms; /* of to */
};
int k_norm(void *stream, const struct k_norm *a);

struct k_convert {
    const float *x; /* (T, n) */
    uint32_t n_rows, n;
    struct k_forms forms;
};
int k_convert(void *stream, const struct k_convert *a);

/* The input of the output matrix twice, as quantise_fine_rows does: row t of x becomes rows 2 t and
 * 2 t + 1 of q8, 8 bits and what those leave over. */
struct k_fine {
    const float *x; /* (T, n) */
    uint32_t n_rows, n;
    struct k_q8 *q8; /* (2 T, n / 32) */
};
int k_fine(void *stream, const struct k_fine *a);

/* to (T, n): rows 2 t and 2 t + 1 of x (2 T, n) added. */
struct k_fold {
    const float *x;
    uint32_t n_rows, n;
    float *to;
};
int k_fold(void *stream, const struct k_fold *a);

/* gate = silu(gate) * up */
struct k_swiglu {
    float *gate;     /* (T, n) */
    const float *up; /* (T, n) */
    uint32_t n_rows, n;
    struct k_forms forms; /* of gate */
};
int k_swiglu(void *stream, const struct k_swiglu *a);

/* Biases; NULL: none. */
struct k_bias {
    const float *q, *k, *v;
};

/* As place_rows: biases (of gists their adapter's, where it has one, else the model's), q turned by
 * q_off and scaled, k by k_off, K and V into their pages; a side piece's k turned on to q_off. */
struct k_place {
    const struct plan_row *rows;
    const struct plan_piece *pieces;
    struct k_bias bias;
    const struct k_bias *own; /* (pieces), of this layer; NULL: no piece has an adapter */
    struct k_pool pool;
    struct k_angles angles;
    uint32_t layer, n_rows, n_head;
    float *q;     /* (T, n_head, hd) */
    float *k, *v; /* (T, n_head_kv, hd) */
};
int k_place(void *stream, const struct k_place *a);

/* Rows of x (., n) that are wanted move to the front, those of y (., m) too. out_rows ascend. */
struct k_keep {
    const uint32_t *out_rows;
    uint32_t n_out;
    float *x, *y;
    uint32_t n, m;
    float *spare; /* (n_out, n + m): rows that move must not be overwritten before they are read */
};
int k_keep(void *stream, const struct k_keep *a);

/* log p(ids[i]) of row i of logits (n, n_vocab), NaN where one of the row's is no number. */
struct k_logprobs {
    const float *logits;
    const uint32_t *ids;
    uint32_t n, n_vocab;
    float *to; /* (n) */
};
int k_logprobs(void *stream, const struct k_logprobs *a);

/* The smallest index among the largest of each row; NaN is never the largest, 0 where all are. */
struct k_argmax {
    const float *logits; /* (n, n_vocab) */
    uint32_t n, n_vocab;
    uint32_t *to; /* (n) */
};
int k_argmax(void *stream, const struct k_argmax *a);

#ifdef __cplusplus
}
#endif
#endif
