#include "train/net/base.h"

#include "engine/file/tile.h"
#include "train/net/vec.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN 64u

void base_weight(const struct model_tensor *w, float *ret)
{
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < w->n_rows; i++)
        tile_dequantise_row(w->type, w->data, i, w->n_cols, ret + (size_t)i * w->n_cols);
}

uint32_t base_n_out(const struct base *b, enum base_matrix w)
{
    const uint32_t n[BASE_MATRIX__N] = { b->n_qkv, b->m->n_embd, 2 * b->m->n_ff, b->m->n_embd };

    return n[w];
}

uint32_t base_n_in(const struct base *b, enum base_matrix w)
{
    const uint32_t n[BASE_MATRIX__N] = { b->m->n_embd, b->n_q, b->m->n_embd, b->m->n_ff };

    return n[w];
}

size_t base_len(const struct base *b, enum base_matrix w)
{
    return (size_t)base_n_out(b, w) * base_n_in(b, w);
}

const char *base_matrix_name(enum base_matrix w)
{
    static const char *const names[BASE_MATRIX__N] = {
        [BASE_QKV] = "qkv", [BASE_O] = "o", [BASE_GATE_UP] = "gate_up", [BASE_DOWN] = "down"
    };

    return names[w];
}

static void put_values(const struct base *b, const float *values, size_t n_rows, size_t n_cols,
                       void *ret)
{
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < n_rows; r++)
        vec_put(b->type, (uint8_t *)ret + r * n_cols * gemm_size(b->type), values + r * n_cols,
                n_cols);
}

void base_put(const struct base *b, enum base_matrix w, const float *values, void *ret)
{
    put_values(b, values, base_n_out(b, w), base_n_in(b, w), ret);
}

enum base_matrix base_part(const struct base *b, unsigned projection, uint32_t *ret_row)
{
    static const enum base_matrix matrices[ADAPTER_PROJECTION__N] = {
        BASE_QKV, BASE_QKV, BASE_QKV, BASE_O, BASE_GATE_UP, BASE_GATE_UP, BASE_DOWN
    };
    const uint32_t rows[ADAPTER_PROJECTION__N] = {
        0, b->n_q, b->n_q + b->n_kv, 0, 0, b->m->n_ff, 0
    };

    *ret_row = rows[projection];
    return matrices[projection];
}

/* The weights of a layer in the order of ADAPTER_Q, ... */
static void list_weights(const struct model_layer *l,
                         const struct model_tensor *ret[ADAPTER_PROJECTION__N])
{
    const struct model_tensor *all[ADAPTER_PROJECTION__N] = { &l->wq,    &l->wk,     &l->wv,
                                                              &l->wo,    &l->w_gate, &l->w_up,
                                                              &l->w_down };

    memcpy(ret, all, sizeof(all));
}

void base_values(const struct base *b, uint32_t layer, enum base_matrix w, float *ret)
{
    const struct model_tensor *all[ADAPTER_PROJECTION__N];
    const float *p = b->layers[layer].p[w];
    uint32_t row;

    list_weights(&b->m->layers[layer], all);
    if (p)
        memcpy(ret, p, base_len(b, w) * sizeof(*ret));
    for (unsigned i = 0; !p && i < ADAPTER_PROJECTION__N; i++)
        if (base_part(b, i, &row) == w)
            base_weight(all[i], ret + (size_t)row * base_n_in(b, w));
}

static void *new_matrix(const struct base *b, size_t n_rows, size_t n_cols)
{
    return aligned_alloc(ALIGN, (n_rows * n_cols * gemm_size(b->type) + ALIGN - 1) / ALIGN * ALIGN);
}

static bool put_rows(const struct base *b, const struct model_tensor *w, uint8_t *to)
{
    size_t row_bytes = w->n_cols * gemm_size(b->type);
    bool ok = true;

#pragma omp parallel reduction(&& : ok)
    {
        float *row = malloc(w->n_cols * sizeof(*row));

        ok = row;
#pragma omp for schedule(static)
        for (uint32_t r = 0; r < w->n_rows; r++) {
            if (!row)
                continue;
            tile_dequantise_row(w->type, w->data, r, w->n_cols, row);
            vec_put(b->type, to + r * row_bytes, row, w->n_cols);
        }
        free(row);
    }
    return ok;
}

