/* train/net/net.c - the layers, forward and back, as a list of operations of engine/tensors.h: the
 * same on a CPU and on a device, where they are queued and nothing here waits.
 *
 * A layer, of rows [first, end), R wide in all; W is the base's, or of gists' rows their own where
 * they have one:
 *
 *     x ---------------+--------------------+---> x          x_in, x_mid: x before each half
 *       norm | qkv | attend | o     norm | gate_up | swiglu | down
 *
 * On the way back dx is the derivative by x, and each half adds to it what comes through its norm.
 * Scratch (t_embd, t_ff, t_qkv, t_q, dn) is the layer's that runs, so what the way back needs of it
 * is computed again from what is kept.
 */
#include "train/net/net.h"

#include "train/net/mat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What a layer's derivative needs. */
struct kept {
    float *x_in, *x_mid; /* (R, n_embd) */
    float *r_in, *r_mid; /* (R): 1 / rms of the two */
    float *qkv, *lse;    /* (R, n_qkv), (R, n_head) */
    void *att, *gate_up; /* (R, n_q), (R, 2 n_ff), typed */
};

struct net {
    const struct base *b;
    struct tensors *on;
    const struct tensors_ops *ops; /* on's */
    struct tensors_attn *attn;
    uint32_t max_rows;
    bool checkpointing, staged;
    struct kept *kept; /* (n_layer): with checkpointing they share all but x_in */
    float *x, *dn;
    float *dqkv;   /* (R, n_qkv); with several stages (n_layer, R, n_qkv): later ones add to it */
    float *again;  /* checkpointing: x of a layer that is computed once more */
    float *r_soft; /* (R): 1 / rms of the hidden states that soft tokens read */
    void *t_embd, *t_ff, *t_qkv; /* typed (R, n_embd), (R, n_ff), (R, n_qkv) */
    void *t_q;                   /* typed (R, n_q) */
    uint32_t *to, *from;         /* (R), the host's: lists of rows */
    size_t bytes;
};

/* Rows [first, end) of a stage. */
struct pass {
    struct net *n;
    const struct net_gist *gist;
    const struct layout *l;
    const uint32_t *ids;
    const struct layout_stage *stage;
    uint32_t first, end;
};

/* --- memory ----------------------------------------------------------------------------------- */

/* memcpy, since a pointer to any pointer may not be written through. */
static bool take(struct net *n, void *ret_pointer, size_t cols, size_t size)
{
    size_t len = (size_t)n->max_rows * cols * size;
    void *p = n->ops->alloc(n->on, len);

    memcpy(ret_pointer, &p, sizeof(p));
    n->bytes += len;
    return p;
}

/* shared: the first layer's, whose arrays all others use, too. A layer's input is its own always:
 * the way back begins from it. */
static bool take_kept(struct net *n, struct kept *k, const struct kept *shared)
{
    const struct base *b = n->b;
    size_t typed = tensors_size(b->type);

    if (shared)
        *k = *shared;
    k->x_in = NULL;
    if (!take(n, &k->x_in, b->m->n_embd, sizeof(float)))
        return false;
    return shared ||
           (take(n, &k->x_mid, b->m->n_embd, sizeof(float)) &&
            take(n, &k->r_in, 1, sizeof(float)) && take(n, &k->r_mid, 1, sizeof(float)) &&
            take(n, &k->qkv, b->n_qkv, sizeof(float)) &&
            take(n, &k->lse, b->m->n_head, sizeof(float)) && take(n, &k->att, b->n_q, typed) &&
            take(n, &k->gate_up, 2 * b->m->n_ff, typed));
}

static bool take_all(struct net *n)
{
    const struct base *b = n->b;
    size_t typed = tensors_size(b->type);

    n->kept = calloc(b->m->n_layer, sizeof(*n->kept));
    n->to = malloc(n->max_rows * sizeof(*n->to));
    n->from = malloc(n->max_rows * sizeof(*n->from));
    if (!n->kept || !n->to || !n->from)
        return false;
    for (uint32_t i = 0; i < b->m->n_layer; i++)
        if (!take_kept(n, &n->kept[i], n->checkpointing && i > 0 ? &n->kept[0] : NULL))
            return false;
    return take(n, &n->x, b->m->n_embd, sizeof(float)) &&
           take(n, &n->dn, b->m->n_embd, sizeof(float)) &&
           /* Gists in memory get derivatives from later stages before their own stage's turn comes:
            * each layer's are kept until then. */
           take(n, &n->dqkv, (size_t)(n->staged ? b->m->n_layer : 1) * b->n_qkv, sizeof(float)) &&
           take(n, &n->r_soft, 1, sizeof(float)) &&
           (!n->checkpointing || take(n, &n->again, b->m->n_embd, sizeof(float))) &&
           take(n, &n->t_embd, b->m->n_embd, typed) && take(n, &n->t_ff, b->m->n_ff, typed) &&
           take(n, &n->t_qkv, b->n_qkv, typed) && take(n, &n->t_q, b->n_q, typed);
}

