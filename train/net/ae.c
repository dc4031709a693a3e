/* train/net/ae.c - a decoder of one block: from the keys and values of a gist it says the snippet's
 * tokens again, and its loss trains gists to hold them.
 *
 * Rows are (slot, r tokens) of each gist, one behind the other. A slot has no input: its keys and
 * values are made of g, what all layers have of the gist, by two matrices of the decoder's.
 */
#include "train/net/ae.h"

#include "base/draw.h"
#include "train/net/mat.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The decoder's parameters, in the order in which checkpoints have them. */
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
    struct tensors *on;
    const struct tensors_ops *ops; /* on's */
    struct optim *params;
    struct ae_shape shape;
    int at[PART__N]; /* index among params; -1: the base has no such bias */
    struct matrix mat[PART__N];
    void *typed[PART__N]; /* copies for products; NULL: not a matrix */
    uint32_t n_slot;      /* width of g */
    uint32_t max_gists, max_rows;
    struct tensors_attn *attn;
    /* (max_rows), for each gist its slot and then the r tokens that it rebuilds; f32, f32, typed. A
     * slot's input is 0, and so are derivatives by its output: what layers make of it is of no use,
     * and changes no gradient. */
    float *h0, *h1, *h2, *dx, *dn, *qkv, *dqkv, *lse, *r0, *r1;
    float *counts; /* 1 for tokens, 0 for slots */
    void *y0, *y1, *att, *datt, *gate_up, *ff, *t_embd, *t_qkv;
    float *bias; /* (n_qkv); NULL: there is none */
    /* (max_gists): typed, f32. dg: g as it comes, then derivatives by it. */
    void *g;
    float *dg;
    /* The host's. */
    struct head_row *rows;
    uint32_t *to, *from;
    float *ones;
    struct sight_row *sight;
    struct sight_segment *segments;
};

/* --- open ------------------------------------------------------------------------------------- */

static struct optim_tensor *param(const struct ae *a, enum part p)
{
    return &a->params->t[a->at[p]];
}

/* What products are made with, in the run's type; the rest is f32 as it is. */
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

/* Box-Muller; u is never 0, whose logarithm is none. */
static float normal(uint64_t *state)
{
    double u = draw_unit(draw_next(state)) + 0x1p-54, v = draw_unit(draw_next(state));

    return (float)(sqrt(-2 * log(u)) * cos(2 * M_PI * v));
}

/* The last layer's key and value as they are, so that the block, which is a copy of the last layer,
 * begins with what it knows. */
static void init_slots(struct ae *a)
{
    uint32_t n = a->b->n_kv, last = 2 * (a->b->m->n_layer - 1) * n;

    for (uint32_t i = 0; i < n; i++) {
        param(a, SLOT_K)->p[(size_t)i * a->n_slot + last + i] = 1;
        param(a, SLOT_V)->p[(size_t)i * a->n_slot + last + n + i] = 1;
    }
}

/* A copy of the base's last layer. [ae]_r are random, as large as other embeddings. */
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
    float std = (float)sqrt(a->ops->sum_squares(a->on, a->b->embd, n) / (double)n);
    uint64_t state = a->shape.seed;

    for (enum part p = 0; p < PART__N; p++) {
        if (w[p])
            base_weight(w[p], param(a, p)->p);
        else if (v[p])
            memcpy(param(a, p)->p, v[p], a->mat[p].n_in * sizeof(float));
    }
    init_slots(a);
    for (size_t i = 0; i < (size_t)a->shape.n_ratios * m->n_embd; i++)
        param(a, EMBD)->p[i] = normal(&state) * std;
}

/* As train/net/net.c has it. */
static bool take(struct ae *a, void *ret_pointer, size_t rows, size_t cols, size_t size)
{
    void *p = a->ops->alloc(a->on, rows * cols * size);

    memcpy(ret_pointer, &p, sizeof(p));
    return p;
}

