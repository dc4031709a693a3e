#include "engine/forward.h"

#include "engine/cpu/linear.h"
#include "engine/kv/rotary.h"
#include "engine/pieces.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Rows of a slice of row-wise work (norms, rotary, SwiGLU): one slice, so no hand-over, for a token
 * or two. */
#define ROW_SLICE 8u

/* Outputs whose logits are made at a time. */
#define HEAD_ROWS 8u

#define F32_ONLY (1u << KERNELS_FORM_F32) /* of linear_forms */

struct forward {
    const struct model *m;
    const struct kernels *k;
    struct workers *w;
    struct rotary rotary;
    struct attend *attend;
    uint32_t max_batch;

    struct pieces batch; /* T rows */

    /* Scratch, max_batch rows each. */
    void *mem;
    size_t mem_len;
    float *x;                     /* (T, n_embd) the residual stream */
    float *xn;                    /* (T, n_embd) normed */
    float *y;                     /* (T, n_embd) what is added to x next */
    float *q, *att;               /* (T, n_head * head_dim) */
    float *kk, *vv;               /* (T, n_head_kv * head_dim) */
    float *gate, *up;             /* (T, n_ff) */
    float *out;                   /* (T, n_embd) normed outputs, kept until the next step */
    void *forms[KERNELS_FORM__N]; /* (T, widest) the input of the next matmul in other forms */
    float *head;                  /* (2 HEAD_ROWS, n_vocab), see forward_logits */
};

/* --- memory ----------------------------------------------------------------------------------- */

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* Floats of att: gists borrow it for at least a row of a feed-forward product. */
static size_t n_att(const struct forward *f)
{
    size_t n = (size_t)f->max_batch * f->m->n_head * f->m->head_dim;

    return n > f->m->n_ff ? n : f->m->n_ff;
}

/* Gives every buffer its place; with f->mem NULL only counts. Returns the bytes. */
static size_t lay_out(struct forward *f)
{
    const struct model *m = f->m;
    size_t t = f->max_batch, n_q = (size_t)m->n_head * m->head_dim;
    size_t n_kv = (size_t)m->n_head_kv * m->head_dim;
    uint32_t widest = max_u32(max_u32(m->n_embd, m->n_ff), (uint32_t)n_q);
    struct {
        void *at;
        size_t bytes;
    } parts[] = {
        { &f->x, t * m->n_embd * sizeof(float) },
        { &f->xn, t * m->n_embd * sizeof(float) },
        { &f->y, t * m->n_embd * sizeof(float) },
        { &f->q, t * n_q * sizeof(float) },
        { &f->att, n_att(f) * sizeof(float) },
        { &f->kk, t * n_kv * sizeof(float) },
        { &f->vv, t * n_kv * sizeof(float) },
        { &f->gate, t * widest * sizeof(float) }, /* gists borrow them, too */
        { &f->up, t * widest * sizeof(float) },
        { &f->out, t * m->n_embd * sizeof(float) },
        { &f->forms[KERNELS_FORM_Q8],
          max_u32(f->max_batch, 2 * HEAD_ROWS) * linear_row_bytes(KERNELS_FORM_Q8, widest) },
        { &f->forms[KERNELS_FORM_BF16],
          f->k->to_bf16 ? t * linear_row_bytes(KERNELS_FORM_BF16, widest) : 0 },
        { &f->head, 2 * HEAD_ROWS * (size_t)m->n_vocab * sizeof(float) },
        { &f->batch.out_rows, t * sizeof(uint32_t) },
        { &f->batch.at, PIECES_MAX(t) * sizeof(struct attend_piece) },
        { &f->batch.from, PIECES_MAX(t) * sizeof(struct piece_source) },
    };
    size_t off = 0;

    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
        if (f->mem) {
            void *p = (uint8_t *)f->mem + off;

            memcpy(parts[i].at, &p, sizeof(p));
        }
        off += (parts[i].bytes + 63) & ~(size_t)63;
    }
    return off;
}

