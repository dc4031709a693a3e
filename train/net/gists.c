/* train/net/gists.c - what gists have of their own: their embedding and, of each layer, matrices in
 * the place of the base's. Whole matrices are parameters as they are. Of low rank only A and B are:
 * W + B A is made anew after each step, rows are multiplied with that, and the derivative by it is
 * turned into theirs once a step.
 */
#include "train/net/gists.h"

#include "base/draw.h"
#include "engine/file/adapter.h"
#include "engine/file/safetensors.h"
#include "train/file/adapter_write.h"
#include "train/net/mat.h"
#include "train/net/vec.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- parameters ------------------------------------------------------------------------------- */

/* Indices: the embedding, then for each layer its matrices, or A and B of each projection.
 * Parameters have numbers and no pointers: the list moves when it grows. */
static uint32_t per_layer(const struct gists *g)
{
    return g->shape.rank ? 2 * g->shape.n_projections : g->n_matrices;
}

/* The embedding is number 0. */
static struct optim_tensor *param(const struct gists *g, uint32_t layer, uint32_t i)
{
    return &g->params.t[1 + layer * per_layer(g) + i];
}

static const struct tensors_ops *ops_of(const struct gists *g)
{
    return g->b->on->ops;
}

/* A projection of a layer: n_out rows of a matrix, from `row` on. */
struct projection {
    enum base_matrix matrix;
    uint32_t row, n_out, n_in;
};

/* Several projections are rows of one matrix: q, k and v, gate and up. */
static struct projection projection(const struct gists *g, unsigned p)
{
    struct projection ret;

    ret.matrix = base_part(g->b, p, &ret.row);
    adapter_projection_shape(g->b->m, p, &ret.n_out, &ret.n_in);
    return ret;
}

/* --- open ------------------------------------------------------------------------------------- */

/* A is random and B zero, so W + B A begins as W. The state goes on from layer to layer. */
static int add_low_rank(struct gists *g, uint32_t layer, uint64_t *state)
{
    uint32_t rank = g->shape.rank;
    char name[OPTIM_NAME_MAX + 1];

    for (unsigned p = 0; p < g->shape.n_projections; p++) {
        struct projection q = projection(g, p);
        float bound = 1.0f / sqrtf((float)q.n_in); /* as torch initialises a linear layer */
        int at;

        snprintf(name, sizeof(name), "layers.%u.%s.a", layer, adapter_projection_name(p));
        at = optim_add(&g->params, name, (size_t)rank * q.n_in, true);
        if (at < 0)
            return at;
        for (size_t i = 0; i < (size_t)rank * q.n_in; i++)
            g->params.t[at].p[i] = (float)(2 * draw_unit(draw_next(state)) - 1) * bound;
        snprintf(name, sizeof(name), "layers.%u.%s.b", layer, adapter_projection_name(p));
        at = optim_add(&g->params, name, (size_t)q.n_out * rank, true);
        if (at < 0)
            return at;
    }
    return 0;
}

/* A copy of the base's matrix, which then goes its own way. */
static int add_full(struct gists *g, uint32_t layer)
{
    char name[OPTIM_NAME_MAX + 1];

    for (enum base_matrix w = 0; w < g->n_matrices; w++) {
        int at;

        snprintf(name, sizeof(name), "layers.%u.%s", layer, base_matrix_name(w));
        at = optim_add(&g->params, name, base_len(g->b, w), true);
        if (at < 0)
            return at;
        base_values(g->b, layer, w, g->params.t[at].p);
    }
    return 0;
}

/* The embedding begins as zero: a gist is a copy of its last token then. */
static int add_params(struct gists *g)
{
    uint64_t state = g->shape.seed;
    int r =
        optim_add(&g->params, "gist.embedding", (size_t)g->shape.n_embds * g->b->m->n_embd, true);

    for (uint32_t i = 0; r >= 0 && i < g->b->m->n_layer; i++)
        r = g->shape.rank ? add_low_rank(g, i, &state) : add_full(g, i);
    if (r >= 0)
        /* What was written are the host's copies. */
        optim_put(&g->params, 0);
    return r < 0 ? r : 0;
}

/* d: low rank: of the layer's matrices. Typed matrices, which rows are multiplied
 * with; and where derivatives by them are added. */