/* max_rows of each; of g and dg one a gist, and the bias is a vector. */
static bool take_rows(struct ae *a)
{
    const struct base *b = a->b;
    size_t n = a->max_rows, f = sizeof(float), t = tensors_size(b->type), e = b->m->n_embd,
           ff = b->m->n_ff;

    return take(a, &a->h0, n, e, f) && take(a, &a->h1, n, e, f) && take(a, &a->h2, n, e, f) &&
           take(a, &a->dx, n, e, f) && take(a, &a->dn, n, e, f) &&
           take(a, &a->qkv, n, b->n_qkv, f) && take(a, &a->dqkv, n, b->n_qkv, f) &&
           take(a, &a->lse, n, b->m->n_head, f) && take(a, &a->r0, n, 1, f) &&
           take(a, &a->r1, n, 1, f) && take(a, &a->counts, n, 1, f) && take(a, &a->y0, n, e, t) &&
           take(a, &a->y1, n, e, t) && take(a, &a->att, n, b->n_q, t) &&
           take(a, &a->datt, n, b->n_q, t) && take(a, &a->gate_up, n, 2 * ff, t) &&
           take(a, &a->ff, n, ff, t) && take(a, &a->t_embd, n, e, t) &&
           take(a, &a->t_qkv, n, b->n_qkv, t) && take(a, &a->g, a->max_gists, a->n_slot, t) &&
           take(a, &a->dg, a->max_gists, a->n_slot, f) &&
           (a->at[BQ] < 0 || take(a, &a->bias, 1, b->n_qkv, f));
}

static bool take_lists(struct ae *a)
{
    size_t n = a->max_rows;

    a->rows = malloc(a->shape.max_tokens * sizeof(*a->rows));
    a->to = malloc(n * sizeof(*a->to));
    a->from = malloc(n * sizeof(*a->from));
    a->ones = malloc(n * sizeof(*a->ones));
    a->sight = malloc(n * sizeof(*a->sight));
    a->segments = malloc(a->max_gists * sizeof(*a->segments));
    return a->rows && a->to && a->from && a->ones && a->sight && a->segments;
}

/* Names are those of checkpoints: their order and number must not change. */
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
        if (is_matrix(p) && !take(a, &a->typed[p], 1, n, tensors_size(a->b->type)))
            return -ENOMEM;
    }
    return 0;
}

/* The smallest ratio has most gists, and with them most slots. */
static struct ae describe(const struct base *b, const struct ae_shape *shape)
{
    struct ae a = { .b = b, .shape = *shape, .n_slot = b->m->n_layer * 2 * b->n_kv };
    uint32_t least = UINT32_MAX;

    for (uint32_t i = 0; i < shape->n_ratios; i++)
        least = shape->ratios[i] < least ? shape->ratios[i] : least;
    a.max_gists = shape->max_tokens / least + 1;
    a.max_rows = shape->max_tokens + a.max_gists;
    set_shapes(&a);
    return a;
}

/* A gist's rows are a segment and go as one block: there is scratch for no more of them. */
struct tensors_heads ae_heads(const struct base *b, const struct ae_shape *shape)
{
    struct tensors_heads heads = base_heads(b);

    for (uint32_t i = 0; i < shape->n_ratios; i++)
        heads.block = shape->ratios[i] >= heads.block ? shape->ratios[i] + 1 : heads.block;
    return heads;
}

/* As take_rows and add_params have it, of shapes alone. */
size_t ae_room(const struct base *b, const struct ae_shape *shape, size_t *ret_values)
{
    struct ae a = describe(b, shape);
    size_t n_embd = b->m->n_embd, n_ff = b->m->n_ff, f = sizeof(float),
           typed = tensors_size(b->type), matrices = 0,
           row = (5 * n_embd + 2 * b->n_qkv + b->m->n_head + 3) * f +
                 (3 * n_embd + 2 * b->n_q + 3 * n_ff + b->n_qkv) * typed;
    /* By the architecture, as no layer has been read. */
    bool biased = b->m->arch == MODEL_QWEN2;

    *ret_values = 0;
    for (enum part p = 0; p < PART__N; p++) {
        size_t n = (size_t)a.mat[p].n_out * a.mat[p].n_in;

        matrices += is_matrix(p) ? n : 0;
        *ret_values += !biased && (p == BQ || p == BK || p == BV) ? 0 : n;
    }
    return a.max_rows * row + (size_t)a.max_gists * a.n_slot * (f + typed) + matrices * typed +
           (biased ? b->n_qkv : 0) * f;
}

static int open_all(struct ae *a)
{
    struct tensors_heads heads = ae_heads(a->b, &a->shape);
    int r = add_params(a);

    if (r == 0 && (!take_rows(a) || !take_lists(a)))
        r = -ENOMEM;
    /* Its scratch grows with what it sees. */
    return r < 0 ? r : a->ops->attn_open(a->on, &heads, &a->attn);
}

