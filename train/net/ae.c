#include "train/net/ae.h"

#include "base/draw.h"
#include "train/net/gemm.h"
#include "train/net/tensors_cpu.h"
#include "train/net/vec.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN        64u
#define HEAD_DIM_MAX 512u

enum part { NORM, Q, K, V, BQ, BK, BV, O, FFN_NORM, GATE, UP, DOWN, SLOT_K, SLOT_V, EMBD, PART__N };

static const char *const names[PART__N] = { "ae.block.attn_norm.weight",
                                            "ae.block.attn_q.weight",
                                            "ae.block.attn_k.weight",
                                            "ae.block.attn_v.weight",
                                            "ae.block.attn_q.bias",
                                            "ae.block.attn_k.bias",
                                            "ae.block.attn_v.bias",
                                            "ae.block.attn_output.weight",
                                            "ae.block.ffn_norm.weight",
                                            "ae.block.ffn_gate.weight",
                                            "ae.block.ffn_up.weight",
                                            "ae.block.ffn_down.weight",
                                            "ae.slot.k.weight",
                                            "ae.slot.v.weight",
                                            "ae.embedding" };

struct matrix {
    uint32_t n_out, n_in;
};

struct ae {
    const struct base *b;
    struct optim *params;
    struct ae_shape shape;
    int at[PART__N]; /* index among params; -1: the base has no such bias */
    struct matrix mat[PART__N];
    void *typed[PART__N]; /* copies for products; NULL: not a matrix */
    uint32_t n_slot;      /* width of g */
    /* (max_tokens) rows */
    float *h0, *h1, *h2, *dx, *dn, *qkv, *dqkv, *p, *r0, *r1, *dff32, *datt32, *gate, *up;
    void *y0, *y1, *att, *datt, *ff, *dff, *t_embd, *t_qkv;
    struct head_row *rows;
    /* (max_tokens / least ratio) rows */
    void *g, *t_slot;
    float *slot, *dslot, *dg;
};

/* --- open ------------------------------------------------------------------------------------- */

static float *value(const struct ae *a, enum part p)
{
    return a->at[p] < 0 ? NULL : a->params->t[a->at[p]].p;
}

static float *gradient(const struct ae *a, enum part p)
{
    return a->at[p] < 0 ? NULL : a->params->t[a->at[p]].g;
}

static bool is_matrix(enum part p)
{
    return p != NORM && p != FFN_NORM && p != BQ && p != BK && p != BV && p != EMBD;
}

static void set_shapes(struct ae *a)
{
    const struct base *b = a->b;
    uint32_t n_embd = b->m->n_embd, n_ff = b->m->n_ff;
    const struct matrix shapes[PART__N] = { [NORM] = { 1, n_embd },
                                            [Q] = { b->n_q, n_embd },
                                            [K] = { b->n_kv, n_embd },
                                            [V] = { b->n_kv, n_embd },
                                            [BQ] = { 1, b->n_q },
                                            [BK] = { 1, b->n_kv },
                                            [BV] = { 1, b->n_kv },
                                            [O] = { n_embd, b->n_q },
                                            [FFN_NORM] = { 1, n_embd },
                                            [GATE] = { n_ff, n_embd },
                                            [UP] = { n_ff, n_embd },
                                            [DOWN] = { n_embd, n_ff },
                                            [SLOT_K] = { b->n_kv, a->n_slot },
                                            [SLOT_V] = { b->n_kv, a->n_slot },
                                            [EMBD] = { a->shape.n_ratios, n_embd } };

    memcpy(a->mat, shapes, sizeof(shapes));
}

static float normal(uint64_t *state)
{
    double u = draw_unit(draw_next(state)) + 0x1p-54, v = draw_unit(draw_next(state));

    return (float)(sqrt(-2 * log(u)) * cos(2 * M_PI * v));
}

static void init_slots(struct ae *a)
{
    uint32_t n = a->b->n_kv, last = 2 * (a->b->m->n_layer - 1) * n;

    for (uint32_t i = 0; i < n; i++) {
        value(a, SLOT_K)[(size_t)i * a->n_slot + last + i] = 1;
        value(a, SLOT_V)[(size_t)i * a->n_slot + last + n + i] = 1;
    }
}

