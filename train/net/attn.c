/* train/net/attn.c - attention by the CPU: a task is a segment and a KV head with its group of
 * query heads, and a thread takes one after the other. The way back has two passes, so that no two
 * threads add to the same row and sums do not depend on who came first: tasks leave what they make
 * of keys in dkv, then each head gathers its own, segment by segment.
 */
#include "train/net/attn.h"

#include "train/net/gemm.h"
#include "train/net/mat.h"
#include "train/net/vec.h"

#include <errno.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 128u /* query rows of each head that meet their keys together */
#define ALIGN 64u

/* What one thread works in. Sizes: g query heads a KV head, K keys. */
struct lane {
    struct gemm *gemm;
    void *k, *v;          /* (K, hd) typed, k rotated */
    void *q, *o, *p, *ds; /* (g BLOCK, hd), the same, (g BLOCK, K), the same; typed */
    float *s, *dp;        /* (g BLOCK, K) */
    float *x, *y, *row;   /* (g BLOCK, hd), the same, (hd) */
};

struct attn {
    struct tensors_heads heads;
    const struct tensors_heads *b; /* these */
    uint32_t n_lanes, n_keys;      /* that lanes have room for */
    struct lane *lanes;
    float *dkv; /* per segment and KV head: (K, hd) of k, then of v */
    size_t dkv_len;
    int err;
};

/* Threads share all but lane, g, head and what follows from these. */
struct task {
    struct attn *a;
    const struct sight *l;
    uint32_t first_segment, end_segment;
    const struct sight_segment *g;
    struct lane *lane;
    uint32_t head; /* KV head */
    uint32_t n_keys;
    const float *qkv;
    void *out;
    float *lse;
    const void *dout;
    float *dqkv, *dk, *dv;
};

/* Query rows [row, row + n) of all heads of the group, against the first n_keys keys. */
struct block {
    uint32_t row, n, n_keys;
};

/* Query heads of a KV head. */
static uint32_t group(const struct tensors_heads *b)
{
    return b->n_head / b->n_head_kv;
}

/* (hd): cosines, then sines. */
static const float *angle(const struct tensors_heads *b, uint32_t pos)
{
    return b->angles + (size_t)pos * b->head_dim;
}

/* --- scratch ---------------------------------------------------------------------------------- */

/* What depends on how many keys there are. */
static void lane_free_keys(struct lane *w)
{
    free(w->k);
    free(w->v);
    free(w->p);
    free(w->ds);
    free(w->s);
    free(w->dp);
    w->k = w->v = w->p = w->ds = NULL;
    w->s = w->dp = NULL;
}

/* Also one that was opened in part. */
static void lane_close(struct lane *w)
{
    gemm_close(w->gemm);
    lane_free_keys(w);
    free(w->q);
    free(w->o);
    free(w->x);
    free(w->y);
    free(w->row);
}

static void *bytes(size_t n, size_t size)
{
    return aligned_alloc(ALIGN, (n * size + ALIGN - 1) / ALIGN * ALIGN);
}

/* By the thread that the lane is for: see attn_open. */
static bool lane_open(struct lane *w, const struct tensors_heads *b)
{
    size_t n = (size_t)group(b) * BLOCK * b->head_dim;

    w->q = bytes(n, tensors_size(b->type));
    w->o = bytes(n, tensors_size(b->type));
    w->x = bytes(n, sizeof(float));
    w->y = bytes(n, sizeof(float));
    w->row = bytes(b->head_dim, sizeof(float));
    return w->q && w->o && w->x && w->y && w->row && gemm_open(&w->gemm) == 0;
}

static bool lane_keys(struct lane *w, const struct tensors_heads *b, size_t n_keys)
{
    size_t n = (size_t)group(b) * BLOCK * n_keys, size = tensors_size(b->type);

    lane_free_keys(w);
    w->k = bytes(n_keys * b->head_dim, size);
    w->v = bytes(n_keys * b->head_dim, size);
    w->p = bytes(n, size);
    w->ds = bytes(n, size);
    w->s = bytes(n, sizeof(float));
    w->dp = bytes(n, sizeof(float));
    return w->k && w->v && w->p && w->ds && w->s && w->dp;
}

/* As lane_open, lane_keys and make_room have it. */
size_t attn_room(const struct tensors_heads *heads, const struct tensors_sizes *s)
{
    size_t typed = tensors_size(heads->type), f = sizeof(float), hd = heads->head_dim,
           n = (size_t)group(heads) * BLOCK;

    return (size_t)omp_get_max_threads() *
               (n * hd * 2 * (typed + f) + 2 * s->max_keys * hd * typed +
                2 * n * s->max_keys * (typed + f)) +
           (size_t)s->all_keys * 2 * heads->n_kv * f;
}

