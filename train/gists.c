#include "train/gists.h"

#include "engine/adapter.h"
#include "engine/safetensors.h"
#include "train/adapter_write.h"
#include "train/draw.h"
#include "train/vec.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN 64u

static const char projections[ADAPTER_QKV__N] = { 'q', 'k', 'v' };

/* Indices of parameters: the embedding, then for each layer W, or A and B of q, k and v. */
static uint32_t per_layer(const struct gists *g)
{
    return g->shape.rank ? 2 * ADAPTER_QKV__N : 1;
}

static struct optim_tensor *param(const struct gists *g, uint32_t layer, uint32_t i)
{
    return &g->params.t[1 + layer * per_layer(g) + i];
}

static uint32_t rows_of(const struct base *b, unsigned p)
{
    return p == ADAPTER_Q ? b->n_q : b->n_kv;
}

/* First row of q, k or v. */
static uint32_t row_of(const struct base *b, unsigned p)
{
    return p == ADAPTER_Q ? 0 : b->n_q + (p == ADAPTER_V ? b->n_kv : 0);
}

/* --- open --------------------------------------------------------------------------------------------- */

static void base_qkv(const struct base *b, uint32_t layer, float *ret)
{
    const struct model_layer *l = &b->m->layers[layer];

    base_weight(&l->wq, ret);
    base_weight(&l->wk, ret + (size_t)b->n_q * b->m->n_embd);
    base_weight(&l->wv, ret + (size_t)(b->n_q + b->n_kv) * b->m->n_embd);
}

static int add_low_rank(struct gists *g, uint32_t layer, uint64_t *state)
{
    uint32_t n_embd = g->b->m->n_embd, rank = g->shape.rank;
    char name[OPTIM_NAME_MAX + 1];

    for (unsigned p = 0; p < ADAPTER_QKV__N; p++) {
        float bound = 1.0f / sqrtf((float)n_embd); /* as torch initialises a linear layer */
        int at;

        snprintf(name, sizeof(name), "layers.%u.%c.a", layer, projections[p]);
        at = optim_add(&g->params, name, (size_t)rank * n_embd, true);
        if (at < 0)
            return at;
        for (size_t i = 0; i < (size_t)rank * n_embd; i++)
            g->params.t[at].p[i] = (float)(2 * draw_unit(draw_next(state)) - 1) * bound;
        snprintf(name, sizeof(name), "layers.%u.%c.b", layer, projections[p]);
        at = optim_add(&g->params, name, (size_t)rows_of(g->b, p) * rank, true);
        if (at < 0)
            return at;
    }
    return 0;
}

static int add_params(struct gists *g)
{
    const struct base *b = g->b;
    uint64_t state = g->shape.seed;
    char name[OPTIM_NAME_MAX + 1];
    int r = optim_add(&g->params, "gist.embedding", (size_t)g->shape.n_embds * b->m->n_embd, true);

    for (uint32_t i = 0; r >= 0 && i < b->m->n_layer; i++) {
        if (g->shape.rank) {
            r = add_low_rank(g, i, &state);
            continue;
        }
        snprintf(name, sizeof(name), "layers.%u.qkv", i);
        r = optim_add(&g->params, name, (size_t)b->n_qkv * b->m->n_embd, true);
        if (r >= 0)
            base_qkv(b, i, g->params.t[r].p);
    }
    return r < 0 ? r : 0;
}

static int make_layers(struct gists *g)
{
    const struct base *b = g->b;
    size_t n = (size_t)b->n_qkv * b->m->n_embd;

    g->layers = calloc(b->m->n_layer, sizeof(*g->layers));
    g->delta = malloc(n * sizeof(float));
    if (g->shape.rank)
        g->d_qkv = malloc(b->m->n_layer * n * sizeof(float));
    if (!g->layers || !g->delta || (g->shape.rank && !g->d_qkv))
        return -ENOMEM;
    for (uint32_t i = 0; i < b->m->n_layer; i++) {
        g->layers[i].qkv =
            aligned_alloc(ALIGN, (n * gemm_size(b->type) + ALIGN - 1) / ALIGN * ALIGN);
        if (!g->layers[i].qkv)
            return -ENOMEM;
        g->layers[i].bias = b->layers[i].bias;
        g->layers[i].d_qkv = g->shape.rank ? g->d_qkv + i * n : param(g, i, 0)->g;
    }
    return 0;
}

int gists_open(struct gists *g, const struct base *b, const struct gists_shape *shape)
{
    int r;

    *g = (struct gists){ .b = b, .shape = *shape };
    r = add_params(g);
    if (r == 0)
        r = make_layers(g);
    if (r < 0) {
        gists_close(g);
        return r;
    }
    g->net = (struct net_gist){ g->layers, shape->embedding, shape->n_embds, g->params.t[0].p,
                                g->params.t[0].g };
    gists_refresh(g);
    return 0;
}

void gists_close(struct gists *g)
{
    for (uint32_t i = 0; g->layers && i < g->b->m->n_layer; i++)
        free((void *)g->layers[i].qkv);
    free(g->layers);
    free(g->delta);
    free(g->d_qkv);
    optim_fini(&g->params);
    *g = (struct gists){ 0 };
}

