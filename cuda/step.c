/* cuda/step.c - the layers of a step, queued one behind the other.
 *
 * The order is engine/cpu/layers.c's, so that the two can be read beside each other: a product
 * leaves its result in y, and the norm behind it adds that to x.
 *
 * A kernel of a decoding step takes microseconds, and a launch about as long: so a step of few rows
 * is kept as a graph, by its shape, and queued as a whole when the shape comes again. Of others the
 * host runs ahead. But a step that is given up should end soon, so it runs ahead by two layers and
 * no more.
 */
#include "cuda/step_inner.h"

#include "cuda/shift.h"
#include "engine/kv/pool.h"
#include "engine/kv/rotary.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Looks whether a layer is done between two questions whether to stop: those take letters and
 * frames, and cost more. */
#define LOOKS 64

/* --- opening ---------------------------------------------------------------------------------- */

static size_t fine_bytes(const struct model *m)
{
    return (size_t)ROTARY_FINE * m->head_dim * sizeof(float);
}

static size_t coarse_bytes(const struct model *m)
{
    return (size_t)ROTARY_COARSE * m->head_dim * sizeof(float);
}

/* What step_open takes; plans' blocks come with the first step. */
static size_t opened_bytes(const struct model *m, uint32_t max_rows)
{
    return room_need(m, max_rows) + fine_bytes(m) + coarse_bytes(m);
}

size_t step_need(const struct model *m, uint32_t max_rows, uint32_t max_pages)
{
    return opened_bytes(m, max_rows) + upload_need(m, max_rows, max_pages);
}

/* With the plan's blocks as they are by now. */
size_t step_bytes(const struct step *s)
{
    return s->room.len + fine_bytes(s->m) + coarse_bytes(s->m) + upload_bytes(&s->upload);
}

/* The host's tables to the bit: angles in double, rounded once. Freed here although the copies may
 * be under way: stage_put has read them. */
static int put_angles(struct step *s)
{
    struct rotary host;
    void *fine, *coarse;
    int r = rotary_open(&host, s->m->rope_freq, s->m->head_dim);

    if (r < 0)
        return r;
    /* Each is the step's as soon as it is there, so that step_close finds it. */
    r = rt_alloc(s->rt, fine_bytes(s->m), &fine);
    if (r == 0) {
        s->fine = fine;
        r = rt_alloc(s->rt, coarse_bytes(s->m), &coarse);
    }
    if (r == 0) {
        s->coarse = coarse;
        r = stage_put(s->stage, s->fine, host.fine, fine_bytes(s->m), NULL);
    }
    if (r == 0)
        r = stage_put(s->stage, s->coarse, host.coarse, coarse_bytes(s->m), NULL);
    rotary_close(&host);
    return r;
}

static int open_parts(struct step *s, uint32_t max_rows, struct why *why)
{
    int r = room_open(s->rt, s->m, max_rows, &s->room);

    /* Asked for before r is looked at; step_close takes it. */
    s->ask_ids = malloc((size_t)ROOM_PICKS * SAMPLER_REPEAT_MAX * sizeof(*s->ask_ids));
    if (r == 0 && !s->ask_ids)
        r = -ENOMEM;
    if (r == 0)
        r = put_angles(s);
    for (unsigned i = 0; i < STEP_AHEAD && r == 0; i++)
        r = rt_event_open(s->rt, &s->done[i]);
    if (r < 0)
        return why_set(why, r,
                       "no memory on the device for steps of %u tokens: %zu bytes "
                       "(--batch-tokens)",
                       max_rows, opened_bytes(s->m, max_rows));
    s->products = (struct products){ .stream = rt_stream(s->rt, RT_COMPUTE),
                                     .room = &s->room,
                                     .view = s->view };
    /* The library's sentence says what is missing. */
    return gemm_open(s->products.stream, s->room.gemm, &s->products.gemm, why);
}