/* As take_all has it. */
size_t net_room(const struct base *b, uint32_t max_rows, bool checkpointing, bool staged)
{
    const struct model *m = b->m;
    size_t n_embd = m->n_embd, n_ff = m->n_ff, n_layer = m->n_layer, f = sizeof(float),
           typed = tensors_size(b->type),
           rest = (n_embd + 2 + b->n_qkv + m->n_head) * f + (b->n_q + 2 * n_ff) * typed,
           kept = n_layer * n_embd * f + (checkpointing ? 1 : n_layer) * rest,
           once = ((checkpointing ? 3 : 2) * n_embd + (staged ? n_layer : 1) * b->n_qkv + 1) * f +
                  (n_embd + n_ff + b->n_qkv + b->n_q) * typed;

    return max_rows * (kept + once);
}

int net_open(const struct base *b, uint32_t max_rows, bool checkpointing, bool staged,
             struct net **ret)
{
    struct tensors_heads heads = base_heads(b);
    struct net *n;
    int r;

    /* A stage's keys would be overwritten by the next layer, while later stages still attend to
     * them. */
    if (checkpointing && staged)
        return -EINVAL;
    n = calloc(1, sizeof(*n));
    if (!n)
        return -ENOMEM;
    n->b = b;
    n->on = b->on;
    n->ops = b->on->ops;
    n->max_rows = max_rows;
    n->checkpointing = checkpointing;
    n->staged = staged;
    r = n->ops->attn_open(n->on, &heads, &n->attn);
    if (r == 0 && !take_all(n))
        r = -ENOMEM;
    if (r < 0) {
        net_close(n);
        return r;
    }
    *ret = n;
    return 0;
}

static void give_back(struct net *n, void *p)
{
    if (p)
        n->ops->free(n->on, p);
}

static void free_kept(struct net *n, struct kept *k, bool shared)
{
    give_back(n, k->x_in);
    if (shared)
        return;
    give_back(n, k->x_mid);
    give_back(n, k->r_in);
    give_back(n, k->r_mid);
    give_back(n, k->qkv);
    give_back(n, k->lse);
    give_back(n, k->att);
    give_back(n, k->gate_up);
}

void net_close(struct net *n)
{
    if (!n)
        return;
    for (uint32_t i = n->kept ? n->b->m->n_layer : 0; i-- > 0;)
        free_kept(n, &n->kept[i], n->checkpointing && i > 0);
    give_back(n, n->x);
    give_back(n, n->dn);
    give_back(n, n->dqkv);
    give_back(n, n->again);
    give_back(n, n->r_soft);
    give_back(n, n->t_embd);
    give_back(n, n->t_ff);
    give_back(n, n->t_qkv);
    give_back(n, n->t_q);
    if (n->attn)
        n->ops->attn_close(n->attn);
    free(n->kept);
    free(n->to);
    free(n->from);
    free(n);
}

/* Of the same shapes and type. */
void net_set_base(struct net *n, const struct base *b)
{
    n->b = b;
}

size_t net_bytes(const struct net *n)
{
    return n->bytes;
}

/* Of the last forward pass; with checkpointing of the last layer alone. */
const float *net_qkv(const struct net *n, uint32_t layer)
{
    return n->kept[layer].qkv;
}

/* --- rows ------------------------------------------------------------------------------------- */

static void *typed_row(const struct base *b, const void *p, size_t row, size_t cols)
{
    return (uint8_t *)p + row * cols * tensors_size(b->type);
}

/* (R, cols), as it lies. */
static struct tensors_mat typed(const struct base *b, const void *p, uint32_t cols)
{
    return base_mat(b, p, cols, false);
}

