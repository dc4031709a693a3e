/* engine/cpu/rows.c - single rows: what is done to them between products.
 *
 * All of it is little beside a product, and most of its cost is bringing rows to a cache. So what
 * belongs together is done to a row in one go, the next product's conversions included. /
 */
#include "engine/cpu/rows.h"

#include "engine/cpu/linear.h"
#include "engine/kv/pool.h"

#include <math.h>
#include <string.h>

/* Rows of a slice of row-wise work (norms, rotary, SwiGLU), at most. Fewer, where there is else
 * none for each worker; but a token or two are not worth handing over. */
#define ROW_SLICE     8u
#define ROW_SLICE_MIN 2u

/* A row of the next matmul's input, in the other forms that it wants. Once a row and here: in the
 * product every slice of the weights would convert it again. */
static void convert_row(const struct rows *r, uint32_t t, const float *x, uint32_t n)
{
    const struct layers *f = r->f;

    if (r->forms & 1u << KERNELS_FORM_Q8)
        f->k->quantise(x, n, (struct kernels_q8 *)f->forms[KERNELS_FORM_Q8] + (size_t)t * (n / 32));
    if (r->forms & 1u << KERNELS_FORM_BF16)
        f->k->to_bf16(x, n, (uint16_t *)f->forms[KERNELS_FORM_BF16] + (size_t)t * n);
}

/* The same of some columns alone: n floats of x, and the first is number `at` of all rows; both are
 * multiples of 32. */
static void convert_columns(const struct rows *r, const float *x, uint32_t n, size_t at,
                            void *const *ret)
{
    if (r->forms & 1u << KERNELS_FORM_Q8)
        r->f->k->quantise(x + at, n, (struct kernels_q8 *)ret[KERNELS_FORM_Q8] + at / 32);
    if (r->forms & 1u << KERNELS_FORM_BF16)
        r->f->k->to_bf16(x + at, n, (uint16_t *)ret[KERNELS_FORM_BF16] + at);
}

struct rows_job {
    const struct rows *rows;
    rows_fn *fn;
    uint32_t n; /* rows of a slice */
};

static void rows_slice(void *arg, uint32_t slice, uint32_t worker)
{
    const struct rows_job *j = arg;
    uint32_t row0 = slice * j->n, row1 = row0 + j->n;

    (void)worker;
    j->fn(j->rows, row0, row1 < j->rows->n_rows ? row1 : j->rows->n_rows);
}

/* Slices of 2 to 8 rows: one for each worker, if there are rows for that. */
void rows_run(const struct rows *r, rows_fn *fn)
{
    uint32_t n_workers = workers_n(r->f->w), n = (r->n_rows + n_workers - 1) / n_workers;
    struct rows_job j = { r, fn,
                          n < ROW_SLICE_MIN ? ROW_SLICE_MIN
                          : n < ROW_SLICE   ? n
                                            : ROW_SLICE };

    workers_run(r->f->w, rows_slice, &j, (r->n_rows + j.n - 1) / j.n);
}