int step_open(struct rt *rt, struct stage *stage, const struct model *m,
              const struct spread_view *v, uint32_t max_rows, struct step **ret, struct why *why)
{
    struct step *s;
    int r;

    /* Weights that are read from the disk as they are needed are the CPU's alone. */
    if (m->stream)
        return why_set(why, -ENOTSUP,
                       "option weight-bytes: a GPU has all weights in its memory; leave it out, or "
                       "use --device cpu");
    s = calloc(1, sizeof(*s));
    if (!s)
        return why_set(why, -ENOMEM, "no memory for steps");
    *s = (struct step){ .rt = rt, .stage = stage, .m = m, .view = *v };
    upload_init(&s->upload, rt, m, v);
    r = open_parts(s, max_rows, why);
    if (r < 0) {
        step_close(s);
        return r;
    }
    *ret = s;
    return 0;
}

void step_close(struct step *s)
{
    if (!s)
        return;
    gemm_close(s->products.gemm);
    for (unsigned i = 0; i < KEPT; i++)
        rt_graph_close(s->rt, s->kept[i].graph);
    for (unsigned i = 0; i < STEP_AHEAD; i++)
        rt_event_close(s->rt, s->done[i]);
    if (s->fine)
        rt_free(s->rt, s->fine);
    if (s->coarse)
        rt_free(s->rt, s->coarse);
    upload_fini(&s->upload);
    room_close(&s->room);
    free(s->ask_ids);
    free(s);
}

struct step_residual step_residual(const struct step *s)
{
    return (struct step_residual){ s->room.x, s->room.y };
}

struct k_angles step_angles(const struct step *s)
{
    return (struct k_angles){ s->fine, s->coarse };
}

/* --- one layer -------------------------------------------------------------------------------- */

/* The others get what the device before them has left: x, and y to be added. (T, n_embd) of tokens,
 * gists' embeddings and soft rows. */
int step_embed(const struct step *s)
{
    const struct model_tensor *e = &s->m->embd;

    if (s->view.before)
        return 0;
    return k_embed(s->products.stream, &(struct k_embed){ .rows = s->upload.rows,
                                                          .pieces = s->upload.pieces,
                                                          .gists = s->upload.gists,
                                                          .tiles = e->data,
                                                          .type = e->type,
                                                          .tile_len = e->tile_len,
                                                          .n_rows = s->plan->n_rows,
                                                          .n_embd = s->m->n_embd,
                                                          .x = s->room.x });
}

/* x += y (but before the first layer); to = norm(x), in the forms that the product behind takes. */
static int norm(const struct step *s, uint32_t n_rows, const float *add, const float *w, float *to,
                struct k_forms forms)
{
    return k_norm(s->products.stream, &(struct k_norm){ .x = s->room.x,
                                                        .to = to,
                                                        .add = add,
                                                        .w = w,
                                                        .n_rows = n_rows,
                                                        .n = s->m->n_embd,
                                                        .eps = s->m->rms_eps,
                                                        .forms = forms });
}

/* own: of gists with an adapter; else the model's biases. */
static int place(const struct step *s, uint32_t i, const struct model_layer *l)
{
    const struct upload *u = &s->upload;

    return k_place(s->products.stream,
                   &(struct k_place){ .rows = u->rows,
                                      .pieces = u->pieces,
                                      .bias = { l->bq, l->bk, l->bv },
                                      .own = u->own ? u->own + (size_t)i * u->n_own : NULL,
                                      .pool = s->pool,
                                      .angles = step_angles(s),
                                      .layer = i,
                                      .n_rows = s->plan->n_rows,
                                      .n_head = s->m->n_head,
                                      .q = s->room.q,
                                      .k = s->room.kk,
                                      .v = s->room.vv });
}

