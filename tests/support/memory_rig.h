/* tests/support/memory_rig.h - a rig whose sequences have a memory policy (daemon/memory.h).
 *
 * Ownership  memory_rig_open/close; actors are closed before it.
 */
#ifndef TESTS_SUPPORT_MEMORY_RIG_H
#define TESTS_SUPPORT_MEMORY_RIG_H

#include "daemon/memory.h"
#include "tests/support/rig.h"

struct memory_rig {
    struct rig rig;
    struct served served;
};

/* -ENOTSUP: as rig_open. */
int memory_rig_open(struct memory_rig *m, const struct rig_opts *opts, struct why *why);
void memory_rig_close(struct memory_rig *m);

/* Nothing is due any more, and all is read that was taken back, in steps of at most chunk. */
int memory_rig_settle(struct memory_rig *m, struct memory *memory, uint32_t chunk);
/* Reads n ids behind what the memory's sequence has, in steps of at most chunk. ret: logits after
 * each (n, n_vocab), or NULL. */
int memory_rig_feed(struct memory_rig *m, struct memory *memory, const uint32_t *ids, uint32_t n,
                    uint32_t chunk, float *ret);

#endif