int forward_open(const struct model *m, const struct kernels *k, struct workers *w,
                 uint32_t max_batch, struct forward **ret, struct why *why)
{
    struct forward *f = calloc(1, sizeof(*f));
    struct place_result placed;
    int r;

    if (!f)
        return why_set(why, -ENOMEM, "no memory for the forward pass");
    *f = (struct forward){ .m = m, .k = k, .w = w, .max_batch = max_batch };
    f->mem_len = lay_out(f);
    r = place_alloc(f->mem_len, false, &f->mem, &placed);
    if (r < 0)
        goto fail;
    (void)lay_out(f);
    f->batch.kk = f->kk;
    f->batch.vv = f->vv;
    f->batch.n_kv = m->n_head_kv * m->head_dim;
    f->batch.n_vocab = m->n_vocab;
    r = rotary_open(&f->rotary, m->rope_freq, m->head_dim);
    if (r < 0)
        goto fail;
    r = attend_open(m, k, w, &f->rotary, &f->attend);
    if (r < 0)
        goto fail;
    *ret = f;
    return 0;

fail:
    why_set(why, r, "no memory for the forward pass: %zu bytes for batches of %u tokens",
            f->mem_len, max_batch);
    forward_close(f);
    return r;
}

void forward_close(struct forward *f)
{
    if (!f)
        return;
    attend_close(f->attend);
    rotary_close(&f->rotary);
    if (f->mem)
        place_free(f->mem, f->mem_len);
    free(f);
}

const struct rotary *forward_rotary(const struct forward *f)
{
    return &f->rotary;
}

size_t forward_bytes(const struct forward *f)
{
    return f->mem_len + attend_bytes(f->attend);
}

/* --- row-wise work, by slices of rows --------------------------------------------------------- */

struct rows {
    struct forward *f;
    uint32_t n_rows;
    const struct model_layer *layer;
    uint32_t layer_index;
    const float *add, *norm; /* norm_rows */
    float *to;
    unsigned forms;    /* that the next matmul wants beside f32 */
    const float *from; /* convert_rows */
    uint32_t n_cols;
};

/* A row of the next matmul's input, in the other forms that it wants. */
static void convert_row(const struct rows *r, uint32_t t, const float *x, uint32_t n)
{
    const struct forward *f = r->f;

    if (r->forms & 1u << KERNELS_FORM_Q8)
        f->k->quantise(x, n, (struct kernels_q8 *)f->forms[KERNELS_FORM_Q8] + (size_t)t * (n / 32));
    if (r->forms & 1u << KERNELS_FORM_BF16)
        f->k->to_bf16(x, n, (uint16_t *)f->forms[KERNELS_FORM_BF16] + (size_t)t * n);
}

typedef void rows_fn(const struct rows *r, uint32_t row0, uint32_t row1);
struct rows_job {
    const struct rows *rows;
    rows_fn *fn;
};

static void rows_slice(void *arg, uint32_t slice, uint32_t worker)
{
    const struct rows_job *j = arg;
    uint32_t row0 = slice * ROW_SLICE, row1 = row0 + ROW_SLICE;

    (void)worker;
    j->fn(j->rows, row0, row1 < j->rows->n_rows ? row1 : j->rows->n_rows);
}

static void rows_run(const struct rows *r, rows_fn *fn)
{
    struct rows_job j = { r, fn };

    workers_run(r->f->w, rows_slice, &j, (r->n_rows + ROW_SLICE - 1) / ROW_SLICE);
}

/* x += add (if any); to = norm(x) * weight; and in the forms that the next matmul wants. */
static void norm_rows(const struct rows *r, uint32_t row0, uint32_t row1)
{
    const struct forward *f = r->f;
    uint32_t n = f->m->n_embd;

    for (uint32_t t = row0; t < row1; t++) {
        float *x = f->x + (size_t)t * n, *to = r->to + (size_t)t * n;

        if (r->add)
            f->k->add(x, r->add + (size_t)t * n, n);
        f->k->rmsnorm(x, r->norm, n, f->m->rms_eps, to);
        convert_row(r, t, to, n);
    }
}

/* The input of a matmul that no norm comes before. */
static void convert_rows(const struct rows *r, uint32_t row0, uint32_t row1)
{
    for (uint32_t t = row0; t < row1; t++)
        convert_row(r, t, r->from + (size_t)t * r->n_cols, r->n_cols);
}