/* t_embd gets the normed rows of x, r (may be NULL) their 1 / rms. */
static void norm_rows(const struct pass *p, uint32_t first, const float *x, const float *w,
                      float *ret_r)
{
    const struct base *b = p->n->b;
    uint32_t n = b->m->n_embd;
    struct tensors_norm a = { .x = x + (size_t)first * n,
                              .w = w,
                              .n_rows = p->end - first,
                              .n = n,
                              .eps = b->m->rms_eps,
                              .y = typed_row(b, p->n->t_embd, first, n),
                              .type = b->type,
                              .r = ret_r ? ret_r + first : NULL };

    p->n->ops->norm(p->n->on, &a);
}

/* dx += the derivative by x, dw (may be NULL) that by w, of dn. Operands are those of norm_rows: dw
 * is summed first, as norm_back may change dn. */
static void norm_rows_back(const struct pass *p, float *dx, const float *x, const float *w,
                           const float *r, float *dw)
{
    float *dn = p->n->dn;
    uint32_t n = p->n->b->m->n_embd;
    size_t at = (size_t)p->first * n;
    struct tensors_norm_back a = { .x = x + at,
                                   .w = w,
                                   .r = r + p->first,
                                   .n_rows = p->end - p->first,
                                   .n = n,
                                   .dy = dn + at,
                                   .dx = dx + at };
    struct tensors_sum weight = { a.dy, a.r, a.x, NULL, a.n_rows, n, 0, dw };

    if (dw)
        p->n->ops->sum_rows(p->n->on, &weight);
    p->n->ops->norm_back(p->n->on, &a);
}

/* dst (R, cols) typed gets src. */
static void put_rows(const struct pass *p, void *dst, const float *src, uint32_t cols)
{
    const struct base *b = p->n->b;

    p->n->ops->narrow(p->n->on, b->type, typed_row(b, dst, p->first, cols),
                      src + (size_t)p->first * cols, (size_t)(p->end - p->first) * cols);
}

static void add_bias(const struct pass *p, float *qkv, const float *bias)
{
    uint32_t n = p->n->b->n_qkv;

    if (bias)
        p->n->ops->add(p->n->on, qkv + (size_t)p->first * n, bias, p->end - p->first, n);
}

/* --- a layer ---------------------------------------------------------------------------------- */

/* Where the stage's gists begin: at its end when it has none. They are the last rows of each stage.
 */
static uint32_t gists_at(const struct pass *p)
{
    return p->stage->gists > p->first ? p->stage->gists : p->first;
}

/* Gists have a matrix of their own, and there are some. Without an adapter (evaluations of the
 * base) there are no gists. */
static bool gists_own(const struct pass *p, uint32_t layer, enum base_matrix w)
{
    return gists_at(p) < p->end && p->gist->layers[layer].w[w];
}

static struct tensors_mat from_row(struct tensors_mat m, uint32_t row)
{
    m.p = (const uint8_t *)m.p + (size_t)row * m.ld * tensors_size(m.type);
    return m;
}

/* y (R, n_out) (+)= x (R, n_in) W^T; back: (R, n_in) of (R, n_out) by W. Gists' rows by their own
 * W. At most two products: of the rows before the stage's gists, and of gists. */
static void product(const struct pass *p, uint32_t layer, enum base_matrix w, bool back,
                    struct tensors_mat x, struct tensors_mat y, bool add)
{
    const struct base *b = p->n->b;
    uint32_t n_out = base_n_out(b, w), n_in = base_n_in(b, w);
    uint32_t gists = gists_own(p, layer, w) ? gists_at(p) : p->end;
    uint32_t to = back ? n_in : n_out, from = back ? n_out : n_in;

    if (gists > p->first)
        mat_multiply(p->n->on, gists - p->first, to, from, from_row(x, p->first),
                     base_mat(b, b->layers[layer].w[w], n_in, !back), from_row(y, p->first), add);
    if (gists < p->end)
        mat_multiply(p->n->on, p->end - gists, to, from, from_row(x, gists),
                     base_mat(b, p->gist->layers[layer].w[w], n_in, !back), from_row(y, gists),
                     add);
}

/* The first row whose W is trained; the pass's end: none is. Rows behind it are trained too.
 * Gradients of W alone need the rows that went into it; where nothing is trained they are not
 * computed again. */
