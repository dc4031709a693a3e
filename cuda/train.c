#include "cuda/train.h"

#include "cuda/gemm.h"
#include "cuda/rt.h"
#include "cuda/stage.h"
#include "cuda/train_attn.h"
#include "cuda/train_kernels.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LIST_ALIGN 256u

/* err: once it is there nothing is queued any more, and callers find out when they ask. */
struct cuda {
    struct tensors t;
    struct rt *rt;
    struct stage *stage; /* of all copies from and to the host */
    struct gemm *gemm;
    void *workspace;
    double *sums; /* (K_SUMS + 1) */
    char *lists;  /* of the call that is being queued */
    size_t lists_len, lists_used;
    int err;
};

/* What the table's calls are given back. */
struct tensors_attn {
    struct cuda *c;
    struct train_attn *attn;
};

/* t is its first member. */
static struct cuda *cuda_of(struct tensors *t)
{
    return (struct cuda *)t;
}

/* The one that all is queued on: kernels, products and copies follow each other without events. */
static void *stream(const struct cuda *c)
{
    return rt_stream(c->rt, RT_COMPUTE);
}

/* The first failure is kept. */
static void said(struct cuda *c, int r)
{
    if (r < 0 && c->err == 0)
        c->err = r;
}

/* --- a device --------------------------------------------------------------------------------- */

/* All that is queued may still have what is given back. */
static void train_close(struct tensors *t)
{
    struct cuda *c = cuda_of(t);

    if (!t)
        return;
    if (c->rt) {
        (void)rt_wait(c->rt, RT_COMPUTE);
        /* Their memory is given back while the runtime still has the device. */
        void *all[] = { c->workspace, c->sums, c->lists };

        gemm_close(c->gemm);
        for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
            if (all[i])
                rt_free(c->rt, all[i]);
        stage_close(c->stage);
    }
    rt_close(c->rt);
    free(c);
}

/* Taken before a run asks for its own, so that a device which is full says so now. */
static int open_parts(struct cuda *c, struct why *why)
{
    void *sums = NULL;
    int r = rt_alloc(c->rt, gemm_workspace, &c->workspace);

    if (r == 0)
        r = rt_alloc(c->rt, (K_SUMS + 1) * sizeof(double), &sums);
    c->sums = sums;
    if (r == 0)
        /* Copies in the stream that computes: a list may be written over when the kernel before is
         * done with it. */
        r = stage_open(c->rt, RT_COMPUTE, -1, &c->stage);
    if (r < 0)
        return why_set(why, r, "the device %s for what training begins with",
                       r == -ENOMEM ? "has no memory" : "failed when it was asked for memory");
    return gemm_open(stream(c), c->workspace, &c->gemm, why);
}

static int train_open(unsigned n, struct tensors **ret, struct why *why)
{
    struct cuda *c = calloc(1, sizeof(*c));
    int r;

    if (!c)
        return why_set(why, -ENOMEM, "no memory for a device");
    c->t.ops = gistd_tensors();
    r = rt_open(n, &c->rt, why);
    if (r == 0)
        r = open_parts(c, why);
    if (r < 0) {
        train_close(&c->t);
        return r;
    }
    *ret = &c->t;
    return 0;
}

/* Asked after a step, of all that the step queued. */
static int train_error(struct tensors *t)
{
    return cuda_of(t)->err;
}

/* --- memory ----------------------------------------------------------------------------------- */

/* Of the device as a whole: others may be on it. */
static uint64_t train_left(struct tensors *t)
{
    return rt_left(cuda_of(t)->rt);
}

/* No memory is no failure of the device: who asked says what to do. */
static void *train_alloc(struct tensors *t, size_t n)
{
    struct cuda *c = cuda_of(t);
    void *p = NULL;
    int r = c->err ? c->err : rt_alloc(c->rt, n, &p);

    if (r != -ENOMEM)
        said(c, r);
    return r == 0 ? p : NULL;
}

