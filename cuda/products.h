/* cuda/products.h - weights times the rows of a step, and what an adapter's gists have of their own
 * in their place.
 *
 * Few rows are multiplied with the tiles as they are. Of many, the weights become bf16, slab by
 * slab, and a library multiplies (cuda/gemm.h); float weights and their rows in a high and a low
 * part, in three products. Rows come as f32, with the forms beside that
 * products_forms says.
 *
 * Threads    who has the stream.
 * Errors     -EIO.
 */
#ifndef CUDA_PRODUCTS_H
#define CUDA_PRODUCTS_H

#include "cuda/gemm.h"
#include "cuda/room.h"
#include "cuda/spread.h"
#include "engine/file/adapter.h"
#include "engine/plan.h"

#define PRODUCTS_OUT_MAX 3u

struct products {
    void *stream;
    const struct room *room;
    struct gemm *gemm;
    struct spread_view view;
};

/* A weight of a layer, which projection it is to adapters (ADAPTER_Q ...), and what it leaves. */
struct product_output {
    const struct model_tensor *w;
    unsigned projection;
    float *y; /* (T, w->n_rows), without bias */
};

struct product {
    const float *x;                 /* (T, n_cols) */
    uint32_t n_rows, n_cols, layer; /* of those that the view has */
    bool wanted;                    /* rows are those that outputs are wanted of */
    struct product_output out[PRODUCTS_OUT_MAX];
    uint32_t n_out;
};

/* w times rows: those, and where the results go, are to be filled in. */
struct k_matvec products_matvec(const struct model_tensor *w);

/* Which forms of x the product takes, in the room's buffers. */
struct k_forms products_forms(const struct products *p, const struct plan *plan,
                              const struct product *a);
int products_run(const struct products *p, const struct plan *plan, const struct product *a);

#endif
