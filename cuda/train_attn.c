/* cuda/train_attn.c - which products and kernels a segment takes. Keys and values of it are
 * gathered once, and query rows come in blocks; scores of a block are there for all heads at once,
 * which is most of the memory that attention takes.
 */
#include "cuda/train_attn.h"

#include "cuda/train_kernels.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK    512u
#define LD_ALIGN 8u /* values: rows of scores begin where a library's best kernels want them */

/* Shapes as the products see them: with g query heads a KV head, a stack of n_head_kv matrices
 * whose rows are (g, block). */
struct train_attn {
    struct rt *rt;
    struct stage *stage;
    struct gemm *gemm;
    struct tensors_heads heads;
    uint32_t block;
    struct sight sight;     /* the host's */
    struct sight_row *rows; /* its rows and memory, on the device */
    struct sight_key *memory;
    uint32_t n_rows, n_memory, n_keys; /* that there is room for */
    void *k, *v;                       /* (n_head_kv, n_keys, hd) typed */
    float *dk, *dv;                    /* the same */
    void *q, *o;                       /* (n_head, block, hd) typed */
    float *x;                          /* the same */
    float *s, *dp;                     /* (n_head, block, ld) */
    void *p, *ds;                      /* the same, typed */
};

/* A direction through a segment. */
struct task {
    struct train_attn *a;
    const struct sight_segment *g;
    const struct tensors_attend *of;
    const struct tensors_attend_back *back; /* NULL: forward */
};

/* n_keys of a row, and what fills it up; nobody reads that. */
static uint32_t ld_of(uint32_t n_keys)
{
    return (n_keys + LD_ALIGN - 1) / LD_ALIGN * LD_ALIGN;
}

static uint32_t group(const struct train_attn *a)
{
    return a->heads.n_head / a->heads.n_head_kv;
}

/* --- memory ----------------------------------------------------------------------------------- */

/* *p gets other memory; what it had is of no use to anybody then. memcpy, as a pointer to any kind
 * of pointer is given. */
static int renew(struct train_attn *a, void *p_of_pointer, size_t n)
{
    void *p;
    int r;

    memcpy(&p, p_of_pointer, sizeof(p));
    if (p)
        rt_free(a->rt, p);
    p = NULL;
    memcpy(p_of_pointer, &p, sizeof(p));
    r = rt_alloc(a->rt, n, &p);
    if (r == 0)
        memcpy(p_of_pointer, &p, sizeof(p));
    return r;
}

static int room_for_rows(struct train_attn *a, uint32_t n_rows, uint32_t n_memory)
{
    int r;

    if (n_rows <= a->n_rows && n_memory <= a->n_memory)
        return 0;
    /* Until all of it is there again there is room for nothing. */
    a->n_rows = a->n_memory = 0;
    r = rt_wait(a->rt, RT_COMPUTE);
    if (r == 0)
        r = renew(a, &a->rows, n_rows * sizeof(*a->rows));
    if (r == 0)
        r = renew(a, &a->memory, n_memory * sizeof(*a->memory));
    if (r < 0)
        return r;
    a->n_rows = n_rows;
    a->n_memory = n_memory;
    return 0;
}

/* Grows to the longest segment that was seen, and stays. */
static int room_for_keys(struct train_attn *a, uint32_t n_keys)
{
    size_t keys = (size_t)n_keys * a->heads.n_kv, typed = tensors_size(a->heads.type),
           scores = (size_t)a->heads.n_head * a->block * ld_of(n_keys);
    const struct {
        void *p;
        size_t n;
    } all[] = { { &a->k, keys * typed },           { &a->v, keys * typed },
                { &a->dk, keys * sizeof(float) },  { &a->dv, keys * sizeof(float) },
                { &a->s, scores * sizeof(float) }, { &a->dp, scores * sizeof(float) },
                { &a->p, scores * typed },         { &a->ds, scores * typed } };
    int r;

    if (n_keys <= a->n_keys)
        return 0;
    a->n_keys = 0;
    r = rt_wait(a->rt, RT_COMPUTE);
    for (size_t i = 0; r == 0 && i < sizeof(all) / sizeof(*all); i++)
        r = renew(a, all[i].p, all[i].n);
    if (r == 0)
        a->n_keys = n_keys;
    return r;
}

/* As train_attn_open and the two above take it. */
size_t train_attn_room(const struct tensors_heads *h, const struct tensors_sizes *s)
{
    size_t block = h->block ? h->block : BLOCK, typed = tensors_size(h->type), f = sizeof(float),
           queries = block * h->n_q, keys = (size_t)s->max_keys * h->n_kv,
           scores = h->n_head * block * ld_of(s->max_keys);

    return queries * (2 * typed + f) + 2 * keys * (typed + f) + 2 * scores * (typed + f) +
           s->n_rows * sizeof(struct sight_row) + s->n_memory * sizeof(struct sight_key);
}