int attn_open(const struct tensors_heads *heads, struct attn **ret)
{
    struct attn *a = calloc(1, sizeof(*a));
    bool ok = true;

    if (!a)
        return -ENOMEM;
    a->heads = *heads;
    a->b = &a->heads;
    a->n_lanes = (uint32_t)omp_get_max_threads();
    a->lanes = calloc(a->n_lanes, sizeof(*a->lanes));
    /* Inside a parallel region, so that a lane's products use its own thread only. */
#pragma omp parallel num_threads(a->n_lanes) reduction(&& : ok)
    ok = a->lanes && lane_open(&a->lanes[omp_get_thread_num()], a->b);
    if (!ok) {
        attn_close(a);
        return -ENOMEM;
    }
    *ret = a;
    return 0;
}

void attn_close(struct attn *a)
{
    if (!a)
        return;
    for (uint32_t i = 0; a->lanes && i < a->n_lanes; i++)
        lane_close(&a->lanes[i]);
    free(a->lanes);
    free(a->dkv);
    free(a);
}

/* Products keep their own errors: a task can't stop the others. */
int attn_error(const struct attn *a)
{
    for (uint32_t i = 0; i < a->n_lanes; i++)
        if (gemm_error(a->lanes[i].gemm))
            return gemm_error(a->lanes[i].gemm);
    return a->err;
}

static int make_room(struct attn *a, const struct sight *l, bool back)
{
    size_t all = 0;

    /* Grows and stays: a run has the same few layouts all the time. */
    if (l->max_keys > a->n_keys) {
        a->n_keys = 0;
        for (uint32_t i = 0; i < a->n_lanes; i++)
            if (!lane_keys(&a->lanes[i], a->b, l->max_keys))
                return -ENOMEM;
        a->n_keys = l->max_keys;
    }
    /* Keys and values of all segments at the same time: that is what the second pass gathers from.
     */
    for (uint32_t i = 0; back && i < l->n_segments; i++)
        all += (size_t)sight_n_keys(&l->segments[i]) * 2 * a->b->n_kv;
    if (all > a->dkv_len) {
        free(a->dkv);
        a->dkv = bytes(all, sizeof(float));
        a->dkv_len = a->dkv ? all : 0;
        if (!a->dkv)
            return -ENOMEM;
    }
    return 0;
}

/* --- one segment, one KV head ----------------------------------------------------------------- */

/* Key i of the task: the row it comes from and the position it stands at. */
static struct sight_key key_at(const struct task *t, uint32_t i)
{
    const struct sight_segment *g = t->g;
    uint32_t row;

    if (i < g->n_memory)
        return t->l->memory[i];
    i -= g->n_memory;
    row = i < g->n_raw ? g->raw + i : g->gist + i - g->n_raw;
    return (struct sight_key){ row, t->l->rows[row].pos };
}

/* Typed, as products take them; rotated in f32. */
static void load_keys(const struct task *t)
{
    const struct tensors_heads *b = t->a->b;
    uint32_t hd = b->head_dim;
    size_t row_bytes = hd * tensors_size(b->type);

    for (uint32_t i = 0; i < t->n_keys; i++) {
        struct sight_key key = key_at(t, i);
        const float *k = t->qkv + (size_t)key.row * b->n_qkv + b->n_q + t->head * hd;

        memcpy(t->lane->row, k, hd * sizeof(float));
        vec_rotate(t->lane->row, angle(b, key.pos), hd, false);
        vec_put(b->type, (uint8_t *)t->lane->k + i * row_bytes, t->lane->row, hd);
        vec_put(b->type, (uint8_t *)t->lane->v + i * row_bytes, k + b->n_kv, hd);
    }
}

/* Scaled here, so that scores come out of the product as they are. */
static void load_queries(const struct task *t, const struct block *k)
{
    const struct tensors_heads *b = t->a->b;
    uint32_t hd = b->head_dim, n = group(b);
    float scale = 1.0f / sqrtf((float)hd);

    for (uint32_t h = 0; h < n; h++)
        for (uint32_t i = 0; i < k->n; i++) {
            uint32_t row = k->row + i;

            memcpy(t->lane->row, t->qkv + (size_t)row * b->n_qkv + (t->head * n + h) * hd,
                   hd * sizeof(float));
            vec_rotate(t->lane->row, angle(b, t->l->rows[row].pos), hd, false);
            vec_scale(t->lane->row, scale, hd);
            vec_put(b->type,
                    (uint8_t *)t->lane->q + ((size_t)h * k->n + i) * hd * tensors_size(b->type),
                    t->lane->row, hd);
        }
}