static void init_values(struct ae *a)
{
    const struct model *m = a->b->m;
    const struct model_layer *l = &m->layers[m->n_layer - 1];
    const struct model_tensor *w[PART__N] = {
        [Q] = &l->wq,        [K] = &l->wk,    [V] = &l->wv,       [O] = &l->wo,
        [GATE] = &l->w_gate, [UP] = &l->w_up, [DOWN] = &l->w_down
    };
    const float *v[PART__N] = {
        [NORM] = l->attn_norm, [FFN_NORM] = l->ffn_norm, [BQ] = l->bq, [BK] = l->bk, [BV] = l->bv
    };
    size_t n = (size_t)m->n_vocab * m->n_embd;
    float std = (float)sqrt(vec_sum_squares(a->b->embd, n) / (double)n);
    uint64_t state = a->shape.seed;

    for (enum part p = 0; p < PART__N; p++) {
        if (w[p])
            base_weight(w[p], value(a, p));
        else if (v[p])
            memcpy(value(a, p), v[p], a->mat[p].n_in * sizeof(float));
    }
    init_slots(a);
    for (size_t i = 0; i < (size_t)a->shape.n_ratios * m->n_embd; i++)
        value(a, EMBD)[i] = normal(&state) * std;
}

static bool take(void *ret_pointer, size_t rows, size_t cols, size_t size)
{
    void *p = aligned_alloc(ALIGN, (rows * cols * size + ALIGN - 1) / ALIGN * ALIGN);

    memcpy(ret_pointer, &p, sizeof(p));
    return p;
}

static bool take_rows(struct ae *a)
{
    const struct base *b = a->b;
    size_t n = a->shape.max_tokens, f = sizeof(float), t = tensors_size(b->type), e = b->m->n_embd,
           ff = b->m->n_ff;
    uint32_t most = 0;

    for (uint32_t i = 0; i < a->shape.n_ratios; i++)
        most = a->shape.ratios[i] > most ? a->shape.ratios[i] : most;
    return take(&a->h0, n, e, f) && take(&a->h1, n, e, f) && take(&a->h2, n, e, f) &&
           take(&a->dx, n, e, f) && take(&a->dn, n, e, f) && take(&a->qkv, n, b->n_qkv, f) &&
           take(&a->dqkv, n, b->n_qkv, f) && take(&a->p, n * b->m->n_head, most + 1, f) &&
           take(&a->r0, n, 1, f) && take(&a->r1, n, 1, f) && take(&a->dff32, n, ff, f) &&
           take(&a->datt32, n, b->n_q, f) && take(&a->y0, n, e, t) && take(&a->y1, n, e, t) &&
           take(&a->att, n, b->n_q, t) && take(&a->datt, n, b->n_q, t) &&
           take(&a->gate, n, ff, f) && take(&a->up, n, ff, f) && take(&a->ff, n, ff, t) &&
           take(&a->dff, n, ff, t) && take(&a->t_embd, n, e, t) &&
           take(&a->t_qkv, n, b->n_qkv, t) && take(&a->rows, n, 1, sizeof(*a->rows));
}

static bool take_slots(struct ae *a)
{
    const struct base *b = a->b;
    size_t least = UINT32_MAX, n, t = tensors_size(b->type);

    for (uint32_t i = 0; i < a->shape.n_ratios; i++)
        least = a->shape.ratios[i] < least ? a->shape.ratios[i] : least;
    n = a->shape.max_tokens / least + 1;
    return take(&a->g, n, a->n_slot, t) && take(&a->t_slot, n, 2 * (size_t)b->n_kv, t) &&
           take(&a->slot, n, 2 * (size_t)b->n_kv, sizeof(float)) &&
           take(&a->dslot, n, 2 * (size_t)b->n_kv, sizeof(float)) &&
           take(&a->dg, n, a->n_slot, sizeof(float));
}

