/* engine/cpu/layers.c - a plan's rows through the layers of the model.
 *
 * A step is a row of jobs, and each ends when the last worker is done, so what can be done to a
 * row while it is in a cache is one job: the sum that the last product left over, the norm, and the
 * conversions that the next product wants. Sums are late by one job for that: a product leaves its
 * result in y, and the norm behind it adds it to x.
 *
 * Gists take part in the model's products like all rows, and what they have of their own is put
 * over that or added to it afterwards (engine/cpu/gist_rows.h): to cut the batch at every gist
 * would read the weights once for each part.
 */
#include "engine/cpu/layers.h"

#include "base/parts.h"
#include "engine/cpu/attend.h"
#include "engine/cpu/gist_rows.h"
#include "engine/cpu/head.h"
#include "engine/cpu/linear.h"
#include "engine/cpu/place.h"
#include "engine/cpu/rows.h"
#include "engine/file/stream.h"
#include "engine/kv/rotary.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define F32_ONLY (1u << KERNELS_FORM_F32) /* of linear_forms */

/* --- memory ----------------------------------------------------------------------------------- */

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* Floats of att: gists borrow it for at least a row of a feed-forward product. */
static size_t n_att(const struct layers *f)
{
    size_t n = (size_t)f->max_batch * f->m->n_head * f->m->head_dim;

    return n > f->m->n_ff ? n : f->m->n_ff;
}

/* Gives every buffer its place; with f->mem NULL only counts. Parts begin on cache lines of their
 * own: no two workers write to one. Returns the bytes. */
static size_t lay_out(struct layers *f)
{
    const struct model *m = f->m;
    size_t t = f->max_batch, n_q = (size_t)m->n_head * m->head_dim;
    size_t n_kv = (size_t)m->n_head_kv * m->head_dim, few = LINEAR_MANY - 1;
    uint32_t widest = max_u32(max_u32(m->n_embd, m->n_ff), (uint32_t)n_q);
    const struct part parts[] = {
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
        { &f->few[KERNELS_FORM_Q8], few * linear_row_bytes(KERNELS_FORM_Q8, m->n_ff) },
        { &f->few[KERNELS_FORM_BF16],
          f->k->to_bf16 ? few * linear_row_bytes(KERNELS_FORM_BF16, m->n_ff) : 0 },
        { &f->head, 2 * HEAD_ROWS * (size_t)m->n_vocab * sizeof(float) },
        { &f->logits, HEAD_ROWS * (size_t)m->n_vocab * sizeof(float) },
    };

    return parts_lay_out(f->mem, parts, sizeof(parts) / sizeof(*parts), 64);
}

/* By the very functions that lay out the memory, on a struct that has only sizes. */
size_t layers_need(const struct model *m, const struct kernels *k, uint32_t n_workers,
                   uint32_t max_batch)
{
    struct layers f = { .m = m, .k = k, .max_batch = max_batch };

    return lay_out(&f) + attend_need(m, n_workers);
}

int layers_open(const struct model *m, const struct kernels *k, struct workers *w,
                uint32_t max_batch, struct layers **ret, struct why *why)
{
    struct layers *f = calloc(1, sizeof(*f));
    int r;

    if (!f)
        return why_set(why, -ENOMEM, "no memory for the forward pass");
    *f = (struct layers){ .m = m, .k = k, .w = w, .max_batch = max_batch };
    /* Counted first, then placed: lay_out is called once more when there is memory. */
    f->mem_len = lay_out(f);
    r = place_alloc(f->mem_len, &f->mem);
    if (r < 0)
        goto fail;
    (void)lay_out(f);
    r = rotary_open(&f->rotary, m->rope_freq, m->head_dim);
    if (r < 0)
        goto fail;
    /* Borrows the angles, which is why those are opened first and closed last. */
    r = attend_open(m, k, w, &f->rotary, &f->attend);
    if (r < 0)
        goto fail;
    *ret = f;
    return 0;

fail:
    why_set(why, r, "no memory for the forward pass: %zu bytes for batches of %u tokens",
            f->mem_len, max_batch);
    layers_close(f);
    return r;
}

void layers_close(struct layers *f)
{
    if (!f)
        return;
    attend_close(f->attend);
    rotary_close(&f->rotary);
    if (f->mem)
        place_free(f->mem, f->mem_len);
    free(f);
}

const struct rotary *layers_rotary(const struct layers *f)
{
    return &f->rotary;
}