/* K and V of the own rows as they are, earlier ones from pages. */
static int attend(const struct step *s, uint32_t i)
{
    const struct upload *u = &s->upload;

    return k_attend(s->products.stream,
                    &(struct k_attend){ .shape = room_attend_shape(s->m, s->pool.kv),
                                        .pool = s->pool,
                                        .angles = step_angles(s),
                                        .table = u->table,
                                        .cut = u->cut,
                                        .pieces = u->pieces,
                                        .segments = u->segments,
                                        .pages = u->pages,
                                        .q = s->room.q,
                                        .k = s->room.kk,
                                        .v = s->room.vv,
                                        .out = s->room.att,
                                        .scratch = s->room.attend,
                                        .layer = i,
                                        .max_rows = s->room.max_rows });
}

/* Only the rows that outputs are wanted of go on from the last layer's attention. gate and up are
 * of use again behind it. */
static int keep_wanted(const struct step *s)
{
    return k_keep(s->products.stream, &(struct k_keep){ .out_rows = s->upload.out_rows,
                                                        .n_out = s->plan->n_out,
                                                        .x = s->room.x,
                                                        .y = s->room.att,
                                                        .n = s->m->n_embd,
                                                        .m = s->m->n_head * s->m->head_dim,
                                                        .spare = s->room.gate });
}

/* Of the model, not of the view alone. Only there is nothing in y that waits to be added. */
static bool is_first(const struct step *s, uint32_t i)
{
    return i == 0 && !s->view.before;
}

static bool is_last(const struct step *s, uint32_t i)
{
    return i + 1 == s->m->n_layer && !s->view.after;
}

static struct product product_of(const struct step *s, uint32_t i, const float *x, uint32_t n_rows,
                                 uint32_t n_cols)
{
    return (struct product){
        .x = x, .n_rows = n_rows, .n_cols = n_cols, .layer = i, .wanted = is_last(s, i)
    };
}

static int run_qkv(struct step *s, uint32_t i, const struct model_layer *l)
{
    /* x (T, n_embd) normed, three results. */
    struct product a = product_of(s, i, s->room.xn, s->plan->n_rows, s->m->n_embd);
    int r;

    /* K and V are wanted of all rows, outputs of few. */
    a.wanted = false; /* all rows are there until the last layer's attention */
    a.out[0] = (struct product_output){ &l->wq, ADAPTER_Q, s->room.q };
    a.out[1] = (struct product_output){ &l->wk, ADAPTER_K, s->room.kk };
    a.out[2] = (struct product_output){ &l->wv, ADAPTER_V, s->room.vv };
    a.n_out = 3;
    r = norm(s, a.n_rows, is_first(s, i) ? NULL : s->room.y, l->attn_norm, s->room.xn,
             products_forms(&s->products, s->plan, &a));
    if (r == 0)
        r = products_run(&s->products, s->plan, &a);
    return r == 0 ? place(s, i, l) : r;
}

/* att (T, n_q) to y (T, n_embd), which the norm behind it adds. */
static int run_wo(struct step *s, uint32_t i, const struct model_layer *l, uint32_t n_rows)
{
    uint32_t n_q = s->m->n_head * s->m->head_dim;
    struct product a = product_of(s, i, s->room.att, n_rows, n_q);
    struct k_convert c = { .x = a.x, .n_rows = n_rows, .n = n_q };
    int r = 0;

    a.out[0] = (struct product_output){ &l->wo, ADAPTER_O, s->room.y };
    a.n_out = 1;
    c.forms = products_forms(&s->products, s->plan, &a);
    /* Attention leaves f32; where float weights take it as it is nothing is to be made of it. */
    if (c.forms.q8 || c.forms.bf16)
        r = k_convert(s->products.stream, &c);
    return r == 0 ? products_run(&s->products, s->plan, &a) : r;
}

int step_attention(struct step *s, uint32_t i, uint32_t *ret_left)
{
    const struct model_layer *l = &s->m->layers[i];
    /* The observer of attention's weights wants the attention of the last layer, too, though nobody
     * wants its outputs. */
    bool last = is_last(s, i);
    int r = run_qkv(s, i, l);

    *ret_left = last ? s->plan->n_out : s->plan->n_rows;
    /* *ret_left is 0 here when nobody wants outputs. */
    if (r < 0 || (last && s->plan->n_out == 0 && !s->plan->observes))
        return r; /* only K and V were wanted */
    r = attend(s, i);
    if (r == 0 && last && s->plan->n_out)
        r = keep_wanted(s);
    return r == 0 && *ret_left ? run_wo(s, i, l, *ret_left) : r;
}

