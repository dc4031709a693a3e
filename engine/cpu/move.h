/* engine/cpu/move.h - moves keys and values in pages of this machine's memory (engine/kv/mover.h).
 *
 * Threads    the owner of the workers.
 * Ownership  borrows kernels, workers and angles.
 * Errors     move_open: -ENOMEM.
 */
#ifndef ENGINE_CPU_MOVE_H
#define ENGINE_CPU_MOVE_H

#include "engine/cpu/kernels.h"
#include "engine/cpu/workers.h"
#include "engine/kv/mover.h"
#include "engine/kv/rotary.h"

struct move;

int move_open(const struct model *m, const struct kernels *k, struct workers *w,
              const struct rotary *rotary, struct move **ret);
void move_close(struct move *v);

/* For a compressor. */
struct mover move_mover(struct move *v);

#endif