static struct tensors_mat typed(const struct task *t, const void *p, uint32_t ld, bool transposed)
{
    return (struct tensors_mat){ p, ld, t->a->b->type, transposed };
}

/* s = q k^T (g n, K) of a block. */
static void scores(const struct task *t, const struct block *k)
{
    uint32_t hd = t->a->b->head_dim;

    gemm_run(t->lane->gemm, group(t->a->b) * k->n, k->n_keys, hd, typed(t, t->lane->q, hd, false),
             typed(t, t->lane->k, hd, true), mat_floats(t->lane->s, k->n_keys), false);
}

/* The two spans of keys that a row sees. */
struct spans {
    uint32_t end, from, to;
};

/* Memory is before all else, and all of it is seen. */
static struct spans spans_of(const struct task *t, uint32_t row)
{
    const struct sight_row *r = &t->l->rows[row];
    uint32_t gists = t->g->n_memory + t->g->n_raw;

    return (struct spans){ t->g->n_memory + r->raw_end, gists + r->gist_first,
                           gists + r->gist_end };
}

/* What is not seen becomes zero. The span of gists may begin behind the keys that the block was
 * given, or be empty. */
static void blind(float *s, const struct spans *v, uint32_t n)
{
    uint32_t from = v->from < n ? v->from : n;

    if (v->from >= v->to) {
        memset(s + v->end, 0, (n - v->end) * sizeof(*s));
        return;
    }
    memset(s + v->end, 0, (from - v->end) * sizeof(*s));
    memset(s + v->to, 0, (n - v->to) * sizeof(*s));
}

/* Returns the logarithm of the sum, from which the way back makes the same probabilities again. */
static float softmax(float *s, const struct spans *v, uint32_t n)
{
    float max = vec_max(s, v->end), sum;

    if (v->from < v->to) {
        float other = vec_max(s + v->from, v->to - v->from);

        max = other > max ? other : max;
    }
    sum = vec_exp(s, max, v->end);
    if (v->from < v->to)
        sum += vec_exp(s + v->from, max, v->to - v->from);
    blind(s, v, n);
    vec_scale(s, 1.0f / sum, n);
    return max + logf(sum);
}

static size_t lse_at(const struct task *t, uint32_t row, uint32_t h)
{
    return (size_t)row * t->a->b->n_head + t->head * group(t->a->b) + h;
}

/* Where a row's output of query head h of the group lies. In bytes. */
static size_t out_at(const struct task *t, uint32_t row, uint32_t h)
{
    const struct tensors_heads *b = t->a->b;

    return ((size_t)row * b->n_q + (t->head * group(b) + h) * b->head_dim) * tensors_size(b->type);
}

/* s (g n, K) becomes p in place; x (g n, hd) is its product with v. */
static void forward_block(const struct task *t, const struct block *k)
{
    const struct tensors_heads *b = t->a->b;
    uint32_t hd = b->head_dim, n = group(b), n_keys = k->n_keys;
    struct lane *w = t->lane;

    load_queries(t, k);
    scores(t, k);
    for (uint32_t h = 0; h < n; h++)
        for (uint32_t i = 0; i < k->n; i++) {
            size_t at = (size_t)h * k->n + i;
            struct spans v = spans_of(t, k->row + i);

            t->lse[lse_at(t, k->row + i, h)] = softmax(w->s + at * n_keys, &v, n_keys);
        }
    /* All of it, rows and heads behind each other. */
    vec_put(b->type, w->p, w->s, (size_t)n * k->n * n_keys);
    gemm_run(w->gemm, n * k->n, hd, n_keys, typed(t, w->p, n_keys, false),
             typed(t, w->v, hd, false), mat_floats(w->x, hd), false);
    for (uint32_t h = 0; h < n; h++)
        for (uint32_t i = 0; i < k->n; i++)
            vec_put(b->type, (uint8_t *)t->out + out_at(t, k->row + i, h),
                    w->x + ((size_t)h * k->n + i) * hd, hd);
}

/* Probabilities again, and from dp the derivative by the scores. d of a row is its output times the
 * derivative by it: the sum of p dp over keys without a pass over them. */