/* gate and up (T, n_ff), whose product is left in gate, to y. */
int step_ffn(struct step *s, uint32_t i, uint32_t n_rows)
{
    const struct model_layer *l = &s->m->layers[i];
    struct product a = product_of(s, i, s->room.xn, n_rows, s->m->n_embd), b;
    int r;

    a.out[0] = (struct product_output){ &l->w_gate, ADAPTER_GATE, s->room.gate };
    a.out[1] = (struct product_output){ &l->w_up, ADAPTER_UP, s->room.up };
    a.n_out = 2;
    r = norm(s, n_rows, s->room.y, l->ffn_norm, s->room.xn,
             products_forms(&s->products, s->plan, &a));
    if (r == 0)
        r = products_run(&s->products, s->plan, &a);
    b = product_of(s, i, s->room.gate, n_rows, s->m->n_ff);
    b.out[0] = (struct product_output){ &l->w_down, ADAPTER_DOWN, s->room.y };
    b.n_out = 1;
    if (r == 0)
        r = k_swiglu(s->products.stream,
                     &(struct k_swiglu){ .gate = s->room.gate,
                                         .up = s->room.up,
                                         .n_rows = n_rows,
                                         .n = s->m->n_ff,
                                         .forms = products_forms(&s->products, s->plan, &b) });
    return r == 0 ? products_run(&s->products, s->plan, &b) : r;
}

/* --- the step --------------------------------------------------------------------------------- */

/* Until the mark is reached. -ECANCELED: somebody said so first. Polls where somebody may say so;
 * else the runtime waits. */
static int await(struct step *s, struct rt_event *e, const struct forward_stop *stop)
{
    for (unsigned n = 1;; n++) {
        int r = stop ? rt_event_done(s->rt, e) : rt_event_wait(s->rt, e);

        if (r != -EAGAIN)
            return r;
        if (n % LOOKS == 0 && forward_told_to_stop(stop))
            return -ECANCELED;
    }
}

static int run_layer(struct step *s, uint32_t i)
{
    uint32_t n_left;
    int r = step_attention(s, i, &n_left);

    return r == 0 && n_left ? step_ffn(s, i, n_left) : r;
}

/* To room.out, where outputs are asked of (cuda/outputs.c). */
int step_last_norm(const struct step *s)
{
    if (s->view.after || s->plan->n_out == 0)
        return 0;
    return norm(s, s->plan->n_out, s->room.y, s->m->output_norm, s->room.out,
                (struct k_forms){ .q8 = NULL });
}

static int run_layers(struct step *s, const struct forward_stop *stop)
{
    int r = step_embed(s);

    for (uint32_t i = 0; i < s->m->n_layer && r == 0; i++) {
        struct rt_event *mark = s->done[i % STEP_AHEAD];

        if (forward_told_to_stop(stop))
            return -ECANCELED;
        /* mark is still that of layer i - STEP_AHEAD. */
        if (i >= STEP_AHEAD)
            r = await(s, mark, stop);
        if (r == 0)
            r = run_layer(s, i);
        if (r == 0)
            r = rt_record(s->rt, RT_COMPUTE, mark);
    }
    return r == 0 ? step_last_norm(s) : r;
}

/* --- steps of few rows ------------------------------------------------------------------------ */

/* A library's product is not kept, since what it does may depend on more than its arguments; nor
 * are adapters' rows, whose places are the plan's alone. At most as many rows as tiles are
 * multiplied with as they are: more are a library's. */
static bool is_kept(const struct step *s)
{
    return s->plan->n_rows <= ROOM_FEW_ROWS && s->upload.n_own == 0;
}

