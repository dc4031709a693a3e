/* bench/gpu/kernels.c - what each kernel of a step reads, writes and computes, and how long it
 * takes.
 *
 *     kernels [-c] [-t] [-d N]
 *
 * -c: counts only, no device is looked for. -t: a tiny model instead of Llama-3.1-8B in Q4_K_M. -d
 * N: device N. One JSON object a line:
 *
 *     {"kernel": "matvec", "what": "q4_k 4096 x 4096, 1 row", "token": 64, "chunk": 0,
 *      "bytes": ..., "flops": ..., "ns": ...}
 *
 * token, chunk: how often it is launched for a decoding token, and for 512 tokens of a prompt.
 * Bytes are those that must cross the device's memory: what is read twice counts once, and what a
 * kernel leaves behind counts though the next one may find it in a cache. flops: multiplications
 * and additions; of norms and the like, which memory limits, none are counted. ns: the best of some
 * rounds, each of many launches that are kept as a graph and queued as a whole; null with -c.
 */
#include "base/clock.h"
#include "bench/gpu/scene.h"
#include "engine/file/tile.h"
#include "engine/kv/pool.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#define WORKS_MAX  96u
#define CHUNK      512u
#define CHUNK_TINY 32u
#define ROUNDS     5
#define LAUNCHES   128u /* of a round: a graph costs as much as some */
#define F          sizeof(float)

struct work;
typedef int launch_fn(const struct scene *s, const struct work *w, uint32_t i);

struct work {
    const char *kernel;
    char what[64];
    uint32_t per_token, per_chunk;
    double bytes, flops;
    launch_fn *launch;
    bool is_library; /* whose products are not kept as a graph */
    enum quant type; /* a weight, of w's shape, and rows that it meets */
    uint32_t n_rows, n_cols, n_x;
    struct scene_step step; /* sessions 0: it looks at no plan */
};

struct bench {
    struct model m;
    struct work works[WORKS_MAX];
    uint32_t n;
    uint32_t chunk; /* rows of a prompt */
    uint32_t most_pages;
};

static struct work *add(struct bench *b, const char *kernel, launch_fn *launch)
{
    struct work *w = &b->works[b->n < WORKS_MAX ? b->n++ : WORKS_MAX - 1];

    *w = (struct work){ .kernel = kernel, .launch = launch };
    return w;
}

/* --- weights ---------------------------------------------------------------------------------- */

static size_t weight_bytes(const struct work *w)
{
    return tile_count(w->n_rows) * tile_len(w->type, w->n_cols);
}

static int launch_matvec(const struct scene *s, const struct work *w, uint32_t i)
{
    return k_matvec(rt_stream(s->rt, RT_COMPUTE),
                    &(struct k_matvec){ .type = w->type,
                                        .w = scene_weight(s, weight_bytes(w), i),
                                        .tile_len = tile_len(w->type, w->n_cols),
                                        .n_rows = w->n_rows,
                                        .n_cols = w->n_cols,
                                        .x = s->room.q8,
                                        .x_stride = w->n_cols / 32 * sizeof(struct k_q8),
                                        .n_x = w->n_x,
                                        .y = w->n_rows == s->m.n_vocab ? s->room.head : s->room.up,
                                        .y_stride = w->n_rows });
}

static int launch_dequant(const struct scene *s, const struct work *w, uint32_t i)
{
    return k_dequant(rt_stream(s->rt, RT_COMPUTE),
                     &(struct k_dequant){ .type = w->type,
                                          .w = scene_weight(s, weight_bytes(w), i),
                                          .tile_len = tile_len(w->type, w->n_cols),
                                          .n_rows = w->n_rows,
                                          .n_cols = w->n_cols,
                                          .row1 = w->n_rows,
                                          .to = s->room.slab });
}

static int launch_gemm(const struct scene *s, const struct work *w, uint32_t i)
{
    size_t n = (size_t)w->n_rows * w->n_cols * sizeof(uint16_t);

    return gemm_run(s->gemm, &(struct gemm_product){ .w = scene_weight(s, n, i),
                                                     .x = s->room.bf16,
                                                     .y = s->room.up,
                                                     .n_rows = w->n_rows,
                                                     .n_cols = w->n_cols,
                                                     .n_x = w->n_x,
                                                     .y_stride = w->n_rows });
}