static void back_rows(const struct task *t, const struct block *k)
{
    const struct tensors_heads *b = t->a->b;
    uint32_t hd = b->head_dim, n_keys = k->n_keys;
    struct lane *w = t->lane;

    for (uint32_t h = 0; h < group(b); h++)
        for (uint32_t i = 0; i < k->n; i++) {
            size_t at = (size_t)h * k->n + i;
            float *s = w->s + at * n_keys, lse = t->lse[lse_at(t, k->row + i, h)];
            struct spans v = spans_of(t, k->row + i);

            vec_exp(s, lse, v.end);
            if (v.from < v.to)
                vec_exp(s + v.from, lse, v.to - v.from);
            blind(s, &v, n_keys);
            vec_get(b->type, (const uint8_t *)t->out + out_at(t, k->row + i, h), w->row, hd);
            vec_softmax_back(w->dp + at * n_keys, s, vec_dot(w->row, w->x + at * hd, hd), n_keys);
        }
}

/* Typed for products in o, in f32 for that sum in x. */
static void load_dout(const struct task *t, const struct block *k)
{
    const struct tensors_heads *b = t->a->b;
    uint32_t hd = b->head_dim, size = (uint32_t)tensors_size(b->type);

    for (uint32_t h = 0; h < group(b); h++)
        for (uint32_t i = 0; i < k->n; i++)
            memcpy((uint8_t *)t->lane->o + ((size_t)h * k->n + i) * hd * size,
                   (const uint8_t *)t->dout + out_at(t, k->row + i, h), hd * size);
    vec_get(b->type, t->lane->o, t->lane->x, (size_t)group(b) * k->n * hd);
}

/* Set and not added to: a row is in one block. */
static void store_dq(const struct task *t, const struct block *k)
{
    const struct tensors_heads *b = t->a->b;
    uint32_t hd = b->head_dim, n = group(b);
    float scale = 1.0f / sqrtf((float)hd);

    for (uint32_t h = 0; h < n; h++)
        for (uint32_t i = 0; i < k->n; i++) {
            float *dq = t->lane->y + ((size_t)h * k->n + i) * hd;

            vec_rotate(dq, angle(b, t->l->rows[k->row + i].pos), hd, true);
            vec_scale(dq, scale, hd);
            memcpy(t->dqkv + (size_t)(k->row + i) * b->n_qkv + (t->head * n + h) * hd, dq,
                   hd * sizeof(float));
        }
}

static void back_block(const struct task *t, const struct block *k)
{
    const struct tensors_heads *b = t->a->b;
    uint32_t hd = b->head_dim, n = group(b) * k->n, n_keys = k->n_keys;
    struct lane *w = t->lane;

    load_queries(t, k);
    load_dout(t, k);
    /* Made again rather than kept: of all layers they would be most of the memory. */
    scores(t, k);
    gemm_run(w->gemm, n, n_keys, hd, typed(t, w->o, hd, false), typed(t, w->v, hd, true),
             mat_floats(w->dp, n_keys), false);
    back_rows(t, k);
    vec_put(b->type, w->p, w->s, (size_t)n * n_keys);
    vec_put(b->type, w->ds, w->dp, (size_t)n * n_keys);
    gemm_run(w->gemm, n, hd, n_keys, typed(t, w->ds, n_keys, false), typed(t, w->k, hd, false),
             mat_floats(w->y, hd), false);
    /* Over all query heads of the group at once: they share the key. */
    gemm_run(w->gemm, n_keys, hd, n, typed(t, w->ds, n_keys, true), typed(t, w->q, hd, false),
             mat_floats(t->dk, hd), true);
    gemm_run(w->gemm, n_keys, hd, n, typed(t, w->p, n_keys, true), typed(t, w->o, hd, false),
             mat_floats(t->dv, hd), true);
    store_dq(t, k);
}

/* Rows from `first` on. Raw rows need no keys behind themselves, unless gists stand among them. */
static void each_block(const struct task *t, uint32_t first,
                       void (*fn)(const struct task *, const struct block *))
{
    const struct sight_segment *g = t->g;

    for (uint32_t i = g->raw < first ? g->n_raw : 0; i < g->n_raw; i += BLOCK) {
        struct block k = { g->raw + i, g->n_raw - i < BLOCK ? g->n_raw - i : BLOCK, 0 };
        uint32_t last = k.row + k.n - 1;

        /* Later raw keys would be masked, and their scores made for nothing: half of the work in a
         * long segment. */
        k.n_keys = t->l->rows[last].gist_end ? t->n_keys : g->n_memory + i + k.n;
        fn(t, &k);
    }
    for (uint32_t i = 0; i < g->n_gists; i += BLOCK) {
        struct block k = { g->gist + i, g->n_gists - i < BLOCK ? g->n_gists - i : BLOCK,
                           t->n_keys };

        fn(t, &k);
    }
}