size_t layers_bytes(const struct layers *f)
{
    return f->mem_len + attend_bytes(f->attend);
}

/* --- the layers ------------------------------------------------------------------------------- */

/* Keeps only the rows that outputs are wanted of: all that follows the last layer's attention is a
 * row's own business. out_rows ascend, so nothing is overwritten before it is read. */
static void keep_wanted(struct layers *f)
{
    size_t n_q = (size_t)f->m->n_head * f->m->head_dim, n = f->m->n_embd;

    for (uint32_t i = 0; i < f->plan->n_out; i++) {
        uint32_t row = f->plan->out_rows[i];

        if (row == i)
            continue;
        memcpy(f->x + i * n, f->x + row * n, n * sizeof(float));
        memcpy(f->att + i * n_q, f->att + row * n_q, n_q * sizeof(float));
    }
}

/* f32 is where it was computed; the other forms are what a job of rows has made of it. */
static struct linear_input input_of(void *const *forms, const float *x, uint32_t n_cols)
{
    struct linear_input in = { .n_cols = n_cols };

    memcpy(in.form, forms, sizeof(in.form));
    in.form[KERNELS_FORM_F32] = x;
    return in;
}

/* x in all the forms that out's weights want, which were made before (linear_forms). */
static void project(struct layers *f, float *x, uint32_t n_cols, uint32_t n_rows,
                    const struct linear_output *out, uint32_t n_out)
{
    struct linear_input in = input_of(f->forms, x, n_cols);

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

/* After the last layer's attention only wanted rows are left, so gists among them have other row
 * numbers. */
static struct gist_rows gists_of(const struct layers *f, const struct gist_product *g,
                                 uint32_t piece)
{
    const struct plan_piece *p = &f->plan->pieces[piece];
    const struct plan_gists *rows = g->wanted ? &p->wanted : &p->gists;

    return (struct gist_rows){ p->adapter, rows->first, rows->step, rows->n };
}

/* The forms that adapters in the batch want of the input. */
static unsigned gist_forms(const struct layers *f, const struct gist_product *g)
{
    unsigned forms = 0;

    for (uint32_t p = 0; p < f->plan->n_pieces; p++) {
        struct gist_rows rows = gists_of(f, g, p);

        forms |= gist_rows_forms(&rows, f->k, g->layer, g->out, g->n_out);
    }
    return forms;
}

static bool has_gists(const struct layers *f, const struct gist_product *g)
{
    for (uint32_t p = 0; p < f->plan->n_pieces; p++)
        if (gists_of(f, g, p).n > 0)
            return true;
    return false;
}

/* Piece by piece, since each may be of another adapter. */
static void project_gists(struct layers *f, const struct gist_product *g, const float *x,
                          uint32_t n_cols)
{
    struct linear_input in = input_of(f->forms, x, n_cols);

    for (uint32_t p = 0; p < f->plan->n_pieces; p++) {
        struct gist_rows rows = gists_of(f, g, p);

        gist_rows_project(&rows, f->k, f->w, g->layer, &in, &g->scratch, g->out, g->n_out);
    }
}

/* The products of layer i. What they borrow was added to x, or comes later, or is done with. So y
 * and att are free before attention, xn and gate behind it, y and att again once y was added, and
 * xn and up behind SwiGLU. */
static struct gist_product gists_qkv(const struct layers *f, uint32_t i)
{
    return (struct gist_product){
        .layer = i,
        .out = { { ADAPTER_Q, f->q }, { ADAPTER_K, f->kk }, { ADAPTER_V, f->vv } },
        .n_out = 3,
        .scratch = { f->y, f->att, n_att(f) }
    };
}

static struct gist_product gists_o(const struct layers *f, uint32_t i)
{
    return (
        struct gist_product){ .layer = i,
                              .wanted = i + 1 == f->m->n_layer,
                              .out = { { ADAPTER_O, f->y } },
                              .n_out = 1,
                              .scratch = { f->xn, f->gate, (size_t)f->max_batch * f->m->n_embd } };
}

static struct gist_product gists_gate_up(const struct layers *f, uint32_t i)
{
    return (struct gist_product){ .layer = i,
                                  .wanted = i + 1 == f->m->n_layer,
                                  .out = { { ADAPTER_GATE, f->gate }, { ADAPTER_UP, f->up } },
                                  .n_out = 2,
                                  .scratch = { f->y, f->att, n_att(f) } };
}

static struct gist_product gists_down(const struct layers *f, uint32_t i)
{
    return (struct gist_product){ .layer = i,
                                  .wanted = i + 1 == f->m->n_layer,
                                  .out = { { ADAPTER_DOWN, f->y } },
                                  .n_out = 1,
                                  .scratch = { f->xn, f->up, (size_t)f->max_batch * f->m->n_ff } };
}

/* Attention of layer i: leaves its output, to be added to x, in y. n_rows in, n_left out. */
static uint32_t run_attention(struct layers *f, uint32_t i, const struct model_layer *l)
{
    const struct model *m = f->m;
    struct linear_output qkv[] = { { &l->wq, f->q, 0, 0 },
                                   { &l->wk, f->kk, 0, 0 },
                                   { &l->wv, f->vv, 0, 0 } };
    struct linear_output wo = { &l->wo, f->y, 0, 0 };
    struct gist_product own_qkv = gists_qkv(f, i), own_o = gists_o(f, i);
    uint32_t n_q = m->n_head * m->head_dim;
    struct rows r = { .f = f,
                      .n_rows = f->plan->n_rows,
                      .layer = l,
                      .layer_index = i,
                      .to = f->xn,
                      .norm = l->attn_norm,
                      .add = i > 0 ? f->y : NULL,
                      .forms = linear_forms(f->k, qkv, 3) | gist_forms(f, &own_qkv) };
    /* Fewer behind the last layer's attention, where only outputs are still of use to anybody: so
     * it is only before that that each head's part is converted where it is made. */
    uint32_t n_left = f->plan->n_rows;
    struct rows att = { .f = f,
                        .from = f->att,
                        .n_cols = n_q,
                        .forms = linear_forms(f->k, &wo, 1) | gist_forms(f, &own_o) };
    bool at_once = (att.forms & ~F32_ONLY) && i + 1 < m->n_layer &&
                   m->n_head / m->n_head_kv * m->head_dim % 32 == 0;

    rows_run(&r, rows_norm);
    project(f, f->xn, m->n_embd, f->plan->n_rows, qkv, 3);
    project_gists(f, &own_qkv, f->xn, m->n_embd);
    rows_run(&r, rows_place);
    if (i + 1 == m->n_layer && f->plan->n_out == 0 && !f->plan->observes)
        return 0; /* only K and V were wanted */
    attend_run_then(f->attend, f->plan, i, &(struct attend_rows){ f->q, f->kk, f->vv }, f->att,
                    (struct attend_then){ at_once ? rows_convert_heads : NULL, &att });
    /* The last layer: attention needed all rows' keys, and all that follows needs no other row. */
    if (i + 1 == m->n_layer) {
        keep_wanted(f);
        n_left = f->plan->n_out;
        if (n_left == 0)
            return 0;
    }
    att.n_rows = n_left;
    if (!at_once && (att.forms & ~F32_ONLY))
        rows_run(&att, rows_convert);
    project(f, f->att, n_q, n_left, &wo, 1);
    project_gists(f, &own_o, f->att, n_q);
    return n_left;
}

/* Up to LINEAR_MANY - 1 rows: SwiGLU of what a worker has made of gate and up is its own business.
 */
static void run_ffn_of_few(struct layers *f, const struct model_layer *l, struct rows *r)
{
    struct linear_output gate_up[] = { { &l->w_gate, f->gate, 0, 0 }, { &l->w_up, f->up, 0, 0 } };
    struct linear_output down = { &l->w_down, f->y, 0, 0 };
    struct linear_input in = input_of(f->forms, f->xn, f->m->n_embd);

    r->forms = linear_forms(f->k, &down, 1);
    linear_run_then(f->k, f->w, &in, r->n_rows, gate_up, 2,
                    (struct linear_then){ rows_swiglu_columns, r });
    in = input_of(f->few, f->gate, f->m->n_ff);
    linear_run(f->k, f->w, &in, r->n_rows, &down, 1);
}

static void run_ffn(struct layers *f, uint32_t i, const struct model_layer *l, uint32_t n_rows)
{
    const struct model *m = f->m;
    struct linear_output gate_up[] = { { &l->w_gate, f->gate, 0, 0 }, { &l->w_up, f->up, 0, 0 } };
    struct linear_output down = { &l->w_down, f->y, 0, 0 };
    struct gist_product own_gate_up = gists_gate_up(f, i), own_down = gists_down(f, i);
    struct rows r = { .f = f,
                      .n_rows = n_rows,
                      .to = f->xn,
                      .norm = l->ffn_norm,
                      .add = f->y,
                      .forms = linear_forms(f->k, gate_up, 2) | gist_forms(f, &own_gate_up) };

    rows_run(&r, rows_norm);
    /* Gists' own products come behind the model's, so SwiGLU can't follow at once where there are
     * any. */
    if (n_rows < LINEAR_MANY && m->n_ff % 32 == 0 && !has_gists(f, &own_gate_up)) {
        run_ffn_of_few(f, l, &r);
        return;
    }
    project(f, f->xn, m->n_embd, n_rows, gate_up, 2);
    project_gists(f, &own_gate_up, f->xn, m->n_embd);
    r.forms = linear_forms(f->k, &down, 1) | gist_forms(f, &own_down);
    rows_run(&r, rows_swiglu);
    project(f, f->gate, m->n_ff, n_rows, &down, 1);
    project_gists(f, &own_down, f->gate, m->n_ff);
}

/* --- weights that do not stay (engine/file/stream.h) ------------------------------------------ */

/* A pointer that is NULL, of a tensor that the model has not, stays so. */
static const void *by(const void *p, ptrdiff_t d)
{
    return p ? (const uint8_t *)p + d : NULL;
}

/* The layer with its pointers to where it is now. */
static void move_layer(const struct model_layer *from, ptrdiff_t d, struct model_layer *ret)
{
    struct model_tensor *t[] = { &ret->wq,     &ret->wk,   &ret->wv,    &ret->wo,
                                 &ret->w_gate, &ret->w_up, &ret->w_down };
    const float **v[] = { &ret->attn_norm, &ret->ffn_norm, &ret->bq, &ret->bk, &ret->bv };

    *ret = *from;
    for (unsigned i = 0; i < sizeof(t) / sizeof(*t); i++)
        t[i]->data = by(t[i]->data, d);
    for (unsigned i = 0; i < sizeof(v) / sizeof(*v); i++)
        *v[i] = by(*v[i], d);
}

/* Layer i's weights until the next layer's. d 0: it stays, or all of them do. */
static int take_layer(struct layers *f, uint32_t i, const struct model_layer **ret)
{
    ptrdiff_t d;
    int r;

    *ret = &f->m->layers[i];
    if (!f->m->stream)
        return 0;
    r = stream_layer(f->m->stream, i, &d);
    if (r < 0 || d == 0)
        return r;
    move_layer(*ret, d, &f->moved);
    *ret = &f->moved;
    return 0;
}

static bool has_token(const struct plan_row *row)
{
    return row->kind == PLAN_TOKEN || (row->kind == PLAN_GIST && row->id != PLAN_NONE);
}

/* Rows of the batch, by their tiles. All tiles are asked for before the first is waited for. rows:
 * numbers in the batch. */
static int embed_some(struct layers *f, const uint32_t *rows, uint32_t n)
{
    uint32_t ids[STREAM_ROWS];
    const void *tiles[STREAM_ROWS];
    int r;

    for (uint32_t i = 0; i < n; i++)
        ids[i] = f->plan->rows[rows[i]].id;
    r = n > 0 ? stream_rows(f->m->stream, ids, n, tiles) : 0;
    for (uint32_t i = 0; i < n && r == 0; i++)
        rows_embed_one(f, rows[i], tiles[i]);
    return r;
}

/* By this thread, some tokens at a time: what it waits for is the disk. */
static int embed_streamed(struct layers *f)
{
    uint32_t rows[STREAM_ROWS], n = 0;
    int r = 0;

    for (uint32_t t = 0; t < f->plan->n_rows && r == 0; t++) {
        if (!has_token(&f->plan->rows[t])) {
            rows_embed_one(f, t, NULL);
            continue;
        }
        rows[n++] = t;
        if (n == stream_n_rows(f->m->stream)) {
            r = embed_some(f, rows, n);
            n = 0;
        }
    }
    return r == 0 ? embed_some(f, rows, n) : r;
}

static int embed(struct layers *f)
{
    struct rows r = { .f = f, .n_rows = f->plan->n_rows };

    if (f->m->stream)
        stream_begin(f->m->stream, f->plan->n_out > 0);
    if (f->m->stream && !stream_keeps_embd(f->m->stream))
        return embed_streamed(f);
    rows_run(&r, rows_embed);
    return 0;
}

/* Row t begins its page; this step also fills it. Its rows stand in a row, but for gists'. */
static bool is_filled(const struct plan *p, uint32_t t)
{
    for (uint32_t i = t + 1; i < p->n_rows && p->rows[i].piece == p->rows[t].piece; i++)
        if (p->rows[i].page == p->rows[t].page && p->rows[i].slot == PAGE_TOKENS - 1)
            return true;
    return false;
}

/* Pages that are begun and not filled: whoever had them before may have been another user, and all
 * of a page goes to the disk, also what nobody looks at. Before any row is stored, and once a page.
 */
static void clear_begun(const struct plan *p)
{
    for (uint32_t t = 0; t < p->n_rows; t++) {
        const struct plan_row *row = &p->rows[t];

        if (row->page != PLAN_NONE && row->slot == 0 && !is_filled(p, t))
            memset(p->pool->mem + row->page * p->pool->page_bytes, 0, p->pool->page_bytes);
    }
}

/* A step may be given up between two layers, about 20 ms apart (daemon/pace.h); inside one, workers
 * would have to look at a flag. What was stored by then lies behind the sequences' ends, where
 * nobody looks. */
int layers_run(struct layers *f, const struct plan *plan, const struct forward_stop *stop)
{
    struct rows r;
    int e;

    assert(plan->n_rows <= f->max_batch);
    /* None until the end: a step that was given up has no outputs to ask for. */
    f->plan = plan;
    f->n_out = 0;
    clear_begun(plan);
    e = embed(f);
    for (uint32_t i = 0; i < f->m->n_layer && e == 0; i++) {
        const struct model_layer *l;
        uint32_t n_left;

        /* Before the layer's weights are waited for, which may take a disk's time. */
        if (forward_told_to_stop(stop))
            return -ECANCELED;
        e = take_layer(f, i, &l);
        n_left = e == 0 ? run_attention(f, i, l) : 0;
        if (n_left)
            run_ffn(f, i, l, n_left);
    }
    if (e < 0)
        return e;
    /* The last layer's feed-forward left its result in y: the norm adds it, as every norm does. */
    f->n_out = plan->n_out;
    if (f->n_out) {
        r = (struct rows){
            .f = f, .n_rows = f->n_out, .add = f->y, .norm = f->m->output_norm, .to = f->out
        };
        rows_run(&r, rows_norm);
    }
    return 0;
}

/* --- logits ----------------------------------------------------------------------------------- */

/* xn and forms are free between steps, and out is not touched: logits may be asked for more than
 * once. */
int layers_logits(struct layers *f, uint32_t first, uint32_t n, float *ret)
{
    struct head h = { .m = f->m, .k = f->k, .w = f->w, .rest = f->xn, .both = f->head };

    assert(first + n <= f->n_out);
    h.max_rows = f->max_batch < HEAD_ROWS ? f->max_batch : HEAD_ROWS;
    memcpy(h.forms, f->forms, sizeof(h.forms));
    return head_logits(&h, f->out + (size_t)first * f->m->n_embd, n, ret);
}

struct logprobs_job {
    const struct layers *f;
    const uint32_t *ids;
    float *ret;
};

static void logprobs_row(void *arg, uint32_t row, uint32_t worker)
{
    const struct logprobs_job *j = arg;
    const struct layers *f = j->f;
    const float *x = f->logits + (size_t)row * f->m->n_vocab;

    (void)worker;
    /* Looked at here, where the row comes to this worker's cache anyway. A sum of exponentials can
     * lose a NaN. */
    j->ret[row] = quant_finite(QUANT_F32, x, f->m->n_vocab)
                      ? x[j->ids[row]] - f->k->logsumexp(x, f->m->n_vocab)
                      : NAN;
}

/* A few rows at a time, of which one number each stays: logits of a window of 2048 tokens would be
 * 400 MB of the default model. */
int layers_logprobs(struct layers *f, uint32_t first, uint32_t n, const uint32_t *ids, float *ret)
{
    for (uint32_t done = 0, k; done < n; done += k) {
        struct logprobs_job j = { f, ids + done, ret + done };
        int r;

        k = n - done < HEAD_ROWS ? n - done : HEAD_ROWS;
        r = layers_logits(f, first + done, k, f->logits);
        if (r < 0)
            return r;
        workers_run(f->w, logprobs_row, &j, k);
    }
    return 0;
}

/* As they are: normed, and what the output matrix would get. */
void layers_hidden(const struct layers *f, uint32_t first, uint32_t n, float *ret)
{
    size_t n_embd = f->m->n_embd;

    assert(first + n <= f->n_out);
    memcpy(ret, f->out + first * n_embd, n * n_embd * sizeof(*ret));
}
