/* train/net/gemm.c - products by oneDNN. It compiles a product for its shape, which takes longer
 * than many of them run, so what is compiled is kept by shape, in a table with open addresses.
 */
#include "train/net/gemm.h"

#include <errno.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 4096u /* shapes; when three quarters are used all are dropped */
#define ALIGN 64u

/* No padding: it is hashed and compared by its bytes. */
struct shape {
    uint32_t m, n, k, lda, ldb, ldc;
    /* type: of both inputs. */
    uint8_t type, c_type, flags, pad;
};
/* Of shape.flags. */
enum { A_T = 1, B_T = 2, ADD = 4 };

/* run is compiled for the shape; memories are pointed to operands at each call. */
struct product {
    struct shape shape;
    dnnl_primitive_t run;
    dnnl_memory_t a, b, c, scratch;
    size_t scratch_len;
};

struct gemm {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    struct product *products; /* (SLOTS), by hash; run NULL: free */
    uint32_t n_products;
    void *scratch;
    size_t scratch_len;
    int err;
};

/* AMX or AVX512_BF16: whoever has the former has the latter. */
bool gemm_has_bf16(void)
{
    return __builtin_cpu_supports("avx512bf16");
}

int gemm_open(struct gemm **ret)
{
    struct gemm *g = calloc(1, sizeof(*g));

    if (!g)
        return -ENOMEM;
    g->products = calloc(SLOTS, sizeof(*g->products));
    if (!g->products || dnnl_engine_create(&g->engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_stream_create(&g->stream, g->engine, dnnl_stream_default_flags) != dnnl_success) {
        gemm_close(g);
        return -ENOMEM;
    }
    *ret = g;
    return 0;
}

/* NULLs are accepted by oneDNN. */
static void drop(struct product *p)
{
    dnnl_memory_destroy(p->a);
    dnnl_memory_destroy(p->b);
    dnnl_memory_destroy(p->c);
    dnnl_memory_destroy(p->scratch);
    dnnl_primitive_destroy(p->run);
    *p = (struct product){ 0 };
}

static void drop_all(struct gemm *g)
{
    for (uint32_t i = 0; i < SLOTS; i++)
        if (g->products[i].run)
            drop(&g->products[i]);
    g->n_products = 0;
}

void gemm_close(struct gemm *g)
{
    if (!g)
        return;
    if (g->products)
        drop_all(g);
    free(g->products);
    free(g->scratch);
    if (g->stream)
        dnnl_stream_destroy(g->stream);
    if (g->engine)
        dnnl_engine_destroy(g->engine);
    free(g);
}

/* Looked at after a step, by who asked for many products. */
int gemm_error(const struct gemm *g)
{
    return g->err;
}

/* FNV-1a. */
static uint32_t hash(const struct shape *s)
{
    const uint8_t *p = (const uint8_t *)s;
    uint32_t h = 2166136261u;

    for (size_t i = 0; i < sizeof(*s); i++)
        h = (h ^ p[i]) * 16777619u;
    return h;
}

/* Transposed is the same memory with its strides exchanged. */
static bool describe(dnnl_memory_desc_t *d, uint32_t rows, uint32_t cols, uint32_t ld, bool t,
                     enum tensors_type type)
{
    /* oneDNN has strides of each dimension. */
    dnnl_dims_t dims = { rows, cols }, strides = { t ? 1 : ld, t ? ld : 1 };

    return dnnl_memory_desc_init_by_strides(d, 2, dims, type == TENSORS_F32 ? dnnl_f32 : dnnl_bf16,
                                            strides) == dnnl_success;
}

/* Attributes: scratch is ours, and the sum when it adds. NULL: no memory. */
static dnnl_primitive_attr_t attributes(bool add)
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t ops = NULL;

    if (dnnl_primitive_attr_create(&attr) != dnnl_success)
        return NULL;
    dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (add && dnnl_post_ops_create(&ops) == dnnl_success) {
        dnnl_post_ops_append_sum(ops, 1.0f);
        dnnl_primitive_attr_set_post_ops(attr, ops);
        dnnl_post_ops_destroy(ops);
    }
    return attr;
}