/* Kernels that are queued may have it. */
static void train_free(struct tensors *t, void *p)
{
    (void)rt_wait(cuda_of(t)->rt, RT_COMPUTE);
    rt_free(cuda_of(t)->rt, p);
}

/* host is read before it returns; `to` has it when what is queued next begins. */
static void train_put(struct tensors *t, void *to, const void *host, size_t n)
{
    struct cuda *c = cuda_of(t);

    if (c->err == 0 && n)
        said(c, stage_put(c->stage, to, host, n, NULL));
}

static void train_get(struct tensors *t, void *host, const void *from, size_t n)
{
    struct cuda *c = cuda_of(t);

    /* Waits in either case: a get of nothing is how one waits for all before it. */
    if (c->err == 0 && n)
        said(c, stage_get(c->stage, host, from, n, NULL));
    else if (c->err == 0)
        said(c, rt_wait(c->rt, RT_COMPUTE));
}

/* The device's to the device's. */
static void train_copy(struct tensors *t, void *to, const void *from, size_t n)
{
    struct cuda *c = cuda_of(t);

    if (c->err == 0 && n)
        said(c, rt_copy(c->rt, RT_COMPUTE, to, from, n));
}

static void train_clear(struct tensors *t, void *p, size_t n)
{
    struct cuda *c = cuda_of(t);

    if (c->err == 0 && n)
        said(c, rt_clear(c->rt, RT_COMPUTE, p, n));
}

/* --- lists of the host ------------------------------------------------------------------------ */

/* In a list's room what follows begins aligned. */
static size_t list_len(size_t n)
{
    return (n + LIST_ALIGN - 1) / LIST_ALIGN * LIST_ALIGN;
}

/* Room for the lists of a call, n bytes with list_len each. Grows to twice of what is asked, so
 * seldom; what is queued may read the old one, so that is waited for. */
static bool lists_begin(struct cuda *c, size_t n)
{
    void *p = NULL;
    int r;

    c->lists_used = 0;
    if (c->err || n <= c->lists_len)
        return c->err == 0;
    r = rt_wait(c->rt, RT_COMPUTE);
    if (c->lists)
        rt_free(c->rt, c->lists);
    c->lists = NULL;
    c->lists_len = 0;
    if (r == 0)
        r = rt_alloc(c->rt, 2 * n, &p);
    said(c, r);
    if (r < 0)
        return false;
    c->lists = p;
    c->lists_len = 2 * n;
    return true;
}

/* lists_begin has made sure of it. */
static void *list_room(struct cuda *c, size_t n)
{
    void *at = c->lists + c->lists_used;

    c->lists_used += list_len(n);
    return at;
}

/* host NULL: an empty list, NULL. n bytes of the host's. */
static void *list(struct cuda *c, const void *host, size_t n)
{
    void *at = list_room(c, n);

    if (!host)
        return NULL;
    train_put(&c->t, at, host, n);
    return at;
}

/* --- rows ------------------------------------------------------------------------------------- */

/* A product of nothing is none: a library may refuse it. */
static void train_product(struct tensors *t, const struct tensors_product *p)
{
    struct cuda *c = cuda_of(t);
    /* Strides of one are of no use. */
    struct gemm_batch one = { *p, 1, 0, 0, 0 };

    if (c->err == 0 && p->m && p->n && p->k)
        said(c, gemm_batch(c->gemm, &one));
}

/* x is read alone: k_cast is of both directions. */
static void train_narrow(struct tensors *t, enum tensors_type type, void *y, const float *x,
                         size_t n)
{
    struct cuda *c = cuda_of(t);
    struct k_cast a = { (float *)x, y, type, n };

    if (c->err == 0)
        said(c, k_narrow(stream(c), &a));
}

static void train_widen(struct tensors *t, enum tensors_type type, float *y, const void *x,
                        size_t n)
{
    struct cuda *c = cuda_of(t);
    struct k_cast a = { y, (void *)x, type, n };

    if (c->err == 0)
        said(c, k_widen(stream(c), &a));
}

