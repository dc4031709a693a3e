/* train/net/base.c - the model's weights in the form that training multiplies with: stacked, in the
 * run's type, where it is computed; and, when they train themselves, as parameters in f32 beside
 * that form.
 */
#include "train/net/base.h"

#include "engine/file/tile.h"
#include "train/net/tensors_cpu.h"
#include "train/net/vec.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN 64u

/* ret (n_rows, n_cols), the host's. */
void base_weight(const struct model_tensor *w, float *ret)
{
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < w->n_rows; i++)
        tile_dequantise_row(w->type, w->data, i, w->n_cols, ret + (size_t)i * w->n_cols);
}

/* Rows of each, as they are stacked: q, k, v; o; gate, up; down. */
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

/* In checkpoints: they never change. */
const char *base_matrix_name(enum base_matrix w)
{
    static const char *const names[BASE_MATRIX__N] = {
        [BASE_QKV] = "qkv", [BASE_O] = "o", [BASE_GATE_UP] = "gate_up", [BASE_DOWN] = "down"
    };

    return names[w];
}

static void put_values(const struct base *b, const float *values, size_t n, void *ret)
{
    b->on->ops->narrow(b->on, b->type, ret, values, n);
}

/* values, ret: where it is computed. */
void base_put(const struct base *b, enum base_matrix w, const float *values, void *ret)
{
    put_values(b, values, base_len(b, w), ret);
}

/* Which matrix has a projection, and from which row on. */
enum base_matrix base_part(const struct base *b, unsigned projection, uint32_t *ret_row)
{
    /* Q, K, V, O, gate, up, down, as ADAPTER_Q ... count them. */
    static const enum base_matrix matrices[ADAPTER_PROJECTION__N] = {
        BASE_QKV, BASE_QKV, BASE_QKV, BASE_O, BASE_GATE_UP, BASE_GATE_UP, BASE_DOWN
    };
    const uint32_t rows[ADAPTER_PROJECTION__N] = {
        0, b->n_q, b->n_q + b->n_kv, 0, 0, b->m->n_ff, 0
    };

    *ret_row = rows[projection];
    return matrices[projection];
}

/* ret: the host's. Of parameters as they are where they are computed. */
void base_values(const struct base *b, uint32_t layer, enum base_matrix w, float *ret)
{
    const float *p = b->layers[layer].p[w];
    uint32_t row;

    if (p)
        b->on->ops->get(b->on, ret, p, base_len(b, w) * sizeof(*ret));
    /* Of a matrix that does not train: projection by projection, from the file. */
    for (unsigned i = 0; !p && i < ADAPTER_PROJECTION__N; i++)
        if (base_part(b, i, &row) == w)
            base_weight(adapter_projection_weight(&b->m->layers[layer], i),
                        ret + (size_t)row * base_n_in(b, w));
}

/* ret: where it is computed. From the narrowed copy there, since the file's values would have to be
 * sent for each. */
void base_values_on(const struct base *b, uint32_t layer, enum base_matrix w, float *ret)
{
    const float *p = b->layers[layer].p[w];

    if (p)
        b->on->ops->copy(b->on, ret, p, base_len(b, w) * sizeof(*ret));
    else if (b->on->ops->host)
        base_values(b, layer, w, ret);
    else
        b->on->ops->widen(b->on, b->type, ret, b->layers[layer].w[w], base_len(b, w));
}

/* Whole cache lines, the process's. */
static void *new_bytes(size_t n)
{
    return aligned_alloc(ALIGN, (n + ALIGN - 1) / ALIGN * ALIGN);
}

/* What the host made (NULL: it could not) goes where it is computed with. made is the caller's no
 * more: one copy of a matrix at a time is on both sides. */
static void *settle(const struct base *b, void *made, size_t n)
{
    void *p = made;

    if (b->on->ops->host || !made)
        return made;
    p = b->on->ops->alloc(b->on, n);
    if (p)
        b->on->ops->put(b->on, p, made, n);
    free(made);
    return p;
}

/* Row by row, so that no f32 copy of the whole is ever there. A thread without memory leaves its
 * rows out, and the result says so. to: (n_rows, n_cols) typed. */