/* A weight of this shape, met by n_x rows. */
static struct work *add_weight(struct bench *b, const char *kernel, launch_fn *launch,
                               enum quant type, uint32_t n_rows, uint32_t n_cols, uint32_t n_x)
{
    struct work *w = add(b, kernel, launch);

    w->type = type;
    w->n_rows = n_rows;
    w->n_cols = n_cols;
    w->n_x = n_x;
    w->flops = 2.0 * n_rows * n_cols * n_x;
    (void)snprintf(w->what, sizeof(w->what), "%s %u x %u", quant_info(type)->name, n_rows, n_cols);
    return w;
}

static void add_matvec(struct bench *b, enum quant type, uint32_t n_rows, uint32_t n_cols,
                       uint32_t n_x, uint32_t per_token)
{
    struct work *w = add_weight(b, "matvec", launch_matvec, type, n_rows, n_cols, n_x);

    (void)snprintf(w->what, sizeof(w->what), "%s %u x %u, %u row%s", quant_info(type)->name, n_rows,
                   n_cols, n_x, n_x == 1 ? "" : "s");
    w->per_token = per_token;
    w->bytes = (double)weight_bytes(w) + n_x * (n_cols / 32.0 * sizeof(struct k_q8) + n_rows * F);
}

static void add_prompt(struct bench *b, enum quant type, uint32_t n_rows, uint32_t n_cols,
                       uint32_t per_chunk)
{
    double slab = (double)n_rows * n_cols * sizeof(uint16_t);
    struct work *w = add_weight(b, "dequant", launch_dequant, type, n_rows, n_cols, 0);

    w->bytes = (double)weight_bytes(w) + slab;
    w->per_chunk = per_chunk;
    w = add_weight(b, "product", launch_gemm, type, n_rows, n_cols, b->chunk);
    (void)snprintf(w->what, sizeof(w->what), "bf16 %u x %u, %u rows", n_rows, n_cols, b->chunk);
    w->bytes = slab + b->chunk * (n_cols * sizeof(uint16_t) + n_rows * F);
    w->per_chunk = per_chunk;
    w->is_library = true;
}

/* A matrix of the layers: how many of this shape a Q4_K_M file has in Q4_K, and in Q6_K. */
static void add_matrix(struct bench *b, uint32_t n_rows, uint32_t n_cols, uint32_t q4, uint32_t q6)
{
    add_matvec(b, QUANT_Q4_K, n_rows, n_cols, 1, q4);
    add_matvec(b, QUANT_Q4_K, n_rows, n_cols, K_MATVEC_ROWS, 0);
    add_prompt(b, QUANT_Q4_K, n_rows, n_cols, q4);
    if (q6 == 0)
        return;
    add_matvec(b, QUANT_Q6_K, n_rows, n_cols, 1, q6);
    add_prompt(b, QUANT_Q6_K, n_rows, n_cols, q6);
}

static void add_weights(struct bench *b)
{
    const struct model *m = &b->m;
    uint32_t n_q = m->n_head * m->head_dim, n_kv = m->n_head_kv * m->head_dim;
    uint32_t all = m->n_layer, half = all / 2;

    add_matrix(b, n_q, m->n_embd, 2 * all, 0);              /* q, o */
    add_matrix(b, n_kv, m->n_embd, all + half, half);       /* k, v */
    add_matrix(b, m->n_ff, m->n_embd, 2 * all, 0);          /* gate, up */
    add_matrix(b, m->n_embd, m->n_ff, all - half, half);    /* down */
    add_matvec(b, QUANT_Q6_K, m->n_vocab, m->n_embd, 2, 1); /* an output is two rows */
}

/* --- rows ------------------------------------------------------------------------------------- */

/* What the products behind take: int8 of few rows, bf16 of many. */
static struct k_forms forms_of(const struct scene *s, uint32_t n_rows)
{
    bool few = n_rows <= ROOM_FEW_ROWS;

