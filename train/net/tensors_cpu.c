/* train/net/tensors_cpu.c - engine/tensors.h by the CPU: its memory is the process's, and an
 * operation is done when its call returns. Each splits its rows among OpenMP's threads, and no sum
 * of ours crosses from one thread to another, so it does not depend on how many there are.
 */
#include "train/net/tensors_cpu.h"

#include "train/net/attn.h"
#include "train/net/gemm.h"
#include "train/net/loss.h"
#include "train/net/vec.h"

#include <errno.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN 64u

/* err: the first of this module; products keep their own. */
struct cpu {
    struct tensors t;
    struct gemm *gemm;
    float *lanes; /* (threads, lane_len) */
    size_t lane_len;
    int err;
};

struct tensors_attn {
    struct cpu *c;
    struct attn *attn;
    struct sight sight;
};

static struct cpu *cpu_of(struct tensors *t)
{
    return (struct cpu *)t;
}

/* n values a row. */
static uint8_t *typed_row(const void *p, enum tensors_type type, size_t row, size_t n)
{
    return (uint8_t *)p + row * n * tensors_size(type);
}

/* --- memory ----------------------------------------------------------------------------------- */

/* A CPU is always there. */
static int cpu_look(unsigned n, struct why *why)
{
    (void)n;
    (void)why;
    return 0;
}

static void cpu_close(struct tensors *t)
{
    if (!t)
        return;
    gemm_close(cpu_of(t)->gemm);
    free(cpu_of(t)->lanes);
    free(t);
}

/* One engine of oneDNN for all products outside of attention. */
static int cpu_open(unsigned n, struct tensors **ret, struct why *why)
{
    struct cpu *c = calloc(1, sizeof(*c));
    int r;

    (void)n;
    if (!c)
        return why_set(why, -ENOMEM, "no memory");
    c->t.ops = &tensors_cpu;
    r = gemm_open(&c->gemm);
    if (r < 0) {
        cpu_close(&c->t);
        return why_set(why, r, "oneDNN does not start: %s", strerror(-r));
    }
    *ret = &c->t;
    return 0;
}

static int cpu_error(struct tensors *t)
{
    return cpu_of(t)->err ? cpu_of(t)->err : gemm_error(cpu_of(t)->gemm);
}

/* Nobody knows: other processes and the page cache have their parts in it. */
static uint64_t cpu_left(struct tensors *t)
{
    (void)t;
    return 0;
}

/* Of cache lines, as vectors' loads and oneDNN's best kernels want it. */
static void *cpu_alloc(struct tensors *t, size_t n)
{
    (void)t;
    return aligned_alloc(ALIGN, ((n ? n : 1) + ALIGN - 1) / ALIGN * ALIGN);
}

static void cpu_free(struct tensors *t, void *p)
{
    (void)t;
    free(p);
}

/* put, get and copy are all the same here. */
static void cpu_copy(struct tensors *t, void *to, const void *from, size_t n)
{
    (void)t;
    memmove(to, from, n);
}

static void cpu_clear(struct tensors *t, void *p, size_t n)
{
    (void)t;
    memset(p, 0, n);
}

/* Of each thread's own, n values. Grows and stays. An error is kept, as operations return nothing.
 */
static bool make_lanes(struct cpu *c, size_t n)
{
    if (n <= c->lane_len)
        return true;
    free(c->lanes);
    c->lanes = malloc((size_t)omp_get_max_threads() * n * sizeof(float));
    c->lane_len = c->lanes ? n : 0;
    if (!c->lanes)
        c->err = -ENOMEM;
    return c->lanes;
}

/* What a thread writes nobody else reads. */
static float *lane(const struct cpu *c)
{
    return c->lanes + (size_t)omp_get_thread_num() * c->lane_len;
}

/* --- rows ------------------------------------------------------------------------------------- */

/* oneDNN has threads of its own. */
static void cpu_product(struct tensors *t, const struct tensors_product *p)
{
    gemm_run(cpu_of(t)->gemm, p->m, p->n, p->k, p->a, p->b, p->c, p->add);
}

#define CHUNK 4096u /* values of one thread at a time */

/* Pieces of CHUNK, which fit a core's cache. */
static void cpu_narrow(struct tensors *t, enum tensors_type type, void *y, const float *x, size_t n)
{
    (void)t;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i += CHUNK)
        vec_put(type, (uint8_t *)y + i * tensors_size(type), x + i, n - i < CHUNK ? n - i : CHUNK);
}