static uint32_t trained_at(const struct pass *p, uint32_t layer, enum base_matrix w)
{
    if (p->n->b->layers[layer].d[w])
        return p->first;
    return gists_own(p, layer, w) ? gists_at(p) : p->end;
}

/* Derivatives of the W of rows [first, end): += dy^T x, dy (R, n_out), x (R, n_in). */
static void weight_rows_back(const struct pass *p, enum base_matrix w, uint32_t first, uint32_t end,
                             struct tensors_mat dy, struct tensors_mat x, float *d)
{
    const struct base *b = p->n->b;
    uint32_t n_in = base_n_in(b, w);

    if (first == end || !d)
        return;
    mat_multiply(p->n->on, base_n_out(b, w), n_in, end - first, mat_turned(from_row(dy, first)),
                 from_row(x, first), mat_floats(d, n_in), true);
}

/* Where gists have no matrix of their own they are rows of the base's. */
static void weight_back(const struct pass *p, uint32_t layer, enum base_matrix w,
                        struct tensors_mat dy, struct tensors_mat x)
{
    bool own = gists_own(p, layer, w);
    uint32_t gists = own ? gists_at(p) : p->end;

    weight_rows_back(p, w, p->first, gists, dy, x, p->n->b->layers[layer].d[w]);
    if (own)
        weight_rows_back(p, w, gists, p->end, dy, x, p->gist->layers[layer].d[w]);
}

/* d (n_qkv) += the sum of the rows. */
static void bias_back(const struct pass *p, const float *dqkv, float *d)
{
    uint32_t n = p->n->b->n_qkv;
    struct tensors_sum sum = {
        .d = dqkv + (size_t)p->first * n, .n_rows = p->end - p->first, .n = n, .y = d
    };

    if (d)
        p->n->ops->sum_rows(p->n->on, &sum);
}

/* t_ff = swiglu of gate_up */
static void swiglu_rows(const struct pass *p, uint32_t first, const void *gate_up)
{
    const struct base *b = p->n->b;
    uint32_t n_ff = b->m->n_ff;

    p->n->ops->swiglu(p->n->on, b->type, typed_row(b, p->n->t_ff, first, n_ff),
                      typed_row(b, gate_up, first, 2 * n_ff), p->end - first, n_ff);
}

static struct tensors_attend attend_of(const struct pass *p, const struct kept *k)
{
    return (struct tensors_attend){ p->stage->first_segment, p->stage->end_segment, k->qkv, k->att,
                                    k->lse };
}

/* x (R, n_embd): in its place. Everything the derivative needs is left in `kept`. */
static void forward_layer(const struct pass *p, uint32_t layer, float *x)
{
    struct net *n = p->n;
    const struct base *b = n->b;
    const struct base_layer *w = &b->layers[layer];
    struct kept *k = &n->kept[layer];
    uint32_t first = p->first, n_embd = b->m->n_embd, n_ff = b->m->n_ff;
    size_t at = (size_t)first * n_embd, x_len = (size_t)(p->end - first) * n_embd * sizeof(*x);
    struct tensors_attend attend = attend_of(p, k);

    /* With checkpointing this is where the layer's input is still found on the way back. */
    n->ops->copy(n->on, k->x_in + at, x + at, x_len);
    norm_rows(p, first, x, w->attn_norm, k->r_in);
    product(p, layer, BASE_QKV, false, typed(b, n->t_embd, n_embd), mat_floats(k->qkv, b->n_qkv),
            false);
    add_bias(p, k->qkv, w->bias);
    n->ops->attend(n->attn, &attend);
    product(p, layer, BASE_O, false, typed(b, k->att, b->n_q), mat_floats(x, n_embd), true);
    n->ops->copy(n->on, k->x_mid + at, x + at, x_len);
    norm_rows(p, first, x, w->ffn_norm, k->r_mid);
    product(p, layer, BASE_GATE_UP, false, typed(b, n->t_embd, n_embd),
            typed(b, k->gate_up, 2 * n_ff), false);
    swiglu_rows(p, first, k->gate_up);
    product(p, layer, BASE_DOWN, false, typed(b, n->t_ff, n_ff), mat_floats(x, n_embd), true);
}