static void swiglu_rows(const struct rows *r, uint32_t row0, uint32_t row1)
{
    const struct forward *f = r->f;
    uint32_t n = f->m->n_ff;

    for (uint32_t t = row0; t < row1; t++) {
        float *gate = f->gate + (size_t)t * n;

        f->k->swiglu(gate, f->up + (size_t)t * n, n);
        convert_row(r, t, gate, n);
    }
}

static void add_token(const struct forward *f, const struct seq *s, uint32_t segment, uint32_t off,
                      float *x)
{
    const struct model_tensor *e = &f->m->embd;

    tile_dequantise_row(e->type, e->data, s->tokens[(size_t)segment * s->seg_len + off], e->n_cols,
                        x);
}

/* A gist whose snippet's last token stands at offset `last`: its own embedding, and that of the
 * token if the adapter says so. */
static void embed_gist(const struct forward *f, const struct adapter *a, const struct seq *s,
                       uint32_t segment, uint32_t gist, uint32_t last, float *x)
{
    uint32_t row = gist < a->n_gists ? gist : a->n_gists - 1, n = f->m->n_embd;

    memset(x, 0, n * sizeof(*x));
    if (a->embedding == ADAPTER_EMBED_LAST)
        add_token(f, s, segment, last, x);
    f->k->add(x, a->embd + (size_t)row * n, n);
}

/* The key at offset `off` of a raw segment is a gist. */
static bool is_gist(const struct seq *s, uint32_t off)
{
    return s->gist_every && off % (s->gist_every + 1) == s->gist_every;
}

/* Row i of a piece. */
static void embed_row(const struct forward *f, const struct attend_piece *p,
                      const struct forward_run *run, uint32_t i, float *x)
{
    const struct seq *s = p->seq;
    uint32_t gist = run->gists.first + i, off = p->off + i;
    uint32_t n_gists = s->gist_every ? off / (s->gist_every + 1) : 0; /* before it */

    switch (run->gists.kind) {
    case FORWARD_SIDE:
        embed_gist(f, run->gists.adapter, s, p->segment, gist, p->off + i * p->stride, x);
        return;
    case FORWARD_BEHIND:
        embed_gist(f, run->gists.adapter, s, run->gists.segment, gist,
                   (gist + 1) * run->gists.ratio - 1, x);
        return;
    case FORWARD_SOFT:
        memcpy(x, run->gists.hidden + (size_t)i * f->m->n_embd, f->m->n_embd * sizeof(*x));
        return;
    case FORWARD_NO_GISTS:
        break;
    }
    if (run->observe.weights)
        add_token(f, s, 0, run->observe.first + i, x);
    else if (is_gist(s, off))
        embed_gist(f, s->adapter, s, p->segment, n_gists, off - n_gists - 1, x);
    else
        add_token(f, s, p->segment, off - n_gists, x);
}

static void embed_rows(const struct rows *r, uint32_t row0, uint32_t row1)
{
    const struct forward *f = r->f;

    for (uint32_t i = 0; i < f->batch.n; i++) {
        const struct attend_piece *p = &f->batch.at[i];

        for (uint32_t t = max_u32(p->row, row0); t < p->row + p->n && t < row1; t++)
            embed_row(f, p, f->batch.from[i].run, t - p->row, f->x + (size_t)t * f->m->n_embd);
    }
}

/* Puts row t's k and v into a slot of a page's tiles of this layer. */
static void store_kv(const struct rows *r, const struct pool *pool, uint32_t page, uint32_t slot,
                     uint32_t t)
{
    const struct forward *f = r->f;
    uint32_t hd = f->m->head_dim, n_kv = f->m->n_head_kv * hd;
    const float *k = f->kk + (size_t)t * n_kv, *v = f->vv + (size_t)t * n_kv;
    uint8_t *at = pool->mem + page * pool->page_bytes;

    for (uint32_t h = 0; h < f->m->n_head_kv; h++)
        f->k->kv_store[pool->kv](k + (size_t)h * hd, v + (size_t)h * hd, hd, slot,
                                 at + pool_k_off(pool, r->layer_index, h),
                                 at + pool_v_off(pool, r->layer_index, h));
}

