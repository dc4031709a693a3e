/* cuda/train_kernels.h - kernels of a step of training (engine/tensors.h).
 *
 * Every function queues a kernel on a stream (cudaStream_t) and returns. Pointers are the device's,
 * those of lists too, which engine/tensors_work.h calls the host's. No sum depends on the order of
 * blocks.
 *
 * Threads    who has the stream.
 * Errors     -EIO: the launch was refused.
 */
#ifndef CUDA_TRAIN_KERNELS_H
#define CUDA_TRAIN_KERNELS_H

#include "engine/tensors_work.h"

#ifdef __cplusplus
extern "C" {
#endif

/* --- rows (cuda/train_rows.cu) ---------------------------------------------------------------- */

/* f (n) and t (n) typed: one becomes the other. */
struct k_cast {
    float *f;
    void *t;
    enum tensors_type type;
    size_t n;
};
int k_narrow(void *stream, const struct k_cast *a);
int k_widen(void *stream, const struct k_cast *a);

/* y (n_rows, n) += x (n) */
struct k_add {
    float *y;
    const float *x;
    uint32_t n_rows, n;
};
int k_add(void *stream, const struct k_add *a);

int k_train_norm(void *stream, const struct tensors_norm *a);
int k_norm_back(void *stream, const struct tensors_norm_back *a);

/* gu (n_rows, 2 n); y: of the forward direction's result, or of its derivative. */
struct k_gate {
    void *gu, *y;
    enum tensors_type type;
    uint32_t n_rows, n;
};
int k_gate(void *stream, const struct k_gate *a);
int k_gate_back(void *stream, const struct k_gate *a);

#define K_SPLITS 64u /* pieces of the rows of k_sum_rows */
/* part (K_SPLITS, n): scratch. */
int k_sum_rows(void *stream, const struct tensors_sum *a, float *part);

int k_take(void *stream, const struct tensors_take *a);

/* Row to[i] of the table gets rows from[starts[i]] to from[starts[i + 1]] of x, in that order. */
struct k_give {
    const float *x;
    const uint32_t *to, *starts, *from; /* (n_rows), (n_rows + 1) */
    uint32_t n_rows, n;
    float *table;
};
int k_give(void *stream, const struct k_give *a);

/* --- attention (cuda/train_attn.cu) ----------------------------------------------------------- */

/* A segment's keys: k, v (n_head_kv, n_keys, hd) typed, rotated. */
struct k_train_keys {
    struct tensors_heads heads;
    struct sight_segment segment;
    const struct sight_row *rows;
    const struct sight_key *memory;
    const float *qkv; /* (R, n_qkv) */
    void *k, *v;
};
int k_train_keys(void *stream, const struct k_train_keys *a);

/* Query rows [row, row + n) of all heads against the first n_keys keys of their segment. */
struct k_block {
    struct tensors_heads heads;
    const struct sight_row *rows;
    uint32_t row, n, n_keys, ld; /* ld: values from one row of scores to the next */
    uint32_t n_raw_keys;         /* of memory and raw: where gists begin among the segment's keys */
    uint32_t n_memory;
    const float *qkv; /* (R, n_qkv) */
    void *q;          /* (n_head, n, hd) typed, rotated and scaled */
    float *s, *dp;    /* (n_head, n, ld): scores, derivatives by probabilities */
    void *p, *ds;     /* the same typed: probabilities, derivatives by scores */
    float *x;         /* (n_head, n, hd): outputs, or derivatives by q */
    void *out;        /* (R, n_q) typed */
    float *lse;       /* (R, n_head) */
    const void *dout; /* (R, n_q) typed */
    void *o;          /* (n_head, n, hd) typed: of dout */
    float *dqkv;      /* (R, n_qkv) */
};
int k_train_queries(void *stream, const struct k_block *a);      /* q; with dout o too */
int k_train_softmax(void *stream, const struct k_block *a);      /* s: p, lse */
int k_train_softmax_back(void *stream, const struct k_block *a); /* s, dp, lse, o, out: p, ds */
int k_train_out(void *stream, const struct k_block *a);          /* x: out */
int k_train_dq(void *stream, const struct k_block *a);           /* x: dqkv's q */

/* dqkv += dk, dv (n_head_kv, n_keys, hd) f32, which the keys' k and v have in their places. */
int k_train_dkv(void *stream, const struct k_train_keys *a, float *dqkv);

/* --- losses and parameters (cuda/train_loss.cu) ----------------------------------------------- */

/* asks, ret: the device's, and teachers' lists apart: (n_rows, n_teacher) each. */
struct k_loss {
    struct tensors_loss of;
    const uint32_t *teacher_ids;
    const float *teacher_p;
};
int k_loss(void *stream, const struct k_loss *a);
int k_top(void *stream, const struct tensors_top *a);

#define K_SUMS 512u /* blocks of k_sum_squares */
/* sums (K_SUMS + 1): scratch, and the result in front. */
int k_sum_squares(void *stream, const float *x, size_t n, double *sums);
int k_adamw(void *stream, const struct tensors_adamw *a);

#ifdef __cplusplus
}
#endif
#endif
