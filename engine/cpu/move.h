/* engine/cpu/move.h - moves keys and values in pages of this machine's memory (engine/backend.h).
 *
 * Threads    the owner of the workers.
 * Ownership  borrows kernels, workers and angles.
 * Errors     move_open: -ENOMEM.
 */
#ifndef ENGINE_CPU_MOVE_H
#define ENGINE_CPU_MOVE_H

#include "engine/backend.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/workers.h"
#include "engine/file/model.h"
#include "engine/kv/pool.h"
#include "engine/kv/rotary.h"

struct move;

/* A key of a list: the tiles that it is in, and its place in its segment. */
struct move_place {
    uint8_t *k, *v;
    uint32_t key;
};

/* list: layer * n_head_kv + head. */
struct move_place move_place_of(const struct pool *p, const uint32_t *pages, uint32_t key,
                                uint32_t list);

/* What one worker moves a key in. */
struct move_scratch {
    float k[KERNELS_HEAD_DIM_MAX], v[KERNELS_HEAD_DIM_MAX], angles[KERNELS_HEAD_DIM_MAX];
};

/* One key, as backend_move has it: turned by the way from one place to the other, or copied where
 * it keeps its place. */
void move_key(const struct kernels *k, const struct rotary *rotary, enum kv_type kv, uint32_t hd,
              const struct move_place *from, const struct move_place *to, struct move_scratch *s);

int move_open(const struct model *m, const struct kernels *k, struct workers *w,
              const struct rotary *rotary, struct move **ret);
void move_close(struct move *v);

void move_run(struct move *v, const struct backend_move *m);
/* ret (n_layer * n_head_kv, n_keys): the sum of squares of each key in those pages. */
void move_norms(struct move *v, const struct pool *pool, const uint32_t *pages, uint32_t n_keys,
                float *ret);

#endif