static void turn_keys(const struct rows *r, uint32_t by, uint32_t t)
{
    const struct forward *f = r->f;
    uint32_t hd = f->m->head_dim;

    f->k->rope(f->kk + (size_t)t * f->m->n_head_kv * hd, f->m->n_head_kv, hd,
               rotary_by(&f->rotary, by, NULL));
}

/* q with rotary by the offset inside the segment and the scale of attention. */
static void turn_query(const struct rows *r, uint32_t off, uint32_t t)
{
    const struct forward *f = r->f;
    uint32_t hd = f->m->head_dim, n_q = f->m->n_head * hd;
    float *q = f->q + (size_t)t * n_q;

    f->k->rope(q, f->m->n_head, hd, rotary_by(&f->rotary, off, NULL));
    f->k->scale(q, n_q, 1.0f / sqrtf((float)hd));
}

/* Row t's biases: those of the adapter that makes it, where that has its own, else the model's. */
static void add_biases(const struct rows *r, const struct adapter *a, uint32_t t)
{
    const struct forward *f = r->f;
    const struct adapter_layer *own = a ? &a->layers[r->layer_index] : NULL;
    uint32_t hd = f->m->head_dim, n_q = f->m->n_head * hd, n_kv = f->m->n_head_kv * hd;
    struct {
        const float *bias, *own;
        float *to;
        uint32_t n;
    } all[] = {
        { r->layer->bq, own ? own->p[ADAPTER_Q].bias : NULL, f->q + (size_t)t * n_q, n_q },
        { r->layer->bk, own ? own->p[ADAPTER_K].bias : NULL, f->kk + (size_t)t * n_kv, n_kv },
        { r->layer->bv, own ? own->p[ADAPTER_V].bias : NULL, f->vv + (size_t)t * n_kv, n_kv },
    };

    for (unsigned i = 0; i < 3; i++)
        if (all[i].own || all[i].bias)
            f->k->add(all[i].to, all[i].own ? all[i].own : all[i].bias, all[i].n);
}

/* A side gist's key is kept rotated by its place among the gists, and it attends to itself from
 * where it stands. */
static void place_side(const struct rows *r, const struct attend_piece *p,
                       const struct forward_run *run, uint32_t i)
{
    uint32_t slot = run->gists.sinks + run->gists.first + i, off = p->off + i * p->stride;
    uint32_t t = p->row + i;

    turn_query(r, off, t);
    turn_keys(r, slot, t);
    store_kv(r, p->seq->pool, run->gists.pages[slot / POOL_PAGE_TOKENS], slot % POOL_PAGE_TOKENS,
             t);
    turn_keys(r, off - slot, t);
}

static void place_rows(const struct rows *r, uint32_t row0, uint32_t row1)
{
    const struct forward *f = r->f;

    for (uint32_t i = 0; i < f->batch.n; i++) {
        const struct attend_piece *p = &f->batch.at[i];
        const struct gist_rows *g = &f->batch.from[i].gists;

        for (uint32_t t = max_u32(p->row, row0); t < p->row + p->n && t < row1; t++) {
            uint32_t off = p->off + (t - p->row);
            bool gist = g->n && t >= g->first && (t - g->first) % g->step == 0;

            add_biases(r, gist ? g->adapter : NULL, t);
            if (p->self_k) {
                place_side(r, p, f->batch.from[i].run, t - p->row);
                continue;
            }
            turn_query(r, off, t);
            if (p->weights && !p->again)
                continue; /* an observer's K and V are there */
            turn_keys(r, off, t);
            store_kv(r, p->seq->pool, p->pages[off / POOL_PAGE_TOKENS], off % POOL_PAGE_TOKENS, t);
        }
    }
}

/* --- the layers ------------------------------------------------------------------------------- */

/* Keeps only the rows that outputs are wanted of: all that follows the last layer's attention is a
 * row's own business. out_rows ascend, so nothing is overwritten before it is read. */