static int add_params(struct ae *a)
{
    for (enum part p = 0; p < PART__N; p++) {
        size_t n = (size_t)a->mat[p].n_out * a->mat[p].n_in;

        a->at[p] = -1;
        if ((p == BQ || p == BK || p == BV) && !a->b->layers[0].bias)
            continue;
        a->at[p] = optim_add(a->params, names[p], n, true);
        if (a->at[p] < 0)
            return a->at[p];
        if (is_matrix(p) && !take(&a->typed[p], 1, n, tensors_size(a->b->type)))
            return -ENOMEM;
    }
    return 0;
}

int ae_open(const struct base *b, struct optim *params, const struct ae_shape *shape,
            struct ae **ret)
{
    struct ae *a = calloc(1, sizeof(*a));
    int r;

    if (!a || b->m->head_dim > HEAD_DIM_MAX) {
        free(a);
        return a ? -E2BIG : -ENOMEM;
    }
    a->b = b;
    a->params = params;
    a->shape = *shape;
    a->n_slot = b->m->n_layer * 2 * b->n_kv;
    set_shapes(a);
    r = add_params(a);
    if (r == 0 && (!take_rows(a) || !take_slots(a)))
        r = -ENOMEM;
    if (r < 0) {
        ae_close(a);
        return r;
    }
    init_values(a);
    ae_refresh(a);
    *ret = a;
    return 0;
}

void ae_close(struct ae *a)
{
    if (!a)
        return;
    void *all[] = { a->h0,    a->h1,   a->h2,   a->dx,     a->dn,     a->qkv,   a->dqkv,
                    a->p,     a->r0,   a->r1,   a->dff32,  a->datt32, a->y0,    a->y1,
                    a->att,   a->datt, a->gate, a->up,     a->ff,     a->dff,   a->t_embd,
                    a->t_qkv, a->rows, a->g,    a->t_slot, a->slot,   a->dslot, a->dg };

    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        free(all[i]);
    for (enum part p = 0; p < PART__N; p++)
        free(a->typed[p]);
    free(a);
}

void ae_refresh(struct ae *a)
{
    for (enum part p = 0; p < PART__N; p++)
        if (a->typed[p])
            vec_put(a->b->type, a->typed[p], value(a, p), (size_t)a->mat[p].n_out * a->mat[p].n_in);
}

/* --- products --------------------------------------------------------------------------------- */

static struct tensors_mat typed(const struct ae *a, const void *p, size_t off, uint32_t ld, bool t)
{
    return (struct tensors_mat){ (const uint8_t *)p + off * tensors_size(a->b->type), ld,
                                 a->b->type, t };
}

static struct tensors_mat floats(const float *p, uint32_t ld)
{
    return (struct tensors_mat){ p, ld, TENSORS_F32, false };
}

/* y (n, ld) = x W^T, x typed and as wide as W */
static void forward(const struct ae *a, struct gemm *g, enum part p, uint32_t n, const void *x,
                    float *y, uint32_t ld, bool add)
{
    struct matrix w = a->mat[p];

    gemm_run(g, n, w.n_out, w.n_in, typed(a, x, 0, w.n_in, false),
             typed(a, a->typed[p], 0, w.n_in, true), floats(y, ld), add);
}

/* dy typed, from column `col` of rows ld wide: dW += dy^T x, dx (+)= dy W. dx may be NULL. */
static void back(const struct ae *a, struct gemm *g, enum part p, uint32_t n, const void *dy,
                 uint32_t col, uint32_t ld, const void *x, float *dx, bool add)
{
    struct matrix w = a->mat[p];

    gemm_run(g, w.n_out, w.n_in, n, typed(a, dy, col, ld, true), typed(a, x, 0, w.n_in, false),
             floats(gradient(a, p), w.n_in), true);
    if (dx)
        gemm_run(g, n, w.n_in, w.n_out, typed(a, dy, col, ld, false),
                 typed(a, a->typed[p], 0, w.n_in, false), floats(dx, w.n_in), add);
}