int train_attn_open(struct rt *rt, struct stage *stage, struct gemm *gemm,
                    const struct tensors_heads *h, struct train_attn **ret)
{
    struct train_attn *a = calloc(1, sizeof(*a));
    uint32_t block = h->block ? h->block : BLOCK;
    size_t n = (size_t)block * h->n_q;
    int r;

    if (!a)
        return -ENOMEM;
    a->rt = rt;
    a->stage = stage;
    a->gemm = gemm;
    a->heads = *h;
    a->block = block;
    r = renew(a, &a->q, n * tensors_size(h->type));
    if (r == 0)
        r = renew(a, &a->o, n * tensors_size(h->type));
    if (r == 0)
        r = renew(a, &a->x, n * sizeof(float));
    if (r < 0) {
        train_attn_close(a);
        return r;
    }
    *ret = a;
    return 0;
}

void train_attn_close(struct train_attn *a)
{
    if (!a)
        return;
    void *all[] = { a->rows, a->memory, a->k, a->v,  a->dk, a->dv, a->q,
                    a->o,    a->x,      a->s, a->dp, a->p,  a->ds };

    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        if (all[i])
            rt_free(a->rt, all[i]);
    free(a);
}

/* Segments stay the host's: a launch has its own in its arguments. */
int train_attn_see(struct train_attn *a, const struct sight *s)
{
    int r = room_for_rows(a, s->n_rows, s->n_memory);

    if (r == 0)
        r = room_for_keys(a, s->max_keys);
    if (r == 0)
        r = stage_put(a->stage, a->rows, s->rows, s->n_rows * sizeof(*s->rows), NULL);
    if (r == 0)
        r = stage_put(a->stage, a->memory, s->memory, s->n_memory * sizeof(*s->memory), NULL);
    if (r == 0)
        a->sight = *s;
    return r;
}

/* --- products --------------------------------------------------------------------------------- */

/* A matrix of each KV head: rows of so many values, n of them behind each other. */
struct stack {
    struct tensors_mat mat;
    size_t stride;
};

static struct stack stack(const void *p, uint32_t n_rows, uint32_t ld, enum tensors_type type)
{
    return (struct stack){ { p, ld, type, false }, (size_t)n_rows * ld };
}

static struct stack turned(struct stack s)
{
    s.mat.t = true;
    return s;
}

/* One call for all KV heads. */
static int multiply(const struct train_attn *a, uint32_t m, uint32_t n, uint32_t k, struct stack x,
                    struct stack y, struct stack z, bool add)
{
    struct gemm_batch p = {
        { m, n, k, x.mat, y.mat, z.mat, add }, a->heads.n_head_kv, x.stride, y.stride, z.stride
    };

    return gemm_batch(a->gemm, &p);
}

/* --- a block of query rows -------------------------------------------------------------------- */

static struct k_block block_of(const struct task *t, uint32_t row, uint32_t n, uint32_t n_keys)
{
    const struct train_attn *a = t->a;

    return (struct k_block){ .heads = a->heads,
                             .rows = a->rows,
                             .row = row,
                             .n = n,
                             .n_keys = n_keys,
                             .ld = ld_of(n_keys),
                             .n_raw_keys = t->g->n_memory + t->g->n_raw,
                             .n_memory = t->g->n_memory,
                             .qkv = t->of->qkv,
                             .q = a->q,
                             .s = a->s,
                             .dp = a->dp,
                             .p = a->p,
                             .ds = a->ds,
                             .x = a->x,
                             .out = t->of->out,
                             .lse = t->of->lse,
                             .dout = t->back ? t->back->dout : NULL,
                             .o = a->o,
                             .dqkv = t->back ? t->back->dqkv : NULL };
}

/* s = q k^T; p = softmax(s); x = p v; out, typed, from x. */
static int forward_block(const struct task *t, const struct k_block *b)
{
    struct train_attn *a = t->a;
    enum tensors_type type = a->heads.type;
    uint32_t hd = a->heads.head_dim, m = group(a) * b->n, all = sight_n_keys(t->g);
    struct stack q = stack(a->q, m, hd, type), k = stack(a->k, all, hd, type),
                 v = stack(a->v, all, hd, type), s = stack(a->s, m, b->ld, TENSORS_F32),
                 p = stack(a->p, m, b->ld, type), x = stack(a->x, m, hd, TENSORS_F32);
    void *on = rt_stream(a->rt, RT_COMPUTE);
    int r = k_train_queries(on, b);

    if (r == 0)
        r = multiply(a, m, b->n_keys, hd, q, turned(k), s, false);
    if (r == 0)
        r = k_train_softmax(on, b);
    if (r == 0)
        r = multiply(a, m, hd, b->n_keys, p, v, x, false);
    return r < 0 ? r : k_train_out(on, b);
}

/* Scores again, from which lse makes the same p; dp = o v^T; ds; then dq = ds k, dk += ds^T q, dv
 * += p^T o. */