static int make_layer(struct gists *g, uint32_t layer, float *d)
{
    struct net_gist_layer *l = &g->layers[layer];
    size_t off = 0;

    for (enum base_matrix w = 0; w < g->n_matrices; off += base_len(g->b, w++)) {
        l->w[w] = ops_of(g)->alloc(g->b->on, base_len(g->b, w) * tensors_size(g->b->type));
        if (!l->w[w])
            return -ENOMEM;
        /* Of whole matrices the derivative is the parameter's own. */
        l->d[w] = d ? d + off : param(g, layer, w)->g;
    }
    return 0;
}

/* Of low rank each layer also has whole derivatives: more memory than A, B and their moments
 * together. */
static int make_layers(struct gists *g)
{
    uint32_t n_layer = g->b->m->n_layer;
    size_t largest = 0, all = 0;
    int r = 0;

    for (enum base_matrix w = 0; w < g->n_matrices; w++) {
        all += base_len(g->b, w);
        largest = base_len(g->b, w) > largest ? base_len(g->b, w) : largest;
    }
    g->layers = calloc(n_layer, sizeof(*g->layers));
    if (!g->layers)
        return -ENOMEM;
    if (g->shape.rank && all) {
        g->n_d_whole = n_layer * all;
        /* One for all layers, as it is narrowed at once; derivatives are kept of all of them until
         * gists_collect. */
        g->whole = ops_of(g)->alloc(g->b->on, largest * sizeof(float));
        g->d_whole = ops_of(g)->alloc(g->b->on, g->n_d_whole * sizeof(float));
        if (!g->whole || !g->d_whole)
            return -ENOMEM;
    }
    for (uint32_t i = 0; r == 0 && i < n_layer; i++)
        r = make_layer(g, i, g->d_whole ? g->d_whole + i * all : NULL);
    return r;
}

/* Sizes alone, without parameters. */
static struct gists describe(const struct base *b, const struct gists_shape *shape)
{
    struct gists g = { .b = b, .shape = *shape };

    for (unsigned p = 0; p < shape->n_projections; p++)
        /* Projections are in the order of the matrices, and all up to the last one are the gists'
         * own. */
        g.n_matrices = projection(&g, p).matrix + 1;
    return g;
}

/* As make_layers and add_params have it. */
size_t gists_room(const struct base *b, const struct gists_shape *shape, size_t *ret_values)
{
    struct gists g = describe(b, shape);
    size_t n_layer = b->m->n_layer, largest = 0, all = 0, low = 0;

    for (enum base_matrix w = 0; w < g.n_matrices; w++) {
        all += base_len(b, w);
        largest = base_len(b, w) > largest ? base_len(b, w) : largest;
    }
    for (unsigned p = 0; p < shape->n_projections; p++) {
        struct projection q = projection(&g, p);

        low += (size_t)shape->rank * (q.n_in + q.n_out);
    }
    *ret_values = (size_t)shape->n_embds * b->m->n_embd + n_layer * (shape->rank ? low : all);
    return n_layer * all * tensors_size(b->type) +
           (shape->rank && all ? largest + n_layer * all : 0) * sizeof(float);
}

int gists_open(struct gists *g, const struct base *b, const struct gists_shape *shape)
{
    int r;

    *g = describe(b, shape);
    g->params.on = b->on;
    r = add_params(g);
    if (r == 0)
        r = make_layers(g);
    if (r < 0) {
        gists_close(g);
        return r;
    }
    /* What net.c sees of it: data, no parameters. */
    g->net = (struct net_gist){ g->layers, shape->embedding, shape->n_embds, g->params.t[0].p_on,
                                g->params.t[0].g };
    gists_refresh(g);
    return 0;
}

static void give_back(const struct gists *g, void *p)
{
    if (p)
        ops_of(g)->free(g->b->on, p);
}

void gists_close(struct gists *g)
{
    for (uint32_t i = 0; g->layers && i < g->b->m->n_layer; i++)
        for (enum base_matrix w = 0; w < BASE_MATRIX__N; w++)
            give_back(g, g->layers[i].w[w]);
    free(g->layers);
    give_back(g, g->whole);
    give_back(g, g->d_whole);
    optim_fini(&g->params);
    *g = (struct gists){ 0 };
}