static void each_task(const struct task *all, void (*fn)(struct task *))
{
    uint32_t n_heads = all->a->b->n_head_kv;
    uint32_t n = (all->end_segment - all->first_segment) * n_heads;

#pragma omp parallel for schedule(dynamic, 1)
    for (uint32_t i = 0; i < n; i++) {
        struct task t = *all;

        /* Which thread it is does not matter to the numbers. */
        t.lane = &t.a->lanes[omp_get_thread_num()];
        t.g = &t.l->segments[t.end_segment - 1 - i / n_heads]; /* the longest first */
        t.head = i % n_heads;
        t.n_keys = sight_n_keys(t.g);
        fn(&t);
    }
}

/* What both directions have. */
static struct task task_of(struct attn *a, const struct sight *l, const struct tensors_attend *p)
{
    return (struct task){ .a = a,
                          .l = l,
                          .first_segment = p->first_segment,
                          .end_segment = p->end_segment,
                          .qkv = p->qkv,
                          .out = p->out,
                          .lse = p->lse };
}

static void forward_task(struct task *t)
{
    /* Once for all blocks of the segment. */
    load_keys(t);
    each_block(t, 0, forward_block);
}

int attn_forward(struct attn *a, const struct sight *l, const struct tensors_attend *p)
{
    struct task t = task_of(a, l, p);
    int r = make_room(a, l, false);

    if (r == 0)
        each_task(&t, forward_task);
    return r;
}

/* The task's derivatives by keys and values stand behind those of earlier segments and heads. By
 * walking the segments: there are few. */
static float *dkv_of(const struct task *t)
{
    const struct tensors_heads *b = t->a->b;
    size_t at = 0;

    for (const struct sight_segment *g = t->l->segments; g < t->g; g++)
        at += (size_t)sight_n_keys(g) * 2 * b->n_kv;
    return t->a->dkv + at + (size_t)t->head * t->n_keys * 2 * b->head_dim;
}

static void back_task(struct task *t)
{
    size_t n = (size_t)t->n_keys * t->a->b->head_dim;

    t->dk = dkv_of(t);
    t->dv = t->dk + n;
    memset(t->dk, 0, 2 * n * sizeof(float));
    load_keys(t);
    each_block(t, t->l->n_frozen, back_block);
}

/* A row's key stands in its own segment and in the memory of all later ones. Of one KV head, by one
 * thread: keys of different heads lie in different columns. */
static void gather_back(struct task *t)
{
    const struct tensors_heads *b = t->a->b;
    uint32_t hd = b->head_dim;

    for (uint32_t i = t->first_segment; i < t->end_segment; i++) {
        t->g = &t->l->segments[i];
        t->n_keys = sight_n_keys(t->g);
        t->dk = dkv_of(t);
        t->dv = t->dk + (size_t)t->n_keys * hd;
        for (uint32_t j = 0; j < t->n_keys; j++) {
            struct sight_key key = key_at(t, j);
            float *to = t->dqkv + (size_t)key.row * b->n_qkv + b->n_q + t->head * hd;

            vec_rotate(t->dk + (size_t)j * hd, angle(b, key.pos), hd, true);
            vec_add(to, t->dk + (size_t)j * hd, hd);
            vec_add(to + b->n_kv, t->dv + (size_t)j * hd, hd);
        }
    }
}

int attn_back(struct attn *a, const struct sight *l, const struct tensors_attend_back *p)
{
    struct task t = task_of(a, l, &p->of);
    int r = make_room(a, l, true);

    if (r < 0)
        return r;
    /* Typed, (R, n_q), as out. */
    t.dout = p->dout;
    t.dqkv = p->dqkv;
    /* Rows get their dq here; dk and dv of each task wait in dkv, and are added up below. */
    each_task(&t, back_task);
#pragma omp parallel for schedule(dynamic, 1)
    for (uint32_t h = 0; h < a->b->n_head_kv; h++) {
        struct task own = t;

        own.head = h;
        gather_back(&own);
    }
    return 0;
}
