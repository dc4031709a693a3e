/* engine/cpu/rows.h - what the forward pass does to single rows, by slices of rows, and what it
 * does it in.
 *
 * For engine/cpu/layers.c, which runs products and attention between these jobs.
 *
 * Threads    rows_run: the owner of the workers. The others: any worker, on rows or columns of its
 *            own.
 */
#ifndef ENGINE_CPU_ROWS_H
#define ENGINE_CPU_ROWS_H

#include "engine/cpu/layers.h"

/* The forward pass's own, see engine/cpu/layers.h. */
struct layers {
    const struct model *m;
    const struct kernels *k;
    struct workers *w;
    struct rotary rotary;
    struct attend *attend;
    uint32_t max_batch;

    struct model_layer moved; /* of a streamed model: the layer that is here now */
    const struct plan *plan;  /* of the step that runs, or was the last: T rows */
    uint32_t n_out;           /* rows of out */

    /* Scratch, max_batch rows each. */
    void *mem;
    size_t mem_len;
    float *x;                     /* (T, n_embd) the residual stream */
    float *xn;                    /* (T, n_embd) normed */
    float *y;                     /* (T, n_embd) what is added to x next */
    float *q, *att;               /* (T, n_head * head_dim) */
    float *kk, *vv;               /* (T, n_head_kv * head_dim) */
    float *gate, *up;             /* (T, n_ff) */
    float *out;                   /* (T, n_embd) normed outputs, kept until the next step */
    void *forms[KERNELS_FORM__N]; /* (T, widest) the input of the next matmul in other forms */
    void *few[KERNELS_FORM__N];   /* (LINEAR_MANY - 1, n_ff) made while those are read */
    float *head;                  /* (2 HEAD_ROWS, n_vocab), see engine/cpu/head.h */
    float *logits; /* (HEAD_ROWS, n_vocab) of which only log-probabilities are wanted */
};

/* What a job looks at, of it and of the step. */
struct rows {
    struct layers *f;
    uint32_t n_rows;
    const struct model_layer *layer;
    uint32_t layer_index;
    const float *add, *norm; /* rows_norm */
    float *to;
    unsigned forms;    /* that the next matmul wants beside f32 */
    const float *from; /* rows_convert */
    uint32_t n_cols;
};

/* Rows [row0, row1). */
typedef void rows_fn(const struct rows *r, uint32_t row0, uint32_t row1);

/* Has fn done for all of r->n_rows. */
void rows_run(const struct rows *r, rows_fn *fn);

rows_fn rows_embed;   /* x, of a model whose embedding stays */
rows_fn rows_norm;    /* x += add (if any); to = norm(x) * norm; and in r->forms */
rows_fn rows_place;   /* biases and rotary, and K and V into their pages */
rows_fn rows_convert; /* from (n_cols) in r->forms: the input of a product that no norm is before */
rows_fn rows_swiglu;  /* gate = silu(gate) * up, and in r->forms */

/* Row t alone. tile: the one that its token's embedding is in; NULL: where the model has it. */
void rows_embed_one(const struct layers *f, uint32_t t, const void *tile);

/* Of a struct rows, for jobs that are told of parts as they are made: what attention has made of a
 * KV head's queries, converted (struct attend_then); columns [c0, c1) of gate and up in all rows,
 * made into f->few (struct linear_then). */
void rows_convert_heads(void *arg, uint32_t row, uint32_t c0, uint32_t c1);
void rows_swiglu_columns(void *arg, uint32_t c0, uint32_t c1);

#endif