int ae_open(const struct base *b, struct optim *params, const struct ae_shape *shape,
            struct ae **ret)
{
    struct ae *a = calloc(1, sizeof(*a));
    uint32_t first = params->n;
    int r;

    if (!a)
        return -ENOMEM;
    *a = describe(b, shape);
    a->on = b->on;
    a->ops = b->on->ops;
    a->params = params;
    r = open_all(a);
    if (r < 0) {
        ae_close(a);
        return r;
    }
    /* The values are made by the host, and put on the device as a whole. */
    init_values(a);
    optim_put(params, first);
    ae_refresh(a);
    *ret = a;
    return 0;
}

void ae_close(struct ae *a)
{
    if (!a)
        return;
    /* Parameters belong to their list. */
    void *all[] = { a->h0, a->h1,     a->h2,     a->dx, a->dn, a->qkv, a->dqkv, a->lse,
                    a->r0, a->r1,     a->counts, a->y0, a->y1, a->att, a->datt, a->gate_up,
                    a->ff, a->t_embd, a->t_qkv,  a->g,  a->dg, a->bias };

    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        if (all[i])
            a->ops->free(a->on, all[i]);
    for (enum part p = 0; p < PART__N; p++)
        if (a->typed[p])
            a->ops->free(a->on, a->typed[p]);
    if (a->attn)
        a->ops->attn_close(a->attn);
    free(a->rows);
    free(a->to);
    free(a->from);
    free(a->ones);
    free(a->sight);
    free(a->segments);
    free(a);
}

/* Where part p of the biases begins among those of qkv, and its length. qkv has one vector where
 * the decoder has three parameters. */
static uint32_t bias_at(const struct ae *a, enum part p)
{
    return p == BQ ? 0 : p == BK ? a->b->n_q : a->b->n_q + a->b->n_kv;
}

/* After each step: products are made with typed copies, and the bias is one vector. */
void ae_refresh(struct ae *a)
{
    for (enum part p = 0; p < PART__N; p++)
        if (a->typed[p])
            a->ops->narrow(a->on, a->b->type, a->typed[p], param(a, p)->p_on, param(a, p)->n);
    for (enum part p = BQ; a->bias && p <= BV; p++)
        a->ops->copy(a->on, a->bias + bias_at(a, p), param(a, p)->p_on,
                     param(a, p)->n * sizeof(float));
}

/* --- products --------------------------------------------------------------------------------- */

/* From column `col` of rows ld wide. */
static struct tensors_mat typed(const struct ae *a, const void *p, size_t col, uint32_t ld)
{
    return (struct tensors_mat){ (const uint8_t *)p + col * tensors_size(a->b->type), ld,
                                 a->b->type, false };
}

/* y (n) (+)= x W^T, x typed and as wide as W */
static void forward(const struct ae *a, enum part p, uint32_t n, const void *x,
                    struct tensors_mat y, bool add)
{
    struct matrix w = a->mat[p];

    mat_multiply(a->on, n, w.n_out, w.n_in, typed(a, x, 0, w.n_in),
                 mat_turned(typed(a, a->typed[p], 0, w.n_in)), y, add);
}

/* dy typed: dW += dy^T x, then dx (+)= dy W, which may be where x was. dW before dx: dx may be
 * written over x, which dW needs. */
static void back(const struct ae *a, enum part p, uint32_t n, struct tensors_mat dy, const void *x,
                 struct tensors_mat dx, bool add)
{
    struct matrix w = a->mat[p];

    mat_multiply(a->on, w.n_out, w.n_in, n, mat_turned(dy), typed(a, x, 0, w.n_in),
                 mat_floats(param(a, p)->g, w.n_in), true);
    mat_multiply(a->on, n, w.n_in, w.n_out, dy, typed(a, a->typed[p], 0, w.n_in), dx, add);
}

static void norm_rows(const struct ae *a, enum part p, uint32_t n, const float *x, float *ret_r,
                      void *ret_y)
{
    struct tensors_norm norm = { .x = x,
                                 .w = param(a, p)->p_on,
                                 .n_rows = n,
                                 .n = a->b->m->n_embd,
                                 .eps = a->b->m->rms_eps,
                                 .y = ret_y,
                                 .type = a->b->type,
                                 .r = ret_r };

    a->ops->norm(a->on, &norm);
}

/* dn holds derivatives by the normed rows; dx gets those by x, the weight's gradient is added to.
 */