/* x is added to each row. */
static void train_add(struct tensors *t, float *y, const float *x, uint32_t n_rows, uint32_t n)
{
    struct cuda *c = cuda_of(t);
    struct k_add a = { y, x, n_rows, n };

    if (c->err == 0)
        said(c, k_add(stream(c), &a));
}

/* rows NULL: all, in their order. The list is copied in the stream, behind the kernel that had the
 * room before. */
static void train_norm(struct tensors *t, const struct tensors_norm *p)
{
    struct cuda *c = cuda_of(t);
    struct tensors_norm a = *p;
    size_t n = p->n_rows * sizeof(*p->rows);

    if (!lists_begin(c, list_len(n)))
        return;
    a.rows = list(c, p->rows, n);
    if (c->err == 0)
        said(c, k_train_norm(stream(c), &a));
}

static void train_norm_back(struct tensors *t, const struct tensors_norm_back *p)
{
    struct cuda *c = cuda_of(t);
    struct tensors_norm_back a = *p;
    size_t n = p->n_rows * sizeof(*p->rows);

    if (!lists_begin(c, list_len(n)))
        return;
    a.rows = list(c, p->rows, n);
    if (c->err == 0)
        said(c, k_norm_back(stream(c), &a));
}

/* part is scratch: sums of pieces of the rows, which are added up in their order. */
static void train_sum_rows(struct tensors *t, const struct tensors_sum *p)
{
    struct cuda *c = cuda_of(t);
    struct tensors_sum a = *p;
    size_t n = p->rows ? p->n_rows * sizeof(*p->rows) : 0,
           n_part = (size_t)K_SPLITS * p->n * sizeof(float);
    float *part;

    if (!lists_begin(c, list_len(n) + list_len(n_part)))
        return;
    /* list_room is asked in the order that lists_begin was told. */
    a.rows = list(c, p->rows, n);
    part = list_room(c, n_part);
    if (c->err == 0)
        said(c, k_sum_rows(stream(c), &a, part));
}

static void train_swiglu(struct tensors *t, enum tensors_type type, void *y, const void *gu,
                         uint32_t n_rows, uint32_t n)
{
    struct cuda *c = cuda_of(t);
    struct k_gate a = { (void *)gu, y, type, n_rows, n };

    if (c->err == 0)
        said(c, k_gate(stream(c), &a));
}

/* gu is read and written over, row by row. */
static void train_swiglu_back(struct tensors *t, enum tensors_type type, void *gu, const void *dy,
                              uint32_t n_rows, uint32_t n)
{
    struct cuda *c = cuda_of(t);
    struct k_gate a = { gu, (void *)dy, type, n_rows, n };

    if (c->err == 0)
        said(c, k_gate_back(stream(c), &a));
}

/* A list is always there. */
static void train_take(struct tensors *t, const struct tensors_take *p)
{
    struct cuda *c = cuda_of(t);
    struct tensors_take a = *p;
    size_t n = p->n_rows * sizeof(*p->index);

    if (!lists_begin(c, list_len(n)))
        return;
    a.index = list(c, p->index, n);
    if (c->err == 0)
        said(c, k_take(stream(c), &a));
}

/* The order of pairs of one row is that of their numbers, since those are in the lower half. */
static int by_number(const void *a, const void *b)
{
    uint64_t x, y;

    memcpy(&x, a, sizeof(x));
    memcpy(&y, b, sizeof(y));
    return x < y ? -1 : x > y;
}

/* Pairs by the rows that they go to, and of each in the order that they came in: lists (3, n_pairs
 * + 1) get to, starts, from. pairs: scratch. How many rows. A device adds without an order where
 * several blocks meet: so each row of the table gets a block of its own, which adds in the order of
 * the list, and the run repeats bit for bit. */
