/* engine/tensors_work.h - what one operation of a training step is given (engine/tensors.h). Plain
 * data, that kernels are given too.
 *
 * Pointers are of the memory where it is computed, but those that are called host: lists, which are
 * read before the call returns. "Typed" values are f32 or bf16, all others f32. (R, n): row by row.
 */
#ifndef ENGINE_TENSORS_WORK_H
#define ENGINE_TENSORS_WORK_H

#include "engine/sight.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TENSORS_TOP_MAX 256u

enum tensors_type { TENSORS_F32, TENSORS_BF16 };

static inline size_t tensors_size(enum tensors_type t)
{
    return t == TENSORS_F32 ? 4 : 2;
}

/* Row by row, a row every ld values; t: it lies transposed. */
struct tensors_mat {
    const void *p;
    uint32_t ld;
    enum tensors_type type;
    bool t;
};

/* C (m, n) = A (m, k) B (k, n), or += with add, then c is f32. a and b are of one type. */
struct tensors_product {
    uint32_t m, n, k;
    struct tensors_mat a, b, c;
    bool add;
};

/* y = x / rms(x) * w. rows (n_rows), host: of x; NULL: 0, 1, ... r (n_rows): 1 / rms; NULL: not
 * wanted. */
struct tensors_norm {
    const float *x, *w;
    const uint32_t *rows;
    uint32_t n_rows, n;
    float eps;
    void *y; /* (n_rows, n) typed */
    enum tensors_type type;
    float *r;
};

/* dx += the derivative by x; dy (n_rows, n) is spoilt. rows, host: of x and dx, each once. */
struct tensors_norm_back {
    const float *x, *w, *r;
    const uint32_t *rows;
    uint32_t n_rows, n;
    float *dy, *dx;
};

/* y (n) += the sum of by[i] d[i] x[rows[i]], value by value, over all rows i: the derivative by a
 * norm's weight, or without x by a bias. by, x: NULL: 1. ld: from a row of d to the next; 0: n.
 * rows, host: of x; NULL: 0, 1, ... */
struct tensors_sum {
    const float *d, *by, *x;
    const uint32_t *rows;
    uint32_t n_rows, n, ld;
    float *y;
};

/* y[i] = table[index[i]], or += with add; SIGHT_NO_ROW leaves a row as it is. index: host. ld,
 * ld_y: values from a row to the next; 0: n. */
struct tensors_take {
    const float *table;
    const uint32_t *index;
    uint32_t n_rows, n;
    bool add;
    float *y;
    uint32_t ld, ld_y;
};

/* table[to[i]] += x[from[i]] for i = 0, 1, ...; to < n_table. to, from: host. */
struct tensors_give {
    const float *x;
    const uint32_t *to, *from;
    uint32_t n_pairs, n_table, n;
    float *table;
};

/* What attention knows of a model. */
struct tensors_heads {
    uint32_t n_head, n_head_kv, head_dim;
    uint32_t n_q, n_kv, n_qkv; /* widths: heads times head_dim */
    enum tensors_type type;
    const float *angles; /* (positions, head_dim): cosines, sines */
    uint32_t block;      /* query rows that meet their keys at once; 0: as it is good */
};

/* The largest of several sights (engine/sight.h), each number by itself. all_keys: of all segments
 * together. */
struct tensors_sizes {
    uint32_t n_rows, n_memory, max_keys, all_keys;
};

/* Of a layer's rows, those of segments [first_segment, end_segment): out = softmax(q k^T /
 * sqrt(hd)) v over what each sees. q, k, v unrotated in qkv (R, n_qkv). */
struct tensors_attend {
    uint32_t first_segment, end_segment;
    const float *qkv;
    void *out;  /* (R, n_q) typed */
    float *lse; /* (R, n_head) */
};

/* dqkv (R, n_qkv): q's are written, k's and v's, also of rows in memory, are added to. Queries of
 * the sight's frozen rows are left out. */
struct tensors_attend_back {
    struct tensors_attend of;
    const void *dout; /* (R, n_q) typed */
    float *dqkv;
};

/* A row of logits: weight * -log softmax(z)[target], and a teacher's part (train/net/head.h). */
struct tensors_ask {
    uint32_t target;
    float weight, teacher_weight;
    const uint32_t *teacher_ids; /* (n_teacher), up to TENSORS_TOP_MAX; NULL: none */
    const float *teacher_p;
};

struct tensors_told {
    double targets, teacher; /* with weights */
    float logp;              /* of the target */
    bool right;              /* the target is the most probable id */
};

/* asks and ret (n_rows) are the host's. dz: gets the derivatives by z, which may be spoilt; NULL:
 * not wanted. */
struct tensors_loss {
    float *z; /* (n_rows, n_vocab) */
    const struct tensors_ask *asks;
    uint32_t n_rows, n_vocab, n_teacher;
    void *dz; /* (n_rows, n_vocab) typed */
    enum tensors_type type;
    struct tensors_told *ret;
};

/* The k most likely ids of each row, most likely first, with their probabilities: (n_rows, k), the
 * host's. z is spoilt. */
struct tensors_top {
    float *z;
    uint32_t n_rows, n_vocab, k;
    uint32_t *ids;
    float *p;
};

/* g is scaled; rate and root have the corrections of the two means in them (train/net/optim.h). */
struct tensors_adamw {
    float *p, *m, *v;
    const float *g;
    size_t n;
    float beta1, beta2, eps, keep, rate, root, scale;
};

#endif