    return (struct k_forms){ .q8 = few ? s->room.q8 : NULL, .bf16 = few ? NULL : s->room.bf16 };
}

static double form_bytes(uint32_t n_rows)
{
    return n_rows <= ROOM_FEW_ROWS ? sizeof(struct k_q8) / 32.0 : sizeof(uint16_t);
}

static int launch_norm(const struct scene *s, const struct work *w, uint32_t i)
{
    (void)i;
    return k_norm(rt_stream(s->rt, RT_COMPUTE), &(struct k_norm){ .x = s->room.x,
                                                                  .to = s->room.xn,
                                                                  .add = s->room.y,
                                                                  .w = s->norm,
                                                                  .n_rows = w->n_x,
                                                                  .n = s->m.n_embd,
                                                                  .eps = s->m.rms_eps,
                                                                  .forms = forms_of(s, w->n_x) });
}

static int launch_convert(const struct scene *s, const struct work *w, uint32_t i)
{
    (void)i;
    return k_convert(rt_stream(s->rt, RT_COMPUTE),
                     &(struct k_convert){ .x = s->room.att,
                                          .n_rows = w->n_x,
                                          .n = s->m.n_head * s->m.head_dim,
                                          .forms = forms_of(s, w->n_x) });
}

static int launch_swiglu(const struct scene *s, const struct work *w, uint32_t i)
{
    (void)i;
    return k_swiglu(rt_stream(s->rt, RT_COMPUTE),
                    &(struct k_swiglu){ .gate = s->room.gate,
                                        .up = s->room.up,
                                        .n_rows = w->n_x,
                                        .n = s->m.n_ff,
                                        .forms = forms_of(s, w->n_x) });
}

static int launch_embed(const struct scene *s, const struct work *w, uint32_t i)
{
    return k_embed(rt_stream(s->rt, RT_COMPUTE),
                   &(struct k_embed){ .rows = s->upload.rows,
                                      .pieces = s->upload.pieces,
                                      .tiles = scene_weight(s, weight_bytes(w), i),
                                      .type = w->type,
                                      .tile_len = tile_len(w->type, w->n_cols),
                                      .n_rows = s->plan.n_rows,
                                      .n_embd = s->m.n_embd,
                                      .x = s->room.x });
}

static int launch_place(const struct scene *s, const struct work *w, uint32_t i)
{
    (void)w;
    return k_place(rt_stream(s->rt, RT_COMPUTE), &(struct k_place){ .rows = s->upload.rows,
                                                                    .pieces = s->upload.pieces,
                                                                    .pool = s->pool,
                                                                    .angles = s->angles,
                                                                    .layer = i % s->m.n_layer,
                                                                    .n_rows = s->plan.n_rows,
                                                                    .n_head = s->m.n_head,
                                                                    .q = s->room.q,
                                                                    .k = s->room.kk,
                                                                    .v = s->room.vv });
}

static struct work *add_rows(struct bench *b, const char *kernel, launch_fn *launch,
                             uint32_t n_rows, double bytes_a_row)
{
    struct work *w = add(b, kernel, launch);

    w->n_x = n_rows;
    w->bytes = bytes_a_row * n_rows;
    (void)snprintf(w->what, sizeof(w->what), "%u row%s", n_rows, n_rows == 1 ? "" : "s");
    return w;
}

/* Of one token, and of a prompt's rows; counts are a step's. */
static void add_row_kernels(struct bench *b, uint32_t n)
{
    const struct model *m = &b->m;
    uint32_t n_q = m->n_head * m->head_dim, n_kv = m->n_head_kv * m->head_dim, all = m->n_layer;
    struct scene_step step = { 1, SCENE_SEGMENT, n, 1, KV_F16 };
    double form = form_bytes(n);
    struct work *w[5];

    w[0] = add_rows(b, "embed", launch_embed, n,
                    m->n_embd * F + (double)tile_len(QUANT_Q4_K, m->n_embd) / TILE_ROWS);
    w[0]->type = QUANT_Q4_K;
    w[0]->n_rows = m->n_vocab;
    w[0]->n_cols = m->n_embd;
    w[0]->step = step;
    w[1] = add_rows(b, "norm", launch_norm, n, m->n_embd * (4 * F + form));
    w[2] = add_rows(b, "place", launch_place, n, 2 * n_q * F + n_kv * (2 * F + 4));
    w[2]->step = step;
    w[3] = add_rows(b, "convert", launch_convert, n, n_q * (F + form));
    w[4] = add_rows(b, "swiglu", launch_swiglu, n, m->n_ff * (3 * F + form));
    for (unsigned i = 0; i < 5; i++)
        *(n == 1 ? &w[i]->per_token : &w[i]->per_chunk) = i == 0 ? 1 : i == 1 ? 2 * all + 1 : all;
}

