/* train/net/base.h - the base model as plain matrices for the trainer's products.
 *
 * The engine's weights (engine/file/model.h) are taken out of their tiles once: bf16 or f32, row by
 * row, q, k and v one below the other, gate and up likewise. A matrix (n_out, n_in) serves y = x
 * W^T and dx = dy W alike.
 *
 * All of it lies where it is computed with (engine/tensors.h), in the process's memory or a
 * device's. It is frozen, or base_train made its weights parameters: then these are f32 beside the
 * matrices, which base_refresh makes of them, and products add derivatives by them. Matrices decay,
 * norms and biases do not.
 *
 * Threads    immutable but for base_train, base_refresh and derivatives: one at a time.
 * Ownership  borrows the model and the optimiser's tensors, owns the matrices.
 * Errors     -ENOMEM.
 */
#ifndef TRAIN_NET_BASE_H
#define TRAIN_NET_BASE_H

#include "engine/file/adapter.h"
#include "engine/file/model.h"
#include "engine/tensors.h"
#include "train/net/optim.h"

#include <stdbool.h>

enum base_matrix {
    BASE_QKV,     /* (n_q + 2 n_kv, n_embd) */
    BASE_O,       /* (n_embd, n_q) */
    BASE_GATE_UP, /* (2 n_ff, n_embd) */
    BASE_DOWN,    /* (n_embd, n_ff) */
    BASE_MATRIX__N
};

struct base_layer {
    void *w[BASE_MATRIX__N]; /* (n_out, n_in) of the base's type */
    const float *bias;       /* (n_q + 2 n_kv); NULL: none */
    const float *attn_norm, *ffn_norm;

    /* NULL: frozen. What w is made of, and where derivatives are added. */
    const float *p[BASE_MATRIX__N];
    float *d[BASE_MATRIX__N], *d_bias, *d_attn_norm, *d_ffn_norm;
};

struct base {
    const struct model *m;
    struct tensors *on;
    enum tensors_type type;
    uint32_t n_q, n_kv, n_qkv; /* widths: heads times head_dim */
    struct base_layer *layers;
    const float *embd; /* (n_vocab, n_embd), f32 */
    void *output;      /* (n_vocab, n_embd) */
    const float *output_norm;
    const float *p_output; /* as of the layers; a tied output's are the embeddings' */
    float *d_embd, *d_output, *d_output_norm;
    struct optim *params; /* that base_train added to */
    float *own_embd;      /* of a frozen one */
    float *own_vectors;   /* norms and biases of all layers, the output's norm */
    float *angles;        /* (max_pos, head_dim): cosines, sines */
    uint32_t max_pos;
    struct tensors *own; /* what base_open opened */
};

/* The widths alone, of a model that may have no data (model_shape): nothing to close. What one that
 * is open takes where it is computed, beside the values that it trains; and how many these are. */
struct base base_shape(const struct model *m, enum tensors_type type, uint32_t max_pos);
size_t base_room(const struct base *b, bool trains);
size_t base_n_values(const struct base *b);

/* on: borrowed; NULL: the CPU, of its own. -ENOMEM, or what `on` says. */
int base_open(struct base *b, struct tensors *on, const struct model *m, enum tensors_type type,
              uint32_t max_pos);
void base_close(struct base *b);

/* All weights become parameters, named base.*, with the values that they have. -ENOMEM, or what
 * the device says. */
int base_train(struct base *b, struct optim *params);
/* After parameters changed. */
void base_refresh(struct base *b);

/* Rows and columns of a matrix, all its values; "qkv". */
uint32_t base_n_out(const struct base *b, enum base_matrix w);
uint32_t base_n_in(const struct base *b, enum base_matrix w);
size_t base_len(const struct base *b, enum base_matrix w);
const char *base_matrix_name(enum base_matrix w);

/* A matrix of the base's type from its f32 values. */
void base_put(const struct base *b, enum base_matrix w, const float *values, void *ret);

/* Of a projection (ADAPTER_Q and so on): the matrix that it is part of, and its first row there. */
enum base_matrix base_part(const struct base *b, unsigned projection, uint32_t *ret_row);

/* A weight of the model as f32, (n_rows, n_cols); a matrix as it is now, for the host. */
void base_weight(const struct model_tensor *w, float *ret);
void base_values(const struct base *b, uint32_t layer, enum base_matrix w, float *ret);
/* The same where it is computed: of a device's in the precision that the base has there. */
void base_values_on(const struct base *b, uint32_t layer, enum base_matrix w, float *ret);

static inline struct tensors_heads base_heads(const struct base *b)
{
    const struct model *m = b->m;

    return (struct tensors_heads){ .n_head = m->n_head,
                                   .n_head_kv = m->n_head_kv,
                                   .head_dim = m->head_dim,
                                   .n_q = b->n_q,
                                   .n_kv = b->n_kv,
                                   .n_qkv = b->n_qkv,
                                   .type = b->type,
                                   .angles = b->angles };
}

static inline const float *base_angle(const struct base *b, uint32_t pos)
{
    return b->angles + (size_t)pos * b->m->head_dim;
}

static inline struct tensors_mat base_mat(const struct base *b, const void *w, uint32_t n_in,
                                          bool t)
{
    return (struct tensors_mat){ w, n_in, b->type, t };
}

#endif
