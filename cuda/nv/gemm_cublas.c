/* cuda/nv/gemm_cublas.c - cuda/gemm.h by cuBLAS, which is loaded when a GPU is used: half a
 * gigabyte of library that nobody else has to have. cublasLt, of which it is a part, is never
 * called.
 */
#include "cuda/gemm.h"

#include "cuda/nv/symbols.h"

#include <cublas_v2.h>

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>

const size_t gemm_workspace = (size_t)32 << 20; /* what cuBLAS advises for the largest chips */

/* Functions by pointers, as the library may not be there. */
struct gemm {
    void *lib;
    cublasHandle_t handle;
    cublasStatus_t (*create)(cublasHandle_t *);
    cublasStatus_t (*destroy)(cublasHandle_t);
    cublasStatus_t (*set_stream)(cublasHandle_t, cudaStream_t);
    cublasStatus_t (*set_workspace)(cublasHandle_t, void *, size_t);
    cublasStatus_t (*gemm_ex)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int,
                              const void *, const void *, cudaDataType, int, const void *,
                              cudaDataType, int, const void *, void *, cudaDataType, int,
                              cublasComputeType_t, cublasGemmAlgo_t);
    cublasStatus_t (*gemm_batch)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int,
                                 int, const void *, const void *, cudaDataType, int, long long,
                                 const void *, cudaDataType, int, long long, const void *, void *,
                                 cudaDataType, int, long long, int, cublasComputeType_t,
                                 cublasGemmAlgo_t);
};

/* RTLD_LOCAL: another cuBLAS in the process, of a plugin, keeps its own. */
static int find_library(struct gemm *g, struct why *why)
{
    static const char *const names[] = { "libcublas.so.13", "libcublas.so.12" };

    for (unsigned i = 0; i < sizeof(names) / sizeof(*names) && !g->lib; i++)
        g->lib = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (g->lib)
        return 0;
    return why_set(why, -ELIBACC,
                   "cuBLAS is missing (%s): install it (Debian: libcublas-13-0 of NVIDIA's "
                   "repository; PyPI: nvidia-cublas) and make it known to ldconfig, or use "
                   "--device cpu",
                   names[0]);
}

static int find_functions(struct gemm *g, struct why *why)
{
    const struct symbol all[] = {
        { "cublasCreate_v2", &g->create },        { "cublasDestroy_v2", &g->destroy },
        { "cublasSetStream_v2", &g->set_stream }, { "cublasSetWorkspace_v2", &g->set_workspace },
        { "cublasGemmEx", &g->gemm_ex },          { "cublasGemmStridedBatchedEx", &g->gemm_batch }
    };
    const char *missing = symbols_find(g->lib, all, sizeof(all) / sizeof(*all));

    if (missing)
        return why_set(why, -ELIBACC,
                       "cuBLAS has no function %s: found another version than "
                       "12 or 13",
                       missing);
    return 0;
}

/* Of the device that is current. The workspace comes behind the stream, which would set it back to
 * cuBLAS's own. */
int gemm_open(void *stream, void *workspace, struct gemm **ret, struct why *why)
{
    struct gemm *g = calloc(1, sizeof(*g));
    int r;

    if (!g)
        return why_set(why, -ENOMEM, "no memory for cuBLAS");
    r = find_library(g, why);
    if (r == 0)
        r = find_functions(g, why);
    if (r == 0 && (g->create(&g->handle) != CUBLAS_STATUS_SUCCESS ||
                   g->set_stream(g->handle, stream) != CUBLAS_STATUS_SUCCESS ||
                   g->set_workspace(g->handle, workspace, gemm_workspace) != CUBLAS_STATUS_SUCCESS))
        r = why_set(why, -EIO, "cuBLAS does not start on this device");
    if (r < 0) {
        gemm_close(g);
        return r;
    }
    *ret = g;
    return 0;
}

/* The handle may have work in the stream: callers have waited for it. */
void gemm_close(struct gemm *g)
{
    if (!g)
        return;
    if (g->handle)
        (void)g->destroy(g->handle);
    if (g->lib)
        (void)dlclose(g->lib);
    free(g);
}

/* cuBLAS counts by columns: what is row-major here is transposed there. Column by column: y^T
 * (n_rows, n_x) is w, which cuBLAS sees as (n_cols, n_rows) and turns, times x^T. */
int gemm_run(struct gemm *g, const struct gemm_product *p)
{
    const float one = 1, add = p->add ? 1 : 0;
    int k = (int)p->n_cols;

    return g->gemm_ex(g->handle, CUBLAS_OP_T, CUBLAS_OP_N, (int)p->n_rows, (int)p->n_x, k, &one,
                      p->w, CUDA_R_16BF, k, p->x, CUDA_R_16BF, k, &add, p->y, CUDA_R_32F,
                      (int)p->y_stride, CUBLAS_COMPUTE_32F,
                      CUBLAS_GEMM_DEFAULT) == CUBLAS_STATUS_SUCCESS
               ? 0
               : -EIO;
}

static cudaDataType type_of(const struct tensors_mat *m)
{
    return m->type == TENSORS_F32 ? CUDA_R_32F : CUDA_R_16BF;
}

static cublasOperation_t op_of(const struct tensors_mat *m)
{
    return m->t ? CUBLAS_OP_T : CUBLAS_OP_N;
}

/* C^T = B^T A^T: what lies by rows is transposed to it already. So a and b change places, and their
 * leading dimensions are those of rows. f32 is multiplied as f32: TF32 would be asked for. */
int gemm_batch(struct gemm *g, const struct gemm_batch *p)
{
    const float one = 1, add = p->of.add ? 1 : 0;
    const struct tensors_mat *a = &p->of.a, *b = &p->of.b, *c = &p->of.c;

    return g->gemm_batch(g->handle, op_of(b), op_of(a), (int)p->of.n, (int)p->of.m, (int)p->of.k,
                         &one, b->p, type_of(b), (int)b->ld, (long long)p->b_stride, a->p,
                         type_of(a), (int)a->ld, (long long)p->a_stride, &add, (void *)c->p,
                         type_of(c), (int)c->ld, (long long)p->c_stride, (int)p->n,
                         CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT) == CUBLAS_STATUS_SUCCESS
               ? 0
               : -EIO;
}