/* Field by field into zeros, since it is compared by its bytes. bytes says how long the copy of the
 * plan was, on which no launch depends. */
static void shape_of(const struct step *s, struct shape *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->n_rows = s->plan->n_rows;
    ret->n_out = s->plan->n_out;
    ret->observes = s->plan->observes;
    memcpy(&ret->at, &s->upload, sizeof(ret->at));
    memcpy(&ret->pool, &s->pool, sizeof(ret->pool));
    ret->at.table.bytes = 0;
}

/* The one that has this shape, or the one that has not been of use for longest. */
static struct kept *find_kept(struct step *s, const struct shape *shape)
{
    struct kept *oldest = &s->kept[0];

    for (unsigned i = 0; i < KEPT; i++) {
        struct kept *k = &s->kept[i];

        if (k->graph && memcmp(&k->shape, shape, sizeof(*shape)) == 0)
            return k;
        if (k->used < oldest->used)
            oldest = k;
    }
    /* Whatever was queued of it is over: a step waits for its end. */
    rt_graph_close(s->rt, oldest->graph);
    *oldest = (struct kept){ .graph = NULL };
    return oldest;
}

/* Whatever fails, the capture is ended. */
static int keep(struct step *s, struct kept *k)
{
    int r = rt_keep(s->rt), e;

    if (r < 0)
        return r;
    r = step_embed(s);
    for (uint32_t i = 0; i < s->m->n_layer && r == 0; i++)
        r = run_layer(s, i);
    if (r == 0)
        r = step_last_norm(s);
    e = rt_kept(s->rt, r == 0 ? &k->graph : NULL);
    return r < 0 ? r : e;
}

/* No question whether to stop while it runs: it is milliseconds. */
static int run_kept(struct step *s, const struct forward_stop *stop)
{
    struct shape shape;
    struct kept *k;
    int r = 0;

    if (forward_told_to_stop(stop))
        return -ECANCELED;
    shape_of(s, &shape);
    k = find_kept(s, &shape);
    /* Nothing was computed yet: recording only notes launches. */
    if (!k->graph) {
        r = keep(s, k);
        k->shape = shape;
    }
    /* Also where recording failed: then graph is NULL, and it is free. */
    k->used = ++s->n_steps;
    return r == 0 ? rt_queue(s->rt, k->graph) : r;
}

/* All is queued, so who wants it to stop now has it in no time. Given up or failed, what is queued
 * still reads the plan and writes to pages: it ends first. stop is asked so that letters are read
 * meanwhile; what it says changes nothing any more. */
static int finish(struct step *s, const struct forward_stop *stop, int r)
{
    struct rt_event *end = s->done[0];

    if (r == 0)
        r = rt_record(s->rt, RT_COMPUTE, end);
    if (r == 0 && await(s, end, stop) < 0)
        r = rt_event_wait(s->rt, end);
    if (r < 0)
        (void)rt_wait(s->rt, RT_COMPUTE);
    return r;
}

int step_start(struct step *s, const struct plan *plan)
{
    struct k_attend_shape shape = room_attend_shape(s->m, plan->pool->kv);
    int r;

    assert(plan->n_rows <= s->room.max_rows);
    /* None until the end: a step that was given up has no outputs to ask for. */
    s->plan = plan;
    s->n_out = 0;
    s->pool = shift_pool(&s->view, plan->pool);
    /* Adapters and soft rows that were put before are seen. */
    r = stage_join(s->stage);
    if (r == 0)
        r = upload_plan(&s->upload, plan, &shape);
    return r;
}

int step_begin(struct step *s, const struct plan *plan, const struct forward_stop *stop)
{
    int r = step_start(s, plan);

    if (r == 0)
        r = is_kept(s) ? run_kept(s, stop) : run_layers(s, stop);
    return r;
}

int step_end(struct step *s, const struct forward_stop *stop, int r)
{
    r = finish(s, stop, r);
    if (r == 0)
        s->n_out = s->plan->n_out;
    return r;
}
