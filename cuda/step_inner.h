/* cuda/step_inner.h - what the files of cuda/step.h share: a device's part of a step.
 *
 * Threads    one at a time.
 */
#ifndef CUDA_STEP_INNER_H
#define CUDA_STEP_INNER_H

#include "cuda/products.h"
#include "cuda/step.h"
#include "cuda/upload.h"

/* Steps that are kept, by their shapes: a session that decodes comes to a new one when it has twice
 * the pages. */
#define KEPT 8

/* All that the launches of a step depend on, but for what they read from the device's memory. */
struct shape {
    uint32_t n_rows, n_out;
    bool observes;
    struct upload at; /* where the plan's parts lie, and how attention is cut */
    struct k_pool pool;
};

struct kept {
    struct shape shape;
    struct rt_graph *graph; /* NULL: free */
    uint64_t used;          /* when last, in steps */
};

struct step {
    struct rt *rt;
    struct stage *stage;
    const struct model *m; /* with the layers that the view has */
    struct spread_view view;
    struct room room;
    struct upload upload;
    struct products products;
    float *fine, *coarse;              /* angles: see engine/kv/rotary.h */
    struct rt_event *done[STEP_AHEAD]; /* layer i's: [i % STEP_AHEAD] */
    const struct plan *plan;           /* of the step that runs, or was the last */
    struct k_pool pool;
    uint32_t n_out;    /* rows of room.out */
    uint32_t *ask_ids; /* the host's, as room.ask_ids */
    struct kept kept[KEPT];
    uint64_t n_steps;
};

/* The parts of a step, each queued; start has the plan taken over. ret_left: rows that are left
 * behind attention, and whose y is made; 0: none, and the layer is done. */
int step_start(struct step *s, const struct plan *plan);
int step_embed(const struct step *s);
int step_attention(struct step *s, uint32_t i, uint32_t *ret_left);
int step_ffn(struct step *s, uint32_t i, uint32_t n_rows);
int step_last_norm(const struct step *s);

#endif