/* --- matrices --------------------------------------------------------------------------------------------- */

/* w (n_out, n_embd) += B A */
static void add_product(const struct gists *g, uint32_t layer, unsigned p, float *w)
{
    const float *a = param(g, layer, 2 * p)->p, *b = param(g, layer, 2 * p + 1)->p;
    uint32_t n_embd = g->b->m->n_embd, rank = g->shape.rank;

#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < rows_of(g->b, p); i++)
        for (uint32_t k = 0; k < rank; k++)
            vec_add_scaled(w + (size_t)i * n_embd, b[(size_t)i * rank + k], a + (size_t)k * n_embd,
                           n_embd);
}

void gists_refresh(struct gists *g)
{
    const struct base *b = g->b;

    for (uint32_t i = 0; i < b->m->n_layer; i++) {
        const float *w = g->delta;

        if (g->shape.rank) {
            base_qkv(b, i, g->delta);
            for (unsigned p = 0; p < ADAPTER_QKV__N; p++)
                add_product(g, i, p, g->delta + (size_t)row_of(b, p) * b->m->n_embd);
        } else {
            w = param(g, i, 0)->p;
        }
#pragma omp parallel for schedule(static)
        for (uint32_t r = 0; r < b->n_qkv; r++)
            vec_put(b->type,
                    (uint8_t *)g->layers[i].qkv + (size_t)r * b->m->n_embd * gemm_size(b->type),
                    w + (size_t)r * b->m->n_embd, b->m->n_embd);
    }
}

void gists_zero_gradients(struct gists *g)
{
    optim_zero_gradients(&g->params);
    if (g->d_qkv)
        memset(g->d_qkv, 0,
               (size_t)g->b->m->n_layer * g->b->n_qkv * g->b->m->n_embd * sizeof(float));
}

/* dA = B^T dW, dB = dW A^T */
void gists_collect(struct gists *g, struct gemm *gemm)
{
    const struct base *b = g->b;
    uint32_t n_embd = b->m->n_embd, rank = g->shape.rank;

    for (uint32_t i = 0; rank && i < b->m->n_layer; i++)
        for (unsigned p = 0; p < ADAPTER_QKV__N; p++) {
            struct optim_tensor *a = param(g, i, 2 * p), *bb = param(g, i, 2 * p + 1);
            struct gemm_mat dw = { g->layers[i].d_qkv + (size_t)row_of(b, p) * n_embd, n_embd,
                                   GEMM_F32, false };

            gemm_run(gemm, rank, n_embd, rows_of(b, p),
                     (struct gemm_mat){ bb->p, rank, GEMM_F32, true }, dw,
                     (struct gemm_mat){ a->g, n_embd, GEMM_F32, false }, false);
            gemm_run(gemm, rows_of(b, p), rank, n_embd, dw,
                     (struct gemm_mat){ a->p, n_embd, GEMM_F32, true },
                     (struct gemm_mat){ bb->g, rank, GEMM_F32, false }, false);
        }
}

/* --- files ------------------------------------------------------------------------------------------------- */

static int fill_full(struct gists *g, const struct adapter *a, uint32_t layer, unsigned p, float *w)
{
    const struct adapter_projection *from = &a->layers[layer].p[p];
    uint32_t n_embd = g->b->m->n_embd, n_out = rows_of(g->b, p), rank = from->a.n_rows;
    float *low;

    if (from->w.data)
        base_weight(&from->w, w);
    if (!from->a.data)
        return 0;
    low = malloc(((size_t)rank * n_embd + (size_t)n_out * rank) * sizeof(*low));
    if (!low)
        return -ENOMEM;
    base_weight(&from->a, low);
    base_weight(&from->b, low + (size_t)rank * n_embd);
    for (uint32_t i = 0; i < n_out; i++)
        for (uint32_t k = 0; k < rank; k++)
            vec_add_scaled(w + (size_t)i * n_embd,
                           low[(size_t)rank * n_embd + (size_t)i * rank + k],
                           low + (size_t)k * n_embd, n_embd);
    free(low);
    return 0;
}

static int fill_layer(struct gists *g, const struct adapter *a, uint32_t layer, const char *path,
                      struct why *why)
{
    uint32_t rank = g->shape.rank;

    for (unsigned p = 0; p < ADAPTER_QKV__N; p++) {
        const struct adapter_projection *from = &a->layers[layer].p[p];

        if (rank == 0) {
            if (fill_full(g, a, layer, p,
                          param(g, layer, 0)->p + (size_t)row_of(g->b, p) * g->b->m->n_embd) < 0)
                return why_set(why, -ENOMEM, "%s: no memory", path);
            continue;
        }
        if (from->w.data || (from->a.data && from->a.n_rows != rank))
            return why_set(why, -EINVAL, "%s: its projections are not of rank %u", path, rank);
        if (from->a.data) {
            base_weight(&from->a, param(g, layer, 2 * p)->p);
            base_weight(&from->b, param(g, layer, 2 * p + 1)->p);
        }
    }
    return 0;
}

