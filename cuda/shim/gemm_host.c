/* cuda/shim/gemm_host.c - cuda/gemm.h by plain loops: what cuBLAS is held to. In the order of its
 * stream, as any other work. */
#include "cuda/gemm.h"

#include "cuda/shim/cuda_runtime_api.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const size_t gemm_workspace = 256;

struct gemm {
    void *stream;
};

int gemm_open(void *stream, void *workspace, struct gemm **ret, struct why *why)
{
    struct gemm *g = malloc(sizeof(*g));

    (void)workspace;
    if (!g)
        return why_set(why, -ENOMEM, "no memory for products");
    g->stream = stream;
    *ret = g;
    return 0;
}

void gemm_close(struct gemm *g)
{
    free(g);
}

/* Exact. */
static float from_bf16(uint16_t b)
{
    uint32_t bits = (uint32_t)b << 16;
    float f;

    memcpy(&f, &bits, sizeof(f));
    return f;
}

/* In eight sums, so that compilers may take eight at a time. */
static float dot(const uint16_t *a, const uint16_t *b, uint32_t n)
{
    float sum[8] = { 0 }, all = 0;
    uint32_t i = 0;

    for (; i + 8 <= n; i += 8)
        for (unsigned j = 0; j < 8; j++)
            sum[j] += from_bf16(a[i + j]) * from_bf16(b[i + j]);
    for (; i < n; i++)
        sum[0] += from_bf16(a[i]) * from_bf16(b[i]);
    for (unsigned j = 0; j < 8; j++)
        all += sum[j];
    return all;
}

/* What nobody wrote is NaN, and is not read. So with add false y is only written. */
static void put(float *y, bool add, float v)
{
    *y = add ? *y + v : v;
}

/* arg is this call's own, and goes with it. */
static void multiply(void *arg)
{
    const struct gemm_product *p = arg;

    for (uint32_t r = 0; r < p->n_rows; r++)
        for (uint32_t t = 0; t < p->n_x; t++)
            put(&p->y[t * p->y_stride + r], p->add,
                dot(p->w + (size_t)r * p->n_cols, p->x + (size_t)t * p->n_cols, p->n_cols));
    free(arg);
}

/* Its arguments are copied, as the call is over when it runs. */
int gemm_run(struct gemm *g, const struct gemm_product *p)
{
    struct gemm_product *mine = malloc(sizeof(*mine));

    if (!mine)
        return -ENOMEM;
    *mine = *p;
    if (cudaLaunchHostFunc(g->stream, multiply, mine) == cudaSuccess)
        return 0;
    free(mine);
    return -EIO;
}

/* --- of training ------------------------------------------------------------------------------ */

/* at: in values, of either type. */
static float value(const struct tensors_mat *m, size_t at)
{
    return m->type == TENSORS_F32 ? ((const float *)m->p)[at]
                                  : from_bf16(((const uint16_t *)m->p)[at]);
}

/* A NaN stays one. */
static uint16_t to_bf16(float x)
{
    uint32_t u;

    memcpy(&u, &x, sizeof(u));
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

/* (n, k) from its offset on; across: it lies transposed, (k, n). In f32 and in rows, so that one
 * loop multiplies all of them. */
static float *rows_of(const struct tensors_mat *m, size_t off, uint32_t n, uint32_t k, bool across)
{
    float *ret = malloc((size_t)n * k * sizeof(*ret));

    for (uint32_t i = 0; ret && i < n; i++)
        for (uint32_t j = 0; j < k; j++)
            ret[(size_t)i * k + j] =
                value(m, off + (across ? (size_t)j * m->ld + i : (size_t)i * m->ld + j));
    return ret;
}

/* The same order as dot: f32 and bf16 differ by their inputs alone. */
static float dot_f32(const float *a, const float *b, uint32_t n)
{
    float sum[8] = { 0 }, all = 0;
    uint32_t i = 0;

    for (; i + 8 <= n; i += 8)
        for (unsigned j = 0; j < 8; j++)
            sum[j] += a[i + j] * b[i + j];
    for (; i < n; i++)
        sum[0] += a[i] * b[i];
    for (unsigned j = 0; j < 8; j++)
        all += sum[j];
    return all;
}

/* No memory: the result stays what it was, and the test finds it. */
static void multiply_one(const struct tensors_product *p, size_t a_off, size_t b_off, size_t c_off)
{
    float *a = rows_of(&p->a, a_off, p->m, p->k, p->a.t),
          *b = rows_of(&p->b, b_off, p->n, p->k, !p->b.t);

    for (uint32_t i = 0; a && b && i < p->m; i++)
        for (uint32_t j = 0; j < p->n; j++) {
            float v = dot_f32(a + (size_t)i * p->k, b + (size_t)j * p->k, p->k);
            size_t at = c_off + (size_t)i * p->c.ld + j;

            /* To bf16 nothing is added: nobody asks for that. */
            if (p->c.type == TENSORS_F32)
                put((float *)p->c.p + at, p->add, v);
            else
                ((uint16_t *)p->c.p)[at] = to_bf16(v);
        }
    free(a);
    free(b);
}

static void multiply_batch(void *arg)
{
    const struct gemm_batch *p = arg;

    for (uint32_t i = 0; i < p->n; i++)
        multiply_one(&p->of, i * p->a_stride, i * p->b_stride, i * p->c_stride);
    free(arg);
}

int gemm_batch(struct gemm *g, const struct gemm_batch *p)
{
    struct gemm_batch *mine = malloc(sizeof(*mine));

    if (!mine)
        return -ENOMEM;
    *mine = *p;
    if (cudaLaunchHostFunc(g->stream, multiply_batch, mine) == cudaSuccess)
        return 0;
    free(mine);
    return -EIO;
}