static int back_block(const struct task *t, const struct k_block *b)
{
    struct train_attn *a = t->a;
    enum tensors_type type = a->heads.type;
    uint32_t hd = a->heads.head_dim, m = group(a) * b->n, all = sight_n_keys(t->g);
    struct stack q = stack(a->q, m, hd, type), o = stack(a->o, m, hd, type),
                 k = stack(a->k, all, hd, type), v = stack(a->v, all, hd, type),
                 s = stack(a->s, m, b->ld, TENSORS_F32), dp = stack(a->dp, m, b->ld, TENSORS_F32),
                 p = stack(a->p, m, b->ld, type), ds = stack(a->ds, m, b->ld, type),
                 x = stack(a->x, m, hd, TENSORS_F32), dk = stack(a->dk, all, hd, TENSORS_F32),
                 dv = stack(a->dv, all, hd, TENSORS_F32);
    void *on = rt_stream(a->rt, RT_COMPUTE);
    int r = k_train_queries(on, b);

    if (r == 0)
        r = multiply(a, m, b->n_keys, hd, q, turned(k), s, false);
    if (r == 0)
        r = multiply(a, m, b->n_keys, hd, o, turned(v), dp, false);
    if (r == 0)
        r = k_train_softmax_back(on, b);
    if (r == 0)
        r = multiply(a, m, hd, b->n_keys, ds, k, x, false);
    if (r == 0)
        r = multiply(a, b->n_keys, hd, m, turned(ds), q, dk, true);
    if (r == 0)
        r = multiply(a, b->n_keys, hd, m, turned(p), o, dv, true);
    return r < 0 ? r : k_train_dq(on, b);
}

static int run_block(const struct task *t, uint32_t row, uint32_t n, uint32_t n_keys)
{
    struct k_block b = block_of(t, row, n, n_keys);

    return t->back ? back_block(t, &b) : forward_block(t, &b);
}

/* Raw rows need no keys behind themselves, unless gists stand among them. On the way back frozen
 * rows are left out. */
static int each_block(const struct task *t)
{
    const struct sight_segment *g = t->g;
    const struct sight *s = &t->a->sight;
    uint32_t block = t->a->block, all = sight_n_keys(g);
    int r = 0;

    /* A segment is frozen as a whole, or not at all: only the first can be. */
    for (uint32_t i = t->back && g->raw < s->n_frozen ? g->n_raw : 0; r == 0 && i < g->n_raw;
         i += block) {
        uint32_t n = g->n_raw - i < block ? g->n_raw - i : block;
        /* The last row of the block has most gists before it. */
        bool gists = s->rows[g->raw + i + n - 1].gist_end;

        r = run_block(t, g->raw + i, n, gists ? all : g->n_memory + i + n);
    }
    for (uint32_t i = 0; r == 0 && i < g->n_gists; i += block)
        r = run_block(t, g->gist + i, g->n_gists - i < block ? g->n_gists - i : block, all);
    return r;
}

/* --- segments --------------------------------------------------------------------------------- */

static struct k_train_keys keys_of(const struct task *t, void *k, void *v)
{
    const struct train_attn *a = t->a;

    return (struct k_train_keys){ a->heads, *t->g, a->rows, a->memory, t->of->qkv, k, v };
}

static int run_segment(const struct task *t)
{
    struct train_attn *a = t->a;
    void *on = rt_stream(a->rt, RT_COMPUTE);
    /* On the way back dk and dv take the places of k and v. */
    struct k_train_keys keys = keys_of(t, a->k, a->v), back = keys_of(t, a->dk, a->dv);
    size_t n = (size_t)sight_n_keys(t->g) * a->heads.n_kv * sizeof(float);
    int r = k_train_keys(on, &keys);

    /* Blocks add to them. */
    if (r == 0 && t->back)
        r = rt_clear(a->rt, RT_COMPUTE, a->dk, n);
    if (r == 0 && t->back)
        r = rt_clear(a->rt, RT_COMPUTE, a->dv, n);
    if (r == 0)
        r = each_block(t);
    /* Turned back and added to their rows, before the next segment adds what it makes of the same
     * rows as memory. */
    return r == 0 && t->back ? k_train_dkv(on, &back, t->back->dqkv) : r;
}

/* In order: see the header. */
static int run_all(struct task *t)
{
    int r = 0;

    for (uint32_t i = t->of->first_segment; r == 0 && i < t->of->end_segment; i++) {
        t->g = &t->a->sight.segments[i];
        r = run_segment(t);
    }
    return r;
}

int train_attn_run(struct train_attn *a, const struct tensors_attend *p)
{
    struct task t = { .a = a, .of = p };

    return run_all(&t);
}

int train_attn_back(struct train_attn *a, const struct tensors_attend_back *p)
{
    struct task t = { .a = a, .of = &p->of, .back = p };

    return run_all(&t);
}
