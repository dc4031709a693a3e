/* bench/gpu/scene.h - a device with all that kernels are measured over: weights, pages, a step's
 * rows and its plan, of a model that is a shape and nothing else.
 *
 * What weights and pages hold is random and finite, and means nothing. Weights are a window that is
 * larger than any cache: launch i of a kernel reads another part of it than launch i - 1.
 *
 * Threads    one.
 * Errors     scene_open prints what is missing and returns a negative errno, scene_plan -ENOMEM or
 *            what cuda/upload.h says.
 */
#ifndef BENCH_GPU_SCENE_H
#define BENCH_GPU_SCENE_H

#include "cuda/fit.h"
#include "cuda/gemm.h"
#include "cuda/move.h"
#include "cuda/room.h"
#include "cuda/upload.h"
#include "engine/plan.h"

#define SCENE_SEGMENT 512u
#define SCENE_PACKED  64u  /* keys of a segment at ratio 8 */
#define SCENE_ASKED   768u /* queries by which such a segment is packed */

/* A step of sessions with `context` tokens each, a multiple of SCENE_SEGMENT, of which the last
 * `rows` are new. ratio: of all segments but the last one; 1 or 8. */
struct scene_step {
    uint32_t sessions, context, rows, ratio;
    enum kv_type kv;
};

struct scene {
    struct rt *rt;
    struct model m; /* its shape: it has no weights */
    struct room room;
    struct upload upload;
    struct plan plan;
    struct gemm *gemm;
    struct k_angles angles;
    struct k_pool pool;
    size_t window_len, pool_len;
    /* Of the device's. */
    uint8_t *window;
    float *fine, *coarse, *norm; /* norm: (n_embd) */
    float *asked;                /* (lists, SCENE_ASKED, head_dim + 1) */
    uint32_t *pages, *kept;      /* of a segment that is packed, and the keys that stay */
    void *fit;                   /* scratch of scene_fit */
};

/* The shape of Llama-3.1-8B, or of something that the shim computes in no time. */
void scene_shape(struct model *m, bool tiny);

/* Keys that a session sees, the new ones too, and the pages that all sessions have. */
uint32_t scene_keys(const struct scene_step *step);
uint32_t scene_pages(const struct scene_step *step);

/* most: the largest of the steps that will be planned. */
int scene_open(struct scene *s, unsigned device, bool tiny, uint32_t most_pages,
               uint32_t most_rows);
void scene_close(struct scene *s);

/* The plan is on the device when it returns, and pages are of its type. */
int scene_plan(struct scene *s, const struct scene_step *step);

/* Where launch i has its weight of n bytes. */
const void *scene_weight(const struct scene *s, size_t n, uint32_t i);

/* All lists of one layer, and one segment's keys. */
struct k_fit scene_fit(const struct scene *s);
struct k_move scene_move(const struct scene *s);

#endif