static void norm_rows(const struct ae *a, enum part p, uint32_t n, const float *x, float *ret_r,
                      void *ret_y)
{
    uint32_t n_embd = a->b->m->n_embd;

#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < n; i++) {
        float *y = a->dn + (size_t)i * n_embd;

        ret_r[i] = vec_norm(y, x + (size_t)i * n_embd, value(a, p), a->b->m->rms_eps, n_embd);
        vec_put(a->b->type, (uint8_t *)ret_y + (size_t)i * n_embd * tensors_size(a->b->type), y,
                n_embd);
    }
}

/* dn holds derivatives by the normed rows; dx gets those by x, the weight's gradient is added to.
 */
static void norm_rows_back(const struct ae *a, enum part p, uint32_t n, const float *x,
                           const float *r)
{
    uint32_t n_embd = a->b->m->n_embd;
    float *dw = gradient(a, p);

    for (uint32_t i = 0; i < n; i++) {
        float *dy = a->dn + (size_t)i * n_embd;
        const float *xi = x + (size_t)i * n_embd;

        vec_norm_back_weight(dw, dy, xi, r[i], n_embd);
        vec_norm_back(a->dx + (size_t)i * n_embd, dy, xi, value(a, p), r[i], n_embd);
    }
}

/* --- attention: r tokens see the slot, and each other up to themselves ------------------------ */

struct snippet {
    const struct ae *a;
    uint32_t j, r;
};

static float *row_of(const struct snippet *s, float *qkv, uint32_t i)
{
    return qkv + ((size_t)s->j * s->r + i) * s->a->b->n_qkv;
}

/* Key t of KV head h: the slot's, then the tokens'. part: 0 keys, 1 values. */
static float *key_of(const struct snippet *s, float *qkv, float *slot, uint32_t t, uint32_t h,
                     uint32_t part)
{
    const struct base *b = s->a->b;
    size_t off = (size_t)part * b->n_kv + h * b->m->head_dim;

    return t == 0 ? slot + (size_t)s->j * 2 * b->n_kv + off : row_of(s, qkv, t - 1) + b->n_q + off;
}

static float *probabilities(const struct snippet *s, uint32_t i, uint32_t h)
{
    return s->a->p + (((size_t)s->j * s->r + i) * s->a->b->m->n_head + h) * (s->r + 1);
}

static void rotate(const struct snippet *s, float *qkv, bool back_again)
{
    const struct base *b = s->a->b;

    for (uint32_t i = 0; i < s->r; i++)
        for (uint32_t h = 0; h < b->m->n_head + b->m->n_head_kv; h++)
            vec_rotate(row_of(s, qkv, i) + h * b->m->head_dim, base_angle(b, i + 1), b->m->head_dim,
                       back_again);
}

static void attend(const struct snippet *s)
{
    const struct ae *a = s->a;
    const struct base *b = a->b;
    uint32_t hd = b->m->head_dim, group = b->m->n_head / b->m->n_head_kv;
    float scale = 1.0f / sqrtf((float)hd);

    rotate(s, a->qkv, false);
    for (uint32_t i = 0; i < s->r; i++) {
        float *out = a->dqkv + ((size_t)s->j * s->r + i) * b->n_qkv; /* free before the way back */

        memset(out, 0, b->n_q * sizeof(float));
        for (uint32_t h = 0; h < b->m->n_head; h++) {
            float *p = probabilities(s, i, h), *q = row_of(s, a->qkv, i) + h * hd;

            for (uint32_t t = 0; t < i + 2; t++)
                p[t] = vec_dot(q, key_of(s, a->qkv, a->slot, t, h / group, 0), hd) * scale;
            vec_scale(p, 1.0f / vec_exp(p, vec_max(p, i + 2), i + 2), i + 2);
            for (uint32_t t = 0; t < i + 2; t++)
                vec_add_scaled(out + h * hd, p[t], key_of(s, a->qkv, a->slot, t, h / group, 1), hd);
        }
        vec_put(b->type,
                (uint8_t *)a->att + ((size_t)s->j * s->r + i) * b->n_q * tensors_size(b->type), out,
                b->n_q);
    }
}

