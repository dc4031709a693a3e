/* engine/file/stream_fit.h - what of a model stays in memory under a budget, and what passes.
 *
 * In this order as far as the budget goes: what can't do without (vectors, two slots of the ring,
 * rows of the embedding), a third slot, layers, the output matrix, the embedding. A byte of a layer
 * is read for every step, one of the output only where somebody wants logits, and of an embedding
 * that is no output a row a token.
 *
 * Threads    pure functions.
 */
#ifndef ENGINE_FILE_STREAM_FIT_H
#define ENGINE_FILE_STREAM_FIT_H

#include "engine/file/model.h"

#include <stdbool.h>

#define STREAM_SLOTS_MAX 3u

struct stream_fit {
    uint32_t output;   /* the extent that is the output matrix: PACKED_EMBD of a tied model */
    uint32_t n_layers; /* that stay, evenly among all; stream_fit_keeps says which */
    bool keeps_output, keeps_embd;
    uint32_t n_slots;
    size_t slot_len; /* multiples of 4096 */
    uint32_t n_rows; /* buffers for tiles of the embedding */
    size_t row_len;  /* of a buffer for a tile of the embedding; 0: it stays */
    size_t len;      /* of all: at most the budget */
};

/* -EINVAL: too little; *ret_least is what it takes. */
int stream_fit(const struct model *m, uint64_t budget, struct stream_fit *ret, size_t *ret_least);

/* Whether the extent stays. */
bool stream_fit_keeps(const struct stream_fit *f, const struct packed *p, uint32_t extent);

#endif