int gists_load(struct gists *g, const char *path, struct why *why)
{
    const struct gists_shape *s = &g->shape;
    struct adapter *a;
    int r = adapter_open(path, g->b->m, &a, why);

    if (r < 0)
        return r;
    if (a->method != s->method || a->mask != s->mask || a->embedding != s->embedding ||
        a->n_gists != s->n_embds)
        r = why_set(why, -EINVAL,
                    "%s: found %s, %s, %u embeddings; the recipe asks for %s, %s and %u", path,
                    adapter_method_name(a->method), adapter_mask_name(a->mask), a->n_gists,
                    adapter_method_name(s->method), adapter_mask_name(s->mask), s->n_embds);
    if (r == 0)
        memcpy(g->params.t[0].p, a->embd, (size_t)s->n_embds * g->b->m->n_embd * sizeof(float));
    for (uint32_t i = 0; r == 0 && i < g->b->m->n_layer; i++)
        r = fill_layer(g, a, i, path, why);
    adapter_close(a);
    if (r == 0)
        gists_refresh(g);
    return r;
}

int gists_notes(const char *path, char *ret, size_t cap, struct why *why)
{
    struct safetensors *s;
    int r = safetensors_open(path, &s, why);

    if (r < 0)
        return r;
    snprintf(ret, cap, "%s",
             safetensors_meta(s, "training") ? safetensors_meta(s, "training") : "");
    safetensors_close(s);
    return 0;
}

static void add_tensor(struct adapter_write_tensor *t, const char *name, enum safetensors_type type,
                       uint64_t rows, uint64_t cols, const float *data)
{
    *t = (struct adapter_write_tensor){
        .type = type, .n_dims = 2, .dims = { rows, cols, 1, 1 }, .data = data
    };
    snprintf(t->name, sizeof(t->name), "%s", name);
}

/* Writes to t; how many. */
static size_t list_tensors(const struct gists *g, struct adapter_write_tensor *t)
{
    const struct base *b = g->b;
    uint32_t n_embd = b->m->n_embd, rank = g->shape.rank;
    char name[OPTIM_NAME_MAX + 1];
    size_t n = 0;

    add_tensor(&t[n++], "gist.embedding", SAFETENSORS_F32, g->shape.n_embds, n_embd,
               g->params.t[0].p);
    for (uint32_t i = 0; i < b->m->n_layer; i++)
        for (unsigned p = 0; p < ADAPTER_QKV__N; p++) {
            if (rank == 0) {
                snprintf(name, sizeof(name), "layers.%u.%c.weight", i, projections[p]);
                add_tensor(&t[n++], name, SAFETENSORS_BF16, rows_of(b, p), n_embd,
                           param(g, i, 0)->p + (size_t)row_of(b, p) * n_embd);
                continue;
            }
            snprintf(name, sizeof(name), "layers.%u.%c.a", i, projections[p]);
            add_tensor(&t[n++], name, SAFETENSORS_BF16, rank, n_embd, param(g, i, 2 * p)->p);
            snprintf(name, sizeof(name), "layers.%u.%c.b", i, projections[p]);
            add_tensor(&t[n++], name, SAFETENSORS_BF16, rows_of(b, p), rank,
                       param(g, i, 2 * p + 1)->p);
        }
    return n;
}

int gists_save(const struct gists *g, const char *path, const char *notes, struct why *why)
{
    const struct gists_shape *s = &g->shape;
    char ratios[64] = "", segment[16], sinks[16];
    const struct adapter_write_pair pairs[] = {
        { "format", "gist-adapter" },
        { "version", "1" },
        { "base_model", g->b->m->digest },
        { "base_name", g->b->m->name },
        { "method", adapter_method_name(s->method) },
        { "mask", adapter_mask_name(s->mask) },
        { "embedding", s->embedding == ADAPTER_EMBED_LAST ? "last-token" : "own" },
        { "segment", segment },
        { "ratios", ratios },
        { "sinks", sinks },
        { "training", notes },
    };
    struct adapter_write w = { .pairs = pairs,
                               .n_pairs = sizeof(pairs) / sizeof(*pairs),
                               .replace = true };
    struct adapter_write_tensor *t =
        calloc(1 + (size_t)g->b->m->n_layer * 2 * ADAPTER_QKV__N, sizeof(*t));
    size_t len = 0;
    int r;

    if (!t)
        return why_set(why, -ENOMEM, "%s: no memory", path);
    for (uint32_t i = 0; i < s->n_ratios; i++)
        len += (size_t)snprintf(ratios + len, sizeof(ratios) - len, "%s%u", i ? " " : "",
                                s->ratios[i]);
    snprintf(segment, sizeof(segment), "%u", s->seg_len);
    snprintf(sinks, sizeof(sinks), "%u", s->sinks);
    w.tensors = t;
    w.n_tensors = list_tensors(g, t);
    r = adapter_write(path, &w, why);
    free(t);
    return r;
}