/* One query: dout (hd) to the derivatives by its q, and by all keys and values it saw. */
static void attend_back_head(const struct snippet *s, uint32_t i, uint32_t h, const float *dout)
{
    const struct ae *a = s->a;
    const struct base *b = a->b;
    uint32_t hd = b->m->head_dim, kv = h / (b->m->n_head / b->m->n_head_kv);
    float scale = 1.0f / sqrtf((float)hd), *p = probabilities(s, i, h), all = 0;
    float *q = row_of(s, a->qkv, i) + h * hd, *dq = row_of(s, a->dqkv, i) + h * hd;

    for (uint32_t t = 0; t < i + 2; t++)
        all += p[t] * vec_dot(dout, key_of(s, a->qkv, a->slot, t, kv, 1), hd);
    for (uint32_t t = 0; t < i + 2; t++) {
        float ds = p[t] * (vec_dot(dout, key_of(s, a->qkv, a->slot, t, kv, 1), hd) - all) * scale;

        vec_add_scaled(key_of(s, a->dqkv, a->dslot, t, kv, 1), p[t], dout, hd);
        vec_add_scaled(key_of(s, a->dqkv, a->dslot, t, kv, 0), ds, q, hd);
        vec_add_scaled(dq, ds, key_of(s, a->qkv, a->slot, t, kv, 0), hd);
    }
}

static void attend_back(const struct snippet *s)
{
    const struct ae *a = s->a;
    const struct base *b = a->b;
    uint32_t hd = b->m->head_dim;

    memset(row_of(s, a->dqkv, 0), 0, (size_t)s->r * b->n_qkv * sizeof(float));
    memset(a->dslot + (size_t)s->j * 2 * b->n_kv, 0, 2 * b->n_kv * sizeof(float));
    for (uint32_t i = 0; i < s->r; i++)
        for (uint32_t h = 0; h < b->m->n_head; h++) {
            float dout[HEAD_DIM_MAX];

            vec_get(b->type,
                    (const uint8_t *)a->datt +
                        (((size_t)s->j * s->r + i) * b->n_q + h * hd) * tensors_size(b->type),
                    dout, hd);
            attend_back_head(s, i, h, dout);
        }
    rotate(s, a->dqkv, true);
}

/* --- one call --------------------------------------------------------------------------------- */

/* The place in the text that row i of the decoder rebuilds. */
static uint32_t place_of(const struct ae_job *job, uint32_t r, uint32_t i)
{
    const struct layout_gist *gist = &job->l->gists[job->gists[i / r]];

    return job->l->rows[gist->row].token + 1 - r + i % r;
}

/* h0, g and the targets. */
static void load(const struct ae *a, const struct ae_job *job, uint32_t r)
{
    const struct base *b = a->b;
    uint32_t n_embd = b->m->n_embd;
    size_t pair = 2 * (size_t)b->n_kv;

    for (uint32_t i = 0; i < job->n * r; i++) {
        uint32_t at = place_of(job, r, i);
        const float *x = b->embd + (size_t)job->ids[i % r ? at - 1 : at] * n_embd;

        if (i % r == 0)
            for (uint32_t k = 0; k < a->shape.n_ratios; k++)
                if (a->shape.ratios[k] == r)
                    x = value(a, EMBD) + (size_t)k * n_embd;
        memcpy(a->h0 + (size_t)i * n_embd, x, n_embd * sizeof(float));
        a->rows[i] = (struct head_row){ .row = i,
                                        .target = job->ids[at],
                                        .weight = job->scale / (float)(job->n * r) };
    }
    for (uint32_t layer = 0; layer < b->m->n_layer; layer++)
        for (uint32_t j = 0; j < job->n; j++)
            vec_put(b->type,
                    (uint8_t *)a->g +
                        ((size_t)j * a->n_slot + layer * pair) * tensors_size(b->type),
                    net_qkv(job->net, layer) + (size_t)job->l->gists[job->gists[j]].kv * b->n_qkv +
                        b->n_q,
                    pair);
}