/* Up to three weights one below the other; NULL: no memory. */
static void *stack(const struct base *b, const struct model_tensor *const *w, uint32_t n)
{
    size_t n_rows = 0, at = 0;
    uint8_t *ret;

    for (uint32_t i = 0; i < n; i++)
        n_rows += w[i]->n_rows;
    ret = new_matrix(b, n_rows, w[0]->n_cols);
    for (uint32_t i = 0; ret && i < n; i++) {
        if (!put_rows(b, w[i], ret + at)) {
            free(ret);
            return NULL;
        }
        at += w[i]->n_rows * w[i]->n_cols * gemm_size(b->type);
    }
    return ret;
}

/* bias: room for it. */
static int take_layer(struct base *b, const struct model_layer *from, float *bias,
                      struct base_layer *to)
{
    const struct model_tensor *w[ADAPTER_PROJECTION__N];

    list_weights(from, w);
    to->attn_norm = from->attn_norm;
    to->ffn_norm = from->ffn_norm;
    to->w[BASE_QKV] = stack(b, &w[ADAPTER_Q], 3);
    to->w[BASE_O] = stack(b, &w[ADAPTER_O], 1);
    to->w[BASE_GATE_UP] = stack(b, &w[ADAPTER_GATE], 2);
    to->w[BASE_DOWN] = stack(b, &w[ADAPTER_DOWN], 1);
    if (from->bq) {
        memcpy(bias, from->bq, b->n_q * sizeof(float));
        memcpy(bias + b->n_q, from->bk, b->n_kv * sizeof(float));
        memcpy(bias + b->n_q + b->n_kv, from->bv, b->n_kv * sizeof(float));
        to->bias = bias;
    }
    for (enum base_matrix i = 0; i < BASE_MATRIX__N; i++)
        if (!to->w[i])
            return -ENOMEM;
    return 0;
}

static void fill_angles(struct base *b)
{
    uint32_t half = b->m->head_dim / 2;

    for (uint32_t pos = 0; pos < b->max_pos; pos++)
        for (uint32_t i = 0; i < half; i++) {
            double a = (double)pos * b->m->rope_freq[i];

            b->angles[(size_t)pos * 2 * half + i] = (float)cos(a);
            b->angles[(size_t)pos * 2 * half + half + i] = (float)sin(a);
        }
}

int base_open(struct base *b, const struct model *m, enum gemm_type type, uint32_t max_pos)
{
    const struct model_tensor *output[] = { &m->output };
    int r = 0;

    *b = (struct base){ .m = m, .type = type, .max_pos = max_pos };
    b->n_q = m->n_head * m->head_dim;
    b->n_kv = m->n_head_kv * m->head_dim;
    b->n_qkv = b->n_q + 2 * b->n_kv;
    b->layers = calloc(m->n_layer, sizeof(*b->layers));
    b->embd = b->own_embd = malloc((size_t)m->n_vocab * m->n_embd * sizeof(float));
    b->own_biases = malloc((size_t)m->n_layer * b->n_qkv * sizeof(float));
    b->output_norm = m->output_norm;
    b->output = stack(b, output, 1);
    b->angles = malloc((size_t)max_pos * m->head_dim * sizeof(float));
    if (!b->layers || !b->embd || !b->own_biases || !b->output || !b->angles)
        r = -ENOMEM;
    for (uint32_t i = 0; r == 0 && i < m->n_layer; i++)
        r = take_layer(b, &m->layers[i], b->own_biases + (size_t)i * b->n_qkv, &b->layers[i]);
    if (r < 0) {
        base_close(b);
        return r;
    }
    base_weight(&m->embd, b->own_embd);
    fill_angles(b);
    return 0;
}

void base_close(struct base *b)
{
    for (uint32_t i = 0; b->layers && i < b->m->n_layer; i++)
        for (enum base_matrix w = 0; w < BASE_MATRIX__N; w++)
            free(b->layers[i].w[w]);
    free(b->layers);
    free(b->own_embd);
    free(b->own_biases);
    free(b->output);
    free(b->angles);
    *b = (struct base){ 0 };
}

