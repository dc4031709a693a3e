#include "train/base.h"

#include "engine/tile.h"
#include "train/vec.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
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

void base_projection(const struct base *b, uint32_t layer, unsigned projection, float *ret)
{
    const struct model_tensor *w[ADAPTER_PROJECTION__N];

    list_weights(&b->m->layers[layer], w);
    base_weight(w[projection], ret);
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

static int take_layer(struct base *b, const struct model_layer *from, struct base_layer *to)
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
        to->bias = malloc(b->n_qkv * sizeof(float));
        if (!to->bias)
            return -ENOMEM;
        memcpy(to->bias, from->bq, b->n_q * sizeof(float));
        memcpy(to->bias + b->n_q, from->bk, b->n_kv * sizeof(float));
        memcpy(to->bias + b->n_q + b->n_kv, from->bv, b->n_kv * sizeof(float));
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
    b->embd = malloc((size_t)m->n_vocab * m->n_embd * sizeof(float));
    b->output = stack(b, output, 1);
    b->angles = malloc((size_t)max_pos * m->head_dim * sizeof(float));
    if (!b->layers || !b->embd || !b->output || !b->angles)
        r = -ENOMEM;
    for (uint32_t i = 0; r == 0 && i < m->n_layer; i++)
        r = take_layer(b, &m->layers[i], &b->layers[i]);
    if (r < 0) {
        base_close(b);
        return r;
    }
    base_weight(&m->embd, b->embd);
    fill_angles(b);
    return 0;
}

void base_close(struct base *b)
{
    for (uint32_t i = 0; b->layers && i < b->m->n_layer; i++) {
        for (enum base_matrix w = 0; w < BASE_MATRIX__N; w++)
            free(b->layers[i].w[w]);
        free(b->layers[i].bias);
    }
    free(b->layers);
    free(b->embd);
    free(b->output);
    free(b->angles);
    *b = (struct base){ 0 };
}