/* --- outputs ---------------------------------------------------------------------------------- */

static int launch_fine(const struct scene *s, const struct work *w, uint32_t i)
{
    (void)i;
    return k_fine(rt_stream(s->rt, RT_COMPUTE),
                  &(struct k_fine){ s->room.out, w->n_x, s->m.n_embd, s->room.q8 });
}

static int launch_fold(const struct scene *s, const struct work *w, uint32_t i)
{
    (void)i;
    return k_fold(rt_stream(s->rt, RT_COMPUTE),
                  &(struct k_fold){ s->room.head, w->n_x, s->m.n_vocab, s->room.logits });
}

static int launch_argmax(const struct scene *s, const struct work *w, uint32_t i)
{
    (void)i;
    return k_argmax(rt_stream(s->rt, RT_COMPUTE),
                    &(struct k_argmax){ s->room.logits, w->n_x, s->m.n_vocab, s->room.ids });
}

static int launch_logprobs(const struct scene *s, const struct work *w, uint32_t i)
{
    (void)i;
    return k_logprobs(rt_stream(s->rt, RT_COMPUTE), &(struct k_logprobs){ .logits = s->room.logits,
                                                                          .ids = s->upload.out_rows,
                                                                          .n = w->n_x,
                                                                          .n_vocab = s->m.n_vocab,
                                                                          .to = s->room.logprobs });
}

static void add_outputs(struct bench *b)
{
    const struct model *m = &b->m;
    struct work *w;

    add_rows(b, "fine", launch_fine, 1, m->n_embd * (F + 2 * sizeof(struct k_q8) / 32.0))
        ->per_token = 1;
    add_rows(b, "fold", launch_fold, 1, 3.0 * m->n_vocab * F)->per_token = 1;
    add_rows(b, "argmax", launch_argmax, ROOM_HEAD_ROWS, (double)m->n_vocab * F);
    w = add_rows(b, "logprobs", launch_logprobs, 1, (double)m->n_vocab * F);
    w->step = (struct scene_step){ 1, SCENE_SEGMENT, 1, 1, KV_F16 }; /* its id is a row's number */
}

/* --- attention and pages ---------------------------------------------------------------------- */

static int launch_attend(const struct scene *s, const struct work *w, uint32_t i)
{
    return k_attend(rt_stream(s->rt, RT_COMPUTE),
                    &(struct k_attend){ .shape = room_attend_shape(&s->m, w->step.kv),
                                        .pool = s->pool,
                                        .angles = s->angles,
                                        .table = s->upload.table,
                                        .cut = s->upload.cut,
                                        .pieces = s->upload.pieces,
                                        .segments = s->upload.segments,
                                        .pages = s->upload.pages,
                                        .q = s->room.q,
                                        .k = s->room.kk,
                                        .v = s->room.vv,
                                        .out = s->room.att,
                                        .scratch = s->room.attend,
                                        .layer = i % s->m.n_layer,
                                        .max_rows = s->room.max_rows });
}

static const char *kv_word(enum kv_type kv)
{
    return kv == KV_Q8_0 ? "q8_0" : "f16";
}