/* --- trained ---------------------------------------------------------------------------------- */

/* A parameter of these values, or NULL. */
static struct optim_tensor *add_param(struct optim *params, const char *name, const float *values,
                                      size_t n, bool decays)
{
    int at = optim_add(params, name, n, decays);

    if (at < 0)
        return NULL;
    if (values)
        memcpy(params->t[at].p, values, n * sizeof(*values));
    return &params->t[at];
}

/* *p becomes the parameter of its values; NULL: there is none. */
static bool train_vector(struct optim *params, const char *name, const float **p, size_t n,
                         bool decays, float **ret_d)
{
    struct optim_tensor *t;

    if (!*p)
        return true;
    t = add_param(params, name, *p, n, decays);
    if (!t)
        return false;
    *p = t->p;
    *ret_d = t->g;
    return true;
}

static bool train_matrix(struct base *b, struct optim *params, const char *name, uint32_t layer,
                         enum base_matrix w)
{
    struct optim_tensor *t = add_param(params, name, NULL, base_len(b, w), true);

    if (!t)
        return false;
    base_values(b, layer, w, t->p);
    b->layers[layer].p[w] = t->p;
    b->layers[layer].d[w] = t->g;
    return true;
}

static bool train_layer(struct base *b, struct optim *params, uint32_t layer)
{
    struct base_layer *l = &b->layers[layer];
    const struct {
        const char *name;
        const float **p;
        float **d;
        size_t n;
    } vectors[] = { { "bias", &l->bias, &l->d_bias, b->n_qkv },
                    { "attn_norm", &l->attn_norm, &l->d_attn_norm, b->m->n_embd },
                    { "ffn_norm", &l->ffn_norm, &l->d_ffn_norm, b->m->n_embd } };
    char name[OPTIM_NAME_MAX + 1];

    for (enum base_matrix w = 0; w < BASE_MATRIX__N; w++) {
        snprintf(name, sizeof(name), "base.layers.%u.%s", layer, base_matrix_name(w));
        if (!train_matrix(b, params, name, layer, w))
            return false;
    }
    for (size_t i = 0; i < sizeof(vectors) / sizeof(*vectors); i++) {
        snprintf(name, sizeof(name), "base.layers.%u.%s", layer, vectors[i].name);
        if (!train_vector(params, name, vectors[i].p, vectors[i].n, false, vectors[i].d))
            return false;
    }
    return true;
}

static bool train_output(struct base *b, struct optim *params)
{
    const struct model *m = b->m;
    struct optim_tensor *t;

    b->p_output = b->embd;
    b->d_output = b->d_embd;
    if (m->output.data == m->embd.data)
        return true;
    t = add_param(params, "base.output", NULL, (size_t)m->n_vocab * m->n_embd, true);
    if (!t)
        return false;
    base_weight(&m->output, t->p);
    b->p_output = t->p;
    b->d_output = t->g;
    return true;
}

int base_train(struct base *b, struct optim *params)
{
    const struct model *m = b->m;

    for (uint32_t i = 0; i < m->n_layer; i++)
        if (!train_layer(b, params, i))
            return -ENOMEM;
    if (!train_vector(params, "base.embd", &b->embd, (size_t)m->n_vocab * m->n_embd, true,
                      &b->d_embd) ||
        !train_vector(params, "base.output_norm", &b->output_norm, m->n_embd, false,
                      &b->d_output_norm) ||
        !train_output(b, params))
        return -ENOMEM;
    free(b->own_embd);
    b->own_embd = NULL;
    return 0;
}

void base_refresh(struct base *b)
{
    for (uint32_t i = 0; b->p_output && i < b->m->n_layer; i++)
        for (enum base_matrix w = 0; w < BASE_MATRIX__N; w++)
            base_put(b, w, b->layers[i].p[w], b->layers[i].w[w]);
    if (b->p_output)
        put_values(b, b->p_output, b->m->n_vocab, b->m->n_embd, b->output);
}