/* --- matrices --------------------------------------------------------------------------------- */

/* w (n_out, n_in) += B A By the host, of a file that is read. */
static void add_product(const struct projection *q, const float *a, const float *b, uint32_t rank,
                        float *w)
{
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < q->n_out; i++)
        for (uint32_t k = 0; k < rank; k++)
            vec_add_scaled(w + (size_t)i * q->n_in, b[(size_t)i * rank + k],
                           a + (size_t)k * q->n_in, q->n_in);
}

/* The matrix as f32, where it is computed. Of low rank in g->whole, until the next call. */
static const float *whole_matrix(struct gists *g, uint32_t layer, enum base_matrix w)
{
    if (g->shape.rank == 0)
        return param(g, layer, w)->p_on;
    base_values_on(g->b, layer, w, g->whole);
    for (unsigned p = 0; p < g->shape.n_projections; p++) {
        struct projection q = projection(g, p);

        if (q.matrix == w)
            ops_of(g)->low_rank(g->b->on, g->whole + (size_t)q.row * q.n_in,
                                param(g, layer, 2 * p + 1)->p_on, param(g, layer, 2 * p)->p_on,
                                q.n_out, q.n_in, g->shape.rank);
    }
    return g->whole;
}

/* The base may have changed, too (train-base): it is part of W. */
void gists_refresh(struct gists *g)
{
    for (uint32_t i = 0; i < g->b->m->n_layer; i++)
        for (enum base_matrix w = 0; w < g->n_matrices; w++)
            base_put(g->b, w, whole_matrix(g, i, w), g->layers[i].w[w]);
}

/* Before a step: sequences add to them. */
void gists_zero_gradients(struct gists *g)
{
    optim_zero_gradients(&g->params);
    if (g->d_whole)
        ops_of(g)->clear(g->b->on, g->d_whole, g->n_d_whole * sizeof(float));
}

/* dA = B^T dW, dB = dW A^T; the base's matrix is part of W, too */
static void collect(const struct gists *g, uint32_t layer, unsigned p)
{
    struct optim_tensor *a = param(g, layer, 2 * p), *b = param(g, layer, 2 * p + 1);
    struct projection q = projection(g, p);
    uint32_t rank = g->shape.rank;
    /* The rows of the projection in its matrix's derivative. */
    struct tensors_mat dw =
        mat_floats(g->layers[layer].d[q.matrix] + (size_t)q.row * q.n_in, q.n_in);

    /* They are set and not added to: dW has all sequences in it. */
    mat_multiply(g->b->on, rank, q.n_in, q.n_out, mat_turned(mat_floats(b->p_on, rank)), dw,
                 mat_floats(a->g, q.n_in), false);
    mat_multiply(g->b->on, q.n_out, rank, q.n_in, dw, mat_turned(mat_floats(a->p_on, q.n_in)),
                 mat_floats(b->g, rank), false);
}

void gists_collect(struct gists *g)
{
    for (uint32_t i = 0; g->shape.rank && i < g->b->m->n_layer; i++) {
        for (unsigned p = 0; p < g->shape.n_projections; p++)
            collect(g, i, p);
        for (enum base_matrix w = 0; w < g->n_matrices; w++)
            /* The base's W is part of the gists' own: with train-base it learns from their rows,
             * too. */
            if (g->b->layers[i].d[w])
                ops_of(g)->add(g->b->on, g->b->layers[i].d[w], g->layers[i].d[w], 1,
                               (uint32_t)base_len(g->b, w));
    }
}

/* --- files ------------------------------------------------------------------------------------ */

/* w (n_out, n_in), the base model's, becomes what the file has in its place. Files may have a
 * matrix, low rank on the base's, or both. */
static int fill_full(const struct projection *q, const struct adapter_projection *from, float *w)
{
    uint32_t rank = from->a.n_rows;
    float *low;

    if (from->w.data)
        base_weight(&from->w, w);
    if (!from->a.data)
        return 0;
    low = malloc(((size_t)rank * q->n_in + (size_t)q->n_out * rank) * sizeof(*low));
    if (!low)
        return -ENOMEM;
    base_weight(&from->a, low);
    base_weight(&from->b, low + (size_t)rank * q->n_in);
    add_product(q, low, low + (size_t)rank * q->n_in, rank, w);
    free(low);
    return 0;
}

