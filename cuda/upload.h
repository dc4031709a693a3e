/* cuda/upload.h - a step's plan on the device: one block, copied at once.
 *
 *     | rows | pieces | segments | pages | out rows | adapters | cut of attention |
 *
 * Each part is as long as the next power of two of its count: so parts lie at the same addresses
 * for steps of about the same size, and a recorded graph can be used again.
 *
 * Threads    one at a time. A block is written when the step before it is done.
 * Ownership  owns both blocks, the pinned one of the host and the device's.
 * Errors     -ENOMEM, -EIO (cuda/rt.h), -E2BIG (k_attend_cut).
 */
#ifndef CUDA_UPLOAD_H
#define CUDA_UPLOAD_H

#include "cuda/attend.h"
#include "cuda/rows.h"
#include "cuda/rt.h"
#include "cuda/spread.h"
#include "engine/file/model.h"
#include "engine/plan.h"

struct upload {
    struct rt *rt;
    const struct model *model; /* with the layers that the view has */
    struct spread_view view;
    uint8_t *host, *mem; /* for the largest step that the plan has room for */
    size_t len;
    /* Of the step that was uploaded last, on the device. */
    const struct plan_row *rows;
    const struct plan_piece *pieces;
    const struct plan_segment *segments;
    const uint32_t *pages, *out_rows;
    const void *cut;
    struct k_attend_table table;
    const float *const *gists; /* (pieces) */
    const struct k_bias *own;  /* (n_layer, n_own) */
    uint32_t n_own;            /* 0: no piece has an adapter */
};

/* v: NULL for a device that has all layers. */
void upload_init(struct upload *u, struct rt *rt, const struct model *m,
                 const struct spread_view *v);
void upload_fini(struct upload *u);
size_t upload_bytes(const struct upload *u);
/* The most that it will be, for plans of these limits (engine/plan.h). */
size_t upload_need(const struct model *m, uint32_t max_rows, uint32_t max_pages);

/* Queues the copy on the computing stream. Blocks are taken by the first step. */
int upload_plan(struct upload *u, const struct plan *plan, const struct k_attend_shape *shape);

#endif