static void cpu_widen(struct tensors *t, enum tensors_type type, float *y, const void *x, size_t n)
{
    (void)t;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i += CHUNK)
        vec_get(type, (const uint8_t *)x + i * tensors_size(type), y + i,
                n - i < CHUNK ? n - i : CHUNK);
}

static void cpu_add(struct tensors *t, float *y, const float *x, uint32_t n_rows, uint32_t n)
{
    (void)t;
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < n_rows; i++)
        vec_add(y + (size_t)i * n, x, n);
}

/* In f32 first: y may be bf16. */
static void cpu_norm(struct tensors *t, const struct tensors_norm *a)
{
    struct cpu *c = cpu_of(t);

    if (!make_lanes(c, a->n))
        return;
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < a->n_rows; i++) {
        float *y = lane(c), r;

        r = vec_norm(y, a->x + (size_t)(a->rows ? a->rows[i] : i) * a->n, a->w, a->eps, a->n);
        if (a->r)
            a->r[i] = r;
        vec_put(a->type, typed_row(a->y, a->type, i, a->n), y, a->n);
    }
}

/* dy is scratch behind it. */
static void cpu_norm_back(struct tensors *t, const struct tensors_norm_back *a)
{
    (void)t;
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < a->n_rows; i++) {
        size_t at = (size_t)(a->rows ? a->rows[i] : i) * a->n;

        vec_norm_back(a->dx + at, a->dy + (size_t)i * a->n, a->x + at, a->w, a->r[i], a->n);
    }
}

#define SUM_COLS 64u /* by one thread: the order of a sum does not depend on threads */

/* A thread has SUM_COLS columns of all rows, and adds these up in their order. */
static void cpu_sum_rows(struct tensors *t, const struct tensors_sum *a)
{
    size_t ld = a->ld ? a->ld : a->n;

    (void)t;
#pragma omp parallel for schedule(static)
    for (uint32_t c = 0; c < a->n; c += SUM_COLS)
        for (uint32_t i = 0; i < a->n_rows; i++) {
            const float *d = a->d + i * ld + c;
            uint32_t n = a->n - c < SUM_COLS ? a->n - c : SUM_COLS;
            float by = a->by ? a->by[i] : 1.0f;

            if (a->x)
                vec_norm_back_weight(a->y + c, d,
                                     a->x + (size_t)(a->rows ? a->rows[i] : i) * a->n + c, by, n);
            else
                vec_add_scaled(a->y + c, by, d, n);
        }
}

static void cpu_swiglu(struct tensors *t, enum tensors_type type, void *y, const void *gu,
                       uint32_t n_rows, uint32_t n)
{
    struct cpu *c = cpu_of(t);

    if (!make_lanes(c, 2 * (size_t)n))
        return;
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < n_rows; i++) {
        float *g = lane(c);

        vec_get(type, typed_row(gu, type, i, 2 * (size_t)n), g, 2 * (size_t)n);
        vec_swiglu(g, g, g + n, n);
        vec_put(type, typed_row(y, type, i, n), g, n);
    }
}

static void cpu_swiglu_back(struct tensors *t, enum tensors_type type, void *gu, const void *dy,
                            uint32_t n_rows, uint32_t n)
{
    struct cpu *c = cpu_of(t);

    if (!make_lanes(c, 3 * (size_t)n))
        return;
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < n_rows; i++) {
        float *g = lane(c);

        vec_get(type, typed_row(gu, type, i, 2 * (size_t)n), g, 2 * (size_t)n);
        /* g, u and dy of the row, behind each other. */
        vec_get(type, typed_row(dy, type, i, n), g + 2 * (size_t)n, n);
        vec_swiglu_back(g, g + n, g + 2 * (size_t)n, n);
        vec_put(type, typed_row(gu, type, i, 2 * (size_t)n), g, 2 * (size_t)n);
    }
}

static void cpu_take(struct tensors *t, const struct tensors_take *a)
{
    (void)t;
    for (uint32_t i = 0; i < a->n_rows; i++) {
        const float *from = a->table + (size_t)a->index[i] * (a->ld ? a->ld : a->n);
        float *y = a->y + (size_t)i * (a->ld_y ? a->ld_y : a->n);

        if (a->index[i] == SIGHT_NO_ROW)
            continue;
        if (a->add)
            vec_add(y, from, a->n);
        else
            memcpy(y, from, a->n * sizeof(*y));
    }
}