/* A file that has more than the recipe trains would lose it: it is refused. */
static int fill_projection(struct gists *g, const struct adapter_projection *from, uint32_t layer,
                           unsigned p, const char *path, struct why *why)
{
    uint32_t rank = g->shape.rank;
    struct projection q = projection(g, p);

    if (p >= g->shape.n_projections)
        return from->w.data || from->a.data
                   ? why_set(why, -EINVAL,
                             "%s: its gists have a matrix of their own for %s in layer %u, which "
                             "the recipe's projections leave out",
                             path, adapter_projection_name(p), layer)
                   : 0;
    if (rank == 0)
        return fill_full(&q, from, param(g, layer, q.matrix)->p + (size_t)q.row * q.n_in) < 0
                   ? why_set(why, -ENOMEM, "%s: no memory", path)
                   : 0;
    if (from->w.data || (from->a.data && from->a.n_rows != rank))
        return why_set(why, -EINVAL, "%s: its projections are not of rank %u", path, rank);
    if (from->a.data) {
        base_weight(&from->a, param(g, layer, 2 * p)->p);
        base_weight(&from->b, param(g, layer, 2 * p + 1)->p);
    }
    return 0;
}

/* The host's copies first, then all of it to the device at once. */
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
        for (unsigned p = 0; r == 0 && p < ADAPTER_PROJECTION__N; p++)
            r = fill_projection(g, &a->layers[i].p[p], i, p, path, why);
    adapter_close(a);
    if (r == 0) {
        optim_put(&g->params, 0);
        gists_refresh(g);
    }
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

/* A projection's: writes to t; how many. */
static size_t list_projection(const struct gists *g, uint32_t layer, unsigned p,
                              struct adapter_write_tensor *t)
{
    struct projection q = projection(g, p);
    const char *projection_name = adapter_projection_name(p);
    uint32_t rank = g->shape.rank;
    char name[OPTIM_NAME_MAX + 1];

    if (rank == 0) {
        snprintf(name, sizeof(name), "layers.%u.%s.weight", layer, projection_name);
        add_tensor(t, name, SAFETENSORS_BF16, q.n_out, q.n_in,
                   param(g, layer, q.matrix)->p + (size_t)q.row * q.n_in);
        return 1;
    }
    snprintf(name, sizeof(name), "layers.%u.%s.a", layer, projection_name);
    add_tensor(t, name, SAFETENSORS_BF16, rank, q.n_in, param(g, layer, 2 * p)->p);
    snprintf(name, sizeof(name), "layers.%u.%s.b", layer, projection_name);
    add_tensor(t + 1, name, SAFETENSORS_BF16, q.n_out, rank, param(g, layer, 2 * p + 1)->p);
    return 2;
}

static size_t list_tensors(const struct gists *g, struct adapter_write_tensor *t)
{
    size_t n = 1;

    add_tensor(t, "gist.embedding", SAFETENSORS_F32, g->shape.n_embds, g->b->m->n_embd,
               g->params.t[0].p);
    for (uint32_t i = 0; i < g->b->m->n_layer; i++)
        for (unsigned p = 0; p < g->shape.n_projections; p++)
            n += list_projection(g, i, p, t + n);
    return n;
}

int gists_save(const struct gists *g, const char *path, const char *digest, const char *notes,
               struct why *why)
{
    const struct gists_shape *s = &g->shape;
    char ratios[64] = "", segment[16], sinks[16];
    const struct adapter_write_pair pairs[] = {
        { "format", "gist-adapter" },
        { "version", "1" },
        { "base_model", digest },
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
    struct adapter_write_tensor *t;
    size_t len = 0;
    /* What is trained is where it is computed. */
    int r = optim_fetch(&g->params);

    if (r < 0)
        return why_set(why, r, "%s: was not written: the device failed", path);
    t = calloc(1 + (size_t)g->b->m->n_layer * 2 * ADAPTER_PROJECTION__N, sizeof(*t));
    if (!t)
        return why_set(why, -ENOMEM, "%s: no memory", path);
    for (uint32_t i = 0; i < s->n_ratios; i++)
        /* ADAPTER_RATIOS_MAX of two digits fit. */
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