/* Memory objects have no memory yet: gemm_run gives it to them. */
static bool compile(struct gemm *g, const struct shape *s, struct product *ret)
{
    dnnl_memory_desc_t a, b, c;
    /* Belongs to the primitive's description. */
    const dnnl_memory_desc_t *scratch;
    dnnl_matmul_desc_t op;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_attr_t attr;
    struct product p = { .shape = *s };
    bool ok;

    if (!describe(&a, s->m, s->k, s->lda, s->flags & A_T, s->type) ||
        !describe(&b, s->k, s->n, s->ldb, s->flags & B_T, s->type) ||
        !describe(&c, s->m, s->n, s->ldc, false, s->c_type))
        return false;
    attr = attributes(s->flags & ADD);
    ok = attr && dnnl_matmul_desc_init(&op, &a, &b, NULL, &c) == dnnl_success &&
         dnnl_primitive_desc_create(&desc, &op, attr, g->engine, NULL) == dnnl_success &&
         dnnl_primitive_create(&p.run, desc) == dnnl_success;
    if (ok) {
        scratch = dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);
        p.scratch_len = dnnl_memory_desc_get_size(scratch);
        ok = dnnl_memory_create(&p.a, &a, g->engine, DNNL_MEMORY_NONE) == dnnl_success &&
             dnnl_memory_create(&p.b, &b, g->engine, DNNL_MEMORY_NONE) == dnnl_success &&
             dnnl_memory_create(&p.c, &c, g->engine, DNNL_MEMORY_NONE) == dnnl_success &&
             dnnl_memory_create(&p.scratch, scratch, g->engine, DNNL_MEMORY_NONE) == dnnl_success;
    }
    dnnl_primitive_desc_destroy(desc);
    dnnl_primitive_attr_destroy(attr);
    if (!ok) {
        drop(&p);
        return false;
    }
    *ret = p;
    return true;
}

/* Compiles what it does not find. Three quarters full at most, so the search ends. */
static struct product *find(struct gemm *g, const struct shape *s)
{
    uint32_t i = hash(s) % SLOTS;

    for (; g->products[i].run; i = (i + 1) % SLOTS)
        if (memcmp(&g->products[i].shape, s, sizeof(*s)) == 0)
            return &g->products[i];
    /* Shapes of texts of all lengths would fill it: once in a long while all start over. */
    if (g->n_products >= SLOTS / 4 * 3) {
        drop_all(g);
        i = hash(s) % SLOTS;
    }
    if (!compile(g, s, &g->products[i]))
        return NULL;
    g->n_products++;
    return &g->products[i];
}

/* One for all of them, since they run one after the other. */
static bool scratch_for(struct gemm *g, size_t len)
{
    if (len <= g->scratch_len)
        return true;
    free(g->scratch);
    /* aligned_alloc wants a multiple. */
    g->scratch_len = (len + ALIGN - 1) / ALIGN * ALIGN;
    g->scratch = aligned_alloc(ALIGN, g->scratch_len);
    if (!g->scratch)
        g->scratch_len = 0;
    return g->scratch;
}

void gemm_run(struct gemm *g, uint32_t m, uint32_t n, uint32_t k, struct tensors_mat a,
              struct tensors_mat b, struct tensors_mat c, bool add)
{
    struct shape s = { m,      n,      k,
                       a.ld,   b.ld,   c.ld,
                       a.type, c.type, (a.t ? A_T : 0) | (b.t ? B_T : 0) | (add ? ADD : 0),
                       0 };
    struct product *p;

    /* After the first error products do nothing, as engine/tensors.h has it. */
    if (g->err || m == 0 || n == 0 || k == 0)
        return;
    p = find(g, &s);
    if (!p || !scratch_for(g, p->scratch_len)) {
        g->err = p ? -ENOMEM : -EIO;
        return;
    }
    /* No copies: oneDNN reads and writes the caller's memory. */
    dnnl_memory_set_data_handle_v2(p->a, (void *)a.p, g->stream);
    dnnl_memory_set_data_handle_v2(p->b, (void *)b.p, g->stream);
    dnnl_memory_set_data_handle_v2(p->c, (void *)c.p, g->stream);
    dnnl_memory_set_data_handle_v2(p->scratch, g->scratch, g->stream);
    dnnl_exec_arg_t args[] = { { DNNL_ARG_SRC, p->a },
                               { DNNL_ARG_WEIGHTS, p->b },
                               { DNNL_ARG_DST, p->c },
                               { DNNL_ARG_SCRATCHPAD, p->scratch } };
    if (dnnl_primitive_execute(p->run, g->stream, 4, args) != dnnl_success ||
        dnnl_stream_wait(g->stream) != dnnl_success)
        g->err = -EIO;
}