static void keep_wanted(struct forward *f)
{
    size_t n_q = (size_t)f->m->n_head * f->m->head_dim, n = f->m->n_embd;

    for (uint32_t i = 0; i < f->batch.n_out; i++) {
        uint32_t row = f->batch.out_rows[i];

        if (row == i)
            continue;
        memcpy(f->x + i * n, f->x + row * n, n * sizeof(float));
        memcpy(f->att + i * n_q, f->att + row * n_q, n_q * sizeof(float));
    }
}

static void project(struct forward *f, float *x, uint32_t n_cols, uint32_t n_rows,
                    const struct linear_output *out, uint32_t n_out)
{
    struct linear_input in = { .n_cols = n_cols };

    memcpy(in.form, f->forms, sizeof(in.form));
    in.form[KERNELS_FORM_F32] = x;
    linear_run(f->k, f->w, &in, n_rows, out, n_out);
}

/* A product of a layer: what gists have of their own in the place of the model's weights. */
struct gist_product {
    uint32_t layer;
    bool wanted; /* rows are those that outputs are wanted of */
    struct gist_output out[3];
    uint32_t n_out;
    struct gist_scratch scratch;
};

static const struct gist_rows *gists_of(const struct forward *f, const struct gist_product *g,
                                        uint32_t piece)
{
    return g->wanted ? &f->batch.from[piece].wanted : &f->batch.from[piece].gists;
}

/* The forms that adapters in the batch want of the input. */
static unsigned gist_forms(const struct forward *f, const struct gist_product *g)
{
    unsigned forms = 0;

    for (uint32_t p = 0; p < f->batch.n; p++)
        forms |= gist_rows_forms(gists_of(f, g, p), f->k, g->layer, g->out, g->n_out);
    return forms;
}

static void project_gists(struct forward *f, const struct gist_product *g, const float *x,
                          uint32_t n_cols)
{
    struct linear_input in = { .n_cols = n_cols };

    memcpy(in.form, f->forms, sizeof(in.form));
    in.form[KERNELS_FORM_F32] = x;
    for (uint32_t p = 0; p < f->batch.n; p++)
        gist_rows_project(gists_of(f, g, p), f->k, f->w, g->layer, &in, &g->scratch, g->out,
                          g->n_out);
}

/* The products of layer i. What they borrow was added to x, or comes later, or is done with. */
static struct gist_product gists_qkv(const struct forward *f, uint32_t i)
{
    return (struct gist_product){
        .layer = i,
        .out = { { ADAPTER_Q, f->q }, { ADAPTER_K, f->kk }, { ADAPTER_V, f->vv } },
        .n_out = 3,
        .scratch = { f->y, f->att, n_att(f) }
    };
}

static struct gist_product gists_o(const struct forward *f, uint32_t i)
{
    return (
        struct gist_product){ .layer = i,
                              .wanted = i + 1 == f->m->n_layer,
                              .out = { { ADAPTER_O, f->y } },
                              .n_out = 1,
                              .scratch = { f->xn, f->gate, (size_t)f->max_batch * f->m->n_embd } };
}

static struct gist_product gists_gate_up(const struct forward *f, uint32_t i)
{
    return (struct gist_product){ .layer = i,
                                  .wanted = i + 1 == f->m->n_layer,
                                  .out = { { ADAPTER_GATE, f->gate }, { ADAPTER_UP, f->up } },
                                  .n_out = 2,
                                  .scratch = { f->y, f->att, n_att(f) } };
}

static struct gist_product gists_down(const struct forward *f, uint32_t i)
{
    return (struct gist_product){ .layer = i,
                                  .wanted = i + 1 == f->m->n_layer,
                                  .out = { { ADAPTER_DOWN, f->y } },
                                  .n_out = 1,
                                  .scratch = { f->xn, f->up, (size_t)f->max_batch * f->m->n_ff } };
}