static void add_bias(const struct ae *a, uint32_t n)
{
    const struct base *b = a->b;

    for (uint32_t i = 0; a->at[BQ] >= 0 && i < n; i++) {
        float *x = a->qkv + (size_t)i * b->n_qkv;

        vec_add(x, value(a, BQ), b->n_q);
        vec_add(x + b->n_q, value(a, BK), b->n_kv);
        vec_add(x + b->n_q + b->n_kv, value(a, BV), b->n_kv);
    }
}

static void decode(const struct ae *a, struct gemm *g, uint32_t n, uint32_t r)
{
    const struct base *b = a->b;
    uint32_t rows = n * r, n_embd = b->m->n_embd, n_ff = b->m->n_ff;

    forward(a, g, SLOT_K, n, a->g, a->slot, 2 * b->n_kv, false);
    forward(a, g, SLOT_V, n, a->g, a->slot + b->n_kv, 2 * b->n_kv, false);
    norm_rows(a, NORM, rows, a->h0, a->r0, a->y0);
    forward(a, g, Q, rows, a->y0, a->qkv, b->n_qkv, false);
    forward(a, g, K, rows, a->y0, a->qkv + b->n_q, b->n_qkv, false);
    forward(a, g, V, rows, a->y0, a->qkv + b->n_q + b->n_kv, b->n_qkv, false);
    add_bias(a, rows);
#pragma omp parallel for schedule(static)
    for (uint32_t j = 0; j < n; j++)
        attend(&(struct snippet){ a, j, r });
    memcpy(a->h1, a->h0, (size_t)rows * n_embd * sizeof(float));
    forward(a, g, O, rows, a->att, a->h1, n_embd, true);
    norm_rows(a, FFN_NORM, rows, a->h1, a->r1, a->y1);
    forward(a, g, GATE, rows, a->y1, a->gate, n_ff, false);
    forward(a, g, UP, rows, a->y1, a->up, n_ff, false);
    memcpy(a->h2, a->h1, (size_t)rows * n_embd * sizeof(float));
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < rows; i++) {
        size_t at = (size_t)i * n_ff;

        vec_swiglu(a->dff32 + at, a->gate + at, a->up + at, n_ff);
        vec_put(b->type, (uint8_t *)a->ff + at * tensors_size(b->type), a->dff32 + at, n_ff);
    }
    forward(a, g, DOWN, rows, a->ff, a->h2, n_embd, true);
}

static void back_ffn(const struct ae *a, struct gemm *g, uint32_t rows)
{
    const struct base *b = a->b;
    uint32_t n_embd = b->m->n_embd, n_ff = b->m->n_ff;
    size_t n = (size_t)rows * n_ff;

    vec_put(b->type, a->t_embd, a->dx, (size_t)rows * n_embd);
    back(a, g, DOWN, rows, a->t_embd, 0, n_embd, a->ff, a->dff32, false);
    vec_swiglu_back(a->gate, a->up, a->dff32, n);
    vec_put(b->type, a->dff, a->gate, n);
    back(a, g, GATE, rows, a->dff, 0, n_ff, a->y1, a->dn, false);
    vec_put(b->type, a->dff, a->up, n);
    back(a, g, UP, rows, a->dff, 0, n_ff, a->y1, a->dn, true);
    norm_rows_back(a, FFN_NORM, rows, a->h1, a->r1);
}

static void back_bias(const struct ae *a, uint32_t rows)
{
    const struct base *b = a->b;

    for (uint32_t i = 0; a->at[BQ] >= 0 && i < rows; i++) {
        const float *x = a->dqkv + (size_t)i * b->n_qkv;

        vec_add(gradient(a, BQ), x, b->n_q);
        vec_add(gradient(a, BK), x + b->n_q, b->n_kv);
        vec_add(gradient(a, BV), x + b->n_q + b->n_kv, b->n_kv);
    }
}