static bool put_rows(const struct base *b, const struct model_tensor *w, uint8_t *to)
{
    size_t row_bytes = w->n_cols * tensors_size(b->type);
    bool ok = true;

#pragma omp parallel reduction(&& : ok)
    {
        float *row = malloc(w->n_cols * sizeof(*row));

        /* A thread's own; the reduction is true if all are. */
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

/* Up to three weights one below the other; NULL: no memory. One product makes q, k and v then, and
 * one gate and up. */
static void *stack(const struct base *b, const struct model_tensor *const *w, uint32_t n)
{
    size_t n_rows = 0, at = 0, len;
    uint8_t *ret;

    for (uint32_t i = 0; i < n; i++)
        n_rows += w[i]->n_rows;
    len = n_rows * w[0]->n_cols * tensors_size(b->type);
    ret = new_bytes(len);
    for (uint32_t i = 0; ret && i < n; i++) {
        if (!put_rows(b, w[i], ret + at)) {
            free(ret);
            return NULL;
        }
        at += w[i]->n_rows * w[i]->n_cols * tensors_size(b->type);
    }
    return settle(b, ret, len);
}

static int take_layer(struct base *b, const struct model_layer *from, struct base_layer *to)
{
    const struct model_tensor *w[ADAPTER_PROJECTION__N];

    for (unsigned i = 0; i < ADAPTER_PROJECTION__N; i++)
        w[i] = adapter_projection_weight(from, i);
    /* All four, then a look: base_close gives back those that are there. */
    to->w[BASE_QKV] = stack(b, &w[ADAPTER_Q], 3);
    to->w[BASE_O] = stack(b, &w[ADAPTER_O], 1);
    to->w[BASE_GATE_UP] = stack(b, &w[ADAPTER_GATE], 2);
    to->w[BASE_DOWN] = stack(b, &w[ADAPTER_DOWN], 1);
    for (enum base_matrix i = 0; i < BASE_MATRIX__N; i++)
        if (!to->w[i])
            return -ENOMEM;
    return 0;
}

/* Of a layer: norms, biases if it has any. Room for biases is there in any case. */
static size_t vectors_len(const struct base *b)
{
    return 2 * (size_t)b->m->n_embd + b->n_qkv;
}

static void copy_vectors(const struct base *b, const struct model_layer *from, float *to)
{
    size_t n_embd = b->m->n_embd;

    memcpy(to, from->attn_norm, n_embd * sizeof(float));
    memcpy(to + n_embd, from->ffn_norm, n_embd * sizeof(float));
    to += 2 * n_embd;
    /* Zeros are never added: base_layer.bias stays NULL then. */
    if (!from->bq) {
        memset(to, 0, b->n_qkv * sizeof(float));
        return;
    }
    /* In the order of qkv's rows. */
    memcpy(to, from->bq, b->n_q * sizeof(float));
    memcpy(to + b->n_q, from->bk, b->n_kv * sizeof(float));
    memcpy(to + b->n_q + b->n_kv, from->bv, b->n_kv * sizeof(float));
}

/* All in one piece, as a device gives memory in pages. */
static int take_vectors(struct base *b)
{
    const struct model *m = b->m;
    size_t each = vectors_len(b), n = m->n_layer * each + m->n_embd;
    float *v = new_bytes(n * sizeof(*v));

    for (uint32_t i = 0; v && i < m->n_layer; i++)
        copy_vectors(b, &m->layers[i], v + i * each);
    if (v)
        memcpy(v + m->n_layer * each, m->output_norm, m->n_embd * sizeof(*v));
    v = b->own_vectors = settle(b, v, n * sizeof(*v));
    if (!v)
        return -ENOMEM;
    for (uint32_t i = 0; i < m->n_layer; i++) {
        b->layers[i].attn_norm = v + i * each;
        b->layers[i].ffn_norm = v + i * each + m->n_embd;
        if (m->layers[i].bq)
            b->layers[i].bias = v + i * each + 2 * (size_t)m->n_embd;
    }
    b->output_norm = v + m->n_layer * each;
    return 0;
}

/* f32: rows are looked up, and added to the residual. */
static int take_embd(struct base *b)
{
    size_t n = (size_t)b->m->n_vocab * b->m->n_embd * sizeof(float);
    float *e = new_bytes(n);

    if (e)
        base_weight(&b->m->embd, e);
    /* embd is what is read, own_embd what is given back: base_train parts the two. */
    b->embd = b->own_embd = settle(b, e, n);
    return b->embd ? 0 : -ENOMEM;
}

/* (max_pos, head_dim): cosines, then sines. In double, as a position times a frequency is large. */
static int take_angles(struct base *b)
{
    uint32_t half = b->m->head_dim / 2;
    size_t n = (size_t)b->max_pos * b->m->head_dim * sizeof(float);
    float *angles = new_bytes(n);

    for (uint32_t pos = 0; angles && pos < b->max_pos; pos++)
        for (uint32_t i = 0; i < half; i++) {
            double a = (double)pos * b->m->rope_freq[i];

            angles[(size_t)pos * 2 * half + i] = (float)cos(a);
            angles[(size_t)pos * 2 * half + half + i] = (float)sin(a);
        }
    b->angles = settle(b, angles, n);
    return b->angles ? 0 : -ENOMEM;
}

static int take_all(struct base *b)
{
    const struct model *m = b->m;
    const struct model_tensor *output[] = { &m->output };
    int r;

    b->layers = calloc(m->n_layer, sizeof(*b->layers));
    if (!b->layers)
        return -ENOMEM;
    b->output = stack(b, output, 1);
    r = b->output ? take_vectors(b) : -ENOMEM;
    if (r == 0)
        r = take_embd(b);
    if (r == 0)
        r = take_angles(b);
    for (uint32_t i = 0; r == 0 && i < m->n_layer; i++)
        r = take_layer(b, &m->layers[i], &b->layers[i]);
    /* What was put may not have arrived. */
    return r == 0 ? b->on->ops->error(b->on) : r;
}

/* No memory and no device: what others ask of sizes needs no more. */
struct base base_shape(const struct model *m, enum tensors_type type, uint32_t max_pos)
{
    uint32_t n_q = m->n_head * m->head_dim, n_kv = m->n_head_kv * m->head_dim;

    return (struct base){
        .m = m, .type = type, .n_q = n_q, .n_kv = n_kv, .n_qkv = n_q + 2 * n_kv, .max_pos = max_pos
    };
}

/* Values of all layers. */
static size_t matrices_len(const struct base *b)
{
    size_t n = 0;

    for (enum base_matrix w = 0; w < BASE_MATRIX__N; w++)
        n += base_len(b, w);
    return b->m->n_layer * n;
}

/* A base that trains has its embeddings and vectors as parameters, which are counted apart. */
size_t base_room(const struct base *b, bool trains)
{
    const struct model *m = b->m;
    size_t n_embds = (size_t)m->n_vocab * m->n_embd,
           n_vectors = m->n_layer * vectors_len(b) + m->n_embd;

    return (matrices_len(b) + n_embds) * tensors_size(b->type) +
           ((trains ? 0 : n_embds) + n_vectors + (size_t)b->max_pos * m->head_dim) * sizeof(float);
}

size_t base_n_values(const struct base *b)
{
    const struct model *m = b->m;
    /* The file has no output matrix of its own. */
    bool tied = m->packed.extents[PACKED_OUTPUT].len == 0;
    size_t n_vectors = 2 * (size_t)m->n_embd + (m->arch == MODEL_QWEN2 ? b->n_qkv : 0);

    return matrices_len(b) + (tied ? 1 : 2) * (size_t)m->n_vocab * m->n_embd +
           m->n_layer * n_vectors + m->n_embd;
}

int base_open(struct base *b, struct tensors *on, const struct model *m, enum tensors_type type,
              uint32_t max_pos)
{
    int r = 0;

    *b = base_shape(m, type, max_pos);
    b->on = on;
    /* The CPU's table, for this base alone. */
    if (!on)
        r = tensors_cpu.open(0, &b->own, NULL);
    if (!on && r == 0)
        b->on = b->own;
    if (r == 0)
        r = take_all(b);
    if (r < 0)
        base_close(b);
    return r;
}

static void give_back(const struct base *b, void *p)
{
    if (p)
        b->on->ops->free(b->on, p);
}

void base_close(struct base *b)
{
    for (uint32_t i = 0; b->layers && i < b->m->n_layer; i++)
        for (enum base_matrix w = 0; w < BASE_MATRIX__N; w++)
            give_back(b, b->layers[i].w[w]);
    free(b->layers);
    give_back(b, b->own_embd);
    give_back(b, b->own_vectors);
    give_back(b, b->output);
    give_back(b, b->angles);
    if (b->own)
        b->own->ops->close(b->own);
    *b = (struct base){ 0 };
}

/* --- trained ---------------------------------------------------------------------------------- */

/* NULL: no memory. */
static struct optim_tensor *add_param(struct base *b, const char *name, size_t n, bool decays)
{
    int at = optim_add(b->params, name, n, decays);

    return at < 0 ? NULL : &b->params->t[at];
}

/* *p becomes the parameter of its values; NULL: there is none. The parameter is read from now on;
 * what it was read from is given back by whoever owns it. */
static bool train_vector(struct base *b, const char *name, const float **p, size_t n, bool decays,
                         float **ret_d)
{
    struct optim_tensor *t;

    if (!*p)
        return true;
    t = add_param(b, name, n, decays);
    if (!t)
        return false;
    /* The host's copy; optim_put takes it to the parameter with all others. */
    b->on->ops->get(b->on, t->p, *p, n * sizeof(**p));
    *p = t->p_on;
    *ret_d = t->g;
    return true;
}

/* w stays: products take its narrowed values, which base_refresh makes of the parameter. */
static bool train_matrix(struct base *b, const char *name, uint32_t layer, enum base_matrix w)
{
    struct optim_tensor *t = add_param(b, name, base_len(b, w), true);

    if (!t)
        return false;
    base_values(b, layer, w, t->p);
    b->layers[layer].p[w] = t->p_on;
    b->layers[layer].d[w] = t->g;
    return true;
}

static bool train_layer(struct base *b, uint32_t layer)
{
    struct base_layer *l = &b->layers[layer];
    /* A model without biases has NULL there, and no parameter. */
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
        if (!train_matrix(b, name, layer, w))
            return false;
    }
    for (size_t i = 0; i < sizeof(vectors) / sizeof(*vectors); i++) {
        snprintf(name, sizeof(name), "base.layers.%u.%s", layer, vectors[i].name);
        /* Neither biases nor norms decay. */
        if (!train_vector(b, name, vectors[i].p, vectors[i].n, false, vectors[i].d))
            return false;
    }
    return true;
}

static bool train_output(struct base *b)
{
    const struct model *m = b->m;
    struct optim_tensor *t;

    /* A tied output is the embedding: both add to one gradient. */
    b->p_output = b->embd;
    b->d_output = b->d_embd;
    /* Tied. */
    if (m->output.data == m->embd.data)
        return true;
    t = add_param(b, "base.output", (size_t)m->n_vocab * m->n_embd, true);
    if (!t)
        return false;
    base_weight(&m->output, t->p);
    b->p_output = t->p_on;
    b->d_output = t->g;
    return true;
}

int base_train(struct base *b, struct optim *params)
{
    const struct model *m = b->m;
    uint32_t first = params->n;

    b->params = params;
    for (uint32_t i = 0; i < m->n_layer; i++)
        if (!train_layer(b, i))
            return -ENOMEM;
    if (!train_vector(b, "base.embd", &b->embd, (size_t)m->n_vocab * m->n_embd, true, &b->d_embd) ||
        !train_vector(b, "base.output_norm", &b->output_norm, m->n_embd, false,
                      &b->d_output_norm) ||
        !train_output(b))
        return -ENOMEM;
    optim_put(params, first);
    /* The parameter has taken its place: an 8B's is 2 GB. */
    give_back(b, b->own_embd);
    b->own_embd = NULL;
    return b->on->ops->error(b->on);
}

/* p_output: whether the base trains. */
void base_refresh(struct base *b)
{
    for (uint32_t i = 0; b->p_output && i < b->m->n_layer; i++)
        for (enum base_matrix w = 0; w < BASE_MATRIX__N; w++)
            base_put(b, w, b->layers[i].p[w], b->layers[i].w[w]);
    if (b->p_output)
        put_values(b, b->p_output, (size_t)b->m->n_vocab * b->m->n_embd, b->output);
}