static uint32_t sort_pairs(const struct tensors_give *p, uint64_t *pairs, uint32_t *lists)
{
    size_t each = (size_t)p->n_pairs + 1;
    uint32_t *to = lists, *starts = lists + each, *from = lists + 2 * each, n = 0;

    for (uint32_t i = 0; i < p->n_pairs; i++)
        /* The row in front, so that numbers sort by it. */
        pairs[i] = (uint64_t)p->to[i] << 32 | i;
    qsort(pairs, p->n_pairs, sizeof(*pairs), by_number);
    for (uint32_t i = 0; i < p->n_pairs; i++) {
        uint32_t row = (uint32_t)(pairs[i] >> 32);

        from[i] = p->from[(uint32_t)pairs[i]];
        /* The first pair of another row. */
        if (n == 0 || to[n - 1] != row) {
            to[n] = row;
            starts[n++] = i;
        }
    }
    /* Row i has pairs [starts[i], starts[i + 1]). */
    starts[n] = p->n_pairs;
    return n;
}

/* Lists are sorted by the host: they are as long as a sequence. */
static void train_give(struct tensors *t, const struct tensors_give *p)
{
    struct cuda *c = cuda_of(t);
    struct k_give a = { .x = p->x, .n = p->n, .table = p->table };
    size_t each = (size_t)p->n_pairs + 1, n = 3 * each * sizeof(uint32_t);
    /* One more than there are, so that none is no NULL. */
    uint64_t *pairs = malloc(each * sizeof(*pairs));
    uint32_t *lists = malloc(n), *on;

    if (!pairs || !lists)
        said(c, -ENOMEM);
    if (pairs && lists && lists_begin(c, list_len(n))) {
        a.n_rows = sort_pairs(p, pairs, lists);
        on = list(c, lists, n);
        a.to = on;
        a.starts = on + each;
        a.from = on + 2 * each;
        if (c->err == 0)
            said(c, k_give(stream(c), &a));
    }
    free(pairs);
    free(lists);
}

/* --- attention -------------------------------------------------------------------------------- */

/* Scratch of attention may still be in use. */
static void attn_close(struct tensors_attn *a)
{
    if (!a)
        return;
    (void)rt_wait(a->c->rt, RT_COMPUTE);
    train_attn_close(a->attn);
    free(a);
}

/* Of this module's stream and library. */
static int attn_open(struct tensors *t, const struct tensors_heads *h, struct tensors_attn **ret)
{
    struct tensors_attn *a = calloc(1, sizeof(*a));
    int r;

    if (!a)
        return -ENOMEM;
    a->c = cuda_of(t);
    r = train_attn_open(a->c->rt, a->c->stage, a->c->gemm, h, &a->attn);
    if (r < 0) {
        attn_close(a);
        return r;
    }
    *ret = a;
    return 0;
}

static void attn_see(struct tensors_attn *a, const struct sight *s)
{
    if (a->c->err == 0)
        said(a->c, train_attn_see(a->attn, s));
}

static void attend(struct tensors_attn *a, const struct tensors_attend *p)
{
    if (a->c->err == 0)
        said(a->c, train_attn_run(a->attn, p));
}

static void attend_back(struct tensors_attn *a, const struct tensors_attend_back *p)
{
    if (a->c->err == 0)
        said(a->c, train_attn_back(a->attn, p));
}

/* --- losses and parameters -------------------------------------------------------------------- */

/* Rows' lists behind each other; a row without one: whatever. An ask has pointers of the host's,
 * which a kernel can't follow. */
static const void *pack(struct cuda *c, const struct tensors_loss *p, bool ids)
{
    size_t each = p->n_teacher * sizeof(uint32_t);
    char *all = each ? calloc(p->n_rows, each) : NULL;
    const void *ret;

    if (each && !all) {
        said(c, -ENOMEM);
        return NULL;
    }
    for (uint32_t i = 0; each && i < p->n_rows; i++) {
        const struct tensors_ask *a = &p->asks[i];

        if (a->teacher_ids)
            /* Ids and probabilities have four bytes each. */
            memcpy(all + i * each, ids ? (const void *)a->teacher_ids : a->teacher_p, each);
    }
    ret = list(c, all, p->n_rows * each);
    free(all);
    return ret;
}