/* Attention of layer i: leaves its output, to be added to x, in y. n_rows in, n_left out. */
static uint32_t run_attention(struct forward *f, uint32_t i)
{
    const struct model *m = f->m;
    const struct model_layer *l = &m->layers[i];
    struct linear_output qkv[] = { { &l->wq, f->q, 0 },
                                   { &l->wk, f->kk, 0 },
                                   { &l->wv, f->vv, 0 } };
    struct linear_output wo = { &l->wo, f->y, 0 };
    struct gist_product own_qkv = gists_qkv(f, i), own_o = gists_o(f, i);
    uint32_t n_q = m->n_head * m->head_dim;
    struct rows r = { .f = f,
                      .n_rows = f->batch.n_rows,
                      .layer = l,
                      .layer_index = i,
                      .to = f->xn,
                      .norm = l->attn_norm,
                      .add = i > 0 ? f->y : NULL,
                      .forms = linear_forms(f->k, qkv, 3) | gist_forms(f, &own_qkv),
                      .from = f->att,
                      .n_cols = n_q };
    uint32_t n_left = f->batch.n_rows;

    rows_run(&r, norm_rows);
    project(f, f->xn, m->n_embd, f->batch.n_rows, qkv, 3);
    project_gists(f, &own_qkv, f->xn, m->n_embd);
    rows_run(&r, place_rows);
    if (i + 1 == m->n_layer && f->batch.n_out == 0 && !f->batch.observes)
        return 0; /* only K and V were wanted */
    attend_run(f->attend, f->batch.at, f->batch.n, i, f->q, f->att);
    if (i + 1 == m->n_layer) {
        keep_wanted(f);
        r.n_rows = n_left = f->batch.n_out;
        if (n_left == 0)
            return 0;
    }
    r.forms = linear_forms(f->k, &wo, 1) | gist_forms(f, &own_o);
    if (r.forms & ~F32_ONLY)
        rows_run(&r, convert_rows);
    project(f, f->att, n_q, n_left, &wo, 1);
    project_gists(f, &own_o, f->att, n_q);
    return n_left;
}

static void run_ffn(struct forward *f, uint32_t i, uint32_t n_rows)
{
    const struct model *m = f->m;
    const struct model_layer *l = &m->layers[i];
    struct linear_output gate_up[] = { { &l->w_gate, f->gate, 0 }, { &l->w_up, f->up, 0 } };
    struct linear_output down = { &l->w_down, f->y, 0 };
    struct gist_product own_gate_up = gists_gate_up(f, i), own_down = gists_down(f, i);
    struct rows r = { .f = f,
                      .n_rows = n_rows,
                      .to = f->xn,
                      .norm = l->ffn_norm,
                      .add = f->y,
                      .forms = linear_forms(f->k, gate_up, 2) | gist_forms(f, &own_gate_up) };

    rows_run(&r, norm_rows);
    project(f, f->xn, m->n_embd, n_rows, gate_up, 2);
    project_gists(f, &own_gate_up, f->xn, m->n_embd);
    r.forms = linear_forms(f->k, &down, 1) | gist_forms(f, &own_down);
    rows_run(&r, swiglu_rows);
    project(f, f->gate, m->n_ff, n_rows, &down, 1);
    project_gists(f, &own_down, f->gate, m->n_ff);
}

static bool told_to_stop(const struct forward_stop *stop)
{
    return stop && stop->fn(stop->arg);
}

static int run_layers(struct forward *f, const struct forward_stop *stop)
{
    struct rows r = { .f = f, .n_rows = f->batch.n_rows };

    rows_run(&r, embed_rows);
    for (uint32_t i = 0; i < f->m->n_layer; i++) {
        uint32_t n_left;

        if (told_to_stop(stop))
            return -ECANCELED;
        n_left = run_attention(f, i);
        if (n_left)
            run_ffn(f, i, n_left);
    }
    if (f->batch.n_out) {
        r = (struct rows){
            .f = f, .n_rows = f->batch.n_out, .add = f->y, .norm = f->m->output_norm, .to = f->out
        };
        rows_run(&r, norm_rows);
    }
    return 0;
}

/* --- the batch -------------------------------------------------------------------------------- */

/* The step is done: sequences have their tokens, and who wanted them the hidden states. */
static void finish_run(const struct forward *f, const struct forward_run *run, uint32_t out)
{
    size_t n_embd = f->m->n_embd;

    if (forward_run_reads(run))
        run->seq->n_tokens += run->n_tokens;
    else if (run->want == FORWARD_WANT_ALL)
        memcpy(run->gists.hidden, f->out + out * n_embd, run->n_tokens * n_embd * sizeof(float));
}