static void norm_rows_back(const struct ae *a, enum part p, uint32_t n, const float *x,
                           const float *r)
{
    uint32_t n_embd = a->b->m->n_embd;
    struct tensors_sum weight = {
        .d = a->dn, .by = r, .x = x, .n_rows = n, .n = n_embd, .y = param(a, p)->g
    };
    struct tensors_norm_back norm = {
        .x = x, .w = param(a, p)->p_on, .r = r, .n_rows = n, .n = n_embd, .dy = a->dn, .dx = a->dx
    };

    a->ops->sum_rows(a->on, &weight);
    a->ops->norm_back(a->on, &norm);
}

/* --- one call --------------------------------------------------------------------------------- */

/* The row of token i. A slot stands before each r of them. */
static uint32_t row_of(uint32_t r, uint32_t i)
{
    return i + i / r + 1;
}

/* The place in the text that token i of the decoder rebuilds. A gist's row has the snippet's last
 * token. */
static uint32_t place_of(const struct ae_job *job, uint32_t r, uint32_t i)
{
    const struct layout_gist *gist = &job->l->gists[job->gists[i / r]];

    return job->l->rows[gist->row].token + 1 - r + i % r;
}

/* r is one of the shape's: the search ends at the last in any case. */
static uint32_t index_of(const struct ae *a, uint32_t r)
{
    uint32_t k = 0;

    while (k + 1 < a->shape.n_ratios && a->shape.ratios[k] != r)
        k++;
    return k;
}

/* y (n_rows, n_embd): rows of the table by a->from. */
static void take_embd(const struct ae *a, const float *table, uint32_t n_rows)
{
    struct tensors_take t = {
        .table = table, .index = a->from, .n_rows = n_rows, .n = a->b->m->n_embd, .y = a->h0
    };

    a->ops->take(a->on, &t);
}

/* Row 0 of a gist, its slot, gets nothing; row 1 gets [ae]_r; row i the token before the one that
 * it says. */
static void load_inputs(const struct ae *a, const struct ae_job *job, uint32_t r)
{
    uint32_t rows = job->n * (r + 1), slot = r + 1;

    a->ops->clear(a->on, a->h0, (size_t)rows * a->b->m->n_embd * sizeof(float));
    for (uint32_t i = 0; i < rows; i++)
        a->from[i] = i % slot < 2 ? SIGHT_NO_ROW
                                  : job->ids[place_of(job, r, i / slot * r + i % slot - 1) - 1];
    take_embd(a, a->b->embd, rows);
    for (uint32_t i = 0; i < rows; i++)
        a->from[i] = i % slot == 1 ? index_of(a, r) : SIGHT_NO_ROW;
    take_embd(a, param(a, EMBD)->p_on, rows);
}

/* g (gists, n_layer, k v), gathered in f32 in dg's place, then typed. */
static void load_slots(const struct ae *a, const struct ae_job *job)
{
    const struct base *b = a->b;
    uint32_t pair = 2 * b->n_kv;

    for (uint32_t j = 0; j < job->n; j++)
        a->from[j] = job->l->gists[job->gists[j]].kv;
    for (uint32_t layer = 0; layer < b->m->n_layer; layer++) {
        struct tensors_take t = { .table = net_qkv(job->net, layer) + b->n_q,
                                  .ld = b->n_qkv,
                                  .index = a->from,
                                  .n_rows = job->n,
                                  .n = pair,
                                  .y = a->dg + (size_t)layer * pair,
                                  .ld_y = a->n_slot };

        a->ops->take(a->on, &t);
    }
    a->ops->narrow(a->on, b->type, a->g, a->dg, (size_t)job->n * a->n_slot);
}

/* A slot stands at 0, and its tokens see it and each other up to themselves. Causal, within the
 * gist's own rows. ones: 0 for slots. */
static void see(const struct ae *a, uint32_t n, uint32_t r)
{
    uint32_t rows = n * (r + 1);
    struct sight sight = { a->sight, NULL, a->segments, rows, 0, n, 0, r + 1 };

    for (uint32_t i = 0; i < rows; i++) {
        uint32_t pos = i % (r + 1);

        a->sight[i] = (struct sight_row){ .pos = pos, .raw_end = pos + 1, .from = SIGHT_NO_ROW };
        a->ones[i] = pos > 0;
    }
    for (uint32_t j = 0; j < n; j++)
        a->segments[j] = (struct sight_segment){ .raw = j * (r + 1), .n_raw = r + 1 };
    a->ops->attn_see(a->attn, &sight);
    a->ops->put(a->on, a->counts, a->ones, rows * sizeof(*a->ones));
}