static void back_attention(const struct ae *a, struct gemm *g, uint32_t n, uint32_t r)
{
    const struct base *b = a->b;
    uint32_t rows = n * r, n_embd = b->m->n_embd;

    vec_put(b->type, a->t_embd, a->dx, (size_t)rows * n_embd);
    back(a, g, O, rows, a->t_embd, 0, n_embd, a->att, a->datt32, false);
    vec_put(b->type, a->datt, a->datt32, (size_t)rows * b->n_q);
#pragma omp parallel for schedule(static)
    for (uint32_t j = 0; j < n; j++)
        attend_back(&(struct snippet){ a, j, r });
    back_bias(a, rows);
    vec_put(b->type, a->t_qkv, a->dqkv, (size_t)rows * b->n_qkv);
    back(a, g, Q, rows, a->t_qkv, 0, b->n_qkv, a->y0, a->dn, false);
    back(a, g, K, rows, a->t_qkv, b->n_q, b->n_qkv, a->y0, a->dn, true);
    back(a, g, V, rows, a->t_qkv, b->n_q + b->n_kv, b->n_qkv, a->y0, a->dn, true);
    norm_rows_back(a, NORM, rows, a->h0, a->r0);
}

/* dx of inputs that are tokens' embeddings. */
static void embed_back(const struct ae *a, const struct ae_job *job, uint32_t r)
{
    const struct base *b = a->b;
    uint32_t n = b->m->n_embd;

    for (uint32_t i = 0; b->d_embd && i < job->n * r; i++)
        if (i % r)
            vec_add(b->d_embd + (size_t)job->ids[place_of(job, r, i) - 1] * n,
                    a->dx + (size_t)i * n, n);
}

/* From dx (h2) to all gradients, and dkv. */
static void decode_back(const struct ae *a, struct gemm *g, const struct ae_job *job, uint32_t r,
                        float *dkv)
{
    const struct base *b = a->b;
    size_t pair = 2 * (size_t)b->n_kv;

    back_ffn(a, g, job->n * r);
    back_attention(a, g, job->n, r);
    embed_back(a, job, r);
    for (uint32_t k = 0; k < a->shape.n_ratios; k++)
        for (uint32_t j = 0; a->shape.ratios[k] == r && j < job->n; j++)
            vec_add(gradient(a, EMBD) + (size_t)k * b->m->n_embd,
                    a->dx + (size_t)j * r * b->m->n_embd, b->m->n_embd);
    vec_put(b->type, a->t_slot, a->dslot, job->n * pair);
    back(a, g, SLOT_K, job->n, a->t_slot, 0, (uint32_t)pair, a->g, a->dg, false);
    back(a, g, SLOT_V, job->n, a->t_slot, b->n_kv, (uint32_t)pair, a->g, a->dg, true);
    for (uint32_t layer = 0; layer < b->m->n_layer; layer++)
        for (uint32_t j = 0; j < job->n; j++)
            vec_add(dkv + ((size_t)layer * job->l->n_gists + job->gists[j]) * pair,
                    a->dg + (size_t)j * a->n_slot + layer * pair, pair);
}

int ae_run(struct ae *a, struct head *h, const struct ae_job *job, float *dkv, double *ret_loss,
           uint32_t *ret_right)
{
    uint32_t r = job->l->shape.ratio, rows = job->n * r;
    struct gemm *g = tensors_cpu_gemm(a->b->on);
    struct head_loss loss;
    int err;

    *ret_loss = 0;
    if (ret_right)
        *ret_right = 0;
    if (rows == 0)
        return 0;
    if (rows > a->shape.max_tokens)
        return -E2BIG;
    load(a, job, r);
    decode(a, g, job->n, r);
    memset(a->dx, 0, (size_t)rows * a->b->m->n_embd * sizeof(float));
    err = head_run(h, a->h2, a->rows, rows, 0, NULL, dkv ? a->dx : NULL, &loss);
    if (err < 0)
        return err;
    *ret_loss = loss.targets / job->scale;
    if (ret_right)
        *ret_right = loss.n_right;
    if (dkv)
        decode_back(a, g, job, r, dkv);
    return gemm_error(g);
}