/* gate_up becomes the derivative by it, from the one of t_ff. */
static void swiglu_rows_back(const struct pass *p, void *gate_up)
{
    const struct base *b = p->n->b;
    uint32_t n_ff = b->m->n_ff;

    p->n->ops->swiglu_back(p->n->on, b->type, typed_row(b, gate_up, p->first, 2 * n_ff),
                           typed_row(b, p->n->t_ff, p->first, n_ff), p->end - p->first, n_ff);
}

/* dx is that of the layer's output, and becomes that of x_mid. t_ff has been overwritten by later
 * layers: where down's gradient is wanted the rows are made again. */
static void back_ffn(const struct pass *p, uint32_t layer, float *dx)
{
    struct net *n = p->n;
    const struct base *b = n->b;
    const struct base_layer *w = &b->layers[layer];
    struct kept *k = &n->kept[layer];
    uint32_t n_embd = b->m->n_embd, n_ff = b->m->n_ff;
    struct tensors_mat dy = typed(b, n->t_embd, n_embd), ff = typed(b, n->t_ff, n_ff),
                       d_gate_up = typed(b, k->gate_up, 2 * n_ff);

    put_rows(p, n->t_embd, dx, n_embd);
    if (trained_at(p, layer, BASE_DOWN) < p->end) {
        swiglu_rows(p, trained_at(p, layer, BASE_DOWN), k->gate_up);
        weight_back(p, layer, BASE_DOWN, dy, ff);
    }
    product(p, layer, BASE_DOWN, true, dy, ff, false);
    /* From here on gate_up has derivatives: a layer goes back once. */
    swiglu_rows_back(p, k->gate_up);
    if (trained_at(p, layer, BASE_GATE_UP) < p->end) {
        norm_rows(p, trained_at(p, layer, BASE_GATE_UP), k->x_mid, w->ffn_norm, NULL);
        weight_back(p, layer, BASE_GATE_UP, d_gate_up, typed(b, n->t_embd, n_embd));
    }
    product(p, layer, BASE_GATE_UP, true, d_gate_up, mat_floats(n->dn, n_embd), false);
    norm_rows_back(p, dx, k->x_mid, w->ffn_norm, k->r_mid, w->d_ffn_norm);
}

/* The caller's derivatives by what gists leave in memory. more->d is (gists, layers, 2 n_kv), k
 * before v as in a row of qkv. */
static void add_more(const struct pass *p, uint32_t layer, const struct net_more *more, float *dqkv)
{
    const struct base *b = p->n->b;
    uint32_t n = 2 * b->n_kv;

    if (!more)
        return;
    struct tensors_take a = { .table = more->d + (size_t)layer * n,
                              .ld = b->m->n_layer * n,
                              .index = p->n->from,
                              .n_rows = p->end - p->first,
                              .n = n,
                              .add = true,
                              .y = dqkv + (size_t)p->first * b->n_qkv + b->n_q,
                              .ld_y = b->n_qkv };

    /* A row that is nobody's adds nothing. */
    for (uint32_t i = 0; i < a.n_rows; i++)
        p->n->from[i] = SIGHT_NO_ROW;
    for (uint32_t j = 0; j < more->n; j++) {
        uint32_t row = p->l->gists[more->gists[j]].kv;

        if (row >= p->first && row < p->end)
            p->n->from[row - p->first] = j;
    }
    p->n->ops->take(p->n->on, &a);
}

/* dx (R, n_embd): of the output, then of the input. */
static void back_layer(const struct pass *p, uint32_t layer, float *dx, const struct net_more *more)
{
    struct net *n = p->n;
    const struct base *b = n->b;
    const struct base_layer *w = &b->layers[layer];
    struct kept *k = &n->kept[layer];
    uint32_t n_embd = b->m->n_embd;
    struct tensors_mat dy = typed(b, n->t_embd, n_embd), d_qkv = typed(b, n->t_qkv, b->n_qkv);
    size_t dqkv_len = (size_t)n->max_rows * b->n_qkv;
    float *dqkv = n->dqkv + (n->staged ? layer * dqkv_len : 0);
    struct tensors_attend_back attend = { attend_of(p, k), n->t_q, dqkv };

    /* Frozen rows have no derivatives, but attention adds some to their keys: they are cleared with
     * the rest and never read. */
    if (!n->staged)
        n->ops->clear(n->on, dqkv, dqkv_len * sizeof(*dqkv));
    back_ffn(p, layer, dx);
    put_rows(p, n->t_embd, dx, n_embd);
    weight_back(p, layer, BASE_O, dy, typed(b, k->att, b->n_q));
    product(p, layer, BASE_O, true, dy, typed(b, n->t_q, b->n_q), false);
    n->ops->attend_back(n->attn, &attend);
    add_more(p, layer, more, dqkv);
    put_rows(p, n->t_qkv, dqkv, b->n_qkv);
    bias_back(p, dqkv, w->d_bias);
    if (trained_at(p, layer, BASE_QKV) < p->end) {
        norm_rows(p, trained_at(p, layer, BASE_QKV), k->x_in, w->attn_norm, NULL);
        weight_back(p, layer, BASE_QKV, d_qkv, typed(b, n->t_embd, n_embd));
    }
    product(p, layer, BASE_QKV, true, d_qkv, mat_floats(n->dn, n_embd), false);
    norm_rows_back(p, dx, k->x_in, w->attn_norm, k->r_in, w->d_attn_norm);
}

