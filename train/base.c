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
    const struct model_tensor *qkv[] = { &from->wq, &from->wk, &from->wv }, *o[] = { &from->wo },
                              *gate_up[] = { &from->w_gate, &from->w_up },
                              *down[] = { &from->w_down };

    to->attn_norm = from->attn_norm;
    to->ffn_norm = from->ffn_norm;
    to->qkv = stack(b, qkv, 3);
    to->o = stack(b, o, 1);
    to->gate_up = stack(b, gate_up, 2);
    to->down = stack(b, down, 1);
    if (from->bq) {
        to->bias = malloc(b->n_qkv * sizeof(float));
        if (!to->bias)
            return -ENOMEM;
        memcpy(to->bias, from->bq, b->n_q * sizeof(float));
        memcpy(to->bias + b->n_q, from->bk, b->n_kv * sizeof(float));
        memcpy(to->bias + b->n_q + b->n_kv, from->bv, b->n_kv * sizeof(float));
    }
    return to->qkv && to->o && to->gate_up && to->down ? 0 : -ENOMEM;
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
        free(b->layers[i].qkv);
        free(b->layers[i].o);
        free(b->layers[i].gate_up);
        free(b->layers[i].down);
        free(b->layers[i].bias);
    }
    free(b->layers);
    free(b->embd);
    free(b->output);
    free(b->angles);
    *b = (struct base){ 0 };
}