int forward_step(struct forward *f, const struct forward_run *runs, uint32_t n_runs,
                 const struct forward_stop *stop, uint32_t *ret_n_out)
{
    uint64_t all = 0;
    int r;

    for (uint32_t i = 0; i < n_runs; i++) {
        all += forward_run_rows(&runs[i]);
        if (runs[i].n_tokens == 0)
            return -EINVAL;
    }
    if (all > f->max_batch || n_runs > FORWARD_RUNS_MAX)
        return -E2BIG;

    f->batch.n_rows = f->batch.n = f->batch.n_out = 0;
    f->batch.observes = false;
    for (uint32_t i = 0; i < n_runs; i++) {
        r = pieces_add(&f->batch, &runs[i]);
        if (r < 0)
            return r;
    }
    r = run_layers(f, stop);
    if (r < 0)
        return r;
    for (uint32_t i = 0, out = 0; i < n_runs; i++) {
        finish_run(f, &runs[i], out);
        out +=
            runs[i].want == FORWARD_WANT_ALL ? runs[i].n_tokens : runs[i].want != FORWARD_WANT_NONE;
    }
    *ret_n_out = f->batch.n_out;
    return 0;
}

/* --- logits ----------------------------------------------------------------------------------- */

/* The input of the output matrix in int8, twice: row 2 t is x to 8 bits, row 2 t + 1 what those
 * leave over. Other roundings pass through norms and sums; this one went straight into the logits
 * and was a third of the whole error (docs/results.md). The weights are read once for both rows. */
static void quantise_fine_rows(const struct rows *r, uint32_t row0, uint32_t row1)
{
    const struct kernels *k = r->f->k;
    uint32_t n = r->n_cols, n_blocks = n / 32;

    for (uint32_t t = row0; t < row1; t++) {
        const float *x = r->from + (size_t)t * n;
        float *rest = r->f->xn + (size_t)t * n;
        struct kernels_q8 *q =
            (struct kernels_q8 *)r->f->forms[KERNELS_FORM_Q8] + 2 * (size_t)t * n_blocks;

        k->quantise(x, n, q);
        for (uint32_t c = 0; c < n; c++)
            rest[c] = x[c] - q[c / 32].d * q[c / 32].q[c % 32];
        k->quantise(rest, n, q + n_blocks);
    }
}

static void add_fine_rows(const struct rows *r, uint32_t row0, uint32_t row1)
{
    const struct forward *f = r->f;
    uint32_t n = f->m->n_vocab;

    for (uint32_t t = row0; t < row1; t++) {
        memcpy(r->to + (size_t)t * n, f->head + 2 * (size_t)t * n, n * sizeof(float));
        f->k->add(r->to + (size_t)t * n, f->head + (2 * (size_t)t + 1) * n, n);
    }
}

static void fine_logits(struct forward *f, float *x, uint32_t n, float *ret)
{
    struct linear_output head = { &f->m->output, f->head, 0 };
    struct rows r = { .f = f, .n_rows = n, .from = x, .n_cols = f->m->n_embd, .to = ret };

    rows_run(&r, quantise_fine_rows);
    project(f, x, f->m->n_embd, 2 * n, &head, 1);
    rows_run(&r, add_fine_rows);
}

void forward_logits(struct forward *f, uint32_t first, uint32_t n, float *ret)
{
    struct linear_output head = { &f->m->output, ret, 0 };
    float *x = f->out + (size_t)first * f->m->n_embd;
    uint32_t step = f->max_batch < HEAD_ROWS ? f->max_batch : HEAD_ROWS;
    struct rows r = { .f = f, .n_rows = n, .from = x, .n_cols = f->m->n_embd };

    assert(first + n <= f->batch.n_out);
    if (f->k->form[f->m->output.type] != KERNELS_FORM_Q8) {
        r.forms = linear_forms(f->k, &head, 1);
        rows_run(&r, convert_rows);
        project(f, x, f->m->n_embd, n, &head, 1);
        return;
    }
    for (uint32_t at = 0; at < n; at += step)
        fine_logits(f, x + (size_t)at * f->m->n_embd, n - at < step ? n - at : step,
                    ret + (size_t)at * f->m->n_vocab);
}