/* --- the whole -------------------------------------------------------------------------------- */

/* Of gist j: which row of its embedding it has. */
static uint32_t embd_of(const struct pass *p, uint32_t j)
{
    uint32_t index = p->l->gists[j].index, last = p->gist->n_embds - 1;

    return index < last ? index : last;
}

static void take_rows(const struct pass *p, const float *table, bool add)
{
    uint32_t n = p->n->b->m->n_embd;
    struct tensors_take a = { .table = table,
                              .index = p->n->from,
                              .n_rows = p->end - p->first,
                              .n = n,
                              .add = add,
                              .y = p->n->x + (size_t)p->first * n };

    p->n->ops->take(p->n->on, &a);
}

/* All rows of a stage are soft, or none: the rows whose hidden states they read are listed. Their
 * embedding is what the same pass has computed a stage before. */
static bool list_soft(const struct pass *p)
{
    if (p->first == p->end || p->l->rows[p->first].from == SIGHT_NO_ROW)
        return false;
    for (uint32_t i = p->first; i < p->end; i++)
        p->n->from[i - p->first] = p->l->rows[i].from;
    return true;
}

/* Soft tokens: hidden states of gists, normed. */
static void embed_soft(const struct pass *p)
{
    const struct base *b = p->n->b;
    uint32_t n = b->m->n_embd;
    struct tensors_norm a = { .x = p->n->x,
                              .w = b->output_norm,
                              .rows = p->n->from,
                              .n_rows = p->end - p->first,
                              .n = n,
                              .eps = b->m->rms_eps,
                              .y = p->n->x + (size_t)p->first * n,
                              .type = TENSORS_F32,
                              .r = p->n->r_soft + p->first };

    if (list_soft(p))
        p->n->ops->norm(p->n->on, &a);
}

/* Three times over the same list: tokens, soft tokens, gists. Rows of the others are left out each
 * time. */
static void embed(const struct pass *p)
{
    uint32_t *index = p->n->from, n = p->end - p->first;
    bool own = p->gist && p->gist->embedding == ADAPTER_EMBED_OWN;

    for (uint32_t i = 0; i < n; i++) {
        const struct sight_row *row = &p->l->rows[p->first + i];

        index[i] = row->from == SIGHT_NO_ROW ? p->ids[row->token] : SIGHT_NO_ROW;
    }
    take_rows(p, p->n->b->embd, false);
    embed_soft(p);
    /* Before p->gist is looked at: there may be none. */
    if (p->l->n_gists == 0)
        return;
    for (uint32_t i = 0; i < n; i++)
        index[i] = SIGHT_NO_ROW;
    for (uint32_t j = 0; j < p->l->n_gists; j++) {
        uint32_t i = p->l->gists[j].row;

        if (i >= p->first && i < p->end)
            index[i - p->first] = embd_of(p, j);
    }
    take_rows(p, p->gist->embd, !own);
}

/* dx of soft tokens goes on to the hidden states that they read. Their rows and those they read are
 * different ones, so dy and dx may be one array. */
static void soft_back(const struct pass *p, float *dx)
{
    const struct base *b = p->n->b;
    uint32_t n = b->m->n_embd;
    float *dy = dx + (size_t)p->first * n;
    struct tensors_norm_back a = { .x = p->n->x,
                                   .w = b->output_norm,
                                   .r = p->n->r_soft + p->first,
                                   .rows = p->n->from,
                                   .n_rows = p->end - p->first,
                                   .n = n,
                                   .dy = dy,
                                   .dx = dx };

    if (!list_soft(p))
        return;
    struct tensors_sum weight = { dy, a.r, a.x, a.rows, a.n_rows, n, 0, b->d_output_norm };

    if (b->d_output_norm)
        p->n->ops->sum_rows(p->n->on, &weight);
    p->n->ops->norm_back(p->n->on, &a);
}