/* x += add (if any); to = norm(x) * weight; and in the forms that the next matmul wants. */
void rows_norm(const struct rows *r, uint32_t row0, uint32_t row1)
{
    const struct layers *f = r->f;
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
void rows_convert(const struct rows *r, uint32_t row0, uint32_t row1)
{
    for (uint32_t t = row0; t < row1; t++)
        convert_row(r, t, r->from + (size_t)t * r->n_cols, r->n_cols);
}

/* What attention has made of a KV head's queries. */
void rows_convert_heads(void *arg, uint32_t row, uint32_t c0, uint32_t c1)
{
    const struct rows *r = arg;

    convert_columns(r, r->from, c1 - c0, (size_t)row * r->n_cols + c0, r->f->forms);
}

void rows_swiglu(const struct rows *r, uint32_t row0, uint32_t row1)
{
    const struct layers *f = r->f;
    uint32_t n = f->m->n_ff;

    for (uint32_t t = row0; t < row1; t++) {
        float *gate = f->gate + (size_t)t * n;

        f->k->swiglu(gate, f->up + (size_t)t * n, n);
        convert_row(r, t, gate, n);
    }
}

/* The same of some columns of few rows, behind the products that made them, while others still read
 * these products' input. */
void rows_swiglu_columns(void *arg, uint32_t c0, uint32_t c1)
{
    const struct rows *r = arg;
    const struct layers *f = r->f;
    uint32_t n = f->m->n_ff;

    for (uint32_t t = 0; t < r->n_rows; t++) {
        size_t at = (size_t)t * n + c0;

        f->k->swiglu(f->gate + at, f->up + at, c1 - c0);
        convert_columns(r, f->gate, c1 - c0, at, f->few);
    }
}

/* Rows are read from the file's type as they come: as f32 the default model's table alone would be
 * 113 MB, more than its whole file. tile: the token's, of an embedding that does not stay; else
 * NULL. */
static void embed_token(const struct layers *f, uint32_t id, const void *tile, float *x)
{
    const struct model_tensor *e = &f->m->embd;

    tile_dequantise_row(e->type, tile ? tile : e->data, tile ? id % TILE_ROWS : id, e->n_cols, x);
}

/* A gist's own embedding, and that of its snippet's last token where the plan names one. The
 * adapter's own row is added in either case. */
static void embed_gist(const struct layers *f, const struct plan_row *row, const void *tile,
                       float *x)
{
    const struct adapter *a = f->plan->pieces[row->piece].adapter;
    uint32_t n = f->m->n_embd;

    if (row->id == PLAN_NONE)
        memset(x, 0, n * sizeof(*x));
    else
        embed_token(f, row->id, tile, x);
    f->k->add(x, a->embd + (size_t)row->gist * n, n);
}

void rows_embed_one(const struct layers *f, uint32_t t, const void *tile)
{
    const struct plan_row *row = &f->plan->rows[t];
    uint32_t n = f->m->n_embd;
    float *x = f->x + (size_t)t * n;

    if (row->kind == PLAN_TOKEN)
        embed_token(f, row->id, tile, x);
    else if (row->kind == PLAN_GIST)
        embed_gist(f, row, tile, x);
    else
        memcpy(x, f->plan->pieces[row->piece].soft + (size_t)row->id * n, n * sizeof(*x));
}

void rows_embed(const struct rows *r, uint32_t row0, uint32_t row1)
{
    for (uint32_t t = row0; t < row1; t++)
        rows_embed_one(r->f, t, NULL);
}

/* Puts row t's k and v where they stay, into the tiles of this layer. Rows of one page may be
 * stored by two workers at once: slots of a tile share no byte. */
static void store_kv(const struct rows *r, uint32_t t)
{
    const struct layers *f = r->f;
    const struct plan_row *row = &f->plan->rows[t];
    const struct pool *pool = f->plan->pool;
    uint32_t hd = f->m->head_dim, n_kv = f->m->n_head_kv * hd;
    const float *k = f->kk + (size_t)t * n_kv, *v = f->vv + (size_t)t * n_kv;
    uint8_t *at = pool->mem + row->page * pool->page_bytes;

    for (uint32_t h = 0; h < f->m->n_head_kv; h++)
        f->k->kv_store[pool->kv](k + (size_t)h * hd, v + (size_t)h * hd, hd, row->slot,
                                 at + pool_k_off(pool, r->layer_index, h),
                                 at + pool_v_off(pool, r->layer_index, h));
}

/* By the offset inside the segment, not by the position: positions change when a segment before is
 * compressed, and kept keys must not. Queries are turned to each segment's base instead, when they
 * look at it (engine/cpu/attend.c). */
static void turn_keys(const struct rows *r, uint32_t by, uint32_t t)
{
    const struct layers *f = r->f;
    uint32_t hd = f->m->head_dim;

    f->k->rope(f->kk + (size_t)t * f->m->n_head_kv * hd, f->m->n_head_kv, hd,
               rotary_by(&f->rotary, by, NULL));
}

/* The scale of attention once a query, where it would be once a score. */
/* q with rotary by the offset inside the segment and the scale of attention. */
static void turn_query(const struct rows *r, uint32_t off, uint32_t t)
{
    const struct layers *f = r->f;
    uint32_t hd = f->m->head_dim, n_q = f->m->n_head * hd;
    float *q = f->q + (size_t)t * n_q;

    f->k->rope(q, f->m->n_head, hd, rotary_by(&f->rotary, off, NULL));
    f->k->scale(q, n_q, 1.0f / sqrtf((float)hd));
}

/* Row t's biases: those of the adapter that makes it, where that has its own, else the model's. */
static void add_biases(const struct rows *r, const struct adapter *a, uint32_t t)
{
    const struct layers *f = r->f;
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

/* Biases and rotary, and K and V into their pages. A side gist attends to itself from where it
 * stands, which is not where its key is kept. */
void rows_place(const struct rows *r, uint32_t row0, uint32_t row1)
{
    const struct plan *plan = r->f->plan;

    for (uint32_t t = row0; t < row1; t++) {
        const struct plan_row *row = &plan->rows[t];
        const struct plan_piece *p = &plan->pieces[row->piece];

        add_biases(r, row->kind == PLAN_GIST ? p->adapter : NULL, t);
        turn_query(r, row->q_off, t);
        /* An observer: its key and value are there since it was read. */
        if (row->page == PLAN_NONE)
            continue;
        turn_keys(r, row->k_off, t);
        store_kv(r, t);
        if (p->side)
            turn_keys(r, row->q_off - row->k_off, t);
    }
}