static void add_attend(struct bench *b, struct scene_step step)
{
    const struct model *m = &b->m;
    struct work *w = add(b, "attend", launch_attend);
    double heads = m->n_head * m->head_dim, rows = step.sessions * step.rows;
    double keys = scene_keys(&step);
    uint32_t pages = scene_pages(&step);

    w->step = step;
    w->bytes = pages * 2.0 * (double)kv_tile_bytes(step.kv, m->head_dim) * m->n_head_kv +
               rows * heads * 2 * F;
    /* Of the new rows each sees half of the others. */
    w->flops = 4 * heads * rows * (keys - step.rows / 2.0);
    if (step.rows > 1 && step.ratio == 1)
        w->per_chunk = step.context == SCENE_SEGMENT ? m->n_layer : 0;
    if (step.rows == 1 && step.sessions == 1)
        w->per_token = step.context == SCENE_SEGMENT ? m->n_layer : 0;
    (void)snprintf(w->what, sizeof(w->what), "%s, %u x %u row%s, %u tokens%s", kv_word(step.kv),
                   step.sessions, step.rows, step.rows == 1 ? "" : "s", step.context,
                   step.ratio > 1 ? " at 8" : "");
    b->most_pages = pages > b->most_pages ? pages : b->most_pages;
}

static void add_attends(struct bench *b, bool tiny)
{
    static const uint32_t contexts[] = { 8192, 32768, 131072 };

    add_attend(b, (struct scene_step){ 1, SCENE_SEGMENT, 1, 1, KV_F16 });
    for (unsigned i = 0; i < 3; i++) {
        uint32_t n = tiny ? SCENE_SEGMENT * (i + 2) : contexts[i];

        add_attend(b, (struct scene_step){ 1, n, 1, 1, KV_F16 });
        add_attend(b, (struct scene_step){ 1, n, 1, 1, KV_Q8_0 });
        add_attend(b, (struct scene_step){ 1, n, 1, 8, KV_F16 });
    }
    add_attend(b, (struct scene_step){ tiny ? 2 : 64, tiny ? 1024 : 8192, 1, 8, KV_F16 });
    if (tiny) {
        add_attend(b, (struct scene_step){ 1, 1024, b->chunk, 8, KV_F16 });
        return;
    }
    add_attend(b, (struct scene_step){ 1, SCENE_SEGMENT, b->chunk, 1, KV_F16 });
    for (unsigned i = 0; i < 3; i++) {
        add_attend(b, (struct scene_step){ 1, contexts[i], b->chunk, 1, KV_F16 });
        add_attend(b, (struct scene_step){ 1, contexts[i], b->chunk, 8, KV_F16 });
    }
}

static int launch_move(const struct scene *s, const struct work *w, uint32_t i)
{
    struct k_move a = scene_move(s);

    (void)w;
    (void)i;
    return k_move(rt_stream(s->rt, RT_COMPUTE), &a);
}

static int launch_norms(const struct scene *s, const struct work *w, uint32_t i)
{
    (void)w;
    (void)i;
    return k_norms(rt_stream(s->rt, RT_COMPUTE), &(struct k_norms){ .pool = s->pool,
                                                                    .pages = s->pages,
                                                                    .n_keys = SCENE_SEGMENT,
                                                                    .to = s->room.gate });
}

static int launch_fit(const struct scene *s, const struct work *w, uint32_t i)
{
    struct k_fit a = scene_fit(s);

    (void)w;
    (void)i;
    return k_fit(rt_stream(s->rt, RT_COMPUTE), &a);
}

/* What packing a segment at ratio 8 takes; the fit of one layer. */
static void add_packing(struct bench *b)
{
    const struct model *m = &b->m;
    const struct scene_step step = { 1, SCENE_SEGMENT, 1, 1, KV_F16 };
    double key = (double)m->head_dim * sizeof(uint16_t), lists = m->n_layer * m->n_head_kv;
    double hd = m->head_dim, asked = SCENE_ASKED, raw = SCENE_SEGMENT, left = SCENE_PACKED;
    struct work *w = add(b, "norms", launch_norms);

    w->bytes = lists * (raw * key + raw * F);
    w->step = step;
    (void)snprintf(w->what, sizeof(w->what), "a segment");
    w = add(b, "move", launch_move);
    w->bytes = lists * left * 4 * key;
    w->step = step;
    (void)snprintf(w->what, sizeof(w->what), "a segment to ratio 8");
    w = add(b, "fit", launch_fit);
    w->bytes = m->n_head_kv * (2 * (raw + left) * key + asked * (hd + 1) * F);
    /* Scores and targets over the raw keys; scores, B'B, B'V and B'T over those that stay. */
    w->flops = m->n_head_kv * asked * 2 * (2 * raw * hd + 3 * left * hd + left * left);
    w->step = step;
    (void)snprintf(w->what, sizeof(w->what), "a layer of a segment");
}