/* Every token of every snippet weighs the same. */
static void load(const struct ae *a, const struct ae_job *job, uint32_t r)
{
    load_inputs(a, job, r);
    load_slots(a, job);
    see(a, job->n, r);
    for (uint32_t i = 0; i < job->n * r; i++)
        a->rows[i] = (struct head_row){ .row = row_of(r, i),
                                        .target = job->ids[place_of(job, r, i)],
                                        .weight = job->scale / (float)(job->n * r) };
}

/* h0: inputs; h1: with attention's result; h2: with the feed-forward's. */
static void decode(const struct ae *a, uint32_t n, uint32_t r)
{
    const struct base *b = a->b;
    uint32_t rows = n * (r + 1), n_embd = b->m->n_embd, n_ff = b->m->n_ff,
             slot_ld = (r + 1) * b->n_qkv;
    float *k = a->qkv + b->n_q, *v = k + b->n_kv;
    size_t x_len = (size_t)rows * n_embd * sizeof(float);
    struct tensors_attend attend = { 0, n, a->qkv, a->att, a->lse };

    norm_rows(a, NORM, rows, a->h0, a->r0, a->y0);
    forward(a, Q, rows, a->y0, mat_floats(a->qkv, b->n_qkv), false);
    forward(a, K, rows, a->y0, mat_floats(k, b->n_qkv), false);
    forward(a, V, rows, a->y0, mat_floats(v, b->n_qkv), false);
    if (a->bias)
        a->ops->add(a->on, a->qkv, a->bias, rows, b->n_qkv);
    /* Over what the slot's empty row gave: rows (r + 1) apart. */
    forward(a, SLOT_K, n, a->g, mat_floats(k, slot_ld), false);
    forward(a, SLOT_V, n, a->g, mat_floats(v, slot_ld), false);
    a->ops->attend(a->attn, &attend);
    /* The residual, to which the product adds. */
    a->ops->copy(a->on, a->h1, a->h0, x_len);
    forward(a, O, rows, a->att, mat_floats(a->h1, n_embd), true);
    norm_rows(a, FFN_NORM, rows, a->h1, a->r1, a->y1);
    forward(a, GATE, rows, a->y1, typed(a, a->gate_up, 0, 2 * n_ff), false);
    forward(a, UP, rows, a->y1, typed(a, a->gate_up, n_ff, 2 * n_ff), false);
    a->ops->swiglu(a->on, b->type, a->ff, a->gate_up, rows, n_ff);
    a->ops->copy(a->on, a->h2, a->h1, x_len);
    forward(a, DOWN, rows, a->ff, mat_floats(a->h2, n_embd), true);
}

/* dx: by h2, then by h1. ff and gate_up become derivatives by themselves. */
static void back_ffn(const struct ae *a, uint32_t rows)
{
    const struct base *b = a->b;
    uint32_t n_embd = b->m->n_embd, n_ff = b->m->n_ff;

    a->ops->narrow(a->on, b->type, a->t_embd, a->dx, (size_t)rows * n_embd);
    back(a, DOWN, rows, typed(a, a->t_embd, 0, n_embd), a->ff, typed(a, a->ff, 0, n_ff), false);
    a->ops->swiglu_back(a->on, b->type, a->gate_up, a->ff, rows, n_ff);
    back(a, GATE, rows, typed(a, a->gate_up, 0, 2 * n_ff), a->y1, mat_floats(a->dn, n_embd), false);
    back(a, UP, rows, typed(a, a->gate_up, n_ff, 2 * n_ff), a->y1, mat_floats(a->dn, n_embd), true);
    norm_rows_back(a, FFN_NORM, rows, a->h1, a->r1);
}

/* A slot has no bias: SLOT_K and SLOT_V made its keys. So by counts. */
static void back_bias(const struct ae *a, uint32_t rows)
{
    for (enum part p = BQ; a->bias && p <= BV; p++) {
        struct tensors_sum sum = { .d = a->dqkv + bias_at(a, p),
                                   .ld = a->b->n_qkv,
                                   .by = a->counts,
                                   .n_rows = rows,
                                   .n = (uint32_t)param(a, p)->n,
                                   .y = param(a, p)->g };

        a->ops->sum_rows(a->on, &sum);
    }
}