/* Waits: what rows say is wanted at once. */
static void train_loss(struct tensors *t, const struct tensors_loss *p)
{
    struct cuda *c = cuda_of(t);
    struct k_loss a = { *p, NULL, NULL };
    size_t n_asks = p->n_rows * sizeof(*p->asks), n_told = p->n_rows * sizeof(*p->ret),
           n_lists = (size_t)p->n_rows * p->n_teacher * sizeof(uint32_t);

    if (!lists_begin(c, list_len(n_asks) + list_len(n_told) + 2 * list_len(n_lists)))
        return;
    a.of.asks = list(c, p->asks, n_asks);
    a.of.ret = list_room(c, n_told);
    a.teacher_ids = pack(c, p, true);
    a.teacher_p = pack(c, p, false);
    if (c->err == 0)
        said(c, k_loss(stream(c), &a));
    /* What a device that failed does not bring is at least a number. */
    memset(p->ret, 0, n_told);
    train_get(t, p->ret, a.of.ret, n_told);
}

/* Memory that is written to first: a call that failed leaves ids that exist. */
static void train_top(struct tensors *t, const struct tensors_top *p)
{
    struct cuda *c = cuda_of(t);
    struct tensors_top a = *p;
    size_t n = (size_t)p->n_rows * p->k;

    memset(p->ids, 0, n * sizeof(*p->ids));
    if (!lists_begin(c, list_len(n * sizeof(*p->ids)) + list_len(n * sizeof(*p->p))))
        return;
    a.ids = list_room(c, n * sizeof(*p->ids));
    a.p = list_room(c, n * sizeof(*p->p));
    said(c, k_top(stream(c), &a));
    train_get(t, p->ids, a.ids, n * sizeof(*p->ids));
    train_get(t, p->p, a.p, n * sizeof(*p->p));
}

/* f32 times f32: parameters are not rounded before they are added up. */
static void train_low_rank(struct tensors *t, float *w, const float *b, const float *a,
                           uint32_t n_out, uint32_t n_in, uint32_t rank)
{
    struct tensors_product p = { n_out,
                                 n_in,
                                 rank,
                                 { b, rank, TENSORS_F32, false },
                                 { a, n_in, TENSORS_F32, false },
                                 { w, n_in, TENSORS_F32, false },
                                 true };

    train_product(t, &p);
}

/* NaN where it failed: a norm that nobody takes for one. */
static double train_sum_squares(struct tensors *t, const float *x, size_t n)
{
    struct cuda *c = cuda_of(t);
    double ret = NAN;

    if (c->err == 0)
        said(c, k_sum_squares(stream(c), x, n, c->sums));
    train_get(t, &ret, c->sums, sizeof(ret));
    return c->err ? NAN : ret;
}

/* One pass over value, gradient and both moments. */
static void train_adamw(struct tensors *t, const struct tensors_adamw *a)
{
    struct cuda *c = cuda_of(t);

    if (c->err == 0)
        said(c, k_adamw(stream(c), a));
}

const struct tensors_ops *gistd_tensors(void)
{
    static const struct tensors_ops ops = {
        .abi = TENSORS_ABI,
        .size = sizeof(struct tensors_ops),
        .name = rt_name,
        .host = false,
        .look = rt_look,
        .open = train_open,
        .close = train_close,
        .error = train_error,
        .left = train_left,
        .alloc = train_alloc,
        .free = train_free,
        .put = train_put,
        .get = train_get,
        .copy = train_copy,
        .clear = train_clear,
        .product = train_product,
        .narrow = train_narrow,
        .widen = train_widen,
        .add = train_add,
        .norm = train_norm,
        .norm_back = train_norm_back,
        .sum_rows = train_sum_rows,
        .swiglu = train_swiglu,
        .swiglu_back = train_swiglu_back,
        .take = train_take,
        .give = train_give,
        .attn_open = attn_open,
        .attn_close = attn_close,
        .attn_room = train_attn_room,
        .attn_see = attn_see,
        .attend = attend,
        .attend_back = attend_back,
        .loss = train_loss,
        .top = train_top,
        .low_rank = train_low_rank,
        .sum_squares = train_sum_squares,
        .adamw = train_adamw,
    };

    return &ops;
}