/* --- the measurement -------------------------------------------------------------------------- */

static int queue_all(const struct scene *s, const struct work *w, uint32_t n)
{
    int r = 0;

    for (uint32_t i = 0; i < n && r == 0; i++)
        r = w->launch(s, w, i);
    return r;
}

static int keep_all(struct scene *s, const struct work *w, uint32_t n, struct rt_graph **ret)
{
    int r = rt_keep(s->rt), e;

    if (r < 0)
        return r;
    r = queue_all(s, w, n);
    e = rt_kept(s->rt, r == 0 ? ret : NULL);
    return r < 0 ? r : e;
}

/* The first round is not counted: it warms up. */
static int measure(struct scene *s, const struct work *w, bool tiny, double *ret_ns)
{
    uint32_t n = tiny ? 1 : LAUNCHES;
    struct rt_graph *g = NULL;
    int r = w->step.sessions ? scene_plan(s, &w->step) : 0;

    if (r == 0 && !w->is_library)
        r = keep_all(s, w, n, &g);
    *ret_ns = 0;
    for (int i = 0; i <= (tiny ? 1 : ROUNDS) && r == 0; i++) {
        uint64_t start = clock_ns();
        double took;

        r = g ? rt_queue(s->rt, g) : queue_all(s, w, n);
        if (r == 0)
            r = rt_wait(s->rt, RT_COMPUTE);
        took = (double)(clock_ns() - start) / n;
        if (i == 1 || (i > 1 && took < *ret_ns))
            *ret_ns = took;
    }
    rt_graph_close(s->rt, g);
    return r;
}

static void print(const struct work *w, double ns)
{
    (void)printf("{\"kernel\": \"%s\", \"what\": \"%s\", \"token\": %u, \"chunk\": %u, "
                 "\"bytes\": %.0f, \"flops\": %.0f, \"ns\": ",
                 w->kernel, w->what, w->per_token, w->per_chunk, w->bytes, w->flops);
    if (ns > 0)
        (void)printf("%.0f}\n", ns);
    else
        (void)printf("null}\n");
    (void)fflush(stdout);
}

static int measure_all(struct bench *b, unsigned device, bool tiny)
{
    struct scene s;
    double ns;
    int r = scene_open(&s, device, tiny, b->most_pages, b->chunk);

    if (r < 0)
        return 1;
    for (uint32_t i = 0; i < b->n && r == 0; i++) {
        r = measure(&s, &b->works[i], tiny, &ns);
        if (r == 0)
            print(&b->works[i], ns);
        else
            (void)fprintf(stderr, "bench/gpu: %s (%s) failed\n", b->works[i].kernel,
                          b->works[i].what);
    }
    scene_close(&s);
    return r < 0;
}

int main(int argc, char **argv)
{
    static struct bench b;
    bool counts = false, tiny = false;
    unsigned device = 0;
    int o;

    while ((o = getopt(argc, argv, "ctd:")) != -1) {
        counts |= o == 'c';
        tiny |= o == 't';
        if (o == 'd')
            device = (unsigned)strtoul(optarg, NULL, 10);
        if (o == '?')
            return 2;
    }
    scene_shape(&b.m, tiny);
    b.chunk = tiny ? CHUNK_TINY : CHUNK;
    add_weights(&b);
    add_row_kernels(&b, 1);
    add_row_kernels(&b, b.chunk);
    add_outputs(&b);
    add_attends(&b, tiny);
    add_packing(&b);
    if (!counts)
        return measure_all(&b, device, tiny);
    for (uint32_t i = 0; i < b.n; i++)
        print(&b.works[i], 0);
    return 0;
}
