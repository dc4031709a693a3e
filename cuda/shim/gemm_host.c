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

/* What nobody wrote is NaN, and is not read. */
static void put(float *y, bool add, float v)
{
    *y = add ? *y + v : v;
}

static void multiply(void *arg)
{
    const struct gemm_product *p = arg;

    for (uint32_t r = 0; r < p->n_rows; r++)
        for (uint32_t t = 0; t < p->n_x; t++)
            put(&p->y[t * p->y_stride + r], p->add,
                dot(p->w + (size_t)r * p->n_cols, p->x + (size_t)t * p->n_cols, p->n_cols));
    free(arg);
}

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
