/* engine/file/hparams.h - a model's hyperparameters, read from a GGUF header's metadata.
 *
 * Keys are <architecture>.<name>, as the GGUF specification and llama.cpp's converter write them.
 * A key that would change the computation in a way the forward pass does not have (experts, sliding
 * windows, soft caps, other rope scalings...) is refused unless its value means "none".
 *
 * Threads    pure functions.
 * Errors     -EINVAL (missing, of another kind, out of bounds), -ENOTSUP (not what we compute).
 */
#ifndef ENGINE_FILE_HPARAMS_H
#define ENGINE_FILE_HPARAMS_H

#include "engine/file/gguf.h"
#include "engine/file/model.h"

/* Bounds that real models stay far below; they keep every product of two within 64 bits and every
 * count within the types of struct model. */
#define HPARAMS_LAYERS_MAX   1024u
#define HPARAMS_EMBD_MAX     (1u << 17)
#define HPARAMS_FF_MAX       (1u << 20)
#define HPARAMS_HEADS_MAX    1024u
#define HPARAMS_HEAD_DIM_MAX 256u
#define HPARAMS_VOCAB_MAX    (1u << 24)
#define HPARAMS_CTX_MAX      (1u << 30)

/* Fills arch, name, the sizes, rms_eps and rope_base of *m, all but n_vocab, which the embedding's
 * shape says. *ret_rope_scale: what linear scaling divides positions by, 1 without. */
int hparams_read(const struct gguf *g, struct model *m, float *ret_rope_scale, struct why *why);

#endif