/* One after the other: several may add to the same row of the table. */
static void cpu_give(struct tensors *t, const struct tensors_give *a)
{
    (void)t;
    for (uint32_t i = 0; i < a->n_pairs; i++)
        vec_add(a->table + (size_t)a->to[i] * a->n, a->x + (size_t)a->from[i] * a->n, a->n);
}

/* --- attention -------------------------------------------------------------------------------- */

static void cpu_attn_close(struct tensors_attn *a)
{
    if (!a)
        return;
    attn_close(a->attn);
    free(a);
}

static int cpu_attn_open(struct tensors *t, const struct tensors_heads *h,
                         struct tensors_attn **ret)
{
    struct tensors_attn *a = calloc(1, sizeof(*a));
    int r;

    if (!a)
        return -ENOMEM;
    a->c = cpu_of(t);
    r = attn_open(h, &a->attn);
    if (r < 0) {
        cpu_attn_close(a);
        return r;
    }
    *ret = a;
    return 0;
}

/* A copy of pointers: lists are the caller's, who keeps them until the next call of it. */
static void cpu_attn_see(struct tensors_attn *a, const struct sight *s)
{
    a->sight = *s;
}

/* Attention returns its own and its products' errors. */
static void keep_error(struct tensors_attn *a, int r)
{
    if (r == 0)
        r = attn_error(a->attn);
    if (a->c->err == 0)
        a->c->err = r;
}

static void cpu_attend(struct tensors_attn *a, const struct tensors_attend *p)
{
    keep_error(a, attn_forward(a->attn, &a->sight, p));
}

static void cpu_attend_back(struct tensors_attn *a, const struct tensors_attend_back *p)
{
    keep_error(a, attn_back(a->attn, &a->sight, p));
}

/* --- losses and parameters -------------------------------------------------------------------- */

static void cpu_loss(struct tensors *t, const struct tensors_loss *a)
{
    (void)t;
    loss_rows(a);
}

static void cpu_top(struct tensors *t, const struct tensors_top *a)
{
    (void)t;
    loss_top(a);
}

static void cpu_low_rank(struct tensors *t, float *w, const float *b, const float *a,
                         uint32_t n_out, uint32_t n_in, uint32_t rank)
{
    (void)t;
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < n_out; i++)
        for (uint32_t k = 0; k < rank; k++)
            vec_add_scaled(w + (size_t)i * n_in, b[(size_t)i * rank + k], a + (size_t)k * n_in,
                           n_in);
}

/* By one thread, in one order. */
static double cpu_sum_squares(struct tensors *t, const float *x, size_t n)
{
    (void)t;
    return vec_sum_squares(x, n);
}

static void cpu_adamw(struct tensors *t, const struct tensors_adamw *a)
{
    float b1 = a->beta1, b2 = a->beta2;

    (void)t;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < a->n; i++) {
        float g = a->g[i] * a->scale;

        /* Each value for itself, so any split among threads gives the same. */
        a->m[i] = b1 * a->m[i] + (1.0f - b1) * g;
        a->v[i] = b2 * a->v[i] + (1.0f - b2) * g * g;
        a->p[i] = a->p[i] * a->keep - a->rate * a->m[i] / (sqrtf(a->v[i]) * a->root + a->eps);
    }
}

/* put, get and copy are one function: there is one memory. */
const struct tensors_ops tensors_cpu = {
    .abi = TENSORS_ABI,
    .size = sizeof(struct tensors_ops),
    .name = "cpu",
    .host = true,
    .look = cpu_look,
    .open = cpu_open,
    .close = cpu_close,
    .error = cpu_error,
    .left = cpu_left,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .put = cpu_copy,
    .get = cpu_copy,
    .copy = cpu_copy,
    .clear = cpu_clear,
    .product = cpu_product,
    .narrow = cpu_narrow,
    .widen = cpu_widen,
    .add = cpu_add,
    .norm = cpu_norm,
    .norm_back = cpu_norm_back,
    .sum_rows = cpu_sum_rows,
    .swiglu = cpu_swiglu,
    .swiglu_back = cpu_swiglu_back,
    .take = cpu_take,
    .give = cpu_give,
    .attn_open = cpu_attn_open,
    .attn_close = cpu_attn_close,
    .attn_room = attn_room,
    .attn_see = cpu_attn_see,
    .attend = cpu_attend,
    .attend_back = cpu_attend_back,
    .loss = cpu_loss,
    .top = cpu_top,
    .low_rank = cpu_low_rank,
    .sum_squares = cpu_sum_squares,
    .adamw = cpu_adamw,
};