/* dx: by h1, then by h0. dg: by g. */
static void back_attention(const struct ae *a, uint32_t n, uint32_t r)
{
    const struct base *b = a->b;
    uint32_t rows = n * (r + 1), n_embd = b->m->n_embd, slot_ld = (r + 1) * b->n_qkv, k = b->n_q,
             v = k + b->n_kv;
    size_t n_dqkv = (size_t)rows * b->n_qkv;
    struct tensors_attend_back attend = { { 0, n, a->qkv, a->att, a->lse }, a->datt, a->dqkv };
    struct tensors_mat dn = mat_floats(a->dn, n_embd), dg = mat_floats(a->dg, a->n_slot);

    a->ops->narrow(a->on, b->type, a->t_embd, a->dx, (size_t)rows * n_embd);
    back(a, O, rows, typed(a, a->t_embd, 0, n_embd), a->att, typed(a, a->datt, 0, b->n_q), false);
    a->ops->clear(a->on, a->dqkv, n_dqkv * sizeof(float));
    a->ops->attend_back(a->attn, &attend);
    back_bias(a, rows);
    a->ops->narrow(a->on, b->type, a->t_qkv, a->dqkv, n_dqkv);
    /* dg begins here: what it held, g in f32, is not needed any more. */
    back(a, SLOT_K, n, typed(a, a->t_qkv, k, slot_ld), a->g, dg, false);
    back(a, SLOT_V, n, typed(a, a->t_qkv, v, slot_ld), a->g, dg, true);
    /* Slots' rows are in it, too; their normed input is 0, and adds nothing to a weight. */
    back(a, Q, rows, typed(a, a->t_qkv, 0, b->n_qkv), a->y0, dn, false);
    back(a, K, rows, typed(a, a->t_qkv, k, b->n_qkv), a->y0, dn, true);
    back(a, V, rows, typed(a, a->t_qkv, v, b->n_qkv), a->y0, dn, true);
    norm_rows_back(a, NORM, rows, a->h0, a->r0);
}

/* dx of inputs that are tokens' embeddings, and of those that are an [ae]_r. Each token's input is
 * the one before it; a gist's first has [ae]_r. */
static void embed_back(const struct ae *a, const struct ae_job *job, uint32_t r)
{
    const struct base *b = a->b;
    struct tensors_give tokens = {
        a->dx, a->to, a->from, 0, b->m->n_vocab, b->m->n_embd, b->d_embd
    };
    struct tensors_give first = {
        a->dx, a->to, a->from, job->n, a->shape.n_ratios, b->m->n_embd, param(a, EMBD)->g
    };

    for (uint32_t i = 0; b->d_embd && i < job->n * r; i++)
        if (i % r) {
            a->to[tokens.n_pairs] = job->ids[place_of(job, r, i) - 1];
            a->from[tokens.n_pairs++] = row_of(r, i);
        }
    /* The base does not train otherwise: its embeddings are as they are. */
    if (b->d_embd)
        a->ops->give(a->on, &tokens);
    for (uint32_t j = 0; j < job->n; j++) {
        a->to[j] = index_of(a, r);
        a->from[j] = row_of(r, j * r);
    }
    a->ops->give(a->on, &first);
}

int ae_run(struct ae *a, struct head *h, const struct ae_job *job, struct net_more *ret_more,
           double *ret_loss, uint32_t *ret_right)
{
    uint32_t r = job->l->shape.ratio, rows = job->n * (r + 1);
    struct head_loss loss;
    int err;

    *ret_loss = 0;
    if (ret_right)
        *ret_right = 0;
    if (ret_more)
        *ret_more = (struct net_more){ a->dg, job->gists, job->n };
    if (job->n == 0)
        return 0;
    /* In 32 bits: both are no more than a sequence has tokens. */
    if (job->n * r > a->shape.max_tokens || rows > a->max_rows)
        return -E2BIG;
    load(a, job, r);
    decode(a, job->n, r);
    a->ops->clear(a->on, a->dx, (size_t)rows * a->b->m->n_embd * sizeof(float));
    /* Through the base's own output matrix. */
    err = head_run(h, a->h2, a->rows, job->n * r, 0, NULL, ret_more ? a->dx : NULL, &loss);
    if (err < 0)
        return err;
    *ret_loss = loss.targets / job->scale;
    if (ret_right)
        *ret_right = loss.n_right;
    /* An evaluation: nothing is trained. */
    if (!ret_more)
        return 0;
    back_ffn(a, rows);
    back_attention(a, job->n, r);
    embed_back(a, job, r);
    return a->ops->error(a->on);
}