/* That of gists to their embedding, and of tokens to theirs. A gist's embedding is added to that of
 * its token, or stands in its place ("own"): then the token has no part in it. */
static void embed_back(const struct pass *p, const float *dx)
{
    const struct base *b = p->n->b;
    uint32_t n = b->m->n_embd;
    struct tensors_give a = { dx, p->n->to, p->n->from, 0, p->gist->n_embds, n, p->gist->d_embd };

    for (uint32_t j = 0; j < p->l->n_gists; j++) {
        uint32_t i = p->l->gists[j].row;

        if (i < p->first || i >= p->end)
            continue;
        p->n->to[a.n_pairs] = embd_of(p, j);
        p->n->from[a.n_pairs++] = i;
    }
    p->n->ops->give(p->n->on, &a);
    if (!b->d_embd)
        return;
    a = (struct tensors_give){ dx, p->n->to, p->n->from, 0, b->m->n_vocab, n, b->d_embd };
    for (uint32_t i = p->first; i < p->end; i++) {
        const struct sight_row *row = &p->l->rows[i];
        bool own = i >= gists_at(p) && p->gist->embedding == ADAPTER_EMBED_OWN;

        if (row->from != SIGHT_NO_ROW || own)
            continue;
        p->n->to[a.n_pairs] = p->ids[row->token];
        p->n->from[a.n_pairs++] = i;
    }
    p->n->ops->give(p->n->on, &a);
}

int net_forward(struct net *n, const struct net_gist *gist, const struct layout *l,
                const uint32_t *ids, const float **ret_x)
{
    struct sight sight = layout_sight(l);

    /* Before anything is queued: what does not fit would be written elsewhere. */
    if (l->n_rows > n->max_rows || l->max_pos > n->b->max_pos || (l->n_stages > 1 && !n->staged))
        return -E2BIG;
    n->ops->attn_see(n->attn, &sight);
    /* A stage goes through all layers before the next one, which reads its hidden states. */
    for (const struct layout_stage *s = l->stages; s < l->stages + l->n_stages; s++) {
        struct pass p = { n, gist, l, ids, s, s->first, s->end };

        embed(&p);
        for (uint32_t i = 0; i < n->b->m->n_layer; i++)
            forward_layer(&p, i, n->x);
    }
    *ret_x = n->x;
    return n->ops->error(n->on);
}

/* again: all rows of a stage. Frozen rows are left out: what they are depends on nothing that is
 * trained. */
static void back_stage(const struct pass *again, float *dx, const struct net_more *more)
{
    struct net *n = again->n;
    const struct layout *l = again->l;
    struct pass p = *again;

    p.first = again->first > l->n_frozen ? again->first : l->n_frozen;
    for (uint32_t i = n->b->m->n_layer; i-- > 0;) {
        /* kept has some other layer's rows. */
        if (n->checkpointing) {
            n->ops->copy(n->on, n->again, n->kept[i].x_in,
                         (size_t)l->n_rows * n->b->m->n_embd * sizeof(float));
            forward_layer(again, i, n->again);
        }
        back_layer(&p, i, dx, more);
    }
    soft_back(&p, dx);
    embed_back(&p, dx);
}

/* The last stage first: what gists leave in memory gets derivatives from those behind it. */
int net_back(struct net *n, const struct net_gist *gist, const struct layout *l,
             const uint32_t *ids, float *dx, const struct net_more *more)
{
    struct sight sight = layout_sight(l);

    n->ops->attn_see(n->attn, &sight);
    if (n->staged)
        n->ops->clear(n->on, n->dqkv,
                      (size_t)n->b->m->n_layer * n->max_rows * n->b->n_qkv * sizeof(float));
    for (uint32_t i = l->n_stages; i-- > 0;) {
        const struct layout_stage *s = &l->stages[i];
        struct pass p = { n, gist, l, ids, s, s->first, s->end };

        back_stage(&p, dx, more);
    }
    return n->ops->error(n->on);
}
